//! What can be chosen.

use std::ops::RangeInclusive;

/// Settings of a detector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Of so many days of a fleet, one may have an incident of nothing.
    pub days_per_false_incident: f64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { days_per_false_incident: 30.0 }
    }
}

impl Settings {
    /// Within which days may be chosen.
    pub const DAYS: RangeInclusive<f64> = 1.0..=3650.0;

    /// All of them, by name.
    #[must_use]
    pub fn figures(&self) -> [(&'static str, f64); 1] {
        [("days_per_false_incident", self.days_per_false_incident)]
    }
}
