//! What a store holds, as far as it must be known without asking sled, and the writing of single rows that keeps it true.

use std::collections::HashMap;

use quail_core::ports::outbox::RecentSend;
use quail_protocol::id::{AccountId, DeviceId, Position};

use super::chunk;
use super::database::Database;
use super::fault::Fault;
use super::format::{self, AccountRow, Row, Settled, Sum};

/// What is known of an account that has chunks or was collapsed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AccountState {
    /// How many chunks it has. An account without any costs a spill no look-up.
    pub chunks: u32,
    /// Its row in the tree `accounts`; as by default if there is none.
    pub row: AccountRow,
}

/// What is known of a row of sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SendsRow {
    pub generation: u64,
    pub count: usize,
    /// Whether a later row has all of its sends too: it goes once that row is at or below the mark.
    pub is_covered: bool,
}

/// The account of a store's rows. It is written with the mark and checked when the store is opened.
#[derive(Default)]
pub(super) struct Held {
    pub settled: Settled,
    pub accounts: HashMap<AccountId, AccountState>,
    pub sends: HashMap<DeviceId, Vec<SendsRow>>,
    /// What the rows would take in the least space.
    pub live_bytes: u64,
    /// Chunk rows that cannot be removed because their page is damaged: reason to copy what is whole into a new store.
    pub is_damaged: bool,
    /// Whether a `lost` row lies in `meta`.
    pub has_lost: bool,
}

/// What a row takes beside its key and value, in bytes.
const ROW_OVERHEAD: u64 = 16;

impl Held {
    /// Returns the numbers of so many new rows of the tree `chunks`, the first of them.
    pub(super) fn take_numbers(&mut self, count: u64) -> u64 {
        let first = self.settled.next_number.max(1);
        self.settled.next_number = first.saturating_add(count);
        first
    }

    /// Writes a row of the index. The chunk is there already, or lost.
    pub(super) fn put_row(
        &mut self,
        database: &Database,
        account: AccountId,
        first: Position,
        row: &Row,
    ) -> Result<(), Fault> {
        let key = format::chunk_key(account, first);
        let value = format::row(&key, first, row);
        let old = put(&database.trees.index, &mut self.settled.sums.index, &key, &value)?;
        match old {
            Some(old) => self.forget_bytes(&key, &old),
            None => self.accounts.entry(account).or_default().chunks += 1,
        }
        self.live_bytes += row_bytes(&key, &value, row);
        Ok(())
    }

    /// Removes a row of the index. Its chunk is the caller's to remove.
    pub(super) fn remove_row(
        &mut self,
        database: &Database,
        account: AccountId,
        first: Position,
    ) -> Result<(), Fault> {
        let key = format::chunk_key(account, first);
        if let Some(old) = remove(&database.trees.index, &mut self.settled.sums.index, &key)? {
            self.forget_bytes(&key, &old);
            if let Some(state) = self.accounts.get_mut(&account) {
                state.chunks = state.chunks.saturating_sub(1);
            }
        }
        Ok(())
    }

    /// Takes note of a row of the index that was found.
    pub(super) fn note_row(&mut self, account: AccountId, key: &[u8], value: &[u8], row: &Row) {
        self.settled.sums.index.add(value);
        self.live_bytes += row_bytes(key, value, row);
        self.accounts.entry(account).or_default().chunks += 1;
    }

    fn forget_bytes(&mut self, key: &[u8], value: &[u8]) {
        if let Ok((_, _, row)) = format::parse_row(key, value) {
            self.live_bytes = self.live_bytes.saturating_sub(row_bytes(key, value, &row));
        }
    }

    /// Writes or removes the row of an account, as is needed now.
    pub(super) fn put_account(
        &mut self,
        database: &Database,
        account: AccountId,
        row: AccountRow,
    ) -> Result<(), Fault> {
        let state = self.accounts.entry(account).or_default();
        if state.row != row {
            let (tree, sum) = (&database.trees.accounts, &mut self.settled.sums.accounts);
            if row == AccountRow::default() {
                remove(tree, sum, account.as_bytes())?;
            } else {
                put(tree, sum, account.as_bytes(), &format::account(account.as_bytes(), &row))?;
            }
            state.row = row;
        }
        Ok(())
    }

    /// Lets go of an account that has nothing any more.
    pub(super) fn forget_if_empty(&mut self, account: AccountId) {
        if self.accounts.get(&account) == Some(&AccountState::default()) {
            self.accounts.remove(&account);
        }
    }

    /// Writes a device's sends of a generation.
    pub(super) fn put_sends(
        &mut self,
        database: &Database,
        device: DeviceId,
        generation: u64,
        sends: &[RecentSend],
    ) -> Result<(), Fault> {
        let key = format::send_key(device, generation);
        put(&database.trees.sends, &mut self.settled.sums.sends, &key, &format::sends(&key, sends))?;
        let rows = self.sends.entry(device).or_default();
        rows.retain(|row| row.generation != generation);
        rows.push(SendsRow { generation, count: sends.len(), is_covered: false });
        Ok(())
    }

    /// Removes the chunk rows of such numbers. One whose page is damaged stays; a new store is due then.
    pub(super) fn remove_chunks(
        &mut self,
        database: &Database,
        numbers: &mut Vec<(u64, u16)>,
    ) -> Result<(), Fault> {
        // Neighbours lie in one page, which is then read once.
        numbers.sort_unstable();
        for (number, pieces) in numbers.drain(..) {
            for number in number..number.saturating_add(u64::from(pieces)) {
                match super::fault::guarded(|| database.trees.chunks.remove(number.to_be_bytes())) {
                    Err(Fault::Damaged(_)) => self.is_damaged = true,
                    removed => drop(removed?),
                }
            }
        }
        Ok(())
    }
}

fn row_bytes(key: &[u8], value: &[u8], row: &Row) -> u64 {
    let rows = 1 + u64::from(row.pieces);
    key.len() as u64 + value.len() as u64 + chunk::stored_bytes(row) + rows * ROW_OVERHEAD
}

/// Writes a row and keeps its tree's sum.
pub(super) fn put(
    tree: &sled::Tree,
    sum: &mut Sum,
    key: &[u8],
    value: &[u8],
) -> Result<Option<sled::IVec>, Fault> {
    let old = tree.insert(key, value)?;
    if let Some(old) = &old {
        sum.subtract(old);
    }
    sum.add(value);
    Ok(old)
}

/// Removes a row and keeps its tree's sum.
pub(super) fn remove(tree: &sled::Tree, sum: &mut Sum, key: &[u8]) -> Result<Option<sled::IVec>, Fault> {
    let old = tree.remove(key)?;
    if let Some(old) = &old {
        sum.subtract(old);
    }
    Ok(old)
}
