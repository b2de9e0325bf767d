//! What a fleet reports: outcomes with the content of real ones, the same every time.

use std::time::SystemTime;

use bytes::Bytes;
use faultline_proto::ingest::v1::{Event, OutcomeBatch};
use faultline_proto::outcome::v1::{
    CardNetwork, CardToken, EmvEvidence, EntryMode, MoneyOutcome, Outcome, ReaderHistory, Stage, StageLatencies, TerminalCondition,
    TerminalResult, TransactionType,
};
use faultline_proto::terminal::v1::TerminalProfile;
use prost::Message;
use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64;

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

/// A batch of a terminal that sends nothing else.
pub(crate) struct Batch {
    pub(crate) terminal: String,
    pub(crate) message: OutcomeBatch,
}

/// The profile of all of them: most of a fleet is alike.
pub(crate) fn profile() -> TerminalProfile {
    TerminalProfile {
        model: "PAX A920".into(),
        firmware: "7.1.2".into(),
        application: "pay 3.2.1".into(),
        region: "440300".into(),
        carrier: "46000".into(),
        ..TerminalProfile::default()
    }
}

/// So many events, each batch with so many of them and of a terminal of its own.
pub(crate) fn batches(events: usize, of_batch: usize) -> Vec<Batch> {
    let now = SystemTime::now().into();
    let mut outcomes = outcomes(events).into_iter();
    let batch = |number: usize| {
        let events = outcomes.by_ref().take(of_batch).zip(1..).map(|(outcome, sequence)| Event {
            sequence,
            age_ms: Some(1500),
            outcome: Some(outcome),
        });
        let terminal = format!("T-{number:07}");
        let events = events.collect();
        let message = OutcomeBatch { terminal_id: terminal.clone(), spool_id: 1, send_time: Some(now), events, ..OutcomeBatch::default() };
        Batch { terminal, message }
    };
    (0..events / of_batch).map(batch).collect()
}

impl Batch {
    /// As it is sent.
    pub(crate) fn bytes(&self) -> Bytes {
        self.message.encode_to_vec().into()
    }
}

/// So many outcomes.
pub(crate) fn outcomes(count: usize) -> Vec<Outcome> {
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
            bin: format!("62{:04}", random.random_range(0..10_000)),
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
    (0..count).map(outcome).collect()
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
