//! What every Faultline process shares: where its configuration comes from, how it says what it does and how it is, when it stops.

pub mod config;
pub mod error;
pub mod monitoring;
pub mod otlp;
pub mod readiness;
pub mod reload;
pub mod shutdown;
pub mod telemetry;
pub mod trace;
