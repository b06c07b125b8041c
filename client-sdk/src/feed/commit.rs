//! How what the feed must remember gets into the store and out of it.
//!
//! Changes gather while a commit is under way, so whatever happens at the same time shares one. A store that does not block
//! is told at once, under the lock, which keeps the order.
//!
//! Invariant: what was taken out of the pending changes is committed, or the client ends.

use super::Feed;
use super::inbox::{Batch, Inbox};
use crate::Error;
use crate::shared::blocking;
use crate::store::{FeedState, Part, StoreError};

impl Feed {
    /// Reads what the device remembers, unless that was done.
    pub(super) async fn load(&self) -> Result<(), Error> {
        let mut loaded = self.loaded.lock().await;
        if !*loaded {
            let state = match self.store.may_block() {
                true => blocking(&self.store, |store| store.load_feed()).await?,
                false => self.store.load_feed()?,
            };
            self.restore(state)?;
            *loaded = true;
        }
        Ok(())
    }

    fn restore(&self, state: FeedState) -> Result<(), Error> {
        let owner = state.owner;
        if let Some(got) = owner.filter(|got| *got != self.owner) {
            let (part, expected) = (Part::Feed, self.owner);
            return Err(StoreError::OtherDevice { part, expected, got }.into());
        }
        let inbox = &mut *self.inbox();
        *inbox = Inbox::restore(state);
        if owner.is_none() {
            inbox.belongs_to(self.owner);
            self.changed(inbox);
        }
        Ok(())
    }

    /// Waits until there may be something to commit.
    pub(crate) async fn commit_due(&self) {
        self.commit_due.notified().await;
    }

    /// Commits everything that is pending. To be called by one task only, and not to be given up half way: what was taken
    /// out would be lost.
    pub(crate) async fn commit(&self) -> Result<(), Error> {
        loop {
            if let Some(error) = self.failed.get() {
                return Err(error.clone());
            }
            if !self.store.may_block() {
                // What fails says so in the next turn.
                let inbox = &mut *self.inbox();
                if !inbox.has_changes() {
                    return Ok(());
                }
                self.changed(inbox);
                continue;
            }
            let Some(mut batch) = self.inbox().take_batch() else { return Ok(()) };
            let changes = std::mem::take(&mut batch.changes);
            blocking(&self.store, move |store| store.commit_feed(&changes)).await?;
            self.done(&mut self.inbox(), &batch);
        }
    }

    /// Sees to it that pending changes are committed: at once, or soon.
    pub(super) fn changed(&self, inbox: &mut Inbox) {
        if self.store.may_block() {
            self.commit_due.notify_one();
            return;
        }
        while self.failed.get().is_none()
            && let Some(mut batch) = inbox.take_batch()
        {
            if let Err(error) = self.store.commit_feed(&batch.changes) {
                // Whoever commits otherwise ends the client.
                self.failed.get_or_init(|| error.into());
                self.commit_due.notify_one();
            } else {
                self.done(inbox, &batch);
                inbox.reuse(std::mem::take(&mut batch.changes));
            }
        }
    }

    fn done(&self, inbox: &mut Inbox, batch: &Batch) {
        if inbox.committed(batch) {
            self.ack_due.notify_one();
        }
        self.committed.send_replace(batch.upto);
    }
}
