//! Stored formats of the sled outbox: keys and values as bytes.
//!
//! Every value begins with a version byte; a reader that meets a version it does not know says so. Values are bincode of
//! the structs below, whose fields are never changed: a new layout is a new struct under a new version.

use bincode::{Decode, Encode};
use bytes::Bytes;
use quail_core::ports::outbox::{DeviceRecord, Note, RecentSend, StoreError, StoredEvent};
use quail_protocol::id::{AccountId, DeviceId, MessageId, Position, Stamp};

/// Key of the counters in the tree `meta`.
pub(super) const COUNTERS: &[u8] = b"counters";

/// The only version so far.
const VERSION: u8 = 1;

#[derive(Encode, Decode)]
enum NoteV1 {
    Message { sender: [u8; 16], device: [u8; 16], recipient: [u8; 16] },
    Receipt { account: [u8; 16], after: u64, upto: u64 },
    Lost { from: u64 },
}

#[derive(Encode, Decode)]
struct DeviceV1 {
    account: [u8; 16],
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
struct CountersV1 {
    last_position: u64,
    last_stamp: u64,
}

pub(super) fn event_key(account: AccountId, position: Position) -> [u8; 24] {
    let mut key = [0; 24];
    key[..16].copy_from_slice(account.as_bytes());
    key[16..].copy_from_slice(&position.0.to_be_bytes());
    key
}

pub(super) fn parse_event_key(key: &[u8]) -> Result<(AccountId, Position), StoreError> {
    let parsed = key.split_at_checked(16).and_then(|(account, position)| {
        Some((AccountId::try_from(account).ok()?, Position(u64::from_be_bytes(position.try_into().ok()?))))
    });
    parsed.ok_or_else(|| damaged("event key", "its length"))
}

pub(super) fn send_key(device: DeviceId, slot: u8) -> [u8; 17] {
    let mut key = [slot; 17];
    key[..16].copy_from_slice(device.as_bytes());
    key
}

pub(super) fn parse_send_key(key: &[u8]) -> Result<(DeviceId, u8), StoreError> {
    match key.split_last() {
        Some((slot, device)) => {
            Ok((DeviceId::try_from(device).map_err(|error| damaged("send key", error))?, *slot))
        }
        None => Err(damaged("send key", "its length")),
    }
}

/// The frame follows the note as it is, so that reading it copies nothing twice.
pub(super) fn event(event: &StoredEvent) -> Vec<u8> {
    let note = match event.note {
        Note::Message { sender, device, recipient } => {
            NoteV1::Message { sender: sender.0, device: device.0, recipient: recipient.0 }
        }
        Note::Receipt { account, after, upto } => {
            NoteV1::Receipt { account: account.0, after: after.0, upto: upto.0 }
        }
        Note::Lost { from } => NoteV1::Lost { from: from.0 },
    };
    let mut value = encode(note);
    value.extend_from_slice(&event.frame);
    value
}

pub(super) fn parse_event(position: Position, value: &[u8]) -> Result<StoredEvent, StoreError> {
    let (note, rest) = decode::<NoteV1>("event", value)?;
    let note = match note {
        NoteV1::Message { sender, device, recipient } => Note::Message {
            sender: AccountId(sender),
            device: DeviceId(device),
            recipient: AccountId(recipient),
        },
        NoteV1::Receipt { account, after, upto } => {
            Note::Receipt { account: AccountId(account), after: Position(after), upto: Position(upto) }
        }
        NoteV1::Lost { from } => Note::Lost { from: Position(from) },
    };
    Ok(StoredEvent { position, note, frame: Bytes::copy_from_slice(rest) })
}

/// Returns the length of the frame in an event's value.
pub(super) fn frame_len(value: &[u8]) -> Result<usize, StoreError> {
    decode::<NoteV1>("event", value).map(|(_, frame)| frame.len())
}

pub(super) fn device(account: AccountId, record: &DeviceRecord) -> Vec<u8> {
    let (cursor, acked) = (record.cursor.0, record.acked.0);
    encode(DeviceV1 { account: account.0, cursor, acked, attach_number: record.attach_number })
}

pub(super) fn parse_device(value: &[u8]) -> Result<(AccountId, DeviceRecord), StoreError> {
    let device: DeviceV1 = decode("device", value)?.0;
    let (cursor, acked) = (Position(device.cursor), Position(device.acked));
    Ok((AccountId(device.account), DeviceRecord { cursor, acked, attach_number: device.attach_number }))
}

pub(super) fn send(send: &RecentSend) -> Vec<u8> {
    let RecentSend { number, id, digest, position, stamp } = *send;
    encode(SendV1 { number, id: id.0, digest, position: position.0, stamp: stamp.0 })
}

pub(super) fn parse_send(value: &[u8]) -> Result<RecentSend, StoreError> {
    let SendV1 { number, id, digest, position, stamp } = decode("send", value)?.0;
    Ok(RecentSend { number, id: MessageId(id), digest, position: Position(position), stamp: Stamp(stamp) })
}

pub(super) fn position(position: Position) -> Vec<u8> {
    encode(position.0)
}

pub(super) fn parse_position(value: &[u8]) -> Result<Position, StoreError> {
    decode("position", value).map(|(position, _)| Position(position))
}

pub(super) fn counters(last_position: Position, last_stamp: Stamp) -> Vec<u8> {
    encode(CountersV1 { last_position: last_position.0, last_stamp: last_stamp.0 })
}

pub(super) fn parse_counters(value: &[u8]) -> Result<(Position, Stamp), StoreError> {
    let counters: CountersV1 = decode("counters", value)?.0;
    Ok((Position(counters.last_position), Stamp(counters.last_stamp)))
}

fn encode(value: impl Encode) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    // Writing to a Vec cannot fail, and none of the structs above has a part that refuses to be encoded.
    let written = bincode::encode_into_std_write(value, &mut bytes, bincode::config::standard());
    debug_assert!(written.is_ok());
    bytes
}

fn decode<'a, T: Decode<()>>(what: &str, value: &'a [u8]) -> Result<(T, &'a [u8]), StoreError> {
    match value.split_first() {
        Some((&VERSION, rest)) => {
            let limit = bincode::config::standard().with_limit::<1024>();
            let (decoded, len) =
                bincode::decode_from_slice(rest, limit).map_err(|error| damaged(what, error))?;
            Ok((decoded, &rest[len..]))
        }
        Some((version, _)) => {
            Err(damaged(what, format_args!("version {version}, which a newer quaild may know")))
        }
        None => Err(damaged(what, "an empty value")),
    }
}

fn damaged(what: &str, how: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged { what: format!("{what}: {how}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of version 1. A change here is a change of the format: add a version instead.
    #[test]
    fn version_1_stays_as_it_is() {
        let note = Note::Receipt { account: AccountId([3; 16]), after: Position(1), upto: Position(300) };
        let stored = StoredEvent { position: Position(9), note, frame: Bytes::from_static(b"xy") };
        let mut expected = vec![1, 1];
        expected.extend([3; 16]);
        expected.extend([1, 251, 44, 1, b'x', b'y']);
        assert_eq!(event(&stored), expected);
        assert_eq!(parse_event(Position(9), &expected), Ok(stored));

        let record = DeviceRecord { cursor: Position(5), acked: Position(4), attach_number: 2 };
        let mut expected = vec![1];
        expected.extend([7; 16]);
        expected.extend([5, 4, 2]);
        assert_eq!(device(AccountId([7; 16]), &record), expected);
        assert_eq!(parse_device(&expected), Ok((AccountId([7; 16]), record)));

        assert_eq!(counters(Position(1), Stamp(2)), [1, 1, 2]);
        assert_eq!(position(Position(7)), [1, 7]);
    }

    #[test]
    fn other_versions_and_short_values_are_named() {
        let newer = parse_counters(&[2, 0, 0]).unwrap_err();
        assert_eq!(
            newer.to_string(),
            "damaged record in the outbox: counters: version 2, which a newer quaild may know"
        );
        assert!(parse_send(&[]).is_err());
        assert!(parse_send(&[1, 1]).is_err());
        assert!(parse_event_key(&[0; 7]).is_err());
        assert!(parse_send_key(&[0; 3]).is_err());
    }
}
