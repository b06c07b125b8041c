//! What a database holds when it is opened. Bodies are not read: only the index is.

use std::collections::HashMap;

use quail_core::ports::outbox::{RecentSend, Recovered, Slot, StoreError};
use quail_protocol::id::{AccountId, DeviceId, Position};
use quail_protocol::limits::SENDS_UNANSWERED_MAX;

use super::super::types::{Lost, Mark};
use super::{SettledRecovered, Trees, format, io};

/// What was found, and what the store keeps of it in memory.
#[derive(Default)]
pub(super) struct Found {
    pub(super) recovered: SettledRecovered,
    pub(super) chunks: HashMap<AccountId, u32>,
    pub(super) sends: HashMap<DeviceId, Vec<(u64, usize)>>,
    pub(super) live_bytes: u64,
}

/// Reads everything but the chunks and drops what lies above the mark.
pub(super) fn recover(trees: &Trees) -> Result<Found, StoreError> {
    let mut found = Found::default();
    let mark = match trees.meta.get(format::MARK).map_err(|error| io("read", error))? {
        Some(value) => format::parse_mark(&value)?,
        None => Mark::default(),
    };
    found.recovered.mark = mark;
    let mut recovered =
        Recovered { last_position: mark.last_position, last_stamp: mark.last_stamp, ..Recovered::default() };
    let resolved = accounts(trees, &mut recovered)?;
    events(trees, mark, &resolved, &mut recovered, &mut found)?;
    for item in &trees.devices {
        let (key, value) = item.map_err(|error| io("read", error))?;
        let (account, device) = format::parse_device_key(&key)?;
        recovered.devices.push((account, device, format::parse_device(&value)?));
    }
    sends(trees, mark, &mut recovered, &mut found)?;
    found.recovered.recovered = recovered;
    Ok(found)
}

fn accounts(trees: &Trees, recovered: &mut Recovered) -> Result<HashMap<AccountId, Position>, StoreError> {
    let mut resolved = HashMap::new();
    for item in &trees.accounts {
        let (key, value) = item.map_err(|error| io("read", error))?;
        let account = AccountId::try_from(&*key).map_err(|error| format::damaged("account key", error))?;
        let row = format::parse_account(&value)?;
        if row.resolved > Position::ZERO {
            resolved.insert(account, row.resolved);
        }
        if row.collapsed > Position::ZERO {
            recovered.collapsed.push((account, row.collapsed));
        }
    }
    Ok(resolved)
}

fn events(
    trees: &Trees,
    mark: Mark,
    resolved: &HashMap<AccountId, Position>,
    recovered: &mut Recovered,
    found: &mut Found,
) -> Result<(), StoreError> {
    for item in &trees.index {
        let (key, value) = item.map_err(|error| io("read", error))?;
        let (account, first) = format::parse_key(&key)?;
        let account = AccountId(account);
        if Position(first) > mark.last_position {
            drop_chunk(trees, &key)?;
            continue;
        }
        *found.chunks.entry(account).or_default() += 1;
        let row = match format::parse_index(&value) {
            Ok(row) => row,
            Err(error) => {
                // How long the chunk is stands only here; the next one of the account begins behind it.
                let upto = next_first(trees, &key).unwrap_or(mark.last_position);
                let (from, what) = (Position(first), error.to_string());
                found.recovered.lost.push(Lost { account: Some(account), from, upto, what });
                continue;
            }
        };
        found.live_bytes += (row.chunk_bytes() + value.len()) as u64;
        let done = resolved.get(&account).copied().unwrap_or(Position::ZERO);
        let held = row.events.iter().filter(|(position, _)| *position > done);
        recovered
            .slots
            .extend(held.map(|(position, bytes)| (account, Slot { position: *position, bytes: *bytes })));
    }
    Ok(())
}

fn drop_chunk(trees: &Trees, key: &[u8]) -> Result<(), StoreError> {
    trees.chunks.remove(key).map_err(|error| io("write", error))?;
    trees.index.remove(key).map_err(|error| io("write", error))?;
    Ok(())
}

/// Returns the last position before the account's next chunk.
fn next_first(trees: &Trees, key: &[u8]) -> Option<Position> {
    let (next, _) = trees.index.get_gt(key).ok().flatten()?;
    let (account, first) = format::parse_key(&next).ok()?;
    (account[..] == key[..16]).then(|| Position(first.saturating_sub(1)))
}

fn sends(trees: &Trees, mark: Mark, recovered: &mut Recovered, found: &mut Found) -> Result<(), StoreError> {
    let mut by_device: HashMap<DeviceId, Vec<RecentSend>> = HashMap::new();
    for item in &trees.sends {
        let (key, value) = item.map_err(|error| io("read", error))?;
        let (device, generation) = format::parse_key(&key)?;
        let device = DeviceId(device);
        if generation > mark.generation {
            trees.sends.remove(&key).map_err(|error| io("write", error))?;
            continue;
        }
        let sends = format::parse_sends(&value)?;
        found.live_bytes += value.len() as u64;
        found.sends.entry(device).or_default().push((generation, sends.len()));
        by_device.entry(device).or_default().extend(sends);
    }
    for (device, sends) in by_device {
        let surplus = sends.len().saturating_sub(SENDS_UNANSWERED_MAX);
        recovered.sends.extend(sends.into_iter().skip(surplus).map(|send| (device, send)));
    }
    Ok(())
}
