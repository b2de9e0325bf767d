//! What becomes of batches, event by event.

use super::*;
use crate::wire::highest_number;
use faultline_proto::outcome::v1::{Outcome, Stage, TransactionType};
use faultline_proto::terminal::v1::TerminalProfile;

const NOON_MS: i64 = 1_790_000_000_000;
const DAY_MS: i64 = 86_400_000;

fn identity(terminal: Option<&str>) -> Identity {
    Identity { tenant: "acme".into(), terminal: terminal.map(Into::into) }
}

fn outcome() -> Outcome {
    Outcome {
        merchant_id: "898440351980019".into(),
        r#type: TransactionType::Sale.into(),
        stage: Stage::Wait.into(),
        amount_minor: 1234,
        currency_code: "CNY".into(),
        ..Outcome::default()
    }
}

fn event(sequence: u64) -> Event {
    Event { sequence, age_ms: Some(100), outcome: Some(outcome()) }
}

fn saying(sequence: u64, diagnostic: &str) -> Event {
    Event { outcome: Some(Outcome { diagnostic: diagnostic.into(), ..outcome() }), ..event(sequence) }
}

fn at(unix_ms: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds: unix_ms.div_euclid(1000), nanos: 0 })
}

fn batch(events: Vec<Event>) -> OutcomeBatch {
    OutcomeBatch { spool_id: 9, events, send_time: at(NOON_MS), ..OutcomeBatch::default() }
}

fn encoded(batch: &OutcomeBatch) -> Bytes {
    batch.encode_to_vec().into()
}

fn admitted(batch: &Bytes) -> Admission {
    admit(batch, &identity(Some("T-1")), &Profile::default(), NOON_MS).unwrap()
}

/// A batch with these events as bytes.
fn with_events(events: &[Vec<u8>]) -> Bytes {
    let mut bytes = encoded(&batch(vec![])).to_vec();
    for event in events {
        append(&mut bytes, EVENTS, event);
    }
    bytes.into()
}

fn append(message: &mut Vec<u8>, number: u32, content: &[u8]) {
    encode_key(number, WireType::LengthDelimited, message);
    encode_varint(u64::try_from(content.len()).unwrap(), message);
    message.extend_from_slice(content);
}

fn refusals(admission: &Admission) -> Vec<(u64, u32, RefusalReason, &str)> {
    let refusals = admission.acknowledgement.refusals.iter();
    refusals.map(|refusal| (refusal.sequence, refusal.index, refusal.reason(), refusal.field.as_str())).collect()
}

#[test]
fn a_batch_without_fault_travels_as_it_is() {
    let mut bytes = encoded(&batch(vec![event(1), event(2)])).to_vec();
    append(&mut bytes, 1000, b"of a newer contract");
    let bytes = Bytes::from(bytes);
    let admission = admitted(&bytes);
    let record = admission.record.as_ref().unwrap();
    assert_eq!(record.batch, bytes);
    assert_eq!((record.tenant.as_str(), record.terminal.as_str(), record.receipt_ms), ("acme", "T-1", NOON_MS));
    assert_eq!((admission.acknowledgement.spool_id, admission.acknowledgement.acknowledged_through), (9, 2));
    assert_eq!(admission.acknowledgement.receipt_time, at(NOON_MS));
    assert_eq!(refusals(&admission), []);
}

#[test]
fn only_what_is_refused_is_cut_out() {
    let mut newer = event(3).encode_to_vec();
    append(&mut newer, 500, b"of a newer contract");
    let mut nameless = event(2);
    nameless.outcome.as_mut().unwrap().merchant_id.clear();
    let good = [event(1).encode_to_vec(), newer];
    let admission = admitted(&with_events(&[good[0].clone(), nameless.encode_to_vec(), good[1].clone(), event(3).encode_to_vec()]));
    assert_eq!(
        refusals(&admission),
        [(2, 1, RefusalReason::InvalidField, "outcome.merchant_id"), (3, 3, RefusalReason::OutOfOrder, "sequence")]
    );
    assert_eq!(admission.record.unwrap().batch, with_events(&good));
    assert_eq!(admission.acknowledgement.acknowledged_through, 3);
    assert_eq!(admission.noticed.events, 4);
    assert_eq!(admission.noticed.refusals.values().sum::<u64>(), 2);
}

#[test]
fn an_event_that_cannot_be_decoded_is_refused_alone() {
    let mut no_text = outcome().encode_to_vec();
    append(&mut no_text, 26, b"\xC9\xC9");
    let mut malformed = Event { outcome: None, ..event(7) }.encode_to_vec();
    append(&mut malformed, 3, &no_text);
    let admission = admitted(&with_events(&[event(6).encode_to_vec(), malformed.clone()]));
    assert_eq!(refusals(&admission), [(7, 1, RefusalReason::Malformed, "")]);
    assert!(admission.acknowledgement.refusals[0].description.contains("diagnostic"), "{admission:?}");
    assert_eq!(admission.acknowledgement.acknowledged_through, 7);
    assert_eq!(admission.record.unwrap().batch, with_events(&[event(6).encode_to_vec()]));

    // Where nothing can be read, or what was read cannot be right, nothing is settled by it.
    let admission = admitted(&with_events(&[event(6).encode_to_vec(), vec![0xFF; 3]]));
    assert_eq!((refusals(&admission), admission.acknowledgement.acknowledged_through), (vec![(0, 1, RefusalReason::Malformed, "")], 6));
    let admission = admitted(&with_events(&[malformed, event(6).encode_to_vec()]));
    assert_eq!((admission.acknowledgement.refusals.len(), admission.acknowledgement.acknowledged_through), (1, 6));
}

#[test]
fn card_numbers_are_overwritten_and_nothing_else() {
    let said = "no answer for 6212345678901232 from host";
    let mut newer = saying(2, said).encode_to_vec();
    append(&mut newer, 500, b"of a newer contract");
    let place = newer.windows(16).position(|window| window == b"6212345678901232").unwrap();
    let mut overwritten = newer.clone();
    overwritten[place..place + 16].fill(b'*');
    let admission = admitted(&with_events(&[event(1).encode_to_vec(), newer]));
    assert_eq!(admission.record.unwrap().batch, with_events(&[event(1).encode_to_vec(), overwritten]));
    assert_eq!(admission.acknowledgement.redacted_sequences, [2]);
    assert_eq!(admission.acknowledgement.refusals, []);
}

/// Decoding takes the last of them, and only that would be checked; whoever reads the record finds them all.
#[test]
fn nothing_hides_in_a_field_that_is_sent_twice() {
    let hidden = "PAN 6212345678901232 CVV 123";
    let doubled = |message: &Outcome| {
        let mut twice = event(1).encode_to_vec();
        append(&mut twice, 3, &message.encode_to_vec());
        twice
    };
    let within = |number, content: &[u8]| {
        let mut outcome = outcome().encode_to_vec();
        append(&mut outcome, number, content);
        append(&mut outcome, number, b"");
        let mut event = Event { outcome: None, ..event(1) }.encode_to_vec();
        append(&mut event, 3, &outcome);
        event
    };
    let mut original = Vec::new();
    append(&mut original, 3, hidden.as_bytes());
    append(&mut original, 3, b"1");
    let mut once = outcome().encode_to_vec();
    append(&mut once, 17, &original);
    let mut in_original = Event { outcome: None, ..event(1) }.encode_to_vec();
    append(&mut in_original, 3, &once);
    for (bytes, field) in [
        (doubled(&Outcome { diagnostic: hidden.into(), ..Outcome::default() }), "event"),
        (within(26, hidden.as_bytes()), "outcome"),
        (within(32, hidden.as_bytes()), "outcome"),
        (in_original, "outcome.original"),
    ] {
        let admission = admitted(&with_events(&[bytes]));
        assert_eq!(refusals(&admission), [(1, 0, RefusalReason::InvalidField, field)]);
        assert_eq!(admission.record, None);
    }
    let mut batch = encoded(&batch(vec![event(1)])).to_vec();
    append(&mut batch, 1, hidden.as_bytes());
    append(&mut batch, 1, b"");
    assert_eq!(admit(&batch.into(), &identity(Some("T-1")), &Profile::default(), NOON_MS).unwrap_err().field, "batch");
}

#[test]
fn another_terminals_batch_is_refused_event_by_event() {
    let theirs = OutcomeBatch { terminal_id: "T-2".into(), ..batch(vec![event(4), event(5)]) };
    let admission = admitted(&encoded(&theirs));
    assert_eq!(admission.record, None);
    let other = |sequence, index| (sequence, index, RefusalReason::OtherTerminal, "batch.terminal_id");
    assert_eq!(refusals(&admission), [other(4, 0), other(5, 1)]);
    assert!(!format!("{:?}", admission.acknowledgement).contains("T-2"));
    let sample = HealthSample { sequence: 1, ..HealthSample::default() };
    let admission = admitted(&encoded(&OutcomeBatch { health_samples: vec![sample], ..theirs.clone() }));
    assert_eq!(admission.acknowledgement.ignored_parts[0].field, "health_samples[0]");
    let own = OutcomeBatch { terminal_id: "T-1".into(), ..theirs };
    assert_eq!(admitted(&encoded(&own)).record.unwrap().terminal, "T-1");
}

#[test]
fn a_credential_of_a_whole_tenant_needs_the_terminal_named() {
    let nameless = encoded(&batch(vec![event(1)]));
    let tenant = identity(None);
    let rejection = admit(&nameless, &tenant, &Profile::default(), NOON_MS).unwrap_err();
    assert_eq!(rejection.field, "batch.terminal_id");
    let named = |terminal: &str| encoded(&OutcomeBatch { terminal_id: terminal.into(), ..batch(vec![event(1)]) });
    assert_eq!(admit(&named("T-7"), &tenant, &Profile::default(), NOON_MS).unwrap().record.unwrap().terminal, "T-7");
    let rejection = admit(&named("T 7"), &tenant, &Profile::default(), NOON_MS).unwrap_err();
    assert!(rejection.description.contains("`T 7`"), "{rejection}");
}

#[test]
fn a_batch_that_lacks_what_every_batch_has_is_rejected() {
    let rejected = |bytes: &Bytes| admit(bytes, &identity(Some("T-1")), &Profile::default(), NOON_MS).unwrap_err();
    assert_eq!(rejected(&encoded(&OutcomeBatch { spool_id: 0, ..batch(vec![event(1)]) })).field, "batch.spool_id");
    assert_eq!(rejected(&encoded(&OutcomeBatch { send_time: None, ..batch(vec![event(1)]) })).field, "batch.send_time");
    let never = Some(Timestamp { seconds: i64::MAX, nanos: 0 });
    assert_eq!(rejected(&encoded(&OutcomeBatch { send_time: never, ..batch(vec![event(1)]) })).field, "batch.send_time");
    assert_eq!(rejected(&Bytes::from_static(&[0x1A, 0x7F])).field, "batch");
}

#[test]
fn the_contract_has_no_field_that_is_not_known_here() {
    assert_eq!(highest_number("OutcomeBatch"), KNOWN);
}

#[test]
fn a_batch_over_a_limit_is_rejected_and_one_at_the_limit_is_not() {
    let events = |count| encoded(&batch((1..=count).map(event).collect()));
    assert_eq!(admitted(&events(500)).acknowledgement.acknowledged_through, 500);
    let rejection = admit(&events(501), &identity(Some("T-1")), &Profile::default(), NOON_MS).unwrap_err();
    assert_eq!((rejection.field, rejection.description.as_str()), ("batch.events", "are 501, at most 500 are taken"));
    let mut large = encoded(&batch(vec![event(1)])).to_vec();
    append(&mut large, 1000, &vec![0; MAX_BATCH_BYTES]);
    assert_eq!(admit(&large.into(), &identity(Some("T-1")), &Profile::default(), NOON_MS).unwrap_err().field, "batch");
}

#[test]
fn a_clock_two_days_off_is_corrected_and_flagged() {
    let event = |age_ms, completion| Event { age_ms, outcome: Some(Outcome { completion_time: at(completion), ..outcome() }), ..event(1) };
    for (event, clock) in [
        (event(Some(100), NOON_MS + 2 * DAY_MS), "age"),
        (event(None, NOON_MS + 2 * DAY_MS - 5000), "corrected"),
        (event(None, NOON_MS + 3 * DAY_MS), "uncertain"),
    ] {
        let ahead = OutcomeBatch { send_time: at(NOON_MS + 2 * DAY_MS), ..batch(vec![event]) };
        let admission = admitted(&encoded(&ahead));
        assert_eq!(refusals(&admission), []);
        assert_eq!(admission.noticed.clocks, BTreeMap::from([(clock, 1)]));
    }
}

#[test]
fn what_is_older_than_is_kept_is_refused_openly() {
    let aged = |age_ms| Event { age_ms: Some(age_ms), ..event(1) };
    let admission = admitted(&encoded(&batch(vec![aged(MAX_AGE_MS)])));
    assert_eq!(refusals(&admission), []);
    for age_ms in [MAX_AGE_MS + 1, u64::MAX] {
        let admission = admitted(&encoded(&batch(vec![aged(age_ms)])));
        assert_eq!(refusals(&admission), [(1, 0, RefusalReason::TooOld, "age_ms")]);
        assert_eq!(admission.record, None);
    }
    let old = Event { age_ms: None, outcome: Some(Outcome { completion_time: at(NOON_MS - 31 * DAY_MS), ..outcome() }), ..event(1) };
    assert_eq!(refusals(&admitted(&encoded(&batch(vec![old])))), [(1, 0, RefusalReason::TooOld, "outcome.completion_time")]);
}

#[test]
fn samples_and_ranges_are_judged_one_by_one() {
    let sample = |sequence, battery| HealthSample { sequence, battery_percent: Some(battery), ..HealthSample::default() };
    let range = |first_sequence, last_sequence| DroppedRange { first_sequence, last_sequence, reason: 1 };
    let mixed = OutcomeBatch {
        health_samples: vec![sample(1, 50), sample(2, 101)],
        dropped_ranges: vec![range(5, 4), range(4, 5)],
        ..batch(vec![event(1)])
    };
    let admission = admitted(&encoded(&mixed));
    let parts: Vec<&str> = admission.acknowledgement.ignored_parts.iter().map(|part| part.field.as_str()).collect();
    assert_eq!(parts, ["dropped_ranges[0].last_sequence", "health_samples[1].battery_percent"]);
    let kept = OutcomeBatch { health_samples: vec![sample(1, 50)], dropped_ranges: vec![range(4, 5)], ..mixed };
    assert_eq!(OutcomeBatch::decode(admission.record.unwrap().batch).unwrap(), kept);
    // Without events they are kept too, and nothing is acknowledged that was not there.
    let admission = admitted(&encoded(&OutcomeBatch { events: vec![], ..kept }));
    assert!(admission.record.is_some());
    assert_eq!(admission.acknowledgement.acknowledged_through, 0);
}

#[test]
fn a_profile_loses_what_is_wrong_with_it_and_keeps_the_rest() {
    let profile =
        TerminalProfile { model: "PAX A920".into(), carrier: "中国移动".into(), access_network: 77, ..TerminalProfile::default() };
    let mut bytes = profile.encode_to_vec();
    append(&mut bytes, 900, b"of a newer contract");
    let mut right = TerminalProfile { carrier: String::new(), ..profile }.encode_to_vec();
    append(&mut right, 900, b"of a newer contract");
    let mut connection = Profile::admit(&bytes.into());
    assert_eq!(connection.encoded, right);

    let events = encoded(&batch(vec![event(1)]));
    let admission = admit(&events, &identity(Some("T-1")), &connection, NOON_MS).unwrap();
    assert_eq!(admission.acknowledgement.ignored_parts[0].field, "profile.carrier");
    assert_eq!(admission.noticed.unknown_values, BTreeMap::from([("profile.access_network", 1)]));
    assert_eq!(admission.record.unwrap().profile, right);

    assert!(admission.tells_of_connection);
    connection.told();
    let own =
        OutcomeBatch { profile: Some(TerminalProfile { carrier: "46000".into(), ..TerminalProfile::default() }), ..batch(vec![event(1)]) };
    let admission = admit(&encoded(&own), &identity(Some("T-1")), &connection, NOON_MS).unwrap();
    assert_eq!(admission.acknowledgement.ignored_parts, []);
    assert!(!admission.tells_of_connection);
    assert_eq!(admission.record.unwrap().profile, own.profile.clone().unwrap().encode_to_vec());

    let twice = [encoded(&own), Bytes::from(vec![0x3A, 0])].concat();
    assert_eq!(admit(&twice.into(), &identity(Some("T-1")), &connection, NOON_MS).unwrap_err().field, "batch");
}

/// The next reader of a record is not to find there what the terminal was told had been left out.
#[test]
fn what_is_left_out_of_a_batchs_own_profile_is_not_in_the_record() {
    let own = |profile: TerminalProfile| encoded(&OutcomeBatch { profile: Some(profile), ..batch(vec![event(1)]) });
    let wrong = TerminalProfile { model: "中4111111111111111".into(), carrier: "46000".into(), ..TerminalProfile::default() };
    let right = TerminalProfile { model: String::new(), ..wrong.clone() };
    let record = admitted(&own(wrong)).record.unwrap();
    assert_eq!((record.profile, record.batch), (right.encode_to_vec().into(), own(right)));
    let nothing_left = TerminalProfile { apn: "中".into(), ..TerminalProfile::default() };
    assert_eq!(admitted(&own(nothing_left)).record.unwrap().batch, encoded(&batch(vec![event(1)])));
}

#[test]
fn a_batch_of_nothing_is_acknowledged_without_a_record() {
    let admission = admitted(&encoded(&batch(vec![])));
    assert_eq!((admission.record, admission.acknowledgement.acknowledged_through), (None, 0));
}
