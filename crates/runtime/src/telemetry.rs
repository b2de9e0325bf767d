//! How a process says what it does: one log on standard error, for people or for machines.

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

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
    #[error("the log is already set up: {0}")]
    Installed(Box<dyn std::error::Error + Send + Sync>),
}

/// Sets up the log of this process. Once.
///
/// # Errors
/// When the filter cannot be understood, or the process has a log already.
pub fn init(config: &LogConfig) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&config.filter).map_err(|source| TelemetryError::Filter { filter: config.filter.clone(), source })?;
    // A log that nobody reads any more must not stop the work: without this, a failed write panics.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    match config.format {
        LogFormat::Human => log.with_target(false).with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    }
    .map_err(TelemetryError::Installed)
}
