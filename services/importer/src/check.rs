//! What would become of a log, without a gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::lines::Place;
use crate::log::{Log, LogError};
use crate::mapping::Mapping;
use crate::reading::{Fate, GatewayClock, Reading};
use crate::refusals::{Counted, Refusal};

/// Refusals that are shown.
const SHOWN: usize = 5;
/// Terminals that are told apart.
const MOST_TERMINALS: usize = 1_000_000;

/// What would become of a log.
#[derive(Debug, Default)]
pub struct Checked {
    /// Lines that were read.
    pub lines: u64,
    /// Lines that are no outcomes: empty, comments, or skipped by the mapping.
    pub skipped: u64,
    /// Lines that become outcomes.
    pub outcomes: u64,
    /// Of so many terminals; beyond a million, not all are told apart.
    pub terminals: usize,
    /// When the first and the last of them completed.
    pub first: Option<Timestamp>,
    /// See `first`.
    pub last: Option<Timestamp>,
    /// Lines that cannot be imported.
    pub refused: Counted,
    /// The first of them.
    pub first_refused: Vec<Refusal>,
    /// Values that would be left out, by field.
    pub left_out: BTreeMap<String, u64>,
    /// The first lines that become outcomes: number, and each field with its value.
    pub examples: Vec<(u64, Vec<(String, String)>)>,
    /// Whether the log ends in a line without an end, which would be left.
    pub has_unfinished: bool,
}

/// Reads a log to its end and sends nothing. `refuse` is told of every line that cannot be imported. Blocks.
///
/// # Errors
/// When the log cannot be read, or has not the columns that the mapping uses; or with what `refuse` returns.
pub fn check<E: From<LogError>>(
    mapping: &Arc<Mapping>,
    log: Log,
    examples: usize,
    mut refuse: impl FnMut(&Refusal) -> Result<(), E>,
) -> Result<Checked, E> {
    let mut reading = Reading::begin(log, Arc::clone(mapping), Place::default(), GatewayClock::default())?;
    let mut checked = Checked::default();
    let mut terminals = BTreeSet::new();
    loop {
        let line = reading.place().lines + 1;
        let refusal = match reading.next()? {
            None => break,
            Some(Fate::Skipped) => {
                checked.skipped += 1;
                None
            }
            Some(Fate::Refused(refusal)) => Some(refusal),
            Some(Fate::Attempt(attempt)) => {
                let completed = attempt.outcome.completion_time.and_then(|time| Timestamp::new(time.seconds, time.nanos).ok());
                let told = (checked.examples.len() < examples).then(|| mapping.told(&attempt));
                let mut left_out = Vec::new();
                match reading.prepare(*attempt, &mut left_out) {
                    Err(refusal) => Some(refusal),
                    Ok(prepared) => {
                        checked.outcomes += 1;
                        checked.first = checked.first.into_iter().chain(completed).min();
                        checked.last = checked.last.into_iter().chain(completed).max();
                        checked.examples.extend(told.map(|told| (line, told)));
                        for field in left_out {
                            *checked.left_out.entry(field).or_default() += 1;
                        }
                        if terminals.len() < MOST_TERMINALS {
                            terminals.insert(prepared.terminal);
                        }
                        None
                    }
                }
            }
        };
        checked.lines += 1;
        if let Some(refusal) = refusal {
            checked.refused.count(&refusal);
            refuse(&refusal)?;
            if checked.first_refused.len() < SHOWN {
                checked.first_refused.push(refusal);
            }
        }
    }
    checked.terminals = terminals.len();
    checked.has_unfinished = reading.has_unfinished;
    Ok(checked)
}
