//! The two halves of writing: appending to a buffer, and making durable what is in it.
//!
//! The sequencer appends while the committer syncs what was appended before; two buffers change places, so that neither
//! waits for the other and nothing is allocated once both are large enough. The appender also decides where a segment ends,
//! as it knows the length of every record: it puts the header of the next one before the record that does not fit any more.
//!
//! Invariants: a write begins only after the one before is durable, and what is in one buffer is one write; a record lies in
//! one segment; after a failed write or sync nothing is ever written again, as nobody knows what the disk holds. The process
//! ends then, and the next open finds out.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use quail_core::ports::outbox::Batch;
use quail_protocol::id::Position;

use super::disk::Disk;
use super::entries::{Record, Stub, record_len};
use super::format::{Link, SEGMENT_HEADER, SegmentHeader};
use super::keeper::JournalKeeper;
use super::recent::{Recent, RecentBatch};
use super::segment::{self, Closed, Live, SegmentFile, Segments, Tally};
use super::{JournalError, OnSync};
use crate::ops::failpoint;

/// A buffer that a burst has made larger than this is given back.
const BUFFER_KEPT_BYTES: usize = 8 * 1024 * 1024;

/// What all handles of a journal share. Locks are taken in the order of the fields and never two of one kind.
pub(super) struct Shared {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) epoch: u64,
    pub(super) segment_bytes: usize,
    pub(super) spares_max: usize,
    pub(super) on_sync: OnSync,
    pub(super) writing: Mutex<Writing>,
    pub(super) open: Mutex<Open>,
    pub(super) segments: Mutex<Segments>,
    /// Signalled when more is durable.
    pub(super) grown: Condvar,
    /// Filled only where an archive reads along.
    pub(super) recent: Mutex<Recent>,
}

/// The appender's side.
pub(super) struct Open {
    bytes: Vec<u8>,
    cuts: Vec<Cut>,
    /// The last batch appended.
    link: Link,
    /// The last batch before the buffer.
    durable: Link,
    /// Sequence of the segment that the next record goes to.
    sequence: u64,
    /// Bytes left in it.
    room: usize,
    /// Whether an archive reads along.
    is_archived: bool,
    pub(super) unsettled: Tally<u64>,
    pub(super) unarchived: Tally<Position>,
    failed: Option<JournalError>,
}

/// Where in the buffer another segment begins.
#[derive(Clone, Copy)]
struct Cut {
    at: usize,
    sequence: u64,
    /// The last batch before it.
    closed: Closed,
}

/// The syncer's side.
pub(super) struct Writing {
    bytes: Vec<u8>,
    cuts: Vec<Cut>,
    current: Option<Current>,
    failed: Option<JournalError>,
}

/// The segment that is being written.
#[derive(Clone)]
struct Current {
    segment: SegmentFile,
    sequence: u64,
    offset: u64,
}

/// What was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Number of the batch.
    pub number: u64,
    /// Length of its record in bytes.
    pub bytes: u64,
}

/// The appending side of a journal; owned by the sequencer.
pub struct Journal {
    pub(super) shared: Arc<Shared>,
    /// Where a record is put together.
    record: Vec<u8>,
}

/// The side of a journal that makes durable; for the committer. There is to be one call at a time; a second one waits.
pub struct JournalSyncer {
    shared: Arc<Shared>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic in between ends the process; until then a number too many or too few is no harm.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Open {
    pub(super) fn new(link: Link, segments: &Segments, segment_bytes: usize, is_archived: bool) -> Self {
        let last = segments.live.back();
        let used = last.map_or(segment_bytes, |last| last.synced as usize);
        Self {
            bytes: Vec::new(),
            cuts: Vec::new(),
            link,
            durable: link,
            sequence: last.map_or(0, |last| last.sequence),
            room: segment_bytes.saturating_sub(used),
            is_archived,
            unsettled: Tally::new(0),
            unarchived: Tally::new(segment_bytes as u64 / 64),
            failed: None,
        }
    }

    pub(super) fn count(&mut self, generation: u64, position: Position, bytes: u64) {
        self.unsettled.add(generation, bytes);
        if self.is_archived {
            self.unarchived.add(position, bytes);
        }
    }

    /// Goes on in a new segment.
    fn cut(&mut self, epoch: u64, segment_bytes: usize) {
        let Link { number, generation, position, checksum, .. } = self.link;
        self.sequence += 1;
        self.cuts.push(Cut {
            at: self.bytes.len(),
            sequence: self.sequence,
            closed: Closed { generation, position },
        });
        let header = SegmentHeader {
            epoch,
            sequence: self.sequence,
            first_number: number + 1,
            previous_checksum: checksum,
        };
        self.bytes.extend_from_slice(&header.encode());
        self.room = segment_bytes - SEGMENT_HEADER;
    }
}

impl Writing {
    pub(super) fn new(segments: &Segments) -> Self {
        let current = segments.live.back().map(|last| Current {
            segment: last.segment.clone(),
            sequence: last.sequence,
            offset: last.synced,
        });
        Self { bytes: Vec::new(), cuts: Vec::new(), current, failed: None }
    }
}

impl Journal {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, record: Vec::new() }
    }

    /// Appends a batch: it is durable when a [`JournalSyncer::sync`] that began later has returned. Generations begin at 1 and
    /// never fall; neither do positions.
    ///
    /// # Errors
    /// [`JournalError::TooLarge`] if the record would not fit into a segment: nothing is appended, and the same batch never
    /// will be. Otherwise what a sync failed with before: the process must end.
    pub fn append(&mut self, generation: u64, batch: &Batch<'_>) -> Result<Appended, JournalError> {
        let Shared { epoch, segment_bytes, .. } = *self.shared;
        let bytes = record_len(batch.entries);
        let max = segment_bytes - SEGMENT_HEADER;
        if bytes > max {
            return Err(JournalError::TooLarge { bytes, max });
        }
        // Beside the buffer: the committer takes that meanwhile, and must not wait for a thousand checksums.
        self.record.clear();
        let mut record = Record::begin(&mut self.record, batch.entries.len());
        batch.entries.iter().for_each(|entry| record.entry(entry));
        let mut guard = lock(&self.shared.open);
        let open = &mut *guard;
        if let Some(failed) = &open.failed {
            return Err(failed.clone());
        }
        debug_assert!(generation > 0 && generation >= open.link.generation);
        if open.bytes.is_empty() {
            open.durable = open.link;
        }
        if bytes > open.room {
            open.cut(epoch, segment_bytes);
        }
        let number = open.link.number + 1;
        let (position, stamp) = (batch.last_position, batch.last_stamp);
        let link = Link { number, generation, position, stamp, checksum: 0 };
        let stub = Stub { epoch, link, previous: open.link, durable: open.durable };
        open.link = record.end(&stub);
        debug_assert_eq!(self.record.len(), bytes);
        open.bytes.extend_from_slice(&self.record);
        open.room -= bytes;
        open.count(generation, position, bytes as u64);
        let archived = open.is_archived.then_some((open.sequence, (segment_bytes - open.room) as u64));
        drop(guard);
        if let Some((sequence, end)) = archived {
            let recent = RecentBatch::new(number, sequence, end, batch);
            lock(&self.shared.recent).push(recent);
        }
        self.record.shrink_to(BUFFER_KEPT_BYTES);
        Ok(Appended { number, bytes: bytes as u64 })
    }

    /// Returns what makes durable.
    pub fn syncer(&self) -> JournalSyncer {
        JournalSyncer { shared: self.shared.clone() }
    }

    /// Returns what recycles segments and says how large the journal is.
    pub fn keeper(&self) -> JournalKeeper {
        JournalKeeper::new(self.shared.clone())
    }
}

impl JournalSyncer {
    /// Makes durable every batch that was appended before the call: one write and one fdatasync, and one of each more where
    /// a segment ends.
    ///
    /// # Errors
    /// [`JournalError`]. It is final: what was not synced is in doubt, every later call fails too, and the process must end.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        let writing = &mut *lock(&self.shared.writing);
        if let Some(failed) = &writing.failed {
            return Err(failed.clone());
        }
        {
            let open = &mut *lock(&self.shared.open);
            std::mem::swap(&mut open.bytes, &mut writing.bytes);
            std::mem::swap(&mut open.cuts, &mut writing.cuts);
        }
        if writing.bytes.is_empty() {
            return Ok(());
        }
        let written = self.shared.write(writing);
        writing.bytes.clear();
        writing.bytes.shrink_to(BUFFER_KEPT_BYTES);
        writing.cuts.clear();
        if let Err(error) = &written {
            writing.failed = Some(error.clone());
            lock(&self.shared.open).failed = Some(error.clone());
        }
        written
    }
}

impl Shared {
    fn write(&self, writing: &mut Writing) -> Result<(), JournalError> {
        let Writing { bytes, cuts, current, .. } = writing;
        failpoint::reached("journal-before-write");
        let mut start = 0;
        let mut cuts = cuts.iter().copied();
        loop {
            let cut = cuts.next();
            let end = cut.map_or(bytes.len(), |cut| cut.at);
            if let (Some(piece), Some(current)) = (bytes.get(start..end), &mut *current)
                && !piece.is_empty()
            {
                self.write_piece(piece, current)?;
            }
            let Some(Cut { sequence, closed, .. }) = cut else {
                return Ok(());
            };
            *current = Some(Current { segment: self.begin_segment(sequence, closed)?, sequence, offset: 0 });
            start = end;
        }
    }

    /// Writes to one segment and syncs it.
    fn write_piece(&self, piece: &[u8], current: &mut Current) -> Result<(), JournalError> {
        let Current { segment, sequence, offset } = current;
        let failed = |action, error: std::io::Error| JournalError::io(action, &segment.name, &error);
        segment.file.write_at(piece, *offset).map_err(|error| failed("write", error))?;
        failpoint::reached("journal-written");
        if *offset == 0 {
            failpoint::reached("journal-segment-begun");
        }
        if !cfg!(feature = "unsynced") {
            let began = Instant::now();
            segment.file.sync_data().map_err(|error| failed("sync", error))?;
            (self.on_sync)(began.elapsed());
        }
        failpoint::reached("journal-synced");
        *offset += piece.len() as u64;
        let mut segments = lock(&self.segments);
        match segments.live.back_mut().filter(|last| last.sequence == *sequence) {
            Some(last) => last.synced = *offset,
            None => segments.live.push_back(Live {
                segment: segment.clone(),
                sequence: *sequence,
                synced: *offset,
                closed: None,
            }),
        }
        // Waking nobody costs a system call, too.
        if std::mem::take(&mut segments.awaited) {
            self.grown.notify_all();
        }
        Ok(())
    }

    /// Ends the segment before and takes one for the next.
    fn begin_segment(&self, sequence: u64, closed: Closed) -> Result<SegmentFile, JournalError> {
        let mut segments = lock(&self.segments);
        if let Some(last) = segments.live.back_mut().filter(|last| last.sequence + 1 == sequence) {
            last.closed = Some(closed);
        }
        if let Some(spare) = segments.spares.pop() {
            return Ok(spare);
        }
        let name = segments.name();
        drop(segments);
        segment::make(&*self.disk, name, self.segment_bytes as u64)
    }
}
