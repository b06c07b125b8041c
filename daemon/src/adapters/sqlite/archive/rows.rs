//! Rows to values, checked, and statements of many rows.
//!
//! The schema's own checks make every error here a sign of damage, or of another program's hand in the file.

use bytes::Bytes;
use quail_core::ports::archive::{ArchiveError, ArchivedMessage, Content, MessageRef, NewMessage, Place};
use quail_protocol::id::{AccountId, ConversationId, IdLengthError, Origin, Position, Stamp};
use quail_protocol::v1::BodyKind;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::fault::Fault;

/// Most rows of one statement. Pieces are powers of two, so that there are few different statements to keep prepared.
const PIECE_MAX: usize = 128;

/// State of a row of which something was said and that is not there yet.
pub(super) const AWAITED: i64 = 0;
/// State of a message that is there.
pub(super) const THERE: i64 = 1;
/// State of a message that is deleted for everybody.
pub(super) const DELETED: i64 = 2;

/// Columns of `messages AS x` that [`archived`] reads; the account that asks is bound before them.
pub(super) const SEEN_BY: &str = "SELECT EXISTS (SELECT 1 FROM hidden WHERE account = ";
/// The rest of them, behind the bound account.
pub(super) const SEEN: &str = " AND n = x.n) AS is_hidden, x.n, x.sender, x.id, x.device, x.recipient, x.conversation, x.origin, \
     x.position, x.stamp, x.seq, x.state, x.kind, x.body, x.edit_stamp, x.reply_sender, x.reply_id ";

/// Cuts rows into pieces for one statement each.
pub(super) fn pieces<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let len = match rows.len() {
            0 => return None,
            len => PIECE_MAX.min(1 << len.ilog2()),
        };
        let (piece, rest) = rows.split_at(len);
        rows = rest;
        Some(piece)
    })
}

/// Returns a number as SQLite can keep it.
pub(super) fn int(number: u64) -> Result<i64, Fault> {
    let refused = |_| ArchiveError::Refused { reason: format!("the number {number} is too large") };
    Ok(i64::try_from(number).map_err(refused)?)
}

/// Reads an id.
pub(super) fn id<T>(row: &SqliteRow, column: &str) -> Result<T, Fault>
where
    T: for<'a> TryFrom<&'a [u8], Error = IdLengthError>,
{
    Ok(T::try_from(row.try_get(column)?).map_err(|error| damaged(column, error))?)
}

/// Reads a number that is never negative.
pub(super) fn number(row: &SqliteRow, column: &str) -> Result<u64, Fault> {
    let number: i64 = row.try_get(column)?;
    Ok(u64::try_from(number).map_err(|error| damaged(column, error))?)
}

/// Reads the number of an origin.
pub(super) fn origin(row: &SqliteRow, column: &str) -> Result<Origin, Fault> {
    let number: i64 = row.try_get(column)?;
    Ok(Origin(u32::try_from(number).map_err(|error| damaged(column, error))?))
}

fn damaged(column: &str, error: impl std::fmt::Display) -> ArchiveError {
    ArchiveError::Damaged { reason: format!("column {column}: {error}") }
}

/// Reads a message as an account sees it; its reactions are read apart.
pub(super) fn archived(row: &SqliteRow) -> Result<(i64, ArchivedMessage), Fault> {
    let content = if row.try_get("is_hidden")? {
        Content::DeletedForMe
    } else if row.try_get::<i64, _>("state")? == THERE {
        let body: Vec<u8> = row.try_get("body")?;
        Content::There { kind: row.try_get("kind")?, body: body.into() }
    } else {
        Content::Deleted
    };
    let is_there = matches!(content, Content::There { .. });
    let edited: Option<i64> = row.try_get("edit_stamp")?;
    let reply = match row.try_get::<Option<&[u8]>, _>("reply_sender")? {
        Some(_) => Some(MessageRef { sender: id(row, "reply_sender")?, id: id(row, "reply_id")? }),
        None => None,
    };
    let message = ArchivedMessage {
        message: MessageRef { sender: id(row, "sender")?, id: id(row, "id")? },
        conversation: id(row, "conversation")?,
        seq: number(row, "seq")?,
        device: id(row, "device")?,
        recipient: id(row, "recipient")?,
        origin: origin(row, "origin")?,
        position: Position(number(row, "position")?),
        stamp: Stamp(number(row, "stamp")?),
        content,
        edited: edited.filter(|_| is_there).map(|stamp| Stamp(stamp.unsigned_abs())),
        reply,
        reactions: Vec::new(),
    };
    Ok((row.try_get("n")?, message))
}

/// Columns of `messages AS x` that [`Known::of`] reads.
pub(super) const KNOWN: &str = "SELECT x.n, x.sender, x.id, x.recipient, x.conversation, x.origin, x.position, x.stamp, x.state, \
     x.kind, x.body, x.hash, x.is_deleted, x.edit_stamp, x.edit_origin ";

/// A row that is there already.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) n: i64,
    pub(super) message: MessageRef,
    pub(super) recipient: AccountId,
    pub(super) conversation: ConversationId,
    pub(super) place: Place,
    pub(super) position: Position,
    pub(super) state: i64,
    pub(super) kind: i32,
    pub(super) body: Bytes,
    pub(super) hash: Vec<u8>,
    pub(super) is_deleted: bool,
    pub(super) edit: Option<Place>,
}

impl Known {
    pub(super) fn of(row: &SqliteRow) -> Result<Self, Fault> {
        let edit_stamp: Option<i64> = row.try_get("edit_stamp")?;
        let edit = match edit_stamp {
            Some(_) => {
                let stamp = Stamp(number(row, "edit_stamp")?);
                Some(Place { stamp, origin: origin(row, "edit_origin")? })
            }
            None => None,
        };
        let body: Option<Vec<u8>> = row.try_get("body")?;
        Ok(Self {
            n: row.try_get("n")?,
            message: MessageRef { sender: id(row, "sender")?, id: id(row, "id")? },
            recipient: id(row, "recipient")?,
            conversation: id(row, "conversation")?,
            place: Place { stamp: Stamp(number(row, "stamp")?), origin: origin(row, "origin")? },
            position: Position(number(row, "position")?),
            state: row.try_get("state")?,
            kind: row.try_get("kind")?,
            body: body.unwrap_or_default().into(),
            hash: row.try_get("hash")?,
            is_deleted: row.try_get("is_deleted")?,
            edit,
        })
    }

    /// Returns the text that the search has of it.
    pub(super) fn text(&self) -> Option<&str> {
        text(self.kind, &self.body).filter(|_| self.state == THERE)
    }
}

/// Returns what of a body is searched.
pub(super) fn text(kind: i32, body: &Bytes) -> Option<&str> {
    if kind == BodyKind::PlainText as i32 { std::str::from_utf8(body).ok() } else { None }
}

/// Returns the words by which a search knows who may see a message.
pub(super) fn who(sender: AccountId, recipient: AccountId) -> String {
    format!("{} {}", word(sender), word(recipient))
}

/// Returns the word of one account.
pub(super) fn word(account: AccountId) -> String {
    account.as_bytes().iter().map(|byte| format!("{byte:02X}")).collect()
}

/// Returns the place of a message.
pub(super) fn place(new: &NewMessage) -> Place {
    Place { stamp: new.stamp, origin: new.origin }
}
