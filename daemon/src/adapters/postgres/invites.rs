//! Invites: each good for one account.

use quail_core::ports::directory::{DirectoryError, InviteSummary, SecretHash};
use quail_protocol::id::AccountId;
use sqlx::PgConnection;

use crate::adapters::sql::failure::{Failure, duplicate};
use crate::adapters::sql::rows;

/// Keeps a new invite.
pub(super) async fn create(
    connection: &mut PgConnection,
    invite_hash: &SecretHash,
    now_ms: u64,
) -> Result<(), Failure> {
    sqlx::query("INSERT INTO invites (invite_hash, created_ms) VALUES ($1, $2)")
        .bind(invite_hash.as_slice())
        .bind(rows::time(now_ms))
        .execute(connection)
        .await
        .map_err(duplicate("invite"))?;
    Ok(())
}

/// Refuses an invite that is unknown or used, and locks another one: of two who use it at once, the second waits here and
/// finds it used.
pub(super) async fn lock(connection: &mut PgConnection, invite_hash: &SecretHash) -> Result<(), Failure> {
    let open = sqlx::query("SELECT 1 FROM invites WHERE invite_hash = $1 AND used_ms IS NULL FOR UPDATE")
        .bind(invite_hash.as_slice())
        .fetch_optional(connection)
        .await?;
    Ok(open.map(|_| ()).ok_or(DirectoryError::InviteInvalid)?)
}

/// Marks an invite that is locked as used up by an account that was created in this transaction.
pub(super) async fn use_up(
    connection: &mut PgConnection,
    invite_hash: &SecretHash,
    account: AccountId,
    now_ms: u64,
) -> Result<(), Failure> {
    sqlx::query("UPDATE invites SET used_ms = $3, used_by = $2 WHERE invite_hash = $1")
        .bind(invite_hash.as_slice())
        .bind(account.as_bytes().as_slice())
        .bind(rows::time(now_ms))
        .execute(connection)
        .await?;
    Ok(())
}

/// Lists the invites whose hashes lie between two, both included.
pub(super) async fn list(
    connection: &mut PgConnection,
    first: &SecretHash,
    last: &SecretHash,
    limit: u32,
) -> Result<Vec<InviteSummary>, Failure> {
    let rows = sqlx::query(
        "SELECT invite_hash, invites.created_ms, handle
         FROM invites LEFT JOIN accounts ON accounts.account = used_by
         WHERE invite_hash BETWEEN $1 AND $2 ORDER BY invite_hash LIMIT $3",
    )
    .bind(first.as_slice())
    .bind(last.as_slice())
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    rows.iter().map(rows::invite).collect()
}

/// Forgets an invite that nobody has used.
pub(super) async fn revoke(connection: &mut PgConnection, invite_hash: &SecretHash) -> Result<(), Failure> {
    lock(connection, invite_hash).await?;
    sqlx::query("DELETE FROM invites WHERE invite_hash = $1")
        .bind(invite_hash.as_slice())
        .execute(connection)
        .await?;
    Ok(())
}
