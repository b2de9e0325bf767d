//! `faultline backtest`: the detector over a past, and which incidents it would have opened. With labels, how right they are.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use clap::Args;
use faultline_alerter::Backtest;
use faultline_backtest::{
    Directory, Finding, Found, Oracle, OracleClass, Outcome, Progress, Score, Summary, Verdict, read_labels, read_oracle, run as run_over,
    score, slice_text, write_incidents,
};
use faultline_detect::{Incident, Settings, Slice, State, Watch};
use faultline_store::Database;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::answer;
use crate::columns::{self, Column};
use crate::config::Config;
use crate::replay::{moment, second};

/// How often it is said how it goes: on a terminal, and elsewhere.
const SHOW: Duration = Duration::from_millis(500);
const TELL: Duration = Duration::from_secs(10);

/// Which past, and what is written of it.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Options {
    /// A past as a directory of counts: leaves.csv, counts.csv.gz, history.csv.gz, and calendar.csv where something was announced; docs/backtest.md has the format
    #[arg(value_name = "DIRECTORY", required_unless_present = "tenant", conflicts_with_all = ["tenant", "from", "until"])]
    directory: Option<PathBuf>,
    /// Instead, what ClickHouse has counted of this tenant
    #[arg(long, value_name = "NAME", requires = "from")]
    tenant: Option<String>,
    /// From then on: a moment in UTC (2026-11-29T08:00:00Z), or how long ago it is (24h)
    #[arg(long, value_name = "TIME", value_parser = moment, requires = "tenant")]
    from: Option<SystemTime>,
    /// Until before then [default: now]
    #[arg(long, value_name = "TIME", value_parser = moment, requires = "tenant")]
    until: Option<SystemTime>,
    /// Faults that there were (CSV: fault, start, end, kind, slice, cause, expect): scores are told too
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// How fast each of them could be seen at all (CSV: fault, detectable, oracle_delay_s)
    #[arg(long, value_name = "FILE", requires = "labels")]
    oracle: Option<PathBuf>,
    /// Write the incidents into this file (CSV: opened_at, closed_at, slice, cause, first_slice)
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Everything as JSON
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
The same past gives the same incidents, whenever it is asked: with the alerter's settings (`alerter.days_per_false_incident`), and for --tenant with its
calendar (`alerter.calendar`). Nothing is written but the file of --out, and nobody is called.";

/// What came of it.
struct Answer {
    found: Vec<Found>,
    /// How slices are written: as in the directory, or as everywhere else.
    named: fn(&Slice) -> String,
    ticks: u64,
    events: Option<u64>,
    late: Option<u64>,
    score: Option<Score>,
}

pub(crate) async fn run(config: &Config, options: &Options) -> anyhow::Result<()> {
    // What is wrong with small files is said before large ones are read.
    let labels = options.labels.as_deref().map(read_labels).transpose()?;
    let oracle = options.oracle.as_deref().map(read_oracle).transpose()?;
    let mut answer = match (&options.directory, &options.tenant, options.from) {
        (Some(directory), ..) => tokio::task::block_in_place(|| of_directory(config, directory))?,
        (None, Some(tenant), Some(from)) => {
            let until = options.until.unwrap_or_else(SystemTime::now);
            if from >= until {
                bail!("--from is not before --until");
            }
            Box::pin(of_tenant(config, tenant, second(from)..second(until))).await?
        }
        _ => bail!("either a directory or --tenant with --from is to be given"),
    };
    answer.score = labels.map(|labels| scored(&labels, oracle.as_ref(), &answer));
    if let Some(path) = &options.out {
        let written = File::create(path).and_then(|file| write_incidents(&answer.found, BufWriter::new(file)));
        written.with_context(|| format!("cannot write {} (--out)", path.display()))?;
    }
    let settings = config.alerter.detection();
    if options.json { tell_json(&answer, settings) } else { tell(&answer, settings) }
}

fn of_directory(config: &Config, path: &Path) -> anyhow::Result<Answer> {
    let directory = Directory::open(path)?;
    let size = directory.size()?;
    let going = Going::new();
    let ran = run_over(&directory, config.alerter.detection(), Duration::default, |Progress { bucket, ticks, events, bytes }| {
        going.tell(|| {
            let share = real(bytes) / real(size.max(1)) * 100.0;
            format!("{share:.0} %, at {}: {ticks} ticks, {events} events", time(bucket))
        });
    })?;
    Ok(Answer { found: ran.found, named: slice_text, ticks: ran.ticks, events: Some(ran.events), late: Some(ran.late), score: None })
}

async fn of_tenant(config: &Config, tenant: &str, time_of: std::ops::Range<u32>) -> anyhow::Result<Answer> {
    let database = Database::new(&config.clickhouse)?;
    let all = time_of.end - time_of.start;
    let going = Going::new();
    let mut backtest = Backtest::begin(&database, &config.alerter, (tenant, time_of.clone())).await?;
    let (mut finding, mut ticks) = (Finding::default(), 0);
    while let Some((bucket, changes)) = backtest.step().await? {
        ticks += 1;
        finding.take_in(changes);
        let share = 100.0 * f64::from(bucket - time_of.start) / f64::from(all.max(1));
        going.tell(|| format!("{share:.0} %, at {}", time(bucket)));
    }
    Ok(Answer { found: finding.into_found(), named: Slice::to_string, ticks, events: None, late: None, score: None })
}

fn scored(labels: &[faultline_backtest::Fault], oracle: Option<&HashMap<String, Oracle>>, answer: &Answer) -> Score {
    let days = real(answer.ticks) * 10.0 / 86_400.0;
    Score { days, ..score(labels, &answer.found, oracle) }
}

/// Says now and then how it goes: a moving line on a terminal, plain lines elsewhere.
struct Going {
    bar: Option<ProgressBar>,
    told: std::cell::Cell<Instant>,
}

impl Going {
    fn new() -> Going {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
                bar.set_style(style);
            }
            bar
        });
        Going { bar, told: std::cell::Cell::new(Instant::now()) }
    }

    fn tell(&self, text: impl Fn() -> String) {
        let every = if self.bar.is_some() { SHOW } else { TELL };
        if self.told.get().elapsed() < every {
            return;
        }
        self.told.set(Instant::now());
        match &self.bar {
            Some(bar) => {
                bar.set_message(text());
                bar.tick();
            }
            // Standard output has the answer and nothing else.
            None => tracing::info!("{}", text()),
        }
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A line of the table.
struct Line<'a> {
    found: &'a Found,
    slice: String,
    first: String,
}

fn columns<'a>() -> [Column<Line<'a>>; 7] {
    [
        ("OPENED", |line| time(line.found.incident.opened)),
        ("CLOSED", |line| line.found.closed().map_or_else(|| "-".into(), time)),
        ("SLICE", |line| line.slice.clone()),
        ("CAUSE", |line| whose(&line.found.incident)),
        ("SIGNALS", |line| line.found.signals.iter().map(|signal| signal.name()).collect::<Vec<_>>().join(", ")),
        ("NATS", |line| format!("{:.0}", line.found.incident.watches.first().map_or(0.0, |watch| watch.evidence))),
        ("FIRST CALLED", |line| if line.first == line.slice { String::new() } else { line.first.clone() }),
    ]
}

/// Whose fault it is.
fn whose(incident: &Incident) -> String {
    incident.cause().as_str_name().trim_start_matches("CAUSE_").to_lowercase()
}

fn tell(found: &Answer, settings: Settings) -> anyhow::Result<()> {
    let lines = found.found.iter().map(|one| Line {
        found: one,
        slice: (found.named)(&one.incident.slice),
        first: (found.named)(&one.incident.first_slice),
    });
    let lines: Vec<Line<'_>> = lines.collect();
    let mut text = columns::table(&columns(), &lines.iter().collect::<Vec<_>>());
    if found.found.is_empty() {
        text = "No incident would have been opened.\n".into();
    }
    let days = real(found.ticks) * 10.0 / 86_400.0;
    text.push_str(&format!("\n{} incidents in {days:.2} days ({} ticks)", found.found.len(), found.ticks));
    if let (Some(events), Some(late)) = (found.events, found.late) {
        text.push_str(&format!(", {events} events and {late} that came too late"));
    }
    text.push_str(&format!(". Settings: {}.\n", in_words(settings)));
    if let Some(score) = &found.score {
        text.push_str(&scores(score));
    }
    answer(&text)
}

fn in_words(settings: Settings) -> String {
    let said = settings.figures().map(|(name, value)| format!("{name} {value}"));
    said.join(", ")
}

/// Scores in words.
fn scores(score: &Score) -> String {
    let all = [score.clone()];
    let mut text = String::from("\n");
    let figures = Summary::of(&all, |_| true);
    for (name, value) in figures.figures() {
        text.push_str(&format!("{name:<22} {value:.3}\n"));
    }
    for (name, class) in [("strong", OracleClass::Strong), ("medium", OracleClass::Medium), ("weak", OracleClass::Weak)] {
        let of = Summary::of(&all, |outcome: &Outcome| outcome.oracle.and_then(|oracle| oracle.class()) == Some(class));
        if of.detectable > 0 {
            text.push_str(&format!(
                "{name:<22} {} faults, recall {:.3}, median {:.0} s (oracle {:.0} s), p95 {:.0} s\n",
                of.detectable, of.recall, of.delay_median_s, of.oracle_median_s, of.delay_p95_s
            ));
        }
    }
    for outcome in score.outcomes.iter().filter(|outcome| outcome.seen.is_none() && outcome.is_detectable()) {
        text.push_str(&format!("missed: {} {} of {}\n", outcome.fault.number, outcome.fault.kind, outcome.fault.slice));
    }
    for (place, verdict) in score.verdicts.iter().enumerate() {
        match verdict {
            Verdict::False(during) => text.push_str(&format!("false: incident {} ({during})\n", place + 1)),
            Verdict::Duplicate => text.push_str(&format!("duplicate: incident {}\n", place + 1)),
            Verdict::Match | Verdict::Ignored => {}
        }
    }
    text
}

fn tell_json(found: &Answer, settings: Settings) -> anyhow::Result<()> {
    let incidents: Vec<Value> = found.found.iter().map(|one| incident(one, found.named)).collect();
    let settings: serde_json::Map<String, Value> =
        settings.figures().into_iter().map(|(name, value)| (name.into(), json!(value))).collect();
    let scores = found.score.as_ref().map(|score| {
        let faults: Vec<Value> = score.outcomes.iter().map(outcome).collect();
        let verdicts: Vec<String> = score.verdicts.iter().map(ToString::to_string).collect();
        json!({"summary": Summary::of(std::slice::from_ref(score), |_| true), "faults": faults, "verdicts": verdicts})
    });
    let said = json!({
        "settings": settings, "ticks": found.ticks, "events": found.events, "late_events": found.late, "incidents": incidents, "scores": scores,
    });
    answer(&format!("{}\n", serde_json::to_string_pretty(&said)?))
}

fn incident(found: &Found, named: fn(&Slice) -> String) -> Value {
    let incident = &found.incident;
    let state = match incident.state {
        State::Open => "open",
        State::Unobserved => "unobserved",
        State::Closed => "closed",
        State::Abandoned => "abandoned",
    };
    let watch = |watch: &Watch| {
        json!({
            "signal": watch.signal.name(), "attempts": watch.attempts, "counted": watch.counted, "expected": watch.expected,
            "evidence_nats": watch.evidence,
        })
    };
    let watches: Vec<Value> = incident.watches.iter().map(watch).collect();
    json!({
        "began": incident.began, "opened_at": incident.opened, "closed_at": found.closed(), "state": state,
        "slice": named(&incident.slice), "first_slice": named(&incident.first_slice), "cause": found.cause(),
        "whose": whose(incident), "reopened": found.reopened, "watches": watches,
    })
}

fn outcome(outcome: &Outcome) -> Value {
    let seen = outcome.seen.as_ref().map(|seen| {
        json!({"delay_s": seen.delay_s, "close_s": seen.close_s, "slice": seen.slice, "first_slice": seen.first_slice, "right_cause": seen.is_cause})
    });
    json!({
        "fault": outcome.fault.number, "kind": outcome.fault.kind, "slice": outcome.fault.slice, "oracle_delay_s": outcome.oracle.and_then(|oracle| oracle.delay_s),
        "detectable": outcome.is_detectable(), "seen": seen,
    })
}

fn time(second: u32) -> String {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(second.into());
    humantime::format_rfc3339_seconds(time).to_string()
}

#[expect(clippy::cast_precision_loss, reason = "shown to people")]
fn real(number: u64) -> f64 {
    number as f64
}
