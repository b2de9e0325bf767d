//! Figures as they are written and shown.

use std::borrow::Cow;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

/// What one bench measured.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Report {
    pub(crate) bench: &'static str,
    pub(crate) figures: Vec<Figure>,
}

/// One figure.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Figure {
    name: Cow<'static, str>,
    value: f64,
    unit: &'static str,
    /// What it is to be; nothing where it is only stated.
    target: Option<f64>,
    /// Whether it is that.
    holds: bool,
    /// For the table: whether it is to be more or less than its target.
    #[serde(skip)]
    direction: Direction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    AtLeast,
    AtMost,
}

impl Figure {
    /// A figure that is to be at least its target.
    pub(crate) fn at_least((name, unit): (impl Into<Cow<'static, str>>, &'static str), target: f64, value: f64) -> Figure {
        Figure { name: name.into(), value, unit, target: Some(target), holds: value >= target, direction: Direction::AtLeast }
    }

    /// A figure that is to be at most its target.
    pub(crate) fn at_most((name, unit): (impl Into<Cow<'static, str>>, &'static str), target: f64, value: f64) -> Figure {
        Figure { name: name.into(), value, unit, target: Some(target), holds: value <= target, direction: Direction::AtMost }
    }

    /// A figure without a target.
    pub(crate) fn stated((name, unit): (impl Into<Cow<'static, str>>, &'static str), value: f64) -> Figure {
        Figure { name: name.into(), value, unit, target: None, holds: true, direction: Direction::AtMost }
    }

    /// For people: a line of the table.
    pub(crate) fn row(&self) -> String {
        let (target, verdict) = match (self.target, self.direction, self.holds) {
            (None, ..) => (String::new(), ""),
            (Some(target), Direction::AtLeast, true) => (format!("at least {}", shown(target)), "holds"),
            (Some(target), Direction::AtMost, true) => (format!("at most {}", shown(target)), "holds"),
            (Some(target), Direction::AtLeast, false) => (format!("at least {}", shown(target)), "MISSED"),
            (Some(target), Direction::AtMost, false) => (format!("at most {}", shown(target)), "MISSED"),
        };
        format!("{:<34} {:>14} {:<10} {:<20} {verdict}", self.name, shown(self.value), self.unit, target)
    }
}

impl Report {
    /// Writes it into a directory, under its name.
    pub(crate) fn write(&self, directory: &Path) -> anyhow::Result<()> {
        let path = directory.join(format!("{}.json", self.bench));
        let text = serde_json::to_string_pretty(self)?;
        let written = std::fs::create_dir_all(directory).and_then(|()| std::fs::write(&path, text + "\n"));
        written.with_context(|| format!("cannot write {}", path.display()))
    }
}

/// All figures, for people.
pub(crate) fn table(reports: &[Report]) -> String {
    let rows = reports.iter().flat_map(|report| &report.figures).map(|figure| figure.row().trim_end().to_owned() + "\n");
    format!("\n{:<34} {:>14} {:<10} {:<20}\n{}", "figure", "value", "unit", "target", rows.collect::<String>())
}

/// As many digits as one would say.
fn shown(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Says something to whoever waits.
pub(crate) fn say(text: &str) {
    // Nobody who does not read it need be measured less.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_in_the_form_that_every_bench_has() {
        let figures = vec![
            Figure::at_least(("events_per_s", "events/s"), 1000.0, 2000.0),
            Figure::at_most(("alert_seconds", "s"), 30.0, 31.0),
            Figure::stated(("rss_mib", "MiB"), 12.25),
        ];
        let report = Report { bench: "some", figures };
        let directory = tempfile::tempdir().unwrap();
        report.write(directory.path()).unwrap();
        let written: serde_json::Value = serde_json::from_slice(&std::fs::read(directory.path().join("some.json")).unwrap()).unwrap();
        let figure = |name, value, unit, target: Option<f64>, holds| serde_json::json!({"name": name, "value": value, "unit": unit, "target": target, "holds": holds});
        let expected = serde_json::json!({"bench": "some", "figures": [
            figure("events_per_s", 2000.0, "events/s", Some(1000.0), true),
            figure("alert_seconds", 31.0, "s", Some(30.0), false),
            figure("rss_mib", 12.25, "MiB", None, true),
        ]});
        assert_eq!(written, expected);
        let table = table(&[report]);
        assert!(table.contains("2000 events/s   at least 1000        holds"), "{table}");
        assert!(table.contains("31.0 s          at most 30.0         MISSED"), "{table}");
    }
}
