-- What was seen: by spool, the greatest sequence that is counted. Written now and then by whoever reads the partition; what was counted since is
-- found in `outcomes`. A greatest number needs no deduplication: a row that is written twice changes nothing.
-- The row without a terminal says how far the others reach: no record that Kafka took after its `seen_at` need be in them.
CREATE TABLE IF NOT EXISTS high_water (
    kafka_partition UInt16 CODEC(ZSTD(1)),
    tenant LowCardinality(String) CODEC(ZSTD(1)),
    terminal String CODEC(ZSTD(1)),
    spool UInt64 CODEC(ZSTD(1)),
    sequence SimpleAggregateFunction(max, UInt64) CODEC(ZSTD(1)),
    seen_at SimpleAggregateFunction(max, DateTime('UTC')) CODEC(ZSTD(1))
)
ENGINE = AggregatingMergeTree
ORDER BY (kafka_partition, tenant, terminal, spool)
-- Terminals report events of up to 30 days.
TTL seen_at + toIntervalDay(32)
SETTINGS non_replicated_deduplication_window = 0;
