//! The windows of accepted sends: a row per device and generation that brought some.
//!
//! A device that sends little in each of many generations would have hundreds of rows; they are merged into one now and then.
//! What was merged may go only when the merged row is at or below the mark: until then a crash would drop the merged row, and
//! the journal has only the sends of its own generation.

use std::collections::BTreeMap;

use quail_core::ports::outbox::RecentSend;
use quail_protocol::id::DeviceId;
use quail_protocol::limits::SENDS_UNANSWERED_MAX;

use super::database::Database;
use super::fault::Fault;
use super::format;
use super::held::{Held, remove};

/// Most rows of a device before they are merged into one.
const ROWS_MAX: usize = 16;

/// Adds the sends of a generation to a device's window.
pub(super) fn add(
    database: &Database,
    held: &mut Held,
    device: DeviceId,
    generation: u64,
    new: &[RecentSend],
) -> Result<(), Fault> {
    if new.is_empty() {
        return Ok(());
    }
    let rows = held.sends.get(&device).cloned().unwrap_or_default();
    for row in rows.iter().filter(|row| row.is_covered) {
        drop_row(database, held, device, row.generation)?;
    }
    let kept: Vec<_> = rows.into_iter().filter(|row| !row.is_covered).collect();
    if kept.len() >= ROWS_MAX {
        let mut merged = BTreeMap::new();
        for row in &kept {
            let key = format::send_key(device, row.generation);
            if let Some(value) = database.trees.sends.get(key)? {
                merged.extend(format::parse_sends(&key, &value)?.into_iter().map(|send| (send.number, send)));
            }
        }
        merged.extend(new.iter().map(|send| (send.number, *send)));
        held.put_sends(database, device, generation, &newest(merged))?;
        for row in held.sends.get_mut(&device).into_iter().flatten() {
            row.is_covered = row.generation != generation;
        }
        return Ok(());
    }
    held.put_sends(database, device, generation, new)?;
    // Oldest first: a row goes once those after it fill the window. They are at or below the mark or in the journal.
    let mut after: usize = kept.iter().map(|row| row.count).sum::<usize>() + new.len();
    for row in kept {
        after -= row.count;
        if after < SENDS_UNANSWERED_MAX {
            break;
        }
        drop_row(database, held, device, row.generation)?;
    }
    Ok(())
}

/// Drops the window of a device that is gone.
pub(super) fn forget(database: &Database, held: &mut Held, device: DeviceId) -> Result<(), Fault> {
    for row in held.sends.remove(&device).unwrap_or_default() {
        drop_row(database, held, device, row.generation)?;
    }
    Ok(())
}

fn drop_row(database: &Database, held: &mut Held, device: DeviceId, generation: u64) -> Result<(), Fault> {
    let key = format::send_key(device, generation);
    remove(&database.trees.sends, &mut held.settled.sums.sends, &key)?;
    if let Some(rows) = held.sends.get_mut(&device) {
        rows.retain(|row| row.generation != generation);
    }
    Ok(())
}

/// Returns the newest sends of a window, numbers rising.
pub(super) fn newest(mut window: BTreeMap<u64, RecentSend>) -> Vec<RecentSend> {
    while window.len() > SENDS_UNANSWERED_MAX {
        window.pop_first();
    }
    window.into_values().collect()
}
