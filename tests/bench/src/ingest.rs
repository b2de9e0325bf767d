//! What a million events cost from Kafka into ClickHouse: CPU seconds of the classifier and the server until background merges have settled, beside
//! those of two peers that write the same rows in the same run:
//!
//! - *ready-made*: the very blocks that the classifier wrote, inserted into the table of outcomes alone;
//! - *Kafka engine*: ClickHouse reads the rows from Kafka by itself (RowBinary, a hundred a message), and a view makes the same roll-ups.
//!
//! And what the classifier remembers of a million terminals, and how long it takes to load them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use faultline_deploy::Wanted;
use faultline_store::Database;
use faultline_stream::{Cluster, KafkaConfig};
use tokio::sync::Mutex;

use crate::fleet;
use crate::gateway::produce;
use crate::loading;
use crate::local::{Local, of_a_million, record, until};
use crate::processes::{Service, cpu_time, resident_mib};
use crate::report::{Figure, Report, say};
use crate::store::Store;

/// Events that are measured, so many of a terminal.
const EVENTS: usize = 1_000_000;
const OF_BATCH: usize = 10;
const SPOOL: u64 = 1;
/// Events before anything is measured.
const WARM_UP: usize = 300_000;
const WARM_UP_SPOOL: u64 = 2;
/// Terminals that the classifier knows in the end.
const TERMINALS: usize = 1_000_000;
const PORT: u16 = 29_021;
const PATIENCE: Duration = Duration::from_secs(240);

/// Measures it.
pub(crate) async fn measure(program: &Path) -> anyhow::Result<Report> {
    let local = Local::start(program, PORT, Wanted { kafka: true, clickhouse: true }).await?;
    let store = Store::new(local.clickhouse()?)?;
    let database = Database::new(&store.config)?;
    until("ClickHouse answers", PATIENCE, async || Ok(database.probe().await.is_ok())).await?;
    database.migrate().await?;

    let listen = format!("127.0.0.1:{}", PORT + 4);
    let mut command = local.command(program, "classifier");
    command.env("FAULTLINE__MONITORING__LISTEN", listen);
    // What is done once is not counted.
    produce(&local.kafka, fleet::batches(WARM_UP_SPOOL, (WARM_UP, OF_BATCH))?.iter().map(record).collect()).await?;
    let first = Service::start(&mut command)?;
    store.until_counted(WARM_UP).await?;
    first.stop().await?;
    store.until_settled().await?;
    store.query("TRUNCATE TABLE outcomes").await?;
    store.query("TRUNCATE TABLE rollup").await?;

    produce(&local.kafka, fleet::batches(SPOOL, (EVENTS, OF_BATCH))?.iter().map(record).collect()).await?;
    let before = local.used_by_clickhouse()?;
    let classifier = Service::start(&mut command)?;
    store.until_counted(EVENTS).await?;
    store.until_settled().await?;
    let by_server = of_a_million(local.used_by_clickhouse()? - before, EVENTS)?;
    let by_classifier = of_a_million(cpu_time(classifier.pid()?)?, EVENTS)?;
    let road = by_classifier + by_server;
    say(&format!("ingest: {EVENTS} events: classifier {by_classifier:.2} and ClickHouse {by_server:.2} CPU s a million\n"));

    let ready_made = of_a_million(ready_made(&local, &store).await?, EVENTS)?;
    say(&format!("ingest: the same blocks ready-made: {ready_made:.2} CPU s a million\n"));
    let engine = of_a_million(engine(&local, &store).await?, EVENTS)?;
    say(&format!("ingest: ClickHouse's Kafka engine: {engine:.2} CPU s a million\n"));
    produce(&local.kafka, fleet::batches(SPOOL, (TERMINALS, 1))?.iter().map(record).collect()).await?;
    // Some of them are known, and their events are repeats.
    store.until_counted(EVENTS + TERMINALS - EVENTS / OF_BATCH).await?;
    let resident = resident_mib(classifier.pid()?)?;
    classifier.stop().await?;
    say(&format!("ingest: {resident:.0} MiB of the classifier are resident where it knows {TERMINALS} terminals\n"));
    let loading = loading::measure(program, &local, PORT + 5).await?;
    local.stop().await;
    let mut figures = vec![
        Figure::at_most(("ingest_ratio", ""), 1.8, road / ready_made),
        Figure::at_most(("ingest_vs_kafka_engine", ""), 1.0, road / engine),
        Figure::stated(("ingest_cpu_s_per_m_classifier", "CPU s"), by_classifier),
        Figure::stated(("ingest_cpu_s_per_m_clickhouse", "CPU s"), by_server),
        Figure::stated(("ingest_cpu_s_per_m_ready_made", "CPU s"), ready_made),
        Figure::stated(("ingest_cpu_s_per_m_kafka_engine", "CPU s"), engine),
        Figure::stated(("classifier_rss_mib", "MiB"), resident),
    ];
    figures.extend(loading);
    Ok(Report { bench: "ingest", figures })
}

/// What the server uses where the same blocks come ready-made, as it wrote them itself, for the table of outcomes alone.
async fn ready_made(local: &Local, store: &Store) -> anyhow::Result<Duration> {
    store.query("CREATE TABLE ready_made AS outcomes").await?;
    let blocks =
        "SELECT DISTINCT kafka_partition, batch_first_offset FROM outcomes ORDER BY batch_first_offset, kafka_partition FORMAT TSV";
    let mut bodies = Vec::new();
    for block in store.query(blocks).await?.lines() {
        let (partition, first) = block.split_once('\t').context("a block has no name")?;
        let rows = format!(
            "SELECT * FROM outcomes WHERE kafka_partition = {partition} AND batch_first_offset = {first} \
             ORDER BY kafka_offset, record_index SETTINGS max_block_size = 10000000, max_threads = 1 FORMAT Native"
        );
        bodies.push(store.send(&[("query", rows.as_str()), ("compress", "1")], Bytes::new()).await?);
    }
    let before = local.used_by_clickhouse()?;
    let bodies = Mutex::new(bodies.into_iter().enumerate());
    let inserter = async || {
        loop {
            let Some((number, body)) = bodies.lock().await.next() else { return anyhow::Ok(()) };
            let token = number.to_string();
            let parameters = [
                ("query", "INSERT INTO ready_made FORMAT Native"),
                ("decompress", "1"),
                ("async_insert", "0"),
                ("insert_deduplication_token", token.as_str()),
                ("max_insert_threads", "1"),
                ("max_insert_block_size", "10000000"),
                ("min_insert_block_size_rows", "10000000"),
                ("min_insert_block_size_bytes", "0"),
            ];
            store.send(&parameters, body).await?;
        }
    };
    // As many at a time as of the classifier.
    tokio::try_join!(inserter(), inserter(), inserter(), inserter())?;
    store.until_settled().await?;
    let used = local.used_by_clickhouse()? - before;
    check(store, "SELECT count() FROM ready_made").await?;
    Ok(used)
}

/// What the server uses where it reads the rows from Kafka by itself and counts them by a view.
async fn engine(local: &Local, store: &Store) -> anyhow::Result<Duration> {
    let kafka = KafkaConfig { topic_prefix: "engine".into(), ..local.kafka.clone() };
    Cluster::new(&kafka)?.ensure_topics().await?;
    let source = format!(
        "ENGINE = Kafka SETTINGS kafka_broker_list = '{}', kafka_topic_list = 'engine.outcomes', kafka_group_name = 'engine', \
         kafka_format = 'RowBinary', kafka_max_rows_per_message = 100, kafka_num_consumers = 2",
        kafka.brokers
    );
    store.query(&format!("CREATE TABLE engine_feed AS outcomes {source}")).await?;
    store.query("INSERT INTO engine_feed SELECT * FROM outcomes").await?;
    store.query("DROP TABLE engine_feed").await?;
    for table in ["outcomes", "rollup"] {
        store.query(&format!("CREATE TABLE engine_{table} AS {table}")).await?;
    }
    store.query(&format!("CREATE MATERIALIZED VIEW engine_counts TO engine_rollup AS {ROLLUP}")).await?;
    let before = local.used_by_clickhouse()?;
    store.query(&format!("CREATE TABLE engine_queue AS outcomes {source}")).await?;
    store.query("CREATE MATERIALIZED VIEW engine_rows TO engine_outcomes AS SELECT * FROM engine_queue").await?;
    until("the Kafka engine has read everything", PATIENCE, async || {
        let rows = store.query("SELECT count() FROM engine_outcomes").await?;
        Ok(rows.parse::<usize>()? >= EVENTS)
    })
    .await?;
    store.until_settled().await?;
    let used = local.used_by_clickhouse()? - before;
    check(store, "SELECT count() FROM engine_outcomes").await?;
    let sums = |table| format!("SELECT {COUNTED}, sum(count), sum(amount_minor) FROM {table} WHERE family != 'ledger' GROUP BY {COUNTED}");
    let others = store.query(&format!("SELECT count() FROM ({} EXCEPT {})", sums("rollup"), sums("engine_rollup"))).await?;
    if others != "0" {
        bail!("{others} counts are not those of the classifier");
    }
    Ok(used)
}

/// What is counted apart.
const COUNTED: &str = "tenant, family, key, bucket, tag, cause, currency";

/// The roll-ups, as a view makes them.
const ROLLUP: &str = "
    WITH transform(entry_mode, [0, 1, 2, 3, 4, 5], ['', 'chip', 'contactless', 'magnetic_stripe', 'qr', 'keyed'], 'newer') AS entry
    SELECT tenant, family, key, toStartOfInterval(completed_at, INTERVAL 10 SECOND) AS bucket, tag, cause, currency,
           sum(sign) AS count, sum(sign * amount_minor) AS amount_minor
    FROM engine_outcomes
    ARRAY JOIN
        ['fleet', 'issuer', 'issuer_entry', 'carrier', 'carrier_region', 'host', 'model_firmware', 'region', 'merchant_group'] AS family,
        ['', issuer, concat(issuer, '|', entry), carrier, concat(carrier, '|', region), concat(acquirer, '|', host), concat(model, '|', firmware),
         region, merchant_group] AS key
    GROUP BY tenant, family, key, bucket, tag, cause, currency";

/// Whether a peer has done all of it, and only that.
async fn check(store: &Store, count: &str) -> anyhow::Result<()> {
    let rows = store.query(count).await?;
    if rows == EVENTS.to_string() { Ok(()) } else { bail!("{rows} instead of {EVENTS}: {count}") }
}
