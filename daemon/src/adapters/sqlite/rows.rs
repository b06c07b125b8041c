//! Rows to values, checked.
//!
//! The schema's own checks make every error here a sign of damage, or of another program's hand in the file.

use quail_core::ports::directory::{DirectoryError, SecretHash};
use quail_protocol::id::IdLengthError;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::failure::Failure;

/// Reads an id.
pub(super) fn id<T>(row: &SqliteRow, column: &str) -> Result<T, Failure>
where
    T: for<'a> TryFrom<&'a [u8], Error = IdLengthError>,
{
    Ok(T::try_from(row.try_get(column)?).map_err(|error| damaged(column, error))?)
}

/// Reads an id that may be missing.
pub(super) fn optional_id<T>(row: &SqliteRow, column: &str) -> Result<Option<T>, Failure>
where
    T: for<'a> TryFrom<&'a [u8], Error = IdLengthError>,
{
    let bytes: Option<&[u8]> = row.try_get(column)?;
    Ok(bytes.map(T::try_from).transpose().map_err(|error| damaged(column, error))?)
}

/// Reads a hash.
pub(super) fn hash(row: &SqliteRow, column: &str) -> Result<SecretHash, Failure> {
    let bytes: &[u8] = row.try_get(column)?;
    Ok(SecretHash::try_from(bytes).map_err(|error| damaged(column, error))?)
}

/// Reads a number that is never negative.
pub(super) fn number(row: &SqliteRow, column: &str) -> Result<u64, Failure> {
    let number: i64 = row.try_get(column)?;
    Ok(u64::try_from(number).map_err(|error| damaged(column, error))?)
}

/// Returns a time as SQLite can keep it. Its integers end 292 million years from now.
pub(super) fn time(unix_ms: u64) -> i64 {
    i64::try_from(unix_ms).unwrap_or(i64::MAX)
}

fn damaged(column: &str, error: impl std::fmt::Display) -> DirectoryError {
    DirectoryError::Corrupt { reason: format!("column {column}: {error}") }
}
