//! What the alerter counts. `/metrics` says what each figure means.

use std::time::Duration;

use faultline_detect::What;
use faultline_verdict::Cause;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

/// Tells the exporter what the figures are. Those that are known beforehand begin at 0, so that the first increase is seen as one.
pub(crate) fn describe() {
    describe_counter!("faultline_alerter_ticks_total", "Times of ten seconds that were judged");
    describe_counter!(
        "faultline_alerter_changes_total",
        "Changes of incidents, by what: opened, reopened, changed, unobserved, observed, closed"
    );
    describe_counter!("faultline_alerter_notices_total", "Notices of changes by fate: delivered, given_up, dropped (too many waited)");
    describe_counter!("faultline_alerter_attempts_failed_total", "Attempts to deliver a notice that failed, and were repeated or given up");
    describe_counter!(
        "faultline_alerter_alertmanager_posts_total",
        "Times that an Alertmanager was sent the incidents, by fate: taken, failed"
    );
    describe_counter!("faultline_alerter_settled_outcomes_total", "Outcomes of which a reversal or a query told whether money moved");
    describe_counter!(
        "faultline_alerter_attributed_outcomes_total",
        "Outcomes of which the verdict was corrected by what else failed, by the cause that they have now"
    );
    describe_histogram!(
        "faultline_alerter_attribution_seconds",
        Unit::Seconds,
        "From the question of what is open in a tenant's window until it is attributed"
    );
    describe_histogram!(
        "faultline_alerter_attribution_lag_seconds",
        Unit::Seconds,
        "From the completion of an outcome until its verdict is corrected for the first time by what else failed"
    );
    describe_gauge!(
        "faultline_alerter_unsettled_outcomes",
        "Outcomes of the last day of which it should be known by now whether money moved (`alerter.unsettled_after`), and is not"
    );
    describe_gauge!("faultline_alerter_open_incidents", "Incidents that are not closed, of all tenants");
    describe_gauge!(
        "faultline_alerter_lag_seconds",
        Unit::Seconds,
        "How long ago the last ten seconds ended that were judged; some fifteen when nothing is late"
    );
    describe_gauge!(
        "faultline_alerter_watermark_lag_seconds",
        Unit::Seconds,
        "By partition, how long ago Kafka took the oldest record that may not be counted; some fifteen when nothing is late"
    );
    describe_histogram!(
        "faultline_alerter_tick_seconds",
        Unit::Seconds,
        "From the question of what was counted in ten seconds until they are judged"
    );
    describe_histogram!(
        "faultline_alerter_drill_down_seconds",
        Unit::Seconds,
        "From the question of what exactly failed until the answer is judged; a part of the tick in which it is asked"
    );
    describe_histogram!(
        "faultline_alerter_learn_seconds",
        Unit::Seconds,
        "From the question of what is usual at an hour until the answer; it is asked before the hour begins"
    );
    describe_histogram!(
        "faultline_alerter_explanation_seconds",
        Unit::Seconds,
        "From the question of what an incident's failures have in common until that is known"
    );
    counter!("faultline_alerter_ticks_total").increment(0);
    settled(0);
    unsettled(0);
    for cause in CAUSES {
        counter!("faultline_alerter_attributed_outcomes_total", "cause" => cause_name(cause)).increment(0);
    }
    for what in [What::Opened, What::Reopened, What::Changed, What::Unobserved, What::Observed, What::Closed] {
        counter!("faultline_alerter_changes_total", "what" => name(what)).increment(0);
    }
    for fate in [DELIVERED, GIVEN_UP, DROPPED] {
        notice(fate, 0);
    }
    counter!("faultline_alerter_attempts_failed_total").increment(0);
    for fate in [TAKEN, FAILED] {
        counter!("faultline_alerter_alertmanager_posts_total", "fate" => fate).increment(0);
    }
    open(0);
}

/// It was told of so many outcomes whether money moved.
pub(crate) fn settled(outcomes: usize) {
    counter!("faultline_alerter_settled_outcomes_total").increment(u64::try_from(outcomes).unwrap_or(u64::MAX));
}

/// Of so many outcomes it should be known whether money moved, and is not.
pub(crate) fn unsettled(outcomes: u64) {
    gauge!("faultline_alerter_unsettled_outcomes").set(f64::from(u32::try_from(outcomes).unwrap_or(u32::MAX)));
}

/// The causes that something can be attributed to.
const CAUSES: [Cause; 5] = [Cause::Network, Cause::Device, Cause::Bank, Cause::Account, Cause::Other];

fn cause_name(cause: Cause) -> String {
    cause.as_str_name().trim_start_matches("CAUSE_").to_lowercase()
}

/// An outcome has another cause, or another reason, by what else failed.
pub(crate) fn attributed(cause: Cause) {
    counter!("faultline_alerter_attributed_outcomes_total", "cause" => cause_name(cause)).increment(1);
}

/// So long after its completion it was corrected for the first time.
pub(crate) fn attributed_after(lag: Duration) {
    histogram!("faultline_alerter_attribution_lag_seconds").record(lag);
}

/// A tenant's failures were attributed in so long.
pub(crate) fn attributed_in(took: Duration) {
    histogram!("faultline_alerter_attribution_seconds").record(took);
}

/// What explains an incident was looked for for so long, found or not.
pub(crate) fn explained(took: Duration) {
    histogram!("faultline_alerter_explanation_seconds").record(took);
}

/// How far behind counts are in a partition.
pub(crate) fn watermark(partition: i32, lag: Duration) {
    gauge!("faultline_alerter_watermark_lag_seconds", "partition" => partition.to_string()).set(lag.as_secs_f64());
}

const TAKEN: &str = "taken";
const FAILED: &str = "failed";

/// An Alertmanager was sent the incidents, and took them or not.
pub(crate) fn alertmanager(is_taken: bool) {
    counter!("faultline_alerter_alertmanager_posts_total", "fate" => if is_taken { TAKEN } else { FAILED }).increment(1);
}

/// What became of a notice.
pub(crate) const DELIVERED: &str = "delivered";
pub(crate) const GIVEN_UP: &str = "given_up";
pub(crate) const DROPPED: &str = "dropped";

/// What a change is called, everywhere outside.
pub(crate) fn name(what: What) -> &'static str {
    match what {
        What::Opened => "opened",
        What::Reopened => "reopened",
        What::Changed => "changed",
        What::Unobserved => "unobserved",
        What::Observed => "observed",
        What::Closed => "closed",
    }
}

pub(crate) fn change(what: What) {
    counter!("faultline_alerter_changes_total", "what" => name(what)).increment(1);
}

pub(crate) fn notice(fate: &'static str, number: u64) {
    counter!("faultline_alerter_notices_total", "fate" => fate).increment(number);
}

pub(crate) fn attempt_failed() {
    counter!("faultline_alerter_attempts_failed_total").increment(1);
}

pub(crate) fn open(incidents: usize) {
    gauge!("faultline_alerter_open_incidents").set(f64::from(u32::try_from(incidents).unwrap_or(u32::MAX)));
}

pub(crate) fn lag(lag: Duration) {
    gauge!("faultline_alerter_lag_seconds").set(lag.as_secs_f64());
}

pub(crate) fn tick(took: Duration) {
    counter!("faultline_alerter_ticks_total").increment(1);
    histogram!("faultline_alerter_tick_seconds").record(took);
}

/// What exactly failed was asked and judged in so long.
pub(crate) fn drilled_down(took: Duration) {
    histogram!("faultline_alerter_drill_down_seconds").record(took);
}

/// What is usual was learnt in so long.
pub(crate) fn learnt(took: Duration) {
    histogram!("faultline_alerter_learn_seconds").record(took);
}
