//! The alerter's detector over what was counted, from one moment to another: what it would have said then. Nothing is written, and nobody is told.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use faultline_detect::{Change, Tick};
use faultline_store::{Database, StoreError};

use crate::calendar::{CalendarFileError, calendar};
use crate::config::AlerterConfig;
use crate::tenant::{Tenant, counted};
use crate::watch::{BUCKET_S, RECALL_S};

/// Most buckets that are asked for at once.
const MOST_BUCKETS: u32 = 60;

/// Why a past cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum BacktestError {
    /// The calendar is none.
    #[error("configuration key `alerter.calendar`")]
    Calendar(#[from] CalendarFileError),
    /// ClickHouse does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One tenant's detector, in the past.
pub struct Backtest<'a> {
    database: &'a Database,
    tenant: Tenant,
    ticks: BTreeMap<u32, HashMap<String, Tick>>,
    /// The bucket that is judged next, the one before which counts were asked for, and the end.
    next: u32,
    asked: u32,
    end: u32,
}

impl<'a> Backtest<'a> {
    /// Begins at a moment, in seconds since 1970-01-01 UTC, with what was counted in the hour before, the alerter's settings, and its calendar.
    ///
    /// # Errors
    /// When ClickHouse does not answer, or the calendar is none.
    pub async fn begin(
        database: &'a Database,
        config: &AlerterConfig,
        (tenant, time): (&str, Range<u32>),
    ) -> Result<Backtest<'a>, BacktestError> {
        let next = time.start - time.start % BUCKET_S;
        let watched = Tenant::new(tenant, (config.detection(), Arc::new(calendar(&config.calendar)?)));
        let mut backtest = Backtest { database, tenant: watched, ticks: BTreeMap::new(), next, asked: next, end: time.end };
        backtest.tenant.learn(next, database).await?;
        let mut recalled = next.saturating_sub(RECALL_S);
        while recalled < next {
            let last = (recalled + (MOST_BUCKETS - 1) * BUCKET_S).min(next - BUCKET_S);
            let mut ticks = counted(database, &(recalled..=last)).await?;
            while recalled <= last {
                backtest.tenant.recall(&tick(&mut ticks, tenant, recalled));
                recalled += BUCKET_S;
            }
        }
        Ok(backtest)
    }

    /// Judges the next ten seconds: their first second, and what changed. Nothing at the end.
    ///
    /// # Errors
    /// When ClickHouse does not answer.
    pub async fn step(&mut self) -> Result<Option<(u32, Vec<Change>)>, StoreError> {
        let bucket = self.next;
        // Ten seconds that are not over are not judged.
        if bucket + BUCKET_S > self.end {
            return Ok(None);
        }
        if bucket >= self.asked {
            let last = bucket + (MOST_BUCKETS - 1) * BUCKET_S;
            self.ticks = counted(self.database, &(bucket..=last)).await?;
            self.asked = last + BUCKET_S;
        }
        self.next += BUCKET_S;
        self.tenant.learn(bucket, self.database).await?;
        let tick = tick(&mut self.ticks, self.tenant.name(), bucket);
        self.tenant.observe(&tick);
        self.tenant.settle(self.database).await?;
        Ok(Some((bucket, self.tenant.changes())))
    }
}

fn tick(ticks: &mut BTreeMap<u32, HashMap<String, Tick>>, tenant: &str, bucket: u32) -> Tick {
    let of_bucket = ticks.remove(&bucket).and_then(|mut of_bucket| of_bucket.remove(tenant));
    of_bucket.unwrap_or(Tick { bucket, ..Tick::default() })
}
