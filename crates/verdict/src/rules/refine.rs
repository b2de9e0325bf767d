//! What a reason becomes where an outcome shows more than what decided: another reason, another confidence, or both. The tag stays that of the reason that
//! was found without it, so that what detection counts does not depend on what a terminal happens to measure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::format::{FileEvidence, Force};
use super::{Row, RulesError, evidence_named};
use crate::{Cause, Facts, Reason, Retry};

/// A row of evidence.
#[derive(Clone, Debug)]
pub(crate) struct Refined {
    /// What the reason becomes, and where that is written.
    pub(crate) row: Row,
    pub(crate) all_of: Facts,
    pub(crate) none_of: Facts,
    /// In percent. None: that of the reason that it becomes.
    pub(crate) confidence: Option<u8>,
}

/// By place of a reason, its rows of evidence: the first that holds decides.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refinements(BTreeMap<usize, Vec<Refined>>);

impl Refined {
    pub(crate) fn holds(&self, facts: Facts) -> bool {
        facts.has_all(self.all_of) && !facts.has_any(self.none_of)
    }

    /// Whether it holds whenever the other does.
    pub(crate) fn covers(&self, other: &Refined) -> bool {
        other.all_of.has_all(self.all_of) && other.none_of.has_all(self.none_of) && self.row.force.covers(other.row.force)
    }

    fn is_about(&self, other: &Refined) -> bool {
        (self.all_of, self.none_of) == (other.all_of, other.none_of)
    }
}

impl Refinements {
    pub(crate) fn of(&self, reason: usize) -> &[Refined] {
        self.0.get(&reason).map_or(&[], Vec::as_slice)
    }

    /// Each row, with the place of the reason that it is of.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &Refined)> {
        self.0.iter().flat_map(|(of, rows)| rows.iter().map(|refined| (*of, refined)))
    }

    /// Adds a row of a file, where each reason is found by `place_of`.
    pub(super) fn add(
        &mut self,
        written: &FileEvidence,
        place_of: impl Fn(&str, &str) -> Result<usize, RulesError>,
    ) -> Result<(), RulesError> {
        for of in &written.of {
            let what = evidence_named(of, written.all_of, written.none_of);
            let from = place_of(&what, of)?;
            let reason = written.reason.as_ref().map_or(Ok(from), |id| place_of(&what, id))?;
            let (place, source) = (written.place.clone(), Arc::clone(&written.source));
            let row = Row { reason, force: written.force, place, source, inherited: false };
            let refined = Refined { row, all_of: written.all_of, none_of: written.none_of, confidence: written.confidence };
            let rows = self.0.entry(from).or_default();
            let is_same_time = |one: Force, other: Force| one.overlaps(other) && (one == Force::ALWAYS) == (other == Force::ALWAYS);
            if rows.iter().any(|row| row.is_about(&refined) && is_same_time(row.row.force, written.force)) {
                return Err(RulesError { place: written.place.clone(), reason: format!("{what} is there twice for the same time") });
            }
            // A row for a time of its own stands before one that always holds.
            let before = rows.iter().position(|row| row.is_about(&refined) && row.row.force == Force::ALWAYS);
            rows.insert(before.unwrap_or(rows.len()), refined);
        }
        Ok(())
    }

    /// Adds what a base has behind what there is. `own` is this set's reason for one of the base.
    pub(super) fn inherit(&mut self, base: &Refinements, own: impl Fn(usize) -> usize) {
        for (of, rows) in &base.0 {
            let inherited = |refined: &Refined| {
                let row = Row { reason: own(refined.row.reason), inherited: true, ..refined.row.clone() };
                Refined { row, ..refined.clone() }
            };
            self.0.entry(own(*of)).or_default().extend(rows.iter().map(inherited));
        }
    }

    /// Refuses what would charge twice, or make a failure of an approval.
    pub(super) fn check(&self, reasons: &[Reason]) -> Result<(), RulesError> {
        for (of, refined) in self.iter() {
            let (Some(from), Some(to)) = (reasons.get(of), reasons.get(refined.row.reason)) else { continue };
            let what = evidence_named(&from.id, refined.all_of, refined.none_of);
            let wrong = |reason: String| {
                // What is wrong with an inherited row, this set's reason made so.
                let place = if refined.row.inherited { to.place.clone() } else { refined.row.place.clone() };
                Err(RulesError { place, reason })
            };
            if from.retry == Retry::QueryFirst && to.retry != Retry::QueryFirst {
                return wrong(format!("{what} gives `{}`, whose retry is `{}` and not query_first: money may have moved", to.id, to.retry));
            }
            if (from.cause == Cause::Approved) != (to.cause == Cause::Approved) {
                return wrong(format!("{what} gives `{}`: whether it was approved is not up to evidence", to.id));
            }
        }
        Ok(())
    }
}
