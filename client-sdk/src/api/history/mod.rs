//! Reading history: conversations, their messages, what changed in them, and searching them.
//!
//! The server answers one page per question, so what comes page by page is a pager here, or a stream made of one: it asks when it is asked,
//! holds nothing between, and it or the future of a page may be dropped at any time. The archive of a server is written behind delivery; what this client knows to be
//! accepted is waited for, and what it holds that the archive does not have yet is shown beside it (`recent.rs`).
//!
//! Invariants: a pager shows no message twice and leaves out none that was there when it began; everything from the server is checked
//! before it is shown.

mod pagers;
mod read;
mod recent;
mod stream;
mod wire;

use quail_protocol::id::{AccountId, MessageId, Origin, Position, Stamp};

pub use pagers::{ConversationPager, HistoryPager, SearchPager, SyncPager};
pub(crate) use recent::Recent;

use quail_protocol::v1::{request, response};

use super::{Repeat, wrong_answer};
use crate::{Body, Client, Error};

/// Where a message stands in its conversation: first by stamp, then by origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HistoryPlace {
    /// The stamp.
    pub stamp: Stamp,
    /// The origin.
    pub origin: Origin,
}

/// Up to where the archive of the server was when it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Archived {
    /// The origin that answered.
    pub origin: Origin,
    /// Everything it decided up to here is in the answer, as far as it was asked for. A new device has caught up with what was before
    /// its feed when this is at or above the first position of the feed.
    pub position: Position,
    /// The server waited in vain for what this client knows to be accepted.
    pub behind: bool,
}

/// What is left of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remains {
    /// All of it.
    There(Body),
    /// That it was there: it was deleted for everybody.
    Deleted,
    /// That it was there: this account has deleted it for itself. Only a sync tells.
    DeletedForMe,
    /// Something that this version of the crate does not know.
    Unknown,
}

/// A message of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryMessage {
    /// Identity of the message, together with the sender.
    pub id: MessageId,
    /// Account that sent it.
    pub sender: AccountId,
    /// Account it is for.
    pub recipient: AccountId,
    /// Origin that accepted it.
    pub origin: Origin,
    /// Its position at the origin.
    pub position: Position,
    /// Sorts a conversation: by (stamp, origin).
    pub stamp: Stamp,
    /// The conversation's number of its last change; zero while the archive does not have it.
    pub seq: u64,
    /// What is left of it.
    pub content: Remains,
    /// Whether only the beginning of the body is here, as in a list of conversations.
    pub is_cut: bool,
    /// When it was edited last.
    pub edited: Option<Stamp>,
    /// Sender and id of the message that it answers.
    pub reply: Option<(AccountId, MessageId)>,
    /// Who reacts with what.
    pub reactions: Vec<(AccountId, String)>,
}

impl HistoryMessage {
    /// Returns where it stands.
    pub fn place(&self) -> HistoryPlace {
        HistoryPlace { stamp: self.stamp, origin: self.origin }
    }

    /// Returns whether the archive has it, or only this client does.
    pub fn is_archived(&self) -> bool {
        self.seq > 0
    }
}

/// How far an account is in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Marker {
    /// Whose.
    pub account: AccountId,
    /// Whether it has read them, or only got them.
    pub is_read: bool,
    /// At which origin.
    pub origin: Origin,
    /// Up to here.
    pub position: Position,
}

/// A conversation in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Conversation {
    /// With whom; the account itself for notes to oneself.
    pub peer: AccountId,
    /// Its latest change: what to [sync](Client::sync) from once its messages are read.
    pub seq: u64,
    /// The newest message, of which only the beginning may be here. None if all are deleted.
    pub last: Option<HistoryMessage>,
    /// Messages that were not read; [`UNREAD_MAX`](quail_protocol::limits::UNREAD_MAX) says so many or more.
    pub unread: u32,
    /// How far the accounts are.
    pub markers: Vec<Marker>,
    /// How the account wants to see it.
    pub flags: ConversationFlags,
}

/// How the account wants to see a conversation, on all of its devices. The server keeps it; what it means is up to the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConversationFlags {
    /// No noise is to be made about it.
    pub muted: bool,
    /// It is to stand above the others.
    pub pinned: bool,
    /// It is to be out of the list; many programs call that archived.
    pub put_away: bool,
}

/// A change of [`ConversationFlags`]. What is `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConversationChange {
    /// Whether no noise is to be made about it.
    pub muted: Option<bool>,
    /// Whether it is to stand above the others.
    pub pinned: Option<bool>,
    /// Whether it is to be out of the list.
    pub put_away: Option<bool>,
}

/// A page of something.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Up to where the archive was.
    pub archived: Archived,
}

/// A message that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// The message.
    pub message: HistoryMessage,
    /// Which bytes of its text match; each lies within it, between two characters.
    pub highlights: Vec<std::ops::Range<usize>>,
}

/// How a sync of a conversation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncState {
    /// With what changed.
    Changed,
    /// Changes are not kept so far back: forget the conversation and read it anew.
    Reload,
    /// The account has no such conversation.
    Unknown,
}

/// What changed in a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SyncedConversation {
    /// With whom.
    pub peer: AccountId,
    /// How it ends.
    pub state: SyncState,
    /// What to ask with next; to be kept together with the messages.
    pub seq: u64,
    /// Each as it is now, in the order of the changes; those that are deleted among them.
    pub messages: Vec<HistoryMessage>,
}

/// Which way to read a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The newest before a place, or of all; newest first.
    Older,
    /// The oldest behind a place, or of all; oldest first.
    Newer,
}

impl Client {
    /// Lists the conversations of the account, the newest message first, page by page. From then on
    /// [`Event::Unread`](crate::Event::Unread) says when the number of unread messages changes, as long as the connection lasts: a
    /// program that shows the list asks for it again after it was connected anew.
    pub fn conversations(&self) -> ConversationPager {
        ConversationPager::new(self)
    }

    /// Says how the account wants to see its conversation with `peer`. Returns once the server has it.
    ///
    /// # Errors
    /// [`Error::Refused`] with `UNKNOWN_CONVERSATION` or `NO_HISTORY`, or temporarily with `ARCHIVE_UNAVAILABLE`, `RATE_LIMITED`,
    /// `DIRECTORY_UNAVAILABLE`; [`Error::TimedOut`] if the server cannot be reached; the reason if the client has ended.
    pub async fn set_conversation(&self, peer: AccountId, change: ConversationChange) -> Result<(), Error> {
        let shared = self.shared();
        let asked = wire::change(peer, change, shared.recent.accepted());
        match shared.ask("set_conversation", request::Command::SetConversation(asked), Repeat::Yes).await? {
            response::Result::Done(_) => Ok(()),
            _ => Err(wrong_answer("set_conversation")),
        }
    }

    /// Reads the conversation with an account, page by page, from a place on or from the end; at most `limit` messages a page, of which
    /// the server gives at most 100. The account itself has notes to oneself.
    ///
    /// From the first page on the client keeps the last messages that it sends and hands out, so that those are shown which the
    /// archive does not have yet; `HistoryMessage::is_archived` tells them apart.
    pub fn history(
        &self,
        peer: AccountId,
        direction: Direction,
        from: Option<HistoryPlace>,
        limit: u32,
    ) -> HistoryPager {
        self.shared().recent.keep();
        HistoryPager::new(self, peer, (direction, from), limit)
    }

    /// Searches all conversations, or the one with `peer`, the newest first, page by page: words, `prefix*` (three characters
    /// at least, otherwise a word), `"a phrase"`, `from:handle`, `before:2026-11-21`, `after:2026-11-01`. No text is an error.
    pub fn search(&self, text: &str, peer: Option<AccountId>, limit: u32) -> SearchPager {
        SearchPager::new(self, text, peer, limit)
    }

    /// Asks what changed in conversations: for each the seq up to which everything is here. Zero is everything.
    pub fn sync(&self, known: impl IntoIterator<Item = (AccountId, u64)>) -> SyncPager {
        SyncPager::new(self, known.into_iter().collect())
    }
}
