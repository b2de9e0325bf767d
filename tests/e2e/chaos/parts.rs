//! The parts, what is between them, and how each fault is done to them and undone.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use faultline_deploy::{Entrance, KafkaCluster, LocalConfig, LocalParts, NodePorts, Parts, Wanted};
use faultline_store::ClickHouseConfig;
use faultline_stream::{KafkaConfig, Record, Topic, read_to_end};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tonic::transport::Endpoint;

use crate::chaos::disk::Disk;
use crate::chaos::link::{Link, Network};
use crate::chaos::schedule::{Between, Fault, Planned};
use crate::chaos::writers::Writers;
use crate::program::{eventually, process};
use crate::sandbox::{clickhouse_of, port, ports, program, scratch};
use crate::services::{Service, Settings, new_token, query, query_if_up, settings_with};
use crate::terminal::Terminal;

const PARTITIONS: u32 = 6;
/// Connections of the terminals to each gateway.
const CONNECTIONS: usize = 2;
/// How long it is waited for an insert that a classifier could be stopped in.
const INSERT: Duration = Duration::from_secs(10);
/// What is held of a request that has rows in it, in bytes.
const OF_AN_INSERT: u64 = 2048;
/// What is left on ClickHouse's full disk: less than it keeps free, so that it takes nothing. (Were nothing left, it would say that it stored what it did not.)
const LEFT_FREE_BYTES: i64 = 64 << 20;
/// How long ClickHouse may take to answer again when its disk has room.
const RECOVERY: Duration = Duration::from_secs(20);
/// How far the terminals' clocks jump, forwards or backwards, in seconds.
const JUMPS_S: [i64; 2] = [2 * 24 * 60 * 60, -3 * 60 * 60];

/// Where everything is kept.
pub(crate) struct Place {
    /// For Kafka and for ClickHouse. Unmounted before their directory is removed.
    disks: Option<[Disk; 2]>,
    directory: TempDir,
    /// Says to other tests that the directory is in use.
    _lock: File,
    logs: PathBuf,
}

/// A process of a service, and what it is started again with.
struct Slot {
    command: &'static str,
    settings: Settings,
    /// Where what it says is kept.
    log: PathBuf,
    running: Option<Service>,
}

impl Slot {
    fn start(&mut self) {
        self.running = Some(Service::start_logged(&self.log, self.command, self.settings.clone()));
    }

    fn service(&self) -> &Service {
        self.running.as_ref().unwrap()
    }

    /// Ends it by a signal.
    async fn end(&mut self, signal: Signal) {
        let Some(service) = self.running.take() else { return };
        service.program.signal(signal);
        let ended = service.program.end().await;
        assert!(signal == Signal::SIGKILL || ended.status.success(), "{}: {}", self.log.display(), ended.status);
    }

    async fn kill_for(&mut self, time: Duration) {
        self.end(Signal::SIGKILL).await;
        sleep(time).await;
        self.start();
    }
}

impl Place {
    pub(crate) fn new(seed: u64, disk_mib: u32) -> Place {
        let directory = scratch("chaos");
        let logs = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("chaos").join(seed.to_string());
        let _ = fs::remove_dir_all(&logs);
        fs::create_dir_all(&logs).unwrap();
        println!("chaos: what the services say is kept in {}", logs.display());
        let disk = |name| Disk::mount(directory.path().join(name), disk_mib);
        let disks = disk("kafka").zip(disk("clickhouse")).map(<[Disk; 2]>::from);
        let lock = File::create(directory.path().join("lock")).unwrap();
        lock.lock().unwrap();
        Place { disks, directory, _lock: lock, logs }
    }

    pub(crate) fn has_disks(&self) -> bool {
        self.disks.is_some()
    }

    /// Starts everything.
    pub(crate) async fn start(&self) -> (Front<'_>, Back<'_>) {
        let directory = fs::canonicalize(self.directory.path()).unwrap();
        let (kafka_disk, clickhouse_disk) = self.disks.as_ref().map_or((None, None), |[kafka, clickhouse]| (Some(kafka), Some(clickhouse)));
        let kafka = Kafka::start(directory.join("kafka"), kafka_disk).await;
        let clickhouse = ClickHouse::start(directory.join("clickhouse"), clickhouse_disk).await;
        let to_clickhouse = [(); 3].map(|()| Link::to(clickhouse.local.clickhouse_http_port));
        let settings = |kafka_link: &Link, clickhouse_link: &Link| {
            let mut settings = settings_with(&kafka.config(kafka_link), &clickhouse.config(clickhouse_link));
            // So that it often is not known what became of a record.
            settings.push(("KAFKA__DELIVERY_TIMEOUT", "4s".into()));
            settings.push(("CLASSIFIER__MAX_BATCH_DELAY", "200ms".into()));
            settings.push(("CLASSIFIER__HIGH_WATER_INTERVAL", "2s".into()));
            settings
        };
        let slot = |command: &'static str, number: usize, settings: Settings| {
            let mut slot = Slot { command, settings, log: self.logs.join(format!("{command}-{number}.log")), running: None };
            slot.start();
            slot
        };
        let classifiers = [0, 1].map(|number| slot("classifier", number, settings(&kafka.links[1 + number], &to_clickhouse[number])));
        let alerter = slot("alerter", 0, settings(&kafka.links[3], &to_clickhouse[2]));

        let tokens = directory.join("tokens");
        let token = new_token(&tokens, &["--tenant", "acme", "--any-terminal"]).await;
        let (mut gateways, mut to_gateways, mut ways) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..2 {
            let port = port();
            let mut settings = settings(&kafka.links[0], &to_clickhouse[2]);
            settings.push(("GATEWAY__LISTEN", format!("127.0.0.1:{port}")));
            settings.push(("GATEWAY__TOKEN_FILE", tokens.to_str().unwrap().to_owned()));
            gateways.push(slot("gateway", number, settings));
            let link = Link::to(port);
            let address = Endpoint::from_shared(format!("http://127.0.0.1:{}", link.port)).unwrap();
            ways.extend((0..CONNECTIONS).map(|_| Terminal::new(address.connect_lazy(), &token)));
            to_gateways.push(link);
        }
        (Front { gateways, to_gateways, ways, kafka, alerter }, Back { classifiers, clickhouse, to_clickhouse })
    }
}

/// A broker whose clients come through links: the gateways, the first classifier, the second, and the alerter.
struct Kafka<'a> {
    cluster: KafkaCluster,
    directory: PathBuf,
    disk: Option<&'a Disk>,
    links: [Link; 4],
}

impl<'a> Kafka<'a> {
    async fn start(directory: PathBuf, disk: Option<&'a Disk>) -> Kafka<'a> {
        let mut node = NodePorts::new(port(), port());
        // Who comes through a link is told to come through it again.
        let links = [(); 4].map(|()| {
            let port = port();
            let link = Link::to(port);
            node.entrances.push(Entrance { port, advertised: link.port });
            link
        });
        let cache = LocalConfig::default().parts_directory().unwrap();
        let cluster = KafkaCluster::start(&cache, &directory, &[node], 384).await.unwrap();
        Kafka { cluster, directory, disk, links }
    }

    fn config(&self, link: &Link) -> KafkaConfig {
        KafkaConfig {
            brokers: format!("127.0.0.1:{}", link.port),
            partitions: PARTITIONS,
            replication_factor: 1,
            min_insync_replicas: 1,
            allow_weak_durability: true,
            ..KafkaConfig::default()
        }
    }

    async fn kill_for(&mut self, time: Duration) {
        self.cluster.kill(1).await;
        sleep(time).await;
        self.cluster.start_again(1).unwrap();
    }
}

/// A server that can be killed and started again.
struct ClickHouse<'a> {
    local: LocalConfig,
    parts: Parts,
    disk: Option<&'a Disk>,
    running: Option<LocalParts>,
    own: ClickHouseConfig,
}

impl<'a> ClickHouse<'a> {
    async fn start(directory: PathBuf, disk: Option<&'a Disk>) -> ClickHouse<'a> {
        let local = LocalConfig { data_dir: directory, ..ports() };
        let parts = Parts::find(&local.parts_directory().unwrap(), Wanted { kafka: false, clickhouse: true }).await.unwrap();
        let running = LocalParts::start(&local, &parts, &program()).await.unwrap();
        ClickHouse { own: clickhouse_of(&running), local, parts, disk, running: Some(running) }
    }

    fn config(&self, link: &Link) -> ClickHouseConfig {
        ClickHouseConfig { url: format!("http://127.0.0.1:{}", link.port).parse().unwrap(), ..self.own.clone() }
    }

    async fn kill_for(&mut self, time: Duration) {
        if let Some(running) = self.running.take() {
            running.kill().await;
        }
        sleep(time).await;
        self.running = Some(LocalParts::start(&self.local, &self.parts, &program()).await.unwrap());
    }

    async fn refuse_for(&self, table: &str, time: Duration) {
        let ask = async |sql: &str| eventually(sql, async || query_if_up(&self.own, sql).await).await;
        // As after too many small inserts: one part is too many.
        ask(&format!("ALTER TABLE {table} MODIFY SETTING parts_to_throw_insert = 1")).await;
        sleep(time).await;
        ask(&format!("ALTER TABLE {table} RESET SETTING parts_to_throw_insert")).await;
    }

    async fn fill_for(&mut self, time: Duration) {
        let Some(disk) = self.disk else { return };
        let filler = disk.fill(LEFT_FREE_BYTES);
        sleep(time).await;
        drop(filler);
        let freed = Instant::now();
        while query_if_up(&self.own, "SELECT 1").await.is_none() {
            if freed.elapsed() > RECOVERY {
                println!("chaos: ClickHouse does not answer after its disk was full, and is started again");
                return self.kill_for(Duration::ZERO).await;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Stops a process for a time.
async fn stop_for(time: Duration, pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    sleep(time).await;
    kill(Pid::from_raw(pid), Signal::SIGCONT).unwrap();
}

async fn stop_part_for(time: Duration, directory: &Path, which: &str) {
    stop_for(time, eventually(which, async || process(directory, which)).await).await;
}

/// Parts that faults are done to.
pub(crate) trait Victim {
    /// Does one thing, for as long as it is to last, and undoes it.
    async fn suffer(&mut self, planned: &Planned, writers: &Writers);
    /// What grows while they work.
    async fn progress(&self, writers: &Writers) -> u64;
}

/// What is up to Kafka, and the alerter.
pub(crate) struct Front<'a> {
    gateways: Vec<Slot>,
    to_gateways: Vec<Link>,
    ways: Vec<Terminal>,
    kafka: Kafka<'a>,
    alerter: Slot,
}

impl Front<'_> {
    /// What terminals may report over.
    pub(crate) fn ways(&self) -> Vec<Terminal> {
        self.ways.clone()
    }

    /// Connections that its networks broke.
    pub(crate) fn broken(&self) -> u64 {
        self.to_gateways.iter().chain(&self.kafka.links).map(Link::broken).sum()
    }

    /// What Kafka has of outcomes.
    pub(crate) async fn records(&self) -> Vec<Record> {
        let config = self.kafka.config(&self.kafka.links[0]);
        read_to_end(&config, &config.topic(Topic::Outcomes)).await.unwrap()
    }

    /// Asks its services to stop.
    pub(crate) async fn stop(&mut self) {
        for slot in self.gateways.iter_mut().chain([&mut self.alerter]) {
            slot.end(Signal::SIGTERM).await;
        }
    }
}

impl Victim for Front<'_> {
    async fn suffer(&mut self, planned: &Planned, writers: &Writers) {
        let &Planned { fault, which, lasts, .. } = planned;
        match fault {
            Fault::KillGateway => self.gateways[which].kill_for(lasts).await,
            Fault::KillAlerter => self.alerter.kill_for(lasts).await,
            Fault::KillKafka => self.kafka.kill_for(lasts).await,
            Fault::StopKafka => stop_part_for(lasts, &self.kafka.directory, "kafka.Kafka").await,
            Fault::FillKafka => {
                if let Some(disk) = self.kafka.disk {
                    let filler = disk.fill(0);
                    sleep(lasts).await;
                    drop(filler);
                    // A broker whose only disk failed has ended, or will.
                    self.kafka.kill_for(Duration::ZERO).await;
                }
            }
            Fault::ClocksJump => writers.set_clocks_forward(JUMPS_S[which]),
            fault => match network(fault) {
                Some((network, Between::TerminalsAndGateway)) => self.to_gateways[which].set_for(lasts, network).await,
                Some((network, Between::GatewaysAndKafka)) => self.kafka.links[0].set_for(lasts, network).await,
                Some((network, Between::ClassifierAndKafka)) => self.kafka.links[1 + which].set_for(lasts, network).await,
                Some((network, Between::AlerterAndKafka)) => self.kafka.links[3].set_for(lasts, network).await,
                _ => panic!("{fault} is nothing for the front"),
            },
        }
    }

    async fn progress(&self, writers: &Writers) -> u64 {
        writers.acknowledged()
    }
}

/// What is behind Kafka.
pub(crate) struct Back<'a> {
    classifiers: [Slot; 2],
    clickhouse: ClickHouse<'a>,
    /// Of the first classifier, of the second, and of the alerter.
    to_clickhouse: [Link; 3],
}

impl Back<'_> {
    /// Stops the one of whom the network has an insert first. That arrives when others may have taken over already; the rest of it when it wakes up.
    async fn stop_classifier_for(&self, time: Duration, which: usize) {
        let links = &self.to_clickhouse[..2];
        links.iter().for_each(|link| link.set(Network::Held));
        let begin = Instant::now();
        let inserts = || links.iter().position(|link| link.held() >= OF_AN_INSERT);
        while inserts().is_none() && begin.elapsed() < INSERT {
            sleep(Duration::from_millis(5)).await;
        }
        let stopped = inserts().unwrap_or_else(|| {
            println!("chaos: no classifier inserts anything now, and one is stopped all the same");
            which
        });
        links[1 - stopped].set(Network::Up);
        let letting_go = async {
            sleep(time / 2).await;
            links[stopped].set(Network::Up);
        };
        tokio::join!(stop_for(time, self.classifiers[stopped].service().program.pid()), letting_go);
    }

    /// Events that are counted, or 0 where nobody says.
    pub(crate) async fn counted(&self) -> u64 {
        // Corrections have a ledger of their own.
        let of_batches = "SELECT sum(count) FROM rollup WHERE family = 'ledger' AND splitByChar(':', toString(key))[2] != '65535'";
        let counted = query_if_up(&self.clickhouse.own, of_batches).await;
        counted.and_then(|counted| counted.parse().ok()).unwrap_or(0)
    }

    /// ClickHouse, asked directly.
    pub(crate) fn clickhouse(&self) -> &ClickHouseConfig {
        &self.clickhouse.own
    }

    /// What it answers.
    pub(crate) async fn query(&self, sql: &str) -> String {
        query(&self.clickhouse.own, sql).await
    }

    /// Whether the classifiers have nothing left to do; else what it is.
    pub(crate) async fn are_done(&self) -> Result<(), String> {
        let mut partitions = 0;
        for (number, slot) in self.classifiers.iter().enumerate() {
            let (_, metrics) = slot.service().ask("/metrics").await.ok_or_else(|| format!("classifier {number} does not answer"))?;
            let mut lags = metrics.lines().filter(|line| line.starts_with("faultline_classifier_lag_seconds{"));
            if let Some(behind) = lags.find(|line| !line.ends_with(" 0")) {
                return Err(format!("of classifier {number}: {behind}"));
            }
            partitions += slot.service().counted("faultline_classifier_partitions", &[]).await;
        }
        if partitions == u64::from(PARTITIONS) { Ok(()) } else { Err(format!("they have {partitions} of {PARTITIONS} partitions")) }
    }

    /// Connections that its networks broke.
    pub(crate) fn broken(&self) -> u64 {
        self.to_clickhouse.iter().map(Link::broken).sum()
    }

    /// Stops all of it.
    pub(crate) async fn stop(&mut self) {
        for slot in &mut self.classifiers {
            slot.end(Signal::SIGTERM).await;
        }
        if let Some(running) = self.clickhouse.running.take() {
            running.stop().await;
        }
    }
}

impl Victim for Back<'_> {
    async fn suffer(&mut self, planned: &Planned, _: &Writers) {
        let &Planned { fault, which, lasts, .. } = planned;
        match fault {
            Fault::KillClassifier => self.classifiers[which].kill_for(lasts).await,
            Fault::KillClickHouse => self.clickhouse.kill_for(lasts).await,
            Fault::StopClassifier => self.stop_classifier_for(lasts, which).await,
            Fault::StopClickHouse => stop_part_for(lasts, &self.clickhouse.local.data_dir, "clickhouse-server").await,
            Fault::RefuseInserts => self.clickhouse.refuse_for(["outcomes", "rollup"][which], lasts).await,
            Fault::FillClickHouse => self.clickhouse.fill_for(lasts).await,
            Fault::ClassifierLeaves => {
                self.classifiers[which].end(Signal::SIGTERM).await;
                sleep(lasts).await;
                self.classifiers[which].start();
            }
            fault => match network(fault) {
                Some((network, Between::ClassifierAndClickHouse)) => self.to_clickhouse[which].set_for(lasts, network).await,
                Some((network, Between::AlerterAndClickHouse)) => self.to_clickhouse[2].set_for(lasts, network).await,
                _ => panic!("{fault} is nothing for the back"),
            },
        }
    }

    async fn progress(&self, _: &Writers) -> u64 {
        self.counted().await
    }
}

/// What happens to which network, if it is that.
fn network(fault: Fault) -> Option<(Network, Between)> {
    match fault {
        Fault::Cut(between) => Some((Network::Cut, between)),
        Fault::Silence(between) => Some((Network::Silent, between)),
        Fault::Slow(between) => Some((Network::Slow, between)),
        _ => None,
    }
}
