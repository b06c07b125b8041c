//! Opening a sled database that may have been cut off anywhere.

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use super::{Database, SettledRecovered, SettledStore, Trees, recover};
use crate::adapters::outbox::error::OpenOutboxError;
use crate::ops::files::write_atomically;

/// sled's page cache. What is read is a backlog once through; more cache buys little.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;

/// Size of sled's segments, in bytes. What is longer than a quarter of one becomes a file of its own that is never synced, and
/// sled writes whole pages, of up to 17 values: its usual 512 KiB are too few for five chunks on a page. A page of the largest
/// events has little more than 1 MiB.
const SEGMENT_BYTES: usize = 8 * 1024 * 1024;

/// The file that names the current database.
const CURRENT: &str = "current";

/// The file beside the databases that says which generation was settled last. sled takes a log that ends too soon for one
/// that was cut off by a crash, and would bring back an older mark, or none.
const MARKED: &str = "marked";

/// Why the settled store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenSettledError {
    /// The directory or its files cannot be used. The operator must mend permissions or space.
    #[error("cannot use {path}: {reason}")]
    Unusable {
        /// Which file or directory.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// A newer quaild wrote it.
    #[error("{path} was written by a newer quaild: {reason}")]
    Newer {
        /// Which directory.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// It cannot be read and cannot be mended. Everything in it is lost here.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// Which directory.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
}

impl OpenSettledError {
    pub(in crate::adapters::outbox) fn into_open(self, outbox: &Path) -> OpenOutboxError {
        match self {
            Self::Newer { reason, .. } => OpenOutboxError::Newer { path: outbox.to_owned(), reason },
            other => OpenOutboxError::unusable(outbox, other),
        }
    }

    fn unusable(path: &Path) -> impl Fn(io::Error) -> Self {
        move |error| Self::Unusable { path: path.to_owned(), reason: error.to_string() }
    }
}

impl SettledStore {
    /// Opens the store in the directory `path`, which is made if it is not there.
    ///
    /// # Errors
    /// [`OpenSettledError`].
    pub fn open(path: &Path) -> Result<(Self, SettledRecovered), OpenSettledError> {
        fs::create_dir_all(path).map_err(OpenSettledError::unusable(path))?;
        let number = match number(path)? {
            Some(number) => number,
            None => {
                point(path, 1).map_err(OpenSettledError::unusable(path))?;
                1
            }
        };
        remove_others(path, number).map_err(OpenSettledError::unusable(path))?;
        let mut repaired = Vec::new();
        let database = open_mended(&path.join(name(number)), &mut repaired)?;
        let found = catch_unwind(AssertUnwindSafe(|| recover::recover(&database.trees)));
        let damaged = |reason: String| OpenSettledError::Damaged { path: database.path.clone(), reason };
        let found = match found {
            Ok(Ok(found)) => found,
            Ok(Err(error)) if error.to_string().contains("newer quaild") => {
                return Err(OpenSettledError::Newer { path: path.to_owned(), reason: error.to_string() });
            }
            Ok(Err(error)) => return Err(damaged(error.to_string())),
            Err(_) => return Err(damaged("sled panicked while it was read".to_owned())),
        };
        let (marked, mark) = (marked(path)?, found.recovered.mark.generation);
        if marked > mark {
            return Err(damaged(format!("it ends with generation {mark} and was at {marked}")));
        }
        let shared = Arc::new(RwLock::new(database.trees.clone()));
        let store = Self {
            path: path.to_owned(),
            number,
            database,
            shared,
            retired: Vec::new(),
            chunks: found.chunks,
            sends: found.sends,
            live_bytes: found.live_bytes,
        };
        store.sync().map_err(|error| OpenSettledError::Unusable {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        Ok((store, SettledRecovered { repaired, ..found.recovered }))
    }
}

pub(super) fn name(number: u64) -> String {
    format!("store-{number}")
}

/// Makes a database the one that counts.
pub(super) fn point(path: &Path, number: u64) -> io::Result<()> {
    write_atomically(&path.join(CURRENT), format!("{number}\n").as_bytes(), 0o600)
}

pub(super) fn number(path: &Path) -> Result<Option<u64>, OpenSettledError> {
    let file = path.join(CURRENT);
    match fs::read_to_string(&file) {
        Ok(text) => text.trim().parse().map(Some).map_err(|_| OpenSettledError::Damaged {
            path: path.to_owned(),
            reason: format!("{CURRENT} does not name a database"),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Without the pointer nobody knows which of them counted.
            let held = fs::read_dir(path).map_err(OpenSettledError::unusable(path))?.flatten().next();
            match held {
                Some(held) => Err(OpenSettledError::Damaged {
                    path: path.to_owned(),
                    reason: format!("{CURRENT} is missing beside {}", held.file_name().display()),
                }),
                None => Ok(None),
            }
        }
        Err(error) => Err(OpenSettledError::unusable(&file)(error)),
    }
}

/// Takes note of the last generation that is settled.
pub(super) fn mark(path: &Path, generation: u64) -> io::Result<()> {
    write_atomically(&path.join(MARKED), format!("{generation}\n").as_bytes(), 0o600)
}

/// Returns the last generation that was settled; zero if nobody says.
fn marked(path: &Path) -> Result<u64, OpenSettledError> {
    let file = path.join(MARKED);
    match fs::read_to_string(&file) {
        Ok(text) => text.trim().parse().map_err(|_| OpenSettledError::Damaged {
            path: path.to_owned(),
            reason: format!("{MARKED} does not name a generation"),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(OpenSettledError::unusable(&file)(error)),
    }
}

/// Removes what a rotation left behind.
fn remove_others(path: &Path, number: u64) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let other = entry.file_name();
        let other = other.to_string_lossy();
        if other.starts_with("store-") && *other != name(number) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Opens a database; on damage once more without its snapshot, which sled makes anew from the log.
fn open_mended(path: &Path, repaired: &mut Vec<String>) -> Result<Database, OpenSettledError> {
    let removed = remove_snapshots(path, true).map_err(OpenSettledError::unusable(path))?;
    if removed > 0 {
        repaired.push("removed an unfinished snapshot".to_owned());
    }
    let first = match open_database(path) {
        Ok(database) => return Ok(database),
        Err(OpenSettledError::Damaged { reason, .. }) => reason,
        Err(error) => return Err(error),
    };
    let removed = remove_snapshots(path, false).map_err(OpenSettledError::unusable(path))?;
    if removed == 0 {
        return Err(OpenSettledError::Damaged { path: path.to_owned(), reason: first });
    }
    repaired.push(format!("removed the snapshot, because sled said: {first}"));
    open_database(path)
}

fn remove_snapshots(path: &Path, only_unfinished: bool) -> io::Result<usize> {
    let mut removed = 0;
    let Ok(entries) = fs::read_dir(path) else { return Ok(0) };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && (!only_unfinished || name.ends_with(".generating")) {
            fs::remove_file(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Opens a database or makes a new one.
pub(super) fn open_database(path: &Path) -> Result<Database, OpenSettledError> {
    let unusable = |reason: String| OpenSettledError::Unusable { path: path.to_owned(), reason };
    let damaged = |reason: String| OpenSettledError::Damaged { path: path.to_owned(), reason };
    let opening = || -> sled::Result<(sled::Db, Trees)> {
        let db = sled::Config::new()
            .path(path)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(CACHE_BYTES)
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
        db.flush()?;
        Ok((db, trees))
    };
    let (db, trees) = match catch_unwind(AssertUnwindSafe(opening)) {
        Ok(Ok(opened)) => opened,
        Ok(Err(sled::Error::Io(error))) if !is_short(&error) => return Err(unusable(error.to_string())),
        Ok(Err(error)) => return Err(damaged(error.to_string())),
        Err(_) => return Err(damaged("sled panicked while opening it".to_owned())),
    };
    let blobs = fs::read_dir(path.join("blobs")).map_or(0, Iterator::count);
    if blobs > 0 {
        return Err(damaged(format!("{blobs} values lie outside the database file")));
    }
    let file =
        File::options().write(true).open(path.join("db")).map_err(|error| unusable(error.to_string()))?;
    // The names of a new database must be as durable as what will be written to it.
    for directory in [Some(path), path.parent()].into_iter().flatten() {
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(|error| unusable(error.to_string()))?;
    }
    Ok(Database { db, trees, file, path: path.to_owned() })
}

/// Returns whether a file was shorter than what sled expected there: that is damage, and not a disk that fails.
fn is_short(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData)
}
