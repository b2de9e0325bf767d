//! Settings of the gateway, and what it tells terminals about reporting.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use faultline_proto::terminal::v1::TerminalSettings;
use serde::{Deserialize, Serialize};

/// Settings of the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayConfig {
    /// Where terminals connect.
    pub listen: SocketAddr,
    /// The file of bearer tokens; its form is in this crate's `credentials`.
    pub token_file: PathBuf,
    /// Certificate chain (PEM) for TLS; empty: no TLS.
    pub tls_certificate_file: PathBuf,
    /// Its private key (PEM).
    pub tls_key_file: PathBuf,
    /// Batches that may wait for Kafka at one moment. Beyond that, load is shed.
    pub in_flight: ByteSize,
    /// How often a silent connection is asked whether it is still there.
    #[serde(with = "humantime_serde")]
    pub keepalive_interval: Duration,
    /// How long the answer may take until the connection is closed.
    #[serde(with = "humantime_serde")]
    pub keepalive_timeout: Duration,
    /// How long batches that were taken may take to be answered when the gateway stops.
    #[serde(with = "humantime_serde")]
    pub drain_within: Duration,
    /// How terminals are to report.
    pub terminals: TerminalsConfig,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        GatewayConfig {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 15051)),
            token_file: PathBuf::new(),
            tls_certificate_file: PathBuf::new(),
            tls_key_file: PathBuf::new(),
            in_flight: ByteSize::mib(64),
            keepalive_interval: Duration::from_secs(60),
            keepalive_timeout: Duration::from_secs(20),
            drain_within: Duration::from_secs(10),
            terminals: TerminalsConfig::default(),
        }
    }
}

/// What terminals are told about reporting. Limits are those of `faultline.terminal.v1.TerminalSettings`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TerminalsConfig {
    /// Most events in one batch.
    pub max_batch_events: u32,
    /// Most bytes of one batch.
    pub max_batch_bytes: ByteSize,
    /// How long an event may wait for others.
    #[serde(with = "humantime_serde")]
    pub max_batch_delay: Duration,
    /// Time between two health samples.
    #[serde(with = "humantime_serde")]
    pub health_interval: Duration,
}

impl Default for TerminalsConfig {
    fn default() -> Self {
        TerminalsConfig {
            max_batch_events: 100,
            max_batch_bytes: ByteSize::kib(256),
            max_batch_delay: Duration::from_secs(2),
            health_interval: Duration::from_secs(300),
        }
    }
}

impl TerminalsConfig {
    /// What is outside the contract's limits, by key after `gateway.`.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        let within = |key, shown: String, right: bool, limits: &str| {
            if right { Ok(()) } else { Err((key, format!("`{shown}` is not within {limits}"))) }
        };
        let delay = |duration: Duration| humantime_serde::re::humantime::format_duration(duration).to_string();
        within("terminals.max_batch_events", self.max_batch_events.to_string(), (1..=500).contains(&self.max_batch_events), "1 to 500")?;
        within(
            "terminals.max_batch_bytes",
            self.max_batch_bytes.to_string(),
            (1024..=1_048_576).contains(&self.max_batch_bytes.as_u64()),
            "1 KiB to 1 MiB",
        )?;
        within("terminals.max_batch_delay", delay(self.max_batch_delay), self.max_batch_delay <= Duration::from_secs(10), "0s to 10s")?;
        let day = Duration::from_secs(86_400);
        within(
            "terminals.health_interval",
            delay(self.health_interval),
            (Duration::from_secs(10)..=day).contains(&self.health_interval),
            "10s to 1day",
        )
    }

    /// The message, as of a moment in seconds since 1970: a later start has a higher version.
    pub(crate) fn message(&self, version: u64) -> TerminalSettings {
        TerminalSettings {
            version,
            max_batch_events: self.max_batch_events,
            max_batch_bytes: u32::try_from(self.max_batch_bytes.as_u64()).unwrap_or(u32::MAX),
            max_batch_delay: prost_types::Duration::try_from(self.max_batch_delay).ok(),
            health_interval: prost_types::Duration::try_from(self.health_interval).ok(),
            card_token_keys: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_terminals_are_told_is_within_the_contract() {
        assert_eq!(TerminalsConfig::default().check(), Ok(()));
        for (config, key) in [
            (TerminalsConfig { max_batch_events: 501, ..Default::default() }, "terminals.max_batch_events"),
            (TerminalsConfig { max_batch_bytes: ByteSize::mib(2), ..Default::default() }, "terminals.max_batch_bytes"),
            (TerminalsConfig { max_batch_delay: Duration::from_secs(11), ..Default::default() }, "terminals.max_batch_delay"),
            (TerminalsConfig { health_interval: Duration::from_secs(9), ..Default::default() }, "terminals.health_interval"),
        ] {
            assert_eq!(config.check().unwrap_err().0, key);
        }
    }
}
