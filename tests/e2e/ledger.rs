//! The ledger: what was acknowledged is counted, once, in the rows and in every family, whatever is killed on the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use faultline_deploy::LocalConfig;
use faultline_proto::ingest::v1::{Event, OutcomeBatch};
use faultline_proto::outcome::v1::Outcome;
use faultline_store::{ClickHouseConfig, families};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::program::{eventually, process};
use crate::sandbox::{ports, scratch, start_parts};
use crate::services::{Gateway, Service, query, query_if_up, settings_with};
use crate::terminal::{Terminal, in_seconds, outcome, profile};

const TERMINALS: u64 = 40;
const BATCHES: u64 = 50;
const EVENTS_A_BATCH: u64 = 100;
const EVENTS: u64 = TERMINALS * BATCHES * EVENTS_A_BATCH;

/// How long everything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// The batch of a terminal with this number, from 0: outcomes that differ by terminal and event.
fn batch(terminal: u64, number: u64) -> OutcomeBatch {
    let event = |place: u64| {
        let sequence = number * EVENTS_A_BATCH + place + 1;
        let code = ["00", "00", "00", "51", "91", "05", "", "ZZ"][usize::try_from((terminal + sequence) % 8).unwrap()];
        let outcome = Outcome {
            amount_minor: i64::try_from(sequence).unwrap(),
            bin: ["622848", "622202", "621700", "999999"][usize::try_from(terminal % 4).unwrap()].into(),
            response_code: code.into(),
            acquirer_id: "48020000".into(),
            host_id: format!("host-{}", terminal % 3),
            ..outcome()
        };
        Event { sequence, age_ms: Some(place * 50), outcome: Some(outcome) }
    };
    OutcomeBatch {
        terminal_id: format!("T-{terminal:03}"),
        spool_id: 1000 + terminal,
        events: (0..EVENTS_A_BATCH).map(event).collect(),
        send_time: Some(in_seconds(0)),
        profile: Some(profile()),
        ..OutcomeBatch::default()
    }
}

/// Reports everything of one terminal: each batch until it is acknowledged, and one in seven once more after that.
async fn report_all(terminal: Terminal, number: u64, acknowledged: Arc<AtomicU64>) {
    for batch_number in 0..BATCHES {
        let repeats = if (number + batch_number).is_multiple_of(7) { 2 } else { 1 };
        for repeat in 0..repeats {
            while let Err(status) = terminal.report(batch(number, batch_number)).await {
                assert_ne!(status.code(), tonic::Code::InvalidArgument, "{status}");
                sleep(Duration::from_millis(200)).await;
            }
            if repeat == 0 {
                acknowledged.fetch_add(EVENTS_A_BATCH, Ordering::Relaxed);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_is_counted_once_whatever_is_killed() {
    let directory = scratch("ledger");
    let local = LocalConfig { data_dir: directory.path().into(), ..ports() };
    let (parts, kafka, clickhouse) = start_parts(&local).await;
    let mut settings = settings_with(&kafka, &clickhouse);
    settings.push(("CLASSIFIER__MAX_BATCH_DELAY", "200ms".into()));
    settings.push(("CLASSIFIER__HIGH_WATER_INTERVAL", "2s".into()));
    let first = Service::start("classifier", settings.clone());
    let gateway = Gateway::start_on(kafka, &[]).await;
    tokio::join!(gateway.service.until_ready(), first.until_ready());
    let collector = gateway.collector().await;

    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::new();
    for number in 0..TERMINALS {
        writers.spawn(report_all(collector.clone(), number, Arc::clone(&acknowledged)));
    }
    let until_acknowledged = async |share: u64| {
        let begin = Instant::now();
        while acknowledged.load(Ordering::Relaxed) < EVENTS * share / 100 {
            assert!(begin.elapsed() < PATIENCE, "only {acknowledged:?} events were acknowledged");
            sleep(Duration::from_millis(5)).await;
        }
    };
    until_acknowledged(15).await;
    first.kill().await;
    until_acknowledged(25).await;
    let second = Service::start("classifier", settings);
    for (share, part) in [(45, "kafka.Kafka"), (70, "clickhouse-server")] {
        until_acknowledged(share).await;
        let victim = eventually(part, async || process(directory.path(), part)).await;
        kill(Pid::from_raw(victim), Signal::SIGKILL).unwrap();
        eventually("it runs again", async || process(directory.path(), part).filter(|pid| *pid != victim)).await;
    }
    while let Some(written) = writers.join_next().await {
        written.unwrap();
    }
    assert_eq!(acknowledged.load(Ordering::Relaxed), EVENTS);

    audit(&clickhouse).await;
    // What was repeated is among what was dropped, and nothing is left that could be counted still.
    eventually("all is done", async || {
        let metrics = second.ask("/metrics").await?.1;
        let lags = metrics.lines().filter(|line| line.starts_with("faultline_classifier_lag_seconds{")).collect::<Vec<_>>();
        let partitions = usize::try_from(local.kafka_partitions).unwrap();
        (lags.len() == partitions && lags.iter().all(|line| line.ends_with(" 0"))).then_some(())
    })
    .await;
    audit(&clickhouse).await;
    assert!(second.counted("faultline_classifier_events_total", &["repeated"]).await > 0);
    second.stop().await;
    gateway.stop().await;
    parts.stop().await;
}

/// Compares what is stored with what was acknowledged: identities, amounts and causes.
async fn audit(clickhouse: &ClickHouseConfig) {
    let begin = Instant::now();
    let ledger = "SELECT sum(count) FROM rollup WHERE family = 'ledger'";
    loop {
        let counted = query_if_up(clickhouse, ledger).await;
        if counted.as_deref() == Some(&EVENTS.to_string()) {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{counted:?} of {EVENTS} events are counted");
        sleep(Duration::from_millis(200)).await;
    }
    // Every identity, and no other, once: so many of each terminal, from the first sequence to the last.
    let identities =
        "SELECT count(), uniqExact(terminal, spool, sequence), min(sequence), max(sequence), uniqExact(terminal) FROM outcomes";
    let a_terminal = BATCHES * EVENTS_A_BATCH;
    assert_eq!(query(clickhouse, identities).await, format!("{EVENTS}\t{EVENTS}\t1\t{a_terminal}\t{TERMINALS}"));

    let amounts = TERMINALS * a_terminal * (a_terminal + 1) / 2;
    let by_cause = "SELECT cause, tag, count() AS rows, sum(amount_minor) FROM outcomes GROUP BY cause, tag ORDER BY cause, tag";
    let stored = query(clickhouse, by_cause).await;
    assert_eq!(stored.lines().count(), 6, "{stored}");
    for family in families() {
        let sums = format!("SELECT sum(count), sum(amount_minor) FROM rollup WHERE family = '{family}' AND NOT simulated");
        assert_eq!(query(clickhouse, &sums).await, format!("{EVENTS}\t{amounts}"), "{family}");
        let by_cause = format!(
            "SELECT cause, tag, sum(count), sum(amount_minor) FROM rollup WHERE family = '{family}' AND NOT simulated \
             GROUP BY cause, tag ORDER BY cause, tag"
        );
        assert_eq!(query(clickhouse, &by_cause).await, stored, "{family}");
    }
}
