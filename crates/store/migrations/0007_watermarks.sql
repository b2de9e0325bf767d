-- How far each partition of the outcomes topic is counted: what Kafka took into it before `appended_until` is in `outcomes` and in `rollup`. Written by the
-- alerter every ten seconds. What lags is the partition whose last row says least: `now() - max(appended_until)`.
CREATE TABLE IF NOT EXISTS watermarks (
    kafka_partition UInt16 CODEC(ZSTD(1)),
    appended_until DateTime('UTC') CODEC(Delta, ZSTD(1)),
    written_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree
ORDER BY (kafka_partition, written_at)
TTL toDateTime(written_at) + toIntervalDay(30)
SETTINGS non_replicated_deduplication_window = 0;
