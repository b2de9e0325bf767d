//! Sets of instances, in the forms that they are passed around in:
//!
//! - packed: `<set>.bin.xz` with the numbers, `<set>.json` with attributes and instances, `<set>_injection_info.csv` with what is to be named;
//! - a directory `<set>` (or the directory itself) with `injection_info.csv`, and `<timestamp>.csv` for each instance: a column for each attribute, `real`, `predict`;
//! - rates: `<set>_rate.csv.gz` with a row for each leaf (`case,attrs,fail_real,n_real,fail_predict,n_predict`), and `<set>_injection_info.csv`.
//!
//! Of the labels only `timestamp` and `set` are read, and only to score.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use faultline_detect::localise::{Amount, Leaves, Trials};
use flate2::read::MultiGzDecoder;
use lzma_rust2::XzReader;
use serde::Deserialize;

use super::Instance;

/// A set that was found.
pub(super) struct Set {
    pub(super) name: String,
    form: Form,
}

enum Form {
    Packed { numbers: PathBuf, meta: PathBuf, labels: PathBuf },
    Tables { directory: PathBuf },
    Rates { rows: PathBuf, labels: PathBuf },
}

/// The sets in a directory, by name.
pub(super) fn find(directory: &Path) -> anyhow::Result<Vec<Set>> {
    let cannot_read = || format!("cannot read {}", directory.display());
    let mut sets = Vec::new();
    if directory.join("injection_info.csv").is_file() {
        let name = directory.canonicalize()?.file_name().map_or_else(|| "set".into(), |name| name.to_string_lossy().into_owned());
        sets.push(Set { name, form: Form::Tables { directory: directory.to_owned() } });
    }
    for entry in std::fs::read_dir(directory).with_context(cannot_read)? {
        let path = entry.with_context(cannot_read)?.path();
        let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let labels = |set: &str| directory.join(format!("{set}_injection_info.csv"));
        if path.join("injection_info.csv").is_file() {
            sets.push(Set { name: file, form: Form::Tables { directory: path } });
        } else if let Some(set) = file.strip_suffix(".bin.xz") {
            let form = Form::Packed { numbers: path.clone(), meta: directory.join(format!("{set}.json")), labels: labels(set) };
            sets.push(Set { name: set.to_owned(), form });
        } else if let Some(set) = file.strip_suffix("_rate.csv.gz") {
            sets.push(Set { name: set.to_owned(), form: Form::Rates { rows: path.clone(), labels: labels(set) } });
        }
    }
    sets.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(sets)
}

impl Set {
    /// Its instances, one after the other, in the order in which they are named.
    pub(super) fn read(&self) -> anyhow::Result<Box<dyn Iterator<Item = anyhow::Result<Instance>>>> {
        match &self.form {
            Form::Packed { numbers, meta, labels } => packed(numbers, meta, labels),
            Form::Tables { directory } => tables(directory),
            Form::Rates { rows, labels } => rates(rows, labels),
        }
    }
}

/// A row of the labels.
#[derive(Deserialize)]
struct Label {
    timestamp: String,
    set: String,
}

fn labels(path: &Path) -> anyhow::Result<Vec<Label>> {
    let mut reader = csv::Reader::from_path(path).with_context(|| format!("cannot read {}", path.display()))?;
    reader.deserialize().collect::<Result<_, _>>().with_context(|| format!("{} has no labels", path.display()))
}

/// What is beside the numbers of a packed set.
#[derive(Deserialize)]
struct Meta {
    attrs: Vec<String>,
    dims: Vec<u32>,
    rows: usize,
    instances: Vec<u64>,
}

fn packed(numbers: &Path, meta: &Path, labels_at: &Path) -> anyhow::Result<Box<dyn Iterator<Item = anyhow::Result<Instance>>>> {
    let text = std::fs::read_to_string(meta).with_context(|| format!("cannot read {}", meta.display()))?;
    let meta: Meta = serde_json::from_str(&text).with_context(|| format!("{} is not as it should be", meta.display()))?;
    let truths: HashMap<String, String> = labels(labels_at)?.into_iter().map(|label| (label.timestamp, label.set)).collect();
    let product: usize = meta.dims.iter().map(|dim| usize::try_from(*dim).unwrap_or(usize::MAX)).product();
    ensure!(meta.attrs.len() == meta.dims.len() && product == meta.rows, "`dims` {:?} are not those of {} rows", meta.dims, meta.rows);
    let mut reader = XzReader::new(File::open(numbers).with_context(|| format!("cannot read {}", numbers.display()))?, true);
    let instances = meta.instances.clone();
    Ok(Box::new(instances.into_iter().map(move |timestamp| {
        let mut planes = vec![0_u8; 6 * meta.rows];
        reader.read_exact(&mut planes).with_context(|| format!("the numbers end before instance {timestamp} does"))?;
        let name = timestamp.to_string();
        let truth = truths.get(&name).cloned().with_context(|| format!("instance {name} has no label"))?;
        Ok(Instance { name, leaves: unpacked(&meta, &planes)?, truth })
    })))
}

/// The leaves of an instance: six planes of a byte each (mantissa low, high, exponent; real, then expected), over all combinations of values.
fn unpacked(meta: &Meta, planes: &[u8]) -> anyhow::Result<Leaves> {
    let mut leaves = Leaves::additive(meta.attrs.iter().map(String::as_str))?;
    for (place, (name, dim)) in meta.attrs.iter().zip(&meta.dims).enumerate() {
        for value in 1..=*dim {
            leaves.id(place, &format!("{name}{value}"));
        }
    }
    let planes: Vec<&[u8]> = planes.chunks_exact(meta.rows).collect();
    let [low, high, exponent, expected_low, expected_high, expected_exponent] = planes.as_slice() else {
        bail!("an instance has six planes")
    };
    let real = low.iter().zip(*high).zip(*exponent);
    let expected = expected_low.iter().zip(*expected_high).zip(*expected_exponent);
    let mut ids = vec![0_u32; meta.dims.len()];
    for (((low, high), exponent), ((expected_low, expected_high), expected_exponent)) in real.zip(expected) {
        let amount = Amount {
            real: number(u16::from_le_bytes([*low, *high]), exponent.cast_signed()),
            expected: number(u16::from_le_bytes([*expected_low, *expected_high]), expected_exponent.cast_signed()),
        };
        leaves.push_amount(&ids, amount)?;
        // The last attribute changes fastest.
        for (id, dim) in ids.iter_mut().zip(&meta.dims).rev() {
            *id += 1;
            if *id < *dim {
                break;
            }
            *id = 0;
        }
    }
    Ok(leaves)
}

fn number(mantissa: u16, exponent: i8) -> f64 {
    f64::from(mantissa) * 10_f64.powi(exponent.into())
}

fn tables(directory: &Path) -> anyhow::Result<Box<dyn Iterator<Item = anyhow::Result<Instance>>>> {
    let labels = labels(&directory.join("injection_info.csv"))?;
    let directory = directory.to_owned();
    Ok(Box::new(labels.into_iter().map(move |Label { timestamp: name, set: truth }| {
        let path = directory.join(format!("{name}.csv"));
        let leaves = table(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Instance { name, leaves, truth })
    })))
}

/// The leaves of a table.
fn table(path: &Path) -> anyhow::Result<Leaves> {
    let mut reader = csv::Reader::from_path(path)?;
    let header = reader.headers()?.clone();
    let column = |name: &str| header.iter().position(|column| column == name).with_context(|| format!("there is no column `{name}`"));
    let (real, expected) = (column("real")?, column("predict")?);
    let attributes: Vec<(usize, &str)> = header.iter().enumerate().filter(|(place, _)| *place != real && *place != expected).collect();
    let mut leaves = Leaves::additive(attributes.iter().map(|(_, name)| *name))?;
    let mut record = csv::StringRecord::new();
    let mut ids = Vec::with_capacity(attributes.len());
    while reader.read_record(&mut record)? {
        let line = record.position().map_or(0, csv::Position::line);
        let number = |place: usize| {
            let field = record.get(place).unwrap_or_default();
            field.parse::<f64>().with_context(|| format!("`{field}` in line {line} is no number"))
        };
        let amount = Amount { real: number(real)?, expected: number(expected)? };
        ids.clear();
        ids.extend(attributes.iter().enumerate().filter_map(|(at, (place, _))| leaves.id(at, record.get(*place)?)));
        leaves.push_amount(&ids, amount).with_context(|| format!("line {line}"))?;
    }
    Ok(leaves)
}

/// A leaf of a rate.
#[derive(Deserialize)]
struct RateRow {
    case: String,
    attrs: String,
    fail_real: f64,
    n_real: f64,
    fail_predict: f64,
    n_predict: f64,
}

fn rates(rows_at: &Path, labels_at: &Path) -> anyhow::Result<Box<dyn Iterator<Item = anyhow::Result<Instance>>>> {
    let file = File::open(rows_at).with_context(|| format!("cannot read {}", rows_at.display()))?;
    let mut cases: HashMap<String, Vec<RateRow>> = HashMap::new();
    for row in csv::Reader::from_reader(MultiGzDecoder::new(file)).deserialize() {
        let row: RateRow = row.with_context(|| format!("{} is not as it should be", rows_at.display()))?;
        cases.entry(row.case.clone()).or_default().push(row);
    }
    Ok(Box::new(labels(labels_at)?.into_iter().map(move |Label { timestamp: name, set: truth }| {
        let rows = cases.remove(&name).with_context(|| format!("case {name} has no leaves"))?;
        let leaves = of_rates(&rows).with_context(|| format!("case {name}"))?;
        Ok(Instance { name, leaves, truth })
    })))
}

fn of_rates(rows: &[RateRow]) -> anyhow::Result<Leaves> {
    let pairs = |row: &RateRow| -> anyhow::Result<Vec<(String, String)>> {
        let pair = |value: &str| value.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        row.attrs.split('&').map(|value| pair(value).with_context(|| format!("`{value}` is no `attribute=value`"))).collect()
    };
    let first = pairs(rows.first().context("there are no leaves")?)?;
    let mut leaves = Leaves::rate(first.iter().map(|(name, _)| name.as_str()))?;
    for row in rows {
        let pairs = pairs(row)?;
        let value = |name: &str| pairs.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str());
        let ids: Option<Vec<u32>> = first.iter().enumerate().map(|(place, (name, _))| leaves.id(place, value(name)?)).collect();
        let ids = ids.with_context(|| format!("`{}` has other attributes than the first leaf", row.attrs))?;
        let RateRow { fail_real: failures, n_real: attempts, fail_predict: expected_failures, n_predict: expected_attempts, .. } = *row;
        leaves.push_trials(&ids, Trials { failures, attempts, expected_failures, expected_attempts })?;
    }
    Ok(leaves)
}
