//! The gRPC service: both of its methods are sessions, one that lasts for many batches and one that lasts for one.

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
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::{Instrument, Span, field, info_span};

use crate::admission::{Profile, Rejection, admit};
use crate::counts::{self, OpenStream};
use crate::credentials::{Credentials, Identity};
use crate::in_flight::InFlight;
use crate::problem::Problem;
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

/// What all sessions share.
pub(crate) struct Gateway {
    pub(crate) credentials: watch::Receiver<Credentials>,
    pub(crate) producer: OutcomeProducer,
    pub(crate) in_flight: InFlight,
    pub(crate) settings: TerminalSettings,
    /// Whether the topics were found to be sound.
    pub(crate) open: AtomicBool,
    pub(crate) stop: CancellationToken,
}

/// One terminal's connection, for as long as it lasts.
struct Session {
    gateway: Arc<Gateway>,
    token: [u8; 32],
    identity: Identity,
    profile: Profile,
}

#[tonic::async_trait]
impl server::ingest_service_server::IngestService for Arc<Gateway> {
    type StreamOutcomesStream = ReceiverStream<Result<StreamOutcomesResponse, Status>>;

    async fn stream_outcomes(&self, request: Request<Streaming<Bytes>>) -> Result<Response<Self::StreamOutcomesStream>, Status> {
        let mut session = Session::open(self, request.metadata())?;
        let (answers, receiver) = mpsc::channel(WAITING_ANSWERS);
        tokio::spawn(async move {
            let _open = OpenStream::new();
            if let Err(problem) = session.stream(request.into_inner(), &answers).await {
                counts::failed(&problem);
                // Nobody to tell where the terminal has gone.
                let _ = answers.send(Err(problem.into())).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn report_outcomes(&self, request: Request<Streaming<Bytes>>) -> Result<Response<ReportOutcomesResponse>, Status> {
        let mut session = Session::open(self, request.metadata())?;
        let reported = async {
            let message = next(&mut request.into_inner()).await?.ok_or_else(|| invalid("message", "is missing"))?;
            session.take(message).await?.ok_or_else(|| invalid("batch", "is required"))
        };
        let acknowledgement = reported.await.inspect_err(counts::failed)?;
        Ok(Response::new(ReportOutcomesResponse {
            acknowledgement: Some(acknowledgement),
            settings: Some(self.settings.clone()),
            advisories: None,
        }))
    }
}

impl Session {
    fn open(gateway: &Arc<Gateway>, metadata: &MetadataMap) -> Result<Session, Problem> {
        let token = metadata.get("authorization").and_then(|value| value.to_str().ok()).and_then(bearer);
        let identified = token.and_then(|token| gateway.credentials.borrow().identify(token));
        let (token, identity) = identified.ok_or(Problem::Unauthenticated).inspect_err(counts::failed)?;
        Ok(Session { gateway: Arc::clone(gateway), token, identity, profile: Profile::default() })
    }

    /// Answers one message after the other until the terminal has no more, or something is in the way.
    async fn stream(
        &mut self,
        mut messages: Streaming<Bytes>,
        answers: &mpsc::Sender<Result<StreamOutcomesResponse, Status>>,
    ) -> Result<(), Problem> {
        let stop = self.gateway.stop.clone();
        let mut answer = Some(Message::Settings(self.gateway.settings.clone()));
        loop {
            if let Some(message) = answer.take()
                && answers.send(Ok(StreamOutcomesResponse { message: Some(message) })).await.is_err()
            {
                return Ok(());
            }
            let message = tokio::select! {
                biased;
                () = stop.cancelled() => return Err(Problem::GoingDown),
                message = next(&mut messages) => message?,
            };
            let Some(message) = message else { return Ok(()) };
            answer = self.take(message).await?.map(Message::Acknowledgement);
        }
    }

    /// Takes what is in a message: a profile, a batch, or both.
    async fn take(&mut self, message: Bytes) -> Result<Option<BatchAcknowledgement>, Problem> {
        let receipt_ms =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
        let mut batch = None;
        let mut known = message.is_empty();
        for field in fields(&message) {
            let field = field.map_err(|error| invalid("message", error.to_string()))?;
            match (field.number, field.content) {
                (PROFILE, Some(place)) => self.profile = Profile::admit(&message.slice(place)),
                (BATCH, Some(place)) => batch = Some(message.slice(place)),
                _ => continue,
            }
            known = true;
        }
        if !known {
            counts::unknown_message();
        }
        let Some(batch) = batch else { return Ok(None) };
        let span = info_span!("batch", tenant = &*self.identity.tenant, terminal = field::Empty);
        self.settle(&batch, receipt_ms).instrument(span).await.map(Some)
    }

    /// The road of a batch:
    ///
    /// ```text
    /// bytes ─▶ still allowed? ─▶ room in memory ─▶ admission ─▶ Kafka ─▶ acknowledgement
    /// ```
    async fn settle(&mut self, batch: &Bytes, receipt_ms: i64) -> Result<BatchAcknowledgement, Problem> {
        self.still_allowed()?;
        let _room = self.gateway.in_flight.take(batch.len()).await?;
        let admission = admit(batch, &self.identity, &self.profile, receipt_ms)?;
        let stored = admission.record.is_some();
        if let Some(mut record) = admission.record {
            let span = Span::current();
            span.record("terminal", &record.terminal);
            record.trace_parent = trace::parent_of(&span);
            let begin = Instant::now();
            self.gateway
                .producer
                .send(&record)
                .await
                .inspect_err(|reason| tracing::debug!(reason = with_causes(reason), "a batch was not stored"))?;
            counts::stored(record.batch.len(), begin.elapsed());
        }
        self.profile.told();
        counts::answered(&self.identity.tenant, &admission.acknowledgement, &admission.noticed, stored);
        Ok(admission.acknowledgement)
    }

    /// Streams are open all day: a token that was taken away meanwhile must not go on working.
    fn still_allowed(&self) -> Result<(), Problem> {
        if self.gateway.credentials.borrow().find(&self.token) != Some(&self.identity) {
            return Err(Problem::Unauthenticated);
        }
        if !self.gateway.open.load(Ordering::Acquire) {
            return Err(Problem::Unavailable);
        }
        Ok(())
    }
}

/// The token of an `authorization` (RFC 6750, section 2.1; the scheme's case does not matter, RFC 9110, section 11.1).
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The next message; none when the terminal has no more, or has gone.
async fn next(messages: &mut Streaming<Bytes>) -> Result<Option<Bytes>, Problem> {
    match messages.message().await {
        Ok(message) => Ok(message),
        Err(status) => match status.code() {
            // What tonic says of a message over the limit, and of one that is when it is decompressed.
            Code::OutOfRange | Code::ResourceExhausted => Err(invalid("message", format!("is larger than {MAX_MESSAGE_BYTES} bytes"))),
            Code::Internal | Code::Unimplemented => Err(invalid("message", status.message())),
            _ => Ok(None),
        },
    }
}

fn invalid(field: &'static str, description: impl Into<String>) -> Problem {
    Problem::Invalid(Rejection { field, description: description.into() })
}
