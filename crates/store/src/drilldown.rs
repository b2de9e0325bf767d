//! The rows behind an incident: what failed, by all values, and what did not, as a sample; and what the families have of the same time and of the time before.
//!
//! What failed is read exactly; of what happens now, out of the rows that are kept for this (`rows`). Of the others a sample is; of a slice that has few all are, out of `outcomes`.

pub(crate) mod rows;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use clickhouse::{Client, Row};
use serde::Deserialize;

use crate::database::{Database, StoreError};
use crate::explanation::{conditions, literal};
use crate::families::{DIMENSIONS, LEDGER, Slice, completed_in, entry_mode, of_time};
use rows::{KEPT_ONE_IN, in_sample};

/// Where values are not told apart.
const OTHER: &str = "\u{1}";
/// How long a question may take. Nobody waits for it: what is not known in this time is asked again later.
const LIMIT: Duration = Duration::from_secs(2);
/// Up to so many attempts, all are read; of more, so many are, about.
const ALL: u64 = 20_000;
const SAMPLED: u64 = 250_000;
/// At least one row in so many is read.
const LEAST_SAMPLED: u32 = 65_536;

/// Failures of a class in a part of the fleet, in a time.
#[derive(Clone, Debug)]
pub struct DrillDown<'a> {
    /// Whose fleet it is.
    pub tenant: &'a str,
    /// The part.
    pub slice: &'a Slice,
    /// Class of failures: `issuer_down`.
    pub class: &'a str,
    /// The time, in seconds since 1970-01-01 UTC.
    pub time: Range<u32>,
}

impl DrillDown<'_> {
    /// How the tags of its class begin.
    fn tag(&self) -> String {
        format!("{}/", self.class)
    }
}

/// What was counted of a slice of a family in a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Row, Deserialize)]
pub struct CountedMargin {
    /// How the fleet is cut.
    pub family: String,
    /// The slice.
    pub key: String,
    /// Attempts.
    pub attempts: u64,
    /// Of these, those that failed in the class.
    pub failed: u64,
}

/// Attempts that have the same values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedCell {
    /// Values by name of the column; `\u{1}` where they are not told apart.
    pub values: [(&'static str, Arc<str>); DIMENSIONS.len()],
    /// Those that failed in the class.
    pub failed: u64,
    /// The others that are in the sample.
    pub others: u64,
}

/// Which attempts are counted apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldApart {
    /// By column, the values that are told apart, 255 at most; of entry modes all are.
    pub values: Vec<(&'static str, Vec<Arc<str>>)>,
    /// Of attempts that did not fail so, one in so many is counted.
    pub one_in: u32,
}

/// Of how many attempts one is to be read, so that a sample of this many is not too large: a power of 2. Where it is not all, it is none but those that are kept.
#[must_use]
pub fn one_in(attempts: u64) -> u32 {
    if attempts <= ALL {
        return 1;
    }
    let fewest = u32::try_from(attempts.div_ceil(SAMPLED)).unwrap_or(LEAST_SAMPLED);
    fewest.clamp(KEPT_ONE_IN, LEAST_SAMPLED).next_power_of_two()
}

/// A cell as ClickHouse says it: of each column, in their order, the place of its value among those that are told apart, from 1 on; 0 for all others. An entry mode is its own number.
type Places = (u8, u8, u16, u8, u8, u8, u8, u8, u8);

impl ToldApart {
    /// Of a column, the values that are told apart.
    fn of(&self, column: &str) -> &[Arc<str>] {
        self.values.iter().find(|(name, _)| *name == column).map_or(&[], |(_, values)| values)
    }

    /// The place of a row's value, as a column of that name; and the values that are to be bound in it.
    fn place(&self, column: &str) -> (String, Option<Vec<&str>>) {
        match self.of(column) {
            _ if column == "entry_mode" => ("entry_mode AS p_entry_mode".into(), None),
            [] => (format!("toUInt8(0) AS p_{column}"), None),
            values => {
                let (places, values): (Vec<String>, Vec<&str>) =
                    (1..=u8::MAX).zip(values).map(|(place, value)| (place.to_string(), value.as_ref())).unzip();
                (format!("transform({column}, ?, [{}], toUInt8(0)) AS p_{column}", places.join(", ")), Some(values))
            }
        }
    }
}

/// By column, the values that are in these places among those that are told apart.
fn values(
    told: &[(&'static str, &[Arc<str>]); DIMENSIONS.len()],
    places: Places,
    other: &Arc<str>,
) -> [(&'static str, Arc<str>); DIMENSIONS.len()] {
    let (acquirer, carrier, mode, firmware, host, issuer, merchant_group, model, region) = places;
    let mut places = [acquirer, carrier, 0, firmware, host, issuer, merchant_group, model, region].into_iter();
    told.map(|(column, values)| {
        let value = places.next().and_then(|place| values.get(usize::from(place.checked_sub(1)?)));
        (column, if column == "entry_mode" { entry_mode(mode).into() } else { Arc::clone(value.unwrap_or(other)) })
    })
}

impl Database {
    /// What was counted of every slice of every family in a time, in seconds since 1970-01-01 UTC: attempts, and those that failed in a class (`issuer_down`).
    ///
    /// # Errors
    /// When the server does not answer in two seconds.
    pub async fn margins(&self, (tenant, class): (&str, &str), time: &Range<u32>) -> Result<Vec<CountedMargin>, StoreError> {
        let sql = format!(
            "SELECT family, key, toUInt64(greatest(sum(count), 0)) AS attempts, toUInt64(greatest(sumIf(count, startsWith(tag, ?)), 0)) AS failed FROM rollup \
             WHERE tenant = ? AND family != '{LEDGER}' AND NOT simulated AND {} GROUP BY family, key",
            of_time(time),
        );
        let query = self.drilling().query(&sql).bind(format!("{class}/")).bind(tenant);
        self.answer("say what was counted of an incident", LIMIT, query.fetch_all::<CountedMargin>()).await
    }

    /// What failed in the class in the slice, and a sample of what did not, by all values that are told apart. Rows count as they stand.
    ///
    /// # Errors
    /// When the server does not answer in two seconds.
    pub async fn failed_cells(&self, drill: &DrillDown<'_>, told: &ToldApart) -> Result<Vec<FailedCell>, StoreError> {
        #[derive(Row, Deserialize)]
        struct Found {
            at: Places,
            failed: u64,
            others: u64,
        }
        // By their places, which are small: values are long, and take twice the time.
        let (places, bound): (Vec<String>, Vec<Option<Vec<&str>>>) = DIMENSIONS.iter().map(|column| told.place(column)).unzip();
        let (class, conditions) = (drill.tag(), literal(&conditions(drill.slice)));
        let failures = self.failures();
        let sampled = if told.one_in >= KEPT_ONE_IN { failures } else { "outcomes" };
        let keys = DIMENSIONS.map(|column| format!("p_{column}")).join(", ");
        let sample = if told.one_in > 1 { format!(" AND {}", in_sample(told.one_in)) } else { String::new() };
        let (dimensions, within) = (DIMENSIONS.join(", "), format!("tenant = ? AND {}{conditions}", completed_in(&drill.time)));
        let sql = format!(
            "SELECT ({keys}) AS at, toUInt64(greatest(sumIf(sign, is_failed), 0)) AS failed, toUInt64(greatest(sumIf(sign, NOT is_failed), 0)) AS others \
             FROM (SELECT {}, sign, is_failed FROM \
                   (SELECT {dimensions}, sign, true AS is_failed FROM {failures} WHERE {within} AND startsWith(tag, ?) UNION ALL \
                    SELECT {dimensions}, sign, false AS is_failed FROM {sampled} WHERE {within} AND NOT startsWith(tag, ?){sample})) \
             GROUP BY {keys} HAVING failed > 0 OR others > 0",
            places.join(", ")
        );
        let mut query = self.drilling().query(&sql);
        for values in bound.into_iter().flatten() {
            query = query.bind(values);
        }
        query = query.bind(drill.tenant).bind(&class).bind(drill.tenant).bind(&class);
        let mut found = self.answer("say what an incident's failures have in common", LIMIT, query.fetch_all::<Found>()).await?;
        // There may be hundreds of thousands, and to put them in order takes the server longer than to find them.
        found.sort_unstable_by_key(|found| found.at);
        let (told, other) = (DIMENSIONS.map(|column| (column, told.of(column))), OTHER.into());
        let cell = |Found { at, failed, others }| FailedCell { values: values(&told, at, &other), failed, others };
        Ok(found.into_iter().map(cell).collect())
    }

    /// A client for such questions: none may hold up the server for longer than anybody waits.
    fn drilling(&self) -> Client {
        self.looking().with_setting("max_execution_time", LIMIT.as_secs().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_as_small_as_it_has_to_be() {
        assert_eq!([0, 20_000, 20_001, 2_000_001, 6_000_000, u64::MAX].map(one_in), [1, 1, 8, 16, 32, 65_536]);
    }
}
