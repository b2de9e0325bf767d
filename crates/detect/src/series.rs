//! What was counted of a slice in the last hour, tick by tick.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use crate::baseline::{Counts, real};
use crate::class::Class;

/// Length of a tick, and of the buckets that counts come in, in seconds.
pub(crate) const TICK_S: u32 = 10;
/// Ticks that are kept: the longest window, and the time before it that approvals are compared with.
pub(crate) const KEPT: u32 = 360;

/// Counts of a slice. Attempts and approvals stay as they were counted; failures that an incident explains are taken out.
#[derive(Debug, Default)]
pub(crate) struct Series {
    attempts: Sums<u32>,
    approved: Sums<u32>,
    /// Approvals that are usual, in ticks in which the fleet is live.
    usual: Sums<f64>,
    /// By class, the ticks that have any.
    failures: Vec<(Class, VecDeque<(u32, u32)>)>,
}

/// Running sums, one for each of the last ticks and the one before: what is between two of them is the sum of a window, however long it is.
#[derive(Debug)]
pub(crate) struct Sums<T>(Vec<T>);

/// Where a tick is in running sums.
fn place(tick: u32) -> usize {
    usize::try_from(tick % (KEPT + 1)).unwrap_or_default()
}

impl<T: Copy + Default> Default for Sums<T> {
    fn default() -> Sums<T> {
        Sums(vec![T::default(); usize::try_from(KEPT + 1).unwrap_or_default()])
    }
}

impl<T: Copy + Default> Sums<T> {
    /// A tick begins in which nothing was counted yet.
    pub(crate) fn begin(&mut self, tick: u32) {
        let before = self.until(tick.wrapping_sub(1));
        if let Some(sum) = self.0.get_mut(place(tick)) {
            *sum = before;
        }
    }

    /// Puts the sum at the last tick.
    fn put(&mut self, tick: u32, add: impl Fn(T) -> T) {
        if let Some(sum) = self.0.get_mut(place(tick)) {
            *sum = add(*sum);
        }
    }

    fn until(&self, tick: u32) -> T {
        self.0.get(place(tick)).copied().unwrap_or_default()
    }
}

impl Sums<u32> {
    pub(crate) fn add(&mut self, tick: u32, count: u32) {
        self.put(tick, |sum| sum.wrapping_add(count));
    }

    pub(crate) fn sum(&self, ticks: &RangeInclusive<u32>) -> u64 {
        self.until(*ticks.end()).wrapping_sub(self.until(ticks.start().wrapping_sub(1))).into()
    }
}

impl Sums<f64> {
    pub(crate) fn add(&mut self, tick: u32, number: f64) {
        self.put(tick, |sum| sum + number);
    }

    pub(crate) fn sum(&self, ticks: &RangeInclusive<u32>) -> f64 {
        (self.until(*ticks.end()) - self.until(ticks.start().wrapping_sub(1))).max(0.0)
    }
}

impl Series {
    /// Makes room for a tick: what was counted an hour ago goes.
    pub(crate) fn begin(&mut self, tick: u32) {
        self.attempts.begin(tick);
        self.approved.begin(tick);
        self.usual.begin(tick);
        for (_, counts) in &mut self.failures {
            while counts.front().is_some_and(|(oldest, _)| oldest + KEPT <= tick) {
                counts.pop_front();
            }
        }
        self.failures.retain(|(_, counts)| !counts.is_empty());
    }

    /// What was counted in a tick that has begun, and is the last.
    pub(crate) fn enter(&mut self, tick: u32, counts: &Counts) {
        self.attempts.add(tick, small(counts.attempts));
        self.approved.add(tick, small(counts.approved));
        for (class, count) in counts.failures.iter().filter(|(class, count)| class.is_watched() && **count > 0) {
            let (tick, count) = (tick, small(*count));
            match self.failures.iter_mut().find(|(own, _)| own == class) {
                Some((_, counts)) => counts.push_back((tick, count)),
                None => self.failures.push((*class, VecDeque::from([(tick, count)]))),
            }
        }
    }

    /// So many approvals are usual in the last tick.
    pub(crate) fn expect(&mut self, tick: u32, approvals: f64) {
        self.usual.add(tick, approvals);
    }

    /// Failures of a class in a tick, where there were any.
    pub(crate) fn failures_at(&mut self, tick: u32, class: Class) -> Option<&mut u32> {
        let of_class = self.failures.iter_mut().find(|(own, _)| *own == class).map(|(_, counts)| counts)?;
        of_class.iter_mut().rev().take_while(|(own, _)| *own >= tick).find(|(own, _)| *own == tick).map(|(_, count)| count)
    }

    /// Classes of which there are failures, and by class, the ticks that have any, the newest first.
    pub(crate) fn failing(&self) -> impl Iterator<Item = (Class, impl Iterator<Item = (u32, u32)>)> {
        self.failures.iter().map(|(class, counts)| (*class, counts.iter().rev().copied()))
    }

    pub(crate) fn attempts_at(&self, tick: u32) -> u64 {
        self.attempts(tick..=tick)
    }

    pub(crate) fn approved_at(&self, tick: u32) -> u64 {
        self.approved(tick..=tick)
    }

    pub(crate) fn attempts(&self, ticks: RangeInclusive<u32>) -> u64 {
        self.attempts.sum(&ticks)
    }

    pub(crate) fn approved(&self, ticks: RangeInclusive<u32>) -> u64 {
        self.approved.sum(&ticks)
    }

    /// Approvals that are usual.
    pub(crate) fn usual(&self, ticks: &RangeInclusive<u32>) -> f64 {
        self.usual.sum(ticks)
    }

    pub(crate) fn failures(&self, class: Class, ticks: &RangeInclusive<u32>) -> u64 {
        let of_class = self.failures.iter().find(|(own, _)| *own == class).map(|(_, counts)| counts);
        let newest_first = of_class.into_iter().flatten().rev();
        let within = newest_first.skip_while(|(tick, _)| tick > ticks.end()).take_while(|(tick, _)| tick >= ticks.start());
        within.map(|(_, count)| u64::from(*count)).sum()
    }

    /// The share of attempts in some ticks that were before one of them.
    pub(crate) fn share_before(&self, tick: u32, ticks: &RangeInclusive<u32>) -> f64 {
        if *ticks.start() >= tick {
            return 0.0;
        }
        let (before, all) = (real(self.attempts(*ticks.start()..=(tick - 1).min(*ticks.end()))), real(self.attempts(ticks.clone())));
        if all > 0.0 { before / all } else { 0.0 }
    }
}

fn small(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(approved: u64, down: u64) -> Counts {
        let mut counts = Counts::default();
        counts.add(Class::Approved, approved);
        counts.add(Class::IssuerDown, down);
        counts.add(Class::Funds, 1);
        counts
    }

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let mut series = Series::default();
        for tick in 1000..1000 + KEPT + 5 {
            series.begin(tick);
            series.enter(tick, &counts(2, 1));
            series.expect(tick, 1.5);
        }
        let last = 1000 + KEPT + 4;
        assert_eq!(series.attempts(last - KEPT + 1..=last), u64::from(KEPT) * 4);
        assert_eq!((series.approved(last - 9..=last), series.usual(&(last - 9..=last))), (20, 15.0));
        assert_eq!(series.failures(Class::IssuerDown, &(0..=last)), u64::from(KEPT));
        assert_eq!(series.failures(Class::IssuerDown, &(last - 2..=last - 1)), 2);
        // Nobody watches the other.
        assert_eq!(series.failing().map(|(class, counts)| (class, counts.count())).collect::<Vec<_>>(), [(Class::IssuerDown, 360)]);
        *series.failures_at(last, Class::IssuerDown).unwrap() = 0;
        assert_eq!(series.failures(Class::IssuerDown, &(last - 1..=last)), 1);
        assert_eq!(series.failures_at(last, Class::DeviceRead), None);
        assert_eq!(series.failures_at(last + 1, Class::IssuerDown), None);
        assert_eq!((series.share_before(last - 2, &(last - 9..=last)), series.share_before(last - 9, &(last - 9..=last))), (0.7, 0.0));
        for tick in last + 1..=last + KEPT {
            series.begin(tick);
        }
        assert_eq!((series.attempts(last + 1..=last + KEPT), series.failing().count()), (0, 0));
    }
}
