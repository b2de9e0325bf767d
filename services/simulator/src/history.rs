//! Counts of the weeks before the fleet was switched on, so that what is usual is known from the first minute.
//!
//! For every slice of every family, the expected count by tag is summed over all terminals, issuers, entry modes and endings: exactly what
//! [`crate::traffic`] draws from. An hour's count is then drawn around it. Each family is drawn by itself, so their sums differ by chance, as those
//! of real counts would not.

use std::collections::{BTreeMap, HashMap};
use std::time::{SystemTime, UNIX_EPOCH};

use faultline_proto::outcome::v1::{EntryMode, Outcome};
use faultline_proto::verdict::v1::Cause;
use faultline_store::{Database, Dimensions, Past, PastCount, StoreError};
use faultline_verdict::{Rules, RulesError};
use rand::SeedableRng;
use rand_distr::{Distribution, LogNormal, Poisson};
use rand_pcg::Pcg64;

use crate::endings::{APPROVED, Ending, MAX_ATTEMPTS, TRIED_AGAIN, endings};
use crate::fleet::{ACQUIRER, ENTRY_MODES, Fleet, Tables, Terminal};
use crate::rhythm::busyness;
use crate::scenario::Scenario;
use crate::traffic::{CURRENCY, mean_amount, reversible_share};

const HOUR_S: u32 = 3600;
const WEEK_S: u32 = 7 * 24 * HOUR_S;
/// How much an hour differs from what the rhythm says, for the whole fleet: the standard deviation of the logarithm.
const HOURLY_NOISE: f64 = 0.04;

/// Why there is no past.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// Nobody could say whose fault a failure is.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// ClickHouse did not do its part.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What detection counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Tag {
    tag: String,
    cause: Cause,
}

/// A slice of a family.
type Slice = (&'static str, String);

/// What is expected of a fleet in an hour that is as busy as the average, by slice and tag.
pub(crate) struct Expected(BTreeMap<(Slice, Tag), f64>);

impl Expected {
    pub(crate) fn of(fleet: &Fleet, scenario: &Scenario, rules: &Rules) -> Expected {
        let hourly = scenario.fleet.transactions_per_minute * 60.0;
        // By slice and entry mode, how many sales an hour are in it while the card is not read yet, and how many once it is.
        let mut sales: HashMap<Slice, [(f64, f64); ENTRY_MODES.len()]> = HashMap::new();
        for (terminal, share) in alike(fleet) {
            let shares = fleet.issuer_shares.get(terminal.region).into_iter().flatten();
            let issuers: Vec<(&str, f64)> = Tables::built_in().issuers().zip(shares.copied()).collect();
            for (place, (mode, mode_share)) in ENTRY_MODES.iter().enumerate() {
                let rate = hourly * share * mode_share;
                // Before the card is read, nobody knows whose it is.
                let unread = ("", rate, 0.0);
                for (issuer, before, after) in issuers.iter().map(|(issuer, share)| (*issuer, 0.0, rate * share)).chain([unread]) {
                    for slice in dimensions(terminal, *mode, issuer).slices() {
                        if let Some(sum) = sales.entry(slice).or_default().get_mut(place) {
                            sum.0 += before;
                            sum.1 += after;
                        }
                    }
                }
            }
        }
        let attempts = ENTRY_MODES.map(|(mode, _)| attempts(mode, rules));
        // Sorted, so that the same seed draws the same counts.
        let mut expected = BTreeMap::new();
        for (slice, by_mode) in sales {
            for (attempts, (before, after)) in attempts.iter().zip(by_mode) {
                for attempts in attempts {
                    let rate = attempts.per_sale * if attempts.knows_card { after } else { before };
                    if rate > 0.0 {
                        *expected.entry((slice.clone(), attempts.tag.clone())).or_default() += rate;
                    }
                }
            }
        }
        Expected(expected)
    }

    /// Draws the counts of the hour that begins at this second since 1970-01-01 UTC.
    fn draw(&self, hour: u32, scenario: &Scenario) -> Vec<PastCount> {
        // An hour is the same whichever run draws it.
        let mut rng = Pcg64::seed_from_u64(scenario.seed ^ u64::from(hour) << 20);
        let rng = &mut rng;
        let busy = busyness(i64::from(hour + HOUR_S / 2), scenario.fleet.rhythm);
        let noise = LogNormal::new(0.0, HOURLY_NOISE).map_or(1.0, |noise: LogNormal<f64>| noise.sample(rng));
        let mut counts = Vec::new();
        for (((family, key), Tag { tag, cause }), mean) in &self.0 {
            // There is no such distribution around nothing.
            let drawn = Poisson::new(mean * busy * noise).map_or(0.0, |count: Poisson<f64>| count.sample(rng));
            #[expect(clippy::cast_possible_truncation, reason = "counts of an hour")]
            let (count, amount_minor) = (drawn as i64, (drawn * mean_amount()) as i64);
            if count > 0 {
                counts.push(PastCount {
                    family,
                    key: key.clone(),
                    bucket: hour,
                    tag: tag.clone(),
                    cause: *cause,
                    currency: CURRENCY,
                    count,
                    amount_minor,
                });
            }
        }
        counts
    }
}

/// Writes the past of a tenant up to when something was first counted, as far as it is not there yet: so many weeks, day by day, each day whole.
/// `said` is told how many days of how many are written. Returns how many counts were.
pub(crate) async fn write(
    (fleet, scenario): (&Fleet, &Scenario),
    database: &Database,
    tenant: &str,
    mut said: impl FnMut(u32, u32),
) -> Result<usize, HistoryError> {
    let rules = Rules::built_in()?;
    let past = database.past(tenant).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u32::try_from(since.as_secs()).unwrap_or(u32::MAX));
    let missing = missing(past, now, scenario.history.weeks);
    let days = missing.len().div_ceil(24);
    if days == 0 {
        return Ok(0);
    }
    let expected = Expected::of(fleet, scenario, &rules);
    let mut written = 0;
    for (day, hours) in (1..).zip(missing.chunks(24)) {
        let counts: Vec<PastCount> = hours.iter().flat_map(|hour| expected.draw(*hour, scenario)).collect();
        written += counts.len();
        database.add_past(tenant, &counts).await?;
        said(day, u32::try_from(days).unwrap_or(u32::MAX));
    }
    Ok(written)
}

/// The hours that have to be written, by their first seconds: what is there ends at some hour, and what was really counted begins at another.
fn missing(past: Past, now: u32, weeks: u32) -> Vec<u32> {
    let end = past.first_counted.unwrap_or(now).min(now);
    let end = end - end % HOUR_S;
    let earliest = end.saturating_sub(weeks * WEEK_S);
    let begin = past.last_simulated.map_or(earliest, |last| (last - last % HOUR_S + HOUR_S).max(earliest));
    (begin..end).step_by(usize::try_from(HOUR_S).unwrap_or(1)).collect()
}

/// Attempts that end alike.
struct Attempts {
    tag: Tag,
    knows_card: bool,
    /// How many there are for each sale.
    per_sale: f64,
}

/// How the attempts at one sale end, on average: those that are tried again, and reversals, are counted too.
fn attempts(mode: EntryMode, rules: &Rules) -> Vec<Attempts> {
    let endings = endings(mode);
    let tried_again = TRIED_AGAIN * endings.iter().filter(|(ending, _)| ending.is_tried_again()).map(|(_, share)| share).sum::<f64>();
    let attempts: f64 = (0..MAX_ATTEMPTS).map(|number| tried_again.powi(i32::try_from(number).unwrap_or(i32::MAX))).sum();
    let in_doubt: f64 = endings.iter().filter(|(ending, _)| ending.is_in_doubt()).map(|(_, share)| share).sum();
    let reversed = in_doubt * reversible_share();
    let all = endings.into_iter().chain([(APPROVED, reversed)]);
    all.map(|(ending, share)| Attempts { tag: tag(&ending, rules), knows_card: ending.knows_card(), per_sale: share * attempts }).collect()
}

fn tag(ending: &Ending, rules: &Rules) -> Tag {
    let mut outcome = Outcome::default();
    ending.describe(&mut outcome);
    let verdict = rules.verdict(&outcome);
    Tag { tag: verdict.tag.into(), cause: verdict.reason.cause }
}

/// One of each kind of terminals that families do not tell apart, with their share together.
fn alike(fleet: &Fleet) -> Vec<(&Terminal, f64)> {
    let mut kinds: BTreeMap<_, (&Terminal, f64)> = BTreeMap::new();
    for terminal in &fleet.terminals {
        let profile = &terminal.profile;
        let kind = (terminal.region, &profile.carrier, terminal.host, &profile.model, &profile.firmware, &profile.merchant_group);
        kinds.entry(kind).or_insert((terminal, 0.0)).1 += terminal.share;
    }
    kinds.into_values().collect()
}

fn dimensions<'a>(terminal: &'a Terminal, mode: EntryMode, issuer: &'a str) -> Dimensions<'a> {
    let profile = &terminal.profile;
    Dimensions {
        issuer,
        entry_mode: u16::try_from(i32::from(mode)).unwrap_or_default(),
        carrier: &profile.carrier,
        region: &profile.region,
        acquirer: ACQUIRER,
        host: terminal.host,
        model: &profile.model,
        firmware: &profile.firmware,
        merchant_group: &profile.merchant_group,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::scenario::FleetSize;
    use crate::traffic::Traffic;

    fn scenario() -> Scenario {
        let fleet = FleetSize { terminals: 300, transactions_per_minute: 60_000.0, rhythm: 0.0 };
        Scenario { seed: 3, fleet, ..Scenario::default() }
    }

    /// The past is what the present would have been: everything that is drawn is counted here by hand, and compared.
    #[test]
    fn what_is_expected_is_what_is_drawn() {
        let scenario = scenario();
        let fleet = Fleet::draw(&scenario);
        let rules = Rules::built_in().unwrap();
        let expected = Expected::of(&fleet, &scenario, &rules).0;

        let mut drawn: HashMap<(Slice, Tag), f64> = HashMap::new();
        let mut traffic = Traffic::begin(&fleet, &scenario, 1_793_548_800).unwrap();
        let minutes = 10_u32;
        // What takes longer has begun earlier.
        let whole = Duration::from_secs(200)..Duration::from_secs(200 + u64::from(minutes) * 60);
        let issuers: HashMap<&str, &str> =
            Tables::built_in().issuers.iter().flat_map(|issuer| issuer.bins().map(|bin| (bin, issuer.name.as_str()))).collect();
        while let Some(completion) = traffic.next_until(whole.end) {
            if completion.at < whole.start {
                continue;
            }
            let outcome = &completion.outcome;
            let verdict = rules.verdict(outcome);
            let issuer = issuers.get(outcome.bin.as_str()).copied().unwrap_or_default();
            for slice in dimensions(&fleet.terminals[completion.terminal], outcome.entry_mode(), issuer).slices() {
                *drawn.entry((slice, Tag { tag: verdict.tag.into(), cause: verdict.reason.cause })).or_default() += 1.0;
            }
        }

        let mut compared = 0;
        for (cell, count) in &drawn {
            let mean = expected.get(cell).unwrap_or_else(|| panic!("{cell:?} was not expected")) * f64::from(minutes) / 60.0;
            if mean >= 30.0 {
                compared += 1;
                // One in 2,000,000 is so far off by chance.
                assert!((count - mean).abs() < 5.2 * mean.sqrt(), "{cell:?}: {count} were drawn, {mean} expected");
            }
        }
        assert!(compared > 1000, "{compared}");
        let fleet_of = |cells: &mut dyn Iterator<Item = (&(Slice, Tag), &f64)>| -> f64 {
            cells.filter(|(((family, _), _), _)| *family == "fleet").map(|(_, count)| count).sum()
        };
        let (drawn, expected) = (fleet_of(&mut drawn.iter()), fleet_of(&mut expected.iter()) * f64::from(minutes) / 60.0);
        assert!((drawn / expected - 1.0).abs() < 0.005, "{drawn} {expected}");
    }

    #[test]
    fn every_family_expects_the_same_number() {
        let scenario = scenario();
        let expected = Expected::of(&Fleet::draw(&scenario), &scenario, &Rules::built_in().unwrap()).0;
        let mut sums: HashMap<&str, f64> = HashMap::new();
        for (((family, _), _), rate) in &expected {
            *sums.entry(family).or_default() += rate;
        }
        assert_eq!(sums.len(), 9);
        for (family, sum) in &sums {
            assert!((sum / sums["fleet"] - 1.0).abs() < 1e-9, "{family}: {sum}");
        }
    }

    #[test]
    fn an_hour_is_the_same_whoever_draws_it() {
        let scenario = Scenario { fleet: FleetSize { transactions_per_minute: 100.0, ..scenario().fleet }, ..scenario() };
        let expected = || Expected::of(&Fleet::draw(&scenario), &scenario, &Rules::built_in().unwrap());
        let hour = 1_793_548_800;
        assert_eq!(expected().draw(hour, &scenario), expected().draw(hour, &scenario));
        assert_ne!(expected().draw(hour, &scenario), expected().draw(hour + HOUR_S, &scenario));
    }

    #[test]
    fn the_past_ends_where_counting_began_and_is_written_once() {
        let now = 1_793_548_800 + 1234;
        let hour = now - now % HOUR_S;
        let first = missing(Past::default(), now, 2);
        assert_eq!((first.len(), first[0], *first.last().unwrap()), (2 * 7 * 24, hour - 2 * WEEK_S, hour - HOUR_S));
        // Interrupted after a day.
        let half = Past { first_counted: None, last_simulated: Some(first[23]) };
        assert_eq!(missing(half, now, 2), first[24..]);
        // Later, and after things were counted: there is nothing to add, nor is what was missed meanwhile made up.
        let whole = Past { first_counted: Some(now + 60), last_simulated: first.last().copied() };
        assert_eq!(missing(whole, now + 3 * WEEK_S, 2).len(), 0);
        let counted = Past { first_counted: Some(now), last_simulated: None };
        assert_eq!(missing(counted, now + WEEK_S, 2), first);
        assert_eq!(missing(Past::default(), now, 0).len(), 0);
    }
}
