//! What a process has used so far, as the kernel counts it: `/proc/PID`.
//!
//! Invariant: a figure is read or there is an error; nothing is guessed.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// What a process has used since it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Usage {
    /// CPU time of all its threads, in user mode and in the kernel. Counted in ticks of usually 10 ms.
    pub(super) cpu: Duration,
    /// Memory that it occupies now, in bytes.
    pub(super) rss_bytes: u64,
    /// Bytes that it had written to storage devices, now or later: what went into the page cache and was not dropped.
    pub(super) write_bytes: u64,
    /// How often its threads that live now had nothing to do and were woken again.
    pub(super) wakeups: u64,
}

/// Why the figures of a process cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// The kernel does not show them, or the process has ended.
    #[error("read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// They have another form than on Linux.
    #[error("{} has an unknown form", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
    },
}

impl Usage {
    /// Reads the figures of a process.
    pub(super) fn of(pid: u32) -> Result<Self, ProcessError> {
        let ticks = rustix::param::clock_ticks_per_second();
        Ok(Self {
            cpu: read(pid, "stat", |text| cpu(text, ticks))?,
            rss_bytes: read(pid, "smaps_rollup", |text| number(text, "Rss:"))?.saturating_mul(1024),
            write_bytes: read(pid, "io", |text| number(text, "write_bytes:"))?,
            wakeups: wakeups(pid)?,
        })
    }
}

/// Adds up how often the threads went to sleep by themselves.
fn wakeups(pid: u32) -> Result<u64, ProcessError> {
    let path = PathBuf::from(format!("/proc/{pid}/task"));
    let threads = fs::read_dir(&path).map_err(|source| ProcessError::Unreadable { path, source })?;
    let of = |thread: fs::DirEntry| {
        // A thread that has ended meanwhile counts no more.
        let status = fs::read_to_string(thread.path().join("status")).ok()?;
        number(&status, "voluntary_ctxt_switches:")
    };
    Ok(threads.flatten().filter_map(of).sum())
}

fn read<T>(pid: u32, name: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, ProcessError> {
    let path = PathBuf::from(format!("/proc/{pid}/{name}"));
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(ProcessError::Unreadable { path, source }),
    };
    parse(&text).ok_or(ProcessError::Unknown { path })
}

/// Reads user and system time, fields 14 and 15, out of `stat`. The second field is the program's name in parentheses and
/// may contain anything.
fn cpu(stat: &str, ticks_per_second: u64) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let total = ticks()?.checked_add(ticks()?)?;
    let nanoseconds = u128::from(total) * 1_000_000_000 / u128::from(ticks_per_second.max(1));
    Some(Duration::from_nanos(u64::try_from(nanoseconds).ok()?))
}

/// Reads the number behind a name at the beginning of a line.
fn number(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "42 (a ) (b) S 1 42 42 0 -1 4194304 100 0 0 0 150 50 7 8 20 0 3 0 999";
        assert_eq!(cpu(stat, 100), Some(Duration::from_secs(2)));
        assert_eq!(cpu("42 (a) S 1 2", 100), None);
        assert_eq!(cpu("", 100), None);
    }

    #[test]
    fn numbers_are_found_by_their_name() {
        let rollup = "00400000-7ffc [rollup]\nRss:               12345 kB\nPss:  1 kB\n";
        assert_eq!(number(rollup, "Rss:"), Some(12_345));
        let io = "rchar: 1\nwchar: 2\nread_bytes: 3\nwrite_bytes: 4096\ncancelled_write_bytes: 5\n";
        assert_eq!(number(io, "write_bytes:"), Some(4096));
        assert_eq!(number(io, "nothing:"), None);
        assert_eq!(number("Rss: many", "Rss:"), None);
    }

    #[test]
    fn this_process_has_figures_and_one_that_is_not_there_has_none() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.rss_bytes > 100_000, "{usage:?}");
        std::thread::spawn(|| std::thread::sleep(Duration::from_millis(1))).join().unwrap();
        assert!(Usage::of(std::process::id()).unwrap().wakeups > 0);
        assert!(matches!(Usage::of(u32::MAX), Err(ProcessError::Unreadable { .. })));
    }
}
