//! How far each partition is counted, by when Kafka took its records.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use faultline_store::Watermark;

use crate::counts;

/// By partition, the second since 1970-01-01 UTC before which Kafka took nothing that is not counted; as far as it was asked for.
#[derive(Debug, Default)]
pub(crate) struct Watermarks(Mutex<BTreeMap<i32, u32>>);

impl Watermarks {
    fn known(&self) -> MutexGuard<'_, BTreeMap<i32, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in that of so many partitions, all but these are counted up to a second.
    pub(crate) fn raise(&self, partitions: i32, second: u32, behind: &[i32]) {
        let mut known = self.known();
        for partition in (0..partitions).filter(|partition| !behind.contains(partition)) {
            let watermark = known.entry(partition).or_default();
            *watermark = second.max(*watermark);
        }
    }

    /// Says how far behind each is.
    pub(crate) fn tell(&self, now: u32) {
        for (partition, watermark) in self.known().iter() {
            counts::watermark(*partition, Duration::from_secs(now.saturating_sub(*watermark).into()));
        }
    }

    /// Those that are not counted up to a second, in order.
    pub(crate) fn before(&self, second: u32) -> Vec<i32> {
        self.known().iter().filter(|(_, watermark)| **watermark < second).map(|(partition, _)| *partition).collect()
    }

    /// As they are kept.
    pub(crate) fn rows(&self) -> Vec<Watermark> {
        let row = |(partition, watermark): (&i32, &u32)| {
            Some(Watermark { kafka_partition: u16::try_from(*partition).ok()?, appended_until: *watermark })
        };
        self.known().iter().filter_map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_goes_on_while_another_stands_still() {
        let watermarks = Watermarks::default();
        watermarks.raise(3, 100, &[]);
        watermarks.raise(3, 120, &[1]);
        // It was asked how far counts were before.
        watermarks.raise(3, 110, &[1]);
        let rows: Vec<_> = watermarks.rows().into_iter().map(|row| (row.kafka_partition, row.appended_until)).collect();
        assert_eq!(rows, [(0, 120), (1, 100), (2, 120)]);
        assert_eq!((watermarks.before(120), watermarks.before(100)), (vec![1], vec![]));
    }
}
