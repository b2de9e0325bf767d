//! Which slices explain what moved.

mod additive;
mod candidates;
mod evidence;
mod explain;
mod leaves;
mod rates;
#[cfg(test)]
mod tests;

pub use self::leaves::{Amount, Attribute, Element, LeafError, Leaves, Trials};

use self::candidates::{Candidates, Price, place};
use self::evidence::{Evidence, nats, units};
use self::explain::{Explanation, Name};
use self::leaves::Measure;

/// What a name costs: the odds that anything is named at all, and those of each further attribute.
const PRICE: Price = Price { any: 4.0, attribute: 0.5 };
/// Slices that explain as much, but for this many nats, are told beside one that is named.
const NEAR: f64 = 4.0;
/// Most of them.
const MOST_ALTERNATIVES: usize = 5;

/// A slice that moved.
#[derive(Clone, Debug, PartialEq)]
pub struct Moved {
    /// Which.
    pub element: Element,
    /// What it explains beyond the others that are named, less the price of its name, in nats.
    pub score: f64,
    /// Its share of the excess of all leaves over what was expected. Where there are increases and decreases, shares may be above 1, or below 0.
    pub contribution: f64,
    /// What it had, relative to what was expected: an amount to an amount, or a failure rate to a failure rate. Infinite where nothing was expected.
    pub relative_risk: f64,
    /// How many leaves it has.
    pub leaves: usize,
    /// What would explain nearly as much in its place, the best first.
    pub alternatives: Vec<Alternative>,
}

/// A slice that might be meant instead.
#[derive(Clone, Debug, PartialEq)]
pub struct Alternative {
    /// Which.
    pub element: Element,
    /// As [`Moved::score`], in the place of the one that is named.
    pub score: f64,
}

/// The slices that explain together what moved, the most evident first; none where nothing moved.
#[must_use]
pub fn localise(leaves: &Leaves) -> Vec<Moved> {
    if leaves.is_empty() || leaves.attributes().is_empty() {
        return Vec::new();
    }
    // What is usual is first learned from all leaves, then without those that moved.
    let first = evidence(leaves, None);
    let candidates = Candidates::of(leaves, &first, PRICE);
    let mut explanation = Explanation::new(leaves, &candidates, &first);
    explanation.greedy();
    let explained = explanation.explained();
    let second = evidence(leaves, Some(&explained));
    let candidates = Candidates::of(leaves, &second, PRICE);
    let mut explanation = Explanation::new(leaves, &candidates, &second);
    explanation.greedy();
    explanation.refine();
    explanation.drop_idle();
    told(leaves, &candidates, &mut explanation)
}

fn evidence(leaves: &Leaves, explained: Option<&[bool]>) -> Evidence {
    match leaves.measure() {
        Measure::Additive(amounts) => additive::evidence(amounts, explained),
        Measure::Rate(trials) => rates::evidence(leaves, trials, explained),
    }
}

/// What is to be said of the names.
fn told(leaves: &Leaves, candidates: &Candidates, explanation: &mut Explanation<'_>) -> Vec<Moved> {
    let whole = Totals::of(leaves, 0..leaves.len()).excess();
    let mut told: Vec<Moved> = Vec::new();
    for name in explanation.names.clone() {
        let own = candidates.leaves.get(name.candidate);
        let totals = Totals::of(leaves, own.iter().map(|leaf| place(*leaf)));
        let (gain, near) = explanation.instead(name, units(NEAR));
        let alternative = |other: &Name| Alternative { element: candidates.element(leaves, other.candidate), score: nats(other.gain) };
        told.push(Moved {
            element: candidates.element(leaves, name.candidate),
            score: nats(gain),
            contribution: if whole == 0.0 { 0.0 } else { totals.excess() / whole },
            relative_risk: totals.relative_risk(),
            leaves: own.len(),
            alternatives: near.iter().take(MOST_ALTERNATIVES).map(alternative).collect(),
        });
    }
    told.sort_by(|one, other| other.score.total_cmp(&one.score).then_with(|| one.element.label(leaves).cmp(&other.element.label(leaves))));
    told
}

/// Leaves together: what they had, and what they would have had.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    real: f64,
    expected: f64,
}

impl Totals {
    fn of(leaves: &Leaves, places: impl Iterator<Item = usize>) -> Totals {
        let of_leaf = |place: usize| match leaves.measure() {
            Measure::Additive(amounts) => amounts.get(place).map(|amount| (amount.real, amount.expected)),
            Measure::Rate(trials) => trials.get(place).map(|leaf| (leaf.failures, leaf.usual_failures())),
        };
        places
            .filter_map(of_leaf)
            .fold(Totals::default(), |totals, (real, expected)| Totals { real: totals.real + real, expected: totals.expected + expected })
    }

    fn excess(self) -> f64 {
        self.real - self.expected
    }

    fn relative_risk(self) -> f64 {
        match (self.real == 0.0, self.expected == 0.0) {
            (true, true) => 1.0,
            (false, true) => f64::INFINITY,
            _ => self.real / self.expected,
        }
    }
}
