//! A model of how a batch gets into ClickHouse once, whatever dies on the way; `stateright` visits every state that it can be in.
//!
//! ```text
//!               ┌─ process 0: worker ─┐     inserts, under way      ┌─ rows, a part for each week; those that are kept for drill-downs, too
//!  log ─────────┤                     ├──▶ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─▶├─ sums, with a ledger row
//!  (grows)      └─ process 1: worker ─┘     applied part by part,   ├─ tokens, written before their part
//!                 │ gather, intend,   ▲     at any later time       └─ what was seen, kept now and then
//!                 ▼ pass              │                                 │
//!  what is committed: position, intent└──── answers, questions ◀────────┘
//!
//!  worker:  start ─▶ load ─▶ gather ─▶ intend ─▶ clock ─▶ send rows ─▶ clock ─▶ send what is kept ─▶ clock ─▶ send sums ─▶ pass ─▶ gather ...
//!            │       ▲       │ begun before      │ late      │ no answer  │ late      │ no answer    │ late    │ no answer ▲
//!    new log │       │       └─▶ claim ─▶ which rows are stored? ◀────────┴───────────┴──────────────┴─────────┘           │
//!            ▼       │                      ├─▶ send the missing, ask again                                                │
//!      what is not   │                      └─▶ which are kept? ─▶ send the missing, ask again                             │
//!      counted? ─▶ claim, count                  └─▶ is it counted? ─▶ read, send sums, ask again ─────────────────────────┘
//! ```
//!
//! What can happen, between any two steps: records arrive; rules change; a process dies, or its partition is taken from it; the group gives up a process
//! that is stopped, which goes on later as if nothing had been (and nothing says when); a connection breaks, and what was sent over it is applied all
//! the same; the server dies, in the middle of an insert or between a token and its rows.
//!
//! What is left out, and why:
//! - One partition, since an insert holds one. A log begins anew where nothing is committed yet; that a topic is made again is left out.
//! - A process that dies and one whose partition is taken away differ in nothing that others could see: the worker ends, what it sent is under way.
//! - Time is one bit: whether the group can have given up the worker since it last looked (`CERTAIN_FOR`).
//! - Sums still know which rows they are of. A server that is killed keeps what it has published; power that fails is another matter.
//! - Records that cannot be read, and dead letters, which may be written twice; health samples, which are the same rows however often they are.
//!
//! [`Variant`] leaves out one thing at a time, for each of which a counterexample must be found. Two of them are what the protocol was before this
//! model was made: [`Variant::Unclaimed`] and [`Variant::UnclaimedLog`]; and so, nearly, is [`Variant::EndsLate`].

mod clickhouse;
mod log;
mod properties;
mod report;
#[cfg(test)]
mod tests;
mod variant;
mod worker;

use std::sync::Arc;

use faultline_stream::Position;
use stateright::{Model, Property};

use crate::clickhouse::{Store, Verdict};
use crate::log::RECORDS;
pub use crate::report::{Finding, Report};
pub use crate::variant::{Bounds, Variant};
use crate::worker::{Step, Worker};

/// The protocol, and how far it is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    /// As it is, or with one thing left out.
    pub variant: Variant,
    /// How far is looked.
    pub bounds: Bounds,
}

/// Everything that there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// Offset behind the last record.
    log_end: u8,
    /// By which rules is judged now.
    rules: Verdict,
    /// Faults that may still happen.
    faults: u8,
    committed: Committed,
    /// Logs that were named.
    logs: u8,
    processes: [Process; 2],
    store: Store,
}

/// What is committed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Committed {
    /// What a worker committed, as it is in Kafka: an offset with words.
    Position(Arc<Position>),
    /// An offset alone: nothing was committed yet, or it was set by hand.
    Offset(u8),
}

/// A classifier. If it dies, another takes its place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Process {
    /// Whether the broker takes its commits. A process that was given up does not know.
    is_member: bool,
    /// Whether the partition is its, as the group sees it.
    is_holder: bool,
    worker: Option<Worker>,
}

/// What can happen next. Processes are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A record arrives.
    Arrive,
    /// From now on, it is judged otherwise.
    ChangeRules,
    /// The group gives the partition to a process.
    Assign(usize),
    /// A process dies, or its partition is taken away.
    End(usize),
    /// A process is silent for so long that the group gives it up. It does not know.
    GiveUp(usize),
    /// A process that was given up notices, and joins again.
    Rejoin(usize),
    /// A worker takes records up to this offset.
    Gather(usize, u8),
    /// A worker does what comes next.
    Work(usize),
    /// A worker finds that more time has passed than it may rely on, though nobody has given it up.
    Dawdle(usize),
    /// A worker keeps what was seen.
    Keep(usize),
    /// The server applies the part of a week of a request.
    Apply(usize, usize),
    /// The connection of a process breaks while it waits.
    Cut(usize),
    /// The server dies; of the part of a week of a request, it has written the token.
    Kill(Option<(usize, usize)>),
    /// The server forgets tokens.
    Forget,
    /// While nobody works and nothing is under way, somebody sets the committed offset back.
    SetByHand(u8),
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let position = Position { log: "0".into(), next: 0, intent: None };
        vec![World {
            log_end: self.bounds.records,
            rules: 0,
            faults: self.bounds.faults,
            committed: if self.bounds.is_fresh { Committed::Offset(0) } else { Committed::Position(Arc::new(position)) },
            logs: 0,
            processes: Default::default(),
            store: Store::default(),
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if usize::from(world.log_end) < RECORDS.len().min(usize::from(self.bounds.records + self.bounds.later_records)) {
            actions.push(Action::Arrive);
        }
        if world.rules == 0 {
            actions.push(Action::ChangeRules);
        }
        let is_held = world.processes.iter().any(|process| process.is_holder);
        for (number, process) in world.processes.iter().enumerate() {
            if !process.is_member && process.worker.is_some() {
                actions.push(Action::Rejoin(number));
            }
            let Some(worker) = &process.worker else {
                if !is_held {
                    actions.push(Action::Assign(number));
                }
                continue;
            };
            match worker.step {
                Step::Gather => {
                    actions.extend(worker.ends(world.log_end, self.variant).map(|last| Action::Gather(number, last)));
                    if worker.position.next > world.store.kept.reach.into() {
                        actions.push(Action::Keep(number));
                    }
                }
                Step::Wait(..) => {}
                Step::Clock(..) if worker.is_certain => actions.extend([Action::Work(number), Action::Dawdle(number)]),
                _ => actions.push(Action::Work(number)),
            }
            if world.faults > 0 {
                actions.push(Action::End(number));
                if process.is_holder {
                    actions.push(Action::GiveUp(number));
                }
                if matches!(worker.step, Step::Wait(..)) {
                    actions.push(Action::Cut(number));
                }
            }
        }
        for (number, request) in world.store.requests.iter().enumerate() {
            actions.extend(request.left().map(|week| Action::Apply(number, week)));
            if world.faults > 0 {
                actions.extend(request.left().map(|week| Action::Kill(Some((number, week)))));
            }
        }
        if world.faults > 0 && !world.store.requests.is_empty() {
            actions.push(Action::Kill(None));
        }
        let is_idle = world.store.requests.is_empty() && world.processes.iter().all(|process| process.worker.is_none());
        if self.variant == Variant::SetByHand && is_idle && world.logs == 0 {
            actions.extend((0..=world.committed.next()).map(Action::SetByHand));
        }
        if self.may_forget(world) {
            actions.push(Action::Forget);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        if matches!(action, Action::End(_) | Action::GiveUp(_) | Action::Cut(_) | Action::Kill(_)) {
            next.faults -= 1;
        }
        match action {
            Action::Arrive => next.log_end += 1,
            Action::ChangeRules => next.rules = 1,
            Action::Assign(process) => {
                let worker = Worker::new(Arc::new(Position { log: String::new(), next: 0, intent: None }));
                *next.processes.get_mut(process)? = Process { is_member: true, is_holder: true, worker: Some(worker) };
            }
            Action::End(process) => {
                next.processes.get_mut(process)?.is_holder = false;
                match self.variant {
                    Variant::Unbound => {}
                    Variant::EndsLate | Variant::CommitsForClock => next.end_late(process)?,
                    _ => next.end(process)?,
                }
            }
            Action::GiveUp(process) => {
                let process = next.processes.get_mut(process)?;
                (process.is_member, process.is_holder) = (false, false);
                process.worker.as_mut()?.is_certain = false;
            }
            Action::Rejoin(process) => {
                next.processes.get_mut(process)?.is_member = true;
                if self.variant != Variant::Unbound {
                    next.end(process)?;
                }
            }
            Action::Gather(process, last) => {
                let rules = next.rules;
                next.worker(process)?.gather(last, rules);
            }
            Action::Work(process) => {
                next.work(process, self.variant)?;
                next.end_if_it_waits(process);
            }
            Action::Dawdle(process) => next.worker(process)?.is_late(),
            Action::Keep(process) => {
                let worker = next.processes.get(process)?.worker.as_ref()?;
                next.store.keep(worker.seen, worker::number(worker.position.next));
            }
            Action::Apply(request, week) => {
                if let Some(process) = next.store.apply(request, week) {
                    next.worker(process)?.is_answered(self.variant);
                    next.end_if_it_waits(process);
                }
            }
            Action::Cut(process) => {
                next.store.forget_sender(process);
                next.worker(process)?.is_not_answered();
            }
            Action::Kill(cut) => {
                next.store.kill(cut);
                next.processes.iter_mut().filter_map(|process| process.worker.as_mut()).for_each(Worker::is_not_answered);
            }
            Action::Forget => next.store.tokens.clear(),
            Action::SetByHand(offset) => next.committed = Committed::Offset(offset),
        }
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Protocol>> {
        properties::all()
    }
}

impl Protocol {
    /// Whether the server may forget its tokens. It does so by their number, and is set to remember more than come while one batch is stored.
    fn may_forget(&self, world: &World) -> bool {
        let is_used = || {
            let workers = world.processes.iter().filter_map(|process| process.worker.as_ref());
            !world.store.requests.is_empty() || workers.into_iter().any(|worker| worker.step.is_amid_inserts())
        };
        !world.store.tokens.is_empty() && (self.variant == Variant::ShortWindow || self.bounds.forgets && !is_used())
    }
}

impl Committed {
    /// Offset of the first record that is not done.
    fn next(&self) -> u8 {
        match self {
            Committed::Position(position) => worker::number(position.next),
            Committed::Offset(next) => *next,
        }
    }
}

impl World {
    /// The worker of a process ends, wherever it is.
    fn end(&mut self, process: usize) -> Option<()> {
        self.store.forget_sender(process);
        let process = self.processes.get_mut(process)?;
        process.is_member = true;
        process.worker = None;
        Some(())
    }

    /// The same, but one that waits for an answer may still take it.
    fn end_late(&mut self, process: usize) -> Option<()> {
        let worker = self.worker(process)?;
        worker.is_ending = true;
        if !matches!(worker.step, Step::Wait(..)) {
            self.end(process)?;
        }
        Some(())
    }

    /// Ends a worker that should have ended, when it comes to wait again.
    fn end_if_it_waits(&mut self, process: usize) {
        let Some(worker) = self.worker(process) else { return };
        if worker.is_ending && !matches!(worker.step, Step::Clock(..) | Step::Send(..)) {
            let _ = self.end(process);
        }
    }
}
