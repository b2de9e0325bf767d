//! The connection to ClickHouse.

use std::collections::BTreeMap;
use std::time::Duration;

use clickhouse::{Client, Row};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::address::HttpUrl;
use crate::migrations::{CREATE_RECORD, HistoryError, MIGRATIONS, Migrated, pending};

/// How long a probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

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
}

impl Default for ClickHouseConfig {
    #[expect(clippy::expect_used, reason = "a constant that a test reads")]
    fn default() -> Self {
        ClickHouseConfig {
            url: "http://127.0.0.1:8123".parse().expect("a constant"),
            database: "faultline".into(),
            user: "default".into(),
            password: SecretString::default(),
        }
    }
}

/// What went wrong with ClickHouse.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The name of the database is not one.
    #[error("`{0}` (`clickhouse.database`) is not a name for a database: 1 to 64 of a-z, A-Z, 0-9 and _, not beginning with a digit")]
    Name(String),
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

/// Faultline's database. Needs no answer to be made.
#[derive(Clone)]
pub struct Database {
    client: Client,
    config: ClickHouseConfig,
}

impl Database {
    /// Sets up a client; the server is not asked anything yet.
    ///
    /// # Errors
    /// When the name of the database is not one.
    pub fn new(config: &ClickHouseConfig) -> Result<Database, StoreError> {
        let name = config.database.as_bytes();
        let is_word = name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        if !is_word || name.len() > 64 || name.first().is_none_or(u8::is_ascii_digit) {
            return Err(StoreError::Name(config.database.clone()));
        }
        let client =
            Client::default().with_url(config.url.to_string()).with_user(&config.user).with_password(config.password.expose_secret());
        Ok(Database { client, config: config.clone() })
    }

    /// Asks once whether the server is there and takes the credentials.
    ///
    /// # Errors
    /// When it does not answer within two seconds, with the reason.
    pub async fn probe(&self) -> Result<(), StoreError> {
        let probe = tokio::time::timeout(PROBE_TIMEOUT, self.client.query("SELECT 1").execute()).await;
        probe.unwrap_or(Err(clickhouse::error::Error::TimedOut)).map_err(self.failed("answer"))
    }

    /// Creates the database if it is missing, and takes every step of the schema that was not taken yet. Safe to run from several services at
    /// the same time.
    ///
    /// # Errors
    /// When the server refuses a statement, or the schema was made by a newer or an unreleased program.
    pub async fn migrate(&self) -> Result<Migrated, StoreError> {
        let database = &self.config.database;
        self.execute(&self.client, "create the database", &format!("CREATE DATABASE IF NOT EXISTS {database}")).await?;
        let client = self.client.clone().with_database(database);
        self.execute(&client, "create the record of migrations", CREATE_RECORD).await?;
        let pending = pending(MIGRATIONS, &self.applied(&client).await?).map_err(|source| StoreError::History {
            url: self.config.url.to_string(),
            database: database.clone(),
            source,
        })?;
        for migration in &pending {
            for statement in migration.statements() {
                self.execute(&client, &format!("take step {} ({}) of the schema", migration.version, migration.name), &statement).await?;
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
        let version = MIGRATIONS.last().map_or(0, |migration| migration.version);
        Ok(Migrated { version, applied: pending.iter().map(|migration| migration.name).collect() })
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

    fn failed(&self, what: &str) -> impl FnOnce(clickhouse::error::Error) -> StoreError {
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
    fn the_password_is_not_shown() {
        let config = ClickHouseConfig { password: "hunter2".to_owned().into(), ..ClickHouseConfig::default() };
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
