//! The outbox: acknowledged delivery at the speed of the disk.
//!
//! ```text
//! sequencer ── append ──> journal buffer ── committer: write, fdatasync ──> segments ──> archive reads along
//!                │                                                             │
//!                └─────> memory table ── spill thread ──> settled store (sled)  └─> recycled once settled and archived
//!                             └──────── readers of backlogs ────┘
//! ```
//!
//! A batch is durable when the journal has synced it; nothing else stands between a message and its answer. The memory
//! table holds what was appended since the last spill. The spill thread moves what nobody has acknowledged by then into sled;
//! what was acknowledged sooner never gets there. A backlog is read from both, by position.
//!
//! At open the settled store tells what it holds up to its mark, and the journal is replayed on top of it.
//!
//! ```text
//! outbox/origin       the number of this origin
//! outbox/journal/     segments, and which epoch of them counts
//! outbox/settled/     sled, one directory per rotation
//! outbox/ballast      gives way when a full disk has to be opened
//! ```
//!
//! Invariants: effects wait for the journal's sync and for nothing behind it; whatever fails after a write ends the process,
//! because what is on disk is unknown then and a restart finds out; what cannot be read is told as a gap, never skipped.

mod archive;
mod ballast;
mod check;
mod engine;
mod error;
pub mod journal;
mod open;
mod read;
mod recovery;
mod room;
pub mod settled;
mod spill;
mod table;
mod types;

pub use archive::ArchiveReader;
pub use check::{Leftover, OutboxReport, SettledPart};
pub use engine::{Adopted, Expired, Expiry, Opened, OutboxEngine, OutboxOptions};
pub use error::OpenOutboxError;
pub use journal::{Damage, JournalReport, SegmentReport, Tailed, TailedEvent, TornEnd};
pub use room::Limits;
pub use types::{AccountSpill, Lost, Mark, Sizes, Spill};

#[cfg(test)]
mod tests;
#[cfg(test)]
mod traces;
