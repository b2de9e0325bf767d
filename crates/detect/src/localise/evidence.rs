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
#[expect(clippy::cast_possible_truncation, reason = "evidence is clamped to a few ten nats")]
pub(super) fn settled(ratios: &[f32; LEVELS], alone: f32, against: f32) -> Row {
    ratios.map(|ratio| ((ratio - alone.max(0.0)).clamp(-against, MOST) * UNITS) as i32)
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
