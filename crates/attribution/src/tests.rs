use std::collections::BTreeMap;

use faultline_verdict::{Cause, Family, Rules};
use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64;

use crate::{Attempt, Fleet, Settlement};

const BEGIN_MS: i64 = 1_790_000_000_000;
const ISSUERS: [&str; 8] = ["icbc", "ccb", "abc", "boc", "cmb", "bocom", "psbc", "citic"];
const CARRIERS: [&str; 3] = ["mobile", "unicom", "telecom"];
const REGIONS: [&str; 6] = ["11", "31", "44", "33", "32", "51"];
const SET: &str = "unionpay-pos/test";

/// One sale of a fleet that does not exist.
#[derive(Clone, Debug)]
struct Sale {
    ms: i64,
    number: u64,
    terminal: usize,
    issuer: usize,
    card: u32,
}

impl Sale {
    fn carrier(&self) -> &'static str {
        CARRIERS[self.terminal / 2 % 3]
    }

    fn region(&self) -> &'static str {
        REGIONS[self.terminal / 2 / 3 % 6]
    }
}

/// Sales of an hour at 400 terminals in 200 shops. `fails` says as what; nothing: approved. Returns what is settled, by number of sale.
fn settled(rules: &Rules, sales: usize, mut fails: impl FnMut(&Sale, &mut Pcg64) -> Option<(&'static str, &'static str)>) -> Told<'_> {
    let mut rng = Pcg64::seed_from_u64(7);
    let mut fleet = Fleet::new(rules);
    let mut failed = BTreeMap::new();
    for number in 0..sales {
        let terminal = rng.random_range(0..400);
        let sale = Sale {
            ms: BEGIN_MS + i64::try_from(number * 3_600_000 / sales).unwrap(),
            number: number as u64 + 1,
            terminal,
            issuer: rng.random_range(0..ISSUERS.len()),
            card: rng.next_u32() >> 12,
        };
        let (reason, code) = fails(&sale, &mut rng).unwrap_or(("approved", "00"));
        let (terminal, shop) = (format!("T{terminal}"), format!("S{}", terminal / 2));
        let attempt = Attempt {
            completed_ms: sale.ms,
            terminal: &terminal,
            spool: 1,
            sale: sale.number,
            merchant: &shop,
            issuer: ISSUERS[sale.issuer],
            card: Some((1, sale.card)),
            carrier: sale.carrier(),
            region: sale.region(),
            acquirer: "a",
            host: if sale.number.is_multiple_of(2) { "h1" } else { "h2" },
            response_code: code,
            rule_set: SET,
            reason,
            confidence: 60,
            ..Attempt::default()
        };
        if let Some(place) = fleet.observe(&attempt) {
            failed.insert(place, sale);
        }
    }
    Told { settlement: fleet.settle(), failed }
}

struct Told<'r> {
    settlement: Settlement<'r>,
    failed: BTreeMap<usize, Sale>,
}

impl Told<'_> {
    /// Family and part of what was found.
    fn faults(&self) -> Vec<String> {
        self.settlement.faults.iter().map(|fault| format!("{} {}={}", fault.symptom, fault.family.name(), fault.part)).collect()
    }

    /// How many of those for which `is_of` holds are settled as a cause, and how many there are.
    fn share(&self, cause: Cause, is_of: impl Fn(&Sale) -> bool) -> (usize, usize) {
        let of = self.failed.iter().filter(|(_, sale)| is_of(sale));
        let causes: Vec<bool> = of.map(|(place, _)| self.settlement.failures[*place].reason.cause == cause).collect();
        (causes.iter().filter(|is| **is).count(), causes.len())
    }
}

fn within(sale: &Sale, minutes: std::ops::Range<i64>) -> bool {
    minutes.contains(&((sale.ms - BEGIN_MS) / 60_000))
}

#[test]
fn a_quiet_fleet_has_no_faults() {
    let rules = Rules::built_in().unwrap();
    let told = settled(&rules, 40_000, |_, rng| match rng.random_range(0..1000) {
        0..5 => Some(("issuer_refused", "05")),
        5..8 => Some(("no_answer", "")),
        8..14 => Some(("card_not_read", "")),
        _ => None,
    });
    assert_eq!(told.faults(), Vec::<String>::new());
    for settled in &told.settlement.failures {
        assert_eq!(settled.fault, None);
        assert!(settled.confidence > 0.4, "{settled:?}");
    }
}

#[test]
fn an_issuer_that_refuses_far_more_than_usual_is_at_fault_and_others_accounts_are_not() {
    let rules = Rules::built_in().unwrap();
    let told = settled(&rules, 20_000, |sale, rng| {
        let fails = sale.issuer == 2 && within(sale, 20..30) && rng.random_bool(0.5);
        (fails || rng.random_bool(0.006)).then_some(("issuer_refused", "05"))
    });
    assert_eq!(told.faults(), ["refused issuer=abc"]);
    let (bank, all) = told.share(Cause::Bank, |sale| sale.issuer == 2 && within(sale, 20..30));
    assert!(all > 150 && bank >= all - 1, "{bank} of {all}");
    let (account, all) = told.share(Cause::Account, |sale| sale.issuer != 2 || within(sale, 0..19) || within(sale, 31..60));
    assert_eq!((account, all > 60), (all, true));
    let fault = &told.settlement.faults[0];
    let minutes = [fault.from_ms, fault.until_ms].map(|ms| (ms - BEGIN_MS) / 60_000);
    assert_eq!(minutes, [20, 30]);
    assert!(fault.probability > 0.999 && (fault.failed / fault.tried - 0.5).abs() < 0.1, "{fault:?}");
}

#[test]
fn timeouts_are_those_of_the_part_that_all_have_in_common() {
    let rules = Rules::built_in().unwrap();
    type Fails = fn(&Sale) -> bool;
    let cases: [(Fails, &str, Cause); 5] = [
        (|sale| sale.issuer == 1, "unanswered issuer=ccb", Cause::Bank),
        (|sale| sale.carrier() == "unicom", "unanswered carrier=unicom", Cause::Network),
        (|sale| sale.carrier() == "unicom" && sale.region() == "44", "unanswered carrier_region=unicom|44", Cause::Network),
        (|sale| sale.number % 2 == 0, "unanswered host=a|h1", Cause::Other),
        (|sale| sale.terminal / 2 == 90, "unanswered shop=S90", Cause::Network),
    ];
    for (lies_in, found, cause) in cases {
        let told = settled(&rules, 30_000, |sale, rng| {
            let fails = lies_in(sale) && within(sale, 10..40) && rng.random_bool(0.6);
            (fails || rng.random_bool(0.003)).then_some(("no_answer", ""))
        });
        assert_eq!(told.faults(), [found]);
        let (right, all) = told.share(cause, |sale| lies_in(sale) && within(sale, 10..40));
        assert!(right * 100 >= all * 99, "{found}: {right} of {all}");
    }
}

#[test]
fn two_faults_at_once_are_told_apart() {
    let rules = Rules::built_in().unwrap();
    let told = settled(&rules, 40_000, |sale, rng| {
        let bank = sale.issuer == 4 && within(sale, 10..30) && rng.random_bool(0.4);
        let carrier = sale.carrier() == "telecom" && sale.region() == "31" && within(sale, 15..45) && rng.random_bool(0.5);
        (bank || carrier || rng.random_bool(0.003)).then_some(("no_answer", ""))
    });
    assert_eq!(told.faults(), ["unanswered issuer=cmb", "unanswered carrier_region=telecom|31"]);
}

#[test]
fn a_reader_fails_with_many_cards_and_a_card_at_many_readers() {
    let rules = Rules::built_in().unwrap();
    let told = settled(&rules, 20_000, |sale, rng| {
        let worn = sale.terminal == 33 && rng.random_bool(0.3);
        (worn || rng.random_bool(0.004)).then_some(("chip_unreadable", ""))
    });
    assert_eq!(told.faults(), ["card_data terminal=T33"]);

    let mut tries = 0;
    let told = settled(&rules, 20_000, |sale, rng| {
        // No card but one comes twice here, so the one that is damaged is a terminal's customer in the same minute.
        tries += usize::from(sale.number % 2500 == 0);
        rng.random_bool(0.004).then_some(("chip_unreadable", ""))
    });
    assert_eq!((told.faults(), tries), (Vec::<String>::new(), 8));
}

/// Attempts of large parts come as counts; a part that nobody counted is none that a fault is looked for in.
#[test]
fn counts_say_the_same_as_attempts_and_what_is_not_counted_nothing() {
    let rules = Rules::built_in().unwrap();
    let attempt = |sale: u64| Attempt {
        completed_ms: BEGIN_MS + i64::try_from(sale).unwrap() * 1000,
        terminal: "T",
        sale,
        issuer: if sale.is_multiple_of(4) { "icbc" } else { "ccb" },
        acquirer: "nobody counts it",
        rule_set: SET,
        reason: if sale.is_multiple_of(4) && sale > 1200 { "no_answer" } else { "approved" },
        confidence: 60,
        ..Attempt::default()
    };
    let mut fleet = Fleet::new(&rules);
    for sale in 1..=2400 {
        let attempt = attempt(sale);
        for part in [(Family::Fleet, "fleet"), (Family::Issuer, attempt.issuer)] {
            fleet.tried(part, attempt.completed_ms, 1);
        }
        fleet.failed(&attempt);
    }
    let settlement = fleet.settle();
    let faults: Vec<(Family, &str)> = settlement.faults.iter().map(|fault| (fault.family, fault.part.as_str())).collect();
    assert_eq!(faults, [(Family::Issuer, "icbc")]);
    assert!(settlement.failures.len() == 300 && settlement.failures.iter().all(|settled| settled.reason.cause == Cause::Bank));
}

#[test]
fn nothing_is_settled_of_nothing() {
    let rules = Rules::built_in().unwrap();
    assert_eq!(Fleet::new(&rules).settle().failures, []);
    let mut fleet = Fleet::new(&rules);
    let alone = Attempt { rule_set: SET, reason: "no_answer", completed_ms: i64::MIN, ..Attempt::default() };
    assert_eq!(fleet.observe(&alone), Some(0));
    assert_eq!(fleet.observe(&Attempt { completed_ms: i64::MAX, ..alone }), Some(1));
    assert_eq!(fleet.observe(&Attempt { reason: "insufficient_funds", ..alone }), None);
    let settlement = fleet.settle();
    assert_eq!(settlement.faults, []);
    assert!(settlement.failures.iter().all(|settled| settled.reason.id == "no_answer" && settled.fault.is_none()));
    assert_eq!(Family::ALL.map(|family| family as usize), std::array::from_fn(|place| place));
}
