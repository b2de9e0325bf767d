//! What must not matter to a detector.

use super::*;

const SEEDS: [u64; 3] = [501, 502, 503];

/// What a detector makes of ticks and leaves in which every value is called otherwise: when, what, and of which slice, by its new name.
fn happened(past: &Past, world: &World, called: fn(&str) -> String) -> Vec<(u32, What, Slice)> {
    let rename = |slice: &Slice| {
        let values: Vec<(Dimension, String)> = slice.values().map(|(dimension, value)| (dimension, called(value))).collect();
        Slice::new(values.iter().map(|(dimension, value)| (*dimension, value.as_str())))
    };
    let mut detector = Detector::default();
    let slices = past.slices.iter().map(|(slice, counts)| (rename(slice), counts.clone())).collect();
    detector.learn(Past { slices, ..past.clone() });
    let leaves: Vec<Leaf> = world.leaves.iter().map(|leaf| Leaf { at: rename(&leaf.at), ..leaf.clone() }).collect();
    let mut happened = Vec::new();
    for tick in &world.ticks {
        let counts = tick.counts.iter().map(|(slice, counts)| (rename(slice), counts.clone())).collect();
        detector.observe(&Tick { counts, ..tick.clone() });
        while let Some(question) = detector.question().cloned() {
            let asked = leaves.iter().filter(|leaf| question.buckets.contains(&leaf.bucket) && question.classes.contains(&leaf.class));
            detector.answer(&asked.cloned().collect::<Vec<_>>());
        }
        happened.extend(detector.changes().into_iter().map(|change| (tick.bucket, change.what, change.incident.slice)));
    }
    happened
}

/// A fleet in which a bank fails, and then a carrier in a region; and a past of it.
fn fleet(seed: u64) -> (Past, World) {
    let mut world = World::new(seed);
    world.fault(issuer("c"), (Class::IssuerDown, 0.8), 30..80);
    let place = slice(&[(Dimension::Carrier, "cu"), (Dimension::Region, "31")]);
    world.fault(place, (Class::HostUnreachable, 0.7), 120..180);
    world.run(240);
    let past = world.past();
    (past, world)
}

#[test]
fn what_values_are_called_changes_nothing_but_names() {
    for seed in SEEDS {
        let (past, world) = fleet(seed);
        let as_they_are = happened(&past, &world, |value| value.to_owned());
        let opened: Vec<String> =
            as_they_are.iter().filter(|(_, what, _)| *what == What::Opened).map(|(_, _, slice)| slice.to_string()).collect();
        assert_eq!(opened, ["issuer=c", "carrier=cu&region=31"], "seed {seed}");
        // The order of names is turned round with them.
        let turned = |value: &str| value.chars().map(|letter| char::from_u32(200 - u32::from(letter)).unwrap()).collect::<String>();
        let otherwise = happened(&past, &world, turned);
        let named: Vec<(u32, What, Slice)> = as_they_are
            .iter()
            .map(|(at, what, of)| {
                let values: Vec<(Dimension, String)> = of.values().map(|(dimension, value)| (dimension, turned(value))).collect();
                (*at, *what, Slice::new(values.iter().map(|(dimension, value)| (*dimension, value.as_str()))))
            })
            .collect();
        assert_eq!(otherwise, named, "seed {seed}");
    }
}

/// Tenants have detectors of their own, so a fleet that is there twice is the same twice, whoever comes first.
#[test]
fn the_same_ticks_make_the_same_incidents_again() {
    let (past, world) = fleet(SEEDS[0]);
    let again = || happened(&past, &world, |value| value.to_owned());
    assert_eq!(again(), again());
}

#[test]
fn more_or_less_business_at_the_same_rates_is_no_fault() {
    for (seed, busy) in SEEDS.into_iter().zip([0.5, 2.0, 3.9]) {
        let mut world = World::new(seed);
        world.busy.extend([(40, busy)]);
        world.run(300);
        assert_eq!(world.happened(), [], "{busy} times the usual");
    }
}
