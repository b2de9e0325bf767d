//! ClickHouse: the library that carries it through npm, and one server on the loopback interface.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Duration;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::install::{self, InstallError, Partial, is_complete, pins, require, sums};
use crate::supervisor::{ChildSpec, guarded};

const PACKAGE: &str = include_str!("../parts/clickhouse/package.json");
const PACKAGE_LOCK: &str = include_str!("../parts/clickhouse/package-lock.json");
const SUMS: &str = include_str!("../parts/clickhouse/SHA256SUMS");

/// What a server logs itself, in its own directory.
const LOG: &str = "clickhouse.log";
/// What of the disk the server leaves free: on a full one, this build says that it stored rows and did not.
const KEPT_FREE_BYTES: u64 = 128 << 20;
/// The user that Faultline connects as.
const USER: &str = "faultline";

fn directory(cache: &Path) -> PathBuf {
    cache.join(format!("clickhouse-{}", pins(&[PACKAGE, PACKAGE_LOCK, SUMS])))
}

/// Finds the installed library: the one file that is pinned.
pub(crate) fn find(cache: &Path) -> Result<PathBuf, InstallError> {
    let directory = directory(cache);
    let library = sums(SUMS).next().map(|(_, file)| directory.join(file));
    library.filter(|_| is_complete(&directory, SUMS)).ok_or(InstallError::Missing { part: "ClickHouse", cache: cache.to_path_buf() })
}

/// Fetches and verifies ClickHouse, unless it is there. Under the lock of the cache.
pub(crate) async fn install(cache: &Path) -> Result<(), InstallError> {
    let directory = directory(cache);
    if is_complete(&directory, SUMS) {
        return Ok(());
    }
    require("npm", "fetch ClickHouse")?;
    let partial = Partial::create(cache, "clickhouse")?;
    partial.write("package.json", PACKAGE)?;
    partial.write("package-lock.json", PACKAGE_LOCK)?;
    let mut command = guarded("npm");
    command.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]);
    partial.fetch("fetching ClickHouse through npm", command).await?;
    partial.verify(".", SUMS).await?;
    partial.complete(&directory)
}

/// Compares the library with its checksum.
pub(crate) async fn verify(cache: &Path) -> Result<(), InstallError> {
    install::verify(&directory(cache), SUMS).await
}

/// How to reach a local ClickHouse.
#[derive(Clone)]
pub struct ClickHouseAccess {
    /// Address of its HTTP interface.
    pub url: String,
    /// User with all rights on it.
    pub user: String,
    /// That user's password.
    pub password: String,
    /// The file, readable by its owner only, that the password is in.
    pub password_file: PathBuf,
}

impl std::fmt::Debug for ClickHouseAccess {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ClickHouseAccess").field("url", &self.url).field("user", &self.user).finish_non_exhaustive()
    }
}

/// A server's place and ports.
#[derive(Debug)]
pub(crate) struct Server<'a> {
    /// The faultline program, which has the server's launcher in it.
    pub(crate) program: &'a Path,
    /// The library that carries the server.
    pub(crate) library: &'a Path,
    /// Where it keeps its data and its configuration. It runs in there and is given relative paths, which need no quoting.
    pub(crate) directory: PathBuf,
    pub(crate) http_port: u16,
    pub(crate) native_port: u16,
    pub(crate) memory_mib: u32,
}

impl Server<'_> {
    /// Writes the configuration and, in a new directory, draws the password.
    pub(crate) fn prepare(&self) -> io::Result<ClickHouseAccess> {
        fs::create_dir_all(&self.directory)?;
        let password_file = self.directory.join("password");
        let password = match fs::read_to_string(&password_file) {
            Ok(password) if !password.trim().is_empty() => password.trim().to_owned(),
            _ => {
                let password = Uuid::new_v4().simple().to_string();
                write_private(&password_file, &password)?;
                password
            }
        };
        write_private(&self.directory.join("users.xml"), &users(&password))?;
        fs::write(self.directory.join("config.xml"), self.settings())?;
        let url = format!("http://127.0.0.1:{}", self.http_port);
        Ok(ClickHouseAccess { url, user: USER.into(), password, password_file })
    }

    /// The server as a child process.
    pub(crate) fn child(&self) -> ChildSpec {
        ChildSpec {
            name: "ClickHouse",
            program: self.program.to_path_buf(),
            arguments: vec!["clickhouse-server".into(), self.library.into(), self.directory.clone().into()],
            directory: self.directory.clone(),
            output: self.directory.join("clickhouse.out"),
            log: self.directory.join(LOG),
            grace: Duration::from_secs(20),
        }
    }

    fn settings(&self) -> String {
        // The system logs are in memory: this build does not keep its `system` database, and on-disk logs of an earlier run hinder the next.
        let in_memory = "<engine>ENGINE = Memory SETTINGS min_rows_to_keep = 1000, max_rows_to_keep = 100000</engine>\
            <flush_interval_milliseconds>1000</flush_interval_milliseconds>";
        let memory = u64::from(self.memory_mib) * 1024 * 1024;
        format!(
            "<!-- Written by faultline at every start. -->
<clickhouse>
  <logger><log>{LOG}</log><size>20M</size><count>2</count></logger>
  <path>data/</path>
  <users_config>users.xml</users_config>
  <listen_host>127.0.0.1</listen_host>
  <http_port>{http}</http_port>
  <tcp_port>{native}</tcp_port>
  <storage_configuration><disks><default><keep_free_space_bytes>{KEPT_FREE_BYTES}</keep_free_space_bytes></default></disks></storage_configuration>
  <max_server_memory_usage>{memory}</max_server_memory_usage>
  <background_pool_size>{merging}</background_pool_size>
  <background_merges_mutations_concurrency_ratio>8</background_merges_mutations_concurrency_ratio>
  <background_merges_mutations_scheduling_policy>shortest_task_first</background_merges_mutations_scheduling_policy>
  <query_log><database>system</database><table>query_log</table>{in_memory}</query_log>
  <part_log><database>system</database><table>part_log</table>{in_memory}</part_log>
  <http_handlers>
    <rule><url>/metrics</url><handler><type>prometheus</type><metrics>true</metrics><events>true</events></handler></rule>
    <defaults/>
  </http_handlers>
</clickhouse>
",
            http = self.http_port,
            native = self.native_port,
            merging = merging_threads(),
        )
    }
}

/// Threads that merge what was inserted: no more than half of the processors, or what has piled up would be counted later for the sake of merges that can wait. Merges take turns, small ones
/// first, so that a large one holds nobody up.
fn merging_threads() -> usize {
    available_parallelism().map_or(1, |processors| (processors.get() / 2).max(1))
}

/// `default` is the user as whom the launcher's own queries run, so it must exist without a password. It may open the listeners and
/// discard rows, and reads no table and no file. (It may close the listeners too, so that someone with a login on this machine could take
/// ClickHouse off the air; the two rights are one.)
fn users(password: &str) -> String {
    let digest = hex::encode(Sha256::digest(password));
    format!(
        "<!-- Written by faultline at every start. -->
<clickhouse>
  <profiles><default/></profiles>
  <quotas><default/></quotas>
  <users>
    <default>
      <password/>
      <networks><ip>127.0.0.1</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
      <grants><query>GRANT SYSTEM LISTEN ON *.*</query><query>GRANT CREATE TEMPORARY TABLE ON *.*</query></grants>
    </default>
    <{USER}>
      <password_sha256_hex>{digest}</password_sha256_hex>
      <networks><ip>127.0.0.1</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
    </{USER}>
  </users>
</clickhouse>
"
    )
}

fn write_private(path: &Path, content: &str) -> io::Result<()> {
    OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?.write_all(content.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_password_is_drawn_once_kept_private_and_shown_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        let server = Server {
            program: Path::new("faultline"),
            library: Path::new("libchdb.so"),
            directory: directory.path().join("clickhouse"),
            http_port: 1,
            native_port: 2,
            memory_mib: 1,
        };
        let access = server.prepare().unwrap();
        assert_eq!(server.prepare().unwrap().password, access.password);
        assert_eq!(fs::metadata(&access.password_file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!format!("{access:?}").contains(&access.password));
        for file in ["config.xml", "users.xml"] {
            assert!(!fs::read_to_string(server.directory.join(file)).unwrap().contains(&access.password));
        }
    }
}
