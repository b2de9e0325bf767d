//! Local parts: real Kafka and real ClickHouse on one machine, as child processes of the process that wants them.
//!
//! ```text
//! Parts::install ──▶ LocalParts::start ──▶ (ready when they answer; the caller asks them) ──▶ LocalParts::stop
//!   once a machine     once a data directory: lock, ports, configuration, supervisor
//! ```
//!
//! This crate knows files and processes only. Whether Kafka and ClickHouse answer is asked by those who speak their protocols
//! (`faultline-stream`, `faultline-store`).

mod clickhouse;
mod cluster;
mod install;
mod kafka;
mod local;
mod parts;
mod progress;
mod supervisor;

pub use clickhouse::ClickHouseAccess;
pub use cluster::KafkaCluster;
pub use install::InstallError;
pub use kafka::{Entrance, NodePorts};
pub use local::{LocalConfig, LocalParts, StartError, Wanted};
pub use parts::Parts;
pub use supervisor::GaveUp;
