//! A send as the bytes of its frame.
//!
//! The generated code would copy both ids into allocations of their own, for every message that is written. So this frame,
//! of which there is one per message, is written by hand; the form is that of the generated code to the byte.

use bytes::{BufMut, BytesMut};
use quail_protocol::frame::put_prefix;

use super::queue::Outgoing;

/// Field numbers and wire types, as single bytes: `PublishUp.send`, and the fields of `Send`.
const SEND: u8 = 0x0a;
const NUMBER: u8 = 0x08;
const ID: u8 = 0x12;
const RECIPIENT: u8 = 0x1a;
const KIND: u8 = 0x20;
const BODY: u8 = 0x2a;
const SEEN: u8 = 0x30;

/// Appends the frame of a send.
pub(super) fn encode(number: u64, message: &Outgoing, seen: u64, buffer: &mut BytesMut) {
    let Outgoing { id, recipient, kind, ref body, ref extra } = *message;
    // An enumeration goes as a signed number of 64 bits.
    let kind = i64::from(kind) as u64;
    let bytes_len = |bytes: &[u8]| match bytes.len() {
        0 => 0,
        len => 1 + varint_len(len as u64) + len,
    };
    let number_len = |value: u64| if value == 0 { 0 } else { 1 + varint_len(value) };
    let len = number_len(number)
        + bytes_len(id.as_bytes())
        + bytes_len(recipient.as_bytes())
        + number_len(kind)
        + bytes_len(body)
        + number_len(seen)
        + extra.len();
    let outer = 1 + varint_len(len as u64) + len;
    buffer.reserve(varint_len(outer as u64) + outer);
    put_prefix(outer, buffer);
    buffer.put_u8(SEND);
    put_prefix(len, buffer);
    put_number(NUMBER, number, buffer);
    put_bytes(ID, id.as_bytes(), buffer);
    put_bytes(RECIPIENT, recipient.as_bytes(), buffer);
    put_number(KIND, kind, buffer);
    put_bytes(BODY, body, buffer);
    put_number(SEEN, seen, buffer);
    // Its fields have greater numbers.
    buffer.put_slice(extra);
}

/// What is zero is left out.
fn put_number(key: u8, value: u64, buffer: &mut BytesMut) {
    if value == 0 {
        return;
    }
    buffer.put_u8(key);
    let mut rest = value;
    while rest >= 0x80 {
        buffer.put_u8((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    buffer.put_u8(rest as u8);
}

/// What is empty is left out.
fn put_bytes(key: u8, bytes: &[u8], buffer: &mut BytesMut) {
    if bytes.is_empty() {
        return;
    }
    buffer.put_u8(key);
    put_prefix(bytes.len(), buffer);
    buffer.put_slice(bytes);
}

fn varint_len(value: u64) -> usize {
    (u64::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use quail_protocol::frame;
    use quail_protocol::id::{AccountId, MessageId};
    use quail_protocol::v1::{self, publish_up};

    use super::*;

    proptest! {
        #[test]
        fn it_is_what_the_generated_code_writes(
            number in prop_oneof![Just(0), Just(u64::MAX), any::<u64>(), 0..300_u64],
            seen in prop_oneof![Just(0), any::<u64>()],
            kind in prop_oneof![Just(0), Just(-1), any::<i32>()],
            ids: [u8; 16],
            len in prop_oneof![0..300_usize, Just(16_384), Just(61_440)],
            rest in prop_oneof![Just(0_u8), 1..4_u8],
        ) {
            let body = Bytes::from(vec![7; len]);
            let (id, recipient) = (MessageId(ids), AccountId(ids.map(|byte| !byte)));
            let mut by_hand = BytesMut::new();
            let message = Some(v1::MessageRef { sender: recipient.to_bytes(), id: id.to_bytes() });
            let react = v1::React { sender: recipient.to_bytes(), id: id.to_bytes(), text: body.clone() };
            let rest = v1::Send {
                reply_to: message.filter(|_| rest == 1),
                change: Some(v1::send::Change::React(react)).filter(|_| rest == 2),
                ..v1::Send::default()
            };
            let extra = Bytes::from(prost::Message::encode_to_vec(&rest));
            encode(number, &Outgoing { id, recipient, kind, body: body.clone(), extra }, seen, &mut by_hand);
            let (id, recipient) = (id.to_bytes(), recipient.to_bytes());
            let send = publish_up::Frame::Send(v1::Send { number, id, recipient, kind, body, seen, ..rest });
            let mut generated = BytesMut::new();
            frame::encode(&v1::PublishUp { frame: Some(send) }, &mut generated);
            prop_assert_eq!(by_hand, generated);
        }
    }
}
