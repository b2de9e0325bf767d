//! Verdicts in the terminal: without a network, and by rules that the operator has signed and a gateway handed on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use faultline_proto::outcome::v1::{Outcome, Stage};
use faultline_proto::terminal::v1::TerminalProfile;
use faultline_sdk::{Cause, Connection, Retry, Terminal, TerminalRules};
use faultline_stream::KafkaConfig;
use prost::Message;
use tempfile::TempDir;

use crate::program::{Faultline, eventually};
use crate::sandbox::{sandbox, scratch};
use crate::services::{Gateway, new_token};
use crate::terminal::outcome;

fn answered(code: &str) -> Outcome {
    Outcome { stage: Stage::HostDecision.into(), response_code: code.into(), ..outcome() }
}

/// Whoever is answerable for the rules: has the private key, which no gateway has.
struct Operator {
    directory: TempDir,
    public_key: String,
}

impl Operator {
    async fn new() -> Operator {
        let directory = scratch("operator");
        let public_key = said(&["rules", "keygen", "--out", directory.path().join("key").to_str().unwrap()]).await;
        Operator { directory, public_key: public_key.trim().into() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn rules(&self) -> TerminalRules {
        TerminalRules::signed_by([self.public_key.parse().unwrap()]).unwrap()
    }

    /// Signs rules with another reason for code 40, and puts them where a gateway finds them. Says their version.
    async fn sign(&self, reason: &str) -> String {
        let text = format!(
            "version = \"unionpay-pos/own\"\ninherits = \"unionpay-pos\"\n\n\
             [[response_code]]\ncode = \"40\"\nreason = \"{reason}\"\nsource = \"the acquirer\"\n"
        );
        let [key, bundle, rules] = ["key", "bundle", "ours.toml"].map(|name| self.path(name).to_str().unwrap().to_owned());
        std::fs::write(&rules, text).unwrap();
        let packed = said(&["rules", "pack", "--key", &key, "--out", &bundle, &rules]).await;
        packed.lines().last().unwrap().split(',').next().unwrap().to_owned()
    }

    /// A gateway that gives terminals what is signed.
    async fn gateway(&self, name: &str) -> Gateway {
        let kafka = KafkaConfig { topic_prefix: format!("gateway-{name}"), ..sandbox().await.kafka.clone() };
        let gateway = Gateway::start_on(
            kafka,
            &[
                ("GATEWAY__TERMINALS__RULES_BUNDLE", self.path("bundle").to_str().unwrap().into()),
                ("GATEWAY__TERMINALS__RULES_KEY", self.public_key.clone()),
                ("GATEWAY__TERMINALS__RULES_WITHIN", "0s".into()),
            ],
        )
        .await;
        gateway.service.until_ready().await;
        gateway
    }
}

async fn said(arguments: &[&str]) -> String {
    let output = Faultline::output(arguments).await;
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn change_a_bit(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn a_terminal_without_a_network_has_a_verdict_on_everything() {
    let connection = Connection::builder("http://127.0.0.1:1", "token").build().unwrap();
    let terminal = Terminal::builder(&connection, "T-1").start().unwrap();
    let verdict = terminal.report(answered("51")).unwrap().verdict;
    assert_eq!((verdict.cause, verdict.reason.as_str(), verdict.retry), (Cause::Account, "insufficient_funds", Retry::OtherCard));
    assert!(verdict.rule_set.starts_with("unionpay-pos/") && verdict.confidence > 90, "{verdict:?}");
    // The network is what failed.
    let verdict = terminal.report(outcome()).unwrap().verdict;
    assert_eq!((verdict.cause, verdict.retry), (Cause::Network, Retry::QueryFirst));
    assert!(verdict.cashier.zh_cn.contains('查') && !verdict.cashier.en.is_empty() && !verdict.service_desk.zh_cn.is_empty());
    assert_eq!(terminal.close(Duration::ZERO).await.waiting, 2);
}

#[tokio::test]
async fn rules_that_are_signed_reach_terminals_that_work_and_others_do_not() {
    let (operator, stranger) = (Operator::new().await, Operator::new().await);
    let first = operator.sign("issuer_refused").await;
    let gateway = operator.gateway("offline").await;
    let token = new_token(&gateway.tokens(), &["--tenant", "acme", "--any-terminal"]).await;
    eventually("the token is known", async || (gateway.service.counted("faultline_gateway_tokens", &[]).await == 2).then_some(())).await;
    let connection = Connection::builder(format!("http://{}", gateway.address()), token).build().unwrap();
    let start = |name: &str, rules: &TerminalRules| Terminal::builder(&connection, name).rules(rules).start().unwrap();
    // Two that can check what is signed, each by itself; one that was given another key, and one without.
    let of_ours = [operator.rules(), operator.rules()];
    let of_others = [stranger.rules(), TerminalRules::built_in().unwrap()];
    let ours = [start("T-1", &of_ours[0]), start("T-2", &of_ours[1])];
    let others = [start("T-3", &of_others[0]), start("T-4", &of_others[1])];
    let reason = |terminal: &Terminal| terminal.report(answered("40")).unwrap().verdict.reason;
    let have = async |version: &str| {
        let same = async || ours.iter().all(|terminal| terminal.status().rules == version).then_some(());
        eventually("the rules are there", same).await;
    };
    have(&first).await;
    assert_eq!(ours.each_ref().map(reason), ["issuer_refused", "issuer_refused"]);

    // What was changed on its way to the gateway.
    let failed = async || (gateway.service.counted("faultline_gateway_rules_loads_total", &["failed"]).await == 1).then_some(());
    change_a_bit(&operator.path("bundle"));
    eventually("the gateway refuses it", failed).await;
    assert_eq!(ours.each_ref().map(reason), ["issuer_refused", "issuer_refused"]);

    let second = operator.sign("issuer_error").await;
    have(&second).await;
    assert_eq!(ours.each_ref().map(reason), ["issuer_error", "issuer_error"]);
    for terminal in &others {
        assert_eq!((reason(terminal).as_str(), terminal.status().rules_problem.as_str()), ("function_not_enabled", ""));
    }
    assert_eq!(gateway.service.counted("faultline_gateway_rules_given_total", &[]).await, 4);

    // Each event has the version by which the terminal judged it.
    let mut versions = Vec::new();
    for terminal in ours.into_iter().chain(others) {
        let status = terminal.close(Duration::from_secs(10)).await;
        assert_eq!((status.waiting, status.refused, status.rules_problem.as_str()), (0, 0, ""));
    }
    for record in gateway.records().await.iter().filter(|record| record.terminal == "T-1") {
        let batch = faultline_proto::ingest::v1::OutcomeBatch::decode(record.batch.clone()).unwrap();
        let profile = batch.profile.unwrap_or_else(|| TerminalProfile::decode(record.profile.clone()).unwrap());
        versions.extend(batch.events.iter().map(|_| profile.rule_set_version.clone()));
    }
    assert_eq!(versions, [first.clone(), first, second.clone()]);

    // A terminal that starts without a network has what it kept.
    let kept = of_ours[0].bundle().unwrap();
    let restarted = operator.rules();
    assert!(restarted.take(&kept).unwrap());
    assert_eq!((restarted.version(), restarted.verdict(&answered("40")).reason.as_str()), (second, "issuer_error"));
    let stderr = gateway.stop().await.stderr;
    let refusal =
        stderr.lines().find(|line| line.contains("the rules for terminals stay as they were")).expect("it says that it refused them");
    assert!(refusal.contains("bundle is not given to terminals: "), "{refusal}");
}

#[tokio::test]
async fn a_gateway_does_not_start_with_rules_that_terminals_would_refuse() {
    let (operator, stranger) = (Operator::new().await, Operator::new().await);
    operator.sign("issuer_refused").await;
    let tokens = operator.path("tokens");
    new_token(&tokens, &["--tenant", "acme", "--terminal", "T-1"]).await;
    let settings = |key: &str| {
        [
            ("GATEWAY__TOKEN_FILE", tokens.to_str().unwrap().to_owned()),
            ("GATEWAY__TERMINALS__RULES_BUNDLE", operator.path("bundle").to_str().unwrap().to_owned()),
            ("GATEWAY__TERMINALS__RULES_KEY", key.to_owned()),
        ]
    };
    let ended = crate::program::run(&["gateway"], &settings(&stranger.public_key)).await;
    ended.failed_saying(&["`gateway.terminals.rules_bundle`", "is signed with key", "not known here"]);
    let ended = crate::program::run(&["gateway"], &settings("")).await;
    ended.failed_saying(&["`gateway.terminals.rules_key`", "64 hexadecimal digits", "since `gateway.terminals.rules_bundle` is set"]);
}
