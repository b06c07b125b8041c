//! Reading a backlog: settled first, then what is still in memory, by position.
//!
//! Invariant: the memory table is looked at first, together with the mark. What is settled at that moment stays readable in
//! the settled store until it is acknowledged, and what is not yet settled was taken along; so nothing is missed while a
//! spill goes on, and nothing is read twice.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use quail_core::ports::outbox::{BacklogReader, Note, StoreError, StoredEvent, Stretch};
use quail_protocol::frame;
use quail_protocol::id::{AccountId, Origin, Position, Stamp};
use quail_protocol::v1::{self, feed_down};

use super::engine::Shared;
use super::types::{Lost, SettledEvents};

/// A reader of the whole outbox.
pub(super) struct EngineReader {
    pub(super) shared: Arc<Shared>,
}

impl BacklogReader for EngineReader {
    fn read(&self, account: AccountId, stretch: Stretch) -> Result<Vec<Arc<StoredEvent>>, StoreError> {
        if stretch.upto <= stretch.after {
            return Ok(Vec::new());
        }
        let (fresh, mark, (resolved, withdrawn)) = {
            let table = self.shared.table();
            (table.read(account, stretch), table.mark.last_position, table.gone(account))
        };
        let stretch = Stretch { after: stretch.after.max(resolved), ..stretch };
        let (mut events, more) = if stretch.after < mark {
            self.settled(account, Stretch { upto: stretch.upto.min(mark), ..stretch }, &withdrawn)
        } else {
            (Vec::new(), false)
        };
        if !more {
            events.extend(fresh);
        }
        cut(&mut events, stretch);
        if let Some(adopted) = self.shared.adopted() {
            for event in events.iter_mut().filter(|event| event.position <= adopted.inherited) {
                *event = Arc::new(under(adopted.origin, event));
            }
        }
        Ok(events)
    }
}

impl EngineReader {
    /// Returns the first settled events of a stretch without those that were withdrawn since, and whether there may be more.
    /// Goes on where one was withdrawn: a page of nothing else would pass for an outbox that has lost its events.
    fn settled(
        &self,
        account: AccountId,
        mut stretch: Stretch,
        withdrawn: &[Position],
    ) -> (Vec<Arc<StoredEvent>>, bool) {
        let mut found = Vec::new();
        loop {
            let mut settled = self.shared.settled.read(account, stretch);
            let last_event = settled.events.last().map(|event| event.position);
            let last = last_event.max(settled.lost.iter().map(|lost| lost.upto).max());
            let more = settled.more;
            // What lies behind the page is told with the page that it lies in.
            let covered = |lost: &Lost| !more || Some(lost.upto) <= last;
            settled.lost.extend(self.shared.lost_at_open(account, stretch).filter(covered));
            let mut events = with_lost(settled);
            let read = events.len();
            events.retain(|event| !withdrawn.contains(&event.position));
            let is_whole = events.len() == read;
            let bytes: usize = events.iter().map(|event| event.frame.len()).sum();
            stretch.events_max = stretch.events_max.saturating_sub(events.len());
            stretch.bytes_max = stretch.bytes_max.saturating_sub(bytes);
            found.append(&mut events);
            match last {
                Some(last) if more && !is_whole => stretch.after = last,
                _ => return (found, more),
            }
        }
    }
}

/// Puts what was lost in its place among what was not.
fn with_lost(settled: SettledEvents) -> Vec<Arc<StoredEvent>> {
    let SettledEvents { mut events, lost, .. } = settled;
    if lost.is_empty() {
        return events;
    }
    for lost in lost {
        tracing::error!(from = %lost.from, upto = %lost.upto, what = lost.what, "lost from the settled store");
        events.push(Arc::new(stand_in(&lost)));
    }
    events.sort_by_key(|event| event.position);
    events.dedup_by_key(|event| event.position);
    events
}

/// Returns what stands in an outbox where something is lost.
pub(super) fn stand_in(lost: &Lost) -> StoredEvent {
    StoredEvent { position: lost.upto, note: Note::Lost { from: lost.from }, frame: Bytes::new() }
}

fn cut(events: &mut Vec<Arc<StoredEvent>>, stretch: Stretch) {
    let mut bytes = 0;
    let mut fits = |event: &Arc<StoredEvent>| {
        let first = bytes == 0;
        bytes += event.frame.len();
        first || bytes <= stretch.bytes_max
    };
    let count = events.iter().take(stretch.events_max).take_while(|event| fits(event)).count();
    events.truncate(count);
}

/// Returns an event that another origin accepted as one of this origin, under the same position.
fn under(origin: Origin, event: &StoredEvent) -> StoredEvent {
    let mut moved = event.clone();
    if let Ok(mut down) = v1::FeedDown::decode_length_delimited(&*event.frame)
        && let Some(feed_down::Frame::Event(inner)) = &mut down.frame
    {
        inner.origin = origin.0;
        moved.frame = frame::to_bytes(&down);
    }
    moved
}

/// Returns the stamp inside an event's frame.
pub(super) fn stamp_of(event: &StoredEvent) -> Option<Stamp> {
    match v1::FeedDown::decode_length_delimited(&*event.frame).ok()?.frame? {
        feed_down::Frame::Event(inner) => Some(Stamp(inner.stamp)),
        _ => None,
    }
}

/// Returns whether two stretches have a position in common.
pub(super) fn touches(lost: &Lost, after: Position, upto: Position) -> bool {
    lost.upto > after && lost.from <= upto
}
