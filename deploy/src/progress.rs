//! Progress of long work, for people: a moving line on a terminal, plain lines now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

/// How often a line is written where there is no terminal.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// One piece of work that takes a while.
pub(crate) struct Progress {
    what: String,
    bar: Option<ProgressBar>,
    began: Instant,
    last_plain: Instant,
}

impl Progress {
    pub(crate) fn begin(what: impl Into<String>) -> Self {
        let what = what.into();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner().with_message(what.clone());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        if bar.is_none() {
            tracing::info!("{what} ...");
        }
        let now = Instant::now();
        Progress { what, bar, began: now, last_plain: now }
    }

    /// Shows how much has arrived so far.
    pub(crate) fn bytes(&mut self, bytes: u64) {
        let line = format!("{}: {}", self.what, HumanBytes(bytes));
        match &self.bar {
            Some(bar) => bar.set_message(line),
            None if self.last_plain.elapsed() >= PLAIN_INTERVAL => {
                tracing::info!("{line}");
                self.last_plain = Instant::now();
            }
            None => {}
        }
    }

    pub(crate) fn end(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        tracing::info!("{}: done in {:.1} s", self.what, self.began.elapsed().as_secs_f64());
    }
}
