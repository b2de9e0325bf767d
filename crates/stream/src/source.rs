//! The way through: the outcomes topic as a group reads it, each partition by one member at a time.
//!
//! ```text
//! Kafka ─▶ librdkafka ─▶ routed by partition ─▶ a queue for each, bounded in bytes ─▶ its worker ─▶ commits
//!                             └─ paused while its queue is full
//! ```
//!
//! A partition that is taken away ends its worker at once, wherever it is: what it had begun is written down ([`Position`]), and whoever reads
//! the partition next repeats it. A commit of a worker that was ended too late would be one of a batch that others have repeated and left behind; so
//! each commit is made while nothing can be taken away, and only if the partition is still held. (That the group has not moved on
//! without this member is checked by the broker: it refuses the commit of an earlier generation.)

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::Offset;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::assignments::{Assignments, Held, place};
use crate::client::{KafkaConfig, RECENT, StreamError, bound_prefetching, client_config};
use crate::intents::Position;
use crate::partition::{Committed, Next, PartitionLog, Records, Start, start};
use crate::reader::Record;
use crate::topics::Topic;

/// The group of classifiers, after the prefix of topics: how far it came, counts reach.
pub const CLASSIFIERS: &str = "classifier";

/// How long one question about committed offsets may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause before something that Kafka did not do is tried again.
const PAUSE: Duration = Duration::from_millis(500);
/// How long leaving the group may take.
const FAREWELL: Duration = Duration::from_secs(5);
/// What can go wrong.
const READING: &str = "reading";
const PAUSING: &str = "pausing a partition";
const RESUMING: &str = "resuming a partition";
const ASKING: &str = "asking how far the group came";
const COMMITTING: &str = "committing how far it came";
/// Least time that an answer is waited for.
const LEAST_SOCKET_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a broker may wait for records before it answers that there are none.
const FETCH_WAIT: Duration = Duration::from_millis(100);

/// The outcomes topic as one member of a group reads it.
pub struct Source {
    reader: Arc<Reader>,
    /// Bytes of records that wait for a worker, by partition.
    queued_bytes: usize,
}

struct Reader {
    consumer: StreamConsumer<Assignments>,
    brokers: String,
    /// By what was done, what went wrong with it last, and when.
    problems: Mutex<BTreeMap<&'static str, (Instant, String)>>,
}

/// A partition, in the hands of its worker.
pub struct Partition {
    reader: Arc<Reader>,
    held: Arc<Held>,
    queued_bytes: usize,
    /// What is committed, as far as this worker knows.
    committed: Mutex<Option<Committed>>,
}

impl Source {
    /// Sets up a member of the group `group`; Kafka is not asked anything yet. Each partition holds about `queued_bytes` of records that wait.
    ///
    /// # Errors
    /// When the configuration is not one.
    pub fn new(config: &KafkaConfig, group: &str, queued_bytes: usize) -> Result<Source, StreamError> {
        config.check()?;
        let mut client = client_config(config);
        client.set("group.id", format!("{}.{group}", config.topic_prefix)).set("enable.auto.commit", "false");
        client.set("auto.offset.reset", "earliest").set("allow.auto.create.topics", "false").set("check.crcs", "true");
        // Who joins or leaves takes only what it must from the others.
        client.set("partition.assignment.strategy", "cooperative-sticky");
        client.set("session.timeout.ms", config.session_timeout.as_millis().to_string());
        // A broker that is silent for so long has given us up, or is gone: nobody waits for its answers any longer.
        client.set("socket.timeout.ms", config.session_timeout.max(LEAST_SOCKET_TIMEOUT).as_millis().to_string());
        client.set("heartbeat.interval.ms", (config.session_timeout.as_millis() / 3).to_string());
        bound_prefetching(&mut client);
        // A partition that was paused is fetched again only when the question that leaves it out is answered.
        client.set("fetch.wait.max.ms", FETCH_WAIT.as_millis().to_string());
        let assignments = Assignments::new(config.topic(Topic::Outcomes));
        let brokers = config.brokers.clone();
        let consumer = StreamConsumer::from_config_and_context(&client, assignments)
            .map_err(|source| StreamError::Config { brokers: brokers.clone(), source })?;
        Ok(Source { reader: Arc::new(Reader { consumer, brokers, problems: Mutex::default() }), queued_bytes })
    }

    /// What went wrong last with reading or committing, unless that is long ago.
    #[must_use]
    pub fn last_problem(&self) -> Option<String> {
        let problems = self.reader.problems();
        let recent = problems.iter().filter(|(_, (when, _))| when.elapsed() < RECENT);
        recent.max_by_key(|(_, (when, _))| *when).map(|(doing, (_, what))| format!("{doing} failed: {what}"))
    }

    /// Whether the group has given this process its partitions, be they none.
    #[must_use]
    pub fn has_joined(&self) -> bool {
        self.reader.assignments().has_joined()
    }

    /// Gives each partition to a worker, for as long as it is ours, until `stop`. Then workers get no more records, and have until `drain_within` to
    /// end.
    ///
    /// # Errors
    /// When reading fails for good, or a worker does.
    pub async fn run<W>(&self, stop: CancellationToken, drain_within: Duration, work: impl Fn(Partition) -> W) -> Result<(), StreamError>
    where
        W: Future<Output = ()> + Send + 'static,
    {
        let reader = &self.reader;
        let unusable = |source| StreamError::Request { brokers: reader.brokers.clone(), what: "let its topic be read", source };
        reader.consumer.subscribe(&[reader.topic()]).map_err(unusable)?;
        // A task of its own: while something is committed, it has to wait before it hears that partitions go.
        let mut polling = JoinSet::new();
        polling.spawn(Arc::clone(reader).poll(self.queued_bytes));
        let mut workers = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(failed) = polling.join_next() => {
                    return Err(failed.map_or_else(|error| StreamError::Worker(error.to_string()), unusable));
                }
                Some(ended) = workers.join_next() => {
                    ended.map_err(|error| StreamError::Worker(error.to_string()))?;
                }
                () = reader.assignments().news.notified() => {
                    for held in reader.assignments().take_new() {
                        let lost = held.lost.clone();
                        let worker = work(Partition::new(Arc::clone(reader), held, self.queued_bytes));
                        workers.spawn(async move {
                            // In this order: an answer that came with the loss is one that a successor may have had a part in.
                            tokio::select! {
                                biased;
                                () = lost.cancelled() => {}
                                () = worker => {}
                            }
                        });
                    }
                }
            }
        }
        for held in reader.assignments().all() {
            held.close();
        }
        let all_ended = async { while workers.join_next().await.is_some() {} };
        if timeout(drain_within, all_ended).await.is_err() {
            let seconds = drain_within.as_secs_f32();
            tracing::warn!(
                partitions = workers.len(),
                "cut off: they were not done within {seconds} s; what they had begun is repeated later"
            );
            workers.shutdown().await;
        }
        Ok(())
    }

    /// Leaves the group, so that others need not wait until it is missed.
    pub async fn leave(self) {
        let leaving = spawn_blocking(move || drop(self));
        if timeout(FAREWELL, leaving).await.is_err() {
            tracing::debug!("Kafka did not answer the farewell");
        }
    }
}

impl Reader {
    fn assignments(&self) -> &Assignments {
        self.consumer.context()
    }

    fn topic(&self) -> &str {
        self.assignments().topic()
    }

    fn problems(&self) -> MutexGuard<'_, BTreeMap<&'static str, (Instant, String)>> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what Kafka sends, partitions and records, for as long as it can. Returns why it cannot any more.
    async fn poll(self: Arc<Self>, queued_bytes: usize) -> KafkaError {
        loop {
            match self.consumer.recv().await {
                Ok(message) => self.route(Record::from(&message), queued_bytes),
                Err(error) => self.note(READING, &error),
            }
            if let Some((code, reason)) = self.consumer.client().fatal_error() {
                tracing::error!(reason, "reading failed for good");
                return KafkaError::Global(code);
            }
        }
    }

    /// Puts a record into the queue of its partition. A partition that is not ours any more has none, and one that is closed takes none.
    fn route(&self, record: Record, queued_bytes: usize) {
        let Some(held) = self.assignments().of(record.partition) else { return };
        let mut queue = held.queue();
        if queue.is_closed {
            return;
        }
        queue.bytes += record.size();
        queue.records.push_back(record);
        if queue.bytes > queued_bytes && !queue.is_paused {
            match self.consumer.pause(&place(self.topic(), held.number)) {
                Ok(()) => queue.is_paused = true,
                Err(error) => self.note(PAUSING, &error),
            }
        }
        held.filled.notify_one();
    }

    /// Keeps what went wrong; that brokers cannot be reached is seen by who asks them.
    fn note(&self, doing: &'static str, error: &KafkaError) {
        tracing::debug!(%error, "{doing} failed");
        let is_silence = matches!(
            error.rdkafka_error_code(),
            Some(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::OperationTimedOut)
        );
        // What a member is told while the group shares out its partitions anew, and a worker whose partition is gone.
        let is_rebalance = *error == KafkaError::Canceled
            || matches!(
                error.rdkafka_error_code(),
                Some(RDKafkaErrorCode::RebalanceInProgress | RDKafkaErrorCode::IllegalGeneration | RDKafkaErrorCode::UnknownMemberId)
            );
        if !is_silence && !is_rebalance {
            self.problems().insert(doing, (Instant::now(), error.to_string()));
        }
    }

    /// Commits an offset with the words beside it, if the partition is still held.
    fn commit(&self, held: &Held, (next, words): &Committed) -> Result<(), KafkaError> {
        let _nothing_is_taken_away = self.assignments().hold();
        if held.lost.is_cancelled() {
            return Err(KafkaError::Canceled);
        }
        let mut place = TopicPartitionList::with_capacity(1);
        let mut element = place.add_partition(self.topic(), held.number);
        element.set_offset(Offset::Offset(*next))?;
        element.set_metadata(words);
        self.consumer.commit(&place, CommitMode::Sync)
    }

    /// What the group committed, if anything.
    fn committed(&self, partition: i32) -> Result<Option<Committed>, KafkaError> {
        let answer = self.consumer.committed_offsets(place(self.topic(), partition), QUESTION_TIMEOUT)?;
        let elements = answer.elements();
        let Some(element) = elements.first() else { return Ok(None) };
        element.error()?;
        Ok(match element.offset() {
            Offset::Offset(offset) => Some((offset, element.metadata().to_owned())),
            _ => None,
        })
    }

    /// Where reading begins, and what that follows from.
    fn start(&self, partition: i32) -> Result<(Start, Option<Committed>), KafkaError> {
        let (first, end) = self.consumer.fetch_watermarks(self.topic(), partition, QUESTION_TIMEOUT)?;
        let committed = self.committed(partition)?;
        let start = start(partition, committed.as_ref(), first..end);
        Ok((start, committed))
    }
}

impl Partition {
    fn new(reader: Arc<Reader>, held: Arc<Held>, queued_bytes: usize) -> Partition {
        Partition { reader, held, queued_bytes, committed: Mutex::default() }
    }

    fn committed(&self) -> MutexGuard<'_, Option<Committed>> {
        self.committed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn insist_on(&self, wanted: Committed) {
        loop {
            let (reader, held, wanted) = (Arc::clone(&self.reader), Arc::clone(&self.held), wanted.clone());
            let committing = spawn_blocking(move || reader.commit(&held, &wanted));
            match committing.await.unwrap_or(Err(KafkaError::Canceled)) {
                Ok(()) => break,
                Err(error) => self.reader.note(COMMITTING, &error),
            }
            sleep(PAUSE).await;
        }
        self.reader.problems().remove(COMMITTING);
        *self.committed() = Some(wanted);
    }

    /// Asks a question about the partition, which blocks, until there is an answer.
    async fn ask<T: Send + 'static>(&self, question: fn(&Reader, i32) -> Result<T, KafkaError>) -> T {
        loop {
            let (reader, number) = (Arc::clone(&self.reader), self.number());
            let asking = spawn_blocking(move || question(&reader, number));
            match asking.await.unwrap_or(Err(KafkaError::Canceled)) {
                Ok(answer) => {
                    self.reader.problems().remove(ASKING);
                    return answer;
                }
                Err(error) => self.reader.note(ASKING, &error),
            }
            sleep(PAUSE).await;
        }
    }
}

impl Records for Partition {
    async fn next(&self, until: Instant) -> Next {
        loop {
            {
                let mut queue = self.held.queue();
                if queue.is_closed {
                    return Next::End;
                }
                let record = queue.records.pop_front();
                queue.bytes -= record.as_ref().map_or(0, Record::size);
                if queue.is_paused && queue.bytes <= self.queued_bytes / 2 {
                    match self.reader.consumer.resume(&place(self.reader.topic(), self.held.number)) {
                        Ok(()) => queue.is_paused = false,
                        Err(error) => self.reader.note(RESUMING, &error),
                    }
                }
                if let Some(record) = record {
                    return Next::Record(record);
                }
            }
            let filled = self.held.filled.notified();
            if timeout_at(until, filled).await.is_err() {
                return Next::Nothing;
            }
        }
    }
}

impl PartitionLog for Partition {
    fn number(&self) -> i32 {
        self.held.number
    }

    async fn start(&self) -> Start {
        let asked = self.ask(Reader::start).await;
        *self.committed() = asked.1;
        asked.0
    }

    async fn is_undisturbed(&self) -> bool {
        let committed = self.ask(Reader::committed).await;
        *self.committed() == committed
    }

    async fn rejoin(&self) -> ! {
        let (partition, consumer) = (self.number(), &self.reader.consumer);
        tracing::warn!(
            partition,
            "the topic was made again, or offsets were set by hand: this process leaves the group and joins it again"
        );
        consumer.unsubscribe();
        if let Err(error) = consumer.subscribe(&[self.reader.topic()]) {
            self.reader.note(READING, &error);
        }
        std::future::pending().await
    }

    async fn commit(&self, position: &Position) {
        self.insist_on((position.next, position.words())).await;
    }

    async fn claim(&self, next: i64) {
        self.insist_on((next, String::new())).await;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;
    use tokio::sync::mpsc;

    use super::*;
    use crate::intents::Intent;
    use crate::outcomes::OutcomeRecord;
    use crate::producer::OutcomeProducer;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A cluster inside librdkafka with one partition, in which so many records are.
    async fn cluster(records: u8) -> (MockCluster<'static, DefaultProducerContext>, KafkaConfig) {
        let cluster = MockCluster::new(1).unwrap();
        let config =
            KafkaConfig { brokers: cluster.bootstrap_servers(), session_timeout: Duration::from_secs(6), ..KafkaConfig::default() };
        cluster.create_topic(&config.topic(Topic::Outcomes), 1, 1).unwrap();
        let producer = OutcomeProducer::new(&config).unwrap();
        for number in 0..records {
            let record = OutcomeRecord {
                tenant: "acme".into(),
                terminal: "T-1".into(),
                receipt_ms: 0,
                profile: Bytes::new(),
                trace_parent: None,
                batch: Bytes::from(vec![number; 1000]),
            };
            producer.send(&record).await.unwrap();
        }
        (cluster, config)
    }

    /// Runs a reader whose worker does `work`, until it sends something.
    async fn read<T: Send + 'static, W>(config: &KafkaConfig, queued_bytes: usize, work: impl Fn(Partition, mpsc::Sender<T>) -> W) -> T
    where
        W: Future<Output = ()> + Send + 'static,
    {
        let source = Source::new(config, "test", queued_bytes).unwrap();
        let (sender, mut receiver) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let stopping = async {
            let result = receiver.recv().await.unwrap();
            stop.cancel();
            result
        };
        let running = source.run(stop.clone(), Duration::ZERO, |partition| work(partition, sender.clone()));
        let (ended, result) = tokio::join!(running, stopping);
        ended.unwrap();
        source.leave().await;
        result
    }

    async fn record(partition: &Partition) -> Record {
        match partition.next(Instant::now() + PATIENCE).await {
            Next::Record(record) => record,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn every_record_comes_in_order_also_through_a_small_queue() {
        let (_cluster, config) = cluster(100).await;
        let values = read(&config, 10_000, async |partition: Partition, sender| {
            let mut values = Vec::new();
            for _ in 0..100 {
                values.push(record(&partition).await.value[0]);
            }
            sender.send(values).await.unwrap();
        });
        assert_eq!(values.await, (0..100).collect::<Vec<u8>>());
    }

    #[test]
    fn what_was_committed_holds_only_for_the_log_that_it_was_committed_for() {
        let known =
            |next, intended: Option<i64>| Position { intent: intended.map(|last| Intent { last, since_ms: 0 }), ..Position::fresh(next) };
        let committed = |position: &Position| (position.next, position.words());
        for position in [known(5, None), known(10, None), known(5, Some(9)), known(1, Some(2))] {
            assert_eq!(start(0, Some(&committed(&position)), 3..10), Start { position, is_new_log: false });
        }
        for (committed, next) in [
            (None, 3),
            (Some(committed(&known(11, None))), 3),
            (Some(committed(&known(5, Some(10)))), 5),
            (Some((7, "by hand".to_owned())), 7),
        ] {
            let start = start(0, committed.as_ref(), 3..10);
            assert_eq!((start.position.next, start.position.intent, start.is_new_log), (next, None, true));
        }
    }

    #[tokio::test]
    async fn an_offset_that_is_set_by_hand_is_noticed() {
        let (_cluster, config) = cluster(1).await;
        let noticed = read(&config, 1 << 20, async |partition: Partition, sender| {
            let start = partition.start().await;
            assert!(start.is_new_log && partition.is_undisturbed().await);
            partition.commit(&start.position).await;
            assert!(partition.is_undisturbed().await);
            let (reader, held) = (Arc::clone(&partition.reader), Arc::clone(&partition.held));
            spawn_blocking(move || reader.commit(&held, &(0, "by hand".into())).unwrap()).await.unwrap();
            sender.send(!partition.is_undisturbed().await).await.unwrap();
        });
        assert!(noticed.await);
    }

    #[tokio::test]
    async fn who_comes_next_knows_what_was_begun() {
        let (_cluster, config) = cluster(5).await;
        let begun = read(&config, 1 << 20, async |partition: Partition, sender| {
            let position = partition.start().await.position;
            assert_eq!((position.next, position.intent), (0, None));
            let done = Position { next: 2, ..position };
            partition.commit(&done).await;
            let begun = Position { intent: Some(Intent { last: 3, since_ms: 77 }), ..done };
            partition.commit(&begun).await;
            sender.send(begun).await.unwrap();
        })
        .await;
        let (found, first) = read(&config, 1 << 20, async |partition: Partition, sender| {
            sender.send((partition.start().await.position, record(&partition).await.offset)).await.unwrap();
        })
        .await;
        assert_eq!((found, first), (begun, 2));
    }

    #[tokio::test]
    async fn who_comes_after_a_claim_finds_a_new_log_too() {
        let (_cluster, config) = cluster(5).await;
        let undisturbed = read(&config, 1 << 20, async |partition: Partition, sender| {
            partition.start().await;
            partition.claim(2).await;
            sender.send(partition.is_undisturbed().await).await.unwrap();
        });
        assert!(undisturbed.await);
        let start = read(&config, 1 << 20, async |partition: Partition, sender| sender.send(partition.start().await).await.unwrap());
        let start = start.await;
        assert_eq!((start.position.next, start.is_new_log), (2, true));
    }

    /// Also one that was paused when it went.
    #[tokio::test]
    async fn a_partition_that_goes_and_comes_back_is_read_again() {
        let (_cluster, config) = cluster(100).await;
        let (sender, mut given) = mpsc::channel(10);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let reading = tokio::spawn(async move {
            let source = Source::new(&config, "test", 3000).unwrap();
            let work = |partition: Partition| {
                let sender = sender.clone();
                async move {
                    sender.send(partition).await.unwrap();
                    std::future::pending::<()>().await;
                }
            };
            source.run(stopped, Duration::ZERO, work).await.unwrap();
        });
        let before = timeout(PATIENCE, given.recv()).await.unwrap().unwrap();
        timeout(PATIENCE, async {
            while !before.held.queue().is_paused {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap();
        before.reader.consumer.unsubscribe();
        timeout(PATIENCE, before.held.lost.cancelled()).await.unwrap();
        before.reader.consumer.subscribe(&[before.reader.topic()]).unwrap();
        let again = timeout(PATIENCE, given.recv()).await.unwrap().unwrap();
        for offset in 0..100 {
            assert_eq!(record(&again).await.offset, offset);
        }
        stop.cancel();
        reading.await.unwrap();
    }

    /// A worker that is late must not commit for whoever came after it.
    #[tokio::test]
    async fn a_partition_that_was_taken_away_is_not_committed() {
        let (_cluster, config) = cluster(1).await;
        let refused = read(&config, 1 << 20, async |partition: Partition, sender| {
            let position = partition.start().await.position;
            partition.commit(&position).await;
            // Apart from the worker, which ends with its partition.
            tokio::spawn(async move {
                partition.held.lost.cancel();
                let late = (1, position.words());
                let refused = spawn_blocking(move || partition.reader.commit(&partition.held, &late).unwrap_err());
                sender.send(refused.await.unwrap()).await.unwrap();
            });
        });
        assert_eq!(refused.await, KafkaError::Canceled);
    }
}
