//! The console: what Faultline knows, for people. An HTTP API over what ClickHouse has, with its OpenAPI document, and a web page that uses it.

mod answer;
mod api;
mod config;
mod connections;
mod counts;
pub mod health;
mod hosts;
mod incident;
mod page;
mod problem;
mod question;
pub mod silence;
mod unknown_codes;

use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::middleware;
use faultline_rules::{RuleFiles, RuleFilesError};
use faultline_runtime::readiness::Readiness;
use faultline_store::{ClickHouseConfig, Database, StoreError};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tower_http::compression::CompressionLayer;

pub use crate::answer::Text;
use crate::api::Shared;
pub use crate::config::ConsoleConfig;
use crate::hosts::Hosts;
pub use crate::unknown_codes::UnknownCode;

/// The part that has to work.
const ANSWERS: &str = "the console's ClickHouse";
/// How often ClickHouse is asked whether it is there.
const CHECK_PAUSE: Duration = Duration::from_secs(5);
/// How long answers that were begun may take when the console stops.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);

/// Why the console does not run.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// A setting is not one.
    #[error("configuration key `console.{key}`: {reason}")]
    Setting {
        /// The key, after `console.`.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// ClickHouse is not one to use.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nobody could say what to do about a failure.
    #[error(transparent)]
    Rules(#[from] RuleFilesError),
}

/// A console that is set up and serves nobody yet.
pub struct Console {
    config: ConsoleConfig,
    rules: RuleFiles,
    database: Database,
    readiness: Readiness,
}

impl Console {
    /// Checks the settings. ClickHouse is not asked anything yet, and `readiness` says so.
    ///
    /// # Errors
    /// When a setting is not what it is to be.
    pub fn new(config: &ConsoleConfig, clickhouse: &ClickHouseConfig, readiness: &Readiness) -> Result<Console, ConsoleError> {
        config.check().map_err(|(key, reason)| ConsoleError::Setting { key, reason })?;
        let database = Database::new(clickhouse)?;
        readiness.expect(ANSWERS);
        let rules = RuleFiles::read(Path::new(""))?;
        Ok(Console { config: config.clone(), rules, database, readiness: readiness.clone() })
    }

    /// Advises by these rules: those by which outcomes are judged. Without this, by those that come with the program.
    #[must_use]
    pub fn with_rules(mut self, rules: RuleFiles) -> Console {
        self.rules = rules;
        self
    }

    /// Serves until `stop`; answers that were begun are finished, for five seconds at most. While ClickHouse does not answer, questions are answered with
    /// that.
    ///
    /// # Errors
    /// When the schema in ClickHouse is not ours.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> Result<(), ConsoleError> {
        counts::describe();
        let shared = Shared::new(self.database.clone(), self.rules.subscribe(), self.config.max_questions);
        let routes = router(shared, Hosts::listed(&self.config.hosts));
        let serving = connections::serve(listener, routes, self.config.max_connections, stop.clone());
        let watching = async {
            // It only reads, so the schema is made by others.
            let check = async || {
                self.database.probe().await?;
                self.database.check_schema().await
            };
            self.readiness.until_prepared(ANSWERS, check, StoreError::is_worth_a_retry).await?;
            self.readiness.watch(ANSWERS, CHECK_PAUSE, check).await
        };
        let stopped_long_ago = async {
            stop.cancelled().await;
            sleep(DRAIN_WITHIN).await;
        };
        tokio::select! {
            () = serving => Ok(()),
            failed = watching => failed,
            () = stopped_long_ago => Ok(()),
            never = self.rules.follow(|_| {}) => never,
        }
    }
}

/// Everything that is served: the API under `/api`, the page everywhere else.
fn router(shared: Shared, hosts: Hosts) -> Router {
    api::router(shared)
        .merge(page::router())
        .layer(middleware::from_fn_with_state(hosts, hosts::only_these))
        .layer(middleware::from_fn(counts::request))
        .layer(CompressionLayer::new())
        .layer(middleware::map_response(page::with_security_headers))
}
