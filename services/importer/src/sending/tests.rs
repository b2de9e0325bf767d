use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use faultline_proto::ingest::v1::{Event, EventRefusal, IgnoredPart, OutcomeBatch, ReportOutcomesRequest};
use faultline_proto::outcome::v1::Outcome;
use faultline_proto::terminal::v1::{TerminalProfile, TerminalSettings};
use prost::Message;
use tonic_types::ErrorDetails;

use super::*;
use crate::lines::Place;
use crate::reading::{Block, Prepared};
use crate::window::Window;

type Answers = VecDeque<Result<ReportOutcomesResponse, Status>>;

/// A gateway that answers as it is told, and acknowledges everything after that.
#[derive(Clone, Default)]
struct Told {
    answers: Arc<Mutex<Answers>>,
    /// What it was sent, and when.
    batches: Arc<Mutex<Vec<(Instant, OutcomeBatch)>>>,
}

impl Told {
    fn to_answer(answers: impl IntoIterator<Item = Result<ReportOutcomesResponse, Status>>) -> Told {
        Told { answers: Arc::new(Mutex::new(answers.into_iter().collect())), ..Told::default() }
    }

    /// The lines of each batch that it was sent.
    fn lines(&self) -> Vec<Vec<u64>> {
        let batches = self.batches.lock().unwrap();
        batches.iter().map(|(_, batch)| batch.events.iter().map(|event| event.sequence).collect()).collect()
    }

    /// The seconds between two batches.
    fn pauses(&self) -> Vec<f32> {
        let batches = self.batches.lock().unwrap();
        batches.windows(2).map(|pair| (pair[1].0 - pair[0].0).as_secs_f32()).collect()
    }
}

impl Way for Told {
    async fn report(&self, request: EncodedRequest) -> Result<ReportOutcomesResponse, Status> {
        // As whoever knows the contract reads it.
        let request = ReportOutcomesRequest::decode(request.encode_to_vec().as_slice()).unwrap();
        let batch = request.batch.unwrap();
        let through = batch.events.last().map_or(0, |event| event.sequence);
        self.batches.lock().unwrap().push((Instant::now(), batch));
        let answer = self.answers.lock().unwrap().pop_front();
        answer.unwrap_or_else(|| Ok(acknowledged(through)))
    }
}

fn acknowledged(through: u64) -> ReportOutcomesResponse {
    let receipt_time = Some(Timestamp::from(SystemTime::now()));
    let acknowledgement = BatchAcknowledgement { acknowledged_through: through, receipt_time, ..BatchAcknowledgement::default() };
    ReportOutcomesResponse { acknowledgement: Some(acknowledgement), ..ReportOutcomesResponse::default() }
}

fn sender() -> Sender {
    let standing = watch::Sender::new(Standing { answered: Instant::now(), problem: String::new() });
    Sender { spool: 7, clock: GatewayClock::default(), standing, stop: CancellationToken::new() }
}

/// A batch of these lines.
fn batch(lines: std::ops::RangeInclusive<u64>) -> Batch {
    let profile = TerminalProfile { model: "PAX A920".into(), ..TerminalProfile::default() };
    let prepared = lines.map(|line| Prepared {
        line,
        terminal: "T-1".into(),
        profile: profile.encode_to_vec().into(),
        event: Event { sequence: line, age_ms: None, outcome: Some(Outcome { merchant_id: "8984".into(), ..Outcome::default() }) }
            .encode_to_vec()
            .into(),
    });
    let mut window = Window::new(Limits { events: 100, bytes: 1_000_000 }, Place::default());
    window.add(Block { events: prepared.collect(), ..Block::default() });
    window.next(true).unwrap()
}

fn shed(seconds: u64) -> Status {
    Status::with_error_details(Code::ResourceExhausted, "full", ErrorDetails::with_retry_info(Some(Duration::from_secs(seconds))))
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_is_what_the_contract_says() {
    let gateway = Told::default();
    let settled = sender().settle(&gateway, &batch(3..=5)).await.unwrap();
    assert_eq!((settled.acknowledged, settled.refusals.len()), (3, 0));
    let batches = gateway.batches.lock().unwrap();
    let (_, sent) = &batches[0];
    assert_eq!((sent.terminal_id.as_str(), sent.spool_id), ("T-1", 7));
    assert!(sent.send_time.is_some());
    assert_eq!(sent.profile.as_ref().unwrap().model, "PAX A920");
    assert!(sent.events.iter().all(|event| event.age_ms.is_none() && event.outcome.as_ref().unwrap().merchant_id == "8984"));
}

#[tokio::test(start_paused = true)]
async fn the_same_is_sent_again_after_pauses_that_grow_and_are_at_least_what_was_asked_for() {
    let lost = || Err(Status::unavailable("gone"));
    let less = Ok(acknowledged(2));
    let gateway = Told::to_answer([lost(), lost(), lost(), Err(shed(9)), less, Err(Status::unknown("?"))]);
    let settled = sender().settle(&gateway, &batch(1..=3)).await.unwrap();
    assert_eq!(settled.acknowledged, 3);
    assert_eq!(gateway.lines(), vec![vec![1, 2, 3]; 7]);
    let pauses = gateway.pauses();
    for (pause, least) in pauses.iter().zip([0.5, 1.0, 2.0, 9.0, 8.0, 16.0]) {
        assert!((least..2.0 * least + 0.1).contains(pause), "{pauses:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_taken_whole_is_sent_in_halves_in_order() {
    let invalid = || Err(Status::invalid_argument("batch: no"));
    // The whole, its first half, the first of that; then the rest.
    let gateway = Told::to_answer([invalid(), invalid(), invalid()]);
    let settled = sender().settle(&gateway, &batch(1..=4)).await.unwrap();
    assert_eq!(gateway.lines(), [vec![1, 2, 3, 4], vec![1, 2], vec![1], vec![2], vec![3, 4]]);
    assert_eq!(settled.acknowledged, 3);
    assert_eq!(settled.refusals.iter().map(|refusal| (refusal.line, refusal.reason)).collect::<Vec<_>>(), [(1, "rejected")]);
}

#[tokio::test(start_paused = true)]
async fn what_the_gateway_refuses_is_counted_and_not_repeated() {
    let mut answer = acknowledged(3);
    let acknowledgement = answer.acknowledgement.as_mut().unwrap();
    let refusal = |sequence, reason: RefusalReason, field: &str| EventRefusal {
        sequence,
        reason: reason.into(),
        field: field.into(),
        description: "`6212345678901234` is wrong".into(),
        ..EventRefusal::default()
    };
    acknowledgement.refusals =
        vec![refusal(1, RefusalReason::TooOld, "outcome.completion_time"), refusal(3, RefusalReason::InvalidField, "outcome.bin")];
    acknowledgement.redacted_sequences = vec![2];
    acknowledgement.ignored_parts = vec![IgnoredPart { field: "profile.carrier".into(), description: "is wrong".into() }];
    let gateway = Told::to_answer([Ok(answer)]);
    let settled = sender().settle(&gateway, &batch(1..=3)).await.unwrap();
    assert_eq!((settled.acknowledged, settled.redacted, settled.left_out["profile.carrier"]), (1, 1, 3));
    let refused: Vec<_> = settled.refusals.iter().map(|refusal| (refusal.line, refusal.reason, refusal.field.as_str())).collect();
    assert_eq!(refused, [(1, "too_old", "outcome.completion_time"), (3, "invalid_field", "outcome.bin")]);
    assert!(settled.refusals.iter().all(|refusal| !refusal.description.contains("6212")));
}

#[tokio::test(start_paused = true)]
async fn what_never_passes_ends_it_and_what_was_stopped_does_not_wait() {
    let of_one = {
        let mut answer = acknowledged(1);
        let refusal = EventRefusal { reason: RefusalReason::OtherTerminal.into(), ..EventRefusal::default() };
        answer.acknowledgement.as_mut().unwrap().refusals = vec![refusal];
        Ok(answer)
    };
    for (answer, said) in [
        (Err(Status::unauthenticated("who?")), "does not take the token"),
        (Err(Status::unimplemented("what?")), "is no gateway"),
        (of_one, "the token is of one terminal"),
    ] {
        let error = sender().settle(&Told::to_answer([answer]), &batch(1..=1)).await.unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
    let stopped = sender();
    stopped.stop.cancel();
    let begin = Instant::now();
    let error = stopped.settle(&Told::to_answer([Err(shed(60))]), &batch(1..=1)).await.unwrap_err();
    assert!(matches!(error, SendError::Stopped) && begin.elapsed().is_zero());
    assert_eq!(stopped.standing.borrow().problem, Status::resource_exhausted("full").code().to_string() + ": full");
}

#[tokio::test(start_paused = true)]
async fn the_gateways_clock_and_limits_are_known_from_its_first_answer() {
    let greet = async |ahead_s: i64, settings| {
        let mut answer = acknowledged(0);
        answer.acknowledgement.as_mut().unwrap().receipt_time.as_mut().unwrap().seconds += ahead_s;
        answer.settings = settings;
        sender().greet(&Told::to_answer([Err(Status::unavailable("not yet")), Ok(answer)])).await.unwrap()
    };
    let settings = TerminalSettings { max_batch_events: 600, max_batch_bytes: 64 * 1024, ..TerminalSettings::default() };
    let greeting = greet(3600, Some(settings)).await;
    assert!((3_590_000..=3_610_000).contains(&greeting.clock.ahead_ms), "{greeting:?}");
    assert_eq!(greeting.limits, Limits { events: 500, bytes: 64 * 1024 - 8 * 1024 - 8 * 500 });
    let greeting = greet(0, None).await;
    assert!(greeting.clock.ahead_ms.abs() < 1000 && greeting.limits.events == 100, "{greeting:?}");
}
