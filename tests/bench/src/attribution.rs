//! How long it takes to say what a million failures belong to: `crates/attribution` alone, with everything that is told it of an hour in which a large bank does not answer and a carrier
//! fails in one region.

use anyhow::ensure;
use faultline_attribution::{Attempt, Fleet};
use faultline_verdict::{Cause, Rules};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use crate::report::{Figure, Report, say};
use crate::verdicts::cpu_time;

/// Failures that are looked at.
const FAILURES: usize = 1_000_000;
const TERMINALS: usize = 100_000;
const ISSUERS: usize = 40;
const CARRIERS: usize = 4;
const REGIONS: usize = 31;
const HOUR_MS: i64 = 3_600_000;
const BEGIN_MS: i64 = 1_795_140_000_000;
/// The bank, and the carrier and region, that fail.
const BANK: usize = 3;
const CARRIER: (usize, usize) = (1, 7);

/// Measures it.
pub(crate) fn measure() -> anyhow::Result<Report> {
    say(&format!("attribution: {FAILURES} failures of an hour\n"));
    let rules = Rules::built_in()?;
    let mut fleet = Fleet::new(&rules);
    let mut rng = Pcg64::seed_from_u64(11);
    let rule_set = rules.sets().find(|set| set.is_home()).map_or("", |set| set.version()).to_owned();
    let (mut failures, mut attempts, mut of_bank) = (0, 0_u64, Vec::new());
    let begin = cpu_time()?;
    while failures < FAILURES {
        attempts += 1;
        let (terminal, issuer) = (rng.random_range(0..TERMINALS), rng.random_range(0..ISSUERS));
        let (carrier, region) = (terminal % CARRIERS, terminal / CARRIERS % REGIONS);
        let at = rng.random_range(0..HOUR_MS);
        let is_bank = issuer == BANK && at > HOUR_MS / 6;
        let rate = if is_bank || ((carrier, region) == CARRIER && at > HOUR_MS / 3) { 0.7 } else { 0.004 };
        let fails = rng.random_bool(rate);
        let [terminal, shop, issuer, carrier, region] =
            [("T", terminal), ("M", terminal / 2), ("i", issuer), ("c", carrier), ("r", region)]
                .map(|(kind, number)| format!("{kind}{number}"));
        let attempt = Attempt {
            completed_ms: BEGIN_MS + at,
            terminal: &terminal,
            spool: 1,
            sale: attempts,
            merchant: &shop,
            issuer: &issuer,
            bin: &issuer,
            card: Some((1, rng.random_range(0..1 << 20))),
            carrier: &carrier,
            region: &region,
            acquirer: "a",
            host: ["h1", "h2", "h3"].get(usize::try_from(attempts % 3)?).copied().unwrap_or_default(),
            rule_set: &rule_set,
            reason: if fails { "no_answer" } else { "approved" },
            confidence: 60,
            ..Attempt::default()
        };
        if let Some(number) = fleet.observe(&attempt) {
            failures += 1;
            if is_bank {
                of_bank.push(number);
            }
        }
    }
    let observed = cpu_time()?;
    let settlement = fleet.settle();
    let settled = cpu_time()?;
    let right =
        of_bank.iter().filter_map(|number| settlement.failures.get(*number)).filter(|settled| settled.reason.cause == Cause::Bank).count();
    // A figure of something that was not found would be none.
    ensure!(settlement.faults.len() == 2 && right * 100 >= of_bank.len() * 98, "{:?}, {right} of {}", settlement.faults, of_bank.len());
    let figures = vec![
        Figure::at_most(("attribution_of_1m_failures_s", "CPU s"), 30.0, (settled - begin).as_secs_f64()),
        Figure::stated(("attribution_of_1m_failures_search_s", "CPU s"), (settled - observed).as_secs_f64()),
        Figure::stated(("attribution_attempts_m", "million"), attempts as f64 / 1e6),
    ];
    Ok(Report { bench: "attribution", figures })
}
