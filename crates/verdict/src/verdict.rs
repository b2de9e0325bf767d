//! From one outcome to its verdict.

use faultline_proto::outcome::v1::{Outcome, Stage, TerminalCondition, TerminalResult};

use crate::rules::{Refined, Row, RuleSet};
use crate::{Cause, Facts, Reason, Rules};

/// Whose fault it is, and why.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict<'a> {
    /// What detection counts: class and stage, from this outcome alone, and whatever its facts are.
    pub tag: &'a str,
    /// The reason, with cause and advice.
    pub reason: &'a Reason,
    /// How likely the cause is, in percent: of a hundred outcomes with such a verdict, over the mix of faults that a fleet has in a month, so many have it.
    pub confidence: u8,
    /// What the outcome shows beside that; [`Rules::in_words`] says it in words.
    pub facts: Facts,
    /// Version and checksum of the set that judged: `unionpay-pos/2026-11-29+3f2a91c04b77`.
    pub rule_set: &'a str,
}

impl Rules {
    /// The verdict on an outcome, by the rules that held when it completed by its terminal's clock; without that, by those that hold last.
    #[must_use]
    pub fn verdict(&self, outcome: &Outcome) -> Verdict<'_> {
        self.verdict_at(outcome, completed_ms(outcome))
    }

    /// The verdict on an outcome of a moment, in milliseconds since 1970-01-01 UTC: for those who know better than the terminal when it was.
    #[must_use]
    pub fn verdict_at(&self, outcome: &Outcome, at: i64) -> Verdict<'_> {
        let (set, knows_spec) = self.judge(outcome, at);
        Evidence { rules: self, set, knows_spec, outcome, at }.verdict(&mut ())
    }
}

/// When an outcome completed by its terminal's clock; the end of time where it does not say.
pub(crate) fn completed_ms(outcome: &Outcome) -> i64 {
    let ms = |time: &prost_types::Timestamp| time.seconds.saturating_mul(1000).saturating_add(i64::from(time.nanos) / 1_000_000);
    outcome.completion_time.as_ref().map_or(i64::MAX, ms)
}

/// Whoever is told how a verdict comes about.
pub(crate) trait Told {
    /// What was looked at, and why it did not decide.
    fn passed(&mut self, looked_at: &'static str, because: impl FnOnce() -> String);
    /// What decided, why, and by which row.
    fn decided(&mut self, looked_at: &'static str, row: Option<&Row>, because: impl FnOnce() -> String);
}

/// Nobody.
impl Told for () {
    fn passed(&mut self, _: &'static str, _: impl FnOnce() -> String) {}
    fn decided(&mut self, _: &'static str, _: Option<&Row>, _: impl FnOnce() -> String) {}
}

/// What an outcome says, and the set that reads it.
#[derive(Clone, Copy)]
pub(crate) struct Evidence<'a, 'o> {
    pub(crate) rules: &'a Rules,
    pub(crate) set: &'a RuleSet,
    /// Whether codes of the outcome's specification are those of the set.
    pub(crate) knows_spec: bool,
    pub(crate) outcome: &'o Outcome,
    pub(crate) at: i64,
}

impl<'a> Evidence<'a, '_> {
    /// The verdict: the reason that is found, and what the facts make of it.
    pub(crate) fn verdict(self, told: &mut impl Told) -> Verdict<'a> {
        let found = self.weigh(told);
        let facts = Facts::of(self.outcome);
        let tag = self.rules.reason_at(found).tag(self.outcome.stage);
        let refined = self.refine((found, facts), told);
        let reason = self.rules.reason_at(refined.map_or(found, |refined| refined.row.reason));
        let confidence = refined.and_then(|refined| refined.confidence).unwrap_or(reason.confidence);
        Verdict { tag, reason, confidence, facts, rule_set: self.set.version() }
    }

    /// What the facts make of a reason.
    fn refine(self, (found, facts): (usize, Facts), told: &mut impl Told) -> Option<&'a Refined> {
        const LOOKED_AT: &str = "facts";
        if facts.is_empty() {
            return None;
        }
        let Some(refined) = self.set.refined(found, facts, self.at) else {
            told.passed(LOOKED_AT, || format!("{facts}: no row of evidence of `{}` holds", self.rules.reason_at(found).id));
            return None;
        };
        told.decided(LOOKED_AT, Some(&refined.row), || {
            let without = if refined.none_of.is_empty() { String::new() } else { format!(", without {}", refined.none_of) };
            format!("{} of {facts}{without}", refined.all_of)
        });
        Some(refined)
    }

    /// The place of the reason.
    fn weigh(self, told: &mut impl Told) -> usize {
        self.unbelievable(told)
            .or_else(|| self.answered(told))
            .or_else(|| self.met(told))
            .or_else(|| self.said(told))
            .or_else(|| self.by_stage(told))
            .unwrap_or_else(|| {
                told.decided("no evidence", None, || "nothing of it says anything".into());
                self.set.named().no_evidence
            })
    }

    /// An answer whose authentication code is wrong, or that is garbled, says nothing: whatever code it has is not the host's word.
    fn unbelievable(self, told: &mut impl Told) -> Option<usize> {
        let row = match self.outcome.terminal_condition() {
            TerminalCondition::MacMismatch | TerminalCondition::ResponseInvalid => {
                self.set.condition(self.outcome.terminal_condition, self.at)
            }
            _ => None,
        };
        let Some(row) = row else {
            told.passed("answer that cannot be believed", || "the terminal did not say that it could not trust the answer".into());
            return None;
        };
        told.decided("answer that cannot be believed", Some(row), || "whatever code it has is not the host's word".into());
        Some(row.reason)
    }

    /// What the host said.
    fn answered(self, told: &mut impl Told) -> Option<usize> {
        const LOOKED_AT: &str = "response code";
        let outcome = self.outcome;
        if outcome.response_code.is_empty() {
            told.passed(LOOKED_AT, || "there is none".into());
            return None;
        }
        let result = outcome.result();
        let named = self.set.named();
        let row = if self.knows_spec { self.set.code(&outcome.response_code, self.at) } else { None };
        let Some(row) = row else {
            let unknown = || match self.knows_spec {
                true => format!("`{}` is not in the table", outcome.response_code),
                false => format!("`{}` is of specification `{}`, which no set knows", outcome.response_code, outcome.response_spec),
            };
            if result == TerminalResult::Approved {
                told.decided(LOOKED_AT, None, || format!("{}, and the shop was told that it was approved", unknown()));
                return Some(named.unknown_approved);
            }
            told.decided(LOOKED_AT, None, unknown);
            return Some(named.unknown_code);
        };
        // A receipt that was not printed undoes nothing.
        let unprinted = matches!(outcome.terminal_condition(), TerminalCondition::Printer | TerminalCondition::PaperOut);
        let undone = matches!(result, TerminalResult::Declined | TerminalResult::Failed | TerminalResult::Cancelled);
        if self.rules.reason_at(row.reason).cause == Cause::Approved && undone && !unprinted {
            told.decided(LOOKED_AT, Some(row), || "it approves, and the shop was told otherwise".into());
            return Some(named.approved_not_completed);
        }
        told.decided(LOOKED_AT, Some(row), || format!("`{}` is in the table", outcome.response_code));
        Some(row.reason)
    }

    /// What the terminal met.
    fn met(self, told: &mut impl Told) -> Option<usize> {
        const LOOKED_AT: &str = "terminal condition";
        let condition = || crate::rules::condition_name(self.outcome.terminal_condition);
        let Some(row) = self.set.condition(self.outcome.terminal_condition, self.at) else {
            told.passed(LOOKED_AT, || format!("`{}` has no row", condition()));
            return None;
        };
        told.decided(LOOKED_AT, Some(row), || format!("`{}` is in the table", condition()));
        Some(row.reason)
    }

    /// What the terminal told the shop, where nobody else said anything.
    fn said(self, told: &mut impl Told) -> Option<usize> {
        const LOOKED_AT: &str = "what the shop was told";
        let named = self.set.named();
        let (reason, because) = match (self.outcome.result(), self.outcome.stage()) {
            (TerminalResult::Approved, _) => (named.unknown_approved, "that it was approved"),
            (TerminalResult::Cancelled, _) => (named.cancelled, "that it was cancelled"),
            (TerminalResult::Declined, Stage::HostDecision | Stage::OfflineDecision | Stage::Unspecified) => {
                (named.declined_by_terminal, "that it was declined, and it came as far as a decision")
            }
            _ => {
                told.passed(LOOKED_AT, || "it was told nothing that decides".into());
                return None;
            }
        };
        told.decided(LOOKED_AT, None, || because.into());
        Some(reason)
    }

    /// How far it came.
    fn by_stage(self, told: &mut impl Told) -> Option<usize> {
        const LOOKED_AT: &str = "stage";
        let stage = || crate::rules::stage_name(self.outcome.stage);
        let Some(row) = self.set.stage(self.outcome.stage, self.at) else {
            told.passed(LOOKED_AT, || format!("`{}` has no row", stage()));
            return None;
        };
        told.decided(LOOKED_AT, Some(row), || format!("it ended at `{}`", stage()));
        Some(row.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(stage: Stage, code: &str) -> Outcome {
        Outcome { stage: stage.into(), response_code: code.into(), response_spec: "unionpay-pos".into(), ..Outcome::default() }
    }

    #[track_caller]
    fn judged(outcome: &Outcome, tag: &str, cause: Cause) {
        let rules = Rules::built_in().unwrap();
        let verdict = rules.verdict(outcome);
        assert_eq!((verdict.tag, verdict.reason.cause), (tag, cause), "{}", verdict.reason.id);
    }

    #[test]
    fn a_response_code_decides() {
        let decided = |code| outcome(Stage::HostDecision, code);
        for (code, class, cause) in [
            ("00", "approved", Cause::Approved),
            ("51", "funds", Cause::Account),
            ("55", "cardholder", Cause::Account),
            ("05", "issuer_refusal", Cause::Account),
            ("91", "issuer_down", Cause::Bank),
            ("96", "issuer_down", Cause::Bank),
            ("98", "issuer_timeout", Cause::Bank),
            ("A0", "security", Cause::Device),
            ("03", "acquirer", Cause::Other),
            ("Y1", "approved", Cause::Approved),
        ] {
            judged(&decided(code), &format!("{class}/host_decision"), cause);
        }
        // Without a spec it is read all the same; in another's, the same code means something else.
        judged(&Outcome { response_spec: String::new(), ..decided("51") }, "funds/host_decision", Cause::Account);
        judged(&Outcome { response_spec: "alipay".into(), ..decided("51") }, "unknown/host_decision", Cause::Unknown);
    }

    #[test]
    fn a_code_that_nobody_knows_is_read_by_what_the_shop_was_told() {
        let unknown = outcome(Stage::HostDecision, "ZZ");
        judged(&unknown, "unknown/host_decision", Cause::Unknown);
        let approved = Outcome { result: TerminalResult::Approved.into(), ..unknown };
        judged(&approved, "approved/host_decision", Cause::Approved);
    }

    #[test]
    fn an_approval_stands_without_a_receipt_and_not_without_the_sale() {
        let printing = Outcome { terminal_condition: TerminalCondition::PaperOut.into(), ..outcome(Stage::Print, "00") };
        judged(&Outcome { result: TerminalResult::Failed.into(), ..printing }, "approved/print", Cause::Approved);
        let undone = Outcome { result: TerminalResult::Declined.into(), ..outcome(Stage::HostDecision, "00") };
        judged(&undone, "unknown/host_decision", Cause::Unknown);
    }

    #[test]
    fn an_answer_with_a_wrong_authentication_code_is_not_believed() {
        let forged = Outcome { terminal_condition: TerminalCondition::MacMismatch.into(), ..outcome(Stage::HostDecision, "00") };
        judged(&forged, "security/host_decision", Cause::Device);
    }

    #[test]
    fn without_an_answer_the_terminals_own_evidence_decides() {
        let met = |stage, condition: TerminalCondition| Outcome { terminal_condition: condition.into(), ..outcome(stage, "") };
        judged(&met(Stage::CardRead, TerminalCondition::ChipRead), "device_read/card_read", Cause::Device);
        judged(&met(Stage::Connect, TerminalCondition::ConnectTimeout), "host_unreachable/connect", Cause::Network);
        judged(&met(Stage::Dns, TerminalCondition::NoNetwork), "local_network/dns", Cause::Network);
        judged(&met(Stage::PinEntry, TerminalCondition::CancelledByCustomer), "operator/pin_entry", Cause::Other);
        judged(&outcome(Stage::Wait, ""), "no_answer/wait", Cause::Network);
        judged(&outcome(Stage::Dns, ""), "local_network/dns", Cause::Network);
        let cancelled = Outcome { result: TerminalResult::Cancelled.into(), ..outcome(Stage::PinEntry, "") };
        judged(&cancelled, "operator/pin_entry", Cause::Other);
        judged(&Outcome::default(), "unknown/none", Cause::Unknown);
        let newer = Outcome { stage: 77, ..Outcome::default() };
        judged(&newer, "unknown/newer", Cause::Unknown);
    }

    /// What the shop does is the heart of a verdict: there is something to do for every reason, and nobody is sent to charge twice.
    #[test]
    fn a_missing_answer_is_asked_after_before_anything_is_charged_again() {
        let rules = Rules::built_in().unwrap();
        let reasons = || rules.sets().flat_map(|set| rules.reasons(set));
        for reason in reasons().filter(|reason| ["no_answer", "issuer_timeout"].contains(&reason.class.as_str())) {
            assert_eq!(reason.retry, crate::Retry::QueryFirst, "{}", reason.id);
        }
        for reason in reasons() {
            for text in [&reason.meaning, &reason.cashier, &reason.service_desk] {
                assert!(text.en.is_ascii() && !text.zh_cn.is_ascii() && text.en.len() <= 400 && text.zh_cn.len() <= 600, "{text:?}");
            }
            assert_eq!(reason.cause == Cause::Approved, reason.class == "approved", "{}", reason.id);
        }
    }
}
