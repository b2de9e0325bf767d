//! Rules as tables, for people and for what compares them.

use std::collections::{BTreeMap, BTreeSet};

use crate::reason::short_name;
use crate::rules::{Force, Key, Refined, Row, RuleSet, attributed, condition_name, evidence_named, named, stage_name};
use crate::{Facts, Family, LocalizedText, MerchantCause, Place, Reason, Rules};

/// A row of a set.
#[derive(Clone, Copy, Debug)]
pub struct Rule<'a> {
    key: &'a Key,
    /// What it stands for.
    pub reason: &'a Reason,
    /// Where it is known from.
    pub source: &'a str,
    /// Where it is written.
    pub place: &'a Place,
    /// Whether it is from a set that is inherited from.
    pub inherited: bool,
    force: Force,
}

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    /// A response code.
    Code,
    /// A terminal condition.
    Condition,
    /// A stage.
    Stage,
}

/// What a reason becomes where an outcome shows certain facts: a row of evidence.
#[derive(Clone, Copy, Debug)]
pub struct Refinement<'a> {
    /// The reason that was found without them, which the tag is of.
    pub of: &'a Reason,
    /// Facts that it takes.
    pub all_of: Facts,
    /// Facts with which it does not hold.
    pub none_of: Facts,
    /// What the reason becomes.
    pub reason: &'a Reason,
    /// How likely the cause is then, in percent.
    pub confidence: u8,
    /// Where it is known from.
    pub source: &'a str,
    /// Where it is written.
    pub place: &'a Place,
    /// Whether it is from a set that is inherited from.
    pub inherited: bool,
    force: Force,
}

/// What many failures of a symptom stand for that are all of one part of the fleet.
#[derive(Clone, Copy, Debug)]
pub struct Attribution<'a> {
    /// What the failures have in common: [`Reason::symptom`].
    pub symptom: &'a str,
    /// How the fleet is cut into such parts.
    pub family: Family,
    /// What they stand for.
    pub reason: &'a Reason,
    /// How many faults such a part has on a day, as far as that can be said before anything is seen of it.
    pub faults_per_day: f64,
    /// Where it is known from.
    pub source: &'a str,
    /// Where it is written.
    pub place: &'a Place,
    /// Whether it is from a set that is inherited from.
    pub inherited: bool,
}

/// Something that two rules say differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Name of the set.
    pub set: String,
    /// ``response code `51` ``, ``reason `insufficient_funds` ``, `set`.
    pub what: String,
    /// What the first says; nothing where it has none.
    pub before: Option<String>,
    /// What the second says.
    pub after: Option<String>,
}

impl Rule<'_> {
    /// What it is about.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        match self.key {
            Key::Code(_) => Evidence::Code,
            Key::Condition(_) => Evidence::Condition,
            Key::Stage(_) => Evidence::Stage,
        }
    }

    /// The code, or the name of the condition or stage.
    #[must_use]
    pub fn value(&self) -> String {
        match self.key {
            Key::Code(code) => code.clone(),
            Key::Condition(number) => condition_name(*number),
            Key::Stage(number) => stage_name(*number),
        }
    }

    /// From when until when it holds, in milliseconds since 1970-01-01 UTC; the second does not belong to it.
    #[must_use]
    pub fn holds(&self) -> (Option<i64>, Option<i64>) {
        bounds(self.force)
    }
}

impl Refinement<'_> {
    /// From when until when it holds, in milliseconds since 1970-01-01 UTC; the second does not belong to it.
    #[must_use]
    pub fn holds(&self) -> (Option<i64>, Option<i64>) {
        bounds(self.force)
    }
}

impl Evidence {
    /// As rule sets write it: `response_code`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Evidence::Code => "response_code",
            Evidence::Condition => "condition",
            Evidence::Stage => "stage",
        }
    }
}

impl RuleSet {
    /// The network that it is for, as rule sets write it: `unionpay`.
    #[must_use]
    pub fn network(&self) -> Option<String> {
        self.network.map(|network| short_name(network.as_str_name(), "CARD_NETWORK_"))
    }

    pub(crate) fn is_of(&self, network: i32) -> bool {
        self.network.is_some_and(|own| i32::from(own) == network)
    }

    /// The acquirer that it is for.
    #[must_use]
    pub fn acquirer(&self) -> Option<&str> {
        self.acquirer.as_deref()
    }

    /// Specifications whose codes it has.
    #[must_use]
    pub fn specs(&self) -> &[String] {
        &self.specs
    }

    /// Whether it judges outcomes that state no network.
    #[must_use]
    pub fn is_home(&self) -> bool {
        self.home
    }

    /// The version of the set that it inherits from.
    #[must_use]
    pub fn inherits(&self) -> Option<&str> {
        self.inherits.as_deref()
    }

    /// Where it is written.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// From when until when it holds, in milliseconds since 1970-01-01 UTC; the second does not belong to it.
    #[must_use]
    pub fn holds(&self) -> (Option<i64>, Option<i64>) {
        bounds(self.force)
    }
}

impl Rules {
    /// Tells every row of a set, those that it inherits included, in the order of codes, conditions and stages.
    pub fn each_rule(&self, set: &RuleSet, mut tell: impl FnMut(Rule<'_>)) {
        for (key, rows) in set.rows() {
            for row in rows {
                let Row { force, place, source, inherited, .. } = row;
                tell(Rule { key: &key, reason: self.reason_at(row.reason), source, place, inherited: *inherited, force: *force });
            }
        }
    }

    /// What a set makes of its reasons by facts, those rows that it inherits included: by reason, in the order in which rows are looked at.
    #[must_use]
    pub fn refinements_of<'a>(&'a self, set: &'a RuleSet) -> Vec<Refinement<'a>> {
        let shown = |(of, refined): (usize, &'a Refined)| {
            let reason = self.reason_at(refined.row.reason);
            Refinement {
                of: self.reason_at(of),
                all_of: refined.all_of,
                none_of: refined.none_of,
                reason,
                confidence: refined.confidence.unwrap_or(reason.confidence),
                source: &refined.row.source,
                place: &refined.row.place,
                inherited: refined.row.inherited,
                force: refined.row.force,
            }
        };
        let mut all: Vec<Refinement<'_>> = set.refinements.iter().map(shown).collect();
        all.sort_by(|one, other| one.of.id.cmp(&other.of.id));
        all
    }

    /// What a set says that keeps failures from happening again, by what merchants are told; each with whether it is inherited.
    pub fn preventions_of<'a>(&'a self, set: &'a RuleSet) -> impl Iterator<Item = (MerchantCause, &'a LocalizedText, bool)> {
        set.preventions.iter().map(|(merchant_cause, prevention)| (*merchant_cause, &prevention.text, prevention.inherited))
    }

    /// What a set says of many failures, those parts that it inherits included, by symptom.
    pub fn attributions_of<'a>(&'a self, set: &'a RuleSet) -> impl Iterator<Item = Attribution<'a>> {
        set.attributions.iter().map(|((symptom, family), whole)| {
            let (reason, faults_per_day) = (self.reason_at(whole.reason), whole.faults_per_day);
            Attribution {
                symptom,
                family: *family,
                reason,
                faults_per_day,
                source: &whole.source,
                place: &whole.place,
                inherited: whole.inherited,
            }
        })
    }

    /// What other rules say differently, set by set.
    #[must_use]
    pub fn differences(&self, other: &Rules) -> Vec<Difference> {
        let (before, after) = (self.said(), other.said());
        let sets: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let nothing = BTreeMap::new();
        let mut differences = Vec::new();
        for set in sets {
            let (one, two) = (before.get(set).unwrap_or(&nothing), after.get(set).unwrap_or(&nothing));
            for what in one.keys().chain(two.keys()).collect::<BTreeSet<_>>() {
                if one.get(what) != two.get(what) {
                    let (_, what_for_people) = what;
                    let (before, after) = (one.get(what).cloned(), two.get(what).cloned());
                    differences.push(Difference { set: set.clone(), what: what_for_people.clone(), before, after });
                }
            }
        }
        differences
    }

    /// By set, what each part of it says; parts are in the order in which they are told.
    fn said(&self) -> BTreeMap<String, BTreeMap<(u8, String), String>> {
        let mut said = BTreeMap::new();
        for set in self.sets() {
            let mut parts = BTreeMap::new();
            let [network, acquirer] = [set.network(), set.acquirer.clone()].map(|name| name.unwrap_or_else(|| "any".into()));
            let head = format!("network {network}, acquirer {acquirer}, home {}, specs {}", set.home, set.specs.join(" "));
            parts.insert((0, "set".into()), format!("{head}{}", until(set.force)));
            for (key, rows) in set.rows() {
                let each = rows.iter().map(|row| {
                    let reason = self.reason_at(row.reason);
                    format!("{}{}", reason.id, until(row.force))
                });
                parts.insert((1, named(&key)), each.collect::<Vec<_>>().join("; "));
            }
            for refinement in self.refinements_of(set) {
                let Refinement { of, all_of, none_of, reason, confidence, force, .. } = refinement;
                let said = format!("{}, {confidence} %{}", reason.id, until(force));
                let what = evidence_named(&of.id, all_of, none_of);
                let said = match parts.remove(&(2, what.clone())) {
                    Some(before) => format!("{before}; {said}"),
                    None => said,
                };
                parts.insert((2, what), said);
            }
            for (merchant_cause, text, _) in self.preventions_of(set) {
                parts.insert((3, format!("prevention of `{}`", merchant_cause.id())), format!("{} {}", text.zh_cn, text.en));
            }
            for Attribution { symptom, family, reason, faults_per_day, .. } in self.attributions_of(set) {
                parts.insert((4, attributed(symptom, family)), format!("{}, {faults_per_day} faults a day", reason.id));
            }
            for reason in self.reasons(set) {
                let cause = short_name(reason.cause.as_str_name(), "CAUSE_");
                let Reason { class, symptom, confidence, retry, .. } = reason;
                let told = reason.merchant_cause.id();
                let texts = [&reason.meaning, &reason.cashier, &reason.service_desk].map(|text| format!("{} {}", text.zh_cn, text.en));
                let [meaning, cashier, service_desk] = texts;
                let prevention = reason.prevention.as_ref().map_or_else(String::new, |text| format!(" | {} {}", text.zh_cn, text.en));
                let said = format!(
                    "{cause} {confidence} %, class {class}, symptom `{symptom}`, told as {told}, retry {retry}: {meaning} | {cashier} | {service_desk}{prevention}"
                );
                parts.insert((5, format!("reason `{}`", reason.id)), said);
            }
            said.insert(format!("{}{}", set.name(), until(set.force)), parts);
        }
        said
    }
}

fn bounds(force: Force) -> (Option<i64>, Option<i64>) {
    ((force.from != i64::MIN).then_some(force.from), (force.until != i64::MAX).then_some(force.until))
}

/// When something holds, in words; nothing where it always does.
fn until(force: Force) -> String {
    let day = |ms: i64| prost_types::Timestamp { seconds: ms.div_euclid(1000), nanos: 0 }.to_string();
    match bounds(force) {
        (None, None) => String::new(),
        (Some(from), None) => format!(" from {}", day(from)),
        (None, Some(until)) => format!(" until {}", day(until)),
        (Some(from), Some(until)) => format!(" from {} until {}", day(from), day(until)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named_by_set_and_row() {
        let built_in = Rules::built_in().unwrap();
        assert_eq!(built_in.differences(&Rules::built_in().unwrap()), []);
        let own = "version = 'unionpay-pos/own'\ninherits = 'unionpay-pos'\n[[response_code]]\ncode = '40'\nreason = 'issuer_refused'\nsource = 'us'\n\
                   [[response_code]]\ncode = 'ZZ'\nreason = 'issuer_down'\nsource = 'us'\neffective_from = 2026-10-01\n";
        let differences = built_in.differences(&Rules::with(&[("own.toml", own)]).unwrap());
        let difference = |what: &str, before: Option<&str>, after: &str| Difference {
            set: "unionpay-pos".into(),
            what: what.into(),
            before: before.map(Into::into),
            after: Some(after.into()),
        };
        assert_eq!(
            differences,
            [
                difference("response code `40`", Some("function_not_enabled"), "issuer_refused"),
                difference("response code `ZZ`", None, "issuer_down from 2026-10-01T00:00:00Z")
            ]
        );
    }

    #[test]
    fn evidence_and_prevention_differ_by_what_they_are_about() {
        let own = "version = 'unionpay-pos/own'\ninherits = 'unionpay-pos'\n\
                   [[evidence]]\nof = ['no_answer']\nall_of = ['weak_signal']\nconfidence = 90\nsource = 'us'\neffective_until = 2026-10-01\n\
                   [[prevention]]\nmerchant_cause = 'network'\nzh_cn = '字'\nen = 'text'\nsource = 'us'\n";
        let built_in = Rules::built_in().unwrap();
        let differences = built_in.differences(&Rules::with(&[("own.toml", own)]).unwrap());
        let said: Vec<(&str, Option<&str>)> =
            differences.iter().map(|difference| (difference.what.as_str(), difference.after.as_deref())).collect();
        assert_eq!(
            said,
            [
                ("evidence of `no_answer` with weak_signal", Some("no_answer, 90 % until 2026-10-01T00:00:00Z; no_answer, 85 %")),
                ("prevention of `network`", Some("字 text"))
            ]
        );
    }

    #[test]
    fn a_set_tells_its_rows_and_its_head() {
        let rules = Rules::built_in().unwrap();
        let set = rules.sets().find(|set| set.name() == "visa").unwrap();
        assert_eq!((set.network().as_deref(), set.acquirer(), set.is_home(), set.holds()), (Some("visa"), None, false, (None, None)));
        assert!(set.inherits().unwrap().starts_with("iso8583/") && set.checksum().len() == 64);
        let mut own = 0;
        rules.each_rule(set, |rule| {
            own += usize::from(!rule.inherited);
            assert_eq!(rule.place.file.ends_with("visa.toml"), !rule.inherited);
        });
        assert_eq!(own, 18);
    }
}
