//! Frames: a varint length and so many bytes of protobuf, `prost`'s length-delimited form.
//!
//! Why a decoder of our own around it: a length must be checked against the limit of its stream before a byte is
//! reserved, and frames must come out of one received chunk without copying their bodies.
//!
//! A field of two bytes can stand for a message of many: decoded, a list of empty messages takes several times the memory of its
//! frame. So fields are counted before anything is decoded. All lists of messages that a client sends lie on the first two levels of a
//! frame, or are packed (the seqs of a sync), and all bodies and texts lie below them, so two levels are counted: no body is ever
//! taken for fields. With at most [`FIELDS_MAX`] of them a decoded frame takes at most 8 times its bytes in list elements, and never
//! over 16 KiB; everything else in it is no larger than its bytes. The answers of the archive have lists further down: a client that is
//! given a frame full of empty ones, by a server gone bad, holds some megabytes for as long as it reads that frame.
//!
//! Invariants: a length prefix has at most [`PREFIX_BYTES_MAX`] bytes and is written in the shortest form; a decoder that
//! returned an error is finished with, because the border of the next frame is lost.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use crate::limits::FIELDS_MAX;

/// Longest length prefix in bytes. Three carry 21 bits, more than any frame may have.
pub const PREFIX_BYTES_MAX: usize = 3;

/// Why bytes are no frame. The peer is to blame and the stream cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length prefix is above the limit of the stream.
    #[error("frame of {len} bytes is longer than the {max} allowed here")]
    TooLarge {
        /// The length that was announced; for a prefix too long to read, the limit of prefixes.
        len: usize,
        /// The limit of the stream.
        max: usize,
    },
    /// The length prefix is not in its shortest form.
    #[error("frame length is not in its shortest form")]
    OverlongPrefix,
    /// The frame has more fields than [`FIELDS_MAX`].
    #[error("frame has more than {FIELDS_MAX} fields")]
    TooManyFields,
    /// The bytes of the frame are not the message they should be.
    #[error("frame is not valid protobuf: {0}")]
    Malformed(#[from] prost::DecodeError),
}

/// Takes the next whole frame off the front of `buffer`, or returns `None` if it is not all there yet.
///
/// # Errors
/// [`FrameError::TooLarge`] as soon as the prefix is there, before the frame is; [`FrameError::OverlongPrefix`].
pub fn take(buffer: &mut BytesMut, max: usize) -> Result<Option<Bytes>, FrameError> {
    let Some((len, prefix)) = read_prefix(buffer, max)? else {
        return Ok(None);
    };
    if buffer.len() < prefix + len {
        make_room(buffer, prefix + len);
        return Ok(None);
    }
    buffer.advance(prefix);
    Ok(Some(buffer.split_to(len).freeze()))
}

/// Takes the next whole frame off the front of `buffer` and decodes it.
///
/// # Errors
/// As [`take`], and [`FrameError::TooManyFields`], [`FrameError::Malformed`].
pub fn decode<M: Message + Default>(buffer: &mut BytesMut, max: usize) -> Result<Option<M>, FrameError> {
    match take(buffer, max)? {
        Some(frame) if has_too_many_fields(&frame) => Err(FrameError::TooManyFields),
        Some(frame) => Ok(Some(M::decode(frame)?)),
        None => Ok(None),
    }
}

/// Appends a message as one frame.
pub fn encode<M: Message>(message: &M, buffer: &mut BytesMut) {
    let len = message.encoded_len();
    buffer.reserve(prefix_len(len) + len);
    put_prefix(len, buffer);
    // Cannot fail: `BytesMut` grows.
    message.encode_raw(buffer);
}

/// Returns a message as one frame of its own.
pub fn to_bytes<M: Message>(message: &M) -> Bytes {
    let mut buffer = BytesMut::with_capacity(message.encoded_len() + 10);
    encode(message, &mut buffer);
    buffer.freeze()
}

/// Appends a length prefix.
pub fn put_prefix(len: usize, buffer: &mut impl BufMut) {
    let mut rest = len;
    while rest >= 0x80 {
        buffer.put_u8((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    buffer.put_u8(rest as u8);
}

/// Makes room for a frame of `len` bytes in all, whose length was checked: a peer makes us hold one frame and no more.
/// `reserve` alone would double what there is.
fn make_room(buffer: &mut BytesMut, len: usize) {
    if !buffer.try_reclaim(len - buffer.len()) {
        let mut whole = BytesMut::with_capacity(len);
        whole.extend_from_slice(buffer);
        *buffer = whole;
    }
}

/// Counts the fields of the first two levels. Bytes that are no fields end the count of their level: whether they are
/// valid is for the decoder to say.
fn has_too_many_fields(frame: &[u8]) -> bool {
    let (mut fields, mut rest) = (0, frame);
    while let Some((nested, behind)) = skip_field(rest) {
        (fields, rest) = (fields + 1, behind);
        let mut inner = nested;
        while let Some((_, behind)) = skip_field(inner) {
            (fields, inner) = (fields + 1, behind);
        }
        if fields > FIELDS_MAX {
            return true;
        }
    }
    false
}

/// Passes over one field and returns its content, if it has a length, and what lies behind it. The border of a group counts as a
/// field without content.
fn skip_field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (key, rest) = read_varint(bytes)?;
    match key & 7 {
        0 => read_varint(rest).map(|(_, rest)| (&[][..], rest)),
        1 => rest.get(8..).map(|rest| (&[][..], rest)),
        2 => {
            let (len, rest) = read_varint(rest)?;
            rest.split_at_checked(usize::try_from(len).ok()?)
        }
        3 | 4 => Some((&[], rest)),
        5 => rest.get(4..).map(|rest| (&[][..], rest)),
        _ => None,
    }
}

fn read_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

fn prefix_len(len: usize) -> usize {
    (usize::BITS - (len | 1).leading_zeros()).div_ceil(7) as usize
}

fn read_prefix(buffer: &[u8], max: usize) -> Result<Option<(usize, usize)>, FrameError> {
    let mut len = 0;
    for index in 0..PREFIX_BYTES_MAX {
        let Some(byte) = buffer.get(index) else {
            return Ok(None);
        };
        len |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            if *byte == 0 && index > 0 {
                return Err(FrameError::OverlongPrefix);
            }
            if len > max {
                return Err(FrameError::TooLarge { len, max });
            }
            return Ok(Some((len, index + 1)));
        }
    }
    Err(FrameError::TooLarge { len: 1 << (7 * PREFIX_BYTES_MAX), max })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::FRAME_BYTES_MAX;
    use crate::v1;

    #[test]
    fn a_frame_above_the_limit_is_refused_by_its_prefix_alone() {
        let mut buffer = BytesMut::new();
        put_prefix(101, &mut buffer);
        assert_eq!(take(&mut buffer, 100), Err(FrameError::TooLarge { len: 101, max: 100 }));
    }

    #[test]
    fn a_prefix_that_never_ends_is_refused_at_its_third_byte() {
        let mut buffer = BytesMut::from(&[0xff, 0xff][..]);
        assert_eq!(take(&mut buffer, 1 << 30), Ok(None));
        buffer.put_u8(0xff);
        assert!(matches!(take(&mut buffer, 1 << 30), Err(FrameError::TooLarge { .. })));
    }

    #[test]
    fn a_length_has_one_form_only() {
        let mut buffer = BytesMut::from(&[0x81, 0x00, 7][..]);
        assert_eq!(take(&mut buffer, 100), Err(FrameError::OverlongPrefix));
    }

    #[test]
    fn an_empty_frame_is_a_frame() {
        let mut buffer = BytesMut::from(&[0][..]);
        assert_eq!(take(&mut buffer, 100), Ok(Some(Bytes::new())));
        assert_eq!(take(&mut buffer, 100), Ok(None));
    }

    #[test]
    fn a_list_of_empty_messages_is_refused_before_it_is_decoded() {
        let ack = |cursors| v1::FeedUp {
            frame: Some(v1::feed_up::Frame::Ack(v1::Ack {
                upto: vec![v1::Cursor::default(); cursors],
                set_aside: vec![],
            })),
        };
        let decode = |cursors| {
            decode::<v1::FeedUp>(&mut BytesMut::from(&to_bytes(&ack(cursors))[..]), FRAME_BYTES_MAX)
        };
        // One field is the acknowledgement itself.
        assert_eq!(decode(FIELDS_MAX - 1), Ok(Some(ack(FIELDS_MAX - 1))));
        assert_eq!(decode(FIELDS_MAX), Err(FrameError::TooManyFields));
        assert_eq!(decode(30_000), Err(FrameError::TooManyFields));
    }

    #[test]
    fn a_body_that_looks_like_fields_is_none() {
        let body = Bytes::from(vec![0x0a; 60_000]);
        let send = v1::Send { number: 1, body, ..v1::Send::default() };
        let up = v1::PublishUp { frame: Some(v1::publish_up::Frame::Send(send)) };
        let mut buffer = BytesMut::from(&to_bytes(&up)[..]);
        assert_eq!(decode(&mut buffer, FRAME_BYTES_MAX), Ok(Some(up)));
    }

    #[test]
    fn prefix_lengths_agree_with_what_is_written() {
        for len in [0, 1, 127, 128, 16_383, 16_384, 65_536, 2_097_151] {
            let mut buffer = BytesMut::new();
            put_prefix(len, &mut buffer);
            assert_eq!(buffer.len(), prefix_len(len), "{len}");
            assert_eq!(read_prefix(&buffer, usize::MAX), Ok(Some((len, buffer.len()))));
        }
    }
}
