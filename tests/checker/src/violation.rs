//! What can be wrong with a run.

use quail_protocol::id::{AccountId, DeviceId, Origin, Position, Stamp};

use super::{Key, Place, ReceiptKind};

/// A promise that was broken, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A stored message that a device never showed, though it neither left nor was told of a gap.
    Lost {
        /// The message.
        message: Key,
        /// The device.
        device: DeviceId,
    },
    /// A message that was neither accepted nor refused.
    Unanswered {
        /// The message.
        message: Key,
    },
    /// A message that was refused for good and stored nevertheless.
    StoredThoughRefused {
        /// The message.
        message: Key,
    },
    /// A device saw a message that nobody sent.
    Unsent {
        /// The message.
        message: Key,
        /// The device.
        device: DeviceId,
    },
    /// A device showed something else than what was sent.
    Altered {
        /// The message.
        message: Key,
        /// The device.
        device: DeviceId,
    },
    /// A device showed a message that is neither to nor from its account.
    Stranger {
        /// The message.
        message: Key,
        /// The device.
        device: DeviceId,
    },
    /// A device showed a message again.
    ShownTwice {
        /// The message.
        message: Key,
        /// The device.
        device: DeviceId,
    },
    /// A message was stored twice, or is seen at two places.
    TwoPlaces {
        /// The message.
        message: Key,
        /// Where it was seen first.
        first: Place,
        /// Where it was seen then.
        second: Place,
    },
    /// Two messages have one position, or sort alike.
    SharedPlace {
        /// The message that was seen there first.
        first: Key,
        /// The other.
        second: Key,
    },
    /// A device showed what one device sent in another order.
    ArrivalOrder {
        /// Sent first and shown last.
        earlier: Key,
        /// Sent last and shown first.
        later: Key,
        /// Where.
        device: DeviceId,
    },
    /// What one device sent is sorted in another order.
    SenderOrder {
        /// Sent first, and does not sort first.
        earlier: Key,
        /// Sent later.
        later: Key,
    },
    /// A message does not sort behind something that its sender had shown.
    CausalOrder {
        /// The message.
        message: Key,
        /// The last of what its sender had shown.
        cause: (Stamp, Origin),
    },
    /// A device was told of a gap in a run that has none.
    NeedlessGap {
        /// The device.
        device: DeviceId,
        /// The origin.
        origin: Origin,
        /// First position.
        from: Position,
        /// Last position.
        upto: Position,
    },
    /// A receipt for what no device of the reader had acknowledged, or the reader had not read, or in secret.
    UntrueReceipt {
        /// The message.
        message: Key,
        /// Who it names.
        reader: AccountId,
        /// What it says.
        kind: ReceiptKind,
    },
    /// A message was told to be read, and no device of the reader had acknowledged it.
    ReadBeforeDelivered {
        /// The message.
        message: Key,
        /// The reader.
        reader: AccountId,
    },
    /// A device was told less of a message than before.
    ReceiptWentBack {
        /// The message.
        message: Key,
        /// The reader.
        reader: AccountId,
        /// The device.
        device: DeviceId,
    },
    /// What a device of the reader acknowledged never became a receipt at the device that sent it.
    MissingReceipt {
        /// The message.
        message: Key,
        /// The reader.
        reader: AccountId,
    },
    /// The server took somebody's word that a message was read, and the device that sent it was never told.
    MissingRead {
        /// The message.
        message: Key,
        /// The reader.
        reader: AccountId,
    },
    /// A device took part in an origin that ended and in one that came after it, and was not told that the first had ended.
    EndUntold {
        /// The device.
        device: DeviceId,
        /// The origin that ended.
        origin: Origin,
    },
    /// A log is wrong: a device did something before it joined.
    NotJoined {
        /// The device.
        device: DeviceId,
    },
}
