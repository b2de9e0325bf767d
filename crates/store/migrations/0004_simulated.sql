-- Counts that nobody reported: those of the weeks before a simulated fleet was switched on, an hour of them in its first bucket. They say what is usual,
-- and are left out where counts are compared with `outcomes`.
ALTER TABLE rollup
    ADD COLUMN IF NOT EXISTS simulated Bool CODEC(ZSTD(1)),
    MODIFY ORDER BY (tenant, family, toStartOfTenMinutes(bucket), key, bucket, tag, cause, currency, simulated);
