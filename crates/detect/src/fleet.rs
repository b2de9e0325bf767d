//! The fleet's last hour beside what is usual: what is known of each slice.

mod failing;
mod missing;
mod naming;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;

use foldhash::fast::RandomState;

pub(crate) use self::naming::PARTS_SHARE;
use crate::baseline::{Baselines, Counts, Past, Usual, real};
use crate::class::{Class, Signal};
use crate::dispersion::{Cell, Dispersing, Dispersion};
use crate::drift::{Drifts, Level};
use crate::evidence::Varying;
use crate::leaf::{Failing, Leaf};
use crate::series::{KEPT, Series, Sums, TICK_S};
use crate::settings::Settings;
use crate::slice::{Kind, Slice};

/// How often it is looked for slices that are there no more, in ticks.
const SWEEP_TICKS: u32 = 60;
/// Ticks of a minute: so much is learnt of drifts at once.
const MINUTE: u32 = 6;
/// Ticks from whose counts it is learnt how much they vary, of failures and of approvals: half an hour, and ten minutes.
const ROUND: u32 = 180;
const APPROVALS_ROUND: u32 = 60;
/// By how much the variance of failures usually exceeds that of independent ones, as customers try again; and in half an hour, in which they end trying.
const CLUSTERS: f64 = 1.25;
const CLUSTERS_OF_ROUND: f64 = 1.4;
/// The same of approvals, in ten minutes.
const APPROVALS_CLUSTERS_OF_ROUND: f64 = 1.2;
/// Ticks after which it is known what was of a fault.
const KNOWN_AFTER: u32 = 180;
/// Most places of leaves that are remembered.
const MOST_PLACES: usize = 200_000;

/// Something that stands out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Suspicion {
    pub(crate) slice: Slice,
    pub(crate) signal: Signal,
    pub(crate) window: RangeInclusive<u32>,
    /// In nats.
    pub(crate) evidence: f64,
}

/// A slice that says what fails.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Named {
    pub(crate) slice: Slice,
    pub(crate) failing: Failing,
    /// In nats.
    pub(crate) score: f64,
}

/// A fault, as far as drifts are concerned: where it is, nothing is learnt.
#[derive(Clone, Debug)]
pub(crate) struct Disturbance<'a> {
    pub(crate) slice: &'a Slice,
    /// The classes that fail; none: all.
    pub(crate) classes: Option<Vec<Class>>,
    pub(crate) ticks: RangeInclusive<u32>,
}

/// The last hour, and what is usual.
#[derive(Debug)]
pub(crate) struct Fleet {
    settings: Settings,
    baselines: Baselines,
    hour: Option<u32>,
    parts: Vec<Part>,
    numbers: HashMap<Slice, usize, RandomState>,
    /// By values of a leaf, the parts that it is in.
    places: HashMap<Slice, Box<[usize]>, RandomState>,
    /// By tick, 1 where anything was attempted.
    live: Sums<u32>,
    /// The first tick of which it is known how many approvals are usual.
    known: Option<u32>,
    /// By number of its class, what failed in the fleet, explained or not.
    failed: [Sums<u32>; Class::NUMBER],
    /// By kind, how many slices there are.
    kinds: BTreeMap<Kind, u32>,
    /// The last tick.
    now: u32,
    /// The first.
    first: Option<u32>,
    /// The last tick that drifts were learnt from.
    followed: Option<u32>,
    /// How much failures vary, by number of their class, and how much approvals do.
    failures: [Dispersing; Class::NUMBER],
    approvals: Dispersing,
}

impl Default for Fleet {
    fn default() -> Fleet {
        Fleet::new(Settings::default())
    }
}

/// A slice, and what is known of it.
#[derive(Debug)]
struct Part {
    slice: Slice,
    kind: Kind,
    series: Series,
    usual: Usual,
    /// What was usual in the hour before, where windows reach into it.
    before: Option<Usual>,
    drifts: Drifts,
}

/// A class in a part, and where its rate is now.
#[derive(Clone, Copy, Debug)]
struct Watched<'a> {
    part: &'a Part,
    class: Class,
    level: Level,
}

impl Fleet {
    pub(crate) fn new(settings: Settings) -> Fleet {
        Fleet {
            settings,
            baselines: Baselines::default(),
            hour: None,
            parts: Vec::new(),
            numbers: HashMap::default(),
            places: HashMap::default(),
            live: Sums::default(),
            known: None,
            failed: std::array::from_fn(|_| Sums::default()),
            kinds: BTreeMap::new(),
            now: 0,
            first: None,
            followed: None,
            failures: std::array::from_fn(|_| Dispersing::new(CLUSTERS_OF_ROUND)),
            approvals: Dispersing::new(APPROVALS_CLUSTERS_OF_ROUND),
        }
    }

    /// The hour of the past that is known, by its first second.
    pub(crate) fn hour(&self) -> Option<u32> {
        self.hour
    }

    pub(crate) fn learn(&mut self, past: Past) {
        let before = self.hour.replace(past.hour);
        self.baselines = Baselines::learn(past);
        for part in &mut self.parts {
            let learnt = std::mem::replace(&mut part.usual, self.baselines.of(&part.slice));
            if before != self.hour {
                part.before = before.map(|_| learnt);
            }
        }
    }

    pub(crate) fn now(&self) -> u32 {
        self.now
    }

    /// The earliest tick that is known, at most so many ticks ago.
    pub(crate) fn earliest(&self, ticks: u32) -> u32 {
        (self.now + 1).saturating_sub(ticks.min(KEPT)).max(self.first.unwrap_or(self.now))
    }

    /// Takes in what was counted in a tick. Ticks that were left out had nothing.
    pub(crate) fn enter(&mut self, tick: u32, counts: &[(Slice, Counts)]) {
        let begin = if self.first.is_some() { self.now + 1 } else { tick };
        for begun in begin.max(tick.saturating_sub(KEPT))..=tick {
            for part in &mut self.parts {
                part.series.begin(begun);
            }
            self.live.begin(begun);
            self.failed.iter_mut().for_each(|failed| failed.begin(begun));
        }
        self.first.get_or_insert(tick);
        self.now = tick;
        for (slice, counts) in counts {
            let number = self.number(slice);
            if let Some(part) = self.parts.get_mut(number) {
                part.series.enter(tick, counts);
            }
            for (class, failures) in counts.failures.iter().filter(|_| *slice == Slice::fleet()) {
                if let Some(failed) = self.failed.get_mut(class.number()) {
                    failed.add(tick, u32::try_from(*failures).unwrap_or(u32::MAX));
                }
            }
        }
        if self.part(&Slice::fleet()).is_some_and(|fleet| fleet.series.attempts_at(tick) > 0) {
            self.live.add(tick, 1);
            let middle = f64::from(tick) * f64::from(TICK_S) + f64::from(TICK_S) / 2.0;
            let place = self.baselines.place(middle);
            if self.part(&Slice::fleet()).is_some_and(|fleet| fleet.usual.approvals(place) > 0.0) {
                self.known.get_or_insert(tick);
            }
            for part in &mut self.parts {
                part.series.expect(tick, part.usual.approvals(place) * f64::from(TICK_S));
            }
        }
        if tick.is_multiple_of(SWEEP_TICKS) {
            self.forget();
        }
    }

    /// The number of a slice, which is new where it was not known.
    fn number(&mut self, slice: &Slice) -> usize {
        if let Some(number) = self.numbers.get(slice) {
            return *number;
        }
        let kind = slice.kind();
        *self.kinds.entry(kind.clone()).or_default() += 1;
        let number = self.parts.len();
        self.numbers.insert(slice.clone(), number);
        let usual = self.baselines.of(slice);
        self.parts.push(Part { slice: slice.clone(), kind, series: Series::default(), usual, before: None, drifts: Drifts::default() });
        // A leaf may be in it.
        self.places.clear();
        number
    }

    /// Slices of which nothing was seen for an hour are not there.
    fn forget(&mut self) {
        let hour = self.earliest(KEPT)..=self.now;
        let before = self.parts.len();
        self.parts.retain(|part| part.series.attempts(hour.clone()) > 0);
        if self.parts.len() == before {
            return;
        }
        self.numbers = self.parts.iter().enumerate().map(|(number, part)| (part.slice.clone(), number)).collect();
        self.kinds.values_mut().for_each(|number| *number = 0);
        for part in &self.parts {
            *self.kinds.entry(part.kind.clone()).or_default() += 1;
        }
        self.places.clear();
    }

    fn part(&self, slice: &Slice) -> Option<&Part> {
        self.parts.get(*self.numbers.get(slice)?)
    }

    pub(crate) fn series(&self, slice: &Slice) -> Option<&Series> {
        Some(&self.part(slice)?.series)
    }

    /// Attempts of a slice in all that is kept.
    pub(crate) fn attempts_of_hour(&self, slice: &Slice) -> u64 {
        self.series(slice).map_or(0, |series| series.attempts(self.earliest(KEPT)..=self.now))
    }

    /// Whether anything was attempted in a tick.
    pub(crate) fn is_live(&self, tick: u32) -> bool {
        self.live.sum(&(tick..=tick)) > 0
    }

    /// The last of some ticks that have no more than so many failures of these classes; one at least.
    pub(crate) fn last_failures(&self, ticks: RangeInclusive<u32>, few: (&BTreeSet<Class>, u64)) -> RangeInclusive<u32> {
        let last = *ticks.end();
        ticks.into_iter().find(|first| self.has_few(*first..=last, few)).unwrap_or(last)..=last
    }

    /// The first of some ticks that have no more than so many failures of these classes; one at least.
    pub(crate) fn first_failures(&self, ticks: RangeInclusive<u32>, few: (&BTreeSet<Class>, u64)) -> RangeInclusive<u32> {
        let first = *ticks.start();
        first..=ticks.into_iter().rev().find(|last| self.has_few(first..=*last, few)).unwrap_or(first)
    }

    fn has_few(&self, ticks: RangeInclusive<u32>, (classes, most): (&BTreeSet<Class>, u64)) -> bool {
        let failed = classes.iter().filter_map(|class| self.failed.get(class.number()));
        failed.map(|failed| failed.sum(&ticks)).sum::<u64>() <= most
    }

    /// The share of a slice's attempts that are to be expected to fail so, in some ticks: what is usual, at the level at which it is now.
    pub(crate) fn rate(&self, slice: &Slice, class: Class, ticks: &RangeInclusive<u32>) -> f64 {
        let Some(part) = self.part(slice) else { return self.baselines.of(slice).rate(class) };
        self.rate_of(&self.watched(part, class), ticks)
    }

    /// The same of a part: each hour by what is usual in it.
    fn rate_of(&self, Watched { part, class, level }: &Watched<'_>, ticks: &RangeInclusive<u32>) -> f64 {
        let (now, begin) = (part.usual.rate(*class), self.hour.unwrap_or_default() / TICK_S);
        let usual = match &part.before {
            Some(before) if *ticks.start() < begin => now + (before.rate(*class) - now) * part.series.share_before(begin, ticks),
            _ => now,
        };
        (usual * level.level).clamp(1e-6, 0.5)
    }

    fn level_of_fleet(&self, class: Class) -> f64 {
        self.part(&Slice::fleet()).map_or(1.0, |fleet| fleet.drifts.level(class, 1.0).level)
    }

    /// By number of their class.
    fn levels_of_fleet(&self) -> [f64; Class::NUMBER] {
        Class::ALL.map(|class| self.level_of_fleet(class))
    }

    fn watched<'a>(&self, part: &'a Part, class: Class) -> Watched<'a> {
        Watched { part, class, level: part.drifts.level(class, self.level_of_fleet(class)) }
    }

    /// Learns how rates drift, from minutes of which it is known what was of a fault.
    pub(crate) fn follow(&mut self, disturbances: &[Disturbance<'_>]) {
        let first = self.first.unwrap_or(self.now);
        let mut begin = self.followed.map_or(first, |followed| followed + 1).max(self.earliest(KEPT));
        while begin + MINUTE - 1 + KNOWN_AFTER <= self.now {
            let minute = begin..=begin + MINUTE - 1;
            self.follow_minute(&minute, disturbances);
            self.followed = Some(*minute.end());
            if (minute.end() + 1).is_multiple_of(ROUND) {
                self.learn_variation_of_failures();
            }
            if (minute.end() + 1).is_multiple_of(APPROVALS_ROUND) {
                self.learn_variation_of_approvals(minute.end() + 1 - APPROVALS_ROUND..=*minute.end(), disturbances);
            }
            begin += MINUTE;
        }
    }

    fn follow_minute(&mut self, minute: &RangeInclusive<u32>, disturbances: &[Disturbance<'_>]) {
        let overlap = |ticks: &RangeInclusive<u32>| ticks.start() <= minute.end() && minute.start() <= ticks.end();
        let disturbances: Vec<_> = disturbances.iter().filter(|disturbance| overlap(&disturbance.ticks)).collect();
        let mut learnt = Vec::new();
        for (number, part) in self.parts.iter().enumerate().filter(|(_, part)| part.usual.is_known) {
            let attempts = real(part.series.attempts(minute.clone()));
            if attempts == 0.0 {
                continue;
            }
            for class in Class::watched() {
                let is_disturbed = disturbances.iter().any(|disturbance| {
                    let of_class = disturbance.classes.as_ref().is_none_or(|classes| classes.contains(&class));
                    of_class && !disturbance.slice.is_apart_from(&part.slice)
                });
                if !is_disturbed {
                    let usual = attempts * self.rate_of(&Watched { part, class, level: Level::default() }, minute);
                    let failures = real(part.series.failures(class, minute));
                    learnt.push((number, class, self.learnable(&self.watched(part, class), failures, usual), usual));
                }
            }
        }
        for (number, class, failures, usual) in learnt {
            let of_fleet = self.level_of_fleet(class);
            if let Some(part) = self.parts.get_mut(number) {
                part.drifts.take_in(class, (failures, usual), of_fleet);
            }
        }
    }

    /// Learns how much failures vary, from the slices that faults of their class are of.
    fn learn_variation_of_failures(&mut self) {
        for part in &mut self.parts {
            for (class, cell) in part.drifts.cells() {
                let is_typical = part.slice.attributes() == 1 && class.is_plausible_in(&part.kind);
                if is_typical && let Some(dispersing) = self.failures.get_mut(class.number()) {
                    dispersing.take_in(Cell { variance: cell.variance + failing::variance(ROUND), ..cell });
                }
            }
        }
        self.failures.iter_mut().for_each(Dispersing::settle);
    }

    /// How much failures of a class vary in a window in which their level does so much.
    fn varying(&self, class: Class, variance: f64) -> Varying {
        let known = self.failures.get(class.number()).map(|dispersing| dispersing.known);
        known.map_or(Varying { clusters: CLUSTERS, variance }, |Dispersion { clusters, drift }| Varying {
            clusters: clusters * CLUSTERS,
            variance: drift * variance,
        })
    }

    /// Remembers in which slices leaves are.
    pub(crate) fn remember(&mut self, leaves: &[Leaf]) {
        if self.places.len() > MOST_PLACES {
            self.places.clear();
        }
        let mut values = Vec::new();
        for leaf in leaves {
            if !self.places.contains_key(&leaf.at) {
                let within = self.kinds.keys().filter_map(|kind| {
                    values.clear();
                    values.extend(leaf.at.values_at(kind));
                    self.numbers.get(values.as_slice()).copied()
                });
                self.places.insert(leaf.at.clone(), within.collect());
            }
        }
    }

    /// The parts that a leaf is in.
    fn within(&self, at: &Slice) -> &[usize] {
        self.places.get(at).map_or(&[], AsRef::as_ref)
    }

    /// Takes out failures that are explained, from every slice that they are in.
    pub(crate) fn take_out(&mut self, leaf: &Leaf) {
        self.change(leaf, |count| count.saturating_sub(leaf.failures));
    }

    /// Puts back failures that are not explained any more.
    pub(crate) fn put_back(&mut self, leaf: &Leaf) {
        self.change(leaf, |count| count.saturating_add(leaf.failures));
    }

    /// Of leaves that are remembered.
    fn change(&mut self, leaf: &Leaf, change: impl Fn(u32) -> u32) {
        for number in self.places.get(&leaf.at).map_or(&[][..], AsRef::as_ref) {
            let part = self.parts.get_mut(*number);
            if let Some(count) = part.and_then(|part| part.series.failures_at(leaf.tick(), leaf.class)) {
                *count = change(*count);
            }
        }
    }

    /// How many nats more are asked for than of a fleet of some hundred slices of which one false incident is accepted in thirty days: each further
    /// slice is one more that may look so by chance.
    fn surcharge(&self) -> f64 {
        let slices = f64::from(u32::try_from(self.parts.len()).unwrap_or(u32::MAX)).max(1.0);
        (slices / 338.0).ln().max(-1.0) + (self.settings.days_per_false_incident / 30.0).max(1e-3).ln()
    }

    /// What naming a slice costs: there are many of its kind, and narrower ones fit chance better.
    fn price(&self, part: &Part) -> f64 {
        let alike = self.kinds.get(&part.kind).copied().unwrap_or(1);
        0.5 * f64::from(alike.max(1)).ln() + 2.5 * f64::from(part.slice.attributes()) + 2.0
    }
}

/// How many nats less are asked for in a window of so many ticks: of long ones there are fewer in a month that have little in common (the scale-dependent
/// penalty of multiscale scans; Dümbgen and Spokoiny, 2001).
fn fewer(ticks: u32) -> f64 {
    0.8 * f64::from(ticks.max(1)).ln()
}
