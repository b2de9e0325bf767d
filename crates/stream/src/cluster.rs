//! A Kafka cluster as its administrator sees it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{FromClientConfig, FromClientConfigAndContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataTopic};
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer, ProducerContext};

use crate::client::{KafkaConfig, Listener, StreamError, client_config};
use crate::topics::{Found, Safety, Topic, TopicState, Wanted};

/// How long one question to the cluster may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the first question, whether it is there at all, may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a question may take that is asked again and again.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);
/// How long librdkafka's log is waited for after a question.
const LOG_PATIENCE: Duration = Duration::from_millis(10);

/// Where the cluster keeps a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replicas {
    /// Name of the topic, which may be one of Kafka's own.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The broker that takes its records; none while there is nobody who can.
    pub leader: Option<i32>,
    /// Every broker that is to have them.
    pub all: Vec<i32>,
    /// Those that have all that is acknowledged.
    pub in_sync: Vec<i32>,
}

/// A Kafka cluster as its administrator sees it. Needs no answer to be made.
#[derive(Clone)]
pub struct Cluster {
    /// Sends nothing: it is asked for metadata, and what librdkafka logs meanwhile can be fetched from it (from an admin client it cannot).
    client: Arc<BaseProducer<Listener>>,
    admin: Arc<AdminClient<DefaultClientContext>>,
    config: KafkaConfig,
}

impl Cluster {
    /// Sets up a client; the cluster is not asked anything yet.
    ///
    /// # Errors
    /// When a setting is outside its limits, or the bootstrap servers cannot be understood.
    pub fn new(config: &KafkaConfig) -> Result<Cluster, StreamError> {
        config.check()?;
        let unusable = |source| StreamError::Config { brokers: config.brokers.clone(), source };
        let client = BaseProducer::from_config_and_context(&client_config(config), Listener::default()).map_err(unusable)?;
        let admin = AdminClient::from_config(&client_config(config)).map_err(unusable)?;
        Ok(Cluster { client: Arc::new(client), admin: Arc::new(admin), config: config.clone() })
    }

    /// Asks once whether the cluster is there.
    ///
    /// # Errors
    /// When it does not answer within a second, with the reason.
    pub async fn probe(&self) -> Result<(), StreamError> {
        self.metadata(PROBE_TIMEOUT, |_| Ok(())).await
    }

    /// Creates the topics that are missing, and checks those that exist: their shape, and whether they are safe. Nothing is created
    /// unless everything is in order.
    ///
    /// # Errors
    /// When the cluster does not answer, a topic has another shape than Faultline needs, or acknowledged records would be lost with one
    /// machine and `allow_weak_durability` is not set.
    pub async fn ensure_topics(&self) -> Result<Vec<(String, TopicState)>, StreamError> {
        let (brokers, present) = self.survey(REQUEST_TIMEOUT).await?;
        let possible = self.config.replication_factor.min(u32::try_from(brokers).unwrap_or(u32::MAX));
        let wanted = self.wanted(possible);
        let missing: Vec<&Wanted> = wanted.iter().filter(|topic| !present.contains_key(&topic.name)).collect();
        if !missing.is_empty() && possible < self.config.replication_factor && !self.config.allow_weak_durability {
            let wanted = self.config.replication_factor;
            return Err(StreamError::TooFewBrokers { brokers: self.config.brokers.clone(), found: brokers, wanted });
        }
        self.judge(&wanted, &present)?;
        self.create(&missing).await?;
        let state = |name| if present.contains_key(name) { TopicState::Present } else { TopicState::Created };
        Ok(wanted.iter().map(|topic| (topic.name.clone(), state(&topic.name))).collect())
    }

    /// Checks the topics as [`Cluster::ensure_topics`] does, and creates none.
    ///
    /// # Errors
    /// As there, and when a topic is missing.
    pub async fn check_topics(&self) -> Result<(), StreamError> {
        let (_, present) = self.survey(CHECK_TIMEOUT).await?;
        let wanted = self.wanted(self.config.replication_factor);
        let missing = wanted.iter().filter(|topic| !present.contains_key(&topic.name));
        let topics: Vec<String> = missing.map(|topic| topic.name.clone()).collect();
        if !topics.is_empty() {
            return Err(StreamError::Missing { brokers: self.config.brokers.clone(), topics });
        }
        self.judge(&wanted, &present)
    }

    /// Where every partition of every topic is, as one of the brokers sees it.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub async fn replicas(&self) -> Result<Vec<Replicas>, StreamError> {
        self.metadata(CHECK_TIMEOUT, |metadata| Ok(metadata.topics().iter().flat_map(replicas).collect())).await
    }

    /// The topics as they are to be, with so many replicas.
    fn wanted(&self, replicas: u32) -> [Wanted; 5] {
        let safety = Safety { replicas, min_insync_replicas: self.config.min_insync_replicas.min(replicas) };
        Topic::ALL.map(|topic| Wanted::new(topic, self.config.topic(topic), self.config.partitions, safety))
    }

    /// Whether the topics are in order: as they are, or as they will be where they are missing.
    fn judge(&self, wanted: &[Wanted], present: &BTreeMap<String, Found>) -> Result<(), StreamError> {
        let brokers = || self.config.brokers.clone();
        for topic in wanted {
            if let Some(what) = present.get(&topic.name).and_then(|found| topic.contradiction(found)) {
                return Err(StreamError::Contradiction { topic: topic.name.clone(), brokers: brokers(), what });
            }
        }
        let as_found = |topic: &Wanted| topic.weaknesses(present.get(&topic.name).unwrap_or(&Found::created(topic)));
        let weaknesses: Vec<_> = wanted.iter().flat_map(as_found).collect();
        if weaknesses.is_empty() || self.config.allow_weak_durability {
            return Ok(());
        }
        Err(StreamError::Weak { brokers: brokers(), weaknesses })
    }

    /// The number of brokers, and those of our topics that exist, as they are, by name.
    async fn survey(&self, timeout: Duration) -> Result<(usize, BTreeMap<String, Found>), StreamError> {
        let names = Topic::ALL.map(|topic| self.config.topic(topic));
        let answer = self.metadata(timeout, move |metadata| {
            let ours = metadata.topics().iter().filter(|topic| names.iter().any(|name| name == topic.name()));
            let shapes = ours.map(|topic| Ok((topic.name().to_owned(), shape(topic)?)));
            Ok((metadata.brokers().len(), shapes.collect::<Result<BTreeMap<_, _>, KafkaError>>()?))
        });
        let (brokers, mut found) = answer.await?;
        let names: Vec<String> = found.keys().cloned().collect();
        let resources: Vec<_> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        if resources.is_empty() {
            return Ok((brokers, found));
        }
        let failed = |source| StreamError::Request { brokers: self.config.brokers.clone(), what: "describe its topics' settings", source };
        let options = AdminOptions::new().request_timeout(Some(timeout));
        for resource in self.admin.describe_configs(&resources, &options).await.map_err(failed)? {
            let resource = resource.map_err(|code| failed(KafkaError::AdminOp(code)))?;
            if let OwnedResourceSpecifier::Topic(name) = &resource.specifier
                && let Some(topic) = found.get_mut(name)
            {
                topic.settings = resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect();
            }
        }
        Ok((brokers, found))
    }

    /// Asks for the cluster's metadata, which blocks, on a thread that may.
    async fn metadata<T: Send + 'static>(
        &self,
        timeout: Duration,
        read: impl FnOnce(&Metadata) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, StreamError> {
        let client = Arc::clone(&self.client);
        let asking = tokio::task::spawn_blocking(move || {
            let answer = client.client().fetch_metadata(None, timeout).and_then(|metadata| read(&metadata));
            client.poll(LOG_PATIENCE);
            answer
        });
        let brokers = self.config.brokers.clone();
        asking.await.unwrap_or(Err(KafkaError::Canceled)).map_err(|source| match self.client.context().last_problem() {
            Some(reason) => StreamError::Unreachable { brokers, reason },
            None => StreamError::Request { brokers, what: "answer", source },
        })
    }

    async fn create(&self, topics: &[&Wanted]) -> Result<(), StreamError> {
        let count = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        let new = topics.iter().map(|topic| {
            let new = NewTopic::new(&topic.name, count(topic.partitions), TopicReplication::Fixed(count(topic.replicas)));
            topic.settings.iter().fold(new, |new, (name, value)| new.set(name, value))
        });
        let new: Vec<_> = new.collect();
        if new.is_empty() {
            return Ok(());
        }
        let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT));
        let failed = |source| StreamError::Request { brokers: self.config.brokers.clone(), what: "create topics", source };
        for result in self.admin.create_topics(&new, &options).await.map_err(failed)? {
            match result {
                // Another service, starting at the same time, was quicker.
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => return Err(StreamError::Create { topic, brokers: self.config.brokers.clone(), code }),
            }
        }
        Ok(())
    }
}

fn replicas(topic: &MetadataTopic) -> impl Iterator<Item = Replicas> {
    topic.partitions().iter().map(|partition| Replicas {
        topic: topic.name().to_owned(),
        partition: partition.id(),
        // librdkafka says -1 where there is none.
        leader: (partition.leader() >= 0).then(|| partition.leader()),
        all: partition.replicas().to_vec(),
        in_sync: partition.isr().to_vec(),
    })
}

fn shape(topic: &MetadataTopic) -> Result<Found, KafkaError> {
    if let Some(code) = topic.error() {
        return Err(KafkaError::MetadataFetch(code.into()));
    }
    let fewest = topic.partitions().iter().map(|partition| partition.replicas().len()).min().unwrap_or_default();
    Ok(Found {
        partitions: u32::try_from(topic.partitions().len()).unwrap_or(u32::MAX),
        replicas: u32::try_from(fewest).unwrap_or(u32::MAX),
        ..Found::default()
    })
}

impl ProducerContext for Listener {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}
