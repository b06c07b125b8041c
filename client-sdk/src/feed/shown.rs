//! The messages that were acknowledged: what is never handed out again.
//!
//! What comes again at the same position is known by its cursor, without this. This is for a message that comes at another
//! position: its sender sent it under a new number, because the answers of its server were lost or its server was restored.
//! Senders send their queue as soon as they can, and no server accepts an id that is older than 60 days.
//!
//! Invariant: a message is forgotten only when there are too many, or when its id is so old that no server accepts it any
//! more; the oldest first.

use std::collections::VecDeque;
use std::time::Duration;

use quail_protocol::limits::{ID_AGE_MAX, ID_AHEAD_MAX};

use crate::ids::IdSet;
use crate::store::{FeedChange, MessageKey, SHOWN_MESSAGES_MAX};

/// A message this old, by the clock of the server, is accepted by no server, and by none whose clock is a week behind.
const FORGET_AFTER: Duration = ID_AGE_MAX.saturating_add(ID_AHEAD_MAX.saturating_mul(7));

/// The messages that were acknowledged last.
#[derive(Debug, Default)]
pub(super) struct Shown {
    keys: IdSet<MessageKey>,
    /// Oldest first.
    order: VecDeque<MessageKey>,
}

impl Shown {
    pub(super) fn restore(order: VecDeque<MessageKey>) -> Self {
        Self { keys: order.iter().copied().collect(), order }
    }

    pub(super) fn contains(&self, key: &MessageKey) -> bool {
        self.keys.contains(key)
    }

    /// Remembers a message and returns the changes to commit.
    pub(super) fn add(&mut self, key: MessageKey, now_ms: u64) -> Vec<FeedChange> {
        if !self.keys.insert(key) {
            return Vec::new();
        }
        self.order.push_back(key);
        let mut changes = vec![FeedChange::Shown(key)];
        let oldest_ms = now_ms.saturating_sub(FORGET_AFTER.as_millis() as u64);
        let mut forgotten = 0;
        while let Some(oldest) = self.order.front().copied()
            && (self.order.len() > SHOWN_MESSAGES_MAX || oldest.1.unix_ms().is_some_and(|ms| ms < oldest_ms))
        {
            self.order.pop_front();
            self.keys.remove(&oldest);
            forgotten += 1;
        }
        if forgotten > 0 {
            changes.push(FeedChange::Forgotten(forgotten));
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use quail_protocol::id::{AccountId, MessageId};

    use super::*;

    /// A message whose id was minted then.
    fn key(ms: u64, number: u64) -> MessageKey {
        let mut id = [0; 16];
        id[..6].copy_from_slice(&ms.to_be_bytes()[2..]);
        (id[6], id[8]) = (0x70, 0x80);
        id[9..].copy_from_slice(&number.to_be_bytes()[1..]);
        (AccountId([1; 16]), MessageId(id))
    }

    #[test]
    fn what_no_server_accepts_any_more_is_forgotten() {
        let (now, day) = (2_000_000_000_000, 86_400_000);
        let mut shown = Shown::default();
        let old = key(now, 1);
        shown.add(old, now);
        shown.add(key(now, 2), now + 60 * day);
        assert!(shown.contains(&old));
        let changes = shown.add(key(now + 70 * day, 3), now + 70 * day);
        assert_eq!(changes[1..], [FeedChange::Forgotten(2)]);
        assert!(!shown.contains(&old));
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut shown = Shown::default();
        for number in 0..=SHOWN_MESSAGES_MAX as u64 {
            shown.add(key(1_000, number), 1_000);
        }
        assert!(!shown.contains(&key(1_000, 0)) && shown.contains(&key(1_000, 1)));
        assert_eq!(shown.order.len(), SHOWN_MESSAGES_MAX);
        assert!(shown.add(key(1_000, 1), 1_000).is_empty());
    }
}
