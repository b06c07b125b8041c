//! The handle of one message on its way.
//!
//! A message goes its way without the handle; the handle is for those who want to know. It is also the reason to
//! remember: a message whose handle was dropped is not watched for its receipt.
//!
//! Invariant: each of the three answers is given once and stays; any number of tasks may wait for it, before and after.

use std::sync::{Arc, OnceLock};

use quail_protocol::id::{MessageId, Origin, Position, Stamp};
use tokio::sync::Notify;

use crate::publish::changes::ChangeError;
use crate::shared::Shared;
use crate::{Body, Error, SendError};

pub use crate::feed::TRACKED_MESSAGES_MAX;
pub use crate::publish::{QUEUED_BYTES_MAX, QUEUED_MESSAGES_MAX};
pub use crate::reads::MARKS_MAX;

/// Where an accepted message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Origin that answers for the message.
    pub origin: Origin,
    /// Position at the origin.
    pub position: Position,
    /// Sorts the message in its conversation, together with the origin.
    pub stamp: Stamp,
}

/// The handle of one message on its way. Clones are the same handle; dropping it stops nothing but the watching.
///
/// ```no_run
/// # async fn example(client: quail_client::Client, peer: quail_client::AccountId) -> Result<(), Box<dyn std::error::Error>> {
/// let sending = client.send(peer, "hello").await?;
/// let accepted = sending.accepted().await?;
/// println!("{} is safe at position {}", sending.id(), accepted.position);
/// sending.delivered().await?;
/// println!("and has arrived");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Sending {
    id: MessageId,
    number: u64,
    ticket: Arc<Ticket>,
    shared: Arc<Shared>,
}

impl Sending {
    pub(crate) fn new(id: MessageId, number: u64, ticket: Arc<Ticket>, shared: Arc<Shared>) -> Self {
        Self { id, number, ticket, shared }
    }

    /// Returns the identity of the message, together with its sender.
    pub fn id(&self) -> MessageId {
        self.id
    }

    /// Returns the number under which this handle met the message: the device's own count of its sends. Zero if the message
    /// was accepted before.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Waits until the server has the message on disk.
    ///
    /// Waits across reconnects and temporary refusals, without limit: put a timeout around it where that matters; the
    /// message stays on its way.
    ///
    /// # Errors
    /// [`SendError::Refused`] is the server's last word, and stays to be seen in
    /// [`Client::refused`](crate::Client::refused); [`SendError::Cancelled`]; [`SendError::Stopped`] if the client ended
    /// first.
    pub async fn accepted(&self) -> Result<Accepted, SendError> {
        self.ticket.accepted().await
    }

    /// Waits until a device of the recipient has acknowledged the message.
    ///
    /// That takes as long as the recipient is away: put a timeout around it. Receipts come over the feed, so this
    /// attaches it, as [`Client::watch_receipts`](crate::Client::watch_receipts) does, unless it is attached already.
    ///
    /// # Errors
    /// As [`Sending::accepted`]; [`SendError::FeedEnded`] if receipts can no longer arrive, also when the feed could
    /// not be attached; [`SendError::Unwatched`] if more than [`TRACKED_MESSAGES_MAX`] later messages wait as well, or if it is a
    /// deletion for oneself, which nobody else gets.
    pub async fn delivered(&self) -> Result<(), SendError> {
        self.reached(Progress::Delivered).await
    }

    /// Waits until a device of the recipient said that the message was read. A message that was read was delivered.
    ///
    /// That may never happen: the recipient may keep to himself what he reads. Put a timeout around it. Otherwise as
    /// [`Sending::delivered`].
    ///
    /// # Errors
    /// As [`Sending::delivered`].
    pub async fn read(&self) -> Result<(), SendError> {
        self.reached(Progress::Read).await
    }

    async fn reached(&self, progress: Progress) -> Result<(), SendError> {
        if let Some(Err(error)) = self.ticket.decided.get() {
            return Err(error.clone());
        }
        if let Some(received) = self.ticket.received(progress).get() {
            return received.clone();
        }
        self.shared.feed.watch_receipts().await.map_err(SendError::FeedEnded)?;
        self.ticket.accepted().await?;
        self.ticket.wait(self.ticket.received(progress)).await
    }
}

impl Sending {
    /// Takes the message out of the queue, if it was written to no connection yet; see
    /// [`Client::cancel`](crate::Client::cancel).
    ///
    /// # Errors
    /// As [`Client::cancel`](crate::Client::cancel).
    pub async fn cancel(&self) -> Result<(), ChangeError> {
        self.shared.cancel(self.id).await
    }

    /// Gives the message another body, if it was written to no connection yet; see
    /// [`Client::edit_queued`](crate::Client::edit_queued).
    ///
    /// # Errors
    /// As [`Client::edit_queued`](crate::Client::edit_queued).
    pub async fn edit_queued(&self, body: impl Into<Body>) -> Result<(), ChangeError> {
        self.shared.edit(self.id, body.into()).await
    }
}

/// How far an accepted message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Progress {
    Delivered,
    Read,
}

/// What the lanes know of a handle.
#[derive(Debug, Default)]
pub(crate) struct Ticket {
    decided: OnceLock<Result<Accepted, SendError>>,
    delivered: OnceLock<Result<(), SendError>>,
    read: OnceLock<Result<(), SendError>>,
    changed: Notify,
}

impl Ticket {
    /// Makes the ticket of a message that was accepted in an earlier run; its receipt may have come and gone.
    pub(crate) fn accepted_before(accepted: Accepted) -> Arc<Self> {
        let ticket = Self::default();
        ticket.decide(Ok(accepted));
        ticket.unwatched();
        Arc::new(ticket)
    }

    /// Makes the ticket of a message that was refused in an earlier run.
    pub(crate) fn refused_before(error: SendError) -> Arc<Self> {
        let ticket = Self::default();
        ticket.decide(Err(error));
        Arc::new(ticket)
    }

    /// Nobody will see a receipt.
    pub(crate) fn unwatched(&self) {
        for progress in [Progress::Delivered, Progress::Read] {
            self.receive(progress, Err(SendError::Unwatched));
        }
    }

    /// The server has decided, or will not.
    pub(crate) fn decide(&self, outcome: Result<Accepted, SendError>) {
        // A second outcome cannot come; if it did, the first stands.
        let _ = self.decided.set(outcome);
        self.changed.notify_waiters();
    }

    /// A receipt has come, or will not.
    pub(crate) fn receive(&self, progress: Progress, outcome: Result<(), SendError>) {
        // What came first stands, as above.
        let _ = self.received(progress).set(outcome);
        self.changed.notify_waiters();
    }

    /// No receipt comes any more.
    pub(crate) fn end(&self, reason: &Error) {
        for progress in [Progress::Delivered, Progress::Read] {
            self.receive(progress, Err(SendError::FeedEnded(reason.clone())));
        }
    }

    fn received(&self, progress: Progress) -> &OnceLock<Result<(), SendError>> {
        match progress {
            Progress::Delivered => &self.delivered,
            Progress::Read => &self.read,
        }
    }

    pub(crate) async fn accepted(&self) -> Result<Accepted, SendError> {
        self.wait(&self.decided).await
    }

    async fn wait<T: Clone>(&self, answer: &OnceLock<T>) -> T {
        loop {
            // Made before looking, so that an answer in between is not missed.
            let changed = self.changed.notified();
            if let Some(answer) = answer.get() {
                return answer.clone();
            }
            changed.await;
        }
    }
}
