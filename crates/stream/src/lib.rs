//! Faultline's Kafka: which topics there are and what is promised of them, the records of outcomes, their way in and their way through.

mod assignments;
pub mod card_numbers;
mod client;
mod cluster;
mod corrections;
mod dead_letters;
mod dlq;
mod event_time;
mod fenced;
mod incidents;
mod intents;
mod outcomes;
mod partition;
mod producer;
mod progress;
mod reader;
mod source;
mod topics;
#[cfg(feature = "twin")]
mod twin;

pub use client::{KafkaConfig, StreamError};
pub use cluster::{Cluster, Replicas};
pub use corrections::CorrectionLog;
pub use dead_letters::{DeadLetters, Rejection};
pub use dlq::{DeadLetter, DeadLetterId, DeadLetterQueue, Originals, Settled, Settlement, Unfit};
pub use event_time::{BatchClock, Clock, EventTime, unix_ms};
pub use fenced::LogError;
pub use incidents::IncidentLog;
pub use intents::{Intent, Position};
pub use outcomes::{OutcomeRecord, RecordError, Replay};
pub use partition::{Next, PartitionLog, Records, Start};
pub use producer::{NotTaken, OutcomeProducer};
pub use progress::Progress;
pub use reader::{Record, read_to_end};
pub use source::{CLASSIFIERS, Partition, Source};
pub use topics::{Topic, TopicState, Weakness};
#[cfg(feature = "twin")]
pub use twin::{Twin, TwinPartition};
