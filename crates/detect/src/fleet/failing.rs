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
/// From so much evidence on, nothing is learnt of how a rate drifts.
const SUSPECT: f64 = 4.0;
/// The window that this is asked of, in ticks.
const SUSPECT_WINDOW: u32 = 180;
/// Variance of the logarithm of a rate that comes from one minute to another; and what comes within the time until it is learnt.
const MINUTE_VARIANCE: f64 = 0.15 * 0.15;
const HOUR_VARIANCE: f64 = 0.13 * 0.13;

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

    /// Whether so much failed lately that it may be a fault which is not found yet.
    pub(super) fn is_suspect(&self, watched: &Watched<'_>) -> bool {
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
