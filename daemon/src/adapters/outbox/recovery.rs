//! What a data directory holds when it is opened: the settled store's word, and the journal's on top of it.

use std::collections::{BTreeMap, HashMap, VecDeque};

use quail_core::ports::outbox::{DeviceRecord, Entry, RecentSend, Recovered, Slot};
use quail_protocol::id::{AccountId, DeviceId, Position, Stamp};
use quail_protocol::limits::SENDS_UNANSWERED_MAX;

/// A store on its way from what was settled to what was journalled last.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    last_position: Position,
    last_stamp: Stamp,
    devices: HashMap<DeviceId, (AccountId, DeviceRecord)>,
    sends: HashMap<DeviceId, VecDeque<RecentSend>>,
    slots: HashMap<AccountId, BTreeSlots>,
    collapsed: HashMap<AccountId, Position>,
}

/// Slots by position. Replayed events come in order; what was lost is put in between.
type BTreeSlots = BTreeMap<Position, u32>;

impl Recovery {
    /// Begins with what the settled store held.
    pub(super) fn of(settled: Recovered) -> Self {
        let mut recovery = Self {
            last_position: settled.last_position,
            last_stamp: settled.last_stamp,
            collapsed: settled.collapsed.into_iter().collect(),
            ..Self::default()
        };
        for (account, device, record) in settled.devices {
            recovery.devices.insert(device, (account, record));
        }
        for (device, send) in settled.sends {
            recovery.sends.entry(device).or_default().push_back(send);
        }
        for (account, slot) in settled.slots {
            recovery.put(account, slot);
        }
        recovery
    }

    /// Takes note of an event in an outbox.
    pub(super) fn put(&mut self, account: AccountId, slot: Slot) {
        self.slots.entry(account).or_default().insert(slot.position, slot.bytes);
    }

    /// Takes note of positions and stamps that were given.
    pub(super) fn counted(&mut self, last_position: Position, last_stamp: Stamp) {
        self.last_position = self.last_position.max(last_position);
        self.last_stamp = self.last_stamp.max(last_stamp);
    }

    /// Replays an entry. Doing so twice changes nothing.
    pub(super) fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Event { event, accounts } => {
                for account in accounts {
                    self.put(*account, Slot { position: event.position, bytes: event.frame.len() as u32 });
                }
            }
            Entry::Sent { device, send } => {
                let sends = self.sends.entry(*device).or_default();
                if sends.back().is_some_and(|last| last.number >= send.number) {
                    return;
                }
                sends.push_back(*send);
                if sends.len() > SENDS_UNANSWERED_MAX {
                    sends.pop_front();
                }
            }
            Entry::Device { account, device, record } => {
                self.devices.insert(*device, (*account, *record));
            }
            Entry::DeviceGone { device, .. } => {
                self.devices.remove(device);
                self.sends.remove(device);
            }
            Entry::Resolved { account, upto } => {
                if let Some(slots) = self.slots.get_mut(account) {
                    *slots = slots.split_off(&upto.next());
                }
            }
            Entry::Withdrawn { account, position } => {
                if let Some(slots) = self.slots.get_mut(account) {
                    slots.remove(position);
                }
            }
            Entry::Collapsed { account, upto } => {
                let collapsed = self.collapsed.entry(*account).or_default();
                *collapsed = (*collapsed).max(*upto);
            }
        }
    }

    /// Returns every account that has a device or an event.
    pub(super) fn accounts(&self) -> Vec<AccountId> {
        let owners = self.devices.values().map(|(account, _)| *account);
        let mut accounts: Vec<_> = owners.chain(self.slots.keys().copied()).collect();
        accounts.sort_unstable();
        accounts.dedup();
        accounts
    }

    /// Returns what the core begins with.
    pub(super) fn finish(self) -> Recovered {
        let slots = self.slots.into_iter().flat_map(|(account, slots)| {
            slots.into_iter().map(move |(position, bytes)| (account, Slot { position, bytes }))
        });
        let sends = self.sends.into_iter();
        Recovered {
            last_position: self.last_position,
            last_stamp: self.last_stamp,
            devices: self
                .devices
                .into_iter()
                .map(|(device, (account, record))| (account, device, record))
                .collect(),
            sends: sends
                .flat_map(|(device, sends)| sends.into_iter().map(move |send| (device, send)))
                .collect(),
            slots: slots.collect(),
            collapsed: self.collapsed.into_iter().collect(),
        }
    }
}
