//! Entries as bytes, and the records that hold them: writing one batch in one pass, and the fields of each kind.
//!
//! Why the lengths stand in a table before the entries: a flip inside of an entry then never hides where the next begins.
//! Why head and frame of an event have a checksum each: who loses the event when its frame is damaged is still known.
//!
//! Invariants: a kind's bytes never change, a new layout is a new kind; a head is decoded only to its last byte.

use bytes::Bytes;
use quail_core::ports::outbox::{Accounts, DeviceRecord, Entry, Note, RecentSend};
use quail_protocol::id::{AccountId, DeviceId, MessageId, Position, Stamp};

use super::format::{ALIGN, BATCH_HEADER, BatchHeader, Fields, Link, ROW, Row, SEAL};

/// An event: its head, and its frame as it is.
pub(super) const EVENT: u8 = 1;
const SENT: u8 = 2;
const DEVICE: u8 = 3;
const DEVICE_GONE: u8 = 4;
const RESOLVED: u8 = 5;
const WITHDRAWN: u8 = 6;
const COLLAPSED: u8 = 7;
/// In the place of an event that was found damaged.
const LOST: u8 = 8;

const MESSAGE: u8 = 1;
const RECEIPT: u8 = 2;
const LOST_NOTE: u8 = 3;

/// Head of an event before its accounts: position, kind of note, note. A receipt's note is filled up with zeros.
const EVENT_HEAD: usize = 8 + 1 + 48;
/// Head of a loss before its accounts.
const LOST_HEAD: usize = 16;

/// What is known of a damaged event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Loss {
    /// Whose outbox; none: everybody's.
    pub(super) accounts: Accounts,
    /// First position that may be missing.
    pub(super) from: Position,
    /// Last position that may be missing.
    pub(super) upto: Position,
}

/// An event's head, decoded.
pub(super) struct EventHead {
    pub(super) position: Position,
    pub(super) note: Note,
    pub(super) accounts: Accounts,
}

/// What a head that is whole says.
pub(super) enum Head {
    Event(EventHead),
    Entry(Entry),
    Lost(Loss),
}

/// What a record says of itself, apart from its entries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stub {
    pub(super) epoch: u64,
    /// Its checksum is computed.
    pub(super) link: Link,
    pub(super) previous: Link,
    /// See [`BatchHeader::durable`].
    pub(super) durable: Link,
}

/// Returns the length of the record of these entries.
pub(super) fn record_len(entries: &[Entry]) -> usize {
    let parts = entries.iter().map(|entry| match entry {
        Entry::Event { event, accounts } => EVENT_HEAD + 16 * accounts.len() + event.frame.len(),
        Entry::Sent { .. } => 72,
        Entry::Device { .. } => 56,
        Entry::DeviceGone { .. } => 32,
        Entry::Resolved { .. } | Entry::Withdrawn { .. } | Entry::Collapsed { .. } => 24,
    });
    (BATCH_HEADER + ROW * entries.len() + parts.sum::<usize>() + SEAL).next_multiple_of(ALIGN)
}

/// Appends the record of a batch to `out`, which it must begin at a multiple of [`ALIGN`] in its segment. Returns where the
/// chain stands after it.
#[cfg(test)]
pub(super) fn put_batch(out: &mut Vec<u8>, stub: &Stub, entries: &[Entry]) -> Link {
    let mut record = Record::begin(out, entries.len());
    for entry in entries {
        record.entry(entry);
    }
    record.end(stub)
}

/// A record being written.
pub(super) struct Record<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    rows: usize,
    table_end: usize,
}

impl<'a> Record<'a> {
    /// Begins a record of so many entries.
    pub(super) fn begin(out: &'a mut Vec<u8>, count: usize) -> Self {
        let start = out.len();
        let table_end = start + BATCH_HEADER + ROW * count;
        out.resize(table_end, 0);
        Self { out, start, rows: 0, table_end }
    }

    /// Puts an entry behind the ones before.
    pub(super) fn entry(&mut self, entry: &Entry) {
        let head = self.out.len();
        let kind = put_head(self.out, entry);
        let frame = match entry {
            Entry::Event { event, .. } => &*event.frame,
            _ => &[],
        };
        self.row(kind, head, frame);
    }

    /// Puts an entry that was encoded before.
    pub(super) fn raw(&mut self, kind: u8, head: &[u8], frame: &[u8]) {
        let start = self.out.len();
        self.out.extend_from_slice(head);
        self.row(kind, start, frame);
    }

    /// Puts a loss.
    pub(super) fn loss(&mut self, loss: &Loss) {
        let head = self.out.len();
        self.out.extend_from_slice(&loss.from.0.to_le_bytes());
        self.out.extend_from_slice(&loss.upto.0.to_le_bytes());
        put_accounts(self.out, &loss.accounts);
        self.row(LOST, head, &[]);
    }

    fn row(&mut self, kind: u8, head: usize, frame: &[u8]) {
        let head = &self.out[head..];
        let row = Row {
            kind,
            head: head.len() as u32,
            frame: frame.len() as u32,
            head_crc: crc32fast::hash(head),
            // Most entries have no frame, and nothing has the checksum 0.
            frame_crc: if frame.is_empty() { 0 } else { crc32fast::hash(frame) },
        };
        self.out.extend_from_slice(frame);
        let at = self.start + BATCH_HEADER + ROW * self.rows;
        debug_assert!(at < self.table_end);
        self.out[at..at + ROW].copy_from_slice(&row.encode());
        self.rows += 1;
    }

    /// Ends the record; returns where the chain stands after it.
    pub(super) fn end(self, stub: &Stub) -> Link {
        let Self { out, start, rows, table_end } = self;
        debug_assert_eq!(start + BATCH_HEADER + ROW * rows, table_end);
        let length = (out.len() + SEAL - start).next_multiple_of(ALIGN);
        out.resize(start + length - SEAL, 0);
        let header = BatchHeader {
            length: length as u32,
            epoch: stub.epoch,
            link: stub.link,
            previous: stub.previous,
            durable: stub.durable,
            count: rows as u32,
            table: crc32fast::hash(&out[start + BATCH_HEADER..table_end]),
        };
        let (bytes, checksum) = header.encode();
        out[start..start + BATCH_HEADER].copy_from_slice(&bytes);
        out.extend_from_slice(&checksum.to_le_bytes());
        Link { checksum, ..stub.link }
    }
}

fn put_accounts(out: &mut Vec<u8>, accounts: &[AccountId]) {
    for account in accounts {
        out.extend_from_slice(&account.0);
    }
}

/// Appends an entry without its frame; returns its kind.
fn put_head(out: &mut Vec<u8>, entry: &Entry) -> u8 {
    match entry {
        Entry::Event { event, accounts } => {
            out.extend_from_slice(&event.position.0.to_le_bytes());
            put_note(out, &event.note);
            put_accounts(out, accounts);
            EVENT
        }
        Entry::Sent { device, send } => {
            out.extend_from_slice(&device.0);
            out.extend_from_slice(&send.number.to_le_bytes());
            out.extend_from_slice(&send.id.0);
            out.extend_from_slice(&send.digest);
            out.extend_from_slice(&send.position.0.to_le_bytes());
            out.extend_from_slice(&send.stamp.0.to_le_bytes());
            SENT
        }
        Entry::Device { account, device, record } => {
            out.extend_from_slice(&account.0);
            out.extend_from_slice(&device.0);
            for field in [record.cursor.0, record.acked.0, record.attach_number] {
                out.extend_from_slice(&field.to_le_bytes());
            }
            DEVICE
        }
        Entry::DeviceGone { account, device } => {
            out.extend_from_slice(&account.0);
            out.extend_from_slice(&device.0);
            DEVICE_GONE
        }
        Entry::Resolved { account, upto } => put_position(out, *account, *upto, RESOLVED),
        Entry::Withdrawn { account, position } => put_position(out, *account, *position, WITHDRAWN),
        Entry::Collapsed { account, upto } => put_position(out, *account, *upto, COLLAPSED),
    }
}

fn put_position(out: &mut Vec<u8>, account: AccountId, position: Position, kind: u8) -> u8 {
    out.extend_from_slice(&account.0);
    out.extend_from_slice(&position.0.to_le_bytes());
    kind
}

/// Both notes take the same room, so that the accounts stand at one place.
fn put_note(out: &mut Vec<u8>, note: &Note) {
    let mut bytes = [0; 1 + 48];
    match note {
        Note::Message { sender, device, recipient } => {
            bytes[0] = MESSAGE;
            bytes[1..17].copy_from_slice(&sender.0);
            bytes[17..33].copy_from_slice(&device.0);
            bytes[33..].copy_from_slice(&recipient.0);
        }
        Note::Receipt { account, after, upto } => {
            bytes[0] = RECEIPT;
            bytes[1..17].copy_from_slice(&account.0);
            bytes[17..25].copy_from_slice(&after.0.to_le_bytes());
            bytes[25..33].copy_from_slice(&upto.0.to_le_bytes());
        }
        Note::Lost { from } => {
            bytes[0] = LOST_NOTE;
            bytes[1..9].copy_from_slice(&from.0.to_le_bytes());
        }
    }
    out.extend_from_slice(&bytes);
}

/// Whether an entry of this kind may be lost without an event missing unnoticed: its cause is still there and brings it
/// about again, or a device that was forgotten tells it anew.
pub(super) fn is_told_again(kind: u8) -> bool {
    matches!(kind, SENT | DEVICE | DEVICE_GONE | RESOLVED | WITHDRAWN)
}

/// Returns what a head says; `None` if it is of no kind that is known or not as long as its kind.
pub(super) fn head(kind: u8, bytes: &[u8]) -> Option<Head> {
    let mut fields = Fields(bytes);
    if kind == EVENT {
        return event_head(bytes).map(Head::Event);
    }
    if kind == LOST {
        let (from, upto) = (Position(fields.u64()?), Position(fields.u64()?));
        return Some(Head::Lost(Loss { accounts: accounts(bytes.get(LOST_HEAD..)?)?, from, upto }));
    }
    let entry = match kind {
        SENT => sent(&mut fields)?,
        DEVICE => {
            let (account, device) = (AccountId(fields.bytes()?), DeviceId(fields.bytes()?));
            let (cursor, acked) = (Position(fields.u64()?), Position(fields.u64()?));
            Entry::Device {
                account,
                device,
                record: DeviceRecord { cursor, acked, attach_number: fields.u64()? },
            }
        }
        DEVICE_GONE => {
            Entry::DeviceGone { account: AccountId(fields.bytes()?), device: DeviceId(fields.bytes()?) }
        }
        RESOLVED | WITHDRAWN | COLLAPSED => {
            let (account, position) = (AccountId(fields.bytes()?), Position(fields.u64()?));
            match kind {
                RESOLVED => Entry::Resolved { account, upto: position },
                WITHDRAWN => Entry::Withdrawn { account, position },
                _ => Entry::Collapsed { account, upto: position },
            }
        }
        _ => return None,
    };
    fields.0.is_empty().then_some(Head::Entry(entry))
}

fn sent(fields: &mut Fields<'_>) -> Option<Entry> {
    let device = DeviceId(fields.bytes()?);
    let send = RecentSend {
        number: fields.u64()?,
        id: MessageId(fields.bytes()?),
        digest: fields.bytes()?,
        position: Position(fields.u64()?),
        stamp: Stamp(fields.u64()?),
    };
    Some(Entry::Sent { device, send })
}

fn event_head(bytes: &[u8]) -> Option<EventHead> {
    let (fixed, rest) = bytes.split_at_checked(EVENT_HEAD)?;
    let mut fields = Fields(fixed);
    let position = Position(fields.u64()?);
    let note = match fields.u8()? {
        MESSAGE => Note::Message {
            sender: AccountId(fields.bytes()?),
            device: DeviceId(fields.bytes()?),
            recipient: AccountId(fields.bytes()?),
        },
        RECEIPT => Note::Receipt {
            account: AccountId(fields.bytes()?),
            after: Position(fields.u64()?),
            upto: Position(fields.u64()?),
        },
        LOST_NOTE => Note::Lost { from: Position(fields.u64()?) },
        _ => return None,
    };
    Some(EventHead { position, note, accounts: accounts(rest)? })
}

fn accounts(bytes: &[u8]) -> Option<Accounts> {
    let (chunks, rest) = bytes.as_chunks::<16>();
    rest.is_empty().then(|| chunks.iter().copied().map(AccountId).collect())
}

/// Copies a frame, so that an event that stays long does not keep a whole segment in memory.
pub(super) fn frame(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
