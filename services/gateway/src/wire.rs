//! Requests as bytes, and the fields in them: so that what a newer terminal sends travels on as it came.

use std::marker::PhantomData;
use std::num::NonZero;
use std::ops::Range;

use bytes::{Buf, Bytes};
use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

/// A gRPC codec that hands requests over as they came and encodes responses of type `T`.
pub(crate) struct RequestBytes<T>(PhantomData<T>);

impl<T> Default for RequestBytes<T> {
    fn default() -> Self {
        RequestBytes(PhantomData)
    }
}

impl<T: prost::Message + Send + 'static> Codec for RequestBytes<T> {
    type Encode = T;
    type Decode = Bytes;
    type Encoder = ProstEncoder<T>;
    type Decoder = Whole;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        Whole
    }
}

/// Takes a message whole.
pub(crate) struct Whole;

impl Decoder for Whole {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(source.copy_to_bytes(source.remaining())))
    }
}

/// One field of an encoded message, by its place there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    /// Its number in the contract.
    pub(crate) number: u32,
    /// All of it, number and length included.
    pub(crate) whole: Range<usize>,
    /// What is in it, where it is a message, a string or bytes.
    pub(crate) content: Option<Range<usize>>,
}

/// The fields of an encoded message in order. After an error there are no more.
pub(crate) fn fields(message: &[u8]) -> impl Iterator<Item = Result<Field, DecodeError>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = next_field(message.len(), &mut rest);
        if field.is_err() {
            rest = &[];
        }
        Some(field)
    })
}

/// The numbers of the fields of a message that came so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen(u64);

impl Seen {
    /// Whether a field came before although the contract has it once. Decoding takes the last of them; who reads the bytes finds them all, and what was
    /// not checked among them. Fields above `known` are of a newer contract, and nobody's business here.
    pub(crate) fn repeats(&mut self, number: u32, known: u32, lists: &[u32]) -> bool {
        if number > known || lists.contains(&number) {
            return false;
        }
        let bit = 1_u64.checked_shl(number).unwrap_or_default();
        let before = self.0 & bit != 0;
        self.0 |= bit;
        before
    }
}

/// The number of a field that is in a message more than once although the contract has it once.
pub(crate) fn repeated(message: &[u8], known: u32, lists: &[u32]) -> Option<u32> {
    let mut seen = Seen::default();
    fields(message).map_while(Result::ok).map(|field| field.number).find(|number| seen.repeats(*number, known, lists))
}

fn next_field(total: usize, rest: &mut &[u8]) -> Result<Field, DecodeError> {
    let start = total - rest.len();
    let (number, content, after) = usual_field(rest).map_or_else(|| unusual_field(rest), Ok)?;
    *rest = after;
    let end = total - rest.len();
    Ok(Field { number, whole: start..end, content: content.map(|length| end - length..end) })
}

/// The number of the field that a message begins with, the length of what is in it where it is a message, a string or bytes, and what follows it. None
/// where it is not one of the usual ones, or not one at all.
fn usual_field(message: &[u8]) -> Option<(u32, Option<usize>, &[u8])> {
    let (key, rest) = small_varint(message)?;
    let (content, rest) = match key & 7 {
        0 => {
            let length = rest.iter().take(9).position(|byte| byte & 0x80 == 0)? + 1;
            (None, rest.get(length..)?)
        }
        1 => (None, rest.get(8..)?),
        2 => {
            let (length, rest) = small_varint(rest)?;
            let length = usize::try_from(length).ok()?;
            (Some(length), rest.get(length..)?)
        }
        5 => (None, rest.get(4..)?),
        _ => return None,
    };
    Some((NonZero::new(key >> 3)?.get(), content, rest))
}

/// A number below 2^21 that a message begins with, and what follows it.
fn small_varint(message: &[u8]) -> Option<(u32, &[u8])> {
    let part = |byte: &u8, place: u32| u32::from(byte & 0x7F) << (7 * place);
    match message {
        [a, rest @ ..] if a & 0x80 == 0 => Some((part(a, 0), rest)),
        [a, b, rest @ ..] if b & 0x80 == 0 => Some((part(a, 0) | part(b, 1), rest)),
        [a, b, c, rest @ ..] if c & 0x80 == 0 => Some((part(a, 0) | part(b, 1) | part(c, 2), rest)),
        _ => None,
    }
}

/// The same of any field, or what is wrong with it: as `prost` sees it.
fn unusual_field(message: &[u8]) -> Result<(u32, Option<usize>, &[u8]), DecodeError> {
    let mut rest = message;
    let (number, wire_type) = decode_key(&mut rest)?;
    let mut ahead = rest;
    skip_field(wire_type, number, &mut rest, DecodeContext::default())?;
    let content = match wire_type {
        WireType::LengthDelimited => Some(usize::try_from(decode_varint(&mut ahead)?).unwrap_or(usize::MAX)),
        _ => None,
    };
    Ok((number, content, rest))
}

/// The highest number of a field that the contract has in this message.
#[cfg(test)]
pub(crate) fn highest_number(message: &str) -> u32 {
    use prost::Message;
    let contract = prost_types::FileDescriptorSet::decode(faultline_proto::DESCRIPTORS).unwrap();
    let mut messages = contract.file.iter().flat_map(|file| &file.message_type);
    let fields = &messages.find(|found| found.name() == message).unwrap().field;
    fields.iter().map(|field| field.number().cast_unsigned()).max().unwrap()
}

#[cfg(test)]
mod tests {
    use faultline_proto::ingest::v1::Event;
    use prost::Message;

    use super::*;

    #[test]
    fn fields_are_found_where_they_are() {
        // 1: varint 300, 2: "ab", 9: fixed32, 3: group with a varint inside, 2: ""
        let message = [0x08, 0xAC, 0x02, 0x12, 2, b'a', b'b', 0x4D, 1, 2, 3, 4, 0x1B, 0x08, 1, 0x1C, 0x12, 0];
        let found: Vec<Field> = fields(&message).map(Result::unwrap).collect();
        let expected = [(1, 0..3, None), (2, 3..7, Some(5..7)), (9, 7..12, None), (3, 12..16, None), (2, 16..18, Some(18..18))];
        let expected = expected.map(|(number, whole, content)| Field { number, whole, content });
        assert_eq!(found, expected);
    }

    #[test]
    fn a_usual_field_is_what_it_is_to_everybody() {
        let mut usual = 0;
        for start in 0..=u16::MAX {
            let [first, second] = start.to_be_bytes();
            for third in [0, 1, 5, 0x7F, 0x80, 0xFF] {
                let message = [&[first, second, third][..], &[0xFF; 8], &[1; 8]].concat();
                for length in [1, 2, 3, 8, 10, 13, 19] {
                    let message = &message[..length];
                    if let Some(field) = usual_field(message) {
                        usual += 1;
                        assert_eq!(unusual_field(message), Ok(field), "{message:02X?}");
                    }
                }
            }
        }
        assert!(usual > 100_000, "{usual}");
    }

    #[test]
    fn a_field_that_is_there_twice_is_found_unless_it_is_a_list_or_of_a_newer_contract() {
        let message = [0x08, 1, 0x12, 0, 0x12, 0, 0x78, 1, 0x78, 2];
        assert_eq!(repeated(&message, 2, &[]), Some(2));
        assert_eq!(repeated(&message, 2, &[2]), None);
        assert_eq!(repeated(&message, 15, &[2]), Some(15));
    }

    #[test]
    fn what_is_cut_short_is_an_error_and_the_end() {
        let message = Event { sequence: 300, age_ms: Some(1), outcome: Some(Default::default()) }.encode_to_vec();
        for length in [1, message.len() - 1] {
            let found: Vec<_> = fields(&message[..length]).collect();
            assert!(found.last().unwrap().is_err(), "{found:?}");
        }
        let endless = [0x12, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01, 0];
        assert_eq!(fields(&endless).filter(Result::is_err).count(), 1);
    }
}
