//! An incident as others see it: in the incidents topic, and in ClickHouse.

use std::time::{Duration, UNIX_EPOCH};

use faultline_detect::{Dimension, Incident, Signal, Slice, State, Watch};
use faultline_proto::incident::v1 as proto;
use faultline_store::IncidentRow;
use prost_types::Timestamp;
use sha2::{Digest, Sha256};
use url::Url;

use crate::words;

/// What an incident of a tenant is called, always and by everyone: the moment at which it was opened, and something to tell it from others of that
/// moment. Whoever opens it again from the same counts calls it the same.
pub(crate) fn identifier(tenant: &str, incident: &Incident) -> String {
    let opened = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(incident.opened.into())).to_string();
    let digest = Sha256::digest(format!("{tenant}\n{}\n{}", incident.opened, incident.first_slice));
    let short = digest.get(..4).map(hex::encode).unwrap_or_default();
    format!("{}-{short}", opened.replace(['-', ':'], ""))
}

/// The record of an incident. `now` is the end of the last tick, in seconds since 1970-01-01 UTC.
pub(crate) fn record(tenant: &str, incident: &Incident, now: u32) -> proto::Incident {
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
        summary: Some(words::summary(incident)),
    }
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
    }
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
        let known = |example: &Incident| incident(&record("acme", example, 1_793_620_900)).unwrap();
        assert_eq!(known(&example), example);
        (example.state, example.unobserved) = (State::Unobserved, Some(1_793_620_860));
        assert_eq!(known(&example), example);
        (example.state, example.unobserved, example.closed) = (State::Closed, None, Some(1_793_620_900));
        assert_eq!(known(&example), example);
        // By a newer program.
        let mut newer = record("acme", &example, 0);
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
        let row = row(&record("acme", &example(), 1_793_620_900));
        assert_eq!(
            (row.slice.as_str(), row.cause(), row.signals.as_slice()),
            ("issuer=icbc", Cause::Bank, ["missing_approvals".to_owned(), "issuer_timeout".to_owned()].as_slice())
        );
        assert_eq!((row.attempts, row.counted, row.updated, row.is_closed()), (40, 2, 1_793_620_900, false));
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
            assert_eq!(incident(&record(&read.tenant, &known, updated(&read))).as_ref(), Some(&known));
            assert_eq!(row.slice, known.slice.to_string());
            "followed"
        });
        fates.include(["followed", "not followed", "no incident"]);
    }
}
