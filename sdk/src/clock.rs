//! The clock that ages are taken from: it never jumps, and goes on while the terminal sleeps.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A moment since the terminal was started, which also counts the time that it slept (`CLOCK_BOOTTIME`, clock_gettime(2)). One of another boot says
/// nothing in this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(pub Duration);

impl BootTime {
    /// This moment. On a kernel without that clock (Linux before 2.6.39), the start of the terminal.
    #[must_use]
    pub fn now() -> BootTime {
        BootTime(clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from))
    }

    /// How long ago `earlier` was; nothing for what is still to come.
    #[must_use]
    pub fn since(self, earlier: BootTime) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_and_never_back() {
        let earlier = BootTime::now();
        let later = BootTime::now();
        assert!(later >= earlier && earlier.0 > Duration::ZERO);
        assert_eq!(earlier.since(later), Duration::ZERO);
        assert_eq!(BootTime(Duration::from_secs(5)).since(BootTime(Duration::from_secs(2))), Duration::from_secs(3));
    }
}
