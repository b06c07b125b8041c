//! The outbox in memory: the reference for what every store must do, and the store of simulations.
//!
//! "Durable" here means: it is in the shared map, which outlives the twin that wrote it. [`TwinOutbox::reopen`] is a
//! restart. Nothing is ever torn; stores that can tear have tests of their own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quail_protocol::id::{AccountId, DeviceId, Position};
use quail_protocol::limits::SENDS_UNANSWERED_MAX;

use super::{
    BacklogReader, Batch, DeviceRecord, Entry, Outbox, RecentSend, Recovered, Slot, StoreError, StoredEvent,
};

#[derive(Default)]
struct Tables {
    recovered: Recovered,
    events: BTreeMap<(AccountId, Position), Arc<StoredEvent>>,
    devices: BTreeMap<DeviceId, (AccountId, DeviceRecord)>,
    sends: BTreeMap<(DeviceId, u64), RecentSend>,
    collapsed: BTreeMap<AccountId, Position>,
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
        let tables = self.lock();
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
            Entry::Resolved { account, positions } => {
                for position in positions {
                    self.events.remove(&(*account, *position));
                }
            }
            Entry::Collapsed { account, upto } => {
                self.collapsed.insert(*account, *upto);
            }
        }
    }
}

impl Outbox for TwinOutbox {
    fn commit(&mut self, batch: Batch<'_>) -> Result<(), StoreError> {
        let mut tables = self.lock();
        for entry in batch.entries {
            tables.apply(entry);
        }
        tables.recovered.last_position = batch.last_position;
        tables.recovered.last_stamp = batch.last_stamp;
        Ok(())
    }

    fn reader(&self) -> Arc<dyn BacklogReader> {
        Arc::new(self.clone())
    }
}

impl BacklogReader for TwinOutbox {
    fn read(
        &self,
        account: AccountId,
        after: Position,
        events_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let tables = self.lock();
        let mut bytes = 0;
        let range = (account, after.next())..=(account, Position(u64::MAX));
        let events = tables.events.range(range).map(|(_, event)| event).take(events_max);
        Ok(events
            .take_while(|event| {
                let first = bytes == 0;
                bytes += event.frame.len();
                first || bytes <= bytes_max
            })
            .map(|event| StoredEvent::clone(event))
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
