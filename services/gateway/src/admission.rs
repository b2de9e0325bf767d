//! What of a batch is taken: pure, from the bytes that a terminal sent to the record that Kafka gets and the answer that the terminal gets.
//!
//! Events that are taken travel as they came, byte for byte. One that is refused is cut out, one whose free text held a card number has its digits
//! overwritten in place; nothing else of the batch is touched.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use faultline_proto::ingest::v1::{BatchAcknowledgement, DroppedRange, Event, EventRefusal, IgnoredPart, OutcomeBatch, RefusalReason};
use faultline_proto::terminal::v1::HealthSample;
use faultline_stream::{BatchClock, OutcomeRecord, unix_ms};
use prost::encoding::{WireType, encode_key, encode_varint};
use prost::{DecodeError, Message};
use prost_types::Timestamp;

use crate::credentials::Identity;
use crate::encoded::{each_once, redact, sequence_in, twice};
use crate::grammar::{self, MAX_AGE_MS, MAX_SEQUENCE, Violation};
use crate::profile::Profile;
use crate::wire::{Field, fields, repeated};

/// Limits of a batch as a whole.
pub(crate) const MAX_BATCH_BYTES: usize = 1024 * 1024;
const MAX_EVENTS: usize = 500;
const MAX_DROPPED_RANGES: usize = 16;
const MAX_HEALTH_SAMPLES: usize = 16;
/// Most ignored parts that an acknowledgement names.
const MAX_IGNORED_PARTS: usize = 50;

/// Numbers of the fields of `OutcomeBatch` that are read one by one.
const EVENTS: u32 = 3;
const DROPPED_RANGES: u32 = 4;
const HEALTH_SAMPLES: u32 = 5;
const PROFILE: u32 = 7;
/// Highest of its numbers that this program knows.
const KNOWN: u32 = 7;

/// What of a batch is taken, and what is said about it.
#[derive(Debug, PartialEq)]
pub(crate) struct Admission {
    /// What Kafka is to have before anything is acknowledged. None where nothing of the batch is taken.
    pub(crate) record: Option<OutcomeRecord>,
    /// Whether what is wrong with the connection's profile is in the acknowledgement.
    pub(crate) tells_of_connection: bool,
    /// What the terminal is told then.
    pub(crate) acknowledgement: BatchAcknowledgement,
    pub(crate) noticed: Noticed,
}

/// What is counted of a batch beside what its acknowledgement says.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Noticed {
    /// Events in it.
    pub(crate) events: usize,
    /// Events taken, by what dates them.
    pub(crate) clocks: BTreeMap<&'static str, u64>,
    /// Values of a newer contract, by field.
    pub(crate) unknown_values: BTreeMap<&'static str, u64>,
    /// Refusals by reason and field.
    pub(crate) refusals: BTreeMap<(&'static str, &'static str), u64>,
    /// Ignored parts by field.
    pub(crate) ignored: BTreeMap<&'static str, u64>,
}

/// A batch of which nothing can be taken, whatever the rest of it holds.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {description}")]
pub(crate) struct Rejection {
    /// Path of what is wrong.
    pub(crate) field: &'static str,
    pub(crate) description: String,
}

fn reject<T>(field: &'static str, description: impl Into<String>) -> Result<T, Rejection> {
    Err(Rejection { field, description: description.into() })
}

impl From<Violation> for Rejection {
    fn from(violation: Violation) -> Rejection {
        Rejection { field: violation.field, description: violation.description }
    }
}

/// Decides about a batch.
///
/// # Errors
/// When it cannot be decoded, is over a limit as a whole, or lacks what every batch must have.
pub(crate) fn admit(batch: &Bytes, identity: &Identity, connection: &Profile, receipt_ms: i64) -> Result<Admission, Rejection> {
    if batch.len() > MAX_BATCH_BYTES {
        return reject("batch", format!("is {} bytes, at most {MAX_BATCH_BYTES} are taken; send its events in two batches", batch.len()));
    }
    let parts = Parts::read(batch)?;
    let terminal = match (&identity.terminal, parts.rest.terminal_id.as_str()) {
        (Some(own), "") => own.to_string(),
        (Some(own), named) if named == own.as_ref() => own.to_string(),
        (Some(own), _) => return Ok(parts.of_another_terminal(batch, own, receipt_ms)),
        (None, "") => return reject("batch.terminal_id", "is required, since the credential is of every terminal of its tenant"),
        (None, named) => {
            grammar::terminal("batch.terminal_id", named)?;
            named.to_owned()
        }
    };
    if parts.rest.spool_id == 0 {
        return reject("batch.spool_id", "is required, and not 0");
    }
    let Some(send_time) = &parts.rest.send_time else { return reject("batch.send_time", "is required") };
    grammar::time("batch.send_time", Some(send_time))?;
    let clock = BatchClock { receipt_ms, send_ms: unix_ms(send_time) };

    let mut decision = Decision::new(clock);
    let own_profile = parts.profile.as_ref().map(|field| Profile::admit(&content(batch, field)));
    if let (Some(profile), Some(field)) = (&own_profile, &parts.profile) {
        decision.replace_profile(field, profile);
    }
    let profile = own_profile.as_ref().unwrap_or(connection);
    decision.take_profile(profile);
    for (index, field) in parts.events.iter().enumerate() {
        decision.take_event(index, field, &content(batch, field));
    }
    for (index, field) in parts.dropped_ranges.iter().enumerate() {
        let checked = DroppedRange::decode(content(batch, field)).map(|range| grammar::dropped_range(&range));
        decision.take_part(("dropped_ranges", index), field, checked);
    }
    for (index, field) in parts.health_samples.iter().enumerate() {
        let checked = HealthSample::decode(content(batch, field)).map(|sample| {
            decision.notice_unknown(grammar::unknown_health_values(&sample));
            grammar::health_sample(&sample)
        });
        decision.take_part(("health_samples", index), field, checked);
    }

    let record = (decision.taken > 0).then(|| OutcomeRecord {
        tenant: identity.tenant.to_string(),
        terminal,
        receipt_ms,
        profile: profile.encoded.clone(),
        trace_parent: None,
        batch: decision.edited(batch),
    });
    let tells_of_connection = own_profile.is_none();
    Ok(Admission { tells_of_connection, ..decision.into_admission(record, parts.rest.spool_id) })
}

/// The fields of a batch, those that are judged one by one apart from the rest.
struct Parts {
    events: Vec<Field>,
    dropped_ranges: Vec<Field>,
    health_samples: Vec<Field>,
    profile: Option<Field>,
    rest: OutcomeBatch,
}

impl Parts {
    fn read(batch: &Bytes) -> Result<Parts, Rejection> {
        let malformed = |error: DecodeError| Rejection { field: "batch", description: error.to_string() };
        let (mut events, mut dropped_ranges, mut health_samples, mut profile) = (Vec::new(), Vec::new(), Vec::new(), None);
        let mut rest = BytesMut::new();
        for field in fields(batch) {
            let field = field.map_err(malformed)?;
            match (field.number, &field.content) {
                (EVENTS, Some(_)) => events.push(field),
                (DROPPED_RANGES, Some(_)) => dropped_ranges.push(field),
                (HEALTH_SAMPLES, Some(_)) => health_samples.push(field),
                (PROFILE, Some(_)) => profile = Some(field),
                _ => rest.extend_from_slice(batch.get(field.whole).unwrap_or_default()),
            }
        }
        for (field, count, limit) in [
            ("batch.events", events.len(), MAX_EVENTS),
            ("batch.dropped_ranges", dropped_ranges.len(), MAX_DROPPED_RANGES),
            ("batch.health_samples", health_samples.len(), MAX_HEALTH_SAMPLES),
        ] {
            if count > limit {
                return reject(field, format!("are {count}, at most {limit} are taken"));
            }
        }
        if let Some(number) = repeated(batch, KNOWN, &[EVENTS, DROPPED_RANGES, HEALTH_SAMPLES]) {
            return reject("batch", twice(number));
        }
        let rest = OutcomeBatch::decode(rest.freeze()).map_err(malformed)?;
        Ok(Parts { events, dropped_ranges, health_samples, profile, rest })
    }

    /// Nothing is taken: a credential speaks for its own terminal only. What the batch says it is of is not repeated.
    fn of_another_terminal(&self, batch: &Bytes, own: &str, receipt_ms: i64) -> Admission {
        let description = || format!("the credential is of terminal `{own}`, the batch names another");
        let mut decision = Decision::new(BatchClock { receipt_ms, send_ms: None });
        for (index, field) in self.events.iter().enumerate() {
            let sequence = sequence_in(&content(batch, field));
            decision.settle(sequence);
            decision.refuse(index, sequence, Refused::because(RefusalReason::OtherTerminal, "batch.terminal_id", description()));
        }
        for (part, fields) in [("dropped_ranges", &self.dropped_ranges), ("health_samples", &self.health_samples)] {
            for index in 0..fields.len() {
                decision.ignore(part, format!("{part}[{index}]"), description());
            }
        }
        decision.into_admission(None, self.rest.spool_id)
    }
}

fn content(message: &Bytes, field: &Field) -> Bytes {
    field.content.clone().map(|range| message.slice(range)).unwrap_or_default()
}

/// Why an event is not taken.
struct Refused {
    reason: RefusalReason,
    violation: Violation,
}

impl Refused {
    fn because(reason: RefusalReason, field: &'static str, description: String) -> Refused {
        Refused { reason, violation: Violation { field, description } }
    }
}

impl From<Violation> for Refused {
    fn from(violation: Violation) -> Refused {
        Refused { reason: RefusalReason::InvalidField, violation }
    }
}

/// What has been decided so far.
struct Decision {
    clock: BatchClock,
    /// Parts that are taken: events, ranges and samples.
    taken: usize,
    /// What is cut out of the batch, and what stands there instead.
    edits: Vec<(Range<usize>, Bytes)>,
    /// That of the last event before, taken or refused.
    last_sequence: u64,
    /// That of an event which cannot be decoded as a whole. It is believed unless a later event contradicts it.
    doubtful_sequence: u64,
    refusals: Vec<EventRefusal>,
    redacted_sequences: Vec<u64>,
    ignored_parts: Vec<IgnoredPart>,
    noticed: Noticed,
}

impl Decision {
    fn new(clock: BatchClock) -> Decision {
        Decision {
            clock,
            taken: 0,
            edits: Vec::new(),
            last_sequence: 0,
            doubtful_sequence: 0,
            refusals: Vec::new(),
            redacted_sequences: Vec::new(),
            ignored_parts: Vec::new(),
            noticed: Noticed::default(),
        }
    }

    fn take_event(&mut self, index: usize, field: &Field, encoded: &Bytes) {
        let event = match Event::decode(encoded.clone()) {
            Ok(event) => event,
            Err(error) => {
                self.cut(field);
                let sequence = sequence_in(encoded);
                self.doubtful_sequence = if sequence <= MAX_SEQUENCE { sequence } else { 0 };
                return self.refuse(index, sequence, Refused::because(RefusalReason::Malformed, "", error.to_string()));
            }
        };
        let judged = each_once(encoded).map_err(Refused::from).and_then(|text| self.judge(&event).map(|()| text));
        self.settle(event.sequence);
        let text = match judged {
            Ok(text) => text,
            Err(refused) => {
                self.cut(field);
                return self.refuse(index, event.sequence, refused);
            }
        };
        self.noticed.events += 1;
        self.taken += 1;
        if let Some(outcome) = &event.outcome {
            self.notice_unknown(grammar::unknown_values(outcome));
        }
        let redacted = text.and_then(|text| redact(encoded, text));
        if let (Some(redacted), Some(range)) = (redacted, field.content.clone()) {
            self.edits.push((range, redacted));
            self.redacted_sequences.push(event.sequence);
        }
    }

    /// Whether an event is taken.
    fn judge(&mut self, event: &Event) -> Result<(), Refused> {
        grammar::number("sequence", event.sequence, 1, MAX_SEQUENCE)?;
        if event.sequence <= self.last_sequence {
            let description = format!("{} does not rise above the {} before it", event.sequence, self.last_sequence);
            return Err(Refused::because(RefusalReason::OutOfOrder, "sequence", description));
        }
        grammar::event(event)?;
        let completion = event.outcome.as_ref().and_then(|outcome| outcome.completion_time.as_ref());
        let dated = self.clock.date(event.age_ms, completion);
        let age_ms = self.clock.receipt_ms.saturating_sub(dated.unix_ms);
        if age_ms.cast_unsigned() > MAX_AGE_MS {
            let field = if event.age_ms.is_some() { "age_ms" } else { "outcome.completion_time" };
            let description = format!("the event is {age_ms} ms old, at most {MAX_AGE_MS} are taken");
            return Err(Refused::because(RefusalReason::TooOld, field, description));
        }
        *self.noticed.clocks.entry(dated.clock.name()).or_default() += 1;
        Ok(())
    }

    /// An event with this sequence was taken or refused: what comes next must be above it.
    fn settle(&mut self, sequence: u64) {
        if sequence > self.last_sequence && sequence <= MAX_SEQUENCE {
            self.last_sequence = sequence;
            if self.doubtful_sequence >= sequence {
                self.doubtful_sequence = 0;
            }
        }
    }

    fn refuse(&mut self, index: usize, sequence: u64, Refused { reason, violation }: Refused) {
        self.noticed.events += 1;
        *self.noticed.refusals.entry((name(reason), violation.field)).or_default() += 1;
        self.refusals.push(EventRefusal {
            sequence: if sequence <= MAX_SEQUENCE { sequence } else { 0 },
            index: u32::try_from(index).unwrap_or(u32::MAX),
            reason: reason.into(),
            field: violation.field.into(),
            description: shortened(violation.description),
        });
    }

    fn take_part(&mut self, (name, index): (&'static str, usize), field: &Field, checked: Result<Result<(), Violation>, DecodeError>) {
        let violation = match checked {
            Ok(Ok(())) => return self.taken += 1,
            Ok(Err(violation)) => violation,
            Err(error) => Violation { field: "", description: error.to_string() },
        };
        self.cut(field);
        let dot = if violation.field.is_empty() { "" } else { "." };
        self.ignore(name, format!("{name}[{index}]{dot}{}", violation.field), violation.description);
    }

    /// Puts the profile of a batch as it is taken in the place of what came, where the two differ.
    fn replace_profile(&mut self, field: &Field, taken: &Profile) {
        if taken.ignored.is_empty() {
            return;
        }
        let mut instead = BytesMut::new();
        if !taken.encoded.is_empty() {
            encode_key(PROFILE, WireType::LengthDelimited, &mut instead);
            encode_varint(u64::try_from(taken.encoded.len()).unwrap_or(u64::MAX), &mut instead);
            instead.extend_from_slice(&taken.encoded);
        }
        self.edits.push((field.whole.clone(), instead.freeze()));
    }

    fn take_profile(&mut self, profile: &Profile) {
        for violation in &profile.ignored {
            self.ignore(violation.field, violation.field.into(), violation.description.clone());
        }
        self.notice_unknown(profile.unknown_values.iter().copied());
    }

    fn ignore(&mut self, part: &'static str, field: String, description: String) {
        *self.noticed.ignored.entry(part).or_default() += 1;
        if self.ignored_parts.len() < MAX_IGNORED_PARTS {
            self.ignored_parts.push(IgnoredPart { field, description: shortened(description) });
        }
    }

    fn notice_unknown(&mut self, fields: impl Iterator<Item = &'static str>) {
        for field in fields {
            *self.noticed.unknown_values.entry(field).or_default() += 1;
        }
    }

    fn cut(&mut self, field: &Field) {
        self.edits.push((field.whole.clone(), Bytes::new()));
    }

    /// The batch with its edits: itself, where there are none.
    fn edited(&self, batch: &Bytes) -> Bytes {
        if self.edits.is_empty() {
            return batch.clone();
        }
        let mut edits: Vec<&(Range<usize>, Bytes)> = self.edits.iter().collect();
        edits.sort_by_key(|(range, _)| range.start);
        let mut edited = BytesMut::with_capacity(batch.len());
        let mut kept = 0;
        for (range, instead) in edits {
            edited.extend_from_slice(batch.get(kept..range.start).unwrap_or_default());
            edited.extend_from_slice(instead);
            kept = range.end;
        }
        edited.extend_from_slice(batch.get(kept..).unwrap_or_default());
        edited.freeze()
    }

    fn into_admission(self, record: Option<OutcomeRecord>, spool_id: u64) -> Admission {
        let receipt_ms = self.clock.receipt_ms;
        let nanos = i32::try_from(receipt_ms.rem_euclid(1000) * 1_000_000).unwrap_or_default();
        let acknowledgement = BatchAcknowledgement {
            spool_id,
            acknowledged_through: self.last_sequence.max(self.doubtful_sequence),
            refusals: self.refusals,
            redacted_sequences: self.redacted_sequences,
            receipt_time: Some(Timestamp { seconds: receipt_ms.div_euclid(1000), nanos }),
            ignored_parts: self.ignored_parts,
        };
        Admission { record, tells_of_connection: false, acknowledgement, noticed: self.noticed }
    }
}

/// What a reason is counted as.
fn name(reason: RefusalReason) -> &'static str {
    match reason {
        RefusalReason::Unspecified => "unspecified",
        RefusalReason::Malformed => "malformed",
        RefusalReason::InvalidField => "invalid_field",
        RefusalReason::OtherTerminal => "other_terminal",
        RefusalReason::OutOfOrder => "out_of_order",
        RefusalReason::TooOld => "too_old",
    }
}

/// What fits into the contract's 500 bytes.
fn shortened(mut description: String) -> String {
    description.truncate(description.floor_char_boundary(500));
    description
}

#[cfg(test)]
mod tests {
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
        let event =
            |age_ms, completion| Event { age_ms, outcome: Some(Outcome { completion_time: at(completion), ..outcome() }), ..event(1) };
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
        let own = OutcomeBatch {
            profile: Some(TerminalProfile { carrier: "46000".into(), ..TerminalProfile::default() }),
            ..batch(vec![event(1)])
        };
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
}
