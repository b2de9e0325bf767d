//! How each partition stands: what is in its way, and how long its oldest record waits. Told while it is worked on; what is no longer ours is
//! another's to tell.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::counts;

/// How the partitions of this process stand.
#[derive(Debug, Default)]
pub(crate) struct Standings(Mutex<BTreeMap<i32, Partition>>);

#[derive(Debug, Default)]
struct Partition {
    trouble: Option<String>,
    /// When Kafka took the oldest record that is worked on, in milliseconds since 1970-01-01 UTC. None: nothing waits, as far as is known.
    oldest_ms: Option<i64>,
}

/// How one partition stands, as its worker tells, until that ends.
#[derive(Debug)]
pub(crate) struct Standing<'a> {
    standings: &'a Standings,
    partition: i32,
}

impl Standings {
    pub(crate) fn of(&self, partition: i32) -> Standing<'_> {
        self.all().insert(partition, Partition::default());
        counts::partitions(1);
        Standing { standings: self, partition }
    }

    /// What is in the way of one of them.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.all().iter().find_map(|(number, partition)| Some(format!("partition {number}: {}", partition.trouble.as_ref()?)))
    }

    /// Counts how far behind each of them is.
    pub(crate) fn count_lag(&self) {
        for (number, partition) in &*self.all() {
            counts::lag(*number, partition.oldest_ms.map_or(Duration::ZERO, since));
        }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<i32, Partition>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Standing<'_> {
    pub(crate) fn partition(&self) -> i32 {
        self.partition
    }

    pub(crate) fn is_in_trouble(&self, reason: String) {
        tracing::debug!(partition = self.partition, reason, "it is tried again");
        self.change(|partition| partition.trouble = Some(reason));
    }

    pub(crate) fn is_well(&self) {
        self.change(|partition| partition.trouble = None);
    }

    /// A batch is worked on whose first record Kafka took at this moment, in milliseconds since 1970-01-01 UTC.
    pub(crate) fn works_since(&self, appended_ms: Option<i64>) {
        self.change(|partition| partition.oldest_ms = appended_ms);
    }

    /// The batch is done.
    pub(crate) fn is_done(&self) {
        self.change(|partition| partition.oldest_ms = None);
    }

    fn change(&self, change: impl FnOnce(&mut Partition)) {
        change(self.standings.all().entry(self.partition).or_default());
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.standings.all().remove(&self.partition);
        counts::partitions(-1);
        counts::lag(self.partition, Duration::ZERO);
        counts::spools(self.partition, 0);
    }
}

/// How long ago a moment was, in milliseconds since 1970-01-01 UTC.
fn since(unix_ms: i64) -> Duration {
    let then = UNIX_EPOCH + Duration::from_millis(unix_ms.max(0).unsigned_abs());
    SystemTime::now().duration_since(then).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_longer_ours_is_not_told_of() {
        let standings = Standings::default();
        let (first, second) = (standings.of(1), standings.of(2));
        assert_eq!(standings.trouble(), None);
        second.is_in_trouble("no answer".into());
        assert_eq!(standings.trouble().unwrap(), "partition 2: no answer");
        first.is_in_trouble("refused".into());
        first.is_well();
        assert_eq!(standings.trouble().unwrap(), "partition 2: no answer");
        drop(second);
        assert_eq!(standings.trouble(), None);
    }

    #[test]
    fn a_moment_is_as_long_ago_as_the_clock_says() {
        let minute_ago = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() - Duration::from_secs(60);
        let ago = since(i64::try_from(minute_ago.as_millis()).unwrap());
        assert!((59..=61).contains(&ago.as_secs()), "{ago:?}");
        assert_eq!(since(i64::MAX / 2), Duration::ZERO);
    }
}
