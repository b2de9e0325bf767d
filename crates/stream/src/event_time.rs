//! When an event happened, by a clock that can be trusted.
//!
//! Terminals' clocks are wrong by seconds, hours or years. The age of an event at sending is measured by a monotonic clock, so receipt minus age
//! is right whatever the terminal believes the time to be. Without an age, after a restart, the terminal's clock is compared with ours: the
//! batch says what it was at sending.

use prost_types::Timestamp;

/// What vouches for the time of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The age of the event at sending.
    Age,
    /// The terminal's clock, corrected by what it was off when the batch was sent.
    Corrected,
    /// Nothing: the terminal's clock contradicts itself, or says nothing.
    Uncertain,
}

impl Clock {
    /// Its number in the schema.
    #[must_use]
    pub fn number(self) -> i8 {
        match self {
            Clock::Age => 1,
            Clock::Corrected => 2,
            Clock::Uncertain => 3,
        }
    }

    /// Its name in the schema and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Clock::Age => "age",
            Clock::Corrected => "corrected",
            Clock::Uncertain => "uncertain",
        }
    }
}

/// When an event happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventTime {
    /// Milliseconds since 1970-01-01 UTC.
    pub unix_ms: i64,
    /// How that is known.
    pub clock: Clock,
}

/// Our clock and the terminal's at the moment of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchClock {
    /// When the gateway received the batch, in milliseconds since 1970-01-01 UTC.
    pub receipt_ms: i64,
    /// What the terminal's clock said at sending. None: it was not stated.
    pub send_ms: Option<i64>,
}

impl BatchClock {
    /// When an event of this batch happened, from its age at sending and the terminal's clock at its completion. Never after the receipt.
    #[must_use]
    pub fn date(self, age_ms: Option<u64>, completion: Option<&Timestamp>) -> EventTime {
        if let Some(age_ms) = age_ms {
            return EventTime { unix_ms: self.receipt_ms.saturating_sub_unsigned(age_ms), clock: Clock::Age };
        }
        let (Some(completion), Some(send_ms)) = (completion.and_then(unix_ms), self.send_ms) else {
            return EventTime { unix_ms: self.receipt_ms, clock: Clock::Uncertain };
        };
        let corrected = completion.saturating_add(self.receipt_ms.saturating_sub(send_ms));
        if corrected > self.receipt_ms {
            // Completed after it was sent: the clock was set back in between.
            return EventTime { unix_ms: self.receipt_ms, clock: Clock::Uncertain };
        }
        EventTime { unix_ms: corrected, clock: Clock::Corrected }
    }
}

/// Milliseconds since 1970-01-01 UTC. None where it is no time between the years 1 and 9999, as the contract's `Timestamp` is limited to.
#[must_use]
pub fn unix_ms(time: &Timestamp) -> Option<i64> {
    const YEAR_1_S: i64 = -62_135_596_800;
    const YEAR_10000_S: i64 = 253_402_300_800;
    let in_range = (YEAR_1_S..YEAR_10000_S).contains(&time.seconds) && (0..1_000_000_000).contains(&time.nanos);
    in_range.then(|| time.seconds * 1000 + i64::from(time.nanos / 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;
    const NOON_MS: i64 = 1_790_000_000_000;

    fn at(unix_ms: i64) -> Timestamp {
        let nanos = i32::try_from(unix_ms.rem_euclid(1000)).unwrap() * 1_000_000;
        Timestamp { seconds: unix_ms.div_euclid(1000), nanos }
    }

    #[test]
    fn an_age_is_believed_whatever_the_terminals_clock_says() {
        let clock = BatchClock { receipt_ms: NOON_MS, send_ms: Some(NOON_MS + 2 * DAY_MS) };
        let dated = clock.date(Some(1500), Some(&at(NOON_MS + 2 * DAY_MS)));
        assert_eq!(dated, EventTime { unix_ms: NOON_MS - 1500, clock: Clock::Age });
    }

    #[test]
    fn a_clock_two_days_off_is_corrected() {
        for off in [-2 * DAY_MS, 2 * DAY_MS] {
            let clock = BatchClock { receipt_ms: NOON_MS, send_ms: Some(NOON_MS + off) };
            let dated = clock.date(None, Some(&at(NOON_MS + off - 7001)));
            assert_eq!(dated, EventTime { unix_ms: NOON_MS - 7001, clock: Clock::Corrected });
        }
    }

    #[test]
    fn a_clock_that_contradicts_itself_is_not_believed() {
        let clock = BatchClock { receipt_ms: NOON_MS, send_ms: Some(NOON_MS) };
        let uncertain = EventTime { unix_ms: NOON_MS, clock: Clock::Uncertain };
        assert_eq!(clock.date(None, Some(&at(NOON_MS + 1))), uncertain);
        assert_eq!(clock.date(None, None), uncertain);
        assert_eq!(clock.date(None, Some(&Timestamp { seconds: i64::MAX, nanos: 0 })), uncertain);
        assert_eq!(BatchClock { send_ms: None, ..clock }.date(None, Some(&at(NOON_MS))), uncertain);
    }

    #[test]
    fn no_age_is_too_great_to_be_counted() {
        let clock = BatchClock { receipt_ms: NOON_MS, send_ms: Some(NOON_MS) };
        assert_eq!(clock.date(Some(u64::MAX), None).unix_ms, i64::MIN);
    }
}
