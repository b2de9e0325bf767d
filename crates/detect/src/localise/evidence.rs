//! Evidence as it is searched: what each leaf says for each level, in whole units, so that sums do not depend on the order of leaves.

/// Levels that a slice may have moved to.
pub(super) const LEVELS: usize = 16;
/// A unit of evidence: this many are a nat.
pub(super) const UNITS: f32 = 64.0;

/// What one leaf says, by level.
pub(super) type Row = [i16; LEVELS];
/// What the leaves of a slice say together, by level.
pub(super) type Sum = [i32; LEVELS];

/// All leaves' evidence, in their order.
pub(super) type Evidence = Vec<Row>;

/// What is thought of leaves that do not do as their slice does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contamination {
    /// Logarithm of the share of leaves that move by themselves.
    pub(super) ln_alone: f32,
    /// Most that one leaf says against a slice.
    pub(super) against: f32,
}

impl Contamination {
    /// Evidence of a leaf of its log-likelihood ratios: against leaves that did not move, or moved by themselves to any of the levels.
    #[expect(clippy::cast_possible_truncation, reason = "evidence is clamped to a few ten nats")]
    pub(super) fn row(self, ratios: &[f32; LEVELS]) -> Row {
        let most = ratios.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let alone = (most + self.ln_alone).max(0.0);
        ratios.map(|ratio| ((ratio - alone).max(-self.against) * UNITS) as i16)
    }
}

/// Nats, of units.
pub(super) fn nats(units: i32) -> f64 {
    f64::from(units) / f64::from(UNITS)
}

/// Units, of nats.
#[expect(clippy::cast_possible_truncation, reason = "prices are some ten nats")]
pub(super) fn units(nats: f64) -> i32 {
    (nats * f64::from(UNITS)) as i32
}
