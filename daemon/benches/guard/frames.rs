//! Frames on their way in and out.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use quail_protocol::event_frame::MessageEvent;
use quail_protocol::frame;
use quail_protocol::id::{AccountId, MessageId, Origin, Position, Stamp};
use quail_protocol::limits::FRAME_BYTES_MAX;
use quail_protocol::v1::{self, BodyKind};

/// A short text message; most are.
static BODY: [u8; 256] = [b'x'; 256];

/// A stream of sends as it comes out of packets.
pub(crate) fn decoding() -> Box<dyn FnMut()> {
    let send = v1::Send {
        number: 70_000,
        id: Bytes::from_static(&[7; 16]),
        recipient: Bytes::from_static(&[8; 16]),
        kind: BodyKind::PlainText.into(),
        body: Bytes::from_static(&BODY),
        seen: 1 << 60,
        ..v1::Send::default()
    };
    let up = frame::to_bytes(&v1::PublishUp { frame: Some(v1::publish_up::Frame::Send(send)) });
    let mut stream = BytesMut::new();
    Box::new(move || {
        stream.extend_from_slice(&up);
        let decoded = frame::decode::<v1::PublishUp>(&mut stream, FRAME_BYTES_MAX);
        black_box(decoded.expect("a frame").expect("a whole one"));
    })
}

pub(crate) fn encoding() -> Box<dyn FnMut()> {
    let mut position = 1 << 30;
    Box::new(move || {
        position += 1;
        let event = MessageEvent {
            origin: Origin(1),
            position: Position(position),
            stamp: Stamp(1 << 60),
            id: MessageId([7; 16]),
            sender: AccountId([8; 16]),
            recipient: AccountId([9; 16]),
            kind: BodyKind::PlainText,
            body: &BODY,
            reply_to: None,
        };
        black_box(event.to_frame());
    })
}
