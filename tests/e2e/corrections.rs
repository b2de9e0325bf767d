//! Corrections in a real ClickHouse: each outcome once as it stands, in the rows and in every family, whatever was lost or repeated on the way.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{LazyLock, Mutex};

use faultline_proto::correction::v1::{CorrectedColumns, Correction, CorrectionState};
use faultline_store::{
    BatchId, Change, ClickHouseConfig, CorrectionError, Corrector, Database, Journal, OutcomeRow, Settled, Standing, families, tally,
};
use tokio::time::Instant;

use crate::sandbox::sandbox;
use crate::services::query;
use crate::store::drilldown;
use crate::terminal::in_seconds;

const WEEK_MS: i64 = 7 * 24 * 60 * 60 * 1000;
const BANK: i8 = 4;
const ACCOUNT: i8 = 5;
const OUTCOMES: u16 = 10;

/// Five weeks ago, on a bucket's first second.
static THEN_MS: LazyLock<i64> = LazyLock::new(|| (in_seconds(0).seconds / 10 * 10 - (35 * 24 + 1) * 60 * 60) * 1000);

/// What would be in Kafka.
#[derive(Default)]
pub(crate) struct Written(Mutex<Vec<Correction>>);

impl Journal for Written {
    type Error = fmt::Error;

    async fn write(&self, correction: &Correction) -> Result<(), fmt::Error> {
        self.0.lock().unwrap().push(correction.clone());
        Ok(())
    }
}

impl Written {
    /// The last that was written with a step, as whoever comes after a crash finds it.
    pub(crate) fn step(&self) -> Correction {
        self.0.lock().unwrap().iter().rev().find(|correction| correction.step.is_some()).unwrap().clone()
    }
}

async fn database(name: &str) -> (ClickHouseConfig, Database) {
    let config = ClickHouseConfig { database: format!("corrections_{name}"), ..sandbox().await.clickhouse.clone() };
    let database = Database::new(&config).unwrap();
    database.migrate().await.unwrap();
    let rows: Vec<_> = (0..OUTCOMES).map(row).collect();
    let id = BatchId { log: "life-1", partition: 3, first: 10, last: 19, since_ms: *THEN_MS };
    database.deliver(&id, &rows, Instant::now()).await.unwrap();
    (config, database)
}

/// Ten outcomes of one minute, received in five different weeks.
fn row(index: u16) -> OutcomeRow<'static> {
    OutcomeRow {
        tenant: "acme",
        terminal: "T-1",
        spool: 7,
        sequence: u64::from(index) + 1,
        completed_at: *THEN_MS + i64::from(index) * 6000,
        received_at: *THEN_MS + i64::from(index % 5) * WEEK_MS,
        clock: 1,
        merchant: "M-1",
        bin: "622202",
        issuer: "icbc",
        issuer_map: "1",
        currency: "CNY",
        amount_minor: 100,
        status_words: vec![0x6985, 0x9000],
        diagnostic: "as it was",
        tag: "refused/host_decision",
        cause: ACCOUNT,
        reason: "do_not_honour",
        confidence: 60,
        rule_set: "old",
        sign: 1,
        kafka_log: "life-1",
        kafka_partition: 3,
        kafka_offset: 10 + u64::from(index),
        batch_first_offset: 10,
        batch_last_offset: 19,
        ..OutcomeRow::default()
    }
}

fn correction(id: &str) -> Correction {
    Correction { correction_id: id.into(), tenant: "acme".into(), begin_time: Some(in_seconds(0)), ..Correction::default() }
}

fn all() -> std::ops::Range<i64> {
    *THEN_MS..*THEN_MS + 60_000
}

/// What makes the outcomes of the minute that begins then the bank's, for a reason.
pub(crate) async fn to_bank(database: &Database, begin_ms: i64, reason: &str) -> Vec<Change> {
    let standing = database.standing("acme", &(begin_ms..begin_ms + 60_000)).await.unwrap().into_iter();
    let change = |standing: Standing| {
        let bank = CorrectedColumns {
            cause: BANK.into(),
            reason: reason.into(),
            confidence: 95,
            issuer: format!("{}-new", standing.issuer),
            ..standing.columns()
        };
        Change { standing, columns: bank }
    };
    standing.map(change).collect()
}

/// The same for these alone.
async fn these_to_bank(database: &Database, reason: &str, sequences: RangeInclusive<u64>) -> Vec<Change> {
    let mut changes = to_bank(database, *THEN_MS, reason).await;
    changes.retain(|change| sequences.contains(&change.standing.sequence));
    changes
}

async fn make(database: &Database, journal: &Written, id: &str, changes: Vec<Change>) -> Correction {
    let mut corrector = Corrector::begin(database, journal, correction(id)).await.unwrap();
    corrector.add(changes).await.unwrap();
    corrector.end(CorrectionState::Finished).await.unwrap()
}

/// Asserts that every outcome stands once, so many of them as the bank's, in rows and in every family, and that both agree about tags, amounts and issuers.
async fn stands(config: &ClickHouseConfig, bank: u16) {
    let expected = match bank {
        0 => format!("account\t{OUTCOMES}\t{}", OUTCOMES * 100),
        OUTCOMES => format!("bank\t{bank}\t{}", bank * 100),
        _ => format!("bank\t{bank}\t{}\naccount\t{}\t{}", bank * 100, OUTCOMES - bank, (OUTCOMES - bank) * 100),
    };
    let by_cause = "SELECT cause, sum(sign) AS some, sum(sign * amount_minor) FROM outcomes GROUP BY cause HAVING some != 0 ORDER BY cause";
    assert_eq!(query(config, by_cause).await, expected);
    let each = "SELECT count(), min(some), max(some) FROM (SELECT sum(sign) AS some FROM outcomes GROUP BY terminal, spool, sequence)";
    assert_eq!(query(config, each).await, format!("{OUTCOMES}\t1\t1"));
    for family in families() {
        let sums = format!(
            "SELECT cause, sum(count) AS some, sum(amount_minor) FROM rollup WHERE family = '{family}' GROUP BY cause HAVING some != 0 ORDER BY cause"
        );
        assert_eq!(query(config, &sums).await, expected, "{family}");
    }
    drilldown(config).await;
    let by_issuer = |from: &str| format!("SELECT {from} GROUP BY name, tag HAVING some != 0 ORDER BY name, tag");
    assert_eq!(
        query(config, &by_issuer("toString(issuer) AS name, tag, sum(sign) AS some FROM outcomes")).await,
        query(config, &by_issuer("toString(key) AS name, tag, sum(count) AS some FROM rollup WHERE family = 'issuer'")).await
    );
}

#[tokio::test]
async fn a_correction_takes_away_and_adds_and_is_undone() {
    let (config, database) = database("made").await;
    stands(&config, 0).await;
    let journal = Written::default();
    let changes = these_to_bank(&database, "issuer_outage", 3..=7).await;
    let mut previewed = Vec::new();
    tally(&mut previewed, &changes);
    let made = make(&database, &journal, "first", changes).await;
    stands(&config, 5).await;
    assert_eq!((made.state(), &made.changes, made.step), (CorrectionState::Finished, &previewed, None));
    assert_eq!(previewed.iter().map(|change| change.count).collect::<Vec<_>>(), [5]);

    // Whatever is not corrected stays as it was.
    let kept = "SELECT DISTINCT merchant, diagnostic, status_words, tag, rule_set, clock, received_at - completed_at < 0 FROM outcomes";
    assert_eq!(
        query(&config, kept).await,
        "M-1\tas it was\t[27013,36864]\trefused/host_decision\told\tage\t0\nM-1\tas it was\t[27013,36864]\trefused/host_decision\told\tage\t1"
    );
    let history = "SELECT revision, sign, cause, reason, confidence, issuer, kafka_partition FROM outcomes WHERE sequence = 4 ORDER BY revision, sign DESC";
    assert_eq!(
        query(&config, history).await,
        "0\t1\taccount\tdo_not_honour\t60\ticbc\t3\n0\t-1\taccount\tdo_not_honour\t60\ticbc\t65535\n1\t1\tbank\tissuer_outage\t95\ticbc-new\t65535"
    );

    // The same again finds nothing to do; a second one corrects what stands.
    let standing = database.standing("acme", &all()).await.unwrap();
    assert_eq!(standing.iter().filter(|standing| standing.cause == BANK && standing.revision == 1).count(), 5);
    make(&database, &journal, "second", these_to_bank(&database, "other_outage", 7..=8).await).await;
    stands(&config, 6).await;

    // Undone is what still stands of it: the seventh was corrected again since.
    let undoing = database.undoing(&correction("first"), &all()).await.unwrap();
    assert_eq!(undoing.iter().map(|change| change.standing.sequence).collect::<Vec<_>>(), [3, 4, 5, 6]);
    make(&database, &journal, "undo", undoing).await;
    stands(&config, 2).await;
    assert_eq!(database.undoing(&correction("first"), &all()).await.unwrap(), []);
    make(&database, &journal, "undo-2", database.undoing(&correction("second"), &all()).await.unwrap()).await;
    // The seventh is as the first correction made it, and can be undone with it now.
    stands(&config, 1).await;
    make(&database, &journal, "undo-3", database.undoing(&correction("first"), &all()).await.unwrap()).await;
    stands(&config, 0).await;
    make(&database, &journal, "redo", database.undoing(&correction("undo"), &all()).await.unwrap()).await;
    stands(&config, 4).await;
}

#[tokio::test]
async fn a_step_that_comes_again_changes_nothing() {
    let (config, database) = database("again").await;
    let journal = Written::default();
    make(&database, &journal, "first", these_to_bank(&database, "issuer_outage", 1..=10).await).await;
    stands(&config, OUTCOMES).await;
    for _ in 0..2 {
        assert_eq!(database.settle_correction(&journal.step()).await.unwrap(), Settled::default());
    }
    // At the same moment, of one that was never made; and once more when it is long done.
    let changes = these_to_bank(&database, "issuer_outage", 1..=10).await;
    make(&database, &journal, "second", changes).await;
    let step = journal.step();
    query(&config, "ALTER TABLE outcomes DELETE WHERE kafka_log = 'second' SETTINGS mutations_sync = 2").await;
    query(&config, "ALTER TABLE rollup DELETE WHERE seen >= '2000-01-01' AND key LIKE 'second%' SETTINGS mutations_sync = 2").await;
    let (one, other) = tokio::join!(database.settle_correction(&step), database.settle_correction(&step));
    assert!(one.is_ok() && other.is_ok());
    let rows = "SELECT count(), uniqExact(kafka_offset, record_index) FROM outcomes WHERE kafka_log = 'second'";
    assert_eq!(query(&config, rows).await, "20\t20");
}

#[tokio::test]
async fn what_a_killed_server_lost_of_a_step_is_found_missing_and_written() {
    let first_week = format!("received_at < fromUnixTimestamp64Milli({})", *THEN_MS + WEEK_MS);
    for (name, table, which, settled) in [
        ("rows", "outcomes", "kafka_log = 'first'".to_owned(), Settled { rows: 20, ..Settled::default() }),
        ("week", "outcomes", format!("kafka_log = 'first' AND {first_week}"), Settled { rows: 4, ..Settled::default() }),
        ("kept", "drilldown", "kafka_log = 'first'".to_owned(), Settled { drilldown: 4, ..Settled::default() }),
    ] {
        let (config, database) = database(name).await;
        let journal = Written::default();
        make(&database, &journal, "first", these_to_bank(&database, "issuer_outage", 1..=10).await).await;
        query(&config, &format!("ALTER TABLE {table} DELETE WHERE {which} SETTINGS mutations_sync = 2")).await;
        assert_eq!(database.settle_correction(&journal.step()).await.unwrap(), settled, "{name}");
        stands(&config, OUTCOMES).await;
    }
    let (config, database) = database("sums").await;
    query(&config, "CREATE TABLE before ENGINE = MergeTree ORDER BY tenant AS SELECT * FROM rollup").await;
    let journal = Written::default();
    make(&database, &journal, "first", these_to_bank(&database, "issuer_outage", 1..=10).await).await;
    // The part with the correction's sums is gone, and its token is not.
    query(&config, "ALTER TABLE rollup DELETE WHERE 1 SETTINGS mutations_sync = 2").await;
    query(&config, "INSERT INTO rollup SELECT * FROM before").await;
    assert_eq!(database.settle_correction(&journal.step()).await.unwrap(), Settled { sums: true, ..Settled::default() });
    stands(&config, OUTCOMES).await;
}

/// Another takes over between what is written down and what is written, and makes the step; the server merges what it was made of; then the first wakes up.
#[tokio::test]
async fn who_was_overtaken_writes_nothing_twice() {
    struct Overtaken<'a>(&'a Database, &'a ClickHouseConfig);
    impl Journal for Overtaken<'_> {
        type Error = fmt::Error;
        async fn write(&self, correction: &Correction) -> Result<(), fmt::Error> {
            let rows = correction.step.iter().map(|step| 2 * step.outcomes.len()).sum();
            let settled = self.0.settle_correction(correction).await.unwrap();
            // Of four of twenty outcomes: the others were received more than two weeks ago.
            assert_eq!(settled, Settled { rows, drilldown: if rows > 0 { 8 } else { 0 }, sums: rows > 0 });
            query(self.1, "SYSTEM START MERGES outcomes").await;
            query(self.1, "OPTIMIZE TABLE outcomes FINAL").await;
            Ok(())
        }
    }
    let (config, database) = database("overtaken").await;
    query(&config, "SYSTEM STOP MERGES outcomes").await;
    let more = (0..OUTCOMES).map(|index| OutcomeRow { sequence: u64::from(OUTCOMES + index) + 1, kafka_log: "life-2", ..row(index) });
    let id = BatchId { log: "life-2", partition: 3, first: 10, last: 19, since_ms: *THEN_MS };
    database.deliver(&id, &more.collect::<Vec<_>>(), Instant::now()).await.unwrap();
    let journal = Overtaken(&database, &config);
    let mut corrector = Corrector::begin(&database, &journal, correction("first")).await.unwrap();
    corrector.add(these_to_bank(&database, "issuer_outage", 1..=20).await).await.unwrap();
    corrector.end(CorrectionState::Finished).await.unwrap();
    let rows = "SELECT count(), uniqExact(kafka_offset, record_index), sum(sign) FROM outcomes WHERE kafka_log = 'first'";
    assert_eq!(query(&config, rows).await, "40\t40\t0");
    assert_eq!(drilldown(&config).await, 12);
}

/// Nothing is written that was not written down before.
#[tokio::test]
async fn without_a_journal_nothing_is_corrected() {
    struct Full;
    impl Journal for Full {
        type Error = fmt::Error;
        async fn write(&self, correction: &Correction) -> Result<(), fmt::Error> {
            if correction.step.is_some() { Err(fmt::Error) } else { Ok(()) }
        }
    }
    let (config, database) = database("journal").await;
    let mut corrector = Corrector::begin(&database, &Full, correction("first")).await.unwrap();
    corrector.add(these_to_bank(&database, "issuer_outage", 1..=10).await).await.unwrap();
    let refused = corrector.end(CorrectionState::Finished).await.unwrap_err();
    assert!(matches!(refused, CorrectionError::Journal(fmt::Error { .. })));
    stands(&config, 0).await;
    assert_eq!(query(&config, "SELECT count() FROM outcomes").await, OUTCOMES.to_string());
}

#[tokio::test]
async fn a_long_correction_is_made_in_steps() {
    let (config, database) = database("long").await;
    let many: Vec<_> = (0..25_000_u64)
        .map(|number| OutcomeRow {
            terminal: "T-2",
            sequence: number + 1,
            kafka_offset: number,
            kafka_log: "life-2",
            batch_first_offset: 0,
            batch_last_offset: 25_000,
            ..row(u16::try_from(number % 10).unwrap())
        })
        .collect();
    let id = BatchId { log: "life-2", partition: 3, first: 0, last: 25_000, since_ms: *THEN_MS };
    database.deliver(&id, &many, Instant::now()).await.unwrap();
    let seconds = u32::try_from(*THEN_MS / 1000).unwrap();
    let windows = database.windows("acme", seconds..seconds + 60).await.unwrap();
    assert_eq!((windows.outcomes, windows.windows), (25_010, vec![all()]));
    let parts = database.windows("acme", seconds + 5..seconds + 15).await.unwrap().windows;
    assert_eq!((parts[0].start, parts[0].end, parts.len()), (*THEN_MS + 5000, *THEN_MS + 15_000, 1));
    assert_eq!(database.windows("other", seconds..seconds + 60).await.unwrap().windows, []);

    let journal = Written::default();
    let made = make(&database, &journal, "first", these_to_bank(&database, "issuer_outage", 1..=u64::MAX).await).await;
    assert_eq!(made.changes[0].count, 25_010);
    let steps = "SELECT groupArray((kafka_offset, some)) FROM (SELECT kafka_offset, count() AS some FROM outcomes WHERE kafka_log = 'first' GROUP BY kafka_offset ORDER BY kafka_offset)";
    assert_eq!(query(&config, steps).await, "[(0,20000),(1,20000),(2,10020)]");
    assert_eq!(query(&config, "SELECT sumIf(count, cause = 'bank'), sum(count) FROM rollup WHERE family = 'issuer'").await, "25010\t25010");
    let undoing = database.undoing(&made, &all()).await.unwrap();
    make(&database, &journal, "undo", undoing).await;
    assert_eq!(query(&config, "SELECT sumIf(sign, cause = 'bank'), sum(sign) FROM outcomes").await, "0\t25010");
    assert_eq!(query(&config, "SELECT sumIf(count, cause = 'bank'), sum(count) FROM rollup WHERE family = 'issuer'").await, "0\t25010");
}
