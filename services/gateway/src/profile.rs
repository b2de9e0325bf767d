//! Terminals' profiles, as they are taken.

use bytes::{Bytes, BytesMut};
use faultline_proto::terminal::v1::TerminalProfile;
use prost::Message;

use crate::encoded::twice;
use crate::grammar::{self, Violation};
use crate::wire::{Field, fields, repeated};

/// Most bytes of one.
const MAX_BYTES: usize = 4096;
/// Highest number of its fields that this program knows.
const KNOWN: u32 = 10;

/// A profile as it is taken: what was wrong with it is left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Profile {
    /// As it came, but for what was wrong.
    pub(crate) encoded: Bytes,
    /// What was wrong with it, until that has been told.
    pub(crate) ignored: Vec<Violation>,
    /// Fields with a value of a newer contract, until that has been counted.
    pub(crate) unknown_values: Vec<&'static str>,
}

impl Profile {
    pub(crate) fn admit(encoded: &Bytes) -> Profile {
        if encoded.len() > MAX_BYTES {
            return Profile::ignored(format!("is {} bytes, at most {MAX_BYTES} are taken", encoded.len()));
        }
        let profile = match TerminalProfile::decode(encoded.clone()) {
            Ok(profile) => profile,
            Err(error) => return Profile::ignored(error.to_string()),
        };
        if let Some(number) = repeated(encoded, KNOWN, &[]) {
            return Profile::ignored(twice(number));
        }
        let (numbers, ignored): (Vec<u32>, Vec<Violation>) = grammar::profile(&profile).into_iter().unzip();
        let encoded = if numbers.is_empty() { encoded.clone() } else { without(encoded, |field| numbers.contains(&field.number)) };
        Profile { encoded, ignored, unknown_values: grammar::unknown_profile_values(&profile).collect() }
    }

    /// What was wrong with it has been told.
    pub(crate) fn told(&mut self) {
        self.ignored.clear();
        self.unknown_values.clear();
    }

    fn ignored(description: String) -> Profile {
        Profile { ignored: vec![Violation { field: "profile", description }], ..Profile::default() }
    }
}

/// An encoded message, which was read already, without some of its fields.
fn without(message: &Bytes, unwanted: impl Fn(&Field) -> bool) -> Bytes {
    let mut kept = BytesMut::with_capacity(message.len());
    for field in fields(message).map_while(Result::ok).filter(|field| !unwanted(field)) {
        kept.extend_from_slice(message.get(field.whole).unwrap_or_default());
    }
    kept.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::highest_number;

    fn ignored(encoded: Vec<u8>) -> String {
        let profile = Profile::admit(&encoded.into());
        assert_eq!((profile.encoded, profile.ignored.len()), (Bytes::new(), 1));
        format!("{}: {}", profile.ignored[0].field, profile.ignored[0].description)
    }

    #[test]
    fn one_that_cannot_be_judged_is_left_out_whole() {
        assert_eq!(ignored(vec![0; MAX_BYTES + 1]), "profile: is 4097 bytes, at most 4096 are taken");
        assert_eq!(ignored(vec![0x0A, 1, b'a', 0x0A, 1, b'b']), "profile: field 1 is there more than once");
        assert!(ignored(vec![0x0A, 1, 0xFF]).contains("UTF-8"));
    }

    #[test]
    fn the_contract_has_no_field_that_is_not_known_here() {
        assert_eq!(highest_number("TerminalProfile"), KNOWN);
    }
}
