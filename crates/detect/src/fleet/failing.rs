//! Which slices fail more than they should.

use std::iter::Peekable;
use std::ops::RangeInclusive;

use super::{Fleet, Suspicion, Watched, fewer};
use crate::baseline::real;
use crate::class::{Class, Signal};
use crate::evidence::more_failures;
use crate::leaf::{Failing, View};
use crate::slice::{Kind, Slice};

/// Windows over which failures are summed, in ticks: short ones see a dead bank at once, long ones one that fails a little.
const WINDOWS: [u32; 13] = [1, 2, 3, 4, 6, 9, 14, 21, 36, 60, 105, 180, 330];
/// Evidence that is asked for in a window of one tick, in nats: all slices, classes, windows and ticks of a month together are to give one alarm by chance.
const THRESHOLD: f64 = 17.5;
/// What is asked for on top where failures of the class do not plausibly come from such a slice.
const IMPLAUSIBLE: f64 = 3.5;
/// Fewer failures are none.
const LEAST_FAILURES: u64 = 4;
/// From so much evidence on, what fails may be a fault that is not found yet.
const SUSPECT: f64 = 4.0;
/// The window that this is asked of, in ticks.
const SUSPECT_WINDOW: u32 = 180;
/// Of what may be a fault, so many times what is to be expected is learnt.
const MOST_LEARNT: f64 = 1.4;
/// Variance of the logarithm of a rate that comes from one minute to another; and what comes within the time until it is learnt: more than the 0.016 that
/// `drift` derives, since of all slices of a month those are seen whose drifts come together.
const MINUTE_VARIANCE: f64 = 0.15 * 0.15;
const HOUR_VARIANCE: f64 = 0.15 * 0.15;

impl Fleet {
    /// Slices with a class that fails more than it should, each in the window that shows it best. One in which nothing fails now is not of now.
    pub(crate) fn failing(&self) -> Vec<Suspicion> {
        let (surcharge, of_fleet) = (self.surcharge(), self.levels_of_fleet());
        let mut suspicions = Vec::new();
        for part in self.parts.iter().filter(|part| part.usual.is_known) {
            for (class, newest_first) in part.series.failing() {
                let mut newest_first = newest_first.peekable();
                // One from which all was taken out is none.
                if newest_first.peek().is_none_or(|(tick, count)| *tick < self.now || *count == 0) {
                    continue;
                }
                let level = part.drifts.level(class, of_fleet.get(class.number()).copied().unwrap_or(1.0));
                let threshold = threshold(class, &part.kind) + surcharge;
                if let Some((window, evidence)) = self.failing_in(&Watched { part, class, level }, newest_first, threshold) {
                    let signal = Signal::Failures(class);
                    suspicions.push(Suspicion { slice: part.slice.clone(), signal, window, evidence });
                }
            }
        }
        suspicions
    }

    /// The window whose evidence is the most above what is asked for, and that evidence.
    fn failing_in(
        &self,
        watched: &Watched<'_>,
        mut counts: Peekable<impl Iterator<Item = (u32, u32)>>,
        threshold: f64,
    ) -> Option<(RangeInclusive<u32>, f64)> {
        let (mut failures, mut best, mut most_above) = (0, None, 0.0);
        for length in WINDOWS {
            let window = self.earliest(length)..=self.now;
            while let Some((_, count)) = counts.next_if(|(tick, _)| tick >= window.start()) {
                failures += u64::from(count);
            }
            if failures >= LEAST_FAILURES {
                let threshold = threshold - fewer(length);
                let counted = (real(failures), real(watched.part.series.attempts(window.clone())));
                let varying = self.varying(watched.class, watched.level.variance + variance(length));
                let evidence = more_failures(counted, self.rate_of(watched, &window), varying, threshold + most_above);
                if evidence > threshold + most_above {
                    (best, most_above) = (Some((window, evidence)), evidence - threshold);
                }
            }
        }
        best
    }

    /// How many of a minute's failures say how a rate drifts, where so many are usual: all of them, unless they may be a fault that is not found yet.
    pub(super) fn learnable(&self, watched: &Watched<'_>, failures: f64, usual: f64) -> f64 {
        if self.is_suspect(watched) { failures.min(MOST_LEARNT * usual * watched.level.level) } else { failures }
    }

    fn is_suspect(&self, watched: &Watched<'_>) -> bool {
        let window = self.earliest(SUSPECT_WINDOW)..=self.now;
        let failures = watched.part.series.failures(watched.class, &window);
        failures >= LEAST_FAILURES && self.evidence(watched, &window, real(failures)) > SUSPECT
    }

    /// What so many failures say in a window, whatever was counted.
    fn evidence(&self, watched: &Watched<'_>, window: &RangeInclusive<u32>, failures: f64) -> f64 {
        let counted = (failures, real(watched.part.series.attempts(window.clone())));
        let varying = self.varying(watched.class, watched.level.variance + variance(window.end() + 1 - window.start()));
        more_failures(counted, self.rate_of(watched, window), varying, 0.0)
    }

    /// What so many failures in a slice say.
    pub(crate) fn evidence_in(&self, slice: &Slice, failures: f64, View { class, ticks, .. }: &View<'_>) -> f64 {
        self.part(slice).map_or(0.0, |part| self.evidence(&self.watched(part, *class), ticks, failures))
    }

    /// Whether what was witnessed is enough, where one terminal's repeats are not.
    pub(crate) fn is_enough(&self, slice: &Slice, failing: Failing, view: &View<'_>) -> bool {
        let asked = threshold(view.class, &slice.kind()) + self.surcharge() - fewer(view.ticks.end() + 1 - view.ticks.start());
        failing.witnessed >= real(LEAST_FAILURES) && self.evidence_in(slice, failing.witnessed, view) > asked
    }
}

/// How much a rate in a window of so many ticks may differ from its level: the variance of its logarithm.
pub(super) fn variance(ticks: u32) -> f64 {
    HOUR_VARIANCE + MINUTE_VARIANCE / (f64::from(ticks) / 6.0).max(1.0)
}

fn threshold(class: Class, kind: &Kind) -> f64 {
    THRESHOLD + if class.is_plausible_in(kind) { 0.0 } else { IMPLAUSIBLE }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::{Counts, Observed, Past, PastCounts};
    use crate::series::TICK_S;
    use crate::slice::Dimension;

    /// A Monday, 12:00 UTC.
    const HOUR: u32 = 1_793_620_800;

    /// Of 1,000 attempts in every tick of a bank, and 9,000 of others of which 180 are refused.
    fn counts(refused: u64) -> [(Slice, Counts); 2] {
        let counted = |attempts: u64, refused: u64| {
            let mut counts = Counts::default();
            counts.add(Class::Approved, attempts - refused);
            counts.add(Class::IssuerRefusal, refused);
            counts
        };
        [(bank(), counted(1000, refused)), (Slice::fleet(), counted(10_000, 180 + refused))]
    }

    fn bank() -> Slice {
        Slice::new([(Dimension::Issuer, "a")])
    }

    /// Enters so many minutes of them, and says at what rate the bank is expected to refuse then.
    fn run(fleet: &mut Fleet, minutes: u32, refused: u64) -> f64 {
        for _ in 0..6 * minutes {
            fleet.enter((fleet.now + 1).max(HOUR / TICK_S), &counts(refused));
            fleet.follow(&[]);
        }
        fleet.rate(&bank(), Class::IssuerRefusal, &(fleet.now..=fleet.now))
    }

    #[test]
    fn a_rate_that_is_plainly_another_one_is_followed_and_no_fault_is_learnt_in_a_hurry() {
        let mut fleet = Fleet::default();
        let of_week = counts(20).map(|(slice, counts)| {
            let (mut at_hour, approved) = (Counts::default(), 360 * counts.approved);
            at_hour.add(Class::Approved, approved);
            at_hour.add(Class::IssuerRefusal, 360 * counts.failures[&Class::IssuerRefusal]);
            (slice, PastCounts { around: at_hour.clone(), at_hour, same_day: [approved; 3], all_days: [approved; 3] })
        });
        let observed = Observed { approved: 360 * 9800, seconds: 3600 };
        fleet.learn(Past { hour: HOUR, same_day: [observed; 3], all_days: [observed; 3], slices: of_week.into_iter().collect() });
        assert!((run(&mut fleet, 60, 20) - 0.02).abs() < 1e-3);
        let within_half_an_hour = run(&mut fleet, 30, 50);
        assert!((within_half_an_hour - 0.02).abs() < 1e-3, "{within_half_an_hour}");
        // Were all of it learnt, it would be 0.035.
        let in_the_next = run(&mut fleet, 30, 50);
        assert!(in_the_next > 0.022 && in_the_next < 0.027, "{in_the_next}");
        let after_hours = run(&mut fleet, 180, 50);
        assert!(after_hours > 0.045, "{after_hours}");
    }
}
