//! The gRPC service: both of its methods are sessions, one that lasts for many batches and one that lasts for one.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use faultline_proto::ingest::v1::stream_outcomes_response::Message;
use faultline_proto::ingest::v1::{BatchAcknowledgement, ReportOutcomesResponse, StreamOutcomesResponse};
use faultline_proto::terminal::v1::TerminalSettings;
use faultline_runtime::error::with_causes;
use faultline_runtime::trace;
use faultline_stream::OutcomeProducer;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::{Instrument, Span, field, info_span};

use crate::admission::{Rejection, admit};
use crate::counts::{self, Fate, Open, REPORT, STREAM};
use crate::credentials::{Access, Credentials};
use crate::in_flight::InFlight;
use crate::problem::Problem;
use crate::profile::Profile;
use crate::rules::Offer;
use crate::share::{Shares, Turn};
use crate::wire::fields;

/// The server that the build made of the contract.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, clippy::restriction, reason = "generated")]
pub(crate) mod server {
    include!(concat!(env!("OUT_DIR"), "/faultline.ingest.v1.IngestService.rs"));
}

/// Most bytes of one message: a batch and a profile.
pub(crate) const MAX_MESSAGE_BYTES: usize = crate::admission::MAX_BATCH_BYTES + 16 * 1024;
/// Answers that wait for a terminal to read them; then its batches wait too.
const WAITING_ANSWERS: usize = 4;
/// `StreamOutcomesRequest` and `ReportOutcomesRequest` number their fields alike.
const PROFILE: u32 = 1;
const BATCH: u32 = 2;
const RULES: u32 = 3;

/// What all sessions share.
pub(crate) struct Shared {
    pub(crate) credentials: watch::Receiver<Credentials>,
    pub(crate) producer: OutcomeProducer,
    pub(crate) shares: Shares,
    pub(crate) in_flight: InFlight,
    pub(crate) settings: TerminalSettings,
    /// What a call's terminal is given of rules, as long as it has not asked.
    pub(crate) rules: Offer,
    /// Whether the topics are sound, as far as is known.
    pub(crate) open: AtomicBool,
    pub(crate) stop: CancellationToken,
    /// Sessions that last.
    pub(crate) sessions: TaskTracker,
}

/// One call of a terminal, for as long as it lasts.
struct Session {
    shared: Arc<Shared>,
    access: Access,
    profile: Profile,
    rules: Offer,
    /// Its place among those of its terminal.
    _call: Option<Turn>,
}

type Answers = mpsc::Sender<Result<StreamOutcomesResponse, Status>>;

#[tonic::async_trait]
impl server::ingest_service_server::IngestService for Arc<Shared> {
    type StreamOutcomesStream = ReceiverStream<Result<StreamOutcomesResponse, Status>>;

    async fn stream_outcomes(&self, request: Request<Streaming<Bytes>>) -> Result<Response<Self::StreamOutcomesStream>, Status> {
        let mut session = Session::open(self, STREAM, request.metadata()).await?;
        let (answers, receiver) = mpsc::channel(WAITING_ANSWERS + 1);
        // Room for the status with which it ends, also where the terminal does not read.
        let last_word = answers.clone().reserve_owned().await;
        self.sessions.spawn(async move {
            let _open = Open::stream();
            let ended = session.stream(request.into_inner(), &answers).await;
            counts::call(STREAM, ended.as_ref().map(|&()| ()));
            if let (Err(problem), Ok(last_word)) = (ended, last_word) {
                last_word.send(Err(problem.into()));
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn report_outcomes(&self, request: Request<Streaming<Bytes>>) -> Result<Response<ReportOutcomesResponse>, Status> {
        let mut session = Session::open(self, REPORT, request.metadata()).await?;
        // Apart from the call: what was handed to Kafka takes its room and is counted also when the terminal hangs up.
        let reporting = self.sessions.spawn(async move {
            let reported = session.report(request.into_inner()).await;
            counts::call(REPORT, reported.as_ref().map(|_| ()));
            reported.map(|acknowledgement| (acknowledgement, session.rules.take()))
        });
        let (acknowledgement, rules) = reporting.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a session failed");
            Err(Problem::Unavailable)
        })?;
        let settings = Some(self.settings.clone());
        Ok(Response::new(ReportOutcomesResponse { acknowledgement: Some(acknowledgement), settings, advisories: None, rules }))
    }
}

impl Session {
    async fn open(shared: &Arc<Shared>, method: &'static str, metadata: &MetadataMap) -> Result<Session, Problem> {
        let token = metadata.get("authorization").and_then(|value| value.to_str().ok()).and_then(bearer);
        let access = token.and_then(|token| shared.credentials.borrow().identify(token)).ok_or(Problem::Unauthenticated);
        let refused = |problem: &Problem| counts::call(method, Err(problem));
        let access = access.inspect_err(refused)?;
        let call = shared.shares.call(&access.identity).await.inspect_err(refused)?;
        Ok(Session { shared: Arc::clone(shared), access, profile: Profile::default(), rules: shared.rules.clone(), _call: call })
    }

    /// Answers one message after the other until the terminal has no more, or something is in the way.
    async fn stream(&mut self, mut messages: Streaming<Bytes>, answers: &Answers) -> Result<(), Problem> {
        let shared = Arc::clone(&self.shared);
        let mut credentials = shared.credentials.clone();
        let mut answer = Some(Message::Settings(shared.settings.clone()));
        loop {
            if let Some(message) = answer.take() {
                tokio::select! {
                    // Also when the gateway stops: what was taken is answered, if the terminal reads.
                    biased;
                    sent = answers.send(Ok(StreamOutcomesResponse { message: Some(message) })) => sent.map_err(|_| Problem::Gone)?,
                    () = shared.stop.cancelled() => return Err(Problem::GoingDown),
                }
            }
            let message = tokio::select! {
                biased;
                () = shared.stop.cancelled() => return Err(Problem::GoingDown),
                // A stream is open all day: a token that was taken away meanwhile must not go on working.
                Ok(()) = credentials.changed() => {
                    self.still_allowed()?;
                    continue;
                }
                rules = self.rules.next() => {
                    answer = Some(Message::Rules(rules));
                    continue;
                }
                message = next(&mut messages) => message?,
            };
            let Some(message) = message else {
                // A call that was given up ends like one that is done, but for who is listening.
                return if answers.is_closed() { Err(Problem::Gone) } else { Ok(()) };
            };
            answer = self.take(message).await?.map(Message::Acknowledgement);
        }
    }

    /// Answers the one message of a call with one batch.
    async fn report(&mut self, mut messages: Streaming<Bytes>) -> Result<BatchAcknowledgement, Problem> {
        let stop = self.shared.stop.clone();
        let message = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(Problem::GoingDown),
            message = next(&mut messages) => message?.ok_or(Problem::Gone)?,
        };
        self.take(message).await?.ok_or_else(|| invalid("batch", "is required"))
    }

    /// Takes what is in a message: a profile, a batch, a request for rules, or all of them.
    async fn take(&mut self, message: Bytes) -> Result<Option<BatchAcknowledgement>, Problem> {
        let receipt_ms =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
        let mut batch = None;
        let mut known = message.is_empty();
        for field in fields(&message) {
            let field = field.map_err(|error| invalid("message", error.to_string()))?;
            match (field.number, field.content) {
                (PROFILE, Some(place)) => self.profile = Profile::admit(&message.slice(place)),
                (BATCH, Some(_)) if batch.is_some() => return Err(invalid("batch", "is there more than once")),
                (BATCH, Some(place)) => batch = Some(message.slice(place)),
                (RULES, Some(place)) => self.rules.ask(&message.slice(place)),
                _ => continue,
            }
            known = true;
        }
        if !known {
            counts::unknown_message();
        }
        let Some(batch) = batch else { return Ok(None) };
        let span = info_span!("batch", tenant = &*self.access.identity.tenant, terminal = field::Empty);
        let settled = self.settle(&batch, receipt_ms).instrument(span).await;
        counts::batch(settled.as_ref().map_or_else(Problem::fate, |(fate, _)| *fate));
        settled.map(|(_, acknowledgement)| Some(acknowledgement))
    }

    /// The road of a batch, to its fate and its acknowledgement:
    ///
    /// ```text
    /// bytes ─▶ still allowed? ─▶ topics sound? ─▶ its terminal's share ─▶ room in memory ─▶ admission ─▶ Kafka ─▶ acknowledgement
    /// ```
    async fn settle(&mut self, batch: &Bytes, receipt_ms: i64) -> Result<(Fate, BatchAcknowledgement), Problem> {
        self.still_allowed()?;
        if !self.shared.open.load(Ordering::Acquire) {
            return Err(Problem::Unavailable);
        }
        let _turn = self.shared.shares.batch(&self.access.identity, batch).await?;
        let _room = self.shared.in_flight.take(batch.len()).await?;
        let admission = admit(batch, &self.access.identity, &self.profile, receipt_ms)?;
        let mut fate = Fate::Empty;
        if let Some(mut record) = admission.record {
            Span::current().record("terminal", &record.terminal);
            let producing = info_span!("produce", bytes = record.batch.len());
            record.trace_parent = trace::parent_of(&producing);
            let begin = Instant::now();
            let sent = self.shared.producer.send(&record).instrument(producing).await;
            sent.inspect_err(|reason| tracing::debug!(reason = with_causes(reason), "a batch was not stored"))?;
            counts::stored(record.batch.len(), begin.elapsed());
            fate = Fate::Stored;
        }
        if admission.tells_of_connection {
            self.profile.told();
        }
        counts::answered(&self.access.identity.tenant, &admission.acknowledgement, &admission.noticed);
        Ok((fate, admission.acknowledgement))
    }

    fn still_allowed(&self) -> Result<(), Problem> {
        if self.shared.credentials.borrow().still_grant(&self.access) { Ok(()) } else { Err(Problem::Unauthenticated) }
    }
}

/// The token of an `authorization` (RFC 6750, section 2.1; the scheme's case does not matter, RFC 9110, section 11.1).
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The next message; none when the terminal has no more.
async fn next(messages: &mut Streaming<Bytes>) -> Result<Option<Bytes>, Problem> {
    match messages.message().await {
        Ok(message) => Ok(message),
        Err(status) => match status.code() {
            // What tonic says of a message over the limit, and of one that is when it is decompressed.
            Code::OutOfRange | Code::ResourceExhausted => Err(invalid("message", format!("is larger than {MAX_MESSAGE_BYTES} bytes"))),
            // What it says of bytes that are no message. What the connection says has a source; a message cut short is said without one.
            Code::Internal if status.source().is_none() && !status.message().starts_with("Unexpected EOF") => {
                Err(invalid("message", status.message()))
            }
            _ => Err(Problem::Gone),
        },
    }
}

fn invalid(field: &'static str, description: impl Into<String>) -> Problem {
    Problem::Invalid(Rejection { field, description: description.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_what_follows_the_scheme() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        for other in ["abc", "Basic abc", "Bearer", ""] {
            assert_eq!(bearer(other), None, "{other}");
        }
    }
}
