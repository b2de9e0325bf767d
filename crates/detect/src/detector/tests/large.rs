//! A fleet so large that not all failures of an outage can be looked at.

use super::*;

/// Attempts of two issuers in a tick, of which one in a thousand usually fails.
const OF_ISSUERS: [(&str, u64); 2] = [("a", 200_000), ("b", 800_000)];
const FAILING: u64 = 10_000;

struct Large {
    detector: Detector,
    tick: u32,
    ticks: Vec<Tick>,
    leaves: Vec<Leaf>,
    /// The ticks that were asked for, and how much failed in them.
    asked: Vec<(RangeInclusive<u32>, u64)>,
    changes: Vec<(What, String)>,
}

/// So many of issuer `a` fail beside those that usually do.
fn counts(failing: u64) -> Vec<(Slice, Counts)> {
    let counts = OF_ISSUERS.map(|(name, attempts)| {
        let failed = attempts / 1000 + if name == "a" { failing } else { 0 };
        let mut counts = Counts::default();
        counts.add(Class::Approved, attempts - failed);
        counts.add(Class::IssuerDown, failed);
        (issuer(name), counts)
    });
    let mut fleet = Counts::default();
    for (_, of_issuer) in &counts {
        fleet.add(Class::Approved, of_issuer.approved);
        fleet.add(Class::IssuerDown, of_issuer.failures[&Class::IssuerDown]);
    }
    counts.into_iter().chain([(Slice::fleet(), fleet)]).collect()
}

fn past() -> Past {
    let hour = |counts: &Counts| {
        let mut hour = Counts::default();
        hour.add(Class::Approved, 360 * counts.approved);
        hour.add(Class::IssuerDown, 360 * counts.failures[&Class::IssuerDown]);
        hour
    };
    let slices = counts(0).into_iter().map(|(slice, counts)| {
        let (at_hour, approved) = (hour(&counts), 360 * counts.approved);
        (slice, PastCounts { around: at_hour.clone(), at_hour, same_day: [approved; 3], all_days: [approved; 3] })
    });
    let slices: HashMap<Slice, PastCounts> = slices.collect();
    let observed = Observed { approved: slices[&Slice::fleet()].at_hour.approved, seconds: 3600 };
    Past { hour: HOUR, same_day: [observed; 3], all_days: [observed; 3], slices }
}

impl Large {
    fn new() -> Large {
        let mut detector = Detector::default();
        detector.learn(past());
        Large { detector, tick: 0, ticks: Vec::new(), leaves: Vec::new(), asked: Vec::new(), changes: Vec::new() }
    }

    fn run(&mut self, ticks: u32, failing: u64) {
        for _ in 0..ticks {
            let tick = Tick { bucket: HOUR + self.tick * TICK_S, counts: counts(failing) };
            self.tick += 1;
            for (slice, counts) in tick.counts.iter().filter(|(slice, _)| *slice != Slice::fleet()) {
                let failures = u32::try_from(counts.failures[&Class::IssuerDown]).unwrap();
                let (at, witnessed) = (slice.clone(), f64::from(failures));
                self.leaves.push(Leaf { at, bucket: tick.bucket, class: Class::IssuerDown, failures, witnessed });
            }
            self.detector.observe(&tick);
            self.ticks.push(tick);
            self.settle();
        }
    }

    fn settle(&mut self) {
        while let Some(Question { buckets, .. }) = self.detector.question().cloned() {
            let leaves: Vec<Leaf> = self.leaves.iter().filter(|leaf| buckets.contains(&leaf.bucket)).cloned().collect();
            let failures = leaves.iter().map(|leaf| u64::from(leaf.failures)).sum();
            self.asked.push(((buckets.start() - HOUR) / TICK_S..=(buckets.end() - HOUR) / TICK_S, failures));
            self.detector.answer(&leaves);
        }
        self.changes.extend(self.detector.changes().into_iter().map(|change| (change.what, change.incident.slice.to_string())));
    }
}

#[test]
fn of_many_failures_the_last_are_looked_at_again() {
    let mut large = Large::new();
    large.run(40, 0);
    large.run(80, FAILING);
    let opened = vec![(What::Opened, "issuer=a".to_owned())];
    assert_eq!(large.changes, opened);
    let again: Vec<u32> = large.asked.iter().filter(|(ticks, _)| ticks.clone().count() == 2).map(|(ticks, _)| ticks.end() - 40).collect();
    assert_eq!(again, [2, 4, 8, 16, 32, 64], "{:?}", large.asked);
    assert!(large.asked.iter().all(|(_, failures)| *failures <= MOST_LOOKED_AT_AGAIN), "{:?}", large.asked);
    let watch = &large.detector.open()[0].watches[0];
    assert_eq!((watch.attempts, watch.counted), (80 * 200_000, 80 * (FAILING + 200)));
    large.run(20, 0);
    assert_eq!(large.changes, [opened, vec![(What::Closed, "issuer=a".to_owned())]].concat());
}

#[test]
fn who_takes_over_asks_for_many_failures_one_part_after_another() {
    let mut large = Large::new();
    large.run(40, 0);
    large.run(40, 2 * FAILING);
    let incidents = large.detector.open.clone();
    large.detector = Detector::default();
    large.detector.learn(past());
    large.ticks.iter().for_each(|tick| large.detector.recall(tick));
    large.asked.clear();
    large.detector.resume(incidents);
    large.settle();
    let parts: Vec<RangeInclusive<u32>> = large.asked.iter().map(|(ticks, _)| ticks.clone()).collect();
    assert!(parts.len() > 4 && large.asked.iter().all(|(_, failures)| *failures <= MOST_JUDGED), "{:?}", large.asked);
    assert_eq!(parts.into_iter().flatten().collect::<Vec<_>>(), (40..80).collect::<Vec<_>>());
    large.run(20, 2 * FAILING);
    assert_eq!(large.changes, [(What::Opened, "issuer=a".to_owned())]);
}
