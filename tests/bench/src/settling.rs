//! Whether verdicts are right: labelled scenarios, judged by the program as anybody's outcomes would be, beside what others would say of the same.
//!
//! A case is a directory with two files:
//!
//! - `outcomes.jsonl`: what terminals report, a line each: `faultline.ingest.v1.ReportedOutcome` as JSON;
//! - `truth.csv`: `terminal,spool,sequence,cause,oracle,fault`: whose fault each failure was, which no terminal knows. `oracle` is the cause that is likeliest for somebody who knows which faults
//!   there were, and how often each makes which outcomes fail in which way; empty where nobody does. `fault` is the number of the fault in the scenario, or 0.
//!
//! Cases are made of scenarios (`settling/scenario.rs` has their form) and seeds, or brought along.

mod scenario;
mod score;
mod world;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use faultline_proto::ingest::v1::ReportedOutcome;
use faultline_proto::json::Json;
use faultline_proto::outcome::v1::{Outcome, Stage};
use faultline_proto::verdict::v1::{Cause, ClassifiedOutcome};
use faultline_verdict::Rules;
use serde::{Deserialize, Serialize};

use self::scenario::Scenario;
use self::score::{Calibration, Confusion, percentile};
use self::world::play;
use crate::report::{Figure, Report, say};

const REPORTED: &str = "faultline.ingest.v1.ReportedOutcome";
const CLASSIFIED: &str = "faultline.verdict.v1.ClassifiedOutcome";
/// How many ambiguous cases a kind of scenario has at least, so that its figures say something.
const LEAST_CASES: f64 = 300.0;

/// What is judged.
pub(crate) struct Cases<'a> {
    /// The program that judges.
    pub(crate) program: &'a Path,
    /// Where scenarios are.
    pub(crate) scenarios: &'a Path,
    /// Seeds that each is played with.
    pub(crate) seeds: &'a [u64],
    /// Cases that are brought along, instead of scenarios.
    pub(crate) data: &'a [PathBuf],
    /// Where cases are written.
    pub(crate) output: &'a Path,
}

/// A row of `truth.csv`.
#[derive(Debug, Serialize, Deserialize)]
struct Truth {
    terminal: String,
    spool: u64,
    sequence: u64,
    cause: String,
    #[serde(default)]
    oracle: String,
    #[serde(default)]
    fault: usize,
}

/// Who says whose fault it was.
#[derive(Default)]
struct Scores {
    first: Confusion,
    settled: Confusion,
    table: Confusion,
    stage: Confusion,
    oracle: Confusion,
    calibration: Calibration,
    settled_after_s: Vec<f64>,
}

/// Judges all cases.
pub(crate) fn measure(cases: &Cases<'_>) -> anyhow::Result<Report> {
    let mut by_kind: Vec<(String, Scores)> = Vec::new();
    if cases.data.is_empty() {
        for path in scenarios(cases.scenarios)? {
            let scenario = Scenario::read(&path)?;
            say(&format!("verdicts: {}: {}\n", scenario.name, scenario.title));
            let mut scores = Scores::default();
            for seed in cases.seeds {
                let directory = cases.output.join("verdicts").join(format!("{}-{seed}", scenario.name));
                write(&directory, &scenario, *seed)?;
                judge(cases.program, &directory, &mut scores)?;
            }
            by_kind.push((scenario.name, scores));
        }
    }
    for directory in cases.data {
        let mut scores = Scores::default();
        judge(cases.program, directory, &mut scores)?;
        by_kind.push((directory.display().to_string(), scores));
    }
    ensure!(!by_kind.is_empty(), "there are no cases");
    say(&table(&by_kind));
    let mut all = Scores::default();
    let mut fewest = f64::INFINITY;
    let kinds = by_kind.len();
    for (_, scores) in by_kind {
        fewest = fewest.min(scores.settled.cases());
        all.add(scores);
    }
    let (settled, oracle) = (all.settled.macro_f1(), all.oracle.macro_f1());
    let mut figures = vec![
        Figure::at_least(("verdict_kinds", ""), 12.0, f64::from(u32::try_from(kinds)?)),
        Figure::at_least(("verdict_cases_least", ""), LEAST_CASES, fewest),
        Figure::at_least(("verdict_macro_f1_settled", ""), 0.97, settled),
        Figure::stated(("verdict_macro_f1_first", ""), all.first.macro_f1()),
        Figure::stated(("verdict_macro_f1_code_table", ""), all.table.macro_f1()),
        Figure::stated(("verdict_macro_f1_stage_rule", ""), all.stage.macro_f1()),
        Figure::at_most(("verdict_calibration_error", ""), 0.03, all.calibration.error()),
        Figure::stated(("verdict_settled_after_s_p95", "s"), percentile(&mut all.settled_after_s, 0.95)),
    ];
    if all.oracle.cases() > 0.0 {
        figures.push(Figure::stated(("verdict_macro_f1_oracle", ""), oracle));
        figures.push(Figure::at_most(("verdict_macro_f1_below_oracle", ""), 0.02, oracle - settled));
    }
    Ok(Report { bench: "settling", figures })
}

impl Scores {
    fn add(&mut self, other: Scores) {
        let Scores { first, settled, table, stage, oracle, calibration, mut settled_after_s } = other;
        let pairs = [
            (&mut self.first, first),
            (&mut self.settled, settled),
            (&mut self.table, table),
            (&mut self.stage, stage),
            (&mut self.oracle, oracle),
        ];
        pairs.into_iter().for_each(|(sum, more)| sum.add(&more));
        self.calibration.add(&calibration);
        self.settled_after_s.append(&mut settled_after_s);
    }
}

fn scenarios(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    found.retain(|path| {
        path.extension().is_some_and(|extension| extension == "toml") && path.file_stem().is_some_and(|name| name != "usual")
    });
    found.sort();
    Ok(found)
}

/// Makes a case.
fn write(directory: &Path, scenario: &Scenario, seed: u64) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let json = Json::<ReportedOutcome>::named(REPORTED)?;
    let mut outcomes = BufWriter::new(std::fs::File::create(directory.join("outcomes.jsonl"))?);
    let mut truths = csv::Writer::from_path(directory.join("truth.csv"))?;
    for labelled in play(scenario, seed)? {
        writeln!(outcomes, "{}", json.line(&labelled.reported)?)?;
        if labelled.truth != Cause::Approved {
            let ReportedOutcome { terminal_id, spool_id, sequence, .. } = labelled.reported;
            let (cause, oracle) = (name(labelled.truth), name(labelled.oracle));
            truths.serialize(Truth { terminal: terminal_id, spool: spool_id, sequence, cause, oracle, fault: labelled.fault })?;
        }
    }
    outcomes.flush()?;
    Ok(truths.flush()?)
}

/// Has a case judged, and compares with the truth.
fn judge(program: &Path, directory: &Path, scores: &mut Scores) -> anyhow::Result<()> {
    let mut truths: HashMap<(String, u64, u64), Truth> = HashMap::new();
    for row in csv::Reader::from_path(directory.join("truth.csv")).context("a case has its truth beside it")?.deserialize() {
        let truth: Truth = row?;
        truths.insert((truth.terminal.clone(), truth.spool, truth.sequence), truth);
    }
    let path = directory.join("outcomes.jsonl");
    let rules = Rules::built_in()?;
    let (reported, classified) = (Json::<ReportedOutcome>::named(REPORTED)?, Json::<ClassifiedOutcome>::named(CLASSIFIED)?);
    let mut child = Command::new(program)
        .args(["classify", "--settle", "--every", "1m"])
        .arg(&path)
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let answers = BufReader::new(child.stdout.take().context("the program has no output")?);
    let outcomes = BufReader::new(std::fs::File::open(&path)?);
    for (line, answer) in outcomes.lines().zip(answers.lines()) {
        let (outcome, answer) = (reported.read(&line?)?, classified.read(&answer?)?);
        let Some(settled) = answer.settled else { continue };
        let Some(truth) = truths.get(&(answer.terminal_id, answer.spool_id, answer.sequence)) else { continue };
        let cause = cause(&truth.cause)?;
        let outcome = outcome.outcome.unwrap_or_default();
        scores.settled.count(cause, settled.cause());
        scores.first.count(cause, answer.verdict.unwrap_or_default().cause());
        scores.table.count(cause, rules.verdict(&bare(&outcome)).reason.cause);
        scores.stage.count(cause, by_stage(outcome.stage()));
        if !truth.oracle.is_empty() {
            scores.oracle.count(cause, self::cause(&truth.oracle)?);
        }
        scores.calibration.count(settled.confidence, settled.cause() == cause);
        scores.settled_after_s.push(f64::from(answer.settled_after_s));
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{} classify {}: {status}", program.display(), path.display());
    }
    Ok(())
}

/// An outcome as it was without what only newer terminals report: for the code table alone.
fn bare(outcome: &Outcome) -> Outcome {
    Outcome {
        stage: outcome.stage,
        response_code: outcome.response_code.clone(),
        response_spec: outcome.response_spec.clone(),
        network: outcome.network,
        result: outcome.result,
        terminal_condition: outcome.terminal_condition,
        ..Outcome::default()
    }
}

/// Whose fault it is for somebody who only looks at where it ended.
fn by_stage(stage: Stage) -> Cause {
    match stage {
        Stage::CardRead | Stage::PinEntry | Stage::Print => Cause::Device,
        Stage::Dns | Stage::Connect | Stage::Tls | Stage::Send | Stage::Wait | Stage::Reversal => Cause::Network,
        Stage::HostDecision => Cause::Bank,
        Stage::OfflineDecision | Stage::Unspecified => Cause::Account,
    }
}

fn name(cause: Cause) -> String {
    cause.as_str_name().trim_start_matches("CAUSE_").to_lowercase()
}

fn cause(name: &str) -> anyhow::Result<Cause> {
    Cause::from_str_name(&format!("CAUSE_{}", name.to_uppercase())).with_context(|| format!("`{name}` is no cause"))
}

/// By kind, for people.
fn table(by_kind: &[(String, Scores)]) -> String {
    let mut table = format!(
        "\n{:<22} {:>7} {:>8} {:>8} {:>8} {:>8} {:>8} {:>12}\n",
        "right, of ambiguous", "cases", "settled", "oracle", "first", "table", "stage", "calibration"
    );
    for (name, scores) in by_kind {
        let Scores { settled, oracle, first, table: codes, stage, calibration, .. } = scores;
        let [settled_right, oracle, first, codes, stage] = [settled, oracle, first, codes, stage].map(Confusion::right);
        table.push_str(&format!(
            "{name:<22} {:>7} {settled_right:>8.4} {oracle:>8.4} {first:>8.4} {codes:>8.4} {stage:>8.4} {:>12.4}\n",
            settled.cases(),
            calibration.error()
        ));
    }
    table
}
