//! What is replayed goes into fresh segments under a new epoch, before anything is appended.
//!
//! Why a copy and not going on where the journal ended: after a failed fdatasync the page cache may hold what the disk does
//! not, and no read can tell. What was read once is written once more and synced; then nothing depends on that any longer.
//! It also ends the question what is torn: under the new epoch there is nothing behind the last batch.
//!
//! Invariant: until the pointer is replaced, nothing of the old epoch is written to; a stop at any step leaves the old epoch
//! as it was, and the next open does the same again.

use std::collections::VecDeque;
use std::sync::Arc;

use super::JournalError;
use super::disk::Disk;
use super::entries::{Loss, Record, Stub};
use super::format::{ALIGN, Link, Pointer, SEGMENT_HEADER, SegmentHeader};
use super::record::{Examined, rewrite};
use super::segment::{self, Closed, Live, SegmentFile, Segments, UNFINISHED, number};
use super::survey::{POINTER_NAME, Survey, SurveyedFile};

/// Writes the copy.
pub(super) struct Copier<'a> {
    disk: &'a dyn Disk,
    epoch: u64,
    segment_bytes: usize,
    /// Files of no epoch that counts, to be written to.
    free: Vec<SegmentFile>,
    next_name: u64,
    live: VecDeque<Live>,
    /// The segment being filled.
    image: Vec<u8>,
    /// The last batch before the copy.
    durable: Option<Link>,
    link: Link,
    record: Vec<u8>,
}

impl<'a> Copier<'a> {
    /// Begins a copy under `epoch` in segments of `segment_bytes`.
    pub(super) fn new(disk: &'a dyn Disk, survey: &Survey, epoch: u64, segment_bytes: usize) -> Self {
        let current = survey.pointer.map(|pointer| pointer.epoch);
        let is_free = |index: usize, file: &SurveyedFile| match file.header() {
            Some(header) => Some(header.epoch) != current,
            // A header may have become zeros by damage.
            None => file.is_blank() && survey.records.iter().all(|record| record.file != index),
        };
        let files = survey.files.iter().enumerate();
        let free = files
            .filter(|(index, file)| file.bytes == segment_bytes as u64 && is_free(*index, file))
            .map(|(_, file)| SegmentFile { name: file.name.clone(), file: Arc::clone(&file.file) })
            .collect();
        let next_name =
            survey.files.iter().filter_map(|file| number(&file.name)).max().map_or(1, |max| max + 1);
        Self {
            disk,
            epoch,
            segment_bytes,
            free,
            next_name,
            live: VecDeque::new(),
            image: Vec::new(),
            durable: None,
            link: Link::default(),
            record: Vec::new(),
        }
    }

    /// Says behind which batch the chain begins. The first call counts.
    fn begin(&mut self, before: Link) {
        if self.durable.is_none() {
            (self.durable, self.link) = (Some(before), before);
        }
    }

    /// Copies a batch; returns the length of its new record.
    pub(super) fn batch(&mut self, bytes: &[u8], examined: &Examined) -> Result<usize, JournalError> {
        self.begin(examined.header.previous);
        let stub = self.stub(examined.header.link);
        self.record.clear();
        let mut record = std::mem::take(&mut self.record);
        let link = rewrite(&mut record, bytes, examined, &stub);
        self.put(record, link)
    }

    /// Writes what stands for batches that are gone; returns the length of its record.
    pub(super) fn hole(
        &mut self,
        before: Link,
        link: Link,
        loss: Option<&Loss>,
    ) -> Result<usize, JournalError> {
        self.begin(before);
        let stub = self.stub(link);
        self.record.clear();
        let mut bytes = std::mem::take(&mut self.record);
        let mut record = Record::begin(&mut bytes, loss.iter().count());
        if let Some(loss) = loss {
            record.loss(loss);
        }
        let link = record.end(&stub);
        self.put(bytes, link)
    }

    fn stub(&self, link: Link) -> Stub {
        let durable = self.durable.unwrap_or_default();
        Stub { epoch: self.epoch, link, previous: self.link, durable }
    }

    fn put(&mut self, record: Vec<u8>, link: Link) -> Result<usize, JournalError> {
        if self.image.len() + record.len() > self.segment_bytes {
            self.flush()?;
        }
        if self.image.is_empty() {
            let header = SegmentHeader {
                epoch: self.epoch,
                sequence: self.live.len() as u64 + 1,
                first_number: link.number,
                previous_checksum: self.link.checksum,
            };
            self.image.extend_from_slice(&header.encode());
        }
        self.image.extend_from_slice(&record);
        self.link = link;
        let len = record.len();
        self.record = record;
        Ok(len)
    }

    /// Writes the segment being filled, and syncs it.
    fn flush(&mut self) -> Result<(), JournalError> {
        if self.image.is_empty() {
            return Ok(());
        }
        let segment = match self.free.pop() {
            Some(segment) => segment,
            None => {
                self.next_name += 1;
                let name = segment::name(self.next_name - 1);
                segment::make(self.disk, name, self.segment_bytes as u64)?
            }
        };
        let written = segment.file.write_at(&self.image, 0).and_then(|()| segment.file.sync_data());
        written.map_err(|error| JournalError::io("write", &segment.name, &error))?;
        let Link { generation, position, .. } = self.link;
        self.live.push_back(Live {
            segment,
            sequence: self.live.len() as u64 + 1,
            synced: self.image.len() as u64,
            closed: Some(Closed { generation, position }),
        });
        self.image.clear();
        Ok(())
    }

    /// Makes the whole copy durable; returns its segments, the last of which may be appended to, and the last batch.
    pub(super) fn finish(mut self, end: Link) -> Result<Copied, JournalError> {
        self.flush()?;
        if let Some(last) = self.live.back_mut() {
            last.closed = None;
        }
        let link = if self.live.is_empty() { end } else { self.link };
        let Self { epoch, free, next_name, live, .. } = self;
        Ok(Copied {
            pointer: Pointer { epoch, link },
            segments: Segments { live, spares: free, next_name, awaited: false },
        })
    }
}

/// A copy that is durable and does not count yet.
pub(super) struct Copied {
    pub(super) pointer: Pointer,
    pub(super) segments: Segments,
}

/// Lets an epoch count from now on.
pub(super) fn switch(disk: &dyn Disk, pointer: &Pointer) -> Result<(), JournalError> {
    let unfinished = format!("{POINTER_NAME}{UNFINISHED}");
    let switched = disk.create(&unfinished).and_then(|file| {
        file.write_at(&pointer.encode(), 0)?;
        file.sync_data()?;
        disk.rename(&unfinished, POINTER_NAME)?;
        disk.sync_directory()
    });
    switched.map_err(|error| JournalError::io("replace", POINTER_NAME, &error))
}

/// Sorts out the files of before, now that none of them counts: some become spares, the others are removed.
pub(super) fn recycle(
    disk: &dyn Disk,
    survey: &Survey,
    copied: &mut Copied,
    segment_bytes: usize,
    spares_max: usize,
) -> Result<(), JournalError> {
    let segments = &mut copied.segments;
    let is_used = |segments: &Segments, name: &str| {
        let mut used = segments.live.iter().map(|live| &live.segment).chain(&segments.spares);
        used.any(|segment| segment.name == name)
    };
    for file in &survey.files {
        if file.bytes == segment_bytes as u64 && !is_used(segments, &file.name) {
            let segment = SegmentFile { name: file.name.clone(), file: Arc::clone(&file.file) };
            segments.spares.push(segment);
        }
    }
    segments.spares.truncate(spares_max);
    let kept = |name: &str| is_used(segments, name);
    let segments = survey.files.iter().map(|file| &file.name);
    let unfinished = survey.others.iter().filter(|name| name.ends_with(UNFINISHED));
    for name in segments.filter(|name| !kept(name)).chain(unfinished) {
        match disk.remove(name) {
            // The pointer's unfinished file has got its name by now.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(JournalError::io("remove", name, &error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Returns the segment size for a copy: what is asked for, or more if a record of before is larger.
pub(super) fn segment_bytes(asked: usize, survey: &Survey) -> usize {
    let longest = survey.records.iter().map(|record| record.length as usize).max().unwrap_or_default();
    asked.max(SEGMENT_HEADER + longest).next_multiple_of(ALIGN)
}
