//! A past as a directory of counts, in the format of the yardstick:
//!
//! - `leaves.csv`: `leaf` and the values of its attributes;
//! - `counts.csv.gz`: `bucket` (first second of ten, since 1970-01-01 UTC), `leaf`, `tag`, `n`, and `arrival` where that was not in the bucket; sorted by arrival;
//! - `history.csv.gz`: by `slice` and `hour_of_week` (0: Monday, 00:00 to 01:00 UTC), `attempts` and failures by tag, a mean over the four weeks before;
//! - `calendar.csv`, where there is one: what was announced (`kind`, `start`, `end`, `slice`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use faultline_detect::{Announced, Class, Counts, Dimension, Observed, Past, PastCounts, Slice};

use crate::field::{ReadError, Table};
use crate::leaves::Leaves;
use crate::yardstick::{TAGS, slice_named};

/// Weeks that the history is a mean of.
const WEEKS: f64 = 4.0;
const DAYS: usize = 7;
const HOURS: usize = 24;
const WEEK: usize = DAYS * HOURS;
const HOUR_S: u32 = 3600;
/// 1970-01-01 was a Thursday: hours from the Monday before.
const EPOCH_HOUR: u32 = 3 * 24;

/// Mean counts of an hour, by tag in the order of [`TAGS`]; the first is of approvals.
type Means = [f64; TAGS.len()];

/// A directory of counts.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    pub(crate) leaves: Leaves,
    history: HashMap<Slice, Vec<Means>>,
    announced: Vec<Announced>,
}

/// A row of counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) bucket: u32,
    pub(crate) arrival: u32,
    pub(crate) leaf: u32,
    /// Number of the tag in [`TAGS`].
    pub(crate) tag: usize,
    pub(crate) number: u32,
}

impl Directory {
    /// Reads everything but the counts.
    ///
    /// # Errors
    /// When a file cannot be read, or is not what it is to be.
    pub fn open(path: &Path) -> Result<Directory, ReadError> {
        let history = history(&path.join("history.csv.gz"))?;
        let mut families: Vec<Vec<Dimension>> = Vec::new();
        for slice in history.keys() {
            let family: Vec<Dimension> = slice.values().map(|(dimension, _)| dimension).collect();
            if !families.contains(&family) {
                families.push(family);
            }
        }
        families.sort();
        let leaves = Leaves::read(&path.join("leaves.csv"), &families)?;
        let calendar = path.join("calendar.csv");
        let announced = if calendar.exists() { announced(&calendar)? } else { Vec::new() };
        Ok(Directory { path: path.into(), leaves, history, announced })
    }

    /// What was announced.
    #[must_use]
    pub fn announced(&self) -> &[Announced] {
        &self.announced
    }

    /// Bytes of the counts, as they are on disk.
    ///
    /// # Errors
    /// When there are none.
    pub fn size(&self) -> Result<u64, ReadError> {
        let path = self.path.join(COUNTS);
        let size = path.metadata().map(|metadata| metadata.len());
        size.map_err(|source| ReadError::Read { path, source })
    }

    pub(crate) fn counts(&self) -> Result<Rows, ReadError> {
        Ok(Rows { table: Table::open(&self.path.join(COUNTS), &["bucket", "leaf", "tag", "n", "arrival"])?, leaves: self.leaves.len() })
    }

    /// The weeks before, as seen from the hour that begins at this second.
    pub(crate) fn past(&self, hour: u32) -> Past {
        let this = usize::try_from((hour / HOUR_S + EPOCH_HOUR) % 168).unwrap_or_default();
        let three = [(this + WEEK - 1) % WEEK, this, (this + 1) % WEEK];
        let days = |hour: usize| (0..DAYS).map(move |day| (hour + day * HOURS) % WEEK);
        let slices = self.history.iter().map(|(slice, hours)| {
            let sum = |places: &mut dyn Iterator<Item = usize>| counts(places.filter_map(|place| hours.get(place)));
            let around = sum(&mut three.iter().flat_map(|hour| days(*hour)));
            let same_day = three.map(|hour| sum(&mut std::iter::once(hour)).approved);
            let all_days = three.map(|hour| sum(&mut days(hour)).approved);
            (slice.clone(), PastCounts { at_hour: sum(&mut std::iter::once(this)), around, same_day, all_days })
        });
        let slices: HashMap<Slice, PastCounts> = slices.collect();
        let fleet = slices.get(&Slice::fleet()).cloned().unwrap_or_default();
        let observed = |approved: [u64; 3], hours: u64| approved.map(|approved| Observed { approved, seconds: hours * u64::from(HOUR_S) });
        Past { hour, same_day: observed(fleet.same_day, 4), all_days: observed(fleet.all_days, 28), slices }
    }
}

const COUNTS: &str = "counts.csv.gz";

/// The counts, row by row.
pub(crate) struct Rows {
    table: Table,
    leaves: usize,
}

impl Rows {
    /// Bytes of the file that were read.
    pub(crate) fn read(&self) -> u64 {
        self.table.read()
    }

    /// The next row; nothing after the last.
    pub(crate) fn next(&mut self) -> Result<Option<Row>, ReadError> {
        let table = &mut self.table;
        if !table.next()? {
            return Ok(None);
        }
        let bucket = table.whole(0)?;
        let arrival = if table.bytes(4).is_empty() { bucket } else { table.whole(4)? };
        let leaf = table.whole(1)?;
        if usize::try_from(leaf).unwrap_or(usize::MAX) >= self.leaves {
            return Err(table.refuse(1, "a leaf of leaves.csv"));
        }
        let tag = table.bytes(2);
        let tag = TAGS.iter().position(|(name, _)| name.as_bytes() == tag).ok_or_else(|| table.refuse(2, TAG))?;
        Ok(Some(Row { bucket, arrival, leaf, tag, number: table.whole(3)? }))
    }
}

const TAG: &str = "a tag: approved, funds, cardholder, issuer_refusal, issuer_down, issuer_timeout, host_unreachable, device_read, local_network or security";
const SLICE: &str = "a slice: `fleet`, or `attribute=value` joined by `&`";

/// Reads `history.csv.gz`.
fn history(path: &Path) -> Result<HashMap<Slice, Vec<Means>>, ReadError> {
    let failures = TAGS.iter().skip(1).map(|(tag, _)| *tag);
    let columns: Vec<&str> = ["slice", "hour_of_week", "attempts"].into_iter().chain(failures).collect();
    let mut table = Table::open(path, &columns)?;
    let mut history: HashMap<Slice, Vec<Means>> = HashMap::new();
    while table.next()? {
        let slice = slice_named(table.text(0)?).ok_or_else(|| table.refuse(0, SLICE))?;
        let hours = history.entry(slice).or_insert_with(|| vec![Means::default(); WEEK]);
        let place = usize::try_from(table.whole(1)?).unwrap_or(usize::MAX);
        let means = hours.get_mut(place).ok_or_else(|| table.refuse(1, "an hour of the week, from 0 to 167"))?;
        let mut failed = 0.0;
        for (tag, mean) in means.iter_mut().enumerate().skip(1) {
            *mean = table.parse(tag + 2, "a number")?;
            failed += *mean;
        }
        let attempts: f64 = table.parse(2, "a number")?;
        if let Some(approved) = means.first_mut() {
            *approved = (attempts - failed).max(0.0);
        }
    }
    Ok(history)
}

/// Reads `calendar.csv`. Holidays are of the whole fleet, and are seen as a fleet that is quiet as a whole: nothing is announced by them.
fn announced(path: &Path) -> Result<Vec<Announced>, ReadError> {
    let mut table = Table::open(path, &["kind", "start", "end", "slice"])?;
    let mut announced = Vec::new();
    while table.next()? {
        let slice = slice_named(table.text(3)?).ok_or_else(|| table.refuse(3, SLICE))?;
        let entry = Announced { slice, from: table.whole(1)?, until: table.whole(2)? };
        if table.bytes(0) != b"holiday" {
            announced.push(entry);
        }
    }
    Ok(announced)
}

/// What was counted in hours of the four weeks.
fn counts<'a>(hours: impl Iterator<Item = &'a Means>) -> Counts {
    let mut sums = Means::default();
    for means in hours {
        for (sum, mean) in sums.iter_mut().zip(means) {
            *sum += mean * WEEKS;
        }
    }
    let mut counts = Counts::default();
    for ((_, class), sum) in TAGS.iter().zip(sums) {
        if sum > 0.0 || *class == Class::Approved {
            counts.add(*class, whole(sum));
        }
    }
    counts
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts of four weeks are far below 2^53 and not below 0")]
fn whole(number: f64) -> u64 {
    number.round().max(0.0) as u64
}
