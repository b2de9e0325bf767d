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
-- The same by hour, for those who judge: of one life of a terminal, from one start to the next, the least and the greatest of what it measured in an hour. So a
-- sample that is stored again changes nothing here either. `life` is `boots`, or the spool where a terminal does not count its starts.
CREATE TABLE IF NOT EXISTS health_hours (
    tenant LowCardinality(String) CODEC(ZSTD(1)),
    terminal String CODEC(ZSTD(1)),
    life UInt64 CODEC(ZSTD(1)),
    hour DateTime('UTC') CODEC(Delta, ZSTD(1)),

    model SimpleAggregateFunction(anyLast, LowCardinality(String)) CODEC(ZSTD(1)),
    firmware SimpleAggregateFunction(anyLast, LowCardinality(String)) CODEC(ZSTD(1)),
    access_network SimpleAggregateFunction(anyLast, UInt16) CODEC(ZSTD(1)),
    boots SimpleAggregateFunction(max, Nullable(UInt32)) CODEC(ZSTD(1)),
    started_ms SimpleAggregateFunction(min, Nullable(Int64)) CODEC(ZSTD(1)),
    least_reads SimpleAggregateFunction(min, Nullable(UInt32)) CODEC(ZSTD(1)),
    most_reads SimpleAggregateFunction(max, Nullable(UInt32)) CODEC(ZSTD(1)),
    least_failed_sales SimpleAggregateFunction(min, Nullable(UInt32)) CODEC(ZSTD(1)),
    most_failed_sales SimpleAggregateFunction(max, Nullable(UInt32)) CODEC(ZSTD(1)),
    least_fallbacks SimpleAggregateFunction(min, Nullable(UInt32)) CODEC(ZSTD(1)),
    most_fallbacks SimpleAggregateFunction(max, Nullable(UInt32)) CODEC(ZSTD(1)),
    least_reconnects SimpleAggregateFunction(min, Nullable(UInt32)) CODEC(ZSTD(1)),
    most_reconnects SimpleAggregateFunction(max, Nullable(UInt32)) CODEC(ZSTD(1)),
    least_uptime_ms SimpleAggregateFunction(min, Nullable(UInt64)) CODEC(ZSTD(1)),
    most_uptime_ms SimpleAggregateFunction(max, Nullable(UInt64)) CODEC(ZSTD(1)),
    has_pin_pad SimpleAggregateFunction(max, UInt8) CODEC(ZSTD(1)),
    bad_pin_pad SimpleAggregateFunction(max, UInt8) CODEC(ZSTD(1)),
    tampered SimpleAggregateFunction(max, UInt8) CODEC(ZSTD(1)),
    has_printer SimpleAggregateFunction(max, UInt8) CODEC(ZSTD(1)),
    bad_printer SimpleAggregateFunction(max, UInt8) CODEC(ZSTD(1)),
    least_signal_dbm SimpleAggregateFunction(min, Nullable(Int16)) CODEC(ZSTD(1)),
    most_signal_dbm SimpleAggregateFunction(max, Nullable(Int16)) CODEC(ZSTD(1)),
    charged SimpleAggregateFunction(max, UInt8) CODEC(ZSTD(1)),
    least_battery_percent SimpleAggregateFunction(min, Nullable(UInt8)) CODEC(ZSTD(1)),
    most_battery_percent SimpleAggregateFunction(max, Nullable(UInt8)) CODEC(ZSTD(1)),
    first_battery_ms SimpleAggregateFunction(min, Nullable(Int64)) CODEC(ZSTD(1)),
    last_battery_ms SimpleAggregateFunction(max, Nullable(Int64)) CODEC(ZSTD(1))
)
ENGINE = AggregatingMergeTree
ORDER BY (tenant, terminal, life, hour)
TTL hour + toIntervalDay(35)
SETTINGS non_replicated_deduplication_window = 0;
-- PIN pad: 2 away, 3 opened or attacked, 4 faulty; printer: 3 too hot, 4 faulty.
CREATE MATERIALIZED VIEW IF NOT EXISTS health_hours_of_samples TO health_hours AS SELECT
    tenant, terminal, ifNull(toUInt64(boots), spool) AS life, toStartOfHour(sampled_at) AS hour, model, firmware, access_network, boots,
    toUnixTimestamp64Milli(sampled_at) - toInt64(uptime_ms) AS started_ms,
    reader_reads AS least_reads, reader_reads AS most_reads, reader_failed_sales AS least_failed_sales, reader_failed_sales AS most_failed_sales,
    fallbacks AS least_fallbacks, fallbacks AS most_fallbacks, reconnects AS least_reconnects, reconnects AS most_reconnects,
    uptime_ms AS least_uptime_ms, uptime_ms AS most_uptime_ms,
    toUInt8(pin_pad != 0) AS has_pin_pad, toUInt8(pin_pad IN (2, 4)) AS bad_pin_pad, toUInt8(pin_pad = 3) AS tampered,
    toUInt8(printer != 0) AS has_printer, toUInt8(printer IN (3, 4)) AS bad_printer,
    signal_dbm AS least_signal_dbm, signal_dbm AS most_signal_dbm,
    toUInt8(isNotNull(battery_percent) AND ifNull(charging, true)) AS charged,
    battery_percent AS least_battery_percent, battery_percent AS most_battery_percent,
    if(isNull(battery_percent), NULL, toUnixTimestamp64Milli(sampled_at)) AS first_battery_ms,
    if(isNull(battery_percent), NULL, toUnixTimestamp64Milli(sampled_at)) AS last_battery_ms
FROM health_samples;
