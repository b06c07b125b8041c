//! What a store holds when it is opened.
//!
//! Only small rows are read, never a chunk. The sums over all of them must be those that were written with the mark: sled
//! drops what it cannot read at the end of its log, or in the middle of it, without a word.

use std::collections::BTreeMap;

use quail_core::ports::outbox::{RecentSend, Recovered, Slot};
use quail_protocol::id::{DeviceId, Position};

use super::super::types::Lost;
use super::database::Database;
use super::fault::{Fault, guarded};
use super::format::{self, Row, Settled, Sums};
use super::held::{Held, SendsRow};
use super::walk::{Hole, walk};
use super::{chunk, sends};

/// What was found, and what it stands for.
pub(super) struct Loaded {
    pub held: Held,
    pub recovered: Recovered,
    pub lost: Vec<Lost>,
}

/// How far a store is, and whether its sums can be checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Basis {
    pub settled: Settled,
    /// Whether a spill was cut short after the mark: the sums are of before it then.
    pub is_between: bool,
}

/// Returns how far a store is by its own row `mark` and by the file beside it.
pub(super) fn basis(database: &Database, file: Option<Settled>) -> Result<Basis, Fault> {
    let meta = |key| guarded(|| database.trees.meta.get(key));
    let stored = meta(format::MARK)?.map(|value| format::parse_settled(&value)).transpose()?;
    let spilling = meta(format::SPILLING)?.map(|value| format::parse_spilling(&value)).transpose()?;
    let settled = match (stored, file) {
        // The last sync of a spill was cut short, its rows were not: the spill counts.
        (Some(stored), Some(file)) if stored.mark.generation > file.mark.generation => stored,
        (_, Some(file)) => file,
        (stored, None) => stored.unwrap_or_default(),
    };
    Ok(Basis { settled, is_between: spilling.is_some_and(|spilling| spilling > settled.mark.generation) })
}

/// Reads all rows but the chunks and drops what lies above the mark.
pub(super) fn load(database: &Database, basis: &Basis) -> Result<Loaded, Fault> {
    let settled = basis.settled;
    let mut held = Held { settled: Settled { sums: Sums::default(), ..settled }, ..Held::default() };
    let mut recovered = Recovered {
        last_position: settled.mark.last_position,
        last_stamp: settled.mark.last_stamp,
        ..Recovered::default()
    };
    load_accounts(database, &mut held, &mut recovered)?;
    load_devices(database, &mut held, &mut recovered)?;
    load_sends(database, &mut held, &mut recovered)?;
    load_index(database, &mut held, &mut recovered)?;
    if !basis.is_between && held.settled.sums != settled.sums {
        let (found, expected) = (held.settled.sums, settled.sums);
        return Err(Fault::damaged(format_args!(
            "rows are missing or stale: {}",
            differing(&found, &expected)
        )));
    }
    drop_chunks_from(database, settled.next_number)?;
    let lost = load_lost(database, &mut held)?;
    Ok(Loaded { held, recovered, lost })
}

/// Names the trees whose sums differ.
pub(super) fn differing(found: &Sums, expected: &Sums) -> String {
    let trees = [
        ("index", found.index, expected.index),
        ("devices", found.devices, expected.devices),
        ("sends", found.sends, expected.sends),
        ("accounts", found.accounts, expected.accounts),
    ];
    let differing = trees.iter().filter(|(_, found, expected)| found != expected);
    let texts = differing.map(|(name, found, expected)| {
        format!("{name} has {} rows, {} were written", found.count, expected.count)
    });
    texts.collect::<Vec<_>>().join("; ")
}

/// Whoever opens a store as usual must be able to read all of it.
fn whole(holes: Vec<Hole>) -> Result<(), Fault> {
    match holes.into_iter().next() {
        Some(hole) => Err(Fault::Damaged(hole.what)),
        None => Ok(()),
    }
}

fn load_accounts(database: &Database, held: &mut Held, recovered: &mut Recovered) -> Result<(), Fault> {
    whole(walk(&database.trees.accounts, 16, |key, value| {
        let (account, row) = format::parse_account(key, value)?;
        held.settled.sums.accounts.add(value);
        held.accounts.entry(account).or_default().row = row;
        recovered.collapsed.extend(row.collapsed.map(|upto| (account, upto)));
        Ok(())
    })?)
}

fn load_devices(database: &Database, held: &mut Held, recovered: &mut Recovered) -> Result<(), Fault> {
    whole(walk(&database.trees.devices, 32, |key, value| {
        let (account, device) = format::parse_device_key(key)?;
        recovered.devices.push((account, device, format::parse_device(key, value)?));
        held.settled.sums.devices.add(value);
        Ok(())
    })?)
}

fn load_sends(database: &Database, held: &mut Held, recovered: &mut Recovered) -> Result<(), Fault> {
    let mark = held.settled.mark.generation;
    let mut above = Vec::new();
    let mut window: Vec<(u64, Vec<RecentSend>)> = Vec::new();
    let mut current = None;
    whole(walk(&database.trees.sends, 24, |key, value| {
        let (device, generation) = format::parse_send_key(key)?;
        if generation > mark {
            above.push(key.to_vec());
            return Ok(());
        }
        let parsed = format::parse_sends(key, value)?;
        held.settled.sums.sends.add(value);
        if current != Some(device) {
            finish_window(held, recovered, current, std::mem::take(&mut window));
            current = Some(device);
        }
        window.push((generation, parsed));
        Ok(())
    })?)?;
    finish_window(held, recovered, current, window);
    for key in above {
        database.trees.sends.remove(key)?;
    }
    Ok(())
}

/// Takes in the rows of one device, oldest first.
fn finish_window(
    held: &mut Held,
    recovered: &mut Recovered,
    device: Option<DeviceId>,
    rows: Vec<(u64, Vec<RecentSend>)>,
) {
    let Some(device) = device else { return };
    let mut window = BTreeMap::new();
    let mut known: Vec<SendsRow> = Vec::new();
    for (generation, sends) in rows.into_iter().rev() {
        let before = window.len();
        let count = sends.len();
        for send in sends {
            window.entry(send.number).or_insert(send);
        }
        known.push(SendsRow { generation, count, is_covered: window.len() == before });
    }
    known.reverse();
    held.sends.insert(device, known);
    recovered.sends.extend(sends::newest(window).into_iter().map(|send| (device, send)));
}

fn load_index(database: &Database, held: &mut Held, recovered: &mut Recovered) -> Result<(), Fault> {
    let upto = held.settled.mark.last_position;
    let mut above = Vec::new();
    whole(walk(&database.trees.index, 24, |key, value| {
        let (account, first, row) = format::parse_row(key, value)?;
        if first > upto {
            above.push(key.to_vec());
            return Ok(());
        }
        held.note_row(account, key, value, &row);
        let resolved = held.accounts.get(&account).map_or(Position::ZERO, |state| state.row.resolved);
        let left = row.events.iter().filter(|(position, _)| *position > resolved);
        recovered
            .slots
            .extend(left.map(|(position, bytes)| (account, Slot { position: *position, bytes: *bytes })));
        Ok(())
    })?)?;
    for key in above {
        database.trees.index.remove(key)?;
    }
    Ok(())
}

/// Drops the chunks of a spill that was cut short.
fn drop_chunks_from(database: &Database, number: u64) -> Result<(), Fault> {
    let keys = database.trees.chunks.range(number.to_be_bytes()..).keys();
    let keys: Vec<_> = guarded(|| keys.collect::<Result<_, _>>())?;
    for key in keys {
        guarded(|| database.trees.chunks.remove(key))?;
    }
    Ok(())
}

fn load_lost(database: &Database, held: &mut Held) -> Result<Vec<Lost>, Fault> {
    let Some(value) = guarded(|| database.trees.meta.get(format::LOST))? else { return Ok(Vec::new()) };
    let (_, lost) = format::parse_lost(&value)?;
    held.has_lost = true;
    Ok(lost)
}

/// Reads a chunk.
pub(super) fn chunk(database: &Database, row: &Row) -> Result<Vec<u8>, Fault> {
    if row.pieces == 0 {
        return Err(Fault::damaged("its chunk was lost before"));
    }
    let mut chunk = Vec::new();
    for (at, number) in (0..row.pieces).zip(row.number..) {
        let value = guarded(|| database.trees.chunks.get(number.to_be_bytes()))?;
        let value =
            value.ok_or_else(|| Fault::damaged(format_args!("row {number} of the chunks is missing")))?;
        let (found, bytes) = chunk::parse_piece(&value)?;
        if found != at {
            return Err(Fault::damaged(format_args!(
                "row {number} of the chunks is piece {found}, not {at}"
            )));
        }
        chunk.extend_from_slice(bytes);
    }
    Ok(chunk)
}
