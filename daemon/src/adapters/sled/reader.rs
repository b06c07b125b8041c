//! Reading a backlog while the sequencer commits. sled's trees may be read from any thread.

use std::sync::Arc;

use quail_core::ports::outbox::{BacklogReader, StoreError, StoredEvent, Stretch};
use quail_protocol::id::AccountId;

use super::{format, io};

pub(super) struct SledReader {
    events: sled::Tree,
}

impl SledReader {
    pub(super) fn new(events: sled::Tree) -> Self {
        Self { events }
    }
}

impl BacklogReader for SledReader {
    fn read(&self, account: AccountId, stretch: Stretch) -> Result<Vec<Arc<StoredEvent>>, StoreError> {
        let Stretch { after, upto, events_max, bytes_max } = stretch;
        if upto <= after {
            return Ok(Vec::new());
        }
        let (first, last) = (format::event_key(account, after.next()), format::event_key(account, upto));
        let (mut events, mut bytes) = (Vec::new(), 0);
        for item in self.events.range(first..=last).take(events_max) {
            let (key, value) = item.map_err(|error| io("read", error))?;
            let (_, position) = format::parse_event_key(&key)?;
            let event = format::parse_event(position, &value)?;
            bytes += event.frame.len();
            if bytes > bytes_max && !events.is_empty() {
                break;
            }
            events.push(Arc::new(event));
        }
        Ok(events)
    }
}
