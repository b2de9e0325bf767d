//! The rules and the dashboard about Faultline itself, executed by a real Prometheus that scrapes real services.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use faultline_proto::ingest::v1::Event;
use faultline_proto::outcome::v1::Outcome;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::classifier::{counted, road};
use crate::program::eventually;
use crate::sandbox::{port, scratch};
use crate::services::{Service, http, settings_with};
use crate::terminal::{batch, event, outcome};

fn from_top(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A Prometheus with our rules.
struct Prometheus {
    url: String,
    _child: Child,
    _directory: TempDir,
}

impl Prometheus {
    /// Scrapes some ports of this machine every second.
    async fn start(targets: &[u16]) -> Prometheus {
        let directory = scratch("prometheus");
        let rules = std::fs::canonicalize(from_top("deploy/prometheus/faultline.rules.yml")).unwrap();
        let targets: Vec<String> = targets.iter().map(|port| format!("'127.0.0.1:{port}'")).collect();
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\n\
             scrape_configs: [{{job_name: faultline, static_configs: [{{targets: [{}]}}]}}]\n",
            rules.display(),
            targets.join(", ")
        );
        std::fs::write(directory.path().join("prometheus.yml"), config).unwrap();
        let address = format!("127.0.0.1:{}", port());
        let child = Command::new("prometheus")
            .current_dir(directory.path())
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("`make test` installs prometheus");
        Prometheus { url: format!("http://{address}"), _child: child, _directory: directory }
    }

    /// The data of an answer, if there is one.
    async fn ask(&self, path: &str, query: &str) -> Option<Value> {
        let url = reqwest::Url::parse_with_params(&format!("{}/api/v1/{path}", self.url), [("query", query)]).unwrap();
        let mut answer: Value = http().get(url).send().await.ok()?.json().await.ok()?;
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        Some(answer["data"].take())
    }

    /// How many series a query has.
    async fn series(&self, query: &str) -> usize {
        self.ask("query", query).await.unwrap()["result"].as_array().unwrap().len()
    }
}

/// Every query of the dashboard, with the panel that it is of.
fn queries() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(from_top("dashboards/grafana/faultline.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let inner = panels.iter().flat_map(|panel| panel["panels"].as_array().into_iter().flatten());
    let all = panels.iter().chain(inner).flat_map(|panel| {
        let targets = panel["targets"].as_array().into_iter().flatten();
        targets.map(|target| (panel["title"].as_str().unwrap().to_owned(), target["expr"].as_str().unwrap().to_owned()))
    });
    all.collect()
}

/// The names of our metrics in a query: of a histogram, without the end that says which of its series.
fn names(query: &str) -> BTreeSet<String> {
    let words = query.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    let ours = words.filter(|word| word.starts_with("faultline_"));
    ours.map(|name| ["_bucket", "_sum", "_count"].iter().fold(name, |name, end| name.trim_end_matches(end)).to_owned()).collect()
}

#[tokio::test]
async fn the_dashboard_and_the_rules_ask_for_what_there_is() {
    let (gateway, classifier, clickhouse) = road("prometheus").await;
    let alerter = Service::start("alerter", settings_with(&gateway.kafka, &clickhouse));
    let mut settings = settings_with(&gateway.kafka, &clickhouse);
    let page = port();
    settings.push(("CONSOLE__LISTEN", format!("127.0.0.1:{page}")));
    let console = Service::start("console", settings);
    tokio::join!(alerter.until_ready(), console.until_ready());
    // One of them is refused.
    let wrong = Event { outcome: Some(Outcome { currency_code: "yuan".into(), ..outcome() }), ..event(3) };
    gateway.terminal().report(batch(vec![event(1), event(2), wrong])).await.unwrap();
    counted(&clickhouse, 2).await;
    http().get(format!("http://127.0.0.1:{page}/api/v1/tenants")).send().await.unwrap();
    // How long something takes is there once it has been done.
    let judged = async || (alerter.counted("faultline_alerter_ticks_total", &[]).await > 0).then_some(());
    eventually("ten seconds are judged", judged).await;

    let services = [&gateway.service, &classifier, &alerter, &console];
    let prometheus = Prometheus::start(&services.map(|service| service.monitoring_port)).await;
    let scraped = async || {
        let answer = prometheus.ask("query", "count(up == 1)").await?;
        (answer["result"][0]["value"][1] == "4").then_some(())
    };
    eventually("all services are scraped", scraped).await;
    let mut known = BTreeSet::new();
    for service in services {
        let (_, text) = service.ask("/metrics").await.unwrap();
        known.extend(text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next().map(str::to_owned)));
    }

    let queries = queries();
    assert!(queries.len() > 20, "only {} queries were found, so the search is broken", queries.len());
    for (panel, query) in &queries {
        let query = query.replace("$__rate_interval", "10s").replace("$__range", "1m").replace("$instance", ".*");
        assert!(!query.contains('$'), "`{panel}` has a variable that this test does not know: {query}");
        prometheus.ask("query", &query).await.unwrap();
        for name in names(&query) {
            assert!(known.contains(&name) || prometheus.series(&name).await > 0, "`{panel}` asks for {name}, which there is not");
        }
    }
    let evaluated = async || {
        let rules = prometheus.ask("rules", "").await?;
        let rules: Vec<Value> = rules["groups"].as_array()?.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect();
        rules.iter().all(|rule| rule["health"] != "unknown").then_some(rules)
    };
    let rules = eventually("every rule is evaluated", evaluated).await;
    assert!(rules.len() > 20, "{rules:?}");
    for rule in &rules {
        assert_eq!((&rule["health"], rule.get("lastError")), (&"ok".into(), None), "{rule}");
        for name in names(rule["query"].as_str().unwrap()) {
            assert!(known.contains(&name), "{} asks for {name}, which there is not", rule["name"]);
        }
        // Nothing is wrong.
        assert_ne!(rule["state"], "firing", "{rule}");
    }
    for service in [alerter, classifier, console] {
        service.stop().await;
    }
    gateway.stop().await;
}

/// Each alert fires, and is silent, in time that does not pass.
#[tokio::test]
async fn the_rules_pass_their_own_tests() {
    let tests = ["faultline.rules.test.yml", "faultline.rules.week.test.yml"].map(|name| from_top("deploy/prometheus").join(name));
    let output = Command::new("promtool").args(["test", "rules"]).args(tests).output().await.expect("`make test` installs prometheus");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
