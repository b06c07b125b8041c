//! People who send and acknowledge, as entries.

use std::sync::Arc;

use bytes::Bytes;
use quail_core::ports::outbox::{DeviceRecord, Entry, Note, RecentSend, StoredEvent};
use quail_protocol::id::{AccountId, DeviceId, MessageId, Position, Stamp};

/// Length of a message's frame with a body of 256 bytes.
pub(crate) const MESSAGE_BYTES: usize = 340;

/// Length of a receipt's frame.
pub(crate) const RECEIPT_BYTES: usize = 60;

static MESSAGE: [u8; MESSAGE_BYTES] = [0x5a; MESSAGE_BYTES];
static RECEIPT: [u8; RECEIPT_BYTES] = [0xc3; RECEIPT_BYTES];

pub(crate) fn account(n: u64) -> AccountId {
    AccountId(id(1, n))
}

pub(crate) fn device(n: u64) -> DeviceId {
    DeviceId(id(2, n))
}

/// Spread over the range, as ids are.
fn id(kind: u8, n: u64) -> [u8; 16] {
    let mut id = [kind; 16];
    id[8..].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    id
}

/// Gives positions and remembers what was given.
#[derive(Default)]
pub(crate) struct Desk {
    pub(crate) last: u64,
}

impl Desk {
    pub(crate) fn position(&mut self) -> Position {
        self.last += 1;
        Position(self.last)
    }

    /// Sender `n` sends to recipient `to`: the event, in memory of its own, and its number. Returns the position.
    pub(crate) fn send(&mut self, n: u64, to: u64, number: u64, entries: &mut Vec<Entry>) -> Position {
        self.send_frame(n, to, number, MESSAGE.to_vec().into(), entries)
    }

    /// The same with a frame that was made before: that is the work of who sends, and here only the outbox is to be measured.
    pub(crate) fn send_made(&mut self, n: u64, to: u64, number: u64, entries: &mut Vec<Entry>) -> Position {
        self.send_frame(n, to, number, Bytes::from_static(&MESSAGE), entries)
    }

    fn send_frame(
        &mut self,
        n: u64,
        to: u64,
        number: u64,
        frame: Bytes,
        entries: &mut Vec<Entry>,
    ) -> Position {
        let position = self.position();
        let note = Note::Message { sender: account(n), device: device(n), recipient: account(to) };
        let event = Arc::new(StoredEvent { position, note, frame });
        entries.push(Entry::Event { event, accounts: vec![account(to)] });
        let id = MessageId(u128::from(position.0).to_be_bytes());
        let send = RecentSend { number, id, digest: [7; 16], position, stamp: Stamp(position.0) };
        entries.push(Entry::Sent { device: device(n), send });
        position
    }

    /// Recipient `to` acknowledges up to a position; sender `n` gets a receipt. Returns its position.
    pub(crate) fn acknowledge(
        &mut self,
        n: u64,
        to: u64,
        upto: Position,
        entries: &mut Vec<Entry>,
    ) -> Position {
        self.take(to, upto, entries);
        let position = self.position();
        let note = Note::Receipt { account: account(to), after: Position(upto.0 - 1), upto };
        let event = Arc::new(StoredEvent { position, note, frame: Bytes::from_static(&RECEIPT) });
        entries.push(Entry::Event { event, accounts: vec![account(n)] });
        position
    }

    /// Device `n` takes everything up to a position.
    pub(crate) fn take(&mut self, n: u64, upto: Position, entries: &mut Vec<Entry>) {
        let record = DeviceRecord { cursor: upto, acked: upto, attach_number: 1 };
        entries.push(Entry::Device { account: account(n), device: device(n), record });
        entries.push(Entry::Resolved { account: account(n), upto });
    }
}
