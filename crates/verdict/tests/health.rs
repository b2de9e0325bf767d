//! Scores of terminals, quality of shops' networks, need of training: what holds whatever was counted.

use faultline_verdict::health::{Counted, Device, Fleet, Measure, NetworkQuality, Part, ShopNetwork, Trend, needs_training};
use proptest::prelude::*;

/// A terminal that was used for a week, and has nothing.
fn healthy() -> Device {
    Device {
        failed_reads: Counted::new(14, 900),
        unread_sales: Counted::new(8, 700),
        fallbacks: Counted::new(3, 900),
        tampered: Counted::new(0, 160),
        pin_pad_hours: Counted::new(0, 160),
        pin_pad_failures: Counted::new(0, 400),
        printer_hours: Counted::new(1, 160),
        unprinted: Counted::new(0, 800),
        drained: Counted::new(560, 70),
        battery_low: Counted::new(0, 800),
        drain_trend: Trend::default(),
        starts: Counted::new(2, 7),
        weak_signal: Counted::new(3, 160),
        reconnects: Counted::new(60, 160),
    }
}

fn fleet() -> Fleet {
    let mut fleet = Fleet::default();
    (0..50).for_each(|_| fleet.add(&healthy()));
    fleet
}

fn score(device: &Device) -> f64 {
    let mut fleet = fleet();
    fleet.add(device);
    fleet.score(device).score
}

/// The count of a device that is changed, by a number.
fn field(device: &mut Device, which: usize) -> &mut Counted {
    match which {
        0 => &mut device.failed_reads,
        1 => &mut device.unread_sales,
        2 => &mut device.fallbacks,
        3 => &mut device.tampered,
        4 => &mut device.pin_pad_hours,
        5 => &mut device.pin_pad_failures,
        6 => &mut device.printer_hours,
        7 => &mut device.unprinted,
        8 => &mut device.drained,
        9 => &mut device.battery_low,
        10 => &mut device.starts,
        11 => &mut device.weak_signal,
        _ => &mut device.reconnects,
    }
}

#[test]
fn a_healthy_terminal_has_nearly_all_and_one_of_which_nothing_is_known_has_all() {
    assert!(score(&healthy()) > 97.0, "{}", score(&healthy()));
    let unknown = fleet().score(&Device::default());
    assert_eq!((unknown.score, unknown.parts.len()), (100.0, 0));
}

#[test]
fn what_is_worn_is_named_with_numbers_and_advice() {
    let worn = Device { failed_reads: Counted::new(220, 900), reconnects: Counted::new(500, 160), ..healthy() };
    let mut fleet = fleet();
    fleet.add(&worn);
    let score = fleet.score(&worn);
    assert!(score.score < 40.0, "{score:?}");
    let worst = &score.parts[0];
    assert_eq!((worst.part, worst.reasons[0].measure), (Part::Reader, Measure::FailedReads));
    let shown = worst.reasons[0];
    assert!(shown.at_least > 0.2 && shown.at_least < shown.counted.rate() && (0.014..0.018).contains(&shown.usual), "{shown:?}");
    assert!(shown.measure.advice().en.starts_with("Clean the reader") && shown.measure.advice().zh_cn.starts_with("清洁读卡器"));
    assert_eq!(score.parts[1].part, Part::Connection);
    let shares: f64 = score.parts.iter().map(|part| part.share).sum();
    assert!((shares - 1.0).abs() < 1e-9 && worst.share > score.parts[1].share, "{score:?}");
}

#[test]
fn little_evidence_proves_little() {
    let three = Device { failed_reads: Counted::new(3, 3), ..Device::default() };
    let thirty = Device { failed_reads: Counted::new(30, 30), ..Device::default() };
    assert!(score(&three) > 80.0 && score(&thirty) < 10.0, "{} {}", score(&three), score(&thirty));
}

#[test]
fn a_tampered_pin_pad_is_the_end_of_it() {
    let tampered = Device { tampered: Counted::new(1, 168), ..healthy() };
    assert!(score(&tampered) < 1.0, "{}", score(&tampered));
}

#[test]
fn a_battery_that_gets_worse_is_seen_while_its_loss_is_still_usual() {
    let drain = |slope: f64, noise: f64| {
        let mut trend = Trend::default();
        for hour in 0..100_u8 {
            let day = f64::from(hour) / 14.0;
            let point = Trend::point(day, 6.0 + slope * day + noise * f64::from(hour % 7));
            trend = Trend {
                number: trend.number + point.number,
                x: trend.x + point.x,
                y: trend.y + point.y,
                xx: trend.xx + point.xx,
                xy: trend.xy + point.xy,
                yy: trend.yy + point.yy,
            };
        }
        let device = Device { drain_trend: trend, ..healthy() };
        let mut fleet = fleet();
        fleet.add(&device);
        fleet.score(&device)
    };
    let worse = drain(2.0, 0.1);
    assert_eq!((worse.parts[0].part, worse.parts[0].reasons[0].measure), (Part::Battery, Measure::DrainTrend));
    assert!((worse.parts[0].reasons[0].counted.times - 2.0).abs() < 0.1, "{worse:?}");
    for other in [drain(0.0, 0.1), drain(-2.0, 0.1), drain(0.3, 5.0)] {
        assert!(other.parts.iter().all(|part| part.part != Part::Battery), "{other:?}");
    }
}

#[test]
fn a_model_of_which_all_are_worn_is_not_usual_for_it() {
    let mut fleet = Fleet::default();
    let worn = Device { failed_reads: Counted::new(300, 900), ..healthy() };
    (0..20).for_each(|_| fleet.add(&worn));
    assert!(fleet.score(&worn).score < 50.0);
}

fn shop(failed: u64, expected_nearby: f64, expected_elsewhere: f64) -> ShopNetwork {
    ShopNetwork {
        failed: Counted::new(failed, 1000),
        nearby: Counted::new(500, 50_000),
        expected_nearby,
        expected_elsewhere,
        connects: [Counted { times: 1000.0 * 60_f64.ln(), of: 1000.0 }; 3],
    }
}

#[test]
fn a_weak_shop_and_a_failing_carrier_differ() {
    assert_eq!(shop(10, 10.0, 10.0).quality(), NetworkQuality::Fine);
    assert_eq!(shop(120, 10.0, 10.0).quality(), NetworkQuality::Shop);
    assert_eq!(shop(120, 110.0, 10.0).quality(), NetworkQuality::Carrier);
    // A shop can be worse than a carrier that fails.
    assert_eq!(shop(400, 110.0, 10.0).quality(), NetworkQuality::Shop);
    // All of the fleet fails.
    assert_eq!(shop(120, 110.0, 110.0).quality(), NetworkQuality::Fine);
    let alone = ShopNetwork { nearby: Counted::new(0, 3), ..shop(120, 0.0, 10.0) };
    assert_eq!(alone.quality(), NetworkQuality::Unsettled);
    let three = ShopNetwork { failed: Counted::new(3, 3), ..shop(0, 0.03, 0.03) };
    assert_eq!(three.quality(), NetworkQuality::TooFew);
    assert_eq!(ShopNetwork::default().quality(), NetworkQuality::TooFew);
    let slow = |here: f64, nearby: f64| {
        let connects = [here, nearby, 60.0].map(|ms| Counted { times: 1000.0 * ms.ln(), of: 1000.0 });
        ShopNetwork { connects, ..shop(10, 10.0, 10.0) }.quality()
    };
    assert_eq!(slow(200.0, 60.0), NetworkQuality::Shop);
    assert_eq!(slow(200.0, 180.0), NetworkQuality::Carrier);
    assert_eq!(slow(100.0, 60.0), NetworkQuality::Fine);
}

#[test]
fn three_sales_prove_nothing_of_a_merchant() {
    let others = Counted::new(400, 100_000);
    assert_eq!(needs_training(Counted::new(3, 3), others), None);
    assert_eq!(needs_training(Counted::new(1, 200), others), Some(false));
    assert_eq!(needs_training(Counted::new(30, 200), others), Some(true));
    assert_eq!(needs_training(Counted::new(30, 200), Counted::default()), Some(true));
}

/// Of a measure, how often it happened of how many times.
fn counted() -> impl Strategy<Value = Counted> {
    (0..5000_u64, 0..5000_u64).prop_map(|(times, more)| Counted::new(times, times + more))
}

fn device() -> impl Strategy<Value = Device> {
    prop::collection::vec(counted(), 13).prop_map(|all| {
        let mut device = Device::default();
        all.into_iter().enumerate().for_each(|(which, counted)| *field(&mut device, which) = counted);
        device
    })
}

proptest! {
    #[test]
    fn a_score_is_one_and_its_shares_are_a_whole(device in device()) {
        let mut fleet = fleet();
        fleet.add(&device);
        let score = fleet.score(&device);
        prop_assert!((0.0..=100.0).contains(&score.score), "{score:?}");
        prop_assert!(score.parts.windows(2).all(|pair| pair[0].loss >= pair[1].loss));
        prop_assert!(score.parts.iter().all(|part| part.loss > 0.0 && part.loss <= 1.0 && !part.reasons.is_empty()));
        let shares: f64 = score.parts.iter().map(|part| part.share).sum();
        prop_assert!(score.parts.is_empty() || (shares - 1.0).abs() < 1e-9);
        // The worst part dominates.
        let worst = score.parts.first().map_or(0.0, |part| part.loss);
        prop_assert!(score.score <= 100.0 * (1.0 - worst) + 1e-9 && score.score >= 75.0 * (1.0 - worst) - 1e-9);
    }

    #[test]
    fn more_failures_never_raise_a_score(device in device(), which in 0..13_usize, more in 1..500_u64) {
        let fleet = fleet();
        let mut worse = device.clone();
        let counted = field(&mut worse, which);
        counted.times = (counted.times + Counted::new(more, 0).times).min(counted.of);
        // Others are what they were.
        let others = |own: &Device| {
            let mut fleet = fleet.clone();
            fleet.add(own);
            fleet.score(own).score
        };
        prop_assert!(others(&worse) <= others(&device) + 1e-9);
    }

    #[test]
    fn the_same_rate_proves_more_the_more_often_it_was_seen(times in 1..50_u64, more in 0..200_u64, which in 0..13_usize) {
        let seen = |factor: u64| {
            let mut device = Device::default();
            *field(&mut device, which) = Counted::new(times * factor, (times + more) * factor);
            score(&device)
        };
        prop_assert!(seen(10) <= seen(1) + 1e-9);
    }

    #[test]
    fn what_is_not_measured_costs_nothing(device in device(), which in 0..13_usize) {
        let mut less = device.clone();
        *field(&mut less, which) = Counted::default();
        prop_assert!(score(&less) >= score(&device) - 1e-9);
    }

    #[test]
    fn more_failures_never_make_a_network_fine(failed in 0..900_u64, more in 0..100_u64, expected in 0.0..200.0) {
        let is_fine = |failed| shop(failed, expected, expected).quality() == NetworkQuality::Fine;
        prop_assert!(is_fine(failed) || !is_fine(failed + more));
    }
}

#[test]
fn every_count_shows_by_a_measure_of_its_own() {
    let shown = |which: usize| {
        let mut device = Device::default();
        // What happens so often an hour or a day; the others are parts of a whole.
        let of = if [8, 10, 12].contains(&which) { 50 } else { 5000 };
        *field(&mut device, which) = Counted::new(5000, of);
        let score = fleet().score(&device);
        (score.parts.len(), score.parts[0].reasons[0].measure)
    };
    let measures: std::collections::BTreeSet<_> = (0..13).map(shown).collect();
    assert_eq!(measures.len(), 13, "{measures:?}");
    assert!(measures.iter().all(|(parts, measure)| *parts == 1 && !measure.id().is_empty() && !measure.meaning().zh_cn.is_empty()));
}
