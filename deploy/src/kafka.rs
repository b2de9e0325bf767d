//! Kafka: its jars through Maven, and nodes, each broker and controller in one (KRaft), on the loopback interface.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use crate::install::{self, InstallError, Partial, at, checked, is_complete, pins, require};
use crate::parts::KafkaProgram;
use crate::progress::Progress;
use crate::supervisor::{ChildSpec, Supervisor, guarded};

const POM: &str = include_str!("../parts/kafka/pom.xml");
const LOG4J2: &str = include_str!("../parts/kafka/log4j2.properties");
const SUMS: &str = include_str!("../parts/kafka/SHA256SUMS");

/// Maven's goal that copies an artifact and all it depends on into one folder.
const COPY_DEPENDENCIES: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";
/// Where its jars are, in the directory that it is installed in.
const LIBS: &str = "libs";
/// Where a node keeps its data, in its own directory.
const STORAGE: &str = "log";
/// The same while it is being formatted.
const UNFINISHED_STORAGE: &str = "log.unfinished";
/// What a node logs itself, in its own directory.
const LOG: &str = "kafka.log";
/// The oldest Java that runs the Kafka of `pom.xml`.
const JAVA_AT_LEAST: u32 = 17;
/// A class-data archive of the broker's classes. With it `faultline up` has its answer after 1.3 s, without it after 2.0 s (medians of five starts
/// on two cores, as its log says).
const CLASS_ARCHIVE: &str = "kafka.jsa";
/// What the broker logs when it serves.
const STARTED: &str = "Kafka Server started";

fn directory(cache: &Path) -> PathBuf {
    cache.join(format!("kafka-{}", pins(&[POM, LOG4J2, SUMS])))
}

/// Finds Java and an installed Kafka.
pub(crate) async fn find(cache: &Path) -> Result<KafkaProgram, InstallError> {
    if cache.as_os_str().as_encoded_bytes().contains(&b':') {
        return Err(InstallError::Colon(cache.to_path_buf()));
    }
    let java = java().await?;
    let install = directory(cache);
    if !is_complete(&install.join(LIBS), SUMS) {
        return Err(InstallError::Missing { part: "Kafka", cache: cache.to_path_buf() });
    }
    Ok(KafkaProgram { java, install })
}

/// Fetches and verifies Kafka, unless it is there. Under the lock of the cache.
pub(crate) async fn install(cache: &Path) -> Result<(), InstallError> {
    let directory = directory(cache);
    if !is_complete(&directory.join(LIBS), SUMS) {
        require("mvn", "fetch Kafka")?;
        let partial = Partial::create(cache, "kafka")?;
        partial.write("pom.xml", POM)?;
        partial.write("log4j2.properties", LOG4J2)?;
        let mut command = guarded("mvn");
        command.args(["-B", "-q", COPY_DEPENDENCIES, "-DincludeScope=runtime"]).arg(format!("-DoutputDirectory={LIBS}"));
        partial.fetch("fetching Kafka through Maven", command).await?;
        partial.verify(LIBS, SUMS).await?;
        partial.complete(&directory)?;
    }
    let program = KafkaProgram { java: java().await?, install: directory };
    if !has_class_archive(&program) {
        archive_classes(&program).await;
    }
    Ok(())
}

/// Whether an installation got as far as the archive.
pub(crate) fn has_class_archive(program: &KafkaProgram) -> bool {
    program.install.join(CLASS_ARCHIVE).exists()
}

/// Compares every jar with its checksum.
pub(crate) async fn verify(cache: &Path) -> Result<(), InstallError> {
    install::verify(&directory(cache).join(LIBS), SUMS).await
}

/// The Java of this machine, by the usual rule: `$JAVA_HOME`, else the search path.
async fn java() -> Result<PathBuf, InstallError> {
    let java = match std::env::var_os("JAVA_HOME").filter(|home| !home.is_empty()) {
        Some(home) => {
            let java = std::path::absolute(PathBuf::from(home).join("bin/java")).map_err(at(Path::new("$JAVA_HOME")))?;
            if !java.is_file() {
                return Err(InstallError::JavaHome(java));
            }
            java
        }
        None => require("java", "run Kafka")?,
    };
    let output = guarded(&java).arg("-version").stdin(Stdio::null()).output().await.map_err(at(&java))?;
    let says = String::from_utf8_lossy(&output.stderr).into_owned();
    match java_version(&says) {
        Some(version) if version >= JAVA_AT_LEAST => Ok(java),
        _ => Err(InstallError::Java { java, at_least: JAVA_AT_LEAST, says: says.lines().next().unwrap_or_default().into() }),
    }
}

/// Reads the feature release out of `openjdk version "17.0.15" 2025-04-15` or, until Java 8, `java version "1.8.0_292"`.
fn java_version(says: &str) -> Option<u32> {
    let (_, version) = says.split_once(" version \"")?;
    let mut numbers = version.split(['.', '-', '+', '_', '"']).map(str::parse);
    match numbers.next()?.ok()? {
        1 => numbers.next()?.ok(),
        feature => Some(feature),
    }
}

/// Where a node listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePorts {
    /// For clients and other brokers.
    pub clients: u16,
    /// For controllers.
    pub controller: u16,
    /// For clients that come through something else.
    pub entrances: Vec<Entrance>,
}

/// A further port for clients, who are told to come to another: that of a proxy in front of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entrance {
    /// Where the node listens.
    pub port: u16,
    /// Where those who come this way are told to come.
    pub advertised: u16,
}

impl NodePorts {
    /// Without entrances.
    #[must_use]
    pub fn new(clients: u16, controller: u16) -> NodePorts {
        NodePorts { clients, controller, entrances: Vec::new() }
    }
}

/// A node's place and ports.
#[derive(Debug)]
pub(crate) struct Node<'a> {
    pub(crate) program: &'a KafkaProgram,
    /// Its number in its cluster, from 1.
    pub(crate) id: usize,
    pub(crate) ports: &'a NodePorts,
    /// All nodes of its cluster by number, itself among them.
    pub(crate) cluster: &'a [NodePorts],
    /// Where the node keeps its log and its configuration. The node runs in there and is given relative paths: what a file name means
    /// differs between the command line, Java's properties and Kafka's lists.
    pub(crate) directory: PathBuf,
    pub(crate) heap_mib: u32,
}

impl Node<'_> {
    /// Writes the configuration and, in a new directory, formats the storage. All nodes of a cluster are formatted with one `cluster_id`.
    pub(crate) async fn prepare(&self, cluster_id: &str) -> Result<(), InstallError> {
        let write = |name, content| {
            let path = self.directory.join(name);
            fs::write(&path, content).map_err(at(&path))
        };
        fs::create_dir_all(&self.directory).map_err(at(&self.directory))?;
        write("server.properties", self.properties(STORAGE))?;
        let storage = self.directory.join(STORAGE);
        if storage.exists() {
            return Ok(());
        }
        // Formatted under another name, so that storage under its own name is whole also where formatting was interrupted.
        let unfinished = self.directory.join(UNFINISHED_STORAGE);
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).map_err(at(&unfinished))?;
        }
        write("format.properties", self.properties(UNFINISHED_STORAGE))?;
        let mut format = guarded(&self.program.java);
        format
            .args(self.jvm_options())
            .args(["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", "format.properties"])
            .current_dir(&self.directory)
            .stdin(Stdio::null());
        let output = format.output().await.map_err(at(&self.program.java))?;
        checked("kafka.tools.StorageTool format".into(), output)?;
        fs::rename(&unfinished, &storage).map_err(at(&storage))
    }

    /// The node as a child process.
    pub(crate) fn child(&self) -> ChildSpec {
        let mut arguments = self.jvm_options();
        arguments.extend(["kafka.Kafka".into(), self.directory.join("server.properties").into()]);
        ChildSpec {
            name: "Kafka",
            program: self.program.java.clone(),
            arguments,
            directory: self.directory.clone(),
            output: self.directory.join("kafka.out"),
            log: self.directory.join(LOG),
            grace: Duration::from_secs(20),
        }
    }

    fn jvm_options(&self) -> Vec<OsString> {
        let mut options: Vec<OsString> = ["-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"].map(Into::into).into();
        options.push(format!("-Xmx{}m", self.heap_mib).into());
        options.push(format!("-Dkafka.logfile={LOG}").into());
        options.push(assignment("-Dlog4j2.configurationFile=", &self.program.install.join("log4j2.properties")));
        let archive = self.program.install.join(CLASS_ARCHIVE);
        if archive.exists() {
            options.push(assignment("-XX:SharedArchiveFile=", &archive));
            options.push("-Xshare:auto".into());
        }
        options.extend(["-cp".into(), class_path(&self.program.install.join(LIBS))]);
        options
    }

    fn properties(&self, storage: &str) -> String {
        // The transaction, offset and share-group logs are on every node, and go on as long as most of them do. The session time-out is short so
        // that a node that was killed may come back at once (with the default of 9 s it is refused as a duplicate until then).
        let voters = self.cluster.iter().zip(1..).map(|(node, id)| format!("{id}@127.0.0.1:{}", node.controller));
        // Each entrance is a listener of its own: it is by the listener that a client is told where to come.
        let of_each = |say: fn((usize, &Entrance)) -> String| self.ports.entrances.iter().enumerate().map(say).collect::<String>();
        format!(
            "# Written by faultline at every start.
process.roles=broker,controller
node.id={id}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{entrances}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}{advertised}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs={storage}
num.network.threads=2
num.io.threads=4
auto.create.topics.enable=false
min.insync.replicas={majority}
offsets.topic.num.partitions=4
offsets.topic.replication.factor={replicas}
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={majority}
share.coordinator.state.topic.num.partitions=4
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={majority}
group.initial.rebalance.delay.ms=0
log.segment.bytes=67108864
log.cleaner.dedupe.buffer.size=4194304
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
",
            id = self.id,
            voters = voters.collect::<Vec<_>>().join(","),
            controller = self.ports.controller,
            port = self.ports.clients,
            entrances = of_each(|(number, entrance)| format!(",ENTRANCE{number}://127.0.0.1:{}", entrance.port)),
            advertised = of_each(|(number, entrance)| format!(",ENTRANCE{number}://127.0.0.1:{}", entrance.advertised)),
            protocols = of_each(|(number, _)| format!(",ENTRANCE{number}:PLAINTEXT")),
            replicas = self.cluster.len(),
            majority = self.cluster.len() / 2 + 1,
        )
    }
}

fn assignment(name: &str, path: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push(path);
    option
}

/// Every jar, in one order: the archive is valid for exactly the class path that it was made with.
fn class_path(libs: &Path) -> OsString {
    let mut jars: Vec<PathBuf> = fs::read_dir(libs).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    jars.sort();
    jars.iter().map(|jar| jar.as_os_str()).collect::<Vec<_>>().join(":".as_ref())
}

/// Sixteen random bytes in Kafka's own notation, which must not begin with a dash.
pub(crate) fn new_cluster_id() -> String {
    loop {
        let id = URL_SAFE_NO_PAD.encode(Uuid::new_v4().as_bytes());
        if !id.starts_with('-') {
            return id;
        }
    }
}

/// Makes the archive, once per installation, by running a node for a moment. Kafka runs without it too, so a failure is only reported.
async fn archive_classes(program: &KafkaProgram) {
    let progress = Progress::begin("preparing Kafka for quick starts");
    if let Err(reason) = try_archive_classes(program).await {
        tracing::warn!(reason, "no class archive was made, so Kafka will start more slowly");
    }
    progress.end();
}

async fn try_archive_classes(program: &KafkaProgram) -> Result<(), String> {
    let say = |error: io::Error| error.to_string();
    let scratch = tempfile::tempdir().map_err(say)?;
    let new_archive = program.install.join("kafka.jsa.new");
    let directory = scratch.path().to_path_buf();
    let ports = NodePorts::new(free_port().map_err(say)?, free_port().map_err(say)?);
    let node = Node { program, id: 1, ports: &ports, cluster: std::slice::from_ref(&ports), directory, heap_mib: 512 };
    node.prepare(&new_cluster_id()).await.map_err(|error| error.to_string())?;
    let mut child = node.child();
    child.arguments.insert(0, assignment("-XX:ArchiveClassesAtExit=", &new_archive));
    let log = child.log.clone();
    let supervisor = Supervisor::start(vec![child]).map_err(say)?;
    let started = async {
        while !fs::read_to_string(&log).is_ok_and(|log| log.contains(STARTED)) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = started => {}
        given_up = supervisor.gave_up() => return Err(given_up.to_string()),
        () = tokio::time::sleep(Duration::from_secs(60)) => return Err("Kafka did not start within 60 s".into()),
    }
    supervisor.stop().await;
    fs::rename(&new_archive, program.install.join(CLASS_ARCHIVE)).map_err(say)
}

fn free_port() -> io::Result<u16> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr().map(|address| address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_id_is_what_kafka_takes() {
        let id = new_cluster_id();
        assert_eq!(URL_SAFE_NO_PAD.decode(&id).unwrap().len(), 16);
        assert_ne!(id, new_cluster_id());
    }

    #[test]
    fn one_node_needs_nobody_and_three_go_on_with_two() {
        let mut ports = [1, 2, 3].map(|number| NodePorts::new(9000 + number, 9100 + number));
        ports[1].entrances.push(Entrance { port: 9200, advertised: 9300 });
        let program = KafkaProgram { java: PathBuf::new(), install: PathBuf::new() };
        let of = |id: usize, cluster: &[NodePorts]| {
            let node = Node { program: &program, id, ports: &ports[id - 1], cluster, directory: PathBuf::new(), heap_mib: 256 };
            node.properties(STORAGE)
        };
        let (alone, second) = (of(1, &ports[..1]), of(2, &ports));
        let says = |properties: &str, line: &str| assert!(properties.lines().any(|is| is == line), "`{line}` is missing from {properties}");
        for line in
            ["node.id=1", "controller.quorum.voters=1@127.0.0.1:9101", "offsets.topic.replication.factor=1", "min.insync.replicas=1"]
        {
            says(&alone, line);
        }
        for line in [
            "node.id=2",
            "controller.quorum.voters=1@127.0.0.1:9101,2@127.0.0.1:9102,3@127.0.0.1:9103",
            "listeners=PLAINTEXT://127.0.0.1:9002,CONTROLLER://127.0.0.1:9102,ENTRANCE0://127.0.0.1:9200",
            "advertised.listeners=PLAINTEXT://127.0.0.1:9002,ENTRANCE0://127.0.0.1:9300",
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,ENTRANCE0:PLAINTEXT",
            "offsets.topic.replication.factor=3",
            "transaction.state.log.replication.factor=3",
            "transaction.state.log.min.isr=2",
            "min.insync.replicas=2",
        ] {
            says(&second, line);
        }
    }

    #[test]
    fn java_says_its_version_in_two_ways() {
        assert_eq!(java_version("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime"), Some(17));
        assert_eq!(java_version("openjdk version \"21-ea\" 2023-09-19"), Some(21));
        assert_eq!(java_version("java version \"1.8.0_292\""), Some(8));
        assert_eq!(java_version("Picked up JAVA_TOOL_OPTIONS: -Dx=\"1\"\nopenjdk version \"25\" 2025-09-16"), Some(25));
        assert_eq!(java_version("sh: java: not found"), None);
    }

    #[test]
    fn the_broker_and_all_it_needs_are_pinned() {
        let jars: Vec<_> = crate::install::sums(SUMS).collect();
        assert!(jars.iter().any(|(_, name)| *name == "kafka_2.13-4.3.1.jar"), "the broker itself is missing from {jars:?}");
        assert!(jars.iter().all(|(sum, _)| sum.len() == 64));
    }
}
