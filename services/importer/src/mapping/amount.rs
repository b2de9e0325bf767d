//! Amounts, as a log writes them.

use serde::Deserialize;

use super::rule::{IfInvalid, Used};
use crate::cells::Cells;

/// Greatest amount of the contract, in minor units.
const GREATEST: i64 = 999_999_999_999;
/// Minor digits of currencies that have not two (ISO 4217).
const WITHOUT: [&str; 16] =
    ["BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF"];
const WITH_THREE: [&str; 7] = ["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"];
const WITH_FOUR: [&str; 2] = ["CLF", "UYW"];

/// Where an amount comes from.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AmountRule {
    pub(crate) column: Used,
    #[serde(default)]
    unit: Unit,
    #[serde(default)]
    pub(crate) if_invalid: IfInvalid,
}

/// What an amount is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Unit {
    /// In minor units, as ISO 8583 field 4 has it: `000000001234`.
    #[default]
    Minor,
    /// As people write it, with a point: `12.34`.
    Decimal,
}

impl AmountRule {
    /// The amount in minor units of a currency. None where there is none.
    ///
    /// # Errors
    /// With what is wrong with it, without it.
    pub(crate) fn value(&self, cells: &Cells, currency: &str) -> Result<Option<i64>, String> {
        let text = cells.get(self.column.cell);
        if text.is_empty() {
            return Ok(None);
        }
        let places = match self.unit {
            Unit::Minor => 0,
            Unit::Decimal => minor_digits(currency),
        };
        read(text, places).map(Some)
    }
}

fn minor_digits(currency: &str) -> usize {
    match currency {
        _ if WITHOUT.contains(&currency) => 0,
        _ if WITH_THREE.contains(&currency) => 3,
        _ if WITH_FOUR.contains(&currency) => 4,
        _ => 2,
    }
}

fn read(text: &str, places: usize) -> Result<i64, String> {
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() || !is_digits(whole) || !is_digits(part) || (places == 0 && text.contains('.')) {
        return Err("is not an amount: digits, and in `decimal` a point; never a sign".into());
    }
    let (minor, beyond) = part.split_at(places.min(part.len()));
    if beyond.bytes().any(|digit| digit != b'0') {
        return Err(format!("has more than {places} digits after the point, and its currency has no such part"));
    }
    let amount = format!("{whole}{minor:0<places$}").parse().ok().filter(|amount| *amount <= GREATEST);
    amount.ok_or_else(|| format!("is greater than {GREATEST} minor units"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(unit: &str, text: &str, currency: &str) -> Result<Option<i64>, String> {
        let rule: AmountRule = toml::from_str(&format!("column = 'A'\nunit = '{unit}'")).unwrap();
        rule.value(&Cells::of(&[text]), currency)
    }

    #[test]
    fn an_amount_is_in_minor_units_of_its_currency() {
        for (unit, text, currency, amount) in [
            ("minor", "000000001234", "CNY", 1234),
            ("decimal", "12.34", "CNY", 1234),
            ("decimal", "12.3", "CNY", 1230),
            ("decimal", "12", "CNY", 1200),
            ("decimal", "12.", "CNY", 1200),
            ("decimal", "12.3400", "CNY", 1234),
            ("decimal", "1234", "JPY", 1234),
            ("decimal", "1.234", "KWD", 1234),
            ("decimal", "0.0001", "CLF", 1),
            ("minor", "999999999999", "CNY", GREATEST),
        ] {
            assert_eq!(value(unit, text, currency), Ok(Some(amount)), "{unit} {text} {currency}");
        }
        assert_eq!(value("minor", "", "CNY"), Ok(None));
    }

    #[test]
    fn what_is_no_amount_is_said() {
        for (unit, text, currency, said) in [
            ("minor", "12.34", "CNY", "is not an amount"),
            ("minor", "-1", "CNY", "is not an amount"),
            ("decimal", "+1.00", "CNY", "is not an amount"),
            ("decimal", "1,234.00", "CNY", "is not an amount"),
            ("decimal", ".50", "CNY", "is not an amount"),
            ("decimal", "1.005", "CNY", "has more than 2 digits after the point"),
            ("decimal", "1.5", "JPY", "is not an amount"),
            ("minor", "1000000000000", "CNY", "is greater than 999999999999"),
            ("minor", "99999999999999999999999", "CNY", "is greater than 999999999999"),
        ] {
            let message = value(unit, text, currency).unwrap_err();
            assert!(message.starts_with(said), "{text}: {message}");
        }
    }
}
