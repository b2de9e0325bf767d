//! An incident as others see it: in the incidents topic, and in ClickHouse.

use std::time::{Duration, UNIX_EPOCH};

use faultline_detect::{Dimension, Incident, Signal, Slice, State, Watch, drilldown};
use faultline_proto::incident::v1 as proto;
use faultline_store::{Alternative, Finding, IncidentRow, Money, Opening, Part};
use prost_types::Timestamp;
use sha2::{Digest, Sha256};
use url::Url;

use crate::explanations::{Fault, Findings};
use crate::words;

/// Most currencies of which an incident says how much money it is about.
const MOST_AMOUNTS: usize = 16;

/// What a record has beside the incident as it stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Known {
    /// The numbers that opened it.
    pub(crate) opening: Option<proto::IncidentOpening>,
    /// What explains it.
    pub(crate) explanation: Option<proto::IncidentExplanation>,
}

/// What an incident of a tenant is called, always and by everyone: the moment at which it was opened, and something to tell it from others of that
/// moment. Whoever opens it again from the same counts calls it the same.
pub(crate) fn identifier(tenant: &str, incident: &Incident) -> String {
    let opened = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(incident.opened.into())).to_string();
    let digest = Sha256::digest(format!("{tenant}\n{}\n{}", incident.opened, incident.first_slice));
    let short = digest.get(..4).map(hex::encode).unwrap_or_default();
    format!("{}-{short}", opened.replace(['-', ':'], ""))
}

/// The record of an incident. `now` is the end of the last tick, in seconds since 1970-01-01 UTC.
pub(crate) fn record(tenant: &str, incident: &Incident, (now, known): (u32, Known)) -> proto::Incident {
    let narrowed = known.explanation.as_ref().and_then(|explanation| narrowing(&incident.slice, explanation));
    proto::Incident {
        tenant: tenant.into(),
        incident_id: identifier(tenant, incident),
        revision: 0,
        notice_revision: 0,
        state: match incident.state {
            State::Open => proto::IncidentState::Open,
            State::Unobserved => proto::IncidentState::Unobserved,
            State::Closed => proto::IncidentState::Closed,
            State::Abandoned => proto::IncidentState::Abandoned,
        }
        .into(),
        cause: incident.cause().into(),
        slice: values(&incident.slice),
        first_slice: values(&incident.first_slice),
        signals: incident.watches.iter().map(signal).collect(),
        begin_time: Some(timestamp(incident.began)),
        open_time: Some(timestamp(incident.opened)),
        update_time: Some(timestamp(now)),
        close_time: incident.closed.map(timestamp),
        unobserved_time: incident.unobserved.map(timestamp),
        summary: Some(words::summary(incident, narrowed.as_ref())),
        opening: known.opening,
        explanation: known.explanation,
    }
}

/// The numbers of an incident that was opened just now.
pub(crate) fn opening(incident: &Incident) -> Option<proto::IncidentOpening> {
    let watch = incident.watches.first()?;
    Some(proto::IncidentOpening {
        from_time: Some(timestamp(incident.began)),
        until_time: Some(timestamp(incident.opened)),
        attempts: watch.attempts,
        counted: watch.counted,
        expected: watch.expected,
        evidence_nats: watch.evidence,
    })
}

/// What explains a fault, as others see it.
pub(crate) fn explanation(fault: &Fault<'_>, findings: &Findings) -> proto::IncidentExplanation {
    let Findings { explained, affected, sampled_one_in, query } = findings;
    let alternative = |(slice, score): &(Slice, f64)| proto::IncidentAlternative { slice: values(slice), score_nats: *score };
    let amounts = affected.amounts.iter().take(MOST_AMOUNTS);
    proto::IncidentExplanation {
        signal: fault.class.name().into(),
        from_time: Some(timestamp(fault.time.start)),
        until_time: Some(timestamp(fault.time.end)),
        slice: values(&explained.slice),
        score_nats: explained.score.max(0.0),
        contribution: explained.contribution,
        relative_risk: explained.relative_risk,
        alternatives: explained.alternatives.iter().map(alternative).collect(),
        attempts: whole(explained.tally.attempts),
        failed: affected.failed,
        merchants: affected.merchants,
        terminals: affected.terminals,
        transactions: affected.transactions,
        amounts: amounts.map(|(currency, minor)| proto::IncidentAmount { currency_code: currency.clone(), amount_minor: *minor }).collect(),
        sampled_one_in: *sampled_one_in,
        query: query.clone(),
        parts: explained.parts.iter().map(part).collect(),
    }
}

fn part(part: &drilldown::Part) -> proto::IncidentPart {
    let drilldown::Part { slice, score, tally } = part;
    proto::IncidentPart { slice: values(slice), score_nats: score.max(0.0), attempts: whole(tally.attempts), failed: whole(tally.failed) }
}

/// The values by which what explains an incident is narrower than its slice; nothing where it is not.
fn narrowing(incident: &Slice, explanation: &proto::IncidentExplanation) -> Option<Slice> {
    let explained = slice(&explanation.slice)?;
    let more = explained.values().filter(|(dimension, _)| incident.value(*dimension).is_none());
    let narrowed = Slice::new(more);
    (incident.holds(&explained) && narrowed != Slice::fleet()).then_some(narrowed)
}

/// Whether a record says more finely what its incident is.
pub(crate) fn is_narrowed(record: &proto::Incident) -> bool {
    let own = slice(&record.slice).unwrap_or_default();
    record.explanation.as_ref().is_some_and(|explanation| narrowing(&own, explanation).is_some())
}

/// What is known of an incident beside how it stands, by its record.
pub(crate) fn known(record: &proto::Incident) -> Known {
    Known { opening: record.opening, explanation: record.explanation.clone() }
}

/// The incident of a record; nothing where it says something that is not known here.
pub(crate) fn incident(record: &proto::Incident) -> Option<Incident> {
    let state = match record.state() {
        proto::IncidentState::Open => State::Open,
        proto::IncidentState::Unobserved => State::Unobserved,
        proto::IncidentState::Closed => State::Closed,
        proto::IncidentState::Abandoned => State::Abandoned,
        proto::IncidentState::Unspecified => return None,
    };
    Some(Incident {
        slice: slice(&record.slice)?,
        first_slice: slice(&record.first_slice)?,
        began: second(record.begin_time.as_ref())?,
        opened: second(record.open_time.as_ref())?,
        closed: second(record.close_time.as_ref()),
        unobserved: second(record.unobserved_time.as_ref()),
        state,
        watches: record.signals.iter().map(watch).collect::<Option<_>>()?,
    })
}

/// The row of a record.
pub(crate) fn row(record: &proto::Incident) -> IncidentRow {
    let first = record.signals.first().cloned().unwrap_or_default();
    let summary = record.summary.clone().unwrap_or_default();
    let small = |number: i32| i8::try_from(number).unwrap_or_default();
    IncidentRow {
        tenant: record.tenant.clone(),
        incident: record.incident_id.clone(),
        revision: record.revision,
        state: small(record.state),
        cause: small(record.cause),
        slice: slice(&record.slice).unwrap_or_default().to_string(),
        signals: record.signals.iter().map(|signal| signal.name.clone()).collect(),
        attempts: first.attempts,
        counted: first.counted,
        expected: first.expected,
        evidence: first.evidence_nats,
        began: second(record.begin_time.as_ref()).unwrap_or_default(),
        opened: second(record.open_time.as_ref()).unwrap_or_default(),
        updated: second(record.update_time.as_ref()).unwrap_or_default(),
        closed: second(record.close_time.as_ref()).unwrap_or_default(),
        summary_zh_cn: summary.zh_cn,
        summary_en: summary.en,
        findings: findings(record).json(),
    }
}

fn findings(record: &proto::Incident) -> faultline_store::Findings {
    let second = |time: &Option<Timestamp>| second(time.as_ref()).unwrap_or_default();
    let opening = record.opening.as_ref().map(|opening| Opening {
        from: second(&opening.from_time),
        until: second(&opening.until_time),
        attempts: opening.attempts,
        counted: opening.counted,
        expected: opening.expected,
        evidence_nats: opening.evidence_nats,
    });
    let explanation = record.explanation.as_ref().map(|found| Finding {
        signal: found.signal.clone(),
        from: second(&found.from_time),
        until: second(&found.until_time),
        slice: text(&found.slice),
        score_nats: found.score_nats,
        contribution: found.contribution,
        relative_risk: found.relative_risk,
        alternatives: found
            .alternatives
            .iter()
            .map(|other| Alternative { slice: text(&other.slice), score_nats: other.score_nats })
            .collect(),
        attempts: found.attempts,
        failed: found.failed,
        merchants: found.merchants,
        terminals: found.terminals,
        transactions: found.transactions,
        amounts: found.amounts.iter().map(|amount| Money { currency: amount.currency_code.clone(), minor: amount.amount_minor }).collect(),
        sampled_one_in: found.sampled_one_in,
        query: found.query.clone(),
        parts: found
            .parts
            .iter()
            .map(|part| Part { slice: text(&part.slice), score_nats: part.score_nats, attempts: part.attempts, failed: part.failed })
            .collect(),
    });
    faultline_store::Findings { opening, explanation }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates where a count would not fit")]
fn whole(count: f64) -> u64 {
    count.round() as u64
}

/// Where the console shows an incident.
pub(crate) fn link(console: &Url, record: &proto::Incident) -> String {
    format!("{}/#/{}/incidents/{}", console.as_str().trim_end_matches('/'), record.tenant, record.incident_id)
}

/// When a record was last brought up to date, and when it was closed, in seconds since 1970-01-01 UTC.
pub(crate) fn updated(record: &proto::Incident) -> u32 {
    second(record.update_time.as_ref()).unwrap_or_default()
}

pub(crate) fn closed(record: &proto::Incident) -> Option<u32> {
    second(record.close_time.as_ref())
}

fn values(slice: &Slice) -> Vec<proto::SliceValue> {
    slice.values().map(|(dimension, value)| proto::SliceValue { dimension: dimension.name().into(), value: value.into() }).collect()
}

fn slice(values: &[proto::SliceValue]) -> Option<Slice> {
    let values = values.iter().map(|value| Some((Dimension::named(&value.dimension)?, value.value.as_str())));
    Some(Slice::new(values.collect::<Option<Vec<_>>>()?))
}

/// A slice as it is written.
pub(crate) fn text(values: &[proto::SliceValue]) -> String {
    slice(values).unwrap_or_default().to_string()
}

fn signal(watch: &Watch) -> proto::IncidentSignal {
    proto::IncidentSignal {
        name: watch.signal.name().into(),
        attempts: watch.attempts,
        counted: watch.counted,
        expected: watch.expected,
        evidence_nats: watch.evidence,
        level: if watch.signal == Signal::MissingApprovals { watch.level } else { 0.0 },
    }
}

fn watch(signal: &proto::IncidentSignal) -> Option<Watch> {
    let mut watch = Watch::of(Signal::named(&signal.name)?);
    watch.attempts = signal.attempts;
    watch.counted = signal.counted;
    watch.expected = signal.expected;
    watch.evidence = signal.evidence_nats;
    if watch.signal == Signal::MissingApprovals && signal.level > 0.0 {
        watch.level = signal.level;
    }
    // With what is no number, it would never be over.
    let numbers = [watch.expected, watch.evidence, watch.level];
    numbers.into_iter().all(f64::is_finite).then_some(watch)
}

fn timestamp(second: u32) -> Timestamp {
    Timestamp { seconds: second.into(), nanos: 0 }
}

pub(crate) fn second(timestamp: Option<&Timestamp>) -> Option<u32> {
    u32::try_from(timestamp?.seconds).ok()
}

#[cfg(test)]
mod tests {
    use faultline_detect::{Cause, Class};

    use super::*;

    fn example() -> Incident {
        let mut missing = Watch::of(Signal::MissingApprovals);
        (missing.attempts, missing.counted, missing.expected, missing.level) = (40, 2, 61.5, 0.9);
        let mut timeouts = Watch::of(Signal::Failures(Class::IssuerTimeout));
        (timeouts.attempts, timeouts.counted, timeouts.expected, timeouts.evidence) = (40, 30, 0.1, 99.0);
        Incident {
            slice: Slice::new([(Dimension::Issuer, "icbc")]),
            first_slice: Slice::new([(Dimension::Issuer, "icbc"), (Dimension::EntryMode, "chip")]),
            began: 1_793_620_800,
            opened: 1_793_620_830,
            closed: None,
            unobserved: None,
            state: State::Open,
            watches: vec![missing, timeouts],
        }
    }

    #[test]
    fn whoever_reads_a_record_knows_the_incident() {
        let mut example = example();
        let known = |example: &Incident| incident(&record("acme", example, (1_793_620_900, Known::default()))).unwrap();
        assert_eq!(known(&example), example);
        (example.state, example.unobserved) = (State::Unobserved, Some(1_793_620_860));
        assert_eq!(known(&example), example);
        (example.state, example.unobserved, example.closed) = (State::Closed, None, Some(1_793_620_900));
        assert_eq!(known(&example), example);
        // By a newer program.
        let mut newer = record("acme", &example, (0, Known::default()));
        newer.signals[0].name = "weather".into();
        assert!(incident(&newer).is_none());
    }

    #[test]
    fn an_identifier_stays_the_same_whatever_becomes_of_the_incident() {
        let mut example = example();
        let before = identifier("acme", &example);
        assert!(before.starts_with("20261102T120030Z-") && before.len() < 64, "{before}");
        example.slice = Slice::fleet();
        example.watches.clear();
        assert_eq!(identifier("acme", &example), before);
        assert_ne!(identifier("other", &example), before);
    }

    #[test]
    fn a_row_says_what_the_record_says() {
        let incident = example();
        let known = Known { opening: opening(&incident), explanation: None };
        let row = row(&record("acme", &incident, (1_793_620_900, known)));
        assert_eq!(
            (row.slice.as_str(), row.cause(), row.signals.as_slice()),
            ("issuer=icbc", Cause::Bank, ["missing_approvals".to_owned(), "issuer_timeout".to_owned()].as_slice())
        );
        assert_eq!((row.attempts, row.counted, row.updated, row.is_closed()), (40, 2, 1_793_620_900, false));
        let opening = row.findings().opening.unwrap();
        assert_eq!((opening.from, opening.until, opening.counted, opening.expected), (1_793_620_800, 1_793_620_830, 2, 61.5));
    }

    #[test]
    fn what_explains_an_incident_narrows_it_or_says_nothing_more() {
        let (icbc, other) = ([(Dimension::Issuer, "icbc")], [(Dimension::Issuer, "abc")]);
        let finer = [(Dimension::Carrier, "46000"), (Dimension::Issuer, "icbc")];
        let narrowed = |own: &[(Dimension, &str)], explained: &[(Dimension, &str)]| {
            let explanation = proto::IncidentExplanation { slice: values(&Slice::new(explained.iter().copied())), ..Default::default() };
            narrowing(&Slice::new(own.iter().copied()), &explanation).map(|slice| slice.to_string())
        };
        assert_eq!(narrowed(&icbc, &finer), Some("carrier=46000".into()));
        assert_eq!((narrowed(&icbc, &icbc), narrowed(&other, &finer), narrowed(&[], &[])), (None, None, None));
    }
}

#[cfg(test)]
mod fuzz {
    use faultline_fuzz::target;
    use prost::Message;

    use super::*;

    #[test]
    fn an_incident_of_the_topic_is_followed_as_it_is_or_not_at_all() {
        let fates = target!(Message, "incident").run(|bytes| {
            let Ok(read) = proto::Incident::decode(bytes) else { return "no incident" };
            let row = row(&read);
            assert_eq!(row.signals.len(), read.signals.len());
            let Some(known) = incident(&read) else { return "not followed" };
            let again = record(&read.tenant, &known, (updated(&read), super::known(&read)));
            assert_eq!(incident(&again).as_ref(), Some(&known));
            assert_eq!((&again.opening, &again.explanation), (&read.opening, &read.explanation));
            assert_eq!(row.slice, known.slice.to_string());
            "followed"
        });
        fates.include(["followed", "not followed", "no incident"]);
    }
}
