//! What lies in the directory of a journal: every segment, and every record of the current epoch in them.
//!
//! Why records are found by looking at all bytes and not by trusting the headers of segments: within an epoch a number is
//! written once, so a record that is whole says by itself where it belongs, wherever it lies. A recycled segment's old
//! records are older numbers, a damaged header costs nothing, and a tear cannot hide what lies behind it.
//!
//! Why nobody can put a record into a message: the epoch is a random number of 64 bits that no peer is ever told.
//!
//! Invariant: nothing is written here. A file that cannot be read is an error: nothing is decided on what is not known.

use std::sync::Arc;

use super::JournalError;
use super::disk::{Disk, File};
use super::format::{
    ALIGN, BatchHeader, Found, Link, POINTER, Pointer, SEGMENT_HEADER, SegmentHeader, VERSION,
};
use super::segment::number;

/// The file that names the current epoch.
pub(super) const POINTER_NAME: &str = "epoch";

/// Most of a segment that was never full is zeros, which are passed over in pieces.
static ZEROS: [u8; 4096] = [0; 4096];

/// A segment as it was found.
pub(super) struct SurveyedFile {
    pub(super) name: String,
    pub(super) file: Arc<dyn File>,
    pub(super) bytes: u64,
    pub(super) header: Found<SegmentHeader>,
}

/// A record as it was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct FoundRecord {
    /// Index of its file.
    pub(super) file: usize,
    pub(super) offset: usize,
    pub(super) length: u32,
    pub(super) link: Link,
    /// See [`BatchHeader::durable`].
    pub(super) durable: Link,
}

/// All that was found.
pub(super) struct Survey {
    /// What the pointer says, and whether it was put right. `None`: there has never been a journal here.
    pub(super) pointer: Option<Pointer>,
    pub(super) is_pointer_mended: bool,
    /// All segments, of this epoch or not.
    pub(super) files: Vec<SurveyedFile>,
    /// The records of the epoch by their numbers, each once.
    pub(super) records: Vec<FoundRecord>,
    /// Names that are neither the pointer's nor a segment's.
    pub(super) others: Vec<String>,
}

/// Looks at everything in the directory.
pub(super) fn survey(disk: &dyn Disk) -> Result<Survey, JournalError> {
    let mut names = disk.list().map_err(|error| JournalError::io("list", "the journal", &error))?;
    names.sort_unstable();
    let (segments, others): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| number(name).is_some());
    let (pointer, is_pointer_mended) = pointer(disk, &others)?;
    let mut survey = Survey { pointer, is_pointer_mended, files: Vec::new(), records: Vec::new(), others };
    for name in segments {
        let file = disk.open(&name).map_err(|error| JournalError::io("open", &name, &error))?;
        survey.file(name, file)?;
    }
    if survey.pointer.is_none() && survey.files.iter().any(|file| file.header != Found::Blank) {
        let what = format!("segments are there, but the file `{POINTER_NAME}` that says which count is not");
        return Err(JournalError::Damaged { what });
    }
    survey.records.sort_by_key(|record| record.link.number);
    survey.records.dedup_by_key(|record| record.link.number);
    Ok(survey)
}

fn pointer(disk: &dyn Disk, names: &[String]) -> Result<(Option<Pointer>, bool), JournalError> {
    if !names.iter().any(|name| name == POINTER_NAME) {
        return Ok((None, false));
    }
    let failed = |error: std::io::Error| JournalError::io("read", POINTER_NAME, &error);
    let file = disk.open(POINTER_NAME).map_err(failed)?;
    let mut bytes = [0; POINTER];
    if file.size().map_err(failed)? >= POINTER as u64 {
        file.read_at(&mut bytes, 0).map_err(failed)?;
    }
    match Pointer::decode(&bytes) {
        Found::Whole(pointer) => Ok((Some(pointer), false)),
        Found::Mended(pointer) => Ok((Some(pointer), true)),
        Found::Newer(version) => Err(newer(POINTER_NAME, version)),
        Found::Blank | Found::Bad => {
            let what = format!(
                "the file `{POINTER_NAME}`, which says which segments count, is not what was written"
            );
            Err(JournalError::Damaged { what })
        }
    }
}

fn newer(name: &str, version: u32) -> JournalError {
    JournalError::Newer { name: name.to_owned(), version, known: VERSION }
}

impl Survey {
    fn file(&mut self, name: String, file: Arc<dyn File>) -> Result<(), JournalError> {
        let failed = |error: std::io::Error| JournalError::io("read", &name, &error);
        let size = file.size().map_err(failed)?;
        let mut start = [0; SEGMENT_HEADER];
        if size >= SEGMENT_HEADER as u64 {
            file.read_at(&mut start, 0).map_err(failed)?;
        }
        let header = SegmentHeader::decode(&start);
        if let Found::Newer(version) = header {
            return Err(newer(&name, version));
        }
        let surveyed = SurveyedFile { name, file, bytes: size, header };
        let is_other = match (self.pointer, header) {
            (None, _) => true,
            (Some(pointer), Found::Whole(header) | Found::Mended(header)) => header.epoch != pointer.epoch,
            (Some(_), _) => false,
        };
        if !is_other {
            let mut bytes = surveyed.read()?;
            self.records(&mut bytes, self.files.len());
        }
        self.files.push(surveyed);
        Ok(())
    }

    /// Finds the records in the bytes of a segment.
    fn records(&mut self, bytes: &mut [u8], file: usize) {
        let Some(Pointer { epoch, .. }) = self.pointer else {
            return;
        };
        let mut at = SEGMENT_HEADER;
        // Only where a record must begin is a damaged one looked for; elsewhere it would be found in anything.
        let mut is_expected = true;
        while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
            let found = match BatchHeader::decode(rest, epoch) {
                None if is_expected => BatchHeader::decode_mended(rest, epoch),
                found => found,
            };
            is_expected = found.is_some();
            match found {
                Some(BatchHeader { length, link, durable, .. }) => {
                    self.records.push(FoundRecord { file, offset: at, length, link, durable });
                    at += length as usize;
                }
                None if rest.starts_with(&ZEROS) => at += ZEROS.len(),
                None => at += ALIGN,
            }
        }
    }
}

impl SurveyedFile {
    /// Reads all of it.
    pub(super) fn read(&self) -> Result<Vec<u8>, JournalError> {
        let size = usize::try_from(self.bytes).unwrap_or(usize::MAX);
        let mut bytes = vec![0; size];
        self.file.read_at(&mut bytes, 0).map_err(|error| JournalError::io("read", &self.name, &error))?;
        Ok(bytes)
    }

    /// Whether where its header should be are zeros.
    pub(super) fn is_blank(&self) -> bool {
        self.header == Found::Blank
    }

    /// Returns its header, if it has one.
    pub(super) fn header(&self) -> Option<SegmentHeader> {
        match self.header {
            Found::Whole(header) | Found::Mended(header) => Some(header),
            _ => None,
        }
    }
}
