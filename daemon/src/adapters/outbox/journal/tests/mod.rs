//! Tests of the journal as a whole, on a disk in memory that lies and on a real one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code outside of #[test] functions.

mod copying;
mod flips;
mod golden;
mod lying;
mod power;
pub(super) mod random;
mod round_trip;
mod running;
mod tailing;
mod torn;

use std::sync::Arc;

use bytes::Bytes;
use quail_core::ports::outbox::{Batch, DeviceRecord, Entry, Note, RecentSend, StoredEvent};
use quail_protocol::id::{AccountId, DeviceId, MessageId, Position, Stamp};

use super::open::{Opened, open_as};
use super::replay::{Replayed, ReplayedBatch};
use super::writer::Journal;
use super::{Disk, JournalError, JournalOptions};
use crate::adapters::outbox::types::Mark;

/// Small segments, so that a few batches fill one.
const SEGMENT: usize = 2048;

fn options() -> JournalOptions {
    JournalOptions { segment_bytes: SEGMENT, spares_max: 2, ..JournalOptions::default() }
}

fn settled(generation: u64) -> Mark {
    Mark { generation, ..Mark::default() }
}

/// Opens a journal under an epoch; returns it with what it replayed.
fn open(
    disk: &Arc<dyn Disk>,
    mark: Mark,
    epoch: u64,
) -> Result<(Journal, Opened, Vec<ReplayedBatch>), JournalError> {
    let mut batches = Vec::new();
    let (journal, opened) = open_as(disk.clone(), &options(), mark, epoch, &mut |batch| batches.push(batch))?;
    Ok((journal, opened, batches))
}

fn account(n: u8) -> AccountId {
    AccountId([n; 16])
}

fn device(n: u8) -> DeviceId {
    DeviceId([n; 16])
}

/// A frame that is like no other.
fn frame(seed: u64, len: usize) -> Bytes {
    let mut random = random::Random::new(seed);
    (0..len).map(|_| random.next() as u8).collect()
}

fn event(position: u64, len: usize) -> Entry {
    let note = match position % 2 {
        0 => Note::Message { sender: account(1), device: device(1), recipient: account(2) },
        _ => Note::Receipt { account: account(3), after: Position(1), upto: Position(position) },
    };
    let event = Arc::new(StoredEvent { position: Position(position), note, frame: frame(position, len) });
    let accounts = (0..=(position % 3) as u8).map(account).collect();
    Entry::Event { event, accounts }
}

/// One of each other kind.
fn others(position: u64) -> Vec<Entry> {
    let (account, device, position) = (account(4), device(5), Position(position));
    let send = RecentSend {
        number: 6,
        id: MessageId([7; 16]),
        digest: [8; 16],
        position,
        stamp: Stamp(position.0 << 16),
    };
    let record = DeviceRecord { cursor: position, acked: Position(9), attach_number: 10 };
    vec![
        Entry::Sent { device, send },
        Entry::Device { account, device, record },
        Entry::DeviceGone { account, device },
        Entry::Resolved { account, upto: position },
        Entry::Withdrawn { account, position },
        Entry::Collapsed { account, upto: position },
    ]
}

/// The batch of these entries, which ends at a position.
fn batch(entries: &[Entry], last: u64) -> Batch<'_> {
    Batch { entries, last_position: Position(last), last_stamp: Stamp(last * 10) }
}

/// Appends one batch and syncs it.
fn commit(journal: &mut Journal, generation: u64, entries: &[Entry], last: u64) {
    journal.append(generation, &batch(entries, last)).unwrap();
    journal.syncer().sync().unwrap();
}

/// What was appended, as it must be replayed.
fn whole(number: u64, generation: u64, entries: &[Entry], last: u64, replayed: &ReplayedBatch) {
    assert_eq!((replayed.number, replayed.generation), (number, generation));
    assert_eq!((replayed.last_position, replayed.last_stamp), (Position(last), Stamp(last * 10)));
    let found: Vec<_> = replayed.entries.iter().collect();
    assert_eq!(found.len(), entries.len(), "batch {number}");
    for (found, entry) in found.iter().zip(entries) {
        assert_eq!(*found, &Replayed::Entry(entry.clone()), "batch {number}");
    }
}
