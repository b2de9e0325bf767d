//! What a check found, in words.

use std::fmt;
use std::time::{Duration, Instant};

use stateright::{Checker, Expectation, HasDiscoveries, Model, Path};

use crate::worker::Step;
use crate::{Action, Protocol, Variant, World};

/// What a check found.
#[derive(Debug)]
pub struct Report {
    /// What was checked.
    pub protocol: Protocol,
    /// States that were visited, each once.
    pub states: usize,
    /// Ways from one to another.
    pub transitions: usize,
    /// The most actions to one of them, as it was found first.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// What became of each property.
    pub findings: Vec<Finding>,
}

/// What became of a property.
#[derive(Debug)]
pub struct Finding {
    /// The property.
    pub property: &'static str,
    /// Whether it holds: always or in the end; or whether it was met, if it only had to be possible.
    pub holds: bool,
    /// The way to where it does not hold, or to where it was met.
    pub path: Option<Vec<String>>,
}

impl Report {
    /// Visits every state; of a variant that is to break something, until something is broken. Then the way there is one of the shortest.
    #[must_use]
    pub fn of(protocol: Protocol) -> Report {
        let begin = Instant::now();
        let is_whole = matches!(protocol.variant, Variant::Real | Variant::CommitsForClock);
        let checker = match is_whole {
            true => protocol.checker().threads(std::thread::available_parallelism().map_or(1, usize::from)),
            false => protocol.checker().finish_when(HasDiscoveries::AnyFailures),
        };
        let checker = checker.spawn_bfs().join();
        let findings = protocol.properties().into_iter().map(|property| {
            let found = checker.discovery(property.name);
            let holds = found.is_some() == (property.expectation == Expectation::Sometimes);
            Finding { property: property.name, holds, path: found.map(in_words) }
        });
        Report {
            protocol,
            findings: findings.collect(),
            states: checker.unique_state_count(),
            transitions: checker.state_count(),
            depth: checker.max_depth(),
            took: begin.elapsed(),
        }
    }

    /// Whether all is as it has to be.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.findings.iter().all(|finding| finding.holds)
    }

    /// What became of a property.
    #[must_use]
    pub fn finding(&self, property: &str) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.property == property)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { protocol: Protocol { variant, bounds }, states, transitions, depth, .. } = self;
        writeln!(
            formatter,
            "{variant:?}, {} + {} records, {} faults{}: {states} states, {transitions} transitions, depth {depth}, {:.1} s",
            bounds.records,
            bounds.later_records,
            bounds.faults,
            [(bounds.forgets, ", tokens forgotten"), (bounds.is_fresh, ", nothing committed")]
                .map(|(is, words)| if is { words } else { "" })
                .concat(),
            self.took.as_secs_f64()
        )
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "  {:<5} {}", if self.holds { "holds" } else { "FAILS" }, self.property)?;
        match &self.path {
            Some(path) if !self.holds => path.iter().try_for_each(|step| writeln!(formatter, "          {step}")),
            _ => Ok(()),
        }
    }
}

/// The way to a state, action by action.
fn in_words(path: Path<World, Action>) -> Vec<String> {
    path.into_vec().iter().filter_map(|(world, action)| Some(world.in_words((*action)?))).collect()
}

impl World {
    /// What an action does in this state.
    fn in_words(&self, action: Action) -> String {
        let step = |process: usize| self.processes.get(process).and_then(|process| process.worker.as_ref()).map(|worker| worker.step);
        let request = |number: usize| self.store.requests.get(number);
        match action {
            Action::Work(process) => match step(process) {
                Some(Step::Start) => format!("process {process} finds committed: {:?}", self.committed),
                Some(step) => format!("process {process}: {step:?}"),
                None => format!("process {process}: nothing"),
            },
            Action::Apply(number, week) => format!("the server applies week {week} of {:?}", request(number)),
            Action::Kill(Some((number, week))) => {
                format!("the server dies with the token, without the rows, of week {week} of {:?}", request(number))
            }
            action => format!("{action:?}"),
        }
    }
}
