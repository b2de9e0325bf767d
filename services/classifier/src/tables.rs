//! What a worker asks of the store: [`Database`], or a twin in its tests.

use std::collections::HashSet;

use faultline_store::{
    BatchId, Database, Identity, OutcomeRow, SampleRow, SeenSpool, Settled, SpoolEvents, SpoolMark, StoreError, Uncounted,
};
use tokio::time::Instant;

/// The tables that batches end up in. [`Database`] says what each question means.
pub(crate) trait Tables {
    async fn high_water(&self, partition: u16, log: &str, before: u64) -> Result<Vec<SeenSpool>, StoreError>;
    async fn keep_high_water(&self, partition: u16, marks: Vec<SpoolMark>, appended_s: u32) -> Result<(), StoreError>;
    async fn uncounted(&self, partition: u16) -> Result<Vec<Uncounted>, StoreError>;
    async fn stored_events(&self, wanted: &[SpoolEvents<'_>], since_s: u32, as_of: (&str, u64)) -> Result<HashSet<Identity>, StoreError>;
    async fn deliver(&self, id: &BatchId<'_>, rows: &[OutcomeRow<'_>], since: Instant) -> Result<(), StoreError>;
    async fn settle(&self, id: &BatchId<'_>, rows: &[OutcomeRow<'_>]) -> Result<Settled, StoreError>;
    async fn keep_samples(&self, partition: u16, rows: &[SampleRow<'_>]) -> Result<(), StoreError>;
}

impl Tables for Database {
    async fn high_water(&self, partition: u16, log: &str, before: u64) -> Result<Vec<SeenSpool>, StoreError> {
        Database::high_water(self, partition, log, before).await
    }

    async fn keep_high_water(&self, partition: u16, marks: Vec<SpoolMark>, appended_s: u32) -> Result<(), StoreError> {
        Database::keep_high_water(self, partition, marks, appended_s).await
    }

    async fn uncounted(&self, partition: u16) -> Result<Vec<Uncounted>, StoreError> {
        Database::uncounted(self, partition).await
    }

    async fn stored_events(&self, wanted: &[SpoolEvents<'_>], since_s: u32, as_of: (&str, u64)) -> Result<HashSet<Identity>, StoreError> {
        Database::stored_events(self, wanted, since_s, as_of).await
    }

    async fn deliver(&self, id: &BatchId<'_>, rows: &[OutcomeRow<'_>], since: Instant) -> Result<(), StoreError> {
        Database::deliver(self, id, rows, since).await
    }

    async fn settle(&self, id: &BatchId<'_>, rows: &[OutcomeRow<'_>]) -> Result<Settled, StoreError> {
        Database::settle(self, id, rows).await
    }

    async fn keep_samples(&self, partition: u16, rows: &[SampleRow<'_>]) -> Result<(), StoreError> {
        Database::keep_samples(self, partition, rows).await
    }
}
