//! Writing a spill: index and chunks, what is gone, devices, sends; then the mark.
//!
//! Everything but the mark is synced before the mark is written. A spill that was cut off lies above the mark or repeats what
//! the journal says again, so it may be begun again from anywhere.

use std::sync::Arc;

use quail_core::ports::outbox::{DeviceRecord, RecentSend, StoreError, StoredEvent};
use quail_protocol::id::{AccountId, DeviceId, Position};
use quail_protocol::limits::SENDS_UNANSWERED_MAX;

use super::format::{AccountRow, EVENT_HEADER, IndexRow};
use super::{CHUNK_BYTES_MAX, CHUNK_EVENTS_MAX, SettledStore, format, io};
use crate::adapters::outbox::types::{AccountSpill, Spill};
use crate::ops::failpoint::reached;

impl SettledStore {
    pub(super) fn write(&mut self, spill: &Spill) -> Result<(), StoreError> {
        // In the order of the keys, so that a page is changed once and not again and again.
        let mut accounts: Vec<_> = spill.accounts.iter().collect();
        accounts.sort_unstable_by_key(|(account, _)| *account);
        let written = (|| -> Result<(), StoreError> {
            for (account, changes) in accounts {
                self.account(*account, changes)?;
            }
            reached("settled-deleted");
            for (account, device, record) in &spill.devices {
                self.device(*account, *device, record.as_ref()).map_err(|error| io("write", error))?;
            }
            for (device, sends) in &spill.sends {
                self.sends(*device, spill.mark.generation, sends)?;
            }
            Ok(())
        })();
        written?;
        self.sync()?;
        reached("settled-before-mark");
        let mark = format::mark(spill.mark);
        self.trees().meta.insert(format::MARK, mark).map_err(|error| io("write", error))?;
        self.sync()?;
        reached("settled-marked");
        super::open::mark(&self.path, spill.mark.generation).map_err(|error| io("mark", error))?;
        self.drop_retired();
        Ok(())
    }

    fn account(&mut self, account: AccountId, changes: &AccountSpill) -> Result<(), StoreError> {
        let had = self.chunks.contains_key(&account);
        if had && changes.resolved > Position::ZERO {
            self.resolve(account, changes.resolved)?;
        }
        if had {
            for position in changes.withdrawn.iter().filter(|position| **position > changes.resolved) {
                self.withdraw(account, *position)?;
            }
        }
        for events in chunks_of(&changes.events) {
            self.put(account, events)?;
        }
        if had || changes.collapsed.is_some() {
            self.row(account, changes)?;
        }
        Ok(())
    }

    fn put(&mut self, account: AccountId, events: &[Arc<StoredEvent>]) -> Result<(), StoreError> {
        let Some(first) = events.first() else { return Ok(()) };
        let row = IndexRow {
            events: events.iter().map(|event| (event.position, event.frame.len() as u32)).collect(),
        };
        let mut chunk = Vec::with_capacity(row.chunk_bytes());
        chunk.push(format::VERSION);
        for event in events {
            format::put_event(&mut chunk, event);
        }
        let (key, index) = (format::chunk_key(account, first.position), format::index(&row));
        let bytes = (chunk.len() + index.len()) as u64;
        let trees = &self.database.trees;
        let replaced = trees.index.insert(key, index).map_err(|error| io("write", error))?;
        trees.chunks.insert(key, chunk).map_err(|error| io("write", error))?;
        if replaced.is_none() {
            *self.chunks.entry(account).or_default() += 1;
        }
        self.live_bytes += bytes;
        reached("settled-chunk-written");
        Ok(())
    }

    /// Removes the chunks that are gone as a whole.
    fn resolve(&mut self, account: AccountId, upto: Position) -> Result<(), StoreError> {
        let range = format::chunk_key(account, Position::ZERO)..=format::chunk_key(account, upto);
        let trees = self.trees().clone();
        for item in trees.index.range(range) {
            let (key, value) = item.map_err(|error| io("read", error))?;
            // A row that cannot be read is kept until everything of the account is gone.
            let Ok(row) = format::parse_index(&value) else { continue };
            if row.last() > upto {
                break;
            }
            trees.chunks.remove(&key).map_err(|error| io("write", error))?;
            trees.index.remove(&key).map_err(|error| io("write", error))?;
            self.forget(account, (row.chunk_bytes() + value.len()) as u64);
        }
        Ok(())
    }

    fn withdraw(&mut self, account: AccountId, position: Position) -> Result<(), StoreError> {
        let range = format::chunk_key(account, Position::ZERO)..=format::chunk_key(account, position);
        let trees = self.trees().clone();
        let Some(found) = trees.index.range(range).next_back() else { return Ok(()) };
        let (key, value) = found.map_err(|error| io("read", error))?;
        let Ok(row) = format::parse_index(&value) else { return Ok(()) };
        let Ok(at) = row.events.binary_search_by_key(&position, |(position, _)| *position) else {
            return Ok(());
        };
        let bytes = trees.chunks.get(&key).map_err(|error| io("read", error))?;
        let kept: Vec<_> = bytes.map_or_else(Vec::new, |bytes| {
            let events = super::reader::parse_chunk(&bytes, &row);
            events.into_iter().enumerate().filter(|(n, _)| *n != at).filter_map(|(_, event)| event).collect()
        });
        trees.chunks.remove(&key).map_err(|error| io("write", error))?;
        trees.index.remove(&key).map_err(|error| io("write", error))?;
        self.forget(account, (row.chunk_bytes() + value.len()) as u64);
        self.put(account, &kept)
    }

    fn forget(&mut self, account: AccountId, bytes: u64) {
        self.live_bytes = self.live_bytes.saturating_sub(bytes);
        if let Some(count) = self.chunks.get_mut(&account) {
            *count -= 1;
            if *count == 0 {
                self.chunks.remove(&account);
            }
        }
    }

    /// Writes what is kept of an account besides its events, where there is anything to keep.
    fn row(&self, account: AccountId, changes: &AccountSpill) -> Result<(), StoreError> {
        let tree = &self.trees().accounts;
        let before = tree.get(account.as_bytes()).map_err(|error| io("read", error))?;
        let before =
            before.map_or_else(|| Ok(AccountRow::default()), |value| format::parse_account(&value))?;
        let collapsed = before.collapsed.max(changes.collapsed.unwrap_or(Position::ZERO));
        // Only what still lies in a chunk must be known to be gone.
        let resolved = before.resolved.max(changes.resolved);
        let resolved = if self.chunks.contains_key(&account) { resolved } else { Position::ZERO };
        let row = AccountRow { resolved, collapsed };
        if row == AccountRow::default() {
            tree.remove(account.as_bytes()).map_err(|error| io("write", error))?;
        } else if row != before {
            tree.insert(account.as_bytes(), format::account(row)).map_err(|error| io("write", error))?;
        }
        Ok(())
    }

    fn device(
        &mut self,
        account: AccountId,
        device: DeviceId,
        record: Option<&DeviceRecord>,
    ) -> sled::Result<()> {
        let key = format::device_key(account, device);
        let trees = self.database.trees.clone();
        match record {
            Some(record) => {
                trees.devices.insert(key, format::device(record))?;
            }
            None => {
                trees.devices.remove(key)?;
                for (generation, _) in self.sends.remove(&device).unwrap_or_default() {
                    trees.sends.remove(format::send_key(device, generation))?;
                }
            }
        }
        Ok(())
    }

    fn sends(&mut self, device: DeviceId, generation: u64, sends: &[RecentSend]) -> Result<(), StoreError> {
        let tree = self.database.trees.sends.clone();
        let write = |error: sled::Error| io("write", error);
        tree.insert(format::send_key(device, generation), format::sends(sends)).map_err(write)?;
        let kept = self.sends.entry(device).or_default();
        kept.retain(|(of, _)| *of != generation);
        kept.push((generation, sends.len()));
        // The newest generations that fill the window are enough.
        let mut count = 0;
        let newest = kept.iter().rev().take_while(|(_, sends)| {
            let needed = count < SENDS_UNANSWERED_MAX;
            count += sends;
            needed
        });
        let surplus = kept.len() - newest.count();
        for (generation, _) in kept.drain(..surplus) {
            tree.remove(format::send_key(device, generation)).map_err(write)?;
        }
        Ok(())
    }
}

/// Cuts events into chunks.
fn chunks_of(events: &[Arc<StoredEvent>]) -> Vec<&[Arc<StoredEvent>]> {
    let mut chunks = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, event) in events.iter().enumerate() {
        let size = EVENT_HEADER + event.frame.len();
        if at > start && (at - start >= CHUNK_EVENTS_MAX || bytes + size > CHUNK_BYTES_MAX) {
            chunks.push(&events[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += size;
    }
    if start < events.len() {
        chunks.push(&events[start..]);
    }
    chunks
}
