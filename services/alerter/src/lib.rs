//! The alerter: finds what goes wrong in the counts, keeps one incident for each fault, and tells those who are on call.

mod alertmanager;
mod attribution;
mod backtest;
mod calendar;
mod config;
mod contract;
mod corrections;
mod counts;
mod desk;
mod explanations;
mod settlement;
mod tenant;
mod watch;
mod watermarks;
mod webhook;
mod words;

use std::path::Path;
use std::time::Duration;

use faultline_rules::{RuleFiles, RuleFilesError};
use faultline_runtime::error::with_causes;
use faultline_runtime::readiness::Readiness;
use faultline_store::{ClickHouseConfig, Database, StoreError};
use faultline_stream::{CLASSIFIERS, Cluster, KafkaConfig, LogError, Progress, StreamError};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::alertmanager::{Alertmanager, Board};
pub use crate::backtest::{Backtest, BacktestError};
use crate::calendar::CalendarFile;
pub use crate::calendar::CalendarFileError;
pub use crate::config::{AlerterConfig, AlertmanagerConfig, AttributionConfig, WebhookConfig};
pub use crate::corrections::{CorrectionJournal, Corrections, CorrectionsError, correction};
use crate::watch::{DETECTION, PAUSE, Shared, watch};
use crate::watermarks::Watermarks;
use crate::webhook::Webhook;

/// How long a correction may take to its end, once the alerter is to stop.
const CORRECTING_WITHIN: Duration = Duration::from_secs(20);

/// Why the alerter does not run.
#[derive(Debug, thiserror::Error)]
pub enum AlerterError {
    /// A setting is not one.
    #[error("configuration key `alerter.{key}`: {reason}")]
    Setting {
        /// The key, after `alerter.`.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The calendar is none.
    #[error("configuration key `alerter.calendar`")]
    Calendar(#[from] CalendarFileError),
    /// The rules that come with the program are none.
    #[error("the rules of this program")]
    Rules(#[from] RuleFilesError),
    /// Kafka is not one to use.
    #[error(transparent)]
    Kafka(#[from] StreamError),
    /// Another alerter is at work.
    #[error(transparent)]
    Log(#[from] LogError),
    /// ClickHouse is not one to use.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An alerter that is set up and does not work yet.
pub struct Alerter {
    cluster: Cluster,
    shared: Shared,
    webhook: Webhook,
    alertmanager: Alertmanager,
}

impl Alerter {
    /// Checks the settings. Kafka and ClickHouse are not asked anything yet, and `readiness` says so.
    ///
    /// # Errors
    /// When a setting is not what it is to be.
    pub fn new(
        config: &AlerterConfig,
        kafka: &KafkaConfig,
        clickhouse: &ClickHouseConfig,
        readiness: &Readiness,
    ) -> Result<Alerter, AlerterError> {
        let refused = |(key, reason)| AlerterError::Setting { key, reason };
        config.check().map_err(refused)?;
        let console = config.console().map_err(|reason| refused(("console_url", reason)))?;
        let (notices, webhook) = webhook::set_up(&config.webhook, console.clone()).map_err(|reason| refused(("webhook.url", reason)))?;
        let alertmanager = Alertmanager::new(&config.alertmanager, console).map_err(|reason| refused(("alertmanager.urls", reason)))?;
        readiness.expect(DETECTION);
        let shared = Shared {
            config: config.clone(),
            kafka: kafka.clone(),
            database: Database::new(clickhouse)?.recent(),
            progress: Progress::new(kafka, CLASSIFIERS)?,
            watermarks: Watermarks::default(),
            readiness: readiness.clone(),
            notices,
            board: Board::default(),
            calendar: CalendarFile::read(&config.calendar)?,
            rules: RuleFiles::read(Path::new(""))?,
            correcting: Mutex::default(),
        };
        Ok(Alerter { cluster: Cluster::new(kafka)?, shared, webhook, alertmanager })
    }

    /// Attributes failures by these rules: those by which they are judged. Without this, by those that come with the program.
    #[must_use]
    pub fn with_rules(mut self, rules: RuleFiles) -> Alerter {
        self.shared.rules = rules;
        self
    }

    /// Works until `stop`, and until what is being corrected then is done, if that is soon. What was not told by then is told by the next. While Kafka or ClickHouse do not answer it waits, and goes on where it was.
    ///
    /// # Errors
    /// When Kafka's topics are not ones to rely on, the schema in ClickHouse is not ours, or another alerter has taken over.
    pub async fn serve(self, stop: CancellationToken) -> Result<(), AlerterError> {
        counts::describe();
        let Alerter { cluster, shared, webhook, alertmanager } = self;
        let working = async {
            prepare(&cluster, &shared).await?;
            tokio::select! {
                watched = watch(&shared) => Ok(watched?),
                never = settlement::settle(&shared) => never,
                never = attribution::attribute(&shared) => never,
                never = shared.rules.follow(|_| {}) => never,
                never = shared.calendar.follow() => never,
                never = shared.keep_watermarks() => never,
                () = webhook.deliver(&shared.database) => Ok(()),
                () = alertmanager.keep_told(&shared.board) => Ok(()),
            }
        };
        let stopped = async {
            stop.cancelled().await;
            // A correction that is left in its midst is waited for by the next who corrects, until it is certain that nobody goes on with it.
            let _ = timeout(CORRECTING_WITHIN, shared.correcting.lock()).await;
        };
        tokio::select! {
            worked = working => worked,
            () = stopped => Ok(()),
        }
    }
}

/// Makes sure of the topics and the schema.
async fn prepare(cluster: &Cluster, shared: &Shared) -> Result<(), AlerterError> {
    let topics = async || {
        cluster.probe().await?;
        cluster.ensure_topics().await?;
        cluster.check_topics().await
    };
    let schema = async || {
        shared.database.probe().await?;
        shared.database.migrate().await.map(|_| ())
    };
    until(shared, topics, StreamError::is_worth_a_retry).await?;
    until(shared, schema, StoreError::is_worth_a_retry).await?;
    shared.is_in_trouble("looks at what was counted in the last hour".into());
    Ok(())
}

/// Does something again and again until it is done; that alone does not make the alerter ready.
async fn until<E: std::error::Error>(
    shared: &Shared,
    mut act: impl AsyncFnMut() -> Result<(), E>,
    is_worth_a_retry: impl Fn(&E) -> bool,
) -> Result<(), E> {
    loop {
        match act().await {
            Err(error) if is_worth_a_retry(&error) => shared.is_in_trouble(with_causes(&error)),
            done => return done,
        }
        sleep(PAUSE).await;
    }
}
