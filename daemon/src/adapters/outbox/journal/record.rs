//! One record as it was found: what is whole in it, what is not, and what that costs whom.
//!
//! Invariants: bytes whose checksum does not fit are never given out; a frame is never put right; what cannot be told apart
//! is counted as lost, never as there.

use std::sync::Arc;

use quail_core::ports::outbox::{Accounts, Entry, StoredEvent};
use quail_protocol::id::Position;

use super::entries::{EVENT, EventHead, Head, Loss, Record, Stub, frame, head, is_told_again};
use super::format::{BATCH_HEADER, BatchHeader, Link, ROW, Row, SEAL};
use super::mend::{mend, one_bit};

/// Something in a record that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) what: String,
    /// Whether it is one flipped bit, which is what rot does and a torn write does not.
    pub(super) is_one_bit: bool,
    /// Whether nothing is lost by it.
    pub(super) is_mended: bool,
}

/// An entry as it was found.
#[derive(Clone, Debug)]
pub(super) enum Part {
    Whole(Entry),
    /// An event that is damaged, or was when it was copied.
    Lost(Loss),
    /// Damaged, and nothing of it is missing in an outbox: what it took away is there again and taken away again.
    Dropped,
}

/// A record whose header is whole.
pub(super) struct Examined {
    pub(super) header: BatchHeader,
    pub(super) parts: Vec<Part>,
    pub(super) faults: Vec<Fault>,
    /// Where head and frame of each entry lie, if the table is whole.
    rows: Vec<(usize, Row)>,
}

impl Examined {
    /// Whether the record may be one whose write was torn.
    pub(super) fn may_be_torn(&self) -> bool {
        match &*self.faults {
            [] => false,
            [fault] => !fault.is_one_bit,
            _ => true,
        }
    }
}

/// Looks at the record that begins with `bytes` and whose header is `header`; puts right what can be.
pub(super) fn examine(bytes: &mut [u8], header: BatchHeader, is_header_mended: bool) -> Examined {
    let mut faults = Vec::new();
    if is_header_mended {
        faults.push(mended("a flipped bit in the header of the batch"));
    }
    let bytes = bytes.get_mut(..header.length as usize).unwrap_or_default();
    let Some(rows) = table(bytes, &header, &mut faults) else {
        let parts = whole_batch(&header).map(Part::Lost).into_iter().collect();
        return Examined { header, parts, faults, rows: Vec::new() };
    };
    let mut found = Vec::with_capacity(rows.len());
    let mut end = header.table_end();
    for (index, (at, row)) in rows.iter().enumerate() {
        found.push(entry(bytes, index, *at, row, &mut faults));
        end = at + (row.head + row.frame) as usize;
    }
    ending(bytes, end, &header, &mut faults);
    let parts = settle(&header, &rows, found);
    Examined { header, parts, faults, rows }
}

/// What was found of an entry before its neighbours are known.
enum Found {
    Entry(Entry),
    Event(Arc<StoredEvent>, EventHead),
    FrameLost(EventHead),
    Lost(Loss),
    HeadLost,
}

fn mended(what: impl Into<String>) -> Fault {
    Fault { what: what.into(), is_one_bit: true, is_mended: true }
}

/// The whole of a batch as a loss, if it gave positions.
fn whole_batch(header: &BatchHeader) -> Option<Loss> {
    loss(Accounts::new(), header.previous.position, header.link.position)
}

/// A loss of the positions above one up to another, if there are any.
pub(super) fn loss(accounts: Accounts, above: Position, upto: Position) -> Option<Loss> {
    (above < upto).then(|| Loss { accounts, from: above.next(), upto })
}

/// Returns the rows and where their entries begin.
fn table(bytes: &mut [u8], header: &BatchHeader, faults: &mut Vec<Fault>) -> Option<Vec<(usize, Row)>> {
    let table = bytes.get_mut(BATCH_HEADER..header.table_end())?;
    if crc32fast::hash(table) != header.table {
        if !mend(table, header.table) {
            let what = "the table of the batch is damaged".to_owned();
            faults.push(Fault { what, is_one_bit: false, is_mended: false });
            return None;
        }
        faults.push(mended("a flipped bit in the table of the batch"));
    }
    let mut at = header.table_end();
    let mut rows = Vec::with_capacity(header.count as usize);
    for row in table.chunks_exact(ROW) {
        let row = Row::decode(row)?;
        rows.push((at, row));
        at = at.checked_add(row.head as usize)?.checked_add(row.frame as usize)?;
    }
    if at.checked_add(SEAL)? > header.length as usize {
        let what = "the table of the batch does not fit its length".to_owned();
        faults.push(Fault { what, is_one_bit: false, is_mended: false });
        return None;
    }
    Some(rows)
}

fn entry(bytes: &mut [u8], index: usize, at: usize, row: &Row, faults: &mut Vec<Fault>) -> Found {
    let end = at + row.head as usize;
    let head_bytes = bytes.get_mut(at..end).unwrap_or_default();
    if crc32fast::hash(head_bytes) != row.head_crc {
        if mend(head_bytes, row.head_crc) {
            faults.push(mended(format!("a flipped bit in the head of entry {index}")));
        } else {
            let what = format!("the head of entry {index}, of kind {}, is damaged", row.kind);
            faults.push(Fault { what, is_one_bit: false, is_mended: false });
            return Found::HeadLost;
        }
    }
    let event = match head(row.kind, head_bytes) {
        Some(Head::Event(event)) => event,
        Some(Head::Entry(entry)) => return Found::Entry(entry),
        Some(Head::Lost(loss)) => return Found::Lost(loss),
        None => {
            let what = format!("entry {index} is of kind {}, which is not known", row.kind);
            faults.push(Fault { what, is_one_bit: false, is_mended: false });
            return Found::HeadLost;
        }
    };
    let frame_bytes = bytes.get(end..end + row.frame as usize).unwrap_or_default();
    if crc32fast::hash(frame_bytes) != row.frame_crc {
        // A second fault is no single bit in any case, and looking for it is dear.
        let is_one_bit = faults.is_empty() && one_bit(frame_bytes, row.frame_crc).is_some();
        let what = format!("the frame of entry {index}, position {}, is damaged", event.position);
        faults.push(Fault { what, is_one_bit, is_mended: false });
        return Found::FrameLost(event);
    }
    let (position, note) = (event.position, event.note);
    Found::Event(Arc::new(StoredEvent { position, note, frame: frame(frame_bytes) }), event)
}

/// Checks what follows the entries: zeros and the checksum again.
fn ending(bytes: &[u8], end: usize, header: &BatchHeader, faults: &mut Vec<Fault>) {
    let Some((body, seal)) = bytes.split_last_chunk::<SEAL>() else {
        return;
    };
    let padding: u32 = body.get(end..).unwrap_or_default().iter().map(|byte| byte.count_ones()).sum();
    let seal = (u32::from_le_bytes(*seal) ^ header.link.checksum).count_ones();
    for (bits, what) in [(padding, "the padding of the batch"), (seal, "the end of the batch")] {
        if bits > 0 {
            faults.push(Fault {
                what: format!("{bits} flipped bits in {what}"),
                is_one_bit: bits == 1,
                is_mended: true,
            });
        }
    }
}

/// Decides what is lost, now that the positions around a damaged head are known.
fn settle(header: &BatchHeader, rows: &[(usize, Row)], found: Vec<Found>) -> Vec<Part> {
    let positions: Vec<Option<Position>> = found
        .iter()
        .map(|found| match found {
            Found::Event(_, event) | Found::FrameLost(event) => Some(event.position),
            _ => None,
        })
        .collect();
    let mut above = header.previous.position;
    let mut parts = Vec::with_capacity(found.len());
    for (index, (found, (_, row))) in found.into_iter().zip(rows).enumerate() {
        if let Some(Some(position)) = positions.get(index) {
            above = above.max(*position);
        }
        parts.push(match found {
            Found::Entry(entry) => Part::Whole(entry),
            Found::Event(event, head) => Part::Whole(Entry::Event { event, accounts: head.accounts }),
            Found::FrameLost(EventHead { position, accounts, .. }) => {
                Part::Lost(Loss { accounts, from: position, upto: position })
            }
            Found::Lost(loss) => Part::Lost(loss),
            Found::HeadLost if row.kind == EVENT => {
                let next = positions.iter().skip(index).flatten().next();
                let upto = next.map_or(header.link.position, |next| Position(next.0.saturating_sub(1)));
                loss(Accounts::new(), above, upto).map_or(Part::Dropped, Part::Lost)
            }
            Found::HeadLost if is_told_again(row.kind) => Part::Dropped,
            // What was collapsed or lost is gone, and this was all that said so. It may have been anywhere.
            Found::HeadLost => {
                loss(Accounts::new(), Position::ZERO, header.link.position).map_or(Part::Dropped, Part::Lost)
            }
        });
    }
    parts
}

/// Writes a record again under another stub: its entries as they are, losses in the place of what is damaged.
pub(super) fn rewrite(out: &mut Vec<u8>, bytes: &[u8], examined: &Examined, stub: &Stub) -> Link {
    let Examined { parts, rows, .. } = examined;
    let count = parts.iter().filter(|part| !matches!(part, Part::Dropped)).count();
    let mut record = Record::begin(out, count);
    for (index, part) in parts.iter().enumerate() {
        match (part, rows.get(index)) {
            (Part::Whole(_), Some((at, row))) => {
                let end = at + row.head as usize;
                let head = bytes.get(*at..end).unwrap_or_default();
                record.raw(row.kind, head, bytes.get(end..end + row.frame as usize).unwrap_or_default());
            }
            (Part::Whole(entry), None) => record.entry(entry),
            (Part::Lost(loss), _) => record.loss(loss),
            (Part::Dropped, _) => {}
        }
    }
    record.end(stub)
}
