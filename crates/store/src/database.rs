//! The connection to ClickHouse.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use clickhouse::Client;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::address::{HttpUrl, HttpUrls};
use crate::migrations::{HistoryError, MIGRATIONS, Migrated};
use crate::server::{KEPT_FREE_BYTES, REMEMBERED_INSERTS, Server};

/// How many days outcomes may be kept: longer than Kafka keeps their records (7 days, and as long again until it closes the file that they are in),
/// since what is unknown of a batch is found among them.
const KEEP_OUTCOMES_DAYS: RangeInclusive<u32> = 15..=3660;
/// How many days counts may be kept: longer than the oldest events that terminals report (30 days).
const KEEP_ROLLUP_DAYS: RangeInclusive<u32> = 35..=3660;
/// Longest name of a database: that of all shards has four more.
const LONGEST_NAME: usize = 64;

/// Settings of ClickHouse.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClickHouseConfig {
    /// Address of its HTTP interface; of several shards, of the server that questions are asked of.
    pub url: HttpUrl,
    /// Addresses of all shards, in the order of the cluster, which is for life: a partition's number modulo theirs says where it is stored. Empty: all is at `url`.
    pub shards: HttpUrls,
    /// What the servers call the cluster of these shards (`remote_servers`); empty where there are none.
    pub cluster: String,
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
    /// Take a server that may fill its disks to the last byte, and then lose rows that it said it stored.
    pub allow_full_disk: bool,
}

impl Default for ClickHouseConfig {
    #[expect(clippy::expect_used, reason = "a constant that a test reads")]
    fn default() -> Self {
        ClickHouseConfig {
            url: "http://127.0.0.1:8123".parse().expect("a constant"),
            shards: HttpUrls::default(),
            cluster: String::new(),
            database: "faultline".into(),
            user: "default".into(),
            password: SecretString::default(),
            keep_outcomes_days: 90,
            keep_rollup_days: 400,
            allow_full_disk: false,
        }
    }
}

/// What went wrong with ClickHouse.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The name of the database is not one.
    #[error("`{0}` (`clickhouse.database`) is not a name for a database: 1 to 64 of a-z, A-Z, 0-9 and _, not beginning with a digit")]
    Name(String),
    /// Shards without a cluster, or a cluster without shards.
    #[error(
        "configuration keys `clickhouse.shards` and `clickhouse.cluster` go together, and there are {shards} shards and the cluster `{cluster}`"
    )]
    Cluster {
        /// How many shards.
        shards: usize,
        /// The name of the cluster.
        cluster: String,
    },
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
    /// A step of a correction is none that Faultline makes.
    #[error("step {step} of correction {correction} cannot be made: `{field}` is beyond its limits")]
    Step {
        /// The correction.
        correction: String,
        /// Number of the step.
        step: u64,
        /// The field that no row can have.
        field: &'static str,
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
    /// A disk may become full.
    #[error(
        "disk {disk} of ClickHouse at {url} keeps {kept} bytes free (keep_free_space_bytes), and has to keep {KEPT_FREE_BYTES}: on a full disk rows can be \
         lost that it said it stored; set it in the server's storage_configuration, or accept that with `clickhouse.allow_full_disk = true`"
    )]
    FullDisk {
        /// Address of the server.
        url: String,
        /// Name of the disk.
        disk: String,
        /// Bytes that it keeps free.
        kept: u64,
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

/// Faultline's database, on one server or on several shards. Needs no answer to be made.
///
/// What is of a partition of the outcomes topic is on the shard that its number gives, modulo their number; what is of none is on the first. What is asked
/// of all is asked of one server, over tables that gather those of all shards.
#[derive(Clone)]
pub struct Database {
    shards: Arc<[Server]>,
    /// Where questions are asked.
    asked: Server,
    /// The table in which what failed is looked for.
    failures: &'static str,
    config: ClickHouseConfig,
}

impl Database {
    /// Sets up clients; no server is asked anything yet.
    ///
    /// # Errors
    /// When the name of the database is not one, or a setting is outside its limits.
    pub fn new(config: &ClickHouseConfig) -> Result<Database, StoreError> {
        let name = config.database.as_bytes();
        let is_word = name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        if !is_word || name.len() > LONGEST_NAME || name.first().is_none_or(u8::is_ascii_digit) {
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
        if config.shards.0.is_empty() != config.cluster.is_empty() {
            return Err(StoreError::Cluster { shards: config.shards.0.len(), cluster: config.cluster.clone() });
        }
        if config.shards.0.is_empty() {
            let server = Server::new(config, &config.url, &config.database);
            return Ok(Database { shards: [server.clone()].into(), asked: server, failures: "outcomes", config: config.clone() });
        }
        let shards = config.shards.0.iter().map(|url| Server::new(config, url, &config.database)).collect();
        let asked = Server::new(config, &config.url, &gathered(config));
        Ok(Database { shards, asked, failures: "outcomes", config: config.clone() })
    }

    /// The same for whoever looks at what happens now: what failed is looked for among the rows that are kept for this, at a fraction of the cost. These were received in the last 14 days.
    #[must_use]
    pub fn recent(self) -> Database {
        Database { failures: "drilldown", ..self }
    }

    /// The table in which what failed is looked for.
    pub(crate) fn failures(&self) -> &'static str {
        self.failures
    }

    /// Number of the shard that a partition is on, from 0.
    #[must_use]
    pub fn shard_of(&self, partition: u16) -> usize {
        usize::from(partition) % self.shards.len()
    }

    /// How many shards there are; 1 where there is one server.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// The shard that a partition is on.
    pub(crate) fn shard(&self, partition: u16) -> &Server {
        self.shards.get(self.shard_of(partition)).unwrap_or(&self.asked)
    }

    /// All of them.
    pub(crate) fn shards(&self) -> &[Server] {
        &self.shards
    }

    /// Where that is which is of no partition.
    pub(crate) fn first(&self) -> &Server {
        self.shard(0)
    }

    /// A client for questions about all: one that nobody waits for any more is not worked on.
    pub(crate) fn asking(&self) -> Client {
        // What belongs to a row is on the row's shard, so what is asked in brackets is asked there.
        self.asked.asking().with_setting("distributed_product_mode", "local")
    }

    /// A client for questions that are asked long before their answers are needed: others that come meanwhile go first.
    pub(crate) fn patient(&self) -> Client {
        self.asking().with_setting("priority", "2").with_setting("max_threads", "1")
    }

    /// A client for the questions of people: none may take the server for itself.
    pub(crate) fn looking(&self) -> Client {
        self.asked.looking().with_setting("distributed_product_mode", "local")
    }

    /// Waits for the answer to such a question.
    pub(crate) async fn look<T>(&self, what: &str, question: impl Future<Output = clickhouse::error::Result<T>>) -> Result<T, StoreError> {
        self.asked.look(what, question).await
    }

    /// Waits for an answer, at most for `limit`.
    pub(crate) async fn answer<T>(
        &self,
        what: &str,
        limit: Duration,
        question: impl Future<Output = clickhouse::error::Result<T>>,
    ) -> Result<T, StoreError> {
        self.asked.answer(what, limit, question).await
    }

    /// Asks every server once whether it is there and takes the credentials.
    ///
    /// # Errors
    /// When one does not answer within two seconds, with the reason.
    pub async fn probe(&self) -> Result<(), StoreError> {
        for server in self.shards.iter().chain([&self.asked]) {
            server.probe().await?;
        }
        Ok(())
    }

    /// Creates the database if it is missing, takes every step of the schema that was not taken yet, and says how long rows are kept. Safe to run
    /// from several services at the same time.
    ///
    /// # Errors
    /// When a server refuses a statement, or the schema was made by a newer or an unreleased program.
    pub async fn migrate(&self) -> Result<Migrated, StoreError> {
        let mut applied = Vec::new();
        for shard in self.shards.iter() {
            for step in shard.take_steps().await?.iter().map(|step| step.name) {
                if !applied.contains(&step) {
                    applied.push(step);
                }
            }
            shard.check_memory().await?;
            if !self.config.allow_full_disk {
                shard.check_room().await?;
            }
            shard.keep("outcomes", "toDateTime(received_at)", self.config.keep_outcomes_days).await?;
            shard.keep("rollup", "bucket", self.config.keep_rollup_days).await?;
        }
        if !self.config.cluster.is_empty() {
            self.gather().await?;
        }
        Ok(Migrated { version: MIGRATIONS.last().map_or(0, |step| step.version), applied })
    }

    /// Makes the tables that gather those of all shards, where questions are asked. They hold nothing, so they are made again with every column.
    async fn gather(&self) -> Result<(), StoreError> {
        let (asked, ClickHouseConfig { database, cluster, .. }) = (&self.asked, &self.config);
        let outside = asked.client().clone().with_database("default");
        let gathered = gathered(&self.config);
        asked.execute(&outside, "create the database of all shards", &format!("CREATE DATABASE IF NOT EXISTS {gathered}")).await?;
        let tables = "SELECT name FROM clusterAllReplicas(?, system.tables) WHERE database = ? AND name != 'schema_migrations' GROUP BY name ORDER BY name";
        let tables = outside.query(tables).bind(cluster).bind(database).fetch_all::<String>();
        for table in tables.await.map_err(asked.failed("say which tables its shards have"))? {
            let structure = "SELECT arrayStringConcat(groupArray(concat('`', name, '` ', type)), ', ') FROM \
                             (SELECT name, type FROM cluster(?, system.columns) WHERE database = ? AND table = ? \
                              ORDER BY position LIMIT 1 BY name)";
            let structure = outside.query(structure).bind(cluster).bind(database).bind(&table).fetch_one::<String>();
            let structure = structure.await.map_err(asked.failed("say what columns its shards have"))?;
            let statement =
                format!("CREATE OR REPLACE TABLE {table} ({structure}) ENGINE = Distributed('{cluster}', '{database}', '{table}')");
            asked.execute(asked.client(), "gather the tables of its shards", &statement).await?;
        }
        Ok(())
    }

    /// Looks whether the schema is the one that this program knows, and changes nothing.
    ///
    /// # Errors
    /// When a server does not answer, or steps are missing; or when the schema was made by a newer or an unreleased program.
    pub async fn check_schema(&self) -> Result<(), StoreError> {
        for shard in self.shards.iter() {
            let steps = shard.pending().await?.len();
            if steps > 0 {
                return Err(StoreError::Unprepared { url: shard.url(), database: self.config.database.clone(), steps });
            }
        }
        Ok(())
    }

    pub(crate) fn failed(&self, what: &str) -> impl FnOnce(clickhouse::error::Error) -> StoreError {
        self.asked.failed(what)
    }
}

/// The database with the tables that gather those of all shards.
fn gathered(config: &ClickHouseConfig) -> String {
    format!("{}_all", config.database)
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
    fn shards_and_their_cluster_go_together() {
        let shards: HttpUrls = "http://a:8123,http://b:8123".to_owned().try_into().unwrap();
        let config = ClickHouseConfig { shards, ..ClickHouseConfig::default() };
        let message = Database::new(&config).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(message.contains("`clickhouse.shards` and `clickhouse.cluster` go together"), "{message}");
        let database = Database::new(&ClickHouseConfig { cluster: "faultline".into(), ..config }).unwrap();
        assert_eq!((0..4).map(|partition| database.shard_of(partition)).collect::<Vec<_>>(), [0, 1, 0, 1]);
    }

    #[test]
    fn the_password_is_not_shown() {
        let config = ClickHouseConfig { password: "hunter2".to_owned().into(), ..ClickHouseConfig::default() };
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
