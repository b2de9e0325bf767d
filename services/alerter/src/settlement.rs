//! What became of money of which it was not known: as soon as a reversal or a query tells, the attempt's row does.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use faultline_proto::correction::v1::{Correction, CorrectionKind, CorrectionState};
use faultline_runtime::error::with_causes;
use faultline_store::{Change, Unsettled};
use tokio::time::sleep;

use crate::corrections::{Corrections, correction};
use crate::counts;
use crate::watch::Shared;

/// How often it is looked what was told.
const LOOK: Duration = Duration::from_secs(10);
/// How far back it is looked at the start, in milliseconds.
const RECALL_MS: i64 = DAY_MS;
/// How long a record may be on its way from a gateway into Kafka, usually; and the longest time, for which it is looked again once an hour.
const USUAL_WAY_MS: i64 = 2 * 60 * 1000;
const LONGEST_WAY_MS: i64 = 2 * HOUR_MS;
/// How much is looked at in one question, in milliseconds of receipt.
const STRETCH_MS: i64 = 10 * 60 * 1000;
/// What is received after this may not be in Kafka yet.
const ARRIVAL_MS: i64 = 5000;
/// How much older than the day itself outcomes are that are settled on it, in days.
const OLDEST_DAYS: i64 = 32;
/// How often it is said what is not settled.
const TELL_MS: i64 = 60 * 1000;
const HOUR_MS: i64 = 60 * 60 * 1000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Settles what is told, for ever. What cannot be done now is done the next time.
pub(crate) async fn settle(shared: &Shared) -> ! {
    let mut done = now_ms() - RECALL_MS;
    let mut told = 0;
    loop {
        sleep(LOOK).await;
        let until = now_ms() - ARRIVAL_MS;
        // What the classifiers did not come to yet would not be found, and not be looked for again.
        if !shared.progress.behind(until).await.is_ok_and(|behind| behind.is_empty()) {
            continue;
        }
        let way = if until / HOUR_MS > done / HOUR_MS { LONGEST_WAY_MS } else { USUAL_WAY_MS };
        match settle_between(shared, done - way, until).await {
            Ok(()) => done = until,
            Err(reason) => tracing::debug!(reason, "what became of money is written down later"),
        }
        if until - told > TELL_MS {
            match tell_unsettled(shared, until).await {
                Ok(()) => told = until,
                Err(reason) => tracing::debug!(reason, "it is said later what is not settled"),
            }
        }
    }
}

/// Says of how many outcomes it should be known by now whether money moved, and is not.
async fn tell_unsettled(shared: &Shared, now_ms: i64) -> Result<(), String> {
    let late = i64::try_from(shared.config.unsettled_after.as_millis()).unwrap_or(i64::MAX);
    let unsettled = shared.database.unsettled(&(now_ms - late - DAY_MS..now_ms - late)).await.map_err(said)?;
    let all: u64 = unsettled.iter().map(|tenant| tenant.outcomes).sum();
    for Unsettled { tenant, outcomes } in unsettled.iter().filter(|tenant| tenant.outcomes > 0) {
        tracing::debug!(tenant, outcomes, "neither a reversal nor a query has told what became of money");
    }
    counts::unsettled(all);
    Ok(())
}

/// Settles what is told by what was received within a time. Returns what was in the way.
async fn settle_between(shared: &Shared, mut from: i64, until: i64) -> Result<(), String> {
    while from < until {
        let stretch = from..until.min(from + STRETCH_MS);
        for tenant in shared.database.told(&stretch).await.map_err(said)? {
            let changes = shared.database.settling(&tenant, &stretch).await.map_err(said)?;
            if !changes.is_empty() {
                let some = changes.len();
                write(shared, &tenant, changes, until).await?;
                counts::settled(some);
            }
        }
        from = stretch.end;
    }
    Ok(())
}

/// Writes down what is settled, as the correction of a tenant's day.
async fn write(shared: &Shared, tenant: &str, changes: Vec<Change>, now_ms: i64) -> Result<(), String> {
    let _one_at_a_time = shared.correcting.lock().await;
    let corrections = Corrections::open(&shared.kafka, &shared.database).await.map_err(said)?;
    let day = now_ms / DAY_MS;
    let of_day = |known: &&Correction| {
        known.tenant == tenant && known.kind() == CorrectionKind::Settlement && known.until_time == Some(moment(day + 1))
    };
    let known = corrections.known().iter().find(of_day).cloned();
    let correction = known.unwrap_or_else(|| Correction {
        from_time: Some(moment(day - OLDEST_DAYS)),
        until_time: Some(moment(day + 1)),
        ..correction(tenant, CorrectionKind::Settlement, "settles what became of money, by reversals and queries of a day".into())
    });
    let mut corrector = corrections.make(correction).await.map_err(said)?;
    corrector.add(changes).await.map_err(said)?;
    corrector.end(CorrectionState::Finished).await.map(|_| ()).map_err(said)
}

pub(crate) fn said(error: impl std::error::Error) -> String {
    with_causes(&error)
}

/// The first moment of a day, by its number since 1970-01-01 UTC.
fn moment(day: i64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: day * DAY_MS / 1000, nanos: 0 }
}

pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
