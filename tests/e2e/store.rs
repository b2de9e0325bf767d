//! The schema, against a real ClickHouse.

use faultline_store::{ClickHouseConfig, Database};

use crate::sandbox::sandbox;
use crate::services::{query, query_as};

/// The steps of the schema.
const STEPS: [&str; 11] = [
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
];

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
        "deliveries\nhealth_hours\nhealth_hours_of_samples\nhealth_samples\nhigh_water\nincidents\noutcomes\nprogress\nrollup\nschema_migrations\nverdicts\nwatermarks"
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
