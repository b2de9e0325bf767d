//! What a field of the contract may hold, as its comments there state it: what the gateway would refuse is found before anything is sent.
//!
//! What is said about a value never has the value in it: it may hold a card number.

use std::fmt::Debug;
use std::marker::PhantomData;

use bytes::Bytes;
use faultline_proto::outcome::v1::{CardNetwork, EntryMode, MoneyOutcome, Stage, TerminalCondition, TerminalResult, TransactionType};
use faultline_proto::terminal::v1::AccessNetwork;

/// Digits of a card number that name its issuer: so many of a number of 16 digits and more, and of a shorter one (PCI DSS 4.0, requirement 3.4.1, and
/// the schemes' rules for truncation).
const BIN_DIGITS: usize = 8;
const SHORT_BIN_DIGITS: usize = 6;
const LONG_NUMBER: usize = 16;

/// What a field holds.
pub(crate) trait Kind {
    /// How the contract has it.
    type Value: Clone + PartialEq + Debug;

    /// Reads a value that is not empty.
    ///
    /// # Errors
    /// With what is wrong with it, without it.
    fn read(text: &str) -> Result<Self::Value, String>;

    /// The value in words.
    fn shown(value: &Self::Value) -> String {
        format!("{value:?}")
    }
}

/// An identifier of so many bytes at most.
#[derive(Debug)]
pub(crate) struct Identifier<const MOST: usize>;

/// The name of a terminal.
#[derive(Debug)]
pub(crate) struct TerminalName;

/// A text of a profile, of so many bytes at most.
#[derive(Debug)]
pub(crate) struct ProfileText<const MOST: usize>;

/// So many digits.
#[derive(Debug)]
pub(crate) struct Digits<const LEAST: usize, const MOST: usize>;

/// A currency, ISO 4217 alphabetic.
#[derive(Debug)]
pub(crate) struct Currency;

/// The leading digits of a card number. The rest of it goes nowhere.
#[derive(Debug)]
pub(crate) struct Bin;

/// A free text; what is beyond so many bytes is cut off.
#[derive(Debug)]
pub(crate) struct FreeText<const MOST: usize>;

/// A whole number within limits.
#[derive(Debug)]
pub(crate) struct Number<T, const LEAST: i64, const GREATEST: i64>(PhantomData<T>);

/// Yes or no.
#[derive(Debug)]
pub(crate) struct Flag;

/// So many bytes, as hexadecimal digits.
#[derive(Debug)]
pub(crate) struct Hex<const BYTES: usize>;

/// A value of an enumeration, by its name in the contract without the prefix, in lower case: `pre_authorisation`.
#[derive(Debug)]
pub(crate) struct Named<E>(PhantomData<E>);

impl<const MOST: usize> Kind for Identifier<MOST> {
    type Value = String;

    fn read(text: &str) -> Result<String, String> {
        characters(text, MOST, b"._:/+-")
    }
}

impl Kind for TerminalName {
    type Value = String;

    fn read(text: &str) -> Result<String, String> {
        characters(text, 32, b"._-")
    }
}

impl<const MOST: usize> Kind for ProfileText<MOST> {
    type Value = String;

    fn read(text: &str) -> Result<String, String> {
        characters(text, MOST, b"._:/+- ")
    }
}

fn characters(text: &str, most: usize, others: &[u8]) -> Result<String, String> {
    if text.len() > most {
        return Err(format!("is longer than {most} bytes"));
    }
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte)) {
        return Ok(text.to_owned());
    }
    Err(format!("has a character other than A-Z, a-z, 0-9 and `{}`", String::from_utf8_lossy(others)))
}

impl<const LEAST: usize, const MOST: usize> Kind for Digits<LEAST, MOST> {
    type Value = String;

    fn read(text: &str) -> Result<String, String> {
        if (LEAST..=MOST).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(text.to_owned());
        }
        Err(format!("is not {LEAST} to {MOST} digits"))
    }
}

impl Kind for Currency {
    type Value = String;

    fn read(text: &str) -> Result<String, String> {
        if text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Ok(text.to_owned());
        }
        Err("is not three capital letters (ISO 4217)".into())
    }
}

impl Kind for Bin {
    type Value = String;

    /// Of a number, a masked number, a track or the issuer's digits alone.
    fn read(text: &str) -> Result<String, String> {
        let number = text.split(['=', '^', 'D', 'd']).next().unwrap_or_default();
        let length = number.chars().filter(|character| !character.is_whitespace() && *character != '-').count();
        let most = match length {
            0..=BIN_DIGITS => length,
            LONG_NUMBER.. => BIN_DIGITS,
            _ => SHORT_BIN_DIGITS,
        };
        let digits = number.chars().filter(|character| !character.is_whitespace() && *character != '-');
        let bin: String = digits.take_while(char::is_ascii_digit).take(most).collect();
        if bin.len() < SHORT_BIN_DIGITS {
            return Err("does not begin with 6 digits".into());
        }
        Ok(bin)
    }
}

/// The digits of a whole card number that a column holds. None where it holds less.
pub(crate) fn card_number(text: &str) -> Option<String> {
    let digits = text.chars().filter(|character| !character.is_whitespace() && *character != '-');
    let number: String = digits.take_while(char::is_ascii_digit).collect();
    (number.len() > 12).then_some(number)
}

impl<const MOST: usize> Kind for FreeText<MOST> {
    type Value = String;

    fn read(text: &str) -> Result<String, String> {
        Ok(text.get(..text.floor_char_boundary(MOST)).unwrap_or_default().to_owned())
    }

    /// It may hold anything, also what it must not.
    fn shown(value: &String) -> String {
        format!("{} bytes of text", value.len())
    }
}

impl<T: TryFrom<i64> + Clone + PartialEq + Debug, const LEAST: i64, const GREATEST: i64> Kind for Number<T, LEAST, GREATEST> {
    type Value = T;

    fn read(text: &str) -> Result<T, String> {
        let number = text.parse::<i64>().ok().filter(|number| (LEAST..=GREATEST).contains(number));
        number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| format!("is not a whole number within {LEAST} to {GREATEST}"))
    }
}

impl Kind for Flag {
    type Value = bool;

    fn read(text: &str) -> Result<bool, String> {
        match text {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err("is not true, false, 1 or 0".into()),
        }
    }
}

impl<const BYTES: usize> Kind for Hex<BYTES> {
    type Value = Bytes;

    fn read(text: &str) -> Result<Bytes, String> {
        let mut bytes = [0; BYTES];
        match hex::decode_to_slice(text, &mut bytes) {
            Ok(()) => Ok(Bytes::copy_from_slice(&bytes)),
            Err(_) => Err(format!("is not {} hexadecimal digits", 2 * BYTES)),
        }
    }
}

/// An enumeration of the contract.
pub(crate) trait Enumeration: Copy + Into<i32> + TryFrom<i32> + Debug {
    /// What its names begin with.
    const PREFIX: &'static str;

    fn from_name(name: &str) -> Option<Self>;
    fn name(self) -> &'static str;
}

macro_rules! enumerations {
    ($($name:ident $prefix:literal),*) => {
        $(impl Enumeration for $name {
            const PREFIX: &'static str = $prefix;

            fn from_name(name: &str) -> Option<Self> {
                $name::from_str_name(name)
            }

            fn name(self) -> &'static str {
                self.as_str_name()
            }
        })*
    };
}

enumerations! {
    TransactionType "TRANSACTION_TYPE_", EntryMode "ENTRY_MODE_", CardNetwork "CARD_NETWORK_", Stage "STAGE_", MoneyOutcome "MONEY_OUTCOME_",
    TerminalResult "TERMINAL_RESULT_", TerminalCondition "TERMINAL_CONDITION_", AccessNetwork "ACCESS_NETWORK_"
}

impl<E: Enumeration> Kind for Named<E> {
    type Value = i32;

    fn read(text: &str) -> Result<i32, String> {
        let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        let value = E::from_name(&format!("{}{}", E::PREFIX, text.to_ascii_uppercase())).filter(|_| is_lower);
        value.map(Into::into).ok_or_else(|| {
            // The contract numbers them without gaps.
            let names = (0..).map_while(|number| E::try_from(number).ok()).map(named);
            format!("is not one of {}", names.collect::<Vec<_>>().join(", "))
        })
    }

    fn shown(value: &i32) -> String {
        E::try_from(*value).map_or_else(|_| value.to_string(), named)
    }
}

fn named<E: Enumeration>(value: E) -> String {
    value.name().trim_start_matches(E::PREFIX).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_card_number_only_what_names_the_issuer_is_kept() {
        for (text, bin) in [
            ("6212345678901234", "62123456"),
            ("6212345678901234567", "62123456"),
            ("378282246310006", "378282"),
            ("62123456", "62123456"),
            ("621234", "621234"),
            ("6212345", "6212345"),
            ("621234******1234", "621234"),
            ("62123456****1234", "62123456"),
            ("6212 3456 7890 1234", "62123456"),
            ("378282246310006=2512101123", "378282"),
            ("6212345678901234D2512", "62123456"),
            ("621234567890", "621234"),
        ] {
            assert_eq!(Bin::read(text), Ok(bin.to_owned()), "{text}");
        }
        for text in ["62123", "******1234", "VISA 4111", "六二一二三四"] {
            assert_eq!(Bin::read(text), Err("does not begin with 6 digits".into()), "{text}");
        }
        assert_eq!(card_number("6212 3456 7890 1234"), Some("6212345678901234".into()));
        assert_eq!(card_number("621234******1234"), None);
    }

    #[test]
    fn a_name_of_the_contract_is_its_number() {
        assert_eq!(Named::<Stage>::read("host_decision"), Ok(8));
        assert_eq!(Named::<Stage>::shown(&8), "host_decision");
        assert_eq!(Named::<TransactionType>::read("pre_authorisation"), Ok(4));
        let wrong = Named::<EntryMode>::read("swipe").unwrap_err();
        assert_eq!(wrong, "is not one of unspecified, chip, contactless, magnetic_stripe, qr, keyed");
        assert!(Named::<Stage>::read("HOST_DECISION").is_err());
    }

    #[test]
    fn every_field_has_its_own_grammar() {
        assert_eq!(Identifier::<5>::read("A-1/2"), Ok("A-1/2".into()));
        assert_eq!(Identifier::<5>::read("A-1/23"), Err("is longer than 5 bytes".into()));
        assert!(Identifier::<15>::read("店").unwrap_err().contains("A-Z, a-z, 0-9 and `._:/+-`"));
        assert!(Identifier::<15>::read("a b").is_err() && ProfileText::<15>::read("a b").is_ok());
        assert!(TerminalName::read("T/1").is_err() && TerminalName::read("T-1").is_ok());
        assert!(
            Digits::<1, 6>::read("1234567").is_err() && Digits::<1, 6>::read("12345x").is_err() && Digits::<1, 6>::read("000001").is_ok()
        );
        assert!(Currency::read("156").is_err() && Currency::read("CNY").is_ok());
        assert_eq!(Number::<u32, 0, 1000>::read("1000"), Ok(1000));
        assert_eq!(Number::<u32, 0, 1000>::read("-1"), Err("is not a whole number within 0 to 1000".into()));
        assert_eq!(FreeText::<4>::read("拒绝"), Ok("拒".into()));
        assert_eq!(FreeText::<4>::shown(&"拒".into()), "3 bytes of text");
        assert_eq!(Hex::<5>::read("0080008000"), Ok(Bytes::from_static(&[0, 0x80, 0, 0x80, 0])));
        assert!(Hex::<5>::read("00800080").is_err());
        assert_eq!((Flag::read("1"), Flag::read("false")), (Ok(true), Ok(false)));
    }
}
