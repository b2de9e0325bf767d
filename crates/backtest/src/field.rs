//! Reading tables: every error says in which file, line and field, and what stands there.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::str::FromStr;

use csv::{ByteRecord, Reader, ReaderBuilder};
use flate2::bufread::MultiGzDecoder;

/// Bytes that are read at once.
const BUFFER: usize = 1 << 18;

/// Why a file is not what it is to be.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no table.
    #[error("{} is no table: {reason}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It lacks a column.
    #[error("{} has no column `{column}`", path.display())]
    Column {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
    },
    /// A value is none.
    #[error("{}, line {line}: `{column}` is {value:?}, and is to be {wanted}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The column.
        column: String,
        /// What stands there.
        value: String,
        /// What is to stand there.
        wanted: &'static str,
    },
}

/// A table with the columns that are wanted of it.
pub(crate) struct Table {
    path: PathBuf,
    reader: Reader<Box<dyn Read>>,
    columns: Vec<String>,
    places: Vec<usize>,
    row: ByteRecord,
    /// Bytes of the file that were read.
    read: Rc<Cell<u64>>,
}

/// A file of which is counted how much of it was read.
struct Counted(File, Rc<Cell<u64>>);

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.0.read(buffer)?;
        self.1.set(self.1.get() + u64::try_from(bytes).unwrap_or_default());
        Ok(bytes)
    }
}

impl Table {
    /// Opens a table, gzip where its name ends in `.gz`.
    pub(crate) fn open(path: &Path, columns: &[&str]) -> Result<Table, ReadError> {
        let file = File::open(path).map_err(|source| ReadError::Read { path: path.into(), source })?;
        let read = Rc::default();
        let buffered = BufReader::with_capacity(BUFFER, Counted(file, Rc::clone(&read)));
        let bytes: Box<dyn Read> = match path.extension() {
            Some(extension) if extension == "gz" => Box::new(MultiGzDecoder::new(buffered)),
            _ => Box::new(buffered),
        };
        let mut reader = ReaderBuilder::new().buffer_capacity(BUFFER).from_reader(bytes);
        let header = reader.byte_headers().map_err(|source| wrong(path, source))?.clone();
        let place = |column: &&str| {
            let place = header.iter().position(|name| name == column.as_bytes());
            place.ok_or_else(|| ReadError::Column { path: path.into(), column: (*column).into() })
        };
        let places = columns.iter().map(place).collect::<Result<_, _>>()?;
        let columns = columns.iter().map(|column| (*column).into()).collect();
        Ok(Table { path: path.into(), reader, columns, places, row: ByteRecord::new(), read })
    }

    /// Bytes of the file that were read.
    pub(crate) fn read(&self) -> u64 {
        self.read.get()
    }

    /// The names of all columns of a table.
    pub(crate) fn header(path: &Path) -> Result<Vec<String>, ReadError> {
        let mut table = Table::open(path, &[])?;
        let header = table.reader.headers().map_err(|source| wrong(path, source))?;
        Ok(header.iter().map(str::to_owned).collect())
    }

    /// Goes to the next row; says whether there is one.
    pub(crate) fn next(&mut self) -> Result<bool, ReadError> {
        self.reader.read_byte_record(&mut self.row).map_err(|source| wrong(&self.path, source))
    }

    /// The line of the row.
    fn line(&self) -> u64 {
        self.row.position().map_or(0, csv::Position::line)
    }

    /// What stands in the wanted column of this number.
    pub(crate) fn bytes(&self, column: usize) -> &[u8] {
        self.places.get(column).and_then(|place| self.row.get(*place)).unwrap_or_default()
    }

    /// The same as text.
    pub(crate) fn text(&self, column: usize) -> Result<&str, ReadError> {
        std::str::from_utf8(self.bytes(column)).map_err(|_| self.refuse(column, "text in UTF-8"))
    }

    /// The same as something that is read from text.
    pub(crate) fn parse<T: FromStr>(&self, column: usize, wanted: &'static str) -> Result<T, ReadError> {
        self.text(column)?.parse().map_err(|_| self.refuse(column, wanted))
    }

    /// The same as a whole number: there are millions of these.
    pub(crate) fn whole(&self, column: usize) -> Result<u32, ReadError> {
        let bytes = self.bytes(column);
        let add = |sum: Option<u32>, byte: &u8| {
            sum?.checked_mul(10)?.checked_add(u32::from(byte.wrapping_sub(b'0'))).filter(|_| byte.is_ascii_digit())
        };
        let number = if bytes.is_empty() { None } else { bytes.iter().fold(Some(0), add) };
        number.ok_or_else(|| self.refuse(column, "a whole number"))
    }

    /// The error that says what is wrong with the value in a column.
    pub(crate) fn refuse(&self, column: usize, wanted: &'static str) -> ReadError {
        let value = String::from_utf8_lossy(self.bytes(column)).into_owned();
        let column = self.columns.get(column).cloned().unwrap_or_default();
        ReadError::Value { path: self.path.clone(), line: self.line(), column, value, wanted }
    }
}

/// What the library says of a file: where it could not be read, that.
fn wrong(path: &Path, error: csv::Error) -> ReadError {
    let reason = error.to_string();
    match error.into_kind() {
        csv::ErrorKind::Io(source) => ReadError::Read { path: path.into(), source },
        _ => ReadError::Table { path: path.into(), reason },
    }
}
