//! Verification of a store that nobody has open. Nothing is written, and sled is not started: its log is read as it lies there.

use std::path::Path;

use quail_protocol::id::{AccountId, Position};

use super::super::types::{Lost, Mark};
use super::fault::Fault;
use super::format::{self, Row, Rows, Sums};
use super::load::{self, Basis};
use super::open::{OpenSettledError, find, fit_for_sled, store_path};
use super::raw::RawStore;
use super::{chunk, database, marks};

/// What a store holds and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// The number of the store that was checked; zero if there is none.
    pub store: u64,
    /// How far it is.
    pub mark: Mark,
    /// Chunks named by the index.
    pub chunks: u64,
    /// Events in them that are not resolved and whole.
    pub events: u64,
    /// Devices.
    pub devices: u64,
    /// Accepted sends.
    pub sends: u64,
    /// Events that cannot be read.
    pub lost: Vec<Lost>,
    /// What else is not as it should be; opening the store mends it.
    pub notes: Vec<String>,
}

struct Checking {
    raw: RawStore,
    report: CheckReport,
    sums: Sums,
    /// Up to where events are resolved, by account.
    resolved: std::collections::HashMap<AccountId, Position>,
}

/// Checks the store in the directory `path`: that its log is whole, every row and every event is as it was written, the index
/// agrees with the chunks, and the sums with the mark.
///
/// # Errors
/// [`OpenSettledError`]: it is in use, of a newer quaild, or cannot be read at all. Damage is in the report.
pub fn check(path: &Path) -> Result<CheckReport, OpenSettledError> {
    run(path).map_err(|fault| OpenSettledError::new(path, fault))
}

fn run(path: &Path) -> Result<CheckReport, Fault> {
    let Some((store, pointer)) = find(path)? else { return Ok(CheckReport::default()) };
    let directory = store_path(path, store);
    let _lock = database::lock(&directory)?;
    let in_file = marks::peek(&directory)?;
    let mut notes: Vec<_> = pointer.into_iter().collect();
    if in_file.is_none() {
        notes.push("the file of the mark is missing or damaged".to_owned());
    }
    match fit_for_sled(&directory, in_file) {
        Err(Fault::Damaged(what)) => notes.push(what),
        fit => fit?,
    }
    let raw = RawStore::read(&directory)?;
    let (stored, spilling) = (raw.get(Rows::Meta, format::MARK), raw.get(Rows::Meta, format::SPILLING));
    let basis = Basis::new(stored, spilling, in_file)?;
    let mark = basis.settled.mark;
    let report = CheckReport { store, mark, notes, ..CheckReport::default() };
    let mut checking = Checking { raw, report, sums: Sums::default(), resolved: Default::default() };
    checking.check_rows()?;
    checking.check_chunks()?;
    let Checking { raw, mut report, sums, .. } = checking;
    // A spill that was cut short is no damage: the journal has it. The sums are of before it then.
    if !basis.is_between && sums != basis.settled.sums {
        report
            .notes
            .push(format!("rows are missing or stale: {}", load::differing(&sums, &basis.settled.sums)));
    }
    if let Some(value) = raw.get(Rows::Meta, format::LOST) {
        report.lost.extend(format::parse_lost(value)?.1);
    }
    Ok(report)
}

impl Checking {
    fn check_rows(&mut self) -> Result<(), Fault> {
        for (key, value) in self.raw.rows(Rows::Accounts) {
            let (account, row) = format::parse_account(key, value)?;
            self.resolved.insert(account, row.resolved);
            self.sums.accounts.add(value);
        }
        for (key, value) in self.raw.rows(Rows::Devices) {
            format::parse_device(key, value)?;
            self.report.devices += 1;
            self.sums.devices.add(value);
        }
        for (key, value) in self.raw.rows(Rows::Sends) {
            if format::parse_send_key(key)?.1 <= self.report.mark.generation {
                self.report.sends += format::parse_sends(key, value)?.len() as u64;
                self.sums.sends.add(value);
            }
        }
        Ok(())
    }

    fn check_chunks(&mut self) -> Result<(), Fault> {
        for (key, value) in self.raw.rows(Rows::Index) {
            let (account, first, row) = format::parse_row(key, value)?;
            if first <= self.report.mark.last_position {
                self.sums.index.add(value);
                self.report.chunks += 1;
                let resolved = self.resolved.get(&account).copied().unwrap_or_default();
                check_chunk(&self.raw, &mut self.report, (account, first), &row, resolved)?;
            }
        }
        Ok(())
    }
}

fn check_chunk(
    raw: &RawStore,
    report: &mut CheckReport,
    (account, first): (AccountId, Position),
    row: &Row,
    resolved: Position,
) -> Result<(), Fault> {
    let mut lose = |from, upto, what| report.lost.push(Lost { account: Some(account), from, upto, what });
    let bytes = match raw.chunk(account, first, row) {
        Ok(bytes) => bytes,
        Err(Fault::Damaged(what)) => {
            lose(first.max(resolved.next()), row.last(first), what);
            return Ok(());
        }
        Err(fault) => return Err(fault),
    };
    for (position, event) in chunk::take(account, row, &bytes, |position| position > resolved) {
        match event {
            Ok(_) => report.events += 1,
            Err(what) => lose(position, position, what),
        }
    }
    match chunk::parse_head(&bytes) {
        Ok(head) if head.account == account && head.events == row.events => {}
        Ok(_) => report.notes.push(format!("index and chunk of {account} from {first} differ")),
        Err(fault) => report.notes.push(format!("chunk of {account} from {first}: {fault}")),
    }
    Ok(())
}
