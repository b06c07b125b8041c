//! Taking in what arrived together under one lock, with one commit for all of it.
//!
//! Invariant: whatever was changed is committed, or about to be, when this is dropped.

use std::sync::MutexGuard;

use quail_protocol::id::Stamp;

use super::Feed;
use super::hands::Offer;
use super::inbox::{Arrival, Inbox, TooManyPending, Verdict};
use crate::store::Place;

/// The inbox, while something is taken in.
#[derive(Debug)]
pub(crate) struct Arriving<'a> {
    feed: &'a Feed,
    inbox: MutexGuard<'a, Inbox>,
    is_changed: bool,
    is_known: bool,
}

impl<'a> Arriving<'a> {
    pub(super) fn new(feed: &'a Feed) -> Self {
        Self { feed, inbox: feed.inbox(), is_changed: false, is_known: false }
    }

    /// Decides what to do with something that was prepared, and how it is handed out.
    pub(crate) fn arrive(
        &mut self,
        place: Place,
        arrival: Arrival,
        hold: bool,
    ) -> Result<(Verdict, Offer), TooManyPending> {
        let verdict = self.inbox.arrive(place, arrival, hold)?;
        match verdict {
            Verdict::Done | Verdict::Duplicate => self.is_changed = true,
            Verdict::Again => self.is_known = true,
            Verdict::HandOut => return Ok((verdict, self.inbox.offered(place))),
            Verdict::Hold => {}
        }
        Ok((verdict, Offer::default()))
    }

    /// A stamp is shown.
    pub(crate) fn saw(&mut self, stamp: Stamp) {
        self.inbox.saw(stamp);
    }

    /// The server has written everything that waited.
    pub(crate) fn caught_up(&mut self) {
        self.inbox.caught_up();
        self.is_changed = true;
    }
}

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        if self.is_changed {
            self.feed.changed(&mut self.inbox);
        }
        if self.is_known {
            // The server has not heard yet.
            self.feed.ack_due.notify_one();
        }
    }
}
