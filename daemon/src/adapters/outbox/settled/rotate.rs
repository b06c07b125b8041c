//! Copying what is left of a store into a fresh one: because its files have grown, or because some of its pages are damaged.
//!
//! A chunk that cannot be read keeps its row in the index, so that whoever reads it is told of a gap. When rows of the index
//! may be missing, the chunks are gone through too: each says what its row would say.

use std::collections::HashSet;
use std::path::Path;

use quail_protocol::id::{AccountId, Position};

use super::super::types::{Lost, Mark};
use super::database::Database;
use super::fault::Fault;
use super::format::{self, Row, Rows, Settled, Sums};
use super::held::{Held, SendsRow, put};
use super::load::{self, Basis};
use super::marks::MarkFile;
use super::raw::{Damage, RawStore};
use super::{SettledOptions, chunk, open, spill};
use crate::ops::failpoint;

/// Most bytes of chunks in memory while they are copied.
const COPY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Most chunks in memory while they are copied.
const COPY_CHUNKS_MAX: usize = 1024;

/// Where rows are copied from.
pub(super) trait Source {
    /// Calls `visit` with every row of a tree that can be read.
    fn rows(&self, of: Rows, visit: &mut Visit<'_>) -> Result<(), Fault>;

    /// Reads a chunk.
    fn chunk(&self, account: AccountId, first: Position, row: &Row) -> Result<Vec<u8>, Fault>;
}

/// What is called with the rows of a tree.
type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), Fault> + 'a;

impl Source for Database {
    fn rows(&self, of: Rows, visit: &mut Visit<'_>) -> Result<(), Fault> {
        let trees = &self.trees;
        let tree = match of {
            Rows::Index => &trees.index,
            Rows::Devices => &trees.devices,
            Rows::Sends => &trees.sends,
            Rows::Accounts => &trees.accounts,
            Rows::Meta => &trees.meta,
        };
        load::walk(tree, visit)
    }

    fn chunk(&self, _: AccountId, _: Position, row: &Row) -> Result<Vec<u8>, Fault> {
        load::chunk(self, row)
    }
}

impl Source for RawStore {
    fn rows(&self, of: Rows, visit: &mut Visit<'_>) -> Result<(), Fault> {
        self.rows(of).try_for_each(|(key, value)| visit(key, value))
    }

    fn chunk(&self, account: AccountId, first: Position, row: &Row) -> Result<Vec<u8>, Fault> {
        self.chunk(account, first, row)
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
pub(super) fn finish(to: &Database, held: &mut Held) -> Result<MarkFile, Fault> {
    let (file, _) = MarkFile::open(to.directory())?;
    to.trees.meta.insert(format::SPILLING, format::spilling(held.settled.mark.generation))?;
    to.trees.meta.insert(format::MARK, format::settled(&held.settled))?;
    to.sync()?;
    held.settled.log_end = to.log_end();
    file.write(&held.settled)?;
    failpoint::reached("settled-rotate-copied");
    Ok(file)
}

struct Copying<'a> {
    from: &'a dyn Source,
    to: &'a Database,
    mark: Mark,
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

/// Copies a store that is whole.
pub(super) fn copy(from: &Database, to: &Database, mark: Mark) -> Result<Copied, Fault> {
    let mut copying = Copying::new(from, to, mark);
    copying.copy_rows()?;
    copying.write_waiting()?;
    Ok(Copied { held: copying.held, notes: copying.notes })
}

/// Copies what can be read of a store that is damaged.
pub(super) fn salvage(from: &RawStore, to: &Database, basis: &Basis) -> Result<Copied, Fault> {
    let Settled { mark, next_number, log_end, sums } = basis.settled;
    let mut copying = Copying::new(from, to, mark);
    copying.copy_rows()?;
    copying.copy_unnamed(from, next_number)?;
    copying.write_waiting()?;
    let damage = from.damage_below(log_end);
    let is_doubtful = if basis.is_between {
        // There is nothing to compare with.
        damage == Damage::Much
    } else {
        if copying.found != sums {
            copying.notes.push(load::differing(&copying.found, &sums));
        }
        copying.found.index != sums.index && damage != Damage::OneMessage
    };
    if is_doubtful {
        let what = "rows of the index are missing and were not found among the chunks".to_owned();
        copying.add_lost(Lost { account: None, from: Position(1), upto: mark.last_position, what })?;
    }
    Ok(Copied { held: copying.held, notes: copying.notes })
}

impl<'a> Copying<'a> {
    fn new(from: &'a dyn Source, to: &'a Database, mark: Mark) -> Self {
        let settled = Settled { mark, ..Settled::default() };
        Self {
            from,
            to,
            mark,
            held: Held { settled, ..Held::default() },
            notes: Vec::new(),
            found: Sums::default(),
            named: HashSet::new(),
            waiting: Vec::new(),
            waiting_bytes: 0,
        }
    }

    /// Copies all that the rows name up to the mark.
    fn copy_rows(&mut self) -> Result<(), Fault> {
        let from = self.from;
        from.rows(Rows::Accounts, &mut |key, value| {
            let (account, row) = format::parse_account(key, value)?;
            self.found.accounts.add(value);
            self.held.accounts.entry(account).or_default().row = row;
            put(&self.to.trees.accounts, &mut self.held.settled.sums.accounts, key, value).map(drop)
        })?;
        from.rows(Rows::Devices, &mut |key, value| {
            self.found.devices.add(value);
            put(&self.to.trees.devices, &mut self.held.settled.sums.devices, key, value).map(drop)
        })?;
        from.rows(Rows::Sends, &mut |key, value| {
            let (device, generation) = format::parse_send_key(key)?;
            if generation > self.mark.generation {
                return Ok(());
            }
            self.found.sends.add(value);
            // Which rows were merged into a later one is found out when the store is opened next; until then they only stay.
            let count = format::parse_sends(key, value)?.len();
            let row = SendsRow { generation, count, is_covered: false };
            self.held.sends.entry(device).or_default().push(row);
            put(&self.to.trees.sends, &mut self.held.settled.sums.sends, key, value).map(drop)
        })?;
        from.rows(Rows::Index, &mut |key, value| {
            let (account, first, row) = format::parse_row(key, value)?;
            if first > self.mark.last_position {
                return Ok(());
            }
            self.found.index.add(value);
            self.named.insert(row.number);
            self.take(account, first, row)
        })?;
        from.rows(Rows::Meta, &mut |key, value| {
            if key == format::LOST {
                self.to.trees.meta.insert(key, value)?;
                self.held.has_lost = true;
            }
            Ok(())
        })
    }

    /// Copies the chunks that the index should name and does not.
    fn copy_unnamed(&mut self, from: &RawStore, next_number: u64) -> Result<(), Fault> {
        for number in from.chunk_numbers().filter(|number| *number < next_number) {
            let Some(value) = from.piece(number)?.filter(|_| !self.named.contains(&number)) else { continue };
            let Ok((0, bytes)) = chunk::parse_piece(&value) else { continue };
            let Ok(head) = chunk::parse_head(bytes) else { continue };
            let (account, first) = (head.account, head.first);
            let row = Row { number, pieces: head.pieces() as u16, events: head.events };
            let resolved =
                self.held.accounts.get(&account).map_or(Position::ZERO, |state| state.row.resolved);
            if first > self.mark.last_position || row.last(first) <= resolved {
                continue;
            }
            self.found.index.add(&format::row(&format::chunk_key(account, first), first, &row));
            self.notes.push(format!("found the chunk of account {account} from position {first} again"));
            self.take(account, first, row)?;
        }
        Ok(())
    }

    fn take(&mut self, account: AccountId, first: Position, mut row: Row) -> Result<(), Fault> {
        let bytes = match self.from.chunk(account, first, &row) {
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

    /// Remembers what must be taken for lost although nobody knows what it was.
    fn add_lost(&mut self, lost: Lost) -> Result<(), Fault> {
        let tree = &self.to.trees.meta;
        let mut all = match tree.get(format::LOST)? {
            Some(value) => format::parse_lost(&value)?.1,
            None => Vec::new(),
        };
        all.push(lost);
        tree.insert(format::LOST, format::lost(self.mark.generation, &all))?;
        self.held.has_lost = true;
        Ok(())
    }
}
