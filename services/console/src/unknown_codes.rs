//! Response codes that no rule set knew, as they are shown.

use faultline_proto::outcome::v1::CardNetwork;
use serde::Serialize;
use utoipa::ToSchema;

use crate::answer::{Time, named};

/// Response codes that no rule set knew.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UnknownCodes {
    /// The one that was met most often comes first.
    pub(crate) codes: Vec<UnknownCode>,
}

/// A response code that no rule set knew when the outcomes that have it were judged.
#[derive(Debug, Serialize, ToSchema)]
pub struct UnknownCode {
    /// Whose outcomes have it.
    tenant: String,
    /// The card network: `unionpay`; empty where outcomes do not say it.
    network: String,
    /// The acquirer; empty where outcomes do not say it.
    acquirer: String,
    /// The specification that it is said to belong to; empty where outcomes do not say it.
    response_spec: String,
    /// The code.
    response_code: String,
    /// How many outcomes have it.
    outcomes: u64,
    /// Of how many of these the shop was told that they were approved.
    told_approved: u64,
    /// About how many terminals met it.
    terminals: u64,
    /// When it was met first in the time that was asked about.
    first_time: Time,
    /// When it was met last.
    last_time: Time,
    /// The newest outcomes that have it, three at most.
    examples: Vec<Example>,
}

/// An outcome by what it is known by.
#[derive(Debug, Serialize, ToSchema)]
struct Example {
    /// Its terminal.
    terminal: String,
    /// The spool: a number, in decimal digits.
    spool: String,
    /// Its place in the spool: a number, in decimal digits.
    sequence: String,
    /// When it was completed.
    completed_at: Time,
}

impl From<&faultline_store::UnknownCode> for UnknownCode {
    fn from(row: &faultline_store::UnknownCode) -> UnknownCode {
        let example = |(terminal, spool, sequence, completed_ms): &faultline_store::Example| Example {
            terminal: terminal.clone(),
            spool: spool.to_string(),
            sequence: sequence.to_string(),
            completed_at: Time::of_ms(*completed_ms),
        };
        UnknownCode {
            tenant: row.tenant.clone(),
            network: named(row.network, CardNetwork::try_from, CardNetwork::as_str_name, "CARD_NETWORK_"),
            acquirer: row.acquirer.clone(),
            response_spec: row.response_spec.clone(),
            response_code: row.response_code.clone(),
            outcomes: row.outcomes,
            told_approved: row.told_approved,
            terminals: row.terminals,
            first_time: Time::of_ms(row.first_ms),
            last_time: Time::of_ms(row.last_ms),
            examples: row.examples.iter().map(example).collect(),
        }
    }
}
