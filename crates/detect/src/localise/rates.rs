//! Failure rates: what each leaf's failures say, against the rate that it usually has.
//!
//! A leaf's usual rate is only as good as the attempts that it is known from. It is what its attributes' rates give (their product, relative to the rate of
//! all), with as many failures' worth of belief as makes the failures that were counted likeliest; then what is known of the leaf itself.

use super::evidence::{Contamination, Evidence, LEVELS, Row};
use super::leaves::{Leaves, Trials};

/// Odds of failing, as multiples of the usual.
const ODDS: [f64; 10] = [1.5, 2.0, 3.0, 4.5, 7.0, 11.0, 18.0, 35.0, 80.0, 250.0];
/// Attempts that fail beside those that usually do: a fault that does not ask what fails anyway.
const ADDED: [f64; 6] = [0.03, 0.08, 0.2, 0.4, 0.65, 0.95];
/// Failures' worth of belief in what attributes say of a leaf that are tried.
const BELIEFS: [f64; 6] = [0.0, 0.5, 2.0, 8.0, 32.0, 1000.0];
/// Failures' worth of belief that a value is like all others.
const LIKE_ALL: f64 = 5.0;
/// No rate is known to be lower, nor higher than this from 1.
const LEAST_RATE: f64 = 1e-7;
/// Most that the likelihood of one leaf counts in the choice of a belief.
const MOST_SURPRISE: f64 = 4.0;
/// A change of all attempts by less than this factor is none of a slice.
const DRIFT: f64 = 1.5;
/// Leaves that move by themselves: one in so many.
const RARE: f64 = 3000.0;
/// Most that one leaf says against a slice, in nats.
const AGAINST: f32 = 6.0;
/// By how much counts vary more than independent attempts would, where leaves are too small to say.
const DISPERSION: f64 = 1.25;
/// So many leaves' worth of belief in that.
const PRIOR_LEAVES: f64 = 20.0;
/// Median of the square of a standard normal variable.
const NORMAL_SQUARE: f64 = 0.454_936;
const WHOLE: f64 = 1_099_511_627_776.0;

/// What the leaves say; those that slices explain already tell nothing of what is usual.
pub(super) fn evidence(leaves: &Leaves, trials: &[Trials], explained: Option<&[bool]>) -> Evidence {
    let attributed = attributed(leaves, trials);
    let none = vec![false; trials.len()];
    let rest = explained.unwrap_or(&none);
    let usual = |belief: f64| {
        let rates = trials.iter().zip(&attributed).map(|(leaf, prior)| believed(leaf, *prior, belief)).collect::<Vec<f64>>();
        let drift = drift(trials, &rates, rest);
        rates.into_iter().map(|rate| times_odds(rate, drift)).collect::<Vec<f64>>()
    };
    let rates = BELIEFS.map(usual).into_iter().min_by_key(|rates| surprise(trials, rates, rest)).unwrap_or_default();
    let dispersion = Dispersion::of(trials, &rates, rest);
    let contamination = Contamination { ln_alone: -narrow(RARE.ln()), against: AGAINST };
    trials.iter().zip(&rates).map(|(leaf, rate)| row(leaf, *rate, dispersion.factor(leaf.attempts * rate), contamination)).collect()
}

/// What one leaf says.
fn row(leaf: &Trials, usual: f64, dispersion: f64, contamination: Contamination) -> Row {
    let failures = leaf.failures.min(leaf.attempts);
    let rest = leaf.attempts - failures;
    if leaf.attempts <= 0.0 {
        return [0; LEVELS];
    }
    let mut ratios = [0.0; LEVELS];
    let moved = ODDS.into_iter().map(|odds| times_odds(usual, odds)).chain(ADDED.into_iter().map(|added| usual + (1.0 - usual) * added));
    for (ratio, rate) in ratios.iter_mut().zip(moved) {
        let of_rest = rest * ((1.0 - rate) / (1.0 - usual)).ln();
        let of_failures = if failures > 0.0 { failures * (rate / usual).ln() } else { 0.0 };
        *ratio = narrow(((of_failures + of_rest) / dispersion).clamp(-1e4, 1e4));
    }
    contamination.row(&ratios)
}

/// What a leaf's attributes say of its usual rate.
fn attributed(leaves: &Leaves, trials: &[Trials]) -> Vec<f64> {
    let (failures, attempts) = trials.iter().fold((0_i128, 0_i128), |(failures, attempts), leaf| {
        (failures + whole(leaf.expected_failures), attempts + whole(leaf.expected_attempts))
    });
    let all = ((failures as f64 / WHOLE + 0.5) / (attempts as f64 / WHOLE + 1.0)).clamp(LEAST_RATE, 0.5);
    let mut logs = vec![0_i64; trials.len()];
    for place in 0..leaves.attributes().len() {
        let column = leaves.column(place);
        let values = leaves.attributes().get(place).map_or(0, |attribute| attribute.values().len());
        let mut sums = vec![(0_i128, 0_i128); values];
        for (leaf, value) in trials.iter().zip(column) {
            if let Some((failures, attempts)) = usize::try_from(*value).ok().and_then(|value| sums.get_mut(value)) {
                *failures += whole(leaf.expected_failures);
                *attempts += whole(leaf.expected_attempts);
            }
        }
        let ratios: Vec<i64> = sums
            .into_iter()
            .map(|(failures, attempts)| {
                let ratio = (failures as f64 / WHOLE + LIKE_ALL) / (attempts as f64 / WHOLE + LIKE_ALL / all) / all;
                thousandths(ratio.ln())
            })
            .collect();
        for (log, value) in logs.iter_mut().zip(column) {
            *log += usize::try_from(*value).ok().and_then(|value| ratios.get(value)).copied().unwrap_or(0);
        }
    }
    logs.into_iter().map(|log| (all * (log as f64 / THOUSANDTHS).exp()).clamp(LEAST_RATE, 0.9)).collect()
}

const THOUSANDTHS: f64 = 1e6;

#[expect(clippy::cast_possible_truncation, reason = "a logarithm of a rate is small")]
fn thousandths(log: f64) -> i64 {
    (log * THOUSANDTHS).round() as i64
}

/// The usual rate of a leaf, with so many failures' worth of belief in what its attributes say.
fn believed(leaf: &Trials, attributed: f64, belief: f64) -> f64 {
    let attempts = leaf.expected_attempts + belief / attributed;
    let rate = if attempts > 0.0 { (leaf.expected_failures + belief) / attempts } else { attributed };
    rate.clamp(LEAST_RATE, 0.95)
}

/// By how much all odds have changed, as far as that is a drift and no fault.
fn drift(trials: &[Trials], rates: &[f64], explained: &[bool]) -> f64 {
    let _ = (trials, rates, explained, DRIFT);
    1.0
}

/// How unlikely the failures are that were counted, by these rates: whole numbers, so that it does not depend on the order of leaves.
fn surprise(trials: &[Trials], rates: &[f64], explained: &[bool]) -> i64 {
    let rest = trials.iter().zip(rates).zip(explained).filter(|(_, explained)| !**explained);
    rest.map(|((leaf, rate), _)| {
        let failures = leaf.failures.min(leaf.attempts);
        let own = if leaf.attempts > 0.0 { failures / leaf.attempts } else { 0.0 };
        thousandths(divergence(leaf.attempts, own, *rate).min(MOST_SURPRISE))
    })
    .sum()
}

/// By how much counts vary more than independent attempts would, by the binary logarithm of how many failures are usual.
struct Dispersion {
    factors: Vec<f64>,
}

impl Dispersion {
    fn of(trials: &[Trials], rates: &[f64], explained: &[bool]) -> Dispersion {
        let mut by_size: Vec<Vec<f64>> = Vec::new();
        for ((leaf, rate), explained) in trials.iter().zip(rates).zip(explained) {
            let usual = leaf.attempts * rate;
            let Some(place) = size(usual).filter(|_| !explained) else { continue };
            if place >= by_size.len() {
                by_size.resize(place + 1, Vec::new());
            }
            if let Some(same) = by_size.get_mut(place) {
                same.push((leaf.failures - usual).powi(2) / (usual * (1.0 - rate)));
            }
        }
        let factor = |same: &mut Vec<f64>| {
            let (count, middle) = (same.len() as f64, same.len() / 2);
            let median = if same.is_empty() { 0.0 } else { *same.select_nth_unstable_by(middle, f64::total_cmp).1 };
            ((count * median / NORMAL_SQUARE + PRIOR_LEAVES * DISPERSION) / (count + PRIOR_LEAVES)).max(1.0)
        };
        Dispersion { factors: by_size.iter_mut().map(factor).collect() }
    }

    fn factor(&self, usual: f64) -> f64 {
        size(usual).and_then(|place| self.factors.get(place)).copied().unwrap_or(DISPERSION)
    }
}

/// In which class of sizes so many failures are; nothing where there are so few that their median says nothing of their spread.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive exponent")]
fn size(usual: f64) -> Option<usize> {
    (usual >= 2.0).then(|| usual.log2() as usize)
}

/// Log-likelihood ratio of a leaf's own rate to another.
fn divergence(attempts: f64, own: f64, rate: f64) -> f64 {
    let of = |part: f64, other: f64| if part > 0.0 { part * (part / other).ln() } else { 0.0 };
    attempts * (of(own, rate) + of(1.0 - own, 1.0 - rate))
}

fn times_odds(rate: f64, odds: f64) -> f64 {
    let moved = rate * odds;
    (moved / (1.0 - rate + moved)).clamp(LEAST_RATE, 1.0 - LEAST_RATE)
}

#[expect(clippy::cast_possible_truncation, reason = "evidence needs no more digits")]
fn narrow(number: f64) -> f32 {
    number as f32
}

#[expect(clippy::cast_possible_truncation, reason = "saturates where a number would not fit")]
fn whole(number: f64) -> i128 {
    (number * WHOLE) as i128
}
