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
mod tests;
