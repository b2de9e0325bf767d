//! Which slices explain together what moved: named one after the other, then weighed against each other again.

use std::cmp::Ordering;

use super::candidates::{Candidates, Cuboid, id, place};
use super::evidence::{Evidence, Sum};
use super::leaves::Leaves;

/// Most slices that are named.
const MOST_NAMED: usize = 64;
/// How often all names are weighed again.
const ROUNDS: usize = 4;

/// A slice that is named: a candidate, and the level it moved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) candidate: usize,
    pub(super) level: usize,
    /// What it explains beyond the others, less its price, in units.
    pub(super) gain: i64,
}

/// What is explained so far, and what each candidate would add.
pub(super) struct Explanation<'a> {
    leaves: &'a Leaves,
    candidates: &'a Candidates,
    evidence: &'a Evidence,
    /// By leaf: in how many slices that are named it is. In any, it says nothing any more.
    named: Vec<u32>,
    /// By candidate: what its leaves say that are not.
    sums: Vec<Sum>,
    /// By candidate: the level at which that is most, and how much it is; nothing where it changed since it was looked for.
    most: Vec<Option<(usize, i64)>>,
    pub(super) names: Vec<Name>,
}

impl<'a> Explanation<'a> {
    /// Nothing is explained yet. `sums` are what the leaves of each candidate say by this evidence.
    pub(super) fn new(leaves: &'a Leaves, (candidates, sums): (&'a Candidates, Vec<Sum>), evidence: &'a Evidence) -> Explanation<'a> {
        let (named, most) = (vec![0; leaves.len()], vec![None; sums.len()]);
        Explanation { leaves, candidates, evidence, named, sums, most, names: Vec::new() }
    }

    /// Names slices while one explains more than it costs.
    pub(super) fn greedy(&mut self) {
        while self.names.len() < MOST_NAMED
            && let Some(best) = self.best()
        {
            self.add(best);
        }
    }

    /// Weighs each name against all that could be in its place, until none changes.
    pub(super) fn refine(&mut self, splits: bool) {
        for _ in 0..ROUNDS {
            let before: Vec<(usize, usize)> = self.names.iter().map(|name| (name.candidate, name.level)).collect();
            for (candidate, _) in &before {
                self.remove(*candidate);
                if let Some(best) = self.best() {
                    self.add(best);
                }
            }
            if splits {
                self.split();
            }
            self.greedy();
            let mut after: Vec<(usize, usize)> = self.names.iter().map(|name| (name.candidate, name.level)).collect();
            after.sort_unstable();
            let mut before = before;
            before.sort_unstable();
            if before == after {
                break;
            }
        }
    }

    /// Puts narrower slices of one cuboid in the place of a name, where they explain more of it together: at the same level, and where what is left did not move to any. So nothing is
    /// split because its parts moved a little differently.
    fn split(&mut self) {
        for name in self.names.clone() {
            let whole = self.gain(name);
            self.remove(name.candidate);
            let gain = |parts: &Vec<Name>| parts.iter().map(|part| part.gain).sum::<i64>();
            let parts = self.narrower(name).max_by_key(gain).filter(|parts| gain(parts) > whole);
            for part in parts.unwrap_or_else(|| vec![name]) {
                self.add(part);
            }
        }
    }

    /// For each cuboid of more attributes than a candidate's: the slices in it that explain the candidate at its level, where they leave nothing of it that moved.
    fn narrower(&self, whole: Name) -> impl Iterator<Item = Vec<Name>> + '_ {
        let attributes = self.candidates.cuboid(whole.candidate).map_or(0, |cuboid| cuboid.attributes);
        let is_narrower = move |cuboid: &&Cuboid| cuboid.attributes & attributes == attributes && cuboid.attributes != attributes;
        self.candidates.cuboids.iter().filter(is_narrower).filter_map(move |cuboid| {
            let again = cuboid.price_again + self.candidates.further;
            let (begin, first, sums) = self.in_cuboid(cuboid);
            let mut left = self.sums.get(whole.candidate).copied()?;
            let mut parts: Vec<Name> = Vec::new();
            for (at, sum) in sums.iter().enumerate() {
                let part = Name { candidate: begin + at, gain: sum.get(whole.level)? - again, ..whole };
                if part.gain > 0 && self.is_within(part, whole) {
                    left.iter_mut().zip(sum).for_each(|(left, part)| *left -= part);
                    parts.push(part);
                }
            }
            // The first name may cost more, or less.
            parts.first_mut()?.gain += again - first;
            left.iter().all(|left| *left <= 0).then_some(parts)
        })
    }

    /// Whether a candidate of more attributes is part of another.
    fn is_within(&self, part: Name, whole: Name) -> bool {
        let first = self.candidates.leaves.get(part.candidate).first().copied().map_or(usize::MAX, place);
        self.candidates.of_leaf.get(first).contains(&id(whole.candidate))
    }

    /// Drops names that add nothing to the others, the least first.
    pub(super) fn drop_idle(&mut self) {
        while let Some(idle) = self.names.iter().map(|name| Name { gain: self.gain(*name), ..*name }).min_by_key(|name| name.gain) {
            if idle.gain > 0 {
                break;
            }
            self.remove(idle.candidate);
        }
    }

    /// What a name adds to the others that are named beside it.
    fn gain(&self, name: Name) -> i64 {
        let is_in_another = |leaf: &u32| self.named.get(place(*leaf)).is_some_and(|names| *names > 1);
        let own = self.candidates.leaves.get(name.candidate).iter().filter(|leaf| !is_in_another(leaf));
        let says = |leaf: &u32| self.evidence.get(place(*leaf)).and_then(|row| row.get(name.level)).copied().map_or(0, i64::from);
        own.map(says).sum::<i64>() - self.price(name)
    }

    /// What a name costs, beside the others.
    fn price(&self, name: Name) -> i64 {
        self.candidates.cuboid(name.candidate).map_or(0, |cuboid| {
            let (begin, end) = cuboid.candidates;
            let again = self.names.iter().any(|other| other.candidate != name.candidate && (begin..end).contains(&other.candidate));
            let further = if self.names.iter().all(|other| other.candidate == name.candidate) { 0 } else { self.candidates.further };
            further + if again { cuboid.price_again } else { cuboid.price }
        })
    }

    /// The candidate that adds most, if one adds more than it costs.
    fn best(&mut self) -> Option<Name> {
        self.look_for_most();
        self.gains().filter(|name| name.gain > 0).min_by(|one, other| self.order(one, other))
    }

    /// The one that adds more first; of equals that of fewer attributes, then by what they are called.
    fn order(&self, one: &Name, other: &Name) -> Ordering {
        let attributes = |name: &Name| self.candidates.cuboid(name.candidate).map_or(0, |cuboid| cuboid.attributes.count_ones());
        let element = |name: &Name| self.candidates.element(self.leaves, name.candidate);
        let by_gain = other.gain.cmp(&one.gain);
        by_gain.then_with(|| attributes(one).cmp(&attributes(other))).then_with(|| element(one).order(&element(other), self.leaves))
    }

    /// What each candidate would add, at its best level.
    fn gains(&self) -> impl Iterator<Item = Name> + '_ {
        self.candidates.cuboids.iter().flat_map(|cuboid| self.gains_in(cuboid))
    }

    fn gains_in(&self, cuboid: &Cuboid) -> impl Iterator<Item = Name> + '_ {
        let (begin, price, _) = self.in_cuboid(cuboid);
        let most = self.most.get(begin..cuboid.candidates.1).unwrap_or(&[]);
        let name = move |(candidate, (level, most)): (usize, (usize, i64))| Name { candidate, level, gain: most - price };
        (begin..).zip(most.iter().map(|most| most.unwrap_or_default())).map(name)
    }

    /// At which level what each candidate's leaves say is most, where that may have changed.
    fn look_for_most(&mut self) {
        for (most, sum) in self.most.iter_mut().zip(&self.sums).filter(|(most, _)| most.is_none()) {
            let (level, sum) =
                sum.iter().enumerate().fold((0, i64::MIN), |most, (level, sum)| if *sum > most.1 { (level, *sum) } else { most });
            *most = Some((level, sum));
        }
    }

    /// The first candidate of a cuboid, what a name of it costs now, and what each would add by level.
    fn in_cuboid(&self, cuboid: &Cuboid) -> (usize, i64, &[Sum]) {
        let (begin, end) = cuboid.candidates;
        let again = self.names.iter().any(|name| (begin..end).contains(&name.candidate));
        let further = if self.names.is_empty() { 0 } else { self.candidates.further };
        (begin, further + if again { cuboid.price_again } else { cuboid.price }, self.sums.get(begin..end).unwrap_or(&[]))
    }

    fn add(&mut self, name: Name) {
        self.names.push(name);
        for leaf in self.candidates.leaves.get(name.candidate) {
            if let Some(count) = self.named.get_mut(place(*leaf)) {
                *count += 1;
                if *count == 1 {
                    self.change(*leaf, -1);
                }
            }
        }
    }

    fn remove(&mut self, candidate: usize) {
        let before = self.names.len();
        self.names.retain(|name| name.candidate != candidate);
        if self.names.len() == before {
            return;
        }
        for leaf in self.candidates.leaves.get(candidate) {
            if let Some(count) = self.named.get_mut(place(*leaf)) {
                *count -= 1;
                if *count == 0 {
                    self.change(*leaf, 1);
                }
            }
        }
    }

    /// Adds what a leaf says to all that it is in, or takes it from them.
    fn change(&mut self, leaf: u32, sign: i64) {
        let Some(row) = self.evidence.get(place(leaf)) else { return };
        let change = row.map(|says| sign * i64::from(says));
        for of_leaf in self.candidates.of_leaf.get(place(leaf)) {
            if let (Some(sum), Some(most)) = (self.sums.get_mut(place(*of_leaf)), self.most.get_mut(place(*of_leaf))) {
                sum.iter_mut().zip(change).for_each(|(sum, change)| *sum += change);
                *most = None;
            }
        }
    }

    /// Which leaves the names explain.
    pub(super) fn explained(&self) -> Vec<bool> {
        self.named.iter().map(|count| *count > 0).collect()
    }

    /// What a name adds to the others that are named beside it. and what in its place would add as much but for `less` units, the best first.
    pub(super) fn instead(&mut self, name: Name, less: i64) -> (i64, Vec<Name>) {
        let gain = self.gain(name);
        self.remove(name.candidate);
        let own = self.candidates.element(self.leaves, name.candidate);
        self.look_for_most();
        let near = |other: &Name| other.candidate != name.candidate && other.gain > 0 && other.gain >= gain - less;
        let mut others: Vec<Name> = self.gains().filter(near).collect();
        others.retain(|other| !self.candidates.element(self.leaves, other.candidate).is_apart_from(&own));
        others.sort_by(|one, other| self.order(one, other));
        self.add(name);
        (gain, others)
    }

    /// What a candidate would add in the place of a name, in units; nothing, where that is less than it costs.
    pub(super) fn in_place_of(&mut self, name: Name, candidate: usize) -> Option<i64> {
        self.remove(name.candidate);
        self.look_for_most();
        let cuboid = self.candidates.cuboid(candidate);
        let gain = cuboid.and_then(|cuboid| self.gains_in(cuboid).find(|other| other.candidate == candidate)).map(|other| other.gain);
        self.add(name);
        gain.filter(|gain| *gain > 0)
    }
}
