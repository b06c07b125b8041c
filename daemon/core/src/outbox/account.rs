//! The outbox of one account: the index of its events, and its devices with their feeds.

use std::collections::VecDeque;
use std::sync::Arc;

use quail_protocol::id::{AccountId, DeviceId, Position};

use super::feed::{Acknowledged, Feed, Mode};
use super::{OUTBOX_BYTES_MAX, OUTBOX_EVENTS_MAX, SendWindow};
use crate::command::{ConnectionId, Effect, FeedId, Outcome};
use crate::ports::outbox::{DeviceRecord, Entry, RecentSend, Slot, StoredEvent, Stretch};
use crate::receipts::ReceiptBook;

/// One device of an account.
#[derive(Debug)]
pub(crate) struct Device {
    pub(super) id: DeviceId,
    pub(super) record: DeviceRecord,
    /// The device was left out of nothing from here to its cursor, as far as this process knows.
    pub(super) whole_since: Position,
    pub(crate) sends: SendWindow,
    pub(super) feed: Option<Feed>,
}

/// What the core keeps of one account.
#[derive(Debug, Default)]
pub(crate) struct AccountOutbox {
    /// Version of the directory's facts that were applied; `None` until the directory was asked.
    pub(super) facts_version: Option<u64>,
    /// Whether senders are told what the account has read. Not until the directory was asked.
    pub(crate) read_receipts: bool,
    /// At most the directory's limit of devices.
    pub(super) devices: Vec<Device>,
    pub(crate) receipts: ReceiptBook,
    index: VecDeque<Slot>,
    bytes: usize,
    collapsed: Position,
    /// There is no device, and none was told of the gap up to `collapsed`: the next one is.
    pub(super) unheard: bool,
}

impl Device {
    pub(super) fn new(id: DeviceId, record: DeviceRecord) -> Self {
        Self { id, record, whole_since: record.cursor, sends: SendWindow::default(), feed: None }
    }

    /// Moves the cursor to where the feed is done and returns whether it moved.
    pub(super) fn settle(&mut self) -> bool {
        let done = self.feed.as_ref().map_or(Position::ZERO, Feed::done);
        let moved = done > self.record.cursor;
        self.record.cursor = self.record.cursor.max(done);
        moved
    }
}

impl AccountOutbox {
    pub(crate) fn recover_device(&mut self, device: DeviceId, record: DeviceRecord) {
        self.receipts.acknowledged_unseen(record.acked);
        self.devices.reserve_exact(1);
        self.devices.push(Device::new(device, record));
    }

    pub(crate) fn recover_send(&mut self, device: DeviceId, send: RecentSend) {
        if let Some(device) = self.device_mut(device) {
            device.sends.push(send);
        }
    }

    pub(crate) fn recover_slot(&mut self, slot: Slot) {
        self.bytes += slot.bytes as usize;
        self.index.push_back(slot);
    }

    /// To be told after the devices: whether one that has gone was told of the gap, nobody remembers. Told twice is better
    /// than never.
    pub(crate) fn recover_collapsed(&mut self, upto: Position) {
        self.collapsed = upto;
        self.unheard = self.devices.is_empty();
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// Returns whether the index has an event above `after` and up to `upto`.
    pub(super) fn holds(&self, after: Position, upto: Position) -> bool {
        let first = self.index.partition_point(|slot| slot.position <= after);
        self.index.get(first).is_some_and(|slot| slot.position <= upto)
    }

    pub(crate) fn collapsed(&self) -> Position {
        self.collapsed
    }

    /// Returns whether the directory was asked for this account since the start.
    pub(crate) fn is_known(&self) -> bool {
        self.facts_version.is_some()
    }

    pub(crate) fn has_devices(&self) -> bool {
        !self.devices.is_empty()
    }

    pub(crate) fn has_device_besides(&self, device: DeviceId) -> bool {
        self.devices.iter().any(|other| other.id != device)
    }

    pub(crate) fn has_device(&self, device: DeviceId) -> bool {
        self.devices.iter().any(|other| other.id == device)
    }

    /// Returns whether a feed is the one that the device has attached.
    pub(crate) fn has_feed(&self, device: DeviceId, id: FeedId) -> bool {
        let device = self.devices.iter().find(|other| other.id == device);
        device.and_then(|device| device.feed.as_ref()).is_some_and(|feed| feed.id == id)
    }

    /// Returns the feeds that are attached now.
    pub(crate) fn feeds(&self) -> impl Iterator<Item = FeedId> {
        self.devices.iter().filter_map(|device| device.feed.as_ref()).map(|feed| feed.id)
    }

    pub(crate) fn device_mut(&mut self, device: DeviceId) -> Option<&mut Device> {
        self.devices.iter_mut().find(|other| other.id == device)
    }

    pub(crate) fn detach(&mut self, device: DeviceId, connection: ConnectionId) {
        if let Some(device) = self.device_mut(device) {
            device.feed.take_if(|feed| feed.id.connection == connection);
        }
    }

    /// Returns where a device that is the account's only one starts: before the first event that nobody has yet. If a gap is
    /// still to be told, that is before everything, for nobody remembers where the gap begins; it then ends at that first
    /// event, because nobody remembers either what of the rest was taken.
    pub(super) fn floor(
        &mut self,
        account: AccountId,
        last_position: Position,
        outcome: &mut Outcome,
    ) -> Position {
        let floor = self.index.front().map_or(last_position, |slot| Position(slot.position.0 - 1));
        if !std::mem::take(&mut self.unheard) {
            return floor;
        }
        self.collapsed = self.collapsed.max(floor);
        outcome.entries.push(Entry::Collapsed { account, upto: self.collapsed });
        Position::ZERO
    }

    /// Takes in a new event and writes it to every feed that is live. The event's own entry is the caller's.
    pub(crate) fn append(&mut self, account: AccountId, event: &Arc<StoredEvent>, outcome: &mut Outcome) {
        let bytes = event.frame.len();
        self.bytes += bytes;
        self.index.push_back(Slot { position: event.position, bytes: bytes as u32 });
        outcome.put += 1;
        for device in &mut self.devices {
            let Some(feed) = device.feed.as_mut().filter(|feed| feed.mode == Mode::Live) else {
                continue;
            };
            if !feed.has_room() {
                feed.mode = Mode::Behind;
                tell_stall(feed, false, outcome);
            } else if feed.pass(event, (account, device.id), &mut Acknowledged::default()) {
                self.receipts.written(event.position);
                outcome.after.push(Effect::Deliver { feed: feed.id, event: event.clone() });
            } else if device.settle() {
                outcome.entries.push(Entry::Device { account, device: device.id, record: device.record });
            }
        }
        self.resolve(account, outcome);
        self.collapse_over_limit(account, outcome);
    }

    /// Forgets every event that all devices are past. Without devices nobody is past anything.
    pub(super) fn resolve(&mut self, account: AccountId, outcome: &mut Outcome) {
        if let Some(past) = self.devices.iter().map(|device| device.record.cursor).min() {
            self.forget_through(past, account, outcome);
        }
    }

    /// Takes one event out, if it is there.
    pub(crate) fn withdraw(&mut self, account: AccountId, position: Position, outcome: &mut Outcome) {
        let Ok(at) = self.index.binary_search_by_key(&position, |slot| slot.position) else {
            return;
        };
        if let Some(slot) = self.index.remove(at) {
            self.bytes -= slot.bytes as usize;
            outcome.resolved += 1;
            outcome.entries.push(Entry::Withdrawn { account, position });
        }
    }

    /// Replaces everything up to `upto` by a gap. The gap stands before what it replaces: of a torn batch a store may keep
    /// the first alone, and events that are gone without a gap would be lost in silence.
    pub(super) fn collapse(&mut self, upto: Position, account: AccountId, outcome: &mut Outcome) {
        self.unheard |= self.devices.is_empty();
        self.collapsed = self.collapsed.max(upto);
        outcome.entries.push(Entry::Collapsed { account, upto: self.collapsed });
        self.forget_through(upto, account, outcome);
    }

    /// Replaces events that are too old by a gap, unless they are gone already.
    pub(crate) fn expire(&mut self, upto: Position, account: AccountId, outcome: &mut Outcome) {
        if self.index.front().is_some_and(|slot| slot.position <= upto) {
            self.collapse(upto, account, outcome);
        }
    }

    /// Goes on with a feed that is behind: a gap, the next read, or live.
    pub(super) fn pump(&mut self, account: AccountId, device: DeviceId, outcome: &mut Outcome) {
        let (collapsed, last) =
            (self.collapsed, self.index.back().map_or(Position::ZERO, |slot| slot.position));
        let Some(device) = self.device_mut(device) else {
            return;
        };
        let Some(feed) = device.feed.as_mut().filter(|feed| feed.mode == Mode::Behind) else {
            return;
        };
        let id = feed.id;
        if let Some((from, upto)) = feed.pass_collapsed(collapsed) {
            outcome.after.push(Effect::Gap { feed: id, from, upto });
        }
        if last <= feed.next {
            feed.next = feed.next.max(feed.claimed);
            feed.mode = Mode::Live;
            if !std::mem::replace(&mut feed.caught_up, true) {
                outcome.after.push(Effect::CaughtUp { feed: id });
            }
        } else if let Some((events_max, bytes_max)) = feed.room() {
            feed.mode = Mode::Reading { upto: last };
            let stretch = Stretch { after: feed.next, upto: last, events_max, bytes_max };
            outcome.after.push(Effect::Read { feed: id, account, device: device.id, stretch });
        }
        if device.settle() {
            outcome.entries.push(Entry::Device { account, device: device.id, record: device.record });
            self.resolve(account, outcome);
        }
    }

    /// Tells whether the feed of a device is stalled, where that is news.
    pub(super) fn tell_stall(&mut self, device: DeviceId, progress: bool, outcome: &mut Outcome) {
        if let Some(feed) = self.device_mut(device).and_then(|device| device.feed.as_mut()) {
            tell_stall(feed, progress, outcome);
        }
    }

    fn forget_through(&mut self, past: Position, account: AccountId, outcome: &mut Outcome) {
        let before = self.index.len();
        while let Some(slot) = self.index.pop_front_if(|slot| slot.position <= past) {
            self.bytes -= slot.bytes as usize;
        }
        let resolved = before - self.index.len();
        if resolved > 0 {
            outcome.resolved += resolved;
            outcome.entries.push(Entry::Resolved { account, upto: past });
        }
    }

    /// An eighth at a time, so that a full outbox does not make a gap of every event.
    fn collapse_over_limit(&mut self, account: AccountId, outcome: &mut Outcome) {
        if self.index.len() <= OUTBOX_EVENTS_MAX && self.bytes <= OUTBOX_BYTES_MAX {
            return;
        }
        let (mut events, mut bytes, mut upto) = (self.index.len(), self.bytes, Position::ZERO);
        for slot in &self.index {
            if events <= OUTBOX_EVENTS_MAX / 8 * 7 && bytes <= OUTBOX_BYTES_MAX / 8 * 7 {
                break;
            }
            (events, bytes, upto) = (events - 1, bytes - slot.bytes as usize, slot.position);
        }
        self.collapse(upto, account, outcome);
    }
}

fn tell_stall(feed: &mut Feed, progress: bool, outcome: &mut Outcome) {
    if let Some(stalled) = feed.stall_news(progress) {
        outcome.after.push(Effect::Stalled { feed: feed.id, stalled });
    }
}
