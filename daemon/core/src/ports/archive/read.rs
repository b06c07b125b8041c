//! The reading side of the archive: pages of what an account may see, as plain structs.

use std::ops::Range;

use bytes::Bytes;
use quail_protocol::id::{AccountId, ConversationId, DeviceId, Origin, Position, Stamp};

use super::{ArchiveError, MessageRef, PAGE_BYTES_MAX, PAGE_ROW_BYTES, Term};
use crate::ports::directory::PortFuture;

/// Where a message stands in its conversation, for eyes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// First by stamp,
    pub stamp: Stamp,
    /// then by origin.
    pub origin: Origin,
}

/// What is left of a message for the account that asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// All of it.
    There {
        /// What the body is, as on the wire.
        kind: i32,
        /// The body, as last edited.
        body: Bytes,
    },
    /// That it was there: it was deleted for everybody.
    Deleted,
    /// That it was there: the account that asks has deleted it for itself. Only a sync tells.
    DeletedForMe,
}

/// A message as the archive has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchivedMessage {
    /// Its identity.
    pub message: MessageRef,
    /// Its conversation.
    pub conversation: ConversationId,
    /// The conversation's number of its last change.
    pub seq: u64,
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
    /// What is left of it.
    pub content: Content,
    /// When it was edited last, if it was.
    pub edited: Option<Stamp>,
    /// What it answers.
    pub reply: Option<MessageRef>,
    /// Who reacts with what, by account.
    pub reactions: Vec<(AccountId, String)>,
}

impl ArchivedMessage {
    /// Returns where it stands.
    pub fn place(&self) -> Place {
        Place { stamp: self.stamp, origin: self.origin }
    }
}

/// How far a marker says that messages came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reached {
    /// A device of the account has them.
    Delivered,
    /// The account has read them. Of others, only what they let be known.
    Read,
}

/// How far an account is in a conversation at an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Marker {
    /// Whose.
    pub account: AccountId,
    /// Delivered or read.
    pub reached: Reached,
    /// At which origin.
    pub origin: Origin,
    /// Up to here.
    pub position: Position,
}

/// A conversation in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConversationSummary {
    /// Which.
    pub conversation: ConversationId,
    /// With whom; the account that asks, for notes to oneself.
    pub peer: AccountId,
    /// Its latest change: where a sync goes on from.
    pub seq: u64,
    /// The newest message that the account has not deleted for itself.
    pub last: Option<ArchivedMessage>,
    /// Messages of others that were not read, counted up to [`UNREAD_MAX`](super::UNREAD_MAX).
    pub unread: u32,
    /// How far the accounts in it are, sorted.
    pub markers: Vec<Marker>,
}

/// Where a list of conversations goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConversationKey {
    /// Place of the newest message.
    pub place: Place,
    /// The conversation.
    pub conversation: ConversationId,
}

/// A page of conversations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConversationPage {
    /// At most [`CONVERSATIONS_PAGE`](super::CONVERSATIONS_PAGE), the newest message first.
    pub conversations: Vec<ConversationSummary>,
    /// Where the next page begins; `None` behind the last.
    pub next: Option<ConversationKey>,
}

/// A page of messages, or of what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// What is on it, in the order that was asked for.
    pub rows: Vec<T>,
    /// Whether there is more behind the last of them.
    pub more: bool,
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), more: false }
    }
}

/// Counts the bytes of a page, so that no question brings more into memory than an answer can carry. Every archive asks it
/// about each row before it reads the body.
///
/// Invariant: the first row always fits, so who pages gets on; behind one that did not, none does.
#[derive(Debug)]
pub struct PageRoom {
    left: usize,
    is_fresh: bool,
}

impl Default for PageRoom {
    fn default() -> Self {
        Self { left: PAGE_BYTES_MAX, is_fresh: true }
    }
}

impl PageRoom {
    /// Takes room for a row with a body of so many bytes, if there is some.
    pub fn take(&mut self, body_bytes: usize) -> bool {
        let left = self.left.checked_sub(body_bytes.saturating_add(PAGE_ROW_BYTES));
        let fits = left.is_some() || self.is_fresh;
        (self.left, self.is_fresh) = (left.unwrap_or(0), false);
        fits
    }
}

/// Which messages of a conversation to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Browse {
    /// The newest ones before a place, or the newest of all; newest first.
    Before(Option<Place>),
    /// The oldest ones behind a place, or the oldest of all; oldest first.
    After(Option<Place>),
}

/// What changed in a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Synced {
    /// These rows, tombstones among them, in the order of their seqs.
    Changed {
        /// The rows.
        rows: Vec<ArchivedMessage>,
        /// What to ask with next.
        seq: u64,
        /// Whether there is more now.
        more: bool,
    },
    /// What the archive keeps does not reach back so far, or not up to there: forget the conversation and read it anew.
    Reload {
        /// What to ask with when that is done.
        seq: u64,
    },
    /// There is no such conversation of the account that asks.
    Unknown,
}

impl Synced {
    /// Returns whether there are changes of which none had room.
    pub fn is_cut_off(&self) -> bool {
        matches!(self, Self::Changed { rows, more: true, .. } if rows.is_empty())
    }
}

/// The answer for one conversation of a sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncPage {
    /// Which.
    pub conversation: ConversationId,
    /// What changed.
    pub synced: Synced,
}

/// What to look for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// In this conversation only.
    pub conversation: Option<ConversationId>,
    /// All of these; without any nothing is found.
    pub terms: Vec<Term>,
    /// Sent by this account.
    pub from: Option<AccountId>,
    /// Not before this stamp.
    pub since: Option<Stamp>,
    /// Before this stamp.
    pub until: Option<Stamp>,
    /// Behind this place of the page before; the newest come first.
    pub before: Option<Place>,
    /// At most so many; [`MESSAGES_PAGE_MAX`](super::MESSAGES_PAGE_MAX) is the limit.
    pub limit: usize,
}

/// A message that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The message.
    pub message: ArchivedMessage,
    /// Which bytes of its body matched; rising, without overlaps. Empty where that cannot be said.
    pub highlights: Vec<Range<usize>>,
}

/// The reading side of the archive; any number may use it. Each call sees one state of the archive.
pub trait ReadArchive: Send + Sync {
    /// Lists the conversations of an account, the newest message first, behind `after`.
    ///
    /// # Errors
    /// `Unavailable`, `Damaged`.
    fn conversations(
        &self,
        account: AccountId,
        after: Option<ConversationKey>,
    ) -> PortFuture<'_, Result<ConversationPage, ArchiveError>>;

    /// Counts the messages of others in a conversation that the account has not read, up to [`UNREAD_MAX`](super::UNREAD_MAX): the
    /// number that a list shows.
    ///
    /// # Errors
    /// `UnknownConversation`, `Unavailable`, `Damaged`.
    fn unread(
        &self,
        account: AccountId,
        conversation: ConversationId,
    ) -> PortFuture<'_, Result<u32, ArchiveError>>;

    /// Returns messages of a conversation, at most `limit` and at most [`MESSAGES_PAGE_MAX`](super::MESSAGES_PAGE_MAX), as many as
    /// there is [room](PageRoom) for. What the account has deleted for itself is left out.
    ///
    /// # Errors
    /// `UnknownConversation`, `Unavailable`, `Damaged`.
    fn browse(
        &self,
        account: AccountId,
        conversation: ConversationId,
        which: Browse,
        limit: usize,
    ) -> PortFuture<'_, Result<Page<ArchivedMessage>, ArchiveError>>;

    /// Returns what changed in conversations behind these seqs; at most `limit` rows of each, and at most
    /// [`MESSAGES_PAGE_MAX`](super::MESSAGES_PAGE_MAX). The answers come in the order of the questions, all in one
    /// [room](PageRoom): where that ends, the conversation has more, and those behind it, or it too if none of its rows fits,
    /// are left out. The first answer is always there.
    ///
    /// # Errors
    /// `Unavailable`, `Damaged`.
    fn sync(
        &self,
        account: AccountId,
        behind: Vec<(ConversationId, u64)>,
        limit: usize,
    ) -> PortFuture<'_, Result<Vec<SyncPage>, ArchiveError>>;

    /// Searches plain text, the newest first; as many as there is [room](PageRoom) for.
    ///
    /// # Errors
    /// `UnknownConversation`, `Unavailable`, `Damaged`.
    fn search(&self, account: AccountId, search: Search)
    -> PortFuture<'_, Result<Page<Found>, ArchiveError>>;

    /// Returns up to where an origin is archived; `None` if nothing of it is.
    ///
    /// # Errors
    /// `Unavailable`, `Damaged`.
    fn archived_of(&self, origin: Origin) -> PortFuture<'_, Result<Option<Position>, ArchiveError>>;
}
