//! What a fleet reports: outcomes with the content of real ones, the same every time.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use faultline_proto::ingest::v1::{Event, OutcomeBatch};
use faultline_proto::outcome::v1::{
    CardNetwork, CardToken, EmvEvidence, EntryMode, MoneyOutcome, Outcome, ReaderHistory, Stage, StageLatencies, TerminalCondition,
    TerminalResult, TransactionType,
};
use faultline_proto::terminal::v1::TerminalProfile;
use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64;
use serde::Deserialize;

/// Outcomes that the host answered, by code: as they are in a quiet fleet, and a bank that is down.
const ANSWERS: [(&str, u32); 12] = [
    ("00", 820),
    ("51", 45),
    ("61", 10),
    ("55", 12),
    ("54", 5),
    ("14", 4),
    ("05", 15),
    ("91", 30),
    ("96", 10),
    ("68", 5),
    ("A0", 2),
    ("Z9", 2),
];
/// Of a thousand, how many have no answer.
const UNANSWERED: u32 = 40;

/// Events a second of the whole fleet.
pub(crate) const RATE: u32 = 20_000;
/// How long the events of a batch are collected, and how old the last of them is when it arrives, in milliseconds.
const COLLECTED_MS: u64 = 10_000;
const TRAVEL_MS: u64 = 1_500;
/// What the simulated fleet is made of.
const ISSUERS: &str = include_str!("../../../services/simulator/data/issuers.csv");
const MODELS: &str = include_str!("../../../services/simulator/data/models.csv");
const REGIONS: &str = include_str!("../../../services/simulator/data/regions.csv");
const CARRIERS: [&str; 4] = ["46000", "46001", "46003", ""];
/// Chains, beside the shops that are of none.
const MERCHANT_GROUPS: u32 = 200;

/// A batch of a terminal that sends nothing else.
pub(crate) struct Batch {
    pub(crate) message: OutcomeBatch,
    pub(crate) profile: TerminalProfile,
    /// When it arrives, in milliseconds since 1970-01-01 UTC.
    pub(crate) receipt_ms: i64,
}

/// So many events of one spool a terminal, each batch with so many of them and of a terminal of its own. They arrive one after the other, the last of them now.
pub(crate) fn batches(spool_id: u64, (events, of_batch): (usize, usize)) -> anyhow::Result<Vec<Batch>> {
    let mut profiles = Profiles::read()?;
    let begin = SystemTime::now() - Duration::from_secs(u64::try_from(events)?) / RATE;
    let mut outcomes = outcomes(events)?.into_iter();
    let mut batch = |number: usize| {
        let receipt = begin + Duration::from_secs(u64::try_from(number * of_batch)?) / RATE;
        let outcomes = outcomes.by_ref().take(of_batch).collect();
        let message = message(number, (spool_id, 1), outcomes, receipt);
        let receipt_ms = i64::try_from(receipt.duration_since(SystemTime::UNIX_EPOCH)?.as_millis())?;
        Ok(Batch { message, profile: profiles.draw(), receipt_ms })
    };
    (0..events / of_batch).map(&mut batch).collect()
}

/// A batch of a terminal, of these outcomes of a spool, the first with this sequence, sent at a moment.
pub(crate) fn message(terminal: usize, (spool_id, first): (u64, u64), outcomes: Vec<Outcome>, sent: SystemTime) -> OutcomeBatch {
    let apart_ms = COLLECTED_MS / u64::try_from(outcomes.len()).unwrap_or(u64::MAX).max(1);
    let events = (1..).zip(outcomes).map(|(place, outcome)| Event {
        sequence: first + place - 1,
        age_ms: Some(TRAVEL_MS + COLLECTED_MS - place * apart_ms),
        outcome: Some(outcome),
    });
    OutcomeBatch {
        terminal_id: format!("T-{terminal:07}"),
        spool_id,
        send_time: Some(sent.into()),
        events: events.collect(),
        ..OutcomeBatch::default()
    }
}

/// What terminals are, and where: the same every time.
pub(crate) struct Profiles {
    models: Shares,
    regions: Shares,
    random: Pcg64,
}

impl Profiles {
    pub(crate) fn read() -> anyhow::Result<Profiles> {
        Ok(Profiles { models: Shares::read(MODELS)?, regions: Shares::read(REGIONS)?, random: Pcg64::seed_from_u64(2) })
    }

    /// That of the next terminal.
    pub(crate) fn draw(&mut self) -> TerminalProfile {
        let (model, region) = (self.models.draw(&mut self.random), self.regions.draw(&mut self.random));
        profile((model, region), &mut self.random)
    }
}

fn profile((model, region): (Share, Share), random: &mut impl Rng) -> TerminalProfile {
    let chain = random.random_range(0..2 * MERCHANT_GROUPS);
    TerminalProfile {
        model: model.model,
        firmware: model.firmware,
        application: "pay 3.2.1".into(),
        region: region.region,
        carrier: CARRIERS.get(random.random_range(0..CARRIERS.len())).copied().unwrap_or_default().into(),
        merchant_group: if chain < MERCHANT_GROUPS { format!("chain-{chain:03}") } else { String::new() },
        ..TerminalProfile::default()
    }
}

/// A row of one of the simulated fleet's tables.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Share {
    share: f64,
    model: String,
    firmware: String,
    region: String,
    /// Leading digits of cards, separated by a space.
    bins: String,
}

/// Such a table.
struct Shares {
    rows: Vec<Share>,
    index: WeightedIndex<f64>,
}

impl Shares {
    fn read(table: &str) -> anyhow::Result<Shares> {
        let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).from_reader(table.as_bytes());
        let rows: Vec<Share> = reader.deserialize().collect::<Result<_, _>>()?;
        let index = WeightedIndex::new(rows.iter().map(|row| row.share))?;
        Ok(Shares { rows, index })
    }

    fn draw(&self, random: &mut impl Rng) -> Share {
        self.rows.get(self.index.sample(random)).cloned().unwrap_or_default()
    }
}

/// So many outcomes.
pub(crate) fn outcomes(count: usize) -> anyhow::Result<Vec<Outcome>> {
    let issuers = Shares::read(ISSUERS)?;
    let mut random = Pcg64::seed_from_u64(1);
    let modes = [EntryMode::Chip, EntryMode::Contactless, EntryMode::MagneticStripe, EntryMode::Qr];
    let unanswered = [
        (Stage::CardRead, TerminalCondition::ChipRead),
        (Stage::Connect, TerminalCondition::ConnectTimeout),
        (Stage::Tls, TerminalCondition::TlsHandshake),
        (Stage::Wait, TerminalCondition::ResponseTimeout),
        (Stage::PinEntry, TerminalCondition::CancelledByCustomer),
        (Stage::Wait, TerminalCondition::Unspecified),
    ];
    let total: u32 = ANSWERS.iter().map(|(_, share)| share).sum();
    let outcome = |_| {
        let mut outcome = Outcome {
            merchant_id: format!("89844{:010}", random.random_range(0..1_000_000_000u64)),
            entry_mode: modes.get(random.random_range(0..modes.len())).copied().unwrap_or_default().into(),
            amount_minor: random.random_range(100..1_000_000),
            currency_code: "CNY".into(),
            bin: bin(&issuers, &mut random),
            ..evidence(&mut random)
        };
        if random.random_range(0..1000) < UNANSWERED {
            let (stage, condition) = unanswered.get(random.random_range(0..unanswered.len())).copied().unwrap_or_default();
            outcome.stage = stage.into();
            outcome.terminal_condition = condition.into();
            outcome.money_outcome = MoneyOutcome::Unknown.into();
            return outcome;
        }
        let mut place = random.random_range(0..total);
        let answer = ANSWERS.iter().find(|(_, share)| {
            let is_it = place < *share;
            place = place.saturating_sub(*share);
            is_it
        });
        let code = answer.map_or("00", |(code, _)| code);
        outcome.stage = Stage::HostDecision.into();
        outcome.response_code = code.into();
        outcome.response_spec = "unionpay-pos".into();
        outcome.result = if code == "00" { TerminalResult::Approved } else { TerminalResult::Declined }.into();
        outcome
    };
    Ok((0..count).map(outcome).collect())
}

/// Leading digits of a card. Of a hundred cards, one is of a bank that nobody knows.
fn bin(issuers: &Shares, random: &mut impl Rng) -> String {
    if random.random_range(0..100) == 0 {
        return format!("62{:04}", random.random_range(0..10_000));
    }
    let issuer = issuers.draw(random);
    let bins: Vec<&str> = issuer.bins.split(' ').collect();
    bins.get(random.random_range(0..bins.len())).copied().unwrap_or_default().into()
}

/// What every attempt brings with it.
fn evidence(random: &mut impl Rng) -> Outcome {
    let mut ms = |most: u32| Some(random.random_range(1..most));
    let latencies = StageLatencies {
        card_read_ms: ms(900),
        pin_entry_ms: ms(6000),
        dns_ms: ms(40),
        connect_ms: ms(120),
        tls_ms: ms(250),
        send_ms: ms(20),
        wait_ms: ms(2000),
        total_ms: ms(10_000),
        ..StageLatencies::default()
    };
    Outcome {
        store_id: format!("S-{:05}", random.random_range(0..50_000)),
        r#type: TransactionType::Sale.into(),
        card_token: Some(CardToken { key_id: 20_784, value: random.random_range(0..1 << 20) }),
        network: CardNetwork::Unionpay.into(),
        acquirer_id: "48020000".into(),
        host_id: format!("pos-{}", random.random_range(1..4)),
        trace_number: format!("{:06}", random.random_range(0..1_000_000)),
        batch_number: format!("{:06}", random.random_range(0..1000)),
        retrieval_reference_number: format!("{:012}", random.random_range(0..1_000_000_000_000u64)),
        attempt: 1,
        emv: Some(EmvEvidence { terminal_verification_results: Bytes::from_static(&[0, 0, 4, 128, 0]), ..EmvEvidence::default() }),
        latencies: Some(latencies),
        reader_history: Some(ReaderHistory { reads: 200, failures: random.random_range(0..5), ..ReaderHistory::default() }),
        signal_dbm: Some(-random.random_range(50..110)),
        ..Outcome::default()
    }
}
