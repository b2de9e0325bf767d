//! What a rule says in the end: whose fault it was, and what is to be done.

use std::fmt;

use faultline_proto::outcome::v1::Stage;

use crate::{Cause, LocalizedText, Place};

/// What a tag calls a stage of a newer contract.
const NEWER_STAGE: &str = "newer";
/// What a tag calls a stage that was not stated.
const NO_STAGE: &str = "none";

/// Why a transaction ended as it did, and what is to be done.
#[derive(Clone, Debug, PartialEq)]
pub struct Reason {
    /// Stable identifier: `insufficient_funds`.
    pub id: String,
    /// Whose fault it is.
    pub cause: Cause,
    /// What detection counts it as, where it is found without facts: `funds`.
    pub class: String,
    /// What its failures have in common with others, as far as causes go: those of one symptom are weighed together. Empty: they are not ambiguous.
    pub symptom: String,
    /// What the merchant is told that it was.
    pub merchant_cause: MerchantCause,
    /// How likely the cause is in percent, as far as nothing else is known: the share of outcomes with this reason of which it is right, over the mix of
    /// faults that a fleet has in a month. What else an outcome shows may say more ([`Verdict::confidence`](crate::Verdict::confidence)).
    pub confidence: u8,
    /// Whether trying again can help.
    pub retry: Retry,
    /// What it means.
    pub meaning: LocalizedText,
    /// What the cashier should do.
    pub cashier: LocalizedText,
    /// What the service desk should do.
    pub service_desk: LocalizedText,
    /// What keeps it from happening again, where that is not what the set says of the merchant cause ([`Rules::prevention`](crate::Rules::prevention)).
    pub prevention: Option<LocalizedText>,
    /// Where it is known from.
    pub source: String,
    /// Where it is written.
    pub place: Place,
    /// Class and stage, by the number of the stage.
    pub(crate) tags: Vec<String>,
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// At once.
    Now,
    /// After so many minutes.
    Later(u32),
    /// With another card.
    OtherCard,
    /// With another way to pay.
    OtherMethod,
    /// Not at all.
    Never,
    /// Only after asking whether the money moved.
    QueryFirst,
}

/// What a merchant is told that it was: coarser than a reason, in words that shops use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MerchantCause {
    /// The network: signal, carrier, router.
    Network,
    /// The terminal: its parts, keys, settings or software.
    Hardware,
    /// Too little money, or over a limit.
    Balance,
    /// The systems of the bank, the switch or the acquirer, and what is set up there.
    BankSystem,
    /// How it was operated.
    Operator,
    /// A system that is busy, or closed for a moment.
    BusySystem,
    /// The card or code was not read.
    CardUnreadable,
    /// The card is past its date.
    Expired,
    /// A card number, account or PIN that is not right.
    WrongNumber,
    /// The bank holds the card or account back.
    Frozen,
    /// Nothing failed.
    Approved,
    /// It is not known.
    NotKnown,
}

impl MerchantCause {
    /// All of them.
    pub const ALL: [MerchantCause; 12] = [
        MerchantCause::Network,
        MerchantCause::Hardware,
        MerchantCause::Balance,
        MerchantCause::BankSystem,
        MerchantCause::Operator,
        MerchantCause::BusySystem,
        MerchantCause::CardUnreadable,
        MerchantCause::Expired,
        MerchantCause::WrongNumber,
        MerchantCause::Frozen,
        MerchantCause::Approved,
        MerchantCause::NotKnown,
    ];

    /// Its stable identifier: `bank_system`.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            MerchantCause::Network => "network",
            MerchantCause::Hardware => "hardware",
            MerchantCause::Balance => "balance",
            MerchantCause::BankSystem => "bank_system",
            MerchantCause::Operator => "operator",
            MerchantCause::BusySystem => "busy_system",
            MerchantCause::CardUnreadable => "card_unreadable",
            MerchantCause::Expired => "expired",
            MerchantCause::WrongNumber => "wrong_number",
            MerchantCause::Frozen => "frozen",
            MerchantCause::Approved => "approved",
            MerchantCause::NotKnown => "not_known",
        }
    }

    /// What the merchant is told.
    #[must_use]
    pub fn text(self) -> LocalizedText {
        let (zh_cn, en) = match self {
            MerchantCause::Network => ("网络故障", "The network: signal, carrier, router"),
            MerchantCause::Hardware => ("设备故障", "The terminal: parts, keys, settings, software"),
            MerchantCause::Balance => ("余额不足或超限", "Too little money, or over a limit"),
            MerchantCause::BankSystem => ("银行系统", "The systems of the bank, the switch or the acquirer, and what is set up there"),
            MerchantCause::Operator => ("操作问题", "How it was operated"),
            MerchantCause::BusySystem => ("系统繁忙", "A system that is busy, or closed for a moment"),
            MerchantCause::CardUnreadable => ("卡片无法读取", "The card or code was not read"),
            MerchantCause::Expired => ("卡片过期", "The card is past its date"),
            MerchantCause::WrongNumber => ("卡号或密码有误", "A card number, account or PIN that is not right"),
            MerchantCause::Frozen => ("卡片或账户被冻结", "The bank holds the card or account back"),
            MerchantCause::Approved => ("交易成功", "Nothing failed"),
            MerchantCause::NotKnown => ("原因不明", "It is not known"),
        };
        LocalizedText { zh_cn: zh_cn.into(), en: en.into() }
    }
}

impl Reason {
    /// What detection counts at a stage: class and stage, `issuer_down/host_decision`.
    #[must_use]
    pub fn tag(&self, stage: i32) -> &str {
        let newer = self.tags.last().map_or("", String::as_str);
        usize::try_from(stage).ok().and_then(|stage| self.tags.get(stage)).map_or(newer, String::as_str)
    }
}

/// As rule sets write it: `later (10 min)`.
impl fmt::Display for Retry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Retry::Now => formatter.write_str("now"),
            Retry::Later(minutes) => write!(formatter, "later ({minutes} min)"),
            Retry::OtherCard => formatter.write_str("other_card"),
            Retry::OtherMethod => formatter.write_str("other_method"),
            Retry::Never => formatter.write_str("never"),
            Retry::QueryFirst => formatter.write_str("query_first"),
        }
    }
}

/// What an enumeration of the contract calls a value, as rule sets write it: `chip_read`.
pub(crate) fn short_name(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_lowercase()
}

/// The tags of a class, by the number of the stage; last, that of a stage of a newer contract.
pub(crate) fn tags(class: &str) -> Vec<String> {
    let known = (0..).map_while(|number| Stage::try_from(number).ok());
    let name = |stage: Stage| match stage {
        Stage::Unspecified => NO_STAGE.to_owned(),
        stage => short_name(stage.as_str_name(), "STAGE_"),
    };
    known.map(name).chain([NEWER_STAGE.to_owned()]).map(|stage| format!("{class}/{stage}")).collect()
}
