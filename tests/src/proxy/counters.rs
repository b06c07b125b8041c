//! What became of packets, counted.
//!
//! Invariant: what came in and what was doubled has gone out, was dropped for one of the causes, or is under way.

use std::sync::atomic::{AtomicU64, Ordering};

/// What became of the packets of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Came in.
    pub received: u64,
    /// Went out, second copies included.
    pub forwarded: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Dropped because nothing came through.
    pub blackholed: u64,
    /// Second copies made.
    pub duplicated: u64,
    /// Went on their way with a delay, second copies included.
    pub delayed: u64,
    /// Dropped because too many were under way.
    pub overflowed: u64,
    /// Not taken by the socket, mostly because nobody listens on the other side.
    pub refused: u64,
}

impl Counts {
    /// Returns how many are under way.
    pub fn under_way(&self) -> u64 {
        let gone = self.forwarded + self.lost + self.blackholed + self.overflowed + self.refused;
        (self.received + self.duplicated).saturating_sub(gone)
    }
}

/// The counters while they count.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) received: AtomicU64,
    pub(super) forwarded: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) blackholed: AtomicU64,
    pub(super) duplicated: AtomicU64,
    pub(super) delayed: AtomicU64,
    pub(super) overflowed: AtomicU64,
    pub(super) refused: AtomicU64,
}

/// Adds one to a counter.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn snapshot(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            received: read(&self.received),
            forwarded: read(&self.forwarded),
            lost: read(&self.lost),
            blackholed: read(&self.blackholed),
            duplicated: read(&self.duplicated),
            delayed: read(&self.delayed),
            overflowed: read(&self.overflowed),
            refused: read(&self.refused),
        }
    }
}
