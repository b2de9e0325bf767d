//! How much counts speak against what is usual, in nats: logarithms of likelihood ratios.
//!
//! A rate that drifts by a quarter is no fault, however many attempts show it. So the null hypothesis is not "the usual rate" but "the usual rate,
//! times `e^d`, for some drift `d` that is normally distributed around 0". The evidence is the least that any drift leaves:
//!
//! ```text
//! min over d >= 0 of  LLR(counts; usual * e^d) / phi  +  d^2 / (2 sigma^2)
//! ```
//!
//! with `phi` for counts that vary more than independent ones would. It saturates at `ln(observed / usual)^2 / (2 sigma^2)`, so that no length of time makes
//! a small drift an incident. `sigma` and `phi` were tuned on simulated fleets with such drifts, not derived.

/// Standard deviation of the drift of failure rates, as a logarithm.
const RATE_DRIFT: f64 = 0.18;
/// Standard deviation of the drift of approvals.
const VOLUME_DRIFT: f64 = 0.10;
/// By how much the variance of failures exceeds that of independent ones: customers try again.
const RATE_DISPERSION: f64 = 1.25;
/// The same for approvals.
const VOLUME_DISPERSION: f64 = 1.3;
/// Steps of the bisection for `d`: it is found to a millionth of its range.
const STEPS: u32 = 20;

/// What counts of failures say, on top of any drift, for a rate above the usual one.
pub(crate) fn more_failures(failures: f64, attempts: f64, usual: f64) -> f64 {
    if failures <= attempts * usual {
        return 0.0;
    }
    let largest = (failures / attempts / usual).ln();
    let slope = |d: f64| {
        let rate = (usual * d.exp()).min(1.0 - 1e-9);
        -failures + (attempts - failures) * rate / (1.0 - rate)
    };
    let d = least(largest, |d| slope(d) / RATE_DISPERSION + d / RATE_DRIFT.powi(2));
    excess(failures, attempts, usual * d.exp()) / RATE_DISPERSION + (d / RATE_DRIFT).powi(2) / 2.0
}

/// What counts of approvals say, on top of any drift, for fewer than the expected ones.
pub(crate) fn fewer_approvals(approvals: f64, expected: f64) -> f64 {
    if approvals >= expected {
        return 0.0;
    }
    // Where there are none, the drift that would explain it has no end.
    let largest = (expected / approvals.max(1e-3)).ln();
    let d = least(largest, |d| (approvals - expected * (-d).exp()) / VOLUME_DISPERSION + d / VOLUME_DRIFT.powi(2));
    deficit(approvals, expected * (-d).exp()) / VOLUME_DISPERSION + (d / VOLUME_DRIFT).powi(2) / 2.0
}

/// Evidence of failures without a drift: what tells slices apart from each other, where the drift would make them all alike.
pub(crate) fn plain_failures(failures: f64, attempts: f64, usual: f64) -> f64 {
    excess(failures, attempts, usual) / RATE_DISPERSION
}

/// The same for approvals.
pub(crate) fn plain_approvals(approvals: f64, expected: f64) -> f64 {
    deficit(approvals, expected) / VOLUME_DISPERSION
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
fn least(largest: f64, slope: impl Fn(f64) -> f64) -> f64 {
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

    #[test]
    fn the_least_over_all_drifts_is_found() {
        for (failures, attempts, usual) in [(8.0, 10.0, 0.001), (40.0, 1000.0, 0.01), (30.0, 30.0, 0.002), (300.0, 10_000.0, 0.02)] {
            let at = |d: f64| excess(failures, attempts, usual * d.exp()) / RATE_DISPERSION + (d / RATE_DRIFT).powi(2) / 2.0;
            let found = more_failures(failures, attempts, usual);
            let by_hand = (0..100_000).map(|step| at(f64::from(step) * 1e-4)).fold(f64::INFINITY, f64::min);
            assert!((found - by_hand).abs() < 1e-3, "{failures} of {attempts}: {found} {by_hand}");
        }
        for (approvals, expected) in [(0.0, 20.0), (5.0, 40.0), (700.0, 1000.0)] {
            let at = |d: f64| deficit(approvals, expected * (-d).exp()) / VOLUME_DISPERSION + (d / VOLUME_DRIFT).powi(2) / 2.0;
            let found = fewer_approvals(approvals, expected);
            let by_hand = (0..100_000).map(|step| at(f64::from(step) * 1e-4)).fold(f64::INFINITY, f64::min);
            assert!((found - by_hand).abs() < 1e-3, "{approvals} of {expected}: {found} {by_hand}");
        }
    }

    #[test]
    fn no_volume_makes_a_drift_an_incident() {
        // A quarter more than usual, over more attempts than any fleet makes.
        assert!(more_failures(1.25e7, 1e9, 0.01) < 1.0);
        assert!(more_failures(4.0e7, 1e9, 0.01) > 25.0);
        assert!(fewer_approvals(0.9e9, 1e9) < 1.0);
    }

    #[test]
    fn as_many_as_usual_say_nothing() {
        assert_eq!((more_failures(1.0, 100.0, 0.01), more_failures(0.0, 0.0, 0.01)), (0.0, 0.0));
        assert_eq!((fewer_approvals(10.0, 10.0), fewer_approvals(0.0, 0.0)), (0.0, 0.0));
    }

    #[test]
    fn a_dead_bank_is_plain_within_a_handful_of_attempts() {
        assert!(more_failures(5.0, 5.0, 0.001) > 17.0);
        assert!(more_failures(2.0, 30.0, 0.001) < 8.0);
        assert!(fewer_approvals(0.0, 42.0) > 15.0);
    }
}
