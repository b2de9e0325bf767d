//! A fleet at work: what customers do is reported as it happens, by terminals that hold their streams open as real ones do.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use faultline_proto::outcome::v1::OriginalTransaction;
use faultline_proto::terminal::v1::AccessNetwork;
use faultline_sdk::{Cause, Connection, ConnectionError, Limits, MemorySpool, ReportError, Terminal, TerminalError, TerminalRules};
use faultline_store::Database;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::fleet::Fleet;
use crate::history::{self, HistoryError};
use crate::scenario::{Scenario, ScenarioError};
use crate::traffic::{Completion, Follows, Traffic};
use crate::wear::Health;

/// How often it is looked what has completed.
const LOOK: Duration = Duration::from_millis(50);
/// How often it is said how it goes.
const TELL: Duration = Duration::from_secs(1);
/// Terminals that share a connection: a gateway takes 100 calls over one, unless it is told otherwise.
const PER_CONNECTION: usize = 50;
/// How long the last outcomes may take to be acknowledged.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);
/// What a terminal keeps while nobody hears it: less than a real one, and together no more than so much, since they share this memory.
const SPOOL: Limits = Limits { events: 1000, bytes: 512 * 1024 };
const ALL_SPOOLS: usize = 2 * 1024 * 1024 * 1024;
/// Attempts that later ones may belong to.
const REMEMBERED: usize = 100_000;

/// Where a fleet reports to.
#[derive(Clone)]
pub struct Gateway {
    /// `http://host:port` or `https://host:port`.
    pub address: String,
    /// A token of every terminal of a tenant.
    pub token: String,
    /// For TLS, the certificate (PEM) of the authority that vouches for it.
    pub ca_certificate: Option<String>,
}

/// Why a fleet does not report.
#[derive(Debug, thiserror::Error)]
pub enum SimulationError {
    /// There is no way to the gateway.
    #[error("cannot report to the gateway")]
    Connection(#[from] ConnectionError),
    /// A terminal could not be switched on.
    #[error("cannot switch on a terminal")]
    Terminal(#[from] TerminalError),
    /// An outcome could not be kept.
    #[error("cannot report an outcome")]
    Report(#[from] ReportError),
}

/// How it goes, from when the fleet was switched on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// For how long.
    pub elapsed: Duration,
    /// Terminals that have reported something.
    pub terminals: usize,
    /// Outcomes that were reported.
    pub reported: u64,
    /// Of these, acknowledged.
    pub acknowledged: u64,
    /// Refused, or dropped because nothing could be sent for long.
    pub lost: u64,
    /// How far the simulator is behind what should have happened.
    pub behind: Duration,
    /// Verdicts that the terminals gave, by cause.
    pub verdicts: BTreeMap<Cause, u64>,
    /// What keeps a terminal from reporting; empty where nothing does.
    pub problem: String,
}

impl Progress {
    /// Outcomes that wait in the terminals, or are on their way.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.reported.saturating_sub(self.acknowledged + self.lost)
    }
}

/// A scenario and the fleet that plays it.
#[derive(Debug)]
pub struct Simulation {
    scenario: Scenario,
    fleet: Fleet,
}

impl Simulation {
    /// Draws the fleet of a scenario's file. `change` may change the scenario before that.
    ///
    /// # Errors
    /// When the file is not a scenario, or what became of it makes no sense.
    pub fn load(path: &Path, change: impl FnOnce(&mut Scenario)) -> Result<Simulation, ScenarioError> {
        let mut scenario = Scenario::load(path)?;
        change(&mut scenario);
        scenario.check().map_err(|(key, reason)| ScenarioError::Value { path: path.into(), key, reason })?;
        let fleet = Fleet::draw(&scenario);
        Ok(Simulation { scenario, fleet })
    }

    /// What is simulated, in plain words.
    #[must_use]
    pub fn described(&self) -> String {
        let Scenario { title, seed, fleet, .. } = &self.scenario;
        let (terminals, stores) = (self.fleet.terminals.len(), self.fleet.stores);
        let rate = fleet.transactions_per_minute;
        let title = if title.is_empty() { String::new() } else { format!(": {title}") };
        format!("{terminals} simulated terminals in {stores} shops, about {rate} sales a minute (seed {seed}){title}.")
    }

    /// What is played.
    #[must_use]
    pub fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// Writes the counts of the weeks before, as far as the tenant has none. `said` is told how many days of how many are written. Returns how many counts
    /// were.
    ///
    /// # Errors
    /// When ClickHouse does not take them.
    pub async fn write_history(&self, database: &Database, tenant: &str, said: impl FnMut(u32, u32)) -> Result<usize, HistoryError> {
        history::write((&self.fleet, &self.scenario), database, tenant, said).await
    }

    /// Reports until `stop`, then waits a little for the last acknowledgements. `say` is told what begins and ends, in plain words.
    ///
    /// # Errors
    /// When the gateway's address, token or certificate cannot be used.
    pub async fn run(
        &self,
        gateway: &Gateway,
        stop: CancellationToken,
        (say, progress): (impl Fn(String), &watch::Sender<Progress>),
    ) -> Result<Progress, SimulationError> {
        let begin = Instant::now();
        let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
        let mut terminals = Terminals::new((&self.fleet, self.scenario.seed), gateway)?;
        let Some(mut traffic) = Traffic::begin(&self.fleet, &self.scenario, unix_s) else { return Ok(Progress::default()) };
        let mut announced = Duration::ZERO;
        let mut told = Duration::ZERO;
        while !stop.is_cancelled() {
            let now = begin.elapsed();
            self.announce(announced..now, &say);
            announced = now;
            let mut behind = Duration::ZERO;
            while let Some(completion) = traffic.next_until(now) {
                behind = begin.elapsed().saturating_sub(completion.at + LOOK);
                terminals.report(completion)?;
                if stop.is_cancelled() {
                    break;
                }
                tokio::task::consume_budget().await;
            }
            if now >= told + TELL {
                told = now;
                terminals.report_health(now, |place| self.scenario.power_is_back((&self.fleet, place), now).is_none());
                progress.send_replace(terminals.progress(now, behind));
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                () = stop.cancelled() => {}
            }
        }
        let last = terminals.close(begin.elapsed()).await;
        progress.send_replace(last.clone());
        Ok(last)
    }

    /// Says which faults begin and end within a time.
    fn announce(&self, within: std::ops::Range<Duration>, say: &impl Fn(String)) {
        for fault in &self.scenario.faults {
            if within.contains(&fault.start) {
                say(fault.described());
            }
            if fault.end().is_some_and(|end| within.contains(&end)) {
                say(format!("over: {}", fault.described()));
            }
        }
    }
}

/// A terminal that reports.
struct SwitchedOn {
    terminal: Terminal,
    health: Health,
    /// When its next health sample is due, from when the fleet was switched on.
    next_sample: Duration,
}

/// The terminals that have been switched on: each is with its first outcome.
struct Terminals<'a> {
    fleet: &'a Fleet,
    connections: Vec<Connection>,
    switched_on: Vec<Option<SwitchedOn>>,
    /// One for all: each would have its own.
    rules: TerminalRules,
    seed: u64,
    reported: u64,
    verdicts: BTreeMap<Cause, u64>,
    /// By attempt, its sequence in its terminal's spool.
    sequences: BTreeMap<u64, u64>,
}

impl<'a> Terminals<'a> {
    fn new((fleet, seed): (&'a Fleet, u64), gateway: &Gateway) -> Result<Terminals<'a>, SimulationError> {
        let count = fleet.terminals.len();
        let connect = || {
            let builder = Connection::builder(gateway.address.as_str(), gateway.token.as_str());
            gateway.ca_certificate.iter().fold(builder, |builder, pem| builder.ca_certificate(pem.as_str())).build()
        };
        Ok(Terminals {
            fleet,
            connections: (0..count.div_ceil(PER_CONNECTION)).map(|_| connect()).collect::<Result<_, _>>()?,
            switched_on: std::iter::repeat_with(|| None).take(count).collect(),
            rules: TerminalRules::built_in().map_err(TerminalError::from)?,
            seed,
            reported: 0,
            verdicts: BTreeMap::new(),
            sequences: BTreeMap::new(),
        })
    }

    fn report(&mut self, completion: Completion) -> Result<(), SimulationError> {
        let Completion { at, terminal: place, mut outcome, id, follows, is_followed } = completion;
        let (Some(known), Some(slot), Some(connection)) =
            (self.fleet.terminals.get(place), self.switched_on.get_mut(place), self.connections.get(place / PER_CONNECTION))
        else {
            return Ok(());
        };
        let SwitchedOn { terminal, health, .. } = match slot {
            Some(terminal) => terminal,
            None => {
                let bytes = SPOOL.bytes.min(ALL_SPOOLS / self.fleet.terminals.len().max(1));
                let spool = MemorySpool::new(Limits { bytes, ..SPOOL });
                let builder = Terminal::builder(connection, known.id.as_str()).profile(known.profile.clone());
                let terminal = builder.spool(spool).rules(&self.rules).start()?;
                let has_radio = known.profile.access_network == i32::from(AccessNetwork::Cellular4g);
                slot.insert(SwitchedOn { terminal, health: Health::draw(self.seed, place, has_radio, at), next_sample: at })
            }
        };
        outcome.reader_history = health.saw(&outcome, at);
        match follows {
            Some(Follows::Sale(first)) => outcome.first_attempt_sequence = self.sequences.get(&first).copied().unwrap_or_default(),
            Some(Follows::Reversed(original)) => {
                let sequence = self.sequences.get(&original).copied().unwrap_or_default();
                outcome.original = Some(OriginalTransaction { spool_id: terminal.spool_id(), sequence, ..OriginalTransaction::default() });
            }
            None => {}
        }
        let reported = terminal.report(outcome)?;
        self.reported += 1;
        *self.verdicts.entry(reported.verdict.cause).or_default() += 1;
        if is_followed {
            self.sequences.insert(id, reported.sequence);
            if self.sequences.len() > REMEMBERED {
                self.sequences.pop_first();
            }
        }
        Ok(())
    }

    /// Lets those measure themselves whose time it is: as often as the gateway asks for.
    /// Lets those terminals measure themselves that have power, by their places.
    fn report_health(&mut self, now: Duration, has_power: impl Fn(usize) -> bool) {
        let terminals = self.switched_on.iter_mut().enumerate().filter(|(place, _)| has_power(*place)).filter_map(|(_, on)| on.as_mut());
        for SwitchedOn { terminal, health, next_sample } in terminals.filter(|on| on.next_sample <= now) {
            if let Some(interval) = terminal.status().health_interval {
                terminal.report_health(health.sample(now));
                *next_sample = now + interval;
            }
        }
    }

    fn progress(&self, elapsed: Duration, behind: Duration) -> Progress {
        let statuses = self.switched_on.iter().flatten().map(|on| on.terminal.status());
        let verdicts = self.verdicts.clone();
        sum(statuses, Progress { elapsed, behind, reported: self.reported, verdicts, ..Progress::default() })
    }

    /// Lets every terminal send what it has.
    async fn close(self, elapsed: Duration) -> Progress {
        let mut closing: JoinSet<_> = self.switched_on.into_iter().flatten().map(|on| on.terminal.close(CLOSE_WITHIN)).collect();
        let mut statuses = Vec::new();
        while let Some(closed) = closing.join_next().await {
            statuses.extend(closed.inspect_err(|error| tracing::error!(%error, "a terminal did not close")).ok());
        }
        sum(statuses.into_iter(), Progress { elapsed, reported: self.reported, verdicts: self.verdicts, ..Progress::default() })
    }
}

fn sum(statuses: impl Iterator<Item = faultline_sdk::Status>, mut progress: Progress) -> Progress {
    for status in statuses {
        progress.terminals += 1;
        progress.acknowledged += status.acknowledged;
        progress.lost += status.refused + status.dropped;
        if let Some(refusal) = &status.last_refusal {
            progress.problem = format!("{}: {}", refusal.field, refusal.description);
        }
        if !status.problem.is_empty() {
            progress.problem = status.problem;
        }
    }
    progress
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::FleetSize;

    #[test]
    fn what_begins_and_ends_is_said_once() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/largest-bank-fails.toml");
        let simulation = Simulation::load(&directory, |scenario| scenario.fleet = FleetSize { terminals: 3, ..scenario.fleet }).unwrap();
        assert!(simulation.described().starts_with("3 simulated terminals in "), "{}", simulation.described());
        let said = std::cell::RefCell::new(Vec::new());
        for second in 0..400 {
            let range = Duration::from_secs(second)..Duration::from_secs(second + 1);
            simulation.announce(range, &|text: String| said.borrow_mut().push((second, text)));
        }
        let said = said.into_inner();
        assert_eq!(said.iter().map(|(second, _)| *second).collect::<Vec<_>>(), [120, 300]);
        assert!(said[0].1.contains("(icbc) fails: all its transactions"), "{said:?}");
    }

    #[test]
    fn a_change_that_makes_no_sense_is_named() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/largest-bank-fails.toml");
        let error = Simulation::load(&path, |scenario| scenario.fleet.terminals = 0).unwrap_err();
        assert!(error.to_string().contains("`fleet.terminals`: 0 is not within"), "{error}");
    }
}
