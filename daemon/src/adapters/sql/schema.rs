//! Which migrations are due, told without applying them.
//!
//! Invariant: a schema that this daemon does not know, or whose known part is another one, is never touched.

use sqlx::migrate::{AppliedMigration, Migrator};

/// A migration that has not been applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueMigration {
    /// Its number.
    pub version: i64,
    /// What it is about.
    pub description: String,
}

/// Why a schema is left alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// A newer daemon has worked with it. Run that one, or restore the backup from before.
    #[error(
        "the directory has schema {version}, this quaild knows up to {known}: run the newer quaild or restore the backup made before it"
    )]
    Newer {
        /// The schema's version.
        version: i64,
        /// The newest version this daemon knows.
        known: i64,
    },
    /// A migration was applied that this daemon knows otherwise, or not at all: another program's, or a build from in between.
    #[error(
        "the directory has a migration {version} that is not the one of this quaild: run the quaild that applied it"
    )]
    Other {
        /// The migration.
        version: i64,
    },
}

/// Returns what is to be applied, in order.
///
/// # Errors
/// See [`SchemaError`].
pub fn due(known: &Migrator, applied: &[AppliedMigration]) -> Result<Vec<DueMigration>, SchemaError> {
    let newest = known.iter().map(|migration| migration.version).max().unwrap_or(0);
    for applied in applied {
        let version = applied.version;
        let same = known.iter().find(|migration| migration.version == version);
        match same {
            None if version > newest => return Err(SchemaError::Newer { version, known: newest }),
            Some(migration) if migration.checksum == applied.checksum => {}
            _ => return Err(SchemaError::Other { version }),
        }
    }
    let is_due = |version| applied.iter().all(|applied| applied.version != version);
    let due = known.iter().filter(|migration| is_due(migration.version));
    Ok(due
        .map(|migration| DueMigration {
            version: migration.version,
            description: migration.description.to_string(),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    static KNOWN: Migrator = sqlx::migrate!("migrations/sqlite");

    fn applied(upto: i64) -> Vec<AppliedMigration> {
        let known = KNOWN.iter().filter(|migration| migration.version <= upto);
        known.map(|one| AppliedMigration { version: one.version, checksum: one.checksum.clone() }).collect()
    }

    #[test]
    fn what_was_not_applied_is_due_in_order() {
        let all = due(&KNOWN, &[]).unwrap();
        assert_eq!(all.first().unwrap().description, "directory");
        assert!(all.is_sorted_by_key(|one| one.version));
        let rest = due(&KNOWN, &applied(2)).unwrap();
        assert_eq!(rest, all[2..]);
        assert_eq!(due(&KNOWN, &applied(i64::MAX)), Ok(Vec::new()));
    }

    #[test]
    fn an_unknown_schema_is_left_alone() {
        let checksum = vec![1].into();
        let newer = due(&KNOWN, &[AppliedMigration { version: 9_999, checksum }]);
        assert!(matches!(newer, Err(SchemaError::Newer { version: 9_999, .. })), "{newer:?}");
        let mut changed = applied(i64::MAX);
        changed[0].checksum = vec![1].into();
        assert_eq!(due(&KNOWN, &changed), Err(SchemaError::Other { version: 1 }));
    }
}
