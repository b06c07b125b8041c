//! Forgetting what is settled, so that a run of any length can be judged in bounded memory.
//!
//! A message is settled when everything that must happen to it has, and without a fault. Of such messages only the first and the
//! last id of each sending device remain. What names one of them later is named itself: shown, it is shown twice, wherever and
//! to whomever. That another message is given its place is not found any more.
//!
//! Invariants: messages of a device are forgotten in the order in which it sent them, and only if their ids grow; so between two
//! forgotten ones every id is forgotten, or was never sent.

use quail_protocol::id::{AccountId, DeviceId};

use super::judge::Judge;
use super::state::{Device, Forgotten, Message};
use super::{Key, Place};

impl Judge {
    /// Forgets what is settled. For runs in which nothing is read: what is said to be read of a forgotten message is not judged.
    pub fn forget_settled(&mut self) {
        let senders: Vec<_> = self.devices.keys().copied().collect();
        for by in senders {
            while let Some((key, place)) = self.next_settled(&by) {
                self.forget(key);
                let Some(device) = self.devices.get_mut(&by) else { break };
                device.sent.pop_front();
                let first = device.forgotten.map_or(key.id, |forgotten| forgotten.first);
                device.forgotten = Some(Forgotten { first, last: key.id, place });
            }
        }
    }

    /// Returns how many messages are remembered.
    pub fn remembered(&self) -> usize {
        self.messages.len()
    }

    /// Returns the message that a device sent before all others that are remembered, if it is settled.
    fn next_settled(&self, by: &DeviceId) -> Option<(Key, Place)> {
        let device = self.devices.get(by)?;
        let key = *device.sent.front()?;
        let message = self.messages.get(&key)?;
        let &[place] = &message.places[..] else { return None };
        let sorts_behind = device.forgotten.is_none_or(|forgotten| {
            let is_behind = place == Place::UNSEEN || place.sorts_by() > forgotten.place.sorts_by();
            key.id > forgotten.last && is_behind
        });
        (sorts_behind && self.is_settled(key, place, message, device)).then_some((key, place))
    }

    fn is_settled(&self, key: Key, place: Place, message: &Message, sender: &Device) -> bool {
        let is_caused = place == Place::UNSEEN || message.cause.is_none_or(|cause| cause < place.sorts_by());
        let is_unread = message.read_by.is_empty() && message.read_in_secret_by.is_empty();
        let is_done = message.accepted && !message.refused && is_caused && is_unread;
        if !is_done || self.lineage.ended().next().is_some() {
            return false;
        }
        let has_receipt = |reader: &AccountId| sender.told.contains_key(&(key, *reader));
        let is_taken = |account: AccountId| {
            let here = |device: &&Device| device.account == account && device.left.is_none();
            self.devices.values().filter(here).any(|device| device.acknowledged.contains(&key))
        };
        let needs_receipt = self.terms.receipts && !message.unwatched;
        if !message.to.iter().all(|reader| is_taken(*reader) && (has_receipt(reader) || !needs_receipt)) {
            return false;
        }
        let lacks = |(id, device): (_, &Device)| {
            device.left.is_none()
                && message.is_owed(key, &[place], id, &self.devices)
                && !(device.ever_shown.contains(&key) && device.acknowledged.contains(&key))
        };
        !self.devices.iter().any(|(id, device)| lacks((*id, device)))
    }

    fn forget(&mut self, key: Key) {
        let Some(message) = self.messages.remove(&key) else { return };
        for place in &message.places {
            self.positions.remove(&(place.origin, place.position));
            self.sorted.remove(&place.sorts_by());
        }
        for device in self.devices.values_mut() {
            device.shown.remove(&key);
            device.ever_shown.remove(&key);
            device.acknowledged.remove(&key);
            for reader in &message.to {
                device.told.remove(&(key, *reader));
            }
        }
    }

    /// Returns whether a message is one of those that are forgotten.
    pub(super) fn is_forgotten(&self, message: Key) -> bool {
        let of_device = |device: &Device| {
            let forgotten = device.forgotten.filter(|_| device.account == message.sender);
            forgotten.is_some_and(|forgotten| (forgotten.first..=forgotten.last).contains(&message.id))
        };
        !self.messages.contains_key(&message) && self.devices.values().any(of_device)
    }
}
