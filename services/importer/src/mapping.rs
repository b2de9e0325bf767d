//! The mapping: how lines of a log become outcomes. A file in TOML; docs/import.md is its reference, and services/importer/mappings has one to begin with.
//!
//! Tables and keys are named as the contract names its messages and fields, so that what a refusal names is where the mapping is to be mended.

mod amount;
mod fields;
mod kind;
mod moment;
mod rule;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use faultline_proto::outcome::v1::Outcome;
use faultline_proto::terminal::v1::TerminalProfile;
use serde::Deserialize;

pub(crate) use self::fields::{Filling, Wrong};
use self::fields::{OutcomeRules, ProfileRules};
use self::kind::TerminalName;
pub(crate) use self::rule::Column;
use self::rule::{Field, Rule, Used, Words};
use crate::cells::Cells;

/// Who reports, in a profile that does not say another.
const SDK: &str = concat!("faultline import ", env!("CARGO_PKG_VERSION"));

/// A mapping that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MappingError {
    /// The file cannot be read.
    #[error("cannot read the mapping {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not a mapping.
    #[error("mapping {}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line or the key.
        reason: String,
    },
}

/// How lines of a log become outcomes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    pub(crate) log: Form,
    batch: BatchRules,
    outcome: OutcomeRules,
    #[serde(default)]
    profile: ProfileRules,
    #[serde(default)]
    skip: Vec<Skip>,
    /// The columns that are used, by cell, with the first field that uses each.
    #[serde(skip)]
    pub(crate) columns: Vec<(Column, String)>,
}

/// What a log looks like.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Form {
    pub(crate) format: Format,
    #[serde(default)]
    pub(crate) encoding: Encoding,
    /// Of separated values: what stands between two.
    delimiter: Option<char>,
    /// Of separated values: what stands around one that has a delimiter in it. Empty: nothing does.
    quote: Option<String>,
    /// Of separated values: whether the first line has the names of the columns.
    header: Option<bool>,
    /// Lines at the beginning that say nothing, before the header.
    #[serde(default)]
    pub(crate) skip_lines: u64,
    /// Lines that begin so say nothing.
    pub(crate) comment: Option<String>,
}

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// Separated values.
    Csv,
    /// A JSON object a line.
    Ndjson,
}

/// How characters are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum Encoding {
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    /// GB 18030, and with it GBK and GB 2312.
    #[serde(rename = "gb18030", alias = "gbk", alias = "gb2312")]
    Gb18030,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchRules {
    terminal_id: Rule<TerminalName>,
}

/// Lines that are not outcomes.
#[derive(Debug, Deserialize)]
#[serde(try_from = "WrittenSkip")]
struct Skip {
    column: Used,
    words: Words<()>,
    /// Whether these are skipped, or all others.
    skips: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSkip {
    column: Used,
    values: Option<Vec<String>>,
    except: Option<Vec<String>>,
}

impl TryFrom<WrittenSkip> for Skip {
    type Error = &'static str;

    fn try_from(written: WrittenSkip) -> Result<Skip, Self::Error> {
        let (words, skips) = match (written.values, written.except) {
            (Some(values), None) => (values, true),
            (None, Some(except)) => (except, false),
            _ => return Err("to skip lines, either `values` (these) or `except` (all others) is needed"),
        };
        Ok(Skip { column: written.column, words: Words::new(words.into_iter().map(|word| (word, ()))), skips })
    }
}

impl Form {
    pub(crate) fn has_header(&self) -> bool {
        self.format == Format::Csv && self.header.unwrap_or(true)
    }

    /// Reads separated values.
    pub(crate) fn reader(&self) -> csv_core::Reader {
        let byte = |character: char| u8::try_from(character).unwrap_or(b',');
        let mut builder = csv_core::ReaderBuilder::new();
        builder.delimiter(byte(self.delimiter.unwrap_or(',')));
        match self.quote.as_deref().map(|quote| quote.chars().next()) {
            None => {}
            Some(None) => drop(builder.quoting(false)),
            Some(Some(quote)) => drop(builder.quote(byte(quote))),
        }
        builder.build()
    }

    fn check(&self) -> Result<(), String> {
        if self.format == Format::Ndjson {
            let given = [("delimiter", self.delimiter.is_some()), ("quote", self.quote.is_some()), ("header", self.header.is_some())];
            return match given.iter().find(|(_, is_given)| *is_given) {
                Some((key, _)) => Err(format!("`log.{key}` means nothing with `format = \"ndjson\"`")),
                None => Ok(()),
            };
        }
        let is_sign = |sign: char| sign.is_ascii() && !matches!(sign, '\n' | '\r' | '\0') && !sign.is_ascii_alphanumeric();
        if let Some(delimiter) = self.delimiter.filter(|delimiter| !is_sign(*delimiter)) {
            return Err(format!("`log.delimiter`: `{}` is no ASCII sign", delimiter.escape_debug()));
        }
        match self.quote.as_deref() {
            Some(quote) if quote.chars().count() > 1 || !quote.chars().all(is_sign) => {
                Err(format!("`log.quote`: `{}` is not one ASCII sign, or nothing", quote.escape_debug()))
            }
            _ => Ok(()),
        }
    }
}

/// What becomes of a line.
#[derive(Debug)]
pub(crate) enum Mapped {
    /// An outcome.
    Outcome(Box<Attempt>),
    /// The mapping says that it is none.
    Skipped,
}

/// An attempt, as a line tells of it.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) terminal: String,
    pub(crate) profile: TerminalProfile,
    pub(crate) outcome: Outcome,
    pub(crate) filling: Filling,
}

impl Mapping {
    /// Reads a mapping and makes sure of it.
    ///
    /// # Errors
    /// When the file cannot be read, or is not a mapping.
    pub fn load(path: &Path) -> Result<Mapping, MappingError> {
        let text = std::fs::read_to_string(path).map_err(|source| MappingError::Read { path: path.into(), source })?;
        Mapping::parse(&text).map_err(|reason| MappingError::Format { path: path.into(), reason })
    }

    pub(crate) fn parse(text: &str) -> Result<Mapping, String> {
        let mut mapping: Mapping = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        mapping.log.check()?;
        mapping.profile.leave_out_what_is_wrong();
        mapping.name_cells();
        mapping.check()?;
        Ok(mapping)
    }

    /// Gives every column that is used a cell.
    fn name_cells(&mut self) {
        let mut columns: Vec<(Column, String)> = Vec::new();
        let mut cells: BTreeMap<Column, usize> = BTreeMap::new();
        let mut name = |field: &str, used: &mut Used| {
            used.cell = *cells.entry(used.column.clone()).or_insert_with(|| {
                columns.push((used.column.clone(), field.to_owned()));
                columns.len() - 1
            });
        };
        // First, so that a column which has card numbers is known as that.
        self.outcome.columns(&mut name);
        self.batch.terminal_id.columns(&mut |used| name("batch.terminal_id", used));
        self.profile.columns(&mut name);
        for skip in &mut self.skip {
            name("skip", &mut skip.column);
        }
        self.columns = columns;
    }

    fn check(&mut self) -> Result<(), String> {
        let outcome = &self.outcome;
        for (field, is_missing) in [
            ("completion_time", outcome.completion_time.is_none()),
            ("merchant_id", outcome.merchant_id.is_none()),
            ("type", outcome.r#type.is_none()),
            ("stage", outcome.stage.is_none()),
        ] {
            if is_missing {
                return Err(format!("`outcome.{field}` is missing, which every outcome has"));
            }
        }
        if outcome.amount_minor.is_some() && outcome.currency_code.is_none() {
            return Err("`outcome.currency_code` is missing, which is needed with `outcome.amount_minor`".into());
        }
        if outcome.response_code.is_some() && outcome.response_spec.is_none() {
            return Err("`outcome.response_spec` is missing: a response code means something only within its specification".into());
        }
        for (column, field) in &self.columns {
            match column {
                Column::Name(_) if self.log.format == Format::Csv && !self.log.has_header() => {
                    return Err(format!("`{field}`: column {column} has a name, and without a header columns have places"));
                }
                Column::Place(_) if self.log.format == Format::Ndjson => {
                    return Err(format!("`{field}`: column {column} is a place, and objects have names"));
                }
                _ => {}
            }
        }
        // The rest of a card number goes nowhere.
        if let Some(card) = self.outcome.bin.as_ref().and_then(Rule::used).cloned() {
            let mut other = None;
            let mut visit = |field: &str, used: &mut Used| {
                if used.cell == card.cell && field != "outcome.bin" {
                    other = Some(field.to_owned());
                }
            };
            self.outcome.columns(&mut visit);
            self.batch.terminal_id.columns(&mut |used| visit("batch.terminal_id", used));
            self.profile.columns(&mut visit);
            if let Some(other) = other {
                return Err(format!("`{other}` has the column of `outcome.bin`, and a card number goes nowhere else"));
            }
        }
        Ok(())
    }

    /// What becomes of a line.
    ///
    /// # Errors
    /// With what is wrong with it.
    pub(crate) fn map(&self, cells: &Cells) -> Result<Mapped, Wrong> {
        for skip in &self.skip {
            if skip.words.get(cells.get(skip.column.cell)).is_some() == skip.skips {
                return Ok(Mapped::Skipped);
            }
        }
        let mut filling = Filling::default();
        let wrong = |description| Wrong { field: "batch.terminal_id".into(), description };
        let terminal = self.batch.terminal_id.value(cells).map_err(wrong)?;
        let terminal = terminal.ok_or_else(|| wrong("is required, and there is none".into()))?;
        let outcome = self.outcome.outcome(cells, &mut filling)?;
        let mut profile = self.profile.profile(cells, &mut filling);
        if profile.sdk.is_empty() {
            profile.sdk = SDK.into();
        }
        Ok(Mapped::Outcome(Box::new(Attempt { terminal, profile, outcome, filling })))
    }

    /// A whole card number in the line, if there is one where it may be.
    pub(crate) fn card_number(&self, cells: &Cells) -> Option<String> {
        let used = self.outcome.bin.as_ref().and_then(Rule::used)?;
        kind::card_number(cells.get(used.cell))
    }

    /// An attempt in words: each field that was filled, and its value.
    pub(crate) fn told(&self, attempt: &Attempt) -> Vec<(String, String)> {
        let mut told = vec![("batch.terminal_id".to_owned(), attempt.terminal.clone())];
        told.extend(self.outcome.told(&attempt.outcome));
        told.extend(self.profile.told(&attempt.profile));
        told
    }
}

#[cfg(test)]
mod tests;
