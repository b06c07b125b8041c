//! Accounts and devices of a world are numbered; these are their ids and back.

use quail_protocol::id::{AccountId, DeviceId, MessageId};

pub(crate) const BASE_MS: u64 = 1_700_000_000_000;

pub(crate) fn account(index: usize) -> AccountId {
    AccountId([index as u8 + 1; 16])
}

pub(crate) fn account_index(id: AccountId) -> usize {
    usize::from(id.0[0]) - 1
}

pub(crate) fn device(index: usize) -> DeviceId {
    DeviceId([index as u8 + 100; 16])
}

pub(crate) fn device_index(id: DeviceId) -> usize {
    usize::from(id.0[0]) - 100
}

/// Returns which device minted a message id.
pub(crate) fn sending_device(id: MessageId) -> usize {
    usize::from(id.0[7])
}

/// A message id of version 7: the time, the device that minted it, and a counter.
pub(crate) fn message(ms: u64, device: usize, counter: u64) -> MessageId {
    let mut id = [0; 16];
    id[..6].copy_from_slice(&(BASE_MS + ms).to_be_bytes()[2..]);
    (id[6], id[7], id[8]) = (0x70, device as u8, 0x80);
    id[8 + 1..].copy_from_slice(&counter.to_be_bytes()[1..]);
    MessageId(id)
}
