//! Counts of a time of which there are no outcomes, and what came of the time since.

use std::ops::Range;
use std::time::Duration;

use clickhouse::Row;
use faultline_proto::verdict::v1::Cause;
use serde::Deserialize;

use crate::database::{Database, StoreError};
use crate::families::{RollupRow, of_time};

/// How long a question may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);

/// A count of a time of which there are no outcomes: a row of `rollup` that is marked as simulated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastCount {
    /// The family, by its name.
    pub family: &'static str,
    /// The slice, by its key.
    pub key: String,
    /// First second of a bucket, since 1970-01-01 UTC.
    pub bucket: u32,
    /// Class and stage.
    pub tag: String,
    /// Whose fault.
    pub cause: Cause,
    /// ISO 4217 code.
    pub currency: &'static str,
    /// Attempts.
    pub count: i64,
    /// Sum of what was attempted, in minor units.
    pub amount_minor: i64,
}

/// What there is of a tenant's past, in seconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// When something was counted for the first time.
    pub first_counted: Option<u32>,
    /// The last bucket that has simulated counts.
    pub last_simulated: Option<u32>,
}

impl Database {
    /// What there is of a tenant's past.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn past(&self, tenant: &str) -> Result<Past, StoreError> {
        #[derive(Row, Deserialize)]
        struct Found {
            first_counted: u32,
            last_simulated: u32,
        }
        // By when it was counted: an event may be weeks old when it is reported.
        let sql = "SELECT toUnixTimestamp(minIf(seen, NOT simulated)) AS first_counted, \
                          toUnixTimestamp(maxIf(bucket, simulated)) AS last_simulated \
                   FROM rollup WHERE tenant = ? AND family = 'fleet'";
        let query = self.asking().query(sql).bind(tenant);
        let found = self.answer("say what was counted", QUESTION_TIMEOUT, query.fetch_one::<Found>()).await?;
        let known = |moment: u32| (moment > 0).then_some(moment);
        Ok(Past { first_counted: known(found.first_counted), last_simulated: known(found.last_simulated) })
    }

    /// Adds counts to a tenant's past, all of them or none.
    ///
    /// # Errors
    /// When the server does not take them.
    pub async fn add_past(&self, tenant: &str, counts: &[PastCount]) -> Result<(), StoreError> {
        let rows = counts.iter().map(|count| RollupRow {
            tenant,
            family: count.family,
            key: count.key.as_str().into(),
            bucket: count.bucket,
            tag: &count.tag,
            cause: i8::try_from(i32::from(count.cause)).unwrap_or_default(),
            currency: count.currency,
            count: count.count,
            amount_minor: count.amount_minor,
            simulated: true,
        });
        let rows: Vec<RollupRow<'_>> = rows.collect();
        let added = RollupRow::block(&rows).insert(self.first().client().clone(), "rollup").await;
        added.map_err(self.failed("add to the past"))
    }

    /// How many attempts of a tenant ended by each cause, in buckets that begin within these seconds since 1970-01-01 UTC. Simulated counts are left out.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn causes(&self, tenant: &str, buckets: Range<u32>) -> Result<Vec<(Cause, i64)>, StoreError> {
        #[derive(Row, Deserialize)]
        struct Found {
            cause: i8,
            attempts: i64,
        }
        let sql = format!(
            "SELECT cause, sum(count) AS attempts FROM rollup \
             WHERE tenant = ? AND family = 'fleet' AND {} AND NOT simulated GROUP BY cause ORDER BY cause",
            of_time(&buckets)
        );
        let query = self.asking().query(&sql).bind(tenant);
        let found = self.answer("say how attempts ended", QUESTION_TIMEOUT, query.fetch_all::<Found>()).await?;
        Ok(found.into_iter().map(|row| (Cause::try_from(i32::from(row.cause)).unwrap_or(Cause::Unknown), row.attempts)).collect())
    }
}
