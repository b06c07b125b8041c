//! What can go wrong on the way to SQLite, sorted by what the port calls it.
//!
//! The sorting is by SQLite's result codes (<https://www.sqlite.org/rescode.html>): what time, space or another process can
//! mend is unavailable, the rest is damage. SQLite's own texts name tables and columns, never values, and go no further than
//! the reason inside a [`DirectoryError`], which peers do not see.

use quail_core::ports::directory::DirectoryError;

// Primary result codes, the low byte of the extended ones.
const SQLITE_PERM: u32 = 3;
const SQLITE_BUSY: u32 = 5;
const SQLITE_LOCKED: u32 = 6;
const SQLITE_NOMEM: u32 = 7;
const SQLITE_READONLY: u32 = 8;
const SQLITE_INTERRUPT: u32 = 9;
const SQLITE_IOERR: u32 = 10;
const SQLITE_FULL: u32 = 13;
const SQLITE_CANTOPEN: u32 = 14;
const SQLITE_PROTOCOL: u32 = 15;

/// Why a command did not happen.
#[derive(Debug)]
pub(super) enum Failure {
    /// The directory's rules, or what the file holds, speak against it.
    Directory(DirectoryError),
    /// SQLite, or the way to it, failed.
    Sql(sqlx::Error),
}

impl From<DirectoryError> for Failure {
    fn from(error: DirectoryError) -> Self {
        Self::Directory(error)
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Failure> for DirectoryError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Directory(error) => error,
            Failure::Sql(error) if is_temporary(&error) => Self::Unavailable { reason: error.to_string() },
            Failure::Sql(error) => Self::Corrupt { reason: error.to_string() },
        }
    }
}

/// Returns what the port calls a failed insert of something that was to be unique.
pub(super) fn duplicate(what: &'static str) -> impl FnOnce(sqlx::Error) -> Failure {
    move |error| match error.as_database_error() {
        Some(database) if database.is_unique_violation() => DirectoryError::Duplicate { what }.into(),
        _ => error.into(),
    }
}

pub(super) fn is_temporary(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => true,
        sqlx::Error::Database(database) => {
            let code = database.code().and_then(|code| code.parse::<u32>().ok());
            code.is_some_and(|code| is_temporary_code(code & 0xff))
        }
        _ => false,
    }
}

fn is_temporary_code(primary: u32) -> bool {
    matches!(
        primary,
        SQLITE_PERM
            | SQLITE_BUSY
            | SQLITE_LOCKED
            | SQLITE_NOMEM
            | SQLITE_READONLY
            | SQLITE_INTERRUPT
            | SQLITE_IOERR
            | SQLITE_FULL
            | SQLITE_CANTOPEN
            | SQLITE_PROTOCOL
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_passes_and_a_damaged_file_does_not() {
        const SQLITE_CORRUPT: u32 = 11;
        const SQLITE_NOTADB: u32 = 26;
        assert!(is_temporary_code(SQLITE_FULL));
        assert!(!is_temporary_code(SQLITE_CORRUPT));
        assert!(!is_temporary_code(SQLITE_NOTADB));
        let error = DirectoryError::from(Failure::Sql(sqlx::Error::PoolTimedOut));
        assert!(error.is_temporary(), "{error}");
        let error = DirectoryError::from(Failure::Sql(sqlx::Error::ColumnNotFound("handle".to_owned())));
        assert!(matches!(error, DirectoryError::Corrupt { .. }), "{error}");
    }
}
