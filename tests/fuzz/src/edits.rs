//! Changes of an input.

use std::ops::Range;

use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::{Form, message};

/// Bytes at which decoders of numbers, texts and messages turn.
const TELLING: [&[u8]; 26] = [
    b"\0",
    b"\x01",
    b"\x7F",
    b"\x80",
    b"\xFF",
    b"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01",
    b"\xFF\xFF\xFF\xFF\x0F",
    b"0",
    b"9",
    b"-1",
    b"18446744073709551616",
    b"-9223372036854775808",
    b"999999999999",
    b"\"",
    b"'",
    b"=",
    b",",
    b"|",
    b"[",
    b"{",
    b"\n",
    b"\r",
    b" ",
    "\u{FEFF}".as_bytes(),
    "拒".as_bytes(),
    "𝟗".as_bytes(),
];
/// Longest piece that is taken out, or from elsewhere.
const LONGEST: usize = 24;
/// Deepest message within a message.
pub(crate) const DEEPEST: usize = 4;

/// A change.
#[derive(Clone, Debug)]
pub(crate) struct Edit {
    pub(crate) what: What,
    /// Where: a byte.
    at: Index,
    length: usize,
    /// Where else: another kept input, and a byte or a field of it.
    pub(crate) other: Index,
    pub(crate) from: Index,
    /// In a message: the field at each depth, and how deep.
    pub(crate) path: [Index; DEEPEST],
    pub(crate) depth: usize,
}

/// What is done.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// Bytes are overwritten with these.
    Put(Vec<u8>),
    /// These come between.
    Insert(Vec<u8>),
    Remove,
    /// A piece is there once more.
    Repeat,
    /// A piece of another input comes between.
    Borrow,
    /// In a text.
    Part(Parts, PartEdit),
    /// In a message.
    Field(FieldEdit),
}

/// What a text is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Parts {
    /// Lines, with their ends.
    Lines,
    /// Words and numbers, and what is between them.
    Words,
}

/// What is done to a line or a word.
#[derive(Clone, Debug)]
pub(crate) enum PartEdit {
    Put(Vec<u8>),
    Remove,
    Repeat,
    /// It comes first.
    First,
    /// One like it of another text stands there instead.
    Borrow,
}

/// What is done to a field of a message.
#[derive(Clone, Debug)]
pub(crate) enum FieldEdit {
    Remove,
    Repeat,
    /// It comes first.
    First,
    /// It has another number.
    Number(u32),
    /// It is a number, and this one.
    Value(u64),
    /// One of another message, of the same depth where there is one, follows.
    Borrow,
}

impl Edit {
    pub(crate) fn any(form: Form) -> impl Strategy<Value = Edit> {
        let scrap = || prop_oneof![select(&TELLING[..]).prop_map(<[u8]>::to_vec), proptest::collection::vec(any::<u8>(), 1..4)];
        let of_bytes = prop_oneof![
            Just(What::Remove),
            scrap().prop_map(What::Put),
            scrap().prop_map(What::Insert),
            Just(What::Repeat),
            Just(What::Borrow),
        ];
        let number = prop_oneof![4 => 1..40_u32, 1 => select(vec![1000, (1 << 29) - 1])];
        let value = prop_oneof![
            0..12_u64,
            select(vec![127, 128, 300, 1 << 20, 1 << 31, u64::from(u32::MAX), (1 << 63) - 1, 1 << 63, u64::MAX]),
            any::<u64>()
        ];
        let of_fields = prop_oneof![
            Just(FieldEdit::Remove),
            Just(FieldEdit::Repeat),
            Just(FieldEdit::First),
            number.prop_map(FieldEdit::Number),
            value.prop_map(FieldEdit::Value),
            Just(FieldEdit::Borrow),
        ];
        let of_parts = (
            prop_oneof![1 => Just(Parts::Lines), 2 => Just(Parts::Words)],
            prop_oneof![
                1 => scrap().prop_map(PartEdit::Put),
                1 => Just(PartEdit::Remove),
                1 => Just(PartEdit::Repeat),
                1 => Just(PartEdit::First),
                2 => Just(PartEdit::Borrow)
            ],
        );
        let what = match form {
            Form::Bytes => of_bytes.boxed(),
            Form::Text => prop_oneof![1 => of_bytes, 3 => of_parts.prop_map(|(parts, edit)| What::Part(parts, edit))].boxed(),
            Form::Message => prop_oneof![of_bytes, of_fields.prop_map(What::Field)].boxed(),
        };
        // A path of no depth changes the bytes of a message as they are, lengths and all.
        let depth = if form == Form::Message { 0..=DEEPEST } else { 0..=0 };
        let elsewhere = (any::<Index>(), any::<Index>());
        (what, any::<Index>(), 1..=LONGEST, elsewhere, any::<[Index; DEEPEST]>(), depth)
            .prop_map(|(what, at, length, (other, from), path, depth)| Edit { what, at, length, other, from, path, depth })
    }

    /// The input with the change.
    pub(crate) fn apply(&self, input: &[u8], others: &[Vec<u8>]) -> Vec<u8> {
        let other = others.get(self.other.index(others.len().max(1))).map_or(&[][..], Vec::as_slice);
        if self.depth > 0 || matches!(self.what, What::Field(_)) { message::changed(input, self, other) } else { self.bytes(input, other) }
    }

    /// The same, of what has no fields.
    pub(crate) fn bytes(&self, input: &[u8], other: &[u8]) -> Vec<u8> {
        let at = self.at.index(input.len() + 1);
        let piece = at..input.len().min(at + self.length);
        match &self.what {
            What::Put(scrap) => spliced(input, at..input.len().min(at + scrap.len()), scrap),
            What::Insert(scrap) => spliced(input, at..at, scrap),
            What::Remove => spliced(input, piece, &[]),
            What::Repeat => spliced(input, at..at, input.get(piece).unwrap_or_default()),
            What::Borrow => {
                let from = self.from.index(other.len() + 1);
                spliced(input, at..at, other.get(from..other.len().min(from + self.length)).unwrap_or_default())
            }
            What::Part(parts, edit) => self.parts(parts.of(input), edit, &parts.of(other)).concat(),
            What::Field(_) => input.to_vec(),
        }
    }

    fn parts<'a>(&'a self, mut parts: Vec<&'a [u8]>, edit: &'a PartEdit, others: &[&'a [u8]]) -> Vec<&'a [u8]> {
        let place = self.at.index(parts.len().max(1));
        let Some(part) = parts.get_mut(place) else { return parts };
        let class = |part: &[u8]| part.first().map(|byte| (byte.is_ascii_digit(), byte.is_ascii_alphabetic()));
        match edit {
            PartEdit::Put(scrap) => *part = scrap,
            PartEdit::Borrow => {
                let alike: Vec<_> = others.iter().filter(|other| class(other) == class(part)).collect();
                if let Some(other) = alike.get(self.from.index(alike.len().max(1))) {
                    *part = other;
                }
            }
            PartEdit::Remove => drop(parts.remove(place)),
            PartEdit::Repeat => {
                let again = *part;
                parts.insert(place, again);
            }
            PartEdit::First => parts.swap(0, place),
        }
        parts
    }
}

impl Parts {
    fn of(self, text: &[u8]) -> Vec<&[u8]> {
        let is_of_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || !byte.is_ascii();
        match self {
            Parts::Lines => text.split_inclusive(|byte| *byte == b'\n').collect(),
            Parts::Words => text.chunk_by(|one, next| is_of_word(one) == is_of_word(next)).collect(),
        }
    }
}

fn spliced(input: &[u8], place: Range<usize>, instead: &[u8]) -> Vec<u8> {
    let mut changed = input.to_vec();
    changed.splice(place, instead.iter().copied());
    changed
}
