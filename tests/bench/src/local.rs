//! Kafka and ClickHouse on this machine, for one bench, and what they use.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use faultline_deploy::{LocalConfig, LocalParts, Parts, Wanted};
use faultline_proto::ingest::v1::OutcomeBatch;
use faultline_store::ClickHouseConfig;
use faultline_stream::{Cluster, KafkaConfig, OutcomeRecord};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use prost::Message;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::fleet::Batch;
use crate::processes::{cpu_time, processes_in};

const PATIENCE: Duration = Duration::from_secs(60);
/// Tenant of everything that is reported.
pub(crate) const TENANT: &str = "acme";

/// Kafka and, where it was wanted, ClickHouse.
pub(crate) struct Local {
    parts: LocalParts,
    pub(crate) kafka: KafkaConfig,
    pub(crate) directory: TempDir,
}

impl Local {
    /// Starts them, on four ports from this one.
    pub(crate) async fn start(program: &Path, port: u16, wanted: Wanted) -> anyhow::Result<Local> {
        let directory = tempfile::Builder::new().prefix("faultline-bench-").tempdir()?;
        let config = LocalConfig {
            data_dir: directory.path().join("data"),
            kafka_port: port,
            kafka_controller_port: port + 1,
            clickhouse_http_port: port + 2,
            clickhouse_native_port: port + 3,
            ..LocalConfig::default()
        };
        let parts = Parts::find(&config.parts_directory()?, wanted).await?;
        let parts = LocalParts::start(&config, &parts, program).await?;
        let kafka = KafkaConfig {
            brokers: parts.kafka_brokers().context("Kafka was not started")?.into(),
            partitions: config.kafka_partitions,
            replication_factor: 1,
            min_insync_replicas: 1,
            allow_weak_durability: true,
            ..KafkaConfig::default()
        };
        let cluster = Cluster::new(&kafka)?;
        until("Kafka answers", PATIENCE, async || Ok(cluster.probe().await.is_ok())).await?;
        cluster.ensure_topics().await?;
        Ok(Local { parts, kafka, directory })
    }

    /// How to reach ClickHouse.
    pub(crate) fn clickhouse(&self) -> anyhow::Result<ClickHouseConfig> {
        let access = self.parts.clickhouse().context("ClickHouse was not started")?;
        Ok(ClickHouseConfig {
            url: access.url.parse()?,
            user: access.user.clone(),
            password: access.password.clone().into(),
            ..ClickHouseConfig::default()
        })
    }

    /// A command of the program, with settings to reach them.
    pub(crate) fn command(&self, program: &Path, command: &str) -> Command {
        let mut started = Command::new(program);
        started
            .arg(command)
            .env("FAULTLINE__KAFKA__BROKERS", &self.kafka.brokers)
            .env("FAULTLINE__KAFKA__PARTITIONS", self.kafka.partitions.to_string())
            .env("FAULTLINE__KAFKA__REPLICATION_FACTOR", "1")
            .env("FAULTLINE__KAFKA__MIN_INSYNC_REPLICAS", "1")
            .env("FAULTLINE__KAFKA__ALLOW_WEAK_DURABILITY", "true");
        if let Some(access) = self.parts.clickhouse() {
            started
                .env("FAULTLINE__CLICKHOUSE__URL", &access.url)
                .env("FAULTLINE__CLICKHOUSE__USER", &access.user)
                .env("FAULTLINE__CLICKHOUSE__PASSWORD", &access.password);
        }
        started
    }

    /// CPU time that Kafka used so far.
    pub(crate) fn used_by_kafka(&self) -> anyhow::Result<Duration> {
        self.used_in("kafka")
    }

    /// CPU time that ClickHouse used so far.
    pub(crate) fn used_by_clickhouse(&self) -> anyhow::Result<Duration> {
        self.used_in("clickhouse")
    }

    /// Sends ClickHouse a signal.
    pub(crate) fn signal_clickhouse(&self, signal: Signal) -> anyhow::Result<()> {
        self.processes_of("clickhouse")?.into_iter().try_for_each(|pid| Ok(kill(Pid::from_raw(pid), signal)?))
    }

    fn used_in(&self, part: &str) -> anyhow::Result<Duration> {
        self.processes_of(part)?.into_iter().map(cpu_time).sum()
    }

    fn processes_of(&self, part: &str) -> anyhow::Result<Vec<i32>> {
        let found = processes_in(&self.directory.path().canonicalize()?.join("data").join(part))?;
        if found.is_empty() {
            bail!("no process of {part} is running");
        }
        Ok(found)
    }

    pub(crate) async fn stop(self) {
        self.parts.stop().await;
    }
}

/// The record that a gateway makes of a batch.
pub(crate) fn record(batch: &Batch) -> OutcomeRecord {
    OutcomeRecord {
        tenant: TENANT.into(),
        terminal: batch.message.terminal_id.clone(),
        receipt_ms: batch.receipt_ms,
        profile: batch.profile.encode_to_vec().into(),
        trace_parent: None,
        batch: OutcomeBatch::encode_to_vec(&batch.message).into(),
    }
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, patience: Duration, is_so: impl AsyncFn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let give_up = Instant::now() + patience;
    while !is_so().await? {
        if Instant::now() > give_up {
            bail!("waited {} s in vain until {what}", patience.as_secs());
        }
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// CPU seconds of a million events, from those of some.
pub(crate) fn of_a_million(used: Duration, events: usize) -> anyhow::Result<f64> {
    Ok(used.as_secs_f64() * 1_000_000.0 / f64::from(u32::try_from(events)?))
}
