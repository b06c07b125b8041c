//! Stored formats of the journal: the pointer, the header of a segment, the header of a batch. `mod.rs` draws them.
//!
//! Why by hand and not bincode: a batch is decoded in place to be checked and put right bit by bit, and encoded by one pass
//! over the entries; both need fields at known offsets.
//!
//! Invariants: everything is little-endian. The first 64 bytes of a segment and of the pointer keep magic, version and
//! checksum where they are in every version, so that an older program can say that a newer one wrote them.

use quail_protocol::id::{Position, Stamp};

use super::mend::mend;

/// The only version so far, of segments and of the pointer.
pub(super) const VERSION: u32 = 1;
/// Length of the header of a segment.
pub(super) const SEGMENT_HEADER: usize = 64;
/// Length of the pointer.
pub(super) const POINTER: usize = 64;
/// Length of the header of a batch, without its table.
pub(super) const BATCH_HEADER: usize = 128;
/// Length of an entry's row in the table.
pub(super) const ROW: usize = 16;
/// Length of the repeated checksum that ends a batch.
pub(super) const SEAL: usize = 4;
/// Records begin at multiples of this.
pub(super) const ALIGN: usize = 8;

const SEGMENT_MAGIC: [u8; 8] = *b"QUAILSEG";
const POINTER_MAGIC: [u8; 8] = *b"QUAILPTR";
const BATCH_MAGIC: [u8; 4] = *b"QBAT";

/// Where the chain of batches stands after one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    /// The batch's number.
    pub(super) number: u64,
    pub(super) generation: u64,
    pub(super) position: Position,
    pub(super) stamp: Stamp,
    /// The checksum of the batch's header.
    pub(super) checksum: u32,
}

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) epoch: u64,
    /// One more than the segment before it in the epoch; the first is 1.
    pub(super) sequence: u64,
    /// Number of the first batch that begins in it.
    pub(super) first_number: u64,
    /// Checksum of the batch before that one.
    pub(super) previous_checksum: u32,
}

/// What names the current epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pointer {
    pub(super) epoch: u64,
    /// The last batch that was durable when the epoch began.
    pub(super) link: Link,
}

/// What is found where a header with a version should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found<T> {
    /// The header as it was written.
    Whole(T),
    /// The header with one flipped bit put right.
    Mended(T),
    /// Only zeros.
    Blank,
    /// A header of a version that only a newer program knows.
    Newer(u32),
    /// Anything else.
    Bad,
}

/// The header of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchHeader {
    /// Length of the whole record.
    pub(super) length: u32,
    pub(super) epoch: u64,
    /// The last batch before the write that this one was part of: it was durable by then. Its checksum is not kept.
    pub(super) durable: Link,
    /// The batch itself.
    pub(super) link: Link,
    /// The batch before it.
    pub(super) previous: Link,
    /// Number of entries.
    pub(super) count: u32,
    /// Checksum of the table.
    pub(super) table: u32,
}

/// An entry's row in the table of its batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) kind: u8,
    /// Length of the head, below 2^24.
    pub(super) head: u32,
    /// Length of the frame; zero for all but events.
    pub(super) frame: u32,
    pub(super) head_crc: u32,
    pub(super) frame_crc: u32,
}

/// Takes fixed fields off the front of bytes.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    pub(super) fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.bytes::<1>().map(|[byte]| byte)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn link(&mut self) -> Option<Link> {
        Some(Link {
            number: self.u64()?,
            generation: self.u64()?,
            position: Position(self.u64()?),
            stamp: Stamp(self.u64()?),
            checksum: 0,
        })
    }
}

/// Puts fixed fields one behind the other.
struct Writer<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Writer<N> {
    fn new() -> Self {
        Self { bytes: [0; N], at: 0 }
    }

    fn put(&mut self, field: &[u8]) -> &mut Self {
        self.bytes[self.at..self.at + field.len()].copy_from_slice(field);
        self.at += field.len();
        self
    }

    fn u32(&mut self, field: u32) -> &mut Self {
        self.put(&field.to_le_bytes())
    }

    fn u64(&mut self, field: u64) -> &mut Self {
        self.put(&field.to_le_bytes())
    }

    /// All but the checksum, which stands elsewhere in each format.
    fn link(&mut self, link: &Link) -> &mut Self {
        self.u64(link.number).u64(link.generation).u64(link.position.0).u64(link.stamp.0)
    }

    /// Ends with the checksum of what is before it; returns both.
    fn seal(mut self) -> ([u8; N], u32) {
        self.at = N - SEAL;
        let crc = crc32fast::hash(&self.bytes[..N - SEAL]);
        self.u32(crc);
        (self.bytes, crc)
    }
}

/// Whether the last four of these bytes are the checksum of the others; after one flipped bit was put right, the second
/// is true as well.
fn check_seal(bytes: &mut [u8]) -> Option<bool> {
    let (body, seal) = bytes.split_last_chunk_mut::<SEAL>()?;
    let (stored, computed) = (u32::from_le_bytes(*seal), crc32fast::hash(body));
    if stored == computed {
        return Some(false);
    }
    if (stored ^ computed).is_power_of_two() {
        *seal = computed.to_le_bytes();
        return Some(true);
    }
    mend(body, stored).then_some(true)
}

/// Reads a header that begins with magic and version and ends with its checksum.
fn versioned<const N: usize, T>(
    bytes: &[u8; N],
    magic: [u8; 8],
    fields: impl FnOnce(&mut Fields<'_>) -> Option<T>,
) -> Found<T> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Found::Blank;
    }
    let mut bytes = *bytes;
    let Some(is_mended) = check_seal(&mut bytes) else {
        return Found::Bad;
    };
    let mut reader = Fields(&bytes);
    if reader.bytes() != Some(magic) {
        return Found::Bad;
    }
    match (reader.u32(), is_mended) {
        (Some(VERSION), _) => match (fields(&mut reader), is_mended) {
            (Some(value), false) => Found::Whole(value),
            (Some(value), true) => Found::Mended(value),
            (None, _) => Found::Bad,
        },
        (Some(version), _) => Found::Newer(version),
        (None, _) => Found::Bad,
    }
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut out = Writer::new();
        out.put(&SEGMENT_MAGIC).u32(VERSION).u32(self.previous_checksum);
        out.u64(self.epoch).u64(self.sequence).u64(self.first_number);
        out.seal().0
    }

    pub(super) fn decode(bytes: &[u8; SEGMENT_HEADER]) -> Found<Self> {
        versioned(bytes, SEGMENT_MAGIC, |fields| {
            let previous_checksum = fields.u32()?;
            let (epoch, sequence, first_number) = (fields.u64()?, fields.u64()?, fields.u64()?);
            Some(Self { epoch, sequence, first_number, previous_checksum })
        })
    }
}

impl Pointer {
    pub(super) fn encode(&self) -> [u8; POINTER] {
        let mut out = Writer::new();
        out.put(&POINTER_MAGIC).u32(VERSION).u32(self.link.checksum).u64(self.epoch).link(&self.link);
        out.seal().0
    }

    pub(super) fn decode(bytes: &[u8; POINTER]) -> Found<Self> {
        versioned(bytes, POINTER_MAGIC, |fields| {
            let (checksum, epoch) = (fields.u32()?, fields.u64()?);
            Some(Self { epoch, link: Link { checksum, ..fields.link()? } })
        })
    }
}

impl BatchHeader {
    /// Returns the header as bytes, with the checksum that is its link's.
    pub(super) fn encode(&self) -> ([u8; BATCH_HEADER], u32) {
        let mut out = Writer::new();
        out.put(&BATCH_MAGIC).u32(self.length).u64(self.epoch);
        out.link(&self.link).link(&self.previous).link(&self.durable);
        out.u32(self.previous.checksum).u32(self.count).u32(self.table);
        out.seal()
    }

    /// Returns the header of a record of `epoch` that begins with these bytes and is as long as they are at most.
    pub(super) fn decode(bytes: &[u8], epoch: u64) -> Option<Self> {
        let header = bytes.first_chunk::<BATCH_HEADER>()?;
        // Cheap before dear: a search asks at every eighth byte.
        if !header.starts_with(&BATCH_MAGIC) || header[8..16] != epoch.to_le_bytes() {
            return None;
        }
        let (body, seal) = header.split_last_chunk::<SEAL>()?;
        let checksum = crc32fast::hash(body);
        (checksum == u32::from_le_bytes(*seal)).then_some(())?;
        Self::fields(header, checksum).filter(|header| header.is_plausible(bytes.len(), epoch))
    }

    /// The same where one bit of the header may be flipped, which is put right.
    pub(super) fn decode_mended(bytes: &mut [u8], epoch: u64) -> Option<Self> {
        let len = bytes.len();
        let header = bytes.first_chunk_mut::<BATCH_HEADER>()?;
        let mut mended = *header;
        if !check_seal(&mut mended)? || !mended.starts_with(&BATCH_MAGIC) {
            return None;
        }
        let (_, seal) = mended.split_last_chunk::<SEAL>()?;
        let found = Self::fields(&mended, u32::from_le_bytes(*seal))?;
        found.is_plausible(len, epoch).then(|| {
            *header = mended;
            found
        })
    }

    fn fields(header: &[u8; BATCH_HEADER], checksum: u32) -> Option<Self> {
        let mut fields = Fields(header);
        fields.u32()?;
        let (length, epoch) = (fields.u32()?, fields.u64()?);
        let (mut link, mut previous, durable) = (fields.link()?, fields.link()?, fields.link()?);
        link.checksum = checksum;
        previous.checksum = fields.u32()?;
        let (count, table) = (fields.u32()?, fields.u32()?);
        Some(Self { length, epoch, link, previous, durable, count, table })
    }

    fn is_plausible(&self, room: usize, epoch: u64) -> bool {
        let least = u64::from(self.count) * ROW as u64 + (BATCH_HEADER + SEAL) as u64;
        let length = self.length as usize;
        self.epoch == epoch
            && least <= u64::from(self.length)
            && length <= room
            && length.is_multiple_of(ALIGN)
            && self.previous.number < self.link.number
            && self.durable.number <= self.previous.number
    }

    /// Length of header and table.
    pub(super) fn table_end(&self) -> usize {
        BATCH_HEADER + ROW * self.count as usize
    }
}

impl Row {
    pub(super) fn encode(&self) -> [u8; ROW] {
        let kind_and_head = u32::from(self.kind) << 24 | self.head;
        let mut out = [0; ROW];
        out[..4].copy_from_slice(&kind_and_head.to_le_bytes());
        out[4..8].copy_from_slice(&self.frame.to_le_bytes());
        out[8..12].copy_from_slice(&self.head_crc.to_le_bytes());
        out[12..].copy_from_slice(&self.frame_crc.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let kind_and_head = fields.u32()?;
        Some(Self {
            kind: (kind_and_head >> 24) as u8,
            head: kind_and_head & 0x00ff_ffff,
            frame: fields.u32()?,
            head_crc: fields.u32()?,
            frame_crc: fields.u32()?,
        })
    }
}
