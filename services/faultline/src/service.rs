//! Services as processes of their own: `faultline gateway`, `faultline classifier`, `faultline alerter`, `faultline console`.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use faultline_alerter::Alerter;
use faultline_classifier::Classifier;
use faultline_console::Console;
use faultline_gateway::Gateway;
use faultline_runtime::monitoring::{self, Metrics};
use faultline_runtime::readiness::Readiness;
use faultline_runtime::shutdown::StopSignals;
use faultline_runtime::telemetry::Telemetry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::rules::rule_files;

/// `faultline gateway`: configured, bound, served until a signal, drained.
pub(crate) async fn gateway(config: Config, telemetry: &Telemetry) -> anyhow::Result<()> {
    let mut signals = StopSignals::catch().context("cannot catch signals")?;
    let process = Process::bind(&config, telemetry).await?;
    let gateway = Gateway::new(&config.gateway, &config.kafka, &process.readiness)?;
    let listener = bind(config.gateway.listen, "gateway.listen").await?;
    tracing::info!(listen = %config.gateway.listen, monitoring = %config.monitoring.listen, "the gateway listens");
    let serving = Box::pin(gateway.serve(listener, process.stop.clone()));
    process.run_until_stopped(async { Ok(serving.await?) }, &mut signals).await
}

/// `faultline classifier`: configured, at work until a signal, drained.
pub(crate) async fn classifier(config: Config, telemetry: &Telemetry) -> anyhow::Result<()> {
    let mut signals = StopSignals::catch().context("cannot catch signals")?;
    let process = Process::bind(&config, telemetry).await?;
    let classifier = Classifier::new(&config.classifier, &config.kafka, &config.clickhouse, &process.readiness)?;
    tracing::info!(monitoring = %config.monitoring.listen, "the classifier starts");
    let working = Box::pin(classifier.serve(process.stop.clone()));
    process.run_until_stopped(async { Ok(working.await?) }, &mut signals).await
}

/// `faultline alerter`: configured, at work until a signal.
pub(crate) async fn alerter(config: Config, telemetry: &Telemetry) -> anyhow::Result<()> {
    let mut signals = StopSignals::catch().context("cannot catch signals")?;
    let process = Process::bind(&config, telemetry).await?;
    let alerter = Alerter::new(&config.alerter, &config.kafka, &config.clickhouse, &process.readiness)?.with_rules(rule_files(&config)?);
    tracing::info!(monitoring = %config.monitoring.listen, "the alerter starts");
    let working = Box::pin(alerter.serve(process.stop.clone()));
    process.run_until_stopped(async { Ok(working.await?) }, &mut signals).await
}

/// `faultline console`: configured, bound, served until a signal, drained.
pub(crate) async fn console(config: Config, telemetry: &Telemetry) -> anyhow::Result<()> {
    let mut signals = StopSignals::catch().context("cannot catch signals")?;
    let process = Process::bind(&config, telemetry).await?;
    let console = Console::new(&config.console, &config.clickhouse, &process.readiness)?.with_rules(rule_files(&config)?);
    let listener = bind(config.console.listen, "console.listen").await?;
    tracing::info!(listen = %config.console.listen, monitoring = %config.monitoring.listen, "the console listens");
    let serving = Box::pin(console.serve(listener, process.stop.clone()));
    process.run_until_stopped(async { Ok(serving.await?) }, &mut signals).await
}

/// What the services of one process share.
pub(crate) struct Process {
    pub(crate) readiness: Readiness,
    /// Cancelled when the process is to stop.
    pub(crate) stop: CancellationToken,
    monitoring: TcpListener,
    metrics: Metrics,
}

impl Process {
    /// Begins to count, and takes the address at which it will tell.
    pub(crate) async fn bind(config: &Config, telemetry: &Telemetry) -> anyhow::Result<Process> {
        Ok(Process {
            readiness: Readiness::new(),
            stop: CancellationToken::new(),
            monitoring: bind(config.monitoring.listen, "monitoring.listen").await?,
            metrics: Metrics::install(telemetry).context("metrics")?,
        })
    }

    /// Runs `work` until it ends or a signal comes; then it is told to stop and waited for. A second signal ends everything.
    pub(crate) async fn run_until_stopped(
        self,
        work: impl Future<Output = anyhow::Result<()>>,
        signals: &mut StopSignals,
    ) -> anyhow::Result<()> {
        // It tells as long as there is something to tell: until the work is done.
        let telling = monitoring::serve(self.monitoring, self.metrics, self.readiness.clone());
        tokio::pin!(work, telling);
        tokio::select! {
            result = &mut work => return result,
            served = &mut telling => return served.context("the monitoring endpoints"),
            signal = signals.next() => tracing::info!(signal, "asked to stop; a second signal ends everything at once"),
        }
        self.readiness.close();
        self.stop.cancel();
        tokio::select! {
            result = &mut work => result,
            served = &mut telling => served.context("the monitoring endpoints"),
            signal = signals.next() => bail!("ended at once by a second signal ({signal})"),
        }
    }
}

/// Takes an address, or says whose it is.
pub(crate) async fn bind(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} (`{key}`)"))
}
