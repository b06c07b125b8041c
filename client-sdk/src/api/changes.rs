//! Changing what was said: replies, edits, deletions, reactions.

use quail_protocol::id::{AccountId, MessageId, MessageRef};

use super::chat::new_message_id;
use crate::{Body, Change, Client, Content, Error, Sending};

impl Client {
    /// Sends a message that answers another one of the same conversation.
    ///
    /// ```no_run
    /// # async fn example(client: quail_client::Client, asked: quail_client::Message) -> Result<(), quail_client::Error> {
    /// client.reply(asked.sender, asked.reference(), "yes").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn reply(
        &self,
        to: AccountId,
        message: MessageRef,
        body: impl Into<Body>,
    ) -> Result<Sending, Error> {
        let (body, reply_to) = (body.into(), Some(message));
        self.say(to, Content::Message { body, reply_to }).await
    }

    /// Gives a message another body that this account sent to `to`, from whichever device. The server takes it from nobody else: whose
    /// message it is, is not said but known.
    ///
    /// A change is sent as a message is: durable in the queue when this returns, accepted once, in the order of the device, delivered
    /// to every device of both accounts but this one. The handle tells how far it is.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn edit(&self, to: AccountId, id: MessageId, body: impl Into<Body>) -> Result<Sending, Error> {
        self.say(to, Change::Edit { id, body: body.into() }.into()).await
    }

    /// Deletes a message for everybody that this account sent to `to`. Who has seen it has seen it, and clients that do not keep to the
    /// protocol may keep it.
    ///
    /// A server allows it only for so long, 48 hours unless its operator says otherwise; then it refuses with
    /// [`TooLate`](crate::Reason::TooLate), which [`Sending::accepted`] tells.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn delete_for_all(&self, to: AccountId, id: MessageId) -> Result<Sending, Error> {
        self.say(to, Change::DeleteForAll { id }.into()).await
    }

    /// Deletes a message of the conversation with `peer` for this account, on all of its devices. Nobody else learns of it, so there is
    /// no receipt.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn delete_for_me(&self, peer: AccountId, message: MessageRef) -> Result<Sending, Error> {
        self.say(peer, Change::DeleteForMe { message }.into()).await
    }

    /// Reacts to a message of the conversation with `peer`, in the place of an earlier reaction of this account. An empty text takes
    /// it back.
    ///
    /// # Errors
    /// As [`Client::send`], and [`Error::ReactionTooLong`].
    pub async fn react(
        &self,
        peer: AccountId,
        message: MessageRef,
        text: impl Into<String>,
    ) -> Result<Sending, Error> {
        self.say(peer, Change::React { message, text: text.into() }.into()).await
    }

    /// Sends whatever can be said, under an identity that was minted before; as [`Client::send_with_id`].
    ///
    /// # Errors
    /// As [`Client::send_with_id`], and [`Error::ReactionTooLong`].
    pub async fn say_with_id(
        &self,
        id: MessageId,
        to: AccountId,
        content: impl Into<Content>,
    ) -> Result<Sending, Error> {
        let (sending, change) = self.enqueue_with_id(id, to, content.into()).await?;
        self.shared().committed(change).await?;
        Ok(sending)
    }

    async fn say(&self, to: AccountId, content: Content) -> Result<Sending, Error> {
        let (sending, change) = self.enqueue(new_message_id(), to, content, true).await?;
        self.shared().committed(change).await?;
        Ok(sending)
    }
}
