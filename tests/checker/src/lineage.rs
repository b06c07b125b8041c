//! Which origin carried on with what another one had given.
//!
//! A data directory that was restored becomes a new origin. What it still holds keeps its positions and is from then on seen under
//! the new number; what the old one gave beyond is nowhere, and may be sent and stored a second time.
//!
//! Invariant: an origin has one successor at most, which came after it, so following successors ends.

use std::collections::HashMap;

use quail_protocol::id::{Origin, Position};

use super::Place;

/// What became of the origins that ended.
#[derive(Default)]
pub(super) struct Lineage {
    /// Who carries on, and the last position that was carried over.
    ended: HashMap<Origin, (Origin, Position)>,
}

impl Lineage {
    /// An origin ends, and another one carries on with what it had up to a position.
    pub(super) fn ends(&mut self, of: Origin, (next, upto): (Origin, Position)) {
        let is_new = !self.ended.contains_key(&next) && next != of;
        if is_new {
            self.ended.entry(of).or_insert((next, upto));
        }
    }

    /// Returns the origins that have ended.
    pub(super) fn ended(&self) -> impl Iterator<Item = Origin> + '_ {
        self.ended.keys().copied()
    }

    /// Returns all the places that are one place: itself and what it is called where it was carried over.
    pub(super) fn names(&self, place: Place) -> Vec<Place> {
        let mut names = vec![place];
        let mut last = place;
        while let Some((next, upto)) = self.ended.get(&last.origin)
            && last.position <= *upto
        {
            last = Place { origin: *next, ..last };
            names.push(last);
        }
        names
    }

    /// Returns whether what stood there is held by no origin any more.
    pub(super) fn is_gone(&self, place: Place) -> bool {
        let last = self.names(place).pop().unwrap_or(place);
        self.ended.contains_key(&last.origin)
    }

    /// Returns whether one message may be seen at both: they are one place, or one of them was lost before the other was given.
    pub(super) fn may_be_both(&self, one: Place, other: Place) -> bool {
        let is_after = |first: Place, then: Place| {
            let last = self.names(first).pop().unwrap_or(first);
            self.names(first).contains(&then)
                || self.ended.contains_key(&last.origin) && self.follows(last.origin, then.origin)
        };
        is_after(one, other) || is_after(other, one)
    }

    /// Returns whether one origin came out of another one, at whatever distance.
    pub(super) fn follows(&self, ancestor: Origin, origin: Origin) -> bool {
        let mut at = ancestor;
        while let Some((next, _)) = self.ended.get(&at) {
            if *next == origin {
                return true;
            }
            at = *next;
        }
        false
    }
}
