//! How many outcomes are judged in a second of one core: `crates/verdict` alone.

use std::hint::black_box;
use std::time::Duration;

use anyhow::Context;
use faultline_proto::outcome::v1::{EntryMode, MoneyOutcome, Outcome, Stage, TerminalCondition, TerminalResult};
use faultline_verdict::RuleSet;
use nix::time::{ClockId, clock_gettime};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use crate::report::{Figure, Report, say};

/// As many different outcomes as no cache of a core holds.
const OUTCOMES: usize = 100_000;
/// How often they are judged.
const ROUNDS: u32 = 50;
/// Outcomes that the host answered, by code: as they are in a quiet fleet, and a bank that is down.
const ANSWERS: [(&str, u32); 12] = [
    ("00", 820),
    ("51", 45),
    ("61", 10),
    ("55", 12),
    ("54", 5),
    ("14", 4),
    ("05", 15),
    ("91", 30),
    ("96", 10),
    ("68", 5),
    ("A0", 2),
    ("Z9", 2),
];
/// Of a thousand, how many have no answer.
const UNANSWERED: u32 = 40;

/// Measures it.
pub(crate) fn measure() -> anyhow::Result<Report> {
    say(&format!("verdicts: {OUTCOMES} outcomes are judged {ROUNDS} times\n"));
    let rules = RuleSet::built_in()?;
    let outcomes = outcomes();
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
fn cpu_time() -> anyhow::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("cannot ask for this thread's CPU time")?.into())
}

/// Outcomes as a fleet reports them: the same every time.
fn outcomes() -> Vec<Outcome> {
    let mut random = Pcg64::seed_from_u64(1);
    let modes = [EntryMode::Chip, EntryMode::Contactless, EntryMode::MagneticStripe, EntryMode::Qr];
    let unanswered = [
        (Stage::CardRead, TerminalCondition::ChipRead),
        (Stage::Connect, TerminalCondition::ConnectTimeout),
        (Stage::Tls, TerminalCondition::TlsHandshake),
        (Stage::Wait, TerminalCondition::ResponseTimeout),
        (Stage::PinEntry, TerminalCondition::CancelledByCustomer),
        (Stage::Wait, TerminalCondition::Unspecified),
    ];
    let total: u32 = ANSWERS.iter().map(|(_, share)| share).sum();
    let outcome = |_| {
        let mut outcome = Outcome {
            merchant_id: format!("89844{:010}", random.random_range(0..1_000_000_000u64)),
            entry_mode: modes.get(random.random_range(0..modes.len())).copied().unwrap_or_default().into(),
            amount_minor: random.random_range(100..1_000_000),
            currency_code: "CNY".into(),
            bin: format!("62{:04}", random.random_range(0..10_000)),
            ..Outcome::default()
        };
        if random.random_range(0..1000) < UNANSWERED {
            let (stage, condition) = unanswered.get(random.random_range(0..unanswered.len())).copied().unwrap_or_default();
            outcome.stage = stage.into();
            outcome.terminal_condition = condition.into();
            outcome.money_outcome = MoneyOutcome::Unknown.into();
            return outcome;
        }
        let mut place = random.random_range(0..total);
        let answer = ANSWERS.iter().find(|(_, share)| {
            let is_it = place < *share;
            place = place.saturating_sub(*share);
            is_it
        });
        let code = answer.map_or("00", |(code, _)| code);
        outcome.stage = Stage::HostDecision.into();
        outcome.response_code = code.into();
        outcome.response_spec = "unionpay-pos".into();
        outcome.result = if code == "00" { TerminalResult::Approved } else { TerminalResult::Declined }.into();
        outcome
    };
    (0..OUTCOMES).map(outcome).collect()
}
