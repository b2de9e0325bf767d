//! What attribution asks: the failures that one outcome leaves open, how many attempts the parts of the fleet had meanwhile, and what became of those failures.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use clickhouse::{Row, RowOwned, RowRead};
use faultline_proto::outcome::v1::TransactionType;
use serde::Deserialize;

use crate::corrections::Standing;
use crate::database::{Database, StoreError};
use crate::families::of_time;

/// How long a question may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(120);
/// Families whose counts are kept: their attempts need not be counted in rows.
const KEPT: &str = "'fleet', 'issuer', 'carrier', 'carrier_region', 'host', 'model_firmware', 'region'";

/// A failure that is open by its first verdict.
#[derive(Clone, Debug, PartialEq, Row, Deserialize)]
#[expect(missing_docs, reason = "the schema documents its columns")]
pub struct OpenFailure {
    pub terminal: String,
    pub spool: u64,
    pub sequence: u64,
    pub completed_at: i64,
    pub first_attempt_sequence: u64,
    pub merchant: String,
    pub store: String,
    pub issuer: String,
    pub bin: String,
    pub card_token: u32,
    pub card_token_key: u32,
    pub carrier: String,
    pub region: String,
    pub model: String,
    pub firmware: String,
    pub application: String,
    pub acquirer: String,
    pub host: String,
    pub route: String,
    pub response_code: String,
    pub rule_set: String,
    pub reason: String,
    pub confidence: u8,
}

/// Attempts of a part of the fleet in ten seconds.
#[derive(Clone, Debug, PartialEq, Eq, Row, Deserialize)]
pub struct Tried {
    /// How the fleet is cut: `issuer`, `carrier_region`.
    pub family: String,
    /// The value, or two joined by `|`.
    pub part: String,
    /// When the ten seconds began, in seconds since 1970-01-01 UTC.
    pub at: u32,
    /// How many.
    pub attempts: u64,
}

/// What was said of one outcome, first to last.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// As it was judged when it came.
    pub first: Standing,
    /// As it stands.
    pub last: Standing,
    /// The corrections that it went through.
    pub corrections: Vec<String>,
}

/// A row that a correction made.
#[derive(Clone, Debug, Row, Deserialize)]
struct Made {
    terminal: String,
    spool: u64,
    sequence: u64,
    /// The correction.
    kafka_log: String,
}

/// A time of a tenant, in milliseconds since 1970-01-01 UTC, and the reasons that leave open whose fault it is.
#[derive(Clone, Copy, Debug)]
pub struct Open<'a> {
    /// The tenant.
    pub tenant: &'a str,
    /// When outcomes were completed.
    pub time: &'a Range<i64>,
    /// Reasons of first verdicts.
    pub reasons: &'a [String],
}

impl Database {
    /// Gives the failures that are open by their first verdicts, one after the other. Reversals and queries are none.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn open_failures(&self, open: Open<'_>, take: impl FnMut(OpenFailure)) -> Result<(), StoreError> {
        let sql = format!("SELECT ?fields FROM outcomes WHERE {}", open_ones());
        self.each("say which failures are open", self.bound(&sql, open, 1), take).await
    }

    /// How many failures are open by their first verdicts: the beginnings of five minutes, in milliseconds since 1970-01-01 UTC, with how many; the latest first.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn open_counts(&self, open: Open<'_>) -> Result<Vec<(i64, u64)>, StoreError> {
        let sql = format!(
            "SELECT toInt64(toUnixTimestamp(toStartOfFiveMinutes(completed_at))) * 1000 AS begin, count() AS failures FROM outcomes WHERE {} \
             GROUP BY begin ORDER BY begin DESC",
            open_ones()
        );
        let asked = self.bound(&sql, open, 1).fetch_all::<(i64, u64)>();
        self.answer("say how many failures are open", QUESTION_TIMEOUT, asked).await
    }

    /// Gives how many attempts the parts of the fleet had, as far as failures of such reasons are to be compared: of shops, terminals and cards, those that have two.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn tried(&self, open: Open<'_>, mut take: impl FnMut(Tried)) -> Result<(), StoreError> {
        let kept = format!(
            "SELECT family, key AS part, toUnixTimestamp(bucket) AS at, toUInt64(greatest(sum(count), 0)) AS attempts FROM rollup \
             WHERE tenant = ? AND {} AND family IN ({KEPT}) \
             AND NOT simulated GROUP BY family, key, bucket ORDER BY bucket",
            of_time(&(second(open.time.start)..second(open.time.end)))
        );
        let kept = self.asking().query(&kept).bind(open.tenant);
        self.each("say how many attempts there were", kept, &mut take).await?;
        let is_attempt = attempts();
        let step = "toUnixTimestamp(toStartOfInterval(completed_at, INTERVAL 10 SECOND)) AS at, count() AS attempts";
        let parts = "[('bin', bin), ('application', application), ('acquirer', acquirer), ('route', if(route = '', '', concat(acquirer, '|', route)))]";
        let others = format!(
            "SELECT named.1 AS family, named.2 AS part, at, sum(some) AS attempts FROM \
             (SELECT bin, application, acquirer, route, toStartOfInterval(completed_at, INTERVAL 10 SECOND) AS step, toUnixTimestamp(step) AS at, count() AS some \
              FROM outcomes WHERE {is_attempt} GROUP BY bin, application, acquirer, route, step) \
             ARRAY JOIN {parts} AS named WHERE part != '' GROUP BY family, part, at ORDER BY at"
        );
        self.each("say how many attempts there were by what is not kept", self.bound_time(&others, open, 1), &mut take).await?;
        for (family, key, part) in [
            ("terminal", "terminal", "terminal"),
            ("shop", "(merchant, store)", "if(store = '', merchant, concat(merchant, '|', store))"),
            ("card", "(card_token_key, card_token)", "concat(toString(card_token_key), '|', toString(card_token))"),
        ] {
            // The same card comes to terminals of several shards.
            let (within, known) = if family == "card" { ("GLOBAL IN", " AND card_token_key > 0") } else { ("IN", "") };
            let sql = format!(
                "SELECT '{family}' AS family, {part} AS part, {step} FROM outcomes WHERE {is_attempt}{known} AND {key} {within} \
                 (SELECT {key} FROM outcomes WHERE {}{known} GROUP BY {key} HAVING count() > 1) GROUP BY part, at ORDER BY at",
                open_ones()
            );
            let asked = self.bound(&sql, open, 2);
            self.each("say how many attempts its parts had that failed", asked, &mut take).await?;
        }
        Ok(())
    }

    /// What was said of the failures that are open by their first verdicts.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn histories(&self, open: Open<'_>) -> Result<Vec<History>, StoreError> {
        let said = |which: &str| {
            let sql = format!(
                "SELECT ?fields FROM outcomes WHERE tenant = ? AND completed_at >= fromUnixTimestamp64Milli(?) AND completed_at < fromUnixTimestamp64Milli(?) \
                 AND sign = 1{which} AND (terminal, spool, sequence) IN (SELECT terminal, spool, sequence FROM outcomes WHERE {}) ORDER BY revision",
                open_ones()
            );
            self.bound(&sql, open, 2)
        };
        let mut histories: BTreeMap<(String, u64, u64), History> = BTreeMap::new();
        self.each("say what was said of open failures", said(""), |standing: Standing| {
            let name = (standing.terminal.clone(), standing.spool, standing.sequence);
            let history = histories.entry(name).or_insert_with(|| History {
                first: standing.clone(),
                last: standing.clone(),
                corrections: Vec::new(),
            });
            history.last = standing;
        })
        .await?;
        self.each("say by which corrections", said(" AND revision > 0"), |Made { terminal, spool, sequence, kafka_log }: Made| {
            if let Some(history) = histories.get_mut(&(terminal, spool, sequence)) {
                history.corrections.push(kafka_log);
            }
        })
        .await?;
        Ok(histories.into_values().collect())
    }

    /// A question about open failures, whose condition comes after others of the same time.
    fn bound(&self, sql: &str, open: Open<'_>, times: usize) -> clickhouse::query::Query {
        self.bound_time(sql, open, times).bind(open.reasons)
    }

    fn bound_time(&self, sql: &str, open: Open<'_>, times: usize) -> clickhouse::query::Query {
        (0..times).fold(self.asking().query(sql), |query, _| query.bind(open.tenant).bind(open.time.start).bind(open.time.end))
    }

    /// Gives the rows of an answer, one after the other.
    async fn each<T: RowOwned + RowRead>(
        &self,
        what: &str,
        query: clickhouse::query::Query,
        mut take: impl FnMut(T),
    ) -> Result<(), StoreError> {
        let reading = async {
            let mut rows = query.fetch::<T>()?;
            while let Some(row) = rows.next().await? {
                take(row);
            }
            Ok(())
        };
        self.answer(what, QUESTION_TIMEOUT, reading).await
    }
}

/// The first second that is not before a moment in milliseconds, both since 1970-01-01 UTC.
fn second(ms: i64) -> u32 {
    u32::try_from(ms.saturating_add(999).div_euclid(1000)).unwrap_or(if ms < 0 { 0 } else { u32::MAX })
}

/// Attempts at sales, as they were first judged.
fn attempts() -> String {
    let [reversal, query, settlement] = [TransactionType::Reversal, TransactionType::Query, TransactionType::Settlement].map(i32::from);
    format!(
        "tenant = ? AND completed_at >= fromUnixTimestamp64Milli(?) AND completed_at < fromUnixTimestamp64Milli(?) AND revision = 0 AND sign = 1 \
         AND type NOT IN ({reversal}, {query}, {settlement})"
    )
}

/// Those that are open by that.
fn open_ones() -> String {
    format!("{} AND reason IN ?", attempts())
}
