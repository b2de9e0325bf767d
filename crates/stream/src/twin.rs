//! A partition in memory, and the group that reads it: for unit tests of workers. Commits are refused, and what was begun is known, as with Kafka.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};

use crate::intents::Position;
use crate::partition::{Committed, Next, PartitionLog, Records, Start, start};
use crate::reader::Record;

/// A partition, and what its group has committed.
#[derive(Clone, Default)]
pub struct Twin(Arc<Shared>);

#[derive(Default)]
struct Shared {
    log: Mutex<Log>,
    changed: Notify,
}

#[derive(Default)]
struct Log {
    records: Vec<Record>,
    committed: Option<Committed>,
    /// The assignments that there were. The last is the one that holds.
    assignments: u64,
    /// Whether who holds the partition has given it up.
    is_given_up: bool,
    is_closed: bool,
}

/// The partition, in the hands of a worker.
pub struct TwinPartition {
    shared: Arc<Shared>,
    assignment: u64,
    /// Offset of the next record.
    next: Mutex<usize>,
    /// What is committed, as far as this worker knows.
    committed: Mutex<Option<Committed>>,
}

impl Twin {
    /// Appends a record, at the next offset.
    pub fn append(&self, record: Record) {
        let mut log = self.0.log();
        let offset = i64::try_from(log.records.len()).unwrap_or(i64::MAX);
        log.records.push(Record { offset, ..record });
        drop(log);
        self.0.changed.notify_waiters();
    }

    /// Gives the partition to a worker. One that had it before, and still works, is a zombie: it reads, it asks, and what it commits is refused.
    #[must_use]
    pub fn assign(&self) -> TwinPartition {
        let mut log = self.0.log();
        log.assignments += 1;
        log.is_given_up = false;
        let next = log.committed.as_ref().map_or(0, |(offset, _)| *offset);
        TwinPartition {
            shared: Arc::clone(&self.0),
            assignment: log.assignments,
            next: Mutex::new(usize::try_from(next).unwrap_or_default()),
            committed: Mutex::default(),
        }
    }

    /// Whether whoever held the partition has given it up, to join anew.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        self.0.log().is_given_up
    }

    /// Sets the committed offset by hand, which loses the words beside it.
    pub fn set_by_hand(&self, offset: i64) {
        self.0.log().committed = Some((offset, String::new()));
    }

    /// The committed offset.
    #[must_use]
    pub fn committed(&self) -> Option<i64> {
        self.0.log().committed.as_ref().map(|(offset, _)| *offset)
    }

    /// Workers get no more records.
    pub fn close(&self) {
        self.0.log().is_closed = true;
        self.0.changed.notify_waiters();
    }
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TwinPartition {
    fn take(&self) -> Option<Next> {
        let log = self.shared.log();
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if log.is_closed {
            return Some(Next::End);
        }
        let record = log.records.get(*next)?.clone();
        *next += 1;
        Some(Next::Record(record))
    }

    /// Commits, between two moments at which the worker may be ended. A worker whose partition was taken away does not come back from this.
    async fn insist_on(&self, wanted: Committed) {
        yield_now().await;
        let committed = Some(wanted);
        let is_refused = {
            let mut log = self.shared.log();
            let is_refused = log.assignments != self.assignment || log.is_given_up;
            if !is_refused {
                log.committed.clone_from(&committed);
            }
            is_refused
        };
        if is_refused {
            std::future::pending::<()>().await;
        }
        yield_now().await;
        *self.knows() = committed;
    }

    fn knows(&self) -> MutexGuard<'_, Option<Committed>> {
        self.committed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Records for TwinPartition {
    async fn next(&self, until: Instant) -> Next {
        loop {
            let changed = self.shared.changed.notified();
            if let Some(next) = self.take() {
                return next;
            }
            if timeout_at(until, changed).await.is_err() {
                return Next::Nothing;
            }
        }
    }
}

/// Each question is answered between two moments at which the worker may be ended.
impl PartitionLog for TwinPartition {
    fn number(&self) -> i32 {
        0
    }

    async fn start(&self) -> Start {
        yield_now().await;
        let (committed, end) = {
            let log = self.shared.log();
            (log.committed.clone(), i64::try_from(log.records.len()).unwrap_or(i64::MAX))
        };
        yield_now().await;
        let start = start(self.number(), committed.as_ref(), 0..end);
        *self.knows() = committed;
        start
    }

    async fn is_undisturbed(&self) -> bool {
        yield_now().await;
        let committed = self.shared.log().committed.clone();
        yield_now().await;
        *self.knows() == committed
    }

    async fn commit(&self, position: &Position) {
        self.insist_on((position.next, position.words())).await;
    }

    async fn claim(&self, next: i64) {
        self.insist_on((next, String::new())).await;
    }

    async fn rejoin(&self) -> ! {
        {
            let mut log = self.shared.log();
            log.is_given_up |= log.assignments == self.assignment;
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::intents::Intent;

    fn twin_of(records: usize) -> Twin {
        let twin = Twin::default();
        (0..records).for_each(|_| twin.append(Record::default()));
        twin
    }

    async fn offset(partition: &TwinPartition) -> Option<i64> {
        match partition.next(Instant::now() + Duration::from_secs(1)).await {
            Next::Record(record) => Some(record.offset),
            Next::Nothing | Next::End => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_next_knows_what_was_begun() {
        let twin = twin_of(5);
        let first = twin.assign();
        let start = first.start().await;
        assert_eq!((start.position.next, start.position.intent, start.is_new_log), (0, None, true));
        let begun = Position { next: 2, intent: Some(Intent { last: 3, since_ms: 77 }), ..start.position };
        first.commit(&begun).await;
        let next = twin.assign();
        assert_eq!(next.start().await, Start { position: begun, is_new_log: false });
        assert_eq!((offset(&next).await, offset(&next).await), (Some(2), Some(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_taken_away_is_read_and_not_committed() {
        let twin = twin_of(1);
        let zombie = twin.assign();
        let position = zombie.start().await.position;
        let successor = twin.assign();
        assert_eq!((offset(&zombie).await, offset(&successor).await), (Some(0), Some(0)));
        timeout(Duration::from_secs(60), zombie.commit(&position)).await.unwrap_err();
        assert_eq!(twin.committed(), None);
        // Also once its process has joined again.
        drop(successor);
        let _again = twin.assign();
        timeout(Duration::from_secs(60), zombie.commit(&position)).await.unwrap_err();
        assert_eq!(twin.committed(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_offset_that_is_set_by_hand_is_noticed_and_the_partition_given_up() {
        let twin = twin_of(2);
        let partition = twin.assign();
        partition.commit(&partition.start().await.position).await;
        assert!(partition.is_undisturbed().await);
        twin.set_by_hand(1);
        assert!(!partition.is_undisturbed().await && !twin.is_given_up());
        tokio::select! {
            biased;
            never = partition.rejoin() => never,
            () = yield_now() => {}
        }
        assert!(twin.is_given_up());
        let start = twin.assign().start().await;
        assert_eq!((start.position.next, start.is_new_log), (1, true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_that_arrives_is_not_waited_for_any_longer_and_a_closed_partition_has_none() {
        let twin = twin_of(0);
        let partition = twin.assign();
        assert_eq!(offset(&partition).await, None);
        let (found, ()) = tokio::join!(offset(&partition), async { twin.append(Record::default()) });
        assert_eq!(found, Some(0));
        twin.append(Record::default());
        twin.close();
        assert_eq!(offset(&partition).await, None);
    }
}
