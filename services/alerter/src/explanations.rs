//! What explains incidents: looked for among rows when they are opened, and again while they last.
//!
//! ```text
//! an incident ─▶ what the families counted, then and before ─▶ rows that failed, and a sample of the others ─▶ the finest slice ─▶ whom it affects
//! ```
//!
//! Detection never waits for it longer than four seconds in ten, and an incident of which it did not succeed is told all the same, and explained later.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use faultline_detect::drilldown::{self, Cell, Margin, Margins, Tally};
use faultline_detect::{Class, Dimension, Incident, Signal, Slice, State};
use faultline_proto::incident::v1 as proto;
use faultline_runtime::error::with_causes;
use faultline_store::{Affected, CountedMargin, Database, DrillDown, Explained, FailedCell, StoreError, ToldApart, one_in};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use crate::tenant::{Tenant, slice};
use crate::{contract, counts};

/// How long it may take, for all incidents of ten seconds together.
pub(crate) const LIMIT: Duration = Duration::from_secs(4);
/// What is looked at of an incident that has lasted longer, in seconds; half of it, and half of that again, where ClickHouse does not answer in time, but not less than this.
const LOOK_S: u32 = 300;
const LEAST_LOOK_S: u32 = 30;
/// What is usual is what was counted in so many seconds before it, but for the last: a fault may have begun a little before it is seen. Of a fleet that is busy, as many as have so many attempts.
const BEFORE_S: (u32, u32) = (300, 1800);
const BEFORE_ATTEMPTS: f64 = 5e6;
const MARGIN_S: u32 = 60;
/// An incident is looked at again after so many seconds while it is as young as this, and less often later.
const YOUNG_S: u32 = 120;
const AGAIN_YOUNG_S: u32 = 30;
const AGAIN_S: u32 = 300;

/// Failures that are to be explained.
#[derive(Clone, Debug)]
pub(crate) struct Fault<'a> {
    /// Whose fleet it is.
    pub tenant: &'a str,
    /// The part of it that is known to fail.
    pub slice: &'a Slice,
    /// What it was called more finely the last time, if it was.
    pub former: Option<&'a Slice>,
    /// How attempts fail.
    pub class: Class,
    /// The share of attempts that usually do.
    pub usual: f64,
    /// A time before it that says what is usual, in seconds since 1970-01-01 UTC.
    pub before: Range<u32>,
    /// The time that is looked at, in such seconds.
    pub time: Range<u32>,
}

/// What was counted of all slices before failures of a class began.
#[derive(Clone, Debug, PartialEq)]
struct Before {
    class: Class,
    time: Range<u32>,
    counted: Vec<CountedMargin>,
}

/// What explains failures.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Findings {
    /// The finest slice that does.
    pub explained: drilldown::Explained,
    /// Whom it affects.
    pub affected: Affected,
    /// Of attempts that did not fail so, one in so many was looked at.
    pub sampled_one_in: u32,
    /// A query that shows the slice's numbers.
    pub query: String,
}

/// Drills down: looks for what failures have in common, and whom they affect. Nothing, where nothing failed. Takes as long as three questions to ClickHouse, two seconds each at most, and one more
/// where `before` does not hold yet what was counted before, or where it is called otherwise than the last time.
async fn drill_down(database: &Database, fault: &Fault<'_>, before: &mut Option<Before>) -> Result<Option<Findings>, StoreError> {
    let Ok(own) = fault.slice.to_string().parse() else { return Ok(None) };
    let drill = DrillDown { tenant: fault.tenant, slice: &own, class: fault.class.name(), time: fault.time.clone() };
    let (of_class, begin) = ((fault.tenant, drill.class), Instant::now());
    let before = match before.take().filter(|before| before.class == fault.class && before.time == fault.before) {
        Some(known) => before.insert(known),
        None => {
            let counted = database.margins(of_class, &fault.before).await?;
            before.insert(Before { class: fault.class, time: fault.before.clone(), counted })
        }
    };
    let margins = database.margins(of_class, &fault.time).await?;
    let is_own = |margin: &&CountedMargin| slice(&margin.family, &margin.key).as_ref() == Some(fault.slice);
    let attempts = margins.iter().find(is_own).map_or(0, |own| own.attempts);
    let margins = Margins::new(joined(&margins, &before.counted), fault.usual);
    let values = margins.told_apart(fault.slice).into_iter().map(|(dimension, values)| (dimension.name(), values));
    let told = ToldApart { values: values.collect(), one_in: one_in(attempts) };
    let counted = begin.elapsed();
    let cells = database.failed_cells(&drill, &told).await?;
    let (found, number) = (begin.elapsed(), cells.len());
    let cells: Vec<Cell> = cells.into_iter().map(|found| cell(found, told.one_in)).collect();
    let (incident, former) = (fault.slice.clone(), fault.former.cloned());
    let search = spawn_blocking(move || drilldown::explain(&cells, &margins, (&incident, former.as_ref())));
    // Mostly it is called as the last time, and whom that affects is asked for while the search goes on.
    let likely = fault.former.unwrap_or(fault.slice);
    let (explained, of_likely) = tokio::join!(search, affected(database, fault, likely));
    // It does not panic; if it were to, nothing would be explained.
    let Some(explained) = explained.ok().flatten() else { return Ok(None) };
    let searched = begin.elapsed();
    tracing::debug!(fault.tenant, %fault.slice, seconds = fault.time.len(), cells = number, told.one_in, ?counted, ?found, ?searched, "looked for what explains an incident");
    let affected = if explained.slice == *likely { of_likely? } else { affected(database, fault, &explained.slice).await? };
    Ok(affected.map(|(affected, query)| Findings { explained, affected, sampled_one_in: told.one_in, query }))
}

/// Whom failures of a fault in a slice affect, and a query that shows the slice's numbers.
async fn affected(database: &Database, fault: &Fault<'_>, slice: &Slice) -> Result<Option<(Affected, String)>, StoreError> {
    let Ok(slice) = slice.to_string().parse() else { return Ok(None) };
    let asked = Explained { tenant: fault.tenant, slice: &slice, failures: Some(fault.class.name()), time: fault.time.clone() };
    Ok(Some((database.affected(&asked).await?, asked.query())))
}

/// How much of the time before says what is usual in a fleet of this pace.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of seconds within an hour")]
fn before_s(pace: f64) -> u32 {
    ((BEFORE_ATTEMPTS / pace.max(1.0)).min(f64::from(BEFORE_S.1)) as u32).max(BEFORE_S.0)
}

/// What was counted now and before, by slice.
fn joined(now: &[CountedMargin], before: &[CountedMargin]) -> Vec<Margin> {
    let mut margins: BTreeMap<(&str, &str), [Tally; 2]> = BTreeMap::new();
    for (place, counted) in [now, before].into_iter().enumerate() {
        for CountedMargin { family, key, attempts, failed } in counted {
            if let Some(tally) = margins.entry((family, key)).or_default().get_mut(place) {
                *tally = Tally { attempts: real(*attempts), failed: real(*failed) };
            }
        }
    }
    let margin = |((family, key), [now, before]): ((&str, &str), [Tally; 2])| Some(Margin { slice: slice(family, key)?, now, before });
    margins.into_iter().filter_map(margin).collect()
}

fn cell(found: FailedCell, one_in: u32) -> Cell {
    let values = found.values.into_iter().filter_map(|(name, value)| Some((Dimension::named(name)?, value)));
    let failed = real(found.failed);
    Cell { at: Slice::new(values), tally: Tally { attempts: failed + real(found.others) * f64::from(one_in), failed } }
}

#[expect(clippy::cast_precision_loss, reason = "counts of some minutes")]
fn real(count: u64) -> f64 {
    count as f64
}

/// Which incidents were looked at, and when.
#[derive(Debug, Default)]
pub(crate) struct Explanations {
    /// By tenant and identifier.
    looked: BTreeMap<(String, String), Looked>,
}

/// How an incident was the last time.
#[derive(Clone, Debug, PartialEq)]
struct Looked {
    /// The end of the tick, in seconds since 1970-01-01 UTC.
    at: u32,
    slice: Slice,
    /// What it was called.
    explained: Option<Slice>,
    /// What there was before it, which does not change while it lasts.
    before: Option<Before>,
    /// How much of it is looked at, in seconds.
    look_s: u32,
}

impl Looked {
    /// One that was not looked at yet.
    fn never(incident: &Incident) -> Looked {
        Looked { at: 0, slice: incident.slice.clone(), explained: None, before: None, look_s: LOOK_S }
    }
}

impl Explanations {
    /// Looks at those of a tenant's incidents for which it is time, at `now` (the end of a tick, in seconds since 1970-01-01 UTC), the newest first, as long as there is time. Returns what
    /// explains them, by identifier.
    pub(crate) async fn look(
        &mut self,
        database: &Database,
        watched: &Tenant,
        (now, deadline): (u32, Instant),
    ) -> BTreeMap<String, proto::IncidentExplanation> {
        let tenant = watched.name();
        let by_identifier: BTreeMap<String, &Incident> =
            watched.open().iter().map(|incident| (contract::identifier(tenant, incident), incident)).collect();
        self.looked.retain(|(of, id), _| of != tenant || by_identifier.contains_key(id));
        let mut due: Vec<(String, &Incident)> =
            by_identifier.into_iter().filter(|(id, incident)| self.is_due(tenant, id, (incident, now))).collect();
        due.sort_by_key(|(_, incident)| std::cmp::Reverse(incident.opened));
        let mut explained = BTreeMap::new();
        for (id, incident) in due {
            let begin = Instant::now();
            if begin >= deadline {
                break;
            }
            let looked = self.looked.entry((tenant.to_owned(), id.clone())).or_insert_with(|| Looked::never(incident));
            let former = looked.explained.clone();
            let Some(fault) = fault((tenant, watched.pace()), incident, (former.as_ref(), now), looked.look_s) else { continue };
            let findings = timeout_at(deadline, drill_down(database, &fault, &mut looked.before)).await;
            counts::explained(begin.elapsed());
            match findings {
                Ok(Ok(findings)) => {
                    (looked.at, looked.slice) = (now, incident.slice.clone());
                    looked.look_s = (2 * looked.look_s).min(LOOK_S);
                    if let Some(findings) = findings {
                        looked.explained = Some(findings.explained.slice.clone());
                        explained.insert(id, contract::explanation(&fault, &findings));
                    }
                }
                Ok(Err(error)) => {
                    tracing::warn!(tenant, error = with_causes(&error), "what explains an incident is looked for another time");
                    (looked.at, looked.slice) = (now, incident.slice.clone());
                    looked.look_s = (looked.look_s / 2).max(LEAST_LOOK_S);
                }
                // What there was no time for is the next, and takes less.
                Err(_) => {
                    looked.look_s = (looked.look_s / 2).max(LEAST_LOOK_S);
                    break;
                }
            }
        }
        explained
    }

    /// Whether it is time to look at an incident.
    fn is_due(&self, tenant: &str, id: &str, (incident, now): (&Incident, u32)) -> bool {
        if incident.state != State::Open {
            return false;
        }
        let Some(looked) = self.looked.get(&(tenant.to_owned(), id.to_owned())) else { return true };
        let again = if now <= incident.opened + YOUNG_S { AGAIN_YOUNG_S } else { AGAIN_S };
        looked.slice != incident.slice || looked.at + again <= now
    }
}

/// What is to be explained of an incident: failures of the first class that shows it. Nothing, where only approvals are missing.
fn fault<'a>(
    (tenant, pace): (&'a str, f64),
    incident: &'a Incident,
    (former, now): (Option<&'a Slice>, u32),
    look_s: u32,
) -> Option<Fault<'a>> {
    let (class, watch) = incident.watches.iter().find_map(|watch| match watch.signal {
        Signal::Failures(class) => Some((class, watch)),
        Signal::MissingApprovals => None,
    })?;
    let until = incident.began.saturating_sub(MARGIN_S);
    Some(Fault {
        tenant,
        slice: &incident.slice,
        former,
        class,
        usual: watch.expected / real(watch.attempts.max(1)),
        before: until.saturating_sub(before_s(pace))..until,
        time: incident.began.max(now.saturating_sub(look_s))..now,
    })
}

#[cfg(test)]
mod tests {
    use faultline_detect::Watch;

    use super::*;

    fn incident() -> Incident {
        let mut failing = Watch::of(Signal::Failures(Class::IssuerDown));
        (failing.attempts, failing.expected) = (200, 1.0);
        let watches = vec![Watch::of(Signal::MissingApprovals), failing];
        Incident { slice: Slice::new([(Dimension::Issuer, "icbc")]), began: 1000, opened: 1020, watches, ..Incident::default() }
    }

    #[test]
    fn failures_of_the_last_minutes_are_explained() {
        let incident = incident();
        let fault = |now, look_s| fault(("acme", 50.0), &incident, (None, now), look_s).unwrap();
        assert_eq!((fault(1020, LOOK_S).time, fault(1020, LOOK_S).usual), (1000..1020, 0.005));
        assert_eq!((fault(5000, LOOK_S).time, fault(5000, 75).time), (4700..5000, 4925..5000));
        let silent = Incident { watches: vec![Watch::of(Signal::MissingApprovals)], ..incident.clone() };
        assert!(super::fault(("acme", 50.0), &silent, (None, 1020), LOOK_S).is_none());
    }

    #[test]
    fn of_a_busy_fleet_less_of_the_time_before_says_what_is_usual() {
        assert_eq!([0.0, 50.0, 10_000.0, 20_000.0, 1e6].map(before_s), [1800, 1800, 500, 300, 300]);
    }

    #[test]
    fn an_incident_is_looked_at_often_while_it_is_young_and_whenever_it_is_renamed() {
        let mut incident = incident();
        let mut explanations = Explanations::default();
        let key = ("acme".to_owned(), "a".to_owned());
        assert!(explanations.is_due("acme", "a", (&incident, 1020)));
        let mut times = Vec::new();
        for now in (1020..2200).step_by(10) {
            if explanations.is_due("acme", "a", (&incident, now)) {
                times.push(now - 1020);
                explanations.looked.insert(key.clone(), Looked { at: now, ..Looked::never(&incident) });
            }
        }
        assert_eq!(times, [0, 30, 60, 90, 120, 420, 720, 1020]);
        incident.slice = Slice::fleet();
        assert!(explanations.is_due("acme", "a", (&incident, 2200)));
        incident.state = State::Unobserved;
        assert!(!explanations.is_due("acme", "a", (&incident, 2200)));
    }
}
