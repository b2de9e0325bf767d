//! What every Faultline process shares: where its configuration comes from, how it says what it does, when it stops.

pub mod config;
pub mod error;
pub mod readiness;
pub mod shutdown;
pub mod telemetry;
