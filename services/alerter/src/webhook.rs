//! The webhook: changes of incidents, posted as JSON in their order, again and again until they are taken.
//!
//! ```json
//! {
//!   "delivery_id": "20261125T120340Z-3f9a2c01.1",
//!   "change": "opened",
//!   "tenant": "acme",
//!   "incident_id": "20261125T120340Z-3f9a2c01",
//!   "revision": 1,
//!   "state": "open",
//!   "cause": "bank",
//!   "slice": {"issuer": "icbc"},
//!   "signals": [{"name": "issuer_down", "attempts": 31, "counted": 30, "expected": 0.03, "evidence_nats": 141.2}],
//!   "opening": {"from_time": "2026-11-25T12:03:20Z", "until_time": "2026-11-25T12:03:40Z", "attempts": 31, "counted": 30, "expected": 0.03, "evidence_nats": 141.2},
//!   "explanation": {
//!     "signal": "issuer_down", "from_time": "2026-11-25T12:03:20Z", "until_time": "2026-11-25T12:03:40Z",
//!     "slice": {"issuer": "icbc", "carrier": "46000"}, "score_nats": 120.5, "contribution": 0.97, "relative_risk": 310.0,
//!     "alternatives": [{"slice": {"issuer": "icbc"}, "score_nats": 99.1}],
//!     "attempts": 30, "failed": 30, "merchants": 17, "terminals": 19, "transactions": 28,
//!     "amounts": [{"currency": "CNY", "minor": 812300}], "sampled_one_in": 1, "parts": []
//!   },
//!   "begin_time": "2026-11-25T12:03:20Z",
//!   "open_time": "2026-11-25T12:03:40Z",
//!   "update_time": "2026-11-25T12:03:40Z",
//!   "close_time": null,
//!   "link": "https://faultline.example/#/acme/incidents/20261125T120340Z-3f9a2c01",
//!   "summary": {"zh_cn": "…", "en": "…"}
//! }
//! ```
//!
//! `link` is null where `alerter.console_url` is not set. `opening` is null in incidents of programs that did not keep it, and `explanation` where it is not known; the contract says what is
//! in both. `change` is opened, reopened, changed (another name, another signal, or it is known which part of the slice fails), unobserved, observed (again) or closed (also where it is abandoned: `state`
//! tells). The header `faultline-delivery` has the delivery's identifier too. What is sent again has the same one, also
//! by another process, which may know the counts better by then. An answer of 2xx takes it; one of 4xx refuses it for good, but for 408, 425 and 429.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use backon::{BackoffBuilder, ExponentialBuilder};
use faultline_proto::incident::v1 as proto;
use faultline_proto::verdict::v1::LocalizedText;
use faultline_runtime::error::with_causes;
use faultline_store::{Database, Delivered};
use reqwest::StatusCode;
use reqwest::redirect::Policy;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use url::Url;

use crate::config::WebhookConfig;
use crate::{contract, counts};

/// What deliveries over it are kept under.
pub(crate) const CHANNEL: &str = "webhook";
/// Notices that wait for an endpoint that does not answer: far more than incidents come in the time after which they are given up.
const WAITING: usize = 1000;
/// Pauses between two attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Something to be told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Notice {
    /// What happened, in a word.
    change: &'static str,
    incident: proto::Incident,
    /// Since when it waits.
    since: Instant,
}

impl Notice {
    pub(crate) fn new(change: &'static str, incident: proto::Incident) -> Notice {
        Notice { change, incident, since: Instant::now() }
    }
}

/// Takes notices, and lets nobody wait.
#[derive(Clone)]
pub(crate) struct Notices(Option<mpsc::Sender<Notice>>);

impl Notices {
    pub(crate) fn tell(&self, notice: Notice) {
        let Some(queue) = &self.0 else { return };
        if let Err(error) = queue.try_send(notice) {
            counts::notice(counts::DROPPED, 1);
            tracing::error!(%error, "the webhook is not told of a change: too many wait");
        }
    }
}

/// The endpoint that is told.
pub(crate) struct Webhook {
    endpoint: Option<(reqwest::Client, Url)>,
    /// Where an incident is shown, if anywhere.
    console: Option<Url>,
    queue: mpsc::Receiver<Notice>,
    give_up_after: Duration,
}

/// Sets it up; nothing is sent yet. Without an address, nobody is told.
pub(crate) fn set_up(config: &WebhookConfig, console: Option<Url>) -> Result<(Notices, Webhook), String> {
    let (sender, queue) = mpsc::channel(WAITING);
    let endpoint = config.address()?.map(|url| client(config.timeout).map(|client| (client, url))).transpose()?;
    let notices = Notices(endpoint.is_some().then_some(sender));
    Ok((notices, Webhook { endpoint, console, queue, give_up_after: config.give_up_after }))
}

/// A client for whoever is told.
pub(crate) fn client(timeout: Duration) -> Result<reqwest::Client, String> {
    // Whoever was first has set the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().timeout(timeout).redirect(Policy::none()).user_agent("faultline");
    builder.build().map_err(|error| format!("cannot be used: {}", error.without_url()))
}

impl Webhook {
    /// Delivers for ever.
    pub(crate) async fn deliver(mut self, database: &Database) {
        let Some((client, url)) = &self.endpoint else { return std::future::pending().await };
        while let Some(notice) = self.queue.recv().await {
            let delivery = Delivery::of(&notice, self.console.as_ref());
            let fate = match post(client, url, &delivery, notice.since + self.give_up_after).await {
                Ok(()) => counts::DELIVERED,
                Err(error) => {
                    tracing::error!(delivery = delivery.delivery_id, error, "the webhook does not take a change, and is not told of it");
                    counts::GIVEN_UP
                }
            };
            counts::notice(fate, 1);
            if fate == counts::DELIVERED {
                tracing::info!(delivery = delivery.delivery_id, change = delivery.change, "the webhook was told");
                keep(database, &notice.incident).await;
            }
        }
    }
}

/// Posts until it is taken, is refused for good, or is too late. Errors name no address: it may have a key in it.
async fn post(client: &reqwest::Client, url: &Url, delivery: &Delivery<'_>, give_up_at: Instant) -> Result<(), String> {
    let (least, most) = PAUSES;
    let mut pauses = ExponentialBuilder::default().with_min_delay(least).with_max_delay(most).with_jitter().without_max_times().build();
    loop {
        let answer = client.post(url.clone()).header("faultline-delivery", &delivery.delivery_id).json(delivery).send().await;
        let (error, is_final) = match answer {
            Ok(answer) if answer.status().is_success() => return Ok(()),
            Ok(answer) => (format!("it answers {}", answer.status()), !is_worth_a_retry(answer.status())),
            Err(error) => (with_causes(&error.without_url()), false),
        };
        counts::attempt_failed();
        if is_final || Instant::now() >= give_up_at {
            return Err(error);
        }
        tracing::warn!(delivery = delivery.delivery_id, error, "the webhook did not take a change; it is tried again");
        sleep(pauses.next().unwrap_or(most)).await;
    }
}

/// Whether the same may be taken later. What is wrong with one notice must not keep others waiting.
fn is_worth_a_retry(status: StatusCode) -> bool {
    let may_pass = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    !status.is_client_error() || may_pass.contains(&status)
}

/// If this is lost, it is told once more, under the same identifier.
async fn keep(database: &Database, incident: &proto::Incident) {
    let delivered = Delivered {
        tenant: incident.tenant.clone(),
        incident: incident.incident_id.clone(),
        channel: CHANNEL.into(),
        revision: incident.notice_revision,
    };
    if let Err(error) = database.keep_delivered(&delivered).await {
        tracing::warn!(error = with_causes(&error), "it is not kept that the webhook was told");
    }
}

/// What is posted.
#[derive(Debug, Serialize)]
struct Delivery<'a> {
    delivery_id: String,
    change: &'static str,
    tenant: &'a str,
    incident_id: &'a str,
    revision: u32,
    state: String,
    cause: String,
    slice: BTreeMap<&'a str, &'a str>,
    signals: Vec<SignalOut<'a>>,
    begin_time: Option<String>,
    open_time: Option<String>,
    update_time: Option<String>,
    close_time: Option<String>,
    opening: Option<OpeningOut>,
    explanation: Option<ExplanationOut<'a>>,
    link: Option<String>,
    summary: Summary<'a>,
}

#[derive(Debug, Serialize)]
struct OpeningOut {
    from_time: Option<String>,
    until_time: Option<String>,
    attempts: u64,
    counted: u64,
    expected: f64,
    evidence_nats: f64,
}

#[derive(Debug, Serialize)]
struct ExplanationOut<'a> {
    signal: &'a str,
    from_time: Option<String>,
    until_time: Option<String>,
    slice: BTreeMap<&'a str, &'a str>,
    score_nats: f64,
    contribution: f64,
    relative_risk: Option<f64>,
    alternatives: Vec<AlternativeOut<'a>>,
    attempts: u64,
    failed: u64,
    merchants: u64,
    terminals: u64,
    transactions: u64,
    amounts: Vec<AmountOut<'a>>,
    sampled_one_in: u32,
    parts: Vec<PartOut<'a>>,
}

#[derive(Debug, Serialize)]
struct PartOut<'a> {
    slice: BTreeMap<&'a str, &'a str>,
    score_nats: f64,
    attempts: u64,
    failed: u64,
}

#[derive(Debug, Serialize)]
struct AlternativeOut<'a> {
    slice: BTreeMap<&'a str, &'a str>,
    score_nats: f64,
}

#[derive(Debug, Serialize)]
struct AmountOut<'a> {
    currency: &'a str,
    minor: i64,
}

#[derive(Debug, Serialize)]
struct SignalOut<'a> {
    name: &'a str,
    attempts: u64,
    counted: u64,
    expected: f64,
    evidence_nats: f64,
}

#[derive(Debug, Default, Serialize)]
struct Summary<'a> {
    zh_cn: &'a str,
    en: &'a str,
}

impl SignalOut<'_> {
    fn of(signal: &proto::IncidentSignal) -> SignalOut<'_> {
        let proto::IncidentSignal { ref name, attempts, counted, expected, evidence_nats, .. } = *signal;
        SignalOut { name, attempts, counted, expected, evidence_nats }
    }
}

impl OpeningOut {
    fn of(opening: &proto::IncidentOpening) -> OpeningOut {
        let proto::IncidentOpening { attempts, counted, expected, evidence_nats, .. } = *opening;
        let [from_time, until_time] = [&opening.from_time, &opening.until_time].map(|at| contract::second(at.as_ref()).map(time));
        OpeningOut { from_time, until_time, attempts, counted, expected, evidence_nats }
    }
}

impl ExplanationOut<'_> {
    fn of(found: &proto::IncidentExplanation) -> ExplanationOut<'_> {
        let [from_time, until_time] = [&found.from_time, &found.until_time].map(|at| contract::second(at.as_ref()).map(time));
        ExplanationOut {
            signal: &found.signal,
            from_time,
            until_time,
            slice: by_dimension(&found.slice),
            score_nats: found.score_nats,
            contribution: found.contribution,
            relative_risk: found.relative_risk,
            alternatives: found.alternatives.iter().map(AlternativeOut::of).collect(),
            attempts: found.attempts,
            failed: found.failed,
            merchants: found.merchants,
            terminals: found.terminals,
            transactions: found.transactions,
            amounts: found.amounts.iter().map(AmountOut::of).collect(),
            sampled_one_in: found.sampled_one_in,
            parts: found.parts.iter().map(PartOut::of).collect(),
        }
    }
}

impl PartOut<'_> {
    fn of(part: &proto::IncidentPart) -> PartOut<'_> {
        PartOut { slice: by_dimension(&part.slice), score_nats: part.score_nats, attempts: part.attempts, failed: part.failed }
    }
}

impl AlternativeOut<'_> {
    fn of(other: &proto::IncidentAlternative) -> AlternativeOut<'_> {
        AlternativeOut { slice: by_dimension(&other.slice), score_nats: other.score_nats }
    }
}

impl AmountOut<'_> {
    fn of(amount: &proto::IncidentAmount) -> AmountOut<'_> {
        AmountOut { currency: &amount.currency_code, minor: amount.amount_minor }
    }
}

fn by_dimension(values: &[proto::SliceValue]) -> BTreeMap<&str, &str> {
    values.iter().map(|value| (value.dimension.as_str(), value.value.as_str())).collect()
}

impl Delivery<'_> {
    fn of<'a>(Notice { change, incident, .. }: &'a Notice, console: Option<&Url>) -> Delivery<'a> {
        let summary = incident.summary.as_ref().map(|LocalizedText { zh_cn, en }| Summary { zh_cn, en });
        Delivery {
            delivery_id: format!("{}.{}", incident.incident_id, incident.notice_revision),
            change,
            tenant: &incident.tenant,
            incident_id: &incident.incident_id,
            revision: incident.revision,
            state: word(incident.state().as_str_name(), "INCIDENT_STATE_"),
            cause: word(incident.cause().as_str_name(), "CAUSE_"),
            slice: by_dimension(&incident.slice),
            signals: incident.signals.iter().map(SignalOut::of).collect(),
            begin_time: contract::second(incident.begin_time.as_ref()).map(time),
            open_time: contract::second(incident.open_time.as_ref()).map(time),
            update_time: contract::second(incident.update_time.as_ref()).map(time),
            close_time: contract::second(incident.close_time.as_ref()).map(time),
            opening: incident.opening.as_ref().map(OpeningOut::of),
            explanation: incident.explanation.as_ref().map(ExplanationOut::of),
            link: console.map(|console| contract::link(console, incident)),
            summary: summary.unwrap_or_default(),
        }
    }
}

/// What a value of an enumeration of the contract is called outside, by its name there.
pub(crate) fn word(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_lowercase()
}

/// A second since 1970-01-01 UTC, as RFC 3339 writes it.
pub(crate) fn time(second: u32) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(second.into())).to_string()
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;

    #[test]
    fn what_is_posted_says_who_what_and_whose_fault() {
        let incident = proto::Incident {
            tenant: "acme".into(),
            incident_id: "20261102T120030Z-00112233".into(),
            revision: 3,
            notice_revision: 2,
            state: proto::IncidentState::Open.into(),
            cause: faultline_detect::Cause::Bank.into(),
            slice: vec![proto::SliceValue { dimension: "issuer".into(), value: "icbc".into() }],
            open_time: Some(Timestamp { seconds: 1_793_620_830, nanos: 0 }),
            opening: Some(proto::IncidentOpening { counted: 30, ..proto::IncidentOpening::default() }),
            explanation: Some(proto::IncidentExplanation {
                slice: vec![proto::SliceValue { dimension: "carrier".into(), value: "46000".into() }],
                alternatives: vec![proto::IncidentAlternative { slice: Vec::new(), score_nats: 2.5 }],
                amounts: vec![proto::IncidentAmount { currency_code: "CNY".into(), amount_minor: 1200 }],
                parts: vec![proto::IncidentPart { failed: 7, ..proto::IncidentPart::default() }],
                ..proto::IncidentExplanation::default()
            }),
            ..proto::Incident::default()
        };
        let posted =
            serde_json::to_value(Delivery::of(&Notice::new("opened", incident), Some(&"https://console.example".parse().unwrap())))
                .unwrap();
        assert_eq!(posted["delivery_id"], "20261102T120030Z-00112233.2");
        assert_eq!((&posted["state"], &posted["cause"], &posted["slice"]["issuer"]), (&"open".into(), &"bank".into(), &"icbc".into()));
        assert_eq!((&posted["open_time"], &posted["close_time"]), (&"2026-11-02T12:00:30Z".into(), &serde_json::Value::Null));
        assert_eq!((&posted["opening"]["counted"], &posted["opening"]["from_time"]), (&30.into(), &serde_json::Value::Null));
        let explanation = &posted["explanation"];
        assert_eq!((&explanation["slice"]["carrier"], &explanation["relative_risk"]), (&"46000".into(), &serde_json::Value::Null));
        assert_eq!(explanation["alternatives"][0], serde_json::json!({"slice": {}, "score_nats": 2.5}));
        assert_eq!(explanation["parts"][0], serde_json::json!({"slice": {}, "score_nats": 0.0, "attempts": 0, "failed": 7}));
        assert_eq!(explanation["amounts"][0], serde_json::json!({"currency": "CNY", "minor": 1200}));
        assert_eq!(posted["link"], "https://console.example/#/acme/incidents/20261102T120030Z-00112233");
    }

    #[test]
    fn what_is_refused_for_good_is_not_tried_again() {
        for (status, expected) in
            [(400, false), (404, false), (413, false), (408, true), (429, true), (500, true), (503, true), (301, true)]
        {
            assert_eq!(is_worth_a_retry(StatusCode::from_u16(status).unwrap()), expected, "{status}");
        }
    }

    /// With TLS too, which needs a provider of cryptography.
    #[tokio::test]
    async fn who_cannot_be_reached_is_given_up_without_being_named() {
        let config = WebhookConfig { url: "https://127.0.0.1:9/hook?key=hunter2".to_owned().into(), ..WebhookConfig::default() };
        let (_, webhook) = set_up(&config, None).unwrap();
        let (client, url) = webhook.endpoint.unwrap();
        let notice = Notice::new("opened", proto::Incident::default());
        let error = post(&client, &url, &Delivery::of(&notice, None), Instant::now()).await.unwrap_err();
        assert!(error.contains("refused") && !error.contains("hunter2"), "{error}");
    }
}
