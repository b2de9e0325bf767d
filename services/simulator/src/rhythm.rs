//! Day and week of shops in China.

/// China has one time, eight hours ahead of UTC, and no summer time.
const CHINA_S: i64 = 8 * 3600;
const HOUR_S: i64 = 3600;
const HOURS: i64 = 24;

/// Sales in each hour of a day, relative to each other: a little at night, lunch, and most in the evening. Guessed, not measured.
const DAY: [f64; 24] = [
    0.25, 0.14, 0.09, 0.07, 0.07, 0.12, 0.30, 0.62, 0.88, 1.08, 1.25, 1.48, 1.52, 1.30, 1.22, 1.26, 1.38, 1.62, 1.86, 1.92, 1.72, 1.32,
    0.88, 0.50,
];
/// Monday to Sunday.
const WEEK: [f64; 7] = [0.93, 0.92, 0.94, 0.96, 1.03, 1.13, 1.09];

/// How busy the fleet is at a moment (seconds since 1970-01-01 UTC), relative to its average over a week. `depth` is how much of the rhythm
/// there is: 0 none, 1 all.
pub(crate) fn busyness(unix_s: i64, depth: f64) -> f64 {
    // The table holds at half past the hour; between, one goes over into the next.
    let since_half = unix_s + CHINA_S - HOUR_S / 2;
    let (hour, second) = (since_half.div_euclid(HOUR_S), since_half.rem_euclid(HOUR_S));
    // 1970-01-01 was a Thursday.
    let at = |hour: i64| of(&DAY, hour) * of(&WEEK, hour.div_euclid(HOURS) + 3);
    let part = f64::from(i32::try_from(second).unwrap_or_default()) / 3600.0;
    let busy = at(hour) * (1.0 - part) + at(hour + 1) * part;
    1.0 + depth * (busy / mean() - 1.0)
}

/// The value of a cycle at a place, however far from its beginning.
fn of<const N: usize>(cycle: &[f64; N], place: i64) -> f64 {
    let place = usize::try_from(place).unwrap_or_default() % N;
    cycle.get(place).copied().unwrap_or(1.0)
}

fn mean() -> f64 {
    DAY.iter().sum::<f64>() / 24.0 * WEEK.iter().sum::<f64>() / 7.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-02, a Monday, 00:00 in China.
    const MONDAY: i64 = 1_793_548_800;

    #[test]
    fn a_week_is_as_busy_as_the_average() {
        for depth in [0.0, 0.3, 1.0] {
            let hours: Vec<f64> = (0..7 * 24 * 4).map(|quarter| busyness(MONDAY + quarter * 900, depth)).collect();
            let mean = hours.iter().sum::<f64>() / hours.len() as f64;
            assert!((mean - 1.0).abs() < 0.01, "{mean}");
            assert!(hours.iter().all(|busy| *busy > 0.0));
        }
    }

    #[test]
    fn evenings_and_saturdays_are_busy_and_nights_are_not() {
        let at = |day: i64, hour: i64| busyness(MONDAY + day * 86_400 + hour * 3600, 1.0);
        assert!(at(0, 19) > 15.0 * at(0, 4));
        assert!(at(5, 19) > 1.1 * at(0, 19));
        assert!((busyness(MONDAY, 0.0) - 1.0).abs() < 1e-12);
        // Without a jump at midnight.
        let (before, after) = (busyness(MONDAY - 1, 1.0), busyness(MONDAY, 1.0));
        assert!((before / after - 1.0).abs() < 0.01, "{before} {after}");
    }
}
