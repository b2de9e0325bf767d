//! How far a group has come with the outcomes topic.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::Offset;
use rdkafka::{ClientConfig, TopicPartitionList};

use crate::client::{KafkaConfig, Listener, StreamError, client_config};
use crate::topics::Topic;

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(5);

type Client = BaseConsumer<Listener>;

/// Sees how far a group has come, without being of it.
#[derive(Clone)]
pub struct Progress {
    client: Arc<Mutex<Arc<Client>>>,
    settings: ClientConfig,
    topic: String,
    partitions: i32,
    brokers: String,
}

impl Progress {
    /// Sets up a client; Kafka is not asked anything yet.
    ///
    /// # Errors
    /// When the configuration is not one.
    pub fn new(config: &KafkaConfig, group: &str) -> Result<Progress, StreamError> {
        config.check()?;
        let mut settings = client_config(config);
        settings.set("group.id", format!("{}.{group}", config.topic_prefix)).set("enable.auto.commit", "false");
        let unusable = |source| StreamError::Config { brokers: config.brokers.clone(), source };
        Ok(Progress {
            client: Arc::new(Mutex::new(client(&settings).map_err(unusable)?)),
            settings,
            topic: config.topic(Topic::Outcomes),
            partitions: i32::try_from(config.partitions).unwrap_or(i32::MAX),
            brokers: config.brokers.clone(),
        })
    }

    /// How many partitions there are.
    #[must_use]
    pub fn partitions(&self) -> i32 {
        self.partitions
    }

    /// The partitions of which the group is not done with every record that Kafka took before this moment, in milliseconds since 1970-01-01 UTC. What it has
    /// committed is stored, so all that the records of the others say is counted.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub async fn behind(&self, appended_ms: i64) -> Result<Vec<i32>, StreamError> {
        let own = self.clone();
        let asking = tokio::task::spawn_blocking(move || {
            let answer = own.ask(appended_ms);
            if answer.is_err() {
                own.begin_anew();
            }
            answer
        });
        let source = match asking.await {
            Ok(Ok(behind)) => return Ok(behind),
            Ok(Err(source)) => source,
            Err(_) => KafkaError::Canceled,
        };
        Err(StreamError::Request { brokers: self.brokers.clone(), what: "say how far the classifier came", source })
    }

    /// What librdkafka knows of the topic after a broker was started again can be wrong, and then stays so: it keeps what it was told of partitions by their epochs, asks nobody
    /// anew, and says `UnknownPartition` for good. Another client knows nothing.
    fn begin_anew(&self) {
        // Where there is none to be had, the old one is asked again.
        if let Ok(client) = client(&self.settings) {
            *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
        }
    }

    fn ask(&self, appended_ms: i64) -> Result<Vec<i32>, KafkaError> {
        let client = Arc::clone(&self.client.lock().unwrap_or_else(PoisonError::into_inner));
        let all = |offset: Offset| {
            let mut partitions = TopicPartitionList::new();
            for partition in 0..self.partitions {
                partitions.add_partition_offset(&self.topic, partition, offset)?;
            }
            Ok::<_, KafkaError>(partitions)
        };
        let first_after = client.offsets_for_times(all(Offset::Offset(appended_ms))?, PATIENCE)?;
        let committed = client.committed_offsets(all(Offset::Invalid)?, PATIENCE)?;
        let mut behind = Vec::new();
        for partition in first_after.elements() {
            partition.error()?;
            let ends = || client.fetch_watermarks(&self.topic, partition.partition(), PATIENCE);
            let wanted = match partition.offset() {
                Offset::Offset(offset) => offset,
                // Nothing came since.
                _ => ends()?.1,
            };
            let done = match committed.find_partition(&self.topic, partition.partition()).map(|found| found.offset()) {
                Some(Offset::Offset(offset)) => offset,
                // Nothing was committed: it is done only where there is nothing to do.
                _ => ends()?.0,
            };
            if done < wanted {
                behind.push(partition.partition());
            }
        }
        Ok(behind)
    }
}

fn client(settings: &ClientConfig) -> Result<Arc<Client>, KafkaError> {
    Ok(Arc::new(Client::from_config_and_context(settings, Listener::default())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn after_an_answer_that_failed_another_client_asks() {
        let config = KafkaConfig { brokers: "127.0.0.1:1".into(), partitions: 1, ..KafkaConfig::default() };
        let progress = Progress::new(&config, "classifier").unwrap();
        let client = || Arc::clone(&progress.client.lock().unwrap());
        let before = client();
        progress.behind(0).await.unwrap_err();
        assert!(!Arc::ptr_eq(&before, &client()));
    }
}
