//! The incidents topic: the state of every incident, the last record of a key being what it is now. It has one writer at a time.
//!
//! | part | content |
//! |---|---|
//! | key | tenant, `/`, identifier of the incident |
//! | value | `faultline.incident.v1.Incident`; none: it is long over, and forgotten here |
//!
//! Whoever takes the log over does so under one transactional identifier (KIP-98), so a writer that was stopped, and wakes up believing that it still has the
//! log, is refused by the broker. What it had begun is aborted before its successor reads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use faultline_proto::incident::v1::Incident;
use prost::Message;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};

use crate::client::{KafkaConfig, Listener, StreamError, client_config};
use crate::reader::read_to_end;
use crate::topics::Topic;

/// How long a transaction may be open until the broker aborts it.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one step of a transaction may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why incidents were not written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Another has taken the log over. This one can write no more.
    #[error("another alerter has taken over the topic {topic} at {brokers}; there is to be one")]
    TakenOver {
        /// The topic.
        topic: String,
        /// Bootstrap servers.
        brokers: String,
    },
    /// Kafka did not do it. The log can be taken over again.
    #[error(transparent)]
    Kafka(#[from] StreamError),
}

/// The incidents topic in the hands of its writer.
pub struct IncidentLog {
    producer: Arc<FutureProducer<Listener>>,
    topic: String,
    brokers: String,
}

impl IncidentLog {
    /// Takes the log over, and reads what every incident is now.
    ///
    /// # Errors
    /// When Kafka does not answer, or the configuration is not one.
    pub async fn take_over(config: &KafkaConfig) -> Result<(IncidentLog, Vec<Incident>), LogError> {
        config.check()?;
        let mut client = client_config(config);
        client.set("transactional.id", format!("{}.alerter", config.topic_prefix));
        client.set("transaction.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string());
        client.set("message.timeout.ms", PATIENCE.as_millis().to_string());
        client.set("allow.auto.create.topics", "false").set("partitioner", "murmur2_random");
        let brokers = config.brokers.clone();
        let producer = FutureProducer::from_config_and_context(&client, Listener::default())
            .map_err(|source| StreamError::Config { brokers: brokers.clone(), source })?;
        let log = IncidentLog { producer: Arc::new(producer), topic: config.topic(Topic::Incidents), brokers };
        log.blocking("give this alerter the incidents topic", |producer, _| producer.init_transactions(PATIENCE)).await?;
        let mut incidents = BTreeMap::new();
        for record in read_to_end(config, &log.topic).await? {
            let key = record.key.clone().unwrap_or_default();
            if record.value.is_empty() {
                incidents.remove(&key);
                continue;
            }
            match Incident::decode(record.value.clone()) {
                Ok(incident) => {
                    incidents.insert(key, incident);
                }
                Err(error) => tracing::warn!(offset = record.offset, %error, "a record of the incidents topic is not an incident"),
            }
        }
        Ok((log, incidents.into_values().collect()))
    }

    /// Writes what incidents are now, all of them or none.
    ///
    /// # Errors
    /// When Kafka did not take them, as far as is known, or another has taken over.
    pub async fn write(&self, incidents: Vec<Incident>) -> Result<(), LogError> {
        let records = incidents.iter().map(|incident| (key(incident), Some(incident.encode_to_vec()))).collect();
        self.append(records).await
    }

    /// Forgets incidents.
    ///
    /// # Errors
    /// As [`IncidentLog::write`].
    pub async fn forget(&self, incidents: &[Incident]) -> Result<(), LogError> {
        self.append(incidents.iter().map(|incident| (key(incident), None)).collect()).await
    }

    async fn append(&self, records: Vec<(String, Option<Vec<u8>>)>) -> Result<(), LogError> {
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
        self.blocking("take incidents", append).await
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

fn is_fenced(code: Option<RDKafkaErrorCode>) -> bool {
    let fences = [RDKafkaErrorCode::Fenced, RDKafkaErrorCode::InvalidProducerEpoch, RDKafkaErrorCode::ProducerFenced];
    code.is_some_and(|code| fences.contains(&code))
}

fn key(incident: &Incident) -> String {
    format!("{}/{}", incident.tenant, incident.incident_id)
}
