//! What holds of the verdict on any outcome, whatever its terminal sent.
#![expect(clippy::unwrap_used, reason = "a test, its helpers included, may stop at the first surprise")]

use std::sync::LazyLock;

use faultline_proto::outcome::v1::{EmvEvidence, Outcome, ReaderHistory, StageLatencies};
use faultline_proto::verdict::v1::LocalizedText;
use faultline_verdict::{Cause, Fact, Retry, Rules};
use proptest::option::of;
use proptest::prelude::*;

static RULES: LazyLock<Rules> = LazyLock::new(|| Rules::built_in().unwrap());

/// What no text may have.
const SECRET: &str = "6225880123456786";

/// Numbers about the thresholds, and any.
fn number(most: u32) -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0..=most, 1 => any::<u32>()]
}

fn emv() -> impl Strategy<Value = EmvEvidence> {
    let results = prop_oneof![4 => prop::collection::vec(any::<u8>(), 5), 1 => prop::collection::vec(any::<u8>(), 0..9)];
    let word = prop_oneof![
        4 => prop::sample::select(vec![0x9000, 0x6983, 0x63C2, 0x63C0, 0x6A81, 0x6A82, 0x6283, 0x6985, 0x6581, 0x6F00, 0x6D00]),
        1 => any::<u32>()
    ];
    (results, prop::collection::vec(word, 0..10), any::<bool>()).prop_map(|(results, status_words, fallback)| EmvEvidence {
        terminal_verification_results: results.into(),
        status_words,
        fallback,
    })
}

fn reader() -> impl Strategy<Value = ReaderHistory> {
    let good_read = of(prop_oneof![0..700_000u64, any::<u64>()]);
    (number(100), number(10), number(5), number(5), good_read).prop_map(
        |(reads, failures, failed_sales, consecutive_failures, next_good_read_ms)| ReaderHistory {
            reads,
            failures,
            failed_sales,
            consecutive_failures,
            next_good_read_ms,
        },
    )
}

fn latencies() -> impl Strategy<Value = StageLatencies> {
    let ms = || of(number(30_000));
    (ms(), ms(), ms(), ms(), ms()).prop_map(|(dns_ms, connect_ms, tls_ms, wait_ms, total_ms)| StageLatencies {
        dns_ms,
        connect_ms,
        tls_ms,
        wait_ms,
        total_ms,
        ..StageLatencies::default()
    })
}

/// An outcome without anything that facts come from, but its stage.
fn bare() -> impl Strategy<Value = Outcome> {
    let code = prop_oneof![
        2 => Just(String::new()),
        6 => "[0-9A-Z][0-9A-Z]",
        1 => any::<String>(),
        1 => Just(SECRET.to_owned())
    ];
    let spec = prop::sample::select(vec!["", "unionpay-pos", "iso8583", "visa", "mastercard", "alipay", SECRET]);
    let number = |known: i32| prop_oneof![8 => 0..=known, 1 => any::<i32>()];
    (code, spec, number(11), number(23), number(4), number(9)).prop_map(
        |(response_code, spec, stage, terminal_condition, result, network)| Outcome {
            response_code,
            response_spec: spec.into(),
            stage,
            terminal_condition,
            result,
            network,
            bin: "62258801".into(),
            order_number: SECRET.into(),
            terminal_error_code: SECRET.into(),
            diagnostic: format!("card {SECRET}"),
            ..Outcome::default()
        },
    )
}

fn outcome() -> impl Strategy<Value = (Outcome, Outcome)> {
    let signal = of(prop_oneof![4 => -130..0, 1 => any::<i32>()]);
    (bare(), signal, number(4), of(emv()), of(latencies()), of(reader())).prop_map(
        |(bare, signal_dbm, attempt, emv, latencies, reader_history)| {
            let outcome = Outcome { signal_dbm, attempt, emv, latencies, reader_history, ..bare.clone() };
            (bare, outcome)
        },
    )
}

fn is_whole(text: Option<&LocalizedText>) -> bool {
    text.is_some_and(|text| {
        let is_whole = text.en.is_ascii() && !text.en.is_empty() && !text.zh_cn.is_ascii() && text.en.len().max(text.zh_cn.len()) <= 1000;
        is_whole && !text.en.contains(SECRET) && !text.zh_cn.contains(SECRET)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_outcome_has_a_verdict_in_words((_, outcome) in outcome()) {
        let verdict = RULES.verdict(&outcome);
        prop_assert_eq!(RULES.explain(&outcome, None).verdict, verdict);
        let words = RULES.in_words(&verdict, &outcome);
        for (one, other) in [(Fact::ReaderFailsOften, Fact::ReaderReadsWell), (Fact::WeakSignal, Fact::GoodSignal), (Fact::PinWrong, Fact::ChipError)] {
            prop_assert!(!(verdict.facts.has(one) && verdict.facts.has(other)), "{:?}", verdict.facts);
        }
        prop_assert!((0.0..=1.0).contains(&words.confidence) && words.tag.contains('/'));
        for text in [&words.meaning, &words.merchant_text, &words.cashier, &words.service_desk, &words.prevention] {
            prop_assert!(is_whole(text.as_ref()), "{text:?}");
        }
        prop_assert!(words.evidence.len() <= 64);
        for evidence in &words.evidence {
            prop_assert!(is_whole(evidence.text.as_ref()), "{evidence:?}");
        }
    }

    /// Facts say who it was more exactly, and nothing else.
    #[test]
    fn facts_change_neither_the_tag_nor_what_is_known_of_the_money((bare, outcome) in outcome()) {
        let (before, after) = (RULES.verdict(&bare), RULES.verdict(&outcome));
        prop_assert_eq!(before.tag, after.tag);
        prop_assert_eq!(before.rule_set, after.rule_set);
        prop_assert_eq!(before.reason.cause == Cause::Approved, after.reason.cause == Cause::Approved);
        prop_assert!(before.reason.retry != Retry::QueryFirst || after.reason.retry == Retry::QueryFirst);
        prop_assert!(before.facts.iter().all(|fact| fact == Fact::SentWhole));
        prop_assert_eq!(before.confidence, before.reason.confidence);
        if after.facts == before.facts {
            prop_assert_eq!(before, after);
        }
    }
}
