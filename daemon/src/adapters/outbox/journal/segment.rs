//! The files that segments are: making them, keeping spares, knowing which may go.
//!
//! A segment is written full of zeros once and recycled afterwards, so that an fdatasync has data to write and nothing
//! else. Its name says nothing; its header says what it is.
//!
//! Invariants: a file bears the name of a segment only when it is full and durable; a segment whose batches somebody may
//! still need is never among the spares; there are never more than `spares_max` of these after a release.

use std::collections::VecDeque;
use std::sync::Arc;

use quail_protocol::id::Position;

use super::JournalError;
use super::disk::{Disk, File};

/// What the name of a segment ends in.
const SUFFIX: &str = ".segment";
/// What the name of a file ends in that is not yet what it is to be. Such files are removed at open.
pub(super) const UNFINISHED: &str = ".new";
/// How much is written at once, in bytes. Where it goes through the page cache this is the size of the pieces that it keeps
/// the file in: each sync writes whole pieces, so larger ones cost more there and smaller ones more time in large syncs.
const ZEROS: usize = 64 * 1024;

/// The file of a segment.
#[derive(Clone)]
pub(super) struct SegmentFile {
    pub(super) name: String,
    pub(super) file: Arc<dyn File>,
}

/// How far the batches of a segment go that gets no more of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closed {
    pub(super) generation: u64,
    pub(super) position: Position,
}

/// A segment in use.
pub(super) struct Live {
    pub(super) segment: SegmentFile,
    pub(super) sequence: u64,
    /// Up to here its bytes are durable.
    pub(super) synced: u64,
    /// Set once it gets no more batches.
    pub(super) closed: Option<Closed>,
}

/// All segments of a journal.
pub(super) struct Segments {
    pub(super) live: VecDeque<Live>,
    pub(super) spares: Vec<SegmentFile>,
    /// Number in the name of the next file.
    pub(super) next_name: u64,
    /// Somebody waits for more to be durable.
    pub(super) awaited: bool,
}

impl Segments {
    /// Takes out what is closed and needed neither for recovery nor by the archive, and returns what is more than
    /// `spares_max`, to be removed.
    pub(super) fn release(
        &mut self,
        generation: u64,
        archived: Option<Position>,
        spares_max: usize,
    ) -> Vec<SegmentFile> {
        let is_free = |live: &Live| {
            live.closed.is_some_and(|closed| {
                closed.generation <= generation && archived.is_none_or(|upto| closed.position <= upto)
            })
        };
        let mut removed = Vec::new();
        while let Some(live) = self.live.pop_front_if(|live| is_free(live)) {
            if self.spares.len() < spares_max {
                self.spares.push(live.segment);
            } else {
                removed.push(live.segment);
            }
        }
        removed
    }

    /// Returns the name for a new segment.
    pub(super) fn name(&mut self) -> String {
        self.next_name += 1;
        name(self.next_name - 1)
    }
}

/// Returns the name of a segment.
pub(super) fn name(number: u64) -> String {
    format!("{number:08}{SUFFIX}")
}

/// Returns the number in the name of a segment, `None` if it is none.
pub(super) fn number(name: &str) -> Option<u64> {
    let number = name.strip_suffix(SUFFIX)?.parse().ok()?;
    (self::name(number) == name).then_some(number)
}

/// Makes a segment: zeros, durable, its name too.
///
/// A failure leaves the journal as it was. What was half made is removed, now or at the next open.
pub(super) fn make(disk: &dyn Disk, name: String, bytes: u64) -> Result<SegmentFile, JournalError> {
    let unfinished = format!("{name}{UNFINISHED}");
    let made = make_unfinished(disk, &unfinished, bytes).and_then(|file| {
        disk.rename(&unfinished, &name)?;
        disk.sync_directory()?;
        Ok(file)
    });
    match made {
        Ok(file) => Ok(SegmentFile { name, file }),
        Err(error) => {
            // On a full disk the next attempt needs the room; if it cannot even be removed, open does it.
            let _ = disk.remove(&unfinished);
            Err(JournalError::io("make a segment of", &name, &error))
        }
    }
}

fn make_unfinished(disk: &dyn Disk, name: &str, bytes: u64) -> std::io::Result<Arc<dyn File>> {
    let file = disk.create(name)?;
    let zeros = vec![0; ZEROS.min(usize::try_from(bytes).unwrap_or(ZEROS))];
    let mut at = 0;
    while at < bytes {
        let left = usize::try_from(bytes - at).unwrap_or(usize::MAX);
        let piece = zeros.get(..left).unwrap_or(&zeros);
        file.write_at(piece, at)?;
        at += piece.len() as u64;
    }
    file.sync_data()?;
    Ok(file)
}

/// Bytes by a key that only rises, so that those up to a key can be taken off.
#[derive(Debug)]
pub(super) struct Tally<K> {
    steps: VecDeque<(K, u64)>,
    /// Neighbours are counted as one until they are more than this many bytes.
    step_bytes: u64,
    total: u64,
}

impl<K: Copy + Ord> Tally<K> {
    pub(super) fn new(step_bytes: u64) -> Self {
        Self { steps: VecDeque::new(), step_bytes, total: 0 }
    }

    pub(super) fn add(&mut self, key: K, bytes: u64) {
        self.total += bytes;
        match self.steps.back_mut() {
            Some((last, sum)) if *last == key || *sum + bytes <= self.step_bytes => {
                *last = key.max(*last);
                *sum += bytes;
            }
            _ => self.steps.push_back((key, bytes)),
        }
    }

    pub(super) fn release(&mut self, upto: K) {
        while let Some((_, bytes)) = self.steps.pop_front_if(|(key, _)| *key <= upto) {
            self.total -= bytes;
        }
    }

    pub(super) fn clear(&mut self) {
        self.steps.clear();
        self.total = 0;
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_others_are_not() {
        assert_eq!(name(7), "00000007.segment");
        assert_eq!(number("00000007.segment"), Some(7));
        assert_eq!(number(&name(123_456_789)), Some(123_456_789));
        for other in ["7.segment", "00000007.segment.new", "epoch", "+0000007.segment"] {
            assert_eq!(number(other), None, "{other}");
        }
    }

    #[test]
    fn a_tally_takes_off_whole_steps_only() {
        let mut tally = Tally::new(10);
        for key in 1..=5_u64 {
            tally.add(key, 4);
        }
        assert_eq!(tally.total(), 20);
        tally.release(1);
        assert_eq!(tally.total(), 20, "1 and 2 are one step, and 2 is still needed");
        tally.release(2);
        assert_eq!(tally.total(), 12);
        tally.release(9);
        assert_eq!(tally.total(), 0);
    }
}
