//! What must always hold, what must come true in the end, and what must be met on the way, so that something was looked at.

use stateright::Property;

use crate::clickhouse::{Content, Insert};
use crate::log::{RECORDS, record};
use crate::worker::{Step, Worker, number};
use crate::{Committed, Protocol, World};

pub(crate) const STORED_ONCE: &str = "no event is stored twice";
pub(crate) const COUNTED_ONCE: &str = "no event is counted twice";
pub(crate) const NONE_LOST: &str = "no event is lost";
pub(crate) const PASSED_STORED: &str = "what was passed is stored";
pub(crate) const COUNTED_AS_STORED: &str = "what was passed is counted as it is stored";

/// All of them.
pub(crate) fn all() -> Vec<Property<Protocol>> {
    vec![
        Property::always(STORED_ONCE, |_, world: &World| world.events().all(|offsets| world.copies(&offsets, Content::is_rows) <= 1)),
        Property::always(COUNTED_ONCE, |_, world: &World| world.events().all(|offsets| world.copies(&offsets, is_sums) <= 1)),
        Property::always(NONE_LOST, |_, world: &World| {
            world.events().all(|offsets| world.is_stored(&offsets) || world.comes_again(&offsets))
        }),
        Property::always(PASSED_STORED, |_, world: &World| (0..world.committed.next()).all(|offset| world.is_stored(&same_event(offset)))),
        Property::always(COUNTED_AS_STORED, |_, world: &World| {
            (0..world.committed.next()).all(|offset| world.verdicts(offset, Content::is_rows) == world.verdicts(offset, is_sums))
        }),
        Property::eventually("in the end, all is passed", World::is_done),
        Property::sometimes("a server has a token without its rows, and they are stored all the same", |_, world: &World| {
            world.parts(Content::is_rows).any(|part| part.attempt > 0)
        }),
        Property::sometimes("the same of sums", |_, world: &World| world.parts(is_sums).any(|part| part.attempt > 0)),
        Property::sometimes("rows land after they were found missing", |_, world: &World| {
            world.workers().any(|worker| match worker.step {
                Step::Send(batch, Insert { content: Content::Rows(missing, _), .. }) if batch.is_settled => {
                    world.store.stored(batch.id).iter().any(|offset| missing.contains(offset))
                }
                _ => false,
            })
        }),
        Property::sometimes("one that was given up sends rows that its successor has left behind", |_, world: &World| {
            world.workers().any(|worker| match worker.step {
                Step::Send(batch, insert) => insert.content.is_rows() && !worker.is_certain && world.committed.next() > batch.id.last,
                _ => false,
            })
        }),
        Property::sometimes("one that was given up sends sums that are there", |_, world: &World| {
            world.workers().any(|worker| match worker.step {
                Step::Send(batch, insert) => is_sums(insert.content) && !batch.is_settled && world.store.is_counted(batch.id),
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
            world.parts(is_sums).any(|part| matches!(part.content, Content::Sums([one, other]) if !one.is_empty() && !other.is_empty()))
        }),
        Property::sometimes("what was seen comes from what was kept and from rows", |_, world: &World| {
            let kept = world.store.kept;
            kept.reach > 0 && world.workers().any(|worker| worker.step == Step::Load && number(worker.position.next) > kept.reach)
        }),
    ]
}

fn is_sums(content: Content) -> bool {
    !content.is_rows()
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

    fn parts(&self, is_wanted: fn(Content) -> bool) -> impl Iterator<Item = &Insert> {
        self.store.parts.iter().filter(move |part| is_wanted(part.content))
    }

    /// The events of the log, as offsets of their records.
    fn events(&self) -> impl Iterator<Item = Vec<u8>> {
        (0..self.log_end).map(same_event).filter(|offsets| offsets.len() == 1 || offsets.first() < offsets.last())
    }

    /// By verdict, how often a record is stored or counted.
    fn verdicts(&self, offset: u8, is_wanted: fn(Content) -> bool) -> [usize; 2] {
        std::array::from_fn(|verdict| {
            let parts = self.parts(is_wanted).filter(|part| match part.content {
                Content::Rows(offsets, of) => usize::from(of) == verdict && offsets.contains(offset),
                Content::Sums(sums) => sums.get(verdict).is_some_and(|offsets| offsets.contains(offset)),
            });
            parts.count()
        })
    }

    fn copies(&self, offsets: &[u8], is_wanted: fn(Content) -> bool) -> usize {
        offsets.iter().flat_map(|offset| self.verdicts(*offset, is_wanted)).sum()
    }

    fn is_stored(&self, offsets: &[u8]) -> bool {
        self.copies(offsets, Content::is_rows) > 0
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
