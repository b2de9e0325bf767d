//! The search for slices that may be named: all whose leaves could ever say enough, found attribute by attribute.
//!
//! Slices are found by a search in depth over attributes, in the manner of an equivalence-class search for frequent sets (Zaki, 2000). What the leaves of a slice say
//! at most, each at its own best level, bounds what any narrower slice can reach, so what is below the price of a name is never looked into. Best levels are of one half of the levels: a
//! leaf that moved down speaks against all levels above, so the halves apart tell much more of a slice than all levels together.

use std::collections::HashMap;
use std::rc::Rc;

use super::candidates::{Candidates, Cuboid, Price, id, place};
use super::evidence::{Evidence, LEVELS, Row, Sum, units};
use super::leaves::Leaves;

/// Leaves times sets of attributes that are looked at, at most: what would be more is not searched to its depth.
const MOST_VISITS: usize = 80_000_000;
/// What is found could pay so many hundredths of the price of a name, at least: leaves may say more once it is learned from the others what is usual.
const DISCOUNTED: i64 = 70;
/// How much more a leaf may say beside that, in nats: it makes no name.
const LITTLE: f64 = 0.5;
/// Leaves that are summed in 32 bits: none says more than 30 nats.
const AT_A_TIME: usize = 1000;
const NONE: u32 = u32::MAX;

/// One of the lower half of levels, one of the upper.
type Halves<T> = [T; 2];

/// Leaves that are searched together, and all that is looked at of each again and again.
struct Base {
    leaves: Vec<u32>,
    /// What each says at the best level of a half, for a slice or against it.
    best: Vec<Halves<i32>>,
    /// By attribute, in the order in which they are searched: the leaves' values.
    columns: Vec<Vec<u32>>,
}

/// What is looked into together: the cells of some attributes in which leaves may say enough for a name.
struct Node {
    attributes: u32,
    /// How many cells there are.
    count: usize,
    /// Of how many slices these are, at most.
    slices: f64,
    base: Rc<Base>,
    /// The cell that each leaf is in; `count`, where it is in none.
    cells: Vec<u32>,
    speaking: Vec<Speaking>,
}

/// A leaf that speaks for a slice.
#[derive(Clone, Copy, Debug)]
struct Speaking {
    /// Its place in the base.
    at: u32,
    cell: u32,
    /// What it says at most.
    says: Halves<i32>,
}

/// What the leaves of a cell say, each at the best level of a half.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    /// Those that speak for it.
    for_it: Halves<i64>,
    /// All of them.
    all: Halves<i64>,
    leaves: usize,
}

struct Search<'a> {
    leaves: &'a Leaves,
    evidence: &'a Evidence,
    /// By attribute, in the order in which they are searched: how many values it has.
    values: Vec<usize>,
    price: Price,
    depth: u32,
    found: Candidates,
    /// By candidate, what its leaves say together.
    sums: Vec<Sum>,
    /// Room for the numbers of cells, and for the leaves of cells.
    table: Vec<u32>,
    by_cell: Vec<u32>,
}

/// The slices that may be named, by cuboid, with their leaves; and what the leaves of each say together.
pub(super) fn found(leaves: &Leaves, evidence: &Evidence, price: Price) -> (Candidates, Vec<Sum>) {
    let order = leaves.by_name();
    let values =
        order.iter().map(|attribute| leaves.attributes().get(*attribute).map_or(0, |attribute| attribute.values().len())).collect();
    let depth = depth(order.len(), leaves.len());
    let (found, sums, table, by_cell) = (Candidates::default(), Vec::new(), Vec::new(), Vec::new());
    let mut search = Search { leaves, evidence, values, price, depth, found, sums, table, by_cell };
    let base = Base::of(leaves, evidence, &order);
    let cells = vec![0; base.leaves.len()];
    let speaking = base.speaking(&cells);
    search.below(&Node { attributes: 0, count: 1, slices: 1.0, base: Rc::new(base), cells, speaking }, 0);
    (search.found, search.sums)
}

/// What each leaf says for a slice at most.
pub(super) fn most(evidence: &Evidence) -> Vec<i32> {
    evidence.iter().map(|row| row.iter().copied().fold(0, i32::max)).collect()
}

/// Whether what is found where leaves say so much at most is all that would be found by what was learned since: none says much more.
pub(super) fn finds_all(before: &[i32], learned: &Evidence) -> bool {
    before.iter().zip(most(learned)).all(|(before, now)| discounted(now.into()) <= i64::from(*before) + units(LITTLE))
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

impl Base {
    /// All leaves that say something: one that was 0 and is 0 does not.
    fn of(leaves: &Leaves, evidence: &Evidence, order: &[usize]) -> Base {
        let mut base = Base { leaves: Vec::with_capacity(leaves.len()), best: Vec::with_capacity(leaves.len()), columns: Vec::new() };
        for (leaf, row) in (0..).zip(evidence) {
            if row.iter().fold(0, |any, says| any | says) != 0 {
                let (lower, upper) = row.split_at(LEVELS / 2);
                base.leaves.push(leaf);
                base.best.push([lower, upper].map(|half| half.iter().copied().fold(i32::MIN, i32::max)));
            }
        }
        base.columns = order.iter().map(|attribute| at(leaves.column(*attribute), &base.leaves)).collect();
        base
    }

    /// Those of the leaves that are at these places, with the attributes from one on.
    fn only(&self, places: &[u32], from: usize) -> Base {
        let column = |(attribute, column): (usize, &Vec<u32>)| if attribute < from { Vec::new() } else { at(column, places) };
        Base {
            leaves: at(&self.leaves, places),
            best: at(&self.best, places),
            columns: self.columns.iter().enumerate().map(column).collect(),
        }
    }

    /// The leaves that speak for a slice.
    fn speaking(&self, cells: &[u32]) -> Vec<Speaking> {
        let says = self.best.iter().map(|best| best.map(|best| best.max(0)));
        (0..)
            .zip(cells)
            .zip(says)
            .filter(|(_, says)| *says != [0; 2])
            .map(|((at, cell), says)| Speaking { at, cell: *cell, says })
            .collect()
    }
}

/// What is at these places.
fn at<T: Copy>(all: &[T], places: &[u32]) -> Vec<T> {
    places.iter().filter_map(|at| all.get(place(*at)).copied()).collect()
}

impl Cell {
    /// The most that its leaves may say, if it were for the best levels of any half, and if others explained half of what speaks against it.
    fn most(&self) -> i64 {
        self.for_it.iter().zip(self.all).map(|(for_it, all)| i64::midpoint(*for_it, all)).fold(i64::MIN, i64::max)
    }

    /// The same, by what they say at each level.
    fn most_at_a_level(&self, sum: &Sum) -> i64 {
        let most_of = |half: &[i64]| half.iter().copied().fold(i64::MIN, i64::max);
        sum.chunks_exact(LEVELS / 2).zip(self.for_it).map(|(half, for_it)| i64::midpoint(for_it, most_of(half))).fold(i64::MIN, i64::max)
    }
}

fn discounted(price: i64) -> i64 {
    price / 100 * DISCOUNTED
}

/// Adds what one leaf says.
fn add(sums: &mut Halves<i64>, one: Halves<i32>) {
    sums.iter_mut().zip(one).for_each(|(sum, one)| *sum += i64::from(one));
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

    /// Gives each cell another number; those that have none, this one.
    fn renumber(&mut self, others: &[u32], none: u32) {
        let other = |number: u32| others.get(place(number)).copied().unwrap_or(none);
        match self {
            Numbers::Map(map) => map.values_mut().for_each(|number| *number = other(*number)),
            Numbers::Table(table) => table.iter_mut().for_each(|number| *number = other(*number)),
        }
    }

    /// The numbers of cells, or this one where they have none; each is told, with what came with its key.
    fn known<T>(&self, keys: impl Iterator<Item = (usize, T)>, none: u32, mut tell: impl FnMut(u32, T)) -> Vec<u32> {
        let mut told = move |number: Option<&u32>, with: T| {
            let number = number.copied().unwrap_or(none);
            tell(number, with);
            number
        };
        match self {
            Numbers::Map(map) => keys.map(|(key, with)| told(map.get(&key), with)).collect(),
            Numbers::Table(table) => {
                let table = table.as_slice();
                keys.map(move |(key, with)| told(table.get(key), with)).collect()
            }
        }
    }
}

impl Search<'_> {
    /// Looks into the slices of a node, by each attribute from `first` on.
    fn below(&mut self, node: &Node, first: usize) {
        for next in first..self.values.len() {
            if let Some(child) = self.child(node, next) {
                self.below(&child, next + 1);
            }
        }
    }

    /// The slices of a node by one more attribute: those that may be named become candidates, and those that narrower ones may be named of stay, if there are any.
    fn child(&mut self, node: &Node, next: usize) -> Option<Node> {
        let values = *self.values.get(next)?;
        let Base { best, columns, .. } = node.base.as_ref();
        let column = columns.get(next)?;
        let (attributes, slices) = (node.attributes | 1 << next, node.slices * values as f64);
        let again = self.price.any + slices.min(self.leaves.len() as f64).ln();
        let price = units(again + self.price.attribute * f64::from(attributes.count_ones()));
        let key = move |cell: u32, value: u32| place(cell) * values + place(value);
        // First only those that speak for a slice: most cells are none that could be named.
        let mut numbers = Numbers::new(&mut self.table, (node.count + 1) * values, node.cells.len());
        let mut said: Vec<Halves<i64>> = Vec::new();
        let mut speaking = Vec::with_capacity(node.speaking.len());
        for one in &node.speaking {
            let Some(value) = column.get(place(one.at)) else { continue };
            let cell = numbers.of(key(one.cell, *value), said.len());
            if place(cell) == said.len() {
                said.push([0; 2]);
            }
            speaking.push(Speaking { cell, ..*one });
            if let Some(said) = said.get_mut(place(cell)) {
                add(said, one.says);
            }
        }
        let least = discounted(units(again));
        let stays = |for_it: &Halves<i64>| for_it.iter().any(|for_it| *for_it >= least);
        let count = said.iter().filter(|for_it| stays(for_it)).count();
        if count == 0 {
            return None;
        }
        // What does not stay goes to one more cell, the last: so nothing has to be asked of each leaf.
        let mut others: Vec<u32> = Vec::with_capacity(said.len());
        let mut sums: Vec<Cell> = Vec::with_capacity(count + 1);
        for for_it in said {
            others.push(if stays(&for_it) { id(sums.len()) } else { id(count) });
            if stays(&for_it) {
                sums.push(Cell { for_it, ..Cell::default() });
            }
        }
        sums.push(Cell::default());
        numbers.renumber(&others, id(count));
        let keys = node.cells.iter().zip(column).map(move |(cell, value)| key(*cell, *value)).zip(best);
        // What is moved into these closures need not be read again for each leaf: what is only borrowed might be among the sums.
        let by_number = sums.as_mut_slice();
        let mut cells = numbers.known(keys, id(count), move |number, best| {
            if let Some(cell) = by_number.get_mut(place(number)) {
                add(&mut cell.all, *best);
                cell.leaves += 1;
            }
        });
        let gone = sums.pop().map_or(0, |gone| gone.leaves);
        let begin = self.found.leaves.len();
        let cuboid = Cuboid { attributes, price, price_again: units(again), candidates: (begin, begin) };
        // Narrower ones have an attribute more, one of those behind.
        if next + 1 == self.values.len() || attributes.count_ones() == self.depth {
            self.keep((&node.base.leaves, &cells), &sums, cuboid);
            return None;
        }
        let mut base = Rc::clone(&node.base);
        // The leaves of that cell stay where they are, too, until they are the most.
        if 2 * gone > cells.len() {
            let stay: Vec<u32> = (0..).zip(&cells).filter(|(_, cell)| **cell != id(count)).map(|(at, _)| at).collect();
            base = Rc::new(base.only(&stay, next + 1));
            cells = at(&cells, &stay);
            speaking = base.speaking(&cells);
        } else {
            speaking.retain_mut(|one| {
                one.cell = others.get(place(one.cell)).copied().unwrap_or(id(count));
                one.cell != id(count)
            });
        }
        self.keep((&base.leaves, &cells), &sums, cuboid);
        Some(Node { attributes, count, slices, base, cells, speaking })
    }

    /// Makes candidates of the cells that may be named themselves, by what their leaves say at their best levels first, and then at any one.
    fn keep(&mut self, (leaves, cells): (&[u32], &[u32]), sums: &[Cell], mut cuboid: Cuboid) {
        let least = discounted(cuboid.price_again);
        let mut count = 0;
        // Where the leaves of each cell go.
        let mut begins: Vec<usize> = Vec::with_capacity(sums.len());
        for cell in sums {
            let may_be = cell.most() >= least;
            begins.push(if may_be { count } else { usize::MAX });
            count += if may_be { cell.leaves } else { 0 };
        }
        if count == 0 {
            return;
        }
        self.by_cell.resize(count, 0);
        for (leaf, cell) in leaves.iter().zip(cells) {
            let Some(next) = begins.get_mut(place(*cell)) else { continue };
            if let Some(slot) = self.by_cell.get_mut(*next) {
                *slot = *leaf;
                *next += 1;
            }
        }
        let mut rest = self.by_cell.as_slice();
        for cell in sums.iter().filter(|cell| cell.most() >= least) {
            let Some((leaves, behind)) = rest.split_at_checked(cell.leaves) else { break };
            rest = behind;
            let sum = sum(leaves, self.evidence);
            if cell.most_at_a_level(&sum) >= least {
                self.found.leaves.push(leaves);
                self.sums.push(sum);
            }
        }
        cuboid.candidates.1 = self.found.leaves.len();
        if cuboid.candidates.1 > cuboid.candidates.0 {
            self.found.cuboids.push(cuboid);
        }
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
