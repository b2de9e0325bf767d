//! The way through: batches from Kafka, judged event by event, into ClickHouse, each once.

mod config;
mod counts;
mod gather;
mod judged;
mod pipeline;
mod replays;
mod report;
mod samples;
mod seen;
mod standing;
mod tables;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use faultline_rules::{RuleFiles, RuleFilesError};
use faultline_runtime::error::with_causes;
use faultline_runtime::readiness::Readiness;
use faultline_store::{ClickHouseConfig, Database, StoreError};
use faultline_stream::{CLASSIFIERS, Cluster, DeadLetters, KafkaConfig, Source, StreamError};
use faultline_verdict::{Issuers, IssuersError, Rules};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

pub use crate::config::ClassifierConfig;
use crate::pipeline::{Room, Shared};
use crate::standing::Standings;

/// What the classifier calls what it depends on, where it says what is in its way.
const CONSUMER: &str = "Kafka consumer";
const CLICKHOUSE: &str = "ClickHouse";
const BATCHES: &str = "storing batches";
/// How long the first partitions may take before it is said that they do.
const FIRST_PARTITIONS: Duration = Duration::from_secs(5);
/// Searches among rows at one moment, as are made when partitions come.
const SEARCHES: usize = 2;
/// Pause between two looks at each.
const CHECK_PAUSE: Duration = Duration::from_secs(2);

/// Why the classifier does not run.
#[derive(Debug, thiserror::Error)]
pub enum ClassifierError {
    /// A setting is not one.
    #[error("configuration key `classifier.{key}`: {reason}")]
    Setting {
        /// The key, after `classifier.`.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The file with the table of issuers cannot be read.
    #[error("configuration key `classifier.issuers_file`: cannot read {}", path.display())]
    IssuersFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The table of issuers cannot be used.
    #[error("configuration key `classifier.issuers_file`: {} is no table of issuers", path.display())]
    Issuers {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: IssuersError,
    },
    /// The rules cannot be used.
    #[error("configuration key `classifier.rules`")]
    Rules(#[from] RuleFilesError),
    /// Kafka is not one to read from.
    #[error(transparent)]
    Kafka(#[from] StreamError),
    /// ClickHouse is not one to write to.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A classifier that is set up and does not work yet.
pub struct Classifier {
    cluster: Cluster,
    source: Source,
    shared: Arc<Shared>,
    rules: RuleFiles,
    readiness: Readiness,
}

impl Classifier {
    /// Reads rules and issuers. Kafka and ClickHouse are not asked anything yet, and `readiness` says so.
    ///
    /// # Errors
    /// When a setting or a file that it names is not what it is to be.
    pub fn new(
        config: &ClassifierConfig,
        kafka: &KafkaConfig,
        clickhouse: &ClickHouseConfig,
        readiness: &Readiness,
    ) -> Result<Classifier, ClassifierError> {
        config.check().map_err(|(key, reason)| ClassifierError::Setting { key, reason })?;
        let queued_bytes = usize::try_from(config.queue_bytes.as_u64()).unwrap_or(usize::MAX);
        let rules = RuleFiles::read(&config.rules)?;
        let dead_letters = DeadLetters::new(kafka, rules.in_force().version())?;
        let database = Database::new(clickhouse)?;
        let batches = usize::try_from(config.concurrent_batches).unwrap_or(1);
        let rooms = (0..database.shard_count()).map(|_| Room::new(batches, SEARCHES)).collect();
        let classifier = Classifier {
            cluster: Cluster::new(kafka)?,
            source: Source::new(kafka, CLASSIFIERS, queued_bytes)?,
            shared: Arc::new(Shared {
                database,
                dead_letters,
                rules: rules.subscribe(),
                issuers: issuers(&config.issuers_file)?,
                rooms,
                standings: Standings::default(),
                config: config.clone(),
            }),
            rules,
            readiness: readiness.clone(),
        };
        readiness.expect(CONSUMER);
        readiness.expect(CLICKHOUSE);
        readiness.expect(BATCHES);
        Ok(classifier)
    }

    /// Works until `stop`, then stores what was begun, at most for `classifier.drain_within`, and ends. While Kafka or ClickHouse do not answer it
    /// waits, and goes on where it was.
    ///
    /// # Errors
    /// When Kafka answers at first and its topics are not ones to rely on, the schema in ClickHouse is not ours, or reading fails for good.
    pub async fn serve(self, stop: CancellationToken) -> Result<(), ClassifierError> {
        counts::describe();
        let prepared = tokio::select! {
            prepared = self.prepare() => prepared,
            () = stop.cancelled() => return Ok(()),
        };
        prepared?;
        let rules = Arc::clone(&self.shared.rules.borrow());
        tracing::info!(rules = rules.version(), issuers = self.shared.issuers.version(), "the classifier works");
        let work = |partition| {
            let shared = Arc::clone(&self.shared);
            async move { pipeline::work(partition, &shared).await }
        };
        let worked = tokio::select! {
            worked = self.source.run(stop, self.shared.config.drain_within, work) => worked,
            never = self.watch_kafka() => never,
            never = self.watch_clickhouse() => never,
            never = self.watch_batches() => never,
            never = self.watch_rules() => never,
        };
        self.source.leave().await;
        Ok(worked?)
    }

    /// Makes sure of the topics and the schema.
    async fn prepare(&self) -> Result<(), ClassifierError> {
        let topics = async || {
            self.cluster.probe().await?;
            self.cluster.ensure_topics().await?;
            self.cluster.check_topics().await
        };
        let schema = async || {
            self.shared.database.probe().await?;
            self.shared.database.migrate().await.map(|_| ())
        };
        let topics = async { Ok(self.readiness.until_prepared(CONSUMER, topics, StreamError::is_worth_a_retry).await?) };
        let schema = async { Ok(self.readiness.until_prepared(CLICKHOUSE, schema, StoreError::is_worth_a_retry).await?) };
        tokio::try_join!(topics, schema).map(|_| ())
    }

    async fn watch_kafka(&self) -> ! {
        let check = async || {
            self.cluster.check_topics().await.map_err(|error| Obstacle(with_causes(&error)))?;
            self.source.last_problem().map_or(Ok(()), |problem| Err(Obstacle(problem)))
        };
        self.readiness.watch(CONSUMER, CHECK_PAUSE, check).await
    }

    async fn watch_clickhouse(&self) -> ! {
        self.readiness.watch(CLICKHOUSE, CHECK_PAUSE, async || self.shared.database.probe().await).await
    }

    /// A batch that is being judged is judged to its end by the rules that it began with.
    async fn watch_rules(&self) -> ! {
        let told = |rules: Option<&Rules>| {
            counts::rules_load(if rules.is_some() { "ok" } else { "failed" });
            if let Some(rules) = rules {
                self.shared.dead_letters.judges_by(rules.version());
            }
        };
        self.rules.follow(told).await
    }

    async fn watch_batches(&self) -> ! {
        let check = async || {
            self.shared.standings.count_lag();
            if !self.source.has_joined() {
                return Err(Obstacle("no partitions were given to this process yet".into()));
            }
            self.shared.standings.trouble().map_or(Ok(()), |trouble| Err(Obstacle(trouble)))
        };
        // At first, partitions are on their way.
        let first = async {
            while check().await.is_err() {
                sleep(CHECK_PAUSE / 20).await;
            }
        };
        let _ = timeout(FIRST_PARTITIONS, first).await;
        self.readiness.watch(BATCHES, CHECK_PAUSE, check).await
    }
}

/// The table of issuers of a file; an empty path stands for the one that comes with the program.
///
/// # Errors
/// When the file cannot be read, or is no such table.
pub fn issuers(path: &Path) -> Result<Issuers, ClassifierError> {
    let unusable = |source| ClassifierError::Issuers { path: path.into(), source };
    if path.as_os_str().is_empty() {
        return Issuers::built_in().map_err(unusable);
    }
    let text = std::fs::read_to_string(path).map_err(|source| ClassifierError::IssuersFile { path: path.into(), source })?;
    Issuers::parse(&text).map_err(unusable)
}

/// What is in the way, in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Obstacle(String);
