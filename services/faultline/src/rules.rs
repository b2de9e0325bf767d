//! `faultline rules`: whether rules are in order, how a verdict comes about, what two versions say differently, which are in force, which codes they do not know, and how they get to terminals.

mod bundle;
mod explain;
mod unknown;

use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Subcommand;
use faultline_proto::verdict::v1::Cause;
use faultline_rules::{RuleFiles, rule_texts, rules};
use faultline_verdict::{Evidence, Rules, check};

use crate::answer;
use crate::config::Config;
use crate::outcome_json::OutcomeJson;

/// What stands for the rules that come with the program, where a path is asked for.
const BUILT_IN: &str = "built-in";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Look for what is wrong with rule sets; each finding with its file and line. Fails where there are errors.
    Check {
        /// Files (TOML), or directories of them, that are to be used together
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Show how the verdict on one outcome comes about.
    Explain(Box<explain::Options>),
    /// Show what two versions of rules say differently.
    Diff {
        /// A file (TOML), a directory of them, or `built-in`
        #[arg(value_name = "A")]
        before: PathBuf,
        /// What it is compared with
        #[arg(value_name = "B")]
        after: PathBuf,
        /// Judge the outcomes of this file (JSON lines) by both, and count how verdicts change
        #[arg(long, value_name = "FILE")]
        on: Option<PathBuf>,
    },
    /// Show the sets in force, with their versions and checksums.
    List {
        /// A file (TOML), or a directory of them [default: `classifier.rules`]
        #[arg(long, value_name = "PATH")]
        rules: Option<PathBuf>,
    },
    /// Make a key with which rules for terminals are signed, and print its public half, which gateways and terminals' applications get.
    Keygen(bundle::Keygen),
    /// Pack the rules that come with the program, and those of files, into one signed file for terminals. Rules with errors are refused.
    Pack(bundle::Pack),
    /// Check the signature of such a file, and show what is in it.
    Verify(bundle::Verify),
    /// Show response codes that no rule set knew, and rows of rules to fill in for them.
    Unknown(unknown::Options),
}

pub(crate) async fn run(config: &Config, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Check { paths } => check_all(&paths),
        Command::Explain(options) => explain::run(config, &options),
        Command::Diff { before, after, on } => {
            let [before, after] =
                [&before, &after].map(|path| if path.as_os_str() == BUILT_IN { rules(Path::new("")) } else { rules(path) });
            let (before, after) = (before?, after?);
            match on {
                Some(file) => answer(&changes(&before, &after, &file)?),
                None => answer(&differences(&before, &after)),
            }
        }
        Command::Unknown(options) => unknown::run(config, &options).await,
        Command::List { rules } => answer(&list(&in_force(config, rules.as_deref())?)),
        Command::Keygen(options) => bundle::keygen(&options),
        Command::Pack(options) => bundle::pack(&options),
        Command::Verify(options) => bundle::verify(&options),
    }
}

/// The rules of a path; without one, those that the classifier has.
pub(crate) fn in_force(config: &Config, path: Option<&Path>) -> anyhow::Result<Rules> {
    match path {
        Some(path) => rules(path).context("--rules"),
        None => rules(&config.classifier.rules).context("configuration key `classifier.rules`"),
    }
}

/// The rules that the classifier has, as long as their files say so.
pub(crate) fn rule_files(config: &Config) -> anyhow::Result<RuleFiles> {
    RuleFiles::read(&config.classifier.rules).context("configuration key `classifier.rules`")
}

fn check_all(paths: &[PathBuf]) -> anyhow::Result<()> {
    let mut texts = Vec::new();
    for path in paths {
        texts.extend(rule_texts(path)?);
    }
    check_texts(&texts)
}

/// Says what is wrong with rules. Fails where there are errors.
fn check_texts(texts: &[(String, String)]) -> anyhow::Result<()> {
    let findings = check(texts);
    let mut said = String::new();
    for finding in &findings {
        let kind = if finding.is_error { "error" } else { "warning" };
        said.push_str(&format!("{}: {kind}: {}\n", finding.place, finding.what));
    }
    let errors = findings.iter().filter(|finding| finding.is_error).count();
    let counted = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let [files, wrong, doubtful] =
        [(texts.len(), "file"), (errors, "error"), (findings.len() - errors, "warning")].map(|(number, what)| counted(number, what));
    said.push_str(&format!("{files}, {wrong}, {doubtful}\n"));
    answer(&said)?;
    if errors > 0 {
        bail!("these rules are not to be used");
    }
    Ok(())
}

fn differences(before: &Rules, after: &Rules) -> String {
    let differences = before.differences(after);
    if differences.is_empty() {
        return "They say the same.\n".into();
    }
    let mut said = String::new();
    let mut set = None;
    for difference in &differences {
        if set != Some(&difference.set) {
            said.push_str(&format!("{}\n", difference.set));
            set = Some(&difference.set);
        }
        let side = |sign: char, text: &Option<String>| text.as_ref().map_or_else(String::new, |text| format!("    {sign} {text}\n"));
        said.push_str(&format!("  {}\n{}{}", difference.what, side('-', &difference.before), side('+', &difference.after)));
    }
    said
}

/// How many outcomes of a file would be judged otherwise, by cause, reason and confidence before and after.
fn changes(before: &Rules, after: &Rules, path: &Path) -> anyhow::Result<String> {
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {} (--on)", path.display()))?;
    let json = OutcomeJson::new()?;
    let (mut judged, mut changed) = (0_u64, BTreeMap::<[String; 2], u64>::new());
    for line in json.lines(BufReader::new(file)) {
        let (_, outcome) = line.with_context(|| path.display().to_string())?;
        judged += 1;
        let verdicts = [before, after].map(|rules| {
            let verdict = rules.verdict(&outcome);
            format!("{} {} ({} %)", cause(verdict.reason.cause), verdict.reason.id, verdict.confidence)
        });
        if verdicts[0] != verdicts[1] {
            *changed.entry(verdicts).or_default() += 1;
        }
    }
    let mut changed: Vec<_> = changed.into_iter().collect();
    changed.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let total: u64 = changed.iter().map(|(_, count)| count).sum();
    let mut said = format!("{judged} outcomes, of which {total} are judged otherwise\n");
    for ([from, to], count) in changed {
        said.push_str(&format!("{count:>12}  {from}  to  {to}\n"));
    }
    Ok(said)
}

fn list(rules: &Rules) -> String {
    let mut said = format!("{}\n", rules.version());
    for set in rules.sets() {
        let mut counts = BTreeMap::<_, usize>::new();
        rules.each_rule(set, |rule| *counts.entry(rule.evidence()).or_default() += 1);
        let count = |evidence| counts.get(&evidence).copied().unwrap_or_default();
        let part = |name: &str, value: Option<&str>| value.map_or_else(String::new, |value| format!(", {name} {value}"));
        let holds = match set.holds() {
            (None, None) => String::new(),
            (from, until) => format!(", holds{}{}", when(" from ", from), when(" until ", until)),
        };
        said.push_str(&format!(
            "\n{}\n  sha256 {}\n  {}{}{}{}{}{holds}\n  {} codes, {} conditions, {} stages, {} of evidence, {} reasons\n",
            set.version(),
            set.checksum(),
            if set.is_home() { "home, " } else { "" },
            format_args!("specifications {}", set.specs().join(" ")),
            part("network", set.network().as_deref()),
            part("acquirer", set.acquirer()),
            part("inherits", set.inherits()),
            count(Evidence::Code),
            count(Evidence::Condition),
            count(Evidence::Stage),
            rules.refinements_of(set).len(),
            rules.reasons(set).count(),
        ));
    }
    said
}

fn when(word: &str, ms: Option<i64>) -> String {
    ms.map_or_else(String::new, |ms| format!("{word}{}", prost_types::Timestamp { seconds: ms.div_euclid(1000), nanos: 0 }))
}

/// As rule sets write it.
fn cause(cause: Cause) -> String {
    cause.as_str_name().trim_start_matches("CAUSE_").to_lowercase()
}
