//! What of the inbox goes into the store, and what may be said to the server because it is there.
//!
//! Invariant: cursors and what was given up are told only as far as they are committed.

use quail_protocol::id::{Origin, Position};
use quail_protocol::limits::CURSORS_MAX;

use super::{Arrivals, Inbox};
use crate::store::{FeedChange, Mark, Place};

/// Changes on their way into the store.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) changes: Vec<FeedChange>,
    cursors: Option<Vec<Place>>,
    /// The count of the last of them.
    pub(crate) upto: u64,
}

/// What an attach says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Attaching {
    pub(crate) number: u64,
    pub(crate) cursors: Vec<Place>,
    pub(crate) set_aside: Vec<Place>,
}

impl Inbox {
    /// Raises the attach number for a new attach; it may be used, by [`Inbox::attaching`], once the change is committed.
    pub(crate) fn attach(&mut self) -> u64 {
        self.attach_number += 1;
        self.change(FeedChange::Attached(self.attach_number))
    }

    /// Returns what the attach says. Its cursors acknowledge as well.
    pub(crate) fn attaching(&mut self) -> Attaching {
        self.origins.values_mut().for_each(|arrivals| arrivals.ack_due = false);
        self.named = self.passed_aside();
        let cursors = self.cursors(|arrivals| arrivals.saved);
        for (origin, cursor) in &cursors {
            self.origins.entry(*origin).or_default().told = *cursor;
        }
        Attaching { number: self.attach_number, cursors, set_aside: self.named.clone() }
    }

    /// The server has read the attach, and all that it said.
    pub(crate) fn caught_up(&mut self) {
        if !self.named.is_empty() {
            self.heard = std::mem::take(&mut self.named);
        }
    }

    /// Takes the cursors that the server has not been told, at most as many as fit one acknowledgement, and what of that
    /// was given up.
    pub(crate) fn take_acks(&mut self) -> (Vec<Place>, Vec<Place>) {
        let due = self.origins.iter_mut().filter(|(_, arrivals)| arrivals.ack_due).take(CURSORS_MAX);
        let acks: Vec<_> = due
            .map(|(origin, arrivals)| {
                (arrivals.ack_due, arrivals.told) = (false, arrivals.saved);
                (*origin, arrivals.saved)
            })
            .collect();
        let mut set_aside = if acks.is_empty() { Vec::new() } else { self.passed_aside() };
        set_aside.retain(|place| !self.heard.contains(place));
        (acks, set_aside)
    }

    /// Returns up to where the server was told, by attach or acknowledgement, that everything is done.
    pub(crate) fn told(&self, origin: Origin) -> Position {
        self.origins.get(&origin).map_or(Position::ZERO, |arrivals| arrivals.told)
    }

    /// Takes the marks that earlier clients left.
    pub(crate) fn take_marks(&mut self) -> Vec<Mark> {
        std::mem::take(&mut self.marks)
    }

    /// These are all marks from now on.
    pub(crate) fn keep_marks(&mut self, marks: Vec<Mark>) {
        self.change(FeedChange::Marks(marks));
    }

    /// Returns whether there is something to commit.
    pub(crate) fn has_changes(&self) -> bool {
        !self.pending.is_empty() || self.cursors_unsaved
    }

    /// Gives back the list of a batch that was committed, so that the next one need not grow anew.
    pub(crate) fn reuse(&mut self, mut changes: Vec<FeedChange>) {
        if self.pending.is_empty() {
            changes.clear();
            self.pending = changes;
        }
    }

    /// Takes the changes to commit, if there are any.
    pub(crate) fn take_batch(&mut self) -> Option<Batch> {
        if !self.has_changes() {
            return None;
        }
        let cursors =
            std::mem::take(&mut self.cursors_unsaved).then(|| self.cursors(|arrivals| arrivals.cursor));
        if let Some(cursors) = &cursors {
            self.change(FeedChange::Cursors(cursors.clone()));
        }
        if std::mem::take(&mut self.seen_unsaved) {
            self.change(FeedChange::Seen(self.seen));
        }
        Some(Batch { changes: std::mem::take(&mut self.pending), cursors, upto: self.changes })
    }

    /// Changes were committed. Returns whether there is something to acknowledge.
    pub(crate) fn committed(&mut self, batch: &Batch) -> bool {
        let mut is_due = false;
        for (origin, cursor) in batch.cursors.iter().flatten() {
            if let Some(arrivals) = self.origins.get_mut(origin).filter(|arrivals| arrivals.saved < *cursor) {
                (arrivals.saved, arrivals.ack_due) = (*cursor, true);
                is_due = true;
            }
        }
        is_due
    }

    /// Of more origins than fit an attach, those whose cursors moved last.
    fn cursors(&self, cursor: impl Fn(&Arrivals) -> Position) -> Vec<Place> {
        let moved = self.origins.iter().filter(|(_, arrivals)| cursor(arrivals) > Position::ZERO);
        let mut cursors: Vec<_> =
            moved.map(|(origin, arrivals)| (arrivals.moved, *origin, cursor(arrivals))).collect();
        cursors.sort_unstable();
        let too_many = cursors.len().saturating_sub(CURSORS_MAX);
        cursors.into_iter().skip(too_many).map(|(_, origin, cursor)| (origin, cursor)).collect()
    }

    /// What was given up and lies at or below a committed cursor.
    fn passed_aside(&self) -> Vec<Place> {
        let is_passed = |(origin, position): &&Place| {
            self.origins.get(origin).is_some_and(|arrivals| *position <= arrivals.saved)
        };
        self.set_aside.iter().filter(is_passed).copied().collect()
    }

    /// Returns the count of the last change, that of cursors included which were not taken out yet.
    pub(crate) fn last_with_cursors(&self) -> u64 {
        self.changes + u64::from(self.cursors_unsaved)
    }

    /// Returns the count of the last change.
    pub(crate) fn last_change(&self) -> u64 {
        self.changes
    }
}
