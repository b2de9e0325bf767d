//! The fields of the contract that a log can fill, each with its grammar.

use faultline_proto::outcome::v1::{
    CardNetwork, EmvEvidence, EntryMode, MoneyOutcome, OriginalTransaction, Outcome, Stage, StageLatencies, TerminalCondition,
    TerminalResult, TransactionType,
};
use faultline_proto::terminal::v1::{AccessNetwork, TerminalProfile};
use serde::Deserialize;

use super::amount::AmountRule;
use super::kind::{Bin, Currency, Digits, Flag, FreeText, Hex, Identifier, Named, Number, ProfileText, TerminalName};
use super::moment::MomentRule;
use super::rule::{Field, IfInvalid, Rule, Used};
use crate::cells::Cells;

/// A field that cannot be filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// Its path in the contract.
    pub(crate) field: String,
    /// What is wrong with its value, without the value.
    pub(crate) description: String,
}

/// What is filled in from a line, beside the message itself.
#[derive(Debug, Default)]
pub(crate) struct Filling {
    /// Fields that were left out as their values were wrong.
    pub(crate) left_out: Vec<String>,
}

/// A field of a message, which has a value or may have one.
trait Slot<V> {
    fn fill(&mut self, value: V);
    fn filled(&self) -> Option<&V>;
}

impl<V> Slot<V> for V {
    fn fill(&mut self, value: V) {
        *self = value;
    }

    fn filled(&self) -> Option<&V> {
        Some(self)
    }
}

impl<V> Slot<V> for Option<V> {
    fn fill(&mut self, value: V) {
        *self = Some(value);
    }

    fn filled(&self) -> Option<&V> {
        self.as_ref()
    }
}

fn fill<F: Field>(
    rule: Option<&F>,
    cells: &Cells,
    (field, filling): (&str, &mut Filling),
    slot: &mut impl Slot<F::Value>,
) -> Result<(), Wrong> {
    let Some(rule) = rule else { return Ok(()) };
    match (rule.value(cells), rule.if_invalid()) {
        (Ok(Some(value)), _) => slot.fill(value),
        (Ok(None), _) => {}
        (Err(_), IfInvalid::LeaveOut) => filling.left_out.push(named(field)),
        (Err(description), IfInvalid::Refuse) => return Err(Wrong { field: named(field), description }),
    }
    Ok(())
}

/// A path as the gateway writes it.
fn named(field: &str) -> String {
    field.replace("r#", "")
}

macro_rules! rules {
    ($($(#[$documentation:meta])* $name:ident of $message:ident at $path:literal {
        $($field:ident: $rule:ty,)*
    } beside {
        $($other:ident: $kind:ty,)*
    })*) => {
        $(
            $(#[$documentation])*
            #[derive(Debug, Default, Deserialize)]
            #[serde(default, deny_unknown_fields)]
            pub(crate) struct $name {
                $(pub(crate) $field: Option<$rule>,)*
                $(pub(crate) $other: Option<$kind>,)*
            }

            impl $name {
                /// Fills in what stands by itself.
                fn fill(&self, cells: &Cells, filling: &mut Filling, message: &mut $message) -> Result<(), Wrong> {
                    $(fill(self.$field.as_ref(), cells, (concat!($path, ".", stringify!($field)), filling), &mut message.$field)?;)*
                    Ok(())
                }

                /// What was filled in, in words.
                fn tell(&self, message: &$message, told: &mut Vec<(String, String)>) {
                    let empty = $message::default();
                    $(
                        if self.$field.is_some() && message.$field != empty.$field
                            && let Some(value) = message.$field.filled()
                        {
                            told.push((named(concat!($path, ".", stringify!($field))), <$rule as Field>::shown(value)));
                        }
                    )*
                }

                /// The columns of the fields that stand by themselves, with their paths.
                fn own_columns(&mut self, visit: &mut dyn FnMut(&str, &mut Used)) {
                    $(
                        if let Some(rule) = &mut self.$field {
                            rule.columns(&mut |used| visit(&named(concat!($path, ".", stringify!($field))), used));
                        }
                    )*
                }
            }
        )*
    };
}

type Milliseconds = Rule<Number<u32, 0, 3_600_000>>;

rules! {
    /// Where outcomes come from.
    OutcomeRules of Outcome at "outcome" {
        completion_time: MomentRule,
        merchant_id: Rule<Identifier<15>>,
        store_id: Rule<Identifier<32>>,
        r#type: Rule<Named<TransactionType>>,
        entry_mode: Rule<Named<EntryMode>>,
        currency_code: Rule<Currency>,
        bin: Rule<Bin>,
        network: Rule<Named<CardNetwork>>,
        acquirer_id: Rule<Identifier<32>>,
        host_id: Rule<Identifier<64>>,
        route_id: Rule<Identifier<64>>,
        trace_number: Rule<Digits<1, 6>>,
        batch_number: Rule<Digits<1, 6>>,
        retrieval_reference_number: Rule<Identifier<12>>,
        attempt: Rule<Number<u32, 0, 1000>>,
        stage: Rule<Named<Stage>>,
        response_code: Rule<Identifier<16>>,
        response_spec: Rule<Identifier<32>>,
        money_outcome: Rule<Named<MoneyOutcome>>,
        terminal_condition: Rule<Named<TerminalCondition>>,
        terminal_error_code: Rule<Identifier<32>>,
        diagnostic: Rule<FreeText<256>>,
        signal_dbm: Rule<Number<i32, -150, 0>>,
        result: Rule<Named<TerminalResult>>,
        order_number: Rule<Identifier<64>>,
    } beside {
        amount_minor: AmountRule,
        original: OriginalRules,
        emv: EmvRules,
        latencies: LatencyRules,
    }

    /// Where the names of earlier transactions come from.
    OriginalRules of OriginalTransaction at "outcome.original" {
        trace_number: Rule<Digits<1, 6>>,
        batch_number: Rule<Digits<1, 6>>,
        retrieval_reference_number: Rule<Identifier<12>>,
        terminal_id: Rule<TerminalName>,
        completion_time: MomentRule,
        order_number: Rule<Identifier<64>>,
    } beside {
    }

    /// Where EMV data comes from.
    EmvRules of EmvEvidence at "outcome.emv" {
        terminal_verification_results: Rule<Hex<5>>,
        fallback: Rule<Flag>,
    } beside {
    }

    /// Where latencies come from.
    LatencyRules of StageLatencies at "outcome.latencies" {
        card_read_ms: Milliseconds,
        pin_entry_ms: Milliseconds,
        dns_ms: Milliseconds,
        connect_ms: Milliseconds,
        tls_ms: Milliseconds,
        send_ms: Milliseconds,
        wait_ms: Milliseconds,
        print_ms: Milliseconds,
        total_ms: Milliseconds,
        reversal_ms: Milliseconds,
    } beside {
    }

    /// Where profiles come from.
    ProfileRules of TerminalProfile at "profile" {
        model: Rule<ProfileText<64>>,
        firmware: Rule<ProfileText<64>>,
        application: Rule<ProfileText<64>>,
        sdk: Rule<ProfileText<64>>,
        region: Rule<ProfileText<16>>,
        access_network: Rule<Named<AccessNetwork>>,
        carrier: Rule<ProfileText<32>>,
        apn: Rule<ProfileText<100>>,
        merchant_group: Rule<ProfileText<64>>,
    } beside {
    }
}

impl OutcomeRules {
    /// The outcome of a line.
    ///
    /// # Errors
    /// With the first field that cannot be filled.
    pub(crate) fn outcome(&self, cells: &Cells, filling: &mut Filling) -> Result<Outcome, Wrong> {
        let mut outcome = Outcome::default();
        self.fill(cells, filling, &mut outcome)?;
        self.fill_amount(cells, filling, &mut outcome)?;
        if let Some(rules) = &self.original {
            let mut original = OriginalTransaction::default();
            rules.fill(cells, filling, &mut original)?;
            outcome.original = Some(original).filter(|original| *original != OriginalTransaction::default());
        }
        if let Some(rules) = &self.emv {
            let mut emv = EmvEvidence::default();
            rules.fill(cells, filling, &mut emv)?;
            outcome.emv = Some(emv).filter(|emv| *emv != EmvEvidence::default());
        }
        if let Some(rules) = &self.latencies {
            let mut latencies = StageLatencies::default();
            rules.fill(cells, filling, &mut latencies)?;
            outcome.latencies = Some(latencies).filter(|latencies| *latencies != StageLatencies::default());
        }
        let required = [
            ("outcome.completion_time", outcome.completion_time.is_none()),
            ("outcome.merchant_id", outcome.merchant_id.is_empty()),
            ("outcome.type", outcome.r#type == 0),
            ("outcome.stage", outcome.stage == 0),
            ("outcome.currency_code", outcome.amount_minor > 0 && outcome.currency_code.is_empty()),
        ];
        match required.into_iter().find(|(_, is_missing)| *is_missing) {
            Some((field, _)) => Err(Wrong { field: field.into(), description: "is required, and there is none".into() }),
            None => Ok(outcome),
        }
    }

    fn fill_amount(&self, cells: &Cells, filling: &mut Filling, outcome: &mut Outcome) -> Result<(), Wrong> {
        const FIELD: &str = "outcome.amount_minor";
        let Some(rule) = &self.amount_minor else { return Ok(()) };
        match rule.value(cells, &outcome.currency_code) {
            Ok(amount) => outcome.amount_minor = amount.unwrap_or_default(),
            Err(_) if rule.if_invalid == IfInvalid::LeaveOut => filling.left_out.push(FIELD.into()),
            Err(description) => return Err(Wrong { field: FIELD.into(), description }),
        }
        Ok(())
    }

    /// What an outcome was filled with, in words.
    pub(crate) fn told(&self, outcome: &Outcome) -> Vec<(String, String)> {
        let mut told = Vec::new();
        self.tell(outcome, &mut told);
        if self.amount_minor.is_some() {
            told.push(("outcome.amount_minor".into(), outcome.amount_minor.to_string()));
        }
        if let (Some(rules), Some(original)) = (&self.original, &outcome.original) {
            rules.tell(original, &mut told);
        }
        if let (Some(rules), Some(emv)) = (&self.emv, &outcome.emv) {
            rules.tell(emv, &mut told);
        }
        if let (Some(rules), Some(latencies)) = (&self.latencies, &outcome.latencies) {
            rules.tell(latencies, &mut told);
        }
        told
    }

    /// All columns that are used, with the paths of their fields.
    pub(crate) fn columns(&mut self, visit: &mut dyn FnMut(&str, &mut Used)) {
        self.own_columns(visit);
        if let Some(rule) = &mut self.amount_minor {
            visit("outcome.amount_minor", &mut rule.column);
        }
        if let Some(rules) = &mut self.original {
            rules.own_columns(visit);
        }
        if let Some(rules) = &mut self.emv {
            rules.own_columns(visit);
        }
        if let Some(rules) = &mut self.latencies {
            rules.own_columns(visit);
        }
    }
}

impl ProfileRules {
    /// The profile of a line; of a value against its grammar the line is not refused, as the gateway would not.
    pub(crate) fn profile(&self, cells: &Cells, filling: &mut Filling) -> TerminalProfile {
        let mut profile = TerminalProfile::default();
        if let Err(wrong) = self.fill(cells, filling, &mut profile) {
            filling.left_out.push(wrong.field);
        }
        profile
    }

    /// What a profile was filled with, in words.
    pub(crate) fn told(&self, profile: &TerminalProfile) -> Vec<(String, String)> {
        let mut told = Vec::new();
        self.tell(profile, &mut told);
        told
    }

    /// All columns that are used, with the paths of their fields.
    pub(crate) fn columns(&mut self, visit: &mut dyn FnMut(&str, &mut Used)) {
        self.own_columns(visit);
    }

    /// Takes every value that is wrong as left out, which is what profiles are for: see [`ProfileRules::profile`].
    pub(crate) fn leave_out_what_is_wrong(&mut self) {
        macro_rules! leave_out {
            ($($field:ident),*) => { $(if let Some(rule) = &mut self.$field { rule.if_invalid = IfInvalid::LeaveOut; })* };
        }
        leave_out!(model, firmware, application, sdk, region, access_network, carrier, apn, merchant_group);
    }
}
