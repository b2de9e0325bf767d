//! Rule sets: texts that say which reason each response code, terminal condition and stage stands for, and what each reason means. One file is
//! one set, of a network, an acquirer and a version of a specification; a set has all that it inherits, and what stands in its file before that.

mod choice;
mod format;
mod refine;
mod resolve;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, LazyLock};

use faultline_proto::outcome::v1::{CardNetwork, Outcome, Stage, TerminalCondition};
use sha2::{Digest, Sha256};

use self::choice::Choice;
pub(crate) use self::format::{File, Force, Key};
pub(crate) use self::refine::{Refined, Refinements};
use crate::reason::short_name;
use crate::{Attribution, Facts, Family, LocalizedText, MerchantCause, Reason};

/// The files that come with the program, and what errors call them.
const BUILT_IN: [(&str, &str); 4] = [
    ("crates/verdict/rules/iso8583.toml", include_str!("../rules/iso8583.toml")),
    ("crates/verdict/rules/unionpay-pos.toml", include_str!("../rules/unionpay-pos.toml")),
    ("crates/verdict/rules/visa.toml", include_str!("../rules/visa.toml")),
    ("crates/verdict/rules/mastercard.toml", include_str!("../rules/mastercard.toml")),
];

/// Kept for those that read rules again and again; not in terminals, which have no memory to spare.
static BUILT_IN_FILES: LazyLock<Result<Vec<File>, RulesError>> = LazyLock::new(|| parsed(&BUILT_IN));

/// Sets that were read together. Which of them judges an outcome follows from its specification, network and acquirer: `rules/iso8583.toml` says how.
#[derive(Clone, Debug)]
pub struct Rules {
    version: String,
    reasons: Vec<Reason>,
    sets: Vec<RuleSet>,
    choice: Choice,
}

/// One set, with all that it inherits.
#[derive(Clone, Debug)]
pub struct RuleSet {
    pub(crate) version: String,
    pub(crate) checksum: String,
    pub(crate) place: Place,
    pub(crate) inherits: Option<String>,
    pub(crate) network: Option<CardNetwork>,
    pub(crate) acquirer: Option<String>,
    /// Specifications whose codes it has by its own file, and those it has by inheritance.
    pub(crate) specs: Vec<String>,
    pub(crate) inherited_specs: Vec<String>,
    /// Whether it is for outcomes that state no network.
    pub(crate) home: bool,
    pub(crate) force: Force,
    /// False for a set that came with the program and that a file of the same name stands for: it is only inherited from.
    pub(crate) judges: bool,
    /// Places of its reasons, inherited ones included.
    reasons: Vec<usize>,
    codes: HashMap<String, Vec<Row>>,
    conditions: HashMap<i32, Vec<Row>>,
    stages: HashMap<i32, Vec<Row>>,
    pub(crate) refinements: Refinements,
    pub(crate) preventions: BTreeMap<MerchantCause, Prevention>,
    /// By symptom and family.
    pub(crate) attributions: BTreeMap<(String, Family), Whole>,
    named: Named,
}

/// What a code, a condition or a stage stands for, for a time.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) reason: usize,
    pub(crate) force: Force,
    pub(crate) place: Place,
    pub(crate) source: Arc<str>,
    pub(crate) inherited: bool,
}

/// What keeps failures from happening again that a merchant is told of in one way.
#[derive(Clone, Debug)]
pub(crate) struct Prevention {
    pub(crate) text: LocalizedText,
    pub(crate) place: Place,
    pub(crate) source: Arc<str>,
    pub(crate) inherited: bool,
}

/// What many failures of a symptom stand for that are all of one part of the fleet.
#[derive(Clone, Debug)]
pub(crate) struct Whole {
    pub(crate) reason: usize,
    pub(crate) faults_per_day: f64,
    pub(crate) place: Place,
    pub(crate) source: Arc<str>,
    pub(crate) inherited: bool,
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

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, as whoever read it calls it.
    pub file: Arc<str>,
    /// Counting from 1.
    pub line: u32,
}

/// Why texts are not rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct RulesError {
    /// Where.
    pub place: Place,
    /// The field, its value, and what is wrong with it.
    pub reason: String,
}

impl Rules {
    /// The rules that come with the program.
    ///
    /// # Errors
    /// Never, in a program that passed its tests.
    pub fn built_in() -> Result<Rules, RulesError> {
        Rules::over(&BUILT_IN, &[])
    }

    /// The rules that come with the program, and those of files, each as what to call it and its text. A set of the same name as one that comes
    /// with the program stands for that one, and a `home` set for its home set.
    ///
    /// # Errors
    /// When a text is not of the format, has a row twice, names what there is not, or judges what another does.
    pub fn with<T: AsRef<str>>(files: &[(T, T)]) -> Result<Rules, RulesError> {
        Rules::of(BUILT_IN_FILES.clone()?, files)
    }

    /// The same, with other files in place of those that come with the program: for a terminal that gets all of its rules from elsewhere.
    ///
    /// # Errors
    /// As [`Rules::with`].
    pub fn over<T: AsRef<str>>(base: &[(T, T)], files: &[(T, T)]) -> Result<Rules, RulesError> {
        Rules::of(parsed(base)?, files)
    }

    /// The files that come with the program: what errors call each, and its text.
    pub fn built_in_files() -> impl Iterator<Item = (&'static str, &'static str)> {
        BUILT_IN.into_iter()
    }

    fn of<T: AsRef<str>>(base: Vec<File>, files: &[(T, T)]) -> Result<Rules, RulesError> {
        let given = parsed(files)?;
        let mut files: Vec<(File, bool)> = base.into_iter().map(|file| (file, true)).collect();
        let gives_home = given.iter().any(|file| file.home == Some(true) && file.acquirer.is_none());
        for (file, judges) in &mut files {
            *judges = given.iter().all(|other| other.id() != file.id());
            if gives_home && *judges {
                file.home = Some(false);
            }
        }
        files.extend(given.into_iter().map(|file| (file, true)));
        let resolved = resolve::resolve(files)?;
        let choice = Choice::new(&resolved.sets)?;
        let mut sum = Sha256::new();
        for set in resolved.sets.iter().filter(|set| set.judges) {
            sum.update(&set.version);
            sum.update([0]);
        }
        let sum: String = sum.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        Ok(Rules { version: format!("rules+{sum}"), reasons: resolved.reasons, sets: resolved.sets, choice })
    }

    /// Identifies all sets together: `rules+3f2a91c04b77`. Each set's own version is in its verdicts.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The sets that judge.
    pub fn sets(&self) -> impl Iterator<Item = &RuleSet> {
        self.sets.iter().filter(|set| set.judges)
    }

    /// The reasons of a set, inherited ones included.
    pub fn reasons<'a>(&'a self, set: &'a RuleSet) -> impl Iterator<Item = &'a Reason> {
        set.reasons.iter().filter_map(|place| self.reasons.get(*place))
    }

    /// The reason of this name in the set of this version, or of another version of it; where there is none, in any set.
    #[must_use]
    pub fn reason(&self, version: &str, id: &str) -> Option<&Reason> {
        let name = name_of(version);
        let places = self.sets().filter(|set| set.name() == name).chain(self.home_first()).flat_map(|set| &set.reasons);
        places.filter_map(|place| self.reasons.get(*place)).find(|reason| reason.id == id)
    }

    /// What keeps a reason of a set from happening again, by the set of this version or of another version of it; without such a set, by the home set.
    #[must_use]
    pub fn prevention<'a>(&'a self, version: &str, reason: &'a Reason) -> Option<&'a LocalizedText> {
        let by_set = || self.of_version(version).preventions.get(&reason.merchant_cause).map(|prevention| &prevention.text);
        reason.prevention.as_ref().or_else(by_set)
    }

    /// What many failures of a symptom stand for where all are of one part of the fleet, by the set of this version or of another version of it; without
    /// such a set, by the home set.
    #[must_use]
    pub fn attributed(&self, version: &str, symptom: &str, family: Family) -> Option<&Reason> {
        self.of_version(version).attributions.get(&(symptom.to_owned(), family)).and_then(|whole| self.reasons.get(whole.reason))
    }

    /// By symptom, what may be at fault where many fail, as the home set says.
    pub fn attributions(&self) -> impl Iterator<Item = Attribution<'_>> {
        self.attributions_of(self.home())
    }

    /// The set that another inherits from.
    pub(crate) fn base(&self, set: &RuleSet) -> Option<&RuleSet> {
        self.sets.iter().find(|base| Some(&base.version) == set.inherits.as_ref())
    }

    /// Whether there are outcomes that a set judges, at some time.
    pub(crate) fn may_judge(&self, set: &RuleSet) -> bool {
        self.sets.iter().position(|other| other.judges && other.version == set.version).is_some_and(|place| self.choice.has(place))
    }

    /// The set of this version, or of another version of it; without one, the home set.
    pub(crate) fn of_version(&self, version: &str) -> &RuleSet {
        let name = name_of(version);
        self.sets().find(|set| set.name() == name).unwrap_or_else(|| self.home())
    }

    fn home_first(&self) -> impl Iterator<Item = &RuleSet> {
        self.sets.get(self.choice.home()).into_iter().chain(self.sets())
    }

    /// The set that judges an outcome of a moment, in milliseconds since 1970-01-01 UTC, and whether its codes are of the outcome's specification.
    pub(crate) fn judge(&self, outcome: &Outcome, at: i64) -> (&RuleSet, bool) {
        let (by_spec, others) = self.choice.candidates(outcome);
        let in_force = |candidates: &[usize]| candidates.iter().filter_map(|set| self.sets.get(*set)).find(|set| set.force.holds(at));
        if let Some(set) = in_force(by_spec) {
            return (set, true);
        }
        (in_force(others).unwrap_or_else(|| self.home()), outcome.response_spec.is_empty())
    }

    #[expect(clippy::indexing_slicing, reason = "the place was found in this list when the rules were read")]
    fn home(&self) -> &RuleSet {
        &self.sets[self.choice.home()]
    }

    #[expect(clippy::indexing_slicing, reason = "every place was found in this list when the rules were read")]
    pub(crate) fn reason_at(&self, place: usize) -> &Reason {
        &self.reasons[place]
    }
}

impl RuleSet {
    /// Identifies this text of the set with all that it inherits: `unionpay-pos/2026-11-29+3f2a91c04b77`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What does not change from version to version: `unionpay-pos`.
    #[must_use]
    pub fn name(&self) -> &str {
        name_of(&self.version)
    }

    /// SHA-256 of everything that it decides and says, in hexadecimal digits.
    #[must_use]
    pub fn checksum(&self) -> &str {
        &self.checksum
    }

    /// The first row of the table of this kind that holds at a moment.
    pub(crate) fn code(&self, code: &str, at: i64) -> Option<&Row> {
        in_force(self.codes.get(code), at)
    }

    pub(crate) fn condition(&self, number: i32, at: i64) -> Option<&Row> {
        in_force(self.conditions.get(&number), at)
    }

    pub(crate) fn stage(&self, number: i32, at: i64) -> Option<&Row> {
        in_force(self.stages.get(&number), at)
    }

    /// What a reason becomes where an outcome of a moment shows these facts.
    pub(crate) fn refined(&self, reason: usize, facts: Facts, at: i64) -> Option<&Refined> {
        self.refinements.of(reason).iter().find(|refined| refined.holds(facts) && refined.row.force.holds(at))
    }

    pub(crate) fn named(&self) -> Named {
        self.named
    }

    /// Every row, by what it is about, in order.
    pub(crate) fn rows(&self) -> BTreeMap<Key, &[Row]> {
        let codes = self.codes.iter().map(|(code, rows)| (Key::Code(code.clone()), rows.as_slice()));
        let conditions = self.conditions.iter().map(|(number, rows)| (Key::Condition(*number), rows.as_slice()));
        let stages = self.stages.iter().map(|(number, rows)| (Key::Stage(*number), rows.as_slice()));
        codes.chain(conditions).chain(stages).collect()
    }
}

fn parsed<T: AsRef<str>>(files: &[(T, T)]) -> Result<Vec<File>, RulesError> {
    files.iter().map(|(name, text)| File::parse(name.as_ref(), text.as_ref())).collect()
}

fn in_force(rows: Option<&Vec<Row>>, at: i64) -> Option<&Row> {
    rows?.iter().find(|row| row.force.holds(at))
}

fn name_of(version: &str) -> &str {
    version.split(['/', '+']).next().unwrap_or_default()
}

/// What an attribution is about, for people: ``attribution of `unanswered` to a `host` ``.
pub(crate) fn attributed(symptom: &str, family: Family) -> String {
    format!("attribution of `{symptom}` to `{}`", family.name())
}

/// What evidence is about, for people: ``evidence of `no_answer` with weak_signal``.
pub(crate) fn evidence_named(of: &str, all_of: Facts, none_of: Facts) -> String {
    let without = if none_of.is_empty() { String::new() } else { format!(" and without {none_of}") };
    format!("evidence of `{of}` with {all_of}{without}")
}

/// What a row is about, for people: ``response code `51` ``.
pub(crate) fn named(key: &Key) -> String {
    match key {
        Key::Code(code) => format!("response code `{code}`"),
        Key::Condition(number) => format!("condition `{}`", condition_name(*number)),
        Key::Stage(number) => format!("stage `{}`", stage_name(*number)),
    }
}

/// As rule sets write it: `chip_read`; the number of one of a newer contract.
pub(crate) fn condition_name(number: i32) -> String {
    TerminalCondition::try_from(number).map_or_else(|_| number.to_string(), |known| short_name(known.as_str_name(), "TERMINAL_CONDITION_"))
}

/// As rule sets write it: `card_read`; the number of one of a newer contract.
pub(crate) fn stage_name(number: i32) -> String {
    Stage::try_from(number).map_or_else(|_| number.to_string(), |known| short_name(known.as_str_name(), "STAGE_"))
}

impl Default for Place {
    fn default() -> Self {
        Place { file: "".into(), line: 1 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.file, self.line)
    }
}
