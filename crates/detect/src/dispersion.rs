//! How much counts vary, learnt from the fleet's own time without faults.
//!
//! A count of which `e` is expected varies by more than chance alone: customers try again and tills hammer, so that failures come in clusters; and
//! rates drift. So the mean of its squared deviation is
//!
//! ```text
//! E[(x - e)^2]  =  phi e  +  s v e^2
//! ```
//!
//! with `phi` for clusters, and `v` the variance of the drift's logarithm that is to be expected (see `drift`), times `s` where this fleet drifts more
//! than others. Both are found by least squares over *cells* (a slice, a class, half an hour in which no incident was), each weighted by what is known of
//! the variance of its square, `phi^3 e + 2 (phi e + s v e^2)^2`: exact for Poisson counts and for normal ones. They begin at what is usual elsewhere, which is worth
//! some dozens of cells, and are never less: a few quiet days do not say that a fleet is always so. They forget over days. A square that is more than
//! sixteen times the expected one counts as that: it may be a fault which nobody found.
//!
//! What is used of `phi` is by how much it exceeds what is usual in such cells: a cluster is within half an hour as a whole, and not within a tick.
//!
//! Sources: the negative binomial and its estimation by moments, e.g. McCullagh and Nelder, *Generalized Linear Models* (1989), sections 6.2 and 9.2.

/// How many times as much counts vary as is usual elsewhere.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Dispersion {
    /// Since they come in clusters: `phi`, of the usual one.
    pub(crate) clusters: f64,
    /// Since rates drift: `s`.
    pub(crate) drift: f64,
}

/// A slice over half an hour without faults.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cell {
    pub(crate) counted: f64,
    pub(crate) expected: f64,
    /// Variance of the logarithm of what was expected, in a fleet that drifts as others do.
    pub(crate) variance: f64,
}

/// What is learnt of it.
#[derive(Clone, Debug)]
pub(crate) struct Dispersing {
    /// `phi` that is usual elsewhere.
    usual: f64,
    /// Normal equations of both.
    matrix: [f64; 3],
    right: [f64; 2],
    /// As far as it is known.
    pub(crate) known: Dispersion,
}

/// What the prior is worth: a cell that says all it can of one of the two is worth a half.
const PRIOR: f64 = 50.0;
/// What is learnt is within these.
const CLUSTERS: (f64, f64) = (1.0, 3.0);
const DRIFT: (f64, f64) = (1.0, 8.0);
/// A square counts as no more than so many times the expected one.
const MOST_SQUARE: f64 = 16.0;
/// Rounds of cells after which one counts a third of what it did: a week of half hours.
const ROUNDS: f64 = 336.0;

impl Dispersing {
    /// Where nothing is learnt yet, and this `phi` is usual elsewhere.
    pub(crate) fn new(usual: f64) -> Dispersing {
        Dispersing { usual, matrix: [0.0; 3], right: [0.0; 2], known: Dispersion { clusters: 1.0, drift: 1.0 } }
    }

    /// Takes in a cell.
    pub(crate) fn take_in(&mut self, Cell { counted, expected, variance }: Cell) {
        if expected <= 0.0 {
            return;
        }
        let (of_clusters, of_drift) = (self.usual * expected, variance * expected * expected);
        let likely = self.known.clusters * of_clusters + self.known.drift * of_drift;
        let square = (counted - expected).powi(2).min(MOST_SQUARE * likely);
        let weight = 1.0 / ((self.known.clusters * self.usual).powi(3) * expected + 2.0 * likely * likely);
        let [both_clusters, mixed, both_drift] = &mut self.matrix;
        *both_clusters += weight * of_clusters * of_clusters;
        *mixed += weight * of_clusters * of_drift;
        *both_drift += weight * of_drift * of_drift;
        let [right_clusters, right_drift] = &mut self.right;
        *right_clusters += weight * of_clusters * square;
        *right_drift += weight * of_drift * square;
    }

    /// A round of cells is over: what they say is known from now on.
    pub(crate) fn settle(&mut self) {
        let [both_clusters, mixed, both_drift] = self.matrix;
        let [right_clusters, right_drift] = self.right;
        let (a, d) = (both_clusters + PRIOR, both_drift + PRIOR);
        let (e, f) = (right_clusters + PRIOR, right_drift + PRIOR);
        // The matrix is of squares, and positive on its diagonal: never singular.
        let determinant = a * d - mixed * mixed;
        let clusters = ((e * d - mixed * f) / determinant).clamp(CLUSTERS.0, CLUSTERS.1);
        // Where one is at its limit, the other is what fits best then.
        let drift = ((f - mixed * clusters) / d).clamp(DRIFT.0, DRIFT.1);
        self.known = Dispersion { clusters, drift };
        let kept = (-1.0 / ROUNDS).exp();
        self.matrix.iter_mut().chain(&mut self.right).for_each(|sum| *sum *= kept);
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_distr::{Distribution, LogNormal, Poisson};
    use rand_pcg::Pcg64;

    use super::*;

    /// What is learnt of rounds of cells in which failures come in clusters of this size, and the variance of the drift is `s` times what is expected.
    fn learnt(clusters: u32, s: f64, rounds: u32) -> Dispersion {
        let (mut random, variance) = (Pcg64::seed_from_u64(7), 0.04);
        let drift = LogNormal::new(-s * variance / 2.0, (s * variance).sqrt()).unwrap();
        let mut dispersing = Dispersing::new(1.5);
        for _ in 0..rounds {
            for expected in [0.5, 2.0, 8.0, 30.0, 120.0, 500.0].repeat(10) {
                let clustered = Poisson::new(expected * drift.sample(&mut random) / f64::from(clusters)).unwrap().sample(&mut random);
                dispersing.take_in(Cell { counted: clustered * f64::from(clusters), expected, variance });
            }
            dispersing.settle();
        }
        dispersing.known
    }

    #[test]
    fn what_a_fleet_varies_by_is_found() {
        assert_eq!(learnt(1, 1.0, 0), Dispersion { clusters: 1.0, drift: 1.0 });
        for (clusters, s) in [(2, 1.2), (2, 4.0), (3, 2.0)] {
            let known = learnt(clusters, s, 300);
            assert!((1.5 * known.clusters / f64::from(clusters) - 1.0).abs() < 0.15, "{clusters} {s}: {known:?}");
            assert!((known.drift / s - 1.0).abs() < 0.15, "{clusters} {s}: {known:?}");
        }
    }

    #[test]
    fn a_calm_fleet_is_judged_as_others_are_and_one_fault_says_little() {
        assert_eq!(learnt(1, 0.1, 300), Dispersion { clusters: 1.0, drift: 1.0 });
        let mut dispersing = Dispersing::new(1.5);
        dispersing.take_in(Cell { counted: 90_000.0, expected: 500.0, variance: 0.04 });
        dispersing.settle();
        assert!((1.0..1.3).contains(&dispersing.known.drift), "{:?}", dispersing.known);
    }
}
