//! Delivered: the sender learns how far a recipient's devices have acknowledged.
//!
//! A receipt names a stretch of positions, not a single mark: a stretch never covers what the recipient did not get, so a
//! gap between two acknowledged messages is a border between two stretches. Devices of one account are not equally far, and
//! a new one begins in the middle: what it acknowledged says nothing of what lies before its start, which an older device
//! may acknowledge later. While a receipt has not been written to any device of the sender, the next one of the same
//! recipient that touches it replaces it by both together, so that a sender who is away finds one receipt per conversation
//! and not one per acknowledgement.

use std::collections::HashMap;
use std::sync::Arc;

use quail_protocol::id::{AccountId, Position};
use quail_protocol::{frame, v1};
use smallvec::smallvec;

use crate::command::Outcome;
use crate::outbox::Acknowledged;
use crate::ports::outbox::{Entry, Note, StoredEvent};
use crate::state::State;

/// Most senders whose marker an account keeps in memory. Losing one costs a second receipt, nothing else.
const MARKERS_MAX: usize = 1024;

/// Most stretches that are remembered per sender. They merge as devices catch up; losing one costs a second receipt.
const STRETCHES_MAX: usize = 4;

/// What an account remembers of receipts, in both roles.
#[derive(Debug, Default)]
pub(crate) struct ReceiptBook {
    /// As recipient: by sender, the stretches for which `delivered` was told.
    told: HashMap<AccountId, Told>,
    /// As sender: by recipient, the receipt that no device has been shown. Each stands for an event in the outbox.
    unwritten: HashMap<AccountId, Unwritten>,
}

/// Stretches `(after, upto]` that do not touch, in any order.
#[derive(Debug, Default)]
struct Told(Vec<(Position, Position)>);

impl Told {
    /// Adds a stretch and returns what of it is worth a receipt: what lies above the told stretch that it begins in.
    fn add(&mut self, after: Position, upto: Position) -> Option<(Position, Position)> {
        let begins_in = self.0.iter().find(|told| told.0 <= after && after <= told.1);
        let from = begins_in.map_or(after, |told| told.1);
        if upto <= from {
            return None;
        }
        let mut whole = (after, upto);
        self.0.retain(|told| {
            let touches = told.0 <= upto && after <= told.1;
            if touches {
                whole = (whole.0.min(told.0), whole.1.max(told.1));
            }
            !touches
        });
        if self.0.len() >= STRETCHES_MAX {
            self.0.remove(0);
        }
        self.0.push(whole);
        Some((from, upto))
    }
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

    fn tell(&mut self, sender: AccountId, after: Position, upto: Position) -> Option<(Position, Position)> {
        if self.told.len() >= MARKERS_MAX && !self.told.contains_key(&sender) {
            self.told.clear();
        }
        self.told.entry(sender).or_default().add(after, upto)
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
            let (before, collapsed) = (Position(stretch.first.0 - 1), outbox.collapsed());
            // Of what was collapsed only what stands in the stretch itself is known to have been taken.
            let after = if collapsed <= before { stretch.since.max(collapsed) } else { before };
            let Some(untold) = outbox.receipts.tell(stretch.sender, after, stretch.last) else {
                continue;
            };
            self.receipt(stretch.sender, account, untold, now_ms, outcome);
        }
    }

    fn receipt(
        &mut self,
        sender: AccountId,
        account: AccountId,
        (mut after, mut upto): (Position, Position),
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
        let touches = |earlier: &Unwritten| earlier.after <= upto && after <= earlier.upto;
        if let Some(earlier) = outbox.receipts.unwritten.remove(&account).filter(touches) {
            outbox.withdraw(sender, earlier.position, outcome);
            (after, upto) = (earlier.after.min(after), earlier.upto.max(upto));
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
        outcome.entries.push(Entry::Event { event: event.clone(), accounts: smallvec![sender] });
        outbox.receipts.unwritten.insert(account, Unwritten { position, after, upto });
        outbox.append(sender, &event, outcome);
    }
}
