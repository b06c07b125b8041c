//! Outboxes: per account, the events not yet acknowledged by every device of the account.
//!
//! The store holds the events; the core holds where they lie (16 bytes each), how far each device is, and what is on its
//! way on each feed. From these it decides what to write, what may be forgotten, and what must be read from the store.
//!
//! Invariants: an event leaves the index only when every device is past it, or by collapse, which is remembered as a
//! gap; an account without devices keeps its events for the next one; a device's cursor never goes back.

use std::time::Duration;

mod account;
mod delivery;
mod devices;
mod feed;
mod lineage;
mod sends;

pub(crate) use account::AccountOutbox;
pub(crate) use feed::Acknowledged;
pub use lineage::Ancestor;
pub(crate) use lineage::{Claim, held};
pub(crate) use sends::{Earlier, SendWindow};

/// How long an event waits for its devices; older ones become a gap.
pub const OUTBOX_AGE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Most ancestors that an origin remembers. A device that knows only an older one is told nothing of it.
pub const ANCESTORS_MAX: usize = 16;

/// Most events in one outbox; beyond it the oldest eighth becomes a gap.
pub const OUTBOX_EVENTS_MAX: usize = 10_000;

/// Most bytes of events in one outbox; beyond it the oldest become a gap.
pub const OUTBOX_BYTES_MAX: usize = 32 * 1024 * 1024;
