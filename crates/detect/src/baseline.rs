//! What is usual at this hour of the week, from what was counted in the weeks before. Days are of the same kind by their weekday, or as a calendar has them.
//!
//! A slice's rate of a class at an hour of the week is its own count there, shrunk to its count around that hour on all days, and that to the
//! fleet's, and that to a guess: `(x + k) / (n + k / prior)`, as if `k` failures at the prior rate had been seen. So a slice that is new or small has the
//! rate of the fleet, and one with a history its own.
//!
//! The approvals of a slice are its own at this hour of the week, shrunk to its share of the fleet's at this hour of the day, times the fleet's at this hour
//! of the week; and that share is shrunk to the one around this hour. From half past to half past they are interpolated.
//!
//! A rhythm is hours that are interpolated, and no sum of harmonics. A day has edges, where shops open and where they close, around which few harmonics ring: a slice would be missed at ten that opens at
//! eleven. The freedom that 168 hours have more than these is what shrinkage takes.

use std::collections::{BTreeMap, HashMap};

use crate::class::Class;
use crate::slice::Slice;

/// Failures that the prior of a rate at an hour is worth.
const HOUR_PRIOR: f64 = 12.0;
/// Failures that the prior of a slice's rate is worth.
const SLICE_PRIOR: f64 = 8.0;
/// Approvals that the prior of a slice's share at an hour of the day is worth, and of those that it has itself at an hour of the week: that a slice has
/// a rhythm of its own, by some fifteen percent, is to be expected.
const SHARE_PRIOR: f64 = 50.0;
const OWN_PRIOR: f64 = 44.0;
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
    /// At this hour, on days of the same kind.
    pub at_hour: Counts,
    /// From an hour before it to an hour after it, on all days.
    pub around: Counts,
    /// Approvals in the hour before, this one, and the next; on days of the same kind.
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
    /// Approvals of the fleet in the hour before, this one, and the next; on days of the same kind.
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

    /// What is usual of a slice.
    pub(crate) fn of(&self, slice: &Slice) -> Usual {
        let mut usual =
            Usual { is_known: self.is_known(slice), approvals: self.approvals(slice), share: self.share(slice), ..Usual::default() };
        for class in Class::watched() {
            if let Some(rate) = usual.rates.get_mut(class.number()) {
                *rate = self.rate(slice, class);
            }
        }
        usual
    }

    /// Whether it is known how a slice usually is. Where not, nothing is concluded of it: what is usual in the fleet need not be in it.
    fn is_known(&self, slice: &Slice) -> bool {
        let seconds: u64 = self.past.all_days.iter().map(|observed| observed.seconds).sum();
        real(seconds) >= LEAST_S && self.past.slices.get(slice).is_some_and(|past| past.around.attempts >= LEAST_ATTEMPTS)
    }

    /// The usual share of a slice's attempts that fail so.
    fn rate(&self, slice: &Slice, class: Class) -> f64 {
        let shrunk = |counts: &Counts, prior: f64, worth: f64| (counts.of(class) + worth) / (real(counts.attempts) + worth / prior);
        let of_fleet = shrunk(&self.fleet.around, class.usual(), HOUR_PRIOR);
        let rate = match self.past.slices.get(slice) {
            Some(past) => shrunk(&past.at_hour, shrunk(&past.around, of_fleet, SLICE_PRIOR), HOUR_PRIOR),
            None => of_fleet,
        };
        rate.clamp(RATES.0, RATES.1)
    }

    /// A slice's usual share of the fleet's approvals around this hour; nothing where it has no past.
    fn share(&self, slice: &Slice) -> Option<f64> {
        Some(real(self.past.slices.get(slice)?.around.approved) / real(self.fleet.around.approved.max(1)))
    }

    /// The usual approvals of a slice a second: at half past the hour before, this, and the next. A shop that is closed then has none.
    fn approvals(&self, slice: &Slice) -> [f64; 3] {
        let (Some(fleet), Some(past), Some(share)) = (self.fleet_approvals, self.past.slices.get(slice), self.share(slice)) else {
            return [0.0; 3];
        };
        let mut approvals = [0.0; 3];
        let hours = past.same_day.iter().zip(past.all_days).zip(self.fleet.all_days).zip(self.past.same_day).zip(fleet);
        for (approvals, ((((own, all_days), of_fleet), observed), fleet)) in approvals.iter_mut().zip(hours) {
            let share = if share > 0.0 { (real(all_days) + SHARE_PRIOR) / (real(of_fleet) + SHARE_PRIOR / share) } else { 0.0 };
            let prior = share * fleet;
            let is_known = real(observed.seconds) >= LEAST_S && prior > 0.0;
            *approvals = if is_known { (real(*own) + OWN_PRIOR) / (real(observed.seconds) + OWN_PRIOR / prior) } else { prior };
        }
        approvals
    }

    /// Where a moment, in seconds since 1970-01-01 UTC, is between the hours: -1 at half past the hour before, 0 at half past this one, 1 at half past
    /// the next.
    pub(crate) fn place(&self, moment: f64) -> f64 {
        ((moment - f64::from(self.past.hour)) / f64::from(HOUR_S) - 0.5).clamp(-1.0, 1.0)
    }
}

/// What is usual of a slice at an hour.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usual {
    /// Whether it is known; where not, nothing is concluded.
    pub(crate) is_known: bool,
    /// Its share of the fleet's approvals; nothing where it has no past.
    pub(crate) share: Option<f64>,
    /// By number of a class, the share of attempts that fail so.
    rates: [f64; Class::NUMBER],
    /// Approvals a second: at half past the hour before, this, and the next.
    approvals: [f64; 3],
}

impl Usual {
    /// The share of attempts that fail so.
    pub(crate) fn rate(&self, class: Class) -> f64 {
        self.rates.get(class.number()).copied().unwrap_or_default()
    }

    /// Approvals a second, at a place between the hours.
    pub(crate) fn approvals(&self, place: f64) -> f64 {
        let [before, this, next] = self.approvals;
        if place < 0.0 { this + (before - this) * -place } else { this + (next - this) * place }
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
        assert!((known.of(&icbc()).rate(Class::IssuerDown) / 0.005 - 1.0).abs() < 0.01);
        // Nothing is known of it but that nothing failed so far.
        let small = Baselines::learn(past(PastCounts { at_hour: counts(100, 0), around: counts(1000, 0), ..PastCounts::default() }));
        let rate = small.of(&icbc()).rate(Class::IssuerDown);
        assert!((0.0008..0.001).contains(&rate), "{rate}");
        let unseen = small.of(&Slice::new([(Dimension::Issuer, "new")])).rate(Class::IssuerDown);
        assert!((unseen / 0.001 - 1.0).abs() < 0.01, "{unseen}");
        // Without any past, a guess.
        assert!((Baselines::default().of(&icbc()).rate(Class::IssuerDown) - Class::IssuerDown.usual()).abs() < 1e-9);
    }

    #[test]
    fn approvals_are_a_share_of_the_fleets_and_follow_the_hours() {
        let of_hours = |all: u64| [all, 2 * all, 3 * all];
        let mut past = past(PastCounts { around: counts(99_900, 0), all_days: of_hours(100_000), ..PastCounts::default() });
        past.slices.get_mut(&Slice::fleet()).unwrap().all_days = of_hours(1_000_000);
        // A tenth of the fleet's 1, 2 and 3 a second at half past the hours; but of its own it has none at this hour.
        past.slices.get_mut(&icbc()).unwrap().same_day = [1440, 0, 4320];
        let baselines = Baselines::learn(past);
        let usual = baselines.of(&icbc());
        let at = |moment: f64| usual.approvals(baselines.place(moment));
        assert!((usual.share.unwrap() - 0.1).abs() < 1e-9);
        for (moment, expected) in [(1800.0, 0.1), (9000.0, 0.3), (99_999.0, 0.3)] {
            assert!((at(moment) - expected).abs() < 1e-3, "{moment}: {}", at(moment));
        }
        assert!(at(5400.0) < 0.004 && (at(7200.0) - 0.15).abs() < 0.003, "{} {}", at(5400.0), at(7200.0));
        let new = baselines.of(&Slice::new([(Dimension::Issuer, "new")]));
        assert_eq!((new.share, new.approvals(0.0), new.is_known), (None, 0.0, false));
        assert!(Baselines::default().of(&icbc()).approvals(0.0) == 0.0);
    }

    #[test]
    fn another_day_is_better_than_none() {
        let known = PastCounts { around: counts(99_900, 0), ..PastCounts::default() };
        let all_days = [Observed { approved: 3600, seconds: 3600 }; 3];
        let baselines = Baselines::learn(Past { same_day: [Observed::default(); 3], all_days, ..past(known) });
        assert!((baselines.of(&icbc()).approvals(0.0) - 0.1).abs() < 1e-9);
    }
}
