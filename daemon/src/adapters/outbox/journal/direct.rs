//! Writing past the page cache.
//!
//! Why: the page cache copies every byte once more, and keeps a file in pieces of which a sync writes every one that was
//! touched, whole. With it a sync of 220 KiB takes three times as much processor time (60 us, or 20 without), and one of a
//! few hundred bytes writes up to 256 KiB.
//!
//! A disk takes whole blocks at their places, from memory that is aligned like them. So the bytes are laid out anew: what
//! stood in the first block before them, they, zeros to the end of the last block.
//!
//! Invariants: what is before the bytes stays as it is; a file never grows by padding; a file system that cannot do this
//! gets the same bytes through the page cache.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::disk::{BLOCK, File};

/// At most so much is handed to the disk at once; it is laid out in memory first.
const PIECE: usize = 512 * 1024;

thread_local! {
    /// Where a thread lays out a piece; wherever in it an aligned one begins, there is room for it. Each thread that writes
    /// has its own, because the one that makes a segment ahead of time must not hold up the one that syncs.
    static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A file that is written past the page cache where that is possible, and read through it.
pub(super) struct DirectFile {
    file: fs::File,
    direct: Mutex<Option<Direct>>,
}

/// The way past the page cache.
struct Direct {
    file: fs::File,
    /// The last block that was written, up to where it was.
    tail: Vec<u8>,
    /// Where that is in the file.
    tail_end: u64,
}

impl DirectFile {
    /// Takes a file that was opened for writing, of the name `path`.
    pub(super) fn new(file: fs::File, path: &Path) -> Self {
        let flags = rustix::fs::OFlags::DIRECT.bits().cast_signed();
        let direct = fs::File::options().write(true).custom_flags(flags).open(path);
        let direct = direct.ok().map(|file| Direct { file, tail: Vec::new(), tail_end: 0 });
        Self { file, direct: Mutex::new(direct) }
    }
}

impl Direct {
    /// Writes one piece.
    fn write(&mut self, through: &fs::File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let before = (offset % BLOCK as u64) as usize;
        if before > 0 && self.tail_end != offset {
            self.tail.resize(before, 0);
            through.read_exact_at(&mut self.tail, offset - before as u64)?;
        }
        // In doubt until it is written.
        self.tail_end = u64::MAX;
        ROOM.with_borrow_mut(|room| self.write_blocks(room, before, bytes, offset))?;
        self.tail_end = offset + bytes.len() as u64;
        Ok(())
    }

    fn write_blocks(
        &mut self,
        room: &mut Vec<u8>,
        before: usize,
        bytes: &[u8],
        offset: u64,
    ) -> io::Result<()> {
        let end = before + bytes.len();
        let padded = end.next_multiple_of(BLOCK);
        room.resize(room.len().max(padded + BLOCK), 0);
        let aligned = room.as_ptr().align_offset(BLOCK);
        let room = room.get_mut(aligned..).unwrap_or_default();
        let (Some(blocks), Some(tail)) = (room.get_mut(..padded), self.tail.get(..before)) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let (head, rest) = blocks.split_at_mut(before);
        let (body, padding) = rest.split_at_mut(bytes.len());
        head.copy_from_slice(tail);
        body.copy_from_slice(bytes);
        padding.fill(0);
        self.file.write_all_at(blocks, offset - before as u64)?;
        self.tail.clear();
        self.tail.extend_from_slice(&blocks[end - end % BLOCK..end]);
        Ok(())
    }
}

impl File for DirectFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut guard = self.direct.lock().unwrap_or_else(PoisonError::into_inner);
        let end = offset + bytes.len() as u64;
        let (mut bytes, mut offset) = (bytes, offset);
        while let Some(direct) = &mut *guard {
            if bytes.is_empty() {
                return Ok(());
            }
            if !end.is_multiple_of(BLOCK as u64) && end.next_multiple_of(BLOCK as u64) > self.size()? {
                direct.tail_end = u64::MAX;
                break;
            }
            // Pieces end where blocks do, but for the last.
            let room = PIECE - (offset % BLOCK as u64) as usize;
            let (piece, rest) = bytes.split_at(room.min(bytes.len()));
            match direct.write(&self.file, piece, offset) {
                Ok(()) => (bytes, offset) = (rest, offset + piece.len() as u64),
                // This file system wants it otherwise.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => *guard = None,
                Err(error) => return Err(error),
            }
        }
        self.file.write_all_at(bytes, offset)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::outbox::journal::tests::random::Random;

    fn file(directory: &Path, bytes: &[u8]) -> DirectFile {
        let path = directory.join("file");
        fs::write(&path, bytes).unwrap();
        DirectFile::new(fs::File::options().read(true).write(true).open(&path).unwrap(), &path)
    }

    #[test]
    fn what_was_written_is_read_and_what_was_before_it_stays() {
        let directory = tempfile::tempdir().unwrap();
        let size = 4 * PIECE;
        for seed in 0..20 {
            let mut random = Random::new(seed);
            let mut expected = vec![7; size];
            let file = file(directory.path(), &expected);
            let mut at = 0;
            for _ in 0..50 {
                if random.percent(10) {
                    at = random.below(size as u64) as usize;
                }
                let most = if random.percent(10) { 2 * PIECE as u64 } else { 6_000 };
                let end = (at + 1 + random.below(most) as usize).min(size);
                let byte = random.below(256) as u8;
                expected[at..end].fill(byte);
                let padded = end.next_multiple_of(BLOCK);
                let is_direct = file.direct.lock().unwrap().is_some();
                file.write_at(&expected[at..end], at as u64).unwrap();
                if is_direct {
                    expected[end..padded].fill(0);
                }
                at = if end == size { 0 } else { end };
            }
            file.sync_data().unwrap();
            let mut read = vec![0; size];
            file.read_at(&mut read, 0).unwrap();
            assert!(read == expected, "seed {seed}");
        }
    }

    #[test]
    fn a_file_grows_by_what_is_written_and_by_no_padding() {
        let directory = tempfile::tempdir().unwrap();
        let file = file(directory.path(), &[1; 5_000]);
        file.write_at(&[2; 10], 4_995).unwrap();
        assert_eq!(file.size().unwrap(), 5_005);
        file.write_at(&[3; 3 * BLOCK], 0).unwrap();
        assert_eq!(file.size().unwrap(), 3 * BLOCK as u64);
        let mut read = vec![0; 3 * BLOCK];
        file.read_at(&mut read, 0).unwrap();
        assert!(read.iter().all(|byte| *byte == 3));
    }
}
