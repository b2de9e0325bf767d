//! Reading a topic from its beginning to where it ends now.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use crate::client::{KafkaConfig, Listener, StreamError, bound_prefetching, client_config};

/// How long one question to the cluster, or the next record, may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a broker may wait for records before it answers that there are none.
const FETCH_WAIT: Duration = Duration::from_millis(50);
/// Records that wait for whoever reads them.
const WAITING: usize = 16;

/// A record as Kafka has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Partition it is in.
    pub partition: i32,
    /// Its place there.
    pub offset: i64,
    /// When the broker appended it (or its producer made it, as the topic is configured), in milliseconds since 1970-01-01 UTC.
    pub timestamp_ms: Option<i64>,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value. Empty also where it has none.
    pub value: Bytes,
    /// Its headers, in order.
    pub headers: Vec<(String, Bytes)>,
}

impl Record {
    /// Bytes that it takes, as far as they matter.
    #[must_use]
    pub fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        size_of::<Record>() + self.key.as_ref().map_or(0, Bytes::len) + self.value.len() + headers
    }

    /// The value of the last header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&Bytes> {
        self.headers.iter().rev().find(|(header, _)| header == name).map(|(_, value)| value)
    }
}

impl From<&BorrowedMessage<'_>> for Record {
    fn from(message: &BorrowedMessage<'_>) -> Record {
        let headers = || -> Vec<(String, Bytes)> {
            let headers = message.headers().into_iter().flat_map(Headers::iter);
            headers.map(|header| (header.key.to_owned(), Bytes::copy_from_slice(header.value.unwrap_or_default()))).collect()
        };
        // rdkafka panics at a header whose name is not UTF-8. Nobody who follows the contract writes one, and whoever reads it as a record of
        // ours finds that its headers are missing.
        let headers = std::panic::catch_unwind(AssertUnwindSafe(headers)).unwrap_or_default();
        Record {
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key().map(Bytes::copy_from_slice),
            value: message.payload().map(Bytes::copy_from_slice).unwrap_or_default(),
            headers,
        }
    }
}

/// Every record of a topic from its beginning to where each partition ends now, in order within a partition.
///
/// # Errors
/// When the cluster does not answer, or there is no such topic.
pub async fn read_to_end(config: &KafkaConfig, topic: &str) -> Result<Vec<Record>, StreamError> {
    let mut records = Vec::new();
    let mut reading = begin_to_read(config, topic);
    while let Some(record) = reading.recv().await {
        records.push(record?);
    }
    Ok(records)
}

/// The same, one by one: few of them are in memory. The last is an error where there is one.
pub(crate) fn begin_to_read(config: &KafkaConfig, topic: &str) -> mpsc::Receiver<Result<Record, StreamError>> {
    let brokers = config.brokers.clone();
    let mut client = client_config(config);
    client.set("group.id", "faultline-reader").set("enable.auto.commit", "false");
    client.set("enable.partition.eof", "true").set("isolation.level", "read_committed");
    bound_prefetching(&mut client);
    // The end is known when the broker has waited in vain for more.
    client.set("fetch.wait.max.ms", FETCH_WAIT.as_millis().to_string());
    let topic = topic.to_owned();
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::task::spawn_blocking(move || {
        let consumer = BaseConsumer::from_config_and_context(&client, Listener::default());
        let read = consumer.and_then(|consumer| read(&consumer, &topic, &sender));
        if let Err(source) = read {
            // Whoever wanted to read may have gone.
            let _ = sender.blocking_send(Err(StreamError::Request { brokers, what: "let a topic be read", source }));
        }
    });
    receiver
}

fn read(consumer: &BaseConsumer<Listener>, topic: &str, records: &mpsc::Sender<Result<Record, StreamError>>) -> Result<(), KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
    let mut partitions = TopicPartitionList::new();
    for found in metadata.topics() {
        if let Some(error) = found.error() {
            return Err(KafkaError::MetadataFetch(error.into()));
        }
        for partition in found.partitions() {
            partitions.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
        }
    }
    consumer.assign(&partitions)?;
    let mut unfinished = partitions.count();
    while unfinished > 0 {
        match consumer.poll(PATIENCE) {
            Some(Ok(message)) => {
                if records.blocking_send(Ok(Record::from(&message))).is_err() {
                    break;
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => unfinished -= 1,
            Some(Err(error)) => return Err(error),
            None => return Err(KafkaError::MessageConsumption(rdkafka::types::RDKafkaErrorCode::OperationTimedOut)),
        }
    }
    Ok(())
}

#[cfg(test)]
impl From<faultline_fuzz::Record> for Record {
    fn from(record: faultline_fuzz::Record) -> Record {
        let headers = record.headers.into_iter().map(|header| (header.text(), header.content)).collect();
        let faultline_fuzz::Record { partition, offset, timestamp_ms, key, value, .. } = record;
        Record { partition, offset, timestamp_ms, key, value, headers }
    }
}
