//! Which days are like which, and what is announced: a file that operations keep.
//!
//! ```toml
//! # Where the fleet is: days begin at its midnight. Without this, at midnight UTC.
//! time_zone = "Asia/Shanghai"
//!
//! [[day]]
//! date = "2026-10-01"
//! like = "holiday"
//! name = "National Day"
//!
//! # A Saturday that is worked instead.
//! [[day]]
//! date = "2026-10-10"
//! like = "friday"
//!
//! [[maintenance]]
//! slice = "issuer=icbc"
//! from = "2026-10-11T02:00:00+08:00"
//! until = "2026-10-11T04:00:00+08:00"
//! # One tenant's; without this, that of all.
//! tenant = "acme"
//! ```
//!
//! A day is like those of the four weeks before that are what it is: Mondays of other Mondays, holidays of holidays, and of Sundays while there were none. So a
//! holiday on a Thursday is not expected to be one, and does not tell what Thursdays are like.

use std::collections::BTreeMap;

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde::Deserialize;

use crate::announced::Announced;
use crate::slice::{NoSlice, Slice};

const HOUR_S: u32 = 3600;
/// How far back days say what is usual.
const DAYS: i32 = 28;

/// Days, and what is announced. By default, days are those of UTC, and there is nothing in it.
#[derive(Clone, Debug)]
pub struct Calendar {
    zone: TimeZone,
    days: BTreeMap<Date, DayKind>,
    maintenance: Vec<Maintenance>,
}

/// What is wrong with a calendar.
#[derive(Debug, thiserror::Error)]
pub enum CalendarError {
    /// It is not of the format; the message names the line.
    #[error("{0}")]
    Format(#[from] toml::de::Error),
    /// There is no such time zone.
    #[error("time_zone = {zone:?}: it is none of the IANA time zones, like \"Asia/Shanghai\"")]
    Zone {
        /// What it says.
        zone: String,
    },
    /// A field of an entry is not one.
    #[error("{table} {number}: {field} = {value:?}: {reason}")]
    Field {
        /// `day` or `maintenance`.
        table: &'static str,
        /// Which one, from 1.
        number: usize,
        /// The field.
        field: &'static str,
        /// What it says.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// An hour, by its first second since 1970-01-01 UTC, that says something of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HourLike {
    /// Its first second.
    pub begin: u32,
    /// Whether it is of a day of the same kind; otherwise it is only the same hour of the day.
    pub is_same_day: bool,
}

/// What days are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DayKind {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
    Holiday,
}

/// Maintenance that is announced, to a tenant or to all.
#[derive(Clone, Debug)]
struct Maintenance {
    tenant: Option<String>,
    announced: Announced,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    time_zone: Option<String>,
    #[serde(default)]
    day: Vec<DayEntry>,
    #[serde(default)]
    maintenance: Vec<MaintenanceEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DayEntry {
    date: String,
    like: DayKind,
    /// For those who read it.
    #[serde(rename = "name")]
    _name: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MaintenanceEntry {
    slice: String,
    from: String,
    until: String,
    tenant: Option<String>,
    /// For those who read it.
    #[serde(rename = "name")]
    _name: Option<String>,
}

impl Default for Calendar {
    fn default() -> Calendar {
        Calendar { zone: TimeZone::UTC, days: BTreeMap::new(), maintenance: Vec::new() }
    }
}

impl Calendar {
    /// Reads the text of a calendar.
    ///
    /// # Errors
    /// When it is not of the format, or a field says what is none; the message names it and what it says.
    pub fn read(text: &str) -> Result<Calendar, CalendarError> {
        let file: File = toml::from_str(text)?;
        let zone = file.time_zone.map(|zone| TimeZone::get(&zone).map_err(|_| CalendarError::Zone { zone })).transpose()?;
        let mut days = BTreeMap::new();
        for (number, DayEntry { date, like, .. }) in (1..).zip(file.day) {
            let refuse = |reason: String| CalendarError::Field { table: "day", number, field: "date", value: date.clone(), reason };
            let known: Date = date.parse().map_err(|_| refuse("it is no date, like 2026-10-01".into()))?;
            if days.insert(known, like).is_some() {
                return Err(refuse("the day is there twice".into()));
            }
        }
        let maintenance = (1..).zip(file.maintenance).map(|(number, entry)| entry.read(number)).collect::<Result<_, _>>()?;
        Ok(Calendar { zone: zone.unwrap_or(TimeZone::UTC), days, maintenance })
    }

    /// What is announced to a tenant.
    #[must_use]
    pub fn announced(&self, tenant: &str) -> Vec<Announced> {
        let to_it = self.maintenance.iter().filter(|entry| entry.tenant.as_deref().is_none_or(|own| own == tenant));
        to_it.map(|entry| entry.announced.clone()).collect()
    }

    /// The hours that say what is usual at one: the same hour of the day, that day and on each of the four weeks before. Where clocks are put forward or back, the hour of
    /// the day is that of the clock.
    #[must_use]
    pub fn hours_like(&self, hour: u32) -> Vec<HourLike> {
        let Ok(moment) = Timestamp::from_second(hour.into()) else { return Vec::new() };
        let now = moment.to_zoned(self.zone.clone()).datetime();
        let days = (0..=DAYS).filter_map(|days| {
            let before = now.checked_sub(days.days()).ok()?;
            let second = self.zone.to_zoned(before).ok()?.timestamp().as_second();
            let second = u32::try_from(second).ok()?;
            Some((second - second % HOUR_S, self.kind(before.date())))
        });
        let days: Vec<(u32, DayKind)> = days.collect();
        let kind = self.kind(now.date());
        // The day itself says of a holiday what it says of any other.
        let is_first = kind == DayKind::Holiday && days.iter().skip(1).all(|(_, other)| *other != DayKind::Holiday);
        let is_like = |other: DayKind| other == kind || (is_first && other == DayKind::Sunday);
        days.into_iter().map(|(begin, other)| HourLike { begin, is_same_day: is_like(other) }).collect()
    }

    fn kind(&self, date: Date) -> DayKind {
        self.days.get(&date).copied().unwrap_or(match date.weekday() {
            Weekday::Monday => DayKind::Monday,
            Weekday::Tuesday => DayKind::Tuesday,
            Weekday::Wednesday => DayKind::Wednesday,
            Weekday::Thursday => DayKind::Thursday,
            Weekday::Friday => DayKind::Friday,
            Weekday::Saturday => DayKind::Saturday,
            Weekday::Sunday => DayKind::Sunday,
        })
    }
}

impl MaintenanceEntry {
    fn read(self, number: usize) -> Result<Maintenance, CalendarError> {
        let refuse = |field, value: &str, reason: &str| CalendarError::Field {
            table: "maintenance",
            number,
            field,
            value: value.into(),
            reason: reason.into(),
        };
        let moment = |field, value: &str| {
            let second = value.parse::<Timestamp>().ok().and_then(|moment| u32::try_from(moment.as_second()).ok());
            second.ok_or_else(|| refuse(field, value, "it is no moment with its offset, like 2026-10-11T02:00:00+08:00"))
        };
        let slice: Slice = self.slice.parse().map_err(|error: NoSlice| refuse("slice", &self.slice, &error.to_string()))?;
        let (from, until) = (moment("from", &self.from)?, moment("until", &self.until)?);
        if until <= from {
            return Err(refuse("until", &self.until, "it is not after `from`"));
        }
        Ok(Maintenance { tenant: self.tenant, announced: Announced { slice, from, until } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slice::Dimension;

    fn second(moment: &str) -> u32 {
        u32::try_from(moment.parse::<Timestamp>().unwrap().as_second()).unwrap()
    }

    /// Days of the same kind, by how many days ago they were.
    fn days_like(calendar: &Calendar, hour: u32) -> Vec<u32> {
        let alike = calendar.hours_like(hour).into_iter().filter(|hour| hour.is_same_day);
        alike.map(|like| (hour - like.begin) / 86_400).collect()
    }

    #[test]
    fn without_a_calendar_a_day_is_like_those_of_its_weekday() {
        let hour = second("2026-11-20T10:00:00Z");
        let hours = Calendar::default().hours_like(hour);
        assert_eq!((hours.len(), hours[0].begin, hours[28].begin), (29, hour, hour - 28 * 86_400));
        assert_eq!(days_like(&Calendar::default(), hour), [0, 7, 14, 21, 28]);
        assert!(Calendar::default().announced("acme").is_empty());
    }

    #[test]
    fn a_holiday_is_like_holidays_and_a_working_saturday_like_fridays() {
        let holidays = (1..8).map(|day| format!("[[day]]\ndate = \"2026-10-0{day}\"\nlike = \"holiday\"\n"));
        let text =
            format!("time_zone = \"Asia/Shanghai\"\n[[day]]\ndate = \"2026-10-10\"\nlike = \"friday\"\n{}", holidays.collect::<String>());
        let calendar = Calendar::read(&text).unwrap();
        // 22:00 UTC is the next day there. 2026-10-01 is a Thursday, and the first: like Sundays.
        assert_eq!(days_like(&calendar, second("2026-09-30T22:00:00Z")), [0, 4, 11, 18, 25]);
        assert_eq!(days_like(&calendar, second("2026-10-03T22:00:00Z")), [0, 1, 2, 3]);
        // The Friday before was a holiday.
        assert_eq!(days_like(&calendar, second("2026-10-10T02:00:00Z")), [0, 1, 15, 22]);
        // A Thursday after it: the last one was a working day, that before a holiday.
        assert_eq!(days_like(&calendar, second("2026-10-15T02:00:00Z")), [0, 7, 21, 28]);
    }

    #[test]
    fn the_hour_of_the_day_is_that_of_the_clock() {
        let calendar = Calendar::read("time_zone = \"Europe/Berlin\"").unwrap();
        // Clocks were put back on 2026-10-25: noon was at 10:00 UTC, and is at 11:00.
        let hours = calendar.hours_like(second("2026-10-27T11:00:00Z"));
        assert_eq!((hours[1].begin, hours[7].begin), (second("2026-10-26T11:00:00Z"), second("2026-10-20T10:00:00Z")));
    }

    #[test]
    fn maintenance_is_a_tenants_or_everybodys() {
        let text = "[[maintenance]]\nslice = \"issuer=icbc\"\nfrom = \"2026-10-11T02:00:00+08:00\"\nuntil = \"2026-10-11T04:00:00+08:00\"\nname = \"core\"\n\
                    [[maintenance]]\ntenant = \"acme\"\nslice = \"fleet\"\nfrom = \"2026-10-12T00:00:00Z\"\nuntil = \"2026-10-12T01:00:00Z\"\n";
        let calendar = Calendar::read(text).unwrap();
        let icbc = Slice::new([(Dimension::Issuer, "icbc")]);
        let begin = second("2026-10-10T18:00:00Z");
        assert_eq!(calendar.announced("other"), [Announced { slice: icbc, from: begin, until: begin + 7200 }]);
        assert_eq!(calendar.announced("acme").len(), 2);
    }

    #[test]
    fn the_calendar_of_the_documentation_is_one() {
        let page = include_str!("../../../docs/calendar.md");
        let example = page.split("```toml").nth(1).unwrap().split("```").next().unwrap();
        assert_eq!(Calendar::read(example).unwrap().announced("acme").len(), 1);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = |text: &str| Calendar::read(text).unwrap_err().to_string();
        assert!(wrong("time_zone = \"Mars/Olympus\"").contains("time_zone = \"Mars/Olympus\""));
        let day = |date: &str, like: &str| format!("[[day]]\ndate = \"{date}\"\nlike = \"{like}\"\n");
        assert!(wrong(&day("2026-13-01", "holiday")).contains("day 1: date = \"2026-13-01\": it is no date"));
        assert!(wrong(&day("2026-10-01", "doomsday")).contains("unknown variant `doomsday`"));
        assert!(wrong(&day("2026-10-01", "sunday").repeat(2)).contains("day 2: date = \"2026-10-01\": the day is there twice"));
        assert!(wrong("[[day]]\ndate = \"2026-10-01\"\nlike = \"sunday\"\nlikes = 1").contains("unknown field `likes`"));
        let maintenance = |slice: &str, from: &str, until: &str| {
            format!("[[maintenance]]\nslice = \"{slice}\"\nfrom = \"{from}\"\nuntil = \"{until}\"\n")
        };
        let (noon, one) = ("2026-10-11T12:00:00Z", "2026-10-11T13:00:00Z");
        assert!(wrong(&maintenance("weather=rain", noon, one)).contains("maintenance 1: slice = \"weather=rain\""));
        assert!(wrong(&maintenance("fleet", "noon", one)).contains("maintenance 1: from = \"noon\""));
        assert!(wrong(&maintenance("fleet", one, noon)).contains("maintenance 1: until = \"2026-10-11T12:00:00Z\": it is not after"));
    }
}
