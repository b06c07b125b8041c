//! The outbox on sled 0.34.7, written straight through: every sync is inserts, one flush and one fdatasync.
//!
//! Why the fdatasync is ours: sled's `flush` on Linux writes with `pwrite` and `sync_file_range`, which orders writes but
//! does not make them survive a power loss. The store keeps a handle of its own on sled's database file and syncs that.
//!
//! Layout, one tree each; keys are big-endian so that they sort, values begin with a version byte (`format.rs`):
//!
//! ```text
//! events     account 16 | position 8      -> note, frame
//! devices    device 16                    -> account, cursor, acked, attach number
//! sends      device 16 | slot 1           -> the last 256 accepted sends of a device, as a ring
//! collapsed  account 16                   -> position
//! meta       "counters"                   -> last position, last stamp
//! ```
//!
//! Invariants: sled recovers a prefix of what was written, so the order inside a batch decides what a torn batch can look
//! like: first events and sends, then the counters, then what takes away. At open, events and sends above the counters are
//! dropped: their answers were never released. What takes away may be lost with the tail: then a device acknowledges again.

mod format;
mod reader;
mod recover;

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use quail_core::ports::outbox::{BacklogReader, Batch, Entry, Outbox, Recovered, StoreError, Syncer};
use quail_protocol::id::{DeviceId, Position, Stamp};

use crate::ops::metrics::Metrics;
use reader::SledReader;

/// sled's page cache. The store reads what was just written or a backlog once through; more cache buys little.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// The outbox of one data directory.
pub struct SledOutbox {
    store: Arc<Mutex<Store>>,
    events: sled::Tree,
}

struct Store {
    trees: Trees,
    db: sled::Db,
    /// Our own handle on sled's database file, for fdatasync.
    file: File,
    /// Where the next accepted send of a device goes in its ring.
    next_slot: HashMap<DeviceId, u8>,
    /// Appended and not written yet.
    pending: Vec<Pending>,
    metrics: Arc<Metrics>,
}

struct Pending {
    entries: Vec<Entry>,
    last_position: Position,
    last_stamp: Stamp,
}

#[derive(Clone)]
struct Trees {
    events: sled::Tree,
    devices: sled::Tree,
    sends: sled::Tree,
    collapsed: sled::Tree,
    meta: sled::Tree,
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenOutboxError {
    /// The directory or its files cannot be used. The operator must mend permissions or space.
    #[error("cannot open the outbox in {path}: {reason}")]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// What was found is not what was written.
    #[error("cannot recover the outbox in {path}: {source}")]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What was found.
        source: StoreError,
    },
}

impl SledOutbox {
    /// Opens the store in the directory `path`, which is made if it is not there, and returns it with what it holds. Its
    /// syncs are timed in `metrics`.
    ///
    /// # Errors
    /// [`OpenOutboxError`].
    pub fn open(path: &Path, metrics: Arc<Metrics>) -> Result<(Self, Recovered), OpenOutboxError> {
        let unusable = |reason: String| OpenOutboxError::Unusable { path: path.to_owned(), reason };
        let db = sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .mode(sled::Mode::HighThroughput)
            // Every batch is flushed by us; a timer thread would only compete.
            .flush_every_ms(None)
            .open()
            .map_err(|error| unusable(error.to_string()))?;
        let tree = |name: &str| db.open_tree(name).map_err(|error| unusable(error.to_string()));
        let trees = Trees {
            events: tree("events")?,
            devices: tree("devices")?,
            sends: tree("sends")?,
            collapsed: tree("collapsed")?,
            meta: tree("meta")?,
        };
        db.flush().map_err(|error| unusable(error.to_string()))?;
        let file =
            File::options().write(true).open(path.join("db")).map_err(|error| unusable(error.to_string()))?;
        // The directory entry of a new database must be as durable as what will be written to it.
        let directories = [Some(path), path.parent()];
        for directory in directories.into_iter().flatten() {
            File::open(directory)
                .and_then(|file| file.sync_all())
                .map_err(|error| unusable(error.to_string()))?;
        }
        let (recovered, next_slot) = recover::recover(&trees)
            .map_err(|source| OpenOutboxError::Damaged { path: path.to_owned(), source })?;
        let events = trees.events.clone();
        let mut store = Store { trees, db, file, next_slot, pending: Vec::new(), metrics };
        store.sync().map_err(|source| OpenOutboxError::Damaged { path: path.to_owned(), source })?;
        Ok((Self { store: Arc::new(Mutex::new(store)), events }, recovered))
    }
}

impl Store {
    fn put(&mut self, entry: &Entry) -> sled::Result<()> {
        match entry {
            Entry::Event { event, accounts } => {
                let value = format::event(event);
                for account in accounts {
                    self.trees
                        .events
                        .insert(format::event_key(*account, event.position), value.as_slice())?;
                }
            }
            Entry::Sent { device, send } => {
                let slot = self.next_slot.entry(*device).or_default();
                self.trees.sends.insert(format::send_key(*device, *slot), format::send(send))?;
                *slot = slot.wrapping_add(1);
            }
            _ => {}
        }
        Ok(())
    }

    fn take(&mut self, entry: &Entry) -> sled::Result<()> {
        match entry {
            Entry::Event { .. } | Entry::Sent { .. } => {}
            Entry::Device { account, device, record } => {
                self.trees.devices.insert(device.as_bytes(), format::device(*account, record))?;
            }
            Entry::DeviceGone { device, .. } => {
                self.trees.devices.remove(device.as_bytes())?;
                for key in self.trees.sends.scan_prefix(device.as_bytes()).keys() {
                    self.trees.sends.remove(key?)?;
                }
                self.next_slot.remove(device);
            }
            Entry::Resolved { account, upto } => {
                let (first, last) =
                    (format::event_key(*account, Position::ZERO), format::event_key(*account, *upto));
                for key in self.trees.events.range(first..=last).keys() {
                    self.trees.events.remove(key?)?;
                }
            }
            Entry::Withdrawn { account, position } => {
                self.trees.events.remove(format::event_key(*account, *position))?;
            }
            Entry::Collapsed { account, upto } => {
                self.trees.collapsed.insert(account.as_bytes(), format::position(*upto))?;
            }
        }
        Ok(())
    }

    fn write(&mut self, batch: &Pending) -> sled::Result<()> {
        for entry in &batch.entries {
            self.put(entry)?;
        }
        self.trees.meta.insert(format::COUNTERS, format::counters(batch.last_position, batch.last_stamp))?;
        for entry in &batch.entries {
            self.take(entry)?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        for batch in std::mem::take(&mut self.pending) {
            self.write(&batch).map_err(|error| io("write", error))?;
        }
        self.db.flush().map_err(|error| io("flush", error))?;
        if cfg!(feature = "unsynced") {
            return Ok(());
        }
        let began = Instant::now();
        self.file.sync_data().map_err(|error| io("sync", error))?;
        self.metrics.fdatasync_seconds.observe(began.elapsed().as_secs_f64());
        Ok(())
    }
}

impl Outbox for SledOutbox {
    fn append(&mut self, batch: Batch<'_>) -> Result<(), StoreError> {
        let Batch { entries, last_position, last_stamp } = batch;
        lock(&self.store).pending.push(Pending { entries: entries.to_vec(), last_position, last_stamp });
        Ok(())
    }

    fn syncer(&self) -> Box<dyn Syncer> {
        Box::new(SledSyncer(self.store.clone()))
    }

    fn reader(&self) -> Arc<dyn BacklogReader> {
        Arc::new(SledReader::new(self.events.clone()))
    }
}

struct SledSyncer(Arc<Mutex<Store>>);

impl Syncer for SledSyncer {
    fn sync(&mut self) -> Result<(), StoreError> {
        lock(&self.0).sync()
    }
}

/// A panic in between ends the process; until then what is there is whole.
fn lock(store: &Mutex<Store>) -> MutexGuard<'_, Store> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

fn io(action: &'static str, error: impl std::fmt::Display) -> StoreError {
    StoreError::Io { action, reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use quail_core::ports::outbox::conformance;
    use tempfile::TempDir;

    use super::*;

    /// sled gives its lock back a moment after it was dropped, when its own threads are done.
    fn open(path: &Path) -> (SledOutbox, Recovered) {
        let began = Instant::now();
        loop {
            match SledOutbox::open(path, Arc::default()) {
                Err(error) if error.to_string().contains("lock") && began.elapsed().as_secs() < 10 => {
                    std::thread::yield_now();
                }
                opened => return opened.unwrap(),
            }
        }
    }

    struct Directory(TempDir);

    impl conformance::Fixture for Directory {
        type Store = SledOutbox;

        fn open(&mut self) -> (SledOutbox, Recovered) {
            open(&self.0.path().join("outbox"))
        }
    }

    #[test]
    fn the_sled_outbox_conforms() {
        conformance::check(|| Directory(TempDir::new().unwrap()));
    }

    #[test]
    fn what_a_torn_batch_left_above_the_counters_is_dropped() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("outbox");
        let (mut outbox, _) = open(&path);
        let event = |position| Entry::Event {
            event: conformance::event(position, 10),
            accounts: vec![conformance::account(1)].into(),
        };
        let last_position = quail_protocol::id::Position(1);
        let last_stamp = quail_protocol::id::Stamp(1);
        outbox.commit(Batch { entries: &[event(1)], last_position, last_stamp }).unwrap();
        // The process dies between the inserts of the next batch and its counters.
        lock(&outbox.store).put(&event(2)).unwrap();
        drop(outbox);
        let (outbox, recovered) = open(&path);
        assert_eq!(recovered.last_position, last_position);
        assert_eq!(recovered.slots.len(), 1);
        let reader = outbox.reader();
        let events = reader.read(conformance::account(1), conformance::above(0, 10, 1000)).unwrap();
        assert_eq!(events.len(), 1);
    }
}
