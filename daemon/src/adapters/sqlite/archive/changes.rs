//! What becomes of messages: edits, deletions, reactions. They may come before their message.

use bytes::Bytes;
use quail_core::ports::archive::{Change, ChangeKind, MessageRef, Place, direct};
use quail_protocol::id::AccountId;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::fault::Fault;
use super::merge::{index, unindex};
use super::rows::{AWAITED, DELETED, KNOWN, Known, THERE, int};
use super::trail::Trail;
use super::write::next_n;

/// Applies a change.
pub(super) async fn apply(
    connection: &mut SqliteConnection,
    trail: &mut Trail,
    change: &Change,
) -> Result<(), Fault> {
    if !change.is_from_inside() {
        return Ok(());
    }
    let row = match find(connection, change).await? {
        Some(row) => row,
        None => await_message(connection, change).await?,
    };
    if row.recipient != change.recipient {
        return Ok(());
    }
    let place = Place { stamp: change.stamp, origin: change.origin };
    let is_news = match &change.kind {
        ChangeKind::Edit { kind, body } => edit(connection, &row, place, *kind, body).await?,
        ChangeKind::DeleteForAll => delete(connection, &row).await?,
        ChangeKind::DeleteForMe { account } => hide(connection, &row, *account).await?,
        ChangeKind::React { account, reaction } => {
            react(connection, &row, place, *account, reaction.as_deref()).await?
        }
    };
    if is_news {
        trail.load(connection, [row.conversation].into()).await?;
        let seq = int(trail.next(row.conversation))?;
        let query = sqlx::query("UPDATE messages SET seq = ?2 WHERE n = ?1").bind(row.n).bind(seq);
        query.execute(connection).await?;
    }
    Ok(())
}

async fn find(connection: &mut SqliteConnection, change: &Change) -> Result<Option<Known>, Fault> {
    let row = find_query(change.message).build().fetch_optional(connection).await?;
    row.map(|row| Known::of(&row)).transpose()
}

pub(super) fn find_query(message: MessageRef) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::<Sqlite>::new(KNOWN);
    query.push("FROM messages AS x WHERE sender = ");
    query.push_bind(message.sender.as_bytes().as_slice()).push(" AND id = ");
    query.push_bind(message.id.as_bytes().as_slice());
    query
}

/// Makes a row for a message that is not there yet. It is in no list.
async fn await_message(connection: &mut SqliteConnection, change: &Change) -> Result<Known, Fault> {
    let n = next_n(connection).await?;
    let conversation = direct(change.message.sender, change.recipient);
    sqlx::query(
        "INSERT INTO messages (n, sender, id, device, recipient, conversation, origin, position, stamp, seq, state,
         kind, hash) VALUES (?1, ?2, ?3, zeroblob(16), ?4, ?5, 0, 0, 0, 0, ?6, 0, zeroblob(0))",
    )
    .bind(n)
    .bind(change.message.sender.as_bytes().as_slice())
    .bind(change.message.id.as_bytes().as_slice())
    .bind(change.recipient.as_bytes().as_slice())
    .bind(conversation.as_bytes().as_slice())
    .bind(AWAITED)
    .execute(connection)
    .await?;
    Ok(Known {
        n,
        message: change.message,
        recipient: change.recipient,
        conversation,
        place: Place { stamp: Default::default(), origin: quail_protocol::id::Origin(0) },
        position: Default::default(),
        state: AWAITED,
        kind: 0,
        body: Bytes::new(),
        hash: Vec::new(),
        is_deleted: false,
        edit: None,
    })
}

/// Forgets what was said of a message that is not there yet, because it was said in another conversation.
pub(super) async fn forget(connection: &mut SqliteConnection, row: &Known) -> Result<Known, Fault> {
    sqlx::query(
        "UPDATE messages SET kind = 0, body = NULL, is_deleted = 0, edit_stamp = NULL, edit_origin = NULL WHERE n = ?1",
    )
    .bind(row.n)
    .execute(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM reactions WHERE n = ?1").bind(row.n).execute(&mut *connection).await?;
    // Nobody else could hide it.
    sqlx::query("DELETE FROM hidden WHERE account IN (?1, ?2) AND n = ?3")
        .bind(row.message.sender.as_bytes().as_slice())
        .bind(row.recipient.as_bytes().as_slice())
        .bind(row.n)
        .execute(connection)
        .await?;
    Ok(Known { kind: 0, body: Bytes::new(), is_deleted: false, edit: None, ..row.clone() })
}

async fn edit(
    connection: &mut SqliteConnection,
    row: &Known,
    place: Place,
    kind: i32,
    body: &Bytes,
) -> Result<bool, Fault> {
    if row.is_deleted || row.edit.is_some_and(|edit| edit >= place) {
        return Ok(false);
    }
    unindex(connection, row).await?;
    sqlx::query("UPDATE messages SET kind = ?2, body = ?3, edit_stamp = ?4, edit_origin = ?5 WHERE n = ?1")
        .bind(row.n)
        .bind(kind)
        .bind(&body[..])
        .bind(int(place.stamp.0)?)
        .bind(i64::from(place.origin.0))
        .execute(&mut *connection)
        .await?;
    index(connection, &Known { kind, body: body.clone(), ..row.clone() }).await?;
    Ok(true)
}

async fn delete(connection: &mut SqliteConnection, row: &Known) -> Result<bool, Fault> {
    if row.is_deleted {
        return Ok(false);
    }
    unindex(connection, row).await?;
    let state = if row.state == THERE { DELETED } else { row.state };
    sqlx::query("UPDATE messages SET state = ?2, is_deleted = 1, body = NULL WHERE n = ?1")
        .bind(row.n)
        .bind(state)
        .execute(connection)
        .await?;
    Ok(true)
}

async fn hide(connection: &mut SqliteConnection, row: &Known, account: AccountId) -> Result<bool, Fault> {
    let hidden = sqlx::query("INSERT INTO hidden (account, n) VALUES (?1, ?2) ON CONFLICT DO NOTHING")
        .bind(account.as_bytes().as_slice())
        .bind(row.n)
        .execute(connection)
        .await?;
    Ok(hidden.rows_affected() > 0)
}

async fn react(
    connection: &mut SqliteConnection,
    row: &Known,
    place: Place,
    account: AccountId,
    reaction: Option<&str>,
) -> Result<bool, Fault> {
    let reacted = sqlx::query(
        "INSERT INTO reactions (n, account, reaction, stamp, origin) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (n, account) DO UPDATE
         SET reaction = excluded.reaction, stamp = excluded.stamp, origin = excluded.origin
         WHERE (excluded.stamp, excluded.origin) > (stamp, origin)",
    )
    .bind(row.n)
    .bind(account.as_bytes().as_slice())
    .bind(reaction)
    .bind(int(place.stamp.0)?)
    .bind(i64::from(place.origin.0))
    .execute(connection)
    .await?;
    Ok(reacted.rows_affected() > 0)
}
