//! The HTTP endpoints by which a process is watched: `/metrics`, `/livez` and `/readyz`.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use metrics::describe_gauge;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::layers::FanoutBuilder;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval};

use crate::readiness::Readiness;
use crate::telemetry::Telemetry;

/// Bounds of every histogram of seconds: from what a healthy disk takes to what a patient client waits.
pub(crate) const SECONDS: [f64; 15] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// How often histograms are emptied into their buckets, whether or not someone asks.
const UPKEEP: Duration = Duration::from_secs(5);

/// Settings of the endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MonitoringConfig {
    /// Where they are served, without encryption or credentials.
    pub listen: SocketAddr,
}

impl Default for MonitoringConfig {
    fn default() -> Self {
        MonitoringConfig { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 19100)) }
    }
}

/// Why nothing is counted.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// They cannot be kept.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The process counts already.
    #[error("the process counts already")]
    Installed,
}

/// The metrics of this process.
#[derive(Clone, Debug)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// From here on everything that is counted with the `metrics` crate is kept for `/metrics`, and sent to the collector if there is one. Once a
    /// process.
    ///
    /// # Errors
    /// When the process counts already.
    pub fn install(telemetry: &Telemetry) -> Result<Metrics, MetricsError> {
        let kept = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?.build_recorder();
        let metrics = Metrics(kept.handle());
        let mut recorders = FanoutBuilder::default().add_recorder(kept);
        if let Some(sent) = telemetry.recorder() {
            recorders = recorders.add_recorder(sent);
        }
        metrics::set_global_recorder(recorders.build()).map_err(|_| MetricsError::Installed)?;
        describe_gauge!("faultline_ready", "Whether a part that the process depends on works: 1 or 0");
        Ok(metrics)
    }
}

/// Serves the endpoints until it is dropped:
///
/// - `/metrics`: everything that was counted, in Prometheus' text format (version 0.0.4);
/// - `/livez`: 200 as long as the process answers at all;
/// - `/readyz`: 200 when it can do its work, else 503 with a line for everything that is in the way.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, metrics: Metrics, readiness: Readiness) -> io::Result<()> {
    let handle = metrics.0.clone();
    let upkeep = async move {
        let mut ticks = interval(UPKEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            handle.run_upkeep();
        }
    };
    tokio::select! {
        served = axum::serve(listener, router(metrics, readiness)).into_future() => served,
        () = upkeep => Ok(()),
    }
}

fn router(metrics: Metrics, readiness: Readiness) -> Router {
    let render = move || async move { ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.0.render()) };
    let ready = move || async move {
        let obstacles = readiness.obstacles();
        if obstacles.is_empty() {
            (StatusCode::OK, "ready\n".to_owned())
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", obstacles.join("\n")))
        }
    };
    Router::new().route("/metrics", get(render)).route("/livez", get(async || "alive\n")).route("/readyz", get(ready))
}
