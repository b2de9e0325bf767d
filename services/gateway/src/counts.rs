//! What the gateway counts: the fate of every call, batch and event. `/metrics` says what each figure means.

use std::time::Duration;

use faultline_proto::ingest::v1::BatchAcknowledgement;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::admission::Noticed;
use crate::problem::Problem;

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Kafka has it.
    Stored,
    /// Nothing in it was taken.
    Empty,
    /// It can never be taken.
    Invalid,
    /// There was no room for it.
    Shed,
    /// It was more than its terminal may send.
    Limited,
    /// Kafka did not take it.
    Unavailable,
    /// Its token is not known any more.
    Unauthenticated,
}

impl Fate {
    const ALL: [Fate; 7] = [Fate::Stored, Fate::Empty, Fate::Invalid, Fate::Shed, Fate::Limited, Fate::Unavailable, Fate::Unauthenticated];

    fn name(self) -> &'static str {
        match self {
            Fate::Stored => "stored",
            Fate::Empty => "empty",
            Fate::Invalid => "invalid",
            Fate::Shed => "shed",
            Fate::Limited => "limited",
            Fate::Unavailable => "unavailable",
            Fate::Unauthenticated => "unauthenticated",
        }
    }
}

/// The methods of the service.
pub(crate) const STREAM: &str = "StreamOutcomes";
pub(crate) const REPORT: &str = "ReportOutcomes";

/// Tells the exporter what the figures are. Those that are known beforehand begin at 0, so that the first increase is seen as one.
pub(crate) fn describe() {
    describe_counter!("faultline_gateway_calls_total", "Calls that ended, by method and status");
    describe_counter!(
        "faultline_gateway_batches_total",
        "Batches by fate: stored, empty (nothing in it was taken), invalid, shed, limited (more than its terminal may send), unavailable, unauthenticated"
    );
    describe_counter!(
        "faultline_gateway_events_total",
        "Events of answered batches by fate: accepted, redacted (accepted, with card numbers overwritten), refused"
    );
    describe_counter!("faultline_gateway_refused_events_total", "Refused events by reason and offending field");
    describe_counter!("faultline_gateway_ignored_parts_total", "Health samples, dropped ranges and profile fields left out, by part");
    describe_counter!("faultline_gateway_unknown_values_total", "Values of a newer contract that were taken, by field");
    describe_counter!("faultline_gateway_unknown_messages_total", "Messages of a newer contract that were passed over");
    describe_counter!(
        "faultline_gateway_event_clocks_total",
        "Accepted events by what dates them: age, corrected (the terminal's clock), uncertain"
    );
    describe_counter!("faultline_gateway_stored_bytes_total", Unit::Bytes, "Bytes of stored batches");
    describe_gauge!("faultline_gateway_connections", "Open connections");
    describe_gauge!("faultline_gateway_connections_limit", "Most connections; more wait to be accepted");
    describe_gauge!("faultline_gateway_streams", "Open streams");
    describe_counter!("faultline_gateway_token_loads_total", "Times that the file of tokens was loaded again, or could not be: ok, failed");
    describe_gauge!("faultline_gateway_tokens", "Tokens in force");
    describe_counter!(
        "faultline_gateway_rules_loads_total",
        "Times that the rules for terminals were loaded again, or could not be: ok, failed"
    );
    describe_counter!("faultline_gateway_rules_given_total", "Bundles of rules that were given to terminals");
    describe_gauge!("faultline_gateway_in_flight_bytes", Unit::Bytes, "Batches waiting for Kafka");
    describe_gauge!("faultline_gateway_in_flight_limit_bytes", Unit::Bytes, "Most that may wait for Kafka; beyond, load is shed");
    describe_histogram!(
        "faultline_gateway_delivery_seconds",
        Unit::Seconds,
        "From handing a batch to Kafka to its acknowledgement by every in-sync replica"
    );
    for fate in Fate::ALL {
        counter!("faultline_gateway_batches_total", "fate" => fate.name()).increment(0);
    }
    for method in [STREAM, REPORT] {
        for status in ["OK"].into_iter().chain(Problem::STATUSES) {
            counter!("faultline_gateway_calls_total", "method" => method, "status" => status).increment(0);
        }
    }
    for result in ["ok", "failed"] {
        counter!("faultline_gateway_token_loads_total", "result" => result).increment(0);
        counter!("faultline_gateway_rules_loads_total", "result" => result).increment(0);
    }
    counter!("faultline_gateway_rules_given_total").increment(0);
    counter!("faultline_gateway_unknown_messages_total").increment(0);
    counter!("faultline_gateway_stored_bytes_total").increment(0);
    for name in ["faultline_gateway_connections", "faultline_gateway_streams", "faultline_gateway_in_flight_bytes"] {
        gauge!(name).set(0.0);
    }
}

/// A call ended.
pub(crate) fn call(method: &'static str, outcome: Result<(), &Problem>) {
    let status = outcome.err().map_or("OK", |problem| problem.code().1);
    counter!("faultline_gateway_calls_total", "method" => method, "status" => status).increment(1);
}

/// A batch met its fate.
pub(crate) fn batch(fate: Fate) {
    counter!("faultline_gateway_batches_total", "fate" => fate.name()).increment(1);
}

/// What was in a batch that was answered.
pub(crate) fn answered(tenant: &str, acknowledgement: &BatchAcknowledgement, noticed: &Noticed) {
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let refused = count(acknowledgement.refusals.len());
    let redacted = count(acknowledgement.redacted_sequences.len());
    let accepted = count(noticed.events) - refused - redacted;
    for (fate, number) in [("accepted", accepted), ("redacted", redacted), ("refused", refused)] {
        if number > 0 {
            counter!("faultline_gateway_events_total", "fate" => fate, "tenant" => tenant.to_owned()).increment(number);
        }
    }
    for (&(reason, field), &number) in &noticed.refusals {
        counter!("faultline_gateway_refused_events_total", "reason" => reason, "field" => field).increment(number);
    }
    for (&part, &number) in &noticed.ignored {
        counter!("faultline_gateway_ignored_parts_total", "part" => part).increment(number);
    }
    for (&field, &number) in &noticed.unknown_values {
        counter!("faultline_gateway_unknown_values_total", "field" => field).increment(number);
    }
    for (&clock, &number) in &noticed.clocks {
        counter!("faultline_gateway_event_clocks_total", "clock" => clock).increment(number);
    }
}

/// Kafka has a batch.
pub(crate) fn stored(bytes: usize, took: Duration) {
    counter!("faultline_gateway_stored_bytes_total").increment(u64::try_from(bytes).unwrap_or(u64::MAX));
    histogram!("faultline_gateway_delivery_seconds").record(took);
}

/// A message of a newer contract was passed over.
pub(crate) fn unknown_message() {
    counter!("faultline_gateway_unknown_messages_total").increment(1);
}

/// The file of tokens was loaded again, or could not be.
pub(crate) fn token_load(result: &'static str) {
    counter!("faultline_gateway_token_loads_total", "result" => result).increment(1);
}

/// The rules for terminals were loaded again, or could not be.
pub(crate) fn rules_load(result: &'static str) {
    counter!("faultline_gateway_rules_loads_total", "result" => result).increment(1);
}

/// A terminal was given rules.
pub(crate) fn rules_given() {
    counter!("faultline_gateway_rules_given_total").increment(1);
}

/// Tokens in force.
pub(crate) fn tokens(count: usize) {
    gauge!("faultline_gateway_tokens").set(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
}

/// Something that is open and counted as such until it is dropped.
pub(crate) struct Open(&'static str);

impl Open {
    pub(crate) fn stream() -> Open {
        Open::new("faultline_gateway_streams")
    }

    pub(crate) fn connection() -> Open {
        Open::new("faultline_gateway_connections")
    }

    fn new(name: &'static str) -> Open {
        gauge!(name).increment(1);
        Open(name)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        gauge!(self.0).decrement(1);
    }
}
