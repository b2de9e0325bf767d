//! `faultline rules unknown`: response codes that no rule set knew, and rows of rules to fill in for them.

use std::collections::BTreeMap;
use std::time::SystemTime;

use clap::Args;
use faultline_proto::outcome::v1::{CardNetwork, Outcome, Stage, TerminalResult};
use faultline_store::{Database, UnknownCode};
use faultline_verdict::{RuleSet, Rules};
use serde::Serialize;

use super::in_force;
use crate::answer;
use crate::columns::{self, Column, line};
use crate::config::Config;
use crate::replay::{moment, second};

/// Reasons of which rules say by themselves that they do not know a code.
const UNKNOWN: [&str; 2] = ["unknown_code", "unknown_approved"];

/// The set that all others inherit from.
const GENERAL: &str = "iso8583";
/// How long the name of a set may be that is offered.
const LONGEST_NAME: usize = 40;

/// Which codes are shown.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Of this tenant alone
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// In outcomes that completed from then on: a moment in UTC (2026-11-29T08:00:00Z), or how long ago it is
    #[arg(long, value_name = "TIME", value_parser = moment, default_value = "7days")]
    since: SystemTime,
    /// How many at most: those that were met most often
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1000), default_value_t = 50)]
    limit: u32,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// A code as it is shown in JSON.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    code: faultline_console::UnknownCode,
    /// The reason that the rules in force have for it by now; nothing where they do not know it either.
    known_as: Option<String>,
}

pub(crate) async fn run(config: &Config, options: &Options) -> anyhow::Result<()> {
    let rules = in_force(config, None)?;
    let database = Database::new(&config.clickhouse)?;
    // What was completed in this second counts too.
    let time = second(options.since)..second(SystemTime::now()).saturating_add(1);
    let codes = database.unknown_codes(options.tenant.as_deref(), &time, options.limit).await?;
    if options.json {
        let shown = codes.iter().map(|code| Shown { code: code.into(), known_as: known_as(&rules, code) });
        return answer(&format!("{}\n", serde_json::to_string_pretty(&shown.collect::<Vec<_>>())?));
    }
    answer(&as_text(&rules, &codes))
}

fn as_text(rules: &Rules, codes: &[UnknownCode]) -> String {
    if codes.is_empty() {
        return "The rules knew every response code.\n".into();
    }
    let (known, unknown): (Vec<_>, Vec<_>) =
        codes.iter().map(|code| (code, known_as(rules, code))).partition(|(_, known_as)| known_as.is_some());
    let mut said = columns::table(&COLUMNS, &codes.iter().collect::<Vec<_>>());
    if !known.is_empty() {
        said.push_str("\nThe rules in force know these by now; `faultline replay` judges what is stored again:\n");
        for (code, known_as) in known {
            said.push_str(&format!("  {} of {}: {}\n", line(&code.response_code), place(code), known_as.unwrap_or_default()));
        }
    }
    if !unknown.is_empty() {
        said.push_str(
            "\nAsk the acquirer what they mean. Fill in `reason` (`faultline rules explain` shows what each comes to, docs/reasons.md has all) and `source`, a file for \
             each\nheading, in `classifier.rules`; look at them with `faultline rules check`, and judge what is stored again with `faultline replay`.\n",
        );
        for (head, rows) in files(rules, unknown.into_iter().map(|(code, _)| code)) {
            said.push_str(&format!("\n{head}{rows}"));
        }
    }
    said
}

/// The columns of the table.
const COLUMNS: [Column<UnknownCode>; 7] = [
    ("CODE", |code| code.response_code.clone()),
    ("OUTCOMES", |code| code.outcomes.to_string()),
    ("TERMINALS", |code| code.terminals.to_string()),
    ("TOLD APPROVED", |code| format!("{} %", code.told_approved.saturating_mul(100) / code.outcomes.max(1))),
    ("FIRST", |code| time(code.first_ms)),
    ("LAST", |code| time(code.last_ms)),
    ("OF", place),
];

/// Where a code was met.
fn place(code: &UnknownCode) -> String {
    let parts = [
        ("tenant", code.tenant.as_str()),
        ("network", &network(code)),
        ("acquirer", &code.acquirer),
        ("specification", &code.response_spec),
    ];
    let said = parts.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| format!("{name} {value}"));
    line(&said.collect::<Vec<_>>().join(", "))
}

/// As rule sets write it: `unionpay`; nothing where it is not known.
fn network(code: &UnknownCode) -> String {
    match CardNetwork::try_from(i32::from(code.network)) {
        Ok(CardNetwork::Unspecified) | Err(_) => String::new(),
        Ok(network) => network.as_str_name().trim_start_matches("CARD_NETWORK_").to_lowercase(),
    }
}

/// What the rules in force make of a code, where they know it.
fn known_as(rules: &Rules, code: &UnknownCode) -> Option<String> {
    let reason = &rules.verdict(&outcome(code)).reason.id;
    (!UNKNOWN.contains(&reason.as_str())).then(|| reason.clone())
}

/// An outcome that has the code, and was declined.
fn outcome(code: &UnknownCode) -> Outcome {
    Outcome {
        stage: Stage::HostDecision.into(),
        result: TerminalResult::Declined.into(),
        network: code.network.into(),
        acquirer_id: code.acquirer.clone(),
        response_spec: code.response_spec.clone(),
        response_code: code.response_code.clone(),
        ..Outcome::default()
    }
}

/// Files of rules that know the codes once their rows are filled in: the head of each, and its rows.
fn files<'a>(rules: &Rules, codes: impl Iterator<Item = &'a UnknownCode>) -> BTreeMap<String, String> {
    let mut files = BTreeMap::<String, String>::new();
    for code in codes {
        let rows = files.entry(head(rules, code)).or_default();
        let row = format!("[[response_code]]\ncode = {}\n", quoted(&code.response_code));
        // Another network or tenant may have the same code.
        if !rows.contains(&row) {
            rows.push_str(&format!(
                "\n# {} outcomes of {}; of {} the shop was told: approved\n",
                code.outcomes,
                place(code),
                code.told_approved
            ));
            for (terminal, spool, sequence, completed_ms) in &code.examples {
                rows.push_str(&format!("# {}: terminal {}, spool {spool}, sequence {sequence}\n", time(*completed_ms), line(terminal)));
            }
            rows.push_str(&format!("{row}reason = \"\"\nsource = \"\"\n"));
        }
    }
    files
}

/// The head of a set for a code: of its acquirer, where that is known; otherwise one that stands for the set that judges such outcomes.
fn head(rules: &Rules, code: &UnknownCode) -> String {
    let judged_by = rules.verdict(&outcome(code)).rule_set;
    let set = rules.sets().find(|set| set.version() == judged_by);
    let knows_spec = code.response_spec.is_empty() || set.is_some_and(|set| set.specs().contains(&code.response_spec));
    // A specification that nobody knows says nothing of the network's own codes.
    let base = set.filter(|_| knows_spec).map_or(GENERAL, RuleSet::name);
    let own = if knows_spec { base } else { &code.response_spec };
    let name = if code.acquirer.is_empty() { own.to_owned() } else { format!("{own}-{}", code.acquirer) };
    // What an outcome may state is more than what a set may be called.
    let in_name = |character: char| character.is_ascii_alphanumeric() || ".-_".contains(character);
    let name: String = name.chars().map(|character| if in_name(character) { character } else { '-' }).take(LONGEST_NAME).collect();
    let mut head = format!("version = {}\ninherits = {}\n", quoted(&format!("{name}/own")), quoted(base));
    if !code.acquirer.is_empty() {
        head.push_str(&format!("acquirer = {}\n", quoted(&code.acquirer)));
    }
    if !knows_spec {
        head.push_str(&format!("specs = [{}]\n", quoted(&code.response_spec)));
    }
    head
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn time(ms: i64) -> String {
    prost_types::Timestamp { seconds: ms.div_euclid(1000), nanos: 0 }.to_string()
}

#[cfg(test)]
mod tests {
    use faultline_verdict::check;

    use super::*;

    fn code(code: &str, spec: &str, acquirer: &str) -> UnknownCode {
        UnknownCode {
            tenant: "acme".into(),
            network: 1,
            acquirer: acquirer.into(),
            response_spec: spec.into(),
            response_code: code.into(),
            outcomes: 12,
            told_approved: 3,
            terminals: 2,
            first_ms: 1_790_000_000_000,
            last_ms: 1_790_000_100_000,
            examples: vec![("T-1".into(), 7, 1, 1_790_000_100_000)],
        }
    }

    /// What is offered is what rules are made of: filled in, it is in order, and knows the codes.
    #[test]
    fn rows_that_are_filled_in_know_the_codes() {
        let rules = Rules::built_in().unwrap();
        let codes = [
            code("ZZ", "unionpay-pos", ""),
            code("ZY", "unionpay-pos", ""),
            code("ZZ", "unionpay-pos", "48020000"),
            code("Q9", "private-1", "48020000"),
            code("07", "private-2", ""),
            code("08", "a/specification+with-a-long-name", "a:long/acquirer-of-thirty-2-char"),
            UnknownCode { network: 2, ..code("ZZ", "", "") },
        ];
        assert!(codes.iter().all(|code| known_as(&rules, code).is_none()));
        let files = files(&rules, codes.iter());
        assert_eq!(files.len(), 6, "{files:#?}");
        let fill = |(head, rows): (&String, &String)| {
            let rows = rows.replace("reason = \"\"", "reason = \"issuer_refused\"").replace("source = \"\"", "source = \"the acquirer\"");
            (format!("{}.toml", head.lines().next().unwrap().replace('/', "-")), format!("{head}{rows}"))
        };
        let files: Vec<(String, String)> = files.iter().map(fill).collect();
        let errors: Vec<_> = check(&files).into_iter().filter(|finding| finding.is_error).collect();
        assert_eq!(errors, [], "{files:#?}");
        let rules = Rules::with(&files).unwrap();
        for code in &codes {
            assert_eq!(known_as(&rules, code).as_deref(), Some("issuer_refused"), "{code:?}");
        }
    }

    #[test]
    fn what_is_known_by_now_is_said_and_the_rest_is_offered() {
        let rules = Rules::built_in().unwrap();
        let said = as_text(&rules, &[code("51", "unionpay-pos", ""), code("ZZ", "unionpay-pos", "48020000")]);
        for part in [
            "CODE  OUTCOMES  TERMINALS  TOLD APPROVED  FIRST",
            "51    12        2          25 %           2026-09-21T14:13:20Z",
            "  51 of tenant acme, network unionpay, specification unionpay-pos: insufficient_funds\n",
            "\nversion = \"unionpay-pos-48020000/own\"\ninherits = \"unionpay-pos\"\nacquirer = \"48020000\"\n\n\
             # 12 outcomes of tenant acme, network unionpay, acquirer 48020000, specification unionpay-pos; of 3 the shop was told: approved\n\
             # 2026-09-21T14:15:00Z: terminal T-1, spool 7, sequence 1\n\
             [[response_code]]\ncode = \"ZZ\"\nreason = \"\"\nsource = \"\"\n",
        ] {
            assert!(said.contains(part), "{part} is missing from:\n{said}");
        }
        assert_eq!(as_text(&rules, &[]), "The rules knew every response code.\n");
    }
}
