//! Outcomes from the log of a switch, for a company that cannot change its terminals yet: they take the road that terminals' reports take, through a gateway.
//!
//! ```text
//! log ─▶ lines ─▶ mapping ─▶ events of many terminals ─▶ a batch at a time of each ─▶ gateway
//!                    │                                                            │
//!                refusals                                       how far everything is acknowledged: state
//! ```
//!
//! **What makes it once.** An event is known by (tenant, terminal, spool, sequence). The spool is the log: a hash of how it begins ([`Log`]). The sequence is the
//! number of the line. Of a terminal, a line is sent when all lines before it are settled. So a line has the same identity whenever and wherever it is imported,
//! and one that was counted is a repeat from then on.

mod cells;
mod check;
#[cfg(test)]
mod fuzz;
mod import;
mod lines;
mod log;
mod mapping;
mod reading;
mod refusals;
mod sending;
mod state;
mod window;

pub use check::{Checked, check};
pub use import::{Beside, Gateway, Import, ImportError, Manner, Progress};
pub use lines::Place;
pub use log::{Input, Known, Log, LogError};
pub use mapping::{Mapping, MappingError};
pub use refusals::{Counted, Refusal, RefusalFile};
pub use sending::SendError;
pub use state::{StateError, StateFile};
