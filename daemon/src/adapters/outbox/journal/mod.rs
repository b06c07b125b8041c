//! The journal: every decision, durable after one write and one fdatasync.
//!
//! Batches are appended to segments, files of one size that are written full of zeros once and recycled afterwards: an
//! fdatasync has nothing but data to write. Opening replays what the settled store does not have, copies it into fresh
//! segments under a new epoch and never touches the old ones again before the new epoch counts.
//!
//! Formats, version 1; numbers are little-endian, lengths in bytes, `crc` is the CRC32 (IEEE) of all that is before it:
//!
//! ```text
//! epoch, a file, replaced as a whole: which segments count
//!   "QUAILPTR" 8 | version 4 | checksum of the last batch 4 | epoch 8 | number 8 | generation 8 | position 8 | stamp 8 |
//!   zeros 4 | crc 4
//!
//! 00000001.segment
//!   +--------------------+--------+--------+-----+-------------------------------+
//!   | segment header  64 | record | record | ... | zeros, or what was there before |
//!   +--------------------+--------+--------+-----+-------------------------------+
//!   segment header: "QUAILSEG" 8 | version 4 | checksum of the batch before 4 | epoch 8 | sequence 8 | first number 8 |
//!   zeros 20 | crc 4
//!
//! record: one batch, at a multiple of 8, its length a multiple of 8
//!   +------------+-----------------+--------------------+---------+--------------------+
//!   | header 128 | rows 16 x count | head frame head .. | zeros   | crc of the header 4 |
//!   +------------+-----------------+--------------------+---------+--------------------+
//!   header: "QBAT" 4 | length of the record 4 | epoch 8 |
//!     the batch:           number 8 | generation 8 | last position 8 | last stamp 8 |
//!     the batch before:    number 8 | generation 8 | last position 8 | last stamp 8 |
//!     the last one before the write this is part of: number 8 | generation 8 | last position 8 | last stamp 8 |
//!     crc of the batch before 4 | count 4 | crc of the rows 4 | crc 4
//!   row: length of the head 3 | kind 1 | length of the frame 4 | crc of the head 4 | crc of the frame 4
//!
//! heads by kind; an account, device or message id and a digest are 16, all else is 8
//!   1 event      position | 1 1 | sender | device | recipient | account ...             and its frame
//!                position | 2 1 | account | after | upto | zeros 16 | account ...       and its frame
//!   2 sent       device | number | message id | digest | position | stamp
//!   3 device     account | device | cursor | acked | attach number
//!   4 gone       account | device
//!   5 resolved   account | upto
//!   6 withdrawn  account | position
//!   7 collapsed  account | upto
//!   8 lost       from | upto | account ...       in the place of a damaged event; no account: everybody's
//! ```
//!
//! The checksum of a batch is that of its header, which holds that of its rows, which hold those of its entries: the chain
//! holds over all bytes and breaks by none of them.
//!
//! Invariants:
//! - a number is given to one batch of an epoch; numbers never fall, within a journal's life, and rise by one but for where
//!   a damaged stretch was;
//! - one flipped bit anywhere costs one frame at most. What is smaller than a frame is put right;
//! - damage is told at every open until its generation is settled;
//! - a version that is not known is refused, never guessed at.

mod check;
mod copy;
mod direct;
mod disk;
mod entries;
mod format;
mod keeper;
mod mend;
mod open;
mod recent;
mod record;
mod replay;
mod segment;
mod survey;
mod tail;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use quail_core::ports::outbox::StoreError;
use quail_protocol::id::Position;

pub use check::{JournalReport, SegmentReport, check};
pub use disk::{Disk, File, RealDisk};
pub use keeper::JournalKeeper;
pub use open::{Opened, open};
pub use replay::{Damage, Replayed, ReplayedBatch, TornEnd};
pub use tail::{JournalTail, Tailed, TailedEvent};
pub use writer::{Appended, Journal, JournalSyncer};

use crate::ops::failpoint::setting;

/// Size of a segment where nothing else is asked for; the largest possible.
pub const SEGMENT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The smallest size of a segment.
pub const SEGMENT_BYTES_MIN: usize = 1024;
/// Spares that are kept where nothing else is asked for: as many as are filled between two spills under load, and a few.
/// With fewer, those that a spill sets free would be removed and made again at once, and the sync that needs one would wait
/// for it. Spares are segments that were in use; a daemon with little to do never has more than one or two.
const SPARES_MAX: usize = 16;

/// Is told how long each fdatasync took.
pub type OnSync = Arc<dyn Fn(Duration) + Send + Sync>;

/// How a journal is kept.
#[derive(Clone)]
pub struct JournalOptions {
    /// Size of a segment in bytes, at most [`SEGMENT_BYTES_MAX`] and at least [`SEGMENT_BYTES_MIN`]; what is beyond is taken
    /// as the bound. An append takes at most 64 bytes less. Segments of another size are replaced at the next open.
    pub segment_bytes: usize,
    /// Spare segments that are kept at most after a release or an open.
    pub spares_max: usize,
    /// Up to where an archive has what was appended; `None` if nothing reads along. Batches above it are kept although they
    /// are settled. An archive that is begun must begin where the journal stands.
    pub archived: Option<Position>,
    /// Is told how long each fdatasync of a batch took, on the thread that syncs.
    pub on_sync: OnSync,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: setting("QUAIL_SEGMENT_BYTES", SEGMENT_BYTES_MAX as u64) as usize,
            spares_max: SPARES_MAX,
            archived: None,
            on_sync: Arc::new(|_| {}),
        }
    }
}

/// Why a journal failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The disk or the file system failed. In a sync it is final and the process must end; elsewhere the operator may have to
    /// mend space or permissions before another attempt.
    #[error("cannot {action} {name}: {reason}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// With which file.
        name: String,
        /// What went wrong.
        reason: String,
    },
    /// The caller's batch does not fit into a segment. The same one never will.
    #[error("a batch of {bytes} bytes does not fit into a segment, which takes {max}")]
    TooLarge {
        /// Length of its record.
        bytes: usize,
        /// What would fit.
        max: usize,
    },
    /// A newer program wrote this. Only that one can read it.
    #[error(
        "{name} is of version {version}, and this program knows versions up to {known}: a newer one wrote it"
    )]
    Newer {
        /// The file.
        name: String,
        /// Its version.
        version: u32,
        /// The newest that is known.
        known: u32,
    },
    /// Stored bytes are not what was written, and without them nothing can be said. Retrying does not help.
    #[error("damaged journal: {what}")]
    Damaged {
        /// What was found.
        what: String,
    },
    /// The reader asks for what is not in the journal any more.
    #[error("the journal does not hold any more what follows position {after}")]
    Released {
        /// Where the reader stands.
        after: Position,
    },
}

impl JournalError {
    fn io(action: &'static str, name: &str, error: &std::io::Error) -> Self {
        Self::Io { action, name: name.to_owned(), reason: error.to_string() }
    }
}

impl From<JournalError> for StoreError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Io { action, name, reason } => {
                StoreError::Io { action, reason: format!("{name}: {reason}") }
            }
            JournalError::TooLarge { .. } => {
                StoreError::Io { action: "append to", reason: error.to_string() }
            }
            other => StoreError::Damaged { what: other.to_string() },
        }
    }
}
