//! When a part of the fleet failed more than usual, and how much that says.

use libm::lgamma;

/// Ratios to the usual rate by which intervals are searched.
const RATIOS: [f64; 6] = [2.5, 6.0, 20.0, 80.0, 300.0, 1500.0];
/// The least ratio to the usual rate that is a fault.
const LEAST: f64 = 2.0;

/// What is usual.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usual {
    /// Failures a sale in the whole fleet.
    pub(crate) rate: f64,
    /// How alike parts are: the shape of the gamma distribution of their rates.
    pub(crate) shape: f64,
}

/// Failures and sales of a time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    pub(crate) failed: f64,
    pub(crate) tried: f64,
}

/// The time in which a part most likely had a fault.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Found {
    /// Steps, the last included.
    pub(crate) interval: (u32, u32),
    pub(crate) counts: Counts,
    /// Logarithm of the odds that there was one.
    pub(crate) score: f64,
}

/// One step of a part's time.
#[derive(Clone, Copy, Debug)]
struct Step {
    at: u32,
    counts: Counts,
}

/// Searches a part's time, of which `tried` has the sales and `failed` the weights of failures, both in order. `ln_odds` are those of a fault before anything was seen.
pub(crate) fn scan(tried: &[(u32, u32)], failed: &[(u32, f64)], (usual, ln_odds): (Usual, f64)) -> Option<Found> {
    let steps = merged(tried, failed);
    let (first, last) = (steps.first()?.at, steps.last()?.at);
    let all = sum(&steps);
    let mut intervals = vec![(0, steps.len() - 1)];
    let own = (all.failed + usual.shape) / (all.tried + usual.shape / usual.rate);
    for rate in [usual.rate, own] {
        for ratio in RATIOS.into_iter().filter(|ratio| ratio * rate < 3.0) {
            intervals.extend(best(&steps, rate, ratio));
        }
    }
    intervals.sort_unstable();
    intervals.dedup();
    #[expect(clippy::cast_precision_loss, reason = "a logarithm of it")]
    let places = (steps.len() * (steps.len() + 1)) as f64 / 2.0;
    let found = intervals.into_iter().filter_map(|(begin, end)| {
        let within = steps.get(begin..=end)?;
        let counts = sum(within);
        let rest = Counts { failed: (all.failed - counts.failed).max(0.0), tried: (all.tried - counts.tried).max(0.0) };
        let interval = (within.first()?.at, within.last()?.at);
        // A fault is as likely to have been there all the time as to have begun or ended in it.
        let which = if interval == (first, last) { 0.5_f64.ln() } else { (0.5 / places).ln() };
        Some(Found { interval, counts, score: evidence(counts, rest, usual) + ln_odds + which })
    });
    found.max_by(|one, other| one.score.total_cmp(&other.score))
}

/// How much the counts of a time say for a fault, against what was usual in the rest.
pub(crate) fn evidence(counts: Counts, rest: Counts, usual: Usual) -> f64 {
    let Counts { failed, tried } = counts;
    let (shape, exposure) = (usual.shape + rest.failed, usual.shape / usual.rate + rest.tried);
    let least = (LEAST * shape / exposure).min(0.5);
    // A sale that failed later than it was tried may be counted in another step.
    let tried = tried.max(failed).max(f64::MIN_POSITIVE);
    if failed < 1.0 || failed / tried <= least {
        return f64::NEG_INFINITY;
    }
    // Both without (tried^failed / failed!), which they have in common.
    let of_fault = lgamma(failed) - failed * tried.ln() - (1.0 / least).ln().ln();
    let of_usual = lgamma(shape + failed) - lgamma(shape) + shape * (exposure / (exposure + tried)).ln() - failed * (exposure + tried).ln();
    of_fault - of_usual
}

/// The interval whose failures exceed what is usual most, were they `ratio` times as many.
fn best(steps: &[Step], rate: f64, ratio: f64) -> Option<(usize, usize)> {
    let (of_failure, of_sale) = (ratio.ln(), rate * (ratio - 1.0));
    let mut best: Option<(f64, (usize, usize))> = None;
    let (mut sum, mut begin) = (0.0, 0);
    for (place, step) in steps.iter().enumerate() {
        if sum <= 0.0 {
            (sum, begin) = (0.0, place);
        }
        sum += step.counts.failed * of_failure - step.counts.tried * of_sale;
        if sum > best.map_or(0.0, |(most, _)| most) {
            best = Some((sum, (begin, place)));
        }
    }
    best.map(|(_, interval)| interval)
}

fn sum(steps: &[Step]) -> Counts {
    steps
        .iter()
        .fold(Counts::default(), |sum, step| Counts { failed: sum.failed + step.counts.failed, tried: sum.tried + step.counts.tried })
}

fn merged(tried: &[(u32, u32)], failed: &[(u32, f64)]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::with_capacity(tried.len());
    let (mut tried, mut failed) = (tried.iter().peekable(), failed.iter().peekable());
    loop {
        let at = match (tried.peek(), failed.peek()) {
            (Some((one, _)), Some((other, _))) => *one.min(other),
            (Some((at, _)), None) | (None, Some((at, _))) => *at,
            (None, None) => return steps,
        };
        let mut counts = Counts::default();
        while let Some((_, count)) = tried.next_if(|(step, _)| *step == at) {
            counts.tried += f64::from(*count);
        }
        while let Some((_, weight)) = failed.next_if(|(step, _)| *step == at) {
            counts.failed += weight;
        }
        steps.push(Step { at, counts });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Usual = Usual { rate: 0.005, shape: 3.0 };

    fn steady(steps: u32, each: u32) -> Vec<(u32, u32)> {
        (0..steps).map(|step| (step, each)).collect()
    }

    #[test]
    fn the_time_of_a_fault_is_found() {
        let failed: Vec<_> = (0..60).map(|step| (step, if (20..30).contains(&step) { 6.0 } else { 0.05 })).collect();
        let found = scan(&steady(60, 10), &failed, (USUAL, -5.0)).unwrap();
        assert_eq!(found.interval, (20, 29));
        assert!(found.score > 100.0, "{found:?}");
    }

    #[test]
    fn what_always_fails_was_so_all_the_time() {
        let found = scan(&[(3, 1), (90, 1), (400, 1)], &[(3, 1.0), (90, 1.0), (400, 1.0)], (USUAL, -6.0)).unwrap();
        assert_eq!(found.interval, (3, 400));
        assert!(found.score > 3.0, "{found:?}");
        // Three of a hundred are hardly more than usual.
        let found = scan(&steady(100, 1), &[(3, 1.0), (50, 1.0), (90, 1.0)], (USUAL, -6.0)).unwrap();
        assert!(found.score < -3.0, "{found:?}");
    }

    #[test]
    fn parts_differ_without_a_fault() {
        // Twice the usual rate over any number of sales.
        for each in [10, 1000, 100_000] {
            let failed: Vec<_> = (0..60).map(|step| (step, f64::from(each) * 0.01)).collect();
            let found = scan(&steady(60, each), &failed, (USUAL, -5.0)).unwrap();
            assert!(found.score < 0.0, "{each} {found:?}");
        }
    }

    #[test]
    fn more_failures_say_more() {
        let rest = Counts { failed: 2.0, tried: 400.0 };
        let at = |failed| evidence(Counts { failed, tried: 100.0 }, rest, USUAL);
        assert_eq!(at(0.0), f64::NEG_INFINITY);
        assert!((2..100).map(f64::from).all(|failed| at(failed) <= at(failed + 1.0)));
    }
}
