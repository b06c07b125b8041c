//! Invites: each good for one account.

use quail_core::ports::directory::{DirectoryError, SecretHash};
use quail_protocol::id::AccountId;
use sqlx::SqliteConnection;

use super::failure::{Failure, duplicate};
use super::rows;

/// Keeps a new invite.
pub(super) async fn create(
    connection: &mut SqliteConnection,
    invite_hash: &SecretHash,
    now_ms: u64,
) -> Result<(), Failure> {
    sqlx::query("INSERT INTO invites (invite_hash, created_ms) VALUES (?1, ?2)")
        .bind(invite_hash.as_slice())
        .bind(rows::time(now_ms))
        .execute(connection)
        .await
        .map_err(duplicate("invite"))?;
    Ok(())
}

/// Refuses an invite that is unknown or used.
pub(super) async fn check(
    connection: &mut SqliteConnection,
    invite_hash: &SecretHash,
) -> Result<(), Failure> {
    let open = sqlx::query("SELECT 1 FROM invites WHERE invite_hash = ?1 AND used_ms IS NULL")
        .bind(invite_hash.as_slice())
        .fetch_optional(connection)
        .await?;
    Ok(open.map(|_| ()).ok_or(DirectoryError::InviteInvalid)?)
}

/// Marks an invite, checked in this transaction, as used up by an account, created in this transaction.
pub(super) async fn use_up(
    connection: &mut SqliteConnection,
    invite_hash: &SecretHash,
    account: AccountId,
    now_ms: u64,
) -> Result<(), Failure> {
    sqlx::query("UPDATE invites SET used_ms = ?3, used_by = ?2 WHERE invite_hash = ?1")
        .bind(invite_hash.as_slice())
        .bind(account.as_bytes().as_slice())
        .bind(rows::time(now_ms))
        .execute(connection)
        .await?;
    Ok(())
}
