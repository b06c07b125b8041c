//! Rows to values, checked, and values to the arrays that statements of many rows are given.
//!
//! The schema's own checks make every error here a sign of damage, or of another program's hand in the database.

use quail_core::ports::archive::{ArchiveError, ArchivedMessage, Content, MessageRef, Place, words};
use quail_protocol::id::{AccountId, IdLengthError, MessageId, Origin, Position, Stamp};
use quail_protocol::v1::BodyKind;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::fault::Fault;

/// State of a row of which something was said and that is not there yet.
pub(super) const AWAITED: i16 = 0;
/// State of a message that is there.
pub(super) const THERE: i16 = 1;
/// State of a message that is deleted for everybody.
pub(super) const DELETED: i16 = 2;

/// The last position of a word that Postgres keeps; all behind it have this one.
const WORD_POSITION_MAX: usize = 16_383;

/// Most bytes of a word that are kept. Longer than everything that can be asked for, and short enough for Postgres.
const WORD_BYTES_MAX: usize = 1_024;

/// Returns a number as Postgres can keep it.
pub(super) fn int(number: u64) -> Result<i64, Fault> {
    let refused = |_| ArchiveError::Refused { reason: format!("the number {number} is too large") };
    Ok(i64::try_from(number).map_err(refused)?)
}

/// Returns a number as one that Postgres can compare with what it keeps.
pub(super) fn bound(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Reads an id.
pub(super) fn id<T>(row: &PgRow, column: &str) -> Result<T, Fault>
where
    T: for<'a> TryFrom<&'a [u8], Error = IdLengthError>,
{
    Ok(T::try_from(row.try_get(column)?).map_err(|error| damaged(column, error))?)
}

/// Reads a number that is never negative.
pub(super) fn number(row: &PgRow, column: &str) -> Result<u64, Fault> {
    let number: i64 = row.try_get(column)?;
    Ok(u64::try_from(number).map_err(|error| damaged(column, error))?)
}

/// Reads the number of an origin.
pub(super) fn origin(row: &PgRow, column: &str) -> Result<Origin, Fault> {
    let number: i64 = row.try_get(column)?;
    Ok(Origin(u32::try_from(number).map_err(|error| damaged(column, error))?))
}

/// Reads the identity of a message.
pub(super) fn reference(row: &PgRow) -> Result<MessageRef, Fault> {
    Ok(MessageRef { sender: id(row, "sender")?, id: id(row, "id")? })
}

/// Reads what a message answers.
pub(super) fn reply(row: &PgRow) -> Result<Option<MessageRef>, Fault> {
    Ok(match row.try_get::<Option<&[u8]>, _>("reply_sender")? {
        Some(_) => Some(MessageRef { sender: id(row, "reply_sender")?, id: id(row, "reply_id")? }),
        None => None,
    })
}

/// Reads a reaction.
pub(super) fn reaction(row: &PgRow) -> Result<String, Fault> {
    let bytes: Vec<u8> = row.try_get("reaction")?;
    Ok(String::from_utf8(bytes).map_err(|error| damaged("reaction", error))?)
}

fn damaged(column: &str, error: impl std::fmt::Display) -> ArchiveError {
    ArchiveError::Damaged { reason: format!("column {column}: {error}") }
}

/// Reads a message as an account sees it; its reactions are read apart.
pub(super) fn archived(row: &PgRow) -> Result<ArchivedMessage, Fault> {
    let content = if row.try_get("is_hidden")? {
        Content::DeletedForMe
    } else if row.try_get::<i16, _>("state")? == THERE {
        let body: Option<Vec<u8>> = row.try_get("body")?;
        Content::There { kind: row.try_get("kind")?, body: body.unwrap_or_default().into() }
    } else {
        Content::Deleted
    };
    let is_there = matches!(content, Content::There { .. });
    let edited: Option<i64> = row.try_get("edit_stamp")?;
    Ok(ArchivedMessage {
        message: reference(row)?,
        conversation: id(row, "conversation")?,
        seq: number(row, "seq")?,
        device: id(row, "device")?,
        recipient: id(row, "recipient")?,
        origin: origin(row, "origin")?,
        position: Position(number(row, "position")?),
        stamp: Stamp(number(row, "stamp")?),
        content,
        edited: edited.filter(|_| is_there).map(|stamp| Stamp(stamp.unsigned_abs())),
        reply: reply(row)?,
        reactions: Vec::new(),
    })
}

/// Reads a place that may be missing.
pub(super) fn edit(row: &PgRow) -> Result<Option<Place>, Fault> {
    Ok(match row.try_get::<Option<i64>, _>("edit_stamp")? {
        Some(_) => {
            Some(Place { stamp: Stamp(number(row, "edit_stamp")?), origin: origin(row, "edit_origin")? })
        }
        None => None,
    })
}

/// Returns what is searched of a body, as Postgres writes it: its words with their places, and one word for each account that may
/// see it. `None` for what is not searched.
pub(super) fn searched(kind: i32, body: &[u8], accounts: [AccountId; 2]) -> Option<String> {
    if kind != BodyKind::PlainText as i32 {
        return None;
    }
    let mut searched = String::with_capacity(2 * body.len() + 80);
    for (at, (_, word)) in words(std::str::from_utf8(body).ok()?).iter().enumerate() {
        let place = (at + 1).min(WORD_POSITION_MAX);
        searched.push_str(&format!("'{}':{place} ", cut(word)));
    }
    for account in accounts {
        searched.push_str(&who(account));
        searched.push(' ');
    }
    Some(searched)
}

/// Returns the word of an account, quoted: no word of a text has such a sign.
pub(super) fn who(account: AccountId) -> String {
    let hex: String = account.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("'@{hex}'")
}

/// Returns a word as it is kept. Words have letters and digits only, hence nothing that has a meaning within quotes.
pub(super) fn cut(word: &str) -> &str {
    let mut end = word.len().min(WORD_BYTES_MAX);
    while !word.is_char_boundary(end) {
        end -= 1;
    }
    &word[..end]
}

/// The month of an id, as 202611; 0 for one that has no time, or one in another century. At most 961 different ones.
pub(super) fn month(id: &MessageId) -> i32 {
    /// Milliseconds of a day.
    const DAY_MS: u64 = 86_400_000;
    let Some(days) = id.unix_ms().and_then(|ms| i32::try_from(ms / DAY_MS).ok()) else { return 0 };
    // Days of the proleptic Gregorian calendar; years begin in March here, so that the leap day is their last.
    let (era, day) = ((days + 719_468) / 146_097, (days + 719_468) % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    let year = year + 400 * era;
    if (2020..2100).contains(&year) { year * 100 + month } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minted(unix_ms: u64) -> MessageId {
        let mut id = [0; 16];
        id[..6].copy_from_slice(&unix_ms.to_be_bytes()[2..]);
        (id[6], id[8]) = (0x70, 0x80);
        MessageId(id)
    }

    #[test]
    fn a_month_is_that_of_the_id_in_utc() {
        for (unix_ms, expected) in [
            (1_577_836_799_999, 0),
            (1_577_836_800_000, 202_001),
            (1_709_164_800_000, 202_402),
            (1_709_251_199_999, 202_402),
            (1_709_251_200_000, 202_403),
            (1_798_761_599_999, 202_612),
            (1_798_761_600_000, 202_701),
            (4_102_444_799_999, 209_912),
            (4_102_444_800_000, 0),
            (0, 0),
            ((1 << 48) - 1, 0),
        ] {
            assert_eq!(month(&minted(unix_ms)), expected, "{unix_ms}");
        }
        assert_eq!(month(&MessageId([7; 16])), 0, "no version 7");
    }

    #[test]
    fn months_rise_with_time_and_each_is_one_of_twelve() {
        let days = (18_262..47_482).map(|day| month(&minted(day * 86_400_000)));
        let months: Vec<_> = days.collect();
        assert!(months.is_sorted() && months.iter().all(|month| (1..=12).contains(&(month % 100))));
        assert_eq!(months.chunk_by(|one, other| one == other).count(), 80 * 12);
    }

    #[test]
    fn what_is_searched_has_nothing_with_a_meaning_in_it() {
        let accounts = [AccountId([1; 16]), AccountId([0xab; 16])];
        let searched = super::searched(1, "It's \\ 'x':1 ÜBER\0".as_bytes(), accounts).unwrap();
        let hex = ["01".repeat(16), "ab".repeat(16)];
        let expected = format!("'it':1 's':2 'x':3 '1':4 'über':5 '@{}' '@{}' ", hex[0], hex[1]);
        assert_eq!(searched, expected);
        assert_eq!(super::searched(2, b"x", accounts), None);
        assert_eq!(super::searched(1, b"\xff", accounts), None);
        assert_eq!(cut(&"ü".repeat(600)).len(), WORD_BYTES_MAX);
    }
}
