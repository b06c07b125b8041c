//! One sled database: how it is opened, mended, synced and thrown away.
//!
//! Why the fdatasync is ours: sled's `flush` on Linux writes with `pwrite` and `sync_file_range`, which orders writes but does
//! not make them survive a power loss. A handle of our own on sled's database file does.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::SettledOptions;
use super::fault::{Fault, guarded};
use crate::ops::files;

/// sled's segments, in bytes. Its default of 512 KiB makes pages above 128 KiB files of their own, which are never synced;
/// with 2 MiB the limit is 512 KiB, and the fullest page of the tree `chunks` has some 280. The size is part of the format:
/// a store that has another cannot be opened.
const SEGMENT_BYTES: usize = 2 * 1024 * 1024;

/// How long to wait for sled to give its lock back. It does so a moment after it was dropped, when its own threads are done.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// How long to wait before asking again.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// The trees of a store; see the drawing in `mod.rs`.
#[derive(Clone)]
pub(super) struct Trees {
    pub chunks: sled::Tree,
    pub index: sled::Tree,
    pub devices: sled::Tree,
    pub sends: sled::Tree,
    pub accounts: sled::Tree,
    pub meta: sled::Tree,
}

/// An open sled database.
pub(super) struct Database {
    pub trees: Trees,
    db: sled::Db,
    /// Our own handle on sled's database file, for fdatasync.
    file: File,
    directory: PathBuf,
    /// Whether its directory goes when the last reader is done with it.
    retired: AtomicBool,
}

impl Database {
    /// Opens or makes a database. What stands in its way is mended as far as it can be, and said in `repaired`.
    pub(super) fn open(
        directory: &Path,
        options: &SettledOptions,
        repaired: &mut Vec<String>,
    ) -> Result<Self, Fault> {
        for leftover in named(directory, |name| name.starts_with("snap.") && name.ends_with(".generating"))? {
            // sled would take it for the newest snapshot.
            fs::remove_file(&leftover)?;
            repaired.push(format!("removed the unfinished snapshot {}", leftover.display()));
        }
        match Self::open_as_is(directory, options) {
            Err(Fault::Damaged(what)) => {
                // sled makes both again: the snapshot from the log, the parameters from ours, which never change.
                let spare = named(directory, |name| name.starts_with("snap.") || name == "conf")?;
                for file in &spare {
                    fs::remove_file(file)?;
                }
                let opened = Self::open_as_is(directory, options)?;
                let path = directory.display();
                repaired.push(format!(
                    "dropped snapshot and parameters in {path}, which sled made again: {what}"
                ));
                Ok(opened)
            }
            other => other,
        }
    }

    /// Opens or makes a database, waiting for a lock that is about to be released, and mends nothing.
    pub(super) fn open_as_is(directory: &Path, options: &SettledOptions) -> Result<Self, Fault> {
        let began = Instant::now();
        loop {
            match guarded(|| Self::try_open(directory, options)) {
                Err(Fault::Locked) if began.elapsed() < LOCK_WAIT => std::thread::sleep(LOCK_PAUSE),
                opened => return opened,
            }
        }
    }

    fn try_open(directory: &Path, options: &SettledOptions) -> Result<Self, Fault> {
        let db = sled::Config::new()
            .path(directory)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(options.cache_bytes)
            .mode(sled::Mode::HighThroughput)
            // Every spill is flushed by us; a timer thread would only compete.
            .flush_every_ms(None)
            .open()?;
        let trees = Trees {
            chunks: db.open_tree("chunks")?,
            index: db.open_tree("index")?,
            devices: db.open_tree("devices")?,
            sends: db.open_tree("sends")?,
            accounts: db.open_tree("accounts")?,
            meta: db.open_tree("meta")?,
        };
        let file = File::options().write(true).open(directory.join("db"))?;
        let database =
            Self { trees, db, file, directory: directory.to_owned(), retired: AtomicBool::new(false) };
        database.sync()?;
        // The names of a new database must be as durable as what will be written to it.
        File::open(directory)?.sync_all()?;
        files::sync_directory(directory)?;
        Ok(database)
    }

    /// Makes durable all that was written.
    pub(super) fn sync(&self) -> Result<(), Fault> {
        guarded(|| self.db.flush())?;
        self.file.sync_data().map_err(Fault::from)
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the bytes of sled's database file.
    pub(super) fn disk_bytes(&self) -> Result<u64, Fault> {
        Ok(self.file.metadata()?.len())
    }

    /// Returns the first file that sled keeps beside its log, of which there must be none: they are never synced.
    pub(super) fn beside_the_log(&self) -> Result<Option<PathBuf>, Fault> {
        Ok(fs::read_dir(self.directory.join("blobs"))?.next().transpose()?.map(|entry| entry.path()))
    }

    /// Lets the directory go when the last reader is done.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if *self.retired.get_mut() {
            // sled still holds its file, which lives on without a name until sled closes it. What cannot be removed now is
            // removed when the store is opened next.
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

/// Returns the paths in a directory whose names are as asked; none if there is no directory.
pub(super) fn named(directory: &Path, wanted: impl Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(&wanted) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}
