//! Response codes that no rule set knew when their outcomes were judged: the queue of what rules are still to say.

use std::ops::Range;

use clickhouse::Row;
use serde::Deserialize;

use crate::database::{Database, StoreError};
use crate::families::completed_in;

/// A response code that no rule set knew, and where it was met. Times are in milliseconds since 1970-01-01 UTC, of when attempts completed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Row, Deserialize)]
pub struct UnknownCode {
    /// Whose outcomes have it.
    pub tenant: String,
    /// The card network, by its number in the contract.
    pub network: u16,
    /// The acquirer; empty where outcomes do not say it.
    pub acquirer: String,
    /// The specification that it is said to belong to; empty where outcomes do not say it.
    pub response_spec: String,
    /// The code.
    pub response_code: String,
    /// Outcomes that have it.
    pub outcomes: u64,
    /// Of these, those of which the shop was told that they were approved.
    pub told_approved: u64,
    /// Terminals that met it.
    pub terminals: u64,
    /// When it was met first.
    pub first_ms: i64,
    /// When it was met last.
    pub last_ms: i64,
    /// The three newest outcomes that have it.
    pub examples: Vec<Example>,
}

/// An outcome by what it is known by: its terminal, its spool, its sequence there; and when it completed, in milliseconds since 1970-01-01 UTC.
pub type Example = (String, u64, u64, i64);

impl Database {
    /// Response codes that no rule set knew, of one tenant or of all, in outcomes that completed within these seconds since 1970-01-01 UTC: so many at most, those
    /// that were met most often first. Verdicts count as they stand: what was judged again by rules that know the code is not among them.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn unknown_codes(&self, tenant: Option<&str>, time: &Range<u32>, limit: u32) -> Result<Vec<UnknownCode>, StoreError> {
        let of_tenant = if tenant.is_some() { "tenant = ? AND " } else { "" };
        let unknown =
            format!("{of_tenant}{} AND reason IN ('unknown_code', 'unknown_approved') AND response_code != ''", completed_in(time));
        let sql = format!(
            "SELECT tenant, network, acquirer, response_spec, response_code, count() AS outcomes, \
             countIf(reason = 'unknown_approved') AS told_approved, uniq(terminal) AS terminals, \
             toUnixTimestamp64Milli(min(completed_at)) AS first_ms, toUnixTimestamp64Milli(max(completed_at)) AS last_ms, \
             arrayMap(newest -> (newest.2, newest.3, newest.4, -newest.1), \
                      groupArraySorted(3)((-toUnixTimestamp64Milli(completed_at), terminal, spool, sequence))) AS examples \
             FROM outcomes WHERE {unknown} AND sign = 1 AND (tenant, terminal, spool, sequence, revision) NOT IN \
             (SELECT tenant, terminal, spool, sequence, revision FROM outcomes WHERE {unknown} AND sign = -1) \
             GROUP BY tenant, network, acquirer, response_spec, response_code \
             ORDER BY outcomes DESC, tenant, response_code, acquirer, network, response_spec LIMIT ?"
        );
        let mut query = self.looking().query(&sql);
        for _ in 0..2 {
            query = tenant.iter().fold(query, |query, tenant| query.bind(tenant));
        }
        self.look("say which response codes are unknown", query.bind(limit).fetch_all::<UnknownCode>()).await
    }
}
