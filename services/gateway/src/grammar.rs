//! What each field may hold, as the contract's comments state it.
//!
//! A value is shown in what is said about it, unless it could be cardholder data.

use faultline_proto::ingest::v1::{DroppedRange, Event};
use faultline_proto::outcome::v1::{
    CardNetwork, EmvEvidence, EntryMode, MoneyOutcome, OriginalTransaction, Outcome, ReaderHistory, Stage, StageLatencies,
    TerminalCondition, TerminalResult, TransactionType,
};
use faultline_proto::terminal::v1::{AccessNetwork, HealthSample, PinPadState, PrinterState, TerminalProfile};
use faultline_stream::{card_numbers, unix_ms};
use prost_types::Timestamp;

/// Greatest sequence: that of a signed 64-bit number, since databases and languages have no other.
pub(crate) const MAX_SEQUENCE: u64 = i64::MAX.cast_unsigned();
/// Greatest age of an event or a sample, in milliseconds: 30 days.
pub(crate) const MAX_AGE_MS: u64 = 30 * 24 * 60 * 60 * 1000;

/// A field against its grammar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Its path.
    pub(crate) field: &'static str,
    /// What is wrong with it.
    pub(crate) description: String,
}

type Checked = Result<(), Violation>;

fn violation(field: &'static str, description: impl Into<String>) -> Checked {
    Err(Violation { field, description: description.into() })
}

/// Checks all of an event but its place in the batch and its age.
pub(crate) fn event(event: &Event) -> Checked {
    let Some(reported) = &event.outcome else { return violation("outcome", "is required") };
    outcome(reported)?;
    if reported.first_attempt_sequence != 0 && reported.first_attempt_sequence >= event.sequence {
        return violation(
            "outcome.first_attempt_sequence",
            format!("{} is not less than the event's own {}", reported.first_attempt_sequence, event.sequence),
        );
    }
    Ok(())
}

fn outcome(outcome: &Outcome) -> Checked {
    time("outcome.completion_time", outcome.completion_time.as_ref())?;
    required("outcome.merchant_id", &outcome.merchant_id)?;
    identifier("outcome.merchant_id", &outcome.merchant_id, 15)?;
    identifier("outcome.store_id", &outcome.store_id, 32)?;
    stated("outcome.type", outcome.r#type)?;
    number("outcome.amount_minor", outcome.amount_minor, 0, 999_999_999_999)?;
    currency(outcome)?;
    digits("outcome.bin", &outcome.bin, 6, 8)?;
    if let Some(token) = &outcome.card_token {
        number("outcome.card_token.key_id", token.key_id, 1, u32::MAX)?;
        number("outcome.card_token.value", token.value, 0, (1 << 20) - 1)?;
    }
    identifier("outcome.acquirer_id", &outcome.acquirer_id, 32)?;
    identifier("outcome.host_id", &outcome.host_id, 64)?;
    identifier("outcome.route_id", &outcome.route_id, 64)?;
    digits("outcome.trace_number", &outcome.trace_number, 1, 6)?;
    digits("outcome.batch_number", &outcome.batch_number, 1, 6)?;
    identifier("outcome.retrieval_reference_number", &outcome.retrieval_reference_number, 12)?;
    outcome.original.as_ref().map_or(Ok(()), original)?;
    number("outcome.attempt", outcome.attempt, 0, 1000)?;
    stated("outcome.stage", outcome.stage)?;
    identifier("outcome.response_code", &outcome.response_code, 16)?;
    identifier("outcome.response_spec", &outcome.response_spec, 32)?;
    identifier("outcome.terminal_error_code", &outcome.terminal_error_code, 32)?;
    if outcome.diagnostic.len() > 256 {
        return violation("outcome.diagnostic", format!("is {} bytes, at most 256 are taken", outcome.diagnostic.len()));
    }
    outcome.emv.as_ref().map_or(Ok(()), emv)?;
    outcome.latencies.as_ref().map_or(Ok(()), latencies)?;
    outcome.reader_history.as_ref().map_or(Ok(()), reader_history)?;
    optional("outcome.signal_dbm", outcome.signal_dbm, -150, 0)?;
    identifier("outcome.order_number", &outcome.order_number, 64)
}

fn currency(outcome: &Outcome) -> Checked {
    let code = outcome.currency_code.as_bytes();
    match code {
        [] if outcome.amount_minor == 0 => Ok(()),
        [] => violation("outcome.currency_code", "is required where there is an amount"),
        [_, _, _] if code.iter().all(u8::is_ascii_uppercase) => Ok(()),
        _ => violation("outcome.currency_code", format!("{} is not three capital letters (ISO 4217)", shown(&outcome.currency_code))),
    }
}

fn original(original: &OriginalTransaction) -> Checked {
    number("outcome.original.sequence", original.sequence, 0, MAX_SEQUENCE)?;
    digits("outcome.original.trace_number", &original.trace_number, 1, 6)?;
    digits("outcome.original.batch_number", &original.batch_number, 1, 6)?;
    identifier("outcome.original.retrieval_reference_number", &original.retrieval_reference_number, 12)?;
    terminal("outcome.original.terminal_id", &original.terminal_id)?;
    time("outcome.original.completion_time", original.completion_time.as_ref())?;
    identifier("outcome.original.order_number", &original.order_number, 64)
}

fn emv(emv: &EmvEvidence) -> Checked {
    if !matches!(emv.terminal_verification_results.len(), 0 | 5) {
        return violation(
            "outcome.emv.terminal_verification_results",
            format!("is {} bytes, not 5", emv.terminal_verification_results.len()),
        );
    }
    if emv.status_words.len() > 8 {
        return violation("outcome.emv.status_words", format!("are {}, at most 8 are taken", emv.status_words.len()));
    }
    match emv.status_words.iter().find(|word| !(0x6000..=0x9FFF).contains(*word)) {
        Some(word) => violation("outcome.emv.status_words", format!("{word:#06X} is not within 0x6000 to 0x9FFF")),
        None => Ok(()),
    }
}

fn latencies(latencies: &StageLatencies) -> Checked {
    for (field, latency) in [
        ("outcome.latencies.card_read_ms", latencies.card_read_ms),
        ("outcome.latencies.pin_entry_ms", latencies.pin_entry_ms),
        ("outcome.latencies.dns_ms", latencies.dns_ms),
        ("outcome.latencies.connect_ms", latencies.connect_ms),
        ("outcome.latencies.tls_ms", latencies.tls_ms),
        ("outcome.latencies.send_ms", latencies.send_ms),
        ("outcome.latencies.wait_ms", latencies.wait_ms),
        ("outcome.latencies.print_ms", latencies.print_ms),
        ("outcome.latencies.total_ms", latencies.total_ms),
        ("outcome.latencies.reversal_ms", latencies.reversal_ms),
    ] {
        optional(field, latency, 0, 3_600_000)?;
    }
    Ok(())
}

fn reader_history(history: &ReaderHistory) -> Checked {
    for (field, count) in [
        ("outcome.reader_history.reads", history.reads),
        ("outcome.reader_history.failures", history.failures),
        ("outcome.reader_history.failed_sales", history.failed_sales),
        ("outcome.reader_history.consecutive_failures", history.consecutive_failures),
    ] {
        number(field, count, 0, 1_000_000)?;
    }
    optional("outcome.reader_history.next_good_read_ms", history.next_good_read_ms, 0, 86_400_000)
}

/// Checks a health sample.
pub(crate) fn health_sample(sample: &HealthSample) -> Checked {
    number("sequence", sample.sequence, 1, MAX_SEQUENCE)?;
    optional("age_ms", sample.age_ms, 0, MAX_AGE_MS)?;
    time("sample_time", sample.sample_time.as_ref())?;
    optional("battery_percent", sample.battery_percent, 0, 100)?;
    optional("signal_dbm", sample.signal_dbm, -150, 0)?;
    optional("uptime_ms", sample.uptime_ms, 0, 315_360_000_000)?;
    optional("spool_bytes", sample.spool_bytes, 0, 1 << 40)
}

/// Checks a range of sequences that will never come.
pub(crate) fn dropped_range(range: &DroppedRange) -> Checked {
    number("first_sequence", range.first_sequence, 1, MAX_SEQUENCE)?;
    number("last_sequence", range.last_sequence, range.first_sequence, MAX_SEQUENCE)
}

/// What is wrong with a profile, with the number of each field in the contract.
pub(crate) fn profile(profile: &TerminalProfile) -> Vec<(u32, Violation)> {
    let fields = [
        (1, "profile.model", &profile.model, 64),
        (2, "profile.firmware", &profile.firmware, 64),
        (3, "profile.application", &profile.application, 64),
        (4, "profile.sdk", &profile.sdk, 64),
        (5, "profile.region", &profile.region, 16),
        (7, "profile.carrier", &profile.carrier, 32),
        (8, "profile.apn", &profile.apn, 100),
        (9, "profile.merchant_group", &profile.merchant_group, 64),
        (10, "profile.rule_set_version", &profile.rule_set_version, 64),
    ];
    fields.into_iter().filter_map(|(number, field, value, limit)| Some((number, text(field, value, limit, b"._:/+- ").err()?))).collect()
}

/// Checks the name of a terminal; empty means not known.
pub(crate) fn terminal(field: &'static str, value: &str) -> Checked {
    text(field, value, 32, b"._-")
}

/// Checks a time where there is one.
pub(crate) fn time(field: &'static str, value: Option<&Timestamp>) -> Checked {
    match value {
        Some(time) if unix_ms(time).is_none() => {
            violation(field, format!("{} s and {} ns is no time between the years 1 and 9999", time.seconds, time.nanos))
        }
        _ => Ok(()),
    }
}

/// Checks a number.
pub(crate) fn number<T: PartialOrd + std::fmt::Display>(field: &'static str, value: T, least: T, greatest: T) -> Checked {
    if value < least || value > greatest {
        return violation(field, format!("{value} is not within {least} to {greatest}"));
    }
    Ok(())
}

fn optional<T: PartialOrd + std::fmt::Display>(field: &'static str, value: Option<T>, least: T, greatest: T) -> Checked {
    value.map_or(Ok(()), |value| number(field, value, least, greatest))
}

fn required(field: &'static str, value: &str) -> Checked {
    if value.is_empty() { violation(field, "is required") } else { Ok(()) }
}

/// Checks that a required enumeration says something; a value of a newer contract does.
fn stated(field: &'static str, value: i32) -> Checked {
    if value == 0 { violation(field, "is required") } else { Ok(()) }
}

fn identifier(field: &'static str, value: &str, limit: usize) -> Checked {
    text(field, value, limit, b"._:/+-")
}

fn digits(field: &'static str, value: &str, least: usize, most: usize) -> Checked {
    let right = value.is_empty() || ((least..=most).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_digit()));
    if right { Ok(()) } else { violation(field, format!("{} is not {least} to {most} digits", shown(value))) }
}

/// Letters, digits and `others`, `limit` bytes at most.
fn text(field: &'static str, value: &str, limit: usize, others: &[u8]) -> Checked {
    if value.len() > limit {
        return violation(field, format!("{} is {} bytes, at most {limit} are taken", shown(value), value.len()));
    }
    let is_allowed = |character: char| u8::try_from(character).is_ok_and(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte));
    match value.chars().find(|&character| !is_allowed(character)) {
        Some(character) => {
            let allowed = String::from_utf8_lossy(others);
            violation(field, format!("{} has {character:?}, and is to be of A-Z, a-z, 0-9 and `{allowed}`", shown(value)))
        }
        None => Ok(()),
    }
}

/// A value as it may be shown: shortened, and not at all where a card number could be in it.
fn shown(value: &str) -> String {
    let end = value.char_indices().nth(40).map(|(place, _)| place);
    let beginning = end.and_then(|end| value.get(..end)).unwrap_or(value);
    if beginning.chars().filter(|character| character.is_numeric()).count() >= 12 || card_numbers::contains(beginning) {
        return "the value (not shown, it could be cardholder data)".into();
    }
    format!("`{}`{}", beginning.escape_debug(), if end.is_some() { "..." } else { "" })
}

/// The fields of an outcome that hold a value of a newer contract.
pub(crate) fn unknown_values(outcome: &Outcome) -> impl Iterator<Item = &'static str> {
    [
        ("outcome.type", TransactionType::try_from(outcome.r#type).is_err()),
        ("outcome.entry_mode", EntryMode::try_from(outcome.entry_mode).is_err()),
        ("outcome.network", CardNetwork::try_from(outcome.network).is_err()),
        ("outcome.stage", Stage::try_from(outcome.stage).is_err()),
        ("outcome.money_outcome", MoneyOutcome::try_from(outcome.money_outcome).is_err()),
        ("outcome.terminal_condition", TerminalCondition::try_from(outcome.terminal_condition).is_err()),
        ("outcome.result", TerminalResult::try_from(outcome.result).is_err()),
    ]
    .into_iter()
    .filter_map(|(field, unknown)| unknown.then_some(field))
}

/// The same of a health sample.
pub(crate) fn unknown_health_values(sample: &HealthSample) -> impl Iterator<Item = &'static str> {
    [
        ("health_samples.printer", PrinterState::try_from(sample.printer).is_err()),
        ("health_samples.pin_pad", PinPadState::try_from(sample.pin_pad).is_err()),
    ]
    .into_iter()
    .filter_map(|(field, unknown)| unknown.then_some(field))
}

/// The same of a profile.
pub(crate) fn unknown_profile_values(profile: &TerminalProfile) -> impl Iterator<Item = &'static str> {
    AccessNetwork::try_from(profile.access_network).is_err().then_some("profile.access_network").into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sale() -> Event {
        let outcome = Outcome {
            merchant_id: "898440351980012".into(),
            r#type: TransactionType::Sale.into(),
            stage: Stage::HostDecision.into(),
            amount_minor: 1234,
            currency_code: "CNY".into(),
            response_code: "00".into(),
            ..Outcome::default()
        };
        Event { sequence: 7, age_ms: Some(0), outcome: Some(outcome) }
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Outcome), field: &str, said: &str) {
        let mut reported = sale();
        change(reported.outcome.as_mut().unwrap());
        let violation = event(&reported).expect_err(field);
        assert_eq!(violation.field, format!("outcome.{field}"), "{violation:?}");
        assert!(violation.description.contains(said), "{violation:?}");
    }

    #[test]
    fn a_sale_is_taken() {
        assert_eq!(event(&sale()), Ok(()));
    }

    #[test]
    fn every_field_has_its_own_grammar() {
        refused(|outcome| outcome.merchant_id.clear(), "merchant_id", "required");
        refused(|outcome| outcome.merchant_id = "SHOP 1".into(), "merchant_id", "' '");
        refused(|outcome| outcome.merchant_id = "A".repeat(16), "merchant_id", "16 bytes, at most 15");
        refused(|outcome| outcome.store_id = "店".into(), "store_id", "`店` has '店'");
        refused(|outcome| outcome.r#type = 0, "type", "required");
        refused(|outcome| outcome.stage = 0, "stage", "required");
        refused(|outcome| outcome.amount_minor = -1, "amount_minor", "-1 is not within 0 to 999999999999");
        refused(|outcome| outcome.amount_minor = 1_000_000_000_000, "amount_minor", "is not within");
        refused(|outcome| outcome.currency_code = "yuan".into(), "currency_code", "`yuan`");
        refused(|outcome| outcome.currency_code.clear(), "currency_code", "where there is an amount");
        refused(|outcome| outcome.bin = "62122".into(), "bin", "`62122` is not 6 to 8 digits");
        refused(|outcome| outcome.bin = "62122a".into(), "bin", "6 to 8 digits");
        refused(|outcome| outcome.bin = "621212345".into(), "bin", "6 to 8 digits");
        refused(|outcome| outcome.trace_number = "1234567".into(), "trace_number", "1 to 6 digits");
        refused(|outcome| outcome.batch_number = "x".into(), "batch_number", "1 to 6 digits");
        refused(|outcome| outcome.retrieval_reference_number = "1".repeat(13), "retrieval_reference_number", "at most 12");
        refused(|outcome| outcome.attempt = 1001, "attempt", "1001");
        refused(|outcome| outcome.first_attempt_sequence = 7, "first_attempt_sequence", "not less than the event's own 7");
        refused(|outcome| outcome.response_code = "0\n".into(), "response_code", "`0\\n`");
        refused(|outcome| outcome.diagnostic = "x".repeat(257), "diagnostic", "257 bytes");
        refused(|outcome| outcome.signal_dbm = Some(1), "signal_dbm", "-150 to 0");
        refused(|outcome| outcome.order_number = "o".repeat(65), "order_number", "at most 64");
        refused(|outcome| outcome.completion_time = Some(Timestamp { seconds: 0, nanos: -1 }), "completion_time", "-1 ns");
        let token = |key_id, value| faultline_proto::outcome::v1::CardToken { key_id, value };
        refused(|outcome| outcome.card_token = Some(token(0, 1)), "card_token.key_id", "0 is not within 1");
        refused(|outcome| outcome.card_token = Some(token(1, 1 << 20)), "card_token.value", "1048575");
        let emv = |length: usize, status_words| EmvEvidence {
            terminal_verification_results: vec![0; length].into(),
            status_words,
            fallback: false,
        };
        refused(|outcome| outcome.emv = Some(emv(4, vec![])), "emv.terminal_verification_results", "4 bytes, not 5");
        refused(|outcome| outcome.emv = Some(emv(5, vec![0x9000, 0x1000])), "emv.status_words", "0x1000");
        refused(|outcome| outcome.emv = Some(emv(5, vec![0x9000; 9])), "emv.status_words", "9, at most 8");
        refused(
            |outcome| outcome.latencies = Some(StageLatencies { wait_ms: Some(3_600_001), ..Default::default() }),
            "latencies.wait_ms",
            "3600001",
        );
        refused(
            |outcome| outcome.reader_history = Some(ReaderHistory { reads: 1_000_001, ..Default::default() }),
            "reader_history.reads",
            "1000001",
        );
        refused(
            |outcome| outcome.original = Some(OriginalTransaction { terminal_id: "T:1".into(), ..Default::default() }),
            "original.terminal_id",
            "':'",
        );
    }

    #[test]
    fn what_could_be_a_card_number_is_not_shown() {
        refused(|outcome| outcome.bin = "4111111111111111".into(), "bin", "not shown");
        refused(|outcome| outcome.store_id = "6212 3456 7890 12".into(), "store_id", "not shown");
        refused(|outcome| outcome.store_id = "٤١١١١١١١١١١١١١١١".into(), "store_id", "not shown");
    }

    /// A field that is added to the contract has to be added above.
    #[test]
    fn every_field_of_an_outcome_is_looked_at() {
        let (source, _) = include_str!("grammar.rs").split_once("#[cfg(test)]").unwrap();
        let source: String = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let contract = include_str!("../../../proto/faultline/outcome/v1/outcome.proto");
        let mut checked = 0;
        for (message, path) in [
            ("Outcome", "outcome"),
            ("CardToken", "outcome.card_token"),
            ("OriginalTransaction", "outcome.original"),
            ("EmvEvidence", "outcome.emv"),
            ("StageLatencies", "outcome.latencies"),
            ("ReaderHistory", "outcome.reader_history"),
        ] {
            let body = contract.split_once(&format!("message {message} {{")).unwrap().1.split_once("\n}").unwrap().0;
            let fields = body.lines().filter(|line| !line.trim_start().starts_with("//")).filter_map(|line| line.split_once(" = "));
            for name in fields.map(|(declaration, _)| declaration.rsplit(' ').next().unwrap()) {
                // Any value is right.
                let unlimited = ["spool_id", "fallback"].contains(&name);
                // By its own path, or by those of the fields in it.
                let looked_at = ["\"", "."].iter().any(|end| source.contains(&format!("\"{path}.{name}{end}")));
                assert!(unlimited || looked_at, "{path}.{name} is not looked at");
                checked += 1;
            }
        }
        assert!(checked >= 58, "only {checked} fields were found");
    }

    #[test]
    fn a_value_of_a_newer_contract_is_taken_and_noticed() {
        let mut reported = sale();
        reported.outcome.as_mut().unwrap().r#type = 99;
        reported.outcome.as_mut().unwrap().network = -3;
        assert_eq!(event(&reported), Ok(()));
        assert_eq!(unknown_values(reported.outcome.as_ref().unwrap()).collect::<Vec<_>>(), ["outcome.type", "outcome.network"]);
    }

    #[test]
    fn a_field_of_a_profile_is_named_with_its_number() {
        let said = profile(&TerminalProfile { carrier: "中国移动".into(), model: "PAX A920".into(), ..TerminalProfile::default() });
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!((said[0].0, said[0].1.field), (7, "profile.carrier"));
    }

    #[test]
    fn samples_and_ranges_have_their_limits() {
        let sample = HealthSample { sequence: 1, battery_percent: Some(100), ..HealthSample::default() };
        assert_eq!(health_sample(&sample), Ok(()));
        assert_eq!(health_sample(&HealthSample { battery_percent: Some(101), ..sample }).unwrap_err().field, "battery_percent");
        assert_eq!(health_sample(&HealthSample { sequence: 0, ..sample }).unwrap_err().field, "sequence");
        let range = DroppedRange { first_sequence: 5, last_sequence: 5, reason: 0 };
        assert_eq!(dropped_range(&range), Ok(()));
        assert_eq!(dropped_range(&DroppedRange { last_sequence: 4, ..range }).unwrap_err().field, "last_sequence");
        assert_eq!(dropped_range(&DroppedRange { first_sequence: 0, ..range }).unwrap_err().field, "first_sequence");
    }
}
