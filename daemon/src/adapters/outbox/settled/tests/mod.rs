//! Tests of the settled store as a whole: a model in memory says what it must hold.

mod ages;
mod between;
mod crash;
mod damage;
mod figures;
mod formats;
mod rotation;
mod spills;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use quail_core::ports::outbox::{DeviceRecord, Note, RecentSend, StoredEvent, Stretch};
use quail_protocol::id::{AccountId, DeviceId, MessageId, Position, Stamp};

use super::super::types::{AccountSpill, Mark, Spill};
use super::*;

/// A small generator of numbers, seeded, so that a failure can be run again.
pub(super) struct Dice(pub u64);

impl Dice {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

pub(super) fn account(n: u64) -> AccountId {
    let mut dice = Dice(n);
    let mut id = [0; 16];
    id[..8].copy_from_slice(&dice.next().to_be_bytes());
    id[8..].copy_from_slice(&n.to_be_bytes());
    AccountId(id)
}

pub(super) fn device(n: u64) -> DeviceId {
    DeviceId(account(n).0)
}

/// The event of a position; its bytes follow from position and length.
pub(super) fn event(position: u64, len: usize) -> Arc<StoredEvent> {
    let note = match position % 2 {
        0 => Note::Message { sender: account(1), device: device(1), recipient: account(2) },
        _ => Note::Receipt { account: account(3), after: Position(1), upto: Position(position) },
    };
    let mut dice = Dice(position);
    let frame: Vec<u8> = (0..len).map(|_| dice.next() as u8).collect();
    Arc::new(StoredEvent { position: Position(position), note, frame: Bytes::from(frame) })
}

pub(super) fn send(number: u64) -> RecentSend {
    let (id, digest) = (MessageId([number as u8; 16]), [number as u8; 16]);
    RecentSend { number, id, digest, position: Position(number), stamp: Stamp(number) }
}

pub(super) fn mark(generation: u64, last_position: u64) -> Mark {
    Mark { generation, last_position: Position(last_position), last_stamp: Stamp(last_position) }
}

pub(super) fn all() -> Stretch {
    Stretch { after: Position::ZERO, upto: Position(u64::MAX), events_max: usize::MAX, bytes_max: usize::MAX }
}

pub(super) fn open(path: &Path) -> (SettledStore, SettledRecovered) {
    SettledStore::open(path, SettledOptions::default()).unwrap()
}

/// Copies a directory as it is.
pub(super) fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_all(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// What a store must hold.
#[derive(Clone, Default)]
pub(super) struct Model {
    pub(super) mark: Mark,
    pub(super) events: BTreeMap<(AccountId, Position), Arc<StoredEvent>>,
    pub(super) devices: BTreeMap<(AccountId, DeviceId), DeviceRecord>,
    pub(super) sends: BTreeMap<(DeviceId, u64), RecentSend>,
    pub(super) collapsed: BTreeMap<AccountId, Position>,
}

impl Model {
    pub(super) fn apply(&mut self, spill: &Spill) {
        self.mark = spill.mark;
        for (account, changed) in &spill.accounts {
            for event in &changed.events {
                self.events.insert((*account, event.position), event.clone());
            }
            self.events.retain(|(owner, position), _| {
                owner != account || *position > changed.resolved && !changed.withdrawn.contains(position)
            });
            self.collapsed.extend(changed.collapsed.map(|upto| (*account, upto)));
        }
        for (account, device, record) in &spill.devices {
            match record {
                Some(record) => drop(self.devices.insert((*account, *device), *record)),
                None => {
                    self.devices.remove(&(*account, *device));
                    self.sends.retain(|(owner, _), _| owner != device);
                }
            }
        }
        for (device, sends) in &spill.sends {
            self.sends.extend(sends.iter().map(|send| ((*device, send.number), *send)));
            while self.sends.range((*device, 0)..=(*device, u64::MAX)).count() > 256 {
                let oldest = *self.sends.range((*device, 0)..).next().unwrap().0;
                self.sends.remove(&oldest);
            }
        }
    }

    /// Fails unless a store that was just opened holds this and nothing else.
    pub(super) fn check_recovered(&self, found: &SettledRecovered) {
        assert_eq!(found.mark, self.mark);
        assert_eq!(found.lost, []);
        let Recovered { last_position, devices, sends, slots, collapsed, .. } = &found.recovered;
        assert_eq!(*last_position, self.mark.last_position);
        let expected: Vec<_> =
            self.devices.iter().map(|((account, device), r)| (*account, *device, *r)).collect();
        assert_eq!(*devices, expected);
        let expected: Vec<_> = self.sends.iter().map(|((device, _), send)| (*device, *send)).collect();
        assert_eq!(*sends, expected);
        let expected: Vec<_> = self.collapsed.iter().map(|(account, upto)| (*account, *upto)).collect();
        assert_eq!(*collapsed, expected);
        let found: Vec<_> =
            slots.iter().map(|(account, slot)| (*account, slot.position, slot.bytes)).collect();
        let expected: Vec<_> = self
            .events
            .iter()
            .map(|((account, at), event)| (*account, *at, event.frame.len() as u32))
            .collect();
        assert_eq!(found, expected);
    }

    /// Fails unless the events of every account are read as they were written.
    pub(super) fn check_reads(&self, reader: &SettledReader) {
        let accounts: std::collections::BTreeSet<_> =
            self.events.keys().map(|(account, _)| *account).collect();
        for account in accounts {
            let read = reader.read(account, all()).unwrap();
            assert_eq!(read.lost, []);
            assert_eq!(read.events, self.of(account));
        }
    }

    pub(super) fn of(&self, account: AccountId) -> Vec<Arc<StoredEvent>> {
        let range = (account, Position::ZERO)..=(account, Position(u64::MAX));
        self.events.range(range).map(|(_, event)| event.clone()).collect()
    }
}

/// Makes spills of all kinds, one after the other.
pub(super) struct Maker {
    pub(super) dice: Dice,
    pub(super) accounts: u64,
    pub(super) events: u64,
    position: u64,
    generation: u64,
    sent: u64,
}

impl Maker {
    pub(super) fn new(seed: u64) -> Self {
        Self { dice: Dice(seed), accounts: 12, events: 150, position: 0, generation: 0, sent: 0 }
    }

    pub(super) fn spill(&mut self, model: &Model) -> Spill {
        let mut accounts: BTreeMap<AccountId, AccountSpill> = BTreeMap::new();
        for _ in 0..self.events {
            self.position += 1 + self.dice.below(3);
            let len = match self.dice.below(60) {
                0 => 60_000,
                1..4 => 6_000,
                _ => self.dice.below(400) as usize,
            };
            let event = event(self.position, len);
            for _ in 0..1 + self.dice.below(2) {
                let account = account(self.dice.below(self.accounts));
                let events = &mut accounts.entry(account).or_default().events;
                if events.last().is_none_or(|last| last.position < event.position) {
                    events.push(event.clone());
                }
            }
        }
        for n in 0..self.accounts {
            let held: Vec<_> = model.of(account(n)).iter().map(|event| event.position).collect();
            let changed = accounts.entry(account(n)).or_default();
            if !held.is_empty() && self.dice.below(3) == 0 {
                changed.resolved = held[self.dice.below(held.len() as u64) as usize];
            }
            if !held.is_empty() && self.dice.below(3) == 0 {
                changed.withdrawn.push(held[self.dice.below(held.len() as u64) as usize]);
            }
            if self.dice.below(8) == 0 {
                changed.collapsed = Some(Position(self.position));
            }
        }
        let mut devices = Vec::new();
        let mut sends = Vec::new();
        for n in 0..6 {
            let record = DeviceRecord {
                cursor: Position(self.dice.below(self.position)),
                acked: Position(self.dice.below(self.position)),
                attach_number: self.generation,
            };
            let record = (self.dice.below(20) > 0).then_some(record);
            if record.is_some() && self.dice.below(2) == 0 {
                let many = 1 + self.dice.below(40);
                self.sent += 300;
                sends.push((
                    device(n),
                    (self.sent..self.sent + many)
                        .map(|number| RecentSend { position: Position(self.position), ..send(number) })
                        .collect(),
                ));
            }
            devices.push((account(n % 3), device(n), record));
        }
        self.generation += 1;
        let accounts = accounts.into_iter().collect();
        Spill { mark: mark(self.generation, self.position), accounts, devices, sends }
    }
}
