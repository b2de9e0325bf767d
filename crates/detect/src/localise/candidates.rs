//! Slices that may be named: all whose leaves could ever say enough, found attribute by attribute.
//!
//! Slices are found by a search in depth over attributes, in the manner of an equivalence-class search for frequent sets (Zaki, 2000). What the leaves of a slice say
//! at most, each at its own best level, bounds what any narrower slice can reach, so what is below the price of a name is never looked into.

use std::collections::HashMap;

use super::evidence::{Evidence, LEVELS, Row, Sum, units};
use super::leaves::{Element, Leaves};

/// Leaves times sets of attributes that are looked at, at most: what would be more is not searched to its depth.
const MOST_VISITS: usize = 80_000_000;
/// Leaves that are summed in 32 bits: none says more than 30 nats.
const AT_A_TIME: usize = 1000;
const NONE: u32 = u32::MAX;

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

    /// For each number, in which lists it is.
    fn inverted(&self, numbers: usize) -> Lists {
        let mut begins = vec![0_usize; numbers + 1];
        for item in &self.items {
            if let Some(count) = begins.get_mut(place(*item) + 1) {
                *count += 1;
            }
        }
        let mut sum = 0;
        for begin in &mut begins {
            sum += *begin;
            *begin = sum;
        }
        let ends = begins.get(1..).unwrap_or(&[]).to_vec();
        let mut items = vec![0; self.items.len()];
        for list in 0..self.len() {
            for item in self.get(list) {
                let Some(begin) = begins.get_mut(place(*item)) else { continue };
                if let Some(slot) = items.get_mut(*begin) {
                    *slot = id(list);
                }
                *begin += 1;
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
    /// By candidate, what its leaves say together.
    pub(super) sums: Vec<Sum>,
}

/// A leaf's place, or a candidate's, as it is kept.
pub(super) fn id(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(NONE)
}

/// And back.
pub(super) fn place(id: u32) -> usize {
    usize::try_from(id).unwrap_or(usize::MAX)
}

/// Leaves, each with the cell that it is in.
type Placed = Vec<(u32, u32)>;

/// What is looked into together: the cells of some attributes in which leaves may say enough for a name.
struct Node {
    attributes: u32,
    count: usize,
    /// Of how many slices these are, at most.
    slices: f64,
    /// Their leaves, and those of them that speak for a slice.
    all: Placed,
    speaking: Placed,
}

struct Search<'a> {
    leaves: &'a Leaves,
    order: Vec<usize>,
    price: Price,
    depth: u32,
    /// What each leaf says at its best level, for a slice or against it.
    best: Vec<i32>,
    found: Candidates,
    /// Room for the numbers of cells.
    table: Vec<u32>,
}

/// What the leaves of a cell say, each at its best level.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    /// Those that speak for it.
    for_it: i64,
    /// All of them.
    all: i64,
    leaves: usize,
}

impl Candidates {
    /// All slices that may be named.
    pub(super) fn of(leaves: &Leaves, evidence: &Evidence, price: Price) -> Candidates {
        let order = leaves.by_name();
        let best: Vec<i32> = evidence.iter().map(|row| row.iter().copied().fold(i32::MIN, i32::max)).collect();
        let depth = depth(order.len(), leaves.len());
        let count = leaves.len();
        // A leaf that was 0 and is 0 says nothing.
        let says = |leaf: &u32| evidence.get(place(*leaf)).is_some_and(|row| row.iter().fold(0, |any, says| any | says) != 0);
        let all: Placed = (0..id(count)).filter(says).map(|leaf| (leaf, 0)).collect();
        let speaks = |(leaf, _): &(u32, u32)| best.get(place(*leaf)).is_some_and(|best| *best > 0);
        let speaking = all.iter().copied().filter(speaks).collect();
        let mut search = Search { leaves, order, price, depth, best, found: Candidates::default(), table: Vec::new() };
        search.below(&Node { attributes: 0, count: 1, slices: 1.0, all, speaking }, 0);
        let mut found = search.found;
        found.further = units(price.further);
        found.of_leaf = found.leaves.inverted(count);
        found.sums = (0..found.leaves.len()).map(|candidate| sum(found.leaves.get(candidate), evidence)).collect();
        found
    }

    /// The cuboid that a candidate is in.
    pub(super) fn cuboid(&self, candidate: usize) -> Option<&Cuboid> {
        self.cuboids.get(self.cuboids.partition_point(|cuboid| cuboid.candidates.1 <= candidate))
    }

    /// The slice that a candidate is: its attributes by name, with the values that all its leaves have.
    pub(super) fn element(&self, leaves: &Leaves, candidate: usize) -> Element {
        let attributes = self.cuboid(candidate).map_or(0, |cuboid| cuboid.attributes);
        let first = self.leaves.get(candidate).first().copied().map_or(usize::MAX, place);
        let of = |(bit, attribute): (usize, usize)| {
            let value = leaves.column(attribute).get(first)?;
            (attributes >> bit & 1 == 1).then_some((attribute, *value))
        };
        Element(leaves.by_name().into_iter().enumerate().filter_map(of).collect())
    }

    /// The candidate that is this slice, if it is one.
    pub(super) fn find(&self, leaves: &Leaves, element: &Element) -> Option<usize> {
        let by_name = leaves.by_name();
        let bit = |place: &usize| by_name.iter().position(|named| named == place).map(|bit| 1_u32 << bit);
        let attributes = element.0.iter().try_fold(0, |bits, (place, _)| Some(bits | bit(place)?))?;
        let (begin, end) = self.cuboids.iter().find(|cuboid| cuboid.attributes == attributes)?.candidates;
        let is_it = |candidate: &usize| {
            let found = self.element(leaves, *candidate);
            found.0.len() == element.0.len() && found.0.iter().all(|value| element.0.contains(value))
        };
        (begin..end).find(is_it)
    }
}

/// What these leaves say together. So many at a time as fit half the digits, which takes half the time.
pub(super) fn sum(leaves: &[u32], rows: &[Row]) -> Sum {
    let mut sum = [0; LEVELS];
    for some in leaves.chunks(AT_A_TIME) {
        let mut of_some: Row = [0; LEVELS];
        for row in some.iter().filter_map(|leaf| rows.get(place(*leaf))) {
            of_some.iter_mut().zip(row).for_each(|(sum, one)| *sum += one);
        }
        sum.iter_mut().zip(of_some).for_each(|(sum, of_some)| *sum += i64::from(of_some));
    }
    sum
}

/// How many attributes slices may have, so that no more is looked at than is bearable.
fn depth(attributes: usize, leaves: usize) -> u32 {
    let (mut sets, mut visits) = (1_usize, 0_usize);
    for depth in 1..=attributes {
        sets = sets.saturating_mul(attributes + 1 - depth) / depth;
        visits = visits.saturating_add(sets.saturating_mul(leaves));
        if visits > MOST_VISITS && depth > 1 {
            return id(depth - 1);
        }
    }
    id(attributes)
}

/// The numbers of cells, by their keys: in a table where that is not much larger than what is in it.
enum Numbers<'a> {
    Table(&'a mut Vec<u32>),
    Map(HashMap<usize, u32>),
}

impl Numbers<'_> {
    fn new(table: &mut Vec<u32>, keys: usize, leaves: usize) -> Numbers<'_> {
        if keys > 64 * leaves + 65_536 {
            return Numbers::Map(HashMap::new());
        }
        table.clear();
        table.resize(keys, NONE);
        Numbers::Table(table)
    }

    /// Gives each cell another number, or none.
    fn renumber(&mut self, others: &[u32]) {
        let other = |number: u32| others.get(place(number)).copied().unwrap_or(NONE);
        match self {
            Numbers::Map(map) => map.values_mut().for_each(|number| *number = other(*number)),
            Numbers::Table(table) => table.iter_mut().for_each(|number| *number = other(*number)),
        }
    }

    /// The number of a cell, if it has one.
    fn known(&self, key: usize) -> Option<u32> {
        match self {
            Numbers::Map(map) => map.get(&key).copied().filter(|number| *number != NONE),
            Numbers::Table(table) => table.get(key).copied().filter(|number| *number != NONE),
        }
    }

    /// The number of a cell, which is `next` where it is new.
    fn of(&mut self, key: usize, next: usize) -> u32 {
        match self {
            Numbers::Map(map) => *map.entry(key).or_insert(id(next)),
            Numbers::Table(table) => match table.get_mut(key) {
                Some(number) if *number == NONE => {
                    *number = id(next);
                    *number
                }
                Some(number) => *number,
                None => NONE,
            },
        }
    }
}

impl Search<'_> {
    /// Looks into the slices of a node, by each attribute from `first` on.
    fn below(&mut self, node: &Node, first: usize) {
        for next in first..self.order.len() {
            let child = self.child(node, next);
            if child.attributes.count_ones() < self.depth && child.count > 0 {
                self.below(&child, next + 1);
            }
        }
    }

    /// The slices of a node by one more attribute: those that may be named become candidates, and those that narrower ones may be named of stay.
    fn child(&mut self, node: &Node, next: usize) -> Node {
        let attribute = self.order.get(next).copied().unwrap_or(0);
        let column = self.leaves.column(attribute);
        let values = self.leaves.attributes().get(attribute).map_or(0, |attribute| attribute.values().len());
        let (attributes, slices) = (node.attributes | 1 << next, node.slices * values as f64);
        let again = self.price.any + slices.min(self.leaves.len() as f64).ln();
        let price = units(again + self.price.attribute * f64::from(attributes.count_ones()));
        let key = |leaf: u32, cell: u32| place(cell) * values + column.get(place(leaf)).map_or(0, |value| place(*value));
        let mut child = Node {
            attributes,
            count: 0,
            slices,
            all: Placed::with_capacity(node.all.len()),
            speaking: Placed::with_capacity(node.speaking.len()),
        };
        // First only those that speak for a slice: most cells are none that could be named.
        let mut numbers = Numbers::new(&mut self.table, node.count * values, node.all.len());
        let mut said: Vec<i64> = Vec::new();
        for (leaf, cell) in node.speaking.iter().copied() {
            let number = numbers.of(key(leaf, cell), said.len());
            if place(number) == said.len() {
                said.push(0);
            }
            child.speaking.push((leaf, number));
            if let (Some(said), Some(best)) = (said.get_mut(place(number)), self.best.get(place(leaf))) {
                *said += i64::from(*best);
            }
        }
        let mut kept: Vec<u32> = Vec::with_capacity(said.len());
        let mut cells: Vec<Cell> = Vec::new();
        for for_it in said {
            let is_kept = for_it >= units(again);
            kept.push(if is_kept { id(cells.len()) } else { NONE });
            if is_kept {
                cells.push(Cell { for_it, ..Cell::default() });
            }
        }
        child.count = cells.len();
        if child.count == 0 {
            return child;
        }
        let number = |number: u32| kept.get(place(number)).copied().filter(|kept| *kept != NONE);
        child.speaking = child.speaking.iter().filter_map(|(leaf, cell)| Some((*leaf, number(*cell)?))).collect();
        numbers.renumber(&kept);
        for (leaf, cell) in node.all.iter().copied() {
            let Some(number) = numbers.known(key(leaf, cell)) else { continue };
            child.all.push((leaf, number));
            if let (Some(cell), Some(best)) = (cells.get_mut(place(number)), self.best.get(place(leaf))) {
                cell.all += i64::from(*best);
                cell.leaves += 1;
            }
        }
        let begin = self.found.leaves.len();
        let cuboid = Cuboid { attributes, price, price_again: units(again), candidates: (begin, begin) };
        self.keep(&child.all, cuboid, &cells);
        child
    }

    /// Makes candidates of the cells that may be named themselves, though half of what speaks against them were explained by others.
    fn keep(&mut self, all: &[(u32, u32)], mut cuboid: Cuboid, cells: &[Cell]) {
        let found = &mut self.found.leaves;
        let mut next = found.items.len();
        // Where the leaves of each cell go.
        let mut slots: Vec<Option<usize>> = Vec::with_capacity(cells.len());
        for cell in cells {
            let is_kept = i64::midpoint(cell.for_it, cell.all) >= cuboid.price_again;
            slots.push(is_kept.then_some(next));
            if is_kept {
                next += cell.leaves;
                found.ends.push(next);
            }
        }
        if found.ends.len() == cuboid.candidates.0 {
            return;
        }
        found.items.resize(next, 0);
        for (leaf, cell) in all.iter().copied() {
            let Some(Some(slot)) = slots.get_mut(place(cell)) else { continue };
            if let Some(item) = found.items.get_mut(*slot) {
                *item = leaf;
            }
            *slot += 1;
        }
        cuboid.candidates.1 = found.ends.len();
        self.found.cuboids.push(cuboid);
    }
}
