//! The settled store: undelivered mail on sled 0.34.7, one spill at a time.
//!
//! One sled database per directory `store-<n>`; the file `current` names the one that counts. One tree each; keys are
//! big-endian so that they sort, values are those of `format.rs`:
//!
//! ```text
//! chunks     account 16 | first position 8    -> up to 128 events, 32 KiB (one larger event is a chunk of its own)
//! index      the same key                     -> positions and lengths of the chunk's events: all that opening reads
//! devices    account 16 | device 16           -> cursor, acked, attach number
//! sends      device 16 | generation 8         -> the sends of that generation, the newest 256
//! accounts   account 16                       -> resolved up to, collapsed up to
//! meta       "mark"                           -> generation, last position, last stamp
//! ```
//!
//! sled is kept on a short leash, because of what was measured on this version: `flush` does not sync on Linux, so every
//! spill ends with an fdatasync on a handle of our own, and the mark is written and synced after all the rest; values stay
//! far below a quarter of a segment, above which sled puts them into files that are never synced; `apply_batch` holds
//! memory many times its size, so there are only plain inserts, from one thread; a half-written snapshot keeps sled from
//! opening although removing it loses nothing, so it is removed; a page that fails its checksum is an error or a panic inside
//! sled, so reads are caught; and sled gives little space back, so a store that holds too much that is dead is rotated: what
//! lives is copied into a new directory.
//!
//! Invariants: what lies above the mark is dropped at open, because the journal has it; a row or event whose bytes are not
//! what was written is named as lost, and nothing is made of it; any error of sled while writing is final for the process.

mod check;
mod format;
mod open;
mod reader;
mod recover;
mod rotate;
mod spill;

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use quail_core::ports::outbox::{Recovered, StoreError};
use quail_protocol::id::{AccountId, DeviceId, Position, Stamp};

pub use check::SettledReport;
pub use open::OpenSettledError;

use super::types::{Lost, Mark, Settled, SettledRead, Sizes, Spill};
use reader::SettledReader;

/// Most events in one chunk.
const CHUNK_EVENTS_MAX: usize = 128;

/// Most bytes of one chunk, unless it is one event.
const CHUNK_BYTES_MAX: usize = 32 * 1024;

/// The trees of one database.
#[derive(Clone)]
struct Trees {
    chunks: sled::Tree,
    index: sled::Tree,
    devices: sled::Tree,
    sends: sled::Tree,
    accounts: sled::Tree,
    meta: sled::Tree,
}

/// One database that is open.
struct Database {
    db: sled::Db,
    trees: Trees,
    /// Our own handle on sled's file, for fdatasync.
    file: File,
    path: PathBuf,
}

/// The writing side of the store; owned by the spill thread.
pub struct SettledStore {
    path: PathBuf,
    number: u64,
    database: Database,
    /// What readers use; it changes when the store is rotated.
    shared: Arc<RwLock<Trees>>,
    /// Databases that were rotated away and may still be read.
    retired: Vec<Database>,
    /// How many chunks an account has; most have none, and cost nothing then.
    chunks: HashMap<AccountId, u32>,
    /// Which generations of a device's sends are kept, with their counts.
    sends: HashMap<DeviceId, Vec<(u64, usize)>>,
    live_bytes: u64,
}

/// What the store held when it was opened.
#[derive(Debug, Default)]
pub struct SettledRecovered {
    /// How far it is.
    pub mark: Mark,
    /// What it holds.
    pub recovered: Recovered,
    /// What of it is damaged.
    pub lost: Vec<Lost>,
    /// What was mended to open it.
    pub repaired: Vec<String>,
}

impl SettledStore {
    /// Makes everything that was written survive a power loss.
    fn sync(&self) -> Result<(), StoreError> {
        self.database.db.flush().map_err(|error| io("flush", error))?;
        self.database.file.sync_data().map_err(|error| io("sync", error))
    }

    fn trees(&self) -> &Trees {
        &self.database.trees
    }
}

impl Settled for SettledStore {
    fn spill(&mut self, spill: &Spill) -> Result<(), StoreError> {
        self.write(spill)
    }

    fn reader(&self) -> Arc<dyn SettledRead> {
        Arc::new(SettledReader::new(self.shared.clone()))
    }

    fn oldest(&self) -> Option<Stamp> {
        self.reader_here().oldest(self.chunks.keys())
    }

    fn older_than(&self, stamp: Stamp) -> Vec<(AccountId, Position)> {
        self.reader_here().older_than(self.chunks.keys(), stamp)
    }

    fn sizes(&self) -> Sizes {
        let disk_bytes = self.database.db.size_on_disk().unwrap_or_default();
        Sizes { disk_bytes, live_bytes: self.live_bytes }
    }

    fn rotate_if_grown(&mut self) -> Result<bool, StoreError> {
        self.rotate_if_due()
    }
}

impl SettledStore {
    fn reader_here(&self) -> SettledReader {
        SettledReader::new(self.shared.clone())
    }
}

fn io(action: &'static str, error: impl std::fmt::Display) -> StoreError {
    StoreError::Io { action, reason: error.to_string() }
}

/// Returns the trees as they are now.
fn current(shared: &RwLock<Trees>) -> Trees {
    shared.read().unwrap_or_else(PoisonError::into_inner).clone()
}

#[cfg(test)]
mod tests;
