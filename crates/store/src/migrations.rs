//! The schema, as numbered steps that only ever go forward.
//!
//! ClickHouse has no transactions over schema changes, and several services may start at the same time. So every statement of a step can be
//! repeated (`IF NOT EXISTS` and the like), and a step is recorded after its statements: a step that was interrupted, or that another service is
//! taking too, is simply taken again.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Migration {
    pub(crate) version: u32,
    pub(crate) name: &'static str,
    sql: &'static str,
}

/// Every step, in order. A step that has left the house is never changed: add another.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "outcomes", sql: include_str!("../migrations/0001_outcomes.sql") },
    Migration { version: 2, name: "rollup", sql: include_str!("../migrations/0002_rollup.sql") },
    Migration { version: 3, name: "high_water", sql: include_str!("../migrations/0003_high_water.sql") },
    Migration { version: 4, name: "simulated", sql: include_str!("../migrations/0004_simulated.sql") },
    Migration { version: 5, name: "incidents", sql: include_str!("../migrations/0005_incidents.sql") },
    Migration { version: 6, name: "progress", sql: include_str!("../migrations/0006_progress.sql") },
    Migration { version: 7, name: "watermarks", sql: include_str!("../migrations/0007_watermarks.sql") },
    Migration { version: 8, name: "compact_parts", sql: include_str!("../migrations/0008_compact_parts.sql") },
    Migration { version: 9, name: "verdicts", sql: include_str!("../migrations/0009_verdicts.sql") },
    Migration { version: 10, name: "health", sql: include_str!("../migrations/0010_health.sql") },
    Migration { version: 11, name: "explanations", sql: include_str!("../migrations/0011_explanations.sql") },
    Migration { version: 12, name: "time_of_parts", sql: include_str!("../migrations/0012_time_of_parts.sql") },
    Migration { version: 13, name: "drilldown", sql: include_str!("../migrations/0013_drilldown.sql") },
];

/// Where the record of the steps taken is kept.
pub(crate) const CREATE_RECORD: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (
    version UInt32, name String, checksum String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3)
) ENGINE = MergeTree ORDER BY version";

impl Migration {
    /// The statements, without comments.
    pub(crate) fn statements(&self) -> impl Iterator<Item = String> {
        let code: Vec<&str> = self.sql.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
        let statements: Vec<String> =
            code.join("\n").split(";\n").map(|statement| statement.trim().trim_end_matches(';').to_owned()).collect();
        statements.into_iter().filter(|statement| !statement.is_empty())
    }

    /// Tells one text of a step from another.
    pub(crate) fn checksum(&self) -> String {
        hex::encode(Sha256::digest(self.sql))
    }
}

/// What a run of the migrations did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// Version of the schema now.
    pub version: u32,
    /// Names of the steps that were taken.
    pub applied: Vec<&'static str>,
}

/// Why the steps taken do not fit this program.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// A newer program was here.
    #[error("its schema is at version {found}, and this faultline knows versions up to {known}; run a newer faultline")]
    Newer {
        /// Version that was found.
        found: u32,
        /// Version that this program knows.
        known: u32,
    },
    /// Another text was applied under the same number.
    #[error(
        "step {version} ({name}) of its schema is not the one that this faultline has; it was made by an unreleased version: take a new database (`clickhouse.database`) or, on one machine, a new --data-dir"
    )]
    Changed {
        /// Number of the step.
        version: u32,
        /// Name of the step.
        name: &'static str,
    },
}

/// The steps that are still to be taken, given the checksums of those that were.
pub(crate) fn pending<'a>(known: &'a [Migration], applied: &BTreeMap<u32, String>) -> Result<Vec<&'a Migration>, HistoryError> {
    let newest = known.last().map_or(0, |migration| migration.version);
    if let Some((&found, _)) = applied.last_key_value()
        && found > newest
    {
        return Err(HistoryError::Newer { found, known: newest });
    }
    let mut pending = Vec::new();
    for migration in known {
        match applied.get(&migration.version) {
            None => pending.push(migration),
            Some(checksum) if *checksum == migration.checksum() => {}
            Some(_) => return Err(HistoryError::Changed { version: migration.version, name: migration.name }),
        }
    }
    Ok(pending)
}

/// The columns of the table that a step creates.
#[cfg(test)]
pub(crate) fn columns_of(step: &str) -> Vec<&str> {
    let columns = step.lines().filter_map(|line| line.strip_prefix("    ")?.split(' ').next());
    columns.filter(|name| name.starts_with(|first: char| first.is_ascii_lowercase())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Migration = Migration {
        version: 1,
        name: "first",
        sql: "-- why;\nCREATE TABLE IF NOT EXISTS a (x UInt8)\nENGINE = Null;\n-- more\nDROP TABLE IF EXISTS b;\n",
    };
    const SECOND: Migration = Migration { version: 2, name: "second", sql: "DROP TABLE IF EXISTS c;" };

    #[test]
    fn a_file_is_cut_into_statements_without_comments() {
        let statements: Vec<_> = FIRST.statements().collect();
        assert_eq!(statements, ["CREATE TABLE IF NOT EXISTS a (x UInt8)\nENGINE = Null", "DROP TABLE IF EXISTS b"]);
    }

    #[test]
    fn only_what_was_not_taken_is_pending() {
        let known = [FIRST, SECOND];
        assert_eq!(pending(&known, &BTreeMap::new()), Ok(vec![&FIRST, &SECOND]));
        assert_eq!(pending(&known, &BTreeMap::from([(1, FIRST.checksum())])), Ok(vec![&SECOND]));
    }

    #[test]
    fn a_newer_or_another_schema_is_refused() {
        let known = [FIRST, SECOND];
        let newer = BTreeMap::from([(1, FIRST.checksum()), (2, SECOND.checksum()), (3, String::new())]);
        assert_eq!(pending(&known, &newer), Err(HistoryError::Newer { found: 3, known: 2 }));
        let changed = BTreeMap::from([(1, SECOND.checksum())]);
        assert_eq!(pending(&known, &changed), Err(HistoryError::Changed { version: 1, name: "first" }));
    }

    #[test]
    fn the_steps_are_numbered_in_order_and_every_statement_can_be_repeated() {
        for (index, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(migration.version as usize, index + 1, "{}", migration.name);
            for statement in migration.statements() {
                let can_be_repeated = ["IF NOT EXISTS", "IF EXISTS", "MODIFY SETTING"].iter().any(|words| statement.contains(words));
                assert!(can_be_repeated, "{statement}");
            }
        }
    }
}
