//! How a slice's rate of a class is now, relative to what is usual: rates drift by tens of percent within hours, and that is no fault.
//!
//! The rate is the usual one times a level, and the level is gamma distributed around that of the whole fleet: `k` failures are what is known of it
//! without looking. What was counted in the last hours, with what is longer ago counted less, moves it (the conjugate posterior of a Poisson rate):
//!
//! ```text
//! level = (x + k * level of the fleet) / (e + k)        variance of its logarithm: 1 / (x + k)
//! ```
//!
//! `x` are failures and `e` the usual number, until half an hour ago: by then a fault has been found, and its failures are taken out. While an incident
//! goes on, nothing is learnt of the slices that it touches. While a slice fails plainly more than usual, which may be a fault that is not found yet, no
//! more is learnt than 1.4 times what is to be expected: a fault that is too weak to be found moves little in its half hour, and a drift that is as strong
//! is followed all the same. (Were nothing learnt, the level would stay where it was for as long as the drift lasts, and all that comes on top would
//! be compared with it.)
//!
//! How long things count follows from how rates drift. Where the logarithm of a rate is an Ornstein-Uhlenbeck process of variance `s` and correlation time
//! `t`, a memory of `m` that ends a time `l` ago misses it by a variance of
//!
//! ```text
//! s (1 + r - 2 r e^(-l/t))        with r = t / (t + m)
//! ```
//!
//! For the drifts of the yardstick's fleets, standard deviations of 0.12 over three hours, 0.10 over one and 0.10 over two days, and half an hour, that
//! is 0.018 with a memory of two hours, 0.016 with one, and 0.015 with half of one, which would know less of slices where little fails.

use crate::class::Class;
use crate::dispersion::Cell;

/// Failures that the prior of a level is worth: a standard deviation of a fifth.
const PRIOR: f64 = 25.0;
/// Minutes after which something counts a third of what it did.
const MINUTES: f64 = 60.0;
/// Levels are within these.
const LEVELS: (f64, f64) = (0.4, 2.5);

/// What is known of the drift of each class in a slice.
#[derive(Debug, Default)]
pub(crate) struct Drifts(Vec<(Class, Drift)>);

/// Failures, and the usual number of them, with what is longer ago counted less.
#[derive(Clone, Copy, Debug, Default)]
struct Drift {
    failures: f64,
    usual: f64,
    /// What came since the last round of cells, beside what was to be expected at the level that was known then.
    cell: Option<(Level, Cell)>,
}

/// Where a rate is now, relative to what is usual.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Level {
    pub(crate) level: f64,
    /// Variance of its logarithm.
    pub(crate) variance: f64,
}

impl Default for Level {
    fn default() -> Level {
        Level { level: 1.0, variance: 1.0 / PRIOR }
    }
}

impl Drifts {
    /// Takes in a minute, where the level of the fleet is known.
    pub(crate) fn take_in(&mut self, class: Class, (failures, usual): (f64, f64), of_fleet: f64) {
        let before = self.level(class, of_fleet);
        let kept = (-1.0 / MINUTES).exp();
        let place = self.0.iter().position(|(own, _)| *own == class).unwrap_or_else(|| {
            self.0.push((class, Drift::default()));
            self.0.len() - 1
        });
        if let Some((_, drift)) = self.0.get_mut(place) {
            let (level, mut cell) = drift.cell.unwrap_or((before, Cell::default()));
            cell.counted += failures;
            cell.expected += usual * level.level;
            *drift = Drift { failures: kept * drift.failures + failures, usual: kept * drift.usual + usual, cell: Some((level, cell)) };
        }
    }

    /// What came of each class since this was asked last; the variance of a cell is that of the level.
    pub(crate) fn cells(&mut self) -> impl Iterator<Item = (Class, Cell)> {
        let taken = self.0.iter_mut().filter_map(|(class, drift)| Some((*class, drift.cell.take()?)));
        taken.map(|(class, (level, cell))| (class, Cell { variance: level.variance, ..cell }))
    }

    /// The level of a class, where that of the fleet is known.
    pub(crate) fn level(&self, class: Class, of_fleet: f64) -> Level {
        let drift = self.0.iter().find(|(own, _)| *own == class).map(|(_, drift)| *drift).unwrap_or_default();
        let level = (drift.failures + PRIOR * of_fleet) / (drift.usual + PRIOR);
        Level { level: level.clamp(LEVELS.0, LEVELS.1), variance: 1.0 / (drift.failures + PRIOR) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_followed_slowly_and_known_better_where_more_is_counted() {
        let mut drifts = Drifts::default();
        assert_eq!(drifts.level(Class::DeviceRead, 1.0), Level::default());
        assert!((drifts.level(Class::DeviceRead, 1.2).level - 1.2).abs() < 1e-9, "that of the fleet");
        for _ in 0..60 {
            drifts.take_in(Class::DeviceRead, (15.0, 10.0), 1.0);
        }
        let Level { level, variance } = drifts.level(Class::DeviceRead, 1.0);
        assert!((1.44..1.5).contains(&level) && variance < 0.003, "{level} {variance}");
        for _ in 0..240 {
            drifts.take_in(Class::DeviceRead, (10.0, 10.0), 1.0);
        }
        let level = drifts.level(Class::DeviceRead, 1.0).level;
        assert!((1.0..1.1).contains(&level), "{level}");
        assert_eq!(drifts.level(Class::Security, 1.0), Level::default());
    }
}
