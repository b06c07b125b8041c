//! Packets under way: what arrives later, ordered by when.
//!
//! Invariants: at most [`LATE_PACKETS_MAX`]; what is due at the same moment leaves in the order in which it came.

use std::collections::BTreeMap;
use std::time::Instant;

/// Most packets under way in one network: 20,000 a second for 0.8 s. More are dropped, as a router would.
pub const LATE_PACKETS_MAX: usize = 16_384;

/// What is under way.
pub(super) struct Late<T> {
    /// By time and number; the first is due first.
    waiting: BTreeMap<(Instant, u64), T>,
    number: u64,
}

impl<T> Late<T> {
    pub(super) fn new() -> Self {
        Self { waiting: BTreeMap::new(), number: 0 }
    }

    /// Takes a packet in, and returns whether there was room.
    pub(super) fn push(&mut self, due: Instant, packet: T) -> bool {
        if self.waiting.len() >= LATE_PACKETS_MAX {
            return false;
        }
        self.number += 1;
        self.waiting.insert((due, self.number), packet);
        true
    }

    /// Takes out the first packet that is due.
    pub(super) fn pop(&mut self, now: Instant) -> Option<T> {
        let first = self.waiting.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// Returns when the next one is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|((due, _), _)| *due)
    }
}
