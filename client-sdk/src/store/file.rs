//! A store in a directory of files.
//!
//! ```text
//! publish.redb   the queue and the answers       publish.lock   locked by the process that sends
//! feed.redb      cursors and what was shown      feed.lock      locked by the process that receives
//! ```
//!
//! Each part is an embedded database (redb): a commit is one transaction with a checksum, durable when it returns, and a
//! crash leaves the state before or after it. A database is made beside its place and renamed into it, so one that is
//! there is whole. Directories of format 1 are carried over ([`super::migrate`]). Every page is checked when a database is
//! opened, so damage is an error and not another message; damage to the last commit alone looks like a commit that a crash
//! cut short, and leaves the state before it.
//!
//! Invariants: a part is neither read nor written without holding its lock; files are readable by their owner only; what
//! cannot be understood is an error, and nothing is put in its place; a database that failed is opened anew by the next call.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use redb::Database;

use super::migrate::{self, Old, OldError};
use super::tables::{self, TableError};
use super::{FeedChange, FeedState, Part, PublishChange, PublishState, Store, StoreError};

/// Memory that each database may use for pages it has read.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// A file longer than this gives space back when it is opened, if most of it is free.
const COMPACT_BYTES_MIN: u64 = 8 * 1024 * 1024;

/// How many times the data a file may be long.
const COMPACT_RATIO: u64 = 4;

/// Remembers in a directory, which belongs to one device.
///
/// Each part is locked on first use, so two processes of one device can share the directory as long as one sends and the
/// other receives.
#[derive(Debug)]
pub struct FileStore {
    directory: PathBuf,
    publish: Mutex<Option<Opened>>,
    feed: Mutex<Option<Opened>>,
}

#[derive(Debug)]
struct Opened {
    /// Before the lock, so that it is closed while the lock is held.
    database: Database,
    _lock: File,
}

impl FileStore {
    /// Opens a directory, making it, readable by its owner only, if there is none.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::NotWritable`] and [`StoreError::Io`]. What is in the directory is looked at on
    /// first use.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, StoreError> {
        let directory = directory.as_ref().to_owned();
        make_directory(&directory).map_err(|error| io("make directory", &directory, &error))?;
        Ok(Self { directory, publish: Mutex::new(None), feed: Mutex::new(None) })
    }

    /// Returns the directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes a call with the part's lock held; takes it and opens the database if this is the first use.
    fn with<T>(
        &self,
        part: Part,
        call: impl FnOnce(&Database) -> Result<T, TableError>,
    ) -> Result<T, StoreError> {
        let opened = match part {
            Part::Publish => &self.publish,
            Part::Feed => &self.feed,
        };
        let mut slot = opened.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.directory.join(format!("{part}.redb"));
        let opened = match slot.take() {
            Some(opened) => opened,
            None => self.open_part(part, &path)?,
        };
        let result = guarded(part, &path, || call(&opened.database));
        match &result {
            Ok(_) => *slot = Some(opened),
            // What it holds in memory may be ahead of the disk.
            Err(_) => drop(guarded(part, &path, || {
                drop(opened);
                Ok(())
            })),
        }
        result
    }

    fn open_part(&self, part: Part, path: &Path) -> Result<Opened, StoreError> {
        let lock = self.lock(part)?;
        let exists = path.try_exists().map_err(|error| io("read", path, &error))?;
        if !exists {
            self.make(part, path)?;
        }
        let database = guarded(part, path, || {
            let mut builder = Database::builder();
            builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
            let mut database = builder.open(path)?;
            tables::check(&database)?;
            let length = path.metadata().map_or(0, |metadata| metadata.len());
            if length > COMPACT_BYTES_MIN && tables::stored_bytes(&database)? < length / COMPACT_RATIO {
                database.compact()?;
            }
            Ok(database)
        })?;
        // Also when a crash came between the database and this.
        self.mark_carried_over(part)?;
        Ok(Opened { database, _lock: lock })
    }

    fn lock(&self, part: Part) -> Result<File, StoreError> {
        let path = self.directory.join(format!("{part}.lock"));
        // Not truncated: it may be another process's.
        let file = private().create(true).truncate(false).open(&path);
        let file = file.map_err(|error| io("open", &path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse { part, place: show(&self.directory) }),
            Err(TryLockError::Error(error)) => Err(io("lock", &path, &error)),
        }
    }

    /// Makes a database with what an older version left.
    fn make(&self, part: Part, path: &Path) -> Result<(), StoreError> {
        let old_path = self.old_path(part);
        let old = migrate::read(part, &old_path).map_err(|error| match error {
            OldError::Io(error) => io("read", &old_path, &error),
            OldError::Newer(format) => StoreError::Newer { part, place: show(&old_path), format },
            OldError::Damaged(detail) => damaged(part, &old_path, detail),
        })?;
        let successor = path.with_extension("redb.new");
        // Made empty here, for its owner only; the database fills it.
        let made = private().create(true).truncate(true).open(&successor);
        drop(made.map_err(|error| io("write", &successor, &error))?);
        guarded(part, &successor, || {
            let database = Database::builder().set_cache_size(CACHE_BYTES).create(&successor)?;
            tables::create(&database, part)?;
            match &old {
                Some(Old::Publish(next_number)) => tables::begin_at(&database, *next_number),
                Some(Old::Feed(number, cursors)) => {
                    let changes = [FeedChange::Attached(*number), FeedChange::Cursors(cursors.clone())];
                    tables::commit_feed(&database, &changes)
                }
                None => Ok(()),
            }
        })?;
        std::fs::rename(&successor, path).map_err(|error| io("replace", path, &error))?;
        self.sync_directory()
    }

    /// Sees to it that an older version refuses the directory instead of counting from one again.
    fn mark_carried_over(&self, part: Part) -> Result<(), StoreError> {
        let old_path = self.old_path(part);
        match migrate::read(part, &old_path) {
            Ok(Some(_)) => self.replace(&old_path, migrate::CARRIED_OVER),
            _ => Ok(()),
        }
    }

    /// Where an older version kept the part.
    fn old_path(&self, part: Part) -> PathBuf {
        self.directory.join(format!("{part}.json"))
    }

    /// Puts a new file in the place of an old one, so that a crash leaves the one or the other.
    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let successor = path.with_extension("json.new");
        let written = private().create(true).truncate(true).open(&successor).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        written.map_err(|error| io("write", &successor, &error))?;
        std::fs::rename(&successor, path).map_err(|error| io("replace", path, &error))?;
        self.sync_directory()
    }

    /// The rename itself is in the directory, and that must reach the disk too.
    fn sync_directory(&self) -> Result<(), StoreError> {
        sync_directory(&self.directory).map_err(|error| io("sync", &self.directory, &error))
    }
}

/// Makes a directory for its owner only, with those above it, and sees to it that a power cut leaves it there.
fn make_directory(directory: &Path) -> std::io::Result<()> {
    let parents = directory.ancestors().skip(1).map(|parent| match parent.as_os_str().is_empty() {
        true => Path::new("."),
        false => parent,
    });
    let mut changed = Vec::new();
    for (made, parent) in directory.ancestors().zip(parents) {
        if made.try_exists()? {
            break;
        }
        changed.push(parent);
    }
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)?;
    changed.into_iter().try_for_each(sync_directory)
}

fn sync_directory(directory: &Path) -> std::io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    File::open(directory)?.sync_all()
}

impl Store for FileStore {
    fn load_publish(&self) -> Result<PublishState, StoreError> {
        self.with(Part::Publish, tables::load_publish)
    }

    fn commit_publish(&self, changes: &[PublishChange]) -> Result<(), StoreError> {
        self.with(Part::Publish, |database| tables::commit_publish(database, changes))
    }

    fn load_feed(&self) -> Result<FeedState, StoreError> {
        self.with(Part::Feed, tables::load_feed)
    }

    fn commit_feed(&self, changes: &[FeedChange]) -> Result<(), StoreError> {
        self.with(Part::Feed, |database| tables::commit_feed(database, changes))
    }
}

/// Calls the database. It may panic over pages that it did not write itself; that is damage like any other.
fn guarded<T>(
    part: Part,
    path: &Path,
    call: impl FnOnce() -> Result<T, TableError>,
) -> Result<T, StoreError> {
    match std::panic::catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| table_error(part, path, &error)),
        Err(_) => Err(damaged(part, path, "the database gave up reading it")),
    }
}

fn table_error(part: Part, path: &Path, error: &TableError) -> StoreError {
    match error {
        TableError::Newer(format) => StoreError::Newer { part, place: show(path), format: *format },
        TableError::Database(redb::Error::DatabaseAlreadyOpen) => {
            StoreError::InUse { part, place: show(path) }
        }
        // A file that ends too early is damaged as well.
        TableError::Database(redb::Error::Io(error))
            if !matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
        {
            io("use", path, error)
        }
        other => damaged(part, path, other.to_string()),
    }
}

/// Files for their owner only.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn damaged(part: Part, path: &Path, detail: impl Into<String>) -> StoreError {
    StoreError::Damaged { part, place: show(path), detail: detail.into() }
}

fn io(action: &'static str, path: &Path, error: &std::io::Error) -> StoreError {
    let (place, detail) = (show(path), error.to_string());
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::Full { place },
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            StoreError::NotWritable { place, detail }
        }
        _ => StoreError::Io { action, place, detail },
    }
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
