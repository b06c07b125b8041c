//! The store of a simulated daemon: the in-memory twin, plus what the port allows when the process dies.
//!
//! What was appended is not there before a sync, and a process may die with any number of batches in between. A store recovers
//! a prefix of what it wrote, and writes events and sends first, then the counters, then what takes away. So a torn batch is
//! nothing, or all that it added and any prefix of what it takes away; and nothing behind a torn batch is there.

use std::sync::Arc;

use quail_core::ports::outbox::{Batch, Entry, Outbox, Recovered, StoredEvent, TwinOutbox};
use quail_core::{Effect, State};
use quail_protocol::id::{Origin, Position, Stamp};
use quail_protocol::v1::{self, feed_down::Frame};

use crate::random::Random;

/// A batch that was appended.
struct Appended {
    entries: Vec<Entry>,
    last_position: Position,
    last_stamp: Stamp,
}

#[derive(Default)]
pub(crate) struct Store {
    twin: TwinOutbox,
    /// Not synced yet.
    appended: Vec<Appended>,
    /// Everything that was ever committed, so that an older state can be had again.
    committed: Vec<Appended>,
}

impl Store {
    /// What a new process finds: nothing of what was not synced.
    pub(crate) fn recover(&mut self) -> Recovered {
        self.appended.clear();
        self.twin.reopen().1
    }

    pub(crate) fn append(&mut self, state: &State, entries: &[Entry]) {
        let Batch { last_position, last_stamp, .. } = state.batch(entries);
        self.appended.push(Appended { entries: entries.to_vec(), last_position, last_stamp });
    }

    /// Makes everything durable that was appended.
    pub(crate) fn sync(&mut self) {
        std::mem::take(&mut self.appended).into_iter().for_each(|batch| self.commit(batch));
    }

    fn commit(&mut self, batch: Appended) {
        let Appended { entries, last_position, last_stamp } = &batch;
        let (last_position, last_stamp) = (*last_position, *last_stamp);
        self.twin.commit(Batch { entries, last_position, last_stamp }).unwrap();
        self.committed.push(batch);
    }

    /// How many states there were.
    pub(crate) fn states(&self) -> usize {
        self.committed.len()
    }

    /// Becomes what it was when so many batches were durable, as when a backup is put in its place; with none, when it is set aside.
    pub(crate) fn restore(&mut self, state: usize) {
        self.twin = TwinOutbox::new();
        self.appended.clear();
        let older = std::mem::take(&mut self.committed);
        older.into_iter().take(state).for_each(|batch| self.commit(batch));
    }

    /// Dies inside the sync: some batches are whole, one is torn. Returns for each batch which entries are there after
    /// recovery.
    pub(crate) fn tear(&mut self, random: &mut Random) -> Vec<Vec<bool>> {
        let appended = std::mem::take(&mut self.appended);
        let whole = random.below(appended.len() as u64) as usize;
        let mut survives = Vec::new();
        for (index, Appended { entries, last_position, last_stamp }) in appended.into_iter().enumerate() {
            if index < whole {
                survives.push(vec![true; entries.len()]);
                self.commit(Appended { entries, last_position, last_stamp });
            } else if index > whole || random.per_mille(300) {
                survives.push(vec![false; entries.len()]);
            } else {
                let (kept, survived) = torn(&entries, random);
                self.commit(Appended { entries: kept, last_position, last_stamp });
                survives.push(survived);
            }
        }
        survives
    }

    /// Does what [`Effect::Read`] asks for. What another origin accepted is read as an event of this one.
    pub(crate) fn read(&self, read: &Effect, origin: Origin) -> Vec<Arc<StoredEvent>> {
        let Effect::Read { account, stretch, .. } = read else {
            return Vec::new();
        };
        let events = self.twin.reader().read(*account, *stretch).unwrap();
        events.into_iter().map(|event| under(origin, event)).collect()
    }
}

fn under(origin: Origin, event: Arc<StoredEvent>) -> Arc<StoredEvent> {
    let mut down: v1::FeedDown = prost::Message::decode_length_delimited(event.frame.clone()).unwrap();
    let Some(Frame::Event(inner)) = &mut down.frame else { panic!("no event in the frame") };
    if inner.origin == origin.0 {
        return event;
    }
    inner.origin = origin.0;
    let frame = prost::Message::encode_length_delimited_to_vec(&down).into();
    Arc::new(StoredEvent { frame, ..(*event).clone() })
}

/// Returns what is left of a torn batch, and which entries that are.
fn torn(entries: &[Entry], random: &mut Random) -> (Vec<Entry>, Vec<bool>) {
    let adds = |entry: &Entry| matches!(entry, Entry::Event { .. } | Entry::Sent { .. });
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
    (kept, survives)
}
