//! What became of events that are acknowledged and not counted: so that whoever reads of a loss knows whose it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use faultline_proto::ingest::v1::OutcomeBatch;
use faultline_stream::{OutcomeRecord, Record};
use prost::Message;

use crate::chaos::parts::{Back, Front};
use crate::chaos::writers::name;

/// Where events of one terminal are.
#[derive(Default)]
struct Found {
    /// By sequence, where in Kafka: partition and offset.
    kafka: BTreeMap<u64, Vec<String>>,
    /// Sequences that have a row.
    rows: BTreeSet<u64>,
}

/// Of each terminal, the events from the first to this last that have no row, and where Kafka has them; then the batches that have rows and are not counted.
pub(crate) async fn whereabouts(last: &[u64], front: &Front<'_>, back: &Back<'_>) -> String {
    let mut found = BTreeMap::<String, Found>::new();
    for record in front.records().await {
        let Record { partition, offset, .. } = record;
        let Ok(OutcomeRecord { terminal, batch, .. }) = OutcomeRecord::try_from(&record) else { continue };
        let Ok(batch) = OutcomeBatch::decode(batch) else { continue };
        let found = found.entry(terminal).or_default();
        for event in batch.events {
            found.kafka.entry(event.sequence).or_default().push(format!("{partition}:{offset}"));
        }
    }
    let rows = back.query("SELECT terminal, sequence FROM outcomes GROUP BY terminal, sequence HAVING sum(sign) > 0").await;
    for (terminal, sequence) in rows.lines().filter_map(|row| row.split_once('\t')) {
        found.entry(terminal.into()).or_default().rows.insert(sequence.parse().unwrap());
    }
    let mut said = String::new();
    for (terminal, last) in (0..).zip(last) {
        let found = found.remove(&name(terminal)).unwrap_or_default();
        let missing: Vec<u64> = (1..=*last).filter(|sequence| !found.rows.contains(sequence)).collect();
        let places: BTreeSet<&str> = missing.iter().flat_map(|sequence| found.kafka.get(sequence)).flatten().map(String::as_str).collect();
        if let (Some(first), Some(end)) = (missing.first(), missing.last()) {
            let _ = write!(
                said,
                "\n{}: {} events of {first} to {end} have no row; Kafka has them at {places:?}",
                name(terminal),
                missing.len()
            );
        }
    }
    let uncounted = "SELECT DISTINCT concat(toString(kafka_log), ':', toString(kafka_partition), ':', toString(batch_first_offset), '-', toString(batch_last_offset)) AS batch \
                     FROM outcomes WHERE kafka_log != '' AND batch NOT IN (SELECT toString(key) FROM rollup WHERE family = 'ledger')";
    let _ = write!(said, "\nbatches that have rows and are not counted: {:?}", back.query(uncounted).await);
    said
}
