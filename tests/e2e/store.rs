//! The schema, against a real ClickHouse.

use faultline_store::{ClickHouseConfig, Database};
use reqwest::Client;

use crate::sandbox::sandbox;

/// Runs a query as some user and returns status and answer.
async fn query(config: &ClickHouseConfig, user: &str, password: &str, sql: &str) -> (u16, String) {
    let request = Client::new().post(config.url.to_string()).header("X-ClickHouse-User", user).header("X-ClickHouse-Key", password);
    let response = request.body(sql.to_owned()).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

fn password(config: &ClickHouseConfig) -> String {
    use secrecy::ExposeSecret;
    config.password.expose_secret().to_owned()
}

#[tokio::test]
async fn a_schema_is_made_once_even_by_several_at_the_same_time() {
    let config = ClickHouseConfig { database: "made_once".into(), ..sandbox().await.clickhouse.clone() };
    let database = Database::new(&config).unwrap();
    let (first, second, third) = tokio::try_join!(database.migrate(), database.migrate(), database.migrate()).unwrap();
    assert!([&first, &second, &third].iter().any(|migrated| migrated.applied == ["outcomes", "rollup"]));
    assert_eq!(database.migrate().await.unwrap().applied, Vec::<&str>::new());

    let tables = "SELECT name FROM system.tables WHERE database = 'made_once' ORDER BY name FORMAT TSV";
    let (status, answer) = query(&config, &config.user, &password(&config), tables).await;
    assert_eq!((status, answer.as_str()), (200, "outcomes\nrollup\nschema_migrations\n"));
}

#[tokio::test]
async fn a_schema_of_a_newer_program_is_left_alone() {
    let config = ClickHouseConfig { database: "newer".into(), ..sandbox().await.clickhouse.clone() };
    let database = Database::new(&config).unwrap();
    database.migrate().await.unwrap();
    let step = "INSERT INTO newer.schema_migrations (version, name, checksum) VALUES (99, 'from the future', '')";
    assert_eq!(query(&config, &config.user, &password(&config), step).await.0, 200);
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
        let (status, answer) = query(&config, "default", "", sql).await;
        assert!(status != 200 && answer.contains("ACCESS_DENIED"), "{sql}: {status} {answer}");
    }
}
