//! Opening a journal: replay, copy, switch, recycle.

use std::sync::{Arc, Condvar, Mutex};

use quail_protocol::id::{Position, Stamp};

use super::copy::{Copied, Copier, recycle, segment_bytes, switch};
use super::disk::Disk;
use super::format::Link;
use super::replay::{Damage, ReplayedBatch, Step, TornEnd, Wanted, replayed, replayed_hole, walk};
use super::survey::{Survey, survey};
use super::writer::{Journal, Open, Shared, Writing};
use super::{JournalError, JournalOptions, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use crate::adapters::outbox::types::Mark;
use crate::ops::failpoint;

/// What was found when a journal was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Number of the last batch there is or was.
    pub last_number: u64,
    /// The largest position given, the mark's and what is lost included.
    pub last_position: Position,
    /// The largest stamp given, the mark's included.
    pub last_stamp: Stamp,
    /// The highest generation seen, the mark's included. Appending goes on with it or a higher one, but never with one that
    /// is settled: its batches would not be replayed.
    pub generation: u64,
    /// Batches handed out.
    pub batches: u64,
    /// Bytes of the records replayed, those for the archive included.
    pub bytes: u64,
    /// What is not what was written.
    pub damage: Vec<Damage>,
    /// The end, if a write was under way when the process or the machine stopped. Nobody was answered on it.
    pub torn: Option<TornEnd>,
}

/// Opens the journal in a directory, hands every batch of a generation after `settled` to `visit`, and returns the journal,
/// ready to append to. An empty directory is an empty journal.
///
/// # Errors
/// [`JournalError`]. Nothing is lost by it: another attempt begins anew.
pub fn open(
    disk: Arc<dyn Disk>,
    options: &JournalOptions,
    settled: Mark,
    visit: &mut dyn FnMut(ReplayedBatch),
) -> Result<(Journal, Opened), JournalError> {
    let mut epoch = [0; 8];
    getrandom::fill(&mut epoch).map_err(|error| JournalError::Io {
        action: "draw a number for",
        name: "the journal".to_owned(),
        reason: error.to_string(),
    })?;
    open_as(disk, options, settled, u64::from_le_bytes(epoch), visit)
}

/// [`open`] with a given number of the epoch, which must never have been given before.
pub(super) fn open_as(
    disk: Arc<dyn Disk>,
    options: &JournalOptions,
    settled: Mark,
    epoch: u64,
    visit: &mut dyn FnMut(ReplayedBatch),
) -> Result<(Journal, Opened), JournalError> {
    let asked = options.segment_bytes.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
    let survey = survey(&*disk)?;
    if let Some(pointer) = &survey.pointer {
        // A process that was killed before its switch was durable leaves a pointer that a power cut takes back. Then the
        // segments that are free by this one would be those that count.
        switch(&*disk, pointer)?;
    }
    let segment_bytes = segment_bytes(asked, &survey);
    let wanted = Wanted { settled, archived: options.archived };
    let copier = Copier::new(&*disk, &survey, epoch, segment_bytes);
    let Replay { opened, mut copied, sizes } = replay(&survey, wanted, copier, visit)?;
    switch(&*disk, &copied.pointer)?;
    failpoint::reached("journal-epoch-switched");
    recycle(&*disk, &survey, &mut copied, segment_bytes, options.spares_max)?;
    failpoint::reached("journal-recycled");
    let Copied { pointer, segments } = copied;
    let mut open = Open::new(pointer.link, &segments, segment_bytes, options.archived.is_some());
    for (link, bytes) in sizes {
        open.count(link.generation, link.position, bytes);
    }
    open.unsettled.release(settled.generation);
    if let Some(upto) = options.archived {
        open.unarchived.release(upto);
    }
    let shared = Shared {
        disk,
        epoch,
        segment_bytes,
        spares_max: options.spares_max,
        on_sync: options.on_sync.clone(),
        writing: Mutex::new(Writing::new(&segments)),
        open: Mutex::new(open),
        segments: Mutex::new(segments),
        grown: Condvar::new(),
        recent: Mutex::default(),
    };
    Ok((Journal::new(Arc::new(shared)), opened))
}

struct Replay {
    opened: Opened,
    copied: Copied,
    /// The batches copied, and the lengths of their records.
    sizes: Vec<(Link, u64)>,
}

/// Hands out what is not settled, and copies it.
fn replay(
    survey: &Survey,
    wanted: Wanted,
    mut copier: Copier<'_>,
    visit: &mut dyn FnMut(ReplayedBatch),
) -> Result<Replay, JournalError> {
    let mut sizes = Vec::new();
    let mut batches = 0;
    let walked = walk(survey, wanted, &mut |step| {
        let (link, bytes, batch) = match step {
            Step::Batch { bytes, examined } => {
                let link = examined.header.link;
                let batch = wanted.is_unsettled(&link).then(|| replayed(examined));
                (link, copier.batch(bytes, examined)?, batch)
            }
            Step::Hole { before, link, loss } => {
                let batch = wanted.is_unsettled(&link).then(|| replayed_hole(link, loss.as_ref()));
                (link, copier.hole(before, link, loss.as_ref())?, batch)
            }
        };
        sizes.push((link, bytes as u64));
        if let Some(batch) = batch {
            batches += 1;
            visit(batch);
        }
        Ok(())
    })?;
    failpoint::reached("journal-replayed");
    let copied = copier.finish(walked.link)?;
    failpoint::reached("journal-copied");
    let opened = Opened {
        last_number: walked.link.number,
        last_position: walked.link.position,
        last_stamp: walked.link.stamp,
        generation: walked.link.generation,
        batches,
        bytes: walked.bytes,
        damage: walked.damage,
        torn: walked.torn,
    };
    Ok(Replay { opened, copied, sizes })
}
