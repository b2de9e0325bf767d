//! Verdicts that what else fails corrects: a bank that answers `05` in an outage, over the real road.

use faultline_proto::ingest::v1::{Event, OutcomeBatch};
use faultline_proto::outcome::v1::{CardToken, Outcome, Stage, TerminalResult};
use faultline_store::{ClickHouseConfig, families};

use crate::classifier::{counted, road};
use crate::program::{Faultline, eventually};
use crate::services::{Gateway, Service, query, settings_with};
use crate::terminal::{batch, outcome};

const TERMINALS: u64 = 60;
/// Sales of each, one every ten seconds, the last just now.
const SALES: u64 = 60;
/// From which sale on the bank refuses.
const FIRST: u64 = 36;
/// Cards of the bank that fails, and of one that does not.
const BINS: [(&str, &str); 2] = [("622202", "icbc"), ("621700", "ccb")];

/// A sale at a terminal: refused by the bank that fails, nine times of ten from some time on; and now and then by any.
fn sale(terminal: u64, number: u64) -> Outcome {
    let place = terminal * SALES + number;
    let which = usize::from(place % 2 == 1);
    let is_refused = (which == 0 && number >= FIRST && !place.is_multiple_of(10)) || place % 97 == 1;
    Outcome {
        bin: BINS[which].0.into(),
        card_token: Some(CardToken { key_id: 1, value: u32::try_from(place).unwrap() }),
        stage: Stage::HostDecision.into(),
        response_code: if is_refused { "05".into() } else { "00".into() },
        response_spec: "unionpay-pos".into(),
        result: if is_refused { TerminalResult::Declined.into() } else { TerminalResult::Approved.into() },
        acquirer_id: "acq".into(),
        host_id: format!("h{}", terminal % 2),
        ..outcome()
    }
}

async fn report(gateway: &Gateway) {
    let collector = gateway.collector().await;
    for terminal in 0..TERMINALS {
        let event = |number| Event {
            sequence: number + 1,
            age_ms: Some(1000 + (SALES - 1 - number) * 10_000),
            outcome: Some(sale(terminal, number)),
        };
        let sales = batch((0..SALES).map(event).collect());
        let sent = collector.report(OutcomeBatch { terminal_id: format!("T-{terminal}"), ..sales }).await.unwrap();
        assert_eq!(sent.refusals, []);
    }
}

/// Of each bank, how many outcomes stand as which cause and for which reason.
async fn standing(clickhouse: &ClickHouseConfig) -> String {
    let sql = "SELECT issuer, cause, reason, sum(sign) AS some FROM outcomes WHERE cause != 'approved' GROUP BY ALL HAVING some != 0 ORDER BY ALL";
    query(clickhouse, sql).await
}

/// Asserts that every family counts what the rows say, by tag and by cause.
async fn families_agree(clickhouse: &ClickHouseConfig) {
    let rows = "SELECT tag, cause, sum(sign) AS some, sum(sign * amount_minor) FROM outcomes GROUP BY ALL HAVING some != 0 ORDER BY ALL";
    let rows = query(clickhouse, rows).await;
    for family in families() {
        let sums = format!(
            "SELECT tag, cause, sum(count) AS some, sum(amount_minor) FROM rollup WHERE family = '{family}' AND NOT simulated GROUP BY ALL HAVING some != 0 ORDER BY ALL"
        );
        assert_eq!(query(clickhouse, &sums).await, rows, "{family}");
    }
}

#[tokio::test]
async fn a_bank_that_answers_05_in_an_outage_is_at_fault_until_that_is_taken_back() {
    let (gateway, classifier, clickhouse) = road("attribution").await;
    report(&gateway).await;
    counted(&clickhouse, usize::try_from(TERMINALS * SALES).unwrap()).await;
    let before = standing(&clickhouse).await;
    assert_eq!(before.lines().filter(|line| line.contains("\taccount\tissuer_refused\t")).count(), 2, "{before}");

    let mut settings = settings_with(&gateway.kafka, &clickhouse);
    settings.push(("ALERTER__ATTRIBUTION__INTERVAL", "1s".into()));
    let alerter = Service::start("alerter", settings.clone());
    // What a correction changes is counted after it is written.
    let of_bank = "SELECT sum(count) FROM rollup WHERE cause = 'bank' AND family = 'fleet'";
    let expected = (0..TERMINALS).flat_map(|terminal| (FIRST..SALES).map(move |number| (terminal, number)));
    let expected = expected
        .filter(|(terminal, number)| sale(*terminal, *number).response_code == "05" && (terminal * SALES + number).is_multiple_of(2))
        .count();
    eventually("what the bank refused is the bank's", async || (query(&clickhouse, of_bank).await == expected.to_string()).then_some(()))
        .await;
    let settled = standing(&clickhouse).await;
    // What other banks refuse is the accounts' business, and so is what this one refused before.
    assert!(
        settled.contains(&format!("icbc\tbank\tissuer_refusing\t{expected}")) && settled.contains("ccb\taccount\tissuer_refused\t"),
        "{settled}"
    );
    assert!(settled.contains("icbc\taccount\tissuer_refused\t") && settled.lines().count() == 3, "{settled}");
    families_agree(&clickhouse).await;
    // What was said first can still be read.
    let first = "SELECT count() FROM outcomes WHERE revision = 0 AND sign = 1 AND reason = 'issuer_refused' AND issuer = 'icbc'";
    assert!(query(&clickhouse, first).await.parse::<usize>().unwrap() > expected);
    let attributed = async || alerter.counted("faultline_alerter_attributed_outcomes_total", &["cause=\"bank\""]).await;
    let expected = u64::try_from(expected).unwrap();
    eventually("the alerter counts what it attributed", async || (attributed().await >= expected).then_some(())).await;

    let listed = Faultline::output_with(&["corrections", "list"], &settings).await;
    let listed = String::from_utf8(listed.stdout).unwrap();
    let line = listed.lines().find(|line| line.contains("attribution")).unwrap_or_else(|| panic!("{listed}"));
    assert!(line.contains("issuer icbc") && line.contains("are usual"), "{line}");
    let id = line.split_whitespace().next().unwrap();
    // Taken back, it stays so: the alerter, which finds the same again, leaves it alone.
    let undone = Faultline::output_with(&["corrections", "undo", id, "--yes"], &settings).await;
    assert!(undone.status.success(), "{undone:?}");
    assert_eq!(standing(&clickhouse).await, before);
    families_agree(&clickhouse).await;
    let attributions = async || alerter.counted("faultline_alerter_attribution_seconds_count", &[]).await;
    let seen = attributions().await;
    eventually("it was looked at again, twice", async || (attributions().await > seen + 1).then_some(())).await;
    assert_eq!(standing(&clickhouse).await, before);
    alerter.stop().await;
    classifier.stop().await;
    gateway.stop().await;
}
