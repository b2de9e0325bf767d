//! Drives a detector over a directory, tick by tick, as the alerter drives it over the tables.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use faultline_detect::{Counts, Detector, Leaf, Question, Settings, Tick};

use crate::directory::{Directory, Row};
use crate::field::ReadError;
use crate::found::{Finding, Found};
use crate::yardstick::TAGS;

const TICK_S: u32 = 10;
const HOUR_S: u32 = 3600;
/// Ticks of failures that are kept for questions: an hour.
const KEPT: usize = 360;
/// One leaf counts as this many witnesses at once, where it fails that often.
const WITNESSES: f64 = 1.5;
/// And as this part of what it usually attempts: the rest may be few who try again and again.
const WITNESSING: f64 = 0.5;
/// And as so many times the failures that it would have if it failed as others do.
const UNLIKE: f64 = 2.0;
/// What it usually attempts in so many ticks may be witnessed at once.
const WHILE: f64 = 9.0;
/// Over which time it is known what a leaf usually attempts, in ticks: two hours.
const USUALLY: f64 = 720.0;

/// How far it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// First second of the tick that was judged last.
    pub bucket: u32,
    /// Ticks that were judged.
    pub ticks: u64,
    /// Events so far.
    pub events: u64,
    /// Bytes of the counts that were read, of [`Directory::size`].
    pub bytes: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Ran {
    /// The incidents, in order of their opening.
    pub found: Vec<Found>,
    /// Ticks that were judged.
    pub ticks: u64,
    /// Events that were counted.
    pub events: u64,
    /// Events that arrived after their tick, and are in no statistic.
    pub late: u64,
    /// Slices that were counted.
    pub slices: usize,
    /// How long the detector took, for all ticks.
    pub judging: Duration,
    /// The same for the tick that took longest.
    pub longest: Duration,
}

/// Runs a detector with these settings over a directory. `clock` says how long something took, by whatever is to be measured; `tell` is told how far it is.
///
/// # Errors
/// When its counts cannot be read, or are not what they are to be.
pub fn run(directory: &Directory, settings: Settings, clock: fn() -> Duration, mut tell: impl FnMut(Progress)) -> Result<Ran, ReadError> {
    let mut rows = directory.counts()?;
    let mut run = Run::new(directory, settings, clock);
    while let Some(row) = rows.next()? {
        let bytes = rows.read();
        run.until(row.arrival, &mut |progress| tell(Progress { bytes, ..progress }));
        run.count(row);
    }
    let bytes = rows.read();
    run.judge(&mut |progress| tell(Progress { bytes, ..progress }));
    let slices = directory.leaves.slices().len();
    Ok(Ran { found: run.finding.into_found(), slices, ..run.ran })
}

/// A run that is under way.
struct Run<'a> {
    directory: &'a Directory,
    clock: fn() -> Duration,
    detector: Detector,
    finding: Finding,
    ran: Ran,
    /// The tick that is counted now, by its first second; nothing before the first row.
    bucket: Option<u32>,
    /// By number of a slice, what was counted of it in the tick.
    counts: Vec<[u32; TAGS.len()]>,
    /// Slices that were counted in the tick.
    counted: Vec<u32>,
    failures: Failures,
}

/// A leaf, a tag, and how often.
type Failed = (u32, usize, u32);

/// What failed in the last hour, and what leaves usually attempt.
#[derive(Default)]
struct Failures {
    /// By tick, with its first second.
    ticks: VecDeque<(u32, Vec<Failed>)>,
    /// By leaf, approvals with those of long ago counted less, and the tick of the last.
    usual: Vec<(f32, u32)>,
    /// The same by slice.
    usual_of_slices: Vec<(f32, u32)>,
    /// Ticks since the first.
    age: f64,
}

impl<'a> Run<'a> {
    fn new(directory: &'a Directory, settings: Settings, clock: fn() -> Duration) -> Run<'a> {
        let mut detector = Detector::new(settings);
        detector.announce(directory.announced().to_vec());
        Run {
            directory,
            clock,
            detector,
            finding: Finding::default(),
            ran: Ran::default(),
            bucket: None,
            counts: vec![[0; TAGS.len()]; directory.leaves.slices().len()],
            counted: Vec::new(),
            failures: Failures {
                usual: vec![(0.0, 0); directory.leaves.len()],
                usual_of_slices: vec![(0.0, 0); directory.leaves.slices().len()],
                ..Failures::default()
            },
        }
    }

    /// Judges every tick that is over when a row arrives.
    fn until(&mut self, arrival: u32, tell: &mut impl FnMut(Progress)) {
        let arrival = arrival - arrival % TICK_S;
        let mut bucket = *self.bucket.get_or_insert(arrival);
        while bucket < arrival {
            self.judge(tell);
            bucket += TICK_S;
            self.bucket = Some(bucket);
        }
    }

    /// Counts a row. What arrived after its tick is not looked at.
    fn count(&mut self, row: Row) {
        if row.arrival != row.bucket {
            self.ran.late += u64::from(row.number);
            return;
        }
        self.ran.events += u64::from(row.number);
        for slice in self.directory.leaves.within(row.leaf) {
            let Some(counts) = self.counts.get_mut(usize::try_from(*slice).unwrap_or(usize::MAX)) else { continue };
            if counts.iter().all(|count| *count == 0) {
                self.counted.push(*slice);
            }
            if let Some(count) = counts.get_mut(row.tag) {
                *count = count.saturating_add(row.number);
            }
        }
        self.failures.count(row, self.directory.leaves.within(row.leaf));
    }

    /// Judges the tick that was counted.
    fn judge(&mut self, tell: &mut impl FnMut(Progress)) {
        let Some(bucket) = self.bucket else { return };
        let tick = self.tick(bucket);
        let hour = bucket - bucket % HOUR_S;
        if self.detector.hour() != Some(hour) {
            self.detector.learn(self.directory.past(hour));
        }
        self.failures.end(bucket);
        let begin = (self.clock)();
        self.detector.observe(&tick);
        let mut asked = Duration::ZERO;
        while let Some(question) = self.detector.question().cloned() {
            let ask = (self.clock)();
            let leaves = self.failures.answer(&question, self.directory);
            asked += (self.clock)().saturating_sub(ask);
            self.detector.answer(&leaves);
        }
        let took = (self.clock)().saturating_sub(begin).saturating_sub(asked);
        self.ran.judging += took;
        self.ran.longest = self.ran.longest.max(took);
        self.ran.ticks += 1;
        self.finding.take_in(self.detector.changes());
        tell(Progress { bucket, ticks: self.ran.ticks, events: self.ran.events, bytes: 0 });
    }

    /// What was counted in the tick; nothing is left of it.
    fn tick(&mut self, bucket: u32) -> Tick {
        self.counted.sort_unstable();
        let counts = std::mem::take(&mut self.counted).into_iter().filter_map(|number| {
            let place = usize::try_from(number).ok()?;
            let counted = std::mem::take(self.counts.get_mut(place)?);
            let mut counts = Counts::default();
            for ((_, class), count) in TAGS.iter().zip(counted).filter(|(_, count)| *count > 0) {
                counts.add(*class, u64::from(count));
            }
            Some((self.directory.leaves.slices().get(place)?.clone(), counts))
        });
        Tick { bucket, counts: counts.collect() }
    }
}

impl Failures {
    fn count(&mut self, row: Row, within: &[u32]) {
        if row.tag > 0 {
            if self.ticks.back().is_none_or(|(bucket, _)| *bucket != row.bucket) {
                self.ticks.push_back((row.bucket, Vec::new()));
            }
            if let Some((_, rows)) = self.ticks.back_mut() {
                rows.push((row.leaf, row.tag, row.number));
            }
            return;
        }
        let tick = row.bucket / TICK_S;
        for slice in within {
            add(&mut self.usual_of_slices, *slice, tick, row.number);
        }
        add(&mut self.usual, row.leaf, tick, row.number);
    }

    /// A tick is over.
    fn end(&mut self, bucket: u32) {
        self.age += 1.0;
        while self.ticks.len() > KEPT || self.ticks.front().is_some_and(|(first, _)| first + HOUR_S < bucket) {
            self.ticks.pop_front();
        }
    }

    /// What is usually attempted in a tick, by what is kept of a leaf or a slice.
    fn usually(&self, kept: &[(f32, u32)], number: u32, tick: u32) -> f64 {
        let (approved, last) = usize::try_from(number).ok().and_then(|place| kept.get(place)).copied().unwrap_or_default();
        let known = USUALLY * (1.0 - (-self.age / USUALLY).exp());
        f64::from(decayed(approved, last, tick)) / known.max(1.0)
    }

    /// How often a leaf would fail if it failed as others do that are in one of its slices, in the ticks of a question.
    fn like_others(&self, sums: &Sums, (leaf, tag): (u32, usize), within: &[u32]) -> f64 {
        let tick = self.ticks.back().map_or(0, |(bucket, _)| bucket / TICK_S);
        let usually = self.usually(&self.usual, leaf, tick);
        let own = sums.leaves.get(&(leaf, tag)).copied().unwrap_or_default();
        let of_slices = within.iter().map(|slice| {
            let others = sums.slices.get(&(*slice, tag)).copied().unwrap_or_default() - own;
            others / (self.usually(&self.usual_of_slices, *slice, tick) - usually).max(1e-6)
        });
        usually * of_slices.fold(0.0, f64::max)
    }

    /// What failed in the ticks and classes of a question. There are no shops in a directory: a leaf that fails more often than it attempts is a few that
    /// try again and again.
    fn answer(&self, question: &Question, directory: &Directory) -> Vec<Leaf> {
        let is_asked = |tag: usize| TAGS.get(tag).is_some_and(|(_, class)| question.classes.contains(class));
        let of_question = || {
            let ticks = self.ticks.iter().filter(|(bucket, _)| question.buckets.contains(bucket));
            ticks.flat_map(|(bucket, rows)| rows.iter().map(move |row| (*bucket, *row))).filter(|(_, (_, tag, _))| is_asked(*tag))
        };
        let last = question.buckets.end() / TICK_S;
        let sums = Sums::of(of_question().map(|(_, failed)| failed), directory);
        let mut witnesses: HashMap<(u32, usize), Witnesses> = HashMap::new();
        let leaves = of_question().filter_map(|(bucket, (leaf, tag, number))| {
            let witnesses = witnesses.entry((leaf, tag)).or_insert_with(|| {
                let like_others = self.like_others(&sums, (leaf, tag), directory.leaves.within(leaf));
                let most = (UNLIKE * like_others).max(WITNESSES);
                Witnesses::new(self.usually(&self.usual, leaf, last), most, bucket)
            });
            let witnessed = witnesses.count(bucket, f64::from(number));
            let (_, class) = *TAGS.get(tag)?;
            Some(Leaf { at: directory.leaves.at(leaf)?.clone(), bucket, class, failures: number, witnessed })
        });
        leaves.collect()
    }
}

/// How often leaves and slices failed, by tag.
#[derive(Default)]
struct Sums {
    leaves: HashMap<(u32, usize), f64>,
    slices: HashMap<(u32, usize), f64>,
}

impl Sums {
    fn of(failed: impl Iterator<Item = Failed>, directory: &Directory) -> Sums {
        let mut sums = Sums::default();
        for (leaf, tag, number) in failed {
            *sums.leaves.entry((leaf, tag)).or_default() += f64::from(number);
            for slice in directory.leaves.within(leaf) {
                *sums.slices.entry((*slice, tag)).or_default() += f64::from(number);
            }
        }
        sums
    }
}

/// How many more failures of a leaf count as evidence: so many at once, and then half as many as it usually attempts; and not many more than there would be
/// if it failed as others do that have something in common with it.
struct Witnesses {
    left: f64,
    most: f64,
    /// In a tick.
    more: f64,
    /// In all ticks.
    all: f64,
    bucket: u32,
}

impl Witnesses {
    fn new(usually: f64, all: f64, bucket: u32) -> Witnesses {
        let more = WITNESSING * usually;
        let most = (more * WHILE).max(WITNESSES);
        Witnesses { left: most, most, more, all, bucket }
    }

    fn count(&mut self, bucket: u32, failures: f64) -> f64 {
        let ticks = f64::from(bucket.saturating_sub(self.bucket) / TICK_S);
        self.bucket = bucket;
        self.left = (self.left + ticks * self.more).min(self.most);
        let witnessed = failures.min(self.left).min(self.all);
        self.left -= witnessed;
        self.all -= witnessed;
        witnessed
    }
}

/// Adds a count to a sum in which what is long ago counts less.
fn add(kept: &mut [(f32, u32)], number: u32, tick: u32, count: u32) {
    if let Some((sum, last)) = kept.get_mut(usize::try_from(number).unwrap_or(usize::MAX)) {
        *sum = decayed(*sum, *last, tick) + small(count);
        *last = tick;
    }
}

/// What is left of a sum after a time.
fn decayed(sum: f32, last: u32, tick: u32) -> f32 {
    let passed = f64::from(tick.saturating_sub(last));
    sum * small_real((-passed / USUALLY).exp())
}

#[expect(clippy::cast_precision_loss, reason = "events of one leaf in ten seconds")]
fn small(number: u32) -> f32 {
    number as f32
}

#[expect(clippy::cast_possible_truncation, reason = "a factor between 0 and 1")]
fn small_real(factor: f64) -> f32 {
    factor as f32
}
