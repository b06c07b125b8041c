//! A store that forgets: for tests, and for devices that live as long as their process.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{FeedState, Mark, PublishState, Store, StoreError};

/// Remembers in memory. Share it between clients of one device with `Arc`, one after the other.
///
/// A device whose credentials outlive the process needs a [`FileStore`](super::FileStore) instead: counting its sends
/// from 1 again, it would be refused with `NUMBER_REUSED` or `NUMBER_PASSED`.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<(PublishState, FeedState, Vec<Mark>)>,
}

impl MemoryStore {
    /// Returns a store that remembers nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, (PublishState, FeedState, Vec<Mark>)> {
        // Each is replaced in one go, so a panic elsewhere cannot have left half of one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn load_publish(&self) -> Result<PublishState, StoreError> {
        Ok(self.lock().0)
    }

    fn save_publish(&self, state: PublishState) -> Result<(), StoreError> {
        self.lock().0 = state;
        Ok(())
    }

    fn load_feed(&self) -> Result<FeedState, StoreError> {
        Ok(self.lock().1.clone())
    }

    fn save_feed(&self, state: &FeedState) -> Result<(), StoreError> {
        self.lock().1 = state.clone();
        Ok(())
    }

    fn load_marks(&self) -> Result<Vec<Mark>, StoreError> {
        Ok(self.lock().2.clone())
    }

    fn save_marks(&self, marks: &[Mark]) -> Result<(), StoreError> {
        self.lock().2 = marks.to_vec();
        Ok(())
    }
}
