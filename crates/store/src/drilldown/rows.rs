//! Which outcomes are kept for drill-downs (table `drilldown`), and what of them: all that failed, and one in eight of the others.
//!
//! The others are those whose moment of completion and sequence have a hash that is divided by that number, so that it is the same ones whoever asks, and a terminal is there with some of its
//! attempts, not with all or none. Of these it may be one in a greater power of 2.

use crate::block::Block;
use crate::outcomes::OutcomeRow;

/// Of attempts that did not fail, one in so many is kept.
pub(super) const KEPT_ONE_IN: u32 = 8;
/// What was received longer ago is not kept, in days: Kafka has no record of it any more. The table forgets a day later, so that nobody takes for missing what it has forgotten.
const KEPT_DAYS: u32 = 14;
/// How tags begin of what did not fail.
const APPROVED: &str = "approved/";

/// The columns of those that are kept.
pub(crate) fn block<'r>(rows: &'r [&'r OutcomeRow<'r>]) -> Block<'r> {
    Block::of(rows, |block| {
        block.words("tenant", |row| row.tenant);
        block.texts("terminal", |row| row.terminal);
        block.numbers("spool", |row| row.spool);
        block.numbers("sequence", |row| row.sequence);
        block.milliseconds("completed_at", |row| row.completed_at);
        block.milliseconds("received_at", |row| row.received_at);
        block.texts("merchant", |row| row.merchant);
        block.texts("store", |row| row.store);
        block.words("merchant_group", |row| row.merchant_group);
        block.words("model", |row| row.model);
        block.words("firmware", |row| row.firmware);
        block.words("region", |row| row.region);
        block.words("carrier", |row| row.carrier);
        block.numbers("entry_mode", |row| row.entry_mode);
        block.numbers("amount_minor", |row| row.amount_minor);
        block.words("currency", |row| row.currency);
        block.words("issuer", |row| row.issuer);
        block.words("acquirer", |row| row.acquirer);
        block.words("host", |row| row.host);
        block.numbers("first_attempt_sequence", |row| row.first_attempt_sequence);
        block.words("tag", |row| row.tag);
        block.numbers("cause", |row| row.cause);
        block.numbers("sign", |row| row.sign);
        block.words("kafka_log", |row| row.kafka_log);
        block.numbers("kafka_partition", |row| row.kafka_partition);
        block.numbers("kafka_offset", |row| row.kafka_offset);
        block.numbers("record_index", |row| row.record_index);
    })
}

/// Whether a row is of those, if it was received lately.
pub(crate) fn is_kept(row: &OutcomeRow<'_>) -> bool {
    !row.tag.starts_with(APPROVED) || draw(row.completed_at, row.sequence).is_multiple_of(KEPT_ONE_IN.into())
}

/// The same as a condition on `outcomes`.
pub(crate) fn kept() -> String {
    format!("(NOT startsWith(tag, '{APPROVED}') OR {})", in_sample(KEPT_ONE_IN))
}

/// That a row was received lately enough.
pub(crate) fn received_lately() -> String {
    format!("received_at >= now() - toIntervalDay({KEPT_DAYS})")
}

/// That a row is in a sample of one in so many.
pub(super) fn in_sample(one_in: u32) -> String {
    format!("intHash64(bitXor(toUInt64(toUnixTimestamp64Milli(completed_at)), sequence)) % {one_in} = 0")
}

/// The hash that says in which samples an attempt is: ClickHouse's `intHash64`, which is the finalizer of `MurmurHash3` and a constant.
fn draw(completed_ms: i64, sequence: u64) -> u64 {
    let mixed = completed_ms.cast_unsigned() ^ sequence ^ 0x4CF2_D2BA_AE6D_A887;
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrations::columns_of;

    #[test]
    fn every_column_of_the_table_is_written() {
        assert_eq!(block(&[]).names(), columns_of(include_str!("../../migrations/0013_drilldown.sql")));
    }

    /// `SELECT intHash64(toUInt64(1)), intHash64(toUInt64(123456789))`.
    #[test]
    fn a_draw_is_what_the_server_makes_of_it() {
        assert_eq!(
            [draw(0, 1), draw(1, 0), draw(123_456_789, 0)],
            [10_577_349_846_663_553_072, 10_577_349_846_663_553_072, 16_268_010_412_262_273_259]
        );
    }

    #[test]
    fn all_failures_are_kept_and_one_in_eight_of_the_others() {
        let kept = |tag: &'static str| {
            (0..8000).filter(|sequence| is_kept(&OutcomeRow { tag, sequence: *sequence, ..OutcomeRow::default() })).count()
        };
        assert_eq!(kept("issuer_down/host_decision"), 8000);
        assert!((900..1100).contains(&kept("approved/host_decision")), "{}", kept("approved/host_decision"));
    }
}
