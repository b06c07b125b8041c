//! Reading a backlog while spills are written and the store is rotated. sled's trees may be read from any thread.
//!
//! A reader goes by the index and never returns an event it does not name. A chunk that cannot be read is looked up again in
//! the index first: what was resolved or withdrawn meanwhile is not lost. A page that sled cannot read may be read from its
//! log: whoever meets one is told to come again, and [`SettledStore::rotate_if_grown`](super::SettledStore::rotate_if_grown)
//! saves what can be saved. What is lost after that is.

use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use quail_core::ports::outbox::{StoredEvent, Stretch};
use quail_protocol::id::{AccountId, Position};

use super::super::types::Lost;
use super::chunk::{self, Taken};
use super::database::Database;
use super::fault::{Fault, guarded};
use super::format::{self, Row};
use super::load;

/// How long to wait for a damaged page to be mended before what it holds is given up.
const MEND_WAIT: Duration = Duration::from_secs(30);

/// How often a chunk that changes while it is read is read again.
const ATTEMPTS_MAX: usize = 4;

/// Part of an account's backlog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettledRead {
    /// The events that could be read, in order.
    pub events: Vec<Arc<StoredEvent>>,
    /// What could not, in order, below the last event or above it.
    pub lost: Vec<Lost>,
    /// Whether a limit of the stretch ended it, so that there may be more.
    pub more: bool,
}

/// Why a backlog could not be read. The caller may try again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the settled store: {reason}")]
pub struct ReadSettledError {
    /// What the system said.
    pub reason: String,
}

/// The reading side of the settled store; any thread may use it.
#[derive(Clone)]
pub struct SettledReader {
    shared: Arc<RwLock<Arc<Database>>>,
}

/// What has been read so far.
struct Reading {
    account: AccountId,
    stretch: Stretch,
    /// Events at or below are not asked for or are resolved.
    floor: Position,
    bytes: usize,
    read: SettledRead,
}

impl SettledReader {
    pub(super) fn new(shared: Arc<RwLock<Arc<Database>>>) -> Self {
        Self { shared }
    }

    /// Returns the first events of a stretch of an account's outbox that are settled, in order of position. At or below the
    /// mark of the last spill that returned none is missing; above it some may be there already. What is damaged is named
    /// as lost.
    ///
    /// # Errors
    /// [`ReadSettledError`] if the system fails, or while a damaged page waits to be mended; the caller may try again.
    pub fn read(&self, account: AccountId, stretch: Stretch) -> Result<SettledRead, ReadSettledError> {
        let database = self.shared.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut reading = Reading {
            account,
            stretch,
            floor: stretch.after.max(resolved(&database, account)),
            bytes: 0,
            read: SettledRead::default(),
        };
        match reading.run(&database) {
            Ok(()) => Ok(reading.read),
            Err(Fault::Damaged(what)) if database.note_damage() >= MEND_WAIT => {
                // The index itself: nobody knows what it named.
                reading.lose(reading.floor.next(), stretch.upto, what);
                Ok(reading.read)
            }
            Err(fault) => Err(ReadSettledError { reason: fault.to_string() }),
        }
    }
}

/// Returns up to where an account's events are resolved. If that cannot be read, some are delivered once more.
fn resolved(database: &Database, account: AccountId) -> Position {
    let value = guarded(|| database.trees.accounts.get(account.as_bytes())).ok().flatten();
    let row = value.and_then(|value| format::parse_account(account.as_bytes(), &value).ok());
    row.map_or(Position::ZERO, |(_, row)| row.resolved)
}

impl Reading {
    fn run(&mut self, database: &Database) -> Result<(), Fault> {
        let upto = self.stretch.upto;
        if upto <= self.floor || self.stretch.events_max == 0 {
            return Ok(());
        }
        let key = |position| format::chunk_key(self.account, position);
        let (lowest, last) = (key(Position::ZERO), key(upto));
        // The chunk that begins at or below the first event asked for may hold it.
        let from = key(self.floor.next());
        let before = guarded(|| database.trees.index.range(lowest..=from).next_back().transpose())?;
        let mut next = Bound::Included(before.map_or(from.to_vec(), |(key, _)| key.to_vec()));
        loop {
            let range = (next.clone(), Bound::Included(last.to_vec()));
            let item = guarded(|| database.trees.index.range::<Vec<u8>, _>(range).next().transpose())?;
            let Some((key, value)) = item else { return Ok(()) };
            let (_, first, row) = format::parse_row(&key, &value)?;
            if row.last(first) > self.floor && !self.read_chunk(database, &key, &value, row)? {
                self.read.more = true;
                return Ok(());
            }
            next = Bound::Excluded(key.to_vec());
        }
    }

    /// Reads one chunk and returns whether there is room for more.
    fn read_chunk(&mut self, database: &Database, key: &[u8], value: &[u8], row: Row) -> Result<bool, Fault> {
        let taken = self.take_chunk(database, key, value, row)?;
        for (position, event) in taken {
            match event {
                Err(what) => self.lose(position, position, what),
                Ok(event) => {
                    self.bytes += event.frame.len();
                    if self.bytes > self.stretch.bytes_max && !self.read.events.is_empty() {
                        return Ok(false);
                    }
                    self.read.events.push(event);
                    if self.read.events.len() >= self.stretch.events_max {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    /// Takes the events asked for out of a chunk, or what became of them. None is missing that is still in the index.
    fn take_chunk(
        &self,
        database: &Database,
        key: &[u8],
        value: &[u8],
        mut row: Row,
    ) -> Result<Vec<(Position, Taken)>, Fault> {
        let (floor, upto) = (self.floor, self.stretch.upto);
        let is_wanted = |at: Position| at > floor && at <= upto;
        let mut value = value.to_vec();
        let mut attempt = 1;
        loop {
            let (taken, broken) = match load::chunk(database, &row) {
                Ok(bytes) => (chunk::take(self.account, &row, &bytes, is_wanted), None),
                Err(Fault::Damaged(what)) => {
                    let wanted = row.events.iter().filter(|(at, _)| is_wanted(*at));
                    (wanted.map(|(at, _)| (*at, Err(what.clone()))).collect(), Some(what))
                }
                Err(fault) => return Err(fault),
            };
            if taken.iter().all(|(_, event)| event.is_ok()) {
                return Ok(taken);
            }
            let Some(now) = guarded(|| database.trees.index.get(key))? else { return Ok(Vec::new()) };
            if *now == *value || attempt >= ATTEMPTS_MAX {
                // Looked up after the chunk and still the same: a chunk goes after its row. What was given up once is not
                // to be mended.
                return match broken.filter(|_| row.pieces > 0 && database.note_damage() < MEND_WAIT) {
                    Some(what) => Err(Fault::Damaged(what)),
                    None => Ok(taken),
                };
            }
            row = format::parse_row(key, &now)?.2;
            value = now.to_vec();
            attempt += 1;
        }
    }

    /// Notes a stretch as lost, together with the one before it if no event lies between.
    fn lose(&mut self, from: Position, upto: Position, what: String) {
        let last_read = self.read.events.last().map_or(Position::ZERO, |event| event.position);
        match self.read.lost.last_mut() {
            Some(last) if last.upto > last_read && last.what == what => last.upto = upto,
            _ => self.read.lost.push(Lost { account: Some(self.account), from, upto, what }),
        }
    }
}
