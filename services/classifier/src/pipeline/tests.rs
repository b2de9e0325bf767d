//! A worker against twins of the log and of the tables: ended, stopped, given up and succeeded at any moment, while the server dies now and then.
//!
//! What the protocol does in every state is checked in `tests/model`; here it is the code that is checked, at random.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use bytes::Bytes;
use faultline_proto::ingest::v1::{Event, OutcomeBatch};
use faultline_proto::outcome::v1::Outcome;
use faultline_proto::terminal::v1::HealthSample;
use faultline_store::{SampleRow, SeenSpool, Settled, SpoolEvents, SpoolMark, StoreError, Uncounted};
use faultline_stream::{KafkaConfig, Twin};
use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message;
use tokio::runtime;
use tokio::task::yield_now;
use tokio::time::advance;

use super::*;

const NOON_MS: i64 = 1_790_000_000_000;
/// Rows are in parts by when they were received: those of every other minute are in one.
const MINUTE_MS: i64 = 60_000;
/// After so long, a group gives up a silent member, at the least.
const SESSION: Duration = Duration::from_secs(6);
/// As in the store: so long is a worker certain that it has no successor.
const CERTAIN_FOR: Duration = Duration::from_secs(3);

/// Which event it is: terminal, spool, sequence.
type Identity = (String, u64, u64);

/// A row, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    identity: Identity,
    batch: String,
    log: String,
    batch_offsets: (u64, u64),
    offset: u64,
    index: u16,
    received_ms: i64,
}

/// What is inserted: rows, or their sums, which here still say of which events they are.
#[derive(Clone, Debug)]
enum Content {
    Rows(Vec<Row>),
    Sums(String, Vec<Identity>),
}

/// Part of an insert that is under way, and its token.
#[derive(Clone, Debug)]
struct Part {
    request: u64,
    token: String,
    content: Content,
}

/// ClickHouse, as far as it can be relied on: see `tests/model`.
#[derive(Default)]
struct Server {
    rows: Vec<Row>,
    sums: Vec<(String, Vec<Identity>)>,
    tokens: HashSet<String>,
    kept: BTreeMap<(String, String, u64), SpoolMark>,
    /// By what they are known by.
    samples: BTreeSet<Identity>,
    under_way: Vec<Part>,
    requests: u64,
    /// Inserts that it died over.
    failed: HashSet<u64>,
}

impl Server {
    /// Applies a part, if any is under way.
    fn apply(&mut self, which: usize) {
        if self.under_way.is_empty() {
            return;
        }
        let Part { token, content, .. } = self.under_way.remove(which % self.under_way.len());
        if self.tokens.insert(token) {
            match content {
                Content::Rows(rows) => self.rows.extend(rows),
                Content::Sums(batch, events) => self.sums.push((batch, events)),
            }
        }
    }

    /// It dies, with the token of one part written, and its rows not.
    fn die(&mut self, which: usize) {
        if !self.under_way.is_empty() {
            let part = &self.under_way[which % self.under_way.len()];
            self.tokens.insert(part.token.clone());
        }
        self.failed.extend(self.under_way.drain(..).map(|part| part.request));
    }

    fn is_under_way(&self, request: u64) -> bool {
        self.under_way.iter().any(|part| part.request == request)
    }
}

#[derive(Default)]
struct TwinTables(Mutex<Server>);

impl TwinTables {
    fn server(&self) -> MutexGuard<'_, Server> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask<T>(&self, question: impl FnOnce(&mut Server) -> T) -> T {
        yield_now().await;
        let answer = question(&mut self.server());
        yield_now().await;
        answer
    }

    /// Sends an insert, and waits for the answer. Who does not wait any longer has sent it all the same.
    async fn insert(&self, token: &str, content: Content) -> Result<(), StoreError> {
        yield_now().await;
        let request = {
            let mut server = self.server();
            server.requests += 1;
            let request = server.requests;
            let parts = match content {
                Content::Rows(rows) => [0, 1]
                    .map(|part| (part, rows.iter().filter(|row| row.received_ms / MINUTE_MS % 2 == part).cloned().collect::<Vec<_>>()))
                    .into_iter()
                    .filter(|(_, rows)| !rows.is_empty())
                    .map(|(part, rows)| (format!("{token}/{part}"), Content::Rows(rows)))
                    .collect(),
                sums @ Content::Sums(..) => vec![(token.to_owned(), sums)],
            };
            server.under_way.extend(parts.into_iter().map(|(token, content)| Part { request, token, content }));
            request
        };
        while self.server().is_under_way(request) {
            yield_now().await;
        }
        match self.server().failed.contains(&request) {
            true => Err(failure()),
            false => Ok(()),
        }
    }

    async fn insert_missing(&self, id: &BatchId<'_>, rows: &[Row]) -> Result<(), StoreError> {
        for attempt in 0.. {
            let id = id.to_string();
            let stored = self.ask(|server| server.rows.iter().filter(|row| row.batch == id).cloned().collect::<Vec<_>>()).await;
            let missing: Vec<_> = rows.iter().filter(|row| !stored.contains(row)).cloned().collect();
            if missing.is_empty() {
                break;
            }
            self.insert(&format!("{id}:{attempt}"), Content::Rows(missing)).await?;
        }
        Ok(())
    }

    async fn insert_sums(&self, id: &BatchId<'_>) -> Result<(), StoreError> {
        for attempt in 0.. {
            let id = id.to_string();
            if self.ask(|server| server.sums.iter().any(|(batch, _)| *batch == id)).await {
                break;
            }
            let events: Vec<_> =
                self.ask(|server| server.rows.iter().filter(|row| row.batch == id).map(|row| row.identity.clone()).collect()).await;
            if events.is_empty() {
                break;
            }
            self.insert(&format!("{id}:roll:{attempt}"), Content::Sums(id, events)).await?;
        }
        Ok(())
    }
}

/// Any error will do.
fn failure() -> StoreError {
    StoreError::Vanishing { url: "twin".into(), batch: String::new(), rows: 0 }
}

fn rows_of(id: &BatchId<'_>, rows: &[OutcomeRow<'_>]) -> Vec<Row> {
    let row = |row: &OutcomeRow<'_>| Row {
        identity: (row.terminal.to_owned(), row.spool, row.sequence),
        batch: id.to_string(),
        log: id.log.to_owned(),
        batch_offsets: (id.first, id.last),
        offset: row.kafka_offset,
        index: row.record_index,
        received_ms: row.received_at,
    };
    rows.iter().map(row).collect()
}

impl Tables for TwinTables {
    async fn high_water(&self, partition: u16, log: &str, before: u64) -> Result<Vec<SeenSpool>, StoreError> {
        let found = self.ask(|server| {
            let mut found: BTreeMap<_, _> =
                server.kept.iter().map(|(place, mark)| (place.clone(), SeenSpool { mark: mark.clone(), is_kept: true })).collect();
            for row in server.rows.iter().filter(|row| row.log != log || row.offset < before) {
                let (terminal, spool, sequence) = row.identity.clone();
                let place = ("acme".to_owned(), terminal.clone(), spool);
                let seen_at = seconds(row.received_ms);
                let mark = SpoolMark { kafka_partition: partition, tenant: "acme".into(), terminal, spool, sequence, seen_at };
                let SeenSpool { mark, is_kept } = found.entry(place).or_insert(SeenSpool { mark, is_kept: false });
                *is_kept = false;
                (mark.sequence, mark.seen_at) = (sequence.max(mark.sequence), seen_at.max(mark.seen_at));
            }
            found.into_values().collect()
        });
        Ok(found.await)
    }

    async fn keep_high_water(&self, _partition: u16, marks: Vec<SpoolMark>, _appended_s: u32) -> Result<(), StoreError> {
        let keep = |server: &mut Server| {
            for mark in marks {
                let kept = server.kept.entry((mark.tenant.clone(), mark.terminal.clone(), mark.spool)).or_insert(mark.clone());
                (kept.sequence, kept.seen_at) = (mark.sequence.max(kept.sequence), mark.seen_at.max(kept.seen_at));
            }
        };
        self.ask(keep).await;
        Ok(())
    }

    async fn uncounted(&self, _partition: u16) -> Result<Vec<Uncounted>, StoreError> {
        let found = self.ask(|server| {
            let mut found: Vec<Uncounted> = Vec::new();
            for row in server.rows.iter().filter(|row| !server.sums.iter().any(|(batch, _)| *batch == row.batch)) {
                let (first, last) = row.batch_offsets;
                found.push(Uncounted { log: row.log.clone(), first, last, since_ms: 0 });
            }
            found.dedup();
            found
        });
        Ok(found.await)
    }

    /// Nothing is replayed here.
    async fn stored_events(
        &self,
        _wanted: &[SpoolEvents<'_>],
        _since_s: u32,
        _as_of: (&str, u64),
    ) -> Result<HashSet<faultline_store::Identity>, StoreError> {
        Ok(HashSet::new())
    }

    async fn deliver(&self, id: &BatchId<'_>, rows: &[OutcomeRow<'_>], since: Instant) -> Result<(), StoreError> {
        let stored = rows_of(id, rows);
        if since.elapsed() <= CERTAIN_FOR {
            self.insert(&format!("{id}:0"), Content::Rows(stored.clone())).await?;
        }
        if since.elapsed() <= CERTAIN_FOR {
            let events = stored.into_iter().map(|row| row.identity).collect();
            return self.insert(&format!("{id}:roll:0"), Content::Sums(id.to_string(), events)).await;
        }
        self.settle(id, rows).await.map(|_| ())
    }

    async fn settle(&self, id: &BatchId<'_>, rows: &[OutcomeRow<'_>]) -> Result<Settled, StoreError> {
        self.insert_missing(id, &rows_of(id, rows)).await?;
        self.insert_sums(id).await?;
        Ok(Settled::default())
    }

    /// It takes them or dies: whatever is repeated is the same.
    async fn keep_samples(&self, _partition: u16, rows: &[SampleRow<'_>]) -> Result<(), StoreError> {
        let samples = rows.iter().map(|row| (row.terminal.to_owned(), row.spool, row.sequence));
        self.ask(|server| server.samples.extend(samples)).await;
        Ok(())
    }
}

thread_local! {
    /// Made once for each test, since rules and issuers take long to read; tables are emptied for each case.
    static SHARED: &'static Shared<TwinTables> = Box::leak(Box::new(Shared {
        config: ClassifierConfig {
            max_batch_bytes: ByteSize::b(2000),
            max_batch_delay: Duration::from_millis(300),
            high_water_interval: Duration::from_secs(2),
            ..ClassifierConfig::default()
        },
        database: TwinTables::default(),
        dead_letters: DeadLetters::new(&KafkaConfig::default(), "").unwrap(),
        rules: watch::channel(Arc::new(Rules::built_in().unwrap())).1,
        issuers: Issuers::built_in().unwrap(),
        rooms: vec![Room::new(1000, 1000)],
        standings: Standings::default(),
    }));
}

/// What happens next.
#[derive(Clone, Debug)]
enum Happening {
    /// A batch of a terminal arrives that has so many events.
    Batch(usize, u64),
    /// One that came before arrives again.
    Again(Index),
    /// One of the workers gets so far.
    Work(Index, usize),
    /// Time passes, in milliseconds.
    Pass(u64),
    /// The worker that holds the partition ends where it is, and another takes its place.
    Succeed,
    /// The worker that holds the partition is given up, which takes its time, and goes on with what it has.
    GiveUp,
    /// One of those that were given up ends.
    End(Index),
    /// The server applies a part of what is under way.
    Apply(usize),
    /// The server dies.
    Die(usize),
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let happening = prop_oneof![
        6 => (any::<usize>(), 1..4_u64).prop_map(|(terminal, events)| Happening::Batch(terminal, events)),
        2 => any::<Index>().prop_map(Happening::Again),
        16 => (any::<Index>(), 1..12_usize).prop_map(|(worker, steps)| Happening::Work(worker, steps)),
        4 => (1..1500_u64).prop_map(Happening::Pass),
        1 => Just(Happening::Succeed),
        2 => Just(Happening::GiveUp),
        1 => any::<Index>().prop_map(Happening::End),
        8 => any::<usize>().prop_map(Happening::Apply),
        1 => any::<usize>().prop_map(Happening::Die),
    ];
    prop::collection::vec(happening, 0..200)
}

type Worker = Pin<Box<dyn Future<Output = ()>>>;

/// A partition, and who works on it: the last of them holds it, the others were given up and do not know.
struct World {
    shared: &'static Shared<TwinTables>,
    twin: Twin,
    workers: Vec<Worker>,
    /// By terminal, the next sequence.
    next: BTreeMap<usize, u64>,
    batches: Vec<Record>,
    identities: Vec<Identity>,
    appended: i64,
}

impl World {
    fn new() -> World {
        let shared = SHARED.with(|shared| *shared);
        *shared.database.server() = Server::default();
        let twin = Twin::default();
        let workers = vec![worker(&twin, shared)];
        World { shared, twin, workers, next: BTreeMap::new(), batches: Vec::new(), identities: Vec::new(), appended: 0 }
    }

    fn server(&self) -> MutexGuard<'_, Server> {
        self.shared.database.server()
    }

    fn append(&mut self, record: Record) {
        self.appended += 1;
        self.twin.append(record);
    }

    async fn let_happen(&mut self, happening: Happening) {
        match happening {
            Happening::Batch(terminal, events) => {
                let terminal = terminal % 3;
                let next = self.next.entry(terminal).or_insert(1);
                let sequences = *next..*next + events;
                *next = sequences.end;
                let name = format!("T-{terminal}");
                self.identities.extend(sequences.clone().map(|sequence| (name.clone(), 7, sequence)));
                let record = record(&name, sequences, self.appended);
                self.batches.push(record.clone());
                self.append(record);
            }
            Happening::Again(_) if self.batches.is_empty() => {}
            Happening::Again(which) => self.append(self.batches[which.index(self.batches.len())].clone()),
            Happening::Work(which, steps) => {
                let which = which.index(self.workers.len());
                for _ in 0..steps {
                    self.work(which);
                }
            }
            Happening::Pass(milliseconds) => advance(Duration::from_millis(milliseconds)).await,
            Happening::Succeed => {
                self.workers.pop();
                self.workers.push(worker(&self.twin, self.shared));
            }
            Happening::GiveUp => {
                advance(SESSION).await;
                self.workers.push(worker(&self.twin, self.shared));
            }
            Happening::End(_) if self.workers.len() == 1 => {}
            Happening::End(which) => drop(self.workers.remove(which.index(self.workers.len() - 1))),
            Happening::Apply(which) => self.server().apply(which),
            Happening::Die(which) => self.server().die(which),
        }
    }

    /// A worker does what it can until it waits.
    fn work(&mut self, which: usize) {
        let is_done = self.workers[which].as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        assert!(!is_done, "a worker ended, and nobody asked it to");
    }

    /// Everything goes its way, also of those that were given up, until nothing is left to do.
    async fn calm_down(&mut self) {
        for _ in 0..10_000 {
            let is_quiet = self.server().under_way.is_empty();
            if is_quiet && self.twin.committed().unwrap_or_default() == self.appended {
                return;
            }
            for which in 0..self.workers.len() {
                self.work(which);
            }
            self.server().apply(0);
            advance(Duration::from_millis(20)).await;
        }
        panic!("{} of {} records are done", self.twin.committed().unwrap_or_default(), self.appended);
    }
}

fn worker(twin: &Twin, shared: &'static Shared<TwinTables>) -> Worker {
    Box::pin(work(twin.assign(), shared))
}

fn record(terminal: &str, sequences: std::ops::Range<u64>, number: i64) -> Record {
    let event = |sequence| Event { sequence, age_ms: Some(100), outcome: Some(Outcome::default()) };
    // A sample rides with each event.
    let health_samples = sequences.clone().map(|sequence| HealthSample { sequence, ..HealthSample::default() }).collect();
    let batch = OutcomeBatch { spool_id: 7, events: sequences.map(event).collect(), health_samples, ..OutcomeBatch::default() };
    let header = |name: &str, value: String| (name.to_owned(), Bytes::from(value));
    let receipt_ms = NOON_MS + number % 2 * MINUTE_MS;
    Record {
        timestamp_ms: Some(receipt_ms + 20),
        key: Some(Bytes::from(terminal.to_owned())),
        value: batch.encode_to_vec().into(),
        headers: vec![
            header("contract", "faultline.ingest.v1".into()),
            header("tenant", "acme".into()),
            header("receipt-time-ms", receipt_ms.to_string()),
        ],
        ..Record::default()
    }
}

/// It finds its successor's intent, and must not take it for one of before.
#[tokio::test(start_paused = true)]
async fn one_that_was_given_up_before_it_asked_leaves_its_successors_batch_alone() {
    let mut world = World::new();
    world.let_happen(Happening::Batch(0, 1)).await;
    world.let_happen(Happening::GiveUp).await;
    let (given_up, successor) = (0, 1);
    while world.twin.committed().is_none() {
        world.work(successor);
        advance(Duration::from_millis(1)).await;
    }
    for _ in 0..1000 {
        world.work(given_up);
        advance(Duration::from_millis(1)).await;
    }
    assert!(world.server().under_way.is_empty());
    world.calm_down().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_event_is_stored_and_counted_once_whoever_dies(happenings in happenings()) {
        let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let world = runtime.block_on(async {
            let mut world = World::new();
            for happening in happenings {
                world.let_happen(happening).await;
            }
            world.calm_down().await;
            world
        });
        let (server, mut expected) = (world.server(), world.identities.clone());
        let mut stored: Vec<_> = server.rows.iter().map(|row| row.identity.clone()).collect();
        let mut counted: Vec<_> = server.sums.iter().flat_map(|(_, events)| events.clone()).collect();
        for events in [&mut expected, &mut stored, &mut counted] {
            events.sort();
        }
        prop_assert_eq!(&stored, &expected);
        prop_assert_eq!(&counted, &expected);
        prop_assert_eq!(server.samples.iter().cloned().collect::<Vec<_>>(), expected);
    }
}
