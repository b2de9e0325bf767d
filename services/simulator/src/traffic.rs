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
                Kind::BankOutage { issuer: down, carrier }
                    if down == issuer && carrier.as_ref().is_none_or(|carrier| *carrier == terminal.profile.carrier) =>
                {
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
mod tests;
