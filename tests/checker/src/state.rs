//! What the judge knows of devices and messages while it reads.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use quail_protocol::id::{AccountId, DeviceId, Origin, Position, Stamp};

use super::{Key, Place, ReceiptKind};

/// A device, as far as its entries were read.
pub(super) struct Device {
    pub(super) account: AccountId,
    /// Entries before it joined.
    pub(super) joined: usize,
    pub(super) left: bool,
    /// Messages it sent.
    pub(super) sent: Vec<Key>,
    /// What it may not show again.
    pub(super) shown: HashSet<Key>,
    /// Everything it showed in all its lives.
    pub(super) ever_shown: HashSet<Key>,
    pub(super) acknowledged: HashSet<Key>,
    /// The last of what it showed, in the order of people.
    pub(super) newest: Option<(Stamp, Origin)>,
    /// By sending device: what it showed of it last.
    pub(super) last_of: HashMap<DeviceId, Key>,
    pub(super) gaps: Vec<(Origin, Position, Position)>,
    /// What it was told of its messages.
    pub(super) told: BTreeMap<(Key, AccountId), ReceiptKind>,
}

impl Device {
    pub(super) fn new(account: AccountId, joined: usize) -> Self {
        Self {
            account,
            joined,
            left: false,
            sent: Vec::new(),
            shown: HashSet::new(),
            ever_shown: HashSet::new(),
            acknowledged: HashSet::new(),
            newest: None,
            last_of: HashMap::new(),
            gaps: Vec::new(),
            told: BTreeMap::new(),
        }
    }

    /// What it had not acknowledged comes again, and so from an earlier place on.
    pub(super) fn open(&mut self) {
        let acknowledged = &self.acknowledged;
        self.shown.retain(|message| acknowledged.contains(message));
        self.last_of.clear();
    }

    /// Shows a message and returns whether it was not shown before.
    pub(super) fn show(&mut self, message: Key, place: Place) -> bool {
        self.newest = self.newest.max(Some(place.sorts_by()));
        self.ever_shown.insert(message);
        self.shown.insert(message)
    }

    /// Returns whether it showed a message or was told that it will not.
    pub(super) fn is_served(&self, message: Key, place: Place) -> bool {
        let Place { origin, position, .. } = place;
        let in_gap = |(at, from, upto): &(Origin, Position, Position)| {
            *at == origin && (*from..=*upto).contains(&position)
        };
        self.left || self.ever_shown.contains(&message) || self.gaps.iter().any(in_gap)
    }
}

/// A message, as far as entries were read.
pub(super) struct Message {
    /// Device that sent it.
    pub(super) by: DeviceId,
    /// Entries before it was sent.
    pub(super) sent: usize,
    /// How many messages the device had sent before.
    pub(super) number: usize,
    pub(super) to: Vec<AccountId>,
    pub(super) body: u64,
    /// The last of what the device had shown when it was sent.
    pub(super) cause: Option<(Stamp, Origin)>,
    pub(super) accepted: bool,
    pub(super) refused: bool,
    /// Where it is stored, once anybody has seen that.
    pub(super) place: Option<Place>,
    pub(super) acknowledged_by: BTreeSet<AccountId>,
    pub(super) read_by: BTreeSet<AccountId>,
}

impl Message {
    /// Returns whether a device is to show it: it was there when the message was sent, and is of a recipient or another one
    /// of the sender.
    pub(super) fn is_owed(&self, key: Key, id: DeviceId, device: &Device) -> bool {
        let other_of_sender = device.account == key.sender && id != self.by;
        device.joined < self.sent && (self.to.contains(&device.account) || other_of_sender)
    }
}
