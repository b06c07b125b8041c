//! Applying a batch: what it touches is locked and read, worked out in memory, and written with few statements of many rows.

use std::collections::{BTreeMap, BTreeSet};

use quail_core::ports::archive::{
    Advance, Applied, ArchiveBatch, ArchiveError, Change, ChangeKind, MessageRef, NewMessage, Place, direct,
};
use quail_protocol::id::{AccountId, ConversationId, Origin, Position, Stamp};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use super::dead;
use super::fault::Fault;
use super::merge::{Fate, Reaction, Row, Rows};
use super::rows::{self, int};
use super::trail::Trail;

/// How often conversations are looked for that a batch touches without naming them: those of a message that uses the id of one
/// elsewhere. Once is enough, if nobody moves it meanwhile.
const LOOKS_MAX: usize = 4;

/// Returns up to where an origin is archived.
pub(super) async fn archived(
    connection: &mut PgConnection,
    origin: Origin,
) -> Result<Option<Position>, Fault> {
    let row = sqlx::query("SELECT position FROM archived WHERE origin = $1")
        .bind(i64::from(origin.0))
        .fetch_optional(connection)
        .await?;
    row.map(|row| rows::number(&row, "position").map(Position)).transpose()
}

/// Says up to where an origin is archived, and returns whether it was not. Whoever does the same at once, as the server may do with a
/// batch whose answer was given up, is waited for.
pub(super) async fn set_archived(
    connection: &mut PgConnection,
    origin: Origin,
    upto: Position,
) -> Result<bool, Fault> {
    let set = sqlx::query(
        "INSERT INTO archived AS a (origin, position) VALUES ($1, $2)
         ON CONFLICT (origin) DO UPDATE SET position = excluded.position WHERE excluded.position > a.position",
    )
    .bind(i64::from(origin.0))
    .bind(int(upto.0)?)
    .execute(connection)
    .await?;
    Ok(set.rows_affected() > 0)
}

/// Applies everything in a batch.
pub(super) async fn apply(connection: &mut PgConnection, batch: &ArchiveBatch) -> Result<Applied, Fault> {
    for new in &batch.messages {
        int(new.position.0).and(int(new.stamp.0))?;
        if new.position == Position::ZERO {
            // The schema would refuse it; here it is known before anything is locked.
            let reason = "no event has the position 0".to_owned();
            return Err(ArchiveError::Refused { reason }.into());
        }
    }
    let mut applied = Applied::default();
    let mut trail = Trail::default();
    let conversations: Vec<_> = batch.messages.iter().map(NewMessage::conversation).collect();
    let mut rows = known(connection, &mut trail, batch, &conversations).await?;
    for (new, conversation) in batch.messages.iter().zip(conversations) {
        rows.message(&mut trail, new, conversation, &mut applied);
    }
    for change in &batch.changes {
        rows.change(&mut trail, change);
    }
    write(connection, &rows).await?;
    trail.write(connection).await?;
    advance(connection, &batch.advances).await?;
    dead::bury(connection, &batch.dead).await?;
    Ok(applied)
}

/// Locks the conversations of a batch, and reads the rows that it may touch.
async fn known(
    connection: &mut PgConnection,
    trail: &mut Trail,
    batch: &ArchiveBatch,
    conversations: &[ConversationId],
) -> Result<Rows, Fault> {
    let changed = batch.changes.iter().map(|change| direct(change.message.sender, change.recipient));
    let named: BTreeSet<_> = conversations.iter().copied().chain(changed).collect();
    let keys = batch.messages.iter().map(|new| new.message);
    let keys: BTreeSet<_> = keys.chain(batch.changes.iter().map(|change| change.message)).collect();
    let mut rows = Rows::default();
    if keys.is_empty() {
        return Ok(rows);
    }
    trail.lock(connection, &named).await?;
    for _ in 0..LOOKS_MAX {
        rows.messages = messages(connection, &keys).await?;
        let others = rows.messages.values().map(|row| row.conversation);
        let others: BTreeSet<_> = others.filter(|one| !trail.has(*one)).collect();
        if others.is_empty() {
            rows.hidden = hidden(connection, &batch.changes).await?;
            rows.reactions = reactions(connection, &batch.changes).await?;
            return Ok(rows);
        }
        // What was read of them was read before they were locked.
        trail.lock(connection, &others).await?;
    }
    Err(Fault::Conflict)
}

async fn messages(
    connection: &mut PgConnection,
    keys: &BTreeSet<MessageRef>,
) -> Result<BTreeMap<MessageRef, Row>, Fault> {
    let found = sqlx::query(
        "SELECT x.sender, x.id, x.device, x.recipient, x.conversation, x.origin, x.position, x.stamp, x.seq, x.state,
            x.kind, x.body, x.hash, x.is_deleted, x.edit_stamp, x.edit_origin, x.reply_sender, x.reply_id
         FROM unnest($1::integer[], $2::bytea[], $3::bytea[]) AS k (month, sender, id)
         JOIN messages AS x ON x.month = k.month AND x.sender = k.sender AND x.id = k.id",
    )
    .bind(keys.iter().map(|key| rows::month(&key.id)).collect::<Vec<_>>())
    .bind(keys.iter().map(|key| key.sender.as_bytes().as_slice()).collect::<Vec<_>>())
    .bind(keys.iter().map(|key| key.id.as_bytes().as_slice()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    found.iter().map(|row| Ok((rows::reference(row)?, known_row(row)?))).collect()
}

fn known_row(row: &PgRow) -> Result<Row, Fault> {
    let body: Option<Vec<u8>> = row.try_get("body")?;
    let hash: &[u8] = row.try_get("hash")?;
    let damaged = |error| ArchiveError::Damaged { reason: format!("column hash: {error}") };
    Ok(Row {
        message: rows::reference(row)?,
        device: rows::id(row, "device")?,
        recipient: rows::id(row, "recipient")?,
        conversation: rows::id(row, "conversation")?,
        place: Place { stamp: Stamp(rows::number(row, "stamp")?), origin: rows::origin(row, "origin")? },
        position: Position(rows::number(row, "position")?),
        seq: rows::number(row, "seq")?,
        state: row.try_get("state")?,
        kind: row.try_get("kind")?,
        body: body.unwrap_or_default().into(),
        hash: hash.try_into().map_err(damaged)?,
        is_deleted: row.try_get("is_deleted")?,
        edit: rows::edit(row)?,
        reply: rows::reply(row)?,
        fate: Fate::Kept,
    })
}

/// Returns what of what is deleted for somebody is so already.
async fn hidden(
    connection: &mut PgConnection,
    changes: &[Change],
) -> Result<BTreeSet<(AccountId, MessageRef)>, Fault> {
    let asked = changes.iter().filter_map(|change| match change.kind {
        ChangeKind::DeleteForMe { account } => Some((account, change.message)),
        _ => None,
    });
    let asked: Vec<_> = asked.collect();
    if asked.is_empty() {
        return Ok(BTreeSet::new());
    }
    let found = sqlx::query(
        "SELECT h.account, h.sender, h.id FROM unnest($1::bytea[], $2::bytea[], $3::bytea[]) AS k (account, sender, id)
         JOIN hidden AS h ON h.account = k.account AND h.sender = k.sender AND h.id = k.id",
    )
    .bind(asked.iter().map(|(account, _)| account.as_bytes().as_slice()).collect::<Vec<_>>())
    .bind(asked.iter().map(|(_, key)| key.sender.as_bytes().as_slice()).collect::<Vec<_>>())
    .bind(asked.iter().map(|(_, key)| key.id.as_bytes().as_slice()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    found.iter().map(|row| Ok((rows::id(row, "account")?, rows::reference(row)?))).collect()
}

/// Returns the reactions that there are already of those who react.
async fn reactions(
    connection: &mut PgConnection,
    changes: &[Change],
) -> Result<BTreeMap<(MessageRef, AccountId), Reaction>, Fault> {
    let asked = changes.iter().filter_map(|change| match change.kind {
        ChangeKind::React { account, .. } => Some((account, change.message)),
        _ => None,
    });
    let asked: Vec<_> = asked.collect();
    if asked.is_empty() {
        return Ok(BTreeMap::new());
    }
    let found = sqlx::query(
        "SELECT r.sender, r.id, r.account, r.stamp, r.origin
         FROM unnest($1::bytea[], $2::bytea[], $3::bytea[]) AS k (account, sender, id)
         JOIN reactions AS r ON r.sender = k.sender AND r.id = k.id AND r.account = k.account",
    )
    .bind(asked.iter().map(|(account, _)| account.as_bytes().as_slice()).collect::<Vec<_>>())
    .bind(asked.iter().map(|(_, key)| key.sender.as_bytes().as_slice()).collect::<Vec<_>>())
    .bind(asked.iter().map(|(_, key)| key.id.as_bytes().as_slice()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let reaction = |row: &PgRow| {
        let place = Place { stamp: Stamp(rows::number(row, "stamp")?), origin: rows::origin(row, "origin")? };
        let key = (rows::reference(row)?, rows::id(row, "account")?);
        Ok((key, Reaction { place, reaction: None, is_changed: false }))
    };
    found.iter().map(reaction).collect()
}

/// Writes what became of rows.
async fn write(connection: &mut PgConnection, rows: &Rows) -> Result<(), Fault> {
    let of = |fate| rows.messages.values().filter(move |row| row.fate == fate).collect::<Vec<_>>();
    put(connection, INSERT, &of(Fate::New)).await?;
    put(connection, UPDATE, &of(Fate::Changed)).await?;
    forget(connection, &rows.forgotten).await?;
    if !rows.newly_hidden.is_empty() {
        let hidden = &rows.newly_hidden;
        sqlx::query(
            "INSERT INTO hidden (account, sender, id) SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bytea[])",
        )
        .bind(hidden.iter().map(|(account, _)| account.as_bytes().as_slice()).collect::<Vec<_>>())
        .bind(hidden.iter().map(|(_, key)| key.sender.as_bytes().as_slice()).collect::<Vec<_>>())
        .bind(hidden.iter().map(|(_, key)| key.id.as_bytes().as_slice()).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
    }
    let changed = rows.reactions.iter().filter(|(_, reaction)| reaction.is_changed);
    let changed: Vec<_> = changed.collect();
    if changed.is_empty() {
        return Ok(());
    }
    let stamps = changed.iter().map(|(_, one)| int(one.place.stamp.0)).collect::<Result<Vec<_>, _>>()?;
    sqlx::query(
        "INSERT INTO reactions (sender, id, account, reaction, stamp, origin)
         SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bytea[], $4::bytea[], $5::bigint[], $6::bigint[])
         ON CONFLICT (sender, id, account) DO UPDATE
         SET reaction = excluded.reaction, stamp = excluded.stamp, origin = excluded.origin",
    )
    .bind(changed.iter().map(|((key, _), _)| key.sender.as_bytes().as_slice()).collect::<Vec<_>>())
    .bind(changed.iter().map(|((key, _), _)| key.id.as_bytes().as_slice()).collect::<Vec<_>>())
    .bind(changed.iter().map(|((_, account), _)| account.as_bytes().as_slice()).collect::<Vec<_>>())
    .bind(
        changed.iter().map(|(_, one)| one.reaction.as_ref().map(|text| text.as_bytes())).collect::<Vec<_>>(),
    )
    .bind(stamps)
    .bind(changed.iter().map(|(_, one)| i64::from(one.place.origin.0)).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes out what was said of messages before they came, but for what stands in their rows.
async fn forget(
    connection: &mut PgConnection,
    forgotten: &BTreeMap<MessageRef, [AccountId; 2]>,
) -> Result<(), Fault> {
    if forgotten.is_empty() {
        return Ok(());
    }
    let column = |of: fn(&MessageRef) -> &[u8]| forgotten.keys().map(of).collect::<Vec<_>>();
    sqlx::query(
        "DELETE FROM reactions AS r USING unnest($1::bytea[], $2::bytea[]) AS k (sender, id)
         WHERE r.sender = k.sender AND r.id = k.id",
    )
    .bind(column(|key| key.sender.as_bytes()))
    .bind(column(|key| key.id.as_bytes()))
    .execute(&mut *connection)
    .await?;
    let hidden = forgotten.iter().flat_map(|(key, both)| both.iter().map(move |account| (account, key)));
    let hidden: Vec<_> = hidden.collect();
    sqlx::query(
        "DELETE FROM hidden AS h USING unnest($1::bytea[], $2::bytea[], $3::bytea[]) AS k (account, sender, id)
         WHERE h.account = k.account AND h.sender = k.sender AND h.id = k.id",
    )
    .bind(hidden.iter().map(|(account, _)| account.as_bytes().as_slice()).collect::<Vec<_>>())
    .bind(hidden.iter().map(|(_, key)| key.sender.as_bytes().as_slice()).collect::<Vec<_>>())
    .bind(hidden.iter().map(|(_, key)| key.id.as_bytes().as_slice()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

const INSERT: &str = "INSERT INTO messages (month, sender, id, device, recipient, conversation, origin, position, stamp, seq,
        state, kind, body, hash, is_deleted, edit_stamp, edit_origin, reply_sender, reply_id, words)
    SELECT month, sender, id, device, recipient, conversation, origin, position, stamp, seq, state, kind, body, hash, is_deleted,
        edit_stamp, edit_origin, reply_sender, reply_id, words::tsvector
    FROM unnest($1::integer[], $2::bytea[], $3::bytea[], $4::bytea[], $5::bytea[], $6::bytea[], $7::bigint[], $8::bigint[],
        $9::bigint[], $10::bigint[], $11::smallint[], $12::integer[], $13::bytea[], $14::bytea[], $15::boolean[], $16::bigint[],
        $17::bigint[], $18::bytea[], $19::bytea[], $20::text[])
    AS k (month, sender, id, device, recipient, conversation, origin, position, stamp, seq, state, kind, body, hash, is_deleted,
        edit_stamp, edit_origin, reply_sender, reply_id, words)";

const UPDATE: &str = "UPDATE messages AS x SET device = k.device, recipient = k.recipient, conversation = k.conversation,
        origin = k.origin, position = k.position, stamp = k.stamp, seq = k.seq, state = k.state, kind = k.kind, body = k.body,
        hash = k.hash, is_deleted = k.is_deleted, edit_stamp = k.edit_stamp, edit_origin = k.edit_origin,
        reply_sender = k.reply_sender, reply_id = k.reply_id, words = k.words::tsvector
    FROM unnest($1::integer[], $2::bytea[], $3::bytea[], $4::bytea[], $5::bytea[], $6::bytea[], $7::bigint[], $8::bigint[],
        $9::bigint[], $10::bigint[], $11::smallint[], $12::integer[], $13::bytea[], $14::bytea[], $15::boolean[], $16::bigint[],
        $17::bigint[], $18::bytea[], $19::bytea[], $20::text[])
    AS k (month, sender, id, device, recipient, conversation, origin, position, stamp, seq, state, kind, body, hash, is_deleted,
        edit_stamp, edit_origin, reply_sender, reply_id, words)
    WHERE x.month = k.month AND x.sender = k.sender AND x.id = k.id";

/// Gives rows to a statement that takes every column as an array.
async fn put(connection: &mut PgConnection, statement: &'static str, rows: &[&Row]) -> Result<(), Fault> {
    if rows.is_empty() {
        return Ok(());
    }
    fn column<'a, T>(rows: &[&'a Row], of: impl Fn(&'a Row) -> T) -> Vec<T> {
        rows.iter().map(|row| of(row)).collect()
    }
    let edit_stamp = |row: &Row| row.edit.map(|edit| int(edit.stamp.0)).transpose();
    let edit_stamps = rows.iter().map(|row| edit_stamp(row)).collect::<Result<Vec<_>, _>>()?;
    let words = |row: &Row| {
        let body = row.kept_body().filter(|_| row.state == rows::THERE)?;
        rows::searched(row.kind, body, [row.message.sender, row.recipient])
    };
    sqlx::query(statement)
        .bind(column(rows, |row| rows::month(&row.message.id)))
        .bind(column(rows, |row| row.message.sender.as_bytes().as_slice()))
        .bind(column(rows, |row| row.message.id.as_bytes().as_slice()))
        .bind(column(rows, |row| row.device.as_bytes().as_slice()))
        .bind(column(rows, |row| row.recipient.as_bytes().as_slice()))
        .bind(column(rows, |row| row.conversation.as_bytes().as_slice()))
        .bind(column(rows, |row| i64::from(row.place.origin.0)))
        .bind(column(rows, |row| row.position.0.cast_signed()))
        .bind(column(rows, |row| row.place.stamp.0.cast_signed()))
        .bind(column(rows, |row| row.seq.cast_signed()))
        .bind(column(rows, |row| row.state))
        .bind(column(rows, |row| row.kind))
        .bind(column(rows, Row::kept_body))
        .bind(column(rows, |row| &row.hash[..]))
        .bind(column(rows, |row| row.is_deleted))
        .bind(edit_stamps)
        .bind(column(rows, |row| row.edit.map(|edit| i64::from(edit.origin.0))))
        .bind(column(rows, |row| row.reply.as_ref().map(|reply| reply.sender.as_bytes().as_slice())))
        .bind(column(rows, |row| row.reply.as_ref().map(|reply| reply.id.as_bytes().as_slice())))
        .bind(column(rows, words))
        .execute(connection)
        .await?;
    Ok(())
}

/// Raises markers.
async fn advance(connection: &mut PgConnection, advances: &[Advance]) -> Result<(), Fault> {
    let mut highest = BTreeMap::new();
    for advance in advances {
        let conversation = direct(advance.sender, advance.account);
        let said = [(1_i16, advance.delivered), (2, advance.read), (3, advance.read_told)];
        for (kind, position) in said {
            let Some(position) = position else { continue };
            let key = (conversation, advance.account, kind, advance.origin);
            let marker = highest.entry(key).or_insert(0);
            *marker = int(position.0)?.max(*marker);
        }
    }
    if highest.is_empty() {
        return Ok(());
    }
    // In the order of their keys, so that two daemons never wait for each other crosswise.
    sqlx::query(
        "INSERT INTO markers AS m (conversation, account, kind, origin, position)
         SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::smallint[], $4::bigint[], $5::bigint[])
         ON CONFLICT (conversation, account, kind, origin) DO UPDATE SET position = excluded.position
         WHERE excluded.position > m.position",
    )
    .bind(highest.keys().map(|(conversation, ..)| conversation.as_bytes().to_vec()).collect::<Vec<_>>())
    .bind(highest.keys().map(|(_, account, ..)| account.as_bytes().to_vec()).collect::<Vec<_>>())
    .bind(highest.keys().map(|(_, _, kind, _)| *kind).collect::<Vec<_>>())
    .bind(highest.keys().map(|(.., origin)| i64::from(origin.0)).collect::<Vec<_>>())
    .bind(highest.values().copied().collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}
