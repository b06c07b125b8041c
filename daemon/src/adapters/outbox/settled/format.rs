//! Stored formats of the settled store: keys and values as bytes.
//!
//! Every value begins with a version byte. Rows are bincode of the structs below, whose fields are never changed: a new layout
//! is a new struct under a new version. A chunk holds frames and is laid out by hand:
//!
//! ```text
//! chunk   version 1 | event...
//! event   crc 4 | position 8 | note 49 | frame length 4 | frame       little-endian; the crc is of all that follows it
//! note    kind 1 | three fields of 16
//! ```
//!
//! Where an event is damaged, the index row of its chunk still tells where the next one begins.

use bincode::{Decode, Encode};
use bytes::Bytes;
use quail_core::ports::outbox::{DeviceRecord, Note, RecentSend, StoreError, StoredEvent};
use quail_protocol::id::{AccountId, DeviceId, MessageId, Position, Stamp};

use super::super::types::Mark;

/// The only version so far.
pub(super) const VERSION: u8 = 1;

/// Key of the mark in the tree `meta`.
pub(super) const MARK: &[u8] = b"mark";

const NOTE_BYTES: usize = 49;

/// What an event takes in a chunk besides its frame.
pub(super) const EVENT_HEADER: usize = 4 + 8 + NOTE_BYTES + 4;

#[derive(Encode, Decode)]
struct IndexV1 {
    last: u64,
    events: Vec<(u64, u32)>,
}

#[derive(Encode, Decode)]
struct DeviceV1 {
    cursor: u64,
    acked: u64,
    attach_number: u64,
}

#[derive(Encode, Decode)]
struct SendV1 {
    number: u64,
    id: [u8; 16],
    digest: [u8; 16],
    position: u64,
    stamp: u64,
}

#[derive(Encode, Decode)]
struct AccountV1 {
    resolved: u64,
    collapsed: u64,
}

#[derive(Encode, Decode)]
struct MarkV1 {
    generation: u64,
    last_position: u64,
    last_stamp: u64,
}

/// Which events a chunk holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IndexRow {
    /// Position and length of the frame of each event, in order.
    pub(super) events: Vec<(Position, u32)>,
}

impl IndexRow {
    pub(super) fn last(&self) -> Position {
        self.events.last().map_or(Position::ZERO, |(position, _)| *position)
    }

    /// Returns how many bytes the chunk has.
    pub(super) fn chunk_bytes(&self) -> usize {
        1 + self.events.iter().map(|(_, len)| EVENT_HEADER + *len as usize).sum::<usize>()
    }
}

/// What is kept of an account besides its events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AccountRow {
    pub(super) resolved: Position,
    pub(super) collapsed: Position,
}

pub(super) fn chunk_key(account: AccountId, first: Position) -> [u8; 24] {
    key(account.as_bytes(), first.0)
}

pub(super) fn send_key(device: DeviceId, generation: u64) -> [u8; 24] {
    key(device.as_bytes(), generation)
}

pub(super) fn device_key(account: AccountId, device: DeviceId) -> [u8; 32] {
    let mut key = [0; 32];
    key[..16].copy_from_slice(account.as_bytes());
    key[16..].copy_from_slice(device.as_bytes());
    key
}

fn key(id: &[u8], number: u64) -> [u8; 24] {
    let mut key = [0; 24];
    key[..16].copy_from_slice(id);
    key[16..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Splits a key of an id and a number.
pub(super) fn parse_key(key: &[u8]) -> Result<([u8; 16], u64), StoreError> {
    let parsed = key
        .split_at_checked(16)
        .and_then(|(id, number)| Some((id.try_into().ok()?, u64::from_be_bytes(number.try_into().ok()?))));
    parsed.ok_or_else(|| damaged("key", "its length"))
}

pub(super) fn parse_device_key(key: &[u8]) -> Result<(AccountId, DeviceId), StoreError> {
    let parsed = key.split_at_checked(16).and_then(|(account, device)| {
        Some((AccountId::try_from(account).ok()?, DeviceId::try_from(device).ok()?))
    });
    parsed.ok_or_else(|| damaged("device key", "its length"))
}

/// Adds an event to a chunk, which begins as one [`VERSION`] byte.
pub(super) fn put_event(chunk: &mut Vec<u8>, event: &StoredEvent) {
    let start = chunk.len();
    chunk.extend_from_slice(&[0; 4]);
    chunk.extend_from_slice(&event.position.0.to_le_bytes());
    put_note(chunk, event.note);
    chunk.extend_from_slice(&(event.frame.len() as u32).to_le_bytes());
    chunk.extend_from_slice(&event.frame);
    let crc = crc32fast::hash(&chunk[start + 4..]);
    chunk[start..start + 4].copy_from_slice(&crc.to_le_bytes());
}

fn put_note(chunk: &mut Vec<u8>, note: Note) {
    let end = chunk.len() + NOTE_BYTES;
    match note {
        Note::Message { sender, device, recipient } => {
            chunk.push(1);
            chunk.extend_from_slice(sender.as_bytes());
            chunk.extend_from_slice(device.as_bytes());
            chunk.extend_from_slice(recipient.as_bytes());
        }
        Note::Receipt { account, after, upto } => {
            chunk.push(2);
            chunk.extend_from_slice(account.as_bytes());
            chunk.extend_from_slice(&after.0.to_le_bytes());
            chunk.extend_from_slice(&upto.0.to_le_bytes());
        }
        Note::Lost { from } => {
            chunk.push(3);
            chunk.extend_from_slice(&from.0.to_le_bytes());
        }
    }
    chunk.resize(end, 0);
}

/// Reads one event; `bytes` are exactly its part of the chunk.
pub(super) fn parse_event(bytes: &[u8]) -> Option<StoredEvent> {
    let (crc, rest) = bytes.split_at_checked(4)?;
    if u32::from_le_bytes(crc.try_into().ok()?) != crc32fast::hash(rest) {
        return None;
    }
    let (position, rest) = rest.split_at_checked(8)?;
    let (note, rest) = rest.split_at_checked(NOTE_BYTES)?;
    let (len, frame) = rest.split_at_checked(4)?;
    if u32::from_le_bytes(len.try_into().ok()?) as usize != frame.len() {
        return None;
    }
    let position = Position(u64::from_le_bytes(position.try_into().ok()?));
    Some(StoredEvent { position, note: parse_note(note)?, frame: Bytes::copy_from_slice(frame) })
}

fn parse_note(note: &[u8]) -> Option<Note> {
    let account = |at: usize| note.get(at..at + 16).and_then(|id| AccountId::try_from(id).ok());
    let position = |at: usize| {
        let bytes = note.get(at..at + 8)?.try_into().ok()?;
        Some(Position(u64::from_le_bytes(bytes)))
    };
    Some(match note.first()? {
        1 => Note::Message {
            sender: account(1)?,
            device: DeviceId::try_from(note.get(17..33)?).ok()?,
            recipient: account(33)?,
        },
        2 => Note::Receipt { account: account(1)?, after: position(17)?, upto: position(25)? },
        3 => Note::Lost { from: position(1)? },
        _ => return None,
    })
}

pub(super) fn index(row: &IndexRow) -> Vec<u8> {
    let mut before = 0;
    let deltas = row.events.iter().map(|(position, len)| {
        let delta = position.0 - before;
        before = position.0;
        (delta, *len)
    });
    let body = encode(IndexV1 { events: deltas.collect(), last: row.last().0 });
    let mut value = body;
    let crc = crc32fast::hash(&value);
    value.extend_from_slice(&crc.to_le_bytes());
    value
}

pub(super) fn parse_index(value: &[u8]) -> Result<IndexRow, StoreError> {
    let wrong = |how: &str| damaged("index row", how);
    let (body, crc) = value.split_last_chunk::<4>().ok_or_else(|| wrong("its length"))?;
    if u32::from_le_bytes(*crc) != crc32fast::hash(body) {
        return Err(wrong("its checksum"));
    }
    let row: IndexV1 = decode("index row", body)?;
    let mut position = 0_u64;
    let mut events = Vec::with_capacity(row.events.len());
    for (delta, len) in row.events {
        position = position.checked_add(delta).ok_or_else(|| wrong("its positions"))?;
        events.push((Position(position), len));
    }
    Ok(IndexRow { events })
}

pub(super) fn device(record: &DeviceRecord) -> Vec<u8> {
    let DeviceRecord { cursor, acked, attach_number } = *record;
    encode(DeviceV1 { cursor: cursor.0, acked: acked.0, attach_number })
}

pub(super) fn parse_device(value: &[u8]) -> Result<DeviceRecord, StoreError> {
    let DeviceV1 { cursor, acked, attach_number } = decode("device", value)?;
    Ok(DeviceRecord { cursor: Position(cursor), acked: Position(acked), attach_number })
}

pub(super) fn sends(sends: &[RecentSend]) -> Vec<u8> {
    let row = |send: &RecentSend| SendV1 {
        number: send.number,
        id: send.id.0,
        digest: send.digest,
        position: send.position.0,
        stamp: send.stamp.0,
    };
    encode(sends.iter().map(row).collect::<Vec<_>>())
}

pub(super) fn parse_sends(value: &[u8]) -> Result<Vec<RecentSend>, StoreError> {
    let rows: Vec<SendV1> = decode("sends", value)?;
    let send = |row: SendV1| RecentSend {
        number: row.number,
        id: MessageId(row.id),
        digest: row.digest,
        position: Position(row.position),
        stamp: Stamp(row.stamp),
    };
    Ok(rows.into_iter().map(send).collect())
}

pub(super) fn account(row: AccountRow) -> Vec<u8> {
    encode(AccountV1 { resolved: row.resolved.0, collapsed: row.collapsed.0 })
}

pub(super) fn parse_account(value: &[u8]) -> Result<AccountRow, StoreError> {
    let AccountV1 { resolved, collapsed } = decode("account", value)?;
    Ok(AccountRow { resolved: Position(resolved), collapsed: Position(collapsed) })
}

pub(super) fn mark(mark: Mark) -> Vec<u8> {
    let Mark { generation, last_position, last_stamp } = mark;
    encode(MarkV1 { generation, last_position: last_position.0, last_stamp: last_stamp.0 })
}

pub(super) fn parse_mark(value: &[u8]) -> Result<Mark, StoreError> {
    let MarkV1 { generation, last_position, last_stamp } = decode("mark", value)?;
    Ok(Mark { generation, last_position: Position(last_position), last_stamp: Stamp(last_stamp) })
}

fn encode(value: impl Encode) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    // Writing to a Vec cannot fail, and none of the structs above has a part that refuses to be encoded.
    let written = bincode::encode_into_std_write(value, &mut bytes, bincode::config::standard());
    debug_assert!(written.is_ok());
    bytes
}

fn decode<T: Decode<()>>(what: &str, value: &[u8]) -> Result<T, StoreError> {
    match value.split_first() {
        Some((&VERSION, rest)) => {
            // No row is larger than a chunk may be.
            let limit = bincode::config::standard().with_limit::<{ 128 * 1024 }>();
            let (decoded, len) =
                bincode::decode_from_slice(rest, limit).map_err(|error| damaged(what, error))?;
            if len == rest.len() { Ok(decoded) } else { Err(damaged(what, "more than it should have")) }
        }
        Some((version, _)) => {
            Err(damaged(what, format_args!("version {version}, which a newer quaild may know")))
        }
        None => Err(damaged(what, "an empty value")),
    }
}

pub(super) fn damaged(what: &str, how: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged { what: format!("{what}: {how}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of version 1. A change here is a change of the format: add a version instead.
    #[test]
    fn version_1_stays_as_it_is() {
        let note = Note::Receipt { account: AccountId([3; 16]), after: Position(1), upto: Position(300) };
        let event = StoredEvent { position: Position(9), note, frame: Bytes::from_static(b"xy") };
        let mut chunk = vec![VERSION];
        put_event(&mut chunk, &event);
        let mut expected = vec![9, 0, 0, 0, 0, 0, 0, 0, 2];
        expected.extend([3; 16]);
        expected.extend([1, 0, 0, 0, 0, 0, 0, 0, 44, 1, 0, 0, 0, 0, 0, 0]);
        expected.extend([0; 16]);
        expected.extend([2, 0, 0, 0, b'x', b'y']);
        assert_eq!(chunk[5..], expected);
        assert_eq!(chunk[1..5], crc32fast::hash(&expected).to_le_bytes());
        assert_eq!(chunk.len(), 1 + EVENT_HEADER + 2);
        assert_eq!(parse_event(&chunk[1..]), Some(event));

        let row = IndexRow { events: vec![(Position(9), 2), (Position(300), 7)] };
        let value = index(&row);
        assert_eq!(value[..value.len() - 4], [1, 251, 44, 1, 2, 9, 2, 251, 35, 1, 7]);
        assert_eq!(parse_index(&value), Ok(row));

        let record = DeviceRecord { cursor: Position(5), acked: Position(4), attach_number: 2 };
        assert_eq!(device(&record), [1, 5, 4, 2]);
        assert_eq!(parse_device(&[1, 5, 4, 2]), Ok(record));
        let row = AccountRow { resolved: Position(1), collapsed: Position(2) };
        assert_eq!(account(row), [1, 1, 2]);
        assert_eq!(parse_account(&[1, 1, 2]), Ok(row));
        let at = Mark { generation: 3, last_position: Position(4), last_stamp: Stamp(5) };
        assert_eq!(mark(at), [1, 3, 4, 5]);
        assert_eq!(parse_mark(&[1, 3, 4, 5]), Ok(at));
        assert_eq!(sends(&[]), [1, 0]);
    }

    #[test]
    fn every_flipped_bit_of_an_event_is_seen() {
        let note = Note::Message {
            sender: AccountId([1; 16]),
            device: DeviceId([2; 16]),
            recipient: AccountId([3; 16]),
        };
        let event = StoredEvent { position: Position(7), note, frame: Bytes::from_static(b"hello") };
        let mut chunk = vec![VERSION];
        put_event(&mut chunk, &event);
        for bit in 0..(chunk.len() - 1) * 8 {
            let mut flipped = chunk[1..].to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse_event(&flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn other_versions_and_short_values_are_named() {
        let newer = parse_mark(&[2, 0, 0, 0]).unwrap_err();
        assert!(newer.to_string().contains("version 2, which a newer quaild may know"), "{newer}");
        assert!(parse_sends(&[]).is_err() && parse_index(&[1, 1]).is_err() && parse_key(&[0; 7]).is_err());
    }
}
