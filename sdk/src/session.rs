//! From the spool to the gateway: one batch at a time, again until it is acknowledged.
//!
//! ```text
//! connect ─▶ profile, request for rules ─▶ batch (what was on its way before, first) ─▶ acknowledgement ─▶ settle ─▶ the next batch
//!    ▲                                                            │
//!    └── after a pause, with jitter ◀── lost, or sent away
//! ```

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use faultline_proto::ingest::v1::stream_outcomes_request::Message as Request;
use faultline_proto::ingest::v1::stream_outcomes_response::Message as Response;
use faultline_proto::ingest::v1::{
    BatchAcknowledgement, DropReason, DroppedRange, Event, OutcomeBatch, RefusalReason, StreamOutcomesRequest, StreamOutcomesResponse,
};
use faultline_proto::outcome::v1::Outcome;
use faultline_proto::terminal::v1::{RuleBundle, TerminalProfile, TerminalSettings};
use prost::Message;
use prost_types::Timestamp;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

use crate::clock::BootTime;
use crate::connection::Connection;
use crate::rules::InForce;
use crate::spool::{Entry, Limits};
use crate::terminal::Shared;

/// How long an answer may take: longer than a gateway waits for Kafka before it says that it is unavailable.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(45);
/// A stream that has lasted so long was a good one, however it ends.
const LASTING: Duration = Duration::from_secs(30);
/// Fields of a batch that are wrong by configuration, not by what was reported: the batch is kept until that is mended.
const BY_CONFIGURATION: [&str; 3] = ["batch.terminal_id", "batch.spool_id", "batch.send_time"];
/// Pauses between two attempts to connect: doubled each time, and up to twice as long by chance.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Requests that wait for the connection: a profile and a batch, twice, and a request for rules.
const WAITING_REQUESTS: usize = 5;
/// What is around the outcomes of a batch, in bytes: of each event, and of profile, ranges and health samples.
const AROUND_EVENT: usize = 32;
const AROUND_BATCH: usize = 6 * 1024;
/// Limits of the contract: ranges of one batch, events of one batch, bytes of their outcomes with room for what is around them.
const MAX_RANGES: usize = 16;
const MAX_EVENTS: u32 = 500;
const MAX_BYTES: u32 = 900 * 1024;
const MAX_DELAY: Duration = Duration::from_secs(10);

/// How a gateway wants to be reported to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Manner {
    limits: Limits,
    /// How long an event may wait for others.
    delay: Duration,
}

impl Default for Manner {
    fn default() -> Self {
        Manner { limits: Limits { events: 100, bytes: 256 * 1024 }, delay: Duration::from_secs(2) }
    }
}

impl From<&TerminalSettings> for Manner {
    fn from(settings: &TerminalSettings) -> Manner {
        let within = |value: u32, most: u32| usize::try_from(value.clamp(1, most)).unwrap_or(usize::MAX);
        let events = within(settings.max_batch_events, MAX_EVENTS);
        // The limit is of the encoded batch, and a spool counts outcomes.
        let around = AROUND_BATCH + AROUND_EVENT * events;
        let delay = settings.max_batch_delay.and_then(|delay| Duration::try_from(delay).ok()).unwrap_or_default();
        Manner {
            limits: Limits { events, bytes: within(settings.max_batch_bytes, MAX_BYTES).saturating_sub(around).max(1) },
            delay: delay.min(MAX_DELAY),
        }
    }
}

/// A batch that was sent and not acknowledged yet.
#[derive(Clone, Debug, PartialEq)]
struct InFlight {
    /// How many of the oldest events are in it: the same when it is sent again.
    events: usize,
    /// Sequence of the last of them; 0 without events.
    last: u64,
    /// What it declares as dropped.
    ranges: Vec<DroppedRange>,
    /// Sequence of the last health sample in it; 0 without.
    last_sample: u64,
    /// Until when it has to be answered.
    deadline: Instant,
}

/// Why a stream ended.
#[derive(Debug)]
enum Interruption {
    /// There is no way to the gateway, or not at the moment. It may have said when to come back.
    Lost { problem: String, retry_after: Option<Duration> },
    /// The batch cannot be taken as it is.
    Invalid { problem: String },
}

impl From<Status> for Interruption {
    fn from(status: Status) -> Interruption {
        let problem = format!("{}: {}", status.code(), status.message());
        if status.code() == Code::InvalidArgument {
            let details = status.get_details_bad_request();
            let mut fields = details.iter().flat_map(|details| &details.field_violations).map(|violation| violation.field.as_str());
            if fields.any(|field| BY_CONFIGURATION.contains(&field)) {
                return Interruption::lost(problem);
            }
            return Interruption::Invalid { problem };
        }
        let retry_after = status.get_details_retry_info().and_then(|info| info.retry_delay);
        Interruption::Lost { problem, retry_after }
    }
}

impl Interruption {
    fn lost(problem: impl Into<String>) -> Interruption {
        Interruption::Lost { problem: problem.into(), retry_after: None }
    }
}

/// An open stream.
struct Stream {
    requests: mpsc::Sender<StreamOutcomesRequest>,
    responses: Streaming<StreamOutcomesResponse>,
    /// The profile that was sent last.
    profile: Arc<TerminalProfile>,
    /// The rules in force.
    rules: watch::Receiver<Arc<InForce>>,
    /// When it was opened.
    opened: Instant,
}

impl Stream {
    fn send(&self, message: Request) -> Result<(), Interruption> {
        match self.requests.try_send(StreamOutcomesRequest { message: Some(message) }) {
            Err(TrySendError::Full(_)) => Err(Interruption::lost("the connection takes nothing")),
            // What ended the stream is in its answers.
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
        }
    }
}

/// What sends a terminal's events.
pub(crate) struct Reporter {
    shared: Arc<Shared>,
    connection: Connection,
    terminal_id: String,
    manner: Manner,
    in_flight: Option<InFlight>,
    /// Whether that was sent over the present stream.
    is_sent: bool,
    pauses: ExponentialBackoff,
}

impl Reporter {
    pub(crate) fn new(shared: Arc<Shared>, connection: Connection, terminal_id: String) -> Reporter {
        Reporter { shared, connection, terminal_id, manner: Manner::default(), in_flight: None, is_sent: false, pauses: pauses() }
    }

    /// Reports until the terminal closes and nothing waits.
    pub(crate) async fn run(mut self) {
        while !self.is_done() {
            let Err(interruption) = self.session().await else { break };
            let (problem, retry_after) = match interruption {
                Interruption::Lost { problem, retry_after } => (problem, retry_after),
                Interruption::Invalid { problem } => {
                    if self.is_sent {
                        self.halve(&problem);
                    }
                    (problem, None)
                }
            };
            let pause = self.pauses.next().unwrap_or(LONGEST_PAUSE).max(retry_after.unwrap_or_default());
            tracing::debug!(terminal = self.terminal_id, problem, "reporting goes on in {:.1} s", pause.as_secs_f32());
            self.shared.status.send_modify(|status| {
                status.connected = false;
                status.problem = problem;
            });
            let closing = self.shared.closing.is_cancelled();
            tokio::select! {
                () = sleep(pause) => {}
                // There is little time left.
                () = self.shared.closing.cancelled(), if !closing => self.pauses = pauses(),
            }
        }
        self.shared.status.send_modify(|status| status.connected = false);
    }

    fn is_done(&self) -> bool {
        let spool = self.shared.spool();
        let is_empty = spool.depth().events == 0 && spool.dropped(1).is_empty();
        self.shared.closing.is_cancelled() && is_empty && self.sample_left().is_none()
    }

    /// One stream, for as long as it lasts.
    async fn session(&mut self) -> Result<(), Interruption> {
        self.is_sent = false;
        let mut stream = self.open().await?;
        if let Some(batch) = self.in_flight.take() {
            // The same events, whatever the limits are now.
            self.send(&stream, Limits { events: batch.events, bytes: usize::MAX })?;
        }
        let opened = stream.opened;
        let ended = self.report(&mut stream).await;
        if opened.elapsed() >= LASTING {
            self.pauses = pauses();
        }
        ended
    }

    /// Reports over a stream until it ends, or nothing is left.
    async fn report(&mut self, stream: &mut Stream) -> Result<(), Interruption> {
        loop {
            let profile = self.shared.profile();
            if profile != stream.profile {
                stream.send(Request::Profile((*profile).clone()))?;
                stream.profile = profile;
            }
            let closing = self.shared.closing.is_cancelled();
            if self.is_done() {
                return Ok(());
            }
            if self.in_flight.is_none() && self.is_due(closing) {
                self.send(stream, self.manner.limits)?;
            }
            tokio::select! {
                response = stream.responses.message() => self.take(response?).await?,
                // They are in the profile.
                Ok(()) = stream.rules.changed() => {}
                () = self.shared.changed.notified() => {}
                () = self.shared.closing.cancelled(), if !closing => {}
                overdue = self.until_due() => if overdue {
                    return Err(Interruption::lost(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())));
                },
            }
        }
    }

    async fn open(&self) -> Result<Stream, Interruption> {
        let opening = timeout(ANSWER_TIMEOUT, self.connection.open(WAITING_REQUESTS)).await;
        let (requests, responses) = opening.map_err(|_| Interruption::lost("no stream could be opened in time"))??;
        let rules = self.shared.rules.subscribe();
        let stream = Stream { requests, responses, profile: self.shared.profile(), rules, opened: Instant::now() };
        stream.send(Request::Profile((*stream.profile).clone()))?;
        if let Some(request) = self.shared.rules.request() {
            stream.send(Request::Rules(request))?;
        }
        self.shared.status.send_modify(|status| {
            status.connected = true;
            status.problem.clear();
        });
        Ok(stream)
    }

    /// Whether there is a batch to be sent now.
    fn is_due(&self, closing: bool) -> bool {
        let spool = self.shared.spool();
        let depth = spool.depth();
        if !spool.dropped(1).is_empty() || self.sample_left().is_some_and(|left| closing || left.is_zero()) {
            return true;
        }
        let full = depth.events >= self.manner.limits.events || depth.bytes >= self.manner.limits.bytes;
        depth.events > 0 && (full || closing || self.left(depth.oldest).is_zero())
    }

    /// How long the oldest event may still wait for others.
    fn left(&self, oldest: Option<BootTime>) -> Duration {
        oldest.map_or(Duration::ZERO, |completed| self.manner.delay.saturating_sub((self.shared.now)().since(completed)))
    }

    /// How long the oldest health sample may still wait for events; nothing where none waits.
    fn sample_left(&self) -> Option<Duration> {
        self.shared.samples().left((self.shared.now)())
    }

    /// Waits until the batch that is on its way is overdue (true), or until there is one to be sent (false).
    async fn until_due(&self) -> bool {
        if let Some(batch) = &self.in_flight {
            sleep_until(batch.deadline).await;
            return true;
        }
        let depth = self.shared.spool().depth();
        let of_events = (depth.events > 0).then(|| self.left(depth.oldest));
        match of_events.into_iter().chain(self.sample_left()).min() {
            Some(left) => sleep(left).await,
            None => std::future::pending().await,
        }
        false
    }

    /// Sends the oldest events, so many at most, and what is to be declared.
    fn send(&mut self, stream: &Stream, limits: Limits) -> Result<(), Interruption> {
        let mut spool = self.shared.spool();
        let entries = if limits.events == 0 || spool.depth().events == 0 { Vec::new() } else { spool.lend(limits) };
        let ranges = spool.dropped(MAX_RANGES);
        let last = entries.last().map_or(0, |entry| entry.sequence);
        let health_samples = self.shared.samples().sent((self.shared.now)());
        let last_sample = health_samples.last().map_or(0, |sample| sample.sequence);
        let batch = OutcomeBatch {
            terminal_id: self.terminal_id.clone(),
            spool_id: spool.id(),
            profile: entries.first().filter(|entry| entry.profile != stream.profile).map(|entry| (*entry.profile).clone()),
            events: entries.iter().map(|entry| event(entry, (self.shared.now)())).collect(),
            dropped_ranges: ranges.clone(),
            health_samples,
            send_time: Some(Timestamp::from(SystemTime::now())),
        };
        drop(spool);
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        self.in_flight = Some(InFlight { events: entries.len(), last, ranges, last_sample, deadline });
        self.is_sent = true;
        stream.send(Request::Batch(batch))
    }

    async fn take(&mut self, response: Option<StreamOutcomesResponse>) -> Result<(), Interruption> {
        match response.map(|response| response.message) {
            Some(Some(Response::Acknowledgement(acknowledgement))) => self.acknowledged(&acknowledgement),
            Some(Some(Response::Settings(settings))) => {
                self.manner = Manner::from(&settings);
                let health_interval = settings.health_interval.and_then(|interval| Duration::try_from(interval).ok());
                self.shared.status.send_modify(|status| status.health_interval = health_interval.filter(|interval| !interval.is_zero()));
                Ok(())
            }
            Some(Some(Response::Rules(bundle))) => {
                self.take_rules(bundle).await;
                Ok(())
            }
            // Advisories, and what a newer gateway says.
            Some(_) => Ok(()),
            None => Err(Interruption::lost("the gateway ended the stream")),
        }
    }

    /// Rules that are refused are said, and stop nothing.
    async fn take_rules(&self, bundle: RuleBundle) {
        let rules = self.shared.rules.clone();
        // It is some ten milliseconds of work, on a terminal more.
        match spawn_blocking(move || rules.take_message(bundle)).await {
            Ok(Ok(true)) => tracing::info!(terminal = self.terminal_id, rules = self.shared.rules.version(), "verdicts are by newer rules"),
            Ok(Ok(false)) => {}
            Ok(Err(error)) => tracing::warn!(terminal = self.terminal_id, reason = error.to_string(), "rules were refused"),
            Err(error) => tracing::error!(terminal = self.terminal_id, %error, "the rules stay as they were"),
        }
    }

    fn acknowledged(&mut self, acknowledgement: &BatchAcknowledgement) -> Result<(), Interruption> {
        if let Some(refusal) = acknowledgement.refusals.iter().find(|refusal| refusal.reason() == RefusalReason::OtherTerminal) {
            // That is wrong by configuration, and not lost: another token will do.
            return Err(Interruption::lost(format!("{}: {}", refusal.field, refusal.description)));
        }
        let mut spool = self.shared.spool();
        let Some(batch) = self.in_flight.clone().filter(|_| acknowledgement.spool_id == spool.id()) else {
            return Err(Interruption::lost("the gateway acknowledged what was not sent"));
        };
        let through = acknowledgement.acknowledged_through.min(batch.last);
        spool.settle(through);
        let refused = acknowledgement.refusals.len();
        // An event that nobody could read, not even its sequence, is refused by its place.
        if through < batch.last {
            if refused == 0 {
                return Err(Interruption::lost("the gateway acknowledged less than was sent"));
            }
            spool.give_up(batch.last, DropReason::Refused);
        }
        spool.declared(&batch.ranges);
        let settled_through = spool.depth().next - 1;
        drop(spool);
        self.shared.samples().settle(batch.last_sample);
        self.in_flight = None;
        self.pauses = pauses();
        for refusal in &acknowledgement.refusals {
            let (field, reason) = (&refusal.field, &refusal.description);
            tracing::warn!(terminal = self.terminal_id, sequence = refusal.sequence, field, reason, "an event was refused");
        }
        for part in &acknowledgement.ignored_parts {
            tracing::warn!(terminal = self.terminal_id, field = part.field, reason = part.description, "a part was left out");
        }
        if !acknowledgement.redacted_sequences.is_empty() {
            let sequences = &acknowledgement.redacted_sequences;
            tracing::warn!(terminal = self.terminal_id, ?sequences, "card numbers in free text had to be overwritten");
        }
        self.shared.status.send_modify(|status| {
            status.settled_through = settled_through;
            status.acknowledged += count(batch.events.saturating_sub(refused));
            status.refused += count(refused);
            status.dropped += batch.ranges.iter().map(|range| range.last_sequence - range.first_sequence + 1).sum::<u64>();
            status.redacted += count(acknowledgement.redacted_sequences.len());
            if let Some(refusal) = acknowledgement.refusals.last() {
                status.last_refusal = Some(refusal.clone());
            }
        });
        Ok(())
    }

    /// The gateway cannot take the batch as it is: the next is half of it, until it is one event that cannot be taken. That one is lost.
    fn halve(&mut self, problem: &str) {
        let Some(batch) = self.in_flight.take() else { return };
        // It answered, and there is progress.
        self.pauses = pauses();
        if batch.events > 1 {
            self.in_flight = Some(InFlight { events: batch.events / 2, ..batch });
            return;
        }
        tracing::error!(terminal = self.terminal_id, sequence = batch.last, problem, "the gateway cannot take what was sent; it is lost");
        self.shared.samples().settle(batch.last_sample);
        let mut spool = self.shared.spool();
        if batch.events == 0 {
            spool.declared(&batch.ranges);
        } else {
            spool.give_up(batch.last, DropReason::Refused);
        }
        let settled_through = spool.depth().next - 1;
        drop(spool);
        self.shared.status.send_modify(|status| status.settled_through = settled_through);
    }
}

/// An event as it is sent now. An outcome that is none any more is sent without content, and refused by name.
fn event(entry: &Entry, now: BootTime) -> Event {
    Event {
        sequence: entry.sequence,
        age_ms: entry.completed.map(|completed| u64::try_from(now.since(completed).as_millis()).unwrap_or(u64::MAX)),
        outcome: Outcome::decode(entry.outcome.clone()).ok(),
    }
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
