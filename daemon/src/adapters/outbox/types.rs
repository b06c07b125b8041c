//! What the parts of the outbox say to each other.

use std::sync::Arc;

use quail_core::ports::outbox::{DeviceRecord, RecentSend, StoreError, StoredEvent, Stretch};
use quail_protocol::id::{AccountId, DeviceId, Position, Stamp};

/// How far the settled store is: it holds all that is left of every generation up to this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The last generation that is settled. Zero: none.
    pub generation: u64,
    /// The largest position given when that generation ended.
    pub last_position: Position,
    /// The largest stamp given when that generation ended.
    pub last_stamp: Stamp,
}

/// What one spill moves into the settled store.
#[derive(Clone, Debug, Default)]
pub struct Spill {
    /// Where the store stands once all of it is durable.
    pub mark: Mark,
    /// Accounts whose outbox changed; each is named once.
    pub accounts: Vec<(AccountId, AccountSpill)>,
    /// Devices whose record changed, in order; `None` is a device that is gone, with its sends.
    pub devices: Vec<(AccountId, DeviceId, Option<DeviceRecord>)>,
    /// Sends accepted from a device in this generation, numbers rising, the newest
    /// [`SENDS_UNANSWERED_MAX`](quail_protocol::limits::SENDS_UNANSWERED_MAX) at most.
    pub sends: Vec<(DeviceId, Vec<RecentSend>)>,
}

/// What changed in the outbox of one account.
#[derive(Clone, Debug, Default)]
pub struct AccountSpill {
    /// New events that nobody has acknowledged yet, in the order of their positions.
    pub events: Vec<Arc<StoredEvent>>,
    /// Everything up to here is gone; zero if nothing went.
    pub resolved: Position,
    /// Single events that are gone. They may never have been in the store.
    pub withdrawn: Vec<Position>,
    /// Up to where the outbox was collapsed, if it was.
    pub collapsed: Option<Position>,
}

/// A stretch of an outbox whose bytes are damaged or gone: its devices are told of a gap there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Whose outbox; `None` if that is lost too, which means: everybody's.
    pub account: Option<AccountId>,
    /// First position that may be missing.
    pub from: Position,
    /// Last position that may be missing.
    pub upto: Position,
    /// For the operator: what was found.
    pub what: String,
}

/// The settled store as the engine sees it. There is one, on sled.
pub(super) trait Settled: Send {
    /// Moves a generation in and makes it durable: everything first, then the mark.
    ///
    /// # Errors
    /// [`StoreError`]; it is final, the process must end and open the store again.
    fn spill(&mut self, spill: &Spill) -> Result<(), StoreError>;

    /// Returns a reader of what is settled.
    fn reader(&self) -> Arc<dyn ReadSettled>;

    /// Returns the stamp of the oldest event in it.
    fn oldest(&self) -> Option<Stamp>;

    /// Returns for each account that has events with smaller stamps the position of the last of them.
    fn older_than(&self, stamp: Stamp) -> Vec<(AccountId, Position)>;

    /// Returns how much it takes on disk and how much of that is live.
    fn sizes(&self) -> Sizes;

    /// Moves what is live into a fresh directory if too much is not. Returns whether it did.
    ///
    /// # Errors
    /// [`StoreError`]; as for [`spill`](Self::spill).
    fn rotate_if_grown(&mut self) -> Result<bool, StoreError>;
}

/// The reading side of the settled store; any thread may use it while a spill or a rotation runs.
pub(super) trait ReadSettled: Send + Sync {
    /// Returns the first events of a stretch, in order of position. What cannot be read is named, not left out in silence.
    ///
    /// # Errors
    /// [`StoreError`] if the system fails; the caller may try again.
    fn read(&self, account: AccountId, stretch: Stretch) -> Result<SettledEvents, StoreError>;
}

/// What a reader of the settled store found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SettledEvents {
    /// The events.
    pub events: Vec<Arc<StoredEvent>>,
    /// What could not be read, within the part of the stretch that the events cover.
    pub lost: Vec<Lost>,
    /// Whether the stretch may have more events behind these.
    pub more: bool,
}

/// How large the settled store is, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// On disk.
    pub disk_bytes: u64,
    /// Of that, live.
    pub live_bytes: u64,
}
