//! Measures that add up: how far each leaf is from what was expected, and what that says.
//!
//! A leaf's deviation is `y = 2 (real - expected) / (|real| + |expected|)`, from -2 (all is gone) to 2 (nothing was expected); a common factor of real and
//! expected is one `y`. Deviations of leaves that did not move are normal on a scale
//!
//! ```text
//! x = y / (1 + t |y|)       t = 1/2: relative to the larger of real and expected,  0: y itself,  -1/2: relative to the smaller
//! ```
//!
//! with a standard deviation that depends on the leaf's size, and a `t` for each side.

use super::evidence::{Evidence, LEVELS, Row, settled};
use super::leaves::Amount;

/// No deviation is measured better than this.
const LEAST_SPREAD: f64 = 0.01;
/// Median of the absolute value of a standard normal variable.
const NORMAL_MEDIAN: f64 = 0.674_489_75;
/// Leaves of all sizes that the leaves of one size are averaged with.
const PRIOR_LEAVES: f64 = 100.0;
/// Where it is seen how heavy tails are: one leaf of a side in so many is farther out than so many standard deviations, were they normal.
const TAILS: [(usize, f64); 2] = [(50, 2.326), (200, 2.807)];
/// Heaviest of tails.
const MOST_TAIL: f64 = 3.0;
/// By how many standard deviations more than the farthest of normal leaves one is that has moved by itself.
const ALONE: f64 = 1.0;
/// Of so many leaves, a few that moved change nothing in what is thought of the noise. Where there are fewer, it is worth its time to learn it again.
const MANY: usize = 10_000;
/// From here on, in standard deviations, leaves are off: noise has some of them, and what moved a little is among them.
const OFF: f64 = 2.5;
/// Standard deviation of a deviation by the rounding of both numbers, in steps by their sum.
const ROUNDING: f64 = 0.816;
/// Where rounding makes no more of a deviation than this, noise is seen; at least one leaf in so many is taken for it.
const FINE: f64 = 0.03;
const FEWEST_FINE: usize = 10;
/// One leaf in so many is hardly any.
const HARDLY_ANY: usize = 2000;
/// How many times fewer leaves than there are move by themselves, unless more are seen to.
const RARE: f64 = 100_000.0;
/// Most leaves that are thought to.
const MOST_ALONE: f64 = 0.2;
/// Standard deviation of leaves around their slice's level, beside half the distance between levels.
const SPREAD: f64 = 0.06;

/// One leaf's deviation.
#[derive(Clone, Copy, Debug)]
struct Deviation {
    y: f64,
    /// Binary logarithm of its size.
    size: i32,
    /// The lesser of its numbers that is not 0.
    least: f64,
    witness: bool,
}

/// A scale on which deviations are normal: its `t` for those below 0, and for those above.
#[derive(Clone, Copy, Debug, Default)]
struct Scale {
    below: f64,
    above: f64,
}

/// How leaves deviate that did not move.
#[derive(Clone, Debug)]
struct Noise {
    scale: Scale,
    /// By size, from `least` on.
    sizes: Vec<OfSize>,
    least: i32,
}

/// How leaves of one size deviate.
#[derive(Clone, Copy, Debug)]
struct OfSize {
    /// Standard deviation on the scale.
    deviation: f64,
    /// Standard deviation of `y` by the rounding of numbers.
    rounding: f64,
    /// Natural logarithm of the share of them that move by themselves.
    ln_alone: f64,
}

/// What the leaves say; those that slices explain already tell nothing of the noise. At first (`explained` is nothing), leaves may have moved to one side: the noise is that of the other,
/// unless both sides look alike. Then, which the second value says, nothing is to be learned of the noise by naming slices.
pub(super) fn evidence(amounts: &[Amount], explained: Option<&[bool]>) -> (Evidence, bool) {
    let deviations: Vec<Deviation> = amounts.iter().map(|amount| Deviation::of(*amount)).collect();
    let mut rest: Vec<Deviation> = deviations.iter().filter(|one| one.witness).copied().collect();
    let steps = Steps::of(&rest);
    let (noise, is_known) = match explained {
        None => {
            let of_one_side = Noise::of_the_quieter_side(&rest, steps);
            let is_known = rest.len() >= MANY && of_one_side.is_of_both(&rest);
            if is_known {
                rest.retain(|one| !of_one_side.is_alone(one, deviations.len()));
            }
            (if is_known { Noise::of(&rest, steps) } else { of_one_side }, is_known)
        }
        Some(explained) => {
            let unexplained = deviations.iter().zip(explained).filter(|(one, explained)| one.witness && !**explained);
            rest = unexplained.map(|(one, _)| *one).collect();
            (Noise::of(&rest, steps), true)
        }
    };
    let levels = Levels::of(&deviations, &noise);
    (deviations.iter().map(|deviation| noise.row(*deviation, &levels)).collect(), is_known)
}

impl Deviation {
    fn of(Amount { real, expected }: Amount) -> Deviation {
        let size = real.abs() + expected.abs();
        if size <= f64::MIN_POSITIVE {
            return Deviation { y: 0.0, size: 0, least: f64::INFINITY, witness: false };
        }
        let least = [real.abs(), expected.abs()].into_iter().filter(|number| *number > 0.0).fold(f64::INFINITY, f64::min);
        Deviation { y: (2.0 * (real - expected) / size).clamp(-2.0, 2.0), size: exponent(size), least, witness: true }
    }
}

/// Binary logarithm, rounded down.
fn exponent(size: f64) -> i32 {
    i32::try_from(size.to_bits() >> 52).unwrap_or(0) - 1023
}

impl Scale {
    /// How much `y` is stretched here: the derivative of `x` is the reciprocal of its square.
    fn stretch(self, y: f64) -> f64 {
        let t = if y < 0.0 { self.below } else { self.above };
        (1.0 + t * y.abs()).max(1e-3)
    }

    fn of(self, y: f64) -> f64 {
        y / self.stretch(y)
    }
}

impl Noise {
    /// Noise where slices may have moved to one side.
    fn of_the_quieter_side(witnesses: &[Deviation], steps: Steps) -> Noise {
        let [below, above] = [-1.0, 1.0].map(|sign| spread(off_to(witnesses, sign, steps.fine)));
        let sign = if below < above { -1.0 } else { 1.0 };
        let t = tail(off_to(witnesses, sign, steps.fine));
        let is_one_sided = witnesses.iter().any(|one| one.y * sign >= 0.0);
        Noise::on((Scale { below: t, above: t }, steps), witnesses, |one| !is_one_sided || one.y * sign >= 0.0)
    }

    /// Noise of leaves that did not move.
    fn of(rest: &[Deviation], steps: Steps) -> Noise {
        let [below, above] = [-1.0, 1.0].map(|sign| tail(off_to(rest, sign, steps.fine)));
        Noise::on((Scale { below, above }, steps), rest, |_| true)
    }

    /// Noise on a scale: its size is that of the leaves that show it, and which leaves move by themselves is seen on the side on which fewer do.
    fn on((scale, steps): (Scale, Steps), all: &[Deviation], shows: impl Fn(&Deviation) -> bool) -> Noise {
        let shown = || all.iter().filter(|one| shows(one)).map(|one| (one.size, scale.of(one.y).abs()));
        let common = spread(shown().filter(|(size, _)| *size >= steps.fine).map(|(_, x)| x).collect()).max(LEAST_SPREAD);
        let least = all.iter().map(|one| one.size).min().unwrap_or(0);
        let most = all.iter().map(|one| one.size).max().unwrap_or(0);
        let mut by_size: Vec<Vec<f64>> = vec![Vec::new(); usize::try_from(most - least).unwrap_or(0) + 1];
        for (size, x) in shown() {
            if let Some(same) = usize::try_from(size - least).ok().and_then(|place| by_size.get_mut(place)) {
                same.push(x);
            }
        }
        let ln_floor = -(RARE * (all.len() as f64).max(1.0)).ln();
        let of_size = by_size.into_iter().zip(least..).map(|(same, size)| {
            let count = same.len() as f64;
            let variance = (count * spread(same).powi(2) + PRIOR_LEAVES * common.powi(2)) / (count + PRIOR_LEAVES);
            // Of numbers that are hardly larger than their steps, most are equal, whatever the noise.
            let deviation = if size < steps.fine { common } else { variance.sqrt() };
            OfSize { deviation: deviation.max(LEAST_SPREAD), rounding: steps.rounding(size), ln_alone: ln_floor }
        });
        let mut noise = Noise { scale, sizes: of_size.collect(), least };
        noise.count_alone(all);
        noise
    }

    /// Whether it is the noise of the other side too: about as many leaves are off to both sides, and hardly any are far off.
    fn is_of_both(&self, all: &[Deviation]) -> bool {
        let (mut below, mut above, mut far) = (0_u32, 0_u32, 0_usize);
        let limit = farthest(all.len()) + ALONE;
        for standard in all.iter().map(|one| self.standard(one)) {
            below += u32::from(standard < -OFF);
            above += u32::from(standard > OFF);
            far += usize::from(standard.abs() > limit);
        }
        let (difference, sum) = (f64::from(below.abs_diff(above)), f64::from(below) + f64::from(above));
        difference <= 2.0 * sum.sqrt() && far * HARDLY_ANY <= all.len()
    }

    /// Whether a leaf is farther off than any of so many is by noise.
    fn is_alone(&self, one: &Deviation, count: usize) -> bool {
        self.standard(one).abs() > farthest(count) + ALONE
    }

    /// Sees how many leaves of each size move by themselves: on the side on which fewer do, since slices may have moved to the other.
    fn count_alone(&mut self, all: &[Deviation]) {
        let limit = farthest(all.len()) + ALONE;
        let mut counts = vec![(0_u32, 0_u32, 0_u32); self.sizes.len()];
        for one in all {
            let standard = self.standard(one);
            let Some((count, below, above)) = counts.get_mut(self.place(one.size)) else { continue };
            *count += 1;
            *below += u32::from(standard < -limit);
            *above += u32::from(standard > limit);
        }
        for (of_size, (count, below, above)) in self.sizes.iter_mut().zip(counts) {
            let share = 2.0 * f64::from(below.min(above)) / f64::from(count.max(1));
            of_size.ln_alone = share.ln().max(of_size.ln_alone).min(MOST_ALONE.ln());
        }
    }

    fn place(&self, size: i32) -> usize {
        usize::try_from(size - self.least).unwrap_or(0).min(self.sizes.len().saturating_sub(1))
    }

    fn of_size(&self, size: i32) -> OfSize {
        self.sizes.get(self.place(size)).copied().unwrap_or(OfSize { deviation: LEAST_SPREAD, rounding: 0.0, ln_alone: MOST_ALONE.ln() })
    }

    /// How many standard deviations a leaf is off.
    fn standard(&self, one: &Deviation) -> f64 {
        let OfSize { deviation, rounding, .. } = self.of_size(one.size);
        one.y / both_ways(deviation * self.scale.stretch(one.y), rounding)
    }

    /// What one leaf says.
    fn row(&self, one: Deviation, levels: &Levels) -> Row {
        let Some((close, moved)) = levels.of_size.get(self.place(one.size)).filter(|_| one.witness) else { return [0; LEVELS] };
        let OfSize { deviation, rounding, ln_alone } = self.of_size(one.size);
        let standard = self.standard(&one);
        // The density of `y`, where that of `x` is normal.
        let density = both_ways(deviation * self.scale.stretch(one.y).powi(2), rounding);
        let usual = narrow(-0.5 * standard * standard - density.ln());
        let y = narrow(one.y);
        let mut ratios = [0.0; LEVELS];
        for (ratio, (level, moved)) in ratios.iter_mut().zip(levels.at.iter().zip(moved)) {
            let square = (y - level) * (y - level);
            *ratio = (moved.height - moved.slope * square).max(close.height - close.slope * square) - usual;
        }
        let ln_alone = narrow(ln_alone);
        settled(&ratios, ratios.iter().copied().fold(f32::NEG_INFINITY, f32::max) + ln_alone, -ln_alone)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "evidence needs no more digits")]
fn narrow(number: f64) -> f32 {
    number as f32
}

/// Levels that are tried, and how leaves that moved to them are around them: as close as moved leaves may be, or as far as leaves that did not move are from theirs.
struct Levels {
    at: [f32; LEVELS],
    /// By size of leaves, as [`Noise::sizes`]: the closer, and the farther by level.
    of_size: Vec<(Density, [Density; LEVELS])>,
}

/// Logarithm of a normal density at its middle, less that of the two that it may be, and how it falls with the square of the distance.
#[derive(Clone, Copy, Debug)]
struct Density {
    height: f32,
    slope: f32,
}

impl Density {
    fn of(spread: f64) -> Density {
        Density { height: narrow(-spread.ln() - 2.0_f64.ln()), slope: narrow(0.5 / (spread * spread)) }
    }
}

impl Levels {
    /// Levels to both sides, or twice as dense to one where nothing moved to the other.
    fn of(all: &[Deviation], noise: &Noise) -> Levels {
        let far = farthest(all.len()) + ALONE;
        let standards = all.iter().filter(|one| one.witness).map(|one| noise.standard(one));
        let (down, up) = standards.fold((false, false), |(down, up), standard| (down || standard < -far, up || standard > far));
        let both = down == up;
        let step = if both { 4.0 } else { 2.0 } / LEVELS as f64;
        let mut at = [0.0; LEVELS];
        for (place, level) in at.iter_mut().enumerate() {
            // Of both sides in turn, from the middle on.
            let (steps, is_up) = if both { (place / 2 + 1, place % 2 == 1) } else { (place + 1, up) };
            *level = step * steps as f64 * if is_up { 1.0 } else { -1.0 };
        }
        let spread = (SPREAD.powi(2) + (step / 2.0).powi(2)).sqrt();
        let of_size = noise.sizes.iter().map(|of_size| {
            let close = both_ways(spread, of_size.rounding);
            // What real and expected have in common makes their difference the smaller, the farther they are from each other.
            (Density::of(close), at.map(|level| Density::of(both_ways(close, of_size.deviation * (1.0 - level * level / 4.0)))))
        });
        Levels { of_size: of_size.collect(), at: at.map(narrow) }
    }
}

/// Standard deviation of what deviates in two ways.
fn both_ways(one: f64, other: f64) -> f64 {
    (one * one + other * other).sqrt()
}

/// How far the farthest of so many standard normal variables is, about.
fn farthest(count: usize) -> f64 {
    (2.0 * (count as f64).max(2.0).ln()).sqrt()
}

/// The steps in which numbers differ: money in cents, counts by one.
#[derive(Clone, Copy, Debug)]
struct Steps {
    /// The least number that there is.
    quantum: f64,
    /// Leaves from this size on show noise, and not only how numbers are rounded.
    fine: i32,
}

impl Steps {
    fn of(leaves: &[Deviation]) -> Steps {
        let quantum = leaves.iter().map(|one| one.least).fold(f64::INFINITY, f64::min);
        let fine = exponent(ROUNDING * quantum / FINE) + 1;
        let fewest = leaves.len() / FEWEST_FINE;
        if leaves.iter().filter(|one| one.size >= fine).count() >= fewest {
            return Steps { quantum, fine };
        }
        // Then those that are largest show most of it.
        let mut sizes: Vec<i32> = leaves.iter().map(|one| one.size).collect();
        let place = sizes.len() - fewest.max(1);
        Steps { quantum, fine: *sizes.select_nth_unstable(place).1 }
    }

    /// Standard deviation of `y` by rounding, of leaves of this size.
    fn rounding(self, size: i32) -> f64 {
        ROUNDING * self.quantum / f64::from(size).exp2()
    }
}

/// How far the leaves from a size on are off to one side.
fn off_to(leaves: &[Deviation], sign: f64, from: i32) -> Vec<f64> {
    leaves.iter().filter(|one| one.size >= from && one.y * sign >= 0.0).map(|one| one.y.abs()).collect()
}

/// Robust standard deviation around 0 of what is off so far.
fn spread(mut sizes: Vec<f64>) -> f64 {
    let middle = sizes.len() / 2;
    if sizes.is_empty() {
        return 0.0;
    }
    *sizes.select_nth_unstable_by(middle, f64::total_cmp).1 / NORMAL_MEDIAN
}

/// The `t` of one side, whose leaves are so far off: such that its tails are those of a normal distribution, beside its middle.
fn tail(mut all: Vec<f64>) -> f64 {
    let count = all.len();
    let mut nth = |place: usize| (place < count).then(|| *all.select_nth_unstable_by(place, f64::total_cmp).1);
    let Some(middle) = nth(count / 2).filter(|middle| *middle > 0.0) else { return 0.0 };
    let mut of_tail = |(share, normal): (usize, f64)| {
        let far = nth(count.checked_sub(count / share + 1)?)?;
        let ratio = normal / NORMAL_MEDIAN;
        Some((far - ratio * middle) / ((ratio - 1.0) * middle * far))
    };
    let found: Vec<f64> = TAILS.into_iter().filter_map(&mut of_tail).collect();
    (found.iter().sum::<f64>() / (found.len() as f64).max(1.0)).clamp(-0.5, MOST_TAIL)
}
