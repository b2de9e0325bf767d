//! What is answered: the shapes of the API, and how they come from what the store has.

use std::collections::BTreeMap;

use faultline_proto::outcome::v1::{EntryMode, MoneyOutcome, Stage, TerminalCondition, TransactionType};
use faultline_proto::terminal::v1::AccessNetwork;
use faultline_proto::verdict::v1::LocalizedText;
use faultline_store::{Counted, Rate, Reported};
use faultline_verdict::{Reason, Retry, Rules};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;

use crate::question::CauseName;

/// A moment in UTC, as RFC 3339 writes it.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(value_type = String, format = DateTime, examples("2026-11-25T14:40:00Z"))]
pub(crate) struct Time(String);

impl Time {
    /// Of a second since 1970-01-01 UTC.
    pub(crate) fn of_second(second: u32) -> Time {
        Time::of_ms(i64::from(second) * 1000)
    }

    /// Of a millisecond since 1970-01-01 UTC.
    pub(crate) fn of_ms(unix_ms: i64) -> Time {
        let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        Time(time.format(&Rfc3339).unwrap_or_default())
    }
}

/// One text in both languages.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Text {
    /// Simplified Chinese.
    pub zh_cn: String,
    /// English.
    pub en: String,
}

impl From<&LocalizedText> for Text {
    fn from(text: &LocalizedText) -> Text {
        Text { zh_cn: text.zh_cn.clone(), en: text.en.clone() }
    }
}

/// Something by cause.
#[derive(Debug, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct ByCause<T> {
    pub(crate) approved: T,
    pub(crate) network: T,
    pub(crate) device: T,
    pub(crate) bank: T,
    pub(crate) account: T,
    pub(crate) other: T,
    pub(crate) unknown: T,
}

impl<T> ByCause<T> {
    pub(crate) fn of(mut make: impl FnMut() -> T) -> ByCause<T> {
        ByCause { approved: make(), network: make(), device: make(), bank: make(), account: make(), other: make(), unknown: make() }
    }

    pub(crate) fn at(&mut self, cause: CauseName) -> &mut T {
        match cause {
            CauseName::Approved => &mut self.approved,
            CauseName::Network => &mut self.network,
            CauseName::Device => &mut self.device,
            CauseName::Bank => &mut self.bank,
            CauseName::Account => &mut self.account,
            CauseName::Other => &mut self.other,
            CauseName::Unknown => &mut self.unknown,
        }
    }
}

/// Whose outcomes were counted in the last seven days.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Tenants {
    /// In order of their names.
    pub(crate) tenants: Vec<TenantCounted>,
}

/// A tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TenantCounted {
    /// Its name.
    tenant: String,
    /// End of the newest ten seconds in which something was counted.
    counted_until: Time,
}

impl From<Counted> for TenantCounted {
    fn from(counted: Counted) -> TenantCounted {
        TenantCounted { tenant: counted.tenant, counted_until: Time::of_second(counted.until) }
    }
}

/// How a fleet stands.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Summary {
    /// Whose fleet.
    pub(crate) tenant: String,
    /// When this was answered.
    pub(crate) time: Time,
    /// Until when everything is counted that was reported in time.
    pub(crate) settled_until: Time,
    /// End of the newest ten seconds in which something was counted in the last seven days.
    pub(crate) counted_until: Option<Time>,
    /// The last minute of which everything is counted.
    pub(crate) window: Window,
    /// What is usual of such a minute; nothing where that is not known.
    pub(crate) usual: Option<UsualWindow>,
    /// Incidents that are open or unobserved, of those of which something was learnt in the last 30 days; 200 at most.
    pub(crate) open_incidents: usize,
}

/// What was counted in a minute.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Window {
    /// Its first second.
    pub(crate) begin: Time,
    /// The second after its last.
    pub(crate) end: Time,
    /// How many attempts.
    pub(crate) attempts: u64,
    /// The attempts by cause.
    pub(crate) by_cause: ByCause<u64>,
    /// Which part was approved, from 0 to 1; nothing where nothing was attempted.
    #[schema(minimum = 0.0, maximum = 1.0)]
    pub(crate) success_rate: Option<f64>,
}

/// What is usual of a minute, by the same hour of the week in the four weeks before.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UsualWindow {
    /// How many attempts.
    #[schema(minimum = 0.0)]
    pub(crate) attempts: f64,
    /// Which part is approved, from 0 to 1; nothing where nothing is attempted.
    #[schema(minimum = 0.0, maximum = 1.0)]
    pub(crate) success_rate: Option<f64>,
}

impl UsualWindow {
    /// Of so many seconds.
    pub(crate) fn of(rate: Rate, seconds: f64) -> UsualWindow {
        let success_rate = (rate.attempts > 0.0).then(|| (rate.approved / rate.attempts).min(1.0));
        UsualWindow { attempts: rate.attempts * seconds, success_rate }
    }
}

/// How the counts of a slice went over time: a value a step in each list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Series {
    /// Of which slice.
    pub(crate) slice: String,
    /// First second of the first step.
    pub(crate) begin: Time,
    /// The second after the last step.
    pub(crate) end: Time,
    /// How many seconds a step is: 10, 60, 300 or 3600.
    pub(crate) step_s: u32,
    /// How many attempts.
    pub(crate) attempts: Vec<u64>,
    /// The attempts by cause.
    pub(crate) by_cause: ByCause<Vec<u64>>,
    /// What is usual.
    pub(crate) usual: UsualSeries,
    /// Until when everything is counted that was reported in time: what comes later is still being counted.
    pub(crate) settled_until: Time,
}

/// What is usual over time, by the same hour of the week in the four weeks before: a value a step, nothing where it is not known.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UsualSeries {
    /// How many attempts.
    pub(crate) attempts: Vec<Option<f64>>,
    /// How many of them are approved.
    pub(crate) approved: Vec<Option<f64>>,
}

/// Outcomes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Outcomes {
    /// The newest comes first.
    pub(crate) outcomes: Vec<Outcome>,
}

/// One transaction attempt, and the verdict on it. What the terminal did not say is empty.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Outcome {
    /// Which terminal reported it.
    terminal: String,
    /// With the terminal and the sequence, what tells it from all others: a number, in decimal digits.
    spool: String,
    /// Its place in the spool: a number, in decimal digits.
    sequence: String,
    /// When it was completed.
    completed_at: Time,
    /// When the gateway took it.
    received_at: Time,
    /// The merchant.
    merchant: String,
    /// The store.
    store: String,
    /// The terminal's model.
    model: String,
    /// Its firmware.
    firmware: String,
    /// Where it stands.
    region: String,
    /// How it reaches the network: `wifi`.
    access_network: String,
    /// Who carries it.
    carrier: String,
    /// What was attempted: `sale`.
    r#type: String,
    /// How the card was read: `chip`.
    entry_mode: String,
    /// The amount, in minor units of the currency.
    amount_minor: i64,
    /// The currency (ISO 4217).
    currency: String,
    /// The bank that issued the card.
    issuer: String,
    /// The acquirer.
    acquirer: String,
    /// The acquirer's host.
    host: String,
    /// How far it came: `host_decision`.
    stage: String,
    /// What the host answered (ISO 8583, field 39).
    response_code: String,
    /// The specification that the answer belongs to.
    response_spec: String,
    /// Whether the money moved: `moved`, `not_moved`, `unknown`.
    money_outcome: String,
    /// What the terminal met: `connect_timeout`.
    terminal_condition: String,
    /// The terminal's own error code.
    terminal_error_code: String,
    /// What else the terminal said.
    diagnostic: String,
    /// Which attempt of the sale it is.
    attempt: u16,
    /// How long it took, in milliseconds.
    total_ms: u32,
    /// How long each stage took that was measured, in milliseconds: `connect`.
    latencies_ms: BTreeMap<&'static str, u32>,
    /// Strength of the radio signal, in dBm.
    signal_dbm: Option<i16>,
    /// The verdict that stands.
    verdict: Verdict,
}

/// Whose fault it was, and why.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Verdict {
    /// What detection counts it as: `issuer_down/host_decision`.
    tag: String,
    /// Whose fault it was.
    cause: CauseName,
    /// Why: `issuer_unavailable`.
    reason: String,
    /// How likely the cause is, in percent.
    #[schema(maximum = 100)]
    confidence: u8,
    /// The rules that say so.
    rule_set: String,
    /// 0, or how often it was corrected.
    revision: u16,
    /// What the reason means and what to do; nothing where the console's rules do not know the reason.
    advice: Option<Advice>,
}

/// What a reason means, and what to do.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Advice {
    /// What it means.
    meaning: Text,
    /// What the cashier should do.
    cashier: Text,
    /// What the service desk should do.
    service_desk: Text,
    /// Whether trying again can help.
    retry: RetryName,
    /// After how many minutes, where it is `later`.
    retry_minutes: Option<u32>,
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RetryName {
    /// At once.
    Now,
    /// After some minutes.
    Later,
    /// With another card.
    OtherCard,
    /// With another way to pay.
    OtherMethod,
    /// Not at all.
    Never,
    /// Only after asking whether the money moved.
    QueryFirst,
}

impl From<&Reason> for Advice {
    fn from(reason: &Reason) -> Advice {
        let (retry, retry_minutes) = match reason.retry {
            Retry::Now => (RetryName::Now, None),
            Retry::Later(minutes) => (RetryName::Later, Some(minutes)),
            Retry::OtherCard => (RetryName::OtherCard, None),
            Retry::OtherMethod => (RetryName::OtherMethod, None),
            Retry::Never => (RetryName::Never, None),
            Retry::QueryFirst => (RetryName::QueryFirst, None),
        };
        Advice {
            meaning: (&reason.meaning).into(),
            cashier: (&reason.cashier).into(),
            service_desk: (&reason.service_desk).into(),
            retry,
            retry_minutes,
        }
    }
}

impl Outcome {
    /// What was reported, with the advice of these rules.
    pub(crate) fn new(row: Reported, rules: &Rules) -> Outcome {
        let latencies = [
            ("card_read", row.card_read_ms),
            ("pin_entry", row.pin_entry_ms),
            ("dns", row.dns_ms),
            ("connect", row.connect_ms),
            ("tls", row.tls_ms),
            ("send", row.send_ms),
            ("wait", row.wait_ms),
            ("print", row.print_ms),
            ("reversal", row.reversal_ms),
        ];
        let verdict = Verdict {
            cause: row.cause().into(),
            advice: rules.reason(&row.rule_set, &row.reason).map(Advice::from),
            tag: row.tag,
            reason: row.reason,
            confidence: row.confidence,
            rule_set: row.rule_set,
            revision: row.revision,
        };
        Outcome {
            terminal: row.terminal,
            spool: row.spool.to_string(),
            sequence: row.sequence.to_string(),
            completed_at: Time::of_ms(row.completed_at),
            received_at: Time::of_ms(row.received_at),
            merchant: row.merchant,
            store: row.store,
            model: row.model,
            firmware: row.firmware,
            region: row.region,
            access_network: named(row.access_network, AccessNetwork::try_from, AccessNetwork::as_str_name, "ACCESS_NETWORK_"),
            carrier: row.carrier,
            r#type: named(row.r#type, TransactionType::try_from, TransactionType::as_str_name, "TRANSACTION_TYPE_"),
            entry_mode: named(row.entry_mode, EntryMode::try_from, EntryMode::as_str_name, "ENTRY_MODE_"),
            amount_minor: row.amount_minor,
            currency: row.currency,
            issuer: row.issuer,
            acquirer: row.acquirer,
            host: row.host,
            stage: named(row.stage, Stage::try_from, Stage::as_str_name, "STAGE_"),
            response_code: row.response_code,
            response_spec: row.response_spec,
            money_outcome: named(row.money_outcome, MoneyOutcome::try_from, MoneyOutcome::as_str_name, "MONEY_OUTCOME_"),
            terminal_condition: named(
                row.terminal_condition,
                TerminalCondition::try_from,
                TerminalCondition::as_str_name,
                "TERMINAL_CONDITION_",
            ),
            terminal_error_code: row.terminal_error_code,
            diagnostic: row.diagnostic,
            attempt: row.attempt,
            total_ms: row.total_ms,
            latencies_ms: latencies.into_iter().filter(|(_, ms)| *ms > 0).collect(),
            signal_dbm: (row.signal_dbm != 0).then_some(row.signal_dbm),
            verdict,
        }
    }
}

/// What the API calls the number of an enumeration of the contract: its name there, without what all of its names begin with. Empty where nothing was
/// said, `newer` where a newer contract said it.
pub(crate) fn named<T, E>(number: u16, read: impl Fn(i32) -> Result<T, E>, name: impl Fn(&T) -> &'static str, prefix: &str) -> String {
    match read(number.into()) {
        Ok(_) if number == 0 => String::new(),
        Ok(value) => name(&value).trim_start_matches(prefix).to_ascii_lowercase(),
        Err(_) => "newer".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_contract_have_its_names() {
        let stage = |number| named(number, Stage::try_from, Stage::as_str_name, "STAGE_");
        assert_eq!((stage(0), stage(8), stage(999)), (String::new(), "host_decision".into(), "newer".into()));
    }

    #[test]
    fn times_are_written_as_rfc_3339_does() {
        assert_eq!(Time::of_second(1_795_617_600).0, "2026-11-25T14:40:00Z");
        assert_eq!(Time::of_ms(1_795_617_600_120).0, "2026-11-25T14:40:00.12Z");
    }

    #[test]
    fn what_is_usual_of_a_minute_is_sixty_times_that_of_a_second() {
        let usual = UsualWindow::of(Rate { attempts: 2.0, approved: 1.5 }, 60.0);
        assert_eq!((usual.attempts, usual.success_rate), (120.0, Some(0.75)));
        assert_eq!(UsualWindow::of(Rate::default(), 60.0).success_rate, None);
    }
}
