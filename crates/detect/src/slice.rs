//! Parts of the fleet.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// What attempts are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the contract documents them")]
pub enum Dimension {
    Acquirer,
    Carrier,
    EntryMode,
    Firmware,
    Host,
    Issuer,
    MerchantGroup,
    Model,
    Region,
}

impl Dimension {
    /// All of them, in order.
    pub const ALL: [Dimension; 9] = [
        Dimension::Acquirer,
        Dimension::Carrier,
        Dimension::EntryMode,
        Dimension::Firmware,
        Dimension::Host,
        Dimension::Issuer,
        Dimension::MerchantGroup,
        Dimension::Model,
        Dimension::Region,
    ];

    /// Its name, everywhere: `issuer`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Dimension::Acquirer => "acquirer",
            Dimension::Carrier => "carrier",
            Dimension::EntryMode => "entry_mode",
            Dimension::Firmware => "firmware",
            Dimension::Host => "host",
            Dimension::Issuer => "issuer",
            Dimension::MerchantGroup => "merchant_group",
            Dimension::Model => "model",
            Dimension::Region => "region",
        }
    }

    /// The dimension of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Dimension> {
        Dimension::ALL.into_iter().find(|dimension| dimension.name() == name)
    }
}

/// The attempts that have these values, one a dimension; without any, all of them. Ordered by dimension. Clones are the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slice(Arc<[(Dimension, Arc<str>)]>);

/// Found by its values, a slice need not be made first.
impl Borrow<[(Dimension, Arc<str>)]> for Slice {
    fn borrow(&self) -> &[(Dimension, Arc<str>)] {
        &self.0
    }
}

impl Slice {
    /// All attempts.
    #[must_use]
    pub fn fleet() -> Slice {
        Slice::default()
    }

    /// Those with these values. Of several values of one dimension, the first counts.
    pub fn new<V: Into<Arc<str>>>(values: impl IntoIterator<Item = (Dimension, V)>) -> Slice {
        let mut values: Vec<_> = values.into_iter().map(|(dimension, value)| (dimension, value.into())).collect();
        values.sort_by_key(|(dimension, _)| *dimension);
        values.dedup_by_key(|(dimension, _)| *dimension);
        Slice(values.into())
    }

    /// Its values, by dimension.
    pub fn values(&self) -> impl Iterator<Item = (Dimension, &str)> {
        self.0.iter().map(|(dimension, value)| (*dimension, value.as_ref()))
    }

    /// Its value of one dimension.
    #[must_use]
    pub fn value(&self, dimension: Dimension) -> Option<&str> {
        self.values().find(|(own, _)| *own == dimension).map(|(_, value)| value)
    }

    /// Whether every attempt of `other` is one of its.
    #[must_use]
    pub fn holds(&self, other: &Slice) -> bool {
        self.values().all(|(dimension, value)| other.value(dimension) == Some(value))
    }

    /// Whether no attempt can be in both.
    pub(crate) fn is_apart_from(&self, other: &Slice) -> bool {
        self.values().any(|(dimension, value)| other.value(dimension).is_some_and(|others| others != value))
    }

    /// The smallest slice that holds both, as far as it can be said in values.
    pub(crate) fn common(&self, other: &Slice) -> Slice {
        Slice(self.0.iter().filter(|(dimension, value)| other.value(*dimension) == Some(value)).cloned().collect())
    }

    /// It, narrowed by another: its values, and of other dimensions those of the other.
    pub(crate) fn with(&self, other: &Slice) -> Slice {
        Slice::new(self.0.iter().chain(other.0.iter()).cloned())
    }

    /// The slice that is not narrowed by a dimension.
    pub(crate) fn without(&self, dimension: Dimension) -> Slice {
        Slice(self.0.iter().filter(|(own, _)| *own != dimension).cloned().collect())
    }

    /// The slice of these dimensions that it is in.
    pub(crate) fn at(&self, kind: &Kind) -> Slice {
        Slice(self.values_at(kind).collect())
    }

    /// The values of that slice.
    pub(crate) fn values_at(&self, kind: &Kind) -> impl Iterator<Item = (Dimension, Arc<str>)> {
        self.0.iter().filter(|(dimension, _)| kind.0.contains(dimension)).cloned()
    }

    /// It, with the values of its dimensions that these have in their place.
    pub(crate) fn each(&self, value: impl Fn(Dimension, &Arc<str>) -> Arc<str>) -> Slice {
        Slice(self.0.iter().map(|(dimension, own)| (*dimension, value(*dimension, own))).collect())
    }

    pub(crate) fn kind(&self) -> Kind {
        Kind(self.0.iter().map(|(dimension, _)| *dimension).collect())
    }

    /// In how many independent ways it is narrowed: a host says which acquirer, and a firmware which model.
    pub(crate) fn attributes(&self) -> u8 {
        let has = |dimension| u8::from(self.value(dimension).is_some());
        let said_by = |dimension, by| has(dimension) & has(by);
        let all = u8::try_from(self.0.len()).unwrap_or(u8::MAX);
        all - said_by(Dimension::Acquirer, Dimension::Host) - said_by(Dimension::Model, Dimension::Firmware)
    }
}

impl fmt::Display for Slice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return formatter.write_str("fleet");
        }
        for (place, (dimension, value)) in self.values().enumerate() {
            let joint = if place == 0 { "" } else { "&" };
            write!(formatter, "{joint}{}={value}", dimension.name())?;
        }
        Ok(())
    }
}

/// A text is not a slice: it is neither `fleet` nor `dimension=value` joined by `&`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is neither `fleet` nor values like issuer=icbc&region=440000")]
pub struct NoSlice;

impl FromStr for Slice {
    type Err = NoSlice;

    fn from_str(text: &str) -> Result<Slice, NoSlice> {
        if text == "fleet" {
            return Ok(Slice::fleet());
        }
        let value = |part: &str| part.split_once('=').and_then(|(name, value)| Some((Dimension::named(name)?, value.to_owned())));
        let values: Vec<(Dimension, String)> = text.split('&').map(value).collect::<Option<_>>().ok_or(NoSlice)?;
        let (slice, number) = (Slice::new(values.clone()), values.len());
        if slice.0.len() == number { Ok(slice) } else { Err(NoSlice) }
    }
}

/// The dimensions that slices of one kind have values of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Kind(Vec<Dimension>);

impl Kind {
    pub(crate) fn has(&self, dimension: Dimension) -> bool {
        self.0.contains(&dimension)
    }

    pub(crate) fn is_fleet(&self) -> bool {
        self.0.is_empty()
    }

    /// How many dimensions these are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(values: &[(Dimension, &str)]) -> Slice {
        Slice::new(values.iter().copied())
    }

    #[test]
    fn slices_hold_each_other_or_are_apart() {
        let icbc = slice(&[(Dimension::Issuer, "icbc")]);
        let chip = slice(&[(Dimension::EntryMode, "chip"), (Dimension::Issuer, "icbc")]);
        let swiped = slice(&[(Dimension::Issuer, "icbc"), (Dimension::EntryMode, "magnetic_stripe")]);
        let region = slice(&[(Dimension::Region, "440000")]);
        assert!(Slice::fleet().holds(&icbc) && icbc.holds(&chip) && icbc.holds(&icbc) && !chip.holds(&icbc));
        assert!(chip.is_apart_from(&swiped) && !icbc.is_apart_from(&region) && !icbc.is_apart_from(&chip));
        assert_eq!((chip.common(&swiped), chip.common(&region)), (icbc.clone(), Slice::fleet()));
        assert_eq!(chip.at(&icbc.kind()), icbc);
        assert_eq!((chip.to_string().as_str(), Slice::fleet().to_string().as_str()), ("entry_mode=chip&issuer=icbc", "fleet"));
        assert_eq!(("issuer=icbc&entry_mode=chip".parse(), "fleet".parse()), (Ok(chip), Ok(Slice::fleet())));
        for wrong in ["", "issuer", "weather=rain", "issuer=a&issuer=b"] {
            assert_eq!(wrong.parse::<Slice>(), Err(NoSlice), "{wrong}");
        }
    }

    #[test]
    fn what_follows_narrows_no_further() {
        let firmware = slice(&[(Dimension::Model, "PAX A920"), (Dimension::Firmware, "7.1")]);
        let carrier = slice(&[(Dimension::Carrier, "46000"), (Dimension::Region, "440000")]);
        assert_eq!((firmware.attributes(), carrier.attributes(), Slice::fleet().attributes()), (1, 2, 0));
    }

    #[test]
    fn every_dimension_has_a_name() {
        for dimension in Dimension::ALL {
            assert_eq!(Dimension::named(dimension.name()), Some(dimension));
        }
        assert_eq!(Dimension::named("weather"), None);
    }
}
