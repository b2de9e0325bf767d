//! `faultline rules explain`: the way to one verdict.

use std::io::Read;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Args;
use faultline_proto::outcome::v1::{CardNetwork, Outcome, Stage, TerminalCondition, TerminalResult};
use faultline_proto::verdict::v1::{LocalizedText, Verdict};
use faultline_verdict::{Explanation, Rules};
use serde_json::json;

use super::{cause, in_force};
use crate::answer;
use crate::config::Config;
use crate::outcome_json::{OutcomeJson, verdict_json};
use crate::replay::moment;

/// An outcome, whole or in parts, and by which rules it is judged.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The outcome (JSON); `-`: from standard input
    #[arg(value_name = "FILE", conflicts_with_all = ["code", "spec", "condition", "stage", "result", "network", "acquirer"])]
    outcome: Option<PathBuf>,
    /// Its response code
    #[arg(long, value_name = "CODE", required_unless_present_any = ["outcome", "condition", "stage", "result"])]
    code: Option<String>,
    /// The specification of the response code: unionpay-pos
    #[arg(long, value_name = "NAME")]
    spec: Option<String>,
    /// The terminal condition: `response_timeout`
    #[arg(long, value_name = "NAME", value_parser = condition)]
    condition: Option<TerminalCondition>,
    /// The stage at which it ended: wait [default, with a code: `host_decision`]
    #[arg(long, value_name = "NAME", value_parser = stage)]
    stage: Option<Stage>,
    /// What the shop was told: approved, declined, failed or cancelled
    #[arg(long, value_name = "NAME", value_parser = result)]
    result: Option<TerminalResult>,
    /// The card network: unionpay
    #[arg(long, value_name = "NAME", value_parser = network)]
    network: Option<CardNetwork>,
    /// The acquirer
    #[arg(long, value_name = "ID")]
    acquirer: Option<String>,
    /// When it completed: a moment in UTC (2026-11-29T08:00:00Z), or how long ago it is (24h) [default: what the outcome says, or now]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<SystemTime>,
    /// Rule sets beside those that come with the program: a file (TOML), or a directory of them [default: `classifier.rules`]
    #[arg(long, value_name = "PATH")]
    rules: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(config: &Config, options: &Options) -> anyhow::Result<()> {
    let rules = in_force(config, options.rules.as_deref())?;
    let outcome = options.outcome()?;
    let explanation = rules.explain(&outcome, options.at(&outcome));
    let words = rules.in_words(&explanation.verdict, &outcome);
    answer(&if options.json { format!("{:#}\n", as_json(&rules, &explanation, &words)?) } else { as_text(&explanation, &words) })
}

impl Options {
    /// In milliseconds since 1970-01-01 UTC; none where the outcome's own time is meant.
    fn at(&self, outcome: &Outcome) -> Option<i64> {
        let at = match (self.at, &outcome.completion_time) {
            (Some(at), _) => at,
            (None, Some(_)) => return None,
            (None, None) => SystemTime::now(),
        };
        at.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_millis()).ok())
    }

    fn outcome(&self) -> anyhow::Result<Outcome> {
        if let Some(path) = &self.outcome {
            let mut text = String::new();
            let read = if path.as_os_str() == "-" {
                std::io::stdin().read_to_string(&mut text)
            } else {
                std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text))
            };
            read.with_context(|| format!("cannot read {}", path.display()))?;
            return OutcomeJson::new()?.read(&text).with_context(|| format!("{} is no outcome", path.display()));
        }
        let default_stage = if self.code.is_some() { Stage::HostDecision } else { Stage::Unspecified };
        Ok(Outcome {
            response_code: self.code.clone().unwrap_or_default(),
            response_spec: self.spec.clone().unwrap_or_default(),
            terminal_condition: self.condition.unwrap_or_default().into(),
            stage: self.stage.unwrap_or(default_stage).into(),
            result: self.result.unwrap_or_default().into(),
            network: self.network.unwrap_or_default().into(),
            acquirer_id: self.acquirer.clone().unwrap_or_default(),
            ..Outcome::default()
        })
    }
}

fn as_text(explanation: &Explanation<'_>, words: &Verdict) -> String {
    let verdict = explanation.verdict;
    let reason = verdict.reason;
    let mut said = String::from("Which set\n");
    for considered in &explanation.sets {
        let sign = if considered.judged { '>' } else { ' ' };
        said.push_str(&format!("{sign} {:<44} {} ({})\n", considered.set.version(), considered.because, considered.set.place()));
    }
    said.push_str("\nWhich evidence\n");
    for step in &explanation.steps {
        let sign = if step.decided { '>' } else { ' ' };
        said.push_str(&format!("{sign} {:<32} {}\n", step.looked_at, step.because));
        if let Some((place, source, inherited)) = &step.row {
            let inherited = if *inherited { ", inherited" } else { "" };
            said.push_str(&format!("    by {place}{inherited}\n    source: {source}\n"));
        }
    }
    let both = |(name, width): (&str, usize), text: &Option<LocalizedText>| {
        let LocalizedText { zh_cn, en } = text.clone().unwrap_or_default();
        format!("{name:<width$}{zh_cn}\n{:width$}{en}\n", "")
    };
    said.push_str(&format!("\nVerdict\n{:<16}{}\n", "tag", verdict.tag));
    said.push_str(&format!("{:<16}{}\n", "cause", cause(reason.cause)));
    said.push_str(&format!("{:<16}{} ({})\n", "reason", reason.id, reason.place));
    said.push_str(&format!("{:<16}{} %\n", "confidence", verdict.confidence));
    said.push_str(&format!("{:<16}{}\n", "retry", reason.retry));
    said.push_str(&format!("{:<16}{}\n", "told as", reason.merchant_cause.id()));
    for (name, text) in
        [("meaning", &words.meaning), ("cashier", &words.cashier), ("service desk", &words.service_desk), ("prevention", &words.prevention)]
    {
        said.push_str(&both((name, 16), text));
    }
    said.push_str("\nWhat the outcome shows\n");
    for evidence in &words.evidence {
        said.push_str(&both((&evidence.fact, 30), &evidence.text));
    }
    said
}

fn as_json(rules: &Rules, explanation: &Explanation<'_>, words: &Verdict) -> anyhow::Result<serde_json::Value> {
    let sets = explanation.sets.iter().map(|considered| {
        let (set, place) = (considered.set.version(), considered.set.place().to_string());
        json!({"set": set, "place": place, "judged": considered.judged, "because": considered.because})
    });
    let steps = explanation.steps.iter().map(|step| {
        let row = step
            .row
            .as_ref()
            .map(|(place, source, inherited)| json!({"place": place.to_string(), "source": source, "inherited": inherited}));
        json!({"looked_at": step.looked_at, "decided": step.decided, "because": step.because, "row": row})
    });
    Ok(json!({
        "rules": rules.version(),
        "sets": sets.collect::<Vec<_>>(),
        "steps": steps.collect::<Vec<_>>(),
        "place": explanation.verdict.reason.place.to_string(),
        "verdict": verdict_json(words)?,
    }))
}

fn condition(name: &str) -> Result<TerminalCondition, String> {
    named(name, "TERMINAL_CONDITION_", TerminalCondition::from_str_name)
}

fn stage(name: &str) -> Result<Stage, String> {
    named(name, "STAGE_", Stage::from_str_name)
}

fn result(name: &str) -> Result<TerminalResult, String> {
    named(name, "TERMINAL_RESULT_", TerminalResult::from_str_name)
}

fn network(name: &str) -> Result<CardNetwork, String> {
    named(name, "CARD_NETWORK_", CardNetwork::from_str_name)
}

/// A value of an enumeration of the contract, by its name there without what all have in common.
fn named<T>(name: &str, prefix: &str, find: impl Fn(&str) -> Option<T>) -> Result<T, String> {
    find(&format!("{prefix}{}", name.to_uppercase())).ok_or_else(|| format!("is none of the contract's {prefix}…"))
}
