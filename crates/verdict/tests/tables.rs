//! The tables that come with the program: every row has a test vector, and two pages show all of them. What is written here is compared with the files;
//! `make pages` writes them anew, and a diff shows what changed.
#![expect(clippy::unwrap_used, reason = "a test, its helpers included, may stop at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use faultline_proto::outcome::v1::{
    CardNetwork, EmvEvidence, Outcome, ReaderHistory, Stage, StageLatencies, TerminalCondition, TerminalResult,
};
use faultline_verdict::{Cause, Evidence, Fact, Facts, MerchantCause, Place, Reason, Refinement, RuleSet, Rules, check};

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

/// An outcome of which a set finds this reason before it looks at facts.
fn outcome_of(rules: &Rules, set: &RuleSet, reason: &str) -> Outcome {
    let result = |result: TerminalResult| Outcome { result: result.into(), ..outcome(set, "stage", "host_decision") };
    match reason {
        "declined_by_terminal" => result(TerminalResult::Declined),
        "approved_not_completed" => Outcome { result: TerminalResult::Declined.into(), ..outcome(set, "response_code", "00") },
        _ => {
            let row = rows(rules, set).into_iter().find(|row| row.reason.id == reason).unwrap();
            outcome(set, row.evidence.name(), &row.value)
        }
    }
}

/// What a terminal says that has met a fact.
fn show(fact: Fact, outcome: &mut Outcome) {
    let tvr = |outcome: &mut Outcome, byte: u8, bit: u8| {
        let results: Vec<u8> = (1..=5).map(|place| if place == byte { bit } else { 0 }).collect();
        outcome.emv.get_or_insert_with(EmvEvidence::default).terminal_verification_results = results.into();
    };
    let word = |outcome: &mut Outcome, word| outcome.emv.get_or_insert_with(EmvEvidence::default).status_words = vec![0x9000, word];
    let well = ReaderHistory { reads: 100, failures: 1, failed_sales: 1, consecutive_failures: 1, ..ReaderHistory::default() };
    let reader = outcome.reader_history.unwrap_or(well);
    // What is known of a way is known behind it.
    let is_of_way = matches!(fact, Fact::QuickConnect | Fact::SlowConnect | Fact::SlowTls | Fact::SlowNameResolution);
    if is_of_way && outcome.stage() < Stage::Wait {
        outcome.stage = Stage::Wait.into();
    }
    let latencies = outcome.latencies.get_or_insert_with(StageLatencies::default);
    match fact {
        Fact::WeakSignal => outcome.signal_dbm = Some(-113),
        Fact::GoodSignal => outcome.signal_dbm = Some(-61),
        Fact::SlowNameResolution => latencies.dns_ms = Some(2100),
        Fact::QuickConnect => latencies.connect_ms = Some(80),
        Fact::SlowConnect => latencies.connect_ms = Some(3100),
        Fact::SlowTls => latencies.tls_ms = Some(5000),
        Fact::SentWhole => outcome.stage = Stage::Wait.into(),
        Fact::LongWait => {
            latencies.wait_ms = Some(60_000);
            outcome.stage = Stage::Wait.into();
        }
        Fact::RepeatedAttempt => outcome.attempt = 2,
        Fact::ChipDataMissing => tvr(outcome, 1, 0x20),
        Fact::CardAuthenticationFailed => tvr(outcome, 1, 0x08),
        Fact::CardExpired => tvr(outcome, 2, 0x40),
        Fact::CardNotYetValid => tvr(outcome, 2, 0x20),
        Fact::ServiceNotAllowed => tvr(outcome, 2, 0x10),
        Fact::VerificationFailed => tvr(outcome, 3, 0x80),
        Fact::PinTriesExceeded => tvr(outcome, 3, 0x20),
        Fact::PinPadAbsent => tvr(outcome, 3, 0x10),
        Fact::PinNotEntered => tvr(outcome, 3, 0x08),
        Fact::IssuerAuthenticationFailed => tvr(outcome, 5, 0x40),
        Fact::ScriptFailed => tvr(outcome, 5, 0x10),
        Fact::ChipAnswered => word(outcome, 0x9000),
        Fact::PinBlocked => word(outcome, 0x6983),
        Fact::PinWrong => word(outcome, 0x63C2),
        Fact::ChipBlocked => word(outcome, 0x6A81),
        Fact::ApplicationNotFound => word(outcome, 0x6A82),
        Fact::ConditionsNotMet => word(outcome, 0x6985),
        Fact::ChipError => word(outcome, 0x6F00),
        Fact::CommandRefused => word(outcome, 0x6D00),
        Fact::Fallback => outcome.emv.get_or_insert_with(EmvEvidence::default).fallback = true,
        Fact::ReaderFailsOften => outcome.reader_history = Some(ReaderHistory { reads: 30, failures: 5, failed_sales: 4, ..reader }),
        Fact::ReaderFailsInARow => {
            outcome.reader_history = Some(ReaderHistory { failures: 3, failed_sales: 2, consecutive_failures: 3, ..reader });
        }
        Fact::ReaderReadsWell => outcome.reader_history = Some(reader),
        Fact::ReaderReadSince => {
            let few = outcome.reader_history.unwrap_or(ReaderHistory { reads: 10, failures: 2, ..well });
            outcome.reader_history = Some(ReaderHistory { next_good_read_ms: Some(42_000), ..few });
        }
    }
}

#[test]
fn every_fact_is_met_by_what_is_shown_of_it() {
    for fact in Fact::ALL {
        let mut outcome = Outcome::default();
        show(fact, &mut outcome);
        assert!(Facts::of(&outcome).has(fact), "{}", fact.id());
    }
}

const VECTORS: &str = "crates/verdict/data/vectors.csv";
/// What the file calls a row of evidence.
const EVIDENCE: &str = "evidence";

/// What a set says, as its file states it; the verdict on the outcome has to be the same.
fn vector(set: &RuleSet, (evidence, value): (&str, &str), reason: &Reason, confidence: u8) -> String {
    let Reason { id, retry, class, .. } = reason;
    let (cause, told) = (cause(reason.cause), reason.merchant_cause.id());
    format!("{},{evidence},{value},{id},{cause},{class},{confidence},{retry},{told}", set.name())
}

/// What a row of evidence is about, and what it is met by: `no_answer: weak_signal`.
fn evidence_value(row: &Refinement<'_>) -> String {
    let facts: Vec<&str> = row.all_of.iter().map(Fact::id).collect();
    format!("{}: {}", row.of.id, facts.join(" "))
}

#[test]
fn every_row_of_every_table_has_a_vector() {
    let rules = Rules::built_in().unwrap();
    let mut expected = String::from("set,evidence,value,reason,cause,class,confidence,retry,merchant_cause\n");
    for set in rules.sets() {
        for row in rows(&rules, set) {
            writeln!(expected, "{}", vector(set, (row.evidence.name(), &row.value), &row.reason, row.reason.confidence)).unwrap();
        }
        for row in rules.refinements_of(set) {
            assert_eq!(row.holds(), (None, None), "a row that holds for a time needs vectors for it");
            writeln!(expected, "{}", vector(set, (EVIDENCE, &evidence_value(&row)), row.reason, row.confidence)).unwrap();
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
        let verdict = match fields[1] {
            EVIDENCE => {
                let (of, facts) = fields[2].split_once(": ").unwrap();
                let mut outcome = outcome_of(&rules, set, of);
                let tag = rules.verdict(&outcome).tag;
                assert_eq!(rules.verdict(&outcome).reason.id, of, "{line}");
                facts.split(' ').for_each(|id| show(Fact::ALL.into_iter().find(|fact| fact.id() == id).unwrap(), &mut outcome));
                let verdict = rules.verdict(&outcome);
                assert_eq!(verdict.tag.split('/').next(), tag.split('/').next(), "{line}");
                verdict
            }
            _ => rules.verdict(&outcome(set, fields[1], fields[2])),
        };
        assert_eq!(verdict.rule_set, set.version(), "{line}");
        assert_eq!(vector(set, (fields[1], fields[2]), verdict.reason, verdict.confidence), line);
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
        for row in rules.refinements_of(set).iter().filter(|row| !row.inherited && row.of.id != row.reason.id) {
            let facts: Vec<&str> = row.all_of.iter().map(Fact::id).collect();
            let by_facts = format!("{} {} with {}", set.name(), row.of.id, facts.join(" and "));
            reasons.get_mut(&row.reason.id).unwrap().1.insert(by_facts);
        }
        for row in rules.attributions_of(set).filter(|row| !row.inherited) {
            let together = format!("{} many `{}` of one {}", set.name(), row.symptom, row.family.name());
            reasons.get_mut(&row.reason.id).unwrap().1.insert(together);
        }
    }
    let mut page = format!(
        "{GENERATED}\n# Reasons\n\nEvery verdict has one of these {} reasons. Identifiers are stable: rows in ClickHouse carry them. Each is told to merchants as one \
         of {} causes, which `faultline rules check` makes sure of. `%` is how likely the cause is, as far as nothing else is known; [evidence](evidence.md) says what that means, and what \
         facts make of it. `retry` is whether trying again can help. [Codes](codes.md) has what stands for each.\n",
        reasons.len(),
        MerchantCause::ALL.len()
    );
    let home = rules.sets().find(|set| set.is_home()).unwrap();
    for merchant_cause in MerchantCause::ALL {
        let said = merchant_cause.text();
        let of_cause: Vec<_> = reasons.values().filter(|(reason, _)| reason.merchant_cause == merchant_cause).collect();
        assert!(!of_cause.is_empty(), "nothing is told as {}", merchant_cause.id());
        let (_, prevention, _) = rules.preventions_of(home).find(|(other, ..)| *other == merchant_cause).unwrap();
        writeln!(page, "\n## {}: {}\n\n{}.\n", merchant_cause.id(), said.zh_cn, said.en).unwrap();
        writeln!(page, "What keeps it from happening: {} {}\n", prevention.zh_cn, prevention.en).unwrap();
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

#[test]
fn the_page_of_evidence_is_up_to_date() {
    let rules = Rules::built_in().unwrap();
    let mut page = format!(
        "{GENERATED}\n# Evidence\n\nA verdict is found by response code, terminal condition, result and stage. What else an outcome shows is read as facts, and rows of evidence \
         say what facts make of a [reason](reasons.md): another reason, another confidence, or both. Of the rows of a reason the first that holds decides. A verdict says in words, with \
         the numbers, every fact of something that is wrong, also where it changed nothing; that something is in order it says where that is weighed.\n\n\
         **Confidence** is in percent here and from 0 to 1 in the contract: of a hundred outcomes with such a verdict, over the mix of faults that a fleet has in a month, so many have this cause. \
         It is of one outcome alone; what many failures have in common says more later. The numbers are estimates.\n\n\
         **The tag stays.** Detection counts class and stage of the reason that was found without facts, so it counts the same of a terminal that measures its signal and of one that does not, and a fault \
         does not move to another class when a part of the fleet learns to report more. Facts change whose fault it is, how certain that is, and what is to be done.\n\n\
         **Money comes first.** Where it may have moved, no row takes away that it is to be asked after before anything is charged again. No row makes a failure of an approval.\n\n\
         ## Facts\n\nWhat was not measured is no fact; zero, what contradicts itself and what is beyond the limits of the contract neither. Status words are those of the last card \
         command. TVR are the terminal verification results (EMV tag 95); that a card is on the terminal's exception list is left out on purpose, since the shop is not told why such a card is refused.\n\n\
         | fact | what it takes | source |\n|---|---|---|\n"
    );
    for fact in Fact::ALL {
        writeln!(page, "| {} | {} | {} |", fact.id(), cell(fact.takes()), cell(fact.source())).unwrap();
    }
    page.push_str("\n## What they make of reasons\n");
    for set in rules.sets() {
        // Rows that are written as one are shown as one, in the order in which they are written.
        let mut own: BTreeMap<&Place, Vec<Refinement<'_>>> = BTreeMap::new();
        for row in rules.refinements_of(set).into_iter().filter(|row| !row.inherited) {
            own.entry(row.place).or_default().push(row);
        }
        if own.is_empty() {
            continue;
        }
        writeln!(page, "\n### {}\n\n| reasons | with | without | become | cause | % | source |\n|---|---|---|---|---|---|---|", set.name())
            .unwrap();
        for rows in own.values() {
            let first = rows.first().unwrap();
            let of: Vec<&str> = rows.iter().map(|row| row.of.id.as_str()).collect();
            let mut causes: Vec<String> = rows.iter().map(|row| cause(row.reason.cause)).collect();
            causes.dedup();
            let becomes = if first.of.id == first.reason.id { "" } else { first.reason.id.as_str() };
            let (of, causes, confidence, source) = (of.join(", "), causes.join(", "), first.confidence, cell(first.source));
            writeln!(page, "| {of} | {} | {} | {becomes} | {causes} | {confidence} | {source} |", first.all_of, first.none_of).unwrap();
        }
    }
    is_up_to_date("docs/evidence.md", &page);
}

/// What the guide for merchants says to do before anything fails.
#[test]
fn prevention_covers_what_is_to_be_done_beforehand() {
    let rules = Rules::built_in().unwrap();
    for set in rules.sets() {
        let texts: Vec<_> = rules.preventions_of(set).collect();
        assert_eq!(texts.len(), MerchantCause::ALL.len(), "{}", set.name());
        for topic in ["定期保养", "第二条网络", "培训", "维护时段"] {
            assert!(texts.iter().any(|(_, text, _)| text.zh_cn.contains(topic)), "nothing of {topic}");
        }
        for (merchant_cause, text, _) in texts {
            assert!(text.zh_cn.contains("个人信息") && text.en.contains("personal data"), "{}", merchant_cause.id());
        }
    }
}
