//! One partition of the outcomes topic, as its worker has it: Kafka's ([`crate::Partition`]), or the twin of unit tests.

use std::ops::Range;

use tokio::time::Instant;

use crate::intents::Position;
use crate::reader::Record;

/// Where records come from, in order.
#[expect(async_fn_in_trait, reason = "who works on a partition knows which it is, and with that whether its futures can be sent")]
pub trait Records {
    /// The next record, if there is one by `until`.
    async fn next(&self, until: Instant) -> Next;
}

/// A partition, for as long as a worker holds it, and what the group has committed for it.
#[expect(async_fn_in_trait, reason = "as above")]
pub trait PartitionLog: Records {
    /// Its number.
    fn number(&self) -> i32;

    /// Asks where reading begins, until there is an answer.
    async fn start(&self) -> Start;

    /// Whether what is committed is what this worker committed, or found. If not, someone has set an offset by hand, or the topic was made again
    /// (with it Kafka forgets what was committed): what this worker knows is no longer true.
    async fn is_undisturbed(&self) -> bool;

    /// Commits a position, and tries again until it is committed. A worker whose partition was taken away does not come back from this.
    async fn commit(&self, position: &Position);

    /// Commits an offset without words, as [`PartitionLog::commit`] does: it is still this worker's to do so, and whoever comes next finds a new log there.
    async fn claim(&self, next: i64);

    /// Gives up all partitions of this process, and asks for them anew: the log is not what it was. Does not come back from this.
    async fn rejoin(&self) -> !;
}

/// What came next.
#[derive(Debug)]
pub enum Next {
    /// A record.
    Record(Record),
    /// Nothing, in the time allowed.
    Nothing,
    /// No more records are wanted.
    End,
}

/// Where a worker begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// How far the group came.
    pub position: Position,
    /// Whether a new log begins here, and nothing is known of what was begun in an earlier one: at the very first, when the topic was made again or
    /// has lost records, and when an offset was set by hand.
    pub is_new_log: bool,
}

/// An offset, and the words beside it.
pub(crate) type Committed = (i64, String);

/// Where reading begins, given what was committed and which records there are.
pub(crate) fn start(partition: i32, committed: Option<&Committed>, records: Range<i64>) -> Start {
    let new_log = |next| Start { position: Position::fresh(next), is_new_log: true };
    let Some((offset, words)) = committed else { return new_log(records.start) };
    let (offset, end) = (*offset, records.end);
    if offset > end {
        tracing::warn!(partition, committed = offset, end, "the log ends before what was read of it: it is read from its beginning");
        return new_log(records.start);
    }
    match Position::read(offset, words) {
        None => {
            tracing::warn!(partition, committed = offset, "the committed offset was set by someone else; reading begins there");
            new_log(offset)
        }
        Some(Position { intent: Some(intent), .. }) if intent.last >= end => {
            tracing::warn!(
                partition,
                begun = intent.last,
                end,
                "the log ends before the batch that was begun: other records will come in its place"
            );
            new_log(offset)
        }
        Some(position) => Start { position, is_new_log: false },
    }
}
