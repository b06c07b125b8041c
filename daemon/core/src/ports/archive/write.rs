//! The writing side of the archive: batches of one origin, and what could not be written.

use bytes::Bytes;
pub use quail_protocol::id::MessageRef;
use quail_protocol::id::{AccountId, ConversationId, DeviceId, Origin, Position, Stamp};
use sha2::{Digest, Sha256};

use super::{ArchiveError, direct};
use crate::ports::directory::PortFuture;

/// A message as an origin accepted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMessage {
    /// Its identity.
    pub message: MessageRef,
    /// The device that sent it.
    pub device: DeviceId,
    /// Whom it is for.
    pub recipient: AccountId,
    /// The origin that accepted it.
    pub origin: Origin,
    /// Its position there.
    pub position: Position,
    /// Sorts it, together with the origin.
    pub stamp: Stamp,
    /// What the body is, as on the wire.
    pub kind: i32,
    /// The body.
    pub body: Bytes,
    /// What it answers.
    pub reply: Option<MessageRef>,
}

impl NewMessage {
    /// Returns the conversation it belongs to.
    pub fn conversation(&self) -> ConversationId {
        direct(self.message.sender, self.recipient)
    }

    /// Returns the first half of a SHA-256 over recipient, kind and body: copies of one message have the same.
    pub fn hash(&self) -> [u8; 16] {
        let mut hash = Sha256::new();
        hash.update(self.recipient.as_bytes());
        hash.update(self.kind.to_be_bytes());
        hash.update(&self.body);
        let mut half = [0; 16];
        half.copy_from_slice(&hash.finalize()[..16]);
        half
    }
}

/// What becomes of a message afterwards. It may come before the message; that is then not shown until it is there. One that names
/// another recipient than the message has is of another conversation, and counts for nothing: who has no part in a conversation
/// could say so of any message whose id it knows. While the message is not there, the first recipient named counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which message.
    pub message: MessageRef,
    /// Whom the message is for: with its sender that names the conversation.
    pub recipient: AccountId,
    /// The origin that accepted the change.
    pub origin: Origin,
    /// Of two of a kind the greater (stamp, origin) wins.
    pub stamp: Stamp,
    /// What.
    pub kind: ChangeKind,
}

impl Change {
    /// Returns whether the account that says so is one of the two in the conversation. Else it counts for nothing, like one of
    /// another conversation.
    pub fn is_from_inside(&self) -> bool {
        match &self.kind {
            ChangeKind::Edit { .. } | ChangeKind::DeleteForAll => true,
            ChangeKind::DeleteForMe { account } | ChangeKind::React { account, .. } => {
                [self.message.sender, self.recipient].contains(account)
            }
        }
    }
}

/// A kind of change. Edits and deletions for all are the sender's own, by whom the message is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It has another body.
    Edit {
        /// What the body is, as on the wire.
        kind: i32,
        /// The body.
        body: Bytes,
    },
    /// It is gone for everybody: its body is forgotten, and that it was there stays. No edit brings it back.
    DeleteForAll,
    /// It is gone for one account.
    DeleteForMe {
        /// Which.
        account: AccountId,
    },
    /// Somebody reacts to it, or no longer does.
    React {
        /// Who.
        account: AccountId,
        /// With what; `None` takes it back.
        reaction: Option<String>,
    },
}

/// How far an account is in a direct conversation. Markers merge by the greatest position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Advance {
    /// Whose messages.
    pub sender: AccountId,
    /// Who got or read them.
    pub account: AccountId,
    /// At which origin.
    pub origin: Origin,
    /// Up to here they were delivered.
    pub delivered: Option<Position>,
    /// Up to here they were read.
    pub read: Option<Position>,
    /// Up to here the sender may know that they were read.
    pub read_told: Option<Position>,
}

/// What could not be archived, kept aside until an operator looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Names it; given by the archive, zero before.
    pub number: u64,
    /// The origin of the event.
    pub origin: Origin,
    /// Its position there.
    pub position: Position,
    /// Why it could not be archived.
    pub error: String,
    /// The event's frame as it was journalled.
    pub frame: Bytes,
    /// What else the writer needs to try again, in a form of its own.
    pub context: Bytes,
}

/// What is applied at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchiveBatch {
    /// Whose journal it is from: the origin whose [`upto`](Self::upto) this moves.
    pub origin: Option<Origin>,
    /// With this batch everything of the origin up to here is archived.
    pub upto: Position,
    /// New messages.
    pub messages: Vec<NewMessage>,
    /// What becomes of messages.
    pub changes: Vec<Change>,
    /// How far accounts are.
    pub advances: Vec<Advance>,
    /// What cannot be archived.
    pub dead: Vec<DeadLetter>,
}

/// A copy of a message that is not the message it says to be: same sender and id, other content. It is not archived, or not
/// any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loser {
    /// The identity that both have.
    pub message: MessageRef,
    /// The origin that accepted the one that lost.
    pub origin: Origin,
    /// Its position there.
    pub position: Position,
}

/// What a batch came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Messages that were not there before.
    pub inserted: u64,
    /// Copies that lost.
    pub losers: Vec<Loser>,
}

/// The writing side of the archive. Calls may overlap; each is one transaction.
pub trait WriteArchive: Send + Sync {
    /// Applies a batch in one transaction, and sets `archived` of its origin to its `upto`, durably. Of a batch whose `upto` is
    /// archived already nothing is applied.
    ///
    /// # Errors
    /// `Refused` if something in it can never be archived: then nothing of it was. `Unavailable`, `Damaged`.
    fn apply<'a>(&'a self, batch: &'a ArchiveBatch) -> PortFuture<'a, Result<Applied, ArchiveError>>;

    /// Returns up to where an origin is archived; `None` if nothing of it is.
    ///
    /// # Errors
    /// `Unavailable`, `Damaged`.
    fn archived(&self, origin: Origin) -> PortFuture<'_, Result<Option<Position>, ArchiveError>>;

    /// Lists what could not be archived, by number, above `after`, at most `limit`.
    ///
    /// # Errors
    /// `Unavailable`, `Damaged`.
    fn dead(&self, after: u64, limit: u32) -> PortFuture<'_, Result<Vec<DeadLetter>, ArchiveError>>;

    /// Applies what a dead letter holds, without moving `archived`, and removes the letter, in one transaction. Returns `None` if
    /// there is no such letter; then nothing is applied.
    ///
    /// # Errors
    /// As [`apply`](Self::apply); the letter stays.
    fn revive<'a>(
        &'a self,
        number: u64,
        batch: &'a ArchiveBatch,
    ) -> PortFuture<'a, Result<Option<Applied>, ArchiveError>>;

    /// Forgets a dead letter. Returns whether there was one.
    ///
    /// # Errors
    /// `Unavailable`, `Damaged`.
    fn drop_dead(&self, number: u64) -> PortFuture<'_, Result<bool, ArchiveError>>;
}
