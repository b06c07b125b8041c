//! Applying a batch: what is new goes in with few statements of many rows, the rest one by one.

use std::collections::{BTreeMap, BTreeSet};

use quail_core::ports::archive::{
    Advance, Applied, ArchiveBatch, ArchiveError, DeadLetter, MessageRef, NewMessage, direct,
};
use quail_protocol::id::{Origin, Position};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};

use super::fault::Fault;
use super::rows::{self, KNOWN, Known, THERE, int, pieces};
use super::trail::Trail;
use super::{changes, merge};

/// Returns up to where an origin is archived.
pub(super) async fn archived(
    connection: &mut SqliteConnection,
    origin: Origin,
) -> Result<Option<Position>, Fault> {
    let row = sqlx::query("SELECT position FROM archived WHERE origin = ?1")
        .bind(i64::from(origin.0))
        .fetch_optional(connection)
        .await?;
    row.map(|row| rows::number(&row, "position").map(Position)).transpose()
}

/// Says up to where an origin is archived.
pub(super) async fn set_archived(
    connection: &mut SqliteConnection,
    origin: Origin,
    upto: Position,
) -> Result<(), Fault> {
    sqlx::query(
        "INSERT INTO archived (origin, position) VALUES (?1, ?2)
         ON CONFLICT (origin) DO UPDATE SET position = max(position, excluded.position)",
    )
    .bind(i64::from(origin.0))
    .bind(int(upto.0)?)
    .execute(connection)
    .await?;
    Ok(())
}

/// Applies everything in a batch.
pub(super) async fn apply(connection: &mut SqliteConnection, batch: &ArchiveBatch) -> Result<Applied, Fault> {
    let mut applied = Applied::default();
    let mut trail = Trail::default();
    let changed = batch.changes.iter().map(|change| direct(change.message.sender, change.recipient));
    // The hash that names a conversation costs as much as its row.
    let conversations: Vec<_> = batch.messages.iter().map(NewMessage::conversation).collect();
    trail.load(connection, conversations.iter().copied().chain(changed).collect()).await?;
    let known = known(connection, &batch.messages).await?;
    let (mut seen, mut fresh, mut others) = (BTreeSet::new(), Vec::new(), Vec::new());
    for (new, conversation) in batch.messages.iter().zip(conversations) {
        if !known.contains_key(&new.message) && seen.insert(new.message) {
            let seq = trail.next(conversation);
            trail.arrived(new, conversation);
            fresh.push((new, conversation, seq));
        } else {
            others.push((new, known.get(&new.message)));
        }
    }
    insert(connection, &fresh).await?;
    applied.inserted += fresh.len() as u64;
    for (new, known) in others {
        // A third copy in one batch finds what the second one made of the first.
        let is_repeated = !seen.insert(new.message);
        let row = match known {
            Some(known) if !is_repeated => Some(known.clone()),
            _ => self::known(connection, std::slice::from_ref(new)).await?.remove(&new.message),
        };
        let Some(row) = row else {
            let reason = "a row that was just written is not there".to_owned();
            return Err(ArchiveError::Damaged { reason }.into());
        };
        merge::merge(connection, &mut trail, &row, new, &mut applied).await?;
    }
    for change in &batch.changes {
        changes::apply(connection, &mut trail, change).await?;
    }
    advance(connection, &batch.advances).await?;
    bury(connection, &batch.dead).await?;
    trail.write(connection).await?;
    Ok(applied)
}

/// Returns the rows that are there of messages.
pub(super) async fn known(
    connection: &mut SqliteConnection,
    messages: &[NewMessage],
) -> Result<BTreeMap<MessageRef, Known>, Fault> {
    let mut known = BTreeMap::new();
    for piece in pieces(messages) {
        let mut query = known_query(piece);
        for row in query.build().fetch_all(&mut *connection).await? {
            let row = Known::of(&row)?;
            known.insert(row.message, row);
        }
    }
    Ok(known)
}

pub(super) fn known_query(piece: &[NewMessage]) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::<Sqlite>::new("WITH keys (sender, id) AS (");
    query.push_values(piece, |mut row, new| {
        row.push_bind(new.message.sender.as_bytes().as_slice());
        row.push_bind(new.message.id.as_bytes().as_slice());
    });
    query.push(") ");
    query.push(KNOWN);
    // In this order: the keys are few.
    query.push("FROM keys CROSS JOIN messages AS x ON x.sender = keys.sender AND x.id = keys.id");
    query
}

/// Returns the number for the next row of `messages`.
pub(super) async fn next_n(connection: &mut SqliteConnection) -> Result<i64, Fault> {
    let row = sqlx::query("SELECT coalesce(max(n), 0) + 1 AS next FROM messages");
    Ok(row.fetch_one(connection).await?.try_get("next")?)
}

/// Inserts messages that are not there.
async fn insert(
    connection: &mut SqliteConnection,
    fresh: &[(&NewMessage, quail_protocol::id::ConversationId, u64)],
) -> Result<(), Fault> {
    if fresh.is_empty() {
        return Ok(());
    }
    for (new, ..) in fresh {
        int(new.position.0).and(int(new.stamp.0))?;
    }
    let first = next_n(connection).await?;
    let numbered: Vec<_> = (first..).zip(fresh).collect();
    for piece in pieces(&numbered) {
        let mut query = QueryBuilder::<Sqlite>::new(
            "INSERT INTO messages (n, sender, id, device, recipient, conversation, origin, position, stamp, seq,
             state, kind, body, hash, reply_sender, reply_id) ",
        );
        query.push_values(piece, |mut row, (n, (new, conversation, seq))| {
            row.push_bind(n).push_bind(new.message.sender.as_bytes().as_slice());
            row.push_bind(new.message.id.as_bytes().as_slice()).push_bind(new.device.as_bytes().as_slice());
            row.push_bind(new.recipient.as_bytes().as_slice()).push_bind(conversation.as_bytes().as_slice());
            row.push_bind(i64::from(new.origin.0)).push_bind(new.position.0.cast_signed());
            row.push_bind(new.stamp.0.cast_signed()).push_bind(seq.cast_signed()).push_bind(THERE);
            row.push_bind(new.kind).push_bind(&new.body[..]).push_bind(new.hash().to_vec());
            row.push_bind(new.reply.map(|reply| reply.sender.as_bytes().to_vec()));
            row.push_bind(new.reply.map(|reply| reply.id.as_bytes().to_vec()));
        });
        query.build().execute(&mut *connection).await?;
    }
    let texts = numbered.iter().filter_map(|(n, (new, ..))| {
        Some((*n, rows::text(new.kind, &new.body)?, rows::who(new.message.sender, new.recipient)))
    });
    let texts: Vec<_> = texts.collect();
    for piece in pieces(&texts) {
        let mut query = QueryBuilder::<Sqlite>::new("INSERT INTO found (rowid, body, who) ");
        query.push_values(piece, |mut row, (n, text, who)| {
            row.push_bind(n).push_bind(text).push_bind(who);
        });
        query.build().execute(&mut *connection).await?;
    }
    Ok(())
}

/// Raises markers.
async fn advance(connection: &mut SqliteConnection, advances: &[Advance]) -> Result<(), Fault> {
    let mut highest = BTreeMap::new();
    for advance in advances {
        let conversation = direct(advance.sender, advance.account);
        let said = [(1_i64, advance.delivered), (2, advance.read), (3, advance.read_told)];
        for (kind, position) in said {
            let Some(position) = position else { continue };
            let key = (conversation, advance.account, kind, advance.origin);
            let marker = highest.entry(key).or_insert(0);
            *marker = int(position.0)?.max(*marker);
        }
    }
    let highest: Vec<_> = highest.into_iter().collect();
    for piece in pieces(&highest) {
        let mut query = QueryBuilder::<Sqlite>::new(
            "INSERT INTO markers (conversation, account, kind, origin, position) ",
        );
        query.push_values(piece, |mut row, ((conversation, account, kind, origin), position)| {
            row.push_bind(conversation.as_bytes().as_slice()).push_bind(account.as_bytes().as_slice());
            row.push_bind(kind).push_bind(i64::from(origin.0)).push_bind(position);
        });
        query.push(
            " ON CONFLICT (conversation, account, kind, origin)
             DO UPDATE SET position = max(position, excluded.position)",
        );
        query.build().execute(&mut *connection).await?;
    }
    Ok(())
}

/// Keeps what could not be archived.
async fn bury(connection: &mut SqliteConnection, dead: &[DeadLetter]) -> Result<(), Fault> {
    for letter in dead {
        sqlx::query(
            "INSERT INTO dead_letters (origin, position, error, frame, context) VALUES (?1, ?2, ?3, ?4, ?5)",
        )
        .bind(i64::from(letter.origin.0))
        .bind(int(letter.position.0)?)
        .bind(&letter.error)
        .bind(&letter.frame[..])
        .bind(&letter.context[..])
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Lists what could not be archived.
pub(super) async fn dead(
    connection: &mut SqliteConnection,
    after: u64,
    limit: u32,
) -> Result<Vec<DeadLetter>, Fault> {
    let rows = sqlx::query(
        "SELECT number, origin, position, error, frame, context FROM dead_letters
         WHERE number > ?1 ORDER BY number LIMIT ?2",
    )
    .bind(i64::try_from(after).unwrap_or(i64::MAX))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    let letter = |row: &SqliteRow| {
        Ok(DeadLetter {
            number: rows::number(row, "number")?,
            origin: rows::origin(row, "origin")?,
            position: Position(rows::number(row, "position")?),
            error: row.try_get("error")?,
            frame: row.try_get::<Vec<u8>, _>("frame")?.into(),
            context: row.try_get::<Vec<u8>, _>("context")?.into(),
        })
    };
    rows.iter().map(letter).collect()
}

/// Forgets what could not be archived; returns whether it was there.
pub(super) async fn drop_dead(connection: &mut SqliteConnection, number: u64) -> Result<bool, Fault> {
    let dropped = sqlx::query("DELETE FROM dead_letters WHERE number = ?1")
        .bind(i64::try_from(number).unwrap_or(i64::MAX))
        .execute(connection)
        .await?;
    Ok(dropped.rows_affected() > 0)
}
