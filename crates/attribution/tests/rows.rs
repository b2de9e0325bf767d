//! Every `[[attribution]]` row of the rule sets that come with the program: a fleet in which a part of the row's family fails with the row's symptom is found
//! to have that fault, and what failed is settled as the row's reason.

use faultline_attribution::{Attempt, Fleet};
use faultline_verdict::{Family, Reason, RuleSet, Rules};
use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64;

const BEGIN_MS: i64 = 1_790_000_000_000;
const MINUTE_MS: i64 = 60_000;
const SALES: i64 = 30_000;
const TERMINALS: u32 = 400;
/// Minutes in which the part fails.
const FAILS: std::ops::Range<i64> = 20..50;
/// The card that fails is tried at so many terminals.
const TRIED_AT: u32 = 12;
const SECRET_CARD: u32 = 7;

/// The values that a sale has, by family; cut so that no two families have the same parts.
struct Values {
    acquirer: String,
    host: String,
    route: String,
    issuer: String,
    bin: String,
    carrier: String,
    region: String,
    model: String,
    firmware: String,
    application: String,
    merchant: String,
    terminal: String,
    card: u32,
}

impl Values {
    fn of(terminal: u32, card: u32, rng: &mut Pcg64) -> Values {
        let shop = terminal / 2;
        let issuer = rng.random_range(0..8);
        Values {
            acquirer: format!("a{}", shop % 2),
            host: format!("h{}", rng.random_range(0..3)),
            route: format!("r{}", rng.random_range(0..3)),
            issuer: format!("i{issuer}"),
            bin: format!("62{issuer}{}", rng.random_range(0..4)),
            carrier: format!("c{}", shop / 2 % 3),
            region: format!("{}", 11 + shop / 6 % 6),
            model: format!("m{}", terminal / 3 % 4),
            firmware: format!("{}", terminal / 12 % 2),
            application: format!("app{}", terminal % 5),
            merchant: format!("S{shop}"),
            terminal: format!("T{terminal}"),
            card,
        }
    }

    /// The part of a family that it is in, as faults are called by.
    fn part(&self, family: Family) -> String {
        match family {
            Family::Fleet => "fleet".into(),
            Family::Acquirer => self.acquirer.clone(),
            Family::Host => format!("{}|{}", self.acquirer, self.host),
            Family::Route => format!("{}|{}", self.acquirer, self.route),
            Family::Issuer => self.issuer.clone(),
            Family::Bin => self.bin.clone(),
            Family::Carrier => self.carrier.clone(),
            Family::Region => self.region.clone(),
            Family::CarrierRegion => format!("{}|{}", self.carrier, self.region),
            Family::ModelFirmware => format!("{}|{}", self.model, self.firmware),
            Family::Application => self.application.clone(),
            Family::Shop => self.merchant.clone(),
            Family::Terminal => self.terminal.clone(),
            Family::Card => format!("1|{}", self.card),
            Family::Sale => String::new(),
        }
    }
}

/// The part of each family that is made to fail.
fn faulty(family: Family) -> &'static str {
    match family {
        Family::Fleet => "fleet",
        Family::Acquirer => "a1",
        Family::Host => "a1|h2",
        Family::Route => "a0|r1",
        Family::Issuer => "i3",
        Family::Bin => "6232",
        Family::Carrier => "c2",
        Family::Region => "14",
        Family::CarrierRegion => "c1|13",
        Family::ModelFirmware => "m2|1",
        Family::Application => "app4",
        Family::Shop => "S90",
        Family::Terminal => "T33",
        Family::Card => "1|7",
        Family::Sale => "none",
    }
}

/// What is found in an hour in which a part of a family fails with a reason: the faults, and as what failures of the part, and others, are settled, with how many of them.
struct Found {
    faults: Vec<String>,
    inside: Vec<(String, usize)>,
    outside: Vec<(String, usize)>,
}

fn play(rules: &Rules, (set, reason): (&RuleSet, &Reason), family: Family) -> Found {
    let mut rng = Pcg64::seed_from_u64(23);
    let mut fleet = Fleet::new(rules);
    let mut is_inside = Vec::new();
    for sale in 0..SALES {
        let ms = sale * 60 * MINUTE_MS / SALES;
        let is_during = FAILS.contains(&(ms / MINUTE_MS));
        // A card comes to some shops, once to each; others only once at all.
        let of_card = family == Family::Card && is_during && sale % (SALES / 2 / i64::from(TRIED_AT)) == 0;
        let card = if of_card { SECRET_CARD } else { 1000 + (rng.next_u32() >> 4) };
        let values = Values::of(rng.random_range(0..TERMINALS), card, &mut rng);
        let part = values.part(family);
        let is_faulty = is_during && part == faulty(family);
        let fails = is_faulty && (of_card || rng.random_bool(0.7)) || rng.random_bool(0.002);
        let attempt = Attempt {
            completed_ms: BEGIN_MS + ms,
            terminal: &values.terminal,
            spool: 1,
            sale: sale.unsigned_abs() + 1,
            merchant: &values.merchant,
            issuer: &values.issuer,
            bin: &values.bin,
            card: Some((1, values.card)),
            carrier: &values.carrier,
            region: &values.region,
            model: &values.model,
            firmware: &values.firmware,
            application: &values.application,
            acquirer: &values.acquirer,
            host: &values.host,
            route: &values.route,
            rule_set: set.version(),
            reason: if fails { &reason.id } else { "approved" },
            confidence: reason.confidence,
            ..Attempt::default()
        };
        if fleet.observe(&attempt).is_some() {
            is_inside.push(is_faulty);
        }
    }
    let settlement = fleet.settle();
    let faults = settlement.faults.iter().map(|fault| format!("{} {}={}", fault.symptom, fault.family.name(), fault.part)).collect();
    let settled = |inside: bool| {
        let mut counts = std::collections::BTreeMap::new();
        let of = settlement.failures.iter().zip(&is_inside).filter(|(_, is_inside)| **is_inside == inside);
        of.for_each(|(settled, _)| *counts.entry(settled.reason.id.clone()).or_insert(0) += 1);
        counts.into_iter().collect::<Vec<_>>()
    };
    Found { faults, inside: settled(true), outside: settled(false) }
}

#[test]
fn every_row_settles_what_fails_in_a_part_of_its_family() {
    let rules = Rules::built_in().unwrap();
    let (mut rows, mut wrong) = (0, Vec::new());
    for set in rules.sets() {
        for row in rules.attributions_of(set).filter(|row| !row.inherited) {
            // Alone, only failures of the class of the row's reason stand for it.
            let can_stand_for = |reason: &&Reason| row.family != Family::Sale || reason.class == row.reason.class;
            let reasons = rules.reasons(set).filter(|reason| reason.symptom == row.symptom).filter(can_stand_for);
            let reason = reasons.min_by_key(|reason| reason.confidence).unwrap();
            let found = play(&rules, (set, reason), row.family);
            let (faults, settled) = match row.family {
                Family::Sale => (vec![], &found.outside),
                family => (vec![format!("{} {}={}", row.symptom, family.name(), faulty(family))], &found.inside),
            };
            let all: usize = settled.iter().map(|(_, number)| number).sum();
            let as_row: usize = settled.iter().filter(|(id, _)| *id == row.reason.id).map(|(_, number)| number).sum();
            if found.faults != faults || all < 8 || as_row * 100 < all * 95 {
                let of = (set.name(), row.symptom, row.family.name(), &row.reason.id, &reason.id);
                wrong.push(format!("{of:?}: found {:?}, settled {settled:?}", found.faults));
            }
            rows += 1;
        }
    }
    assert!(wrong.is_empty(), "{} of {rows} rows:\n{}", wrong.len(), wrong.join("\n"));
    assert!(rows > 50, "{rows} rows");
}
