//! Card numbers in free text: found, and overwritten in place (PCI DSS 4.0, requirement 3.4).
//!
//! A card number (PAN) is 13 to 19 digits that begin like an issuer's (ISO/IEC 7812-1) and end with a check digit (Luhn, its annex B). People and
//! programs write them whole, in groups, after a length, and inside longer dumps, so every run of 16 to 19 digits inside a longer one is
//! looked at. The shorter kinds are looked for only where nothing else stands beside them, since one in ten numbers has a
//! valid check digit.

use std::ops::Range;

/// A digit of a text: what it is, and where.
#[derive(Clone, Copy)]
struct Digit {
    value: u8,
    start: usize,
    width: usize,
}

/// Overwrites the digits of every card number in `text` with as many bytes of asterisks. Text that is not UTF-8 is left alone.
///
/// Returns how many card numbers there were; overlapping ones count as one.
pub(crate) fn overwrite(text: &mut [u8]) -> usize {
    let Ok(readable) = std::str::from_utf8(text) else { return 0 };
    let mut found = Vec::new();
    for run in runs(readable) {
        let numbers = card_numbers(&run);
        found.extend(numbers.into_iter().map(|range| run.get(range).unwrap_or_default().to_vec()));
    }
    for digit in found.iter().flatten() {
        if let Some(place) = text.get_mut(digit.start..digit.start + digit.width) {
            // A full-width digit makes room for a full-width asterisk, so that the text stays UTF-8 and as long as it was.
            place.copy_from_slice(if digit.width == 1 { b"*" } else { "＊".as_bytes() });
        }
    }
    found.len()
}

/// Whether there is a card number in the text.
pub(crate) fn contains(text: &str) -> bool {
    overwrite(&mut text.as_bytes().to_vec()) > 0
}

/// Runs of digits, ASCII or full-width, in which at most one separator stands between two.
fn runs(text: &str) -> Vec<Vec<Digit>> {
    let mut runs = vec![Vec::new()];
    let mut separated = false;
    for (start, character) in text.char_indices() {
        match digit(character) {
            Some(value) => {
                if let Some(run) = runs.last_mut() {
                    run.push(Digit { value, start, width: character.len_utf8() });
                }
                separated = false;
            }
            None if !separated && matches!(character, ' ' | '-' | '\u{3000}') => separated = true,
            None => {
                runs.push(Vec::new());
                separated = false;
            }
        }
    }
    runs
}

fn digit(character: char) -> Option<u8> {
    let value = match character {
        '０'..='９' => u32::from(character) - u32::from('０'),
        _ => character.to_digit(10)?,
    };
    u8::try_from(value).ok()
}

/// The card numbers in a run, overlapping ones as one.
fn card_numbers(run: &[Digit]) -> Vec<Range<usize>> {
    let groups = run.chunk_by(|one, next| one.start + one.width == next.start);
    let mut begin = 0;
    let groups = groups.map(|group| {
        begin += group.len();
        begin - group.len()..begin
    });
    let alone = groups.chain(std::iter::once(0..run.len())).filter(|range| (13..=15).contains(&range.len()));
    let inside = (0..run.len()).flat_map(|start| (16..=19).map(move |length| start..start + length));
    let mut candidates: Vec<Range<usize>> =
        alone.chain(inside).filter(|range| run.get(range.clone()).is_some_and(is_card_number)).collect();
    candidates.sort_by_key(|range| range.start);

    let mut numbers: Vec<Range<usize>> = Vec::new();
    for candidate in candidates {
        match numbers.last_mut() {
            Some(last) if candidate.start < last.end => last.end = last.end.max(candidate.end),
            _ => numbers.push(candidate),
        }
    }
    numbers
}

fn is_card_number(digits: &[Digit]) -> bool {
    begins_like_an_issuer(digits) && has_check_digit(digits)
}

/// By length, the ranges that schemes issue in: 2 to 6 (Mastercard, American Express, JCB, Diners, Visa, Maestro, Discover, UnionPay), and national
/// ones under 81 (UnionPay) and 9 (the old numbers of Chinese banks, Troy).
fn begins_like_an_issuer(digits: &[Digit]) -> bool {
    let leading = |count: usize| digits.iter().take(count).fold(0_u32, |number, digit| number * 10 + u32::from(digit.value));
    match digits.len() {
        13 => matches!(leading(1), 4..=6),
        14 => matches!(leading(2), 36 | 38 | 39) || matches!(leading(3), 300..=305),
        15 => matches!(leading(2), 34 | 37) || matches!(leading(4), 1800 | 2131),
        _ => matches!(leading(1), 2..=6 | 9) || leading(2) == 81,
    }
}

/// The Luhn check: from the right, every second digit doubled, the digits of all summed to a multiple of ten.
fn has_check_digit(digits: &[Digit]) -> bool {
    let sum: u32 = (digits.iter().rev().enumerate())
        .map(|(place, digit)| {
            let value = u32::from(digit.value);
            if place % 2 == 0 { value } else { value * 2 / 10 + value * 2 % 10 }
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overwritten(text: &str) -> String {
        let mut bytes = text.as_bytes().to_vec();
        overwrite(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    // Numbers that schemes and acquirers publish for tests; none is of a card.
    #[test]
    fn a_card_number_of_every_scheme_and_way_of_writing_is_overwritten() {
        for (text, expected) in [
            ("4111111111111111", "****************"),
            ("card 6212345678901232 refused", "card **************** refused"),
            ("6250941006528599", "****************"),
            ("6212 3456 7890 1232!", "**** **** **** ****!"),
            ("6212-3456-7890-1232", "****-****-****-****"),
            ("pan=6212345678901232D2512", "pan=****************D2512"),
            ("166212345678901232", "16****************"),
            ("378282246310005", "***************"),
            ("3782 822463 10005", "**** ****** *****"),
            ("30569309025904", "**************"),
            ("5555555555554444", "****************"),
            ("3530111333300000", "****************"),
            ("4222222222222", "*************"),
            ("卡号６２１２３４５６７８９０１２３２拒绝", "卡号＊＊＊＊＊＊＊＊＊＊＊＊＊＊＊＊拒绝"),
            ("E1 4111111111111111,5555555555554444", "E1 ****************,****************"),
        ] {
            assert_eq!(overwritten(text), expected);
        }
    }

    #[test]
    fn nineteen_digits_of_a_chinese_debit_card_are_overwritten_whole() {
        assert_eq!(overwritten("ICC 6217000000000000012 E-1"), "ICC ******************* E-1");
    }

    #[test]
    fn what_is_no_card_number_is_left_alone() {
        for text in [
            "",
            "E-2041 timeout after 60000 ms",
            // A merchant number (ISO 8583 field 42), with a valid check digit.
            "898440351980019",
            // A time, a wrong check digit, too few digits, and digits that are not beside each other.
            "20261124224136",
            "4111111111111112",
            "411111111111",
            "4111x1111x1111x1111",
            "1,2,3,4,1,1,1,1,1,1,1,1,1,1,1,1",
            "4111  1111  1111  1111",
        ] {
            assert_eq!(overwritten(text), text);
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_left_alone() {
        let mut bytes = *b"\xFF4111111111111111";
        assert_eq!(overwrite(&mut bytes), 0);
    }
}
