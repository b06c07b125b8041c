//! What a device must remember from one run to the next.
//!
//! Two parts, because two processes of one device may share them out: one sends, the other receives. The publish part
//! ([`PublishState`]) is the queue of messages with their numbers, by which the server tells a message from its
//! repetition. The feed part ([`FeedState`]) is how far the device has acknowledged, what it has shown, and what the
//! application had in hand when the process ended.
//!
//! Invariants: a message is written to a connection only after it and [`PublishChange::Tried`] were committed; an attach
//! number is used, an event handed out and an acknowledgement written only after they were committed. Losing the publish
//! part loses what was queued and makes a server refuse new messages of the device; losing the feed part brings events a
//! second time. Bodies of queued messages are in it; no token or password is.

mod codec;
#[cfg(test)]
mod conformance;
mod feed;
mod file;
mod memory;
mod migrate;
mod publish;
mod tables;

use std::fmt;
use std::sync::Arc;

use quail_protocol::id::{AccountId, DeviceId};

pub use feed::{
    FeedChange, FeedState, Hand, Mark, MessageKey, Place, SET_ASIDE_MAX, SHOWN_MESSAGES_MAX, Standing,
};
pub use file::FileStore;
pub use memory::MemoryStore;
pub use publish::{
    ANSWERS_KEPT_MAX, AnsweredSend, PublishChange, PublishState, QueuedSend, REFUSALS_KEPT_MAX, RefusedSend,
};

/// A part of what a device remembers. Each has one owner at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The queue of messages.
    Publish,
    /// The cursors and what was shown.
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

/// Whose a part is. Send numbers and cursors mean nothing to another device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The account.
    pub account: AccountId,
    /// The device of the account.
    pub device: DeviceId,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "device {} of account {}", self.device, self.account)
    }
}

/// Where a device keeps what it must remember.
///
/// The client makes at most one call at a time per part. A commit returns after all of its changes are safe against a
/// crash of the process and of the machine, or says that they are not; then it has made all of them or none.
pub trait Store: Send + Sync + 'static {
    /// Reads the publish part; the default if there is none yet.
    ///
    /// # Errors
    /// [`StoreError`]; the client then sends nothing.
    fn load_publish(&self) -> Result<PublishState, StoreError>;

    /// Changes the publish part, in order, in one commit.
    ///
    /// # Errors
    /// [`StoreError`]; the client then ends.
    fn commit_publish(&self, changes: &[PublishChange]) -> Result<(), StoreError>;

    /// Reads the feed part; the default if there is none yet.
    ///
    /// # Errors
    /// [`StoreError`]; the client then receives nothing.
    fn load_feed(&self) -> Result<FeedState, StoreError>;

    /// Changes the feed part, in order, in one commit.
    ///
    /// # Errors
    /// [`StoreError`]; the client then ends.
    fn commit_feed(&self, changes: &[FeedChange]) -> Result<(), StoreError>;

    /// Returns whether calls may take as long as a disk takes. The client then makes them on threads that may block, and
    /// gathers changes while one is under way.
    fn may_block(&self) -> bool {
        true
    }
}

impl<S: Store + ?Sized> Store for Arc<S> {
    fn load_publish(&self) -> Result<PublishState, StoreError> {
        (**self).load_publish()
    }

    fn commit_publish(&self, changes: &[PublishChange]) -> Result<(), StoreError> {
        (**self).commit_publish(changes)
    }

    fn load_feed(&self) -> Result<FeedState, StoreError> {
        (**self).load_feed()
    }

    fn commit_feed(&self, changes: &[FeedChange]) -> Result<(), StoreError> {
        (**self).commit_feed(changes)
    }

    fn may_block(&self) -> bool {
        (**self).may_block()
    }
}

/// Why a part could not be read or written. None of these helps itself; all are final for a client. What was committed
/// before stays, so the next client goes on with it once the cause is gone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process, or another store of this process, uses the part. Wait for it, or give each its own device.
    #[error("the {part} state in {place} is in use by another process")]
    InUse {
        /// The part.
        part: Part,
        /// Where it is.
        place: String,
    },
    /// The part is another device's. Each device needs a store of its own; whoever opened this one is to blame.
    #[error("the {part} state belongs to {got}, not to {expected}")]
    OtherDevice {
        /// The part.
        part: Part,
        /// Who opened it.
        expected: Owner,
        /// Whose it is.
        got: Owner,
    },
    /// A later version of this crate wrote the part. Nothing was changed. Update the program.
    #[error("the {part} state in {place} has format {format}, which is newer than this version knows")]
    Newer {
        /// The part.
        part: Part,
        /// Where it is.
        place: String,
        /// Its format.
        format: u64,
    },
    /// The part holds what no version of this crate wrote. Nothing was put in its place. Restore it from nowhere: a copy of
    /// an earlier day would use numbers again. Log in as a new device, with an empty store.
    #[error("the {part} state in {place} is damaged: {detail}")]
    Damaged {
        /// The part.
        part: Part,
        /// Where it is.
        place: String,
        /// What is wrong with it.
        detail: String,
    },
    /// There is no space left. Make some, then open the client again.
    #[error("no space left for {place}")]
    Full {
        /// What was to be written.
        place: String,
    },
    /// This process may not write there, or nobody may. Change the permissions, or choose another place.
    #[error("{place} may not be written: {detail}")]
    NotWritable {
        /// What was to be written.
        place: String,
        /// What the system said.
        detail: String,
    },
    /// The system failed otherwise.
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
