-- What is looked at of an incident: of `outcomes`, every row that failed and one in eight of the others, with the columns that tell what they have in common and whom they affect. A fifth of the
-- rows and a third of the columns, in the order in which they are asked for: what failed in some minutes in one way is found without the rest. Kept as long as Kafka may still hold the records.
-- Written after the rows of a batch and before their sums, so that what is counted is here; corrections too, so that sums of signs are what stands.
CREATE TABLE IF NOT EXISTS drilldown (
    tenant LowCardinality(String) CODEC(ZSTD(1)),
    terminal String CODEC(ZSTD(1)),
    spool UInt64 CODEC(ZSTD(1)),
    sequence UInt64 CODEC(Delta, ZSTD(1)),
    completed_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    received_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    merchant String CODEC(ZSTD(1)),
    store String CODEC(ZSTD(1)),
    merchant_group LowCardinality(String) CODEC(ZSTD(1)),
    model LowCardinality(String) CODEC(ZSTD(1)),
    firmware LowCardinality(String) CODEC(ZSTD(1)),
    region LowCardinality(String) CODEC(ZSTD(1)),
    carrier LowCardinality(String) CODEC(ZSTD(1)),
    entry_mode UInt16 CODEC(ZSTD(1)),
    amount_minor Int64 CODEC(T64, ZSTD(1)),
    currency LowCardinality(String) CODEC(ZSTD(1)),
    issuer LowCardinality(String) CODEC(ZSTD(1)),
    acquirer LowCardinality(String) CODEC(ZSTD(1)),
    host LowCardinality(String) CODEC(ZSTD(1)),
    first_attempt_sequence UInt64 CODEC(ZSTD(1)),
    tag LowCardinality(String) CODEC(ZSTD(1)),
    cause Enum8('approved' = 1, 'network' = 2, 'device' = 3, 'bank' = 4, 'account' = 5, 'other' = 6, 'unknown' = 7) CODEC(ZSTD(1)),
    sign Int8 CODEC(ZSTD(1)),
    kafka_log LowCardinality(String) CODEC(ZSTD(1)),
    kafka_partition UInt16 CODEC(ZSTD(1)),
    kafka_offset UInt64 CODEC(Delta, ZSTD(1)),
    record_index UInt16 CODEC(ZSTD(1)),

    INDEX received_at received_at TYPE minmax GRANULARITY 1,
    INDEX completed_ms toUnixTimestamp64Milli(completed_at) TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toMonday(received_at)
ORDER BY (tenant, toStartOfFiveMinutes(completed_at), tag, terminal, spool, sequence)
TTL toDateTime(received_at) + toIntervalDay(15)
SETTINGS non_replicated_deduplication_window = 100000, ttl_only_drop_parts = 1, min_bytes_for_wide_part = 134217728;
