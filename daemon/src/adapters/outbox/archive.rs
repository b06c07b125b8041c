//! What an archive reads: the journal, in order, by position.
//!
//! Why the journal and not the store of undelivered mail: a message that was acknowledged at once never gets there, and the
//! archive wants every one. A segment is kept until it is settled and archived.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quail_core::ports::outbox::StoreError;
use quail_protocol::id::Position;

use super::engine::Shared;
use super::journal::{JournalTail, Tailed};

/// Reads everything that is durable, once, in the order of positions. There is one at a time.
pub struct ArchiveReader {
    tail: JournalTail,
    shared: Arc<Shared>,
}

impl ArchiveReader {
    pub(super) fn new(tail: JournalTail, shared: Arc<Shared>) -> Self {
        Self { tail, shared }
    }

    /// Waits until there are events and returns what there is, at most so many bytes of frames but at least one event; none if
    /// nothing comes in time. What was not [archived](Self::archived) when the process ends comes again.
    ///
    /// # Errors
    /// [`StoreError`]; trying again does not help.
    pub fn next(&mut self, bytes_max: usize, patience: Duration) -> Result<Tailed, StoreError> {
        Ok(self.tail.next(bytes_max, patience)?)
    }

    /// Takes note that everything up to a position is safe elsewhere: the journal need not keep it for the archive.
    pub fn archived(&self, upto: Position) {
        self.shared.archived.fetch_max(upto.0, Ordering::Relaxed);
        // Segments are given back with the next spill at the latest; a failure here would show there.
        if let Err(error) = self.shared.journal_release() {
            tracing::warn!(%error, "cannot recycle what is archived");
        }
    }

    /// Returns the last position that was appended.
    pub fn last_position(&self) -> Position {
        self.shared.table().last_position()
    }
}
