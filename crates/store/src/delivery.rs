//! How a batch gets into ClickHouse once, whatever dies on the way.
//!
//! ```text
//! a new batch:    rows ─▶ outcomes (token T) ─▶ some of them ─▶ drilldown (T:drill) ─▶ their sums and a ledger row ─▶ rollup (T:roll); where that takes long, as below
//! one that was    which rows are there? ─▶ the missing (T, then T:r1, ...) ─▶ until none is missing
//! begun before:     └─▶ which of them are in drilldown? ─▶ the missing, of what is stored (T:drill, then T:drill:r1, ...) ─▶ until none is missing
//!                     └─▶ is there a ledger row? ─▶ else sums of what is stored (T:roll, then T:roll:r1, ...) ─▶ until there is
//! ```
//!
//! A token alone is not to be trusted: a server that is killed between writing a token and publishing the rows answers "done" to the repeat, and
//! has none of them. So what is unknown is settled by asking. Two who write the same batch at once, because one of them was thought to be dead, use
//! the same tokens, so the server takes one of the two, as long as it remembers the token (`non_replicated_deduplication_window`). What a stopped process or
//! a network has held back for so long that the token may be forgotten, the server refuses: an insert says until when it is wanted.
//!
//! Rows of one insert are one block, hence one part of `rollup`, which is not partitioned: the ledger row in it is there exactly when
//! all of it is. In `outcomes` and `drilldown` they are one part for each week of receipt, each there whole or not at all.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use clickhouse::query::Query;
use clickhouse::{Client, Row};
use serde::Deserialize;
use tokio::time::Instant;

use crate::block::{as_one_block, in_time, one_block};
use crate::database::{Database, StoreError};
use crate::drilldown::rows as drilldown;
use crate::explanation::{literal, quoted};
use crate::families::{Dimensions, Facts, LEDGER, Rollup, RollupRow, bucket};
use crate::high_water::RECEIPT_SLACK_S;
use crate::outcomes::OutcomeRow;
use crate::server::{Server, WANTED_AT_ONCE_S, WANTED_S};

/// How long a question about a batch may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a search among the rows of a month may take.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(300);
/// How long it stays certain that nobody else stores a batch: half of the shortest time after which a silent reader is given up.
pub(crate) const CERTAIN_FOR: Duration = Duration::from_secs(3);
/// How often what is missing is written before that is an error. Each attempt leaves at most one token without its rows, and only when the server is
/// killed meanwhile.
const ATTEMPTS: u32 = 5;

/// Where in Kafka a batch of rows comes from: what identifies it, to the server too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchId<'a> {
    /// The log: one life of the partition.
    pub log: &'a str,
    /// The partition.
    pub partition: u16,
    /// Offset of the first record.
    pub first: u64,
    /// Offset of the last record.
    pub last: u64,
    /// No record of it was received earlier, in milliseconds since 1970-01-01 UTC: what is older need not be searched for it.
    pub since_ms: i64,
}

impl fmt::Display for BatchId<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}:{}-{}", self.log, self.partition, self.first, self.last)
    }
}

/// A batch that is stored and not counted.
#[derive(Clone, Debug, PartialEq, Eq, Row, Deserialize)]
pub struct Uncounted {
    /// Its log.
    pub log: String,
    /// Offset of the first record.
    pub first: u64,
    /// Offset of the last record.
    pub last: u64,
    /// When the first of its rows was received, in milliseconds since 1970-01-01 UTC.
    pub since_ms: i64,
}

impl Uncounted {
    /// What names it, in the partition that was asked for.
    #[must_use]
    pub fn id(&self, partition: u16) -> BatchId<'_> {
        BatchId { log: &self.log, partition, first: self.first, last: self.last, since_ms: self.since_ms }
    }
}

/// What settling a batch had to add.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Rows of `outcomes` that were missing.
    pub rows: usize,
    /// Rows of `drilldown` that were.
    pub drilldown: u64,
    /// Whether their sums were.
    pub sums: bool,
}

/// Rows that are stored together.
pub(crate) trait Rows: Sync + Send {
    /// The offset of each, and its place in the record.
    fn places(&self) -> impl Iterator<Item = (u64, u16)> + Send;

    /// Whose they are and when they were completed, where that is less than everything: it spares the server a search.
    fn within(&self) -> Option<Within<'_>>;

    /// Inserts those that are at these places of [`Rows::places`].
    fn insert(&self, server: &Server, attempt: &Attempt, which: &[usize]) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// An insert that the server knows again, and does not take later than it is meant.
pub(crate) struct Attempt {
    pub(crate) token: String,
    /// The last moment of the server's clock, in seconds since 1970-01-01 UTC.
    pub(crate) deadline: i64,
}

/// Where rows are searched: what the table is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Within<'a> {
    pub(crate) tenant: &'a str,
    /// The first and the last in the order of bytes.
    pub(crate) terminals: (&'a str, &'a str),
    /// When the first and the last of them were completed, in milliseconds since 1970-01-01 UTC.
    pub(crate) first_ms: i64,
    pub(crate) last_ms: i64,
}

impl Rows for [OutcomeRow<'_>] {
    fn places(&self) -> impl Iterator<Item = (u64, u16)> + Send {
        self.iter().map(|row| (row.kafka_offset, row.record_index))
    }

    fn within(&self) -> Option<Within<'_>> {
        None
    }

    async fn insert(&self, server: &Server, attempt: &Attempt, which: &[usize]) -> Result<(), StoreError> {
        server.insert_rows(attempt, &which.iter().filter_map(|place| self.get(*place)).collect::<Vec<_>>()).await
    }
}

impl Database {
    /// Stores a batch that nobody tried to store before, and counts it. `since` is a moment at which it was certain that nobody else does so: a
    /// process that was stopped meanwhile may have been given up, and asks instead.
    ///
    /// # Errors
    /// When the server did not take all of it, as far as is known. Then it is not known what is stored: [`Database::settle`] it.
    pub async fn deliver(&self, id: &BatchId<'_>, rows: &[OutcomeRow<'_>], since: Instant) -> Result<(), StoreError> {
        self.shard(id.partition).deliver(id, rows, since).await
    }

    /// Stores and counts what of a batch is not yet, where it is not known what is. `rows` are the rows that the batch has.
    ///
    /// # Errors
    /// When the server did not answer, or refused something. Whatever was done is found the next time.
    pub async fn settle(&self, id: &BatchId<'_>, rows: &[OutcomeRow<'_>]) -> Result<Settled, StoreError> {
        let shard = self.shard(id.partition);
        complete(std::slice::from_ref(shard), id, rows).await
    }

    /// Batches of a partition that are stored, perhaps not whole, and not counted. Where nobody knows any more what was begun, these are the last ones
    /// before it was forgotten: [`Database::settle`] them, without rows. Those that somebody stores just now are among them.
    ///
    /// # Errors
    /// When the server did not answer.
    pub async fn uncounted(&self, partition: u16) -> Result<Vec<Uncounted>, StoreError> {
        self.shard(partition).uncounted(partition).await
    }
}

/// Stores and counts what of some rows is not yet, where it may be on any of these servers: each stores what belongs there.
pub(crate) async fn complete<R: Rows + ?Sized>(servers: &[Server], id: &BatchId<'_>, rows: &R) -> Result<Settled, StoreError> {
    let mut settled = Settled::default();
    for attempt in 0..=ATTEMPTS {
        let since = Instant::now();
        let mut stored = HashSet::new();
        for server in servers {
            stored.extend(server.stored(id, rows.within()).await?);
        }
        let missing: Vec<usize> =
            rows.places().enumerate().filter(|(_, place)| !stored.contains(place)).map(|(number, _)| number).collect();
        if missing.is_empty() {
            break;
        }
        settled.rows = settled.rows.max(missing.len());
        for server in servers {
            if attempt == ATTEMPTS {
                return Err(server.vanishing(id, missing.len()));
            }
            let attempt = Attempt { token: token(&id.to_string(), attempt), deadline: server.deadline(since, WANTED_S).await? };
            rows.insert(server, &attempt, &missing).await?;
        }
    }
    for server in servers {
        settled.drilldown += server.complete_drilldown(id, rows).await?;
        settled.sums |= server.count(id, rows).await?;
    }
    Ok(settled)
}

impl Server {
    async fn deliver(&self, id: &BatchId<'_>, rows: &[OutcomeRow<'_>], since: Instant) -> Result<(), StoreError> {
        if since.elapsed() > CERTAIN_FOR {
            return complete(std::slice::from_ref(self), id, rows).await.map(|_| ());
        }
        let deadline = self.deadline(since, WANTED_AT_ONCE_S).await?;
        let attempt = Attempt { token: id.to_string(), deadline };
        self.insert_rows(&attempt, &rows.iter().collect::<Vec<_>>()).await?;
        if since.elapsed() > CERTAIN_FOR {
            return complete(std::slice::from_ref(self), id, rows).await.map(|_| ());
        }
        self.insert_drilldown(&Attempt { token: drilldown_token(id, 0), deadline }, rows).await?;
        if since.elapsed() > CERTAIN_FOR {
            return complete(std::slice::from_ref(self), id, rows).await.map(|_| ());
        }
        let mut rollup = Rollup::default();
        for row in rows {
            rollup.add(&row.into());
        }
        self.insert_rollup(id, &Attempt { token: sums_token(id, 0), deadline }, rollup).await
    }

    /// Keeps for drill-downs what of the stored rows is not yet. Returns how many were not.
    async fn complete_drilldown<R: Rows + ?Sized>(&self, id: &BatchId<'_>, rows: &R) -> Result<u64, StoreError> {
        let mut missing = 0;
        for attempt in 0..=ATTEMPTS {
            let since = Instant::now();
            let question = format!("SELECT count() {}", not_in_drilldown(id, rows.within()));
            let question = self.asking().query(&question);
            let found = self.answer("say which rows are not kept for drill-downs", QUESTION_TIMEOUT, question.fetch_one::<u64>()).await?;
            if found == 0 {
                break;
            }
            missing = missing.max(found);
            if attempt == ATTEMPTS {
                return Err(self.vanishing(id, usize::try_from(found).unwrap_or(usize::MAX)));
            }
            self.keep_for_drilldown(id, rows.within(), (attempt, since)).await?;
        }
        Ok(missing)
    }

    /// Keeps for drill-downs what of the stored rows is not yet. `attempt` is the how manieth it is, and a moment at which it was certain that it is wanted.
    pub(crate) async fn keep_for_drilldown(
        &self,
        id: &BatchId<'_>,
        within: Option<Within<'_>>,
        (attempt, since): (u32, Instant),
    ) -> Result<(), StoreError> {
        let deadline = self.deadline(since, WANTED_S).await?;
        let columns: Vec<String> = drilldown::block(&[]).names().into_iter().map(str::to_owned).collect();
        let source = format!("{} AND {}", not_in_drilldown(id, within), in_time(deadline));
        let statement = format!("INSERT INTO drilldown ({}) {}", columns.join(", "), as_one_block(&columns, &source));
        let client = one_block(self.inserting(&drilldown_token(id, attempt)));
        self.answer("keep rows for drill-downs", QUESTION_TIMEOUT, client.query(&statement).execute()).await
    }

    /// Counts what is stored, unless that is done. Returns whether it was not.
    async fn count<R: Rows + ?Sized>(&self, id: &BatchId<'_>, rows: &R) -> Result<bool, StoreError> {
        let mut attempt = 0;
        loop {
            let since = Instant::now();
            if self.is_counted(id).await? {
                return Ok(attempt > 0);
            }
            if attempt == ATTEMPTS {
                return Err(self.vanishing(id, rows.places().count()));
            }
            if !self.count_stored(id, rows.within(), (attempt, since)).await? {
                return Ok(attempt > 0);
            }
            attempt += 1;
        }
    }

    async fn uncounted(&self, partition: u16) -> Result<Vec<Uncounted>, StoreError> {
        // Counts are kept longer than 30 days. The last that is counted was received when its bucket says; what comes after it in Kafka, at most so
        // much earlier as receipts may be off.
        let ledger = "SELECT toString(key) AS key, bucket FROM rollup WHERE tenant = '' AND family = ? \
                      AND bucket >= now() - INTERVAL 31 DAY AND splitByChar(':', toString(key))[2] = toString(?)";
        let sql = format!(
            "WITH ledger AS ({ledger}), (SELECT toInt64(toUnixTimestamp(max(bucket))) FROM ledger) AS reach \
             SELECT toString(kafka_log) AS log, batch_first_offset AS first, batch_last_offset AS last, \
                    toUnixTimestamp64Milli(min(received_at)) AS since_ms \
             FROM outcomes WHERE kafka_partition = ? AND kafka_log != '' \
                    AND received_at >= fromUnixTimestamp64Milli(1000 * greatest(toUnixTimestamp(now()) - 30 * 86400, reach - ?)) \
             GROUP BY kafka_log, first, last \
             HAVING concat(log, ':', toString(?), ':', toString(first), '-', toString(last)) NOT IN (SELECT key FROM ledger)"
        );
        let query = self.asking().query(&sql).bind(LEDGER).bind(partition).bind(partition).bind(2 * RECEIPT_SLACK_S).bind(partition);
        self.answer("say which rows are not counted", SEARCH_TIMEOUT, query.fetch_all()).await
    }

    fn vanishing(&self, id: &BatchId<'_>, rows: usize) -> StoreError {
        StoreError::Vanishing { url: self.url(), batch: id.to_string(), rows }
    }

    /// A question about the rows of a batch.
    fn of_batch(&self, id: &BatchId<'_>, within: Option<Within<'_>>) -> Query {
        self.asking().query(&format!("SELECT ?fields FROM outcomes WHERE {}", of_batch(id, within)))
    }

    /// Which of the batch's rows are stored, by offset and place in the record.
    async fn stored(&self, id: &BatchId<'_>, within: Option<Within<'_>>) -> Result<HashSet<(u64, u16)>, StoreError> {
        #[derive(Row, Deserialize)]
        struct Stored {
            kafka_offset: u64,
            record_index: u16,
        }
        let rows = self.of_batch(id, within).fetch_all::<Stored>();
        let rows = self.answer("say which rows of a batch are stored", QUESTION_TIMEOUT, rows).await?;
        Ok(rows.into_iter().map(|row| (row.kafka_offset, row.record_index)).collect())
    }

    /// Whether the batch is in the roll-up.
    async fn is_counted(&self, id: &BatchId<'_>) -> Result<bool, StoreError> {
        let sql = "SELECT count() FROM rollup WHERE tenant = '' AND family = ? AND key = ? AND bucket = ?";
        let query = self.asking().query(sql).bind(LEDGER).bind(id.to_string()).bind(bucket(id.since_ms));
        let counted = self.answer("say whether a batch is counted", QUESTION_TIMEOUT, query.fetch_one::<u64>()).await?;
        Ok(counted > 0)
    }

    /// Counts the rows of the batch as they are stored: a repeat may have judged them otherwise. Returns whether there were any. `attempt` is the how manieth it is, and a
    /// moment at which it was certain that it is wanted.
    pub(crate) async fn count_stored(
        &self,
        id: &BatchId<'_>,
        within: Option<Within<'_>>,
        attempt: (u32, Instant),
    ) -> Result<bool, StoreError> {
        let stored = self.of_batch(id, within).fetch_all::<OwnedFacts>();
        let stored = self.answer("give back the rows of a batch", QUESTION_TIMEOUT, stored).await?;
        let mut rollup = Rollup::default();
        for row in &stored {
            rollup.add(&row.facts());
        }
        if !stored.is_empty() {
            let (attempt, since) = attempt;
            let attempt = Attempt { token: sums_token(id, attempt), deadline: self.deadline(since, WANTED_S).await? };
            self.insert_rollup(id, &attempt, rollup).await?;
        }
        Ok(!stored.is_empty())
    }

    async fn insert_rows(&self, attempt: &Attempt, rows: &[&OutcomeRow<'_>]) -> Result<(), StoreError> {
        let client = self.inserting(&attempt.token);
        let inserted = OutcomeRow::block(rows).insert_until(client, "outcomes", attempt.deadline).await;
        inserted.map_err(self.failed("store the rows of a batch"))
    }

    /// Keeps those of the rows for drill-downs that are.
    async fn insert_drilldown(&self, attempt: &Attempt, rows: &[OutcomeRow<'_>]) -> Result<(), StoreError> {
        let rows: Vec<_> = rows.iter().filter(|row| drilldown::is_kept(row)).collect();
        let condition = format!("{} AND {}", in_time(attempt.deadline), drilldown::received_lately());
        let inserted = drilldown::block(&rows).insert_of(self.inserting(&attempt.token), "drilldown", &condition).await;
        inserted.map_err(self.failed("keep rows for drill-downs"))
    }

    async fn insert_rollup(&self, id: &BatchId<'_>, attempt: &Attempt, rollup: Rollup<'_>) -> Result<(), StoreError> {
        let client = self.inserting(&attempt.token);
        let inserted = RollupRow::block(&rollup.rows(id)).insert_until(client, "rollup", attempt.deadline).await;
        inserted.map_err(self.failed("count a batch"))
    }

    /// A client whose insert is one that the server knows again.
    pub(crate) fn inserting(&self, token: &str) -> Client {
        self.client().clone().with_setting("insert_deduplication_token", token).with_setting("insert_deduplicate", "1")
    }
}

/// The first attempt has the batch's own token, so that it meets one of a writer that was thought to be dead.
fn token(token: &str, attempt: u32) -> String {
    if attempt == 0 { token.to_owned() } else { format!("{token}:r{attempt}") }
}

fn drilldown_token(id: &BatchId<'_>, attempt: u32) -> String {
    token(&format!("{id}:drill"), attempt)
}

fn sums_token(id: &BatchId<'_>, attempt: u32) -> String {
    token(&format!("{id}:roll"), attempt)
}

/// A condition that a row is of a batch. The time of receipt spares the server the rest, and so does what else is known of where they are.
fn of_batch(id: &BatchId<'_>, within: Option<Within<'_>>) -> String {
    let BatchId { log, partition, first, last, since_ms } = id;
    let mut sql = format!(
        "received_at >= fromUnixTimestamp64Milli({since_ms}) \
         AND kafka_log = {} AND kafka_partition = {partition} AND kafka_offset BETWEEN {first} AND {last}",
        quoted(log)
    );
    if let Some(Within { tenant, terminals: (first, last), first_ms, last_ms }) = within {
        let [tenant, first, last] = [tenant, first, last].map(quoted);
        sql.push_str(&format!(
            " AND tenant = {tenant} AND terminal >= {first} AND terminal <= {last} \
             AND completed_at >= fromUnixTimestamp64Milli({first_ms}) AND completed_at <= fromUnixTimestamp64Milli({last_ms})"
        ));
    }
    literal(&sql)
}

/// From those of a batch's rows that are to be kept for drill-downs and are not.
fn not_in_drilldown(id: &BatchId<'_>, within: Option<Within<'_>>) -> String {
    let of_batch = of_batch(id, within);
    format!(
        "FROM outcomes WHERE {of_batch} AND {} AND {} \
         AND (kafka_offset, record_index) NOT IN (SELECT kafka_offset, record_index FROM drilldown WHERE {of_batch})",
        drilldown::received_lately(),
        drilldown::kept()
    )
}

/// [`Facts`] that outlive their reading.
#[derive(Row, Deserialize)]
struct OwnedFacts {
    tenant: String,
    completed_at: i64,
    issuer: String,
    entry_mode: u16,
    carrier: String,
    region: String,
    acquirer: String,
    host: String,
    model: String,
    firmware: String,
    merchant_group: String,
    tag: String,
    cause: i8,
    currency: String,
    amount_minor: i64,
    sign: i8,
}

impl OwnedFacts {
    fn facts(&self) -> Facts<'_> {
        Facts {
            tenant: &self.tenant,
            completed_at: self.completed_at,
            dimensions: Dimensions {
                issuer: &self.issuer,
                entry_mode: self.entry_mode,
                carrier: &self.carrier,
                region: &self.region,
                acquirer: &self.acquirer,
                host: &self.host,
                model: &self.model,
                firmware: &self.firmware,
                merchant_group: &self.merchant_group,
            },
            tag: &self.tag,
            cause: self.cause,
            currency: &self.currency,
            amount_minor: self.amount_minor,
            sign: self.sign,
        }
    }
}
