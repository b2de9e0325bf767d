//! What must always hold, what must come true in the end, and what must be met on the way, so that something was looked at.

use stateright::Property;

use crate::clickhouse::{Insert, Table};
use crate::log::{RECORDS, record};
use crate::worker::{Step, Worker, number};
use crate::{Committed, Protocol, World};

pub(crate) const STORED_ONCE: &str = "no event is stored twice";
pub(crate) const KEPT_ONCE: &str = "no event is kept for drill-downs twice";
pub(crate) const COUNTED_ONCE: &str = "no event is counted twice";
pub(crate) const NONE_LOST: &str = "no event is lost";
pub(crate) const PASSED_STORED: &str = "what was passed is stored";
pub(crate) const KEPT_AS_STORED: &str = "what was passed is kept for drill-downs as it is stored";
pub(crate) const COUNTED_AS_STORED: &str = "what was passed is counted as it is stored";

/// All of them.
pub(crate) fn all() -> Vec<Property<Protocol>> {
    vec![
        Property::always(STORED_ONCE, |_, world: &World| world.is_there_once(Table::Outcomes)),
        Property::always(KEPT_ONCE, |_, world: &World| world.is_there_once(Table::Drilldown)),
        Property::always(COUNTED_ONCE, |_, world: &World| world.is_there_once(Table::Rollup)),
        Property::always(NONE_LOST, |_, world: &World| {
            world.events().all(|offsets| world.is_stored(&offsets) || world.comes_again(&offsets))
        }),
        Property::always(PASSED_STORED, |_, world: &World| (0..world.committed.next()).all(|offset| world.is_stored(&same_event(offset)))),
        Property::always(KEPT_AS_STORED, |_, world: &World| world.is_as_stored(Table::Drilldown)),
        Property::always(COUNTED_AS_STORED, |_, world: &World| world.is_as_stored(Table::Rollup)),
        Property::eventually("in the end, all is passed", World::is_done),
        Property::sometimes("a server has a token without its rows, and they are stored all the same", |_, world: &World| {
            world.parts(Table::Outcomes).any(|part| part.attempt > 0)
        }),
        Property::sometimes("the same of those that are kept", |_, world: &World| {
            world.parts(Table::Drilldown).any(|part| part.attempt > 0)
        }),
        Property::sometimes("the same of sums", |_, world: &World| world.parts(Table::Rollup).any(|part| part.attempt > 0)),
        Property::sometimes("rows land after they were found missing", |_, world: &World| {
            world.workers().any(|worker| match worker.step {
                Step::Send(batch, Insert { table: Table::Outcomes, rows: [one, other], .. }) if batch.is_settled => {
                    world.store.stored(batch.id).iter().any(|offset| one.or(other).contains(offset))
                }
                _ => false,
            })
        }),
        Property::sometimes("one that was given up sends rows that its successor has left behind", |_, world: &World| {
            world.workers().any(|worker| match worker.step {
                Step::Send(batch, insert) => {
                    insert.table == Table::Outcomes && !worker.is_certain && world.committed.next() > batch.id.last
                }
                _ => false,
            })
        }),
        Property::sometimes("one that was given up sends sums that are there", |_, world: &World| {
            world.workers().any(|worker| match worker.step {
                Step::Send(batch, insert) => insert.table == Table::Rollup && !batch.is_settled && world.store.is_counted(batch.id),
                _ => false,
            })
        }),
        Property::sometimes("half of an insert is stored when its server dies", |_, world: &World| {
            world.store.requests.is_empty()
                && world.workers().any(|worker| match worker.step {
                    Step::AskRows(batch, _) => {
                        let stored = world.store.stored(batch.id);
                        !stored.is_empty() && !batch.rows.without(stored).is_empty()
                    }
                    _ => false,
                })
        }),
        Property::sometimes("the halves of a batch are judged differently, and counted so", |_, world: &World| {
            world.parts(Table::Rollup).any(|part| part.rows.iter().all(|rows| !rows.is_empty()))
        }),
        Property::sometimes("what was seen comes from what was kept and from rows", |_, world: &World| {
            let kept = world.store.kept;
            kept.reach > 0 && world.workers().any(|worker| worker.step == Step::Load && number(worker.position.next) > kept.reach)
        }),
    ]
}

/// Offsets of all records of the event that a record is of.
fn same_event(offset: u8) -> Vec<u8> {
    let of = |offset| (record(offset).spool, record(offset).sequence);
    (0..).zip(RECORDS).map(|(offset, _)| offset).filter(|other| of(*other) == of(offset)).collect()
}

impl World {
    fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.processes.iter().filter_map(|process| process.worker.as_ref())
    }

    fn parts(&self, table: Table) -> impl Iterator<Item = &Insert> {
        self.store.parts.iter().filter(move |part| part.table == table)
    }

    /// The events of the log, as offsets of their records.
    fn events(&self) -> impl Iterator<Item = Vec<u8>> {
        (0..self.log_end).map(same_event).filter(|offsets| offsets.len() == 1 || offsets.first() < offsets.last())
    }

    /// By verdict, how often a table has a record.
    fn verdicts(&self, offset: u8, table: Table) -> [usize; 2] {
        std::array::from_fn(|verdict| {
            self.parts(table).filter(|part| part.rows.get(verdict).is_some_and(|offsets| offsets.contains(offset))).count()
        })
    }

    fn copies(&self, offsets: &[u8], table: Table) -> usize {
        offsets.iter().flat_map(|offset| self.verdicts(*offset, table)).sum()
    }

    /// Whether a table has each event once at most.
    fn is_there_once(&self, table: Table) -> bool {
        self.events().all(|offsets| self.copies(&offsets, table) <= 1)
    }

    /// Whether a table has what was passed as it is stored.
    fn is_as_stored(&self, table: Table) -> bool {
        (0..self.committed.next()).all(|offset| self.verdicts(offset, Table::Outcomes) == self.verdicts(offset, table))
    }

    fn is_stored(&self, offsets: &[u8]) -> bool {
        self.copies(offsets, Table::Outcomes) > 0
    }

    /// Whether whoever comes next takes one of the records, of an event that is not stored, for new.
    fn comes_again(&self, offsets: &[u8]) -> bool {
        let next = self.committed.next();
        // No log has this number where an offset was set by hand: then rows of all of them are seen.
        let log = match &self.committed {
            Committed::Position(position) => position.log.parse().unwrap_or_default(),
            Committed::Offset(_) => u8::MAX,
        };
        let mut seen = self.store.high_water(log, next);
        (next..self.log_end).any(|offset| seen.is_new(offset) && offsets.contains(&offset))
    }

    fn is_done(protocol: &Protocol, world: &World) -> bool {
        world.committed.next() == protocol.bounds.records + protocol.bounds.later_records
    }
}
