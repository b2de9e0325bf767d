//! The families of slices that are counted, and how rows are summed into them. A family is a way to cut the fleet; a slice is one of its pieces, named
//! by its key.
//!
//! Every row counts in every family, also where it has no value (`` is a key like others), so that the sums of all families are the same.
//! A family that is added here is counted from then on; its past would have to be computed from `outcomes`.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use faultline_proto::outcome::v1::EntryMode;
use faultline_proto::verdict::v1::Cause;
use foldhash::fast::RandomState;

use crate::block::Block;
use crate::delivery::BatchId;
use crate::outcomes::OutcomeRow;

/// Length of a bucket of event time, in seconds.
pub(crate) const BUCKET_S: u32 = 10;

/// By so many seconds `rollup` is in order, before it is by slices.
const TEN_MINUTES_S: u32 = 600;

/// The family whose rows say which records an insert covered.
pub(crate) const LEDGER: &str = "ledger";

/// The family of everything, and what its one slice is called.
pub(crate) const FLEET: &str = "fleet";

/// What an entry mode of a newer contract is called.
const NEWER: &str = "newer";

/// What joins the values of a key of two. No identifier of the contract has it.
const JOINT: char = '|';

/// One way to cut the fleet.
struct Family {
    name: &'static str,
    /// The columns of `outcomes` whose values its keys are made of.
    dimensions: &'static [&'static str],
    key: for<'a> fn(&Dimensions<'a>) -> Key<'a>,
}

/// The one value or the two that name a slice.
type Key<'a> = (&'a str, Option<&'a str>);

const FAMILIES: [Family; 9] = [
    Family { name: FLEET, dimensions: &[], key: |_| ("", None) },
    Family { name: "issuer", dimensions: &["issuer"], key: |of| (of.issuer, None) },
    Family { name: "issuer_entry", dimensions: &["issuer", "entry_mode"], key: |of| (of.issuer, Some(entry_mode(of.entry_mode))) },
    Family { name: "carrier", dimensions: &["carrier"], key: |of| (of.carrier, None) },
    Family { name: "carrier_region", dimensions: &["carrier", "region"], key: |of| (of.carrier, Some(of.region)) },
    Family { name: "host", dimensions: &["acquirer", "host"], key: |of| (of.acquirer, Some(of.host)) },
    Family { name: "model_firmware", dimensions: &["model", "firmware"], key: |of| (of.model, Some(of.firmware)) },
    Family { name: "region", dimensions: &["region"], key: |of| (of.region, None) },
    Family { name: "merchant_group", dimensions: &["merchant_group"], key: |of| (of.merchant_group, None) },
];

/// What the fleet is cut by. The values are those of the columns of `outcomes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the schema documents its columns")]
pub struct Dimensions<'a> {
    pub issuer: &'a str,
    pub entry_mode: u16,
    pub carrier: &'a str,
    pub region: &'a str,
    pub acquirer: &'a str,
    pub host: &'a str,
    pub model: &'a str,
    pub firmware: &'a str,
    pub merchant_group: &'a str,
}

impl Dimensions<'_> {
    /// The slices that they are in, one of each family: its name and the slice's key.
    pub fn slices(&self) -> impl Iterator<Item = (&'static str, String)> {
        FAMILIES.iter().map(|family| (family.name, joined((family.key)(self)).into_owned()))
    }
}

fn joined((first, second): Key<'_>) -> Cow<'_, str> {
    second.map_or(Cow::Borrowed(first), |second| Cow::Owned(format!("{first}{JOINT}{second}")))
}

/// A condition in SQL: the buckets of `rollup` from one second since 1970-01-01 UTC on, and before another. The table is in order of tens of minutes before it
/// is of slices, but a condition on `bucket` alone is looked up where that comes in the order, behind the slices: nearly everything would be read.
pub(crate) fn of_time(time: &Range<u32>) -> String {
    let Range { start, end } = time;
    format!(
        "toStartOfTenMinutes(bucket) >= fromUnixTimestamp({}) AND toStartOfTenMinutes(bucket) <= fromUnixTimestamp({end}) \
         AND bucket >= fromUnixTimestamp({start}) AND bucket < fromUnixTimestamp({end})",
        start - start % TEN_MINUTES_S
    )
}

/// A condition that an outcome was completed in a time, in seconds since 1970-01-01 UTC: in terms of the order of rows, and of what is known of parts. Of a column of milliseconds, ClickHouse takes
/// `< toDateTime(10)` for `<= 9` where it leaves parts out, so moments are of milliseconds too.
pub(crate) fn completed_in(time: &Range<u32>) -> String {
    let Range { start, end } = time;
    format!(
        "completed_at >= toDateTime64({start}, 3) AND completed_at < toDateTime64({end}, 3) \
         AND toUnixTimestamp64Milli(completed_at) >= {start}000 AND toUnixTimestamp64Milli(completed_at) < {end}000"
    )
}

/// The names of all families.
#[must_use]
pub fn families() -> [&'static str; FAMILIES.len()] {
    FAMILIES.map(|family| family.name)
}

/// What a slice of a family has in common, by name of the column: the values of its key. Nothing where there is no such family.
#[must_use]
pub fn values<'a>(family: &str, key: &'a str) -> Option<Vec<(&'static str, &'a str)>> {
    let dimensions = FAMILIES.iter().find(|known| known.name == family)?.dimensions;
    let values = key.splitn(dimensions.len().max(1), JOINT);
    Some(dimensions.iter().copied().zip(values).collect())
}

/// The columns of `outcomes` that the fleet is cut by.
pub(crate) const DIMENSIONS: [&str; 9] =
    ["acquirer", "carrier", "entry_mode", "firmware", "host", "issuer", "merchant_group", "model", "region"];

/// Values of these columns, in their order, as ClickHouse has them in a tuple.
pub(crate) type DimensionValues<'a> = (&'a str, &'a str, u16, &'a str, &'a str, &'a str, &'a str, &'a str, &'a str);

/// Texts of an answer, each of them once: of tens of thousands of rows, most values are the same.
#[derive(Debug, Default)]
pub(crate) struct Texts(HashSet<Arc<str>, RandomState>);

impl Texts {
    /// Values by name of the column; an entry mode by its name, as in families.
    pub(crate) fn by_name(&mut self, values: DimensionValues<'_>) -> [(&'static str, Arc<str>); DIMENSIONS.len()] {
        let (acquirer, carrier, mode, firmware, host, issuer, merchant_group, model, region) = values;
        let mut values = [acquirer, carrier, entry_mode(mode), firmware, host, issuer, merchant_group, model, region].into_iter();
        DIMENSIONS.map(|column| (column, self.keep(values.next().unwrap_or_default())))
    }

    fn keep(&mut self, text: &str) -> Arc<str> {
        if let Some(kept) = self.0.get(text) {
            return Arc::clone(kept);
        }
        let kept: Arc<str> = text.into();
        self.0.insert(Arc::clone(&kept));
        kept
    }
}

/// The outcomes that have all of these values, by name of the column; without any, all there are. As text it is what `incidents.slice` holds: `fleet`, or
/// `issuer=icbc&entry_mode=chip`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice(Vec<(&'static str, String)>);

/// A slice that is counted, by family and key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountedSlice {
    pub(crate) family: &'static str,
    pub(crate) key: String,
}

impl CountedSlice {
    /// Everything.
    #[must_use]
    pub fn fleet() -> CountedSlice {
        CountedSlice { family: FLEET, key: String::new() }
    }
}

/// Why a text is not a [`Slice`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not `fleet`, or `dimension=value` for dimensions among {}, joined by `&`", DIMENSIONS.join(", "))]
pub struct NoSlice;

impl FromStr for Slice {
    type Err = NoSlice;

    fn from_str(text: &str) -> Result<Slice, NoSlice> {
        if text == FLEET {
            return Ok(Slice::default());
        }
        let mut values: Vec<(&'static str, String)> = Vec::new();
        for part in text.split('&') {
            let named = part.split_once('=').and_then(|(name, value)| Some((DIMENSIONS.iter().find(|known| **known == name)?, value)));
            match named {
                Some((name, value)) => values.push((name, value.into())),
                // The sign is part of the value before it.
                None => {
                    let (_, value) = values.last_mut().ok_or(NoSlice)?;
                    *value = format!("{value}&{part}");
                }
            }
        }
        Ok(Slice(values))
    }
}

impl fmt::Display for Slice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values: Vec<String> = self.values().map(|(name, value)| format!("{name}={value}")).collect();
        formatter.write_str(if values.is_empty() { FLEET } else { "" })?;
        formatter.write_str(&values.join("&"))
    }
}

impl Slice {
    /// Its values, by name of the column.
    pub fn values(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// Where it is counted, if it is.
    #[must_use]
    pub fn counted(&self) -> Option<CountedSlice> {
        let value = |wanted: &str| self.values().find(|(name, _)| *name == wanted).map(|(_, value)| value);
        FAMILIES.iter().find_map(|family| {
            let values: Vec<&str> = family.dimensions.iter().copied().filter_map(value).collect();
            let is_it = values.len() == self.0.len() && values.len() == family.dimensions.len();
            // A key tells where its last value begins.
            let is_told = values.split_last().is_none_or(|(_, before)| !before.iter().any(|value| value.contains(JOINT)));
            (is_it && is_told).then(|| CountedSlice { family: family.name, key: values.join(&JOINT.to_string()) })
        })
    }
}

/// The number that `outcomes` has for the name of an entry mode; none for one that is not known.
pub(crate) fn entry_mode_number(name: &str) -> Option<u16> {
    (0..=u16::MAX).take_while(|number| entry_mode(*number) != NEWER).find(|number| entry_mode(*number) == name)
}

pub(crate) fn entry_mode(number: u16) -> &'static str {
    match EntryMode::try_from(i32::from(number)) {
        Ok(EntryMode::Unspecified) => "",
        Ok(EntryMode::Chip) => "chip",
        Ok(EntryMode::Contactless) => "contactless",
        Ok(EntryMode::MagneticStripe) => "magnetic_stripe",
        Ok(EntryMode::Qr) => "qr",
        Ok(EntryMode::Keyed) => "keyed",
        Err(_) => NEWER,
    }
}

/// What of a row of `outcomes` is counted: of one that is about to be stored, and of one that is read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) completed_at: i64,
    pub(crate) dimensions: Dimensions<'a>,
    pub(crate) tag: &'a str,
    pub(crate) cause: i8,
    pub(crate) currency: &'a str,
    pub(crate) amount_minor: i64,
    pub(crate) sign: i8,
}

impl<'a> From<&OutcomeRow<'a>> for Facts<'a> {
    fn from(row: &OutcomeRow<'a>) -> Facts<'a> {
        Facts {
            tenant: row.tenant,
            completed_at: row.completed_at,
            dimensions: Dimensions {
                issuer: row.issuer,
                entry_mode: row.entry_mode,
                carrier: row.carrier,
                region: row.region,
                acquirer: row.acquirer,
                host: row.host,
                model: row.model,
                firmware: row.firmware,
                merchant_group: row.merchant_group,
            },
            tag: row.tag,
            cause: row.cause,
            currency: row.currency,
            amount_minor: row.amount_minor,
            sign: row.sign,
        }
    }
}

/// A row of `rollup`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RollupRow<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) family: &'a str,
    pub(crate) key: Cow<'a, str>,
    pub(crate) bucket: u32,
    pub(crate) tag: &'a str,
    pub(crate) cause: i8,
    pub(crate) currency: &'a str,
    pub(crate) count: i64,
    pub(crate) amount_minor: i64,
    pub(crate) simulated: bool,
}

impl RollupRow<'_> {
    /// All of the table's columns, but when a row was counted: the server knows.
    pub(crate) fn block<'r>(rows: &'r [RollupRow<'r>]) -> Block<'r> {
        Block::of(rows, |block| {
            block.words("tenant", |row| row.tenant);
            block.words("family", |row| row.family);
            block.words("key", |row| &row.key);
            block.seconds("bucket", |row| row.bucket);
            block.words("tag", |row| row.tag);
            block.numbers("cause", |row| row.cause);
            block.words("currency", |row| row.currency);
            block.numbers("count", |row| row.count);
            block.numbers("amount_minor", |row| row.amount_minor);
            block.numbers("simulated", |row| row.simulated);
        })
    }
}

/// Sums of rows, by family and slice, and how many rows they are of.
#[derive(Debug, Default)]
pub(crate) struct Rollup<'a> {
    /// By slice and ending.
    sums: HashMap<(u32, u32), Sum, RandomState>,
    slices: Numbered<(usize, Key<'a>)>,
    endings: Numbered<Ending<'a>>,
    /// By family, the slice of the row before: rows of one terminal are beside each other.
    before: [Option<(Key<'a>, u32)>; FAMILIES.len()],
    rows: i64,
}

/// What rows of a slice that are counted together have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ending<'a> {
    tenant: &'a str,
    bucket: u32,
    tag: &'a str,
    cause: i8,
    currency: &'a str,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    count: i64,
    amount_minor: i64,
}

/// Different things, each with a number: its place.
#[derive(Debug)]
struct Numbered<T> {
    numbers: HashMap<T, u32, RandomState>,
    things: Vec<T>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Numbered { numbers: HashMap::default(), things: Vec::new() }
    }
}

impl<T: Copy + Eq + Hash> Numbered<T> {
    fn number(&mut self, thing: T) -> u32 {
        *self.numbers.entry(thing).or_insert_with(|| {
            self.things.push(thing);
            u32::try_from(self.things.len() - 1).unwrap_or(u32::MAX)
        })
    }

    fn thing(&self, number: u32) -> Option<T> {
        self.things.get(usize::try_from(number).ok()?).copied()
    }
}

/// Whether two keys are the same texts in memory; others may be equal all the same.
fn is_same(one: Key<'_>, other: Key<'_>) -> bool {
    std::ptr::eq(one.0, other.0)
        && match (one.1, other.1) {
            (Some(one), Some(other)) => std::ptr::eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        }
}

impl<'a> Rollup<'a> {
    pub(crate) fn add(&mut self, row: &Facts<'a>) {
        self.rows += 1;
        let sign = i64::from(row.sign);
        let ending = self.endings.number(Ending {
            tenant: row.tenant,
            bucket: bucket(row.completed_at),
            tag: row.tag,
            cause: row.cause,
            currency: row.currency,
        });
        for ((place, family), before) in FAMILIES.iter().enumerate().zip(&mut self.before) {
            let key = (family.key)(&row.dimensions);
            let slice = match *before {
                Some((same, slice)) if is_same(same, key) => slice,
                _ => self.slices.number((place, key)),
            };
            *before = Some((key, slice));
            let sum = self.sums.entry((slice, ending)).or_default();
            sum.count += sign;
            sum.amount_minor = sum.amount_minor.saturating_add(sign.saturating_mul(row.amount_minor));
        }
    }

    /// The rows for the table, sorted as it is in the main, and among them the one that says which batch they are of.
    pub(crate) fn rows(&self, id: &BatchId<'_>) -> Vec<RollupRow<'a>> {
        let ledger = RollupRow {
            tenant: "",
            family: LEDGER,
            key: id.to_string().into(),
            bucket: bucket(id.since_ms),
            tag: "",
            cause: i8::try_from(i32::from(Cause::Unknown)).unwrap_or_default(),
            currency: "",
            count: self.rows,
            amount_minor: 0,
            simulated: false,
        };
        let sums = self.sums.iter().filter_map(|((slice, ending), sum)| {
            let ((family, key), ending) = (self.slices.thing(*slice)?, self.endings.thing(*ending)?);
            Some(RollupRow {
                tenant: ending.tenant,
                family: FAMILIES.get(family)?.name,
                key: joined(key),
                bucket: ending.bucket,
                tag: ending.tag,
                cause: ending.cause,
                currency: ending.currency,
                count: sum.count,
                amount_minor: sum.amount_minor,
                simulated: false,
            })
        });
        let mut rows: Vec<RollupRow> = sums.chain([ledger]).collect();
        rows.sort_unstable();
        rows
    }
}

/// The bucket that a moment, in milliseconds since 1970-01-01 UTC, falls into, as its first second. What the column cannot hold is at its ends.
pub(crate) fn bucket(unix_ms: i64) -> u32 {
    let second = u32::try_from(unix_ms.div_euclid(1000).max(0)).unwrap_or(u32::MAX);
    second - second % BUCKET_S
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: BatchId<'static> = BatchId { log: "log", partition: 0, first: 5, last: 7, since_ms: 1_790_000_012_000 };
    const FACTS: Facts<'static> = Facts {
        tenant: "acme",
        completed_at: 1_790_000_009_999,
        dimensions: Dimensions {
            issuer: "icbc",
            entry_mode: 1,
            carrier: "46000",
            region: "440300",
            acquirer: "48020000",
            host: "h1",
            model: "PAX A920",
            firmware: "7.1",
            merchant_group: "",
        },
        tag: "funds/host_decision",
        cause: 5,
        currency: "CNY",
        amount_minor: 1234,
        sign: 1,
    };

    #[test]
    fn a_time_is_looked_up_by_tens_of_minutes() {
        let expected = "toStartOfTenMinutes(bucket) >= fromUnixTimestamp(1200) AND toStartOfTenMinutes(bucket) <= fromUnixTimestamp(1810) \
                        AND bucket >= fromUnixTimestamp(1790) AND bucket < fromUnixTimestamp(1810)";
        assert_eq!(of_time(&(1790..1810)), expected);
    }

    #[test]
    fn every_row_counts_once_in_every_family() {
        let mut rollup = Rollup::default();
        let other = Facts { dimensions: Dimensions { issuer: "ccb", ..FACTS.dimensions }, amount_minor: 66, ..FACTS };
        for facts in [&FACTS, &other, &FACTS] {
            rollup.add(facts);
        }
        let rows = rollup.rows(&ID);
        for family in families() {
            let of_family = rows.iter().filter(|row| row.family == family);
            assert_eq!(of_family.clone().map(|row| row.count).sum::<i64>(), 3, "{family}");
            assert_eq!(of_family.map(|row| row.amount_minor).sum::<i64>(), 2534, "{family}");
        }
        let issuers: Vec<_> = rows.iter().filter(|row| row.family == "issuer").collect();
        assert_eq!(issuers.iter().map(|row| (&*row.key, row.count)).collect::<Vec<_>>(), [("ccb", 1), ("icbc", 2)]);
        assert_eq!((issuers[0].bucket, issuers[0].currency), (1_790_000_000, "CNY"));
        let entry = rows.iter().find(|row| row.family == "issuer_entry" && row.count == 2).unwrap();
        assert_eq!(entry.key, "icbc|chip");

        let ledger: Vec<_> = rows.iter().filter(|row| row.family == LEDGER).collect();
        assert_eq!((ledger.len(), &*ledger[0].key, ledger[0].count, ledger[0].bucket), (1, "log:0:5-7", 3, 1_790_000_010));
    }

    #[test]
    fn a_key_says_which_values_it_is_of() {
        for family in &FAMILIES {
            let key = joined((family.key)(&FACTS.dimensions));
            let values = values(family.name, &key).unwrap();
            assert_eq!(values.iter().map(|(dimension, _)| *dimension).collect::<Vec<_>>(), family.dimensions, "{key}");
        }
        assert_eq!(values("host", "48020000|h1").unwrap(), [("acquirer", "48020000"), ("host", "h1")]);
        assert_eq!((values("fleet", "").unwrap(), values("issuer", "").unwrap()), (vec![], vec![("issuer", "")]));
        assert_eq!(values("weather", ""), None);
    }

    #[test]
    fn a_slice_is_read_as_it_is_written() {
        for text in ["fleet", "issuer=icbc", "issuer=icbc&entry_mode=chip", "carrier=", "merchant_group=Marks & Spencer=1&region=310000"] {
            assert_eq!(text.parse::<Slice>().unwrap().to_string(), text);
        }
        let slice: Slice = "merchant_group=A&B&region=310000".parse().unwrap();
        assert_eq!(slice.values().collect::<Vec<_>>(), [("merchant_group", "A&B"), ("region", "310000")]);
        for text in ["", "icbc", "weather=rain", "&issuer=a", "fleet&issuer=a"] {
            assert_eq!(text.parse::<Slice>(), Err(NoSlice), "{text}");
        }
    }

    #[test]
    fn a_slice_is_counted_where_a_family_has_its_dimensions() {
        let counted = |text: &str| text.parse::<Slice>().unwrap().counted().map(|counted| (counted.family, counted.key));
        assert_eq!(counted("fleet"), Some(("fleet", String::new())));
        assert_eq!(counted("issuer=icbc"), Some(("issuer", "icbc".into())));
        assert_eq!(counted("entry_mode=chip&issuer=icbc"), Some(("issuer_entry", "icbc|chip".into())));
        assert_eq!(counted("host=h1&acquirer=48020000"), Some(("host", "48020000|h1".into())));
        assert_eq!((counted("host=h1"), counted("issuer=icbc&region=310000"), counted("issuer=a&issuer=b")), (None, None, None));
    }

    #[test]
    fn an_entry_mode_has_one_number() {
        for number in 0..=5 {
            assert_eq!(entry_mode_number(entry_mode(number)), Some(number));
        }
        assert_eq!((entry_mode_number("newer"), entry_mode_number("chips")), (None, None));
    }

    #[test]
    fn a_correction_takes_away_and_adds() {
        let mut rollup = Rollup::default();
        rollup.add(&Facts { sign: -1, ..FACTS });
        rollup.add(&Facts { cause: 4, ..FACTS });
        let rows = rollup.rows(&ID);
        let fleet: Vec<_> = rows.iter().filter(|row| row.family == "fleet").map(|row| (row.cause, row.count, row.amount_minor)).collect();
        assert_eq!(fleet, [(4, 1, 1234), (5, -1, -1234)]);
        // Counted as rows, not as their sum, which is nothing.
        assert_eq!(rows.iter().find(|row| row.family == LEDGER).unwrap().count, 2);
    }

    #[test]
    fn no_moment_is_too_far_for_a_bucket() {
        assert_eq!(bucket(i64::MIN), 0);
        assert_eq!(bucket(i64::MAX), u32::MAX - u32::MAX % BUCKET_S);
        assert_eq!(bucket(19_999), 10);
    }
}

#[cfg(test)]
mod fuzz {
    use faultline_fuzz::target;

    use super::*;

    #[test]
    fn a_slice_is_what_its_text_says_and_its_key_says_the_same() {
        let fates = target!(Text, "slice").run(|bytes| {
            let text = std::str::from_utf8(bytes).unwrap();
            let begins = |name: &&str| text.strip_prefix(*name).is_some_and(|rest| rest.starts_with('='));
            let is_slice = text == FLEET || DIMENSIONS.iter().any(begins);
            let Ok(slice) = text.parse::<Slice>() else {
                assert!(!is_slice, "{text}");
                return "no slice";
            };
            assert!(is_slice && slice.to_string() == text, "{text}");
            let mut of_text: Vec<_> = slice.values().collect();
            let Some(counted) = slice.counted() else { return "not counted" };
            let mut of_key = values(counted.family, &counted.key).unwrap();
            of_text.sort_unstable();
            of_key.sort_unstable();
            assert_eq!(of_text, of_key);
            "counted"
        });
        fates.include(["counted", "not counted", "no slice"]);
    }
}
