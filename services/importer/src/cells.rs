//! A line of a log, taken apart: the cells of the columns that a mapping uses.

use std::ops::Range;

use csv_core::ReadRecordResult;
use serde_json::Value;

/// Most columns of a line.
const MOST_COLUMNS: usize = 4096;

/// The cells of one line, trimmed. The memory is that of the line before.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    text: String,
    cells: Vec<Range<usize>>,
}

impl Cells {
    /// A cell; nothing where there is none.
    pub(crate) fn get(&self, cell: usize) -> &str {
        self.cells.get(cell).and_then(|place| self.text.get(place.clone())).unwrap_or_default().trim()
    }

    fn clear(&mut self) {
        self.text.clear();
        self.cells.clear();
    }

    fn push(&mut self, text: &str) {
        let start = self.text.len();
        self.text.push_str(text);
        self.cells.push(start..self.text.len());
    }

    #[cfg(test)]
    pub(crate) fn of(texts: &[&str]) -> Cells {
        let mut cells = Cells::default();
        texts.iter().for_each(|text| cells.push(text));
        cells
    }
}

/// How a line is taken apart.
pub(crate) enum Splitter {
    /// Separated values: of each cell, which column it is; and how many columns every line has, where that is known.
    Separated { reader: Box<csv_core::Reader>, columns: Vec<usize>, width: Option<usize>, record: Record },
    /// An object: of each cell, the path to it.
    Object { paths: Vec<Vec<String>> },
}

impl Splitter {
    /// Takes a line apart, which is without its end.
    ///
    /// # Errors
    /// When it is not what it should be.
    pub(crate) fn split(&mut self, line: &str, cells: &mut Cells) -> Result<(), String> {
        cells.clear();
        match self {
            Splitter::Separated { reader, columns, width, record } => {
                record.read(reader, line)?;
                let found = record.len();
                if width.is_some_and(|width| width != found) {
                    return Err(format!("has {found} columns, not {}", width.unwrap_or_default()));
                }
                for column in columns {
                    let Some(cell) = record.get(*column) else {
                        return Err(format!("has {found} columns, and column {} is used", *column + 1));
                    };
                    cells.push(cell);
                }
                Ok(())
            }
            Splitter::Object { paths } => {
                let Ok(Value::Object(object)) = serde_json::from_str(line) else { return Err("is not a JSON object".into()) };
                let object = Value::Object(object);
                for path in paths.iter() {
                    let mut found = Some(&object);
                    for step in path {
                        found = found.and_then(|value| value.get(step));
                    }
                    match found {
                        None | Some(Value::Null) => cells.push(""),
                        Some(Value::String(text)) => cells.push(text),
                        Some(value @ (Value::Bool(_) | Value::Number(_))) => cells.push(&value.to_string()),
                        Some(_) => return Err(format!("has no text or number as `{}`", path.join("."))),
                    }
                }
                Ok(())
            }
        }
    }
}

/// The columns of one line of separated values.
#[derive(Debug, Default)]
pub(crate) struct Record {
    text: Vec<u8>,
    ends: Vec<usize>,
    columns: usize,
}

impl Record {
    /// Reads a line.
    ///
    /// # Errors
    /// When it has too many columns, or a quote that is opened and not closed.
    pub(crate) fn read(&mut self, reader: &mut csv_core::Reader, line: &str) -> Result<(), String> {
        reader.reset();
        self.columns = 0;
        // What is written is never longer than what is read.
        self.text.resize(line.len() + 1, 0);
        self.ends.resize(MOST_COLUMNS, 0);
        let (first, read, written, columns) = reader.read_record(line.as_bytes(), &mut self.text, &mut self.ends);
        if first == ReadRecordResult::InputEmpty && read == line.len() {
            let (text, ends) = (self.text.get_mut(written..).unwrap_or_default(), self.ends.get_mut(columns..).unwrap_or_default());
            let (second, _, _, more) = reader.read_record(b"\n", text, ends);
            self.columns = columns + more;
            return match second {
                ReadRecordResult::Record => Ok(()),
                ReadRecordResult::OutputEndsFull => Err(format!("has more than {MOST_COLUMNS} columns")),
                _ => Err("has a quote that is not closed".into()),
            };
        }
        match first {
            ReadRecordResult::OutputEndsFull => Err(format!("has more than {MOST_COLUMNS} columns")),
            _ => Err("has the end of a line within".into()),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.columns
    }

    pub(crate) fn get(&self, column: usize) -> Option<&str> {
        let end = *self.ends.get(column).filter(|_| column < self.columns)?;
        let start = column.checked_sub(1).map_or(0, |before| self.ends.get(before).copied().unwrap_or_default());
        std::str::from_utf8(self.text.get(start..end)?).ok()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.columns).filter_map(|column| self.get(column))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn separated(delimiter: u8, columns: Vec<usize>, width: Option<usize>) -> Splitter {
        let reader = csv_core::ReaderBuilder::new().delimiter(delimiter).build();
        Splitter::Separated { reader: Box::new(reader), columns, width, record: Record::default() }
    }

    fn split(splitter: &mut Splitter, line: &str) -> Result<Vec<String>, String> {
        let mut cells = Cells::of(&["of", "a", "line", "before"]);
        splitter.split(line, &mut cells)?;
        Ok((0..cells.cells.len()).map(|cell| cells.get(cell).to_owned()).collect())
    }

    #[test]
    fn separated_values_are_taken_apart() {
        let mut splitter = separated(b',', vec![2, 0], Some(3));
        for (line, expected) in [
            ("a,b,c", ["c", "a"]),
            (" a ,b,\tc ", ["c", "a"]),
            ("\"a,1\",b,\"say \"\"no\"\"\"", ["say \"no\"", "a,1"]),
            ("a\"b,,", ["", "a\"b"]),
            ("银行,,拒绝", ["拒绝", "银行"]),
        ] {
            assert_eq!(split(&mut splitter, line), Ok(expected.map(String::from).to_vec()), "{line}");
        }
        for (line, said) in [
            ("a,b", "has 2 columns, not 3"),
            ("a,b,c,d", "has 4 columns, not 3"),
            ("a,b,\"c", "has a quote that is not closed"),
            ("a,b\nc", "has the end of a line within"),
            (&",".repeat(5000), "has more than 4096 columns"),
        ] {
            assert_eq!(split(&mut splitter, line), Err(said.into()), "{line}");
            assert!(split(&mut splitter, "a,b,c").is_ok(), "the line after {line}");
        }
        assert_eq!(split(&mut separated(b'|', vec![0, 1], None), "a|b|c"), Ok(vec!["a".into(), "b".into()]));
        assert_eq!(split(&mut separated(b'|', vec![3], None), "a|b|c"), Err("has 3 columns, and column 4 is used".into()));
    }

    #[test]
    fn objects_are_taken_apart_by_paths() {
        let path = |path: &str| path.split('.').map(str::to_owned).collect();
        let mut splitter = Splitter::Object { paths: ["a", "b.c", "b.missing.x", "d", "e"].map(path).to_vec() };
        let line = r#"{"a": "  x ", "b": {"c": 12.5}, "d": true, "e": null}"#;
        assert_eq!(split(&mut splitter, line), Ok(["x", "12.5", "", "true", ""].map(String::from).to_vec()));
        assert_eq!(split(&mut splitter, "[1]"), Err("is not a JSON object".into()));
        assert_eq!(split(&mut splitter, r#"{"a": "x""#), Err("is not a JSON object".into()));
        assert_eq!(split(&mut splitter, r#"{"b": {"c": []}}"#), Err("has no text or number as `b.c`".into()));
    }
}
