//! Outcomes read back, each with the verdict that stands: for people who look at them.

use std::ops::Range;

use clickhouse::Row;
use faultline_proto::verdict::v1::Cause;
use serde::Deserialize;

use crate::database::{Database, StoreError};
use crate::families::{Slice, completed_in, entry_mode_number};

/// An outcome and the verdict on it: columns of `outcomes`, which the schema documents. Times are in milliseconds since 1970-01-01 UTC.
#[derive(Clone, Debug, PartialEq, Row, Deserialize)]
#[expect(missing_docs, reason = "the schema documents its columns")]
pub struct Reported {
    pub terminal: String,
    pub spool: u64,
    pub sequence: u64,
    pub completed_at: i64,
    pub received_at: i64,
    pub merchant: String,
    pub store: String,
    pub model: String,
    pub firmware: String,
    pub region: String,
    pub access_network: u16,
    pub carrier: String,
    pub r#type: u16,
    pub entry_mode: u16,
    pub amount_minor: i64,
    pub currency: String,
    pub issuer: String,
    pub acquirer: String,
    pub host: String,
    pub attempt: u16,
    pub stage: u16,
    pub response_code: String,
    pub response_spec: String,
    pub money_outcome: u16,
    pub terminal_condition: u16,
    pub terminal_error_code: String,
    pub diagnostic: String,
    pub card_read_ms: u32,
    pub pin_entry_ms: u32,
    pub dns_ms: u32,
    pub connect_ms: u32,
    pub tls_ms: u32,
    pub send_ms: u32,
    pub wait_ms: u32,
    pub print_ms: u32,
    pub reversal_ms: u32,
    pub total_ms: u32,
    pub signal_dbm: i16,
    pub tag: String,
    cause: i8,
    pub reason: String,
    pub confidence: u8,
    pub rule_set: String,
    pub revision: u16,
}

impl Reported {
    /// Whose fault it was.
    #[must_use]
    pub fn cause(&self) -> Cause {
        Cause::try_from(i32::from(self.cause)).unwrap_or(Cause::Unknown)
    }
}

/// Which outcomes of a tenant are wanted.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// Whose.
    pub tenant: &'a str,
    /// When they were completed, in seconds since 1970-01-01 UTC.
    pub time: Range<u32>,
    /// Of this terminal alone.
    pub terminal: Option<&'a str>,
    /// In this slice.
    pub slice: &'a Slice,
    /// Of this cause alone.
    pub cause: Option<Cause>,
    /// Whether those that were approved are left out.
    pub failed: bool,
    /// How many at most.
    pub limit: u32,
}

impl Database {
    /// The newest of the outcomes that are wanted, each with the verdict that stands: one that was corrected is left out.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn reported(&self, wanted: &Wanted<'_>) -> Result<Vec<Reported>, StoreError> {
        let of_time = format!("tenant = ? AND {}", completed_in(&wanted.time));
        let mut conditions = format!("{of_time} AND sign = 1");
        for (is_asked, condition) in
            [(wanted.terminal.is_some(), "terminal = ?"), (wanted.cause.is_some(), "cause = ?"), (wanted.failed, "cause != 'approved'")]
        {
            if is_asked {
                conditions.push_str(&format!(" AND {condition}"));
            }
        }
        for (column, _) in wanted.slice.values() {
            conditions.push_str(&format!(" AND {column} = ?"));
        }
        let of_terminal = if wanted.terminal.is_some() { " AND terminal = ?" } else { "" };
        let sql = format!(
            "SELECT ?fields FROM outcomes WHERE {conditions} AND (terminal, spool, sequence, revision) NOT IN \
             (SELECT terminal, spool, sequence, revision FROM outcomes WHERE {of_time} AND sign = -1{of_terminal}) \
             ORDER BY completed_at DESC, terminal, spool, sequence DESC LIMIT ?"
        );
        let mut query = self.looking().query(&sql).bind(wanted.tenant);
        if let Some(terminal) = wanted.terminal {
            query = query.bind(terminal);
        }
        if let Some(cause) = wanted.cause {
            query = query.bind(i32::from(cause));
        }
        for (column, value) in wanted.slice.values() {
            query = match column {
                // A name without a number is in no row; those of a newer contract have numbers, and no names here.
                "entry_mode" => query.bind(entry_mode_number(value).unwrap_or(u16::MAX)),
                _ => query.bind(value),
            };
        }
        let query = query.bind(wanted.tenant);
        let query = wanted.terminal.iter().fold(query, |query, terminal| query.bind(terminal)).bind(wanted.limit);
        self.look("say what was reported", query.fetch_all::<Reported>()).await
    }
}
