//! Several of each: three brokers under the rules of production, and classifiers that come, go and are killed.

use std::time::Duration;

use faultline_deploy::{KafkaCluster, LocalConfig, NodePorts};
use faultline_runtime::readiness::wait_until_ready;
use faultline_store::ClickHouseConfig;
use faultline_stream::{Cluster, KafkaConfig, Replicas, Topic};

use crate::classifier::python;
use crate::ledger::{Reporters, Volume};
use crate::program::eventually;
use crate::sandbox::{PATIENCE, port, sandbox, scratch};
use crate::services::{Gateway, Service, query, settings_with};

const PARTITIONS: u32 = 6;

/// Some 1,000 events a second, and more than a test takes.
const VOLUME: Volume = Volume { terminals: 12, batches: 600, events_a_batch: 20, pause: Duration::from_millis(200) };

/// Brokers, and who asks them.
struct Brokers {
    kafka: KafkaConfig,
    nodes: KafkaCluster,
    cluster: Cluster,
}

impl Brokers {
    /// Waits until every partition, of Kafka's own topics too, is as `wanted`.
    async fn until(&self, what: &str, wanted: impl Fn(&Replicas) -> bool) {
        let all = async || self.cluster.replicas().await.is_ok_and(|all| all.iter().all(&wanted)).then_some(());
        eventually(what, all).await;
    }

    async fn until_in_sync(&self) {
        self.until("every replica is in sync", |partition| partition.all.len() == 3 && partition.in_sync.len() == 3).await;
    }

    /// Who takes the records of a partition.
    async fn leader(&self, partition: i32) -> i32 {
        let outcomes = self.kafka.topic(Topic::Outcomes);
        let leader = async || {
            let all = self.cluster.replicas().await.ok()?;
            all.into_iter().find(|replicas| replicas.topic == outcomes && replicas.partition == partition)?.leader
        };
        eventually("the partition has a leader", leader).await
    }

    async fn kill(&mut self, broker: i32) {
        self.nodes.kill(usize::try_from(broker).unwrap()).await;
    }

    fn start_again(&mut self, broker: i32) {
        self.nodes.start_again(usize::try_from(broker).unwrap()).unwrap();
    }
}

/// A broker, a classifier, another broker, another classifier, and two brokers at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_three_brokers_the_leader_is_killed_and_nothing_that_was_acknowledged_is_lost() {
    let directory = scratch("cluster");
    let cache = LocalConfig::default().parts_directory().unwrap();
    let ports: [NodePorts; 3] = std::array::from_fn(|_| NodePorts::new(port(), port()));
    let (nodes, shared) = tokio::join!(KafkaCluster::start(&cache, directory.path(), &ports, 256), sandbox());
    let nodes = nodes.unwrap();
    // Three replicas, two of them in sync, and nothing weaker: so are the defaults.
    let kafka = KafkaConfig { brokers: nodes.bootstrap_servers().into(), partitions: PARTITIONS, ..KafkaConfig::default() };
    assert_eq!((kafka.replication_factor, kafka.min_insync_replicas, kafka.allow_weak_durability), (3, 2, false));
    let clickhouse = ClickHouseConfig { database: "cluster".into(), ..shared.clickhouse.clone() };
    let mut brokers = Brokers { cluster: Cluster::new(&kafka).unwrap(), kafka: kafka.clone(), nodes };
    wait_until_ready("Kafka", PATIENCE, async || brokers.cluster.ensure_topics().await.map(|_| ())).await.unwrap();

    let mut settings = settings_with(&kafka, &clickhouse);
    settings.push(("CLASSIFIER__MAX_BATCH_DELAY", "200ms".into()));
    settings.push(("CLASSIFIER__HIGH_WATER_INTERVAL", "2s".into()));
    let classifier = || Service::start("classifier", settings.clone());
    let (first, second) = (classifier(), classifier());
    // So that terminals are told to come again with batches that Kafka has.
    let gateway = Gateway::start_on(kafka, &[("KAFKA__DELIVERY_TIMEOUT", "2s".into())]).await;
    tokio::join!(gateway.service.until_ready(), first.until_ready(), second.until_ready());
    share(&[&first, &second]).await;

    let reporters = Reporters::start(&gateway.collector().await, VOLUME);
    reporters.go_on(5).await;
    for classifier in [&first, &second] {
        let counts = async || (classifier.counted("faultline_classifier_events_total", &["counted"]).await > 0).then_some(());
        eventually("each of them counts", counts).await;
    }
    let used = query(&clickhouse, "SELECT kafka_partition FROM outcomes LIMIT 1").await.parse().unwrap();

    brokers.until_in_sync().await;
    let felled = brokers.leader(used).await;
    fell(&mut brokers, felled, &reporters).await;
    // While it comes back.
    first.kill().await;
    let third = classifier();
    third.until_ready().await;
    share(&[&second, &third]).await;
    reporters.go_on(2).await;

    brokers.until_in_sync().await;
    // Who comes back leads nothing, so this is another.
    let other = brokers.leader(used).await;
    assert_ne!(other, felled);
    fell(&mut brokers, other, &reporters).await;
    second.stop().await;
    share(&[&third]).await;
    reporters.go_on(2).await;

    brokers.until_in_sync().await;
    // Now one broker leads everything, and must not take a record that nobody else has.
    for broker in [felled, other] {
        brokers.kill(broker).await;
    }
    reporters.are_only_refused().await;
    for broker in [felled, other] {
        brokers.start_again(broker);
    }
    reporters.go_on(2).await;

    let acknowledged = reporters.stop().await;
    acknowledged.audit(&clickhouse, &third, PARTITIONS).await;
    assert!(third.counted("faultline_classifier_events_total", &["repeated"]).await > 0);
    third.stop().await;
    gateway.stop().await;

    // With Kafka's own topics there as before, and not where one of them could lose what was committed.
    brokers.until_in_sync().await;
    brokers.cluster.ensure_topics().await.unwrap();
    python("alter_topic.py", &[brokers.nodes.bootstrap_servers(), "__consumer_offsets", "min.insync.replicas", "1"]).await;
    let refused = async || brokers.cluster.ensure_topics().await.err();
    let message = eventually("it is refused", refused).await.to_string();
    assert!(message.contains("__consumer_offsets: min.insync.replicas=1, at least 2 are needed (kafka-configs.sh"), "{message}");
    assert!(!message.contains("replicas (") && !message.contains("__transaction_state"), "{message}");
}

/// Kills a broker, and has it started again when the others go on without it.
async fn fell(brokers: &mut Brokers, broker: i32, reporters: &Reporters) {
    brokers.kill(broker).await;
    let without = |partition: &Replicas| partition.leader.is_some_and(|leader| leader != broker) && !partition.in_sync.contains(&broker);
    brokers.until("the others go on without it", without).await;
    reporters.go_on(2).await;
    brokers.start_again(broker);
}

/// Waits until these classifiers have equal shares of the partitions.
async fn share(classifiers: &[&Service]) {
    let part = u64::from(PARTITIONS) / u64::try_from(classifiers.len()).unwrap();
    for classifier in classifiers {
        let has_its_share = async || (classifier.counted("faultline_classifier_partitions", &[]).await == part).then_some(());
        eventually("it has its share", has_its_share).await;
    }
}
