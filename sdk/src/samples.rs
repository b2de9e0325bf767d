//! Health samples that wait for the next batch: the newest, since what a terminal is like now is told by the last of them.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use faultline_proto::terminal::v1::HealthSample;
use prost_types::Timestamp;

use crate::clock::BootTime;

/// Samples of one batch: as the contract says.
const MOST: usize = 16;
/// How long a sample waits for events to ride with.
const PATIENCE: Duration = Duration::from_secs(60);

/// Samples that are not acknowledged yet, in order.
#[derive(Debug)]
pub(crate) struct Samples {
    waiting: VecDeque<(BootTime, HealthSample)>,
    /// Sequence of the next.
    next: u64,
}

impl Samples {
    /// `first` is the sequence of the first.
    pub(crate) fn from(first: u64) -> Samples {
        Samples { waiting: VecDeque::new(), next: first }
    }

    /// Keeps a sample that was taken now. Of too many, the oldest is dropped.
    pub(crate) fn add(&mut self, sample: HealthSample, now: BootTime) {
        let sample = HealthSample { sequence: self.next, sample_time: Some(Timestamp::from(SystemTime::now())), ..sample };
        self.next += 1;
        if self.waiting.len() == MOST {
            self.waiting.pop_front();
        }
        self.waiting.push_back((now, sample));
    }

    /// All of them, as they are sent now.
    pub(crate) fn sent(&self, now: BootTime) -> Vec<HealthSample> {
        let age = |taken: BootTime| u64::try_from(now.since(taken).as_millis()).unwrap_or(u64::MAX);
        self.waiting.iter().map(|(taken, sample)| HealthSample { age_ms: Some(age(*taken)), ..*sample }).collect()
    }

    /// Those up to this sequence are acknowledged.
    pub(crate) fn settle(&mut self, through: u64) {
        while self.waiting.front().is_some_and(|(_, sample)| sample.sequence <= through) {
            self.waiting.pop_front();
        }
    }

    /// How long the oldest may still wait for events; nothing where none waits.
    pub(crate) fn left(&self, now: BootTime) -> Option<Duration> {
        self.waiting.front().map(|(taken, _)| PATIENCE.saturating_sub(now.since(*taken)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> BootTime {
        BootTime(Duration::from_secs(second))
    }

    #[test]
    fn the_newest_are_kept_until_they_are_acknowledged() {
        let mut samples = Samples::from(1);
        assert_eq!(samples.left(at(0)), None);
        for second in 0..20 {
            samples.add(HealthSample { age_ms: Some(7), sequence: 99, boots: Some(3), ..HealthSample::default() }, at(second));
        }
        let sent = samples.sent(at(30));
        let told = |sample: &HealthSample| (sample.sequence, sample.age_ms.unwrap(), sample.boots);
        assert_eq!((sent.len(), told(&sent[0]), told(&sent[15])), (16, (5, 26_000, Some(3)), (20, 11_000, Some(3))));
        assert!(sent[0].sample_time.is_some());
        samples.settle(19);
        assert_eq!(samples.sent(at(30)).iter().map(|sample| sample.sequence).collect::<Vec<_>>(), [20]);
        assert_eq!((samples.left(at(30)), samples.left(at(200))), (Some(Duration::from_secs(49)), Some(Duration::ZERO)));
        samples.settle(20);
        assert_eq!(samples.left(at(200)), None);
    }
}
