//! Kafka and ClickHouse of one data directory.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use serde::{Deserialize, Serialize};

use crate::clickhouse::{ClickHouseAccess, Server};
use crate::install::InstallError;
use crate::kafka::{Node, NodePorts, new_cluster_id};
use crate::parts::Parts;
use crate::supervisor::{GaveUp, Supervisor};

/// Settings of the local parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LocalConfig {
    /// Where Kafka and ClickHouse keep their data. Empty: `faultline` in the user's data directory.
    pub data_dir: PathBuf,
    /// Where the programs of Kafka and ClickHouse are kept. Empty: `faultline/parts` in the user's cache directory.
    pub parts_dir: PathBuf,
    /// Port of Kafka's clients.
    pub kafka_port: u16,
    /// Port of Kafka's controller.
    pub kafka_controller_port: u16,
    /// Partitions of the outcomes topic. Fixed for the life of the data directory.
    pub kafka_partitions: u32,
    /// Java heap of Kafka, in MiB.
    pub kafka_heap_mib: u32,
    /// Port of ClickHouse's HTTP interface.
    pub clickhouse_http_port: u16,
    /// Port of ClickHouse's native interface.
    pub clickhouse_native_port: u16,
    /// Most memory that ClickHouse takes, in MiB.
    pub clickhouse_memory_mib: u32,
}

impl Default for LocalConfig {
    /// Ports below 32768, where Linux takes the ports of outgoing connections from.
    fn default() -> Self {
        LocalConfig {
            data_dir: PathBuf::new(),
            parts_dir: PathBuf::new(),
            kafka_port: 19092,
            kafka_controller_port: 19093,
            kafka_partitions: 4,
            kafka_heap_mib: 512,
            clickhouse_http_port: 18123,
            clickhouse_native_port: 19000,
            clickhouse_memory_mib: 4096,
        }
    }
}

/// Which of the parts to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Kafka.
    pub kafka: bool,
    /// ClickHouse.
    pub clickhouse: bool,
}

/// Why the local parts were not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no place for the data.
    #[error("there is no data directory: {0}; set `local.data_dir` or --data-dir")]
    NoDataDirectory(String),
    /// The data directory cannot be used.
    #[error("the data directory {} (`local.data_dir`, --data-dir) cannot be used", path.display())]
    DataDirectory {
        /// The file or directory that was to be written.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// Someone runs on the data directory already.
    #[error("the data directory {} is in use by another faultline{holder}; stop it, or take another directory with --data-dir", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Its process id, when it says so.
        holder: String,
    },
    /// A port is taken.
    #[error("port {port} for {what} is taken; choose another with `local.{key}`")]
    Port {
        /// The port.
        port: u16,
        /// What it is for.
        what: &'static str,
        /// The key that sets it.
        key: &'static str,
        /// What happened.
        source: io::Error,
    },
    /// Port 0 stands for any port, and then nobody would know which.
    #[error("`local.{key}` is 0; it must be a port that clients can know")]
    NoPort {
        /// The key.
        key: &'static str,
    },
    /// Two keys name one port.
    #[error("`local.{first}` and `local.{second}` are both {port}; they must differ")]
    SamePort {
        /// One of the keys.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// The port.
        port: u16,
    },
    /// A part could not be prepared.
    #[error(transparent)]
    Part(#[from] InstallError),
    /// The supervisor could not be started.
    #[error("cannot supervise child processes")]
    Supervisor(#[source] io::Error),
}

impl LocalConfig {
    /// The data directory: as configured, else `faultline` in the user's data directory (`$XDG_DATA_HOME`, else `~/.local/share`).
    ///
    /// # Errors
    /// When none is configured and the user has no home directory.
    pub fn data_directory(&self) -> Result<PathBuf, StartError> {
        if !self.data_dir.as_os_str().is_empty() {
            return std::path::absolute(&self.data_dir).map_err(|source| StartError::DataDirectory { path: self.data_dir.clone(), source });
        }
        let base = etcetera::choose_base_strategy().map_err(|error| StartError::NoDataDirectory(error.to_string()))?;
        Ok(base.data_dir().join("faultline"))
    }

    /// Where the parts are installed: as configured, else `faultline/parts` in the user's cache directory (`$XDG_CACHE_HOME`, else
    /// `~/.cache`).
    ///
    /// # Errors
    /// When none is configured and the user has no home directory.
    pub fn parts_directory(&self) -> Result<PathBuf, InstallError> {
        if !self.parts_dir.as_os_str().is_empty() {
            return std::path::absolute(&self.parts_dir).map_err(|source| InstallError::Io { path: self.parts_dir.clone(), source });
        }
        let base = etcetera::choose_base_strategy().map_err(|error| InstallError::NoCache(error.to_string()))?;
        Ok(base.cache_dir().join("faultline").join("parts"))
    }

    /// Whether the ports of `parts` are free, and each is named once.
    fn check_ports(&self, parts: &Parts) -> Result<(), StartError> {
        let kafka = [(self.kafka_port, "Kafka", "kafka_port"), (self.kafka_controller_port, "Kafka's controller", "kafka_controller_port")];
        let clickhouse = [
            (self.clickhouse_http_port, "ClickHouse's HTTP interface", "clickhouse_http_port"),
            (self.clickhouse_native_port, "ClickHouse's native interface", "clickhouse_native_port"),
        ];
        let kafka = kafka.iter().filter(|_| parts.kafka.is_some());
        let clickhouse = clickhouse.iter().filter(|_| parts.clickhouse.is_some());
        let mut taken = BTreeMap::new();
        for &(port, what, key) in kafka.chain(clickhouse) {
            check_port(port, what, key)?;
            if let Some(first) = taken.insert(port, key) {
                return Err(StartError::SamePort { first, second: key, port });
            }
        }
        Ok(())
    }
}

/// Kafka and ClickHouse as supervised child processes. They end with the process that holds this, however that ends.
#[derive(Debug)]
pub struct LocalParts {
    supervisor: Supervisor,
    kafka_brokers: Option<String>,
    clickhouse: Option<ClickHouseAccess>,
    /// Keeps others from the data directory.
    _lock: File,
}

impl LocalParts {
    /// Starts `parts` on the configured data directory and ports. They may take seconds to answer.
    ///
    /// `program` is the faultline executable: it has the launcher of the ClickHouse server in it.
    ///
    /// # Errors
    /// When the data directory is in use or not writable, a port is taken, or a part's storage cannot be prepared.
    pub async fn start(config: &LocalConfig, parts: &Parts, program: &Path) -> Result<LocalParts, StartError> {
        let directory = config.data_directory()?;
        let unusable = |source| StartError::DataDirectory { path: directory.clone(), source };
        // Others on this machine have no business in there.
        DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(unusable)?;
        // The lock first: who runs on this directory already has its ports too, and is the better explanation.
        let lock = lock(&directory)?;
        config.check_ports(parts)?;

        let mut children = Vec::new();
        let mut kafka_brokers = None;
        if let Some(program) = &parts.kafka {
            let ports = NodePorts::new(config.kafka_port, config.kafka_controller_port);
            let directory = directory.join("kafka");
            let cluster = std::slice::from_ref(&ports);
            let node = Node { program, id: 1, ports: &ports, cluster, directory, heap_mib: config.kafka_heap_mib };
            node.prepare(&new_cluster_id()).await?;
            kafka_brokers = Some(format!("127.0.0.1:{}", config.kafka_port));
            children.push(node.child());
        }
        let mut clickhouse = None;
        if let Some(library) = &parts.clickhouse {
            let server = Server {
                program,
                library,
                directory: directory.join("clickhouse"),
                http_port: config.clickhouse_http_port,
                native_port: config.clickhouse_native_port,
                memory_mib: config.clickhouse_memory_mib,
            };
            clickhouse = Some(server.prepare().map_err(unusable)?);
            children.push(server.child());
        }
        let supervisor = Supervisor::start(children).map_err(StartError::Supervisor)?;
        Ok(LocalParts { supervisor, kafka_brokers, clickhouse, _lock: lock })
    }

    /// Address of the local Kafka, if it was wanted.
    #[must_use]
    pub fn kafka_brokers(&self) -> Option<&str> {
        self.kafka_brokers.as_deref()
    }

    /// How to reach the local ClickHouse, if it was wanted.
    #[must_use]
    pub fn clickhouse(&self) -> Option<&ClickHouseAccess> {
        self.clickhouse.as_ref()
    }

    /// Waits until a part died too often to be kept running.
    pub async fn gave_up(&self) -> GaveUp {
        self.supervisor.gave_up().await
    }

    /// Stops the parts: asks, waits up to 20 s, kills. Returns when they have ended.
    pub async fn stop(self) {
        self.supervisor.stop().await;
    }

    /// Kills the parts, as the loss of their machine would (SIGKILL). Returns when they have ended.
    pub async fn kill(self) {
        self.supervisor.kill().await;
    }
}

/// Takes the data directory. The lock goes with the process, so a killed one leaves no stale lock.
pub(crate) fn lock(directory: &Path) -> Result<File, StartError> {
    let path = directory.join("lock");
    let unusable = |source| StartError::DataDirectory { path: path.clone(), source };
    let mut file = File::options().create(true).read(true).write(true).truncate(false).open(&path).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::Error(source)) => return Err(unusable(source)),
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let said = file.read_to_string(&mut pid).is_ok() && !pid.is_empty();
            let holder = if said { format!(" (process {})", pid.trim()) } else { String::new() };
            return Err(StartError::InUse { path: directory.to_path_buf(), holder });
        }
    }
    file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(unusable)?;
    Ok(file)
}

fn check_port(port: u16, what: &'static str, key: &'static str) -> Result<(), StartError> {
    if port == 0 {
        return Err(StartError::NoPort { key });
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(|_| ()).map_err(|source| StartError::Port { port, what, key, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_held_by_one_and_free_again_after_it() {
        let directory = tempfile::tempdir().unwrap();
        let held = lock(directory.path()).unwrap();
        let message = lock(directory.path()).unwrap_err().to_string();
        assert!(message.contains("in use") && message.contains(&format!("process {}", std::process::id())), "{message}");
        drop(held);
        lock(directory.path()).unwrap();
    }

    #[test]
    fn a_port_that_is_none_or_named_twice_is_refused() {
        let library = Parts { kafka: None, clickhouse: Some(PathBuf::new()) };
        let refusal = |http, native| {
            let config = LocalConfig { clickhouse_http_port: http, clickhouse_native_port: native, ..LocalConfig::default() };
            config.check_ports(&library).unwrap_err().to_string()
        };
        assert!(refusal(0, 19000).contains("`local.clickhouse_http_port` is 0"));
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let both = refusal(free, free);
        assert!(both.contains("clickhouse_http_port") && both.contains("clickhouse_native_port"), "{both}");
    }

    #[test]
    fn a_taken_port_is_named_with_its_key() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let message = check_port(port, "Kafka", "kafka_port").unwrap_err().to_string();
        assert!(message.contains(&port.to_string()) && message.contains("local.kafka_port"), "{message}");
    }
}
