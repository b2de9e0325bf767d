-- How far counts reach: what was completed before `counted_until` and reported in time is counted, of every tenant. Written by the alerter, which learns it
-- from Kafka, for those who look at counts.
CREATE TABLE IF NOT EXISTS progress (
    counted_until DateTime('UTC') CODEC(Delta, ZSTD(1)),
    written_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(ZSTD(1))
)
ENGINE = MergeTree
ORDER BY counted_until
TTL toDateTime(written_at) + toIntervalDay(30)
SETTINGS non_replicated_deduplication_window = 0;
