//! The way of records through the classifier.

use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use faultline_runtime::error::with_causes;
use faultline_store::{BatchId, Database, OutcomeRow};
use faultline_stream::{DeadLetters, Intent, PartitionLog, Position, Record, Rejection, card_numbers};
use faultline_verdict::{Issuers, Rules};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep};
use tracing::{Span, info_span};

use crate::config::ClassifierConfig;
use crate::counts::{self, Stored};
use crate::gather::{Gathered, Gatherer};
use crate::judged::Judged;
use crate::replays::{Asked, Counted};
use crate::report::Report;
use crate::samples;
use crate::seen::Seen;
use crate::standing::{Standing, Standings};
use crate::tables::Tables;

/// Pauses before something that a server did not do is tried again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What the workers of all partitions share.
pub(crate) struct Shared<D = Database> {
    pub(crate) config: ClassifierConfig,
    pub(crate) database: D,
    pub(crate) dead_letters: DeadLetters,
    /// Those in force; a batch is judged by the same to its end.
    pub(crate) rules: watch::Receiver<Arc<Rules>>,
    pub(crate) issuers: Issuers,
    /// For each shard of the store, so that one that does not answer holds up its own partitions alone.
    pub(crate) rooms: Vec<Room>,
    pub(crate) standings: Standings,
}

/// How much is done at a time on one shard.
pub(crate) struct Room {
    /// Batches that are judged and stored.
    batches: Semaphore,
    /// Searches among rows.
    searches: Semaphore,
}

impl Room {
    pub(crate) fn new(batches: usize, searches: usize) -> Room {
        Room { batches: Semaphore::new(batches), searches: Semaphore::new(searches) }
    }
}

impl<D> Shared<D> {
    /// That of a partition's shard.
    #[expect(clippy::indexing_slicing, reason = "there is a room at least, and a remainder is less than what is divided by")]
    fn room(&self, partition: i32) -> &Room {
        &self.rooms[usize::from(column(partition)) % self.rooms.len()]
    }
}

/// Works on one partition until no more records are wanted, or it is taken away:
///
/// ```text
/// what was seen ─▶ gather ─▶ read ─▶ drop what was seen ─▶ verdict ─▶ intent ─▶ rows, then their sums ─▶ samples ─▶ dead letters ─▶ commit
///      (load)        │        │                                        │             │                     │
///                    │   unreadable: a dead letter             skipped where      unknown whether they are  │
///              a batch that was begun                          nothing is new     there: ask, write what    repeats are
///              before is repeated exactly                                         is missing                the same rows
/// ```
///
/// Of records that were dead letters and are replayed, each event is asked for, instead of what was seen of its spool.
pub(crate) async fn work(partition: impl PartitionLog, shared: &Shared<impl Tables>) {
    let number = partition.number();
    let standing = shared.standings.of(number);
    standing.is_in_trouble("what was seen and what was begun is asked for".into());
    let mut position = begin(&partition, shared, &standing).await;
    let mut seen = load_seen(shared, &standing, &position).await;
    let mut kept = Instant::now();
    let mut gatherer = Gatherer::new(partition, bytes(shared.config.max_batch_bytes), shared.config.max_batch_delay);
    let mut appended_ms = None;
    loop {
        let batch = match gatherer.next(&position).await {
            Gathered::Batch(batch) => batch,
            Gathered::Disorder => gatherer.partition().rejoin().await,
            Gathered::End => break,
        };
        standing.works_since(batch.records.first().and_then(|record| record.timestamp_ms));
        if !gatherer.partition().is_undisturbed().await {
            gatherer.partition().rejoin().await;
        }
        let Ok(room) = shared.room(number).batches.acquire().await else { break };
        let (reports, rejected) = read(&batch.records);
        let counted = find_replayed(shared, &standing, &reports, (&position.log, batch.first)).await;
        let rules = Arc::clone(&shared.rules.borrow());
        let judged = judge(&reports, (&mut seen, counted), (&rules, &shared.issuers));

        let intent = batch.begun.unwrap_or(Intent { last: batch.last, since_ms: earliest(&reports) });
        let (first, last) = (batch.first.cast_unsigned(), batch.last.cast_unsigned());
        let id = BatchId { log: &position.log.clone(), partition: column(number), first, last, since_ms: intent.since_ms };
        let rows: Vec<OutcomeRow<'_>> = judged.iter().map(|event| event.row(&id)).collect();
        let inserting = insert_spans(&reports, rows.len());
        let stored = match batch.begun {
            Some(_) => {
                // What was begun may be what a successor begins just now, if the group gave us up before we asked. Then this is refused.
                gatherer.partition().commit(&position).await;
                settle(shared, &standing, &id, &rows).await
            }
            None if rows.is_empty() => Stored::Empty,
            None => {
                position = Position { next: batch.first, intent: Some(intent), ..position };
                let since = Instant::now();
                gatherer.partition().commit(&position).await;
                deliver(shared, &standing, (&id, &rows), since).await
            }
        };
        drop(inserting);
        let (samples, out_of_range) = samples::rows(&reports);
        insist(&standing, || shared.database.keep_samples(column(number), &samples)).await;
        drop(room);
        keep_dead_letters(shared, &standing, &rejected).await;
        position = Position { next: batch.last + 1, intent: None, ..position };
        gatherer.partition().commit(&position).await;

        counts::done(&reports, &judged, stored);
        counts::samples(samples.len(), out_of_range);
        standing.is_done();
        appended_ms = batch.records.last().and_then(|record| record.timestamp_ms).or(appended_ms);
        if kept.elapsed() >= shared.config.high_water_interval && keep_seen(shared, number, &mut seen, appended_ms).await {
            kept = Instant::now();
        }
    }
    keep_seen(shared, number, &mut seen, appended_ms).await;
}

/// Where reading begins. Where that is a new log, the last batch of an earlier one may be stored and not counted.
async fn begin(partition: &impl PartitionLog, shared: &Shared<impl Tables>, standing: &Standing<'_>) -> Position {
    let start = partition.start().await;
    if start.is_new_log {
        let number = column(partition.number());
        let _room = shared.room(partition.number()).searches.acquire().await;
        let uncounted = insist(standing, || shared.database.uncounted(number)).await;
        if !uncounted.is_empty() {
            // Among them may be what a successor stores just now, if the group gave us up before we asked. Then this is refused.
            partition.claim(start.position.next).await;
            for batch in &uncounted {
                let id = batch.id(number);
                insist(standing, || shared.database.settle(&id, &[])).await;
            }
            let batches = uncounted.len();
            tracing::warn!(partition = number, batches, "batches of an earlier log were stored and not counted; now they are");
        }
    }
    start.position
}

/// Reads records; of those that cannot be read, why.
fn read(records: &[Record]) -> (Vec<Report>, Vec<(&Record, Rejection)>) {
    let (mut reports, mut rejected) = (Vec::with_capacity(records.len()), Vec::new());
    for record in records {
        match Report::read(record) {
            Ok(report) => reports.push(report),
            Err(rejection) => rejected.push((record, rejection)),
        }
    }
    (reports, rejected)
}

/// Of a batch that begins at this offset of a log, what replayed records have in it that is stored already. Others have nothing to be asked for.
async fn find_replayed(shared: &Shared<impl Tables>, standing: &Standing<'_>, reports: &[Report], (log, first): (&str, i64)) -> Counted {
    let Some(asked) = Asked::of(reports) else { return Counted::default() };
    tracing::info!(partition = standing.partition(), records = asked.events.len(), "records that were dead letters are read again");
    let _room = shared.room(standing.partition()).searches.acquire().await;
    let as_of = (log, first.cast_unsigned());
    Counted::before(insist(standing, || shared.database.stored_events(&asked.events, asked.since_s, as_of)).await)
}

/// The verdicts on what was not seen before.
fn judge<'a>(
    reports: &'a [Report],
    (seen, mut counted): (&mut Seen, Counted),
    (rules, issuers): (&'a Rules, &'a Issuers),
) -> Vec<Judged<'a>> {
    let mut judged = Vec::with_capacity(reports.iter().map(|report| report.batch.events.len()).sum());
    for report in reports {
        let spool = seen.spool((&report.tenant, &report.terminal, report.batch.spool_id), seconds(report.receipt_ms));
        let new = report.events().filter(|(_, event, _)| {
            let is_beyond = spool.is_new(event.sequence);
            counted.is_new(report, event.sequence, is_beyond)
        });
        judged.extend(new.map(|event| Judged::new(report, event, rules, issuers)));
    }
    judged
}

/// A span in that of each record that is traced: as long as its rows, with others, are inserted.
fn insert_spans(reports: &[Report], rows: usize) -> Vec<Span> {
    reports.iter().filter_map(|report| report.span.as_ref()).map(|span| info_span!(parent: span, "insert", rows)).collect()
}

/// Stores and counts the rows of a new batch, however long that takes.
async fn deliver(
    shared: &Shared<impl Tables>,
    standing: &Standing<'_>,
    (id, rows): (&BatchId<'_>, &[OutcomeRow<'_>]),
    since: Instant,
) -> Stored {
    match shared.database.deliver(id, rows, since).await {
        Ok(()) => {
            counts::took(since.elapsed());
            Stored::AtOnce
        }
        Err(error) => {
            standing.is_in_trouble(with_causes(&error));
            settle(shared, standing, id, rows).await
        }
    }
}

/// Stores and counts what of a batch is not yet, however long that takes.
async fn settle(shared: &Shared<impl Tables>, standing: &Standing<'_>, id: &BatchId<'_>, rows: &[OutcomeRow<'_>]) -> Stored {
    let begin = Instant::now();
    let settled = insist(standing, || shared.database.settle(id, rows)).await;
    counts::took(begin.elapsed());
    Stored::Settled(settled)
}

/// Tries again and again, with growing pauses, and says meanwhile what is in the way.
async fn insist<T, E, F>(standing: &Standing<'_>, mut attempt: impl FnMut() -> F) -> T
where
    E: std::error::Error,
    F: Future<Output = Result<T, E>>,
{
    let mut pause = FIRST_PAUSE;
    loop {
        match attempt().await {
            Ok(done) => {
                standing.is_well();
                return done;
            }
            Err(error) => standing.is_in_trouble(with_causes(&error)),
        }
        sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn keep_dead_letters(shared: &Shared<impl Tables>, standing: &Standing<'_>, rejected: &[(&Record, Rejection)]) {
    for (record, rejection) in rejected {
        tracing::warn!(
            partition = record.partition,
            offset = record.offset,
            stage = rejection.stage,
            reason = card_numbers::overwritten(&rejection.reason),
            "a record cannot be processed and is kept as a dead letter"
        );
        insist(standing, || shared.dead_letters.keep(record, rejection)).await;
        counts::dead_letter(rejection.stage);
    }
}

/// What was seen in all that comes before a position.
async fn load_seen(shared: &Shared<impl Tables>, standing: &Standing<'_>, position: &Position) -> Seen {
    let (partition, before) = (standing.partition(), position.next.cast_unsigned());
    let _room = shared.room(standing.partition()).searches.acquire().await;
    let spools = insist(standing, || shared.database.high_water(column(partition), &position.log, before)).await;
    tracing::debug!(partition, offset = position.next, spools = spools.len(), "reading begins");
    if let Some(Intent { last, .. }) = position.intent {
        tracing::info!(partition, first = position.next, last, "a batch that was begun before is repeated");
    }
    counts::spools(partition, spools.len());
    standing.is_well();
    Seen::load(spools)
}

/// Keeps what was seen. If that fails, it is tried the next time: until then, the rows tell.
async fn keep_seen(shared: &Shared<impl Tables>, partition: i32, seen: &mut Seen, appended_ms: Option<i64>) -> bool {
    let Some(appended_ms) = appended_ms else { return true };
    let changes = seen.changes(column(partition));
    match shared.database.keep_high_water(column(partition), changes, seconds(appended_ms)).await {
        Ok(()) => {
            seen.kept(seconds(appended_ms));
            counts::spools(partition, seen.len());
            true
        }
        Err(error) => {
            tracing::warn!(partition, reason = with_causes(&error), "what was seen of spools was not kept; it is tried again later");
            false
        }
    }
}

/// When the first of them was received, in milliseconds since 1970-01-01 UTC.
fn earliest(reports: &[Report]) -> i64 {
    reports.iter().map(|report| report.receipt_ms).min().unwrap_or_default()
}

/// Seconds since 1970-01-01 UTC, as the store has them.
fn seconds(unix_ms: i64) -> u32 {
    u32::try_from(unix_ms.div_euclid(1000).max(0)).unwrap_or(u32::MAX)
}

/// A partition's number, as the store has it.
fn column(partition: i32) -> u16 {
    u16::try_from(partition).unwrap_or(u16::MAX)
}

fn bytes(size: ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
