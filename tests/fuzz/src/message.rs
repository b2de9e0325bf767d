//! Messages of Protocol Buffers as fields in fields, without their contract.

use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};

use crate::edits::{DEEPEST, Edit, FieldEdit, What};

#[derive(Clone, Debug, PartialEq)]
struct Field {
    number: u32,
    value: Value,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Number(u64),
    /// A message, a text or bytes.
    Content(Vec<u8>),
    /// Four or eight bytes.
    Fixed(Vec<u8>),
}

/// A message with a change of one of its fields, or of one in them. What is no message is changed as bytes.
pub(crate) fn changed(message: &[u8], edit: &Edit, other: &[u8]) -> Vec<u8> {
    changed_at(message, edit, other, 0)
}

fn changed_at(message: &[u8], edit: &Edit, other: &[u8], depth: usize) -> Vec<u8> {
    let (Some(mut fields), Some(path)) = (read(message).filter(|fields| !fields.is_empty()), edit.path.get(depth)) else {
        return edit.bytes(message, other);
    };
    let place = path.index(fields.len());
    let Some(field) = fields.get_mut(place) else { return message.to_vec() };
    if let Value::Content(content) = &mut field.value
        && (depth < edit.depth.min(DEEPEST - 1) || !matches!(edit.what, What::Field(_)))
    {
        let within = read(other).and_then(|others| others.into_iter().find(|other| other.number == field.number));
        let other = match &within {
            Some(Field { value: Value::Content(content), .. }) => content.as_slice(),
            _ => other,
        };
        *content = if depth < edit.depth { changed_at(content, edit, other, depth + 1) } else { edit.bytes(content, other) };
        return write(&fields);
    }
    let What::Field(what) = &edit.what else { return edit.bytes(message, other) };
    match what {
        FieldEdit::Remove => drop(fields.remove(place)),
        FieldEdit::Repeat => {
            let again = field.clone();
            fields.insert(place, again);
        }
        FieldEdit::First => fields.swap(0, place),
        FieldEdit::Number(number) => field.number = *number,
        FieldEdit::Value(value) => match &mut field.value {
            Value::Number(number) => *number = *value,
            Value::Fixed(bytes) => bytes.iter_mut().zip(value.to_le_bytes()).for_each(|(byte, new)| *byte = new),
            Value::Content(_) => {}
        },
        FieldEdit::Borrow => {
            let mut others = read(other).unwrap_or_default();
            if !others.is_empty() {
                fields.insert(place, others.swap_remove(edit.from.index(others.len())));
            }
        }
    }
    write(&fields)
}

/// The fields of a message. None where it is not one, or has groups.
fn read(message: &[u8]) -> Option<Vec<Field>> {
    let mut rest = message;
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let (number, wire_type) = decode_key(&mut rest).ok()?;
        let length = match wire_type {
            WireType::Varint => {
                fields.push(Field { number, value: Value::Number(decode_varint(&mut rest).ok()?) });
                continue;
            }
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::LengthDelimited => usize::try_from(decode_varint(&mut rest).ok()?).ok()?,
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        let (bytes, after) = rest.split_at_checked(length)?;
        rest = after;
        let bytes = bytes.to_vec();
        let value = if wire_type == WireType::LengthDelimited { Value::Content(bytes) } else { Value::Fixed(bytes) };
        fields.push(Field { number, value });
    }
    Some(fields)
}

fn write(fields: &[Field]) -> Vec<u8> {
    let mut message = Vec::new();
    for Field { number, value } in fields {
        match value {
            Value::Number(value) => {
                encode_key(*number, WireType::Varint, &mut message);
                encode_varint(*value, &mut message);
            }
            Value::Content(content) => {
                encode_key(*number, WireType::LengthDelimited, &mut message);
                encode_varint(content.len() as u64, &mut message);
                message.extend_from_slice(content);
            }
            Value::Fixed(bytes) => {
                let wire_type = if bytes.len() == 8 { WireType::SixtyFourBit } else { WireType::ThirtyTwoBit };
                encode_key(*number, wire_type, &mut message);
                message.extend_from_slice(bytes);
            }
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::{Form, Header, Record};

    fn record() -> Record {
        let header = Header { name: b"tenant".to_vec(), content: b"acme".to_vec().into() };
        Record { offset: 300, key: Some(b"T-1".to_vec().into()), headers: vec![header.clone(), header], ..Record::default() }
    }

    #[test]
    fn what_is_read_is_written_again() {
        let message = record().encode_to_vec();
        assert_eq!(write(&read(&message).unwrap()), message);
        assert_eq!(read(b"\x0B\x0C"), None);
        assert_eq!(read(b"\x0A\x05a"), None);
    }

    proptest! {
        /// The lengths around a change are right again.
        #[test]
        fn a_message_stays_one_where_fields_are_changed(edit in Edit::any(Form::Message)) {
            let message = record().encode_to_vec();
            if matches!(edit.what, What::Field(FieldEdit::Remove | FieldEdit::Repeat | FieldEdit::First | FieldEdit::Borrow)) {
                let changed = edit.apply(&message, std::slice::from_ref(&message));
                prop_assert!(read(&changed).is_some(), "{changed:02X?}");
            }
        }
    }
}
