//! The frame of a message event, written in one go.
//!
//! The general encoder wants a tree of owned messages and measures each level of it anew; a daemon writes this one frame for
//! every message there is, from parts that it has lying apart. Held to the general encoder byte by byte by its tests.

use bytes::{BufMut, Bytes};

use crate::frame::put_prefix;
use crate::id::{AccountId, MessageId, MessageRef, Origin, Position, Stamp};
use crate::v1::BodyKind;

/// A message as it lies before a daemon that has accepted it.
#[derive(Clone, Copy, Debug)]
pub struct MessageEvent<'a> {
    /// The origin that accepted it.
    pub origin: Origin,
    /// Its position there.
    pub position: Position,
    /// Its stamp.
    pub stamp: Stamp,
    /// Its id.
    pub id: MessageId,
    /// Who sent it.
    pub sender: AccountId,
    /// Whom it is for.
    pub recipient: AccountId,
    /// What the body is.
    pub kind: BodyKind,
    /// The body.
    pub body: &'a [u8],
    /// What it answers.
    pub reply_to: Option<MessageRef>,
}

/// Length of a field that is an id: key, length and 16 bytes.
const ID_FIELD: usize = 18;

impl MessageEvent<'_> {
    /// Returns the frame that goes down a feed lane: `FeedDown { event: Event { .., message: Message { .. } } }`.
    pub fn to_frame(&self) -> Bytes {
        let reply = self.reply_to.map_or(0, |_| nested_field(2 * ID_FIELD));
        let message = 3 * ID_FIELD + varint_field(self.kind as u64) + bytes_field(self.body.len()) + reply;
        let event = varint_field(u64::from(self.origin.0))
            + varint_field(self.position.0)
            + varint_field(self.stamp.0)
            + nested_field(message);
        let down = nested_field(event);
        let mut frame = Vec::with_capacity(varint_len(down as u64) + down);
        put_prefix(down, &mut frame);
        put_nested(&mut frame, 1, event);
        put_number(&mut frame, 1, u64::from(self.origin.0));
        put_number(&mut frame, 2, self.position.0);
        put_number(&mut frame, 3, self.stamp.0);
        put_nested(&mut frame, 4, message);
        put_bytes(&mut frame, 1, self.id.as_bytes());
        put_bytes(&mut frame, 2, self.sender.as_bytes());
        put_bytes(&mut frame, 3, self.recipient.as_bytes());
        put_number(&mut frame, 4, self.kind as u64);
        put_bytes(&mut frame, 5, self.body);
        if let Some(MessageRef { sender, id }) = &self.reply_to {
            put_nested(&mut frame, 6, 2 * ID_FIELD);
            put_bytes(&mut frame, 1, sender.as_bytes());
            put_bytes(&mut frame, 2, id.as_bytes());
        }
        frame.into()
    }
}

fn varint_len(value: u64) -> usize {
    (u64::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// Proto3 leaves out what is zero or empty.
fn varint_field(value: u64) -> usize {
    if value == 0 { 0 } else { 1 + varint_len(value) }
}

fn bytes_field(len: usize) -> usize {
    if len == 0 { 0 } else { nested_field(len) }
}

/// A nested message is there even if it is empty.
fn nested_field(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

fn put_number(frame: &mut Vec<u8>, field: u8, value: u64) {
    if value == 0 {
        return;
    }
    frame.put_u8(field << 3);
    let mut rest = value;
    while rest >= 0x80 {
        frame.put_u8((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    frame.put_u8(rest as u8);
}

fn put_nested(frame: &mut Vec<u8>, field: u8, len: usize) {
    frame.put_u8(field << 3 | 2);
    put_prefix(len, frame);
}

fn put_bytes(frame: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_nested(frame, field, bytes.len());
        frame.put_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{frame, v1};

    fn by_the_general_encoder(event: &MessageEvent<'_>) -> Bytes {
        let message = v1::Message {
            id: event.id.to_bytes(),
            sender: event.sender.to_bytes(),
            recipient: event.recipient.to_bytes(),
            kind: event.kind as i32,
            body: Bytes::copy_from_slice(event.body),
            reply_to: event.reply_to.map(v1::MessageRef::from),
        };
        let event = v1::Event {
            origin: event.origin.0,
            position: event.position.0,
            stamp: event.stamp.0,
            body: Some(v1::event::Body::Message(message)),
        };
        frame::to_bytes(&v1::FeedDown { frame: Some(v1::feed_down::Frame::Event(event)) })
    }

    /// Numbers of every length a varint can have.
    fn number() -> impl Strategy<Value = u64> {
        (any::<u64>(), 0..64_u32).prop_map(|(value, shift)| value >> shift)
    }

    proptest! {
        #[test]
        fn it_is_what_the_general_encoder_writes(
            (origin, position, stamp) in (number(), number(), number()),
            (id, sender, recipient) in any::<([u8; 16], [u8; 16], [u8; 16])>(),
            is_text in any::<bool>(),
            reply in prop::option::of(any::<([u8; 16], [u8; 16])>()),
            body in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..400),
                prop::collection::vec(any::<u8>(), 16_200..16_500),
                Just(vec![7; 61_440]),
            ],
        ) {
            let event = MessageEvent {
                origin: Origin(origin as u32),
                position: Position(position),
                stamp: Stamp(stamp),
                id: MessageId(id),
                sender: AccountId(sender),
                recipient: AccountId(recipient),
                kind: if is_text { BodyKind::PlainText } else { BodyKind::Unspecified },
                body: &body,
                reply_to: reply.map(|(sender, id)| MessageRef { sender: AccountId(sender), id: MessageId(id) }),
            };
            prop_assert_eq!(event.to_frame(), by_the_general_encoder(&event));
        }
    }
}
