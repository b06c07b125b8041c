//! Chunks: some events of one account, in one value.
//!
//! ```text
//! version 1 | head: account, first position, per event (position delta, frame length) | CRC32 of the head
//!           | per event: CRC32 4 | note 49 | frame
//! ```
//!
//! The head says what the index says, so that a lost index can be built again. An event's CRC32 covers account, position,
//! note and frame, so that a flipped bit costs that event alone. The note has a fixed length, for the same reason: no
//! length that decides where the next event begins stands outside of the head. In the tree `chunks` a chunk lies as one or
//! more rows of consecutive numbers, `version 1 | piece 2 | bytes`, none longer than [`PIECE_BYTES`].

use std::ops::Range;
use std::sync::Arc;

use bincode::{Decode, Encode};
use bytes::Bytes;
use quail_core::ports::outbox::{Note, StoredEvent};
use quail_protocol::id::{AccountId, DeviceId, Position};

use super::fault::Fault;
use super::format::{Row, VERSION};

/// Most events of a chunk.
pub(super) const CHUNK_EVENTS_MAX: usize = 128;

/// Most bytes of the events of a chunk; one larger event makes a chunk of its own. A few hundred less than a piece, so that
/// all but those fit into one.
pub(super) const CHUNK_BYTES_MAX: usize = PIECE_BYTES - 1024;

/// Most bytes of a row in the tree `chunks`. sled keeps up to 17 rows in a page, a few more while pages merge, and a page
/// above a quarter of its segment would become a file of its own that is never synced.
pub(super) const PIECE_BYTES: usize = 16 * 1024;

/// Length of an encoded note.
const NOTE_BYTES: usize = 49;

/// What an event takes beside its frame.
const EVENT_OVERHEAD: usize = 4 + NOTE_BYTES;

/// What a row of the tree `chunks` has before its bytes.
const PIECE_HEAD_BYTES: usize = 3;

/// Longest head that is decoded, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

#[derive(Encode, Decode)]
struct HeadV1 {
    account: [u8; 16],
    first: u64,
    events: Vec<(u64, u32)>,
}

/// What a chunk says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub account: AccountId,
    pub first: Position,
    /// Position and frame length of each event.
    pub events: Vec<(Position, u32)>,
    /// Where the first event begins.
    begin: usize,
}

impl Head {
    /// Returns in how many rows the chunk lies.
    pub(super) fn pieces(&self) -> usize {
        let events: usize = self.events.iter().map(|(_, bytes)| EVENT_OVERHEAD + *bytes as usize).sum();
        (self.begin + events).div_ceil(PIECE_BYTES)
    }
}

/// Returns what the events of a row take in the tree `chunks`, in bytes.
pub(super) fn stored_bytes(row: &Row) -> u64 {
    row.events.iter().map(|(_, bytes)| (EVENT_OVERHEAD as u64) + u64::from(*bytes)).sum()
}

/// Cuts events into chunks.
pub(super) fn cut(events: &[Arc<StoredEvent>]) -> Vec<Range<usize>> {
    let (mut cuts, mut begin, mut bytes) = (Vec::new(), 0, 0);
    for (at, event) in events.iter().enumerate() {
        let size = EVENT_OVERHEAD + event.frame.len();
        if at > begin && (at - begin >= CHUNK_EVENTS_MAX || bytes + size > CHUNK_BYTES_MAX) {
            cuts.push(begin..at);
            (begin, bytes) = (at, 0);
        }
        bytes += size;
    }
    if begin < events.len() {
        cuts.push(begin..events.len());
    }
    cuts
}

/// Encodes events, at least one, as a chunk.
pub(super) fn encode(account: AccountId, events: &[Arc<StoredEvent>]) -> Vec<u8> {
    let first = events.first().map_or(Position::ZERO, |event| event.position);
    let directory: Vec<_> = events.iter().map(|event| (event.position, event.frame.len() as u32)).collect();
    let mut bytes = head(account, first, &directory);
    bytes.reserve_exact(events.iter().map(|event| EVENT_OVERHEAD + event.frame.len()).sum());
    for event in events {
        let note = encode_note(&event.note);
        bytes.extend_from_slice(&event_crc(account, event.position, &note, &event.frame).to_le_bytes());
        bytes.extend_from_slice(&note);
        bytes.extend_from_slice(&event.frame);
    }
    bytes
}

/// Returns in how many rows the chunk of these events will lie.
pub(super) fn piece_count(account: AccountId, events: &[Arc<StoredEvent>]) -> u16 {
    let first = events.first().map_or(Position::ZERO, |event| event.position);
    let directory: Vec<_> = events.iter().map(|event| (event.position, event.frame.len() as u32)).collect();
    let bytes: usize = events.iter().map(|event| EVENT_OVERHEAD + event.frame.len()).sum();
    (head(account, first, &directory).len() + bytes).div_ceil(PIECE_BYTES) as u16
}

/// Returns a chunk without one of its events; the other events' bytes are taken as they are.
pub(super) fn without(chunk: &[u8], head: &Head, gone: Position) -> Vec<u8> {
    let kept: Vec<_> = head.events.iter().copied().filter(|(position, _)| *position != gone).collect();
    let mut bytes = self::head(head.account, head.first, &kept);
    for (position, range) in ranges(head.begin, &head.events) {
        if position != gone {
            bytes.extend_from_slice(chunk.get(range).unwrap_or_default());
        }
    }
    bytes
}

fn head(account: AccountId, first: Position, directory: &[(Position, u32)]) -> Vec<u8> {
    let mut before = first.0;
    let events = directory.iter().map(|(position, bytes)| {
        let delta = position.0.saturating_sub(before);
        before = position.0;
        (delta, *bytes)
    });
    let head = HeadV1 { account: account.0, first: first.0, events: events.collect() };
    let mut bytes = Vec::with_capacity(64 + directory.len() * 6);
    bytes.push(VERSION);
    // Writing to a Vec cannot fail.
    let written = bincode::encode_into_std_write(head, &mut bytes, bincode::config::standard());
    debug_assert!(written.is_ok());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// Decodes what a chunk says of itself. The events may lie in later pieces.
pub(super) fn parse_head(chunk: &[u8]) -> Result<Head, Fault> {
    match chunk.split_first() {
        Some((&VERSION, rest)) => {
            let limit = bincode::config::standard().with_limit::<HEAD_BYTES_MAX>();
            let (decoded, len): (HeadV1, usize) = bincode::decode_from_slice(rest, limit)
                .map_err(|error| Fault::damaged(format_args!("head of a chunk: {error}")))?;
            let crc = chunk.get(1 + len..).and_then(|rest| rest.first_chunk::<4>());
            let expected = chunk.get(..1 + len).map(crc32fast::hash);
            if crc.is_none() || crc.map(|crc| u32::from_le_bytes(*crc)) != expected {
                return Err(Fault::damaged("head of a chunk: wrong checksum"));
            }
            let mut position = decoded.first;
            let events = decoded.events.into_iter().map(|(delta, bytes)| {
                position = position.saturating_add(delta);
                (Position(position), bytes)
            });
            Ok(Head {
                account: AccountId(decoded.account),
                first: Position(decoded.first),
                events: events.collect(),
                begin: 1 + len + 4,
            })
        }
        Some((version, _)) => Err(Fault::Newer(format!("chunk of version {version}"))),
        None => Err(Fault::damaged("an empty chunk")),
    }
}

/// What became of an event that the index names.
pub(super) type Taken = Result<Arc<StoredEvent>, String>;

/// Takes from a chunk the events of its index row that `wanted` asks for, in order. An event that is not as it was written
/// comes back as what was found.
pub(super) fn take(
    account: AccountId,
    row: &Row,
    chunk: &[u8],
    mut wanted: impl FnMut(Position) -> bool,
) -> Vec<(Position, Taken)> {
    // The head knows where the events begin even while one is being taken out. Without it the index does, from the end.
    let (begin, directory) = match parse_head(chunk) {
        Ok(head) if head.account == account => (head.begin, head.events),
        _ => {
            let events = usize::try_from(stored_bytes(row)).unwrap_or(usize::MAX);
            (chunk.len().saturating_sub(events), row.events.clone())
        }
    };
    let mut stored = ranges(begin, &directory).peekable();
    let mut taken = Vec::new();
    for (position, _) in row.events.iter().filter(|(position, _)| wanted(*position)) {
        while stored.next_if(|(stored, _)| stored < position).is_some() {}
        let event = match stored.next_if(|(stored, _)| stored == position) {
            Some((_, range)) => decode(account, *position, chunk.get(range).unwrap_or_default()),
            None => Err("its chunk does not have it".to_owned()),
        };
        taken.push((*position, event));
    }
    taken
}

fn ranges(
    begin: usize,
    directory: &[(Position, u32)],
) -> impl Iterator<Item = (Position, Range<usize>)> + use<'_> {
    let mut at = begin;
    directory.iter().map(move |(position, bytes)| {
        let begin = at;
        at = begin.saturating_add(EVENT_OVERHEAD).saturating_add(*bytes as usize);
        (*position, begin..at)
    })
}

fn decode(account: AccountId, position: Position, bytes: &[u8]) -> Taken {
    let parts = bytes.split_first_chunk::<4>().and_then(|(crc, rest)| {
        let (note, frame) = rest.split_first_chunk::<NOTE_BYTES>()?;
        Some((u32::from_le_bytes(*crc), note, frame))
    });
    let Some((crc, note, frame)) = parts else {
        return Err("its chunk ends before it".to_owned());
    };
    if event_crc(account, position, note, frame) != crc {
        return Err("wrong checksum".to_owned());
    }
    let note = decode_note(note).ok_or("a note no quaild of this version wrote")?;
    Ok(Arc::new(StoredEvent { position, note, frame: Bytes::copy_from_slice(frame) }))
}

fn event_crc(account: AccountId, position: Position, note: &[u8], frame: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(account.as_bytes());
    hasher.update(&position.0.to_be_bytes());
    hasher.update(note);
    hasher.update(frame);
    hasher.finalize()
}

fn encode_note(note: &Note) -> [u8; NOTE_BYTES] {
    let mut bytes = [0; NOTE_BYTES];
    match note {
        Note::Message { sender, device, recipient } => {
            bytes[0] = 1;
            bytes[1..17].copy_from_slice(sender.as_bytes());
            bytes[17..33].copy_from_slice(device.as_bytes());
            bytes[33..].copy_from_slice(recipient.as_bytes());
        }
        Note::Receipt { account, after, upto } => {
            bytes[0] = 2;
            bytes[1..17].copy_from_slice(account.as_bytes());
            bytes[17..25].copy_from_slice(&after.0.to_be_bytes());
            bytes[25..33].copy_from_slice(&upto.0.to_be_bytes());
        }
        Note::Lost { from } => {
            bytes[0] = 3;
            bytes[17..25].copy_from_slice(&from.0.to_be_bytes());
        }
    }
    bytes
}

fn decode_note(bytes: &[u8; NOTE_BYTES]) -> Option<Note> {
    let (kind, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first_chunk::<16>()?;
    let (second, third) = rest.split_first_chunk::<16>()?;
    match kind {
        1 => Some(Note::Message {
            sender: AccountId(*first),
            device: DeviceId(*second),
            recipient: AccountId::try_from(third).ok()?,
        }),
        2 => {
            let (after, upto) = second.split_first_chunk::<8>()?;
            Some(Note::Receipt {
                account: AccountId(*first),
                after: Position(u64::from_be_bytes(*after)),
                upto: Position(u64::from_be_bytes(upto.try_into().ok()?)),
            })
        }
        3 => {
            let (from, _) = second.split_first_chunk::<8>()?;
            Some(Note::Lost { from: Position(u64::from_be_bytes(*from)) })
        }
        _ => None,
    }
}

/// Returns a chunk as the rows it lies in.
pub(super) fn pieces(chunk: &[u8]) -> impl Iterator<Item = Vec<u8>> + use<'_> {
    chunk.chunks(PIECE_BYTES).enumerate().map(|(at, part)| {
        let mut piece = Vec::with_capacity(PIECE_HEAD_BYTES + part.len());
        piece.push(VERSION);
        piece.extend_from_slice(&(at as u16).to_le_bytes());
        piece.extend_from_slice(part);
        piece
    })
}

/// Returns the number of a piece within its chunk and its bytes. A row that was made and never filled has none.
pub(super) fn parse_piece(value: &[u8]) -> Result<(u16, &[u8]), Fault> {
    let (&version, rest) =
        value.split_first().ok_or_else(|| Fault::damaged("a chunk that was not written"))?;
    if version != VERSION {
        return Err(Fault::Newer(format!("piece of a chunk of version {version}")));
    }
    let (at, bytes) =
        rest.split_first_chunk::<2>().ok_or_else(|| Fault::damaged("a piece of a chunk too short"))?;
    Ok((u16::from_le_bytes(*at), bytes))
}

/// Puts a chunk together from the rows it lies in.
pub(super) fn assemble<V: AsRef<[u8]>>(
    row: &Row,
    get: impl Fn(u64) -> Result<Option<V>, Fault>,
) -> Result<Vec<u8>, Fault> {
    if row.pieces == 0 {
        return Err(Fault::damaged("its chunk was lost before"));
    }
    let mut chunk = Vec::new();
    for (at, number) in (0..row.pieces).zip(row.number..) {
        let missing = || Fault::damaged(format_args!("row {number} of the chunks is missing"));
        let value = get(number)?.ok_or_else(missing)?;
        let (found, bytes) = parse_piece(value.as_ref())?;
        if found != at {
            return Err(Fault::damaged(format_args!(
                "row {number} of the chunks is piece {found}, not {at}"
            )));
        }
        chunk.extend_from_slice(bytes);
    }
    Ok(chunk)
}
