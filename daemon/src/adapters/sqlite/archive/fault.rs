//! What can go wrong on the way to the archive's file, sorted by what the port calls it.
//!
//! What SQLite refuses in a value is the value's fault and takes nothing else with it; what time, space or another process can mend
//! is unavailable; the rest is damage.

use quail_core::ports::archive::ArchiveError;

use crate::adapters::sql::failure::is_temporary;

// Primary result codes of SQLite.
const SQLITE_TOOBIG: u32 = 18;
const SQLITE_CONSTRAINT: u32 = 19;
const SQLITE_MISMATCH: u32 = 20;

/// Why a call did not do what it was asked.
#[derive(Debug)]
pub(super) enum Fault {
    /// The archive's rules, or what the file holds, speak against it.
    Archive(ArchiveError),
    /// SQLite, or the way to it, failed.
    Sql(sqlx::Error),
}

impl From<ArchiveError> for Fault {
    fn from(error: ArchiveError) -> Self {
        Self::Archive(error)
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Fault> for ArchiveError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Archive(error) => error,
            Fault::Sql(error) if is_temporary(&error) => Self::Unavailable { reason: error.to_string() },
            Fault::Sql(error) if is_refused(&error) => Self::Refused { reason: error.to_string() },
            Fault::Sql(error) => Self::Damaged { reason: error.to_string() },
        }
    }
}

fn is_refused(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|database| database.code()?.parse::<u32>().ok());
    let primary = code.map(|code| code & 0xff);
    matches!(primary, Some(SQLITE_TOOBIG | SQLITE_CONSTRAINT | SQLITE_MISMATCH))
}
