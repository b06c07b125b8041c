//! A store in a directory of files.
//!
//! ```text
//! publish.json   {"format":1,"next_number":4097}
//! feed.json      {"format":1,"attach_number":3,"cursors":[[1,77]]}
//! marks.json     {"format":1,"marks":[["00..0b",1,70,77]]}
//! publish.lock   locked by the process that sends
//! feed.lock      locked by the process that receives
//! ```
//!
//! A file is replaced by writing its successor beside it, syncing it, and renaming it into place, so that after a crash
//! there is the old state or the new one. The lock is a file of its own, because the state's file is a new one after
//! every save.
//!
//! Invariants: a part is neither read nor written without holding its lock; files are readable by their owner only; what
//! cannot be understood is an error and is never overwritten.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use quail_protocol::id::{Origin, Position};
use quail_protocol::limits::CURSORS_MAX;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{FeedState, Mark, Part, PublishState, Store, StoreError};

/// The form of the files that this version writes, and the only one it reads.
const FORMAT: u32 = 1;

/// Longest file that is read. The longest that is written has some 400 KiB, of marks.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Remembers in a directory, which belongs to one device.
///
/// Each part is locked on first use, so two processes of one device can share the directory as long as one sends and the
/// other receives.
#[derive(Debug)]
pub struct FileStore {
    directory: PathBuf,
    publish: Mutex<Option<File>>,
    feed: Mutex<Option<File>>,
}

#[derive(Serialize, Deserialize)]
struct PublishFile {
    format: u32,
    next_number: u64,
}

#[derive(Serialize, Deserialize)]
struct FeedFile {
    format: u32,
    attach_number: u64,
    cursors: Vec<(u32, u64)>,
}

#[derive(Serialize, Deserialize)]
struct MarksFile {
    format: u32,
    marks: Vec<(String, u32, u64, u64)>,
}

impl FileStore {
    /// Opens a directory, making it, readable by its owner only, if there is none.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, StoreError> {
        let directory = directory.as_ref().to_owned();
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&directory).map_err(|error| io("make directory", &directory, &error))?;
        Ok(Self { directory, publish: Mutex::new(None), feed: Mutex::new(None) })
    }

    /// Returns the directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Runs a call with the part's lock held; takes it first if this is the first use.
    fn locked<T>(
        &self,
        part: Part,
        call: impl FnOnce(&Path) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let lock = match part {
            Part::Publish => &self.publish,
            Part::Feed => &self.feed,
        };
        let mut lock = lock.lock().unwrap_or_else(PoisonError::into_inner);
        if lock.is_none() {
            *lock = Some(self.lock(part)?);
        }
        call(&self.directory.join(format!("{part}.json")))
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
}

impl Store for FileStore {
    fn load_publish(&self) -> Result<PublishState, StoreError> {
        self.locked(Part::Publish, |path| {
            let Some(file) = read::<PublishFile>(Part::Publish, path)? else {
                return Ok(PublishState::default());
            };
            check_format(file.format, Part::Publish, path)?;
            match file.next_number {
                0 => Err(damaged(Part::Publish, path, "send numbers start at 1")),
                next_number => Ok(PublishState { next_number }),
            }
        })
    }

    fn save_publish(&self, state: PublishState) -> Result<(), StoreError> {
        let file = PublishFile { format: FORMAT, next_number: state.next_number };
        self.locked(Part::Publish, |path| replace(path, &file))
    }

    fn load_feed(&self) -> Result<FeedState, StoreError> {
        self.locked(Part::Feed, |path| {
            let Some(file) = read::<FeedFile>(Part::Feed, path)? else {
                return Ok(FeedState::default());
            };
            check_format(file.format, Part::Feed, path)?;
            if file.cursors.len() > CURSORS_MAX {
                return Err(damaged(Part::Feed, path, "too many cursors"));
            }
            let cursors =
                file.cursors.into_iter().map(|(origin, position)| (Origin(origin), Position(position)));
            Ok(FeedState { attach_number: file.attach_number, cursors: cursors.collect() })
        })
    }

    fn save_feed(&self, state: &FeedState) -> Result<(), StoreError> {
        let cursors = state.cursors.iter().map(|(origin, position)| (origin.0, position.0)).collect();
        let file = FeedFile { format: FORMAT, attach_number: state.attach_number, cursors };
        self.locked(Part::Feed, |path| replace(path, &file))
    }

    fn load_marks(&self) -> Result<Vec<Mark>, StoreError> {
        self.locked(Part::Feed, |path| {
            let path = &path.with_file_name("marks.json");
            let Some(file) = read::<MarksFile>(Part::Feed, path)? else {
                return Ok(Vec::new());
            };
            check_format(file.format, Part::Feed, path)?;
            let mark = |(sender, origin, after, upto): (String, u32, u64, u64)| {
                let sender = sender.parse().map_err(|_| damaged(Part::Feed, path, "no account id"))?;
                Ok(Mark { sender, origin: Origin(origin), after: Position(after), upto: Position(upto) })
            };
            file.marks.into_iter().map(mark).collect()
        })
    }

    fn save_marks(&self, marks: &[Mark]) -> Result<(), StoreError> {
        let marks =
            marks.iter().map(|mark| (mark.sender.to_string(), mark.origin.0, mark.after.0, mark.upto.0));
        let file = MarksFile { format: FORMAT, marks: marks.collect() };
        self.locked(Part::Feed, |path| replace(&path.with_file_name("marks.json"), &file))
    }
}

fn read<T: DeserializeOwned>(part: Part, path: &Path) -> Result<Option<T>, StoreError> {
    let length = match path.metadata() {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("read", path, &error)),
    };
    if length > FILE_BYTES_MAX {
        return Err(damaged(part, path, "the file is too long"));
    }
    let bytes = std::fs::read(path).map_err(|error| io("read", path, &error))?;
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|error| damaged(part, path, error.to_string()))
}

/// Puts a new file in the place of an old one, so that a crash leaves the one or the other.
fn replace(path: &Path, content: &impl Serialize) -> Result<(), StoreError> {
    let bytes = serde_json::to_vec(content)
        .map_err(|error| StoreError::Other { detail: format!("encode {}: {error}", show(path)) })?;
    let successor = path.with_extension("json.new");
    let written = private().create(true).truncate(true).open(&successor).and_then(|mut file| {
        file.write_all(&bytes)?;
        file.sync_all()
    });
    written.map_err(|error| io("write", &successor, &error))?;
    std::fs::rename(&successor, path).map_err(|error| io("replace", path, &error))?;
    sync_directory(path)
}

/// The rename itself is in the directory, and that must reach the disk too.
fn sync_directory(path: &Path) -> Result<(), StoreError> {
    let Some(directory) = path.parent().filter(|_| cfg!(unix)) else {
        return Ok(());
    };
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| io("sync", directory, &error))
}

/// Files for their owner only.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn check_format(format: u32, part: Part, path: &Path) -> Result<(), StoreError> {
    match format {
        FORMAT => Ok(()),
        other => Err(damaged(part, path, format!("format {other} is not known to this version"))),
    }
}

fn damaged(part: Part, path: &Path, detail: impl Into<String>) -> StoreError {
    StoreError::Damaged { part, place: show(path), detail: detail.into() }
}

fn io(action: &'static str, path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Io { action, place: show(path), detail: error.to_string() }
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
