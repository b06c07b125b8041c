//! Reading a backlog while the sequencer commits. sled's trees may be read from any thread.

use quail_core::ports::outbox::{BacklogReader, StoreError, StoredEvent};
use quail_protocol::id::{AccountId, Position};

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
    fn read(
        &self,
        account: AccountId,
        after: Position,
        events_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let first = format::event_key(account, after.next());
        let last = format::event_key(account, Position(u64::MAX));
        let (mut events, mut bytes) = (Vec::new(), 0);
        for item in self.events.range(first..=last).take(events_max) {
            let (key, value) = item.map_err(|error| io("read", error))?;
            let (_, position) = format::parse_event_key(&key)?;
            let event = format::parse_event(position, &value)?;
            bytes += event.frame.len();
            if bytes > bytes_max && !events.is_empty() {
                break;
            }
            events.push(event);
        }
        Ok(events)
    }
}
