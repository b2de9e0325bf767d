//! How far logs are imported, kept between two runs. Without it an import has the same result, and only begins at the first line again.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::lines::Place;
use crate::log::Log;

/// The form of the file.
const VERSION: u32 = 1;
/// How long a log is remembered in which nothing is new: longer than what is in it could be imported.
const REMEMBERED_S: u64 = 32 * 24 * 60 * 60;

/// Why it is not known how far a log is imported, or cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file cannot be read.
    #[error("cannot read {} (--state)", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not one of this program.
    #[error("{} (--state) is not what an import has kept: {reason}. Without it, an import begins at the first line, and counts nothing twice", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It cannot be written.
    #[error("cannot keep in {} (--state) how far the log is imported", path.display())]
    Keep {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The log has become shorter.
    #[error("{log} has {bytes} bytes, and {imported} were imported: what was there has been cut off, so it is not known where to go on")]
    Shorter {
        /// The log.
        log: String,
        /// Its bytes.
        bytes: u64,
        /// Bytes that were imported.
        imported: u64,
    },
    /// Another log has the name.
    #[error("{log} begins otherwise than the log that was imported as `{source_name}` (--source): another log needs another name")]
    Other {
        /// The log.
        log: String,
        /// The name.
        source_name: String,
    },
}

/// What is kept of all logs.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    /// By spool, in hexadecimal digits.
    logs: BTreeMap<String, Entry>,
}

/// What is kept of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// What it was called.
    log: String,
    /// Every line up to there is acknowledged, or was not to be imported.
    imported: Place,
    /// Its first bytes: how many, and their SHA-256.
    head_bytes: usize,
    head_sha256: String,
    /// When this was written, in seconds since 1970-01-01 UTC.
    written_at: u64,
}

/// A file that says how far logs are imported.
#[derive(Clone, Debug)]
pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// In this file.
    #[must_use]
    pub fn at(path: PathBuf) -> StateFile {
        StateFile { path }
    }

    /// Beside a log.
    #[must_use]
    pub fn beside(log: &Path) -> StateFile {
        let mut path = log.as_os_str().to_owned();
        path.push(".faultline-import");
        StateFile { path: path.into() }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How far a log is imported.
    ///
    /// # Errors
    /// When the file cannot be used, or the log is not the one that it was.
    pub(crate) fn place_of(&self, log: &Log, source: Option<&str>) -> Result<Place, StateError> {
        let logs = self.read()?;
        let Some(entry) = logs.get(&key(log)) else {
            if logs.values().any(|entry| entry.log == log.name) {
                tracing::info!(log = log.name, "it begins otherwise than before: taken for another log, and imported from its first line");
            }
            return Ok(Place::default());
        };
        let head = log.head.get(..entry.head_bytes);
        if head.map(sha256) != Some(entry.head_sha256.clone()) {
            return Err(StateError::Other { log: log.name.clone(), source_name: source.unwrap_or_default().to_owned() });
        }
        if let Some(bytes) = log.length().filter(|bytes| *bytes < entry.imported.bytes) {
            return Err(StateError::Shorter { log: log.name.clone(), bytes, imported: entry.imported.bytes });
        }
        Ok(entry.imported)
    }

    fn read(&self) -> Result<BTreeMap<String, Entry>, StateError> {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(source) => return Err(StateError::Read { path: self.path.clone(), source }),
        };
        let wrong = |reason| StateError::Format { path: self.path.clone(), reason };
        let written: Written = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if written.version != VERSION {
            return Err(wrong(format!("it is of version {}, and this program knows {VERSION}", written.version)));
        }
        Ok(written.logs)
    }

    /// Makes what keeps how far a log is imported, which was found to be `from`.
    pub(crate) fn keeper(&self, log: &Log, from: Place) -> Keeper {
        let (head_bytes, head_sha256) = (log.head.len(), sha256(&log.head));
        let kept = (from > Place::default()).then_some(from);
        Keeper { file: self.clone(), key: key(log), log: log.name.clone(), head_bytes, head_sha256, kept }
    }

    fn write(&self, logs: BTreeMap<String, Entry>) -> io::Result<()> {
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = NamedTempFile::new_in(directory)?;
        file.write_all(serde_json::to_string_pretty(&Written { version: VERSION, logs })?.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        std::fs::File::open(directory)?.sync_all()
    }
}

/// Keeps how far one log is imported.
#[derive(Clone, Debug)]
pub(crate) struct Keeper {
    file: StateFile,
    key: String,
    log: String,
    head_bytes: usize,
    head_sha256: String,
    kept: Option<Place>,
}

impl Keeper {
    /// Keeps a place, unless that is done. Blocks until it is on the disk.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn keep(&mut self, imported: Place) -> Result<(), StateError> {
        if self.kept == Some(imported) {
            return Ok(());
        }
        let written_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        // Others may keep their logs in the same file. What they have written meanwhile and is lost is done again, and counted once.
        let mut logs = self.file.read()?;
        logs.retain(|_, entry| written_at.saturating_sub(entry.written_at) < REMEMBERED_S);
        let (head_bytes, head_sha256) = (self.head_bytes, self.head_sha256.clone());
        logs.insert(self.key.clone(), Entry { log: self.log.clone(), imported, head_bytes, head_sha256, written_at });
        self.file.write(logs).map_err(|source| StateError::Keep { path: self.file.path.clone(), source })?;
        self.kept = Some(imported);
        Ok(())
    }
}

fn key(log: &Log) -> String {
    format!("{:016x}", log.spool)
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Input, Known};

    fn log(directory: &Path, name: &str, content: &str, source: Option<&str>) -> Log {
        let path = directory.join(name);
        std::fs::write(&path, content).unwrap();
        Log::open(&Input::File(path), &Known { source: source.map(str::to_owned), is_finished: true }).unwrap()
    }

    #[test]
    fn a_place_is_found_again_by_what_the_log_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let state = StateFile::at(path.join("state"));
        let (one, other) = (log(path, "one", "one\n", None), log(path, "other", "other\n", None));
        assert_eq!(state.place_of(&one, None).unwrap(), Place::default());
        let place = Place { lines: 1, bytes: 4 };
        state.keeper(&one, Place::default()).keep(place).unwrap();
        state.keeper(&other, Place::default()).keep(Place { lines: 1, bytes: 6 }).unwrap();
        assert_eq!(state.place_of(&log(path, "renamed", "one\n", None), None).unwrap(), place);
        // Another log under the same name.
        assert_eq!(state.place_of(&log(path, "one", "two\n", None), None).unwrap(), Place::default());
        let names: Vec<_> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 4, "{names:?}");
    }

    #[test]
    fn a_log_that_is_not_what_it_was_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let state = StateFile::beside(&path.join("log"));
        assert!(state.path().ends_with("log.faultline-import"));
        let name = Some("switch-1");
        state.keeper(&log(path, "log", "one\n", name), Place::default()).keep(Place { lines: 2, bytes: 8 }).unwrap();
        let grown = log(path, "log", "one\ntwo\nthree\n", name);
        assert_eq!(state.place_of(&grown, name).unwrap().lines, 2);
        let shorter = state.place_of(&log(path, "log", "one\ntwo", name), name).unwrap_err().to_string();
        assert!(shorter.contains("has 7 bytes, and 8 were imported"), "{shorter}");
        let other = state.place_of(&log(path, "log", "two\nthree\nfour\n", name), name).unwrap_err().to_string();
        assert!(other.contains("`switch-1` (--source): another log needs another name"), "{other}");
    }

    #[test]
    fn a_file_that_is_something_else_is_named_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let log = log(path, "log", "one\n", None);
        for (text, said) in [("{", "EOF"), ("{\"version\":2,\"logs\":{}}", "it is of version 2"), ("[]", "invalid length")] {
            let state = StateFile::at(path.join("state"));
            std::fs::write(state.path(), text).unwrap();
            let error = state.place_of(&log, None).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("--state"), "{error}");
            assert!(state.keeper(&log, Place::default()).keep(Place::default()).is_err());
            assert_eq!(std::fs::read_to_string(state.path()).unwrap(), text);
        }
    }
}
