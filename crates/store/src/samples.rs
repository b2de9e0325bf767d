//! Health samples as they are stored.

use crate::block::Block;
use crate::database::{Database, StoreError};

/// A row of `health_samples`: what a terminal measured of itself at one moment. What each column means is in `migrations/0010_health.sql`; times are in
/// milliseconds since 1970-01-01 UTC.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "the schema documents its columns")]
pub struct SampleRow<'a> {
    pub tenant: &'a str,
    pub terminal: &'a str,
    pub spool: u64,
    pub sequence: u64,
    pub sampled_at: i64,
    pub received_at: i64,
    pub clock: i8,
    pub model: &'a str,
    pub firmware: &'a str,
    pub region: &'a str,
    pub access_network: u16,
    pub carrier: &'a str,
    pub battery_percent: Option<u8>,
    pub charging: Option<bool>,
    pub signal_dbm: Option<i16>,
    pub printer: u16,
    pub pin_pad: u16,
    pub reader_reads: Option<u32>,
    pub reader_failures: Option<u32>,
    pub reader_failed_sales: Option<u32>,
    pub fallbacks: Option<u32>,
    pub boots: Option<u32>,
    pub reconnects: Option<u32>,
    pub uptime_ms: Option<u64>,
    pub spool_depth: Option<u32>,
    pub spool_bytes: Option<u64>,
}

impl<'a> SampleRow<'a> {
    /// All of the table's columns.
    fn block<'r>(rows: &'r [SampleRow<'a>]) -> Block<'r> {
        Block::of(rows, |block| {
            block.words("tenant", |row| row.tenant);
            block.texts("terminal", |row| row.terminal);
            block.numbers("spool", |row| row.spool);
            block.numbers("sequence", |row| row.sequence);
            block.milliseconds("sampled_at", |row| row.sampled_at);
            block.milliseconds("received_at", |row| row.received_at);
            block.numbers("clock", |row| row.clock);
            block.words("model", |row| row.model);
            block.words("firmware", |row| row.firmware);
            block.words("region", |row| row.region);
            block.numbers("access_network", |row| row.access_network);
            block.words("carrier", |row| row.carrier);
            block.measured("battery_percent", |row| row.battery_percent);
            block.measured("charging", |row| row.charging);
            block.measured("signal_dbm", |row| row.signal_dbm);
            block.numbers("printer", |row| row.printer);
            block.numbers("pin_pad", |row| row.pin_pad);
            block.measured("reader_reads", |row| row.reader_reads);
            block.measured("reader_failures", |row| row.reader_failures);
            block.measured("reader_failed_sales", |row| row.reader_failed_sales);
            block.measured("fallbacks", |row| row.fallbacks);
            block.measured("boots", |row| row.boots);
            block.measured("reconnects", |row| row.reconnects);
            block.measured("uptime_ms", |row| row.uptime_ms);
            block.measured("spool_depth", |row| row.spool_depth);
            block.measured("spool_bytes", |row| row.spool_bytes);
        })
    }
}

impl Database {
    /// Stores health samples of terminals in a partition of the outcomes topic. Those that are stored already are the same rows.
    ///
    /// # Errors
    /// When the server did not take them, as far as is known; it can be repeated.
    pub async fn keep_samples(&self, partition: u16, rows: &[SampleRow<'_>]) -> Result<(), StoreError> {
        let server = self.shard(partition);
        let kept = SampleRow::block(rows).insert(server.client().clone(), "health_samples").await;
        kept.map_err(server.failed("store health samples"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrations::columns_of;

    #[test]
    fn every_column_of_the_table_is_written() {
        let (schema, _) = include_str!("../migrations/0010_health.sql").split_once("ENGINE").unwrap();
        assert_eq!(SampleRow::block(&[]).names(), columns_of(schema));
    }
}
