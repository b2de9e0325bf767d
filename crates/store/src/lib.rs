//! Faultline's ClickHouse: the schema and how it changes, how batches get into it once, and what is asked of it.

mod address;
mod database;
mod delivery;
mod families;
mod high_water;
mod migrations;
mod outcomes;
mod past;

pub use address::{AddressError, HttpUrl};
pub use database::{ClickHouseConfig, Database, StoreError};
pub use delivery::{BatchId, Settled};
pub use families::{Dimensions, families};
pub use high_water::{RECEIPT_SLACK_S, SeenSpool, SpoolMark};
pub use migrations::{HistoryError, Migrated};
pub use outcomes::OutcomeRow;
pub use past::{Past, PastCount};
