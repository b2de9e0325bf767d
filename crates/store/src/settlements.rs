//! What became of money of which it was not known: a later reversal or query tells.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use clickhouse::Row;
use faultline_proto::outcome::v1::{MoneyOutcome, TransactionType};
use serde::Deserialize;

use crate::corrections::{Change, Standing};
use crate::database::{Database, StoreError};

/// How long a question may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(60);
/// How long before it an attempt is searched where a reversal or query does not say when it was.
const LOOK_BACK_MS: i64 = 2 * 60 * 60 * 1000;
/// Longest time before it that is searched: no older outcomes are reported.
const FARTHEST_MS: i64 = 31 * 24 * 60 * 60 * 1000;
/// How much later than what follows it an attempt may be by the clocks.
const CLOCK_SLACK_MS: i64 = 10 * 60 * 1000;

/// A reversal or query that tells what became of an earlier attempt.
#[derive(Clone, Debug, PartialEq, Eq, Row, Deserialize)]
struct Follower {
    /// Terminal of the attempt.
    of_terminal: String,
    original_spool: u64,
    original_sequence: u64,
    original_trace_number: u32,
    original_batch_number: u32,
    original_retrieval_reference: String,
    original_completed_at: i64,
    completed_at: i64,
    /// Number of what became of the money.
    told: u16,
}

impl Database {
    /// Whose outcomes reversals and queries may settle that were received within a time, in milliseconds since 1970-01-01 UTC.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn told(&self, received: &Range<i64>) -> Result<Vec<String>, StoreError> {
        let sql = format!("SELECT DISTINCT tenant FROM outcomes WHERE {} ORDER BY tenant", tells());
        let asked = self.asking().query(&sql).bind(received.start).bind(received.end);
        self.answer("say whose attempts were reversed or asked about", QUESTION_TIMEOUT, asked.fetch_all::<String>()).await
    }

    /// What would settle outcomes of a tenant of which it was not known whether money moved, by the reversals and queries that were received within a time,
    /// in milliseconds since 1970-01-01 UTC: an approved reversal says that it did not, a query says what it was told. The latest of several has the word.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn settling(&self, tenant: &str, received: &Range<i64>) -> Result<Vec<Change>, StoreError> {
        let (reversal, query) = (i32::from(TransactionType::Reversal), i32::from(TransactionType::Query));
        let (not_moved, unknown) = (i32::from(MoneyOutcome::NotMoved), i32::from(MoneyOutcome::Unknown));
        let told = format!("tenant = ? AND {}", tells());
        let of_terminal = "if(original_terminal = '', terminal, original_terminal) AS of_terminal";
        let followers = format!(
            "SELECT {of_terminal}, original_spool, original_sequence, original_trace_number, original_batch_number, \
             original_retrieval_reference, original_completed_at, completed_at, toUInt16(if(type = {reversal}, {not_moved}, money_outcome)) AS told \
             FROM outcomes WHERE {told} ORDER BY completed_at, revision"
        );
        let asked = self.asking().query(&followers).bind(tenant).bind(received.start).bind(received.end);
        let followers =
            self.answer("say which attempts were reversed or asked about", QUESTION_TIMEOUT, asked.fetch_all::<Follower>()).await?;
        let Some((first, last)) = searched(&followers) else { return Ok(Vec::new()) };
        let of_time = "tenant = ? AND completed_at >= fromUnixTimestamp64Milli(?) AND completed_at <= fromUnixTimestamp64Milli(?)";
        let sql = format!(
            "SELECT ?fields FROM outcomes WHERE {of_time} AND sign = 1 AND (terminal, spool, sequence) IN \
             (SELECT terminal, spool, sequence FROM outcomes WHERE {of_time} AND money_outcome = {unknown} AND revision = 0 \
              AND type NOT IN ({reversal}, {query}) AND terminal IN (SELECT {of_terminal} FROM outcomes WHERE {told})) \
             ORDER BY revision DESC LIMIT 1 BY terminal, spool, sequence"
        );
        let asked = self.asking().query(&sql).bind(tenant).bind(first).bind(last).bind(tenant).bind(first).bind(last);
        let asked = asked.bind(tenant).bind(received.start).bind(received.end);
        let doubtful = self.answer("say which attempts are in doubt", QUESTION_TIMEOUT, asked.fetch_all::<Standing>()).await?;
        Ok(settled(&followers, doubtful))
    }
}

/// Outcomes of which it is not known whether money moved, and has not been for long.
#[derive(Clone, Debug, PartialEq, Eq, Row, Deserialize)]
pub struct Unsettled {
    /// Whose outcomes.
    pub tenant: String,
    /// How many.
    pub outcomes: u64,
}

impl Database {
    /// By tenant, outcomes that were completed within a time, in milliseconds since 1970-01-01 UTC, and of which it is still not known whether money moved.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn unsettled(&self, time: &Range<i64>) -> Result<Vec<Unsettled>, StoreError> {
        let (reversal, query) = (i32::from(TransactionType::Reversal), i32::from(TransactionType::Query));
        let unknown = i32::from(MoneyOutcome::Unknown);
        let sql = format!(
            "SELECT tenant, toUInt64(greatest(sum(sign), 0)) AS outcomes FROM outcomes WHERE completed_at >= fromUnixTimestamp64Milli(?) \
             AND completed_at < fromUnixTimestamp64Milli(?) AND money_outcome = {unknown} AND type NOT IN ({reversal}, {query}) GROUP BY tenant ORDER BY tenant"
        );
        let asked = self.asking().query(&sql).bind(time.start).bind(time.end);
        self.answer("say which money is in doubt", QUESTION_TIMEOUT, asked.fetch_all::<Unsettled>()).await
    }
}

/// A condition in SQL, with two places for the time in which it was received: that an outcome tells what became of another.
fn tells() -> String {
    let (reversal, query) = (i32::from(TransactionType::Reversal), i32::from(TransactionType::Query));
    let (moved, not_moved) = (i32::from(MoneyOutcome::Moved), i32::from(MoneyOutcome::NotMoved));
    format!(
        "received_at >= fromUnixTimestamp64Milli(?) AND received_at < fromUnixTimestamp64Milli(?) AND sign = 1 AND \
         (type = {reversal} AND cause = 'approved' OR type = {query} AND money_outcome IN ({moved}, {not_moved}))"
    )
}

/// When the attempts were completed that are searched.
fn searched(followers: &[Follower]) -> Option<(i64, i64)> {
    let begin = |follower: &Follower| match follower.original_completed_at {
        0 => follower.completed_at - LOOK_BACK_MS,
        known => (known - CLOCK_SLACK_MS).max(follower.completed_at - FARTHEST_MS),
    };
    let (first, last) = (followers.iter().map(begin).min()?, followers.iter().map(|follower| follower.completed_at).max()?);
    Some((first, last + CLOCK_SLACK_MS))
}

/// What becomes of attempts in doubt by what is told of them, in the order of time.
fn settled(followers: &[Follower], doubtful: Vec<Standing>) -> Vec<Change> {
    let mut told: Vec<Option<u16>> = vec![None; doubtful.len()];
    let mut by_name: HashMap<(&str, u64, u64), usize> = HashMap::new();
    let mut by_reference: HashMap<(&str, &str), Vec<usize>> = HashMap::new();
    let mut by_trace: HashMap<(&str, u32, u32), Vec<usize>> = HashMap::new();
    for (place, standing) in doubtful.iter().enumerate() {
        by_name.insert((&standing.terminal, standing.spool, standing.sequence), place);
        if !standing.retrieval_reference.is_empty() {
            by_reference.entry((&standing.terminal, &standing.retrieval_reference)).or_default().push(place);
        }
        if standing.trace_number > 0 {
            by_trace.entry((&standing.terminal, standing.trace_number, standing.batch_number)).or_default().push(place);
        }
    }
    for follower in followers {
        let terminal = follower.of_terminal.as_str();
        // Numbers come round again: it is the last before it.
        let last_before = |places: &Vec<usize>| {
            let before = |place: &&usize| {
                doubtful.get(**place).is_some_and(|standing| standing.completed_at <= follower.completed_at + CLOCK_SLACK_MS)
            };
            places.iter().filter(before).max_by_key(|place| doubtful.get(**place).map(|standing| standing.completed_at)).copied()
        };
        let found = if follower.original_sequence > 0 {
            by_name.get(&(terminal, follower.original_spool, follower.original_sequence)).copied()
        } else if !follower.original_retrieval_reference.is_empty() {
            by_reference.get(&(terminal, follower.original_retrieval_reference.as_str())).and_then(last_before)
        } else if follower.original_trace_number > 0 {
            by_trace.get(&(terminal, follower.original_trace_number, follower.original_batch_number)).and_then(last_before)
        } else {
            None
        };
        if let Some(known) = found.and_then(|place| told.get_mut(place)) {
            *known = Some(follower.told);
        }
    }
    let changes = doubtful.into_iter().zip(told).filter_map(|(standing, told)| {
        let told = told.filter(|told| *told != standing.money_outcome)?;
        let mut columns = standing.columns();
        columns.money_outcome = told.into();
        Some(Change { standing, columns })
    });
    changes.collect()
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;

    const MOVED: u16 = 1;
    const NOT_MOVED: u16 = 2;
    const UNKNOWN: u16 = 3;

    fn doubtful(sequence: u64, completed_at: i64) -> Standing {
        Standing {
            terminal: "T-1".into(),
            spool: 7,
            sequence,
            completed_at,
            trace_number: 55,
            batch_number: 1,
            retrieval_reference: format!("R{sequence}"),
            money_outcome: UNKNOWN,
            ..Standing::default()
        }
    }

    fn follower(told: u16, completed_at: i64) -> Follower {
        Follower {
            of_terminal: "T-1".into(),
            original_spool: 0,
            original_sequence: 0,
            original_trace_number: 0,
            original_batch_number: 0,
            original_retrieval_reference: String::new(),
            original_completed_at: 0,
            completed_at,
            told,
        }
    }

    /// By sequence, what is known of the money then.
    fn told(followers: &[Follower], doubtful: Vec<Standing>) -> Vec<(u64, u32)> {
        settled(followers, doubtful).iter().map(|change| (change.standing.sequence, change.columns.money_outcome)).collect()
    }

    #[test]
    fn an_attempt_is_found_by_whatever_names_it() {
        let both = || vec![doubtful(1, 1000), doubtful(2, 5_000_000)];
        let by_name = Follower { original_spool: 7, original_sequence: 2, ..follower(NOT_MOVED, 6_000_000) };
        assert_eq!(told(slice::from_ref(&by_name), both()), [(2, 2)]);
        assert_eq!(told(&[Follower { original_spool: 8, ..by_name.clone() }], both()), []);
        assert_eq!(told(&[Follower { of_terminal: "T-2".into(), ..by_name }], both()), []);
        let by_reference = Follower { original_retrieval_reference: "R1".into(), ..follower(MOVED, 6_000_000) };
        assert_eq!(told(&[by_reference], both()), [(1, 1)]);
        let by_trace = Follower { original_trace_number: 55, original_batch_number: 1, ..follower(NOT_MOVED, 6_000_000) };
        assert_eq!(told(slice::from_ref(&by_trace), both()), [(2, 2)]);
        assert_eq!(told(&[Follower { completed_at: 2000, ..by_trace.clone() }], both()), [(1, 2)]);
        assert_eq!(told(&[Follower { original_batch_number: 2, ..by_trace }], both()), []);
        assert_eq!(told(&[follower(MOVED, 6_000_000)], both()), []);
    }

    #[test]
    fn the_latest_word_holds_and_no_news_is_none() {
        let says = |told, at| Follower { original_spool: 7, original_sequence: 1, ..follower(told, at) };
        assert_eq!(told(&[says(MOVED, 2000), says(NOT_MOVED, 3000)], vec![doubtful(1, 1000)]), [(1, 2)]);
        let settled = Standing { money_outcome: NOT_MOVED, revision: 1, ..doubtful(1, 1000) };
        assert_eq!(told(&[says(NOT_MOVED, 3000)], vec![settled.clone()]), []);
        assert_eq!(told(&[says(NOT_MOVED, 3000), says(MOVED, 4000)], vec![settled]), [(1, 1)]);
    }

    #[test]
    fn it_is_searched_as_far_back_as_is_said() {
        let hour = 3_600_000;
        assert_eq!(searched(&[]), None);
        let near = follower(MOVED, 100 * hour);
        let far = Follower { original_completed_at: 20 * hour, ..follower(MOVED, 90 * hour) };
        assert_eq!(searched(slice::from_ref(&near)), Some((98 * hour, 100 * hour + CLOCK_SLACK_MS)));
        assert_eq!(searched(&[near, far]), Some((20 * hour - CLOCK_SLACK_MS, 100 * hour + CLOCK_SLACK_MS)));
        let absurd = Follower { original_completed_at: 1, ..follower(MOVED, 10_000 * hour) };
        assert_eq!(searched(&[absurd]), Some((10_000 * hour - FARTHEST_MS, 10_000 * hour + CLOCK_SLACK_MS)));
    }
}
