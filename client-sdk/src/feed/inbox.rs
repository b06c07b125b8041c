//! What has arrived, what the application has taken, and what may be acknowledged: a state machine without IO.
//!
//! An acknowledgement on the wire is cumulative: "everything up to here, for good". The application takes events in
//! whatever order it likes. In between stands, per origin, the list of positions that arrived and are not yet
//! acknowledged; the cursor moves over its front as far as everything is done.
//!
//! Invariants: a cursor never passes an event that the application holds and has not acknowledged; an event is handed
//! out once, whether it comes again at the same position (after a reconnect) or at another one (a repeated message);
//! everything here is bounded.

use std::collections::{HashMap, HashSet, VecDeque};

use quail_protocol::id::{AccountId, MessageId, Origin, Position};
use quail_protocol::limits::CURSORS_MAX;

use crate::store::FeedState;

/// How many messages are remembered to recognise their repetition.
pub(crate) const RECENT_MESSAGES_MAX: usize = 16_384;

/// Most events that may be unacknowledged. The server stops at its window of 256; far beyond, it is broken.
pub(crate) const PENDING_EVENTS_MAX: usize = 4096;

/// The identity of a message.
pub(crate) type MessageKey = (AccountId, MessageId);

/// What arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    Message(MessageKey),
    Gap,
    /// Something for whoever reads events; if nobody does, it is done as soon as it is here.
    Passing,
    /// Something the application never sees: done as soon as it is here.
    Internal,
}

/// What to do with what arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Give it to the application.
    HandOut,
    /// Leave it unacknowledged at the server; nobody here reads events.
    Hold,
    /// The same message came before, at another position; this one is done.
    Duplicate,
    /// The same position came before.
    Again,
    /// Nothing to hand out.
    Done,
}

/// More is unacknowledged than any server may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {PENDING_EVENTS_MAX} events without an acknowledgement")]
pub(crate) struct TooManyPending;

/// What has arrived and is not acknowledged, and how far everything is.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    attach_number: u64,
    origins: HashMap<Origin, Arrivals>,
    recent: Recent,
    /// Counts moves of cursors, to know which moved last.
    moves: u64,
    unsaved: bool,
}

#[derive(Debug, Default)]
struct Arrivals {
    cursor: Position,
    /// Value of `moves` when the cursor moved last.
    moved: u64,
    ack_due: bool,
    /// Above the cursor, by rising position.
    pending: VecDeque<(Position, Progress)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Held,
    HandedOut,
    Done,
}

impl Inbox {
    /// Goes on from what the device remembers.
    pub(crate) fn restore(state: &FeedState) -> Self {
        let mut inbox = Self { attach_number: state.attach_number, ..Self::default() };
        for (origin, cursor) in &state.cursors {
            inbox.moves += 1;
            let arrivals = Arrivals { cursor: *cursor, moved: inbox.moves, ..Arrivals::default() };
            inbox.origins.insert(*origin, arrivals);
        }
        inbox
    }

    /// Raises the attach number for a new attach; it may be used once [`Inbox::state`] is saved.
    pub(crate) fn attach(&mut self) -> u64 {
        self.attach_number += 1;
        self.unsaved = true;
        // The cursors that go with the attach acknowledge as well.
        self.origins.values_mut().for_each(|arrivals| arrivals.ack_due = false);
        self.attach_number
    }

    /// Decides what to do with something that arrived; with `hold`, nobody reads events now.
    pub(crate) fn arrive(
        &mut self,
        origin: Origin,
        position: Position,
        arrival: Arrival,
        hold: bool,
    ) -> Result<Verdict, TooManyPending> {
        self.make_room_for(origin)?;
        let arrivals = self.origins.entry(origin).or_default();
        if position <= arrivals.cursor {
            // The server has not heard yet.
            arrivals.ack_due = true;
            return Ok(Verdict::Again);
        }
        let Err(index) = arrivals.pending.binary_search_by_key(&position, |(position, _)| *position) else {
            return Ok(Verdict::Again);
        };
        let (verdict, progress) = match arrival {
            Arrival::Internal => (Verdict::Done, Progress::Done),
            Arrival::Passing if hold => (Verdict::Done, Progress::Done),
            _ if hold => (Verdict::Hold, Progress::Held),
            Arrival::Message(key) if !self.recent.insert(key) => (Verdict::Duplicate, Progress::Done),
            Arrival::Message(_) | Arrival::Gap | Arrival::Passing => (Verdict::HandOut, Progress::HandedOut),
        };
        arrivals.pending.insert(index, (position, progress));
        if progress == Progress::Done {
            self.advance(origin);
        }
        Ok(verdict)
    }

    /// The application is done with an event. Returns whether a cursor moved.
    pub(crate) fn acknowledge(&mut self, origin: Origin, position: Position) -> bool {
        let Some(arrivals) = self.origins.get_mut(&origin) else {
            return false;
        };
        let Ok(index) = arrivals.pending.binary_search_by_key(&position, |(position, _)| *position) else {
            return false;
        };
        arrivals.pending[index].1 = Progress::Done;
        self.advance(origin)
    }

    /// Forgets what was held and all behind it, so that it is handed out when the server brings it again. What is done
    /// behind it must go too: the cursor would move over the hole. Nothing behind it is with the application, because
    /// nothing is handed out while something is held.
    pub(crate) fn forget_held(&mut self) {
        for arrivals in self.origins.values_mut() {
            let held = arrivals.pending.iter().position(|(_, progress)| *progress == Progress::Held);
            arrivals.pending.truncate(held.unwrap_or(arrivals.pending.len()));
        }
    }

    /// Takes the cursors that the server has not been told, at most as many as fit one acknowledgement.
    pub(crate) fn take_acks(&mut self) -> Vec<(Origin, Position)> {
        let due = self.origins.iter_mut().filter(|(_, arrivals)| arrivals.ack_due).take(CURSORS_MAX);
        due.map(|(origin, arrivals)| {
            arrivals.ack_due = false;
            (*origin, arrivals.cursor)
        })
        .collect()
    }

    /// Takes the state to save, or `None` if the last one still holds.
    pub(crate) fn take_unsaved(&mut self) -> Option<FeedState> {
        std::mem::take(&mut self.unsaved).then(|| self.state())
    }

    /// Notes that the state could not be saved.
    pub(crate) fn not_saved(&mut self) {
        self.unsaved = true;
    }

    /// Returns what the device must remember: of more origins than fit an attach, those whose cursors moved last.
    pub(crate) fn state(&self) -> FeedState {
        let moved = self.origins.iter().filter(|(_, arrivals)| arrivals.cursor > Position::ZERO);
        let mut cursors: Vec<_> =
            moved.map(|(origin, arrivals)| (arrivals.moved, *origin, arrivals.cursor)).collect();
        cursors.sort_unstable();
        let too_many = cursors.len().saturating_sub(CURSORS_MAX);
        let cursors =
            cursors.into_iter().skip(too_many).map(|(_, origin, cursor)| (origin, cursor)).collect();
        FeedState { attach_number: self.attach_number, cursors }
    }

    /// Returns up to where everything of an origin is done.
    pub(crate) fn cursor(&self, origin: Origin) -> Position {
        self.origins.get(&origin).map_or(Position::ZERO, |arrivals| arrivals.cursor)
    }

    fn advance(&mut self, origin: Origin) -> bool {
        let Some(arrivals) = self.origins.get_mut(&origin) else {
            return false;
        };
        let mut moved = false;
        while let Some((position, Progress::Done)) = arrivals.pending.front().copied() {
            arrivals.pending.pop_front();
            arrivals.cursor = position;
            moved = true;
        }
        if moved {
            self.moves += 1;
            arrivals.moved = self.moves;
            arrivals.ack_due = true;
            self.unsaved = true;
        }
        moved
    }

    /// Keeps lists and origins bounded before something is added.
    fn make_room_for(&mut self, origin: Origin) -> Result<(), TooManyPending> {
        match self.origins.get(&origin) {
            Some(arrivals) if arrivals.pending.len() < PENDING_EVENTS_MAX => return Ok(()),
            Some(_) => return Err(TooManyPending),
            None if self.origins.len() < 2 * CURSORS_MAX => return Ok(()),
            None => {}
        }
        // An origin whose cursor is forgotten brings its last events again; no more than that.
        let idle =
            self.origins.iter().filter(|(_, arrivals)| arrivals.pending.is_empty() && !arrivals.ack_due);
        let oldest = idle.min_by_key(|(_, arrivals)| arrivals.moved).map(|(origin, _)| *origin);
        self.origins.remove(&oldest.ok_or(TooManyPending)?);
        Ok(())
    }
}

/// The messages handed out last.
#[derive(Debug, Default)]
struct Recent {
    keys: HashSet<MessageKey>,
    /// Oldest first.
    order: VecDeque<MessageKey>,
}

impl Recent {
    /// Remembers a message; returns false if it is remembered already.
    fn insert(&mut self, key: MessageKey) -> bool {
        if !self.keys.insert(key) {
            return false;
        }
        self.order.push_back(key);
        if self.order.len() > RECENT_MESSAGES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.keys.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
#[path = "inbox_tests.rs"]
mod tests;
