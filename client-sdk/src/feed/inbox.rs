//! What has arrived, what the application has taken, and what may be acknowledged: a state machine without IO.
//!
//! An acknowledgement on the wire is cumulative: "everything up to here, for good". The application takes events in
//! whatever order it likes. In between stands, per origin, the list of positions that arrived and are not yet
//! acknowledged; the cursor moves over its front as far as everything is done. What of all this must outlive the process
//! leaves as [`FeedChange`]s, and only cursors that were committed are acknowledged.
//!
//! ```text
//! prepare ──commit──> arrive (handed out) ──> acknowledge ──commit──> acknowledged to the server
//! ```
//!
//! Invariants: a cursor never passes an event that the application holds and has not acknowledged; an event is handed
//! out once per process, and once acknowledged in no later one, whether it comes again at the same position or at another
//! one (a repeated message); a message that came at two places is done at both when the application is done with it; everything
//! here is bounded.

use std::collections::VecDeque;
use std::time::Instant;

use quail_protocol::id::{Origin, Position, Stamp};
use quail_protocol::limits::CURSORS_MAX;

use super::hands::{Hands, Offer};
use super::shown::Shown;
use crate::ids::{IdMap, IdSet};
use crate::store::{FeedChange, FeedState, Mark, MessageKey, Owner, Place};

mod commits;

pub(crate) use commits::{Attaching, Batch};

/// Most events that may be unacknowledged. The server stops at its window of 256; far beyond, it is broken.
pub(crate) const PENDING_EVENTS_MAX: usize = 4096;

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
    /// It was acknowledged before, or the same message came at another position; this one is done.
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
    origins: IdMap<Origin, Arrivals>,
    /// Messages that the application holds.
    held: IdSet<MessageKey>,
    /// Other places of messages that it holds. At most as many as are pending.
    twins: Vec<(MessageKey, Place)>,
    shown: Shown,
    hands: Hands,
    /// Given up. Every attach names it: a server that was restored from a copy may have forgotten.
    set_aside: Vec<Place>,
    /// What of it the attach of this feed named.
    named: Vec<Place>,
    /// What of it the server has heard from this process, so that no acknowledgement need say it again.
    heard: Vec<Place>,
    seen: Stamp,
    seen_unsaved: bool,
    /// Counts moves of cursors, to know which moved last.
    moves: u64,
    cursors_unsaved: bool,
    /// What earlier clients left, until somebody takes it.
    marks: Vec<Mark>,
    pending: Vec<FeedChange>,
    /// Counts changes, those that are committed included.
    changes: u64,
}

#[derive(Debug, Default)]
struct Arrivals {
    cursor: Position,
    /// The cursor that was committed.
    saved: Position,
    /// The cursor that the server was told last.
    told: Position,
    /// Value of `moves` when the cursor moved last.
    moved: u64,
    ack_due: bool,
    /// Above the cursor, by rising position.
    pending: VecDeque<(Position, Progress)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Held,
    HandedOut(Option<MessageKey>),
    /// The same message is with the application at another place: done when that one is.
    Twin,
    Done,
}

impl Inbox {
    /// Goes on from what the device remembers.
    pub(crate) fn restore(state: FeedState) -> Self {
        let mut inbox = Self {
            attach_number: state.attach_number,
            seen: state.seen,
            shown: Shown::restore(state.shown),
            hands: Hands::restore(state.hands),
            set_aside: state.set_aside,
            marks: state.marks,
            ..Self::default()
        };
        for (origin, cursor) in state.cursors {
            inbox.moves += 1;
            let moved = inbox.moves;
            let arrivals = Arrivals { cursor, saved: cursor, moved, ..Arrivals::default() };
            inbox.origins.insert(origin, arrivals);
        }
        inbox
    }

    /// The part was nobody's, and is this device's.
    pub(crate) fn belongs_to(&mut self, owner: Owner) {
        self.change(FeedChange::Owner(owner));
    }

    /// Returns the largest stamp that was shown.
    pub(crate) fn seen(&self) -> Stamp {
        self.seen
    }

    /// Notes that something is about to be handed out, if it is. It may be handed out once the change is committed.
    pub(crate) fn prepare(&mut self, place: Place, arrival: Arrival, hold: bool, now: Instant) {
        if self.judge(place, arrival, hold) != Verdict::HandOut {
            return;
        }
        let (offer, changes) = self.hands.offer(place, now);
        self.change_all(changes);
        if offer.gives_up && !self.set_aside.contains(&place) {
            self.set_aside.push(place);
            if self.set_aside.len() > crate::store::SET_ASIDE_MAX {
                self.set_aside.remove(0);
            }
            self.change(FeedChange::SetAside(self.set_aside.clone()));
        }
    }

    /// Decides what to do with something that arrived and was prepared; with `hold`, nobody reads events now.
    pub(crate) fn arrive(
        &mut self,
        place: Place,
        arrival: Arrival,
        hold: bool,
    ) -> Result<Verdict, TooManyPending> {
        let (origin, position) = place;
        self.make_room_for(origin)?;
        let verdict = self.judge(place, arrival, hold);
        let arrivals = self.origins.entry(origin).or_default();
        let progress = match verdict {
            Verdict::Again => {
                // The server has not heard yet.
                arrivals.ack_due |= position <= arrivals.saved;
                return Ok(verdict);
            }
            Verdict::Duplicate => match arrival {
                Arrival::Message(key) if self.held.contains(&key) => {
                    self.twins.push((key, place));
                    Progress::Twin
                }
                _ => Progress::Done,
            },
            Verdict::Done => Progress::Done,
            Verdict::Hold => Progress::Held,
            Verdict::HandOut => Progress::HandedOut(match arrival {
                Arrival::Message(key) => Some(key),
                Arrival::Gap | Arrival::Passing | Arrival::Internal => None,
            }),
        };
        if let Progress::HandedOut(Some(key)) = progress {
            self.held.insert(key);
        }
        let index = arrivals.pending.partition_point(|(other, _)| *other < position);
        arrivals.pending.insert(index, (position, progress));
        if progress == Progress::Done {
            self.advance(origin);
        }
        Ok(verdict)
    }

    /// Returns what is known of an event that is handed out.
    pub(crate) fn offered(&self, place: Place) -> Offer {
        self.hands.offered(place)
    }

    /// A stamp was shown.
    pub(crate) fn saw(&mut self, stamp: Stamp) {
        if stamp > self.seen {
            self.seen = stamp;
            self.seen_unsaved = true;
        }
    }

    /// The stamp that was shown was from a wrong clock.
    pub(crate) fn forget_seen(&mut self) {
        self.seen = Stamp::default();
        self.seen_unsaved = true;
    }

    /// The application is about to be given an event that another process died with. Returns the change to wait for.
    pub(crate) fn take_in_hand(&mut self, place: Place, now: Instant) -> u64 {
        match self.hands.take(place, now) {
            Some(change) => self.change(change),
            None => self.changes,
        }
    }

    /// The application let go of an event without acknowledging it.
    pub(crate) fn release(&mut self, place: Place) {
        if let Some(change) = self.hands.release(place) {
            self.change(change);
        }
    }

    /// What the application has held for long is not what the process dies of.
    pub(crate) fn release_old(&mut self, now: Instant) {
        let released = self.hands.release_old(now);
        self.change_all(released);
    }

    /// The client ends in good order: whatever the application holds, the end is not its doing.
    pub(crate) fn release_all(&mut self) {
        let released = self.hands.release_all();
        self.change_all(released);
    }

    /// The application is done with an event. Returns whether there is something to commit.
    pub(crate) fn acknowledge(&mut self, place: Place) -> bool {
        let (origin, position) = place;
        let Some(arrivals) = self.origins.get_mut(&origin) else {
            return false;
        };
        let Ok(index) = arrivals.pending.binary_search_by_key(&position, |(position, _)| *position) else {
            return false;
        };
        let progress = std::mem::replace(&mut arrivals.pending[index].1, Progress::Done);
        if let Progress::HandedOut(Some(key)) = progress {
            self.held.remove(&key);
            // The server's clock, as far as we know it: our own may be wrong by years.
            let shown = self.shown.add(key, self.seen.unix_ms());
            self.change_all(shown);
            self.acknowledge_twins(key);
        }
        self.advance(origin);
        if let Some(change) = self.hands.done(place) {
            self.change(change);
        }
        true
    }

    /// The application is done with a message: it is so wherever it came.
    fn acknowledge_twins(&mut self, key: MessageKey) {
        if self.twins.is_empty() {
            return;
        }
        let twins = self.twins.extract_if(.., |(twin, _)| *twin == key).collect::<Vec<_>>();
        for (_, (origin, position)) in twins {
            if let Some(arrivals) = self.origins.get_mut(&origin)
                && let Ok(index) = arrivals.pending.binary_search_by_key(&position, |(position, _)| *position)
            {
                arrivals.pending[index].1 = Progress::Done;
                self.advance(origin);
            }
        }
    }

    /// Forgets what was held and all behind it, so that it is handed out when the server brings it again. What is done
    /// behind it must go too: the cursor would move over the hole. Nothing behind it is with the application, because
    /// nothing is handed out while something is held.
    pub(crate) fn forget_held(&mut self) {
        for arrivals in self.origins.values_mut() {
            let held = arrivals.pending.iter().position(|(_, progress)| *progress == Progress::Held);
            arrivals.pending.truncate(held.unwrap_or(arrivals.pending.len()));
        }
        let origins = &self.origins;
        self.twins.retain(|(_, (origin, position))| {
            let last = origins.get(origin).and_then(|arrivals| arrivals.pending.back());
            last.is_some_and(|(last, _)| last >= position)
        });
    }

    /// Decides without changing anything.
    fn judge(&self, place: Place, arrival: Arrival, hold: bool) -> Verdict {
        let (origin, position) = place;
        if let Some(arrivals) = self.origins.get(&origin) {
            let is_pending = || arrivals.pending.binary_search_by_key(&position, |(other, _)| *other).is_ok();
            if position <= arrivals.cursor || is_pending() {
                return Verdict::Again;
            }
        }
        match arrival {
            Arrival::Internal => Verdict::Done,
            _ if self.hands.is_done(place) => Verdict::Duplicate,
            Arrival::Passing if hold => Verdict::Done,
            _ if hold => Verdict::Hold,
            Arrival::Message(key) if self.held.contains(&key) || self.shown.contains(&key) => {
                Verdict::Duplicate
            }
            Arrival::Message(_) | Arrival::Gap | Arrival::Passing => Verdict::HandOut,
        }
    }

    fn advance(&mut self, origin: Origin) {
        let Some(arrivals) = self.origins.get_mut(&origin) else { return };
        let before = arrivals.cursor;
        while let Some((position, Progress::Done)) = arrivals.pending.front().copied() {
            arrivals.pending.pop_front();
            arrivals.cursor = position;
        }
        let cursor = arrivals.cursor;
        if cursor > before {
            self.moves += 1;
            arrivals.moved = self.moves;
            self.cursors_unsaved = true;
            let gone = self.hands.passed(origin, cursor);
            self.change_all(gone.into_iter().map(FeedChange::HandGone));
        }
    }

    fn change(&mut self, change: FeedChange) -> u64 {
        self.pending.push(change);
        self.changes += 1;
        self.changes
    }

    fn change_all(&mut self, changes: impl IntoIterator<Item = FeedChange>) {
        for change in changes {
            self.change(change);
        }
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

#[cfg(test)]
#[path = "inbox_tests.rs"]
mod tests;
