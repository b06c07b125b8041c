//! How the queue gets into the store and out of it.
//!
//! Changes gather while a commit is under way, so whoever sends at the same time shares one. A store that does not block
//! is told at once, under the lock, which keeps the order.

use std::sync::Weak;

use super::{Inner, Outgoing, Publish, charge};
use crate::Error;
use crate::shared::blocking;
use crate::store::{Part, PublishChange, PublishState, StoreError};

/// Changes on their way into the store.
struct Batch {
    changes: Vec<PublishChange>,
    answers: usize,
    tried: Option<u64>,
    /// The count of the last of them.
    upto: u64,
}

impl Publish {
    /// Reads what the device remembers, unless that was done. What is queued is sent from then on.
    pub(crate) async fn load(&self) -> Result<(), Error> {
        if self.lock().loaded {
            return Ok(());
        }
        let _guard = self.loading.lock().await;
        if self.lock().loaded {
            return Ok(());
        }
        let state = match self.store.may_block() {
            true => blocking(&self.store, |store| store.load_publish()).await?,
            false => self.store.load_publish()?,
        };
        self.restore(state)
    }

    fn restore(&self, state: PublishState) -> Result<(), Error> {
        let mut inner = self.lock();
        match state.owner {
            Some(got) if got != self.owner => {
                let (part, expected) = (Part::Publish, self.owner);
                return Err(StoreError::OtherDevice { part, expected, got }.into());
            }
            Some(_) => {}
            None => {
                inner.change(PublishChange::Owner(self.owner));
            }
        }
        inner.next_number = state.next_number.max(1);
        inner.seen = state.seen;
        let mut room = 0;
        for send in state.queue {
            let (number, message) = (send.number, Outgoing::from_stored(send));
            room += charge(message.len());
            inner.queue.push(number, message, Weak::new());
        }
        inner.queue.tried(state.tried_upto);
        state.answered.iter().for_each(|answer| inner.remember(answer));
        inner.refused = state.refused;
        inner.loaded = true;
        self.changed(&mut inner);
        drop(inner);
        self.room.forget_permits(room);
        self.announce();
        self.wake.notify_one();
        Ok(())
    }

    /// Sees to it that pending changes are committed: at once, or soon.
    pub(super) fn changed(&self, inner: &mut Inner) {
        if self.store.may_block() {
            self.commit_due.notify_one();
            return;
        }
        while inner.failed.is_none()
            && let Some(mut batch) = inner.take_batch()
        {
            if let Err(error) = self.store.commit_publish(&batch.changes) {
                // Whoever commits otherwise ends the client.
                inner.failed = Some(Error::Store(error));
                self.commit_due.notify_one();
            } else {
                self.done(inner, &batch);
                // The room for the next ones.
                batch.changes.clear();
                inner.pending = batch.changes;
            }
        }
    }

    /// Waits until there may be something to commit.
    pub(crate) async fn commit_due(&self) {
        self.commit_due.notified().await;
    }

    /// Commits everything that is pending. To be called by one task only, and not to be given up half way: what was taken
    /// out would be lost.
    pub(crate) async fn commit(&self) -> Result<(), Error> {
        loop {
            let batch = {
                let inner = &mut *self.lock();
                if let Some(error) = &inner.failed {
                    return Err(error.clone());
                }
                inner.take_batch()
            };
            let Some(mut batch) = batch else { return Ok(()) };
            let changes = std::mem::take(&mut batch.changes);
            blocking(&self.store, move |store| store.commit_publish(&changes)).await?;
            self.done(&mut self.lock(), &batch);
        }
    }

    fn done(&self, inner: &mut Inner, batch: &Batch) {
        inner.queue.settled(batch.answers);
        if let Some(upto) = batch.tried {
            inner.queue.tried(upto);
        }
        self.committed.send_replace(batch.upto);
        if inner.queue.has_unwritten() {
            self.wake.notify_one();
        }
    }

    /// Waits until a change is committed.
    ///
    /// # Errors
    /// Why it never will be.
    pub(crate) async fn committed(&self, change: u64) -> Result<(), Error> {
        // A store that does not block has it by now, and to subscribe costs more than to look.
        if *self.committed.borrow() >= change {
            return Ok(());
        }
        let mut committed = self.committed.subscribe();
        loop {
            if *committed.borrow_and_update() >= change {
                return Ok(());
            }
            if committed.changed().await.is_err() {
                return Err(self.lock().closed.clone().unwrap_or(Error::Closed));
            }
        }
    }
}

impl Inner {
    fn take_batch(&mut self) -> Option<Batch> {
        // Whatever a lane may write next becomes part of the same commit.
        let more = if self.lane_open { self.queue.try_more() } else { None };
        let tried = more.max(self.pending_tried.take());
        if let Some(upto) = tried {
            self.change(PublishChange::Tried(upto));
        }
        if self.pending.is_empty() {
            return None;
        }
        let changes = std::mem::take(&mut self.pending);
        let answers = std::mem::take(&mut self.pending_answers);
        Some(Batch { changes, answers, tried, upto: self.changes })
    }
}
