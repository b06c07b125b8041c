//! The settled store: what is not acknowledged soon, in sled.
//!
//! One sled 0.34.7 database per directory `store-<n>/`; the file `current`, replaced atomically, names the one that counts.
//! Keys are big-endian so that they sort; values begin with a version byte and end with a CRC32 (`format.rs`, `chunk.rs`).
//!
//! ```text
//! <outbox>/settled/current          "settled 1 store-<n> <CRC32>"
//! <outbox>/settled/store-<n>/mark   how far the store is, beside sled (marks.rs)
//! <outbox>/settled/store-<n>/...    sled's own files, and these trees in them:
//!
//! chunks     row number 8                  -> a piece of a chunk: up to 128 events and 16 KiB of one account
//! index      account 16 | first position 8 -> row number, pieces, per event (position delta, frame length)
//! devices    account 16 | device 16        -> cursor, acked, attach number
//! sends      device 16 | generation 8      -> the accepted sends of that generation
//! accounts   account 16                    -> resolved up to (while a chunk is resolved in part), collapsed up to
//! meta       "mark"                        -> generation, last position, last stamp, next row number, sums of the trees
//!            "spilling"                    -> the generation that is or was being written
//!            "lost"                        -> what a repair could not save, until it was told
//! ```
//!
//! Why chunks are numbered and not keyed by account: what a spill brings then lies at the end of the tree, whose pages are at
//! hand. Keyed by account it would lie all over the tree, every insert would read a page of 100 KiB from the disk, and sled's
//! cache would hold those pages. The index, which is small, is what is sorted by account.
//!
//! What is known of sled 0.34.7, by its source and by the tests in `tests/damage.rs`, and what is done about it:
//!
//! - A flipped bit in a page that lies before the last snapshot is an error when the page is read, never wrong bytes: sled
//!   checks a CRC32. Writing fails too once sled wants to move the page. The store is then read from its log (`log.rs`,
//!   `raw.rs`) into a fresh one: by the spill thread when a reader met the page, at the next opening when a spill did.
//! - Behind the last snapshot, which sled writes only when it is opened, a flipped bit is silence: sled goes on with the next
//!   segment and drops up to 2 MiB, or panics while it opens ("tried to serialize Uninitialized"), and overwrites what it
//!   takes for a torn end. So that part of the log is surveyed before sled sees it. A damaged one is read without sled.
//! - Of some hundred flips, each costs at most the events of the message it hits: mostly one chunk, at worst a page of 16. A cut
//!   file costs what was cut off, and as nobody knows what that was, all outboxes are named as lost.
//! - What is missing or stale without a trace (a message that sled dropped, a spill whose end is gone) shows in the sums over all
//!   rows, which stand with the mark, once more in a file outside of sled.
//! - An unfinished snapshot, a short one, a flipped bit in one or in `conf`: sled refuses to open. All are made again. A
//!   missing snapshot or `conf` sled makes itself.
//! - Pages above a quarter of a segment become files in `blobs/`, which sled never syncs: the limit holds for whole pages of up
//!   to 17 rows, not for values. Hence pieces of 16 KiB and segments of 2 MiB.
//! - A page is written anew on every eleventh change of it and on every split, so that filling a tree in order writes
//!   each byte three times and leaves half of the file as garbage. Rows are therefore made empty first (`spill.rs`): the
//!   file is 1.2 times its content then.
//! - What remains: between its flushes sled orders writes with `sync_file_range` only. A power loss during a spill, on a disk that
//!   reorders what is in its cache, can cost settled pages that sled was moving. The sums cannot be checked then, because a spill
//!   was cut short; what of it is seen is a chunk that cannot be read, which is named as lost.

mod check;
mod chunk;
mod database;
mod fault;
mod format;
mod held;
mod load;
mod log;
mod marks;
mod open;
mod port;
mod raw;
mod read;
mod rotate;
mod sends;
mod spill;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use quail_core::ports::outbox::{Recovered, StoreError};

use super::types::{Lost, Mark, Sizes, Spill};
pub use check::{CheckReport, check};
use database::Database;
use fault::{Fault, guarded};
use held::Held;
use marks::MarkFile;
pub use open::OpenSettledError;
pub use read::{ReadSettledError, SettledRead, SettledReader};

/// sled's page cache, in bytes. What is written is at the end of its tree and what is read is read once through: more buys
/// little, and sled lets it grow to about twice its size before it counts again.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;

/// A store whose files are so many times larger than what they hold is copied into a fresh one.
const ROTATE_FACTOR: u64 = 4;

/// What a store may take beside that, in bytes.
const ROTATE_SLACK_BYTES: u64 = 64 * 1024 * 1024;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct SettledOptions {
    /// sled's page cache, in bytes.
    pub cache_bytes: u64,
}

impl Default for SettledOptions {
    fn default() -> Self {
        Self { cache_bytes: CACHE_BYTES }
    }
}

/// What a store held when it was opened.
#[derive(Clone, Debug)]
pub struct SettledRecovered {
    /// How far the store is. Generations above are in the journal.
    pub mark: Mark,
    /// What it holds.
    pub recovered: Recovered,
    /// What it should hold and does not. It is named at every opening until a spill was written after it, by when its
    /// telling must be durable.
    pub lost: Vec<Lost>,
    /// Whether it was made just now.
    pub is_new: bool,
    /// For the operator: what was found broken and mended.
    pub repaired: Vec<String>,
}

/// What a spill did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpillReport {
    /// Chunks written.
    pub chunks: u64,
    /// Bytes of those chunks.
    pub bytes: u64,
    /// Chunks removed because all of their events were resolved.
    pub deleted: u64,
}

/// The writing side of the settled store; owned by the spill thread.
pub struct SettledStore {
    path: PathBuf,
    options: SettledOptions,
    number: u64,
    database: Arc<Database>,
    /// The database readers take; replaced when the store is rotated.
    shared: Arc<RwLock<Arc<Database>>>,
    held: Held,
    file: MarkFile,
}

impl SettledStore {
    /// Opens the store in the directory `path`, which is made if it is not there. Rows above the mark are dropped. A store that
    /// is damaged and can be read in part is copied into a fresh one; what could not be saved is `lost`, at once or when it is
    /// read.
    ///
    /// # Errors
    /// [`OpenSettledError`].
    pub fn open(path: &Path, options: SettledOptions) -> Result<(Self, SettledRecovered), OpenSettledError> {
        open::open(path, options)
    }

    /// Writes what is left of a generation and makes it durable, then the mark. The process that dies in between finds the
    /// mark before or after; the journal still has the generation in the first case.
    ///
    /// # Errors
    /// [`StoreError`]; the store is not to be used any more, it must be opened again. Damage that stood in the way is then
    /// left behind.
    pub fn spill(&mut self, spill: &Spill) -> Result<SpillReport, StoreError> {
        let (database, held, file) = (&self.database, &mut self.held, &self.file);
        let written = guarded(|| spill::write(database, held, file, spill));
        written.map_err(|fault| self.given_up("write", &fault))
    }

    fn given_up(&self, action: &'static str, fault: &Fault) -> StoreError {
        if fault.is_damage() {
            open::leave_note(self.database.directory(), fault);
        }
        fault.to_store_error(action)
    }

    /// Returns a reader, for any thread. The store stays locked until its last reader is gone too.
    pub fn reader(&self) -> SettledReader {
        SettledReader::new(self.shared.clone())
    }

    /// Returns how far the store is.
    pub fn mark(&self) -> Mark {
        self.held.settled.mark
    }

    /// Returns how large the store is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn size(&self) -> Result<Sizes, StoreError> {
        let disk_bytes = self.database.disk_bytes().map_err(|fault| fault.to_store_error("measure"))?;
        Ok(Sizes { disk_bytes, live_bytes: self.held.live_bytes })
    }

    /// Copies the store into a fresh one if its files have grown out of proportion or a reader or a spill met a damaged page.
    /// Returns whether it did. Readers go on meanwhile; the old files go when the last of them is done. To be called after
    /// every spill, and every few seconds when there is none: readers wait for a damaged page to be mended.
    ///
    /// # Errors
    /// [`StoreError`]; the store is as before and must be opened again.
    pub fn rotate_if_grown(&mut self) -> Result<bool, StoreError> {
        let Sizes { disk_bytes, live_bytes } = self.size()?;
        let most = ROTATE_FACTOR.saturating_mul(live_bytes).saturating_add(ROTATE_SLACK_BYTES);
        let is_grown = disk_bytes > crate::ops::failpoint::setting("QUAIL_ROTATE_BYTES", most);
        if !is_grown && !self.database.is_damaged() {
            return Ok(false);
        }
        self.rotate().map_err(|fault| self.given_up("copy", &fault))?;
        Ok(true)
    }

    /// Copies the store into a fresh one.
    fn rotate(&mut self) -> Result<(), Fault> {
        let number = self.number + 1;
        let fresh = rotate::fresh(&self.path, number, &self.options)?;
        let mut copied = if self.database.is_damaged() {
            // sled cannot read around the damage; its log can be read without it.
            let basis = load::Basis { settled: self.held.settled, is_between: false };
            rotate::salvage(&raw::RawStore::read(self.database.directory())?, &fresh, &basis)?
        } else {
            rotate::copy(&self.database, &fresh, self.held.settled.mark)?
        };
        let file = rotate::finish(&fresh, &mut copied.held)?;
        open::point_to(&self.path, number)?;
        crate::ops::failpoint::reached("settled-rotate-switched");
        let fresh = Arc::new(fresh);
        let old = std::mem::replace(&mut self.database, fresh.clone());
        *self.shared.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        old.retire();
        (self.number, self.held, self.file) = (number, copied.held, file);
        Ok(())
    }

    /// Checks what must always hold of the files, and names what does not.
    ///
    /// # Errors
    /// What does not hold, for the operator.
    pub fn health(&self) -> Result<(), String> {
        match self.database.beside_the_log() {
            Ok(None) => Ok(()),
            // A page outgrew what sled keeps in its log.
            Ok(Some(path)) => Err(format!("{} is a file that sled never syncs", path.display())),
            Err(fault) => Err(fault.to_string()),
        }
    }
}
