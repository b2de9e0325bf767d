//! When an attempt completed, as a log writes it.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use serde::Deserialize;

use super::rule::{Field, IfInvalid, Used};
use crate::cells::Cells;

/// Where a time comes from.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Written")]
pub(crate) struct MomentRule {
    columns: Vec<Used>,
    form: Form,
    if_invalid: IfInvalid,
}

/// How a time is written.
#[derive(Debug)]
enum Form {
    /// By a format of strftime(3), at a place.
    Local(String, TimeZone),
    /// The same, which says the offset itself.
    Offset(String),
    /// As RFC 3339 has it.
    Rfc3339,
    /// Seconds since 1970-01-01 UTC, of so many parts each.
    Unix(i64),
}

/// A rule as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    column: Option<Used>,
    columns: Option<Vec<Used>>,
    format: String,
    zone: Option<String>,
    #[serde(default)]
    if_invalid: IfInvalid,
}

impl TryFrom<Written> for MomentRule {
    type Error = String;

    fn try_from(written: Written) -> Result<MomentRule, String> {
        let columns = match (written.column, written.columns) {
            (Some(column), None) => vec![column],
            (None, Some(columns)) if !columns.is_empty() => columns,
            _ => return Err("a time needs `column`, or `columns`, which are joined with a space".into()),
        };
        let format = written.format;
        let says_offset = ["%z", "%:z", "%Q", "%:Q"].iter().any(|directive| format.contains(directive));
        let form = match (format.as_str(), written.zone) {
            ("rfc3339", None) => Form::Rfc3339,
            ("unix", None) => Form::Unix(1),
            ("unix_ms", None) => Form::Unix(1000),
            (_, None) if says_offset => Form::Offset(format),
            ("rfc3339" | "unix" | "unix_ms", Some(_)) => return Err(format!("`zone` means nothing with `{format}`")),
            (_, Some(_)) if says_offset => return Err("`zone` means nothing with a format that has the offset".into()),
            (_, None) => return Err("`zone` is missing: the place whose time it is, such as `Asia/Shanghai` or `+08:00`".into()),
            (_, Some(name)) => {
                let zone = zone(&name).ok_or_else(|| format!("`{}` is no time zone (IANA) and no offset", name.escape_debug()))?;
                Form::Local(format, zone)
            }
        };
        form.check()?;
        Ok(MomentRule { columns, form, if_invalid: written.if_invalid })
    }
}

fn zone(name: &str) -> Option<TimeZone> {
    let offset = strtime::parse("%:z", name).ok().and_then(|parsed| parsed.offset());
    offset.map(TimeZone::fixed).or_else(|| TimeZone::get(name).ok())
}

impl Form {
    /// Whether a time that is written so is the same when it is read again.
    fn check(&self) -> Result<(), String> {
        let (format, zone) = match self {
            Form::Local(format, zone) => (format, zone),
            Form::Offset(format) => (format, &TimeZone::UTC),
            Form::Rfc3339 | Form::Unix(_) => return Ok(()),
        };
        let known = DateTime::constant(2026, 11, 29, 10, 11, 12, 0).to_zoned(zone.clone()).ok();
        let written = known.as_ref().and_then(|known| strtime::format(format, known).ok());
        let again = written.and_then(|written| self.read(&written));
        match known.filter(|known| again == Some(known.timestamp())) {
            Some(_) => Ok(()),
            None => Err(format!("`{}` is no format (strftime) with year, month, day, hours, minutes and seconds", format.escape_debug())),
        }
    }

    fn read(&self, text: &str) -> Option<Timestamp> {
        match self {
            // Of the two moments when clocks are set back, the first.
            Form::Local(format, zone) => zone.to_timestamp(strtime::parse(format, text).ok()?.to_datetime().ok()?).ok(),
            Form::Offset(format) => strtime::parse(format, text).ok()?.to_timestamp().ok(),
            Form::Rfc3339 => text.parse().ok(),
            Form::Unix(parts) => {
                let parts_since: i64 = text.parse().ok()?;
                Timestamp::from_millisecond(parts_since.checked_mul(1000 / parts)?).ok()
            }
        }
    }
}

impl Field for MomentRule {
    type Value = prost_types::Timestamp;

    fn value(&self, cells: &Cells) -> Result<Option<prost_types::Timestamp>, String> {
        let read = match self.columns.as_slice() {
            [one] if cells.get(one.cell).is_empty() => return Ok(None),
            [one] => self.form.read(cells.get(one.cell)),
            several => {
                let joined = several.iter().map(|used| cells.get(used.cell)).collect::<Vec<_>>().join(" ");
                if joined.trim().is_empty() {
                    return Ok(None);
                }
                self.form.read(joined.trim())
            }
        };
        let moment = read.ok_or_else(|| "is not written as `format` says".to_owned())?;
        Ok(Some(prost_types::Timestamp { seconds: moment.as_second(), nanos: moment.subsec_nanosecond() }))
    }

    fn if_invalid(&self) -> IfInvalid {
        self.if_invalid
    }

    fn columns(&mut self, visit: &mut dyn FnMut(&mut Used)) {
        self.columns.iter_mut().for_each(visit);
    }

    fn shown(value: &prost_types::Timestamp) -> String {
        let moment = Timestamp::new(value.seconds, value.nanos).map(|moment| moment.to_string());
        moment.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Result<MomentRule, String> {
        toml::from_str::<MomentRule>(text).map_err(|error| error.to_string())
    }

    fn read(text: &str, cells: &[&str]) -> Result<Option<String>, String> {
        let mut rule = rule(text).unwrap();
        let mut next = 0..;
        rule.columns(&mut |used| used.cell = next.next().unwrap());
        Ok(rule.value(&Cells::of(cells))?.as_ref().map(MomentRule::shown))
    }

    #[test]
    fn a_time_is_read_at_its_place() {
        let day = "columns = ['D', 'T']\nformat = '%Y%m%d %H%M%S'\nzone = 'Asia/Shanghai'";
        assert_eq!(read(day, &["20261129", "101112"]), Ok(Some("2026-11-29T02:11:12Z".into())));
        assert_eq!(read(day, &["", ""]), Ok(None));
        for wrong in [["20261129", ""], ["20261329", "101112"], ["2026112", "9101112"]] {
            assert_eq!(read(day, &wrong), Err("is not written as `format` says".into()), "{wrong:?}");
        }
        let fraction = "column = 'T'\nformat = '%Y-%m-%d %H:%M:%S%.f'\nzone = '+08:00'";
        assert_eq!(read(fraction, &["2026-11-29 10:11:12.25"]), Ok(Some("2026-11-29T02:11:12.25Z".into())));
        // At summer's end, two o'clock comes twice.
        let berlin = "column = 'T'\nformat = '%F %T'\nzone = 'Europe/Berlin'";
        assert_eq!(read(berlin, &["2026-10-25 02:30:00"]), Ok(Some("2026-10-25T00:30:00Z".into())));
        let offset = "column = 'T'\nformat = '%F %T %z'";
        assert_eq!(read(offset, &["2026-11-29 10:11:12 +0800"]), Ok(Some("2026-11-29T02:11:12Z".into())));
        assert_eq!(read("column = 'T'\nformat = 'rfc3339'", &["2026-11-29T10:11:12+08:00"]), Ok(Some("2026-11-29T02:11:12Z".into())));
        assert_eq!(read("column = 'T'\nformat = 'unix'", &["1790000000"]), Ok(Some("2026-09-21T14:13:20Z".into())));
        assert_eq!(read("column = 'T'\nformat = 'unix_ms'", &["1790000000123"]), Ok(Some("2026-09-21T14:13:20.123Z".into())));
        assert!(read("column = 'T'\nformat = 'unix_ms'", &["9999999999999999999"]).is_err());
    }

    #[test]
    fn a_time_that_could_mean_several_is_not_taken() {
        for (text, said) in [
            ("format = '%F %T'\nzone = '+08:00'", "a time needs `column`, or `columns`"),
            ("column = 'T'\nformat = '%F %T'", "`zone` is missing"),
            ("column = 'T'\nformat = '%F %T'\nzone = 'Asia/Peking'", "`Asia/Peking` is no time zone"),
            ("column = 'T'\nformat = '%m%d %T'\nzone = '+08:00'", "`%m%d %T` is no format"),
            ("column = 'T'\nformat = '%F'\nzone = '+08:00'", "`%F` is no format"),
            ("column = 'T'\nformat = 'unix'\nzone = '+08:00'", "`zone` means nothing with `unix`"),
            ("column = 'T'\nformat = '%F %T %z'\nzone = '+08:00'", "`zone` means nothing with a format"),
            ("column = 'T'\nzone = '+08:00'", "missing field `format`"),
        ] {
            let message = rule(text).unwrap_err();
            assert!(message.contains(said), "{message}");
        }
    }
}
