//! What a data directory holds when it is opened.

use std::collections::HashMap;

use quail_core::ports::outbox::{RecentSend, Recovered, Slot, StoreError};
use quail_protocol::id::{DeviceId, Position};

use super::{Trees, format, io};

/// Reads every tree, drops what a torn batch left above the counters, and returns the rest with the place of the next
/// send in each device's ring.
pub(super) fn recover(trees: &Trees) -> Result<(Recovered, HashMap<DeviceId, u8>), StoreError> {
    let mut recovered = Recovered::default();
    if let Some(value) = trees.meta.get(format::COUNTERS).map_err(|error| io("read", error))? {
        (recovered.last_position, recovered.last_stamp) = format::parse_counters(&value)?;
    }
    recover_events(trees, &mut recovered)?;
    let next_slot = recover_sends(trees, &mut recovered)?;
    for item in &trees.devices {
        let (key, value) = item.map_err(|error| io("read", error))?;
        let device =
            DeviceId::try_from(&*key).map_err(|error| StoreError::Damaged { what: error.to_string() })?;
        let (account, record) = format::parse_device(&value)?;
        recovered.devices.push((account, device, record));
    }
    for item in &trees.collapsed {
        let (key, value) = item.map_err(|error| io("read", error))?;
        let account = (&*key).try_into().map_err(|error: quail_protocol::id::IdLengthError| {
            StoreError::Damaged { what: error.to_string() }
        })?;
        recovered.collapsed.push((account, format::parse_position(&value)?));
    }
    Ok((recovered, next_slot))
}

fn recover_events(trees: &Trees, recovered: &mut Recovered) -> Result<(), StoreError> {
    for item in &trees.events {
        let (key, value) = item.map_err(|error| io("read", error))?;
        let (account, position) = format::parse_event_key(&key)?;
        if position > recovered.last_position {
            trees.events.remove(&key).map_err(|error| io("write", error))?;
            continue;
        }
        let bytes = format::frame_len(&value)? as u32;
        recovered.slots.push((account, Slot { position, bytes }));
    }
    Ok(())
}

fn recover_sends(trees: &Trees, recovered: &mut Recovered) -> Result<HashMap<DeviceId, u8>, StoreError> {
    let mut newest: HashMap<DeviceId, (u64, u8)> = HashMap::new();
    let mut sends: Vec<(DeviceId, RecentSend)> = Vec::new();
    for item in &trees.sends {
        let (key, value) = item.map_err(|error| io("read", error))?;
        let (device, slot) = format::parse_send_key(&key)?;
        let send = format::parse_send(&value)?;
        if send.position > recovered.last_position {
            trees.sends.remove(&key).map_err(|error| io("write", error))?;
            continue;
        }
        let at = newest.entry(device).or_insert((send.number, slot));
        *at = (*at).max((send.number, slot));
        sends.push((device, send));
    }
    // A ring is stored by slot; its numbers must come out rising.
    sends.sort_by_key(|(device, send)| (*device, send.number));
    recovered.sends = sends;
    debug_assert!(recovered.sends.iter().all(|(_, send)| send.position != Position::ZERO));
    Ok(newest.into_iter().map(|(device, (_, slot))| (device, slot.wrapping_add(1))).collect())
}
