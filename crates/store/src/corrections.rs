//! Corrections: later truths about outcomes that are stored. Rows are never changed: a corrected outcome has its old row again with sign -1, and a new one with
//! sign 1 and the next revision, so whoever sums signs sums what stands, and all that was ever said can be read.
//!
//! ```text
//! outcomes as they stand ─▶ what they are to be ─▶ a step, kept in the journal ─▶ old and new rows (token) ─▶ their sums and a ledger row (token) ─▶ next step
//!                                                           │
//!                              left here: whoever takes the journal over asks what is there, and writes what is missing
//! ```
//!
//! A step (`correction_step.rs`) is to corrections what a batch is to outcomes, and is settled the same way (`delivery.rs`): its rows are of a partition that no topic
//! has, of a log with the correction's name, at the step's number as offset. The two rows of an outcome have the same time of receipt, so they are in the same part: both are there, or
//! neither. A step says which revision it replaces, so what it makes is the same however often and whenever it is made.

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, SystemTime};

use clickhouse::Row;
use faultline_proto::correction::v1::{CorrectedColumns, CorrectedVerdict, Correction, CorrectionState, VerdictChange};
use faultline_proto::outcome::v1::{EmvEvidence, Outcome, ReaderHistory, StageLatencies};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use crate::correction_step::{MOST_OUTCOMES, StepRows, step};
use crate::database::{Database, StoreError};
use crate::delivery::{Attempt, CERTAIN_FOR, Rows, Settled, complete};
use crate::families::{BUCKET_S, FLEET, of_time};
use crate::server::WANTED_AT_ONCE_S;

/// Outcomes that are corrected at once.
const LARGEST_STEP: usize = 10_000;
const _: () = assert!(LARGEST_STEP <= MOST_OUTCOMES as usize);
/// Outcomes that are read at once, as far as ten seconds have not more.
const WINDOW: u64 = 100_000;
/// How long a question may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(120);
/// How often a step that failed is settled, and the pause before that, which grows.
const SETTLEMENTS: u32 = 6;
const PAUSE: Duration = Duration::from_millis(500);

/// An outcome as it stands: who it is, what it said as far as verdicts and settlements need it, and what is said of it.
#[derive(Clone, Debug, Default, PartialEq, Row, Deserialize)]
#[expect(missing_docs, reason = "the schema documents its columns")]
pub struct Standing {
    pub terminal: String,
    pub spool: u64,
    pub sequence: u64,
    pub revision: u16,
    pub completed_at: i64,
    pub received_at: i64,
    pub bin: String,
    pub network: u16,
    pub acquirer: String,
    pub trace_number: u32,
    pub batch_number: u32,
    pub retrieval_reference: String,
    pub stage: u16,
    pub response_code: String,
    pub response_spec: String,
    pub result: u16,
    pub terminal_condition: u16,
    pub attempt: u16,
    pub tvr: u64,
    pub status_words: Vec<u16>,
    pub fallback: bool,
    pub dns_ms: u32,
    pub connect_ms: u32,
    pub tls_ms: u32,
    pub wait_ms: u32,
    pub reader_reads: u32,
    pub reader_failures: u32,
    pub reader_failed_sales: u32,
    pub reader_consecutive_failures: u32,
    pub reader_next_good_read_ms: u64,
    pub signal_dbm: i16,
    pub money_outcome: u16,
    pub tag: String,
    pub cause: i8,
    pub reason: String,
    pub confidence: u8,
    pub rule_set: String,
    pub issuer: String,
    pub issuer_map: String,
}

impl Standing {
    fn name(&self) -> (&str, u64, u64) {
        (&self.terminal, self.spool, self.sequence)
    }

    /// What its terminal reported, as far as verdicts need it.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        Outcome {
            bin: self.bin.clone(),
            network: self.network.into(),
            acquirer_id: self.acquirer.clone(),
            stage: self.stage.into(),
            response_code: self.response_code.clone(),
            response_spec: self.response_spec.clone(),
            result: self.result.into(),
            terminal_condition: self.terminal_condition.into(),
            money_outcome: self.money_outcome.into(),
            attempt: self.attempt.into(),
            emv: Some(self.emv()),
            latencies: Some(self.latencies()),
            reader_history: Some(self.reader_history()),
            signal_dbm: (self.signal_dbm != 0).then_some(self.signal_dbm.into()),
            ..Outcome::default()
        }
    }

    fn emv(&self) -> EmvEvidence {
        // Five bytes in a number; none are zero.
        let bytes = self.tvr.to_be_bytes();
        let results = if self.tvr == 0 { &[] } else { bytes.get(3..).unwrap_or_default() };
        EmvEvidence {
            terminal_verification_results: results.to_vec().into(),
            status_words: self.status_words.iter().map(|word| (*word).into()).collect(),
            fallback: self.fallback,
        }
    }

    fn latencies(&self) -> StageLatencies {
        let measured = |ms: u32| (ms > 0).then_some(ms);
        StageLatencies {
            dns_ms: measured(self.dns_ms),
            connect_ms: measured(self.connect_ms),
            tls_ms: measured(self.tls_ms),
            wait_ms: measured(self.wait_ms),
            ..StageLatencies::default()
        }
    }

    fn reader_history(&self) -> ReaderHistory {
        ReaderHistory {
            reads: self.reader_reads,
            failures: self.reader_failures,
            failed_sales: self.reader_failed_sales,
            consecutive_failures: self.reader_consecutive_failures,
            next_good_read_ms: (self.reader_next_good_read_ms > 0).then_some(self.reader_next_good_read_ms),
        }
    }

    /// What can be corrected of it, as it is.
    #[must_use]
    pub fn columns(&self) -> CorrectedColumns {
        CorrectedColumns {
            tag: self.tag.clone(),
            cause: self.cause.into(),
            reason: self.reason.clone(),
            confidence: self.confidence.into(),
            rule_set: self.rule_set.clone(),
            issuer: self.issuer.clone(),
            issuer_map: self.issuer_map.clone(),
            money_outcome: self.money_outcome.into(),
        }
    }
}

/// What is to become of an outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// As it stands.
    pub standing: Standing,
    /// What its row is to say.
    pub columns: CorrectedColumns,
}

/// What stands of a tenant's time, in parts that are read one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Windows {
    /// The parts, by time of completion in milliseconds since 1970-01-01 UTC, in order; between them, nothing was completed.
    pub windows: Vec<Range<i64>>,
    /// How many outcomes there are, about.
    pub outcomes: u64,
}

/// Where it is kept what is about to be written.
pub trait Journal: Sync {
    /// Why something was not kept.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Keeps what a correction is now, in the place of what it was.
    fn write(&self, correction: &Correction) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Why a correction was left before its end. The steps that were made are whole, and the last is settled by whoever takes the journal over.
#[derive(Debug, thiserror::Error)]
pub enum CorrectionError<E: std::error::Error + 'static> {
    /// It could not be kept what was about to be written.
    #[error("it could not be written down what is corrected")]
    Journal(#[source] E),
    /// ClickHouse did not do what it was asked to.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A correction that is being made.
pub struct Corrector<'a, J> {
    database: &'a Database,
    journal: &'a J,
    correction: Correction,
    waiting: Vec<Change>,
}

impl<'a, J: Journal> Corrector<'a, J> {
    /// Begins a correction, or goes on with one whose steps are all whole. Nobody else may be making one: the journal sees to that.
    ///
    /// # Errors
    /// When the journal does not take it.
    pub async fn begin(database: &'a Database, journal: &'a J, correction: Correction) -> Result<Self, CorrectionError<J::Error>> {
        let mut corrector = Corrector { database, journal, correction, waiting: Vec::new() };
        corrector.write(CorrectionState::Open).await?;
        Ok(corrector)
    }

    /// What it has come to.
    pub fn correction(&self) -> &Correction {
        &self.correction
    }

    /// Corrects outcomes, now or with others that follow.
    ///
    /// # Errors
    /// When the journal or the store does not take a step.
    pub async fn add(&mut self, changes: impl IntoIterator<Item = Change>) -> Result<(), CorrectionError<J::Error>> {
        for change in changes {
            self.waiting.push(change);
            if self.waiting.len() >= LARGEST_STEP {
                self.make().await?;
            }
        }
        Ok(())
    }

    /// Says that it goes on, so that nobody takes it for left.
    ///
    /// # Errors
    /// When the journal does not take it, most of all because another has taken over.
    pub async fn breathe(&mut self) -> Result<(), CorrectionError<J::Error>> {
        self.write(CorrectionState::Open).await
    }

    /// Corrects what still waits, and ends in this state.
    ///
    /// # Errors
    /// As [`Corrector::add`].
    pub async fn end(mut self, state: CorrectionState) -> Result<Correction, CorrectionError<J::Error>> {
        if !self.waiting.is_empty() {
            self.make().await?;
        }
        self.write(state).await?;
        Ok(self.correction)
    }

    /// Makes a step of what waits.
    async fn make(&mut self) -> Result<(), CorrectionError<J::Error>> {
        let changes = std::mem::take(&mut self.waiting);
        tally(&mut self.correction.changes, &changes);
        self.correction.step = Some(step(self.correction.next_step, &changes));
        self.correction.next_step += 1;
        let since = Instant::now();
        self.write(CorrectionState::Open).await?;
        let mut made = self.database.correct(&self.correction, since).await;
        for attempt in 1..=SETTLEMENTS {
            if made.is_ok() {
                break;
            }
            sleep(PAUSE * 2_u32.pow(attempt)).await;
            made = self.database.settle_correction(&self.correction).await.map(|_| ());
        }
        made?;
        self.correction.step = None;
        Ok(())
    }

    async fn write(&mut self, state: CorrectionState) -> Result<(), CorrectionError<J::Error>> {
        self.correction.set_state(state);
        self.correction.update_time = Some(SystemTime::now().into());
        self.journal.write(&self.correction).await.map_err(CorrectionError::Journal)
    }
}

/// Adds up what becomes of what.
pub fn tally(totals: &mut Vec<VerdictChange>, changes: &[Change]) {
    for Change { standing, columns } in changes {
        let before = CorrectedVerdict { cause: standing.cause.into(), reason: standing.reason.clone() };
        let after = CorrectedVerdict { cause: columns.cause, reason: columns.reason.clone() };
        let same = |known: &&mut VerdictChange| known.before.as_ref() == Some(&before) && known.after.as_ref() == Some(&after);
        match totals.iter_mut().find(same) {
            Some(known) => known.count += 1,
            None => totals.push(VerdictChange { before: Some(before), after: Some(after), count: 1 }),
        }
    }
}

impl Database {
    /// The time of a tenant in which something was completed, by what is counted of it.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn windows(&self, tenant: &str, time: Range<u32>) -> Result<Windows, StoreError> {
        #[derive(Row, Deserialize)]
        struct Bucket {
            begin: u32,
            outcomes: u64,
        }
        let sql = format!(
            "SELECT toUnixTimestamp(bucket) AS begin, toUInt64(greatest(sum(count), 0)) AS outcomes FROM rollup \
             WHERE tenant = ? AND family = '{FLEET}' AND {} AND NOT simulated GROUP BY bucket HAVING outcomes > 0 ORDER BY bucket",
            of_time(&(time.start - time.start % BUCKET_S..time.end))
        );
        let query = self.asking().query(&sql).bind(tenant);
        let buckets = self.answer("say when something was completed", QUESTION_TIMEOUT, query.fetch_all::<Bucket>()).await?;
        let mut windows = Windows::default();
        let mut room = 0;
        for Bucket { begin, outcomes } in buckets {
            let of_bucket = i64::from(begin.max(time.start)) * 1000..i64::from((begin + BUCKET_S).min(time.end)) * 1000;
            match windows.windows.last_mut() {
                Some(last) if room >= outcomes && last.end == of_bucket.start => {
                    last.end = of_bucket.end;
                    room -= outcomes;
                }
                _ => {
                    windows.windows.push(of_bucket);
                    room = WINDOW.saturating_sub(outcomes);
                }
            }
            windows.outcomes += outcomes;
        }
        Ok(windows)
    }

    /// The outcomes of a tenant that were completed within a time, in milliseconds since 1970-01-01 UTC, as they stand.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn standing(&self, tenant: &str, time: &Range<i64>) -> Result<Vec<Standing>, StoreError> {
        let sql = "SELECT ?fields FROM outcomes WHERE tenant = ? AND completed_at >= fromUnixTimestamp64Milli(?) \
                   AND completed_at < fromUnixTimestamp64Milli(?) AND sign = 1 \
                   ORDER BY terminal, spool, sequence, revision DESC LIMIT 1 BY terminal, spool, sequence";
        let query = self.asking().query(sql).bind(tenant).bind(time.start).bind(time.end);
        self.answer("say which outcomes there are", QUESTION_TIMEOUT, query.fetch_all::<Standing>()).await
    }

    /// What would take a correction back, of the outcomes that were completed within a time, in milliseconds since 1970-01-01 UTC: those that stand as
    /// it made them, and what they were before. What was corrected again since then, and not taken back, is left as it is.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn undoing(&self, correction: &Correction, time: &Range<i64>) -> Result<Vec<Change>, StoreError> {
        let of_time = "tenant = ? AND completed_at >= fromUnixTimestamp64Milli(?) AND completed_at < fromUnixTimestamp64Milli(?)";
        let (tenant, id) = (&correction.tenant, &correction.correction_id);
        let ask = async |sql: &str| {
            let query = self.asking().query(sql).bind(tenant).bind(time.start).bind(time.end);
            let query = query.bind(tenant).bind(time.start).bind(time.end).bind(id);
            self.answer("say what was corrected", QUESTION_TIMEOUT, query.fetch_all::<Standing>()).await
        };
        let of_correction = format!("SELECT terminal, spool, sequence, revision FROM outcomes WHERE {of_time} AND kafka_log = ?");
        let now = format!(
            "SELECT ?fields FROM outcomes WHERE {of_time} AND sign = 1 AND (terminal, spool, sequence) IN \
             (SELECT terminal, spool, sequence FROM ({of_correction})) ORDER BY revision DESC LIMIT 1 BY terminal, spool, sequence"
        );
        let made = |sign: i8| {
            format!(
                "SELECT ?fields FROM outcomes WHERE {of_time} AND sign = {sign} AND (terminal, spool, sequence, revision) IN \
                 ({of_correction} AND sign = {sign})"
            )
        };
        let by_name = |standing: Vec<Standing>| -> HashMap<_, _> {
            standing.into_iter().map(|standing| ((standing.terminal.clone(), standing.spool, standing.sequence), standing)).collect()
        };
        let (made, mut before) = (by_name(ask(&made(1)).await?), by_name(ask(&made(-1)).await?));
        let stands =
            by_name(ask(&now).await?).into_iter().filter(|(name, now)| made.get(name).map(Standing::columns) == Some(now.columns()));
        let mut undoing: Vec<Change> = stands
            .filter_map(|(name, standing)| before.remove(&name).map(|before| Change { standing, columns: before.columns() }))
            .collect();
        undoing.sort_by(|one, other| one.standing.name().cmp(&other.standing.name()));
        Ok(undoing)
    }

    /// Writes the step of a correction, which nobody tried to write before. `since` is a moment at which it was certain that nobody else does so.
    ///
    /// # Errors
    /// When the server did not take all of it, as far as is known. Then it is not known what is stored: settle it.
    pub(crate) async fn correct(&self, correction: &Correction, since: Instant) -> Result<(), StoreError> {
        let Some(rows) = StepRows::of(correction)? else { return Ok(()) };
        let (id, all) = (rows.id(), (0..rows.places().count()).collect::<Vec<_>>());
        // Each has the outcomes of its own partitions, and corrects those.
        for shard in self.shards() {
            if since.elapsed() > CERTAIN_FOR {
                return self.settle_correction(correction).await.map(|_| ());
            }
            let attempt = Attempt { token: id.to_string(), deadline: shard.deadline(since, WANTED_AT_ONCE_S).await? };
            rows.insert(shard, &attempt, &all).await?;
            if since.elapsed() > CERTAIN_FOR {
                return self.settle_correction(correction).await.map(|_| ());
            }
            shard.keep_for_drilldown(&id, rows.within(), (0, since)).await?;
            if since.elapsed() > CERTAIN_FOR {
                return self.settle_correction(correction).await.map(|_| ());
            }
            shard.count_stored(&id, rows.within(), (0, since)).await?;
        }
        Ok(())
    }

    /// Writes and counts what of a correction's step is not yet, where it is not known what is: of one that somebody left, most of all.
    ///
    /// # Errors
    /// When the server did not answer, or refused something. Whatever was done is found the next time. When the step is none that Faultline makes
    /// ([`StoreError::Step`]): then nothing of it was ever made.
    pub async fn settle_correction(&self, correction: &Correction) -> Result<Settled, StoreError> {
        match StepRows::of(correction)? {
            Some(rows) => complete(self.shards(), &rows.id(), &rows).await,
            None => Ok(Settled::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_row_keeps_is_what_was_reported() {
        let row = Standing {
            attempt: 2,
            tvr: 0x10_8000,
            status_words: vec![0x9000, 0x6A82],
            fallback: true,
            connect_ms: 80,
            reader_reads: 30,
            reader_failures: 5,
            reader_failed_sales: 4,
            reader_consecutive_failures: 1,
            reader_next_good_read_ms: 42_000,
            signal_dbm: -113,
            ..Standing::default()
        };
        let expected = Outcome {
            attempt: 2,
            emv: Some(EmvEvidence {
                terminal_verification_results: vec![0, 0, 0x10, 0x80, 0].into(),
                status_words: vec![0x9000, 0x6A82],
                fallback: true,
            }),
            latencies: Some(StageLatencies { connect_ms: Some(80), ..StageLatencies::default() }),
            reader_history: Some(ReaderHistory {
                reads: 30,
                failures: 5,
                failed_sales: 4,
                consecutive_failures: 1,
                next_good_read_ms: Some(42_000),
            }),
            signal_dbm: Some(-113),
            ..Outcome::default()
        };
        assert_eq!(row.outcome(), expected);
        let nothing = Outcome {
            emv: Some(EmvEvidence::default()),
            latencies: Some(StageLatencies::default()),
            reader_history: Some(ReaderHistory::default()),
            ..Outcome::default()
        };
        assert_eq!(Standing::default().outcome(), nothing);
    }
}
