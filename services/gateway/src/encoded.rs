//! Encoded events, as far as more is to be known of them than decoding tells: what is there more than once, and where the free text is.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use faultline_proto::ingest::v1::Event;
use faultline_stream::card_numbers;
use prost::Message;

use crate::grammar::Violation;
use crate::wire::{Seen, fields};

/// `Event.sequence`, `Event.outcome`, and of `Outcome` the text and the messages that have texts or bytes.
const SEQUENCE: u32 = 1;
const OUTCOME: u32 = 3;
const ORIGINAL: u32 = 17;
const DIAGNOSTIC: u32 = 26;
const EMV: u32 = 27;
/// `EmvEvidence.status_words`.
const STATUS_WORDS: u32 = 2;
/// Highest numbers in the contract that this program knows.
const KNOWN_OF_EVENT: u32 = 3;
const KNOWN_OF_OUTCOME: u32 = 32;
const KNOWN_OF_ORIGINAL: u32 = 8;
const KNOWN_OF_EMV: u32 = 3;

/// Checks that no field is there more than once, in the event or in what of it has texts or bytes, and says where its free text is, if it has any.
pub(crate) fn each_once(event: &Bytes) -> Result<Option<Range<usize>>, Violation> {
    let [outcome] = once(event, ("event", 0..event.len()), (KNOWN_OF_EVENT, &[]), [OUTCOME])?;
    let Some(outcome) = outcome else { return Ok(None) };
    let [original, diagnostic, emv] = once(event, ("outcome", outcome), (KNOWN_OF_OUTCOME, &[]), [ORIGINAL, DIAGNOSTIC, EMV])?;
    if let Some(original) = original {
        once(event, ("outcome.original", original), (KNOWN_OF_ORIGINAL, &[]), [])?;
    }
    if let Some(emv) = emv {
        once(event, ("outcome.emv", emv), (KNOWN_OF_EMV, &[STATUS_WORDS]), [])?;
    }
    Ok(diagnostic)
}

/// Where the contents of some fields are, in the message that is at a place of an event, if none is there more than once.
fn once<const N: usize>(
    event: &Bytes,
    (path, place): (&'static str, Range<usize>),
    (known, lists): (u32, &[u32]),
    wanted: [u32; N],
) -> Result<[Option<Range<usize>>; N], Violation> {
    let start = place.start;
    let mut found = [const { None }; N];
    let mut seen = Seen::default();
    for field in fields(event.get(place).unwrap_or_default()).map_while(Result::ok) {
        if seen.repeats(field.number, known, lists) {
            return Err(Violation { field: path, description: twice(field.number) });
        }
        if let Some(found) = wanted.iter().position(|number| *number == field.number).and_then(|position| found.get_mut(position)) {
            *found = field.content.map(|content| start + content.start..start + content.end);
        }
    }
    Ok(found)
}

/// What is said of a field that is there more than once.
pub(crate) fn twice(number: u32) -> String {
    format!("field {number} is there more than once")
}

/// An encoded event whose free text, which is at this place, held card numbers, with their digits overwritten; None where it held none.
pub(crate) fn redact(event: &Bytes, text: Range<usize>) -> Option<Bytes> {
    let mut overwritten = event.get(text.clone())?.to_vec();
    if !card_numbers::overwrite(&mut overwritten) {
        return None;
    }
    let mut redacted = BytesMut::from(event.as_ref());
    redacted.get_mut(text)?.copy_from_slice(&overwritten);
    Some(redacted.freeze())
}

/// The sequence of an event that cannot be decoded as a whole; 0 where not even that can be read.
pub(crate) fn sequence_in(event: &Bytes) -> u64 {
    let sequences = fields(event).map_while(Result::ok).filter(|field| field.number == SEQUENCE);
    let sequences = sequences.filter_map(|field| Event::decode(event.slice(field.whole)).ok());
    sequences.last().map(|event| event.sequence).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::highest_number;

    #[test]
    fn the_contract_has_no_field_that_is_not_known_here() {
        for (name, known) in [
            ("Event", KNOWN_OF_EVENT),
            ("Outcome", KNOWN_OF_OUTCOME),
            ("OriginalTransaction", KNOWN_OF_ORIGINAL),
            ("EmvEvidence", KNOWN_OF_EMV),
        ] {
            assert_eq!(highest_number(name), known, "{name}");
        }
    }

    #[test]
    fn a_sequence_is_read_where_it_can_be() {
        assert_eq!(sequence_in(&Bytes::from_static(&[0x08, 7, 0x1A, 1, 0xFF])), 7);
        assert_eq!(sequence_in(&Bytes::from_static(&[0x1A, 1, 0xFF, 0x08, 7])), 7);
        assert_eq!(sequence_in(&Bytes::from_static(&[0xFF, 0xFF])), 0);
    }
}
