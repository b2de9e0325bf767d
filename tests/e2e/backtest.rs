//! `faultline backtest`: over a directory, and over what ClickHouse has counted.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use faultline_store::{ClickHouseConfig, Database};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use crate::program::{Faultline, run};
use crate::sandbox::{sandbox, scratch};
use crate::services::{Settings, query, settings_with};

const ISSUERS: [&str; 3] = ["abc", "ccb", "icbc"];
/// Ticks of ten seconds that are counted, and those in which a bank is down.
const TICKS: u32 = 300;
const DOWN: std::ops::Range<u32> = 200..230;
/// Attempts of each bank in ten seconds.
const ATTEMPTS: u32 = 20;

/// How a bank's attempts end in a tick.
fn tag(issuer: &str, tick: u32) -> &'static str {
    if issuer == "ccb" && DOWN.contains(&tick) { "issuer_down" } else { "approved" }
}

fn gzip(path: &Path, text: &str) {
    let mut file = GzEncoder::new(std::fs::File::create(path).unwrap(), Compression::fast());
    file.write_all(text.as_bytes()).unwrap();
    file.finish().unwrap();
}

/// A directory of counts, of which a bank is down for five minutes. A Monday, from 12:00 UTC.
fn write_directory(directory: &Path) {
    let start = 1_793_620_800;
    let (mut leaves, mut counts) = ("leaf,issuer,region\n".to_owned(), "bucket,leaf,tag,n,arrival\n".to_owned());
    let places = || ISSUERS.iter().flat_map(|issuer| (0..10).map(move |region| (*issuer, region)));
    for (leaf, (issuer, region)) in places().enumerate() {
        writeln!(leaves, "{leaf},{issuer},r{region}").unwrap();
    }
    for tick in 0..TICKS {
        for (leaf, (issuer, _)) in places().enumerate() {
            writeln!(counts, "{},{leaf},{},2,", start + 10 * tick, tag(issuer, tick)).unwrap();
        }
    }
    let classes = "funds,cardholder,issuer_refusal,issuer_down,issuer_timeout,host_unreachable,device_read,local_network,security";
    let mut history = format!("slice,hour_of_week,attempts,{classes}\n");
    for slice in ["fleet", "issuer=abc", "issuer=ccb", "issuer=icbc"] {
        let attempts = if slice == "fleet" { 21_600 } else { 7200 };
        for hour in 0..168 {
            writeln!(history, "{slice},{hour},{attempts},0,0,0,{},0,0,0,0,0", f64::from(attempts) * 0.001).unwrap();
        }
    }
    std::fs::write(directory.join("leaves.csv"), leaves).unwrap();
    gzip(&directory.join("counts.csv.gz"), &counts);
    gzip(&directory.join("history.csv.gz"), &history);
    let (from, until) = (start + 10 * DOWN.start, start + 10 * DOWN.end);
    let labels = format!("fault,start,end,kind,slice,cause,expect\n1,{from},{until},outage,issuer=ccb,issuer_down,incident\n");
    std::fs::write(directory.join("labels.csv"), labels).unwrap();
}

#[tokio::test]
async fn a_directory_is_looked_at_and_scored_and_twice_the_same() {
    let directory = scratch("backtest");
    write_directory(directory.path());
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (whole, labels, out) = (path(""), path("labels.csv"), path("incidents.csv"));
    let output = Faultline::output(&["backtest", &whole, "--labels", &labels, "--out", &out]).await;
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    let line = said.lines().find(|line| line.contains("issuer=ccb")).unwrap();
    assert!(line.contains("2026-11-02T12:33:") && line.contains("bank") && line.contains("issuer_down"), "{said}");
    assert!(said.contains("1 incidents in 0.03 days (300 ticks), 18000 events and 0 that came too late"), "{said}");
    assert!(said.lines().any(|line| line.starts_with("recall") && line.ends_with("1.000")), "{said}");
    let written = std::fs::read_to_string(&out).unwrap();
    assert!(written.lines().nth(1).unwrap().ends_with(",issuer=ccb,issuer_down,issuer=ccb"), "{written}");

    let json = async || Faultline::output(&["backtest", &whole, "--json", "--labels", &labels]).await.stdout;
    let (first, second) = tokio::join!(json(), json());
    assert_eq!(first, second);
    let said: Value = serde_json::from_slice(&first).unwrap();
    assert_eq!((&said["scores"]["summary"]["recall"], &said["scores"]["verdicts"]), (&1.0.into(), &serde_json::json!(["match"])));
    assert_eq!((&said["incidents"][0]["slice"], &said["incidents"][0]["whose"]), (&"issuer=ccb".into(), &"bank".into()));
    assert_eq!(said["settings"]["days_per_false_incident"], 30.0);

    gzip(&directory.path().join("counts.csv.gz"), "bucket,leaf,tag,n,arrival\n1793620800,0,weather,1,\n");
    let wrong = run(&["backtest", &whole], &[]).await;
    wrong.failed_saying(&["counts.csv.gz, line 2: `tag` is \"weather\"", "and is to be a tag: approved"]);
    let missing = run(&["backtest", &path("nowhere")], &[]).await;
    missing.failed_saying(&["cannot read", "history.csv.gz"]);
}

/// Counts of two weeks and of an hour yesterday, in which a bank was down; and what failed then.
async fn store_past(clickhouse: &ClickHouseConfig, start: u32) {
    let mut rows = Vec::new();
    let mut count = |(family, key): (&str, &str), bucket: u32, tag: &str, (count, simulated): (u32, bool)| {
        let tag = format!("{tag}/host_decision");
        rows.push(format!("('acme', '{family}', '{key}', {bucket}, '{tag}', 1, 'CNY', {count}, 0, {simulated})"));
    };
    // Two days of each hour, as the simulator writes them.
    for (days, hour) in [7, 14].into_iter().flat_map(|days| (0..4).map(move |hour| (days, hour))) {
        let bucket = start - start % 3600 - days * 86_400 + 3600 * hour - 3600;
        for (slice, attempts) in [(("fleet", ""), 21_600)].into_iter().chain(ISSUERS.map(|issuer| (("issuer", issuer), 7200))) {
            count(slice, bucket, "approved", (attempts, true));
            count(slice, bucket, "issuer_down", (attempts / 1000, true));
        }
    }
    let mut failed = Vec::new();
    for tick in 0..TICKS {
        let bucket = start + 10 * tick;
        for issuer in ISSUERS {
            for slice in [("fleet", ""), ("issuer", issuer)] {
                count(slice, bucket, tag(issuer, tick), (ATTEMPTS, false));
            }
            if tag(issuer, tick) == "issuer_down" {
                let terminals = (0..ATTEMPTS).map(|terminal| {
                    format!("('acme', 'T-{terminal}', 7, {tick}, {bucket}, {bucket}, '{issuer}', 'issuer_down/host_decision', 'bank', 1)")
                });
                failed.extend(terminals);
            }
        }
    }
    let columns = "tenant, family, key, bucket, tag, cause, currency, count, amount_minor, simulated";
    query(clickhouse, &format!("INSERT INTO rollup ({columns}) VALUES {}", rows.join(", "))).await;
    let columns = "tenant, terminal, spool, sequence, completed_at, received_at, issuer, tag, cause, sign";
    query(clickhouse, &format!("INSERT INTO outcomes ({columns}) VALUES {}", failed.join(", "))).await;
}

#[tokio::test]
async fn what_was_counted_is_looked_at_as_the_alerter_would_have() {
    let shared = sandbox().await;
    let clickhouse = ClickHouseConfig { database: "backtest".into(), ..shared.clickhouse.clone() };
    Database::new(&clickhouse).unwrap().migrate().await.unwrap();
    let now = jiff::Timestamp::now().as_second();
    let start = u32::try_from(now - now % 3600 - 86_400).unwrap();
    store_past(&clickhouse, start).await;

    let moment = |second: u32| jiff::Timestamp::from_second(second.into()).unwrap().to_string();
    let (from, until) = (moment(start + 600), moment(start + 10 * TICKS));
    let arguments = ["backtest", "--tenant", "acme", "--from", &from, "--until", &until, "--json"];
    let settings = settings_with(&shared.kafka, &clickhouse);
    let output = Faultline::output_with(&arguments, &settings).await;
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let [incident] = said["incidents"].as_array().unwrap().as_slice() else { panic!("{said}") };
    assert_eq!((&incident["slice"], &incident["whose"], &incident["state"]), (&"issuer=ccb".into(), &"bank".into(), &"closed".into()));
    let opened = incident["opened_at"].as_u64().unwrap() - u64::from(start + 10 * DOWN.start);
    assert!(opened <= 20, "{said}");
    assert_eq!(said["ticks"], TICKS - 60);
    // Nothing was written.
    assert_eq!(query(&clickhouse, "SELECT count() FROM incidents").await, "0");

    // What was announced calls nobody.
    let directory = scratch("backtest-calendar");
    let calendar = directory.path().join("calendar.toml");
    let maintenance =
        format!("time_zone = \"Asia/Shanghai\"\n[[maintenance]]\nslice = \"issuer=ccb\"\nfrom = \"{from}\"\nuntil = \"{until}\"\n");
    std::fs::write(&calendar, &maintenance).unwrap();
    let with_calendar: Settings = settings.iter().cloned().chain([("ALERTER__CALENDAR", calendar.to_str().unwrap().to_owned())]).collect();
    let output = Faultline::output_with(&arguments, &with_calendar).await;
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!(said["incidents"], serde_json::json!([]), "{said}");
    std::fs::write(&calendar, maintenance.replace("issuer", "weather")).unwrap();
    run(&arguments, &with_calendar).await.failed_saying(&["alerter.calendar", "calendar.toml", "maintenance 1: slice = \"weather=ccb\""]);

    let nobody = Faultline::output_with(&["backtest", "--tenant", "nobody", "--from", &from, "--until", &until], &settings).await;
    assert!(String::from_utf8(nobody.stdout).unwrap().starts_with("No incident would have been opened."));
    run(&["backtest", "--tenant", "acme", "--from", &until, "--until", &from], &settings)
        .await
        .failed_saying(&["--from is not before --until"]);
}
