//! A terminal, as its application sees it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use faultline_proto::ingest::v1::EventRefusal;
use faultline_proto::outcome::v1::Outcome;
use faultline_proto::terminal::v1::{HealthSample, TerminalProfile};
use faultline_verdict::RulesError;
use prost::Message;
use prost_types::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::clock::BootTime;
use crate::connection::Connection;
use crate::rules::{InForce, TerminalRules, Verdict};
use crate::samples::Samples;
use crate::session::Reporter;
use crate::spool::{MemorySpool, NewEntry, Spool, SpoolError};

/// Most bytes of one outcome: more than the contract's limits of its fields allow together.
const MAX_OUTCOME_BYTES: usize = 64 * 1024;

/// Who reports in the profile of one whose application did not say.
const SDK: &str = concat!("rust ", env!("CARGO_PKG_VERSION"));

/// Why a terminal is not started.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    /// Its name is not one.
    #[error("`{}` (`terminal_id`) cannot be a terminal: it is empty, or 1 to 32 of A-Z a-z 0-9 . _ -", terminal_id.escape_debug())]
    TerminalId {
        /// What was given.
        terminal_id: String,
    },
    /// The rules that came with the library cannot be used.
    #[error("the rules that came with the library")]
    Rules(#[from] RulesError),
}

/// Why an outcome is not reported.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// It is larger than any that is within the contract.
    #[error("the outcome has {bytes} bytes, at most {MAX_OUTCOME_BYTES} are taken")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
    },
    /// The spool cannot keep it.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// An outcome that will get there, and what it says.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Reported {
    /// Its sequence in the terminal's spool: what later attempts at the same sale refer to (`Outcome.first_attempt_sequence`), and, with
    /// [`Terminal::spool_id`], a reversal or a query (`Outcome.original`).
    pub sequence: u64,
    /// Whose fault it is, and what cashier and service desk should do, as far as this outcome tells.
    pub verdict: Verdict,
}

/// How reporting goes.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Status {
    /// Whether there is a stream to the gateway.
    pub connected: bool,
    /// Events that wait in the spool.
    pub waiting: usize,
    /// Every event up to this sequence is settled.
    pub settled_through: u64,
    /// Events that Faultline has, since the terminal was started.
    pub acknowledged: u64,
    /// Events that it refused, as they were against the contract.
    pub refused: u64,
    /// The last of them, with the field and what is wrong with it.
    pub last_refusal: Option<EventRefusal>,
    /// Events that were dropped here and declared: the spool was full, or nobody could decode them.
    pub dropped: u64,
    /// Events in whose free text the gateway had to overwrite what looks like a card number: the application must be mended.
    pub redacted: u64,
    /// How often the gateway wants a health sample; nothing until it has said so.
    pub health_interval: Option<Duration>,
    /// What is in the way; empty when nothing is.
    pub problem: String,
    /// The rules that verdicts are by, all sets together: `rules+3f2a91c04b77`.
    pub rules: String,
    /// Why rules that were offered were not taken; empty where the last were.
    pub rules_problem: String,
}

/// A terminal that reports. When it is dropped, it stops at once; what waits in a spool that survives is sent the next time.
#[derive(Debug)]
pub struct Terminal {
    shared: Arc<Shared>,
    reporting: JoinHandle<()>,
}

/// What a [`Terminal`] is made of.
pub struct TerminalBuilder {
    connection: Connection,
    terminal_id: String,
    profile: TerminalProfile,
    spool: Option<Box<dyn Spool>>,
    rules: Option<TerminalRules>,
    pub(crate) now: fn() -> BootTime,
}

/// What the application's side and the reporter share.
pub(crate) struct Shared {
    spool: Mutex<Box<dyn Spool>>,
    profile: Mutex<Arc<TerminalProfile>>,
    pub(crate) rules: TerminalRules,
    samples: Mutex<Samples>,
    /// What time it is.
    pub(crate) now: fn() -> BootTime,
    /// Something changed that the reporter has to look at.
    pub(crate) changed: Notify,
    pub(crate) closing: CancellationToken,
    pub(crate) status: watch::Sender<Status>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Outcomes are nobody's business.
        formatter.debug_struct("Shared").field("status", &*self.status.borrow()).finish_non_exhaustive()
    }
}

impl Shared {
    /// The spool. What panicked while it held it was one call of it; the spool itself decides what it is worth then.
    pub(crate) fn spool(&self) -> MutexGuard<'_, Box<dyn Spool>> {
        self.spool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The profile, with the version of the rules in force.
    pub(crate) fn profile(&self) -> Arc<TerminalProfile> {
        self.profile_under(&self.rules.in_force())
    }

    fn profile_under(&self, in_force: &InForce) -> Arc<TerminalProfile> {
        let mut profile = self.profile.lock().unwrap_or_else(PoisonError::into_inner);
        if profile.rule_set_version != in_force.rules.version() {
            *profile = Arc::new(TerminalProfile { rule_set_version: in_force.rules.version().into(), ..(**profile).clone() });
        }
        Arc::clone(&profile)
    }

    pub(crate) fn samples(&self) -> MutexGuard<'_, Samples> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Terminal {
    /// A terminal of this name that reports over `connection`. Where the token names one terminal, the name is empty or equal to that.
    pub fn builder(connection: &Connection, terminal_id: impl Into<String>) -> TerminalBuilder {
        TerminalBuilder {
            connection: connection.clone(),
            terminal_id: terminal_id.into(),
            profile: TerminalProfile::default(),
            spool: None,
            rules: None,
            now: BootTime::now,
        }
    }

    /// Reports an outcome that has just completed, and says whose fault it is and what to do. It is kept, not sent: this does not wait for the network, only for the
    /// spool. The time of completion is set where it is not.
    ///
    /// # Errors
    /// When it is too large, or the spool cannot keep it. Then it is not reported; [`Terminal::verdict`] has a verdict on it all the same.
    pub fn report(&self, mut outcome: Outcome) -> Result<Reported, ReportError> {
        outcome.completion_time.get_or_insert_with(|| Timestamp::from(SystemTime::now()));
        let bytes = outcome.encoded_len();
        if bytes > MAX_OUTCOME_BYTES {
            return Err(ReportError::TooLarge { bytes });
        }
        let in_force = self.shared.rules.in_force();
        let verdict = in_force.verdict(&outcome);
        let profile = self.shared.profile_under(&in_force);
        let entry = NewEntry { completed: (self.shared.now)(), profile, outcome: Bytes::from(outcome.encode_to_vec()) };
        let sequence = self.shared.spool().append(entry)?;
        self.shared.changed.notify_one();
        Ok(Reported { sequence, verdict })
    }

    /// The verdict on an outcome, which is not reported by that.
    #[must_use]
    pub fn verdict(&self, outcome: &Outcome) -> Verdict {
        self.shared.rules.verdict(outcome)
    }

    /// Reports what the terminal measured of itself just now. It rides with the next batch, or goes by itself after a minute; of those that wait, the newest 16
    /// are kept. Its sequence, age and time are set here, and how full the spool is, where the application does not say so.
    pub fn report_health(&self, mut sample: HealthSample) {
        let depth = self.shared.spool().depth();
        sample.spool_depth.get_or_insert_with(|| u32::try_from(depth.events).unwrap_or(u32::MAX));
        sample.spool_bytes.get_or_insert_with(|| u64::try_from(depth.bytes).unwrap_or(u64::MAX));
        self.shared.samples().add(sample, (self.shared.now)());
        self.shared.changed.notify_one();
    }

    /// Another profile from now on: what was reported before keeps the one under which it completed.
    pub fn set_profile(&self, profile: TerminalProfile) {
        *self.shared.profile.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(named(profile));
        self.shared.changed.notify_one();
    }

    /// Names the terminal's spool.
    #[must_use]
    pub fn spool_id(&self) -> u64 {
        self.shared.spool().id()
    }

    /// How reporting goes.
    #[must_use]
    pub fn status(&self) -> Status {
        let waiting = self.shared.spool().depth().events;
        let (rules, rules_problem) = (self.shared.rules.version(), self.shared.rules.problem());
        Status { waiting, rules, rules_problem, ..self.shared.status.borrow().clone() }
    }

    /// Waits until the event of this sequence is settled: Faultline has it, refused it, or it was dropped and declared.
    pub async fn until_settled(&self, sequence: u64) {
        // The sender lives as long as `self`.
        let _ = self.shared.status.subscribe().wait_for(|status| status.settled_through >= sequence).await;
    }

    /// Sends what waits, at once and at most for `within`, and stops. What the status says is waiting then is lost, unless the spool survives.
    pub async fn close(mut self, within: Duration) -> Status {
        self.shared.closing.cancel();
        // What is not done by then ends with `self`.
        let _ = timeout(within, &mut self.reporting).await;
        self.status()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.reporting.abort();
    }
}

impl TerminalBuilder {
    /// What the terminal is and how it is connected. The version of the rules is filled in.
    #[must_use]
    pub fn profile(self, profile: TerminalProfile) -> TerminalBuilder {
        TerminalBuilder { profile, ..self }
    }

    /// Where events wait; without this, in a [`MemorySpool`].
    #[must_use]
    pub fn spool(self, spool: impl Spool + 'static) -> TerminalBuilder {
        TerminalBuilder { spool: Some(Box::new(spool)), ..self }
    }

    /// By which rules verdicts are given; without this, by those that came with the library.
    #[must_use]
    pub fn rules(self, rules: &TerminalRules) -> TerminalBuilder {
        TerminalBuilder { rules: Some(rules.clone()), ..self }
    }

    /// Begins to report, on the tokio runtime that this is called in.
    ///
    /// # Errors
    /// When the terminal's name is not one.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(self) -> Result<Terminal, TerminalError> {
        let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if self.terminal_id.len() > 32 || !self.terminal_id.bytes().all(in_name) {
            return Err(TerminalError::TerminalId { terminal_id: self.terminal_id });
        }
        let spool = self.spool.unwrap_or_else(|| Box::new(MemorySpool::default()));
        // A spool that survived a restart has seen samples of lower numbers.
        let depth = spool.depth();
        let first_sample = if (depth.events, depth.next) == (0, 1) { 1 } else { unix_ms() };
        let shared = Arc::new(Shared {
            spool: Mutex::new(spool),
            samples: Mutex::new(Samples::from(first_sample)),
            profile: Mutex::new(Arc::new(named(self.profile))),
            rules: self.rules.map_or_else(TerminalRules::built_in, Ok)?,
            now: self.now,
            changed: Notify::new(),
            closing: CancellationToken::new(),
            status: watch::Sender::default(),
        });
        let reporter = Reporter::new(Arc::clone(&shared), self.connection, self.terminal_id);
        Ok(Terminal { shared, reporting: tokio::spawn(reporter.run()) })
    }
}

/// With this library's name, where the application did not say another.
fn named(mut profile: TerminalProfile) -> TerminalProfile {
    if profile.sdk.is_empty() {
        profile.sdk = SDK.into();
    }
    profile
}

/// Now by the terminal's clock, in milliseconds since 1970-01-01 UTC, at least 1.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(1)
}
