//! The log: one partition of the outcomes topic, a few records long. Each record is one event.
//!
//! Mirrors the contract: sequences rise within a spool, and what is not acknowledged is sent again.

/// A record: one event of a spool, and in which week it was received. Rows of different weeks are different parts in ClickHouse.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub(crate) spool: usize,
    pub(crate) sequence: u8,
    pub(crate) week: usize,
}

pub(crate) const SPOOLS: usize = 2;
pub(crate) const WEEKS: usize = 2;

/// The longest log.
pub(crate) const RECORDS: [Record; 5] = [
    Record { spool: 0, sequence: 1, week: 0 },
    Record { spool: 0, sequence: 2, week: 1 },
    // Sent again, since its acknowledgement was lost.
    Record { spool: 0, sequence: 2, week: 1 },
    Record { spool: 0, sequence: 3, week: 0 },
    Record { spool: 1, sequence: 1, week: 1 },
];

/// The record at an offset.
pub(crate) fn record(offset: u8) -> Record {
    RECORDS.get(usize::from(offset)).copied().unwrap_or(RECORDS[0])
}

/// What was seen: of each spool, the greatest sequence. Mirrors `services/classifier/src/seen.rs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Seen([u8; SPOOLS]);

impl Seen {
    /// Takes note of an event. Returns whether it is new.
    pub(crate) fn is_new(&mut self, offset: u8) -> bool {
        let Record { spool, sequence, .. } = record(offset);
        let Some(seen) = self.0.get_mut(spool) else { return false };
        let is_new = sequence > *seen;
        *seen = sequence.max(*seen);
        is_new
    }

    /// What either has seen.
    pub(crate) fn or(mut self, other: Seen) -> Seen {
        for (seen, other) in self.0.iter_mut().zip(other.0) {
            *seen = other.max(*seen);
        }
        self
    }
}

/// Offsets, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Offsets(u8);

impl Offsets {
    pub(crate) fn insert(&mut self, offset: u8) {
        self.0 |= 1 << offset;
    }

    pub(crate) fn contains(self, offset: u8) -> bool {
        self.0 & 1 << offset != 0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn or(self, other: Offsets) -> Offsets {
        Offsets(self.0 | other.0)
    }

    pub(crate) fn without(self, other: Offsets) -> Offsets {
        Offsets(self.0 & !other.0)
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = u8> {
        (0..8).filter(move |offset| self.contains(*offset))
    }

    /// Those that were received in a week.
    pub(crate) fn of_week(self, week: usize) -> Offsets {
        self.iter().filter(|offset| record(*offset).week == week).collect()
    }
}

impl FromIterator<u8> for Offsets {
    fn from_iter<I: IntoIterator<Item = u8>>(offsets: I) -> Offsets {
        let mut set = Offsets::default();
        offsets.into_iter().for_each(|offset| set.insert(offset));
        set
    }
}
