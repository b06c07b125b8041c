//! Looking at a journal without touching it, for an operator whose daemon is stopped.
//!
//! Invariant: it sees what an open would see, and writes nothing.

use super::JournalError;
use super::disk::Disk;
use super::replay::{Damage, ReplayedBatch, Step, TornEnd, Wanted, replayed, replayed_hole, walk};
use super::survey::survey;
use crate::adapters::outbox::types::Mark;

/// What a journal holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalReport {
    /// All segments by their names.
    pub segments: Vec<SegmentReport>,
    /// Batches that an open would replay.
    pub batches: u64,
    /// Entries in them.
    pub entries: u64,
    /// Bytes of their records.
    pub bytes: u64,
    /// Number of the last batch.
    pub last_number: u64,
    /// What was found that is not what was written.
    pub damage: Vec<Damage>,
    /// The end, if it is torn, which is no damage.
    pub torn: Option<TornEnd>,
    /// Files that are no part of a journal.
    pub others: Vec<String>,
}

/// What a segment is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentReport {
    /// Name of the file.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its place among the segments of the current epoch; `None` if it holds nothing that counts.
    pub sequence: Option<u64>,
    /// Whole batches of the current epoch in it, settled ones as well.
    pub batches: u64,
}

/// Goes through a journal as [`open`](fn@super::open) does, with the same `settled`, and hands every batch to `visit`.
///
/// # Errors
/// [`JournalError`] where an open would fail too.
pub fn check(
    disk: &dyn Disk,
    settled: Mark,
    visit: &mut dyn FnMut(ReplayedBatch),
) -> Result<JournalReport, JournalError> {
    let survey = survey(disk)?;
    let mut entries = 0;
    let wanted = Wanted { settled, archived: None };
    let walked = walk(&survey, wanted, &mut |step| {
        let batch = match step {
            Step::Batch { examined, .. } => replayed(examined),
            Step::Hole { link, loss, .. } => replayed_hole(link, loss.as_ref()),
        };
        entries += batch.entries.len() as u64;
        visit(batch);
        Ok(())
    })?;
    let epoch = survey.pointer.map(|pointer| pointer.epoch);
    let segments = survey.files.iter().enumerate().map(|(index, file)| SegmentReport {
        name: file.name.clone(),
        bytes: file.bytes,
        sequence: file.header().filter(|header| Some(header.epoch) == epoch).map(|header| header.sequence),
        batches: survey.records.iter().filter(|record| record.file == index).count() as u64,
    });
    Ok(JournalReport {
        segments: segments.collect(),
        batches: walked.batches,
        entries,
        bytes: walked.bytes,
        last_number: walked.link.number,
        damage: walked.damage,
        torn: walked.torn,
        others: survey.others.iter().filter(|name| *name != super::survey::POINTER_NAME).cloned().collect(),
    })
}
