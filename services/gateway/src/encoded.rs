//! Encoded events, as far as more is to be known of them than decoding tells: what is there more than once, and where the free text is.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use faultline_proto::ingest::v1::Event;
use faultline_stream::card_numbers;
use prost::Message;

use crate::grammar::Violation;
use crate::wire::{fields, repeated};

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

/// Checks that no field is there more than once, in the event or in what of it has texts or bytes.
pub(crate) fn each_once(event: &Bytes) -> Result<(), Violation> {
    let once = |path, range: Range<usize>, known, lists: &[u32]| {
        let repeated = repeated(event.get(range).unwrap_or_default(), known, lists);
        repeated.map_or(Ok(()), |number| Err(Violation { field: path, description: twice(number) }))
    };
    let whole = 0..event.len();
    once("event", whole.clone(), KNOWN_OF_EVENT, &[])?;
    let Some(outcome) = inside(event, whole, OUTCOME) else { return Ok(()) };
    once("outcome", outcome.clone(), KNOWN_OF_OUTCOME, &[])?;
    inside(event, outcome.clone(), ORIGINAL).map_or(Ok(()), |original| once("outcome.original", original, KNOWN_OF_ORIGINAL, &[]))?;
    inside(event, outcome, EMV).map_or(Ok(()), |emv| once("outcome.emv", emv, KNOWN_OF_EMV, &[STATUS_WORDS]))
}

/// What is said of a field that is there more than once.
pub(crate) fn twice(number: u32) -> String {
    format!("field {number} is there more than once")
}

/// An encoded event whose free text held card numbers, with their digits overwritten; None where it held none.
pub(crate) fn redact(event: &Bytes) -> Option<Bytes> {
    let place = inside(event, inside(event, 0..event.len(), OUTCOME)?, DIAGNOSTIC)?;
    let mut text = event.get(place.clone())?.to_vec();
    if !card_numbers::overwrite(&mut text) {
        return None;
    }
    let mut redacted = BytesMut::from(event.as_ref());
    redacted.get_mut(place)?.copy_from_slice(&text);
    Some(redacted.freeze())
}

/// Where the content of the last field of this number is, in the message that is at `range`.
fn inside(bytes: &Bytes, range: Range<usize>, number: u32) -> Option<Range<usize>> {
    let message = bytes.get(range.clone())?;
    let fields = fields(message).map_while(Result::ok).filter(|field| field.number == number);
    let content = fields.filter_map(|field| field.content).last()?;
    Some(range.start + content.start..range.start + content.end)
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
