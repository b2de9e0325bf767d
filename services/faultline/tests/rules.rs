//! `faultline rules`, as whoever writes rules uses it.
#![expect(clippy::unwrap_used, reason = "a test, its helpers included, may stop at the first surprise")]

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Whether it succeeded, and what it said on standard output and standard error.
fn rules(directory: &Path, arguments: &[&str], input: &str) -> (bool, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_faultline"));
    command.arg("rules").args(arguments).current_dir(directory).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // One that reads no input may be gone before it is written.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let [said, complained] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.success(), said, complained)
}

const OURS: &str = "version = \"ours/1\"\ninherits = \"unionpay-pos\"\nacquirer = \"48020000\"\n\n\
                    [[response_code]]\ncode = \"40\"\nreason = \"issuer_refused\"\nsource = \"our acquirer\"\n";

fn written(text: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("ours.toml"), text).unwrap();
    directory
}

#[test]
fn check_names_file_line_and_reason_and_fails_where_there_are_errors() {
    let directory = written(OURS);
    let (is_success, said, _) = rules(directory.path(), &["check", "ours.toml"], "");
    assert!(is_success && said == "1 file, 0 errors, 0 warnings\n", "{said}");
    let twice = format!("{OURS}\n[[response_code]]\ncode = \"51\"\nreason = \"insufficient_funds\"\nsource = \"\"\n");
    let (is_success, said, complained) = rules(written(&twice).path(), &["check", "."], "");
    assert!(!is_success && complained.contains("these rules are not to be used"), "{complained}");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines[0],
        "./ours.toml:10: warning: response code `51` changes nothing: it has reason `insufficient_funds` anyway \
                          (crates/verdict/rules/unionpay-pos.toml:211)"
            .to_owned()
            .as_str()
    );
    assert_eq!(lines[1..], ["./ours.toml:10: error: response code `51` has no source", "1 file, 1 error, 1 warning"]);
    let (is_success, said, _) = rules(written("version = \"ours/1\"\ninherit = \"x\"\n").path(), &["check", "ours.toml"], "");
    assert!(!is_success && said.starts_with("ours.toml:2: error: unknown field `inherit`"), "{said}");
    let (is_success, _, complained) = rules(directory.path(), &["check", "nothing.toml"], "");
    assert!(!is_success && complained.contains("cannot read nothing.toml"), "{complained}");
}

#[test]
fn explain_shows_the_way_to_a_verdict() {
    let directory = written(OURS);
    let options = ["explain", "--code", "40", "--spec", "unionpay-pos", "--acquirer", "48020000", "--rules", "."];
    let (is_success, said, complained) = rules(directory.path(), &options, "");
    assert!(is_success, "{complained}");
    for part in [
        "> ours/1+",
        "is for acquirer `48020000`; is the home set, and no network was stated; knows specification `unionpay-pos` (./ours.toml:1)",
        "> response code                    `40` is in the table\n    by ./ours.toml:5\n    source: our acquirer\n",
        "tag             issuer_refusal/host_decision\ncause           account\nreason          issuer_refused (crates/verdict/rules/iso8583.toml:",
        "confidence      60 %\nretry           other_card\ntold as         frozen\n",
        "发卡行未批准",
        "\nprevention      培训收银员",
        "\nWhat the outcome shows\nresponse_code                 主机已应答，应答码 40（规范 unionpay-pos）。\n                              The host answered with code 40 (specification unionpay-pos).\n",
    ] {
        assert!(said.contains(part), "{part} is missing from:\n{said}");
    }
    let dated = written(&format!("{OURS}effective_from = 2000-01-01\neffective_until = 2001-01-01\n"));
    for (more, said) in [
        (&["--at", "2000-12-31T23:59:59Z"][..], "issuer_refused"),
        (&["--at", "2001-01-01T00:00:00Z"], "function_not_enabled"),
        (&[], "function_not_enabled"),
    ] {
        let (_, explained, _) = rules(dated.path(), &[&options[..], more].concat(), "");
        assert!(explained.contains(&format!("reason          {said}")), "{explained}");
    }
    let outcome = r#"{"stage": "STAGE_HOST_DECISION", "responseCode": "40", "responseSpec": "unionpay-pos"}"#;
    let (is_success, said, complained) = rules(directory.path(), &["explain", "-", "--json"], outcome);
    assert!(is_success, "{complained}");
    let told: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&told["verdict"]["reason"], &told["steps"][1]["decided"]), (&"function_not_enabled".into(), &true.into()));
    assert_eq!((&told["verdict"]["cause"], &told["verdict"]["confidence"]), (&"CAUSE_OTHER".into(), &0.6.into()));
    let weak = r#"{"stage": "STAGE_WAIT", "terminalCondition": "TERMINAL_CONDITION_RESPONSE_TIMEOUT", "signalDbm": -113}"#;
    let (_, explained, _) = rules(directory.path(), &["explain", "-"], weak);
    for part in [
        "> terminal condition               `response_timeout` is in the table\n",
        "> facts                            weak_signal of weak_signal, sent_whole\n    by crates/verdict/rules/iso8583.toml:",
        "confidence      85 %\n",
        "weak_signal                   信号 -113 dBm，偏弱（-108 dBm 及以下）。\n                              The signal was -113 dBm, which is weak (-108 dBm or less).\n",
    ] {
        assert!(explained.contains(part), "{part} is missing from:\n{explained}");
    }
    let (_, said_as_json, _) = rules(directory.path(), &["explain", "-", "--json"], weak);
    let weak: serde_json::Value = serde_json::from_str(&said_as_json).unwrap();
    let facts: Vec<&str> = weak["verdict"]["evidence"].as_array().unwrap().iter().filter_map(|shown| shown["fact"].as_str()).collect();
    assert_eq!(facts, ["terminal_condition", "stage", "weak_signal", "sent_whole"]);
    assert_eq!((&weak["verdict"]["retry"], &weak["verdict"]["confidence"]), (&"RETRY_QUERY_FIRST".into(), &0.85.into()));
    assert!(told["sets"][0]["set"].as_str().unwrap().starts_with("unionpay-pos/"));
    let (is_success, _, complained) = rules(directory.path(), &["explain", "--stage", "lunch"], "");
    assert!(!is_success && complained.contains("lunch"), "{complained}");
    let (is_success, _, complained) = rules(directory.path(), &["explain", "-"], "{\"stag\": 1}");
    assert!(!is_success && complained.contains("- is no outcome") && complained.contains("stag"), "{complained}");
}

#[test]
fn diff_and_list_show_what_rules_say() {
    let directory = written(&OURS.replace("ours/1", "unionpay-pos/own").replace("acquirer = \"48020000\"\n", ""));
    let (is_success, said, _) = rules(directory.path(), &["diff", "built-in", "ours.toml"], "");
    assert!(is_success && said == "unionpay-pos\n  response code `40`\n    - function_not_enabled\n    + issuer_refused\n", "{said}");
    assert_eq!(rules(directory.path(), &["diff", "built-in", "built-in"], "").1, "They say the same.\n");
    let outcomes =
        "{\"response_code\": \"40\"}\n{\"response_code\": \"51\"}\n{\"response_code\": \"40\", \"network\": \"CARD_NETWORK_VISA\"}\n";
    std::fs::write(directory.path().join("outcomes.ndjson"), outcomes).unwrap();
    let (_, said, _) = rules(directory.path(), &["diff", "built-in", "ours.toml", "--on", "outcomes.ndjson"], "");
    assert_eq!(
        said,
        "3 outcomes, of which 1 are judged otherwise\n           1  other function_not_enabled (60 %)  to  account issuer_refused (60 %)\n"
    );
    std::fs::write(directory.path().join("outcomes.ndjson"), "{}\n[]\n").unwrap();
    let (is_success, _, complained) = rules(directory.path(), &["diff", "built-in", "ours.toml", "--on", "outcomes.ndjson"], "");
    assert!(!is_success && complained.contains("line 2 is no outcome"), "{complained}");
    let (_, said, _) = rules(directory.path(), &["list", "--rules", "."], "");
    assert!(
        said.contains("unionpay-pos/own+") && said.contains("home, specifications unionpay-pos, network unionpay, inherits unionpay-pos/"),
        "{said}"
    );
    assert!(said.contains(" codes, 23 conditions, 10 stages, 69 of evidence, 91 reasons"), "{said}");
}

#[test]
fn rules_for_terminals_are_signed_with_a_key_and_checked_with_its_public_half() {
    let directory = written(OURS);
    let (is_success, said, complained) = rules(directory.path(), &["keygen", "--out", "key"], "");
    assert!(is_success, "{complained}");
    let public = said.trim();
    assert!(public.len() == 64 && public.bytes().all(|byte| byte.is_ascii_hexdigit()), "{said}");
    let key = directory.path().join("key");
    let private = std::fs::read_to_string(&key).unwrap();
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let (is_success, _, complained) = rules(directory.path(), &["keygen", "--out", "key"], "");
    assert!(!is_success && complained.contains("cannot write key (--out)"), "{complained}");
    assert_eq!(std::fs::read_to_string(&key).unwrap(), private, "another key would make every terminal deaf");

    let pack = ["pack", "--key", "key", "--out", "bundle", "ours.toml"];
    let (is_success, packed, complained) = rules(directory.path(), &pack, "");
    assert!(is_success && !complained.contains("PRIVATE"), "{complained}");
    let (_, in_force, _) = rules(directory.path(), &["list", "--rules", "ours.toml"], "");
    let version = in_force.lines().next().unwrap();
    assert!(packed.starts_with(&format!("1 file, 0 errors, 0 warnings\n{version}, issued 20")), "{packed}");
    let (is_success, verified, complained) = rules(directory.path(), &["verify", "--key", public, "bundle"], "");
    assert!(is_success, "{complained}");
    assert_eq!(packed.lines().last(), verified.lines().next());
    assert!(verified.contains("\nours/1+") && verified.contains("acquirer 48020000"), "{verified}");

    let other = "0".repeat(64);
    let (is_success, _, complained) = rules(directory.path(), &["verify", "--key", &other, "bundle"], "");
    assert!(!is_success && complained.contains("bundle: it is signed with key"), "{complained}");
    let mut bytes = std::fs::read(directory.path().join("bundle")).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(directory.path().join("bundle"), &bytes).unwrap();
    let (is_success, _, complained) = rules(directory.path(), &["verify", "--key", public, "bundle"], "");
    assert!(!is_success && complained.contains("its signature is wrong"), "{complained}");

    // Rules with errors are not packed, and what was packed stays.
    std::fs::write(directory.path().join("ours.toml"), OURS.replace("our acquirer", "")).unwrap();
    let (is_success, said, complained) = rules(directory.path(), &pack, "");
    assert!(!is_success && said.contains("response code `40` has no source"), "{said}");
    assert!(complained.contains("these rules are not to be used"), "{complained}");
    assert_eq!(std::fs::read(directory.path().join("bundle")).unwrap(), bytes);
}
