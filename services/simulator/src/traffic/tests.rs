//! What customers do, beside what a scenario says.

use std::collections::HashMap;

use faultline_proto::verdict::v1::Cause;
use faultline_verdict::Rules;

use super::*;
use crate::scenario::{Device, FleetSize};

/// 2026-11-02, a Monday, 00:00 in China.
const START: i64 = 1_793_548_800;
const MINUTE: Duration = Duration::from_secs(60);

fn scenario(faults: Vec<Fault>) -> Scenario {
    let fleet = FleetSize { terminals: 200, transactions_per_minute: 6000.0, rhythm: 0.0 };
    Scenario { seed: 7, fleet, faults, ..Scenario::default() }
}

fn fault(kind: Kind, share: f64) -> Fault {
    Fault { kind, share, start: 2 * MINUTE, duration: Some(2 * MINUTE), opened_within: MINUTE }
}

fn play(scenario: &Scenario, until: Duration) -> (Fleet, Vec<Completion>) {
    let fleet = Fleet::draw(scenario);
    let mut traffic = Traffic::begin(&fleet, scenario, START).unwrap();
    let completions = std::iter::from_fn(|| traffic.next_until(until)).collect();
    (fleet, completions)
}

/// The share of `code` among what completed within these minutes and is of the issuer.
fn share_of(code: &str, issuer: &str, minutes: std::ops::Range<u32>, completions: &[Completion]) -> f64 {
    let issuers = &Tables::built_in().issuers;
    let bins: Vec<&str> = issuers.iter().filter(|known| known.name == issuer).flat_map(Issuer::bins).collect();
    let of_issuer = completions.iter().filter(|completion| {
        (MINUTE * minutes.start..MINUTE * minutes.end).contains(&completion.at)
            && bins.contains(&completion.outcome.bin.as_str())
            && completion.outcome.stage() >= Stage::Wait
            && completion.outcome.r#type() != TransactionType::Reversal
    });
    let (all, with) =
        of_issuer.fold((0, 0), |(all, with), completion| (all + 1, with + u32::from(completion.outcome.response_code == code)));
    assert!(all > 100, "{all}");
    f64::from(with) / f64::from(all)
}

#[test]
fn the_seed_decides_and_how_it_is_looked_at_does_not() {
    let scenario = scenario(Vec::new());
    let (fleet, at_once) = play(&scenario, 2 * MINUTE);
    let mut traffic = Traffic::begin(&fleet, &scenario, START).unwrap();
    let mut step_by_step = Vec::new();
    for step in 0..=1200 {
        step_by_step.extend(std::iter::from_fn(|| traffic.next_until(Duration::from_millis(step * 100))));
    }
    assert!(at_once == step_by_step);
    assert!(at_once.windows(2).all(|pair| pair[0].at <= pair[1].at));
    let other = Scenario { seed: 8, ..scenario };
    assert!(play(&other, 2 * MINUTE).1 != at_once);
}

#[test]
fn there_are_as_many_sales_as_were_asked_for() {
    let (_, completions) = play(&scenario(Vec::new()), 11 * MINUTE);
    let sales = completions.iter().filter(|completion| completion.at >= MINUTE && completion.follows.is_none()).count();
    assert!((58_500..61_500).contains(&sales), "{sales}");
    let night = Scenario { fleet: FleetSize { rhythm: 1.0, ..scenario(Vec::new()).fleet }, ..scenario(Vec::new()) };
    assert!(play(&night, 11 * MINUTE).1.len() < 30_000);
}

#[test]
fn a_bank_fails_when_it_should_as_much_as_it_should_and_no_other() {
    let outage = |share| scenario(vec![fault(Kind::BankOutage { issuer: "icbc".into(), carrier: None }, share)]);
    let (_, whole) = play(&outage(1.0), 6 * MINUTE);
    assert!(share_of("91", "icbc", 0..2, &whole) < 0.01);
    let (down, system) = (share_of("91", "icbc", 2..4, &whole), share_of("96", "icbc", 2..4, &whole));
    assert!((0.75..0.85).contains(&down) && (0.15..0.25).contains(&system), "{down} {system}");
    assert!(share_of("91", "ccb", 2..4, &whole) < 0.01);
    assert!(share_of("91", "icbc", 5..6, &whole) < 0.01);
    let (_, part) = play(&outage(0.3), 6 * MINUTE);
    let down = share_of("91", "icbc", 2..4, &part);
    assert!((0.2..0.28).contains(&down), "{down}");
}

#[test]
fn a_silent_bank_is_missed_first_and_then_heard_of() {
    let timeout = Duration::from_secs(60);
    let (_, completions) = play(&scenario(vec![fault(Kind::SilentBank { issuer: "ccb".into(), timeout }, 1.0)]), 7 * MINUTE);
    let ccb: Vec<&str> = Tables::built_in().issuers.iter().find(|issuer| issuer.name == "ccb").unwrap().bins().collect();
    let count = |minute: u32, stage: Stage, kind: Option<TransactionType>| {
        let within = MINUTE * minute..MINUTE * (minute + 1);
        let is = |completion: &&Completion| {
            let outcome = &completion.outcome;
            within.contains(&completion.at)
                && ccb.contains(&outcome.bin.as_str())
                && outcome.stage() == stage
                && kind.map_or(outcome.r#type() != TransactionType::Reversal, |kind| outcome.r#type() == kind)
        };
        completions.iter().filter(is).count()
    };
    let usual = count(1, Stage::HostDecision, None);
    assert!(usual > 600, "{usual}");
    // Nothing of the third minute but what was under way, and nothing that says why.
    assert!(count(2, Stage::HostDecision, None) < usual / 5 && count(2, Stage::Wait, None) < 5);
    assert!(count(3, Stage::Wait, None) > usual * 8 / 10);
    assert!(count(3, Stage::HostDecision, Some(TransactionType::Reversal)) > usual / 2);
    // Those that began at the end of it end a minute after it.
    assert!(count(4, Stage::Wait, None) > usual * 8 / 10 && count(6, Stage::HostDecision, None) > usual * 8 / 10);
}

#[test]
fn a_host_that_is_down_is_not_reached_by_anybody() {
    let (fleet, completions) = play(&scenario(vec![fault(Kind::HostDown { host: "pos-2".into() }, 1.0)]), 6 * MINUTE);
    let unreachable = |host: &str, minutes: std::ops::Range<u32>| {
        let of_host = completions.iter().filter(|completion| {
            (MINUTE * minutes.start..MINUTE * minutes.end).contains(&completion.at) && fleet.terminals[completion.terminal].host == host
        });
        let failed = of_host.clone().filter(|completion| completion.outcome.stage() == Stage::Connect).count();
        failed as f64 / of_host.count() as f64
    };
    assert!(unreachable("pos-2", 0..2) < 0.01);
    // Ten seconds to give up, twenty at most to present a card.
    assert!(unreachable("pos-2", 3..4) > 0.95);
    assert!(unreachable("pos-1", 3..4) < 0.01);
}

#[test]
fn through_a_host_that_is_down_nobody_hears_of_a_bank() {
    let silent = Kind::SilentBank { issuer: "icbc".into(), timeout: Duration::from_secs(5) };
    let faults = vec![fault(silent, 1.0), fault(Kind::HostDown { host: "pos-2".into() }, 1.0)];
    let (fleet, completions) = play(&scenario(faults), 6 * MINUTE);
    let of_host = |minutes: std::ops::Range<u32>| {
        let during = completions.iter().filter(move |completion| (MINUTE * minutes.start..MINUTE * minutes.end).contains(&completion.at));
        during.filter(|completion| fleet.terminals[completion.terminal].host == "pos-2")
    };
    // What was begun before may end a little later.
    assert!(of_host(3..4).all(|completion| completion.outcome.stage() < Stage::Wait));
    let reversals = |minutes, stage: Stage| {
        let reversals = of_host(minutes).filter(|completion| completion.outcome.r#type() == TransactionType::Reversal);
        reversals.filter(|completion| completion.outcome.stage() == stage).count()
    };
    assert_eq!(reversals(3..4, Stage::HostDecision), 0);
}

/// Of what completed in these minutes and is of the terminals, how many ended at a stage with a condition, or with a code; and how many there were.
fn ended(
    (fleet, completions): &(Fleet, Vec<Completion>),
    is_of: impl Fn(&Terminal) -> bool,
    minutes: std::ops::Range<u32>,
    is_so: impl Fn(&Outcome) -> bool,
) -> (f64, usize) {
    let within = MINUTE * minutes.start..MINUTE * minutes.end;
    let of_them = completions.iter().filter(|completion| {
        within.contains(&completion.at)
            && is_of(&fleet.terminals[completion.terminal])
            && completion.outcome.r#type() != TransactionType::Reversal
    });
    let all = of_them.clone().count();
    (of_them.filter(|completion| is_so(&completion.outcome)).count() as f64 / all as f64, all)
}

#[test]
fn a_carrier_fails_where_it_is_to_fail() {
    let outage = Kind::CarrierOutage { carrier: "china-mobile".into(), region: Some("440000".into()) };
    let played = play(&scenario(vec![fault(outage, 0.5)]), 5 * MINUTE);
    let is_in =
        |terminal: &Terminal, region: bool| terminal.profile.carrier == "china-mobile" && (terminal.profile.region == "440000") == region;
    let unconnected = |outcome: &Outcome| matches!(outcome.stage(), Stage::Dns | Stage::Connect);
    let (failed, all) = ended(&played, |terminal| is_in(terminal, true), 3..4, unconnected);
    assert!(all > 50 && (0.35..0.65).contains(&failed), "{failed} of {all}");
    assert!(ended(&played, |terminal| is_in(terminal, false), 3..4, unconnected).0 < 0.02);
    assert!(ended(&played, |terminal| is_in(terminal, true), 0..2, unconnected).0 < 0.05);
}

#[test]
fn a_firmware_reads_badly_and_another_has_a_wrong_key() {
    let device = |model: &str, firmware: &str| Device { model: model.into(), firmware: firmware.into() };
    let (bad, keyless) = (device("PAX A920", "V02.3.16"), device("LANDI A8", "V1.4.7"));
    let faults =
        vec![fault(Kind::BadFirmware { device: bad.clone(), factor: 20.0 }, 1.0), fault(Kind::KeyFault { device: keyless.clone() }, 1.0)];
    let played = play(&scenario(faults), 5 * MINUTE);
    let unread = |outcome: &Outcome| outcome.stage() == Stage::CardRead;
    let (before, _) = ended(&played, |terminal| bad.is_of(terminal), 0..2, unread);
    let (during, all) = ended(&played, |terminal| bad.is_of(terminal), 2..4, unread);
    assert!(all > 500 && during > 8.0 * before && during < 0.3, "{before} {during}");
    assert!(ended(&played, |terminal| !bad.is_of(terminal), 2..4, unread).0 < 0.02);
    let refused = |outcome: &Outcome| outcome.response_code == "A0";
    assert!(ended(&played, |terminal| keyless.is_of(terminal), 3..4, refused).0 > 0.9);
    assert!(ended(&played, |terminal| !keyless.is_of(terminal), 2..4, refused).0 < 0.01);
}

#[test]
fn without_power_nothing_is_sold_and_a_holiday_is_quiet() {
    let cut = Kind::PowerCut { region: "440000".into() };
    let played = play(&scenario(vec![fault(cut, 1.0)]), 5 * MINUTE);
    let of_region = |terminal: &Terminal| terminal.profile.region == "440000";
    let sold = |minutes| ended(&played, of_region, minutes, |_| true).1;
    let usual = sold(0..1);
    // What had begun ends, and silence is waited for a minute long.
    assert!(usual > 200 && sold(3..4) < usual / 50 && sold(4..5) > usual * 7 / 10, "{usual} {} {}", sold(3..4), sold(4..5));

    let played = play(&scenario(vec![fault(Kind::Holiday { factor: 0.25 }, 1.0)]), 5 * MINUTE);
    let sold = |minutes| ended(&played, |_| true, minutes, |_| true).1;
    assert!((sold(3..4) as f64 / sold(1..2) as f64 - 0.25).abs() < 0.03);
}

#[test]
fn before_wages_accounts_are_empty_and_a_bank_that_fails_may_refuse() {
    let faults = vec![fault(Kind::Payday { factor: 6.0 }, 1.0), fault(Kind::RefusingBank { issuer: "ccb".into() }, 1.0)];
    let (_, completions) = play(&scenario(faults), 5 * MINUTE);
    let (before, during) = (share_of("51", "icbc", 0..2, &completions), share_of("51", "icbc", 3..4, &completions));
    assert!((4.0..8.0).contains(&(during / before)), "{before} {during}");
    assert!(share_of("05", "ccb", 3..4, &completions) > 0.85 && share_of("05", "icbc", 3..4, &completions) < 0.02);
}

#[test]
fn a_flash_sale_brings_customers_and_no_failures() {
    let sale = |merchant_group| scenario(vec![fault(Kind::FlashSale { factor: 4.0, merchant_group }, 1.0)]);
    let counts = |(fleet, completions): (Fleet, Vec<Completion>)| {
        let mut counts: HashMap<(u128, bool), usize> = HashMap::new();
        for completion in &completions {
            let is_in = fleet.terminals[completion.terminal].profile.merchant_group == "chain-03";
            *counts.entry((completion.at.as_secs().into(), is_in)).or_default() += 1;
        }
        let within = |seconds: std::ops::Range<u128>, is_in| -> usize { seconds.filter_map(|second| counts.get(&(second, is_in))).sum() };
        let ratio = |is_in| within(150..230, is_in) as f64 / within(20..100, is_in) as f64;
        (ratio(true), ratio(false))
    };
    let (inside, outside) = counts(play(&sale(Some("chain-03".into())), 5 * MINUTE));
    assert!((3.3..4.8).contains(&inside) && (0.9..1.1).contains(&outside), "{inside} {outside}");
    let (inside, outside) = counts(play(&sale(None), 5 * MINUTE));
    assert!((3.3..4.8).contains(&inside) && (3.7..4.3).contains(&outside), "{inside} {outside}");
}

#[test]
fn outcomes_are_within_the_contract_and_hang_together() {
    let (_, completions) = play(&scenario(Vec::new()), 10 * MINUTE);
    let rules = Rules::built_in().unwrap();
    let by_id: HashMap<u64, &Completion> = completions.iter().map(|completion| (completion.id, completion)).collect();
    let (mut again, mut reversals, mut approved) = (0, 0, 0);
    for completion in &completions {
        let outcome = &completion.outcome;
        approved += usize::from(rules.verdict(outcome).reason.cause == Cause::Approved);
        assert_eq!(outcome.bin.is_empty(), outcome.stage() == Stage::CardRead);
        let has_pin = outcome.latencies.is_some_and(|latencies| latencies.pin_entry_ms.is_some());
        assert!(has_pin || !["55", "75"].contains(&outcome.response_code.as_str()), "a wrong PIN that nobody entered");
        let says_pin = outcome.emv.as_ref().is_some_and(|emv| emv.terminal_verification_results[2] != 0);
        assert!(has_pin || !says_pin, "a chip that saw a PIN that nobody entered");
        assert!((0..=5_000_000).contains(&outcome.amount_minor) && outcome.retrieval_reference_number.len() <= 12);
        match completion.follows {
            Some(Follows::Sale(first)) => {
                again += 1;
                let first = by_id[&first];
                assert!(first.is_followed && first.at < completion.at && first.terminal == completion.terminal);
                assert_eq!((first.outcome.attempt, first.outcome.amount_minor), (1, outcome.amount_minor));
                assert!((2..=3).contains(&outcome.attempt));
            }
            Some(Follows::Reversed(original)) => {
                reversals += 1;
                let original = &by_id[&original].outcome;
                assert!(original.money_outcome() == MoneyOutcome::Unknown && is_reversible(original.r#type()));
                assert_eq!(outcome.r#type(), TransactionType::Reversal);
            }
            None => assert_eq!(outcome.attempt, 1),
        }
    }
    let approved = approved as f64 / completions.len() as f64;
    assert!((0.94..0.96).contains(&approved), "{approved}");
    assert!(again > 300 && reversals > 20, "{again} {reversals}");
}
