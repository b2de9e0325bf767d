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
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::program::{eventually, process};
use crate::sandbox::{ports, scratch, start_parts};
use crate::services::{Gateway, Service, query, query_if_up, settings_with};
use crate::terminal::{Terminal, in_seconds, outcome, profile};

/// How long everything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// How much is reported.
#[derive(Clone, Copy)]
pub(crate) struct Volume {
    pub(crate) terminals: u64,
    /// Of each terminal, at most.
    pub(crate) batches: u64,
    pub(crate) events_a_batch: u64,
    /// Between two batches of a terminal.
    pub(crate) pause: Duration,
}

impl Volume {
    /// The batch of a terminal with this number, from 0: outcomes that differ by terminal and event.
    fn batch(self, terminal: u64, number: u64) -> OutcomeBatch {
        let event = |place: u64| {
            let sequence = number * self.events_a_batch + place + 1;
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
            events: (0..self.events_a_batch).map(event).collect(),
            send_time: Some(in_seconds(0)),
            profile: Some(profile()),
            ..OutcomeBatch::default()
        }
    }
}

/// What became of a terminal's batches so far.
#[derive(Default)]
struct Fates {
    acknowledged: AtomicU64,
    /// As often as the terminal was told to come again.
    refused: AtomicU64,
}

/// Terminals that report: each batch until it is acknowledged, and one in seven once more after that.
pub(crate) struct Reporters {
    volume: Volume,
    fates: Arc<[Fates]>,
    enough: CancellationToken,
    running: JoinSet<()>,
}

impl Reporters {
    pub(crate) fn start(terminal: &Terminal, volume: Volume) -> Reporters {
        let fates: Arc<[Fates]> = (0..volume.terminals).map(|_| Fates::default()).collect();
        let enough = CancellationToken::new();
        let mut running = JoinSet::new();
        for number in 0..volume.terminals {
            let (terminal, fates, enough) = (terminal.clone(), Arc::clone(&fates), enough.clone());
            running.spawn(async move {
                let fates = &fates[usize::try_from(number).unwrap()];
                for batch in 0..volume.batches {
                    let repeats = if (number + batch).is_multiple_of(7) { 2 } else { 1 };
                    for repeat in 0..repeats {
                        while let Err(status) = terminal.report(volume.batch(number, batch)).await {
                            assert_ne!(status.code(), tonic::Code::InvalidArgument, "{status}");
                            fates.refused.fetch_add(1, Ordering::Relaxed);
                            sleep(Duration::from_millis(200)).await;
                        }
                        if repeat == 0 {
                            fates.acknowledged.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    if enough.run_until_cancelled(sleep(volume.pause)).await.is_none() {
                        break;
                    }
                }
            });
        }
        Reporters { volume, fates, enough, running }
    }

    /// Batches that were acknowledged so far, by terminal.
    fn acknowledged(&self) -> Vec<u64> {
        self.fates.iter().map(|fates| fates.acknowledged.load(Ordering::Relaxed)).collect()
    }

    /// Waits until so many events are acknowledged.
    pub(crate) async fn until_acknowledged(&self, events: u64) {
        let begin = Instant::now();
        loop {
            let acknowledged = self.acknowledged().iter().sum::<u64>() * self.volume.events_a_batch;
            if acknowledged >= events {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "only {acknowledged} of {events} events were acknowledged");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until each terminal has been acknowledged so many more batches.
    pub(crate) async fn go_on(&self, batches: u64) {
        let before = self.acknowledged();
        let more = async || self.acknowledged().iter().zip(&before).all(|(now, before)| *now >= before + batches).then_some(());
        eventually("every terminal is acknowledged more", more).await;
    }

    /// Waits until each terminal has been told twice to come again, and asserts that none was acknowledged anything between the two. (An
    /// acknowledgement may be on its way when this is called; behind the first refusal there is none.)
    pub(crate) async fn are_only_refused(&self) {
        self.are_refused().await;
        let before = self.acknowledged();
        self.are_refused().await;
        assert_eq!(self.acknowledged(), before);
    }

    async fn are_refused(&self) {
        let refused = || self.fates.iter().map(|fates| fates.refused.load(Ordering::Relaxed)).collect::<Vec<_>>();
        let before = refused();
        let each = async || refused().iter().zip(&before).all(|(now, before)| now > before).then_some(());
        eventually("every terminal is told to come again", each).await;
    }

    /// Lets each terminal bring what it has begun to its end, and begin nothing more.
    pub(crate) async fn stop(self) -> Acknowledged {
        self.enough.cancel();
        self.finish().await
    }

    /// Waits until all is acknowledged.
    pub(crate) async fn finish(mut self) -> Acknowledged {
        let all = async {
            while let Some(ended) = self.running.join_next().await {
                ended.unwrap();
            }
        };
        timeout(PATIENCE, all).await.expect("not all is acknowledged");
        let events = self.acknowledged().iter().map(|batches| batches * self.volume.events_a_batch).collect();
        Acknowledged { events }
    }
}

/// Everything that was acknowledged: of each terminal, the events with the sequences from 1 to this one.
pub(crate) struct Acknowledged {
    events: Vec<u64>,
}

impl Acknowledged {
    pub(crate) fn events(&self) -> u64 {
        self.events.iter().sum()
    }

    /// Compares what is stored with it, identities, amounts and causes: when all of it is counted, and again when there is nothing left that
    /// `classifier`, who has all partitions, could count still.
    pub(crate) async fn audit(&self, clickhouse: &ClickHouseConfig, classifier: &Service, partitions: u32) {
        self.compare(clickhouse).await;
        // What was repeated is among what was dropped.
        eventually("all is done", async || {
            let metrics = classifier.ask("/metrics").await?.1;
            let lags = metrics.lines().filter(|line| line.starts_with("faultline_classifier_lag_seconds{")).collect::<Vec<_>>();
            let all = lags.len() == usize::try_from(partitions).unwrap();
            (all && lags.iter().all(|line| line.ends_with(" 0"))).then_some(())
        })
        .await;
        self.compare(clickhouse).await;
    }

    async fn compare(&self, clickhouse: &ClickHouseConfig) {
        let (begin, events) = (Instant::now(), self.events());
        let ledger = "SELECT sum(count) FROM rollup WHERE family = 'ledger'";
        loop {
            let counted = query_if_up(clickhouse, ledger).await;
            if counted.as_deref() == Some(&events.to_string()) {
                break;
            }
            assert!(begin.elapsed() < PATIENCE, "{counted:?} of {events} events are counted");
            sleep(Duration::from_millis(200)).await;
        }
        // Every identity, and no other, once: so many of each terminal, from the first sequence to the last.
        let identities = "SELECT terminal, count(), uniqExact(spool), uniqExact(sequence), min(sequence), max(sequence) FROM outcomes \
                          GROUP BY terminal ORDER BY terminal";
        let all = (0..).zip(&self.events).map(|(terminal, last)| format!("T-{terminal:03}\t{last}\t1\t{last}\t1\t{last}"));
        assert_eq!(query(clickhouse, identities).await, all.collect::<Vec<_>>().join("\n"));

        let amounts = self.events.iter().map(|last| last * (last + 1) / 2).sum::<u64>();
        let by_cause = "SELECT cause, tag, count() AS rows, sum(amount_minor) FROM outcomes GROUP BY cause, tag ORDER BY cause, tag";
        let stored = query(clickhouse, by_cause).await;
        assert_eq!(stored.lines().count(), 6, "{stored}");
        for family in families() {
            let sums = format!("SELECT sum(count), sum(amount_minor) FROM rollup WHERE family = '{family}' AND NOT simulated");
            assert_eq!(query(clickhouse, &sums).await, format!("{events}\t{amounts}"), "{family}");
            let by_cause = format!(
                "SELECT cause, tag, sum(count), sum(amount_minor) FROM rollup WHERE family = '{family}' AND NOT simulated \
                 GROUP BY cause, tag ORDER BY cause, tag"
            );
            assert_eq!(query(clickhouse, &by_cause).await, stored, "{family}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_is_counted_once_whatever_is_killed() {
    let volume = Volume { terminals: 40, batches: 50, events_a_batch: 100, pause: Duration::ZERO };
    let events = volume.terminals * volume.batches * volume.events_a_batch;
    let directory = scratch("ledger");
    let local = LocalConfig { data_dir: directory.path().into(), ..ports() };
    let (parts, kafka, clickhouse) = start_parts(&local).await;
    let mut settings = settings_with(&kafka, &clickhouse);
    settings.push(("CLASSIFIER__MAX_BATCH_DELAY", "200ms".into()));
    settings.push(("CLASSIFIER__HIGH_WATER_INTERVAL", "2s".into()));
    let first = Service::start("classifier", settings.clone());
    let gateway = Gateway::start_on(kafka, &[]).await;
    tokio::join!(gateway.service.until_ready(), first.until_ready());

    let reporters = Reporters::start(&gateway.collector().await, volume);
    let until_acknowledged = async |percent: u64| reporters.until_acknowledged(events * percent / 100).await;
    until_acknowledged(15).await;
    first.kill().await;
    until_acknowledged(25).await;
    let second = Service::start("classifier", settings);
    for (percent, part) in [(45, "kafka.Kafka"), (70, "clickhouse-server")] {
        until_acknowledged(percent).await;
        let victim = eventually(part, async || process(directory.path(), part)).await;
        kill(Pid::from_raw(victim), Signal::SIGKILL).unwrap();
        eventually("it runs again", async || process(directory.path(), part).filter(|pid| *pid != victim)).await;
    }
    let acknowledged = reporters.finish().await;
    assert_eq!(acknowledged.events(), events);

    acknowledged.audit(&clickhouse, &second, local.kafka_partitions).await;
    assert!(second.counted("faultline_classifier_events_total", &["repeated"]).await > 0);
    second.stop().await;
    gateway.stop().await;
    parts.stop().await;
}
