//! Going through the batches of an epoch in order: which count, where the end is, what is damaged and what that costs.
//!
//! The end of a journal looks like damage: the last write may be torn. What tells them apart is that a write begins only
//! after the one before is durable, and that each record says where its write began. So what is missing below that is
//! damage, and is told. What is missing above is the torn end of a write that nobody was ever answered on: it is cut off,
//! with everything behind it, so that no hole is left.
//! In the last write, a record with one flipped bit is damage as well: a tear does not look like that.
//!
//! Invariants: batches are handed out in the order of their numbers, each once; between two of them nothing is missing that
//! was durable, but for what a loss says; what is handed out is a prefix of what was appended.

use quail_core::ports::outbox::{Accounts, Entry};
use quail_protocol::id::{Position, Stamp};

use super::JournalError;
use super::entries::Loss;
use super::format::{BatchHeader, Found, Link};
use super::record::{Examined, Part, examine, loss};
use super::survey::{FoundRecord, POINTER_NAME, Survey};
use crate::adapters::outbox::types::{Lost, Mark};

/// A batch as replay hands it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayedBatch {
    /// Its number.
    pub number: u64,
    /// The generation it was appended in.
    pub generation: u64,
    /// The largest position given by then.
    pub last_position: Position,
    /// The largest stamp given by then.
    pub last_stamp: Stamp,
    /// Length of its record in bytes.
    pub bytes: u64,
    /// Its entries in the order of decision.
    pub entries: Vec<Replayed>,
}

/// An entry as replay hands it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// An entry as it was appended.
    Entry(Entry),
    /// In the place of what is damaged or gone. Until its generation is settled, it comes again at every open.
    Lost(Lost),
}

/// Something in the journal that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: String,
    /// Number of the batch it was found in or before; `None` where it is no batch.
    pub number: Option<u64>,
    /// For the operator: what was found.
    pub what: String,
    /// Whether it was put right, so that nothing is lost by it.
    pub is_mended: bool,
}

/// The end of the journal where it was not whole: a write that was under way when the process or the machine stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TornEnd {
    /// Number of the first batch that is not there whole.
    pub number: u64,
    /// How many records from there on were found and do not count.
    pub records: u64,
}

/// A step of the way.
pub(super) enum Step<'a> {
    /// A batch.
    Batch {
        /// Its record, put right where it could be.
        bytes: &'a [u8],
        examined: &'a Examined,
    },
    /// In the place of batches that are gone.
    Hole {
        /// The last before them.
        before: Link,
        /// The last of them.
        link: Link,
        loss: Option<Loss>,
    },
}

/// What the way was like.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// The last batch.
    pub(super) link: Link,
    pub(super) damage: Vec<Damage>,
    pub(super) torn: Option<TornEnd>,
    pub(super) batches: u64,
    pub(super) bytes: u64,
}

/// Which batches are wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Those of later generations...
    pub(super) settled: Mark,
    /// ...and those the archive does not have.
    pub(super) archived: Option<Position>,
}

impl Wanted {
    fn holds(&self, link: &Link) -> bool {
        self.is_unsettled(link) || self.archived.is_some_and(|upto| link.position > upto)
    }

    pub(super) fn is_unsettled(&self, link: &Link) -> bool {
        link.generation > self.settled.generation
    }
}

/// Goes through the wanted batches in order. Returns the damage and the last link, with which the chain goes on.
pub(super) fn walk(
    survey: &Survey,
    wanted: Wanted,
    step: &mut dyn FnMut(Step<'_>) -> Result<(), JournalError>,
) -> Result<Walked, JournalError> {
    let pointed = survey.pointer.map(|pointer| pointer.link).unwrap_or_default();
    let durable = survey.records.iter().map(|record| record.durable);
    let proven = durable.chain([pointed]).max_by_key(|link| link.number).unwrap_or_default();
    let link = base(survey, &wanted, [pointed, proven]);
    let walked = Walked { link, ..Walked::default() };
    Walk { survey, wanted, proven, buffer: None, walked, step }.run()
}

/// Returns the last batch that is not wanted; at least the mark, where numbers begin.
fn base(survey: &Survey, wanted: &Wanted, others: [Link; 2]) -> Link {
    let links = survey.records.iter().map(|record| record.link).chain(others);
    let mut link =
        links.filter(|link| !wanted.holds(link)).max_by_key(|link| link.number).unwrap_or_default();
    link.generation = link.generation.max(wanted.settled.generation);
    link.position = link.position.max(wanted.settled.last_position);
    link.stamp = link.stamp.max(wanted.settled.last_stamp);
    link
}

struct Walk<'a> {
    survey: &'a Survey,
    wanted: Wanted,
    /// Every batch up to this one was durable once.
    proven: Link,
    /// The file read last, and its bytes.
    buffer: Option<(usize, Vec<u8>)>,
    walked: Walked,
    step: &'a mut dyn FnMut(Step<'_>) -> Result<(), JournalError>,
}

impl Walk<'_> {
    fn run(mut self) -> Result<Walked, JournalError> {
        if self.survey.is_pointer_mended {
            self.damaged(POINTER_NAME.to_owned(), None, "a flipped bit".to_owned(), true);
        }
        let wanted: Vec<FoundRecord> =
            self.survey.records.iter().copied().filter(|record| self.wanted.holds(&record.link)).collect();
        let mut torn = 0;
        for (index, record) in wanted.iter().enumerate() {
            if !self.record(*record)? {
                torn = (wanted.len() - index) as u64;
                break;
            }
        }
        if self.wanted.holds(&self.proven) && self.walked.link.number < self.proven.number {
            self.hole(self.proven, String::new())?;
        }
        let number = self.walked.link.number + 1;
        self.walked.torn = (torn > 0).then_some(TornEnd { number, records: torn });
        self.headers(&wanted);
        Ok(self.walked)
    }

    /// Takes a record; false if the journal ends before it.
    fn record(&mut self, record: FoundRecord) -> Result<bool, JournalError> {
        let (mut bytes, header, is_mended) = self.read(record)?;
        let before = self.walked.link;
        let previous = header.previous;
        if (previous.number, previous.checksum) != (before.number, before.checksum)
            && self.wanted.holds(&previous)
        {
            // Above what is proven it is the torn end, and this record lies behind it.
            if previous.number > self.proven.number {
                return Ok(false);
            }
            if before.number < previous.number {
                self.hole(previous, self.file(record.file))?;
            } else {
                let what = "the batch before it is another one than it says".to_owned();
                self.damaged(self.file(record.file), Some(record.link.number), what, false);
            }
        }
        let examined = examine(&mut bytes, header, is_mended);
        if record.link.number > self.proven.number && examined.may_be_torn() {
            return Ok(false);
        }
        for fault in &examined.faults {
            self.damaged(
                self.file(record.file),
                Some(record.link.number),
                fault.what.clone(),
                fault.is_mended,
            );
        }
        let stamp = self.walked.link.stamp.max(header.link.stamp);
        let position = self.walked.link.position.max(header.link.position);
        self.walked.link = Link { position, stamp, ..header.link };
        self.walked.batches += 1;
        self.walked.bytes += u64::from(header.length);
        (self.step)(Step::Batch { bytes: &bytes, examined: &examined })?;
        Ok(true)
    }

    /// Stands in for what is missing up to the batch `last`.
    fn hole(&mut self, last: Link, file: String) -> Result<(), JournalError> {
        let before = self.walked.link;
        let what = format!("batches are missing: those above {} up to {}", before.number, last.number);
        let above = before.position.max(self.wanted.settled.last_position);
        let loss = loss(Accounts::new(), above, last.position).filter(|_| self.wanted.is_unsettled(&last));
        self.damaged(file, Some(last.number), what, false);
        self.walked.link = Link {
            position: before.position.max(last.position),
            stamp: before.stamp.max(last.stamp),
            ..last
        };
        (self.step)(Step::Hole { before, link: self.walked.link, loss })
    }

    /// Returns the bytes of a record and its header.
    fn read(&mut self, record: FoundRecord) -> Result<(Vec<u8>, BatchHeader, bool), JournalError> {
        let name = self.file(record.file);
        let changed = || {
            let reason = "it changes while it is read".to_owned();
            JournalError::Io { action: "read", name: name.clone(), reason }
        };
        let file = self.survey.files.get(record.file).ok_or_else(changed)?;
        let epoch = self.survey.pointer.map(|pointer| pointer.epoch).unwrap_or_default();
        let buffer = match self.buffer.take() {
            Some((index, bytes)) if index == record.file => bytes,
            _ => file.read()?,
        };
        let end = record.offset + record.length as usize;
        let bytes = buffer.get(record.offset..end).map(<[u8]>::to_vec);
        self.buffer = Some((record.file, buffer));
        let mut bytes = bytes.ok_or_else(changed)?;
        let whole = BatchHeader::decode(&bytes, epoch);
        let header = match whole {
            Some(header) => header,
            None => BatchHeader::decode_mended(&mut bytes, epoch).ok_or_else(changed)?,
        };
        if header.link != record.link {
            return Err(changed());
        }
        Ok((bytes, header, whole.is_none()))
    }

    /// Tells of headers of segments that are damaged, where batches in them count.
    fn headers(&mut self, wanted: &[FoundRecord]) {
        for (index, file) in self.survey.files.iter().enumerate() {
            let counts = wanted
                .iter()
                .any(|record| record.file == index && record.link.number <= self.walked.link.number);
            let is_mended = match file.header {
                Found::Mended(_) => true,
                Found::Bad | Found::Blank => false,
                Found::Whole(_) | Found::Newer(_) => continue,
            };
            if counts {
                let what = match is_mended {
                    true => "a flipped bit in the header of the segment",
                    false => "the header of the segment is damaged; its batches were found without it",
                };
                self.damaged(file.name.clone(), None, what.to_owned(), true);
            }
        }
    }

    fn file(&self, index: usize) -> String {
        self.survey.files.get(index).map(|file| file.name.clone()).unwrap_or_default()
    }

    fn damaged(&mut self, file: String, number: Option<u64>, what: String, is_mended: bool) {
        self.walked.damage.push(Damage { file, number, what, is_mended });
    }
}

/// Returns a batch as replay hands it out.
pub(super) fn replayed(examined: &Examined) -> ReplayedBatch {
    let BatchHeader { length, link, .. } = examined.header;
    let mut entries = Vec::with_capacity(examined.parts.len());
    for part in &examined.parts {
        match part {
            Part::Whole(entry) => entries.push(Replayed::Entry(entry.clone())),
            Part::Lost(loss) => entries.extend(losses(link.number, loss).map(Replayed::Lost)),
            Part::Dropped => {}
        }
    }
    batch(link, length.into(), entries)
}

/// Returns what stands for batches that are gone as replay hands it out.
pub(super) fn replayed_hole(link: Link, loss: Option<&Loss>) -> ReplayedBatch {
    let losses = loss.into_iter().flat_map(|loss| losses(link.number, loss)).map(Replayed::Lost);
    batch(link, 0, losses.collect())
}

fn batch(link: Link, bytes: u64, entries: Vec<Replayed>) -> ReplayedBatch {
    let Link { number, generation, position, stamp, .. } = link;
    ReplayedBatch { number, generation, last_position: position, last_stamp: stamp, bytes, entries }
}

/// One for each account, or one for everybody.
fn losses(number: u64, loss: &Loss) -> impl Iterator<Item = Lost> {
    let Loss { from, upto, .. } = *loss;
    let accounts: Vec<_> = match &*loss.accounts {
        [] => vec![None],
        accounts => accounts.iter().copied().map(Some).collect(),
    };
    let what = format!("batch {number} of the journal is damaged");
    accounts.into_iter().map(move |account| Lost { account, from, upto, what: what.clone() })
}
