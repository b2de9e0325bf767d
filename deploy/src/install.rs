//! Bringing a part onto the machine: fetched by a package manager into a directory of its own, verified against pinned SHA-256 sums, and given
//! its name only then. A directory under its name is whole, and nothing is fetched when it is there.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::process::Command;

use crate::progress::Progress;

/// What the name of a directory has in it while a part is on its way in.
const PARTIAL: &str = "-partial-";
/// Lines of a failed command's output that its error shows.
const OUTPUT_LINES: usize = 15;

/// Why the parts are not installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// There is no build of a part for this kind of machine.
    #[error("the local parts run on Linux on x86-64 only; on this machine, point --kafka and --clickhouse at servers that run elsewhere")]
    Platform,
    /// No home directory, so no cache directory.
    #[error("there is no cache directory: {0}; set `local.parts_dir` or --parts-dir")]
    NoCache(String),
    /// A path that Java cannot be given.
    #[error("the parts directory {} (`local.parts_dir`, --parts-dir) has a colon in its name, which Java takes for the end of a path", .0.display())]
    Colon(PathBuf),
    /// A part is missing and was not to be fetched.
    #[error("{part} is not installed in {}; `faultline parts` installs it", cache.display())]
    Missing {
        /// What is missing.
        part: &'static str,
        /// Where it was looked for.
        cache: PathBuf,
    },
    /// A program that the installation needs is missing.
    #[error("`{program}` is needed to {purpose}, and is not on the search path; `make setup` installs it, and `make run` finds it there")]
    Program {
        /// The program.
        program: &'static str,
        /// What for.
        purpose: &'static str,
    },
    /// `$JAVA_HOME` points nowhere.
    #[error("$JAVA_HOME has no Java: {} does not exist", .0.display())]
    JavaHome(PathBuf),
    /// Java is too old, or does not say how old it is.
    #[error("Kafka needs Java {at_least} or newer; `{} -version` says: {says}", java.display())]
    Java {
        /// The oldest that will do.
        at_least: u32,
        /// The program that was asked.
        java: PathBuf,
        /// Its answer.
        says: String,
    },
    /// A program failed.
    #[error("`{command}` failed ({status}):\n{output}")]
    Failed {
        /// What was run.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it printed.
        output: String,
    },
    /// What arrived is not what is pinned.
    #[error("{} is not the file that is pinned: {reason}", file.display())]
    Checksum {
        /// The file.
        file: PathBuf,
        /// What differs.
        reason: String,
    },
    /// A file operation failed.
    #[error("{}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> InstallError + use<> {
    let path = path.to_path_buf();
    move |source| InstallError::Io { path, source }
}

/// A short digest of everything that pins a part, for its directory's name: a new pin makes a new directory.
pub(crate) fn pins(texts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for text in texts {
        digest.update(text.len().to_le_bytes());
        digest.update(text);
    }
    let mut name = hex::encode(digest.finalize());
    name.truncate(12);
    name
}

/// A part on its way in: a directory that is removed unless it is completed.
pub(crate) struct Partial {
    directory: tempfile::TempDir,
}

impl Partial {
    pub(crate) fn create(cache: &Path, name: &str) -> Result<Partial, InstallError> {
        let directory = tempfile::Builder::new().prefix(&format!("{name}{PARTIAL}")).tempdir_in(cache).map_err(at(cache))?;
        Ok(Partial { directory })
    }

    pub(crate) fn write(&self, name: &str, content: &str) -> Result<(), InstallError> {
        let path = self.directory.path().join(name);
        fs::write(&path, content).map_err(at(&path))
    }

    /// Runs a package manager in the directory, and shows how much has arrived there.
    pub(crate) async fn fetch(&self, what: &str, mut command: Command) -> Result<(), InstallError> {
        let mut progress = Progress::begin(what);
        let running = command.current_dir(self.directory.path()).stdin(Stdio::null()).output();
        tokio::pin!(running);
        let output = loop {
            tokio::select! {
                output = &mut running => break output,
                () = tokio::time::sleep(Duration::from_millis(250)) => progress.bytes(size_of_directory(self.directory.path())),
            }
        };
        let line = format!("{:?}", command.as_std()).replace('"', "");
        checked(line, output.map_err(at(self.directory.path()))?)?;
        progress.end();
        Ok(())
    }

    pub(crate) async fn verify(&self, subdirectory: &str, pinned: &'static str) -> Result<(), InstallError> {
        verify(&self.directory.path().join(subdirectory), pinned).await
    }

    pub(crate) fn complete(self, directory: &Path) -> Result<(), InstallError> {
        fs::rename(self.directory.path(), directory).map_err(at(directory))?;
        let _ = self.directory.keep();
        Ok(())
    }
}

/// Keeps other installations out until it is dropped.
#[derive(Debug)]
pub(crate) struct CacheLock {
    _file: File,
}

impl CacheLock {
    /// Waits while another installation is under way, then removes what killed ones left behind.
    pub(crate) async fn take(cache: &Path) -> Result<CacheLock, InstallError> {
        fs::create_dir_all(cache).map_err(at(cache))?;
        let path = cache.join("lock");
        let file = File::create(&path).map_err(at(&path))?;
        let mut said = false;
        while let Err(error) = file.try_lock() {
            if let TryLockError::Error(source) = error {
                return Err(at(&path)(source));
            }
            if !said {
                tracing::info!("waiting for another installation");
                said = true;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for entry in fs::read_dir(cache).map_err(at(cache))?.flatten() {
            if entry.file_name().to_string_lossy().contains(PARTIAL) {
                fs::remove_dir_all(entry.path()).map_err(at(&entry.path()))?;
            }
        }
        Ok(CacheLock { _file: file })
    }
}

/// Whether every pinned file is there and has something in it: what can be asked at every start. [`verify`] looks closer.
pub(crate) fn is_complete(directory: &Path, pinned: &str) -> bool {
    sums(pinned).all(|(_, name)| fs::metadata(directory.join(name)).is_ok_and(|file| file.len() > 0))
}

/// Compares every file that is pinned with its checksum, and refuses code beside them that is not pinned.
pub(crate) async fn verify(directory: &Path, pinned: &'static str) -> Result<(), InstallError> {
    let directory = directory.to_path_buf();
    let unreadable = at(&directory);
    let verified = tokio::task::spawn_blocking(move || verify_blocking(&directory, pinned)).await;
    verified.map_err(|error| unreadable(io::Error::other(error)))?
}

fn verify_blocking(directory: &Path, pinned: &str) -> Result<(), InstallError> {
    let refused = |file: &Path, reason: String| InstallError::Checksum { file: file.to_path_buf(), reason };
    let mut folders = BTreeSet::new();
    let mut files = BTreeSet::new();
    for (sum, name) in sums(pinned) {
        let path = directory.join(name);
        let file = File::open(&path).map_err(|error| refused(&path, error.to_string()))?;
        let found = sha256(file).map_err(at(&path))?;
        if found != sum {
            return Err(refused(&path, format!("SHA-256 is {found}, pinned is {sum}")));
        }
        folders.extend(path.parent().map(Path::to_path_buf));
        files.insert(path);
    }
    // Only code is looked for: a manifest beside it does no harm, another jar or library would be loaded.
    for folder in folders {
        for entry in fs::read_dir(&folder).map_err(at(&folder))? {
            let path = entry.map_err(at(&folder))?.path();
            let is_code = path.extension().is_some_and(|extension| extension == "jar" || extension == "so");
            if is_code && !files.contains(&path) {
                return Err(refused(&path, "it is not pinned at all".into()));
            }
        }
    }
    Ok(())
}

fn sha256(mut file: File) -> io::Result<String> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(digest.finalize())),
            length => digest.update(buffer.get(..length).unwrap_or_default()),
        }
    }
}

/// The lines of a file in the format of `sha256sum`: checksum and name.
pub(crate) fn sums(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| line.split_once("  "))
}

fn size_of_directory(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size_of_directory(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Finds a program on the search path.
pub(crate) fn require(program: &'static str, purpose: &'static str) -> Result<PathBuf, InstallError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
        .ok_or(InstallError::Program { program, purpose })
}

/// Turns a command that failed into an error with the end of what it printed.
pub(crate) fn checked(command: String, output: Output) -> Result<Output, InstallError> {
    if output.status.success() {
        return Ok(output);
    }
    let printed = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let printed = String::from_utf8_lossy(&printed);
    let lines: Vec<&str> = printed.lines().filter(|line| !line.trim().is_empty()).collect();
    let output_end = lines.get(lines.len().saturating_sub(OUTPUT_LINES)..).unwrap_or_default().join("\n");
    Err(InstallError::Failed { command, status: output.status, output: output_end })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_changed_a_missing_and_an_unlisted_file_are_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let pinned = format!("{EMPTY}  a.jar\n{EMPTY}  b.jar\n");
        fs::write(directory.path().join("a.jar"), "").unwrap();
        let message = verify_blocking(directory.path(), &pinned).unwrap_err().to_string();
        assert!(message.contains("b.jar") && message.contains("No such file"), "{message}");
        fs::write(directory.path().join("b.jar"), "").unwrap();
        fs::write(directory.path().join("README.md"), "does no harm").unwrap();
        verify_blocking(directory.path(), &pinned).unwrap();
        fs::write(directory.path().join("c.jar"), "").unwrap();
        let message = verify_blocking(directory.path(), &pinned).unwrap_err().to_string();
        assert!(message.contains("c.jar") && message.contains("not pinned"), "{message}");
        fs::write(directory.path().join("b.jar"), "changed").unwrap();
        let message = verify_blocking(directory.path(), &pinned).unwrap_err().to_string();
        assert!(message.contains("b.jar") && message.contains("SHA-256"), "{message}");
    }

    #[tokio::test]
    async fn one_installation_at_a_time_and_leftovers_are_swept() {
        let cache = tempfile::tempdir().unwrap();
        let leftover = cache.path().join("kafka-partial-killed");
        fs::create_dir(&leftover).unwrap();
        let whole = cache.path().join("kafka-0123456789ab");
        fs::create_dir(&whole).unwrap();
        let first = CacheLock::take(cache.path()).await.unwrap();
        assert!(!leftover.exists() && whole.exists());
        let second = tokio::time::timeout(Duration::from_millis(300), CacheLock::take(cache.path())).await;
        assert!(second.is_err(), "the lock was taken twice");
        drop(first);
        CacheLock::take(cache.path()).await.unwrap();
    }

    #[test]
    fn an_empty_file_is_not_a_part() {
        let directory = tempfile::tempdir().unwrap();
        let pinned = format!("{EMPTY}  a.jar\n");
        assert!(!is_complete(directory.path(), &pinned));
        fs::write(directory.path().join("a.jar"), "").unwrap();
        assert!(!is_complete(directory.path(), &pinned));
        fs::write(directory.path().join("a.jar"), "something").unwrap();
        assert!(is_complete(directory.path(), &pinned));
    }
}
