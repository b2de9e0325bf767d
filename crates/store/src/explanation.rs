//! What led to an incident, and whom it affects: numbers out of what is stored, and the query that shows them to anybody who asks ClickHouse.

use std::ops::Range;

use clickhouse::Row;
use serde::Deserialize;

use crate::database::{Database, StoreError};
use crate::families::{Slice, completed_in, entry_mode_number};

/// Weeks before that say what is usual.
const WEEKS: u32 = 4;

/// What is to be explained: a signal of an incident, in its slice, while it lasted.
#[derive(Clone, Debug)]
pub struct Explained<'a> {
    /// Whose fleet it is.
    pub tenant: &'a str,
    /// The part of it.
    pub slice: &'a Slice,
    /// A class of failures (`issuer_down`); approvals, where these are missing.
    pub failures: Option<&'a str>,
    /// In seconds since 1970-01-01 UTC.
    pub time: Range<u32>,
}

/// Whom an incident affects: what failed so in its slice, by the outcomes that are stored, as they stand. Where approvals are missing, all that was not approved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affected {
    /// Attempts that failed.
    pub failed: u64,
    /// Merchants that had one.
    pub merchants: u64,
    /// Terminals that had one.
    pub terminals: u64,
    /// Transactions that had one: several attempts at a sale are one.
    pub transactions: u64,
    /// By currency, what was to be paid by these transactions, in its smallest unit.
    pub amounts: Vec<(String, i64)>,
}

/// What a slice did while an incident lasted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Row, Deserialize)]
pub struct Meanwhile {
    /// Attempts.
    pub attempts: u64,
    /// Of these, those that failed so.
    pub failed: u64,
}

impl Explained<'_> {
    /// A query that shows, ten seconds after ten seconds, the numbers that led to the incident, beside what was usual: at these hours of the week in the four weeks before, or in the hour before
    /// where the slice is none that is counted, since rows of weeks are too many to look at. It needs nothing bound.
    #[must_use]
    pub fn query(&self) -> String {
        let (from, until) = (self.time.start, self.time.end);
        let source = self.source();
        let moment = |second: u32| source.moment(second);
        let Source { table, at, bucket, count, within } = &source;
        let what = if self.failures.is_some() { self.failed() } else { "cause = 'approved'".into() };
        let (name, share, usual) = match self.failures {
            Some(_) => (
                "failed",
                "round(100 * now.failed / now.attempts, 2) AS percent, ",
                format!("round(100 * sumIf({count}, {what}) / sum({count}), 2) AS percent"),
            ),
            None => ("approved", "", format!("round(sumIf({count}, {what}) / uniqExact({bucket}), 2) AS approved")),
        };
        let usually = if self.failures.is_some() { "usual.percent AS usual_percent" } else { "usual.approved AS usually_approved" };
        let (since, at_such_hours) = if self.slice.counted().is_some() {
            (from.saturating_sub(WEEKS * 7 * 86_400), hours_of_week(from, until))
        } else {
            (from.saturating_sub(3600), String::new())
        };
        format!(
            "SELECT now.step, now.attempts, now.{name}, {share}{usually}\n\
             FROM (SELECT {bucket} AS step, sum({count}) AS attempts, sumIf({count}, {what}) AS {name}\n      \
             FROM {table} WHERE {within}\n        AND {at} >= {} AND {at} < {}\n      GROUP BY step) AS now\n\
             CROSS JOIN (SELECT {usual}\n            FROM {table} WHERE {within}\n              \
             AND {at} >= {} AND {at} < {}{at_such_hours}) AS usual\n\
             ORDER BY now.step",
            moment(from),
            moment(until),
            moment(since),
            moment(from),
        )
    }

    /// Where its counts are: in `rollup`, if the slice is counted there.
    fn source(&self) -> Source {
        let tenant = quoted(self.tenant);
        if let Some(counted) = self.slice.counted() {
            let (family, key) = (quoted(counted.family), quoted(&counted.key));
            let within = format!("tenant = {tenant} AND family = {family} AND key = {key}");
            return Source { table: "rollup", at: "bucket", bucket: "bucket", count: "count", within };
        }
        let bucket = "toStartOfInterval(toDateTime(completed_at), INTERVAL 10 SECOND)";
        let within = format!("tenant = {tenant}{}", conditions(self.slice));
        Source { table: "outcomes", at: "completed_at", bucket, count: "sign", within }
    }

    /// What fails of it.
    fn failed(&self) -> String {
        self.failures.map_or_else(|| "cause != 'approved'".into(), |class| format!("startsWith(tag, {})", quoted(&format!("{class}/"))))
    }
}

/// What rows of `outcomes` have in common that are in a slice: conditions behind another.
pub(crate) fn conditions(slice: &Slice) -> String {
    let condition = |(column, value): (&'static str, &str)| match column {
        // A name without a number is in no row.
        "entry_mode" => format!(" AND entry_mode = {}", entry_mode_number(value).unwrap_or(u16::MAX)),
        _ => format!(" AND {column} = {}", quoted(value)),
    };
    slice.values().map(condition).collect()
}

/// Where counts are, and how they are asked for.
struct Source {
    table: &'static str,
    /// The moment of a row.
    at: &'static str,
    bucket: &'static str,
    count: &'static str,
    within: String,
}

impl Source {
    /// A second since 1970-01-01 UTC, as the moments of rows are: of a column of milliseconds, ClickHouse takes `< toDateTime(10)` for `<= 9` where it leaves parts out.
    fn moment(&self, second: u32) -> String {
        if self.table == "outcomes" { format!("toDateTime64({second}, 3, 'UTC')") } else { format!("toDateTime({second}, 'UTC')") }
    }
}

/// A condition that a bucket is in one of the hours of the week of a time.
fn hours_of_week(from: u32, until: u32) -> String {
    let mut hours: Vec<u32> = (from / 3600..=until.saturating_sub(1) / 3600).map(|hour| (hour + 72) % 168).collect();
    hours.sort_unstable();
    hours.dedup();
    let hours: Vec<String> = hours.iter().map(u32::to_string).collect();
    format!("\n              AND (toDayOfWeek(bucket) - 1) * 24 + toHour(bucket) IN ({})", hours.join(", "))
}

/// A part of a question that has no values to be bound.
pub(crate) fn literal(text: &str) -> String {
    text.replace('?', "??")
}

/// A text as ClickHouse reads it.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

impl Database {
    /// The tenants that have an incident of this identifier.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn tenants_with(&self, incident: &str) -> Result<Vec<String>, StoreError> {
        let query = self.looking().query("SELECT DISTINCT tenant FROM incidents WHERE incident = ? ORDER BY tenant").bind(incident);
        self.look("say whose an incident is", query.fetch_all::<String>()).await
    }

    /// Whom an incident affects.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn affected(&self, explained: &Explained<'_>) -> Result<Affected, StoreError> {
        #[derive(Row, Deserialize)]
        struct Found {
            failed: u64,
            merchants: u64,
            terminals: u64,
            transactions: u64,
            amounts: (Vec<String>, Vec<i64>),
        }
        let (failed, conditions) = (literal(&explained.failed()), literal(&conditions(explained.slice)));
        // As it stands: a row that was corrected is there with both signs, and adds nothing. By hashes: there may be half a million, and their names are long.
        let sql = format!(
            "SELECT toUInt64(sum(bad)) AS failed, uniqExact(of_merchant) AS merchants, uniqExact(of_terminal) AS terminals, count() AS transactions, \
             sumMap([of_currency], [amount]) AS amounts FROM \
             (SELECT any(cityHash64(merchant)) AS of_merchant, any(cityHash64(terminal)) AS of_terminal, any(toString(currency)) AS of_currency, \
              sum(sign) AS bad, max(amount_minor) AS amount FROM {} \
              WHERE tenant = ? AND {} AND {failed}{conditions} \
              GROUP BY cityHash64(merchant, terminal, spool, if(first_attempt_sequence = 0, sequence, first_attempt_sequence), currency) HAVING bad > 0)",
            self.failures(),
            completed_in(&explained.time)
        );
        let query = self.looking().query(&sql).bind(explained.tenant);
        let found = self.look("say whom an incident affects", query.fetch_one::<Found>()).await?;
        let Found { failed, merchants, terminals, transactions, amounts: (currencies, amounts) } = found;
        let amounts = currencies.into_iter().zip(amounts).filter(|(_, amount)| *amount != 0).collect();
        Ok(Affected { failed, merchants, terminals, transactions, amounts })
    }

    /// What a slice did while an incident lasted: by its counts where it is counted, by rows where it is not.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn meanwhile(&self, explained: &Explained<'_>) -> Result<Meanwhile, StoreError> {
        let source = explained.source();
        let Source { table, at, count, within, .. } = &source;
        let (failed, within) = (literal(&explained.failed()), literal(within));
        let [from, until] = [explained.time.start, explained.time.end].map(|second| source.moment(second));
        let sql = format!(
            "SELECT toUInt64(greatest(sum({count}), 0)) AS attempts, toUInt64(greatest(sumIf({count}, {failed}), 0)) AS failed FROM {table} \
             WHERE {within} AND {at} >= {from} AND {at} < {until}"
        );
        self.look("say what a slice did meanwhile", self.looking().query(&sql).fetch_one::<Meanwhile>()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained<'a>(slice: &'a Slice, failures: Option<&'a str>) -> String {
        Explained { tenant: "acme", slice, failures, time: 1_795_140_000..1_795_140_060 }.query()
    }

    #[test]
    fn a_slice_that_is_counted_is_asked_for_where_it_is() {
        let query = explained(&"issuer=icbc".parse().unwrap(), Some("issuer_down"));
        assert!(query.contains("FROM rollup WHERE tenant = 'acme' AND family = 'issuer' AND key = 'icbc'"), "{query}");
        // 2026-11-20 02:00 UTC is a Friday: hour 98 of the week.
        assert!(query.contains("IN (98)) AS usual") && query.contains("startsWith(tag, 'issuer_down/')"), "{query}");
        let query = explained(&Slice::default(), None);
        assert!(query.contains("family = 'fleet' AND key = ''") && query.contains("usually_approved"), "{query}");
    }

    #[test]
    fn any_other_is_asked_for_in_rows_and_no_value_is_more_than_one() {
        let query = explained(&"entry_mode=chip&issuer=o'\\neill&model=X".parse().unwrap(), Some("device_read"));
        assert!(
            query.contains("FROM outcomes WHERE tenant = 'acme' AND entry_mode = 1 AND issuer = 'o\\'\\\\neill' AND model = 'X'"),
            "{query}"
        );
    }
}
