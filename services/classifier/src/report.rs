//! From a record to what a terminal reported, or to why that cannot be read.

use std::ops::RangeInclusive;

use faultline_proto::ingest::v1::{Event, OutcomeBatch};
use faultline_proto::outcome::v1::Outcome;
use faultline_proto::terminal::v1::TerminalProfile;
use faultline_runtime::trace;
use faultline_store::RECEIPT_SLACK_S;
use faultline_stream::{BatchClock, OutcomeRecord, Record, Rejection, Replay, card_numbers, unix_ms};
use prost::Message;
use tracing::{Span, info_span};

/// Greatest sequence: that of the contract.
pub(crate) const MAX_SEQUENCE: u64 = i64::MAX.cast_unsigned();
/// Most events of one record: far more than the gateway takes.
const MOST_EVENTS: usize = 10_000;
/// Amounts: as the contract says. What is far beyond would not add up.
const AMOUNTS: RangeInclusive<i64> = 0..=999_999_999_999;
/// Most leading digits of a card number: as the contract says.
const LONGEST_BIN: usize = 8;

/// What one record says.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) offset: i64,
    pub(crate) tenant: String,
    pub(crate) terminal: String,
    /// When it was received, in milliseconds since 1970-01-01 UTC. Of what was replayed later than a gateway's clock is believed: when it was.
    pub(crate) receipt_ms: i64,
    /// Whether the gateway's clock was not believed.
    pub(crate) is_redated: bool,
    /// Whether it was a dead letter, and was brought back.
    pub(crate) is_replay: bool,
    pub(crate) profile: TerminalProfile,
    pub(crate) batch: OutcomeBatch,
    pub(crate) clock: BatchClock,
    /// As long as it is worked on, where its trace is sampled.
    pub(crate) span: Option<Span>,
}

impl Report {
    /// Reads a record.
    pub(crate) fn read(record: &Record) -> Result<Report, Rejection> {
        let reject = |stage, reason: String| Rejection { stage, reason };
        let read = OutcomeRecord::try_from(record).map_err(|error| reject("record", error.to_string()))?;
        let profile = TerminalProfile::decode(read.profile).map_err(|error| reject("record", format!("header `profile`: {error}")))?;
        let mut batch = OutcomeBatch::decode(read.batch).map_err(|error| reject("batch", error.to_string()))?;
        if batch.spool_id == 0 {
            return Err(reject("batch", "`spool_id` is 0".into()));
        }
        if batch.events.len() > MOST_EVENTS {
            return Err(reject("batch", format!("`events` are {}, at most {MOST_EVENTS} are read", batch.events.len())));
        }
        for (index, event) in batch.events.iter_mut().enumerate() {
            if !(1..=MAX_SEQUENCE).contains(&event.sequence) {
                return Err(reject("event", format!("`events[{index}].sequence` is {}, not 1 to {MAX_SEQUENCE}", event.sequence)));
            }
            let Some(outcome) = &mut event.outcome else {
                return Err(reject("event", format!("`events[{index}].outcome` is missing")));
            };
            if !AMOUNTS.contains(&outcome.amount_minor) {
                return Err(reject("event", format!("`events[{index}].outcome.amount_minor` is {}", outcome.amount_minor)));
            }
            // The gateway has seen to both. Whoever else writes into the topic brings no card numbers into rows either.
            if outcome.bin.len() > LONGEST_BIN || !outcome.bin.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(reject("event", format!("`events[{index}].outcome.bin` (not shown) is not up to {LONGEST_BIN} digits")));
            }
            if card_numbers::contains(&outcome.diagnostic) {
                outcome.diagnostic = card_numbers::overwritten(&outcome.diagnostic);
            }
        }
        let appended_ms = record.timestamp_ms.unwrap_or(read.receipt_ms);
        let replay = Replay::of(record);
        // The receipt of what was replayed, and the ages that were measured then, go with when Kafka took it the first time.
        let first_append_ms = replay.as_ref().and_then(|replay| replay.first_append_ms).unwrap_or(appended_ms);
        let is_far = |one: i64, other: i64| one.abs_diff(other) > u64::from(RECEIPT_SLACK_S) * 1000;
        // A gateway's clock that is far off dates nothing.
        let is_redated = is_far(read.receipt_ms, first_append_ms);
        let dated_ms = if is_redated { first_append_ms } else { read.receipt_ms };
        // Rows are looked for where Kafka took their records: those of a late replay are received then.
        let receipt_ms = if is_far(dated_ms, appended_ms) { appended_ms } else { dated_ms };
        let span = read.trace_parent.and_then(|parent| {
            let (partition, offset, events) = (record.partition, record.offset, batch.events.len());
            trace::continued(&parent, || info_span!("classify", partition, offset, events))
        });
        Ok(Report {
            span,
            offset: record.offset,
            tenant: read.tenant,
            terminal: read.terminal,
            receipt_ms,
            is_redated,
            is_replay: replay.is_some(),
            profile,
            clock: BatchClock { receipt_ms: dated_ms, send_ms: batch.send_time.as_ref().and_then(unix_ms) },
            batch,
        })
    }

    /// The events, with their outcomes and places.
    pub(crate) fn events(&self) -> impl Iterator<Item = (u16, &Event, &Outcome)> {
        let events = (0..).zip(&self.batch.events);
        events.filter_map(|(index, event)| Some((index, event, event.outcome.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const NOON_MS: i64 = 1_790_000_000_000;

    fn record(batch: &OutcomeBatch) -> Record {
        let header = |name: &str, value: String| (name.to_owned(), Bytes::from(value));
        Record {
            offset: 7,
            timestamp_ms: Some(NOON_MS + 20),
            key: Some(Bytes::from_static(b"T-1")),
            value: batch.encode_to_vec().into(),
            headers: vec![
                header("contract", "faultline.ingest.v1".into()),
                header("tenant", "acme".into()),
                header("receipt-time-ms", NOON_MS.to_string()),
            ],
            ..Record::default()
        }
    }

    fn batch() -> OutcomeBatch {
        OutcomeBatch {
            spool_id: 7,
            events: vec![Event { sequence: 1, age_ms: Some(100), outcome: Some(Outcome::default()) }],
            ..OutcomeBatch::default()
        }
    }

    #[test]
    fn a_record_is_read_with_what_the_gateway_knows() {
        let report = Report::read(&record(&batch())).unwrap();
        assert_eq!((report.tenant.as_str(), report.terminal.as_str(), report.offset), ("acme", "T-1", 7));
        assert_eq!((report.receipt_ms, report.is_redated, report.events().count()), (NOON_MS, false, 1));
    }

    #[test]
    fn what_cannot_be_read_is_said_with_where() {
        let rejected = |record: Record| Report::read(&record).unwrap_err();
        let whole = record(&batch());
        assert_eq!(rejected(Record { key: None, ..whole.clone() }).stage, "record");
        let bytes = rejected(Record { value: Bytes::from_static(b"\xFF\xFF"), ..whole.clone() });
        assert_eq!(bytes.stage, "batch");
        let mut profile = whole;
        profile.headers.push(("profile".into(), Bytes::from_static(b"\xFF")));
        assert!(rejected(profile).reason.contains("header `profile`"));

        let many = OutcomeBatch { events: vec![batch().events[0].clone(); MOST_EVENTS + 1], ..batch() };
        assert!(rejected(record(&many)).reason.contains("`events` are 10001"));
        assert_eq!(rejected(record(&OutcomeBatch { spool_id: 0, ..batch() })).reason, "`spool_id` is 0");
        for (event, said) in [
            (Event { sequence: 0, ..batch().events[0].clone() }, "`events[1].sequence` is 0"),
            (Event { sequence: u64::MAX, ..batch().events[0].clone() }, "`events[1].sequence` is 18446744073709551615"),
            (Event { sequence: 2, outcome: None, ..Event::default() }, "`events[1].outcome` is missing"),
            (event(Outcome { bin: "6212345678901232".into(), ..Outcome::default() }), "`events[1].outcome.bin` (not shown) is not up to 8"),
            (event(Outcome { amount_minor: i64::MAX, ..Outcome::default() }), "`events[1].outcome.amount_minor` is 9223372036854775807"),
            (event(Outcome { bin: "62x".into(), ..Outcome::default() }), "`events[1].outcome.bin` (not shown)"),
        ] {
            let mut batch = batch();
            batch.events.push(event);
            let rejection = rejected(record(&batch));
            assert!(rejection.stage == "event" && rejection.reason.contains(said), "{rejection:?}");
        }
    }

    fn event(outcome: Outcome) -> Event {
        Event { sequence: 2, outcome: Some(outcome), ..Event::default() }
    }

    #[test]
    fn whoever_writes_into_the_topic_brings_no_card_number_into_rows() {
        let saying = Outcome { diagnostic: "card 6212345678901232 refused".into(), ..Outcome::default() };
        let report = Report::read(&record(&OutcomeBatch { events: vec![event(saying)], ..batch() })).unwrap();
        let (_, _, outcome) = report.events().next().unwrap();
        assert_eq!(outcome.diagnostic, "card **************** refused");
    }

    /// Its events happened when they did, and its rows are where they are looked for.
    #[test]
    fn a_replay_is_dated_by_when_it_came_first() {
        const WEEK_MS: i64 = 7 * 24 * 60 * 60 * 1000;
        let replayed = |after_ms: i64, first_ms: i64| {
            let mut record = Record { timestamp_ms: Some(NOON_MS + after_ms), ..record(&batch()) };
            record.headers.push(("replay-of".into(), Bytes::from_static(b"3-77-1790000000")));
            record.headers.push(("replay-append-time-ms".into(), Bytes::from(first_ms.to_string())));
            let report = Report::read(&record).unwrap();
            assert!(report.is_replay);
            (report.receipt_ms, report.clock.receipt_ms, report.is_redated)
        };
        assert_eq!(replayed(WEEK_MS, NOON_MS + 20), (NOON_MS + WEEK_MS, NOON_MS, false));
        assert_eq!(replayed(60_000, NOON_MS + 20), (NOON_MS, NOON_MS, false));
        // A gateway's clock that was far off then.
        assert_eq!(replayed(WEEK_MS, NOON_MS - WEEK_MS), (NOON_MS + WEEK_MS, NOON_MS - WEEK_MS, true));
        assert!(!Report::read(&record(&batch())).unwrap().is_replay);
    }

    #[test]
    fn a_gateways_clock_that_is_far_off_dates_nothing() {
        for off in [-3 * 60 * 60 * 1000, 3 * 60 * 60 * 1000] {
            let record = Record { timestamp_ms: Some(NOON_MS + off), ..record(&batch()) };
            let report = Report::read(&record).unwrap();
            assert_eq!((report.receipt_ms, report.clock.receipt_ms, report.is_redated), (NOON_MS + off, NOON_MS + off, true));
        }
    }
}

#[cfg(test)]
mod fuzz {
    use faultline_fuzz::target;

    use super::*;

    #[test]
    fn what_is_read_of_a_record_can_be_stored_and_the_rest_is_said() {
        let fates = target!(Message, "record").run(|bytes| {
            let Ok(record) = faultline_fuzz::Record::decode(bytes) else { return "no record" };
            let record = Record {
                partition: record.partition,
                offset: record.offset,
                timestamp_ms: record.timestamp_ms,
                headers: record.headers.into_iter().map(|header| (header.text(), header.content)).collect(),
                key: record.key,
                value: record.value,
            };
            let report = match Report::read(&record) {
                Ok(report) => report,
                Err(Rejection { stage, reason }) => {
                    assert!(["record", "batch", "event"].contains(&stage) && !reason.is_empty(), "{stage}: {reason}");
                    return stage;
                }
            };
            assert!(report.batch.spool_id != 0 && report.events().count() == report.batch.events.len());
            for (_, event, outcome) in report.events() {
                assert!((1..=MAX_SEQUENCE).contains(&event.sequence) && AMOUNTS.contains(&outcome.amount_minor));
                assert!(outcome.bin.len() <= LONGEST_BIN && outcome.bin.bytes().all(|byte| byte.is_ascii_digit()));
                assert!(!card_numbers::contains(&outcome.diagnostic), "{}", outcome.diagnostic);
                let dated = report.clock.date(event.age_ms, outcome.completion_time.as_ref());
                assert!(dated.unix_ms <= report.clock.receipt_ms);
            }
            // Rows are looked for where Kafka took their records.
            let appended_ms = record.timestamp_ms.unwrap_or(report.receipt_ms);
            assert!(report.receipt_ms.abs_diff(appended_ms) <= u64::from(RECEIPT_SLACK_S) * 1000);
            if report.is_replay { "a replay" } else { "read" }
        });
        fates.include(["read", "a replay", "record", "batch", "event"]);
    }
}
