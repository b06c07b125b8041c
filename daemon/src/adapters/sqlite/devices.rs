//! Devices and their sessions.

use quail_core::ports::directory::{
    AccountFacts, DeviceSummary, DirectoryError, NewDevice, SecretHash, SessionFacts,
};
use quail_protocol::id::{AccountId, DeviceId};
use quail_protocol::limits::DEVICES_MAX;
use sqlx::SqliteConnection;

use super::accounts::{credentials_of, is_disabled, known_facts, raise_version};
use crate::adapters::sql::failure::{Failure, duplicate};
use crate::adapters::sql::rows;

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
        "INSERT INTO devices (device, account, name, platform, token_hash, created_ms, last_seen_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
    )
    .bind(device.device.as_bytes().as_slice())
    .bind(account.as_bytes().as_slice())
    .bind(&device.name)
    .bind(&device.platform)
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

/// Logs a device out, if the account has it and the one that asks for it.
pub(super) async fn unlink(
    connection: &mut SqliteConnection,
    account: AccountId,
    by: DeviceId,
    device: DeviceId,
) -> Result<AccountFacts, Failure> {
    if !exists(connection, account, by).await? {
        return Err(DirectoryError::UnknownDevice.into());
    }
    remove(connection, account, device).await
}

/// Lists the devices of an account, the oldest first.
pub(super) async fn list(
    connection: &mut SqliteConnection,
    account: AccountId,
) -> Result<Vec<DeviceSummary>, Failure> {
    let rows = sqlx::query(
        "SELECT device, name, platform, created_ms, last_seen_ms FROM devices
         WHERE account = ?1 ORDER BY created_ms, device",
    )
    .bind(account.as_bytes().as_slice())
    .fetch_all(connection)
    .await?;
    rows.iter().map(rows::device).collect()
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
) -> Result<Option<SessionFacts>, Failure> {
    let row = sqlx::query(
        "SELECT devices.account, device, handle
         FROM devices JOIN accounts ON accounts.account = devices.account
         WHERE token_hash = ?1",
    )
    .bind(token_hash.as_slice())
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(rows::session).transpose()
}

/// Writes down when devices were last seen. A clock that was set back does not undo a record.
pub(super) async fn record_seen(
    connection: &mut SqliteConnection,
    seen: &[(DeviceId, u64)],
) -> Result<(), Failure> {
    for (device, seen_ms) in seen {
        sqlx::query("UPDATE devices SET last_seen_ms = ?2 WHERE device = ?1 AND last_seen_ms < ?2")
            .bind(device.as_bytes().as_slice())
            .bind(rows::time(*seen_ms))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

async fn count(connection: &mut SqliteConnection, account: AccountId) -> Result<u64, Failure> {
    let row = sqlx::query("SELECT count(*) AS devices FROM devices WHERE account = ?1")
        .bind(account.as_bytes().as_slice())
        .fetch_one(connection)
        .await?;
    rows::number(&row, "devices")
}
