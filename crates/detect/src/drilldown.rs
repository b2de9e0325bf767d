//! What the failures of an incident have in common, of all combinations of values: the finest slice that explains them.
//!
//! A fleet is watched in families of slices, so an incident is first called by one of these. Rows of its slice tell more. Those of the class that failed are given exactly, those that did not as a
//! sample that is scaled up; here they are *cells*: attempts that have the same values.
//!
//! # What is told apart
//!
//! Cells over all values of nine dimensions would be nearly as many as rows, and none of them says anything by itself. So of each dimension only some values are told apart; all others
//! count as one value, [`OTHER`], which is never named. In the fleet these are the values in which most failed beyond what is usual ([`Margins::told_apart`]); among cells, those that fail more
//! than the incident does, and the fewer, the more cells there are: where there are too many, the two that do most, and others only if they do by a fiftieth of all that failed. A slice that failed has
//! values that did: what is lost fails no more than usual.
//!
//! # What is usual
//!
//! The rate of a cell before the incident is the fleet's, times a factor for each family of [`Margins`] that has part of its values, of which those of two dimensions come first: an issuer's
//! magnetic stripes usually fail more, and that is no news. A factor is that of the slice in the time before, with five failures' worth of belief that it is as the fleet.
//!
//! # What is said
//!
//! [`crate::localise`] names slices of the dimensions that the incident's does not say, or the whole of it. A part that has most of its failures is said only where it explains them better than the
//! whole by six nats, and without values that narrow nothing. Where several parts fail at once, each is said beside that: a bank whose chips fail in one region may have magnetic stripes that fail in another.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::localise::{Element, Leaves, Moved, Trials, localise, localise_beside};
use crate::slice::{Dimension, Kind, Slice};

/// The value that all values are which are not told apart. No outcome has it.
pub const OTHER: &str = "\u{1}";
/// Most values of a dimension that are told apart; and where an incident has more attempts than this, of which there are more cells than are searched however few failed in some.
const MOST_TOLD_APART: usize = 10;
const TOLD_APART_OF_MANY: usize = 6;
const MANY: f64 = 100_000.0;
/// The fewer of these where there are more cells than are searched.
const FEWER_TOLD_APART: [usize; 5] = [TOLD_APART_OF_MANY, 4, 3, 2, 1];
/// Most cells that are searched: these take some tenths of a second.
const MOST_CELLS: usize = 3000;
/// Where there are more, this many values of each dimension are told apart that fail most, and of the others those that fail more than the incident's slice does by this share of all that failed.
const ALWAYS_TOLD_APART: usize = 2;
const LEAST_EXCESS: f64 = 0.02;
/// The attribute that all cells have in common.
const WHOLE: &str = "whole";
/// Failures' worth of belief that a slice is as the fleet.
const LIKE_FLEET: f64 = 5.0;
/// Attempts' worth of belief in the rate that was usual before anything was counted.
const PRIOR_ATTEMPTS: f64 = 1000.0;
/// Between which a usual rate is.
const RATES: (f64, f64) = (1e-7, 0.5);
/// By how much, in nats, a slice explains more than the incident's where it is said instead.
const CLEARLY: f64 = 6.0;
/// Share of the incident's failures that are in a slice which explains it, and where the incident is of the whole fleet.
const MOST: f64 = 0.6;
const MOST_OF_FLEET: f64 = 0.9;
/// A value that takes away no more than this share of the attempts narrows nothing.
const NARROWS: f64 = 0.02;
/// Most slices that are told beside the one that is named, and most parts.
const MOST_ALTERNATIVES: usize = 5;
const MOST_PARTS: usize = 5;

/// Attempts, and how many of them failed in the class that is looked into.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// All of them.
    pub attempts: f64,
    /// Those that failed so.
    pub failed: f64,
}

/// What was counted of a slice of a family.
#[derive(Clone, Debug, PartialEq)]
pub struct Margin {
    /// The slice.
    pub slice: Slice,
    /// In the time that is looked at.
    pub now: Tally,
    /// In a time before it, that of no fault.
    pub before: Tally,
}

/// Attempts that have the same values.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// A value of each dimension.
    pub at: Slice,
    /// How many there are.
    pub tally: Tally,
}

/// What was counted of all slices of all families, for a class of failures.
#[derive(Clone, Debug)]
pub struct Margins {
    margins: Vec<Margin>,
    /// The fleet's usual rate.
    rate: f64,
}

/// What an incident is, more finely.
#[derive(Clone, Debug, PartialEq)]
pub struct Explained {
    /// The slice: that of the incident, and what narrows it.
    pub slice: Slice,
    /// What it explains, in nats: [`crate::localise::Moved::score`]. 0 where cells do not tell.
    pub score: f64,
    /// Its share of all failures.
    pub contribution: f64,
    /// How many times as often as elsewhere an attempt fails in it; nothing where nothing fails elsewhere.
    pub relative_risk: Option<f64>,
    /// What is in it.
    pub tally: Tally,
    /// Slices that may be meant instead, with their scores, the best first; at most five.
    pub alternatives: Vec<(Slice, f64)>,
    /// Where several parts of the incident's slice fail, each for itself: those, the most evident first; at most five. There is not one alone.
    pub parts: Vec<Part>,
}

/// A part of an incident's slice that fails for itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// The part.
    pub slice: Slice,
    /// What it explains beside the others: as [`Explained::score`].
    pub score: f64,
    /// What is in it.
    pub tally: Tally,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.attempts += other.attempts;
        self.failed += other.failed;
    }

    fn rate(self) -> Option<f64> {
        (self.attempts > 0.0).then(|| self.failed / self.attempts)
    }
}

impl Margins {
    /// Of all slices of all families, in any order. `usual` is the rate that is taken for usual where nothing was counted before.
    #[must_use]
    pub fn new(margins: Vec<Margin>, usual: f64) -> Margins {
        let fleet = margins.iter().find(|margin| margin.slice == Slice::fleet()).map_or(Tally::default(), |margin| margin.before);
        let rate = (fleet.failed + PRIOR_ATTEMPTS * usual) / (fleet.attempts + PRIOR_ATTEMPTS);
        Margins { margins, rate: rate.clamp(RATES.0, RATES.1) }
    }

    /// The whole fleet in the time that is looked at.
    fn fleet(&self) -> Tally {
        self.margins.iter().find(|margin| margin.slice == Slice::fleet()).map_or(Tally::default(), |margin| margin.now)
    }

    /// Which values are told apart, of each dimension that is counted: those in which most failed beyond what is usual, and those of the incident.
    #[must_use]
    pub fn told_apart(&self, incident: &Slice) -> BTreeMap<Dimension, Vec<Arc<str>>> {
        let attempts = self.margins.iter().find(|margin| margin.slice == *incident).map_or(0.0, |margin| margin.now.attempts);
        let most = if attempts > MANY { TOLD_APART_OF_MANY } else { MOST_TOLD_APART };
        let mut told = BTreeMap::new();
        for (dimension, values) in self.by_value() {
            let excess = |(before, now): &(Tally, Tally)| now.failed - now.attempts * self.usual_of(*before);
            let mut ranked: Vec<(Arc<str>, f64)> = values.iter().map(|(value, tallies)| (Arc::clone(value), excess(tallies))).collect();
            ranked.retain(|(value, excess)| *excess > 0.0 || incident.value(dimension) == Some(value));
            ranked.sort_by(|(one, less), (other, more)| more.total_cmp(less).then_with(|| one.cmp(other)));
            ranked.sort_by_key(|(value, _)| Reverse(incident.value(dimension) == Some(value)));
            ranked.truncate(most);
            told.insert(dimension, ranked.into_iter().map(|(value, _)| value).collect());
        }
        told
    }

    /// What was counted before and now, by value of each dimension: in the family that has the fewest others.
    fn by_value(&self) -> BTreeMap<Dimension, BTreeMap<Arc<str>, (Tally, Tally)>> {
        let kinds: BTreeSet<Kind> = self.margins.iter().map(|margin| margin.slice.kind()).collect();
        let mut by_value = BTreeMap::new();
        for dimension in Dimension::ALL {
            let Some(kind) = kinds.iter().filter(|kind| kind.has(dimension)).min_by_key(|kind| kind.len()) else { continue };
            let values: &mut BTreeMap<Arc<str>, (Tally, Tally)> = by_value.entry(dimension).or_default();
            for Margin { slice, now, before } in self.margins.iter().filter(|margin| margin.slice.kind() == *kind) {
                let (before_all, now_all) = values.entry(slice.value(dimension).unwrap_or_default().into()).or_default();
                before_all.add(*before);
                now_all.add(*now);
            }
        }
        by_value
    }

    /// The usual rate of what counted this before.
    fn usual_of(&self, before: Tally) -> f64 {
        (before.failed + LIKE_FLEET) / (before.attempts + LIKE_FLEET / self.rate)
    }

    /// The families by which cells are judged: those of most dimensions, each dimension once.
    fn judged_by(&self) -> Vec<Kind> {
        let kinds: BTreeSet<Kind> = self.margins.iter().map(|margin| margin.slice.kind()).filter(|kind| !kind.is_fleet()).collect();
        let mut kinds: Vec<Kind> = kinds.into_iter().collect();
        kinds.sort_by_key(|kind| Reverse(kind.len()));
        let mut judged: Vec<Kind> = Vec::new();
        for kind in kinds {
            if !Dimension::ALL.iter().any(|dimension| kind.has(*dimension) && judged.iter().any(|other| other.has(*dimension))) {
                judged.push(kind);
            }
        }
        judged
    }

    /// By family, the usual rate of its slices relative to the fleet's, where only these values are told apart.
    fn factors(&self, told: &BTreeMap<Dimension, BTreeSet<&str>>) -> Vec<(Kind, HashMap<Slice, f64>)> {
        let factors = |kind: Kind| {
            let mut before: HashMap<Slice, Tally> = HashMap::new();
            for margin in self.margins.iter().filter(|margin| margin.slice.kind() == kind) {
                let pooled = margin.slice.values().map(|(dimension, value)| {
                    let is_told = told.get(&dimension).is_some_and(|values| values.contains(value));
                    (dimension, if is_told { value } else { OTHER })
                });
                before.entry(Slice::new(pooled)).or_default().add(margin.before);
            }
            let relative = before.into_iter().map(|(slice, before)| (slice, self.usual_of(before) / self.rate)).collect();
            (kind, relative)
        };
        self.judged_by().into_iter().map(factors).collect()
    }
}

/// Says what an incident of a slice is, more finely, by the cells of the slice. What it was called the last time (`former`) it is called again where that explains nearly as much. Nothing, where
/// none of the cells failed.
#[must_use]
pub fn explain(cells: &[Cell], margins: &Margins, (incident, former): (&Slice, Option<&Slice>)) -> Option<Explained> {
    let look = Look { cells: &searched(cells, incident), incident };
    let whole = look.tally(&Slice::fleet());
    if whole.failed <= 0.0 {
        return None;
    }
    let free: Vec<Dimension> = Dimension::ALL.into_iter().filter(|dimension| incident.value(*dimension).is_none()).collect();
    let usual = usual_rates(look.cells, margins);
    let leaves = look.leaves(&usual, free.iter().map(|dimension| dimension.name()).chain([WHOLE]))?;
    let found: Vec<Found> = localise_beside(&leaves, Some(&Element(vec![(free.len(), 0)])))
        .into_iter()
        .map(|(moved, beside)| {
            let all =
                std::iter::once((&moved.element, moved.score)).chain(moved.alternatives.iter().map(|other| (&other.element, other.score)));
            let named = all.filter_map(|(element, score)| Some((look.terse(&incident.with(&slice(&leaves, element)?)), score)));
            Found { named: named.collect(), whole: beside.unwrap_or(0.0) }
        })
        .collect();
    let (named, score) = look.named(&found, former, whole);
    let parts = look.parts(&look.leaves(&usual, free.iter().map(|dimension| dimension.name()))?, &found);
    let tally = look.tally(&named);
    let fleet = margins.fleet();
    let elsewhere = Tally { attempts: (fleet.attempts - tally.attempts).max(0.0), failed: (fleet.failed - tally.failed).max(0.0) };
    Some(Explained {
        score,
        contribution: tally.failed / (tally.failed + elsewhere.failed),
        relative_risk: tally.rate().zip(elsewhere.rate()).map(|(own, other)| own / other).filter(|risk| risk.is_finite()),
        tally,
        alternatives: look.alternatives(&found, (&named, &parts)),
        parts,
        slice: named,
    })
}

/// The cells that are searched: all, or fewer that tell fewer values apart.
fn searched(cells: &[Cell], incident: &Slice) -> Vec<Cell> {
    let mut all = Tally::default();
    cells.iter().for_each(|cell| all.add(cell.tally));
    let rate = all.rate().unwrap_or_default();
    let mut by_value: HashMap<(Dimension, &str), Tally, RandomState> = HashMap::default();
    for cell in cells {
        cell.at.values().for_each(|value| by_value.entry(value).or_default().add(cell.tally));
    }
    // How many of each fail more than of all of them, by count and by standard deviations.
    let excess = |tally: &Tally| tally.failed - rate * tally.attempts;
    let beyond = |tally: &Tally| excess(tally) / (rate * tally.attempts).sqrt().max(1.0);
    let mut ranked: BTreeMap<Dimension, Vec<(&str, Tally)>> = BTreeMap::new();
    for ((dimension, value), tally) in by_value {
        ranked.entry(dimension).or_default().push((value, tally));
    }
    for values in ranked.values_mut() {
        values.sort_by(|(one, less), (other, more)| beyond(more).total_cmp(&beyond(less)).then_with(|| one.cmp(other)));
        let mut place = 0..;
        values.retain(|(_, tally)| place.next() < Some(ALWAYS_TOLD_APART) || excess(tally) > LEAST_EXCESS * all.failed);
    }
    let (mut searched, other): (Vec<Cell>, Arc<str>) = (cells.to_vec(), OTHER.into());
    for most in FEWER_TOLD_APART {
        if searched.len() <= MOST_CELLS {
            break;
        }
        let told = |dimension, value: &Arc<str>| {
            let kept = ranked.get(&dimension).into_iter().flatten().take(most);
            let is_told = incident.value(dimension).is_some() || kept.into_iter().any(|(kept, _)| *kept == value.as_ref());
            Arc::clone(if is_told { value } else { &other })
        };
        let mut pooled: HashMap<Slice, Tally, RandomState> = HashMap::default();
        for cell in &searched {
            pooled.entry(cell.at.each(told)).or_default().add(cell.tally);
        }
        searched = pooled.into_iter().map(|(at, tally)| Cell { at, tally }).collect();
        searched.sort_unstable_by(|one, other| one.at.cmp(&other.at));
    }
    searched
}

/// The usual rate of each cell.
fn usual_rates(cells: &[Cell], margins: &Margins) -> Vec<f64> {
    let mut told: BTreeMap<Dimension, BTreeSet<&str>> = BTreeMap::new();
    for (dimension, value) in cells.iter().flat_map(|cell| cell.at.values()) {
        told.entry(dimension).or_default().insert(value);
    }
    let factors = margins.factors(&told);
    let of_cell = |cell: &Cell| {
        let factor = |(kind, relative): &(Kind, HashMap<Slice, f64>)| relative.get(&cell.at.at(kind)).copied().unwrap_or(1.0);
        (margins.rate * factors.iter().map(factor).product::<f64>()).clamp(RATES.0, RATES.1)
    };
    cells.iter().map(of_cell).collect()
}

/// The slice that an element is; nothing where one of its values is all those that are not told apart.
fn slice(leaves: &Leaves, element: &Element) -> Option<Slice> {
    let mut values: Vec<(Dimension, Arc<str>)> = Vec::new();
    for (place, id) in &element.0 {
        let attribute = leaves.attributes().get(*place)?;
        let value = attribute.values().get(usize::try_from(*id).ok()?)?;
        match Dimension::named(attribute.name()) {
            Some(_) if value.as_ref() == OTHER => return None,
            Some(dimension) => values.push((dimension, Arc::clone(value))),
            // The whole narrows nothing.
            None => {}
        }
    }
    Some(Slice::new(values))
}

/// What failed, and what might be meant instead, the best first; and what the whole incident explains in its place.
struct Found {
    named: Vec<(Slice, f64)>,
    whole: f64,
}

/// What is looked at, and from where.
struct Look<'a> {
    /// Of the incident's slice.
    cells: &'a [Cell],
    incident: &'a Slice,
}

impl Look<'_> {
    /// The cells, as the localiser takes them, with these attributes. One that is no dimension has a single value.
    fn leaves(&self, usual: &[f64], attributes: impl Iterator<Item = &'static str> + Clone) -> Option<Leaves> {
        let mut leaves = Leaves::rate(attributes.clone()).ok()?;
        for (cell, usual) in self.cells.iter().zip(usual) {
            let value = |name| Dimension::named(name).map_or("", |dimension| cell.at.value(dimension).unwrap_or(OTHER));
            let ids: Vec<u32> =
                attributes.clone().map(value).enumerate().map(|(place, value)| leaves.id(place, value)).collect::<Option<_>>()?;
            let Tally { attempts, failed } = cell.tally;
            let leaf = Trials { failures: failed, attempts, expected_failures: attempts * usual, expected_attempts: attempts };
            leaves.push_trials(&ids, leaf).ok()?;
        }
        Some(leaves)
    }

    /// Cells together that are in a slice.
    fn tally(&self, slice: &Slice) -> Tally {
        let mut all = Tally::default();
        self.cells.iter().filter(|cell| slice.holds(&cell.at)).for_each(|cell| all.add(cell.tally));
        all
    }

    /// What the incident is called, and what that explains.
    fn named(&self, found: &[Found], former: Option<&Slice>, whole: Tally) -> (Slice, f64) {
        let most = if *self.incident == Slice::fleet() { MOST_OF_FLEET } else { MOST };
        let is_finer = |slice: &Slice| slice != self.incident && self.tally(slice).failed >= most * whole.failed;
        for Found { named, whole } in found {
            let again = named.iter().find(|(slice, score)| Some(slice) == former && score >= whole && is_finer(slice));
            let new = || named.first().filter(|(slice, score)| *score >= whole + CLEARLY && is_finer(slice));
            if let Some((slice, score)) = again.or_else(new) {
                return (slice.clone(), *score);
            }
        }
        let own = found.iter().flat_map(|found| &found.named).find(|(slice, _)| slice == self.incident).map(|(_, score)| *score);
        let beside = found.iter().map(|found| found.whole).fold(0.0, f64::max);
        (self.incident.clone(), own.unwrap_or(beside))
    }

    /// A slice without the values, beside those of the incident, that narrow nothing: a firmware says which model.
    fn terse(&self, slice: &Slice) -> Slice {
        let mut terse = slice.clone();
        for dimension in slice.values().map(|(dimension, _)| dimension).filter(|dimension| self.incident.value(*dimension).is_none()) {
            let wider = terse.without(dimension);
            let [narrow, wide] = [&terse, &wider].map(|slice| self.tally(slice));
            if narrow.attempts >= (1.0 - NARROWS) * wide.attempts {
                terse = wider;
            }
        }
        terse
    }

    /// What fails for itself, where that are several parts: together they explain better what fails than one name does. `leaves` have no attribute for the whole, which a search would
    /// begin with, and end.
    fn parts(&self, leaves: &Leaves, found: &[Found]) -> Vec<Part> {
        let moved = localise(leaves);
        let part = |moved: &Moved| {
            let slice = self.terse(&self.incident.with(&slice(leaves, &moved.element)?));
            Some(Part { tally: self.tally(&slice), slice, score: moved.score })
        };
        let Some(parts) = moved.iter().take(MOST_PARTS).map(part).collect::<Option<Vec<Part>>>() else { return Vec::new() };
        let one = found
            .iter()
            .flat_map(|found| found.named.first().map(|(_, score)| *score).into_iter().chain([found.whole]))
            .fold(0.0, f64::max);
        let is_within = |one: &Slice, other: &Slice| one.holds(other) || other.holds(one);
        let are_apart =
            parts.iter().enumerate().all(|(place, part)| !parts.iter().skip(place + 1).any(|other| is_within(&part.slice, &other.slice)));
        let together: f64 = parts.iter().map(|part| part.score).sum();
        if parts.len() > 1 && are_apart && together >= one + CLEARLY { parts } else { Vec::new() }
    }

    /// What may be meant instead of what is named, and is not one of several parts: the best first, nothing twice.
    fn alternatives(&self, found: &[Found], (named, parts): (&Slice, &[Part])) -> Vec<(Slice, f64)> {
        let wholes = found.iter().filter(|found| found.whole > 0.0).map(|found| (self.incident, found.whole));
        let all = found.iter().flat_map(|found| &found.named).map(|(slice, score)| (slice, *score)).chain(wholes);
        let is_said = |slice: &Slice| slice == named || parts.iter().any(|part| part.slice == *slice);
        let mut others: Vec<(&Slice, f64)> = all.filter(|(slice, _)| !is_said(slice)).collect();
        others.sort_by(|(one, less), (other, more)| more.total_cmp(less).then_with(|| one.cmp(other)));
        let mut told: Vec<(Slice, f64)> = Vec::new();
        for (slice, score) in others {
            if told.len() < MOST_ALTERNATIVES && !told.iter().any(|(known, _)| known == slice) {
                told.push((slice.clone(), score));
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg64;

    use super::*;

    const USUAL: f64 = 0.002;

    fn slice(values: &[(Dimension, &str)]) -> Slice {
        Slice::new(values.iter().copied())
    }

    /// Attempts of a fleet in which the slice fails at this rate: in the time that is looked at, and in six times as long before. Each firmware is of one model, and each host of one acquirer.
    fn attempts(seed: u64, failing: &[&Slice], rate: f64) -> Vec<(Slice, Tally, Tally)> {
        let mut rng = Pcg64::seed_from_u64(seed);
        let mut attempt = |rate: f64| {
            let [issuer, carrier, region, firmware] = [12, 3, 8, 4].map(|most| rng.random_range(0..most).min(rng.random_range(0..most)));
            let model = firmware / 2;
            let entry_mode = if rng.random_bool(0.4) { "chip" } else { "contactless" };
            let host = rng.random_range(0..3);
            let values = [
                (Dimension::Acquirer, format!("a{}", host / 2)),
                (Dimension::Carrier, format!("c{carrier}")),
                (Dimension::EntryMode, entry_mode.into()),
                (Dimension::Firmware, format!("f{firmware}")),
                (Dimension::Host, format!("h{host}")),
                (Dimension::Issuer, format!("i{issuer}")),
                (Dimension::MerchantGroup, format!("g{}", rng.random_range(0..30))),
                (Dimension::Model, format!("m{model}")),
                (Dimension::Region, format!("r{region}")),
            ];
            let at = Slice::new(values);
            let failed = rng.random_bool(USUAL) || (failing.iter().any(|failing| failing.holds(&at)) && rng.random_bool(rate));
            (at, Tally { attempts: 1.0, failed: f64::from(u8::from(failed)) })
        };
        let mut all: Vec<_> = (0..60_000).map(|_| attempt(0.0)).map(|(at, tally)| (at, Tally::default(), tally)).collect();
        all.extend((0..10_000).map(|_| attempt(rate)).map(|(at, tally)| (at, tally, Tally::default())));
        all
    }

    /// What is said of an incident, and which cells said it.
    fn explained(attempts: &[(Slice, Tally, Tally)], incident: &Slice, former: Option<&Slice>) -> Explained {
        let kinds: [&[Dimension]; 8] = [
            &[],
            &[Dimension::Issuer],
            &[Dimension::EntryMode, Dimension::Issuer],
            &[Dimension::Carrier, Dimension::Region],
            &[Dimension::Acquirer, Dimension::Host],
            &[Dimension::Firmware, Dimension::Model],
            &[Dimension::Region],
            &[Dimension::MerchantGroup],
        ];
        let mut margins = Vec::new();
        for kind in kinds {
            let mut sums: BTreeMap<Slice, (Tally, Tally)> = BTreeMap::new();
            for (at, now, before) in attempts {
                let own = Slice::new(at.values().filter(|(dimension, _)| kind.contains(dimension)));
                let (of_now, of_before) = sums.entry(own).or_default();
                of_now.add(*now);
                of_before.add(*before);
            }
            margins.extend(sums.into_iter().map(|(slice, (now, before))| Margin { slice, now, before }));
        }
        let margins = Margins::new(margins, USUAL);
        let told = margins.told_apart(incident);
        let mut cells: BTreeMap<Slice, Tally> = BTreeMap::new();
        for (at, now, _) in attempts.iter().filter(|(at, _, _)| incident.holds(at)) {
            let pooled = at.values().map(|(dimension, value)| {
                (dimension, if told[&dimension].iter().any(|kept| kept.as_ref() == value) { value } else { OTHER })
            });
            cells.entry(Slice::new(pooled)).or_default().add(*now);
        }
        let cells: Vec<Cell> = cells.into_iter().filter(|(_, tally)| tally.attempts > 0.0).map(|(at, tally)| Cell { at, tally }).collect();
        explain(&cells, &margins, (incident, former)).unwrap()
    }

    #[test]
    fn a_combination_that_no_family_counts_is_named() {
        let incident = slice(&[(Dimension::Issuer, "i1")]);
        for seed in 0..3 {
            let failing = slice(&[(Dimension::Issuer, "i1"), (Dimension::Carrier, "c0")]);
            let found = explained(&attempts(seed, &[&failing], 0.8), &incident, None);
            assert_eq!((&found.slice, &found.parts), (&failing, &vec![]), "{found:?}");
            assert!(found.score > 50.0 && found.contribution > 0.8 && found.relative_risk.unwrap() > 50.0, "{found:?}");
            let beside = found.alternatives.iter().find(|(slice, _)| *slice == incident).unwrap();
            assert!(beside.1 + CLEARLY < found.score && found.alternatives.len() <= MOST_ALTERNATIVES, "{found:?}");
        }
    }

    #[test]
    fn what_fails_as_a_whole_is_not_narrowed() {
        for seed in 0..2 {
            for incident in [
                slice(&[(Dimension::Issuer, "i1")]),
                slice(&[(Dimension::Carrier, "c1"), (Dimension::Region, "r0")]),
                slice(&[(Dimension::Firmware, "f1"), (Dimension::Model, "m0")]),
                Slice::fleet(),
            ] {
                for rate in [0.05, 0.5] {
                    let found = explained(&attempts(seed, &[&incident], rate), &incident, None);
                    assert_eq!((&found.slice, &found.parts), (&incident, &vec![]), "seed {seed}, {rate}: {found:?}");
                }
            }
        }
    }

    #[test]
    fn parts_that_fail_at_once_are_told_apart() {
        let incident = slice(&[(Dimension::Issuer, "i0")]);
        for seed in 5..8 {
            let parts = [
                slice(&[(Dimension::Issuer, "i0"), (Dimension::Carrier, "c1")]),
                slice(&[(Dimension::Issuer, "i0"), (Dimension::Region, "r2")]),
            ];
            let found = explained(&attempts(seed, &[&parts[0], &parts[1]], 0.8), &incident, None);
            let mut told: Vec<&Slice> = found.parts.iter().map(|part| &part.slice).collect();
            told.sort();
            assert_eq!(told, [&parts[0], &parts[1]], "seed {seed}: {found:?}");
            assert!(found.parts.iter().all(|part| part.score > 20.0 && part.tally.failed > 0.5 * part.tally.attempts), "{found:?}");
            assert!(!found.alternatives.iter().any(|(slice, _)| parts.contains(slice)), "{found:?}");
        }
    }

    #[test]
    fn a_model_is_not_said_where_its_firmware_is() {
        let incident = slice(&[(Dimension::Region, "r0")]);
        let failing = slice(&[(Dimension::Region, "r0"), (Dimension::Firmware, "f0")]);
        let found = explained(&attempts(3, &[&failing], 0.9), &incident, None);
        assert_eq!(found.slice, failing, "{found:?}");
    }

    #[test]
    fn it_is_called_again_what_it_was_called_before_where_that_explains_nearly_as_much() {
        // Each shop of the group is of the carrier and otherwise not: both explain the same.
        let incident = slice(&[(Dimension::Issuer, "i0")]);
        let failing = slice(&[(Dimension::Issuer, "i0"), (Dimension::Carrier, "c0")]);
        let mut all = attempts(4, &[&failing], 0.9);
        for (at, _, _) in &mut all {
            let region = if at.value(Dimension::Carrier) == Some("c0") { "r0" } else { "r1" };
            *at = at.without(Dimension::Region).with(&slice(&[(Dimension::Region, region)]));
        }
        let first = explained(&all, &incident, None);
        let other = slice(&[(Dimension::Issuer, "i0"), (Dimension::Region, "r0")]);
        assert_eq!(first.slice, failing, "{first:?}");
        assert!(first.alternatives.iter().any(|(slice, _)| *slice == other), "{first:?}");
        assert_eq!(explained(&all, &incident, Some(&other)).slice, other);
        assert_eq!(explained(&all, &incident, Some(&incident)).slice, failing);
    }

    #[test]
    fn of_too_many_cells_those_values_are_told_apart_that_fail_more() {
        let incident = slice(&[(Dimension::Issuer, "i0")]);
        let values =
            |number: usize| [number % 6, number / 6 % 6, number / 36 % 6, number / 216 % 6, number / 1296].map(|value| value.to_string());
        let cell = |number| {
            let [region, carrier, host, model, group] = values(number);
            let failed = if region.as_str() < "3" { 50.0 } else { 1.0 };
            let dimensions = [Dimension::Region, Dimension::Carrier, Dimension::Host, Dimension::Model, Dimension::MerchantGroup];
            let at = Slice::new(dimensions.into_iter().zip([region, carrier, host, model, group])).with(&incident);
            Cell { at, tally: Tally { attempts: 100.0, failed } }
        };
        let cells: Vec<Cell> = (0..7776).map(cell).collect();
        let searched = searched(&cells, &incident);
        let told = |dimension| searched.iter().filter_map(|cell| cell.at.value(dimension)).collect::<BTreeSet<_>>();
        assert_eq!(told(Dimension::Region), BTreeSet::from([OTHER, "0", "1", "2"]));
        // Of the others none fails more than another: the first two.
        assert_eq!((told(Dimension::Host), told(Dimension::Issuer)), (BTreeSet::from([OTHER, "0", "1"]), BTreeSet::from(["i0"])));
        let sum = |cells: &[Cell]| cells.iter().map(|cell| cell.tally.failed).sum::<f64>();
        assert!(searched.len() == 4 * 81 && (sum(&searched) - sum(&cells)).abs() < 1e-6, "{}", searched.len());
    }

    #[test]
    fn where_nothing_failed_nothing_is_said() {
        let margins = Margins::new(Vec::new(), USUAL);
        let cell = Cell { at: slice(&[(Dimension::Issuer, "i0")]), tally: Tally { attempts: 9.0, failed: 0.0 } };
        assert_eq!(explain(&[cell], &margins, (&Slice::fleet(), None)), None);
        assert_eq!(explain(&[], &margins, (&Slice::fleet(), None)), None);
    }
}
