//! A modelled client device: what it keeps on its disk, and what it forgets with its connection.
//!
//! It does what the protocol asks of clients: numbers its sends, keeps them until they are answered for good, sends all of
//! them again on a new connection, begins again after a temporary refusal once everything on the way is answered, raises
//! its attach number, and keeps what it shows and its cursor before it acknowledges. It writes down what it does and sees for
//! the checker, and drops no duplicates: whether something comes twice is for the checker to judge.

use std::collections::{BTreeMap, HashMap, VecDeque};

use quail_checker::{Key, Place, What};
use quail_core::{Accepted, Content};
use quail_protocol::id::{MessageId, Origin, Position, Stamp};
use quail_protocol::limits::SENDS_UNANSWERED_MAX;
use quail_protocol::v1::{self, Reason, event::Body};

use crate::changes::{self, Said};
use crate::ids;
use crate::link::{Down, Up};
use crate::reading::Reading;

/// Something to be written down.
pub(crate) enum Note {
    What(What),
    /// Which messages a receipt is for, the device cannot tell alone.
    Receipt(v1::Receipt),
}

/// A message that was composed.
#[derive(Clone, Debug)]
pub(crate) struct Composed {
    pub(crate) id: MessageId,
    pub(crate) recipient: usize,
    pub(crate) content: Content,
    /// The gateway refuses it for good.
    pub(crate) bad: bool,
}

/// What a client wants done after a frame.
#[derive(Debug, PartialEq)]
pub(crate) enum Wish {
    Nothing,
    /// To acknowledge, some time.
    Ack,
    /// To say again what was read, some time.
    Read,
    /// To say restart and send again, some time.
    Restart,
    /// The session is gone.
    Leave,
}

pub(crate) struct Client {
    pub(crate) account: usize,
    // On disk.
    /// Of which its cursor is.
    origin: Origin,
    /// Origins of which it was told that they ended.
    ended: Vec<Origin>,
    /// What it took, and where that stood.
    had: HashMap<Key, Place>,
    /// What came again under another origin, and is not shown again.
    pub(crate) dropped: u64,
    next_number: u64,
    pub(crate) composed: BTreeMap<u64, Composed>,
    unanswered: VecDeque<u64>,
    pub(crate) attach_number: u64,
    pub(crate) cursor: u64,
    pub(crate) seen: u64,
    accepted: BTreeMap<u64, Accepted>,
    /// Up to where everything it was shown is on its disk: the largest position it ever acknowledged or claimed.
    kept: u64,
    /// What it has shown and not acknowledged, where that stands, and whether it is for this account.
    unacknowledged: Vec<(Key, Place, bool)>,
    /// What it is about to give up.
    giving_up: Vec<(Key, u64)>,
    pub(crate) reading: Reading,
    /// Not written down yet.
    notes: Vec<Note>,
    // Of the connection.
    pub(crate) link: Option<usize>,
    pub(crate) gone: bool,
    pub(crate) ack_due: bool,
    outstanding: VecDeque<u64>,
    refusing: bool,
    feed_at: u64,
    caught_up: bool,
}

impl Client {
    /// `origin` is the one whose events it may get.
    pub(crate) fn new(account: usize, origin: Origin) -> Self {
        Self {
            account,
            origin,
            ended: Vec::new(),
            had: HashMap::new(),
            dropped: 0,
            next_number: 0,
            composed: BTreeMap::new(),
            unanswered: VecDeque::new(),
            attach_number: 0,
            cursor: 0,
            seen: 0,
            accepted: BTreeMap::new(),
            kept: 0,
            unacknowledged: Vec::new(),
            giving_up: Vec::new(),
            reading: Reading::default(),
            notes: Vec::new(),
            link: None,
            gone: false,
            ack_due: false,
            outstanding: VecDeque::new(),
            refusing: false,
            feed_at: 0,
            caught_up: false,
        }
    }

    pub(crate) fn compose(&mut self, message: Composed) {
        self.next_number += 1;
        let recipient = Some(message.recipient)
            .filter(|_| !changes::is_private(&message.content, (self.account, message.recipient)));
        let (id, to) = (message.id, recipient.map(ids::account).into_iter().collect());
        self.note(What::Sent { id, to, body: changes::print(&message.content) });
        self.composed.insert(self.next_number, message);
        self.unanswered.push_back(self.next_number);
    }

    fn note(&mut self, what: What) {
        self.notes.push(Note::What(what));
    }

    /// Returns what it did and saw since it was asked last.
    pub(crate) fn notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// A new connection: attach, and send everything again.
    pub(crate) fn connected(&mut self, link: usize) -> Vec<Up> {
        self.link = Some(link);
        self.outstanding.clear();
        self.refusing = false;
        let mut frames = vec![self.attach()];
        frames.extend(self.reads());
        frames.extend(self.sends());
        frames
    }

    /// A new feed on the connection that is there.
    pub(crate) fn attach(&mut self) -> Up {
        self.attach_number += 1;
        self.feed_at = self.cursor;
        self.caught_up = false;
        self.acknowledge();
        self.reading.attached();
        let set_aside = self.reading.asides.clone();
        let mut cursors: Vec<_> = self.ended.iter().map(|origin| (*origin, Position::END)).collect();
        // Who has nothing of an origin does not know it.
        cursors.extend((self.cursor > 0).then_some((self.origin, Position(self.cursor))));
        Up::Attach { feed: self.attach_number, cursors, set_aside }
    }

    pub(crate) fn ack(&mut self) -> Up {
        self.ack_due = false;
        let told = self.reading.asides.len();
        if self.link.is_some() {
            self.acknowledge();
        }
        let set_aside = self.reading.asides[told..].to_vec();
        Up::Ack { feed: self.attach_number, origin: self.origin, upto: self.cursor, set_aside }
    }

    /// What was read and is not on its way to the daemon.
    pub(crate) fn reads(&mut self) -> Vec<Up> {
        if self.link.is_none() {
            return Vec::new();
        }
        let feed = self.attach_number;
        self.reading.unwritten().into_iter().map(|mark| Up::Read { feed, mark }).collect()
    }

    /// Up to where it has acknowledged.
    pub(crate) fn kept(&self) -> (Origin, u64) {
        (self.origin, self.kept)
    }

    /// It is about to say that it has everything up to its cursor.
    fn acknowledge(&mut self) {
        self.kept = self.kept.max(self.cursor);
        for (message, place, is_own) in std::mem::take(&mut self.unacknowledged) {
            self.note(What::Acknowledged { message });
            self.had.insert(message, place);
            if is_own {
                self.reading.keep(place.origin, place.position.0, message.sender);
            }
        }
        for (message, position) in std::mem::take(&mut self.giving_up) {
            self.note(What::SetAside { message });
            self.reading.give_up(self.origin, position);
        }
    }

    /// Its process dies, and with it what it had not kept yet: that much comes again. What it composed is kept at once.
    pub(crate) fn dies(&mut self) {
        self.note(What::Opened);
        self.unacknowledged.clear();
        self.giving_up.clear();
        self.cursor = self.kept;
        self.ack_due = false;
        self.disconnected();
    }

    pub(crate) fn restart(&mut self) -> Vec<Up> {
        self.refusing = false;
        let mut frames = vec![Up::Restart];
        frames.extend(self.sends());
        frames
    }

    /// Whatever may be sent and is not on its way.
    pub(crate) fn sends(&mut self) -> Vec<Up> {
        if self.link.is_none() || self.refusing {
            return Vec::new();
        }
        let seen = self.seen;
        let newest = self.outstanding.back().copied().unwrap_or(0);
        let room = SENDS_UNANSWERED_MAX - self.outstanding.len();
        let numbers: Vec<u64> = self.unanswered.iter().copied().filter(|n| *n > newest).take(room).collect();
        self.outstanding.extend(&numbers);
        numbers.into_iter().map(|number| Up::Send { number, seen }).collect()
    }

    fn answered(&mut self, number: u64) {
        assert_eq!(self.outstanding.pop_front(), Some(number), "answers do not keep the order of sends");
    }

    /// `gives_up` says what it does with a message, if it is one.
    pub(crate) fn hears(&mut self, down: Down, in_directory: bool, gives_up: bool) -> Wish {
        match down {
            Down::Accepted(accepted) => {
                self.answered(accepted.number);
                assert!(!self.refusing, "accepted behind a temporary refusal");
                let first = *self.accepted.entry(accepted.number).or_insert(accepted);
                assert_eq!(first, accepted, "the same number got another answer");
                self.unanswered.retain(|number| *number != accepted.number);
                let id = self.composed[&accepted.number].id;
                let Accepted { origin, position, stamp, .. } = accepted;
                let place = Place { origin, position, stamp };
                self.note(What::Accepted { id, place });
                self.seen = self.seen.max(accepted.stamp.0);
                Wish::Nothing
            }
            Down::Refused { number, reason, temporary } => {
                self.answered(number);
                self.refused(number, reason, temporary, in_directory)
            }
            Down::Event { feed, event } if feed == self.attach_number => {
                if event.origin != self.origin.0 {
                    assert_eq!(self.cursor, 0, "another origin, and the end of this one was not told");
                    self.origin = Origin(event.origin);
                }
                assert!(event.position > self.feed_at, "not in order, or twice on one feed: {event:?}");
                self.feed_at = event.position;
                self.show(&event, gives_up);
                Wish::Ack
            }
            Down::Gap { feed, from, upto } if feed == self.attach_number => {
                assert!(upto > self.feed_at && from > self.cursor, "a gap that was told or taken before");
                self.feed_at = upto;
                self.cursor = self.cursor.max(upto);
                self.reading.miss(self.origin, from, upto);
                let (from, upto) = (Position(from), Position(upto));
                self.note(What::Gap { origin: self.origin, from, upto });
                Wish::Ack
            }
            Down::OriginGone { feed, origin, from, by } if feed == self.attach_number => {
                assert!(!self.ended.contains(&origin), "the end of an origin was told twice");
                self.note(What::Gap { origin, from: Position(from), upto: Position::END });
                self.ended.push(origin);
                if origin == self.origin {
                    (self.origin, self.cursor, self.kept, self.feed_at) = (by, 0, 0, 0);
                }
                Wish::Nothing
            }
            Down::CaughtUp { feed } if feed == self.attach_number => {
                assert!(!std::mem::replace(&mut self.caught_up, true), "caught up twice");
                Wish::Nothing
            }
            Down::Read { feed, error } if feed == self.attach_number => {
                if self.reading.answered(error) {
                    Wish::Read
                } else {
                    Wish::Nothing
                }
            }
            Down::Ended { feed, reason } if feed == self.attach_number => {
                assert!(reason == Reason::Unauthenticated && !in_directory, "feed ended: {reason:?}");
                Wish::Leave
            }
            // Of a feed that this device has replaced.
            _ => Wish::Nothing,
        }
    }

    fn refused(&mut self, number: u64, reason: Reason, temporary: bool, in_directory: bool) -> Wish {
        match reason {
            Reason::DirectoryUnavailable | Reason::Overloaded | Reason::AfterRefused => {
                assert!(temporary);
                self.refusing = true;
                if self.outstanding.is_empty() { Wish::Restart } else { Wish::Nothing }
            }
            Reason::BodyInvalid if self.composed[&number].bad => {
                self.unanswered.retain(|other| *other != number);
                self.note(What::Refused { id: self.composed[&number].id });
                Wish::Nothing
            }
            Reason::Unauthenticated if !in_directory => Wish::Leave,
            other => panic!("send {number} was refused: {other:?}"),
        }
    }

    fn show(&mut self, event: &v1::Event, gives_up: bool) {
        self.cursor = event.position;
        self.seen = self.seen.max(event.stamp);
        let (position, stamp) = (Position(event.position), Stamp(event.stamp));
        match event.body.as_ref().expect("an event has a body") {
            Body::Receipt(receipt) => self.notes.push(Note::Receipt(receipt.clone())),
            body @ (Body::Message(_) | Body::Changed(_)) => {
                let Said { id, sender, recipient, print } = Said::of(body).expect("it is said by somebody");
                let key = Key { sender, id };
                let place = Place { origin: self.origin, position, stamp };
                if gives_up {
                    return self.giving_up.push((key, position.0));
                }
                // A client of the SDK drops whatever it had; this one leaves it to the checker, but for what no server can know: what
                // an ancestor lost, and what was carried over twice before this device could say what it took the first time.
                let is_anew = |had: &Place| {
                    let is_other = (had.position, had.stamp) != (position, stamp);
                    had.origin != self.origin && (is_other || self.origin.0 > had.origin.0 + 1)
                };
                if self.had.get(&key).is_some_and(is_anew) {
                    self.dropped += 1;
                } else {
                    self.note(What::Shown { message: key, body: print, place });
                }
                let is_own = recipient == Some(ids::account(self.account));
                self.unacknowledged.push((key, place, is_own));
            }
        }
    }

    pub(crate) fn disconnected(&mut self) {
        self.link = None;
    }
}
