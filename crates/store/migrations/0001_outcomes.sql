-- One row per transaction attempt and revision: what the terminal reported, and the verdict on it. A correction adds two rows of the same
-- identity (tenant, terminal, spool, sequence): the old verdict with sign -1, the new one with sign 1 and the next revision.
-- `kafka_log`, `kafka_partition`, `kafka_offset` and `record_index` say which record an event came in, so that what is stored can be asked for. The
-- log is a name drawn for one life of a partition: offsets begin anew when a topic is made again. `batch_first_offset` and `batch_last_offset` are of the
-- records that were stored together, and counted together in `rollup`.
-- Numbers without a meaning of their own here (type, entry_mode, stage, ...) are those of the enumerations in proto/faultline/outcome/v1.
-- 0, an empty text and an empty array mean that the terminal did not say, or measured less than one unit.
CREATE TABLE IF NOT EXISTS outcomes (
    tenant LowCardinality(String) CODEC(ZSTD(1)),
    terminal String CODEC(ZSTD(1)),
    spool UInt64 CODEC(ZSTD(1)),
    sequence UInt64 CODEC(Delta, ZSTD(1)),

    completed_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    received_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    clock Enum8('age' = 1, 'corrected' = 2, 'uncertain' = 3) CODEC(ZSTD(1)),

    merchant String CODEC(ZSTD(1)),
    store String CODEC(ZSTD(1)),
    merchant_group LowCardinality(String) CODEC(ZSTD(1)),
    model LowCardinality(String) CODEC(ZSTD(1)),
    firmware LowCardinality(String) CODEC(ZSTD(1)),
    application LowCardinality(String) CODEC(ZSTD(1)),
    region LowCardinality(String) CODEC(ZSTD(1)),
    access_network UInt16 CODEC(ZSTD(1)),
    carrier LowCardinality(String) CODEC(ZSTD(1)),
    apn LowCardinality(String) CODEC(ZSTD(1)),

    type UInt16 CODEC(ZSTD(1)),
    entry_mode UInt16 CODEC(ZSTD(1)),
    amount_minor Int64 CODEC(T64, ZSTD(1)),
    currency LowCardinality(String) CODEC(ZSTD(1)),
    bin LowCardinality(String) CODEC(ZSTD(1)),
    issuer LowCardinality(String) CODEC(ZSTD(1)),
    card_token UInt32 CODEC(NONE),
    card_token_key UInt32 CODEC(ZSTD(1)),
    network UInt16 CODEC(ZSTD(1)),
    acquirer LowCardinality(String) CODEC(ZSTD(1)),
    host LowCardinality(String) CODEC(ZSTD(1)),
    route LowCardinality(String) CODEC(ZSTD(1)),
    trace_number UInt32 CODEC(T64, ZSTD(1)),
    batch_number UInt32 CODEC(T64, ZSTD(1)),
    retrieval_reference String CODEC(ZSTD(1)),
    original_spool UInt64 CODEC(ZSTD(1)),
    original_sequence UInt64 CODEC(ZSTD(1)),
    original_trace_number UInt32 CODEC(ZSTD(1)),
    original_batch_number UInt32 CODEC(ZSTD(1)),
    original_retrieval_reference String CODEC(ZSTD(1)),
    original_terminal String CODEC(ZSTD(1)),
    original_completed_at DateTime64(3, 'UTC') CODEC(ZSTD(1)),
    original_order_number String CODEC(ZSTD(1)),
    order_number String CODEC(ZSTD(1)),
    attempt UInt16 CODEC(ZSTD(1)),
    first_attempt_sequence UInt64 CODEC(ZSTD(1)),

    stage UInt16 CODEC(ZSTD(1)),
    response_code LowCardinality(String) CODEC(ZSTD(1)),
    response_spec LowCardinality(String) CODEC(ZSTD(1)),
    money_outcome UInt16 CODEC(ZSTD(1)),
    result UInt16 CODEC(ZSTD(1)),
    terminal_condition UInt16 CODEC(ZSTD(1)),
    terminal_error_code LowCardinality(String) CODEC(ZSTD(1)),
    diagnostic String CODEC(ZSTD(1)),
    tvr UInt64 CODEC(ZSTD(1)),
    status_words Array(UInt16) CODEC(ZSTD(1)),
    fallback Bool CODEC(ZSTD(1)),
    card_read_ms UInt32 CODEC(T64, ZSTD(1)),
    pin_entry_ms UInt32 CODEC(T64, ZSTD(1)),
    dns_ms UInt32 CODEC(T64, ZSTD(1)),
    connect_ms UInt32 CODEC(T64, ZSTD(1)),
    tls_ms UInt32 CODEC(T64, ZSTD(1)),
    send_ms UInt32 CODEC(T64, ZSTD(1)),
    wait_ms UInt32 CODEC(T64, ZSTD(1)),
    print_ms UInt32 CODEC(T64, ZSTD(1)),
    reversal_ms UInt32 CODEC(T64, ZSTD(1)),
    total_ms UInt32 CODEC(T64, ZSTD(1)),
    reader_reads UInt32 CODEC(ZSTD(1)),
    reader_failures UInt32 CODEC(ZSTD(1)),
    reader_failed_sales UInt32 CODEC(ZSTD(1)),
    reader_consecutive_failures UInt32 CODEC(ZSTD(1)),
    reader_next_good_read_ms UInt64 CODEC(ZSTD(1)),
    signal_dbm Int16 CODEC(ZSTD(1)),

    tag LowCardinality(String) CODEC(ZSTD(1)),
    cause Enum8('approved' = 1, 'network' = 2, 'device' = 3, 'bank' = 4, 'account' = 5, 'other' = 6, 'unknown' = 7) CODEC(ZSTD(1)),
    reason LowCardinality(String) CODEC(ZSTD(1)),
    confidence UInt8 COMMENT 'percent' CODEC(ZSTD(1)),
    rule_set LowCardinality(String) CODEC(ZSTD(1)),
    issuer_map LowCardinality(String) CODEC(ZSTD(1)),

    sign Int8 CODEC(ZSTD(1)),
    revision UInt16 CODEC(ZSTD(1)),
    kafka_log LowCardinality(String) CODEC(ZSTD(1)),
    kafka_partition UInt16 CODEC(ZSTD(1)),
    kafka_offset UInt64 CODEC(Delta, ZSTD(1)),
    record_index UInt16 CODEC(ZSTD(1)),
    batch_first_offset UInt64 CODEC(ZSTD(1)),
    batch_last_offset UInt64 CODEC(ZSTD(1)),

    -- What is asked for by its place in Kafka was received lately, and that is how it is found.
    INDEX received_at received_at TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
-- By the gateway's clock, so that a terminal whose clock is wrong makes no partitions.
PARTITION BY toMonday(received_at)
ORDER BY (tenant, toStartOfFiveMinutes(completed_at), terminal, spool, sequence, revision, sign)
TTL toDateTime(received_at) + toIntervalDay(90)
SETTINGS non_replicated_deduplication_window = 100000, ttl_only_drop_parts = 1;
