//! Delivered: the sender learns how far a recipient's devices have acknowledged.
//!
//! A receipt names a stretch of positions, not a single mark: a stretch never covers what the recipient did not get, so a
//! gap between two acknowledged messages is a border between two stretches. While a receipt has not been written to any
//! device of the sender, the next one of the same recipient replaces it by both together, so that a sender who is away
//! finds one receipt per conversation and not one per acknowledgement.

use std::collections::HashMap;
use std::sync::Arc;

use quail_protocol::id::{AccountId, Position};
use quail_protocol::{frame, v1};

use crate::command::Outcome;
use crate::outbox::Acknowledged;
use crate::ports::outbox::{Entry, Note, StoredEvent};
use crate::state::State;

/// Most senders whose marker an account keeps in memory. Losing one costs a second receipt, nothing else.
const MARKERS_MAX: usize = 1024;

/// What an account remembers of receipts, in both roles.
#[derive(Debug, Default)]
pub(crate) struct ReceiptBook {
    /// As recipient: by sender, up to where `delivered` was told.
    told: HashMap<AccountId, Position>,
    /// As sender: by recipient, the receipt that no device has been shown. Each stands for an event in the outbox.
    unwritten: HashMap<AccountId, Unwritten>,
}

#[derive(Clone, Copy, Debug)]
struct Unwritten {
    position: Position,
    after: Position,
    upto: Position,
}

impl ReceiptBook {
    /// Takes note that the event at `position` goes to a device, and must not be changed from now on.
    pub(crate) fn written(&mut self, position: Position) {
        if !self.unwritten.is_empty() {
            self.unwritten.retain(|_, receipt| receipt.position != position);
        }
    }

    fn tell(&mut self, sender: AccountId, first: Position, last: Position) -> Option<(Position, Position)> {
        if self.told.len() >= MARKERS_MAX && !self.told.contains_key(&sender) {
            self.told.clear();
        }
        let told = self.told.entry(sender).or_default();
        let after = Position(first.0 - 1).max(*told);
        if last <= after {
            return None;
        }
        *told = last;
        Some((after, last))
    }
}

impl State {
    /// Sends receipts for what a device of `account` has acknowledged.
    pub(crate) fn delivered(
        &mut self,
        account: AccountId,
        taken: Acknowledged,
        now_ms: u64,
        outcome: &mut Outcome,
    ) {
        for stretch in taken.into_stretches() {
            let Some(outbox) = self.accounts.get_mut(&account) else {
                return;
            };
            let collapsed = outbox.collapsed();
            let Some((after, upto)) = outbox.receipts.tell(stretch.sender, stretch.first, stretch.last)
            else {
                continue;
            };
            self.receipt(stretch.sender, account, (after, upto), collapsed, now_ms, outcome);
        }
    }

    fn receipt(
        &mut self,
        sender: AccountId,
        account: AccountId,
        (mut after, upto): (Position, Position),
        collapsed: Position,
        now_ms: u64,
        outcome: &mut Outcome,
    ) {
        if !self.accounts.get(&sender).is_some_and(|outbox| outbox.has_devices()) {
            return;
        }
        let position = self.next_position();
        let stamp = self.clock.tick(now_ms);
        let origin = self.origin.0;
        let outbox = self.accounts.entry(sender).or_default();
        // Between an unwritten receipt and this one lies nothing unacknowledged, unless it was collapsed.
        if let Some(earlier) =
            outbox.receipts.unwritten.remove(&account).filter(|earlier| earlier.upto >= collapsed)
        {
            outbox.withdraw(sender, earlier.position, outcome);
            after = earlier.after.min(after);
        }
        let receipt = v1::Receipt {
            kind: v1::ReceiptKind::Delivered as i32,
            account: account.to_bytes(),
            origin,
            after: after.0,
            upto: upto.0,
        };
        let body = Some(v1::event::Body::Receipt(receipt));
        let event = v1::Event { origin, position: position.0, stamp: stamp.0, body };
        let down = v1::FeedDown { frame: Some(v1::feed_down::Frame::Event(event)) };
        let note = Note::Receipt { account, after, upto };
        let event = Arc::new(StoredEvent { position, note, frame: frame::to_bytes(&down) });
        outcome.entries.push(Entry::Event { event: event.clone(), accounts: vec![sender] });
        outbox.receipts.unwritten.insert(account, Unwritten { position, after, upto });
        outbox.append(sender, &event, outcome);
    }
}
