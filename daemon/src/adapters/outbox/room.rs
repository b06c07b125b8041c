//! How much more the outbox can take in, by the bytes that wait and by the space of the disk.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use quail_core::ports::outbox::Room;

/// When to try again while too much waits.
const BACKLOG_RETRY: Duration = Duration::from_secs(1);

/// When to try again while the disk is full.
const DISK_RETRY: Duration = Duration::from_secs(10);

/// How many senders share what is left while it is tight.
const SHARES: u64 = 64;

/// Smallest share of a sender, in bytes: whoever writes now and then is never above it.
const SHARE_BYTES_MIN: u64 = 64 * 1024;

/// The free-space mark where none is configured: this part of the file system, in percent...
const FREE_PERCENT: u64 = 10;

/// ...but no more than so many bytes.
const FREE_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;

/// Limits of what may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of events in memory that are not settled yet.
    pub unsettled_bytes: u64,
    /// Most bytes of the journal that the archive has not taken yet.
    pub unarchived_bytes: u64,
    /// Free space on disk below which no new message is taken; `None` for the smaller of 10 % and 2 GiB.
    pub free_bytes: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        let mib = 1024 * 1024;
        Self { unsettled_bytes: 256 * mib, unarchived_bytes: 4096 * mib, free_bytes: None }
    }
}

/// What is known of the room, kept by whoever changes it and read before every turn.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    pub(super) unsettled_bytes: AtomicU64,
    pub(super) unarchived_bytes: AtomicU64,
    disk_full: AtomicBool,
}

impl Gauge {
    /// Returns whether too much waits to be settled or archived.
    pub(super) fn is_backed_up(&self, limits: &Limits) -> bool {
        self.waiting(limits).iter().any(|(bytes, max)| bytes >= max)
    }

    fn waiting(&self, limits: &Limits) -> [(u64, u64); 2] {
        [
            (self.unsettled_bytes.load(Ordering::Relaxed), limits.unsettled_bytes),
            (self.unarchived_bytes.load(Ordering::Relaxed), limits.unarchived_bytes),
        ]
    }

    /// Returns whether the disk was full when it was looked at last.
    pub(super) fn is_disk_full(&self) -> bool {
        self.disk_full.load(Ordering::Relaxed)
    }

    pub(super) fn room(&self, limits: &Limits) -> Room {
        if self.is_disk_full() {
            return Room::Full { retry_after: DISK_RETRY };
        }
        let waiting = self.waiting(limits);
        if self.is_backed_up(limits) {
            return Room::Full { retry_after: BACKLOG_RETRY };
        }
        let tight = waiting.iter().filter(|(bytes, max)| *bytes >= max / 2).map(|(_, max)| max / 2).min();
        tight.map_or(Room::Open, |left| Room::Tight { share_bytes: (left / SHARES).max(SHARE_BYTES_MIN) })
    }

    /// Looks how much space is left where `path` lies. Returns whether that changed anything, and whether it is full now.
    pub(super) fn measure(&self, path: &Path, limits: &Limits) -> std::io::Result<(bool, bool)> {
        let space = space(path)?;
        let mark = limits.free_bytes.unwrap_or((space.total / 100 * FREE_PERCENT).min(FREE_BYTES_MAX));
        let full = space.free < mark;
        Ok((self.disk_full.swap(full, Ordering::Relaxed) != full, full))
    }
}

/// Space of a file system, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Space {
    pub(super) total: u64,
    /// What an unprivileged process may still use.
    pub(super) free: u64,
}

pub(super) fn space(path: &Path) -> std::io::Result<Space> {
    let figures = rustix::fs::statvfs(path)?;
    Ok(Space { total: figures.f_blocks * figures.f_frsize, free: figures.f_bavail * figures.f_frsize })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_open_then_tight_then_full_and_open_again() {
        let mib = 1024 * 1024;
        let limits = Limits { unsettled_bytes: 64 * mib, unarchived_bytes: 64 * mib, free_bytes: Some(0) };
        let gauge = Gauge::default();
        assert_eq!(gauge.room(&limits), Room::Open);
        gauge.unsettled_bytes.store(32 * mib, Ordering::Relaxed);
        assert_eq!(gauge.room(&limits), Room::Tight { share_bytes: mib / 2 });
        gauge.unarchived_bytes.store(64 * mib, Ordering::Relaxed);
        assert_eq!(gauge.room(&limits), Room::Full { retry_after: BACKLOG_RETRY });
        gauge.unsettled_bytes.store(0, Ordering::Relaxed);
        gauge.unarchived_bytes.store(0, Ordering::Relaxed);
        assert_eq!(gauge.room(&limits), Room::Open);
    }

    #[test]
    fn too_little_free_space_closes_it_until_there_is_more() {
        let (gauge, path) = (Gauge::default(), std::env::temp_dir());
        let limits = |free_bytes| Limits { free_bytes: Some(free_bytes), ..Limits::default() };
        assert_eq!(gauge.measure(&path, &limits(u64::MAX)).unwrap(), (true, true));
        assert_eq!(gauge.room(&limits(0)), Room::Full { retry_after: DISK_RETRY });
        assert_eq!(gauge.measure(&path, &limits(0)).unwrap(), (true, false));
        assert_eq!(gauge.room(&limits(0)), Room::Open);
    }
}
