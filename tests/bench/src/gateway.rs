//! What a million events cost from the terminal's stream to Kafka: CPU seconds of gateway and broker, beside those of librdkafka and broker where
//! the same records are produced without a gateway.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use faultline_deploy::Wanted;
use faultline_proto::ingest::v1::ingest_service_client::IngestServiceClient;
use faultline_proto::ingest::v1::stream_outcomes_request::Message as Request;
use faultline_proto::ingest::v1::stream_outcomes_response::Message as Response;
use faultline_proto::ingest::v1::{OutcomeBatch, StreamOutcomesRequest, StreamOutcomesResponse};
use faultline_proto::terminal::v1::TerminalProfile;
use faultline_stream::{KafkaConfig, OutcomeProducer, OutcomeRecord};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use crate::fleet::{self, Batch};
use crate::local::{Local, TENANT, of_a_million, record};
use crate::processes::{Service, cpu_time};
use crate::report::{Figure, Report, say};

/// Events of a run with full batches, and with one event a batch.
const EVENTS: usize = 1_000_000;
const SINGLE_EVENTS: usize = 100_000;
const OF_BATCH: usize = 100;
/// Events before anything is measured.
const WARM_UP: usize = 2_000_000;
/// Streams at one moment, and connections that they share.
const STREAMS: usize = 256;
const CONNECTIONS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(240);
const PORT: u16 = 29_011;

/// Measures it.
pub(crate) async fn measure(program: &Path) -> anyhow::Result<Report> {
    let local = Local::start(program, PORT, Wanted { kafka: true, clickhouse: false }).await?;
    let gateway = Gateway::start(program, &local, PORT + 4).await?;
    // What is done once is not counted: above all, the broker translates itself while it begins to work.
    produce(&local.kafka, fleet::batches(1, (WARM_UP, OF_BATCH))?.iter().map(record).collect()).await?;
    let mut costs = Vec::new();
    for (events, of_batch) in [(EVENTS, OF_BATCH), (SINGLE_EVENTS, 1)] {
        let batches = Arc::new(fleet::batches(1, (events, of_batch))?);
        gateway.report(&Arc::new(fleet::batches(1, (events / 10, of_batch))?)).await?;
        let through = cost(&local, (events, gateway.service.pid()?), gateway.report(&batches)).await?;
        let records = batches.iter().map(record).collect();
        drop(batches);
        let beside = cost(&local, (events, std::process::id().cast_signed()), produce(&local.kafka, records)).await?;
        say(&format!("gateway: {events} events, {of_batch} a batch: {through:.2} CPU s a million; librdkafka alone {beside:.2}\n"));
        costs.push((through, beside));
    }
    gateway.service.stop().await?;
    local.stop().await;
    let [full, single] = costs.as_slice() else { bail!("not everything was measured") };
    let figures = vec![
        Figure::at_most(("gateway_cpu_s_per_m", "CPU s"), 1.5, full.0),
        Figure::stated(("gateway_cpu_s_per_m_librdkafka", "CPU s"), full.1),
        Figure::stated(("gateway_cpu_s_per_m_single", "CPU s"), single.0),
        Figure::stated(("gateway_cpu_s_per_m_single_librdkafka", "CPU s"), single.1),
    ];
    Ok(Report { bench: "gateway", figures })
}

/// CPU seconds that Kafka and a process use for some work, for a million events.
async fn cost(local: &Local, (events, process): (usize, i32), work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<f64> {
    let used = || anyhow::Ok(local.used_by_kafka()? + cpu_time(process)?);
    let before = used()?;
    timeout(PATIENCE, work).await.context("it took too long")??;
    // What the broker does a little later belongs to it.
    sleep(Duration::from_secs(2)).await;
    of_a_million(used()? - before, events)
}

/// Produces records as a gateway does, without one.
pub(crate) async fn produce(kafka: &KafkaConfig, records: Vec<OutcomeRecord>) -> anyhow::Result<()> {
    let producer = Arc::new(OutcomeProducer::new(kafka)?);
    let (next, records) = (Arc::new(AtomicUsize::new(0)), Arc::new(records));
    let mut tasks = JoinSet::new();
    for _ in 0..STREAMS {
        let (producer, next, records) = (Arc::clone(&producer), Arc::clone(&next), Arc::clone(&records));
        tasks.spawn(async move {
            while let Some(record) = records.get(next.fetch_add(1, Ordering::Relaxed)) {
                producer.send(record).await?;
            }
            anyhow::Ok(())
        });
    }
    all(tasks).await
}

/// A gateway, on two ports.
pub(crate) struct Gateway {
    pub(crate) service: Service,
    port: u16,
    token: String,
}

impl Gateway {
    /// Starts one, on a port and the next.
    pub(crate) async fn start(program: &Path, local: &Local, port: u16) -> anyhow::Result<Gateway> {
        let tokens = local.directory.path().join("tokens");
        let made = Command::new(program).args(["token", "--tenant", TENANT, "--any-terminal", "--file"]).arg(&tokens).output().await;
        let token = String::from_utf8(made.with_context(|| format!("cannot run {}", program.display()))?.stdout)?.trim().to_owned();
        let mut command = local.command(program, "gateway");
        command.env("FAULTLINE__GATEWAY__TOKEN_FILE", &tokens).env("FAULTLINE__GATEWAY__LISTEN", format!("127.0.0.1:{port}"));
        command.env("FAULTLINE__MONITORING__LISTEN", format!("127.0.0.1:{}", port + 1));
        Ok(Gateway { service: Service::start(&mut command)?, port, token })
    }

    /// A connection, of somebody who reports for everybody.
    pub(crate) async fn connect(&self) -> anyhow::Result<Connection> {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", self.port))?;
        let until = Instant::now() + PATIENCE;
        loop {
            match endpoint.connect().await {
                Ok(channel) => return Ok(Connection { channel, token: self.token.clone() }),
                Err(error) if Instant::now() > until => return Err(error.into()),
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Reports batches over streams, each with one batch on its way, until all are acknowledged.
    async fn report(&self, batches: &Arc<Vec<Batch>>) -> anyhow::Result<()> {
        let next = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let connection = self.connect().await?;
            for _ in 0..STREAMS / CONNECTIONS {
                tasks.spawn(report_some(connection.clone(), Arc::clone(batches), Arc::clone(&next)));
            }
        }
        all(tasks).await
    }
}

async fn report_some(connection: Connection, batches: Arc<Vec<Batch>>, next: Arc<AtomicUsize>) -> anyhow::Result<()> {
    let profile = batches.first().map(|batch| batch.profile.clone()).unwrap_or_default();
    let mut stream = connection.stream(profile).await?;
    while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
        stream.report(batch.message.clone()).await?;
    }
    Ok(())
}

/// A connection to a gateway.
#[derive(Clone)]
pub(crate) struct Connection {
    channel: Channel,
    token: String,
}

impl Connection {
    /// A stream of batches, of terminals with this profile.
    pub(crate) async fn stream(&self, profile: TerminalProfile) -> anyhow::Result<Stream> {
        let (sender, requests) = mpsc::channel(2);
        let mut request = tonic::Request::new(ReceiverStream::new(requests));
        request.metadata_mut().insert("authorization", format!("Bearer {}", self.token).parse()?);
        sender.send(StreamOutcomesRequest { message: Some(Request::Profile(profile)) }).await?;
        let responses = IngestServiceClient::new(self.channel.clone()).stream_outcomes(request).await?.into_inner();
        Ok(Stream { sender, responses })
    }
}

/// Batches on their way, one after the other.
pub(crate) struct Stream {
    sender: mpsc::Sender<StreamOutcomesRequest>,
    responses: Streaming<StreamOutcomesResponse>,
}

impl Stream {
    /// Reports a batch, and waits until all of it is acknowledged. An error that is a [`tonic::Status`] ends the stream, and the batch may be sent again.
    pub(crate) async fn report(&mut self, batch: OutcomeBatch) -> anyhow::Result<()> {
        let last = batch.events.last().map(|event| event.sequence).unwrap_or_default();
        // Where nobody takes it, there is an answer that says why.
        let _ = self.sender.send(StreamOutcomesRequest { message: Some(Request::Batch(batch)) }).await;
        loop {
            let response = self.responses.message().await?.context("the gateway ended a stream")?;
            let Some(Response::Acknowledgement(acknowledgement)) = response.message else { continue };
            if acknowledgement.acknowledged_through != last || !acknowledgement.refusals.is_empty() {
                bail!("not everything was taken: {acknowledgement:?}");
            }
            return Ok(());
        }
    }
}

/// Waits for all of them, or the first that fails.
pub(crate) async fn all(mut tasks: JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}
