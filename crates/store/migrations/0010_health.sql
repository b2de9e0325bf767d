-- What terminals measured of themselves: a row a sample. A sample is known by (tenant, terminal, spool, sequence), so one that is sent or stored again is the
-- same row, and whoever asks reads FINAL. Counters count since the terminal last started. NULL: not measured; a zero was.
-- printer, pin_pad and access_network are numbers of the enumerations in proto/faultline/terminal/v1.
CREATE TABLE IF NOT EXISTS health_samples (
    tenant LowCardinality(String) CODEC(ZSTD(1)),
    terminal String CODEC(ZSTD(1)),
    spool UInt64 CODEC(ZSTD(1)),
    sequence UInt64 CODEC(Delta, ZSTD(1)),

    sampled_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    received_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    clock Enum8('age' = 1, 'corrected' = 2, 'uncertain' = 3) CODEC(ZSTD(1)),

    model LowCardinality(String) CODEC(ZSTD(1)),
    firmware LowCardinality(String) CODEC(ZSTD(1)),
    region LowCardinality(String) CODEC(ZSTD(1)),
    access_network UInt16 CODEC(ZSTD(1)),
    carrier LowCardinality(String) CODEC(ZSTD(1)),

    battery_percent Nullable(UInt8) CODEC(ZSTD(1)),
    charging Nullable(Bool) CODEC(ZSTD(1)),
    signal_dbm Nullable(Int16) CODEC(ZSTD(1)),
    printer UInt16 CODEC(ZSTD(1)),
    pin_pad UInt16 CODEC(ZSTD(1)),
    reader_reads Nullable(UInt32) CODEC(ZSTD(1)),
    reader_failures Nullable(UInt32) CODEC(ZSTD(1)),
    reader_failed_sales Nullable(UInt32) CODEC(ZSTD(1)),
    fallbacks Nullable(UInt32) CODEC(ZSTD(1)),
    boots Nullable(UInt32) CODEC(ZSTD(1)),
    reconnects Nullable(UInt32) CODEC(ZSTD(1)),
    uptime_ms Nullable(UInt64) CODEC(ZSTD(1)),
    spool_depth Nullable(UInt32) CODEC(ZSTD(1)),
    spool_bytes Nullable(UInt64) CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toMonday(received_at)
ORDER BY (tenant, terminal, spool, sequence)
TTL toDateTime(received_at) + toIntervalDay(35)
SETTINGS non_replicated_deduplication_window = 0, ttl_only_drop_parts = 1;
