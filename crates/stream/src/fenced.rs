//! A topic of what things are now, with one writer at a time.
//!
//! Whoever takes it over does so under one transactional identifier (KIP-98), so a writer that was stopped, and wakes up believing that it still has the
//! topic, is refused by the broker. What it had begun is aborted before its successor reads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};

use crate::client::{KafkaConfig, Listener, StreamError, client_config};
use crate::reader::read_to_end;
use crate::topics::{LARGEST_CORRECTION, Topic};

/// How long a transaction may be open until the broker aborts it.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one step of a transaction may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why something was not written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Another has taken the topic over. This one can write no more.
    #[error("another process has taken over the topic {topic} at {brokers}; it has one writer at a time")]
    TakenOver {
        /// The topic.
        topic: String,
        /// Bootstrap servers.
        brokers: String,
    },
    /// Kafka did not do it. The topic can be taken over again.
    #[error(transparent)]
    Kafka(#[from] StreamError),
}

/// The topic in the hands of its writer.
pub(crate) struct FencedLog {
    producer: Arc<FutureProducer<Listener>>,
    topic: String,
    brokers: String,
}

impl FencedLog {
    /// Takes a topic over; `writer`, after the prefix of topics, is what all of its writers are called.
    pub(crate) async fn take_over(config: &KafkaConfig, topic: Topic, writer: &str) -> Result<FencedLog, LogError> {
        config.check()?;
        let mut client = client_config(config);
        client.set("transactional.id", format!("{}.{writer}", config.topic_prefix));
        client.set("transaction.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string());
        client.set("message.timeout.ms", PATIENCE.as_millis().to_string());
        client.set("message.max.bytes", LARGEST_CORRECTION.to_string());
        // One request after the other: of several, one that is refused could pass for delivered once a later one is taken (see `Producer`).
        client.set("max.in.flight.requests.per.connection", "1");
        client.set("allow.auto.create.topics", "false").set("partitioner", "murmur2_random");
        let brokers = config.brokers.clone();
        let producer = FutureProducer::from_config_and_context(&client, Listener::default())
            .map_err(|source| StreamError::Config { brokers: brokers.clone(), source })?;
        let log = FencedLog { producer: Arc::new(producer), topic: config.topic(topic), brokers };
        log.blocking("give this process a topic to write alone", |producer, _| producer.init_transactions(PATIENCE)).await?;
        Ok(log)
    }

    /// Writes what things are now, by key, all of it or nothing; without a value, they are forgotten.
    pub(crate) async fn append(&self, records: Vec<(String, Option<Vec<u8>>)>) -> Result<(), LogError> {
        if records.is_empty() {
            return Ok(());
        }
        let append = move |producer: &FutureProducer<Listener>, topic: &str| {
            producer.begin_transaction()?;
            for (key, value) in &records {
                let record = FutureRecord { payload: value.as_ref(), ..FutureRecord::to(topic).key(key) };
                // Whether it was delivered is what the end of the transaction says.
                let sent = producer.send_result(record);
                drop(sent.map_err(|(error, _)| error)?);
            }
            producer.commit_transaction(PATIENCE)
        };
        self.blocking("take what was written", append).await
    }

    /// Does what blocks on a thread that may.
    async fn blocking(
        &self,
        what: &'static str,
        act: impl FnOnce(&FutureProducer<Listener>, &str) -> Result<(), KafkaError> + Send + 'static,
    ) -> Result<(), LogError> {
        let (producer, topic) = (Arc::clone(&self.producer), self.topic.clone());
        let acting = tokio::task::spawn_blocking(move || {
            let done = act(&producer, &topic);
            done.map_err(|error| (error, producer.client().fatal_error().map(|(code, _)| code)))
        });
        let (source, fatal) = match acting.await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(failed)) => failed,
            Err(_) => (KafkaError::Canceled, None),
        };
        if is_fenced(fatal) || is_fenced(source.rdkafka_error_code()) {
            return Err(LogError::TakenOver { topic: self.topic.clone(), brokers: self.brokers.clone() });
        }
        Err(StreamError::Request { brokers: self.brokers.clone(), what, source }.into())
    }
}

/// What things of such a topic are now, by key: the last record of each that has a value.
pub(crate) async fn read_last(config: &KafkaConfig, topic: Topic) -> Result<BTreeMap<Bytes, Bytes>, StreamError> {
    let mut last = BTreeMap::new();
    for record in read_to_end(config, &config.topic(topic)).await? {
        let key = record.key.unwrap_or_default();
        if record.value.is_empty() {
            last.remove(&key);
        } else {
            last.insert(key, record.value);
        }
    }
    Ok(last)
}

fn is_fenced(code: Option<RDKafkaErrorCode>) -> bool {
    let fences = [RDKafkaErrorCode::Fenced, RDKafkaErrorCode::InvalidProducerEpoch, RDKafkaErrorCode::ProducerFenced];
    code.is_some_and(|code| fences.contains(&code))
}
