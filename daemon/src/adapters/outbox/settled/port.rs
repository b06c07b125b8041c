//! The store as the engine sees it.

use std::sync::Arc;

use prost::Message;
use quail_core::ports::outbox::{StoreError, StoredEvent, Stretch};
use quail_protocol::id::{AccountId, Position, Stamp};
use quail_protocol::v1::{self, feed_down};

use super::{ReadSettledError, SettledReader, SettledStore};
use crate::adapters::outbox::types::{ReadSettled, Settled, SettledEvents, Sizes, Spill};

/// Events looked at in one step of a walk over a backlog.
const WALK_EVENTS: usize = 256;

impl Settled for SettledStore {
    fn spill(&mut self, spill: &Spill) -> Result<(), StoreError> {
        Self::spill(self, spill).map(|_| ())
    }

    fn reader(&self) -> Arc<dyn ReadSettled> {
        Arc::new(Self::reader(self))
    }

    fn oldest(&self) -> Option<Stamp> {
        // Positions rise with time, so the smallest position is the oldest event.
        let reader = Self::reader(self);
        let firsts =
            self.held.accounts.iter().filter(|(_, state)| state.chunks > 0).filter_map(|(account, _)| {
                reader.read(*account, first_of(Position::ZERO)).ok()?.events.into_iter().next()
            });
        firsts.min_by_key(|event| event.position).and_then(|event| stamp_of(&event))
    }

    fn older_than(&self, stamp: Stamp) -> Vec<(AccountId, Position)> {
        let reader = Self::reader(self);
        let accounts = self.held.accounts.iter().filter(|(_, state)| state.chunks > 0);
        accounts.filter_map(|(account, _)| Some((*account, older_in(&reader, *account, stamp)?))).collect()
    }

    fn sizes(&self) -> Sizes {
        // Only for show: whoever has to act on it asks again.
        self.size().unwrap_or_default()
    }

    fn rotate_if_grown(&mut self) -> Result<bool, StoreError> {
        Self::rotate_if_grown(self)
    }
}

impl ReadSettled for SettledReader {
    fn read(&self, account: AccountId, stretch: Stretch) -> Result<SettledEvents, StoreError> {
        let read = Self::read(self, account, stretch);
        let read = read.map_err(|ReadSettledError { reason }| StoreError::Io { action: "read", reason })?;
        Ok(SettledEvents { events: read.events, lost: read.lost, more: read.more })
    }
}

fn first_of(after: Position) -> Stretch {
    Stretch { after, upto: Position::END, events_max: 1, bytes_max: usize::MAX }
}

/// Walks over a backlog as long as it is older; most begin with nothing that is. What stands for something lost has no stamp:
/// what follows it tells.
fn older_in(reader: &SettledReader, account: AccountId, stamp: Stamp) -> Option<Position> {
    let mut found = None;
    let mut stretch = first_of(Position::ZERO);
    loop {
        // What cannot be read now is looked for again.
        let Ok(read) = reader.read(account, stretch) else { return found };
        for event in &read.events {
            match stamp_of(event) {
                Some(of) if of >= stamp => return found,
                Some(_) => found = Some(event.position),
                None => {}
            }
        }
        let last = read.events.last().filter(|_| read.more);
        let Some(last) = last else { return found };
        stretch = Stretch { events_max: WALK_EVENTS, ..first_of(last.position) };
    }
}

fn stamp_of(event: &StoredEvent) -> Option<Stamp> {
    match v1::FeedDown::decode_length_delimited(&*event.frame).ok()?.frame? {
        feed_down::Frame::Event(inner) => Some(Stamp(inner.stamp)),
        _ => None,
    }
}
