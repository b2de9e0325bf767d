//! The alerter: what it makes of counts, whom it tells, and what it does while others fail.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use faultline_deploy::LocalConfig;
use faultline_proto::incident::v1::{Incident, IncidentState, SliceValue};
use faultline_store::{ClickHouseConfig, Database, IncidentRow, LikeHour};
use faultline_stream::{Cluster, IncidentLog, KafkaConfig, LogError};
use tokio::net::TcpListener;

use crate::alertmanager::Alertmanager;
use crate::classifier::road;
use crate::fleet::Scenario;
use crate::program::{Faultline, eventually};
use crate::sandbox::{port, ports, sandbox, scratch};
use crate::services::{Gateway, Service, Settings, new_token, query, settings_with};
use crate::terminal::{batch, event};

/// A bank that fails for a while, in a fleet that is busy enough to see it soon.
const OUTAGE: &str = "
title = 'A bank fails for a while'
[fleet]
terminals = 60
transactions_per_minute = 3000.0
rhythm = 0.0
[history]
weeks = 1
[[fault]]
kind = 'bank_outage'
issuer = 'icbc'
start = '15s'
duration = '40s'
";

/// An endpoint that takes what is posted, but for the first, and remembers it.
struct Endpoint {
    url: String,
    posted: Posted,
}

/// Identifiers of deliveries, and what was delivered.
type Posted = Arc<Mutex<Vec<(String, serde_json::Value)>>>;

impl Endpoint {
    async fn start() -> Endpoint {
        let posted = Posted::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?key=hunter2", listener.local_addr().unwrap());
        let app = axum::Router::new().route("/hook", post(take)).with_state(Arc::clone(&posted));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Endpoint { url, posted }
    }

    fn posted(&self) -> Vec<(String, serde_json::Value)> {
        self.posted.lock().unwrap().clone()
    }

    fn changes(&self) -> Vec<String> {
        self.posted().iter().map(|(_, body)| body["change"].as_str().unwrap().to_owned()).collect()
    }
}

async fn take(State(posted): State<Posted>, headers: HeaderMap, body: String) -> StatusCode {
    let mut posted = posted.lock().unwrap();
    posted.push((headers["faultline-delivery"].to_str().unwrap().to_owned(), serde_json::from_str(&body).unwrap()));
    if posted.len() == 1 { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }
}

fn settings(kafka: &KafkaConfig, clickhouse: &ClickHouseConfig, endpoint: &Endpoint) -> Settings {
    let mut settings = settings_with(kafka, clickhouse);
    settings.push(("ALERTER__WEBHOOK__URL", endpoint.url.clone()));
    settings
}

/// A token of all terminals of `acme` in a file, which the gateway knows.
pub(crate) async fn token_file(gateway: &Gateway, directory: &tempfile::TempDir) -> PathBuf {
    let file = directory.path().join("token");
    std::fs::write(&file, new_token(&gateway.tokens(), &["--tenant", "acme", "--any-terminal"]).await).unwrap();
    eventually("the token is known", async || (gateway.service.counted("faultline_gateway_tokens", &[]).await == 2).then_some(())).await;
    file
}

/// The whole road: a bank fails, the incident opens, the alerter is killed and another takes over, the bank is back, the incident closes; the webhook is told of
/// each once, though it refuses at first.
#[tokio::test]
async fn an_outage_is_one_incident_though_the_alerter_is_killed() {
    let (gateway, classifier, clickhouse) = road("outage").await;
    let endpoint = Endpoint::start().await;
    let alertmanager = Alertmanager::start().await;
    let mut settings = settings(&gateway.kafka, &clickhouse, &endpoint);
    settings.push(("ALERTER__CONSOLE_URL", "https://faultline.example".into()));
    if let Some(alertmanager) = &alertmanager {
        settings.push(("ALERTER__ALERTMANAGER__URLS", alertmanager.url.clone()));
        settings.push(("ALERTER__ALERTMANAGER__RESEND_INTERVAL", "10s".into()));
    }
    let alerter = Service::start("alerter", settings.clone());
    alerter.until_ready().await;
    let scenario = Scenario::new(OUTAGE);
    let token = token_file(&gateway, &scenario.directory).await;
    let address = format!("http://{}", gateway.address());
    let (path, token) = (scenario.path(), token.to_str().unwrap().to_owned());
    let arguments =
        ["simulate", path.to_str().unwrap(), "--gateway", &address, "--token-file", &token, "--history-of", "acme", "--run-for", "3m"];
    let mut fleet = Faultline::start(&arguments, &settings_with(&gateway.kafka, &clickhouse));
    fleet.until_it_says("(icbc) fails").await;
    let opened = fleet.until_it_says("INCIDENT OPENED").await;
    assert!(opened.contains("issuer icbc: the issuer is down") && opened.contains("Cause: bank."), "{opened}");
    let told = "SELECT count() FROM deliveries WHERE channel = 'webhook' AND revision = 1";
    eventually("it is kept that the webhook was told", async || (query(&clickhouse, told).await == "1").then_some(())).await;
    alerter.kill().await;

    let alerter = Service::start("alerter", settings);
    fleet.until_it_says("over:").await;
    let closed = fleet.until_it_says("INCIDENT CLOSED").await;
    assert!(closed.contains("issuer icbc") && closed.contains("over."), "{closed}");
    eventually("the webhook is told", async || (endpoint.changes().last()? == "closed").then_some(())).await;
    drop(fleet);

    let posted = endpoint.posted();
    let [first, again, last] = posted.as_slice() else { panic!("{posted:?}") };
    assert_eq!(first, again, "what is sent again is the same");
    let (opened, closed) = (&first.1, &last.1);
    assert_eq!((&opened["change"], &opened["state"], &opened["cause"]), (&"opened".into(), &"open".into(), &"bank".into()));
    assert_eq!((&opened["slice"], &opened["tenant"]), (&serde_json::json!({"issuer": "icbc"}), &"acme".into()));
    assert_eq!((&closed["incident_id"], &closed["state"]), (&opened["incident_id"], &"closed".into()));
    assert_eq!(opened["delivery_id"], first.0);

    if let Some(alertmanager) = alertmanager {
        // Told once though it was sent again and again, by two alerters; and that it is over, with the time at which it was.
        let told = eventually("Alertmanager tells that it is over", async || {
            alertmanager.told().into_iter().find(|told| told["status"] == "resolved").map(|_| alertmanager.told())
        });
        let told = told.await;
        let [firing, resolved] = told.as_slice() else { panic!("{told:?}") };
        let (firing, resolved) = (&firing["alerts"][0], &resolved["alerts"][0]);
        assert_eq!(firing["labels"], resolved["labels"]);
        assert_eq!((&firing["labels"]["issuer"], &firing["labels"]["cause"]), (&"icbc".into(), &"bank".into()));
        assert_eq!((&resolved["startsAt"], &resolved["endsAt"]), (&closed["begin_time"], &closed["close_time"]));
        assert_eq!((&firing["generatorURL"], &opened["link"]), (&closed["link"], &closed["link"]));
    }

    let (_, incidents) = IncidentLog::take_over(&gateway.kafka).await.unwrap();
    assert_eq!(incidents.len(), 1);
    let incident = &incidents[0];
    assert_eq!((incident.state(), opened["incident_id"].as_str()), (IncidentState::Closed, Some(incident.incident_id.as_str())));
    assert_eq!(incident.slice, [SliceValue { dimension: "issuer".into(), value: "icbc".into() }]);
    let rows = "SELECT uniq(incident), argMax(state, revision), argMax(slice, revision), argMax(cause, revision), max(revision) > 1, \
                argMax(closed > opened, revision) FROM incidents";
    assert_eq!(query(&clickhouse, rows).await, "1\tclosed\tissuer=icbc\tbank\t1\t1");
    is_explained(incident, &settings_with(&gateway.kafka, &clickhouse), &clickhouse).await;
    let said = alerter.stop().await.stderr;
    assert!(said.contains("an incident changed") && !said.contains("hunter2"), "{said}");
    classifier.stop().await;
    gateway.stop().await;
}

/// Asserts that `faultline explain` says the numbers of an incident, and that its query shows them.
async fn is_explained(incident: &Incident, settings: &[(&'static str, String)], clickhouse: &ClickHouseConfig) {
    let explained = Faultline::output_with(&["explain", &incident.incident_id, "--json"], settings).await;
    assert!(explained.status.success(), "{explained:?}");
    let explained: serde_json::Value = serde_json::from_slice(&explained.stdout).unwrap();
    let counted = incident.signals[0].counted;
    assert_eq!((&explained["numbers"]["counted"], &explained["slice"]), (&counted.into(), &"issuer=icbc".into()));
    let failed = explained["affected"]["failed_attempts"].as_u64().unwrap();
    // What failed while it was coming back is not of the fault, and is there.
    assert!(failed >= counted && explained["numbers"]["relative_risk"].as_f64().is_none_or(|risk| risk > 10.0), "{explained}");
    assert!(
        explained["affected"]["terminals"].as_u64() > Some(3) && explained["affected"]["amounts"][0]["minor"].as_i64() > Some(0),
        "{explained}"
    );
    let shown = query(clickhouse, explained["query"].as_str().unwrap()).await;
    let shown: u64 = shown.lines().map(|line| line.split('\t').nth(2).unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(shown, failed, "{explained}");

    let unknown = Faultline::output_with(&["explain", "20261120T020020Z-1f3a90c2"], settings).await;
    let said = String::from_utf8(unknown.stderr).unwrap();
    assert!(!unknown.status.success() && said.contains("there is no incident `20261120T020020Z-1f3a90c2`"), "{said}");
}

/// While nothing is counted, nobody says that every bank is down.
#[tokio::test]
async fn while_counting_is_behind_it_says_that_and_nothing_else() {
    let (gateway, classifier, clickhouse) = road("late").await;
    let mut late = settings_with(&gateway.kafka, &clickhouse);
    late.push(("ALERTER__LATE_AFTER", "20s".into()));
    let alerter = Service::start("alerter", late);
    alerter.until_ready().await;
    let stopped = classifier.settings.clone();
    classifier.kill().await;
    gateway.terminal().report(batch(vec![event(1)])).await.unwrap();
    let why = alerter.until_it_says("Faultline is late").await;
    assert!(why.contains("what happened more than 20s ago is not counted yet"), "{why}");
    let classifier = Service::start("classifier", stopped);
    alerter.until_ready().await;
    assert_eq!(query(&clickhouse, "SELECT count() FROM incidents").await, "0");
    classifier.stop().await;
    alerter.stop().await;
    gateway.stop().await;
}

#[tokio::test]
async fn what_keeps_it_from_working_is_said() {
    let shared = sandbox().await;
    let nowhere = KafkaConfig { brokers: format!("127.0.0.1:{}", port()), ..shared.kafka.clone() };
    let alerter = Service::start("alerter", settings_with(&nowhere, &shared.clickhouse));
    alerter.until_it_says("cannot be reached").await;
    alerter.stop().await;
    let kafka = KafkaConfig { topic_prefix: "alerter-alone".into(), ..shared.kafka.clone() };
    let silent = ClickHouseConfig { url: format!("http://127.0.0.1:{}", port()).parse().unwrap(), ..shared.clickhouse.clone() };
    let alerter = Service::start("alerter", settings_with(&kafka, &silent));
    alerter.until_it_says("ClickHouse at").await;
    alerter.stop().await;

    let listen = format!("127.0.0.1:{}", port());
    let wrong = [("ALERTER__WEBHOOK__URL", "hooks.example/key=hunter2".to_owned()), ("MONITORING__LISTEN", listen)];
    let ended = crate::program::run(&["alerter"], &wrong).await;
    ended.failed_saying(&["configuration key `alerter.webhook.url`", "not an address"]);
    assert!(!ended.stderr.contains("hunter2"));
}

/// Who was stopped, and wakes up while another has taken over, can write no more.
#[tokio::test]
async fn the_log_of_incidents_has_one_writer() {
    let kafka = KafkaConfig { topic_prefix: "incidents".into(), ..sandbox().await.kafka.clone() };
    let cluster = Cluster::new(&kafka).unwrap();
    cluster.ensure_topics().await.unwrap();
    eventually("every broker knows the topics", async || cluster.check_topics().await.ok()).await;
    let incident = |id: &str, revision| Incident { tenant: "acme".into(), incident_id: id.into(), revision, ..Incident::default() };
    let (first, before) = IncidentLog::take_over(&kafka).await.unwrap();
    assert_eq!(before, []);
    first.write(vec![incident("a", 1), incident("b", 1), incident("a", 2)]).await.unwrap();
    first.forget(&[incident("b", 1)]).await.unwrap();

    let (second, before) = IncidentLog::take_over(&kafka).await.unwrap();
    assert_eq!(before, [incident("a", 2)]);
    let refused = first.write(vec![incident("a", 3)]).await.unwrap_err();
    assert!(matches!(refused, LogError::TakenOver { .. }), "{refused:?}");
    assert!(refused.to_string().contains("another process has taken over the topic incidents.incidents"), "{refused}");
    second.write(vec![incident("c", 1)]).await.unwrap();
    let (_, now) = IncidentLog::take_over(&kafka).await.unwrap();
    assert_eq!(now, [incident("a", 2), incident("c", 1)]);
}

/// An hour of the week is that of other weeks, and of other days as far as there is no better; what was counted during incidents is left out.
#[tokio::test]
async fn what_is_usual_is_what_was_counted_at_such_hours() {
    let clickhouse = ClickHouseConfig { database: "usual".into(), ..sandbox().await.clickhouse.clone() };
    let database = Database::new(&clickhouse).unwrap();
    database.migrate().await.unwrap();
    // A Monday, 12:00 UTC.
    let (hour, day) = (1_793_620_800, 86_400);
    let mut rows = Vec::new();
    let mut count = |bucket: u32, simulated: bool, attempts: u32| {
        for (family, key) in [("fleet", ""), ("issuer", "icbc")] {
            for (tag, cause, count) in [("approved/host_decision", 1, attempts), ("issuer_down/host_decision", 4, 1)] {
                rows.push(format!("('acme', '{family}', '{key}', {bucket}, '{tag}', {cause}, 'CNY', {count}, 0, {simulated})"));
            }
        }
    };
    count(hour - 7 * day, true, 100); // the same hour
    count(hour - 7 * day + 3600, true, 10); // the hour after, on the same day
    count(hour - 3 * day - 3600, true, 1000); // the hour before, on another
    count(hour - 3 * day + 7200, true, 77_777); // another hour
    count(hour - 29 * day, true, 88_888); // too long ago
    count(hour - 600, false, 5); // the hour before, on the same day
    count(hour - 900, false, 700); // during an incident: approvals count, failures of its class do not
    count(hour + 60, false, 40); // today, as far as it goes
    count(hour + 600, false, 9_999); // later than now
    query(
        &clickhouse,
        &format!(
            "INSERT INTO rollup (tenant, family, key, bucket, tag, cause, currency, count, amount_minor, simulated) VALUES {}",
            rows.join(", ")
        ),
    )
    .await;
    let incident = IncidentRow {
        tenant: "acme".into(),
        incident: "a".into(),
        revision: 2,
        state: 3,
        cause: 4,
        slice: "issuer=icbc".into(),
        signals: vec!["issuer_down".into()],
        attempts: 0,
        counted: 0,
        expected: 0.0,
        evidence: 0.0,
        began: hour - 900,
        opened: hour - 890,
        updated: hour - 700,
        closed: hour - 700,
        summary_zh_cn: String::new(),
        summary_en: String::new(),
        findings: String::new(),
    };
    database.keep_incidents(&[IncidentRow { revision: 1, state: 1, closed: 0, ..incident.clone() }, incident.clone()]).await.unwrap();
    assert_eq!(database.incidents("acme", hour - 700).await.unwrap(), [incident]);
    assert_eq!(database.incidents("acme", hour).await.unwrap(), []);

    let like = |same_day: fn(u32) -> bool| -> Vec<LikeHour> {
        (0..=28).map(|days| LikeHour { begin: hour - days * day, is_same_day: same_day(days) }).collect()
    };
    let usual = database.usual("acme", &like(|days| days % 7 == 0), hour + 300).await.unwrap();
    let mut approved: Vec<_> = usual.counts.iter().filter(|count| count.class == "approved").collect();
    approved.sort_by_key(|count| count.family.clone());
    let counted: Vec<_> = approved.iter().map(|count| (count.key.as_str(), count.at_hour, count.around)).collect();
    assert_eq!(counted, [("", 140, 1855), ("icbc", 140, 1855)]);
    let by_hour: Vec<_> = approved.iter().map(|count| (count.on_day, count.on_days)).collect();
    assert_eq!(by_hour, [((705, 140, 10), (1705, 140, 10)); 2]);
    let down: Vec<_> =
        usual.counts.iter().filter(|count| count.class == "issuer_down").map(|count| (count.at_hour, count.around)).collect();
    assert_eq!(down, [(2, 5), (2, 5)]);
    let mut observed: Vec<_> = usual.observed.iter().map(|hour| (hour.hour, hour.same_day, hour.approved, hour.seconds)).collect();
    observed.sort_unstable();
    assert_eq!(observed, [(0, false, 1000, 3600), (0, true, 705, 600), (1, true, 140, 3900), (2, true, 10, 3600)]);
    assert_eq!(database.usual("other", &like(|_| true), hour).await.unwrap().counts, []);
    // Where every day is of the same kind, all of it is of such a day.
    let alike = database.usual("acme", &like(|_| true), hour + 300).await.unwrap();
    assert!(alike.observed.iter().all(|hour| hour.same_day));
    assert!(alike.counts.iter().all(|count| count.on_day == count.on_days));
}

/// What `make demo` does, in short.
#[tokio::test]
async fn a_scenario_that_is_checked_ends_by_itself() {
    let directory = scratch("up-check");
    let local = LocalConfig { data_dir: directory.path().into(), ..ports() };
    let scenario = Scenario::new(OUTAGE);
    let path = scenario.path();
    let mut up = Faultline::up(&local, &["--simulate", path.to_str().unwrap(), "--check"]);
    for said in ["Faultline is up.", "(icbc) fails", "INCIDENT OPENED", "over:", "INCIDENT CLOSED", "The fleet is switched off"] {
        up.until_it_says(said).await;
    }
    let passed = up.until_it_says("Passed: ").await;
    assert!(passed.contains("issuer=icbc, cause bank: opened "), "{passed}");
    let ended = up.end().await;
    assert!(ended.status.success(), "{ended:?}");

    let endless = Scenario::new(&OUTAGE.replace("duration = '40s'", ""));
    let arguments = ["up", "--data-dir", directory.path().to_str().unwrap(), "--simulate", endless.path().to_str().unwrap(), "--check"]
        .map(str::to_owned);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    crate::program::run(&arguments, &[]).await.failed_saying(&["--check needs a scenario that ends"]);
}
