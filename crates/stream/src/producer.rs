//! The way in: records that are taken when every in-sync replica has them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};

use crate::client::{KafkaConfig, Listener, StreamError, client_config};
use crate::outcomes::{CONTRACT, CONTRACT_V1, OutcomeRecord, PROFILE, RECEIPT_TIME, TENANT, TRACE_PARENT};
use crate::topics::{LARGEST_OUTCOMES, Topic};

/// How long a record waits for others to travel with.
const LINGER: Duration = Duration::from_millis(5);
/// Most records that wait. Whoever sends bounds the bytes; this is far above what that lets in.
const QUEUED_RECORDS: u32 = 1_000_000;
/// Most KiB that wait: as `QUEUED_RECORDS`.
const QUEUED_KIB: u32 = 1024 * 1024;

/// Why Kafka does not have a record, as far as is known: one whose answer was lost may be there all the same.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// Too many records are on their way. The record can be sent again, later.
    #[error("too many records are on their way to Kafka")]
    Full,
    /// Kafka did not take it in time, could not, or would not. The record can be sent again.
    #[error("Kafka at {brokers} did not take the record{}", reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default())]
    Unavailable {
        /// Bootstrap servers.
        brokers: String,
        /// What librdkafka's log said last.
        reason: Option<String>,
        /// What librdkafka says.
        source: KafkaError,
    },
    /// It is said to be there, and nobody says where, so that need not be so. The record can be sent again.
    #[error("Kafka at {brokers} did not say where it has the record")]
    Unplaced {
        /// Bootstrap servers.
        brokers: String,
    },
}

/// Brings batches into the outcomes topic.
pub struct OutcomeProducer(Producer);

impl OutcomeProducer {
    /// Sets up a producer; Kafka is not asked anything yet.
    ///
    /// # Errors
    /// When the configuration is not one.
    pub fn new(config: &KafkaConfig) -> Result<OutcomeProducer, StreamError> {
        Producer::new(config, Topic::Outcomes, LARGEST_OUTCOMES).map(OutcomeProducer)
    }

    /// Sends a record, and waits until every in-sync replica has it.
    ///
    /// # Errors
    /// When Kafka did not take it within `kafka.delivery_timeout`, cannot, will not, or does not say where it is.
    pub async fn send(&self, record: &OutcomeRecord) -> Result<(), NotTaken> {
        self.0.send(Some(record.terminal.as_bytes()), &record.batch, headers(record)).await.map(|_| ())
    }
}

/// Brings records into one topic durably (`acks=all`), each once as far as that is up to Kafka (idempotent producer, KIP-98).
///
/// Only an offset shows that Kafka has a record. librdkafka also takes one for delivered when one that was sent behind it is, and when Kafka says that it had its sequence before. The first need
/// not be so: a broker checks the sequences of a producer from the first batch on that it took of it. Where it refuses one (it does not know yet that it leads the partition) and
/// takes the next a moment later, the refused one is reported as delivered, and is nowhere. What has no offset is therefore sent again; who reads tells repeats.
pub(crate) struct Producer {
    /// Replaced when librdkafka gives it up for good.
    producer: Mutex<FutureProducer<Listener>>,
    listener: Listener,
    topic: String,
    largest: u64,
    config: KafkaConfig,
}

impl Producer {
    /// For records of at most `largest` bytes.
    pub(crate) fn new(config: &KafkaConfig, topic: Topic, largest: u64) -> Result<Producer, StreamError> {
        config.check()?;
        let listener = Listener::default();
        let producer = connect(config, largest, &listener)?;
        Ok(Producer { producer: Mutex::new(producer), listener, topic: config.topic(topic), largest, config: config.clone() })
    }

    /// Sends a record, waits until every in-sync replica has it, and says where it is: partition and offset. What has none is not there, as far as is known.
    pub(crate) async fn send(&self, key: Option<&[u8]>, value: &[u8], headers: OwnedHeaders) -> Result<(i32, i64), NotTaken> {
        let producer = self.producer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let record = FutureRecord { key, ..FutureRecord::to(&self.topic).payload(value).headers(headers) };
        let error = match producer.send_result(record) {
            Ok(delivery) => match delivery.await {
                Ok(Ok(place)) if place.offset >= 0 => return Ok((place.partition, place.offset)),
                Ok(Ok(_)) => return Err(NotTaken::Unplaced { brokers: self.config.brokers.clone() }),
                Ok(Err((error, _))) => error,
                Err(_) => KafkaError::Canceled,
            },
            Err((error, _)) => error,
        };
        if producer.client().fatal_error().is_some() {
            self.replace(&producer);
        }
        Err(not_taken(error, &self.config.brokers, self.listener.last_problem()))
    }

    /// Begins anew after an error from which a producer does not recover: its records are lost, unacknowledged.
    fn replace(&self, failed: &FutureProducer<Listener>) {
        let mut current = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if std::ptr::eq(current.client().native_ptr(), failed.client().native_ptr()) {
            let error = failed.client().fatal_error();
            match connect(&self.config, self.largest, &self.listener) {
                Ok(producer) => {
                    tracing::warn!(?error, "the producer failed for good, and was replaced");
                    *current = producer;
                }
                Err(refusal) => tracing::error!(?error, %refusal, "the producer failed for good, and cannot be replaced"),
            }
        }
    }
}

fn connect(config: &KafkaConfig, largest: u64, listener: &Listener) -> Result<FutureProducer<Listener>, StreamError> {
    let mut client = client_config(config);
    client.set("enable.idempotence", "true").set("acks", "all");
    // A topic that the broker made for us would be as weak as its defaults.
    client.set("allow.auto.create.topics", "false");
    // That of Kafka's own clients (for records with a key), named here because every producer of this topic must agree on it.
    client.set("partitioner", "murmur2_random");
    client.set("compression.type", "lz4").set("linger.ms", LINGER.as_millis().to_string()).set("batch.size", "1048576");
    client.set("message.max.bytes", largest.to_string()).set("message.timeout.ms", config.delivery_timeout.as_millis().to_string());
    client.set("queue.buffering.max.messages", QUEUED_RECORDS.to_string()).set("queue.buffering.max.kbytes", QUEUED_KIB.to_string());
    FutureProducer::from_config_and_context(&client, listener.clone())
        .map_err(|source| StreamError::Config { brokers: config.brokers.clone(), source })
}

fn headers(record: &OutcomeRecord) -> OwnedHeaders {
    let receipt = record.receipt_ms.to_string();
    let mut headers = OwnedHeaders::new_with_capacity(5)
        .insert(Header { key: CONTRACT, value: Some(CONTRACT_V1) })
        .insert(Header { key: TENANT, value: Some(&record.tenant) })
        .insert(Header { key: RECEIPT_TIME, value: Some(&receipt) });
    if !record.profile.is_empty() {
        headers = headers.insert(Header { key: PROFILE, value: Some(record.profile.as_ref()) });
    }
    if let Some(parent) = &record.trace_parent {
        headers = headers.insert(Header { key: TRACE_PARENT, value: Some(parent) });
    }
    headers
}

/// What an error of librdkafka means for a record. None of them says that *this* record can never be taken: Kafka refuses produce requests, and what
/// is wrong with one of its records ("too large", where the topic's limit was lowered) is told to all of them.
fn not_taken(error: KafkaError, brokers: &str, reason: Option<String>) -> NotTaken {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::QueueFull) => NotTaken::Full,
        _ => NotTaken::Unavailable { brokers: brokers.to_owned(), reason, source: error },
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::RDKafkaRespErr;

    use super::*;
    use crate::reader::read_to_end;

    fn record() -> OutcomeRecord {
        OutcomeRecord {
            tenant: "acme".into(),
            terminal: "T-1".into(),
            receipt_ms: 1_790_000_000_000,
            profile: Bytes::from_static(b"profile"),
            trace_parent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00".into()),
            batch: Bytes::from_static(b"batch"),
        }
    }

    /// A cluster inside librdkafka, and a configuration that finds it.
    fn cluster() -> (MockCluster<'static, rdkafka::producer::DefaultProducerContext>, KafkaConfig) {
        let cluster = MockCluster::new(3).unwrap();
        let brokers = cluster.bootstrap_servers();
        let config = KafkaConfig { brokers, delivery_timeout: Duration::from_secs(2), ..KafkaConfig::default() };
        cluster.create_topic(&config.topic(Topic::Outcomes), 4, 3).unwrap();
        (cluster, config)
    }

    #[tokio::test]
    async fn what_is_sent_is_what_is_read() {
        let (_cluster, config) = cluster();
        let producer = OutcomeProducer::new(&config).unwrap();
        let bare = OutcomeRecord { profile: Bytes::new(), trace_parent: None, terminal: "T-2".into(), ..record() };
        for sent in [&record(), &bare] {
            producer.send(sent).await.unwrap();
        }
        let mut read = read_to_end(&config, &config.topic(Topic::Outcomes)).await.unwrap();
        read.sort_by_key(|record| record.key.clone());
        let read: Vec<OutcomeRecord> = read.iter().map(|record| record.try_into().unwrap()).collect();
        assert_eq!(read, [record(), bare]);
    }

    #[tokio::test]
    async fn a_cluster_that_is_gone_takes_nothing() {
        let (cluster, config) = cluster();
        let producer = OutcomeProducer::new(&config).unwrap();
        producer.send(&record()).await.unwrap();
        for broker in 1..=3 {
            cluster.broker_down(broker).unwrap();
        }
        let refusal = producer.send(&record()).await.unwrap_err();
        assert!(matches!(refusal, NotTaken::Unavailable { .. }), "{refusal:?}");
        assert!(refusal.to_string().contains(&config.brokers), "{refusal}");
    }

    #[tokio::test]
    async fn no_refusal_is_taken_for_one_of_the_record_itself() {
        let (cluster, config) = cluster();
        let producer = OutcomeProducer::new(&config).unwrap();
        let produce = rdkafka::types::RDKafkaApiKey::Produce;
        cluster.request_errors(produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE]);
        let refusal = producer.send(&record()).await.unwrap_err();
        assert!(matches!(refusal, NotTaken::Unavailable { .. }), "{refusal:?}");
        // What passes by itself is not even noticed.
        cluster.request_errors(produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS]);
        producer.send(&record()).await.unwrap();
        let full = not_taken(KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), "here", None);
        assert!(matches!(full, NotTaken::Full));
    }

    #[tokio::test]
    async fn what_is_acknowledged_is_there_also_where_a_broker_refuses_the_first_and_takes_the_second() {
        let (cluster, config) = cluster();
        let producer = OutcomeProducer::new(&config).unwrap();
        producer.send(&record()).await.unwrap();
        // An answer takes so long that the second is on its way before it is known what became of the first.
        for broker in 1..=3 {
            cluster.broker_round_trip_time(broker, Duration::from_millis(300)).unwrap();
        }
        let produce = rdkafka::types::RDKafkaApiKey::Produce;
        cluster.request_errors(produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION]);
        let [first, second] = ["first", "second"].map(|batch| OutcomeRecord { batch: Bytes::from(batch), ..record() });
        let (first_taken, second_taken) = tokio::join!(producer.send(&first), async {
            tokio::time::sleep(20 * LINGER).await;
            producer.send(&second).await
        });
        second_taken.unwrap();
        let read = read_to_end(&config, &config.topic(Topic::Outcomes)).await.unwrap();
        let is_there = |batch: &OutcomeRecord| read.iter().any(|record| record.value == batch.batch);
        assert!(is_there(&second) && first_taken.is_ok() == is_there(&first), "{first_taken:?} {read:?}");
    }

    #[tokio::test]
    async fn a_producer_that_failed_for_good_is_replaced() {
        let (cluster, config) = cluster();
        // Fatal to an idempotent producer: it may not have an identity.
        let identify = rdkafka::types::RDKafkaApiKey::InitProducerId;
        cluster.request_errors(identify, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED]);
        let producer = OutcomeProducer::new(&config).unwrap();
        let refusal = producer.send(&record()).await.unwrap_err();
        assert!(matches!(refusal, NotTaken::Unavailable { .. }), "{refusal:?}");
        producer.send(&record()).await.unwrap();
    }
}
