//! The store of a simulated daemon: the in-memory twin, plus what the port allows when the process dies inside a commit.
//!
//! A store recovers a prefix of what it wrote, and writes events and sends first, then the counters, then what takes away.
//! So a torn batch is nothing, or all that it added and any prefix of what it takes away.

use std::sync::Arc;

use quail_core::ports::outbox::{Batch, Entry, Outbox, Recovered, StoredEvent, TwinOutbox};
use quail_core::{Effect, State};
use quail_protocol::id::Position;

use crate::random::Random;

#[derive(Default)]
pub(crate) struct Store {
    twin: TwinOutbox,
}

impl Store {
    pub(crate) fn recover(&self) -> Recovered {
        self.twin.reopen().1
    }

    /// Commits the whole batch.
    pub(crate) fn commit(&mut self, state: &State, entries: &[Entry]) {
        self.twin.commit(state.batch(entries)).unwrap();
    }

    /// Dies inside the commit. Returns which entries are there after recovery.
    pub(crate) fn tear(&mut self, state: &State, entries: &[Entry], random: &mut Random) -> Vec<bool> {
        let adds = |entry: &Entry| matches!(entry, Entry::Event { .. } | Entry::Sent { .. });
        if random.per_mille(300) {
            return vec![false; entries.len()];
        }
        let takes = entries.iter().filter(|entry| !adds(entry)).count();
        let mut left = random.below(takes as u64 + 1);
        let mut torn = false;
        let mut kept = Vec::new();
        let mut survives = Vec::new();
        for entry in entries {
            let survived = adds(entry) || left > 0;
            if survived {
                left -= u64::from(!adds(entry));
                kept.push(entry.clone());
            } else if !std::mem::replace(&mut torn, true)
                && let Entry::Resolved { account, upto } = entry
            {
                // Each event is a write of its own.
                let upto = Position(random.below(upto.0 + 1));
                kept.push(Entry::Resolved { account: *account, upto });
            }
            survives.push(survived);
        }
        let Batch { last_position, last_stamp, .. } = state.batch(entries);
        self.twin.commit(Batch { entries: &kept, last_position, last_stamp }).unwrap();
        survives
    }

    /// Does what [`Effect::Read`] asks for.
    pub(crate) fn read(&self, read: &Effect) -> Vec<Arc<StoredEvent>> {
        let Effect::Read { account, stretch, .. } = read else {
            return Vec::new();
        };
        self.twin.reader().read(*account, *stretch).unwrap()
    }
}
