//! How an account wants to see its conversations: values of the port.

use std::collections::BTreeMap;

use quail_protocol::id::AccountId;

/// What an account has said of a conversation. At first nothing is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConversationFlags {
    /// It wants no noise about it.
    pub muted: bool,
    /// It wants it above the others.
    pub pinned: bool,
    /// It wants it out of its list.
    pub put_away: bool,
}

/// A change of them. What is `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlagChange {
    /// Whether it wants no noise about it.
    pub muted: Option<bool>,
    /// Whether it wants it above the others.
    pub pinned: Option<bool>,
    /// Whether it wants it out of its list.
    pub put_away: Option<bool>,
}

impl FlagChange {
    /// Returns what becomes of flags.
    pub fn of(self, flags: ConversationFlags) -> ConversationFlags {
        ConversationFlags {
            muted: self.muted.unwrap_or(flags.muted),
            pinned: self.pinned.unwrap_or(flags.pinned),
            put_away: self.put_away.unwrap_or(flags.put_away),
        }
    }
}

/// Flags by the conversation's peer; those of which nothing is set are not among them.
pub type FlagsByPeer = BTreeMap<AccountId, ConversationFlags>;
