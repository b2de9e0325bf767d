//! Which events are stored, asked one by one: for those of replayed records. What was seen of their spools says nothing about them, since later
//! ones were counted while they were dead letters.

use std::collections::HashSet;
use std::time::Duration;

use clickhouse::Row;
use serde::Deserialize;

use crate::database::{Database, StoreError};

/// How long one question may take: it is a search among the rows of weeks.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(300);
/// Most spools in one question: what a question reads depends on the time it is about, and hardly on how many they are.
const MOST_SPOOLS: usize = 256;
/// Most bytes of a question. Its sequences are written out, and a batch may have some hundred thousand.
const MOST_BYTES: &str = "67108864";

/// What an event is known by, however often it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Row, Deserialize)]
pub struct Identity {
    /// Its tenant.
    pub tenant: String,
    /// Its terminal.
    pub terminal: String,
    /// The spool.
    pub spool: u64,
    /// Its sequence there.
    pub sequence: u64,
}

/// Events of one spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolEvents<'a> {
    /// Their tenant.
    pub tenant: &'a str,
    /// Their terminal.
    pub terminal: &'a str,
    /// The spool.
    pub spool: u64,
    /// Their sequences.
    pub sequences: Vec<u64>,
}

impl Database {
    /// Which of these events are stored, in records that come before an offset (`before`) of this log, and in other logs. No row is found that was received before
    /// `since_s`, in seconds since 1970-01-01 UTC: partitions of the table are left out by it.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn stored_events(
        &self,
        wanted: &[SpoolEvents<'_>],
        since_s: u32,
        (log, before): (&str, u64),
    ) -> Result<HashSet<Identity>, StoreError> {
        let mut stored = HashSet::new();
        for spools in wanted.chunks(MOST_SPOOLS) {
            let of_spool = "(tenant = ? AND terminal = ? AND spool = ? AND sequence IN ?)";
            let sql = format!(
                "SELECT DISTINCT tenant, terminal, spool, sequence FROM outcomes \
                 WHERE received_at >= toDateTime64(?, 3) AND NOT (kafka_log = ? AND kafka_offset >= ?) AND ({})",
                vec![of_spool; spools.len()].join(" OR ")
            );
            let asking = self.asking().with_setting("max_query_size", MOST_BYTES);
            let query = asking.query(&sql).bind(since_s).bind(log).bind(before);
            let query = spools.iter().fold(query, |query, SpoolEvents { tenant, terminal, spool, sequences }| {
                query.bind(tenant).bind(terminal).bind(spool).bind(sequences)
            });
            let found = query.fetch_all::<Identity>();
            stored.extend(self.answer("say which events are stored", SEARCH_TIMEOUT, found).await?);
        }
        Ok(stored)
    }
}
