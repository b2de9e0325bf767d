//! How much may wait for Kafka at one moment: a reservation in bytes, and the policy for "full".

use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::problem::Problem;

/// How long a batch waits for room. Meanwhile its stream is not read, which slows the terminal down; after that it is sent away.
const WAIT: Duration = Duration::from_secs(1);
/// What a batch takes at least: the record around it has a size too.
const LEAST_BYTES: u32 = 1024;

/// Room for batches, in bytes.
#[derive(Debug)]
pub(crate) struct InFlight {
    room: Arc<Semaphore>,
    limit: u32,
}

/// Room that a batch has taken, until this is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    _permit: OwnedSemaphorePermit,
    bytes: u32,
}

impl InFlight {
    pub(crate) fn new(limit: u32) -> InFlight {
        let permits = usize::try_from(limit).unwrap_or(Semaphore::MAX_PERMITS);
        gauge!("faultline_gateway_in_flight_limit_bytes").set(limit);
        InFlight { room: Arc::new(Semaphore::new(permits)), limit }
    }

    /// Takes room for a batch, or gives up when there is none for a second. A batch that is larger than all the room takes all of it.
    pub(crate) async fn take(&self, batch_bytes: usize) -> Result<Room, Problem> {
        let bytes = u32::try_from(batch_bytes).unwrap_or(u32::MAX).max(LEAST_BYTES).min(self.limit);
        let permit = timeout(WAIT, Arc::clone(&self.room).acquire_many_owned(bytes)).await;
        // The semaphore is never closed.
        let permit = permit.map_err(|_| Problem::Full)?.map_err(|_| Problem::Full)?;
        gauge!("faultline_gateway_in_flight_bytes").increment(bytes);
        Ok(Room { _permit: permit, bytes })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        gauge!("faultline_gateway_in_flight_bytes").decrement(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_batch_waits_a_second_for_room_and_is_then_sent_away() {
        let in_flight = InFlight::new(10_000);
        let first = in_flight.take(6000).await.unwrap();
        let begin = Instant::now();
        assert!(matches!(in_flight.take(6000).await, Err(Problem::Full)));
        assert_eq!(begin.elapsed(), WAIT);
        let waiting = in_flight.take(6000);
        tokio::pin!(waiting);
        assert!(timeout(Duration::from_millis(500), &mut waiting).await.is_err());
        drop(first);
        assert_eq!(waiting.await.unwrap().bytes, 6000);
    }

    #[tokio::test(start_paused = true)]
    async fn small_batches_are_not_free_and_large_ones_not_impossible() {
        let in_flight = InFlight::new(2048);
        let small = [in_flight.take(1).await.unwrap(), in_flight.take(1).await.unwrap()];
        assert!(in_flight.take(1).await.is_err());
        drop(small);
        assert_eq!(in_flight.take(1_000_000).await.unwrap().bytes, 2048);
    }
}
