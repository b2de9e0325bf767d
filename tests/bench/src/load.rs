//! A fleet that reports at an even rate, whatever becomes of it: each terminal batch after batch of one spool.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use faultline_proto::outcome::v1::Outcome;
use faultline_proto::terminal::v1::TerminalProfile;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::{Code, Status};

use crate::fleet::{self, Profiles, RATE};
use crate::gateway::{Connection, Gateway, all};

const OF_BATCH: usize = 10;
const SPOOL: u64 = 1;
/// Streams, each of as many terminals, one batch on its way; and connections that they share.
const STREAMS: usize = 512;
const TERMINALS_OF_STREAM: usize = 80;
const CONNECTIONS: usize = 16;
/// Batches that differ in more than their terminal: more than any cache holds.
const CONTENTS: usize = 10_000;
/// Before a batch is sent again.
const PAUSE: Duration = Duration::from_secs(1);

/// So many terminals; each reports every twenty seconds.
pub(crate) const TERMINALS: usize = STREAMS * TERMINALS_OF_STREAM;

/// A fleet that reports, until it is stopped.
pub(crate) struct Load {
    streams: JoinSet<anyhow::Result<()>>,
    shared: Arc<Shared>,
}

struct Shared {
    begin: Instant,
    contents: Vec<Vec<Outcome>>,
    acknowledged: AtomicU64,
    sent_again: AtomicU64,
    may_stop: AtomicBool,
}

impl Load {
    pub(crate) async fn start(gateway: &Gateway) -> anyhow::Result<Load> {
        let contents = fleet::outcomes(CONTENTS * OF_BATCH)?.chunks(OF_BATCH).map(<[Outcome]>::to_vec).collect();
        let mut profiles = Profiles::read()?;
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(gateway.connect().await?);
        }
        let shared = Arc::new(Shared {
            begin: Instant::now(),
            contents,
            acknowledged: AtomicU64::default(),
            sent_again: AtomicU64::default(),
            may_stop: AtomicBool::default(),
        });
        let mut streams = JoinSet::new();
        for (number, connection) in (0..STREAMS).zip(connections.iter().cycle()) {
            streams.spawn(report(Arc::clone(&shared), (connection.clone(), profiles.draw()), number));
        }
        Ok(Load { streams, shared })
    }

    /// Events that are acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Batches that had to be sent again so far.
    pub(crate) fn sent_again(&self) -> u64 {
        self.shared.sent_again.load(Ordering::Relaxed)
    }

    /// Waits until somebody gave up, and says why.
    pub(crate) async fn failed(&mut self) -> anyhow::Error {
        match self.streams.join_next().await {
            Some(Ok(Err(error))) => error.context("a terminal gave up"),
            _ => anyhow::anyhow!("a terminal ended"),
        }
    }

    /// Waits until what was begun is acknowledged. Returns how many events are.
    pub(crate) async fn stop(self) -> anyhow::Result<u64> {
        self.shared.may_stop.store(true, Ordering::Relaxed);
        all(self.streams).await?;
        Ok(self.shared.acknowledged.load(Ordering::Relaxed))
    }
}

/// Reports for the terminals of a stream, in turn, each batch when it is due, or as soon as the one before it is acknowledged.
async fn report(shared: Arc<Shared>, (connection, profile): (Connection, TerminalProfile), place: usize) -> anyhow::Result<()> {
    let mut stream = connection.stream(profile.clone()).await?;
    for number in 0.. {
        let of_fleet = number * STREAMS + place;
        sleep_until(shared.begin + Duration::from_secs(u64::try_from(of_fleet * OF_BATCH)?) / RATE).await;
        if shared.may_stop.load(Ordering::Relaxed) {
            break;
        }
        let (round, terminal) = (number / TERMINALS_OF_STREAM, place + STREAMS * (number % TERMINALS_OF_STREAM));
        let first = u64::try_from(round * OF_BATCH)? + 1;
        let outcomes = shared.contents.get(of_fleet % CONTENTS).cloned().unwrap_or_default();
        let batch = fleet::message(terminal, (SPOOL, first), outcomes, SystemTime::now());
        while let Err(error) = stream.report(batch.clone()).await {
            let code = error.downcast_ref::<Status>().map(Status::code);
            if !matches!(code, Some(Code::ResourceExhausted | Code::Unavailable)) {
                return Err(error);
            }
            shared.sent_again.fetch_add(1, Ordering::Relaxed);
            sleep(PAUSE).await;
            stream = connection.stream(profile.clone()).await?;
        }
        shared.acknowledged.fetch_add(u64::try_from(OF_BATCH)?, Ordering::Relaxed);
    }
    Ok(())
}
