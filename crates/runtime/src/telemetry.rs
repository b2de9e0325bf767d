//! How a process says what it does: one log on standard error, for people or for machines; and traces and metrics for a collector, if there is one.

use std::io::IsTerminal;

use metrics::Recorder;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde::{Deserialize, Serialize};
use tracing::{Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::otlp::{Otlp, OtlpConfig, OtlpError};

/// Settings of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Who reads it.
    pub format: LogFormat,
    /// What is written: a level, or levels per target as `tracing-subscriber`'s `EnvFilter` takes them (`info,faultline_deploy=debug`).
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig { format: LogFormat::Human, filter: "info".into() }
    }
}

/// Who reads the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line of text an event.
    Human,
    /// A JSON object an event.
    Json,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("configuration key `log.filter`: `{filter}` is not a filter")]
    Filter {
        /// What was configured.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The process has a log already.
    #[error("the log is already set up")]
    Installed(#[source] TryInitError),
    /// The collector cannot be sent anything.
    #[error(transparent)]
    Otlp(#[from] OtlpError),
}

/// What a process says, as long as it runs.
#[must_use = "what is for the collector is sent to its end by `finish`"]
pub struct Telemetry(Option<Otlp>);

/// Sets up the log of this process, once; and where it is a part of Faultline and there is a collector, the traces that its spans belong to.
///
/// # Errors
/// When a setting cannot be understood, or the process has a log already.
pub fn init(config: &LogConfig, otlp: &OtlpConfig, part: Option<&str>) -> Result<Telemetry, TelemetryError> {
    let otlp = part.map(|part| Otlp::new(otlp, part)).transpose()?.flatten();
    let filter = EnvFilter::try_new(&config.filter).map_err(|source| TelemetryError::Filter { filter: config.filter.clone(), source })?;
    // A log that nobody reads any more must not stop the work: without this, a failed write panics.
    let log = fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let log = match config.format {
        LogFormat::Human => log.with_target(false).with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => log.json().flatten_event(true).boxed(),
    };
    let traces = otlp.as_ref().map(|otlp| spans(&otlp.tracers));
    tracing_subscriber::registry().with(log.with_filter(filter)).with(traces).try_init().map_err(TelemetryError::Installed)?;
    Ok(Telemetry(otlp))
}

impl Telemetry {
    /// Where metrics go, if there is a collector.
    pub(crate) fn recorder(&self) -> Option<impl Recorder + Sync + 'static> {
        self.0.as_ref().map(Otlp::recorder)
    }

    /// Sends the collector what it was not sent yet, for some seconds at most. Blocks.
    pub fn finish(self) {
        if let Some(otlp) = self.0 {
            otlp.finish();
        }
    }
}

/// Gives each of our spans its place in a trace, whatever the log shows of it.
pub(crate) fn spans<S: Subscriber + for<'span> LookupSpan<'span>>(tracers: &SdkTracerProvider) -> impl Layer<S> {
    let tracer = tracers.tracer("faultline");
    tracing_opentelemetry::layer().with_tracer(tracer).with_filter(Targets::new().with_target("faultline", Level::INFO))
}
