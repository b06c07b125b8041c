//! The outbox port: where undelivered mail, cursors and send windows become durable.
//!
//! One writer, the sequencer, commits batches; any thread may read a backlog. Why entries and not a key-value interface:
//! what must be atomic and in which order is then the store's to guarantee, once, and a second store needs nothing else.
//!
//! Invariants of every store, held by the suite in `conformance`:
//! - when `commit` returns, the batch survives a kill and a power loss, whole; if the process dies inside `commit`, either
//!   the whole batch or a part of it that tells nobody anything false is there after recovery;
//! - events of an account are read in the order of their positions, and never below what was resolved;
//! - recovery returns the last committed position, so that none is ever given twice.

use std::sync::Arc;

use bytes::Bytes;
use quail_protocol::id::{AccountId, DeviceId, MessageId, Position, Stamp};

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
    /// A message.
    Message {
        /// Who sent it.
        sender: AccountId,
        /// From which device.
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
}

/// What is kept of an accepted send, to recognise it when it comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecentSend {
    /// The device's number for it.
    pub number: u64,
    /// The message's id.
    pub id: MessageId,
    /// The first half of the SHA-256 of recipient, kind and body.
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

/// One thing to be made durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Puts an event into outboxes.
    Event {
        /// The event.
        event: Arc<StoredEvent>,
        /// The accounts it is for; an account is named once.
        accounts: Vec<AccountId>,
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
    /// Takes events out of an outbox.
    Resolved {
        /// The account.
        account: AccountId,
        /// Positions of the events.
        positions: Vec<Position>,
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

/// The writing side of a store; owned by the sequencer.
pub trait Outbox: Send {
    /// Makes a batch durable before it returns.
    ///
    /// # Errors
    /// [`StoreError`]; the batch is in doubt and the process must end without releasing its effects.
    fn commit(&mut self, batch: Batch<'_>) -> Result<(), StoreError>;

    /// Returns a reader of what is committed.
    fn reader(&self) -> Arc<dyn BacklogReader>;
}

/// The reading side of a store; any thread may use it while the sequencer commits.
pub trait BacklogReader: Send + Sync {
    /// Returns events of an account above `after`, in order of position: at most `events_max` of them and at most
    /// `bytes_max` bytes of frames, but at least one if there is one.
    ///
    /// # Errors
    /// [`StoreError`]; the caller may try again.
    fn read(
        &self,
        account: AccountId,
        after: Position,
        events_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<StoredEvent>, StoreError>;
}
