//! From a log to events: lines are read, taken apart and mapped, in order.
//!
//! ```text
//! bytes ─▶ line ─▶ characters ─▶ cells ─▶ outcome ─▶ event, with the line's number as its sequence
//!            │         │           │         │
//!         too long  encoding   malformed  invalid_field, too_old, in_future, card_number
//! ```

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use encoding_rs::GB18030;
use faultline_proto::ingest::v1::Event;
use memchr::memmem;
use prost::Message;

use crate::cells::{Cells, Record, Splitter};
use crate::lines::{Found, LONGEST, Lines, Place};
use crate::log::{Log, LogError, Stream};
use crate::mapping::{Attempt, Column, Encoding, Format, Mapped, Mapping, Wrong};
use crate::refusals::Refusal;

/// Lines that are handed on together, and bytes of their events.
const BLOCK_LINES: usize = 512;
const BLOCK_BYTES: usize = 512 * 1024;
/// Oldest event that Faultline takes, as `RefusalReason.REFUSAL_REASON_TOO_OLD` and `Event.age_ms` say: 30 days.
const OLDEST_MS: i64 = 30 * 24 * 60 * 60 * 1000;
/// How far a log's clock may be ahead. What is beyond that is of another time zone than the mapping says.
const AHEAD_MS: i64 = 5 * 60 * 1000;
/// Profiles that are kept so that equal ones share their memory.
const KNOWN_PROFILES: usize = 4096;

/// The gateway's clock, as far as it is known here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GatewayClock {
    /// By how many milliseconds it is ahead of this machine's.
    pub(crate) ahead_ms: i64,
}

impl GatewayClock {
    /// What it says, in milliseconds since 1970-01-01 UTC.
    pub(crate) fn now_ms(self) -> i64 {
        let own = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
        own.saturating_add(self.ahead_ms)
    }
}

/// What became of a line.
#[derive(Debug)]
pub(crate) enum Fate {
    /// An attempt.
    Attempt(Box<Attempt>),
    /// Nothing is in it, or the mapping says that it is no outcome.
    Skipped,
    /// It cannot be imported.
    Refused(Refusal),
}

/// An event that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prepared {
    pub(crate) line: u64,
    pub(crate) terminal: Arc<str>,
    /// The encoded `faultline.terminal.v1.TerminalProfile`.
    pub(crate) profile: Bytes,
    /// The encoded `faultline.ingest.v1.Event`.
    pub(crate) event: Bytes,
}

/// Lines that follow each other, and what became of them.
#[derive(Debug, Default)]
pub(crate) struct Block {
    pub(crate) lines: u64,
    pub(crate) skipped: u64,
    pub(crate) events: Vec<Prepared>,
    pub(crate) refusals: Vec<Refusal>,
    /// Fields that were left out, once for each line.
    pub(crate) left_out: Vec<String>,
    /// What is before its end.
    pub(crate) end: Place,
}

/// A log while it is read.
pub(crate) struct Reading {
    name: String,
    mapping: Arc<Mapping>,
    lines: Lines<Stream>,
    is_finished: bool,
    splitter: Splitter,
    /// Whether the last bytes were no whole line, and wait for more.
    pub(crate) has_unfinished: bool,
    clock: GatewayClock,
    // The memory of the line before.
    line: Vec<u8>,
    cells: Cells,
    profiles: HashSet<Bytes>,
    terminals: HashSet<Arc<str>>,
}

impl Reading {
    /// Begins after `from`.
    ///
    /// # Errors
    /// When the log cannot be read, or has not the columns that the mapping uses.
    pub(crate) fn begin(log: Log, mapping: Arc<Mapping>, from: Place, clock: GatewayClock) -> Result<Reading, LogError> {
        let (name, is_finished, most_before_lines) = (log.name.clone(), log.is_finished, log.most_before_lines);
        let (begin, anywhere) = log.into_readers();
        let lines = Lines::new(begin, Place::default());
        let splitter = Splitter::Object { paths: Vec::new() };
        let mut reading = Reading {
            name,
            mapping,
            lines,
            is_finished,
            splitter,
            has_unfinished: false,
            clock,
            line: Vec::new(),
            cells: Cells::default(),
            profiles: HashSet::new(),
            terminals: HashSet::new(),
        };
        reading.splitter = reading.read_header()?;
        let before_lines = reading.lines.place().bytes;
        if before_lines > most_before_lines {
            let reason =
                format!("its lines begin after {before_lines} bytes, so how it begins does not tell it from others; name it (--source)");
            return Err(reading.not_so(&reason));
        }
        match anywhere {
            Some(content) if from > reading.lines.place() => reading.lines = Lines::new(content.from(from.bytes), from),
            _ => while reading.lines.place() < from && reading.next_line()? != Found::End {},
        }
        Ok(reading)
    }

    /// Reads what is before the first line, and finds the columns.
    fn read_header(&mut self) -> Result<Splitter, LogError> {
        let mapping = Arc::clone(&self.mapping);
        for _ in 0..mapping.log.skip_lines {
            self.next_line()?;
        }
        if mapping.log.format == Format::Ndjson {
            let paths = mapping.columns.iter().map(|(column, _)| match column {
                Column::Name(path) => path.split('.').map(str::to_owned).collect(),
                Column::Place(_) => Vec::new(),
            });
            return Ok(Splitter::Object { paths: paths.collect() });
        }
        let mut reader = Box::new(mapping.log.reader());
        let mut header = Record::default();
        if mapping.log.has_header() {
            if self.next_line()? != Found::Line {
                return Err(self.not_so("its first line, the header, is not there"));
            }
            let bytes = std::mem::take(&mut self.line);
            let text = decode(&bytes, mapping.log.encoding).map_err(|wrong| self.not_so(&format!("the header {wrong}")))?;
            header.read(&mut reader, text.trim_start_matches('\u{FEFF}')).map_err(|wrong| self.not_so(&format!("the header {wrong}")))?;
        }
        let mut columns = Vec::new();
        for (column, field) in &mapping.columns {
            let place = match column {
                Column::Place(place) => place - 1,
                Column::Name(name) => {
                    let mut places = header.iter().enumerate().filter(|(_, title)| title.trim() == name).map(|(place, _)| place);
                    // Not what the header has: it may be no header, but a line with card numbers.
                    match (places.next(), places.next()) {
                        (Some(place), None) => place,
                        (None, _) => return Err(self.not_so(&format!("no column of its header is {column} (`{field}`)"))),
                        (Some(_), Some(_)) => return Err(self.not_so(&format!("two columns of its header are {column} (`{field}`)"))),
                    }
                }
            };
            columns.push(place);
        }
        let width = mapping.log.has_header().then(|| header.len());
        Ok(Splitter::Separated { reader, columns, width, record: Record::default() })
    }

    fn not_so(&self, reason: &str) -> LogError {
        LogError::Form { log: self.name.clone(), reason: reason.to_owned() }
    }

    /// What has been read.
    pub(crate) fn place(&self) -> Place {
        self.lines.place()
    }

    fn next_line(&mut self) -> Result<Found, LogError> {
        let found = self.lines.next(&mut self.line).map_err(LogError::read(&self.name))?;
        if found != Found::Unfinished {
            return Ok(found);
        }
        if self.is_finished {
            return Ok(self.lines.take_unfinished(&mut self.line));
        }
        self.has_unfinished = true;
        Ok(Found::End)
    }

    /// What became of the next line. None at the end.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub(crate) fn next(&mut self) -> Result<Option<Fate>, LogError> {
        let found = self.next_line()?;
        let refused = |line, reason, (field, description): (&str, String)| {
            Ok(Some(Fate::Refused(Refusal { line, reason, field: field.to_owned(), description })))
        };
        let line = self.lines.place().lines;
        match found {
            Found::End | Found::Unfinished => return Ok(None),
            Found::TooLong => return refused(line, "too_long", ("", format!("is longer than {LONGEST} bytes"))),
            Found::Line => {}
        }
        let text = match decode(&self.line, self.mapping.log.encoding) {
            Ok(text) => text,
            Err(wrong) => return refused(line, "encoding", ("", wrong)),
        };
        // The mark of the byte order, where there is one.
        let text = if line == 1 { text.trim_start_matches('\u{FEFF}') } else { &*text };
        let is_comment = |sign: &String| text.starts_with(sign.as_str());
        if text.trim().is_empty() || self.mapping.log.comment.as_ref().is_some_and(is_comment) {
            return Ok(Some(Fate::Skipped));
        }
        if let Err(wrong) = self.splitter.split(text, &mut self.cells) {
            return refused(line, "malformed", ("", wrong));
        }
        match self.mapping.map(&self.cells) {
            Ok(Mapped::Skipped) => Ok(Some(Fate::Skipped)),
            Ok(Mapped::Outcome(attempt)) => match self.dated(&attempt) {
                Ok(()) => Ok(Some(Fate::Attempt(attempt))),
                Err((reason, wrong)) => refused(line, reason, (&wrong.field, wrong.description)),
            },
            Err(wrong) => refused(line, "invalid_field", (&wrong.field, wrong.description)),
        }
    }

    /// Whether Faultline takes an attempt of that time.
    fn dated(&self, attempt: &Attempt) -> Result<(), (&'static str, Wrong)> {
        let completed = attempt.outcome.completion_time.unwrap_or_default();
        let completed_ms = completed.seconds.saturating_mul(1000).saturating_add(i64::from(completed.nanos / 1_000_000));
        let age_ms = self.clock.now_ms().saturating_sub(completed_ms);
        let (reason, description) = if age_ms > OLDEST_MS {
            ("too_old", "is more than 30 days ago")
        } else if age_ms < -AHEAD_MS {
            ("in_future", "is still to come: is the `zone` right?")
        } else {
            return Ok(());
        };
        Err((reason, Wrong { field: "outcome.completion_time".into(), description: description.into() }))
    }

    /// The next lines. None at the end. With `strict`, they end before the first that is refused.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub(crate) fn next_block(&mut self, strict: bool) -> Result<Option<Block>, LogError> {
        let mut block = Block::default();
        let mut bytes = 0;
        while block.events.len() < BLOCK_LINES && bytes < BLOCK_BYTES && block.lines < 16 * BLOCK_LINES as u64 {
            let before = self.lines.place();
            let Some(fate) = self.next()? else { break };
            block.lines += 1;
            match fate {
                Fate::Skipped => block.skipped += 1,
                Fate::Refused(refusal) => block.refusals.push(refusal),
                Fate::Attempt(attempt) => match self.prepare(*attempt, &mut block.left_out) {
                    Ok(prepared) => {
                        bytes += prepared.event.len();
                        block.events.push(prepared);
                    }
                    Err(refusal) => block.refusals.push(refusal),
                },
            }
            block.end = self.lines.place();
            if strict && !block.refusals.is_empty() {
                block.end = before;
                break;
            }
            // What comes through a pipe, line by line, goes on as it comes.
            if self.lines.may_wait() {
                break;
            }
        }
        Ok((block.lines > 0).then_some(block))
    }

    /// Makes an event of an attempt, in the bytes that are sent.
    pub(crate) fn prepare(&mut self, attempt: Attempt, left_out: &mut Vec<String>) -> Result<Prepared, Refusal> {
        let line = self.lines.place().lines;
        let profile = Bytes::from(attempt.profile.encode_to_vec());
        let event = Bytes::from(Event { sequence: line, age_ms: None, outcome: Some(attempt.outcome) }.encode_to_vec());
        if let Some(number) = self.mapping.card_number(&self.cells) {
            let is_in = |bytes: &[u8]| memmem::find(bytes, number.as_bytes()).is_some();
            if is_in(&event) || is_in(&profile) || is_in(attempt.terminal.as_bytes()) {
                let description = "the card number of the line stands in another of its columns that the mapping uses".into();
                return Err(Refusal { line, reason: "card_number", field: String::new(), description });
            }
        }
        left_out.extend(attempt.filling.left_out);
        Ok(Prepared { line, terminal: self.terminal(&attempt.terminal), profile: self.profile(profile), event })
    }

    fn profile(&mut self, profile: Bytes) -> Bytes {
        if let Some(known) = self.profiles.get(&profile) {
            return known.clone();
        }
        if self.profiles.len() >= KNOWN_PROFILES {
            self.profiles.clear();
        }
        self.profiles.insert(profile.clone());
        profile
    }

    fn terminal(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.terminals.get(name) {
            return Arc::clone(known);
        }
        if self.terminals.len() >= KNOWN_PROFILES {
            self.terminals.clear();
        }
        let name: Arc<str> = name.into();
        self.terminals.insert(Arc::clone(&name));
        name
    }
}

/// The characters of a line.
fn decode(line: &[u8], encoding: Encoding) -> Result<Cow<'_, str>, String> {
    match encoding {
        Encoding::Utf8 => std::str::from_utf8(line).map(Cow::Borrowed).map_err(|_| "is not UTF-8".into()),
        Encoding::Gb18030 => {
            GB18030.decode_without_bom_handling_and_without_replacement(line).ok_or_else(|| "is not GB 18030 (GBK)".into())
        }
    }
}

#[cfg(test)]
mod tests;
