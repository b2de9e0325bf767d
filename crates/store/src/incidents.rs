//! Incidents as they are kept for questions, and what was told of them.

use std::time::Duration;

use clickhouse::Row;
use faultline_proto::incident::v1::IncidentState;
use faultline_proto::verdict::v1::Cause;
use serde::{Deserialize, Serialize};

use crate::block::insert_rows;
use crate::database::{Database, StoreError};
use crate::findings::Findings;

/// How long a question may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How many revisions of an incident are shown.
const MAX_REVISIONS: u32 = 200;

/// A revision of an incident: a row of `incidents`, whose columns the schema documents. Times are in seconds since 1970-01-01 UTC.
#[derive(Clone, Debug, PartialEq, Row, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the schema documents its columns")]
pub struct IncidentRow {
    pub tenant: String,
    pub incident: String,
    pub revision: u32,
    pub state: i8,
    pub cause: i8,
    pub slice: String,
    pub signals: Vec<String>,
    pub attempts: u64,
    pub counted: u64,
    pub expected: f64,
    pub evidence: f64,
    pub began: u32,
    pub opened: u32,
    pub updated: u32,
    pub closed: u32,
    pub summary_zh_cn: String,
    pub summary_en: String,
    pub findings: String,
}

impl IncidentRow {
    /// Whose fault it is.
    #[must_use]
    pub fn cause(&self) -> Cause {
        Cause::try_from(i32::from(self.cause)).unwrap_or(Cause::Unknown)
    }

    /// How it stands.
    #[must_use]
    pub fn state(&self) -> IncidentState {
        IncidentState::try_from(i32::from(self.state)).unwrap_or(IncidentState::Unspecified)
    }

    /// What explains it, as far as is known.
    #[must_use]
    pub fn findings(&self) -> Findings {
        Findings::of_json(&self.findings)
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed > 0
    }
}

/// A revision of an incident that a channel was told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Row, Serialize, Deserialize)]
pub struct Delivered {
    /// Whose fleet it is.
    pub tenant: String,
    /// The incident.
    pub incident: String,
    /// The channel.
    pub channel: String,
    /// The revision.
    pub revision: u32,
}

/// Which incidents of a tenant are wanted.
#[derive(Clone, Debug)]
pub struct WantedIncidents<'a> {
    /// Whose.
    pub tenant: &'a str,
    /// Updated at this second, in event time since 1970-01-01 UTC, or later.
    pub updated_since: u32,
    /// In one of these states; in any, where none is named.
    pub states: &'a [IncidentState],
    /// How many at most.
    pub limit: u32,
}

impl Database {
    /// Keeps revisions of incidents. One that is kept already stays as it is.
    ///
    /// # Errors
    /// When the server did not take them, as far as is known; it can be repeated.
    pub async fn keep_incidents(&self, incidents: &[IncidentRow]) -> Result<(), StoreError> {
        insert_rows::<IncidentRow>(self.first().client().clone(), "incidents", incidents.iter())
            .await
            .map_err(self.failed("keep incidents"))
    }

    /// The last revision of every incident of a tenant that was updated at this second, in event time since 1970-01-01 UTC, or later; the first that
    /// was opened first.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn incidents(&self, tenant: &str, updated_since: u32) -> Result<Vec<IncidentRow>, StoreError> {
        let sql = "SELECT ?fields FROM incidents WHERE tenant = ? AND updated >= fromUnixTimestamp(?) \
                   ORDER BY opened, incident, revision DESC LIMIT 1 BY incident";
        let query = self.asking().query(sql).bind(tenant).bind(updated_since);
        self.answer("say which incidents there are", QUESTION_TIMEOUT, query.fetch_all::<IncidentRow>()).await
    }

    /// The last revisions of some incidents: those that were opened last.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn latest_incidents(&self, wanted: &WantedIncidents<'_>) -> Result<Vec<IncidentRow>, StoreError> {
        let of_states = if wanted.states.is_empty() { "" } else { "WHERE state IN ?" };
        let sql = format!(
            "SELECT ?fields FROM (SELECT * FROM incidents WHERE tenant = ? AND updated >= fromUnixTimestamp(?) \
             ORDER BY revision DESC LIMIT 1 BY incident) {of_states} ORDER BY opened DESC, incident DESC LIMIT ?"
        );
        let mut query = self.looking().query(&sql).bind(wanted.tenant).bind(wanted.updated_since);
        if !wanted.states.is_empty() {
            query = query.bind(wanted.states.iter().map(|state| i32::from(*state)).collect::<Vec<_>>());
        }
        self.look("say which incidents there are", query.bind(wanted.limit).fetch_all::<IncidentRow>()).await
    }

    /// The last 200 revisions of an incident, in their order; none, where there is no such incident.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn revisions(&self, tenant: &str, incident: &str) -> Result<Vec<IncidentRow>, StoreError> {
        let sql = "SELECT ?fields FROM incidents WHERE tenant = ? AND incident = ? ORDER BY revision DESC LIMIT 1 BY revision LIMIT ?";
        let query = self.looking().query(sql).bind(tenant).bind(incident).bind(MAX_REVISIONS);
        let mut revisions = self.look("say what became of an incident", query.fetch_all::<IncidentRow>()).await?;
        revisions.reverse();
        Ok(revisions)
    }

    /// Keeps that a channel was told.
    ///
    /// # Errors
    /// As [`Database::keep_incidents`].
    pub async fn keep_delivered(&self, delivered: &Delivered) -> Result<(), StoreError> {
        let all = std::iter::once(delivered);
        insert_rows::<Delivered>(self.first().client().clone(), "deliveries", all)
            .await
            .map_err(self.failed("keep what was told of an incident"))
    }

    /// Of each incident of which a channel was told something since this second, in seconds since 1970-01-01 UTC, the greatest revision.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn delivered(&self, channel: &str, since: u32) -> Result<Vec<Delivered>, StoreError> {
        let sql = "SELECT tenant, incident, channel, max(revision) AS revision FROM deliveries \
                   WHERE channel = ? AND delivered_at >= fromUnixTimestamp(?) GROUP BY tenant, incident, channel";
        let query = self.asking().query(sql).bind(channel).bind(since);
        self.answer("say what was told of incidents", QUESTION_TIMEOUT, query.fetch_all::<Delivered>()).await
    }
}
