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
        let mut events = Vec::new();
        let mut more = false;
        if stretch.after < mark {
            let mut stretch = Stretch { upto: stretch.upto.min(mark), ..stretch };
            if !withdrawn.is_empty() {
                // They must not take the room of others: nothing at all would come back, and that means that all is lost.
                stretch.events_max = stretch.events_max.saturating_add(withdrawn.len());
                stretch.bytes_max = usize::MAX;
            }
            let settled = self.shared.settled.read(account, stretch)?;
            more = settled.more;
            events = with_lost(settled);
            events.retain(|event| !withdrawn.contains(&event.position));
        }
        // What stands for something lost may lie here and belong among what is settled.
        let settled_upto = events.last().map_or(Position::ZERO, |event| event.position);
        let fresh = fresh.into_iter().filter(|event| !more || event.position < settled_upto);
        events.extend(fresh);
        events.sort_by_key(|event| event.position);
        events.dedup_by_key(|event| event.position);
        cut(&mut events, stretch);
        if let Some(adopted) = self.shared.adopted() {
            for event in events.iter_mut().filter(|event| event.position <= adopted.inherited) {
                *event = Arc::new(under(adopted.origin, event));
            }
        }
        Ok(events)
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
