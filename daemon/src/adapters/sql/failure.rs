//! What can go wrong on the way to a database, sorted by what the port calls it.
//!
//! The sorting is by SQLite's result codes (<https://www.sqlite.org/rescode.html>) and Postgres's SQLSTATE
//! (<https://www.postgresql.org/docs/current/errcodes-appendix.html>): what time, space, an operator or another process can
//! mend is unavailable, the rest is damage. The databases' own texts name tables and columns, never values, and go no
//! further than the reason inside a [`DirectoryError`], which peers do not see.

use std::fmt;

use quail_core::ports::directory::DirectoryError;
use sqlx::postgres::PgDatabaseError;

// Primary result codes of SQLite, the low byte of the extended ones.
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

/// The unique constraint on handles in Postgres, by the name that the schema gives it.
const HANDLE_CONSTRAINT: &str = "accounts_handle_key";

/// Why a command did not happen.
#[derive(Debug)]
pub enum Failure {
    /// The directory's rules, or what the database holds, speak against it.
    Directory(DirectoryError),
    /// The database, or the way to it, failed.
    Sql(sqlx::Error),
}

impl Failure {
    /// Returns whether somebody else's transaction came between: the same one again may pass at once.
    pub fn is_conflict(&self) -> bool {
        let Self::Sql(sqlx::Error::Database(database)) = self else { return false };
        let code = database.code();
        let serialization_or_deadlock = matches!(code.as_deref(), Some("40001" | "40P01"));
        serialization_or_deadlock || database.constraint() == Some(HANDLE_CONSTRAINT)
    }

    /// Returns whether the connection is of no use any more, as after a restart of the server.
    pub fn is_lost_connection(&self) -> bool {
        match self {
            Self::Directory(_) => false,
            Self::Sql(error) => is_connection_lost(error),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(error) => error.fmt(f),
            Self::Sql(error) => error.fmt(f),
        }
    }
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

/// Returns what the port calls a failed insert of something that was to be unique. Two who ask for one handle at once are
/// a [conflict](Failure::is_conflict) instead.
pub fn duplicate(what: &'static str) -> impl FnOnce(sqlx::Error) -> Failure {
    move |error| match error.as_database_error() {
        Some(database)
            if database.is_unique_violation() && database.constraint() != Some(HANDLE_CONSTRAINT) =>
        {
            DirectoryError::Duplicate { what }.into()
        }
        _ => error.into(),
    }
}

/// Returns whether a connection to Postgres is of no use any more after an error.
pub fn is_connection_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(database) => {
            // The server ends this session, or has lost its memory of it.
            matches!(database.code().as_deref(), Some(code) if code.starts_with("57P") || code.starts_with("08"))
        }
        sqlx::Error::RowNotFound | sqlx::Error::ColumnDecode { .. } => false,
        _ => true,
    }
}

/// Returns whether time, space, an operator or another process can mend it.
pub fn is_temporary(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        // A server that dies while it is greeted, or something else that listens in its place.
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => true,
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            if database.try_downcast_ref::<PgDatabaseError>().is_some() {
                is_temporary_state(&code)
            } else {
                code.parse::<u32>().is_ok_and(|code| is_temporary_code(code & 0xff))
            }
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

fn is_temporary_state(state: &str) -> bool {
    // Connection; who may log in; rollback; resources; limits of the operator; the system below.
    let classes = ["08", "28", "40", "53", "55", "57", "58"];
    let class = state.get(..2).unwrap_or_default();
    // A standby that writes nothing; no right to a table; a database that is not there.
    classes.contains(&class) || matches!(state, "25006" | "42501" | "3D000")
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
        for passes in [sqlx::Error::PoolTimedOut, sqlx::Error::Protocol("a byte too few".to_owned())] {
            let error = DirectoryError::from(Failure::Sql(passes));
            assert!(error.is_temporary(), "{error}");
        }
        let error = DirectoryError::from(Failure::Sql(sqlx::Error::ColumnNotFound("handle".to_owned())));
        assert!(matches!(error, DirectoryError::Corrupt { .. }), "{error}");
    }

    #[test]
    fn what_an_operator_of_postgres_can_mend_passes_and_a_damaged_index_does_not() {
        // Refused, wrong password, deadlock, full disk, too many clients, timeout, restart, read-only, no right, no database.
        for state in
            ["08006", "28P01", "40P01", "53100", "53300", "57014", "57P01", "25006", "42501", "3D000"]
        {
            assert!(is_temporary_state(state), "{state}");
        }
        // A damaged page and index, a missing table and column, a syntax error.
        for state in ["XX001", "XX002", "42P01", "42703", "42601", ""] {
            assert!(!is_temporary_state(state), "{state}");
        }
    }
}
