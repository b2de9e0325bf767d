//! What was announced: a bank that is maintained fails, and nobody need be called.

use crate::series::TICK_S;
use crate::slice::Slice;

/// What was tried before its end may be told so much later, in seconds: outcomes of those who try again.
const GRACE_S: u32 = 120;

/// Maintenance of a slice. Whatever fails there, or is missing, is its doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// What is maintained.
    pub slice: Slice,
    /// From this second on, since 1970-01-01 UTC.
    pub from: u32,
    /// Until before this one.
    pub until: u32,
}

impl Announced {
    /// Whether it explains what is at this place in a tick.
    pub(crate) fn explains(&self, at: &Slice, tick: u32) -> bool {
        self.is_during(tick, tick) && self.slice.holds(at)
    }

    /// Whether it goes on in some of these ticks.
    pub(crate) fn is_during(&self, first: u32, last: u32) -> bool {
        let (first, end) = (first.saturating_mul(TICK_S), last.saturating_add(1).saturating_mul(TICK_S));
        end > self.from && first < self.until.saturating_add(GRACE_S)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slice::Dimension;

    #[test]
    fn it_explains_what_is_inside_while_it_lasts_and_a_little_longer() {
        let bank = Slice::new([(Dimension::Issuer, "a")]);
        let announced = Announced { slice: bank.clone(), from: 1000, until: 2000 };
        let chip = Slice::new([(Dimension::Issuer, "a"), (Dimension::EntryMode, "chip")]);
        assert!(announced.explains(&chip, 100) && announced.explains(&bank, 211) && announced.is_during(90, 100));
        assert!(!announced.explains(&chip, 99) && !announced.explains(&chip, 212) && !announced.explains(&Slice::fleet(), 150));
    }
}
