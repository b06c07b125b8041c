//! The floor: what the disk, the system calls and the waiting cost alone.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::waiting::{Commit, Log};

/// How large the file is; written over from its beginning again and again, as a journal does with its segments.
const FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Appends as many bytes for each waiter as an outbox does, and nothing else: no checksum, no table, no archive.
pub(crate) struct Bare {
    record: Vec<u8>,
    buffer: Arc<Mutex<Vec<u8>>>,
    file: Arc<File>,
    completed: u64,
}

impl Bare {
    pub(crate) fn new(directory: &Path, record_bytes: usize) -> Self {
        let path = directory.join("floor");
        let file = File::create(&path).expect("a file");
        let zeros = vec![0; 1024 * 1024];
        for at in 0..FILE_BYTES / zeros.len() as u64 {
            file.write_all_at(&zeros, at * zeros.len() as u64).expect("written");
        }
        file.sync_all().expect("synced");
        std::fs::remove_file(path).expect("removed");
        Self { record: vec![0xa5; record_bytes], buffer: Arc::default(), file: Arc::new(file), completed: 0 }
    }
}

impl Log for Bare {
    fn append(&mut self, waiters: &[usize]) {
        let mut buffer = self.buffer.lock().expect("nobody panics");
        waiters.iter().for_each(|_| buffer.extend_from_slice(&self.record));
        self.completed += waiters.len() as u64;
    }

    fn committer(&self) -> Commit {
        let (buffer, file) = (self.buffer.clone(), self.file.clone());
        let (mut writing, mut offset) = (Vec::new(), 0);
        Box::new(move || {
            std::mem::swap(&mut writing, &mut *buffer.lock().expect("nobody panics"));
            if offset + writing.len() as u64 > FILE_BYTES {
                offset = 0;
            }
            file.write_all_at(&writing, offset).expect("written");
            file.sync_data().expect("synced");
            offset += writing.len() as u64;
            writing.clear();
        })
    }

    fn completed(&self) -> u64 {
        self.completed
    }
}
