//! The SDK against a real gateway, and a simulated fleet on the whole road.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use faultline_deploy::LocalConfig;
use faultline_proto::ingest::v1::OutcomeBatch;
use faultline_sdk::{Connection, RefusalReason, Terminal};
use faultline_store::families;
use nix::sys::signal::Signal;
use prost::Message;
use tokio::time::timeout;

use crate::classifier::{counted, road};
use crate::program::{Ended, Faultline, eventually};
use crate::sandbox::{PATIENCE, port, ports, scratch};
use crate::services::{Gateway, Service, Settings, new_token, query, settings_with};
use crate::terminal::outcome;

fn connection(gateway: &Gateway, token: &str) -> Connection {
    Connection::builder(format!("http://{}", gateway.address()), token).build().unwrap()
}

async fn until_settled(terminal: &Terminal, sequence: u64) {
    let settled = timeout(PATIENCE, terminal.until_settled(sequence)).await;
    assert!(settled.is_ok(), "{:?}", terminal.status());
}

#[tokio::test]
async fn what_a_terminal_reports_survives_the_gateway() {
    let mut gateway = Gateway::start("sdk-survives").await;
    let terminal = Terminal::builder(&connection(&gateway, &gateway.token), "T-1").start().unwrap();
    let mut last = 0;
    for _ in 0..120 {
        last = terminal.report(outcome()).unwrap().sequence;
    }
    until_settled(&terminal, 100).await;
    let settings = gateway.service.settings.clone();
    gateway.service.kill().await;
    for _ in 0..120 {
        last = terminal.report(outcome()).unwrap().sequence;
    }
    eventually("the loss is noticed", async || (!terminal.status().connected).then_some(())).await;
    assert!(!terminal.status().problem.is_empty() && terminal.status().waiting >= 120);
    gateway.service = Service::start("gateway", settings);
    until_settled(&terminal, last).await;
    let status = terminal.close(Duration::from_secs(10)).await;
    assert_eq!((status.waiting, status.acknowledged, status.refused, status.dropped), (0, 240, 0, 0));

    let mut sequences = BTreeSet::new();
    for record in gateway.records().await {
        let batch = OutcomeBatch::decode(record.batch).unwrap();
        sequences.extend(batch.events.iter().map(|event| (batch.spool_id, event.sequence)));
    }
    let spool = sequences.first().unwrap().0;
    assert_eq!(sequences, (1..=240).map(|sequence| (spool, sequence)).collect());
    gateway.stop().await;
}

#[tokio::test]
async fn a_terminal_knows_what_is_wrong_with_what_it_reports() {
    let gateway = Gateway::start("sdk-wrong").await;
    let stranger = Terminal::builder(&connection(&gateway, "not-a-token"), "T-1").start().unwrap();
    stranger.report(outcome()).unwrap();
    let problem = eventually("the token is refused", async || Some(stranger.status().problem).filter(|problem| !problem.is_empty())).await;
    assert!(problem.contains("authorization: Bearer") && !problem.contains("not-a-token"), "{problem}");
    assert_eq!(stranger.close(Duration::ZERO).await.waiting, 1);

    let terminal = Terminal::builder(&connection(&gateway, &gateway.token), "T-1").start().unwrap();
    let mut wrong = outcome();
    wrong.currency_code = "yuan".into();
    let mut telling = outcome();
    telling.diagnostic = "card 6212345678901232 failed".into();
    terminal.report(wrong).unwrap();
    let last = terminal.report(telling).unwrap().sequence;
    until_settled(&terminal, last).await;
    let status = terminal.status();
    assert_eq!((status.acknowledged, status.refused, status.redacted), (1, 1, 1));
    let refusal = status.last_refusal.unwrap();
    assert_eq!((refusal.sequence, refusal.reason(), refusal.field.as_str()), (1, RefusalReason::InvalidField, "outcome.currency_code"));

    // Where the token is of one terminal and the name of another, nothing is lost: somebody will mend it.
    let other = Terminal::builder(&connection(&gateway, &gateway.token), "T-2").start().unwrap();
    other.report(outcome()).unwrap();
    let problem = eventually("the name is refused", async || Some(other.status().problem).filter(|problem| !problem.is_empty())).await;
    assert!(problem.contains("terminal_id"), "{problem}");
    let status = other.close(Duration::ZERO).await;
    assert_eq!((status.waiting, status.refused, status.dropped), (1, 0, 0));
    gateway.stop().await;
}

/// A scenario of one test.
pub(crate) struct Scenario {
    pub(crate) directory: tempfile::TempDir,
}

impl Scenario {
    pub(crate) fn new(text: &str) -> Scenario {
        let directory = scratch("scenario");
        std::fs::write(directory.path().join("scenario.toml"), text).unwrap();
        Scenario { directory }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("scenario.toml")
    }

    /// Lets the program play it, and takes the last line that it said.
    async fn play(&self, arguments: &[&str], settings: &Settings) -> (String, Ended) {
        let path = self.path();
        let mut program = Faultline::start(&[&["simulate", path.to_str().unwrap()], arguments].concat(), settings);
        let last = program.until_it_says("The fleet is switched off").await;
        (last, program.end().await)
    }
}

const BANK_FAILS: &str = "
title = 'A bank fails'
[fleet]
terminals = 60
transactions_per_minute = 6000.0
rhythm = 0.0
[history]
weeks = 1
[[fault]]
kind = 'bank_outage'
issuer = 'icbc'
start = '0s'
";

#[tokio::test]
async fn a_fleet_is_counted_as_it_reports_and_its_past_is_apart() {
    let (gateway, classifier, clickhouse) = road("fleet").await;
    let scenario = Scenario::new(BANK_FAILS);
    gateway.collector().await;
    let token_file = scenario.directory.path().join("token");
    std::fs::write(&token_file, new_token(&gateway.tokens(), &["--tenant", "acme", "--any-terminal"]).await).unwrap();
    eventually("the token is known", async || (gateway.service.counted("faultline_gateway_tokens", &[]).await == 3).then_some(())).await;
    let address = format!("http://{}", gateway.address());
    let arguments = ["--gateway", &address, "--token-file", token_file.to_str().unwrap(), "--history-of", "acme", "--run-for", "8s"];
    let settings = settings_with(&gateway.kafka, &clickhouse);
    let simulated = "SELECT count(), uniqExact(bucket), toUnixTimestamp(max(bucket)) < toUnixTimestamp(now()), \
                     toUnixTimestamp(max(bucket)) - toUnixTimestamp(min(bucket)) FROM rollup WHERE simulated AND tenant = 'acme'";
    let mut all = 0;
    let mut past = String::new();
    for _ in 0..2 {
        let (last, ended) = scenario.play(&arguments, &settings).await;
        assert!(ended.status.success(), "{last} {ended:?}");
        let (reported, rest) = last.split_once("switched off: ").unwrap().1.split_once(' ').unwrap();
        assert_eq!(rest, "outcomes reported, all acknowledged.\n");
        all += reported.parse::<usize>().unwrap();
        counted(&clickhouse, all).await;
        // Written before the first outcome, and never again.
        let now = query(&clickhouse, simulated).await;
        assert!(past.is_empty() || past == now, "{past} {now}");
        past = now;
    }
    assert!(all > 300, "{all}");
    let hours = 7 * 24;
    assert!(past.ends_with(&format!("\t{hours}\t1\t{}", (hours - 1) * 3600)), "{past}");
    for family in families() {
        let of_family = format!("SELECT count() > {hours} FROM rollup WHERE simulated AND family = '{family}' AND tenant = 'acme'");
        assert_eq!(query(&clickhouse, &of_family).await, "1", "{family}");
    }

    // What the classifier counts has the names that the past has.
    let strangers = "SELECT family, key, tag FROM rollup WHERE tenant = 'acme' AND NOT simulated AND count > 0 \
                     AND (family, key) NOT IN (SELECT family, key FROM rollup WHERE simulated AND tenant = 'acme')";
    assert_eq!(query(&clickhouse, strangers).await, "");
    // The bank fails, and no other.
    let failing = "SELECT issuer = 'icbc' AS fails, count() > 20, countIf(cause = 'bank') / count() > 0.5 FROM outcomes \
                   WHERE bin != '' GROUP BY fails ORDER BY fails";
    assert_eq!(query(&clickhouse, failing).await, "0\t1\t0\n1\t1\t1");
    let terminals = "SELECT uniq(terminal, spool) >= 60, uniq(terminal) <= 60, uniq(carrier) > 3, uniq(region) > 5 FROM outcomes";
    assert_eq!(query(&clickhouse, terminals).await, "1\t1\t1\t1");
    // Terminals measure themselves.
    let samples = "SELECT uniq(terminal) > 50, countIf(ifNull(reader_reads, 0) > 0) > 0, min(uptime_ms) < 8000 FROM health_samples FINAL";
    assert_eq!(query(&clickhouse, samples).await, "1\t1\t1");
    classifier.stop().await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_fleet_that_is_not_heard_says_so() {
    let scenario = Scenario::new("[fleet]\nterminals = 3\ntransactions_per_minute = 600.0");
    let token_file = scenario.directory.path().join("token");
    std::fs::write(&token_file, "secret").unwrap();
    let nowhere = format!("http://127.0.0.1:{}", port());
    let arguments = ["--gateway", &nowhere, "--token-file", token_file.to_str().unwrap(), "--run-for", "3s"];
    let (last, ended) = scenario.play(&arguments, &Settings::new()).await;
    assert!(last.contains("not acknowledged"), "{last}");
    ended.failed_saying(&["outcomes were not acknowledged", "tcp connect error"]);
    assert!(!ended.stderr.contains("secret"));

    let path = scenario.path();
    let run = async |arguments: &[&str]| crate::program::run(&[&["simulate", path.to_str().unwrap()], arguments].concat(), &[]).await;
    run(&["--token-file", "/nowhere/token"]).await.failed_saying(&["/nowhere/token", "--token-file"]);
    run(&["--terminals", "0"]).await.failed_saying(&["`fleet.terminals`: 0 is not within 1 to 100000"]);
    let wrong = ["--gateway", "gateway:1", "--token-file", token_file.to_str().unwrap()];
    run(&wrong).await.failed_saying(&["`gateway:1` is not an address of a gateway"]);
    crate::program::run(&["simulate", "/nowhere.toml"], &[]).await.failed_saying(&["/nowhere.toml"]);
}

/// More is said than a pipe holds, and nobody reads it.
#[tokio::test]
async fn whoever_does_not_read_stops_nothing() {
    let title = "x".repeat(200_000);
    let scenario = Scenario::new(&format!("title = '{title}'\n[fleet]\nterminals = 3\ntransactions_per_minute = 600.0"));
    let token_file = scenario.directory.path().join("token");
    std::fs::write(&token_file, "secret").unwrap();
    let nowhere = format!("http://127.0.0.1:{}", port());
    let path = scenario.path();
    let arguments =
        ["simulate", path.to_str().unwrap(), "--gateway", &nowhere, "--token-file", token_file.to_str().unwrap(), "--run-for", "3s"];
    Faultline::start(&arguments, &[]).end().await.failed_saying(&["outcomes were not acknowledged"]);
}

#[tokio::test]
async fn up_plays_a_scenario_and_says_what_happens() {
    let directory = scratch("up-simulate");
    let local = LocalConfig { data_dir: directory.path().into(), ..ports() };
    let scenario = Scenario::new(&BANK_FAILS.replace("weeks = 1", "weeks = 0"));
    let path = scenario.path();
    let mut up = Faultline::up(&local, &["--simulate", path.to_str().unwrap()]);
    for said in ["Faultline is up.", "60 simulated terminals in ", "(icbc) fails", "Counted in the last minute: approved"] {
        up.until_it_says(said).await;
    }
    up.signal(Signal::SIGTERM);
    let last = up.until_it_says("The fleet is switched off").await;
    assert!(last.contains("all acknowledged"), "{last}");
    let ended = up.end().await;
    assert!(ended.status.success(), "{ended:?}");

    let settings = [("GATEWAY__TOKEN_FILE", "/nowhere/tokens".to_owned())];
    let arguments = ["up", "--data-dir", directory.path().to_str().unwrap(), "--simulate", path.to_str().unwrap()];
    crate::program::run(&arguments, &settings).await.failed_saying(&["--simulate does not go with `gateway.token_file`"]);
}
