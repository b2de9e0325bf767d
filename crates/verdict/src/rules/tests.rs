use std::collections::BTreeSet;

use faultline_proto::outcome::v1::{CardNetwork, Outcome, Stage, TerminalCondition};
use prost_types::Timestamp;

use super::*;
use crate::{Cause, Family, Retry};

/// What every code, condition and stage stood for in the one set that there was until 2026-11-25, but for TLS failures, which have a reason of their own since.
const BEFORE: &str = include_str!("../../data/verdicts-2026-11-25.csv");

const TEXT: &str = "{ zh_cn = '字', en = 'text' }";

fn reason(id: &str) -> String {
    format!(
        "[[reason]]\nid = '{id}'\ncause = 'unknown'\nclass = 'unknown'\nmerchant_cause = 'not_known'\nconfidence = 0\nretry = 'now'\n\
         meaning = {TEXT}\ncashier = {TEXT}\nservice_desk = {TEXT}\nsource = 'own'\n"
    )
}

/// A set with the reasons that every one has, and what is given.
fn written(more: &str) -> String {
    let required = ["unknown_code", "unknown_approved", "approved_not_completed", "cancelled", "declined_by_terminal", "no_evidence"];
    format!("version = 'test'\nspecs = ['a']\n{}{more}", required.map(reason).concat())
}

fn code(code: &str, reason: &str, more: &str) -> String {
    format!("[[response_code]]\ncode = '{code}'\nreason = '{reason}'\nsource = 'a table'\n{more}\n")
}

fn with(texts: &[&str]) -> Result<Rules, RulesError> {
    let names = ["one.toml", "two.toml", "three.toml"];
    Rules::with(&names.into_iter().zip(texts.iter().copied()).collect::<Vec<_>>())
}

fn answered(spec: &str, code: &str) -> Outcome {
    let stage = Stage::HostDecision.into();
    Outcome { stage, response_code: code.into(), response_spec: spec.into(), acquirer_id: "48020000".into(), ..Outcome::default() }
}

/// The name of the set that judges, and the reason.
fn judged(rules: &Rules, outcome: &Outcome) -> String {
    let verdict = rules.verdict(outcome);
    format!("{} {}", name_of(verdict.rule_set), verdict.reason.id)
}

#[track_caller]
fn refused(text: &str, said: &str) {
    let message = with(&[text]).unwrap_err().to_string();
    assert!(message.contains(said), "{message}");
}

#[test]
fn verdicts_on_unionpays_outcomes_are_what_they_were() {
    let rules = Rules::built_in().unwrap();
    let mut compared = 0;
    for line in BEFORE.lines().skip(1) {
        let [evidence, value, reason, cause, confidence] = line.split(',').collect::<Vec<_>>()[..] else { panic!("{line}") };
        for spec in ["unionpay-pos", "iso8583", "iso8583-1987", ""] {
            for network in [CardNetwork::Unspecified, CardNetwork::Unionpay] {
                let mut outcome = Outcome { response_spec: spec.into(), network: network.into(), ..Outcome::default() };
                match evidence {
                    "code" => outcome.response_code = value.into(),
                    "condition" => {
                        let name = format!("TERMINAL_CONDITION_{}", value.to_uppercase());
                        outcome.terminal_condition = TerminalCondition::from_str_name(&name).unwrap().into();
                    }
                    _ => outcome.stage = Stage::from_str_name(&format!("STAGE_{}", value.to_uppercase())).unwrap().into(),
                }
                let verdict = rules.verdict(&outcome);
                let expected = Cause::from_str_name(&format!("CAUSE_{}", cause.to_uppercase())).unwrap();
                assert_eq!(
                    (verdict.reason.id.as_str(), verdict.reason.cause, verdict.confidence),
                    (reason, expected, confidence.parse().unwrap()),
                    "{line} {spec}"
                );
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 128 * 8);
}

#[test]
fn specification_network_and_acquirer_say_which_set_judges() {
    let rules = Rules::built_in().unwrap();
    let of = |spec: &str, network: CardNetwork, code: &str| judged(&rules, &Outcome { network: network.into(), ..answered(spec, code) });
    assert_eq!(of("unionpay-pos", CardNetwork::Unspecified, "A0"), "unionpay-pos keys_out_of_step");
    // The specification says whose codes they are, whatever card it was.
    assert_eq!(of("unionpay-pos", CardNetwork::Visa, "A0"), "unionpay-pos keys_out_of_step");
    assert_eq!(of("iso8583", CardNetwork::Unionpay, "A0"), "unionpay-pos keys_out_of_step");
    assert_eq!(of("iso8583", CardNetwork::Visa, "N7"), "visa card_data_refused");
    assert_eq!(of("", CardNetwork::Visa, "78"), "visa card_restricted");
    assert_eq!(of("", CardNetwork::Mastercard, "78"), "mastercard no_such_account");
    assert_eq!(of("visa", CardNetwork::Unspecified, "51"), "visa insufficient_funds");
    assert_eq!(of("iso8583-1987", CardNetwork::Jcb, "A0"), "iso8583 unknown_code");
    // Nobody's specification: codes are not read, and the rest is as the fleet's own.
    assert_eq!(of("alipay", CardNetwork::Alipay, "51"), "unionpay-pos unknown_code");
    assert_eq!(of("", CardNetwork::Alipay, "51"), "unionpay-pos insufficient_funds");
    let newer = Outcome { network: 99, ..answered("", "51") };
    assert_eq!(judged(&rules, &newer), "unionpay-pos insufficient_funds");
}

#[test]
fn one_acquirer_has_one_code_of_its_own() {
    let ours = format!("version = 'ours/1'\ninherits = 'unionpay-pos'\nacquirer = '48020000'\n{}", code("40", "issuer_refused", ""));
    let rules = with(&[&ours]).unwrap();
    assert_eq!(judged(&rules, &answered("unionpay-pos", "40")), "ours issuer_refused");
    assert_eq!(judged(&rules, &answered("", "51")), "ours insufficient_funds");
    let other = Outcome { acquirer_id: "48030000".into(), ..answered("unionpay-pos", "40") };
    assert_eq!(judged(&rules, &other), "unionpay-pos function_not_enabled");
    // Another network's set is not for it.
    let visa = Outcome { network: CardNetwork::Visa.into(), ..answered("iso8583", "40") };
    assert_eq!(judged(&rules, &visa), "visa function_not_enabled");
    // Two that say the same of the same outcomes are one too many.
    let message = with(&[&ours, &ours.replace("ours/1", "theirs/1")]).unwrap_err().to_string();
    assert!(message.starts_with("two.toml:1: set `theirs/1+") && message.contains("judges the same outcomes as `ours/1+"), "{message}");
}

#[test]
fn a_file_of_the_same_name_stands_for_the_set_that_comes_with_the_program() {
    let own = format!("version = 'unionpay-pos/own'\ninherits = 'unionpay-pos'\n{}", code("40", "issuer_refused", ""));
    let rules = with(&[&own]).unwrap();
    let verdict = rules.verdict(&Outcome { acquirer_id: String::new(), ..answered("", "40") });
    assert_eq!(verdict.reason.id, "issuer_refused");
    assert!(verdict.rule_set.starts_with("unionpay-pos/own+"));
    assert_eq!(rules.sets().filter(|set| set.name() == "unionpay-pos").count(), 1);
    // Another home.
    let jcb = "version = 'jcb/1'\ninherits = 'iso8583'\nnetwork = 'jcb'\nspecs = ['jcb']\nhome = true\n";
    assert_eq!(judged(&with(&[jcb]).unwrap(), &answered("", "51")), "jcb insufficient_funds");
}

#[test]
fn a_reason_said_otherwise_is_that_of_inherited_rows_too() {
    let ours = format!("version = 'ours/1'\ninherits = 'unionpay-pos'\nacquirer = '48020000'\n{}", reason("insufficient_funds"));
    let rules = with(&[&ours]).unwrap();
    let verdict = rules.verdict(&answered("", "51"));
    assert_eq!((verdict.reason.cause, verdict.reason.retry), (Cause::Unknown, Retry::Now));
    assert_eq!(rules.reason(verdict.rule_set, "insufficient_funds"), Some(verdict.reason));
    assert_eq!(rules.reason("unionpay-pos/older", "insufficient_funds").unwrap().cause, Cause::Account);
    assert_eq!(rules.reason("gone/1", "pin_required").unwrap().id, "pin_required");
    assert_eq!(rules.reason("", "nothing"), None);
}

#[test]
fn a_code_that_changed_its_meaning_is_read_by_the_day() {
    let rows = [
        code("40", "issuer_refused", "effective_until = 2026-10-01"),
        code("40", "issuer_error", "effective_from = 2026-10-01T00:00:00+08:00"),
    ];
    let ours = |rows: &str| format!("version = 'ours/1'\ninherits = 'unionpay-pos'\nacquirer = '48020000'\n{rows}");
    // From 16:00 to 24:00 UTC both would hold.
    refused(&ours(&rows.concat()), "one.toml:9: response code `40` is there twice for the same time");
    let rows = rows.concat().replace("2026-10-01\n", "2026-09-30T16:00:00Z\n");
    let rules = with(&[&ours(&rows)]).unwrap();
    let at = |seconds: i64| {
        let completion_time = Some(Timestamp { seconds, nanos: 0 });
        judged(&rules, &Outcome { completion_time, ..answered("", "40") })
    };
    // 2026-09-30T16:00:00Z.
    assert_eq!((at(1_790_783_999), at(1_790_784_000)), ("ours issuer_refused".into(), "ours issuer_error".into()));
    assert_eq!(judged(&rules, &answered("", "40")), "ours issuer_error");
    // Before and after a time of its own, what is inherited holds; and a set that is over is none.
    let rules = with(&[&ours(&code("40", "issuer_error", "effective_from = 2026-10-01\neffective_until = 2026-11-01"))]).unwrap();
    assert_eq!(judged(&rules, &answered("", "40")), "ours function_not_enabled");
    let over = ours(&code("40", "issuer_error", "")).replace("acquirer", "effective_until = 2026-11-01\nacquirer");
    let rules = with(&[&over]).unwrap();
    assert_eq!(judged(&rules, &answered("", "40")), "unionpay-pos function_not_enabled");
    let verdict = rules.verdict_at(&answered("", "40"), 1_790_784_000_000);
    assert_eq!(verdict.reason.id, "issuer_error");
    // One version after the other.
    let second = over.replace("effective_until", "effective_from").replace("issuer_error", "issuer_down");
    let rules = with(&[&over, &second]).unwrap();
    assert_eq!(judged(&rules, &answered("", "40")), "ours issuer_down");
    refused(
        &ours("effective_from = 2026-10-01\neffective_until = 2026-10-01\n"),
        "one.toml:1: effective_from is not before effective_until",
    );
    refused(&ours("effective_from = 2026-10-01T00:00:00\n"), "one.toml:1: effective_from 2026-10-01T00:00:00 is neither");
}

#[test]
fn a_checksum_is_of_what_a_set_decides_and_says() {
    let version = |text: &str| with(&[text]).unwrap().sets().find(|set| set.name() == "test").unwrap().version().to_owned();
    let text = written(&code("51", "no_evidence", ""));
    let checksum = version(&text);
    assert_eq!(checksum.len(), "test+".len() + 12);
    assert_eq!(version(&text.replace("'a table'", "'another'")), checksum);
    let with_evidence = written(&when_weak("cancelled", "confidence = 7"));
    for (from, to) in [("weak", "good"), ("= 7", "= 8"), ("of = ['cancelled']", "of = ['no_evidence']")] {
        assert!(with_evidence.contains(from) && version(&with_evidence.replace(from, to)) != version(&with_evidence), "{from}");
    }
    for (from, to) in
        [("'51'", "'52'"), ("'no_evidence'\nsource", "'cancelled'\nsource"), ("'字'", "'文'"), ("specs = ['a']", "specs = ['b']")]
    {
        assert_ne!(version(&text.replacen(from, to, 1)), checksum, "{from}");
    }
}

#[test]
fn what_is_wrong_is_named_by_file_line_field_and_value() {
    with(&[&written("")]).unwrap();
    let row = code("51", "no_evidence", "");
    refused(&written(&[row.as_str(), &row].concat()), "one.toml:74: response code `51` is there twice");
    refused(&written(&row.replace("no_evidence", "funds")), "one.toml:69: response code `51` names reason `funds`, which there is not");
    refused(&written(&row.replace("source = 'a table'", "")), "one.toml:69: missing field `source`");
    refused(&written(&row.replace("code = '51'", "stage = 'wait'")), "one.toml:69: a response code is named by `code` alone");
    refused(&written("[[stage]]\nstage = 'lunch'\nreason = 'no_evidence'\nsource = ''"), "one.toml:69: stage `lunch` is none");
    refused(&written("[[condition]]\ncondition = 'rain'\nreason = 'no_evidence'\nsource = ''"), "one.toml:69: condition `rain` is none");
    let evidence = |facts: &str, gives: &str| format!("[[evidence]]\nof = ['cancelled']\n{facts}\n{gives}\nsource = 'own'\n");
    let row = evidence("all_of = ['weak_signal']", "confidence = 7");
    with(&[&written(&row)]).unwrap();
    refused(&written(&row.repeat(2)), "one.toml:74: evidence of `cancelled` with weak_signal is there twice for the same time");
    refused(&written(&row.replace("weak_signal", "rain")), "one.toml:69: all_of names fact `rain`, which there is not");
    refused(&written(&row.replace("'weak_signal'", "")), "one.toml:69: evidence without a fact: `all_of` is empty");
    refused(&written(&row.replace("'cancelled'", "")), "one.toml:69: evidence of no reason: `of` is empty");
    refused(
        &written(&row.replace("cancelled", "nothing")),
        "evidence of `nothing` with weak_signal names reason `nothing`, which there is not",
    );
    refused(&written(&row.replace("= 7", "= 101")), "one.toml:69: confidence 101 is not 0 to 100");
    refused(&written(&evidence("all_of = ['fallback']\nnone_of = ['fallback']", "confidence = 7")), "which no outcome can have");
    refused(&written(&evidence("all_of = ['fallback']", "")), "one.toml:69: evidence gives neither a reason nor a confidence");
    refused(&written(&evidence("all_of = ['fallback']", "reason = 'funds'")), "names reason `funds`, which there is not");
    let prevention = "[[prevention]]\nmerchant_cause = 'network'\nzh_cn = '字'\nen = 'text'\nsource = 'own'\n";
    refused(&written(&prevention.repeat(2)), "one.toml:74: prevention of `network` is there twice");
    refused(&written(&prevention.replace("'network'", "'weather'")), "one.toml:69: prevention has merchant_cause `weather`");
    refused(&written(&prevention.replace("'字'", "' '")), "one.toml:69: prevention of `network` has no text in one of the languages");
    let attribution = "[[attribution]]\nsymptom = 'late'\nfamily = 'issuer'\nreason = 'no_evidence'\nfaults_per_day = 0.1\nsource = ''\n";
    refused(&written(&attribution.repeat(2)), "one.toml:75: attribution of `late` to `issuer` is there twice");
    refused(&written(&attribution.replace("no_evidence", "funds")), "one.toml:69: attribution of `late` to `issuer` names reason `funds`");
    refused(&written(&attribution.replace("issuer", "street")), "one.toml:69: family `street` is none of fleet, acquirer, ");
    for none in ["0", "-0.1", "1.5", "nan"] {
        refused(&written(&attribution.replace("0.1", none)), "one.toml:69: faults_per_day ");
    }
    refused(&written("").replace("'cancelled'", "'canceled'"), "one.toml:1: has no reason `cancelled`");
    refused(&written("").replacen("'now'", "'later'", 1), "one.toml:3: reason `unknown_code` is to be tried later");
    refused(&written("").replacen("cause = 'unknown'", "cause = 'weather'", 1), "one.toml:3: reason `unknown_code` has cause `weather`");
    refused(&written("").replacen("'not_known'", "'weather'", 1), "merchant_cause `weather`");
    refused(&written("").replacen("confidence = 0", "confidence = 101", 1), "confidence 101");
    refused(
        &written("").replacen("retry = 'now'", "retry = 'later'\nretry_minutes = 1441", 1),
        "retry_minutes 1441, which is not 1 to 1440",
    );
    refused(&written("").replacen("en = 'text'", "en = ''", 1), "no `meaning` in one of the languages");
    refused(&written("network = 'none'"), "unknown field `network`");
    refused(&written("").replace("specs", "network = 'diners'\nspecs"), "one.toml:2: network `diners` is none of the contract's");
    refused(&written("").replace("specs", "acquirer = ''\nspecs"), "one.toml:2: acquirer ``");
    refused(&written("").replace("['a']", "['']"), "one.toml:2: specs has ``");
    refused(&written("").replace("'test'", "'a set'"), "one.toml:1: version `a set`");
    refused("version = 'x/1'\n\ninherits = 'nothing'", "one.toml:3: inherits `nothing`, which there is not");
    refused("version = 'x/1'\ninherits = 'x'", "one.toml:2: inherits `x`, which there is not");
    let circle = ["version = 'x/1'\ninherits = 'y'", "version = 'y/1'\ninherits = 'x'"];
    assert!(with(&circle).unwrap_err().to_string().contains("one.toml:1: sets inherit from each other in a circle: x, y"));
    refused("version = 'x/1'\nhome = 1", "one.toml:2: ");
}

fn weak(code: &str) -> Outcome {
    Outcome { signal_dbm: Some(-113), ..answered("unionpay-pos", code) }
}

fn when_weak(of: &str, gives: &str) -> String {
    format!("[[evidence]]\nof = ['{of}']\nall_of = ['weak_signal']\n{gives}\nsource = 'us'\n")
}

#[test]
fn facts_make_another_reason_of_one_and_leave_the_tag() {
    let ours = |more: &str| format!("version = 'ours/1'\ninherits = 'unionpay-pos'\nacquirer = '48020000'\n{more}");
    let rules = with(&[&ours(&when_weak("insufficient_funds", "reason = 'limit_exceeded'\nconfidence = 42"))]).unwrap();
    let verdict = rules.verdict(&weak("51"));
    assert_eq!((verdict.tag, verdict.reason.id.as_str(), verdict.confidence), ("funds/host_decision", "limit_exceeded", 42));
    let strong = Outcome { signal_dbm: Some(-60), ..weak("51") };
    assert_eq!((rules.verdict(&strong).reason.id.as_str(), rules.verdict(&strong).confidence), ("insufficient_funds", 97));
    // Without a confidence, that of the reason that it becomes; for who inherits, its own reason of that name.
    let own = when_weak("insufficient_funds", "reason = 'limit_exceeded'") + &reason("limit_exceeded");
    let rules = with(&[&ours(&own)]).unwrap();
    assert_eq!((rules.verdict(&weak("51")).confidence, rules.verdict(&weak("51")).reason.cause), (0, Cause::Unknown));
    let base = format!(
        "version = 'unionpay-pos/own'\ninherits = 'unionpay-pos'\n{}",
        when_weak("insufficient_funds", "reason = 'limit_exceeded'")
    );
    let heir = format!("version = 'ours/1'\ninherits = 'unionpay-pos'\nacquirer = '48020000'\n{}", reason("limit_exceeded"));
    let rules = with(&[&base, &heir]).unwrap();
    assert_eq!((name_of(rules.verdict(&weak("51")).rule_set), rules.verdict(&weak("51")).confidence), ("ours", 0));
}

#[test]
fn own_evidence_stands_before_inherited_and_holds_for_its_time() {
    let no_answer = Outcome { stage: Stage::Wait.into(), response_code: String::new(), ..weak("") };
    let confidence = |rules: &Rules, at: i64| rules.verdict_at(&no_answer, at).confidence;
    assert_eq!(confidence(&Rules::built_in().unwrap(), 0), 85);
    let ours = |rows: &str| format!("version = 'ours/1'\ninherits = 'unionpay-pos'\nacquirer = '48020000'\n{rows}");
    let dated = when_weak("no_answer", "confidence = 70\neffective_from = 2026-10-01");
    let rules = with(&[&ours(&dated)]).unwrap();
    assert_eq!((confidence(&rules, 1_790_000_000_000), confidence(&rules, i64::MAX)), (85, 70));
    // The row for a time stands before the one that always holds, wherever it is written.
    let both = when_weak("no_answer", "confidence = 60") + &dated;
    let rules = with(&[&ours(&both)]).unwrap();
    assert_eq!((confidence(&rules, 1_790_000_000_000), confidence(&rules, i64::MAX)), (60, 70));
}

#[test]
fn evidence_never_lets_anybody_charge_twice() {
    let ours = |rows: &str| format!("version = 'ours/1'\ninherits = 'unionpay-pos'\nacquirer = '48020000'\n{rows}");
    refused(
        &ours(&when_weak("no_answer", "reason = 'no_network'")),
        "one.toml:4: evidence of `no_answer` with weak_signal gives `no_network`, whose retry is `now` and not query_first",
    );
    refused(&ours(&when_weak("approved", "reason = 'no_answer'")), "gives `no_answer`: whether it was approved is not up to evidence");
    refused(&ours(&when_weak("no_answer", "reason = 'approved_to_be_confirmed'")), "whether it was approved is not up to evidence");
    // Nor a reason that is said otherwise.
    let own = reason("answer_not_authenticated");
    refused(
        &ours(&own),
        "one.toml:4: evidence of `approved_not_completed` with issuer_authentication_failed gives `answer_not_authenticated`",
    );
}

#[test]
fn prevention_is_the_reasons_own_or_that_of_its_merchant_cause() {
    let own =
        "version = 'visa/own'\ninherits = 'visa'\n[[prevention]]\nmerchant_cause = 'network'\nzh_cn = '字'\nen = 'ours'\nsource = 'us'\n";
    let rules = with(&[own]).unwrap();
    let text = |version: &str, id: &str| {
        let reason = rules.reason(version, id).unwrap();
        rules.prevention(version, reason).unwrap().en.clone()
    };
    assert_eq!(text("visa/2026+0", "no_answer"), "ours");
    for others in ["unionpay-pos/2026", "of nobody"] {
        assert!(text(others, "no_answer").starts_with("Place the terminal"), "{}", text(others, "no_answer"));
    }
    assert!(text("visa", "insufficient_funds").starts_with("Train staff"));
    let with_own = written("").replacen("source =", &format!("prevention = {TEXT}\nsource ="), 1);
    let rules = with(&[&with_own]).unwrap();
    let set = rules.sets().find(|set| set.name() == "test").unwrap();
    let texts: Vec<Option<&LocalizedText>> = rules.reasons(set).map(|reason| rules.prevention("test", reason)).collect();
    assert!(texts.iter().flatten().count() == 1 && texts.len() == 6);
}

#[test]
fn what_many_failures_stand_for_is_inherited_and_said_otherwise_by_one_network() {
    let own = "version = 'visa/own'\ninherits = 'visa'\n[[attribution]]\nsymptom = 'refused'\nfamily = 'issuer'\nreason = 'issuer_down'\nfaults_per_day = 0.5\n\
               source = 'us'\n";
    let rules = with(&[own]).unwrap();
    let reason = |version: &str, symptom: &str, family| rules.attributed(version, symptom, family).map(|reason| reason.id.as_str());
    assert_eq!(reason("visa/2026+0", "refused", Family::Issuer), Some("issuer_down"));
    assert_eq!(reason("visa/2026+0", "refused", Family::Host), Some("acquirer_refusing"));
    for others in ["unionpay-pos/2026", "of nobody"] {
        assert_eq!(reason(others, "refused", Family::Issuer), Some("issuer_refusing"));
    }
    assert_eq!(reason("visa", "refused", Family::Carrier), None);
    assert_eq!(reason("visa", "", Family::Fleet), None);
    let symptoms: BTreeSet<&str> = rules.attributions().map(|attribution| attribution.symptom).collect();
    assert!(
        symptoms.contains("unanswered")
            && symptoms.iter().all(|symptom| rules.reasons(rules.home()).any(|reason| reason.symptom == *symptom))
    );
}

mod fuzz {
    use faultline_fuzz::target;

    use super::*;

    #[test]
    fn a_rule_set_has_a_verdict_on_everything_or_is_refused() {
        let fates = target!(Text, "rules").run(|bytes| {
            let text = std::str::from_utf8(bytes).unwrap();
            let rules = match Rules::with(&[("rules.toml", text)]) {
                Ok(rules) => rules,
                Err(RulesError { place, reason }) => {
                    let lines = u32::try_from(text.split('\n').count()).unwrap();
                    // What the built-in sets cannot be beside is theirs.
                    assert!(!reason.is_empty() && (*place.file != *"rules.toml" || (1..=lines).contains(&place.line)), "{place}: {reason}");
                    return "refused";
                }
            };
            for set in rules.sets() {
                assert!(rules.reasons(set).all(|reason| reason.confidence <= 100 && reason.cause != Cause::Unspecified));
            }
            for (code, stage, spec) in [("", -1, ""), ("51", 8, "a"), ("91", 99, "unionpay-pos"), ("", 7, "b"), ("40", 8, "")] {
                let outcome = Outcome { stage, terminal_condition: stage, ..answered(spec, code) };
                let shows = Outcome { signal_dbm: Some(-113), attempt: 2, ..outcome.clone() };
                let (bare, verdict) = (rules.verdict(&outcome), rules.verdict(&shows));
                assert!(verdict.tag == bare.tag && verdict.tag.contains('/') && verdict.confidence <= 100, "{}", verdict.tag);
                assert!(verdict.rule_set.contains('+') && verdict.rule_set.len() <= 64, "{}", verdict.rule_set);
            }
            "read"
        });
        fates.include(["read", "refused"]);
    }
}
