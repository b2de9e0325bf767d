//! The gateway, as terminals meet it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use faultline_deploy::LocalConfig;
use faultline_proto::ingest::v1::stream_outcomes_request::Message as Request;
use faultline_proto::ingest::v1::stream_outcomes_response::Message as Response;
use faultline_proto::ingest::v1::{OutcomeBatch, RefusalReason, ReportOutcomesRequest};
use faultline_proto::outcome::v1::Outcome;
use faultline_proto::terminal::v1::TerminalProfile;
use faultline_sdk::Connection;
use faultline_stream::{BatchClock, Clock, KafkaConfig, unix_ms};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use prost::Message;
use tempfile::TempDir;
use tokio::time::timeout;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::program::{Faultline, eventually, process, run};
use crate::sandbox::{PATIENCE, port, ports, sandbox, scratch};
use crate::services::{Gateway, http, new_token};
use crate::terminal::{Terminal, batch, event, in_seconds, outcome, profile, saying};

const CARD: &str = "6212345678901232";

fn field_of(status: &Status) -> String {
    status.get_error_details().bad_request().unwrap().field_violations[0].field.clone()
}

#[tokio::test]
async fn what_is_acknowledged_is_in_kafka_with_what_the_gateway_knows() {
    let gateway = Gateway::start("acknowledged").await;
    let mut stream = gateway.terminal().stream().await;
    stream.send(Request::Profile(profile())).await;
    let sent = batch(vec![event(1), event(2)]);
    let acknowledgement = stream.report(sent.clone()).await.unwrap();
    assert_eq!((acknowledgement.spool_id, acknowledgement.acknowledged_through), (7, 2));
    assert_eq!(acknowledgement.refusals, []);

    let records = gateway.records().await;
    let [record] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!((record.tenant.as_str(), record.terminal.as_str()), ("acme", "T-1"));
    assert_eq!(record.batch, sent.encode_to_vec());
    assert_eq!(record.profile, profile().encode_to_vec());
    assert_eq!(Some(record.receipt_ms), acknowledgement.receipt_time.as_ref().and_then(unix_ms));
    // There is no collector, so nobody is told of a trace.
    assert_eq!(record.trace_parent, None);

    // The same batch again, and in a call of its own: acknowledged each time, and for the classifier to tell.
    assert_eq!(stream.report(sent.clone()).await.unwrap().acknowledged_through, 2);
    let response = gateway
        .terminal()
        .report_whole(ReportOutcomesRequest { profile: Some(profile()), batch: Some(sent.clone()), rules: None })
        .await
        .unwrap();
    assert_eq!(response.acknowledgement.unwrap().acknowledged_through, 2);
    assert_eq!(response.settings.unwrap().max_batch_events, 100);
    let records = gateway.records().await;
    assert_eq!(records.len(), 3);
    assert!(records.iter().all(|record| record.batch == sent.encode_to_vec() && record.profile == profile().encode_to_vec()));

    assert_eq!(gateway.service.counted("faultline_gateway_batches_total", &["fate=\"stored\""]).await, 3);
    assert_eq!(gateway.service.counted("faultline_gateway_events_total", &["fate=\"accepted\"", "tenant=\"acme\""]).await, 6);
    assert_eq!(gateway.service.counted("faultline_gateway_streams", &[]).await, 1);
    drop(stream);
    gateway.stop().await;
}

#[tokio::test]
async fn a_newer_terminals_fields_and_values_travel_as_they_came() {
    use prost::encoding::{WireType, encode_key, encode_varint};
    fn append(message: &mut Vec<u8>, number: u32, content: &[u8]) {
        encode_key(number, WireType::LengthDelimited, message);
        encode_varint(u64::try_from(content.len()).unwrap(), message);
        message.extend_from_slice(content);
    }
    let gateway = Gateway::start("newer").await;
    let newer = Outcome { r#type: 77, entry_mode: -5, ..outcome() };
    let mut outcome = newer.encode_to_vec();
    append(&mut outcome, 1001, b"a field of an outcome");
    let mut event = vec![0x08, 1, 0x10, 0];
    append(&mut event, 3, &outcome);
    append(&mut event, 1002, b"a field of an event");
    let mut sent = batch(vec![]).encode_to_vec();
    append(&mut sent, 3, &event);
    append(&mut sent, 1003, b"a field of a batch");
    let mut request = Vec::new();
    append(&mut request, 2, &sent);
    append(&mut request, 1004, b"a field of a request");

    let acknowledgement = gateway.terminal().report_bytes(request).await.unwrap().acknowledgement.unwrap();
    assert_eq!((acknowledgement.acknowledged_through, acknowledgement.refusals), (1, vec![]));
    let records = gateway.records().await;
    assert_eq!(records.iter().map(|record| record.batch.to_vec()).collect::<Vec<_>>(), [sent]);
    for field in ["outcome.type", "outcome.entry_mode"] {
        assert_eq!(gateway.service.counted("faultline_gateway_unknown_values_total", &[field]).await, 1);
    }
    gateway.stop().await;
}

#[tokio::test]
async fn one_bad_event_does_not_take_the_good_ones_with_it() {
    let gateway = Gateway::start("one-bad").await;
    let mut bad = event(2);
    bad.outcome.as_mut().unwrap().currency_code = "yuan".into();
    let acknowledgement = gateway.terminal().report(batch(vec![event(1), bad, event(3)])).await.unwrap();
    assert_eq!(acknowledgement.acknowledged_through, 3);
    let [refusal] = acknowledgement.refusals.as_slice() else { panic!("{acknowledgement:?}") };
    assert_eq!((refusal.sequence, refusal.index, refusal.reason()), (2, 1, RefusalReason::InvalidField));
    assert_eq!(refusal.field, "outcome.currency_code");
    assert!(refusal.description.contains("`yuan`"), "{refusal:?}");
    let records = gateway.records().await;
    let kept = OutcomeBatch::decode(records[0].batch.clone()).unwrap();
    assert_eq!(kept.events, [event(1), event(3)]);
    assert_eq!(gateway.service.counted("faultline_gateway_refused_events_total", &["outcome.currency_code"]).await, 1);
    gateway.stop().await;
}

#[tokio::test]
async fn an_event_of_another_terminal_is_refused() {
    let gateway = Gateway::start("another").await;
    let theirs = OutcomeBatch { terminal_id: "T-2".into(), ..batch(vec![event(1)]) };
    let acknowledgement = gateway.terminal().report(theirs.clone()).await.unwrap();
    assert_eq!(acknowledgement.refusals[0].reason(), RefusalReason::OtherTerminal);
    assert!(acknowledgement.refusals[0].description.contains("T-1"), "{acknowledgement:?}");
    assert_eq!(gateway.records().await, []);

    // A credential of the whole tenant may, and is known within seconds.
    let token = new_token(&gateway.tokens(), &["--tenant", "acme", "--any-terminal"]).await;
    let collector = Terminal::new(gateway.channel(), &token);
    let acknowledgement = eventually("the new token is known", async || collector.report(theirs.clone()).await.ok()).await;
    assert_eq!(acknowledgement.refusals, []);
    assert_eq!(gateway.records().await[0].terminal, "T-2");
    gateway.stop().await;
}

#[tokio::test]
async fn without_a_token_that_is_known_nothing_is_taken() {
    let gateway = Gateway::start("tokens").await;
    let stranger = Terminal::new(gateway.channel(), "hunter2");
    let status = stranger.report(batch(vec![event(1)])).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().contains("Bearer") && !status.message().contains("hunter2"), "{status}");

    // A token that is taken away ends a stream that is open, also one that is silent.
    let mut stream = gateway.terminal().stream().await;
    stream.report(batch(vec![event(1)])).await.unwrap();
    let other = "0000000000000000000000000000000000000000000000000000000000000000 acme T-9\n";
    fs::write(gateway.tokens(), format!("{other}{}", other.replace('0', "1"))).unwrap();
    assert_eq!(stream.next().await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(gateway.service.counted("faultline_gateway_tokens", &[]).await, 2);

    // What cannot be read changes nothing.
    fs::write(gateway.tokens(), "hunter2\n").unwrap();
    let failed = async || (gateway.service.counted("faultline_gateway_token_loads_total", &["failed"]).await == 1).then_some(());
    eventually("it was loaded again", failed).await;
    assert_eq!(gateway.service.counted("faultline_gateway_tokens", &[]).await, 2);
    for status in ["UNAUTHENTICATED", "OK"] {
        let calls = gateway.service.counted("faultline_gateway_calls_total", &[status]).await;
        assert_eq!(calls, if status == "OK" { 0 } else { 2 }, "{status}");
    }
    gateway.service.program.signal(Signal::SIGTERM);
    let ended = gateway.service.program.end().await;
    assert!(ended.stderr.contains("line 1") && !ended.stderr.contains("hunter2"), "{ended:?}");
}

#[tokio::test]
async fn card_numbers_in_free_text_never_reach_kafka() {
    let gateway = Gateway::start("cards").await;
    let text = format!("host refused {CARD} with E-12");
    let acknowledgement = gateway.terminal().report(batch(vec![event(1), saying(2, &text)])).await.unwrap();
    assert_eq!((acknowledgement.acknowledged_through, acknowledgement.redacted_sequences), (2, vec![2]));
    assert_eq!(acknowledgement.refusals, []);
    let records = gateway.records().await;
    let kept = OutcomeBatch::decode(records[0].batch.clone()).unwrap();
    assert_eq!(kept.events, [event(1), saying(2, "host refused **************** with E-12")]);

    // In a field with a grammar it is refused, and not repeated in the answer.
    let mut misplaced = event(3);
    misplaced.outcome.as_mut().unwrap().bin = CARD.into();
    let acknowledgement = gateway.terminal().report(batch(vec![misplaced])).await.unwrap();
    assert_eq!(acknowledgement.refusals[0].field, "outcome.bin");
    assert!(!format!("{acknowledgement:?}").contains(CARD));
    assert_eq!(gateway.service.counted("faultline_gateway_events_total", &["redacted"]).await, 1);
    gateway.stop().await;
}

#[tokio::test]
async fn a_clock_two_days_off_is_corrected_and_flagged() {
    const TWO_DAYS_S: i64 = 2 * 86_400;
    let gateway = Gateway::start("clock").await;
    // Completed 90 s before it was sent, by a clock that is two days ahead; the terminal has restarted since and knows no age.
    let mut restarted = event(1);
    restarted.age_ms = None;
    restarted.outcome.as_mut().unwrap().completion_time = Some(in_seconds(TWO_DAYS_S - 90));
    let ahead = OutcomeBatch { send_time: Some(in_seconds(TWO_DAYS_S)), ..batch(vec![restarted, event(2)]) };
    assert_eq!(gateway.terminal().report(ahead).await.unwrap().refusals, []);

    let records = gateway.records().await;
    let kept = OutcomeBatch::decode(records[0].batch.clone()).unwrap();
    let clock = BatchClock { receipt_ms: records[0].receipt_ms, send_ms: kept.send_time.as_ref().and_then(unix_ms) };
    let dated = kept.events.iter().map(|event| {
        let completion = event.outcome.as_ref().and_then(|outcome| outcome.completion_time.as_ref());
        let dated = clock.date(event.age_ms, completion);
        (records[0].receipt_ms - dated.unix_ms, dated.clock)
    });
    let dated: Vec<_> = dated.collect();
    // Whole seconds in the test's own clock readings.
    assert!((89_000..=91_000).contains(&dated[0].0) && dated[0].1 == Clock::Corrected, "{dated:?}");
    assert_eq!(dated[1], (100, Clock::Age));
    for clock in ["corrected", "age"] {
        assert_eq!(gateway.service.counted("faultline_gateway_event_clocks_total", &[clock]).await, 1);
    }
    gateway.stop().await;
}

#[tokio::test]
async fn what_is_over_a_limit_or_no_batch_is_told_what_is_wrong_and_harms_nobody() {
    let gateway = Gateway::start("limits").await;
    let terminal = gateway.terminal();
    let too_many = batch((1..=501).map(event).collect());
    let status = terminal.report(too_many.clone()).await.unwrap_err();
    assert_eq!((status.code(), field_of(&status).as_str()), (Code::InvalidArgument, "batch.events"));
    assert!(status.message().contains("501"), "{status}");

    // The same on a stream ends it; the next is as good as new.
    let mut stream = terminal.stream().await;
    assert_eq!(stream.report(too_many).await.unwrap_err().code(), Code::InvalidArgument);
    let mut stream = terminal.stream().await;
    assert_eq!(stream.report(batch(vec![event(1)])).await.unwrap().acknowledged_through, 1);

    let large = OutcomeBatch { terminal_id: "x".repeat(2 << 20), ..batch(vec![]) };
    for answer in [terminal.report(large.clone()).await, terminal.report_compressed(large).await] {
        let status = answer.unwrap_err();
        assert_eq!((status.code(), field_of(&status).as_str()), (Code::InvalidArgument, "message"));
    }
    let two_batches = vec![0x12, 0, 0x12, 0];
    for (bytes, field) in [(vec![0xFF; 20], "message"), (vec![0x12, 2, 0x1A, 0x7F], "batch"), (vec![], "batch"), (two_batches, "batch")] {
        let status = terminal.report_bytes(bytes).await.unwrap_err();
        assert_eq!((status.code(), field_of(&status).as_str()), (Code::InvalidArgument, field));
    }
    let without_time = OutcomeBatch { send_time: None, ..batch(vec![event(1)]) };
    assert_eq!(field_of(&terminal.report(without_time).await.unwrap_err()), "batch.send_time");

    let compressed = terminal.report_compressed(batch((1..=500).map(event).collect())).await.unwrap();
    assert_eq!(compressed.acknowledged_through, 500);
    assert_eq!(gateway.service.counted("faultline_gateway_batches_total", &["fate=\"invalid\""]).await, 4);
    assert_eq!(gateway.service.counted("faultline_gateway_calls_total", &["INVALID_ARGUMENT"]).await, 9);
    gateway.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_profile_is_left_out_and_said_once() {
    let gateway = Gateway::start("profile").await;
    let mut stream = gateway.terminal().stream().await;
    stream.send(Request::Profile(TerminalProfile { carrier: "中国移动".into(), ..profile() })).await;
    let acknowledgement = stream.report(batch(vec![event(1)])).await.unwrap();
    assert_eq!(acknowledgement.ignored_parts[0].field, "profile.carrier");
    assert_eq!(stream.report(batch(vec![event(2)])).await.unwrap().ignored_parts, []);
    let expected = TerminalProfile { carrier: String::new(), ..profile() }.encode_to_vec();
    assert!(gateway.records().await.iter().all(|record| record.profile == expected));
    drop(stream);
    gateway.stop().await;
}

async fn health(gateway: &Gateway) -> Option<ServingStatus> {
    let request = HealthCheckRequest { service: "faultline.ingest.v1.IngestService".into() };
    Some(HealthClient::new(gateway.channel()).check(request).await.ok()?.into_inner().status())
}

#[tokio::test]
async fn without_kafka_it_stays_up_says_why_and_serves_once_kafka_is_there() {
    let directory = scratch("gateway-kafka");
    let local = LocalConfig { data_dir: directory.path().into(), ..ports() };
    let kafka = KafkaConfig {
        brokers: format!("127.0.0.1:{}", local.kafka_port),
        partitions: local.kafka_partitions,
        allow_weak_durability: true,
        ..KafkaConfig::default()
    };
    let gateway = Gateway::start_on(kafka, &[]).await;
    let why =
        eventually("it says why", async || gateway.service.ask("/readyz").await.filter(|(_, why)| why.contains("Connection refused")))
            .await;
    assert_eq!(why.0, 503);
    assert!(why.1.starts_with("Kafka: ") && why.1.contains(&gateway.kafka.brokers), "{why:?}");
    assert_eq!(gateway.service.ask("/livez").await, Some((200, "alive\n".into())));
    assert_eq!(health(&gateway).await, Some(ServingStatus::NotServing));
    let status = gateway.terminal().report(batch(vec![event(1)])).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.get_error_details().retry_info().unwrap().retry_delay.is_some());
    assert!(!status.message().contains("127.0.0.1"), "{status}");

    let up = Faultline::up(&local, &[]).until_up().await;
    gateway.service.until_ready().await;
    eventually("it serves", async || health(&gateway).await.filter(|status| *status == ServingStatus::Serving)).await;
    assert_eq!(gateway.terminal().report(batch(vec![event(1)])).await.unwrap().acknowledged_through, 1);

    // And when Kafka goes again, that is said too.
    up.signal(Signal::SIGTERM);
    up.end().await;
    eventually("it is no longer ready", async || gateway.service.ask("/readyz").await.filter(|(status, _)| *status == 503)).await;

    // In its place comes one whose topics are others: nothing is acknowledged on their word.
    let elsewhere = scratch("gateway-kafka");
    let more = local.kafka_partitions + 1;
    let other = LocalConfig { data_dir: elsewhere.path().into(), kafka_partitions: more, ..local };
    let up = Faultline::up(&other, &[]).until_up().await;
    let says_it = |why: &str| why.contains(&format!("has {more} partitions"));
    eventually("it says what is wrong", async || gateway.service.ask("/readyz").await.filter(|(_, why)| says_it(why))).await;
    assert_eq!(gateway.terminal().report(batch(vec![event(2)])).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(gateway.records().await, []);
    up.signal(Signal::SIGTERM);
    up.end().await;
    gateway.stop().await;
}

#[tokio::test]
async fn more_connections_and_calls_than_there_is_room_for_wait() {
    let kafka = KafkaConfig { topic_prefix: "gateway-room".into(), ..sandbox().await.kafka.clone() };
    let settings = [("GATEWAY__MAX_CONNECTIONS", "2".to_owned()), ("GATEWAY__MAX_CALLS_PER_CONNECTION", "2".to_owned())];
    let gateway = Gateway::start_on(kafka, &settings).await;
    gateway.service.until_ready().await;
    let first = Terminal::new(gateway.channel(), &gateway.token);
    // HTTP/2 tells the limit with its first answer.
    first.report(batch(vec![event(1)])).await.unwrap();
    let streams = [first.stream().await, first.stream().await];
    let third = tokio::spawn(async move { first.report(batch(vec![event(1)])).await });
    let second = gateway.terminal();
    second.report(batch(vec![event(1)])).await.unwrap();
    let other = gateway.terminal();
    let outside = tokio::spawn(async move { other.report(batch(vec![event(1)])).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!third.is_finished() && !outside.is_finished());
    assert_eq!(gateway.service.counted("faultline_gateway_connections", &[]).await, 2);
    drop((streams, second));
    for waiting in [third, outside] {
        timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap();
    }
    gateway.stop().await;
}

/// A gateway on a Kafka of its own, which can be made to hang.
pub(crate) struct Hanging {
    pub(crate) gateway: Gateway,
    up: Faultline,
    broker: Pid,
    _directory: TempDir,
}

impl Hanging {
    pub(crate) async fn start(settings: &[(&'static str, String)]) -> Hanging {
        let directory = scratch("gateway-hangs");
        let local = LocalConfig { data_dir: directory.path().into(), ..ports() };
        let up = Faultline::up(&local, &[]).until_up().await;
        let kafka = KafkaConfig {
            brokers: format!("127.0.0.1:{}", local.kafka_port),
            partitions: local.kafka_partitions,
            allow_weak_durability: true,
            ..KafkaConfig::default()
        };
        let gateway = Gateway::start_on(kafka, settings).await;
        gateway.service.until_ready().await;
        gateway.terminal().report(batch(vec![event(1)])).await.unwrap();
        let broker = Pid::from_raw(process(&local.data_dir, "kafka.Kafka").unwrap());
        Hanging { gateway, up, broker, _directory: directory }
    }

    pub(crate) fn hang(&self) {
        kill(self.broker, Signal::SIGSTOP).unwrap();
    }

    pub(crate) fn go_on(&self) {
        kill(self.broker, Signal::SIGCONT).unwrap();
    }

    pub(crate) async fn waiting(&self) -> u64 {
        self.gateway.service.counted("faultline_gateway_in_flight_bytes", &[]).await
    }

    pub(crate) async fn stop(self) {
        self.gateway.stop().await;
        self.up.signal(Signal::SIGTERM);
        assert!(self.up.end().await.status.success());
    }
}

#[tokio::test]
async fn while_kafka_hangs_load_is_shed_and_nothing_is_acknowledged() {
    let hanging = Hanging::start(&[("GATEWAY__IN_FLIGHT", "4 KiB".to_owned()), ("KAFKA__DELIVERY_TIMEOUT", "4s".to_owned())]).await;
    let collector = hanging.gateway.collector().await;
    hanging.hang();
    // Room for four.
    let reports = (0..12).map(|number| {
        let collector = collector.clone();
        tokio::spawn(async move { collector.report(OutcomeBatch { terminal_id: format!("T-{number}"), ..batch(vec![event(1)]) }).await })
    });
    let reports: Vec<_> = reports.collect();
    let mut codes = BTreeMap::new();
    for report in reports {
        let status = report.await.unwrap().unwrap_err();
        assert!(status.get_error_details().retry_info().is_some(), "{status}");
        *codes.entry(format!("{:?}", status.code())).or_insert(0) += 1;
    }
    assert_eq!(codes, BTreeMap::from([("ResourceExhausted".to_owned(), 8), ("Unavailable".to_owned(), 4)]));
    for fate in ["shed", "unavailable"] {
        let number = hanging.gateway.service.counted("faultline_gateway_batches_total", &[fate]).await;
        assert_eq!(number, if fate == "shed" { 8 } else { 4 });
    }
    assert_eq!(hanging.waiting().await, 0);

    hanging.go_on();
    let terminal = hanging.gateway.terminal();
    eventually("it goes on", async || terminal.report(batch(vec![event(2)])).await.ok()).await;
    hanging.stop().await;
}

#[tokio::test]
async fn a_terminal_that_hangs_up_does_not_take_its_batch_out_of_the_account() {
    let hanging = Hanging::start(&[]).await;
    hanging.hang();
    let terminal = hanging.gateway.terminal();
    let reporting = tokio::spawn(async move { terminal.report(batch(vec![event(2), event(3)])).await });
    eventually("the batch waits for Kafka", async || (hanging.waiting().await > 0).then_some(())).await;
    reporting.abort();
    reporting.await.unwrap_err();
    // What the gateway knows of the call's end takes a moment to come about; nothing may change by it.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(hanging.waiting().await > 0);
    hanging.go_on();
    let stored = async || (hanging.gateway.service.counted("faultline_gateway_batches_total", &["stored"]).await == 2).then_some(());
    eventually("it is stored", stored).await;
    assert_eq!(hanging.gateway.service.counted("faultline_gateway_events_total", &["accepted"]).await, 3);
    assert_eq!(hanging.waiting().await, 0);

    // Nor does it when the gateway stops.
    hanging.hang();
    let terminal = hanging.gateway.terminal();
    let reporting = tokio::spawn(async move { terminal.report(batch(vec![event(4)])).await });
    eventually("the batch waits for Kafka", async || (hanging.waiting().await > 0).then_some(())).await;
    reporting.abort();
    hanging.gateway.service.program.signal(Signal::SIGTERM);
    eventually("it is going down", async || hanging.gateway.service.ask("/readyz").await.filter(|(status, _)| *status == 503)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(hanging.waiting().await > 0);
    hanging.go_on();
    let ended = hanging.gateway.service.program.end().await;
    assert!(ended.status.success() && !ended.stderr.contains("cut off"), "{ended:?}");
}

#[tokio::test]
async fn asked_to_stop_it_answers_what_it_took_and_is_no_longer_ready_meanwhile() {
    let hanging = Hanging::start(&[]).await;
    let mut stream = hanging.gateway.terminal().stream().await;
    hanging.hang();
    stream.send(Request::Batch(batch(vec![event(2)]))).await;
    eventually("the batch waits for Kafka", async || (hanging.waiting().await > 0).then_some(())).await;
    hanging.gateway.service.program.signal(Signal::SIGTERM);
    let why =
        eventually("it is not ready", async || hanging.gateway.service.ask("/readyz").await.filter(|(status, _)| *status == 503)).await;
    assert!(why.1.contains("is going down"), "{why:?}");
    hanging.go_on();
    match stream.next().await {
        Ok(Some(Response::Acknowledgement(acknowledgement))) => assert_eq!(acknowledgement.acknowledged_through, 2),
        other => panic!("{other:?}"),
    }
    assert_eq!(stream.next().await.unwrap_err().code(), Code::Unavailable);
    let ended = hanging.gateway.service.program.end().await;
    assert!(ended.status.success() && !ended.stderr.contains("cut off"), "{ended:?}");
}

#[tokio::test]
async fn asked_to_stop_it_waits_for_nobody_who_has_nothing_to_be_answered() {
    let kafka = KafkaConfig { topic_prefix: "gateway-drain".into(), ..sandbox().await.kafka.clone() };
    let gateway = Gateway::start_on(kafka, &[("GATEWAY__DRAIN_WITHIN", "1h".to_owned()), ("LOG__FORMAT", "json".to_owned())]).await;
    gateway.service.until_ready().await;
    let mut idle = gateway.terminal().stream().await;
    let mut busy = gateway.terminal().stream().await;
    busy.report(batch(vec![event(1)])).await.unwrap();
    // A balancer that watches, a connection without a word, and a call without its message.
    let watching = HealthClient::new(gateway.channel()).watch(HealthCheckRequest::default()).await.unwrap();
    let silent = tokio::net::TcpStream::connect(("127.0.0.1", gateway.port)).await.unwrap();
    let terminal = gateway.terminal();
    let asking = tokio::spawn(async move { terminal.open_without_message().await });
    eventually("all are connected", async || (gateway.service.counted("faultline_gateway_connections", &[]).await >= 5).then_some(()))
        .await;

    gateway.service.program.signal(Signal::SIGTERM);
    for stream in [&mut idle, &mut busy] {
        assert_eq!(stream.next().await.unwrap_err().code(), Code::Unavailable);
    }
    assert_eq!(asking.await.unwrap().unwrap_err().code(), Code::Unavailable);
    let ended = gateway.service.program.end().await;
    drop((watching, silent));
    assert!(ended.status.success() && !ended.stderr.contains("cut off"), "{ended:?}");
    assert!(ended.stderr.lines().all(|line| line.starts_with("{\"timestamp\":") && line.ends_with('}')), "{}", ended.stderr);
}

#[tokio::test]
async fn a_closed_terminal_stops_it_unless_it_was_started_to_outlive_that() {
    let gateway = Gateway::start("hang-up").await;
    let mut beside = gateway.service.settings.clone();
    let monitoring = format!("127.0.0.1:{}", port());
    beside.extend([("GATEWAY__LISTEN", format!("127.0.0.1:{}", port())), ("MONITORING__LISTEN", monitoring.clone())]);
    let outliving = Faultline::start_under_nohup(&["gateway"], &beside);
    let ready = async || {
        let answer = http().get(format!("http://{monitoring}/readyz")).send().await.ok();
        answer.filter(|answer| answer.status() == 200)
    };
    eventually("the one beside it is ready", ready).await;
    outliving.signal(Signal::SIGHUP);
    gateway.service.program.signal(Signal::SIGHUP);
    let ended = gateway.service.program.end().await;
    assert!(ended.status.success() && ended.stderr.contains("SIGHUP"), "{ended:?}");
    assert!(ready().await.is_some());
    outliving.signal(Signal::SIGTERM);
    assert!(!outliving.end().await.stderr.contains("SIGHUP"));
}

#[tokio::test]
async fn a_killed_gateway_has_lost_nothing_that_it_acknowledged() {
    let gateway = Gateway::start("killed").await;
    let terminal = gateway.terminal();
    let reporting = tokio::spawn(async move {
        let mut stream = terminal.stream().await;
        let mut acknowledged = 0;
        while let Ok(acknowledgement) = stream.report(batch(vec![event(acknowledged + 1)])).await {
            acknowledged = acknowledgement.acknowledged_through;
        }
        acknowledged
    });
    eventually("some are acknowledged", async || {
        (gateway.service.counted("faultline_gateway_batches_total", &[]).await > 20).then_some(())
    })
    .await;
    gateway.service.program.signal(Signal::SIGKILL);
    let acknowledged = timeout(PATIENCE, reporting).await.unwrap().unwrap();
    assert!(acknowledged > 20);
    let mut stored: Vec<u64> =
        gateway.records().await.iter().map(|record| OutcomeBatch::decode(record.batch.clone()).unwrap().events[0].sequence).collect();
    stored.sort_unstable();
    // The last may be there without its acknowledgement.
    assert!(
        stored.starts_with(&(1..=acknowledged).collect::<Vec<_>>()) && stored.len() as u64 <= acknowledged + 1,
        "{acknowledged}: {stored:?}"
    );
}

#[tokio::test]
async fn with_a_certificate_it_speaks_tls_and_nothing_else() {
    let directory = scratch("certificate");
    let made = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
    let (certificate, key) = (directory.path().join("certificate.pem"), directory.path().join("key.pem"));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
    let kafka = KafkaConfig { topic_prefix: "gateway-tls".into(), ..sandbox().await.kafka.clone() };
    let settings = [("GATEWAY__TLS_CERTIFICATE_FILE", text(&certificate)), ("GATEWAY__TLS_KEY_FILE", text(&key))];
    let gateway = Gateway::start_on(kafka, &settings).await;
    gateway.service.until_ready().await;
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(made.cert.pem()));
    let endpoint = Endpoint::from_shared(format!("https://localhost:{}", gateway.port)).unwrap().tls_config(tls).unwrap();
    let terminal = Terminal::new(endpoint.connect_lazy(), &gateway.token);
    assert_eq!(terminal.report(batch(vec![event(1)])).await.unwrap().acknowledged_through, 1);
    gateway.terminal().report(batch(vec![event(2)])).await.unwrap_err();

    let address = format!("https://localhost:{}", gateway.port);
    let connection = Connection::builder(address, gateway.token.as_str()).ca_certificate(made.cert.pem()).build().unwrap();
    let terminal = faultline_sdk::Terminal::builder(&connection, "T-1").start().unwrap();
    let reported = terminal.report(outcome()).unwrap();
    tokio::time::timeout(PATIENCE, terminal.until_settled(reported.sequence)).await.unwrap();
    assert_eq!(terminal.status().acknowledged, 1);

    let mut half = gateway.service.settings.clone();
    half.retain(|(key, _)| *key != "GATEWAY__TLS_KEY_FILE");
    half.extend([("GATEWAY__LISTEN", format!("127.0.0.1:{}", port())), ("MONITORING__LISTEN", format!("127.0.0.1:{}", port()))]);
    run(&["gateway"], &half).await.failed_saying(&["gateway.tls_key_file", "is needed too"]);
    half.push(("GATEWAY__TLS_KEY_FILE", text(&certificate)));
    run(&["gateway"], &half).await.failed_saying(&["gateway.tls_certificate_file", "gateway.tls_key_file"]);
    gateway.stop().await;
}

#[tokio::test]
async fn it_does_not_start_where_it_could_not_keep_its_word_or_is_not_set_up() {
    let gateway = Gateway::start("refuses").await;
    let with = |key: &'static str, value: &str| {
        let mut settings = gateway.service.settings.clone();
        settings.extend([("GATEWAY__LISTEN", format!("127.0.0.1:{}", port())), ("MONITORING__LISTEN", format!("127.0.0.1:{}", port()))]);
        settings.push((key, value.to_owned()));
        settings
    };
    let weak = run(&["gateway"], &with("KAFKA__ALLOW_WEAK_DURABILITY", "false")).await;
    weak.failed_saying(&["may lose acknowledged events", "gateway-refuses.outcomes: 1 of at least 3 replicas", "allow_weak_durability"]);
    let taken = gateway.address();
    run(&["gateway"], &with("GATEWAY__LISTEN", &taken)).await.failed_saying(&[&taken, "`gateway.listen`", "in use"]);
    let taken = format!("127.0.0.1:{}", gateway.service.monitoring_port);
    run(&["gateway"], &with("MONITORING__LISTEN", &taken)).await.failed_saying(&[&taken, "`monitoring.listen`", "in use"]);
    run(&["gateway"], &with("GATEWAY__TOKEN_FILE", "")).await.failed_saying(&["gateway.token_file", "faultline token"]);
    run(&["gateway"], &with("GATEWAY__TOKEN_FILE", "/nowhere")).await.failed_saying(&["gateway.token_file", "/nowhere", "No such file"]);
    run(&["gateway"], &with("GATEWAY__LISTN", "x")).await.failed_saying(&["gateway.listn", "`listen`"]);
    run(&["gateway"], &with("GATEWAY__IN_FLIGHT", "lots")).await.failed_saying(&["gateway.in_flight", "lots"]);
    run(&["gateway"], &with("GATEWAY__IN_FLIGHT", "0 B")).await.failed_saying(&["gateway.in_flight", "not within"]);
    run(&["gateway"], &with("KAFKA__DELIVERY_TIMEOUT", "0s")).await.failed_saying(&["kafka.delivery_timeout", "not within"]);
    run(&["gateway"], &with("GATEWAY__TERMINALS__MAX_BATCH_EVENTS", "501"))
        .await
        .failed_saying(&["gateway.terminals.max_batch_events", "501"]);
    gateway.stop().await;
}

#[tokio::test]
async fn it_describes_itself_to_tools() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let gateway = Gateway::start("describes").await;
    let question = ServerReflectionRequest { host: String::new(), message_request: Some(MessageRequest::ListServices(String::new())) };
    let mut client = ServerReflectionClient::new(gateway.channel());
    let mut answers = client.server_reflection_info(tokio_stream::once(question)).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(services)) = answers.message().await.unwrap().unwrap().message_response else {
        panic!("no list")
    };
    let names: Vec<&str> = services.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&"faultline.ingest.v1.IngestService") && names.contains(&"grpc.health.v1.Health"), "{names:?}");
    assert_eq!(health(&gateway).await, Some(ServingStatus::Serving));
    gateway.stop().await;
}
