//! The queue of a device without a connection: looking at it and changing it while no client runs.
//!
//! Invariant: it is the same queue under the same rules as in a client, and it is locked as long as this lives.

use std::sync::Arc;

use quail_protocol::id::MessageId;

use crate::publish::Publish;
use crate::publish::changes::{ChangeError, QueuedMessage, RefusedMessage};
use crate::store::{Owner, Store};
use crate::{Body, Credentials, Error};

/// The queue of a device, without a connection. It sends nothing; while it lives, no client of the device sends. After an
/// error of the store it may show what is not in the store: open it anew.
///
/// ```no_run
/// # async fn example(credentials: quail_client::Credentials) -> Result<(), Box<dyn std::error::Error>> {
/// use quail_client::{FileStore, OfflineQueue};
///
/// let queue = OfflineQueue::open(&credentials, FileStore::open("/var/lib/weather-bot")?).await?;
/// for message in queue.queued().into_iter().filter(|message| !message.is_on_its_way) {
///     queue.cancel(message.id).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct OfflineQueue {
    publish: Publish,
}

impl OfflineQueue {
    /// Reads the queue of a store.
    ///
    /// # Errors
    /// [`Error::Store`], in particular [`StoreError::InUse`](crate::StoreError::InUse) if a client of the device sends.
    pub async fn open(credentials: &Credentials, store: impl Store) -> Result<Self, Error> {
        let owner = Owner { account: credentials.account, device: credentials.device };
        let publish = Publish::new(Arc::new(store), owner);
        publish.load().await?;
        Ok(Self { publish })
    }

    /// As [`Client::queued`](crate::Client::queued).
    pub fn queued(&self) -> Vec<QueuedMessage> {
        self.publish.list()
    }

    /// As [`Client::refused`](crate::Client::refused).
    pub fn refused(&self) -> Vec<RefusedMessage> {
        self.publish.refused()
    }

    /// As [`Client::cancel`](crate::Client::cancel).
    ///
    /// # Errors
    /// As there.
    pub async fn cancel(&self, id: MessageId) -> Result<(), ChangeError> {
        self.publish.cancel(id)?;
        Ok(self.publish.commit().await?)
    }

    /// As [`Client::edit_queued`](crate::Client::edit_queued).
    ///
    /// # Errors
    /// As there.
    pub async fn edit_queued(&self, id: MessageId, body: impl Into<Body>) -> Result<(), ChangeError> {
        self.publish.edit(id, body.into()).await?;
        Ok(self.publish.commit().await?)
    }

    /// As [`Client::take_note`](crate::Client::take_note).
    ///
    /// # Errors
    /// As there.
    pub async fn take_note(&self, id: MessageId) -> Result<(), Error> {
        self.publish.note(id);
        self.publish.commit().await
    }
}
