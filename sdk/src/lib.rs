//! Faultline in a terminal: report how each transaction attempt ended, and it gets there, once, whatever the network does.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use faultline_sdk::outcome::{Outcome, Stage, TransactionType};
//! use faultline_sdk::{Connection, Terminal, TerminalProfile};
//!
//! # async fn example(token: String) -> Result<(), Box<dyn std::error::Error>> {
//! let connection = Connection::builder("http://127.0.0.1:15051", token).build()?;
//! let profile = TerminalProfile { model: "PAX A920".into(), region: "440000".into(), ..TerminalProfile::default() };
//! let terminal = Terminal::builder(&connection, "T-1").profile(profile).start()?;
//!
//! let outcome = Outcome {
//!     merchant_id: "898440351980019".into(),
//!     r#type: TransactionType::Sale.into(),
//!     stage: Stage::HostDecision.into(),
//!     response_code: "91".into(),
//!     amount_minor: 1234,
//!     currency_code: "CNY".into(),
//!     ..Outcome::default()
//! };
//! let reported = terminal.report(outcome)?; // Returns at once, with or without a network.
//! let verdict = reported.verdict; // Whose fault it is, and what to do.
//! println!("{:?} ({} %): {}", verdict.cause, verdict.confidence, verdict.cashier.zh_cn);
//!
//! terminal.close(Duration::from_secs(10)).await; // Before the application ends.
//! # Ok(())
//! # }
//! ```
//!
//! **What is promised.** A reported event has an identity (terminal, spool, sequence), stays in the [`Spool`] until Faultline has acknowledged it, and is sent
//! again with the same identity until then; Faultline counts it once. With [`MemorySpool`] that holds as long as the process lives. What had to be
//! dropped, because the spool was full, is declared and counted.
//!
//! **Verdicts** are given in the terminal, by rules that come with this library: no network is needed. [`TerminalRules::signed_by`] lets the operator replace them while terminals
//! work: the gateway has newer ones, and what is not signed with one of the keys that the application brings along is refused.
//!
//! ```no_run
//! # use faultline_sdk::{Connection, Terminal, TerminalRules};
//! # async fn example(connection: Connection, kept: Option<Vec<u8>>) -> Result<(), Box<dyn std::error::Error>> {
//! let rules = TerminalRules::signed_by(["4f1c...".parse()?])?; // As `faultline rules keygen` prints it.
//! if let Some(bundle) = kept {
//!     rules.take(&bundle)?; // From an earlier run: then a terminal that starts without a network has them too.
//! }
//! let terminal = Terminal::builder(&connection, "T-1").rules(&rules).start()?;
//!
//! let version = rules.version();
//! rules.until_other_than(&version).await;
//! let to_be_kept = rules.bundle();
//! # Ok(())
//! # }
//! ```
//!
//! **Health.** An application that measures battery, signal, reader and the like says so with [`Terminal::report_health`], as often as
//! [`Status::health_interval`] asks for. Samples ride with the next batch; of many that wait, the newest are kept.
//!
//! **What is up to the application.** Card numbers, tracks, PINs and verification values have no place in an outcome; there is no field for them.
//! What an outcome's fields may hold is in the contract (`proto/faultline/outcome/v1/outcome.proto`). An event that is against it is refused by itself:
//! [`Status::last_refusal`] says which field was wrong.
//!
//! The library logs through [`tracing`], never an outcome or the token.

mod clock;
mod connection;
mod rules;
mod samples;
mod session;
mod spool;
mod terminal;

/// How one transaction attempt ended: the contract's messages.
pub mod outcome {
    pub use faultline_proto::outcome::v1::*;
}

pub use faultline_bundle::{BundleError, KeyError, PublicKey};
pub use faultline_proto::ingest::v1::{DropReason, DroppedRange, EventRefusal, RefusalReason};
pub use faultline_proto::terminal::v1::{AccessNetwork, HealthSample, PinPadState, PrinterState, TerminalProfile};
pub use faultline_proto::verdict::v1::Evidence;
pub use faultline_verdict::{Cause, LocalizedText, MerchantCause, Retry, RulesError};

pub use crate::clock::BootTime;
pub use crate::connection::{Connection, ConnectionBuilder, ConnectionError};
pub use crate::rules::{TerminalRules, Verdict};
pub use crate::spool::{Depth, Entry, Limits, MemorySpool, NewEntry, Spool, SpoolError};
pub use crate::terminal::{ReportError, Reported, Status, Terminal, TerminalBuilder, TerminalError};
