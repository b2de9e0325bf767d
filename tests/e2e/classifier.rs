//! The classifier, between the Kafka and the ClickHouse that tests share.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use faultline_deploy::LocalConfig;
use faultline_proto::ingest::v1::Event;
use faultline_proto::outcome::v1::{Outcome, Stage};
use faultline_store::{ClickHouseConfig, families};
use faultline_stream::{
    Intent, KafkaConfig, Next, OutcomeProducer, OutcomeRecord, Partition, PartitionLog, Position, Records, Source, Topic, read_to_end,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::program::{Faultline, eventually, process};
use crate::sandbox::{PATIENCE, port, ports, sandbox, scratch, start_parts};
use crate::services::{Gateway, Service, Settings, query, query_if_up, settings_with};
use crate::terminal::{batch, event, in_seconds, outcome};

const CARD: &str = "6212345678901232";

/// Topics and a database of one test.
pub(crate) async fn place(name: &str) -> (KafkaConfig, ClickHouseConfig) {
    let shared = sandbox().await;
    let kafka = KafkaConfig { topic_prefix: format!("classifier-{name}"), ..shared.kafka.clone() };
    let clickhouse = ClickHouseConfig { database: format!("classifier_{}", name.replace('-', "_")), ..shared.clickhouse.clone() };
    (kafka, clickhouse)
}

/// Settings of a classifier that does not wait long for company.
pub(crate) fn settings(kafka: &KafkaConfig, clickhouse: &ClickHouseConfig) -> Settings {
    let mut settings = settings_with(kafka, clickhouse);
    settings.push(("CLASSIFIER__MAX_BATCH_DELAY", "50ms".into()));
    settings
}

/// A gateway and a classifier, ready.
pub(crate) async fn road(name: &str) -> (Gateway, Service, ClickHouseConfig) {
    let (kafka, clickhouse) = place(name).await;
    let classifier = Service::start("classifier", settings(&kafka, &clickhouse));
    let gateway = Gateway::start_on(kafka, &[]).await;
    tokio::join!(gateway.service.until_ready(), classifier.until_ready());
    (gateway, classifier, clickhouse)
}

/// Waits until so many rows are stored, and asserts that they are counted in every family, once.
pub(crate) async fn counted(clickhouse: &ClickHouseConfig, rows: usize) {
    let rows = rows.to_string();
    let stored = async || (query_if_up(clickhouse, "SELECT count() FROM outcomes").await? == rows).then_some(());
    eventually(&format!("{rows} rows are stored"), stored).await;
    let in_ledger = async || {
        let sum = "SELECT sum(count) FROM rollup WHERE family = 'ledger'";
        (query(clickhouse, sum).await == rows).then_some(())
    };
    eventually(&format!("{rows} rows are counted"), in_ledger).await;
    for family in families() {
        let sum = format!("SELECT sum(count) FROM rollup WHERE family = '{family}' AND NOT simulated");
        assert_eq!(query(clickhouse, &sum).await, rows, "{family}");
    }
}

/// Waits until a classifier has counted so many. It counts a batch when it has committed it, which is after its rows can be seen.
async fn until_counted(classifier: &Service, what: &str, label: &str, number: u64) {
    let name = format!("faultline_classifier_{what}");
    let counted = async || (classifier.counted(&name, &[label]).await == number).then_some(());
    eventually(&format!("{number} {label}"), counted).await;
}

/// Runs one of the clients in Python, and takes what it says.
pub(crate) async fn python(client: &str, arguments: &[&str]) -> String {
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(client);
    let output = Command::new("python3").arg(client).args(arguments).output().await.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}\n(`make test` installs what it needs; python3 must be the one that has it)");
    String::from_utf8(output.stdout).unwrap()
}

/// A terminal in Python, with stubs made from the contract.
#[tokio::test]
async fn a_client_in_another_language_is_answered_twice_and_counted_once() {
    let (gateway, classifier, clickhouse) = road("python").await;
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let answers = python("report.py", &[proto.to_str().unwrap(), &gateway.address(), &gateway.token, "T-1"]).await;
    assert_eq!(answers, "3 0 0\n3 0 0\n");

    until_counted(&classifier, "records_total", "read", 2).await;
    counted(&clickhouse, 3).await;
    assert_eq!(classifier.counted("faultline_classifier_events_total", &["repeated"]).await, 3);
    let verdicts = "SELECT sequence, issuer, cause, tag, carrier FROM outcomes ORDER BY sequence";
    assert_eq!(
        query(&clickhouse, verdicts).await,
        "1\tabc\tapproved\tapproved/host_decision\t46000\n\
         2\tabc\taccount\tfunds/host_decision\t46000\n\
         3\tabc\tbank\tissuer_down/host_decision\t46000"
    );
}

#[tokio::test]
async fn an_event_becomes_the_row_that_its_terminal_meant() {
    let (gateway, classifier, clickhouse) = road("row").await;
    let told = |sequence, change: fn(&mut Outcome)| {
        let mut outcome = outcome();
        change(&mut outcome);
        Event { outcome: Some(outcome), ..event(sequence) }
    };
    let events = vec![
        told(1, |outcome| outcome.bin = "62284801".into()),
        told(2, |outcome| outcome.bin = "99999999".into()),
        told(3, |outcome| (outcome.bin, outcome.stage) = (String::new(), Stage::CardRead.into())),
        told(4, |outcome| (outcome.r#type, outcome.stage) = (70_000, 77)),
    ];
    gateway.terminal().report(batch(events)).await.unwrap();
    counted(&clickhouse, 4).await;
    let rows = "SELECT sequence, terminal, tenant, bin, issuer, tag, cause, type, stage, amount_minor, currency, model, \
                dateDiff('ms', completed_at, received_at), clock, record_index FROM outcomes ORDER BY sequence";
    assert_eq!(
        query(&clickhouse, rows).await,
        "1\tT-1\tacme\t62284801\tabc\tno_answer/wait\tnetwork\t1\t7\t1234\tCNY\tPAX A920\t100\tage\t0\n\
         2\tT-1\tacme\t99999999\tunknown-99999999\tno_answer/wait\tnetwork\t1\t7\t1234\tCNY\tPAX A920\t100\tage\t1\n\
         3\tT-1\tacme\t\t\tdevice_read/card_read\tdevice\t1\t1\t1234\tCNY\tPAX A920\t100\tage\t2\n\
         4\tT-1\tacme\t621234\tunknown-621234\tunknown/newer\tunknown\t65535\t77\t1234\tCNY\tPAX A920\t100\tage\t3"
    );
    let ended = classifier.stop().await;
    assert!(ended.stderr.contains("the classifier works"), "{}", ended.stderr);
}

#[tokio::test]
async fn what_cannot_be_read_is_kept_apart_and_stops_nothing() {
    let (gateway, classifier, clickhouse) = road("dead-letters").await;
    gateway.terminal().report(batch(vec![event(1)])).await.unwrap();
    let poisoned = OutcomeRecord {
        tenant: "acme".into(),
        terminal: "T-1".into(),
        receipt_ms: 1_790_000_000_000,
        profile: Bytes::new(),
        trace_parent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00".into()),
        batch: Bytes::from(format!("\u{1}not a batch, of card {CARD}")),
    };
    let producer = OutcomeProducer::new(&gateway.kafka).unwrap();
    producer.send(&poisoned).await.unwrap();
    producer.send(&OutcomeRecord { tenant: CARD.into(), batch: Bytes::from_static(b"\x11"), ..poisoned.clone() }).await.unwrap();
    python("write_odd_records.py", &[&gateway.kafka.brokers, &gateway.kafka.topic(Topic::Outcomes), "T-1"]).await;
    gateway.terminal().report(batch(vec![event(2)])).await.unwrap();
    counted(&clickhouse, 2).await;

    until_counted(&classifier, "records_total", "dead_letter", 4).await;
    assert_eq!(classifier.counted("faultline_classifier_dead_letters_total", &["stage=\"batch\""]).await, 3);
    assert_eq!(classifier.counted("faultline_classifier_dead_letters_total", &["stage=\"record\""]).await, 1);
    let letters = read_to_end(&gateway.kafka, &gateway.kafka.topic(Topic::DeadLetters)).await.unwrap();
    assert_eq!(letters.len(), 4);
    let header = |name| std::str::from_utf8(letters[0].header(name).unwrap()).unwrap();
    assert_eq!(letters[0].value, format!("\u{1}not a batch, of card ****************"));
    assert_eq!((header("tenant"), header("dead-letter-stage"), header("dead-letter-offset")), ("acme", "batch", "1"));
    assert_eq!(header("traceparent"), poisoned.trace_parent.unwrap());
    assert_eq!(letters[1].header("tenant").unwrap().as_ref(), b"****************");
    assert_eq!((letters[2].value.as_ref(), letters[2].header("dead-letter-stage").unwrap().as_ref()), (&b"value"[..], &b"record"[..]));
    assert_eq!(letters[3].header("dead-letter-bytes").unwrap().as_ref(), b"12582912");

    let ended = classifier.stop().await;
    assert!(ended.stderr.contains("kept as a dead letter") && !ended.stderr.contains(CARD), "{}", ended.stderr);
}

/// However it was stopped, and also when the rows that prove it are gone.
#[tokio::test]
async fn a_repeat_is_dropped_by_those_who_come_later_too() {
    let (gateway, classifier, clickhouse) = road("repeats").await;
    let terminal = gateway.terminal();
    terminal.report(batch(vec![event(1), event(2)])).await.unwrap();
    counted(&clickhouse, 2).await;
    classifier.kill().await;

    let mut often = settings(&gateway.kafka, &clickhouse);
    often.push(("CLASSIFIER__HIGH_WATER_INTERVAL", "1s".into()));
    let second = Service::start("classifier", often.clone());
    terminal.report(batch(vec![event(2), event(3)])).await.unwrap();
    counted(&clickhouse, 3).await;
    until_counted(&second, "events_total", "repeated", 1).await;
    second.stop().await;

    query(&clickhouse, "ALTER TABLE outcomes DELETE WHERE 1 SETTINGS mutations_sync = 2").await;
    let third = Service::start("classifier", often);
    terminal.report(batch(vec![event(2), event(3), event(4)])).await.unwrap();
    eventually("it is stored", async || (query(&clickhouse, "SELECT count() FROM outcomes").await == "1").then_some(())).await;
    assert_eq!(query(&clickhouse, "SELECT sequence FROM outcomes").await, "4");
    third.stop().await;
}

/// Says in the name of all classifiers that a batch of the terminal's partition was begun, and dies.
async fn begin(kafka: &KafkaConfig, first: i64, intent: Intent) {
    let source = Source::new(kafka, "classifier", 1 << 20).unwrap();
    let (done, mut is_done) = mpsc::channel(1);
    let begin = |partition: Partition| {
        let done = done.clone();
        async move {
            // The partition of the terminal is the one that has a record that is not done.
            if let Next::Record(_) = partition.next(Instant::now() + Duration::from_secs(2)).await {
                let position = partition.start().await.position;
                partition.commit(&Position { next: first, intent: Some(intent), ..position }).await;
                done.send(()).await.unwrap();
            }
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        ended = source.run(CancellationToken::new(), Duration::ZERO, begin) => panic!("{ended:?}"),
        done = timeout(PATIENCE, is_done.recv()) => done.unwrap().unwrap(),
    }
    source.leave().await;
}

/// Whatever was done of it: nothing, all of it, the rows and not their sums.
#[tokio::test]
async fn a_batch_that_was_begun_is_repeated_by_whoever_comes_next() {
    let (kafka, clickhouse) = place("begun").await;
    let gateway = Gateway::start_on(kafka.clone(), &[]).await;
    gateway.service.until_ready().await;
    for sequence in 1..=3 {
        gateway.terminal().report(batch(vec![event(sequence)])).await.unwrap();
    }
    let batches = async |service: &Service, stored| service.counted("faultline_classifier_batches_total", &[stored]).await;
    let mended = async |service: &Service| {
        let mended = async |what| service.counted(&format!("faultline_classifier_mended_{what}_total"), &[]).await;
        (batches(service, "settled").await, mended("rows").await, mended("sums").await)
    };
    // Died before anything was stored.
    begin(&kafka, 0, Intent { last: 1, since_ms: in_seconds(-60).seconds * 1000 }).await;
    let classifier = Service::start("classifier", settings(&kafka, &clickhouse));
    classifier.until_ready().await;
    counted(&clickhouse, 3).await;
    eventually("the rest is done", async || (batches(&classifier, "at_once").await == 1).then_some(())).await;
    assert_eq!(mended(&classifier).await, (1, 2, 1));
    classifier.kill().await;

    // Died when all was stored.
    gateway.terminal().report(batch(vec![event(4)])).await.unwrap();
    let since = "SELECT toUnixTimestamp(bucket) FROM rollup WHERE family = 'ledger' AND key LIKE '%:2-2'";
    let since_ms = query(&clickhouse, since).await.parse::<i64>().unwrap() * 1000;
    begin(&kafka, 2, Intent { last: 2, since_ms }).await;
    let classifier = Service::start("classifier", settings(&kafka, &clickhouse));
    classifier.until_ready().await;
    counted(&clickhouse, 4).await;
    eventually("the rest is done", async || (batches(&classifier, "at_once").await == 1).then_some(())).await;
    assert_eq!(mended(&classifier).await, (1, 0, 0));
    classifier.kill().await;

    // Died between the rows and their sums. (The sums of one batch cannot be told from others': all are taken away.)
    gateway.terminal().report(batch(vec![event(5)])).await.unwrap();
    query(&clickhouse, "ALTER TABLE rollup DELETE WHERE 1 SETTINGS mutations_sync = 2").await;
    begin(&kafka, 3, Intent { last: 3, since_ms }).await;
    let classifier = Service::start("classifier", settings(&kafka, &clickhouse));
    classifier.until_ready().await;
    eventually("the rest is done", async || (batches(&classifier, "at_once").await == 1).then_some(())).await;
    assert_eq!(mended(&classifier).await, (1, 0, 1));
    assert_eq!(query(&clickhouse, "SELECT count() FROM outcomes").await, "5");
    assert_eq!(query(&clickhouse, "SELECT sum(count) FROM rollup WHERE family = 'fleet'").await, "2");
    let ledger = "SELECT splitByChar(':', key)[3] AS records FROM rollup WHERE family = 'ledger' ORDER BY records";
    assert_eq!(query(&clickhouse, ledger).await, "3-3\n4-4");
    classifier.stop().await;
}

/// Its records begin at offset 0 again, which were done once.
#[tokio::test]
async fn a_topic_that_is_made_again_is_read_from_its_beginning() {
    let (gateway, classifier, clickhouse) = road("made-again").await;
    let terminal = gateway.terminal();
    for sequence in 1..=5 {
        terminal.report(batch(vec![event(sequence)])).await.unwrap();
    }
    counted(&clickhouse, 5).await;
    let topic = gateway.kafka.topic(Topic::Outcomes);
    python("make_topic_again.py", &[&gateway.kafka.brokers, &topic]).await;
    // Fewer records than there were, and a repeat among them.
    for sequence in 5..=8 {
        eventually("it is acknowledged", async || terminal.report(batch(vec![event(sequence)])).await.ok()).await;
    }
    counted(&clickhouse, 8).await;
    // As many and more, while it is not looked at.
    classifier.program.signal(Signal::SIGSTOP);
    python("make_topic_again.py", &[&gateway.kafka.brokers, &topic]).await;
    for sequence in 9..=16 {
        eventually("it is acknowledged", async || terminal.report(batch(vec![event(sequence)])).await.ok()).await;
    }
    classifier.program.signal(Signal::SIGCONT);
    counted(&clickhouse, 16).await;
    let ended = classifier.stop().await;
    assert!(ended.stderr.contains("the topic was made again"), "{}", ended.stderr);
}

/// Stopped for longer than the others wait for it, with records that it has read and not stored.
#[tokio::test]
async fn who_wakes_up_after_others_took_over_stores_nothing_twice() {
    let (gateway, first, clickhouse) = road("wakes-up").await;
    let collector = gateway.collector().await;
    let report = async |sequence| {
        // Of all partitions.
        for terminal in 0..30 {
            let mut batch = batch(vec![event(sequence)]);
            batch.terminal_id = format!("T-{terminal}");
            collector.report(batch).await.unwrap();
        }
    };
    report(1).await;
    counted(&clickhouse, 30).await;
    let second = Service::start("classifier", first.settings.clone().into_iter().filter(|(key, _)| *key != "MONITORING__LISTEN").collect());
    let half = u64::from(gateway.kafka.partitions / 2);
    let partitions = async |service: &Service| service.counted("faultline_classifier_partitions", &[]).await;
    second.until_ready().await;
    eventually("they share", async || (partitions(&first).await == half && partitions(&second).await == half).then_some(())).await;
    for (round, sleeper) in [&first, &second].into_iter().enumerate() {
        let sequence = u64::try_from(round).unwrap() + 2;
        report(sequence).await;
        sleeper.program.signal(Signal::SIGSTOP);
        // Whoever is awake takes over what the other does not do.
        let all = usize::try_from(sequence).unwrap() * 30;
        counted(&clickhouse, all).await;
        let other = if round == 0 { &second } else { &first };
        eventually("it has all", async || (partitions(other).await == 2 * half).then_some(())).await;
        sleeper.program.signal(Signal::SIGCONT);
        eventually("they share again", async || (partitions(other).await == half).then_some(())).await;
        counted(&clickhouse, all).await;
    }
    report(4).await;
    counted(&clickhouse, 120).await;
    first.stop().await;
    second.stop().await;
}

/// A broker that neither answers nor goes away.
#[tokio::test]
async fn it_stops_within_its_time_also_when_kafka_is_silent() {
    let directory = scratch("silent");
    let local = LocalConfig { data_dir: directory.path().into(), ..ports() };
    let (parts, kafka, clickhouse) = start_parts(&local).await;
    let mut settings = settings(&kafka, &clickhouse);
    settings.push(("CLASSIFIER__DRAIN_WITHIN", "1s".into()));
    let classifier = Service::start("classifier", settings);
    let gateway = Gateway::start_on(kafka, &[]).await;
    tokio::join!(gateway.service.until_ready(), classifier.until_ready());
    let broker = Pid::from_raw(process(directory.path(), "kafka.Kafka").unwrap());
    for sequence in 1..=20 {
        gateway.terminal().report(batch(vec![event(sequence)])).await.unwrap();
    }
    kill(broker, Signal::SIGSTOP).unwrap();
    // So that it is in the middle of asking Kafka something.
    tokio::time::sleep(Duration::from_millis(500)).await;
    timeout(Duration::from_secs(20), classifier.stop()).await.expect("it does not stop");
    kill(broker, Signal::SIGCONT).unwrap();
    gateway.stop().await;
    parts.stop().await;
}

/// What passes connections on to a server, as long as it lives.
fn forward(port: u16, to: &ClickHouseConfig) -> JoinHandle<()> {
    let to = to.url.to_string().trim_start_matches("http://").trim_end_matches('/').to_owned();
    tokio::spawn(async move {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (mut from, _) = listener.accept().await.unwrap();
            let to = to.clone();
            connections.spawn(async move {
                let mut to = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            });
        }
    })
}

#[tokio::test]
async fn without_clickhouse_it_waits_and_says_why_and_goes_on() {
    let (kafka, clickhouse) = place("waits").await;
    let unused = port();
    let absent = ClickHouseConfig { url: format!("http://127.0.0.1:{unused}").parse().unwrap(), ..clickhouse.clone() };
    let classifier = Service::start("classifier", settings(&kafka, &absent));
    let why = classifier.until_it_says("Connection refused").await;
    assert!(why.contains(&format!("ClickHouse: ClickHouse at http://127.0.0.1:{unused}/ did not answer")), "{why}");
    assert_eq!(classifier.ask("/livez").await, Some((200, "alive\n".into())));
    let gateway = Gateway::start_on(kafka, &[]).await;
    gateway.service.until_ready().await;
    gateway.terminal().report(batch(vec![event(1)])).await.unwrap();

    let connection = forward(unused, &clickhouse);
    classifier.until_ready().await;
    counted(&clickhouse, 1).await;
    // It goes away, and comes back.
    connection.abort();
    gateway.terminal().report(batch(vec![event(2)])).await.unwrap();
    classifier.until_it_says("ClickHouse: ClickHouse at").await;
    assert_eq!(query(&clickhouse, "SELECT count() FROM outcomes").await, "1");
    let _connection = forward(unused, &clickhouse);
    counted(&clickhouse, 2).await;
    classifier.until_ready().await;
    until_counted(&classifier, "batches_total", "settled", 1).await;
    classifier.stop().await;
}

#[tokio::test]
async fn without_servers_it_waits_and_stops_at_once_when_asked_to() {
    let (kafka, clickhouse) = place("nothing").await;
    let (no_kafka, no_clickhouse) = (format!("127.0.0.1:{}", port()), format!("http://127.0.0.1:{}", port()));
    let absent = KafkaConfig { brokers: no_kafka.clone(), ..kafka };
    let classifier =
        Service::start("classifier", settings(&absent, &ClickHouseConfig { url: no_clickhouse.parse().unwrap(), ..clickhouse }));
    let why = classifier.until_it_says("Kafka consumer: Kafka at").await;
    assert!(why.contains(&format!("{no_kafka} cannot be reached")), "{why}");
    tokio::time::timeout(Duration::from_secs(10), classifier.stop()).await.unwrap();
}

#[tokio::test]
async fn classifiers_share_the_partitions_and_take_over_from_each_other() {
    let (gateway, first, clickhouse) = road("shared").await;
    let collector = gateway.collector().await;
    let report = async |terminals: std::ops::Range<u32>| {
        for terminal in terminals {
            let mut batch = batch(vec![event(1), event(2)]);
            batch.terminal_id = format!("T-{terminal}");
            collector.report(batch).await.unwrap();
        }
    };
    let partitions = async |service: &Service| service.counted("faultline_classifier_partitions", &[]).await;
    report(0..20).await;
    let all = u64::from(gateway.kafka.partitions);
    eventually("one has all", async || (partitions(&first).await == all).then_some(())).await;
    counted(&clickhouse, 40).await;

    let second = Service::start("classifier", first.settings.clone().into_iter().filter(|(key, _)| *key != "MONITORING__LISTEN").collect());
    eventually("they share", async || {
        let (first, second) = (partitions(&first).await, second.ask("/metrics").await.is_some());
        (second && first == all / 2).then_some(())
    })
    .await;
    report(20..60).await;
    counted(&clickhouse, 120).await;
    let counts = async || (second.counted("faultline_classifier_events_total", &["counted"]).await > 0).then_some(());
    eventually("the other counts too", counts).await;

    first.kill().await;
    report(50..80).await;
    counted(&clickhouse, 160).await;
    eventually("the other has all", async || (partitions(&second).await == all).then_some(())).await;
    second.stop().await;
}

#[tokio::test]
async fn a_setting_or_a_table_that_is_wrong_is_named() {
    let (kafka, clickhouse) = place("settings").await;
    let directory = scratch("classifier");
    let table = directory.path().join("issuers.csv");
    std::fs::write(&table, "# version: 1\nprefix,issuer,name_zh_cn,name_en\n62,icbc,工行,ICBC\n6x,abc,农行,ABC\n").unwrap();
    let table = table.to_str().unwrap();
    for (key, value, said) in [
        ("CLASSIFIER__MAX_BATCH_DELAY", "0s", "`classifier.max_batch_delay`: 0 s is not within 0.01 s to 60 s"),
        ("CLASSIFIER__CONCURRENT_BATCHES", "0", "`classifier.concurrent_batches`: 0 is not within 1 to 256"),
        ("CLASSIFIER__ISSUERS_FILE", "/nowhere/issuers.csv", "`classifier.issuers_file`: cannot read /nowhere/issuers.csv"),
        ("CLASSIFIER__ISSUERS_FILE", table, "issuers.csv is no table of issuers: line 4: the prefix"),
        ("CLASSIFIER__BATCH_DELAY", "1s", "classifier.batch_delay"),
        ("CLICKHOUSE__KEEP_OUTCOMES_DAYS", "1", "`clickhouse.keep_outcomes_days`: 1 is not within 15 to 3660 days"),
        ("KAFKA__SESSION_TIMEOUT", "1s", "`kafka.session_timeout`: 1 s is not within 6 s to 300 s"),
    ] {
        let mut settings = settings(&kafka, &clickhouse);
        settings.retain(|(other, _)| *other != key);
        settings.push((key, value.to_owned()));
        settings.push(("MONITORING__LISTEN", format!("127.0.0.1:{}", port())));
        Faultline::start(&["classifier"], &settings).end().await.failed_saying(&[said]);
    }
}

/// A terminal that was cut off for a month reports it all: by when it happened, in as few parts as what happens now.
#[tokio::test]
async fn a_spool_of_thirty_days_lands_where_it_belongs() {
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    let (gateway, _classifier, clickhouse) = road("old").await;
    let old = |sequence: u64, age_ms: u64| Event { age_ms: Some(age_ms), ..event(sequence) };
    let mut events: Vec<Event> = (0..30).map(|day| old(day + 1, (29 - day) * DAY_MS + 60_000)).collect();
    // What is older still is not taken, and is answered.
    events.insert(0, old(100, 30 * DAY_MS + 60_000));
    events[0].sequence = 0;
    for (sequence, event) in (1..).zip(&mut events) {
        event.sequence = sequence;
    }
    let acknowledgement = gateway.terminal().report(batch(events)).await.unwrap();
    let refused = acknowledgement.refusals;
    assert_eq!(refused.iter().map(|refused| refused.sequence).collect::<Vec<_>>(), [1]);
    assert!(format!("{refused:?}").contains("at most 2592000000 are taken"), "{refused:?}");
    counted(&clickhouse, 30).await;
    let days = "SELECT uniqExact(toDate(completed_at)), dateDiff('day', min(completed_at), max(completed_at)), \
                max(abs(dateDiff('second', completed_at, received_at) - (30 - (sequence - 1)) * 86400 - 60)) <= 1 FROM outcomes";
    assert_eq!(query(&clickhouse, days).await, "30\t29\t1");
    // Every family has each in the ten seconds in which it happened.
    let buckets =
        "SELECT toStartOfInterval(completed_at, toIntervalSecond(10)) AS bucket, count() FROM outcomes GROUP BY bucket ORDER BY bucket";
    let buckets = query(&clickhouse, buckets).await;
    for family in families() {
        let sums = format!("SELECT bucket, sum(count) FROM rollup WHERE family = '{family}' GROUP BY bucket ORDER BY bucket");
        assert_eq!(query(&clickhouse, &sums).await, buckets, "{family}");
    }
    let parts = "SELECT table, uniqExact(name) FROM system.parts WHERE database = currentDatabase() AND table IN ('outcomes', 'rollup') GROUP BY table ORDER BY table";
    let parts = query(&clickhouse, parts).await;
    assert_eq!(parts, "outcomes\t1\nrollup\t1");
}
