//! The topics, against a real Kafka.

use faultline_stream::{Cluster, KafkaConfig, Topic, TopicState};

use crate::program::eventually;
use crate::sandbox::sandbox;

#[tokio::test]
async fn topics_are_created_once_and_checked_ever_after() {
    let config = KafkaConfig { topic_prefix: "created-once".into(), ..sandbox().await.kafka.clone() };
    let cluster = Cluster::new(&config).unwrap();

    let strict = KafkaConfig { allow_weak_durability: false, ..config.clone() };
    let too_few = KafkaConfig { replication_factor: 3, min_insync_replicas: 2, ..strict.clone() };
    let message = Cluster::new(&too_few).unwrap().ensure_topics().await.unwrap_err().to_string();
    assert!(message.contains("has 1 broker(s)") && message.contains("3 replicas"), "{message}");
    // Fewer replicas by configuration are weak too, and nothing was created by either.
    let message = Cluster::new(&strict).unwrap().ensure_topics().await.unwrap_err().to_string();
    assert!(message.contains("1 of at least 3 replicas") && message.contains("min.insync.replicas=1"), "{message}");

    assert!(
        cluster.check_topics().await.unwrap_err().to_string().contains("has no topic created-once.outcomes, created-once.dead-letters")
    );

    let states = |topics: &[(String, TopicState)]| topics.iter().map(|(_, state)| *state).collect::<Vec<_>>();
    let (first, second) = tokio::join!(cluster.ensure_topics(), cluster.ensure_topics());
    assert!([first.unwrap(), second.unwrap()].iter().any(|topics| states(topics) == [TopicState::Created; 5]));
    assert_eq!(states(&cluster.ensure_topics().await.unwrap()), [TopicState::Present; 5]);

    eventually("every broker knows them", async || cluster.check_topics().await.ok()).await;
    let message = Cluster::new(&strict).unwrap().ensure_topics().await.unwrap_err().to_string();
    assert!(message.contains("may lose acknowledged events") && message.contains("allow_weak_durability"), "{message}");

    let other = KafkaConfig { partitions: config.partitions + 1, ..config.clone() };
    let message = Cluster::new(&other).unwrap().check_topics().await.unwrap_err().to_string();
    assert!(message.contains("kafka.partitions"), "{message}");
    let message = Cluster::new(&other).unwrap().ensure_topics().await.unwrap_err().to_string();
    assert!(message.contains(&config.topic(Topic::Outcomes)) && message.contains("kafka.partitions"), "{message}");
}
