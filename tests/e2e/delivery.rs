//! Batches into a real ClickHouse: stored and counted once, whatever was lost before.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::LazyLock;

use faultline_deploy::{LocalConfig, LocalParts, Parts, Wanted};
use faultline_store::{BatchId, ClickHouseConfig, Database, OutcomeRow, Settled, SpoolEvents, SpoolMark, families};
use secrecy::ExposeSecret;
use tokio::time::Instant;

use crate::program::eventually;
use crate::sandbox::{clickhouse_of, ports, program, sandbox, scratch};
use crate::services::{query, query_as};
use crate::store::drilldown;
use crate::terminal::in_seconds;

const WEEK_MS: i64 = 7 * 24 * 60 * 60 * 1000;
const ACCOUNT: i8 = 5;
const BANK: i8 = 4;

/// Eight days ago: rows that are too old are not even stored, and of two weeks not kept for drill-downs.
static THEN_S: LazyLock<u32> = LazyLock::new(|| u32::try_from(in_seconds(0).seconds).unwrap() - 8 * 24 * 60 * 60);

fn then_ms() -> i64 {
    i64::from(*THEN_S) * 1000
}

fn id() -> BatchId<'static> {
    BatchId { log: "life-1", partition: 3, first: 10, last: 19, since_ms: then_ms() }
}

/// A database of one test.
async fn database(name: &str) -> (ClickHouseConfig, Database) {
    let config = ClickHouseConfig { database: format!("delivery_{name}"), ..sandbox().await.clickhouse.clone() };
    let database = Database::new(&config).unwrap();
    database.migrate().await.unwrap();
    (config, database)
}

/// Ten records of one event each, half of them a week later, of two issuers.
fn rows() -> Vec<OutcomeRow<'static>> {
    let row = |index: u16| OutcomeRow {
        tenant: "acme",
        terminal: "T-1",
        spool: 7,
        sequence: u64::from(index) + 1,
        completed_at: then_ms(),
        received_at: then_ms() + if index < 5 { 0 } else { WEEK_MS },
        clock: 1,
        issuer: if index.is_multiple_of(2) { "icbc" } else { "ccb" },
        currency: "CNY",
        amount_minor: 100,
        tag: "funds/host_decision",
        cause: ACCOUNT,
        sign: 1,
        kafka_log: "life-1",
        kafka_partition: 3,
        kafka_offset: 10 + u64::from(index),
        batch_first_offset: 10,
        batch_last_offset: 19,
        ..OutcomeRow::default()
    };
    (0..10).map(row).collect()
}

/// Asserts that the ten rows are stored, kept for drill-downs, and counted in every family, once.
async fn once(config: &ClickHouseConfig) {
    assert_eq!(query(config, "SELECT count(), uniqExact(sequence) FROM outcomes").await, "10\t10");
    assert_eq!(drilldown(config).await, 10);
    for family in families() {
        let sums = format!("SELECT sum(count), sum(amount_minor) FROM rollup WHERE family = '{family}'");
        assert_eq!(query(config, &sums).await, "10\t1000", "{family}");
    }
    assert_eq!(query(config, "SELECT key, sum(count) FROM rollup WHERE family = 'ledger' GROUP BY key").await, "life-1:3:10-19\t10");
}

/// Takes rows away and leaves the tokens of their inserts, as a server does that is killed between the two.
async fn lose(config: &ClickHouseConfig, table: &str, which: &str) {
    query(config, &format!("ALTER TABLE {table} DELETE WHERE {which} SETTINGS mutations_sync = 2")).await;
}

#[tokio::test]
async fn a_batch_is_stored_and_counted_once_however_often_it_comes() {
    let (config, database) = database("once").await;
    database.deliver(&id(), &rows(), Instant::now()).await.unwrap();
    once(&config).await;
    let by_issuer = "SELECT key, sum(count) FROM rollup WHERE family = 'issuer' GROUP BY key ORDER BY key";
    assert_eq!(query(&config, by_issuer).await, "ccb\t5\nicbc\t5");
    // Who was thought to be dead, and who came after.
    database.deliver(&id(), &rows(), Instant::now()).await.unwrap();
    assert_eq!(database.settle(&id(), &rows()).await.unwrap(), Settled::default());
    once(&config).await;
}

/// One part: otherwise the ledger row would vouch only for its own part, and half of a week's rows could be missing.
#[tokio::test]
async fn a_large_batch_is_one_part_of_each_week() {
    let (config, database) = database("large").await;
    let (first, last) = rows().into_iter().fold((None, None), |(first, _), row| (first.or(Some(row.clone())), Some(row)));
    let weeks = [first.unwrap(), last.unwrap()];
    let many = (0..60_000).map(|number| OutcomeRow {
        sequence: number,
        kafka_offset: number,
        ..weeks[usize::try_from(number % 2).unwrap()].clone()
    });
    database.deliver(&BatchId { last: 60_000, ..id() }, &many.collect::<Vec<_>>(), Instant::now()).await.unwrap();
    let parts = "SELECT partition, uniqExact(name), sum(rows) FROM (SELECT _partition_id AS partition, _part AS name, 1 AS rows FROM outcomes) \
                 GROUP BY partition ORDER BY partition";
    let parts = query(&config, parts).await;
    let counts: Vec<_> = parts.lines().map(|line| line.split_once('\t').unwrap().1).collect();
    assert_eq!(counts, ["1\t30000", "1\t30000"]);
    assert_eq!(query(&config, "SELECT uniqExact(_part), sum(count) FROM rollup WHERE family IN ('ledger', 'fleet')").await, "1\t120000");
}

#[tokio::test]
async fn several_that_store_the_same_batch_at_once_store_it_once() {
    let (config, database) = database("several").await;
    let rows = rows();
    for _ in 0..5 {
        query(&config, "TRUNCATE TABLE outcomes").await;
        query(&config, "TRUNCATE TABLE drilldown").await;
        query(&config, "TRUNCATE TABLE rollup").await;
        let id = id();
        let (first, second, third) =
            tokio::join!(database.deliver(&id, &rows, Instant::now()), database.settle(&id, &rows), database.settle(&id, &rows));
        assert!(first.is_ok() && second.is_ok() && third.is_ok());
        once(&config).await;
    }
}

/// Stopped for longer than others wait for it, after it was certain that nobody else stores the batch.
#[tokio::test]
async fn who_slept_asks_before_storing() {
    let (config, database) = database("slept").await;
    database.settle(&id(), &rows()).await.unwrap();
    // Its tokens are long forgotten.
    query(&config, "ALTER TABLE outcomes MODIFY SETTING non_replicated_deduplication_window = 1").await;
    query(&config, "ALTER TABLE drilldown MODIFY SETTING non_replicated_deduplication_window = 1").await;
    query(&config, "ALTER TABLE rollup MODIFY SETTING non_replicated_deduplication_window = 1").await;
    for other in ["other-1", "other-2"] {
        database.deliver(&BatchId { log: other, ..id() }, &[], Instant::now()).await.unwrap();
        query(&config, &format!("ALTER TABLE rollup DELETE WHERE key LIKE '{other}%' SETTINGS mutations_sync = 2")).await;
    }
    let long_ago = Instant::now() - std::time::Duration::from_secs(60);
    database.deliver(&id(), &rows(), long_ago).await.unwrap();
    once(&config).await;
}

/// What a process or a network has held back until its token may be forgotten is refused, whoever sends it.
#[tokio::test]
async fn an_insert_that_comes_too_late_is_refused() {
    let (config, database) = database("late").await;
    database.deliver(&id(), &rows(), Instant::now()).await.unwrap();
    query(&config, "SYSTEM FLUSH LOGS").await;
    for table in ["outcomes", "drilldown", "rollup"] {
        let sent = format!(
            "SELECT replaceRegexpOne(query, '\\\\s+$', '') FROM system.query_log WHERE current_database = '{}' AND type = 'QueryFinish' \
             AND query LIKE 'INSERT INTO {table} %' ORDER BY event_time_microseconds DESC LIMIT 1 FORMAT RawBLOB",
            config.database
        );
        let statement = query(&config, &sent).await;
        let deadline = statement.split("now() > fromUnixTimestamp(").nth(1).unwrap().split(')').next().unwrap();
        let wanted_for = deadline.parse::<i64>().unwrap() - in_seconds(0).seconds;
        assert!((-60..=5).contains(&wanted_for), "{wanted_for}");
        // A row without values is a row too.
        let late = statement.replace(deadline, &(in_seconds(-1).seconds).to_string()).replace("FORMAT Native", "FORMAT JSONEachRow {}");
        let (status, answer) = query_as(&config, &config.user, config.password.expose_secret(), &late).await;
        assert!(status != 200 && answer.contains("it came too late, and may have been given up"), "{answer}");
    }
    once(&config).await;
}

#[tokio::test]
async fn a_table_that_remembers_too_few_inserts_is_refused() {
    let (config, database) = database("forgetful").await;
    query(&config, "ALTER TABLE rollup MODIFY SETTING non_replicated_deduplication_window = 1000").await;
    let message = database.migrate().await.unwrap_err().to_string();
    assert!(
        message.contains("table rollup") && message.contains("1000 inserts") && message.contains("has to remember 100000"),
        "{message}"
    );
}

/// On a full disk this ClickHouse says that it stored rows, and has lost them.
#[tokio::test]
async fn a_server_that_may_fill_its_disk_is_refused() {
    let directory = scratch("full-disk");
    let local = LocalConfig { data_dir: directory.path().join("data"), ..ports() };
    let wrapper = directory.path().join("careless-faultline");
    fs::write(&wrapper, format!("#!/bin/sh\nsed -i /keep_free_space/d config.xml\nexec '{}' \"$@\"\n", program().display())).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    let parts = Parts::find(&local.parts_directory().unwrap(), Wanted { kafka: false, clickhouse: true }).await.unwrap();
    let parts = LocalParts::start(&local, &parts, &wrapper).await.unwrap();
    let config = clickhouse_of(&parts);
    let database = Database::new(&config).unwrap();
    eventually("ClickHouse answers", async || database.probe().await.ok()).await;
    let message = database.migrate().await.unwrap_err().to_string();
    assert!(message.contains("disk default") && message.contains("keeps 0 bytes free (keep_free_space_bytes)"), "{message}");
    Database::new(&ClickHouseConfig { allow_full_disk: true, ..config }).unwrap().migrate().await.unwrap();
    parts.stop().await;
}

#[tokio::test]
async fn what_was_never_stored_is_stored_when_it_is_settled() {
    let (config, database) = database("never").await;
    assert_eq!(database.settle(&id(), &rows()).await.unwrap(), Settled { rows: 10, drilldown: 10, sums: true });
    once(&config).await;
}

#[tokio::test]
async fn what_a_killed_server_lost_behind_its_tokens_is_found_missing_and_written() {
    for (name, table, which, settled) in [
        ("all_rows", "outcomes", "1", Settled { rows: 10, ..Settled::default() }),
        ("one_week", "outcomes", "kafka_offset >= 15", Settled { rows: 5, ..Settled::default() }),
        ("all_kept", "drilldown", "1", Settled { drilldown: 10, ..Settled::default() }),
        ("kept_of_one_week", "drilldown", "kafka_offset >= 15", Settled { drilldown: 5, ..Settled::default() }),
        ("sums", "rollup", "1", Settled { sums: true, ..Settled::default() }),
    ] {
        let (config, database) = database(name).await;
        database.deliver(&id(), &rows(), Instant::now()).await.unwrap();
        lose(&config, table, which).await;
        assert_eq!(database.settle(&id(), &rows()).await.unwrap(), settled, "{name}");
        once(&config).await;
    }
    let (config, database) = database("everything").await;
    database.deliver(&id(), &rows(), Instant::now()).await.unwrap();
    // Twice: the second attempt of the first time has left a token too.
    for _ in 0..2 {
        for table in ["outcomes", "drilldown", "rollup"] {
            lose(&config, table, "1").await;
        }
        assert_eq!(database.settle(&id(), &rows()).await.unwrap(), Settled { rows: 10, drilldown: 10, sums: true });
        once(&config).await;
    }
}

/// Between the two attempts the rules may have changed: what is counted is what is stored.
#[tokio::test]
async fn a_repeat_that_judges_otherwise_counts_the_verdicts_that_are_stored() {
    let (config, database) = database("otherwise").await;
    database.deliver(&id(), &rows(), Instant::now()).await.unwrap();
    for (table, which) in [("outcomes", "kafka_offset >= 15"), ("drilldown", "kafka_offset >= 15"), ("rollup", "1")] {
        lose(&config, table, which).await;
    }
    let otherwise: Vec<_> = rows().into_iter().map(|row| OutcomeRow { cause: BANK, ..row }).collect();
    assert_eq!(database.settle(&id(), &otherwise).await.unwrap(), Settled { rows: 5, drilldown: 5, sums: true });
    once(&config).await;
    let stored = query(&config, "SELECT cause, count() FROM outcomes GROUP BY cause ORDER BY cause").await;
    assert_eq!(stored, "bank\t5\naccount\t5");
    let counted = "SELECT cause, sum(count) FROM rollup WHERE family = 'fleet' GROUP BY cause ORDER BY cause";
    assert_eq!(query(&config, counted).await, stored);
}

/// Counts what is found to be uncounted. Returns how many batches that were.
async fn count_uncounted(database: &Database, partition: u16) -> usize {
    let found = database.uncounted(partition).await.unwrap();
    for batch in &found {
        database.settle(&batch.id(partition), &[]).await.unwrap();
    }
    found.len()
}

/// What was begun is known from what is committed. If that was set by hand, the rows themselves have to tell.
#[tokio::test]
async fn rows_of_a_batch_that_nobody_knows_are_counted() {
    let (config, database) = database("unknown").await;
    assert_eq!(count_uncounted(&database, 3).await, 0);
    database.deliver(&id(), &rows(), Instant::now()).await.unwrap();
    assert_eq!(count_uncounted(&database, 3).await, 0);
    lose(&config, "rollup", "1").await;
    assert_eq!(count_uncounted(&database, 4).await, 0);
    assert_eq!(count_uncounted(&database, 3).await, 1);
    assert_eq!(count_uncounted(&database, 3).await, 0);
    once(&config).await;

    // The next batch of the same log, and the first of another.
    let moved = |log, first| -> Vec<OutcomeRow<'static>> {
        let moved = |row: OutcomeRow<'static>| OutcomeRow {
            kafka_log: log,
            kafka_offset: row.kafka_offset - 10 + first,
            batch_first_offset: first,
            batch_last_offset: first + 9,
            ..row
        };
        rows().into_iter().map(moved).collect()
    };
    database.deliver(&BatchId { first: 20, last: 29, ..id() }, &moved("life-1", 20), Instant::now()).await.unwrap();
    database.deliver(&BatchId { log: "life-2", first: 0, last: 9, ..id() }, &moved("life-2", 0), Instant::now()).await.unwrap();
    let fleet = "SELECT sum(count) FROM rollup WHERE family = 'fleet'";
    assert_eq!(query(&config, fleet).await, "30");
    lose(&config, "rollup", "key NOT IN ('life-1:3:10-19')").await;
    assert_eq!(count_uncounted(&database, 3).await, 2);
    assert_eq!((query(&config, fleet).await.as_str(), count_uncounted(&database, 3).await), ("20", 0));
}

#[tokio::test]
async fn a_batch_of_which_nothing_is_new_leaves_nothing() {
    let (config, database) = database("nothing").await;
    assert_eq!(database.settle(&id(), &[]).await.unwrap(), Settled::default());
    assert_eq!(query(&config, "SELECT (SELECT count() FROM outcomes) + (SELECT count() FROM rollup)").await, "0");
}

fn mark(terminal: &str, sequence: u64) -> SpoolMark {
    SpoolMark { kafka_partition: 3, tenant: "acme".into(), terminal: terminal.into(), spool: 7, sequence, seen_at: *THEN_S }
}

/// Sequences by terminal.
async fn seen(database: &Database, log: &str, before: u64) -> Vec<(String, u64)> {
    let marks = database.high_water(3, log, before).await.unwrap();
    let mut seen: Vec<_> = marks.into_iter().map(|spool| (spool.mark.terminal, spool.mark.sequence)).collect();
    seen.sort();
    seen
}

#[tokio::test]
async fn what_was_seen_is_what_was_kept_and_what_was_counted_since() {
    let (_, database) = database("seen").await;
    assert_eq!(seen(&database, "life-1", 0).await, []);
    database.deliver(&id(), &rows(), Instant::now()).await.unwrap();
    let known = |terminal: &str, sequence| (terminal.to_owned(), sequence);
    // As of a place in the log: a batch that is repeated must not find itself.
    assert_eq!(seen(&database, "life-1", 10).await, []);
    assert_eq!(seen(&database, "life-1", 15).await, [known("T-1", 5)]);
    assert_eq!(seen(&database, "life-1", 20).await, [known("T-1", 10)]);
    // In a new life of the partition, all of the earlier ones is past.
    assert_eq!(seen(&database, "life-2", 0).await, [known("T-1", 10)]);

    database.keep_high_water(3, vec![mark("T-1", 10), mark("T-2", 99)], *THEN_S).await.unwrap();
    database.keep_high_water(3, vec![mark("T-2", 98)], *THEN_S).await.unwrap();
    database.keep_high_water(4, vec![SpoolMark { kafka_partition: 4, ..mark("T-3", 1) }], *THEN_S).await.unwrap();
    assert_eq!(seen(&database, "life-1", 10).await, [known("T-1", 10), known("T-2", 99)]);
    // What the rows say too is not known to be kept.
    let kept = async |before| {
        let mut spools = database.high_water(3, "life-1", before).await.unwrap();
        spools.sort_by(|one, other| one.mark.terminal.cmp(&other.mark.terminal));
        spools.into_iter().map(|spool| spool.is_kept).collect::<Vec<_>>()
    };
    assert_eq!((kept(10).await, kept(20).await), (vec![true, true], vec![false, true]));
}

/// Reading all rows of all time would take too long: what was kept makes those before it unnecessary.
#[tokio::test]
async fn rows_from_before_what_was_kept_are_not_read_again() {
    let (config, database) = database("kept").await;
    database.deliver(&id(), &rows(), Instant::now()).await.unwrap();
    let day_later = *THEN_S + 8 * 24 * 60 * 60;
    database.keep_high_water(3, vec![mark("T-2", 99)], day_later).await.unwrap();
    assert_eq!(seen(&database, "life-1", 20).await, [("T-2".to_owned(), 99)]);
    assert_eq!(query(&config, "SELECT count() FROM outcomes").await, "10");
}

/// Sequences of spool 7 of a terminal that are stored, of those that are asked for.
async fn stored(database: &Database, (terminal, sequences): (&str, &[u64]), since_s: u32, as_of: (&str, u64)) -> Vec<u64> {
    let wanted = SpoolEvents { tenant: "acme", terminal, spool: 7, sequences: sequences.to_vec() };
    // Many at once, as of a batch with many replays.
    let others = (100..400).map(|spool| SpoolEvents { spool, sequences: vec![1, 2, 3], ..wanted });
    let wanted: Vec<_> = others.chain([wanted.clone()]).collect();
    let found = database.stored_events(&wanted, since_s, as_of).await.unwrap();
    let mut found: Vec<_> = found.into_iter().filter(|event| event.spool == 7).map(|event| event.sequence).collect();
    found.sort_unstable();
    found
}

#[tokio::test]
async fn events_are_found_one_by_one_as_of_a_place_in_the_log() {
    let (config, database) = database("identities").await;
    let all: Vec<u64> = (0..=20).collect();
    assert_eq!(stored(&database, ("T-1", &all), 0, ("life-1", 20)).await, [0; 0]);
    database.deliver(&id(), &rows(), Instant::now()).await.unwrap();
    assert_eq!(stored(&database, ("T-1", &all), 0, ("life-1", 20)).await, (1..=10).collect::<Vec<_>>());
    assert_eq!(stored(&database, ("T-1", &[3, 11, i64::MAX.unsigned_abs()]), 0, ("life-1", 20)).await, [3]);
    // A batch that is repeated must not find itself; all of an earlier life is past.
    assert_eq!(stored(&database, ("T-1", &all), 0, ("life-1", 10)).await, [0; 0]);
    assert_eq!(stored(&database, ("T-1", &all), 0, ("life-1", 12)).await, [1, 2]);
    assert_eq!(stored(&database, ("T-1", &all), 0, ("life-2", 0)).await.len(), 10);
    // Another's are another's, whatever it is called.
    assert_eq!(stored(&database, ("T-2", &all), 0, ("life-1", 20)).await, [0; 0]);
    assert_eq!(stored(&database, ("' OR 1 OR '", &all), 0, ("life-1", 20)).await, [0; 0]);
    // A correction makes no event of its own; what was received before is left out.
    query(&config, "INSERT INTO outcomes SELECT * REPLACE (-1 AS sign, '' AS kafka_log) FROM outcomes WHERE sequence = 1").await;
    assert_eq!(stored(&database, ("T-1", &all), *THEN_S + 1, ("life-1", 20)).await, (6..=10).collect::<Vec<_>>());
    // As many as a record may have.
    let many: Vec<u64> = (0..10_000).map(|number| i64::MAX.unsigned_abs() - number).chain([10]).collect();
    assert_eq!(stored(&database, ("T-1", &many), 0, ("life-1", 20)).await, [10]);
}
