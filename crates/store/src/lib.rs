//! Faultline's ClickHouse: the schema and how it changes.

mod address;
mod database;
mod migrations;

pub use address::{AddressError, HttpUrl};
pub use database::{ClickHouseConfig, Database, StoreError};
pub use migrations::{HistoryError, Migrated};
