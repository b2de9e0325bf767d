//! What is answered about incidents.

use faultline_store as store;
use faultline_store::{IncidentRow, Slice};
use serde::Serialize;
use utoipa::ToSchema;

use crate::answer::{Text, Time};
use crate::question::{CauseName, StateName};

/// Incidents.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Incidents {
    /// The one that was opened last comes first.
    pub(crate) incidents: Vec<Incident>,
}

/// A fault of a part of the fleet, as it stands.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Incident {
    /// Unique within the tenant.
    incident_id: String,
    /// Rises with every change.
    revision: u32,
    /// How it stands.
    state: StateName,
    /// Whose fault it is.
    cause: CauseName,
    /// What fails: `fleet`, or values such as `issuer=icbc&entry_mode=chip`.
    slice: String,
    /// The same, value by value.
    values: Vec<SliceValue>,
    /// Whether the slice is counted by itself, so that its counts can be asked for.
    is_counted: bool,
    /// Beginning of the first ten seconds that show it.
    begin_time: Time,
    /// End of the ten seconds that convinced.
    open_time: Time,
    /// End of the last ten seconds that were taken in.
    update_time: Time,
    /// When it was closed or abandoned; nothing while it is followed.
    close_time: Option<Time>,
    /// What shows it, the first of them first: classes of failures, or `missing_approvals`.
    signals: Vec<String>,
    /// The numbers of the first signal.
    evidence: Evidence,
    /// The numbers that opened it; nothing where they were not kept.
    opening: Option<Opening>,
    /// What its failures have in common, as far as rows tell; nothing where that is not known.
    explanation: Option<Explanation>,
    /// What is the matter, in a sentence.
    summary: Text,
}

/// The numbers that opened an incident.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Opening {
    /// Beginning of the first ten seconds that show it.
    from_time: Time,
    /// End of the ten seconds that convinced.
    until_time: Time,
    /// The numbers of the first signal in that time.
    evidence: Evidence,
}

/// The finest slice that explains the failures of an incident, and whom it affects. All numbers are of the slice in the time that was looked at.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Explanation {
    /// Class of the failures.
    signal: String,
    /// Beginning of the time that was looked at.
    from_time: Time,
    /// End of that time.
    until_time: Time,
    /// The slice: that of the incident, or part of it.
    slice: String,
    /// The same, value by value.
    values: Vec<SliceValue>,
    /// How much likelier the failures are if the slice failed than if nothing did, less what its name costs: the logarithm of the ratio.
    #[schema(minimum = 0.0)]
    score_nats: f64,
    /// Share of all failures of the class that are in it.
    #[schema(minimum = 0.0, maximum = 1.0)]
    contribution: f64,
    /// How many times as often as elsewhere an attempt fails in it; nothing where nothing fails elsewhere.
    #[schema(minimum = 0.0)]
    relative_risk: Option<f64>,
    /// Slices that may be meant instead, the best first.
    alternatives: Vec<Alternative>,
    /// Attempts in it; estimated, where `sampled_one_in` is above 1.
    attempts: u64,
    /// Of these, how many failed so.
    failed: u64,
    /// Merchants that had one of these.
    merchants: u64,
    /// Terminals that had one.
    terminals: u64,
    /// Transactions that had one.
    transactions: u64,
    /// By currency, what was to be paid by these transactions.
    amounts: Vec<Amount>,
    /// Attempts that did not fail so were counted from one row in so many.
    #[schema(minimum = 1)]
    sampled_one_in: u32,
    /// A query of ClickHouse that shows the numbers.
    query: String,
    /// Parts of the incident's slice that fail at once, each for itself; none where it is one that fails.
    parts: Vec<Part>,
}

/// One of several parts of an incident's slice that fail.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Part {
    /// The part.
    slice: String,
    /// The same, value by value.
    values: Vec<SliceValue>,
    /// As the score of the slice that is named, beside the other parts.
    #[schema(minimum = 0.0)]
    score_nats: f64,
    /// Attempts in it; estimated, as those of the explanation.
    attempts: u64,
    /// Of these, how many failed so.
    failed: u64,
}

/// A slice that may be meant instead of another.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Alternative {
    /// The slice.
    slice: String,
    /// The same, value by value.
    values: Vec<SliceValue>,
    /// As the score of the slice that is named.
    #[schema(minimum = 0.0)]
    score_nats: f64,
}

/// Money of one currency.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Amount {
    /// ISO 4217, as outcomes say it.
    currency: String,
    /// In minor units.
    minor: i64,
}

/// One of the values that narrow a slice.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SliceValue {
    /// What it is a value of: `issuer`.
    dimension: &'static str,
    /// The value; empty where outcomes do not say it.
    value: String,
}

/// The numbers that show an incident.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Evidence {
    /// Attempts in the slice while the fault lasted.
    attempts: u64,
    /// Of these, how many failed so; of missing approvals, how many there were.
    counted: u64,
    /// How many would have been usual.
    #[schema(minimum = 0.0)]
    expected: f64,
    /// How much likelier the counts that opened it are under a fault than without one: the logarithm of the ratio.
    #[schema(minimum = 0.0)]
    nats: f64,
}

/// An incident with what became of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct IncidentHistory {
    /// As it stands.
    #[serde(flatten)]
    pub(crate) incident: Incident,
    /// Its last 200 revisions, in their order.
    pub(crate) revisions: Vec<Revision>,
}

/// An incident as it stood.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Revision {
    /// Its number.
    revision: u32,
    /// How it stood.
    state: StateName,
    /// What failed.
    slice: String,
    /// What showed it.
    signals: Vec<String>,
    /// The numbers of the first signal.
    evidence: Evidence,
    /// End of the last ten seconds that were taken in.
    update_time: Time,
    /// What was the matter, in a sentence.
    summary: Text,
}

impl From<&IncidentRow> for Evidence {
    fn from(row: &IncidentRow) -> Evidence {
        Evidence { attempts: row.attempts, counted: row.counted, expected: row.expected, nats: row.evidence }
    }
}

impl From<store::Opening> for Opening {
    fn from(opening: store::Opening) -> Opening {
        let store::Opening { from, until, attempts, counted, expected, evidence_nats: nats } = opening;
        let evidence = Evidence { attempts, counted, expected, nats };
        Opening { from_time: Time::of_second(from), until_time: Time::of_second(until), evidence }
    }
}

impl From<store::Finding> for Explanation {
    fn from(finding: store::Finding) -> Explanation {
        let alternative = |other: store::Alternative| Alternative {
            values: slice_values(&other.slice),
            slice: other.slice,
            score_nats: other.score_nats,
        };
        let amount = |money: store::Money| Amount { currency: money.currency, minor: money.minor };
        Explanation {
            signal: finding.signal,
            from_time: Time::of_second(finding.from),
            until_time: Time::of_second(finding.until),
            values: slice_values(&finding.slice),
            slice: finding.slice,
            score_nats: finding.score_nats,
            contribution: finding.contribution,
            relative_risk: finding.relative_risk,
            alternatives: finding.alternatives.into_iter().map(alternative).collect(),
            attempts: finding.attempts,
            failed: finding.failed,
            merchants: finding.merchants,
            terminals: finding.terminals,
            transactions: finding.transactions,
            amounts: finding.amounts.into_iter().map(amount).collect(),
            sampled_one_in: finding.sampled_one_in,
            query: finding.query,
            parts: finding.parts.into_iter().map(Part::from).collect(),
        }
    }
}

impl From<store::Part> for Part {
    fn from(part: store::Part) -> Part {
        let store::Part { slice, score_nats, attempts, failed } = part;
        Part { values: slice_values(&slice), slice, score_nats, attempts, failed }
    }
}

/// What narrows a slice, value by value.
fn slice_values(slice: &str) -> Vec<SliceValue> {
    let value = |(dimension, value): (_, &str)| SliceValue { dimension, value: value.into() };
    slice.parse::<Slice>().iter().flat_map(Slice::values).map(value).collect()
}

impl From<&IncidentRow> for Incident {
    fn from(row: &IncidentRow) -> Incident {
        let slice = row.slice.parse::<Slice>().ok();
        let store::Findings { opening, explanation } = row.findings();
        Incident {
            incident_id: row.incident.clone(),
            revision: row.revision,
            state: row.state().into(),
            cause: row.cause().into(),
            slice: row.slice.clone(),
            values: slice_values(&row.slice),
            is_counted: slice.as_ref().is_some_and(|slice| slice.counted().is_some()),
            begin_time: Time::of_second(row.began),
            open_time: Time::of_second(row.opened),
            update_time: Time::of_second(row.updated),
            close_time: row.is_closed().then(|| Time::of_second(row.closed)),
            signals: row.signals.clone(),
            evidence: row.into(),
            opening: opening.map(Into::into),
            explanation: explanation.map(Into::into),
            summary: summary(row),
        }
    }
}

impl From<&IncidentRow> for Revision {
    fn from(row: &IncidentRow) -> Revision {
        Revision {
            revision: row.revision,
            state: row.state().into(),
            slice: row.slice.clone(),
            signals: row.signals.clone(),
            evidence: row.into(),
            update_time: Time::of_second(row.updated),
            summary: summary(row),
        }
    }
}

fn summary(row: &IncidentRow) -> Text {
    Text { zh_cn: row.summary_zh_cn.clone(), en: row.summary_en.clone() }
}
