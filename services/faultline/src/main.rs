//! `faultline`: every service and tool of Faultline in one program.

mod backtest;
mod classify;
mod columns;
mod config;
mod consent;
mod corrections;
mod dlq;
mod explain;
mod health;
mod import;
mod incidents;
mod outcome_json;
mod output;
mod replay;
mod rules;
mod service;
mod simulate;
mod token;
mod up;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use faultline_deploy::{Parts, Wanted};
use faultline_runtime::error::with_causes;
use faultline_runtime::telemetry::{self, Telemetry};
use tikv_jemallocator::Jemalloc;

use crate::config::{Config, DEFAULT_FILE};
use crate::import::SomeRefused;

/// Most of what the services do is to read messages into many small texts, and to let go of them. The allocator of the C library takes a tenth of their time for that.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Tells a payments company whose fault a failed card payment is, while it is happening.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    /// Configuration file (TOML); `faultline config --default` shows every key.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything on this machine until Ctrl-C: Kafka, ClickHouse, and what works on them.
    Up(up::Options),
    /// Run the gateway: terminals' batches over gRPC into Kafka.
    Gateway,
    /// Run the classifier: batches from Kafka, judged event by event, into ClickHouse.
    Classifier,
    /// Run the alerter: finds what goes wrong in the counts, and tells those who are on call. There is to be one.
    Alerter,
    /// Run the console: a web page and an HTTP API (JSON) that show what Faultline knows.
    Console,
    /// Play a scenario: a simulated fleet reports to a gateway, through the SDK, until Ctrl-C.
    Simulate(Box<simulate::Options>),
    /// Judge stored outcomes again, by other rules or another table of issuers: shows what would change, asks, then changes it.
    Replay(replay::Options),
    /// Judge outcomes (JSON lines) without any server: verdicts as JSON lines; --settle judges them as a fleet.
    Classify(classify::Options),
    /// Run the detector over a past, counted or as a directory: which incidents it would have opened, and with labels how right they are.
    Backtest(Box<backtest::Options>),
    /// Look at rules: whether they are in order, how a verdict comes about, what two versions say differently, which codes they do not know. Sign them for terminals.
    #[command(subcommand)]
    Rules(rules::Command),
    /// Which terminals want maintenance, which shops' networks are weak, which merchants want training.
    #[command(subcommand)]
    Health(health::Command),
    /// Why there is an incident: the numbers that led to it, whom it affects, and a query that shows them.
    Explain(explain::Options),
    /// What was corrected of stored outcomes, and how it is taken back.
    #[command(subcommand)]
    Corrections(corrections::Command),
    /// Look at dead letters, the records that could not be processed, and replay or drop them.
    Dlq(dlq::Options),
    /// Import outcomes from the logs of a switch, for terminals that cannot report themselves: what is new in them, once.
    Import(Box<import::Options>),
    /// Make a bearer token for a terminal, and print it: the only time that it is shown.
    Token(token::Options),
    /// Fetch and verify the programs of Kafka and ClickHouse that `up` runs. Does nothing when they are there.
    Parts {
        /// Where to keep them [default: faultline/parts in the user's cache directory]
        #[arg(long, value_name = "DIRECTORY")]
        parts_dir: Option<PathBuf>,
    },
    /// Show the configuration as it is, without secrets.
    Config {
        /// Show every key with its default and what it is for.
        #[arg(long)]
        default: bool,
    },
    /// Run the ClickHouse server of a library: how `up` starts ClickHouse.
    #[command(hide = true)]
    ClickhouseServer { library: PathBuf, directory: PathBuf },
}

impl Command {
    /// The part of Faultline that it runs, if it is not a tool.
    fn part(&self) -> Option<&'static str> {
        match self {
            Command::Up(_) => Some("up"),
            Command::Gateway => Some("gateway"),
            Command::Classifier => Some("classifier"),
            Command::Alerter => Some("alerter"),
            Command::Console => Some("console"),
            Command::Simulate(_)
            | Command::Replay(_)
            | Command::Classify(_)
            | Command::Backtest(_)
            | Command::Rules(_)
            | Command::Health(_)
            | Command::Corrections(_)
            | Command::Explain(_)
            | Command::Dlq(_)
            | Command::Import(_)
            | Command::Token(_)
            | Command::Parts { .. }
            | Command::Config { .. }
            | Command::ClickhouseServer { .. } => None,
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Before there are other threads: the launcher blocks signals, and threads inherit that.
    let result = match &cli.command {
        Command::ClickhouseServer { library, directory } => faultline_launcher::serve(library, directory).map_err(Into::into),
        _ => start(cli),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not through the log: it may not be set up, and the last word is for whoever started this.
            let _ = writeln!(std::io::stderr(), "error: {}", with_causes(error.as_ref()));
            if error.is::<SomeRefused>() { ExitCode::from(SomeRefused::EXIT_CODE) } else { ExitCode::FAILURE }
        }
    }
}

/// Runs a command to its end. What still waits for a server on a thread of its own then is not waited for.
fn start(cli: Cli) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let result = runtime.block_on(run(cli));
    output::finish();
    runtime.shutdown_background();
    result
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let config: Config = faultline_runtime::config::load(cli.config.as_deref())?;
    let telemetry = telemetry::init(&config.log, &config.otlp, cli.command.part())?;
    let result = execute(cli.command, config, &telemetry).await;
    // It blocks, and the runtime has to go on meanwhile: that is what sends.
    tokio::task::block_in_place(|| telemetry.finish());
    result
}

async fn execute(command: Command, mut config: Config, telemetry: &Telemetry) -> anyhow::Result<()> {
    match command {
        Command::Up(options) => up::run(config, options, telemetry).await,
        Command::Gateway => service::gateway(config, telemetry).await,
        Command::Classifier => service::classifier(config, telemetry).await,
        Command::Alerter => service::alerter(config, telemetry).await,
        Command::Console => service::console(config, telemetry).await,
        Command::Simulate(options) => Box::pin(simulate::run(&config, *options)).await,
        Command::Replay(options) => Box::pin(replay::run(&config, options)).await,
        Command::Classify(options) => classify::run(&config, &options),
        Command::Backtest(options) => Box::pin(backtest::run(&config, &options)).await,
        Command::Rules(command) => Box::pin(rules::run(&config, command)).await,
        Command::Health(command) => Box::pin(health::run(&config, command)).await,
        Command::Explain(options) => Box::pin(explain::run(&config, &options)).await,
        Command::Corrections(command) => Box::pin(corrections::run(&config, command)).await,
        Command::Dlq(options) => dlq::run(&config.kafka, options).await,
        Command::Import(options) => Box::pin(import::run(&config, *options)).await,
        Command::Token(options) => answer(&format!("{}\n", token::add(&options)?)),
        Command::Parts { parts_dir } => {
            if let Some(directory) = parts_dir {
                config.local.parts_dir = directory;
            }
            let directory = config.local.parts_directory()?;
            let wanted = Wanted { kafka: true, clickhouse: true };
            Parts::install(&directory, wanted).await?.verify(&directory).await?;
            answer(&format!("Kafka and ClickHouse are installed and verified in {}\n", directory.display()))
        }
        Command::Config { default: true } => answer(DEFAULT_FILE),
        Command::Config { default: false } => answer(&toml::to_string(&config)?),
        Command::ClickhouseServer { .. } => Ok(()),
    }
}

/// Writes what a command was asked for.
fn answer(text: &str) -> anyhow::Result<()> {
    let mut output = std::io::stdout().lock();
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).context("cannot write to standard output")
}
