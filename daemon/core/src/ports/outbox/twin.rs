//! The outbox in memory: the reference for what every store must do, and the store of simulations.
//!
//! "Durable" here means: it is in the shared map, which outlives the twin that wrote it. [`TwinOutbox::reopen`] is a
//! restart: what was appended and not synced is gone then. Nothing is ever torn; stores that can tear have tests of their
//! own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quail_protocol::id::{AccountId, DeviceId, Position, Stamp};
use quail_protocol::limits::SENDS_UNANSWERED_MAX;

use super::{
    BacklogReader, Batch, DeviceRecord, Entry, Outbox, RecentSend, Recovered, Slot, StoreError, StoredEvent,
    Stretch, Syncer,
};

#[derive(Default)]
struct Tables {
    recovered: Recovered,
    events: BTreeMap<(AccountId, Position), Arc<StoredEvent>>,
    devices: BTreeMap<DeviceId, (AccountId, DeviceRecord)>,
    sends: BTreeMap<(DeviceId, u64), RecentSend>,
    collapsed: BTreeMap<AccountId, Position>,
    /// Appended and not synced.
    pending: Vec<(Vec<Entry>, Position, Stamp)>,
}

/// An outbox in memory.
#[derive(Clone, Default)]
pub struct TwinOutbox {
    tables: Arc<Mutex<Tables>>,
}

impl TwinOutbox {
    /// Returns an empty outbox.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns what a process that opened this outbox now would find.
    pub fn reopen(&self) -> (Self, Recovered) {
        let mut tables = self.lock();
        tables.pending.clear();
        let recovered = Recovered {
            last_position: tables.recovered.last_position,
            last_stamp: tables.recovered.last_stamp,
            devices: tables
                .devices
                .iter()
                .map(|(device, (account, record))| (*account, *device, *record))
                .collect(),
            sends: tables.sends.iter().map(|((device, _), send)| (*device, *send)).collect(),
            slots: tables
                .events
                .iter()
                .map(|((account, position), event)| {
                    (*account, Slot { position: *position, bytes: event.frame.len() as u32 })
                })
                .collect(),
            collapsed: tables.collapsed.iter().map(|(account, upto)| (*account, *upto)).collect(),
        };
        (self.clone(), recovered)
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        // A panic while the lock was held is a failed test already; the maps are whole between two inserts.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Event { event, accounts } => {
                for account in accounts {
                    self.events.insert((*account, event.position), event.clone());
                }
            }
            Entry::Sent { device, send } => {
                self.sends.insert((*device, send.number), *send);
                let window = (*device, 0)..=(*device, u64::MAX);
                while self.sends.range(window.clone()).count() > SENDS_UNANSWERED_MAX {
                    let Some(oldest) = self.sends.range(window.clone()).next().map(|(key, _)| *key) else {
                        break;
                    };
                    self.sends.remove(&oldest);
                }
            }
            Entry::Device { account, device, record } => {
                self.devices.insert(*device, (*account, *record));
            }
            Entry::DeviceGone { device, .. } => {
                self.devices.remove(device);
                self.sends.retain(|(owner, _), _| owner != device);
            }
            Entry::Resolved { account, upto } => {
                let gone = (*account, Position::ZERO)..=(*account, *upto);
                let gone: Vec<_> = self.events.range(gone).map(|(key, _)| *key).collect();
                for key in gone {
                    self.events.remove(&key);
                }
            }
            Entry::Withdrawn { account, position } => {
                self.events.remove(&(*account, *position));
            }
            Entry::Collapsed { account, upto } => {
                self.collapsed.insert(*account, *upto);
            }
        }
    }
}

impl Outbox for TwinOutbox {
    fn append(&mut self, batch: Batch<'_>) -> Result<(), StoreError> {
        let entries = batch.entries.to_vec();
        self.lock().pending.push((entries, batch.last_position, batch.last_stamp));
        Ok(())
    }

    fn syncer(&self) -> Box<dyn Syncer> {
        Box::new(self.clone())
    }

    fn reader(&self) -> Arc<dyn BacklogReader> {
        Arc::new(self.clone())
    }
}

impl Syncer for TwinOutbox {
    fn sync(&mut self) -> Result<(), StoreError> {
        let mut tables = self.lock();
        for (entries, last_position, last_stamp) in std::mem::take(&mut tables.pending) {
            for entry in &entries {
                tables.apply(entry);
            }
            tables.recovered.last_position = last_position;
            tables.recovered.last_stamp = last_stamp;
        }
        Ok(())
    }
}

impl BacklogReader for TwinOutbox {
    fn read(&self, account: AccountId, stretch: Stretch) -> Result<Vec<Arc<StoredEvent>>, StoreError> {
        let Stretch { after, upto, events_max, bytes_max } = stretch;
        if upto <= after {
            return Ok(Vec::new());
        }
        let tables = self.lock();
        let mut bytes = 0;
        let range = (account, after.next())..=(account, upto);
        let events = tables.events.range(range).map(|(_, event)| event).take(events_max);
        Ok(events
            .take_while(|event| {
                let first = bytes == 0;
                bytes += event.frame.len();
                first || bytes <= bytes_max
            })
            .cloned()
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::outbox::conformance;

    struct Shared(TwinOutbox);

    impl conformance::Fixture for Shared {
        type Store = TwinOutbox;

        fn open(&mut self) -> (TwinOutbox, Recovered) {
            self.0.reopen()
        }
    }

    #[test]
    fn the_twin_conforms() {
        conformance::check(|| Shared(TwinOutbox::new()));
    }
}
