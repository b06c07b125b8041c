//! The outbox machine of one attached device: what was written and is not yet acknowledged.
//!
//! A feed is live while new events go straight to it, and behind while they must be read from the store first; it falls
//! behind when its window is full and becomes live again when nothing above `next` is left in the index. At most one
//! read is under way per feed. A feed that is behind and has no room for a read is stalled: only an acknowledgement moves it on.
//! How long that may last is not decided here, for there is no clock; whoever has one is told of it.

use std::collections::{BTreeSet, VecDeque};

use quail_protocol::id::{AccountId, DeviceId, Position};
use quail_protocol::limits::{FEED_WINDOW_BYTES, FEED_WINDOW_EVENTS};

use crate::command::FeedId;
use crate::ports::outbox::{Note, StoredEvent};

/// What a feed does with new events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Writes them at once.
    Live,
    /// Leaves them to a later read.
    Behind,
    /// Waits for a read that was asked for when the index ended at `upto`.
    Reading {
        /// Last position in the index then.
        upto: Position,
    },
}

/// Something written and not yet acknowledged.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    /// Where it is acknowledged.
    position: Position,
    /// Where the device stands until then: a gap is long, and what lies in it was not delivered.
    before: Position,
    bytes: usize,
    item: Item,
}

#[derive(Clone, Copy, Debug)]
enum Item {
    Message {
        sender: AccountId,
    },
    Other,
    /// A gap, or an event that the device gave up: neither was delivered.
    Gap,
}

/// The feed of one device on one connection.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) id: FeedId,
    /// Everything up to here was written, passed over, or is not for this device.
    pub(super) next: Position,
    /// What the device said at attach that it has taken.
    pub(super) claimed: Position,
    pub(super) mode: Mode,
    pub(super) caught_up: bool,
    /// Whether it was last told to be stalled.
    stalled: bool,
    /// What the device gave up and has not passed yet. At most a window of events.
    aside: BTreeSet<Position>,
    window: VecDeque<InFlight>,
    window_bytes: usize,
}

impl Feed {
    pub(super) fn new(id: FeedId, next: Position, claimed: Position) -> Self {
        let (window, window_bytes) = (VecDeque::new(), 0);
        let (mode, caught_up, stalled) = (Mode::Behind, false, false);
        Self { id, next, claimed, mode, caught_up, stalled, aside: BTreeSet::new(), window, window_bytes }
    }

    /// Takes note of an event above `next` and returns whether it is to be written.
    pub(super) fn pass(
        &mut self,
        event: &StoredEvent,
        (account, device): (AccountId, DeviceId),
        taken: &mut Acknowledged,
    ) -> bool {
        self.next = event.position;
        let item = match event.note {
            // The device that sent a message has it already, unless it wrote to itself: then the event is its receipt.
            Note::Message { sender, device: from, recipient } if from == device && sender != recipient => {
                return false;
            }
            Note::Message { sender, recipient, .. } if recipient == account => Item::Message { sender },
            // What one's own other device sent to somebody else says nothing about them.
            Note::Message { .. } | Note::Receipt { .. } | Note::Lost { .. } => Item::Other,
        };
        if event.position <= self.claimed {
            match item {
                _ if self.aside.remove(&event.position) => taken.split(event.position),
                Item::Message { sender } => taken.add(sender, event.position),
                Item::Other | Item::Gap => {}
            }
            return false;
        }
        let before = Position(event.position.0 - 1);
        self.push(InFlight { position: event.position, before, bytes: event.frame.len(), item });
        true
    }

    /// Takes note of a gap, to be written now.
    pub(super) fn pass_gap(&mut self, from: Position, upto: Position) {
        self.next = self.next.max(upto);
        let before = Position(from.0 - 1);
        self.push(InFlight { position: upto, before, bytes: 0, item: Item::Gap });
    }

    /// Takes note of a stretch that was lost and returns what of it the device has not taken, to be written now as a gap.
    pub(super) fn pass_lost(&mut self, from: Position, upto: Position) -> Option<(Position, Position)> {
        let from = from.max(self.next.max(self.claimed).next());
        self.next = self.next.max(upto);
        (upto >= from).then(|| {
            self.pass_gap(from, upto);
            (from, upto)
        })
    }

    /// Takes note of the gap up to `collapsed`, if the device is not past it, and returns it to be written now. Either way
    /// nothing below is read any more: of a torn collapse a store may still have events there, and a device that was told of
    /// the gap and is past it has not taken them.
    pub(super) fn pass_collapsed(&mut self, collapsed: Position) -> Option<(Position, Position)> {
        let from = self.next.max(self.claimed).next();
        let gap = (collapsed >= from).then(|| {
            self.pass_gap(from, collapsed);
            (from, collapsed)
        });
        self.next = self.next.max(collapsed);
        gap
    }

    /// Returns how many events and bytes may be written, or `None` if that is not worth a read.
    pub(super) fn room(&self) -> Option<(usize, usize)> {
        let events = FEED_WINDOW_EVENTS.saturating_sub(self.window.len());
        let bytes = FEED_WINDOW_BYTES.saturating_sub(self.window_bytes);
        let worthwhile = events >= FEED_WINDOW_EVENTS / 4 && bytes >= FEED_WINDOW_BYTES / 4;
        worthwhile.then_some((events, bytes))
    }

    /// Returns whether one more event may be written.
    pub(super) fn has_room(&self) -> bool {
        self.window.len() < FEED_WINDOW_EVENTS && self.window_bytes < FEED_WINDOW_BYTES
    }

    /// Takes note of events that the device gave up, and returns false if these are more than may be unacknowledged.
    pub(super) fn set_aside(&mut self, positions: &[Position]) -> bool {
        let passed = self.done();
        self.aside.extend(positions.iter().filter(|position| **position > passed));
        self.aside.len() <= FEED_WINDOW_EVENTS
    }

    /// Takes what is acknowledged up to `upto` out of the window and returns whether there was anything.
    pub(super) fn ack(&mut self, upto: Position, taken: &mut Acknowledged) -> bool {
        let before = self.window.len();
        while let Some(front) = self.window.front().filter(|front| front.position <= upto) {
            match front.item {
                _ if self.aside.remove(&front.position) => taken.split(front.position),
                Item::Message { sender } => taken.add(sender, front.position),
                Item::Other => {}
                Item::Gap => taken.split(front.position),
            }
            self.window_bytes -= front.bytes;
            self.window.pop_front();
        }
        // Positions in holes never come.
        self.aside = self.aside.split_off(&upto.min(self.next).next());
        self.window.len() < before
    }

    /// Returns whether the feed is stalled, if that is news: it was not so before, or it is so in spite of `progress`. To be
    /// asked once a feed that is behind has been given the chance to go on.
    pub(super) fn stall_news(&mut self, progress: bool) -> Option<bool> {
        let stalled = self.mode == Mode::Behind;
        let was_stalled = std::mem::replace(&mut self.stalled, stalled);
        (stalled != was_stalled || stalled && progress).then_some(stalled)
    }

    /// Returns the position up to which nothing is left to deliver or to acknowledge.
    pub(super) fn done(&self) -> Position {
        self.window.front().map_or(self.next, |front| front.before)
    }

    fn push(&mut self, in_flight: InFlight) {
        self.window_bytes += in_flight.bytes;
        self.window.push_back(in_flight);
    }
}

/// Messages that a device has acknowledged, by sender, in stretches without a gap between them.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged {
    stretches: Vec<Stretch>,
    /// From here on stretches may grow; there is one per sender. Few enough to look through: nearly always one, at most as
    /// many as a window has events.
    open: usize,
    since: Position,
}

/// Messages of one sender from the first to the last; none between them was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) sender: AccountId,
    /// The device was left out of nothing from here to `first` either.
    pub(crate) since: Position,
    pub(crate) first: Position,
    pub(crate) last: Position,
}

impl Acknowledged {
    /// Begins with a device that was left out of nothing above `since`.
    pub(super) fn since(since: Position) -> Self {
        Self { since, ..Self::default() }
    }

    fn add(&mut self, sender: AccountId, position: Position) {
        let mut open = self.stretches.iter_mut().skip(self.open);
        match open.find(|stretch| stretch.sender == sender) {
            Some(stretch) => stretch.last = position,
            None => {
                let since = self.since;
                self.stretches.push(Stretch { sender, since, first: position, last: position });
            }
        }
    }

    /// A receipt must not cover what the account did not get, so a gap ends every stretch.
    fn split(&mut self, upto: Position) {
        self.open = self.stretches.len();
        self.since = self.since.max(upto);
    }

    /// Returns above which position the device was left out of nothing.
    pub(super) fn whole_since(&self) -> Position {
        self.since
    }

    pub(crate) fn into_stretches(self) -> Vec<Stretch> {
        self.stretches
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::ConnectionId;

    fn message(position: u64, sender: u8) -> StoredEvent {
        let note = Note::Message {
            sender: AccountId([sender; 16]),
            device: DeviceId([sender; 16]),
            recipient: AccountId([9; 16]),
        };
        StoredEvent { position: Position(position), note, frame: bytes::Bytes::from_static(b"frame") }
    }

    fn feed() -> Feed {
        Feed::new(FeedId { connection: ConnectionId(1), number: 1 }, Position::ZERO, Position(2))
    }

    const READER: (AccountId, DeviceId) = (AccountId([9; 16]), DeviceId([9; 16]));

    #[test]
    fn what_was_claimed_at_attach_counts_as_acknowledged() {
        let (mut feed, mut taken) = (feed(), Acknowledged::default());
        assert!(!feed.pass(&message(1, 1), READER, &mut taken));
        assert!(!feed.pass(&message(2, 1), READER, &mut taken));
        assert!(feed.pass(&message(3, 1), READER, &mut taken));
        assert_eq!(feed.done(), Position(2));
        let sender = AccountId([1; 16]);
        assert_eq!(
            taken.into_stretches(),
            [Stretch { sender, since: Position::ZERO, first: Position(1), last: Position(2) }]
        );
    }

    #[test]
    fn the_sending_device_is_passed_over() {
        let mut feed = feed();
        let mut event = message(3, 8);
        event.note =
            Note::Message { sender: AccountId([8; 16]), device: READER.1, recipient: AccountId([1; 16]) };
        assert!(!feed.pass(&event, READER, &mut Acknowledged::default()));
        assert_eq!(feed.done(), Position(3));
    }

    #[test]
    fn a_gap_ends_the_stretch_before_it() {
        let (mut feed, mut taken) = (feed(), Acknowledged::default());
        feed.pass(&message(3, 1), READER, &mut taken);
        feed.pass_gap(Position(4), Position(7));
        feed.pass(&message(8, 1), READER, &mut taken);
        feed.ack(Position(8), &mut taken);
        let ends: Vec<_> = taken.into_stretches().iter().map(|s| (s.since.0, s.first.0, s.last.0)).collect();
        assert_eq!(ends, [(0, 3, 3), (7, 8, 8)]);
        assert_eq!(feed.done(), Position(8));
    }

    #[test]
    fn what_lies_in_a_gap_that_a_device_is_past_is_not_taken_by_it() {
        let (mut feed, mut taken) = (feed(), Acknowledged::default());
        // It claims up to 2, and was told of a gap up to there before.
        assert_eq!(feed.pass_collapsed(Position(2)), None);
        assert_eq!(feed.next, Position(2));
        assert_eq!(feed.pass_collapsed(Position(4)), Some((Position(3), Position(4))));
        assert!(feed.pass(&message(5, 1), READER, &mut taken));
        assert_eq!(taken.into_stretches(), []);
    }

    #[test]
    fn a_full_window_has_no_room_until_a_quarter_is_free() {
        let mut feed = feed();
        for position in 0..FEED_WINDOW_EVENTS as u64 {
            feed.pass(&message(3 + position, 1), READER, &mut Acknowledged::default());
        }
        assert!(!feed.has_room());
        feed.ack(Position(3), &mut Acknowledged::default());
        assert!(feed.has_room());
        assert_eq!(feed.room(), None);
        feed.ack(Position(2 + FEED_WINDOW_EVENTS as u64 / 4), &mut Acknowledged::default());
        assert_eq!(feed.room().map(|(events, _)| events), Some(FEED_WINDOW_EVENTS / 4));
    }
}
