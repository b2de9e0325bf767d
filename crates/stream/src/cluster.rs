//! A Kafka cluster as its administrator sees it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{FromClientConfig, FromClientConfigAndContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataBroker, MetadataTopic};
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer, ProducerContext};

use crate::client::{KafkaConfig, Listener, StreamError, client_config};
use crate::topics::{Found, KafkasOwn, Safety, Topic, TopicState, Wanted, Weakness};

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

    /// The same for somebody who waits for it: a cluster that is there and busy has ten seconds; one to which there is no connection has not.
    ///
    /// # Errors
    /// When it does not answer, with the reason.
    pub async fn reach(&self) -> Result<(), StreamError> {
        let begin = Instant::now();
        loop {
            match self.probe().await {
                Err(StreamError::Request { .. }) if begin.elapsed() < REQUEST_TIMEOUT => {}
                answer => return answer,
            }
        }
    }

    /// Creates the topics that are missing, and checks those that exist: their shape, and whether they are safe. Kafka's own topics, in which it is kept how
    /// far classifiers came and who may write, are to be as safe, or will be when they are made. Nothing is created unless everything is in order.
    ///
    /// # Errors
    /// When the cluster does not answer, a topic has another shape than Faultline needs, or acknowledged records would be lost with one
    /// machine and `allow_weak_durability` is not set.
    pub async fn ensure_topics(&self) -> Result<Vec<(String, TopicState)>, StreamError> {
        let (brokers, present) = self.survey(REQUEST_TIMEOUT, &KafkasOwn::ALL).await?;
        let possible = self.config.replication_factor.min(u32::try_from(brokers.len()).unwrap_or(u32::MAX));
        let wanted = self.wanted(possible);
        let missing: Vec<&Wanted> = wanted.iter().filter(|topic| !present.contains_key(&topic.name)).collect();
        if !missing.is_empty() && possible < self.config.replication_factor && !self.config.allow_weak_durability {
            let wanted = self.config.replication_factor;
            return Err(StreamError::TooFewBrokers { brokers: self.config.brokers.clone(), found: brokers.len(), wanted });
        }
        self.check_shapes(&wanted, &present)?;
        if !self.config.allow_weak_durability {
            let mut weaknesses = weaknesses(&wanted, &present);
            weaknesses.extend(self.weaknesses_of_kafkas_own(&brokers, &present).await?);
            self.refuse(weaknesses)?;
        }
        self.create(&missing).await?;
        let state = |name| if present.contains_key(name) { TopicState::Present } else { TopicState::Created };
        Ok(wanted.iter().map(|topic| (topic.name.clone(), state(&topic.name))).collect())
    }

    /// Checks Faultline's topics as [`Cluster::ensure_topics`] does, and creates none.
    ///
    /// # Errors
    /// As there, and when a topic is missing.
    pub async fn check_topics(&self) -> Result<(), StreamError> {
        let (_, present) = self.survey(CHECK_TIMEOUT, &[]).await?;
        let wanted = self.wanted(self.config.replication_factor);
        let missing = wanted.iter().filter(|topic| !present.contains_key(&topic.name));
        let topics: Vec<String> = missing.map(|topic| topic.name.clone()).collect();
        if !topics.is_empty() {
            return Err(StreamError::Missing { brokers: self.config.brokers.clone(), topics });
        }
        self.check_shapes(&wanted, &present)?;
        if !self.config.allow_weak_durability {
            self.refuse(weaknesses(&wanted, &present))?;
        }
        Ok(())
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

    /// Whether the topics that exist are those that Faultline needs.
    fn check_shapes(&self, wanted: &[Wanted], present: &BTreeMap<String, Found>) -> Result<(), StreamError> {
        for topic in wanted {
            if let Some(what) = present.get(&topic.name).and_then(|found| topic.contradiction(found)) {
                return Err(StreamError::Contradiction { topic: topic.name.clone(), brokers: self.config.brokers.clone(), what });
            }
        }
        Ok(())
    }

    fn refuse(&self, weaknesses: Vec<Weakness>) -> Result<(), StreamError> {
        if weaknesses.is_empty() { Ok(()) } else { Err(StreamError::Weak { brokers: self.config.brokers.clone(), weaknesses }) }
    }

    /// What is weak about Kafka's own topics: as they are, or as each broker would make those that are not there yet.
    async fn weaknesses_of_kafkas_own(&self, brokers: &[i32], present: &BTreeMap<String, Found>) -> Result<Vec<Weakness>, StreamError> {
        let (there, missing): (Vec<_>, Vec<_>) = KafkasOwn::ALL.into_iter().partition(|own| present.contains_key(own.name()));
        let mut weaknesses: Vec<_> = there.iter().filter_map(|own| Some(own.weaknesses(present.get(own.name())?))).flatten().collect();
        if missing.is_empty() {
            return Ok(weaknesses);
        }
        for &broker in brokers {
            // Each is asked about itself.
            for (_, settings) in self.settings(&[ResourceSpecifier::Broker(broker)], REQUEST_TIMEOUT).await? {
                weaknesses.extend(missing.iter().flat_map(|own| own.weaknesses_to_be(broker, &settings)));
            }
        }
        Ok(weaknesses)
    }

    /// The brokers, and those of our topics and of these of Kafka's own that exist, as they are, by name.
    async fn survey(&self, timeout: Duration, kafkas_own: &[KafkasOwn]) -> Result<(Vec<i32>, BTreeMap<String, Found>), StreamError> {
        let ours = Topic::ALL.iter().map(|topic| self.config.topic(*topic));
        let names: Vec<String> = ours.chain(kafkas_own.iter().map(|own| own.name().to_owned())).collect();
        let answer = self.metadata(timeout, move |metadata| {
            let known = metadata.topics().iter().filter(|topic| names.iter().any(|name| name == topic.name()));
            let shapes = known.map(|topic| Ok((topic.name().to_owned(), shape(topic)?)));
            let brokers = metadata.brokers().iter().map(MetadataBroker::id).collect();
            Ok((brokers, shapes.collect::<Result<BTreeMap<_, _>, KafkaError>>()?))
        });
        let (brokers, mut found): (Vec<i32>, BTreeMap<String, Found>) = answer.await?;
        if brokers.is_empty() {
            // It knows of no topic either, and of how many replicas there may be.
            return Err(StreamError::Unreachable {
                brokers: self.config.brokers.clone(),
                reason: "no broker takes part in the cluster yet".into(),
            });
        }
        let names: Vec<String> = found.keys().cloned().collect();
        let resources: Vec<_> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        for (resource, settings) in self.settings(&resources, timeout).await? {
            if let OwnedResourceSpecifier::Topic(name) = &resource
                && let Some(topic) = found.get_mut(name)
            {
                topic.settings = settings;
            }
        }
        Ok((brokers, found))
    }

    /// The settings that are in force for topics, or for a broker.
    async fn settings(
        &self,
        of: &[ResourceSpecifier<'_>],
        timeout: Duration,
    ) -> Result<Vec<(OwnedResourceSpecifier, BTreeMap<String, String>)>, StreamError> {
        if of.is_empty() {
            return Ok(Vec::new());
        }
        let what = match of {
            [ResourceSpecifier::Broker(_)] => "describe the settings of its brokers",
            _ => "describe its topics' settings",
        };
        let failed = |source| StreamError::Request { brokers: self.config.brokers.clone(), what, source };
        let options = AdminOptions::new().request_timeout(Some(timeout));
        let described = self.admin.describe_configs(of, &options).await.map_err(failed)?;
        let settings = described.into_iter().map(|resource| {
            let resource = resource.map_err(|code| failed(KafkaError::AdminOp(code)))?;
            let settings = resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?)));
            Ok((resource.specifier, settings.collect()))
        });
        settings.collect()
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

/// What is weak about the topics: as they are, or as they will be where they are missing.
fn weaknesses(wanted: &[Wanted], present: &BTreeMap<String, Found>) -> Vec<Weakness> {
    let as_found = |topic: &Wanted| topic.weaknesses(present.get(&topic.name).unwrap_or(&Found::created(topic)));
    wanted.iter().flat_map(as_found).collect()
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
