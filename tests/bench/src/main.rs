//! `make bench`: measures what Faultline costs and how fast it is, says it as a table, and writes it to `target/bench/<name>.json`:
//!
//! ```json
//! {"bench": "verdicts", "figures": [{"name": "verdict_events_per_s_core", "value": 2500000.0, "unit": "events/s", "target": 1000000.0, "holds": true}]}
//! ```
//!
//! What works is measured in CPU seconds, which other work on the machine disturbs least, or beside a limit or a peer in the same run.

mod alerts;
mod attribution;
mod detect;
mod fleet;
mod gateway;
mod incident;
mod ingest;
mod load;
mod loading;
mod local;
mod outage;
mod processes;
mod rca;
mod replay;
mod report;
mod settling;
mod store;
mod terminal;
mod verdicts;
mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::rca::Instances;
use crate::report::{Report, say};
use crate::settling::Cases;

/// Measures what Faultline costs and how fast it is.
#[derive(Debug, Parser)]
struct Options {
    /// What to measure; without any, everything
    benches: Vec<Bench>,
    /// Where figures are written
    #[arg(long, value_name = "DIRECTORY", default_value = "target/bench")]
    output: PathBuf,
    /// The program that is measured
    #[arg(long, value_name = "FILE", default_value = "target/release/faultline")]
    program: PathBuf,
    /// How long ClickHouse hangs in `outage`
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    stop: Duration,
    /// How often everything fails in `alerts`
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    runs: u32,
    /// Labelled scenarios of `settling`: a file (TOML), or a directory of them; tests/bench/src/settling/scenario.rs has their form [default: tests/bench/scenarios].
    /// Of `detect`: files (JSON), or names of the yardstick's [default: all of them that have faults]
    #[arg(long, value_name = "PATH", value_delimiter = ',')]
    scenarios: Vec<String>,
    /// Seeds that each scenario is played with [default: 101,102,103; of `detect` 11,12]
    #[arg(long, value_name = "SEED", value_delimiter = ',')]
    seeds: Vec<u64>,
    /// Of `detect`, where the yardstick is: generate.py, oracle.py, public/
    #[arg(long, value_name = "DIRECTORY", default_value = "../shared/detect")]
    shared: PathBuf,
    /// Of `detect`, how many days of a fleet of 1,000 transactions a minute without faults are looked at
    #[arg(long, value_name = "DAYS", default_value_t = 64)]
    quiet_days: u32,
    /// Of `detect`, the same of one of 20,000
    #[arg(long, value_name = "DAYS", default_value_t = 4)]
    quiet_large_days: u32,
    /// Of `detect`: plain detectors run on the same streams too
    #[arg(long)]
    peers: bool,
    /// Judge these cases of `settling` instead: directories with outcomes.jsonl and truth.csv
    #[arg(long, value_name = "DIRECTORY")]
    data: Vec<PathBuf>,
    /// Localisation sets of `rca`; tests/bench/src/rca/sets.rs has their forms
    #[arg(long, value_name = "DIRECTORY", default_value = "../shared/rca")]
    rca: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Bench {
    /// How many outcomes are judged in a second of one core.
    Verdicts,
    /// How well faults are found in streams of a yardstick, which is not part of this repository: only where it is asked for.
    Detect,
    /// How long it takes to say what a million failures belong to.
    Attribution,
    /// What it costs to attribute an incident of a million failures that ClickHouse holds, and to write down whose fault each was.
    Incident,
    /// Whether verdicts are right: labelled scenarios, judged outcome by outcome and together, beside the code table, a rule by stage, and an oracle.
    Settling,
    /// What verdicts cost in a terminal: bytes of a bundle of rules, memory of rules in force, size of the programs.
    Terminal,
    /// What a million events cost from the terminal's stream to Kafka: gateway and broker.
    Gateway,
    /// What a million events cost from Kafka into ClickHouse: classifier and server, beside the same blocks ready-made and ClickHouse's own Kafka engine;
    /// and what the classifier remembers of a million terminals, and how long it takes to load them.
    Ingest,
    /// How long it takes until somebody is told of a fault, by kind, on the whole road: `--runs` times through all kinds, some eighteen minutes each.
    Alerts,
    /// Whether the localiser names what moved: sets with known answers, scored.
    Rca,
    /// What the services grow by while ClickHouse hangs for ten minutes and 20,000 events a second come, how fast they are counted afterwards, and what it
    /// costs to judge all of them again.
    Outage,
    /// What it takes to watch 10,000 slices of a fleet that reports 20,000 events a second, of which ClickHouse holds them: ten seconds, and what exactly failed
    /// in five minutes.
    Watch,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> anyhow::Result<()> {
    // Parts run in directories of their own.
    let program = std::path::absolute(&options.program)?;
    let everything: Vec<Bench> = Bench::value_variants().iter().copied().filter(|bench| *bench != Bench::Detect).collect();
    let wanted = if options.benches.is_empty() { everything.as_slice() } else { options.benches.as_slice() };
    let seeds = |default: &[u64]| if options.seeds.is_empty() { default.to_vec() } else { options.seeds.clone() };
    let mut reports: Vec<Report> = Vec::new();
    for bench in wanted {
        let report = match bench {
            Bench::Verdicts => verdicts::measure()?,
            Bench::Detect => detect::measure(&detect::Plan {
                shared: &options.shared,
                scenarios: &options.scenarios,
                seeds: &seeds(&[11, 12]),
                quiet_days: options.quiet_days,
                quiet_large_days: options.quiet_large_days,
                peers: options.peers,
                output: &options.output,
            })?,
            Bench::Attribution => attribution::measure()?,
            Bench::Incident => incident::measure(&program).await?,
            Bench::Settling => settling::measure(&Cases {
                program: &program,
                scenarios: Path::new(options.scenarios.first().map_or("tests/bench/scenarios", String::as_str)),
                seeds: &seeds(&[101, 102, 103]),
                data: &options.data,
                output: &options.output,
            })?,
            Bench::Terminal => terminal::measure(&program)?,
            Bench::Gateway => gateway::measure(&program).await?,
            Bench::Ingest => ingest::measure(&program).await?,
            Bench::Alerts => alerts::measure(&program, options.runs).await?,
            Bench::Rca => rca::measure(&Instances { directory: &options.rca, seeds: &seeds(&[101, 102, 103]), output: &options.output })?,
            Bench::Outage => outage::measure(&program, options.stop).await?,
            Bench::Watch => watch::measure(&program).await?,
        };
        report.write(&options.output)?;
        reports.push(report);
    }
    say(&report::table(&reports));
    Ok(())
}
