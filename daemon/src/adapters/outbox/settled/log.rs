//! sled's log, read without sled.
//!
//! Why: sled 0.34.7 stops at the first message of a segment that it cannot read and goes on with the next segment. One flipped
//! bit would cost all that was written behind it, up to a whole segment, and often the pages of other trees with it; what it
//! takes for a torn end it overwrites. So the part of the log that sled would go through is surveyed before sled sees it, and
//! a damaged store is read by this file, which skips a damaged message and goes on at the next whole one.
//!
//! The format, as far as it is needed here; the version of sled is pinned, so it cannot change unnoticed:
//!
//! ```text
//! segment   header 20: CRC32 | lsn | stable lsn, then messages, the last of which may fill it up ("cap")
//! message   CRC32 4 | kind 1 | varint length | varint segment number | varint page | body
//! ```
//!
//! A log sequence number ("lsn") is the segment number times its length plus the offset in it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::database::{SEGMENT_BYTES, named};
use super::fault::Fault;

/// Name of sled's database file.
pub(super) const NAME: &str = "db";

/// What a segment begins with.
const SEGMENT_HEADER_BYTES: usize = 20;

/// sled begins no message this close to the end of a segment.
const RED_ZONE_BYTES: usize = 32;

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing that is stored: cancelled, a batch, a counter, the names of the trees.
    Other,
    /// The rest of the segment is empty.
    Cap,
    /// The page is no more.
    Free,
    /// The page anew.
    Node,
    /// A change of the page.
    Link,
}

/// A whole message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message {
    pub kind: Kind,
    pub page: u64,
    pub lsn: u64,
    /// Where its body lies in the file.
    pub offset: u64,
    pub len: usize,
}

/// What was found wrong in a segment: nothing that could be read between these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub from: u64,
    pub upto: u64,
    /// Whether it is one message, by the length it says it has.
    pub is_one: bool,
}

/// Calls `visit` with every whole message of the file and returns the gaps between messages of one segment, and the largest
/// lsn behind a message.
pub(super) fn read(file: &File, mut visit: impl FnMut(Message)) -> io::Result<(Vec<Gap>, u64)> {
    let (mut gaps, mut end) = (Vec::new(), 0);
    let mut buffer = vec![0; SEGMENT_BYTES];
    for base in segments(file)? {
        let segment = fill(file, &mut buffer, base)?;
        end = end.max(read_segment(segment, base, &mut gaps, &mut visit));
    }
    Ok((gaps, end))
}

/// Fails if sled would lose something that was synced: in the part of the log it goes through, behind its last snapshot, and
/// before `end`, to which all was whole once.
pub(super) fn survey(directory: &Path, end: u64) -> Result<(), Fault> {
    let snapshots = named(directory, |name| name.starts_with("snap.") && !name.contains("generating"))?;
    let stable = |path: &std::path::PathBuf| {
        u64::from_str_radix(path.file_name()?.to_str()?.strip_prefix("snap.")?, 16).ok()
    };
    let stable = snapshots.iter().filter_map(stable).max().unwrap_or(0);
    // sled begins with the segment the snapshot ends in.
    let begin = stable / SEGMENT_BYTES as u64 * SEGMENT_BYTES as u64;
    let file = File::open(directory.join(NAME))?;
    let (mut gaps, mut found) = (Vec::new(), 0);
    let mut buffer = vec![0; SEGMENT_BYTES];
    for base in segments(&file)? {
        // Most segments are older than the snapshot, and their header says so.
        let mut header = [0; SEGMENT_HEADER_BYTES];
        file.read_exact_at(&mut header, base)?;
        if parse_segment_header(&header).is_some_and(|lsn| lsn < begin) {
            continue;
        }
        let segment = fill(&file, &mut buffer, base)?;
        found = found.max(read_segment(segment, base, &mut gaps, &mut |_| {}));
    }
    match gaps.iter().find(|gap| gap.upto > begin && gap.from < end) {
        Some(gap) => {
            Err(Fault::damaged(format_args!("sled's log is damaged from {} to {}", gap.from, gap.upto)))
        }
        None if found < end => {
            Err(Fault::damaged(format_args!("sled's log ends at {found} instead of {end}")))
        }
        None => Ok(()),
    }
}

fn segments(file: &File) -> io::Result<impl Iterator<Item = u64> + use<>> {
    let len = file.metadata()?.len();
    let bases = (0..len).step_by(SEGMENT_BYTES);
    Ok(bases.filter(move |base| len - base > SEGMENT_HEADER_BYTES as u64))
}

fn fill<'a>(file: &File, buffer: &'a mut [u8], base: u64) -> io::Result<&'a [u8]> {
    let mut len = 0;
    while let Some(rest) = buffer.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, base + len as u64) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(buffer.get(..len).unwrap_or_default())
}

/// Reads one segment and returns the lsn behind its last message; zero if it has none.
fn read_segment(segment: &[u8], base: u64, gaps: &mut Vec<Gap>, visit: &mut impl FnMut(Message)) -> u64 {
    let number_in_header = parse_segment_header(segment).map(|lsn| lsn / SEGMENT_BYTES as u64);
    let mut at = SEGMENT_HEADER_BYTES;
    // The segment and the place up to which all is whole; messages of an earlier use of the segment do not count.
    let mut number = number_in_header;
    let mut whole = at;
    if number.is_none() {
        // A header that is not whole is a gap if a message behind it is.
        whole = 0;
    }
    let mut is_capped = false;
    while segment.len().saturating_sub(at) >= RED_ZONE_BYTES {
        let Some((parsed, next)) = parse(segment, at) else {
            at = match segment.get(at..).and_then(|rest| rest.iter().position(|byte| *byte != 0)) {
                Some(0) => at + 1,
                // The kind is the fifth byte: a message begins at most four bytes before something that is not zero.
                Some(zeroes) => at + zeroes.saturating_sub(4).max(1),
                None => segment.len(),
            };
            continue;
        };
        let lsn = |place: usize| parsed.segment * SEGMENT_BYTES as u64 + place as u64;
        if number.is_none_or(|number| number < parsed.segment) {
            number = Some(parsed.segment);
        }
        if number == Some(parsed.segment) {
            if whole < at {
                let is_one = whole > 0 && parse_header(segment, whole).is_some_and(|(_, end)| end == at);
                gaps.push(Gap { from: lsn(whole), upto: lsn(at), is_one });
            }
            whole = next;
            is_capped = parsed.kind == Kind::Cap;
        }
        let (offset, len) = (base + (next - parsed.len) as u64, parsed.len);
        visit(Message { kind: parsed.kind, page: parsed.page, lsn: lsn(at), offset, len });
        at = next;
    }
    let Some(number) = number.filter(|_| whole > 0) else { return 0 };
    let begin = number * SEGMENT_BYTES as u64;
    if !is_capped && SEGMENT_BYTES - whole > RED_ZONE_BYTES {
        // Either the log ends here, or what follows is damaged.
        gaps.push(Gap { from: begin + whole as u64, upto: begin + SEGMENT_BYTES as u64, is_one: false });
        return begin + whole as u64;
    }
    begin + SEGMENT_BYTES as u64
}

/// Returns the lsn of a segment whose header is whole.
fn parse_segment_header(segment: &[u8]) -> Option<u64> {
    let (crc, rest) = segment.split_first_chunk::<4>()?;
    let covered = rest.get(..16)?;
    let (lsn, _) = covered.split_first_chunk::<8>()?;
    let is_whole = crc32fast::hash(covered) == u32::from_le_bytes(*crc) ^ u32::MAX;
    let lsn = u64::from_le_bytes(*lsn) ^ (u64::MAX >> 1);
    (is_whole && lsn.is_multiple_of(SEGMENT_BYTES as u64)).then_some(lsn)
}

struct Parsed {
    kind: Kind,
    segment: u64,
    page: u64,
    len: usize,
}

/// Returns the message at a place, if there is a whole one, and where it ends.
fn parse(segment: &[u8], at: usize) -> Option<(Parsed, usize)> {
    let (parsed, end) = parse_header(segment, at)?;
    let message = segment.get(at..end)?;
    let (crc, covered) = message.split_first_chunk::<4>()?;
    let (header, body) = covered.split_at_checked(covered.len().checked_sub(parsed.len)?)?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(body);
    hasher.update(header);
    (hasher.finalize() ^ u32::MAX == u32::from_le_bytes(*crc)).then_some((parsed, end))
}

/// Returns what the header of a message at a place says, right or wrong, and where it says the message ends.
fn parse_header(segment: &[u8], at: usize) -> Option<(Parsed, usize)> {
    let mut rest = segment.get(at.checked_add(4)?..)?;
    let (kind, after) = rest.split_first()?;
    let kind = match kind {
        1 | 3 | 5..=7 => Kind::Other,
        2 => Kind::Cap,
        4 => Kind::Free,
        8 => Kind::Node,
        10 => Kind::Link,
        _ => return None,
    };
    rest = after;
    let len = usize::try_from(varint(&mut rest)?).ok()?;
    let (segment_number, page) = (varint(&mut rest)?, varint(&mut rest)?);
    let end = (segment.len() - rest.len()).checked_add(len).filter(|end| *end <= segment.len())?;
    Some((Parsed { kind, segment: segment_number, page, len }, end))
}

/// Takes one of sled's variable-length numbers.
pub(super) fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let (first, rest) = bytes.split_first()?;
    let (value, len) = match first {
        0..=240 => (u64::from(*first), 0),
        241..=248 => (240 + 256 * (u64::from(*first) - 241) + u64::from(*rest.first()?), 1),
        249 => (2288 + 256 * u64::from(*rest.first()?) + u64::from(*rest.get(1)?), 2),
        _ => {
            let len = usize::from(*first) - 247;
            let mut value = [0; 8];
            value.get_mut(..len)?.copy_from_slice(rest.get(..len)?);
            (u64::from_le_bytes(value), len)
        }
    };
    *bytes = rest.get(len..)?;
    Some(value)
}

/// Takes so many bytes as a number before them says.
pub(super) fn bytes<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(varint(from)?).ok()?;
    let (taken, rest) = from.split_at_checked(len)?;
    *from = rest;
    Some(taken)
}
