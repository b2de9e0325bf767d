//! Evidence as it is searched: what each leaf says for each level, in whole units, so that sums do not depend on the order of leaves.

/// Levels that a slice may have moved to.
pub(super) const LEVELS: usize = 16;
/// A unit of evidence: this many are a nat. A leaf may say very little, and there may be a hundred thousand of them.
pub(super) const UNITS: f32 = 65_536.0;

/// Most that a leaf says, in nats.
const MOST: f32 = 30.0;

/// What one leaf says, by level.
pub(super) type Row = [i32; LEVELS];
/// What the leaves of a slice say together, by level.
pub(super) type Sum = [i64; LEVELS];

/// All leaves' evidence, in their order.
pub(super) type Evidence = Vec<Row>;

/// Evidence of a leaf of its log-likelihood ratios: against leaves that did not move, or moved by themselves, which has the log-likelihood ratio `alone`. It says no more than
/// `against` against a slice.
#[inline]
pub(super) fn settled(ratios: &[f32; LEVELS], alone: f32, against: f32) -> Row {
    let alone = greater(alone, 0.0);
    let mut row = [0; LEVELS];
    for (says, ratio) in row.iter_mut().zip(ratios) {
        *says = whole(lesser(greater(ratio - alone, -against), MOST) * UNITS);
    }
    row
}

/// A number with as many digits as evidence needs.
#[expect(clippy::cast_possible_truncation, reason = "it has as many digits as are needed")]
pub(super) fn narrow(number: f64) -> f32 {
    number as f32
}

/// Rounds a number below 2^22 to a whole one: next to 1.5 * 2^23, numbers are whole. It takes one addition, of many numbers at once.
fn whole(number: f32) -> i32 {
    const BESIDE: f32 = 12_582_912.0;
    (number + BESIDE).to_bits().cast_signed() - BESIDE.to_bits().cast_signed()
}

/// The greater of two numbers; the second where one is none. `f32::max` would ask which.
pub(super) fn greater(one: f32, other: f32) -> f32 {
    if one > other { one } else { other }
}

fn lesser(one: f32, other: f32) -> f32 {
    if one < other { one } else { other }
}

/// The greatest of one leaf's numbers: of every fourth first, which are found at once.
#[inline]
pub(super) fn greatest(ratios: &[f32; LEVELS]) -> f32 {
    let mut of_fourths = [f32::NEG_INFINITY; 4];
    for four in ratios.chunks_exact(4) {
        of_fourths.iter_mut().zip(four).for_each(|(most, ratio)| *most = greater(*most, *ratio));
    }
    of_fourths.into_iter().fold(f32::NEG_INFINITY, greater)
}

/// Nats, of units.
pub(super) fn nats(units: i64) -> f64 {
    units as f64 / f64::from(UNITS)
}

/// Units, of nats.
#[expect(clippy::cast_possible_truncation, reason = "prices are some ten nats")]
pub(super) fn units(nats: f64) -> i64 {
    (nats * f64::from(UNITS)) as i64
}
