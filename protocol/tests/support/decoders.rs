//! What must hold of every decoder, whatever bytes it is given: it does not panic, what it accepts it encodes and decodes to
//! the same again, and what it accepts is not much larger than its bytes.
//!
//! Plain functions of bytes, so that the fuzzer and the property tests run the very same ones.

use bytes::{Bytes, BytesMut};
use prost::Message;
use quail_protocol::address::Address;
use quail_protocol::frame::{self, FrameError, PREFIX_BYTES_MAX};
use quail_protocol::id::{AccountId, MessageId};
use quail_protocol::limits::{FIELDS_MAX, FRAME_BYTES_MAX};
use quail_protocol::v1;

/// Bytes that a list's element takes in memory for each byte of its frame.
const LIST_FACTOR: usize = 8;

fn decoder<M: Message + Default + PartialEq>(data: &[u8], cursors: impl Fn(&M) -> usize) {
    let mut buffer = BytesMut::new();
    frame::put_prefix(data.len(), &mut buffer);
    buffer.extend_from_slice(data);
    let message: M = match frame::decode(&mut buffer, FRAME_BYTES_MAX) {
        Ok(Some(message)) => message,
        Ok(None) => panic!("a whole frame is none"),
        Err(_) => return,
    };
    assert!(buffer.is_empty(), "bytes were left behind");
    let listed = cursors(&message);
    assert!(listed < FIELDS_MAX);
    assert!(
        listed * size_of::<v1::Cursor>() <= LIST_FACTOR * data.len(),
        "a list of {listed} in {}",
        data.len()
    );
    // Numbers that were not in their shortest form may be longer in the second encoding, texts never.
    let again = frame::to_bytes(&message);
    let decoded = frame::decode::<M>(&mut BytesMut::from(&again[..]), 1 << 20);
    assert!(decoded.is_ok_and(|decoded| decoded.is_some_and(|decoded| decoded == message)));
    assert!(again == frame::to_bytes(&message));
}

pub(crate) fn open(data: &[u8]) {
    decoder(data, |open: &v1::Open| match &open.stream {
        Some(v1::open::Stream::Feed(attach)) => attach.cursors.len(),
        _ => 0,
    });
}

pub(crate) fn hello_reply(data: &[u8]) {
    decoder(data, |_: &v1::HelloReply| 0);
}

pub(crate) fn publish_up(data: &[u8]) {
    decoder(data, |_: &v1::PublishUp| 0);
}

pub(crate) fn publish_down(data: &[u8]) {
    decoder(data, |_: &v1::PublishDown| 0);
}

pub(crate) fn feed_up(data: &[u8]) {
    decoder(data, |up: &v1::FeedUp| match &up.frame {
        Some(v1::feed_up::Frame::Ack(ack)) => ack.upto.len() + ack.set_aside.len(),
        Some(v1::feed_up::Frame::Read(read)) => read.stretches.len(),
        Some(v1::feed_up::Frame::Signal(_)) | None => 0,
    });
}

pub(crate) fn feed_down(data: &[u8]) {
    decoder(data, |_: &v1::FeedDown| 0);
}

pub(crate) fn response(data: &[u8]) {
    decoder(data, |_: &v1::Response| 0);
}

fn taken(buffer: &mut BytesMut, frames: &mut Vec<Bytes>) -> Result<(), FrameError> {
    while let Some(frame) = frame::take(buffer, FRAME_BYTES_MAX)? {
        frames.push(frame);
    }
    Ok(())
}

/// The first byte says how the rest is cut into chunks; frames do not depend on that.
pub(crate) fn take(data: &[u8]) {
    let Some((cut, stream)) = data.split_first() else { return };
    let (mut whole, mut frames) = (BytesMut::from(stream), Vec::new());
    let end = taken(&mut whole, &mut frames);
    let (mut buffer, mut by_chunks, mut chunked_end) = (BytesMut::new(), Vec::new(), Ok(()));
    for chunk in stream.chunks(usize::from(*cut) + 1) {
        buffer.extend_from_slice(chunk);
        chunked_end = taken(&mut buffer, &mut by_chunks);
        // `extend_from_slice` may double what one chunk made necessary.
        assert!(buffer.capacity() <= 2 * (FRAME_BYTES_MAX + PREFIX_BYTES_MAX + 256), "{}", buffer.capacity());
        if chunked_end.is_err() {
            break;
        }
    }
    assert_eq!((frames, end), (by_chunks, chunked_end));
}

/// Addresses and ids as people write them: what is understood is written and understood again.
pub(crate) fn text(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(address) = text.parse::<Address>() {
        assert_eq!(address.to_string().parse::<Address>().ok(), Some(address));
    }
    if let Ok(id) = text.parse::<AccountId>() {
        assert_eq!(id.to_string().parse::<AccountId>().ok(), Some(id));
    }
    assert_eq!(MessageId::try_from(data).is_ok(), data.len() == 16);
}
