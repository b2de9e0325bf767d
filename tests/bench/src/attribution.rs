//! How long it takes to say what a million failures belong to: `crates/attribution` alone, with everything that is told it of an hour in which a large bank does not answer and a carrier
//! fails in one region.

use std::collections::HashMap;

use anyhow::ensure;
use faultline_attribution::{Attempt, Fleet};
use faultline_verdict::{Cause, Family, Rules};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use crate::report::{Figure, Report, say};
use crate::verdicts::cpu_time;

/// Failures that are looked at.
const FAILURES: usize = 1_000_000;
const TERMINALS: usize = 100_000;
const ISSUERS: usize = 8;
const CARRIERS: usize = 4;
const REGIONS: usize = 31;
const HOUR_MS: i64 = 3_600_000;
const STEP_MS: i64 = 10_000;
const BEGIN_MS: i64 = 1_795_140_000_000;
/// The bank, and the carrier and region, that fail.
const BANK: usize = 3;
const CARRIER: (usize, usize) = (1, 7);

/// A failure, as it is asked for.
struct Failed {
    at: i64,
    sale: u64,
    terminal: usize,
    issuer: usize,
    card: u32,
    host: usize,
}

impl Failed {
    fn parts(&self) -> [(Family, String); 9] {
        let (carrier, region) = place(self.terminal);
        [
            (Family::Fleet, "fleet".into()),
            (Family::Acquirer, "a".into()),
            (Family::Issuer, format!("i{}", self.issuer)),
            (Family::Carrier, format!("c{carrier}")),
            (Family::Region, format!("r{region}")),
            (Family::CarrierRegion, format!("c{carrier}|r{region}")),
            (Family::Host, format!("a|h{}", self.host)),
            (Family::Shop, format!("M{}", self.terminal / 2)),
            (Family::Terminal, format!("T{}", self.terminal)),
        ]
    }

    fn is_of_bank(&self) -> bool {
        self.issuer == BANK && self.at > HOUR_MS / 6
    }
}

/// Carrier and region of a terminal.
fn place(terminal: usize) -> (usize, usize) {
    (terminal % CARRIERS, terminal / CARRIERS % REGIONS)
}

/// Measures it.
pub(crate) fn measure() -> anyhow::Result<Report> {
    say(&format!("attribution: {FAILURES} failures of an hour\n"));
    let mut rng = Pcg64::seed_from_u64(11);
    let mut failures: Vec<Failed> = Vec::with_capacity(FAILURES);
    let mut tried: HashMap<(Family, String, i64), u32> = HashMap::new();
    let mut attempts = 0_u64;
    while failures.len() < FAILURES {
        attempts += 1;
        let (terminal, issuer, host) = (rng.random_range(0..TERMINALS), rng.random_range(0..ISSUERS), rng.random_range(0..3));
        let attempt =
            Failed { at: rng.random_range(0..HOUR_MS), sale: attempts, terminal, issuer, card: rng.random_range(0..1 << 20), host };
        for (family, part) in attempt.parts() {
            *tried.entry((family, part, attempt.at / STEP_MS * STEP_MS)).or_default() += 1;
        }
        let fails = attempt.is_of_bank() || (place(terminal) == CARRIER && attempt.at > HOUR_MS / 3);
        if rng.random_bool(if fails { 0.7 } else { 0.004 }) {
            failures.push(attempt);
        }
    }
    let rules = Rules::built_in()?;
    let rule_set = rules.sets().find(|set| set.is_home()).map_or("", |set| set.version());
    let begin = cpu_time()?;
    let mut fleet = Fleet::new(&rules);
    for ((family, part, at), attempts) in &tried {
        fleet.tried((*family, part), BEGIN_MS + at, *attempts);
    }
    for failed in &failures {
        let [_, (_, acquirer), (_, issuer), (_, carrier), (_, region), _, (_, host), (_, shop), (_, terminal)] = failed.parts();
        fleet.failed(&Attempt {
            completed_ms: BEGIN_MS + failed.at,
            terminal: &terminal,
            spool: 1,
            sale: failed.sale,
            merchant: &shop,
            issuer: &issuer,
            card: Some((1, failed.card)),
            carrier: &carrier,
            region: &region,
            acquirer: &acquirer,
            host: host.trim_start_matches("a|"),
            rule_set,
            reason: "no_answer",
            confidence: 60,
            ..Attempt::default()
        });
    }
    let settlement = fleet.settle();
    let seconds = (cpu_time()? - begin).as_secs_f64();
    let of_bank = || failures.iter().zip(&settlement.failures).filter(|(failed, _)| failed.is_of_bank());
    let (right, all) = (of_bank().filter(|(_, settled)| settled.reason.cause == Cause::Bank).count(), of_bank().count());
    // A figure of something that was not found would be none.
    ensure!(settlement.faults.len() == 2 && right * 100 >= all * 98, "{:?}, {right} of {all}", settlement.faults);
    let figures = vec![
        Figure::at_most(("attribution_of_1m_failures_s", "CPU s"), 30.0, seconds),
        Figure::stated(("attribution_attempts_m", "million"), attempts as f64 / 1e6),
    ];
    Ok(Report { bench: "attribution", figures })
}
