//! Who has stopped reporting, and together with whom: a terminal that is dead, a shop that is closed, a carrier that is lost, a region without power.
//!
//! # Model
//!
//! A terminal in an hour `h` of the week is *at work* with probability `q_h`, and then reports as a Poisson process of rate `λ_h`. Both are learnt from its own past: how many such
//! hours it was at work in, and how much it reported in them; hours of the same weekday count most, and what is not known of them is taken from the same hour of all days, as if
//! two more weeks had been seen. Nobody reports in a time `t` of the hour with probability
//!
//! ```text
//! P_h(t) = 1 - q_h + q_h exp(-λ_h t)
//! ```
//!
//! and in the hours since a moment with their product `P`. On a holiday and in a storm many do not work that should: where only a part `r` of the fleet's terminals reported in the last
//! hour of those that should have, the rest may stay silent all day, and the evidence of silence is `-ln (1 - r + r P)`. So a shop that is closed at night says nothing at night, and one that opens at ten
//! on Sundays says nothing at nine.
//!
//! Something that silences a part of the fleet silences nearly all of it at once. So the score of a part since a moment is the evidence of its terminals that were silent since,
//! each no more than [`MOST_OF_ONE`] nats, less [`AGAINST`] nats for each that reported, less the price of one part among so many. The part with the highest score is one
//! silence; its terminals are taken out, and the search goes on (a scan statistic over parts and beginnings, as in Kulldorff, 1997; explained parts are taken out greedily). Parts are
//! regions, carriers in a region, carriers, shops, and terminals. So many terminals of little traffic show within minutes what each of them would show in hours.
//!
//! # Assumptions
//!
//! Terminals are independent but for what silences them and for `r`. A shop that closes for good looks like one that has lost its power: both are [`Kind::Shop`], to be called.

use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Hours of a week.
pub const WEEK_HOURS: usize = 168;
const HOUR_S: u32 = 3600;
const DAY_HOURS: usize = 24;
/// Monday 00:00 is this many hours after the beginning of a week that begins as 1970 did.
const EPOCH_HOUR_OF_WEEK: u32 = 72;
/// Weeks that the same hour of all days counts for.
const OTHER_DAYS_WEEKS: f64 = 2.0;
/// Nobody is at work for sure.
const MOST_AT_WORK: f64 = 0.98;
/// Most evidence of one terminal, in nats, towards that a larger part is silent: one that died long ago says nothing of its carrier.
pub const MOST_OF_ONE: f64 = 2.5;
/// What one terminal that reports says against that its part is silent, in nats: one in twenty has another way.
pub const AGAINST: f64 = 3.0;
/// What is asked for, in nats, on top of the price: one false silence in some thousand looks.
const THRESHOLD: f64 = 8.0;
/// How long ago silence may have begun, in minutes.
const BEGINNINGS_MIN: [u32; 14] = [3, 5, 8, 12, 20, 30, 45, 60, 120, 240, 480, 1440, 4320, 10_080];
/// How long it is looked back for who reports lately, in seconds.
const LATELY_S: u32 = HOUR_S;
/// What may be missing of the fleet on an ordinary day: it is what is looked for.
const MAY_BE_MISSING: f64 = 0.1;
/// Fewer that should have reported say nothing of the fleet.
const LEAST_LATELY: f64 = 20.0;
/// Fewest terminals of a region or a carrier that are silent together.
const LEAST_TOGETHER: usize = 5;

/// How often a terminal reports, by hour of the week from Monday 00:00 UTC.
#[derive(Clone, Debug)]
pub struct Habit {
    /// Whole weeks that were seen.
    weeks: f64,
    /// By hour of the week, in how many weeks it was at work, and how much it reported in these hours.
    hours: Vec<(u8, u32)>,
}

impl Habit {
    /// That of which so many weeks were seen: hours in which it reported something, by their first second (since 1970-01-01 UTC), with how much.
    pub fn of(weeks: u32, worked: impl IntoIterator<Item = (u32, u32)>) -> Habit {
        let mut hours = vec![(0_u8, 0_u32); WEEK_HOURS];
        for (begin, reports) in worked {
            if let Some((at_work, sum)) = hours.get_mut(hour_of_week(begin)) {
                *at_work = at_work.saturating_add(1);
                *sum = sum.saturating_add(reports);
            }
        }
        Habit { weeks: f64::from(weeks.max(1)), hours }
    }

    /// The probability that it is at work at an hour, and how much it reports in a second then.
    fn at(&self, hour: usize) -> (f64, f64) {
        let (own, own_reports) = self.hours.get(hour).copied().unwrap_or_default();
        let same = (0..7).filter_map(|day| self.hours.get(day * DAY_HOURS + hour % DAY_HOURS));
        let (days, reports) =
            same.fold((0.0, 0.0), |(days, sum), (at_work, reports)| (days + f64::from(*at_work), sum + f64::from(*reports)));
        let at_work = (f64::from(own) + OTHER_DAYS_WEEKS * days / (7.0 * self.weeks)) / (self.weeks + OTHER_DAYS_WEEKS);
        let mean = if days > 0.0 { reports / days } else { 0.0 };
        let rate = (f64::from(own_reports) + OTHER_DAYS_WEEKS * mean) / (f64::from(own) + OTHER_DAYS_WEEKS);
        (at_work.min(MOST_AT_WORK), rate / f64::from(HOUR_S))
    }

    /// How much says, in nats, that it did not report from one second to another, when of all terminals this part works today that should.
    fn silence(&self, from: u32, until: u32, part: f64) -> f64 {
        let mut silent = 0.0;
        let mut begin = from;
        while begin < until {
            let end = (begin - begin % HOUR_S + HOUR_S).min(until);
            let (at_work, rate) = self.at(hour_of_week(begin));
            silent += (1.0 - at_work + at_work * (-rate * f64::from(end - begin)).exp()).ln();
            begin = end;
        }
        -(1.0 - part + part * silent.exp()).ln()
    }
}

/// A terminal that is watched.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The terminal.
    pub terminal: String,
    /// Its shop.
    pub shop: String,
    /// Its carrier; empty where it is not known.
    pub carrier: String,
    /// Its region; empty where it is not known.
    pub region: String,
    /// When it reported last, in seconds since 1970-01-01 UTC.
    pub last: u32,
    /// How it reports.
    pub habit: Habit,
}

/// What is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A region, whatever the carrier: there is no power.
    Region,
    /// A carrier, everywhere.
    Carrier,
    /// A carrier in a region.
    CarrierRegion,
    /// All terminals of a shop that has more than one: it is closed, or has lost its power or its line.
    Shop,
    /// A terminal: it is dead where others of its shop report; where it is the only one, the shop may be closed.
    Terminal,
}

impl Kind {
    const ALL: [Kind; 5] = [Kind::Region, Kind::Carrier, Kind::CarrierRegion, Kind::Shop, Kind::Terminal];

    /// The part of this kind that a terminal is in; nothing where that is not known.
    fn part(self, of: &Watched) -> Option<String> {
        let is_known = |text: &str| !text.is_empty();
        match self {
            Kind::Region => is_known(&of.region).then(|| of.region.clone()),
            Kind::Carrier => is_known(&of.carrier).then(|| of.carrier.clone()),
            Kind::CarrierRegion => (is_known(&of.carrier) && is_known(&of.region)).then(|| format!("{}|{}", of.carrier, of.region)),
            Kind::Shop => is_known(&of.shop).then(|| of.shop.clone()),
            Kind::Terminal => Some(of.terminal.clone()),
        }
    }

    /// Fewest terminals of such a part.
    fn least(self) -> usize {
        match self {
            Kind::Region | Kind::Carrier | Kind::CarrierRegion => LEAST_TOGETHER,
            Kind::Shop => 2,
            Kind::Terminal => 1,
        }
    }

    /// How much one terminal can say.
    fn most_of_one(self) -> f64 {
        match self {
            Kind::Region | Kind::Carrier | Kind::CarrierRegion => MOST_OF_ONE,
            Kind::Shop | Kind::Terminal => f64::INFINITY,
        }
    }
}

/// A part of the fleet that has stopped reporting.
#[derive(Clone, Debug, PartialEq)]
pub struct Silence {
    /// What it is.
    pub kind: Kind,
    /// Its name: a region, a carrier, both joined by `|`, a shop, a terminal.
    pub part: String,
    /// Since when, in seconds since 1970-01-01 UTC: the last report of those that are silent.
    pub since: u32,
    /// Which terminals, by their places.
    pub terminals: Vec<usize>,
    /// In nats.
    pub evidence: f64,
    /// Of a terminal: whether others of its shop report, so that it is not the shop that is closed.
    pub others_report: bool,
}

/// Who is silent at a moment, in seconds since 1970-01-01 UTC; what is plainest first.
#[must_use]
pub fn silences(watched: &[Watched], now: u32) -> Vec<Silence> {
    let search = Search { watched, now, working: part_that_reports(watched, now) };
    let mut parts: BTreeMap<(Kind, String), Vec<usize>> = BTreeMap::new();
    for (place, of) in watched.iter().enumerate() {
        for kind in Kind::ALL {
            if let Some(name) = kind.part(of) {
                parts.entry((kind, name)).or_default().push(place);
            }
        }
    }
    let mut of_kind: BTreeMap<Kind, f64> = BTreeMap::new();
    for (kind, _) in parts.keys() {
        *of_kind.entry(*kind).or_default() += 1.0;
    }
    let price = |kind: &Kind| THRESHOLD + of_kind.get(kind).copied().unwrap_or(1.0).ln();
    let mut is_explained = vec![false; watched.len()];
    let best = |(kind, name): (&Kind, &String), of: &[usize], is_explained: &[bool]| {
        let left: Vec<usize> = of.iter().copied().filter(|place| is_explained.get(*place) == Some(&false)).collect();
        let (score, since) = search.best(*kind, &left)?;
        let found = Candidate { score: score - price(kind), kind: *kind, part: name.clone(), since };
        (found.score > 0.0).then_some(found)
    };
    let mut candidates: Vec<Candidate> = parts.iter().filter_map(|((kind, name), of)| best((kind, name), of, &is_explained)).collect();
    candidates.sort_by(Candidate::order);
    let mut found = Vec::new();
    // Scores only fall as terminals are taken out, so the highest that still holds is the next.
    while let Some(before) = candidates.pop() {
        let Some(of) = parts.get(&(before.kind, before.part.clone())) else { continue };
        let Some(again) = best((&before.kind, &before.part), of, &is_explained) else { continue };
        if again.score < before.score {
            let place = candidates.partition_point(|other| other.order(&again).is_le());
            candidates.insert(place, again);
            continue;
        }
        let is_silent = |place: &usize| watched.get(*place).is_some_and(|of| of.last <= again.since);
        let terminals: Vec<usize> = of.iter().copied().filter(|place| is_explained.get(*place) == Some(&false)).filter(is_silent).collect();
        for place in &terminals {
            if let Some(explained) = is_explained.get_mut(*place) {
                *explained = true;
            }
        }
        let since = terminals.iter().filter_map(|place| watched.get(*place)).map(|of| of.last).max().unwrap_or(now);
        let others_report = again.kind == Kind::Terminal && others_report(watched, &terminals, now);
        found.push(Silence { kind: again.kind, part: again.part, since, terminals, evidence: again.score, others_report });
    }
    found
}

/// A part that may be silent since a moment.
#[derive(Debug)]
struct Candidate {
    score: f64,
    kind: Kind,
    part: String,
    since: u32,
}

impl Candidate {
    /// By score; of equal ones, the larger part is the last.
    fn order(&self, other: &Candidate) -> Ordering {
        self.score.total_cmp(&other.score).then_with(|| (other.kind, &other.part).cmp(&(self.kind, &self.part)))
    }
}

struct Search<'a> {
    watched: &'a [Watched],
    now: u32,
    /// The part of the fleet that works today.
    working: f64,
}

impl Search<'_> {
    /// The score of a part of these terminals, but for its price, and since when; nothing where too few are silent.
    fn best(&self, kind: Kind, terminals: &[usize]) -> Option<(f64, u32)> {
        let of = || terminals.iter().filter_map(|place| self.watched.get(*place));
        let beginnings: Vec<u32> = match kind {
            // All of it is silent, or it is not.
            Kind::Shop | Kind::Terminal => of().map(|of| of.last).max().into_iter().collect(),
            Kind::Region | Kind::Carrier | Kind::CarrierRegion => {
                BEGINNINGS_MIN.iter().map(|minutes| self.now.saturating_sub(minutes * 60)).collect()
            }
        };
        let score = |since: u32| {
            let (mut score, mut silent) = (0.0, 0);
            for of in of() {
                if of.last <= since {
                    score += of.habit.silence(since, self.now, self.working).min(kind.most_of_one());
                    silent += 1;
                } else {
                    score -= AGAINST;
                }
            }
            (silent >= kind.least()).then_some((score, since))
        };
        beginnings.into_iter().filter_map(score).max_by(|(one, _), (other, _)| one.total_cmp(other))
    }
}

/// Whether other terminals of the shop have reported since this one did.
fn others_report(watched: &[Watched], terminals: &[usize], now: u32) -> bool {
    let Some(of) = terminals.first().and_then(|place| watched.get(*place)) else { return false };
    !of.shop.is_empty()
        && watched
            .iter()
            .any(|other| other.shop == of.shop && other.terminal != of.terminal && other.last > of.last.max(now.saturating_sub(LATELY_S)))
}

/// Of the terminals that should have reported lately, the part that did: at most all.
fn part_that_reports(watched: &[Watched], now: u32) -> f64 {
    let from = now.saturating_sub(LATELY_S);
    let (mut should, mut did) = (0.0, 0.0);
    for of in watched {
        should += 1.0 - (-of.habit.silence(from, now, 1.0)).exp();
        did += f64::from(u8::from(of.last > from));
    }
    if should < LEAST_LATELY { 1.0 } else { (did / should + MAY_BE_MISSING).min(1.0) }
}

fn hour_of_week(second: u32) -> usize {
    usize::try_from((second / HOUR_S + EPOCH_HOUR_OF_WEEK) % 168).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Monday 2026-11-02, 00:00 UTC.
    const MONDAY: u32 = 1_793_577_600;
    const WEEKS: u32 = 4;

    /// A terminal that works from ten to twenty on every day but Sunday, and reports so often an hour.
    fn terminal(number: u32, reports: u32, last: u32) -> Watched {
        let hours = (1..=WEEKS * 7).flat_map(|day| (10..20).map(move |hour| (MONDAY - day * 86_400 + hour * HOUR_S, reports)));
        Watched {
            terminal: format!("T{number}"),
            shop: format!("S{}", number / 2),
            carrier: format!("c{}", number / 2 % 3),
            region: format!("r{}", number / 6 % 10),
            last,
            habit: Habit::of(WEEKS, hours.filter(|(begin, _)| hour_of_week(*begin) < 144)),
        }
    }

    /// A fleet at three in the afternoon of Monday, all of which reported a minute ago but for some, who did not for so many minutes.
    fn fleet(reports: u32, silent_min: impl Fn(&Watched) -> Option<u32>) -> (Vec<Watched>, u32) {
        let now = MONDAY + 15 * HOUR_S;
        let with = |number| {
            let of = terminal(number, reports, now - 60);
            let minutes = silent_min(&of);
            Watched { last: minutes.map_or(of.last, |minutes| now - minutes * 60), ..of }
        };
        ((0..600).map(with).collect(), now)
    }

    fn found(silences: &[Silence]) -> Vec<(Kind, &str)> {
        silences.iter().map(|silence| (silence.kind, silence.part.as_str())).collect()
    }

    #[test]
    fn the_same_hour_of_the_week_says_when_a_shop_is_open() {
        let of = terminal(0, 6, 0).habit;
        let silence = |hour: u32, minutes: u32| of.silence(MONDAY + hour * HOUR_S, MONDAY + hour * HOUR_S + minutes * 60, 1.0);
        assert!(silence(12, 60) > 2.5 && silence(12, 10) > 0.5 && silence(12, 10) < silence(12, 20));
        assert_eq!(silence(3, 300), 0.0);
        // Sunday at noon: it never was open then, and other days say only a little.
        let sunday = silence(6 * 24 + 12, 60);
        assert!((0.1..0.5).contains(&sunday), "{sunday}");
        assert_eq!(hour_of_week(MONDAY), 0);
    }

    #[test]
    fn a_terminal_that_is_dead_and_a_shop_that_is_closed_differ() {
        let (watched, now) = fleet(6, |of| (of.terminal == "T7" || of.shop == "S50").then_some(300));
        let silences = silences(&watched, now);
        assert_eq!(found(&silences), [(Kind::Shop, "S50"), (Kind::Terminal, "T7")]);
        assert_eq!(silences[0].terminals, [100, 101]);
        assert!(silences[1].others_report && silences[1].since == now - 300 * 60);
    }

    #[test]
    fn a_carrier_that_is_lost_and_a_region_without_power_differ_within_minutes() {
        // Each reports every twenty minutes: alone, none says anything after ten.
        let (watched, now) = fleet(3, |of| (of.region == "r4").then_some(13));
        let region = silences(&watched, now);
        assert_eq!(found(&region), [(Kind::Region, "r4")]);
        assert_eq!(region[0].terminals.len(), 60);
        let (watched, now) = fleet(3, |of| (of.carrier == "c1").then_some(13));
        assert_eq!(found(&silences(&watched, now)), [(Kind::Carrier, "c1")]);
        let (watched, now) = fleet(6, |of| (of.carrier == "c2" && of.region == "r8").then_some(31));
        assert_eq!(found(&silences(&watched, now)), [(Kind::CarrierRegion, "c2|r8")]);
    }

    #[test]
    fn at_night_on_a_holiday_and_by_chance_nobody_is_silent() {
        let (mut watched, _) = fleet(6, |_| None);
        let night = MONDAY + 27 * HOUR_S;
        watched.iter_mut().for_each(|of| of.last = MONDAY + 20 * HOUR_S - 600);
        assert_eq!(silences(&watched, night), []);
        // Two of three shops stay closed.
        let stays_closed = |of: &Watched| of.shop[1..].parse::<u32>().unwrap().wrapping_mul(2_654_435_761) % 3 > 0;
        let (watched, now) = fleet(6, |of| stays_closed(of).then_some(60 * 19));
        let silent: usize = silences(&watched, now).iter().map(|silence| silence.terminals.len()).sum();
        assert!(silent < 20, "{silent}");
        // Some have had no customer for a while.
        let (watched, now) = fleet(3, |of| (of.terminal.ends_with('3')).then_some(25));
        assert_eq!(silences(&watched, now), []);
    }

    #[test]
    fn names_and_order_say_nothing() {
        let (watched, now) = fleet(3, |of| (of.region == "r4").then_some(13));
        let mut turned: Vec<Watched> = watched.iter().rev().cloned().collect();
        turned.iter_mut().for_each(|of| of.region = format!("x{}", of.region));
        let (one, other) = (silences(&watched, now), silences(&turned, now));
        assert_eq!((one.len(), other.len()), (1, 1));
        assert!(one[0].kind == other[0].kind && other[0].part == "xr4" && (one[0].evidence - other[0].evidence).abs() < 1e-9);
    }
}
