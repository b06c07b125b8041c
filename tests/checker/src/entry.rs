//! What devices do and see, in one vocabulary for every harness.

use std::hash::{DefaultHasher, Hash, Hasher};

use quail_protocol::id::{AccountId, DeviceId, MessageId, Origin, Position, Stamp};

/// The identity of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Account that sent it.
    pub sender: AccountId,
    /// Its id, which is unique for the sender.
    pub id: MessageId,
}

/// Where a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Origin that accepted it.
    pub origin: Origin,
    /// Its position there.
    pub position: Position,
    /// Sorts what people see, together with the origin.
    pub stamp: Stamp,
}

impl Place {
    /// Stands where a harness does not keep where messages stand. No rule about places is asked of such a message.
    pub const UNSEEN: Self = Self { origin: Origin(0), position: Position::ZERO, stamp: Stamp(0) };

    /// Returns what messages are sorted by.
    pub fn sorts_by(&self) -> (Stamp, Origin) {
        (self.stamp, self.origin)
    }
}

/// What a receipt says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReceiptKind {
    /// A device of the reader acknowledged the message.
    Delivered,
    /// The reader looked at it.
    Read,
}

/// One thing that a device did or saw. What causes something else stands before it: a device writes down that it sends or
/// acknowledges before it does, and that it was told of something after that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The device.
    pub device: DeviceId,
    /// What happened there.
    pub what: What,
}

/// What happened at a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The server knows the device: what is sent from here on is owed to it. The first entry of every device.
    Joined {
        /// Whose device it is.
        account: AccountId,
    },
    /// When exactly the server learnt of the device, for harnesses that look into it: what lies above is owed too, also what
    /// was sent earlier.
    Known {
        /// The origin.
        origin: Origin,
        /// Its last position before.
        above: Position,
    },
    /// The server has forgotten what waited for the device up to here, for harnesses that look into it. Whether the device is
    /// told of a gap is another matter: it may have taken all of that, and its acknowledgement come too late for a receipt.
    Dropped {
        /// The origin.
        origin: Origin,
        /// Last position that was forgotten.
        upto: Position,
    },
    /// An origin has ended and another one carries on, because a data directory was restored; for harnesses that look into the
    /// server. Which device notes it does not matter.
    OriginEnded {
        /// The one that ended.
        origin: Origin,
        /// The one that carries on.
        by: Origin,
        /// Last position that it carries over.
        upto: Position,
    },
    /// The server has lost that it ever spoke with the device, because a data directory was restored; for harnesses that look into it.
    /// What the device took up to here does not come again, and need not have its receipt.
    Unproven {
        /// The origin that carries on.
        origin: Origin,
        /// Last position that it carries over.
        upto: Position,
    },
    /// Nothing is owed to it any more.
    Left,
    /// Its client begins anew: what it was shown and has not acknowledged comes again.
    Opened,
    /// Its client begins anew and has forgotten everything, as no client of the SDK does: also what it acknowledged may come
    /// again, as long as nobody has the receipt.
    Forgot,
    /// It sends a message.
    Sent {
        /// The message's id.
        id: MessageId,
        /// Who is to get it.
        to: Vec<AccountId>,
        /// [`fingerprint`] of what it says.
        body: u64,
    },
    /// The server took its message.
    Accepted {
        /// The message's id.
        id: MessageId,
        /// Where it stands.
        place: Place,
    },
    /// It has lost sight of what becomes of its message, so it will not be told of its receipts.
    Unwatched {
        /// The message's id.
        id: MessageId,
    },
    /// The server will never take its message.
    Refused {
        /// The message's id.
        id: MessageId,
    },
    /// It shows a message.
    Shown {
        /// The message.
        message: Key,
        /// [`fingerprint`] of what it says.
        body: u64,
        /// Where it stands.
        place: Place,
    },
    /// It acknowledges a message.
    Acknowledged {
        /// The message.
        message: Key,
    },
    /// It gives a message up and will never show it: it says so when it acknowledges what lies around it.
    SetAside {
        /// The message.
        message: Key,
    },
    /// Its owner looked at a message.
    Read {
        /// The message.
        message: Key,
    },
    /// Its owner looked at a message while the account did not want senders to know: nobody but the account's other devices
    /// may be told.
    ReadInSecret {
        /// The message.
        message: Key,
    },
    /// The server has answered that it took the device's word that a message was read, and the account wanted senders to know
    /// all the while.
    ReadTaken {
        /// The message.
        message: Key,
    },
    /// It is told that its owner looked at a message on another device.
    ReadElsewhere {
        /// The message.
        message: Key,
    },
    /// It is told that it will not get what lies here.
    Gap {
        /// The origin.
        origin: Origin,
        /// First position.
        from: Position,
        /// Last position.
        upto: Position,
    },
    /// It is told how far a message of its account came.
    Receipt {
        /// The message's id.
        id: MessageId,
        /// Whose device acknowledged, or who looked.
        reader: AccountId,
        /// What is said.
        kind: ReceiptKind,
    },
}

/// Returns a number that stands for a body. The same within one build.
pub fn fingerprint(body: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    hasher.finish()
}
