//! When a process stops: at the first SIGINT (Ctrl-C), SIGTERM or SIGHUP (its terminal was closed) it drains, at the second it ends.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Catches the signals that ask a process to stop.
#[derive(Debug)]
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl StopSignals {
    /// Begins to catch: from here on none of the signals ends the process.
    ///
    /// # Errors
    /// When the operating system refuses a signal handler.
    pub fn catch() -> io::Result<StopSignals> {
        Ok(StopSignals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal and returns its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.hang_up.recv() => "SIGHUP",
        }
    }
}
