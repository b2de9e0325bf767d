//! Failing attempts with all their values: what a fault is named by.

use std::collections::HashMap;
use std::ops::{AddAssign, RangeInclusive};

use foldhash::fast::RandomState;

use crate::class::Class;
use crate::series::TICK_S;
use crate::slice::Slice;

/// Failures of one class, in one tick, that have all their values in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Leaf {
    /// All their values.
    pub at: Slice,
    /// First second of the tick, since 1970-01-01 UTC.
    pub bucket: u32,
    /// How they failed.
    pub class: Class,
    /// How many.
    pub failures: u32,
    /// How many of them count as evidence. A shop whose till tries a hundred times is no better a witness than one that tries twice, so that in the
    /// answer to one question no shop counts for more than one and a half.
    pub witnessed: f64,
}

impl Leaf {
    pub(crate) fn tick(&self) -> u32 {
        self.bucket / TICK_S
    }
}

/// Failures of a slice: all of them, and those that count as evidence.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Failing {
    pub(crate) failures: u64,
    pub(crate) witnessed: f64,
}

impl AddAssign for Failing {
    fn add_assign(&mut self, other: Failing) {
        self.failures += other.failures;
        self.witnessed += other.witnessed;
    }
}

/// What is looked at: a class in some ticks, and the leaves that are known.
#[derive(Clone, Debug)]
pub(crate) struct View<'a> {
    pub(crate) class: Class,
    pub(crate) ticks: RangeInclusive<u32>,
    pub(crate) leaves: &'a [Leaf],
}

impl<'a> View<'a> {
    /// The leaves of the class in these ticks.
    pub(crate) fn seen(&self) -> impl Iterator<Item = &'a Leaf> {
        let (class, ticks) = (self.class, self.ticks.clone());
        self.leaves.iter().filter(move |leaf| leaf.class == class && ticks.contains(&leaf.tick()))
    }
}

/// What failed where, all ticks together.
pub(crate) fn failing<'a>(leaves: impl Iterator<Item = &'a Leaf>) -> Vec<(&'a Slice, Failing)> {
    let mut sums: HashMap<&Slice, Failing, RandomState> = HashMap::default();
    for leaf in leaves {
        *sums.entry(&leaf.at).or_default() += Failing { failures: leaf.failures.into(), witnessed: leaf.witnessed };
    }
    // Always in the same order: sums of what is no whole number depend on it.
    let mut failing: Vec<(&Slice, Failing)> = sums.into_iter().collect();
    failing.sort_unstable_by_key(|(at, _)| *at);
    failing
}

/// What of it failed in a slice.
pub(crate) fn sum_in(slice: &Slice, failing: &[(&Slice, Failing)]) -> Failing {
    let mut sum = Failing::default();
    for (_, some) in failing.iter().filter(|(at, _)| slice.holds(at)) {
        sum += *some;
    }
    sum
}
