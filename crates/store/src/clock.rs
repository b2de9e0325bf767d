//! The server's clock, by which it is said until when an insert is wanted.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long what was seen of the clock is believed: it may be set.
const BELIEVED_FOR: Duration = Duration::from_secs(30);

/// What was seen of the server's clock last.
#[derive(Debug, Default)]
pub(crate) struct ServerClock(Mutex<Option<Seen>>);

#[derive(Clone, Copy, Debug)]
struct Seen {
    /// When it was asked.
    asked: Instant,
    /// What it answered, in milliseconds since 1970-01-01 UTC.
    unix_ms: i64,
}

impl ServerClock {
    /// It was asked then, and answered this, in milliseconds since 1970-01-01 UTC.
    pub(crate) fn set(&self, asked: Instant, unix_ms: i64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Seen { asked, unix_ms });
    }

    /// What it shows at a moment, in seconds since 1970-01-01 UTC; nothing where it was not seen lately.
    pub(crate) fn at(&self, moment: Instant) -> Option<i64> {
        let Seen { asked, unix_ms } =
            (*self.0.lock().unwrap_or_else(PoisonError::into_inner)).filter(|seen| seen.asked.elapsed() < BELIEVED_FOR)?;
        let after = i64::try_from(moment.saturating_duration_since(asked).as_millis()).ok()?;
        let before = i64::try_from(asked.saturating_duration_since(moment).as_millis()).ok()?;
        Some((unix_ms + after - before).div_euclid(1000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_clock_goes_on_and_is_forgotten() {
        let clock = ServerClock::default();
        let now = Instant::now();
        assert_eq!(clock.at(now), None);
        clock.set(now, 1_790_000_000_000);
        assert_eq!((clock.at(now), clock.at(now + Duration::from_secs(7))), (Some(1_790_000_000), Some(1_790_000_007)));
        assert_eq!(clock.at(now - Duration::from_secs(5)), Some(1_789_999_995));
        tokio::time::advance(BELIEVED_FOR).await;
        assert_eq!(clock.at(now), None);
    }
}
