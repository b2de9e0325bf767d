//! Verdicts that change after they were stored: by other rules, and by what is told later. The program's side; `corrections.rs` has the store's.

use std::process::Stdio;

use faultline_proto::correction::v1::{CorrectedColumns, Correction, CorrectionKind, CorrectionState, CorrectionStep};
use faultline_proto::ingest::v1::Event;
use faultline_proto::outcome::v1::{
    EmvEvidence, MoneyOutcome, OriginalTransaction, Outcome, ReaderHistory, Stage, StageLatencies, TerminalCondition, TransactionType,
};
use faultline_store::ClickHouseConfig;
use faultline_stream::CorrectionLog;
use tokio::process::Command;

use crate::classifier::{counted, road};
use crate::program::eventually;
use crate::sandbox::{program, scratch};
use crate::services::{Gateway, Service, query, settings_with};
use crate::terminal::{batch, event, in_seconds, outcome};

/// What comes with the program, but for one code.
const RULES: &str = include_str!("../../crates/verdict/rules/unionpay-pos.toml");

fn declined(sequence: u64, code: &str) -> Event {
    let outcome = Outcome { stage: Stage::HostDecision.into(), response_code: code.into(), ..outcome() };
    Event { outcome: Some(outcome), ..event(sequence) }
}

/// Runs a tool to its end. Returns whether it succeeded, and what it said.
pub(crate) async fn run(gateway: &Gateway, clickhouse: &ClickHouseConfig, arguments: &[&str]) -> (bool, String) {
    let settings = settings_with(&gateway.kafka, clickhouse).into_iter().map(|(key, value)| (format!("FAULTLINE__{key}"), value));
    let output = Command::new(program()).args(arguments).envs(settings).stdin(Stdio::null()).output().await.unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.success(), said)
}

/// How many stand by cause, in the rows and in a family, which agree.
async fn causes(clickhouse: &ClickHouseConfig) -> String {
    let rows = "SELECT cause, sum(sign) AS some FROM outcomes GROUP BY cause HAVING some != 0 ORDER BY cause";
    let sums = "SELECT cause, sum(count) AS some FROM rollup WHERE family = 'host' GROUP BY cause HAVING some != 0 ORDER BY cause";
    let (rows, sums) = (query(clickhouse, rows).await, query(clickhouse, sums).await);
    assert_eq!(rows, sums);
    rows.replace('\t', " ").replace('\n', ", ")
}

#[tokio::test]
async fn a_replay_shows_what_would_change_and_changes_it_and_is_undone() {
    let (gateway, _classifier, clickhouse) = road("replay").await;
    let codes = ["51", "51", "00", "91", "51"];
    let events: Vec<Event> = (1..).zip(codes).map(|(sequence, code)| declined(sequence, code)).collect();
    gateway.terminal().report(batch(events)).await.unwrap();
    counted(&clickhouse, 5).await;
    assert_eq!(causes(&clickhouse).await, "approved 1, bank 1, account 3");

    let directory = scratch("replay");
    let rules = directory.path().join("rules.toml");
    let other = RULES.replace("code = \"51\"\nreason = \"insufficient_funds\"", "code = \"51\"\nreason = \"unknown_code\"");
    assert_ne!(other, RULES);
    std::fs::write(&rules, other).unwrap();
    let rules = rules.to_str().unwrap();
    let replay = ["replay", "--tenant", "acme", "--from", "1h", "--rules", rules];
    let replay_with = |more| [&replay[..], &[more]].concat();

    // Shown, and not changed: nobody agreed.
    for (arguments, succeeds, ends) in [
        (replay_with("--dry-run"), true, "Nothing was changed (--dry-run)."),
        (replay.to_vec(), false, "nobody can be asked whether to do it: say --yes"),
    ] {
        let (is_success, said) = run(&gateway, &clickhouse, &arguments).await;
        assert_eq!(is_success, succeeds, "{said}");
        assert!(said.contains("Looking at 5 outcomes of tenant acme") && said.contains(ends), "{said}");
        assert!(said.contains("           3  account insufficient_funds  to  unknown unknown_code"), "{said}");
    }
    let (_, said) = run(&gateway, &clickhouse, &["corrections", "list"]).await;
    assert!(said.contains("Nothing was ever corrected."), "{said}");
    assert_eq!(causes(&clickhouse).await, "approved 1, bank 1, account 3");

    let (is_success, said) = run(&gateway, &clickhouse, &replay_with("--yes")).await;
    assert!(is_success && said.contains("3 outcomes were corrected"), "{said}");
    assert_eq!(causes(&clickhouse).await, "approved 1, bank 1, unknown 3");
    let (is_success, said) = run(&gateway, &clickhouse, &replay_with("--yes")).await;
    assert!(is_success && said.contains("Nothing would change."), "{said}");

    let (_, said) = run(&gateway, &clickhouse, &["corrections", "list", "--tenant", "acme"]).await;
    assert!(said.contains("replay") && said.contains("finished") && said.contains("3 of acme"), "{said}");
    let id = said.split_whitespace().next().unwrap().to_owned();
    let (is_success, said) = run(&gateway, &clickhouse, &["corrections", "undo", &id, "--yes"]).await;
    assert!(is_success && said.contains("3  unknown unknown_code  to  account insufficient_funds"), "{said}");
    assert_eq!(causes(&clickhouse).await, "approved 1, bank 1, account 3");
    let (is_success, said) = run(&gateway, &clickhouse, &["corrections", "undo", "nosuch", "--yes"]).await;
    assert!(!is_success && said.contains("there is no correction `nosuch`"), "{said}");
}

/// Rows keep all that facts come from, so a replay by the same rules finds what was found the first time.
#[tokio::test]
async fn a_replay_weighs_what_else_an_outcome_shows() {
    let (gateway, _classifier, clickhouse) = road("facts").await;
    let latencies =
        StageLatencies { dns_ms: Some(20), connect_ms: Some(80), tls_ms: Some(150), wait_ms: Some(60_000), ..StageLatencies::default() };
    let tvr = |bytes: [u8; 5]| EmvEvidence { terminal_verification_results: bytes.to_vec().into(), ..EmvEvidence::default() };
    let read =
        Outcome { stage: Stage::CardRead.into(), terminal_condition: TerminalCondition::ChipRead.into(), bin: String::new(), ..outcome() };
    let refused = Outcome { stage: Stage::HostDecision.into(), response_code: "05".into(), ..outcome() };
    let fails = ReaderHistory { reads: 30, failures: 5, failed_sales: 4, consecutive_failures: 1, next_good_read_ms: Some(42_000) };
    let well = ReaderHistory { reads: 200, failures: 2, failed_sales: 2, consecutive_failures: 1, next_good_read_ms: None };
    let outcomes = [
        Outcome { signal_dbm: Some(-113), ..outcome() },
        Outcome { latencies: Some(latencies), ..outcome() },
        Outcome { reader_history: Some(fails), ..read.clone() },
        Outcome { reader_history: Some(well), attempt: 2, ..read.clone() },
        Outcome { emv: Some(EmvEvidence { status_words: vec![0x9000, 0x6A82], ..EmvEvidence::default() }), ..read },
        Outcome { emv: Some(tvr([0, 0, 0x10, 0x80, 0])), ..refused.clone() },
        Outcome { emv: Some(EmvEvidence { fallback: true, ..EmvEvidence::default() }), response_code: "45".into(), ..refused },
    ];
    let events = (1..).zip(outcomes).map(|(sequence, outcome)| Event { outcome: Some(outcome), ..event(sequence) });
    gateway.terminal().report(batch(events.collect())).await.unwrap();
    counted(&clickhouse, 7).await;
    let found = query(&clickhouse, "SELECT reason, confidence, tag FROM outcomes ORDER BY sequence").await;
    let expected = [
        "no_answer 85 no_answer/wait",
        "no_answer 45 no_answer/wait",
        "reader_failing 72 device_read/card_read",
        "card_worn 75 device_read/card_read",
        "card_not_accepted 60 device_read/card_read",
        "pin_pad_fault 85 issuer_refusal/host_decision",
        "fallback_refused 55 operator/host_decision",
    ];
    assert_eq!(found.replace('\t', " ").lines().collect::<Vec<_>>(), expected);
    let (is_success, said) = run(&gateway, &clickhouse, &["replay", "--tenant", "acme", "--from", "1h", "--dry-run"]).await;
    assert!(is_success && said.contains("Looking at 7 outcomes") && said.contains("Nothing would change."), "{said}");
}

/// A process was killed after it had written down a step, and before it had made all of it.
#[tokio::test]
async fn a_correction_that_was_left_is_made_whole_by_the_next() {
    let (gateway, _classifier, clickhouse) = road("left").await;
    gateway.terminal().report(batch((1..=3).map(|sequence| declined(sequence, "51")).collect())).await.unwrap();
    counted(&clickhouse, 3).await;
    let moment = |column| format!("SELECT toUnixTimestamp64Milli({column}) FROM outcomes WHERE sequence = 2");
    let completed_ms: i64 = query(&clickhouse, &moment("completed_at")).await.parse().unwrap();
    let received_ms: i64 = query(&clickhouse, &moment("received_at")).await.parse().unwrap();
    let columns =
        CorrectedColumns { cause: 4, reason: "issuer_down".into(), tag: "issuer_down/host_decision".into(), ..CorrectedColumns::default() };
    let outcome = faultline_proto::correction::v1::CorrectedOutcome {
        terminal: "T-1".into(),
        spool_id: 7,
        sequence: 2,
        completed_ms,
        ..Default::default()
    };
    let since_time = prost_types::Timestamp { seconds: received_ms / 1000, nanos: 0 };
    let step = CorrectionStep { number: 0, since_time: Some(since_time), columns: vec![columns], outcomes: vec![outcome] };
    let left = |heard: i64| Correction {
        correction_id: "0123456789abcdef".into(),
        tenant: "acme".into(),
        kind: CorrectionKind::Replay.into(),
        state: CorrectionState::Open.into(),
        begin_time: Some(in_seconds(-600)),
        update_time: Some(in_seconds(heard)),
        step: Some(step.clone()),
        next_step: 1,
        ..Correction::default()
    };
    let (log, _) = CorrectionLog::take_over(&gateway.kafka).await.unwrap();
    log.write(&left(-300)).await.unwrap();

    // Who only looks settles nothing. The next that is made does, first of all.
    let (is_success, said) = run(&gateway, &clickhouse, &["replay", "--tenant", "acme", "--from", "1h", "--yes"]).await;
    assert!(is_success && said.contains("Nothing would change."), "{said}");
    let other = scratch("left");
    let issuers = other.path().join("issuers.csv");
    std::fs::write(&issuers, "# version: other\nprefix,issuer,name_zh_cn,name_en\n62,union,银联,Union\n").unwrap();
    let replay = ["replay", "--tenant", "acme", "--from", "1h", "--issuers", issuers.to_str().unwrap(), "--yes"];
    let (is_success, said) = run(&gateway, &clickhouse, &replay).await;
    assert!(is_success, "{said}");
    assert!(
        said.contains("a correction was left before its end; its last step is whole now") && said.contains("3 outcomes were corrected"),
        "{said}"
    );
    let (_, said) = run(&gateway, &clickhouse, &["corrections", "list"]).await;
    assert!(said.contains("0123456789abcdef") && said.contains("interrupted"), "{said}");
    // What was left was made; then all three were judged again.
    let history = "SELECT revision, sign, cause, issuer FROM outcomes WHERE sequence = 2 ORDER BY revision, sign DESC";
    let history = query(&clickhouse, history).await;
    assert_eq!(history.lines().filter(|line| line.contains("bank")).count(), 2, "{history}");
    assert_eq!(causes(&clickhouse).await, "account 3");
    assert_eq!(
        query(&clickhouse, "SELECT key, sum(count) AS some FROM rollup WHERE family = 'issuer' GROUP BY key HAVING some != 0").await,
        "union\t3"
    );
    // Whoever woke up now would be refused.
    assert!(log.write(&left(0)).await.unwrap_err().to_string().contains("another process has taken over"));
}

#[tokio::test]
async fn a_reversal_or_a_query_tells_what_became_of_the_money() {
    let (gateway, _classifier, clickhouse) = road("settled").await;
    let doubtful = |sequence| {
        let outcome = Outcome { money_outcome: MoneyOutcome::Unknown.into(), ..outcome() };
        Event { outcome: Some(outcome), age_ms: Some(300_000), ..event(sequence) }
    };
    let follows = |sequence, kind: TransactionType, original: u64, money: MoneyOutcome| {
        let original = Some(OriginalTransaction { spool_id: 7, sequence: original, ..OriginalTransaction::default() });
        let event = declined(sequence, "00");
        let outcome = Outcome { r#type: kind.into(), original, money_outcome: money.into(), ..event.outcome.unwrap() };
        Event { outcome: Some(outcome), ..event }
    };
    let events = vec![
        doubtful(1),
        doubtful(2),
        doubtful(3),
        follows(4, TransactionType::Reversal, 1, MoneyOutcome::Unspecified),
        follows(5, TransactionType::Query, 2, MoneyOutcome::Moved),
        // Nobody knows.
        follows(6, TransactionType::Query, 3, MoneyOutcome::Unknown),
    ];
    gateway.terminal().report(batch(events)).await.unwrap();
    counted(&clickhouse, 6).await;
    let mut settings = settings_with(&gateway.kafka, &clickhouse);
    settings.push(("ALERTER__UNSETTLED_AFTER", "1m".into()));
    let alerter = Service::start("alerter", settings);
    let money = "SELECT groupArray(money) FROM (SELECT argMax(money_outcome, revision) AS money FROM outcomes \
                 WHERE sign = 1 AND sequence <= 3 GROUP BY sequence ORDER BY sequence)";
    eventually("it is settled", async || (query(&clickhouse, money).await == "[2,1,3]").then_some(())).await;
    let whole = "SELECT (SELECT sum(sign) FROM outcomes), (SELECT sum(count) FROM rollup WHERE family = 'issuer')";
    eventually("the sums are too", async || (query(&clickhouse, whole).await == "6\t6").then_some(())).await;
    let (_, said) = run(&gateway, &clickhouse, &["corrections", "list"]).await;
    assert!(said.contains("settlement") && said.contains("2 of acme"), "{said}");
    let settled = async || alerter.counted("faultline_alerter_settled_outcomes_total", &[]).await;
    eventually("the alerter counts what it settled", async || (settled().await == 2).then_some(())).await;
    let unsettled = async || alerter.counted("faultline_alerter_unsettled_outcomes", &[]).await;
    eventually("it is said that one is not", async || (unsettled().await == 1).then_some(())).await;
}
