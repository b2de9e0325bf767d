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

use std::cmp::Ordering;

use super::evidence::{Evidence, LEVELS, Row, greater, greatest, narrow, settled};
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

/// How far all leaves are from what was expected.
pub(super) struct Deviations {
    all: Vec<Deviation>,
    steps: Steps,
}

/// One leaf's deviation.
#[derive(Clone, Copy, Debug)]
struct Deviation {
    y: f64,
    /// Binary logarithm of its size.
    size: i32,
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
    /// Variance on the scale.
    variance: f64,
    /// Variance of `y` by the rounding of numbers.
    rounding: f64,
    /// Natural logarithm of the share of them that move by themselves.
    ln_alone: f64,
}

impl Deviations {
    pub(super) fn of(amounts: &[Amount]) -> Deviations {
        let all: Vec<Deviation> = amounts.iter().map(|amount| Deviation::of(*amount)).collect();
        let steps = Steps::of(amounts, &all);
        Deviations { all, steps }
    }

    /// What the leaves say while nothing is known. They may have moved to one side, so the noise is that of the other. Where many leaves look alike on both sides, which the second value
    /// says, nothing is to be learned of the noise by naming slices.
    pub(super) fn at_first(&self) -> (Evidence, bool) {
        let witnesses: Vec<Deviation> = self.all.iter().filter(|one| one.witness).copied().collect();
        let of_one_side = Noise::of_the_quieter_side(&witnesses, self.steps);
        let is_known = witnesses.len() >= MANY && of_one_side.is_of_both(&witnesses);
        (self.evidence(&of_one_side.with_alone(&witnesses)), is_known)
    }

    /// What the leaves say, where those that slices explain tell nothing of the noise.
    pub(super) fn beside(&self, explained: &[bool]) -> Evidence {
        let is_rest = |(one, explained): &(&Deviation, &bool)| one.witness && !**explained;
        let rest: Vec<Deviation> = self.all.iter().zip(explained).filter(is_rest).map(|(one, _)| *one).collect();
        self.evidence(&Noise::of(&rest, self.steps).with_alone(&rest))
    }

    fn evidence(&self, noise: &Noise) -> Evidence {
        let levels = Levels::of(&self.all, noise);
        self.all.iter().map(|one| noise.row(*one, &levels)).collect()
    }
}

impl Deviation {
    fn of(Amount { real, expected }: Amount) -> Deviation {
        // Of the halves, which do not overflow.
        let half = 0.5 * real.abs() + 0.5 * expected.abs();
        if half <= f64::MIN_POSITIVE {
            return Deviation { y: 0.0, size: 0, witness: false };
        }
        Deviation { y: ((real - expected) / half).clamp(-2.0, 2.0), size: exponent(half) + 1, witness: true }
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
        let [mut below, mut above] = Side::both_of(witnesses, steps.fine);
        let (sign, side) = if below.spread() < above.spread() { (-1.0, &mut below) } else { (1.0, &mut above) };
        let t = side.tail();
        let is_one_sided = witnesses.iter().any(|one| one.y * sign >= 0.0);
        Noise::on((Scale { below: t, above: t }, steps), witnesses, |one| !is_one_sided || one.y * sign >= 0.0)
    }

    /// Noise of leaves that did not move.
    fn of(rest: &[Deviation], steps: Steps) -> Noise {
        let [below, above] = Side::both_of(rest, steps.fine).map(|mut side| side.tail());
        Noise::on((Scale { below, above }, steps), rest, |_| true)
    }

    /// Noise on a scale: its size is that of the leaves that show it. Hardly any leaf is thought to move by itself.
    fn on((scale, steps): (Scale, Steps), all: &[Deviation], shows: impl Fn(&Deviation) -> bool) -> Noise {
        let least = all.iter().map(|one| one.size).min().unwrap_or(0);
        let most = all.iter().map(|one| one.size).max().unwrap_or(0);
        let mut by_size: Vec<Vec<Off>> = vec![Vec::new(); usize::try_from(most - least).unwrap_or(0) + 1];
        for one in all.iter().filter(|one| shows(one)) {
            if let Some(same) = usize::try_from(one.size - least).ok().and_then(|place| by_size.get_mut(place)) {
                same.push(Off::by(scale.of(one.y)));
            }
        }
        let fine = by_size.iter().zip(least..).filter(|(_, size)| *size >= steps.fine);
        let common = spread(&mut fine.flat_map(|(same, _)| same).copied().collect::<Vec<Off>>()).max(LEAST_SPREAD);
        let ln_floor = -(RARE * (all.len() as f64).max(1.0)).ln();
        let of_size = by_size.iter_mut().zip(least..).map(|(same, size)| {
            let count = same.len() as f64;
            let variance = (count * spread(same).powi(2) + PRIOR_LEAVES * common.powi(2)) / (count + PRIOR_LEAVES);
            // Of numbers that are hardly larger than their steps, most are equal, whatever the noise.
            let variance = if size < steps.fine { common * common } else { variance };
            OfSize { variance: variance.max(LEAST_SPREAD * LEAST_SPREAD), rounding: steps.rounding(size).powi(2), ln_alone: ln_floor }
        });
        Noise { scale, sizes: of_size.collect(), least }
    }

    /// Whether it is the noise of the other side too: about as many leaves are off to both sides, and hardly any are far off.
    fn is_of_both(&self, all: &[Deviation]) -> bool {
        let (mut below, mut above, mut far) = (0_u32, 0_u32, 0_usize);
        let limit = farthest(all.len()) + ALONE;
        for one in all {
            let (square, variance) = (one.y * one.y, self.variance(one));
            let is_off = square > OFF * OFF * variance;
            below += u32::from(is_off && one.y < 0.0);
            above += u32::from(is_off && one.y > 0.0);
            far += usize::from(square > limit * limit * variance);
        }
        let (difference, sum) = (f64::from(below.abs_diff(above)), f64::from(below) + f64::from(above));
        difference <= 2.0 * sum.sqrt() && far * HARDLY_ANY <= all.len()
    }

    /// With how many leaves of each size are seen to move by themselves: on the side on which fewer do, since slices may have moved to the other.
    fn with_alone(mut self, all: &[Deviation]) -> Noise {
        let limit = farthest(all.len()) + ALONE;
        let mut counts = vec![(0_u32, 0_u32, 0_u32); self.sizes.len()];
        for one in all {
            let off = self.off(one, limit);
            let Some((count, below, above)) = counts.get_mut(self.place(one.size)) else { continue };
            *count += 1;
            *below += u32::from(off.is_lt());
            *above += u32::from(off.is_gt());
        }
        for (of_size, (count, below, above)) in self.sizes.iter_mut().zip(counts) {
            let share = 2.0 * f64::from(below.min(above)) / f64::from(count.max(1));
            of_size.ln_alone = share.ln().max(of_size.ln_alone).min(MOST_ALONE.ln());
        }
        self
    }

    fn place(&self, size: i32) -> usize {
        usize::try_from(size - self.least).unwrap_or(0).min(self.sizes.len().saturating_sub(1))
    }

    fn of_size(&self, size: i32) -> OfSize {
        self.sizes.get(self.place(size)).copied().unwrap_or(OfSize { variance: LEAST_SPREAD * LEAST_SPREAD, rounding: 0.0, ln_alone: 0.0 })
    }

    /// Variance of `y` of leaves like this one.
    fn variance(&self, one: &Deviation) -> f64 {
        let OfSize { variance, rounding, .. } = self.of_size(one.size);
        variance * self.scale.stretch(one.y).powi(2) + rounding
    }

    /// To which side a leaf is off by more than so many standard deviations, if it is.
    fn off(&self, one: &Deviation, deviations: f64) -> Ordering {
        let is_off = one.y * one.y > deviations * deviations * self.variance(one);
        if !is_off {
            Ordering::Equal
        } else if one.y < 0.0 {
            Ordering::Less
        } else {
            Ordering::Greater
        }
    }

    /// What one leaf says.
    fn row(&self, one: Deviation, levels: &Levels) -> Row {
        let Some(densities) = levels.of_size.get(self.place(one.size)).filter(|_| one.witness) else { return [0; LEVELS] };
        let OfSize { variance, rounding, ln_alone } = self.of_size(one.size);
        let stretch = self.scale.stretch(one.y).powi(2);
        // The density of `y`, where that of `x` is normal.
        let density = variance * stretch * stretch + rounding;
        let usual = narrow(-0.5 * (one.y * one.y / (variance * stretch + rounding) + density.ln()));
        let y = narrow(one.y);
        let mut ratios = [0.0; LEVELS];
        let moved = densities.heights.iter().zip(&densities.slopes);
        for ((ratio, level), (height, slope)) in ratios.iter_mut().zip(&levels.at).zip(moved) {
            let square = (y - level) * (y - level);
            *ratio = greater(height - slope * square, densities.height - densities.slope * square) - usual;
        }
        let ln_alone = narrow(ln_alone);
        settled(&ratios, greatest(&ratios) + ln_alone, -ln_alone)
    }
}

/// Levels that are tried, and how leaves that moved to them are around them: as close as moved leaves may be, or as far as leaves that did not move are from theirs.
struct Levels {
    at: [f32; LEVELS],
    /// By size of leaves, as [`Noise::sizes`].
    of_size: Vec<Densities>,
}

/// Logarithms of normal densities at their middles, less that of the two that it may be, and how they fall with the square of the distance: of the closer, and of the farther by level.
struct Densities {
    height: f32,
    slope: f32,
    heights: [f32; LEVELS],
    slopes: [f32; LEVELS],
}

impl Densities {
    fn height(variance: f64) -> f32 {
        narrow(-0.5 * variance.ln() - 2.0_f64.ln())
    }

    fn slope(variance: f64) -> f32 {
        narrow(0.5 / variance)
    }
}

impl Levels {
    /// Levels to both sides, or twice as dense to one where nothing moved to the other.
    fn of(all: &[Deviation], noise: &Noise) -> Levels {
        let far = farthest(all.len()) + ALONE;
        let off = all.iter().map(|one| noise.off(one, far));
        let (down, up) = off.fold((false, false), |(down, up), off| (down | off.is_lt(), up | off.is_gt()));
        let both = down == up;
        let step = if both { 4.0 } else { 2.0 } / LEVELS as f64;
        let mut at = [0.0; LEVELS];
        for (place, level) in at.iter_mut().enumerate() {
            // Each half of them to one side, or nearer than the other.
            let (steps, is_up) = if both { (place % (LEVELS / 2) + 1, place >= LEVELS / 2) } else { (place + 1, up) };
            *level = step * steps as f64 * if is_up { 1.0 } else { -1.0 };
        }
        let spread = SPREAD.powi(2) + (step / 2.0).powi(2);
        let of_size = noise.sizes.iter().map(|of_size| {
            let close = spread + of_size.rounding;
            // What real and expected have in common makes their difference the smaller, the farther they are from each other.
            let far = at.map(|level: f64| close + of_size.variance * (1.0 - level * level / 4.0).powi(2));
            let (heights, slopes) = (far.map(Densities::height), far.map(Densities::slope));
            Densities { height: Densities::height(close), slope: Densities::slope(close), heights, slopes }
        });
        Levels { of_size: of_size.collect(), at: at.map(narrow) }
    }
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
    fn of(amounts: &[Amount], deviations: &[Deviation]) -> Steps {
        let numbers = amounts.iter().flat_map(|amount| [amount.real.abs(), amount.expected.abs()]);
        let quantum = numbers.filter(|number| *number > f64::MIN_POSITIVE).fold(f64::INFINITY, f64::min);
        let fine = exponent(ROUNDING * quantum / FINE) + 1;
        let mut sizes: Vec<i32> = deviations.iter().filter(|one| one.witness).map(|one| one.size).collect();
        let fewest = sizes.len() / FEWEST_FINE;
        if sizes.iter().filter(|size| **size >= fine).count() >= fewest {
            return Steps { quantum, fine };
        }
        // Then those that are largest show most of it.
        let place = sizes.len() - fewest.max(1);
        Steps { quantum, fine: *sizes.select_nth_unstable(place).1 }
    }

    /// Standard deviation of `y` by rounding, of leaves of this size.
    fn rounding(self, size: i32) -> f64 {
        ROUNDING * self.quantum / f64::from(size).exp2()
    }
}

/// How far a leaf is off. Numbers that are not negative are in the order of their bits, which are compared faster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Off(u64);

impl Off {
    fn by(deviation: f64) -> Off {
        Off(deviation.abs().to_bits())
    }

    fn far(self) -> f64 {
        f64::from_bits(self.0)
    }
}

/// How far leaves are off to one side, those that are nearer than the middle first.
struct Side(Vec<Off>);

impl Side {
    /// Both sides of the leaves from a size on.
    fn both_of(leaves: &[Deviation], from: i32) -> [Side; 2] {
        let [mut below, mut above] = [(); 2].map(|()| Vec::with_capacity(leaves.len() / 2));
        for one in leaves.iter().filter(|one| one.size >= from) {
            if one.y <= 0.0 {
                below.push(Off::by(one.y));
            }
            if one.y >= 0.0 {
                above.push(Off::by(one.y));
            }
        }
        [below, above].map(|mut off| {
            spread(&mut off);
            Side(off)
        })
    }

    fn middle(&self) -> f64 {
        self.0.get(self.0.len() / 2).map_or(0.0, |off| off.far())
    }

    fn spread(&self) -> f64 {
        self.middle() / NORMAL_MEDIAN
    }

    /// The `t` of this side: such that its tails are those of a normal distribution, beside its middle.
    fn tail(&mut self) -> f64 {
        let (count, middle) = (self.0.len(), self.middle());
        if middle <= 0.0 {
            return 0.0;
        }
        let (mut found, mut begin) = (0.0, count / 2);
        for (share, normal) in TAILS {
            // Those that are farther off than what was looked for before.
            let place = count - (count / share + 1);
            let Some((_, farther)) = self.0.split_at_mut_checked(begin) else { continue };
            let far = farther.select_nth_unstable(place - begin).1.far();
            let ratio = normal / NORMAL_MEDIAN;
            found += (far - ratio * middle) / ((ratio - 1.0) * middle * far);
            begin = place;
        }
        (found / TAILS.len() as f64).clamp(-0.5, MOST_TAIL)
    }
}

/// Robust standard deviation around 0 of what is off so far. Puts the middle into its place.
fn spread(off: &mut [Off]) -> f64 {
    let middle = off.len() / 2;
    if off.is_empty() {
        return 0.0;
    }
    off.select_nth_unstable(middle).1.far() / NORMAL_MEDIAN
}
