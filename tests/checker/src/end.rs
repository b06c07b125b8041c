//! What a run came to: rules about what must have happened.

use std::collections::HashMap;

use quail_protocol::id::{Origin, Position};

use super::judge::Judge;
use super::state::{Device, Message};
use super::{Key, Place, ReceiptKind, Violation};

impl Judge {
    /// Everything that could happen has happened.
    pub(super) fn look_back(&mut self) {
        let mut found = std::mem::take(&mut self.found);
        for (key, message) in &self.messages {
            self.look_at(*key, message, &mut found);
        }
        for device in self.devices.values() {
            self.sorted_as_sent(device, &mut found);
        }
        for origin in self.lineage.ended() {
            let untold = self.devices.iter().filter(|(_, device)| self.lacks_the_end(device, origin));
            found.extend(untold.map(|(id, _)| Violation::EndUntold { device: *id, origin }));
        }
        self.found = found;
    }

    /// Returns all the places at which a message may be seen.
    pub(super) fn names(&self, message: &Message) -> Vec<Place> {
        message.places.iter().flat_map(|place| self.lineage.names(*place)).collect()
    }

    fn look_at(&self, key: Key, message: &Message, found: &mut Vec<Violation>) {
        let Some(sender) = self.devices.get(&message.by) else { return };
        if message.places.is_empty() {
            if !message.refused && sender.left.is_none() {
                found.push(Violation::Unanswered { message: key });
            }
            return;
        }
        if message.refused {
            found.push(Violation::StoredThoughRefused { message: key });
        } else if !message.accepted && sender.left.is_none() {
            found.push(Violation::Unanswered { message: key });
        }
        let is_before = |cause: &_| {
            message.places.iter().any(|place| *place != Place::UNSEEN && *cause >= place.sorts_by())
        };
        if let Some(cause) = message.cause.filter(is_before) {
            found.push(Violation::CausalOrder { message: key, cause });
        }
        // What a directory had that was set aside is owed to nobody; who knew it is told of its end.
        if message.places.iter().all(|place| self.lineage.is_gone(*place)) {
            return;
        }
        let places = self.names(message);
        for (id, device) in &self.devices {
            if message.is_owed(key, &places, *id, &self.devices) && !device.is_served(key, &places) {
                found.push(Violation::Lost { message: key, device: *id });
            }
        }
        let is_watched = sender.left.is_none() && !message.unwatched && !sender.may_lack_receipts(&places);
        if self.terms.receipts && is_watched {
            self.look_for_receipts(key, message, sender, &places, found);
        }
    }

    fn look_for_receipts(
        &self,
        key: Key,
        message: &Message,
        sender: &Device,
        places: &[Place],
        found: &mut Vec<Violation>,
    ) {
        for reader in &message.to {
            let told = sender.told.get(&(key, *reader)).copied();
            let mut devices = self.devices.values().filter(|device| device.account == *reader);
            let acknowledged = devices.any(|device| device.surely_acknowledged(&key, places));
            if acknowledged && told.is_none() {
                found.push(Violation::MissingReceipt { message: key, reader: *reader });
            }
            // What was said in secret once stays untold, also when it is said again.
            let is_to_be_told =
                message.read_taken_of.contains(reader) && !message.read_in_secret_by.contains(reader);
            if is_to_be_told && told < Some(ReceiptKind::Read) {
                found.push(Violation::MissingRead { message: key, reader: *reader });
            }
        }
    }

    /// What one device sent sorts as it was sent, at each origin.
    fn sorted_as_sent(&self, device: &Device, found: &mut Vec<Violation>) {
        let mut last: HashMap<Origin, (Key, Place)> = HashMap::new();
        if let Some(forgotten) = device.forgotten.filter(|forgotten| forgotten.place != Place::UNSEEN) {
            let key = Key { sender: device.account, id: forgotten.last };
            last.insert(forgotten.place.origin, (key, forgotten.place));
        }
        for later in &device.sent {
            let Some(message) = self.messages.get(later) else { continue };
            for place in self.names(message).into_iter().filter(|place| *place != Place::UNSEEN) {
                if let Some((earlier, before)) = last.insert(place.origin, (*later, place))
                    && earlier != *later
                    && before.sorts_by() >= place.sorts_by()
                {
                    found.push(Violation::SenderOrder { earlier, later: *later });
                }
            }
        }
    }

    /// Returns whether a device that is still here knew an origin and then one that came after it, and was not told in between.
    fn lacks_the_end(&self, device: &Device, origin: Origin) -> bool {
        let is_told = device.gaps.iter().any(|(of, _, upto)| *of == origin && *upto == Position::END);
        let knew_later = |other: &Origin| self.lineage.follows(origin, *other);
        device.left.is_none()
            && !is_told
            && device.knew.contains(&origin)
            && device.knew.iter().any(knew_later)
    }
}
