//! So many at one moment for each terminal, and others after them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::{WAIT, Whose};

type Places = HashMap<Whose, Arc<Semaphore>>;

/// Turns of every terminal that has one or waits for one; the others are not known here.
#[derive(Debug)]
pub(super) struct Turns {
    most: usize,
    places: Arc<Mutex<Places>>,
}

/// A turn that was taken, until this is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    // Dropped in this order.
    _permit: OwnedSemaphorePermit,
    _place: Place,
}

/// Keeps a terminal known.
#[derive(Debug)]
struct Place {
    whose: Whose,
    room: Arc<Semaphore>,
    places: Arc<Mutex<Places>>,
}

impl Turns {
    /// Each terminal has `most` turns at one moment.
    pub(super) fn new(most: usize) -> Turns {
        Turns { most: most.min(Semaphore::MAX_PERMITS), places: Arc::default() }
    }

    /// Takes a turn: none where there is none for a second. Whoever asked first has it first.
    pub(super) async fn take(&self, whose: Whose) -> Option<Turn> {
        let room = Arc::clone(lock(&self.places).entry(whose).or_insert_with(|| Arc::new(Semaphore::new(self.most))));
        let place = Place { whose, room, places: Arc::clone(&self.places) };
        let permit = timeout(WAIT, Arc::clone(&place.room).acquire_owned()).await;
        Some(Turn { _permit: permit.ok()?.ok()?, _place: place })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = lock(&self.places);
        // That in the table and this: nobody else has a turn, or waits.
        if Arc::strong_count(&self.room) <= 2 {
            places.remove(&self.whose);
        }
    }
}

fn lock(places: &Mutex<Places>) -> MutexGuard<'_, Places> {
    places.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    const T_1: Whose = Whose { terminal: 1, tenant: 0 };
    const T_2: Whose = Whose { terminal: 2, tenant: 0 };

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_waited_for_a_second_and_nobody_is_remembered_who_has_none() {
        let turns = Arc::new(Turns::new(2));
        let both = [turns.take(T_1).await.unwrap(), turns.take(T_1).await.unwrap()];
        let other = turns.take(T_2).await.unwrap();
        let begin = Instant::now();
        assert!(turns.take(T_1).await.is_none());
        assert_eq!(begin.elapsed(), WAIT);
        assert_eq!(lock(&turns.places).len(), 2);
        let waiting = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { turns.take(T_1).await }
        });
        sleep(WAIT / 2).await;
        drop(both);
        let turn = waiting.await.unwrap().unwrap();
        assert_eq!(lock(&turns.places).len(), 2);
        drop((turn, other));
        assert!(lock(&turns.places).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gives_up_waiting_leaves_nothing_behind() {
        let turns = Turns::new(1);
        let turn = turns.take(T_1).await.unwrap();
        assert!(timeout(WAIT / 2, turns.take(T_1)).await.is_err());
        assert!(turns.take(T_1).await.is_none());
        drop(turn);
        assert!(lock(&turns.places).is_empty());
        turns.take(T_1).await.unwrap();
    }
}
