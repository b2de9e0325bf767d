//! What an incident carries of what explains it, on the whole road.

use faultline_proto::incident::v1::{Incident, IncidentState};
use faultline_store::{ClickHouseConfig, Finding};
use faultline_stream::IncidentLog;

use crate::alerter::token_file;
use crate::classifier::road;
use crate::fleet::Scenario;
use crate::program::{Faultline, eventually};
use crate::services::{Service, Settings, query, settings_with};

/// Failures that no family counts by themselves: of one bank, by one carrier.
const COMBINATION: &str = "
title = 'A bank fails for the terminals of one carrier'
[fleet]
terminals = 240
transactions_per_minute = 4000.0
rhythm = 0.0
[history]
weeks = 1
[[fault]]
kind = 'bank_outage'
issuer = 'icbc'
carrier = 'china-mobile'
start = '20s'
duration = '50s'
";
const FAILING: &str = "carrier=china-mobile&issuer=icbc";

/// A bank fails by one carrier: the incident is that of the bank, says that it is of the carrier, whom that affects, and what else it might be; and rows say the same.
#[tokio::test]
async fn an_incident_says_which_combination_of_values_fails() {
    let (gateway, classifier, clickhouse) = road("explained").await;
    let settings = settings_with(&gateway.kafka, &clickhouse);
    let alerter = Service::start("alerter", settings.clone());
    alerter.until_ready().await;
    let scenario = Scenario::new(COMBINATION);
    let token = token_file(&gateway, &scenario.directory).await;
    let address = format!("http://{}", gateway.address());
    let (path, token) = (scenario.path(), token.to_str().unwrap().to_owned());
    let arguments =
        ["simulate", path.to_str().unwrap(), "--gateway", &address, "--token-file", &token, "--history-of", "acme", "--run-for", "4m"];
    let mut fleet = Faultline::start(&arguments, &settings);
    let opened = fleet.until_it_says("INCIDENT OPENED").await;
    assert!(opened.contains("issuer icbc"), "{opened}");
    let explained = format!(
        "SELECT incident FROM incidents WHERE slice = 'issuer=icbc' AND JSONExtractString(findings, 'explanation', 'slice') = '{FAILING}' LIMIT 1"
    );
    let id = eventually("the incident says which combination fails", async || {
        Some(query(&clickhouse, &explained).await).filter(|found| !found.is_empty())
    })
    .await;
    fleet.until_it_says("over:").await;
    let closed = fleet.until_it_says("INCIDENT CLOSED").await;
    assert!(closed.contains("issuer icbc") && closed.contains("concentrated in carrier china-mobile"), "{closed}");
    drop(fleet);

    let (_, incidents) = IncidentLog::take_over(&gateway.kafka).await.unwrap();
    let [incident] = incidents.as_slice() else { panic!("{incidents:?}") };
    assert_eq!((incident.state(), &incident.incident_id), (IncidentState::Closed, &id));
    carries_its_numbers(incident);
    rows_say_the_same(&id, &settings, &clickhouse).await;
    let counted = alerter.counted("faultline_alerter_explanation_seconds_count", &[]).await;
    assert!((2..20).contains(&counted), "it was looked at {counted} times");
    alerter.stop().await;
    classifier.stop().await;
    gateway.stop().await;
}

/// The record has the numbers that opened the incident, which never changed, and what explains it.
fn carries_its_numbers(incident: &Incident) {
    let opening = incident.opening.as_ref().unwrap();
    assert_eq!((opening.from_time, opening.until_time), (incident.begin_time, incident.open_time));
    assert!(opening.counted >= 4 && opening.counted <= incident.signals[0].counted, "{incident:?}");
    assert_eq!(opening.evidence_nats, incident.signals[0].evidence_nats);
    let explanation = incident.explanation.as_ref().unwrap();
    assert!(explanation.score_nats > 20.0 && explanation.contribution > 0.8, "{explanation:?}");
    assert!(explanation.relative_risk.is_none_or(|risk| risk > 20.0), "{explanation:?}");
    // The last look may have been after the end, while the incident was open still.
    assert!(explanation.failed * 3 > explanation.attempts && explanation.sampled_one_in == 1, "{explanation:?}");
    let whole = explanation.alternatives.iter().find(|other| other.slice == incident.slice).unwrap();
    assert!(whole.score_nats < explanation.score_nats && explanation.alternatives.len() <= 5, "{explanation:?}");
}

/// Whom it affects are those of whom there are rows; `faultline explain` says it, and the query that it carries shows it.
async fn rows_say_the_same(id: &str, settings: &Settings, clickhouse: &ClickHouseConfig) {
    let explained = Faultline::output_with(&["explain", id, "--json"], settings).await;
    assert!(explained.status.success(), "{explained:?}");
    let explained: serde_json::Value = serde_json::from_slice(&explained.stdout).unwrap();
    let finding: Finding = serde_json::from_value(explained["explanation"].clone()).unwrap();
    assert_eq!((finding.slice.as_str(), finding.signal.as_str()), (FAILING, "issuer_down"));
    let rows = format!(
        "SELECT sum(sign), uniqExact(merchant), uniqExact(terminal), uniqExact(terminal, if(first_attempt_sequence = 0, sequence, first_attempt_sequence)) \
         FROM outcomes WHERE issuer = 'icbc' AND carrier = 'china-mobile' AND startsWith(tag, 'issuer_down/') \
         AND completed_at >= toDateTime64({}, 3) AND completed_at < toDateTime64({}, 3)",
        finding.from, finding.until
    );
    let said = [finding.failed, finding.merchants, finding.terminals, finding.transactions].map(|number| number.to_string());
    assert_eq!(query(clickhouse, &rows).await, said.join("\t"));
    assert!(finding.transactions <= finding.failed && finding.amounts[0].currency == "CNY" && finding.amounts[0].minor > 0, "{finding:?}");
    let shown = query(clickhouse, &finding.query).await;
    let shown: u64 = shown.lines().map(|line| line.split('\t').nth(2).unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(shown, finding.failed, "{}", finding.query);

    let told = Faultline::output_with(&["explain", id], settings).await;
    let told = String::from_utf8(told.stdout).unwrap();
    for part in
        ["Opened by ", "explained more finely by carrier=china-mobile&issuer=icbc", "may be issuer=icbc instead", "FROM outcomes WHERE"]
    {
        assert!(told.contains(part), "{part}\n{told}");
    }
}
