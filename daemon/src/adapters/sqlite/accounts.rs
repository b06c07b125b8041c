//! Accounts and origins: creating them, finding them, their passwords.

use quail_core::ports::directory::{AccountFacts, Credentials, DirectoryError, NewAccount};
use quail_protocol::id::{AccountId, DeviceId, Origin};
use sqlx::{Row, SqliteConnection};

use super::{devices, invites};
use crate::adapters::sql::failure::{Failure, duplicate};
use crate::adapters::sql::rows;

/// Gives the next origin number.
pub(super) async fn register_origin(
    connection: &mut SqliteConnection,
    now_ms: u64,
) -> Result<Origin, Failure> {
    let row = sqlx::query("INSERT INTO origins (created_ms) VALUES (?1) RETURNING origin")
        .bind(rows::time(now_ms))
        .fetch_one(connection)
        .await?;
    Ok(Origin(row.try_get("origin")?))
}

/// Creates an account with its first device. Checks the invite before the handle.
pub(super) async fn create(
    connection: &mut SqliteConnection,
    new: &NewAccount,
    now_ms: u64,
) -> Result<AccountFacts, Failure> {
    if let Some(invite) = &new.invite_hash {
        invites::check(connection, invite).await?;
    }
    if exists(connection, &new.handle).await? {
        return Err(DirectoryError::HandleTaken.into());
    }
    insert(connection, new.account, &new.handle, &new.password_hash, now_ms).await?;
    devices::insert(connection, new.account, &new.device, now_ms).await?;
    if let Some(invite) = &new.invite_hash {
        invites::use_up(connection, invite, new.account, now_ms).await?;
    }
    known_facts(connection, new.account).await
}

/// Returns whether a handle belongs to an account.
pub(super) async fn exists(connection: &mut SqliteConnection, handle: &str) -> Result<bool, Failure> {
    let row = sqlx::query("SELECT 1 FROM accounts WHERE handle = ?1")
        .bind(handle)
        .fetch_optional(connection)
        .await?;
    Ok(row.is_some())
}

/// Inserts an account without devices, whose handle was found to be free in this transaction.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    account: AccountId,
    handle: &str,
    password_hash: &str,
    now_ms: u64,
) -> Result<(), Failure> {
    sqlx::query(
        "INSERT INTO accounts (account, handle, password_hash, version, created_ms) VALUES (?1, ?2, ?3, 1, ?4)",
    )
    .bind(account.as_bytes().as_slice())
    .bind(handle)
    .bind(password_hash)
    .bind(rows::time(now_ms))
    .execute(connection)
    .await
    .map_err(duplicate("account id"))?;
    Ok(())
}

/// Returns whether the operator has disabled an account.
pub(super) async fn is_disabled(
    connection: &mut SqliteConnection,
    account: AccountId,
) -> Result<bool, Failure> {
    let row = sqlx::query("SELECT 1 FROM accounts WHERE account = ?1 AND disabled_ms IS NOT NULL")
        .bind(account.as_bytes().as_slice())
        .fetch_optional(connection)
        .await?;
    Ok(row.is_some())
}

/// Replaces the password; nothing happens if there is no such account.
pub(super) async fn set_password(
    connection: &mut SqliteConnection,
    account: AccountId,
    new_password_hash: &str,
) -> Result<(), Failure> {
    sqlx::query("UPDATE accounts SET password_hash = ?2 WHERE account = ?1")
        .bind(account.as_bytes().as_slice())
        .bind(new_password_hash)
        .execute(connection)
        .await?;
    Ok(())
}

/// Replaces the password and removes every device but `keep`.
pub(super) async fn change_password(
    connection: &mut SqliteConnection,
    account: AccountId,
    keep: DeviceId,
    expected_password_hash: &str,
    new_password_hash: &str,
) -> Result<AccountFacts, Failure> {
    let credentials = credentials_of(connection, account).await?.ok_or(DirectoryError::UnknownAccount)?;
    if !devices::exists(connection, account, keep).await? {
        return Err(DirectoryError::UnknownDevice.into());
    }
    if credentials.password_hash != expected_password_hash {
        return Err(DirectoryError::PasswordChanged.into());
    }
    set_password(connection, account, new_password_hash).await?;
    if devices::remove_others(connection, account, keep).await? {
        raise_version(connection, account).await?;
    }
    known_facts(connection, account).await
}

/// Finds what the password of a handle is checked against.
pub(super) async fn credentials(
    connection: &mut SqliteConnection,
    handle: &str,
) -> Result<Option<Credentials>, Failure> {
    let row = sqlx::query("SELECT account, handle, password_hash FROM accounts WHERE handle = ?1")
        .bind(handle)
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(rows::credentials).transpose()
}

/// Finds what the password of an account is checked against.
pub(super) async fn credentials_of(
    connection: &mut SqliteConnection,
    account: AccountId,
) -> Result<Option<Credentials>, Failure> {
    let row = sqlx::query("SELECT account, handle, password_hash FROM accounts WHERE account = ?1")
        .bind(account.as_bytes().as_slice())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(rows::credentials).transpose()
}

/// Returns what is known of an account. One statement, so that version and devices belong together.
pub(super) async fn facts(
    connection: &mut SqliteConnection,
    account: AccountId,
) -> Result<Option<AccountFacts>, Failure> {
    let rows = sqlx::query(
        "SELECT accounts.account, handle, version, read_receipts, device
         FROM accounts LEFT JOIN devices ON devices.account = accounts.account
         WHERE accounts.account = ?1 ORDER BY device",
    )
    .bind(account.as_bytes().as_slice())
    .fetch_all(connection)
    .await?;
    rows::facts(&rows)
}

/// Finds an account by its public name, as [`facts`] does.
pub(super) async fn look_up(
    connection: &mut SqliteConnection,
    handle: &str,
) -> Result<Option<AccountFacts>, Failure> {
    let rows = sqlx::query(
        "SELECT accounts.account, handle, version, read_receipts, device
         FROM accounts LEFT JOIN devices ON devices.account = accounts.account
         WHERE handle = ?1 ORDER BY device",
    )
    .bind(handle)
    .fetch_all(connection)
    .await?;
    rows::facts(&rows)
}

/// Returns what is known of an account that was found in this transaction.
pub(super) async fn known_facts(
    connection: &mut SqliteConnection,
    account: AccountId,
) -> Result<AccountFacts, Failure> {
    Ok(facts(connection, account).await?.ok_or(DirectoryError::UnknownAccount)?)
}

/// Changes whether the account lets others know what it has read, in the name of one of its devices.
pub(super) async fn set_privacy(
    connection: &mut SqliteConnection,
    account: AccountId,
    by: DeviceId,
    read_receipts: bool,
) -> Result<AccountFacts, Failure> {
    if !devices::exists(connection, account, by).await? {
        return Err(DirectoryError::UnknownDevice.into());
    }
    let changed =
        sqlx::query("UPDATE accounts SET read_receipts = ?2 WHERE account = ?1 AND read_receipts <> ?2")
            .bind(account.as_bytes().as_slice())
            .bind(read_receipts)
            .execute(&mut *connection)
            .await?;
    if changed.rows_affected() > 0 {
        raise_version(connection, account).await?;
    }
    known_facts(connection, account).await
}

/// Says that what the facts tell of the account has changed in this transaction.
pub(super) async fn raise_version(
    connection: &mut SqliteConnection,
    account: AccountId,
) -> Result<(), Failure> {
    sqlx::query("UPDATE accounts SET version = version + 1 WHERE account = ?1")
        .bind(account.as_bytes().as_slice())
        .execute(connection)
        .await?;
    Ok(())
}
