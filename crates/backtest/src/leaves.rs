//! Leaves: attempts that have all their values in common, and in which slices they are.

use std::collections::HashMap;
use std::path::Path;

use faultline_detect::{Dimension, Slice};

use crate::field::{ReadError, Table};
use crate::yardstick::ATTRIBUTES;

/// The leaves of a directory.
#[derive(Debug, Default)]
pub(crate) struct Leaves {
    /// By number, where there is such a leaf, all its values.
    at: Vec<Option<Slice>>,
    /// By number, the slices that it is in, one a family.
    within: Vec<u32>,
    families: usize,
    /// The slices that are counted.
    slices: Vec<Slice>,
}

impl Leaves {
    /// Reads `leaves.csv`; each leaf is in a slice of each family.
    pub(crate) fn read(path: &Path, families: &[Vec<Dimension>]) -> Result<Leaves, ReadError> {
        let header = Table::header(path)?;
        let known: Vec<_> = ATTRIBUTES.into_iter().filter(|(attribute, _)| header.iter().any(|column| column == attribute)).collect();
        let columns: Vec<&str> = std::iter::once("leaf").chain(known.iter().map(|(attribute, _)| *attribute)).collect();
        let mut table = Table::open(path, &columns)?;
        let mut leaves = Leaves { families: families.len(), ..Leaves::default() };
        let mut numbers: HashMap<Slice, u32> = HashMap::new();
        // Values come again and again: each is kept once.
        let mut values: HashMap<String, std::sync::Arc<str>> = HashMap::new();
        while table.next()? {
            let mut all = Vec::with_capacity(known.len());
            for (column, (_, dimension)) in known.iter().enumerate() {
                let text = table.text(column + 1)?;
                let value = values.entry(text.to_owned()).or_insert_with(|| text.into());
                all.push((*dimension, std::sync::Arc::clone(value)));
            }
            let number = table.whole(0)?;
            let place = usize::try_from(number).unwrap_or(usize::MAX);
            if leaves.at.len() <= place {
                if place > MOST_LEAVES {
                    return Err(table.refuse(0, "a number below 100 million"));
                }
                leaves.at.resize(place + 1, None);
                leaves.within.resize((place + 1) * families.len(), 0);
            }
            for (family, dimensions) in families.iter().enumerate() {
                let slice = Slice::new(all.iter().filter(|(dimension, _)| dimensions.contains(dimension)).cloned());
                let next = u32::try_from(leaves.slices.len()).unwrap_or(u32::MAX);
                let number = *numbers.entry(slice.clone()).or_insert(next);
                if number == next {
                    leaves.slices.push(slice);
                }
                if let Some(within) = leaves.within.get_mut(place * families.len() + family) {
                    *within = number;
                }
            }
            if let Some(at) = leaves.at.get_mut(place) {
                *at = Some(Slice::new(all));
            }
        }
        Ok(leaves)
    }

    /// All values of a leaf; nothing where there is no such leaf.
    pub(crate) fn at(&self, leaf: u32) -> Option<&Slice> {
        self.at.get(usize::try_from(leaf).ok()?)?.as_ref()
    }

    /// The slices that a leaf is in, by their numbers.
    pub(crate) fn within(&self, leaf: u32) -> &[u32] {
        let place = usize::try_from(leaf).unwrap_or(usize::MAX).saturating_mul(self.families);
        self.within.get(place..place.saturating_add(self.families)).unwrap_or_default()
    }

    /// The slices that are counted, by their numbers.
    pub(crate) fn slices(&self) -> &[Slice] {
        &self.slices
    }

    /// How many numbers of leaves there are.
    pub(crate) fn len(&self) -> usize {
        self.at.len()
    }
}

/// A number beyond this is no leaf, but a mistake that would take all memory.
const MOST_LEAVES: usize = 100_000_000;
