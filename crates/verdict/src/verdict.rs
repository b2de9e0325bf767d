//! From one outcome to its verdict.

use faultline_proto::outcome::v1::{Outcome, Stage, TerminalCondition, TerminalResult};

use crate::{Cause, Reason, RuleSet};

/// Whose fault it is, and why.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict<'a> {
    /// What detection counts: class and stage, from this outcome alone.
    pub tag: &'a str,
    /// The reason, with cause, confidence and advice.
    pub reason: &'a Reason,
}

impl RuleSet {
    /// The verdict on an outcome.
    #[must_use]
    pub fn verdict(&self, outcome: &Outcome) -> Verdict<'_> {
        let found = self
            .unbelievable(outcome)
            .or_else(|| self.answered(outcome))
            .or_else(|| self.by_condition(outcome.terminal_condition))
            .or_else(|| self.told(outcome))
            .or_else(|| self.by_stage(outcome.stage))
            .unwrap_or(self.named().no_evidence);
        let reason = self.reason(found);
        Verdict { tag: reason.tag(outcome.stage), reason }
    }

    #[expect(clippy::indexing_slicing, reason = "every place was found in this list when the rules were read")]
    fn reason(&self, place: usize) -> &Reason {
        &self.reasons()[place]
    }

    /// An answer whose authentication code is wrong, or that is garbled, says nothing: whatever code it has is not the host's word.
    fn unbelievable(&self, outcome: &Outcome) -> Option<usize> {
        match outcome.terminal_condition() {
            TerminalCondition::MacMismatch | TerminalCondition::ResponseInvalid => self.by_condition(outcome.terminal_condition),
            _ => None,
        }
    }

    /// What the host said.
    fn answered(&self, outcome: &Outcome) -> Option<usize> {
        if outcome.response_code.is_empty() {
            return None;
        }
        let result = outcome.result();
        let named = self.named();
        let Some(known) = self.by_code(&outcome.response_spec, &outcome.response_code) else {
            return Some(if result == TerminalResult::Approved { named.unknown_approved } else { named.unknown_code });
        };
        // A receipt that was not printed undoes nothing.
        let unprinted = matches!(outcome.terminal_condition(), TerminalCondition::Printer | TerminalCondition::PaperOut);
        let undone = matches!(result, TerminalResult::Declined | TerminalResult::Failed | TerminalResult::Cancelled);
        let approved = self.reason(known).cause == Cause::Approved;
        Some(if approved && undone && !unprinted { named.approved_not_completed } else { known })
    }

    /// What the terminal told the shop, where nobody else said anything.
    fn told(&self, outcome: &Outcome) -> Option<usize> {
        let named = self.named();
        match (outcome.result(), outcome.stage()) {
            (TerminalResult::Approved, _) => Some(named.unknown_approved),
            (TerminalResult::Cancelled, _) => Some(named.cancelled),
            (TerminalResult::Declined, Stage::HostDecision | Stage::OfflineDecision | Stage::Unspecified) => {
                Some(named.declined_by_terminal)
            }
            _ => None,
        }
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
        let rules = RuleSet::built_in().unwrap();
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
        let rules = RuleSet::built_in().unwrap();
        for reason in rules.reasons().iter().filter(|reason| ["no_answer", "issuer_timeout"].contains(&reason.class.as_str())) {
            assert_eq!(reason.retry, crate::Retry::QueryFirst, "{}", reason.id);
        }
        for reason in rules.reasons() {
            for text in [&reason.meaning, &reason.cashier, &reason.service_desk] {
                assert!(text.en.is_ascii() && !text.zh_cn.is_ascii() && text.en.len() <= 400 && text.zh_cn.len() <= 600, "{text:?}");
            }
            assert_eq!(reason.cause == Cause::Approved, reason.class == "approved", "{}", reason.id);
        }
    }
}
