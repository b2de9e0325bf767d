//! Incidents while a scenario is played: said in plain words as they come, and compared with those that it is to make.

use std::collections::BTreeMap;
use std::time::Duration;

use faultline_proto::incident::v1::IncidentState;
use faultline_runtime::error::with_causes;
use faultline_simulator::scenario::Expected;
use faultline_store::{Database, IncidentRow};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// How often it is looked what incidents there are.
const LOOK: Duration = Duration::from_millis(500);
/// How long after the last fault it must have been quiet.
const QUIET: Duration = Duration::from_secs(60);
/// How long after the last fault every incident must be closed.
const CLOSED_WITHIN: Duration = Duration::from_secs(180);

/// An incident, and when it was seen first and last changed its state, from when the fleet was switched on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    row: IncidentRow,
    first: Duration,
    changed: Duration,
    /// How often it was opened.
    openings: u32,
}

/// The incidents of a tenant, by identifier.
pub(crate) type Incidents = BTreeMap<String, Seen>;

/// Says what becomes of incidents that are in the counts of a tenant from this second on (since 1970-01-01 UTC), for ever. `begin` is when the fleet was
/// switched on.
pub(crate) async fn follow(
    (database, tenant, since): (&Database, &str, u32),
    begin: Instant,
    (say, seen): (impl Fn(String), &watch::Sender<Incidents>),
) -> ! {
    let mut trouble = None;
    loop {
        match database.incidents(tenant, since).await {
            Ok(rows) => {
                trouble = None;
                seen.send_modify(|seen| take_in(rows, begin.elapsed(), seen).into_iter().for_each(&say));
            }
            Err(error) => {
                let now = Some(with_causes(&error));
                if now != trouble {
                    say(format!("Which incidents there are is not known: {}", now.as_deref().unwrap_or_default()));
                }
                trouble = now;
            }
        }
        sleep(LOOK).await;
    }
}

/// Brings what is known up to date. Returns what is to be said.
fn take_in(rows: Vec<IncidentRow>, now: Duration, seen: &mut Incidents) -> Vec<String> {
    let mut said = Vec::new();
    for row in rows {
        let before = seen.get(&row.incident).map(|seen| seen.row.clone());
        let (state, was) = (i32::from(row.state), before.as_ref().map(|row| i32::from(row.state)));
        let summary = &row.summary_en;
        if before.is_none() {
            said.push(format!("INCIDENT OPENED: {summary}"));
        } else if before.as_ref().is_some_and(|before| before.slice != row.slice || before.signals != row.signals) {
            said.push(format!("INCIDENT CHANGED: {summary}"));
        } else if before.is_some_and(|before| explained(&before) != explained(&row)) {
            said.push(format!("INCIDENT EXPLAINED: {summary}"));
        }
        if was.is_some_and(|was| was != state) || (was.is_none() && state != i32::from(IncidentState::Open)) {
            let word = match IncidentState::try_from(state) {
                Ok(IncidentState::Closed) => "CLOSED",
                Ok(IncidentState::Unobserved) => "UNOBSERVED",
                Ok(IncidentState::Abandoned) => "ABANDONED",
                _ => "OPEN AGAIN",
            };
            said.push(format!("INCIDENT {word}: {summary}"));
        }
        let known = seen.entry(row.incident.clone()).or_insert_with(|| Seen { row: row.clone(), first: now, changed: now, openings: 1 });
        if was.is_some_and(|was| was != state) {
            known.changed = now;
        }
        if known.row.is_closed() && !row.is_closed() {
            known.openings += 1;
        }
        known.row = row;
    }
    said
}

/// The slice that explains an incident, where it is finer than its own.
fn explained(row: &IncidentRow) -> Option<String> {
    row.findings().explanation.map(|finding| finding.slice).filter(|slice| *slice != row.slice)
}

/// Waits until everything is over that a scenario is to do: some quiet after its end (from when the fleet was switched on, at `begin`), and every incident
/// closed; but not for ever.
pub(crate) async fn until_over(end: Duration, begin: Instant, mut seen: watch::Receiver<Incidents>) {
    tokio::time::sleep_until(begin + end + QUIET).await;
    let all_closed = async {
        // It is never dropped before this.
        let _ = seen.wait_for(|seen| seen.values().all(|seen| seen.row.is_closed())).await;
    };
    let _ = tokio::time::timeout_at(begin + end + CLOSED_WITHIN, all_closed).await;
}

/// Compares incidents with those that are expected. Returns what was seen in plain words, or what is wrong.
pub(crate) fn compare(expected: &[Expected], seen: &Incidents) -> Result<String, String> {
    let mut wrong = Vec::new();
    let mut right = Vec::new();
    let mut left: Vec<&Seen> = seen.values().collect();
    for wanted in expected {
        let slice = &wanted.slice;
        let Some(place) = left.iter().position(|seen| seen.row.slice == *slice) else {
            wrong.push(format!("no incident of {slice} was opened"));
            continue;
        };
        let Seen { row, first, changed, openings } = left.swap_remove(place);
        let after = first.saturating_sub(wanted.start);
        if *openings != 1 {
            wrong.push(format!("the incident of {slice} was opened {openings} times"));
        }
        if row.cause() != wanted.cause {
            wrong.push(format!("the incident of {slice} has the cause {}, and is to have {}", cause(row.cause()), cause(wanted.cause)));
        }
        if *first < wanted.start || after > wanted.opened_within {
            let (first, start) = (first.as_secs_f64(), wanted.start.as_secs());
            wrong.push(format!("the incident of {slice} was opened after {first:.0} s, and its fault began after {start} s"));
        }
        match wanted.end {
            Some(end) if row.is_closed() && *changed >= end => {
                let (after, over) = (after.as_secs(), changed.saturating_sub(end).as_secs());
                right.push(format!(
                    "{slice}, cause {}: opened {after} s after it began, closed {over} s after it was over",
                    cause(row.cause())
                ));
            }
            Some(end) if row.is_closed() => {
                let (closed, end) = (changed.as_secs(), end.as_secs());
                wrong.push(format!("the incident of {slice} was closed after {closed} s, and its fault lasted until {end} s"));
            }
            _ => wrong.push(format!("the incident of {slice} was not closed")),
        }
    }
    wrong.extend(
        left.iter()
            .map(|seen| format!("an incident of {} was opened, and is no fault of the scenario: {}", seen.row.slice, seen.row.summary_en)),
    );
    if !wrong.is_empty() {
        return Err(wrong.join("; "));
    }
    Ok(if right.is_empty() { "no incident was opened, as was expected".into() } else { right.join("; ") })
}

fn cause(cause: faultline_proto::verdict::v1::Cause) -> String {
    cause.as_str_name().trim_start_matches("CAUSE_").to_lowercase()
}

#[cfg(test)]
mod tests {
    use faultline_proto::verdict::v1::Cause;

    use super::*;

    fn row(slice: &str, state: IncidentState, closed: u32) -> IncidentRow {
        IncidentRow {
            tenant: "demo".into(),
            incident: format!("incident of {slice}"),
            revision: 1,
            state: i8::try_from(i32::from(state)).unwrap(),
            cause: i8::try_from(i32::from(Cause::Bank)).unwrap(),
            slice: slice.into(),
            signals: vec!["issuer_down".into()],
            attempts: 40,
            counted: 38,
            expected: 0.1,
            evidence: 200.0,
            began: 1000,
            opened: 1010,
            updated: 1010,
            closed,
            summary_zh_cn: String::new(),
            summary_en: format!("{slice} is down."),
            findings: String::new(),
        }
    }

    fn second(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    fn expected() -> [Expected; 1] {
        [Expected {
            slice: "issuer=icbc".into(),
            cause: Cause::Bank,
            start: second(120),
            end: Some(second(300)),
            opened_within: second(60),
        }]
    }

    #[test]
    fn what_becomes_of_an_incident_is_said_once() {
        let mut seen = Incidents::new();
        let mut say = |row: IncidentRow, at: u64| take_in(vec![row], second(at), &mut seen);
        let open = row("issuer=icbc", IncidentState::Open, 0);
        assert_eq!(say(open.clone(), 130), ["INCIDENT OPENED: issuer=icbc is down."]);
        assert_eq!(say(IncidentRow { attempts: 80, ..open.clone() }, 140), [""; 0]);
        assert_eq!(say(IncidentRow { slice: "fleet".into(), ..open }, 150), ["INCIDENT CHANGED: issuer=icbc is down."]);
        let closed = IncidentRow { slice: "fleet".into(), ..row("issuer=icbc", IncidentState::Closed, 1300) };
        assert_eq!(say(closed, 330), ["INCIDENT CLOSED: issuer=icbc is down."]);
        let known = &seen["incident of issuer=icbc"];
        assert_eq!((known.first, known.changed, known.openings), (second(130), second(330), 1));
        take_in(vec![row("issuer=icbc", IncidentState::Open, 0)], second(340), &mut seen);
        let flapping = compare(&expected(), &seen).unwrap_err();
        assert!(flapping.contains("the incident of issuer=icbc was opened 2 times"), "{flapping}");
        assert_eq!(take_in(vec![row("x", IncidentState::Closed, 9)], second(1), &mut seen).len(), 2);
    }

    #[test]
    fn exactly_what_is_expected_passes() {
        let seen = |rows: &[(&str, u64, u64)]| -> Incidents {
            let seen = rows.iter().map(|(slice, first, changed)| {
                let state = if *changed > 0 { IncidentState::Closed } else { IncidentState::Open };
                let row = row(slice, state, u32::try_from(*changed).unwrap());
                (row.incident.clone(), Seen { row, first: second(*first), changed: second(*changed), openings: 1 })
            });
            seen.collect()
        };
        let said = compare(&expected(), &seen(&[("issuer=icbc", 134, 340)])).unwrap();
        assert_eq!(said, "issuer=icbc, cause bank: opened 14 s after it began, closed 40 s after it was over");
        for (rows, said) in [
            (&[][..], "no incident of issuer=icbc was opened"),
            (&[("issuer=icbc", 134, 0)], "was not closed"),
            (&[("issuer=icbc", 190, 340)], "was opened after 190 s, and its fault began after 120 s"),
            (&[("issuer=icbc", 110, 340)], "was opened after 110 s"),
            (&[("issuer=icbc", 134, 200)], "was closed after 200 s, and its fault lasted until 300 s"),
            (&[("issuer=icbc", 134, 340), ("fleet", 140, 350)], "an incident of fleet was opened, and is no fault of the scenario"),
        ] {
            let wrong = compare(&expected(), &seen(rows)).unwrap_err();
            assert!(wrong.contains(said), "{wrong}");
        }
        let other = [Expected { cause: Cause::Network, ..expected()[0].clone() }];
        assert!(compare(&other, &seen(&[("issuer=icbc", 134, 340)])).unwrap_err().contains("has the cause bank, and is to have network"));
        assert_eq!(compare(&[], &Incidents::new()).unwrap(), "no incident was opened, as was expected");
    }
}
