//! Instances that are made, with known answers: other numbers of attributes, values, causes and noise than the sets that are passed around have.
//!
//! The additive ones follow the published generator of RiskLoc (Kalander, 2022): sizes are Weibull, a share of leaves is 0, the forecast is the real value with relative noise,
//! and the leaves of a cause lose a common share. Those like Squeeze (Li et al., 2019) have one cause, and noise relative to the forecast. The rates are like those of a payments
//! fleet: attempts spread unevenly over values, rates that depend on them, a past of a few windows, and faults that multiply the odds of failing or add failures.

use std::collections::BTreeSet;

use faultline_detect::localise::{Amount, Leaves, Trials};
use rand::{RngExt, SeedableRng};
use rand_distr::{Binomial, Distribution, Gamma, LogNormal, Normal, Poisson, Weibull};
use rand_pcg::Pcg64;

use super::Instance;

/// Instances of each kind for each seed.
const INSTANCES: u64 = 20;
/// How evident a made fault of a rate is at least, in nats: what nobody could see is nothing to find.
const EVIDENT: f64 = 25.0;

/// A kind of instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One to three causes of one to three slices each, any attributes, any noise.
    Mixed,
    /// One to five single leaves.
    SingleLeaves,
    /// One cause of one to three slices, little noise, relative to the forecast.
    OneCause,
    /// Failure rates of a payments fleet.
    Payments,
}

/// A cause: slices of the same attributes.
struct Cause {
    slices: Vec<Vec<(usize, u32)>>,
    severity: f64,
    deviation: f64,
}

/// Attributes, and the leaves that they make.
struct World {
    names: Vec<String>,
    cards: Vec<u32>,
    rows: Vec<Vec<u32>>,
}

impl Kind {
    pub(super) const ALL: [Kind; 4] = [Kind::Mixed, Kind::SingleLeaves, Kind::OneCause, Kind::Payments];

    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Mixed => "made-mixed",
            Kind::SingleLeaves => "made-leaves",
            Kind::OneCause => "made-one-cause",
            Kind::Payments => "made-payments",
        }
    }

    /// Instances of a seed.
    pub(super) fn instances(self, seed: u64) -> impl Iterator<Item = Instance> {
        (0..INSTANCES).map(move |number| {
            let name = (seed * 1000 + number).to_string();
            let mut rng = Pcg64::seed_from_u64(seed.wrapping_mul(1_000_003) + number);
            match self {
                Kind::Payments => payments(name, &mut rng),
                kind => additive(name, kind, &mut rng),
            }
        })
    }
}

impl World {
    /// All combinations of values, at least 2,000 and at most 50,000.
    fn full(rng: &mut Pcg64) -> World {
        let cards = loop {
            let count = rng.random_range(3..=6);
            let cards: Vec<u32> = (0..count).map(|_| rng.random_range(3..=24)).collect();
            let product: u64 = cards.iter().map(|card| u64::from(*card)).product();
            if (2_000..=50_000).contains(&product) {
                break cards;
            }
        };
        World::of(cards)
    }

    fn of(cards: Vec<u32>) -> World {
        let mut rows = vec![Vec::new()];
        for card in &cards {
            rows = rows.into_iter().flat_map(|row: Vec<u32>| (0..*card).map(move |value| [row.as_slice(), &[value]].concat())).collect();
        }
        let names = (0..cards.len()).map(|place| format!("attribute_{place}")).collect();
        World { names, cards, rows }
    }

    /// A slice of so many attributes, or of exactly these.
    fn slice(&self, attributes: &[usize], rng: &mut Pcg64) -> Vec<(usize, u32)> {
        attributes.iter().filter_map(|place| Some((*place, rng.random_range(0..*self.cards.get(*place)?)))).collect()
    }

    fn some_attributes(&self, count: usize, rng: &mut Pcg64) -> Vec<usize> {
        let mut places: BTreeSet<usize> = BTreeSet::new();
        while places.len() < count.min(self.cards.len()) {
            places.insert(rng.random_range(0..self.cards.len()));
        }
        places.into_iter().collect()
    }

    fn named(&self, slice: &[(usize, u32)]) -> String {
        slice
            .iter()
            .map(|(place, value)| format!("{}=v{value}", self.names.get(*place).map_or("", String::as_str)))
            .collect::<Vec<_>>()
            .join("&")
    }

    fn truth<'a>(&self, slices: impl IntoIterator<Item = &'a Vec<(usize, u32)>>) -> String {
        slices.into_iter().map(|slice| self.named(slice)).collect::<Vec<_>>().join(";")
    }

    /// Makes each value known to the leaves, so that ids are values.
    fn known(&self, mut leaves: Leaves) -> Leaves {
        for (place, card) in self.cards.iter().enumerate() {
            for value in 0..*card {
                leaves.id(place, &format!("v{value}"));
            }
        }
        leaves
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }
}

fn is_in(row: &[u32], slice: &[(usize, u32)]) -> bool {
    slice.iter().all(|(place, value)| row.get(*place) == Some(value))
}

/// A distribution whose parameters are known to be right.
fn sampled<D: Distribution<f64>, E>(distribution: Result<D, E>, rng: &mut Pcg64) -> f64 {
    distribution.map_or(0.0, |distribution| distribution.sample(rng))
}

fn additive(name: String, kind: Kind, rng: &mut Pcg64) -> Instance {
    let world = World::full(rng);
    let (shape, magnitude) = (rng.random_range(0.5..1.0), 10_f64.powf(rng.random_range(0.0..4.0)));
    let zeros = rng.random_range(0.0..0.25);
    let noise = match kind {
        Kind::SingleLeaves => rng.random_range(0.0..0.1),
        Kind::OneCause => rng.random_range(0.005..0.1),
        _ => rng.random_range(0.0..0.25),
    };
    let causes = causes(&world, kind, noise, rng);
    // Noise of the forecast, of what is real, or of either.
    let (swapped, in_cents) = (rng.random_bool(0.5), rng.random_bool(0.3));
    let increases = rng.random_bool(0.5);
    let mut there = Vec::with_capacity(world.rows.len());
    let mut leaves = world.known(Leaves::additive(world.names()).unwrap_or_else(|_| unreachable!("six attributes")));
    for row in &world.rows {
        let size = if rng.random_bool(zeros) { 0.0 } else { magnitude * sampled(Weibull::new(1.0, shape), rng) };
        let noisy = (size * sampled(Normal::new(1.0, noise), rng)).max(0.0);
        let of_real = if swapped { rng.random_bool(0.5) } else { kind == Kind::OneCause };
        let (mut real, mut expected) = if of_real { (noisy, size) } else { (size, noisy) };
        // The last cause that a leaf is in counts.
        if let Some(cause) = causes.iter().rfind(|cause| cause.slices.iter().any(|slice| is_in(row, slice))) {
            let share = (1.0 - sampled(Normal::new(cause.severity, cause.deviation), rng)).max(0.0);
            (real, expected) = if increases { (size, size * share) } else { (size * share, size) };
        }
        let amount = if in_cents { Amount { real: rounded(real), expected: rounded(expected) } } else { Amount { real, expected } };
        there.push(amount.real + amount.expected > 0.0);
        // Numbers are finite, and ids are known.
        let _ = leaves.push_amount(row, amount);
    }
    // Of a slice that is 0 before and after, nobody can say that it moved.
    let shows = |slice: &&Vec<(usize, u32)>| world.rows.iter().zip(&there).any(|(row, there)| *there && is_in(row, slice));
    Instance { name, leaves, truth: world.truth(causes.iter().flat_map(|cause| &cause.slices).filter(shows)) }
}

/// To cents, as amounts are.
fn rounded(amount: f64) -> f64 {
    (amount * 100.0).round() / 100.0
}

fn causes(world: &World, kind: Kind, noise: f64, rng: &mut Pcg64) -> Vec<Cause> {
    let all = world.cards.len();
    let (count, most, deviation) = match kind {
        Kind::SingleLeaves => (rng.random_range(1..=5), 1, 0.0),
        Kind::OneCause => (1, 3, 0.05),
        _ => (rng.random_range(1..=3), 3, 0.1),
    };
    let mut known: BTreeSet<Vec<(usize, u32)>> = BTreeSet::new();
    let mut causes = Vec::new();
    for _ in 0..count {
        let attributes = match kind {
            Kind::SingleLeaves => all,
            Kind::OneCause => rng.random_range(1..=all.min(3)),
            _ => rng.random_range(1..=all),
        };
        let attributes = world.some_attributes(attributes, rng);
        let mut slices = Vec::new();
        for _ in 0..rng.random_range(1..=most) {
            let slice = world.slice(&attributes, rng);
            if known.insert(slice.clone()) {
                slices.push(slice);
            }
        }
        let least = if kind == Kind::SingleLeaves { 0.5 } else { 0.25 };
        let severity = rng.random_range(least..1.0) + noise;
        causes.push(Cause { slices, severity, deviation: rng.random_range(0.0..=deviation) });
    }
    causes
}

/// A fault of a fleet.
struct Fault {
    slice: Vec<(usize, u32)>,
    /// Odds of failing are multiplied by this, or this share of attempts fails beside the usual.
    odds: f64,
    added: f64,
}

impl Fault {
    fn rate(&self, usual: f64) -> f64 {
        let moved = usual * self.odds;
        let rate = moved / (1.0 - usual + moved);
        rate + (1.0 - rate) * self.added
    }
}

const FLEET: [(&str, u32, u32); 6] =
    [("issuer", 10, 24), ("carrier", 3, 5), ("region", 8, 31), ("model", 4, 10), ("entry_mode", 2, 4), ("host", 2, 4)];

fn payments(name: String, rng: &mut Pcg64) -> Instance {
    let (world, weights) = fleet(rng);
    let attempts = 10_f64.powf(rng.random_range(4.5..6.0));
    let base = 10_f64.powf(rng.random_range(-3.0..-1.3));
    let mut effect = || sampled(LogNormal::new(0.0, 0.4), rng);
    let effects: Vec<Vec<f64>> = world.cards.iter().map(|card| (0..*card).map(|_| effect()).collect()).collect();
    let windows = rng.random_range(2.0..30.0_f64).round();
    let spread = rng.random_range(0.0..0.3);
    let counted = rng.random_bool(0.5);
    // Leaves that there are: those with attempts.
    let mut seen: Vec<(Vec<u32>, f64, f64)> = Vec::new();
    for (row, weight) in world.rows.iter().zip(weights) {
        let mean = attempts * weight;
        let tried = if mean > 0.0 { sampled(Poisson::new(mean), rng) } else { 0.0 };
        if tried > 0.0 {
            let of_values: f64 = row.iter().zip(&effects).filter_map(|(value, of)| of.get(usize::try_from(*value).ok()?)).product();
            let rate = (base * of_values * sampled(LogNormal::new(0.0, 0.2), rng)).min(0.3);
            seen.push((row.clone(), tried, rate));
        }
    }
    let faults = faults(&world, &seen, rng);
    let mut leaves = world.known(Leaves::rate(world.names()).unwrap_or_else(|_| unreachable!("six attributes")));
    for (row, tried, usual) in &seen {
        let mut rate = *usual;
        for fault in faults.iter().filter(|fault| is_in(row, &fault.slice)) {
            rate = fault.rate(rate);
        }
        let varied = varied(rate, spread, rng);
        let expected_attempts = past(*tried, windows, rng).max(1.0 / windows);
        let expected_failures = expected_attempts * usual;
        let expected_failures = if counted { past(expected_failures, windows, rng).min(expected_attempts) } else { expected_failures };
        let failures = failed(*tried, varied, rng);
        let _ = leaves.push_trials(row, Trials { failures, attempts: *tried, expected_failures, expected_attempts });
    }
    Instance { name, leaves, truth: world.truth(faults.iter().map(|fault| &fault.slice)) }
}

/// Three to six attributes of a fleet, and the share of attempts of each leaf.
fn fleet(rng: &mut Pcg64) -> (World, Vec<f64>) {
    let mut kept: Vec<(&str, u32)> = Vec::new();
    while kept.len() < 3 {
        kept.clear();
        for (name, least, most) in FLEET {
            if rng.random_bool(0.75) {
                kept.push((name, rng.random_range(least..=most)));
            }
        }
    }
    let mut world = World::of(kept.iter().map(|(_, card)| *card).collect());
    world.names = kept.iter().map(|(name, _)| (*name).to_owned()).collect();
    let mut share = |rank: u32| sampled(LogNormal::new(0.0, 0.5), rng) / f64::from(rank + 1).powf(0.8);
    let shares: Vec<Vec<f64>> = world.cards.iter().map(|card| (0..*card).map(&mut share).collect()).collect();
    let weights: Vec<f64> = world
        .rows
        .iter()
        .map(|row| row.iter().zip(&shares).filter_map(|(value, of)| of.get(usize::try_from(*value).ok()?)).product::<f64>())
        .collect();
    let weights: Vec<f64> = weights.into_iter().map(|weight| weight * sampled(LogNormal::new(0.0, 0.5), rng)).collect();
    let sum: f64 = weights.iter().sum();
    (world, weights.into_iter().map(|weight| weight / sum).collect())
}

/// One to three faults that are evident.
fn faults(world: &World, seen: &[(Vec<u32>, f64, f64)], rng: &mut Pcg64) -> Vec<Fault> {
    let count = rng.random_range(1..=3);
    let mut faults: Vec<Fault> = Vec::new();
    for _ in 0..1000 {
        if faults.len() == count {
            break;
        }
        let attributes = world.some_attributes(rng.random_range(1..=3), rng);
        let slice = world.slice(&attributes, rng);
        let (odds, added) =
            if rng.random_bool(0.6) { (rng.random_range(3.0..20.0), 0.0) } else { (1.0, 10_f64.powf(rng.random_range(-1.0..-0.05))) };
        let fault = Fault { slice, odds, added };
        let evidence: f64 = seen
            .iter()
            .filter(|(row, ..)| is_in(row, &fault.slice))
            .map(|(_, tried, usual)| evidence(*tried, fault.rate(*usual), *usual))
            .sum();
        if evidence >= EVIDENT && faults.iter().all(|other| other.slice != fault.slice) {
            faults.push(fault);
        }
    }
    faults
}

/// What is to be expected of a leaf's evidence for its own rate against another.
fn evidence(attempts: f64, rate: f64, usual: f64) -> f64 {
    attempts * (rate * (rate / usual).ln() + (1.0 - rate) * ((1.0 - rate) / (1.0 - usual)).ln())
}

/// The mean of counts in so many windows.
fn past(mean: f64, windows: f64, rng: &mut Pcg64) -> f64 {
    if mean > 0.0 { sampled(Poisson::new(mean * windows), rng) / windows } else { 0.0 }
}

/// A rate around another, with this relative standard deviation.
fn varied(rate: f64, spread: f64, rng: &mut Pcg64) -> f64 {
    let shape = (spread * spread).max(1e-6).recip();
    (rate * sampled(Gamma::new(shape, shape.recip()), rng)).min(1.0)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "counts of attempts are whole and small"
)]
fn failed(attempts: f64, rate: f64, rng: &mut Pcg64) -> f64 {
    Binomial::new(attempts as u64, rate.clamp(0.0, 1.0)).map_or(0.0, |distribution| distribution.sample(rng) as f64)
}
