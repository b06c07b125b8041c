//! The feed: taking events, watching for receipts.

use crate::{Client, Error, Events};

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
