//! Sessions with a gateway that does what a test says, on a clock that a test moves.

use std::sync::OnceLock;

use bytes::Bytes;
use faultline_bundle::{Bundle, SigningKey};
use faultline_proto::ingest::v1::ingest_service_server::{IngestService, IngestServiceServer};
use faultline_proto::ingest::v1::{DroppedRange, EventRefusal, RefusalReason, ReportOutcomesRequest, ReportOutcomesResponse};
use faultline_proto::outcome::v1::Stage;
use faultline_proto::terminal::v1::{HealthSample, RuleRequest};
use tokio::io::DuplexStream;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Response as Answer;
use tonic::transport::{Endpoint, Server};
use tonic_types::ErrorDetails;

use super::*;
use crate::rules::TerminalRules;
use crate::spool::{Limits, MemorySpool};
use crate::terminal::{Terminal, TerminalBuilder};

type Answers = mpsc::Sender<Result<StreamOutcomesResponse, Status>>;

/// A gateway that hands every stream to the test.
#[derive(Clone)]
struct Scripted(mpsc::Sender<Call>);

/// A stream, from the gateway's side.
struct Call {
    requests: Streaming<StreamOutcomesRequest>,
    answers: Answers,
    authorization: String,
}

#[tonic::async_trait]
impl IngestService for Scripted {
    type StreamOutcomesStream = ReceiverStream<Result<StreamOutcomesResponse, Status>>;

    async fn stream_outcomes(
        &self,
        request: tonic::Request<Streaming<StreamOutcomesRequest>>,
    ) -> Result<Answer<Self::StreamOutcomesStream>, Status> {
        let authorization = request.metadata().get("authorization").unwrap().to_str().unwrap().to_owned();
        let (answers, receiver) = mpsc::channel(4);
        self.0
            .try_send(Call { requests: request.into_inner(), answers, authorization })
            .map_err(|_| Status::unavailable("nobody listens"))?;
        Ok(Answer::new(ReceiverStream::new(receiver)))
    }

    async fn report_outcomes(&self, _: tonic::Request<ReportOutcomesRequest>) -> Result<Answer<ReportOutcomesResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
}

/// The calls that a gateway gets, and a connection to it.
struct World {
    calls: mpsc::Receiver<Call>,
    connection: Connection,
}

/// In memory, so that a paused clock goes on only when everybody waits.
fn world() -> World {
    let (calls, receiver) = mpsc::channel(8);
    let (connections, incoming) = mpsc::channel::<std::io::Result<DuplexStream>>(8);
    let server = Server::builder().add_service(IngestServiceServer::new(Scripted(calls)));
    tokio::spawn(server.serve_with_incoming(ReceiverStream::new(incoming)));
    let connector = tower::service_fn(move |_| {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let connected = connections.try_send(Ok(theirs)).map(|()| hyper_util::rt::TokioIo::new(ours));
        async { connected.map_err(std::io::Error::other) }
    });
    let channel = Endpoint::from_static("http://gateway").connect_with_connector_lazy(connector);
    World { calls: receiver, connection: Connection { channel, authorization: "Bearer secret".parse().unwrap() } }
}

fn now() -> BootTime {
    static BASE: OnceLock<Instant> = OnceLock::new();
    BootTime(Instant::now().duration_since(*BASE.get_or_init(Instant::now)))
}

impl World {
    fn terminal(&self) -> TerminalBuilder {
        let mut builder = Terminal::builder(&self.connection, "T-1");
        builder.now = now;
        builder
    }

    /// The next stream, after its profile.
    async fn call(&mut self) -> (Call, TerminalProfile) {
        let mut call = self.calls.recv().await.unwrap();
        match call.next().await {
            Some(Request::Profile(profile)) => (call, profile),
            other => panic!("{other:?} came before a profile"),
        }
    }
}

impl Call {
    async fn next(&mut self) -> Option<Request> {
        self.requests.next().await.and_then(Result::ok).map(|request| request.message.unwrap())
    }

    async fn batch(&mut self) -> OutcomeBatch {
        match self.next().await {
            Some(Request::Batch(batch)) => batch,
            other => panic!("{other:?} is not a batch"),
        }
    }

    async fn say(&self, message: Response) {
        self.answers.send(Ok(StreamOutcomesResponse { message: Some(message) })).await.unwrap();
    }

    async fn acknowledge(&self, batch: &OutcomeBatch) {
        self.say(Response::Acknowledgement(acknowledgement(batch))).await;
    }

    async fn end(self, status: Status) {
        self.answers.send(Err(status)).await.unwrap();
    }
}

fn acknowledgement(batch: &OutcomeBatch) -> BatchAcknowledgement {
    let through = batch.events.last().map_or(0, |event| event.sequence);
    BatchAcknowledgement { spool_id: batch.spool_id, acknowledged_through: through, ..BatchAcknowledgement::default() }
}

fn outcome(order: u32) -> Outcome {
    Outcome { order_number: order.to_string(), ..Outcome::default() }
}

fn sequences(batch: &OutcomeBatch) -> Vec<u64> {
    batch.events.iter().map(|event| event.sequence).collect()
}

fn settings(events: u32) -> Response {
    let max_batch_delay = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let settings = TerminalSettings { max_batch_events: events, max_batch_bytes: 100_000, max_batch_delay, ..TerminalSettings::default() };
    Response::Settings(settings)
}

#[tokio::test(start_paused = true)]
async fn what_is_reported_arrives_with_identity_age_and_token() {
    let mut world = world();
    let profile = TerminalProfile { model: "PAX A920".into(), ..TerminalProfile::default() };
    let terminal = world.terminal().profile(profile).start().unwrap();
    assert_eq!(terminal.report(outcome(1)).unwrap().sequence, 1);
    let (mut call, profile) = world.call().await;
    assert_eq!(call.authorization, "Bearer secret");
    assert_eq!((profile.model.as_str(), profile.sdk.starts_with("rust ")), ("PAX A920", true));

    let batch = call.batch().await;
    assert_eq!((batch.terminal_id.as_str(), batch.spool_id, batch.profile.as_ref()), ("T-1", terminal.spool_id(), None));
    assert!(batch.send_time.is_some());
    let event = &batch.events[0];
    assert_eq!((event.sequence, event.outcome.as_ref().unwrap().order_number.as_str()), (1, "1"));
    assert!(event.outcome.as_ref().unwrap().completion_time.is_some());
    // It waited for others, as long as it may.
    assert_eq!(event.age_ms, Some(2000));
    assert_eq!((terminal.status().waiting, terminal.status().acknowledged), (1, 0));
    call.acknowledge(&batch).await;
    terminal.until_settled(1).await;
    let status = terminal.status();
    assert_eq!((status.waiting, status.acknowledged, status.connected, status.problem.as_str()), (0, 1, true, ""));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_acknowledged_is_sent_again_as_it_was() {
    let mut world = world();
    let terminal = world.terminal().start().unwrap();
    terminal.report(outcome(1)).unwrap();
    let (mut call, _) = world.call().await;
    let first = call.batch().await;
    terminal.report(outcome(2)).unwrap();
    call.end(Status::unavailable("going down")).await;

    let (mut call, _) = world.call().await;
    let again = call.batch().await;
    assert_eq!(sequences(&again), [1]);
    assert_eq!((again.spool_id, again.events[0].outcome.clone()), (first.spool_id, first.events[0].outcome.clone()));
    // The age is that at sending.
    assert!(again.events[0].age_ms > first.events[0].age_ms);
    call.acknowledge(&again).await;
    let next = call.batch().await;
    assert_eq!(sequences(&next), [2]);
}

#[tokio::test(start_paused = true)]
async fn one_batch_is_on_its_way_at_a_time() {
    let mut world = world();
    let terminal = world.terminal().start().unwrap();
    for order in 0..250 {
        terminal.report(outcome(order)).unwrap();
    }
    let (mut call, _) = world.call().await;
    let first = call.batch().await;
    assert_eq!((first.events.len(), first.events[0].age_ms), (100, Some(0)));
    let more = timeout(Duration::from_secs(30), call.next()).await;
    assert!(more.is_err(), "{more:?} came before the acknowledgement");
    call.acknowledge(&first).await;
    assert_eq!(sequences(&call.batch().await), (101..=200).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_is_not_waited_for_for_ever() {
    let mut world = world();
    let terminal = world.terminal().start().unwrap();
    terminal.report(outcome(1)).unwrap();
    let (mut call, _) = world.call().await;
    call.batch().await;
    let begin = Instant::now();
    let (mut again, _) = world.call().await;
    assert!((44..60).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    assert_eq!(sequences(&again.batch().await), [1]);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_sent_away_comes_back_when_told_and_later_each_time() {
    let mut world = world();
    let terminal = world.terminal().start().unwrap();
    terminal.report(outcome(1)).unwrap();
    let (mut call, _) = world.call().await;
    call.batch().await;
    terminal.report(outcome(2)).unwrap();
    let begin = Instant::now();
    let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(7)));
    call.end(Status::with_error_details(Code::ResourceExhausted, "full", details)).await;
    let (mut call, _) = world.call().await;
    assert_eq!(begin.elapsed().as_secs(), 7);
    assert_eq!(sequences(&call.batch().await), [1], "the same batch, whatever came meanwhile");

    // Without a word about when: longer each time, until a minute (two, by chance).
    let mut ended = call;
    let mut pauses = Vec::new();
    for _ in 0..10 {
        let begin = Instant::now();
        ended.end(Status::unauthenticated("who?")).await;
        (ended, _) = world.call().await;
        pauses.push(begin.elapsed().as_secs_f32());
    }
    assert!(pauses[0] <= 2.1 && pauses[9] >= 60.0 && pauses.iter().all(|pause| *pause <= 121.0), "{pauses:?}");
    assert!(terminal.status().problem.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_in_the_way_is_said() {
    let mut world = world();
    let terminal = world.terminal().start().unwrap();
    let (call, _) = world.call().await;
    call.end(Status::unauthenticated("who?")).await;
    let mut status = terminal.status();
    while status.connected || status.problem.is_empty() {
        tokio::task::yield_now().await;
        status = terminal.status();
    }
    assert!(status.problem.contains("who?"), "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_event_is_settled_and_said() {
    let mut world = world();
    let terminal = world.terminal().start().unwrap();
    terminal.report(outcome(1)).unwrap();
    let last = terminal.report(outcome(2)).unwrap().sequence;
    let (mut call, _) = world.call().await;
    let batch = call.batch().await;
    let refusal = EventRefusal {
        sequence: 1,
        reason: RefusalReason::InvalidField.into(),
        field: "outcome.merchant_id".into(),
        ..EventRefusal::default()
    };
    call.say(Response::Acknowledgement(BatchAcknowledgement {
        refusals: vec![refusal.clone()],
        redacted_sequences: vec![2],
        ..acknowledgement(&batch)
    }))
    .await;
    terminal.until_settled(last).await;
    let status = terminal.status();
    assert_eq!((status.acknowledged, status.refused, status.redacted, status.waiting), (1, 1, 1, 0));
    assert_eq!(status.last_refusal, Some(refusal));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_cannot_be_taken_is_halved_until_one_event_is_left_and_declared() {
    let mut world = world();
    let terminal = world.terminal().start().unwrap();
    for order in 0..4 {
        terminal.report(outcome(order)).unwrap();
    }
    let mut sent = Vec::new();
    let (mut call, _) = world.call().await;
    let begin = Instant::now();
    // Nobody can take the second.
    let declared = loop {
        let batch = call.batch().await;
        sent.push(sequences(&batch));
        if batch.events.iter().any(|event| event.sequence == 2) {
            call.end(Status::invalid_argument("what is this?")).await;
            (call, _) = world.call().await;
        } else {
            call.acknowledge(&batch).await;
            if sent.last().is_some_and(|last| last.contains(&4)) {
                break batch.dropped_ranges;
            }
        }
    };
    let expected: [&[u64]; 6] = [&[1, 2, 3, 4], &[1, 2], &[1], &[2, 3, 4], &[2], &[3, 4]];
    assert_eq!(sent, expected);
    assert_eq!(declared, [DroppedRange { first_sequence: 2, last_sequence: 2, reason: DropReason::Refused.into() }]);
    terminal.until_settled(4).await;
    assert_eq!((terminal.status().acknowledged, terminal.status().dropped), (3, 1));
    // It answers, so nobody waits longer each time.
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_event_that_nobody_can_read_is_not_sent_for_ever() {
    let mut world = world();
    let terminal = world.terminal().start().unwrap();
    terminal.report(outcome(1)).unwrap();
    terminal.report(outcome(2)).unwrap();
    let (mut call, _) = world.call().await;
    let batch = call.batch().await;
    let refusals = vec![EventRefusal { index: 1, reason: RefusalReason::Malformed.into(), ..EventRefusal::default() }];
    call.say(Response::Acknowledgement(BatchAcknowledgement { acknowledged_through: 1, refusals, ..acknowledgement(&batch) })).await;
    let next = call.batch().await;
    assert_eq!((sequences(&next), next.dropped_ranges.len()), (vec![], 1));
    call.acknowledge(&next).await;
    terminal.close(Duration::from_secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_of_something_else_is_not_believed() {
    let mut world = world();
    let terminal = world.terminal().start().unwrap();
    terminal.report(outcome(1)).unwrap();
    for wrong in [
        BatchAcknowledgement { spool_id: 1, acknowledged_through: 1, ..BatchAcknowledgement::default() },
        BatchAcknowledgement { spool_id: terminal.spool_id(), ..BatchAcknowledgement::default() },
    ] {
        let (mut call, _) = world.call().await;
        assert_eq!(sequences(&call.batch().await), [1]);
        call.say(Response::Acknowledgement(wrong)).await;
    }
    let (mut call, _) = world.call().await;
    let batch = call.batch().await;
    assert_eq!((sequences(&batch), terminal.status().waiting), (vec![1], 1));
    // More than was sent settles no more than was sent.
    terminal.report(outcome(2)).unwrap();
    call.say(Response::Acknowledgement(BatchAcknowledgement { acknowledged_through: 9, ..acknowledgement(&batch) })).await;
    assert_eq!(sequences(&call.batch().await), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_as_the_gateway_wants_it() {
    let mut world = world();
    let terminal = world.terminal().start().unwrap();
    let (mut call, _) = world.call().await;
    call.say(settings(3)).await;
    // Settings need not be there before the first batch.
    tokio::time::sleep(Duration::from_millis(1)).await;
    for order in 0..4 {
        terminal.report(outcome(order)).unwrap();
    }
    let batch = call.batch().await;
    assert_eq!(sequences(&batch), [1, 2, 3]);
    call.acknowledge(&batch).await;
    let batch = call.batch().await;
    assert_eq!((sequences(&batch), batch.events[0].age_ms), (vec![4], Some(1000)));
}

#[tokio::test(start_paused = true)]
async fn what_was_reported_before_a_change_keeps_its_profile() {
    let mut world = world();
    let version = TerminalRules::built_in().unwrap().version();
    let under = |firmware: &str| TerminalProfile {
        firmware: firmware.into(),
        sdk: "test".into(),
        rule_set_version: version.clone(),
        ..TerminalProfile::default()
    };
    let terminal = world.terminal().profile(under("1")).start().unwrap();
    let (mut call, _) = world.call().await;
    terminal.report(outcome(1)).unwrap();
    terminal.set_profile(under("2"));
    terminal.report(outcome(2)).unwrap();
    assert_eq!(call.next().await, Some(Request::Profile(under("2"))));
    let batch = call.batch().await;
    assert_eq!((sequences(&batch), &batch.profile), (vec![1], &Some(under("1"))));
    call.acknowledge(&batch).await;
    let batch = call.batch().await;
    assert_eq!((sequences(&batch), &batch.profile), (vec![2], &None));
}

#[tokio::test(start_paused = true)]
async fn what_found_no_room_is_declared() {
    let mut world = world();
    let terminal = world.terminal().spool(MemorySpool::new(Limits { events: 2, bytes: 1000 })).start().unwrap();
    for order in 0..5 {
        terminal.report(outcome(order)).unwrap();
    }
    let (mut call, _) = world.call().await;
    let batch = call.batch().await;
    assert_eq!(sequences(&batch), [4, 5]);
    assert_eq!(batch.dropped_ranges, [DroppedRange { first_sequence: 1, last_sequence: 3, reason: DropReason::SpoolFull.into() }]);
    call.acknowledge(&batch).await;
    terminal.until_settled(5).await;
    assert_eq!((terminal.status().acknowledged, terminal.status().dropped), (2, 3));
    terminal.report(outcome(6)).unwrap();
    assert_eq!(call.batch().await.dropped_ranges, []);
}

#[tokio::test(start_paused = true)]
async fn closing_sends_what_waits_at_once_and_then_ends_the_stream() {
    let mut world = world();
    let terminal = world.terminal().start().unwrap();
    let (mut call, _) = world.call().await;
    terminal.report(outcome(1)).unwrap();
    let closing = tokio::spawn(terminal.close(Duration::from_secs(10)));
    let batch = call.batch().await;
    assert_eq!(batch.events[0].age_ms, Some(0));
    call.acknowledge(&batch).await;
    assert_eq!(call.next().await, None);
    let status = closing.await.unwrap();
    assert_eq!((status.waiting, status.acknowledged, status.connected), (0, 1, false));
}

#[tokio::test(start_paused = true)]
async fn closing_waits_no_longer_than_it_is_told() {
    let mut world = world();
    let terminal = world.terminal().start().unwrap();
    terminal.report(outcome(1)).unwrap();
    let (_call, _) = world.call().await;
    let begin = Instant::now();
    let status = terminal.close(Duration::from_secs(10)).await;
    assert_eq!((begin.elapsed().as_secs(), status.waiting), (10, 1));
}

#[tokio::test]
async fn what_cannot_be_reported_is_refused_at_once() {
    let world = world();
    let said = world.connection.clone();
    for name in ["no name", &"x".repeat(33), "T\n1"] {
        let message = Terminal::builder(&said, name).start().unwrap_err().to_string();
        assert!(message.contains("(`terminal_id`) cannot be a terminal"), "{message}");
    }
    let terminal = world.terminal().start().unwrap();
    let huge = Outcome { diagnostic: "x".repeat(65 * 1024), ..Outcome::default() };
    assert!(terminal.report(huge).unwrap_err().to_string().contains("at most 65536 are taken"));
    assert_eq!((terminal.status().waiting, terminal.report(outcome(1)).unwrap().sequence), (0, 1));
    assert!(!format!("{terminal:?}").contains("secret"));
}

#[tokio::test(start_paused = true)]
async fn nobody_reports_for_a_terminal_that_is_gone() {
    let mut world = world();
    let terminal = world.terminal().start().unwrap();
    terminal.report(outcome(1)).unwrap();
    let (mut call, _) = world.call().await;
    let closing = tokio::spawn(terminal.close(Duration::from_secs(3600)));
    call.batch().await;
    // Whoever waited for the end gives up.
    closing.abort();
    assert_eq!(call.next().await, None);
    let again = timeout(Duration::from_secs(600), world.calls.recv()).await;
    assert!(again.is_err(), "it goes on");
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_by_configuration_loses_nothing() {
    let mut world = world();
    let terminal = world.terminal().start().unwrap();
    terminal.report(outcome(1)).unwrap();
    terminal.report(outcome(2)).unwrap();
    let (mut call, _) = world.call().await;
    assert_eq!(sequences(&call.batch().await), [1, 2]);
    let details = ErrorDetails::with_bad_request_violation("batch.terminal_id", "is required");
    call.end(Status::with_error_details(Code::InvalidArgument, "batch.terminal_id: is required", details)).await;
    let (mut call, _) = world.call().await;
    let batch = call.batch().await;
    assert_eq!(sequences(&batch), [1, 2], "not halved");
    assert!(terminal.status().waiting == 2);
    let refusals = (0..2).map(|index| EventRefusal {
        index,
        reason: RefusalReason::OtherTerminal.into(),
        field: "batch.terminal_id".into(),
        ..EventRefusal::default()
    });
    call.say(Response::Acknowledgement(BatchAcknowledgement { refusals: refusals.collect(), ..acknowledgement(&batch) })).await;
    let (mut call, _) = world.call().await;
    let batch = call.batch().await;
    assert_eq!(sequences(&batch), [1, 2], "neither settled nor given up");
    call.acknowledge(&batch).await;
    terminal.until_settled(2).await;
    assert_eq!((terminal.status().acknowledged, terminal.status().refused, terminal.status().dropped), (2, 0, 0));
}

/// Rules that have another reason for code 40.
fn bundle(key: &SigningKey, issue_s: i64, reason: &str) -> RuleBundle {
    let text = format!(
        "version = 'unionpay-pos/own'\ninherits = 'unionpay-pos'\n[[response_code]]\ncode = '40'\nreason = '{reason}'\nsource = 'ours'\n"
    );
    Bundle::pack(&[("ours.toml", text.as_str())], issue_s, key).unwrap().message().clone()
}

fn key() -> SigningKey {
    SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap()
}

fn refused_by_the_bank() -> Outcome {
    Outcome { stage: Stage::HostDecision.into(), response_code: "40".into(), ..Outcome::default() }
}

#[tokio::test(start_paused = true)]
async fn rules_are_asked_for_and_newer_ones_judge_what_is_reported_next() {
    let mut world = world();
    let key = key();
    let rules = TerminalRules::signed_by([key.public()]).unwrap();
    let terminal = world.terminal().rules(&rules).start().unwrap();
    let (mut call, profile) = world.call().await;
    assert_eq!(profile.rule_set_version, rules.version());
    assert_eq!(call.next().await, Some(Request::Rules(RuleRequest { key_ids: vec![key.public().id()], issued_after: None })));
    assert_eq!(terminal.report(refused_by_the_bank()).unwrap().verdict.reason, "function_not_enabled");

    call.say(Response::Rules(bundle(&key, 100, "issuer_refused"))).await;
    let Some(Request::Profile(newer)) = call.next().await else { panic!("the profile has the new version first") };
    assert_eq!(newer.rule_set_version, rules.version());
    assert_ne!(newer.rule_set_version, profile.rule_set_version);
    let reported = terminal.report(refused_by_the_bank()).unwrap();
    assert_eq!((reported.sequence, reported.verdict.reason.as_str()), (2, "issuer_refused"));
    assert_eq!((terminal.status().rules, terminal.status().rules_problem), (rules.version(), String::new()));
    // What was judged by the rules of before says so.
    let batch = call.batch().await;
    assert_eq!((sequences(&batch), &batch.profile), (vec![1], &Some(profile)));
    call.acknowledge(&batch).await;
    let batch = call.batch().await;
    assert_eq!((sequences(&batch), &batch.profile), (vec![2], &None));
    call.end(Status::unavailable("going down")).await;

    let (mut call, profile) = world.call().await;
    assert_eq!(profile.rule_set_version, rules.version());
    let Some(Request::Rules(request)) = call.next().await else { panic!("rules are asked for on every stream") };
    assert_eq!(request.issued_after.unwrap().seconds, 100);
    // Also when they came by another way: from the application, or by another terminal that shares them.
    assert_eq!(sequences(&call.batch().await), [2]);
    rules.take(&bundle(&key, 200, "issuer_error").encode_to_vec()).unwrap();
    let Some(Request::Profile(newest)) = call.next().await else { panic!("the profile has the newest version") };
    assert_eq!(newest.rule_set_version, rules.version());
}

#[tokio::test(start_paused = true)]
async fn rules_that_a_gateway_made_up_change_nothing_and_stop_nothing() {
    let mut world = world();
    let (ours, other) = (key(), key());
    let rules = TerminalRules::signed_by([ours.public()]).unwrap();
    rules.take(&bundle(&ours, 100, "issuer_refused").encode_to_vec()).unwrap();
    let terminal = world.terminal().rules(&rules).start().unwrap();
    let (mut call, _) = world.call().await;
    call.next().await;
    let newer = bundle(&ours, 200, "issuer_error");
    let mut tampered = newer.contents.to_vec();
    tampered[40] ^= 1;
    for (offered, why) in [
        (RuleBundle { contents: tampered.into(), ..newer.clone() }, "its signature is wrong"),
        (RuleBundle { signature: Bytes::new(), ..newer.clone() }, "its signature is wrong"),
        (bundle(&other, 200, "issuer_error"), "which is not known here"),
        (bundle(&ours, 99, "issuer_error"), "it has to be newer"),
        (RuleBundle::default(), "it is no bundle of rules"),
    ] {
        call.say(Response::Rules(offered)).await;
        let begin = std::time::Instant::now();
        while !terminal.status().rules_problem.contains(why) {
            assert!(begin.elapsed() < Duration::from_secs(60), "`{}` does not say `{why}`", terminal.status().rules_problem);
            tokio::task::yield_now().await;
        }
        assert_eq!(terminal.report(refused_by_the_bank()).unwrap().verdict.reason, "issuer_refused");
    }
    let batch = call.batch().await;
    call.acknowledge(&batch).await;
    terminal.until_settled(batch.events.last().unwrap().sequence).await;
    // One that has no key asks for nothing.
    let terminal = world.terminal().start().unwrap();
    terminal.report(outcome(1)).unwrap();
    let (mut call, _) = world.call().await;
    call.batch().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_lasted_is_opened_again_soon() {
    let mut world = world();
    let _terminal = world.terminal().start().unwrap();
    for _ in 0..12 {
        let (call, _) = world.call().await;
        sleep(LASTING).await;
        let ended = Instant::now();
        call.end(Status::unavailable("the gateway is going down")).await;
        let (call, _) = world.call().await;
        assert!(ended.elapsed() < 3 * FIRST_PAUSE, "{:?}", ended.elapsed());
        sleep(LASTING).await;
        call.end(Status::unavailable("the gateway is going down")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn health_samples_ride_with_events_or_go_by_themselves() {
    let mut world = world();
    let terminal = world.terminal().start().unwrap();
    let (mut call, _) = world.call().await;
    assert_eq!(terminal.status().health_interval, None);
    let told = TerminalSettings { health_interval: Some(prost_types::Duration { seconds: 300, nanos: 0 }), ..TerminalSettings::default() };
    call.say(Response::Settings(told)).await;
    terminal.report_health(HealthSample { battery_percent: Some(70), ..HealthSample::default() });
    terminal.report(outcome(1)).unwrap();
    let batch = call.batch().await;
    assert_eq!(terminal.status().health_interval, Some(Duration::from_secs(300)));
    let sample = batch.health_samples[0];
    assert_eq!((batch.events.len(), sample.sequence, sample.battery_percent, sample.spool_depth), (1, 1, Some(70), Some(0)));
    assert!(sample.age_ms.unwrap() <= batch.events[0].age_ms.unwrap() && sample.sample_time.is_some());

    // One that is not acknowledged is sent again.
    terminal.report_health(HealthSample::default());
    call.end(Status::unavailable("going down")).await;
    let (mut call, _) = world.call().await;
    let again = call.batch().await;
    assert_eq!(again.health_samples.iter().map(|sample| sample.sequence).collect::<Vec<_>>(), [1, 2]);
    call.acknowledge(&again).await;

    // Without company, after a minute.
    terminal.report_health(HealthSample::default());
    let alone = call.batch().await;
    assert_eq!((alone.events.len(), alone.health_samples.len(), alone.health_samples[0].sequence), (0, 1, 3));
    assert_eq!(alone.health_samples[0].age_ms, Some(60_000));
    call.acknowledge(&alone).await;

    // And before it ends.
    terminal.report_health(HealthSample::default());
    let closing = tokio::spawn(terminal.close(Duration::from_secs(10)));
    let last = call.batch().await;
    assert_eq!(last.health_samples[0].sequence, 4);
    call.acknowledge(&last).await;
    assert_eq!(call.next().await, None);
    closing.await.unwrap();
}
