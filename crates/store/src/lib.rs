//! Faultline's ClickHouse: the schema and how it changes.

mod database;
mod migrations;

pub use database::{ClickHouseConfig, Database, StoreError};
pub use migrations::Migrated;
pub use secrecy::ExposeSecret;
