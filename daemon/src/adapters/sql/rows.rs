//! Rows to values, checked.
//!
//! The schema's own checks make every error here a sign of damage, or of another program's hand in the database.

use quail_core::ports::directory::{
    AccountFacts, AccountSummary, ConversationFlags, Credentials, DeviceSummary, DirectoryError,
    InviteSummary, SecretHash, SessionFacts,
};
use quail_protocol::id::{AccountId, DeviceId, IdLengthError};
use sqlx::Row;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;

use super::failure::Failure;

/// A row of either database, by the types that both schemas use.
pub trait DirectoryRow {
    /// Reads bytes that may be missing.
    fn bytes(&self, column: &str) -> Result<Option<&[u8]>, sqlx::Error>;
    /// Reads a text that may be missing.
    fn optional_text(&self, column: &str) -> Result<Option<String>, sqlx::Error>;
    /// Reads a number.
    fn integer(&self, column: &str) -> Result<i64, sqlx::Error>;
    /// Reads whether something is so.
    fn truth(&self, column: &str) -> Result<bool, sqlx::Error>;
}

impl DirectoryRow for SqliteRow {
    fn bytes(&self, column: &str) -> Result<Option<&[u8]>, sqlx::Error> {
        self.try_get(column)
    }

    fn optional_text(&self, column: &str) -> Result<Option<String>, sqlx::Error> {
        self.try_get(column)
    }

    fn integer(&self, column: &str) -> Result<i64, sqlx::Error> {
        self.try_get(column)
    }

    fn truth(&self, column: &str) -> Result<bool, sqlx::Error> {
        self.try_get(column)
    }
}

impl DirectoryRow for PgRow {
    fn bytes(&self, column: &str) -> Result<Option<&[u8]>, sqlx::Error> {
        self.try_get(column)
    }

    fn optional_text(&self, column: &str) -> Result<Option<String>, sqlx::Error> {
        self.try_get(column)
    }

    fn integer(&self, column: &str) -> Result<i64, sqlx::Error> {
        self.try_get(column)
    }

    fn truth(&self, column: &str) -> Result<bool, sqlx::Error> {
        self.try_get(column)
    }
}

/// Reads what a password is checked against.
pub fn credentials(row: &impl DirectoryRow) -> Result<Credentials, Failure> {
    Ok(Credentials {
        account: id(row, "account")?,
        handle: text(row, "handle")?,
        password_hash: text(row, "password_hash")?,
    })
}

/// Reads the rows of one account: one per device, or a single one whose device is null.
pub fn facts(rows: &[impl DirectoryRow]) -> Result<Option<AccountFacts>, Failure> {
    let Some(first) = rows.first() else {
        return Ok(None);
    };
    let mut devices = Vec::with_capacity(rows.len());
    for row in rows {
        devices.extend(optional_id::<DeviceId>(row, "device")?);
    }
    Ok(Some(AccountFacts {
        account: id(first, "account")?,
        handle: text(first, "handle")?,
        version: number(first, "version")?,
        read_receipts: first.truth("read_receipts")?,
        devices,
    }))
}

/// Reads whom a token speaks for.
pub fn session(row: &impl DirectoryRow) -> Result<SessionFacts, Failure> {
    Ok(SessionFacts {
        account: id(row, "account")?,
        device: id(row, "device")?,
        handle: text(row, "handle")?,
    })
}

/// Reads a device of a list.
pub fn device(row: &impl DirectoryRow) -> Result<DeviceSummary, Failure> {
    Ok(DeviceSummary {
        device: id(row, "device")?,
        name: text(row, "name")?,
        platform: text(row, "platform")?,
        created_ms: number(row, "created_ms")?,
        last_seen_ms: number(row, "last_seen_ms")?,
    })
}

/// Reads how an account wants to see a conversation, with its peer.
pub fn flags(row: &impl DirectoryRow) -> Result<(AccountId, ConversationFlags), Failure> {
    let flags = ConversationFlags {
        muted: row.truth("muted")?,
        pinned: row.truth("pinned")?,
        put_away: row.truth("put_away")?,
    };
    Ok((id(row, "peer")?, flags))
}

/// Reads an account of a list.
pub fn account_summary(row: &impl DirectoryRow) -> Result<AccountSummary, Failure> {
    Ok(AccountSummary {
        account: id(row, "account")?,
        handle: text(row, "handle")?,
        created_ms: number(row, "created_ms")?,
        is_disabled: row.truth("is_disabled")?,
        devices: number(row, "devices")?,
    })
}

/// Reads an invite of a list.
pub fn invite(row: &impl DirectoryRow) -> Result<InviteSummary, Failure> {
    Ok(InviteSummary {
        invite_hash: hash(row, "invite_hash")?,
        created_ms: number(row, "created_ms")?,
        used_by: row.optional_text("handle")?,
    })
}

/// Reads an id.
pub fn id<T>(row: &impl DirectoryRow, column: &str) -> Result<T, Failure>
where
    T: for<'a> TryFrom<&'a [u8], Error = IdLengthError>,
{
    Ok(optional_id(row, column)?.ok_or_else(|| damaged(column, "it is missing"))?)
}

/// Reads an id that may be missing.
fn optional_id<T>(row: &impl DirectoryRow, column: &str) -> Result<Option<T>, Failure>
where
    T: for<'a> TryFrom<&'a [u8], Error = IdLengthError>,
{
    Ok(row.bytes(column)?.map(T::try_from).transpose().map_err(|error| damaged(column, error))?)
}

/// Reads a number that is never negative.
pub fn number(row: &impl DirectoryRow, column: &str) -> Result<u64, Failure> {
    Ok(u64::try_from(row.integer(column)?).map_err(|error| damaged(column, error))?)
}

/// Reads 16 bytes that name a directory.
pub fn identity(row: &impl DirectoryRow, column: &str) -> Result<[u8; 16], Failure> {
    let bytes = row.bytes(column)?.unwrap_or_default();
    Ok(<[u8; 16]>::try_from(bytes).map_err(|error| damaged(column, error))?)
}

fn hash(row: &impl DirectoryRow, column: &str) -> Result<SecretHash, Failure> {
    let bytes = row.bytes(column)?.unwrap_or_default();
    Ok(SecretHash::try_from(bytes).map_err(|error| damaged(column, error))?)
}

fn text(row: &impl DirectoryRow, column: &str) -> Result<String, Failure> {
    Ok(row.optional_text(column)?.ok_or_else(|| damaged(column, "it is missing"))?)
}

/// Returns a time as a database can keep it. Its integers end 292 million years from now.
pub fn time(unix_ms: u64) -> i64 {
    i64::try_from(unix_ms).unwrap_or(i64::MAX)
}

fn damaged(column: &str, error: impl std::fmt::Display) -> DirectoryError {
    DirectoryError::Corrupt { reason: format!("column {column}: {error}") }
}
