//! Reads a log once, from its beginning, and then looks at what it came to.
//!
//! Rules about what may happen after what are checked while reading; rules about what must have happened, at the end.

use std::collections::{BTreeMap, HashMap};

use quail_protocol::id::{AccountId, DeviceId, MessageId, Origin, Position, Stamp};

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
///
/// # Panics
/// If a device does something before it joined: that log is wrong, whatever was promised.
pub fn judge(log: &[Entry], terms: Terms) -> Vec<Violation> {
    let mut judge = Judge {
        terms,
        devices: BTreeMap::new(),
        messages: BTreeMap::new(),
        positions: HashMap::new(),
        sorted: HashMap::new(),
        found: Vec::new(),
    };
    for (index, entry) in log.iter().enumerate() {
        judge.read(index, entry);
    }
    judge.look_back();
    judge.found
}

struct Judge {
    terms: Terms,
    devices: BTreeMap<DeviceId, Device>,
    messages: BTreeMap<Key, Message>,
    positions: HashMap<(Origin, Position), Key>,
    sorted: HashMap<(Stamp, Origin), Key>,
    found: Vec<Violation>,
}

impl Judge {
    fn read(&mut self, index: usize, Entry { device: id, what }: &Entry) {
        if let What::Joined { account } = what {
            let heir = self.heir(*account);
            self.devices.insert(*id, Device::new(*account, index, heir));
            return;
        }
        let device = self.devices.get_mut(id).expect("a device joins before it does anything");
        let key = |id: &MessageId| Key { sender: device.account, id: *id };
        match what {
            What::Joined { .. } => {}
            What::Known { origin, above } => device.known = Some((*origin, *above)),
            What::Dropped { origin, upto } => device.dropped = device.dropped.max(Some((*origin, *upto))),
            What::Left => device.left = Some(index),
            What::Opened => device.open(),
            What::Sent { id: message, to, body } => self.sent(index, *id, *message, to, *body),
            What::Accepted { id: message, place } => {
                let message = key(message);
                if self.is_sent(message, *id) {
                    self.messages.entry(message).and_modify(|message| message.accepted = true);
                    self.stored(message, *place);
                }
            }
            What::Refused { id: message } => {
                let message = key(message);
                self.messages.entry(message).and_modify(|message| message.refused = true);
            }
            What::Shown { message, body, place } => self.shown(*id, *message, *body, *place),
            What::Acknowledged { message } => {
                device.acknowledged.insert(*message);
                let account = device.account;
                self.messages.entry(*message).and_modify(|message| {
                    message.acknowledged_by.insert(account);
                });
            }
            What::Read { message } => {
                let account = device.account;
                self.messages.entry(*message).and_modify(|message| {
                    message.read_by.insert(account);
                });
            }
            What::SetAside { message } => drop(device.set_aside.insert(*message)),
            What::ReadInSecret { message } => {
                let account = device.account;
                self.messages.entry(*message).and_modify(|message| {
                    message.read_in_secret_by.insert(account);
                });
            }
            What::ReadElsewhere { message } => {
                let reader = device.account;
                self.read_elsewhere(*id, *message, reader);
            }
            What::Gap { origin, from, upto } => {
                device.gaps.push((*origin, *from, *upto));
                if !self.terms.gaps {
                    let (device, origin, from, upto) = (*id, *origin, *from, *upto);
                    self.found.push(Violation::NeedlessGap { device, origin, from, upto });
                }
            }
            What::Receipt { id: message, reader, kind } => {
                let message = key(message);
                self.receipt(*id, message, *reader, *kind);
            }
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
        let Some(device) = self.devices.get_mut(&by) else { return };
        let key = Key { sender: device.account, id };
        // Who was interrupted sends the same again.
        if self.messages.contains_key(&key) {
            return;
        }
        let message = Message {
            by,
            sent: index,
            number: device.sent.len(),
            to: to.to_vec(),
            body,
            cause: device.newest,
            accepted: false,
            refused: false,
            place: None,
            acknowledged_by: Default::default(),
            read_by: Default::default(),
            read_in_secret_by: Default::default(),
        };
        device.sent.push(key);
        self.messages.insert(key, message);
    }

    fn is_sent(&mut self, message: Key, device: DeviceId) -> bool {
        let is_sent = self.messages.contains_key(&message);
        if !is_sent {
            self.found.push(Violation::Unsent { message, device });
        }
        is_sent
    }

    /// Somebody saw where a message stands.
    fn stored(&mut self, message: Key, place: Place) {
        let Some(known) = self.messages.get_mut(&message) else { return };
        match known.place {
            Some(first) if first == place => return,
            Some(first) => self.found.push(Violation::TwoPlaces { message, first, second: place }),
            None => known.place = Some(place),
        }
        let first = *self.positions.entry((place.origin, place.position)).or_insert(message);
        let alike = *self.sorted.entry(place.sorts_by()).or_insert(message);
        if let Some(first) = [first, alike].into_iter().find(|first| *first != message) {
            self.found.push(Violation::SharedPlace { first, second: message });
        }
    }

    fn shown(&mut self, id: DeviceId, message: Key, body: u64, place: Place) {
        if !self.is_sent(message, id) {
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
        if let Some(later) = device.last_of.insert(sent.by, message)
            && self.messages.get(&later).is_some_and(|later| later.number > sent.number)
        {
            self.found.push(Violation::ArrivalOrder { earlier: message, later, device: id });
        }
    }

    fn receipt(&mut self, id: DeviceId, message: Key, reader: AccountId, kind: ReceiptKind) {
        if !self.is_sent(message, id) {
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

    /// Everything that could happen has happened.
    fn look_back(&mut self) {
        for (key, message) in &self.messages {
            let sender = &self.devices[&message.by];
            let Some(place) = message.place else {
                if !message.refused && sender.left.is_none() {
                    self.found.push(Violation::Unanswered { message: *key });
                }
                continue;
            };
            if message.refused {
                self.found.push(Violation::StoredThoughRefused { message: *key });
            } else if !message.accepted && sender.left.is_none() {
                self.found.push(Violation::Unanswered { message: *key });
            }
            if let Some(cause) = message.cause.filter(|cause| *cause >= place.sorts_by()) {
                self.found.push(Violation::CausalOrder { message: *key, cause });
            }
            for (id, device) in &self.devices {
                if message.is_owed(*key, place, *id, &self.devices) && !device.is_served(*key, place) {
                    self.found.push(Violation::Lost { message: *key, device: *id });
                }
            }
            if self.terms.receipts && sender.left.is_none() && !sender.may_lack_receipts(place) {
                let told = |reader: &AccountId| sender.told.contains_key(&(*key, *reader));
                let acknowledged = |reader: &AccountId| {
                    let mut devices = self.devices.values().filter(|device| device.account == *reader);
                    devices.any(|device| device.surely_acknowledged(key, place))
                };
                let missing = message.to.iter().filter(|reader| acknowledged(reader) && !told(reader));
                let missing =
                    missing.map(|reader| Violation::MissingReceipt { message: *key, reader: *reader });
                self.found.extend(missing);
            }
        }
        self.sorted_as_sent();
    }

    fn sorted_as_sent(&mut self) {
        for device in self.devices.values() {
            let mut last: Option<(Key, Place)> = None;
            let placed = device.sent.iter().filter_map(|key| Some((*key, self.messages.get(key)?.place?)));
            for (later, place) in placed {
                if let Some((earlier, before)) = last
                    && before.sorts_by() >= place.sorts_by()
                {
                    self.found.push(Violation::SenderOrder { earlier, later });
                }
                last = Some((later, place));
            }
        }
    }
}
