//! The configuration of the whole program, put together from that of its components.

use std::time::Duration;

use faultline_alerter::AlerterConfig;
use faultline_classifier::ClassifierConfig;
use faultline_console::ConsoleConfig;
use faultline_deploy::LocalConfig;
use faultline_gateway::GatewayConfig;
use faultline_runtime::monitoring::MonitoringConfig;
use faultline_runtime::otlp::OtlpConfig;
use faultline_runtime::telemetry::LogConfig;
use faultline_store::ClickHouseConfig;
use faultline_stream::KafkaConfig;
use serde::{Deserialize, Serialize};

/// Every key with its default and what it is for.
pub(crate) const DEFAULT_FILE: &str = include_str!("../faultline.toml");

/// One table a component.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) log: LogConfig,
    pub(crate) monitoring: MonitoringConfig,
    pub(crate) otlp: OtlpConfig,
    pub(crate) up: UpConfig,
    pub(crate) local: LocalConfig,
    pub(crate) kafka: KafkaConfig,
    pub(crate) clickhouse: ClickHouseConfig,
    pub(crate) gateway: GatewayConfig,
    pub(crate) classifier: ClassifierConfig,
    pub(crate) alerter: AlerterConfig,
    pub(crate) console: ConsoleConfig,
}

/// Settings of `faultline up`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct UpConfig {
    /// How long everything together may take until it answers.
    #[serde(with = "humantime_serde")]
    pub(crate) ready_within: Duration,
}

impl Default for UpConfig {
    fn default() -> Self {
        UpConfig { ready_within: Duration::from_secs(60) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commented_file_says_what_the_defaults_are() {
        let written: Config = toml::from_str(DEFAULT_FILE).unwrap();
        assert_eq!(toml::to_string(&written).unwrap(), toml::to_string(&Config::default()).unwrap());
    }

    #[test]
    fn the_commented_file_has_every_key() {
        let written: toml::Table = toml::from_str(DEFAULT_FILE).unwrap();
        let known = toml::Table::try_from(Config::default()).unwrap();
        for (table, keys) in &known {
            for key in keys.as_table().unwrap().keys() {
                assert!(written[table].as_table().unwrap().contains_key(key), "{table}.{key} is missing");
            }
        }
    }
}
