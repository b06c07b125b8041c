//! What the kernel says of this process, read when somebody asks.

use std::fs;
use std::sync::atomic::Ordering;

use super::Metrics;

/// Fields of `/proc/self/stat` behind the command's name, counted from there: user and system time, in ticks.
const STAT_UTIME: usize = 11;
const STAT_STIME: usize = 12;

/// Ticks of a second in `/proc`; Linux has shown 100 to programs on every architecture for decades (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Updates the metrics of the process. What cannot be read keeps its last value.
pub(super) fn sample(metrics: &Metrics) {
    if let Some(bytes) = resident_bytes() {
        metrics.resident_bytes.set(bytes);
    }
    if let Some(seconds) = cpu_seconds() {
        // A counter of this library only rises by steps, and this one is given as a whole.
        metrics.cpu_seconds.inner().store(seconds.to_bits(), Ordering::Relaxed);
    }
    if let Some(wakeups) = wakeups() {
        // Threads that have ended take theirs with them.
        metrics.wakeups.inner().fetch_max(wakeups, Ordering::Relaxed);
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        metrics.open_files.set(i64::try_from(files.count()).unwrap_or(i64::MAX));
    }
}

fn resident_bytes() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name stands in brackets and may hold anything, brackets too.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks = |at: usize| fields.split_ascii_whitespace().nth(at)?.parse::<u64>().ok();
    Some((ticks(STAT_UTIME)? + ticks(STAT_STIME)?) as f64 / TICKS_PER_SECOND)
}

/// How often the threads that live now went to sleep by themselves, each of which ended with being woken.
fn wakeups() -> Option<u64> {
    let threads = fs::read_dir("/proc/self/task").ok()?;
    let of = |thread: fs::DirEntry| -> Option<u64> {
        let status = fs::read_to_string(thread.path().join("status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse().ok()
    };
    Some(threads.flatten().filter_map(of).sum())
}
