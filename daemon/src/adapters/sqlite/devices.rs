//! Devices and their sessions.

use quail_core::ports::directory::{AccountFacts, DirectoryError, NewDevice, SecretHash, SessionFacts};
use quail_protocol::id::{AccountId, DeviceId};
use quail_protocol::limits::DEVICES_MAX;
use sqlx::{Row, SqliteConnection};

use super::accounts::{credentials_of, is_disabled, known_facts, raise_version};
use super::failure::{Failure, duplicate};
use super::rows;

/// A session as it is stored.
pub(super) struct Session {
    /// Whom it speaks for.
    pub(super) facts: SessionFacts,
    /// When it was last used, as far as recorded.
    pub(super) last_used_ms: u64,
}

/// Logs a device in.
pub(super) async fn add(
    connection: &mut SqliteConnection,
    account: AccountId,
    device: &NewDevice,
    expected_password_hash: &str,
    now_ms: u64,
) -> Result<AccountFacts, Failure> {
    let credentials = credentials_of(connection, account).await?.ok_or(DirectoryError::UnknownAccount)?;
    if is_disabled(connection, account).await? {
        return Err(DirectoryError::AccountDisabled.into());
    }
    if credentials.password_hash != expected_password_hash {
        return Err(DirectoryError::PasswordChanged.into());
    }
    if count(connection, account).await? >= DEVICES_MAX as u64 {
        return Err(DirectoryError::DeviceLimit.into());
    }
    insert(connection, account, device, now_ms).await?;
    raise_version(connection, account).await?;
    known_facts(connection, account).await
}

/// Inserts a device of an account that exists; the caller sees to the version.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    account: AccountId,
    device: &NewDevice,
    now_ms: u64,
) -> Result<(), Failure> {
    sqlx::query(
        "INSERT INTO devices (device, account, name, token_hash, created_ms, last_used_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
    )
    .bind(device.device.as_bytes().as_slice())
    .bind(account.as_bytes().as_slice())
    .bind(&device.name)
    .bind(device.token_hash.as_slice())
    .bind(rows::time(now_ms))
    .execute(connection)
    .await
    .map_err(duplicate("device id or session token"))?;
    Ok(())
}

/// Logs a device out, if the account has it.
pub(super) async fn remove(
    connection: &mut SqliteConnection,
    account: AccountId,
    device: DeviceId,
) -> Result<AccountFacts, Failure> {
    let removed = sqlx::query("DELETE FROM devices WHERE account = ?1 AND device = ?2")
        .bind(account.as_bytes().as_slice())
        .bind(device.as_bytes().as_slice())
        .execute(&mut *connection)
        .await?;
    if removed.rows_affected() > 0 {
        raise_version(connection, account).await?;
    }
    known_facts(connection, account).await
}

/// Logs every device but one out. Returns whether there were any; the caller sees to the version.
pub(super) async fn remove_others(
    connection: &mut SqliteConnection,
    account: AccountId,
    keep: DeviceId,
) -> Result<bool, Failure> {
    let removed = sqlx::query("DELETE FROM devices WHERE account = ?1 AND device <> ?2")
        .bind(account.as_bytes().as_slice())
        .bind(keep.as_bytes().as_slice())
        .execute(connection)
        .await?;
    Ok(removed.rows_affected() > 0)
}

/// Returns whether an account has a device.
pub(super) async fn exists(
    connection: &mut SqliteConnection,
    account: AccountId,
    device: DeviceId,
) -> Result<bool, Failure> {
    let row = sqlx::query("SELECT 1 FROM devices WHERE account = ?1 AND device = ?2")
        .bind(account.as_bytes().as_slice())
        .bind(device.as_bytes().as_slice())
        .fetch_optional(connection)
        .await?;
    Ok(row.is_some())
}

/// Finds whom a token speaks for.
pub(super) async fn session(
    connection: &mut SqliteConnection,
    token_hash: &SecretHash,
) -> Result<Option<Session>, Failure> {
    let row = sqlx::query(
        "SELECT devices.account, device, handle, last_used_ms
         FROM devices JOIN accounts ON accounts.account = devices.account
         WHERE token_hash = ?1",
    )
    .bind(token_hash.as_slice())
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let facts = SessionFacts {
        account: rows::id(&row, "account")?,
        device: rows::id(&row, "device")?,
        handle: row.try_get("handle")?,
    };
    Ok(Some(Session { facts, last_used_ms: rows::number(&row, "last_used_ms")? }))
}

/// Writes down when a session was used.
pub(super) async fn record_use(
    connection: &mut SqliteConnection,
    token_hash: &SecretHash,
    now_ms: u64,
) -> Result<(), Failure> {
    sqlx::query("UPDATE devices SET last_used_ms = ?2 WHERE token_hash = ?1")
        .bind(token_hash.as_slice())
        .bind(rows::time(now_ms))
        .execute(connection)
        .await?;
    Ok(())
}

async fn count(connection: &mut SqliteConnection, account: AccountId) -> Result<u64, Failure> {
    let row = sqlx::query("SELECT count(*) AS devices FROM devices WHERE account = ?1")
        .bind(account.as_bytes().as_slice())
        .fetch_one(connection)
        .await?;
    rows::number(&row, "devices")
}
