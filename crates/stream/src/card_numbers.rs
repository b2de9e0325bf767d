//! Card numbers in free text: found, and overwritten in place (PCI DSS 4.0, requirement 3.4).
//!
//! A card number (PAN) is 13 to 19 digits that begin like an issuer's (ISO/IEC 7812-1) and end with a check digit (Luhn, its annex B). It is looked for
//!
//! - inside every group of digits, since numbers stand behind a length or a tag and inside longer dumps;
//! - across groups, as people write it (`6212 3456 7890 1232`, `3782-822463-10005`) and as programs dump it (`62 12 34 ...`), with up to three spaces,
//!   dashes and the like between two groups.
//!
//! One in ten numbers has a valid check digit, so some that are no card numbers are overwritten too: a lost number in a free text does less
//! harm than a card number in a log.

use std::borrow::Cow;
use std::ops::Range;

/// The zeros of the digits that people write numbers with: ASCII, Arabic, Persian, Devanagari, Bengali, Thai, full-width, and the five sets for
/// mathematics.
const ZEROS: [char; 12] = ['0', '٠', '۰', '०', '০', '๐', '０', '𝟎', '𝟘', '𝟢', '𝟬', '𝟶'];
/// Fewest digits of a number.
const SHORTEST: usize = 13;
/// Most separators between two groups of one number.
const MOST_SEPARATORS: usize = 3;
/// Fewest digits of a group that people write, but for the first and the last.
const LEAST_GROUP: usize = 3;

/// A digit of a text: what it is, and which bytes.
struct Digit {
    value: u32,
    place: Range<usize>,
}

/// The digits of a text, and the groups of them that touch, in runs: between those is more than a few separators.
#[derive(Default)]
struct Digits {
    all: Vec<Digit>,
    runs: Vec<Vec<Range<usize>>>,
}

/// Overwrites the digits of every card number in `text` with as many bytes of asterisks. Bytes that are not UTF-8 stay as they are, and
/// count as separators: what is around them is searched.
///
/// Returns whether there was one.
pub fn overwrite(text: &mut [u8]) -> bool {
    let mut found = false;
    // What was part of a longer group may be the end of another number once the rest of it is gone.
    while overwrite_once(text) {
        found = true;
    }
    found
}

fn overwrite_once(text: &mut [u8]) -> bool {
    let readable = as_text(text);
    let digits = Digits::of(&readable);
    let of_cards = digits.of_cards();
    for (digit, _) in digits.all.iter().zip(&of_cards).filter(|(_, of_card)| **of_card) {
        // A digit of several bytes makes room for as many asterisks, so that the text stays UTF-8 and as long as it was.
        if let Some(bytes) = text.get_mut(digit.place.clone()) {
            bytes.fill(b'*');
        }
    }
    of_cards.contains(&true)
}

/// The text with the digits of every card number overwritten.
#[must_use]
pub fn overwritten(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    overwrite(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Text of the same length, with a separator for each byte that is not of a character.
fn as_text(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '.'));
    }
    Cow::Owned(text)
}

/// Whether there is a card number in the text.
#[must_use]
pub fn contains(text: &str) -> bool {
    text.len() >= SHORTEST && Digits::of(text).of_cards().contains(&true)
}

impl Digits {
    fn of(text: &str) -> Digits {
        let mut digits = Digits { runs: vec![Vec::new()], ..Digits::default() };
        // What stands since the last digit.
        let (mut separators, mut weak) = (0, false);
        for (start, character) in text.char_indices() {
            if let Some(value) = digit(character) {
                digits.push(Digit { value, place: start..start + character.len_utf8() }, separators > 0, weak);
                (separators, weak) = (0, false);
            } else if separators < MOST_SEPARATORS && (is_separator(character) || is_weak_separator(character)) {
                separators += 1;
                weak |= is_weak_separator(character);
            } else {
                digits.runs.push(Vec::new());
                (separators, weak) = (0, false);
            }
        }
        digits
    }

    fn push(&mut self, digit: Digit, separated: bool, weakly: bool) {
        let place = self.all.len();
        self.all.push(digit);
        let group_before = self.runs.last().and_then(|run| run.last()).map(ExactSizeIterator::len);
        if weakly && group_before.is_some_and(|length| length < LEAST_GROUP) {
            self.runs.push(Vec::new());
        }
        let Some(run) = self.runs.last_mut() else { return };
        match run.last_mut() {
            Some(group) if !separated => group.end = place + 1,
            _ => run.push(place..place + 1),
        }
    }

    /// Of each digit, whether it is one of a card number.
    fn of_cards(&self) -> Vec<bool> {
        let mut of_cards = vec![false; self.all.len()];
        for run in &self.runs {
            let written_whole = run.iter().flat_map(windows);
            for candidate in written_whole.chain(spans(run)) {
                let number = self.all.get(candidate.clone()).unwrap_or_default();
                if begins_like_an_issuer(number) && has_check_digit(number) {
                    of_cards.get_mut(candidate).unwrap_or_default().fill(true);
                }
            }
        }
        of_cards
    }
}

fn digit(character: char) -> Option<u32> {
    let after = |zero: &char| u32::from(character).checked_sub(u32::from(*zero)).filter(|value| *value < 10);
    ZEROS.iter().find_map(after)
}

/// What stands between the groups of one number: spaces of every width, also of none, dashes, a few signs, and marks of direction.
fn is_separator(character: char) -> bool {
    character.is_whitespace()
        || matches!(character, '-' | '.' | '/' | '_' | ':' | '*' | '+' | '|' | '·' | '\'' | '\u{2010}'..='\u{2015}' | '\u{2212}' | '－')
        || matches!(character, '\u{00AD}' | '\u{061C}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}')
}

/// What stands between the groups of one number, and also between numbers in a list.
fn is_weak_separator(character: char) -> bool {
    matches!(character, ',' | '，' | '、')
}

/// What could be a number in one group. Inside a longer one, only the lengths whose beginnings are told from others by more than a digit.
fn windows(group: &Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let group = group.clone();
    let alone = (group.len() == SHORTEST).then(|| group.clone());
    let lengths = 14..=19_usize;
    let inside =
        lengths.flat_map(move |length| (group.start..(group.end + 1).saturating_sub(length)).map(move |start| start..start + length));
    alone.into_iter().chain(inside)
}

/// What could be a number across groups of a run: groups as people write them, or of one size, but for the last, as a dump has them.
fn spans(run: &[Range<usize>]) -> impl Iterator<Item = Range<usize>> {
    let whole = |span: &[Range<usize>]| span.first().zip(span.last()).map_or(0..0, |(first, last)| first.start..last.end);
    let from = move |start: usize| {
        let ends = (start + 2..=run.len()).filter_map(move |end| run.get(start..end));
        ends.take_while(move |span| whole(span).len() <= 19).filter(|span| is_written(span) || is_dumped(span)).map(whole)
    };
    (0..run.len()).flat_map(from).filter(|number| number.len() >= SHORTEST)
}

fn is_written(span: &[Range<usize>]) -> bool {
    matches!(span, [_, middle @ .., _] if middle.iter().all(|group| group.len() >= LEAST_GROUP))
}

fn is_dumped(span: &[Range<usize>]) -> bool {
    matches!(span, [first, middle @ .., last] if middle.iter().all(|group| group.len() == first.len()) && last.len() <= first.len())
}

/// By length, the ranges that schemes issue in: 2 to 6 (Mastercard, American Express, JCB, Diners, Visa, Maestro, Discover, UnionPay), and national
/// ones under 8 (RuPay, UnionPay, Uzcard) and 9 (the old numbers of Chinese banks, Troy).
fn begins_like_an_issuer(digits: &[Digit]) -> bool {
    let leading = |count: usize| digits.iter().take(count).fold(0, |number, digit| number * 10 + digit.value);
    match digits.len() {
        13 => matches!(leading(1), 4..=6),
        14 => matches!(leading(2), 36 | 38 | 39) || matches!(leading(3), 300..=305),
        15 => matches!(leading(2), 34 | 37) || matches!(leading(4), 1800 | 2131),
        _ => matches!(leading(1), 2..=6 | 8 | 9),
    }
}

/// The Luhn check: from the right, every second digit doubled, the digits of all summed to a multiple of ten.
fn has_check_digit(digits: &[Digit]) -> bool {
    let sum: u32 = (digits.iter().rev().enumerate())
        .map(|(place, digit)| {
            let twice = digit.value * 2;
            if place % 2 == 0 { digit.value } else { twice / 10 + twice % 10 }
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Numbers that schemes and acquirers publish for tests, or made up; none is of a card.
    #[test]
    fn a_card_number_of_every_scheme_is_overwritten() {
        for (text, expected) in [
            ("4111111111111111", "****************"),
            ("card 6212345678901232 refused", "card **************** refused"),
            ("6250941006528599", "****************"),
            ("ICC 6217000000000000012 E-1", "ICC ******************* E-1"),
            ("378282246310005", "***************"),
            ("30569309025904", "**************"),
            ("5555555555554444", "****************"),
            ("3530111333300000", "****************"),
            ("4222222222222", "*************"),
            ("8200000000000001", "****************"),
            ("E1 4111111111111111,5555555555554444", "E1 ****************,****************"),
        ] {
            assert_eq!(overwritten(text), expected);
        }
    }

    #[test]
    fn a_card_number_is_found_however_it_is_written() {
        for (text, expected) in [
            ("6212 3456 7890 1232!", "**** **** **** ****!"),
            ("6212-3456-7890-1232", "****-****-****-****"),
            ("4111.1111.1111.1111", "****.****.****.****"),
            ("4111 - 1111 - 1111 - 1111", "**** - **** - **** - ****"),
            ("4111\u{A0}1111\u{2009}1111\u{200B}1111", "****\u{A0}****\u{2009}****\u{200B}****"),
            ("41111111\t11111111", "********\t********"),
            ("621234 5678901232", "****** **********"),
            ("3782 822463 10005 1225", "**** ****** ***** 1225"),
            ("7 3782 822463 10005", "7 **** ****** *****"),
            ("3056 930902 5904 12/25", "**** ****** **** 12/25"),
            ("5A 08 62 12 34 56 78 90 12 32 5F", "5A 08 ** ** ** ** ** ** ** ** 5F"),
            ("57 13 62 17 00 00 00 00 00 00 01 2D 25 12", "57 13 ** ** ** ** ** ** ** ** ** *D 25 12"),
            ("5A 08 37 82 82 24 63 10 00 5F", "5A 08 ** ** ** ** ** ** ** *F"),
            ("4111+1111+1111+1111", "****+****+****+****"),
            ("4111,1111,1111,1111", "****,****,****,****"),
            ("62 1234 5678 9012 32", "** **** **** **** **"),
            ("\u{202A}4111\u{202C} \u{200E}1111 1111 1111", "\u{202A}****\u{202C} \u{200E}**** **** ****"),
            ("4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", "* * * * * * * * * * * * * * * *"),
            ("pan=6212345678901232D2512", "pan=****************D2512"),
            ("166212345678901232", "16****************"),
            ("15378282246310005", "15***************"),
            ("5A08378282246310005F", "5A08***************F"),
            ("4111 1111 1111 11116212345678901232", "**** **** **** ********************"),
        ] {
            assert_eq!(overwritten(text), expected);
        }
    }

    #[test]
    fn digits_of_other_scripts_are_digits() {
        for text in ["卡号６２１２３４５６７８９０１２３２拒绝", "٤١١١١١١١١١١١١١١١", "𝟒𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏"]
        {
            let after = overwritten(text);
            assert_eq!(after.len(), text.len());
            assert!(!after.chars().any(char::is_numeric) && after.contains("****************"), "{after}");
        }
    }

    #[test]
    fn what_is_no_card_number_is_left_alone() {
        for text in [
            "",
            "E-2041 timeout after 60000 ms",
            // A merchant number (ISO 8583 field 42), with a valid check digit.
            "898440351980019",
            // Times, an address, a wrong check digit, too few digits, and digits that do not belong together.
            "20261124224136",
            "2026-11-24 22:41:36.123 connect 10.0.0.12:8080",
            "4111111111111112",
            "411111111111",
            "4111x1111x1111x1111",
            "1,2,3,4,1,1,1,1,1,1,1,1,1,1,1,1",
            "4111     1111     1111     1111",
        ] {
            assert_eq!(overwritten(text), text);
        }
    }

    #[test]
    fn a_card_number_among_bytes_that_are_no_text_is_found() {
        let mut bytes = *b"\xFF\xFE4111\xFF111111111111\xE4\xBD";
        assert!(overwrite(&mut bytes));
        assert_eq!(&bytes, b"\xFF\xFE****\xFF************\xE4\xBD");
    }
}

#[cfg(test)]
mod fuzz {
    use faultline_fuzz::target;

    use super::*;

    #[test]
    fn what_is_found_is_overwritten_and_nothing_else() {
        let fates = target!(Bytes, "text").run(|bytes| {
            let mut after = bytes.to_vec();
            let found = overwrite(&mut after);
            assert_eq!(after.len(), bytes.len());
            assert!(bytes.iter().zip(&after).all(|(before, after)| before == after || *after == b'*'));
            assert_eq!(found, after != bytes);
            // Nothing is found in what is left of it.
            let mut again = after.clone();
            assert!(!overwrite(&mut again), "{} is found in {}", again.escape_ascii(), after.escape_ascii());
            match std::str::from_utf8(bytes) {
                Ok(text) => {
                    assert_eq!((contains(text), overwritten(text).as_bytes()), (found, after.as_slice()));
                    if found { "overwritten" } else { "left alone" }
                }
                Err(_) if found => "overwritten among bytes",
                Err(_) => "no text",
            }
        });
        fates.include(["overwritten", "overwritten among bytes", "left alone", "no text"]);
    }
}
