//! Reading a conversation to its end: marks for what a list says is unread.
//!
//! A mark names a stretch between two positions. Here its ends come from the history, which has everything between them, so it covers
//! nothing that was missed.

use std::collections::{BTreeMap, BTreeSet};

use quail_protocol::id::{AccountId, Origin, Position};
use quail_protocol::limits::{HISTORY_PAGE_MAX, UNREAD_MAX};

use super::{Conversation, Direction, HistoryMessage, Remains};
use crate::{Client, Error, Mark};

impl Client {
    /// Says that everything is read which a conversation of the list has unread, and returns how many messages that are.
    ///
    /// As with [`Client::read`] the marks are saved when this returns, and count when this device has acknowledged the messages: what
    /// it has not taken from its feed yet is read once it has.
    ///
    /// # Errors
    /// As [`HistoryPager::next_page`](crate::HistoryPager::next_page) and [`Client::read`].
    pub async fn read_conversation(&self, conversation: &Conversation) -> Result<u64, Error> {
        let mut unread = Stretches::new(self.account(), conversation);
        let limit = u32::try_from(HISTORY_PAGE_MAX).unwrap_or(u32::MAX);
        let mut pager = self.history(conversation.peer, Direction::Older, None, limit);
        while !unread.is_all()
            && let Some(page) = pager.next_page().await?
        {
            page.items.iter().for_each(|message| unread.take(message));
        }
        let Stretches { found, stretches, .. } = unread;
        let marks = stretches.into_iter().map(|(origin, (after, upto))| Mark {
            sender: conversation.peer,
            origin,
            after,
            upto,
        });
        self.read(marks).await?;
        Ok(found)
    }
}

/// What is unread, from the newest message on.
struct Stretches {
    peer: AccountId,
    /// Up to where it is read, by origin.
    read: BTreeMap<Origin, Position>,
    /// How many there are; nothing if there are more than are counted.
    expected: Option<u64>,
    found: u64,
    stretches: BTreeMap<Origin, (Position, Position)>,
    /// Where a message came that is not above what is read: there is nothing unread below.
    ended: BTreeSet<Origin>,
}

impl Stretches {
    fn new(own: AccountId, conversation: &Conversation) -> Self {
        let read = conversation.markers.iter().filter(|marker| marker.account == own && marker.is_read);
        let unread = u64::from(conversation.unread);
        Self {
            peer: conversation.peer,
            read: read.map(|marker| (marker.origin, marker.position)).collect(),
            expected: Some(unread).filter(|unread| *unread < UNREAD_MAX as u64),
            found: 0,
            stretches: BTreeMap::new(),
            ended: BTreeSet::new(),
        }
    }

    /// Returns whether there is nothing left to look for: all of them were found, or what was read has begun at every origin. One that
    /// is deleted after the list was made is never found.
    fn is_all(&self) -> bool {
        let mut origins = self.read.keys().chain(self.stretches.keys());
        let is_below = !self.read.is_empty() && origins.all(|origin| self.ended.contains(origin));
        is_below || self.expected.is_some_and(|expected| self.found >= expected)
    }

    fn take(&mut self, message: &HistoryMessage) {
        let read = self.read.get(&message.origin).copied().unwrap_or(Position::ZERO);
        if message.position <= read {
            self.ended.insert(message.origin);
            return;
        }
        let is_theirs = message.sender == self.peer && matches!(message.content, Remains::There(_));
        if !is_theirs || self.is_all() {
            return;
        }
        self.found += 1;
        let right_before = Position(message.position.0.saturating_sub(1)).max(read);
        let stretch = self.stretches.entry(message.origin).or_insert((right_before, message.position));
        *stretch = (stretch.0.min(right_before), stretch.1.max(message.position));
    }
}

#[cfg(test)]
mod tests {
    use quail_protocol::id::Stamp;

    use super::super::{ConversationFlags, Marker};
    use super::*;
    use crate::{Accepted, Body};

    const OWN: AccountId = AccountId([1; 16]);
    const PEER: AccountId = AccountId([2; 16]);

    fn message(sender: AccountId, origin: u32, position: u64) -> HistoryMessage {
        let (origin, position) = (Origin(origin), Position(position));
        let accepted = Accepted { origin, position, stamp: Stamp(position.0) };
        let id = quail_protocol::id::MessageId([0; 16]);
        HistoryMessage::held(id, (sender, OWN), accepted, (Body::from("x"), None))
    }

    fn unread(unread: u32) -> Stretches {
        let marker = |account, position| Marker {
            account,
            is_read: true,
            origin: Origin(1),
            position: Position(position),
        };
        let conversation = Conversation {
            peer: PEER,
            seq: 9,
            last: None,
            unread,
            markers: vec![marker(OWN, 10), marker(PEER, 99)],
            flags: ConversationFlags::default(),
        };
        Stretches::new(OWN, &conversation)
    }

    fn stretches(count: u32, messages: &[(AccountId, u32, u64)]) -> (u64, Vec<(u32, u64, u64)>) {
        let mut all = unread(count);
        for (sender, origin, position) in messages {
            all.take(&message(*sender, *origin, *position));
        }
        let found = all.stretches.iter().map(|(origin, (after, upto))| (origin.0, after.0, upto.0));
        (all.found, found.collect())
    }

    #[test]
    fn the_search_ends_where_what_is_read_begins_even_if_one_is_missing() {
        let ends = |messages: &[(AccountId, u32, u64)]| {
            let mut all = unread(3);
            messages
                .iter()
                .for_each(|(sender, origin, position)| all.take(&message(*sender, *origin, *position)));
            all.is_all()
        };
        assert!(!ends(&[(PEER, 1, 20), (PEER, 1, 15)]));
        assert!(ends(&[(PEER, 1, 20), (PEER, 1, 15), (PEER, 1, 10)]), "one was deleted meanwhile");
        assert!(ends(&[(PEER, 1, 20), (OWN, 1, 9)]), "one's own stand in the same order");
        assert!(
            !ends(&[(PEER, 1, 20), (PEER, 2, 15), (PEER, 1, 10)]),
            "nothing is known to be read at origin 2"
        );
    }

    #[test]
    fn a_mark_covers_what_is_unread_and_nothing_below() {
        let messages =
            [(PEER, 1, 20), (OWN, 1, 19), (PEER, 1, 15), (PEER, 1, 11), (PEER, 1, 10), (PEER, 1, 3)];
        assert_eq!(stretches(3, &messages), (3, vec![(1, 10, 20)]));
        assert_eq!(stretches(2, &messages), (2, vec![(1, 14, 20)]), "one was deleted, or read meanwhile");
        assert_eq!(stretches(0, &messages), (0, vec![]));
        assert_eq!(stretches(999, &messages), (3, vec![(1, 10, 20)]), "999 says so many or more");
        assert_eq!(stretches(2, &[(PEER, 2, 5), (PEER, 1, 12)]), (2, vec![(1, 11, 12), (2, 4, 5)]));
    }
}
