//! Which slices explain what moved: leaves over any attributes in, the slices that moved out. Pure and deterministic; one search for measures that add up and for failure
//! rates.
//!
//! # Model
//!
//! A *leaf* has a value of each attribute, and what was counted of it and was expected. A *slice* is all leaves that have some values (`issuer=icbc&entry_mode=chip`); slices of the
//! same attributes are a *cuboid*. What happened is a few slices, each of which moved to a level: all its leaves changed by a common factor, more or less. Every other leaf is as
//! was expected, but for noise. A leaf may also have moved by itself.
//!
//! For each leaf `i` and each of sixteen levels `l` there is the evidence
//!
//! ```text
//! E[i,l] = ln p(i | moved to l) - ln ( p(i | did not move) + a max over k of p(i | moved to k) ),    at least -c
//! ```
//!
//! with the share `a` of leaves that move by themselves. So one leaf cannot say more than `-ln a` for a slice, nor more than `c` against it. A slice `S` that is
//! named explains `max over l of (sum over its leaves of E[i,l])`, less the price of its name, which is the longer, the longer it takes to say which slice it is:
//!
//! ```text
//! price(S) = any + each * attributes(S) + ln slices(cuboid of S)      and `further`, for any but the first
//! ```
//!
//! of which the part for attributes is paid once for a cuboid: one fault has often several slices of the same attributes.
//!
//! # Amounts
//!
//! `additive`: deviations `y = 2 (real - expected) / (real + expected)` as in Squeeze, whose noise is normal on a scale that is estimated on both sides of 0 apart, with a
//! standard deviation by size of leaves (median of absolute deviations). Before anything is known, it is that of the side on which leaves are nearer to 0, since slices may have moved to the
//! other. Where numbers are as small as the steps that they are rounded to, deviations are the larger for it. How many leaves move by themselves is seen on the side on which fewer do.
//!
//! # Rates
//!
//! `rates`: failures are negative binomial around the usual rate, with a variation that is estimated from leaves that did not move, by their size. In a slice
//! they vary more: a fault does not hit all alike. Levels are multiples of odds, and shares of attempts that fail beside the usual ones. The usual rate of a leaf is what is known of
//! it, shrunk to the product of what is known of its values, as much as makes the counts likeliest. Only more failures are looked for. Many leaves are first thought to move by
//! themselves, since they do so in real fleets; where nothing is named then, it is looked again as if fewer did.
//!
//! # Search
//!
//! 1. *Candidates*: all slices whose leaves could ever pay for a name, each leaf at its own best level of those to one side. Nothing narrower than what could not can, so the search in
//!    depth over attributes stops there. Of those that are left, the ones that would explain enough if others explained half of what speaks against them.
//! 2. *Greedy*: the slice that explains most is named, its leaves say nothing any more, and the next is looked for (explain-away).
//! 3. *Together*: each name is weighed against all that could be in its place, the others being named; of amounts, narrower slices of one cuboid take the place of a wider one, where
//!    they explain more of it at the same level and leave nothing that moved; what the others explain is dropped; until nothing changes.
//!
//! Greedy naming is done twice: what is usual is first estimated from all leaves, then without those that were named. Of many amounts of which about as many are off to both sides, once: there is
//! nothing to be learned of the noise. Candidates of amounts are looked for at a discount, and again only where a leaf says much more by what was learned.
//!
//! # Assumptions and limits
//!
//! Leaves of a slice move alike, and in one direction. Where two slices have the same leaves, the one of fewer attributes is named, and the other is among the alternatives. Of a leaf in two
//! named slices, one explains it. All sets of attributes are searched while that is at most 80 million looks at a leaf (300,000 leaves of eight attributes); beyond it, only sets of so many
//! attributes as keep it below (50,000 leaves of twelve attributes: sets of up to five). Sums are of whole numbers, so that the order of leaves changes nothing.
//!
//! Prices, and how rare it is that leaves move by themselves, were chosen on made instances (`tests/bench/src/rca/made.rs`) and on the odd cases of the RobustSpot data, not derived.
//!
//! # Sources
//!
//! Adtributor (Bhagwan et al., NSDI 2014) for elements that explain an excess; HotSpot (Sun et al., IEEE Access 2018) for the ripple effect, that all leaves of a cause change by one factor; Squeeze (Li et
//! al., ISSRE 2019) for deviations and their clusters, of which levels are a fixed grid; RiskLoc (Kalander, 2022) for noise seen on the side that did not move; RobustSpot for rates of sparse
//! leaves. Scan statistics (Kulldorff, 1997) for slices weighed by likelihood ratios, and minimum description length (Rissanen, 1978) for what a name costs.

mod additive;
mod candidates;
mod evidence;
mod explain;
mod leaves;
mod rates;
mod search;
#[cfg(test)]
mod tests;

pub use self::leaves::{Amount, Attribute, Element, LeafError, Leaves, Trials};

use self::additive::Deviations;
use self::candidates::{Candidates, Price, place};
use self::evidence::{Evidence, Sum, nats, units};
use self::explain::{Explanation, Name};
use self::leaves::Measure;

/// What names of amounts cost.
const OF_AMOUNTS: Price = Price { any: 4.0, attribute: 0.5, further: 0.0 };
/// And of rates: where rates change by a fault, they change a little elsewhere too, and it is rarely two faults.
const OF_RATES: Price = Price { any: 4.0, attribute: 0.5, further: 8.0 };
/// One leaf of a rate in so many moves by itself: where nothing is named because many might, it is looked again as if fewer did.
const RARE: [f64; 3] = [10.0, 1e3, 1e6];
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
    /// How many of its leaves had something to count, or were to have.
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
    localise_beside(leaves, None).into_iter().map(|(moved, _)| moved).collect()
}

/// As [`localise`]; and for each slice what another one, `beside`, would explain in its place, as [`Moved::score`]. Nothing, where that would not be worth its name.
#[must_use]
pub fn localise_beside(leaves: &Leaves, beside: Option<&Element>) -> Vec<(Moved, Option<f64>)> {
    if leaves.is_empty() || leaves.attributes().is_empty() {
        return Vec::new();
    }
    let found = |evidence: &Evidence, price| Candidates::of(leaves, evidence, price);
    let named = |(candidates, sums): (Candidates, Vec<Sum>), evidence: &Evidence| named((leaves, beside), (&candidates, sums), evidence);
    match leaves.measure() {
        Measure::Additive(amounts) => {
            let deviations = Deviations::of(amounts);
            let (evidence, is_known) = deviations.at_first();
            let (candidates, sums) = found(&evidence, OF_AMOUNTS);
            if is_known {
                return named((candidates, sums), &evidence);
            }
            let explained = explained(leaves, (&candidates, sums), &evidence);
            let most = search::most(&evidence);
            // There is no need for room for both.
            drop(evidence);
            let learned = deviations.beside(&explained);
            if search::finds_all(&most, &learned) {
                let sums = candidates.weigh(&learned);
                named((candidates, sums), &learned)
            } else {
                named(found(&learned, OF_AMOUNTS), &learned)
            }
        }
        Measure::Rate(trials) => RARE
            .into_iter()
            .map(|rare| {
                let at_first = rates::evidence(leaves, trials, None, rare);
                let (candidates, sums) = found(&at_first, OF_RATES);
                let explained = explained(leaves, (&candidates, sums), &at_first);
                // How many leaves move by themselves is counted now, and most of them say more than at first.
                let evidence = rates::evidence(leaves, trials, Some(&explained), rare);
                named(found(&evidence, OF_RATES), &evidence)
            })
            .find(|moved| !moved.is_empty())
            .unwrap_or_default(),
    }
}

/// Which leaves are in slices that are worth a name: what is usual is learned from the others.
fn explained(leaves: &Leaves, candidates: (&Candidates, Vec<Sum>), evidence: &Evidence) -> Vec<bool> {
    let mut explanation = Explanation::new(leaves, candidates, evidence);
    explanation.greedy();
    explanation.explained()
}

/// Names what explains the evidence, and weighs another slice beside each name.
fn named(
    (leaves, beside): (&Leaves, Option<&Element>),
    (candidates, sums): (&Candidates, Vec<Sum>),
    evidence: &Evidence,
) -> Vec<(Moved, Option<f64>)> {
    let mut explanation = Explanation::new(leaves, (candidates, sums), evidence);
    explanation.greedy();
    // Rates move too differently within a slice to tell leaves that did not move from those that moved little.
    explanation.refine(matches!(leaves.measure(), Measure::Additive(_)));
    explanation.drop_idle();
    told((leaves, beside), candidates, &mut explanation)
}

/// What is to be said of the names.
fn told(
    (leaves, beside): (&Leaves, Option<&Element>),
    candidates: &Candidates,
    explanation: &mut Explanation<'_>,
) -> Vec<(Moved, Option<f64>)> {
    let whole = Totals::of(leaves, 0..leaves.len()).excess();
    let beside = beside.and_then(|beside| candidates.find(leaves, beside));
    let mut told: Vec<(Moved, Option<f64>)> = Vec::new();
    for name in explanation.names.clone() {
        let own = candidates.leaves.get(name.candidate);
        let totals = Totals::of(leaves, own.iter().map(|leaf| place(*leaf)));
        let (gain, near) = explanation.instead(name, units(NEAR));
        let alternative = |other: &Name| Alternative { element: candidates.element(leaves, other.candidate), score: nats(other.gain) };
        let weighed = beside.and_then(|beside| explanation.in_place_of(name, beside)).map(nats);
        let moved = Moved {
            element: candidates.element(leaves, name.candidate),
            score: nats(gain),
            contribution: if whole == 0.0 { 0.0 } else { totals.excess() / whole },
            relative_risk: totals.relative_risk(),
            leaves: own.len(),
            alternatives: near.iter().take(MOST_ALTERNATIVES).map(alternative).collect(),
        };
        told.push((moved, weighed));
    }
    told.sort_by(|(one, _), (other, _)| other.score.total_cmp(&one.score).then_with(|| one.element.order(&other.element, leaves)));
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
