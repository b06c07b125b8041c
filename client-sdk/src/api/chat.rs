//! Chat: sending messages.

use quail_protocol::id::{AccountId, MessageId};

use crate::{Body, Client, Content, Error, Sending};

/// Mints the identity of a new message: a UUID version 7 of the present time. Two calls never return the same.
pub fn new_message_id() -> MessageId {
    MessageId(uuid::Uuid::now_v7().into_bytes())
}

impl Client {
    /// Sends a message to an account, which may be one's own.
    ///
    /// Returns as soon as the message is safe in the queue of the store: with a [`FileStore`](crate::FileStore), whatever
    /// happens to the process from then on, it is sent, once, by this client or the next one of the device. The handle tells
    /// when it is accepted and delivered. The message is sent again, under the same identity, over reconnects and temporary
    /// refusals until the server has decided. Messages of one client are accepted in the order of their sending.
    ///
    /// Each call waits for the disk. Calls that are made at the same time share that, and [`Client::send_all`] makes many
    /// at once.
    ///
    /// Waits while the queue is full: at most [`QUEUED_MESSAGES_MAX`](crate::sending::QUEUED_MESSAGES_MAX) messages and
    /// [`QUEUED_BYTES_MAX`](crate::sending::QUEUED_BYTES_MAX) bytes are without an answer. A future that is dropped before it
    /// returns has sent the message or not.
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
        let content = body.into().into();
        let (sending, change) = self.enqueue(new_message_id(), to, content, true).await?;
        self.shared().committed(change).await?;
        Ok(sending)
    }

    /// Sends many messages to an account, in order, and returns when all of them are safe in the queue.
    ///
    /// Waits while the queue is full, as [`Client::send`] does. After an error, and if the future is dropped, the first of
    /// them may have been sent; with [`Client::send_with_id`] a program can tell which.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn send_all(
        &self,
        to: AccountId,
        bodies: impl IntoIterator<Item = impl Into<Body>>,
    ) -> Result<Vec<Sending>, Error> {
        let messages = bodies.into_iter().map(|body| (new_message_id(), body.into()));
        self.send_all_with_ids(to, messages).await
    }

    /// Sends a message under an identity that was minted before, by [`new_message_id`].
    ///
    /// For programs that know by themselves what they have to send: mint the id, store it with the message, send; after a
    /// crash send everything again under the same ids. A message that is in the queue already, is among the last
    /// [`ANSWERS_KEPT_MAX`](crate::store::ANSWERS_KEPT_MAX) that were accepted, or was refused and not
    /// [noted](Client::take_note), is not sent again; the handle is that of the earlier one. The server takes the same
    /// message once, and readers show it once, however often it comes. Ids older than 60 days are refused.
    ///
    /// # Errors
    /// As [`Client::send`], [`Error::IdInvalid`], and [`Error::IdTaken`] if another message was sent under this id.
    pub async fn send_with_id(
        &self,
        id: MessageId,
        to: AccountId,
        body: impl Into<Body>,
    ) -> Result<Sending, Error> {
        let (sending, change) = self.enqueue_with_id(id, to, body.into().into()).await?;
        self.shared().committed(change).await?;
        Ok(sending)
    }

    /// Sends many messages under identities that were minted before; [`Client::send_all`] and [`Client::send_with_id`] in
    /// one.
    ///
    /// # Errors
    /// As [`Client::send_with_id`].
    pub async fn send_all_with_ids(
        &self,
        to: AccountId,
        messages: impl IntoIterator<Item = (MessageId, impl Into<Body>)>,
    ) -> Result<Vec<Sending>, Error> {
        let (mut sendings, mut last) = (Vec::new(), 0);
        for (id, body) in messages {
            let (sending, change) = self.enqueue_with_id(id, to, body.into().into()).await?;
            last = last.max(change);
            sendings.push(sending);
        }
        self.shared().committed(last).await?;
        Ok(sendings)
    }

    pub(super) async fn enqueue_with_id(
        &self,
        id: MessageId,
        to: AccountId,
        content: Content,
    ) -> Result<(Sending, u64), Error> {
        match id.unix_ms() {
            Some(_) => self.enqueue(id, to, content, false).await,
            None => Err(Error::IdInvalid(id)),
        }
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

    pub(super) async fn enqueue(
        &self,
        id: MessageId,
        to: AccountId,
        content: Content,
        is_new: bool,
    ) -> Result<(Sending, u64), Error> {
        let shared = self.shared();
        let message = content.into_outgoing(id, to)?;
        let (number, ticket, change) = shared.publish.queue(message, is_new).await?;
        Ok((Sending::new(id, number, ticket, shared.clone()), change))
    }
}
