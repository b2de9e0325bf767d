//! The tables that come with the program: every row has a test vector, and two pages show all of them. What is written here is compared with the files;
//! `make pages` writes them anew, and a diff shows what changed.
#![expect(clippy::unwrap_used, reason = "a test, its helpers included, may stop at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use faultline_proto::outcome::v1::{CardNetwork, Outcome, Stage, TerminalCondition};
use faultline_verdict::{Cause, Evidence, MerchantCause, Reason, RuleSet, Rules, check};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Compares a file with what it is to be, or writes it where that is wanted.
#[track_caller]
fn is_up_to_date(path: &str, expected: &str) {
    let file = root().join(path);
    if std::env::var_os("FAULTLINE_WRITE_PAGES").is_some() {
        fs::write(&file, expected).unwrap();
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    for (number, (is, is_to_be)) in (1..).zip(written.lines().zip(expected.lines())) {
        assert_eq!(is, is_to_be, "{path}:{number} is out of date: `make pages` writes it");
    }
    assert_eq!(written.lines().count(), expected.lines().count(), "{path} is out of date: `make pages` writes it");
}

/// A row with everything that is shown of it.
struct Shown {
    evidence: Evidence,
    value: String,
    reason: Reason,
    source: String,
    inherited: bool,
}

fn rows(rules: &Rules, set: &RuleSet) -> Vec<Shown> {
    let mut rows = Vec::new();
    rules.each_rule(set, |rule| {
        assert_eq!(rule.holds(), (None, None), "a row that holds for a time needs vectors for it");
        let (reason, source) = (rule.reason.clone(), rule.source.to_owned());
        rows.push(Shown { evidence: rule.evidence(), value: rule.value(), reason, source, inherited: rule.inherited });
    });
    rows
}

fn cause(cause: Cause) -> String {
    cause.as_str_name().trim_start_matches("CAUSE_").to_lowercase()
}

/// The outcome that a row is about, as the terminals of its set report it.
fn outcome(set: &RuleSet, evidence: &str, value: &str) -> Outcome {
    let network = set.network().map_or(CardNetwork::Unspecified, |network| {
        CardNetwork::from_str_name(&format!("CARD_NETWORK_{}", network.to_uppercase())).unwrap()
    });
    let mut outcome = Outcome { network: network.into(), response_spec: set.specs().first().unwrap().clone(), ..Outcome::default() };
    match evidence {
        "response_code" => {
            outcome.stage = Stage::HostDecision.into();
            outcome.response_code = value.into();
        }
        "condition" => {
            let name = format!("TERMINAL_CONDITION_{}", value.to_uppercase());
            outcome.terminal_condition = TerminalCondition::from_str_name(&name).unwrap().into();
        }
        _ => outcome.stage = Stage::from_str_name(&format!("STAGE_{}", value.to_uppercase())).unwrap().into(),
    }
    // For outcomes that name no network, another set is at home.
    if network == CardNetwork::Unspecified {
        outcome.network = CardNetwork::AmericanExpress.into();
    }
    outcome
}

const VECTORS: &str = "crates/verdict/data/vectors.csv";

/// What a set says, as its file states it; the verdict on the outcome has to be the same.
fn vector(set: &RuleSet, evidence: &str, value: &str, reason: &Reason) -> String {
    let Reason { id, confidence, retry, class, .. } = reason;
    let (cause, told) = (cause(reason.cause), reason.merchant_cause.id());
    format!("{},{evidence},{value},{id},{cause},{class},{confidence},{retry},{told}", set.name())
}

#[test]
fn every_row_of_every_table_has_a_vector() {
    let rules = Rules::built_in().unwrap();
    let mut expected = String::from("set,evidence,value,reason,cause,class,confidence,retry,merchant_cause\n");
    for set in rules.sets() {
        for row in rows(&rules, set) {
            writeln!(expected, "{}", vector(set, row.evidence.name(), &row.value, &row.reason)).unwrap();
        }
    }
    is_up_to_date(VECTORS, &expected);
}

#[test]
fn every_vector_is_what_is_judged() {
    let rules = Rules::built_in().unwrap();
    let sets: BTreeMap<&str, &RuleSet> = rules.sets().map(|set| (set.name(), set)).collect();
    let text = fs::read_to_string(root().join(VECTORS)).unwrap();
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let set = sets[fields[0]];
        let verdict = rules.verdict(&outcome(set, fields[1], fields[2]));
        assert_eq!(verdict.rule_set, set.version(), "{line}");
        assert_eq!(vector(set, fields[1], fields[2], verdict.reason), line);
    }
    assert!(text.lines().count() > 400, "only {} vectors", text.lines().count());
}

#[test]
fn the_tables_that_come_with_the_program_have_nothing_wrong() {
    let files: Vec<(String, String)> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("rules"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), fs::read_to_string(&path).unwrap()))
        .collect();
    assert_eq!(check(&files), []);
    let named: BTreeSet<String> =
        files.iter().map(|(_, text)| text.lines().find(|line| line.starts_with("version")).unwrap().into()).collect();
    assert_eq!(named.len(), Rules::built_in().unwrap().sets().count(), "a file in rules/ is not part of the program");
}

const GENERATED: &str = "<!-- Written by `make pages` from the rule sets in crates/verdict/rules. Change those. -->\n";

/// One cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[test]
fn the_page_of_codes_is_up_to_date() {
    let rules = Rules::built_in().unwrap();
    let mut page = format!(
        "{GENERATED}\n# Codes, conditions and stages\n\nWhat each rule set that comes with the program says, and where it is known from. \
         [Reasons](reasons.md) has what each reason means and what merchants are told; \
         [the format](../crates/verdict/rules/iso8583.toml) which set judges which outcome.\n"
    );
    for set in rules.sets() {
        let rows = rows(&rules, set);
        let own: Vec<&Shown> = rows.iter().filter(|row| !row.inherited).collect();
        writeln!(page, "\n## {}\n\nVersion {}, SHA-256 {}.", set.name(), set.version(), set.checksum()).unwrap();
        let network =
            set.network().map_or_else(|| "every network without a set of its own".to_owned(), |network| format!("network {network}"));
        write!(page, "For {network}, specifications {}", set.specs().join(", ")).unwrap();
        page.push_str(if set.is_home() { ", and for outcomes that name no network.\n" } else { ".\n" });
        if let Some(base) = set.inherits() {
            let name = base.split('/').next().unwrap();
            writeln!(page, "{} more rows are inherited from {name}.", rows.len() - own.len()).unwrap();
        }
        let codes: BTreeSet<&str> = rows.iter().filter(|row| row.evidence == Evidence::Code).map(|row| row.value.as_str()).collect();
        let missing: Vec<String> = (0..100).map(|code| format!("{code:02}")).filter(|code| !codes.contains(code.as_str())).collect();
        writeln!(page, "Numbers without a row: {}.", missing.join(" ")).unwrap();
        for evidence in [Evidence::Code, Evidence::Condition, Evidence::Stage] {
            let own: Vec<_> = own.iter().filter(|row| row.evidence == evidence).collect();
            if own.is_empty() {
                continue;
            }
            writeln!(
                page,
                "\n| {} | 含义 | meaning | reason | cause | % | retry | source |\n|---|---|---|---|---|---|---|---|",
                evidence.name()
            )
            .unwrap();
            for row in own {
                let Reason { id, meaning, confidence, retry, .. } = &row.reason;
                let (zh, en, source) = (cell(&meaning.zh_cn), cell(&meaning.en), cell(&row.source));
                writeln!(page, "| {} | {zh} | {en} | {id} | {} | {confidence} | {retry} | {source} |", row.value, cause(row.reason.cause))
                    .unwrap();
            }
        }
    }
    is_up_to_date("docs/codes.md", &page);
}

#[test]
fn the_page_of_reasons_is_up_to_date() {
    let rules = Rules::built_in().unwrap();
    let mut reasons: BTreeMap<String, (Reason, BTreeSet<String>)> = BTreeMap::new();
    for set in rules.sets() {
        for reason in rules.reasons(set) {
            reasons.entry(reason.id.clone()).or_insert_with(|| (reason.clone(), BTreeSet::new()));
        }
        for row in rows(&rules, set).into_iter().filter(|row| !row.inherited) {
            let short = if row.evidence == Evidence::Code { row.value } else { format!("{} {}", row.evidence.name(), row.value) };
            reasons.get_mut(&row.reason.id).unwrap().1.insert(format!("{} {short}", set.name()));
        }
        for row in rules.attributions_of(set).filter(|row| !row.inherited) {
            let together = format!("{} many `{}` of one {}", set.name(), row.symptom, row.family.name());
            reasons.get_mut(&row.reason.id).unwrap().1.insert(together);
        }
    }
    let mut page = format!(
        "{GENERATED}\n# Reasons\n\nEvery verdict has one of these {} reasons. Identifiers are stable: rows in ClickHouse carry them. Each is told to merchants as one \
         of {} causes, which `faultline rules check` makes sure of. Confidence is how likely the cause is from one outcome alone, in percent; `retry` whether trying again can \
         help. [Codes](codes.md) has what stands for each.\n",
        reasons.len(),
        MerchantCause::ALL.len()
    );
    for merchant_cause in MerchantCause::ALL {
        let said = merchant_cause.text();
        let of_cause: Vec<_> = reasons.values().filter(|(reason, _)| reason.merchant_cause == merchant_cause).collect();
        assert!(!of_cause.is_empty(), "nothing is told as {}", merchant_cause.id());
        writeln!(page, "\n## {}: {}\n\n{}.\n", merchant_cause.id(), said.zh_cn, said.en).unwrap();
        writeln!(page, "| reason | 含义 | meaning | cause | class | % | retry | rows |\n|---|---|---|---|---|---|---|---|").unwrap();
        for (reason, named_by) in of_cause {
            let Reason { id, meaning, class, confidence, retry, .. } = reason;
            let mut by_set: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for name in named_by {
                let (set, value) = name.split_once(' ').unwrap();
                by_set.entry(set).or_default().push(value);
            }
            let rows: Vec<String> = by_set.iter().map(|(set, values)| format!("{set}: {}", values.join(", "))).collect();
            let rows = if rows.is_empty() { "given by the order of evidence".to_owned() } else { rows.join("; ") };
            let (zh, en) = (cell(&meaning.zh_cn), cell(&meaning.en));
            writeln!(page, "| {id} | {zh} | {en} | {} | {class} | {confidence} | {retry} | {rows} |", cause(reason.cause)).unwrap();
        }
    }
    page.push_str(
        "\n## When many fail together\n\nFailures of one symptom have the same possible faults, and which it was shows in what those that fail have in common. \
         The row of that part of the fleet says what they stand for; without one that fails more than it usually does, the reason of the outcome alone stands.\n",
    );
    let home = rules.sets().find(|set| set.is_home()).unwrap();
    let mut by_symptom: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for row in rules.attributions_of(home) {
        by_symptom.entry(row.symptom).or_default().push(format!(
            "| {} | {} | {} | {} | {} |",
            row.family.name(),
            row.reason.id,
            cause(row.reason.cause),
            row.faults_per_day,
            cell(row.source)
        ));
    }
    for (symptom, rows) in by_symptom {
        let of: Vec<&str> =
            reasons.values().filter(|(reason, _)| reason.symptom == symptom).map(|(reason, _)| reason.id.as_str()).collect();
        writeln!(
            page,
            "\n### {symptom}\n\nOf {}.\n\n| all of one | reason | cause | faults a day | source |\n|---|---|---|---|---|\n{}",
            of.join(", "),
            rows.join("\n")
        )
        .unwrap();
    }
    is_up_to_date("docs/reasons.md", &page);
}
