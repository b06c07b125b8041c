//! One spill: what is left of a generation goes into sled.
//!
//! Order within a spill: first it is noted that a generation is being written, then rows are added (a chunk before its index
//! row), then rows are taken away (an index row before its chunk), so that a reader finds the chunk of every index row it
//! sees. Then all is synced, then the mark is written and synced. A spill that ends in between is superseded: its entries
//! are in the journal, and what it added is dropped when the store is opened.

use std::collections::HashSet;
use std::sync::Arc;

use quail_core::ports::outbox::StoredEvent;
use quail_protocol::id::{AccountId, Position};

use super::super::types::{AccountSpill, Spill};
use super::database::Database;
use super::fault::Fault;
use super::format::{self, AccountRow, Row};
use super::held::{Held, put, remove};
use super::marks::MarkFile;
use super::{SpillReport, chunk, load, sends};
use crate::ops::failpoint;

/// A chunk that is about to be written.
struct Planned<'a> {
    account: AccountId,
    events: &'a [Arc<StoredEvent>],
    number: u64,
    pieces: u16,
}

/// Writes a spill up to the mark.
pub(super) fn write(
    database: &Database,
    held: &mut Held,
    file: &MarkFile,
    spill: &Spill,
) -> Result<SpillReport, Fault> {
    let generation = spill.mark.generation;
    database.trees.meta.insert(format::SPILLING, format::spilling(generation))?;
    let mut report = SpillReport::default();
    add_events(database, held, spill, &mut report)?;
    write_devices(database, held, spill)?;
    take_away(database, held, spill, &mut report)?;
    if held.has_lost {
        // What was lost has been told, and the telling is durable: it is in this generation or an earlier one.
        database.trees.meta.remove(format::LOST)?;
        held.has_lost = false;
    }
    held.settled.mark = spill.mark;
    database.trees.meta.insert(format::MARK, format::settled(&held.settled))?;
    failpoint::reached("settled-before-mark");
    database.sync()?;
    file.write(&held.settled)?;
    failpoint::reached("settled-marked");
    Ok(report)
}

fn add_events(
    database: &Database,
    held: &mut Held,
    spill: &Spill,
    report: &mut SpillReport,
) -> Result<(), Fault> {
    let mut accounts: Vec<_> =
        spill.accounts.iter().filter(|(_, changed)| !changed.events.is_empty()).collect();
    // Neighbours in the index lie in one page.
    accounts.sort_unstable_by_key(|(account, _)| *account);
    let events: Vec<_> = accounts.iter().map(|(account, changed)| (*account, left(changed))).collect();
    let mut planned = Vec::new();
    for (account, events) in &events {
        for range in chunk::cut(events) {
            let events = events.get(range).unwrap_or_default();
            let pieces = chunk::piece_count(*account, events);
            let number = held.take_numbers(u64::from(pieces));
            planned.push(Planned { account: *account, events, number, pieces });
        }
    }
    make_room(database, planned.iter().map(|chunk| (chunk.number, chunk.pieces)))?;
    for Planned { account, events, number, pieces } in planned {
        let Some(first) = events.first().map(|event| event.position) else { continue };
        let bytes = chunk::encode(account, events);
        fill(database, number, &bytes)?;
        let events = events.iter().map(|event| (event.position, event.frame.len() as u32)).collect();
        held.put_row(database, account, first, &Row { number, pieces, events })?;
        report.chunks += 1;
        report.bytes += bytes.len() as u64;
        failpoint::reached("settled-chunk-written");
    }
    Ok(())
}

/// Returns the events of a spill that are still there at its end.
fn left(changed: &AccountSpill) -> Vec<Arc<StoredEvent>> {
    let withdrawn: HashSet<Position> = changed.withdrawn.iter().copied().collect();
    let is_left =
        |event: &&Arc<StoredEvent>| event.position > changed.resolved && !withdrawn.contains(&event.position);
    changed.events.iter().filter(is_left).cloned().collect()
}

/// Makes the rows of chunks without their bytes. sled splits a page by writing both halves anew; while the rows are empty
/// that costs nothing, and filling them writes each byte once. Written at once, each byte would be written three times.
pub(super) fn make_room(database: &Database, numbers: impl Iterator<Item = (u64, u16)>) -> Result<(), Fault> {
    for (number, pieces) in numbers {
        for number in number..number.saturating_add(u64::from(pieces)) {
            database.trees.chunks.insert(number.to_be_bytes(), &[][..])?;
        }
    }
    Ok(())
}

/// Writes a chunk into the rows made for it.
pub(super) fn fill(database: &Database, number: u64, chunk: &[u8]) -> Result<(), Fault> {
    for (number, piece) in (number..).zip(chunk::pieces(chunk)) {
        database.trees.chunks.insert(number.to_be_bytes(), piece)?;
    }
    Ok(())
}

fn write_devices(database: &Database, held: &mut Held, spill: &Spill) -> Result<(), Fault> {
    let mut gone = HashSet::new();
    for (account, device, record) in &spill.devices {
        let key = format::device_key(*account, *device);
        let (tree, sum) = (&database.trees.devices, &mut held.settled.sums.devices);
        match record {
            Some(record) => drop(put(tree, sum, &key, &format::device(&key, record))?),
            None => {
                remove(tree, sum, &key)?;
                sends::forget(database, held, *device)?;
                gone.insert(*device);
            }
        }
    }
    for (device, new) in spill.sends.iter().filter(|(device, _)| !gone.contains(device)) {
        sends::add(database, held, *device, spill.mark.generation, new)?;
    }
    Ok(())
}

fn take_away(
    database: &Database,
    held: &mut Held,
    spill: &Spill,
    report: &mut SpillReport,
) -> Result<(), Fault> {
    let mut chunks = Vec::new();
    for (account, changed) in &spill.accounts {
        let state = held.accounts.get(account).copied().unwrap_or_default();
        if state.chunks > 0 {
            for position in changed.withdrawn.iter().filter(|position| **position > changed.resolved) {
                withdraw(database, held, *account, *position, &mut chunks)?;
            }
        }
        let mut row = state.row;
        row.collapsed = row.collapsed.max(changed.collapsed);
        if state.chunks > 0 && changed.resolved > row.resolved {
            row.resolved = resolve(database, held, *account, changed.resolved, &mut chunks, report)?;
        }
        if row != state.row {
            held.put_account(database, *account, row)?;
        }
        held.forget_if_empty(*account);
    }
    held.remove_chunks(database, &mut chunks)?;
    failpoint::reached("settled-deleted");
    Ok(())
}

/// Removes the index rows of chunks that are resolved whole, and returns the position to be remembered: zero if no chunk is
/// left that is resolved in part.
fn resolve(
    database: &Database,
    held: &mut Held,
    account: AccountId,
    upto: Position,
    chunks: &mut Vec<(u64, u16)>,
    report: &mut SpillReport,
) -> Result<Position, Fault> {
    let (first, last) = (format::chunk_key(account, Position::ZERO), format::chunk_key(account, upto));
    let (mut done, mut remembered) = (Vec::new(), Position::ZERO);
    for item in database.trees.index.range(first..=last) {
        let (key, value) = item?;
        let (_, first, row) = format::parse_row(&key, &value)?;
        if row.last(first) <= upto {
            done.push((first, row.number, row.pieces));
        } else {
            remembered = upto;
        }
    }
    if remembered > Position::ZERO {
        // Before the rows go, so that a reader never takes up again what was resolved.
        let collapsed = held.accounts.get(&account).and_then(|state| state.row.collapsed);
        held.put_account(database, account, AccountRow { resolved: remembered, collapsed })?;
    }
    for (first, number, pieces) in done {
        held.remove_row(database, account, first)?;
        chunks.push((number, pieces));
        report.deleted += 1;
    }
    Ok(remembered)
}

/// Takes one event out of its chunk: out of the index first, which is what readers go by.
fn withdraw(
    database: &Database,
    held: &mut Held,
    account: AccountId,
    position: Position,
    chunks: &mut Vec<(u64, u16)>,
) -> Result<(), Fault> {
    let (first, last) = (format::chunk_key(account, Position::ZERO), format::chunk_key(account, position));
    let Some(item) = database.trees.index.range(first..=last).next_back() else { return Ok(()) };
    let (key, value) = item?;
    let (_, first, mut row) = format::parse_row(&key, &value)?;
    let before = row.events.len();
    row.events.retain(|(stored, _)| *stored != position);
    if row.events.len() == before {
        return Ok(());
    }
    if row.events.is_empty() {
        held.remove_row(database, account, first)?;
        chunks.push((row.number, row.pieces));
        return Ok(());
    }
    held.put_row(database, account, first, &row)?;
    // A chunk that cannot be read is lost whether or not this event is in it.
    let Ok(bytes) = load::chunk(database, &row) else { return Ok(()) };
    let Ok(head) = chunk::parse_head(&bytes) else { return Ok(()) };
    fill(database, row.number, &chunk::without(&bytes, &head, position))
}
