//! A rule set: a text that says which reason each response code, terminal condition and stage stands for, and what each reason means.

use std::collections::HashMap;

use faultline_proto::outcome::v1::{Stage, TerminalCondition};
use serde::Deserialize;

use crate::{Cause, LocalizedText};

/// The rule set that comes with the program: UnionPay POS, read for other ISO 8583 hosts too.
const BUILT_IN: &str = include_str!("../rules/unionpay-pos.toml");

/// What a tag calls a stage of a newer contract.
const NEWER_STAGE: &str = "newer";
/// What a tag calls a stage that was not stated.
const NO_STAGE: &str = "none";

/// Rules that were read and checked.
#[derive(Clone, Debug)]
pub struct RuleSet {
    version: String,
    /// Specifications whose response codes the table has.
    specs: Vec<String>,
    reasons: Vec<Reason>,
    codes: HashMap<String, usize>,
    conditions: HashMap<i32, usize>,
    stages: HashMap<i32, usize>,
    named: Named,
}

/// The reasons that the order of evidence itself gives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named {
    pub(crate) unknown_code: usize,
    pub(crate) unknown_approved: usize,
    pub(crate) approved_not_completed: usize,
    pub(crate) cancelled: usize,
    pub(crate) declined_by_terminal: usize,
    pub(crate) no_evidence: usize,
}

/// Why a transaction ended as it did, and what is to be done.
#[derive(Clone, Debug, PartialEq)]
pub struct Reason {
    /// Stable identifier: `insufficient_funds`.
    pub id: String,
    /// Whose fault it is.
    pub cause: Cause,
    /// What detection counts it as: `funds`.
    pub class: String,
    /// How likely the cause is, from this alone, in percent.
    pub confidence: u8,
    /// Whether trying again can help.
    pub retry: Retry,
    /// What it means.
    pub meaning: LocalizedText,
    /// What the cashier should do.
    pub cashier: LocalizedText,
    /// What the service desk should do.
    pub service_desk: LocalizedText,
    /// Class and stage, by the number of the stage.
    tags: Vec<String>,
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// At once.
    Now,
    /// After so many minutes.
    Later(u32),
    /// With another card.
    OtherCard,
    /// With another way to pay.
    OtherMethod,
    /// Not at all.
    Never,
    /// Only after asking whether the money moved.
    QueryFirst,
}

/// Why a text is not a rule set.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// It is not of the format.
    #[error("the rule set cannot be read")]
    Format(#[from] toml::de::Error),
    /// A row contradicts another, or names what there is not.
    #[error("{0}")]
    Row(String),
}

impl RuleSet {
    /// The rule set that comes with the program.
    ///
    /// # Errors
    /// Never, in a program that passed its tests.
    pub fn built_in() -> Result<RuleSet, RulesError> {
        RuleSet::parse(BUILT_IN)
    }

    /// Reads a rule set; the format is that of `rules/unionpay-pos.toml`, which explains itself.
    ///
    /// # Errors
    /// When it is not of the format, has a row twice, or has a row that names a reason, a condition or a stage that there is not.
    pub fn parse(text: &str) -> Result<RuleSet, RulesError> {
        let written: Written = toml::from_str(text)?;
        let mut reasons: Vec<Reason> = Vec::new();
        let mut by_id = HashMap::new();
        for row in written.reason {
            once(by_id.insert(row.id.clone(), reasons.len()), "reason", &row.id)?;
            reasons.push(row.read()?);
        }
        let find = |what: &str, id: &str| {
            by_id.get(id).copied().ok_or_else(|| RulesError::Row(format!("{what} names reason `{id}`, which there is not")))
        };
        let (mut codes, mut conditions, mut stages) = (HashMap::new(), HashMap::new(), HashMap::new());
        for row in &written.response_code {
            let reason = find(&format!("response code `{}`", row.code), &row.reason)?;
            once(codes.insert(row.code.clone(), reason), "response code", &row.code)?;
        }
        for row in &written.condition {
            let reason = find(&format!("condition `{}`", row.condition), &row.reason)?;
            let number = TerminalCondition::from_str_name(&format!("TERMINAL_CONDITION_{}", row.condition.to_uppercase()))
                .ok_or_else(|| RulesError::Row(format!("condition `{}` is none of the contract's", row.condition)))?;
            once(conditions.insert(i32::from(number), reason), "condition", &row.condition)?;
        }
        for row in &written.stage {
            let reason = find(&format!("stage `{}`", row.stage), &row.reason)?;
            let number = Stage::from_str_name(&format!("STAGE_{}", row.stage.to_uppercase()))
                .ok_or_else(|| RulesError::Row(format!("stage `{}` is none of the contract's", row.stage)))?;
            once(stages.insert(i32::from(number), reason), "stage", &row.stage)?;
        }
        let always = |id| find("the order of evidence", id);
        let named = Named {
            unknown_code: always("unknown_code")?,
            unknown_approved: always("unknown_approved")?,
            approved_not_completed: always("approved_not_completed")?,
            cancelled: always("cancelled")?,
            declined_by_terminal: always("declined_by_terminal")?,
            no_evidence: always("no_evidence")?,
        };
        Ok(RuleSet { version: written.version, specs: written.specs, reasons, codes, conditions, stages, named })
    }

    /// Identifies this text of the rules: `unionpay-pos/2026-11-25`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Every reason, in the order of the text.
    #[must_use]
    pub fn reasons(&self) -> &[Reason] {
        &self.reasons
    }

    pub(crate) fn named(&self) -> Named {
        self.named
    }

    pub(crate) fn by_code(&self, spec: &str, code: &str) -> Option<usize> {
        let is_ours = spec.is_empty() || self.specs.iter().any(|known| known == spec);
        if is_ours { self.codes.get(code).copied() } else { None }
    }

    pub(crate) fn by_condition(&self, condition: i32) -> Option<usize> {
        self.conditions.get(&condition).copied()
    }

    pub(crate) fn by_stage(&self, stage: i32) -> Option<usize> {
        self.stages.get(&stage).copied()
    }
}

impl Reason {
    /// What detection counts at a stage: class and stage, `issuer_down/host_decision`.
    #[must_use]
    pub fn tag(&self, stage: i32) -> &str {
        let newer = self.tags.last().map_or("", String::as_str);
        usize::try_from(stage).ok().and_then(|stage| self.tags.get(stage)).map_or(newer, String::as_str)
    }
}

/// A row may be there only once.
fn once(before: Option<usize>, what: &str, name: &str) -> Result<(), RulesError> {
    before.map_or(Ok(()), |_| Err(RulesError::Row(format!("{what} `{name}` is there twice"))))
}

/// By number, what tags call the stages of the contract; last, what they call one of a newer contract.
fn stage_names() -> Vec<String> {
    let known = (0..).map_while(|number| Stage::try_from(number).ok());
    let name = |stage: Stage| match stage {
        Stage::Unspecified => NO_STAGE.to_owned(),
        stage => stage.as_str_name().trim_start_matches("STAGE_").to_lowercase(),
    };
    known.map(name).chain([NEWER_STAGE.to_owned()]).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: String,
    specs: Vec<String>,
    reason: Vec<WrittenReason>,
    #[serde(default)]
    response_code: Vec<WrittenCode>,
    #[serde(default)]
    condition: Vec<WrittenCondition>,
    #[serde(default)]
    stage: Vec<WrittenStage>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenReason {
    id: String,
    cause: String,
    class: String,
    confidence: u8,
    retry: String,
    retry_minutes: Option<u32>,
    meaning: Text,
    cashier: Text,
    service_desk: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    zh_cn: String,
    en: String,
}

/// `source` is for who reads the text; here it is only made sure that there is one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCode {
    code: String,
    reason: String,
    #[serde(rename = "source")]
    _source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCondition {
    condition: String,
    reason: String,
    #[serde(rename = "source")]
    _source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenStage {
    stage: String,
    reason: String,
    #[serde(rename = "source")]
    _source: String,
}

impl WrittenReason {
    fn read(self) -> Result<Reason, RulesError> {
        let wrong = |what: String| Err(RulesError::Row(format!("reason `{}` {what}", self.id)));
        let cause = match Cause::from_str_name(&format!("CAUSE_{}", self.cause.to_uppercase())) {
            Some(cause) if cause != Cause::Unspecified => cause,
            _ => return wrong(format!("has cause `{}`, which there is not", self.cause)),
        };
        if self.confidence > 100 {
            return wrong(format!("has confidence {}, and 100 is the most", self.confidence));
        }
        let retry = match (self.retry.as_str(), self.retry_minutes) {
            ("now", None) => Retry::Now,
            ("later", Some(minutes)) => Retry::Later(minutes),
            ("other_card", None) => Retry::OtherCard,
            ("other_method", None) => Retry::OtherMethod,
            ("never", None) => Retry::Never,
            ("query_first", None) => Retry::QueryFirst,
            ("later", None) => return wrong("is to be tried later, and does not say after how many minutes (`retry_minutes`)".into()),
            (other, _) => return wrong(format!("has retry `{other}`, which there is not, or minutes that it does not take")),
        };
        for (field, text) in [("meaning", &self.meaning), ("cashier", &self.cashier), ("service_desk", &self.service_desk)] {
            if text.zh_cn.is_empty() || text.en.is_empty() {
                return wrong(format!("has no `{field}` in one of the languages"));
            }
        }
        let tags = stage_names().iter().map(|stage| format!("{}/{stage}", self.class)).collect();
        let text = |text: Text| LocalizedText { zh_cn: text.zh_cn, en: text.en };
        let (meaning, cashier, service_desk) = (text(self.meaning), text(self.cashier), text(self.service_desk));
        Ok(Reason { id: self.id, cause, class: self.class, confidence: self.confidence, retry, meaning, cashier, service_desk, tags })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rule set with the reasons that every one has, and what is given.
    fn written(more: &str) -> String {
        let text = "{ zh_cn = '字', en = 'text' }";
        let required = ["unknown_code", "unknown_approved", "approved_not_completed", "cancelled", "declined_by_terminal", "no_evidence"]
            .map(|id| {
                format!(
                    "[[reason]]\nid = '{id}'\ncause = 'unknown'\nclass = 'unknown'\nconfidence = 0\nretry = 'now'\n\
                     meaning = {text}\ncashier = {text}\nservice_desk = {text}\n"
                )
            });
        format!("version = 'test'\nspecs = ['a']\n{}{more}", required.concat())
    }

    #[track_caller]
    fn refused(text: &str, said: &str) {
        let error = RuleSet::parse(text).unwrap_err();
        let message = format!("{error}: {:?}", std::error::Error::source(&error).map(ToString::to_string));
        assert!(message.contains(said), "{message}");
    }

    #[test]
    fn a_row_that_is_wrong_is_named() {
        RuleSet::parse(&written("")).unwrap();
        let row = "[[response_code]]\ncode = '51'\nreason = 'no_evidence'\nsource = 'a table'\n";
        refused(&written(&[row, row].concat()), "response code `51` is there twice");
        refused(&written(&row.replace("no_evidence", "funds")), "response code `51` names reason `funds`");
        refused(&written(&row.replace("source = 'a table'", "")), "missing field `source`");
        refused(&written("[[stage]]\nstage = 'lunch'\nreason = 'no_evidence'\nsource = ''"), "stage `lunch` is none");
        refused(&written("[[condition]]\ncondition = 'rain'\nreason = 'no_evidence'\nsource = ''"), "condition `rain` is none");
        refused(&written("").replace("'cancelled'", "'canceled'"), "names reason `cancelled`, which there is not");
        refused(&written("").replacen("'now'", "'later'", 1), "`unknown_code` is to be tried later");
        refused(&written("").replacen("cause = 'unknown'", "cause = 'weather'", 1), "cause `weather`");
        refused(&written("").replacen("confidence = 0", "confidence = 101", 1), "confidence 101");
        refused(&written("").replacen("en = 'text'", "en = ''", 1), "no `meaning` in one of the languages");
    }

    #[test]
    fn tags_are_of_class_and_stage() {
        let rules = RuleSet::parse(&written("")).unwrap();
        let reason = &rules.reasons()[0];
        assert_eq!(reason.tag(Stage::HostDecision.into()), "unknown/host_decision");
        assert_eq!(reason.tag(Stage::OfflineDecision.into()), "unknown/offline_decision");
        assert_eq!(reason.tag(0), "unknown/none");
        assert_eq!((reason.tag(99), reason.tag(-1)), ("unknown/newer", "unknown/newer"));
    }
}

#[cfg(test)]
mod fuzz {
    use faultline_fuzz::target;
    use faultline_proto::outcome::v1::Outcome;

    use super::*;

    #[test]
    fn a_rule_set_has_a_verdict_on_everything_or_is_refused() {
        let fates = target!(Text, "rules").run(|bytes| {
            let rules = match RuleSet::parse(std::str::from_utf8(bytes).unwrap()) {
                Ok(rules) => rules,
                Err(error) => return if matches!(error, RulesError::Row(_)) { "a wrong row" } else { "no rules" },
            };
            assert!(rules.reasons().iter().all(|reason| reason.confidence <= 100 && reason.cause != Cause::Unspecified));
            for (code, stage) in [("", -1), ("51", 8), ("91", 99), ("", 7)] {
                let outcome = Outcome { response_code: code.into(), stage, terminal_condition: stage, ..Outcome::default() };
                let verdict = rules.verdict(&outcome);
                assert!(verdict.tag.starts_with(&verdict.reason.class) && verdict.tag.contains('/'), "{}", verdict.tag);
            }
            "read"
        });
        fates.include(["read", "a wrong row", "no rules"]);
    }
}
