//! Whose fault a failed transaction is, as far as one outcome tells: rules and an outcome give a verdict, and nothing else does. No clock,
//! no file, no memory of other outcomes: the same crate decides in the terminal and in the classifier.
//!
//! What an outcome says is weighed in this order:
//!
//! ```text
//! answer that cannot be believed ─▶ response code ─▶ what the terminal met ─▶ what it told the shop ─▶ how far it came ─▶ no evidence
//!        └──────────────────────────────┴──────── a reason, which the tag is of ────┴────────────────────────┴──────────────────┘
//!                                                            │
//!                facts (signal, latencies, attempts, chip, reader) ─▶ the same reason or a better one, and how certain it is
//! ```

mod check;
mod explain;
mod fact;
mod family;
pub mod health;
mod issuers;
mod reason;
mod rules;
mod table;
mod verdict;
mod words;

pub use faultline_proto::verdict::v1::{Cause, LocalizedText};

pub use crate::check::{Finding, check};
pub use crate::explain::{Considered, Explanation, Step};
pub use crate::fact::{Fact, Facts};
pub use crate::family::Family;
pub use crate::issuers::{Issuers, IssuersError};
pub use crate::reason::{MerchantCause, Reason, Retry};
pub use crate::rules::{Place, RuleSet, Rules, RulesError};
pub use crate::table::{Attribution, Difference, Evidence, Refinement, Rule};
pub use crate::verdict::Verdict;
