//! The outbox port: where undelivered mail, cursors and send windows become durable.
//!
//! One writer, the sequencer, appends batches; one thread makes durable what was appended; any thread may read a backlog.
//! Appending and syncing are two steps so that the next batch is decided while the one before it syncs. Why entries and not
//! a key-value interface: what must be atomic and in which order is then the store's to guarantee, once, and a second store
//! needs nothing else.
//!
//! Invariants of every store, held by the suite in `conformance`:
//! - when `sync` returns, every batch that was appended before the call survives a kill and a power loss, whole; of a batch
//!   that was not synced either the whole or a part that tells nobody anything false is there after recovery;
//! - events of an account are read in the order of their positions, and never below what was resolved;
//! - recovery returns the last synced position, so that none is ever given twice.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quail_protocol::id::{AccountId, DeviceId, MessageId, Position, Stamp};
use smallvec::SmallVec;

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod twin;

pub use twin::TwinOutbox;

/// An event as it lies in an outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its position at this origin.
    pub position: Position,
    /// What the core must know of it without decoding it.
    pub note: Note,
    /// The whole frame as it goes down a feed lane; encoded once, shared by all who get it.
    pub frame: Bytes,
}

/// What the core must know of an event without decoding it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// A message, or a change of one, which is delivered and receipted like a message; or, in the outbox of `sender` alone, that a device of it has read what `recipient` sent: that goes to the other
    /// devices, as a message that one of them sent does.
    Message {
        /// Who sent it.
        sender: AccountId,
        /// From which device, which need not get it.
        device: DeviceId,
        /// Whom it is for.
        recipient: AccountId,
    },
    /// A receipt.
    Receipt {
        /// Whose device acknowledged.
        account: AccountId,
        /// Lower end of the acknowledged messages, exclusive.
        after: Position,
        /// Upper end, inclusive.
        upto: Position,
    },
    /// No event, but what stands in an outbox where a store has lost some: all from here to its position. It has no frame; a
    /// device is told of a gap.
    Lost {
        /// First position of the stretch.
        from: Position,
    },
}

/// What is kept of an accepted send, to recognise it when it comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecentSend {
    /// The device's number for it.
    pub number: u64,
    /// The message's id.
    pub id: MessageId,
    /// The first half of the SHA-256 of recipient and content.
    pub digest: [u8; 16],
    /// Position of the message.
    pub position: Position,
    /// Stamp of the message.
    pub stamp: Stamp,
}

/// What is kept of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceRecord {
    /// Everything up to here needs not be delivered to the device.
    pub cursor: Position,
    /// The largest position the device itself says it has taken. Zero for a device that never did.
    pub acked: Position,
    /// The largest attach number seen.
    pub attach_number: u64,
}

/// The accounts that an event is for. Nearly always one or two, which then take no memory of their own.
pub type Accounts = SmallVec<[AccountId; 2]>;

/// One thing to be made durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Puts an event into outboxes.
    Event {
        /// The event.
        event: Arc<StoredEvent>,
        /// The accounts it is for; an account is named once. None where only history is to have it: then it is in no outbox.
        accounts: Accounts,
    },
    /// Keeps an accepted send in its device's window and drops the oldest beyond
    /// [`SENDS_UNANSWERED_MAX`](quail_protocol::limits::SENDS_UNANSWERED_MAX).
    Sent {
        /// The device.
        device: DeviceId,
        /// The send.
        send: RecentSend,
    },
    /// Writes the record of a device.
    Device {
        /// Its account.
        account: AccountId,
        /// The device.
        device: DeviceId,
        /// The record.
        record: DeviceRecord,
    },
    /// Drops a device with its record and window.
    DeviceGone {
        /// Its account.
        account: AccountId,
        /// The device.
        device: DeviceId,
    },
    /// Takes every event up to a position out of an outbox.
    Resolved {
        /// The account.
        account: AccountId,
        /// Position of the last of them.
        upto: Position,
    },
    /// Takes one event out of an outbox, which no device was shown.
    Withdrawn {
        /// The account.
        account: AccountId,
        /// The event's position.
        position: Position,
    },
    /// Remembers up to where an outbox was collapsed to a gap.
    Collapsed {
        /// The account.
        account: AccountId,
        /// Last position of the gap.
        upto: Position,
    },
}

/// Entries that become durable together.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The entries, in the order of decision.
    pub entries: &'a [Entry],
    /// The largest position given so far, whether or not an event of it is among the entries.
    pub last_position: Position,
    /// The largest stamp given so far.
    pub last_stamp: Stamp,
}

/// An event still in an outbox, without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its position.
    pub position: Position,
    /// Length of its frame in bytes.
    pub bytes: u32,
}

/// What a store held when it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The largest position ever committed.
    pub last_position: Position,
    /// The largest stamp ever committed.
    pub last_stamp: Stamp,
    /// The records of all devices.
    pub devices: Vec<(AccountId, DeviceId, DeviceRecord)>,
    /// The windows of all devices; numbers rise within a device.
    pub sends: Vec<(DeviceId, RecentSend)>,
    /// The events in all outboxes; positions rise within an account.
    pub slots: Vec<(AccountId, Slot)>,
    /// Up to where outboxes were collapsed.
    pub collapsed: Vec<(AccountId, Position)>,
}

/// Why a store failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The disk or the file system failed; what was being committed is in doubt. The process must end and recover.
    #[error("cannot {action} the outbox: {reason}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// What went wrong.
        reason: String,
    },
    /// Stored bytes are not what was written. Retrying does not help.
    #[error("damaged record in the outbox: {what}")]
    Damaged {
        /// Which record.
        what: String,
    },
}

/// How much more a store can take in. What it has taken is never in question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Room {
    /// Enough.
    #[default]
    Open,
    /// It fills faster than it empties: each sender may still add so many bytes until it is open again.
    Tight {
        /// A sender's fair share, in bytes.
        share_bytes: u64,
    },
    /// None: no new message is accepted before this time has passed.
    Full {
        /// When to try again.
        retry_after: Duration,
    },
}

/// The writing side of a store; owned by the sequencer.
pub trait Outbox: Send {
    /// Takes a batch in. It is durable when a [`Syncer::sync`] that began later has returned; until then nobody must be told.
    ///
    /// # Errors
    /// [`StoreError`]; the process must end without releasing the effects of this batch or a later one.
    fn append(&mut self, batch: Batch<'_>) -> Result<(), StoreError>;

    /// Returns what makes durable. There is one at a time; it may live on a thread of its own.
    fn syncer(&self) -> Box<dyn Syncer>;

    /// Returns a reader of what was appended.
    fn reader(&self) -> Arc<dyn BacklogReader>;

    /// Returns how much more may be appended.
    fn room(&self) -> Room {
        Room::Open
    }

    /// Appends a batch and makes it durable: both steps at once, for whoever has nothing to do in between.
    ///
    /// # Errors
    /// [`StoreError`].
    fn commit(&mut self, batch: Batch<'_>) -> Result<(), StoreError> {
        self.append(batch)?;
        self.syncer().sync()
    }
}

/// What makes a store durable.
pub trait Syncer: Send {
    /// Makes durable every batch that was appended before the call.
    ///
    /// # Errors
    /// [`StoreError`]; what was not synced is in doubt and the process must end without releasing its effects.
    fn sync(&mut self) -> Result<(), StoreError>;
}

/// Which events of an account to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Events above this position.
    pub after: Position,
    /// Events up to this position. What lies above may have been appended and not be durable yet.
    pub upto: Position,
    /// At most so many events.
    pub events_max: usize,
    /// At most so many bytes of frames, but at least one event if there is one.
    pub bytes_max: usize,
}

/// The reading side of a store; any thread may use it while the sequencer commits.
pub trait BacklogReader: Send + Sync {
    /// Returns the first events of a stretch of an account's outbox, in order of position.
    ///
    /// # Errors
    /// [`StoreError`]; the caller may try again.
    fn read(&self, account: AccountId, stretch: Stretch) -> Result<Vec<Arc<StoredEvent>>, StoreError>;
}
