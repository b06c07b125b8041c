//! What a device must remember from one run to the next.
//!
//! Two parts, because two processes of one device may share them out: one sends, the other receives. The publish part
//! is the device's own count of its sends, by which the server tells a message from its repetition. The feed part is the
//! device's count of attaches and how far it has acknowledged.
//!
//! Invariants: a send number is used only after a state with a higher `next_number` was saved; an attach number is used
//! only after it was saved. Losing the publish part makes a server refuse new messages of the device; losing the feed
//! part brings events a second time. Neither holds messages or secrets.

mod file;
mod memory;

use std::fmt;
use std::sync::Arc;

use quail_protocol::id::{AccountId, Origin, Position};

pub use file::FileStore;
pub use memory::MemoryStore;

/// A part of what a device remembers. Each has one owner at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The count of sends.
    Publish,
    /// The count of attaches and the cursors.
    Feed,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Publish => "publish",
            Self::Feed => "feed",
        })
    }
}

/// The publish part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishState {
    /// Every send number from here on is unused. Starts at 1.
    pub next_number: u64,
}

impl Default for PublishState {
    fn default() -> Self {
        Self { next_number: 1 }
    }
}

/// The feed part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedState {
    /// The attach number used last. Zero: none was.
    pub attach_number: u64,
    /// Up to where everything is acknowledged, per origin; the one that moved last stands last. At most
    /// [`CURSORS_MAX`](quail_protocol::limits::CURSORS_MAX).
    pub cursors: Vec<(Origin, Position)>,
}

/// Messages of a sender to this account that were read: at an origin those above `after`, up to and including `upto`.
///
/// Made by [`Message::mark`](crate::Message::mark). Whoever makes one of several messages answers for there being none between
/// them that the device did not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Who sent the messages.
    pub sender: AccountId,
    /// The origin of the messages.
    pub origin: Origin,
    /// Lower end, exclusive.
    pub after: Position,
    /// Upper end, inclusive.
    pub upto: Position,
}

/// Where a device keeps what it must remember.
///
/// Calls block and may take as long as a disk takes; the client makes them on threads that may block, at most one at a
/// time per part. `save_*` returns after the state is safe against a crash, or says that it is not.
pub trait Store: Send + Sync + 'static {
    /// Reads the publish part; the default if there is none yet.
    ///
    /// # Errors
    /// [`StoreError`]; the client then sends nothing.
    fn load_publish(&self) -> Result<PublishState, StoreError>;

    /// Replaces the publish part.
    ///
    /// # Errors
    /// [`StoreError`]; the client then sends nothing more.
    fn save_publish(&self, state: PublishState) -> Result<(), StoreError>;

    /// Reads the feed part; the default if there is none yet.
    ///
    /// # Errors
    /// [`StoreError`]; the client then receives nothing.
    fn load_feed(&self) -> Result<FeedState, StoreError>;

    /// Replaces the feed part.
    ///
    /// # Errors
    /// [`StoreError`]; the client then does not attach.
    fn save_feed(&self, state: &FeedState) -> Result<(), StoreError>;

    /// Reads the marks of what was read that the server has not answered; they belong to the feed part. A store that does not
    /// keep them has none.
    ///
    /// # Errors
    /// [`StoreError`]; the client then receives nothing.
    fn load_marks(&self) -> Result<Vec<Mark>, StoreError> {
        Ok(Vec::new())
    }

    /// Replaces those marks. At most [`MARKS_MAX`](crate::sending::MARKS_MAX).
    ///
    /// # Errors
    /// [`StoreError`]; the marks then live as long as the client.
    fn save_marks(&self, marks: &[Mark]) -> Result<(), StoreError> {
        let _ = marks;
        Ok(())
    }
}

impl<S: Store + ?Sized> Store for Arc<S> {
    fn load_publish(&self) -> Result<PublishState, StoreError> {
        (**self).load_publish()
    }

    fn save_publish(&self, state: PublishState) -> Result<(), StoreError> {
        (**self).save_publish(state)
    }

    fn load_feed(&self) -> Result<FeedState, StoreError> {
        (**self).load_feed()
    }

    fn save_feed(&self, state: &FeedState) -> Result<(), StoreError> {
        (**self).save_feed(state)
    }

    fn load_marks(&self) -> Result<Vec<Mark>, StoreError> {
        (**self).load_marks()
    }

    fn save_marks(&self, marks: &[Mark]) -> Result<(), StoreError> {
        (**self).save_marks(marks)
    }
}

/// Why a part could not be read or written. None of these helps itself; all are final for a client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process, or another store of this process, uses the part.
    #[error("the {part} state in {place} is in use by another process")]
    InUse {
        /// The part.
        part: Part,
        /// Where it is.
        place: String,
    },
    /// The part holds what no version of this crate wrote, or what a later one did.
    #[error("read the {part} state from {place}: {detail}")]
    Damaged {
        /// The part.
        part: Part,
        /// Where it is.
        place: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The system failed.
    #[error("{action} {place}: {detail}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// With what.
        place: String,
        /// What the system said.
        detail: String,
    },
    /// A store of the application failed.
    #[error("{detail}")]
    Other {
        /// What it said.
        detail: String,
    },
}
