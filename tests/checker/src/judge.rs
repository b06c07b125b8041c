//! Reads a log once, from its beginning: rules about what may happen after what.
//!
//! Rules about what must have happened are looked at when it has ended (`end.rs`).

use std::collections::{BTreeMap, HashMap};

use quail_protocol::id::{AccountId, DeviceId, MessageId, Origin, Position, Stamp};

use super::lineage::Lineage;
use super::state::{Device, Heir, Message};
use super::{Entry, Key, Place, ReceiptKind, Violation, What};

/// What kind of run is judged.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Whether outboxes may have overflowed.
    pub gaps: bool,
    /// Whether the devices that sent waited until they had every receipt.
    pub receipts: bool,
}

/// Names every promise that a run broke. The log is of a run that came to rest: every device that is not away for good has
/// taken everything that waits.
pub fn judge(log: &[Entry], terms: Terms) -> Vec<Violation> {
    let mut judge = Judge::new(terms);
    log.iter().for_each(|entry| judge.read(entry));
    judge.finish()
}

/// Judges a run while it is read, entry by entry.
pub struct Judge {
    pub(super) terms: Terms,
    /// Entries so far.
    read: usize,
    pub(super) devices: BTreeMap<DeviceId, Device>,
    pub(super) messages: BTreeMap<Key, Message>,
    pub(super) positions: HashMap<(Origin, Position), Key>,
    pub(super) sorted: HashMap<(Stamp, Origin), Key>,
    pub(super) lineage: Lineage,
    pub(super) found: Vec<Violation>,
}

impl Judge {
    /// Begins with nothing.
    pub fn new(terms: Terms) -> Self {
        Self {
            terms,
            read: 0,
            devices: BTreeMap::new(),
            messages: BTreeMap::new(),
            positions: HashMap::new(),
            sorted: HashMap::new(),
            lineage: Lineage::default(),
            found: Vec::new(),
        }
    }

    /// Returns what the run broke. It has come to rest, as for [`judge()`].
    pub fn finish(mut self) -> Vec<Violation> {
        self.look_back();
        self.found
    }

    /// Reads the next entry.
    pub fn read(&mut self, Entry { device: id, what }: &Entry) {
        let index = self.read;
        self.read += 1;
        if let What::Joined { account } = what {
            let heir = self.heir(*account);
            self.devices.insert(*id, Device::new(*account, index, heir));
            return;
        }
        if let What::OriginEnded { origin, by, upto } = what {
            return self.lineage.ends(*origin, (*by, *upto));
        }
        let Some(device) = self.devices.get_mut(id) else {
            return self.found.push(Violation::NotJoined { device: *id });
        };
        let account = device.account;
        let key = |id: &MessageId| Key { sender: account, id: *id };
        match what {
            What::Joined { .. } | What::OriginEnded { .. } => {}
            What::Known { origin, above } => device.known = Some((*origin, *above)),
            What::Dropped { origin, upto } => device.dropped = device.dropped.max(Some((*origin, *upto))),
            What::Unproven { origin, upto } => device.unproven.push((*origin, *upto)),
            What::Left => device.left = device.left.or(Some(index)),
            What::Opened => device.open(),
            What::Forgot => self.forgot(*id),
            What::Sent { id: message, to, body } => self.sent(index, *id, *message, to, *body),
            What::Accepted { id: message, place } => self.accepted(*id, key(message), *place),
            What::Refused { id: message } => self.of(key(message), |message| message.refused = true),
            What::Unwatched { id: message } => self.of(key(message), |message| message.unwatched = true),
            What::Shown { message, body, place } => self.shown(*id, *message, *body, *place),
            What::Acknowledged { message } => {
                device.knew.extend(device.at);
                // What is forgotten was acknowledged before.
                if self.messages.contains_key(message) {
                    device.acknowledged.insert(*message);
                }
                self.of(*message, |message| message.acknowledged_by.extend([account]));
            }
            What::SetAside { message } => device.set_aside.extend([*message]),
            What::Read { message } => self.of(*message, |message| message.read_by.extend([account])),
            What::ReadInSecret { message } => {
                self.of(*message, |message| message.read_in_secret_by.extend([account]));
            }
            What::ReadTaken { message } => {
                self.of(*message, |message| message.read_taken_of.extend([account]));
            }
            What::ReadElsewhere { message } => self.read_elsewhere(*id, *message, account),
            What::Gap { origin, from, upto } => {
                device.gaps.push((*origin, *from, *upto));
                if !self.terms.gaps {
                    let (device, origin, from, upto) = (*id, *origin, *from, *upto);
                    self.found.push(Violation::NeedlessGap { device, origin, from, upto });
                }
            }
            What::Receipt { id: message, reader, kind } => self.receipt(*id, key(message), *reader, *kind),
        }
    }

    /// What a receipt was told of stays shown: its acknowledgement was durable.
    fn forgot(&mut self, id: DeviceId) {
        let Some(device) = self.devices.get(&id) else { return };
        let reader = device.account;
        let has_receipt = |message: &Key| {
            let sent = self.messages.get(message);
            let sender = sent.and_then(|sent| self.devices.get(&sent.by));
            sender.is_some_and(|sender| sender.told.contains_key(&(*message, reader)))
        };
        let shown = device.shown.iter().copied().filter(has_receipt).collect();
        if let Some(device) = self.devices.get_mut(&id) {
            device.shown = shown;
            device.last_of.clear();
        }
    }

    fn of(&mut self, message: Key, change: impl FnOnce(&mut Message)) {
        self.messages.entry(message).and_modify(change);
    }

    fn accepted(&mut self, device: DeviceId, message: Key, place: Place) {
        if self.is_sent(message, device) {
            self.of(message, |message| message.accepted = true);
            self.stored(message, place);
        }
    }
    /// Returns what a device inherits that joins now. Beside another one it begins with what comes; but what waits for an
    /// account without devices is for its next one, because nobody else will take it.
    fn heir(&self, account: AccountId) -> Option<Heir> {
        let of_account = || self.devices.iter().filter(|(_, device)| device.account == account);
        if of_account().any(|(_, device)| device.left.is_none()) {
            return None;
        }
        let last = of_account().max_by_key(|(_, device)| device.left);
        Some(last.map_or(Heir::OfNobody, |(id, _)| Heir::Of(*id)))
    }

    fn sent(&mut self, index: usize, by: DeviceId, id: MessageId, to: &[AccountId], body: u64) {
        let Some(device) = self.devices.get(&by) else { return };
        let key = Key { sender: device.account, id };
        // Who was interrupted sends the same again.
        if self.messages.contains_key(&key) || self.is_forgotten(key) {
            return;
        }
        let Some(device) = self.devices.get_mut(&by) else { return };
        let message = Message {
            by,
            sent: index,
            number: device.sent_ever,
            to: to.to_vec(),
            body,
            cause: device.newest,
            accepted: false,
            refused: false,
            places: Vec::new(),
            acknowledged_by: Default::default(),
            read_by: Default::default(),
            read_in_secret_by: Default::default(),
            read_taken_of: Default::default(),
            unwatched: false,
        };
        device.sent.push_back(key);
        device.sent_ever += 1;
        self.messages.insert(key, message);
    }

    /// Returns whether a message is one to be judged, and names it if nobody sent it. What is forgotten needs no second look.
    fn is_sent(&mut self, message: Key, device: DeviceId) -> bool {
        let is_sent = self.messages.contains_key(&message);
        if !is_sent && !self.is_forgotten(message) {
            self.found.push(Violation::Unsent { message, device });
        }
        is_sent
    }

    /// Somebody saw where a message stands.
    fn stored(&mut self, message: Key, place: Place) {
        let Some(known) = self.messages.get_mut(&message) else { return };
        if known.places.contains(&place) {
            return;
        }
        let is_first_of = |first: &&Place| !self.lineage.may_be_both(**first, place);
        if let Some(first) = known.places.iter().find(is_first_of).copied() {
            self.found.push(Violation::TwoPlaces { message, first, second: place });
        } else {
            known.places.push(place);
        }
        if place == Place::UNSEEN {
            return;
        }
        let first = *self.positions.entry((place.origin, place.position)).or_insert(message);
        let alike = *self.sorted.entry(place.sorts_by()).or_insert(message);
        if let Some(first) = [first, alike].into_iter().find(|first| *first != message) {
            self.found.push(Violation::SharedPlace { first, second: message });
        }
    }

    fn shown(&mut self, id: DeviceId, message: Key, body: u64, place: Place) {
        if !self.is_sent(message, id) {
            if self.is_forgotten(message) {
                self.found.push(Violation::ShownTwice { message, device: id });
            }
            return;
        }
        self.stored(message, place);
        let (Some(device), Some(sent)) = (self.devices.get_mut(&id), self.messages.get(&message)) else {
            return;
        };
        if sent.body != body {
            self.found.push(Violation::Altered { message, device: id });
        }
        if !sent.to.contains(&device.account) && device.account != message.sender {
            self.found.push(Violation::Stranger { message, device: id });
        }
        if !device.show(message, place) {
            self.found.push(Violation::ShownTwice { message, device: id });
            return;
        }
        // Each origin writes in its own order, and one that was restored writes again what a device was not owed before.
        if let Some(later) = device.last_of.insert((sent.by, place.origin), message)
            && self.messages.get(&later).is_some_and(|later| later.number > sent.number)
        {
            self.found.push(Violation::ArrivalOrder { earlier: message, later, device: id });
        }
    }

    fn receipt(&mut self, id: DeviceId, message: Key, reader: AccountId, kind: ReceiptKind) {
        if !self.is_sent(message, id) {
            if kind == ReceiptKind::Read && self.is_forgotten(message) {
                self.found.push(Violation::UntrueReceipt { message, reader, kind });
            }
            return;
        }
        let (Some(device), Some(sent)) = (self.devices.get_mut(&id), self.messages.get(&message)) else {
            return;
        };
        let acknowledged = sent.acknowledged_by.contains(&reader);
        let is_true = match kind {
            ReceiptKind::Delivered => acknowledged,
            ReceiptKind::Read => sent.read_by.contains(&reader),
        };
        if !is_true {
            self.found.push(Violation::UntrueReceipt { message, reader, kind });
        } else if !acknowledged {
            self.found.push(Violation::ReadBeforeDelivered { message, reader });
        }
        let told = device.told.entry((message, reader)).or_insert(kind);
        if *told > kind {
            self.found.push(Violation::ReceiptWentBack { message, reader, device: id });
        }
        *told = kind.max(*told);
    }

    /// To the own devices nothing is secret; otherwise what they are told is as true as what a sender is told.
    fn read_elsewhere(&mut self, id: DeviceId, message: Key, reader: AccountId) {
        if !self.is_sent(message, id) {
            return;
        }
        let Some(sent) = self.messages.get(&message) else { return };
        if !sent.read_by.contains(&reader) && !sent.read_in_secret_by.contains(&reader) {
            self.found.push(Violation::UntrueReceipt { message, reader, kind: ReceiptKind::Read });
        } else if !sent.acknowledged_by.contains(&reader) {
            self.found.push(Violation::ReadBeforeDelivered { message, reader });
        }
    }
}
