//! Whatever bytes come: see `faultline_fuzz`.

use std::collections::HashSet;

use bytes::Bytes;
use faultline_fuzz::target;
use faultline_proto::ingest::v1::{BatchAcknowledgement, Event, OutcomeBatch, RefusalReason};
use faultline_proto::terminal::v1::TerminalProfile;
use faultline_stream::{OutcomeRecord, card_numbers};
use prost::Message;

use crate::admission::{Admission, admit};
use crate::credentials::{Credentials, CredentialsError, Identity};
use crate::grammar::MAX_SEQUENCE;
use crate::profile::Profile;
use crate::wire::{Field, fields};

const NOON_MS: i64 = 1_790_000_000_000;

/// A batch as another reader sees it: the parts that are judged one by one, as they came.
#[derive(Clone, PartialEq, prost::Message)]
struct Parts {
    #[prost(bytes = "bytes", repeated, tag = "3")]
    events: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "4")]
    dropped_ranges: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "5")]
    health_samples: Vec<Bytes>,
}

#[test]
fn of_a_batch_what_is_taken_travels_as_it_came_and_the_rest_is_named() {
    let connection = Profile::default();
    let fates = target!(Message, "batch").run(|bytes| {
        let batch = Bytes::copy_from_slice(bytes);
        let of_tenant = Identity { tenant: "acme".into(), terminal: None };
        let of_terminal = Identity { terminal: Some("T-1".into()), ..of_tenant.clone() };
        for identity in [of_tenant, of_terminal] {
            let Ok(admission) = admit(&batch, &identity, &connection, NOON_MS) else { continue };
            check_said(&admission.acknowledgement);
            let Some(record) = &admission.record else {
                assert!(admission.acknowledgement.redacted_sequences.is_empty());
                continue;
            };
            check_taken(&batch, record, &admission);
            // What was taken is taken again, as it is.
            let again = admit(&record.batch, &identity, &connection, NOON_MS).unwrap();
            assert_eq!(again.record.as_ref(), Some(record));
            let said = &again.acknowledgement;
            assert_eq!((&said.refusals[..], &said.redacted_sequences[..], &said.ignored_parts[..]), (&[][..], &[][..], &[][..]));
        }
        let Ok(admission) = admit(&batch, &Identity { tenant: "acme".into(), terminal: Some("T-1".into()) }, &connection, NOON_MS) else {
            return "rejected";
        };
        match (admission.record, admission.acknowledgement) {
            (None, _) => "nothing taken",
            (Some(_), said) if !said.redacted_sequences.is_empty() => "redacted",
            (Some(_), said) if !said.refusals.is_empty() => "taken in part",
            (Some(record), _) if record.batch != batch => "corrected",
            (Some(_), _) => "taken",
        }
    });
    fates.include(["rejected", "nothing taken", "redacted", "taken in part", "corrected", "taken"]);
}

/// What a terminal is told has no card number in it, and names what it is about.
fn check_said(said: &BatchAcknowledgement) {
    for refusal in &said.refusals {
        assert_ne!(refusal.reason(), RefusalReason::Unspecified);
        assert!(!refusal.description.is_empty() && refusal.sequence <= MAX_SEQUENCE);
    }
    assert!(said.refusals.is_sorted_by(|one, other| one.index < other.index));
    assert!(said.acknowledged_through <= MAX_SEQUENCE);
    let descriptions = said.refusals.iter().map(|refusal| &refusal.description);
    for description in descriptions.chain(said.ignored_parts.iter().map(|part| &part.description)) {
        assert!(description.len() <= 500 && !shows_card_number(description), "{description}");
    }
}

/// Values are shown between backticks; numbers without them are no texts of the terminal's.
fn shows_card_number(description: &str) -> bool {
    description.split('`').skip(1).step_by(2).any(card_numbers::contains)
}

fn check_taken(batch: &Bytes, record: &OutcomeRecord, Admission { acknowledgement: said, .. }: &Admission) {
    assert!(record.batch.len() <= batch.len());
    let decoded = OutcomeBatch::decode(record.batch.clone()).unwrap();
    let (came, taken) = (Parts::decode(batch.clone()).unwrap(), Parts::decode(record.batch.clone()).unwrap());

    let refused: HashSet<usize> = said.refusals.iter().map(|refusal| usize::try_from(refusal.index).unwrap()).collect();
    let expected: Vec<&Bytes> =
        came.events.iter().enumerate().filter(|(index, _)| !refused.contains(index)).map(|(_, event)| event).collect();
    assert_eq!((taken.events.len(), decoded.events.len()), (expected.len(), expected.len()));
    for ((came, taken), event) in expected.iter().zip(&taken.events).zip(&decoded.events) {
        let is_redacted = said.redacted_sequences.contains(&event.sequence);
        assert_eq!(came.len(), taken.len());
        assert!(came.iter().zip(taken).all(|(came, taken)| came == taken || (is_redacted && *taken == b'*')));
        assert_eq!(*came != taken, is_redacted);
        let outcome = event.outcome.as_ref().unwrap();
        assert!(!card_numbers::contains(&outcome.diagnostic), "{}", outcome.diagnostic);
        assert!(outcome.bin.len() <= 8 && (1..=said.acknowledged_through).contains(&event.sequence));
    }
    assert!(decoded.events.is_sorted_by(|one, other| one.sequence < other.sequence));
    assert!(taken.dropped_ranges.iter().all(|range| came.dropped_ranges.contains(range)));
    assert!(taken.health_samples.iter().all(|sample| came.health_samples.contains(sample)));
    let left_out = came.dropped_ranges.len() + came.health_samples.len() - taken.dropped_ranges.len() - taken.health_samples.len();
    assert!(said.ignored_parts.len() >= left_out);
    assert_eq!(TerminalProfile::decode(record.profile.clone()), Ok(decoded.profile.unwrap_or_default()));
}

/// Who reads bytes by other means than those who decode them must see the same in them.
#[test]
fn fields_are_where_prost_has_them() {
    let fates = target!(Message, "batch").run(|bytes| {
        let found: Result<Vec<Field>, _> = fields(bytes).collect();
        assert_eq!(found.is_ok(), <()>::decode(bytes).is_ok());
        let Ok(found) = found else { return "no message" };
        let mut end = 0;
        for Field { number, whole, content } in &found {
            assert_eq!(whole.start, end);
            assert!(*number > 0 && whole.end > whole.start);
            assert!(content.as_ref().is_none_or(|content| content.start > whole.start && content.end == whole.end));
            end = whole.end;
        }
        assert_eq!(end, bytes.len());
        let of = |wanted: u32| -> Vec<&[u8]> {
            let found = found.iter().filter(|field| field.number == wanted);
            found.filter_map(|field| field.content.clone()).map(|content| &bytes[content]).collect()
        };
        match Parts::decode(bytes) {
            Ok(parts) => {
                assert_eq!((of(3), of(4), of(5)), (slices(&parts.events), slices(&parts.dropped_ranges), slices(&parts.health_samples)));
                "a batch"
            }
            Err(_) => "another message",
        }
    });
    fates.include(["no message", "a batch", "another message"]);
}

fn slices(parts: &[Bytes]) -> Vec<&[u8]> {
    parts.iter().map(AsRef::as_ref).collect()
}

#[test]
fn of_a_profile_what_is_right_stays() {
    let fates = target!(Message, "profile").run(|bytes| {
        let taken = Profile::admit(&Bytes::copy_from_slice(bytes));
        assert!(taken.encoded.len() <= bytes.len());
        let decoded = TerminalProfile::decode(taken.encoded.clone()).unwrap();
        let again = Profile::admit(&taken.encoded);
        assert_eq!((&again.encoded, &again.ignored), (&taken.encoded, &Vec::new()));
        assert!(taken.ignored.iter().all(|violation| !shows_card_number(&violation.description)), "{taken:?}");
        let texts = [&decoded.model, &decoded.firmware, &decoded.region, &decoded.carrier, &decoded.apn, &decoded.rule_set_version];
        assert!(texts.into_iter().all(|text| text.is_ascii() && text.len() <= 100));
        match (taken.ignored.is_empty(), taken.encoded.is_empty()) {
            (true, _) => {
                assert_eq!(taken.encoded, bytes);
                "taken"
            }
            (false, false) => "taken in part",
            (false, true) => "ignored",
        }
    });
    fates.include(["taken", "taken in part", "ignored"]);
}

#[test]
fn tokens_are_read_or_named_by_their_line_and_not_shown() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens");
    let known = [
        "is not a SHA-256, a tenant and a terminal",
        "does not begin with the 64 hexadecimal digits of a SHA-256",
        "has a tenant that is not 1 to 32 of A-Z a-z 0-9 . _ -",
        "has a terminal that is not 1 to 32 of A-Z a-z 0-9 . _ -",
        "has a token that an earlier line has too",
    ];
    let fates = target!(Text, "tokens").run(|bytes| {
        std::fs::write(&path, bytes).unwrap();
        let lines = bytes.split(|byte| *byte == b'\n').count();
        match Credentials::load(&path) {
            Ok(credentials) => {
                assert!((1..=lines).contains(&credentials.count()));
                "read"
            }
            Err(CredentialsError::Line { line, reason, .. }) => {
                assert!((1..=lines).contains(&line) && known.contains(&reason.as_str()), "{line}: {reason}");
                "wrong"
            }
            Err(CredentialsError::Empty { .. }) => "empty",
            Err(error) => panic!("{error:?}"),
        }
    });
    fates.include(["read", "wrong"]);
}

/// An event of which not even the sequence can be read settles nothing.
#[test]
fn a_sequence_is_that_of_the_event() {
    let fates = target!(Message, "event").run(|bytes| {
        let sequence = crate::encoded::sequence_in(&Bytes::copy_from_slice(bytes));
        match Event::decode(bytes) {
            Ok(event) => {
                assert_eq!(sequence, event.sequence);
                "an event"
            }
            Err(_) if sequence > 0 => "its sequence alone",
            Err(_) => "nothing",
        }
    });
    fates.include(["an event", "its sequence alone", "nothing"]);
}
