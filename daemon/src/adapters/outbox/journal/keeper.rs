//! Keeping the journal small: spares made ahead of time, segments recycled when nobody needs them, and how large it is.
//!
//! Invariants: a segment is recycled only when every batch in it is settled and, where an archive reads along, archived;
//! nothing here is waited for by the committer, but for a short lock.

use std::sync::Arc;

use quail_protocol::id::Position;

use super::JournalError;
use super::segment;
use super::tail::JournalTail;
use super::writer::{Shared, lock};

/// How many spares are made ahead of time. One is enough: a segment takes longer to fill than to make.
const SPARES_AHEAD: usize = 1;

/// Recycles segments and tells how large the journal is; any thread may hold one.
#[derive(Clone)]
pub struct JournalKeeper {
    shared: Arc<Shared>,
}

impl JournalKeeper {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Makes a spare segment if there is none, so that the next segment begins without waiting for one. It writes and syncs a
    /// whole segment: for a thread that may wait. One thread at a time is to call it.
    ///
    /// # Errors
    /// [`JournalError::Io`]; the journal is as it was, and another attempt may succeed.
    pub fn prepare_spare(&self) -> Result<(), JournalError> {
        let name = {
            let mut segments = lock(&self.shared.segments);
            if segments.spares.len() >= SPARES_AHEAD {
                return Ok(());
            }
            segments.name()
        };
        let spare = segment::make(&*self.shared.disk, name, self.shared.segment_bytes as u64)?;
        lock(&self.shared.segments).spares.push(spare);
        Ok(())
    }

    /// Recycles every full segment whose batches are all of generations up to `generation_settled`, which must be durable in
    /// the settled store, and, if there is an archive, of positions up to `archived`. Both never fall.
    ///
    /// # Errors
    /// [`JournalError::Io`] when a segment cannot be removed that is no spare either; it is tried again at the next open.
    pub fn release(&self, generation_settled: u64, archived: Option<Position>) -> Result<(), JournalError> {
        {
            let mut open = lock(&self.shared.open);
            open.unsettled.release(generation_settled);
            match archived {
                Some(upto) => open.unarchived.release(upto),
                None => open.unarchived.clear(),
            }
        }
        let spares_max = self.shared.spares_max;
        let removed = lock(&self.shared.segments).release(generation_settled, archived, spares_max);
        for segment in removed {
            let removed = self.shared.disk.remove(&segment.name);
            removed.map_err(|error| JournalError::io("remove", &segment.name, &error))?;
        }
        Ok(())
    }

    /// Returns a reader of what is durable, of the events above a position. Segments above what
    /// [`release`](Self::release) is told as archived stay until then.
    pub fn tail(&self, after: Position) -> JournalTail {
        JournalTail::new(self.shared.clone(), after)
    }

    /// Returns the bytes of all batches that were appended and are not settled.
    pub fn unsettled_bytes(&self) -> u64 {
        lock(&self.shared.open).unsettled.total()
    }

    /// Returns the bytes of all batches that were appended and are not archived, rounded up by a 64th of a segment at most.
    /// Zero without an archive.
    pub fn unarchived_bytes(&self) -> u64 {
        lock(&self.shared.open).unarchived.total()
    }

    /// Returns the bytes that segments and spares take on the disk.
    pub fn disk_bytes(&self) -> u64 {
        let segments = lock(&self.shared.segments);
        (segments.live.len() + segments.spares.len()) as u64 * self.shared.segment_bytes as u64
    }

    /// Returns the number of segments in use, spares not counted.
    pub fn segments(&self) -> usize {
        lock(&self.shared.segments).live.len()
    }

    /// Returns the number of spares.
    pub fn spares(&self) -> usize {
        lock(&self.shared.segments).spares.len()
    }
}
