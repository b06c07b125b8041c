//! What the parts of the outbox say to each other.

use std::sync::Arc;

use quail_core::ports::outbox::{DeviceRecord, RecentSend, StoredEvent};
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
    /// Devices whose record changed; `None` is a device that is gone, with its sends.
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
