//! From records to batches: those that come together, or exactly those of a batch that was begun before.

use std::time::Duration;

use faultline_stream::{Intent, Next, Partition, Position, Record};
use tokio::time::Instant;

use crate::counts;

/// How often a partition from which nothing comes says so.
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
pub(crate) struct Gatherer {
    partition: Partition,
    /// A record that belongs to the next batch.
    carried: Option<Record>,
    /// Whether a record was taken at all.
    has_begun: bool,
    max_bytes: usize,
    max_delay: Duration,
}

/// What a partition gave.
pub(crate) enum Gathered {
    Batch(Batch),
    /// Nothing came for a while.
    Nothing,
    /// No more is wanted.
    End,
}

impl Gatherer {
    pub(crate) fn new(partition: Partition, max_bytes: usize, max_delay: Duration) -> Gatherer {
        Gatherer { partition, carried: None, has_begun: false, max_bytes, max_delay }
    }

    pub(crate) fn partition(&self) -> &Partition {
        &self.partition
    }

    /// The batch that begins at `position`. Where the partition turns out to have begun a new life, the position is put at its beginning.
    pub(crate) async fn next(&mut self, position: &mut Position) -> Gathered {
        let mut batch = Batch { records: Vec::new(), first: position.next, last: position.next - 1, begun: position.intent };
        let (mut bytes, mut until) = (0, None);
        loop {
            let record = match self.carried.take() {
                Some(record) => record,
                None => match self.partition.next(until.or_else(|| Instant::now().checked_add(IDLE))).await {
                    Next::Record(record) => record,
                    Next::Nothing if batch.records.is_empty() => return Gathered::Nothing,
                    // The rest of a batch that was begun is on its way.
                    Next::Nothing if batch.begun.is_some() => continue,
                    Next::Nothing => return Gathered::Batch(batch),
                    Next::End => return Gathered::End,
                },
            };
            if record.offset <= batch.last {
                if !self.has_begun {
                    // Done before it was given to us.
                    continue;
                }
                if batch.records.is_empty() && batch.begun.is_none() {
                    tracing::warn!(partition = record.partition, offset = record.offset, "the topic was made again; its records are new");
                    *position = Position::fresh(record.offset);
                    batch = Batch { records: Vec::new(), first: record.offset, last: record.offset - 1, begun: None };
                } else {
                    self.carried = Some(record);
                    return Gathered::Batch(batch);
                }
            }
            self.has_begun = true;
            if batch.begun.is_some_and(|begun| record.offset > begun.last) {
                // The last records of a batch that was begun are gone.
                self.carried = Some(record);
                return Gathered::Batch(Batch { last: batch.begun.map_or(batch.last, |begun| begun.last), ..batch });
            }
            let gap = record.offset - (batch.last + 1);
            if gap > 0 {
                tracing::error!(
                    partition = record.partition,
                    before = record.offset,
                    records = gap,
                    "records were gone from Kafka before they were read"
                );
                counts::missing(gap.unsigned_abs());
            }
            if batch.records.is_empty() {
                if batch.begun.is_none() {
                    batch.first = record.offset;
                }
                until = Instant::now().checked_add(self.max_delay);
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
