//! The feed: taking events, watching for receipts.

use crate::{Client, Error, Events, Mark};

impl Client {
    /// Attaches the feed of the device and returns its events. Works once per client.
    ///
    /// A newer client of the same device that does the same takes over: this one's events then end with
    /// [`Error::Replaced`].
    ///
    /// # Errors
    /// [`Error::EventsTaken`]; [`Error::Store`], in particular
    /// [`StoreError::InUse`](crate::store::StoreError::InUse) if another process receives for this device; the reason if
    /// the client has ended.
    pub async fn events(&self) -> Result<Events, Error> {
        let shared = self.shared();
        let receiver = shared.feed.take_events().await?;
        shared.recall_seen();
        Ok(Events::new(receiver, shared.clone()))
    }

    /// Says that messages were read: their sender is told, unless the account does not [want](Client::set_read_receipts) that,
    /// and the account's other devices are in any case. Only this does so; taking and acknowledging a message does not.
    ///
    /// Returns once the marks are saved. They are written when the messages are acknowledged, over reconnects and, with a
    /// store that lasts, over restarts, until the server has them. To say the same again changes nothing. Attaches the feed,
    /// as [`Client::watch_receipts`] does, and waits while [`MARKS_MAX`](crate::sending::MARKS_MAX) are without an answer.
    ///
    /// ```no_run
    /// # async fn example(client: quail_client::Client, message: quail_client::Message) -> Result<(), quail_client::Error> {
    /// client.read([message.mark()]).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Client::watch_receipts`].
    pub async fn read(&self, marks: impl IntoIterator<Item = Mark>) -> Result<(), Error> {
        let shared = self.shared();
        shared.feed.watch_receipts().await?;
        tokio::select! {
            marked = shared.reads.mark(&shared.feed, marks.into_iter()) => marked,
            reason = shared.wait_for_end() => Err(reason),
        }
    }

    /// Attaches the feed for receipts only, so that [`Sending::delivered`](crate::Sending::delivered) resolves.
    ///
    /// Messages are neither handed out nor acknowledged; they stay at the server for whoever takes events later, also
    /// in this client. The server stops after 256 events without acknowledgement, so behind as many waiting messages no
    /// receipt comes through.
    ///
    /// # Errors
    /// As [`Client::events`], without `EventsTaken`.
    pub async fn watch_receipts(&self) -> Result<(), Error> {
        let shared = self.shared();
        shared.feed.watch_receipts().await?;
        shared.recall_seen();
        Ok(())
    }
}
