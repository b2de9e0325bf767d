//! The schema, against a real ClickHouse.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use faultline_store::{BatchId, ClickHouseConfig, Database, DrillDown, Explained, FailedCell, OutcomeRow, ToldApart};
use tokio::time::Instant;

use crate::sandbox::sandbox;
use crate::services::{query, query_as};

/// The steps of the schema.
const STEPS: [&str; 13] = [
    "outcomes",
    "rollup",
    "high_water",
    "simulated",
    "incidents",
    "progress",
    "watermarks",
    "compact_parts",
    "verdicts",
    "health",
    "explanations",
    "time_of_parts",
    "drilldown",
];

/// Compares the rows for drill-downs with those of `outcomes` that belong among them.
const DRILLDOWN: &str = "SELECT sum(belongs), sum(found), countIf(belongs != found OR found > 1) FROM \
     (SELECT sum(outcome) AS belongs, sum(kept) AS found FROM \
       (SELECT kafka_log, kafka_partition, kafka_offset, record_index, tag, cause, issuer, sign, 1 AS outcome, 0 AS kept FROM outcomes \
        WHERE received_at >= now() - toIntervalDay(14) \
          AND (NOT startsWith(tag, 'approved/') OR intHash64(bitXor(toUInt64(toUnixTimestamp64Milli(completed_at)), sequence)) % 8 = 0) \
        UNION ALL \
        SELECT kafka_log, kafka_partition, kafka_offset, record_index, tag, cause, issuer, sign, 0 AS outcome, 1 AS kept FROM drilldown) \
      GROUP BY kafka_log, kafka_partition, kafka_offset, record_index, tag, cause, issuer, sign)";

/// Asserts that the rows for drill-downs are there once, and no others. Returns how many there are.
pub(crate) async fn drilldown(config: &ClickHouseConfig) -> u64 {
    are_kept(config).await.unwrap()
}

/// How many rows for drill-downs there are, if they are there once and no others; else what is wrong.
pub(crate) async fn are_kept(config: &ClickHouseConfig) -> Result<u64, String> {
    let found = query(config, DRILLDOWN).await;
    let [belong, are, astray] = *found.split('\t').collect::<Vec<_>>() else { panic!("{found}") };
    if belong != are || astray != "0" {
        return Err(format!("{belong} rows are to be kept for drill-downs, {are} are; {astray} astray"));
    }
    Ok(are.parse().unwrap())
}

#[tokio::test]
async fn a_schema_is_made_once_even_by_several_at_the_same_time() {
    let config = ClickHouseConfig { database: "made_once".into(), ..sandbox().await.clickhouse.clone() };
    let database = Database::new(&config).unwrap();
    let (first, second, third) = tokio::try_join!(database.migrate(), database.migrate(), database.migrate()).unwrap();
    assert!([&first, &second, &third].iter().any(|migrated| migrated.applied == STEPS));
    assert_eq!(database.migrate().await.unwrap().applied, Vec::<&str>::new());
    // Taken and not recorded, as by one that was killed between the two.
    query(&config, "TRUNCATE TABLE schema_migrations").await;
    assert_eq!(database.migrate().await.unwrap().applied, STEPS);

    let tables = "SELECT name FROM system.tables WHERE database = 'made_once' ORDER BY name FORMAT TSV";
    assert_eq!(
        query(&config, tables).await,
        "deliveries\ndrilldown\nhealth_hours\nhealth_hours_of_samples\nhealth_samples\nhigh_water\nincidents\noutcomes\nprogress\nrollup\nschema_migrations\nverdicts\nwatermarks"
    );
}

#[tokio::test]
async fn a_schema_of_a_newer_program_is_left_alone() {
    let config = ClickHouseConfig { database: "newer".into(), ..sandbox().await.clickhouse.clone() };
    let database = Database::new(&config).unwrap();
    database.migrate().await.unwrap();
    let step = "INSERT INTO newer.schema_migrations (version, name, checksum) VALUES (99, 'from the future', '')";
    query(&config, step).await;
    let message = faultline_runtime::error::with_causes(&database.migrate().await.unwrap_err());
    assert!(message.contains("version 99") && message.contains("run a newer faultline"), "{message}");
}

#[tokio::test]
async fn a_wrong_password_is_said_and_not_shown() {
    let config = ClickHouseConfig { password: "hunter2".to_owned().into(), ..sandbox().await.clickhouse.clone() };
    let error = Database::new(&config).unwrap().probe().await.unwrap_err();
    let message = faultline_runtime::error::with_causes(&error);
    assert!(message.contains("AUTHENTICATION_FAILED") && !message.contains("hunter2"), "{message}");
}

/// The launcher's own user has no password, so it must have no rights that matter.
#[tokio::test]
async fn who_has_no_password_reads_no_table_and_no_file() {
    let config = ClickHouseConfig { database: "closed".into(), ..sandbox().await.clickhouse.clone() };
    Database::new(&config).unwrap().migrate().await.unwrap();
    for sql in [
        "SELECT count() FROM closed.outcomes",
        "SELECT * FROM file('/etc/hostname', 'LineAsString')",
        "SELECT name FROM system.users",
        "CREATE DATABASE mine",
        "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
    ] {
        let (status, answer) = query_as(&config, "default", "", sql).await;
        assert!(status != 200 && answer.contains("ACCESS_DENIED"), "{sql}: {status} {answer}");
    }
}

#[tokio::test]
async fn rows_are_kept_as_long_as_is_configured() {
    let config = ClickHouseConfig { database: "retention".into(), ..sandbox().await.clickhouse.clone() };
    let kept = async |table: &str| {
        let engine =
            query(&config, &format!("SELECT engine_full FROM system.tables WHERE database = 'retention' AND name = '{table}'")).await;
        engine.split(" SETTINGS ").next().unwrap().split(" TTL ").nth(1).unwrap().to_owned()
    };
    Database::new(&config).unwrap().migrate().await.unwrap();
    assert_eq!(kept("outcomes").await, "toDateTime(received_at) + toIntervalDay(90)");
    assert_eq!(kept("rollup").await, "bucket + toIntervalDay(400)");

    let other = ClickHouseConfig { keep_outcomes_days: 20, keep_rollup_days: 40, ..config.clone() };
    for _ in 0..2 {
        Database::new(&other).unwrap().migrate().await.unwrap();
        assert_eq!(kept("outcomes").await, "toDateTime(received_at) + toIntervalDay(20)");
        assert_eq!(kept("rollup").await, "bucket + toIntervalDay(40)");
    }
}

/// What is asked for by ten seconds is found in them to the last millisecond, in whichever part it is; what was completed before or after is not.
#[tokio::test]
async fn what_failed_in_ten_seconds_is_found_to_the_last_millisecond() {
    let config = ClickHouseConfig { database: "ten_seconds".into(), ..sandbox().await.clickhouse.clone() };
    let database = Database::new(&config).unwrap();
    database.migrate().await.unwrap();
    let yesterday = SystemTime::now() - Duration::from_secs(86_400);
    let bucket = u32::try_from(yesterday.duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap() / 10 * 10;
    // Those of the last second come first, and are merged.
    let moments = [9001, 9500, 9999, -1, 0, 5000, 10_000].map(|ms| i64::from(bucket) * 1000 + ms);
    let row = |(offset, completed_at): (u64, i64)| OutcomeRow {
        tenant: "acme",
        terminal: "T1",
        merchant: "M1",
        sequence: offset,
        completed_at,
        received_at: completed_at,
        clock: 1,
        issuer: "icbc",
        tag: "issuer_down/host_decision",
        cause: 4,
        sign: 1,
        kafka_log: "kept",
        kafka_offset: offset,
        ..OutcomeRow::default()
    };
    let slice = "issuer=icbc".parse().unwrap();
    let numbered: Vec<(u64, i64)> = (0..).zip(moments).collect();
    for (delivered, expected) in [(&numbered[..3], 3), (&numbered[3..], 5), (&[], 5)] {
        for numbered in delivered {
            let id = BatchId { log: "kept", partition: 0, first: numbered.0, last: numbered.0, since_ms: numbered.1 };
            database.deliver(&id, &[row(*numbered)], Instant::now()).await.unwrap();
        }
        if delivered.len() != 4 {
            query(&config, "OPTIMIZE TABLE outcomes FINAL").await;
            query(&config, "OPTIMIZE TABLE drilldown FINAL").await;
        }
        for database in [database.clone(), database.clone().recent()] {
            let found = database.failing("acme", &(bucket..=bucket), &["issuer_down"]).await.unwrap();
            let failures: Vec<u64> = found.iter().flat_map(|leaf| &leaf.failed).map(|failed| failed.failures).collect();
            assert_eq!(failures, [expected]);
            let drill = DrillDown { tenant: "acme", slice: &slice, class: "issuer_down", time: bucket..bucket + 10 };
            let cells = database.failed_cells(&drill, &ToldApart { values: Vec::new(), one_in: 1 }).await.unwrap();
            assert_eq!(cells.iter().map(|cell| (cell.failed, cell.others)).collect::<Vec<_>>(), [(expected, 0)]);
            let explained = Explained { tenant: "acme", slice: &slice, failures: Some("issuer_down"), time: bucket..bucket + 10 };
            let affected = database.affected(&explained).await.unwrap();
            assert_eq!((affected.failed, affected.merchants, affected.terminals, affected.transactions), (expected, 1, 1, expected));
        }
    }
}

/// What is kept for drill-downs says the same of what failed as all outcomes do, and of the others so far as the sample is none larger than what is kept.
#[tokio::test]
async fn what_is_kept_for_drill_downs_says_what_all_outcomes_say() {
    const ROWS: u64 = 4000;
    let config = ClickHouseConfig { database: "kept".into(), ..sandbox().await.clickhouse.clone() };
    let database = Database::new(&config).unwrap();
    database.migrate().await.unwrap();
    let yesterday = SystemTime::now() - Duration::from_secs(86_400);
    let bucket = u32::try_from(yesterday.duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap() / 10 * 10;
    let names: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    let name = |number: u64| names[usize::try_from(number % 40).unwrap()].as_str();
    let row = |number: u64| {
        let completed_at = i64::from(bucket) * 1000 + i64::try_from(number * 7 % 20_000).unwrap();
        // A tenth fails so, a tenth otherwise.
        let (tag, cause) = match number % 10 {
            0 => ("issuer_down/host_decision", 4),
            1 => ("link_lost/send", 2),
            _ => ("approved/host_decision", 1),
        };
        OutcomeRow {
            tenant: "acme",
            terminal: name(number / 40),
            merchant: name(number / 400),
            // Some sales are tried twice.
            sequence: number,
            first_attempt_sequence: if number % 20 == 10 { number - 10 } else { 0 },
            completed_at,
            received_at: completed_at + 1000,
            clock: 1,
            issuer: if (number / 20).is_multiple_of(3) { "icbc" } else { "ccb" },
            region: name(number / 3 % 5),
            model: name(number / 11 % 4),
            currency: if (number / 20).is_multiple_of(7) { "HKD" } else { "CNY" },
            amount_minor: i64::try_from(number).unwrap(),
            tag,
            cause,
            sign: 1,
            kafka_log: "kept",
            kafka_offset: number,
            ..OutcomeRow::default()
        }
    };
    let rows: Vec<_> = (0..ROWS).map(row).collect();
    let id = BatchId { log: "kept", partition: 0, first: 0, last: ROWS - 1, since_ms: i64::from(bucket) * 1000 };
    database.deliver(&id, &rows, Instant::now()).await.unwrap();
    let kept = drilldown(&config).await;
    assert!((ROWS / 5 + ROWS / 12..ROWS / 5 + ROWS / 8).contains(&kept), "{kept} rows are kept");

    let recent = database.clone().recent();
    let slice = "issuer=icbc".parse().unwrap();
    let time = bucket..bucket + 20;
    let drill = DrillDown { tenant: "acme", slice: &slice, class: "issuer_down", time: time.clone() };
    for one_in in [1, 8, 16] {
        let told = ToldApart { values: vec![("region", vec!["1".into(), "2".into()]), ("merchant_group", Vec::new())], one_in };
        let pooled = |cell: &FailedCell| cell.values.iter().map(|(_, value)| value.to_string()).collect::<Vec<_>>();
        let all = database.failed_cells(&drill, &told).await.unwrap();
        // Regions 1 and 2, and all others together; of all else nothing is told apart, but for the entry mode, of which there is one.
        let regions: Vec<String> = all.iter().map(|cell| pooled(cell).join(" ")).collect();
        assert_eq!(regions, ["\u{1}", "1", "2"].map(|region| format!("\u{1} \u{1}  \u{1} \u{1} \u{1} \u{1} \u{1} {region}")), "{one_in}");
        assert_eq!(recent.failed_cells(&drill, &told).await.unwrap(), all, "{one_in}");
        let [failed, others] = [|cell: &FailedCell| cell.failed, |cell: &FailedCell| cell.others].map(|of| all.iter().map(of).sum::<u64>());
        assert_eq!(failed, rows.iter().filter(|row| row.issuer == "icbc" && row.cause == 4).count() as u64);
        let expected = rows.iter().filter(|row| row.issuer == "icbc" && row.cause != 4).count() as u64 / u64::from(one_in);
        assert!((expected * 2 / 3..=expected * 3 / 2).contains(&others), "{others} others, one in {one_in}");
    }
    let explained = Explained { tenant: "acme", slice: &slice, failures: Some("issuer_down"), time };
    let affected = database.affected(&explained).await.unwrap();
    assert!(affected.transactions < affected.failed && affected.amounts.len() == 2, "{affected:?}");
    assert_eq!(recent.affected(&explained).await.unwrap(), affected);
    let mut leaves = Vec::new();
    for database in [&database, &recent] {
        let mut found = database.failing("acme", &(bucket..=bucket + 10), &["issuer_down", "link_lost"]).await.unwrap();
        found.sort_by(|one, other| one.values.cmp(&other.values));
        // Sums of fractions differ by the order in which they are summed.
        found.iter_mut().flat_map(|leaf| &mut leaf.failed).for_each(|failed| failed.witnessed = (failed.witnessed * 1e6).round());
        leaves.push(found);
    }
    assert_eq!(leaves[0], leaves[1]);
    let failures: u64 = leaves[0].iter().flat_map(|leaf| &leaf.failed).map(|failed| failed.failures).sum();
    assert_eq!(failures, ROWS / 5);
}
