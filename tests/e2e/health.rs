//! How terminals, shops and merchants do, by what came the whole road.

use std::sync::LazyLock;

use faultline_proto::ingest::v1::{Event, OutcomeBatch};
use faultline_proto::outcome::v1::{EntryMode, Outcome, Stage, TerminalCondition};
use faultline_proto::terminal::v1::{HealthSample, PinPadState, PrinterState, TerminalProfile};
use faultline_store::{ClickHouseConfig, Database, SampledTerminal};
use serde_json::{Value, json};

use crate::classifier::{counted, road};
use crate::console::Console;
use crate::program::eventually;
use crate::replay::run;
use crate::services::{Gateway, Service, query};
use crate::terminal::{batch, event, in_seconds, outcome, profile};

const HOUR_MS: u64 = 3_600_000;

/// A batch of a terminal with nothing but samples.
fn sampled(terminal: &str, health_samples: Vec<HealthSample>) -> OutcomeBatch {
    OutcomeBatch { terminal_id: terminal.into(), health_samples, ..batch(Vec::new()) }
}

/// Half past the last full hour when the tests began, in milliseconds since 1970-01-01 UTC: what happened then, or some seconds before or after, is of one
/// hour, and stays so when another begins meanwhile.
static HALF_PAST_MS: LazyLock<u64> = LazyLock::new(|| {
    let now_s = u64::try_from(in_seconds(0).seconds).unwrap();
    (now_s - now_s % 3600 - 1800) * 1000
});

/// How long ago that was.
fn half_past_ms() -> u64 {
    u64::try_from(in_seconds(0).seconds).unwrap() * 1000 - *HALF_PAST_MS
}

/// What a terminal measures so many hours ago, so many hours after it started for the so manieth time: nothing is wrong with it.
fn sample(sequence: u64, (ago, up, boots): (u64, u64, u32)) -> HealthSample {
    HealthSample {
        sequence,
        age_ms: Some(ago * HOUR_MS + half_past_ms()),
        battery_percent: Some(80),
        charging: Some(false),
        signal_dbm: Some(-80),
        printer: PrinterState::Ready.into(),
        pin_pad: PinPadState::Ready.into(),
        reader_reads: Some(0),
        reader_failures: Some(0),
        reader_failed_sales: Some(0),
        fallbacks: Some(0),
        boots: Some(boots),
        reconnects: Some(0),
        uptime_ms: Some(up * HOUR_MS),
        ..HealthSample::default()
    }
}

/// The same with what its reader did.
fn read(sample: HealthSample, reads: u32, failed_sales: u32) -> HealthSample {
    HealthSample { reader_reads: Some(reads), reader_failures: Some(failed_sales), reader_failed_sales: Some(failed_sales), ..sample }
}

/// Waits until the classifier has stored so many samples, repeats among them, and what follows from them: rows are there before their sums are.
async fn until_sampled(classifier: &Service, samples: u64) {
    let stored = async || (classifier.counted("faultline_classifier_health_samples_total", &["stored"]).await == samples).then_some(());
    eventually(&format!("{samples} samples are stored"), stored).await;
}

/// What the samples of the last week say of a terminal.
async fn of_week(clickhouse: &ClickHouseConfig, terminal: &str) -> SampledTerminal {
    let now = u32::try_from(in_seconds(1).seconds).unwrap();
    let all = Database::new(clickhouse).unwrap().sampled_terminals("acme", &(now - 7 * 86_400..now)).await.unwrap();
    all.into_iter().find(|sampled| sampled.terminal == terminal).unwrap()
}

#[tokio::test]
async fn samples_are_stored_once_and_counters_that_fall_are_increases() {
    let (gateway, classifier, clickhouse) = road("health-samples").await;
    let samples = vec![
        // It began before the week, and had counted much by then.
        read(sample(1, (100, 24 * 30, 7)), 50_000, 900),
        read(sample(2, (90, 24 * 30 + 10, 7)), 50_040, 902),
        // Started again, with ten reads until the sample.
        HealthSample { printer: PrinterState::Fault.into(), ..read(sample(3, (50, 1, 8)), 10, 1) },
        HealthSample { signal_dbm: Some(-118), reconnects: Some(6), ..read(sample(4, (10, 41, 8)), 30, 5) },
        sample(5, (0, 0, 9)),
    ];
    let all = sampled("T-1", samples);
    gateway.terminal().report(all.clone()).await.unwrap();
    until_sampled(&classifier, 5).await;
    let once = of_week(&clickhouse, "T-1").await;
    assert_eq!((once.reads, once.failed_sales, once.starts, once.reconnects), (40 + 30, 2 + 5, 2, 6), "{once:?}");
    assert_eq!((once.hours, once.printer_hours, once.printer_bad_hours, once.weak_signal_hours), (5, 5, 1, 1), "{once:?}");
    assert!((99.0..102.0).contains(&(once.days * 24.0)) && once.model == "PAX A920", "{once:?}");

    // Sent again, alone and with others: it is the same.
    let mut more = all.clone();
    more.health_samples.push(HealthSample { battery_percent: None, ..sample(6, (0, 0, 9)) });
    gateway.terminal().report(all).await.unwrap();
    gateway.terminal().report(more).await.unwrap();
    until_sampled(&classifier, 5 + 5 + 6).await;
    let again = of_week(&clickhouse, "T-1").await;
    assert_eq!((again.reads, again.failed_sales, again.starts, again.hours), (once.reads, once.failed_sales, once.starts, once.hours));
    // Six percent went in twenty minutes without a charger.
    let later = HealthSample { age_ms: Some(half_past_ms() - 20 * 60_000), battery_percent: Some(74), ..sample(7, (0, 0, 9)) };
    gateway.terminal().report(sampled("T-1", vec![later])).await.unwrap();
    until_sampled(&classifier, 5 + 5 + 6 + 1).await;
    let drained = of_week(&clickhouse, "T-1").await;
    assert!(drained.drained_percent == 6.0 && (drained.drained_hours - 1.0 / 3.0).abs() < 0.02, "{drained:?}");
    assert!(drained.drain_sums.0 == 1.0 && (drained.drain_sums.2 - 18.0).abs() < 1.0, "{drained:?}");
    let row = format!(
        "SELECT sequence, battery_percent, charging, signal_dbm, printer, boots, dateDiff('hour', sampled_at, fromUnixTimestamp({})) AS hours, clock, carrier \
         FROM health_samples FINAL WHERE sequence IN (4, 6) ORDER BY sequence",
        *HALF_PAST_MS / 1000
    );
    assert_eq!(query(&clickhouse, &row).await, "4\t80\tfalse\t-118\t1\t8\t10\tage\t46000\n6\t\\N\tfalse\t-80\t1\t9\t0\tage\t46000");
    assert_eq!(query(&clickhouse, "SELECT count() FROM health_samples FINAL").await, "7");
    assert_eq!(classifier.counted("faultline_classifier_health_samples_total", &["out_of_range"]).await, 0);
    classifier.stop().await;
    gateway.stop().await;
}

/// An answer of the host to a sale by chip at a shop.
fn answered(sequence: u64, (merchant, store): (&str, &str)) -> Outcome {
    let merchant_id = format!("M-{merchant}");
    Outcome {
        merchant_id,
        store_id: store.into(),
        entry_mode: EntryMode::Chip.into(),
        stage: Stage::HostDecision.into(),
        response_code: if sequence.is_multiple_of(40) { "51" } else { "00" }.into(),
        ..outcome()
    }
}

/// How many attempts are as this makes them.
type Bad = (u64, fn(&mut Outcome));

/// A batch of 60 attempts at one terminal of a shop, of which the first are bad.
fn sixty(terminal: &str, place: (&str, &str), (bad, change): Bad) -> OutcomeBatch {
    let events = (1..=60).map(|sequence| {
        let mut outcome = answered(sequence, place);
        if sequence <= bad {
            change(&mut outcome);
        }
        Event { age_ms: Some(half_past_ms()), outcome: Some(outcome), ..event(sequence) }
    });
    OutcomeBatch { terminal_id: terminal.into(), ..batch(events.collect()) }
}

fn at(carrier: &str, region: &str, batch: OutcomeBatch) -> OutcomeBatch {
    OutcomeBatch { profile: Some(TerminalProfile { carrier: carrier.into(), region: region.into(), ..profile() }), ..batch }
}

fn unanswered(outcome: &mut Outcome) {
    (outcome.stage, outcome.response_code) = (Stage::Wait.into(), String::new());
    outcome.terminal_condition = TerminalCondition::ResponseTimeout.into();
}

fn unread(outcome: &mut Outcome) {
    (outcome.stage, outcome.response_code) = (Stage::CardRead.into(), String::new());
    outcome.terminal_condition = TerminalCondition::ChipRead.into();
}

fn given_up(outcome: &mut Outcome, by: TerminalCondition) {
    (outcome.stage, outcome.response_code) = (Stage::PinEntry.into(), String::new());
    outcome.terminal_condition = by.into();
}

#[tokio::test]
async fn a_worn_reader_ranks_worst_with_what_to_do() {
    let (gateway, classifier, clickhouse) = road("health-terminals").await;
    let collector = gateway.collector().await;
    for number in 1..=12 {
        let terminal = format!("T-{number:02}");
        // The worn one fails by its own counters, and one without samples by what it reports.
        let failed = if number == 5 { 120 } else { 6 };
        if number != 9 {
            let samples = vec![read(sample(1, (30, 2, 4)), 0, 0), read(sample(2, (1, 31, 4)), 400, failed)];
            collector.report(sampled(&terminal, samples)).await.unwrap();
        }
        let bad: Bad = if number == 9 { (15, unread) } else { (1, unread) };
        collector.report(sixty(&terminal, ("1", "S-1"), bad)).await.unwrap();
    }
    counted(&clickhouse, 12 * 60).await;
    until_sampled(&classifier, 22).await;
    let console = Console::start(&clickhouse, &[]).await;
    console.service.until_ready().await;
    let found = console.of_acme("health/terminals").await["terminals"].clone();
    let named: Vec<&str> = found.as_array().unwrap().iter().map(|terminal| terminal["terminal"].as_str().unwrap()).collect();
    assert_eq!((named.len(), &named[..2]), (12, &["T-05", "T-09"][..]), "{found}");
    let worst = &found[0];
    let reason = &worst["parts"][0]["reasons"][0];
    assert_eq!((&worst["parts"][0]["part"], &reason["measure"]), (&json!("reader"), &json!("failed_reads")));
    assert_eq!((reason["counted"].as_f64(), reason["of"].as_f64()), (Some(120.0), Some(400.0)));
    assert!(reason["advice"]["en"].as_str().unwrap().starts_with("Clean the reader"), "{reason}");
    assert!(reason["advice"]["zh_cn"].as_str().unwrap().starts_with("清洁读卡器"), "{reason}");
    assert!(worst["score"].as_f64().unwrap() < 30.0 && found[2]["score"].as_f64().unwrap() > 95.0, "{found}");
    assert_eq!((&worst["merchant"], &worst["store"], &worst["model"]), (&json!("M-1"), &json!("S-1"), &json!("PAX A920")));
    assert_eq!(found[1]["parts"][0]["reasons"][0]["measure"], "unread_sales", "{found}");
    let one = console.of_acme("health/terminals?terminal=T-05&minutes=10080").await;
    assert_eq!(one["terminals"], json!([worst]));
    console.refused("/api/v1/tenants/acme/health/terminals?minutes=59", 400, "`minutes`: `59` is not a whole number from 60").await;

    let (is_success, said) = run(&gateway, &clickhouse, &["health", "terminals", "--tenant", "acme", "--limit", "1", "--json"]).await;
    let said: Value = serde_json::from_str(&said).unwrap();
    assert!(is_success && said[0]["score"] == worst["score"], "{said}");
    let (_, said) = run(&gateway, &clickhouse, &["health", "terminals", "--tenant", "acme", "--limit", "1"]).await;
    assert!(said.starts_with("TERMINAL  SCORE") && said.contains("reader: failed_reads 120 of 400"), "{said}");
    for service in [console.service, classifier] {
        service.stop().await;
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_weak_shop_a_failing_carrier_and_untrained_staff_differ() {
    let (gateway, classifier, clickhouse) = road("health-shops").await;
    let collector = gateway.collector().await;
    let mut reported = 0;
    let mut report = async |batch: OutcomeBatch| {
        collector.report(batch).await.unwrap();
        reported += 60;
        reported
    };
    let cancelled_by_cashier: fn(&mut Outcome) = |outcome| given_up(outcome, TerminalCondition::CancelledByCashier);
    let cancelled_by_customer: fn(&mut Outcome) = |outcome| given_up(outcome, TerminalCondition::CancelledByCustomer);
    let mut all = 0;
    for number in 1..=20 {
        let (terminal, name) = (format!("T-{number:02}"), format!("{number:02}"));
        let (carrier, region, bad): (_, _, Bad) = match number {
            // One shop fails beside others of its carrier that do not.
            1 => ("46000", "440300", (36, unanswered)),
            2..=5 => ("46000", "440300", (0, unanswered)),
            // A carrier fails at all of its shops in a region, and at none in another.
            6..=8 => ("46001", "310000", (30, unanswered)),
            9..=10 => ("46001", "440300", (0, unanswered)),
            11 => ("46003", "110000", (20, cancelled_by_cashier)),
            12 => ("46003", "110000", (20, cancelled_by_customer)),
            _ => ("46003", "110000", (0, unanswered)),
        };
        all = report(at(carrier, region, sixty(&terminal, (&name, &format!("S-{name}")), bad))).await;
    }
    counted(&clickhouse, all).await;
    let console = Console::start(&clickhouse, &[]).await;
    console.service.until_ready().await;
    let shops = console.of_acme("health/shops").await["shops"].clone();
    let quality = |wanted: &str| -> Vec<&str> {
        let of_it = shops.as_array().unwrap().iter().filter(|shop| shop["quality"] == wanted);
        of_it.map(|shop| shop["store"].as_str().unwrap()).collect()
    };
    assert_eq!(quality("shop"), ["S-01"], "{shops:#}");
    let mut of_carrier = quality("carrier");
    of_carrier.sort_unstable();
    assert_eq!(of_carrier, ["S-06", "S-07", "S-08"], "{shops:#}");
    assert_eq!((quality("fine").len(), shops.as_array().unwrap().len()), (16, 20));
    let worst = &shops[0];
    assert_eq!((&worst["store"], &worst["attempts"], &worst["failed"]), (&json!("S-01"), &json!(60), &json!(36)));
    assert_eq!((&worst["nearby_attempts"], &worst["nearby_failed"]), (&json!(240), &json!(0)));
    assert!(worst["advice"]["en"].as_str().unwrap().contains("worse than its surroundings"), "{worst}");

    let merchants = console.of_acme("health/merchants").await["merchants"].clone();
    let first = &merchants[0];
    assert_eq!((&first["merchant"], &first["errors"], &first["attempts"]), (&json!("M-11"), &json!(20), &json!(60)));
    assert_eq!(first["needs_training"], true);
    assert!(first["advice"]["zh_cn"].as_str().unwrap().contains("培训"), "{first}");
    // What customers give up is not the staff's error.
    assert!(merchants.as_array().unwrap()[1..].iter().all(|merchant| merchant["errors"] == 0 && merchant["needs_training"] == false));
    let (is_success, said) = run(&gateway, &clickhouse, &["health", "merchants", "--tenant", "acme", "--limit", "2"]).await;
    assert!(is_success && said.contains("M-11") && said.contains("20 of 60"), "{said}");
    let (is_success, said) = run(&gateway, &clickhouse, &["health", "shops", "--tenant", "acme", "--limit", "1"]).await;
    assert!(is_success && said.contains("S-01") && said.contains("36 of 60"), "{said}");

    // Judged again, the errors of operation were none.
    for (columns, revision, sign) in [("", 0, -1), (", 'issuer_refused' AS reason", 1, 1)] {
        let correction = format!("* REPLACE (toInt8({sign}) AS sign, toUInt16({revision}) AS revision{columns})");
        let rows = "SELECT * FROM outcomes WHERE merchant = 'M-11' AND reason = 'cancelled' AND sign = 1 AND revision = 0";
        query(&clickhouse, &format!("INSERT INTO outcomes SELECT {correction} FROM ({rows})")).await;
    }
    let merchants = console.of_acme("health/merchants").await["merchants"].clone();
    assert!(merchants.as_array().unwrap().iter().all(|merchant| merchant["errors"] == 0 && merchant["attempts"] == 60), "{merchants}");
    for service in [console.service, classifier] {
        service.stop().await;
    }
    gateway.stop().await;
}

/// Terminals around the clock, two in each shop: what they reported, one sale an hour, for two weeks until so many hours ago.
async fn report_until(gateway: &Gateway, silent_hours: impl Fn(u64) -> u64) -> usize {
    let (collector, mut reported) = (gateway.collector().await, 0);
    for number in 0..SILENT_FLEET {
        let at = TerminalProfile { region: format!("r{}", number / 2 % 3), carrier: format!("c{}", number / 6 % 2), ..profile() };
        let until = silent_hours(number);
        let event = |(place, ago): (u64, u64)| Event {
            age_ms: Some(ago * HOUR_MS + 1000 * (number + 1)),
            outcome: Some(Outcome { merchant_id: format!("M{}", number / 2), ..outcome() }),
            ..event(place + 1)
        };
        let events: Vec<Event> =
            (until..14 * 24).rev().enumerate().map(|(place, ago)| event((u64::try_from(place).unwrap(), ago))).collect();
        reported += events.len();
        for events in events.chunks(100) {
            let sales = OutcomeBatch { profile: Some(at.clone()), terminal_id: format!("T-{number}"), ..batch(events.to_vec()) };
            assert_eq!(collector.report(sales).await.unwrap().refusals, []);
        }
    }
    reported
}

/// Terminals of the fleet of which some fall silent.
const SILENT_FLEET: u64 = 36;

#[tokio::test]
async fn a_dead_terminal_a_closed_shop_and_a_region_without_power_differ() {
    let (gateway, classifier, clickhouse) = road("silent").await;
    let reported = report_until(&gateway, |number| match number {
        7 => 48,
        12 | 13 => 30,
        _ if number / 2 % 3 == 2 => 6,
        _ => 0,
    });
    counted(&clickhouse, reported.await).await;
    let (is_done, said) = run(&gateway, &clickhouse, &["health", "silent", "--tenant", "acme", "--json"]).await;
    assert!(is_done, "{said}");
    let silent: Value = serde_json::from_str(&said).unwrap();
    let found = |silent: &Value| -> Vec<(String, String, u64)> {
        let of = silent.as_array().unwrap().iter();
        let text = |of: &Value| of.as_str().unwrap().to_owned();
        of.map(|of| (text(&of["kind"]), text(&of["part"]), of["terminals"].as_u64().unwrap())).collect()
    };
    let mut all = found(&silent);
    all.sort();
    let named = |kind: &str, part: &str, terminals| (kind.to_owned(), part.to_owned(), terminals);
    let shop = all.iter().find(|(kind, ..)| kind == "shop").unwrap().1.clone();
    assert_eq!(all, [named("region", "r2", 12), named("shop", &shop, 2), named("terminal", "T-7", 1)], "{said}");
    assert!(shop.starts_with("M6"), "{shop}");
    let console = Console::start(&clickhouse, &[]).await;
    console.service.until_ready().await;
    let shown = console.of_acme("health/silent?weeks=3&limit=2").await;
    assert_eq!((found(&shown["silent"]).len(), &shown["complete"], &shown["watched"]), (2, &true.into(), &36.into()));
    classifier.stop().await;
    gateway.stop().await;
}
