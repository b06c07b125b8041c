//! The archive port: the durable, complete history of conversations.
//!
//! The archive is written behind the outbox, from the journal, and is never in its way: nothing waits for it but the space of the
//! journal. It stands behind two narrow traits, one to write and one to read, because the writer must not be able to answer
//! queries and a query must not be able to write; and because it lies in a file of its own or in a database of the network.
//!
//! Invariants every implementation keeps, proven by the suite in `conformance`:
//! - a batch is one transaction with `archived(origin) = upto`, and durable when it is answered: what is archived is never ahead
//!   of the rows;
//! - a message is known by (sender, id) and is there once; to apply again what was applied changes nothing;
//! - of two copies the smaller (stamp, origin) stays; of changes of one kind the latest (stamp, origin) wins; so the order in which
//!   batches of several origins come does not matter for what is there;
//! - every insert, edit, deletion, reaction and move takes the next seq of its conversation, and a row has that of its last change;
//! - who asks is answered for conversations of their own only; those of others are unknown, like those that do not exist.

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod read;
mod search;
mod twin;
mod words;
mod write;

use quail_protocol::id::{AccountId, ConversationId};
use sha2::{Digest, Sha256};

pub use read::{
    ArchivedMessage, Browse, Content, ConversationKey, ConversationPage, ConversationSummary, Found, Marker,
    Page, PageRoom, Place, Reached, ReadArchive, Search, SyncPage, Synced,
};
pub use search::{SEARCH_PREFIX_MIN, SEARCH_TERMS_MAX, SEARCH_TEXT_BYTES_MAX, SearchText, Term};
pub use twin::TwinArchive;
pub use words::{hits, words};
pub use write::{
    Advance, Applied, ArchiveBatch, Change, ChangeKind, DeadLetter, Loser, MessageRef, NewMessage,
    WriteArchive,
};

pub use quail_protocol::limits::CONVERSATIONS_PAGE;

/// Most messages in one page.
pub const MESSAGES_PAGE_MAX: usize = quail_protocol::limits::HISTORY_PAGE_MAX;

/// Most bytes of one page, of a body and [`PAGE_ROW_BYTES`] for each row. As much as a frame holds; only a first row that has more is
/// there all the same.
pub const PAGE_BYTES_MAX: usize = quail_protocol::limits::FRAME_BYTES_MAX;

/// What a row counts beside its body: about as much as its ids and numbers take.
pub const PAGE_ROW_BYTES: usize = 100;

/// Unread messages are counted up to here.
pub const UNREAD_MAX: u32 = quail_protocol::limits::UNREAD_MAX as u32;

/// What the hash of a direct conversation begins with, so that it is no hash of anything else.
const DIRECT_DOMAIN: &[u8] = b"quail direct conversation\0";

/// Returns the id of the direct conversation of two accounts, whoever is named first; of one account with itself too. It names
/// the conversation in storage only.
pub fn direct(one: AccountId, other: AccountId) -> ConversationId {
    let mut hash = Sha256::new();
    hash.update(DIRECT_DOMAIN);
    hash.update(one.min(other).as_bytes());
    hash.update(one.max(other).as_bytes());
    let mut half = [0; 16];
    half.copy_from_slice(&hash.finalize()[..16]);
    ConversationId(half)
}

/// Why the archive did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// It cannot be reached now; the same may succeed later.
    #[error("the archive cannot be reached: {reason}")]
    Unavailable {
        /// What went wrong.
        reason: String,
    },
    /// It refuses something in the batch, and always will. The rest of the batch is not to blame.
    #[error("the archive refuses what it is given: {reason}")]
    Refused {
        /// What went wrong.
        reason: String,
    },
    /// What it holds is not what was written, or not in the form this daemon knows. An operator has to look.
    #[error("the archive is damaged: {reason}")]
    Damaged {
        /// What was found.
        reason: String,
    },
    /// There is no such conversation of the account that asks.
    #[error("there is no such conversation")]
    UnknownConversation,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direct_conversation_has_one_id_and_no_other_has_it() {
        let (ada, bob, eve) = (AccountId([1; 16]), AccountId([2; 16]), AccountId([3; 16]));
        assert_eq!(direct(ada, bob), direct(bob, ada));
        let all = [direct(ada, bob), direct(ada, eve), direct(bob, eve), direct(ada, ada)];
        for (at, one) in all.iter().enumerate() {
            assert!(all.iter().skip(at + 1).all(|other| other != one));
        }
        // Rows are found by it for ever.
        assert_eq!(direct(ada, bob).to_string(), "f94e225d-0c7b-2b59-14ee-1299f47250b5");
    }
}
