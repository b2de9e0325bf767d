//! How much counts speak against what is usual, in nats: logarithms of likelihood ratios.
//!
//! A rate that drifts by a quarter is no fault, however many attempts show it. So the null hypothesis is not "the usual rate" but "the usual rate,
//! times `e^d`, for some drift `d` that is normally distributed around 0". The evidence is the least that any drift leaves:
//!
//! ```text
//! min over d >= 0 of  LLR(counts; usual * e^d) / phi  +  d^2 / (2 v)
//! ```
//!
//! with `phi` for counts that vary more than independent ones would (`dispersion`), and `v` the variance of the drift, which is smaller where more is
//! known of the slice (`drift`). It saturates at `ln(observed / usual)^2 / (2 v)`, so that no length of time makes a small drift an incident.

/// How what is usual varies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Varying {
    /// By how much the variance of counts exceeds that of independent ones: `phi`.
    pub(crate) clusters: f64,
    /// Variance of the logarithm of the rate: `v`.
    pub(crate) variance: f64,
}

/// Steps of the bisection for `d`: it is found to a millionth of its range.
const STEPS: u32 = 20;

/// What counts of failures, among attempts, say for a rate above the usual one that varies so. Where it is not more than `least`
/// it may be said to be anything up to that.
pub(crate) fn more_failures((failures, attempts): (f64, f64), usual: f64, varying: Varying, least: f64) -> f64 {
    let Varying { clusters, variance } = varying;
    let expected = attempts * usual;
    // No logarithm of a likelihood ratio is above the chi-square of the same counts, which is had for less.
    if failures <= expected || (failures - expected).powi(2) <= least * clusters * expected * (1.0 - usual) {
        return 0.0;
    }
    let (without_drift, largest) = (excess(failures, attempts, usual) / clusters, (failures / attempts / usual).ln());
    if without_drift.min(largest * largest / (2.0 * variance)) <= least {
        return 0.0;
    }
    let slope = |d: f64| {
        let rate = (usual * d.exp()).min(1.0 - 1e-9);
        -failures + (attempts - failures) * rate / (1.0 - rate)
    };
    let d = zero(largest, |d| slope(d) / clusters + d / variance);
    excess(failures, attempts, usual * d.exp()) / clusters + d * d / (2.0 * variance)
}

/// What counts of approvals say for fewer than the expected ones, which vary so.
pub(crate) fn fewer_approvals(approvals: f64, expected: f64, Varying { clusters, variance }: Varying) -> f64 {
    if approvals >= expected {
        return 0.0;
    }
    // Where there are none, the drift that would explain it has no end.
    let largest = (expected / approvals.max(1e-3)).ln();
    let d = zero(largest, |d| (approvals - expected * (-d).exp()) / clusters + d / variance);
    deficit(approvals, expected * (-d).exp()) / clusters + d * d / (2.0 * variance)
}

/// Evidence of failures without a drift: what tells slices apart from each other, where the drift would make them all alike.
pub(crate) fn plain_failures((failures, attempts): (f64, f64), usual: f64, clusters: f64) -> f64 {
    excess(failures, attempts, usual) / clusters
}

/// The same for approvals.
pub(crate) fn plain_approvals(approvals: f64, expected: f64, clusters: f64) -> f64 {
    deficit(approvals, expected) / clusters
}

/// Binomial: the rate that was observed against `usual`; 0 where it is not above.
fn excess(failures: f64, attempts: f64, usual: f64) -> f64 {
    let (observed, usual) = (failures / attempts, usual.clamp(1e-9, 1.0 - 1e-9));
    if attempts <= 0.0 || observed <= usual {
        return 0.0;
    }
    let rest = attempts - failures;
    let of_rest = if rest > 0.0 { rest * ((1.0 - observed) / (1.0 - usual)).ln() } else { 0.0 };
    failures * (observed / usual).ln() + of_rest
}

/// Poisson: what was observed against `expected`; 0 where it is not below.
fn deficit(observed: f64, expected: f64) -> f64 {
    if observed >= expected {
        return 0.0;
    }
    let of_observed = if observed > 0.0 { observed * (observed / expected).ln() } else { 0.0 };
    of_observed - observed + expected
}

/// Where a growing function passes through 0, from 0 to `largest`.
fn zero(largest: f64, slope: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = (0.0, largest);
    for _ in 0..STEPS {
        let middle = f64::midpoint(low, high);
        if slope(middle) < 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    const VARYING: Varying = Varying { clusters: 1.25, variance: 0.18 * 0.18 };

    #[test]
    fn the_least_over_all_drifts_is_found() {
        for (failures, attempts, usual) in [(8.0, 10.0, 0.001), (40.0, 1000.0, 0.01), (30.0, 30.0, 0.002), (300.0, 10_000.0, 0.02)] {
            let at = |d: f64| excess(failures, attempts, usual * d.exp()) / VARYING.clusters + d * d / (2.0 * VARYING.variance);
            let found = more_failures((failures, attempts), usual, VARYING, 0.0);
            let pruned = more_failures((failures, attempts), usual, VARYING, found - 0.1);
            assert!((pruned - found).abs() < 1e-9 && more_failures((failures, attempts), usual, VARYING, 1e9) == 0.0);
            let by_hand = (0..100_000).map(|step| at(f64::from(step) * 1e-4)).fold(f64::INFINITY, f64::min);
            assert!((found - by_hand).abs() < 1e-3, "{failures} of {attempts}: {found} {by_hand}");
        }
        for (approvals, expected) in [(0.0, 20.0), (5.0, 40.0), (700.0, 1000.0)] {
            let at = |d: f64| deficit(approvals, expected * (-d).exp()) / VARYING.clusters + d * d / (2.0 * VARYING.variance);
            let found = fewer_approvals(approvals, expected, VARYING);
            let by_hand = (0..100_000).map(|step| at(f64::from(step) * 1e-4)).fold(f64::INFINITY, f64::min);
            assert!((found - by_hand).abs() < 1e-3, "{approvals} of {expected}: {found} {by_hand}");
        }
    }

    #[test]
    fn no_volume_makes_a_drift_an_incident() {
        // A quarter more than usual, over more attempts than any fleet makes.
        assert!(more_failures((1.25e7, 1e9), 0.01, VARYING, 0.0) < 1.0);
        assert!(more_failures((4.0e7, 1e9), 0.01, VARYING, 0.0) > 25.0);
        assert!(fewer_approvals(0.9e9, 1e9, VARYING) < 1.0);
    }

    #[test]
    fn as_many_as_usual_say_nothing() {
        assert_eq!((more_failures((1.0, 100.0), 0.01, VARYING, 0.0), more_failures((0.0, 0.0), 0.01, VARYING, 0.0)), (0.0, 0.0));
        assert_eq!((fewer_approvals(10.0, 10.0, VARYING), fewer_approvals(0.0, 0.0, VARYING)), (0.0, 0.0));
    }

    #[test]
    fn a_dead_bank_is_plain_within_a_handful_of_attempts() {
        assert!(more_failures((5.0, 5.0), 0.001, VARYING, 0.0) > 17.0);
        assert!(more_failures((2.0, 30.0), 0.001, VARYING, 0.0) < 8.0);
        assert!(fewer_approvals(0.0, 42.0, VARYING) > 15.0);
    }
}
