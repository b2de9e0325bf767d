//! Rows as ClickHouse takes them with the least work: as one block, column by column. This is its [Native format], as it is over HTTP:
//!
//! ```text
//! columns, rows        two variable-length integers (LEB128)
//! of each column       name, type, values; texts are a length and bytes, numbers little-endian
//! LowCardinality       the version of the format; the width of a place, and that the words follow; words; places
//! Array                for each row, where its values end; values
//! Nullable             for each row, whether it has no value; values, of which some stand for none
//! ```
//!
//! The server turns a number into the enumeration that the column is.
//!
//! [Native format]: https://clickhouse.com/docs/interfaces/formats/Native

use std::collections::HashMap;
use std::iter;
use std::time::Duration;

use bytes::Bytes;
use clickhouse::{Client, Compression, RowWrite};
use foldhash::fast::RandomState;

/// How much is sent at once, and how long the server may take to take it.
const PIECE: usize = 1 << 20;
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take to answer, once it has all of it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// Rows that are gone through at a time, column by column: so many as a core has at hand.
const STRETCH: usize = 64;

/// Version of `LowCardinality`'s serialization: words that several blocks may share, and others (`SharedDictionariesWithAdditionalKeys`).
const WORDS_VERSION: u64 = 1;
/// The block brings its words with it (`HasAdditionalKeysBit`), and none are shared (`NeedUpdateDictionary`).
const WORDS_FOLLOW: u64 = 1 << 9 | 1 << 10;

/// Columns of the same rows.
pub(crate) struct Block<'r> {
    rows: usize,
    columns: Vec<Column<'r>>,
}

struct Column<'r> {
    name: &'static str,
    kind: &'static str,
    values: Values<'r>,
}

enum Values<'r> {
    Plain(Vec<u8>),
    Words(Words<'r>),
    Lists { ends: Vec<u8>, end: u64, numbers: Vec<u8> },
    Measured { absent: Vec<u8>, numbers: Vec<u8> },
}

/// Words that are written once, and which of them each row has.
#[derive(Default)]
struct Words<'r> {
    places: HashMap<&'r str, u32, RandomState>,
    words: Vec<u8>,
    of_rows: Vec<u32>,
    /// Of the row before: rows beside each other mostly have the same word, in the same place of memory.
    before: Option<(&'r str, u32)>,
}

/// A stretch of the rows, and the columns that were not gone through yet.
pub(crate) struct Stretch<'b, 'r, R> {
    rows: &'r [R],
    columns: &'b mut Vec<Column<'r>>,
    next: usize,
}

/// What is written as it is in memory.
pub(crate) trait Number: Default {
    /// What ClickHouse calls it, and one that may be absent.
    const TYPE: &'static str;
    const NULLABLE: &'static str;
    fn write(self, bytes: &mut Vec<u8>);
}

macro_rules! number {
    ($($number:ty: $name:literal),*) => {
        $(impl Number for $number {
            const TYPE: &'static str = $name;
            const NULLABLE: &'static str = concat!("Nullable(", $name, ")");
            fn write(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }
        })*
    };
}

number!(u8: "UInt8", u16: "UInt16", u32: "UInt32", u64: "UInt64", i8: "Int8", i16: "Int16", i64: "Int64");

impl Number for bool {
    const TYPE: &'static str = "Bool";
    const NULLABLE: &'static str = "Nullable(Bool)";
    fn write(self, bytes: &mut Vec<u8>) {
        bytes.push(self.into());
    }
}

impl<'r> Block<'r> {
    /// A block of these rows. `columns` says what all of its columns are, for each stretch of them again.
    pub(crate) fn of<R>(rows: &'r [R], columns: impl Fn(&mut Stretch<'_, 'r, R>)) -> Block<'r> {
        let mut block = Block { rows: rows.len(), columns: Vec::new() };
        // Nothing has columns, too.
        for rows in rows.chunks(STRETCH).chain(rows.is_empty().then_some(rows)) {
            columns(&mut Stretch { rows, columns: &mut block.columns, next: 0 });
        }
        block
    }

    /// Inserts it, and waits until it is stored. It is not compressed: the server is spared the work, and words are in it once anyway.
    pub(crate) async fn insert(self, client: Client, table: &str) -> clickhouse::error::Result<()> {
        let statement = format!("INSERT INTO {table} (`{}`)", self.names().join("`, `"));
        self.send(client, &statement).await
    }

    /// The same, unless the server gets to it later than this moment of its own clock, in seconds since 1970-01-01 UTC: then it refuses.
    pub(crate) async fn insert_until(self, client: Client, table: &str, deadline: i64) -> clickhouse::error::Result<()> {
        self.insert_of(client, table, &in_time(deadline)).await
    }

    /// Inserts the rows for which a condition holds.
    pub(crate) async fn insert_of(self, client: Client, table: &str, condition: &str) -> clickhouse::error::Result<()> {
        let (names, source) = (self.names().join("`, `"), self.source());
        let statement = format!("INSERT INTO {table} (`{names}`) SELECT * FROM {source} WHERE {condition}");
        self.send(client, &statement).await
    }

    /// What is sent, as a table in a statement.
    pub(crate) fn source(&self) -> String {
        let columns: Vec<String> = self.columns.iter().map(|column| format!("`{}` {}", column.name, column.kind)).collect();
        format!("input('{}')", columns.join(", ").replace('\'', "''"))
    }

    /// Sends it to a statement that inserts, and waits until what that makes of it is stored.
    pub(crate) async fn send(self, client: Client, statement: &str) -> clickhouse::error::Result<()> {
        // The server does not take a block of nothing.
        if self.rows == 0 {
            return Ok(());
        }
        let client = one_block(client).with_compression(Compression::None);
        let insert = client.insert_formatted_with(format!("{statement} FORMAT Native"));
        let mut insert = insert.with_timeouts(Some(SEND_TIMEOUT), Some(ANSWER_TIMEOUT));
        for piece in self.pieces() {
            insert.send(piece).await?;
        }
        insert.end().await
    }

    /// The names of its columns.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.columns.iter().map(|column| column.name).collect()
    }

    /// All of it, piece by piece.
    pub(crate) fn pieces(self) -> impl Iterator<Item = Bytes> {
        let mut head = Vec::new();
        put_length(&mut head, self.columns.len());
        put_length(&mut head, self.rows);
        let columns = self.columns.into_iter().flat_map(Column::pieces);
        iter::once(head).chain(columns).flat_map(|part| {
            let mut part = Bytes::from(part);
            iter::from_fn(move || (!part.is_empty()).then(|| part.split_to(part.len().min(PIECE))))
        })
    }
}

impl<'r, R> Stretch<'_, 'r, R> {
    pub(crate) fn numbers<N: Number>(&mut self, name: &'static str, value: impl Fn(&'r R) -> N) {
        self.fixed((name, N::TYPE), value);
    }

    /// Moments, in milliseconds since 1970-01-01 UTC.
    pub(crate) fn milliseconds(&mut self, name: &'static str, value: impl Fn(&'r R) -> i64) {
        self.fixed((name, "DateTime64(3, 'UTC')"), value);
    }

    /// Moments, in seconds since 1970-01-01 UTC.
    pub(crate) fn seconds(&mut self, name: &'static str, value: impl Fn(&'r R) -> u32) {
        self.fixed((name, "DateTime('UTC')"), value);
    }

    /// Texts of any kind.
    pub(crate) fn texts(&mut self, name: &'static str, value: impl Fn(&'r R) -> &'r str) {
        let rows = self.rows;
        let Some(Values::Plain(values)) = self.values(name, "String", || Values::Plain(Vec::new())) else { return };
        for row in rows {
            put_text(values, value(row));
        }
    }

    /// Texts among which there are few different ones.
    pub(crate) fn words(&mut self, name: &'static str, value: impl Fn(&'r R) -> &'r str) {
        let rows = self.rows;
        let Some(Values::Words(words)) = self.values(name, "LowCardinality(String)", || Values::Words(Words::default())) else { return };
        for row in rows {
            words.add(value(row));
        }
    }

    /// Lists of numbers.
    pub(crate) fn lists(&mut self, name: &'static str, value: impl Fn(&'r R) -> &'r [u16]) {
        let rows = self.rows;
        let empty = || Values::Lists { ends: Vec::new(), end: 0, numbers: Vec::new() };
        let Some(Values::Lists { ends, end, numbers }) = self.values(name, "Array(UInt16)", empty) else { return };
        for list in rows.iter().map(value) {
            *end += length(list.len());
            end.write(ends);
            list.iter().for_each(|number| number.write(numbers));
        }
    }

    /// Numbers of which some were not measured.
    pub(crate) fn measured<N: Number>(&mut self, name: &'static str, value: impl Fn(&'r R) -> Option<N>) {
        let rows = self.rows;
        let empty = || Values::Measured { absent: Vec::new(), numbers: Vec::new() };
        let Some(Values::Measured { absent, numbers }) = self.values(name, N::NULLABLE, empty) else { return };
        for number in rows.iter().map(value) {
            absent.push(number.is_none().into());
            number.unwrap_or_default().write(numbers);
        }
    }

    fn fixed<N: Number>(&mut self, (name, kind): (&'static str, &'static str), value: impl Fn(&'r R) -> N) {
        let rows = self.rows;
        let Some(Values::Plain(values)) = self.values(name, kind, || Values::Plain(Vec::new())) else { return };
        for row in rows {
            value(row).write(values);
        }
    }

    /// The values of the next column so far.
    fn values(&mut self, name: &'static str, kind: &'static str, empty: impl Fn() -> Values<'r>) -> Option<&mut Values<'r>> {
        let place = self.next;
        self.next += 1;
        if place == self.columns.len() {
            self.columns.push(Column { name, kind, values: empty() });
        }
        Some(&mut self.columns.get_mut(place)?.values)
    }
}

impl<'r> Words<'r> {
    fn add(&mut self, word: &'r str) {
        let place = match self.before {
            Some((same, place)) if std::ptr::eq(same, word) => place,
            _ => {
                let next = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
                *self.places.entry(word).or_insert_with(|| {
                    put_text(&mut self.words, word);
                    next
                })
            }
        };
        self.before = Some((word, place));
        self.of_rows.push(place);
    }

    fn into_bytes(self) -> [Vec<u8>; 2] {
        let width: u64 = match self.places.len() {
            ..=0x100 => 0,
            0x101..=0x1_0000 => 1,
            _ => 2,
        };
        let mut head = Vec::new();
        for number in [WORDS_VERSION, width | WORDS_FOLLOW, length(self.places.len())] {
            number.write(&mut head);
        }
        head.extend_from_slice(&self.words);
        length(self.of_rows.len()).write(&mut head);
        let places = self.of_rows.into_iter().map(u32::to_le_bytes);
        let places = match width {
            0 => places.map(|[byte, ..]| byte).collect(),
            1 => places.flat_map(|[low, high, ..]| [low, high]).collect(),
            _ => places.flatten().collect(),
        };
        [head, places]
    }
}

impl Column<'_> {
    fn pieces(self) -> impl Iterator<Item = Vec<u8>> {
        let mut head = Vec::new();
        put_text(&mut head, self.name);
        put_text(&mut head, self.kind);
        let values = match self.values {
            Values::Plain(values) => [values, Vec::new()],
            Values::Words(words) => words.into_bytes(),
            Values::Lists { ends, numbers, .. } => [ends, numbers],
            Values::Measured { absent, numbers } => [absent, numbers],
        };
        iter::once(head).chain(values)
    }
}

/// A condition that the server refuses to look at later than this moment of its own clock, in seconds since 1970-01-01 UTC.
pub(crate) fn in_time(deadline: i64) -> String {
    format!("throwIf(now() > fromUnixTimestamp({deadline}), 'it came too late, and may have been given up') = 0")
}

/// A question for rows of other tables that gives them as one block: these values of `source`, which begins with `FROM`. The server knows an insert again by its token and by how many blocks its
/// rows came in, and that is otherwise as many as there are parts to read.
pub(crate) fn as_one_block(values: &[String], source: &str) -> String {
    let row: Vec<String> = (1..=values.len()).map(|place| format!("row.{place}")).collect();
    format!("SELECT {} FROM (SELECT arrayJoin(groupArray(tuple({}))) AS row {source})", row.join(", "), values.join(", "))
}

/// Inserts rows of which there are few, as one block, and waits until they are stored.
pub(crate) async fn insert_rows<'a, R: RowWrite>(
    client: Client,
    table: &str,
    rows: impl Iterator<Item = &'a R::Value<'a>>,
) -> clickhouse::error::Result<()>
where
    R::Value<'a>: 'a,
{
    let mut insert = one_block(client).insert::<R>(table).await?.with_timeouts(Some(SEND_TIMEOUT), Some(ANSWER_TIMEOUT));
    for row in rows {
        insert.write(row).await?;
    }
    insert.end().await
}

/// A client whose inserts are one block each, answered when it is stored.
pub(crate) fn one_block(client: Client) -> Client {
    client
        .with_setting("async_insert", "0")
        .with_setting("wait_end_of_query", "1")
        .with_setting("max_insert_threads", "1")
        .with_setting("max_insert_block_size", "10000000")
        .with_setting("min_insert_block_size_rows", "10000000")
        .with_setting("min_insert_block_size_bytes", "0")
        // Sums of a batch are one for each slice already: there is nothing in them that could be merged before they are stored.
        .with_setting("optimize_on_insert", "0")
        // Old spools may come from more weeks than the server's default allows.
        .with_setting("max_partitions_per_insert_block", "0")
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put_length(bytes, text.len());
    bytes.extend_from_slice(text.as_bytes());
}

fn put_length(bytes: &mut Vec<u8>, length: usize) {
    prost::encoding::encode_varint(self::length(length), bytes);
}

fn length(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded<'r, R>(rows: &'r [R], columns: impl Fn(&mut Stretch<'_, 'r, R>)) -> Vec<u8> {
        Block::of(rows, columns).pieces().flatten().collect()
    }

    #[test]
    fn columns_are_written_as_the_format_says() {
        let numbers = encoded(&[1_u16, 0x203], |block| block.numbers("n", |row| *row));
        assert_eq!(numbers, b"\x01\x02\x01n\x06UInt16\x01\x00\x03\x02");
        let texts = encoded(&["ab", ""], |block| block.texts("t", |row| row));
        assert_eq!(texts, b"\x01\x02\x01t\x06String\x02ab\x00");
        let lists = encoded(&[vec![7_u16, 8], vec![], vec![9]], |block| block.lists("l", |row| row));
        let measured = encoded(&[Some(7_u16), None], |block| block.measured("m", |row| *row));
        assert_eq!(measured, b"\x01\x02\x01m\x10Nullable(UInt16)\x00\x01\x07\x00\x00\x00");
        let ends = [2_u64, 2, 3].map(u64::to_le_bytes).concat();
        assert_eq!(lists, [b"\x01\x03\x01l\x0DArray(UInt16)".as_slice(), &ends, b"\x07\x00\x08\x00\x09\x00"].concat());
    }

    #[test]
    fn a_word_is_written_once() {
        let (first, same) = (String::from("icbc"), String::from("icbc"));
        let words = encoded(&["", "", &first, "ccb", &same], |block| block.words("w", |row| row));
        let head = b"\x01\x05\x01w\x16LowCardinality(String)";
        let numbers = |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
        let expected = [head, numbers(&[1, 0x600, 3]).as_slice(), b"\x00\x04icbc\x03ccb", &numbers(&[5]), &[0, 0, 1, 2, 1]].concat();
        assert_eq!(words, expected);
    }

    #[test]
    fn a_place_is_as_wide_as_there_are_words() {
        for (words, width) in [(256, 1), (257, 2), (65_536, 2), (65_537, 4)] {
            let rows: Vec<String> = (0..words).map(|number| number.to_string()).collect();
            let texts: usize = rows.iter().map(|word| 1 + word.len()).sum();
            let block = encoded(&rows, |block| block.words("", |row| row));
            let head = encoded(&[""; 0], |block| block.words("", |row| row)).len();
            let longer_count = [128, 16_384].iter().filter(|count| words >= **count).count();
            assert_eq!(block.len(), head + longer_count + texts + words * width, "{words}");
        }
    }
}
