//! Where events wait until they are acknowledged.
//!
//! [`Spool`] is what a terminal needs of such a place, whether it survives a restart or not; [`MemorySpool`] is one that does not. What it promises:
//! a sequence is used once, an event stays until it is settled, and what could not stay is declared.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use faultline_proto::ingest::v1::{DropReason, DroppedRange};
use faultline_proto::terminal::v1::TerminalProfile;

use crate::clock::BootTime;

/// An event before it has its sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEntry {
    /// When the attempt completed.
    pub completed: BootTime,
    /// The profile under which it did.
    pub profile: Arc<TerminalProfile>,
    /// The outcome, encoded (`faultline.outcome.v1.Outcome`). It never changes, so a repeat is the same bytes.
    pub outcome: Bytes,
}

/// An event that waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its place in the spool.
    pub sequence: u64,
    /// When the attempt completed; nothing where that was before the terminal last started.
    pub completed: Option<BootTime>,
    /// The profile under which it did.
    pub profile: Arc<TerminalProfile>,
    /// The outcome, encoded.
    pub outcome: Bytes,
}

/// Most events, and most bytes of their outcomes, of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Events.
    pub events: usize,
    /// Bytes.
    pub bytes: usize,
}

/// How much waits in a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Events.
    pub events: usize,
    /// Bytes of their outcomes.
    pub bytes: usize,
    /// When the oldest completed; nothing where none waits, or that was before the terminal last started.
    pub oldest: Option<BootTime>,
    /// Sequence of the oldest; where none waits, of the next that will be appended.
    pub next: u64,
}

/// Why an event cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// It alone is more than the spool may hold.
    #[error("an outcome of {bytes} bytes is more than the spool may hold ({limit} bytes)")]
    TooLarge {
        /// Bytes of the outcome.
        bytes: usize,
        /// Bytes that the spool may hold.
        limit: usize,
    },
    /// The storage failed.
    #[error("the spool's storage")]
    Storage(#[from] std::io::Error),
}

/// A place where the events of one terminal wait, oldest first.
pub trait Spool: Send {
    /// The spool's identity (`OutcomeBatch.spool_id`): never 0, and drawn anew for a spool that does not know its former sequences.
    fn id(&self) -> u64;

    /// Keeps an event and returns its sequence: the first is 1, and each is greater by one than the one before, dropped or not. Makes room by dropping the
    /// oldest that is not lent.
    ///
    /// # Errors
    /// When the event cannot be kept. No sequence is used then.
    fn append(&mut self, entry: NewEntry) -> Result<u64, SpoolError>;

    /// The oldest events, as many as `limits` allows and at least one, all of one profile. They stay, and are not dropped to make room, until they
    /// are settled, given up, or others are lent.
    fn lend(&mut self, limits: Limits) -> Vec<Entry>;

    /// Forgets every event up to this sequence.
    fn settle(&mut self, through: u64);

    /// Forgets every event up to this sequence, and remembers that they are lost.
    fn give_up(&mut self, through: u64, reason: DropReason);

    /// The first ranges of events that were lost and not declared yet, `most` at most.
    fn dropped(&self, most: usize) -> Vec<DroppedRange>;

    /// Forgets the events of these ranges, which [`Spool::dropped`] gave: they were declared. A range may have grown meanwhile; what is new of it stays.
    fn declared(&mut self, ranges: &[DroppedRange]);

    /// How much waits.
    fn depth(&self) -> Depth;
}

/// A spool that ends with the process.
#[derive(Debug)]
pub struct MemorySpool {
    id: u64,
    last_sequence: u64,
    entries: VecDeque<Entry>,
    /// How many of the oldest are lent.
    lent: usize,
    bytes: usize,
    limits: Limits,
    dropped: VecDeque<DroppedRange>,
}

impl MemorySpool {
    /// A new spool that holds at most so much (at least one event).
    #[must_use]
    pub fn new(limits: Limits) -> MemorySpool {
        let id = fastrand::u64(1..);
        MemorySpool { id, last_sequence: 0, entries: VecDeque::new(), lent: 0, bytes: 0, limits, dropped: VecDeque::new() }
    }

    /// Takes away the entry at `place`.
    fn remove(&mut self, place: usize) -> Option<Entry> {
        let entry = self.entries.remove(place)?;
        self.bytes -= entry.outcome.len();
        if place < self.lent {
            self.lent -= 1;
        }
        Some(entry)
    }

    fn lose(&mut self, place: usize, reason: DropReason) {
        let Some(sequence) = self.remove(place).map(|entry| entry.sequence) else { return };
        match self.dropped.back_mut() {
            Some(range) if range.reason == i32::from(reason) && range.last_sequence + 1 == sequence => range.last_sequence = sequence,
            _ => self.dropped.push_back(DroppedRange { first_sequence: sequence, last_sequence: sequence, reason: reason.into() }),
        }
    }

    fn holds_through(&self, through: u64) -> bool {
        self.entries.front().is_some_and(|entry| entry.sequence <= through)
    }
}

impl Default for MemorySpool {
    /// 10,000 events and 4 MiB: some days of a busy shop.
    fn default() -> Self {
        MemorySpool::new(Limits { events: 10_000, bytes: 4 * 1024 * 1024 })
    }
}

impl Spool for MemorySpool {
    fn id(&self) -> u64 {
        self.id
    }

    fn append(&mut self, entry: NewEntry) -> Result<u64, SpoolError> {
        let size = entry.outcome.len();
        if size > self.limits.bytes {
            return Err(SpoolError::TooLarge { bytes: size, limit: self.limits.bytes });
        }
        // What is lent may be more than the limits leave; then there is more than they say for a while, by what is lent at most.
        while self.entries.len() > self.lent && (self.entries.len() >= self.limits.events.max(1) || self.bytes + size > self.limits.bytes) {
            self.lose(self.lent, DropReason::SpoolFull);
        }
        self.last_sequence += 1;
        self.bytes += size;
        let NewEntry { completed, profile, outcome } = entry;
        self.entries.push_back(Entry { sequence: self.last_sequence, completed: Some(completed), profile, outcome });
        Ok(self.last_sequence)
    }

    fn lend(&mut self, limits: Limits) -> Vec<Entry> {
        let mut bytes = 0;
        let mut lent: Vec<Entry> = Vec::new();
        for entry in self.entries.iter().take(limits.events.max(1)) {
            bytes += entry.outcome.len();
            if lent.first().is_some_and(|first| bytes > limits.bytes || first.profile != entry.profile) {
                break;
            }
            lent.push(entry.clone());
        }
        self.lent = lent.len();
        lent
    }

    fn settle(&mut self, through: u64) {
        while self.holds_through(through) {
            self.remove(0);
        }
    }

    fn give_up(&mut self, through: u64, reason: DropReason) {
        while self.holds_through(through) {
            self.lose(0, reason);
        }
    }

    fn dropped(&self, most: usize) -> Vec<DroppedRange> {
        self.dropped.iter().take(most).copied().collect()
    }

    fn declared(&mut self, ranges: &[DroppedRange]) {
        for declared in ranges {
            match self.dropped.front_mut() {
                Some(range) if range.last_sequence <= declared.last_sequence => {
                    self.dropped.pop_front();
                }
                Some(range) => range.first_sequence = range.first_sequence.max(declared.last_sequence + 1),
                None => {}
            }
        }
    }

    fn depth(&self) -> Depth {
        let oldest = self.entries.front();
        Depth {
            events: self.entries.len(),
            bytes: self.bytes,
            oldest: oldest.and_then(|entry| entry.completed),
            next: oldest.map_or(self.last_sequence + 1, |entry| entry.sequence),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MANY: Limits = Limits { events: 100, bytes: 1000 };

    fn entry(size: usize, firmware: &str) -> NewEntry {
        NewEntry {
            completed: BootTime(Duration::from_secs(1)),
            profile: Arc::new(TerminalProfile { firmware: firmware.into(), ..TerminalProfile::default() }),
            outcome: Bytes::from(vec![0; size]),
        }
    }

    fn spool(limits: Limits, events: usize) -> MemorySpool {
        let mut spool = MemorySpool::new(limits);
        for _ in 0..events {
            spool.append(entry(10, "1")).unwrap();
        }
        spool
    }

    fn lend(spool: &mut MemorySpool, limits: Limits) -> Vec<u64> {
        spool.lend(limits).iter().map(|entry| entry.sequence).collect()
    }

    fn range(first: u64, last: u64, reason: DropReason) -> DroppedRange {
        DroppedRange { first_sequence: first, last_sequence: last, reason: reason.into() }
    }

    #[test]
    fn events_stay_until_they_are_settled_and_sequences_go_on() {
        let mut spool = spool(MANY, 3);
        assert_ne!(spool.id(), 0);
        assert_eq!(lend(&mut spool, Limits { events: 2, ..MANY }), [1, 2]);
        assert_eq!(lend(&mut spool, MANY), [1, 2, 3]);
        spool.settle(2);
        assert_eq!(lend(&mut spool, MANY), [3]);
        assert_eq!(spool.depth().next, 3);
        spool.settle(3);
        assert_eq!(spool.depth(), Depth { events: 0, bytes: 0, oldest: None, next: 4 });
        assert_eq!(spool.append(entry(10, "1")).unwrap(), 4);
    }

    #[test]
    fn a_batch_is_bounded_in_bytes_and_never_empty() {
        let mut spool = spool(MANY, 3);
        assert_eq!(lend(&mut spool, Limits { bytes: 20, ..MANY }), [1, 2]);
        assert_eq!(lend(&mut spool, Limits { bytes: 5, ..MANY }), [1]);
        assert_eq!(lend(&mut spool, Limits { events: 0, bytes: 0 }), [1]);
    }

    #[test]
    fn a_batch_is_of_one_profile() {
        let mut spool = spool(MANY, 2);
        spool.append(entry(10, "2")).unwrap();
        assert_eq!(lend(&mut spool, MANY), [1, 2]);
        spool.settle(2);
        assert_eq!(lend(&mut spool, MANY), [3]);
    }

    #[test]
    fn the_oldest_makes_room_unless_it_is_lent() {
        let mut spool = spool(Limits { events: 4, bytes: 1000 }, 4);
        assert_eq!(lend(&mut spool, Limits { events: 2, ..MANY }), [1, 2]);
        for _ in 0..2 {
            spool.append(entry(10, "1")).unwrap();
        }
        assert_eq!(spool.dropped(16), [range(3, 4, DropReason::SpoolFull)]);
        assert_eq!(lend(&mut spool, MANY), [1, 2, 5, 6]);
        // All of them are lent: one more for a while.
        spool.append(entry(10, "1")).unwrap();
        assert_eq!(spool.depth().events, 5);
        spool.settle(2);
        spool.append(entry(10, "1")).unwrap();
        assert_eq!(lend(&mut spool, MANY), [5, 6, 7, 8]);
    }

    #[test]
    fn bytes_are_bounded_too() {
        let mut spool = spool(Limits { events: 100, bytes: 35 }, 3);
        spool.append(entry(20, "1")).unwrap();
        assert_eq!(spool.depth().bytes, 30);
        assert_eq!(spool.dropped(16), [range(1, 2, DropReason::SpoolFull)]);
        let error = spool.append(entry(36, "1")).unwrap_err();
        assert_eq!(error.to_string(), "an outcome of 36 bytes is more than the spool may hold (35 bytes)");
        assert_eq!(lend(&mut spool, MANY), [3, 4]);
    }

    #[test]
    fn what_is_lost_is_remembered_by_reason_until_it_is_declared() {
        let mut spool = spool(Limits { events: 3, bytes: 1000 }, 5);
        spool.give_up(4, DropReason::Refused);
        assert_eq!(spool.dropped(16), [range(1, 2, DropReason::SpoolFull), range(3, 4, DropReason::Refused)]);
        assert_eq!(spool.dropped(1), [range(1, 2, DropReason::SpoolFull)]);
        spool.declared(&[range(1, 2, DropReason::SpoolFull)]);
        assert_eq!(spool.dropped(16), [range(3, 4, DropReason::Refused)]);
        spool.declared(&[range(3, 4, DropReason::Refused)]);
        assert_eq!(spool.dropped(16), []);
    }

    #[test]
    fn a_range_that_grew_is_declared_as_far_as_it_was_sent() {
        let mut spool = spool(Limits { events: 4, bytes: 1000 }, 4);
        assert_eq!(lend(&mut spool, Limits { events: 2, ..MANY }), [1, 2]);
        spool.append(entry(10, "1")).unwrap();
        let sent = spool.dropped(16);
        assert_eq!(sent, [range(3, 3, DropReason::SpoolFull)]);
        spool.append(entry(10, "1")).unwrap();
        assert_eq!(spool.dropped(16), [range(3, 4, DropReason::SpoolFull)]);
        spool.declared(&sent);
        assert_eq!(spool.dropped(16), [range(4, 4, DropReason::SpoolFull)]);
        spool.declared(&sent);
        assert_eq!(spool.dropped(16), [range(4, 4, DropReason::SpoolFull)], "declared twice");
        spool.declared(&[range(4, 4, DropReason::SpoolFull)]);
        assert_eq!(spool.dropped(16), []);
    }
}
