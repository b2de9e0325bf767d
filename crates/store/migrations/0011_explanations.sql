-- What explains an incident, as its record in the topic has it: JSON, whose form is in crates/store/src/findings.rs. Empty where nothing is known.
ALTER TABLE incidents
    ADD COLUMN IF NOT EXISTS findings String COMMENT 'JSON: the numbers that opened it, and the finest slice that explains it' CODEC(ZSTD(1)) AFTER summary_en;
