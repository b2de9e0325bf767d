//! A batch to the gateway, again until it is settled, as the contract asks of a terminal.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use bytes::Bytes;
use faultline_proto::ingest::v1::{BatchAcknowledgement, RefusalReason, ReportOutcomesResponse};
use faultline_sdk::Connection;
use prost_types::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::reading::GatewayClock;
use crate::refusals::Refusal;
use crate::window::{Batch, Limits};

/// How long an answer may take: longer than a gateway waits for Kafka before it says that it is unavailable.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(45);
/// Pauses between two attempts: doubled each time, and up to twice as long by chance.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Limits of the contract, with room for what is around the events.
const MOST_EVENTS: u32 = 500;
const MOST_BYTES: u32 = 900 * 1024;
/// Whose batch of no events it is that an import begins with: a batch is of a terminal.
const GREETER: &str = "import";
const AROUND_EVENT: usize = 8;
const AROUND_BATCH: usize = 8 * 1024;

/// Why nothing more can be sent, whatever is waited for.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The gateway does not know the token, or the token does not allow it.
    #[error("the gateway does not take the token: {reason}")]
    Token {
        /// What it said.
        reason: String,
    },
    /// What answers is no gateway of this contract.
    #[error("what answers is no gateway that this program knows: {reason}")]
    Contract {
        /// What it said.
        reason: String,
    },
    /// The token is of one terminal.
    #[error(
        "the token is of one terminal, and a log is of many: it is to be a token of every terminal of the tenant (`faultline token --any-terminal`)"
    )]
    OneTerminal,
    /// It was told to stop.
    #[error("it was stopped before everything was acknowledged")]
    Stopped,
}

/// What became of the events of a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) acknowledged: u64,
    pub(crate) refusals: Vec<Refusal>,
    /// Events in whose free text a card number was overwritten.
    pub(crate) redacted: u64,
    /// Parts of profiles that were left out, by field.
    pub(crate) left_out: BTreeMap<String, u64>,
}

/// `OutcomeBatch` with events and profile as bytes: on the wire, the two are the same.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct EncodedBatch {
    #[prost(string, tag = "1")]
    terminal_id: String,
    #[prost(fixed64, tag = "2")]
    spool_id: u64,
    #[prost(bytes = "bytes", repeated, tag = "3")]
    events: Vec<Bytes>,
    #[prost(message, optional, tag = "6")]
    send_time: Option<Timestamp>,
    #[prost(bytes = "bytes", optional, tag = "7")]
    profile: Option<Bytes>,
}

/// `ReportOutcomesRequest` with such a batch.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct EncodedRequest {
    #[prost(message, optional, tag = "2")]
    batch: Option<EncodedBatch>,
}

/// A way to a gateway.
pub(crate) trait Way {
    /// Sends a batch, once.
    fn report(&self, request: EncodedRequest) -> impl Future<Output = Result<ReportOutcomesResponse, Status>> + Send;
}

impl Way for Connection {
    fn report(&self, request: EncodedRequest) -> impl Future<Output = Result<ReportOutcomesResponse, Status>> + Send {
        Connection::report(self, request)
    }
}

/// How the gateway is, as all that send to it see it.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    /// When it last answered as it should.
    pub(crate) answered: Instant,
    /// What is in the way; empty where nothing is.
    pub(crate) problem: String,
}

/// What is known of a gateway from its first answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Greeting {
    pub(crate) clock: GatewayClock,
    pub(crate) limits: Limits,
}

/// Sends batches of one log.
#[derive(Clone)]
pub(crate) struct Sender {
    pub(crate) spool: u64,
    pub(crate) clock: GatewayClock,
    pub(crate) standing: watch::Sender<Standing>,
    pub(crate) stop: CancellationToken,
}

/// Why an attempt came to nothing.
enum Failure {
    /// The same again, later.
    Later { problem: String, after: Option<Duration> },
    /// The batch cannot be taken as it is.
    Invalid { problem: String },
    /// Nothing can.
    Never(SendError),
}

impl Sender {
    /// Asks for the gateway's clock and limits, with a batch of no events: whatever can be wrong by configuration is known then, before a line is read.
    pub(crate) async fn greet(&self, way: &impl Way) -> Result<Greeting, SendError> {
        let answer = self.again_and_again(way, GREETER, (&[], &Bytes::new())).await;
        let Answer { response, begin_ms } = answer.map_err(|error| match error {
            Unsettled::Never(error) => error,
            Unsettled::Invalid(reason) => SendError::Contract { reason },
        })?;
        let end_ms = GatewayClock::default().now_ms();
        let receipt = response.acknowledgement.and_then(|acknowledgement| acknowledgement.receipt_time).unwrap_or_default();
        let receipt_ms = receipt.seconds.saturating_mul(1000).saturating_add(i64::from(receipt.nanos / 1_000_000));
        let way_ms = end_ms.saturating_sub(begin_ms).max(0);
        let off_ms = receipt_ms.saturating_sub(begin_ms.saturating_add(way_ms / 2));
        // What the way may have taken is not taken for a difference.
        let ahead_ms = if off_ms.abs() <= way_ms { 0 } else { off_ms };
        let settings = response.settings.unwrap_or_default();
        let within = |value: u32, usual: u32, most: u32| {
            let value = if value == 0 { usual } else { value.min(most) };
            usize::try_from(value).unwrap_or(usize::MAX)
        };
        let events = within(settings.max_batch_events, 100, MOST_EVENTS);
        let bytes = within(settings.max_batch_bytes, 256 * 1024, MOST_BYTES);
        let limits = Limits { events, bytes: bytes.saturating_sub(AROUND_BATCH + AROUND_EVENT * events).max(1) };
        Ok(Greeting { clock: GatewayClock { ahead_ms }, limits })
    }

    /// Sends a batch until each of its events is acknowledged or refused. One that cannot be taken whole is sent in halves.
    ///
    /// # Errors
    /// When nothing more can be sent.
    pub(crate) async fn settle(&self, way: &impl Way, batch: &Batch) -> Result<Settled, SendError> {
        let mut settled = Settled::default();
        let mut parts = vec![batch.events.as_slice()];
        while let Some(part) = parts.pop() {
            match self.again_and_again(way, &batch.terminal, (part, &batch.profile)).await {
                Ok(answer) => settled.take(part, &answer.response.acknowledgement.unwrap_or_default())?,
                Err(Unsettled::Never(error)) => return Err(error),
                Err(Unsettled::Invalid(reason)) => match part {
                    [(line, _)] => {
                        tracing::debug!(line, reason, "the gateway cannot take a line");
                        settled.refusals.push(refused(*line, "rejected", String::new()));
                    }
                    several => {
                        let (first, second) = several.split_at(several.len() / 2);
                        parts.extend([second, first]);
                    }
                },
            }
        }
        Ok(settled)
    }

    async fn again_and_again(
        &self,
        way: &impl Way,
        terminal: &str,
        (events, profile): (&[(u64, Bytes)], &Bytes),
    ) -> Result<Answer, Unsettled> {
        let mut pauses = pauses();
        loop {
            let begin_ms = GatewayClock::default().now_ms();
            let answer = timeout(ANSWER_TIMEOUT, way.report(self.request(terminal, (events, profile)))).await;
            let answer = answer.unwrap_or_else(|_| Err(Status::unavailable(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()))));
            let (problem, after) = match answer.map_err(Failure::from).and_then(|response| whole(events, response)) {
                Ok(response) => {
                    self.standing.send_modify(|standing| *standing = Standing { answered: Instant::now(), problem: String::new() });
                    return Ok(Answer { response, begin_ms });
                }
                Err(Failure::Later { problem, after }) => (problem, after),
                Err(Failure::Invalid { problem }) => return Err(Unsettled::Invalid(problem)),
                Err(Failure::Never(error)) => return Err(Unsettled::Never(error)),
            };
            let pause = pauses.next().unwrap_or(LONGEST_PAUSE).max(after.unwrap_or_default());
            tracing::debug!(problem, "sending goes on in {:.1} s", pause.as_secs_f32());
            self.standing.send_modify(|standing| standing.problem = problem);
            tokio::select! {
                () = sleep(pause) => {}
                () = self.stop.cancelled() => return Err(Unsettled::Never(SendError::Stopped)),
            }
        }
    }

    fn request(&self, terminal: &str, (events, profile): (&[(u64, Bytes)], &Bytes)) -> EncodedRequest {
        // By the gateway's clock: completion times are of the log's clock, and what this machine's is off must not be taken for what that is off.
        let now = Duration::from_millis(u64::try_from(self.clock.now_ms()).unwrap_or_default());
        let batch = EncodedBatch {
            terminal_id: terminal.to_owned(),
            spool_id: self.spool,
            events: events.iter().map(|(_, event)| event.clone()).collect(),
            send_time: Some(Timestamp::from(UNIX_EPOCH.checked_add(now).unwrap_or_else(SystemTime::now))),
            profile: Some(profile.clone()).filter(|profile| !profile.is_empty()),
        };
        EncodedRequest { batch: Some(batch) }
    }
}

/// An answer, and when what it answers was sent, by this machine's clock.
struct Answer {
    response: ReportOutcomesResponse,
    begin_ms: i64,
}

/// Why a batch is not settled.
enum Unsettled {
    /// It cannot be taken as it is.
    Invalid(String),
    /// Nothing can.
    Never(SendError),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Failure {
        let reason = format!("{}: {}", status.code(), status.message());
        match status.code() {
            Code::InvalidArgument => Failure::Invalid { problem: reason },
            Code::Unauthenticated | Code::PermissionDenied => Failure::Never(SendError::Token { reason }),
            Code::Unimplemented => Failure::Never(SendError::Contract { reason }),
            _ => Failure::Later { problem: reason, after: status.get_details_retry_info().and_then(|info| info.retry_delay) },
        }
    }
}

/// Makes sure that an answer is one to all of these events.
fn whole(events: &[(u64, Bytes)], response: ReportOutcomesResponse) -> Result<ReportOutcomesResponse, Failure> {
    let last = events.last().map_or(0, |(line, _)| *line);
    let through = response.acknowledgement.as_ref().map_or(0, |acknowledgement| acknowledgement.acknowledged_through);
    if response.acknowledgement.is_none() || through < last {
        return Err(Failure::Later { problem: "the gateway acknowledged less than was sent".into(), after: None });
    }
    Ok(response)
}

impl Settled {
    fn take(&mut self, part: &[(u64, Bytes)], acknowledgement: &BatchAcknowledgement) -> Result<(), SendError> {
        if acknowledgement.refusals.iter().any(|refusal| refusal.reason() == RefusalReason::OtherTerminal) {
            return Err(SendError::OneTerminal);
        }
        let refused_events = acknowledgement.refusals.len();
        self.acknowledged += count(part.len().saturating_sub(refused_events));
        self.redacted += count(acknowledgement.redacted_sequences.len());
        for refusal in &acknowledgement.refusals {
            let reason = match refusal.reason() {
                RefusalReason::TooOld => "too_old",
                RefusalReason::InvalidField => "invalid_field",
                _ => "rejected",
            };
            self.refusals.push(refused(refusal.sequence, reason, refusal.field.clone()));
        }
        for ignored in &acknowledgement.ignored_parts {
            *self.left_out.entry(ignored.field.clone()).or_default() += count(part.len());
        }
        Ok(())
    }
}

/// What the gateway says of a value may have some of it, so it is not repeated.
fn refused(line: u64, reason: &'static str, field: String) -> Refusal {
    Refusal { line, reason, field, description: "was refused by the gateway".into() }
}

fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .build()
}

fn count(events: usize) -> u64 {
    u64::try_from(events).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
