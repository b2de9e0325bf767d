//! Faultline's Kafka: which topics there are and what is promised of them, the records of outcomes, and their way in.

mod client;
mod cluster;
mod event_time;
mod outcomes;
mod producer;
mod reader;
mod topics;

pub use client::{KafkaConfig, StreamError};
pub use cluster::Cluster;
pub use event_time::{BatchClock, Clock, EventTime, unix_ms};
pub use outcomes::{OutcomeRecord, RecordError};
pub use producer::{NotTaken, OutcomeProducer};
pub use reader::{Record, read_to_end};
pub use topics::{Topic, TopicState, Weakness};
