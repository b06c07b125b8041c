//! What there is to be shown of a conversation: messages with what became of them.
//!
//! Two devices of one person get messages and changes in different orders: one was away, one sent some of it. This is the one place
//! that says what they come to, for programs that want it said; the server's archive comes to the same.
//!
//! Invariant: what is shown depends on what was taken in, and not on its order.

use std::collections::{BTreeMap, VecDeque};

use quail_protocol::id::{AccountId, MessageId, MessageRef, Origin, Stamp};

use crate::{Accepted, Body, Change, Changed, Content, Message};

/// Most messages that are not there yet and of which something was said. The one that was named first makes room.
pub const AWAITED_MESSAGES_MAX: usize = 4096;

/// A message as it is to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Which message.
    pub message: MessageRef,
    /// With the origin what the conversation is sorted by.
    pub stamp: Stamp,
    /// The origin that accepted it.
    pub origin: Origin,
    /// What it says, as last edited. `None`: it was deleted for everybody.
    pub body: Option<Body>,
    /// When it was edited last, if it was.
    pub edited: Option<Stamp>,
    /// The message that it answers.
    pub reply_to: Option<MessageRef>,
    /// Who reacts with what, by account.
    pub reactions: Vec<(AccountId, String)>,
}

/// A conversation of two accounts in memory. It holds the messages that are put in, for as long as it lives.
#[derive(Clone, Debug)]
pub struct Thread {
    own: AccountId,
    peer: AccountId,
    rows: BTreeMap<MessageRef, Row>,
    /// Messages of which something was said and that are not there, oldest first; some may be there by now.
    awaited: VecDeque<MessageRef>,
}

type Place = (Stamp, Origin);

#[derive(Clone, Debug, Default)]
struct Row {
    message: Option<(Place, Body, Option<MessageRef>)>,
    edit: Option<(Place, Body)>,
    is_deleted: bool,
    is_hidden: bool,
    reactions: BTreeMap<AccountId, (Place, String)>,
}

impl Thread {
    /// Returns the conversation of one's own account with another one, which may be the same, with nothing in it.
    pub fn new(own: AccountId, peer: AccountId) -> Self {
        Self { own, peer, rows: BTreeMap::new(), awaited: VecDeque::new() }
    }

    /// Takes a message in. One of another conversation changes nothing.
    pub fn message(&mut self, message: &Message) {
        if self.is_between(message.sender, message.recipient) {
            let place = (message.stamp, message.origin);
            self.add(message.reference(), place, message.body.clone(), message.reply_to);
        }
    }

    /// Takes a change in, whose message may be there, come later or never. One of another conversation changes nothing.
    pub fn changed(&mut self, changed: &Changed) {
        let is_secret_of_another =
            matches!(changed.change, Change::DeleteForMe { .. }) && changed.sender != self.own;
        if self.is_between(changed.sender, changed.recipient) && !is_secret_of_another {
            self.change(changed.sender, (changed.stamp, changed.origin), &changed.change);
        }
    }

    /// Takes in what this device has sent under an id, once it is accepted: no event brings it back.
    pub fn said(&mut self, id: MessageId, content: Content, accepted: &Accepted) {
        let place = (accepted.stamp, accepted.origin);
        match content {
            Content::Message { body, reply_to } => {
                self.add(MessageRef { sender: self.own, id }, place, body, reply_to);
            }
            Content::Change(change) => self.change(self.own, place, &change),
        }
    }

    /// Returns what is to be shown, in order.
    pub fn entries(&self) -> Vec<Entry> {
        let shown = self.rows.iter().filter(|(_, row)| !row.is_hidden);
        let mut entries: Vec<_> = shown.filter_map(|(named, row)| row.entry(*named)).collect();
        entries.sort_by_key(|entry| (entry.stamp, entry.origin, entry.message));
        entries
    }

    fn is_between(&self, one: AccountId, other: AccountId) -> bool {
        (one, other) == (self.own, self.peer) || (one, other) == (self.peer, self.own)
    }

    fn add(&mut self, named: MessageRef, place: Place, body: Body, reply_to: Option<MessageRef>) {
        let row = self.rows.entry(named).or_default();
        // Of two copies the smaller stays.
        if row.message.as_ref().is_none_or(|(known, ..)| place < *known) {
            row.message = Some((place, body, reply_to));
        }
    }

    fn change(&mut self, by: AccountId, place: Place, change: &Change) {
        let named = change.message(by);
        if named.sender != self.own && named.sender != self.peer {
            return;
        }
        if !self.rows.contains_key(&named) {
            self.awaits(named);
        }
        let row = self.rows.entry(named).or_default();
        match change {
            Change::Edit { body, .. } => {
                if row.edit.as_ref().is_none_or(|(known, _)| *known < place) {
                    row.edit = Some((place, body.clone()));
                }
            }
            Change::DeleteForAll { .. } => row.is_deleted = true,
            Change::DeleteForMe { .. } => row.is_hidden = true,
            Change::React { text, .. } => {
                if row.reactions.get(&by).is_none_or(|(known, _)| *known < place) {
                    row.reactions.insert(by, (place, text.clone()));
                }
            }
        }
    }

    fn awaits(&mut self, named: MessageRef) {
        self.awaited.push_back(named);
        if self.awaited.len() > AWAITED_MESSAGES_MAX
            && let Some(oldest) = self.awaited.pop_front()
            && self.rows.get(&oldest).is_some_and(|row| row.message.is_none())
        {
            self.rows.remove(&oldest);
        }
    }
}

impl Row {
    fn entry(&self, message: MessageRef) -> Option<Entry> {
        let ((stamp, origin), body, reply_to) = self.message.clone()?;
        let edit = self.edit.clone().filter(|_| !self.is_deleted);
        let edited = edit.as_ref().map(|((stamp, _), _)| *stamp);
        let body = edit.map_or(body, |(_, body)| body);
        let reactions = self.reactions.iter().filter(|(_, (_, text))| !text.is_empty() && !self.is_deleted);
        let reactions = reactions.map(|(account, (_, text))| (*account, text.clone())).collect();
        let body = Some(body).filter(|_| !self.is_deleted);
        Some(Entry { message, stamp, origin, body, edited, reply_to, reactions })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use quail_protocol::id::Position;

    use super::*;

    const ADA: AccountId = AccountId([1; 16]);
    const BOB: AccountId = AccountId([2; 16]);
    const EVE: AccountId = AccountId([3; 16]);

    #[derive(Clone, Debug)]
    enum Event {
        Message(Message),
        Changed(Changed),
    }

    fn message(sender: AccountId, number: u8, stamp: u64) -> Message {
        Message {
            id: MessageId([number; 16]),
            sender,
            recipient: if sender == ADA { BOB } else { ADA },
            origin: Origin(1),
            position: Position(stamp),
            after: Position(0),
            stamp: Stamp(stamp),
            body: format!("{number} at {stamp}").into(),
            reply_to: None,
        }
    }

    fn changed(by: AccountId, stamp: u64, change: Change) -> Changed {
        let (id, recipient) = (MessageId([99; 16]), if by == ADA { BOB } else { ADA });
        let (position, stamp) = (Position(stamp), Stamp(stamp));
        Changed { id, sender: by, recipient, origin: Origin(1), position, stamp, change }
    }

    fn event() -> impl Strategy<Value = Event> {
        let account = || prop_oneof![Just(ADA), Just(BOB)];
        let named = move || {
            (account(), 1..4_u8).prop_map(|(sender, id)| MessageRef { sender, id: MessageId([id; 16]) })
        };
        let change = prop_oneof![
            (1..4_u8, "[ab]")
                .prop_map(|(id, text)| Change::Edit { id: MessageId([id; 16]), body: text.into() }),
            (1..4_u8).prop_map(|id| Change::DeleteForAll { id: MessageId([id; 16]) }),
            named().prop_map(|message| Change::DeleteForMe { message }),
            (named(), "[+-]?").prop_map(|(message, text)| Change::React { message, text }),
        ];
        prop_oneof![
            (account(), 1..4_u8, 1..9_u64)
                .prop_map(|(sender, number, stamp)| Event::Message(message(sender, number, stamp))),
            (account(), 1..99_u64, change)
                .prop_map(|(by, stamp, change)| Event::Changed(changed(by, stamp, change))),
        ]
    }

    fn entries(events: &[Event]) -> Vec<Entry> {
        let mut thread = Thread::new(ADA, BOB);
        for event in events {
            match event {
                Event::Message(message) => thread.message(message),
                Event::Changed(changed) => thread.changed(changed),
            }
        }
        thread.entries()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// No two events of one origin have one stamp.
        #[test]
        fn what_is_shown_does_not_depend_on_the_order_of_arrival(
            events in prop::collection::vec(event(), 0..30),
            shuffle in prop::collection::vec(any::<prop::sample::Index>(), 30),
        ) {
            let mut seen = std::collections::HashSet::new();
            let stamp = |event: &Event| match event {
                Event::Message(message) => message.stamp,
                Event::Changed(changed) => changed.stamp,
            };
            let events: Vec<_> = events.into_iter().filter(|event| seen.insert(stamp(event))).collect();
            let mut shuffled = events.clone();
            for (at, with) in (0..events.len()).zip(&shuffle) {
                shuffled.swap(at, with.index(events.len()));
            }
            prop_assert_eq!(entries(&events), entries(&shuffled));
        }
    }

    #[test]
    fn a_deleted_message_stays_deleted_and_a_hidden_one_is_not_shown() {
        let id = MessageId([1; 16]);
        let mut thread = Thread::new(ADA, BOB);
        thread.changed(&changed(ADA, 5, Change::DeleteForAll { id }));
        assert_eq!(thread.entries(), [], "it is not there yet");
        thread.message(&message(ADA, 1, 2));
        thread.changed(&changed(ADA, 9, Change::Edit { id, body: "back".into() }));
        let entries = thread.entries();
        assert_eq!((entries.len(), &entries[0].body, entries[0].edited), (1, &None, None));
        thread.changed(&changed(BOB, 10, Change::DeleteForMe { message: MessageRef { sender: ADA, id } }));
        assert_eq!(thread.entries().len(), 1, "what Bob does not want to see is not for Ada to know");
        thread.changed(&changed(ADA, 11, Change::DeleteForMe { message: MessageRef { sender: ADA, id } }));
        assert_eq!(thread.entries(), []);
    }

    #[test]
    fn what_is_said_in_another_conversation_changes_nothing() {
        let mut thread = Thread::new(ADA, BOB);
        thread.message(&message(ADA, 1, 2));
        let message = MessageRef { sender: ADA, id: MessageId([1; 16]) };
        let react = Change::React { message, text: "?".to_owned() };
        thread.changed(&Changed { recipient: ADA, sender: EVE, ..changed(BOB, 3, react.clone()) });
        thread.changed(&Changed { recipient: EVE, ..changed(ADA, 4, react) });
        thread
            .changed(&Changed { recipient: EVE, ..changed(ADA, 5, Change::DeleteForAll { id: message.id }) });
        assert!(thread.entries()[0].reactions.is_empty() && thread.entries()[0].body.is_some());
    }

    #[test]
    fn what_never_comes_is_forgotten() {
        let mut thread = Thread::new(ADA, BOB);
        for number in 0..AWAITED_MESSAGES_MAX as u128 + 10 {
            let id = MessageId(number.to_be_bytes());
            thread.changed(&changed(ADA, 5, Change::DeleteForAll { id }));
        }
        assert_eq!((thread.rows.len(), thread.awaited.len()), (AWAITED_MESSAGES_MAX, AWAITED_MESSAGES_MAX));
    }
}
