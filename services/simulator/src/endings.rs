//! How attempts end while nothing is wrong with banks, hosts and carriers: about one in twenty fails all the same.

use std::time::Duration;

use faultline_proto::outcome::v1::EntryMode::{Chip, Contactless, MagneticStripe, Qr};
use faultline_proto::outcome::v1::{EntryMode, MoneyOutcome, Outcome, Stage, TerminalCondition, TerminalResult};

/// The specification of the response codes.
const SPEC: &str = "unionpay-pos";
/// The share of failures, other than given up ones, after which the cashier tries again with the same card.
pub(crate) const TRIED_AGAIN: f64 = 0.2;
/// Most attempts at one sale.
pub(crate) const MAX_ATTEMPTS: u32 = 3;

/// One way for an attempt to end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ending {
    pub(crate) stage: Stage,
    /// What the host said; empty where it said nothing.
    code: &'static str,
    pub(crate) condition: TerminalCondition,
    result: TerminalResult,
    money: MoneyOutcome,
    /// How long it takes until the terminal gives up, where it waits in vain.
    pub(crate) in_vain: Duration,
}

const NO_TIME: Duration = Duration::ZERO;

/// An answer of the host that is no approval.
const fn declined(code: &'static str) -> Ending {
    Ending {
        stage: Stage::HostDecision,
        code,
        condition: TerminalCondition::Unspecified,
        result: TerminalResult::Declined,
        money: MoneyOutcome::NotMoved,
        in_vain: NO_TIME,
    }
}

/// An answer that leaves open whether money moved.
const fn in_doubt(code: &'static str) -> Ending {
    Ending { money: MoneyOutcome::Unknown, ..declined(code) }
}

/// An end before anybody decided.
const fn failed(stage: Stage, condition: TerminalCondition, in_vain: Duration) -> Ending {
    Ending { stage, code: "", condition, result: TerminalResult::Failed, money: MoneyOutcome::NotMoved, in_vain }
}

const fn cancelled(stage: Stage, condition: TerminalCondition) -> Ending {
    Ending { result: TerminalResult::Cancelled, ..failed(stage, condition, NO_TIME) }
}

/// No answer within the time allowed: it is not known whether money moved.
pub(crate) const fn unanswered(timeout: Duration) -> Ending {
    Ending { money: MoneyOutcome::Unknown, ..failed(Stage::Wait, TerminalCondition::ResponseTimeout, timeout) }
}

/// No connection to the host.
pub(crate) const UNREACHABLE: Ending = failed(Stage::Connect, TerminalCondition::ConnectTimeout, Duration::from_secs(10));
/// No answer of the name server.
pub(crate) const NO_NAME: Ending = failed(Stage::Dns, TerminalCondition::NameResolution, Duration::from_secs(5));
/// What a switch says of an issuer that does not work.
pub(crate) const ISSUER_DOWN: Ending = declined("91");
/// The same, of the system as a whole.
pub(crate) const SYSTEM_DOWN: Ending = declined("96");

/// An issuer refuses, and does not say why.
pub(crate) const REFUSED: Ending = declined("05");
/// There is too little in an account.
pub(crate) const NO_FUNDS: Ending = declined("51");
/// The message is not one of somebody who has the key.
pub(crate) const WRONG_MAC: Ending = declined("A0");

/// The host approved.
pub(crate) const APPROVED: Ending = Ending { result: TerminalResult::Approved, money: MoneyOutcome::Moved, ..declined("00") };

const ALL: &[EntryMode] = &[];
const WITH_PIN: &[EntryMode] = &[Chip, Contactless, MagneticStripe];

/// Ends other than approval, the share of attempts that have them, and the ways of reading that they happen to. Orders of magnitude, not measured.
static FAILURES: [(Ending, f64, &[EntryMode]); 27] = [
    (NO_FUNDS, 0.0150, ALL),
    (declined("55"), 0.0060, WITH_PIN),
    (declined("61"), 0.0015, ALL),
    (declined("62"), 0.0008, ALL),
    (declined("54"), 0.0006, ALL),
    (declined("14"), 0.0004, ALL),
    (declined("75"), 0.0004, WITH_PIN),
    (REFUSED, 0.0045, ALL),
    (declined("57"), 0.0010, ALL),
    (declined("91"), 0.0006, ALL),
    (declined("96"), 0.0004, ALL),
    (in_doubt("98"), 0.0004, ALL),
    (in_doubt("68"), 0.0003, ALL),
    (declined("03"), 0.0002, ALL),
    (WRONG_MAC, 0.0001, ALL),
    (unanswered(Duration::from_secs(60)), 0.0010, ALL),
    (UNREACHABLE, 0.0010, ALL),
    (failed(Stage::Dns, TerminalCondition::NoNetwork, NO_TIME), 0.0016, ALL),
    (NO_NAME, 0.0006, ALL),
    (failed(Stage::CardRead, TerminalCondition::ChipRead, NO_TIME), 0.0100, &[Chip]),
    (failed(Stage::CardRead, TerminalCondition::ContactlessRead, NO_TIME), 0.0060, &[Contactless]),
    (failed(Stage::CardRead, TerminalCondition::MagneticRead, NO_TIME), 0.0300, &[MagneticStripe]),
    (failed(Stage::CardRead, TerminalCondition::QrRead, NO_TIME), 0.0040, &[Qr]),
    (failed(Stage::PinEntry, TerminalCondition::PinPad, NO_TIME), 0.0002, WITH_PIN),
    (Ending { money: MoneyOutcome::Unknown, ..failed(Stage::HostDecision, TerminalCondition::MacMismatch, NO_TIME) }, 0.0002, ALL),
    (cancelled(Stage::PinEntry, TerminalCondition::CancelledByCustomer), 0.0030, WITH_PIN),
    (cancelled(Stage::CardRead, TerminalCondition::CancelledByCashier), 0.0010, ALL),
];

/// Every way for an attempt with this entry mode to end, with its probability.
pub(crate) fn endings(mode: EntryMode) -> Vec<(Ending, f64)> {
    let possible = FAILURES.iter().filter(|(_, _, modes)| modes.is_empty() || modes.contains(&mode));
    let mut endings: Vec<_> = possible.map(|(ending, share, _)| (*ending, *share)).collect();
    let failures: f64 = endings.iter().map(|(_, share)| share).sum();
    endings.push((APPROVED, 1.0 - failures));
    endings
}

/// How often an attempt with this entry mode ends so.
pub(crate) fn usual(ending: Ending, mode: EntryMode) -> f64 {
    endings(mode).iter().find(|(known, _)| *known == ending).map_or(0.0, |(_, share)| *share)
}

/// How a card is not read that is presented so, and how often; nothing where there is nothing to read.
pub(crate) fn unread(mode: EntryMode) -> Option<(Ending, f64)> {
    let mut ends = endings(mode).into_iter();
    ends.find(|(ending, _)| ending.stage == Stage::CardRead && ending.result == TerminalResult::Failed)
}

impl Ending {
    /// Whether the card was read before it.
    pub(crate) fn knows_card(&self) -> bool {
        self.stage > Stage::CardRead
    }

    /// Whether the host decided.
    pub(crate) fn is_answer(&self) -> bool {
        !self.code.is_empty()
    }

    /// Whether somebody might try again at once.
    pub(crate) fn is_tried_again(&self) -> bool {
        !matches!(self.result, TerminalResult::Approved | TerminalResult::Cancelled)
    }

    /// Whether it is not known if money moved, so that a reversal follows where there is something to reverse.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.money == MoneyOutcome::Unknown
    }

    /// Whether a PIN was entered for it, whatever the terminal asks for usually.
    pub(crate) fn needs_pin(&self) -> bool {
        matches!(self.code, "55" | "75") || self.stage == Stage::PinEntry
    }

    /// Whether the attempt came so far that the issuer was asked.
    pub(crate) fn asks_issuer(&self) -> bool {
        self.stage >= Stage::Wait
    }

    /// Writes what the terminal saw.
    pub(crate) fn describe(&self, outcome: &mut Outcome) {
        outcome.stage = self.stage.into();
        outcome.response_code = self.code.into();
        outcome.response_spec = if self.code.is_empty() { String::new() } else { SPEC.into() };
        outcome.terminal_condition = self.condition.into();
        outcome.result = self.result.into();
        outcome.money_outcome = self.money.into();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use faultline_verdict::Rules;

    use super::*;
    use crate::fleet::ENTRY_MODES;

    #[test]
    fn about_one_in_twenty_attempts_fails() {
        let failing: f64 = ENTRY_MODES
            .iter()
            .map(|(mode, share)| {
                let endings = endings(*mode);
                assert!((endings.iter().map(|(_, share)| share).sum::<f64>() - 1.0).abs() < 1e-12);
                share * endings.iter().filter(|(ending, _)| *ending != APPROVED).map(|(_, share)| share).sum::<f64>()
            })
            .sum();
        assert!((0.04..0.06).contains(&failing), "{failing}");
    }

    /// What nothing is made of cannot be practised on.
    #[test]
    fn the_rules_know_every_ending() {
        let rules = Rules::built_in().unwrap();
        let mut classes = BTreeSet::new();
        for (ending, _, _) in &FAILURES {
            let mut outcome = Outcome::default();
            ending.describe(&mut outcome);
            classes.insert(rules.verdict(&outcome).reason.class.clone());
        }
        let expected = [
            "acquirer",
            "cardholder",
            "device_fault",
            "device_read",
            "funds",
            "host_unreachable",
            "issuer_down",
            "issuer_refusal",
            "issuer_timeout",
            "local_network",
            "no_answer",
            "operator",
            "security",
        ];
        assert_eq!(classes.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    }
}
