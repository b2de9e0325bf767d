//! Rules that change while a classifier works.

use faultline_proto::ingest::v1::Event;
use faultline_proto::outcome::v1::{CardNetwork, Outcome, Stage, TerminalResult};
use serde_json::{Value, json};

use crate::classifier::{counted, place, road, settings};
use crate::console::Console;
use crate::program::eventually;
use crate::replay::run;
use crate::sandbox::scratch;
use crate::services::{Gateway, Service, query};
use crate::terminal::{batch, event, outcome};

/// What comes with the program, but for one code.
fn rules(reason: &str) -> String {
    format!(
        "version = \"unionpay-pos/own\"\ninherits = \"unionpay-pos\"\n\n\
         [[response_code]]\ncode = \"40\"\nreason = \"{reason}\"\nsource = \"the acquirer\"\n"
    )
}

#[tokio::test]
async fn rules_are_loaded_again_and_wrong_ones_are_refused_and_no_event_is_lost() {
    let (kafka, clickhouse) = place("rules").await;
    let directory = scratch("rules");
    let file = directory.path().join("ours.toml");
    std::fs::write(&file, rules("issuer_refused")).unwrap();
    let mut settings = settings(&kafka, &clickhouse);
    settings.push(("CLASSIFIER__RULES", directory.path().to_str().unwrap().into()));
    let classifier = Service::start("classifier", settings);
    let gateway = Gateway::start_on(kafka, &[]).await;
    tokio::join!(gateway.service.until_ready(), classifier.until_ready());

    let terminal = gateway.terminal();
    let mut reported = 0;
    // Ten events, of which each has the same code.
    let mut report = async || {
        let events = (reported + 1..=reported + 10).map(|sequence| {
            let outcome = Outcome { stage: Stage::HostDecision.into(), response_code: "40".into(), ..outcome() };
            faultline_proto::ingest::v1::Event { outcome: Some(outcome), ..event(sequence) }
        });
        terminal.report(batch(events.collect())).await.unwrap();
        reported += 10;
        reported
    };
    let loads = async |result: &str| classifier.counted("faultline_classifier_rules_loads_total", &[&format!("result=\"{result}\"")]).await;
    let reasons = async || query(&clickhouse, "SELECT reason, uniqExact(rule_set) FROM outcomes GROUP BY reason ORDER BY reason").await;

    let so_many = report().await;
    counted(&clickhouse, usize::try_from(so_many).unwrap()).await;
    assert_eq!(reasons().await, "issuer_refused\t1");

    // Events come all the while.
    std::fs::write(&file, rules("issuer_error")).unwrap();
    let loaded = async || {
        report().await;
        (loads("ok").await > 0).then_some(())
    };
    eventually("the new rules are loaded", loaded).await;
    report().await;
    let stored = async || (reasons().await == "issuer_error\t1\nissuer_refused\t1").then_some(());
    eventually("outcomes are judged by the new rules", stored).await;

    std::fs::write(&file, rules("issuer_errs")).unwrap();
    let refused = async || {
        report().await;
        (loads("failed").await > 0).then_some(())
    };
    eventually("the wrong rules are refused", refused).await;
    let so_many = report().await;
    counted(&clickhouse, usize::try_from(so_many).unwrap()).await;
    assert_eq!(reasons().await, "issuer_error\t1\nissuer_refused\t1");
    assert_eq!((loads("ok").await, loads("failed").await), (1, 1));

    let said = classifier.stop().await.stderr;
    let refusal = said.lines().find(|line| line.contains("the rules stay as they were")).expect("it says that it refused them");
    assert!(refusal.contains("ours.toml:4: response code `40` names reason `issuer_errs`, which there is not"), "{refusal}");
}

/// A code that the host answered, and what the shop was told.
fn answered(sequence: u64, code: &str, result: TerminalResult) -> Event {
    let outcome = Outcome {
        stage: Stage::HostDecision.into(),
        network: CardNetwork::Unionpay.into(),
        acquirer_id: "48020000".into(),
        response_code: code.into(),
        response_spec: "unionpay-pos".into(),
        result: result.into(),
        ..outcome()
    };
    Event { outcome: Some(outcome), ..event(sequence) }
}

#[tokio::test]
async fn codes_that_nobody_knows_are_gathered_until_rules_know_them() {
    let (gateway, classifier, clickhouse) = road("unknown-codes").await;
    let (approved, declined) = (TerminalResult::Approved, TerminalResult::Declined);
    let events = vec![
        answered(1, "ZZ", declined),
        answered(2, "ZZ", approved),
        answered(3, "ZZ", declined),
        answered(4, "ZZ", declined),
        answered(5, "ZY", declined),
        answered(6, "51", declined),
        // An approval without a code is no code that is unknown.
        answered(7, "", approved),
    ];
    gateway.terminal().report(batch(events)).await.unwrap();
    counted(&clickhouse, 7).await;

    let console = Console::start(&clickhouse, &[]).await;
    console.service.until_ready().await;
    let asked = async || console.of_acme("unknown-codes?minutes=60").await["codes"].clone();
    let codes = asked().await;
    let brief = |code: &Value| ["response_code", "outcomes", "told_approved", "terminals"].map(|name| code[name].clone());
    assert_eq!(
        codes.as_array().unwrap().iter().map(brief).collect::<Vec<_>>(),
        [[json!("ZZ"), json!(4), json!(1), json!(1)], [json!("ZY"), json!(1), json!(0), json!(1)]]
    );
    let most = &codes[0];
    assert_eq!(
        (&most["network"], &most["acquirer"], &most["response_spec"], &most["tenant"]),
        (&json!("unionpay"), &json!("48020000"), &json!("unionpay-pos"), &json!("acme"))
    );
    assert_eq!(most["examples"].as_array().unwrap().len(), 3);
    assert_eq!((&most["examples"][0]["terminal"], &most["examples"][0]["spool"]), (&json!("T-1"), &json!("7")));
    assert_eq!(console.of_acme("unknown-codes?limit=1").await["codes"].as_array().unwrap().len(), 1);
    console.refused("/api/v1/tenants/acme/unknown-codes?limit=0", 400, "`limit`: `0` is not a whole number from 1 to 200").await;

    // What is offered is filled in, and judges what is stored again.
    let (_, said) = run(&gateway, &clickhouse, &["rules", "unknown", "--tenant", "acme"]).await;
    let offered = said.split_once("\nversion = ").expect(&said).1;
    let directory = scratch("unknown-codes");
    let file = directory.path().join("ours.toml");
    let filled = format!("version = {offered}").replace("reason = \"\"", "reason = \"issuer_refused\"");
    std::fs::write(&file, filled.replace("source = \"\"", "source = \"the acquirer\"")).unwrap();
    let file = file.to_str().unwrap();
    let (is_success, said) = run(&gateway, &clickhouse, &["replay", "--tenant", "acme", "--from", "1h", "--rules", file, "--yes"]).await;
    assert!(is_success && said.contains("5 outcomes were corrected"), "{said}");
    assert_eq!(asked().await, json!([]));
    assert_eq!(run(&gateway, &clickhouse, &["rules", "unknown", "--json"]).await, (true, "[]\n".into()));
    for service in [console.service, classifier] {
        service.stop().await;
    }
    gateway.stop().await;
}
