//! The partitions that are ours: they come and go as the group shares them out, and each has a queue of what waits for its worker.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::client::Listener;
use crate::reader::Record;

/// The partitions that are ours, as librdkafka tells.
pub(crate) struct Assignments {
    topic: String,
    listener: Listener,
    /// Written while partitions come and go; read while something is committed.
    held: RwLock<HashMap<i32, Arc<Held>>>,
    /// Partitions that have no worker yet.
    new: Mutex<Vec<Arc<Held>>>,
    pub(crate) news: Notify,
    has_joined: AtomicBool,
}

/// A partition for as long as it is ours. If it goes and comes back, that is another.
pub(crate) struct Held {
    pub(crate) number: i32,
    queue: Mutex<Queue>,
    pub(crate) filled: Notify,
    pub(crate) lost: CancellationToken,
}

/// What waits for a worker.
#[derive(Default)]
pub(crate) struct Queue {
    pub(crate) records: VecDeque<Record>,
    pub(crate) bytes: usize,
    pub(crate) is_paused: bool,
    /// No more records are wanted.
    pub(crate) is_closed: bool,
}

impl Held {
    fn new(number: i32) -> Held {
        Held { number, queue: Mutex::default(), filled: Notify::new(), lost: CancellationToken::new() }
    }

    pub(crate) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn close(&self) {
        self.queue().is_closed = true;
        self.filled.notify_one();
    }
}

impl Assignments {
    pub(crate) fn new(topic: String) -> Assignments {
        Assignments {
            topic,
            listener: Listener::default(),
            held: RwLock::default(),
            new: Mutex::default(),
            news: Notify::new(),
            has_joined: AtomicBool::new(false),
        }
    }

    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    /// Whether partitions were shared out at all, be they none.
    pub(crate) fn has_joined(&self) -> bool {
        self.has_joined.load(Ordering::Relaxed)
    }

    /// Until this is dropped, no partition is taken away.
    pub(crate) fn hold(&self) -> RwLockReadGuard<'_, HashMap<i32, Arc<Held>>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn of(&self, partition: i32) -> Option<Arc<Held>> {
        self.hold().get(&partition).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Held>> {
        self.hold().values().cloned().collect()
    }

    pub(crate) fn take_new(&self) -> Vec<Arc<Held>> {
        std::mem::take(&mut *self.new.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for Assignments {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.listener.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.listener.error(error, reason);
    }
}

/// Called while the consumer is polled, before the partitions are really ours, or not ours any more.
impl ConsumerContext for Assignments {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let numbers = |partitions: &TopicPartitionList| partitions.elements().iter().map(|element| element.partition()).collect::<Vec<_>>();
        let lose = |lost: &Held| {
            lost.lost.cancel();
            // librdkafka would remember the pause, and never fetch the partition again if it came back.
            if lost.queue().is_paused
                && let Err(error) = consumer.resume(&place(&self.topic, lost.number))
            {
                tracing::debug!(%error, "a partition that goes was not resumed");
            }
        };
        match rebalance {
            Rebalance::Assign(partitions) => {
                let numbers = numbers(partitions);
                self.has_joined.store(true, Ordering::Relaxed);
                if !numbers.is_empty() {
                    tracing::info!(partitions = ?numbers, "partitions were given to this process");
                }
                for number in numbers {
                    let new = Arc::new(Held::new(number));
                    self.new.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&new));
                    if let Some(before) = held.insert(number, new) {
                        lose(&before);
                    }
                }
                self.news.notify_one();
            }
            Rebalance::Revoke(partitions) => {
                let numbers = numbers(partitions);
                if !numbers.is_empty() {
                    tracing::info!(partitions = ?numbers, "partitions were taken from this process");
                }
                for number in numbers {
                    if let Some(lost) = held.remove(&number) {
                        lose(&lost);
                    }
                }
            }
            Rebalance::Error(error) => {
                tracing::warn!(%error, "the group could not share out its partitions; this process has none");
                for (_, lost) in held.drain() {
                    lose(&lost);
                }
            }
        }
    }
}

/// A partition, as librdkafka is told of it.
pub(crate) fn place(topic: &str, partition: i32) -> TopicPartitionList {
    let mut place = TopicPartitionList::with_capacity(1);
    place.add_partition(topic, partition);
    place
}
