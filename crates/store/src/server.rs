//! One server, and Faultline's database on it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clickhouse::{Client, Row};
use secrecy::ExposeSecret;
use serde::Deserialize;
use tokio::time::{Instant, timeout};

use crate::address::HttpUrl;
use crate::clock::ServerClock;
use crate::database::{ClickHouseConfig, StoreError};
use crate::migrations::{CREATE_RECORD, MIGRATIONS, Migration, pending};

/// How long after it was wanted the server may get to an insert, in seconds, where it is known what is there.
pub(crate) const WANTED_S: i64 = 120;
/// The same for one that relies on nobody else storing the same: less than the shortest time after which a silent reader is given up. A machine that was
/// suspended does not notice; the server's clock does.
pub(crate) const WANTED_AT_ONCE_S: i64 = 5;
/// How many inserts a table has to remember (`non_replicated_deduplication_window`): far more than come while one is wanted.
pub(crate) const REMEMBERED_INSERTS: u64 = 100_000;
/// What a disk of the server has to keep free (`keep_free_space_bytes`): more than others fill while it writes what it began when there was room.
pub(crate) const KEPT_FREE_BYTES: u64 = 64 << 20;
/// How long a probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a question may take that somebody asks who looks at the answer.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// What of the server's memory such a question may use, and how many of its threads.
const LOOK_MEMORY_BYTES: u64 = 1 << 30;
const LOOK_THREADS: u8 = 4;

/// A server, and a database on it. Needs no answer to be made.
#[derive(Clone)]
pub(crate) struct Server {
    /// Works in the database, which need not exist.
    client: Client,
    clock: Arc<ServerClock>,
    url: String,
    database: String,
}

impl Server {
    /// The server at an address, with the user and password of the configuration, and this database.
    pub(crate) fn new(config: &ClickHouseConfig, url: &HttpUrl, database: &str) -> Server {
        let client = Client::default()
            .with_url(url.to_string())
            .with_user(&config.user)
            .with_password(config.password.expose_secret())
            .with_database(database);
        Server { client, clock: Arc::default(), url: url.to_string(), database: database.into() }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    /// A client for questions: one that nobody waits for any more is not worked on, and those that can wait do.
    pub(crate) fn asking(&self) -> Client {
        self.client.clone().with_setting("cancel_http_readonly_queries_on_client_close", "1").with_setting("priority", "1")
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
    pub(crate) async fn probe(&self) -> Result<(), StoreError> {
        let asked = Instant::now();
        let question = self.client.clone().with_database("default").query("SELECT toUnixTimestamp64Milli(now64(3))");
        let unix_ms = self.answer("answer", PROBE_TIMEOUT, question.fetch_one::<i64>()).await?;
        self.clock.set(asked, unix_ms);
        Ok(())
    }

    /// Until when an insert may be taken that was wanted at a moment for so many seconds, in seconds since 1970-01-01 UTC by the server's clock. What comes later
    /// may have been given up and settled long ago, and its token forgotten.
    pub(crate) async fn deadline(&self, wanted: Instant, for_s: i64) -> Result<i64, StoreError> {
        if self.clock.at(wanted).is_none() {
            self.probe().await?;
        }
        Ok(self.clock.at(wanted).unwrap_or_default() + for_s)
    }

    /// Creates the database if it is missing, and takes every step of the schema that was not taken yet. Returns those.
    pub(crate) async fn take_steps(&self) -> Result<Vec<&'static Migration>, StoreError> {
        let outside = self.client.clone().with_database("default");
        self.execute(&outside, "create the database", &format!("CREATE DATABASE IF NOT EXISTS {}", self.database)).await?;
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
        Ok(pending)
    }

    /// Looks whether the tables remember as many inserts as they have to.
    pub(crate) async fn check_memory(&self) -> Result<(), StoreError> {
        let sql = "SELECT name, toUInt64OrZero(extract(engine_full, 'non_replicated_deduplication_window = (\\\\d+)')) AS inserts \
                   FROM system.tables WHERE database = currentDatabase() AND name IN ('outcomes', 'drilldown', 'rollup') ORDER BY inserts";
        let question = self.client.query(sql).fetch_all::<(String, u64)>();
        let tables = question.await.map_err(self.failed("say how many inserts its tables remember"))?;
        match tables.into_iter().find(|(_, inserts)| *inserts < REMEMBERED_INSERTS) {
            Some((table, inserts)) => Err(StoreError::Forgetful { url: self.url(), database: self.database.clone(), table, inserts }),
            None => Ok(()),
        }
    }

    /// Looks whether the server stops writing before its disks are full. Writes that fail for want of room are not noticed by every build: it says that it
    /// stored rows, and the files of their part are empty.
    pub(crate) async fn check_room(&self) -> Result<(), StoreError> {
        let sql = "SELECT name, keep_free_space FROM system.disks WHERE type = 'Local' AND NOT is_read_only ORDER BY keep_free_space";
        let question = self.client.query(sql).fetch_all::<(String, u64)>();
        let disks = question.await.map_err(self.failed("say what its disks keep free"))?;
        match disks.into_iter().find(|(_, kept)| *kept < KEPT_FREE_BYTES) {
            Some((disk, kept)) => Err(StoreError::FullDisk { url: self.url(), disk, kept }),
            None => Ok(()),
        }
    }

    /// The steps of the schema that were not taken yet.
    pub(crate) async fn pending(&self) -> Result<Vec<&'static Migration>, StoreError> {
        let history = |source| StoreError::History { url: self.url(), database: self.database.clone(), source };
        pending(MIGRATIONS, &self.applied(&self.client).await?).map_err(history)
    }

    /// Says how many days the rows of a table are kept, unless that is what is said already.
    pub(crate) async fn keep(&self, table: &str, from: &str, days: u32) -> Result<(), StoreError> {
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

    pub(crate) async fn execute(&self, client: &Client, what: &str, statement: &str) -> Result<(), StoreError> {
        client.query(statement).execute().await.map_err(self.failed(what))
    }

    pub(crate) fn failed(&self, what: &str) -> impl FnOnce(clickhouse::error::Error) -> StoreError {
        let (url, what) = (self.url(), what.to_owned());
        move |source| StoreError::Request { url, what, source }
    }
}
