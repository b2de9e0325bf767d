//! From records to batches: those that come together, or exactly those of a batch that was begun before.

use std::time::Duration;

use faultline_stream::{Intent, Next, Partition, Position, Record};
use tokio::time::Instant;

use crate::counts;

/// How long a record is waited for at a time where there is no hurry.
const IDLE: Duration = Duration::from_secs(1);

/// Records that are stored together.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) records: Vec<Record>,
    /// Offsets of the first and the last record; of one that was begun before, as they were intended.
    pub(crate) first: i64,
    pub(crate) last: i64,
    /// Whether someone began to store it before.
    pub(crate) begun: Option<Intent>,
}

/// Where records come from, in order.
pub(crate) trait Records {
    /// The next record, at most until a moment.
    fn next(&self, until: Instant) -> impl Future<Output = Next> + Send;
}

impl Records for Partition {
    fn next(&self, until: Instant) -> impl Future<Output = Next> + Send {
        Partition::next(self, until)
    }
}

/// Takes batches from a partition.
pub(crate) struct Gatherer<R = Partition> {
    partition: R,
    /// A record that belongs to the next batch.
    carried: Option<Record>,
    max_bytes: usize,
    max_delay: Duration,
}

/// What a partition gave.
#[derive(Debug)]
pub(crate) enum Gathered {
    Batch(Batch),
    /// A record came again, or one that was done before: the log is not the one that it was.
    Disorder,
    /// No more is wanted.
    End,
}

impl<R: Records> Gatherer<R> {
    pub(crate) fn new(partition: R, max_bytes: usize, max_delay: Duration) -> Gatherer<R> {
        Gatherer { partition, carried: None, max_bytes, max_delay }
    }

    pub(crate) fn partition(&self) -> &R {
        &self.partition
    }

    /// The batch that begins at `position`.
    pub(crate) async fn next(&mut self, position: &Position) -> Gathered {
        let mut batch = Batch { records: Vec::new(), first: position.next, last: position.next - 1, begun: position.intent };
        let (mut bytes, mut until) = (0, None);
        loop {
            let record = match self.carried.take() {
                Some(record) => record,
                None => match self.partition.next(until.unwrap_or_else(|| Instant::now() + IDLE)).await {
                    Next::Record(record) => record,
                    // The first record may take any time, and the rest of a batch that was begun is on its way.
                    Next::Nothing if batch.records.is_empty() || batch.begun.is_some() => continue,
                    Next::Nothing => return Gathered::Batch(batch),
                    Next::End => return Gathered::End,
                },
            };
            if record.offset <= batch.last {
                return Gathered::Disorder;
            }
            note_gap(&record, batch.last + 1);
            if let Some(begun) = batch.begun.filter(|begun| record.offset > begun.last) {
                // The last records of a batch that was begun are gone. It is that batch all the same.
                self.carried = Some(record);
                return Gathered::Batch(Batch { last: begun.last, ..batch });
            }
            if batch.records.is_empty() && batch.begun.is_none() {
                batch.first = record.offset;
                until = Some(Instant::now() + self.max_delay);
            }
            batch.last = record.offset;
            bytes += record.size();
            batch.records.push(record);
            let is_full = match batch.begun {
                Some(begun) => batch.last == begun.last,
                None => bytes >= self.max_bytes,
            };
            if is_full {
                return Gathered::Batch(batch);
            }
        }
    }
}

/// Says when records before this one are gone.
fn note_gap(record: &Record, expected: i64) {
    let gap = record.offset - expected;
    if gap > 0 {
        let (partition, offset) = (record.partition, record.offset);
        tracing::error!(partition, offset, records = gap, "the records before this one were gone from Kafka before they were read");
        counts::missing(gap.unsigned_abs());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use bytes::Bytes;
    use tokio::time::sleep_until;

    use super::*;

    /// Records of these offsets; None: nothing for a while.
    struct Script(Mutex<VecDeque<Option<i64>>>);

    impl Records for Script {
        async fn next(&self, until: Instant) -> Next {
            let step = self.0.lock().unwrap().pop_front();
            match step {
                Some(Some(offset)) => Next::Record(Record { offset, value: Bytes::from(vec![0; 1000]), ..Record::default() }),
                Some(None) => {
                    assert!(until > Instant::now(), "waited for what is past");
                    sleep_until(until).await;
                    Next::Nothing
                }
                None => Next::End,
            }
        }
    }

    fn gatherer_of(script: &[Option<i64>]) -> Gatherer<Script> {
        Gatherer::new(Script(Mutex::new(script.iter().copied().collect())), 2500, Duration::from_millis(200))
    }

    fn at(next: i64, intended: Option<i64>) -> Position {
        Position { next, intent: intended.map(|last| Intent { last, since_ms: 0 }), ..Position::fresh(0) }
    }

    /// First and last offset, the records' offsets, and whether it was begun before.
    async fn next(gatherer: &mut Gatherer<Script>, position: &mut Position) -> Option<(i64, i64, Vec<i64>, bool)> {
        match gatherer.next(position).await {
            Gathered::Batch(batch) => {
                let offsets = batch.records.iter().map(|record| record.offset).collect();
                *position = Position { next: batch.last + 1, intent: None, ..position.clone() };
                Some((batch.first, batch.last, offsets, batch.begun.is_some()))
            }
            Gathered::Disorder | Gathered::End => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_ends_when_it_is_full_or_old_and_at_the_end_nothing_is_begun() {
        let mut gatherer = gatherer_of(&[None, Some(5), Some(6), Some(7), Some(8), None, Some(9)]);
        let mut position = at(5, None);
        let begin = Instant::now();
        assert_eq!(next(&mut gatherer, &mut position).await, Some((5, 7, vec![5, 6, 7], false)));
        assert_eq!(begin.elapsed(), IDLE);
        assert_eq!(next(&mut gatherer, &mut position).await, Some((8, 8, vec![8], false)));
        assert_eq!(begin.elapsed(), IDLE + Duration::from_millis(200));
        assert_eq!(next(&mut gatherer, &mut position).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_begun_is_repeated_exactly_whatever_its_size_and_however_slowly_it_comes() {
        let mut gatherer = gatherer_of(&[Some(5), None, None, Some(6), Some(7), None, Some(8), Some(9), None]);
        let mut position = at(5, Some(8));
        assert_eq!(next(&mut gatherer, &mut position).await, Some((5, 8, vec![5, 6, 7, 8], true)));
        assert_eq!(next(&mut gatherer, &mut position).await, Some((9, 9, vec![9], false)));
    }

    #[tokio::test(start_paused = true)]
    async fn records_that_are_gone_are_not_waited_for() {
        let mut not_begun = gatherer_of(&[Some(7), Some(9), None]);
        assert_eq!(next(&mut not_begun, &mut at(5, None)).await, Some((7, 9, vec![7, 9], false)));
        // Of a batch that was begun, what is there; it is still that batch.
        let mut position = at(5, Some(8));
        let mut begun = gatherer_of(&[Some(7), Some(10), None]);
        assert_eq!(next(&mut begun, &mut position).await, Some((5, 8, vec![7], true)));
        assert_eq!(next(&mut begun, &mut position).await, Some((10, 10, vec![10], false)));
        let mut none_left = gatherer_of(&[Some(10), None]);
        let mut position = at(5, Some(8));
        assert_eq!(next(&mut none_left, &mut position).await, Some((5, 8, vec![], true)));
        assert_eq!(next(&mut none_left, &mut position).await, Some((10, 10, vec![10], false)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_that_comes_again_is_disorder() {
        for (script, next) in [(&[Some(4)][..], 5), (&[Some(5), Some(6), Some(0)], 5), (&[Some(5), Some(5)], 5)] {
            for intended in [None, Some(8)] {
                let disorder = gatherer_of(script).next(&at(next, intended)).await;
                assert!(matches!(disorder, Gathered::Disorder), "{script:?}: {disorder:?}");
            }
        }
    }
}
