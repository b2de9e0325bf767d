//! How a verdict came about: which set judged and why no other, and what was looked at until something decided.

use faultline_proto::outcome::v1::Outcome;

use crate::rules::{Row, RuleSet};
use crate::verdict::{Evidence, Told, completed_ms};
use crate::{Place, Rules, Verdict};

/// The way to one verdict.
#[derive(Clone, Debug)]
pub struct Explanation<'a> {
    /// The verdict.
    pub verdict: Verdict<'a>,
    /// Every set, and why it judged or did not; the one that did is first.
    pub sets: Vec<Considered<'a>>,
    /// What was looked at, in order. The last that decided gave the reason; where the facts did, the one before them gave the tag.
    pub steps: Vec<Step>,
}

/// A set, and why it judged or did not.
#[derive(Clone, Debug)]
pub struct Considered<'a> {
    /// The set.
    pub set: &'a RuleSet,
    /// Whether it judged.
    pub judged: bool,
    /// Why.
    pub because: String,
}

/// What was looked at.
#[derive(Clone, Debug)]
pub struct Step {
    /// The kind of evidence: `response code`.
    pub looked_at: &'static str,
    /// Whether it decided.
    pub decided: bool,
    /// Why, or why not.
    pub because: String,
    /// Where the row that decided is written, where it is known from, and whether it is inherited.
    pub row: Option<(Place, String, bool)>,
}

impl Rules {
    /// How the verdict on an outcome of a moment comes about, in milliseconds since 1970-01-01 UTC; without one, as [`Rules::verdict`] dates it.
    #[must_use]
    pub fn explain(&self, outcome: &Outcome, at: Option<i64>) -> Explanation<'_> {
        let at = at.unwrap_or_else(|| completed_ms(outcome));
        let (set, knows_spec) = self.judge(outcome, at);
        let mut steps = Steps(Vec::new());
        let verdict = Evidence { rules: self, set, knows_spec, outcome, at }.verdict(&mut steps);
        let mut sets: Vec<Considered<'_>> = self
            .sets()
            .map(|other| {
                let judged = other.version() == set.version();
                let because = if judged { why(set, outcome, knows_spec) } else { why_not(other, outcome, at) };
                Considered { set: other, judged, because }
            })
            .collect();
        sets.sort_by_key(|considered| !considered.judged);
        Explanation { verdict, sets, steps: steps.0 }
    }
}

struct Steps(Vec<Step>);

impl Told for Steps {
    fn passed(&mut self, looked_at: &'static str, because: impl FnOnce() -> String) {
        self.0.push(Step { looked_at, decided: false, because: because(), row: None });
    }

    fn decided(&mut self, looked_at: &'static str, row: Option<&Row>, because: impl FnOnce() -> String) {
        let row = row.map(|row| (row.place.clone(), row.source.to_string(), row.inherited));
        self.0.push(Step { looked_at, decided: true, because: because(), row });
    }
}

fn why(set: &RuleSet, outcome: &Outcome, knows_spec: bool) -> String {
    let mut because = Vec::new();
    if let Some(acquirer) = &set.acquirer {
        because.push(format!("is for acquirer `{acquirer}`"));
    }
    match set.network() {
        Some(network) if set.is_of(outcome.network) => because.push(format!("is for network `{network}`")),
        _ if outcome.network == 0 && set.home => because.push("is the home set, and no network was stated".into()),
        _ => {}
    }
    match (outcome.response_spec.as_str(), knows_spec) {
        ("", _) => because.push("no specification was stated".into()),
        (spec, true) => because.push(format!("knows specification `{spec}`")),
        (spec, false) => because.push(format!("no set that may judge knows specification `{spec}`, so its codes are not read")),
    }
    because.join("; ")
}

fn why_not(set: &RuleSet, outcome: &Outcome, at: i64) -> String {
    let spec = &outcome.response_spec;
    if let Some(acquirer) = set.acquirer.as_ref().filter(|acquirer| **acquirer != outcome.acquirer_id) {
        return format!("is for acquirer `{acquirer}`");
    }
    if !set.force.holds(at) {
        return "does not hold at that time".into();
    }
    let knows = |specs: &[String]| specs.iter().any(|known| known == spec);
    if !spec.is_empty() && !knows(&set.specs) && !knows(&set.inherited_specs) {
        return format!("does not know specification `{spec}`");
    }
    match set.network() {
        Some(network) if !set.is_of(outcome.network) && !knows(&set.specs) => format!("is for network `{network}`"),
        _ => "is less specific".into(),
    }
}

#[cfg(test)]
mod tests {
    use faultline_proto::outcome::v1::{CardNetwork, Stage, TerminalCondition, TerminalResult};

    use super::*;

    /// Sets and steps, each with a sign where it decided.
    fn told(outcome: &Outcome) -> (Vec<String>, Vec<String>) {
        let rules = Rules::built_in().unwrap();
        let explanation = rules.explain(outcome, None);
        assert_eq!(explanation.verdict, rules.verdict(outcome));
        let sign = |decided| if decided { ">" } else { "" };
        let sets = explanation.sets.iter().map(|other| format!("{}{} {}", sign(other.judged), other.set.name(), other.because));
        let steps = explanation.steps.iter().map(|step| format!("{}{}: {}", sign(step.decided), step.looked_at, step.because));
        (sets.collect(), steps.collect())
    }

    #[test]
    fn the_way_to_a_verdict_is_told() {
        let outcome = Outcome {
            response_spec: "iso8583".into(),
            network: CardNetwork::Visa.into(),
            stage: Stage::HostDecision.into(),
            response_code: "N7".into(),
            ..Outcome::default()
        };
        let (sets, steps) = told(&outcome);
        assert_eq!(
            sets,
            [
                ">visa is for network `visa`; knows specification `iso8583`",
                "iso8583 is less specific",
                "unionpay-pos is for network `unionpay`",
                "mastercard is for network `mastercard`"
            ]
        );
        assert_eq!(
            steps,
            [
                "answer that cannot be believed: the terminal did not say that it could not trust the answer",
                ">response code: `N7` is in the table"
            ]
        );
        let (sets, steps) = told(&Outcome { response_spec: "alipay".into(), ..outcome });
        assert_eq!(sets[0], ">visa is for network `visa`; no set that may judge knows specification `alipay`, so its codes are not read");
        assert_eq!(steps[1], ">response code: `N7` is of specification `alipay`, which no set knows");
    }

    #[test]
    fn every_kind_of_evidence_can_decide() {
        let stage = Outcome { stage: Stage::Wait.into(), ..Outcome::default() };
        let decided = |outcome: &Outcome| told(outcome).1.into_iter().rfind(|step| step.starts_with('>')).unwrap();
        assert_eq!(told(&stage).1.len(), 6);
        assert_eq!(decided(&stage), ">stage: it ended at `wait`");
        let met = Outcome { terminal_condition: TerminalCondition::PaperOut.into(), ..stage.clone() };
        assert_eq!(decided(&met), ">terminal condition: `paper_out` is in the table");
        let said = Outcome { result: TerminalResult::Cancelled.into(), ..stage.clone() };
        assert_eq!(decided(&said), ">what the shop was told: that it was cancelled");
        let unbelievable = Outcome { terminal_condition: TerminalCondition::MacMismatch.into(), response_code: "00".into(), ..stage };
        assert_eq!(decided(&unbelievable), ">answer that cannot be believed: whatever code it has is not the host's word");
        assert_eq!(decided(&Outcome::default()), ">no evidence: nothing of it says anything");
        let approved = Outcome { response_code: "00".into(), result: TerminalResult::Declined.into(), ..Outcome::default() };
        assert_eq!(decided(&approved), ">response code: it approves, and the shop was told otherwise");
        let weak = Outcome { signal_dbm: Some(-113), attempt: 2, ..Outcome { stage: Stage::Wait.into(), ..Outcome::default() } };
        let steps = told(&weak).1;
        assert_eq!(steps[4..], [">stage: it ended at `wait`", ">facts: weak_signal of weak_signal, sent_whole, repeated_attempt"]);
        let other = Outcome { response_code: "51".into(), ..weak };
        assert_eq!(
            told(&other).1.last().unwrap(),
            "facts: weak_signal, repeated_attempt: no row of evidence of `insufficient_funds` holds"
        );
    }
}
