//! How well faults are found: streams of the yardstick, made by its own generator, through the detector; beside the yardstick's oracle, and what is
//! written there of plain detectors.
//!
//! A stream is made once for a scenario and a seed, scored, and deleted where it is large.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use faultline_backtest::{
    Directory, OracleClass, Outcome, Ran, Score, Summary, Verdict, read_labels, read_oracle, run, score, slice_text, write_incidents,
};
use faultline_detect::Settings;
use nix::sys::resource::{UsageWho, getrusage};

use crate::report::{Figure, Report, say};
use crate::verdicts::cpu_time;

/// Where streams are made, below the directory of figures.
const STREAMS: &str = "detect-streams";
/// A stream of more bytes than this is deleted once it is scored.
const LARGE: u64 = 40_000_000;
/// Attempts a minute from which a fleet is one of the large ones.
const OF_20K: f64 = 10_000.0;
const OF_200K: f64 = 100_000.0;

/// What is measured.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// The yardstick: where `generate.py` and `public/` are.
    pub(crate) shared: &'a Path,
    /// Scenarios with faults: names of `public/`, or files; without any, all of them.
    pub(crate) scenarios: &'a [String],
    /// Seeds that each is played with.
    pub(crate) seeds: &'a [u64],
    /// Days of a fleet of 1,000 transactions a minute without faults.
    pub(crate) quiet_days: u32,
    /// Days of one of 20,000.
    pub(crate) quiet_large_days: u32,
    /// Whether the plain detectors of the yardstick run on the same streams.
    pub(crate) peers: bool,
    /// Where streams and incidents are written.
    pub(crate) output: &'a Path,
}

/// A stream, scored.
struct Scored {
    tx_per_min: f64,
    is_quiet: bool,
    score: Score,
    ran: Ran,
}

/// What the yardstick's README says of others on `mixed-1k`, seeds 11 to 14: recall, precision, false and duplicates, exact slice.
const OTHERS: [(&str, &str, &str, &str, &str); 6] = [
    ("oracle", "1.00", "1.00", "0", "1.00"),
    ("prototype", "0.97", "1.00", "0", "1.00"),
    ("ewma, k = 25", "0.51", "0.38", "133", "0.95"),
    ("sigma3, k = 25", "0.49", "0.42", "106", "0.96"),
    ("week_ratio 20", "0.35", "0.71", "22", "0.46"),
    ("static .90", "0.27", "0.76", "13", "0.50"),
];

/// Measures it.
pub(crate) fn measure(plan: &Plan<'_>) -> anyhow::Result<Report> {
    let generator = plan.shared.join("generate.py");
    ensure!(
        generator.exists(),
        "THE YARDSTICK IS NOT THERE: {} does not exist; --shared names the directory with generate.py, oracle.py and public/",
        generator.display()
    );
    python(plan.shared, &["-c", "import numpy, scipy"])
        .context("the yardstick needs python3 with numpy and scipy; `make setup-tests` installs them")?;
    let mut scored = Vec::new();
    for (scenario, seeds) in streams(plan)? {
        for seed in seeds {
            scored.push(stream(plan, &scenario, seed)?);
        }
    }
    say(&beside(&scored));
    let mut figures = figures(&scored);
    let most = getrusage(UsageWho::RUSAGE_SELF).context("cannot ask for this process's memory")?.max_rss();
    figures.push(Figure::stated(("detect_memory_peak_mib", "MiB"), real(u64::try_from(most)? / 1024)));
    Ok(Report { bench: "detect", figures })
}

/// Scenarios, and seeds of each.
fn streams(plan: &Plan<'_>) -> anyhow::Result<Vec<(PathBuf, Vec<u64>)>> {
    let public = plan.shared.join("public");
    let mut streams = Vec::new();
    if plan.scenarios.is_empty() {
        let mut files: Vec<PathBuf> = std::fs::read_dir(&public)
            .with_context(|| format!("cannot read {}", public.display()))?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        files.retain(|file| file.extension().is_some_and(|extension| extension == "json") && !name(file).starts_with("quiet"));
        files.sort();
        streams.extend(files.into_iter().map(|file| (file, plan.seeds.to_vec())));
    }
    for scenario in plan.scenarios {
        let named = public.join(format!("{scenario}.json"));
        let file = if named.exists() { named } else { PathBuf::from(scenario) };
        ensure!(file.exists(), "--scenarios: {scenario:?} is neither a file nor one of {}", public.display());
        streams.push((file, plan.seeds.to_vec()));
    }
    // Their days are 8 and 1; their seeds are others, so that nothing is tuned to them.
    let quiet = |days: u32, of_one: u32| (101..).take(usize::try_from(days.div_ceil(of_one)).unwrap_or_default()).collect::<Vec<u64>>();
    streams.push((public.join("quiet-1k.json"), quiet(plan.quiet_days, 8)));
    streams.push((public.join("quiet-20k.json"), quiet(plan.quiet_large_days, 1)));
    Ok(streams)
}

fn name(file: &Path) -> String {
    file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Makes a stream, and scores what the detector says of it.
fn stream(plan: &Plan<'_>, scenario: &Path, seed: u64) -> anyhow::Result<Scored> {
    let name = format!("{}-{seed}", name(scenario));
    let directory = plan.output.join(STREAMS).join(&name);
    let text = std::fs::read(scenario)?;
    let written: serde_json::Value = serde_json::from_slice(&text).with_context(|| format!("{} is no scenario", scenario.display()))?;
    // It is made again where the scenario of that name is another one now.
    let made_of = directory.join("scenario.json");
    if std::fs::read(&made_of).ok().as_ref() != Some(&text) {
        say(&format!("detect: {name} is made\n"));
        make(plan.shared, scenario, seed, &directory)?;
        std::fs::write(&made_of, &text)?;
    }
    let read = Directory::open(&directory)?;
    let ran = run(&read, Settings::default(), || cpu_time().unwrap_or_default(), |_| ())?;
    let (labels, oracle) = (read_labels(&directory.join("labels.csv"))?, read_oracle(&directory.join("oracle.csv"))?);
    let days = real(ran.ticks) * 10.0 / 86_400.0;
    let score = Score { days, ..score(&labels, &ran.found, Some(&oracle)) };
    write_incidents(&ran.found, std::fs::File::create(directory.join("incidents.csv"))?)?;
    tell(&name, &score, &ran);
    if plan.peers {
        peers(plan.shared, &directory, days)?;
    }
    let size = read.size()?;
    drop(read);
    if size > LARGE {
        std::fs::remove_dir_all(&directory)?;
    }
    let tx_per_min = written.pointer("/fleet/tx_per_min").and_then(serde_json::Value::as_f64).unwrap_or(1000.0);
    let is_quiet = labels.iter().all(|label| !label.is_fault);
    Ok(Scored { tx_per_min, is_quiet, score, ran })
}

/// Makes a stream, with its oracle.
fn make(shared: &Path, scenario: &Path, seed: u64, directory: &Path) -> anyhow::Result<()> {
    let (seed, out) = (seed.to_string(), path(directory)?);
    let generator = path(&shared.join("generate.py"))?.to_owned();
    python(shared, &[&generator, "--seed", &seed, "--scenario", path(scenario)?, "--out", out])?;
    let oracle = path(&shared.join("oracle.py"))?.to_owned();
    python(shared, &[&oracle, out])?;
    Ok(())
}

fn path(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not text", path.display()))
}

/// Runs Python; what it says on standard output.
fn python(shared: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    // Nothing is written beside the yardstick.
    let run = Command::new("python3").arg("-B").args(arguments).env("PYTHONPATH", shared).output().context("cannot run python3")?;
    if !run.status.success() {
        let said = String::from_utf8_lossy(&run.stderr);
        bail!("python3 {} failed: {}", arguments.join(" "), said.trim_end());
    }
    Ok(String::from_utf8_lossy(&run.stdout).into_owned())
}

/// What is said of a stream: its figures, and every fault that was missed or seen late, and every incident of none.
fn tell(name: &str, score: &Score, ran: &Ran) {
    let of = Summary::of(std::slice::from_ref(score), |_| true);
    let per_tick = ran.judging.as_secs_f64() * 1000.0 / real(ran.ticks.max(1));
    if of.detectable == 0 {
        say(&format!("detect: {name}: nothing to find in {:.1} days, {} false, {per_tick:.2} ms a tick\n", score.days, of.r#false));
    } else {
        tell_found(name, &of, (per_tick, ran.longest.as_secs_f64() * 1000.0));
    }
    for outcome in score.outcomes.iter().filter(|outcome| outcome.is_detectable()) {
        let fault = &outcome.fault;
        let oracle = outcome.oracle.and_then(|oracle| oracle.delay_s).unwrap_or_default();
        match &outcome.seen {
            None => say(&format!("  missed: {} {} {} (oracle {oracle:.0} s)\n", fault.number, fault.kind, fault.slice)),
            Some(seen) => {
                let said = if seen.first_slice == fault.slice { String::new() } else { format!(", first called {}", seen.first_slice) };
                let is_late = outcome.delay_ratio().is_some_and(|ratio| ratio > 2.0);
                if is_late || !said.is_empty() {
                    let (number, kind, slice) = (&fault.number, &fault.kind, &fault.slice);
                    say(&format!("  {number} {kind} {slice}: after {:.0} s (oracle {oracle:.0} s){said}\n", seen.delay_s));
                }
            }
        }
    }
    for (found, verdict) in ran.found.iter().zip(&score.verdicts) {
        if matches!(verdict, Verdict::False(_) | Verdict::Duplicate) {
            let evidence = found.incident.watches.first().map_or(0.0, |watch| watch.evidence);
            let (opened, slice, cause) = (found.incident.opened, slice_text(&found.incident.slice), found.cause());
            say(&format!("  {verdict}: {slice} {cause} at {opened}, {evidence:.1} nats\n"));
        }
    }
}

/// What was found in a stream.
fn tell_found(name: &str, of: &Summary, (per_tick, longest): (f64, f64)) {
    say(&format!(
        "detect: {name}: {} faults, recall {:.3}, precision {:.3} ({} false, {} duplicates), exact at opening {:.3}, delay over the oracle's {:.2} / {:.2} / {:.2}, \
         {per_tick:.2} ms a tick, {longest:.0} ms at most\n",
        of.detectable,
        of.recall,
        of.precision,
        of.r#false,
        of.duplicates,
        of.exact_at_open,
        of.delay_ratio_median,
        of.delay_ratio_mean,
        of.delay_ratio_p95,
    ));
}

/// What plain detectors say of the same stream.
fn peers(shared: &Path, directory: &Path, days: f64) -> anyhow::Result<()> {
    let (baselines, scorer) = (shared.join("baselines.py"), shared.join("score.py"));
    for (method, threshold) in [("ewma", "25"), ("sigma3", "25"), ("week_ratio", "20"), ("static", ".9")] {
        let arguments = [path(&baselines)?, path(directory)?, "--method", method, "--threshold", threshold];
        python(shared, &arguments)?;
        let file = |name: &str| directory.join(name);
        let (labels, incidents, oracle) = (file("labels.csv"), file(&format!("incidents-{method}.csv")), file("oracle.csv"));
        let days = days.to_string();
        let said = python(shared, &[path(&scorer)?, path(&labels)?, path(&incidents)?, "--oracle", path(&oracle)?, "--days", &days])?;
        let wanted = ["recall", "precision", "exact", "false", "delay_ratio_median"];
        let figures = said.lines().filter_map(|line| line.split_once(' ')).filter(|(name, _)| wanted.contains(name));
        let figures: Vec<String> = figures.map(|(name, value)| format!("{name} {}", value.trim())).collect();
        say(&format!("  beside it, {method} {threshold}: {}\n", figures.join(", ")));
    }
    Ok(())
}

/// The figures beside those of others, and by class and kind.
fn beside(scored: &[Scored]) -> String {
    let scores: Vec<Score> = scored.iter().filter(|scored| !scored.is_quiet).map(|scored| scored.score.clone()).collect();
    if scores.is_empty() {
        return String::new();
    }
    let all = Summary::of(&scores, |_| true);
    let mut text = format!("\n{:<16} {:>7} {:>10} {:>16} {:>6}\n", "detector", "recall", "precision", "false+duplicate", "exact");
    let wrong = all.r#false + all.duplicates;
    text.push_str(&format!("{:<16} {:>7.3} {:>10.3} {wrong:>16} {:>6.3}\n", "faultline", all.recall, all.precision, all.exact_at_open));
    for (name, recall, precision, wrong, exact) in OTHERS {
        text.push_str(&format!("{name:<16} {recall:>7} {precision:>10} {wrong:>16} {exact:>6}  (as written in the yardstick, mixed-1k)\n"));
    }
    let line = |name: &str, of: &Summary| {
        format!(
            "{name:<16} {:>4} {:>7.3} {:>8.0} {:>8.0} {:>8.0} {:>7.2} {:>7.2} {:>7.2} {:>8.0}\n",
            of.detectable,
            of.recall,
            of.delay_median_s,
            of.oracle_median_s,
            of.delay_p95_s,
            of.delay_ratio_median,
            of.delay_ratio_mean,
            of.delay_ratio_p95,
            of.close_median_s
        )
    };
    text.push_str(&format!(
        "\n{:<16} {:>4} {:>7} {:>8} {:>8} {:>8} {:>7} {:>7} {:>7} {:>8}\n",
        "faults", "n", "recall", "median", "oracle", "p95", "ratio", "mean", "p95", "close"
    ));
    for (name, class) in [("strong", OracleClass::Strong), ("medium", OracleClass::Medium), ("weak", OracleClass::Weak)] {
        text.push_str(&line(name, &Summary::of(&scores, |outcome| class_of(outcome) == Some(class))));
    }
    let mut kinds: BTreeMap<&str, ()> = BTreeMap::new();
    for outcome in scores.iter().flat_map(|score| &score.outcomes) {
        kinds.insert(&outcome.fault.kind, ());
    }
    for kind in kinds.keys() {
        text.push_str(&line(kind, &Summary::of(&scores, |outcome| outcome.fault.kind == *kind)));
    }
    text
}

fn class_of(outcome: &Outcome) -> Option<OracleClass> {
    outcome.oracle.and_then(|oracle| oracle.class())
}

/// The figures with their targets.
fn figures(scored: &[Scored]) -> Vec<Figure> {
    let with_faults: Vec<Score> = scored.iter().filter(|scored| !scored.is_quiet).map(|scored| scored.score.clone()).collect();
    let mut figures = Vec::new();
    if !with_faults.is_empty() {
        let all = Summary::of(&with_faults, |_| true);
        let of_kind = |kind: &str| Summary::of(&with_faults, |outcome| outcome.fault.kind == kind).delay_ratio_median;
        figures.extend([
            Figure::stated(("detect_faults", "faults"), real_size(all.detectable)),
            Figure::at_least(("detect_recall", ""), 0.98, all.recall),
            Figure::at_least(("detect_precision", ""), 0.99, all.precision),
            Figure::at_least(("detect_exact_slice_at_opening", ""), 0.97, all.exact_at_open),
            Figure::at_most(("detect_delay_ratio_median", ""), 1.0, all.delay_ratio_median),
            Figure::at_most(("detect_delay_ratio_mean", ""), 1.3, all.delay_ratio_mean),
            Figure::at_most(("detect_delay_ratio_p95", ""), 2.0, all.delay_ratio_p95),
            Figure::at_most(("detect_power_cut_delay_ratio", ""), 2.0, of_kind("power_cut")),
            Figure::at_most(("detect_firmware_delay_ratio", ""), 2.0, of_kind("bad_firmware")),
            Figure::stated(("detect_close_median_s", "s"), all.close_median_s),
            Figure::stated(("detect_close_p95_s", "s"), all.close_p95_s),
        ]);
    }
    let sizes = [
        ("detect_false_per_day_1k", "detect_quiet_days_1k", 0.0..OF_20K),
        ("detect_false_per_day_20k", "detect_quiet_days_20k", OF_20K..OF_200K),
        ("detect_false_per_day_200k", "detect_quiet_days_200k", OF_200K..f64::INFINITY),
    ];
    for (name, days_name, size) in sizes {
        let of_size: Vec<Score> = scored
            .iter()
            .filter(|scored| scored.is_quiet && size.contains(&scored.tx_per_min))
            .map(|scored| scored.score.clone())
            .collect();
        let quiet = Summary::of(&of_size, |_| true);
        if quiet.days > 0.0 {
            figures.push(Figure::at_most((name, "a day"), 1.0 / 30.0, quiet.false_per_day));
            figures.push(Figure::stated((days_name, "days"), quiet.days));
        }
    }
    let longest = scored.iter().map(|scored| scored.ran.longest.as_secs_f64() * 1000.0).fold(0.0, f64::max);
    let judging: f64 = scored.iter().map(|scored| scored.ran.judging.as_secs_f64() * 1000.0).sum();
    let ticks: u64 = scored.iter().map(|scored| scored.ran.ticks).sum();
    figures.push(Figure::stated(("detect_tick_mean_ms", "CPU ms"), judging / real(ticks.max(1))));
    figures.push(Figure::at_most(("detect_tick_longest_ms", "CPU ms"), 1000.0, longest));
    figures
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn real(number: u64) -> f64 {
    number as f64
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn real_size(number: usize) -> f64 {
    number as f64
}
