//! Looking at the queue and changing what is in it: what an application does with messages that are not on their way.
//!
//! Invariant: a message that may have been written to a connection is never changed; one that was cancelled is never
//! written, not even after a crash, because the caller is answered after the commit.

use std::sync::Arc;

use quail_protocol::id::{AccountId, MessageId, Stamp};
use tokio::sync::SemaphorePermit;

use super::queue::Fixed;
use super::{Publish, charge, ticket_of};
use crate::content;
use crate::error::Refusal;
use crate::sending::Ticket;
use crate::store::{PublishChange, RefusedSend};
use crate::{Body, Content, Error, SendError};

/// A message or a change in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueuedMessage {
    /// Identity of the message.
    pub id: MessageId,
    /// Account it is for.
    pub recipient: AccountId,
    /// What it says.
    pub content: Content,
    /// Whether it may have been written to a connection; then it can no longer be changed.
    pub is_on_its_way: bool,
}

/// A message or a change that was refused for good, until the application takes note of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefusedMessage {
    /// Identity of the message. One that is changed and sent again gets a new one.
    pub id: MessageId,
    /// Account it was for.
    pub recipient: AccountId,
    /// What it says.
    pub content: Content,
    /// What the server said.
    pub refusal: Refusal,
}

/// Why a message in the queue was not changed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// No message of this id is in the queue: it was answered, or never sent by this device.
    #[error("no message {0} is in the queue")]
    NotQueued(MessageId),
    /// It may have been written to a connection, or it was accepted. What the server has is not taken back.
    #[error("message {0} is on its way")]
    OnItsWay(MessageId),
    /// It is a change of another message, which has no body to be replaced. It can be cancelled.
    #[error("{0} is a change of another message")]
    NotAMessage(MessageId),
    /// The new body cannot be sent, or the client has ended or cannot read its store.
    #[error(transparent)]
    Client(#[from] Error),
}

impl ChangeError {
    fn of(id: MessageId) -> impl Fn(Fixed) -> Self {
        move |fixed| match fixed {
            Fixed::Unknown => Self::NotQueued(id),
            Fixed::OnItsWay => Self::OnItsWay(id),
        }
    }
}

impl Refusal {
    /// Reads a refusal as it was kept.
    pub(crate) fn from_store(refused: &RefusedSend) -> Self {
        let error = quail_protocol::v1::Error { reason: refused.reason, ..Default::default() };
        Self { text: refused.text.clone(), ..Self::from_wire(error) }
    }
}

impl Publish {
    /// Returns the largest stamp that was accepted, as far as it is known.
    pub(crate) fn seen(&self) -> Stamp {
        self.lock().seen
    }

    /// Lists what is queued, in the order in which it is sent.
    pub(crate) fn list(&self) -> Vec<QueuedMessage> {
        let inner = self.lock();
        let listed = inner.queue.iter().map(|(queued, is_on_its_way)| QueuedMessage {
            id: queued.message.id,
            recipient: queued.message.recipient,
            content: Content::of(queued.message.kind, &queued.message.body, &queued.message.extra),
            is_on_its_way,
        });
        listed.collect()
    }

    /// Returns the number and the ticket of a message that is queued, was accepted not long ago, or was refused and not
    /// noted.
    pub(crate) fn attach(&self, id: MessageId) -> Option<(u64, Arc<Ticket>)> {
        let inner = &mut *self.lock();
        if let Some(queued) = inner.queue.find(id) {
            return Some((queued.number, ticket_of(queued)));
        }
        if let Some((_, accepted)) = inner.answered.get(&id) {
            return Some((0, Ticket::accepted_before(*accepted)));
        }
        let refused = inner.refused.iter().find(|refused| refused.send.id == id)?;
        let error = SendError::Refused(Refusal::from_store(refused));
        Some((refused.send.number, Ticket::refused_before(error)))
    }

    /// Lists what was refused for good and not noted.
    pub(crate) fn refused(&self) -> Vec<RefusedMessage> {
        let refused = self.lock().refused.clone();
        let message = |refused: &RefusedSend| RefusedMessage {
            id: refused.send.id,
            recipient: refused.send.recipient,
            content: Content::of(refused.send.kind, &refused.send.body, &refused.send.extra),
            refusal: Refusal::from_store(refused),
        };
        refused.iter().map(message).collect()
    }

    /// The application knows that this message was refused. Returns the change to wait for, if there is one.
    pub(crate) fn note(&self, id: MessageId) -> Option<u64> {
        let inner = &mut *self.lock();
        let before = inner.refused.len();
        inner.refused.retain(|refused| refused.send.id != id);
        if inner.refused.len() == before {
            return None;
        }
        let change = inner.change(PublishChange::Noted(id));
        self.changed(inner);
        Some(change)
    }

    /// Takes a message out of the queue that was not written yet; returns the change to wait for.
    pub(crate) fn cancel(&self, id: MessageId) -> Result<u64, ChangeError> {
        let inner = &mut *self.lock();
        let cancelled = inner.queue.cancel(id).map_err(ChangeError::of(id))?;
        let change = inner.change(PublishChange::Cancelled(cancelled.number));
        self.changed(inner);
        self.room.add_permits(charge(cancelled.message.len()));
        if let Some(ticket) = cancelled.waiter.upgrade() {
            ticket.decide(Err(SendError::Cancelled));
        }
        Ok(change)
    }

    /// Gives a message another body that was not written yet; returns the change to wait for. A longer body waits for the
    /// room that the old one does not have.
    pub(crate) async fn edit(&self, id: MessageId, body: Body) -> Result<u64, ChangeError> {
        let (kind, body) = body.into_wire()?;
        let mut more: Option<SemaphorePermit<'_>> = None;
        loop {
            let missing = {
                let inner = &mut *self.lock();
                let queued = inner.queue.unwritten(id).map_err(ChangeError::of(id))?;
                if content::is_change(&queued.message.extra) {
                    return Err(ChangeError::NotAMessage(id));
                }
                let needed = charge(body.len() + queued.message.extra.len());
                let has =
                    charge(queued.message.len()) + more.as_ref().map_or(0, SemaphorePermit::num_permits);
                if has >= needed {
                    (queued.message.kind, queued.message.body) = (kind, body);
                    let stored = queued.message.to_stored(queued.number);
                    let change = inner.change(PublishChange::Edited(stored));
                    self.changed(inner);
                    // It is the message's now, and given back with it.
                    more.into_iter().for_each(SemaphorePermit::forget);
                    self.room.add_permits(has - needed);
                    return Ok(change);
                }
                needed - has
            };
            let Ok(room) = self.room.acquire_many(missing as u32).await else {
                return Err(self.lock().closed.clone().unwrap_or(Error::Closed).into());
            };
            match &mut more {
                Some(more) => more.merge(room),
                None => more = Some(room),
            }
        }
    }
}
