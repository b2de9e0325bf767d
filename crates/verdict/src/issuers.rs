//! Which bank issued a card, by its leading digits: the longest prefix that the table has.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;

/// The table that comes with the program.
const BUILT_IN: &str = include_str!("../data/issuers.csv");
/// Lengths that prefixes may have: more digits of a card number are in no outcome.
const PREFIXES: std::ops::RangeInclusive<usize> = 1..=8;
/// What the version of the table follows.
const VERSION: &str = "# version: ";

/// The table of issuers.
#[derive(Debug)]
pub struct Issuers {
    version: String,
    by_prefix: HashMap<String, String>,
    longest: usize,
}

/// Why a text is not a table of issuers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct IssuersError {
    /// The line that is wrong, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub reason: String,
}

#[derive(Deserialize)]
struct Row {
    prefix: String,
    issuer: String,
    // For people, and for pages to come.
    #[serde(rename = "name_zh_cn")]
    _name_zh_cn: String,
    #[serde(rename = "name_en")]
    _name_en: String,
}

impl Issuers {
    /// The table that comes with the program.
    ///
    /// # Errors
    /// Never, in a program that passed its tests.
    pub fn built_in() -> Result<Issuers, IssuersError> {
        Issuers::parse(BUILT_IN)
    }

    /// Reads a table: a first line with the version, then comments (`#`), then `prefix,issuer,name_zh_cn,name_en` with that heading.
    ///
    /// # Errors
    /// When a line is not of the format, has a prefix that another has, or a name that is none.
    pub fn parse(text: &str) -> Result<Issuers, IssuersError> {
        // What spreadsheets put before a text.
        let text = text.trim_start_matches('\u{FEFF}');
        let wrong = |line: u64, reason: String| IssuersError { line, reason };
        let version = text.lines().next().and_then(|line| line.strip_prefix(VERSION)).map(str::trim).filter(|version| is_name(version));
        let version = version.ok_or_else(|| wrong(1, format!("is not `{VERSION}` and a version of letters, digits, `.` and `-`")))?;
        let mut issuers = Issuers { version: version.to_owned(), by_prefix: HashMap::new(), longest: 0 };
        let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).trim(csv::Trim::All).from_reader(text.as_bytes());
        let mut rows = reader.deserialize::<Row>();
        while let Some(row) = rows.next() {
            let line = rows.reader().position().line().saturating_sub(1);
            let row = row.map_err(|error| wrong(error.position().map_or(line, csv::Position::line), error.to_string()))?;
            if !PREFIXES.contains(&row.prefix.len()) || !row.prefix.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(wrong(line, "the prefix (not shown) is not 1 to 8 digits".into()));
            }
            if !is_name(&row.issuer) || row.issuer.starts_with("unknown-") {
                return Err(wrong(line, format!("`{}` is not a name for an issuer: letters, digits, `.` and `-`", row.issuer)));
            }
            issuers.longest = issuers.longest.max(row.prefix.len());
            if issuers.by_prefix.insert(row.prefix.clone(), row.issuer).is_some() {
                return Err(wrong(line, format!("prefix {} is there twice", row.prefix)));
            }
        }
        if issuers.by_prefix.is_empty() {
            return Err(wrong(1, "no issuer follows".into()));
        }
        Ok(issuers)
    }

    /// Identifies this text of the table.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The issuer of a card with these leading digits: `unknown-<digits>` where the table has none, nothing where no card was read.
    #[must_use]
    pub fn of(&self, bin: &str) -> Cow<'_, str> {
        if bin.is_empty() {
            return Cow::Borrowed("");
        }
        let prefixes = (1..=self.longest.min(bin.len())).rev().filter_map(|length| bin.get(..length));
        let found = prefixes.filter_map(|prefix| self.by_prefix.get(prefix)).next();
        found.map_or_else(|| Cow::Owned(format!("unknown-{bin}")), |issuer| Cow::Borrowed(issuer.as_str()))
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &str) -> Result<Issuers, String> {
        let text = format!("# version: 1\n# A comment.\nprefix,issuer,name_zh_cn,name_en\n{rows}");
        Issuers::parse(&text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_longest_prefix_decides() {
        let issuers = table("62,union,银联,Union\n6222,icbc,工行,ICBC\n62220212,branch,分行,Branch\n").unwrap();
        for (bin, issuer) in
            [("622202", "icbc"), ("62220212", "branch"), ("62220213", "icbc"), ("621111", "union"), ("411111", "unknown-411111"), ("", "")]
        {
            assert_eq!(issuers.of(bin), issuer);
        }
        assert_eq!(issuers.version(), "1");
    }

    #[test]
    fn the_table_that_comes_with_the_program_knows_the_large_banks() {
        let issuers = Issuers::built_in().unwrap();
        for (bin, issuer) in [("622848", "abc"), ("622202", "icbc"), ("621700", "ccb"), ("62166012", "boc"), ("622588", "cmb")] {
            assert_eq!(issuers.of(bin), issuer);
        }
    }

    #[test]
    fn a_line_that_is_wrong_is_named() {
        for (rows, said) in [
            ("62,union,银联,Union\n6x,icbc,工行,ICBC\n", "line 5: the prefix"),
            ("4111111111111111,visa,a,b\n", "line 4: the prefix (not shown)"),
            ("62,union,银联,Union\n62,icbc,工行,ICBC\n", "line 5: prefix 62 is there twice"),
            ("62,工行,工行,ICBC\n", "`工行` is not a name"),
            ("62,unknown-62,工行,ICBC\n", "`unknown-62` is not a name"),
            ("62,union\n", "line 4"),
        ] {
            let message = table(rows).unwrap_err();
            assert!(message.contains(said), "{message}");
        }
        assert!(table("").unwrap_err().contains("no issuer follows"));
        Issuers::parse("\u{FEFF}# version: 1\nprefix,issuer,name_zh_cn,name_en\n62,icbc,工行,ICBC\n").unwrap();
        assert!(Issuers::parse("prefix,issuer\n").unwrap_err().to_string().contains("line 1: is not `# version: `"));
    }
}

#[cfg(test)]
mod fuzz {
    use faultline_fuzz::target;

    use super::*;

    #[test]
    fn a_table_names_issuers_or_the_line_that_is_wrong() {
        let fates = target!(Text, "issuers").run(|bytes| {
            let text = std::str::from_utf8(bytes).unwrap();
            match Issuers::parse(text) {
                Ok(issuers) => {
                    assert!(is_name(issuers.version()));
                    for bin in ["6", "621234", "62123456", "411111", "62é", "99999999"] {
                        let issuer = issuers.of(bin);
                        assert!(is_name(&issuer) || issuer == format!("unknown-{bin}"), "{issuer}");
                    }
                    "read"
                }
                Err(IssuersError { line, reason }) => {
                    let lines = text.split(['\n', '\r']).count() as u64;
                    assert!((1..=lines + 1).contains(&line) && !reason.is_empty(), "line {line}: {reason}");
                    "wrong"
                }
            }
        });
        fates.include(["read", "wrong"]);
    }
}
