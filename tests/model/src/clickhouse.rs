//! ClickHouse, as far as it can be relied on.
//!
//! An insert is applied part by part, one for each week of its rows, in any order, and at any time after it was sent: also when whoever sent it has
//! gone. Of each part the server first writes down the token, then publishes the rows. Others see neither or both, unless the server is killed
//! between the two: then the token stays, and the repeat is answered with "done".
//!
//! Mirrors what was measured of the server; the questions are those of `crates/store/src/delivery.rs` and `crates/store/src/high_water.rs`.

use crate::log::{Offsets, Seen, WEEKS};

/// What names a batch: `BatchId` of `crates/store/src/delivery.rs`, of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BatchId {
    pub(crate) log: u8,
    pub(crate) first: u8,
    pub(crate) last: u8,
}

/// By which rules a row was judged.
pub(crate) type Verdict = u8;

/// Where it is inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Table {
    /// Rows of a batch.
    Outcomes,
    /// Those of the rows that are kept for drill-downs: here all of them.
    Drilldown,
    /// Sums of rows, with their ledger row. Here they still say which rows they are of.
    Rollup,
}

/// Rows by verdict.
pub(crate) type Rows = [Offsets; 2];

/// An insert. Its token is all but the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Insert {
    pub(crate) batch: BatchId,
    pub(crate) attempt: u8,
    pub(crate) table: Table,
    pub(crate) rows: Rows,
}

/// What the server has written down of a part: whose it is, and which week's (sums are all in one).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Token {
    pub(crate) batch: BatchId,
    pub(crate) attempt: u8,
    pub(crate) table: Table,
    pub(crate) week: usize,
}

/// An insert that the server has been sent and is not done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Request {
    /// The process that waits for the answer, if it still does.
    pub(crate) by: Option<usize>,
    pub(crate) insert: Insert,
    /// Parts that are not applied yet, by week; of sums, one.
    left: [bool; WEEKS],
}

/// What was seen, as it is kept, and up to which offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Kept {
    pub(crate) seen: Seen,
    pub(crate) reach: u8,
}

/// Everything that the server has. Vectors are sorted, so that states which differ in nothing else are one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Store {
    /// Parts that are published, of rows and of sums.
    pub(crate) parts: Vec<Insert>,
    pub(crate) tokens: Vec<Token>,
    pub(crate) requests: Vec<Request>,
    pub(crate) kept: Kept,
}

impl Insert {
    /// The parts that it comes in.
    fn parts(self) -> [bool; WEEKS] {
        std::array::from_fn(|week| match self.table {
            Table::Outcomes | Table::Drilldown => !self.part(week).rows.iter().all(|rows| rows.is_empty()),
            Table::Rollup => week == 0,
        })
    }

    fn part(self, week: usize) -> Insert {
        match self.table {
            Table::Outcomes | Table::Drilldown => Insert { rows: self.rows.map(|rows| rows.of_week(week)), ..self },
            Table::Rollup => self,
        }
    }

    fn token(self, week: usize) -> Token {
        Token { batch: self.batch, attempt: self.attempt, table: self.table, week }
    }
}

impl Request {
    /// Parts that are not applied yet.
    pub(crate) fn left(&self) -> impl Iterator<Item = usize> {
        (0..WEEKS).filter(|week| self.left.get(*week).is_some_and(|left| *left))
    }
}

impl Store {
    pub(crate) fn send(&mut self, by: usize, insert: Insert) {
        insert_sorted(&mut self.requests, Request { by: Some(by), insert, left: insert.parts() });
    }

    /// Nobody waits for the answers to a process any more.
    pub(crate) fn forget_sender(&mut self, process: usize) {
        for request in &mut self.requests {
            request.by = request.by.filter(|by| *by != process);
        }
        self.requests.sort_unstable();
    }

    /// Applies a part of a request. Returns who is to be answered, if that was the last.
    pub(crate) fn apply(&mut self, request: usize, week: usize) -> Option<usize> {
        let mut sent = self.requests.remove(request);
        let token = sent.insert.token(week);
        if !self.tokens.contains(&token) {
            insert_sorted(&mut self.tokens, token);
            insert_sorted(&mut self.parts, sent.insert.part(week));
        }
        if let Some(left) = sent.left.get_mut(week) {
            *left = false;
        }
        if sent.left().next().is_none() {
            return sent.by;
        }
        insert_sorted(&mut self.requests, sent);
        None
    }

    /// The server is killed, and comes back. Nobody is answered. Of one part, only the token may have been written.
    pub(crate) fn kill(&mut self, cut: Option<(usize, usize)>) {
        let token = cut.and_then(|(request, week)| Some(self.requests.get(request)?.insert.token(week)));
        if let Some(token) = token.filter(|token| !self.tokens.contains(token)) {
            insert_sorted(&mut self.tokens, token);
        }
        self.requests.clear();
    }

    /// Which rows of a batch are stored.
    pub(crate) fn stored(&self, batch: BatchId) -> Offsets {
        let [one, other] = self.rows(batch, Table::Outcomes);
        one.or(other)
    }

    /// The rows of a batch as a table has them.
    pub(crate) fn rows(&self, batch: BatchId, table: Table) -> Rows {
        let parts = self.parts.iter().filter(|part| part.batch == batch && part.table == table);
        parts.fold(Rows::default(), |[one, other], part| {
            let [of_one, of_other] = part.rows;
            [one.or(of_one), other.or(of_other)]
        })
    }

    /// Whether there is a ledger row of a batch.
    pub(crate) fn is_counted(&self, batch: BatchId) -> bool {
        self.parts.iter().any(|part| part.batch == batch && part.table == Table::Rollup)
    }

    /// Batches of which rows are stored, and which are not counted.
    pub(crate) fn uncounted(&self) -> Vec<BatchId> {
        let mut batches: Vec<_> = self.parts.iter().map(|part| part.batch).filter(|batch| !self.is_counted(*batch)).collect();
        batches.dedup();
        batches
    }

    /// What was seen in all that comes before an offset of a log, and in earlier logs: what is kept, and the rows since.
    pub(crate) fn high_water(&self, log: u8, before: u8) -> Seen {
        let mut seen = Seen::default();
        for part in self.parts.iter().filter(|part| part.table == Table::Outcomes) {
            let is_wanted = |offset: &u8| *offset >= self.kept.reach && !(part.batch.log == log && *offset >= before);
            for offset in part.rows.into_iter().flat_map(Offsets::iter).filter(is_wanted) {
                seen.is_new(offset);
            }
        }
        seen.or(self.kept.seen)
    }

    pub(crate) fn keep(&mut self, seen: Seen, reach: u8) {
        self.kept = Kept { seen: self.kept.seen.or(seen), reach: self.kept.reach.max(reach) };
    }
}

fn insert_sorted<T: Ord>(things: &mut Vec<T>, thing: T) {
    let place = things.partition_point(|other| *other <= thing);
    things.insert(place, thing);
}
