//! Faultline's Kafka: which topics there are, and what is promised of them.

mod cluster;
mod topics;

pub use cluster::{Cluster, KafkaConfig, StreamError};
pub use topics::{Topic, TopicState, Weakness};
