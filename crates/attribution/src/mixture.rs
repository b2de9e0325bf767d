//! Which faults there were, and what belongs to which.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use faultline_verdict::{Family, Reason};
use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};

use crate::fault::{Fault, Settled, Settlement};
use crate::fleet::{FAMILIES, Failure, Fleet, NONE, STEP_MS, part};
use crate::scan::{Counts, Usual, evidence, scan};
use crate::series::Series;

/// Rounds of expectation maximisation that rates and marks are fitted in.
const FITTING_ROUNDS: usize = 6;
/// Rounds of looking for faults, dropping those that others explain, and looking again.
const SEARCHES: usize = 3;
/// How many failures marks are known from before any is seen.
const MARKS_KNOWN: f64 = 2.0;
/// How alike parts of the fleet are without a fault: the shape of the gamma distribution of their rates. One in seven has twice the usual one.
const ALIKE: f64 = 2.0;
/// How much of a verdict's doubt is left once no part of the fleet is found that its failure belongs to: most of it is about such parts.
const DOUBT_LEFT: f64 = 0.12;
/// What has less than these odds, as a logarithm, is not even considered.
const LEAST_SCORE: f64 = -3.0;
/// Probability of a fault in a part that failed with another symptom at some time.
const FAILED_OTHERWISE: f64 = 0.2;
/// A cause that is as likely as this cannot be told from one that is certain.
const MOST_CONFIDENCE: f64 = 0.995;

/// Settles a fleet's failures.
pub(crate) fn settle<'r>(fleet: &Fleet<'r>) -> Settlement<'r> {
    let mut problems: Vec<Problem<'_, 'r>> = (0..fleet.symptoms().len()).map(|symptom| Problem::new(fleet, symptom)).collect();
    for problem in &mut problems {
        problem.search(&HashSet::new());
    }
    let failed: Vec<HashSet<(usize, u32)>> =
        problems.iter().map(|problem| problem.faults.iter().map(|fault| (fault.family, fault.part)).collect()).collect();
    let mut settlement = Settlement::default();
    let mut settled: Vec<Option<Settled<'r>>> = vec![None; fleet.failures.len()];
    for (place, mut problem) in problems.into_iter().enumerate() {
        let others = failed.iter().enumerate().filter(|(other, _)| *other != place).flat_map(|(_, failed)| failed);
        let otherwise: HashSet<(usize, u32)> = others.copied().collect();
        if !otherwise.is_empty() {
            problem.search(&otherwise);
        }
        problem.tell(&mut settlement.faults, &mut settled);
    }
    settlement.failures = settled.into_iter().flatten().collect();
    settlement
}

/// The failures of one symptom.
struct Problem<'a, 'r> {
    fleet: &'a Fleet<'r>,
    symptom: usize,
    /// Families by their places, with the logarithm of the odds of a fault.
    families: Vec<(usize, f64)>,
    failures: Vec<Witness<'a, 'r>>,
    /// The failures of each part, in order of time.
    parts: HashMap<(usize, u32), Vec<u32>>,
    /// What of each failure no fault explains.
    unexplained: Vec<f64>,
    /// The faults that each failure lies in.
    lies_in: Vec<Vec<u32>>,
    usual_rate: f64,
    usual_marks: Vec<f64>,
    faults: Vec<Hypothesis>,
}

struct Witness<'a, 'r> {
    place: usize,
    failure: &'a Failure<'r>,
    /// The families, by place, in which it is the first of its kind.
    first_in: u16,
}

impl Witness<'_, '_> {
    fn weight(&self, family: usize) -> f64 {
        f64::from(u8::from(self.first_in & 1 << family != 0))
    }
}

/// A fault that there may have been.
#[derive(Clone, Debug)]
struct Hypothesis {
    family: usize,
    part: u32,
    interval: (u32, u32),
    ln_odds: f64,
    score: f64,
    tried: f64,
    failed: f64,
    rate: f64,
    marks: Vec<f64>,
    failures: Vec<u32>,
}

/// A part to be looked at, the most promising first.
struct Candidate {
    score: f64,
    key: (usize, u32),
}

impl Ord for Candidate {
    fn cmp(&self, other: &Candidate) -> Ordering {
        // Of two that say the same, the larger part.
        self.score.total_cmp(&other.score).then_with(|| other.key.cmp(&self.key))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Candidate) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Candidate) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}

impl<'a, 'r> Problem<'a, 'r> {
    fn new(fleet: &'a Fleet<'r>, symptom: usize) -> Problem<'a, 'r> {
        let name = fleet.symptoms().get(symptom).map_or("", String::as_str);
        let (first, last) = fleet.span.unwrap_or_default();
        let days = f64::from(last - first + 1) * STEP_MS as f64 / 86_400_000.0;
        let of_symptom = fleet.rules.attributions().filter(|attribution| attribution.symptom == name);
        let of_parts = of_symptom.filter(|attribution| attribution.family != Family::Sale);
        let families = of_parts.map(|attribution| {
            // What lasts for days was there when the time began.
            let probability = (attribution.faults_per_day * (1.0 + days)).min(0.5);
            (attribution.family as usize, ln_odds(probability))
        });
        let families: Vec<(usize, f64)> = families.collect();
        let failures = witnesses(fleet, symptom);
        let mut parts: HashMap<(usize, u32), Vec<u32>> = HashMap::new();
        for (number, witness) in (0..).zip(&failures) {
            for (family, _) in &families {
                match witness.failure.parts.get(*family) {
                    Some(part) if *part != NONE => parts.entry((*family, *part)).or_default().push(number),
                    _ => {}
                }
            }
        }
        let (unexplained, lies_in) = (vec![1.0; failures.len()], vec![Vec::new(); failures.len()]);
        let mut problem = Problem {
            fleet,
            symptom,
            families,
            failures,
            parts,
            unexplained,
            lies_in,
            usual_rate: 0.0,
            usual_marks: vec![0.0; fleet.marks()],
            faults: Vec::new(),
        };
        problem.fit_usual();
        problem
    }

    /// Finds the faults; parts in `otherwise` failed with other symptoms too.
    fn search(&mut self, otherwise: &HashSet<(usize, u32)>) {
        for _ in 0..SEARCHES {
            let found = self.look(otherwise);
            let dropped = self.settle_faults();
            if !found && !dropped {
                break;
            }
        }
    }

    /// Adds faults, one after the other. Whether there was one.
    fn look(&mut self, otherwise: &HashSet<(usize, u32)>) -> bool {
        let odds: HashMap<usize, f64> = self.families.iter().copied().collect();
        let ln_odds_of = |key: &(usize, u32)| {
            let usual = odds.get(&key.0).copied().unwrap_or(f64::NEG_INFINITY);
            if otherwise.contains(key) { usual.max(ln_odds(FAILED_OTHERWISE)) } else { usual }
        };
        let keys = self.parts.keys().filter_map(|key| {
            let score = self.score(*key, ln_odds_of(key), &self.unexplained)?.score;
            (score > 0.0).then_some(Candidate { score, key: *key })
        });
        let mut candidates: BinaryHeap<Candidate> = keys.collect();
        let mut any = false;
        while let Some(Candidate { score, key }) = candidates.pop() {
            let ln_odds = ln_odds_of(&key);
            let Some(found) = self.score(key, ln_odds, &self.unexplained).filter(|found| found.score > 0.0) else { continue };
            // What others explain meanwhile makes it less; then it is another's turn.
            if found.score < score && candidates.peek().is_some_and(|next| next.score > found.score) {
                candidates.push(Candidate { score: found.score, key });
                continue;
            }
            if self.faults.iter().any(|fault| (fault.family, fault.part) == key && overlap(fault.interval, found.interval)) {
                continue;
            }
            any = true;
            let place = self.faults.len();
            self.add(key, ln_odds, (found.interval, found.score));
            for _ in 0..FITTING_ROUNDS {
                self.fit(place);
            }
            // The part may have had another at another time.
            candidates.push(Candidate { score: found.score, key });
        }
        any
    }

    /// What speaks for a fault of a part, where failures have these weights.
    fn score(&self, key: (usize, u32), ln_odds: f64, weights: &[f64]) -> Option<crate::scan::Found> {
        let members = self.parts.get(&key)?;
        let weighed = members.iter().filter_map(|number| {
            let witness = self.failures.get(*number as usize)?;
            let weight = witness.weight(key.0) * weights.get(*number as usize)?;
            (weight > 0.0).then_some((witness.failure.step, weight))
        });
        let failed: Vec<(u32, f64)> = weighed.collect();
        // One alone is never more than usual; and a few may be too few, were there nothing but them.
        let all: f64 = failed.iter().map(|(_, weight)| weight).sum();
        let most = evidence(Counts { failed: all, tried: all }, Counts::default(), self.usual()) + ln_odds;
        if failed.len() < 2 || all < 1.5 || most < LEAST_SCORE {
            return None;
        }
        // Of a part that nobody counted attempts of, it is not known how much is much.
        let tried = self.tried(key).map(Series::steps).filter(|tried| !tried.is_empty())?;
        scan(tried, &failed, (self.usual(), ln_odds))
    }

    fn tried(&self, (family, part): (usize, u32)) -> Option<&'a Series> {
        self.fleet.attempts.get(family)?.get(part as usize)
    }

    fn usual(&self) -> Usual {
        Usual { rate: self.usual_rate, shape: ALIKE }
    }

    fn add(&mut self, (family, part): (usize, u32), ln_odds: f64, (interval, score): ((u32, u32), f64)) {
        let failures = self.within((family, part), interval);
        let place = u32::try_from(self.faults.len()).unwrap_or(NONE);
        let mut failed = 0.0;
        for number in &failures {
            let (Some(faults), Some(weight)) = (self.lies_in.get_mut(*number as usize), self.unexplained.get(*number as usize)) else {
                continue;
            };
            faults.push(place);
            failed += weight * self.failures.get(*number as usize).map_or(0.0, |witness| witness.weight(family));
        }
        let tried = self.tried((family, part)).map_or(0.0, |tried| tried.within(interval)).max(failed).max(1.0);
        let rate = (failed / tried - self.usual_rate).max(self.usual_rate);
        let marks = self.usual_marks.clone();
        self.faults.push(Hypothesis { family, part, interval, ln_odds, score, tried, failed, rate, marks, failures });
    }

    /// A part's failures of a time.
    fn within(&self, key: (usize, u32), (first, last): (u32, u32)) -> Vec<u32> {
        let step = |number: &u32| self.failures.get(*number as usize).map_or(0, |witness| witness.failure.step);
        let members = self.parts.get(&key).map_or(&[][..], Vec::as_slice);
        let begin = members.partition_point(|number| step(number) < first);
        let end = members.partition_point(|number| step(number) <= last);
        members.get(begin..end).unwrap_or_default().to_vec()
    }

    /// How likely a failure belongs to each of the faults that it lies in, without one of them; last, to none.
    fn shares(&self, number: u32, without: Option<u32>, mut take: impl FnMut(u32, f64)) -> f64 {
        let Some(witness) = self.failures.get(number as usize) else { return 1.0 };
        let mark = witness.failure.mark as usize;
        let usual = self.usual_rate * self.usual_marks.get(mark).copied().unwrap_or_default();
        let of_fault = |place: u32| {
            let fault = self.faults.get(place as usize)?;
            Some(fault.rate * fault.marks.get(mark)?)
        };
        let faults = || self.lies_in.get(number as usize).into_iter().flatten().copied().filter(|place| Some(*place) != without);
        let all = usual + faults().filter_map(of_fault).sum::<f64>();
        if all <= 0.0 {
            return 1.0;
        }
        for place in faults() {
            take(place, of_fault(place).unwrap_or_default() / all);
        }
        usual / all
    }

    /// Fits one fault to its failures, as the others are, and what it leaves unexplained of them.
    fn fit(&mut self, place: usize) {
        let Some(fault) = self.faults.get(place) else { return };
        let own = u32::try_from(place).unwrap_or(NONE);
        let (family, tried) = (fault.family, fault.tried);
        let mut marks: Vec<f64> = self.usual_marks.iter().map(|usual| usual * MARKS_KNOWN).collect();
        let mut failed = 0.0;
        let mut unexplained = Vec::with_capacity(fault.failures.len());
        for number in &fault.failures {
            let mut share = 0.0;
            let left = self.shares(*number, None, |fault, of_fault| {
                if fault == own {
                    share = of_fault;
                }
            });
            unexplained.push((*number, left));
            let Some(witness) = self.failures.get(*number as usize) else { continue };
            let weight = share * witness.weight(family);
            failed += weight;
            if let Some(mark) = marks.get_mut(witness.failure.mark as usize) {
                *mark += weight;
            }
        }
        let all: f64 = marks.iter().sum();
        marks.iter_mut().for_each(|mark| *mark /= all.max(f64::MIN_POSITIVE));
        if let Some(fault) = self.faults.get_mut(place) {
            (fault.failed, fault.marks) = (failed, marks);
            fault.rate = (failed / tried).max(1e-9);
        }
        for (number, left) in unexplained {
            if let Some(unexplained) = self.unexplained.get_mut(number as usize) {
                *unexplained = left;
            }
        }
    }

    /// What is usual, of what is not explained.
    fn fit_usual(&mut self) {
        let fleet = Family::Fleet as usize;
        let mut marks = vec![0.5; self.usual_marks.len()];
        let mut failed = 0.5;
        for (witness, unexplained) in self.failures.iter().zip(&self.unexplained) {
            let weight = witness.weight(fleet) * unexplained;
            failed += weight;
            if let Some(mark) = marks.get_mut(witness.failure.mark as usize) {
                *mark += weight;
            }
        }
        let all: f64 = marks.iter().sum();
        marks.iter_mut().for_each(|mark| *mark /= all);
        self.usual_marks = marks;
        let tried = self.tried((fleet, 0)).map_or(0.0, |tried| tried.within((0, u32::MAX)));
        self.usual_rate = (failed / (tried + 1.0)).min(0.5);
    }

    /// Fits everything, finds when each fault was now that the others are known, and drops those that the others explain. Whether one was.
    fn settle_faults(&mut self) -> bool {
        let mut dropped = false;
        for _ in 0..FITTING_ROUNDS {
            for place in 0..self.faults.len() {
                self.fit(place);
            }
            self.fit_usual();
        }
        let mut place = 0;
        while let Some(fault) = self.faults.get(place) {
            let (key, ln_odds, interval) = ((fault.family, fault.part), fault.ln_odds, fault.interval);
            match self.without(place) {
                Some(found) if found.score > 0.0 => {
                    if found.interval != interval && !self.is_taken(place, found.interval) {
                        self.remove(place);
                        self.add(key, ln_odds, (found.interval, found.score));
                        let last = self.faults.len() - 1;
                        self.faults.swap(place, last);
                        self.renumber();
                        for _ in 0..FITTING_ROUNDS {
                            self.fit(place);
                        }
                    } else if let Some(fault) = self.faults.get_mut(place) {
                        fault.score = found.score;
                    }
                    place += 1;
                }
                _ => {
                    self.remove(place);
                    dropped = true;
                }
            }
        }
        for place in 0..self.faults.len() {
            self.fit(place);
        }
        self.fit_usual();
        dropped
    }

    /// What would speak for a fault if it were not one of those that are known.
    fn without(&self, place: usize) -> Option<crate::scan::Found> {
        let fault = self.faults.get(place)?;
        let own = u32::try_from(place).unwrap_or(NONE);
        let key = (fault.family, fault.part);
        let members = self.parts.get(&key)?;
        let weighed = members.iter().filter_map(|number| {
            let witness = self.failures.get(*number as usize)?;
            let left = self.shares(*number, Some(own), |_, _| {});
            let weight = witness.weight(fault.family) * left;
            (weight > 0.0).then_some((witness.failure.step, weight))
        });
        let failed: Vec<(u32, f64)> = weighed.collect();
        let found = scan(self.tried(key).map_or(&[], Series::steps), &failed, (self.usual(), fault.ln_odds))?;
        if overlap(found.interval, fault.interval) {
            return Some(found);
        }
        // Most speaks for another time: it is judged by its own.
        let counts_within = |within: bool| {
            let is_within = |step: u32| (fault.interval.0..=fault.interval.1).contains(&step) == within;
            failed.iter().filter(|(step, _)| is_within(*step)).map(|(_, weight)| weight).sum::<f64>()
        };
        let all = self.tried(key).map_or(0.0, |tried| tried.within((0, u32::MAX)));
        let counts = Counts { failed: counts_within(true), tried: fault.tried };
        let rest = Counts { failed: counts_within(false), tried: (all - fault.tried).max(0.0) };
        let score = evidence(counts, rest, self.usual()) + fault.ln_odds;
        Some(crate::scan::Found { interval: fault.interval, counts, score })
    }

    /// Whether another fault of the same part has some of this time.
    fn is_taken(&self, place: usize, interval: (u32, u32)) -> bool {
        let Some(own) = self.faults.get(place) else { return false };
        let others = self.faults.iter().enumerate().filter(|(other, _)| *other != place).map(|(_, fault)| fault);
        others.filter(|fault| (fault.family, fault.part) == (own.family, own.part)).any(|fault| overlap(fault.interval, interval))
    }

    fn remove(&mut self, place: usize) {
        let gone = self.faults.remove(place);
        self.renumber();
        for number in gone.failures {
            let left = self.shares(number, None, |_, _| {});
            if let Some(unexplained) = self.unexplained.get_mut(number as usize) {
                *unexplained = left;
            }
        }
    }

    fn renumber(&mut self) {
        self.lies_in.iter_mut().for_each(Vec::clear);
        for (place, fault) in (0..).zip(&self.faults) {
            for number in &fault.failures {
                if let Some(faults) = self.lies_in.get_mut(*number as usize) {
                    faults.push(place);
                }
            }
        }
    }

    /// Tells the faults, and what each failure is settled as.
    fn tell(mut self, faults: &mut Vec<Fault>, settled: &mut [Option<Settled<'r>>]) {
        let known = self.faults.len();
        self.add_doubtful();
        let begin = faults.len();
        for (number, witness) in (0..).zip(&self.failures) {
            let of_failure = self.settled(number, witness, (begin, known));
            if let (Some(of_failure), Some(place)) = (of_failure, settled.get_mut(witness.place)) {
                *place = Some(of_failure);
            }
        }
        let symptom = self.fleet.symptoms().get(self.symptom).cloned().unwrap_or_default();
        faults.extend(self.faults.iter().take(known).filter_map(|fault| {
            Some(Fault {
                symptom: symptom.clone(),
                family: *Family::ALL.get(fault.family)?,
                part: self.fleet.part_name(fault.family, fault.part).to_owned(),
                from_ms: self.fleet.moment(fault.interval.0),
                until_ms: self.fleet.moment(fault.interval.1 + 1),
                failed: fault.failed,
                tried: fault.tried,
                usual: self.usual_rate,
                probability: probability(fault.score),
            })
        }));
    }

    /// Adds what may be a fault, for the doubt that it leaves.
    fn add_doubtful(&mut self) {
        let odds: HashMap<usize, f64> = self.families.iter().copied().collect();
        let keys: Vec<(usize, u32)> = self.parts.keys().copied().collect();
        let mut doubtful = Vec::new();
        for key in keys {
            let ln_odds = odds.get(&key.0).copied().unwrap_or(f64::NEG_INFINITY);
            if let Some(found) = self.score(key, ln_odds, &self.unexplained).filter(|found| found.score > LEAST_SCORE) {
                doubtful.push((key, ln_odds, (found.interval, found.score.min(0.0))));
            }
        }
        doubtful.sort_by_key(|(key, ..)| *key);
        for (key, ln_odds, found) in doubtful {
            self.add(key, ln_odds, found);
        }
    }

    fn settled(&self, number: u32, witness: &Witness<'_, 'r>, (begin, known): (usize, usize)) -> Option<Settled<'r>> {
        let rules = self.fleet.rules;
        let failure = witness.failure;
        let (set, symptom) = (self.fleet.set_name(failure.set), self.fleet.symptoms().get(self.symptom)?);
        let mut causes: Vec<Likely<'r>> = Vec::new();
        let mut say = |reason: &'r Reason, share: f64, fault: Option<usize>| {
            let own = Likely { share, most: share, reason, fault };
            match causes.iter_mut().find(|likely| likely.reason.cause == reason.cause) {
                Some(likely) if share > likely.most => *likely = Likely { share: likely.share + share, ..own },
                Some(likely) => likely.share += share,
                None => causes.push(own),
            }
        };
        let mut unnamed = 0.0;
        let usual = self.shares(number, None, |place, share| {
            let Some(of) = self.faults.get(place as usize) else { return };
            let reason = Family::ALL.get(of.family).and_then(|family| rules.attributed(set, symptom, *family));
            let fault = Some(place as usize).filter(|place| *place < known).map(|place| begin + place);
            // There may be no such fault.
            let probability = probability(of.score);
            match reason {
                Some(reason) => {
                    say(reason, share * probability, fault);
                    unnamed += share * (1.0 - probability);
                }
                None => unnamed += share,
            }
        });
        let alone = rules.attributed(set, symptom, Family::Sale).filter(|alone| alone.class == failure.reason.class);
        let (reason, doubt) = alone.map_or((failure.reason, failure.doubt), |alone| (alone, 1.0 - f64::from(alone.confidence) / 100.0));
        say(reason, (usual + unnamed) * (1.0 - doubt * DOUBT_LEFT), None);
        let Likely { share, reason, fault, .. } = causes.into_iter().max_by(|one, other| one.share.total_cmp(&other.share))?;
        Some(Settled { reason, confidence: share.min(MOST_CONFIDENCE), fault })
    }
}

/// A cause, and how likely it is.
struct Likely<'r> {
    share: f64,
    /// The share of what says most for it: its reason, and its fault.
    most: f64,
    reason: &'r Reason,
    fault: Option<usize>,
}

/// The failures of a symptom in order of time, and in which families each is the first of its kind: a sale counts once; in a shop and a terminal, a card that is known; of a card, a terminal.
fn witnesses<'a, 'r>(fleet: &'a Fleet<'r>, symptom: usize) -> Vec<Witness<'a, 'r>> {
    let mut failures: Vec<Witness<'a, 'r>> = fleet
        .failures
        .iter()
        .enumerate()
        .filter(|(_, failure)| failure.symptom == symptom)
        .map(|(place, failure)| Witness { place, failure, first_in: 0 })
        .collect();
    failures.sort_by_key(|witness| witness.failure.step);
    let by_card = [Family::Shop, Family::Terminal].map(|family| family as usize);
    let mut sales = HashSet::new();
    let mut kinds: HashSet<(usize, u32, u32)> = HashSet::new();
    for witness in &mut failures {
        let failure = witness.failure;
        let is_new = sales.insert(failure.sale);
        let card = fleet.cards.get(failure.sale as usize).copied().unwrap_or(NONE);
        let mut first_in = if is_new { u16::MAX >> (16 - FAMILIES) } else { 0 };
        for family in by_card {
            let place = failure.parts.get(family).copied().unwrap_or(NONE);
            if card != NONE && !kinds.insert((family, place, card)) {
                first_in &= !(1 << family);
            }
        }
        let of_card = Family::Card as usize;
        if !kinds.insert((of_card, part(&failure.parts, Family::Card), part(&failure.parts, Family::Terminal))) {
            first_in &= !(1 << of_card);
        }
        witness.first_in = first_in;
    }
    failures
}

fn overlap((first, last): (u32, u32), (other_first, other_last): (u32, u32)) -> bool {
    first <= other_last && other_first <= last
}

fn ln_odds(probability: f64) -> f64 {
    (probability / (1.0 - probability)).ln()
}

fn probability(score: f64) -> f64 {
    1.0 / (1.0 + (-score).exp())
}
