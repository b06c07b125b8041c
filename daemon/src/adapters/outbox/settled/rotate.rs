//! Rotation: sled gives little space back, so what lives is copied into a fresh directory now and then.
//!
//! Invariant: the pointer to the current directory is changed when the copy is whole and synced; whichever directory it does
//! not name is removed at the next open.

use std::fs;
use std::sync::PoisonError;

use quail_core::ports::outbox::StoreError;

use super::open::{name, open_database, point};
use super::{Database, SettledStore, Trees, format, io};
use crate::ops::failpoint::{reached, setting};

/// A store is rotated when it takes so many times what lives in it...
const GROWTH_MAX: u64 = 4;

/// ...and so many bytes beyond that: a small one is not worth it.
const GROWTH_BYTES: u64 = 64 * 1024 * 1024;

/// How many bytes are copied between two flushes, which keep sled's buffers small.
const FLUSH_BYTES: usize = 8 * 1024 * 1024;

impl SettledStore {
    pub(super) fn rotate_if_due(&mut self) -> Result<bool, StoreError> {
        let disk = self.database.db.size_on_disk().map_err(|error| io("measure", error))?;
        let due = disk > setting("QUAIL_ROTATE_BYTES", GROWTH_MAX * self.live_bytes + GROWTH_BYTES);
        if due {
            self.rotate()?;
        }
        Ok(due)
    }

    /// Copies what lives into a fresh directory, which becomes the current one.
    pub(super) fn rotate(&mut self) -> Result<(), StoreError> {
        let number = self.number + 1;
        let path = self.path.join(name(number));
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io("rotate", error)),
            _ => {}
        }
        let fresh = open_database(&path).map_err(|error| io("rotate", error))?;
        copy(self.trees(), &fresh)?;
        fresh.db.flush().map_err(|error| io("flush", error))?;
        fresh.file.sync_data().map_err(|error| io("sync", error))?;
        reached("settled-rotate-copied");
        point(&self.path, number).map_err(|error| io("rotate", error))?;
        reached("settled-rotate-switched");
        *self.shared.write().unwrap_or_else(PoisonError::into_inner) = fresh.trees.clone();
        self.number = number;
        let old = std::mem::replace(&mut self.database, fresh);
        self.retired.push(old);
        tracing::info!(path = %path.display(), live_bytes = self.live_bytes, "rotated the settled store");
        Ok(())
    }

    /// Drops databases that were rotated away: a reader of one holds it open itself, and is done in a moment.
    pub(super) fn drop_retired(&mut self) {
        for Database { db, trees, file, path } in self.retired.drain(..) {
            drop((trees, file, db));
            if let Err(error) = fs::remove_dir_all(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove a rotated store; the next start will");
            }
        }
    }
}

fn copy(from: &Trees, to: &Database) -> Result<(), StoreError> {
    let mut unflushed = 0;
    let mut put = |tree: &sled::Tree, key: &[u8], value: &[u8]| -> Result<(), StoreError> {
        tree.insert(key, value).map_err(|error| io("rotate", error))?;
        unflushed += key.len() + value.len();
        if unflushed >= FLUSH_BYTES {
            unflushed = 0;
            to.db.flush().map_err(|error| io("flush", error))?;
        }
        Ok(())
    };
    for item in &from.index {
        let (key, row) = item.map_err(|error| io("read", error))?;
        put(&to.trees.index, &key, &row)?;
        // A chunk that is missing or cannot be read stays so: its row says what is lost.
        if let Ok(Some(chunk)) = from.chunks.get(&key) {
            put(&to.trees.chunks, &key, &chunk)?;
        }
    }
    let rows = [
        (&from.devices, &to.trees.devices),
        (&from.sends, &to.trees.sends),
        (&from.accounts, &to.trees.accounts),
    ];
    for (from, to) in rows {
        for item in from {
            let (key, value) = item.map_err(|error| io("read", error))?;
            put(to, &key, &value)?;
        }
    }
    // The mark last: without it all of the above counts for nothing.
    if let Some(mark) = from.meta.get(format::MARK).map_err(|error| io("read", error))? {
        put(&to.trees.meta, format::MARK, &mark)?;
    }
    Ok(())
}
