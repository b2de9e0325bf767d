//! The connection to ClickHouse.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use clickhouse::{Client, Row};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};

use crate::address::HttpUrl;
use crate::clock::ServerClock;
use crate::migrations::{CREATE_RECORD, HistoryError, MIGRATIONS, Migrated, Migration, pending};

/// How many days outcomes may be kept: longer than Kafka keeps their records (7 days, and as long again until it closes the file that they are in),
/// since what is unknown of a batch is found among them.
const KEEP_OUTCOMES_DAYS: RangeInclusive<u32> = 15..=3660;
/// How many days counts may be kept: longer than the oldest events that terminals report (30 days).
const KEEP_ROLLUP_DAYS: RangeInclusive<u32> = 35..=3660;
/// How long after it was wanted the server may get to an insert, in seconds.
const INSERT_WANTED_S: i64 = 120;
/// How many inserts a table has to remember (`non_replicated_deduplication_window`): far more than come while one is wanted.
const REMEMBERED_INSERTS: u64 = 100_000;
/// How long a probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a question may take that somebody asks who looks at the answer.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// What of the server's memory such a question may use, and how many of its threads.
const LOOK_MEMORY_BYTES: u64 = 1 << 30;
const LOOK_THREADS: u8 = 4;

/// Settings of ClickHouse.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClickHouseConfig {
    /// Address of its HTTP interface.
    pub url: HttpUrl,
    /// Database that holds Faultline's tables; created if missing.
    pub database: String,
    /// User.
    pub user: String,
    /// That user's password. Never written out again.
    #[serde(skip_serializing)]
    pub password: SecretString,
    /// Days that outcomes are kept, from their receipt.
    pub keep_outcomes_days: u32,
    /// Days that counts are kept, from the time that they are of.
    pub keep_rollup_days: u32,
}

impl Default for ClickHouseConfig {
    #[expect(clippy::expect_used, reason = "a constant that a test reads")]
    fn default() -> Self {
        ClickHouseConfig {
            url: "http://127.0.0.1:8123".parse().expect("a constant"),
            database: "faultline".into(),
            user: "default".into(),
            password: SecretString::default(),
            keep_outcomes_days: 90,
            keep_rollup_days: 400,
        }
    }
}

/// What went wrong with ClickHouse.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The name of the database is not one.
    #[error("`{0}` (`clickhouse.database`) is not a name for a database: 1 to 64 of a-z, A-Z, 0-9 and _, not beginning with a digit")]
    Name(String),
    /// A time to keep something is outside its limits.
    #[error("configuration key `clickhouse.{key}`: {value} is not within {} to {} days", limits.start(), limits.end())]
    Keep {
        /// The key, after `clickhouse.`.
        key: &'static str,
        /// Its value.
        value: u32,
        /// Fewest and most days.
        limits: RangeInclusive<u32>,
    },
    /// The server did not do what it was asked to.
    #[error("ClickHouse at {url} did not {what}")]
    Request {
        /// Address of the server.
        url: String,
        /// What it was asked to do.
        what: String,
        /// What the server or the network says.
        source: clickhouse::error::Error,
    },
    /// Rows that the server said it stored cannot be found.
    #[error("ClickHouse at {url} says that it stored {rows} rows of batch {batch}, again and again, and does not have them")]
    Vanishing {
        /// Address of the server.
        url: String,
        /// The batch.
        batch: String,
        /// How many rows.
        rows: usize,
    },
    /// The schema is not there yet, or not all of it.
    #[error(
        "database {database} of ClickHouse at {url} is not prepared: {steps} steps of its schema are missing, which the classifier and the alerter take when they start"
    )]
    Unprepared {
        /// Address of the server.
        url: String,
        /// The database.
        database: String,
        /// How many steps are missing.
        steps: usize,
    },
    /// A table remembers fewer inserts than it has to.
    #[error(
        "table {table} in database {database} of ClickHouse at {url} remembers {inserts} inserts (non_replicated_deduplication_window), and has to \
         remember {REMEMBERED_INSERTS}: two that write the same batch at once would both be believed"
    )]
    Forgetful {
        /// Address of the server.
        url: String,
        /// The database.
        database: String,
        /// The table.
        table: String,
        /// How many it remembers.
        inserts: u64,
    },
    /// The schema in the database does not fit this program.
    #[error("database {database} of ClickHouse at {url} cannot be used")]
    History {
        /// Address of the server.
        url: String,
        /// The database.
        database: String,
        /// What does not fit.
        source: HistoryError,
    },
}

impl StoreError {
    /// Whether asking again may help. What is left is for the operator to mend.
    #[must_use]
    pub fn is_worth_a_retry(&self) -> bool {
        matches!(self, StoreError::Request { .. } | StoreError::Vanishing { .. } | StoreError::Unprepared { .. })
    }
}

/// Faultline's database. Needs no answer to be made.
#[derive(Clone)]
pub struct Database {
    /// Works in the database, which need not exist.
    client: Client,
    clock: Arc<ServerClock>,
    config: ClickHouseConfig,
}

impl Database {
    /// Sets up a client; the server is not asked anything yet.
    ///
    /// # Errors
    /// When the name of the database is not one, or a setting is outside its limits.
    pub fn new(config: &ClickHouseConfig) -> Result<Database, StoreError> {
        let name = config.database.as_bytes();
        let is_word = name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        if !is_word || name.len() > 64 || name.first().is_none_or(u8::is_ascii_digit) {
            return Err(StoreError::Name(config.database.clone()));
        }
        for (key, value, limits) in [
            ("keep_outcomes_days", config.keep_outcomes_days, KEEP_OUTCOMES_DAYS),
            ("keep_rollup_days", config.keep_rollup_days, KEEP_ROLLUP_DAYS),
        ] {
            if !limits.contains(&value) {
                return Err(StoreError::Keep { key, value, limits });
            }
        }
        let client = Client::default()
            .with_url(config.url.to_string())
            .with_user(&config.user)
            .with_password(config.password.expose_secret())
            .with_database(&config.database);
        Ok(Database { client, clock: Arc::default(), config: config.clone() })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn url(&self) -> String {
        self.config.url.to_string()
    }

    /// A client for questions: one that nobody waits for any more is not worked on.
    pub(crate) fn asking(&self) -> Client {
        self.client.clone().with_setting("cancel_http_readonly_queries_on_client_close", "1")
    }

    /// A client for the questions of people: none may take the server for itself.
    pub(crate) fn looking(&self) -> Client {
        self.asking()
            .with_setting("max_execution_time", LOOK_TIMEOUT.as_secs().to_string())
            .with_setting("max_memory_usage", LOOK_MEMORY_BYTES.to_string())
            .with_setting("max_threads", LOOK_THREADS.to_string())
    }

    /// Waits for the answer to such a question.
    pub(crate) async fn look<T>(&self, what: &str, question: impl Future<Output = clickhouse::error::Result<T>>) -> Result<T, StoreError> {
        self.answer(what, LOOK_TIMEOUT, question).await
    }

    /// Waits for an answer, at most for `limit`.
    pub(crate) async fn answer<T>(
        &self,
        what: &str,
        limit: Duration,
        question: impl Future<Output = clickhouse::error::Result<T>>,
    ) -> Result<T, StoreError> {
        timeout(limit, question).await.unwrap_or(Err(clickhouse::error::Error::TimedOut)).map_err(self.failed(what))
    }

    /// Asks once whether the server is there and takes the credentials.
    ///
    /// # Errors
    /// When it does not answer within two seconds, with the reason.
    pub async fn probe(&self) -> Result<(), StoreError> {
        let asked = Instant::now();
        let question = self.client.clone().with_database("default").query("SELECT toUnixTimestamp64Milli(now64(3))");
        let unix_ms = self.answer("answer", PROBE_TIMEOUT, question.fetch_one::<i64>()).await?;
        self.clock.set(asked, unix_ms);
        Ok(())
    }

    /// Until when an insert may be taken that was wanted at a moment, in seconds since 1970-01-01 UTC by the server's clock. What comes later may have been given
    /// up and settled long ago, and its token forgotten.
    pub(crate) async fn deadline(&self, wanted: Instant) -> Result<i64, StoreError> {
        if self.clock.at(wanted).is_none() {
            self.probe().await?;
        }
        Ok(self.clock.at(wanted).unwrap_or_default() + INSERT_WANTED_S)
    }

    /// Creates the database if it is missing, takes every step of the schema that was not taken yet, and says how long rows are kept. Safe to run
    /// from several services at the same time.
    ///
    /// # Errors
    /// When the server refuses a statement, or the schema was made by a newer or an unreleased program.
    pub async fn migrate(&self) -> Result<Migrated, StoreError> {
        let database = &self.config.database;
        let outside = self.client.clone().with_database("default");
        self.execute(&outside, "create the database", &format!("CREATE DATABASE IF NOT EXISTS {database}")).await?;
        let client = &self.client;
        self.execute(client, "create the record of migrations", CREATE_RECORD).await?;
        let pending = self.pending().await?;
        for migration in &pending {
            for statement in migration.statements() {
                self.execute(client, &format!("take step {} ({}) of the schema", migration.version, migration.name), &statement).await?;
            }
            client
                .query("INSERT INTO schema_migrations (version, name, checksum) VALUES (?, ?, ?)")
                .bind(migration.version)
                .bind(migration.name)
                .bind(migration.checksum())
                .execute()
                .await
                .map_err(self.failed("record a migration"))?;
        }
        self.check_memory().await?;
        self.keep("outcomes", "toDateTime(received_at)", self.config.keep_outcomes_days).await?;
        self.keep("rollup", "bucket", self.config.keep_rollup_days).await?;
        let version = MIGRATIONS.last().map_or(0, |migration| migration.version);
        Ok(Migrated { version, applied: pending.iter().map(|migration| migration.name).collect() })
    }

    /// Looks whether the tables remember as many inserts as they have to.
    async fn check_memory(&self) -> Result<(), StoreError> {
        let sql = "SELECT name, toUInt64OrZero(extract(engine_full, 'non_replicated_deduplication_window = (\\\\d+)')) AS inserts \
                   FROM system.tables WHERE database = currentDatabase() AND name IN ('outcomes', 'rollup') ORDER BY inserts";
        let question = self.client.query(sql).fetch_all::<(String, u64)>();
        let tables = question.await.map_err(self.failed("say how many inserts its tables remember"))?;
        match tables.into_iter().find(|(_, inserts)| *inserts < REMEMBERED_INSERTS) {
            Some((table, inserts)) => {
                Err(StoreError::Forgetful { url: self.url(), database: self.config.database.clone(), table, inserts })
            }
            None => Ok(()),
        }
    }

    /// Looks whether the schema is the one that this program knows, and changes nothing.
    ///
    /// # Errors
    /// When the server does not answer, or steps are missing; or when the schema was made by a newer or an unreleased program.
    pub async fn check_schema(&self) -> Result<(), StoreError> {
        match self.pending().await?.len() {
            0 => Ok(()),
            steps => Err(StoreError::Unprepared { url: self.config.url.to_string(), database: self.config.database.clone(), steps }),
        }
    }

    /// The steps of the schema that were not taken yet.
    async fn pending(&self) -> Result<Vec<&'static Migration>, StoreError> {
        let history = |source| StoreError::History { url: self.config.url.to_string(), database: self.config.database.clone(), source };
        pending(MIGRATIONS, &self.applied(&self.client).await?).map_err(history)
    }

    /// Says how many days the rows of a table are kept, unless that is what is said already.
    async fn keep(&self, table: &str, from: &str, days: u32) -> Result<(), StoreError> {
        let ttl = format!("{from} + toIntervalDay({days})");
        let is_said = "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = ? AND position(engine_full, ?) > 0";
        let question = self.client.query(is_said).bind(table).bind(format!("TTL {ttl} "));
        let said = question.fetch_one::<u64>().await.map_err(self.failed("say how long rows are kept"))?;
        if said > 0 {
            return Ok(());
        }
        let statement = format!("ALTER TABLE {table} MODIFY TTL {ttl} SETTINGS materialize_ttl_after_modify = 0");
        self.execute(&self.client, "change how long rows are kept", &statement).await
    }

    /// The checksums of the steps that were taken.
    async fn applied(&self, client: &Client) -> Result<BTreeMap<u32, String>, StoreError> {
        #[derive(Row, Deserialize)]
        struct Applied {
            version: u32,
            checksum: String,
        }
        let query = client.query("SELECT version, any(checksum) AS checksum FROM schema_migrations GROUP BY version");
        let rows = query.fetch_all::<Applied>().await.map_err(self.failed("say which migrations were taken"))?;
        Ok(rows.into_iter().map(|row| (row.version, row.checksum)).collect())
    }

    async fn execute(&self, client: &Client, what: &str, statement: &str) -> Result<(), StoreError> {
        client.query(statement).execute().await.map_err(self.failed(what))
    }

    pub(crate) fn failed(&self, what: &str) -> impl FnOnce(clickhouse::error::Error) -> StoreError {
        let (url, what) = (self.config.url.to_string(), what.to_owned());
        move |source| StoreError::Request { url, what, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_a_word_is_refused() {
        for name in ["", "1st", "a-b", "a; DROP DATABASE b", "äöü"] {
            let config = ClickHouseConfig { database: name.into(), ..ClickHouseConfig::default() };
            let message = Database::new(&config).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(message.contains("clickhouse.database"), "{name}: {message}");
        }
    }

    #[test]
    fn a_time_to_keep_that_is_outside_its_limits_is_named() {
        let right = ClickHouseConfig::default();
        for (wrong, said) in [
            (ClickHouseConfig { keep_outcomes_days: 14, ..right.clone() }, "`clickhouse.keep_outcomes_days`: 14 is not within 15 to 3660"),
            (ClickHouseConfig { keep_rollup_days: 34, ..right.clone() }, "`clickhouse.keep_rollup_days`: 34 is not within 35 to 3660"),
        ] {
            let message = Database::new(&wrong).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(message.contains(said), "{message}");
        }
    }

    #[test]
    fn the_password_is_not_shown() {
        let config = ClickHouseConfig { password: "hunter2".to_owned().into(), ..ClickHouseConfig::default() };
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
