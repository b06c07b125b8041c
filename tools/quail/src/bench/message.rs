//! Messages that say who sent them, the how manieth they are, and when they were due.
//!
//! Whoever receives one needs nothing else to tell which it is and how long it took: sender and recipient are parts of
//! one process and read the same clock. The message's id says the same as its body, so that a body under a wrong id is
//! found out.
//!
//! Invariants: a body is UTF-8 text of exactly the size asked for; a sender's numbers have ids of their own.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use quail_client::{Body, Message, MessageId};
use quail_protocol::v1::BodyKind;

/// Smallest body in bytes: 6 digits of the sender, 10 of the number, 16 of the time, all hexadecimal.
pub const SIZE_MIN: usize = SENDER_DIGITS + NUMBER_DIGITS + TIME_DIGITS;

const SENDER_DIGITS: usize = 6;
const NUMBER_DIGITS: usize = 10;
const TIME_DIGITS: usize = 16;

/// Largest number of a message.
pub(super) const NUMBER_MAX: u64 = 1 << 28;

/// How many bytes of bodies share an allocation.
const BLOCK_BYTES: usize = 16 * 1024;

/// Which message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stub {
    /// The user who sends it.
    pub(super) sender: u32,
    /// The number among the sender's messages, from 0.
    pub(super) number: u64,
    /// When it was sent, or was to be sent: time since the measurement's zero.
    pub(super) due: Duration,
}

impl Stub {
    /// Returns what a received message says it is, or `None` if its parts do not belong together.
    pub(super) fn of(message: &Message) -> Option<Self> {
        let text = message.body.as_text()?.as_bytes();
        let (sender, rest) = text.split_at_checked(SENDER_DIGITS)?;
        let (number, rest) = rest.split_at_checked(NUMBER_DIGITS)?;
        let (due, filler) = rest.split_at_checked(TIME_DIGITS)?;
        let stub = Self {
            sender: u32::try_from(digits(sender)?).ok()?,
            number: digits(number)?,
            due: Duration::from_nanos(digits(due)?),
        };
        let whole = stub.number <= NUMBER_MAX
            && filler.chunks(FILLERS.len()).all(|piece| *piece == FILLERS[..piece.len()])
            && id(0, &stub).0[6..] == message.id.0[6..];
        whole.then_some(stub)
    }
}

const FILLER: u8 = b'.';

/// Compared with in pieces: byte by byte would cost the processor that the server is measured on.
const FILLERS: [u8; 256] = [FILLER; 256];

/// Makes the messages of one user.
#[derive(Debug)]
pub(super) struct Writer {
    size: usize,
    block: BytesMut,
    /// The wall clock at the measurement's zero, in milliseconds since the Unix epoch.
    zero_ms: u64,
}

impl Writer {
    /// Makes bodies of `size` bytes, at least [`SIZE_MIN`]. Times count from now.
    pub(super) fn new(size: usize) -> Self {
        let zero_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        Self { size: size.max(SIZE_MIN), block: BytesMut::new(), zero_ms }
    }

    /// Makes a message.
    pub(super) fn write(&mut self, stub: &Stub) -> (MessageId, Body) {
        if self.block.capacity() < self.size {
            self.block = BytesMut::with_capacity(BLOCK_BYTES.max(self.size));
        }
        put(&mut self.block, u64::from(stub.sender), SENDER_DIGITS);
        put(&mut self.block, stub.number, NUMBER_DIGITS);
        put(&mut self.block, stub.due.as_nanos() as u64, TIME_DIGITS);
        self.block.resize(self.size, FILLER);
        let bytes: Bytes = self.block.split().freeze();
        let ms = self.zero_ms + stub.due.as_millis() as u64;
        (id(ms, stub), Body::Other { kind: BodyKind::PlainText as i32, bytes })
    }
}

/// The id of a message: a UUID version 7 with sender and number where others have chance.
fn id(unix_ms: u64, stub: &Stub) -> MessageId {
    let mut id = [0; 16];
    id[..6].copy_from_slice(&unix_ms.to_be_bytes()[2..]);
    id[6] = 0x70;
    id[8] = 0x80;
    id[9..12].copy_from_slice(&stub.sender.to_be_bytes()[1..]);
    id[12..].copy_from_slice(&(stub.number as u32).to_be_bytes());
    MessageId(id)
}

fn put(block: &mut BytesMut, value: u64, digits: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'0'; 16];
    let mut value = value;
    for place in text[..digits].iter_mut().rev() {
        *place = DIGITS[(value & 0xf) as usize];
        value >>= 4;
    }
    block.extend_from_slice(&text[..digits]);
}

fn digits(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0, |value, byte| Some(value << 4 | u64::from(char::from(*byte).to_digit(16)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STUB: Stub = Stub { sender: 199, number: 70_000, due: Duration::from_nanos(1_234_567_890) };

    fn written(size: usize) -> (MessageId, String) {
        let (id, body) = Writer::new(size).write(&STUB);
        let Body::Other { bytes, .. } = body else { panic!("not as bytes") };
        (id, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[test]
    fn a_body_has_the_size_asked_for_and_says_what_it_is() {
        for size in [SIZE_MIN, 256, 60 * 1024] {
            let (id, text) = written(size);
            assert_eq!(text.len(), size);
            assert_eq!(&text[..SIZE_MIN], "0000c7000001117000000000499602d2");
            assert!(id.unix_ms().is_some_and(|ms| ms > 1_600_000_000_000));
        }
    }

    #[test]
    fn numbers_read_back_as_they_were_put() {
        let mut block = BytesMut::new();
        put(&mut block, 0xabc, 6);
        assert_eq!(&block[..], b"000abc");
        assert_eq!(digits(&block), Some(0xabc));
        assert_eq!(digits(b"00x"), None);
    }

    #[test]
    fn ids_differ_by_sender_and_number() {
        let other = Stub { number: STUB.number + 1, ..STUB };
        assert_ne!(id(5, &STUB), id(5, &other));
        assert_ne!(id(5, &STUB), id(5, &Stub { sender: 1, ..STUB }));
        assert_eq!(id(5, &STUB).unix_ms(), Some(5));
    }
}
