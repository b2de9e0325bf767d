//! What is usual at this hour of the week, from what was counted in the weeks before.
//!
//! A slice's rate of a class at an hour of the week is its own count there, shrunk to its count around that hour on all days, and that to the
//! fleet's, and that to a guess: `(x + k) / (n + k / prior)`, as if `k` failures at the prior rate had been seen. So a slice that is new or small has the
//! rate of the fleet, and one with a history its own.
//!
//! The approvals of a slice are its share of the fleet's around this hour, times the fleet's at this hour of the week, between the hours
//! interpolated. A share is known better than a slice's own rhythm.

use std::collections::{BTreeMap, HashMap};

use crate::class::Class;
use crate::slice::Slice;

/// Failures that the prior of a rate at an hour is worth.
const HOUR_PRIOR: f64 = 12.0;
/// Failures that the prior of a slice's rate is worth.
const SLICE_PRIOR: f64 = 8.0;
/// Rates are within these, so that there is always a logarithm.
const RATES: (f64, f64) = (1e-6, 0.5);
/// Least time of which the fleet must be known, in seconds.
const LEAST_S: f64 = 1800.0;
/// Fewest attempts of its own by which it is known how a slice usually is.
const LEAST_ATTEMPTS: u64 = 50;
const HOUR_S: u32 = 3600;

/// Counts of a slice over a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All attempts.
    pub attempts: u64,
    /// Those that were approved.
    pub approved: u64,
    /// Those that failed, by class.
    pub failures: BTreeMap<Class, u64>,
}

impl Counts {
    /// Adds attempts of a class.
    pub fn add(&mut self, class: Class, attempts: u64) {
        self.attempts += attempts;
        if class == Class::Approved {
            self.approved += attempts;
        } else {
            *self.failures.entry(class).or_default() += attempts;
        }
    }

    fn of(&self, class: Class) -> f64 {
        real(self.failures.get(&class).copied().unwrap_or_default())
    }
}

/// What was counted of a slice in the weeks before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PastCounts {
    /// At this hour, on the same day of the week.
    pub at_hour: Counts,
    /// From an hour before it to an hour after it, on all days.
    pub around: Counts,
    /// Approvals in the hour before, this one, and the next; on the same day of the week.
    pub same_day: [u64; 3],
    /// The same on all days.
    pub all_days: [u64; 3],
}

/// Approvals of the fleet, and of how many seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Approvals.
    pub approved: u64,
    /// Seconds of which there are counts.
    pub seconds: u64,
}

/// The weeks before, as seen from one hour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// First second of the hour, since 1970-01-01 UTC.
    pub hour: u32,
    /// Approvals of the fleet in the hour before, this one, and the next; on the same day of the week.
    pub same_day: [Observed; 3],
    /// The same on all days.
    pub all_days: [Observed; 3],
    /// By slice.
    pub slices: HashMap<Slice, PastCounts>,
}

/// What is usual at an hour.
#[derive(Clone, Debug, Default)]
pub(crate) struct Baselines {
    past: Past,
    fleet: PastCounts,
    /// Approvals of the fleet a second: at half past the hour before, this, and the next.
    fleet_approvals: Option<[f64; 3]>,
}

impl Baselines {
    pub(crate) fn learn(past: Past) -> Baselines {
        let rate = |observed: &Observed| (real(observed.seconds) >= LEAST_S).then(|| real(observed.approved) / real(observed.seconds));
        let rates = |hours: [Observed; 3]| {
            let [before, this, next] = hours;
            // An hour that is not known yet is like this one.
            rate(&this).map(|this| [rate(&before).unwrap_or(this), this, rate(&next).unwrap_or(this)])
        };
        let fleet_approvals = rates(past.same_day).or_else(|| rates(past.all_days));
        let fleet = past.slices.get(&Slice::fleet()).cloned().unwrap_or_default();
        Baselines { past, fleet, fleet_approvals }
    }

    /// Whether it is known how a slice usually is. Where not, nothing is concluded of it: what is usual in the fleet need not be in it.
    pub(crate) fn is_known(&self, slice: &Slice) -> bool {
        let seconds: u64 = self.past.all_days.iter().map(|observed| observed.seconds).sum();
        real(seconds) >= LEAST_S && self.past.slices.get(slice).is_some_and(|past| past.around.attempts >= LEAST_ATTEMPTS)
    }

    /// The usual share of a slice's attempts that fail so.
    pub(crate) fn rate(&self, slice: &Slice, class: Class) -> f64 {
        let shrunk = |counts: &Counts, prior: f64, worth: f64| (counts.of(class) + worth) / (real(counts.attempts) + worth / prior);
        let of_fleet = shrunk(&self.fleet.around, class.usual(), HOUR_PRIOR);
        let rate = match self.past.slices.get(slice) {
            Some(past) => shrunk(&past.at_hour, shrunk(&past.around, of_fleet, SLICE_PRIOR), HOUR_PRIOR),
            None => of_fleet,
        };
        rate.clamp(RATES.0, RATES.1)
    }

    /// A slice's usual share of the fleet's approvals around this hour; nothing where it has no past.
    pub(crate) fn share(&self, slice: &Slice) -> Option<f64> {
        Some(real(self.past.slices.get(slice)?.around.approved) / real(self.fleet.around.approved.max(1)))
    }

    /// The approvals of a slice a second at this very hour of the week; nothing where that is not known. A shop that is closed then has none.
    pub(crate) fn approvals_at_hour(&self, slice: &Slice) -> Option<f64> {
        let [_, this, _] = self.past.same_day;
        let approved = self.past.slices.get(slice)?.at_hour.approved;
        (real(this.seconds) >= LEAST_S).then(|| real(approved) / real(this.seconds))
    }

    /// The usual approvals of the fleet a second, at a moment in seconds since 1970-01-01 UTC; nothing where that is not known.
    pub(crate) fn fleet_approvals(&self, moment: f64) -> Option<f64> {
        let [before, this, next] = self.fleet_approvals?;
        // From half past to half past.
        let place = ((moment - f64::from(self.past.hour)) / f64::from(HOUR_S) - 0.5).clamp(-1.0, 1.0);
        Some(if place < 0.0 { this + (before - this) * -place } else { this + (next - this) * place })
    }
}

/// Counts of events are far below 2^52.
#[expect(clippy::cast_precision_loss, reason = "counts of events are far below 2^52")]
pub(crate) fn real(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slice::Dimension;

    fn counts(attempts: u64, down: u64) -> Counts {
        let mut counts = Counts::default();
        counts.add(Class::IssuerDown, down);
        counts.add(Class::Approved, attempts - down);
        counts
    }

    fn icbc() -> Slice {
        Slice::new([(Dimension::Issuer, "icbc")])
    }

    fn past(of_icbc: PastCounts) -> Past {
        let fleet = PastCounts { at_hour: counts(100_000, 100), around: counts(1_000_000, 1000), ..PastCounts::default() };
        let observed = |approved| Observed { approved, seconds: 4 * 3600 };
        Past {
            hour: 3600,
            same_day: [observed(14_400), observed(28_800), observed(43_200)],
            all_days: [observed(0); 3],
            slices: HashMap::from([(Slice::fleet(), fleet), (icbc(), of_icbc)]),
        }
    }

    #[test]
    fn a_rate_is_a_slices_own_where_it_is_known() {
        let known = Baselines::learn(past(PastCounts {
            at_hour: counts(1_000_000, 5000),
            around: counts(9_000_000, 45_000),
            ..PastCounts::default()
        }));
        assert!((known.rate(&icbc(), Class::IssuerDown) / 0.005 - 1.0).abs() < 0.01);
        // Nothing is known of it but that nothing failed so far.
        let small = Baselines::learn(past(PastCounts { at_hour: counts(100, 0), around: counts(1000, 0), ..PastCounts::default() }));
        let rate = small.rate(&icbc(), Class::IssuerDown);
        assert!((0.0008..0.001).contains(&rate), "{rate}");
        let unseen = small.rate(&Slice::new([(Dimension::Issuer, "new")]), Class::IssuerDown);
        assert!((unseen / 0.001 - 1.0).abs() < 0.01, "{unseen}");
        // Without any past, a guess.
        assert!((Baselines::default().rate(&icbc(), Class::IssuerDown) - Class::IssuerDown.usual()).abs() < 1e-9);
    }

    #[test]
    fn approvals_are_a_share_of_the_fleets_and_follow_the_hours() {
        let baselines = Baselines::learn(past(PastCounts { at_hour: counts(10, 0), around: counts(99_900, 0), ..PastCounts::default() }));
        assert!((baselines.share(&icbc()).unwrap() - 0.1).abs() < 1e-9);
        // 1, 2 and 3 a second at half past the hours.
        for (moment, expected) in [(1800.0, 1.0), (3600.0, 1.5), (5400.0, 2.0), (7200.0, 2.5), (99_999.0, 3.0)] {
            let at = baselines.fleet_approvals(moment).unwrap();
            assert!((at - expected).abs() < 1e-9, "{moment}: {at}");
        }
        assert_eq!(baselines.share(&Slice::new([(Dimension::Issuer, "new")])), None);
        assert_eq!(Baselines::default().fleet_approvals(0.0), None);
    }

    #[test]
    fn another_day_is_better_than_none() {
        let known = PastCounts { at_hour: Counts::default(), around: counts(99_900, 0), ..PastCounts::default() };
        let all_days = [Observed { approved: 3600, seconds: 3600 }; 3];
        let baselines = Baselines::learn(Past { same_day: [Observed::default(); 3], all_days, ..past(known) });
        assert!((baselines.fleet_approvals(5400.0).unwrap() - 1.0).abs() < 1e-9);
    }
}
