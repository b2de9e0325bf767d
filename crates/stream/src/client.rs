//! What every client of Kafka has in common: settings, errors, and an ear for librdkafka.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use serde::{Deserialize, Serialize};

use crate::topics::{Topic, Weakness};

/// How long ago a problem may be that explains one of now.
pub(crate) const RECENT: Duration = Duration::from_secs(30);

/// What a consumer holds before it is asked for it, in KiB.
const PREFETCHED_KIB: u32 = 16 * 1024;
/// Most that a broker answers at once, and most of it that is of one partition, in bytes as they were sent.
const LARGEST_ANSWER: u32 = 256 * 1024;
const LARGEST_OF_PARTITION: u32 = 64 * 1024;

/// How long Kafka may take to take a record. librdkafka takes 0 for "for ever".
const DELIVERY_TIMEOUTS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// How long a reader may be silent: what brokers allow by default.
const SESSION_TIMEOUTS: std::ops::RangeInclusive<Duration> = Duration::from_secs(6)..=Duration::from_secs(300);

/// Settings of Kafka.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaConfig {
    /// Bootstrap servers: `host:port`, several separated by commas.
    pub brokers: String,
    /// What the names of all topics begin with, before a dot.
    pub topic_prefix: String,
    /// Partitions of the outcomes topic. Fixed for life: it decides where a terminal's records are.
    pub partitions: u32,
    /// Replicas of every topic that is created.
    pub replication_factor: u32,
    /// Replicas that must have a record before it is acknowledged, for every topic that is created.
    pub min_insync_replicas: u32,
    /// Accepts topics with which the loss of one machine loses acknowledged records.
    pub allow_weak_durability: bool,
    /// How long Kafka may take to take a record, all repeats included, until whoever sent it is told that it was not taken.
    #[serde(with = "humantime_serde")]
    pub delivery_timeout: Duration,
    /// How long a reader may be silent until its partitions are given to others.
    #[serde(with = "humantime_serde")]
    pub session_timeout: Duration,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        KafkaConfig {
            brokers: "127.0.0.1:9092".into(),
            topic_prefix: "faultline".into(),
            partitions: 32,
            replication_factor: 3,
            min_insync_replicas: 2,
            allow_weak_durability: false,
            delivery_timeout: Duration::from_secs(20),
            session_timeout: Duration::from_secs(10),
        }
    }
}

impl KafkaConfig {
    /// Checks what librdkafka would not, or would say in its own words.
    pub(crate) fn check(&self) -> Result<(), StreamError> {
        let prefix = self.topic_prefix.as_bytes();
        let is_name = prefix.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte));
        if !is_name || prefix.is_empty() || prefix.len() > 100 {
            let reason = format!("`{}` cannot begin the name of a topic: 1 to 100 of a-z, A-Z, 0-9, `.`, `_` and `-`", self.topic_prefix);
            return Err(StreamError::Setting { key: "topic_prefix", reason });
        }
        if self.brokers.trim().is_empty() {
            return Err(StreamError::Setting { key: "brokers", reason: "names no server".into() });
        }
        if self.partitions == 0 {
            return Err(StreamError::Setting { key: "partitions", reason: "0 is not a number of partitions".into() });
        }
        for (key, value, limits) in
            [("delivery_timeout", self.delivery_timeout, DELIVERY_TIMEOUTS), ("session_timeout", self.session_timeout, SESSION_TIMEOUTS)]
        {
            if !limits.contains(&value) {
                let (least, most) = (limits.start().as_secs(), limits.end().as_secs());
                let reason = format!("{} s is not within {least} s to {most} s", value.as_secs_f32());
                return Err(StreamError::Setting { key, reason });
            }
        }
        Ok(())
    }

    /// The name of a topic.
    #[must_use]
    pub fn topic(&self, topic: Topic) -> String {
        format!("{}.{}", self.topic_prefix, topic.suffix())
    }
}

impl StreamError {
    /// Whether asking again may help. What is left is for the operator to mend.
    ///
    /// Brokers that are too few, and topics that are missing, may be on their way: a cluster that starts is first no broker, then one, then two, and one that
    /// answers may not be given replicas yet; and a topic that was created is not known to all brokers at once.
    #[must_use]
    pub fn is_worth_a_retry(&self) -> bool {
        match self {
            StreamError::Unreachable { .. }
            | StreamError::Request { .. }
            | StreamError::TooFewBrokers { .. }
            | StreamError::Missing { .. } => true,
            StreamError::Create { code, .. } => matches!(
                code,
                RDKafkaErrorCode::RequestTimedOut
                    | RDKafkaErrorCode::OperationTimedOut
                    | RDKafkaErrorCode::NotController
                    | RDKafkaErrorCode::LeaderNotAvailable
                    | RDKafkaErrorCode::BrokerNotAvailable
                    | RDKafkaErrorCode::NetworkException
                    | RDKafkaErrorCode::InvalidReplicationFactor
            ),
            StreamError::Worker(_)
            | StreamError::Config { .. }
            | StreamError::Setting { .. }
            | StreamError::Contradiction { .. }
            | StreamError::Weak { .. } => false,
        }
    }

    /// Whether nothing was learnt about the topics, so that what was known of them still stands.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        matches!(self, StreamError::Unreachable { .. } | StreamError::Request { .. })
    }
}

/// What went wrong with Kafka.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The configuration is not one.
    #[error("Kafka at `{brokers}` (`kafka.brokers`)")]
    Config {
        /// Bootstrap servers.
        brokers: String,
        /// What librdkafka says.
        source: KafkaError,
    },
    /// A setting is outside its limits.
    #[error("configuration key `kafka.{key}`: {reason}")]
    Setting {
        /// The key, after `kafka.`.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// No broker can be reached.
    #[error("Kafka at {brokers} cannot be reached: {reason}")]
    Unreachable {
        /// Bootstrap servers.
        brokers: String,
        /// What librdkafka's log says.
        reason: String,
    },
    /// What works on a partition failed, which it never should.
    #[error("the worker of a partition failed: {0}")]
    Worker(String),
    /// The cluster did not answer a question.
    #[error("Kafka at {brokers} did not {what}")]
    Request {
        /// Bootstrap servers.
        brokers: String,
        /// What it was asked to do.
        what: &'static str,
        /// What librdkafka says.
        source: KafkaError,
    },
    /// A topic could not be created.
    #[error("topic {topic} cannot be created at {brokers}: {code}")]
    Create {
        /// The topic.
        topic: String,
        /// Bootstrap servers.
        brokers: String,
        /// The broker's answer.
        code: RDKafkaErrorCode,
    },
    /// There are fewer brokers than replicas.
    #[error(
        "Kafka at {brokers} has {found} broker(s), and topics are to have {wanted} replicas (`kafka.replication_factor`). With fewer than 3, the \
         loss of one machine loses acknowledged events; to accept that, set `kafka.allow_weak_durability = true` (with `up`, --allow-weak-durability)"
    )]
    TooFewBrokers {
        /// Bootstrap servers.
        brokers: String,
        /// Brokers that there are.
        found: usize,
        /// Replicas that are wanted.
        wanted: u32,
    },
    /// Topics that were there are not any more.
    #[error("Kafka at {brokers} has no topic {}", topics.join(", "))]
    Missing {
        /// Bootstrap servers.
        brokers: String,
        /// The topics.
        topics: Vec<String>,
    },
    /// A topic that exists is not the one that Faultline needs.
    #[error("topic {topic} at {brokers} {what}; Faultline cannot use it")]
    Contradiction {
        /// The topic.
        topic: String,
        /// Bootstrap servers.
        brokers: String,
        /// What differs.
        what: String,
    },
    /// The loss of one machine would lose acknowledged events.
    #[error(
        "Kafka at {brokers} may lose acknowledged events, with one machine or during a stop of some days: {}. Mend the topics, or accept it: \
         set `kafka.allow_weak_durability = true` (with `up`, --allow-weak-durability)",
        weaknesses.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    )]
    Weak {
        /// Bootstrap servers.
        brokers: String,
        /// Everything that is weak.
        weaknesses: Vec<Weakness>,
    },
}

pub(crate) fn client_config(config: &KafkaConfig) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &config.brokers).set("client.id", "faultline");
    // A broker that is just starting is asked again soon.
    client.set("reconnect.backoff.ms", "50").set("reconnect.backoff.max.ms", "500");
    client
}

/// Bounds what a consumer holds before it is asked for it. librdkafka fetches nothing while it has [`PREFETCHED_KIB`] of values, so what it can have beyond that
/// is one answer of each broker. The answer is bounded as it was sent, and there is no bound of what becomes of it when it is decompressed (LZ4: at
/// most 255 times as much), so it is kept small. A batch of a producer that is larger comes alone.
pub(crate) fn bound_prefetching(client: &mut ClientConfig) {
    client.set("queued.max.messages.kbytes", PREFETCHED_KIB.to_string());
    client.set("fetch.max.bytes", LARGEST_ANSWER.to_string());
    client.set("fetch.message.max.bytes", LARGEST_OF_PARTITION.to_string());
    // For producers, but no answer may be smaller than it.
    client.set("message.max.bytes", LARGEST_ANSWER.to_string());
}

/// Listens to librdkafka, and keeps what went wrong last: its log is the only place where it says why a broker cannot be reached.
/// Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Listener {
    last_problem: Arc<Mutex<Option<(Instant, String)>>>,
}

impl Listener {
    fn note(&self, problem: String) {
        *self.last_problem.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), problem));
    }

    /// What went wrong last, unless that is long ago.
    pub(crate) fn last_problem(&self) -> Option<String> {
        let last = self.last_problem.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().filter(|(when, _)| when.elapsed() < RECENT).map(|(_, what)| what.clone())
    }
}

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, ?level, message, "librdkafka");
        if facility == "FAIL" {
            // "[thrd:...]: host:port/bootstrap: Connect to ... failed: Connection refused (after 0ms in state CONNECT)"
            let what = message.split_once("]: ").map_or(message, |(_, rest)| rest);
            let what = what.split_once(" (after ").map_or(what, |(what, _)| what);
            self.note(what.to_owned());
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
    }
}

impl ConsumerContext for Listener {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_outside_its_limits_is_named() {
        for prefix in ["", "a b", "ä", &"x".repeat(101)] {
            let config = KafkaConfig { topic_prefix: prefix.into(), ..KafkaConfig::default() };
            assert!(config.check().unwrap_err().to_string().contains("`kafka.topic_prefix`: "), "{prefix}");
        }
        for seconds in [0, 3601] {
            let config = KafkaConfig { delivery_timeout: Duration::from_secs(seconds), ..KafkaConfig::default() };
            assert!(config.check().unwrap_err().to_string().contains("`kafka.delivery_timeout`: "), "{seconds}");
        }
        let config = KafkaConfig { brokers: " ".into(), ..KafkaConfig::default() };
        assert!(config.check().unwrap_err().to_string().contains("`kafka.brokers`: names no server"));
        let config = KafkaConfig { partitions: 0, ..KafkaConfig::default() };
        assert!(config.check().unwrap_err().to_string().contains("`kafka.partitions`: 0"));
        let config = KafkaConfig { session_timeout: Duration::from_secs(5), ..KafkaConfig::default() };
        assert!(config.check().unwrap_err().to_string().contains("`kafka.session_timeout`: 5 s is not within 6 s to 300 s"));
        KafkaConfig::default().check().unwrap();
    }

    #[test]
    fn a_cluster_that_does_not_answer_is_asked_again_and_one_that_is_wrong_is_not() {
        let brokers = String::from("here:9092");
        let unreachable = StreamError::Unreachable { brokers: brokers.clone(), reason: "Connection refused".into() };
        assert!(unreachable.is_worth_a_retry());
        let create = |code| StreamError::Create { topic: "outcomes".into(), brokers: brokers.clone(), code };
        assert!(create(RDKafkaErrorCode::NotController).is_worth_a_retry());
        assert!(create(RDKafkaErrorCode::InvalidReplicationFactor).is_worth_a_retry());
        assert!(!create(RDKafkaErrorCode::TopicAuthorizationFailed).is_worth_a_retry());
        assert!(!StreamError::Weak { brokers: brokers.clone(), weaknesses: Vec::new() }.is_worth_a_retry());
        assert!(StreamError::TooFewBrokers { brokers, found: 1, wanted: 3 }.is_worth_a_retry());
    }
}
