//! The rows behind an incident: what failed, by all values, and what did not, as a sample; and what the families have of the same time and of the time before.
//!
//! Rows are found by their time. Those of the class that failed are read exactly. Of the others, where there are many, one in so many is: those whose moment of completion and sequence have a hash
//! that is divided by that number, so that the same rows are read whenever it is asked, and a terminal is in the sample with some of its attempts, not with all or none. What failed, and every eighth
//! attempt, ClickHouse has apart.

use std::ops::Range;
use std::time::Duration;

use clickhouse::{Client, Row};
use serde::Deserialize;

use crate::database::{Database, StoreError};
use crate::explanation::{conditions, literal, quoted};
use crate::families::{DIMENSIONS, DimensionValues, FAILED, LEDGER, SAMPLED_ONE_IN, Slice, by_name, completed_in, in_sample, of_time};

/// How long a question may take. Nobody waits for it: what is not known in this time is asked again later.
const LIMIT: Duration = Duration::from_secs(2);
/// Most rows of the sample, about: with more attempts, fewer of them are read.
const SAMPLED: u64 = 250_000;
/// At least one row in so many is read.
const LEAST_SAMPLED: u32 = 65_536;
/// Of so many rows of a fleet, each is read to see whether it is of a slice.
const READ: u64 = 1_000_000;

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
    pub values: [(&'static str, String); DIMENSIONS.len()],
    /// Those that failed in the class.
    pub failed: u64,
    /// The others that are in the sample.
    pub others: u64,
}

/// Which attempts are counted apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldApart {
    /// By column, the values that are told apart; all, where it is not there.
    pub values: Vec<(&'static str, Vec<String>)>,
    /// Of attempts that did not fail so, one in so many is counted: as [`one_in`] says.
    pub one_in: u32,
}

/// Of how many attempts of a slice one is to be read, so that a sample of this many is not too large, nor the fleet's from which they are: a power of 2.
#[must_use]
pub fn one_in(attempts: u64, of_fleet: u64) -> u32 {
    if attempts <= SAMPLED && of_fleet <= READ {
        return 1;
    }
    let fewest = u32::try_from(attempts.div_ceil(SAMPLED)).unwrap_or(LEAST_SAMPLED);
    fewest.clamp(SAMPLED_ONE_IN, LEAST_SAMPLED).next_power_of_two()
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
            at: DimensionValues,
            failed: u64,
            others: u64,
        }
        let pooled = |column: &'static str| match told.values.iter().find(|(name, _)| *name == column && *name != "entry_mode") {
            Some((name, values)) if values.is_empty() => format!("'\\x01' AS p_{name}"),
            Some((name, values)) => {
                let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
                format!("if({name} IN ({}), {name}, '\\x01') AS p_{name}", values.join(", "))
            }
            None => format!("{column} AS p_{column}"),
        };
        // Under names of their own: conditions are about the columns.
        let (columns, keys) = (DIMENSIONS.map(pooled).join(", "), DIMENSIONS.map(|column| format!("p_{column}")).join(", "));
        let within = format!("tenant = {} AND {}{}", quoted(drill.tenant), completed_in(&drill.time), conditions(drill.slice));
        let is_failed = format!("startsWith(tag, {})", quoted(&drill.tag()));
        let sample = if told.one_in > 1 { format!(" AND {}", in_sample(told.one_in)) } else { String::new() };
        let sql = format!(
            "SELECT ({keys}) AS at, toUInt64(greatest(sum(bad), 0)) AS failed, toUInt64(greatest(sum(good), 0)) AS others FROM \
             (SELECT {columns}, sign AS bad, 0 AS good FROM outcomes WHERE {within} AND {FAILED} AND {is_failed} UNION ALL \
              SELECT {columns}, 0 AS bad, sign AS good FROM outcomes WHERE {within} AND NOT {is_failed}{sample}) \
             GROUP BY {keys} HAVING failed > 0 OR others > 0"
        );
        let query = self.drilling().query(&literal(&sql));
        let mut found = self.answer("say what an incident's failures have in common", LIMIT, query.fetch_all::<Found>()).await?;
        // There may be a hundred thousand, and the server takes longer for it.
        found.sort_unstable_by(|one, other| one.at.cmp(&other.at));
        let cell = |row: Found| FailedCell { values: by_name(row.at), failed: row.failed, others: row.others };
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
        let of_whole = |attempts| one_in(attempts, attempts);
        assert_eq!([0, 250_000, 250_001, 6_000_000, u64::MAX].map(of_whole), [1, 1, 8, 32, 65_536]);
        // A small part of a large fleet.
        assert_eq!([one_in(300, 1_000_000), one_in(300, 1_000_001)], [1, 8]);
    }
}
