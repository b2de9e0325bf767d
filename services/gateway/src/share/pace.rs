//! How fast one terminal may send: so many events a second, and more at once after it was silent (the generic cell rate algorithm, which `governor` has).
//!
//! What is known of a terminal is one moment: when it will have waited for what it sent. From then on it is as good as one that was never heard of, and
//! may be forgotten. So the table holds those who sent lately, up to a limit; while it is full of such, all further terminals of a tenant share
//! one place, and those who are in it have theirs.

use std::collections::HashMap;
use std::num::NonZero;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::{Quota, RateLimiter};
use tokio::time::{Instant, sleep};

use super::{WAIT, Whose};
use crate::problem::Problem;

/// Terminals that are remembered at one moment, in some 5 MiB; a tenant's shared places come on top.
const MOST: usize = 200_000;
/// Least time between two looks at who can be forgotten: one takes milliseconds.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What every terminal may send.
#[derive(Debug)]
pub(super) struct Pace {
    limiter: RateLimiter<Whose, Table, SinceStart, NoOpMiddleware<Duration>>,
    burst: u32,
    /// Terminals that are remembered.
    most: usize,
    looked: Mutex<Option<Instant>>,
}

impl Pace {
    /// So many events a second, and so many at once. None where there is no limit (0).
    pub(super) fn new(events_per_second: u32, burst: u32) -> Option<Pace> {
        Pace::with_room(events_per_second, burst, MOST)
    }

    fn with_room(events_per_second: u32, burst: u32, most: usize) -> Option<Pace> {
        let (rate, at_once) = (NonZero::new(events_per_second)?, NonZero::new(burst)?);
        let table = Table { most, paid: Mutex::default() };
        let limiter = RateLimiter::new(Quota::per_second(rate).allow_burst(at_once), table, SinceStart(Instant::now()));
        Some(Pace { limiter, burst, most, looked: Mutex::new(None) })
    }

    /// Counts a batch of this weight, where that is not too much within a second. One that is heavier than all that may come at once takes all of that.
    pub(super) async fn take(&self, whose: Whose, weight: u32) -> Result<(), Problem> {
        let Err(delay) = self.count(whose, weight) else { return Ok(()) };
        sleep(delay.min(WAIT)).await;
        self.count(whose, weight).map_err(|delay| Problem::TooFast { delay })
    }

    /// Counts it, or says how long it is until there is room again.
    fn count(&self, whose: Whose, weight: u32) -> Result<(), Duration> {
        self.forget();
        let Some(weight) = NonZero::new(weight.min(self.burst)) else { return Ok(()) };
        // It is never more than may come at once.
        let Ok(counted) = self.limiter.check_key_n(&whose, weight) else { return Ok(()) };
        counted.map_err(|not_until| not_until.wait_time_from(self.limiter.clock().now()))
    }

    /// Forgets terminals that are as good as new, where the room is needed.
    fn forget(&self) {
        if self.limiter.len() < self.most {
            return;
        }
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if looked.is_none_or(|looked| looked.elapsed() >= LOOK_AGAIN) {
            *looked = Some(Instant::now());
            self.limiter.retain_recent();
        }
    }
}

/// The clock that tests can move, as time since it began.
#[derive(Debug)]
struct SinceStart(Instant);

impl Clock for SinceStart {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// When each terminal will have waited for what it sent.
#[derive(Debug)]
struct Table {
    most: usize,
    paid: Mutex<HashMap<u64, Nanos>>,
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Nanos>> {
        self.paid.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateStore for Table {
    type Key = Whose;

    fn measure_and_replace<T, F, E>(&self, whose: &Whose, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut paid = self.lock();
        let has_place = paid.len() < self.most || paid.contains_key(&whose.terminal);
        let key = if has_place { whose.terminal } else { whose.tenant };
        let (counted, until) = measure(paid.get(&key).copied())?;
        paid.insert(key, until);
        Ok(counted)
    }
}

impl ShrinkableKeyedStateStore<Whose> for Table {
    fn retain_recent(&self, drop_below: Nanos) {
        self.lock().retain(|_, until| *until > drop_below);
    }

    fn len(&self) -> usize {
        self.lock().len()
    }

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn whose(terminal: u64) -> Whose {
        Whose { terminal, tenant: u64::MAX }
    }

    fn delay(pace: &Pace, terminal: u64, weight: u32) -> Option<Duration> {
        pace.count(whose(terminal), weight).err()
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_spool_has_kept_comes_at_once_and_a_loop_at_the_rate() {
        let pace = Pace::new(200, 20_000).unwrap();
        for batch in 0..100 {
            assert_eq!(delay(&pace, 1, 100), None, "{batch}");
        }
        // Another spool as large, and then what comes in a second.
        for batch in 0..100 {
            assert_eq!(delay(&pace, 1, 100), None, "{batch}");
        }
        assert_eq!(delay(&pace, 1, 100), Some(SECOND / 2));
        assert_eq!(delay(&pace, 2, 100), None);
        // What is refused is not counted: it is not the longer for having been tried.
        for _ in 0..1000 {
            assert_eq!(delay(&pace, 1, 500), Some(SECOND * 5 / 2));
        }
        advance(SECOND * 60).await;
        let taken = (0..1000).take_while(|_| delay(&pace, 1, 100).is_none()).count();
        assert_eq!(taken, 120);
    }

    #[tokio::test(start_paused = true)]
    async fn a_little_too_much_is_waited_for_and_more_is_sent_away_until_there_is_room_again() {
        let pace = Pace::new(100, 1000).unwrap();
        pace.take(whose(1), 1000).await.unwrap();
        let begin = Instant::now();
        pace.take(whose(1), 60).await.unwrap();
        assert_eq!(begin.elapsed().as_millis(), 600);

        let begin = Instant::now();
        let Err(Problem::TooFast { delay }) = pace.take(whose(1), 500).await else { panic!("there was room") };
        assert_eq!(begin.elapsed(), WAIT, "the answer is kept back");
        // To the moment: not before it, and then at once.
        advance(delay - Duration::from_millis(1)).await;
        assert_eq!(self::delay(&pace, 1, 500), Some(Duration::from_millis(1)));
        advance(Duration::from_millis(1)).await;
        assert_eq!(self::delay(&pace, 1, 500), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_heavier_than_all_takes_all_and_0_is_no_limit() {
        let pace = Pace::new(10, 50).unwrap();
        assert_eq!(delay(&pace, 1, u32::MAX), None);
        assert_eq!(delay(&pace, 1, u32::MAX), Some(SECOND * 5));
        assert!(Pace::new(0, 50).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn names_take_a_bounded_room_and_those_that_find_none_share_one_of_their_tenant() {
        let pace = Pace::with_room(100, 1000, 3).unwrap();
        for terminal in 1..=3 {
            assert_eq!(delay(&pace, terminal, 500), None);
        }
        // 4 and 5 share; those who are known do not.
        assert_eq!(delay(&pace, 4, 1000), None);
        assert_eq!(delay(&pace, 5, 100), Some(SECOND));
        let other_tenant = Whose { terminal: 5, tenant: u64::MAX - 1 };
        assert_eq!(pace.count(other_tenant, 1000), Ok(()));
        assert_eq!(delay(&pace, 3, 500), None);
        assert_eq!(pace.limiter.len(), 5, "three terminals and two tenants");
        // After five seconds 1 and 2 are as good as new and forgotten, after ten all of them.
        advance(SECOND * 6).await;
        assert_eq!(delay(&pace, 5, 700), Some(SECOND), "what they share takes room too");
        assert_eq!(pace.limiter.len(), 3, "3, and what two tenants share");
        advance(SECOND * 10).await;
        assert_eq!((delay(&pace, 5, 1000), delay(&pace, 6, 1000)), (None, None));
        advance(SECOND * 20).await;
        for terminal in 10..1000 {
            assert_eq!(delay(&pace, terminal, 1), None);
            assert!(pace.limiter.len() <= 4, "{terminal}: three, and what they share");
        }
    }
}
