//! The life of incidents: what stands out becomes one, is named, followed, and closed.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use crate::announced::Announced;
use crate::baseline::{Counts, Past, real};
use crate::class::{Class, Signal};
use crate::fleet::{Disturbance, Fleet, Named, PARTS_SHARE, Suspicion};
use crate::incident::{Incident, Seen, State, Watch, seen};
use crate::leaf::{Failing, Leaf, View, failing, sum_in};
use crate::series::{KEPT, TICK_S};
use crate::settings::Settings;
use crate::slice::Slice;

/// A slice is a fault's only with more than this, in nats.
const LEAST_SCORE: f64 = 2.0;
/// By how much a name must be better to replace another.
const BETTER: f64 = 2.0;
/// Up to so many times as much is as much.
const NEARLY: f64 = 1.1;
/// Most of what fails in a slice.
const MOST_OF: f64 = 0.6;
/// After so many ticks, an incident's name is looked at again: the first failures may fit a narrower one by chance.
const LOOKS_AGAIN: [u32; 8] = [2, 4, 8, 16, 32, 64, 128, 256];
/// How far back failures are looked at in order to name them, in ticks.
const LONGEST_LOOK: u32 = 330;
/// Most failures that are looked at in order to name them, and to see whether an incident of many has another name: the last of them. More would say the same, and take longer than a tick.
const MOST_JUDGED: u64 = 200_000;
const MOST_LOOKED_AT_AGAIN: u64 = 25_000;
/// A fault that comes back within this time, in seconds, or half as long as it lasted but within the second time, is the same one.
const REOPENS_WITHIN_S: (u32, u32) = (600, 900);
/// Ticks after an incident in which nothing is learnt of drifts yet.
const AFTERMATH: u32 = 12;
/// Ticks of which it is said how busy the fleet is.
const PACE: u32 = 30;
/// Most suspicions that are followed in a tick.
const MOST_AT_ONCE: usize = 16;

/// What was counted in ten seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tick {
    /// First second of the ten, since 1970-01-01 UTC.
    pub bucket: u32,
    /// By slice; a slice without attempts may be left out.
    pub counts: Vec<(Slice, Counts)>,
}

/// What has to be known before a tick can be judged: every leaf of these ticks and classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// First seconds of the first tick and the last.
    pub buckets: RangeInclusive<u32>,
    /// Classes.
    pub classes: Vec<Class>,
}

/// What became of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It is new.
    Opened,
    /// It had been closed, and is back.
    Reopened,
    /// It has another name, or another signal besides.
    Changed,
    /// Nothing is seen of it any more.
    Unobserved,
    /// Something is seen of it again.
    Observed,
    /// It is over, or abandoned.
    Closed,
}

/// An incident as it is now, and what changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What changed.
    pub what: What,
    /// The incident.
    pub incident: Incident,
}

/// Why leaves are asked for.
#[derive(Clone, Debug)]
enum Purpose {
    /// Ticks were recalled in which there were incidents.
    Recall,
    /// Incidents are open: what they explain of the last tick is not looked at further.
    Explain,
    /// Something stands out.
    Judge,
}

/// Watches one tenant's fleet. Time is that of the ticks; the same ticks and answers give the same incidents.
///
/// ```text
/// learn ─▶ recall … ─▶ resume ─▶ ┌▶ observe ─▶ question ─▶ answer ─▶ question ─▶ answer ─▶ changes ─┐
///   ▲                            │   (each question may be missing; then the answer is too)          │
///   └── when the hour is another └──────────────────────────────────────────────────────────────────┘
/// ```
#[derive(Debug, Default)]
pub struct Detector {
    fleet: Fleet,
    /// Those that are not over, and those that may come back or are in the last hour.
    open: Vec<Incident>,
    closed: Vec<Incident>,
    announced: Vec<Announced>,
    asked: Option<(Question, Purpose)>,
    /// The first tick whose leaves are known, of those that were asked for last.
    known_from: u32,
    changes: Vec<Change>,
}

impl Detector {
    /// A detector with these settings; without a past it concludes nothing.
    #[must_use]
    pub fn new(settings: Settings) -> Detector {
        Detector { fleet: Fleet::new(settings), ..Detector::default() }
    }

    /// The hour whose past is known, by its first second.
    #[must_use]
    pub fn hour(&self) -> Option<u32> {
        self.fleet.hour()
    }

    /// Takes in what is usual at an hour.
    pub fn learn(&mut self, past: Past) {
        self.fleet.learn(past);
    }

    /// Takes in what is announced, instead of what was told before: nobody is called for it.
    pub fn announce(&mut self, announced: Vec<Announced>) {
        self.announced = announced;
    }

    /// Takes in a tick of before, and concludes nothing from it.
    pub fn recall(&mut self, tick: &Tick) {
        self.fleet.enter(tick.bucket / TICK_S, &tick.counts);
    }

    /// Goes on with incidents of before, once the ticks of before were recalled.
    pub fn resume(&mut self, incidents: Vec<Incident>) {
        let earliest = self.fleet.earliest(KEPT);
        let (open, closed) = incidents.into_iter().partition(|incident| incident.state.is_open());
        self.open = open;
        self.closed = closed;
        self.forget();
        let began = self.open.iter().chain(&self.closed).map(|incident| incident.began / TICK_S).min();
        if let Some(began) = began {
            let classes = classes(self.open.iter().chain(&self.closed));
            self.recall_failures(began.max(earliest), classes);
        }
    }

    /// Asks for what failed from a tick on, and no more of it at once than is judged at once.
    fn recall_failures(&mut self, from: u32, classes: BTreeSet<Class>) {
        let ticks = self.fleet.first_failures(from..=self.fleet.now(), (&classes, MOST_JUDGED));
        self.ask(ticks, classes, Purpose::Recall);
    }

    /// Attempts of the fleet a second, in the last five minutes.
    #[must_use]
    pub fn pace(&self) -> f64 {
        let ticks = self.fleet.earliest(PACE)..=self.fleet.now();
        let attempts = self.fleet.series(&Slice::fleet()).map_or(0, |fleet| fleet.attempts(ticks.clone()));
        real(attempts) / (f64::from(TICK_S) * real(u64::try_from(ticks.count()).unwrap_or(1)))
    }

    /// Takes in the next tick.
    pub fn observe(&mut self, tick: &Tick) {
        self.fleet.enter(tick.bucket / TICK_S, &tick.counts);
        self.follow();
        self.forget();
        let now = self.fleet.now();
        let is_young = |incident: &&Incident| LOOKS_AGAIN.contains(&(now + 1).saturating_sub(incident.opened / TICK_S));
        let looked_at = self.open.iter().filter(is_young).map(|incident| incident.began / TICK_S);
        let from = looked_at.min().unwrap_or(now).max(self.fleet.earliest(LONGEST_LOOK));
        let mut classes = classes(self.open.iter());
        if self.announced.iter().any(|announced| announced.is_during(now, now)) {
            classes.extend(Class::watched());
        }
        let ticks = self.fleet.last_failures(from..=now, (&classes, MOST_LOOKED_AT_AGAIN));
        self.ask(ticks, classes, Purpose::Explain);
        if self.asked.is_none() {
            self.step(&[]);
            self.look();
        }
    }

    /// Learns how rates drift, where no fault is.
    fn follow(&mut self) {
        let end = |closed: u32| closed / TICK_S + AFTERMATH;
        let incidents = self.open.iter().chain(&self.closed).map(|incident| Disturbance {
            slice: &incident.slice,
            classes: incident.watches.iter().map(|watch| watch.signal.class()).collect(),
            ticks: incident.began / TICK_S..=incident.closed.map_or(u32::MAX, end),
        });
        let announced = self.announced.iter().map(|announced| Disturbance {
            slice: &announced.slice,
            classes: None,
            ticks: announced.from / TICK_S..=end(announced.until),
        });
        let disturbances: Vec<Disturbance<'_>> = incidents.chain(announced).collect();
        self.fleet.follow(&disturbances);
    }

    /// Follows every open incident by one tick. What an older one explains is not evidence of a younger.
    fn step(&mut self, leaves: &[Leaf]) {
        let now = self.fleet.now();
        let mut older: Vec<Incident> = Vec::new();
        for mut incident in std::mem::take(&mut self.open) {
            let failures = |class| {
                let own = View { class, ticks: now..=now, leaves };
                let own = own.seen().filter(|leaf| incident.slice.holds(&leaf.at));
                own.filter(|leaf| !older.iter().any(|older| older.explains(class, &leaf.at, now)))
                    .map(|leaf| u64::from(leaf.failures))
                    .sum()
            };
            let failures: Vec<(Class, u64)> =
                incident.watches.iter().filter_map(|watch| watch.signal.class()).map(|class| (class, failures(class))).collect();
            let of_class = |class| failures.iter().find(|(own, _)| *own == class).map_or(0, |(_, failures)| *failures);
            if incident.step(&self.fleet, of_class) {
                let what = match incident.state {
                    State::Open => What::Observed,
                    State::Unobserved => What::Unobserved,
                    State::Closed | State::Abandoned => What::Closed,
                };
                self.changes.push(Change { what, incident: incident.clone() });
            }
            older.push(incident);
        }
        let (open, closed): (Vec<_>, Vec<_>) = older.into_iter().partition(|incident| incident.state.is_open());
        self.open = open;
        self.closed.extend(closed);
    }

    /// What must be known before it can go on; nothing when the tick is done.
    #[must_use]
    pub fn question(&self) -> Option<&Question> {
        self.asked.as_ref().map(|(question, _)| question)
    }

    /// Takes in the answer to the question.
    pub fn answer(&mut self, leaves: &[Leaf]) {
        let Some((Question { buckets, classes }, purpose)) = self.asked.take() else { return };
        let now = self.fleet.now();
        self.known_from = buckets.start() / TICK_S;
        self.fleet.remember(leaves);
        match purpose {
            Purpose::Recall => {
                self.explain(leaves.iter());
                let next = buckets.end() / TICK_S + 1;
                if next <= now {
                    self.recall_failures(next, classes.into_iter().collect());
                }
            }
            Purpose::Explain => {
                self.step(leaves);
                self.explain(leaves.iter().filter(|leaf| leaf.tick() == now));
                self.look_again(leaves);
                self.look();
            }
            Purpose::Judge => {
                self.judge_failures(leaves);
                self.judge_volume();
            }
        }
    }

    /// What has changed since this was asked last, in order.
    pub fn changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// The incidents that are not over.
    #[must_use]
    pub fn open(&self) -> &[Incident] {
        &self.open
    }

    fn ask(&mut self, ticks: RangeInclusive<u32>, classes: BTreeSet<Class>, purpose: Purpose) {
        let buckets = ticks.start() * TICK_S..=ticks.end() * TICK_S;
        self.asked = (!classes.is_empty()).then(|| (Question { buckets, classes: classes.into_iter().collect() }, purpose));
    }

    /// Incidents that are long over explain nothing any more, and cannot come back.
    fn forget(&mut self) {
        let earliest = self.fleet.earliest(KEPT) * TICK_S;
        self.closed.retain(|incident| incident.closed.is_some_and(|closed| closed > earliest));
    }

    /// Takes out of the counts what incidents explain.
    fn explain<'a>(&mut self, leaves: impl Iterator<Item = &'a Leaf>) {
        let explained: Vec<&Leaf> = leaves.filter(|leaf| self.is_explained(leaf)).collect();
        for leaf in explained {
            self.fleet.take_out(leaf);
        }
    }

    fn is_explained(&self, leaf: &Leaf) -> bool {
        let mut incidents = self.open.iter().chain(&self.closed);
        self.announced.iter().any(|announced| announced.explains(&leaf.at, leaf.tick()))
            || incidents.any(|incident| incident.explains(leaf.class, &leaf.at, leaf.tick()))
    }

    /// Looks for what stands out; where that is only approvals, nothing more need be known.
    fn look(&mut self) {
        let suspicions = self.fleet.failing();
        if suspicions.is_empty() {
            self.judge_volume();
            return;
        }
        let classes: BTreeSet<Class> = suspicions.iter().filter_map(|suspicion| suspicion.signal.class()).collect();
        let begins = suspicions.iter().map(|suspicion| *suspicion.window.start());
        // A suspicion may belong to an incident that is open, and then both are named together.
        let akin = self.open.iter().filter(|incident| classes.iter().any(|class| incident.watches(Signal::Failures(*class))));
        let from = begins.chain(akin.map(|incident| incident.began / TICK_S)).min().unwrap_or_default();
        let ticks = from.max(self.fleet.earliest(LONGEST_LOOK))..=self.fleet.now();
        self.ask(self.fleet.last_failures(ticks, (&classes, MOST_JUDGED)), classes, Purpose::Judge);
    }

    fn judge_failures(&mut self, leaves: &[Leaf]) {
        let mut dismissed = BTreeSet::new();
        for _ in 0..MOST_AT_ONCE {
            let suspicions = self.fleet.failing().into_iter().filter_map(|suspicion| Some((suspicion.signal.class()?, suspicion)));
            let left = suspicions.filter(|(class, suspicion)| !dismissed.contains(&(suspicion.slice.clone(), *class)));
            let strongest = left.max_by(|(_, a), (_, b)| a.evidence.total_cmp(&b.evidence).then_with(|| b.slice.cmp(&a.slice)));
            let Some((class, suspicion)) = strongest else { break };
            if !self.conclude(&suspicion, class, leaves) {
                dismissed.insert((suspicion.slice, class));
            }
        }
    }

    /// Makes an incident of a suspicion, or a part of one that is there. Returns whether that explains it.
    fn conclude(&mut self, suspicion: &Suspicion, class: Class, leaves: &[Leaf]) -> bool {
        let (first, last) = suspicion.window.clone().into_inner();
        let view = View { class, ticks: first.max(self.known_from)..=last, leaves };
        let unexplained: Vec<&Leaf> = view.seen().filter(|leaf| !self.is_explained(leaf)).collect();
        let Some(Named { slice, failing, score }) = self.fleet.name(&failing(unexplained.iter().copied()), &view) else { return false };
        if score <= LEAST_SCORE || !self.fleet.is_enough(&slice, failing, &view) || self.is_over(&slice, &view) {
            return false;
        }
        // That of the same slice first, then those that hold it, then others.
        let mut places: Vec<usize> = (0..self.open.len()).collect();
        places.sort_by_key(|place| self.open.get(*place).map(|incident| (incident.slice != slice, !incident.slice.holds(&slice))));
        for place in places {
            let is_akin = self.open.get(place).is_some_and(|incident| akin(incident, &slice, class));
            if is_akin && let Some(explained) = self.absorb(place, &slice, &view) {
                return explained;
            }
        }
        let first = unexplained.iter().filter(|leaf| slice.holds(&leaf.at)).map(|leaf| leaf.tick()).min();
        let began = first.unwrap_or(*view.ticks.start());
        let since = View { ticks: began..=self.fleet.now(), ..view };
        let watch = Watch { evidence: suspicion.evidence, ..self.sum(&slice, &since) };
        self.open_incident(slice, began, watch);
        self.explain(unexplained.into_iter());
        true
    }

    /// Makes a suspicion part of an incident. Returns whether that explains it; nothing where the two are separate faults.
    fn absorb(&mut self, place: usize, slice: &Slice, view: &View<'_>) -> Option<bool> {
        let incident = self.open.get(place)?;
        if !incident.watches(Signal::Failures(view.class)) {
            // Another signal of the same fault: timeouts after silence.
            let mut watch = self.sum(&incident.slice, view);
            watch.evidence = self.fleet.evidence_in(&incident.slice, real(watch.counted), view);
            let unexplained = self.unexplained(view);
            let incident = self.open.get_mut(place)?;
            incident.watches.push(watch);
            self.changes.push(Change { what: What::Changed, incident: incident.clone() });
            self.explain(unexplained.into_iter());
            return Some(true);
        }
        if incident.slice.holds(slice) {
            // Counted after the leaves were told, or the other way round.
            return Some(false);
        }
        // By what fails now: a fault may have spread.
        let failing = self.failing_beside(incident, view);
        let score = |slice: &Slice| self.fleet.score(slice, sum_in(slice, &failing), view);
        let common = incident.slice.common(slice);
        let (named, other, both) = (score(&incident.slice), score(slice), score(&common));
        if slice.holds(&incident.slice) {
            if both > named + BETTER {
                self.rename(place, common, view);
                return Some(true);
            }
            // What is left beside the incident is its fringe.
            return Some(false);
        }
        if self.fleet.series(&common).is_some() && both >= named + other {
            self.rename(place, common, view);
            return Some(true);
        }
        None
    }

    /// What of a view fails, but for what other incidents than this one explain.
    fn failing_beside<'a>(&self, incident: &Incident, view: &View<'a>) -> Vec<(&'a Slice, Failing)> {
        let others = || self.open.iter().filter(|other| other.first_slice != incident.first_slice || other.opened != incident.opened);
        failing(view.seen().filter(|leaf| !others().any(|other| other.explains(leaf.class, &leaf.at, leaf.tick()))))
    }

    /// Looks at the names of young incidents again, now that more of them is known.
    fn look_again(&mut self, leaves: &[Leaf]) {
        let now = self.fleet.now();
        for place in 0..self.open.len() {
            let Some(incident) = self.open.get(place) else { continue };
            let age = (now + 1).saturating_sub(incident.opened / TICK_S);
            let class = incident.watches.iter().find_map(|watch| watch.signal.class());
            let Some(class) = class.filter(|_| LOOKS_AGAIN.contains(&age)) else { continue };
            let view = View { class, ticks: self.ticks_of(incident), leaves };
            let failing = self.failing_beside(incident, &view);
            let named = self.fleet.score(&incident.slice, sum_in(&incident.slice, &failing), &view);
            if let Some(Named { slice, score, .. }) = self.fleet.name(&failing, &view)
                && slice != incident.slice
                && score > named + BETTER + PARTS_SHARE * named.max(0.0)
                && self.is_another_name(incident, &slice, &failing)
            {
                self.rename(place, slice, &view);
            }
        }
    }

    /// Whether a slice may be what an incident is of: it is nested with it, or most of what fails in the incident's slice is in it.
    fn is_another_name(&self, incident: &Incident, slice: &Slice, failing: &[(&Slice, Failing)]) -> bool {
        if slice.holds(&incident.slice) || incident.slice.holds(slice) {
            return true;
        }
        let of_incident: Vec<(&Slice, Failing)> = failing.iter().filter(|(at, _)| incident.slice.holds(at)).copied().collect();
        let (both, all) = (sum_in(slice, &of_incident), sum_in(&incident.slice, &of_incident));
        let is_free = !self.open.iter().any(|other| other.slice == *slice);
        is_free && both.witnessed > MOST_OF * all.witnessed
    }

    /// The ticks of an incident so far, as far back as failures are looked at.
    fn ticks_of(&self, incident: &Incident) -> RangeInclusive<u32> {
        (incident.began / TICK_S).max(self.fleet.earliest(LONGEST_LOOK)).max(self.known_from)..=self.fleet.now()
    }

    /// Calls an incident by another slice, and counts its failures of a class anew.
    fn rename(&mut self, place: usize, slice: Slice, view: &View<'_>) {
        let explained: Vec<&Leaf> = view.leaves.iter().filter(|leaf| leaf.class == view.class && self.is_explained(leaf)).collect();
        let unexplained = self.unexplained(view);
        let Some(ticks) = self.open.get(place).map(|incident| self.ticks_of(incident)) else { return };
        let whole = View { ticks, ..view.clone() };
        // Failures that are explained are not in the counts any more, but all are leaves.
        let mut watch = self.sum(&slice, &whole);
        watch.counted = sum_in(&slice, &failing(whole.seen())).failures;
        let Some(incident) = self.open.get_mut(place) else { return };
        incident.slice = slice;
        for own in incident.watches.iter_mut().filter(|own| own.signal == watch.signal) {
            *own = Watch { evidence: own.evidence, ..watch.clone() };
        }
        self.changes.push(Change { what: What::Changed, incident: incident.clone() });
        self.explain(unexplained.into_iter());
        let freed: Vec<&Leaf> = explained.into_iter().filter(|leaf| !self.is_explained(leaf)).collect();
        for leaf in freed {
            self.fleet.put_back(leaf);
        }
    }

    /// What of a class nothing explains, in all ticks that are known.
    fn unexplained<'a>(&self, view: &View<'a>) -> Vec<&'a Leaf> {
        view.leaves.iter().filter(|leaf| leaf.class == view.class && !self.is_explained(leaf)).collect()
    }

    /// Sums of a class in a slice, from the counts.
    fn sum(&self, slice: &Slice, view: &View<'_>) -> Watch {
        let mut watch = Watch::of(Signal::Failures(view.class));
        for tick in view.ticks.clone() {
            watch.add(seen(&self.fleet, slice, &watch, tick));
        }
        watch
    }

    fn judge_volume(&mut self) {
        let mut dismissed: BTreeSet<Slice> = BTreeSet::new();
        for _ in 0..MOST_AT_ONCE {
            let lost = |slice: &Slice, window: &RangeInclusive<u32>| self.lost(slice, window);
            let Some((suspicion, score)) = self.fleet.missing(lost, |slice| dismissed.contains(slice)) else { break };
            let level = self.fleet.expected_approvals(&suspicion.slice, &suspicion.window).map_or(1.0, |expected| expected.level);
            let mut watch = Watch { evidence: suspicion.evidence, level, ..Watch::of(Signal::MissingApprovals) };
            for tick in suspicion.window.clone() {
                let expected = self.fleet.expected_approvals(&suspicion.slice, &(tick..=tick)).map_or(0.0, |expected| expected.approvals);
                watch.add(Seen { expected, ..seen(&self.fleet, &suspicion.slice, &watch, tick) });
            }
            if score <= LEAST_SCORE || self.returns(&suspicion.slice, &watch, &suspicion.window) {
                dismissed.insert(suspicion.slice);
                continue;
            }
            self.open_incident(suspicion.slice, *suspicion.window.start(), watch);
        }
    }

    /// Approvals of a slice in a window whose absence incidents explain.
    fn lost(&self, slice: &Slice, window: &RangeInclusive<u32>) -> f64 {
        let during = self.closed.iter().filter(|incident| incident.closed.is_some_and(|closed| closed / TICK_S > *window.start()));
        let lost = self.open.iter().chain(during).map(|incident| {
            if incident.slice.holds(slice) && incident.takes_approvals() {
                return f64::INFINITY;
            }
            self.missing_of(slice, &incident.slice, window)
        });
        let announced = self.announced.iter().filter(|announced| announced.is_during(*window.start(), *window.end()));
        let maintained = announced
            .map(|announced| if announced.slice.holds(slice) { f64::INFINITY } else { self.missing_of(slice, &announced.slice, window) });
        lost.chain(maintained).sum()
    }

    /// Approvals of a slice that are missing in a window since they are missing in another. Where values do not tell how much they have in common, all
    /// that is missing may be the other's if that misses as much: a bank may have most of its cards in one province.
    fn missing_of(&self, slice: &Slice, other: &Slice, window: &RangeInclusive<u32>) -> f64 {
        let missing = |slice: &Slice| {
            let expected = self.fleet.expected_approvals(slice, window).map_or(0.0, |expected| expected.approvals);
            (expected - real(self.fleet.series(slice).map_or(0, |series| series.approved(window.clone())))).max(0.0)
        };
        let of_other = missing(other);
        if !slice.is_apart_from(other) && missing(slice) <= NEARLY * of_other {
            return f64::INFINITY;
        }
        self.fleet.shared(slice, other) * of_other
    }

    /// Whether the last of a view says that what stands out in it is over already.
    fn is_over(&self, slice: &Slice, view: &View<'_>) -> bool {
        self.returns(slice, &self.sum(slice, view), &view.ticks)
    }

    /// Whether what is usual is back at the end of a window.
    fn returns(&self, slice: &Slice, watch: &Watch, window: &RangeInclusive<u32>) -> bool {
        let mut watch = watch.clone();
        for tick in window.clone() {
            watch.step(tick, seen(&self.fleet, slice, &watch, tick));
        }
        watch.is_back(*window.start(), self.fleet.now())
    }

    /// Opens an incident, or one again that was closed a moment ago.
    fn open_incident(&mut self, slice: Slice, began: u32, watch: Watch) {
        let end = (self.fleet.now() + 1) * TICK_S;
        let is_the_same = |incident: &Incident| {
            let is_recent = incident.closed.is_some_and(|closed| {
                let (least, most) = REOPENS_WITHIN_S;
                closed + (closed.saturating_sub(incident.began) / 2).clamp(least, most) > end
            });
            is_recent && incident.slice == slice && (incident.watches(watch.signal) || akin_to_silence(incident, watch.signal))
        };
        let (what, incident) = match self.closed.iter().position(is_the_same) {
            Some(place) => {
                let mut incident = self.closed.remove(place);
                incident.state = State::Open;
                (incident.closed, incident.unobserved) = (None, None);
                let before = incident.watches.iter().find(|own| own.signal == watch.signal).cloned().unwrap_or(Watch::of(watch.signal));
                let (attempts, counted) = (watch.attempts + before.attempts, watch.counted + before.counted);
                incident.watches = vec![Watch { attempts, counted, expected: watch.expected + before.expected, ..watch }];
                (What::Reopened, incident)
            }
            None => {
                let (first_slice, began) = (slice.clone(), began * TICK_S);
                (What::Opened, Incident { slice, first_slice, began, opened: end, watches: vec![watch], ..Incident::default() })
            }
        };
        self.changes.push(Change { what, incident: incident.clone() });
        self.open.push(incident);
    }
}

/// Whether failures of a class in a slice may be those of an incident.
fn akin(incident: &Incident, slice: &Slice, class: Class) -> bool {
    let is_nested = incident.slice.holds(slice) || slice.holds(&incident.slice);
    incident.watches(Signal::Failures(class))
        || incident.slice == *slice
        || (is_nested && akin_to_silence(incident, Signal::Failures(class)))
}

/// Whether a signal is what comes of silence, and an incident is one of silence.
fn akin_to_silence(incident: &Incident, signal: Signal) -> bool {
    matches!(signal, Signal::Failures(class) if class.is_silence()) && incident.watches(Signal::MissingApprovals)
}

fn classes<'a>(incidents: impl Iterator<Item = &'a Incident>) -> BTreeSet<Class> {
    let signals = incidents.flat_map(|incident| incident.watches.iter().map(|watch| watch.signal));
    signals.filter_map(Signal::class).collect()
}

#[cfg(test)]
mod tests;
