//! ClickHouse is killed before each file operation that an insert makes, one after the other; after each, what was written is settled, and is there once.
//!
//! Kills at random do not find what this finds: a server that is killed between writing a deduplication token and publishing the rows answers "done" to the
//! repeat, and has none of them. The library that kills is `tests/kill_point`. A part of the places is tried with the other tests, all of them by `make sweep`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;

use faultline_deploy::{LocalConfig, LocalParts, Parts, Wanted};
use faultline_proto::correction::v1::{Correction, CorrectionState};
use faultline_store::{BatchId, ClickHouseConfig, Corrector, Database, OutcomeRow, Settled, SpoolMark, families};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::corrections::{Written, to_bank};
use crate::program::eventually;
use crate::sandbox::{clickhouse_of, ports, program, scratch};
use crate::services::query;
use crate::store::drilldown;
use crate::terminal::in_seconds;

const WEEK_MS: i64 = 7 * 24 * 60 * 60 * 1000;
const ACCOUNT: i8 = 5;
const ROWS: u16 = 100;
/// A part that dies is started again a few times in ten minutes, with longer and longer pauses.
const KILLS_OF_A_SERVER: u32 = 2;
/// More than any of them makes.
const NO_END: u64 = 1000;

/// What is written while the server is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    /// A batch whose rows are of one week.
    Batch,
    /// A batch whose rows are of five.
    OldSpools,
    /// A correction of outcomes of five weeks.
    Correction,
    /// What was seen of spools.
    HighWater,
}

/// A ClickHouse that ends before a chosen file operation.
struct Server {
    local: LocalConfig,
    parts: Parts,
    wrapper: PathBuf,
    control: File,
    log: PathBuf,
    running: Option<(LocalParts, ClickHouseConfig)>,
    kills: u32,
    _directory: TempDir,
}

impl Server {
    async fn new() -> Server {
        let directory = scratch("sweep");
        let local = LocalConfig { data_dir: directory.path().into(), ..ports() };
        let parts = Parts::find(&local.parts_directory().unwrap(), Wanted { kafka: false, clickhouse: true }).await.unwrap();
        let (control, wrapper) = (directory.path().join("control"), directory.path().join("killed-faultline"));
        fs::write(&control, [0; 24]).unwrap();
        let library = program().with_file_name("libfaultline_kill_point.so");
        assert!(library.exists(), "{} is missing: test the whole workspace, or `cargo build` first", library.display());
        let script = format!(
            "#!/bin/sh\nLD_PRELOAD='{}' FAULTLINE_KILL_POINT='{}' exec '{}' \"$@\"\n",
            library.display(),
            control.display(),
            program().display()
        );
        fs::write(&wrapper, script).unwrap();
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
        let log = control.with_extension("log");
        let control = File::options().read(true).write(true).open(control).unwrap();
        Server { local, parts, wrapper, control, log, running: None, kills: 0, _directory: directory }
    }

    /// The server, started anew when it was killed often enough.
    async fn up(&mut self) -> ClickHouseConfig {
        if self.kills >= KILLS_OF_A_SERVER
            && let Some((parts, _)) = self.running.take()
        {
            parts.stop().await;
            self.kills = 0;
        }
        if self.running.is_none() {
            let parts = LocalParts::start(&self.local, &self.parts, &self.wrapper).await.unwrap();
            let config = clickhouse_of(&parts);
            self.running = Some((parts, config));
        }
        self.running.as_ref().unwrap().1.clone()
    }

    /// From now on operations are counted, and it is killed before this one.
    fn arm(&self, kill_at: u64) {
        fs::write(&self.log, "").unwrap();
        self.set([1, kill_at, 0]);
    }

    /// Ends that. Returns whether it was killed.
    fn disarm(&mut self) -> bool {
        let [is_armed, ..] = self.numbers();
        self.set([0, 0, 0]);
        self.kills += u32::from(is_armed == 0);
        is_armed == 0
    }

    /// The last operation that was counted, and what it was on: the file and its directory.
    fn last(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap();
        let Some((_, last)) = log.lines().last().and_then(|line| line.split_once(' ')) else { return String::new() };
        let (operation, path) = last.split_once(' ').unwrap();
        let mut path: Vec<&str> = path.trim_end_matches('/').rsplit('/').take(2).collect();
        path.reverse();
        format!("{operation} {}", path.join("/"))
    }

    fn set(&self, numbers: [u64; 3]) {
        self.control.write_all_at(&numbers.map(u64::to_ne_bytes).concat(), 0).unwrap();
    }

    fn numbers(&self) -> [u64; 3] {
        let mut bytes = [0; 24];
        self.control.read_exact_at(&mut bytes, 0).unwrap();
        [0, 8, 16].map(|place| u64::from_ne_bytes(bytes[place..place + 8].try_into().unwrap()))
    }
}

/// What a try came to.
struct Tried {
    is_killed: bool,
    /// Of those that were counted, the last: what was about to be done.
    operation: String,
    settled: Settled,
}

/// Writes a subject, kills the server before this operation, settles, and looks at everything.
async fn attempt(server: &mut Server, subject: Subject, kill_at: u64) -> Tried {
    let config = ClickHouseConfig { database: format!("sweep_{kill_at}"), ..server.up().await };
    let database = Database::new(&config).unwrap();
    eventually("ClickHouse answers", async || database.probe().await.ok()).await;
    database.migrate().await.unwrap();
    // Merges would be counted too.
    query(&config, "SYSTEM STOP MERGES").await;
    let rows: Vec<_> = (0..ROWS).map(|index| row(subject, index)).collect();
    let id = BatchId { log: "life-1", partition: 3, first: 0, last: u64::from(ROWS) - 1, since_ms: then_ms() };
    if matches!(subject, Subject::Correction | Subject::HighWater) {
        database.deliver(&id, &rows, Instant::now()).await.unwrap();
    }
    let changes = if subject == Subject::Correction { to_bank(&database, then_ms(), "issuer_outage").await } else { Vec::new() };
    let marks: Vec<_> = (0..ROWS).map(|index| mark(&row(subject, index))).collect();

    server.arm(kill_at);
    let journal = Written::default();
    let is_done = match subject {
        Subject::Batch | Subject::OldSpools => database.deliver(&id, &rows, Instant::now()).await.is_ok(),
        // It settles by itself what it cannot make.
        Subject::Correction => {
            let correction = Correction { correction_id: "first".into(), tenant: "acme".into(), ..Correction::default() };
            let mut corrector = Corrector::begin(&database, &journal, correction).await.unwrap();
            corrector.add(changes).await.unwrap();
            corrector.end(CorrectionState::Finished).await.is_ok()
        }
        Subject::HighWater => database.keep_high_water(3, marks.clone(), seconds(then_ms())).await.is_ok(),
    };
    let operation = server.last();
    let is_killed = server.disarm();
    assert!(is_done != is_killed || subject == Subject::Correction, "{subject:?}, {kill_at}: {operation}");
    eventually("ClickHouse answers again", async || database.probe().await.ok()).await;
    let settled = match subject {
        Subject::Batch | Subject::OldSpools => database.settle(&id, &rows).await.unwrap(),
        Subject::Correction => database.settle_correction(&journal.step()).await.unwrap(),
        Subject::HighWater => {
            // Whether it was kept or not, it is known.
            assert_eq!(seen(&database).await, u64::from(ROWS), "{kill_at}: {operation}");
            database.keep_high_water(3, marks, seconds(then_ms())).await.unwrap();
            assert_eq!(seen(&database).await, u64::from(ROWS), "{kill_at}: {operation}");
            Settled::default()
        }
    };
    once(&config, subject, &format!("{subject:?}, killed before operation {kill_at}: {operation}")).await;
    query(&config, &format!("DROP DATABASE {}", config.database)).await;
    Tried { is_killed, operation, settled }
}

/// Tries every so many operations of a subject. Returns how many there were, and what settling found missing by what was about to be done.
async fn sweep(server: &mut Server, subject: Subject, (first, step): (u64, usize)) -> (u64, BTreeMap<String, u32>) {
    let (mut tries, mut repairs) = (0, BTreeMap::new());
    for kill_at in (first..NO_END).step_by(step) {
        let Tried { is_killed, operation, settled } = attempt(server, subject, kill_at).await;
        if !is_killed {
            break;
        }
        tries += 1;
        println!(
            "{subject:?}: killed before {operation} ({kill_at}); settling wrote {} rows, {} for drill-downs, sums: {}",
            settled.rows, settled.drilldown, settled.sums
        );
        if settled != Settled::default() {
            *repairs.entry(operation).or_default() += 1;
        }
    }
    println!(
        "{subject:?}: {tries} places, everything there once after each; in {} of them something was missing",
        repairs.values().sum::<u32>()
    );
    (tries, repairs)
}

/// A sample; `make sweep` tries them all.
#[tokio::test]
async fn a_server_that_is_killed_between_file_operations_loses_and_doubles_nothing() {
    let mut server = Server::new().await;
    for (subject, step) in [(Subject::Batch, 9), (Subject::Correction, 31), (Subject::HighWater, 9)] {
        let (tries, _) = sweep(&mut server, subject, (2, step)).await;
        assert!(tries >= 2, "{subject:?} was killed {tries} times");
    }
}

/// Each of the two has a server of its own, so that they take their time together.
#[tokio::test]
#[ignore = "takes up to 20 minutes: `make sweep`"]
async fn killed_before_each_file_operation_of_a_batch() {
    of_each(&[Subject::Batch, Subject::HighWater, Subject::OldSpools]).await;
}

#[tokio::test]
#[ignore = "takes up to 20 minutes: `make sweep`"]
async fn killed_before_each_file_operation_of_a_correction() {
    of_each(&[Subject::Correction]).await;
}

async fn of_each(subjects: &[Subject]) {
    let mut server = Server::new().await;
    for subject in subjects {
        let (tries, _) = sweep(&mut server, *subject, (1, 1)).await;
        assert!(tries >= 10, "{subject:?} was killed {tries} times");
    }
}

fn then_ms() -> i64 {
    static THEN_MS: std::sync::LazyLock<i64> =
        std::sync::LazyLock::new(|| (in_seconds(0).seconds / 10 * 10 - (35 * 24 + 1) * 60 * 60) * 1000);
    *THEN_MS
}

fn seconds(unix_ms: i64) -> u32 {
    u32::try_from(unix_ms / 1000).unwrap()
}

fn row(subject: Subject, index: u16) -> OutcomeRow<'static> {
    let weeks = match subject {
        // Within two weeks, so that it is kept for drill-downs.
        Subject::Batch => 4,
        Subject::OldSpools | Subject::Correction => i64::from(index % 5),
        Subject::HighWater => 0,
    };
    OutcomeRow {
        tenant: "acme",
        terminal: "T-1",
        spool: 7,
        sequence: u64::from(index) + 1,
        completed_at: then_ms() + i64::from(index) * 100,
        received_at: then_ms() + weeks * WEEK_MS,
        clock: 1,
        issuer: if index.is_multiple_of(2) { "icbc" } else { "ccb" },
        currency: "CNY",
        amount_minor: 100,
        tag: "refused/host_decision",
        cause: ACCOUNT,
        reason: "do_not_honour",
        sign: 1,
        kafka_log: "life-1",
        kafka_partition: 3,
        kafka_offset: index.into(),
        batch_last_offset: u64::from(ROWS) - 1,
        ..OutcomeRow::default()
    }
}

fn mark(row: &OutcomeRow<'_>) -> SpoolMark {
    SpoolMark {
        kafka_partition: 3,
        tenant: row.tenant.into(),
        terminal: row.terminal.into(),
        spool: row.spool,
        sequence: row.sequence,
        seen_at: seconds(then_ms()),
    }
}

/// What was seen of the one spool.
async fn seen(database: &Database) -> u64 {
    let spools = database.high_water(3, "life-1", u64::from(ROWS)).await.unwrap();
    assert_eq!(spools.len(), 1);
    spools[0].mark.sequence
}

/// Asserts that all rows are there and counted in every family, once.
async fn once(config: &ClickHouseConfig, subject: Subject, when: &str) {
    let cause = if subject == Subject::Correction { "bank" } else { "account" };
    let rows = "SELECT cause, sum(sign) AS some, sum(sign * amount_minor) FROM outcomes GROUP BY cause HAVING some != 0";
    assert_eq!(query(config, rows).await, format!("{cause}\t{ROWS}\t{}", ROWS * 100), "{when}");
    let each = "SELECT count(), min(some), max(some) FROM (SELECT sum(sign) AS some FROM outcomes GROUP BY terminal, spool, sequence)";
    assert_eq!(query(config, each).await, format!("{ROWS}\t1\t1"), "{when}");
    let kept = match subject {
        Subject::Batch => ROWS,
        // Of five weeks, the last; each of these rows is there again twice.
        Subject::OldSpools => ROWS / 5,
        Subject::Correction => ROWS / 5 * 3,
        Subject::HighWater => 0,
    };
    assert_eq!(drilldown(config).await, u64::from(kept), "{when}");
    for family in families() {
        let sums = format!(
            "SELECT cause, sum(count) AS some, sum(amount_minor) FROM rollup WHERE family = '{family}' GROUP BY cause HAVING some != 0"
        );
        assert_eq!(query(config, &sums).await, format!("{cause}\t{ROWS}\t{}", ROWS * 100), "{family}, {when}");
    }
}
