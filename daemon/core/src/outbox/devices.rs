//! The devices of an account as the directory tells them.

use quail_protocol::id::{AccountId, DeviceId, Position};
use quail_protocol::v1::Reason;

use super::account::{AccountOutbox, Device};
use crate::command::{Effect, Outcome, Ticket};
use crate::ports::directory::AccountFacts;
use crate::ports::outbox::{DeviceRecord, Entry};
use crate::state::State;

impl State {
    /// Applies what the directory says of an account. Facts may come out of order; an older version changes nothing.
    pub(crate) fn learn(&mut self, facts: &AccountFacts, ticket: Option<Ticket>, outcome: &mut Outcome) {
        let outbox = self.accounts.entry(facts.account).or_default();
        if outbox.facts_version.is_none_or(|known| known < facts.version) {
            outbox.facts_version = Some(facts.version);
            outbox.read_receipts = facts.read_receipts;
            outbox.remove_devices_except(facts.account, &facts.devices, outcome);
            outbox.add_devices(facts.account, &facts.devices, self.last_position, outcome);
            outbox.resolve(facts.account, outcome);
        }
        if let Some(ticket) = ticket {
            outcome.after.push(Effect::Applied { ticket });
        }
    }
}

impl AccountOutbox {
    fn remove_devices_except(&mut self, account: AccountId, keep: &[DeviceId], outcome: &mut Outcome) {
        let (had_devices, collapsed, mut heard) = (self.has_devices(), self.collapsed(), false);
        self.devices.retain(|device| {
            if keep.contains(&device.id) {
                return true;
            }
            heard |= device.record.cursor >= collapsed;
            if let Some(feed) = &device.feed {
                let error = Reason::Unauthenticated.error();
                outcome.after.push(Effect::Ended { feed: feed.id, error });
            }
            outcome.after.push(Effect::CloseDevice { device: device.id });
            outcome.entries.push(Entry::DeviceGone { account, device: device.id });
            false
        });
        self.unheard |= had_devices && !self.has_devices() && !heard;
    }

    /// A new device starts at the end: what lies before it is history. Only where it is the account's sole device does it
    /// start at the first event that nobody has taken yet, because nobody else will.
    fn add_devices(&mut self, account: AccountId, all: &[DeviceId], last: Position, outcome: &mut Outcome) {
        if all.is_empty() {
            return;
        }
        let cursor = if self.devices.is_empty() { self.floor(account, last, outcome) } else { last };
        // Most accounts have one device, and a list that grows by itself begins with room for four.
        self.devices.reserve_exact(all.len().saturating_sub(self.devices.len()));
        for device in all {
            if self.device_mut(*device).is_some() {
                continue;
            }
            let record = DeviceRecord { cursor, ..DeviceRecord::default() };
            // Most accounts have one device, and the room for it is most of what an idle account takes.
            self.devices.reserve_exact(1);
            self.devices.push(Device::new(*device, record));
            outcome.entries.push(Entry::Device { account, device: *device, record });
        }
    }
}
