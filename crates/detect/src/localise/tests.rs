use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_distr::{Binomial, Distribution, Normal, Weibull};
use rand_pcg::Pcg64;

use super::*;

const CARDS: [u32; 4] = [6, 10, 5, 4];
const NAMES: [&str; 4] = ["bank", "carrier", "model", "region"];

/// A leaf's values, and what it counted.
type Counted<T> = ([u32; 4], T);

fn all_values() -> Vec<[u32; 4]> {
    let [a, b, c, d] = CARDS;
    (0..a * b * c * d).map(|at| [at / (b * c * d), at / (c * d) % b, at / d % c, at % d]).collect()
}

fn is_in(values: [u32; 4], slice: &[(usize, u32)]) -> bool {
    slice.iter().all(|(place, value)| values[*place] == *value)
}

/// Amounts with a tenth of noise, of which those of these slices lose a share.
fn amounts(seed: u64, moved: &[(&[(usize, u32)], f64)]) -> Vec<Counted<Amount>> {
    let mut rng = Pcg64::seed_from_u64(seed);
    let leaf = |values| {
        let real: f64 = 100.0 * Weibull::new(1.0, 0.7).unwrap().sample(&mut rng);
        let expected = real * Normal::new(1.0, 0.1).unwrap().sample(&mut rng);
        let lost: f64 = moved.iter().filter(|(slice, _)| is_in(values, slice)).map(|(_, share)| *share).sum();
        (values, Amount { real: real * (1.0 - lost), expected })
    };
    all_values().into_iter().map(leaf).collect()
}

/// Attempts, 1 % of which fail, and in these slices more.
fn trials(seed: u64, moved: &[(&[(usize, u32)], f64)]) -> Vec<Counted<Trials>> {
    let mut rng = Pcg64::seed_from_u64(seed);
    let leaf = |values| {
        let attempts = rng.random_range(5..80_u32);
        let rate = 0.01 + moved.iter().filter(|(slice, _)| is_in(values, slice)).map(|(_, more)| *more).sum::<f64>();
        let failures = Binomial::new(attempts.into(), rate).unwrap().sample(&mut rng) as f64;
        let attempts = f64::from(attempts);
        (values, Trials { failures, attempts, expected_failures: 0.01 * attempts, expected_attempts: attempts })
    };
    all_values().into_iter().map(leaf).collect()
}

/// What is named of leaves, their attributes being given in this order: each with its attributes in the order of their names.
fn named<T: Copy>(
    rows: &[Counted<T>],
    order: [usize; 4],
    new: fn(&[&str]) -> Leaves,
    push: fn(&mut Leaves, &[u32], T),
) -> (Leaves, Vec<Moved>) {
    let mut leaves = new(&order.map(|place| NAMES[place]));
    for (values, counted) in rows {
        let ids: Vec<u32> = order.iter().enumerate().map(|(at, place)| leaves.id(at, &format!("v{}", values[*place])).unwrap()).collect();
        push(&mut leaves, &ids, *counted);
    }
    let moved = localise(&leaves);
    (leaves, moved)
}

fn of_amounts(rows: &[Counted<Amount>], order: [usize; 4]) -> (Leaves, Vec<Moved>) {
    named(
        rows,
        order,
        |names| Leaves::additive(names.iter().copied()).unwrap(),
        |leaves, ids, amount| leaves.push_amount(ids, amount).unwrap(),
    )
}

fn of_trials(rows: &[Counted<Trials>], order: [usize; 4]) -> (Leaves, Vec<Moved>) {
    named(rows, order, |names| Leaves::rate(names.iter().copied()).unwrap(), |leaves, ids, leaf| leaves.push_trials(ids, leaf).unwrap())
}

fn labels((leaves, moved): &(Leaves, Vec<Moved>)) -> Vec<String> {
    moved.iter().map(|moved| moved.element.label(leaves)).collect()
}

const IN_ORDER: [usize; 4] = [0, 1, 2, 3];

#[test]
fn slices_of_different_attributes_are_named_by_amounts() {
    let found = of_amounts(&amounts(1, &[(&[(0, 2)], 0.5), (&[(1, 3), (3, 1)], 0.7)]), IN_ORDER);
    assert_eq!(labels(&found), ["bank=v2", "carrier=v3&region=v1"]);
    let bank = &found.1[0];
    assert!((0.45..0.55).contains(&bank.relative_risk) && bank.leaves == 200, "{bank:?}");
    assert!(bank.contribution > 0.5 && bank.score > found.1[1].score && found.1[1].score > 50.0, "{bank:?}");
}

#[test]
fn slices_of_different_attributes_are_named_by_rates() {
    let found = of_trials(&trials(1, &[(&[(0, 2), (2, 4)], 0.4), (&[(1, 3)], 0.1)]), IN_ORDER);
    assert_eq!(labels(&found), ["carrier=v3", "bank=v2&model=v4"]);
    assert!(found.1.iter().all(|moved| moved.relative_risk > 5.0 && moved.contribution > 0.1), "{:?}", found.1);
}

#[test]
fn a_leaf_alone_is_named() {
    let found = of_amounts(&amounts(3, &[(&[(0, 2), (1, 4), (2, 1), (3, 3)], 0.9)]), IN_ORDER);
    assert_eq!(labels(&found), ["bank=v2&carrier=v4&model=v1&region=v3"]);
}

#[test]
fn two_of_three_values_are_not_named_as_what_is_above_them() {
    let of_region = |region| [(0, 2), (3, region)];
    let found = of_amounts(&amounts(4, &[(&of_region(0), 0.6), (&of_region(1), 0.6), (&of_region(3), 0.6)]), IN_ORDER);
    let mut named = labels(&found);
    named.sort();
    assert_eq!(named, ["bank=v2&region=v0", "bank=v2&region=v1", "bank=v2&region=v3"]);
}

#[test]
fn nothing_is_named_where_nothing_moved() {
    for seed in 0..20 {
        let found = of_amounts(&amounts(seed, &[]), IN_ORDER);
        assert_eq!(labels(&found), Vec::<String>::new(), "amounts of seed {seed}");
        let found = of_trials(&trials(seed, &[]), IN_ORDER);
        assert_eq!(labels(&found), Vec::<String>::new(), "rates of seed {seed}");
    }
    assert_eq!(localise(&Leaves::additive(["bank"]).unwrap()), []);
    let zero = |values| (values, Amount { real: 0.0, expected: 0.0 });
    assert_eq!(labels(&of_amounts(&all_values().into_iter().map(zero).collect::<Vec<_>>(), IN_ORDER)), Vec::<String>::new());
    let none = |values| (values, Trials { failures: 0.0, attempts: 0.0, expected_failures: 0.0, expected_attempts: 0.0 });
    assert_eq!(labels(&of_trials(&all_values().into_iter().map(none).collect::<Vec<_>>(), IN_ORDER)), Vec::<String>::new());
}

#[test]
fn the_order_of_leaves_and_attributes_changes_nothing() {
    for seed in 0..4 {
        let mut rng = Pcg64::seed_from_u64(seed);
        let mut rows = amounts(seed, &[(&[(1, 2)], 0.3), (&[(0, 1), (2, 3)], 0.5), (&[(0, 4), (3, 2)], 0.5)]);
        let mut rates = trials(seed, &[(&[(1, 2)], 0.02), (&[(0, 1), (2, 3)], 0.1)]);
        let before = (of_amounts(&rows, IN_ORDER), of_trials(&rates, IN_ORDER));
        let mut order = IN_ORDER;
        order.shuffle(&mut rng);
        rows.shuffle(&mut rng);
        rates.shuffle(&mut rng);
        let after = (of_amounts(&rows, order), of_trials(&rates, order));
        assert_eq!((labels(&before.0), labels(&before.1)), (labels(&after.0), labels(&after.1)), "seed {seed}, order {order:?}");
        let scores = |found: &(Leaves, Vec<Moved>)| found.1.iter().map(|moved| moved.score).collect::<Vec<_>>();
        assert_eq!((scores(&before.0), scores(&before.1)), (scores(&after.0), scores(&after.1)), "seed {seed}");
    }
}

#[test]
fn other_labels_change_nothing_but_labels() {
    for seed in 0..4 {
        let rows = amounts(seed, &[(&[(1, 2)], 0.3), (&[(0, 1), (2, 3)], 0.5)]);
        let before = of_amounts(&rows, IN_ORDER);
        // Each value is called as the one that is as far from the last.
        let renamed = |values: [u32; 4]| [0, 1, 2, 3].map(|place| CARDS[place] - 1 - values[place]);
        let after = of_amounts(&rows.iter().map(|(values, amount)| (renamed(*values), *amount)).collect::<Vec<_>>(), IN_ORDER);
        assert_eq!(labels(&before), ["carrier=v2", "bank=v1&model=v3"]);
        assert_eq!(labels(&after), ["carrier=v7", "bank=v4&model=v1"]);
        assert_eq!(before.1[0].score, after.1[0].score);
    }
}

#[test]
fn rounded_numbers_are_not_what_moved() {
    for seed in 0..10 {
        let cents = |amount: f64| (amount / 100.0 * 2.0).round() / 100.0;
        let rounded =
            |(values, Amount { real, expected }): Counted<Amount>| (values, Amount { real: cents(real), expected: cents(expected) });
        let rows: Vec<_> = amounts(seed, &[]).into_iter().map(rounded).collect();
        assert_eq!(labels(&of_amounts(&rows, IN_ORDER)), Vec::<String>::new(), "seed {seed}");
    }
}

#[test]
fn what_could_be_meant_instead_is_told() {
    // Each carrier is in one region: both have the same leaves, and only their names differ.
    let mut rows = amounts(5, &[(&[(1, 2)], 0.5)]);
    rows.iter_mut().for_each(|(values, _)| values[3] = values[1]);
    let found = of_amounts(&rows, IN_ORDER);
    assert_eq!(labels(&found), ["carrier=v2"]);
    let instead = &found.1[0].alternatives[0];
    assert_eq!((instead.element.label(&found.0).as_str(), instead.score), ("region=v2", found.1[0].score));
}

#[test]
fn leaves_that_are_none_are_refused() {
    let mut leaves = Leaves::additive(["bank"]).unwrap();
    let amount = Amount { real: 1.0, expected: 1.0 };
    let id = leaves.id(0, "icbc").unwrap();
    assert_eq!(leaves.id(1, "icbc"), None);
    assert_eq!(leaves.push_amount(&[], amount), Err(LeafError::Values { expected: 1, found: 0 }));
    assert_eq!(leaves.push_amount(&[7], amount), Err(LeafError::Id { attribute: 0, id: 7 }));
    assert_eq!(leaves.push_amount(&[id], Amount { real: f64::NAN, ..amount }), Err(LeafError::Number));
    assert_eq!(
        leaves.push_trials(&[id], Trials { failures: 1.0, attempts: 2.0, expected_failures: 1.0, expected_attempts: 2.0 }),
        Err(LeafError::Measure)
    );
    assert_eq!(leaves.push_amount(&[id], amount), Ok(()));
    assert_eq!(leaves.len(), 1);
    assert_eq!(Leaves::rate((0..33).map(|_| "bank")).map(|_| ()), Err(LeafError::Attributes));
}
