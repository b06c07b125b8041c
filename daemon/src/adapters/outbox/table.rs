//! The memory table: what was appended and is not settled yet.
//!
//! Two generations at most: the fresh one takes what is appended, the frozen one is being moved into the settled store.
//! Whatever is acknowledged while it is here never gets there. One lock guards both, so a reader sees a frozen generation
//! either here or, once the mark has passed it, in the settled store, and never in neither.
//!
//! Invariants: positions rise within an account, from the frozen generation to the fresh one; everything here lies above the
//! mark; applying what was applied before changes nothing that matters, because a restart replays the journal over a
//! half-done spill.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use quail_core::IdMap;
use quail_core::ports::outbox::{Batch, DeviceRecord, Entry, RecentSend, StoredEvent, Stretch};
use quail_protocol::id::{AccountId, DeviceId, Position};
use quail_protocol::limits::SENDS_UNANSWERED_MAX;

use super::types::{AccountSpill, Mark};

/// What an event takes in memory besides its frame: its part of the deque, of the shared allocation and of the note.
const EVENT_OVERHEAD_BYTES: usize = 128;

/// What changed in one outbox during a generation.
#[derive(Debug, Default)]
struct Changes {
    events: VecDeque<Arc<StoredEvent>>,
    resolved: Position,
    withdrawn: Vec<Position>,
    collapsed: Option<Position>,
}

impl Changes {
    /// Takes an event in. Almost always it is the last; only what stands for something lost comes later than its place.
    fn put(&mut self, event: &Arc<StoredEvent>) -> bool {
        if self.events.back().is_none_or(|last| last.position < event.position) {
            self.events.push_back(event.clone());
            return true;
        }
        let place = self.events.binary_search_by_key(&event.position, |event| event.position);
        if let Err(at) = place {
            self.events.insert(at, event.clone());
        }
        place.is_err()
    }

    /// Drops events up to a position and returns the bytes they held.
    fn resolve(&mut self, upto: Position) -> usize {
        let mut bytes = 0;
        while let Some(event) = self.events.pop_front_if(|event| event.position <= upto) {
            bytes += weight(&event);
        }
        bytes
    }

    /// Drops one event and returns the bytes it held, if it was there.
    fn withdraw(&mut self, position: Position) -> Option<usize> {
        let at = self.events.binary_search_by_key(&position, |event| event.position).ok()?;
        self.events.remove(at).map(|event| weight(&event))
    }
}

fn weight(event: &StoredEvent) -> usize {
    event.frame.len() + EVENT_OVERHEAD_BYTES
}

/// Everything of one generation.
#[derive(Debug, Default)]
pub(super) struct Generation {
    accounts: IdMap<AccountId, Changes>,
    /// Devices that were removed. One that came back since has its record below.
    gone: Vec<(AccountId, DeviceId)>,
    devices: IdMap<DeviceId, (AccountId, DeviceRecord)>,
    sends: IdMap<DeviceId, VecDeque<RecentSend>>,
    /// Memory held by events.
    bytes: usize,
}

impl Generation {
    fn is_empty(&self) -> bool {
        self.accounts.is_empty() && self.gone.is_empty() && self.devices.is_empty() && self.sends.is_empty()
    }

    fn resolve(&mut self, account: AccountId, upto: Position) {
        if let Some(changes) = self.accounts.get_mut(&account) {
            self.bytes -= changes.resolve(upto);
        }
    }

    fn events(&self, account: AccountId) -> impl Iterator<Item = &Arc<StoredEvent>> {
        self.accounts.get(&account).into_iter().flat_map(|changes| &changes.events)
    }

    pub(super) fn accounts(&self) -> Vec<AccountId> {
        self.accounts.keys().copied().collect()
    }

    pub(super) fn account(&self, account: AccountId) -> Option<AccountSpill> {
        let changes = self.accounts.get(&account)?;
        Some(AccountSpill {
            events: changes.events.iter().cloned().collect(),
            resolved: changes.resolved,
            withdrawn: changes.withdrawn.clone(),
            collapsed: changes.collapsed,
        })
    }

    pub(super) fn devices(&self) -> Vec<(AccountId, DeviceId, Option<DeviceRecord>)> {
        let gone = self.gone.iter().map(|(account, device)| (*account, *device, None));
        let records = self.devices.iter();
        gone.chain(records.map(|(device, (account, record))| (*account, *device, Some(*record)))).collect()
    }

    pub(super) fn sends(&self) -> Vec<(DeviceId, Vec<RecentSend>)> {
        self.sends.iter().map(|(device, sends)| (*device, sends.iter().copied().collect())).collect()
    }
}

/// Both generations and where the settled store stands.
#[derive(Debug)]
pub(super) struct Table {
    /// Number of the fresh generation.
    pub(super) generation: u64,
    pub(super) fresh: Generation,
    pub(super) frozen: Option<Generation>,
    pub(super) mark: Mark,
    /// Number of the last batch of the journal.
    pub(super) last_batch: u64,
    /// Bytes appended to the journal since the fresh generation began.
    pub(super) journalled: u64,
    /// When the fresh generation took its first batch.
    pub(super) since: Option<Instant>,
    last: Mark,
}

impl Table {
    pub(super) fn new(mark: Mark, generation: u64) -> Self {
        Self {
            generation,
            fresh: Generation::default(),
            frozen: None,
            mark,
            last_batch: 0,
            journalled: 0,
            since: None,
            last: mark,
        }
    }

    /// Goes on after a replay: with which generation, and from which batch.
    pub(super) fn begin(&mut self, generation: u64, last_batch: u64) {
        self.generation = self.generation.max(generation);
        self.last_batch = last_batch;
    }

    /// Takes in a batch that the journal took as number `batch_number`, with so many bytes.
    pub(super) fn apply(&mut self, batch: Batch<'_>, batch_number: u64, bytes: u64) {
        for entry in batch.entries {
            self.entry(entry);
        }
        self.last.last_position = self.last.last_position.max(batch.last_position);
        self.last.last_stamp = self.last.last_stamp.max(batch.last_stamp);
        self.last_batch = batch_number;
        self.journalled += bytes;
        self.since.get_or_insert_with(Instant::now);
    }

    fn entry(&mut self, entry: &Entry) {
        match entry {
            Entry::Event { event, accounts } => {
                for account in accounts {
                    if self.fresh.accounts.entry(*account).or_default().put(event) {
                        self.fresh.bytes += weight(event);
                    }
                }
            }
            Entry::Sent { device, send } => {
                let sends = self.fresh.sends.entry(*device).or_default();
                if sends.len() >= SENDS_UNANSWERED_MAX {
                    sends.pop_front();
                }
                sends.push_back(*send);
            }
            Entry::Device { account, device, record } => {
                self.fresh.devices.insert(*device, (*account, *record));
            }
            Entry::DeviceGone { account, device } => {
                self.fresh.gone.push((*account, *device));
                self.fresh.devices.remove(device);
                self.fresh.sends.remove(device);
                if let Some(frozen) = &mut self.frozen {
                    frozen.sends.remove(device);
                }
            }
            Entry::Resolved { account, upto } => {
                if let Some(frozen) = &mut self.frozen {
                    frozen.resolve(*account, *upto);
                }
                let changes = self.fresh.accounts.entry(*account).or_default();
                self.fresh.bytes -= changes.resolve(*upto);
                changes.resolved = changes.resolved.max(*upto);
            }
            Entry::Withdrawn { account, position } => self.withdraw(*account, *position),
            Entry::Collapsed { account, upto } => {
                let changes = self.fresh.accounts.entry(*account).or_default();
                changes.collapsed = changes.collapsed.max(Some(*upto));
            }
        }
    }

    fn withdraw(&mut self, account: AccountId, position: Position) {
        let changes = self.fresh.accounts.entry(account).or_default();
        if let Some(bytes) = changes.withdraw(position) {
            self.fresh.bytes -= bytes;
            return;
        }
        // It is settled, or its generation is on the way there: the next spill takes it out.
        changes.withdrawn.push(position);
        if let Some(frozen) = &mut self.frozen
            && let Some(bytes) =
                frozen.accounts.get_mut(&account).and_then(|changes| changes.withdraw(position))
        {
            frozen.bytes -= bytes;
        }
    }

    /// Makes the fresh generation the frozen one and returns where the settled store will stand after it; `None` if there
    /// is nothing to settle or a generation is frozen already.
    pub(super) fn freeze(&mut self) -> Option<Mark> {
        if self.frozen.is_some() || (self.fresh.is_empty() && self.journalled == 0) {
            return None;
        }
        self.frozen = Some(std::mem::take(&mut self.fresh));
        let mark = Mark { generation: self.generation, ..self.last };
        self.generation += 1;
        self.journalled = 0;
        self.since = None;
        Some(mark)
    }

    /// Drops the frozen generation: the settled store has it. The caller drops what is returned outside the lock.
    pub(super) fn settled(&mut self, mark: Mark) -> Option<Generation> {
        self.mark = mark;
        self.frozen.take()
    }

    /// Returns the event with the smallest position here. Walks over the accounts.
    pub(super) fn oldest(&self) -> Option<Arc<StoredEvent>> {
        let generations = self.frozen.iter().chain([&self.fresh]);
        let fronts = generations.flat_map(|generation| generation.accounts.values());
        fronts.filter_map(|changes| changes.events.front()).min_by_key(|event| event.position).cloned()
    }

    /// Returns the last position that was given.
    pub(super) fn last_position(&self) -> Position {
        self.last.last_position
    }

    /// Returns the memory held by events.
    pub(super) fn bytes(&self) -> usize {
        self.fresh.bytes + self.frozen.as_ref().map_or(0, |frozen| frozen.bytes)
    }

    /// Returns up to where everything of an account is gone, and which single events are, as far as the settled store may not
    /// know it yet.
    pub(super) fn gone(&self, account: AccountId) -> (Position, Vec<Position>) {
        let generations = self.frozen.iter().chain([&self.fresh]);
        let changes = generations.filter_map(|generation| generation.accounts.get(&account));
        changes.fold((Position::ZERO, Vec::new()), |(resolved, mut withdrawn), changes| {
            withdrawn.extend_from_slice(&changes.withdrawn);
            (resolved.max(changes.resolved), withdrawn)
        })
    }

    /// Returns the first events of a stretch that are here, at most as many as the stretch allows.
    pub(super) fn read(&self, account: AccountId, stretch: Stretch) -> Vec<Arc<StoredEvent>> {
        let frozen = self.frozen.iter().flat_map(|frozen| frozen.events(account));
        let events = frozen.chain(self.fresh.events(account));
        events
            .skip_while(|event| event.position <= stretch.after)
            .take_while(|event| event.position <= stretch.upto)
            .take(stretch.events_max)
            .cloned()
            .collect()
    }
}
