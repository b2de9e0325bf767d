//! How far counts reach, as who knows it tells those who look at them.

use clickhouse::Row;
use serde::Serialize;

use crate::block::insert_rows;
use crate::database::{Database, StoreError};

#[derive(Row, Serialize)]
struct Progress {
    counted_until: u32,
}

/// How far a partition is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Row, Serialize)]
pub struct Watermark {
    /// Partition of the outcomes topic.
    pub kafka_partition: u16,
    /// What Kafka took before this second since 1970-01-01 UTC is counted.
    pub appended_until: u32,
}

impl Database {
    /// Keeps that everything is counted that was completed before this second since 1970-01-01 UTC, and reported in time.
    ///
    /// # Errors
    /// When the server did not take it, as far as is known; it can be repeated.
    pub async fn keep_progress(&self, counted_until: u32) -> Result<(), StoreError> {
        let row = Progress { counted_until };
        let kept = insert_rows::<Progress>(self.first().client().clone(), "progress", std::iter::once(&row)).await;
        kept.map_err(self.failed("keep how far counts reach"))
    }

    /// Keeps how far partitions are counted.
    ///
    /// # Errors
    /// As [`Database::keep_progress`].
    pub async fn keep_watermarks(&self, watermarks: &[Watermark]) -> Result<(), StoreError> {
        let kept = insert_rows::<Watermark>(self.first().client().clone(), "watermarks", watermarks.iter()).await;
        kept.map_err(self.failed("keep how far partitions are counted"))
    }

    /// Until when everything is counted, as was kept last; nothing where nothing was kept.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn progress(&self) -> Result<Option<u32>, StoreError> {
        let query = self.looking().query("SELECT toUInt32(max(counted_until)) FROM progress");
        let until = self.look("say how far counts reach", query.fetch_one::<u32>()).await?;
        Ok((until > 0).then_some(until))
    }
}
