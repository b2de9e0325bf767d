//! What verdicts cost in a terminal: what is sent of rules, what they take in memory, and how large programs are.

use std::path::Path;
use std::process::{Command, id};

use anyhow::{Context, bail};
use faultline_bundle::{Bundle, SigningKey};
use prost::Message;

use crate::processes::resident_mib;
use crate::report::{Figure, Report, say};

/// How often rules are read, so that what one takes is more than what is left over elsewhere.
const COPIES: u16 = 32;
/// The examples of the SDK that are measured: a whole terminal, and one that does nothing but judge.
const TERMINAL: &str = "report";
const JUDGE: &str = "judge";

/// Measures it; the examples are beside the program.
pub(crate) fn measure(program: &Path) -> anyhow::Result<Report> {
    say("terminal: rules are packed and read, programs are stripped\n");
    let examples = program.parent().context("the program is in no directory")?.join("examples");
    let key = SigningKey::from_pem(&SigningKey::generate()?)?;
    let bundle = Bundle::pack::<&str>(&[], 1, &key)?;
    let bytes = u32::try_from(bundle.message().encoded_len())?;
    let figures = vec![
        Figure::at_most(("rules_bundle_bytes", "bytes"), 64.0 * 1024.0, f64::from(bytes)),
        Figure::at_most(("rules_resident_kib", "KiB"), 1024.0, resident_kib(&bundle)?),
        Figure::stated(("terminal_program_kib", "KiB"), stripped_kib(&examples.join(TERMINAL))?),
        Figure::stated(("verdict_program_kib", "KiB"), stripped_kib(&examples.join(JUDGE))?),
    ];
    Ok(Report { bench: "terminal", figures })
}

/// What rules of a bundle take in memory when they are in force.
fn resident_kib(bundle: &Bundle) -> anyhow::Result<f64> {
    let pid = i32::try_from(id())?;
    // What reading them leaves behind is there once.
    let mut copies = vec![bundle.rules()?];
    let before = resident_mib(pid)?;
    for _ in 0..COPIES {
        copies.push(bundle.rules()?);
    }
    let after = resident_mib(pid)?;
    drop(copies);
    Ok((after - before) * 1024.0 / f64::from(COPIES))
}

/// The size of a program without what is in it for debuggers.
fn stripped_kib(program: &Path) -> anyhow::Result<f64> {
    let stripped = tempfile::NamedTempFile::new()?;
    let status = Command::new("strip").arg("-o").args([stripped.path(), program]).status().context("cannot run strip")?;
    if !status.success() {
        bail!("{} is not there, or cannot be stripped", program.display());
    }
    // By its name: it may be another file now.
    Ok(f64::from(u32::try_from(std::fs::metadata(stripped.path())?.len())?) / 1024.0)
}
