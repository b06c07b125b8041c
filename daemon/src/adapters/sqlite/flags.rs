//! How accounts want to see their conversations.

use quail_core::ports::directory::{ConversationFlags, DirectoryError, FlagChange, FlagsByPeer};
use quail_protocol::id::{AccountId, DeviceId};
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::{accounts, devices};
use crate::adapters::sql::failure::Failure;
use crate::adapters::sql::rows;

/// Changes the flags of a conversation in the name of a device of the account.
pub(super) async fn set(
    connection: &mut SqliteConnection,
    (account, by): (AccountId, DeviceId),
    peer: AccountId,
    change: FlagChange,
) -> Result<ConversationFlags, Failure> {
    if !devices::exists(connection, account, by).await? {
        return Err(DirectoryError::UnknownDevice.into());
    }
    if accounts::facts(connection, peer).await?.is_none() {
        return Err(DirectoryError::UnknownAccount.into());
    }
    let known = list(connection, account, &[peer]).await?.remove(&peer).unwrap_or_default();
    let flags = change.of(known);
    if flags == ConversationFlags::default() {
        sqlx::query("DELETE FROM conversation_flags WHERE account = ?1 AND peer = ?2")
            .bind(account.as_bytes().as_slice())
            .bind(peer.as_bytes().as_slice())
            .execute(connection)
            .await?;
        return Ok(flags);
    }
    sqlx::query(
        "INSERT INTO conversation_flags (account, peer, muted, pinned, put_away) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (account, peer) DO UPDATE SET
             muted = excluded.muted, pinned = excluded.pinned, put_away = excluded.put_away",
    )
    .bind(account.as_bytes().as_slice())
    .bind(peer.as_bytes().as_slice())
    .bind(flags.muted)
    .bind(flags.pinned)
    .bind(flags.put_away)
    .execute(connection)
    .await?;
    Ok(flags)
}

/// Returns what an account has set of its conversations with these peers.
pub(super) async fn list(
    connection: &mut SqliteConnection,
    account: AccountId,
    peers: &[AccountId],
) -> Result<FlagsByPeer, Failure> {
    let mut query = QueryBuilder::<Sqlite>::new(
        "SELECT peer, muted, pinned, put_away FROM conversation_flags WHERE account = ",
    );
    query.push_bind(account.as_bytes().as_slice()).push(" AND peer IN (");
    let mut list = query.separated(", ");
    for peer in peers {
        list.push_bind(peer.as_bytes().as_slice());
    }
    query.push(")");
    let found = query.build().fetch_all(connection).await?;
    found.iter().map(rows::flags).collect()
}
