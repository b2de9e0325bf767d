//! How the counts of one slice went over time, and what is usual of them: for people who look at them.

use std::collections::BTreeMap;
use std::ops::Range;

use clickhouse::Row;
use faultline_proto::verdict::v1::Cause;
use serde::Deserialize;

use crate::database::{Database, StoreError};
use crate::families::{BUCKET_S, CountedSlice, FLEET, of_time};

const HOUR_S: u32 = 3600;
const WEEK_S: u32 = 7 * 24 * HOUR_S;
/// How many weeks before say what is usual.
const WEEKS: u32 = 4;
/// An hour of which less was counted says nothing about what is usual.
const LEAST_OBSERVED_S: u64 = 1800;
/// How long ago something was counted of a tenant that is still shown.
const LATELY_S: u32 = WEEK_S;

/// Whose outcomes are counted.
#[derive(Clone, Debug, PartialEq, Eq, Row, Deserialize)]
pub struct Counted {
    /// The tenant.
    pub tenant: String,
    /// End of the newest bucket in which something was counted, in seconds since 1970-01-01 UTC.
    pub until: u32,
}

/// What was counted of a slice in one step of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Row, Deserialize)]
pub struct StepCount {
    /// First second of the step, since 1970-01-01 UTC.
    pub begin: u32,
    /// By number of [`Cause`].
    cause: i8,
    /// How many attempts.
    pub attempts: u64,
}

impl StepCount {
    /// Whose fault it was.
    #[must_use]
    pub fn cause(&self) -> Cause {
        Cause::try_from(i32::from(self.cause)).unwrap_or(Cause::Unknown)
    }
}

/// How many attempts a slice has in a second, and how many of them are approved.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Attempts in a second.
    pub attempts: f64,
    /// Approved attempts in a second.
    pub approved: f64,
}

/// What is usual of a slice, by the same hour of the week in the four weeks before: the median of those that were watched.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UsualRates(BTreeMap<u32, Rate>);

impl UsualRates {
    /// What is usual at this second since 1970-01-01 UTC: between the middles of two hours, what lies between them. Nothing where the hour was not
    /// watched in any of the weeks.
    #[must_use]
    pub fn at(&self, second: u32) -> Option<Rate> {
        let hour = second - second % HOUR_S;
        let own = self.0.get(&hour)?;
        let into = f64::from(second % HOUR_S) / f64::from(HOUR_S) - 0.5;
        let neighbour = if into < 0.0 { hour.checked_sub(HOUR_S) } else { hour.checked_add(HOUR_S) };
        let other = neighbour.and_then(|hour| self.0.get(&hour)).unwrap_or(own);
        let between = |own: f64, other: f64| own + (other - own) * into.abs();
        Some(Rate { attempts: between(own.attempts, other.attempts), approved: between(own.approved, other.approved) })
    }

    fn of(hours: &[UsualHour], wanted: &Range<u32>) -> UsualRates {
        // An hour between two others in which somebody watched was watched whole, however little came in it.
        let is_known = |begin: Option<u32>| begin.is_some_and(|begin| hours.iter().any(|hour| hour.begin == begin && hour.observed_s > 0));
        let is_amid = |hour: &UsualHour| is_known(hour.begin.checked_sub(HOUR_S)) && is_known(hour.begin.checked_add(HOUR_S));
        let whole =
            |hour: &UsualHour| if is_amid(hour) { UsualHour { observed_s: hour.observed_s.max(HOUR_S.into()), ..*hour } } else { *hour };
        let watched = hours.iter().map(whole).filter(|hour| hour.observed_s >= LEAST_OBSERVED_S);
        let watched: BTreeMap<u32, Rate> = watched.map(|hour| (hour.begin, hour.rate())).collect();
        let first = wanted.start - wanted.start % HOUR_S;
        let usual = (first..wanted.end).step_by(HOUR_S as usize).filter_map(|hour| {
            let weeks: Vec<Rate> = (1..=WEEKS).filter_map(|week| watched.get(&hour.checked_sub(week * WEEK_S)?).copied()).collect();
            let attempts = median(weeks.iter().map(|rate| rate.attempts).collect())?;
            let approved = median(weeks.iter().map(|rate| rate.approved).collect())?;
            Some((hour, Rate { attempts, approved }))
        });
        UsualRates(usual.collect())
    }
}

/// An hour of one of the weeks before.
#[derive(Clone, Copy, Debug, Row, Deserialize)]
struct UsualHour {
    begin: u32,
    attempts: u64,
    approved: u64,
    /// Seconds of it in which the fleet was watched.
    observed_s: u64,
}

impl UsualHour {
    #[expect(clippy::cast_precision_loss, reason = "counts of an hour")]
    fn rate(&self) -> Rate {
        let seconds = self.observed_s as f64;
        Rate { attempts: self.attempts as f64 / seconds, approved: self.approved as f64 / seconds }
    }
}

/// The middle of some values.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    Some(f64::midpoint(*values.get(low)?, *values.get(high)?))
}

impl Database {
    /// Whether anything was ever counted of a tenant.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn knows_tenant(&self, tenant: &str) -> Result<bool, StoreError> {
        let query = self.looking().query("SELECT count() FROM (SELECT 1 FROM rollup WHERE tenant = ? LIMIT 1)").bind(tenant);
        Ok(self.look("say whether a tenant is known", query.fetch_one::<u64>()).await? > 0)
    }

    /// Whose outcomes were counted in the last week, as of this second since 1970-01-01 UTC, in order of their names; of one tenant, where one is named.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn counted(&self, tenant: Option<&str>, now: u32) -> Result<Vec<Counted>, StoreError> {
        let of_tenant = if tenant.is_some() { "tenant = ? AND" } else { "" };
        let sql = format!(
            "SELECT tenant, toUInt32(max(bucket) + {BUCKET_S}) AS until FROM rollup WHERE {of_tenant} family = '{FLEET}' \
             AND {} AND NOT simulated GROUP BY tenant ORDER BY tenant",
            of_time(&(now.saturating_sub(LATELY_S)..now.saturating_add(1)))
        );
        let query = tenant.iter().fold(self.looking().query(&sql), |query, tenant| query.bind(tenant));
        self.look("say whose outcomes are counted", query.fetch_all::<Counted>()).await
    }

    /// What was counted of a slice in some time (seconds since 1970-01-01 UTC), by steps of so many seconds that begin where their number divides. A
    /// step without attempts of a cause is left out; what was simulated is too.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn series(
        &self,
        (tenant, slice): (&str, &CountedSlice),
        time: &Range<u32>,
        step_s: u32,
    ) -> Result<Vec<StepCount>, StoreError> {
        let sql = format!(
            "SELECT toUInt32(intDiv(toUnixTimestamp(bucket), ?) * ?) AS begin, cause, toUInt64(sum(count)) AS attempts FROM rollup \
             WHERE tenant = ? AND family = ? AND key = ? AND {} \
             AND NOT simulated GROUP BY begin, cause HAVING sum(count) > 0 ORDER BY begin, cause",
            of_time(time)
        );
        let query = self.looking().query(&sql).bind(step_s).bind(step_s).bind(tenant).bind(slice.family).bind(&slice.key);
        self.look("say what was counted", query.fetch_all::<StepCount>()).await
    }

    /// What is usual of a slice in some time (seconds since 1970-01-01 UTC). What was simulated counts.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn usual_rates(&self, (tenant, slice): (&str, &CountedSlice), time: &Range<u32>) -> Result<UsualRates, StoreError> {
        // The hours beside it too, since what is usual changes between the middles of hours.
        let wanted = (time.start - time.start % HOUR_S).saturating_sub(HOUR_S)..time.end.next_multiple_of(HOUR_S).saturating_add(HOUR_S);
        let weeks = (1..=WEEKS).map(|week| (wanted.start.saturating_sub(week * WEEK_S), wanted.end.saturating_sub(week * WEEK_S)));
        let ranges: Vec<String> = weeks.map(|(begin, end)| of_time(&(begin..end))).collect();
        // The hours of the fleet say whether anybody watched; the slice may have no attempts in them.
        let sql = format!(
            "SELECT toUnixTimestamp(toStartOfHour(bucket)) AS begin, \
             toUInt64(greatest(sumIf(count, family = ? AND key = ?), 0)) AS attempts, \
             toUInt64(greatest(sumIf(count, family = ? AND key = ? AND cause = 'approved'), 0)) AS approved, \
             uniqExactIf(begin, simulated AND family = '{FLEET}') * 3600 \
             + uniqExactIf(toStartOfFiveMinutes(bucket), NOT simulated AND family = '{FLEET}') * 300 AS observed_s \
             FROM rollup WHERE tenant = ? AND family IN ('{FLEET}', ?) AND key IN ('', ?) AND ({}) GROUP BY begin",
            ranges.join(" OR ")
        );
        let CountedSlice { family, key } = slice;
        let query = self.looking().query(&sql).bind(family).bind(key).bind(family).bind(key).bind(tenant).bind(family).bind(key);
        let hours = self.look("say what is usual", query.fetch_all::<UsualHour>()).await?;
        Ok(UsualRates::of(&hours, &wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Monday.
    const MONDAY: u32 = 1_790_553_600;

    fn hour(begin: u32, attempts: u64) -> UsualHour {
        UsualHour { begin, attempts, approved: attempts / 2, observed_s: 3600 }
    }

    #[test]
    fn what_is_usual_is_the_middle_of_the_weeks_that_were_watched() {
        let at_noon = MONDAY + 12 * HOUR_S;
        let weeks = |attempts: [u64; 4]| -> Vec<UsualHour> {
            attempts.iter().zip(1..).map(|(attempts, week)| hour(at_noon - week * WEEK_S, *attempts)).collect()
        };
        let usual = |hours: &[UsualHour]| UsualRates::of(hours, &(at_noon..at_noon + HOUR_S)).at(at_noon + 1800);
        // One was a holiday.
        assert_eq!(usual(&weeks([3600, 3600, 36, 3600])), Some(Rate { attempts: 1.0, approved: 0.5 }));
        // Two were not watched, or hardly.
        let mut two = weeks([3600, 7200, 0, 0]);
        two[2].observed_s = 0;
        two[3].observed_s = 1500;
        assert_eq!(usual(&two).map(|rate| rate.attempts), Some(1.5));
        assert_eq!(usual(&[]), None);
        // Little came, in a few five minutes of it, and something before and after it.
        let quiet: Vec<UsualHour> = [hour(at_noon - WEEK_S - HOUR_S, 6), hour(at_noon - WEEK_S, 6), hour(at_noon - WEEK_S + HOUR_S, 6)]
            .map(|hour| UsualHour { observed_s: 900, ..hour })
            .into();
        assert_eq!(usual(&quiet).map(|rate| rate.attempts * 3600.0), Some(6.0));
        // Watched, and nothing came.
        assert_eq!(usual(&weeks([0; 4])), Some(Rate::default()));
    }

    #[test]
    fn between_the_middles_of_two_hours_it_is_what_lies_between() {
        let begin = MONDAY - WEEK_S;
        let hours = [hour(begin, 3600), hour(begin + HOUR_S, 7200)];
        let usual = UsualRates::of(&hours, &(MONDAY..MONDAY + 2 * HOUR_S));
        let at = |second: u32| usual.at(MONDAY + second).map(|rate| rate.attempts);
        assert_eq!((at(1800), at(3600), at(5400)), (Some(1.0), Some(1.5), Some(2.0)));
        // Beyond the first and the last hour there is nothing to lie between.
        assert_eq!((at(0), at(7199), at(7200)), (Some(1.0), Some(2.0), None));
    }

    #[test]
    fn the_beginning_of_time_has_no_weeks_before_it() {
        assert_eq!(UsualRates::of(&[], &(0..HOUR_S)).at(5), None);
    }
}
