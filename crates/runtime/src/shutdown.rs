//! When a process stops: at the first SIGINT (Ctrl-C) or SIGTERM it drains, at the second it ends.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Catches the signals that ask a process to stop.
#[derive(Debug)]
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// Begins to catch: from here on a signal no longer ends the process.
    ///
    /// # Errors
    /// When the operating system refuses a signal handler.
    pub fn catch() -> io::Result<StopSignals> {
        Ok(StopSignals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for a signal and returns its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
