//! Lines of a log as bytes, one at a time, whatever is in them.

use std::io::{self, BufRead, BufReader, Read};

use memchr::memchr;
use serde::{Deserialize, Serialize};

/// Most bytes of a line; what is longer is no line of a log, and is not kept.
pub(crate) const LONGEST: usize = 64 * 1024;
const BUFFER: usize = 256 * 1024;

/// A place in a log, between two lines: what is before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Lines.
    pub lines: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A line with its end, which is taken off.
    Line,
    /// A line that is too long; it is passed.
    TooLong,
    /// The last bytes, without the end of a line. They are not passed.
    Unfinished,
    /// Nothing more.
    End,
}

/// The lines of what is read.
pub(crate) struct Lines<R> {
    reader: BufReader<R>,
    place: Place,
}

impl<R: Read> Lines<R> {
    /// What is read begins at `place`.
    pub(crate) fn new(reader: R, place: Place) -> Lines<R> {
        Lines { reader: BufReader::with_capacity(BUFFER, reader), place }
    }

    /// What has been passed.
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// Whether the next line may have to be waited for.
    pub(crate) fn may_wait(&self) -> bool {
        memchr(b'\n', self.reader.buffer()).is_none()
    }

    /// Puts the next line into `line`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn next(&mut self, line: &mut Vec<u8>) -> io::Result<Found> {
        line.clear();
        let mut length = 0_u64;
        loop {
            let buffer = match self.reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                buffer => buffer?,
            };
            if buffer.is_empty() {
                return Ok(if length == 0 { Found::End } else { Found::Unfinished });
            }
            let end = memchr(b'\n', buffer);
            let piece = end.map_or(buffer, |end| buffer.get(..end).unwrap_or_default());
            let room = (LONGEST + 1).saturating_sub(line.len());
            line.extend_from_slice(piece.get(..room.min(piece.len())).unwrap_or_default());
            let used = piece.len() + usize::from(end.is_some());
            self.reader.consume(used);
            length += u64::try_from(used).unwrap_or(u64::MAX);
            if end.is_some() {
                break;
            }
        }
        self.pass(length);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(if line.len() > LONGEST { Found::TooLong } else { Found::Line })
    }

    /// Takes the bytes that were found unfinished as a line.
    pub(crate) fn take_unfinished(&mut self, line: &mut Vec<u8>) -> Found {
        self.pass(u64::try_from(line.len()).unwrap_or(u64::MAX));
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        if line.len() > LONGEST { Found::TooLong } else { Found::Line }
    }

    fn pass(&mut self, bytes: u64) {
        self.place.lines += 1;
        self.place.bytes += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Vec<(Found, String, Place)> {
        let mut lines = Lines::new(bytes, Place::default());
        let mut line = Vec::new();
        let mut all = Vec::new();
        loop {
            let found = lines.next(&mut line).unwrap();
            if found == Found::End {
                return all;
            }
            let shown = String::from_utf8_lossy(&line[..line.len().min(20)]).into_owned();
            all.push((found, shown, lines.place()));
            if found == Found::Unfinished {
                return all;
            }
        }
    }

    #[test]
    fn lines_end_in_either_way_and_may_be_empty() {
        let place = |lines, bytes| Place { lines, bytes };
        let expected = [
            (Found::Line, "a".into(), place(1, 2)),
            (Found::Line, "b".into(), place(2, 5)),
            (Found::Line, String::new(), place(3, 6)),
            (Found::Unfinished, "c".into(), place(3, 6)),
        ];
        assert_eq!(all(b"a\nb\r\n\nc"), expected);
        assert_eq!(all(b""), []);
    }

    #[test]
    fn a_huge_line_takes_no_more_memory_than_a_long_one() {
        let mut bytes = vec![b'x'; 3 * BUFFER];
        bytes.extend_from_slice(b"\nb\n");
        let mut lines = Lines::new(bytes.as_slice(), Place::default());
        let mut line = Vec::new();
        assert_eq!(lines.next(&mut line).unwrap(), Found::TooLong);
        assert!(line.capacity() <= 2 * (LONGEST + 1), "{}", line.capacity());
        assert_eq!(lines.next(&mut line).unwrap(), Found::Line);
        assert_eq!((line.as_slice(), lines.place().lines), (b"b".as_slice(), 2));

        let longest = [vec![b'x'; LONGEST], b"\r\n".to_vec()].concat();
        assert_eq!(all(&longest)[0].0, Found::Line);
    }
}
