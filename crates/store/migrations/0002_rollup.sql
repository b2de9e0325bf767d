-- Counts and amounts by family of slices (issuer, carrier, model and firmware, ...), in buckets of ten seconds of event time. Every row is a
-- sum over rows of `outcomes` with their signs, so a correction of those is a row here that cancels the old and adds the new.
-- `amount_minor` sums what was attempted, whatever became of it and in whichever direction it would have gone.
-- Family `ledger` says which records an insert covered: its key is `log:partition:first-last`, its count is the number of rows of `outcomes`.
-- Not partitioned, so that one insert makes one part, and the ledger row is there exactly when all rows of its insert are.
CREATE TABLE IF NOT EXISTS rollup (
    tenant LowCardinality(String) CODEC(ZSTD(1)),
    family LowCardinality(String) CODEC(ZSTD(1)),
    key LowCardinality(String) CODEC(ZSTD(1)),
    bucket DateTime('UTC') CODEC(Delta, ZSTD(1)),
    tag LowCardinality(String) CODEC(ZSTD(1)),
    cause Enum8('approved' = 1, 'network' = 2, 'device' = 3, 'bank' = 4, 'account' = 5, 'other' = 6, 'unknown' = 7) CODEC(ZSTD(1)),
    currency LowCardinality(String) CODEC(ZSTD(1)),
    count Int64 CODEC(T64, ZSTD(1)),
    amount_minor Int64 CODEC(ZSTD(1)),
    seen SimpleAggregateFunction(max, DateTime('UTC')) DEFAULT now() CODEC(ZSTD(1))
)
ENGINE = SummingMergeTree((count, amount_minor))
ORDER BY (tenant, family, toStartOfTenMinutes(bucket), key, bucket, tag, cause, currency)
TTL bucket + toIntervalDay(400)
SETTINGS non_replicated_deduplication_window = 100000;
