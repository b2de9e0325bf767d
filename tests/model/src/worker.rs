//! A classifier's worker on the partition: what it does next.
//!
//! Every question and every insert is a step of its own, and so is every moment between a decision and what follows on it. A worker may be stopped
//! before each of them for as long as it likes. Mirrors `work` in `services/classifier/src/pipeline.rs`, and `deliver` and `settle` in
//! `crates/store/src/delivery.rs`.

use std::sync::Arc;

use faultline_stream::{Intent, Position};

use crate::clickhouse::{BatchId, Insert, Rows, Table, Verdict};
use crate::log::{Offsets, Seen};
use crate::variant::Variant;
use crate::{Committed, World};

/// Tokens of repeats, in the variant that gives them some of their own, are numbered from here.
const OTHER: u8 = 10;

/// A worker, and what it knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Worker {
    /// What is committed, as far as it knows.
    pub(crate) position: Arc<Position>,
    /// Batches of earlier logs that it has yet to count.
    pub(crate) uncounted: Vec<BatchId>,
    pub(crate) seen: Seen,
    pub(crate) step: Step,
    /// Whether it is certain that nobody else stores its batch. `CERTAIN_FOR` is shorter than the time after which a group gives up a silent member.
    pub(crate) is_certain: bool,
    /// Whether its partition was taken away and it has not noticed: only in [`Variant::EndsLate`].
    pub(crate) is_ending: bool,
}

/// Records that are stored together, judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Batch {
    pub(crate) id: BatchId,
    /// Those that are new.
    pub(crate) rows: Offsets,
    pub(crate) verdict: Verdict,
    /// Whether it is unknown what is stored of it.
    pub(crate) is_settled: bool,
    /// Whether it is of an earlier log, of which nothing else is known.
    pub(crate) is_found: bool,
}

/// What a worker does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// Asks what is committed.
    Start,
    /// Where a log is new: asks which batches are stored and not counted.
    Find,
    /// Commits where reading begins, without words: it is still the one to count them, and if it dies, the next finds a new log too.
    ClaimLog,
    /// Takes the next of them, if any is left.
    Count,
    /// Asks what was seen.
    Load,
    /// Takes records, as many as there are or as were intended, drops what was seen, and judges the rest.
    Gather,
    /// Commits that it is about to store a batch.
    Intend(Batch),
    /// Commits once more what was intended before: it is still the one to repeat it.
    Claim(Batch),
    /// Looks at the clock before it sends the rows of a new batch, those that are kept, or their sums: is it still certain that nobody else does?
    Clock(Batch, Insert),
    /// Sends an insert.
    Send(Batch, Insert),
    /// Waits for the answer.
    Wait(Batch, Insert),
    /// Asks which rows are stored; the number of the attempt that follows.
    AskRows(Batch, u8),
    /// Asks which of the stored rows are not kept for drill-downs.
    AskKept(Batch, u8),
    /// Asks whether the batch is counted.
    AskSums(Batch, u8),
    /// Asks for the rows as they are stored.
    ReadRows(Batch, u8),
    /// Commits that the batch is done.
    Pass(Batch),
}

impl Worker {
    pub(crate) fn new(position: Arc<Position>) -> Worker {
        Worker { position, uncounted: Vec::new(), seen: Seen::default(), step: Step::Start, is_certain: true, is_ending: false }
    }

    /// The log that it reads.
    pub(crate) fn log(&self) -> u8 {
        self.position.log.parse().unwrap_or_default()
    }

    /// Where a batch may end.
    pub(crate) fn ends(&self, log_end: u8, variant: Variant) -> std::ops::Range<u8> {
        match self.position.intent {
            Some(intent) if variant != Variant::RepeatsFreely => number(intent.last)..number(intent.last) + 1,
            _ => number(self.position.next)..log_end,
        }
    }

    /// Takes the records up to `last`.
    pub(crate) fn gather(&mut self, last: u8, verdict: Verdict) {
        let first = number(self.position.next);
        let rows = (first..=last).filter(|offset| self.seen.is_new(*offset)).collect();
        let is_begun = self.position.intent.is_some();
        let batch = Batch { id: BatchId { log: self.log(), first, last }, rows, verdict, is_settled: is_begun, is_found: false };
        self.step = match is_begun {
            true => Step::Claim(batch),
            false if rows.is_empty() => Step::Pass(batch),
            false => Step::Intend(batch),
        };
    }

    /// Its insert was answered.
    pub(crate) fn is_answered(&mut self, variant: Variant) {
        let Step::Wait(batch, insert) = self.step else { return };
        let attempt = insert.attempt % OTHER + 1;
        self.step = match (batch.is_settled, insert.table) {
            (false, Table::Outcomes) => Step::Clock(batch, batch.of_its_own(0, Table::Drilldown)),
            (false, Table::Drilldown) => Step::Clock(batch, batch.of_its_own(0, Table::Rollup)),
            (false, Table::Rollup) => Step::Pass(batch),
            (true, Table::Outcomes) if variant == Variant::TrustsTokens => Step::AskKept(batch, 0),
            (true, Table::Drilldown) if variant == Variant::TrustsTokensOfKept => Step::AskSums(batch, 0),
            (true, Table::Outcomes) => Step::AskRows(batch, attempt),
            (true, Table::Drilldown) => Step::AskKept(batch, attempt),
            (true, Table::Rollup) => Step::AskSums(batch, attempt),
        };
    }

    /// It is unknown what became of its insert.
    pub(crate) fn is_not_answered(&mut self) {
        if let Step::Wait(batch, _) = self.step {
            self.step = Step::AskRows(Batch { is_settled: true, ..batch }, 0);
        }
    }

    /// It finds that more time has passed than it may rely on.
    pub(crate) fn is_late(&mut self) {
        if let Step::Clock(batch, _) = self.step {
            self.step = Step::AskRows(Batch { is_settled: true, ..batch }, 0);
        }
    }
}

impl Step {
    /// Whether an insert follows from what is known already, so that it counts on tokens of before.
    pub(crate) fn is_amid_inserts(self) -> bool {
        match self {
            Step::AskRows(_, attempt) | Step::AskKept(_, attempt) | Step::AskSums(_, attempt) => attempt > 0,
            step => matches!(step, Step::Send(..) | Step::Wait(..) | Step::ReadRows(..)),
        }
    }
}

impl Batch {
    fn insert(&self, attempt: u8, table: Table, rows: Rows) -> Insert {
        Insert { batch: self.id, attempt, table, rows }
    }

    /// Rows as it judged them.
    fn judged(&self, rows: Offsets) -> Rows {
        std::array::from_fn(|verdict| if verdict == usize::from(self.verdict) { rows } else { Offsets::default() })
    }

    /// All of its rows, as it judged them.
    fn of_its_own(&self, attempt: u8, table: Table) -> Insert {
        self.insert(attempt, table, self.judged(self.rows))
    }
}

impl World {
    /// What the worker of a process does next. None: it can do nothing, but wait or be ended.
    pub(crate) fn work(&mut self, process: usize, variant: Variant) -> Option<()> {
        let worker = self.processes.get(process)?.worker.as_ref()?;
        let other = if variant == Variant::OtherToken { OTHER } else { 0 };
        let next = match worker.step {
            Step::Gather | Step::Wait(..) => return None,
            Step::Start => {
                let (position, next) = match &self.committed {
                    Committed::Position(position) => (Arc::clone(position), Step::Load),
                    Committed::Offset(next) => {
                        let next = i64::from(*next);
                        self.logs += 1;
                        (Arc::new(Position { log: self.logs.to_string(), next, intent: None }), Step::Find)
                    }
                };
                self.worker(process)?.position = position;
                next
            }
            Step::Find => {
                let uncounted = self.store.uncounted();
                let next = if uncounted.is_empty() { Step::Load } else { Step::ClaimLog };
                self.worker(process)?.uncounted = uncounted;
                next
            }
            Step::ClaimLog => {
                let next = number(worker.position.next);
                if variant != Variant::UnclaimedLog {
                    self.may_commit(process, variant)?;
                    self.committed = Committed::Offset(next);
                }
                Step::Count
            }
            Step::Count => match self.worker(process)?.uncounted.pop() {
                Some(id) => Step::AskKept(Batch { id, rows: Offsets::default(), verdict: 0, is_settled: true, is_found: true }, 0),
                None => Step::Load,
            },
            Step::Load => {
                let before = if variant == Variant::FindsItself { self.log_end } else { number(worker.position.next) };
                let seen = self.store.high_water(worker.log(), before);
                self.worker(process)?.seen = seen;
                Step::Gather
            }
            Step::Intend(batch) => {
                let intent = Intent { last: batch.id.last.into(), since_ms: 0 };
                if variant != Variant::NoIntent {
                    self.commit(process, variant, (batch.id.first, Some(intent)))?;
                }
                Step::Clock(batch, batch.of_its_own(0, Table::Outcomes))
            }
            Step::Claim(batch) => {
                if variant != Variant::Unclaimed {
                    self.commit(process, variant, (batch.id.first, worker.position.intent))?;
                }
                Step::AskRows(batch, 0)
            }
            Step::Clock(batch, insert) if variant == Variant::CommitsForClock => {
                if insert.table != Table::Outcomes {
                    self.commit(process, variant, (batch.id.first, worker.position.intent))?;
                }
                Step::Send(batch, insert)
            }
            Step::Clock(batch, insert) if worker.is_certain || variant == Variant::NeverLate => Step::Send(batch, insert),
            Step::Clock(..) => {
                self.worker(process)?.is_late();
                return Some(());
            }
            Step::Send(batch, insert) => {
                self.store.send(process, insert);
                Step::Wait(batch, insert)
            }
            Step::AskRows(batch, attempt) => {
                let stored = if variant == Variant::TrustsTokens { Offsets::default() } else { self.store.stored(batch.id) };
                let missing = batch.rows.without(stored);
                match missing.is_empty() {
                    true => Step::AskKept(batch, 0),
                    false => Step::Send(batch, batch.insert(attempt + other, Table::Outcomes, batch.judged(missing))),
                }
            }
            Step::AskKept(batch, attempt) => {
                let ([one, other_stored], [kept, other_kept]) =
                    (self.store.rows(batch.id, Table::Outcomes), self.store.rows(batch.id, Table::Drilldown));
                let kept = kept.or(other_kept);
                let missing = [one.without(kept), other_stored.without(kept)];
                match missing.iter().all(|missing| missing.is_empty()) {
                    true => Step::AskSums(batch, 0),
                    false => Step::Send(batch, batch.insert(attempt + other, Table::Drilldown, missing)),
                }
            }
            Step::AskSums(batch, _) if self.store.is_counted(batch.id) => Step::Pass(batch),
            Step::AskSums(batch, attempt) => Step::ReadRows(batch, attempt),
            Step::ReadRows(batch, attempt) if variant == Variant::CountsFromMemory => {
                Step::Send(batch, batch.of_its_own(attempt, Table::Rollup))
            }
            Step::ReadRows(batch, attempt) => match self.store.rows(batch.id, Table::Outcomes) {
                [one, other] if one.or(other).is_empty() => Step::Pass(batch),
                stored => Step::Send(batch, batch.insert(attempt + other, Table::Rollup, stored)),
            },
            Step::Pass(batch) if batch.is_found => Step::Count,
            Step::Pass(batch) => {
                self.commit(process, variant, (batch.id.last + 1, None))?;
                Step::Gather
            }
        };
        self.worker(process)?.step = next;
        Some(())
    }

    /// Commits a position, if the broker takes it. Mirrors `crates/stream/src/source.rs`: a worker ends with its assignment, and the broker refuses
    /// whom the group has given up.
    fn commit(&mut self, process: usize, variant: Variant, (next, intent): (u8, Option<Intent>)) -> Option<()> {
        self.may_commit(process, variant)?;
        let worker = self.worker(process)?;
        worker.position = Arc::new(Position { log: worker.position.log.clone(), next: next.into(), intent });
        self.committed = Committed::Position(Arc::clone(&worker.position));
        Some(())
    }

    fn may_commit(&mut self, process: usize, variant: Variant) -> Option<()> {
        let is_bound = !self.worker(process)?.is_ending;
        let is_fenced = !self.processes.get(process)?.is_member && variant != Variant::Unfenced;
        (is_bound && !is_fenced).then_some(())
    }

    pub(crate) fn worker(&mut self, process: usize) -> Option<&mut Worker> {
        self.processes.get_mut(process)?.worker.as_mut()
    }
}

/// An offset of Kafka's, as the model has it.
pub(crate) fn number(offset: i64) -> u8 {
    u8::try_from(offset).unwrap_or(u8::MAX)
}
