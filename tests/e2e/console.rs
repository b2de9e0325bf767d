//! The console: its API over what the road has stored, and its page in a browser.

use std::path::Path;
use std::process::{Output, Stdio};

use faultline_deploy::LocalConfig;
use faultline_proto::ingest::v1::Event;
use faultline_proto::outcome::v1::{EntryMode, Outcome, Stage};
use faultline_store::{ClickHouseConfig, Database, IncidentRow};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::classifier::{counted, road};
use crate::fleet::Scenario;
use crate::program::{Faultline, run};
use crate::sandbox::{port, ports, sandbox, scratch};
use crate::services::{Service, Settings, http, query, settings_with};
use crate::terminal::{batch, event, in_seconds, outcome};

/// A console, and where it answers.
pub(crate) struct Console {
    pub(crate) service: Service,
    address: String,
}

impl Console {
    pub(crate) async fn start(clickhouse: &ClickHouseConfig, more: &[(&'static str, String)]) -> Console {
        let address = format!("127.0.0.1:{}", port());
        let mut settings: Settings = settings_with(&sandbox().await.kafka, clickhouse);
        settings.push(("CONSOLE__LISTEN", address.clone()));
        settings.extend_from_slice(more);
        Console { service: Service::start("console", settings), address: format!("http://{address}") }
    }

    /// Status, kind and content of an answer.
    async fn ask(&self, path: &str) -> (u16, String, Value) {
        let response = http().get(format!("{}{path}", self.address)).send().await.unwrap();
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        (response.status().as_u16(), kind, response.json().await.unwrap())
    }

    /// What is answered about tenant `acme`.
    pub(crate) async fn of_acme(&self, path: &str) -> Value {
        let (status, kind, answer) = self.ask(&format!("/api/v1/tenants/acme/{path}")).await;
        assert_eq!((status, kind.as_str()), (200, "application/json"), "{path}: {answer}");
        answer
    }

    /// What is wrong with a question.
    pub(crate) async fn refused(&self, path: &str, status: u16, detail: &str) -> Value {
        let (its_status, kind, answer) = self.ask(path).await;
        assert_eq!((its_status, kind.as_str()), (status, "application/problem+json"), "{path}: {answer}");
        assert!(answer["detail"].as_str().unwrap().contains(detail), "{path}: {answer}");
        assert_eq!(answer["status"], status);
        answer
    }
}

/// A sale by chip that the host answered.
fn answered(sequence: u64, code: &str) -> Event {
    let outcome = Outcome {
        stage: Stage::HostDecision.into(),
        entry_mode: EntryMode::Chip.into(),
        response_code: code.into(),
        response_spec: "unionpay-pos".into(),
        bin: "621226".into(),
        ..outcome()
    };
    Event { outcome: Some(outcome), ..event(sequence) }
}

/// What explains it, as it is kept.
const FINDINGS: &str = r#"{"opening":{"from":1795600000,"until":1795600020,"attempts":9,"counted":8,"expected":0.1,"evidence_nats":30.5},"explanation":{"signal":"issuer_down","from":1795600000,"until":1795600120,"slice":"carrier=46000&issuer=icbc","score_nats":80.5,"contribution":0.9,"relative_risk":null,"alternatives":[{"slice":"issuer=icbc","score_nats":20.5}],"attempts":100,"failed":90,"merchants":7,"terminals":8,"transactions":80,"amounts":[{"currency":"CNY","minor":12345}],"sampled_one_in":1,"query":"SELECT 1","parts":[{"slice":"issuer=icbc&region=310000","score_nats":22.5,"attempts":40,"failed":38},{"slice":"entry_mode=chip&issuer=icbc","score_nats":12.5,"attempts":20,"failed":9}]}}"#;

fn incident() -> IncidentRow {
    let now = u32::try_from(in_seconds(0).seconds).unwrap();
    IncidentRow {
        tenant: "acme".into(),
        incident: "20261125T144000Z-0a1b2c3d".into(),
        revision: 1,
        state: 1,
        cause: 4,
        slice: "issuer=icbc".into(),
        signals: vec!["issuer_down".into(), "missing_approvals".into()],
        attempts: 100,
        counted: 90,
        expected: 0.5,
        evidence: 40.5,
        began: now - 60,
        opened: now - 40,
        updated: now - 10,
        closed: 0,
        summary_zh_cn: "发卡行 icbc".into(),
        summary_en: "issuer icbc".into(),
        findings: FINDINGS.into(),
    }
}

#[tokio::test]
async fn what_was_reported_and_found_is_shown() {
    let (gateway, classifier, clickhouse) = road("console").await;
    let console = Console::start(&clickhouse, &[]).await;
    console.service.until_ready().await;
    console.refused("/api/v1/tenants/acme/summary", 404, "tenant `acme`").await;
    assert_eq!(console.ask("/api/v1/tenants").await.2, json!({"tenants": []}));

    let events = vec![answered(1, "00"), answered(2, "51"), answered(3, "91"), event(4)];
    gateway.terminal().report(batch(events)).await.unwrap();
    counted(&clickhouse, 4).await;

    let (_, _, tenants) = console.ask("/api/v1/tenants").await;
    assert_eq!(tenants["tenants"][0]["tenant"], "acme");
    let counts = console.of_acme("counts?minutes=5").await;
    let sum = |list: &Value| list.as_array().unwrap().iter().filter_map(Value::as_u64).sum::<u64>();
    assert_eq!((counts["step_s"].as_u64(), sum(&counts["attempts"])), (Some(10), 4));
    let by_cause = |counts: &Value| ["approved", "account", "bank"].map(|cause| sum(&counts["by_cause"][cause]));
    assert_eq!(by_cause(&counts), [1, 1, 1]);
    assert!(counts["usual"]["attempts"].as_array().unwrap().iter().all(Value::is_null), "{counts}");
    let of_bank = console.of_acme("counts?minutes=5&slice=issuer%3Dicbc%26entry_mode%3Dchip").await;
    assert_eq!((of_bank["slice"].as_str(), by_cause(&of_bank)), (Some("issuer=icbc&entry_mode=chip"), [1, 1, 1]));
    let summary = console.of_acme("summary").await;
    assert_eq!(summary["usual"], Value::Null);
    let settled = counts["settled_until"].as_str().unwrap();
    assert!(settled < summary["counted_until"].as_str().unwrap(), "{counts}");
    // Nobody said how far counts reach; now somebody does, and nothing came in the last minute.
    let later = u32::try_from(in_seconds(0).seconds).unwrap() / 10 * 10;
    Database::new(&clickhouse).unwrap().keep_progress(later).await.unwrap();
    let summary = console.of_acme("summary").await;
    assert_eq!((&summary["window"]["end"], &summary["settled_until"]), (&summary["settled_until"], &summary["window"]["end"]));
    assert_eq!(console.of_acme("counts?minutes=5").await["settled_until"], summary["settled_until"]);
    assert!(summary["settled_until"].as_str().unwrap() > settled, "{summary}");

    // The newest comes first: the event that came last in its batch.
    let outcomes = console.of_acme("outcomes?terminal=T-1&limit=2").await;
    let sequences = |outcomes: &Value| -> Vec<String> {
        outcomes["outcomes"].as_array().unwrap().iter().map(|outcome| outcome["sequence"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(sequences(&outcomes), ["4", "3"]);
    let down = &outcomes["outcomes"][1];
    assert_eq!((&down["entry_mode"], &down["stage"], &down["response_code"]), (&json!("chip"), &json!("host_decision"), &json!("91")));
    assert_eq!((&down["issuer"], &down["model"], &down["amount_minor"]), (&json!("icbc"), &json!("PAX A920"), &json!(1234)));
    assert_eq!((&down["verdict"]["cause"], &down["verdict"]["tag"]), (&json!("bank"), &json!("issuer_down/host_decision")));
    assert!(down["verdict"]["advice"]["cashier"]["zh_cn"].as_str().is_some_and(|text| !text.is_empty()), "{down}");
    for (question, wanted) in [
        ("failed=true", vec!["4", "3", "2"]),
        ("cause=account", vec!["2"]),
        ("slice=entry_mode%3Dchip%26region%3D440300&cause=approved", vec!["1"]),
        ("slice=issuer%3Dabc", vec![]),
        ("terminal=T-2", vec![]),
        ("until=2026-01-01T00%3A00%3A00Z", vec![]),
    ] {
        assert_eq!(sequences(&console.of_acme(&format!("outcomes?{question}")).await), wanted, "{question}");
    }
    // Corrected: it was the bank's fault after all.
    for (columns, revision, sign) in [("", 0, -1), (", 'bank' AS cause, 'issuer_refusal/host_decision' AS tag", 1, 1)] {
        let correction = format!("* REPLACE (toInt8({sign}) AS sign, toUInt16({revision}) AS revision{columns})");
        query(
            &clickhouse,
            &format!(
                "INSERT INTO outcomes SELECT {correction} FROM (SELECT * FROM outcomes WHERE sequence = 2 AND sign = 1 AND revision = 0)"
            ),
        )
        .await;
    }
    assert_eq!(sequences(&console.of_acme("outcomes?cause=account").await), [""; 0]);
    let corrected = console.of_acme("outcomes?cause=bank").await;
    assert_eq!(sequences(&corrected), ["3", "2"]);
    assert_eq!((&corrected["outcomes"][1]["verdict"]["revision"], sequences(&console.of_acme("outcomes").await).len()), (&json!(1), 4));

    assert_eq!(console.of_acme("unknown-codes").await, json!({"codes": []}));

    let (first, database) = (incident(), Database::new(&clickhouse).unwrap());
    let second = IncidentRow { revision: 2, state: 3, closed: first.updated, slice: "issuer=icbc&region=440300".into(), ..first.clone() };
    database.keep_incidents(std::slice::from_ref(&first)).await.unwrap();
    let open = console.of_acme("incidents?state=open").await;
    assert_eq!((&open["incidents"][0]["incident_id"], &open["incidents"][0]["is_counted"]), (&json!(first.incident), &json!(true)));
    assert_eq!(open["incidents"][0]["evidence"], json!({"attempts": 100, "counted": 90, "expected": 0.5, "nats": 40.5}));
    let explanation = &open["incidents"][0]["explanation"];
    assert_eq!(explanation["values"], json!([{"dimension": "carrier", "value": "46000"}, {"dimension": "issuer", "value": "icbc"}]));
    assert_eq!((&explanation["parts"][0]["values"][1]["value"], &explanation["parts"][1]["failed"]), (&json!("310000"), &json!(9)));
    assert_eq!(explanation["alternatives"][0]["values"], json!([{"dimension": "issuer", "value": "icbc"}]));
    assert_eq!((&explanation["relative_risk"], &explanation["amounts"][0]["minor"]), (&json!(null), &json!(12_345)));
    assert_eq!(open["incidents"][0]["opening"]["evidence"], json!({"attempts": 9, "counted": 8, "expected": 0.1, "nats": 30.5}));
    assert_eq!(console.of_acme("summary").await["open_incidents"], 1);
    database.keep_incidents(&[second]).await.unwrap();
    assert_eq!(console.of_acme("incidents?state=open").await, json!({"incidents": []}));
    let closed = console.of_acme(&format!("incidents/{}", first.incident)).await;
    assert_eq!((&closed["state"], &closed["close_time"], &closed["is_counted"]), (&json!("closed"), &closed["update_time"], &json!(false)));
    assert_eq!(closed["values"], json!([{"dimension": "issuer", "value": "icbc"}, {"dimension": "region", "value": "440300"}]));
    let states: Vec<_> = closed["revisions"].as_array().unwrap().iter().map(|revision| &revision["state"]).collect();
    assert_eq!(states, ["open", "closed"]);
    assert_eq!(console.of_acme("summary").await["open_incidents"], 0);

    let (status, metrics) = console.service.ask("/metrics").await.unwrap();
    assert!(status == 200 && metrics.contains("route=\"/api/v1/tenants/{tenant}/incidents/{incident_id}\""), "{metrics}");
    assert!(!metrics.contains("acme"), "{metrics}");
    for service in [console.service, classifier] {
        service.stop().await;
    }
    gateway.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_question_is_said() {
    let (clickhouse, _) = stored("console_wrong").await;
    let console = Console::start(&clickhouse, &[]).await;
    console.service.until_ready().await;
    let wrong = console.refused("/api/v1/tenants/acme/counts?minutes=1", 400, "`minutes`: `1` is not a whole number from 5 to 10080").await;
    assert_eq!((&wrong["field"], &wrong["value"]), (&json!("minutes"), &json!("1")));
    console.refused("/api/v1/tenants/acme/outcomes?card=6212345678901232", 400, "`card` is not a parameter here").await;
    console.refused("/api/v1/tenants/a%20b/summary", 400, "`tenant`: `a b` is not 1 to 32 of").await;
    console.refused("/api/v1/tenants/%FF/summary", 400, "UTF-8").await;
    console.refused("/api/v1/tenants/nobody/summary", 404, "tenant `nobody`").await;
    console
        .refused(
            "/api/v1/tenants/acme/counts?slice=region%3D1%26issuer%3Da",
            404,
            "`region=1&issuer=a`: its values are not counted together",
        )
        .await;
    console.refused("/api/v1/tenants/acme/incidents/none", 404, "incident `none`").await;
    console.refused("/api/v2/tenants", 404, "/api/v1/openapi.json").await;
    let long = format!("/api/v1/tenants/acme/incidents/{}", "a".repeat(65));
    console.refused(&long, 400, "is not 1 to 64 characters").await;
    // A page of others that points its name here.
    let asked = http().get(format!("{}/api/v1/tenants", console.address)).header("host", "evil.example").send().await.unwrap();
    assert_eq!(asked.status(), 421);
    let kept = http().get(format!("{}/api/v1/tenants", console.address)).send().await.unwrap();
    assert_eq!(kept.headers()["cache-control"], "no-store");
    let posted = http().post(format!("{}/api/v1/tenants", console.address)).send().await.unwrap();
    assert_eq!((posted.status().as_u16(), posted.headers()["allow"].to_str().unwrap()), (405, "GET,HEAD"));
    let page = http().get(format!("{}/nothing.js", console.address)).send().await.unwrap();
    assert_eq!(page.status(), 404);
    console.service.stop().await;

    let everywhere = format!("0.0.0.0:{}", port());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for (listen, said) in [(everywhere, "console.serve_anyone"), (taken.local_addr().unwrap().to_string(), "`console.listen`")] {
        let settings = [("CONSOLE__LISTEN", listen.clone()), ("MONITORING__LISTEN", format!("127.0.0.1:{}", port()))];
        run(&["console"], &settings).await.failed_saying(&[&listen, said]);
    }
}

/// A database in which tenant `acme` has something of everything.
async fn stored(name: &str) -> (ClickHouseConfig, IncidentRow) {
    let clickhouse = ClickHouseConfig { database: name.into(), ..sandbox().await.clickhouse.clone() };
    let database = Database::new(&clickhouse).unwrap();
    database.migrate().await.unwrap();
    let incident = incident();
    database.keep_incidents(std::slice::from_ref(&incident)).await.unwrap();
    let hours = "arrayJoin(range(24 * 30)) * 3600";
    query(
        &clickhouse,
        &format!(
            "INSERT INTO rollup (tenant, family, key, bucket, tag, cause, currency, count, amount_minor) \
             SELECT 'acme', 'fleet', '', now() - {hours}, 'approved/host_decision', 'approved', 'CNY', 60, 6000"
        ),
    )
    .await;
    let columns =
        "tenant, terminal, spool, sequence, completed_at, received_at, stage, entry_mode, signal_dbm, cause, tag, reason, confidence, sign";
    query(
        &clickhouse,
        &format!(
            "INSERT INTO outcomes ({columns}) SELECT 'acme', 'T-1', 7, number, now64() - number * 60, now64(), number % 13, number % 7, -70, \
             1 + number % 7, 'approved/host_decision', 'approved', 99, 1 FROM numbers(200)"
        ),
    )
    .await;
    (clickhouse, incident)
}

#[tokio::test]
async fn whatever_the_document_allows_is_answered_as_it_says() {
    let (clickhouse, incident) = stored("console_document").await;
    let console = Console::start(&clickhouse, &[]).await;
    console.service.until_ready().await;
    let directory = scratch("schemathesis");
    let parameters = format!("[parameters]\ntenant = 'acme'\nincident_id = '{}'\n", incident.incident);
    std::fs::write(directory.path().join("schemathesis.toml"), parameters).unwrap();
    let document = format!("{}/api/v1/openapi.json", console.address);
    // The same questions every time.
    let arguments = ["run", &document, "--seed", "1", "--max-examples", "40", "--generation-database", "none", "--no-color"];
    let output = tool("schemathesis", directory.path(), &arguments, &[]).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("Tested: 11"), "{said}");
    console.service.stop().await;
}

/// A bank that begins to fail once the page has been looked at, and goes on.
const OUTAGE: &str = "
title = 'A bank fails'
[fleet]
terminals = 60
transactions_per_minute = 3000.0
rhythm = 0.0
[history]
weeks = 1
[[fault]]
kind = 'bank_outage'
issuer = 'icbc'
start = '100s'
";

/// The page's own tests, in a browser, while a bank begins to fail.
#[tokio::test]
async fn the_page_shows_an_outage_as_it_comes() {
    let directory = scratch("page");
    let local = LocalConfig { data_dir: directory.path().into(), ..ports() };
    let scenario = Scenario::new(OUTAGE);
    let mut up = Faultline::up(&local, &["--simulate", scenario.path().to_str().unwrap()]);
    let line = up.until_it_says("Console ").await;
    let address = line.split_whitespace().nth(1).unwrap().trim_end_matches('/').to_owned();
    // Something was counted, and the bank fails long after the browser has seen that nothing is wrong.
    up.until_it_says("[00:20]").await;
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards/console");
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../console-pictures");
    std::fs::create_dir_all(&pictures).unwrap();
    let variables = [("CONSOLE_URL", address.as_str()), ("SCREENSHOTS", pictures.to_str().unwrap())];
    let output = tool("node", &page, &["--test", "tests/page.test.ts"], &variables).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("fail 0") && said.contains("skipped 0"), "{said}");
    up.signal(Signal::SIGTERM);
    let ended = up.end().await;
    assert!(ended.status.success(), "{ended:?}");
}

/// Runs one of the tools that `make test` installs, in a directory.
async fn tool(name: &str, directory: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(name);
    command.args(arguments).current_dir(directory).envs(variables.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
    command.output().await.unwrap_or_else(|error| panic!("{name}: {error} (`make test` installs it, and has it on its search path)"))
}

#[tokio::test]
async fn a_clickhouse_that_does_not_answer_is_said_and_holds_up_nobody_for_long() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let clickhouse =
        ClickHouseConfig { url: format!("http://{}", silent.local_addr().unwrap()).parse().unwrap(), ..sandbox().await.clickhouse.clone() };
    let console = Console::start(&clickhouse, &[("CONSOLE__MAX_QUESTIONS", "3".into())]).await;
    console.service.until_it_says("the console's ClickHouse: ").await;
    let (first, second) = tokio::join!(console.ask("/api/v1/tenants"), console.ask("/api/v1/tenants"));
    let mut kinds = Vec::new();
    for (status, kind, answer) in [first, second] {
        assert_eq!((status, kind.as_str()), (503, "application/problem+json"), "{answer}");
        // What is inside is not for those outside.
        assert!(!answer.to_string().contains("127.0.0.1"), "{answer}");
        kinds.push(answer["type"].as_str().unwrap().to_owned());
    }
    kinds.sort();
    assert_eq!(kinds, ["urn:faultline:problem:busy", "urn:faultline:problem:store"]);
    console.service.stop().await;
}
