//! Failure rates: what each leaf's failures say, against the rate that it usually has.
//!
//! A leaf's usual rate is only as good as the attempts that it is known from. It is what its attributes' rates give (their product, relative to the rate of
//! all), with as many failures' worth of belief as makes the failures that were counted likeliest; then what is known of the leaf itself.
//!
//! Failures `k` of a leaf with `n` attempts and the usual rate `p` are negative binomial: `mean n p`, variance `n p + v (n p)^2`. The variation `v` is estimated by moments, from leaves of
//! about as many usual failures. In a slice that moved the mean is `n` times the level's rate, and the variation is greater by `1/5`, or by 1 where its leaves moved unlike each other. A leaf moves
//! by itself to each level the less likely the higher it is; how often, is counted among the leaves that no slice explains.

use libm::lgamma;

use super::evidence::{Evidence, LEVELS, Row, narrow, settled};
use super::leaves::{Leaves, Trials};

/// Levels of slices all of whose leaves moved about alike: odds of failing, as multiples of the usual.
const ALIKE: [f64; 8] = [1.5, 2.2, 3.3, 5.0, 8.0, 14.0, 30.0, 100.0];
/// Of slices whose leaves moved differently.
const UNLIKE: [f64; 4] = [2.0, 5.0, 15.0, 60.0];
/// Attempts that fail beside those that usually do: a fault that does not ask what fails anyway.
const ADDED: [f64; 4] = [0.1, 0.3, 0.6, 0.95];
/// How much leaves vary around the level of their slice: shapes of gamma distributions.
const SHAPE_ALIKE: f64 = 5.0;
const SHAPE_UNLIKE: f64 = 1.0;
/// Failures' worth of belief in what attributes say of a leaf that are tried.
const BELIEFS: [f64; 6] = [0.0, 0.5, 2.0, 8.0, 32.0, 1000.0];
/// Failures' worth of belief that a value is like all others.
const LIKE_ALL: f64 = 5.0;
/// No rate is known to be lower, nor higher than this from 1.
const LEAST_RATE: f64 = 1e-7;
/// Most that the likelihood of one leaf counts in the choice of a belief.
const MOST_SURPRISE: f64 = 4.0;
/// By how much fewer leaves move by themselves to each level: by its multiple of odds, about. Nats.
const RARER: [f32; LEVELS] = [0.4, 0.8, 1.2, 1.6, 2.1, 2.6, 3.4, 4.6, 0.7, 1.6, 2.7, 4.1, 1.9, 2.9, 3.6, 4.4];
/// At least one leaf in so many moves by itself, however few are seen.
const RAREST: f64 = 1e6;
/// A leaf that is this evident, in nats, and in no slice that is named, has moved by itself.
const EVIDENT: f32 = 6.0;
/// Most that one leaf says against a slice, in nats.
const AGAINST: f32 = 5.0;
/// Classes of sizes: from a thousandth of a failure on, each of twice as many.
const SIZES: usize = 32;
/// One leaf counts no more than so many standard deviations.
const MOST_DEVIATIONS: f64 = 4.0;
/// What is thought of how rates vary where leaves do not say, and how sure that is (the reciprocal of a variance).
const VARIATION: f64 = 0.04;
const BELIEF_IN_VARIATION: f64 = 400.0;
/// Between which it is.
const LEAST_VARIATION: f64 = 1e-4;
const MOST_VARIATION: f64 = 1.0;
/// Sums are of whole numbers, of which this many are 1, so that they do not depend on the order of leaves.
const WHOLE: f64 = 1_099_511_627_776.0;

/// What the leaves say; those that slices explain already tell nothing of what is usual. At most one leaf in `rare` is thought to move by itself.
pub(super) fn evidence(leaves: &Leaves, trials: &[Trials], explained: Option<&[bool]>, rare: f64) -> Evidence {
    let attributed = attributed(leaves, trials);
    let none = vec![false; trials.len()];
    let explained_so_far = explained.unwrap_or(&none);
    let usual = |belief: f64| trials.iter().zip(&attributed).map(|(leaf, prior)| believed(leaf, *prior, belief)).collect::<Vec<f64>>();
    let rates = BELIEFS.map(usual).into_iter().min_by_key(|rates| surprise(trials, rates, explained_so_far)).unwrap_or_default();
    let variation = Variation::of(trials, &rates, explained_so_far);
    let ratios: Vec<[f32; LEVELS]> =
        trials.iter().zip(&rates).map(|(leaf, rate)| ratios(leaf, *rate, variation.at(leaf.attempts * rate))).collect();
    let rare = if explained.is_some() { rarity(&ratios, explained_so_far).max(rare) } else { rare };
    ratios.iter().map(|ratios| row(ratios, rare)).collect()
}

/// One leaf in so many moves by itself, as far as is seen.
fn rarity(ratios: &[[f32; LEVELS]], explained: &[bool]) -> f64 {
    let rest = || ratios.iter().zip(explained).filter(|(_, explained)| !**explained);
    let alone = rest().filter(|(ratios, _)| ratios.iter().any(|ratio| *ratio > EVIDENT)).count();
    (rest().count() as f64 / (alone as f64 + 1.0)).min(RAREST)
}

/// Evidence of a leaf of its log-likelihood ratios. A leaf may also have moved by itself, the less likely the more.
fn row(ratios: &[f32; LEVELS], rare: f64) -> Row {
    let ln_rare = narrow(rare.ln());
    let alone = ratios.iter().zip(RARER).map(|(ratio, rarer)| ratio - ln_rare - rarer).fold(0.0, f32::max);
    settled(ratios, alone, AGAINST)
}

/// Log-likelihood ratios of one leaf, by level, where rates vary by this much beyond chance.
fn ratios(leaf: &Trials, usual: f64, variation: f64) -> [f32; LEVELS] {
    let mut ratios = [0.0; LEVELS];
    if leaf.attempts <= 0.0 {
        return ratios;
    }
    let [usually, alike, unlike] =
        [0.0, 1.0 / SHAPE_ALIKE, 1.0 / SHAPE_UNLIKE].map(|more| NegativeBinomial::of(leaf.failures, 1.0 / (variation + more)));
    let is_usual = usually.ln_likelihood(leaf.attempts * usual);
    let multiple = |odds: f64| times_odds(usual, odds);
    let levels = (ALIKE.into_iter().map(|odds| (alike, multiple(odds))))
        .chain(UNLIKE.into_iter().map(|odds| (unlike, multiple(odds))))
        .chain(ADDED.into_iter().map(|added| (alike, usual + (1.0 - usual) * added)));
    for (ratio, (distribution, rate)) in ratios.iter_mut().zip(levels) {
        *ratio = narrow((distribution.ln_likelihood(leaf.attempts * rate) - is_usual).clamp(-1e4, 1e4));
    }
    ratios
}

/// Counts around a mean that itself varies, as gamma distributions of this shape do.
#[derive(Clone, Copy, Debug)]
struct NegativeBinomial {
    count: f64,
    shape: f64,
    /// What depends on these alone.
    of_count: f64,
}

impl NegativeBinomial {
    fn of(count: f64, shape: f64) -> NegativeBinomial {
        let of_count = if count > 0.0 { lgamma(count + shape) - lgamma(shape) } else { 0.0 };
        NegativeBinomial { count, shape, of_count }
    }

    /// But for what all have in common.
    fn ln_likelihood(self, mean: f64) -> f64 {
        let of_mean = if self.count > 0.0 { self.count * (mean / (self.shape + mean)).ln() } else { 0.0 };
        self.of_count + of_mean - self.shape * (mean / self.shape).ln_1p()
    }
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
                millionths(ratio.ln())
            })
            .collect();
        for (log, value) in logs.iter_mut().zip(column) {
            *log += usize::try_from(*value).ok().and_then(|value| ratios.get(value)).copied().unwrap_or(0);
        }
    }
    logs.into_iter().map(|log| (all * (log as f64 / MILLIONTHS).exp()).clamp(LEAST_RATE, 0.9)).collect()
}

/// Logarithms are summed in these.
const MILLIONTHS: f64 = 1e6;

#[expect(clippy::cast_possible_truncation, reason = "a logarithm of a rate is small")]
fn millionths(log: f64) -> i64 {
    (log * MILLIONTHS).round() as i64
}

/// The usual rate of a leaf, with so many failures' worth of belief in what its attributes say.
fn believed(leaf: &Trials, attributed: f64, belief: f64) -> f64 {
    let attempts = leaf.expected_attempts + belief / attributed;
    let rate = if attempts > 0.0 { (leaf.expected_failures + belief) / attempts } else { attributed };
    rate.clamp(LEAST_RATE, 0.95)
}

/// How unlikely the failures are that were counted, by these rates: whole numbers, so that it does not depend on the order of leaves.
fn surprise(trials: &[Trials], rates: &[f64], explained: &[bool]) -> i64 {
    let rest = trials.iter().zip(rates).zip(explained).filter(|(_, explained)| !**explained);
    rest.map(|((leaf, rate), _)| {
        let failures = leaf.failures.min(leaf.attempts);
        let own = if leaf.attempts > 0.0 { failures / leaf.attempts } else { 0.0 };
        millionths(divergence(leaf.attempts, own, *rate).min(MOST_SURPRISE))
    })
    .sum()
}

/// By how much the rates of leaves vary beyond chance, by how many failures are usual: squares of relative standard deviations.
struct Variation {
    by_size: Vec<f64>,
}

impl Variation {
    /// By moments: what the squares of differences have beyond what chance has. One leaf counts no more than a few standard deviations.
    fn of(trials: &[Trials], rates: &[f64], explained: &[bool]) -> Variation {
        let mut sums = vec![(0_i128, 0_i128, 0_i128); SIZES];
        for ((leaf, rate), explained) in trials.iter().zip(rates).zip(explained) {
            let usual = leaf.attempts * rate;
            let Some((beyond, squares, all)) = sums.get_mut(size(usual)).filter(|_| !explained && usual > 0.0) else { continue };
            let most = MOST_DEVIATIONS * usual.sqrt() + 1.0;
            *beyond += whole((leaf.failures - usual).clamp(-most, most).powi(2) - usual * (1.0 - rate));
            *squares += whole(usual * usual);
            *all += whole(usual);
        }
        let variation = |(beyond, squares, all): (i128, i128, i128)| {
            let [beyond, squares, all] = [beyond, squares, all].map(|sum| sum as f64 / WHOLE);
            // What is known by it, as the reciprocal of a variance.
            let known = squares * squares / (all + 2.0 * squares).max(f64::MIN_POSITIVE);
            let own = if squares > 0.0 { beyond / squares } else { 0.0 };
            ((known * own + BELIEF_IN_VARIATION * VARIATION) / (known + BELIEF_IN_VARIATION)).clamp(LEAST_VARIATION, MOST_VARIATION)
        };
        Variation { by_size: sums.into_iter().map(variation).collect() }
    }

    fn at(&self, usual: f64) -> f64 {
        self.by_size.get(size(usual)).copied().unwrap_or(VARIATION)
    }
}

/// In which class of sizes so many failures are.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the number of classes")]
fn size(usual: f64) -> usize {
    (usual.max(f64::MIN_POSITIVE).log2() + 10.0).clamp(0.0, SIZES as f64 - 1.0) as usize
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

#[expect(clippy::cast_possible_truncation, reason = "saturates where a number would not fit")]
fn whole(number: f64) -> i128 {
    (number * WHOLE) as i128
}
