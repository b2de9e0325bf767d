//! Where incidents are written down and told of.
//!
//! ```text
//! a change ─▶ the incidents topic, which is the truth ─▶ ClickHouse, for questions ─▶ the webhook, Alertmanager
//! ```
//!
//! Whoever takes over reads the topic, brings ClickHouse up to date, and tells what was not told.

use std::collections::BTreeMap;

use faultline_detect::{Change, Incident, What};
use faultline_proto::incident::v1 as proto;
use faultline_runtime::error::with_causes;
use faultline_store::{Delivered, IncidentRow};
use faultline_stream::{IncidentLog, LogError};
use tokio::time::sleep;

use crate::contract::Known;
use crate::watch::{BUCKET_S, PAUSE, Shared, now_s};
use crate::webhook::{CHANNEL, Notice};
use crate::{contract, counts};

/// How often the counts of an open incident are brought up to date, in seconds.
const UPDATE_S: u32 = 60;
/// How long an incident that is over stays in the topic, in seconds.
const FORGET_S: u32 = 7 * 86_400;
/// How far back deliveries are looked for, in seconds. Of an incident that lasts longer, it is told once more.
const DELIVERIES_S: u32 = 30 * 86_400;

/// What is new of a tenant.
pub(crate) struct News<'a> {
    pub(crate) changes: Vec<Change>,
    /// The incidents that are open.
    pub(crate) open: &'a [Incident],
    /// By identifier, what explains some of them.
    pub(crate) explained: BTreeMap<String, proto::IncidentExplanation>,
}

/// All incidents that are in the topic, and the way there.
pub(crate) struct Desk<'a> {
    shared: &'a Shared,
    log: IncidentLog,
    /// By tenant and identifier, what each is now.
    known: BTreeMap<(String, String), proto::Incident>,
}

impl Desk<'_> {
    /// Takes the topic over from whoever had it.
    pub(crate) async fn open(shared: &Shared) -> Result<Desk<'_>, LogError> {
        let (log, incidents) = take_over(shared).await?;
        let known = incidents.into_iter().map(|incident| (key(&incident), incident)).collect();
        let desk = Desk { shared, log, known };
        let rows: Vec<IncidentRow> = desk.known.values().map(contract::row).collect();
        shared.insist(async || shared.database.keep_incidents(&rows).await).await;
        desk.tell_what_was_not_told().await;
        desk.show();
        Ok(desk)
    }

    /// The tenants that have incidents.
    pub(crate) fn tenants(&self) -> impl Iterator<Item = &str> {
        self.known.keys().map(|(tenant, _)| tenant.as_str())
    }

    /// The last ten seconds that somebody has judged, as far as incidents tell: their first second since 1970-01-01 UTC.
    pub(crate) fn judged(&self) -> u32 {
        self.known.values().map(contract::updated).max().unwrap_or_default().saturating_sub(BUCKET_S)
    }

    /// A tenant's incidents.
    pub(crate) fn incidents(&self, tenant: &str) -> Vec<Incident> {
        let records = self.known.values().filter(|record| record.tenant == tenant);
        let incidents = records.filter_map(|record| {
            let incident = contract::incident(record);
            if incident.is_none() {
                tracing::warn!(tenant, incident = record.incident_id, "an incident of a newer program is not followed");
            }
            incident
        });
        incidents.collect()
    }

    /// Writes down what changed in a tenant's tick, which ended at `now` (seconds since 1970-01-01 UTC), and tells it.
    pub(crate) async fn publish(&mut self, tenant: &str, now: u32, News { changes, open, explained }: News<'_>) -> Result<(), LogError> {
        let mut records: Vec<proto::Incident> = Vec::new();
        let mut notices = Vec::new();
        for Change { what, incident } in changes {
            let record = self.revised(self.record(tenant, &incident, (now, &explained)), &records);
            records.push(told(what, record, &mut notices));
        }
        for incident in open {
            let record = self.record(tenant, incident, (now, &explained));
            let Some(known) = self.known.get(&key(&record)) else { continue };
            let is_due = contract::updated(known) + UPDATE_S <= now || explained.contains_key(&record.incident_id);
            if is_due && !records.iter().any(|changed| changed.incident_id == record.incident_id) {
                let is_news = contract::is_narrowed(&record) && !contract::is_narrowed(known);
                let record = self.revised(record, &[]);
                records.push(if is_news { told(What::Changed, record, &mut notices) } else { record });
            }
        }
        if !records.is_empty() {
            let rows: Vec<IncidentRow> = records.iter().map(contract::row).collect();
            self.write(records).await?;
            self.shared.insist(async || self.shared.database.keep_incidents(&rows).await).await;
            for notice in notices {
                self.shared.notices.tell(notice);
            }
            self.show();
        }
        Ok(())
    }

    /// Puts what is known on the board.
    fn show(&self) {
        self.shared.board.send_replace(self.known.values().cloned().collect());
    }

    /// Forgets what is long over.
    pub(crate) async fn tidy(&mut self, now: u32) -> Result<(), LogError> {
        let is_old = |record: &proto::Incident| contract::closed(record).is_some_and(|closed| closed.saturating_add(FORGET_S) < now);
        let old: Vec<proto::Incident> = self.known.values().filter(|record| is_old(record)).cloned().collect();
        match self.log.forget(&old).await {
            Ok(()) => self.known.retain(|_, record| !is_old(record)),
            Err(LogError::Kafka(error)) => tracing::debug!(error = with_causes(&error), "what is long over is forgotten another time"),
            Err(taken_over) => return Err(taken_over),
        }
        Ok(())
    }

    /// The record of an incident, with what is known of it beside how it stands.
    fn record(
        &self,
        tenant: &str,
        incident: &Incident,
        (now, explained): (u32, &BTreeMap<String, proto::IncidentExplanation>),
    ) -> proto::Incident {
        let id = contract::identifier(tenant, incident);
        let mut known = match self.known.get(&(tenant.to_owned(), id.clone())) {
            Some(record) => contract::known(record),
            None => Known { opening: contract::opening(incident), explanation: None },
        };
        known.explanation = explained.get(&id).cloned().or(known.explanation);
        contract::record(tenant, incident, (now, known))
    }

    /// The next revision of a record; some may not be written yet.
    fn revised(&self, record: proto::Incident, unwritten: &[proto::Incident]) -> proto::Incident {
        let before =
            unwritten.iter().rev().find(|before| before.incident_id == record.incident_id).or_else(|| self.known.get(&key(&record)));
        let (revision, notice_revision) = before.map_or((0, 0), |before| (before.revision, before.notice_revision));
        proto::Incident { revision: revision + 1, notice_revision, ..record }
    }

    /// Writes records into the topic, until they are there or another has it.
    async fn write(&mut self, records: Vec<proto::Incident>) -> Result<(), LogError> {
        loop {
            match self.log.write(records.clone()).await {
                Ok(()) => break,
                Err(LogError::Kafka(error)) => {
                    self.shared.is_in_trouble(with_causes(&error));
                    sleep(PAUSE).await;
                }
                Err(taken_over) => return Err(taken_over),
            }
            // It may have been written all the same. Taken over, the log is as clean as new; unless another had it meanwhile, and wrote something else.
            let (log, found) = take_over(self.shared).await?;
            let is_ours = |record: &proto::Incident| {
                self.known.get(&key(record)).is_some_and(|known| known == record) || records.iter().any(|own| own == record)
            };
            if !found.iter().all(is_ours) {
                return Err(self.shared.taken_over());
            }
            self.log = log;
        }
        self.known.extend(records.into_iter().map(|record| (key(&record), record)));
        Ok(())
    }

    /// After a change of hands, nobody knows what was told but the record of deliveries. What was over before anybody was told of it is not told.
    async fn tell_what_was_not_told(&self) {
        let shared = self.shared;
        let since = now_s().saturating_sub(DELIVERIES_S);
        let delivered = shared.insist(async || shared.database.delivered(CHANNEL, since).await).await;
        for record in self.known.values() {
            let is_it = |delivered: &&Delivered| delivered.tenant == record.tenant && delivered.incident == record.incident_id;
            let told = delivered.iter().find(is_it).map(|delivered| delivered.revision);
            let is_over = contract::closed(record).is_some();
            if told.is_none_or(|told| told < record.notice_revision) && !(is_over && told.is_none()) {
                let change = match (is_over, told) {
                    (true, _) => "closed",
                    (false, None) => "opened",
                    (false, Some(_)) => "changed",
                };
                shared.notices.tell(Notice::new(change, record.clone()));
            }
        }
    }
}

async fn take_over(shared: &Shared) -> Result<(IncidentLog, Vec<proto::Incident>), LogError> {
    loop {
        match IncidentLog::take_over(&shared.kafka).await {
            Err(LogError::Kafka(error)) if error.is_worth_a_retry() => shared.is_in_trouble(with_causes(&error)),
            taken => return taken,
        }
        sleep(PAUSE).await;
    }
}

/// A record of which somebody is told.
fn told(what: What, mut record: proto::Incident, notices: &mut Vec<Notice>) -> proto::Incident {
    counts::change(what);
    record.notice_revision = record.revision;
    let (tenant, id, summary) = (&record.tenant, &record.incident_id, record.summary.as_ref().map(|summary| summary.en.as_str()));
    tracing::info!(tenant, incident = id, change = counts::name(what), summary, "an incident changed");
    notices.push(Notice::new(counts::name(what), record.clone()));
    record
}

fn key(record: &proto::Incident) -> (String, String) {
    (record.tenant.clone(), record.incident_id.clone())
}
