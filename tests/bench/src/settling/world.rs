//! A fleet that does not exist, and what fails in it: every outcome as its terminal reports it, with whose fault it was, which no terminal knows.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what is drawn is within bounds, and so is what is made of it"
)]

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::Context;
use faultline_proto::ingest::v1::ReportedOutcome;
use faultline_proto::outcome::v1::{
    CardNetwork, CardToken, EmvEvidence, EntryMode, MoneyOutcome, Outcome, ReaderHistory, Stage, StageLatencies, TerminalCondition,
    TerminalResult, TransactionType,
};
use faultline_proto::terminal::v1::TerminalProfile;
use faultline_proto::verdict::v1::Cause;
use faultline_verdict::Family;
use prost_types::Timestamp;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};
use rand_distr::{Distribution, LogNormal, Normal};
use rand_pcg::Pcg64;
use serde::Deserialize;

use super::scenario::{Ending, Process, Scenario};

/// 2026-11-20 02:00 UTC, ten o'clock in China.
const BEGIN_MS: i64 = 1_795_140_000_000;
const ISSUERS: &str = include_str!("../../../../services/simulator/data/issuers.csv");
const MODELS: &str = include_str!("../../../../services/simulator/data/models.csv");
const REGIONS: &str = include_str!("../../../../services/simulator/data/regions.csv");
const CARRIERS: [(&str, f64); 3] = [("china-mobile", 0.55), ("china-unicom", 0.25), ("china-telecom", 0.2)];
const HOSTS: [(&str, f64); 4] = [("h1", 0.4), ("h2", 0.3), ("h3", 0.2), ("h4", 0.1)];
const APPLICATIONS: [(&str, f64); 3] = [("pay 3.2.1", 0.5), ("pay 3.2.0", 0.3), ("pay 3.1.7", 0.2)];
/// Cards for each terminal.
const CARDS: usize = 20;
/// In how many shops a card that fails is tried.
const VISITS: usize = 7;
/// Most attempts at a sale.
const MOST_ATTEMPTS: u32 = 3;
/// By how much shops, readers and issuers differ in what usually fails there: standard deviations of logarithms.
const DIFFERENCE: f64 = 0.4;
/// Stages in the order in which a sale comes to them.
const STAGES: [Stage; 8] =
    [Stage::CardRead, Stage::PinEntry, Stage::Dns, Stage::Connect, Stage::Tls, Stage::Send, Stage::Wait, Stage::HostDecision];

/// An outcome with the truth about it.
#[derive(Clone, Debug)]
pub(crate) struct Labelled {
    pub(crate) reported: ReportedOutcome,
    /// Whose fault it was, and whose it most likely was by all that is known but that; approved: nobody's.
    pub(crate) truth: Cause,
    pub(crate) oracle: Cause,
    /// The scenario's fault that it belongs to, counting from 1; 0: none.
    pub(crate) fault: usize,
}

/// Everything that happens in a scenario, in the order in which it completes.
pub(crate) fn play(scenario: &Scenario, seed: u64) -> anyhow::Result<Vec<Labelled>> {
    let mut rng = Pcg64::seed_from_u64(seed);
    let world = World::new(scenario, &mut rng)?;
    let mut sales = world.sales(scenario, &mut rng);
    sales.sort_by_key(|sale| sale.0);
    let mut tills: HashMap<usize, Till> = HashMap::new();
    let mut labelled = Vec::new();
    for (at_ms, terminal, card) in sales {
        labelled.extend(world.sell((at_ms, terminal, card), tills.entry(terminal).or_default(), &mut rng));
    }
    labelled.sort_by_key(|labelled| {
        labelled.reported.outcome.as_ref().and_then(|outcome| outcome.completion_time.as_ref().map(|time| (time.seconds, time.nanos)))
    });
    Ok(labelled)
}

#[derive(Deserialize)]
struct Row {
    #[serde(default)]
    issuer: String,
    #[serde(default)]
    bins: String,
    #[serde(default)]
    model: String,
    #[serde(default)]
    firmware: String,
    #[serde(default)]
    region: String,
    share: f64,
}

struct Terminal {
    share: f64,
    signal: f64,
    parts: BTreeMap<&'static str, String>,
    profile: TerminalProfile,
    host: &'static str,
    shop: usize,
    network_factor: f64,
    reader_factor: f64,
}

struct Card {
    issuer: String,
    bin: String,
    token: u32,
    share: f64,
    issuer_factor: f64,
}

/// What one terminal remembers.
#[derive(Default)]
struct Till {
    sequence: u64,
    history: ReaderHistory,
    failed_at: Option<i64>,
}

/// A process that can end an attempt, and whom it concerns.
struct Active {
    process: Process,
    /// Family and parts; nothing: everybody, by how much each differs.
    parts: Option<(Family, HashSet<String>)>,
    /// How likely it concerns a card of which nothing is known.
    presented: f64,
    from_ms: i64,
    until_ms: i64,
}

struct World {
    terminals: Vec<Terminal>,
    cards: Vec<Card>,
    active: Vec<Active>,
}

impl World {
    fn new(scenario: &Scenario, rng: &mut Pcg64) -> anyhow::Result<World> {
        let (issuers, models, regions) = (rows(ISSUERS)?, rows(MODELS)?, rows(REGIONS)?);
        let differs = LogNormal::new(-DIFFERENCE * DIFFERENCE / 2.0, DIFFERENCE)?;
        let busy = LogNormal::new(0.0, 0.7)?;
        let mut terminals = Vec::new();
        let mut shop = 0;
        while terminals.len() < scenario.fleet.terminals {
            shop += 1;
            let region = &drawn(&regions, |row| row.share, rng)?.region;
            let carrier = drawn(&CARRIERS, |carrier| carrier.1, rng)?.0;
            let (network_factor, signal, share) = (differs.sample(rng), rng.random_range(-97.0..-65.0), busy.sample(rng));
            for _ in 0..rng.random_range(1..=3) {
                let model = drawn(&models, |row| row.share, rng)?;
                let application = drawn(&APPLICATIONS, |application| application.1, rng)?.0;
                let host = drawn(&HOSTS, |host| host.1, rng)?.0;
                let name = format!("T-{:06}", terminals.len() + 1);
                let parts = BTreeMap::from([
                    ("fleet", String::from("fleet")),
                    ("acquirer", "acq-1".into()),
                    ("host", host.into()),
                    ("carrier", carrier.into()),
                    ("region", region.clone()),
                    ("carrier_region", format!("{carrier}|{region}")),
                    ("model_firmware", format!("{}|{}", model.model, model.firmware)),
                    ("application", application.into()),
                    ("shop", shop.to_string()),
                    ("terminal", name),
                ]);
                let profile = TerminalProfile {
                    model: model.model.clone(),
                    firmware: model.firmware.clone(),
                    application: application.into(),
                    region: region.clone(),
                    carrier: carrier.into(),
                    ..TerminalProfile::default()
                };
                let reader_factor = differs.sample(rng);
                terminals.push(Terminal { share, signal, parts, profile, host, shop, network_factor, reader_factor });
            }
        }
        let factors: Vec<f64> = issuers.iter().map(|_| differs.sample(rng)).collect();
        let regular = LogNormal::new(0.0, 1.0)?;
        let mut cards = Vec::new();
        for _ in 0..scenario.fleet.terminals * CARDS {
            let (place, issuer) = drawn(&issuers.iter().enumerate().collect::<Vec<_>>(), |(_, row)| row.share, rng).copied()?;
            let bins: Vec<&str> = issuer.bins.split(' ').collect();
            let bin = bins.choose(rng).context("an issuer without a BIN")?.to_string();
            let token = rng.random_range(0..1 << 20);
            let issuer_factor = factors.get(place).copied().unwrap_or(1.0);
            cards.push(Card { issuer: issuer.issuer.clone(), bin, token, share: regular.sample(rng), issuer_factor });
        }
        let mut world = World { terminals, cards, active: Vec::new() };
        let always =
            |process: &Process| Active { process: process.clone(), parts: None, presented: 1.0, from_ms: i64::MIN, until_ms: i64::MAX };
        world.active.extend(scenario.usual.iter().map(always));
        for fault in &scenario.faults {
            let parts = match &fault.part {
                Some(part) => HashSet::from([part.clone()]),
                None => world.draw_parts(fault.family, fault.parts, rng),
            };
            let ms = |time: std::time::Duration| BEGIN_MS + i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 2);
            let (from_ms, until_ms) = (ms(fault.start), ms(fault.end));
            if fault.family == Family::Shop {
                let is_weak = |terminal: &&mut Terminal| parts.contains(&terminal.shop.to_string());
                world.terminals.iter_mut().filter(is_weak).for_each(|terminal| terminal.signal -= 25.0);
            }
            let presented = world.presented(fault.family, &parts, scenario);
            world.active.push(Active { process: fault.process.clone(), parts: Some((fault.family, parts)), presented, from_ms, until_ms });
        }
        Ok(world)
    }

    /// How likely a card is one of such parts, of all that are presented.
    fn presented(&self, family: Family, parts: &HashSet<String>, scenario: &Scenario) -> f64 {
        let all: f64 = self.cards.iter().map(|card| card.share).sum();
        let is_in = |place: usize, card: &Card| match family {
            Family::Issuer => parts.contains(&card.issuer),
            Family::Bin => parts.contains(&card.bin),
            _ => parts.contains(&place.to_string()),
        };
        let own: f64 = self.cards.iter().enumerate().filter(|(place, card)| is_in(*place, card)).map(|(_, card)| card.share).sum();
        let visits = if family == Family::Card { (parts.len() * VISITS) as f64 } else { 0.0 };
        own / all + visits / (scenario.fleet.sales_per_minute * f64::from(scenario.fleet.minutes))
    }

    /// So many parts of a family, the busy ones rather than others.
    fn draw_parts(&self, family: Family, count: usize, rng: &mut Pcg64) -> HashSet<String> {
        let mut shares: BTreeMap<String, f64> = BTreeMap::new();
        for terminal in &self.terminals {
            if let Some(part) = terminal.parts.get(family.name()) {
                *shares.entry(part.clone()).or_default() += terminal.share;
            }
        }
        for (place, card) in self.cards.iter().enumerate() {
            let part = match family {
                Family::Issuer => card.issuer.clone(),
                Family::Bin => card.bin.clone(),
                Family::Card => place.to_string(),
                _ => continue,
            };
            *shares.entry(part).or_default() += card.share;
        }
        let mut parts: Vec<(String, f64)> = shares.into_iter().collect();
        let mut drawn = HashSet::new();
        while drawn.len() < count.min(parts.len() + drawn.len()) {
            let all: f64 = parts.iter().map(|(_, share)| share).sum();
            let mut at = rng.random_range(0.0..all);
            let place = parts.iter().position(|(_, share)| {
                at -= share;
                at < 0.0
            });
            drawn.insert(parts.swap_remove(place.unwrap_or(0)).0);
        }
        drawn
    }

    /// When which card is presented where.
    fn sales(&self, scenario: &Scenario, rng: &mut Pcg64) -> Vec<(i64, usize, usize)> {
        let minutes = scenario.fleet.minutes;
        let count = (scenario.fleet.sales_per_minute * f64::from(minutes)).round() as usize;
        let terminals = cumulated(self.terminals.iter().map(|terminal| terminal.share));
        let cards = cumulated(self.cards.iter().map(|card| card.share));
        let length = i64::from(minutes) * 60_000;
        let mut sales: Vec<(i64, usize, usize)> =
            (0..count).map(|_| (BEGIN_MS + rng.random_range(0..length), at(&terminals, rng), at(&cards, rng))).collect();
        for active in &self.active {
            if let Some((Family::Card, parts)) = &active.parts {
                let (from, until) = (active.from_ms.max(BEGIN_MS), active.until_ms.min(BEGIN_MS + length));
                for card in parts.iter().filter_map(|part| part.parse().ok()) {
                    sales.extend((0..VISITS).map(|_| (rng.random_range(from..until), at(&terminals, rng), card)));
                }
            }
        }
        sales
    }

    /// A sale, with all attempts at it.
    fn sell(&self, (at_ms, place, number): (i64, usize, usize), till: &mut Till, rng: &mut Pcg64) -> Vec<Labelled> {
        let mut labelled = Vec::new();
        let (Some(terminal), Some(card)) = (self.terminals.get(place), self.cards.get(number)) else { return labelled };
        let mut mode = if rng.random_bool(0.55) { EntryMode::Contactless } else { EntryMode::Chip };
        let amount = LogNormal::new(8.8, 1.1).map_or(10_000.0, |amounts| amounts.sample(rng));
        let first = till.sequence + 1;
        let mut at_ms = at_ms;
        let (mut any_read, mut any_read_failed) = (false, false);
        let mut of_sale = Vec::new();
        for attempt in 1..=MOST_ATTEMPTS {
            till.sequence += 1;
            let mut hazards = self.hazards((at_ms, terminal), Some((number, card)));
            let unread = self.hazards((at_ms, terminal), None);
            if mode == EntryMode::MagneticStripe {
                hazards
                    .retain(|hazard| !matches!(hazard.ending.condition, TerminalCondition::ChipRead | TerminalCondition::ContactlessRead));
            }
            let ending = drawn_ending(&hazards, rng);
            let stage = ending.map_or(Stage::HostDecision, |hazard| hazard.ending.stage);
            let was_read = stage != Stage::CardRead;
            read(till, (was_read, any_read_failed, at_ms));
            any_read_failed |= !was_read;
            let took_ms = took(stage, ending, rng);
            let completed = at_ms + i64::from(took_ms.total_ms.unwrap_or_default());
            let mut outcome = Outcome {
                completion_time: Some(Timestamp {
                    seconds: completed / 1000,
                    nanos: i32::try_from(completed % 1000).unwrap_or_default() * 1_000_000,
                }),
                merchant_id: format!("M{:08}", terminal.shop),
                store_id: format!("S{:08}", terminal.shop),
                r#type: TransactionType::Sale.into(),
                entry_mode: mode.into(),
                amount_minor: amount as i64,
                currency_code: "CNY".into(),
                network: CardNetwork::Unionpay.into(),
                acquirer_id: "acq-1".into(),
                host_id: terminal.host.into(),
                route_id: "primary".into(),
                trace_number: format!("{:06}", till.sequence % 1_000_000),
                attempt,
                first_attempt_sequence: if attempt == 1 { 0 } else { first },
                stage: stage.into(),
                emv: (mode == EntryMode::MagneticStripe).then(|| EmvEvidence { fallback: true, ..EmvEvidence::default() }),
                latencies: Some(took_ms),
                reader_history: Some(till.history),
                signal_dbm: Some(
                    (terminal.signal + Normal::new(0.0, 4.0).map_or(0.0, |noise| noise.sample(rng))).round().clamp(-140.0, 0.0) as i32,
                ),
                ..Outcome::default()
            };
            if was_read {
                outcome.bin = card.bin.clone();
                outcome.card_token = Some(CardToken { key_id: 1, value: card.token });
            }
            end(&mut outcome, ending);
            let (truth, fault) = ending.map_or((Cause::Approved, 0), |hazard| (hazard.cause, hazard.fault));
            any_read |= was_read;
            of_sale.push((labelled.len(), [&hazards, &unread].map(|hazards| likeliest(ending, hazards))));
            let tried_again = ending.is_some_and(|hazard| rng.random_bool(if hazard.ending.code.is_empty() { 0.6 } else { 0.25 }));
            labelled.push(Labelled {
                reported: ReportedOutcome {
                    terminal_id: terminal.parts.get("terminal").cloned().unwrap_or_default(),
                    spool_id: 1,
                    sequence: till.sequence,
                    profile: Some(terminal.profile.clone()),
                    outcome: Some(outcome),
                },
                truth,
                oracle: truth,
                fault,
            });
            if !tried_again {
                break;
            }
            // A chip that cannot be read has a stripe beside it.
            if !was_read && rng.random_bool(0.6) {
                mode = EntryMode::MagneticStripe;
            }
            at_ms = completed + rng.random_range(5_000..40_000);
        }
        // Whoever sees what terminals report knows a card that any attempt at the sale has read.
        for (place, [known, unknown]) in of_sale {
            if let Some(labelled) = labelled.get_mut(place) {
                labelled.oracle = if any_read { known } else { unknown };
            }
        }
        labelled
    }

    /// What can end an attempt, in the order in which it comes to it.
    fn hazards(&self, (at_ms, terminal): (i64, &Terminal), card: Option<(usize, &Card)>) -> Vec<Hazard<'_>> {
        let mut hazards = Vec::new();
        for (place, active) in self.active.iter().enumerate().filter(|(_, active)| (active.from_ms..active.until_ms).contains(&at_ms)) {
            let factor = match &active.parts {
                Some((family, parts)) => match (family, card) {
                    (Family::Issuer | Family::Bin | Family::Card, None) => active.presented,
                    (Family::Issuer, Some((_, card))) => f64::from(u8::from(parts.contains(&card.issuer))),
                    (Family::Bin, Some((_, card))) => f64::from(u8::from(parts.contains(&card.bin))),
                    (Family::Card, Some((number, _))) => f64::from(u8::from(parts.contains(&number.to_string()))),
                    _ => f64::from(u8::from(terminal.parts.get(family.name()).is_some_and(|part| parts.contains(part)))),
                },
                None => match active.process.cause {
                    Cause::Network => terminal.network_factor,
                    Cause::Device => terminal.reader_factor,
                    Cause::Account => card.map_or(1.0, |(_, card)| card.issuer_factor),
                    _ => 1.0,
                },
            };
            if factor > 0.0 {
                let usual = self.active.iter().filter(|active| active.parts.is_none()).count();
                let fault = if active.parts.is_some() { place + 1 - usual } else { 0 };
                let of = |(ending, share): &'_ (Ending, f64)| (ending.stage, active.process.rate * share * factor);
                hazards.extend(active.process.endings.iter().map(|written| {
                    let (stage, rate) = of(written);
                    Hazard { rank: rank(stage), rate, ending: &written.0, cause: active.process.cause, fault }
                }));
            }
        }
        hazards.sort_by_key(|hazard| hazard.rank);
        hazards
    }
}

/// Something that ends an attempt at a stage, and how likely.
struct Hazard<'a> {
    rank: usize,
    rate: f64,
    ending: &'a Ending,
    cause: Cause,
    fault: usize,
}

fn rank(stage: Stage) -> usize {
    STAGES.iter().position(|known| *known == stage).unwrap_or(STAGES.len())
}

fn drawn_ending<'h, 'a>(hazards: &'h [Hazard<'a>], rng: &mut Pcg64) -> Option<&'h Hazard<'a>> {
    for of_stage in hazards.chunk_by(|one, other| one.rank == other.rank) {
        let all: f64 = of_stage.iter().map(|hazard| hazard.rate).sum();
        let mut at = rng.random_range(0.0..all.max(1.0));
        for hazard in of_stage {
            at -= hazard.rate;
            if at < 0.0 {
                return Some(hazard);
            }
        }
    }
    None
}

/// Writes down how an attempt ended.
fn end(outcome: &mut Outcome, ending: Option<&Hazard<'_>>) {
    let Some(Hazard { ending, .. }) = ending else {
        outcome.response_code = "00".into();
        outcome.response_spec = "unionpay-pos".into();
        outcome.result = TerminalResult::Approved.into();
        outcome.money_outcome = MoneyOutcome::Moved.into();
        return;
    };
    outcome.terminal_condition = ending.condition.into();
    outcome.response_code.clone_from(&ending.code);
    if !ending.code.is_empty() {
        outcome.response_spec = "unionpay-pos".into();
    }
    let is_open =
        matches!(ending.stage, Stage::Send | Stage::Wait) || ending.condition == TerminalCondition::MacMismatch || ending.code == "68";
    outcome.money_outcome = if is_open { MoneyOutcome::Unknown.into() } else { MoneyOutcome::NotMoved.into() };
    outcome.result = if ending.code.is_empty() { TerminalResult::Failed.into() } else { TerminalResult::Declined.into() };
}

/// The cause that is likeliest where attempts end like this, for somebody who knows how often each does.
fn likeliest(ending: Option<&Hazard<'_>>, hazards: &[Hazard<'_>]) -> Cause {
    let Some(hazard) = ending else { return Cause::Approved };
    let mut causes: BTreeMap<i32, f64> = BTreeMap::new();
    for other in hazards.iter().filter(|other| other.ending == hazard.ending) {
        *causes.entry(other.cause.into()).or_default() += other.rate;
    }
    let most = causes.into_iter().max_by(|(_, one), (_, other)| one.total_cmp(other));
    most.and_then(|(cause, _)| Cause::try_from(cause).ok()).unwrap_or(hazard.cause)
}

/// What a reader remembers of an attempt.
fn read(till: &mut Till, (was_read, any_failed, at_ms): (bool, bool, i64)) {
    let history = &mut till.history;
    history.reads += 1;
    if was_read {
        history.consecutive_failures = 0;
        if let Some(failed) = till.failed_at
            && history.next_good_read_ms.is_none()
        {
            history.next_good_read_ms = u64::try_from(at_ms - failed).ok();
        }
        return;
    }
    history.failures += 1;
    history.consecutive_failures += 1;
    history.failed_sales += u32::from(!any_failed);
    if any_failed || till.failed_at.is_none() {
        history.next_good_read_ms = None;
    }
    till.failed_at = Some(at_ms);
}

/// How long the stages took that an attempt came to.
fn took(stage: Stage, ending: Option<&Hazard<'_>>, rng: &mut Pcg64) -> StageLatencies {
    let mut of = |median: f64| LogNormal::new(median.ln(), 0.4).map_or(median, |times| times.sample(rng)).clamp(1.0, 3_000_000.0) as u32;
    let reached = |other: Stage| rank(stage) >= rank(other);
    let mut took = StageLatencies { card_read_ms: Some(of(1200.0)), ..StageLatencies::default() };
    if reached(Stage::Connect) {
        let lasts = if stage == Stage::Connect && ending.is_some_and(|hazard| hazard.ending.condition == TerminalCondition::ConnectTimeout)
        {
            10_000.0
        } else {
            60.0
        };
        (took.dns_ms, took.connect_ms) = (Some(of(20.0)), Some(of(lasts)));
    }
    if reached(Stage::Tls) {
        took.tls_ms = Some(of(120.0));
    }
    if reached(Stage::Send) {
        took.send_ms = Some(of(15.0));
    }
    if reached(Stage::Wait) {
        took.wait_ms = Some(if stage == Stage::Wait { 60_000 } else { of(700.0) });
    }
    let all = [took.card_read_ms, took.dns_ms, took.connect_ms, took.tls_ms, took.send_ms, took.wait_ms];
    took.total_ms = Some(all.into_iter().flatten().sum());
    took
}

fn rows(text: &str) -> anyhow::Result<Vec<Row>> {
    let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).from_reader(text.as_bytes());
    Ok(reader.deserialize().collect::<Result<_, _>>()?)
}

fn drawn<'a, T>(of: &'a [T], share: impl Fn(&T) -> f64, rng: &mut impl Rng) -> anyhow::Result<&'a T> {
    of.choose_weighted(rng, share).context("nothing to draw from")
}

fn cumulated(shares: impl Iterator<Item = f64>) -> Vec<f64> {
    shares
        .scan(0.0, |all, share| {
            *all += share;
            Some(*all)
        })
        .collect()
}

/// A place, as likely as its share.
fn at(cumulated: &[f64], rng: &mut Pcg64) -> usize {
    let all = cumulated.last().copied().unwrap_or(1.0);
    let drawn = rng.random_range(0.0..all);
    cumulated.partition_point(|below| *below <= drawn)
}
