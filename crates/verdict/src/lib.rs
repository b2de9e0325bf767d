//! Whose fault a failed transaction is, as far as one outcome tells: a rule set and an outcome give a verdict, and nothing else does. No clock,
//! no file, no memory of other outcomes: the same crate decides in the terminal and in the classifier.
//!
//! What an outcome says is weighed in this order:
//!
//! ```text
//! answer that cannot be believed ─▶ response code ─▶ what the terminal met ─▶ what it told the shop ─▶ how far it came ─▶ no evidence
//! ```

mod issuers;
mod rules;
mod verdict;

pub use faultline_proto::verdict::v1::{Cause, LocalizedText};

pub use crate::issuers::{Issuers, IssuersError};
pub use crate::rules::{Reason, Retry, RuleSet, RulesError};
pub use crate::verdict::Verdict;
