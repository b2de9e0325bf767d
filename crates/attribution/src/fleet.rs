//! What is known of a fleet: how often each part of it was tried, and every failure that is ambiguous.

use std::hash::Hash;

use faultline_verdict::{Family, Reason, Rules};
use foldhash::{HashMap, HashMapExt};

use crate::fault::Settlement;
use crate::mixture;
use crate::series::Series;

/// Length of the steps of time, in milliseconds: that of the buckets of counts.
pub(crate) const STEP_MS: i64 = 10_000;
/// The last moment that a row can have (ClickHouse, `DateTime64`), in milliseconds since 1970-01-01 UTC.
const LAST_MS: i64 = 10_382_000_000_000;
/// Families, by their place in [`Family::ALL`].
pub(crate) const FAMILIES: usize = Family::ALL.len();
/// Stands for a part that an attempt is in none of.
pub(crate) const NONE: u32 = u32::MAX;
/// What joins the values of a part's name. No identifier of the contract has it.
const JOINT: char = '|';

/// One attempt, as far as it can be compared with others. What is not known is empty, and is in no part of that family.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attempt<'a> {
    /// When it was completed, in milliseconds since 1970-01-01 UTC.
    pub completed_ms: i64,
    /// Its terminal.
    pub terminal: &'a str,
    /// Its spool.
    pub spool: u64,
    /// The sequence of the first attempt at the same sale, in that spool; of the first, its own.
    pub sale: u64,
    /// Its merchant.
    pub merchant: &'a str,
    /// The merchant's shop.
    pub store: &'a str,
    /// The bank that issued the card.
    pub issuer: &'a str,
    /// The card's leading digits.
    pub bin: &'a str,
    /// Key and value of the card's token.
    pub card: Option<(u32, u32)>,
    /// The carrier.
    pub carrier: &'a str,
    /// The region.
    pub region: &'a str,
    /// The terminal's model.
    pub model: &'a str,
    /// The terminal's firmware.
    pub firmware: &'a str,
    /// The payment application and its version.
    pub application: &'a str,
    /// The acquirer.
    pub acquirer: &'a str,
    /// The acquirer's host.
    pub host: &'a str,
    /// The route to it.
    pub route: &'a str,
    /// The response code.
    pub response_code: &'a str,
    /// The version of the rule set of its first verdict.
    pub rule_set: &'a str,
    /// The reason of its first verdict.
    pub reason: &'a str,
    /// How likely that one's cause is, in percent.
    pub confidence: u8,
}

/// A fleet, as far as it was seen.
pub struct Fleet<'r> {
    pub(crate) rules: &'r Rules,
    /// Names of parts, by family.
    names: Vec<Names<String>>,
    /// By family and part, how many attempts there were.
    pub(crate) attempts: Vec<Vec<Series>>,
    /// Numbers of sales: by terminal, spool, and sequence of the first attempt.
    numbers: HashMap<(u32, u64, u64), u32>,
    /// The card of each sale, whichever attempt read it.
    pub(crate) cards: Vec<u32>,
    marks: Names<(String, String)>,
    sets: Names<String>,
    symptoms: Vec<String>,
    pub(crate) failures: Vec<Failure<'r>>,
    /// The first and the last step in which anything was seen.
    pub(crate) span: Option<(u32, u32)>,
    begin_ms: Option<i64>,
}

/// An ambiguous failure.
#[derive(Clone, Debug)]
pub(crate) struct Failure<'r> {
    pub(crate) step: u32,
    pub(crate) symptom: usize,
    pub(crate) mark: u32,
    pub(crate) set: u32,
    pub(crate) sale: u32,
    /// What it is in, by family.
    pub(crate) parts: [u32; FAMILIES],
    /// That of its first verdict.
    pub(crate) reason: &'r Reason,
    /// How likely its cause is not right, by that outcome alone.
    pub(crate) doubt: f64,
}

impl<'r> Fleet<'r> {
    /// A fleet of which nothing is known, and by whose rules its outcomes were judged.
    #[must_use]
    pub fn new(rules: &'r Rules) -> Fleet<'r> {
        let mut symptoms: Vec<String> = rules.attributions().map(|attribution| attribution.symptom.to_owned()).collect();
        symptoms.dedup();
        Fleet {
            rules,
            names: (0..FAMILIES).map(|_| Names::default()).collect(),
            attempts: vec![Vec::new(); FAMILIES],
            numbers: HashMap::new(),
            cards: Vec::new(),
            marks: Names::default(),
            sets: Names::default(),
            symptoms,
            failures: Vec::new(),
            span: None,
            begin_ms: None,
        }
    }

    /// Takes in an attempt of any ending: it counts in all parts that it is in, and where its reason is ambiguous it is one to settle. Returns the number of that
    /// one: they are numbered from 0.
    pub fn observe(&mut self, attempt: &Attempt<'_>) -> Option<usize> {
        let (step, parts) = (self.step(attempt.completed_ms), self.parts(attempt));
        for (family, part) in parts.into_iter().enumerate().filter(|(_, part)| *part != NONE) {
            self.count(family, part, (step, 1));
        }
        let sale = self.sale(attempt, parts);
        self.fail(attempt, (step, sale, parts))
    }

    /// Takes in an attempt that is counted already: only where its reason is ambiguous there is anything to it. Returns its number.
    pub fn failed(&mut self, attempt: &Attempt<'_>) -> Option<usize> {
        let (step, parts) = (self.step(attempt.completed_ms), self.parts(attempt));
        let sale = self.sale(attempt, parts);
        self.fail(attempt, (step, sale, parts))
    }

    /// Counts attempts that a part of the fleet had at a moment, in milliseconds since 1970-01-01 UTC. The part is called by the value of the family, or by two joined by `|`.
    pub fn tried(&mut self, (family, part): (Family, &str), at_ms: i64, attempts: u32) {
        let step = self.step(at_ms);
        if let Some(names) = self.names.get_mut(family as usize) {
            let part = names.of_text(part);
            self.count(family as usize, part, (step, attempts));
        }
    }

    fn fail(&mut self, attempt: &Attempt<'_>, (step, sale, parts): (u32, u32, [u32; FAMILIES])) -> Option<usize> {
        let reason = self.rules.reason(attempt.rule_set, attempt.reason)?;
        let symptom = self.symptoms.iter().position(|known| *known == reason.symptom)?;
        let mark = self.marks.of((attempt.reason.to_owned(), attempt.response_code.to_owned()));
        let doubt = 1.0 - f64::from(attempt.confidence.min(100)) / 100.0;
        let set = self.sets.of(attempt.rule_set.to_owned());
        self.failures.push(Failure { step, symptom, mark, set, sale, parts, reason, doubt });
        Some(self.failures.len() - 1)
    }

    /// Finds the faults, and what each failure belongs to.
    #[must_use]
    pub fn settle(mut self) -> Settlement<'r> {
        for series in self.attempts.iter_mut().flatten() {
            series.sort();
        }
        mixture::settle(&self)
    }

    pub(crate) fn symptoms(&self) -> &[String] {
        &self.symptoms
    }

    pub(crate) fn set_name(&self, set: u32) -> &str {
        self.sets.name(set).map_or("", String::as_str)
    }

    pub(crate) fn part_name(&self, family: usize, part: u32) -> &str {
        self.names.get(family).and_then(|names| names.name(part)).map_or("", String::as_str)
    }

    pub(crate) fn marks(&self) -> usize {
        self.marks.known.len()
    }

    /// The moment at which a step begins, in milliseconds since 1970-01-01 UTC.
    pub(crate) fn moment(&self, step: u32) -> i64 {
        self.begin_ms.unwrap_or_default() + (i64::from(step) - i64::from(u32::MAX / 2)) * STEP_MS
    }

    /// Steps are counted from half of what there is, since what comes first need not be the earliest.
    fn step(&mut self, completed_ms: i64) -> u32 {
        let completed_ms = completed_ms.clamp(0, LAST_MS);
        let begin = *self.begin_ms.get_or_insert(completed_ms - completed_ms.rem_euclid(STEP_MS));
        let steps = (completed_ms - begin).div_euclid(STEP_MS) + i64::from(u32::MAX / 2);
        let step = u32::try_from(steps.clamp(0, i64::from(u32::MAX - 1))).unwrap_or_default();
        let (first, last) = self.span.unwrap_or((step, step));
        self.span = Some((first.min(step), last.max(step)));
        step
    }

    fn count(&mut self, family: usize, part: u32, (step, tried): (u32, u32)) {
        let Some(parts) = self.attempts.get_mut(family) else { return };
        let place = part as usize;
        if parts.len() <= place {
            parts.resize_with(place + 1, Series::default);
        }
        if let Some(series) = parts.get_mut(place) {
            series.add(step, tried);
        }
    }

    /// The number of an attempt's sale.
    fn sale(&mut self, attempt: &Attempt<'_>, parts: [u32; FAMILIES]) -> u32 {
        let next = u32::try_from(self.cards.len()).unwrap_or(NONE);
        let sale = *self.numbers.entry((part(&parts, Family::Terminal), attempt.spool, attempt.sale)).or_insert(next);
        if sale == next {
            self.cards.push(NONE);
        }
        if let Some(card) = self.cards.get_mut(sale as usize)
            && *card == NONE
        {
            *card = part(&parts, Family::Card);
        }
        sale
    }

    /// The parts that an attempt is in, by family.
    fn parts(&mut self, of: &Attempt<'_>) -> [u32; FAMILIES] {
        let mut parts = [NONE; FAMILIES];
        let mut text = String::new();
        for ((family, part), names) in Family::ALL.into_iter().zip(&mut parts).zip(&mut self.names) {
            text.clear();
            let joined = |text: &mut String, first: &str, second: &str| {
                text.push_str(first);
                text.push(JOINT);
                text.push_str(second);
            };
            match family {
                Family::Sale => continue,
                Family::Fleet => {
                    *part = names.of_text("fleet");
                    continue;
                }
                Family::Acquirer => text.push_str(of.acquirer),
                Family::Host if !of.host.is_empty() => joined(&mut text, of.acquirer, of.host),
                Family::Route if !of.route.is_empty() => joined(&mut text, of.acquirer, of.route),
                Family::Issuer => text.push_str(of.issuer),
                Family::Bin => text.push_str(of.bin),
                Family::Carrier => text.push_str(of.carrier),
                Family::Region => text.push_str(of.region),
                Family::CarrierRegion if !of.carrier.is_empty() && !of.region.is_empty() => joined(&mut text, of.carrier, of.region),
                Family::ModelFirmware if !of.firmware.is_empty() => joined(&mut text, of.model, of.firmware),
                Family::Application => text.push_str(of.application),
                Family::Shop if !of.store.is_empty() => joined(&mut text, of.merchant, of.store),
                Family::Shop => text.push_str(of.merchant),
                Family::Terminal => text.push_str(of.terminal),
                Family::Card => {
                    if let Some((key, token)) = of.card {
                        joined(&mut text, &key.to_string(), &token.to_string());
                    }
                }
                _ => {}
            }
            if !text.is_empty() {
                *part = names.of_text(&text);
            }
        }
        parts
    }
}

/// The part of a family.
pub(crate) fn part(parts: &[u32; FAMILIES], family: Family) -> u32 {
    parts.get(family as usize).copied().unwrap_or(NONE)
}

/// Numbers for names, from 0.
#[derive(Clone, Debug)]
struct Names<T> {
    known: HashMap<T, u32>,
    names: Vec<T>,
}

impl<T> Default for Names<T> {
    fn default() -> Names<T> {
        Names { known: HashMap::new(), names: Vec::new() }
    }
}

impl<T: Clone + Eq + Hash> Names<T> {
    fn of(&mut self, name: T) -> u32 {
        if let Some(known) = self.known.get(&name) {
            return *known;
        }
        let next = u32::try_from(self.names.len()).unwrap_or(NONE);
        self.names.push(name.clone());
        self.known.insert(name, next);
        next
    }

    fn name(&self, number: u32) -> Option<&T> {
        self.names.get(number as usize)
    }
}

impl Names<String> {
    /// As [`Names::of`], where a name that is known needs no copy.
    fn of_text(&mut self, name: &str) -> u32 {
        self.known.get(name).copied().unwrap_or_else(|| self.of(name.to_owned()))
    }
}
