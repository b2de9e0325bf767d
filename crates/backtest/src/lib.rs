//! The detector over a past: which incidents it would have opened, and how right they are.
//!
//! A past is a directory of counts ([`Directory`]), or whatever somebody else drives a detector with; what the detector says becomes [`Found`]
//! incidents ([`Finding`]). With labels, incidents are scored ([`Score`]): which faults were found, how fast, by which name, and what was no fault.
//!
//! ```text
//! history.csv.gz ─▶ what is usual, hour by hour ─┐
//! calendar.csv ───▶ what was announced ──────────┤
//! counts.csv.gz ──▶ ten seconds of event time ───┴▶ detector ─▶ changes ─▶ incidents ─▶ beside labels.csv and oracle.csv ─▶ scores
//!                         └▶ failing leaves ◀── question ─┘
//! ```
//!
//! The detector is driven as the alerter does it: it is told the counts of a tick when the tick is over, and asks what failed. What arrived later than
//! its tick is in no statistic. The same directory gives the same incidents.

mod directory;
mod field;
mod found;
mod leaves;
mod run;
mod score;
mod yardstick;

pub use crate::directory::Directory;
pub use crate::field::ReadError;
pub use crate::found::{Finding, Found, write_incidents};
pub use crate::run::{Progress, Ran, run};
pub use crate::score::{Fault, Oracle, OracleClass, Outcome, Score, Summary, Verdict, percentile, read_labels, read_oracle, score};
pub use crate::yardstick::{cause_of, slice_named, slice_text};

#[cfg(test)]
mod tests;
