//! What the classifier counts: the fate of every record and event. `/metrics` says what each figure means.

use std::collections::BTreeMap;
use std::time::Duration;

use faultline_proto::ingest::v1::DropReason;
use faultline_store::Settled;
use faultline_verdict::Cause;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::judged::Judged;
use crate::report::Report;

/// What became of a record.
const READ: &str = "read";
const DEAD_LETTER: &str = "dead_letter";
/// What became of an event.
const COUNTED: &str = "counted";
const REPEATED: &str = "repeated";

/// Tells the exporter what the figures are. Those that are known beforehand begin at 0, so that the first increase is seen as one.
pub(crate) fn describe() {
    describe_counter!("faultline_classifier_records_total", "Records that are done, by fate: read, dead_letter");
    describe_counter!("faultline_classifier_events_total", "Events of records that are done, by fate: counted, repeated (dropped)");
    describe_counter!("faultline_classifier_dead_letters_total", "Records that could not be processed, by stage: record, batch, event");
    describe_counter!("faultline_classifier_verdicts_total", "Counted events by cause");
    describe_counter!(
        "faultline_classifier_batches_total",
        "Batches by how they were stored: at_once, settled (after asking what was there), empty"
    );
    describe_counter!("faultline_classifier_mended_rows_total", "Rows that were found missing when a batch was settled");
    describe_counter!(
        "faultline_classifier_mended_drilldown_rows_total",
        "Rows that were found not to be kept for drill-downs when a batch was settled"
    );
    describe_counter!("faultline_classifier_mended_sums_total", "Batches whose sums were found missing when they were settled");
    describe_counter!(
        "faultline_classifier_redated_records_total",
        "Records with a time of receipt far from when Kafka took them, which dates them instead"
    );
    describe_counter!(
        "faultline_classifier_replayed_records_total",
        "Records that were dead letters, and were read when they were replayed"
    );
    describe_counter!("faultline_classifier_missing_records_total", "Records that were gone from Kafka before they were read");
    describe_counter!("faultline_classifier_dropped_events_total", "Events that terminals gave up, by reason; repeats included");
    describe_counter!(
        "faultline_classifier_health_samples_total",
        "Health samples of records that are done, by fate: stored (repeats included), out_of_range (dropped)"
    );
    describe_counter!(
        "faultline_classifier_rules_loads_total",
        "Times that the files of rules were loaded again, or could not be: ok, failed"
    );
    describe_gauge!("faultline_classifier_partitions", "Partitions that this process works on");
    describe_gauge!(
        "faultline_classifier_lag_seconds",
        Unit::Seconds,
        "By partition, how long ago Kafka took the oldest record that is read and not done; 0 when there is none"
    );
    describe_gauge!("faultline_classifier_spools", "By partition, spools whose sequences are remembered");
    describe_histogram!("faultline_classifier_store_seconds", Unit::Seconds, "From the intent to store a batch until all of it is stored");
    for fate in [READ, DEAD_LETTER] {
        counter!("faultline_classifier_records_total", "fate" => fate).increment(0);
    }
    for fate in [COUNTED, REPEATED] {
        counter!("faultline_classifier_events_total", "fate" => fate).increment(0);
    }
    for stage in ["record", "batch", "event"] {
        counter!("faultline_classifier_dead_letters_total", "stage" => stage).increment(0);
    }
    for stored in [Stored::AtOnce, Stored::Settled(Settled::default()), Stored::Empty] {
        counter!("faultline_classifier_batches_total", "stored" => stored.name()).increment(0);
    }
    for name in ["mended_rows", "mended_sums", "redated_records", "replayed_records", "missing_records"] {
        counter!(format!("faultline_classifier_{name}_total")).increment(0);
    }
    samples(0, 0);
    for reason in [DropReason::Unspecified, DropReason::SpoolFull, DropReason::Corrupted, DropReason::Expired, DropReason::Refused] {
        dropped(word(reason), 0);
    }
    for result in ["ok", "failed"] {
        counter!("faultline_classifier_rules_loads_total", "result" => result).increment(0);
    }
    gauge!("faultline_classifier_partitions").set(0.0);
}

/// How a batch was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    AtOnce,
    Settled(Settled),
    /// Nothing in it was new.
    Empty,
}

impl Stored {
    fn name(self) -> &'static str {
        match self {
            Stored::AtOnce => "at_once",
            Stored::Settled(_) => "settled",
            Stored::Empty => "empty",
        }
    }
}

/// A batch is done.
pub(crate) fn done(reports: &[Report], judged: &[Judged<'_>], stored: Stored) {
    counter!("faultline_classifier_batches_total", "stored" => stored.name()).increment(1);
    if let Stored::Settled(Settled { rows, drilldown, sums }) = stored {
        counter!("faultline_classifier_mended_rows_total").increment(count(rows));
        counter!("faultline_classifier_mended_drilldown_rows_total").increment(drilldown);
        counter!("faultline_classifier_mended_sums_total").increment(u64::from(sums));
    }
    let events: usize = reports.iter().map(|report| report.batch.events.len()).sum();
    counter!("faultline_classifier_records_total", "fate" => READ).increment(count(reports.len()));
    counter!("faultline_classifier_events_total", "fate" => COUNTED).increment(count(judged.len()));
    counter!("faultline_classifier_events_total", "fate" => REPEATED).increment(count(events - judged.len()));
    counter!("faultline_classifier_redated_records_total").increment(count(reports.iter().filter(|report| report.is_redated).count()));
    counter!("faultline_classifier_replayed_records_total").increment(count(reports.iter().filter(|report| report.is_replay).count()));
    let mut causes: BTreeMap<Cause, u64> = BTreeMap::new();
    for event in judged {
        *causes.entry(event.verdict.reason.cause).or_default() += 1;
    }
    for (cause, number) in causes {
        let cause = cause.as_str_name().trim_start_matches("CAUSE_").to_lowercase();
        counter!("faultline_classifier_verdicts_total", "cause" => cause).increment(number);
    }
    for range in reports.iter().flat_map(|report| &report.batch.dropped_ranges) {
        let beyond_the_first = range.last_sequence.saturating_sub(range.first_sequence);
        dropped(DropReason::try_from(range.reason).map_or("newer", word), beyond_the_first.min(u64::from(u32::MAX)) + 1);
    }
}

/// Health samples of a batch that is done.
pub(crate) fn samples(stored: usize, out_of_range: usize) {
    counter!("faultline_classifier_health_samples_total", "fate" => "stored").increment(count(stored));
    counter!("faultline_classifier_health_samples_total", "fate" => "out_of_range").increment(count(out_of_range));
}

/// Why a terminal gave events up, in a word.
fn word(reason: DropReason) -> &'static str {
    match reason {
        DropReason::Unspecified => "none",
        DropReason::SpoolFull => "spool_full",
        DropReason::Corrupted => "corrupted",
        DropReason::Expired => "expired",
        DropReason::Refused => "refused",
    }
}

/// A terminal gave events up.
fn dropped(reason: &'static str, events: u64) {
    counter!("faultline_classifier_dropped_events_total", "reason" => reason).increment(events);
}

/// The files of rules were loaded again, or could not be: `ok`, `failed`.
pub(crate) fn rules_load(result: &'static str) {
    counter!("faultline_classifier_rules_loads_total", "result" => result).increment(1);
}

/// A record is kept as a dead letter.
pub(crate) fn dead_letter(stage: &'static str) {
    counter!("faultline_classifier_dead_letters_total", "stage" => stage).increment(1);
    counter!("faultline_classifier_records_total", "fate" => DEAD_LETTER).increment(1);
}

/// Records were gone before they were read.
pub(crate) fn missing(records: u64) {
    counter!("faultline_classifier_missing_records_total").increment(records);
}

/// How far behind a partition is.
pub(crate) fn lag(partition: i32, lag: Duration) {
    gauge!("faultline_classifier_lag_seconds", "partition" => partition.to_string()).set(lag.as_secs_f64());
}

/// How many spools of a partition are remembered.
pub(crate) fn spools(partition: i32, spools: usize) {
    gauge!("faultline_classifier_spools", "partition" => partition.to_string()).set(f64::from(u32::try_from(spools).unwrap_or(u32::MAX)));
}

/// A batch took so long to be stored.
pub(crate) fn took(time: Duration) {
    histogram!("faultline_classifier_store_seconds").record(time);
}

/// So many partitions more, or fewer, are worked on.
pub(crate) fn partitions(more: i8) {
    gauge!("faultline_classifier_partitions").increment(f64::from(more));
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
