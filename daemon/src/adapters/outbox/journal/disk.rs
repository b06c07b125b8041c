//! The thin file layer under the journal: what it needs of a directory and of a file, and that on a real disk.
//!
//! Why a layer: a power cut is tried in tests, ten thousand times, on a disk in memory that lies as disks do. So it holds
//! nothing but the calls whose effect a power cut can undo.
//!
//! Invariants: nothing is durable before the sync that covers it has returned, contents and names apart; a file is never
//! read or written beyond its length without the caller knowing its length.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::direct::DirectFile;

/// What a disk writes at once, or a multiple of what it does.
pub(super) const BLOCK: usize = 4096;

/// A directory of files.
pub trait Disk: Send + Sync {
    /// Makes an empty file, or empties the one that is there. Its name is durable after [`sync_directory`](Self::sync_directory).
    ///
    /// # Errors
    /// What the file system says.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Opens a file that is there.
    ///
    /// # Errors
    /// `NotFound` if there is none of that name; else what the file system says.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Returns the names of all files, in any order.
    ///
    /// # Errors
    /// What the file system says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Takes a file away. Who has it open may go on reading it.
    ///
    /// # Errors
    /// What the file system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Gives a file another name, which a file may bear that is replaced by it: at no time is there none of that name.
    ///
    /// # Errors
    /// What the file system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Makes names durable: what was made, taken away and renamed before.
    ///
    /// # Errors
    /// What the file system says; what is durable is in doubt.
    fn sync_directory(&self) -> io::Result<()>;
}

/// An open file.
pub trait File: Send + Sync {
    /// Writes all of the bytes at an offset; the file grows where it must. What is behind them may be zeros afterwards, up to
    /// the end of the file or of a block of 4,096 bytes.
    ///
    /// # Errors
    /// What the file system says; any part may be written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Fills the whole of `bytes` from an offset.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file ends before; else what the file system says.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;

    /// Makes durable what was written, and the length.
    ///
    /// # Errors
    /// What the file system says. After that nobody knows what is durable, and a second call proves nothing.
    fn sync_data(&self) -> io::Result<()>;

    /// Returns the length in bytes.
    ///
    /// # Errors
    /// What the file system says.
    fn size(&self) -> io::Result<u64>;
}

/// A directory of the file system.
#[derive(Debug)]
pub struct RealDisk {
    path: PathBuf,
    is_writable: bool,
}

impl RealDisk {
    /// Returns the directory `path`, which is made, durably, if it is not there.
    ///
    /// # Errors
    /// What the file system says.
    pub fn new(path: &Path) -> io::Result<Self> {
        if !path.is_dir() {
            fs::create_dir_all(path)?;
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                fs::File::open(parent)?.sync_all()?;
            }
        }
        Ok(Self { path: path.to_owned(), is_writable: true })
    }

    /// Returns a directory whose files are opened for reading only, as a check wants it.
    pub fn read_only(path: &Path) -> Self {
        Self { path: path.to_owned(), is_writable: false }
    }
}

impl Disk for RealDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        if !self.is_writable {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let options = fs::File::options().read(true).write(true).create(true).truncate(true).to_owned();
        let path = self.path.join(name);
        Ok(Arc::new(DirectFile::new(options.open(&path)?, &path)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let path = self.path.join(name);
        let file = fs::File::options().read(true).write(self.is_writable).open(&path)?;
        if !self.is_writable {
            return Ok(Arc::new(file));
        }
        Ok(Arc::new(DirectFile::new(file, &path)))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let names =
            fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn sync_directory(&self) -> io::Result<()> {
        fs::File::open(&self.path)?.sync_all()
    }
}

impl File for fs::File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        fs::File::sync_data(self)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}
