//! What was seen of every spool, as it is kept: written now and then, completed from the rows that came since.

use std::time::Duration;

use clickhouse::Row;
use serde::Deserialize;

use crate::block::Block;
use crate::database::{Database, StoreError};

/// How long loading a partition may take.
const LOAD_TIMEOUT: Duration = Duration::from_secs(300);
/// How far the receipt of a row may be from when Kafka took its record, in seconds: the longest time that a gateway tries to deliver (1 h), and
/// clocks that differ by as much. Whoever makes rows sees to it; rows that are further off would not be found again.
pub const RECEIPT_SLACK_S: u32 = 2 * 60 * 60;

/// What was seen of a spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolMark {
    /// Partition of the outcomes topic that its terminal is in.
    pub kafka_partition: u16,
    /// Its tenant.
    pub tenant: String,
    /// Its terminal.
    pub terminal: String,
    /// The spool.
    pub spool: u64,
    /// Greatest sequence that is counted.
    pub sequence: u64,
    /// When something was last seen of it, in seconds since 1970-01-01 UTC.
    pub seen_at: u32,
}

impl SpoolMark {
    /// All of the table's columns.
    fn block(marks: &[SpoolMark]) -> Block<'_> {
        Block::of(marks, |block| {
            block.numbers("kafka_partition", |mark| mark.kafka_partition);
            block.words("tenant", |mark| &mark.tenant);
            block.texts("terminal", |mark| &mark.terminal);
            block.numbers("spool", |mark| mark.spool);
            block.numbers("sequence", |mark| mark.sequence);
            block.seconds("seen_at", |mark| mark.seen_at);
        })
    }

    /// The row that says how far the others of a partition reach.
    fn reach(kafka_partition: u16, appended_s: u32) -> SpoolMark {
        SpoolMark { kafka_partition, tenant: String::new(), terminal: String::new(), spool: 0, sequence: 0, seen_at: appended_s }
    }
}

/// What was seen of a spool, and whether the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenSpool {
    /// What was seen.
    pub mark: SpoolMark,
    /// Whether all of it is kept. What is not is known from the rows alone, and will not be found there for ever: whoever keeps what was seen the
    /// next time has to keep this too.
    pub is_kept: bool,
}

impl Database {
    /// What was seen of every spool of a partition in all records that come before offset `before` of its present log, and in its
    /// earlier ones.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn high_water(&self, partition: u16, log: &str, before: u64) -> Result<Vec<SeenSpool>, StoreError> {
        #[derive(Row, Deserialize)]
        struct Found {
            kafka_partition: u16,
            tenant: String,
            terminal: String,
            spool: u64,
            sequence: u64,
            seen_at: u32,
            is_kept: bool,
        }
        let reach =
            "SELECT least(max(seen_at), now()) FROM high_water WHERE kafka_partition = ? AND tenant = '' AND terminal = '' AND spool = 0";
        let server = self.shard(partition);
        let reach = server.asking().query(reach).bind(partition).fetch_one::<u32>();
        let reach = server.answer("say what was seen of spools", LOAD_TIMEOUT, reach).await?;
        let kept = "SELECT kafka_partition, toString(tenant) AS tenant, terminal, spool, sequence, seen_at, true AS is_kept FROM high_water \
                    WHERE kafka_partition = ? AND terminal != ''";
        // Corrections are of no log, so they are not among these.
        let since = "SELECT kafka_partition, toString(tenant) AS tenant, terminal, spool, sequence, toDateTime(received_at) AS seen_at, \
                     false AS is_kept FROM outcomes \
                     WHERE kafka_partition = ? AND received_at >= toDateTime64(?, 3) AND kafka_log != '' \
                     AND NOT (kafka_log = ? AND kafka_offset >= ?)";
        let all = format!(
            "SELECT kafka_partition, tenant, terminal, spool, max(sequence) AS sequence, max(seen_at) AS seen_at, min(is_kept) AS is_kept \
             FROM (SELECT * FROM ({kept}) UNION ALL {since}) GROUP BY kafka_partition, tenant, terminal, spool"
        );
        let query = server.asking().query(&all).bind(partition).bind(partition);
        let query = query.bind(reach.saturating_sub(RECEIPT_SLACK_S)).bind(log).bind(before);
        let found = server.answer("say what was seen of spools", LOAD_TIMEOUT, query.fetch_all::<Found>()).await?;
        Ok(found
            .into_iter()
            .map(|Found { kafka_partition, tenant, terminal, spool, sequence, seen_at, is_kept }| SeenSpool {
                mark: SpoolMark { kafka_partition, tenant, terminal, spool, sequence, seen_at },
                is_kept,
            })
            .collect())
    }

    /// Keeps what was seen of spools. `appended_s` is when Kafka took the last record that is in it, in seconds since 1970-01-01 UTC; all that
    /// changed since the last time has to be there.
    ///
    /// # Errors
    /// When the server did not take it, as far as is known; it can be repeated.
    pub async fn keep_high_water(&self, partition: u16, mut marks: Vec<SpoolMark>, appended_s: u32) -> Result<(), StoreError> {
        marks.push(SpoolMark::reach(partition, appended_s));
        let server = self.shard(partition);
        let kept = SpoolMark::block(&marks).insert(server.client().clone(), "high_water").await;
        kept.map_err(server.failed("keep what was seen of spools"))
    }
}
