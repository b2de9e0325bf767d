//! The fleet's last hour beside what is usual: what stands out, and which slice says it best.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;

use crate::baseline::{Baselines, Counts, Past, real};
use crate::class::{Class, Signal};
use crate::evidence::{fewer_approvals, more_failures, plain_approvals, plain_failures};
use crate::leaf::{Failing, Leaf, View};
use crate::series::{KEPT, Series, TICK_S, place};
use crate::slice::{Dimension, Kind, Slice};

/// Windows over which failures are summed, in ticks: short ones see a dead bank at once, long ones one that fails a little.
const RATE_WINDOWS: [u32; 8] = [1, 2, 3, 6, 12, 30, 75, 180];
/// Windows over which approvals are.
const VOLUME_WINDOWS: [u32; 10] = [2, 3, 5, 8, 12, 20, 36, 60, 100, 150];
/// Evidence that is asked for, in nats: all slices, classes, windows and ticks of a month together are to give one alarm by chance.
const RATE_THRESHOLD: f64 = 17.0;
const VOLUME_THRESHOLD: f64 = 15.0;
/// What is asked for on top where failures of the class do not plausibly come from such a slice.
const IMPLAUSIBLE: f64 = 3.5;
/// Fewer failures are none.
const LEAST_FAILURES: u64 = 4;
/// Approvals that are missing are so many below the expected that no drift explains it.
const MISSING: f64 = 0.70;
/// Fewer expected approvals cannot be missed.
const LEAST_EXPECTED: f64 = 20.0;
/// What a slice is compared with in localisation: a little more than usual, and a little less.
const RATE_MARGIN: f64 = 1.3;
const VOLUME_MARGIN: f64 = 0.85;
/// Most faults of one class at one moment that are told apart.
const MOST_PARTS: usize = 6;
/// By how much parts must explain more than the whole, in nats: a little more they do by chance.
const PARTS_MARGIN: f64 = 3.0;
/// Ticks before a window whose approvals say at which level the fleet is.
const LEVEL_TICKS: u32 = 210;
/// Fewest of them.
const LEAST_LEVEL_TICKS: u32 = 12;
/// What the level is pulled to 1 with, in approvals.
const LEVEL_PRIOR: f64 = 15.0;
/// Ticks by which it is seen how busy the fleet is now.
const BUSY_TICKS: u32 = 6;
/// How often it is looked for slices that are there no more, in ticks.
const SWEEP_TICKS: u32 = 60;
/// A slice that has more of the fleet than this has no rest to be compared with.
const LARGEST_SHARE: f64 = 0.9;

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

/// The last hour, and what is usual.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    baselines: Baselines,
    hour: Option<u32>,
    /// What was usual in the hour before, where windows reach into it.
    before: Option<Baselines>,
    series: HashMap<Slice, Series>,
    /// By tick, approvals that are usual of the fleet, where it is live; in the place of the tick in a ring.
    usual: Vec<f64>,
    /// By kind, how many slices there are.
    kinds: BTreeMap<Kind, u32>,
    /// The last tick.
    now: u32,
    /// The first.
    first: Option<u32>,
}

impl Fleet {
    /// The hour of the past that is known, by its first second.
    pub(crate) fn hour(&self) -> Option<u32> {
        self.hour
    }

    pub(crate) fn learn(&mut self, past: Past) {
        let before = self.hour.replace(past.hour);
        let learnt = std::mem::replace(&mut self.baselines, Baselines::learn(past));
        if before != self.hour {
            self.before = before.map(|_| learnt);
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
            for series in self.series.values_mut() {
                series.begin(begun);
            }
            self.set_usual(begun, 0.0);
        }
        self.first.get_or_insert(tick);
        self.now = tick;
        for (slice, counts) in counts {
            if let Some(series) = self.series.get_mut(slice) {
                series.enter(tick, counts);
                continue;
            }
            *self.kinds.entry(slice.kind()).or_default() += 1;
            self.series.entry(slice.clone()).or_default().enter(tick, counts);
        }
        let middle = f64::from(tick) * f64::from(TICK_S) + f64::from(TICK_S) / 2.0;
        let usual = self.baselines.fleet_approvals(middle).filter(|_| self.is_live(tick)).unwrap_or_default();
        self.set_usual(tick, usual * f64::from(TICK_S));
        if tick.is_multiple_of(SWEEP_TICKS) {
            self.forget();
        }
    }

    /// Slices of which nothing was seen for an hour are not there.
    fn forget(&mut self) {
        let hour = self.earliest(KEPT)..=self.now;
        self.series.retain(|slice, series| {
            let is_there = series.attempts(hour.clone()) > 0;
            if !is_there && let Some(number) = self.kinds.get_mut(&slice.kind()) {
                *number -= 1;
            }
            is_there
        });
    }

    fn set_usual(&mut self, tick: u32, usual: f64) {
        self.usual.resize(usize::try_from(KEPT).unwrap_or_default(), 0.0);
        if let Some(slot) = self.usual.get_mut(place(tick)) {
            *slot = usual;
        }
    }

    pub(crate) fn series(&self, slice: &Slice) -> Option<&Series> {
        self.series.get(slice)
    }

    /// The usual share of a slice's attempts that fail so, in some ticks: each hour by what is usual in it.
    pub(crate) fn rate(&self, slice: &Slice, class: Class, ticks: &RangeInclusive<u32>) -> f64 {
        let (now, begin) = (self.baselines.rate(slice, class), self.hour.unwrap_or_default() / TICK_S);
        let (Some(before), Some(series)) = (&self.before, self.series.get(slice)) else { return now };
        if *ticks.start() >= begin {
            return now;
        }
        let earlier = before.rate(slice, class);
        let of_earlier = real(series.attempts(*ticks.start()..=(begin - 1).min(*ticks.end())));
        let all = real(series.attempts(ticks.clone()));
        if all > 0.0 { now + (earlier - now) * of_earlier / all } else { now }
    }

    /// Takes out failures that are explained, from every slice that they are in.
    pub(crate) fn take_out(&mut self, leaf: &Leaf) {
        self.change(leaf, |count| count.saturating_sub(leaf.failures));
    }

    /// Puts back failures that are not explained any more.
    pub(crate) fn put_back(&mut self, leaf: &Leaf) {
        self.change(leaf, |count| count.saturating_add(leaf.failures));
    }

    fn change(&mut self, leaf: &Leaf, change: impl Fn(u32) -> u32) {
        for kind in self.kinds.keys() {
            let series = self.series.get_mut(&leaf.at.at(kind));
            if let Some(count) = series.and_then(|series| series.failures_at(leaf.tick(), leaf.class)) {
                *count = change(*count);
            }
        }
    }

    /// Slices with a class that fails more than it should, each in the window that shows it best. One in which nothing fails now is not of now.
    pub(crate) fn failing(&self) -> Vec<Suspicion> {
        let mut suspicions = Vec::new();
        for (slice, series) in self.series.iter().filter(|(slice, _)| self.baselines.is_known(slice)) {
            for class in series.classes() {
                suspicions.extend(self.failing_in(slice, series, class));
            }
        }
        suspicions
    }

    fn failing_in(&self, slice: &Slice, series: &Series, class: Class) -> Option<Suspicion> {
        let signal = Signal::Failures(class);
        let longest = RATE_WINDOWS.last().copied().unwrap_or_default();
        let is_of_now = series.failures(class, &(self.now..=self.now)) > 0;
        if !is_of_now || series.failures(class, &(self.earliest(longest)..=self.now)) < LEAST_FAILURES {
            return None;
        }
        let threshold = rate_threshold(class, &slice.kind());
        let mut attempts = 0;
        let mut counted = self.now + 1;
        let mut best: Option<Suspicion> = None;
        for length in RATE_WINDOWS {
            let begin = self.earliest(length);
            attempts += series.attempts(begin..=counted - 1);
            counted = begin;
            let failures = series.failures(class, &(begin..=self.now));
            if failures < LEAST_FAILURES {
                continue;
            }
            let evidence = more_failures(real(failures), real(attempts), self.rate(slice, class, &(begin..=self.now)));
            if evidence > best.as_ref().map_or(threshold, |best| best.evidence) {
                best = Some(Suspicion { slice: slice.clone(), signal, window: begin..=self.now, evidence });
            }
        }
        best
    }

    /// The slice that says best what fails, of what failed where.
    ///
    /// It is the one with the highest score, unless several slices inside it explain clearly more than it does: two banks that fail at once are two faults,
    /// though the fleet as a whole fails more plainly than either. Then it is the first of these.
    pub(crate) fn name(&self, failing: &[(&Slice, Failing)], view: &View<'_>) -> Option<Named> {
        let mut named = self.best(failing, view, |_| true)?;
        loop {
            let (mut rest, mut explained, mut first) = (failing.to_vec(), 0.0, None);
            for _ in 0..MOST_PARTS {
                let inside = |slice: &Slice| named.slice.holds(slice) && *slice != named.slice;
                let Some(part) = self.best(&rest, view, inside).filter(|part| part.score > 0.0) else { break };
                rest.retain(|(at, _)| !part.slice.holds(at));
                explained += part.score;
                first.get_or_insert(part);
            }
            match first {
                Some(first) if explained > named.score + PARTS_MARGIN => named = first,
                _ => return Some(named),
            }
        }
    }

    /// The slice with the highest score among some.
    fn best(&self, failing: &[(&Slice, Failing)], view: &View<'_>, is_one: impl Fn(&Slice) -> bool) -> Option<Named> {
        let mut sums: HashMap<Slice, Failing> = HashMap::new();
        for (at, some) in failing {
            for slice in self.kinds.keys().map(|kind| at.at(kind)).filter(&is_one) {
                *sums.entry(slice).or_default() += *some;
            }
        }
        let scored = sums.into_iter().map(|(slice, failing)| {
            let score = self.score(&slice, failing, view);
            Named { slice, failing, score }
        });
        // Of equal ones the slice that comes first, so that the answer is always the same.
        scored.max_by(|a, b| a.score.total_cmp(&b.score).then_with(|| b.slice.cmp(&a.slice)))
    }

    /// How well a slice says what fails, in nats: the evidence, less what a slice so narrow, one among so many, costs. Not above 0 where it does not.
    pub(crate) fn score(&self, slice: &Slice, failing: Failing, View { class, ticks, .. }: &View<'_>) -> f64 {
        let is_known = self.baselines.is_known(slice);
        let Some(series) = self.series.get(slice).filter(|_| is_known && failing.witnessed >= real(LEAST_FAILURES)) else { return 0.0 };
        let attempts = real(series.attempts(ticks.clone()));
        plain_failures(failing.witnessed, attempts, (RATE_MARGIN * self.rate(slice, *class, ticks)).min(0.9)) - self.price(slice)
    }

    /// Whether what was witnessed is enough, where one terminal's repeats are not.
    pub(crate) fn is_enough(&self, slice: &Slice, failing: Failing, View { class, ticks, .. }: &View<'_>) -> bool {
        let attempts = self.series.get(slice).map_or(0, |series| series.attempts(ticks.clone()));
        let evidence = more_failures(failing.witnessed, real(attempts), self.rate(slice, *class, ticks));
        failing.witnessed >= real(LEAST_FAILURES) && evidence > rate_threshold(*class, &slice.kind())
    }

    /// The slice whose approvals are missing most plainly, and its score. What `lost` of each slice's approvals is explained is not missing.
    /// Slices that `is_dismissed` are left out.
    pub(crate) fn missing(
        &self,
        lost: impl Fn(&Slice, &RangeInclusive<u32>) -> f64,
        is_dismissed: impl Fn(&Slice) -> bool,
    ) -> Option<(Suspicion, f64)> {
        if !self.is_live(self.now) {
            return None;
        }
        let longest = VOLUME_WINDOWS.last().copied().unwrap_or_default();
        let most: f64 = (self.earliest(longest)..=self.now).filter_map(|tick| self.usual.get(place(tick))).sum();
        let suspicions = self.series.iter().filter_map(|(slice, series)| {
            let kind = slice.kind();
            let share = self.baselines.share(slice)?;
            // Shops close, and so do all of a chain at once.
            let is_judged = share <= LARGEST_SHARE && !kind.is_fleet() && !kind.has(Dimension::MerchantGroup);
            if !is_judged || share * most < LEAST_EXPECTED || is_dismissed(slice) {
                return None;
            }
            let windows = VOLUME_WINDOWS.into_iter().filter(|length| self.earliest(*length) + length == self.now + 1);
            let of_window = windows.filter_map(|length| {
                let window = self.earliest(length)..=self.now;
                let approved = real(series.approved(window.clone()));
                let is_missing = |expected: &f64| *expected >= LEAST_EXPECTED && approved < MISSING * expected;
                let expected = Some(self.expected_approvals(slice, &window)?.approvals).filter(is_missing)?;
                let expected = Some(expected - lost(slice, &window)).filter(is_missing)?;
                let evidence = fewer_approvals(approved, MISSING * expected);
                let score = plain_approvals(approved, VOLUME_MARGIN * expected) - self.price(slice);
                let suspicion = Suspicion { slice: slice.clone(), signal: Signal::MissingApprovals, window, evidence };
                (evidence > VOLUME_THRESHOLD).then_some((suspicion, score))
            });
            of_window.max_by(|(a, _), (b, _)| a.evidence.total_cmp(&b.evidence))
        });
        suspicions.max_by(|(a, of_a), (b, of_b)| of_a.total_cmp(of_b).then_with(|| b.slice.cmp(&a.slice)))
    }

    /// Approvals of a slice that are expected in a window: what is usual, but no more than what it had before, and no more than the rest of the
    /// fleet has now. So neither the end of a flash sale nor a fleet that is quiet as a whole is a fault of a slice.
    pub(crate) fn expected_approvals(&self, slice: &Slice, window: &RangeInclusive<u32>) -> Option<Expected> {
        let begin = *window.start();
        let before = self.earliest(self.now - begin + 1 + LEVEL_TICKS)..=begin.checked_sub(1)?;
        let known = before.clone().filter(|tick| self.usual.get(place(*tick)).is_some_and(|usual| *usual > 0.0)).count();
        if known < usize::try_from(LEAST_LEVEL_TICKS).unwrap_or(usize::MAX) {
            return None;
        }
        let level = self.level(slice, &before)?.min(1.0);
        let usual = self.usual_approvals(slice, window)?;
        let busy = (self.level_of_rest(slice, window)? / self.level_of_rest(slice, &before)?).min(1.0);
        Some(Expected { approvals: usual * level * busy, level })
    }

    /// Approvals that are expected of a slice in the last tick, where its level is known.
    pub(crate) fn expected_now(&self, slice: &Slice, level: f64) -> f64 {
        let window = self.earliest(BUSY_TICKS)..=self.now;
        let Some(before) = window.start().checked_sub(1).map(|end| self.earliest(BUSY_TICKS + LEVEL_TICKS)..=end) else { return 0.0 };
        let busy = || Some((self.level_of_rest(slice, &window)? / self.level_of_rest(slice, &before)?).min(1.0));
        self.usual_approvals(slice, &(self.now..=self.now)).unwrap_or_default() * level * busy().unwrap_or(1.0)
    }

    /// Approvals that were expected of a slice lately, at its level.
    pub(crate) fn expected_lately(&self, slice: &Slice, level: f64, ticks: &RangeInclusive<u32>) -> f64 {
        self.usual_approvals(slice, ticks).unwrap_or_default() * level
    }

    /// Attempts of a slice in all that is kept.
    pub(crate) fn attempts_of_hour(&self, slice: &Slice) -> u64 {
        self.series.get(slice).map_or(0, |series| series.attempts(self.earliest(KEPT)..=self.now))
    }

    /// The share of a slice's approvals that are another's, as far as values tell.
    pub(crate) fn shared(&self, slice: &Slice, other: &Slice) -> f64 {
        if other.holds(slice) || slice.holds(other) {
            return 1.0;
        }
        if slice.is_apart_from(other) {
            return 0.0;
        }
        // Twice what it would be if issuers were spread evenly, which they are not.
        (2.0 * self.baselines.share(slice).unwrap_or_default()).min(1.0)
    }

    /// Whether anything was attempted in a tick.
    pub(crate) fn is_live(&self, tick: u32) -> bool {
        self.series.get(&Slice::fleet()).is_some_and(|fleet| fleet.attempts_at(tick) > 0)
    }

    /// Approvals in ticks in which the fleet is live, relative to what is usual, pulled to 1.
    fn level(&self, slice: &Slice, ticks: &RangeInclusive<u32>) -> Option<f64> {
        let (approved, usual) = (self.approved(slice, ticks), self.usual_approvals(slice, ticks)?);
        Some((approved + LEVEL_PRIOR) / (usual + LEVEL_PRIOR))
    }

    /// The same of all but the slice.
    fn level_of_rest(&self, slice: &Slice, ticks: &RangeInclusive<u32>) -> Option<f64> {
        let fleet = Slice::fleet();
        let approved = self.approved(&fleet, ticks) - self.approved(slice, ticks);
        let usual = self.usual_approvals(&fleet, ticks)? - self.usual_approvals(slice, ticks)?;
        Some((approved + LEVEL_PRIOR) / (usual + LEVEL_PRIOR))
    }

    fn approved(&self, slice: &Slice, ticks: &RangeInclusive<u32>) -> f64 {
        self.series.get(slice).map_or(0.0, |series| real(series.approved(ticks.clone())))
    }

    /// Usual approvals in the ticks in which the fleet is live.
    fn usual_approvals(&self, slice: &Slice, ticks: &RangeInclusive<u32>) -> Option<f64> {
        let usual = ticks.clone().filter_map(|tick| self.usual.get(place(tick))).copied().filter(|usual| *usual > 0.0);
        let (live, sum) = usual.fold((0.0, 0.0), |(live, sum), usual| (live + f64::from(TICK_S), sum + usual));
        let of_share = self.baselines.share(slice)? * sum;
        Some(self.baselines.approvals_at_hour(slice).map_or(of_share, |own| of_share.min(own * live)))
    }

    /// What naming a slice costs: there are many of its kind, and narrower ones fit chance better.
    fn price(&self, slice: &Slice) -> f64 {
        let alike = self.kinds.get(&slice.kind()).copied().unwrap_or(1);
        0.5 * f64::from(alike.max(1)).ln() + 2.5 * f64::from(slice.attributes()) + 2.0
    }
}

/// Approvals that are expected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Expected {
    pub(crate) approvals: f64,
    /// How the slice was before, relative to what is usual.
    pub(crate) level: f64,
}

fn rate_threshold(class: Class, kind: &Kind) -> f64 {
    RATE_THRESHOLD + if class.is_plausible_in(kind) { 0.0 } else { IMPLAUSIBLE }
}
