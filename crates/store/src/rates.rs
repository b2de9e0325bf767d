//! What detection asks: what was counted lately, what is usual at an hour of the week, and what exactly failed.

use std::collections::{BTreeMap, HashMap};
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use clickhouse::Row;
use foldhash::fast::RandomState;
use serde::Deserialize;

use crate::database::{Database, StoreError};
use crate::explanation::quoted;
use crate::families::{DIMENSIONS, DimensionValues, LEDGER, Texts, completed_in, of_time};

/// How long the question of what was counted lately may take.
const COUNTS_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the question of what is usual may take.
const USUAL_TIMEOUT: Duration = Duration::from_secs(300);
const HOUR_S: u32 = 3600;

/// What was counted of a slice in a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Row, Deserialize)]
pub struct SliceCounts {
    /// Whose fleet it is.
    pub tenant: String,
    /// The family.
    pub family: String,
    /// The slice, by its key.
    pub key: String,
    /// The bucket's first second, since 1970-01-01 UTC.
    pub begin: u32,
    /// Attempts by class, in the order in which classes were asked for, and those of all others. What was corrected in it may leave less than none.
    pub attempts: Vec<i64>,
}

impl SliceCounts {
    /// Which slice it is.
    #[must_use]
    pub fn slice(&self) -> (&str, &str, &str) {
        (&self.tenant, &self.family, &self.key)
    }
}

/// An hour that says what is usual at another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LikeHour {
    /// Its first second, since 1970-01-01 UTC.
    pub begin: u32,
    /// Whether it is of a day of the same kind; otherwise it is only the same hour of the day.
    pub is_same_day: bool,
}

/// What is usual at an hour, by what was counted in the weeks before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usual {
    /// By slice and class.
    pub counts: Vec<UsualCount>,
    /// What is known of the fleet's approvals.
    pub observed: Vec<UsualApprovals>,
}

/// Attempts of a slice that ended in one class.
#[derive(Clone, Debug, PartialEq, Eq, Row, Deserialize)]
pub struct UsualCount {
    /// The family.
    pub family: String,
    /// The slice, by its key.
    pub key: String,
    /// First half of the tag.
    pub class: String,
    /// How many at this hour, on days of the same kind.
    pub at_hour: u64,
    /// How many from an hour before to an hour after, on all days.
    pub around: u64,
    /// How many in the hour before, this one, and the next; on days of the same kind.
    pub on_day: (u64, u64, u64),
    /// The same on all days.
    pub on_days: (u64, u64, u64),
}

/// Approvals of the fleet at an hour.
#[derive(Clone, Debug, PartialEq, Eq, Row, Deserialize)]
pub struct UsualApprovals {
    /// 0: the hour before; 1: the hour; 2: the hour after.
    pub hour: u8,
    /// Whether it was on a day of the same kind.
    pub same_day: bool,
    /// How many.
    pub approved: u64,
    /// In how many seconds; a time of five minutes in which nothing was counted is left out.
    pub seconds: u64,
}

/// Failures that have all their values in common.
#[derive(Clone, Debug, PartialEq)]
pub struct FailingLeaf {
    /// By name of the column, the value; in families, the values are the same.
    pub values: [(&'static str, Arc<str>); DIMENSIONS.len()],
    /// What failed, by bucket and class.
    pub failed: Vec<Failed>,
}

/// Failures of one class in one bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Failed {
    /// First second of the bucket, since 1970-01-01 UTC.
    pub bucket: u32,
    /// The class, by its place among those that were asked for.
    pub class: usize,
    /// How many.
    pub failures: u64,
    /// How many, where those of one shop (or terminal, where no shop is named) count as one and a half at most, in all buckets together: so that four are of
    /// three shops at least.
    pub witnessed: f64,
}

impl LikeHour {
    /// From an hour before it to an hour after it, but no longer than until `now`.
    fn time(&self, now: u32) -> Range<u32> {
        self.begin.saturating_sub(HOUR_S)..self.begin.saturating_add(2 * HOUR_S).min(now)
    }

    /// The hour before it, itself, and the next: their first seconds, and numbers of which of them each is, four more where the day is of the same kind.
    fn three(&self) -> [(u32, u8); 3] {
        let day = if self.is_same_day { 4 } else { 0 };
        [(self.begin.saturating_sub(HOUR_S), day), (self.begin, day + 1), (self.begin.saturating_add(HOUR_S), day + 2)]
    }
}

impl Database {
    /// What was counted in these classes (`issuer_down`), at most 255, in the buckets from one to another, by their first seconds since 1970-01-01 UTC; in order of tenants, slices, and
    /// buckets. Simulated counts are left out.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn counts(&self, buckets: &RangeInclusive<u32>, classes: &[&str]) -> Result<Vec<SliceCounts>, StoreError> {
        let attempts: Vec<String> = (0..=classes.len()).map(|place| format!("sumIf(count, place = {place})")).collect();
        let sql = format!(
            "SELECT tenant, family, key, toUnixTimestamp(bucket) AS begin, [{}] AS attempts FROM \
             (SELECT tenant, family, key, bucket, count, {} AS place FROM rollup WHERE {} AND family != '{LEDGER}' AND NOT simulated) \
             GROUP BY tenant, family, key, begin",
            attempts.join(", "),
            place_of_class(classes),
            of_time(&(*buckets.start()..buckets.end() + 1))
        );
        let counts = self.answer("say what was counted", COUNTS_TIMEOUT, self.asking().query(&sql).fetch_all::<SliceCounts>());
        let mut counts = counts.await?;
        // To put them in order would take the server longer than to find them.
        counts.sort_unstable_by(|one, other| (one.slice(), one.begin).cmp(&(other.slice(), other.begin)));
        Ok(counts)
    }

    /// What is usual for a tenant at an hour that is like these, as far as something was counted until `now` (seconds since 1970-01-01 UTC). What was simulated
    /// counts. What incidents are of is left out while they last, for a day at most: after that it is usual.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn usual(&self, tenant: &str, like: &[LikeHour], now: u32) -> Result<Usual, StoreError> {
        // Which of three hours of the day it is, and four more where it is on a day of the same kind.
        let (hours, which): (Vec<u32>, Vec<u8>) = like.iter().flat_map(LikeHour::three).unzip();
        let since = hours.iter().min().copied().unwrap_or(now);
        let hours_of_days = "WITH transform(toUnixTimestamp(toStartOfHour(bucket)), ?, ?, toUInt8(3)) AS which, \
                     toUInt8(which % 4) AS hour, which >= 4 AS same_day, \
                     splitByChar('/', tag)[1] AS class, \
                     (SELECT groupArray((began, least(if(closed > began, closed, updated), began + 86400), signals)) FROM \
                        (SELECT began, closed, updated, signals FROM incidents WHERE tenant = ? AND updated >= fromUnixTimestamp(?) \
                         ORDER BY revision DESC LIMIT 1 BY incident)) AS faults";
        let of_hours: Vec<String> = like.iter().map(|like| format!("({})", of_time(&like.time(now)))).collect();
        let of_these = format!("tenant = ? AND ({}) AND hour <= 2", of_hours.join(" OR "));
        // It is asked minutes ahead, and what is asked of the last ten seconds meanwhile is to be answered at once.
        let patient = self.patient();
        let ask = |sql: &str| patient.query(sql).bind(&hours).bind(&which).bind(tenant).bind(since).bind(tenant);
        let by_hour =
            |days: &str| [0, 1, 2].map(|hour| format!("toUInt64(greatest(sumIf(count, hour = {hour} AND {days}), 0))")).join(", ");
        let counts = format!(
            "{hours_of_days} SELECT family, key, class, \
             toUInt64(greatest(sumIf(count, hour = 1 AND same_day), 0)) AS at_hour, toUInt64(greatest(sum(count), 0)) AS around, \
             ({}) AS on_day, ({}) AS on_days \
             FROM rollup WHERE {of_these} AND family != '{LEDGER}' \
             AND (simulated OR NOT arrayExists(fault -> bucket >= fault.1 AND bucket < fault.2 AND has(fault.3, class), faults)) \
             GROUP BY family, key, class",
            by_hour("same_day"),
            by_hour("1")
        );
        let counts = self.answer("say what is usual", USUAL_TIMEOUT, ask(&counts).fetch_all::<UsualCount>()).await?;
        let observed = format!(
            "{hours_of_days} SELECT hour, same_day, toUInt64(greatest(sumIf(count, startsWith(tag, 'approved/')), 0)) AS approved, \
             uniqExactIf(toStartOfHour(bucket), simulated) * 3600 + uniqExactIf(toStartOfFiveMinutes(bucket), NOT simulated) * 300 AS seconds \
             FROM rollup WHERE {of_these} AND family = 'fleet' GROUP BY hour, same_day"
        );
        let observed = self.answer("say what is usual", USUAL_TIMEOUT, ask(&observed).fetch_all::<UsualApprovals>()).await?;
        Ok(Usual { counts, observed })
    }

    /// What failed in these classes, at most 255, in the buckets from one to another.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn failing(&self, tenant: &str, buckets: &RangeInclusive<u32>, classes: &[&str]) -> Result<Vec<FailingLeaf>, StoreError> {
        #[derive(Row, Deserialize)]
        struct Found<'a> {
            #[serde(borrow)]
            at: DimensionValues<'a>,
            rows: Vec<FailedRow>,
        }
        if classes.is_empty() {
            return Ok(Vec::new());
        }
        let dimensions = DIMENSIONS.join(", ");
        // By their hashes, leaves are grouped in half the time: a failing bank has hundreds of thousands of them in five minutes.
        let any = DIMENSIONS.map(|column| format!("any({column})")).join(", ");
        let is_of_class: Vec<String> = classes.iter().map(|class| format!("startsWith(tag, {})", quoted(&format!("{class}/")))).collect();
        let sql = format!(
            "SELECT ({any}) AS at, groupArray((bucket, class, sign, witness)) AS rows FROM \
             (SELECT {dimensions}, cityHash64({dimensions}) AS leaf, toUnixTimestamp(toStartOfInterval(completed_at, toIntervalSecond(10))) AS bucket, \
              {} AS class, sign, cityHash64(if(store = '', terminal, concat(merchant, ' ', store)), class) AS witness \
              FROM {} WHERE tenant = ? AND {} AND ({})) GROUP BY leaf",
            place_of_class(classes),
            self.failures(),
            completed_in(&(*buckets.start()..buckets.end() + 10)),
            is_of_class.join(" OR ")
        );
        let query = self.asking().query(&sql).bind(tenant);
        let (mut found, mut texts, mut witnesses) = (Vec::new(), Texts::default(), Witnesses::default());
        self.answer("say what failed", COUNTS_TIMEOUT, async {
            let mut leaves = query.fetch::<Found<'_>>()?;
            while let Some(Found { at, rows }) = leaves.next().await? {
                for (_, _, sign, witness) in &rows {
                    *witnesses.entry(*witness).or_default() += i64::from(*sign);
                }
                found.push((texts.by_name(at), rows));
            }
            Ok(())
        })
        .await?;
        let leaves = found.into_iter().map(|(values, rows)| FailingLeaf { values, failed: failed(&rows, &witnesses) });
        Ok(leaves.filter(|leaf| !leaf.failed.is_empty()).collect())
    }
}

/// An expression in SQL: the place of a tag's class among some, or the one behind them.
fn place_of_class(classes: &[&str]) -> String {
    let names: Vec<String> = classes.iter().map(|class| quoted(class)).collect();
    let places: Vec<String> = (0..classes.len()).map(|place| place.to_string()).collect();
    format!("toUInt8(transform(splitByChar('/', tag)[1], [{}], [{}], {}))", names.join(", "), places.join(", "), classes.len())
}

/// Bucket, class, sign, and a hash of the shop and the class, of a row that failed.
type FailedRow = (u32, u8, i8, u64);

/// Failures of a class by shop.
type Witnesses = HashMap<u64, i64, RandomState>;

/// Rows of a leaf by bucket and class. Those of a verdict that was corrected take each other away; a shop with many is evidence of one and a half.
#[expect(clippy::cast_precision_loss, reason = "failures of a shop within an hour")]
fn failed(rows: &[FailedRow], witnesses: &Witnesses) -> Vec<Failed> {
    let mut sums: BTreeMap<(u32, u8), (i64, f64)> = BTreeMap::new();
    for (bucket, class, sign, witness) in rows {
        let Some(of_witness) = witnesses.get(witness).filter(|failures| **failures > 0) else { continue };
        let (failures, witnessed) = sums.entry((*bucket, *class)).or_default();
        *failures += i64::from(*sign);
        *witnessed += f64::from(*sign) * (1.5 / *of_witness as f64).min(1.0);
    }
    let sums = sums.into_iter().filter_map(|((bucket, class), (failures, witnessed))| {
        let failures = u64::try_from(failures).ok().filter(|failures| *failures > 0)?;
        Some(Failed { bucket, class: class.into(), failures, witnessed })
    });
    sums.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_corrected_did_not_fail_so() {
        let rows = [(10, 0, 1, 7), (10, 0, 1, 8), (20, 1, 1, 9), (10, 0, 1, 7), (10, 0, -1, 7), (30, 0, 1, 5), (30, 0, -1, 5)];
        // Elsewhere one shop failed once more, and another was corrected whole.
        let witnesses = Witnesses::from_iter([(7, 2), (8, 1), (9, 1), (5, 0)]);
        let expected =
            [Failed { bucket: 10, class: 0, failures: 2, witnessed: 1.75 }, Failed { bucket: 20, class: 1, failures: 1, witnessed: 1.0 }];
        assert_eq!(failed(&rows, &witnesses), expected);
    }
}
