//! A store that forgets: for tests, and for devices that live as long as their process.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{FeedChange, FeedState, PublishChange, PublishState, Store, StoreError};

/// Remembers in memory. Share it between clients of one device with `Arc`, one after the other.
///
/// A device whose credentials outlive the process needs a [`FileStore`](super::FileStore) instead: counting its sends
/// from 1 again, it would be refused with `NUMBER_REUSED` or `NUMBER_PASSED`.
#[derive(Debug, Default)]
pub struct MemoryStore {
    publish: Mutex<PublishState>,
    feed: Mutex<FeedState>,
}

impl MemoryStore {
    /// Returns a store that remembers nothing yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Store for MemoryStore {
    fn load_publish(&self) -> Result<PublishState, StoreError> {
        Ok(lock(&self.publish).clone())
    }

    fn commit_publish(&self, changes: &[PublishChange]) -> Result<(), StoreError> {
        let mut state = lock(&self.publish);
        changes.iter().for_each(|change| state.apply(change));
        Ok(())
    }

    fn load_feed(&self) -> Result<FeedState, StoreError> {
        Ok(lock(&self.feed).clone())
    }

    fn commit_feed(&self, changes: &[FeedChange]) -> Result<(), StoreError> {
        let mut state = lock(&self.feed);
        changes.iter().for_each(|change| state.apply(change));
        Ok(())
    }

    fn may_block(&self) -> bool {
        false
    }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    // Changes do not panic, so none is left half done.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
