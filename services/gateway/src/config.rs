//! Settings of the gateway, and what it tells terminals about reporting.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use faultline_proto::terminal::v1::TerminalSettings;
use serde::{Deserialize, Serialize};

const DAY_S: u64 = 24 * 60 * 60;

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
    /// Most connections at one moment; more wait to be accepted.
    pub max_connections: u32,
    /// Most calls at one moment over one connection.
    pub max_calls_per_connection: u32,
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
    /// What one terminal may have of this gateway.
    pub share: ShareConfig,
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
            max_connections: 10_000,
            max_calls_per_connection: 100,
            in_flight: ByteSize::mib(64),
            keepalive_interval: Duration::from_secs(60),
            keepalive_timeout: Duration::from_secs(20),
            drain_within: Duration::from_secs(25),
            share: ShareConfig::default(),
            terminals: TerminalsConfig::default(),
        }
    }
}

impl GatewayConfig {
    /// What is outside its limits, by key after `gateway.`.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        let terminals = &self.terminals;
        number("max_connections", self.max_connections.into(), 1..=1_000_000)?;
        number("max_calls_per_connection", self.max_calls_per_connection.into(), 1..=100_000)?;
        number("in_flight", self.in_flight.as_u64(), 1024..=u32::MAX.into())?;
        seconds("keepalive_interval", self.keepalive_interval, 1..=DAY_S)?;
        seconds("keepalive_timeout", self.keepalive_timeout, 1..=DAY_S)?;
        seconds("drain_within", self.drain_within, 0..=DAY_S)?;
        number("share.calls", self.share.calls.into(), 1..=100_000)?;
        number("share.events_per_second", self.share.events_per_second.into(), 0..=1_000_000)?;
        number("share.burst_events", self.share.burst_events.into(), 1024..=10_000_000)?;
        number("terminals.max_batch_events", terminals.max_batch_events.into(), 1..=500)?;
        number("terminals.max_batch_bytes", terminals.max_batch_bytes.as_u64(), 1024..=1_048_576)?;
        seconds("terminals.max_batch_delay", terminals.max_batch_delay, 0..=10)?;
        seconds("terminals.health_interval", terminals.health_interval, 10..=DAY_S)?;
        seconds("terminals.rules_within", terminals.rules_within, 0..=DAY_S)
    }
}

fn number(key: &'static str, value: u64, limits: RangeInclusive<u64>) -> Result<(), (&'static str, String)> {
    if limits.contains(&value) { Ok(()) } else { Err((key, format!("{value} is not within {} to {}", limits.start(), limits.end()))) }
}

fn seconds(key: &'static str, value: Duration, limits: RangeInclusive<u64>) -> Result<(), (&'static str, String)> {
    let (least, most) = (Duration::from_secs(*limits.start()), Duration::from_secs(*limits.end()));
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err((key, format!("{} s is not within {} s to {} s", value.as_secs_f64(), limits.start(), limits.end())))
}

/// What one terminal may have of one gateway, so that a terminal that loops takes nothing from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShareConfig {
    /// Most calls of a terminal with a token of its own, at one moment.
    pub calls: u32,
    /// Events a second. A batch counts as 20 events at least, and as one for each KiB. 0: there is no limit.
    pub events_per_second: u32,
    /// Events at once, after a while without any: what a terminal has kept while it could not report.
    pub burst_events: u32,
}

impl Default for ShareConfig {
    fn default() -> Self {
        ShareConfig { calls: 32, events_per_second: 200, burst_events: 20_000 }
    }
}

/// What terminals are told about reporting, and given. Limits are those of `faultline.terminal.v1.TerminalSettings`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The file with the signed rules that terminals are given (`faultline rules pack`); empty: they have those of their library.
    pub rules_bundle: PathBuf,
    /// The public key with which it is checked, as terminals do.
    pub rules_key: String,
    /// Over how long terminals whose stream is open are given rules that are new.
    #[serde(with = "humantime_serde")]
    pub rules_within: Duration,
}

impl Default for TerminalsConfig {
    fn default() -> Self {
        TerminalsConfig {
            max_batch_events: 100,
            max_batch_bytes: ByteSize::kib(256),
            max_batch_delay: Duration::from_secs(2),
            health_interval: Duration::from_secs(300),
            rules_bundle: PathBuf::new(),
            rules_key: String::new(),
            rules_within: Duration::from_secs(60),
        }
    }
}

impl TerminalsConfig {
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
    fn what_is_outside_its_limits_is_named() {
        let right = GatewayConfig::default();
        assert_eq!(right.check(), Ok(()));
        let terminals = TerminalsConfig::default;
        for (wrong, key) in [
            (GatewayConfig { max_connections: 0, ..right.clone() }, "max_connections"),
            (GatewayConfig { in_flight: ByteSize::b(0), ..right.clone() }, "in_flight"),
            (GatewayConfig { in_flight: ByteSize::tb(10), ..right.clone() }, "in_flight"),
            (GatewayConfig { keepalive_interval: Duration::ZERO, ..right.clone() }, "keepalive_interval"),
            (GatewayConfig { share: ShareConfig { calls: 0, ..right.share }, ..right.clone() }, "share.calls"),
            (GatewayConfig { share: ShareConfig { burst_events: 1000, ..right.share }, ..right.clone() }, "share.burst_events"),
            (
                GatewayConfig { terminals: TerminalsConfig { max_batch_events: 501, ..terminals() }, ..right.clone() },
                "terminals.max_batch_events",
            ),
            (
                GatewayConfig { terminals: TerminalsConfig { max_batch_delay: Duration::from_secs(11), ..terminals() }, ..right.clone() },
                "terminals.max_batch_delay",
            ),
        ] {
            assert_eq!(wrong.check().unwrap_err().0, key);
        }
    }
}
