//! Chat: sending messages.

use std::sync::Arc;

use quail_protocol::id::{AccountId, MessageId};

use crate::sending::Ticket;
use crate::{Body, Client, Error, Sending};

/// Mints the identity of a new message: a UUID version 7 of the present time. Two calls never return the same.
pub fn new_message_id() -> MessageId {
    MessageId(uuid::Uuid::now_v7().into_bytes())
}

impl Client {
    /// Sends a message to an account, which may be one's own.
    ///
    /// Returns as soon as the message is in the queue; the handle tells when it is accepted and delivered. The message
    /// is sent again, under the same identity, over reconnects and temporary refusals until the server has decided.
    /// Messages of one client are accepted in the order of their sending. The queue is in memory: a program that must
    /// not lose messages when it ends keeps them itself and uses [`Client::send_with_id`].
    ///
    /// Waits while the queue is full: at most [`QUEUED_MESSAGES_MAX`](crate::sending::QUEUED_MESSAGES_MAX) messages and
    /// [`QUEUED_BYTES_MAX`](crate::sending::QUEUED_BYTES_MAX) bytes are without an answer. Dropping the future before it
    /// returns sends nothing.
    ///
    /// ```no_run
    /// # async fn example(client: quail_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let peer = client.look_up("ada").await?;
    /// let sending = client.send(peer.account, "hello").await?;
    /// sending.accepted().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::BodyTooLarge`] and [`Error::TextHasNul`] at once; [`Error::Store`] if the device's count of sends cannot
    /// be saved; the reason if the client has ended.
    pub async fn send(&self, to: AccountId, body: impl Into<Body>) -> Result<Sending, Error> {
        self.enqueue(new_message_id(), to, body.into()).await
    }

    /// Sends a message under an identity that was minted before, by [`new_message_id`].
    ///
    /// For programs that keep their own queue: mint the id, store the message with it, send; after a crash send again
    /// what has no answer, under the same id. The server takes the same message once, however often it comes. Ids older
    /// than 60 days are refused.
    ///
    /// # Errors
    /// As [`Client::send`], and [`Error::IdInvalid`].
    pub async fn send_with_id(
        &self,
        id: MessageId,
        to: AccountId,
        body: impl Into<Body>,
    ) -> Result<Sending, Error> {
        if id.unix_ms().is_none() {
            return Err(Error::IdInvalid(id));
        }
        self.enqueue(id, to, body.into()).await
    }

    /// Tells the devices of an account that are online now that its person is typing to it, or is not any more.
    ///
    /// To be called with every key, and with `false` when the message is sent or given up: only what is news is sent, and that it
    /// goes on every 3 s. Nothing is stored, waited for or promised; without a connection it is forgotten.
    pub fn typing(&self, to: AccountId, active: bool) {
        self.shared().signals.say(to, active);
    }

    /// Waits until every message sent so far is accepted or refused for good. Waits without limit while the server
    /// cannot be reached.
    ///
    /// # Errors
    /// The reason if the client ends first.
    pub async fn flush(&self) -> Result<(), Error> {
        let shared = self.shared();
        tokio::select! {
            biased;
            () = shared.publish.flushed() => Ok(()),
            reason = shared.wait_for_end() => Err(reason),
        }
    }

    async fn enqueue(&self, id: MessageId, to: AccountId, body: Body) -> Result<Sending, Error> {
        let shared = self.shared();
        let ticket = Arc::new(Ticket::default());
        let number = shared.publish.send(&shared.store, id, to, body, &ticket).await?;
        Ok(Sending::new(id, number, ticket, shared.clone()))
    }
}
