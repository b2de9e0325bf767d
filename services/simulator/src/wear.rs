//! How worn terminals are, and what they measure of themselves. Drawn apart from everything else: whoever looks at health sees the same sales.

use std::collections::VecDeque;
use std::time::Duration;

use faultline_proto::outcome::v1::{EntryMode, Outcome, ReaderHistory, Stage, TerminalCondition, TransactionType};
use faultline_sdk::{HealthSample, PinPadState, PrinterState};
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Poisson};
use rand_pcg::Pcg64;

use crate::fleet::choose;

/// What is worn of a terminal, and the share of terminals. A guess.
const WEAR: [(Wear, f64); 7] = [
    (Wear::Nothing, 0.94),
    (Wear::Reader, 0.02),
    (Wear::Battery, 0.015),
    (Wear::Printer, 0.005),
    (Wear::PinPad, 0.002),
    (Wear::Power, 0.008),
    (Wear::Antenna, 0.01),
];
/// How often a card has to be presented again, though the sale comes to its end: at a good reader, and at a worn one.
const READ_AGAIN: f64 = 0.015;
const READ_AGAIN_WORN: f64 = 0.3;
/// How far back a terminal remembers what its reader did, and how long a card takes to be presented again.
const REMEMBERED: Duration = Duration::from_secs(86_400);
const PRESENTED_AGAIN: Duration = Duration::from_millis(2_500);
/// Share of failed reads after which the magnetic stripe is taken.
const FALLBACKS: f64 = 0.05;
/// Percent of a full charge that go in an hour without a charger, and come in one with it.
const DRAIN: f64 = 6.0;
const DRAIN_WORN: f64 = 35.0;
const CHARGE: f64 = 40.0;
/// Between which percents a terminal is taken from its charger and put back.
const CHARGED: std::ops::Range<f64> = 25.0..95.0;
/// What of the signal a worn antenna loses, in dB.
const LOST_DBM: i32 = 28;
/// How often in an hour a connection is lost, and a terminal starts again.
const RECONNECTS: f64 = 0.3;
const RECONNECTS_WORN: f64 = 9.0;
const BOOTS: f64 = 0.02;
const BOOTS_WORN: f64 = 0.8;

/// What is worn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wear {
    Nothing,
    Reader,
    Battery,
    Printer,
    PinPad,
    Power,
    Antenna,
}

/// What one terminal counts and measures.
#[derive(Debug)]
pub(crate) struct Health {
    wear: Wear,
    rng: Pcg64,
    /// Since when the counters count.
    started: Duration,
    boots: u32,
    reads: u32,
    failures: u32,
    failed_sales: u32,
    fallbacks: u32,
    /// The sales of the last day that had a card, the newest last.
    lately: VecDeque<Presented>,
    reconnects: u32,
    /// Percent; none where it has no battery.
    battery: Option<f64>,
    charging: bool,
    /// The strength of the signal where it stands, in dBm; none where it has no radio.
    signal: Option<i32>,
    measured: Duration,
}

/// A card that was presented.
#[derive(Clone, Copy, Debug)]
struct Presented {
    at: Duration,
    failures: u32,
    /// Whether it was read in the end.
    was_read: bool,
}

impl Health {
    /// That of a terminal by its number, which is switched on at this moment from when the fleet was.
    pub(crate) fn draw(seed: u64, number: usize, has_radio: bool, now: Duration) -> Health {
        let number = u64::try_from(number).unwrap_or_default();
        let mut rng = Pcg64::seed_from_u64(seed ^ 0x6865_616c_7468_0000 ^ number.rotate_left(32));
        let wear = choose(&WEAR, |(_, share)| *share, &mut rng).0;
        let usual = rng.random_range(-92..-72);
        Health {
            wear,
            started: now,
            boots: rng.random_range(10..400),
            reads: 0,
            failures: 0,
            failed_sales: 0,
            fallbacks: 0,
            lately: VecDeque::new(),
            reconnects: 0,
            battery: has_radio.then(|| rng.random_range(CHARGED)),
            charging: false,
            signal: has_radio.then_some(usual),
            measured: now,
            rng,
        }
    }

    /// A sale has come to its end here at a moment from when the fleet was switched on. Returns what the reader did lately, where it had to do with it.
    pub(crate) fn saw(&mut self, outcome: &Outcome, at: Duration) -> Option<ReaderHistory> {
        let has_card = matches!(outcome.entry_mode(), EntryMode::Chip | EntryMode::Contactless | EntryMode::MagneticStripe);
        if !has_card || outcome.r#type() == TransactionType::Reversal {
            return None;
        }
        let was_given_up = outcome.stage() == Stage::CardRead && outcome.terminal_condition() != TerminalCondition::CancelledByCashier;
        let again = if self.wear == Wear::Reader { READ_AGAIN_WORN } else { READ_AGAIN };
        let mut failed = u32::from(was_given_up);
        while failed < 4 && self.rng.random_bool(again) {
            failed += 1;
        }
        self.reads += failed + u32::from(!was_given_up);
        self.failures += failed;
        self.failed_sales += u32::from(failed > 0);
        self.fallbacks += u32::from(failed > 0 && self.rng.random_bool(FALLBACKS));
        self.lately.push_back(Presented { at, failures: failed, was_read: !was_given_up });
        while self.lately.front().is_some_and(|first| first.at + REMEMBERED < at) {
            self.lately.pop_front();
        }
        Some(self.history())
    }

    /// What the reader did over the last day, the last sale included.
    fn history(&self) -> ReaderHistory {
        let sum = |of: fn(&Presented) -> u32| self.lately.iter().map(of).sum();
        let failures = sum(|sale| sale.failures);
        ReaderHistory {
            reads: failures + sum(|sale| u32::from(sale.was_read)),
            failures,
            failed_sales: sum(|sale| u32::from(sale.failures > 0)),
            consecutive_failures: self.lately.iter().rev().take_while(|sale| !sale.was_read).map(|sale| sale.failures).sum(),
            next_good_read_ms: self.next_good_read().and_then(|after| u64::try_from(after.as_millis()).ok()),
        }
    }

    /// How long after the most recent failure before the last sale a card was read; nothing where none was since.
    fn next_good_read(&self) -> Option<Duration> {
        let before = self.lately.len().checked_sub(1)?;
        let (place, failed) = self.lately.iter().enumerate().take(before).rev().find(|(_, sale)| sale.failures > 0)?;
        if failed.was_read {
            return Some(PRESENTED_AGAIN);
        }
        let good = self.lately.iter().skip(place + 1).find(|sale| sale.was_read)?;
        Some(good.at.saturating_sub(failed.at))
    }

    /// What it measures at a moment, from when the fleet was switched on.
    pub(crate) fn sample(&mut self, now: Duration) -> HealthSample {
        let hours = now.saturating_sub(self.measured).as_secs_f64() / 3600.0;
        self.measured = now;
        let (often, starts) = match self.wear {
            Wear::Antenna => (RECONNECTS_WORN, BOOTS),
            Wear::Power => (RECONNECTS, BOOTS_WORN),
            _ => (RECONNECTS, BOOTS),
        };
        if self.rng.random_bool((starts * hours).min(1.0)) {
            self.start(now);
        }
        self.reconnects += self.happened(often * hours);
        self.use_battery(hours);
        let lost = if self.wear == Wear::Antenna { LOST_DBM } else { 0 };
        HealthSample {
            battery_percent: self.battery.map(percent),
            charging: self.battery.map(|_| self.charging),
            signal_dbm: self.signal.map(|usual| (usual - lost + self.rng.random_range(-4..=4)).clamp(-120, -50)),
            printer: self.printer().into(),
            pin_pad: if self.wear == Wear::PinPad { PinPadState::Fault } else { PinPadState::Ready }.into(),
            reader_reads: Some(self.reads),
            reader_failures: Some(self.failures),
            reader_failed_sales: Some(self.failed_sales),
            fallbacks: Some(self.fallbacks),
            boots: Some(self.boots),
            reconnects: Some(self.reconnects),
            uptime_ms: u64::try_from(now.saturating_sub(self.started).as_millis()).ok(),
            ..HealthSample::default()
        }
    }

    /// It starts again, and counts from nothing.
    fn start(&mut self, now: Duration) {
        self.started = now;
        self.boots += 1;
        (self.reads, self.failures, self.failed_sales, self.fallbacks, self.reconnects) = (0, 0, 0, 0, 0);
    }

    /// How often something happened that is expected so often.
    fn happened(&mut self, expected: f64) -> u32 {
        // Where nothing is expected, there is no such distribution.
        let often = Poisson::new(expected).map_or(0.0, |often: Poisson<f64>| often.sample(&mut self.rng));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let often = often as u32;
        often
    }

    fn use_battery(&mut self, hours: f64) {
        let drain = if self.wear == Wear::Battery { DRAIN_WORN } else { DRAIN };
        let Some(battery) = &mut self.battery else { return };
        *battery = (*battery + if self.charging { CHARGE } else { -drain } * hours).clamp(1.0, 100.0);
        self.charging = if self.charging { *battery < CHARGED.end } else { *battery < CHARGED.start };
    }

    fn printer(&mut self) -> PrinterState {
        match self.wear {
            Wear::Printer if self.rng.random_bool(0.6) => PrinterState::Fault,
            _ if self.rng.random_bool(0.01) => PrinterState::PaperOut,
            _ => PrinterState::Ready,
        }
    }
}

fn percent(charge: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded")]
    let percent = charge.clamp(0.0, 100.0).round() as u32;
    percent
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn sale() -> Outcome {
        Outcome { entry_mode: EntryMode::Chip.into(), stage: Stage::HostDecision.into(), ..Outcome::default() }
    }

    /// A week of a terminal with this wear.
    fn week(wear: Wear) -> Vec<HealthSample> {
        let mut health = Health { wear, ..Health::draw(7, 1, true, Duration::ZERO) };
        let hours = (0..7 * 24 * 12).map(|step| {
            for _ in 0..4 {
                health.saw(&sale(), HOUR / 12 * step);
            }
            health.sample(HOUR / 12 * step)
        });
        hours.collect()
    }

    #[test]
    fn the_seed_decides_and_few_are_worn() {
        let said = |seed, number| format!("{:?}", Health::draw(seed, number, true, HOUR));
        assert_eq!(said(1, 2), said(1, 2));
        assert!(said(1, 2) != said(2, 2) && said(1, 2) != said(1, 3));
        let worn = (0..2000).filter(|number| Health::draw(1, *number, true, HOUR).wear != Wear::Nothing).count();
        assert!((80..170).contains(&worn), "{worn}");
    }

    #[test]
    fn what_is_worn_shows() {
        let share = |wear, is: fn(&HealthSample) -> bool| {
            let week = week(wear);
            week.iter().filter(|sample| is(sample)).count() as f64 / week.len() as f64
        };
        let broken = |sample: &HealthSample| sample.printer() == PrinterState::Fault;
        assert!(share(Wear::Printer, broken) > 0.5 && share(Wear::Nothing, broken) == 0.0);
        let weak = |sample: &HealthSample| sample.signal_dbm.unwrap() < -97;
        assert!(share(Wear::Antenna, weak) > 0.5 && share(Wear::Nothing, weak) < 0.05);
        let often = |sample: &HealthSample| sample.reader_failed_sales.unwrap() * 8 > sample.reader_reads.unwrap();
        assert!(share(Wear::Reader, often) > 0.9 && share(Wear::Nothing, often) < 0.2);
        let started = |wear| week(wear).last().unwrap().boots.unwrap() - week(wear).first().unwrap().boots.unwrap();
        assert!(started(Wear::Power) > 60 && started(Wear::Nothing) < 12);
        assert!(share(Wear::Battery, |sample| sample.charging.unwrap()) > 2.0 * share(Wear::Nothing, |sample| sample.charging.unwrap()));
    }

    #[test]
    fn a_reader_remembers_a_day() {
        let mut health = Health { wear: Wear::Nothing, ..Health::draw(7, 1, true, Duration::ZERO) };
        let unread = Outcome { stage: Stage::CardRead.into(), terminal_condition: TerminalCondition::ChipRead.into(), ..sale() };
        let mut saw = |outcome: &Outcome, minute: u32| health.saw(outcome, HOUR / 60 * minute);
        let first = saw(&unread, 0).unwrap();
        assert!(first.failures == first.reads && first.failed_sales == 1 && first.next_good_read_ms.is_none(), "{first:?}");
        let second = saw(&unread, 10).unwrap();
        assert!(second.consecutive_failures == second.failures && second.failures > first.failures && second.next_good_read_ms.is_none());
        let read = saw(&sale(), 15).unwrap();
        assert_eq!((read.consecutive_failures, read.reads - read.failures, read.next_good_read_ms), (0, 1, Some(300_000)));
        let qr = Outcome { entry_mode: EntryMode::Qr.into(), ..sale() };
        assert_eq!(saw(&qr, 20), None);
        let next_day = saw(&sale(), 25 * 60).unwrap();
        assert!(next_day.reads - next_day.failures == 1 && next_day.failed_sales <= 1, "{next_day:?}");
    }

    #[test]
    fn counters_fall_to_nothing_when_it_starts_and_rise_until_then() {
        for pair in week(Wear::Power).windows(2) {
            let (before, after) = (pair[0], pair[1]);
            if before.boots == after.boots {
                assert!(before.reader_reads <= after.reader_reads && before.uptime_ms < after.uptime_ms);
                assert!(before.reader_failed_sales <= after.reader_failed_sales && before.reconnects <= after.reconnects);
            } else {
                assert!(after.reader_reads == Some(0) && after.uptime_ms == Some(0));
            }
            assert!(after.battery_percent.unwrap() <= 100 && after.reader_failed_sales <= after.reader_failures);
        }
    }
}
