//! How the writer is asked to stop, and how long it may take.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Asks a thread to come to an end in time.
#[derive(Debug, Default)]
pub struct Stop {
    deadline: Mutex<Option<Instant>>,
    asked: Condvar,
}

impl Stop {
    /// Asks to stop, within so long.
    pub fn ask(&self, within: Duration) {
        self.lock().get_or_insert(Instant::now() + within);
        self.asked.notify_all();
    }

    /// Returns whether it is asked to stop.
    pub fn is_asked(&self) -> bool {
        self.lock().is_some()
    }

    /// Returns how long it may still take, once it is asked.
    pub(super) fn left(&self) -> Option<Duration> {
        self.lock().map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    pub(super) fn is_over(&self) -> bool {
        self.left().is_some_and(|left| left.is_zero())
    }

    /// Waits, at most until it is asked to stop; returns whether it is.
    pub(super) fn wait(&self, pause: Duration) -> bool {
        let waited = self.asked.wait_timeout_while(self.lock(), pause, |deadline| deadline.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
