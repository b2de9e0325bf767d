//! Which slices miss approvals.

use std::ops::RangeInclusive;

use super::{Disturbance, Fleet, Part, Suspicion, fewer};
use crate::baseline::real;
use crate::class::Signal;
use crate::dispersion::{Cell, Dispersion};
use crate::drift::Level;
use crate::evidence::{Varying, fewer_approvals, plain_approvals};
use crate::slice::{Dimension, Slice};

/// Windows over which approvals are summed, in ticks.
const WINDOWS: [u32; 11] = [1, 2, 3, 5, 8, 12, 20, 36, 60, 100, 150];
/// Evidence that is asked for, in nats.
const THRESHOLD: f64 = 16.0;
/// Approvals that are missing are so many below the expected that no drift explains it.
const MISSING: f64 = 0.95;
/// Fewer expected approvals cannot be missed.
const LEAST_EXPECTED: f64 = 15.0;
/// What a slice is compared with in localisation: a little less than usual.
const MARGIN: f64 = 0.85;
/// By how much the variance of approvals usually exceeds that of independent ones.
const CLUSTERS: f64 = 1.1;
/// Variance of the logarithm of what is expected, in a fleet that varies as others do.
const VARIANCE: f64 = 0.11 * 0.11;
/// Ticks before a window whose approvals say at which level a slice is.
const LEVEL_TICKS: u32 = 210;
/// Fewest of them.
const LEAST_LEVEL_TICKS: u64 = 12;
/// What a level is pulled to 1 with, in approvals.
const LEVEL_PRIOR: f64 = 15.0;
/// Ticks by which it is seen how busy the fleet is now.
const BUSY_TICKS: u32 = 6;
/// A slice that has more of the fleet than this has no rest to be compared with.
const LARGEST_SHARE: f64 = 0.9;

/// Approvals that are expected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Expected {
    pub(crate) approvals: f64,
    /// How the slice was before, relative to what is usual and to how the rest of the fleet was.
    pub(crate) level: f64,
    varying: Varying,
}

/// How busy a slice and the rest of the fleet were before a window, and that rest is in it, relative to what is usual.
#[derive(Clone, Copy, Debug)]
struct Levels {
    before: f64,
    before_of_rest: f64,
    now_of_rest: f64,
    /// Of the logarithm of what comes of them, since they are counted.
    variance: f64,
}

impl Fleet {
    /// The slice whose approvals are missing most plainly, and its score. What `lost` of each slice's approvals is explained is not missing.
    /// Slices that `is_dismissed` are left out.
    pub(crate) fn missing(
        &self,
        lost: impl Fn(&Slice, &RangeInclusive<u32>) -> f64,
        is_dismissed: impl Fn(&Slice) -> bool,
    ) -> Option<(Suspicion, f64)> {
        if !self.is_live(self.now) {
            return None;
        }
        let threshold = THRESHOLD + self.surcharge();
        let suspicions = self.parts.iter().filter_map(|part| {
            if !part.is_judged_by_approvals() {
                return None;
            }
            let windows = WINDOWS.into_iter().filter(|length| self.earliest(*length) + length == self.now + 1);
            let of_window = windows.filter_map(|length| {
                let threshold = threshold - fewer(length);
                let window = self.earliest(length)..=self.now;
                let approved = real(part.series.approved(window.clone()));
                let is_missing = |expected: f64| expected >= LEAST_EXPECTED && approved < MISSING * expected;
                let expected = self.expected_of(part, &window).filter(|expected| is_missing(expected.approvals))?;
                if fewer_approvals(approved, MISSING * expected.approvals, expected.varying) <= threshold || is_dismissed(&part.slice) {
                    return None;
                }
                let left = Some(expected.approvals - lost(&part.slice, &window)).filter(|left| is_missing(*left))?;
                let evidence = fewer_approvals(approved, MISSING * left, expected.varying);
                let score = plain_approvals(approved, MARGIN * left, expected.varying.clusters) - self.price(part);
                let suspicion = Suspicion { slice: part.slice.clone(), signal: Signal::MissingApprovals, window, evidence };
                (evidence > threshold).then_some((suspicion, score))
            });
            of_window.max_by(|(a, _), (b, _)| a.evidence.total_cmp(&b.evidence))
        });
        suspicions.max_by(|(a, of_a), (b, of_b)| of_a.total_cmp(of_b).then_with(|| b.slice.cmp(&a.slice)))
    }

    /// Approvals of a slice that are expected in a window: what is usual, but no more than it had before relative to the rest of the fleet, and as the
    /// rest of the fleet has now, but no busier than that was before. So neither the end of a flash sale nor a fleet that is quiet as a whole is a fault
    /// of a slice, nor that a slice has no part in a flash sale.
    pub(crate) fn expected_approvals(&self, slice: &Slice, window: &RangeInclusive<u32>) -> Option<Expected> {
        self.expected_of(self.part(slice)?, window)
    }

    fn expected_of(&self, part: &Part, window: &RangeInclusive<u32>) -> Option<Expected> {
        let Levels { before, before_of_rest, now_of_rest, variance } = self.levels(part, window)?;
        let level = (before / before_of_rest).min(1.0);
        let approvals = part.series.usual(window) * level * now_of_rest.min(before_of_rest);
        let Dispersion { clusters, drift } = self.approvals.known;
        Some(Expected { approvals, level, varying: Varying { clusters: clusters * CLUSTERS, variance: drift * VARIANCE + variance } })
    }

    fn levels(&self, part: &Part, window: &RangeInclusive<u32>) -> Option<Levels> {
        let begin = *window.start();
        let before = self.earliest(self.now - begin + 1 + LEVEL_TICKS).max(self.known?)..=begin.checked_sub(1)?;
        if before.is_empty() || self.live.sum(&before) < LEAST_LEVEL_TICKS {
            return None;
        }
        let (before_of_rest, now_of_rest) = (self.level_of_rest(part, &before), self.level_of_rest(part, window));
        let variance = 1.0 / (real(part.series.approved(before.clone())) + LEVEL_PRIOR) + now_of_rest.variance;
        Some(Levels { before: level(part, &before), before_of_rest: before_of_rest.level, now_of_rest: now_of_rest.level, variance })
    }

    /// Learns how much approvals vary, from those that were in a window without faults.
    pub(super) fn learn_variation_of_approvals(&mut self, window: RangeInclusive<u32>, disturbances: &[Disturbance<'_>]) {
        let since = window.start().saturating_sub(LEVEL_TICKS);
        let overlapping = |disturbance: &&Disturbance<'_>| *disturbance.ticks.end() >= since && disturbance.ticks.start() <= window.end();
        let disturbances: Vec<_> = disturbances.iter().filter(overlapping).collect();
        let is_undisturbed = |part: &&Part| !disturbances.iter().any(|disturbance| !disturbance.slice.is_apart_from(&part.slice));
        let typical = self.parts.iter().filter(|part| part.usual.is_known && part.slice.attributes() == 1 && part.is_judged_by_approvals());
        let cells: Vec<Cell> = typical
            .filter(is_undisturbed)
            .filter_map(|part| {
                let Levels { before, before_of_rest, now_of_rest, variance } = self.levels(part, &window)?;
                let expected = part.series.usual(&window) * before * now_of_rest / before_of_rest;
                Some(Cell { counted: real(part.series.approved(window.clone())), expected, variance: VARIANCE + variance })
            })
            .collect();
        cells.into_iter().for_each(|cell| self.approvals.take_in(cell));
        self.approvals.settle();
    }

    /// Approvals that are expected of a slice in the last tick, where its level is known.
    pub(crate) fn expected_now(&self, slice: &Slice, level: f64) -> f64 {
        let Some(part) = self.part(slice) else { return 0.0 };
        let lately = self.earliest(BUSY_TICKS).max(self.known.unwrap_or(self.now))..=self.now;
        part.series.usual(&(self.now..=self.now)) * level * self.level_of_rest(part, &lately).level.min(1.0)
    }

    /// Approvals that were expected of a slice lately, at its level.
    pub(crate) fn expected_lately(&self, slice: &Slice, level: f64, ticks: &RangeInclusive<u32>) -> f64 {
        self.series(slice).map_or(0.0, |series| series.usual(ticks)) * level
    }

    /// The share of a slice's approvals that are another's, as far as values tell.
    pub(crate) fn shared(&self, slice: &Slice, other: &Slice) -> f64 {
        if other.holds(slice) || slice.holds(other) {
            return 1.0;
        }
        if slice.is_apart_from(other) {
            return 0.0;
        }
        // Twice what it would be if issuers were spread evenly, which they are not.
        let share = self.part(slice).and_then(|part| part.usual.share).unwrap_or_default();
        (2.0 * share).min(1.0)
    }

    /// Approvals of all but a slice, in ticks in which the fleet is live, relative to what is usual.
    fn level_of_rest(&self, part: &Part, ticks: &RangeInclusive<u32>) -> Level {
        let Some(fleet) = self.part(&Slice::fleet()) else { return Level::default() };
        let approved = (real(fleet.series.approved(ticks.clone())) - real(part.series.approved(ticks.clone()))).max(0.0);
        let usual = (fleet.series.usual(ticks) - part.series.usual(ticks)).max(0.0);
        Level { level: (approved + 1.0) / (usual + 1.0), variance: 1.0 / (approved + 1.0) }
    }
}

impl Part {
    /// Whether approvals can be missing in it: it has a past, and there is a rest of the fleet to compare it with. Shops close, and so do all of a chain at once.
    fn is_judged_by_approvals(&self) -> bool {
        let has_rest = self.usual.share.is_some_and(|share| share <= LARGEST_SHARE) && !self.kind.is_fleet();
        has_rest && !self.kind.has(Dimension::MerchantGroup)
    }
}

/// Approvals of a slice in ticks in which the fleet is live, relative to what is usual, pulled to 1.
fn level(part: &Part, ticks: &RangeInclusive<u32>) -> f64 {
    (real(part.series.approved(ticks.clone())) + LEVEL_PRIOR) / (part.series.usual(ticks) + LEVEL_PRIOR)
}
