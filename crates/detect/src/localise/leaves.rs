//! What is localised: leaves over attributes, with what was counted of them and what was expected.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Most attributes that leaves may have: parts of them are kept as bits.
const MOST_ATTRIBUTES: usize = 32;

/// An attribute, and the values of it that were seen.
#[derive(Clone, Debug)]
pub struct Attribute {
    name: Arc<str>,
    values: Vec<Arc<str>>,
    ids: HashMap<Arc<str>, u32>,
}

impl Attribute {
    /// Its name: `issuer`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its values, by id.
    #[must_use]
    pub fn values(&self) -> &[Arc<str>] {
        &self.values
    }
}

/// A leaf of a measure that adds up: an amount, or a number of transactions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Amount {
    /// What it was.
    pub real: f64,
    /// What it would have been.
    pub expected: f64,
}

/// A leaf of a failure rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trials {
    /// Attempts that failed.
    pub failures: f64,
    /// Attempts.
    pub attempts: f64,
    /// Attempts that would have failed: any mean, whole or not.
    pub expected_failures: f64,
    /// The attempts that these are of. Only the ratio to the failures counts, and how much is known by it.
    pub expected_attempts: f64,
}

impl Trials {
    /// How many of its attempts would have failed.
    pub(crate) fn usual_failures(&self) -> f64 {
        if self.expected_attempts > 0.0 { self.attempts * self.expected_failures / self.expected_attempts } else { 0.0 }
    }
}

/// What was counted of each leaf.
#[derive(Clone, Debug)]
pub(crate) enum Measure {
    Additive(Vec<Amount>),
    Rate(Vec<Trials>),
}

/// Why a leaf cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeafError {
    /// It has more or fewer values than there are attributes.
    Values {
        /// How many there are to be.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// A number is not finite, or negative where it is a count.
    Number,
    /// A value's id is not known.
    Id {
        /// The attribute's place.
        attribute: usize,
        /// The id.
        id: u32,
    },
    /// It is of the other measure.
    Measure,
    /// There are more than 32 attributes.
    Attributes,
}

impl fmt::Display for LeafError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LeafError::Values { expected, found } => write!(formatter, "a leaf has {found} values, and there are {expected} attributes"),
            LeafError::Number => formatter.write_str("a leaf's number is not finite, or a count is negative"),
            LeafError::Id { attribute, id } => write!(formatter, "attribute {attribute} has no value with the id {id}"),
            LeafError::Measure => {
                formatter.write_str("a leaf has an amount where the others have rates, or a rate where they have amounts")
            }
            LeafError::Attributes => write!(formatter, "there are more than {MOST_ATTRIBUTES} attributes"),
        }
    }
}

impl std::error::Error for LeafError {}

/// Leaves: a row each, with a value of every attribute. All are of one measure.
#[derive(Clone, Debug)]
pub struct Leaves {
    attributes: Vec<Attribute>,
    /// By attribute, then by leaf.
    columns: Vec<Vec<u32>>,
    measure: Measure,
}

impl Leaves {
    /// Leaves of a measure that adds up, none yet.
    ///
    /// # Errors
    /// There are more than 32 attributes.
    pub fn additive<'a>(attributes: impl IntoIterator<Item = &'a str>) -> Result<Leaves, LeafError> {
        Leaves::new(attributes, Measure::Additive(Vec::new()))
    }

    /// Leaves of a failure rate, none yet.
    ///
    /// # Errors
    /// There are more than 32 attributes.
    pub fn rate<'a>(attributes: impl IntoIterator<Item = &'a str>) -> Result<Leaves, LeafError> {
        Leaves::new(attributes, Measure::Rate(Vec::new()))
    }

    fn new<'a>(attributes: impl IntoIterator<Item = &'a str>, measure: Measure) -> Result<Leaves, LeafError> {
        let attributes: Vec<Attribute> =
            attributes.into_iter().map(|name| Attribute { name: name.into(), values: Vec::new(), ids: HashMap::new() }).collect();
        if attributes.len() > MOST_ATTRIBUTES {
            return Err(LeafError::Attributes);
        }
        let columns = vec![Vec::new(); attributes.len()];
        Ok(Leaves { attributes, columns, measure })
    }

    /// The id of a value of the attribute at this place, a new one where the value is new; nothing where there is no such attribute.
    pub fn id(&mut self, attribute: usize, value: &str) -> Option<u32> {
        let Attribute { values, ids, .. } = self.attributes.get_mut(attribute)?;
        if let Some(id) = ids.get(value) {
            return Some(*id);
        }
        let id = u32::try_from(values.len()).ok()?;
        let value: Arc<str> = value.into();
        values.push(Arc::clone(&value));
        ids.insert(value, id);
        Some(id)
    }

    /// Adds a leaf of a measure that adds up. `ids` are of the attributes in their order.
    ///
    /// # Errors
    /// The leaf does not fit the attributes, or has numbers that are none.
    pub fn push_amount(&mut self, ids: &[u32], amount: Amount) -> Result<(), LeafError> {
        let Measure::Additive(amounts) = &mut self.measure else { return Err(LeafError::Measure) };
        if ![amount.real, amount.expected].iter().all(|number| number.is_finite()) {
            return Err(LeafError::Number);
        }
        check(&self.attributes, ids)?;
        amounts.push(amount);
        self.columns.iter_mut().zip(ids).for_each(|(column, id)| column.push(*id));
        Ok(())
    }

    /// Adds a leaf of a failure rate. `ids` are of the attributes in their order.
    ///
    /// # Errors
    /// The leaf does not fit the attributes, or has numbers that are none.
    pub fn push_trials(&mut self, ids: &[u32], leaf: Trials) -> Result<(), LeafError> {
        let Measure::Rate(leaves) = &mut self.measure else { return Err(LeafError::Measure) };
        let Trials { failures, attempts, expected_failures, expected_attempts } = leaf;
        if ![failures, attempts, expected_failures, expected_attempts].iter().all(|number| number.is_finite() && *number >= 0.0) {
            return Err(LeafError::Number);
        }
        check(&self.attributes, ids)?;
        leaves.push(leaf);
        self.columns.iter_mut().zip(ids).for_each(|(column, id)| column.push(*id));
        Ok(())
    }

    /// The attributes, in the order in which leaves have their values.
    #[must_use]
    pub fn attributes(&self) -> &[Attribute] {
        &self.attributes
    }

    /// How many leaves there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.measure {
            Measure::Additive(amounts) => amounts.len(),
            Measure::Rate(leaves) => leaves.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn measure(&self) -> &Measure {
        &self.measure
    }

    /// The values' ids of one attribute, by leaf.
    pub(crate) fn column(&self, attribute: usize) -> &[u32] {
        self.columns.get(attribute).map_or(&[], Vec::as_slice)
    }

    /// The attributes' places, by name: what does not depend on the order in which they were given.
    pub(crate) fn by_name(&self) -> Vec<usize> {
        let mut places: Vec<usize> = (0..self.attributes.len()).collect();
        places.sort_by_key(|place| self.attributes.get(*place).map(|attribute| Arc::clone(&attribute.name)));
        places
    }
}

fn check(attributes: &[Attribute], ids: &[u32]) -> Result<(), LeafError> {
    if ids.len() != attributes.len() {
        return Err(LeafError::Values { expected: attributes.len(), found: ids.len() });
    }
    for (place, (attribute, id)) in attributes.iter().zip(ids).enumerate() {
        if usize::try_from(*id).is_ok_and(|id| id >= attribute.values.len()) {
            return Err(LeafError::Id { attribute: place, id: *id });
        }
    }
    Ok(())
}

/// The leaves that have these values, one an attribute: a place of the attribute in [`Leaves::attributes`], and the id of the value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Element(pub Vec<(usize, u32)>);

impl Element {
    /// As it is written: `attribute=value&attribute=value`.
    #[must_use]
    pub fn label(&self, leaves: &Leaves) -> String {
        let mut label = String::new();
        for (attribute, value) in self.values(leaves) {
            let joint = if label.is_empty() { "" } else { "&" };
            label.push_str(&format!("{joint}{attribute}={value}"));
        }
        label
    }

    /// Its attributes with their values, as they are called.
    fn values<'a>(&'a self, leaves: &'a Leaves) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.iter().filter_map(|(place, id)| {
            let attribute = leaves.attributes.get(*place)?;
            let value = usize::try_from(*id).ok().and_then(|id| attribute.values.get(id));
            Some((attribute.name.as_ref(), value.map_or("", AsRef::as_ref)))
        })
    }

    /// Which of two comes first, by what their attributes and values are called.
    pub(crate) fn order(&self, other: &Element, leaves: &Leaves) -> Ordering {
        self.values(leaves).cmp(other.values(leaves))
    }

    /// Whether no leaf can be in both.
    pub(crate) fn is_apart_from(&self, other: &Element) -> bool {
        self.0.iter().any(|(place, id)| other.0.iter().any(|(others, other)| place == others && id != other))
    }
}
