//! What a million events cost from the terminal's stream to Kafka: CPU seconds of gateway and broker, beside those of librdkafka and broker where
//! the same records are produced without a gateway.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use faultline_deploy::{LocalConfig, LocalParts, Parts, Wanted};
use faultline_proto::ingest::v1::StreamOutcomesRequest;
use faultline_proto::ingest::v1::ingest_service_client::IngestServiceClient;
use faultline_proto::ingest::v1::stream_outcomes_request::Message as Request;
use faultline_proto::ingest::v1::stream_outcomes_response::Message as Response;
use faultline_stream::{Cluster, KafkaConfig, OutcomeProducer, OutcomeRecord};
use prost::Message;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use crate::fleet::{self, Batch};
use crate::processes::{cpu_time, processes_in};
use crate::report::{Figure, Report, say};

/// Events of a run with full batches, and with one event a batch.
const EVENTS: usize = 1_000_000;
const SINGLE_EVENTS: usize = 100_000;
const OF_BATCH: usize = 100;
/// Streams at one moment, and connections that they share.
const STREAMS: usize = 256;
const CONNECTIONS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(240);
const KAFKA_PORT: u16 = 29_011;
const GATEWAY: &str = "127.0.0.1:29015";

/// Measures it.
pub(crate) async fn measure(program: &Path) -> anyhow::Result<Report> {
    let kafka = Kafka::start(program).await?;
    let gateway = Gateway::start(program, &kafka).await?;
    let mut costs = Vec::new();
    for (events, of_batch) in [(EVENTS, OF_BATCH), (SINGLE_EVENTS, 1)] {
        let batches = Arc::new(fleet::batches(events, of_batch));
        // The first of it pays for what is done once.
        gateway.report(&Arc::new(fleet::batches(10_000, of_batch))).await?;
        let through = kafka.cost((events, &[gateway.pid()?]), gateway.report(&batches)).await?;
        let beside = kafka.cost((events, &[std::process::id().cast_signed()]), kafka.produce(&batches)).await?;
        say(&format!("gateway: {events} events, {of_batch} a batch: {through:.2} CPU s a million; librdkafka alone {beside:.2}\n"));
        costs.push((through, beside));
    }
    gateway.stop().await?;
    kafka.parts.stop().await;
    let [full, single] = costs.as_slice() else { bail!("not everything was measured") };
    let figures = vec![
        Figure::at_most(("gateway_cpu_s_per_m", "CPU s"), 1.5, full.0),
        Figure::stated(("gateway_cpu_s_per_m_librdkafka", "CPU s"), full.1),
        Figure::stated(("gateway_cpu_s_per_m_single", "CPU s"), single.0),
        Figure::stated(("gateway_cpu_s_per_m_single_librdkafka", "CPU s"), single.1),
    ];
    Ok(Report { bench: "gateway", figures })
}

/// A Kafka on this machine.
struct Kafka {
    parts: LocalParts,
    config: KafkaConfig,
    broker: i32,
    directory: TempDir,
}

impl Kafka {
    async fn start(program: &Path) -> anyhow::Result<Kafka> {
        let directory = tempfile::Builder::new().prefix("faultline-bench-").tempdir()?;
        let local = LocalConfig {
            data_dir: directory.path().join("data"),
            kafka_port: KAFKA_PORT,
            kafka_controller_port: KAFKA_PORT + 1,
            ..LocalConfig::default()
        };
        let parts = Parts::find(&local.parts_directory()?, Wanted { kafka: true, clickhouse: false }).await?;
        let parts = LocalParts::start(&local, &parts, program).await?;
        let config = KafkaConfig {
            brokers: parts.kafka_brokers().context("Kafka was not started")?.into(),
            partitions: local.kafka_partitions,
            replication_factor: 1,
            min_insync_replicas: 1,
            allow_weak_durability: true,
            ..KafkaConfig::default()
        };
        let cluster = Cluster::new(&config)?;
        let until = Instant::now() + PATIENCE;
        while let Err(error) = cluster.probe().await {
            if Instant::now() > until {
                return Err(error.into());
            }
            sleep(Duration::from_millis(200)).await;
        }
        cluster.ensure_topics().await?;
        let found = processes_in(&directory.path().canonicalize()?)?;
        let [broker] = found.as_slice() else { bail!("{} processes instead of one work in Kafka's directory", found.len()) };
        Ok(Kafka { parts, config, broker: *broker, directory })
    }

    /// CPU seconds that the broker and these processes use for some work, for a million events.
    async fn cost(&self, (events, processes): (usize, &[i32]), work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<f64> {
        let used = || -> anyhow::Result<Duration> {
            let times = processes.iter().chain([&self.broker]).map(|pid| cpu_time(*pid)).collect::<anyhow::Result<Vec<_>>>()?;
            Ok(times.iter().sum())
        };
        let before = used()?;
        timeout(PATIENCE, work).await.context("it took too long")??;
        // What the broker does a little later belongs to it.
        sleep(Duration::from_secs(2)).await;
        let events = f64::from(u32::try_from(events)?);
        Ok((used()? - before).as_secs_f64() * 1_000_000.0 / events)
    }

    /// Produces the same records as the gateway does, without one.
    async fn produce(&self, batches: &Arc<Vec<Batch>>) -> anyhow::Result<()> {
        let producer = Arc::new(OutcomeProducer::new(&self.config)?);
        let profile: bytes::Bytes = fleet::profile().encode_to_vec().into();
        let next = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..STREAMS {
            let (producer, profile, next, batches) = (Arc::clone(&producer), profile.clone(), Arc::clone(&next), Arc::clone(batches));
            tasks.spawn(async move {
                while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let record = OutcomeRecord {
                        tenant: "acme".into(),
                        terminal: batch.terminal.clone(),
                        receipt_ms: 1_795_617_600_000,
                        profile: profile.clone(),
                        trace_parent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00".into()),
                        batch: batch.bytes(),
                    };
                    producer.send(&record).await?;
                }
                anyhow::Ok(())
            });
        }
        all(tasks).await
    }
}

/// A gateway, and somebody who reports to it for everybody.
struct Gateway {
    child: Child,
    token: String,
}

impl Gateway {
    async fn start(program: &Path, kafka: &Kafka) -> anyhow::Result<Gateway> {
        let tokens = kafka.directory.path().join("tokens");
        let made = Command::new(program).args(["token", "--tenant", "acme", "--any-terminal", "--file"]).arg(&tokens).output().await;
        let token = String::from_utf8(made.with_context(|| format!("cannot run {}", program.display()))?.stdout)?.trim().to_owned();
        let child = Command::new(program)
            .arg("gateway")
            .env("FAULTLINE__KAFKA__BROKERS", &kafka.config.brokers)
            .env("FAULTLINE__KAFKA__PARTITIONS", kafka.config.partitions.to_string())
            .env("FAULTLINE__KAFKA__REPLICATION_FACTOR", "1")
            .env("FAULTLINE__KAFKA__MIN_INSYNC_REPLICAS", "1")
            .env("FAULTLINE__KAFKA__ALLOW_WEAK_DURABILITY", "true")
            .env("FAULTLINE__GATEWAY__TOKEN_FILE", &tokens)
            .env("FAULTLINE__GATEWAY__LISTEN", GATEWAY)
            .env("FAULTLINE__MONITORING__LISTEN", "127.0.0.1:29016")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        Ok(Gateway { child, token })
    }

    fn pid(&self) -> anyhow::Result<i32> {
        self.child.id().and_then(|pid| i32::try_from(pid).ok()).context("the gateway has ended")
    }

    /// Reports batches over streams, each with one batch on its way, until all are acknowledged.
    async fn report(&self, batches: &Arc<Vec<Batch>>) -> anyhow::Result<()> {
        let next = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let channel = connected().await?;
            for _ in 0..STREAMS / CONNECTIONS {
                tasks.spawn(report_some(channel.clone(), self.token.clone(), Arc::clone(batches), Arc::clone(&next)));
            }
        }
        all(tasks).await
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()?), nix::sys::signal::Signal::SIGTERM)?;
        let ended = timeout(PATIENCE, self.child.wait()).await.context("the gateway does not stop")??;
        if ended.success() { Ok(()) } else { bail!("the gateway ended with an error") }
    }
}

async fn connected() -> anyhow::Result<Channel> {
    let until = Instant::now() + PATIENCE;
    loop {
        match Endpoint::from_shared(format!("http://{GATEWAY}"))?.connect().await {
            Ok(channel) => return Ok(channel),
            Err(error) if Instant::now() > until => return Err(error.into()),
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn report_some(channel: Channel, token: String, batches: Arc<Vec<Batch>>, next: Arc<AtomicUsize>) -> anyhow::Result<()> {
    let (sender, requests) = mpsc::channel(2);
    let mut request = tonic::Request::new(ReceiverStream::new(requests));
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
    sender.send(StreamOutcomesRequest { message: Some(Request::Profile(fleet::profile())) }).await?;
    let mut responses = IngestServiceClient::new(channel).stream_outcomes(request).await?.into_inner();
    while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
        sender.send(StreamOutcomesRequest { message: Some(Request::Batch(batch.message.clone())) }).await?;
        loop {
            let response = responses.message().await?.context("the gateway ended a stream")?;
            let Some(Response::Acknowledgement(acknowledgement)) = response.message else { continue };
            if acknowledgement.acknowledged_through != u64::try_from(batch.message.events.len())? || !acknowledgement.refusals.is_empty() {
                bail!("not everything was taken: {acknowledgement:?}");
            }
            break;
        }
    }
    Ok(())
}

async fn all(mut tasks: JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}
