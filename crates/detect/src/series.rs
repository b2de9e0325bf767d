//! What was counted of a slice in the last hour, tick by tick.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use crate::baseline::Counts;
use crate::class::Class;

/// Length of a tick, and of the buckets that counts come in, in seconds.
pub(crate) const TICK_S: u32 = 10;
/// Ticks that are kept: the longest window, and the time before it that approvals are compared with.
pub(crate) const KEPT: u32 = 360;

/// Counts of a slice. Attempts and approvals stay as they were counted; failures that an incident explains are taken out.
#[derive(Debug)]
pub(crate) struct Series {
    attempts: Ring,
    approved: Ring,
    /// By class, the ticks that have any.
    failures: Vec<(Class, VecDeque<(u32, u32)>)>,
}

/// A number for each of the last ticks.
#[derive(Debug)]
struct Ring(Vec<u32>);

impl Ring {
    fn slot(&mut self, tick: u32) -> Option<&mut u32> {
        self.0.get_mut(place(tick))
    }

    fn at(&self, tick: u32) -> u32 {
        self.0.get(place(tick)).copied().unwrap_or_default()
    }
}

/// Where a tick is in a ring.
pub(crate) fn place(tick: u32) -> usize {
    usize::try_from(tick % KEPT).unwrap_or_default()
}

impl Default for Series {
    fn default() -> Series {
        let ring = || Ring(vec![0; usize::try_from(KEPT).unwrap_or_default()]);
        Series { attempts: ring(), approved: ring(), failures: Vec::new() }
    }
}

impl Series {
    /// Makes room for a tick: what was counted at the same place an hour ago goes.
    pub(crate) fn begin(&mut self, tick: u32) {
        for slot in [self.attempts.slot(tick), self.approved.slot(tick)].into_iter().flatten() {
            *slot = 0;
        }
        for (_, counts) in &mut self.failures {
            while counts.front().is_some_and(|(oldest, _)| oldest + KEPT <= tick) {
                counts.pop_front();
            }
        }
        self.failures.retain(|(_, counts)| !counts.is_empty());
    }

    /// What was counted in a tick that has begun, and is the last.
    pub(crate) fn enter(&mut self, tick: u32, counts: &Counts) {
        for (slot, count) in [(self.attempts.slot(tick), counts.attempts), (self.approved.slot(tick), counts.approved)] {
            if let Some(slot) = slot {
                *slot = slot.saturating_add(small(count));
            }
        }
        for (class, count) in counts.failures.iter().filter(|(class, count)| class.is_watched() && **count > 0) {
            let (tick, count) = (tick, small(*count));
            match self.failures.iter_mut().find(|(own, _)| own == class) {
                Some((_, counts)) => counts.push_back((tick, count)),
                None => self.failures.push((*class, VecDeque::from([(tick, count)]))),
            }
        }
    }

    /// Failures of a class in a tick, where there were any.
    pub(crate) fn failures_at(&mut self, tick: u32, class: Class) -> Option<&mut u32> {
        let of_class = self.failures.iter_mut().find(|(own, _)| *own == class).map(|(_, counts)| counts)?;
        of_class.iter_mut().rev().find(|(own, _)| *own == tick).map(|(_, count)| count)
    }

    /// Classes of which there are failures.
    pub(crate) fn classes(&self) -> impl Iterator<Item = Class> {
        self.failures.iter().map(|(class, _)| *class)
    }

    pub(crate) fn attempts_at(&self, tick: u32) -> u64 {
        self.attempts.at(tick).into()
    }

    pub(crate) fn approved_at(&self, tick: u32) -> u64 {
        self.approved.at(tick).into()
    }

    pub(crate) fn attempts(&self, ticks: RangeInclusive<u32>) -> u64 {
        ticks.map(|tick| self.attempts_at(tick)).sum()
    }

    pub(crate) fn approved(&self, ticks: RangeInclusive<u32>) -> u64 {
        ticks.map(|tick| self.approved_at(tick)).sum()
    }

    pub(crate) fn failures(&self, class: Class, ticks: &RangeInclusive<u32>) -> u64 {
        let of_class = self.failures.iter().find(|(own, _)| *own == class).map(|(_, counts)| counts);
        let newest_first = of_class.into_iter().flatten().rev();
        let within = newest_first.skip_while(|(tick, _)| tick > ticks.end()).take_while(|(tick, _)| tick >= ticks.start());
        within.map(|(_, count)| u64::from(*count)).sum()
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
        }
        let last = 1000 + KEPT + 4;
        assert_eq!(series.attempts(last - KEPT + 1..=last), u64::from(KEPT) * 4);
        assert_eq!(series.approved(last - 9..=last), 20);
        assert_eq!(series.failures(Class::IssuerDown, &(0..=last)), u64::from(KEPT));
        assert_eq!(series.failures(Class::IssuerDown, &(last - 2..=last - 1)), 2);
        // Nobody watches that.
        assert_eq!(series.classes().collect::<Vec<_>>(), [Class::IssuerDown]);
        *series.failures_at(last, Class::IssuerDown).unwrap() = 0;
        assert_eq!(series.failures(Class::IssuerDown, &(last - 1..=last)), 1);
        assert_eq!(series.failures_at(last, Class::DeviceRead), None);
        assert_eq!(series.failures_at(last + 1, Class::IssuerDown), None);
        for tick in last + 1..=last + KEPT {
            series.begin(tick);
        }
        assert_eq!((series.attempts(last + 1..=last + KEPT), series.classes().count()), (0, 0));
    }
}
