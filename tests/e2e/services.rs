//! Services as processes of their own, each with settings of its own.

use std::path::{Path, PathBuf};

use faultline_store::ClickHouseConfig;
use faultline_stream::{KafkaConfig, OutcomeRecord, Topic, read_to_end};
use nix::sys::signal::Signal;
use secrecy::ExposeSecret;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use crate::program::{Ended, Faultline, eventually, in_time};
use crate::sandbox::{PATIENCE, port, sandbox, scratch};
use crate::terminal::Terminal;

/// Settings of a program, as environment variables without their prefix.
pub(crate) type Settings = Vec<(&'static str, String)>;

/// A service, seen through its endpoints.
pub(crate) struct Service {
    pub(crate) program: Faultline,
    pub(crate) settings: Settings,
    pub(crate) monitoring_port: u16,
}

impl Service {
    /// Runs a command with these settings, and an address for its endpoints.
    pub(crate) fn start(command: &str, settings: Settings) -> Service {
        Service::start_with(settings, |settings| Faultline::start(&[command], settings))
    }

    /// The same, with what it says appended to a file.
    pub(crate) fn start_logged(log: &Path, command: &str, settings: Settings) -> Service {
        Service::start_with(settings, |settings| Faultline::start_logged(log, &[command], settings))
    }

    fn start_with(mut settings: Settings, start: impl FnOnce(&Settings) -> Faultline) -> Service {
        let monitoring_port = port();
        settings.push(("MONITORING__LISTEN", format!("127.0.0.1:{monitoring_port}")));
        Service { program: start(&settings), settings, monitoring_port }
    }

    /// Status and text of one of its endpoints.
    pub(crate) async fn ask(&self, path: &str) -> Option<(u16, String)> {
        let response = http().get(format!("http://127.0.0.1:{}{path}", self.monitoring_port)).send().await.ok()?;
        Some((response.status().as_u16(), response.text().await.ok()?))
    }

    pub(crate) async fn until_ready(&self) {
        let ready = in_time(async || match self.ask("/readyz").await {
            Some((200, _)) => Ok(()),
            answer => Err(answer),
        });
        if let Err(answer) = ready.await {
            let (answer, said) = (answer.map_or("nothing".into(), |(status, text)| format!("{status}, {text}")), self.program.said());
            panic!("the service is not ready within {PATIENCE:?}: /readyz says {answer}; it wrote:\n{said}");
        }
    }

    /// Waits until it is not ready, for this reason among others.
    pub(crate) async fn until_it_says(&self, reason: &str) -> String {
        let why = async || self.ask("/readyz").await.filter(|(status, why)| *status == 503 && why.contains(reason));
        eventually(reason, why).await.1
    }

    /// The sum of a counter over the series that have all of `labels`.
    pub(crate) async fn counted(&self, name: &str, labels: &[&str]) -> u64 {
        let (_, text) = self.ask("/metrics").await.unwrap();
        let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let series = text.lines().filter(of_name).filter(|line| labels.iter().all(|label| line.contains(label)));
        series.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    /// Stops it, cleanly, and takes what it said.
    pub(crate) async fn stop(self) -> Ended {
        self.program.signal(Signal::SIGTERM);
        let ended = self.program.end().await;
        assert!(ended.status.success(), "{ended:?}");
        ended
    }

    /// Kills it.
    pub(crate) async fn kill(self) {
        self.program.signal(Signal::SIGKILL);
        self.program.end().await;
    }
}

/// A gateway of one test, on topics of its own.
pub(crate) struct Gateway {
    pub(crate) service: Service,
    pub(crate) kafka: KafkaConfig,
    pub(crate) token: String,
    pub(crate) port: u16,
    directory: TempDir,
}

impl Gateway {
    /// On the Kafka that tests share, ready.
    pub(crate) async fn start(name: &str) -> Gateway {
        let kafka = KafkaConfig { topic_prefix: format!("gateway-{name}"), ..sandbox().await.kafka.clone() };
        let gateway = Gateway::start_on(kafka, &[]).await;
        gateway.service.until_ready().await;
        gateway
    }

    pub(crate) async fn start_on(kafka: KafkaConfig, more: &[(&'static str, String)]) -> Gateway {
        let directory = scratch("gateway");
        let tokens = directory.path().join("tokens");
        let token = new_token(&tokens, &["--tenant", "acme", "--terminal", "T-1"]).await;
        let port = port();
        let mut settings = settings_of(&kafka);
        settings.push(("GATEWAY__LISTEN", format!("127.0.0.1:{port}")));
        settings.push(("GATEWAY__TOKEN_FILE", tokens.to_str().unwrap().to_owned()));
        settings.extend_from_slice(more);
        Gateway { service: Service::start("gateway", settings), kafka, token, directory, port }
    }

    pub(crate) fn tokens(&self) -> PathBuf {
        self.directory.path().join("tokens")
    }

    pub(crate) fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://127.0.0.1:{}", self.port)).unwrap().connect_lazy()
    }

    /// Where it listens: host and port.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Terminal `T-1` of tenant `acme`.
    pub(crate) fn terminal(&self) -> Terminal {
        Terminal::new(self.channel(), &self.token)
    }

    /// A token for every terminal of tenant `acme`, known to the gateway soon.
    pub(crate) async fn collector(&self) -> Terminal {
        let token = new_token(&self.tokens(), &["--tenant", "acme", "--any-terminal"]).await;
        eventually("the token is known", async || (self.service.counted("faultline_gateway_tokens", &[]).await == 2).then_some(())).await;
        Terminal::new(self.channel(), &token)
    }

    /// What it has brought into Kafka.
    pub(crate) async fn records(&self) -> Vec<OutcomeRecord> {
        let records = read_to_end(&self.kafka, &self.kafka.topic(Topic::Outcomes)).await.unwrap();
        records.iter().map(|record| record.try_into().unwrap()).collect()
    }

    /// Stops it, cleanly; it has not said the token.
    pub(crate) async fn stop(self) -> Ended {
        let ended = self.service.stop().await;
        assert!(!ended.stderr.contains(&self.token), "{}", ended.stderr);
        ended
    }
}

/// Adds a token to a file of tokens.
pub(crate) async fn new_token(file: &Path, whose: &[&str]) -> String {
    let output = Faultline::output(&[&["token", "--file", file.to_str().unwrap()], whose].concat()).await;
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A Kafka as settings.
pub(crate) fn settings_of(kafka: &KafkaConfig) -> Settings {
    vec![
        ("KAFKA__BROKERS", kafka.brokers.clone()),
        ("KAFKA__TOPIC_PREFIX", kafka.topic_prefix.clone()),
        ("KAFKA__PARTITIONS", kafka.partitions.to_string()),
        ("KAFKA__REPLICATION_FACTOR", kafka.replication_factor.to_string()),
        ("KAFKA__MIN_INSYNC_REPLICAS", kafka.min_insync_replicas.to_string()),
        ("KAFKA__ALLOW_WEAK_DURABILITY", kafka.allow_weak_durability.to_string()),
        ("KAFKA__SESSION_TIMEOUT", "6s".into()),
    ]
}

/// A Kafka and a ClickHouse as settings.
pub(crate) fn settings_with(kafka: &KafkaConfig, clickhouse: &ClickHouseConfig) -> Settings {
    let mut settings = settings_of(kafka);
    settings.push(("CLICKHOUSE__URL", clickhouse.url.to_string()));
    settings.push(("CLICKHOUSE__DATABASE", clickhouse.database.clone()));
    settings.push(("CLICKHOUSE__USER", clickhouse.user.clone()));
    settings.push(("CLICKHOUSE__PASSWORD", clickhouse.password.expose_secret().to_owned()));
    settings
}

/// A client for HTTP. It wants a provider of cryptography, also where nothing is encrypted.
pub(crate) fn http() -> reqwest::Client {
    // Whoever was first has set the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

/// The answer of ClickHouse to a query, as its user and in its database.
pub(crate) async fn query(clickhouse: &ClickHouseConfig, sql: &str) -> String {
    let (status, answer) = query_as(clickhouse, &clickhouse.user, clickhouse.password.expose_secret(), sql).await;
    assert_eq!(status, 200, "{sql}: {answer}");
    answer.trim_end().to_owned()
}

/// The same, where the server or the schema may not be there yet.
pub(crate) async fn query_if_up(clickhouse: &ClickHouseConfig, sql: &str) -> Option<String> {
    let (status, answer) = request(clickhouse, &clickhouse.user, clickhouse.password.expose_secret(), sql).await.ok()?;
    (status == 200).then(|| answer.trim_end().to_owned())
}

/// Status and answer to a query of some user.
pub(crate) async fn query_as(clickhouse: &ClickHouseConfig, user: &str, password: &str, sql: &str) -> (u16, String) {
    request(clickhouse, user, password, sql).await.unwrap()
}

async fn request(clickhouse: &ClickHouseConfig, user: &str, password: &str, sql: &str) -> reqwest::Result<(u16, String)> {
    let address = format!("{}?database={}", clickhouse.url, clickhouse.database);
    let request = http().post(address).header("X-ClickHouse-User", user).header("X-ClickHouse-Key", password);
    let response = request.body(sql.to_owned()).send().await?;
    Ok((response.status().as_u16(), response.text().await?))
}
