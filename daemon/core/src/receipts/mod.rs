//! Receipts: what a sender is told of messages, and the reader's other devices with it.
//!
//! While a receipt has not been written to any device of the account that is told, the next one of the same kind and reader
//! that touches it replaces it by both together, so that a sender who is away finds one receipt per conversation and not one
//! per acknowledgement. What was written to a device is never changed.
//!
//! A sender knows a message by the origin that accepted it. Where that has ended and this one carries its messages on, a receipt
//! is told once more under the ancestor's number: nobody but the server knows which positions mean the same in both.

mod book;
mod delivered;
mod read;

use std::iter;
use std::sync::Arc;

use quail_protocol::id::{AccountId, DeviceId, Position, Stamp};
use quail_protocol::v1::ReceiptKind;
use quail_protocol::{frame, v1};
use smallvec::smallvec;

use crate::command::Outcome;
use crate::ports::outbox::{Accounts, Entry, Note, StoredEvent};
use crate::state::State;
pub(crate) use book::ReceiptBook;
use book::{About, Stretch, Unwritten, join};

/// How far messages came.
#[derive(Clone, Copy, Debug)]
struct Receipt {
    kind: ReceiptKind,
    sender: AccountId,
    reader: AccountId,
    stretch: Stretch,
}

impl State {
    /// Tells the devices of the sender.
    fn tell_sender(&mut self, receipt: Receipt, now_ms: u64, outcome: &mut Outcome) {
        let about = match receipt.kind {
            ReceiptKind::Read => About::Read(receipt.reader),
            ReceiptKind::Delivered | ReceiptKind::Unspecified => About::Delivered(receipt.reader),
        };
        self.receipt(receipt.sender, about, None, receipt, now_ms, outcome);
    }

    /// Tells the reader's devices, but for the one that said so.
    fn tell_reader(&mut self, by: DeviceId, receipt: Receipt, now_ms: u64, outcome: &mut Outcome) {
        let about = About::OwnRead(receipt.sender);
        self.receipt(receipt.reader, about, Some(by), receipt, now_ms, outcome);
    }

    /// Puts a receipt into the outbox of `to`, in the place of one that nobody was shown.
    fn receipt(
        &mut self,
        to: AccountId,
        about: About,
        mut by: Option<DeviceId>,
        receipt: Receipt,
        now_ms: u64,
        outcome: &mut Outcome,
    ) {
        if !self.accounts.get(&to).is_some_and(|outbox| outbox.has_devices()) {
            return self.note_down(by, receipt, now_ms, outcome);
        }
        let (position, stamp, origin) = (self.next_position(), self.clock.tick(now_ms), self.origin.0);
        let outbox = self.accounts.entry(to).or_default();
        let mut stretch = receipt.stretch;
        if let Some(earlier) = outbox.receipts.take_unwritten(about, stretch) {
            outbox.withdraw(to, earlier.position, outcome);
            stretch = join(earlier.stretch, stretch);
            // What two devices said, each of them must be told for the other's part.
            by = by.filter(|by| earlier.by == Some(*by));
        }
        let named = (origin, wire(&receipt, stretch, origin));
        let event = stored(by, &receipt, stretch, named, position, stamp);
        outcome.entries.push(Entry::Event { event: event.clone(), accounts: smallvec![to] });
        outbox.receipts.set_unwritten(about, Unwritten { position, stretch, by });
        outbox.append(to, &event, outcome);
        for (ancestor, stretch) in self.inherited(receipt.stretch) {
            let (position, stamp) = (self.next_position(), self.clock.tick(now_ms));
            let named = wire(&receipt, stretch, ancestor.0);
            let event = stored(by, &receipt, stretch, (origin, named), position, stamp);
            outcome.entries.push(Entry::Event { event: event.clone(), accounts: smallvec![to] });
            self.accounts.entry(to).or_default().append(to, &event, outcome);
        }
    }

    /// Puts a receipt into the journal and into no outbox: nobody is told, and history has to have it. It names its sender, and
    /// the device `by` where it is for nobody's eyes but the reader's.
    fn note_down(&mut self, by: Option<DeviceId>, receipt: Receipt, now_ms: u64, outcome: &mut Outcome) {
        let origin = self.origin;
        for (of, stretch) in iter::once((origin, receipt.stretch)).chain(self.inherited(receipt.stretch)) {
            let (position, stamp) = (self.next_position(), self.clock.tick(now_ms));
            let named = v1::Receipt { sender: receipt.sender.to_bytes(), ..wire(&receipt, stretch, of.0) };
            let event = stored(by, &receipt, stretch, (origin.0, named), position, stamp);
            outcome.entries.push(Entry::Event { event, accounts: Accounts::new() });
        }
    }
}

/// Returns the event of a receipt.
fn stored(
    by: Option<DeviceId>,
    receipt: &Receipt,
    stretch: Stretch,
    (origin, named): (u32, v1::Receipt),
    position: Position,
    stamp: Stamp,
) -> Arc<StoredEvent> {
    let body = Some(v1::event::Body::Receipt(named));
    let event = v1::Event { origin, position: position.0, stamp: stamp.0, body };
    let down = v1::FeedDown { frame: Some(v1::feed_down::Frame::Event(event)) };
    let note = match by {
        Some(device) => Note::Message { sender: receipt.reader, device, recipient: receipt.sender },
        None => Note::Receipt { account: receipt.reader, after: stretch.0, upto: stretch.1 },
    };
    Arc::new(StoredEvent { position, note, frame: frame::to_bytes(&down) })
}

fn wire(receipt: &Receipt, (after, upto): Stretch, origin: u32) -> v1::Receipt {
    // What says that messages were delivered goes to their sender alone, and was there before there was a field for it.
    let sender = match receipt.kind {
        ReceiptKind::Delivered | ReceiptKind::Unspecified => bytes::Bytes::new(),
        ReceiptKind::Read => receipt.sender.to_bytes(),
    };
    v1::Receipt {
        kind: receipt.kind as i32,
        account: receipt.reader.to_bytes(),
        origin,
        after: after.0,
        upto: upto.0,
        sender,
    }
}
