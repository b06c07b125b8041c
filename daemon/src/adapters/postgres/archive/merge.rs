//! What a batch makes of the rows that are there, worked out in memory.
//!
//! Why in memory: what stands in the database is read at once and written at once, so a batch takes a dozen statements whatever is in
//! it, each of them one way to the server and back. Nobody else changes these rows meanwhile, since their conversations are locked.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quail_core::ports::archive::{Applied, Change, ChangeKind, Loser, MessageRef, NewMessage, Place, direct};
use quail_protocol::id::{AccountId, ConversationId, DeviceId, Origin, Position, Stamp};

use super::rows::{AWAITED, DELETED, THERE};
use super::trail::Trail;

/// A row of `messages`.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) message: MessageRef,
    pub(super) device: DeviceId,
    pub(super) recipient: AccountId,
    pub(super) conversation: ConversationId,
    pub(super) place: Place,
    pub(super) position: Position,
    pub(super) seq: u64,
    pub(super) state: i16,
    pub(super) kind: i32,
    pub(super) body: Bytes,
    pub(super) hash: [u8; 16],
    pub(super) is_deleted: bool,
    pub(super) edit: Option<Place>,
    pub(super) reply: Option<MessageRef>,
    pub(super) fate: Fate,
}

/// What is to be done with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing.
    Kept,
    /// It is there and has changed.
    Changed,
    /// It is not there yet.
    New,
}

/// The latest reaction of an account.
#[derive(Clone, Debug)]
pub(super) struct Reaction {
    pub(super) place: Place,
    pub(super) reaction: Option<String>,
    pub(super) is_changed: bool,
}

/// The rows that a batch may touch, as they are, and then as it leaves them.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) messages: BTreeMap<MessageRef, Row>,
    pub(super) reactions: BTreeMap<(MessageRef, AccountId), Reaction>,
    /// What accounts have deleted for themselves already, and what they do now.
    pub(super) hidden: BTreeSet<(AccountId, MessageRef)>,
    pub(super) newly_hidden: BTreeSet<(AccountId, MessageRef)>,
    /// Messages of which everything is forgotten that was said before they came, and of whom it was.
    pub(super) forgotten: BTreeMap<MessageRef, [AccountId; 2]>,
}

impl Rows {
    /// Puts a message to its row.
    pub(super) fn message(
        &mut self,
        trail: &mut Trail,
        new: &NewMessage,
        conversation: ConversationId,
        applied: &mut Applied,
    ) {
        let place = Place { stamp: new.stamp, origin: new.origin };
        let hash = new.hash();
        let Some(row) = self.messages.get_mut(&new.message) else {
            let mut row = awaited(new.message, new.recipient, conversation);
            applied.inserted += 1;
            row.settle(trail, new, conversation, hash);
            self.messages.insert(new.message, row);
            return;
        };
        if row.state == AWAITED {
            applied.inserted += 1;
            if row.recipient != new.recipient {
                // It was said in another conversation. Nobody else could hide the message.
                let both = [row.message.sender, row.recipient];
                row.forget();
                self.reactions.retain(|(message, _), _| *message != new.message);
                self.hidden.retain(|(account, message)| *message != new.message || !both.contains(account));
                self.forgotten.insert(new.message, both);
            }
            return row.settle(trail, new, conversation, hash);
        }
        if (place, new.position) == (row.place, row.position) {
            return;
        }
        let is_smaller = place < row.place;
        if hash != row.hash {
            let (origin, position) =
                if is_smaller { (row.place.origin, row.position) } else { (new.origin, new.position) };
            applied.losers.push(Loser { message: new.message, origin, position });
        }
        if !is_smaller {
            return;
        }
        if row.conversation != conversation {
            trail.left(row.conversation, [row.message.sender, row.recipient]);
        }
        trail.sank(conversation, [new.message.sender, new.recipient]);
        row.settle(trail, new, conversation, hash);
    }

    /// Applies a change. It may come before its message; that is then not shown until it is there.
    pub(super) fn change(&mut self, trail: &mut Trail, change: &Change) {
        if !change.is_from_inside() {
            return;
        }
        let place = Place { stamp: change.stamp, origin: change.origin };
        let named = || direct(change.message.sender, change.recipient);
        let row = self.messages.entry(change.message);
        let row = row.or_insert_with(|| awaited(change.message, change.recipient, named()));
        if row.recipient != change.recipient {
            return;
        }
        let is_news = match &change.kind {
            ChangeKind::Edit { kind, body } => row.edit(place, *kind, body),
            ChangeKind::DeleteForAll => row.delete(),
            ChangeKind::DeleteForMe { account } => {
                let hidden = (*account, change.message);
                !self.hidden.contains(&hidden) && self.newly_hidden.insert(hidden)
            }
            ChangeKind::React { account, reaction } => {
                let key = (change.message, *account);
                let is_later = self.reactions.get(&key).is_none_or(|before| before.place < place);
                if is_later {
                    let latest = Reaction { place, reaction: reaction.clone(), is_changed: true };
                    self.reactions.insert(key, latest);
                }
                is_later
            }
        };
        if is_news {
            row.seq = trail.next(row.conversation);
            row.touch();
        }
    }
}

impl Row {
    /// Writes a message into its row. What was said of the message before it came holds.
    fn settle(&mut self, trail: &mut Trail, new: &NewMessage, conversation: ConversationId, hash: [u8; 16]) {
        if self.edit.is_none() {
            (self.kind, self.body) = (new.kind, new.body.clone());
        }
        self.state = if self.is_deleted { DELETED } else { THERE };
        (self.device, self.recipient, self.conversation) = (new.device, new.recipient, conversation);
        self.place = Place { stamp: new.stamp, origin: new.origin };
        (self.position, self.hash, self.reply) = (new.position, hash, new.reply);
        self.seq = trail.next(conversation);
        trail.arrived(new, conversation);
        self.touch();
    }

    fn edit(&mut self, place: Place, kind: i32, body: &Bytes) -> bool {
        if self.is_deleted || self.edit.is_some_and(|edit| edit >= place) {
            return false;
        }
        (self.kind, self.body, self.edit) = (kind, body.clone(), Some(place));
        true
    }

    fn delete(&mut self) -> bool {
        if self.state == THERE {
            self.state = DELETED;
        }
        self.body = Bytes::new();
        !std::mem::replace(&mut self.is_deleted, true)
    }

    /// Forgets what was said of it while it was not there.
    fn forget(&mut self) {
        (self.kind, self.body, self.is_deleted, self.edit) = (0, Bytes::new(), false, None);
    }

    fn touch(&mut self) {
        if self.fate == Fate::Kept {
            self.fate = Fate::Changed;
        }
    }

    /// Returns the body to keep: none of what is deleted, or of what is not there and was not edited.
    pub(super) fn kept_body(&self) -> Option<&[u8]> {
        let is_kept = !self.is_deleted && (self.state == THERE || self.edit.is_some());
        is_kept.then_some(&self.body[..])
    }
}

/// Returns a row for a message that is not there. It is in no list.
fn awaited(message: MessageRef, recipient: AccountId, conversation: ConversationId) -> Row {
    Row {
        message,
        device: DeviceId([0; 16]),
        recipient,
        conversation,
        place: Place { stamp: Stamp::default(), origin: Origin(0) },
        position: Position::ZERO,
        seq: 0,
        state: AWAITED,
        kind: 0,
        body: Bytes::new(),
        hash: [0; 16],
        is_deleted: false,
        edit: None,
        reply: None,
        fate: Fate::New,
    }
}
