//! What customers do: attempt after attempt, in the order in which they complete. Drawn from the seed, without a clock: the same scenario that
//! starts at the same moment is the same transactions.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use faultline_proto::outcome::v1::{
    CardNetwork, CardToken, EmvEvidence, EntryMode, MoneyOutcome, OriginalTransaction, Outcome, Stage, StageLatencies, TerminalCondition,
    TransactionType,
};
use faultline_proto::terminal::v1::AccessNetwork;
use prost_types::Timestamp;
use rand::seq::IteratorRandom;
use rand::{RngExt, SeedableRng};
use rand_distr::weighted::WeightedAliasIndex;
use rand_distr::{Distribution, LogNormal, Normal, Poisson};
use rand_pcg::Pcg64;

use crate::endings::{
    self, APPROVED, Ending, ISSUER_DOWN, MAX_ATTEMPTS, NO_FUNDS, NO_NAME, REFUSED, SYSTEM_DOWN, TRIED_AGAIN, UNREACHABLE, WRONG_MAC,
    unanswered,
};
use crate::fleet::{ACQUIRER, ENTRY_MODES, Fleet, Issuer, Tables, Terminal, choose};
use crate::rhythm::busyness;
use crate::scenario::{Fault, Kind, Scenario};

/// Currency of all amounts.
pub(crate) const CURRENCY: &str = "CNY";
/// Amounts are distributed log-normally: the logarithm of the median, 68.00, in minor units, and the standard deviation of the logarithm.
const AMOUNT: (f64, f64) = (8.8247, 1.1);
const LARGEST_AMOUNT: f64 = 5_000_000.0;

/// What is attempted, and the share of attempts.
const TYPES: [(TransactionType, f64); 5] = [
    (TransactionType::Sale, 0.955),
    (TransactionType::Refund, 0.015),
    (TransactionType::Void, 0.010),
    (TransactionType::PreAuthorisation, 0.010),
    (TransactionType::BalanceInquiry, 0.010),
];
/// Whether there is something to reverse: money that is taken, or held.
fn is_reversible(kind: TransactionType) -> bool {
    matches!(kind, TransactionType::Sale | TransactionType::Void | TransactionType::PreAuthorisation)
}

/// The share of attempts at which there is.
pub(crate) fn reversible_share() -> f64 {
    TYPES.iter().filter(|(kind, _)| is_reversible(*kind)).map(|(_, share)| share).sum()
}

/// In how many of a hundred presentations of a card a PIN is asked for.
const WITH_PIN: f64 = 0.6;
/// After how many seconds a reversal that did not get through is tried again.
const REVERSED_AGAIN_S: std::ops::Range<u64> = 30..60;
/// How often a switch says that the system, not the issuer, does not work.
const SYSTEM_AT_FAULT: f64 = 0.2;
/// How often a terminal whose carrier fails does not even get a name resolved.
const NO_NAME_AT_ALL: f64 = 1.0 / 3.0;
const DAY_S: i64 = 86_400;
const CHINA_S: i64 = 8 * 3600;

/// An attempt that has ended.
#[derive(Debug, PartialEq)]
pub(crate) struct Completion {
    /// When, from when the fleet was switched on.
    pub(crate) at: Duration,
    /// Where, as an index into the fleet's terminals.
    pub(crate) terminal: usize,
    /// What the terminal reports, but for what only its spool knows.
    pub(crate) outcome: Outcome,
    /// Names this attempt.
    pub(crate) id: u64,
    /// An earlier attempt that it belongs to.
    pub(crate) follows: Option<Follows>,
    /// Whether a later one belongs to it.
    pub(crate) is_followed: bool,
}

/// How an attempt belongs to an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follows {
    /// Another attempt at the sale that began with this one.
    Sale(u64),
    /// The reversal of this one.
    Reversed(u64),
}

/// What a customer wants, and with which card.
#[derive(Clone, Copy, Debug)]
struct Sale {
    terminal: usize,
    issuer: &'static Issuer,
    bin: &'static str,
    card: u32,
    mode: EntryMode,
    kind: TransactionType,
    amount_minor: i64,
}

/// Another attempt at a sale.
struct Again {
    /// The first.
    first: u64,
    /// Which this one is, counting from 1.
    number: u32,
}

/// An attempt that is under way.
#[derive(Debug)]
struct Attempt {
    at: Duration,
    id: u64,
    sale: Sale,
    number: u32,
    follows: Option<Follows>,
    ending: Ending,
    latencies: StageLatencies,
}

impl PartialEq for Attempt {
    fn eq(&self, other: &Attempt) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Attempt {}

impl PartialOrd for Attempt {
    fn partial_cmp(&self, other: &Attempt) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Attempt {
    fn cmp(&self, other: &Attempt) -> std::cmp::Ordering {
        (self.at, self.id).cmp(&(other.at, other.id))
    }
}

/// All that customers do, as far as it was drawn.
pub(crate) struct Traffic<'a> {
    fleet: &'a Fleet,
    scenario: &'a Scenario,
    /// When the fleet was switched on, in seconds since 1970-01-01 UTC.
    start_unix_s: i64,
    rng: Pcg64,
    terminals: Crowd,
    /// By fault, whom a flash sale draws customers to.
    sales: Vec<Option<Crowd>>,
    endings: Vec<(EntryMode, Vec<(Ending, f64)>)>,
    /// Seconds that were drawn.
    drawn_s: u64,
    under_way: BinaryHeap<Reverse<Attempt>>,
    last_id: u64,
    /// By terminal, the last trace number.
    traces: Vec<u32>,
}

/// Terminals that are chosen by their shares, and their part of the whole.
struct Crowd {
    shares: WeightedAliasIndex<f64>,
    part: f64,
}

impl Crowd {
    fn of(fleet: &Fleet, is_in: impl Fn(&Terminal) -> bool) -> Option<Crowd> {
        let shares: Vec<f64> = fleet.terminals.iter().map(|terminal| if is_in(terminal) { terminal.share } else { 0.0 }).collect();
        let part = shares.iter().sum();
        // It is refused when nobody is in it.
        Some(Crowd { shares: WeightedAliasIndex::new(shares).ok()?, part })
    }
}

impl<'a> Traffic<'a> {
    /// The traffic of a fleet that is switched on at this moment; none where there are no terminals.
    pub(crate) fn begin(fleet: &'a Fleet, scenario: &'a Scenario, start_unix_s: i64) -> Option<Traffic<'a>> {
        let sale = |fault: &Fault| match &fault.kind {
            Kind::FlashSale { merchant_group: Some(group), .. } => Crowd::of(fleet, |terminal| terminal.profile.merchant_group == *group),
            Kind::FlashSale { merchant_group: None, .. } => Crowd::of(fleet, |_| true),
            _ => None,
        };
        Some(Traffic {
            fleet,
            scenario,
            start_unix_s,
            // Not that of the fleet: what is drawn here must not follow from what was drawn there.
            rng: Pcg64::seed_from_u64(scenario.seed ^ 0x7472_6166_6669_6300),
            terminals: Crowd::of(fleet, |_| true)?,
            sales: scenario.faults.iter().map(sale).collect(),
            endings: ENTRY_MODES.iter().map(|(mode, _)| (*mode, endings::endings(*mode))).collect(),
            drawn_s: 0,
            under_way: BinaryHeap::new(),
            last_id: 0,
            traces: vec![0; fleet.terminals.len()],
        })
    }

    /// The next attempt that has completed by this moment, from when the fleet was switched on.
    pub(crate) fn next_until(&mut self, moment: Duration) -> Option<Completion> {
        // No more is drawn than is needed to know what is next, so that it does not matter at which moments somebody asks.
        loop {
            let drawn = Duration::from_secs(self.drawn_s);
            match self.under_way.peek() {
                Some(Reverse(next)) if next.at < drawn => {
                    if next.at > moment {
                        return None;
                    }
                    break;
                }
                _ if drawn > moment => return None,
                _ => self.draw_second(),
            }
        }
        let Reverse(attempt) = self.under_way.pop()?;
        let is_followed = self.follow(&attempt);
        Some(self.completion(attempt, is_followed))
    }

    /// Draws who comes to pay in the next second.
    fn draw_second(&mut self) {
        let second = Duration::from_secs(self.drawn_s);
        self.drawn_s += 1;
        let now_unix_s = self.start_unix_s + i64::try_from(second.as_secs()).unwrap_or(i64::MAX / 2);
        let usual = self.scenario.fleet.transactions_per_minute / 60.0
            * busyness(now_unix_s, self.scenario.fleet.rhythm)
            * self.scenario.business_at(second);
        let mut comers = draw_terminals(&self.terminals, usual, &mut self.rng);
        for (fault, crowd) in self.scenario.faults.iter().zip(&self.sales) {
            if let (Kind::FlashSale { factor, .. }, Some(crowd), true) = (&fault.kind, crowd, fault.holds_at(second)) {
                comers.append(&mut draw_terminals(crowd, usual * crowd.part * (factor - 1.0), &mut self.rng));
            }
        }
        for terminal in comers {
            let begin = second + Duration::from_micros(self.rng.random_range(0..1_000_000));
            let sale = self.draw_sale(terminal);
            self.attempt(sale, begin, None);
        }
    }

    fn draw_sale(&mut self, terminal: usize) -> Sale {
        let rng = &mut self.rng;
        let shares = self.fleet.terminals.get(terminal).and_then(|terminal| self.fleet.issuer_shares.get(terminal.region));
        let issuers: Vec<(&Issuer, f64)> = Tables::built_in().issuers.iter().zip(shares.into_iter().flatten().copied()).collect();
        let issuer = choose(&issuers, |(_, share)| *share, rng).0;
        let kind = choose(&TYPES, |(_, share)| *share, rng).0;
        Sale {
            terminal,
            issuer,
            bin: issuer.bins().choose(rng).unwrap_or_default(),
            card: rng.random_range(0..1 << 20),
            mode: choose(&ENTRY_MODES, |(_, share)| *share, rng).0,
            kind,
            amount_minor: if kind == TransactionType::BalanceInquiry { 0 } else { draw_amount(rng) },
        }
    }

    /// Begins an attempt, the first at a sale or another; how it ends is decided when the request would be sent.
    fn attempt(&mut self, sale: Sale, begin: Duration, again: Option<Again>) {
        if self.power_is_back(sale.terminal, begin).is_some() {
            return;
        }
        let (number, follows) = again.map_or((1, None), |again| (again.number, Some(Follows::Sale(again.first))));
        let card_read_ms = self.rng.random_range(400..1500);
        let asks_for_pin = !matches!(sale.mode, EntryMode::Qr | EntryMode::Keyed) && self.rng.random_bool(WITH_PIN);
        let pin_entry_ms = self.rng.random_range(2000..6000);
        let with_pin = if asks_for_pin { pin_entry_ms } else { 0 };
        let sending = begin + Duration::from_millis(u64::from(card_read_ms + with_pin));
        let ending = self.draw_ending(&sale, sending);
        let mut latencies = StageLatencies { card_read_ms: Some(card_read_ms), ..StageLatencies::default() };
        if asks_for_pin || ending.needs_pin() {
            latencies.pin_entry_ms = Some(pin_entry_ms);
        }
        self.finish(Attempt { at: begin, id: 0, sale, number, follows, ending, latencies });
    }

    /// Draws how long the rest takes, and lets the attempt go its way.
    fn finish(&mut self, mut attempt: Attempt) {
        let (ending, rng) = (attempt.ending, &mut self.rng);
        let in_vain = u32::try_from(ending.in_vain.as_millis()).unwrap_or(u32::MAX);
        let mut took = |stage, range: std::ops::Range<u32>| {
            let usual = rng.random_range(range);
            (ending.stage >= stage).then_some(if ending.stage == stage && in_vain > 0 { in_vain } else { usual })
        };
        let latencies = &mut attempt.latencies;
        if ending.stage < Stage::PinEntry {
            latencies.pin_entry_ms = None;
        }
        latencies.dns_ms = took(Stage::Dns, 5..40);
        latencies.connect_ms = took(Stage::Connect, 20..120);
        latencies.tls_ms = took(Stage::Tls, 60..250);
        latencies.send_ms = took(Stage::Send, 2..10);
        latencies.wait_ms = took(Stage::Wait, 200..1500);
        let stages = [
            latencies.card_read_ms,
            latencies.pin_entry_ms,
            latencies.dns_ms,
            latencies.connect_ms,
            latencies.tls_ms,
            latencies.send_ms,
            latencies.wait_ms,
        ];
        let total = stages.into_iter().flatten().sum();
        latencies.total_ms = Some(total);
        attempt.at += Duration::from_millis(u64::from(total));
        self.last_id += 1;
        attempt.id = self.last_id;
        self.under_way.push(Reverse(attempt));
    }

    fn draw_ending(&mut self, sale: &Sale, sending: Duration) -> Ending {
        let usual = self.endings.iter().find(|(mode, _)| *mode == sale.mode);
        let usual = usual.map_or(APPROVED, |(_, endings)| choose(endings, |(_, share)| *share, &mut self.rng).0);
        if let Some(ending) = self.unread(sale, sending) {
            return ending;
        }
        if let Some(ending) = self.unconnected(sale.terminal, sending).filter(|ending| usual.stage >= ending.stage) {
            return ending;
        }
        if usual.asks_issuer() { self.answered(sale, sending).unwrap_or(usual) } else { usual }
    }

    /// How the card is not read, where the terminal's firmware is bad.
    fn unread(&mut self, sale: &Sale, moment: Duration) -> Option<Ending> {
        let (fleet, scenario) = (self.fleet, self.scenario);
        let (terminal, (ending, share)) = (fleet.terminals.get(sale.terminal)?, endings::unread(sale.mode)?);
        let more = scenario.faults.iter().filter(|fault| fault.holds_at(moment)).filter_map(|fault| match &fault.kind {
            Kind::BadFirmware { device, factor } if device.is_of(terminal) => Some(share * (factor - 1.0)),
            _ => None,
        });
        let more: f64 = more.sum();
        (more > 0.0 && self.rng.random_bool(more.min(1.0))).then_some(ending)
    }

    /// How a connection fails at this moment, if it does. Whatever else is wrong, nobody hears of it then.
    fn unconnected(&mut self, terminal: usize, moment: Duration) -> Option<Ending> {
        let (fleet, scenario) = (self.fleet, self.scenario);
        let terminal = fleet.terminals.get(terminal)?;
        for fault in scenario.faults.iter().filter(|fault| fault.holds_at(moment)) {
            let in_vain = match &fault.kind {
                Kind::HostDown { host } if host == terminal.host => UNREACHABLE,
                Kind::CarrierOutage { carrier, region } if *carrier == terminal.profile.carrier => {
                    if region.as_ref().is_some_and(|region| *region != terminal.profile.region) {
                        continue;
                    }
                    if self.rng.random_bool(NO_NAME_AT_ALL) { NO_NAME } else { UNREACHABLE }
                }
                _ => continue,
            };
            if self.rng.random_bool(fault.share) {
                return Some(in_vain);
            }
        }
        None
    }

    /// What is answered instead of what would be, if anything is.
    fn answered(&mut self, sale: &Sale, moment: Duration) -> Option<Ending> {
        let (fleet, scenario, issuer) = (self.fleet, self.scenario, &sale.issuer.name);
        let terminal = fleet.terminals.get(sale.terminal)?;
        for fault in scenario.faults.iter().filter(|fault| fault.holds_at(moment)) {
            let (instead, share) = match &fault.kind {
                Kind::BankOutage { issuer: down } if down == issuer => {
                    (if self.rng.random_bool(SYSTEM_AT_FAULT) { SYSTEM_DOWN } else { ISSUER_DOWN }, fault.share)
                }
                Kind::RefusingBank { issuer: refusing } if refusing == issuer => (REFUSED, fault.share),
                Kind::SilentBank { issuer: silent, timeout } if silent == issuer => (unanswered(*timeout), fault.share),
                Kind::KeyFault { device } if device.is_of(terminal) => (WRONG_MAC, fault.share),
                Kind::Payday { factor } => (NO_FUNDS, (endings::usual(NO_FUNDS, sale.mode) * (factor - 1.0)).min(1.0)),
                _ => continue,
            };
            if self.rng.random_bool(share) {
                return Some(instead);
            }
        }
        None
    }

    /// When the power is back at a terminal that has none at this moment; the end of time where it is not.
    fn power_is_back(&self, terminal: usize, moment: Duration) -> Option<Duration> {
        self.scenario.power_is_back((self.fleet, terminal), moment)
    }

    /// Begins the reversal of an attempt.
    fn reverse(&mut self, original: u64, sale: Sale, begin: Duration) {
        // A terminal without power reverses when it is on again.
        let begin = match self.power_is_back(sale.terminal, begin) {
            Some(Duration::MAX) => return,
            Some(back) => back + Duration::from_secs(self.rng.random_range(REVERSED_AGAIN_S)),
            None => begin,
        };
        // The switch takes it, whatever the issuer does.
        let ending = self.unconnected(sale.terminal, begin).unwrap_or(APPROVED);
        let (follows, latencies) = (Some(Follows::Reversed(original)), StageLatencies::default());
        let sale = Sale { kind: TransactionType::Reversal, ..sale };
        self.finish(Attempt { at: begin, id: 0, sale, number: 0, follows, ending, latencies });
    }

    /// Begins what follows an attempt that has ended. Returns whether anything does.
    fn follow(&mut self, ended: &Attempt) -> bool {
        if let (TransactionType::Reversal, Some(Follows::Reversed(original))) = (ended.sale.kind, ended.follows) {
            if ended.ending != APPROVED {
                let begin = ended.at + Duration::from_secs(self.rng.random_range(REVERSED_AGAIN_S));
                self.reverse(original, ended.sale, begin);
            }
            return false;
        }
        let is_reversed = ended.ending.is_in_doubt() && is_reversible(ended.sale.kind);
        if is_reversed {
            let begin = ended.at + Duration::from_millis(self.rng.random_range(500..2500));
            self.reverse(ended.id, ended.sale, begin);
        }
        let again = ended.ending.is_tried_again() && ended.number > 0 && ended.number < MAX_ATTEMPTS && self.rng.random_bool(TRIED_AGAIN);
        if again {
            let begin = ended.at + Duration::from_millis(self.rng.random_range(5000..20_000));
            let first = match ended.follows {
                Some(Follows::Sale(first)) => first,
                _ => ended.id,
            };
            self.attempt(ended.sale, begin, Some(Again { first, number: ended.number + 1 }));
        }
        is_reversed || again
    }

    fn completion(&mut self, attempt: Attempt, is_followed: bool) -> Completion {
        let Attempt { at, id, sale, number, follows, ending, latencies } = attempt;
        let unix_ms = self.start_unix_s * 1000 + i64::try_from(at.as_millis()).unwrap_or(i64::MAX / 2);
        let mut outcome = Outcome {
            r#type: sale.kind.into(),
            entry_mode: sale.mode.into(),
            amount_minor: sale.amount_minor,
            currency_code: CURRENCY.into(),
            acquirer_id: ACQUIRER.into(),
            route_id: "primary".into(),
            batch_number: "1".into(),
            attempt: number,
            latencies: Some(latencies),
            completion_time: Some(timestamp(unix_ms)),
            ..Outcome::default()
        };
        ending.describe(&mut outcome);
        match sale.kind {
            // That of the original is what counts.
            TransactionType::Reversal => outcome.money_outcome = 0,
            TransactionType::BalanceInquiry => outcome.money_outcome = MoneyOutcome::NotMoved.into(),
            // It is held.
            TransactionType::PreAuthorisation if ending == APPROVED => outcome.money_outcome = MoneyOutcome::NotMoved.into(),
            _ => {}
        }
        if let Some(terminal) = self.fleet.terminals.get(sale.terminal) {
            outcome.merchant_id.clone_from(&terminal.merchant);
            outcome.store_id.clone_from(&terminal.store);
            outcome.host_id = terminal.host.into();
            let has_signal = ending.condition != TerminalCondition::NoNetwork;
            if has_signal && terminal.profile.access_network == i32::from(AccessNetwork::Cellular4g) {
                outcome.signal_dbm = Some(self.draw_signal());
            }
        }
        if let Some(trace) = self.traces.get_mut(sale.terminal) {
            *trace = *trace % 999_999 + 1;
            outcome.trace_number = format!("{trace:06}");
            outcome.original = matches!(follows, Some(Follows::Reversed(_))).then(OriginalTransaction::default);
        }
        if ending.is_answer() {
            outcome.retrieval_reference_number = format!("{:012}", self.rng.random_range(0..1_000_000_000_000_u64));
        }
        if ending.knows_card() {
            outcome.network = CardNetwork::Unionpay.into();
            outcome.bin = sale.bin.into();
            let day = (unix_ms / 1000 + CHINA_S).div_euclid(DAY_S);
            outcome.card_token = Some(CardToken { key_id: u32::try_from(day).unwrap_or(1), value: sale.card });
            if matches!(sale.mode, EntryMode::Chip | EntryMode::Contactless) {
                // EMV 4.3 Book 3, Annex C5, byte 3: online PIN entered; PIN not entered; PIN pad not working.
                let pin = match ending.condition {
                    TerminalCondition::PinPad => 0x10,
                    TerminalCondition::CancelledByCustomer => 0x08,
                    _ if latencies.pin_entry_ms.is_some() => 0x04,
                    _ => 0,
                };
                // Byte 4: the amount is above the floor limit, as all are that go online.
                let terminal_verification_results = vec![0, 0, pin, 0x80, 0].into();
                outcome.emv = Some(EmvEvidence { terminal_verification_results, ..EmvEvidence::default() });
            }
        }
        Completion { at, terminal: sale.terminal, outcome, id, follows, is_followed }
    }

    fn draw_signal(&mut self) -> i32 {
        let drawn = Normal::new(-86.0, 8.0).map_or(-86.0, |signal: Normal<f64>| signal.sample(&mut self.rng));
        #[expect(clippy::cast_possible_truncation, reason = "bounded")]
        let dbm = drawn.clamp(-120.0, -50.0) as i32;
        dbm
    }
}

fn draw_terminals(crowd: &Crowd, mean: f64, rng: &mut Pcg64) -> Vec<usize> {
    // Nobody comes where nobody is expected: then there is no such distribution.
    let count = Poisson::new(mean).map_or(0.0, |count: Poisson<f64>| count.sample(rng));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    let count = count as usize;
    (0..count).map(|_| crowd.shares.sample(rng)).collect()
}

fn draw_amount(rng: &mut Pcg64) -> i64 {
    let (mean, deviation) = AMOUNT;
    let drawn = LogNormal::new(mean, deviation).map_or(1.0, |amount: LogNormal<f64>| amount.sample(rng));
    #[expect(clippy::cast_possible_truncation, reason = "bounded")]
    let minor = drawn.clamp(1.0, LARGEST_AMOUNT).round() as i64;
    minor
}

/// The mean of the amounts, in minor units.
pub(crate) fn mean_amount() -> f64 {
    let (mean, deviation) = AMOUNT;
    let without = TYPES.iter().filter(|(kind, _)| *kind == TransactionType::BalanceInquiry).map(|(_, share)| share).sum::<f64>();
    (1.0 - without) * (mean + deviation * deviation / 2.0).exp()
}

fn timestamp(unix_ms: i64) -> Timestamp {
    let nanos = i32::try_from(unix_ms.rem_euclid(1000) * 1_000_000).unwrap_or_default();
    Timestamp { seconds: unix_ms.div_euclid(1000), nanos }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use faultline_proto::verdict::v1::Cause;
    use faultline_verdict::Rules;

    use super::*;
    use crate::scenario::{Device, FleetSize};

    /// 2026-11-02, a Monday, 00:00 in China.
    const START: i64 = 1_793_548_800;
    const MINUTE: Duration = Duration::from_secs(60);

    fn scenario(faults: Vec<Fault>) -> Scenario {
        let fleet = FleetSize { terminals: 200, transactions_per_minute: 6000.0, rhythm: 0.0 };
        Scenario { seed: 7, fleet, faults, ..Scenario::default() }
    }

    fn fault(kind: Kind, share: f64) -> Fault {
        Fault { kind, share, start: 2 * MINUTE, duration: Some(2 * MINUTE), opened_within: MINUTE }
    }

    fn play(scenario: &Scenario, until: Duration) -> (Fleet, Vec<Completion>) {
        let fleet = Fleet::draw(scenario);
        let mut traffic = Traffic::begin(&fleet, scenario, START).unwrap();
        let completions = std::iter::from_fn(|| traffic.next_until(until)).collect();
        (fleet, completions)
    }

    /// The share of `code` among what completed within these minutes and is of the issuer.
    fn share_of(code: &str, issuer: &str, minutes: std::ops::Range<u32>, completions: &[Completion]) -> f64 {
        let issuers = &Tables::built_in().issuers;
        let bins: Vec<&str> = issuers.iter().filter(|known| known.name == issuer).flat_map(Issuer::bins).collect();
        let of_issuer = completions.iter().filter(|completion| {
            (MINUTE * minutes.start..MINUTE * minutes.end).contains(&completion.at)
                && bins.contains(&completion.outcome.bin.as_str())
                && completion.outcome.stage() >= Stage::Wait
                && completion.outcome.r#type() != TransactionType::Reversal
        });
        let (all, with) =
            of_issuer.fold((0, 0), |(all, with), completion| (all + 1, with + u32::from(completion.outcome.response_code == code)));
        assert!(all > 100, "{all}");
        f64::from(with) / f64::from(all)
    }

    #[test]
    fn the_seed_decides_and_how_it_is_looked_at_does_not() {
        let scenario = scenario(Vec::new());
        let (fleet, at_once) = play(&scenario, 2 * MINUTE);
        let mut traffic = Traffic::begin(&fleet, &scenario, START).unwrap();
        let mut step_by_step = Vec::new();
        for step in 0..=1200 {
            step_by_step.extend(std::iter::from_fn(|| traffic.next_until(Duration::from_millis(step * 100))));
        }
        assert!(at_once == step_by_step);
        assert!(at_once.windows(2).all(|pair| pair[0].at <= pair[1].at));
        let other = Scenario { seed: 8, ..scenario };
        assert!(play(&other, 2 * MINUTE).1 != at_once);
    }

    #[test]
    fn there_are_as_many_sales_as_were_asked_for() {
        let (_, completions) = play(&scenario(Vec::new()), 11 * MINUTE);
        let sales = completions.iter().filter(|completion| completion.at >= MINUTE && completion.follows.is_none()).count();
        assert!((58_500..61_500).contains(&sales), "{sales}");
        let night = Scenario { fleet: FleetSize { rhythm: 1.0, ..scenario(Vec::new()).fleet }, ..scenario(Vec::new()) };
        assert!(play(&night, 11 * MINUTE).1.len() < 30_000);
    }

    #[test]
    fn a_bank_fails_when_it_should_as_much_as_it_should_and_no_other() {
        let outage = |share| scenario(vec![fault(Kind::BankOutage { issuer: "icbc".into() }, share)]);
        let (_, whole) = play(&outage(1.0), 6 * MINUTE);
        assert!(share_of("91", "icbc", 0..2, &whole) < 0.01);
        let (down, system) = (share_of("91", "icbc", 2..4, &whole), share_of("96", "icbc", 2..4, &whole));
        assert!((0.75..0.85).contains(&down) && (0.15..0.25).contains(&system), "{down} {system}");
        assert!(share_of("91", "ccb", 2..4, &whole) < 0.01);
        assert!(share_of("91", "icbc", 5..6, &whole) < 0.01);
        let (_, part) = play(&outage(0.3), 6 * MINUTE);
        let down = share_of("91", "icbc", 2..4, &part);
        assert!((0.2..0.28).contains(&down), "{down}");
    }

    #[test]
    fn a_silent_bank_is_missed_first_and_then_heard_of() {
        let timeout = Duration::from_secs(60);
        let (_, completions) = play(&scenario(vec![fault(Kind::SilentBank { issuer: "ccb".into(), timeout }, 1.0)]), 7 * MINUTE);
        let ccb: Vec<&str> = Tables::built_in().issuers.iter().find(|issuer| issuer.name == "ccb").unwrap().bins().collect();
        let count = |minute: u32, stage: Stage, kind: Option<TransactionType>| {
            let within = MINUTE * minute..MINUTE * (minute + 1);
            let is = |completion: &&Completion| {
                let outcome = &completion.outcome;
                within.contains(&completion.at)
                    && ccb.contains(&outcome.bin.as_str())
                    && outcome.stage() == stage
                    && kind.map_or(outcome.r#type() != TransactionType::Reversal, |kind| outcome.r#type() == kind)
            };
            completions.iter().filter(is).count()
        };
        let usual = count(1, Stage::HostDecision, None);
        assert!(usual > 600, "{usual}");
        // Nothing of the third minute but what was under way, and nothing that says why.
        assert!(count(2, Stage::HostDecision, None) < usual / 5 && count(2, Stage::Wait, None) < 5);
        assert!(count(3, Stage::Wait, None) > usual * 8 / 10);
        assert!(count(3, Stage::HostDecision, Some(TransactionType::Reversal)) > usual / 2);
        // Those that began at the end of it end a minute after it.
        assert!(count(4, Stage::Wait, None) > usual * 8 / 10 && count(6, Stage::HostDecision, None) > usual * 8 / 10);
    }

    #[test]
    fn a_host_that_is_down_is_not_reached_by_anybody() {
        let (fleet, completions) = play(&scenario(vec![fault(Kind::HostDown { host: "pos-2".into() }, 1.0)]), 6 * MINUTE);
        let unreachable = |host: &str, minutes: std::ops::Range<u32>| {
            let of_host = completions.iter().filter(|completion| {
                (MINUTE * minutes.start..MINUTE * minutes.end).contains(&completion.at) && fleet.terminals[completion.terminal].host == host
            });
            let failed = of_host.clone().filter(|completion| completion.outcome.stage() == Stage::Connect).count();
            failed as f64 / of_host.count() as f64
        };
        assert!(unreachable("pos-2", 0..2) < 0.01);
        // Ten seconds to give up, twenty at most to present a card.
        assert!(unreachable("pos-2", 3..4) > 0.95);
        assert!(unreachable("pos-1", 3..4) < 0.01);
    }

    #[test]
    fn through_a_host_that_is_down_nobody_hears_of_a_bank() {
        let silent = Kind::SilentBank { issuer: "icbc".into(), timeout: Duration::from_secs(5) };
        let faults = vec![fault(silent, 1.0), fault(Kind::HostDown { host: "pos-2".into() }, 1.0)];
        let (fleet, completions) = play(&scenario(faults), 6 * MINUTE);
        let of_host = |minutes: std::ops::Range<u32>| {
            let during =
                completions.iter().filter(move |completion| (MINUTE * minutes.start..MINUTE * minutes.end).contains(&completion.at));
            during.filter(|completion| fleet.terminals[completion.terminal].host == "pos-2")
        };
        // What was begun before may end a little later.
        assert!(of_host(3..4).all(|completion| completion.outcome.stage() < Stage::Wait));
        let reversals = |minutes, stage: Stage| {
            let reversals = of_host(minutes).filter(|completion| completion.outcome.r#type() == TransactionType::Reversal);
            reversals.filter(|completion| completion.outcome.stage() == stage).count()
        };
        assert_eq!(reversals(3..4, Stage::HostDecision), 0);
    }

    /// Of what completed in these minutes and is of the terminals, how many ended at a stage with a condition, or with a code; and how many there were.
    fn ended(
        (fleet, completions): &(Fleet, Vec<Completion>),
        is_of: impl Fn(&Terminal) -> bool,
        minutes: std::ops::Range<u32>,
        is_so: impl Fn(&Outcome) -> bool,
    ) -> (f64, usize) {
        let within = MINUTE * minutes.start..MINUTE * minutes.end;
        let of_them = completions.iter().filter(|completion| {
            within.contains(&completion.at)
                && is_of(&fleet.terminals[completion.terminal])
                && completion.outcome.r#type() != TransactionType::Reversal
        });
        let all = of_them.clone().count();
        (of_them.filter(|completion| is_so(&completion.outcome)).count() as f64 / all as f64, all)
    }

    #[test]
    fn a_carrier_fails_where_it_is_to_fail() {
        let outage = Kind::CarrierOutage { carrier: "china-mobile".into(), region: Some("440000".into()) };
        let played = play(&scenario(vec![fault(outage, 0.5)]), 5 * MINUTE);
        let is_in = |terminal: &Terminal, region: bool| {
            terminal.profile.carrier == "china-mobile" && (terminal.profile.region == "440000") == region
        };
        let unconnected = |outcome: &Outcome| matches!(outcome.stage(), Stage::Dns | Stage::Connect);
        let (failed, all) = ended(&played, |terminal| is_in(terminal, true), 3..4, unconnected);
        assert!(all > 50 && (0.35..0.65).contains(&failed), "{failed} of {all}");
        assert!(ended(&played, |terminal| is_in(terminal, false), 3..4, unconnected).0 < 0.02);
        assert!(ended(&played, |terminal| is_in(terminal, true), 0..2, unconnected).0 < 0.05);
    }

    #[test]
    fn a_firmware_reads_badly_and_another_has_a_wrong_key() {
        let device = |model: &str, firmware: &str| Device { model: model.into(), firmware: firmware.into() };
        let (bad, keyless) = (device("PAX A920", "V02.3.16"), device("LANDI A8", "V1.4.7"));
        let faults = vec![
            fault(Kind::BadFirmware { device: bad.clone(), factor: 20.0 }, 1.0),
            fault(Kind::KeyFault { device: keyless.clone() }, 1.0),
        ];
        let played = play(&scenario(faults), 5 * MINUTE);
        let unread = |outcome: &Outcome| outcome.stage() == Stage::CardRead;
        let (before, _) = ended(&played, |terminal| bad.is_of(terminal), 0..2, unread);
        let (during, all) = ended(&played, |terminal| bad.is_of(terminal), 2..4, unread);
        assert!(all > 500 && during > 8.0 * before && during < 0.3, "{before} {during}");
        assert!(ended(&played, |terminal| !bad.is_of(terminal), 2..4, unread).0 < 0.02);
        let refused = |outcome: &Outcome| outcome.response_code == "A0";
        assert!(ended(&played, |terminal| keyless.is_of(terminal), 3..4, refused).0 > 0.9);
        assert!(ended(&played, |terminal| !keyless.is_of(terminal), 2..4, refused).0 < 0.01);
    }

    #[test]
    fn without_power_nothing_is_sold_and_a_holiday_is_quiet() {
        let cut = Kind::PowerCut { region: "440000".into() };
        let played = play(&scenario(vec![fault(cut, 1.0)]), 5 * MINUTE);
        let of_region = |terminal: &Terminal| terminal.profile.region == "440000";
        let sold = |minutes| ended(&played, of_region, minutes, |_| true).1;
        let usual = sold(0..1);
        // What had begun ends, and silence is waited for a minute long.
        assert!(usual > 200 && sold(3..4) < usual / 50 && sold(4..5) > usual * 7 / 10, "{usual} {} {}", sold(3..4), sold(4..5));

        let played = play(&scenario(vec![fault(Kind::Holiday { factor: 0.25 }, 1.0)]), 5 * MINUTE);
        let sold = |minutes| ended(&played, |_| true, minutes, |_| true).1;
        assert!((sold(3..4) as f64 / sold(1..2) as f64 - 0.25).abs() < 0.03);
    }

    #[test]
    fn before_wages_accounts_are_empty_and_a_bank_that_fails_may_refuse() {
        let faults = vec![fault(Kind::Payday { factor: 6.0 }, 1.0), fault(Kind::RefusingBank { issuer: "ccb".into() }, 1.0)];
        let (_, completions) = play(&scenario(faults), 5 * MINUTE);
        let (before, during) = (share_of("51", "icbc", 0..2, &completions), share_of("51", "icbc", 3..4, &completions));
        assert!((4.0..8.0).contains(&(during / before)), "{before} {during}");
        assert!(share_of("05", "ccb", 3..4, &completions) > 0.85 && share_of("05", "icbc", 3..4, &completions) < 0.02);
    }

    #[test]
    fn a_flash_sale_brings_customers_and_no_failures() {
        let sale = |merchant_group| scenario(vec![fault(Kind::FlashSale { factor: 4.0, merchant_group }, 1.0)]);
        let counts = |(fleet, completions): (Fleet, Vec<Completion>)| {
            let mut counts: HashMap<(u128, bool), usize> = HashMap::new();
            for completion in &completions {
                let is_in = fleet.terminals[completion.terminal].profile.merchant_group == "chain-03";
                *counts.entry((completion.at.as_secs().into(), is_in)).or_default() += 1;
            }
            let within =
                |seconds: std::ops::Range<u128>, is_in| -> usize { seconds.filter_map(|second| counts.get(&(second, is_in))).sum() };
            let ratio = |is_in| within(150..230, is_in) as f64 / within(20..100, is_in) as f64;
            (ratio(true), ratio(false))
        };
        let (inside, outside) = counts(play(&sale(Some("chain-03".into())), 5 * MINUTE));
        assert!((3.3..4.8).contains(&inside) && (0.9..1.1).contains(&outside), "{inside} {outside}");
        let (inside, outside) = counts(play(&sale(None), 5 * MINUTE));
        assert!((3.3..4.8).contains(&inside) && (3.7..4.3).contains(&outside), "{inside} {outside}");
    }

    #[test]
    fn outcomes_are_within_the_contract_and_hang_together() {
        let (_, completions) = play(&scenario(Vec::new()), 10 * MINUTE);
        let rules = Rules::built_in().unwrap();
        let by_id: HashMap<u64, &Completion> = completions.iter().map(|completion| (completion.id, completion)).collect();
        let (mut again, mut reversals, mut approved) = (0, 0, 0);
        for completion in &completions {
            let outcome = &completion.outcome;
            approved += usize::from(rules.verdict(outcome).reason.cause == Cause::Approved);
            assert_eq!(outcome.bin.is_empty(), outcome.stage() == Stage::CardRead);
            let has_pin = outcome.latencies.is_some_and(|latencies| latencies.pin_entry_ms.is_some());
            assert!(has_pin || !["55", "75"].contains(&outcome.response_code.as_str()), "a wrong PIN that nobody entered");
            let says_pin = outcome.emv.as_ref().is_some_and(|emv| emv.terminal_verification_results[2] != 0);
            assert!(has_pin || !says_pin, "a chip that saw a PIN that nobody entered");
            assert!((0..=5_000_000).contains(&outcome.amount_minor) && outcome.retrieval_reference_number.len() <= 12);
            match completion.follows {
                Some(Follows::Sale(first)) => {
                    again += 1;
                    let first = by_id[&first];
                    assert!(first.is_followed && first.at < completion.at && first.terminal == completion.terminal);
                    assert_eq!((first.outcome.attempt, first.outcome.amount_minor), (1, outcome.amount_minor));
                    assert!((2..=3).contains(&outcome.attempt));
                }
                Some(Follows::Reversed(original)) => {
                    reversals += 1;
                    let original = &by_id[&original].outcome;
                    assert!(original.money_outcome() == MoneyOutcome::Unknown && is_reversible(original.r#type()));
                    assert_eq!(outcome.r#type(), TransactionType::Reversal);
                }
                None => assert_eq!(outcome.attempt, 1),
            }
        }
        let approved = approved as f64 / completions.len() as f64;
        assert!((0.94..0.96).contains(&approved), "{approved}");
        assert!(again > 300 && reversals > 20, "{again} {reversals}");
    }
}
