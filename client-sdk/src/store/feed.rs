//! The feed part: how far a device has acknowledged, what was shown, and what the application has in hand.
//!
//! Invariants: a message is among the shown ones in the same commit in which a cursor passes it; an event is handed to
//! the application only after its [`Hand`] with that attempt was committed.

use std::collections::{BTreeMap, VecDeque};

use quail_protocol::id::{AccountId, MessageId, Origin, Position, Stamp};

use super::Owner;

/// How many acknowledged messages are remembered, to know a repetition at another position. Those whose id is too old for
/// any server to accept again are forgotten before. A repetition that so many others lie between, or more, is shown twice; its
/// sender would have had to be away that long with an answer lost.
pub const SHOWN_MESSAGES_MAX: usize = 16_384;

/// Most events that were given up and that the server may not know of yet.
pub const SET_ASIDE_MAX: usize = quail_protocol::limits::CURSORS_MAX;

/// The identity of a message.
pub type MessageKey = (AccountId, MessageId);

/// Where an event lies.
pub type Place = (Origin, Position);

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

/// An event that was on its way to the application and that no cursor has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hand {
    /// How often it was handed out, counting a process that may have ended before the application saw it.
    pub attempts: u32,
    /// How many processes died with it in hand.
    pub deaths: u32,
    /// Where it stands.
    pub standing: Standing,
}

/// Where an event stands that was on its way to the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// If the process dies now, that is not this event's doing.
    Released,
    /// If the process dies now, this event may have been the cause.
    InHand,
    /// It is acknowledged; events before it are not.
    Done,
}

/// The feed part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedState {
    /// Whose it is; nobody's yet if no client has opened it.
    pub owner: Option<Owner>,
    /// The attach number used last. Zero: none was.
    pub attach_number: u64,
    /// Up to where everything is acknowledged, per origin; the one that moved last stands last. At most
    /// [`CURSORS_MAX`](quail_protocol::limits::CURSORS_MAX).
    pub cursors: Vec<Place>,
    /// The largest stamp that was shown.
    pub seen: Stamp,
    /// Messages that were acknowledged, oldest first; at most [`SHOWN_MESSAGES_MAX`].
    pub shown: VecDeque<MessageKey>,
    /// Events that were on their way to the application.
    pub hands: BTreeMap<Place, Hand>,
    /// Events that were given up, the latest [`SET_ASIDE_MAX`].
    pub set_aside: Vec<Place>,
    /// What was read, as far as the server has not answered that; at most [`MARKS_MAX`](crate::sending::MARKS_MAX).
    pub marks: Vec<Mark>,
}

/// A change of the feed part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedChange {
    /// The part belongs to this device from now on.
    Owner(Owner),
    /// The attach number used last.
    Attached(u64),
    /// All cursors.
    Cursors(Vec<Place>),
    /// The largest stamp that was shown.
    Seen(Stamp),
    /// A message was acknowledged for the first time.
    Shown(MessageKey),
    /// So many of the oldest shown messages are forgotten.
    Forgotten(usize),
    /// What is known of an event that was on its way to the application.
    Hand(Place, Hand),
    /// A cursor has passed the event.
    HandGone(Place),
    /// All events that were given up, and that the server may not know of yet.
    SetAside(Vec<Place>),
    /// All that was read and that the server has not answered.
    Marks(Vec<Mark>),
}

impl FeedState {
    /// Makes a change.
    pub fn apply(&mut self, change: &FeedChange) {
        match change {
            FeedChange::Owner(owner) => self.owner = Some(*owner),
            FeedChange::Attached(number) => self.attach_number = *number,
            FeedChange::Cursors(cursors) => self.cursors.clone_from(cursors),
            FeedChange::Seen(stamp) => self.seen = *stamp,
            FeedChange::Shown(key) => self.shown.push_back(*key),
            FeedChange::Forgotten(count) => drop(self.shown.drain(..(*count).min(self.shown.len()))),
            FeedChange::Hand(place, hand) => drop(self.hands.insert(*place, *hand)),
            FeedChange::HandGone(place) => drop(self.hands.remove(place)),
            FeedChange::SetAside(places) => self.set_aside.clone_from(places),
            FeedChange::Marks(marks) => self.marks.clone_from(marks),
        }
    }
}
