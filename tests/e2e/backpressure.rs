//! Where something is slower than what comes: one terminal that loops, a Kafka and a ClickHouse that hang. What cannot go on waits where it is kept
//! anyway, and no process grows.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use faultline_deploy::LocalConfig;
use faultline_proto::ingest::v1::{OutcomeBatch, ReportOutcomesRequest};
use faultline_stream::{KafkaConfig, OutcomeProducer, OutcomeRecord};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::classifier::{counted, place, settings};
use crate::gateway::Hanging;
use crate::program::{eventually, process};
use crate::sandbox::{PATIENCE, ports, scratch, start_parts};
use crate::services::{Gateway, Service, query, query_if_up};
use crate::terminal::{Terminal, batch, event, in_seconds, profile};

const MIB: u64 = 1 << 20;

/// How long a whole test may take on a busy machine.
const LONG: Duration = Duration::from_secs(300);

/// Bytes of a process that are in memory.
fn resident(service: &Service) -> u64 {
    in_memory(service, "VmRSS:")
}

/// Most bytes that were in memory at any moment.
fn most_resident(service: &Service) -> u64 {
    in_memory(service, "VmHWM:")
}

fn in_memory(service: &Service, which: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", service.program.pid())).unwrap();
    let bytes = status.lines().find_map(|line| line.strip_prefix(which)).unwrap();
    bytes.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

/// The batch of one event, with this of a newer contract beside it.
fn batch_beside(terminal: &str, sequence: u64, padding: impl ExactSizeIterator<Item = u8>) -> Vec<u8> {
    let mut batch = OutcomeBatch { terminal_id: terminal.into(), ..batch(vec![event(sequence)]) }.encode_to_vec();
    encode_key(1003, WireType::LengthDelimited, &mut batch);
    encode_varint(u64::try_from(padding.len()).unwrap(), &mut batch);
    batch.extend(padding);
    batch
}

/// The same as a request, with so many bytes that do not compress.
fn padded(terminal: &str, sequence: u64, bytes: usize) -> Vec<u8> {
    let mut state = sequence;
    let noise = (0..bytes).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    });
    let batch = batch_beside(terminal, sequence, noise);
    let mut request = ReportOutcomesRequest { profile: Some(profile()), batch: None, rules: None }.encode_to_vec();
    encode_key(2, WireType::LengthDelimited, &mut request);
    encode_varint(u64::try_from(batch.len()).unwrap(), &mut request);
    request.extend(batch);
    request
}

/// Asserts that a terminal was sent away to come again: with a delay.
fn sent_away(status: &Status) {
    assert!([Code::ResourceExhausted, Code::Unavailable].contains(&status.code()), "{status}");
    assert!(status.get_error_details().retry_info().unwrap().retry_delay.is_some_and(|delay| !delay.is_zero()), "{status}");
}

/// What a terminal that loops has done.
#[derive(Default)]
struct Looped {
    acknowledged: AtomicU64,
    /// Times that it was sent away: in all, and for what it sends, not how much of it at one moment.
    refused: AtomicU64,
    too_fast: AtomicU64,
}

const LOOPED_EVENTS: u64 = 400;

/// Sends new batches of a spool as fast as they are acknowledged, each of them again, and heeds no delay, until it may stop.
async fn report_in_a_loop(terminal: Terminal, spool: u64, looped: Arc<Looped>, may_stop: CancellationToken) {
    let mut stream = None;
    let mut number = 0;
    while !may_stop.is_cancelled() {
        let sequences = number * LOOPED_EVENTS + 1..=(number + 1) * LOOPED_EVENTS;
        let batch = OutcomeBatch { spool_id: spool, ..batch(sequences.map(event).collect()) };
        // Even spools over a stream that is opened anew whenever it ends, odd ones in calls of their own.
        let reported = if spool.is_multiple_of(2) {
            let open = match stream.take() {
                Some(open) => Ok(open),
                None => terminal.try_stream().await,
            };
            match open {
                Ok(mut open) => {
                    let reported = open.report(batch.clone()).await;
                    stream = reported.is_ok().then_some(open);
                    reported
                }
                Err(status) => Err(status),
            }
        } else {
            terminal.report(batch.clone()).await
        };
        match reported {
            Ok(acknowledgement) => {
                assert_eq!(acknowledgement.acknowledged_through, (number + 1) * LOOPED_EVENTS);
                looped.acknowledged.fetch_add(LOOPED_EVENTS, Ordering::Relaxed);
                number += 1;
            }
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                sent_away(&status);
                looped.refused.fetch_add(1, Ordering::Relaxed);
                looped.too_fast.fetch_add(u64::from(status.message().contains("sends more than it may")), Ordering::Relaxed);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_that_loops_is_limited_and_the_others_do_not_notice() {
    const OTHERS: u64 = 20;
    const BATCHES: u64 = 10;
    const EVENTS: u64 = 10;
    let (kafka, clickhouse) = place("loops").await;
    let classifier = Service::start("classifier", settings(&kafka, &clickhouse));
    let share = [("GATEWAY__SHARE__CALLS", "6".to_owned()), ("GATEWAY__SHARE__BURST_EVENTS", "4000".to_owned())];
    let gateway = Gateway::start_on(kafka, &share).await;
    tokio::join!(gateway.service.until_ready(), classifier.until_ready());
    let collector = gateway.collector().await;

    let (looped, may_stop) = (Arc::new(Looped::default()), CancellationToken::new());
    let mut loops = JoinSet::new();
    for spool in 1..=12 {
        // Each over a connection of its own.
        loops.spawn(report_in_a_loop(gateway.terminal(), spool, Arc::clone(&looped), may_stop.clone()));
    }
    eventually("it is limited", async || (looped.too_fast.load(Ordering::Relaxed) > 0).then_some(())).await;

    let mut others = JoinSet::new();
    for number in 0..OTHERS {
        let collector = collector.clone();
        others.spawn(async move {
            let mut stream = collector.stream().await;
            for batch_number in 0..BATCHES {
                let events = (batch_number * EVENTS + 1..=(batch_number + 1) * EVENTS).map(event).collect();
                let batch = OutcomeBatch { terminal_id: format!("T-{}", 100 + number), ..batch(events) };
                let acknowledgement = stream.report(batch).await.unwrap();
                assert_eq!(acknowledgement.acknowledged_through, (batch_number + 1) * EVENTS);
                assert_eq!(acknowledgement.refusals, []);
            }
        });
    }
    let all = async {
        while let Some(ended) = others.join_next().await {
            ended.unwrap()
        }
    };
    timeout(LONG, all).await.unwrap();
    let refused_meanwhile = looped.refused.load(Ordering::Relaxed);
    eventually("it is limited still", async || (looped.refused.load(Ordering::Relaxed) > refused_meanwhile).then_some(())).await;
    may_stop.cancel();
    while let Some(ended) = timeout(LONG, loops.join_next()).await.unwrap() {
        ended.unwrap();
    }

    let of_loop = looped.acknowledged.load(Ordering::Relaxed);
    assert!(of_loop > 0);
    counted(&clickhouse, usize::try_from(of_loop + OTHERS * BATCHES * EVENTS).unwrap()).await;
    let by_terminal = "SELECT countIf(terminal = 'T-1'), uniqExactIf(terminal, terminal != 'T-1') FROM outcomes";
    assert_eq!(query(&clickhouse, by_terminal).await, format!("{of_loop}\t{OTHERS}"));
    assert!(gateway.service.counted("faultline_gateway_batches_total", &["fate=\"limited\""]).await > 0);
    assert_eq!(gateway.service.counted("faultline_gateway_batches_total", &["fate=\"shed\""]).await, 0);
    classifier.stop().await;
    let ended = gateway.stop().await;
    assert!(ended.stderr.contains("a terminal is limited") && ended.stderr.contains("T-1"), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_kafka_hangs_terminals_are_sent_away_and_the_gateway_does_not_grow() {
    const TERMINALS: u64 = 32;
    const BYTES: usize = 512 * 1024;
    const IN_FLIGHT: u64 = 4 * MIB;
    /// Times that somebody is sent away: of what comes meanwhile, the gateway would have to hold some 200 MiB.
    const SENT_AWAY: u64 = 400;
    let settings = [("GATEWAY__IN_FLIGHT", "4 MiB".to_owned()), ("KAFKA__DELIVERY_TIMEOUT", "2s".to_owned())];
    let hanging = Hanging::start(&settings).await;
    let collector = hanging.gateway.collector().await;
    // Reports of everybody at once, each until it is acknowledged.
    let report = |sequence: u64, refused: &Arc<AtomicU64>| {
        let mut reports = JoinSet::new();
        for number in 0..TERMINALS {
            let (collector, refused) = (collector.clone(), Arc::clone(refused));
            reports.spawn(async move {
                let request = padded(&format!("T-{number}"), sequence, BYTES);
                while let Err(status) = timeout(PATIENCE, collector.report_bytes(request.clone())).await.unwrap() {
                    sent_away(&status);
                    refused.fetch_add(1, Ordering::Relaxed);
                    sleep(Duration::from_millis(50)).await;
                }
            });
        }
        reports
    };
    let until_done = async |mut reports: JoinSet<()>| {
        while let Some(ended) = timeout(LONG, reports.join_next()).await.unwrap() {
            ended.unwrap();
        }
    };
    // What it takes to have so many messages at once is not what waits.
    until_done(report(1, &Arc::default())).await;
    let before = resident(&hanging.gateway.service);

    hanging.hang();
    let refused = Arc::new(AtomicU64::new(0));
    let reports = report(2, &refused);
    let (mut most, mut most_waiting) = (0, 0);
    timeout(LONG, async {
        while refused.load(Ordering::Relaxed) < SENT_AWAY {
            most = most.max(resident(&hanging.gateway.service));
            most_waiting = most_waiting.max(hanging.waiting().await);
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    assert!(most_waiting > 0 && most_waiting <= IN_FLIGHT, "{most_waiting}");
    assert!(most < before + 64 * MIB, "{} MiB, and {} MiB before", most / MIB, before / MIB);
    for fate in ["shed", "unavailable"] {
        assert!(hanging.gateway.service.counted("faultline_gateway_batches_total", &[fate]).await > 0, "{fate}");
    }

    hanging.go_on();
    until_done(reports).await;
    let records = hanging.gateway.records().await;
    let taken: BTreeSet<_> = records
        .iter()
        .map(|record| (record.terminal.as_str(), OutcomeBatch::decode(record.batch.clone()).unwrap().events[0].sequence))
        .filter(|(_, sequence)| *sequence == 2)
        .collect();
    assert_eq!(taken.len(), usize::try_from(TERMINALS).unwrap());
    assert_eq!(hanging.waiting().await, 0);
    hanging.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_clickhouse_hangs_the_gateway_acknowledges_and_the_classifier_does_not_grow() {
    const TERMINALS: u64 = 16;
    const BATCHES: u64 = 24;
    const BYTES: usize = 256 * 1024;
    let directory = scratch("clickhouse-hangs");
    let local = LocalConfig { data_dir: directory.path().into(), kafka_partitions: 4, ..ports() };
    let (parts, kafka, clickhouse) = start_parts(&local).await;
    let kafka = KafkaConfig { topic_prefix: "hangs".into(), ..kafka };
    let mut small = settings(&kafka, &clickhouse);
    small.push(("CLASSIFIER__QUEUE_BYTES", "64 KiB".into()));
    small.push(("CLASSIFIER__MAX_BATCH_BYTES", "1 MiB".into()));
    let classifier = Service::start("classifier", small);
    let gateway = Gateway::start_on(kafka, &[]).await;
    tokio::join!(gateway.service.until_ready(), classifier.until_ready());
    let collector = gateway.collector().await;
    let mut rows = 0;
    let mut report = async |batches: std::ops::RangeInclusive<u64>| {
        let mut reports = JoinSet::new();
        for number in 0..TERMINALS {
            let (collector, batches) = (collector.clone(), batches.clone());
            reports.spawn(async move {
                for sequence in batches {
                    let request = padded(&format!("T-{number}"), sequence, BYTES);
                    collector.report_bytes(request).await.unwrap();
                }
            });
        }
        while let Some(ended) = timeout(LONG, reports.join_next()).await.unwrap() {
            ended.unwrap();
        }
        rows += usize::try_from(TERMINALS * (batches.end() + 1 - batches.start())).unwrap();
        rows
    };
    counted(&clickhouse, report(1..=2).await).await;
    let before = resident(&classifier);

    let server = Pid::from_raw(eventually("the server is there", async || process(directory.path(), "clickhouse-server")).await);
    kill(server, Signal::SIGSTOP).unwrap();
    let mut most = 0;
    let watching = async {
        loop {
            most = most.max(resident(&classifier));
            sleep(Duration::from_millis(20)).await;
        }
    };
    // All of them are acknowledged, some 96 MiB, while nothing is stored.
    let rows = tokio::select! {
        rows = report(3..=BATCHES + 2) => rows,
        () = watching => unreachable!(),
    };
    classifier.until_it_says("ClickHouse").await;
    most = most.max(resident(&classifier));
    assert!(most < before + 48 * MIB, "{} MiB, and {} MiB before", most / MIB, before / MIB);
    kill(server, Signal::SIGCONT).unwrap();
    // What was on its way when it was stopped has to be asked for, which takes its time.
    timeout(LONG, async {
        while query_if_up(&clickhouse, "SELECT count() FROM outcomes").await != Some(rows.to_string()) {
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .unwrap();
    counted(&clickhouse, rows).await;
    classifier.stop().await;
    gateway.stop().await;
    parts.stop().await;
}

/// What a broker answers is bounded as it was sent; here, that is some two hundred times as much.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_that_compresses_well_does_not_make_the_classifier_grow_while_clickhouse_hangs() {
    const TERMINALS: u64 = 16;
    const BATCHES: u64 = 64;
    const BYTES: usize = 256 * 1024;
    let directory = scratch("compressed-backlog");
    let local = LocalConfig { data_dir: directory.path().into(), kafka_partitions: 4, ..ports() };
    let (parts, kafka, clickhouse) = start_parts(&local).await;
    let kafka = KafkaConfig { topic_prefix: "compressed".into(), ..kafka };
    let mut small = settings(&kafka, &clickhouse);
    small.push(("CLASSIFIER__QUEUE_BYTES", "1 MiB".into()));
    small.push(("CLASSIFIER__MAX_BATCH_BYTES", "1 MiB".into()));
    let classifier = Service::start("classifier", small);
    classifier.until_ready().await;
    let producer = Arc::new(OutcomeProducer::new(&kafka).unwrap());
    let report = async |batches: std::ops::RangeInclusive<u64>| {
        let mut reports = JoinSet::new();
        for number in 0..TERMINALS {
            let (producer, batches) = (Arc::clone(&producer), batches.clone());
            reports.spawn(async move {
                let terminal = format!("T-{number}");
                for sequence in batches {
                    let record = OutcomeRecord {
                        tenant: "acme".into(),
                        terminal: terminal.clone(),
                        receipt_ms: in_seconds(0).seconds * 1000,
                        profile: Bytes::new(),
                        trace_parent: None,
                        batch: batch_beside(&terminal, sequence, std::iter::repeat_n(0, BYTES)).into(),
                    };
                    producer.send(&record).await.unwrap();
                }
            });
        }
        while let Some(ended) = timeout(LONG, reports.join_next()).await.unwrap() {
            ended.unwrap();
        }
    };
    report(1..=2).await;
    counted(&clickhouse, usize::try_from(TERMINALS * 2).unwrap()).await;
    let before = most_resident(&classifier);

    // 256 MiB, of which an answer of a broker could have all, are there at once.
    let stopped = Pid::from_raw(classifier.program.pid());
    kill(stopped, Signal::SIGSTOP).unwrap();
    report(3..=BATCHES + 2).await;
    let server = Pid::from_raw(eventually("the server is there", async || process(directory.path(), "clickhouse-server")).await);
    kill(server, Signal::SIGSTOP).unwrap();
    kill(stopped, Signal::SIGCONT).unwrap();
    classifier.until_it_says("ClickHouse").await;
    kill(server, Signal::SIGCONT).unwrap();
    let rows = usize::try_from(TERMINALS * (BATCHES + 2)).unwrap();
    timeout(LONG, async {
        while query_if_up(&clickhouse, "SELECT count() FROM outcomes").await != Some(rows.to_string()) {
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .unwrap();
    counted(&clickhouse, rows).await;
    let most = most_resident(&classifier);
    assert!(most < before + 96 * MIB, "{} MiB, and {} MiB before", most / MIB, before / MIB);
    classifier.stop().await;
    parts.stop().await;
}
