//! Kafka and ClickHouse for all tests of this run: started by the first that asks, gone with the process.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use faultline_deploy::{LocalConfig, LocalParts, Parts, Wanted};
use faultline_runtime::readiness::wait_until_ready;
use faultline_store::{ClickHouseConfig, Database};
use faultline_stream::{Cluster, KafkaConfig};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::chaos::disk;

/// How long the parts may take to answer on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The parts that tests share. What a test creates there carries a name of its own.
pub(crate) struct Sandbox {
    pub(crate) kafka: KafkaConfig,
    pub(crate) clickhouse: ClickHouseConfig,
    /// Never dropped: the parts end with the test process.
    _parts: LocalParts,
}

/// The shared parts, started at the first call.
pub(crate) async fn sandbox() -> &'static Sandbox {
    static SANDBOX: OnceCell<Sandbox> = OnceCell::const_new();
    SANDBOX.get_or_init(start).await
}

async fn start() -> Sandbox {
    let local = LocalConfig { data_dir: scratch("sandbox").keep(), ..ports() };
    let (parts, kafka, clickhouse) = start_parts(&local).await;
    let cluster = Cluster::new(&kafka).unwrap();
    let database = Database::new(&clickhouse).unwrap();
    wait_until_ready("Kafka", PATIENCE, async || cluster.probe().await).await.unwrap();
    wait_until_ready("ClickHouse", PATIENCE, async || database.probe().await).await.unwrap();
    Sandbox { kafka, clickhouse, _parts: parts }
}

/// Starts parts, and says how to reach them.
pub(crate) async fn start_parts(local: &LocalConfig) -> (LocalParts, KafkaConfig, ClickHouseConfig) {
    let parts = Parts::find(&local.parts_directory().unwrap(), Wanted { kafka: true, clickhouse: true }).await.unwrap();
    let parts = LocalParts::start(local, &parts, &program()).await.unwrap();
    // One broker cannot have more replicas; what is weak about that is not what most tests are about.
    let kafka = KafkaConfig {
        brokers: parts.kafka_brokers().unwrap().into(),
        partitions: local.kafka_partitions,
        replication_factor: 1,
        min_insync_replicas: 1,
        allow_weak_durability: true,
        ..KafkaConfig::default()
    };
    let clickhouse = clickhouse_of(&parts);
    (parts, kafka, clickhouse)
}

/// How to reach the ClickHouse of some parts.
pub(crate) fn clickhouse_of(parts: &LocalParts) -> ClickHouseConfig {
    let access = parts.clickhouse().unwrap();
    ClickHouseConfig {
        url: access.url.parse().unwrap(),
        user: access.user.clone(),
        password: access.password.clone().into(),
        ..ClickHouseConfig::default()
    }
}

/// The `faultline` program of this build.
pub(crate) fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let program = own.parent().and_then(Path::parent).unwrap().join("faultline");
    assert!(program.exists(), "{} is missing: test the whole workspace, or `cargo build` first", program.display());
    program
}

/// A port that nobody uses, below those of outgoing connections. Each is given out once.
pub(crate) fn port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let mut free = std::iter::repeat_with(|| {
        let taken = NEXT.fetch_add(1, Ordering::Relaxed);
        // Two test runs at the same time begin at different places.
        20_000 + (u16::try_from(std::process::id() % 100).unwrap() * 100 + taken) % 12_000
    });
    free.find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).unwrap()
}

/// A configuration with ports that nobody uses.
pub(crate) fn ports() -> LocalConfig {
    LocalConfig {
        kafka_port: port(),
        kafka_controller_port: port(),
        clickhouse_http_port: port(),
        clickhouse_native_port: port(),
        kafka_heap_mib: 256,
        clickhouse_memory_mib: 1024,
        ..LocalConfig::default()
    }
}

/// A directory for one test. What earlier runs left behind, because they were killed or never stop their parts, is removed first.
pub(crate) fn scratch(name: &str) -> TempDir {
    static SWEEP: std::sync::Once = std::sync::Once::new();
    let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
    SWEEP.call_once(|| {
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            let in_use = File::open(entry.path().join("lock")).is_ok_and(|lock| lock.try_lock().is_err());
            if !in_use {
                disk::unmount_all(&entry.path());
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    });
    tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(root).unwrap()
}
