//! A row of `outcomes`.

use crate::block::Block;

/// A row of `outcomes`: one transaction attempt, and one verdict on it. What each column means is in `migrations/0001_outcomes.sql`; times are in
/// milliseconds since 1970-01-01 UTC.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "the schema documents its columns")]
pub struct OutcomeRow<'a> {
    pub tenant: &'a str,
    pub terminal: &'a str,
    pub spool: u64,
    pub sequence: u64,
    pub completed_at: i64,
    pub received_at: i64,
    pub clock: i8,
    pub merchant: &'a str,
    pub store: &'a str,
    pub merchant_group: &'a str,
    pub model: &'a str,
    pub firmware: &'a str,
    pub application: &'a str,
    pub region: &'a str,
    pub access_network: u16,
    pub carrier: &'a str,
    pub apn: &'a str,
    pub r#type: u16,
    pub entry_mode: u16,
    pub amount_minor: i64,
    pub currency: &'a str,
    pub bin: &'a str,
    pub issuer: &'a str,
    pub card_token: u32,
    pub card_token_key: u32,
    pub network: u16,
    pub acquirer: &'a str,
    pub host: &'a str,
    pub route: &'a str,
    pub trace_number: u32,
    pub batch_number: u32,
    pub retrieval_reference: &'a str,
    pub original_spool: u64,
    pub original_sequence: u64,
    pub original_trace_number: u32,
    pub original_batch_number: u32,
    pub original_retrieval_reference: &'a str,
    pub original_terminal: &'a str,
    pub original_completed_at: i64,
    pub original_order_number: &'a str,
    pub order_number: &'a str,
    pub attempt: u16,
    pub first_attempt_sequence: u64,
    pub stage: u16,
    pub response_code: &'a str,
    pub response_spec: &'a str,
    pub money_outcome: u16,
    pub result: u16,
    pub terminal_condition: u16,
    pub terminal_error_code: &'a str,
    pub diagnostic: &'a str,
    pub tvr: u64,
    pub status_words: Vec<u16>,
    pub fallback: bool,
    pub card_read_ms: u32,
    pub pin_entry_ms: u32,
    pub dns_ms: u32,
    pub connect_ms: u32,
    pub tls_ms: u32,
    pub send_ms: u32,
    pub wait_ms: u32,
    pub print_ms: u32,
    pub reversal_ms: u32,
    pub total_ms: u32,
    pub reader_reads: u32,
    pub reader_failures: u32,
    pub reader_failed_sales: u32,
    pub reader_consecutive_failures: u32,
    pub reader_next_good_read_ms: u64,
    pub signal_dbm: i16,
    pub tag: &'a str,
    pub cause: i8,
    pub reason: &'a str,
    pub confidence: u8,
    pub rule_set: &'a str,
    pub issuer_map: &'a str,
    pub sign: i8,
    pub revision: u16,
    pub kafka_log: &'a str,
    pub kafka_partition: u16,
    pub kafka_offset: u64,
    pub record_index: u16,
    pub batch_first_offset: u64,
    pub batch_last_offset: u64,
}

impl<'a> OutcomeRow<'a> {
    /// All of the table's columns.
    pub(crate) fn block<'r>(rows: &'r [&'r OutcomeRow<'a>]) -> Block<'r> {
        Block::of(rows, |block| {
            block.words("tenant", |row| row.tenant);
            block.texts("terminal", |row| row.terminal);
            block.numbers("spool", |row| row.spool);
            block.numbers("sequence", |row| row.sequence);
            block.milliseconds("completed_at", |row| row.completed_at);
            block.milliseconds("received_at", |row| row.received_at);
            block.numbers("clock", |row| row.clock);
            block.texts("merchant", |row| row.merchant);
            block.texts("store", |row| row.store);
            block.words("merchant_group", |row| row.merchant_group);
            block.words("model", |row| row.model);
            block.words("firmware", |row| row.firmware);
            block.words("application", |row| row.application);
            block.words("region", |row| row.region);
            block.numbers("access_network", |row| row.access_network);
            block.words("carrier", |row| row.carrier);
            block.words("apn", |row| row.apn);
            block.numbers("type", |row| row.r#type);
            block.numbers("entry_mode", |row| row.entry_mode);
            block.numbers("amount_minor", |row| row.amount_minor);
            block.words("currency", |row| row.currency);
            block.words("bin", |row| row.bin);
            block.words("issuer", |row| row.issuer);
            block.numbers("card_token", |row| row.card_token);
            block.numbers("card_token_key", |row| row.card_token_key);
            block.numbers("network", |row| row.network);
            block.words("acquirer", |row| row.acquirer);
            block.words("host", |row| row.host);
            block.words("route", |row| row.route);
            block.numbers("trace_number", |row| row.trace_number);
            block.numbers("batch_number", |row| row.batch_number);
            block.texts("retrieval_reference", |row| row.retrieval_reference);
            block.numbers("original_spool", |row| row.original_spool);
            block.numbers("original_sequence", |row| row.original_sequence);
            block.numbers("original_trace_number", |row| row.original_trace_number);
            block.numbers("original_batch_number", |row| row.original_batch_number);
            block.texts("original_retrieval_reference", |row| row.original_retrieval_reference);
            block.texts("original_terminal", |row| row.original_terminal);
            block.milliseconds("original_completed_at", |row| row.original_completed_at);
            block.texts("original_order_number", |row| row.original_order_number);
            block.texts("order_number", |row| row.order_number);
            block.numbers("attempt", |row| row.attempt);
            block.numbers("first_attempt_sequence", |row| row.first_attempt_sequence);
            block.numbers("stage", |row| row.stage);
            block.words("response_code", |row| row.response_code);
            block.words("response_spec", |row| row.response_spec);
            block.numbers("money_outcome", |row| row.money_outcome);
            block.numbers("result", |row| row.result);
            block.numbers("terminal_condition", |row| row.terminal_condition);
            block.words("terminal_error_code", |row| row.terminal_error_code);
            block.texts("diagnostic", |row| row.diagnostic);
            block.numbers("tvr", |row| row.tvr);
            block.lists("status_words", |row| &row.status_words);
            block.numbers("fallback", |row| row.fallback);
            block.numbers("card_read_ms", |row| row.card_read_ms);
            block.numbers("pin_entry_ms", |row| row.pin_entry_ms);
            block.numbers("dns_ms", |row| row.dns_ms);
            block.numbers("connect_ms", |row| row.connect_ms);
            block.numbers("tls_ms", |row| row.tls_ms);
            block.numbers("send_ms", |row| row.send_ms);
            block.numbers("wait_ms", |row| row.wait_ms);
            block.numbers("print_ms", |row| row.print_ms);
            block.numbers("reversal_ms", |row| row.reversal_ms);
            block.numbers("total_ms", |row| row.total_ms);
            block.numbers("reader_reads", |row| row.reader_reads);
            block.numbers("reader_failures", |row| row.reader_failures);
            block.numbers("reader_failed_sales", |row| row.reader_failed_sales);
            block.numbers("reader_consecutive_failures", |row| row.reader_consecutive_failures);
            block.numbers("reader_next_good_read_ms", |row| row.reader_next_good_read_ms);
            block.numbers("signal_dbm", |row| row.signal_dbm);
            block.words("tag", |row| row.tag);
            block.numbers("cause", |row| row.cause);
            block.words("reason", |row| row.reason);
            block.numbers("confidence", |row| row.confidence);
            block.words("rule_set", |row| row.rule_set);
            block.words("issuer_map", |row| row.issuer_map);
            block.numbers("sign", |row| row.sign);
            block.numbers("revision", |row| row.revision);
            block.words("kafka_log", |row| row.kafka_log);
            block.numbers("kafka_partition", |row| row.kafka_partition);
            block.numbers("kafka_offset", |row| row.kafka_offset);
            block.numbers("record_index", |row| row.record_index);
            block.numbers("batch_first_offset", |row| row.batch_first_offset);
            block.numbers("batch_last_offset", |row| row.batch_last_offset);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrations::columns_of;

    #[test]
    fn every_column_of_the_table_is_written() {
        assert_eq!(OutcomeRow::block(&[]).names(), columns_of(include_str!("../migrations/0001_outcomes.sql")));
    }
}
