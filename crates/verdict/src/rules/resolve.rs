//! From files to sets that have all that they inherit.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::format::{File, FileRow, Force, Key};
use super::{Named, Prevention, Refinements, Row, RuleSet, RulesError, Whole};
use crate::{MerchantCause, Place, Reason};

/// Digits of the checksum that a version has.
const CHECKSUM_DIGITS: usize = 12;

/// Everything that was read: reasons of all sets, and the sets, which name them by place.
#[derive(Default)]
pub(super) struct Resolved {
    pub(super) reasons: Vec<Reason>,
    pub(super) sets: Vec<RuleSet>,
    /// The reasons of each set, by identifier.
    by_id: Vec<HashMap<String, usize>>,
}

/// Resolves files, each after the one that it inherits from. Those for which `judges` is false are only inherited from.
pub(super) fn resolve(files: Vec<(File, bool)>) -> Result<Resolved, RulesError> {
    let mut resolved = Resolved::default();
    let mut waiting = files;
    while !waiting.is_empty() {
        let mut later = Vec::new();
        let before = waiting.len();
        let ids: Vec<(String, bool)> = waiting.iter().map(|(file, judges)| (file.id().to_owned(), *judges)).collect();
        for (file, judges) in waiting {
            match resolved.base(&file, &ids)? {
                Base::Waits => later.push((file, judges)),
                Base::None => resolved.add(file, judges, None)?,
                Base::Set(base) => resolved.add(file, judges, Some(base))?,
            }
        }
        if later.len() == before {
            let names: Vec<&str> = later.iter().map(|(file, _)| file.id()).collect();
            let reason = format!("sets inherit from each other in a circle: {}", names.join(", "));
            return Err(RulesError { place: later.first().map(|(file, _)| file.place.clone()).unwrap_or_default(), reason });
        }
        waiting = later;
    }
    Ok(resolved)
}

enum Base {
    None,
    Set(usize),
    /// It is not resolved yet.
    Waits,
}

impl Resolved {
    /// The set that a file inherits from. A set of the same name as one that came with the program stands for it, and may inherit from it.
    fn base(&self, file: &File, waiting: &[(String, bool)]) -> Result<Base, RulesError> {
        let Some((name, place)) = &file.inherits else { return Ok(Base::None) };
        let replaces = name == file.id();
        let found: Vec<usize> =
            (0..).zip(&self.sets).filter(|(_, set)| set.name() == name && set.judges != replaces).map(|(at, _)| at).collect();
        match found.as_slice() {
            [] if waiting.iter().any(|(id, judges)| id == name && *judges != replaces) => Ok(Base::Waits),
            [] => Err(RulesError { place: place.clone(), reason: format!("inherits `{name}`, which there is not") }),
            [one] => Ok(Base::Set(*one)),
            // Of several in force one after the other, the last.
            several => {
                Ok(several.iter().copied().max_by_key(|at| self.sets.get(*at).map(|set| set.force.from)).map_or(Base::None, Base::Set))
            }
        }
    }

    fn add(&mut self, file: File, judges: bool, base: Option<usize>) -> Result<(), RulesError> {
        let wrong = |place: &Place, reason: String| Err(RulesError { place: place.clone(), reason });
        let mut by_id = base.and_then(|base| self.by_id.get(base)).cloned().unwrap_or_default();
        let base = base.and_then(|base| self.sets.get(base));
        let mut own = HashSet::new();
        let own_reasons: Vec<usize> = (self.reasons.len()..).take(file.reasons.len()).collect();
        for (at, reason) in own_reasons.iter().zip(&file.reasons) {
            if !own.insert(reason.id.as_str()) {
                return wrong(&reason.place, format!("reason `{}` is there twice", reason.id));
            }
            by_id.insert(reason.id.clone(), *at);
        }
        let place_of = |what: &str, place: &Place, id: &str| {
            by_id
                .get(id)
                .copied()
                .ok_or_else(|| RulesError { place: place.clone(), reason: format!("{what} names reason `{id}`, which there is not") })
        };
        let mut attributions = BTreeMap::new();
        for row in &file.attributions {
            let what = super::attributed(&row.symptom, row.family);
            let reason = place_of(&what, &row.place, &row.reason)?;
            let whole = Whole {
                reason,
                faults_per_day: row.faults_per_day,
                place: row.place.clone(),
                source: Arc::clone(&row.source),
                inherited: false,
            };
            if attributions.insert((row.symptom.clone(), row.family), whole).is_some() {
                return wrong(&row.place, format!("{what} is there twice"));
            }
        }
        let mut refinements = Refinements::default();
        for row in &file.evidence {
            refinements.add(row, |what, id| place_of(what, &row.place, id))?;
        }
        let mut preventions = own_preventions(&file)?;
        let mut tables = Tables::default();
        for row in &file.rows {
            let reason = place_of(&super::named(&row.key), &row.place, &row.reason)?;
            if tables.has(row) {
                return wrong(&row.place, format!("{} is there twice for the same time", super::named(&row.key)));
            }
            tables.push(
                &row.key,
                Row { reason, force: row.force, place: row.place.clone(), source: Arc::clone(&row.source), inherited: false },
            );
        }
        if let Some(base) = base {
            // What the base's rows name is this set's reason of that name.
            let own_reason = |place: usize| {
                let id = self.reasons.get(place).map(|reason| reason.id.as_str());
                id.and_then(|id| by_id.get(id)).copied().unwrap_or(place)
            };
            let renewed = |row: &Row| Row { reason: own_reason(row.reason), inherited: true, ..row.clone() };
            inherit(&mut tables.codes, &base.codes, renewed);
            inherit(&mut tables.conditions, &base.conditions, renewed);
            inherit(&mut tables.stages, &base.stages, renewed);
            refinements.inherit(&base.refinements, own_reason);
            for (merchant_cause, prevention) in &base.preventions {
                preventions.entry(*merchant_cause).or_insert_with(|| Prevention { inherited: true, ..prevention.clone() });
            }
            for (key, whole) in &base.attributions {
                let inherited = || Whole { reason: own_reason(whole.reason), inherited: true, ..whole.clone() };
                attributions.entry(key.clone()).or_insert_with(inherited);
            }
        }
        let always = |id: &str| {
            let missing =
                || RulesError { place: file.place.clone(), reason: format!("has no reason `{id}`, which the order of evidence gives") };
            by_id.get(id).copied().ok_or_else(missing)
        };
        let named = Named {
            unknown_code: always("unknown_code")?,
            unknown_approved: always("unknown_approved")?,
            approved_not_completed: always("approved_not_completed")?,
            cancelled: always("cancelled")?,
            declined_by_terminal: always("declined_by_terminal")?,
            no_evidence: always("no_evidence")?,
        };
        let inherited_home = file.network.is_none() && base.is_some_and(|base| base.home);
        let mut inherited_specs = base.map_or_else(Vec::new, |base| [base.specs.clone(), base.inherited_specs.clone()].concat());
        let specs = file.specs.clone().or_else(|| base.map(|base| base.specs.clone())).unwrap_or_default();
        inherited_specs.retain(|spec| !specs.contains(spec));
        let mut reasons: Vec<usize> = by_id.values().copied().collect();
        reasons.sort_unstable();
        let mut set = RuleSet {
            version: file.version,
            checksum: String::new(),
            place: file.place,
            inherits: base.map(|base| base.version.clone()),
            network: file.network.or_else(|| base.and_then(|base| base.network)),
            acquirer: file.acquirer.or_else(|| base.and_then(|base| base.acquirer.clone())),
            home: file.home.unwrap_or(inherited_home),
            force: file.force,
            specs,
            inherited_specs,
            judges,
            reasons,
            codes: tables.codes,
            conditions: tables.conditions,
            stages: tables.stages,
            refinements,
            preventions,
            attributions,
            named,
        };
        self.reasons.extend(file.reasons);
        set.refinements.check(&self.reasons)?;
        set.checksum = checksum(&set, &self.reasons);
        let digits = set.checksum.get(..CHECKSUM_DIGITS).unwrap_or_default();
        set.version = format!("{}+{digits}", set.version);
        self.sets.push(set);
        self.by_id.push(by_id);
        Ok(())
    }
}

fn own_preventions(file: &File) -> Result<BTreeMap<MerchantCause, Prevention>, RulesError> {
    let mut preventions = BTreeMap::new();
    for row in &file.prevention {
        let prevention = Prevention { text: row.text.clone(), place: row.place.clone(), source: Arc::clone(&row.source), inherited: false };
        if preventions.insert(row.merchant_cause, prevention).is_some() {
            let reason = format!("prevention of `{}` is there twice", row.merchant_cause.id());
            return Err(RulesError { place: row.place.clone(), reason });
        }
    }
    Ok(preventions)
}

#[derive(Default)]
struct Tables {
    codes: HashMap<String, Vec<Row>>,
    conditions: HashMap<i32, Vec<Row>>,
    stages: HashMap<i32, Vec<Row>>,
}

impl Tables {
    fn of(&self, key: &Key) -> Option<&Vec<Row>> {
        match key {
            Key::Code(code) => self.codes.get(code),
            Key::Condition(number) => self.conditions.get(number),
            Key::Stage(number) => self.stages.get(number),
        }
    }

    fn has(&self, row: &FileRow) -> bool {
        // A row for a time of its own stands before one that always holds.
        let same = |other: &Row| other.force.overlaps(row.force) && (other.force == Force::ALWAYS) == (row.force == Force::ALWAYS);
        self.of(&row.key).is_some_and(|rows| rows.iter().any(same))
    }

    fn push(&mut self, key: &Key, row: Row) {
        let rows = match key {
            Key::Code(code) => self.codes.entry(code.clone()).or_default(),
            Key::Condition(number) => self.conditions.entry(*number).or_default(),
            Key::Stage(number) => self.stages.entry(*number).or_default(),
        };
        rows.push(row);
        rows.sort_by_key(|row| row.force == Force::ALWAYS);
    }
}

/// Adds what a base has after what there is already; behind a row that always holds, nothing is reached.
fn inherit<K: Clone + Eq + Hash>(own: &mut HashMap<K, Vec<Row>>, base: &HashMap<K, Vec<Row>>, renewed: impl Fn(&Row) -> Row) {
    for (key, rows) in base {
        let own = own.entry(key.clone()).or_default();
        if own.iter().all(|row| row.force != Force::ALWAYS) {
            own.extend(rows.iter().map(&renewed));
        }
    }
}

/// What each row of evidence is about and says, by reason, in the order in which they are looked at.
fn evidence(set: &RuleSet, reasons: &[Reason]) -> Vec<(String, String)> {
    let id_of = |place: usize| reasons.get(place).map_or("", |reason| reason.id.as_str());
    let mut said: Vec<(&str, String, String)> = Vec::new();
    for (of, refined) in set.refinements.iter() {
        let what = super::evidence_named(id_of(of), refined.all_of, refined.none_of);
        said.push((id_of(of), what, format!("{:?} {:?} {}", refined.row.force, refined.confidence, id_of(refined.row.reason))));
    }
    // Places differ with what else was read; names do not.
    said.sort_by_key(|(of, _, _)| *of);
    said.into_iter().map(|(_, what, said)| (what, said)).collect()
}

/// SHA-256, in hexadecimal digits, of everything that the set decides and says. Sources, and which file a row is from, are not in it.
fn checksum(set: &RuleSet, reasons: &[Reason]) -> String {
    let mut sum = Sha256::new();
    // Each text with its length, so that no two contents are one text.
    let mut add = |text: &str| {
        sum.update(text.len().to_le_bytes());
        sum.update(text);
    };
    add(&format!("{:?} {:?} {} {:?} {:?} {:?}", set.network, set.acquirer, set.home, set.force, set.specs, set.inherited_specs));
    let mut said: Vec<&Reason> = set.reasons.iter().filter_map(|place| reasons.get(*place)).collect();
    said.sort_by(|one, other| one.id.cmp(&other.id));
    for reason in said {
        add(&reason.id);
        add(&format!("{:?} {:?} {} {:?}", reason.cause, reason.merchant_cause, reason.confidence, reason.retry));
        for text in [&reason.meaning, &reason.cashier, &reason.service_desk].into_iter().chain(&reason.prevention) {
            add(&text.zh_cn);
            add(&text.en);
        }
        add(&reason.class);
        add(&reason.symptom);
    }
    for (key, rows) in set.rows() {
        add(&format!("{key:?}"));
        for row in rows {
            add(&format!("{:?} {}", row.force, reasons.get(row.reason).map_or("", |reason| reason.id.as_str())));
        }
        add("");
    }
    for (what, said) in evidence(set, reasons) {
        add(&what);
        add(&said);
    }
    for (merchant_cause, prevention) in &set.preventions {
        add(merchant_cause.id());
        add(&prevention.text.zh_cn);
        add(&prevention.text.en);
    }
    for ((symptom, family), whole) in &set.attributions {
        add(symptom);
        let reason = reasons.get(whole.reason).map_or("", |reason| reason.id.as_str());
        add(&format!("{} {} {reason}", family.name(), whole.faults_per_day));
    }
    sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
