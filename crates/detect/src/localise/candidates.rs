//! Slices that may be named, by the attributes that they are of, with their leaves.

use super::evidence::{Evidence, Sum, units};
use super::leaves::{Element, Leaves};
use super::search::{self, sum};

/// What a name costs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Price {
    /// Any, in nats.
    pub(super) any: f64,
    /// Each attribute, in nats.
    pub(super) attribute: f64,
    /// Any but the first, in nats, beside that.
    pub(super) further: f64,
}

/// Slices of the same attributes.
#[derive(Clone, Debug)]
pub(super) struct Cuboid {
    /// The attributes' places, as bits.
    pub(super) attributes: u32,
    /// What the first name in it costs, in units.
    pub(super) price: i64,
    /// What another one costs.
    pub(super) price_again: i64,
    /// The candidates in it: the first, and the first behind.
    pub(super) candidates: (usize, usize),
}

/// Lists of numbers, one after the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Lists {
    ends: Vec<usize>,
    items: Vec<u32>,
}

impl Lists {
    pub(super) fn get(&self, place: usize) -> &[u32] {
        let begin = place.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let end = self.ends.get(place).copied().unwrap_or(begin);
        self.items.get(begin..end).unwrap_or(&[])
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn push(&mut self, list: &[u32]) {
        self.items.extend_from_slice(list);
        self.ends.push(self.items.len());
    }

    /// For each number, in which lists it is.
    fn inverted(&self, numbers: usize) -> Lists {
        let mut ends = vec![0; numbers];
        for number in &self.items {
            if let Some(end) = ends.get_mut(place(*number)) {
                *end += 1;
            }
        }
        let mut begin = 0;
        for end in &mut ends {
            begin += std::mem::replace(end, begin);
        }
        let mut items = vec![0; begin];
        for list in 0..self.len() {
            for number in self.get(list) {
                let Some(end) = ends.get_mut(place(*number)) else { continue };
                if let Some(slot) = items.get_mut(*end) {
                    *slot = id(list);
                }
                *end += 1;
            }
        }
        Lists { ends, items }
    }
}

/// Slices that may be named, by cuboid.
#[derive(Clone, Debug, Default)]
pub(super) struct Candidates {
    pub(super) cuboids: Vec<Cuboid>,
    /// What any name but the first costs beside its price, in units.
    pub(super) further: i64,
    /// By candidate, its leaves.
    pub(super) leaves: Lists,
    /// By leaf, the candidates that it is in.
    pub(super) of_leaf: Lists,
    /// The attributes' places, in the order in which they are bits.
    by_name: Vec<usize>,
}

/// A leaf's place, or a candidate's, as it is kept.
pub(super) fn id(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

/// And back.
pub(super) fn place(id: u32) -> usize {
    usize::try_from(id).unwrap_or(usize::MAX)
}

impl Candidates {
    /// All slices that may be named, by this evidence or one that is not very different; and what the leaves of each say together.
    pub(super) fn of(leaves: &Leaves, evidence: &Evidence, price: Price) -> (Candidates, Vec<Sum>) {
        let (mut found, sums) = search::found(leaves, evidence, price);
        found.further = units(price.further);
        found.of_leaf = found.leaves.inverted(leaves.len());
        found.by_name = leaves.by_name();
        (found, sums)
    }

    /// What the leaves of each say together, by other evidence.
    pub(super) fn weigh(&self, evidence: &Evidence) -> Vec<Sum> {
        (0..self.leaves.len()).map(|candidate| sum(self.leaves.get(candidate), evidence)).collect()
    }

    /// The cuboid that a candidate is in.
    pub(super) fn cuboid(&self, candidate: usize) -> Option<&Cuboid> {
        self.cuboids.get(self.cuboids.partition_point(|cuboid| cuboid.candidates.1 <= candidate))
    }

    /// The slice that a candidate is: its attributes by name, with the values that all its leaves have.
    pub(super) fn element(&self, leaves: &Leaves, candidate: usize) -> Element {
        let attributes = self.cuboid(candidate).map_or(0, |cuboid| cuboid.attributes);
        let first = self.leaves.get(candidate).first().copied().map_or(usize::MAX, place);
        let of = |(bit, attribute): (usize, &usize)| {
            let value = leaves.column(*attribute).get(first)?;
            (attributes >> bit & 1 == 1).then_some((*attribute, *value))
        };
        Element(self.by_name.iter().enumerate().filter_map(of).collect())
    }

    /// The candidate that is this slice, if it is one.
    pub(super) fn find(&self, leaves: &Leaves, element: &Element) -> Option<usize> {
        let bit = |place: &usize| self.by_name.iter().position(|named| named == place).map(|bit| 1_u32 << bit);
        let attributes = element.0.iter().try_fold(0, |bits, (place, _)| Some(bits | bit(place)?))?;
        let (begin, end) = self.cuboids.iter().find(|cuboid| cuboid.attributes == attributes)?.candidates;
        let is_it = |candidate: &usize| {
            let found = self.element(leaves, *candidate);
            found.0.len() == element.0.len() && found.0.iter().all(|value| element.0.contains(value))
        };
        (begin..end).find(is_it)
    }
}
