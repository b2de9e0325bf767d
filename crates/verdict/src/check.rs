//! What is wrong with rules that can be read all the same: rows that nothing reaches, advice that contradicts itself, what has no source.

use std::collections::BTreeMap;

use faultline_proto::outcome::v1::{Stage, TerminalCondition};

use crate::rules::{File, Key, Prevention, Refined, Row, RuleSet, attributed, evidence_named, named};
use crate::{Attribution, Cause, Fact, LocalizedText, MerchantCause, Place, Reason, Retry, Rules, RulesError};

/// Most characters of a text that a terminal shows.
const MOST_CHARACTERS: usize = 180;
/// Reasons that the order of evidence gives without a row.
const ALWAYS_NAMED: [&str; 6] =
    ["unknown_code", "unknown_approved", "approved_not_completed", "cancelled", "declined_by_terminal", "no_evidence"];
/// Classes of failures in which money may have moved.
const IN_DOUBT: [&str; 2] = ["no_answer", "issuer_timeout"];

/// Something that is wrong, or looks so.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Where.
    pub place: Place,
    /// Whether the rules should not be used with it.
    pub is_error: bool,
    /// What, with the field and its value.
    pub what: String,
}

/// What is wrong with the sets of files, each as what to call it and its text, beside those that come with the program; in the order of files and lines.
#[must_use]
pub fn check<T: AsRef<str>>(files: &[(T, T)]) -> Vec<Finding> {
    let unusable = |error: RulesError| Finding { place: error.place, is_error: true, what: error.reason };
    let unread: Vec<Finding> =
        files.iter().filter_map(|(name, text)| File::parse(name.as_ref(), text.as_ref()).err()).map(unusable).collect();
    if !unread.is_empty() {
        return unread;
    }
    let rules = match Rules::with(files) {
        Ok(rules) => rules,
        Err(error) => return vec![unusable(error)],
    };
    let ours = |place: &Place| files.iter().any(|(name, _)| name.as_ref() == &*place.file);
    let mut findings = Findings { rules: &rules, found: Vec::new() };
    for set in rules.sets().filter(|set| ours(&set.place)) {
        findings.of_set(set);
        for reason in rules.reasons(set).filter(|reason| *reason.place.file == *set.place.file) {
            findings.of_reason(set, reason);
        }
        for (key, rows) in set.rows() {
            for row in rows.iter().filter(|row| !row.inherited) {
                findings.of_row(set, &key, row);
            }
        }
        findings.of_evidence(set);
        for (merchant_cause, prevention) in set.preventions.iter().filter(|(_, prevention)| !prevention.inherited) {
            findings.of_prevention(*merchant_cause, prevention);
        }
        for attribution in rules.attributions_of(set).filter(|attribution| !attribution.inherited) {
            findings.of_attribution(set, &attribution);
        }
    }
    findings.of_merchant_causes();
    let mut found = findings.found;
    found.retain(|finding| ours(&finding.place));
    found.sort();
    found.dedup();
    found
}

struct Findings<'a> {
    rules: &'a Rules,
    found: Vec<Finding>,
}

impl Findings<'_> {
    fn error(&mut self, place: &Place, what: String) {
        self.found.push(Finding { place: place.clone(), is_error: true, what });
    }

    fn warning(&mut self, place: &Place, what: String) {
        self.found.push(Finding { place: place.clone(), is_error: false, what });
    }

    fn of_set(&mut self, set: &RuleSet) {
        if !self.rules.may_judge(set) {
            self.error(&set.place, format!("set `{}` is unreachable: others judge every outcome that it could", set.version()));
        }
    }

    fn of_reason(&mut self, set: &RuleSet, reason: &Reason) {
        let named = |what: &str| format!("reason `{}` {what}", reason.id);
        if reason.source.trim().is_empty() {
            self.error(&reason.place, named("has no source"));
        }
        let texts = [("meaning", &reason.meaning), ("cashier", &reason.cashier), ("service_desk", &reason.service_desk)];
        for (field, text) in texts.into_iter().chain(reason.prevention.as_ref().map(|text| ("prevention", text))) {
            self.of_text(&reason.place, &named(&format!("has a {field}")), text);
        }
        if reason.prevention.is_none() && !set.preventions.contains_key(&reason.merchant_cause) {
            let what = format!("has no prevention, and the set has none for merchant_cause `{}`", reason.merchant_cause.id());
            self.error(&reason.place, named(&what));
        }
        self.of_retry(reason);
        let id_of = |row: &Row| self.rules.reason_at(row.reason).id == reason.id;
        let is_attributed = |set| self.rules.attributions_of(set).any(|attribution| attribution.reason.id == reason.id);
        let is_refined = |set: &RuleSet| set.refinements.iter().any(|(_, refined)| id_of(&refined.row));
        let is_named =
            self.rules.sets().any(|set| set.rows().values().any(|rows| rows.iter().any(id_of)) || is_refined(set) || is_attributed(set));
        if !is_named && !ALWAYS_NAMED.contains(&reason.id.as_str()) {
            self.warning(&reason.place, named("is named by no row"));
        }
        let same = |base: &&Reason| {
            (base.cause, base.merchant_cause, base.confidence, base.retry)
                == (reason.cause, reason.merchant_cause, reason.confidence, reason.retry)
                && (&base.class, &base.symptom) == (&reason.class, &reason.symptom)
                && (&base.meaning, &base.cashier, &base.service_desk) == (&reason.meaning, &reason.cashier, &reason.service_desk)
                && base.prevention == reason.prevention
        };
        let base = self.rules.base(set).and_then(|base| self.rules.reasons(base).find(|base| base.id == reason.id));
        if base.filter(same).is_some() {
            self.warning(&reason.place, named("changes nothing of the inherited one"));
        }
    }

    /// `what` names the text: ``reason `ours` has a meaning``.
    fn of_text(&mut self, place: &Place, what: &str, text: &LocalizedText) {
        if !text.zh_cn.chars().any(|c| ('\u{4E00}'..='\u{9FFF}').contains(&c)) {
            self.error(place, format!("{what}.zh_cn that is not Chinese: `{}`", text.zh_cn));
        }
        if !text.en.is_ascii() || !text.en.contains(|c: char| c.is_ascii_alphabetic()) {
            self.error(place, format!("{what}.en that is not English: `{}`", text.en));
        }
        for said in [&text.zh_cn, &text.en] {
            let length = said.chars().count();
            if length > MOST_CHARACTERS {
                self.warning(place, format!("{what} of {length} characters, and a terminal shows {MOST_CHARACTERS}"));
            }
        }
    }

    fn of_retry(&mut self, reason: &Reason) {
        let named = |what: &str| format!("reason `{}` {what}", reason.id);
        let charges = !matches!(reason.retry, Retry::Never | Retry::QueryFirst);
        if charges && reason.cause == Cause::Approved {
            self.error(&reason.place, named(&format!("is an approval and says retry `{}`: the customer would pay twice", reason.retry)));
        }
        if reason.retry != Retry::QueryFirst && IN_DOUBT.contains(&reason.class.as_str()) {
            let what = format!(
                "is of class `{}`, in which money may have moved, and says retry `{}` and not query_first",
                reason.class, reason.retry
            );
            self.error(&reason.place, named(&what));
        }
        if reason.retry == Retry::QueryFirst && !reason.cashier.zh_cn.contains('查') {
            self.warning(&reason.place, named("says retry `query_first`, and cashier.zh_cn does not say to ask (查)"));
        }
    }

    fn of_row(&mut self, set: &RuleSet, key: &Key, row: &Row) {
        let reason = self.rules.reason_at(row.reason);
        if row.source.trim().is_empty() {
            self.error(&row.place, format!("{} has no source", named(key)));
        }
        if !row.force.overlaps(set.force) {
            self.error(&row.place, format!("{} is unreachable: it holds only when the set does not", named(key)));
        }
        match key {
            Key::Code(code) if !is_of_form(set, code) => {
                self.error(&row.place, format!("{} is unknown to the specification: field 39 has two of 0-9 A-Z", named(key)));
            }
            Key::Condition(0) => {
                let what = "condition `unspecified` makes stages unreachable: every outcome without a condition has it";
                self.error(&row.place, what.into());
            }
            _ => {}
        }
        if sent(key) && reason.retry != Retry::QueryFirst {
            let what =
                format!("{} leaves open whether money moved, and its reason `{}` says retry `{}`", named(key), reason.id, reason.retry);
            self.error(&row.place, format!("{what} and not query_first"));
        }
        let base = self.rules.base(set).and_then(|base| base.rows().get(key).and_then(|rows| rows.first()));
        if let Some(base) = base
            && self.rules.reason_at(base.reason).id == reason.id
            && base.force == row.force
            && (set.acquirer.is_some() || base.source == row.source)
        {
            self.warning(&row.place, format!("{} changes nothing: it has reason `{}` anyway ({})", named(key), reason.id, base.place));
        }
    }

    fn of_evidence(&mut self, set: &RuleSet) {
        let rows = set.rows();
        let is_found = |id: &str| {
            let by_row = rows.values().any(|rows| rows.iter().any(|row| self.rules.reason_at(row.reason).id == id));
            by_row || ALWAYS_NAMED.contains(&id)
        };
        let mut wrong = Vec::new();
        for (of, refined) in set.refinements.iter().filter(|(_, refined)| !refined.row.inherited) {
            let (from, to) = (self.rules.reason_at(of), self.rules.reason_at(refined.row.reason));
            let named = evidence_named(&from.id, refined.all_of, refined.none_of);
            if refined.row.source.trim().is_empty() {
                wrong.push((true, refined, format!("{named} has no source")));
            }
            if !is_found(&from.id) {
                wrong.push((true, refined, format!("{named} is unreachable: no row gives that reason")));
            }
            if !refined.row.force.overlaps(set.force) {
                wrong.push((true, refined, format!("{named} is unreachable: it holds only when the set does not")));
            }
            if Fact::EXCLUSIVE.iter().any(|group| group.iter().filter(|fact| refined.all_of.has(**fact)).count() > 1) {
                wrong.push((true, refined, format!("{named} is unreachable: no outcome shows all of these")));
            }
            let before =
                set.refinements.of(of).iter().take_while(|other| !std::ptr::eq(*other, refined)).find(|other| other.covers(refined));
            if let Some(Refined { row, .. }) = before {
                wrong.push((true, refined, format!("{named} is unreachable: where it holds, the row before it does ({})", row.place)));
            }
            // A row that gives what there is anyway may keep an inherited one away.
            let is_alone = set.refinements.of(of).iter().all(|other| !other.row.inherited);
            if is_alone && from.id == to.id && refined.confidence.is_none_or(|confidence| confidence == from.confidence) {
                wrong.push((false, refined, format!("{named} changes nothing of the reason")));
            }
        }
        for (is_error, refined, what) in wrong {
            self.found.push(Finding { place: refined.row.place.clone(), is_error, what });
        }
    }

    fn of_prevention(&mut self, merchant_cause: MerchantCause, prevention: &Prevention) {
        let named = format!("prevention of `{}`", merchant_cause.id());
        if prevention.source.trim().is_empty() {
            self.error(&prevention.place, format!("{named} has no source"));
        }
        self.of_text(&prevention.place, &format!("{named} has a text"), &prevention.text);
    }

    fn of_attribution(&mut self, set: &RuleSet, attribution: &Attribution<'_>) {
        let Attribution { symptom, family, source, place, .. } = *attribution;
        let named = attributed(symptom, family);
        if source.trim().is_empty() {
            self.error(place, format!("{named} has no source"));
        }
        if symptom.is_empty() || self.rules.reasons(set).all(|reason| reason.symptom != symptom) {
            self.error(place, format!("{named} is unreachable: no reason has that symptom"));
        }
    }

    /// A reason is told to merchants in one way, whichever set gives it.
    fn of_merchant_causes(&mut self) {
        let mut told: BTreeMap<&str, &Reason> = BTreeMap::new();
        let rules = self.rules;
        for reason in rules.sets().flat_map(|set| rules.reasons(set)) {
            let first = *told.entry(reason.id.as_str()).or_insert(reason);
            if first.merchant_cause != reason.merchant_cause {
                let (own, other) = (reason.merchant_cause.id(), first.merchant_cause.id());
                self.error(&reason.place, format!("reason `{}` has merchant_cause `{own}`, and `{other}` in {}", reason.id, first.place));
            }
        }
    }
}

/// Whether a code can be one of the set's specifications.
fn is_of_form(set: &RuleSet, code: &str) -> bool {
    let is_iso = set.specs.iter().chain(&set.inherited_specs).any(|spec| spec.starts_with("iso8583"));
    if is_iso {
        return code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
    }
    code.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:/+-".contains(&byte))
}

/// Whether the request was sent, or may have been.
fn sent(key: &Key) -> bool {
    let number = |number: i32, of: &[i32]| of.contains(&number);
    match key {
        Key::Code(_) => false,
        Key::Condition(condition) => number(
            *condition,
            &[
                TerminalCondition::MacMismatch.into(),
                TerminalCondition::ConnectionLost.into(),
                TerminalCondition::ResponseTimeout.into(),
                TerminalCondition::ResponseInvalid.into(),
            ],
        ),
        Key::Stage(stage) => number(*stage, &[Stage::Send.into(), Stage::Wait.into(), Stage::Print.into(), Stage::Reversal.into()]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "{ zh_cn = '查', en = 'text' }";

    /// What is said of a set that inherits UnionPay's, for one acquirer.
    fn found(more: &str) -> Vec<String> {
        let text = format!("version = 'ours/1'\ninherits = 'unionpay-pos'\nacquirer = '48020000'\n{more}");
        check(&[("ours.toml", text.as_str())])
            .iter()
            .map(|finding| format!("{} {} {}", finding.place, finding.is_error, finding.what))
            .collect()
    }

    fn row(table: &str, key: &str, reason: &str) -> String {
        let name = if table == "response_code" { "code" } else { table };
        format!("[[{table}]]\n{name} = '{key}'\nreason = '{reason}'\nsource = 'our acquirer'\n")
    }

    fn reason(class: &str, retry: &str, more: &str) -> String {
        format!(
            "[[reason]]\nid = 'ours'\ncause = 'bank'\nclass = '{class}'\nmerchant_cause = 'bank_system'\nconfidence = 50\nretry = '{retry}'\n\
             meaning = {TEXT}\ncashier = {TEXT}\nservice_desk = {TEXT}\nsource = 'our acquirer'\n{more}"
        )
    }

    #[track_caller]
    fn finds(more: &str, expected: &[&str]) {
        let found = found(more);
        assert!(found.len() == expected.len() && found.iter().zip(expected).all(|(one, said)| one.contains(said)), "{found:#?}");
    }

    #[test]
    fn what_is_in_order_has_no_findings() {
        finds(&row("response_code", "40", "issuer_refused"), &[]);
        finds(&(reason("issuer_down", "other_card", "") + &row("response_code", "Z9", "ours")), &[]);
    }

    #[test]
    fn rows_that_nothing_reaches_or_that_change_nothing_are_found() {
        finds(&row("response_code", "51", "insufficient_funds"), &["ours.toml:4 false response code `51` changes nothing"]);
        finds(&row("condition", "unspecified", "no_evidence"), &["ours.toml:4 true condition `unspecified` makes stages unreachable"]);
        let over =
            "effective_until = 2026-01-01\n".to_owned() + &row("response_code", "40", "issuer_refused") + "effective_from = 2026-01-01\n";
        finds(&over, &["ours.toml:5 true response code `40` is unreachable"]);
        let base = "version = 'visa/1'\ninherits = 'iso8583'\nnetwork = 'visa'\nspecs = ['visa']\n";
        let always = "version = 'ours/1'\ninherits = 'visa'\n";
        // Everything that it could judge, the other judges.
        let never = format!("{always}effective_until = 2026-01-01\n");
        let found = check(&[("a.toml", base), ("b.toml", never.as_str())]);
        assert!(found[0].what.contains("judges the same outcomes as"), "{found:#?}");
        finds(&row("response_code", "5", "issuer_refused"), &["unknown to the specification: field 39 has two of 0-9 A-Z"]);
    }

    #[test]
    fn advice_that_is_missing_or_contradicts_itself_is_found() {
        let named = row("response_code", "Z9", "ours");
        finds(&(reason("issuer_timeout", "now", "") + &named), &["ours.toml:4 true reason `ours` is of class `issuer_timeout`"]);
        let approved = reason("approved", "now", "").replace("'bank'\n", "'approved'\n");
        finds(&(approved + &named), &["is an approval and says retry `now`: the customer would pay twice"]);
        finds(&(reason("other", "query_first", "").replace("查", "字") + &named), &["does not say to ask (查)"]);
        finds(&(reason("other", "never", "").replacen("查", "text", 1) + &named), &["meaning.zh_cn that is not Chinese: `text`"]);
        finds(&(reason("other", "never", "").replacen("'text'", "'字'", 1) + &named), &["meaning.en that is not English: `字`"]);
        let long = "x".repeat(181);
        finds(&(reason("other", "never", "").replacen("'text'", &format!("'{long}'"), 1) + &named), &["has a meaning of 181 characters"]);
        finds(
            &row("condition", "response_timeout", "cancelled"),
            &["leaves open whether money moved, and its reason `cancelled` says retry `now`"],
        );
    }

    #[test]
    fn what_has_no_source_or_no_use_is_found() {
        finds(&reason("other", "never", ""), &["ours.toml:4 false reason `ours` is named by no row"]);
        let without = (reason("other", "never", "") + &row("response_code", "Z9", "ours")).replace("'our acquirer'", "' '");
        finds(&without, &["ours.toml:4 true reason `ours` has no source", "ours.toml:15 true response code `Z9` has no source"]);
        let together = "[[attribution]]\nsymptom = 'ours'\nfamily = 'issuer'\nreason = 'ours'\nfaults_per_day = 0.1\nsource = ' '\n";
        finds(
            &(reason("other", "never", "") + together),
            &[
                "ours.toml:15 true attribution of `ours` to `issuer` has no source",
                "ours.toml:15 true attribution of `ours` to `issuer` is unreachable: no reason has that symptom",
            ],
        );
        let other = reason("funds", "other_card", "").replace("'ours'", "'insufficient_funds'");
        finds(
            &other,
            &["reason `insufficient_funds` has merchant_cause `bank_system`, and `balance` in crates/verdict/rules/iso8583.toml:"],
        );
    }

    fn evidence(of: &str, facts: &str, gives: &str) -> String {
        format!("[[evidence]]\nof = ['{of}']\n{facts}\n{gives}\nsource = 'our acquirer'\n")
    }

    #[test]
    fn evidence_that_nothing_reaches_or_that_changes_nothing_is_found() {
        finds(&evidence("no_answer", "all_of = ['weak_signal', 'repeated_attempt']", "confidence = 90"), &[]);
        finds(&evidence("no_answer", "all_of = ['weak_signal']", "confidence = 60"), &[]);
        finds(
            &evidence("insufficient_funds", "all_of = ['weak_signal']", "confidence = 97"),
            &["ours.toml:4 false evidence of `insufficient_funds` with weak_signal changes nothing"],
        );
        let twice = evidence("no_answer", "all_of = ['long_wait']", "confidence = 30")
            + &evidence("no_answer", "all_of = ['sent_whole', 'long_wait']\nnone_of = ['weak_signal']", "confidence = 20");
        finds(
            &twice,
            &[
                "ours.toml:9 true evidence of `no_answer` with sent_whole, long_wait and without weak_signal is unreachable: where it holds, the row before it does (ours.toml:4)",
            ],
        );
        finds(
            &evidence("issuer_silent", "all_of = ['weak_signal']", "confidence = 30"),
            &["ours.toml:4 true evidence of `issuer_silent` with weak_signal is unreachable: no row gives that reason"],
        );
        finds(
            &evidence("no_answer", "all_of = ['weak_signal', 'good_signal']", "confidence = 30"),
            &["ours.toml:4 true evidence of `no_answer` with weak_signal, good_signal is unreachable: no outcome shows all of these"],
        );
        let without = evidence("no_answer", "all_of = ['good_signal']", "confidence = 30").replace("our acquirer", "");
        finds(&without, &["ours.toml:4 true evidence of `no_answer` with good_signal has no source"]);
    }

    #[test]
    fn prevention_that_is_missing_is_found() {
        let prevention = |cause: &str| format!("[[prevention]]\nmerchant_cause = '{cause}'\nzh_cn = '字'\nen = 'text'\nsource = 'us'\n");
        finds(&prevention("network"), &[]);
        finds(
            &prevention("network").replace("字", "text"),
            &["ours.toml:4 true prevention of `network` has a text.zh_cn that is not Chinese: `text`"],
        );
        finds(&prevention("network").replace("'us'", "''"), &["ours.toml:4 true prevention of `network` has no source"]);
        // A set that inherits nothing has to say all of it.
        let required = ["unknown_code", "unknown_approved", "approved_not_completed", "cancelled", "declined_by_terminal", "no_evidence"];
        let reasons = required.map(|id| reason("other", "query_first", "").replace("'ours'", &format!("'{id}'"))).concat();
        let text = format!("version = 'alone/1'\nspecs = ['alone']\n{reasons}");
        let missing =
            |text: &str| check(&[("alone.toml", text)]).iter().filter(|finding| finding.what.contains("has no prevention")).count();
        assert_eq!(missing(&text), 6);
        assert_eq!(missing(&format!("{text}{}", prevention("bank_system"))), 0);
        let own = text.replacen("source =", &format!("prevention = {TEXT}\nsource ="), 1);
        assert_eq!(missing(&own), 5);
    }

    #[test]
    fn what_cannot_be_read_is_a_finding_in_each_file() {
        let found = check(&[("a.toml", "version = 1"), ("b.toml", "version = 'b/1'\nspec = ['x']")]);
        let places: Vec<String> = found.iter().map(|finding| finding.place.to_string()).collect();
        assert_eq!(places, ["a.toml:1", "b.toml:2"]);
        assert!(found.iter().all(|finding| finding.is_error));
    }
}
