//! Accounts and origins: creating them, finding them, their passwords.

use quail_core::ports::directory::{AccountFacts, Credentials, DirectoryError, NewAccount};
use quail_protocol::id::{AccountId, DeviceId, Origin};
use sqlx::PgConnection;

use super::{devices, invites};
use crate::adapters::sql::failure::{Failure, duplicate};
use crate::adapters::sql::rows;

/// Gives the next origin number.
pub(super) async fn register_origin(connection: &mut PgConnection, now_ms: u64) -> Result<Origin, Failure> {
    let row = sqlx::query("INSERT INTO origins (created_ms) VALUES ($1) RETURNING origin")
        .bind(rows::time(now_ms))
        .fetch_one(connection)
        .await?;
    let origin = u32::try_from(rows::number(&row, "origin")?);
    Ok(Origin(origin.map_err(|error| DirectoryError::Corrupt { reason: error.to_string() })?))
}

/// Creates an account with its first device. Checks the invite before the handle.
///
/// Two who ask for one handle at once both find it free; the constraint lets one insert it, and the other one's command is
/// done again from its beginning.
pub(super) async fn create(
    connection: &mut PgConnection,
    new: &NewAccount,
    now_ms: u64,
) -> Result<AccountFacts, Failure> {
    if let Some(invite) = &new.invite_hash {
        invites::lock(connection, invite).await?;
    }
    if !taken(connection, std::slice::from_ref(&new.handle)).await?.is_empty() {
        return Err(DirectoryError::HandleTaken.into());
    }
    insert(connection, new.account, &new.handle, &new.password_hash, now_ms).await?;
    devices::insert(connection, new.account, &new.device, now_ms).await?;
    if let Some(invite) = &new.invite_hash {
        invites::use_up(connection, invite, new.account, now_ms).await?;
    }
    known_facts(connection, new.account).await
}

/// Returns which of these handles belong to accounts.
pub(super) async fn taken(connection: &mut PgConnection, handles: &[String]) -> Result<Vec<String>, Failure> {
    Ok(sqlx::query_scalar("SELECT handle FROM accounts WHERE handle = ANY($1)")
        .bind(handles)
        .fetch_all(connection)
        .await?)
}

/// Inserts an account without devices, whose handle was found to be free in this transaction.
pub(super) async fn insert(
    connection: &mut PgConnection,
    account: AccountId,
    handle: &str,
    password_hash: &str,
    now_ms: u64,
) -> Result<(), Failure> {
    sqlx::query(
        "INSERT INTO accounts (account, handle, password_hash, version, created_ms) VALUES ($1, $2, $3, 1, $4)",
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

/// An account whose row is locked until the transaction ends: neither it nor the list of its devices changes meanwhile.
pub(super) struct Locked {
    pub(super) password_hash: String,
    pub(super) is_disabled: bool,
}

/// Locks the row of an account; `None` if there is none. Every command that changes an account or its devices begins so.
pub(super) async fn lock(
    connection: &mut PgConnection,
    account: AccountId,
) -> Result<Option<Locked>, Failure> {
    let row: Option<(String, bool)> = sqlx::query_as(
        "SELECT password_hash, disabled_ms IS NOT NULL FROM accounts WHERE account = $1 FOR UPDATE",
    )
    .bind(account.as_bytes().as_slice())
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|(password_hash, is_disabled)| Locked { password_hash, is_disabled }))
}

/// Replaces the password; nothing happens if there is no such account.
pub(super) async fn set_password(
    connection: &mut PgConnection,
    account: AccountId,
    new_password_hash: &str,
) -> Result<(), Failure> {
    sqlx::query("UPDATE accounts SET password_hash = $2 WHERE account = $1")
        .bind(account.as_bytes().as_slice())
        .bind(new_password_hash)
        .execute(connection)
        .await?;
    Ok(())
}

/// Replaces the password and removes every device but `keep`.
pub(super) async fn change_password(
    connection: &mut PgConnection,
    account: AccountId,
    keep: DeviceId,
    expected_password_hash: &str,
    new_password_hash: &str,
) -> Result<AccountFacts, Failure> {
    let locked = lock(connection, account).await?.ok_or(DirectoryError::UnknownAccount)?;
    if !devices::exists(connection, account, keep).await? {
        return Err(DirectoryError::UnknownDevice.into());
    }
    if locked.password_hash != expected_password_hash {
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
    connection: &mut PgConnection,
    handle: &str,
) -> Result<Option<Credentials>, Failure> {
    let row = sqlx::query("SELECT account, handle, password_hash FROM accounts WHERE handle = $1")
        .bind(handle)
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(rows::credentials).transpose()
}

/// Finds what the password of an account is checked against.
pub(super) async fn credentials_of(
    connection: &mut PgConnection,
    account: AccountId,
) -> Result<Option<Credentials>, Failure> {
    let row = sqlx::query("SELECT account, handle, password_hash FROM accounts WHERE account = $1")
        .bind(account.as_bytes().as_slice())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(rows::credentials).transpose()
}

/// Returns what is known of an account. One statement, so that version and devices belong together.
pub(super) async fn facts(
    connection: &mut PgConnection,
    account: AccountId,
) -> Result<Option<AccountFacts>, Failure> {
    let rows = sqlx::query(
        "SELECT accounts.account, handle, version, read_receipts, device
         FROM accounts LEFT JOIN devices ON devices.account = accounts.account
         WHERE accounts.account = $1 ORDER BY device",
    )
    .bind(account.as_bytes().as_slice())
    .fetch_all(connection)
    .await?;
    rows::facts(&rows)
}

/// Finds an account by its public name, as [`facts`] does.
pub(super) async fn look_up(
    connection: &mut PgConnection,
    handle: &str,
) -> Result<Option<AccountFacts>, Failure> {
    let rows = sqlx::query(
        "SELECT accounts.account, handle, version, read_receipts, device
         FROM accounts LEFT JOIN devices ON devices.account = accounts.account
         WHERE handle = $1 ORDER BY device",
    )
    .bind(handle)
    .fetch_all(connection)
    .await?;
    rows::facts(&rows)
}

/// Returns what is known of an account that was found in this transaction.
pub(super) async fn known_facts(
    connection: &mut PgConnection,
    account: AccountId,
) -> Result<AccountFacts, Failure> {
    Ok(facts(connection, account).await?.ok_or(DirectoryError::UnknownAccount)?)
}

/// Changes whether the account lets others know what it has read, in the name of one of its devices.
pub(super) async fn set_privacy(
    connection: &mut PgConnection,
    account: AccountId,
    by: DeviceId,
    read_receipts: bool,
) -> Result<AccountFacts, Failure> {
    lock(connection, account).await?.ok_or(DirectoryError::UnknownDevice)?;
    if !devices::exists(connection, account, by).await? {
        return Err(DirectoryError::UnknownDevice.into());
    }
    sqlx::query(
        "UPDATE accounts SET read_receipts = $2, version = version + 1 WHERE account = $1 AND read_receipts <> $2",
    )
    .bind(account.as_bytes().as_slice())
    .bind(read_receipts)
    .execute(&mut *connection)
    .await?;
    known_facts(connection, account).await
}

/// Says that what the facts tell of the account has changed in this transaction.
pub(super) async fn raise_version(connection: &mut PgConnection, account: AccountId) -> Result<(), Failure> {
    sqlx::query("UPDATE accounts SET version = version + 1 WHERE account = $1")
        .bind(account.as_bytes().as_slice())
        .execute(connection)
        .await?;
    Ok(())
}
