//! The publish part: the queue of messages, and what was answered.
//!
//! The client never replaces a part; it commits changes. [`PublishState::apply`] says what each change means, and every
//! store must come to the same state by whatever means it has.
//!
//! Invariants: numbers in the queue rise and are below `next_number`; a message is in the queue, or among the answers,
//! never in both.

use std::collections::VecDeque;

use bytes::Bytes;
use quail_protocol::id::{AccountId, MessageId, Stamp};
use sha2::{Digest, Sha256};

use super::Owner;
use crate::Accepted;

/// How many accepted messages are remembered, so that sending one again by its id is known for what it is.
pub const ANSWERS_KEPT_MAX: usize = 4096;

/// How many refused messages are kept until the application has taken note of them; the oldest makes room.
pub const REFUSALS_KEPT_MAX: usize = 1024;

/// A message that has no answer yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedSend {
    /// The device's own number of this send.
    pub number: u64,
    /// Identity of the message.
    pub id: MessageId,
    /// Account it is for.
    pub recipient: AccountId,
    /// What the body is, as a number of the protocol.
    pub kind: i32,
    /// The body.
    pub body: Bytes,
    /// The fields of the send behind its body, as they travel: what it answers, or which change it is. Nothing for most.
    pub extra: Bytes,
}

impl QueuedSend {
    /// Returns what tells this message from another one with the same id.
    pub fn digest(&self) -> [u8; 16] {
        let hash = Sha256::new()
            .chain_update(self.recipient.as_bytes())
            .chain_update(self.kind.to_le_bytes())
            .chain_update(&self.body)
            .finalize();
        let hash = match &self.extra[..] {
            [] => hash,
            extra => Sha256::new().chain_update(hash).chain_update(extra).finalize(),
        };
        let mut digest = [0; 16];
        digest.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        digest
    }
}

/// A message that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnsweredSend {
    /// The number under which it was answered.
    pub number: u64,
    /// Identity of the message.
    pub id: MessageId,
    /// [`QueuedSend::digest`] of the message.
    pub digest: [u8; 16],
    /// Where it is.
    pub accepted: Accepted,
}

/// A message that was refused for good, until the application takes note of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedSend {
    /// The message, with the number under which it was refused.
    pub send: QueuedSend,
    /// The reason, as a number of the protocol.
    pub reason: i32,
    /// What the server said, for people and logs.
    pub text: String,
}

/// The publish part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishState {
    /// Whose it is; nobody's yet if no client has opened it.
    pub owner: Option<Owner>,
    /// Every send number from here on is unused. Starts at 1.
    pub next_number: u64,
    /// Sends up to this number may have been written to a connection.
    pub tried_upto: u64,
    /// The largest stamp that was accepted.
    pub seen: Stamp,
    /// What has no answer, by rising number.
    pub queue: VecDeque<QueuedSend>,
    /// What was accepted, in that order; at most [`ANSWERS_KEPT_MAX`].
    pub answered: VecDeque<AnsweredSend>,
    /// What was refused for good, by rising number; at most [`REFUSALS_KEPT_MAX`].
    pub refused: VecDeque<RefusedSend>,
}

impl Default for PublishState {
    fn default() -> Self {
        Self {
            owner: None,
            next_number: 1,
            tried_upto: 0,
            seen: Stamp::default(),
            queue: VecDeque::new(),
            answered: VecDeque::new(),
            refused: VecDeque::new(),
        }
    }
}

/// A change of the publish part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishChange {
    /// The part belongs to this device from now on.
    Owner(Owner),
    /// A message is queued. Its number is above all before.
    Queued(QueuedSend),
    /// Sends up to this number may be written to a connection from now on.
    Tried(u64),
    /// A queued message has another body now; it was written nowhere.
    Edited(QueuedSend),
    /// The message of this number is not to be sent any more; it was written nowhere.
    Cancelled(u64),
    /// The message of the first number has the second one from now on, and is the last of the queue.
    Renumbered(u64, u64),
    /// A message was accepted.
    Accepted(AnsweredSend),
    /// The message of `send.number` was refused for good.
    Refused(RefusedSend),
    /// The application has taken note that this message was refused.
    Noted(MessageId),
    /// The largest stamp that was accepted is this, be it smaller than before.
    Seen(Stamp),
}

impl PublishState {
    /// Makes a change. One that is about a message which is not there changes nothing.
    pub fn apply(&mut self, change: &PublishChange) {
        match change {
            PublishChange::Owner(owner) => self.owner = Some(*owner),
            PublishChange::Queued(send) => {
                self.next_number = self.next_number.max(send.number.saturating_add(1));
                self.queue.push_back(send.clone());
            }
            PublishChange::Tried(upto) => self.tried_upto = self.tried_upto.max(*upto),
            PublishChange::Edited(send) => {
                if let Some(at) = self.find(send.number) {
                    self.queue[at] = send.clone();
                }
            }
            PublishChange::Cancelled(number) => drop(self.take(*number)),
            PublishChange::Renumbered(from, to) => {
                if let Some(send) = self.take(*from) {
                    self.apply(&PublishChange::Queued(QueuedSend { number: *to, ..send }));
                }
            }
            PublishChange::Accepted(answer) => {
                drop(self.take(answer.number));
                self.seen = self.seen.max(answer.accepted.stamp);
                push_bounded(&mut self.answered, *answer, ANSWERS_KEPT_MAX);
            }
            PublishChange::Refused(refused) => {
                drop(self.take(refused.send.number));
                push_bounded(&mut self.refused, refused.clone(), REFUSALS_KEPT_MAX);
            }
            PublishChange::Noted(id) => self.refused.retain(|refused| refused.send.id != *id),
            PublishChange::Seen(stamp) => self.seen = *stamp,
        }
    }

    fn find(&self, number: u64) -> Option<usize> {
        self.queue.binary_search_by_key(&number, |send| send.number).ok()
    }

    fn take(&mut self, number: u64) -> Option<QueuedSend> {
        self.find(number).and_then(|at| self.queue.remove(at))
    }
}

/// Appends; the oldest makes room.
pub(super) fn push_bounded<T>(list: &mut VecDeque<T>, item: T, max: usize) {
    list.push_back(item);
    if list.len() > max {
        list.pop_front();
    }
}
