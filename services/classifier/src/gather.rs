//! From records to batches: those that come together, or exactly those of a batch that was begun before.

use std::time::Duration;

use faultline_stream::{Intent, Next, Position, Record, Records};
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

/// Takes batches from a partition.
pub(crate) struct Gatherer<R> {
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
    use proptest::prelude::*;
    use tokio::runtime;
    use tokio::time::sleep_until;

    use super::*;

    /// Records of these offsets and sizes; None: nothing for a while.
    struct Script(Mutex<VecDeque<Option<(i64, usize)>>>);

    impl Records for Script {
        async fn next(&self, until: Instant) -> Next {
            let step = self.0.lock().unwrap().pop_front();
            match step {
                Some(Some((offset, size))) => Next::Record(record(offset, size)),
                Some(None) => {
                    assert!(until > Instant::now(), "waited for what is past");
                    sleep_until(until).await;
                    Next::Nothing
                }
                None => Next::End,
            }
        }
    }

    fn record(offset: i64, size: usize) -> Record {
        Record { offset, value: Bytes::from(vec![0; size]), ..Record::default() }
    }

    fn gatherer_of(script: &[Option<i64>]) -> Gatherer<Script> {
        let script = script.iter().map(|step| step.map(|offset| (offset, 1000)));
        Gatherer::new(Script(Mutex::new(script.collect())), 2500, Duration::from_millis(200))
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

    /// Records with gaps between them, and how many pauses come before each; at the end, one more.
    fn timing(records: &[(i64, usize)], pauses: &[usize]) -> VecDeque<Option<(i64, usize)>> {
        let pauses = pauses.iter().copied().chain(std::iter::repeat(0));
        let mut script: VecDeque<_> =
            records.iter().zip(pauses).flat_map(|(record, pauses)| std::iter::repeat_n(None, pauses).chain([Some(*record)])).collect();
        script.push_back(None);
        script
    }

    fn records() -> impl Strategy<Value = Vec<(i64, usize)>> {
        let gaps = prop_oneof![8 => Just(0), 1 => 1..4_i64];
        prop::collection::vec((gaps, 0..3000_usize), 1..30).prop_map(|records| {
            let mut next = 5;
            let placed = records.into_iter().map(|(gap, size)| {
                next += gap + 1;
                (next - 1, size)
            });
            placed.collect()
        })
    }

    fn pauses() -> impl Strategy<Value = Vec<usize>> {
        prop::collection::vec(prop_oneof![3 => Just(0), 1 => 1..3_usize], 30)
    }

    /// All batches from offset 5 on.
    async fn batches(script: VecDeque<Option<(i64, usize)>>, max_bytes: usize) -> Vec<Batch> {
        let mut gatherer = Gatherer::new(Script(Mutex::new(script)), max_bytes, Duration::from_millis(200));
        let (mut batches, mut position) = (Vec::new(), at(5, None));
        while let Gathered::Batch(batch) = gatherer.next(&position).await {
            position.next = batch.last + 1;
            batches.push(batch);
        }
        batches
    }

    fn with_time<T>(work: impl Future<Output = T>) -> T {
        runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(work)
    }

    proptest! {
        #[test]
        fn batches_are_all_records_in_their_order_whenever_they_come(records in records(), pauses in pauses(), max_bytes in 1..9000_usize) {
            let batches = with_time(batches(timing(&records, &pauses), max_bytes));
            let gathered = batches.iter().flat_map(|batch| batch.records.iter().map(|record| (record.offset, record.value.len())));
            prop_assert_eq!(gathered.collect::<Vec<_>>(), records);
            for batch in &batches {
                let [others @ .., last] = &*batch.records else { return Err(TestCaseError::fail("a batch of nothing")) };
                prop_assert_eq!((batch.first, batch.last), (others.first().unwrap_or(last).offset, last.offset));
                prop_assert!(others.iter().map(Record::size).sum::<usize>() < max_bytes);
                prop_assert_eq!(batch.begun, None);
            }
        }

        #[test]
        fn a_batch_that_was_begun_is_the_same_however_it_comes_again(
            (records, which) in (records(), any::<prop::sample::Index>()),
            (pauses, other_pauses) in (pauses(), pauses()),
            (max_bytes, other_max_bytes) in (1..9000_usize, 1..9000_usize),
        ) {
            with_time(async {
                let batches = batches(timing(&records, &pauses), max_bytes).await;
                let begun = &batches[which.index(batches.len())];
                let rest: Vec<_> = records.iter().copied().filter(|(offset, _)| *offset >= begun.first).collect();
                let script = Script(Mutex::new(timing(&rest, &other_pauses)));
                let mut gatherer = Gatherer::new(script, other_max_bytes, Duration::from_millis(200));
                let Gathered::Batch(again) = gatherer.next(&at(begun.first, Some(begun.last))).await else {
                    return Err(TestCaseError::fail("no batch"));
                };
                prop_assert_eq!((again.first, again.last, &again.records), (begun.first, begun.last, &begun.records));
                prop_assert!(again.begun.is_some());
                // And the one after it begins where it ends.
                let expected = rest.iter().map(|(offset, _)| *offset).find(|offset| *offset > begun.last);
                let Gathered::Batch(after) = gatherer.next(&at(begun.last + 1, None)).await else {
                    prop_assert_eq!(expected, None);
                    return Ok(());
                };
                prop_assert_eq!(Some(after.first), expected);
                Ok(())
            })?;
        }
    }
}
