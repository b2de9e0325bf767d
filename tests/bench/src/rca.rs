//! Whether what moved is named as it should be: instances with known answers, localised one after the other, and scored as `score.py` does.
//!
//! Sets are those of a directory (`rca/sets.rs` has the forms), and some that are made from seeds (`rca/made.rs`). Of each, `<output>/rca/<set>/predictions.csv` says what was
//! named, for `score.py`. Time is CPU time of the localiser alone.

mod made;
mod score;
mod sets;

use std::path::Path;

use anyhow::{Context, ensure};
use faultline_detect::localise::{Leaves, localise};

use self::score::Score;
use crate::report::{Figure, Report, say};
use crate::verdicts::cpu_time;

/// What is localised.
pub(crate) struct Instances<'a> {
    /// Where the sets are.
    pub(crate) directory: &'a Path,
    /// Seeds that instances are made of.
    pub(crate) seeds: &'a [u64],
    /// Where predictions are written.
    pub(crate) output: &'a Path,
}

/// One instance.
struct Instance {
    /// By which it is labelled: `timestamp` of the tables.
    name: String,
    leaves: Leaves,
    /// What is to be named.
    truth: String,
}

/// How a set went.
#[derive(Default)]
struct Outcome {
    score: Score,
    /// Of the cases with an even number, and of those with an odd one: some sets were tuned on one half.
    even: Score,
    odd: Score,
    seconds: Vec<f64>,
}

/// What a set of this name is to reach: at least this score, at most this time for a case in milliseconds.
struct Target {
    set: &'static str,
    of_even_cases: bool,
    f1: f64,
    ms: f64,
}

/// F1 of the prototype, and a hundredth of the time that RiskLoc takes (`README.md` beside the sets).
const TARGETS: [Target; 3] = [
    Target { set: "S", of_even_cases: false, f1: 0.922, ms: 36.0 },
    Target { set: "L", of_even_cases: false, f1: 1.0, ms: 8.1 },
    Target { set: "RS", of_even_cases: true, f1: 0.737, ms: 36.0 },
];

/// Localises all instances.
pub(crate) fn measure(instances: &Instances<'_>) -> anyhow::Result<Report> {
    let Instances { directory, output, .. } = instances;
    ensure!(
        directory.is_dir(),
        "the localisation sets are not at {}: nothing was measured; --rca DIRECTORY takes them from elsewhere",
        directory.display()
    );
    let mut figures = Vec::new();
    let sets = sets::find(directory)?;
    ensure!(!sets.is_empty(), "{} holds no localisation set", directory.display());
    for set in &sets {
        let cases = set.read().with_context(|| format!("set {} in {}", set.name, directory.display()))?;
        figures.extend(figures_of(&set.name, &judged(&set.name, cases, output)?));
    }
    for kind in made::Kind::ALL {
        let cases = instances.seeds.iter().flat_map(|seed| kind.instances(*seed));
        figures.extend(figures_of(kind.name(), &judged(kind.name(), cases.map(Ok), output)?));
    }
    Ok(Report { bench: "rca", figures })
}

/// Localises the instances of a set.
fn judged(set: &str, cases: impl IntoIterator<Item = anyhow::Result<Instance>>, output: &Path) -> anyhow::Result<Outcome> {
    let directory = output.join("rca").join(set);
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let mut predictions = csv::Writer::from_path(directory.join("predictions.csv"))?;
    predictions.write_record(["timestamp", "pred", "truth", "scores"])?;
    let mut outcome = Outcome::default();
    for case in cases {
        let Instance { name, leaves, truth } = case?;
        let begin = cpu_time()?;
        let moved = localise(&leaves);
        outcome.seconds.push((cpu_time()? - begin).as_secs_f64());
        let labels: Vec<String> = moved.iter().map(|moved| moved.element.label(&leaves)).collect();
        let scores: Vec<String> = moved.iter().map(|moved| format!("{:.1}", moved.score)).collect();
        let named = labels.join(";");
        outcome.score.count(&named, &truth);
        // As the tables number them; a made instance is numbered too.
        let half = if name.parse::<u64>().is_ok_and(|number| number % 2 == 1) { &mut outcome.odd } else { &mut outcome.even };
        half.count(&named, &truth);
        predictions.write_record([name, named, truth, scores.join(";")])?;
    }
    predictions.flush()?;
    Ok(outcome)
}

fn figures_of(set: &str, outcome: &Outcome) -> Vec<Figure> {
    let mut seconds = outcome.seconds.clone();
    seconds.sort_by(f64::total_cmp);
    let count = seconds.len() as f64;
    let mean_ms = 1000.0 * seconds.iter().sum::<f64>() / count.max(1.0);
    let p95_ms = 1000.0 * seconds.get(seconds.len() * 95 / 100).or(seconds.last()).copied().unwrap_or_default();
    let Outcome { score, even, odd, .. } = outcome;
    say(&format!(
        "rca: {set}: {count} cases, F1 {:.4} (precision {:.4}, recall {:.4}), {:.0} % exactly, {:.1} ms each\n",
        score.f1(),
        score.precision(),
        score.recall(),
        100.0 * score.exact(),
        mean_ms
    ));
    let target = TARGETS.iter().find(|target| target.set == set);
    let named = |figure: &str| format!("rca_{set}_{figure}");
    let f1 = |name: &str, value: f64, held: bool| match target {
        Some(target) if held => Figure::at_least((named(name), ""), target.f1, value),
        _ => Figure::stated((named(name), ""), value),
    };
    let by_halves = target.is_some_and(|target| target.of_even_cases);
    let mut figures = vec![f1("f1", score.f1(), !by_halves)];
    if by_halves {
        figures.extend([f1("even_f1", even.f1(), true), f1("odd_f1", odd.f1(), false)]);
    }
    figures.extend([
        Figure::stated((named("precision"), ""), score.precision()),
        Figure::stated((named("recall"), ""), score.recall()),
        Figure::stated((named("exact"), "of cases"), score.exact()),
        match target {
            Some(target) => Figure::at_most((named("ms_mean"), "CPU ms"), target.ms, mean_ms),
            None => Figure::stated((named("ms_mean"), "CPU ms"), mean_ms),
        },
        Figure::stated((named("ms_p95"), "CPU ms"), p95_ms),
    ]);
    figures
}
