//! What an account remembers of receipts, so that none is told twice and the unseen ones become one.
//!
//! All of it lies in memory and is bounded: the receipts themselves are events, and what is forgotten here costs a second
//! receipt. It also answers what an account got of a sender's messages. Of what was acknowledged before this process began
//! there is no record but how far it went, and of that only the devices know what it was: there a device is taken at its word.
//!
//! Invariant: a stretch covers nothing that was collapsed to a gap, unless this process saw that it was acknowledged before.

use std::collections::HashMap;

use quail_protocol::id::{AccountId, DeviceId, Position};

use crate::id_map::IdMap;

/// Most senders whose stretches an account keeps in memory. Losing them costs second receipts, nothing else.
const SENDERS_MAX: usize = 1024;

/// Most stretches that are remembered per sender. They merge as devices catch up; losing one costs a second receipt.
const STRETCHES_MAX: usize = 4;

/// Positions above the first, up to and including the second.
pub(super) type Stretch = (Position, Position);

/// What an account remembers of receipts, in both roles.
#[derive(Debug, Default)]
pub(crate) struct ReceiptBook {
    /// As recipient: for which messages `delivered` was told.
    pub(super) delivered: Told,
    /// As recipient: which messages were said to be read.
    pub(super) read: Told,
    /// Up to here devices have acknowledged what this process did not see them acknowledge.
    unseen: Position,
    /// The receipts that no device of this account has been shown. Each stands for an event in the outbox.
    unwritten: HashMap<About, Unwritten>,
}

/// What a receipt in an outbox is about. Of each there is at most one that no device was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum About {
    /// A recipient got messages of the account.
    Delivered(AccountId),
    /// A recipient read messages of the account.
    Read(AccountId),
    /// A device of the account read messages of somebody.
    OwnRead(AccountId),
}

/// A receipt that no device was shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unwritten {
    pub(super) position: Position,
    pub(super) stretch: Stretch,
    /// The device that need not be told, because it said so itself; `None` where all are.
    pub(super) by: Option<DeviceId>,
}

/// By sender, the stretches that were told.
#[derive(Debug, Default)]
pub(super) struct Told {
    senders: IdMap<AccountId, Stretches>,
    /// Stretches that were forgotten end here or below.
    forgotten: Position,
}

/// Stretches that do not touch, in any order.
#[derive(Debug, Default)]
struct Stretches(Vec<Stretch>);

impl Stretches {
    /// Adds a stretch and returns what of it is worth a receipt, which is what lies above the told stretch that it begins in;
    /// and where the stretch ends that had to make room.
    fn add(&mut self, (after, upto): Stretch) -> (Option<Stretch>, Option<Position>) {
        let begins_in = self.0.iter().find(|told| told.0 <= after && after <= told.1);
        let from = begins_in.map_or(after, |told| told.1);
        if upto <= from {
            return (None, None);
        }
        let mut whole = (after, upto);
        self.0.retain(|told| {
            let touches = touches(*told, whole);
            if touches {
                whole = join(whole, *told);
            }
            !touches
        });
        let forgotten = (self.0.len() >= STRETCHES_MAX).then(|| self.0.remove(0).1);
        self.0.push(whole);
        (Some((from, upto)), forgotten)
    }
}

impl Told {
    /// Takes note that a stretch of a sender's messages is told and returns what of it was not told before.
    pub(super) fn tell(&mut self, sender: AccountId, stretch: Stretch) -> Option<Stretch> {
        if self.senders.len() >= SENDERS_MAX && !self.senders.contains_key(&sender) {
            let ends = self.senders.values().flat_map(|told| told.0.iter().map(|stretch| stretch.1));
            self.forgotten = ends.fold(self.forgotten, Position::max);
            self.senders.clear();
        }
        let (untold, forgotten) = self.senders.entry(sender).or_default().add(stretch);
        self.forgotten = self.forgotten.max(forgotten.unwrap_or(Position::ZERO));
        untold
    }

    /// Returns the parts of a stretch that were told.
    fn parts(&self, sender: AccountId, (after, upto): Stretch) -> impl Iterator<Item = Stretch> {
        let told = self.senders.get(&sender).into_iter().flat_map(|told| told.0.iter());
        told.map(move |told| (told.0.max(after), told.1.min(upto))).filter(|(after, upto)| after < upto)
    }
}

impl ReceiptBook {
    /// Takes note that a device has acknowledged up to here, and this process did not see what.
    pub(crate) fn acknowledged_unseen(&mut self, upto: Position) {
        self.unseen = self.unseen.max(upto);
    }

    /// Takes note that the event at `position` goes to a device, and must not be changed from now on.
    pub(crate) fn written(&mut self, position: Position) {
        if !self.unwritten.is_empty() {
            self.unwritten.retain(|_, receipt| receipt.position != position);
        }
    }

    /// Returns what of a stretch of a sender's messages the account got: what it acknowledged, as far as this process saw
    /// that, and above what was `collapsed` whatever it acknowledged unseen. Rising, without overlaps.
    pub(super) fn got(&self, sender: AccountId, stretch: Stretch, collapsed: Position) -> Vec<Stretch> {
        let unseen = self.unseen.max(self.delivered.forgotten);
        let at_its_word = (stretch.0.max(collapsed), stretch.1.min(unseen));
        let mut parts: Vec<_> = self.delivered.parts(sender, stretch).collect();
        parts.extend(Some(at_its_word).filter(|(after, upto)| after < upto));
        parts.sort_unstable();
        let mut got: Vec<Stretch> = Vec::with_capacity(parts.len());
        for part in parts {
            match got.last_mut() {
                Some(last) if touches(*last, part) => *last = join(*last, part),
                _ => got.push(part),
            }
        }
        got
    }

    /// Takes out the receipt that no device was shown, if a new one of the same kind touches it and so can take its place. One
    /// that it does not touch stays in the outbox as it is.
    pub(super) fn take_unwritten(&mut self, about: About, stretch: Stretch) -> Option<Unwritten> {
        self.unwritten.remove(&about).filter(|earlier| touches(earlier.stretch, stretch))
    }

    /// Takes note of a receipt that no device was shown yet.
    pub(super) fn set_unwritten(&mut self, about: About, receipt: Unwritten) {
        self.unwritten.insert(about, receipt);
    }
}

fn touches(one: Stretch, other: Stretch) -> bool {
    one.0 <= other.1 && other.0 <= one.1
}

/// Returns the stretch over two that touch.
pub(super) fn join(one: Stretch, other: Stretch) -> Stretch {
    (one.0.min(other.0), one.1.max(other.1))
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
