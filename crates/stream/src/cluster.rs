//! A Kafka cluster as its administrator sees it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{FromClientConfig, FromClientConfigAndContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer, ProducerContext};

use crate::client::{KafkaConfig, Listener, StreamError, client_config};
use crate::topics::{Found, Safety, Topic, TopicState, Wanted};

/// How long one question to the cluster may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the first question, whether it is there at all, may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long librdkafka's log is waited for after a question.
const LOG_PATIENCE: Duration = Duration::from_millis(10);

type Admin = AdminClient<DefaultClientContext>;

/// A Kafka cluster as its administrator sees it. Needs no answer to be made.
#[derive(Clone)]
pub struct Cluster {
    /// Sends nothing: it is asked for metadata, and what librdkafka logs meanwhile can be fetched from it (from an admin client it cannot).
    client: Arc<BaseProducer<Listener>>,
    config: KafkaConfig,
}

impl Cluster {
    /// Sets up a client; the cluster is not asked anything yet.
    ///
    /// # Errors
    /// When the bootstrap servers or the prefix cannot be understood.
    pub fn new(config: &KafkaConfig) -> Result<Cluster, StreamError> {
        let prefix = config.topic_prefix.as_bytes();
        let is_name = prefix.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte));
        if !is_name || prefix.is_empty() || prefix.len() > 100 {
            return Err(StreamError::Prefix(config.topic_prefix.clone()));
        }
        let client = BaseProducer::from_config_and_context(&client_config(config), Listener::default())
            .map_err(|source| StreamError::Config { brokers: config.brokers.clone(), source })?;
        Ok(Cluster { client: Arc::new(client), config: config.clone() })
    }

    /// Asks once whether the cluster is there.
    ///
    /// # Errors
    /// When it does not answer within a second, with the reason.
    pub async fn probe(&self) -> Result<(), StreamError> {
        let brokers = &self.config.brokers;
        self.brokers(PROBE_TIMEOUT).await.map(|_| ()).map_err(|source| match self.client.context().last_problem() {
            Some(reason) => StreamError::Unreachable { brokers: brokers.clone(), reason },
            None => StreamError::Request { brokers: brokers.clone(), what: "answer", source },
        })
    }

    /// The number of brokers.
    async fn brokers(&self, timeout: Duration) -> Result<usize, KafkaError> {
        self.metadata(timeout, |metadata| metadata.brokers().len()).await
    }

    /// Asks for the cluster's metadata, which blocks, on a thread that may.
    async fn metadata<T: Send + 'static>(
        &self,
        timeout: Duration,
        read: impl FnOnce(&rdkafka::metadata::Metadata) -> T + Send + 'static,
    ) -> Result<T, KafkaError> {
        let client = Arc::clone(&self.client);
        let answer = tokio::task::spawn_blocking(move || {
            let answer = client.client().fetch_metadata(None, timeout).map(|metadata| read(&metadata));
            client.poll(LOG_PATIENCE);
            answer
        });
        answer.await.unwrap_or(Err(KafkaError::Canceled))
    }

    /// Creates the topics that are missing, and checks those that exist: their shape, and whether they are safe. Nothing is created
    /// unless everything is in order.
    ///
    /// # Errors
    /// When the cluster does not answer, a topic has another shape than Faultline needs, or acknowledged records would be lost with one
    /// machine and `allow_weak_durability` is not set.
    pub async fn ensure_topics(&self) -> Result<Vec<(String, TopicState)>, StreamError> {
        let brokers = self.brokers(REQUEST_TIMEOUT).await.map_err(self.failed("say which brokers there are"))?;
        let safety = self.safety(brokers);
        let wanted = Topic::ALL.map(|topic| Wanted::new(topic, self.config.topic(topic), self.config.partitions, safety));
        let admin = AdminClient::from_config(&client_config(&self.config)).map_err(self.failed("take an administrator"))?;
        let present = self.find(&admin, &wanted).await?;

        let missing: Vec<&Wanted> = wanted.iter().filter(|topic| !present.contains_key(&topic.name)).collect();
        if !missing.is_empty() && safety.replicas < self.config.replication_factor && !self.config.allow_weak_durability {
            let wanted = self.config.replication_factor;
            return Err(StreamError::TooFewBrokers { brokers: self.config.brokers.clone(), found: brokers, wanted });
        }
        let mut weaknesses = Vec::new();
        for topic in &wanted {
            let found = present.get(&topic.name);
            if let Some(what) = found.and_then(|found| topic.contradiction(found)) {
                return Err(StreamError::Contradiction { topic: topic.name.clone(), brokers: self.config.brokers.clone(), what });
            }
            weaknesses.extend(topic.weaknesses(found.unwrap_or(&Found::created(topic))));
        }
        if !weaknesses.is_empty() && !self.config.allow_weak_durability {
            return Err(StreamError::Weak { brokers: self.config.brokers.clone(), weaknesses });
        }
        self.create(&admin, &missing).await?;
        let state = |name| if present.contains_key(name) { TopicState::Present } else { TopicState::Created };
        Ok(wanted.iter().map(|topic| (topic.name.clone(), state(&topic.name))).collect())
    }

    /// How safe new topics can be: as configured, as far as there are brokers.
    fn safety(&self, brokers: usize) -> Safety {
        let replicas = self.config.replication_factor.min(u32::try_from(brokers).unwrap_or(u32::MAX));
        Safety { replicas, min_insync_replicas: self.config.min_insync_replicas.min(replicas) }
    }

    /// Those of `topics` that exist, as they are, by name.
    async fn find(&self, admin: &Admin, topics: &[Wanted]) -> Result<BTreeMap<String, Found>, StreamError> {
        let names: Vec<String> = topics.iter().map(|topic| topic.name.clone()).collect();
        let shapes = self.metadata(REQUEST_TIMEOUT, move |metadata| {
            let ours = metadata.topics().iter().filter(|topic| names.iter().any(|name| name == topic.name()));
            ours.map(|topic| (topic.name().to_owned(), shape(topic))).collect::<BTreeMap<_, _>>()
        });
        let mut found = shapes.await.map_err(self.failed("describe its topics"))?;
        if found.is_empty() {
            return Ok(found);
        }
        let names: Vec<String> = found.keys().cloned().collect();
        let resources: Vec<_> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let settings = admin.describe_configs(&resources, &options()).await.map_err(self.failed("describe its topics' settings"))?;
        for resource in settings {
            let resource = resource.map_err(|code| self.failed("describe its topics' settings")(KafkaError::AdminOp(code)))?;
            if let OwnedResourceSpecifier::Topic(name) = &resource.specifier
                && let Some(topic) = found.get_mut(name)
            {
                topic.settings = resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect();
            }
        }
        Ok(found)
    }

    async fn create(&self, admin: &Admin, topics: &[&Wanted]) -> Result<(), StreamError> {
        let count = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        let new = topics.iter().map(|topic| {
            let new = NewTopic::new(&topic.name, count(topic.partitions), TopicReplication::Fixed(count(topic.replicas)));
            topic.settings.iter().fold(new, |new, (name, value)| new.set(name, value))
        });
        let new: Vec<_> = new.collect();
        if new.is_empty() {
            return Ok(());
        }
        for result in admin.create_topics(&new, &options()).await.map_err(self.failed("create topics"))? {
            match result {
                // Another service, starting at the same time, was quicker.
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => return Err(StreamError::Create { topic, brokers: self.config.brokers.clone(), code }),
            }
        }
        Ok(())
    }

    fn failed(&self, what: &'static str) -> impl Fn(KafkaError) -> StreamError {
        let brokers = self.config.brokers.clone();
        move |source| StreamError::Request { brokers: brokers.clone(), what, source }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT))
}

fn shape(topic: &MetadataTopic) -> Found {
    let fewest = topic.partitions().iter().map(|partition| partition.replicas().len()).min().unwrap_or_default();
    Found {
        partitions: u32::try_from(topic.partitions().len()).unwrap_or(u32::MAX),
        replicas: u32::try_from(fewest).unwrap_or(u32::MAX),
        ..Found::default()
    }
}

impl ProducerContext for Listener {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_that_is_none_is_refused() {
        for prefix in ["", "a b", "ä", &"x".repeat(101)] {
            let config = KafkaConfig { topic_prefix: prefix.into(), ..KafkaConfig::default() };
            let message = Cluster::new(&config).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(message.contains("kafka.topic_prefix"), "{prefix}: {message}");
        }
    }
}
