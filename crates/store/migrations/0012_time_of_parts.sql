-- What was counted, or failed, in the last ten seconds is in the last parts that were inserted; within a part, neither table is in order of such short times. With these, the other parts of the
-- last minutes are not read at all. Parts that are there already have none, and are merged into those that do.
ALTER TABLE rollup
    ADD INDEX IF NOT EXISTS bucket bucket TYPE minmax GRANULARITY 1;

-- Of milliseconds, and not of the column: ClickHouse 26.7 asks an index of a DateTime64 for `<= 9` where a question says `< toDateTime(10)`, and somebody who asks so would not find what was
-- completed at 9.5.
ALTER TABLE outcomes
    ADD INDEX IF NOT EXISTS completed_ms toUnixTimestamp64Milli(completed_at) TYPE minmax GRANULARITY 1;
