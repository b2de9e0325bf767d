//! How many outcomes are judged in a second of one core: `crates/verdict` alone.

use std::hint::black_box;
use std::time::Duration;

use anyhow::Context;
use faultline_verdict::Rules;
use nix::time::{ClockId, clock_gettime};

use crate::fleet;
use crate::report::{Figure, Report, say};

/// As many different outcomes as no cache of a core holds.
const OUTCOMES: usize = 100_000;
/// How often they are judged.
const ROUNDS: u32 = 50;
/// Measures it.
pub(crate) fn measure() -> anyhow::Result<Report> {
    say(&format!("verdicts: {OUTCOMES} outcomes are judged {ROUNDS} times\n"));
    let rules = Rules::built_in()?;
    let outcomes = fleet::outcomes(OUTCOMES)?;
    let begin = cpu_time()?;
    for _ in 0..ROUNDS {
        for outcome in &outcomes {
            black_box(rules.verdict(black_box(outcome)));
        }
    }
    let seconds = (cpu_time()? - begin).as_secs_f64();
    let judged = f64::from(ROUNDS) * f64::from(u32::try_from(OUTCOMES)?);
    let figure = Figure::at_least(("verdict_events_per_s_core", "events/s"), 1_000_000.0, judged / seconds);
    Ok(Report { bench: "verdicts", figures: vec![figure] })
}

/// CPU time of this thread.
pub(crate) fn cpu_time() -> anyhow::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("cannot ask for this thread's CPU time")?.into())
}
