//! The topics, against a real Kafka.

use faultline_deploy::{KafkaCluster, LocalConfig, NodePorts};
use faultline_runtime::readiness::wait_until_ready;
use faultline_stream::{Cluster, CorrectionLog, KafkaConfig, Topic, TopicState};

use crate::program::eventually;
use crate::sandbox::{PATIENCE, port, sandbox, scratch};

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

/// One broker has one replica of everything. With three, `cluster.rs` begins without either topic.
#[tokio::test]
async fn kafkas_own_topics_are_checked_as_they_are_or_as_they_would_be_made() {
    let directory = scratch("kafkas-own");
    let cache = LocalConfig::default().parts_directory().unwrap();
    let ports = [NodePorts::new(port(), port())];
    let node = KafkaCluster::start(&cache, directory.path(), &ports, 256).await.unwrap();
    let weak = KafkaConfig {
        brokers: node.bootstrap_servers().into(),
        partitions: 1,
        replication_factor: 1,
        min_insync_replicas: 1,
        allow_weak_durability: true,
        ..KafkaConfig::default()
    };
    let strict = KafkaConfig { allow_weak_durability: false, ..weak.clone() };
    let refused = async || Cluster::new(&strict).unwrap().ensure_topics().await.unwrap_err().to_string();
    let cluster = Cluster::new(&weak).unwrap();
    wait_until_ready("Kafka", PATIENCE, async || cluster.probe().await).await.unwrap();

    let message = refused().await;
    for setting in [
        "__consumer_offsets: is not there yet, and broker 1 would make it with offsets.topic.replication.factor=1",
        "would make it with min.insync.replicas=1, at least 2 are needed",
        "__transaction_state: is not there yet, and broker 1 would make it with transaction.state.log.replication.factor=1",
        "would make it with transaction.state.log.min.isr=1",
    ] {
        assert!(message.contains(setting), "{setting}: {message}");
    }
    cluster.ensure_topics().await.unwrap();
    CorrectionLog::take_over(&weak).await.unwrap();

    // Whoever reads is asked for its group, too.
    let both_there = async || Some(refused().await).filter(|message| !message.contains("is not there yet"));
    let message = eventually("both are there", both_there).await;
    for weakness in [
        "__consumer_offsets: 1 of at least 3 replicas (kafka-reassign-partitions.sh",
        "__consumer_offsets: min.insync.replicas=1, at least 2 are needed (kafka-configs.sh",
        "__transaction_state: 1 of at least 3 replicas (kafka-reassign-partitions.sh",
        "__transaction_state: min.insync.replicas=1, at least 2 are needed (kafka-configs.sh",
    ] {
        assert!(message.contains(weakness), "{weakness}: {message}");
    }
    assert!(cluster.ensure_topics().await.is_ok());
}
