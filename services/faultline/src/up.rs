//! `faultline up`: everything on this machine, as long as it is wanted.

use std::fs::DirBuilder;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use faultline_alerter::Alerter;
use faultline_classifier::Classifier;
use faultline_console::Console;
use faultline_deploy::{LocalParts, Parts, Wanted};
use faultline_gateway::Gateway;
use faultline_runtime::readiness::wait_until_ready;
use faultline_runtime::shutdown::StopSignals;
use faultline_runtime::telemetry::Telemetry;
use faultline_simulator::Simulation;
use faultline_store::{ClickHouseConfig, Database};
use faultline_stream::{Cluster, KafkaConfig, TopicState};
use secrecy::ExposeSecret;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::output::say;
use crate::rules::rule_files;
use crate::service::{Process, bind};
use crate::simulate::{Length, Show};
use crate::token;

/// The tenant of the token that is made where none is configured.
const TRIAL_TENANT: &str = "demo";
/// In the data directory, how tools reach Kafka and ClickHouse.
const TOOLS_FILE: &str = "tools.toml";

/// What the command line says about `up`; it wins over the configuration.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where Kafka and ClickHouse keep their data [default: faultline in the user's data directory]
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// Where the programs of Kafka and ClickHouse are kept [default: faultline/parts in the user's cache directory]
    #[arg(long, value_name = "DIRECTORY")]
    parts_dir: Option<PathBuf>,
    /// Use this Kafka (host:port, several separated by commas) instead of starting one
    #[arg(long, value_name = "BROKERS")]
    kafka: Option<String>,
    /// Use this ClickHouse (http://host:port) instead of starting one; user and password are `clickhouse.user` and `clickhouse.password`
    #[arg(long, value_name = "URL")]
    clickhouse: Option<String>,
    /// Let a simulated fleet play this scenario (TOML); services/simulator/scenarios has some
    #[arg(long, value_name = "FILE")]
    simulate: Option<PathBuf>,
    /// Stop when the scenario is over, and fail unless the incidents are exactly those that it is to make
    #[arg(long, requires = "simulate")]
    check: bool,
    /// Accept a Kafka of others with which the loss of one machine loses acknowledged events
    #[arg(long)]
    allow_weak_durability: bool,
}

impl Options {
    fn apply(self, config: &mut Config) -> anyhow::Result<Wanted> {
        let wanted = Wanted { kafka: self.kafka.is_none(), clickhouse: self.clickhouse.is_none() };
        if let Some(directory) = self.data_dir {
            config.local.data_dir = directory;
        }
        if let Some(directory) = self.parts_dir {
            config.local.parts_dir = directory;
        }
        if let Some(brokers) = self.kafka {
            config.kafka.brokers = brokers;
        } else if config.kafka.brokers != KafkaConfig::default().brokers {
            tracing::warn!("`kafka.brokers` is not used: `up` starts a Kafka of its own, unless --kafka names another");
        }
        if let Some(address) = self.clickhouse {
            config.clickhouse.url = address.parse().context("--clickhouse")?;
        } else if config.clickhouse.url != ClickHouseConfig::default().url {
            tracing::warn!("`clickhouse.url` is not used: `up` starts a ClickHouse of its own, unless --clickhouse names another");
        }
        config.kafka.allow_weak_durability |= self.allow_weak_durability;
        Ok(wanted)
    }
}

/// Parts are installed, started, asked until they answer, given topics and schema; the services run on them until a signal; then all is
/// stopped, the services first.
pub(crate) async fn run(mut config: Config, options: Options, telemetry: &Telemetry) -> anyhow::Result<()> {
    let mut signals = StopSignals::catch().context("cannot catch signals")?;
    let simulation = options.simulate.as_deref().map(|path| Simulation::load(path, |_| ())).transpose()?;
    if simulation.is_some() {
        can_simulate(&config)?;
    }
    let simulation = simulation.map(|simulation| Ok::<_, anyhow::Error>((length(&simulation, options.check)?, simulation))).transpose()?;
    let wanted = options.apply(&mut config)?;
    if wanted == (Wanted { kafka: false, clickhouse: false }) {
        return Box::pin(serve((config, telemetry), simulation, None, &mut signals)).await;
    }
    let local = tokio::select! {
        local = start(&config, wanted) => local?,
        signal = signals.next() => {
            tracing::info!(signal, "asked to stop");
            return Ok(());
        }
    };
    if let Some(brokers) = local.kafka_brokers() {
        config.kafka.brokers = brokers.to_owned();
        config.kafka.partitions = config.local.kafka_partitions;
        // One machine: its loss loses everything, whatever Kafka promises.
        config.kafka.replication_factor = 1;
        config.kafka.min_insync_replicas = 1;
        config.kafka.allow_weak_durability = true;
    }
    if let Some(access) = local.clickhouse() {
        config.clickhouse.url = access.url.parse().context("the local ClickHouse")?;
        config.clickhouse.user.clone_from(&access.user);
        config.clickhouse.password = access.password.clone().into();
    }
    let outcome = Box::pin(serve((config, telemetry), simulation, Some(&local), &mut signals)).await;
    tracing::info!("stopping Kafka and ClickHouse; a second Ctrl-C ends everything at once");
    tokio::select! {
        () = local.stop() => outcome,
        signal = signals.next() => bail!("ended at once by a second signal ({signal}), without waiting for Kafka and ClickHouse to stop"),
    }
}

async fn start(config: &Config, wanted: Wanted) -> anyhow::Result<LocalParts> {
    let parts = Parts::install(&config.local.parts_directory()?, wanted).await?;
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    Ok(LocalParts::start(&config.local, &parts, &program).await?)
}

/// Brings everything up and lets it run until a signal, or until a local part cannot be kept running.
async fn serve(
    (mut config, telemetry): (Config, &Telemetry),
    simulation: Option<(Length, Simulation)>,
    local: Option<&LocalParts>,
    signals: &mut StopSignals,
) -> anyhow::Result<()> {
    let token = provide_token(&mut config)?;
    let tools = local.map(|_| provide_tools(&config)).transpose()?;
    let process = Process::bind(&config, telemetry).await?;
    let gateway = Gateway::new(&config.gateway, &config.kafka, &process.readiness)?;
    let classifier = Classifier::new(&config.classifier, &config.kafka, &config.clickhouse, &process.readiness)?;
    let alerter = Alerter::new(&config.alerter, &config.kafka, &config.clickhouse, &process.readiness)?.with_rules(rule_files(&config)?);
    let console = Console::new(&config.console, &config.clickhouse, &process.readiness)?.with_rules(rule_files(&config)?);
    let listener = bind(config.gateway.listen, "gateway.listen").await?;
    let page = bind(config.console.listen, "console.listen").await?;

    let (readiness, stop) = (process.readiness.clone(), process.stop.clone());
    // The fleet stops first, while there is still somebody to report to.
    let services_stop = CancellationToken::new();
    let begin = Instant::now();
    let coming_up = async {
        tokio::select! {
            up = bring_up(&config, begin) => up?,
            () = stop.cancelled() => return Ok(()),
        }
        let announcing = async {
            let left = config.up.ready_within.saturating_sub(begin.elapsed());
            if timeout(left, readiness.until_ready()).await.is_err() {
                let seconds = config.up.ready_within.as_secs_f32();
                bail!(
                    "Kafka and ClickHouse answer, but the services were not ready within {seconds} s: {}",
                    readiness.obstacles().join("; ")
                );
            }
            say(&summary(&config, local, (token.as_deref(), tools.as_deref()))?);
            anyhow::Ok(())
        };
        let conducting = async {
            tokio::select! {
                announced = announcing => announced?,
                () = stop.cancelled() => {}
            }
            match (&simulation, &token) {
                (Some((length, simulation)), Some(token)) if !stop.is_cancelled() => {
                    play((simulation, *length), &config, token, &stop).await?;
                    if let Length::Checked(_) = length {
                        // Who does not look sees nothing either. An answer that was late once is not that.
                        let is_ready = tokio::select! {
                            ready = timeout(config.up.ready_within, readiness.until_ready()) => ready.is_ok(),
                            () = stop.cancelled() => true,
                        };
                        if !is_ready {
                            bail!("Faultline was not ready at the end of the scenario: {}", readiness.obstacles().join("; "));
                        }
                        stop.cancel();
                    }
                }
                _ => {}
            }
            stop.cancelled().await;
            services_stop.cancel();
            std::future::pending().await
        };
        let serving = async { Ok(Box::pin(gateway.serve(listener, services_stop.clone())).await?) };
        let classifying = async { Ok(Box::pin(classifier.serve(services_stop.clone())).await?) };
        let alerting = async { Ok(Box::pin(alerter.serve(services_stop.clone())).await?) };
        let showing = async { Ok(Box::pin(console.serve(page, services_stop.clone())).await?) };
        tokio::select! {
            // All end when they are asked to; one that fails ends the others.
            ended = async { tokio::try_join!(serving, classifying, alerting, showing) } => ended.map(|_| ()),
            failed = Box::pin(conducting) => failed,
        }
    };
    let gave_up = async {
        match local {
            Some(local) => local.gave_up().await,
            None => std::future::pending().await,
        }
    };
    let running = Box::pin(async {
        tokio::select! {
            result = coming_up => result,
            given_up = gave_up => Err(given_up.into()),
        }
    });
    process.run_until_stopped(running, signals).await
}

/// A fleet needs the token that is made here, and a gateway without TLS.
fn can_simulate(config: &Config) -> anyhow::Result<()> {
    for (key, path) in
        [("gateway.token_file", &config.gateway.token_file), ("gateway.tls_certificate_file", &config.gateway.tls_certificate_file)]
    {
        if !path.as_os_str().is_empty() {
            bail!("--simulate does not go with `{key}`, which is set; run `faultline up` without it, and `faultline simulate` beside it");
        }
    }
    Ok(())
}

/// How long a scenario is played.
fn length(simulation: &Simulation, is_checked: bool) -> anyhow::Result<Length> {
    if !is_checked {
        return Ok(Length::Unlimited);
    }
    let end = simulation.scenario().end();
    end.map(Length::Checked).context("--check needs a scenario that ends: each `fault` with a `duration`")
}

/// Lets a simulated fleet report to the gateway of this process.
async fn play((simulation, length): (&Simulation, Length), config: &Config, token: &Path, stop: &CancellationToken) -> anyhow::Result<()> {
    let token = std::fs::read_to_string(token).with_context(|| format!("cannot read the token in {}", token.display()))?;
    let listen = config.gateway.listen;
    // Everywhere includes here.
    let host = if listen.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { listen.ip() };
    let address = format!("http://{}", SocketAddr::new(host, listen.port()));
    let gateway = faultline_simulator::Gateway { address, token: token.trim().into(), ca_certificate: None };
    let database = Database::new(&config.clickhouse)?;
    let show = Show { simulation, gateway: &gateway, database: &database, tenant: Some(TRIAL_TENANT), length };
    show.play(stop).await.map(|_| ())
}

/// Waits for Kafka and ClickHouse, and gives them topics and schema.
async fn bring_up(config: &Config, begin: Instant) -> anyhow::Result<()> {
    let limit = config.up.ready_within;
    let cluster = Cluster::new(&config.kafka)?;
    let database = Database::new(&config.clickhouse)?;
    tokio::try_join!(
        wait_until_ready("Kafka", limit, async || cluster.probe().await),
        wait_until_ready("ClickHouse", limit, async || database.probe().await),
    )?;
    tracing::info!("Kafka and ClickHouse answer after {:.1} s", begin.elapsed().as_secs_f32());

    let left = limit.saturating_sub(begin.elapsed());
    let set_up = timeout(left, set_up(&cluster, &database)).await;
    set_up.with_context(|| format!("Kafka and ClickHouse answer, but topics and schema were not there within {} s", limit.as_secs_f32()))?
}

/// Makes a file with one token, of a tenant for trying things out, where none is configured. Returns the file that has the token itself.
fn provide_token(config: &mut Config) -> anyhow::Result<Option<PathBuf>> {
    if !config.gateway.token_file.as_os_str().is_empty() {
        return Ok(None);
    }
    let directory = config.local.data_directory()?.join("gateway");
    let (file, token_file) = (directory.join("tokens"), directory.join("token"));
    if !file.exists() {
        let token = token::random();
        let line = faultline_gateway::credential(&token, TRIAL_TENANT, None).map_err(|reason| anyhow!(reason))?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .and_then(|()| token::write_private(&token_file, &format!("{token}\n")))
            .and_then(|()| token::write_private(&file, &line))
            .with_context(|| format!("cannot make a token in {}", directory.display()))?;
    }
    config.gateway.token_file = file;
    Ok(Some(token_file))
}

/// Writes down how the tools of this program reach what `up` has started. Returns the file.
fn provide_tools(config: &Config) -> anyhow::Result<PathBuf> {
    let path = config.local.data_directory()?.join(TOOLS_FILE);
    let mut written = toml::Table::try_from(config).context("the configuration of tools")?;
    written.retain(|table, _| ["kafka", "clickhouse", "classifier"].contains(&table));
    if let Some(clickhouse) = written.get_mut("clickhouse").and_then(toml::Value::as_table_mut) {
        clickhouse.insert("password".into(), config.clickhouse.password.expose_secret().into());
    }
    let text = format!("# Written by faultline at every start.\n{written}");
    token::write_private(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// Makes sure of the topics and the schema.
async fn set_up(cluster: &Cluster, database: &Database) -> anyhow::Result<()> {
    let topics = cluster.ensure_topics().await?;
    let created: Vec<_> = topics.iter().filter(|(_, state)| *state == TopicState::Created).map(|(name, _)| name.as_str()).collect();
    tracing::info!(topics = topics.len(), created = listed(&created), "topics are there");
    let migrated = database.migrate().await?;
    tracing::info!(version = migrated.version, steps_taken = listed(&migrated.applied), "schema is there");
    Ok(())
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "none".into() } else { names.join(" ") }
}

/// What a person wants to know of a system that has come up.
fn summary(config: &Config, local: Option<&LocalParts>, (token, tools): (Option<&Path>, Option<&Path>)) -> anyhow::Result<String> {
    let scheme = if config.gateway.tls_key_file.as_os_str().is_empty() { "http" } else { "https" };
    let mut text = format!("\nFaultline is up.\n\n  Console     http://{}/ (API: /api/v1/openapi.json)\n", config.console.listen);
    text.push_str(&format!("  Terminals   {scheme}://{} (gRPC)\n", config.gateway.listen));
    if let Some(token) = token {
        text.push_str(&format!("              token of tenant {TRIAL_TENANT} in {}\n", token.display()));
    }
    text.push_str(&format!("  Monitoring  http://{}/metrics, /readyz, /livez\n", config.monitoring.listen));
    text.push_str(&format!("  Kafka       {}\n", config.kafka.brokers));
    text.push_str(&format!(
        "  ClickHouse  {}, database {}, user {}\n",
        config.clickhouse.url, config.clickhouse.database, config.clickhouse.user
    ));
    if let Some(access) = local.and_then(LocalParts::clickhouse) {
        text.push_str(&format!("              password in {}\n", access.password_file.display()));
    }
    if local.is_some() {
        text.push_str(&format!("  Data, logs  {}\n", config.local.data_directory()?.display()));
    }
    if let Some(tools) = tools {
        text.push_str(&format!("  Tools       faultline --config {} dlq, replay, corrections\n", tools.display()));
    }
    text.push_str("\nCtrl-C stops it.\n");
    Ok(text)
}
