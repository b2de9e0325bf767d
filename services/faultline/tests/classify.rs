//! `faultline classify`, as whoever has a file of outcomes uses it.
#![expect(clippy::unwrap_used, reason = "a test, its helpers included, may stop at the first surprise")]

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// Exit code, answers, and what was said on standard error.
fn classify(arguments: &[&str], input: &str) -> (Option<i32>, Vec<Value>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_faultline"));
    command.arg("classify").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // It may answer before it has read everything.
    let writing = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let _ = writing.join().unwrap();
    let answers = String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (output.status.code(), answers, String::from_utf8(output.stderr).unwrap())
}

#[test]
fn outcomes_are_judged_one_by_one_and_lines_that_are_none_are_told() {
    let input = "{\"responseCode\": \"51\", \"responseSpec\": \"unionpay-pos\", \"stage\": \"STAGE_HOST_DECISION\"}\n\n\
                 {\"responseCode\": 51}\n{\"terminalId\": \"T-1\", \"sequence\": \"9\", \"outcome\": {\"stage\": \"STAGE_WAIT\"}}\nno\n";
    let (code, answers, complained) = classify(&[], input);
    assert_eq!(code, Some(3), "{complained}");
    assert_eq!(answers.len(), 2);
    let [funds, silent] = [&answers[0], &answers[1]];
    assert_eq!(
        (&funds["line"], &funds["verdict"]["reason"], &funds["verdict"]["cause"]),
        (&json!("1"), &json!("insufficient_funds"), &json!("CAUSE_ACCOUNT"))
    );
    assert!(funds["verdict"]["cashier"]["zhCn"].is_string() && funds["verdict"]["prevention"]["en"].is_string(), "{funds}");
    assert_eq!(
        (&silent["line"], &silent["terminalId"], &silent["verdict"]["retry"]),
        (&json!("4"), &json!("T-1"), &json!("RETRY_QUERY_FIRST"))
    );
    assert_eq!((silent.get("settled"), silent.get("fault")), (None, None));
    assert!(
        complained.contains("line 3 is no outcome: ")
            && complained.contains("line 5 is no outcome: ")
            && complained.contains("2 lines are no outcomes"),
        "{complained}"
    );
}

/// Sales of forty minutes at thirty terminals, one every three seconds; `code` says how each is answered.
fn fleet(code: impl Fn(u64) -> &'static str) -> String {
    let line = |sale: u64| {
        let seconds = sale * 3;
        json!({
            "terminalId": format!("T-{}", sale % 30), "spoolId": "1", "sequence": (sale + 1).to_string(),
            "profile": {"carrier": format!("c{}", sale % 3), "region": format!("r{}", sale % 5)},
            "outcome": {
                "completionTime": format!("2026-11-29T10:{:02}:{:02}Z", seconds / 60, seconds % 60), "merchantId": format!("M{}", sale % 15), "type": "TRANSACTION_TYPE_SALE",
                "bin": if bank(sale) == 0 { "622202" } else { "621700" }, "acquirerId": "a", "hostId": format!("h{}", sale % 2), "stage": "STAGE_HOST_DECISION",
                "responseCode": code(sale), "responseSpec": "unionpay-pos",
            },
        })
        .to_string()
    };
    (0..800).map(line).collect::<Vec<_>>().join("\n")
}

/// Which of two banks a sale's card is of.
fn bank(sale: u64) -> u64 {
    sale / 7 % 2
}

#[test]
fn a_file_is_settled_as_if_it_were_the_fleet() {
    let is_out = |sale: u64| bank(sale) == 0 && sale >= 400;
    let input = fleet(|sale| if (is_out(sale) && !sale.is_multiple_of(5)) || sale == 50 || sale == 700 { "05" } else { "00" });
    for arguments in [&["--settle"][..], &["--settle", "--every", "1m"]] {
        let (code, answers, complained) = classify(arguments, &input);
        assert_eq!((code, answers.len()), (Some(0), 800), "{complained}");
        for (sale, answer) in (0..).zip(&answers) {
            assert_eq!(answer["line"], (sale + 1).to_string());
            let settled = answer.get("settled").map(|settled| (settled["cause"].as_str().unwrap(), settled["reason"].as_str().unwrap()));
            let expected = match answer["verdict"]["reason"].as_str().unwrap() {
                "approved" => None,
                _ if is_out(sale) => Some(("CAUSE_BANK", "issuer_refusing")),
                _ => Some(("CAUSE_ACCOUNT", "issuer_refused")),
            };
            assert_eq!(settled, expected, "{answer}");
        }
        let one = answers.iter().find(|answer| answer.get("fault").is_some()).unwrap();
        let fault = &one["fault"];
        assert_eq!((&fault["family"], &fault["part"], &fault["symptom"]), (&json!("issuer"), &json!("icbc"), &json!("refused")), "{one}");
        let evidence = one["settled"]["evidence"].as_array().unwrap().last().unwrap();
        assert!(evidence["fact"] == "fleet" && evidence["text"]["en"].as_str().unwrap().contains("attempts of issuer icbc"), "{evidence}");
        // The first of them could not be told from an account until others followed.
        let after = answers.iter().filter_map(|answer| answer.get("settledAfterS")).count();
        assert_eq!(after > 0, arguments.len() > 1, "{after}");
    }
}
