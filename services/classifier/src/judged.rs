//! From an event to its row: with the verdict, the issuer, and when it happened.

use std::borrow::Cow;

use faultline_proto::ingest::v1::Event;
use faultline_proto::outcome::v1::Outcome;
use faultline_store::{BatchId, OutcomeRow};
use faultline_stream::{EventTime, unix_ms};
use faultline_verdict::{Issuers, Rules, Verdict};

use crate::report::Report;

/// An event with all that its row says.
#[derive(Debug)]
pub(crate) struct Judged<'a> {
    report: &'a Report,
    /// Its place in the record.
    index: u16,
    event: &'a Event,
    outcome: &'a Outcome,
    time: EventTime,
    issuer: Cow<'a, str>,
    pub(crate) verdict: Verdict<'a>,
    issuer_map: &'a str,
}

impl<'a> Judged<'a> {
    pub(crate) fn new(
        report: &'a Report,
        (index, event, outcome): (u16, &'a Event, &'a Outcome),
        rules: &'a Rules,
        issuers: &'a Issuers,
    ) -> Judged<'a> {
        let time = report.clock.date(event.age_ms, outcome.completion_time.as_ref());
        Judged {
            report,
            index,
            event,
            outcome,
            time,
            issuer: issuers.of(&outcome.bin),
            verdict: rules.verdict_at(outcome, time.unix_ms),
            issuer_map: issuers.version(),
        }
    }

    /// The row, as part of a batch, with the verdict as its first revision.
    pub(crate) fn row<'b>(&'b self, batch: &BatchId<'b>) -> OutcomeRow<'b> {
        let Judged { report, outcome, .. } = *self;
        let profile = &report.profile;
        let card = outcome.card_token.unwrap_or_default();
        let emv = outcome.emv.as_ref();
        let latencies = outcome.latencies.unwrap_or_default();
        let reader = outcome.reader_history.unwrap_or_default();
        let reason = self.verdict.reason;
        let mut row = OutcomeRow {
            tenant: &report.tenant,
            terminal: &report.terminal,
            spool: report.batch.spool_id,
            sequence: self.event.sequence,
            completed_at: storable(self.time.unix_ms),
            received_at: storable(report.receipt_ms),
            clock: self.time.clock.number(),
            merchant: &outcome.merchant_id,
            store: &outcome.store_id,
            merchant_group: &profile.merchant_group,
            model: &profile.model,
            firmware: &profile.firmware,
            application: &profile.application,
            region: &profile.region,
            access_network: number(profile.access_network),
            carrier: &profile.carrier,
            apn: &profile.apn,
            r#type: number(outcome.r#type),
            entry_mode: number(outcome.entry_mode),
            amount_minor: outcome.amount_minor,
            currency: &outcome.currency_code,
            bin: &outcome.bin,
            issuer: &self.issuer,
            card_token: card.value,
            card_token_key: card.key_id,
            network: number(outcome.network),
            acquirer: &outcome.acquirer_id,
            host: &outcome.host_id,
            route: &outcome.route_id,
            trace_number: digits(&outcome.trace_number),
            batch_number: digits(&outcome.batch_number),
            retrieval_reference: &outcome.retrieval_reference_number,
            order_number: &outcome.order_number,
            attempt: u16::try_from(outcome.attempt).unwrap_or(u16::MAX),
            first_attempt_sequence: outcome.first_attempt_sequence,
            stage: number(outcome.stage),
            response_code: &outcome.response_code,
            response_spec: &outcome.response_spec,
            money_outcome: number(outcome.money_outcome),
            result: number(outcome.result),
            terminal_condition: number(outcome.terminal_condition),
            terminal_error_code: &outcome.terminal_error_code,
            diagnostic: &outcome.diagnostic,
            tvr: emv.map_or(0, |emv| emv.terminal_verification_results.iter().take(8).fold(0, |tvr, byte| tvr << 8 | u64::from(*byte))),
            status_words: emv
                .map_or_else(Vec::new, |emv| emv.status_words.iter().map(|word| u16::try_from(*word).unwrap_or(u16::MAX)).collect()),
            fallback: emv.is_some_and(|emv| emv.fallback),
            card_read_ms: latencies.card_read_ms.unwrap_or_default(),
            pin_entry_ms: latencies.pin_entry_ms.unwrap_or_default(),
            dns_ms: latencies.dns_ms.unwrap_or_default(),
            connect_ms: latencies.connect_ms.unwrap_or_default(),
            tls_ms: latencies.tls_ms.unwrap_or_default(),
            send_ms: latencies.send_ms.unwrap_or_default(),
            wait_ms: latencies.wait_ms.unwrap_or_default(),
            print_ms: latencies.print_ms.unwrap_or_default(),
            reversal_ms: latencies.reversal_ms.unwrap_or_default(),
            total_ms: latencies.total_ms.unwrap_or_default(),
            reader_reads: reader.reads,
            reader_failures: reader.failures,
            reader_failed_sales: reader.failed_sales,
            reader_consecutive_failures: reader.consecutive_failures,
            reader_next_good_read_ms: reader.next_good_read_ms.unwrap_or_default(),
            signal_dbm: outcome.signal_dbm.map_or(0, |dbm| i16::try_from(dbm).unwrap_or(i16::MIN)),
            tag: self.verdict.tag,
            cause: i8::try_from(i32::from(reason.cause)).unwrap_or_default(),
            reason: &reason.id,
            confidence: self.verdict.confidence,
            rule_set: self.verdict.rule_set,
            issuer_map: self.issuer_map,
            sign: 1,
            revision: 0,
            kafka_log: batch.log,
            kafka_partition: batch.partition,
            kafka_offset: report.offset.cast_unsigned(),
            record_index: self.index,
            batch_first_offset: batch.first,
            batch_last_offset: batch.last,
            ..OutcomeRow::default()
        };
        if let Some(original) = &outcome.original {
            row.original_spool = original.spool_id;
            row.original_sequence = original.sequence;
            row.original_trace_number = digits(&original.trace_number);
            row.original_batch_number = digits(&original.batch_number);
            row.original_retrieval_reference = &original.retrieval_reference_number;
            row.original_terminal = &original.terminal_id;
            row.original_completed_at = original.completion_time.as_ref().and_then(unix_ms).map_or(0, storable);
            row.original_order_number = &original.order_number;
        }
        row
    }
}

/// An enumeration's number; one of a newer contract that the column cannot hold is its greatest.
pub(crate) fn number(value: i32) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

/// A number that is written as up to six digits.
fn digits(text: &str) -> u32 {
    text.parse().unwrap_or_default()
}

/// A moment that the column can hold: from 1970 to 2299.
pub(crate) fn storable(unix_ms: i64) -> i64 {
    const YEAR_2299_MS: i64 = 10_382_000_000_000;
    unix_ms.clamp(0, YEAR_2299_MS)
}
