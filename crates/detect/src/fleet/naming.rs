//! Which slice says best what fails.

use super::{Fleet, Named, Part};
use crate::baseline::real;
use crate::evidence::plain_failures;
use crate::leaf::{Failing, View};
use crate::slice::Slice;

/// What a slice is compared with: a little more than usual.
const MARGIN: f64 = 1.3;
/// Fewer failures name nothing.
const LEAST_FAILURES: f64 = 4.0;
/// Most faults of one class at one moment that are told apart.
const MOST_PARTS: usize = 6;
/// By how much parts must explain more than the whole, in nats, and by which part of what it explains: a little more they do by chance, and since the
/// usual rates of parts are not known exactly, which says the more the more is counted.
const PARTS_MARGIN: f64 = 3.0;
pub(crate) const PARTS_SHARE: f64 = 0.03;

impl Fleet {
    /// The slice that says best what fails, of what failed where.
    ///
    /// It is the one with the highest score, unless several slices inside it explain clearly more than it does: two banks that fail at once are two faults,
    /// though the fleet as a whole fails more plainly than either. Then it is the first of these.
    pub(crate) fn name(&self, failing: &[(&Slice, Failing)], view: &View<'_>) -> Option<Named> {
        let mut named = self.best(failing, view, |_| true)?;
        loop {
            let (mut rest, mut explained, mut first) = (failing.to_vec(), 0.0, None);
            for _ in 0..MOST_PARTS {
                let inside = |slice: &Slice| named.slice.holds(slice) && *slice != named.slice;
                let Some(part) = self.best(&rest, view, inside).filter(|part| part.score > 0.0) else { break };
                rest.retain(|(at, _)| !part.slice.holds(at));
                explained += part.score;
                first.get_or_insert(part);
            }
            match first {
                Some(first) if explained > named.score + PARTS_MARGIN + PARTS_SHARE * named.score.max(0.0) => named = first,
                _ => return Some(named),
            }
        }
    }

    /// The slice with the highest score among some.
    fn best(&self, failing: &[(&Slice, Failing)], view: &View<'_>, is_one: impl Fn(&Slice) -> bool) -> Option<Named> {
        let mut sums = vec![Failing::default(); self.parts.len()];
        for (at, some) in failing {
            for number in self.within(at) {
                if let Some(sum) = sums.get_mut(*number) {
                    *sum += *some;
                }
            }
        }
        let there = self.parts.iter().zip(sums).filter(|(part, failing)| failing.failures > 0 && is_one(&part.slice));
        let scored = there.map(|(part, failing)| (part, failing, self.score_of(part, failing, view)));
        // Of equal ones the slice that comes first, so that the answer is always the same.
        let best = scored.max_by(|(a, _, of_a), (b, _, of_b)| of_a.total_cmp(of_b).then_with(|| b.slice.cmp(&a.slice)));
        best.map(|(part, failing, score)| Named { slice: part.slice.clone(), failing, score })
    }

    /// How well a slice says what fails, in nats: the evidence, less what a slice so narrow, one among so many, costs. Not above 0 where it does not.
    pub(crate) fn score(&self, slice: &Slice, failing: Failing, view: &View<'_>) -> f64 {
        self.part(slice).map_or(0.0, |part| self.score_of(part, failing, view))
    }

    fn score_of(&self, part: &Part, failing: Failing, View { class, ticks, .. }: &View<'_>) -> f64 {
        if !part.usual.is_known || failing.witnessed < LEAST_FAILURES {
            return 0.0;
        }
        let attempts = real(part.series.attempts(ticks.clone()));
        let usual = self.rate_of(&self.watched(part, *class), ticks);
        plain_failures((failing.witnessed, attempts), (MARGIN * usual).min(0.9), self.varying(*class, 0.0).clusters) - self.price(part)
    }
}
