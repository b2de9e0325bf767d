//! A fleet of twelve issuers, drawn attempt by attempt, and what the detector makes of it.

use std::collections::{BTreeMap, HashMap};

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use super::*;
use crate::Cause;
use crate::baseline::{Observed, PastCounts};
use crate::slice::Dimension;

mod large;
mod properties;

/// A Monday, 12:00 UTC.
const HOUR: u32 = 1_793_620_800;
/// Attempts in a tick: 1,200 a minute.
const ATTEMPTS: u32 = 200;

const DIMENSIONS: [(Dimension, &[(&str, f64)]); 8] = [
    (
        Dimension::Issuer,
        &[
            ("a", 0.2),
            ("b", 0.15),
            ("c", 0.12),
            ("d", 0.1),
            ("e", 0.1),
            ("f", 0.08),
            ("g", 0.07),
            ("h", 0.06),
            ("i", 0.05),
            ("j", 0.04),
            ("k", 0.02),
            ("l", 0.01),
        ],
    ),
    (Dimension::EntryMode, &[("chip", 0.3), ("contactless", 0.5), ("qr", 0.2)]),
    (Dimension::Carrier, &[("cm", 0.5), ("cu", 0.3), ("ct", 0.2)]),
    (Dimension::Region, &[("11", 0.3), ("31", 0.25), ("44", 0.2), ("51", 0.15), ("61", 0.1)]),
    (Dimension::Acquirer, &[("acquirer", 1.0)]),
    (Dimension::Host, &[("h1", 0.6), ("h2", 0.4)]),
    (Dimension::Model, &[("m1", 0.5), ("m2", 0.3), ("m3", 0.2)]),
    (Dimension::Firmware, &[("f1", 0.7), ("f2", 0.3)]),
];

const FAMILIES: [&[Dimension]; 8] = [
    &[],
    &[Dimension::Issuer],
    &[Dimension::EntryMode, Dimension::Issuer],
    &[Dimension::Carrier],
    &[Dimension::Region],
    &[Dimension::Carrier, Dimension::Region],
    &[Dimension::Acquirer, Dimension::Host],
    &[Dimension::Firmware, Dimension::Model],
];

const RATES: [(Class, f64); 8] = [
    (Class::Funds, 0.02),
    (Class::Cardholder, 0.01),
    (Class::IssuerRefusal, 0.008),
    (Class::IssuerDown, 0.001),
    (Class::IssuerTimeout, 0.001),
    (Class::HostUnreachable, 0.002),
    (Class::LocalNetwork, 0.002),
    (Class::DeviceRead, 0.01),
];

/// What makes attempts of some slice end differently.
#[derive(Clone)]
struct Fault {
    slice: Slice,
    class: Class,
    share: f64,
    ticks: std::ops::Range<u32>,
}

/// A fleet, its detector, and what has happened so far.
struct World {
    rng: Pcg64,
    detector: Detector,
    /// Ticks since `HOUR`.
    tick: u32,
    faults: Vec<Fault>,
    /// How many times the usual attempts there are, from a tick on.
    busy: BTreeMap<u32, f64>,
    /// The one terminal that fails so often in every tick.
    hammering: u32,
    /// What nobody has any more.
    without: Option<Slice>,
    /// By tick, attempts that end in a timeout.
    waiting: BTreeMap<u32, Vec<Slice>>,
    ticks: Vec<Tick>,
    leaves: Vec<Leaf>,
    changes: Vec<(u32, What, String)>,
}

fn slice(values: &[(Dimension, &str)]) -> Slice {
    Slice::new(values.iter().copied())
}

fn issuer(name: &str) -> Slice {
    slice(&[(Dimension::Issuer, name)])
}

impl World {
    fn new(seed: u64) -> World {
        let mut world = World {
            rng: Pcg64::seed_from_u64(seed),
            detector: Detector::default(),
            tick: 0,
            faults: Vec::new(),
            busy: BTreeMap::new(),
            hammering: 0,
            without: None,
            waiting: BTreeMap::new(),
            ticks: Vec::new(),
            leaves: Vec::new(),
            changes: Vec::new(),
        };
        let past = world.past();
        world.detector.learn(past);
        world
    }

    /// Two hours of drawn attempts stand for four weeks.
    fn past(&mut self) -> Past {
        let mut slices: HashMap<Slice, PastCounts> = HashMap::new();
        let attempts = 720 * ATTEMPTS;
        let mut approved = 0;
        for _ in 0..attempts {
            let (at, class) = (self.draw_place(), self.draw_class());
            approved += u64::from(class == Class::Approved);
            for family in FAMILIES {
                let counts = slices.entry(at.at(&kind(family))).or_default();
                counts.at_hour.add(class, 1);
                counts.around.add(class, 1);
            }
        }
        for counts in slices.values_mut() {
            (counts.same_day, counts.all_days) = ([counts.at_hour.approved; 3], [counts.around.approved; 3]);
        }
        let observed = Observed { approved, seconds: 7200 };
        Past { hour: HOUR, same_day: [observed; 3], all_days: [observed; 3], slices }
    }

    fn draw_place(&mut self) -> Slice {
        let values = DIMENSIONS.map(|(dimension, values)| {
            let mut left: f64 = self.rng.random();
            let drawn = values.iter().find(|(_, share)| {
                left -= share;
                left < 0.0
            });
            (dimension, drawn.unwrap_or(&values[0]).0)
        });
        Slice::new(values)
    }

    fn draw_class(&mut self) -> Class {
        let mut left: f64 = self.rng.random();
        let drawn = RATES.iter().find(|(_, rate)| {
            left -= rate;
            left < 0.0
        });
        drawn.map_or(Class::Approved, |(class, _)| *class)
    }

    fn fault(&mut self, slice: Slice, (class, share): (Class, f64), ticks: std::ops::Range<u32>) {
        self.faults.push(Fault { slice, class, share, ticks });
    }

    /// Draws the next tick: what is counted, and the leaves.
    fn draw(&mut self) -> Tick {
        let tick = self.tick;
        self.tick += 1;
        let bucket = HOUR + tick * TICK_S;
        let busy = self.busy.range(..=tick).next_back().map_or(1.0, |(_, busy)| *busy);
        // Nearly Poisson.
        let attempts = (0..4 * ATTEMPTS).filter(|_| self.rng.random_bool((busy / 4.0).min(1.0))).count();
        let mut slices: BTreeMap<Slice, Counts> = BTreeMap::new();
        let mut failing: BTreeMap<(Slice, Class), (u32, f64)> = BTreeMap::new();
        let mut count = |at: &Slice, class: Class, witnessed: f64| {
            for family in FAMILIES {
                slices.entry(at.at(&kind(family))).or_default().add(class, 1);
            }
            let sum = failing.entry((at.clone(), class)).or_default();
            *sum = (sum.0 + 1, sum.1 + witnessed);
        };
        for _ in 0..attempts {
            let (at, mut class) = (self.draw_place(), self.draw_class());
            if self.without.as_ref().is_some_and(|gone| gone.holds(&at)) {
                continue;
            }
            for fault in self.faults.iter().filter(|fault| fault.ticks.contains(&tick) && fault.slice.holds(&at)) {
                if self.rng.random_bool(fault.share) {
                    class = fault.class;
                }
            }
            if class == Class::IssuerTimeout {
                // Seen when the terminal gives up, a minute later.
                self.waiting.entry(tick + 6).or_default().push(at);
            } else {
                count(&at, class, 1.0);
            }
        }
        for at in self.waiting.remove(&tick).unwrap_or_default() {
            count(&at, Class::IssuerTimeout, 1.0);
        }
        if self.hammering > 0 {
            let at = Slice::new(DIMENSIONS.map(|(dimension, values)| (dimension, values[0].0)));
            for _ in 0..self.hammering {
                count(&at, Class::DeviceFault, 1.0);
            }
        }
        let failing = failing.into_iter().filter(|((_, class), _)| class.is_watched());
        self.leaves.extend(failing.map(|((at, class), (failures, witnessed))| Leaf { at, bucket, class, failures, witnessed }));
        Tick { bucket, counts: slices.into_iter().collect() }
    }

    /// Lets ticks pass.
    fn run(&mut self, ticks: u32) {
        for _ in 0..ticks {
            let tick = self.draw();
            self.detector.observe(&tick);
            self.ticks.push(tick);
            self.settle();
        }
    }

    /// Answers whatever is asked.
    fn settle(&mut self) {
        while let Some(question) = self.detector.question().cloned() {
            let leaves =
                self.leaves.iter().filter(|leaf| question.buckets.contains(&leaf.bucket) && question.classes.contains(&leaf.class));
            let mut leaves: Vec<Leaf> = leaves.cloned().collect();
            // All of these are of one terminal.
            let hammering = || leaves.iter().filter(|leaf| leaf.class == Class::DeviceFault);
            let share = 3.0 / f64::from(hammering().map(|leaf| leaf.failures).sum::<u32>().max(3));
            for leaf in leaves.iter_mut().filter(|leaf| leaf.class == Class::DeviceFault) {
                leaf.witnessed *= share;
            }
            self.detector.answer(&leaves);
        }
        let at = self.tick;
        self.changes.extend(self.detector.changes().into_iter().map(|change| (at, change.what, change.incident.slice.to_string())));
    }

    /// What happened, without when.
    fn happened(&self) -> Vec<(What, &str)> {
        self.changes.iter().map(|(_, what, slice)| (*what, slice.as_str())).collect()
    }
}

fn kind(family: &[Dimension]) -> crate::slice::Kind {
    Slice::new(family.iter().map(|dimension| (*dimension, ""))).kind()
}

#[test]
fn a_quiet_fleet_is_quiet() {
    let mut world = World::new(1);
    world.run(1000);
    assert_eq!(world.happened(), []);
}

#[test]
fn a_dead_bank_is_named_within_two_ticks_and_closed_when_it_is_back() {
    for seed in 10..15 {
        let mut world = World::new(seed);
        world.fault(issuer("a"), (Class::IssuerDown, 0.97), 20..40);
        world.run(120);
        assert_eq!(world.happened(), [(What::Opened, "issuer=a"), (What::Closed, "issuer=a")], "{seed}");
        let (opened, closed) = (world.changes[0].0, world.changes[1].0);
        assert!(opened <= 22 && (43..=45).contains(&closed), "{seed}: {opened} {closed}");
        let incident = &world.detector.closed[0];
        assert_eq!((incident.cause(), incident.began, incident.opened), (Cause::Bank, HOUR + 200, HOUR + opened * TICK_S));
        let watch = &incident.watches[0];
        assert!((700..900).contains(&watch.attempts) && watch.counted * 100 > watch.attempts * 90 && watch.expected < 2.0, "{watch:?}");
    }
}

#[test]
fn a_fifth_of_a_small_bank_takes_longer() {
    let mut world = World::new(20);
    world.fault(issuer("g"), (Class::IssuerDown, 0.2), 20..120);
    world.run(200);
    assert_eq!(world.happened(), [(What::Opened, "issuer=g"), (What::Closed, "issuer=g")]);
    assert!((22..=40).contains(&world.changes[0].0), "{:?}", world.changes);
}

#[test]
fn a_silent_bank_is_missed_before_its_timeouts_come() {
    let mut world = World::new(30);
    world.fault(issuer("b"), (Class::IssuerTimeout, 1.0), 30..60);
    world.run(34);
    assert_eq!(world.happened(), [(What::Opened, "issuer=b")], "missed");
    let watch = &world.detector.open()[0].watches[0];
    assert_eq!((watch.signal, world.detector.open()[0].cause()), (Signal::MissingApprovals, Cause::Bank));
    world.run(116);
    assert_eq!(world.happened(), [(What::Opened, "issuer=b"), (What::Changed, "issuer=b"), (What::Closed, "issuer=b")]);
    // Timeouts go on for a minute after it is back.
    assert!((36..=40).contains(&world.changes[1].0) && (66..=72).contains(&world.changes[2].0), "{:?}", world.changes);
}

#[test]
fn whatever_fails_is_named_exactly() {
    let cases = [
        (slice(&[(Dimension::Carrier, "ct")]), Class::HostUnreachable, Cause::Network),
        (slice(&[(Dimension::Carrier, "cm"), (Dimension::Region, "44")]), Class::HostUnreachable, Cause::Network),
        (slice(&[(Dimension::Acquirer, "acquirer"), (Dimension::Host, "h2")]), Class::HostUnreachable, Cause::Other),
        (slice(&[(Dimension::Model, "m2"), (Dimension::Firmware, "f1")]), Class::DeviceRead, Cause::Device),
        (slice(&[(Dimension::Issuer, "c"), (Dimension::EntryMode, "contactless")]), Class::IssuerDown, Cause::Bank),
        (slice(&[(Dimension::Region, "61")]), Class::LocalNetwork, Cause::Network),
        (Slice::fleet(), Class::IssuerDown, Cause::Other),
    ];
    for (seed, (slice, class, cause)) in (40..).zip(cases) {
        let mut world = World::new(seed);
        world.fault(slice.clone(), (class, 0.6), 20..50);
        world.run(110);
        let name = slice.to_string();
        assert_eq!(world.happened(), [(What::Opened, name.as_str()), (What::Closed, name.as_str())], "{name}");
        assert_eq!(world.detector.closed[0].cause(), cause, "{name}");
        assert!(world.changes[0].0 <= 24, "{:?}", world.changes);
    }
}

#[test]
fn two_banks_at_once_are_two_incidents() {
    let mut world = World::new(50);
    world.fault(issuer("a"), (Class::IssuerDown, 0.9), 20..50);
    world.fault(issuer("d"), (Class::IssuerDown, 0.9), 20..60);
    world.run(100);
    let mut happened = world.happened();
    happened[..2].sort_by_key(|(_, slice)| *slice);
    let expected = [(What::Opened, "issuer=a"), (What::Opened, "issuer=d"), (What::Closed, "issuer=a"), (What::Closed, "issuer=d")];
    assert_eq!(happened, expected);
}

#[test]
fn a_fault_that_spreads_is_renamed() {
    let mut world = World::new(55);
    world.fault(slice(&[(Dimension::Issuer, "a"), (Dimension::EntryMode, "chip")]), (Class::IssuerDown, 0.9), 20..80);
    world.fault(issuer("a"), (Class::IssuerDown, 0.9), 30..80);
    world.run(120);
    let chip = "entry_mode=chip&issuer=a";
    assert_eq!(world.happened(), [(What::Opened, chip), (What::Changed, "issuer=a"), (What::Closed, "issuer=a")]);
}

#[test]
fn flash_sales_paydays_and_hammering_terminals_are_no_faults() {
    let mut world = World::new(60);
    world.busy.extend([(30, 4.0), (90, 1.0)]);
    world.run(150);
    assert_eq!(world.happened(), [], "a flash sale");

    let mut world = World::new(61);
    world.fault(Slice::fleet(), (Class::Funds, 0.1), 20..200);
    world.run(200);
    assert_eq!(world.happened(), [], "a day before payday");

    let mut world = World::new(62);
    world.run(20);
    world.hammering = 4;
    world.run(200);
    assert_eq!(world.happened(), [], "a terminal");
}

#[test]
fn without_traffic_nothing_is_over() {
    let mut world = World::new(70);
    world.fault(issuer("a"), (Class::IssuerDown, 0.95), 20..200);
    world.busy.insert(40, 0.0);
    world.run(60);
    assert_eq!(world.happened(), [(What::Opened, "issuer=a"), (What::Unobserved, "issuer=a")]);
    assert_eq!(world.detector.open()[0].state, State::Unobserved);
    world.busy.insert(60, 1.0);
    world.run(60);
    assert_eq!(world.happened()[2..], [(What::Observed, "issuer=a")]);
    world.faults.clear();
    world.run(20);
    assert_eq!(world.happened()[3..], [(What::Closed, "issuer=a")]);
}

#[test]
fn a_fault_that_comes_back_is_the_same() {
    let mut world = World::new(80);
    world.fault(issuer("a"), (Class::IssuerDown, 0.95), 20..40);
    world.fault(issuer("a"), (Class::IssuerDown, 0.95), 60..80);
    world.run(100);
    let expected = [What::Opened, What::Closed, What::Reopened, What::Closed];
    assert_eq!(world.happened().iter().map(|(what, _)| *what).collect::<Vec<_>>(), expected);
    assert_eq!(world.detector.closed.len(), 1);
}

/// Another detector that is given the last hour and the incidents goes on as if it had been there.
#[test]
fn whoever_takes_over_goes_on() {
    for handed_over_at in [35, 60] {
        let mut world = World::new(90);
        world.fault(issuer("a"), (Class::IssuerDown, 0.95), 20..40);
        world.fault(issuer("d"), (Class::IssuerDown, 0.95), 30..50);
        world.run(handed_over_at);
        let past = world.past();
        let incidents = world.detector.open.iter().chain(&world.detector.closed).cloned().collect();
        world.detector = Detector::default();
        world.detector.learn(past);
        for tick in &world.ticks {
            world.detector.recall(tick);
        }
        world.detector.resume(incidents);
        world.settle();
        world.run(100);
        let happened = world.happened();
        let of = |wanted: What| happened.iter().filter(|(what, _)| *what == wanted).map(|(_, slice)| *slice).collect::<Vec<_>>();
        let both = vec!["issuer=a", "issuer=d"];
        assert_eq!((of(What::Opened), of(What::Closed)), (both.clone(), both), "{handed_over_at}: {:?}", world.changes);
        assert_eq!(happened.len(), 4, "{happened:?}");
    }
}

/// What is over when somebody begins to look is not opened.
#[test]
fn a_fault_of_before_is_not_one_of_now() {
    let mut world = World::new(95);
    world.fault(issuer("a"), (Class::IssuerDown, 0.95), 20..40);
    for _ in 0..60 {
        let tick = world.draw();
        world.detector.recall(&tick);
    }
    world.run(60);
    assert_eq!(world.happened(), []);
}

/// Where nothing is known, a guess must not call anybody at night.
#[test]
fn without_a_past_nothing_is_concluded() {
    let mut world = World::new(97);
    world.detector = Detector::default();
    world.fault(issuer("a"), (Class::IssuerDown, 0.95), 20..40);
    world.run(80);
    assert_eq!(world.happened(), []);
    let past = world.past();
    world.detector.learn(past);
    world.fault(issuer("a"), (Class::IssuerDown, 0.95), 100..120);
    world.run(100);
    assert_eq!(world.happened(), [(What::Opened, "issuer=a"), (What::Closed, "issuer=a")]);
}

#[test]
fn a_slice_that_is_new_is_not_judged_by_what_is_usual_elsewhere() {
    let mut world = World::new(98);
    let mut past = world.past();
    let firmware = slice(&[(Dimension::Model, "m3"), (Dimension::Firmware, "f2")]);
    past.slices.remove(&firmware);
    world.detector.learn(past);
    world.fault(firmware, (Class::DeviceFault, 0.03), 0..200);
    world.run(200);
    assert!(world.happened().iter().all(|(_, slice)| !slice.contains("m3")), "{:?}", world.changes);
}

#[test]
fn two_silent_banks_are_two_incidents() {
    let mut world = World::new(100);
    world.fault(issuer("a"), (Class::IssuerTimeout, 1.0), 30..60);
    world.fault(issuer("d"), (Class::IssuerTimeout, 1.0), 30..60);
    world.run(150);
    let happened = world.happened();
    let of = |wanted: What| {
        let mut of: Vec<&str> = happened.iter().filter(|(what, _)| *what == wanted).map(|(_, slice)| *slice).collect();
        of.sort_unstable();
        of
    };
    let both = ["issuer=a", "issuer=d"];
    assert_eq!(
        (of(What::Opened), of(What::Changed), of(What::Closed)),
        (both.to_vec(), both.to_vec(), both.to_vec()),
        "{:?}",
        world.changes
    );
}

/// A fault that is over closes, though another of the same kind that crosses it goes on.
#[test]
fn faults_that_cross_do_not_keep_each_other_open() {
    let mut world = World::new(110);
    world.fault(slice(&[(Dimension::Acquirer, "acquirer"), (Dimension::Host, "h2")]), (Class::HostUnreachable, 0.6), 20..100);
    world.fault(slice(&[(Dimension::Carrier, "ct")]), (Class::HostUnreachable, 0.8), 40..60);
    world.run(150);
    let host = "acquirer=acquirer&host=h2";
    let expected = [(What::Opened, host), (What::Opened, "carrier=ct"), (What::Closed, "carrier=ct"), (What::Closed, host)];
    assert_eq!(world.happened(), expected);
    assert!(world.changes[2].0 <= 68, "{:?}", world.changes);
}

/// What follows elsewhere is not what was closed before, though it is a part of it.
#[test]
fn a_fault_in_a_part_is_not_that_of_the_whole() {
    let mut world = World::new(120);
    world.fault(Slice::fleet(), (Class::HostUnreachable, 0.5), 20..30);
    world.fault(slice(&[(Dimension::Carrier, "ct")]), (Class::HostUnreachable, 0.6), 45..70);
    world.run(120);
    let expected = [(What::Opened, "fleet"), (What::Closed, "fleet"), (What::Opened, "carrier=ct"), (What::Closed, "carrier=ct")];
    assert_eq!(world.happened(), expected);
}

#[test]
fn after_a_long_outage_nothing_is_missing() {
    let mut world = World::new(130);
    world.fault(issuer("c"), (Class::IssuerDown, 0.8), 60..180);
    world.run(300);
    assert_eq!(world.happened(), [(What::Opened, "issuer=c"), (What::Closed, "issuer=c")]);
}

#[test]
fn a_fault_that_nothing_is_seen_of_for_a_day_is_given_up() {
    let mut world = World::new(140);
    let firmware = slice(&[(Dimension::Model, "m2"), (Dimension::Firmware, "f1")]);
    world.fault(firmware.clone(), (Class::DeviceRead, 0.6), 20..10_000);
    world.run(40);
    // It is replaced everywhere.
    world.without = Some(firmware);
    world.run(100);
    // A day later, at the same hour.
    world.tick += 8640;
    world.run(2);
    let name = "firmware=f1&model=m2";
    assert_eq!(world.happened(), [(What::Opened, name), (What::Unobserved, name), (What::Closed, name)]);
    assert!(world.detector.open.is_empty());
}

/// An hour in which a bank is maintained is usual; the one after it is not to blame for it.
#[test]
fn a_window_is_judged_by_the_hours_that_it_is_of() {
    let mut world = World::new(150);
    let mut past = world.past();
    for (slice, past) in &mut past.slices {
        let one_in = if slice.value(Dimension::Issuer).is_none() { 16 } else { 3 };
        for counts in [&mut past.at_hour, &mut past.around] {
            counts.add(Class::IssuerDown, counts.attempts / one_in);
        }
    }
    world.detector.learn(past);
    world.fault(issuer("a"), (Class::IssuerDown, 0.3), 300..360);
    world.run(360);
    let next = Past { hour: HOUR + 3600, ..world.past() };
    world.detector.learn(next);
    world.run(60);
    assert_eq!(world.happened(), []);
}
