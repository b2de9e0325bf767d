//! Dead letters: what no record does to a partition, and what an operator does with them.

use std::time::Duration;

use bytes::Bytes;
use faultline_proto::ingest::v1::{Event, OutcomeBatch};
use faultline_proto::outcome::v1::Outcome;
use faultline_stream::{DeadLetters, KafkaConfig, OutcomeProducer, OutcomeRecord, Record, Rejection, Topic, read_to_end};
use prost::Message;
use serde_json::Value;
use tokio::time::sleep;

use crate::chaos::link::{Link, Network};
use crate::classifier::{counted, python, road};
use crate::program::{Faultline, eventually};
use crate::services::{Service, query, settings_of};
use crate::terminal::{batch, event, in_seconds, outcome, profile, saying};

const CARD: &str = "6212345678901232";
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// What is wrong with an event.
type Change = fn(&mut Event);

/// Runs `faultline dlq`, and takes whether it succeeded and what it wrote.
async fn dlq(kafka: &KafkaConfig, arguments: &[&str]) -> (bool, String, String) {
    let output = Faultline::output_with(&[&["dlq"], arguments].concat(), &settings_of(kafka)).await;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert!(!stdout.contains(CARD) && !stderr.contains(CARD), "{stdout}{stderr}");
    (output.status.success(), stdout, stderr)
}

/// The same, where it is to succeed: what it wrote on standard output.
async fn done(kafka: &KafkaConfig, arguments: &[&str]) -> String {
    let (is_done, stdout, stderr) = dlq(kafka, arguments).await;
    assert!(is_done, "{arguments:?}: {stderr}");
    stdout
}

/// The same, where it is to fail and to say this.
async fn refused(kafka: &KafkaConfig, arguments: &[&str], said: &str) {
    let (is_done, _, stderr) = dlq(kafka, arguments).await;
    assert!(!is_done && stderr.starts_with("error: ") && stderr.contains(said), "{arguments:?}: {stderr}");
}

/// What is listed with these options.
async fn listed(kafka: &KafkaConfig, options: &[&str]) -> Vec<Value> {
    let lines = done(kafka, &[&["list", "--json"], options].concat()).await;
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text<'a>(letter: &'a Value, key: &str) -> &'a str {
    letter[key].as_str().unwrap_or_default()
}

/// Waits until a classifier has counted so many.
async fn until_counted(classifier: &Service, what: &str, label: &str, number: u64) {
    let name = format!("faultline_classifier_{what}");
    let labels = if label.is_empty() { vec![] } else { vec![label] };
    let counted = async || (classifier.counted(&name, &labels).await == number).then_some(());
    eventually(&format!("{number} {what} {label}"), counted).await;
}

/// Another classifier in the place of one that is gone.
fn successor(settings: &[(&'static str, String)]) -> Service {
    Service::start("classifier", settings.iter().filter(|(key, _)| *key != "MONITORING__LISTEN").cloned().collect())
}

/// A batch that was received so many days ago, as Kafka had it in partition 0 at an offset, under a contract that was newer than who read it.
fn letter(offset: i64, days: i64, batch: &OutcomeBatch) -> Record {
    let then_ms = in_seconds(0).seconds * 1000 - days * DAY_MS;
    let header = |name: &str, value: &[u8]| (name.to_owned(), Bytes::copy_from_slice(value));
    Record {
        partition: 0,
        offset,
        timestamp_ms: Some(then_ms + 20),
        key: Some(Bytes::from_static(b"T-1")),
        value: batch.encode_to_vec().into(),
        headers: vec![
            header("contract", b"faultline.ingest.v1"),
            header("tenant", b"acme"),
            header("receipt-time-ms", then_ms.to_string().as_bytes()),
            header("profile", &profile().encode_to_vec()),
        ],
    }
}

/// Keeps a record as a dead letter, in the name of a program that did not know its contract. Returns its name.
async fn keep(kafka: &KafkaConfig, record: &Record) -> String {
    let reason = "the value is of contract `faultline.ingest.v1`, and this program reads `faultline.ingest.v0`";
    let rejection = Rejection { stage: "record", reason: reason.into() };
    DeadLetters::new(kafka, "rules-of-old").unwrap().keep(record, &rejection).await.unwrap();
    format!("{}-{}-{}", record.partition, record.offset, record.timestamp_ms.unwrap() / 1000)
}

/// Everything that a producer can write, each between two records that are read.
#[tokio::test]
async fn no_record_stops_a_partition() {
    let (gateway, classifier, clickhouse) = road("poison").await;
    let (kafka, terminal) = (&gateway.kafka, gateway.terminal());
    let topic = kafka.topic(Topic::Outcomes);
    let kinds = [
        ("odd-name", "record", "header `contract` is missing"),
        ("huge", "batch", "failed to decode"),
        ("random", "batch", "failed to decode"),
        ("no-value", "batch", "`spool_id` is 0"),
        ("no-key", "record", "its key is missing"),
        ("odd-key", "record", "not UTF-8"),
        ("no-headers", "record", "header `contract` is missing"),
        ("many-headers", "batch", "failed to decode"),
        // librdkafka reads none of more than 100,000.
        ("too-many-headers", "record", "header `contract` is missing"),
        ("odd-tenant", "record", "header `tenant` is missing or cannot be read"),
        ("odd-receipt", "record", "header `receipt-time-ms`"),
        ("newer-contract", "record", "contract `faultline.ingest.v2`"),
    ];
    let mut sequence = 0;
    let mut report = async || {
        sequence += 1;
        terminal.report(batch(vec![event(sequence)])).await.unwrap();
        sequence
    };
    report().await;
    for (kind, ..) in kinds {
        python("write_odd_records.py", &[&kafka.brokers, &topic, "T-1", kind]).await;
        report().await;
    }
    // What has our form, and events that there cannot be.
    let producer = OutcomeProducer::new(kafka).unwrap();
    let of_ours = |batch: OutcomeBatch| OutcomeRecord {
        tenant: "acme".into(),
        terminal: "T-1".into(),
        receipt_ms: in_seconds(0).seconds * 1000,
        profile: Bytes::new(),
        trace_parent: None,
        batch: batch.encode_to_vec().into(),
    };
    let odd = |change: Change| {
        let mut event = saying(1000, CARD);
        change(&mut event);
        of_ours(batch(vec![self::event(1001), event]))
    };
    let events: [(Change, &str); 4] = [
        (|event| event.sequence = 0, "`events[1].sequence` is 0"),
        (|event| event.outcome = None, "`events[1].outcome` is missing"),
        (|event| event.outcome.as_mut().unwrap().amount_minor = -1, "`events[1].outcome.amount_minor` is -1"),
        (|event| event.outcome.as_mut().unwrap().bin = CARD.into(), "`events[1].outcome.bin` (not shown)"),
    ];
    for (change, _) in events {
        producer.send(&odd(change)).await.unwrap();
        report().await;
    }
    let good = report().await;
    counted(&clickhouse, usize::try_from(good).unwrap()).await;

    let poison = kinds.len() + events.len();
    until_counted(&classifier, "records_total", "dead_letter", poison.try_into().unwrap()).await;
    let letters = listed(kafka, &[]).await;
    let expected: Vec<_> =
        kinds.iter().map(|(_, stage, reason)| (*stage, *reason)).chain(events.map(|(_, said)| ("event", said))).collect();
    assert_eq!(letters.len(), poison, "{letters:#?}");
    for (letter, (stage, reason)) in letters.iter().zip(expected) {
        assert!(text(letter, "stage") == stage && text(letter, "reason").contains(reason), "{stage}, {reason}: {letter:#}");
        assert!(text(letter, "rule_set").starts_with("rules+") && !text(letter, "program").is_empty(), "{letter:#}");
    }
    let cut: Vec<_> = letters.iter().filter(|letter| letter["is_cut"] == true).map(|letter| letter["bytes"].as_u64().unwrap()).collect();
    assert_eq!(cut, [12 * 1024 * 1024, 1]);
    // Each of them can be looked at.
    for letter in &letters {
        let shown = done(kafka, &["show", text(letter, "id")]).await;
        assert!(shown.contains(&format!("Dead letter {}\n", text(letter, "id"))), "{shown}");
    }
    // And none comes again.
    let settings = classifier.settings.clone();
    let ended = classifier.stop().await;
    assert!(!ended.stderr.contains(CARD), "{}", ended.stderr);
    let next = successor(&settings);
    report().await;
    counted(&clickhouse, usize::try_from(good).unwrap() + 1).await;
    assert_eq!(listed(kafka, &[]).await.len(), poison);
    next.stop().await;
}

/// What was seen of its spool is far beyond it by then.
#[tokio::test]
async fn what_is_replayed_is_counted_once_however_often_it_is_replayed() {
    let (gateway, classifier, clickhouse) = road("replayed").await;
    let (kafka, terminal) = (&gateway.kafka, gateway.terminal());
    terminal.report(batch(vec![event(1), event(2)])).await.unwrap();
    let lay_aside = keep(kafka, &letter(1000, 5, &batch(vec![event(3), event(4), event(5)]))).await;
    terminal.report(batch(vec![event(6), event(7)])).await.unwrap();
    counted(&clickhouse, 4).await;

    let said = done(kafka, &["replay", &lay_aside, "--yes"]).await;
    assert!(said.contains(&format!("{lay_aside} of acme/T-1 is replayed as ")), "{said}");
    counted(&clickhouse, 7).await;
    // It happened when it happened, and under the profile of then; the row is where rows of today are looked for.
    let row = "SELECT count(), countIf(completed_at BETWEEN now() - INTERVAL 5 DAY - INTERVAL 10 MINUTE AND now() - INTERVAL 5 DAY), \
               countIf(received_at > now() - INTERVAL 10 MINUTE), any(model) FROM outcomes WHERE sequence BETWEEN 3 AND 5";
    assert_eq!(query(&clickhouse, row).await, "3\t3\t3\tPAX A920");
    assert_eq!(classifier.counted("faultline_classifier_redated_records_total", &[]).await, 0);

    // Another operator does it too; and the terminal sends what it has sent.
    let said = done(kafka, &["replay", &lay_aside, "--yes"]).await;
    assert!(said.contains("it was replayed as "), "{said}");
    terminal.report(batch(vec![event(3), event(4)])).await.unwrap();
    until_counted(&classifier, "replayed_records_total", "", 2).await;
    until_counted(&classifier, "events_total", "repeated", 5).await;
    counted(&clickhouse, 7).await;
    assert_eq!(listed(kafka, &[]).await, Vec::<Value>::new());

    // Nobody reads meanwhile, so that most of it is of one batch: what nothing was seen of, twice, and from the terminal too; and what was counted before.
    let settings = classifier.settings.clone();
    classifier.kill().await;
    let ahead = keep(kafka, &letter(1001, 0, &batch(vec![event(8), event(9)]))).await;
    done(kafka, &["replay", &ahead, &lay_aside, "--yes"]).await;
    terminal.report(batch(vec![event(9), event(10)])).await.unwrap();
    done(kafka, &["replay", &ahead, "--yes"]).await;
    // One is killed as soon as something of it is stored, and another repeats what it had begun.
    let killed = successor(&settings);
    let rows = async || query(&clickhouse, "SELECT count() > 7 FROM outcomes").await;
    eventually("something is stored", async || (rows().await == "1").then_some(())).await;
    killed.kill().await;
    let last = successor(&settings);
    counted(&clickhouse, 10).await;
    terminal.report(batch(vec![event(11)])).await.unwrap();
    counted(&clickhouse, 11).await;
    let sequences = "SELECT count(), uniqExact(sequence), min(sequence), max(sequence) FROM outcomes";
    assert_eq!(query(&clickhouse, sequences).await, "11\t11\t1\t11");
    last.stop().await;

    // What was seen is not less than it was, also for who comes later.
    let next = successor(&settings);
    terminal.report(batch(vec![event(10), event(11), event(12)])).await.unwrap();
    counted(&clickhouse, 12).await;
    next.stop().await;
}

/// One that takes the connection and is slow to answer, as on a machine that has much to do.
#[tokio::test]
async fn a_kafka_that_is_busy_is_waited_for() {
    let (gateway, ..) = road("busy").await;
    let (_, port) = gateway.kafka.brokers.rsplit_once(':').unwrap();
    let link = Link::to(port.parse().unwrap());
    link.set(Network::Held);
    let busy = KafkaConfig { brokers: format!("127.0.0.1:{}", link.port), ..gateway.kafka.clone() };
    let letting_go = async {
        sleep(Duration::from_secs(3)).await;
        link.set(Network::Up);
    };
    let (answer, ()) = tokio::join!(dlq(&busy, &["list"]), letting_go);
    assert_eq!(answer, (true, String::new(), "No dead letter is open.\n".into()));
}

#[tokio::test]
async fn an_operator_looks_and_decides() {
    let (gateway, classifier, clickhouse) = road("decides").await;
    let kafka = &gateway.kafka;
    refused(kafka, &["show", "0-1"], "there is no dead letter `0-1`").await;
    assert_eq!(dlq(kafka, &["list"]).await, (true, String::new(), "No dead letter is open.\n".into()));

    let telling = |change: fn(&mut Outcome)| {
        let mut outcome = outcome();
        change(&mut outcome);
        batch(vec![Event { outcome: Some(outcome), ..event(1) }])
    };
    let negative = letter(10, 1, &telling(|outcome| outcome.amount_minor = -5));
    let refused_still = keep(kafka, &negative).await;
    let redacted = keep(kafka, &letter(11, 1, &telling(|outcome| outcome.diagnostic = format!("no chip, read {CARD}")))).await;
    let other = Record { key: Some(Bytes::from_static(b"T-2")), ..letter(12, 1, &batch(vec![event(1)])) };
    let other = keep(kafka, &other).await;
    let cut = Record { value: Bytes::from(vec![b' '; 4 * 1024 * 1024]), ..letter(13, 1, &batch(vec![])) };
    let cut = keep(kafka, &cut).await;
    let nameless = keep(kafka, &Record { key: Some(Bytes::from_static(CARD.as_bytes())), ..letter(14, 1, &batch(vec![event(1)])) }).await;
    // Written once more, as happens where a classifier is killed before it commits.
    keep(kafka, &negative).await;

    let names = |letters: &[Value]| letters.iter().map(|letter| text(letter, "id").to_owned()).collect::<Vec<_>>();
    let all = [&refused_still, &redacted, &other, &cut, &nameless].map(String::clone);
    assert_eq!(names(&listed(kafka, &[]).await), all);
    assert_eq!(names(&listed(kafka, &["--terminal", "T-2"]).await), std::slice::from_ref(&other));
    assert_eq!(names(&listed(kafka, &["--limit", "2", "--since", "1h", "--tenant", "acme", "--stage", "record"]).await), all[3..]);
    assert_eq!(names(&listed(kafka, &["--stage", "event"]).await), Vec::<String>::new());
    let (_, _, summary) = dlq(kafka, &["list", "--limit", "2"]).await;
    assert_eq!(summary, "5 dead letters are open (by stage: 5 record). The last 2 of 5 are listed.\n");
    let shown = done(kafka, &["show", "0-11"]).await;
    for part in
        [format!("Dead letter {redacted}\n").as_str(), "rules-of-old", "\"no chip, read ****************\"", "\"model\": \"PAX A920\""]
    {
        assert!(shown.contains(part), "{part} is missing from {shown}");
    }
    let shown: Value = serde_json::from_str(&done(kafka, &["show", &other, "--json"]).await).unwrap();
    assert_eq!((&shown["terminal"], &shown["value"]["message"]["events"][0]["sequence"]), (&Value::from("T-2"), &Value::from("1")));

    // What is not what was sent is not replayed, and then nothing is.
    refused(kafka, &["replay", &other, &redacted, "--yes"], "it is not quite what was sent").await;
    refused(kafka, &["replay", &cut, "--redacted", "--yes"], "too large to be kept whole").await;
    refused(kafka, &["replay", &nameless, "--redacted", "--yes"], "whose it is is not known any more").await;
    refused(kafka, &["replay", &other, "0-99", "--yes"], "there is no dead letter `0-99`").await;
    refused(kafka, &["replay", &other], "say --yes, or --dry-run").await;
    refused(kafka, &["drop", "--all"], "say --yes, or --dry-run").await;
    let would = done(kafka, &["replay", "--all", "--dry-run"]).await;
    assert!(would.contains(&format!("{cut} of acme/T-1 is left: it was too large")), "{would}");
    assert!(would.ends_with(&format!("2 dead letters would be replayed into {}.\n", kafka.topic(Topic::Outcomes))), "{would}");
    assert_eq!(names(&listed(kafka, &[]).await), all);
    assert_eq!(read_to_end(kafka, &kafka.topic(Topic::Outcomes)).await.unwrap(), []);

    // Of those that are fit, one is rejected again: that is another dead letter.
    done(kafka, &["replay", "--all", "--yes"]).await;
    counted(&clickhouse, 1).await;
    until_counted(&classifier, "records_total", "dead_letter", 1).await;
    let open = listed(kafka, &[]).await;
    assert_eq!(names(&open)[..3], all[1..].iter().filter(|name| **name != other).cloned().collect::<Vec<_>>());
    let again = open.last().unwrap();
    assert_eq!((text(again, "stage"), text(again, "replay_of")), ("event", refused_still.as_str()));
    assert_ne!(text(again, "id"), refused_still);

    done(kafka, &["replay", &redacted, "--redacted", "--yes"]).await;
    counted(&clickhouse, 2).await;
    assert_eq!(query(&clickhouse, "SELECT diagnostic FROM outcomes WHERE terminal = 'T-1'").await, "no chip, read ****************");
    let said = done(kafka, &["drop", "--all", "--stage", "event", "--yes"]).await;
    assert!(said.ends_with("1 dead letter dropped.\n"), "{said}");
    done(kafka, &["drop", &cut, &nameless, "--yes"]).await;
    assert_eq!(dlq(kafka, &["list"]).await.2, "No dead letter is open; settled: 3 dropped, 3 replayed.\n");
    let said = done(kafka, &["drop", &cut, "--yes"]).await;
    assert!(said.contains("is left (it was dropped before, ") && said.ends_with("Nothing to drop.\n"), "{said}");
    let settled = listed(kafka, &["--settled"]).await;
    assert_eq!(settled.len(), 6);
    assert!(settled.iter().all(|letter| letter["settled"]["at_ms"].is_i64()), "{settled:#?}");
    let ended = classifier.stop().await;
    assert!(!ended.stderr.contains(CARD), "{}", ended.stderr);
    let everything = read_to_end(kafka, &kafka.topic(Topic::DeadLetters)).await.unwrap();
    assert!(!format!("{everything:?}").contains(CARD));
}
