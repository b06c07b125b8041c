//! The floor: what the disk and the system calls cost alone.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How large the file is; written over from its beginning again and again, as a journal does with its segments.
const FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Appends `record_bytes` for each of `waiters` and syncs, for so long. Returns records per second.
pub(crate) fn appends(directory: &Path, record_bytes: usize, waiters: usize, seconds: f64) -> f64 {
    let file = File::create(directory.join("floor")).expect("a file");
    let zeros = vec![0; 1024 * 1024];
    for at in 0..FILE_BYTES / zeros.len() as u64 {
        file.write_all_at(&zeros, at * zeros.len() as u64).expect("written");
    }
    file.sync_all().expect("synced");
    let batch = vec![0xa5; record_bytes * waiters];
    let (began, mut offset, mut records) = (Instant::now(), 0, 0_u64);
    while began.elapsed() < Duration::from_secs_f64(seconds) {
        if offset + batch.len() as u64 > FILE_BYTES {
            offset = 0;
        }
        file.write_all_at(&batch, offset).expect("written");
        file.sync_data().expect("synced");
        offset += batch.len() as u64;
        records += waiters as u64;
    }
    let rate = records as f64 / began.elapsed().as_secs_f64();
    drop(file);
    let _ = std::fs::remove_file(directory.join("floor"));
    rate
}
