//! How right incidents are, beside labelled faults: by the rule of the yardstick's scorer.
//!
//! A fault and an incident match one to one: the incident opens from the fault's start to a minute after its end, and their slices are nested, or share
//! a value; exact slices come first. Any other incident is a duplicate, where a fault is near that is related to it, or false. The oracle says which
//! faults could be seen at all, and how fast.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::path::Path;

use crate::field::{ReadError, Table};
use crate::found::Found;
use crate::yardstick::slice_text;

/// An incident may open this long after the end of a fault, in seconds.
const GRACE_S: f64 = 60.0;
/// A fault is near for so long after its end, in seconds.
const NEAR_S: f64 = 600.0;

/// A labelled fault, or something that is none. Times are in seconds since 1970-01-01 UTC.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Its number.
    pub number: String,
    /// Beginning.
    pub start: f64,
    /// End.
    pub end: f64,
    /// Its kind.
    pub kind: String,
    /// What fails, in the words of the yardstick.
    pub slice: String,
    /// Its tag, or `volume`.
    pub cause: String,
    /// Whether an incident is expected of it.
    pub is_fault: bool,
}

/// How fast the oracle is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OracleClass {
    /// Within a minute.
    Strong,
    /// Within five.
    Medium,
    /// Later.
    Weak,
}

/// What the oracle says of a fault: how fast it sees it, in seconds; nothing where it does not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Oracle {
    /// Seconds from the fault's start.
    pub delay_s: Option<f64>,
}

impl Oracle {
    /// The class of the fault.
    #[must_use]
    pub fn class(&self) -> Option<OracleClass> {
        self.delay_s.map(|delay| match delay {
            strong if strong <= 60.0 => OracleClass::Strong,
            medium if medium <= 300.0 => OracleClass::Medium,
            _ => OracleClass::Weak,
        })
    }
}

/// What became of a fault.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The fault.
    pub fault: Fault,
    /// What the oracle says; without an oracle every fault can be seen.
    pub oracle: Option<Oracle>,
    /// The incident that matches.
    pub seen: Option<Seen>,
}

/// How a fault was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Seconds from its start to the opening.
    pub delay_s: f64,
    /// Seconds from its end to the closing, where it closed.
    pub close_s: Option<f64>,
    /// What the incident was called last, and at its opening.
    pub slice: String,
    /// What it was called at its opening.
    pub first_slice: String,
    /// Whether the cause is right.
    pub is_cause: bool,
}

/// What an incident is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// That of a fault.
    Match,
    /// That of a fault that the oracle does not see.
    Ignored,
    /// One more of a fault.
    Duplicate,
    /// Of no fault; during this kind of thing.
    False(String),
}

/// Scores of one past.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Score {
    /// By fault.
    pub outcomes: Vec<Outcome>,
    /// By incident.
    pub verdicts: Vec<Verdict>,
    /// Days that were looked at.
    pub days: f64,
}

/// Scores of one past or several, in figures.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Summary {
    /// Faults that are to be found, and those of them that the oracle sees.
    pub faults: usize,
    /// Those that the oracle sees.
    pub detectable: usize,
    /// Share of these that were found.
    pub recall: f64,
    /// Share of incidents that are of a fault.
    pub precision: f64,
    /// Incidents that are one more of a fault.
    pub duplicates: usize,
    /// Incidents of no fault.
    pub r#false: usize,
    /// The same a day.
    pub false_per_day: f64,
    /// Share of found faults that are named exactly, at the end.
    pub exact: f64,
    /// The same at the opening.
    pub exact_at_open: f64,
    /// Share of found faults with the right cause.
    pub cause: f64,
    /// Delay over the oracle's.
    pub delay_ratio_median: f64,
    /// Its mean.
    pub delay_ratio_mean: f64,
    /// Its 95th percentile.
    pub delay_ratio_p95: f64,
    /// Median delay, in seconds.
    pub delay_median_s: f64,
    /// The oracle's.
    pub oracle_median_s: f64,
    /// Its 95th percentile.
    pub delay_p95_s: f64,
    /// Median of the seconds from the end of a fault to the closing.
    pub close_median_s: f64,
    /// Its 95th percentile.
    pub close_p95_s: f64,
    /// Days that were looked at.
    pub days: f64,
}

/// An incident as it is compared.
struct Incident {
    opened: f64,
    closed: Option<f64>,
    slice: String,
    parts: BTreeSet<String>,
    first_slice: String,
    cause: String,
}

fn parts(slice: &str) -> BTreeSet<String> {
    if slice.is_empty() || slice == "fleet" {
        return BTreeSet::new();
    }
    slice.split('&').map(str::to_owned).collect()
}

/// One contains the other, or they share a value.
fn are_related(one: &BTreeSet<String>, other: &BTreeSet<String>) -> bool {
    !one.is_disjoint(other) || one.is_subset(other) || other.is_subset(one)
}

/// Reads `labels.csv`.
///
/// # Errors
/// When it cannot be read, or is not what it is to be.
pub fn read_labels(path: &Path) -> Result<Vec<Fault>, ReadError> {
    let mut table = Table::open(path, &["fault", "start", "end", "kind", "slice", "cause", "expect"])?;
    let mut faults = Vec::new();
    while table.next()? {
        let text = |column| table.text(column).map(str::to_owned);
        let is_fault = match table.bytes(6) {
            b"incident" => true,
            b"none" => false,
            _ => return Err(table.refuse(6, "`incident` or `none`")),
        };
        faults.push(Fault {
            number: text(0)?,
            start: table.parse(1, "a second since 1970-01-01 UTC")?,
            end: table.parse(2, "a second since 1970-01-01 UTC")?,
            kind: text(3)?,
            slice: text(4)?,
            cause: text(5)?,
            is_fault,
        });
    }
    Ok(faults)
}

/// Reads `oracle.csv`: by number of the fault.
///
/// # Errors
/// When it cannot be read, or is not what it is to be.
pub fn read_oracle(path: &Path) -> Result<HashMap<String, Oracle>, ReadError> {
    // Where there are no faults, it has no further columns.
    if Table::header(path)?.len() < 2 {
        return Ok(HashMap::new());
    }
    let mut table = Table::open(path, &["fault", "detectable", "oracle_delay_s"])?;
    let mut oracle = HashMap::new();
    while table.next()? {
        let delay_s = if table.bytes(1) == b"1" { Some(table.parse(2, "seconds")?) } else { None };
        oracle.insert(table.text(0)?.to_owned(), Oracle { delay_s });
    }
    Ok(oracle)
}

/// Scores incidents.
#[must_use]
pub fn score(faults: &[Fault], found: &[Found], oracle: Option<&HashMap<String, Oracle>>) -> Score {
    let incidents: Vec<Incident> = found.iter().map(incident).collect();
    let of_fault: Vec<Option<usize>> = matched(faults, &incidents);
    let of_incident: HashMap<usize, usize> =
        of_fault.iter().enumerate().filter_map(|(fault, incident)| Some(((*incident)?, fault))).collect();
    let outcomes = faults.iter().zip(&of_fault).filter(|(fault, _)| fault.is_fault);
    let outcomes: Vec<Outcome> = outcomes
        .map(|(fault, incident)| {
            let seen = incident.and_then(|place| incidents.get(place)).map(|incident| seen(fault, incident));
            Outcome { fault: fault.clone(), oracle: oracle.and_then(|oracle| oracle.get(&fault.number)).copied(), seen }
        })
        .collect();
    let is_detectable = |fault: &Fault| oracle.and_then(|oracle| oracle.get(&fault.number)).is_none_or(|oracle| oracle.delay_s.is_some());
    let verdicts =
        incidents.iter().enumerate().map(|(place, incident)| match of_incident.get(&place).and_then(|fault| faults.get(*fault)) {
            Some(fault) if is_detectable(fault) => Verdict::Match,
            Some(_) => Verdict::Ignored,
            None => unmatched(faults, incident),
        });
    Score { outcomes, verdicts: verdicts.collect(), days: 0.0 }
}

fn incident(found: &Found) -> Incident {
    let slice = slice_text(&found.incident.slice);
    Incident {
        opened: f64::from(found.incident.opened),
        closed: found.closed().map(f64::from),
        parts: parts(&slice),
        slice,
        first_slice: slice_text(&found.incident.first_slice),
        cause: found.cause().to_owned(),
    }
}

/// By fault, the incident that matches.
fn matched(faults: &[Fault], incidents: &[Incident]) -> Vec<Option<usize>> {
    let mut pairs = Vec::new();
    for (of_fault, fault) in faults.iter().enumerate().filter(|(_, fault)| fault.is_fault) {
        let wanted = parts(&fault.slice);
        for (of_incident, incident) in incidents.iter().enumerate() {
            let is_in_time = (fault.start..=fault.end + GRACE_S).contains(&incident.opened);
            let says_nothing = incident.parts.is_empty() && wanted.len() > 1;
            if is_in_time && are_related(&wanted, &incident.parts) && !says_nothing {
                let apart = wanted.symmetric_difference(&incident.parts).count();
                let key = (wanted != incident.parts, apart, incident.cause != fault.cause);
                pairs.push((key, incident.opened, of_fault, of_incident));
            }
        }
    }
    pairs.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then((a.2, a.3).cmp(&(b.2, b.3))));
    let mut of_fault = vec![None; faults.len()];
    let mut taken = BTreeSet::new();
    for (.., fault, incident) in pairs {
        if let Some(place @ None) = of_fault.get_mut(fault)
            && taken.insert(incident)
        {
            *place = Some(incident);
        }
    }
    of_fault
}

fn seen(fault: &Fault, incident: &Incident) -> Seen {
    Seen {
        delay_s: incident.opened - fault.start,
        close_s: incident.closed.map(|closed| closed - fault.end),
        slice: incident.slice.clone(),
        first_slice: incident.first_slice.clone(),
        is_cause: incident.cause == fault.cause,
    }
}

fn unmatched(faults: &[Fault], incident: &Incident) -> Verdict {
    let near = || faults.iter().filter(|fault| (fault.start..=fault.end + NEAR_S).contains(&incident.opened));
    if near().any(|fault| fault.is_fault && are_related(&parts(&fault.slice), &incident.parts)) {
        return Verdict::Duplicate;
    }
    Verdict::False(near().next().map_or_else(|| "quiet".into(), |fault| fault.kind.clone()))
}

impl Outcome {
    /// Whether the oracle sees it.
    #[must_use]
    pub fn is_detectable(&self) -> bool {
        self.oracle.is_none_or(|oracle| oracle.delay_s.is_some())
    }

    /// Delay over the oracle's.
    #[must_use]
    pub fn delay_ratio(&self) -> Option<f64> {
        Some(self.seen.as_ref()?.delay_s / self.oracle?.delay_s?)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Match => formatter.write_str("match"),
            Verdict::Ignored => formatter.write_str("ignored"),
            Verdict::Duplicate => formatter.write_str("duplicate"),
            Verdict::False(during) => write!(formatter, "false:{during}"),
        }
    }
}

impl Summary {
    /// The figures by name.
    #[must_use]
    pub fn figures(&self) -> [(&'static str, f64); 18] {
        [
            ("faults", real(self.faults)),
            ("detectable", real(self.detectable)),
            ("recall", self.recall),
            ("precision", self.precision),
            ("duplicates", real(self.duplicates)),
            ("false", real(self.r#false)),
            ("false_per_day", self.false_per_day),
            ("exact", self.exact),
            ("exact_at_open", self.exact_at_open),
            ("cause", self.cause),
            ("delay_ratio_median", self.delay_ratio_median),
            ("delay_ratio_mean", self.delay_ratio_mean),
            ("delay_ratio_p95", self.delay_ratio_p95),
            ("delay_median_s", self.delay_median_s),
            ("oracle_median_s", self.oracle_median_s),
            ("delay_p95_s", self.delay_p95_s),
            ("close_median_s", self.close_median_s),
            ("close_p95_s", self.close_p95_s),
        ]
    }

    /// Figures of several pasts, of the faults that are wanted.
    #[must_use]
    pub fn of(scores: &[Score], is_wanted: impl Fn(&Outcome) -> bool) -> Summary {
        let outcomes: Vec<&Outcome> = scores.iter().flat_map(|score| &score.outcomes).filter(|outcome| is_wanted(outcome)).collect();
        let detectable: Vec<&Outcome> = outcomes.iter().copied().filter(|outcome| outcome.is_detectable()).collect();
        let found: Vec<(&Outcome, &Seen)> = detectable.iter().filter_map(|outcome| Some((*outcome, outcome.seen.as_ref()?))).collect();
        let verdicts = || scores.iter().flat_map(|score| &score.verdicts);
        let of = |wanted: fn(&Verdict) -> bool| verdicts().filter(|verdict| wanted(verdict)).count();
        let (matches, duplicates) = (of(|verdict| *verdict == Verdict::Match), of(|verdict| *verdict == Verdict::Duplicate));
        let wrong = of(|verdict| matches!(verdict, Verdict::False(_)));
        let days: f64 = scores.iter().map(|score| score.days).sum();
        let share_of_found =
            |is: fn(&Outcome, &Seen) -> bool| share(found.iter().filter(|(outcome, seen)| is(outcome, seen)).count(), found.len());
        let ratios: Vec<f64> = found.iter().filter_map(|(outcome, _)| outcome.delay_ratio()).collect();
        let delays: Vec<f64> = found.iter().map(|(_, seen)| seen.delay_s).collect();
        let oracles: Vec<f64> = detectable.iter().filter_map(|outcome| outcome.oracle?.delay_s).collect();
        let closes: Vec<f64> = found.iter().filter_map(|(_, seen)| seen.close_s).collect();
        Summary {
            faults: outcomes.len(),
            detectable: detectable.len(),
            recall: share(found.len(), detectable.len()),
            precision: share(matches, matches + duplicates + wrong),
            duplicates,
            r#false: wrong,
            false_per_day: real(wrong) / days,
            exact: share_of_found(|outcome, seen| parts(&outcome.fault.slice) == parts(&seen.slice)),
            exact_at_open: share_of_found(|outcome, seen| parts(&outcome.fault.slice) == parts(&seen.first_slice)),
            cause: share_of_found(|_, seen| seen.is_cause),
            delay_ratio_median: percentile(&ratios, 50.0),
            delay_ratio_mean: ratios.iter().sum::<f64>() / real(ratios.len()),
            delay_ratio_p95: percentile(&ratios, 95.0),
            delay_median_s: percentile(&delays, 50.0),
            oracle_median_s: percentile(&oracles, 50.0),
            delay_p95_s: percentile(&delays, 95.0),
            close_median_s: percentile(&closes, 50.0),
            close_p95_s: percentile(&closes, 95.0),
            days,
        }
    }
}

/// A percentile, between values interpolated; not a number where there are none.
#[must_use]
pub fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = percent / 100.0 * real(last);
    let (below, above) = (sorted.get(floor(place)), sorted.get((floor(place) + 1).min(last)));
    let (Some(below), Some(above)) = (below, above) else { return f64::NAN };
    below + (above - below) * (place - place.floor())
}

fn share(part: usize, whole: usize) -> f64 {
    real(part) / real(whole.max(1))
}

#[expect(clippy::cast_precision_loss, reason = "numbers of faults are far below 2^52")]
fn real(number: usize) -> f64 {
    number as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list, not below 0")]
fn floor(place: f64) -> usize {
    place.floor() as usize
}

#[cfg(test)]
mod tests {
    use faultline_detect::{Class, Incident, Signal, State, Watch};

    use super::*;
    use crate::yardstick::slice_named;

    fn fault(number: &str, (start, end): (f64, f64), slice: &str, cause: &str) -> Fault {
        let is_fault = number != "none";
        Fault { number: number.into(), start, end, kind: "kind".into(), slice: slice.into(), cause: cause.into(), is_fault }
    }

    fn found(opened: u32, closed: u32, slice: &str) -> Found {
        let slice = slice_named(slice).unwrap();
        let watches = vec![Watch::of(Signal::Failures(Class::IssuerDown))];
        let incident = Incident {
            first_slice: slice.clone(),
            slice,
            opened,
            closed: Some(closed),
            state: State::Closed,
            watches,
            ..Incident::default()
        };
        Found { signals: vec![Signal::Failures(Class::IssuerDown)], incident, reopened: 0 }
    }

    #[test]
    fn each_fault_has_one_incident_and_the_exact_one_first() {
        let faults = [
            fault("1", (1000.0, 2000.0), "issuer=a", "issuer_down"),
            fault("2", (1000.0, 2000.0), "carrier=c", "host_unreachable"),
            fault("none", (5000.0, 6000.0), "issuer=b", "issuer_down"),
            fault("3", (9000.0, 9100.0), "issuer=d", "issuer_down"),
        ];
        let found = [
            found(1020, 2050, "entry=chip&issuer=a"),
            found(1030, 2050, "issuer=a"),
            found(1040, 2050, "carrier=c&region=r"),
            found(5100, 5200, "issuer=b"),
            found(7000, 7100, "issuer=z"),
            found(9150, 9200, "issuer=d"),
        ];
        let oracle = [("1", Some(20.0)), ("2", Some(10.0)), ("3", None)];
        let oracle: HashMap<String, Oracle> = oracle.into_iter().map(|(number, delay_s)| (number.to_owned(), Oracle { delay_s })).collect();
        let score = score(&faults, &found, Some(&oracle));
        let said: Vec<String> = score.verdicts.iter().map(ToString::to_string).collect();
        assert_eq!(said, ["duplicate", "match", "match", "false:kind", "false:quiet", "ignored"]);
        let of = Summary::of(&[Score { days: 2.0, ..score }], |_| true);
        assert_eq!((of.faults, of.detectable, of.duplicates, of.r#false), (3, 2, 1, 2));
        assert_eq!((of.recall, of.precision, of.exact_at_open, of.false_per_day), (1.0, 0.4, 0.5, 1.0));
        assert_eq!((of.delay_ratio_median, of.delay_ratio_mean, of.close_median_s), (2.75, 2.75, 50.0));
    }

    #[test]
    fn a_fleet_names_no_fault_of_two_values() {
        let faults =
            [fault("1", (1000.0, 2000.0), "carrier=c&region=r", "volume"), fault("2", (1000.0, 2000.0), "issuer=a", "issuer_down")];
        let score = score(&faults, &[found(1020, 2050, "fleet"), found(2061, 2090, "issuer=a")], None);
        assert_eq!(score.outcomes[0].seen, None);
        assert_eq!(score.outcomes[1].seen.as_ref().map(|seen| seen.delay_s), Some(20.0));
        assert_eq!(score.verdicts, [Verdict::Match, Verdict::Duplicate]);
    }

    #[test]
    fn percentiles_are_between_values() {
        assert_eq!((percentile(&[3.0, 1.0, 2.0, 4.0], 50.0), percentile(&[1.0, 2.0], 95.0), percentile(&[7.0], 5.0)), (2.5, 1.95, 7.0));
        assert!(percentile(&[], 50.0).is_nan());
    }
}
