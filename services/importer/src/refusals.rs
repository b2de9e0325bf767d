//! Lines that are not imported, and why: counted, the first shown, all written down. Never what is in them, since that may be a card number.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde::Serialize;

/// Kinds of reasons that are counted; beyond that they are counted together.
const MOST_KINDS: usize = 1000;

/// A line that is not imported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The line, counting from 1.
    pub line: u64,
    /// Kind of reason: `encoding`, `too_long`, `malformed`, `invalid_field`, `too_old`, `in_future`, `card_number`, or what the gateway says.
    pub reason: &'static str,
    /// Path of the field in the contract; empty where no single field is to blame.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

/// How many lines were not imported, by reason, field and description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted(BTreeMap<(&'static str, String, String), u64>);

impl Counted {
    pub(crate) fn count(&mut self, refusal: &Refusal) {
        let kind = (refusal.reason, refusal.field.clone(), refusal.description.clone());
        let is_known = self.0.len() < MOST_KINDS || self.0.contains_key(&kind);
        *self.0.entry(if is_known { kind } else { (refusal.reason, String::new(), "and others".into()) }).or_default() += 1;
    }

    /// Lines.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.0.values().sum()
    }

    /// In words, the most frequent first.
    #[must_use]
    pub fn told(&self) -> Vec<String> {
        let mut counted: Vec<_> = self.0.iter().collect();
        counted.sort_by_key(|(_, lines)| std::cmp::Reverse(**lines));
        let told = counted.into_iter().map(|((reason, field, description), lines)| {
            let gap = if field.is_empty() { "" } else { " " };
            format!("{lines} lines: {reason}: {field}{gap}{description}")
        });
        told.collect()
    }
}

/// A file that refusals are written to, one a line (NDJSON), after those that it has.
pub struct RefusalFile(BufWriter<File>);

/// A refusal as it is written.
#[derive(Serialize)]
struct Written<'a> {
    log: &'a str,
    spool: u64,
    #[serde(flatten)]
    refusal: &'a Refusal,
}

impl RefusalFile {
    /// Opens it, or makes it.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn open(path: &Path) -> io::Result<RefusalFile> {
        Ok(RefusalFile(BufWriter::new(File::options().create(true).append(true).open(path)?)))
    }

    /// Writes a line for a refusal in a log of that name and spool.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn write(&mut self, (log, spool): (&str, u64), refusal: &Refusal) -> io::Result<()> {
        let text = serde_json::to_string(&Written { log, spool, refusal })?;
        writeln!(self.0, "{text}")
    }

    /// Makes sure that what was written is on the disk.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn keep(&mut self) -> io::Result<()> {
        self.0.flush()?;
        self.0.get_ref().sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(line: u64, field: &str) -> Refusal {
        Refusal { line, reason: "invalid_field", field: field.into(), description: "is not 1 to 6 digits".into() }
    }

    #[test]
    fn the_most_frequent_reason_is_told_first() {
        let mut counted = Counted::default();
        for (line, field) in [(1, "outcome.trace_number"), (2, "outcome.batch_number"), (3, "outcome.batch_number")] {
            counted.count(&refusal(line, field));
        }
        assert_eq!(counted.lines(), 3);
        let told = counted.told();
        assert_eq!(told[0], "2 lines: invalid_field: outcome.batch_number is not 1 to 6 digits");
        (0..5000).for_each(|line| counted.count(&refusal(line, &line.to_string())));
        assert!(counted.lines() == 5003 && counted.told().len() <= MOST_KINDS + 1);
    }

    #[test]
    fn what_is_written_stays_when_more_comes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("refused.ndjson");
        for line in [7, 9] {
            let mut file = RefusalFile::open(&path).unwrap();
            file.write(("a.csv", 3), &refusal(line, "outcome.bin")).unwrap();
            file.keep().unwrap();
        }
        let expected = |line| {
            format!(
                "{{\"log\":\"a.csv\",\"spool\":3,\"line\":{line},\"reason\":\"invalid_field\",\"field\":\"outcome.bin\",\
                 \"description\":\"is not 1 to 6 digits\"}}\n"
            )
        };
        assert_eq!(std::fs::read_to_string(path).unwrap(), expected(7) + &expected(9));
    }
}
