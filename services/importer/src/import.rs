//! A log from its first new line to its last: the whole import, in one place.
//!
//! ```text
//! greet ─▶ state: where to go on ─▶ read and map (a thread) ─▶ window ─▶ batches, several at a time ─▶ settled ─▶ refusals, then state
//!                                            ▲ blocks, 4 at most │              ▲ one a terminal          │
//!                                            └─── waits for room ┘              └────────── the next ─────┘
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use faultline_sdk::{Connection, ConnectionError};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::lines::Place;
use crate::log::{Log, LogError};
use crate::mapping::Mapping;
use crate::reading::{Block, GatewayClock, Reading};
use crate::refusals::{Counted, Refusal, RefusalFile};
use crate::sending::{SendError, Sender, Settled, Standing};
use crate::state::{Keeper, StateError, StateFile};
use crate::window::{Batch, Window};

/// Blocks of lines that are read ahead of the window.
const BLOCKS_AHEAD: usize = 4;
/// Calls that share a connection.
const PER_CONNECTION: usize = 16;
/// How often it is kept how far the log is imported, and said how it goes.
const KEEP: Duration = Duration::from_secs(1);
/// How long lines may be waited for until batches need not be full.
const IDLE: Duration = Duration::from_millis(250);
/// How long what is on its way may take after a stop.
const LAST_ANSWERS: Duration = Duration::from_secs(10);
/// A difference between this machine's clock and the gateway's that is worth a word, in milliseconds.
const CLOCK_OFF_MS: i64 = 5000;
/// Refusals that are shown.
const SHOWN: usize = 5;

/// Where outcomes are sent.
#[derive(Clone)]
pub struct Gateway {
    /// `http://host:port` or `https://host:port`.
    pub address: String,
    /// A token of every terminal of a tenant.
    pub token: String,
    /// For TLS, the certificate (PEM) of the authority that vouches for it.
    pub ca_certificate: Option<String>,
}

/// How an import goes about it.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Batches that are on their way at a time, each of another terminal. At least 1.
    pub concurrency: usize,
    /// Whether the first line that cannot be imported ends it.
    pub is_strict: bool,
    /// For how long the gateway may not be reached. None: for ever.
    pub give_up_after: Option<Duration>,
}

/// What goes beside a log.
pub struct Beside<'a> {
    /// Where it is kept how far it is imported; nowhere: every import begins at the first line.
    pub state: Option<&'a StateFile>,
    /// The log's name, where it was given one.
    pub source: Option<&'a str>,
    /// Where lines are written that are not imported, with the name of the file.
    pub refusals: Option<(&'a mut RefusalFile, PathBuf)>,
}

/// Why a log is not imported to its end. What was acknowledged stays so, and the next import goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// It is not known, or cannot be kept, how far it is imported.
    #[error(transparent)]
    State(#[from] StateError),
    /// Nothing more can be sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The file of refusals cannot be written.
    #[error("cannot write {} (--rejects)", path.display())]
    Refusals {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line cannot be imported, and none was to be left out.
    #[error("line {line} cannot be imported (--strict): {reason}: {field} {description}")]
    Strict {
        /// The line.
        line: u64,
        /// Kind of reason.
        reason: &'static str,
        /// Path of the field.
        field: String,
        /// What is wrong with it.
        description: String,
    },
    /// The gateway was not reached for too long.
    #[error("the gateway was not reached for {:.0} s (--give-up-after): {problem}", after.as_secs_f32())]
    GaveUp {
        /// For so long.
        after: Duration,
        /// What was in the way.
        problem: String,
    },
    /// A part of this program has failed.
    #[error("a task failed")]
    Task(#[from] JoinError),
}

/// How an import goes, from its beginning.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// For how long.
    pub elapsed: Duration,
    /// Where it began.
    pub from: Place,
    /// Every line up to there is acknowledged, or was not to be imported.
    pub imported: Place,
    /// Lines that were read.
    pub lines: u64,
    /// Lines that are no outcomes: empty, comments, or skipped by the mapping.
    pub skipped: u64,
    /// Outcomes that the gateway acknowledged. It does not say which of them it had before.
    pub acknowledged: u64,
    /// Lines that cannot be imported.
    pub refused: Counted,
    /// The first of them.
    pub first_refused: Vec<Refusal>,
    /// Values that were left out and not refused, by field.
    pub left_out: BTreeMap<String, u64>,
    /// Outcomes in whose free text a card number was overwritten.
    pub redacted: u64,
    /// How much of the input was read, from 0 to 1, where that is known; and at the beginning.
    pub share_read: Option<f64>,
    /// See `share_read`.
    pub share_before: f64,
    /// What is in the way; empty where nothing is.
    pub problem: String,
    /// Whether the log ends in a line without an end, which waits for the next import.
    pub has_unfinished: bool,
}

impl Progress {
    /// Lines of which it is known what became of them.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.acknowledged + self.skipped + self.refused.lines()
    }

    /// How much of what is to be imported is settled, from 0 to 1, where that can be told.
    #[must_use]
    pub fn share_settled(&self) -> Option<f64> {
        let read = (self.share_read? - self.share_before) / (1.0 - self.share_before);
        #[expect(clippy::cast_precision_loss, reason = "a share that is shown")]
        let of_read = self.settled() as f64 / self.lines as f64;
        Some(read * of_read).filter(|share| share.is_finite())
    }
}

/// A mapping and a gateway: what logs are imported with, one after the other.
pub struct Import {
    mapping: Arc<Mapping>,
    connections: Vec<Connection>,
    manner: Manner,
}

impl Import {
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// When the gateway's address, token or certificate cannot be used.
    pub fn new(mapping: Mapping, gateway: &Gateway, manner: Manner) -> Result<Import, ConnectionError> {
        let connect = || {
            let builder = Connection::builder(gateway.address.as_str(), gateway.token.as_str());
            gateway.ca_certificate.iter().fold(builder, |builder, pem| builder.ca_certificate(pem.as_str())).build()
        };
        let manner = Manner { concurrency: manner.concurrency.max(1), ..manner };
        let connections = (0..manner.concurrency.div_ceil(PER_CONNECTION)).map(|_| connect()).collect::<Result<_, _>>()?;
        Ok(Import { mapping: Arc::new(mapping), connections, manner })
    }

    /// Imports what is new in a log, until its end or `stop`.
    ///
    /// # Errors
    /// When it is not imported to its end. `progress` has what was, to the last.
    pub async fn run(
        &self,
        log: Log,
        mut beside: Beside<'_>,
        (stop, progress): (CancellationToken, &watch::Sender<Progress>),
    ) -> Result<(), ImportError> {
        progress.send_replace(Progress::default());
        let begin = Instant::now();
        let from = beside.state.map_or(Ok(Place::default()), |state| state.place_of(&log, beside.source))?;
        let mut keeper = beside.state.map(|state| state.keeper(&log, from));
        let share_read = log.share_read();
        #[expect(clippy::cast_precision_loss, reason = "a share that is shown")]
        let share_before = log.length().map_or(0.0, |length| from.bytes as f64 / length.max(1) as f64);
        let (name, spool) = (log.name.clone(), log.spool);

        let standing = watch::Sender::new(Standing { answered: begin, problem: String::new() });
        let mut sender = Sender { spool, clock: GatewayClock::default(), standing, stop: stop.child_token() };
        let Some(connection) = self.connections.first() else { return Ok(()) };
        let greeting = tokio::select! {
            greeting = sender.greet(connection) => greeting?,
            error = self.give_up(&sender, progress) => return Err(error),
            () = stop.cancelled() => return Err(SendError::Stopped.into()),
        };
        sender.clock = greeting.clock;
        if greeting.clock.ahead_ms.abs() > CLOCK_OFF_MS {
            let seconds = greeting.clock.ahead_ms / 1000;
            tracing::warn!("this machine's clock is {seconds} s from the gateway's, which is the one that counts");
        }

        let (blocks, mut receiver) = mpsc::channel(BLOCKS_AHEAD);
        let (mapping, is_strict) = (Arc::clone(&self.mapping), self.manner.is_strict);
        let reading = spawn_blocking(move || {
            let mut reading = Reading::begin(log, mapping, from, greeting.clock)?;
            read(&mut reading, is_strict, &blocks)
        });
        let mut run = Run {
            window: Window::new(greeting.limits, from),
            progress: Progress { from, imported: from, share_before, ..Progress::default() },
            log: (name, spool),
            beside: &mut beside,
            is_strict: self.manner.is_strict,
            strict: None,
        };
        let mut calls: JoinSet<Result<(Batch, Settled), SendError>> = JoinSet::new();
        let mut tick = interval(KEEP);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut is_read, mut idle_at) = (false, begin + IDLE);
        let mut next_connection = self.connections.iter().cycle();
        let ended = loop {
            let is_stopping = stop.is_cancelled();
            let is_idle = Instant::now() >= idle_at;
            while calls.len() < self.manner.concurrency && !is_stopping {
                let Some(batch) = run.window.next(is_read || is_idle || run.window.is_half_full()) else { break };
                let Some(connection) = next_connection.next().cloned() else { break };
                let sender = sender.clone();
                calls.spawn(async move { sender.settle(&connection, &batch).await.map(|settled| (batch, settled)) });
            }
            if is_stopping || (is_read && calls.is_empty()) {
                break if is_stopping { Err(SendError::Stopped.into()) } else { Ok(()) };
            }
            tokio::select! {
                block = receiver.recv(), if !is_read && run.window.has_room() => match block {
                    Some(block) => {
                        run.take(block)?;
                        idle_at = Instant::now() + IDLE;
                    }
                    None => is_read = true,
                },
                Some(call) = calls.join_next() => match call? {
                    Ok((batch, settled)) => {
                        run.settle(&batch, settled)?;
                        if run.strict.is_some() && !is_read {
                            break Ok(());
                        }
                    }
                    Err(error) => break Err(error.into()),
                },
                _ = tick.tick() => {
                    run.tell(begin, (share_read(), sender.standing.borrow().problem.clone()), progress);
                    keeper = run.keep(keeper).await?;
                    if let Some(error) = self.gave_up(&sender).filter(|_| !calls.is_empty()) {
                        break Err(error);
                    }
                }
                () = sleep_until(idle_at), if !is_idle => {}
                () = stop.cancelled() => {}
            }
        };
        drop(receiver);
        // What is on its way has its answers waited for, whatever ended it.
        sender.stop.cancel();
        let last_answers = async {
            while let Some(call) = calls.join_next().await {
                if let Ok(Ok((batch, settled))) = call {
                    run.settle(&batch, settled)?;
                }
            }
            Ok::<(), ImportError>(())
        };
        let settled = timeout(LAST_ANSWERS, last_answers).await.unwrap_or(Ok(()));
        run.keep(keeper).await?;
        // Nobody waits for a pipe that nothing comes from.
        let read = if is_read { reading.await? } else { Ok(false) };
        run.progress.has_unfinished = *read.as_ref().unwrap_or(&false);
        run.tell(begin, (share_read(), sender.standing.borrow().problem.clone()), progress);
        let strict = run.strict.take();
        ended.and(settled)?;
        read?;
        match strict {
            Some(Refusal { line, reason, field, description }) => Err(ImportError::Strict { line, reason, field, description }),
            None => Ok(()),
        }
    }

    /// What it gives up with, if it is to give up now.
    fn gave_up(&self, sender: &Sender) -> Option<ImportError> {
        let Standing { answered, problem } = sender.standing.borrow().clone();
        let after = self.manner.give_up_after.filter(|after| !problem.is_empty() && answered.elapsed() >= *after)?;
        Some(ImportError::GaveUp { after, problem })
    }

    /// Waits until it is to give up.
    async fn give_up(&self, sender: &Sender, progress: &watch::Sender<Progress>) -> ImportError {
        let mut tick = interval(KEEP);
        loop {
            tick.tick().await;
            progress.send_modify(|progress| progress.problem.clone_from(&sender.standing.borrow().problem));
            if let Some(error) = self.gave_up(sender) {
                return error;
            }
        }
    }
}

/// Reads to the end, or until nobody takes what is read. Returns whether the last bytes are no whole line.
fn read(reading: &mut Reading, is_strict: bool, blocks: &mpsc::Sender<Block>) -> Result<bool, LogError> {
    while let Some(block) = reading.next_block(is_strict)? {
        let is_last = is_strict && !block.refusals.is_empty();
        if blocks.blocking_send(block).is_err() || is_last {
            break;
        }
    }
    Ok(reading.has_unfinished)
}

/// An import at work.
struct Run<'a, 'b> {
    window: Window,
    progress: Progress,
    log: (String, u64),
    beside: &'a mut Beside<'b>,
    is_strict: bool,
    /// What ends a strict import.
    strict: Option<Refusal>,
}

impl Run<'_, '_> {
    fn take(&mut self, mut block: Block) -> Result<(), ImportError> {
        self.progress.lines += block.lines;
        self.progress.skipped += block.skipped;
        for field in block.left_out.drain(..) {
            *self.progress.left_out.entry(field).or_default() += 1;
        }
        for refusal in std::mem::take(&mut block.refusals) {
            self.refuse(refusal)?;
        }
        self.window.add(block);
        Ok(())
    }

    fn settle(&mut self, batch: &Batch, settled: Settled) -> Result<(), ImportError> {
        self.progress.acknowledged += settled.acknowledged;
        self.progress.redacted += settled.redacted;
        for (field, events) in settled.left_out {
            *self.progress.left_out.entry(field).or_default() += events;
        }
        // Where that ends a strict import, the next is to begin before it.
        let is_done = !self.is_strict || settled.refusals.is_empty();
        for refusal in settled.refusals {
            self.refuse(refusal)?;
        }
        if is_done {
            self.window.settle(batch);
        }
        Ok(())
    }

    fn refuse(&mut self, refusal: Refusal) -> Result<(), ImportError> {
        self.progress.refused.count(&refusal);
        if let Some((file, path)) = &mut self.beside.refusals {
            let written = file.write((&self.log.0, self.log.1), &refusal);
            written.map_err(|source| ImportError::Refusals { path: path.clone(), source })?;
        }
        if self.progress.first_refused.len() < SHOWN {
            self.progress.first_refused.push(refusal.clone());
        }
        if self.is_strict {
            self.strict.get_or_insert(refusal);
        }
        Ok(())
    }

    fn tell(&mut self, begin: Instant, (share_read, problem): (Option<f64>, String), progress: &watch::Sender<Progress>) {
        self.progress.elapsed = begin.elapsed();
        self.progress.imported = self.window.done();
        self.progress.share_read = share_read;
        self.progress.problem = problem;
        progress.send_replace(self.progress.clone());
    }

    /// Keeps how far the log is imported: first what was refused until there, then the place.
    async fn keep(&mut self, keeper: Option<Keeper>) -> Result<Option<Keeper>, ImportError> {
        let done = self.window.done();
        if let Some((file, path)) = &mut self.beside.refusals {
            file.keep().map_err(|source| ImportError::Refusals { path: path.clone(), source })?;
        }
        let Some(mut keeper) = keeper else { return Ok(None) };
        let kept = spawn_blocking(move || keeper.keep(done).map(|()| keeper)).await?;
        Ok(Some(kept?))
    }
}
