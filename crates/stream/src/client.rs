//! What every client of Kafka has in common: settings, errors, and an ear for librdkafka.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use serde::{Deserialize, Serialize};

use crate::topics::{Topic, Weakness};

/// How long ago a problem may be that explains one of now.
const RECENT: Duration = Duration::from_secs(30);

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
        }
    }
}

impl KafkaConfig {
    /// The name of a topic.
    #[must_use]
    pub fn topic(&self, topic: Topic) -> String {
        format!("{}.{}", self.topic_prefix, topic.suffix())
    }
}

impl StreamError {
    /// Whether asking again may help. What is left is for the operator to mend.
    #[must_use]
    pub fn is_worth_a_retry(&self) -> bool {
        match self {
            StreamError::Unreachable { .. } | StreamError::Request { .. } => true,
            StreamError::Create { code, .. } => matches!(
                code,
                RDKafkaErrorCode::RequestTimedOut
                    | RDKafkaErrorCode::OperationTimedOut
                    | RDKafkaErrorCode::NotController
                    | RDKafkaErrorCode::LeaderNotAvailable
                    | RDKafkaErrorCode::BrokerNotAvailable
                    | RDKafkaErrorCode::NetworkException
            ),
            StreamError::Config { .. }
            | StreamError::Prefix(_)
            | StreamError::TooFewBrokers { .. }
            | StreamError::Contradiction { .. }
            | StreamError::Weak { .. } => false,
        }
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
    /// The prefix would make no names for topics.
    #[error("`{0}` (`kafka.topic_prefix`) cannot begin the name of a topic: 1 to 100 of a-z, A-Z, 0-9, `.`, `_` and `-`")]
    Prefix(String),
    /// No broker can be reached.
    #[error("Kafka at {brokers} cannot be reached: {reason}")]
    Unreachable {
        /// Bootstrap servers.
        brokers: String,
        /// What librdkafka's log says.
        reason: String,
    },
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

/// Listens to librdkafka, and keeps what went wrong last: its log is the only place where it says why a broker cannot be reached.
/// Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Listener {
    last_problem: Arc<Mutex<Option<(Instant, String)>>>,
}

impl Listener {
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
            *self.last_problem.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), what.to_owned()));
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_that_does_not_answer_is_asked_again_and_one_that_is_wrong_is_not() {
        let brokers = String::from("here:9092");
        let unreachable = StreamError::Unreachable { brokers: brokers.clone(), reason: "Connection refused".into() };
        assert!(unreachable.is_worth_a_retry());
        let create = |code| StreamError::Create { topic: "outcomes".into(), brokers: brokers.clone(), code };
        assert!(create(RDKafkaErrorCode::NotController).is_worth_a_retry());
        assert!(!create(RDKafkaErrorCode::TopicAuthorizationFailed).is_worth_a_retry());
        assert!(!StreamError::Weak { brokers: brokers.clone(), weaknesses: Vec::new() }.is_worth_a_retry());
        assert!(!StreamError::TooFewBrokers { brokers, found: 1, wanted: 3 }.is_worth_a_retry());
    }
}
