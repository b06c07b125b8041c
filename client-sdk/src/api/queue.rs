//! The queue: what is waiting to be sent, and what was refused.

use quail_protocol::id::MessageId;

use crate::publish::changes::{ChangeError, QueuedMessage, RefusedMessage};
use crate::shared::Shared;
use crate::{Body, Client, Error, Sending};

impl Client {
    /// Lists the messages that have no answer yet, those of earlier runs included, in the order in which they are sent.
    ///
    /// # Errors
    /// [`Error::Store`] if the store cannot be read.
    pub async fn queued(&self) -> Result<Vec<QueuedMessage>, Error> {
        self.shared().publish.load().await?;
        Ok(self.shared().publish.list())
    }

    /// Returns a handle of a message that was sent before, perhaps in an earlier run: one that is in the queue, is among the
    /// last [`ANSWERS_KEPT_MAX`](crate::store::ANSWERS_KEPT_MAX) that were accepted, or was refused and not noted. `None` if
    /// nothing is known of it.
    ///
    /// # Errors
    /// [`Error::Store`] if the store cannot be read.
    pub async fn sending(&self, id: MessageId) -> Result<Option<Sending>, Error> {
        let shared = self.shared();
        shared.publish.load().await?;
        let attached = shared.publish.attach(id);
        Ok(attached.map(|(number, ticket)| Sending::new(id, number, ticket, shared.clone())))
    }

    /// Takes a message out of the queue. When this returns, it is sent by nobody any more.
    ///
    /// Only what was written to no connection can be taken back. While the client is online that is what is more than two
    /// windows of unanswered messages behind the first; while it is not, it is everything that was queued since.
    ///
    /// # Errors
    /// [`ChangeError::OnItsWay`], [`ChangeError::NotQueued`], and [`ChangeError::Client`] if the store cannot be read or
    /// written.
    pub async fn cancel(&self, id: MessageId) -> Result<(), ChangeError> {
        self.shared().cancel(id).await
    }

    /// Gives a message in the queue another body, under the same id and in the same place of the order. The limits are those
    /// of [`Client::cancel`]. A message that was accepted is edited by [`Client::edit`].
    ///
    /// # Errors
    /// As [`Client::cancel`]; [`ChangeError::NotAMessage`]; and if the body cannot be sent, as [`Client::send`].
    pub async fn edit_queued(&self, id: MessageId, body: impl Into<Body>) -> Result<(), ChangeError> {
        self.shared().edit(id, body.into()).await
    }

    /// Lists the messages that were refused for good and that nobody has [taken note](Client::take_note) of, those of
    /// earlier runs included. At most [`REFUSALS_KEPT_MAX`](crate::store::REFUSALS_KEPT_MAX) are kept.
    ///
    /// # Errors
    /// [`Error::Store`] if the store cannot be read.
    pub async fn refused(&self) -> Result<Vec<RefusedMessage>, Error> {
        self.shared().publish.load().await?;
        Ok(self.shared().publish.refused())
    }

    /// Takes note that a message was refused, so that it is not listed any more.
    ///
    /// # Errors
    /// [`Error::Store`] if the store cannot be read or written.
    pub async fn take_note(&self, id: MessageId) -> Result<(), Error> {
        let shared = self.shared();
        shared.publish.load().await?;
        match shared.publish.note(id) {
            Some(change) => shared.committed(change).await,
            None => Ok(()),
        }
    }
}

impl Shared {
    /// Waits until a change of the queue is committed.
    pub(crate) async fn committed(&self, change: u64) -> Result<(), Error> {
        tokio::select! {
            biased;
            committed = self.publish.committed(change) => committed,
            reason = self.wait_for_end() => Err(reason),
        }
    }

    pub(crate) async fn cancel(&self, id: MessageId) -> Result<(), ChangeError> {
        self.publish.load().await?;
        let change = self.publish.cancel(id)?;
        self.publish.announce();
        Ok(self.committed(change).await?)
    }

    pub(crate) async fn edit(&self, id: MessageId, body: Body) -> Result<(), ChangeError> {
        self.publish.load().await?;
        let change = self.publish.edit(id, body).await?;
        Ok(self.committed(change).await?)
    }
}
