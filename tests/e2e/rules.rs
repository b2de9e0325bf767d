//! Rules that change while a classifier works.

use faultline_proto::outcome::v1::{Outcome, Stage};

use crate::classifier::{counted, place, settings};
use crate::program::eventually;
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
