//! Looking at the process and its files.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// Returns the CPU time of this process, all threads, user and system.
pub(crate) fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Returns the resident memory of this process, in bytes.
pub(crate) fn resident() -> u64 {
    status("VmRSS")
}

/// Returns the most that was ever resident of this process, in bytes.
pub(crate) fn peak() -> u64 {
    status("VmHWM")
}

fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the kernel tells it");
    let line = status.lines().find(|line| line.starts_with(field)).expect("the kernel tells it");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
}

/// Returns what a directory takes on disk, in bytes.
pub(crate) fn on_disk(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else {
        return std::fs::metadata(path).map_or(0, |metadata| metadata.blocks() * 512);
    };
    entries.flatten().map(|entry| on_disk(&entry.path())).sum()
}

pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}
