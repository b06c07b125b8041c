//! What this client knows that the archive may not have yet.
//!
//! Of every client: the highest position that it had accepted or handed out, so that the server waits for it. Of clients that read
//! history: the last messages and changes that they sent and handed out, from then on; the others do without the copies.
//!
//! Invariants: at most [`HELD_MAX`] messages and as many changes are held; what the archive has is let go of when it says so.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use quail_protocol::id::{AccountId, MessageId, MessageRef, Origin, Position};
use quail_protocol::v1;

use super::{Archived, HistoryMessage, Remains};
use crate::publish::Sent;
use crate::{Accepted, Body, Change, Changed, Content, Message};

/// Most messages that are held, and most changes. An archive that is further behind is seen without them.
pub(crate) const HELD_MAX: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct Recent {
    keeps: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    accepted: Option<(Origin, Position)>,
    /// Oldest first.
    held: VecDeque<HistoryMessage>,
    /// Oldest first.
    changes: VecDeque<Changed>,
}

impl Inner {
    fn reached(&mut self, (origin, position): (Origin, Position)) {
        if self.accepted.is_some_and(|(other, _)| other != origin) {
            // The archive says of one origin how far it is, so what is held of another would never be let go of.
            self.held.retain(|held| held.origin == origin);
            self.changes.retain(|held| held.origin == origin);
        }
        let known = self.accepted.filter(|(other, _)| *other == origin);
        self.accepted = Some((origin, known.map_or(position, |(_, known)| known.max(position))));
    }
}

impl Recent {
    /// From now on messages are held.
    pub(crate) fn keep(&self) {
        self.keeps.store(true, Ordering::Relaxed);
    }

    /// Something was accepted or is handed out; `message` is asked for only if it is to be held.
    pub(crate) fn note(&self, place: (Origin, Position), message: impl FnOnce() -> HistoryMessage) {
        let mut inner = self.lock();
        inner.reached(place);
        if self.keeps.load(Ordering::Relaxed) {
            inner.held.push_back(message());
            if inner.held.len() > HELD_MAX {
                inner.held.pop_front();
            }
        }
    }

    /// The server took what this client said.
    pub(crate) fn accepted_as(&self, own: AccountId, sent: &Sent, accepted: Accepted) {
        let Accepted { origin, position, stamp } = accepted;
        let (id, sender, recipient) = (sent.id, own, sent.recipient);
        match Content::of(sent.kind, &sent.body, &sent.extra) {
            Content::Message { body, reply_to } => self.note((origin, position), || {
                HistoryMessage::held(id, (sender, recipient), accepted, (body, reply_to))
            }),
            Content::Change(change) => {
                self.changed(&Changed { id, sender, recipient, origin, position, stamp, change });
            }
        }
    }

    /// A change was accepted or is handed out.
    pub(crate) fn changed(&self, changed: &Changed) {
        let mut inner = self.lock();
        inner.reached((changed.origin, changed.position));
        if self.keeps.load(Ordering::Relaxed) {
            // Two devices' changes come in any order.
            let place = |held: &Changed| (held.stamp, held.origin);
            let index = inner.changes.partition_point(|held| place(held) <= place(changed));
            inner.changes.insert(index, changed.clone());
            if inner.changes.len() > HELD_MAX {
                inner.changes.pop_front();
            }
        }
    }

    /// Changes messages of a conversation by what the archive lacks, and lets go of what it has.
    pub(super) fn amend(&self, own: AccountId, archived: &Archived, messages: &mut Vec<HistoryMessage>) {
        let mut inner = self.lock();
        let has = |held: &Changed| held.origin == archived.origin && held.position <= archived.position;
        inner.changes.retain(|held| !has(held));
        for changed in &inner.changes {
            let message = changed.message();
            // What names a message of another conversation means nothing in this one.
            let is_meant = |held: &HistoryMessage| {
                let (one, other) = ((held.sender, held.recipient), (held.recipient, held.sender));
                let named = (changed.sender, changed.recipient);
                held.reference() == message && [one, other].contains(&named)
            };
            let Some(at) = messages.iter().position(is_meant) else { continue };
            if changed.sender == own && matches!(changed.change, Change::DeleteForMe { .. }) {
                messages.remove(at);
            } else if let Some(message) = messages.get_mut(at) {
                message.change(changed);
            }
        }
    }

    /// Returns what the archive is to be waited for.
    pub(crate) fn accepted(&self) -> Option<v1::Cursor> {
        let accepted = self.lock().accepted;
        accepted.map(|(origin, position)| v1::Cursor { origin: origin.0, position: position.0 })
    }

    /// Returns whether anything is held of a conversation.
    pub(super) fn holds(&self, own: AccountId, peer: AccountId) -> bool {
        self.lock().held.iter().any(|held| is_between(held, own, peer))
    }

    /// Returns what is held of a conversation beside a page, and lets go of what the archive has.
    pub(super) fn beside(
        &self,
        (own, peer): (AccountId, AccountId),
        archived: &Archived,
        page: &[HistoryMessage],
    ) -> Vec<HistoryMessage> {
        let mut inner = self.lock();
        let has =
            |held: &HistoryMessage| held.origin == archived.origin && held.position <= archived.position;
        inner.held.retain(|held| !has(held));
        let mut shown: HashSet<_> = page.iter().map(|message| (message.sender, message.id)).collect();
        let of_peer = inner.held.iter().filter(|held| is_between(held, own, peer));
        of_peer.filter(|held| shown.insert((held.sender, held.id))).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // What a panic may have left out is only shown a little later.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_between(held: &HistoryMessage, own: AccountId, peer: AccountId) -> bool {
    match held.sender == own {
        true => held.recipient == peer,
        false => held.sender == peer,
    }
}

impl HistoryMessage {
    /// Returns a message that is handed out.
    pub(crate) fn handed_out(message: &Message) -> Self {
        let Message { id, sender, recipient, origin, position, stamp, reply_to, ref body, .. } = *message;
        let accepted = Accepted { origin, position, stamp };
        Self::held(id, (sender, recipient), accepted, (body.clone(), reply_to))
    }

    pub(super) fn held(
        id: MessageId,
        of: (AccountId, AccountId),
        accepted: Accepted,
        (body, reply_to): (Body, Option<MessageRef>),
    ) -> Self {
        let Accepted { origin, position, stamp } = accepted;
        Self {
            id,
            sender: of.0,
            recipient: of.1,
            origin,
            position,
            stamp,
            seq: 0,
            content: Remains::There(body),
            is_cut: false,
            edited: None,
            reply: reply_to.map(|named| (named.sender, named.id)),
            reactions: Vec::new(),
        }
    }

    fn reference(&self) -> MessageRef {
        MessageRef { sender: self.sender, id: self.id }
    }

    /// Is changed as the archive will have it. What is deleted stays so.
    fn change(&mut self, changed: &Changed) {
        match &changed.change {
            Change::Edit { body, .. } => {
                if matches!(self.content, Remains::There(_)) && self.edited < Some(changed.stamp) {
                    (self.content, self.edited) = (Remains::There(body.clone()), Some(changed.stamp));
                }
            }
            Change::DeleteForAll { .. } => {
                (self.content, self.edited) = (Remains::Deleted, None);
                self.reactions.clear();
            }
            Change::React { text, .. } if matches!(self.content, Remains::There(_)) => {
                self.reactions.retain(|(account, _)| *account != changed.sender);
                if !text.is_empty() {
                    self.reactions.push((changed.sender, text.clone()));
                    self.reactions.sort();
                }
            }
            Change::React { .. } | Change::DeleteForMe { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use quail_protocol::id::Stamp;

    use super::*;

    const OWN: AccountId = AccountId([1; 16]);
    const BOB: AccountId = AccountId([2; 16]);

    fn message(position: u64, sender: AccountId, recipient: AccountId) -> HistoryMessage {
        let accepted = Accepted { origin: Origin(1), position: Position(position), stamp: Stamp(position) };
        let id = MessageId(u128::from(position).to_be_bytes());
        HistoryMessage::held(id, (sender, recipient), accepted, (Body::from("x"), None))
    }

    fn note(recent: &Recent, message: &HistoryMessage) {
        recent.note((message.origin, message.position), || message.clone());
    }

    fn upto(position: u64) -> Archived {
        Archived { origin: Origin(1), position: Position(position), behind: false }
    }

    #[test]
    fn what_the_archive_lacks_is_shown_beside_it_until_it_has_it() {
        let recent = Recent::default();
        note(&recent, &message(1, OWN, BOB));
        assert_eq!(recent.beside((OWN, BOB), &upto(0), &[]), [], "nothing is kept before somebody reads");
        recent.keep();
        let (to_bob, from_bob, to_self) = (message(2, OWN, BOB), message(3, BOB, OWN), message(4, OWN, OWN));
        [&to_bob, &from_bob, &to_self].into_iter().for_each(|message| note(&recent, message));
        let page = std::slice::from_ref(&from_bob);
        assert_eq!(recent.beside((OWN, BOB), &upto(1), page), [to_bob], "what is on the page is not doubled");
        assert!(recent.holds(OWN, OWN) && !recent.holds(OWN, AccountId([9; 16])));
        assert_eq!(recent.beside((OWN, OWN), &upto(3), &[]), [to_self]);
        assert_eq!(recent.beside((OWN, BOB), &upto(3), &[]), [], "the archive has them");
        assert_eq!(recent.accepted(), Some(v1::Cursor { origin: 1, position: 4 }));
    }

    #[test]
    fn what_was_changed_since_is_shown_as_it_is_now_until_the_archive_has_it() {
        let recent = Recent::default();
        recent.keep();
        let (own, theirs, gone) = (message(1, OWN, BOB), message(2, BOB, OWN), message(3, BOB, OWN));
        let changed = |position, sender, change| {
            let (id, recipient) = (MessageId([9; 16]), if sender == OWN { BOB } else { OWN });
            let (origin, position, stamp) = (Origin(1), Position(position), Stamp(position));
            recent.changed(&Changed { id, sender, recipient, origin, position, stamp, change });
        };
        changed(4, OWN, Change::Edit { id: own.id, body: "new".into() });
        changed(5, BOB, Change::Edit { id: own.id, body: "forged".into() });
        changed(6, OWN, Change::React { message: theirs.reference(), text: "+".to_owned() });
        changed(7, OWN, Change::DeleteForMe { message: gone.reference() });
        changed(8, BOB, Change::DeleteForAll { id: theirs.id });
        // Of another conversation, and by somebody who only knows the id.
        let (id, sender, recipient) = (MessageId([8; 16]), AccountId([3; 16]), OWN);
        let change = Change::React { message: own.reference(), text: "!".to_owned() };
        let (origin, position, stamp) = (Origin(1), Position(9), Stamp(9));
        recent.changed(&Changed { id, sender, recipient, origin, position, stamp, change });
        let amended = |upto| {
            let mut messages = vec![own.clone(), theirs.clone(), gone.clone()];
            let archived = Archived { origin: Origin(1), position: Position(upto), behind: false };
            recent.amend(OWN, &archived, &mut messages);
            messages
        };
        let now = amended(3);
        let contents: Vec<_> = now.iter().map(|message| message.content.clone()).collect();
        assert_eq!(contents, [Remains::There("new".into()), Remains::Deleted]);
        assert_eq!((now[0].edited, now[1].reactions.len()), (Some(Stamp(4)), 0));
        assert!(now[0].reactions.is_empty(), "a stranger has no say");
        assert_eq!(amended(7)[0], own, "the archive has the rest");
        assert_eq!(recent.accepted(), Some(v1::Cursor { origin: 1, position: 9 }));
    }

    #[test]
    fn what_is_held_is_bounded_and_another_origin_counts_anew() {
        let recent = Recent::default();
        recent.keep();
        (1..=2 * HELD_MAX as u64).for_each(|position| note(&recent, &message(position, OWN, BOB)));
        assert_eq!(recent.beside((OWN, BOB), &upto(0), &[]).len(), HELD_MAX);
        let later = HistoryMessage { origin: Origin(2), ..message(3, OWN, BOB) };
        note(&recent, &later);
        assert_eq!(recent.beside((OWN, BOB), &upto(0), &[]), [later], "what is held of the other would stay");
        assert_eq!(recent.accepted(), Some(v1::Cursor { origin: 2, position: 3 }));
    }
}
