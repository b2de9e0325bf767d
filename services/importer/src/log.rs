//! A log: a file, compressed or not, or standard input; and which log it is.
//!
//! **Which log it is, its content says, not its name**: the first 4,096 bytes. A log that was renamed, moved, copied or compressed is the same log, and
//! another one under its name is another. It never begins otherwise later, since a log only grows at its end. One that is too short to be told from others waits
//! until it has grown, unless it is finished, or has a name given for it.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};

/// Bytes at the beginning that tell a log from others.
pub(crate) const HEAD_BYTES: usize = 4096;
/// Of these, what may be the same in all logs.
const MOST_BEFORE_LINES: u64 = 3072;
/// What a gzip member begins with (RFC 1952, section 2.3.1).
const GZIP: [u8; 2] = [0x1F, 0x8B];

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It cannot be opened or read.
    #[error("cannot read {log}")]
    Read {
        /// The log.
        log: String,
        /// Why.
        source: io::Error,
    },
    /// It is too short to be told from others.
    #[error(
        "{log} has {bytes} bytes, and {HEAD_BYTES} are needed to tell a log from others. It can be imported when it has grown. If it is finished, \
         say so (--finished), or name it (--source)"
    )]
    Short {
        /// The log.
        log: String,
        /// Its bytes.
        bytes: usize,
    },
    /// It is not what the mapping says that it is.
    #[error("{log} is not what the mapping says: {reason}")]
    Form {
        /// The log.
        log: String,
        /// What is missing.
        reason: String,
    },
}

impl LogError {
    pub(crate) fn read(log: &str) -> impl FnOnce(io::Error) -> LogError {
        let log = log.to_owned();
        |source| LogError::Read { log, source }
    }
}

/// Where a log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Standard input.
    Standard,
    /// A file.
    File(PathBuf),
}

impl Input {
    /// A path, or `-` for standard input.
    #[must_use]
    pub fn named(path: &Path) -> Input {
        if path == Path::new("-") { Input::Standard } else { Input::File(path.into()) }
    }
}

/// What is known of a log beside what is in it.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Its name, which is then what tells it from others.
    pub source: Option<String>,
    /// Whether nothing will be added to it any more.
    pub is_finished: bool,
}

/// A log, open.
pub struct Log {
    /// What it is called.
    pub name: String,
    /// The spool that its outcomes are of: a number that its identity makes.
    pub spool: u64,
    /// Its first bytes.
    pub(crate) head: Vec<u8>,
    /// How many bytes what is before its lines, such as a header, may have at most: after them, enough is left that tells it from others.
    pub(crate) most_before_lines: u64,
    /// Whether a last line without an end is a whole line.
    pub(crate) is_finished: bool,
    /// Bytes of the input that were read, and how many there are where that is known.
    read: Arc<AtomicU64>,
    size: Option<u64>,
    content: Content,
}

/// What is read once, from its beginning.
pub(crate) type Stream = Box<dyn Read + Send>;

enum Content {
    File(Anywhere),
    Stream(Stream),
}

/// A file that can be read from any place on, whoever else reads it.
#[derive(Clone)]
pub(crate) struct Anywhere {
    file: Arc<File>,
    read: Arc<AtomicU64>,
}

impl Anywhere {
    pub(crate) fn from(&self, byte: u64) -> Stream {
        Box::new(FromPlace { content: self.clone(), byte })
    }
}

struct FromPlace {
    content: Anywhere,
    byte: u64,
}

impl Read for FromPlace {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.content.file.read_at(buffer, self.byte)?;
        self.byte += u64::try_from(bytes).unwrap_or_default();
        self.content.read.store(self.byte, Ordering::Relaxed);
        Ok(bytes)
    }
}

impl Log {
    /// Opens a log and finds out which it is.
    ///
    /// # Errors
    /// When it cannot be read, or is too short to be told from others.
    pub fn open(input: &Input, known: &Known) -> Result<Log, LogError> {
        let name = match input {
            Input::Standard => "standard input".to_owned(),
            Input::File(path) => path.display().to_string(),
        };
        let read = Arc::new(AtomicU64::new(0));
        let (mut stream, file, size): (Stream, _, _) = match input {
            Input::Standard => (Box::new(io::stdin()), None, None),
            Input::File(path) => {
                let file = File::open(path).map_err(LogError::read(&name))?;
                let metadata = file.metadata().map_err(LogError::read(&name))?;
                if metadata.is_dir() {
                    return Err(LogError::read(&name)(io::ErrorKind::IsADirectory.into()));
                }
                if metadata.is_file() {
                    let file = Anywhere { file: Arc::new(file), read: Arc::clone(&read) };
                    (file.from(0), Some(file), Some(metadata.len()))
                } else {
                    // A pipe, which is read once.
                    (Box::new(file), None, None)
                }
            }
        };
        let begin = read_up_to(&mut stream, GZIP.len()).map_err(LogError::read(&name))?;
        let is_compressed = begin == GZIP;
        let whole = Cursor::new(begin).chain(stream);
        let mut stream: Stream = if is_compressed { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) };
        let head = read_up_to(&mut stream, HEAD_BYTES).map_err(LogError::read(&name))?;
        let is_finished = known.is_finished || is_compressed;
        if head.len() < HEAD_BYTES && !is_finished && known.source.is_none() {
            return Err(LogError::Short { log: name, bytes: head.len() });
        }
        let spool = match &known.source {
            Some(source) => spool("source", source.as_bytes()),
            None => spool("content", &head),
        };
        let content = match file.filter(|_| !is_compressed) {
            Some(file) => Content::File(file),
            None => Content::Stream(Box::new(Cursor::new(head.clone()).chain(stream))),
        };
        let is_told_by_lines = known.source.is_some() || head.len() < HEAD_BYTES;
        let most_before_lines = if is_told_by_lines { u64::MAX } else { MOST_BEFORE_LINES };
        // What comes from a pipe ends with it.
        let is_finished = is_finished || size.is_none();
        Ok(Log { name, spool, head, most_before_lines, is_finished, read, size, content })
    }

    /// How much of it was read, from 0 to 1, where that is known.
    pub(crate) fn share_read(&self) -> impl Fn() -> Option<f64> + use<> {
        let (read, size) = (Arc::clone(&self.read), self.size);
        #[expect(clippy::cast_precision_loss, reason = "a share that is shown")]
        move || Some((read.load(Ordering::Relaxed) as f64 / size? as f64).clamp(0.0, 1.0))
    }

    /// Bytes of a file that can be read from anywhere.
    pub(crate) fn length(&self) -> Option<u64> {
        match self.content {
            Content::File(_) => self.size,
            Content::Stream(_) => None,
        }
    }

    /// What is in it from the beginning on; and the same from any place on, where that is possible.
    pub(crate) fn into_readers(self) -> (Stream, Option<Anywhere>) {
        match self.content {
            Content::File(file) => (file.from(0), Some(file)),
            Content::Stream(stream) => (stream, None),
        }
    }
}

/// Reads so many bytes, or what there is.
fn read_up_to(stream: &mut impl Read, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(most);
    stream.take(u64::try_from(most).unwrap_or(u64::MAX)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A number for what identifies a log: 63 bits, so that every database has it, and never 0, which is no spool.
fn spool(kind: &str, identity: &[u8]) -> u64 {
    let hash = Sha256::new().chain_update("faultline import\0").chain_update(kind).chain_update("\0").chain_update(identity).finalize();
    let first = hash.iter().take(8).fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
    (first >> 1).max(1)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn open(content: &[u8], known: &Known) -> Result<Log, LogError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(&path, content).unwrap();
        Log::open(&Input::File(path), known)
    }

    fn content(log: Log) -> Vec<u8> {
        let mut content = Vec::new();
        log.into_readers().0.read_to_end(&mut content).unwrap();
        content
    }

    fn long(beginning: &str) -> Vec<u8> {
        format!("{beginning}{}", "line\n".repeat(2000)).into_bytes()
    }

    #[test]
    fn a_log_is_known_by_its_beginning_whatever_it_is_called() {
        let known = Known::default();
        let (one, other) = (long("one\n"), long("other\n"));
        let spool = open(&one, &known).unwrap().spool;
        assert_ne!(spool, open(&other, &known).unwrap().spool);
        let grown = [one.clone(), b"more\n".to_vec()].concat();
        assert_eq!(spool, open(&grown, &known).unwrap().spool);

        let mut compressed = GzEncoder::new(Vec::new(), Compression::fast());
        compressed.write_all(&one).unwrap();
        let log = open(&compressed.finish().unwrap(), &known).unwrap();
        assert!(log.spool == spool && log.is_finished);
        assert_eq!(content(log), one);
        assert_eq!(content(open(&one, &known).unwrap()), one);
        // Known from elsewhere: what is stored under it must be found again by every later version.
        assert_eq!(super::spool("content", b"x"), 2_246_335_345_586_108_665);
        assert!(spool > 0 && i64::try_from(spool).is_ok());
    }

    #[test]
    fn a_short_log_waits_unless_more_is_known_of_it() {
        let Err(error) = open(b"a\n", &Known::default()) else { panic!("it was taken") };
        assert!(error.to_string().contains("has 2 bytes, and 4096 are needed"), "{error}");
        let finished = Known { is_finished: true, ..Known::default() };
        let named = Known { source: Some("switch-1".into()), is_finished: false };
        assert!(open(b"a\n", &finished).unwrap().is_finished);
        let log = open(b"a\n", &named).unwrap();
        assert_eq!((log.is_finished, log.spool), (false, open(&long("b"), &named).unwrap().spool));
        assert!(Log::open(&Input::named(Path::new("/")), &finished).is_err());
    }
}
