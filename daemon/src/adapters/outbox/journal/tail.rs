//! Reading along: what is durable, in order, for the archive.
//!
//! Invariants: a byte that is not synced is never read; nothing is handed out twice or passed over; a segment that was
//! recycled under the reader is noticed and never read as what it was. That does not happen to a reader whose position is
//! what [`release`](super::JournalKeeper::release) is told as archived: the segment it reads is not full or holds more.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use quail_core::ports::outbox::{Accounts, Entry, StoredEvent};
use quail_protocol::id::Position;

use super::JournalError;
use super::disk::File;
use super::format::{BATCH_HEADER, BatchHeader, SEGMENT_HEADER};
use super::record::{Part, examine};
use super::writer::{Shared, lock};

/// So many bytes are read at once, or one record if that is longer.
const READ_BYTES: usize = 256 * 1024;

/// An event as the archive takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailedEvent {
    /// The event.
    pub event: Arc<StoredEvent>,
    /// The accounts it is for.
    pub accounts: Accounts,
}

/// Events in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tailed {
    /// The events.
    pub events: Vec<TailedEvent>,
    /// With these, everything up to here was handed out. It passes positions that have no event.
    pub upto: Position,
}

/// Reads a journal while it is written. One thread owns it.
pub struct JournalTail {
    shared: Arc<Shared>,
    /// Nothing up to here is handed out.
    after: Position,
    /// Where the next record lies; `None` before the first.
    next: Option<Next>,
    /// Read and not handed out.
    pending: VecDeque<TailedEvent>,
    /// The last position of the last batch read.
    upto: Position,
    buffer: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Next {
    sequence: u64,
    offset: u64,
    /// Number of the batch before it.
    number: u64,
}

/// Durable bytes to read.
struct Stretch {
    file: Arc<dyn File>,
    name: String,
    sequence: u64,
    offset: u64,
    end: u64,
    /// The last segment, and up to where it is durable.
    durable: (u64, u64),
}

impl JournalTail {
    pub(super) fn new(shared: Arc<Shared>, after: Position) -> Self {
        Self { shared, after, next: None, pending: VecDeque::new(), upto: after, buffer: Vec::new() }
    }

    /// Returns the next events, of at most `max_bytes` of frames but at least one; waits up to `timeout` for one. Without
    /// any, what it returns may still pass positions.
    ///
    /// # Errors
    /// [`JournalError::Io`] where reading failed, and the same may be tried again. [`JournalError::Damaged`] where the bytes
    /// are not what was written; a restart decides what is lost. [`JournalError::Released`] if what follows the position
    /// has been recycled: it is not in the journal any more.
    pub fn next(&mut self, max_bytes: usize, timeout: Duration) -> Result<Tailed, JournalError> {
        let deadline = Instant::now() + timeout;
        while self.pending.is_empty() {
            let Some(stretch) = self.wait(deadline) else { break };
            match self.recent(stretch.durable, max_bytes) {
                Some(events) if !events.is_empty() => return Ok(Tailed { events, upto: self.upto }),
                Some(_) => {}
                None => self.read(&stretch)?,
            }
        }
        let (mut events, mut bytes) = (Vec::new(), 0);
        while let Some(next) = self.pending.pop_front_if(|next| {
            bytes += next.event.frame.len();
            bytes <= max_bytes || events.is_empty()
        }) {
            events.push(next);
        }
        let left = self.pending.iter().map(|next| next.event.position).min();
        let upto = left.map_or(self.upto, |left| Position(left.0.saturating_sub(1)));
        Ok(Tailed { events, upto })
    }

    /// Waits for durable bytes that were not read.
    fn wait(&mut self, deadline: Instant) -> Option<Stretch> {
        let mut segments = lock(&self.shared.segments);
        loop {
            let (sequence, offset) = match self.next {
                Some(next) => (next.sequence, next.offset),
                None => {
                    let has_more = |closed: super::segment::Closed| closed.position > self.after;
                    let mut live = segments.live.iter();
                    let first = live.find(|live| live.closed.is_none_or(has_more));
                    (first.map_or(0, |live| live.sequence), SEGMENT_HEADER as u64)
                }
            };
            // The next one is begun when this one is read to its end; one that is gone was recycled.
            let found = segments
                .live
                .iter()
                .find(|live| live.sequence > sequence || live.sequence == sequence && live.synced > offset);
            if let Some(live) = found {
                let offset = if live.sequence == sequence { offset } else { SEGMENT_HEADER as u64 };
                let segment = live.segment.clone();
                let durable = segments.live.back().map_or((0, 0), |last| (last.sequence, last.synced));
                return Some(Stretch {
                    file: segment.file,
                    name: segment.name,
                    sequence: live.sequence,
                    offset,
                    end: live.synced,
                    durable,
                });
            }
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            segments.awaited = true;
            let waited = self.shared.grown.wait_timeout(segments, left);
            segments = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes what follows from memory, if it is still there, and returns what may be handed out at once. What does not fit waits.
    fn recent(&mut self, durable: (u64, u64), max_bytes: usize) -> Option<Vec<TailedEvent>> {
        let number = self.next.map(|next| next.number)?;
        let batches = lock(&self.shared.recent).after(number, durable, max_bytes)?;
        let Some(last) = batches.last() else { return Some(Vec::new()) };
        self.next = Some(Next { sequence: last.sequence, offset: last.end, number: last.number });
        self.upto = batches.iter().map(|batch| batch.position).fold(self.upto, Position::max);
        if let [one] = &batches[..]
            && one.bytes > max_bytes
        {
            self.pending.extend(batches.into_iter().flat_map(|batch| batch.events));
            return Some(Vec::new());
        }
        let mut events = Vec::with_capacity(batches.iter().map(|batch| batch.events.len()).sum());
        batches.into_iter().for_each(|mut batch| events.append(&mut batch.events));
        Some(events)
    }

    /// Reads records from a stretch.
    fn read(&mut self, stretch: &Stretch) -> Result<(), JournalError> {
        let left = usize::try_from(stretch.end - stretch.offset).unwrap_or(usize::MAX);
        let mut wanted = left.min(READ_BYTES);
        loop {
            self.buffer.resize(wanted, 0);
            let read = stretch.file.read_at(&mut self.buffer, stretch.offset);
            read.map_err(|error| JournalError::io("read", &stretch.name, &error))?;
            if self.records(stretch)? {
                return Ok(());
            }
            // The first record is longer than what was read, or is none.
            if wanted == left {
                return Err(self.unreadable(stretch, "no batch where one must begin"));
            }
            wanted = left;
        }
    }

    /// Takes the whole records in the buffer; false if there is none.
    fn records(&mut self, stretch: &Stretch) -> Result<bool, JournalError> {
        let mut at = 0;
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut failed = None;
        while let Some(rest) = buffer.get_mut(at..).filter(|rest| rest.len() >= BATCH_HEADER) {
            let Some(header) = BatchHeader::decode(rest, self.shared.epoch) else {
                break;
            };
            let end = at + header.length as usize;
            if let Err(error) = self.record(stretch, rest, header, end) {
                failed = Some(error);
                break;
            }
            at = end;
        }
        self.buffer = buffer;
        match failed {
            // What is before it is handed out first; it is met again.
            Some(error) if at == 0 => Err(error),
            _ => Ok(at > 0),
        }
    }

    fn record(
        &mut self,
        stretch: &Stretch,
        bytes: &mut [u8],
        header: BatchHeader,
        end: usize,
    ) -> Result<(), JournalError> {
        let follows = match self.next {
            Some(next) => header.previous.number == next.number,
            None => header.previous.position <= self.after,
        };
        if !follows {
            return Err(JournalError::Released { after: self.upto });
        }
        let examined = examine(bytes, header, false);
        if let Some(fault) = examined.faults.iter().find(|fault| !fault.is_mended) {
            return Err(self.unreadable(stretch, &fault.what));
        }
        for part in examined.parts {
            if let Part::Whole(Entry::Event { event, accounts }) = part
                && event.position > self.after
            {
                self.pending.push_back(TailedEvent { event, accounts });
            }
        }
        let offset = stretch.offset + end as u64;
        self.next = Some(Next { sequence: stretch.sequence, offset, number: header.link.number });
        self.upto = self.upto.max(header.link.position);
        Ok(())
    }

    /// Says why bytes cannot be read: they were recycled meanwhile, or else are damaged.
    fn unreadable(&self, stretch: &Stretch, what: &str) -> JournalError {
        let segments = lock(&self.shared.segments);
        if segments.live.iter().any(|live| live.sequence == stretch.sequence) {
            return JournalError::Damaged { what: format!("{}: {what}", stretch.name) };
        }
        JournalError::Released { after: self.upto }
    }
}
