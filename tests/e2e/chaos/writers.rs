//! Terminals that do what a bad network makes of good ones: they report over several connections to several gateways, do not wait long for an answer, report
//! the same again while the first is still on its way, and report what was acknowledged long ago.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use faultline_proto::ingest::v1::stream_outcomes_request::Message as Request;
use faultline_proto::ingest::v1::stream_outcomes_response::Message as Response;
use faultline_proto::ingest::v1::{BatchAcknowledgement, Event, OutcomeBatch};
use faultline_proto::outcome::v1::{MoneyOutcome, OriginalTransaction, Outcome, TransactionType};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::terminal::{Terminal, in_seconds, outcome, profile};

/// How long everything that was begun may take to be acknowledged.
const PATIENCE: Duration = Duration::from_secs(300);
/// Reports that nobody waits for any more, at one time.
const FORGOTTEN: usize = 64;
/// Of the money of the first of so many sales nothing is known, until the second, its reversal, tells.
pub(crate) const REVERSED: u64 = 16;
/// Answers of the host, one after the other.
const CODES: [&str; 8] = ["00", "00", "00", "51", "91", "05", "", "ZZ"];
const BINS: [&str; 4] = ["622848", "622202", "621700", "999999"];

/// How much is reported.
#[derive(Clone, Copy)]
pub(crate) struct Volume {
    pub(crate) terminals: u64,
    pub(crate) events_a_batch: u64,
    /// Between two batches of a terminal, on average.
    pub(crate) pause: Duration,
}

/// Spool of a terminal.
fn spool(terminal: u64) -> u64 {
    1000 + terminal
}

/// What a terminal reports with a sequence, from 1. Its amount is the sequence.
fn reported(terminal: u64, sequence: u64) -> Outcome {
    let plain = Outcome {
        amount_minor: i64::try_from(sequence).unwrap(),
        bin: BINS[usize::try_from(terminal % 4).unwrap()].into(),
        response_code: code(terminal, sequence).into(),
        acquirer_id: "48020000".into(),
        host_id: format!("host-{}", terminal % 3),
        ..outcome()
    };
    match sequence % REVERSED {
        1 => Outcome { money_outcome: MoneyOutcome::Unknown.into(), ..plain },
        2 => {
            let original = OriginalTransaction { spool_id: spool(terminal), sequence: sequence - 1, ..OriginalTransaction::default() };
            Outcome { r#type: TransactionType::Reversal.into(), original: Some(original), ..plain }
        }
        _ => plain,
    }
}

/// The host's answer.
pub(crate) fn code(terminal: u64, sequence: u64) -> &'static str {
    match sequence % REVERSED {
        1 => "",
        2 => "00",
        _ => CODES[usize::try_from((terminal + sequence) % 8).unwrap()],
    }
}

/// Of so many sequences, the sales of which a reversal told.
pub(crate) fn reversed(last: u64) -> u64 {
    (last + REVERSED - 2) / REVERSED
}

/// What all terminals share.
struct World {
    ways: Vec<Terminal>,
    volume: Volume,
    /// How far the terminals' clocks are ahead, in seconds.
    ahead_s: AtomicI64,
    acknowledged: Vec<AtomicU64>,
    counts: Counts,
    forgotten: Arc<Semaphore>,
    /// What nobody waits for, until the end.
    background: Mutex<JoinSet<()>>,
    enough: CancellationToken,
}

/// What happened to reports.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// That were told to come again, or lost their connection.
    pub(crate) failed: AtomicU64,
    /// That nobody waited for any more, and that were repeated while they were on their way.
    pub(crate) overtaken: AtomicU64,
    /// Of what had been acknowledged.
    pub(crate) repeated: AtomicU64,
}

impl World {
    /// Events a terminal has made, in the order of their sequences.
    fn batch(&self, terminal: u64, number: u64) -> OutcomeBatch {
        let of_batch = self.volume.events_a_batch;
        let event = |place: u64| {
            let sequence = number * of_batch + place + 1;
            let outcome = reported(terminal, sequence);
            // Some are dated by the terminal's clock.
            if sequence % REVERSED == 7 {
                let now = in_seconds(self.ahead_s.load(Ordering::Relaxed));
                return Event { sequence, age_ms: None, outcome: Some(Outcome { completion_time: Some(now), ..outcome }) };
            }
            Event { sequence, age_ms: Some((of_batch - place) * 20), outcome: Some(outcome) }
        };
        OutcomeBatch {
            terminal_id: name(terminal),
            spool_id: spool(terminal),
            events: (0..of_batch).map(event).collect(),
            profile: Some(profile()),
            ..OutcomeBatch::default()
        }
    }

    fn background(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.background.lock().unwrap()
    }

    /// Reports it over some connection. Returns whether it was acknowledged.
    async fn report(&self, batch: &OutcomeBatch) -> bool {
        let way = &self.ways[fastrand::usize(..self.ways.len())];
        let batch = OutcomeBatch { send_time: Some(in_seconds(self.ahead_s.load(Ordering::Relaxed))), ..batch.clone() };
        let last = batch.events.last().unwrap().sequence;
        let answer = if fastrand::bool() { way.report(batch).await } else { over_a_stream(way, batch).await };
        match answer {
            Ok(acknowledgement) => {
                assert_eq!(acknowledgement.refusals, []);
                assert_eq!(acknowledgement.acknowledged_through, last);
                true
            }
            Err(status) => {
                assert_ne!(status.code(), tonic::Code::InvalidArgument, "{status}");
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
                false
            }
        }
    }
}

/// Reports it over a stream of its own.
async fn over_a_stream(way: &Terminal, batch: OutcomeBatch) -> Result<BatchAcknowledgement, Status> {
    let mut stream = way.try_stream().await?;
    stream.send(Request::Batch(batch)).await;
    match stream.next().await? {
        Some(Response::Acknowledgement(acknowledgement)) => Ok(acknowledgement),
        other => Err(Status::unavailable(format!("{other:?} is no acknowledgement"))),
    }
}

pub(crate) fn name(terminal: u64) -> String {
    format!("T-{terminal:03}")
}

/// Terminals that report until it is enough.
pub(crate) struct Writers {
    world: Arc<World>,
    running: JoinSet<()>,
}

impl Writers {
    /// Each uses all of these ways.
    pub(crate) fn start(ways: Vec<Terminal>, volume: Volume) -> Writers {
        let world = Arc::new(World {
            ways,
            volume,
            ahead_s: AtomicI64::new(0),
            acknowledged: (0..volume.terminals).map(|_| AtomicU64::new(0)).collect(),
            counts: Counts::default(),
            forgotten: Arc::new(Semaphore::new(FORGOTTEN)),
            background: Mutex::default(),
            enough: CancellationToken::new(),
        });
        let mut running = JoinSet::new();
        for terminal in 0..volume.terminals {
            running.spawn(run(Arc::clone(&world), terminal));
        }
        Writers { world, running }
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.world.counts
    }

    /// Events that were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.world.acknowledged.iter().map(|batches| batches.load(Ordering::Relaxed)).sum::<u64>() * self.world.volume.events_a_batch
    }

    /// Lets all their clocks jump, by so many seconds.
    pub(crate) fn set_clocks_forward(&self, seconds: i64) {
        self.world.ahead_s.fetch_add(seconds, Ordering::Relaxed);
    }

    /// Lets them bring what they have begun to its end. Returns the last sequence of each terminal that was acknowledged.
    pub(crate) async fn stop(mut self) -> Vec<u64> {
        self.world.enough.cancel();
        let all = async {
            while let Some(ended) = self.running.join_next().await {
                ended.unwrap();
            }
            let mut background = std::mem::take(&mut *self.world.background());
            while let Some(ended) = background.join_next().await {
                ended.unwrap();
            }
        };
        timeout(PATIENCE, all).await.expect("not all is acknowledged");
        self.world.acknowledged.iter().map(|batches| batches.load(Ordering::Relaxed) * self.world.volume.events_a_batch).collect()
    }
}

/// The life of a terminal.
async fn run(world: Arc<World>, terminal: u64) {
    let pause_ms = u64::try_from(world.volume.pause.as_millis()).unwrap();
    for number in 0.. {
        let batch = Arc::new(world.batch(terminal, number));
        while !is_acknowledged(&world, &batch).await {
            sleep(Duration::from_millis(fastrand::u64(50..400))).await;
        }
        world.acknowledged[usize::try_from(terminal).unwrap()].fetch_add(1, Ordering::Relaxed);
        if fastrand::u8(..7) == 0 {
            // This one or an older one, while what comes next is reported.
            let older = Arc::new(world.batch(terminal, number - fastrand::u64(..4).min(number)));
            world.counts.repeated.fetch_add(1, Ordering::Relaxed);
            let again = Arc::clone(&world);
            world.background().spawn(async move {
                again.report(&older).await;
            });
        }
        let pause = Duration::from_millis(fastrand::u64(pause_ms / 2..=pause_ms * 3 / 2));
        if world.enough.run_until_cancelled(sleep(pause)).await.is_none() {
            return;
        }
    }
}

/// Reports a batch, and does not wait long: what has no answer by then goes on by itself.
async fn is_acknowledged(world: &Arc<World>, batch: &Arc<OutcomeBatch>) -> bool {
    let mut report = {
        let (world, batch) = (Arc::clone(world), Arc::clone(batch));
        tokio::spawn(async move { world.report(&batch).await })
    };
    if let Ok(ended) = timeout(Duration::from_millis(fastrand::u64(300..5000)), &mut report).await {
        return ended.unwrap();
    }
    world.counts.overtaken.fetch_add(1, Ordering::Relaxed);
    // Not more of them than the gateways would have to keep.
    let Ok(permit) = Arc::clone(&world.forgotten).try_acquire_owned() else { return report.await.unwrap() };
    world.background().spawn(async move {
        report.await.unwrap();
        drop(permit);
    });
    false
}
