//! How right somebody was.

#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "shares are between 0 and 1")]

use faultline_proto::verdict::v1::Cause;

/// The causes that are told apart.
const CAUSES: [Cause; 5] = [Cause::Network, Cause::Device, Cause::Bank, Cause::Account, Cause::Other];
/// Confidences that are alike: tenths.
const BINS: usize = 10;

/// How often which cause was taken for which.
#[derive(Clone, Debug, Default)]
pub(crate) struct Confusion {
    /// By true cause and by what was said; last, what is none of them.
    counts: [[f64; CAUSES.len() + 1]; CAUSES.len()],
}

impl Confusion {
    pub(crate) fn count(&mut self, truth: Cause, said: Cause) {
        let place = |cause: Cause| CAUSES.iter().position(|known| *known == cause);
        let (Some(truth), said) = (place(truth), place(said).unwrap_or(CAUSES.len())) else { return };
        if let Some(count) = self.counts.get_mut(truth).and_then(|counts| counts.get_mut(said)) {
            *count += 1.0;
        }
    }

    pub(crate) fn add(&mut self, other: &Confusion) {
        let pairs = self.counts.iter_mut().flatten().zip(other.counts.iter().flatten());
        pairs.for_each(|(sum, more)| *sum += more);
    }

    pub(crate) fn cases(&self) -> f64 {
        self.counts.iter().flatten().sum()
    }

    fn at(&self, truth: usize, said: usize) -> f64 {
        self.counts.get(truth).and_then(|counts| counts.get(said)).copied().unwrap_or_default()
    }

    /// The share that was right.
    pub(crate) fn right(&self) -> f64 {
        (0..CAUSES.len()).map(|cause| self.at(cause, cause)).sum::<f64>() / self.cases().max(1.0)
    }

    /// F1 of each cause, on average over those that there were.
    pub(crate) fn macro_f1(&self) -> f64 {
        let of = |cause: usize| {
            let right = self.at(cause, cause);
            let said: f64 = (0..CAUSES.len()).map(|truth| self.at(truth, cause)).sum();
            let were: f64 = self.counts.get(cause).into_iter().flatten().sum();
            (were > 0.0).then(|| 2.0 * right / (said + were))
        };
        let scores: Vec<f64> = (0..CAUSES.len()).filter_map(of).collect();
        scores.iter().sum::<f64>() / f64::from(u32::try_from(scores.len().max(1)).unwrap_or(1))
    }
}

/// How far confidence is from how often it was right: the expected calibration error over tenths (Naeini et al., AAAI 2015).
#[derive(Clone, Debug, Default)]
pub(crate) struct Calibration {
    /// By tenth: cases, their confidence, and how many were right.
    bins: [(f64, f64, f64); BINS],
}

impl Calibration {
    pub(crate) fn count(&mut self, confidence: f64, right: bool) {
        let place = ((confidence * 10.0) as usize).min(BINS - 1);
        if let Some((cases, confident, were)) = self.bins.get_mut(place) {
            *cases += 1.0;
            *confident += confidence;
            *were += f64::from(u8::from(right));
        }
    }

    pub(crate) fn add(&mut self, other: &Calibration) {
        for (bin, more) in self.bins.iter_mut().zip(other.bins) {
            *bin = (bin.0 + more.0, bin.1 + more.1, bin.2 + more.2);
        }
    }

    pub(crate) fn error(&self) -> f64 {
        let cases: f64 = self.bins.iter().map(|(cases, ..)| cases).sum();
        self.bins.iter().map(|(_, confident, right)| (confident - right).abs()).sum::<f64>() / cases.max(1.0)
    }
}

/// The value that such a share is not above.
pub(crate) fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = (share * values.len() as f64).ceil() as usize;
    values.get(place.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f1_is_of_each_cause_alike() {
        let mut confusion = Confusion::default();
        (0..98).for_each(|_| confusion.count(Cause::Account, Cause::Account));
        confusion.count(Cause::Bank, Cause::Account);
        confusion.count(Cause::Bank, Cause::Bank);
        confusion.count(Cause::Approved, Cause::Bank);
        assert_eq!((confusion.cases(), confusion.right()), (100.0, 0.99));
        let (account, bank) = (2.0 * 98.0 / (98.0 + 99.0), 2.0 / 3.0);
        assert!((confusion.macro_f1() - f64::midpoint(account, bank)).abs() < 1e-12);
        confusion.count(Cause::Other, Cause::Unknown);
        assert!(confusion.macro_f1() < 0.56);
    }

    #[test]
    fn confidence_is_compared_with_how_often_it_was_right() {
        let mut calibration = Calibration::default();
        (0..10).for_each(|number| calibration.count(0.8, number < 8));
        assert!(calibration.error() < 1e-12);
        (0..10).for_each(|_| calibration.count(1.0, false));
        assert!((calibration.error() - 0.5).abs() < 1e-12);
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let mut values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!((percentile(&mut values, 0.95), percentile(&mut values, 1.0), percentile(&mut [], 0.5)), (95.0, 100.0, 0.0));
    }
}
