-- Incidents, a row a revision; the greatest revision of a tenant's incident is what it is now. A copy of the incidents topic for questions: a revision
-- that is written twice is the same row. Times are event time.
CREATE TABLE IF NOT EXISTS incidents (
    tenant LowCardinality(String) CODEC(ZSTD(1)),
    incident String CODEC(ZSTD(1)),
    revision UInt32 CODEC(ZSTD(1)),
    state Enum8('open' = 1, 'unobserved' = 2, 'closed' = 3, 'abandoned' = 4) CODEC(ZSTD(1)),
    cause Enum8('approved' = 1, 'network' = 2, 'device' = 3, 'bank' = 4, 'account' = 5, 'other' = 6, 'unknown' = 7) CODEC(ZSTD(1)),
    slice String COMMENT 'issuer=icbc; several values are joined by &; without any: fleet' CODEC(ZSTD(1)),
    signals Array(LowCardinality(String)) COMMENT 'failure classes, missing_approvals; the first is what opened it' CODEC(ZSTD(1)),
    attempts UInt64 COMMENT 'of the first signal, as what follows' CODEC(ZSTD(1)),
    counted UInt64 COMMENT 'failures; of missing_approvals, approvals' CODEC(ZSTD(1)),
    expected Float64 COMMENT 'of what is counted' CODEC(ZSTD(1)),
    evidence Float64 COMMENT 'nats' CODEC(ZSTD(1)),
    began DateTime('UTC') CODEC(ZSTD(1)),
    opened DateTime('UTC') CODEC(ZSTD(1)),
    updated DateTime('UTC') CODEC(ZSTD(1)),
    closed DateTime('UTC') COMMENT 'or abandoned; 1970 where it is neither' CODEC(ZSTD(1)),
    summary_zh_cn String CODEC(ZSTD(1)),
    summary_en String CODEC(ZSTD(1)),
    written_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
ORDER BY (tenant, incident, revision)
TTL updated + toIntervalDay(400)
SETTINGS non_replicated_deduplication_window = 0;
-- What was told of incidents, and to whom: by channel, the revisions that were delivered.
CREATE TABLE IF NOT EXISTS deliveries (
    tenant LowCardinality(String) CODEC(ZSTD(1)),
    incident String CODEC(ZSTD(1)),
    channel LowCardinality(String) CODEC(ZSTD(1)),
    revision UInt32 CODEC(ZSTD(1)),
    delivered_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
ORDER BY (tenant, incident, channel, revision)
TTL toDateTime(delivered_at) + toIntervalDay(400)
SETTINGS non_replicated_deduplication_window = 0;
