//! Copying what is left of a store into a fresh one: because its files have grown, or because some of its pages are damaged.
//!
//! A chunk that cannot be read keeps its row in the index, so that whoever reads it is told of a gap. When rows of the index
//! are missing, the chunks are gone through instead: each says what its row would say.

use std::collections::HashSet;
use std::path::Path;

use quail_protocol::id::{AccountId, Position};

use super::super::types::{Lost, Mark};
use super::database::Database;
use super::fault::{Fault, guarded};
use super::format::{self, Row, Settled, Sums};
use super::held::{Held, SendsRow, put};
use super::load::{self, Basis};
use super::marks::MarkFile;
use super::walk::walk;
use super::{SettledOptions, chunk, open, spill};
use crate::ops::failpoint;

/// Most bytes of chunks in memory while they are copied.
const COPY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Most chunks in memory while they are copied.
const COPY_CHUNKS_MAX: usize = 1024;

/// What is to be copied.
pub(super) struct Order {
    mark: Mark,
    /// Rows from this number on belong to a spill that was cut short.
    next_number: u64,
    /// What the sums were when all was whole, if that is known.
    expected: Option<Sums>,
    /// Whether to go through the chunks for rows missing in the index.
    is_deep: bool,
}

impl Order {
    /// A store that was read whole.
    pub(super) fn rotation(held: &Held) -> Self {
        let Settled { mark, next_number, .. } = held.settled;
        Self { mark, next_number, expected: None, is_deep: false }
    }

    /// A store of which something is damaged.
    pub(super) fn salvage(basis: &Basis) -> Self {
        let Settled { mark, next_number, sums } = basis.settled;
        Self { mark, next_number, expected: (!basis.is_between).then_some(sums), is_deep: true }
    }
}

/// What was copied.
pub(super) struct Copied {
    pub held: Held,
    pub notes: Vec<String>,
}

/// Makes the database of a fresh store.
pub(super) fn fresh(path: &Path, number: u64, options: &SettledOptions) -> Result<Database, Fault> {
    let directory = open::store_path(path, number);
    if directory.exists() {
        // Left behind by a crash.
        std::fs::remove_dir_all(&directory)?;
    }
    Database::open_as_is(&directory, options)
}

/// Makes a copy durable and returns the file of its mark.
pub(super) fn finish(to: &Database, held: &Held) -> Result<MarkFile, Fault> {
    let (file, _) = MarkFile::open(to.directory())?;
    to.trees.meta.insert(format::SPILLING, format::spilling(held.settled.mark.generation))?;
    to.trees.meta.insert(format::MARK, format::settled(&held.settled))?;
    to.sync()?;
    file.write(&held.settled)?;
    failpoint::reached("settled-rotate-copied");
    Ok(file)
}

struct Copying<'a> {
    from: &'a Database,
    to: &'a Database,
    order: &'a Order,
    held: Held,
    notes: Vec<String>,
    /// Sums of the rows as they lay in the old store.
    found: Sums,
    /// Row numbers of the chunks that the index named.
    named: HashSet<u64>,
    /// Chunks on their way.
    waiting: Vec<(AccountId, Position, Row, Vec<u8>)>,
    waiting_bytes: usize,
}

/// Copies all that can be read up to the mark.
pub(super) fn copy(from: &Database, to: &Database, order: &Order) -> Result<Copied, Fault> {
    let settled = Settled { mark: order.mark, ..Settled::default() };
    let mut copying = Copying {
        from,
        to,
        order,
        held: Held { settled, ..Held::default() },
        notes: Vec::new(),
        found: Sums::default(),
        named: HashSet::new(),
        waiting: Vec::new(),
        waiting_bytes: 0,
    };
    copying.copy_accounts()?;
    copying.copy_devices()?;
    copying.copy_sends()?;
    let index_holes = copying.copy_index()?;
    let chunk_holes = if order.is_deep { copying.copy_unnamed()? } else { 0 };
    copying.write_waiting()?;
    let lost = copying.judge(index_holes, chunk_holes);
    copying.write_lost(&lost)?;
    Ok(Copied { held: copying.held, notes: copying.notes })
}

impl Copying<'_> {
    fn note_holes(&mut self, tree: &str, holes: usize) {
        if holes > 0 {
            self.notes.push(format!("{holes} damaged pages or rows in the tree {tree}"));
        }
    }

    fn copy_accounts(&mut self) -> Result<(), Fault> {
        let mut bad = 0;
        let holes = walk(&self.from.trees.accounts, 16, |key, value| {
            let Ok((account, row)) = format::parse_account(key, value) else {
                bad += 1;
                return Ok(());
            };
            self.found.accounts.add(value);
            self.held.accounts.entry(account).or_default().row = row;
            put(&self.to.trees.accounts, &mut self.held.settled.sums.accounts, key, value).map(drop)
        })?;
        self.note_holes("accounts", holes.len() + bad);
        Ok(())
    }

    fn copy_devices(&mut self) -> Result<(), Fault> {
        let mut bad = 0;
        let holes = walk(&self.from.trees.devices, 32, |key, value| {
            if format::parse_device(key, value).is_err() {
                bad += 1;
                return Ok(());
            }
            self.found.devices.add(value);
            put(&self.to.trees.devices, &mut self.held.settled.sums.devices, key, value).map(drop)
        })?;
        self.note_holes("devices", holes.len() + bad);
        Ok(())
    }

    fn copy_sends(&mut self) -> Result<(), Fault> {
        let mut bad = 0;
        let holes = walk(&self.from.trees.sends, 24, |key, value| {
            let (device, generation) = format::parse_send_key(key)?;
            if generation > self.order.mark.generation {
                return Ok(());
            }
            let Ok(sends) = format::parse_sends(key, value) else {
                bad += 1;
                return Ok(());
            };
            self.found.sends.add(value);
            // Which rows were merged into a later one is found out when the store is opened next; until then they only stay.
            let row = SendsRow { generation, count: sends.len(), is_covered: false };
            self.held.sends.entry(device).or_default().push(row);
            put(&self.to.trees.sends, &mut self.held.settled.sums.sends, key, value).map(drop)
        })?;
        self.note_holes("sends", holes.len() + bad);
        Ok(())
    }

    /// Copies the chunks that the index names and returns how many holes it has.
    fn copy_index(&mut self) -> Result<usize, Fault> {
        let mut bad = 0;
        let from = self.from;
        let holes = walk(&from.trees.index, 24, |key, value| {
            let Ok((account, first, row)) = format::parse_row(key, value) else {
                bad += 1;
                return Ok(());
            };
            if first > self.order.mark.last_position {
                return Ok(());
            }
            self.found.index.add(value);
            self.named.insert(row.number);
            self.take(account, first, row)
        })?;
        self.note_holes("index", holes.len() + bad);
        Ok(holes.len() + bad)
    }

    /// Copies the chunks that the index should name and does not, and returns how many holes there are among the chunks.
    fn copy_unnamed(&mut self) -> Result<usize, Fault> {
        let from = self.from;
        let holes = walk(&from.trees.chunks, 8, |key, value| {
            let number = key.try_into().map(u64::from_be_bytes).map_err(Fault::damaged)?;
            let Ok((0, bytes)) = chunk::parse_piece(value) else { return Ok(()) };
            if number >= self.order.next_number || self.named.contains(&number) {
                return Ok(());
            }
            let Ok(head) = chunk::parse_head(bytes) else { return Ok(()) };
            let (account, first) = (head.account, head.first);
            let row = Row { number, pieces: head.pieces() as u16, events: head.events };
            let resolved =
                self.held.accounts.get(&account).map_or(Position::ZERO, |state| state.row.resolved);
            if first > self.order.mark.last_position || row.last(first) <= resolved {
                return Ok(());
            }
            let old_key = format::chunk_key(account, first);
            self.found.index.add(&format::row(&old_key, first, &row));
            self.notes.push(format!("found the chunk of account {account} from position {first} again"));
            self.take(account, first, row)
        })?;
        self.note_holes("chunks", holes.len());
        Ok(holes.len())
    }

    fn take(&mut self, account: AccountId, first: Position, mut row: Row) -> Result<(), Fault> {
        let bytes = match load::chunk(self.from, &row) {
            Ok(bytes) => bytes,
            Err(Fault::Damaged(what)) => {
                let last = row.last(first);
                self.notes.push(format!("lost positions {first} to {last} of account {account}: {what}"));
                (row.number, row.pieces) = (0, 0);
                Vec::new()
            }
            Err(fault) => return Err(fault),
        };
        self.waiting_bytes += bytes.len();
        self.waiting.push((account, first, row, bytes));
        if self.waiting_bytes >= COPY_BYTES_MAX || self.waiting.len() >= COPY_CHUNKS_MAX {
            self.write_waiting()?;
        }
        Ok(())
    }

    fn write_waiting(&mut self) -> Result<(), Fault> {
        let to = self.to;
        for (_, _, row, _) in &mut self.waiting {
            if row.pieces > 0 {
                row.number = self.held.take_numbers(u64::from(row.pieces));
            }
        }
        spill::make_room(to, self.waiting.iter().map(|(_, _, row, _)| (row.number, row.pieces)))?;
        for (account, first, row, bytes) in std::mem::take(&mut self.waiting) {
            spill::fill(to, row.number, &bytes)?;
            self.held.put_row(to, account, first, &row)?;
        }
        self.waiting_bytes = 0;
        Ok(())
    }

    /// Returns what must be taken for lost although nobody knows what it was.
    fn judge(&mut self, index_holes: usize, chunk_holes: usize) -> Vec<Lost> {
        let is_doubtful = match self.order.expected {
            Some(expected) if self.order.is_deep => {
                if expected != self.found {
                    self.notes.push(load::differing(&self.found, &expected));
                }
                expected.index != self.found.index
            }
            // Nothing to compare with: what the index lost, the chunks had, unless they have holes too.
            _ => index_holes > 0 && chunk_holes > 0,
        };
        if !is_doubtful {
            return Vec::new();
        }
        let what = "rows of the index are missing and were not found among the chunks".to_owned();
        vec![Lost { account: None, from: Position(1), upto: self.order.mark.last_position, what }]
    }

    fn write_lost(&mut self, lost: &[Lost]) -> Result<(), Fault> {
        let old = guarded(|| self.from.trees.meta.get(format::LOST)).ok().flatten();
        let mut all =
            old.and_then(|value| format::parse_lost(&value).ok()).map_or_else(Vec::new, |(_, lost)| lost);
        all.extend_from_slice(lost);
        if !all.is_empty() {
            let value = format::lost(self.order.mark.generation, &all);
            self.to.trees.meta.insert(format::LOST, value)?;
            self.held.has_lost = true;
        }
        Ok(())
    }
}
