//! What the judge knows of devices and messages while it reads.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use quail_protocol::id::{AccountId, DeviceId, MessageId, Origin, Position, Stamp};

use super::{Key, Place, ReceiptKind};

/// A device, as far as its entries were read.
pub(super) struct Device {
    pub(super) account: AccountId,
    /// Entries before it joined.
    pub(super) joined: usize,
    /// The last position of an origin before the server knew it.
    pub(super) known: Option<(Origin, Position)>,
    /// Up to where the server has forgotten what waited for it.
    pub(super) dropped: Option<(Origin, Position)>,
    /// Up to where nobody remembers what it took.
    pub(super) unproven: Vec<(Origin, Position)>,
    /// What it came after, if its account had no device then.
    pub(super) heir: Option<Heir>,
    /// Entries before it left.
    pub(super) left: Option<usize>,
    /// Messages it sent, but for those that are forgotten.
    pub(super) sent: VecDeque<Key>,
    /// How many it sent, those that are forgotten among them.
    pub(super) sent_ever: usize,
    /// What it sent and what became of it without a fault, so that nothing else is remembered of it.
    pub(super) forgotten: Option<Forgotten>,
    /// What it may not show again.
    pub(super) shown: HashSet<Key>,
    /// Everything it showed in all its lives.
    pub(super) ever_shown: HashSet<Key>,
    pub(super) acknowledged: HashSet<Key>,
    /// What it gave up.
    pub(super) set_aside: HashSet<Key>,
    /// The last of what it showed, in the order of people.
    pub(super) newest: Option<(Stamp, Origin)>,
    /// By sending device and origin: what it showed of it last.
    pub(super) last_of: HashMap<(DeviceId, Origin), Key>,
    pub(super) gaps: Vec<(Origin, Position, Position)>,
    /// Where it was shown something last.
    pub(super) at: Option<Origin>,
    /// Origins of which it acknowledged something.
    pub(super) knew: BTreeSet<Origin>,
    /// What it was told of its messages.
    pub(super) told: BTreeMap<(Key, AccountId), ReceiptKind>,
}

/// The messages of a device that are forgotten. Their ids grew.
#[derive(Clone, Copy)]
pub(super) struct Forgotten {
    pub(super) first: MessageId,
    pub(super) last: MessageId,
    /// Where the last of them stood.
    pub(super) place: Place,
}

/// Whose mail a device inherits.
#[derive(Clone, Copy)]
pub(super) enum Heir {
    /// It is the account's first: nobody has taken anything.
    OfNobody,
    /// All others had left, this one last.
    Of(DeviceId),
}

impl Device {
    pub(super) fn new(account: AccountId, joined: usize, heir: Option<Heir>) -> Self {
        Self {
            account,
            joined,
            known: None,
            dropped: None,
            unproven: Vec::new(),
            heir,
            left: None,
            sent: VecDeque::new(),
            sent_ever: 0,
            forgotten: None,
            shown: HashSet::new(),
            ever_shown: HashSet::new(),
            acknowledged: HashSet::new(),
            set_aside: HashSet::new(),
            newest: None,
            last_of: HashMap::new(),
            gaps: Vec::new(),
            at: None,
            knew: BTreeSet::new(),
            told: BTreeMap::new(),
        }
    }

    /// What it had not acknowledged comes again, and so from an earlier place on.
    pub(super) fn open(&mut self) {
        let acknowledged = &self.acknowledged;
        self.shown.retain(|message| acknowledged.contains(message));
        self.last_of.clear();
        self.at = None;
    }

    /// Shows a message and returns whether it was not shown before.
    pub(super) fn show(&mut self, message: Key, place: Place) -> bool {
        if place != Place::UNSEEN {
            self.newest = self.newest.max(Some(place.sorts_by()));
            self.at = Some(place.origin);
        }
        self.ever_shown.insert(message);
        self.shown.insert(message)
    }

    /// Returns whether it acknowledged a message so that it must have come to something: what a device acknowledged just before
    /// it left, or of what the server had forgotten, may have come too late to count.
    pub(super) fn surely_acknowledged(&self, message: &Key, places: &[Place]) -> bool {
        let is_dropped = |(origin, upto): &_| {
            places.iter().any(|place| place.origin == *origin && place.position <= *upto)
        };
        let is_known = self.left.is_none() && self.acknowledged.contains(message);
        is_known && !self.dropped.iter().chain(&self.unproven).any(is_dropped)
    }

    /// Returns whether a receipt for a message may have been in a gap: receipts lie behind what they are for.
    pub(super) fn may_lack_receipts(&self, places: &[Place]) -> bool {
        let is_behind = |place: &Place| {
            self.gaps.iter().any(|(origin, _, upto)| *origin == place.origin && *upto > place.position)
        };
        places.iter().any(is_behind)
    }

    /// Returns whether it showed a message, or gave it up, or was told that it will not get it.
    pub(super) fn is_served(&self, message: Key, places: &[Place]) -> bool {
        let had = self.ever_shown.contains(&message) || self.set_aside.contains(&message);
        self.left.is_some() || had || self.was_told_of_gap(places)
    }

    /// Returns whether it was told that it will not get what lies at one of these places.
    fn was_told_of_gap(&self, places: &[Place]) -> bool {
        let covers = |(at, from, upto): &(Origin, Position, Position)| {
            places.iter().any(|place| *at == place.origin && (*from..=*upto).contains(&place.position))
        };
        self.gaps.iter().any(covers)
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
    /// Where it is stored, once anybody has seen that: in the order in which it was seen, once for each origin.
    pub(super) places: Vec<Place>,
    pub(super) acknowledged_by: BTreeSet<AccountId>,
    pub(super) read_by: BTreeSet<AccountId>,
    /// Who read it and did not want its sender to know.
    pub(super) read_in_secret_by: BTreeSet<AccountId>,
    /// Whose word on that the server took.
    pub(super) read_taken_of: BTreeSet<AccountId>,
    /// The device that sent it has lost sight of it.
    pub(super) unwatched: bool,
}

impl Message {
    /// Returns whether a device is to show it: it was there when the message was sent or stored, and is of a recipient or
    /// another one of the sender; or it inherited it.
    pub(super) fn is_owed(
        &self,
        key: Key,
        places: &[Place],
        id: DeviceId,
        devices: &BTreeMap<DeviceId, Device>,
    ) -> bool {
        let device = &devices[&id];
        let other_of_sender = device.account == key.sender && id != self.by;
        if !self.to.contains(&device.account) && !other_of_sender {
            return false;
        }
        let is_above = |(origin, above): (Origin, Position)| {
            places.iter().any(|place| place.origin == origin && place.position > above)
        };
        if device.joined < self.sent || device.known.is_some_and(is_above) {
            return true;
        }
        match device.heir {
            None => false,
            Some(Heir::OfNobody) => true,
            Some(Heir::Of(last)) => {
                let older = &devices[&last];
                let came_between = older.left.is_some_and(|left| left < self.sent);
                // What the older one was told to be missing was nobody's loss any more, and what it gave up was its own.
                let had = older.acknowledged.contains(&key)
                    || older.set_aside.contains(&key)
                    || older.was_told_of_gap(places);
                came_between || !had && self.is_owed(key, places, last, devices)
            }
        }
    }
}
