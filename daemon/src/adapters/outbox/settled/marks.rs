//! The mark in a file of its own: the last word on how far the store is.
//!
//! sled forgets the end of its log without a word when a bit in it flips. What the store was promised to hold therefore stands
//! outside of sled as well: a file of two slots, written in turn, each with a CRC32, so that one is always whole.
//!
//! ```text
//! slot at 0 and at 512: "quailmrk" | length 2 | the value of the row `mark` in sled's tree `meta`
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::fault::Fault;
use super::format::{self, Settled};
use crate::ops::files;

/// Name of the file, beside sled's.
pub(super) const NAME: &str = "mark";

const MAGIC: &[u8; 8] = b"quailmrk";
/// One sector: a torn write spoils one slot.
const SLOT_BYTES: u64 = 512;

/// The file, open.
pub(super) struct MarkFile {
    file: File,
}

impl MarkFile {
    /// Opens the file in a store's directory, or makes it, and returns what it says; `None` if it says nothing.
    pub(super) fn open(directory: &Path) -> Result<(Self, Option<Settled>), Fault> {
        let path = directory.join(NAME);
        let is_new = !path.exists();
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
        if is_new {
            // All of it is allocated and named now, so that later writes are one block in place.
            file.write_all_at(&[0; 2 * SLOT_BYTES as usize], 0)?;
            file.sync_all()?;
            files::sync_directory(&path)?;
        }
        let settled = read(&file)?;
        Ok((Self { file }, settled))
    }

    /// Makes durable how far the store is.
    pub(super) fn write(&self, settled: &Settled) -> io::Result<()> {
        self.file.write_all_at(&slot(settled), (settled.mark.generation % 2) * SLOT_BYTES)?;
        self.file.sync_data()
    }
}

/// Returns what the file in a directory says, if there is one that says something.
pub(super) fn peek(directory: &Path) -> Result<Option<Settled>, Fault> {
    match File::open(directory.join(NAME)) {
        Ok(file) => read(&file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn read(file: &File) -> Result<Option<Settled>, Fault> {
    let mut newest: Option<Settled> = None;
    for slot in 0..2 {
        let mut bytes = [0; SLOT_BYTES as usize];
        match file.read_exact_at(&mut bytes, slot * SLOT_BYTES) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
            read => read?,
        }
        if let Some(settled) = parse(&bytes)?
            && newest.is_none_or(|newest| newest.mark.generation < settled.mark.generation)
        {
            newest = Some(settled);
        }
    }
    Ok(newest)
}

fn slot(settled: &Settled) -> Vec<u8> {
    let value = format::settled(settled);
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&(value.len() as u16).to_be_bytes());
    bytes.extend_from_slice(&value);
    bytes
}

/// `None` is a slot that was never written or is damaged; the other one counts then.
fn parse(slot: &[u8]) -> Result<Option<Settled>, Fault> {
    let value = slot.strip_prefix(MAGIC).and_then(|rest| {
        let (len, rest) = rest.split_first_chunk::<2>()?;
        rest.get(..usize::from(u16::from_be_bytes(*len)))
    });
    match value.map(format::parse_settled) {
        Some(Ok(settled)) => Ok(Some(settled)),
        // The version stands before the checksum: a flipped bit there is not a newer quaild.
        Some(Err(Fault::Newer(what))) if !is_flipped(value) => Err(Fault::Newer(what)),
        _ => Ok(None),
    }
}

/// Whether a value would be whole if it were of our version.
fn is_flipped(value: Option<&[u8]>) -> bool {
    let mut value = value.unwrap_or_default().to_vec();
    if let Some(version) = value.first_mut() {
        *version = format::VERSION;
    }
    format::parse_settled(&value).is_ok()
}

#[cfg(test)]
mod tests {
    use quail_protocol::id::{Position, Stamp};

    use super::super::super::types::Mark;
    use super::*;

    fn settled(generation: u64) -> Settled {
        let mark = Mark { generation, last_position: Position(generation * 10), last_stamp: Stamp(1) };
        Settled { mark, next_number: 7, ..Settled::default() }
    }

    #[test]
    fn one_damaged_slot_leaves_the_other() {
        let directory = tempfile::tempdir().unwrap();
        let (file, none) = MarkFile::open(directory.path()).unwrap();
        assert_eq!(none, None);
        for generation in 1..=4 {
            file.write(&settled(generation)).unwrap();
        }
        assert_eq!(peek(directory.path()), Ok(Some(settled(4))));
        file.file.write_all_at(b"x", 12).unwrap();
        assert_eq!(peek(directory.path()), Ok(Some(settled(3))));
        file.file.write_all_at(&[9], SLOT_BYTES + 10).unwrap();
        assert_eq!(peek(directory.path()), Ok(None));
    }
}
