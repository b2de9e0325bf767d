//! Incidents as a backtest says them.

use std::io::{self, Write};

use faultline_detect::{Change, Incident, Signal, State};

use crate::yardstick::{cause_of, slice_text};

/// An incident that would have been opened. Times are in seconds since 1970-01-01 UTC.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The incident as it was last.
    pub incident: Incident,
    /// The signals that it was ever seen by, in order.
    pub signals: Vec<Signal>,
    /// How often it was opened again after it had been closed.
    pub reopened: u32,
}

impl Found {
    /// When it was closed; nothing where it was open to the end.
    #[must_use]
    pub fn closed(&self) -> Option<u32> {
        self.incident.closed.filter(|_| matches!(self.incident.state, State::Closed | State::Abandoned))
    }

    /// What fails, in the words of the yardstick.
    #[must_use]
    pub fn cause(&self) -> &'static str {
        cause_of(self.signals.iter().copied())
    }
}

/// Incidents, by what a detector says of them.
#[derive(Clone, Debug, Default)]
pub struct Finding {
    found: Vec<Found>,
}

impl Finding {
    /// Takes in changes, in order.
    pub fn take_in(&mut self, changes: Vec<Change>) {
        for Change { what, incident } in changes {
            let place = self
                .found
                .iter()
                .rposition(|found| found.incident.opened == incident.opened && found.incident.first_slice == incident.first_slice);
            let signals = incident.watches.iter().map(|watch| watch.signal);
            let Some(found) = place.and_then(|place| self.found.get_mut(place)) else {
                self.found.push(Found { signals: signals.collect(), incident, reopened: 0 });
                continue;
            };
            for signal in signals {
                if !found.signals.contains(&signal) {
                    found.signals.push(signal);
                }
            }
            found.reopened += u32::from(what == faultline_detect::What::Reopened);
            found.incident = incident;
        }
    }

    /// The incidents, in order of their opening.
    #[must_use]
    pub fn found(&self) -> &[Found] {
        &self.found
    }

    /// All of them.
    #[must_use]
    pub fn into_found(self) -> Vec<Found> {
        self.found
    }
}

/// Writes incidents as the yardstick's scorer reads them: `opened_at,closed_at,slice,cause,first_slice`.
///
/// # Errors
/// When they cannot be written.
pub fn write_incidents(found: &[Found], mut output: impl Write) -> io::Result<()> {
    writeln!(output, "opened_at,closed_at,slice,cause,first_slice")?;
    for one in found {
        let closed = one.closed().map(|closed| closed.to_string()).unwrap_or_default();
        let (slice, first) = (slice_text(&one.incident.slice), slice_text(&one.incident.first_slice));
        writeln!(output, "{},{closed},{slice},{},{first}", one.incident.opened, one.cause())?;
    }
    output.flush()
}
