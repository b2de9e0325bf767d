//! Prometheus' Alertmanager: the incidents that go on, posted to its API (version 2) as alerts, again and again, since it takes an alert that nobody sends
//! any more for resolved; and for a while those that are over.
//!
//! An alert is known by its labels, so these are of how the incident was opened and never change: `alertname` (`FaultlineIncident`), `severity`
//! (`page`), `tenant`, `incident_id`, `cause`, and a label for each value of the first slice (`issuer`). What may change is in the annotations: `summary`,
//! `summary_zh_cn`, `slice`, `cause_now`, `state`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use faultline_proto::incident::v1 as proto;
use faultline_runtime::error::with_causes;
use reqwest::Client;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use url::Url;

use crate::config::AlertmanagerConfig;
use crate::watch::now_s;
use crate::webhook::{client, time, word};
use crate::{contract, counts};

/// How many times an alert is sent, at least, until it would resolve by itself.
const SENT_BEFORE_IT_ENDS: u32 = 4;
/// How long it is said of an incident that it is over, in seconds.
const RESOLVED_FOR_S: u32 = 15 * 60;
/// Pause before an Alertmanager that did not take them is sent all alerts again.
const RETRY: Duration = Duration::from_secs(5);

/// What incidents there are, by the last revision of each, for everybody to see.
pub(crate) type Board = watch::Sender<Vec<proto::Incident>>;

/// The Alertmanagers that are told: all of them, since they tell each other only what they sent.
pub(crate) struct Alertmanager {
    endpoints: Vec<Url>,
    client: Client,
    resend_interval: Duration,
    timeout: Duration,
    /// Where an incident is shown, if anywhere.
    console: Option<Url>,
}

/// An alert, as the API takes it.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Alert {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<&'static str, String>,
    starts_at: String,
    ends_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: String,
}

impl Alertmanager {
    /// Sets it up; nothing is sent yet. Without an address, nobody is told.
    pub(crate) fn new(config: &AlertmanagerConfig, console: Option<Url>) -> Result<Alertmanager, String> {
        let endpoint =
            |url: Url| format!("{}/api/v2/alerts", url.as_str().trim_end_matches('/')).parse().map_err(|_| "cannot be used".to_owned());
        Ok(Alertmanager {
            endpoints: config.addresses()?.into_iter().map(endpoint).collect::<Result<_, _>>()?,
            client: client(config.timeout)?,
            resend_interval: config.resend_interval,
            timeout: config.timeout,
            console,
        })
    }

    /// Tells all of them of what is on the board, for ever. None waits for another.
    pub(crate) async fn keep_told(self, board: &Board) {
        let shared = Arc::new(self);
        let mut tellers = JoinSet::new();
        for number in 0..shared.endpoints.len() {
            let (shared, board) = (Arc::clone(&shared), board.subscribe());
            tellers.spawn(async move { shared.keep_one_told(number, board).await });
        }
        // They never end.
        while tellers.join_next().await.is_some() {}
        std::future::pending::<()>().await;
    }

    /// Tells one of them: at once when something changes, and again after each interval.
    async fn keep_one_told(&self, number: usize, mut board: watch::Receiver<Vec<proto::Incident>>) {
        let Some(endpoint) = self.endpoints.get(number) else { return };
        let mut is_told = true;
        loop {
            let alerts = self.alerts(&board.borrow_and_update(), now_s());
            if !alerts.is_empty() {
                let posted = self.client.post(endpoint.clone()).json(&alerts).send().await;
                let posted = posted.and_then(reqwest::Response::error_for_status).map_err(reqwest::Error::without_url);
                counts::alertmanager(posted.is_ok());
                // The first of several in a row; addresses may have passwords in them, so it is named by its place in the setting.
                match (&posted, is_told) {
                    (Err(error), true) => {
                        tracing::warn!(
                            alertmanager = number + 1,
                            error = with_causes(error),
                            "an Alertmanager does not take the incidents; it is tried again"
                        );
                    }
                    (Ok(_), false) => tracing::info!(alertmanager = number + 1, "the Alertmanager takes the incidents again"),
                    _ => {}
                }
                is_told = posted.is_ok();
            }
            let pause = if is_told { self.resend_interval } else { self.resend_interval.min(RETRY) };
            tokio::select! {
                changed = board.changed() => if changed.is_err() { return },
                () = sleep(pause) => {}
            }
        }
    }

    /// How long an alert lasts that is not sent again: long enough for one attempt that takes all its time.
    fn lifetime(&self) -> Duration {
        let one_that_hangs = 2 * (self.timeout + RETRY) + self.resend_interval;
        one_that_hangs.max(SENT_BEFORE_IT_ENDS * self.resend_interval)
    }

    /// The alerts that are to be sent at `now`, in seconds since 1970-01-01 UTC.
    fn alerts(&self, board: &[proto::Incident], now: u32) -> Vec<Alert> {
        let is_told =
            |incident: &&proto::Incident| contract::closed(incident).is_none_or(|closed| closed.saturating_add(RESOLVED_FOR_S) > now);
        board.iter().filter(is_told).filter_map(|incident| self.alert(incident, now)).collect()
    }

    fn alert(&self, record: &proto::Incident, now: u32) -> Option<Alert> {
        let incident = contract::incident(record)?;
        let cause = |cause: faultline_detect::Cause| word(cause.as_str_name(), "CAUSE_");
        let summary = record.summary.clone().unwrap_or_default();
        let own = [
            ("alertname", "FaultlineIncident".to_owned()),
            ("severity", "page".into()),
            ("tenant", record.tenant.clone()),
            ("incident_id", record.incident_id.clone()),
            ("cause", cause(incident.first_cause())),
        ];
        let mut annotations = BTreeMap::from([
            ("summary", summary.en),
            ("summary_zh_cn", summary.zh_cn),
            ("slice", incident.slice.to_string()),
            ("cause_now", cause(incident.cause())),
            ("state", word(record.state().as_str_name(), "INCIDENT_STATE_")),
        ]);
        if let Some(found) = &record.explanation {
            annotations.insert("explained_by", contract::text(&found.slice));
            annotations.insert(
                "affected",
                format!("{} transactions at {} terminals of {} merchants", found.transactions, found.terminals, found.merchants),
            );
        }
        let values = record.first_slice.iter().map(|value| (value.dimension.clone(), value.value.clone()));
        let lasts_s = u32::try_from(self.lifetime().as_secs()).unwrap_or(u32::MAX);
        Some(Alert {
            labels: own.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(values).collect(),
            annotations,
            starts_at: time(incident.began),
            ends_at: time(incident.closed.unwrap_or_else(|| now.saturating_add(lasts_s))),
            generator_url: self.console.as_ref().map(|console| contract::link(console, record)).unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    fn record() -> proto::Incident {
        let value = |dimension: &str, value: &str| proto::SliceValue { dimension: dimension.into(), value: value.into() };
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        proto::Incident {
            tenant: "acme".into(),
            incident_id: "20261102T120030Z-00112233".into(),
            state: proto::IncidentState::Open.into(),
            slice: vec![value("issuer", "icbc")],
            first_slice: vec![value("issuer", "icbc"), value("entry_mode", "chip")],
            signals: vec![proto::IncidentSignal { name: "issuer_down".into(), ..Default::default() }],
            begin_time: at(1_793_620_800),
            open_time: at(1_793_620_830),
            ..proto::Incident::default()
        }
    }

    fn alertmanager() -> Alertmanager {
        let config = AlertmanagerConfig { urls: "http://one:9093,http://two:9093/am/".to_owned().into(), ..AlertmanagerConfig::default() };
        Alertmanager::new(&config, Some("https://console.example/".parse().unwrap())).unwrap()
    }

    #[test]
    fn an_incident_has_the_labels_that_it_was_opened_with() {
        let alert = alertmanager().alert(&record(), 1_793_621_000).unwrap();
        let labels: Vec<String> = alert.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            labels,
            [
                "alertname=FaultlineIncident",
                "cause=bank",
                "entry_mode=chip",
                "incident_id=20261102T120030Z-00112233",
                "issuer=icbc",
                "severity=page",
                "tenant=acme"
            ]
        );
        assert_eq!((alert.annotations["slice"].as_str(), alert.annotations["state"].as_str()), ("issuer=icbc", "open"));
        assert!(!alert.annotations.contains_key("explained_by"));
        // Four minutes from now: it is sent every minute.
        assert_eq!((alert.starts_at.as_str(), alert.ends_at.as_str()), ("2026-11-02T12:00:00Z", "2026-11-02T12:07:20Z"));
        assert_eq!(alert.generator_url, "https://console.example/#/acme/incidents/20261102T120030Z-00112233");
    }

    #[test]
    fn what_explains_an_incident_is_told_without_a_label_for_it() {
        let explanation = proto::IncidentExplanation { slice: record().first_slice, terminals: 3, ..proto::IncidentExplanation::default() };
        let explained = proto::Incident { explanation: Some(explanation), ..record() };
        let [alert, before] = [explained, record()].map(|record| alertmanager().alert(&record, 1_793_621_000).unwrap());
        assert_eq!(alert.annotations["explained_by"], "entry_mode=chip&issuer=icbc");
        assert_eq!(alert.annotations["affected"], "0 transactions at 3 terminals of 0 merchants");
        assert_eq!(alert.labels, before.labels);
    }

    #[test]
    fn what_is_over_is_said_for_a_while() {
        let closed = proto::Incident {
            state: proto::IncidentState::Closed.into(),
            close_time: Some(Timestamp { seconds: 1_793_621_000, nanos: 0 }),
            ..record()
        };
        let board = [record(), closed];
        let ends = |now| -> Vec<String> { alertmanager().alerts(&board, now).into_iter().map(|alert| alert.ends_at).collect() };
        assert_eq!(ends(1_793_621_060), ["2026-11-02T12:08:20Z", "2026-11-02T12:03:20Z"]);
        assert_eq!(ends(1_793_621_000 + 900).len(), 1);
    }

    /// The first takes the connection and says nothing; the second is told long before the first is given up.
    #[tokio::test]
    async fn one_that_hangs_holds_up_no_other() {
        let (silent, other) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let urls = [&silent, &other].map(|listener| format!("http://{}", listener.local_addr().unwrap())).join(",");
        let config = AlertmanagerConfig { urls: urls.into(), timeout: Duration::from_secs(60), ..AlertmanagerConfig::default() };
        let board = Board::new(vec![record()]);
        let telling = Alertmanager::new(&config, None).unwrap();
        let told = async {
            let (mut connection, _) = other.accept().await.unwrap();
            let mut head = [0; 20];
            connection.read_exact(&mut head).await.unwrap();
            assert_eq!(&head, b"POST /api/v2/alerts ");
        };
        tokio::select! {
            () = telling.keep_told(&board) => panic!("it is told for ever"),
            () = told => {}
            () = sleep(Duration::from_secs(30)) => panic!("it was not told"),
        }
    }

    #[test]
    fn every_alertmanager_is_told_where_its_api_is() {
        let endpoints: Vec<String> = alertmanager().endpoints.iter().map(Url::to_string).collect();
        assert_eq!(endpoints, ["http://one:9093/api/v2/alerts", "http://two:9093/am/api/v2/alerts"]);
    }
}
