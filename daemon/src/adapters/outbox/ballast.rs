//! Ballast: a file that gives way when a full disk has to be opened.
//!
//! Below the free-space mark the daemon takes no new messages, but other programs may still fill the disk to the last byte.
//! Then a restart must copy what its journal holds before it can serve, and sled must write to open. The ballast is what
//! they do it with.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::room;

/// Size of the file, in bytes.
const BALLAST_BYTES: u64 = 32 * 1024 * 1024;

/// The file is made when so many times its size is free, and given up below its size.
const PLENTY: u64 = 8;

#[derive(Clone, Debug)]
pub(super) struct Ballast {
    path: PathBuf,
}

impl Ballast {
    pub(super) fn of(outbox: &Path) -> Self {
        Self { path: outbox.join("ballast") }
    }

    /// Gives the space up if there is hardly any. Returns whether it did.
    ///
    /// # Errors
    /// The file system cannot be asked, or the file not be removed.
    pub(super) fn give_way(&self, outbox: &Path) -> io::Result<bool> {
        if room::space(outbox)?.free >= BALLAST_BYTES {
            return Ok(false);
        }
        match fs::remove_file(&self.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes the space again once there is plenty.
    ///
    /// # Errors
    /// The file cannot be written; the next try may succeed.
    pub(super) fn restore(&self, outbox: &Path) -> io::Result<()> {
        let held = fs::metadata(&self.path).map_or(0, |file| file.len());
        if held >= BALLAST_BYTES || room::space(outbox)?.free < PLENTY * BALLAST_BYTES {
            return Ok(());
        }
        let mut file = File::create(&self.path)?;
        // Written, not only reserved: a hole gives nothing back.
        let zeros = vec![0; 1024 * 1024];
        for _ in 0..BALLAST_BYTES / zeros.len() as u64 {
            file.write_all(&zeros)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_is_plenty_it_is_there_and_stays() {
        let outbox = tempfile::tempdir().unwrap();
        let ballast = Ballast::of(outbox.path());
        ballast.restore(outbox.path()).unwrap();
        if room::space(outbox.path()).unwrap().free < BALLAST_BYTES * PLENTY {
            return;
        }
        assert_eq!(fs::metadata(&ballast.path).unwrap().len(), BALLAST_BYTES);
        assert!(!ballast.give_way(outbox.path()).unwrap());
        assert!(ballast.path.exists());
    }
}
