//! What the local parts are made of, and how they come onto the machine: Kafka's jars through Maven, ClickHouse's library through npm.
//!
//! Versions and SHA-256 sums are pinned in `deploy/parts/`, which is compiled in. A part is installed into a directory whose name carries a
//! digest of those pins, and gets that name only when it is complete and verified: a directory that exists is whole, a new pin makes a new
//! directory, and nothing is fetched when it is there.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::process::Command;

use crate::kafka;
use crate::progress::Progress;

const POM: &str = include_str!("../parts/kafka/pom.xml");
const LOG4J2: &str = include_str!("../parts/kafka/log4j2.properties");
const KAFKA_SUMS: &str = include_str!("../parts/kafka/SHA256SUMS");
const PACKAGE: &str = include_str!("../parts/clickhouse/package.json");
const PACKAGE_LOCK: &str = include_str!("../parts/clickhouse/package-lock.json");
const CLICKHOUSE_SUMS: &str = include_str!("../parts/clickhouse/SHA256SUMS");

/// Maven's goal that copies an artifact and all it depends on into one folder.
const COPY_DEPENDENCIES: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";
/// The oldest Java that runs the Kafka of `pom.xml`.
const JAVA_AT_LEAST: u32 = 17;
/// Lines of a failed command's output that its error shows.
const OUTPUT_LINES: usize = 15;

/// The parts of this machine, installed and verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    pub(crate) kafka: PathBuf,
    pub(crate) java: PathBuf,
    pub(crate) clickhouse_library: PathBuf,
}

/// Why the parts are not installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// There is no build of a part for this kind of machine.
    #[error("the local parts run on Linux on x86-64 only; on this machine, point --kafka and --clickhouse at servers that run elsewhere")]
    Platform,
    /// No home directory, so no cache directory.
    #[error("there is no cache directory: {0}; set `local.parts_dir` or --parts-dir")]
    NoCache(String),
    /// A part is missing and was not to be fetched.
    #[error("{part} is not installed in {}; `faultline parts` installs it", cache.display())]
    Missing {
        /// What is missing.
        part: &'static str,
        /// Where it was looked for.
        cache: PathBuf,
    },
    /// A program that the installation needs is missing.
    #[error("`{program}` is needed to {purpose}, and was not found; `make setup` installs it")]
    Program {
        /// The program.
        program: &'static str,
        /// What for.
        purpose: &'static str,
    },
    /// Java is too old, or does not say how old it is.
    #[error("Kafka needs Java {JAVA_AT_LEAST} or newer; `{} -version` says: {says}", java.display())]
    Java {
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
        status: std::process::ExitStatus,
        /// The end of what it printed.
        output: String,
    },
    /// What arrived is not what is pinned.
    #[error("{} is not the file that is pinned: {reason}; nothing was installed", file.display())]
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

fn at(path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    let path = path.to_path_buf();
    move |source| InstallError::Io { path, source }
}

impl Parts {
    /// Finds the parts in `cache`, and fetches nothing.
    ///
    /// # Errors
    /// When one is not there, or Java is missing or too old.
    pub async fn find(cache: &Path) -> Result<Parts, InstallError> {
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            return Err(InstallError::Platform);
        }
        let java = java().await?;
        let kafka = kafka_directory(cache);
        let clickhouse_library = clickhouse_directory(cache).join(clickhouse_library()?);
        for (part, path) in [("Kafka", &kafka), ("ClickHouse", &clickhouse_library)] {
            if !path.exists() {
                return Err(InstallError::Missing { part, cache: cache.to_path_buf() });
            }
        }
        Ok(Parts { kafka, java, clickhouse_library })
    }

    /// Finds the parts in `cache`, and first fetches, verifies and installs what is not there. Safe to run twice at the same time.
    ///
    /// # Errors
    /// When a program is missing, a registry does not answer, or what arrives is not what is pinned.
    pub async fn install(cache: &Path) -> Result<Parts, InstallError> {
        match Parts::find(cache).await {
            Err(InstallError::Missing { .. }) => {}
            found => return found,
        }
        fs::create_dir_all(cache).map_err(at(cache))?;
        let lock_path = cache.join("lock");
        let lock = File::create(&lock_path).map_err(at(&lock_path))?;
        // Another installation may be under way; when it is done there is nothing left to do here.
        tokio::task::spawn_blocking(move || lock.lock().map(|()| lock))
            .await
            .map_err(io::Error::other)
            .flatten()
            .map_err(at(&lock_path))?;
        install_kafka(cache).await?;
        install_clickhouse(cache).await?;
        Parts::find(cache).await
    }
}

fn kafka_directory(cache: &Path) -> PathBuf {
    cache.join(format!("kafka-{}", pins(&[POM, LOG4J2, KAFKA_SUMS])))
}

fn clickhouse_directory(cache: &Path) -> PathBuf {
    cache.join(format!("clickhouse-{}", pins(&[PACKAGE, PACKAGE_LOCK, CLICKHOUSE_SUMS])))
}

/// The library's place in ClickHouse's directory: the one file that is pinned there.
fn clickhouse_library() -> Result<PathBuf, InstallError> {
    sums(CLICKHOUSE_SUMS).next().map(|(_, file)| PathBuf::from(file)).ok_or(InstallError::Platform)
}

/// A short digest of everything that pins a part.
fn pins(texts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for text in texts {
        digest.update(text.len().to_le_bytes());
        digest.update(text);
    }
    let mut name = hex::encode(digest.finalize());
    name.truncate(12);
    name
}

async fn install_kafka(cache: &Path) -> Result<(), InstallError> {
    let directory = kafka_directory(cache);
    if directory.exists() {
        return Ok(());
    }
    require("mvn", "fetch Kafka")?;
    let partial = Partial::create(cache, "kafka")?;
    partial.write("pom.xml", POM)?;
    partial.write("log4j2.properties", LOG4J2)?;
    let mut command = Command::new("mvn");
    command.args(["-B", "-q", COPY_DEPENDENCIES, "-DoutputDirectory=libs", "-DincludeScope=runtime"]);
    partial.fetch("fetching Kafka through Maven", command).await?;
    partial.verify("libs", KAFKA_SUMS)?;
    partial.complete(&directory)?;
    kafka::archive_classes(&directory, &java().await?).await;
    Ok(())
}

async fn install_clickhouse(cache: &Path) -> Result<(), InstallError> {
    let directory = clickhouse_directory(cache);
    if directory.exists() {
        return Ok(());
    }
    require("npm", "fetch ClickHouse")?;
    let partial = Partial::create(cache, "clickhouse")?;
    partial.write("package.json", PACKAGE)?;
    partial.write("package-lock.json", PACKAGE_LOCK)?;
    let mut command = Command::new("npm");
    command.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]);
    partial.fetch("fetching ClickHouse through npm", command).await?;
    partial.verify(".", CLICKHOUSE_SUMS)?;
    partial.complete(&directory)
}

/// A part on its way in: a directory that is removed unless it is completed.
struct Partial {
    directory: tempfile::TempDir,
}

impl Partial {
    fn create(cache: &Path, name: &str) -> Result<Partial, InstallError> {
        let directory = tempfile::Builder::new().prefix(&format!("{name}-partial-")).tempdir_in(cache).map_err(at(cache))?;
        Ok(Partial { directory })
    }

    fn write(&self, name: &str, content: &str) -> Result<(), InstallError> {
        let path = self.directory.path().join(name);
        fs::write(&path, content).map_err(at(&path))
    }

    /// Runs a package manager in the directory, and shows how much has arrived there.
    async fn fetch(&self, what: &str, mut command: Command) -> Result<(), InstallError> {
        let mut progress = Progress::begin(what);
        let running = command.current_dir(self.directory.path()).stdin(Stdio::null()).kill_on_drop(true).output();
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

    /// Compares every file that is pinned with its checksum, and refuses a file beside them that is not pinned.
    fn verify(&self, subdirectory: &str, pinned: &str) -> Result<(), InstallError> {
        verify(&self.directory.path().join(subdirectory), pinned)
    }

    fn complete(self, directory: &Path) -> Result<(), InstallError> {
        let partial = self.directory.keep();
        fs::rename(&partial, directory).map_err(at(directory))
    }
}

fn verify(directory: &Path, pinned: &str) -> Result<(), InstallError> {
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
fn sums(text: &str) -> impl Iterator<Item = (&str, &str)> {
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

/// The Java of this machine, by the usual rule: `$JAVA_HOME`, else the search path.
async fn java() -> Result<PathBuf, InstallError> {
    let java = match std::env::var_os("JAVA_HOME") {
        Some(home) => PathBuf::from(home).join("bin/java"),
        None => require("java", "run Kafka")?,
    };
    let output = Command::new(&java).arg("-version").stdin(Stdio::null()).output().await.map_err(at(&java))?;
    let says = String::from_utf8_lossy(&output.stderr).into_owned();
    match java_version(&says) {
        Some(version) if version >= JAVA_AT_LEAST => Ok(java),
        _ => Err(InstallError::Java { java, says: says.lines().next().unwrap_or_default().into() }),
    }
}

/// Reads the feature release out of `openjdk version "17.0.15" 2025-04-15` or, until Java 8, `java version "1.8.0_292"`.
fn java_version(says: &str) -> Option<u32> {
    let version = says.split('"').nth(1)?;
    let mut numbers = version.split(['.', '-', '+', '_']).map(str::parse);
    match numbers.next()?.ok()? {
        1 => numbers.next()?.ok(),
        feature => Some(feature),
    }
}

fn require(program: &'static str, purpose: &'static str) -> Result<PathBuf, InstallError> {
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
        let message = verify(directory.path(), &pinned).unwrap_err().to_string();
        assert!(message.contains("b.jar") && message.contains("No such file"), "{message}");
        fs::write(directory.path().join("b.jar"), "").unwrap();
        fs::write(directory.path().join("README.md"), "does no harm").unwrap();
        verify(directory.path(), &pinned).unwrap();
        fs::write(directory.path().join("c.jar"), "").unwrap();
        let message = verify(directory.path(), &pinned).unwrap_err().to_string();
        assert!(message.contains("c.jar") && message.contains("not pinned"), "{message}");
        fs::write(directory.path().join("b.jar"), "changed").unwrap();
        let message = verify(directory.path(), &pinned).unwrap_err().to_string();
        assert!(message.contains("b.jar") && message.contains("SHA-256"), "{message}");
    }

    #[test]
    fn every_version_is_pinned_by_checksum() {
        let jars: Vec<_> = sums(KAFKA_SUMS).collect();
        assert!(jars.iter().any(|(_, name)| *name == "kafka_2.13-4.3.1.jar"), "the broker itself is missing from {jars:?}");
        assert!(jars.iter().chain(&sums(CLICKHOUSE_SUMS).collect::<Vec<_>>()).all(|(sum, _)| sum.len() == 64));
    }

    #[test]
    fn java_says_its_version_in_two_ways() {
        assert_eq!(java_version("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime"), Some(17));
        assert_eq!(java_version("openjdk version \"21-ea\" 2023-09-19"), Some(21));
        assert_eq!(java_version("java version \"1.8.0_292\""), Some(8));
        assert_eq!(java_version("sh: java: not found"), None);
    }
}
