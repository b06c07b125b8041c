//! The events of the last batches, for the archive: it reads along closely, and then needs not read back what was just
//! written.
//!
//! Invariants: batches stand here in order and without a hole, up to the last one appended; whoever is so far behind that
//! the next one is gone from here reads the segments; nothing is handed out before it is durable.

use std::collections::VecDeque;
use std::sync::Arc;

use quail_core::ports::outbox::{Batch, Entry};
use quail_protocol::id::Position;

use super::tail::TailedEvent;

/// Bytes of memory held for the reader; beyond it goes without the oldest. They are held by the outbox anyway as long as
/// nobody acknowledges.
const RECENT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What a batch and an event take beside frames and accounts.
const OVERHEAD_BYTES: usize = 128;

/// One batch.
pub(super) struct RecentBatch {
    pub(super) number: u64,
    /// Its last position.
    pub(super) position: Position,
    /// The segment that its record is in.
    pub(super) sequence: u64,
    /// Where its record ends there.
    pub(super) end: u64,
    pub(super) events: Vec<TailedEvent>,
    /// At least what its frames take.
    pub(super) bytes: usize,
}

/// The last batches.
#[derive(Default)]
pub(super) struct Recent {
    batches: VecDeque<RecentBatch>,
    bytes: usize,
}

impl RecentBatch {
    pub(super) fn new(number: u64, sequence: u64, end: u64, batch: &Batch<'_>) -> Self {
        let event = |entry: &&Entry| matches!(entry, Entry::Event { .. });
        let mut events = Vec::with_capacity(batch.entries.iter().filter(event).count());
        let mut bytes = OVERHEAD_BYTES;
        for entry in batch.entries {
            if let Entry::Event { event, accounts } = entry {
                bytes += OVERHEAD_BYTES + event.frame.len() + size_of_val(&**accounts);
                events.push(TailedEvent { event: Arc::clone(event), accounts: accounts.clone() });
            }
        }
        Self { number, position: batch.last_position, sequence, end, events, bytes }
    }
}

impl Recent {
    /// Takes in the batch that follows the last one.
    pub(super) fn push(&mut self, batch: RecentBatch) {
        self.bytes += batch.bytes;
        self.batches.push_back(batch);
        while self.bytes > RECENT_BYTES_MAX {
            let Some(oldest) = self.batches.pop_front() else { return };
            self.bytes -= oldest.bytes;
        }
    }

    /// Hands out what follows the batch `number` and is durable, which is what ends up to this place of this segment: batches
    /// of at most `max_bytes`, or one. `None` if the next one is gone. What is before it is of no use to anybody any more.
    pub(super) fn after(
        &mut self,
        number: u64,
        durable: (u64, u64),
        max_bytes: usize,
    ) -> Option<Vec<RecentBatch>> {
        let next = number + 1;
        if self.batches.front().is_none_or(|first| first.number > next) {
            return None;
        }
        let (mut batches, mut bytes) = (Vec::new(), 0);
        while let Some(batch) = self.batches.pop_front_if(|batch| {
            let fits = batch.number < next || bytes == 0 || bytes + batch.bytes <= max_bytes;
            fits && (batch.sequence, batch.end) <= durable
        }) {
            self.bytes -= batch.bytes;
            if batch.number >= next {
                bytes += batch.bytes;
                batches.push(batch);
            }
        }
        Some(batches)
    }
}
