//! Values of the store as bytes: a version, then fields of fixed length, little-endian, then what is left.
//!
//! Invariant: what is read was written by this very layout, or it is an error; nothing panics on damaged bytes.

use bytes::Bytes;
use quail_protocol::id::{AccountId, DeviceId, MessageId, Origin, Position, Stamp};

use super::{AnsweredSend, Hand, Mark, MessageKey, Owner, Place, QueuedSend, RefusedSend, Standing};
use crate::Accepted;

/// Version of every value.
const VERSION: u8 = 1;

/// Version of a value that ends with a send which has more than kind and body.
const VERSION_EXTRA: u8 = 2;

/// A value that nobody wrote like this.
#[derive(Debug, thiserror::Error)]
#[error("a value of {what} cannot be read")]
pub(super) struct BadValue {
    pub(super) what: &'static str,
}

/// Reads fields from the front of a value.
struct Reader<'a> {
    what: &'static str,
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    fn new(what: &'static str, value: &'a [u8]) -> Result<Self, BadValue> {
        let mut reader = Self { what, left: value };
        match reader.array::<1>()? {
            [VERSION] => Ok(reader),
            _ => Err(reader.bad()),
        }
    }

    /// Begins to read a value that ends with a send, and tells whether that has more than kind and body.
    fn of_send(what: &'static str, value: &'a [u8]) -> Result<(Self, bool), BadValue> {
        let mut reader = Self { what, left: value };
        match reader.array::<1>()? {
            [VERSION] => Ok((reader, false)),
            [VERSION_EXTRA] => Ok((reader, true)),
            _ => Err(reader.bad()),
        }
    }

    /// Reads bytes behind their length.
    fn sized(&mut self) -> Result<&'a [u8], BadValue> {
        let length = self.u32()? as usize;
        let (bytes, left) = self.left.split_at_checked(length).ok_or(self.bad())?;
        self.left = left;
        Ok(bytes)
    }

    fn bad(&self) -> BadValue {
        BadValue { what: self.what }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadValue> {
        let (array, left) = self.left.split_first_chunk::<N>().ok_or(BadValue { what: self.what })?;
        self.left = left;
        Ok(*array)
    }

    fn u32(&mut self) -> Result<u32, BadValue> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, BadValue> {
        self.array().map(u64::from_le_bytes)
    }

    fn i32(&mut self) -> Result<i32, BadValue> {
        self.array().map(i32::from_le_bytes)
    }

    fn place(&mut self) -> Result<Place, BadValue> {
        Ok((Origin(self.u32()?), Position(self.u64()?)))
    }

    fn end(&self) -> Result<(), BadValue> {
        if self.left.is_empty() { Ok(()) } else { Err(self.bad()) }
    }
}

pub(super) fn owner_value(owner: &Owner) -> Vec<u8> {
    let mut value = vec![VERSION];
    value.extend(owner.account.as_bytes());
    value.extend(owner.device.as_bytes());
    value
}

pub(super) fn read_owner(value: &[u8]) -> Result<Owner, BadValue> {
    let mut reader = Reader::new("the owner", value)?;
    let owner = Owner { account: AccountId(reader.array()?), device: DeviceId(reader.array()?) };
    reader.end()?;
    Ok(owner)
}

pub(super) fn send_value(send: &QueuedSend) -> Vec<u8> {
    let mut value = Vec::with_capacity(41 + send.body.len() + send.extra.len());
    value.push(version_of(send));
    put_send(send, &mut value);
    value
}

fn version_of(send: &QueuedSend) -> u8 {
    if send.extra.is_empty() { VERSION } else { VERSION_EXTRA }
}

fn put_send(send: &QueuedSend, value: &mut Vec<u8>) {
    value.extend(send.id.as_bytes());
    value.extend(send.recipient.as_bytes());
    value.extend(send.kind.to_le_bytes());
    if !send.extra.is_empty() {
        value.extend((send.extra.len() as u32).to_le_bytes());
        value.extend(&send.extra);
    }
    value.extend(&send.body);
}

pub(super) fn read_send(number: u64, value: &[u8]) -> Result<QueuedSend, BadValue> {
    let (mut reader, has_extra) = Reader::of_send("the queue", value)?;
    take_send(number, &mut reader, has_extra)
}

fn take_send(number: u64, reader: &mut Reader<'_>, has_extra: bool) -> Result<QueuedSend, BadValue> {
    Ok(QueuedSend {
        number,
        id: MessageId(reader.array()?),
        recipient: AccountId(reader.array()?),
        kind: reader.i32()?,
        extra: if has_extra { Bytes::copy_from_slice(reader.sized()?) } else { Bytes::new() },
        body: Bytes::copy_from_slice(reader.left),
    })
}

pub(super) fn answer_value(answer: &AnsweredSend) -> Vec<u8> {
    let Accepted { origin, position, stamp } = answer.accepted;
    let mut value = vec![VERSION];
    value.extend(answer.number.to_le_bytes());
    value.extend(answer.id.as_bytes());
    value.extend(answer.digest);
    value.extend(origin.0.to_le_bytes());
    value.extend(position.0.to_le_bytes());
    value.extend(stamp.0.to_le_bytes());
    value
}

pub(super) fn read_answer(value: &[u8]) -> Result<AnsweredSend, BadValue> {
    let mut reader = Reader::new("the answers", value)?;
    let (number, id, digest) = (reader.u64()?, MessageId(reader.array()?), reader.array()?);
    let (origin, position) = reader.place()?;
    let accepted = Accepted { origin, position, stamp: Stamp(reader.u64()?) };
    reader.end()?;
    Ok(AnsweredSend { number, id, digest, accepted })
}

pub(super) fn refused_value(refused: &RefusedSend) -> Vec<u8> {
    let mut value = vec![version_of(&refused.send)];
    value.extend(refused.send.number.to_le_bytes());
    value.extend(refused.reason.to_le_bytes());
    value.extend((refused.text.len() as u32).to_le_bytes());
    value.extend(refused.text.as_bytes());
    put_send(&refused.send, &mut value);
    value
}

pub(super) fn read_refused(value: &[u8]) -> Result<RefusedSend, BadValue> {
    let (mut reader, has_extra) = Reader::of_send("the refusals", value)?;
    let (number, reason) = (reader.u64()?, reader.i32()?);
    let text = std::str::from_utf8(reader.sized()?).map_err(|_| reader.bad())?.to_owned();
    Ok(RefusedSend { send: take_send(number, &mut reader, has_extra)?, reason, text })
}

pub(super) fn key_value((sender, id): &MessageKey) -> Vec<u8> {
    let mut value = vec![VERSION];
    value.extend(sender.as_bytes());
    value.extend(id.as_bytes());
    value
}

pub(super) fn read_key(value: &[u8]) -> Result<MessageKey, BadValue> {
    let mut reader = Reader::new("what was shown", value)?;
    let key = (AccountId(reader.array()?), MessageId(reader.array()?));
    reader.end()?;
    Ok(key)
}

pub(super) fn hand_value(hand: &Hand) -> Vec<u8> {
    let standing = match hand.standing {
        Standing::Released => 0,
        Standing::InHand => 1,
        Standing::Done => 2,
    };
    let mut value = vec![VERSION, standing];
    value.extend(hand.attempts.to_le_bytes());
    value.extend(hand.deaths.to_le_bytes());
    value
}

pub(super) fn read_hand(value: &[u8]) -> Result<Hand, BadValue> {
    let mut reader = Reader::new("what was in hand", value)?;
    let standing = match reader.array()? {
        [0] => Standing::Released,
        [1] => Standing::InHand,
        [2] => Standing::Done,
        _ => return Err(reader.bad()),
    };
    let hand = Hand { attempts: reader.u32()?, deaths: reader.u32()?, standing };
    reader.end()?;
    Ok(hand)
}

pub(super) fn places_value(places: &[Place]) -> Vec<u8> {
    let mut value = vec![VERSION];
    for (origin, position) in places {
        value.extend(origin.0.to_le_bytes());
        value.extend(position.0.to_le_bytes());
    }
    value
}

pub(super) fn read_places(value: &[u8]) -> Result<Vec<Place>, BadValue> {
    let mut reader = Reader::new("the positions", value)?;
    let mut places = Vec::new();
    while !reader.left.is_empty() {
        places.push(reader.place()?);
    }
    Ok(places)
}

pub(super) fn marks_value(marks: &[Mark]) -> Vec<u8> {
    let mut value = vec![VERSION];
    for mark in marks {
        value.extend(mark.sender.0);
        value.extend(mark.origin.0.to_le_bytes());
        value.extend(mark.after.0.to_le_bytes());
        value.extend(mark.upto.0.to_le_bytes());
    }
    value
}

pub(super) fn read_marks(value: &[u8]) -> Result<Vec<Mark>, BadValue> {
    let mut reader = Reader::new("the marks", value)?;
    let mut marks = Vec::new();
    while !reader.left.is_empty() {
        let sender = AccountId(reader.array()?);
        let (origin, after) = reader.place()?;
        marks.push(Mark { sender, origin, after, upto: Position(reader.u64()?) });
    }
    Ok(marks)
}
