//! A message that has a row already: it was awaited, it is a copy, or it is another one under the same id.

use quail_core::ports::archive::{Applied, Loser, NewMessage};
use sqlx::SqliteConnection;

use super::changes;
use super::fault::Fault;
use super::rows::{self, AWAITED, DELETED, Known, THERE, int, place};
use super::trail::Trail;

/// Puts a message to its row.
pub(super) async fn merge(
    connection: &mut SqliteConnection,
    trail: &mut Trail,
    row: &Known,
    new: &NewMessage,
    applied: &mut Applied,
) -> Result<(), Fault> {
    if row.state == AWAITED {
        applied.inserted += 1;
        if row.recipient != new.recipient {
            let row = changes::forget(connection, row).await?;
            return settle(connection, trail, &row, new).await;
        }
        return settle(connection, trail, row, new).await;
    }
    if (place(new), new.position) == (row.place, row.position) {
        return Ok(());
    }
    let is_smaller = place(new) < row.place;
    if new.hash()[..] != row.hash[..] {
        let (origin, position) =
            if is_smaller { (row.place.origin, row.position) } else { (new.origin, new.position) };
        applied.losers.push(Loser { message: new.message, origin, position });
    }
    if !is_smaller {
        return Ok(());
    }
    if row.conversation != new.conversation() {
        trail.load(connection, [row.conversation].into()).await?;
        trail.left(row.conversation, [row.message.sender, row.recipient]);
    }
    trail.sank(new.conversation(), [new.message.sender, new.recipient]);
    settle(connection, trail, row, new).await
}

/// Writes a message into its row. What was said of the message before it came holds.
async fn settle(
    connection: &mut SqliteConnection,
    trail: &mut Trail,
    row: &Known,
    new: &NewMessage,
) -> Result<(), Fault> {
    let conversation = new.conversation();
    trail.load(connection, [conversation].into()).await?;
    unindex(connection, row).await?;
    let (kind, body) = if row.edit.is_some() { (row.kind, &row.body) } else { (new.kind, &new.body) };
    let state = if row.is_deleted { DELETED } else { THERE };
    sqlx::query(
        "UPDATE messages SET device = ?2, recipient = ?3, conversation = ?4, origin = ?5, position = ?6, stamp = ?7,
         seq = ?8, state = ?9, kind = ?10, body = ?11, hash = ?12, reply_sender = ?13, reply_id = ?14 WHERE n = ?1",
    )
    .bind(row.n)
    .bind(new.device.as_bytes().as_slice())
    .bind(new.recipient.as_bytes().as_slice())
    .bind(conversation.as_bytes().as_slice())
    .bind(i64::from(new.origin.0))
    .bind(int(new.position.0)?)
    .bind(int(new.stamp.0)?)
    .bind(int(trail.next(conversation))?)
    .bind(state)
    .bind(kind)
    .bind((state == THERE).then(|| body.to_vec()))
    .bind(new.hash().to_vec())
    .bind(new.reply.map(|reply| reply.sender.as_bytes().to_vec()))
    .bind(new.reply.map(|reply| reply.id.as_bytes().to_vec()))
    .execute(&mut *connection)
    .await?;
    trail.arrived(new, conversation);
    let now = Known { recipient: new.recipient, state, kind, body: body.clone(), ..row.clone() };
    index(connection, &now).await
}

/// Lets a row be found.
pub(super) async fn index(connection: &mut SqliteConnection, row: &Known) -> Result<(), Fault> {
    if let Some(text) = row.text() {
        sqlx::query("INSERT INTO found (rowid, body, who) VALUES (?1, ?2, ?3)")
            .bind(row.n)
            .bind(text)
            .bind(rows::who(row.message.sender, row.recipient))
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// Lets a row not be found any more; to be done while it is as it was.
pub(super) async fn unindex(connection: &mut SqliteConnection, row: &Known) -> Result<(), Fault> {
    if let Some(text) = row.text() {
        sqlx::query("INSERT INTO found (found, rowid, body, who) VALUES ('delete', ?1, ?2, ?3)")
            .bind(row.n)
            .bind(text)
            .bind(rows::who(row.message.sender, row.recipient))
            .execute(connection)
            .await?;
    }
    Ok(())
}
