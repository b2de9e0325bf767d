//! `make model`: checks the protocol further than the tests do, and says what was found.

use std::io::{self, Write};
use std::process::ExitCode;

use faultline_model::{Bounds, Protocol, Report, Variant};

fn main() -> io::Result<ExitCode> {
    let mut out = io::stdout();
    let mut is_right = true;
    for bounds in Bounds::LARGE {
        let report = Report::of(Protocol { variant: Variant::Real, bounds });
        is_right &= report.holds();
        write!(out, "{report}")?;
        for finding in &report.findings {
            write!(out, "{finding}")?;
        }
        out.flush()?;
    }
    writeln!(out, "\nwith one thing left out:")?;
    for (variant, property) in Variant::BROKEN {
        let report = Report::of(Protocol { variant, bounds: variant.least() });
        write!(out, "\n{report}")?;
        match report.finding(property) {
            Some(finding) if !finding.holds => write!(out, "{finding}")?,
            _ => {
                is_right = false;
                writeln!(out, "  NOT FOUND: a state in which this fails: {property}")?;
            }
        }
    }
    Ok(if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
