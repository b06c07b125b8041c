//! Looking through a whole outbox without serving from it, for an operator whose daemon is stopped.
//!
//! It says what the next start would find: what the settled store holds, what the journal adds on top, and what of both is
//! damaged. The journal is only read. The settled store is opened to be looked at, and mends itself as it does at a start.
//!
//! Invariant: damage is told and never ends the check, unless a start would end there, too.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use quail_core::ports::outbox::Recovered;
use quail_protocol::id::{AccountId, Position};

use super::engine::OutboxEngine;
use super::error::OpenOutboxError;
use super::journal::{self, Damage, JournalReport, RealDisk, Replayed, ReplayedBatch};
use super::recovery::Recovery;
use super::settled::{self, OpenSettledError};
use super::types::{Lost, Mark};

/// What belongs into an outbox directory.
const PARTS: [&str; 4] = ["origin", "journal", "settled", "ballast"];

/// What a check of an outbox found.
#[derive(Clone, Debug, Default)]
pub struct OutboxReport {
    /// How far the settled store is.
    pub mark: Mark,
    /// The settled store.
    pub settled: SettledPart,
    /// The journal: everything above the mark.
    pub journal: JournalReport,
    /// The accounts for which the journal holds events above the mark that nobody has acknowledged, in order, and how many.
    pub added: Vec<(AccountId, u64)>,
    /// Devices of which the journal holds a newer record than the settled store.
    pub devices_changed: u64,
    /// What is lost: first what the settled store had, then what the journal had.
    pub lost: Vec<Lost>,
    /// The largest position given.
    pub last_position: Position,
    /// Size of the ballast in bytes; `None` if it is not there, as where the disk is nearly full.
    pub ballast_bytes: Option<u64>,
    /// What lies in the directory and is no part of an outbox, by name.
    pub leftovers: Vec<Leftover>,
}

/// What a check found in the settled store. Its figures are those at the mark: the journal may have taken some away since.
#[derive(Clone, Debug, Default)]
pub struct SettledPart {
    /// Events that wait.
    pub events: u64,
    /// Devices that have a record.
    pub devices: u64,
    /// Space it takes on disk in bytes.
    pub disk_bytes: u64,
    /// What was mended to look at it. Nothing was lost by that.
    pub repaired: Vec<String>,
    /// Why nothing of it can be read, if so: the next start sets it aside and becomes a new origin.
    pub unreadable: Option<String>,
}

/// A file or directory that is no part of an outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Its name in the outbox directory.
    pub name: String,
    /// Space it takes on disk in bytes.
    pub bytes: u64,
}

impl OutboxReport {
    /// Returns whether everything is what was written. A torn end is: nobody was answered on it.
    pub fn is_clean(&self) -> bool {
        self.settled.unreadable.is_none()
            && self.settled.repaired.is_empty()
            && self.journal.damage.is_empty()
            && self.lost.is_empty()
    }

    /// Returns how many events the journal holds above the mark that nobody has acknowledged.
    pub fn events_added(&self) -> u64 {
        self.added.iter().map(|(_, events)| events).sum()
    }
}

impl OutboxEngine {
    /// Goes through the outbox in the directory `path`, which nobody has open. One that is not there is empty.
    ///
    /// # Errors
    /// [`OpenOutboxError`], where a start would fail too.
    pub fn check(path: &Path) -> Result<OutboxReport, OpenOutboxError> {
        let unusable = |error: io::Error| OpenOutboxError::unusable(path, error);
        let mut report = OutboxReport::default();
        if !path.try_exists().map_err(unusable)? {
            return Ok(report);
        }
        report.settled(path)?;
        report.journal(path)?;
        report.files(path).map_err(unusable)?;
        Ok(report)
    }
}

impl OutboxReport {
    fn settled(&mut self, outbox: &Path) -> Result<(), OpenOutboxError> {
        let path = outbox.join("settled");
        if !path.exists() {
            return Ok(());
        }
        let checked = catch_unwind(AssertUnwindSafe(|| settled::check(&path)));
        self.settled.disk_bytes = bytes_in(&path).map_err(|error| OpenOutboxError::unusable(&path, error))?;
        match checked {
            Ok(Ok(found)) => {
                self.mark = found.mark;
                self.lost = found.lost;
                let SettledPart { events, devices, repaired, .. } = &mut self.settled;
                (*events, *devices, *repaired) = (found.events, found.devices, found.notes);
            }
            Ok(Err(OpenSettledError::Damaged { what, .. })) => self.settled.unreadable = Some(what),
            Ok(Err(error)) => return Err(OpenOutboxError::settled(outbox, error)),
            Err(_) => self.settled.unreadable = Some("it panicked while it was looked through".to_owned()),
        }
        Ok(())
    }

    fn journal(&mut self, outbox: &Path) -> Result<(), OpenOutboxError> {
        let path = outbox.join("journal");
        // Of what is settled nothing is asked here, so this recovers what the journal alone holds.
        let mut recovery =
            Recovery::of(Recovered { last_position: self.mark.last_position, ..Recovered::default() });
        if path.exists() {
            let visit = &mut |batch: ReplayedBatch| {
                recovery.counted(batch.last_position, batch.last_stamp);
                for replayed in batch.entries {
                    match replayed {
                        Replayed::Entry(entry) => recovery.apply(&entry),
                        Replayed::Lost(lost) => self.lost.push(lost),
                    }
                }
            };
            let checked = journal::check(&RealDisk::read_only(&path), self.mark, visit);
            self.journal = checked.map_err(|error| OpenOutboxError::journal(outbox, error))?;
        }
        if self.journal.last_number == 0 && self.mark.generation > 0 {
            // A start would not notice: it would begin a new journal.
            let what = "it is missing: what was accepted after the mark is lost".to_owned();
            let damage = Damage { file: "journal".to_owned(), number: None, what, is_mended: false };
            self.journal.damage.push(damage);
        }
        let Recovered { last_position, slots, devices, .. } = recovery.finish();
        let mut added = BTreeMap::<AccountId, u64>::new();
        for (account, _) in slots {
            *added.entry(account).or_default() += 1;
        }
        self.added = added.into_iter().collect();
        (self.last_position, self.devices_changed) = (last_position, devices.len() as u64);
        Ok(())
    }

    fn files(&mut self, outbox: &Path) -> io::Result<()> {
        for entry in fs::read_dir(outbox)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == "ballast" {
                self.ballast_bytes = Some(entry.metadata()?.len());
            } else if !PARTS.contains(&&*name) {
                self.leftovers.push(Leftover { name, bytes: bytes_in(&entry.path())? });
            }
        }
        self.leftovers.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(())
    }
}

/// Returns the length of a file, or of all files in a directory and below.
fn bytes_in(path: &Path) -> io::Result<u64> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() {
        return Ok(metadata.len());
    }
    fs::read_dir(path)?.map(|entry| bytes_in(&entry?.path())).sum()
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;
    use std::path::PathBuf;
    use std::time::Instant;

    use quail_core::ports::outbox::conformance::{account, device, event};
    use quail_core::ports::outbox::{Batch, DeviceRecord, Entry, Outbox};
    use quail_protocol::id::Stamp;
    use tempfile::TempDir;

    use super::*;
    use crate::adapters::outbox::tests::open;

    /// Length of every frame; large enough that a run of one byte is that frame and nothing else.
    const FRAME: usize = 300;

    /// An outbox that nobody has open: events up to `settled` are in the settled store only, those up to `last` in the journal
    /// only. Account `position % 3` gets them.
    fn outbox(settled: u64, last: u64) -> TempDir {
        let directory = TempDir::new().unwrap();
        let mut engine = open(directory.path()).engine;
        append(&mut engine, 1..=settled);
        engine.settle().unwrap();
        drop(engine);
        // Opening leaves in the journal what is not settled, and that is nothing.
        append(&mut open(directory.path()).engine, settled + 1..=last);
        directory
    }

    fn append(engine: &mut OutboxEngine, positions: RangeInclusive<u64>) {
        for position in positions {
            let accounts = vec![account((position % 3) as u8)];
            let record = DeviceRecord { cursor: Position(position), ..DeviceRecord::default() };
            let entries = [
                Entry::Event { event: event(position, FRAME), accounts: accounts.into() },
                Entry::Device { account: account(1), device: device((position % 5) as u8), record },
            ];
            let (last_position, last_stamp) = (Position(position), Stamp(position * 10));
            engine.commit(Batch { entries: &entries, last_position, last_stamp }).unwrap();
        }
    }

    /// sled gives its lock back a moment after it was dropped.
    fn check(outbox: &Path) -> OutboxReport {
        let began = Instant::now();
        loop {
            match OutboxEngine::check(outbox) {
                Err(error) if error.to_string().contains("lock") && began.elapsed().as_secs() < 10 => {
                    std::thread::yield_now();
                }
                checked => return checked.unwrap(),
            }
        }
    }

    /// Changes the frame of an event wherever it lies in the files of a directory; returns in how many places.
    fn change(directory: &Path, position: u8, change: impl Fn(&mut [u8])) -> usize {
        let mut places = 0;
        let names: Vec<PathBuf> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        for path in names.iter().filter(|path| path.is_file()) {
            let mut bytes = fs::read(path).unwrap();
            let mut at = 0;
            while let Some(found) = bytes[at..].windows(FRAME).position(|frame| frame == [position; FRAME]) {
                at += found;
                change(&mut bytes[at..at + FRAME]);
                at += FRAME;
                places += 1;
            }
            fs::write(path, bytes).unwrap();
        }
        places
    }

    fn database(outbox: &Path) -> PathBuf {
        outbox.join("settled/store-1")
    }

    #[test]
    fn a_clean_outbox_is_told_in_figures_and_stays_as_it_is() {
        let directory = outbox(60, 100);
        let path = directory.path();
        for _ in 0..2 {
            let report = check(path);
            assert!(report.is_clean(), "{report:?}");
            assert_eq!((report.mark.last_position, report.last_position), (Position(60), Position(100)));
            assert_eq!((report.settled.events, report.settled.devices), (60, 5));
            assert_eq!(report.added, [(account(0), 13), (account(1), 14), (account(2), 13)]);
            assert_eq!((report.events_added(), report.devices_changed), (40, 5));
            assert_eq!((report.journal.batches, report.journal.entries), (40, 80));
            assert!(report.settled.disk_bytes > 60 * FRAME as u64);
            assert_eq!(report.leftovers, []);
        }
    }

    #[test]
    fn nothing_is_clean_and_is_not_made() {
        let directory = TempDir::new().unwrap();
        for path in [directory.path().to_owned(), directory.path().join("outbox")] {
            assert!(check(&path).is_clean());
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn leftovers_are_told_and_are_no_damage() {
        let directory = outbox(1, 2);
        let aside = directory.path().join("settled.damaged-17");
        fs::create_dir(&aside).unwrap();
        fs::write(aside.join("db"), [1; 10]).unwrap();
        fs::write(directory.path().join("ballast"), [0; 7]).unwrap();
        let report = check(directory.path());
        assert_eq!(report.leftovers, [Leftover { name: "settled.damaged-17".to_owned(), bytes: 10 }]);
        assert_eq!((report.ballast_bytes, report.is_clean()), (Some(7), true));
    }

    #[test]
    fn a_damaged_event_of_the_journal_is_lost_by_name() {
        let directory = outbox(60, 100);
        assert!(change(&directory.path().join("journal"), 80, |frame| frame[7] ^= 0x10) > 0);
        let report = check(directory.path());
        let lost: Vec<_> = report.lost.iter().map(|lost| (lost.account, lost.from, lost.upto)).collect();
        assert_eq!(lost, [(Some(account(2)), Position(80), Position(80))]);
        assert!(!report.is_clean() && !report.journal.damage.is_empty());
        assert_eq!(report.events_added(), 39);
    }

    #[test]
    fn a_torn_end_is_no_damage() {
        let directory = outbox(60, 100);
        assert!(change(&directory.path().join("journal"), 100, |frame| frame.fill(0)) > 0);
        let report = check(directory.path());
        assert!(report.is_clean() && report.journal.torn.is_some(), "{report:?}");
        assert_eq!((report.last_position, report.events_added()), (Position(99), 39));
    }

    #[test]
    fn a_journal_that_is_missing_is_damage() {
        let directory = outbox(60, 100);
        fs::remove_dir_all(directory.path().join("journal")).unwrap();
        let report = check(directory.path());
        assert!(!report.is_clean());
        assert_eq!(report.last_position, Position(60));
    }

    #[test]
    fn a_settled_store_whose_pointer_is_lost_is_damage_and_still_looked_through() {
        let directory = outbox(60, 100);
        fs::write(directory.path().join("settled/current"), "nonsense").unwrap();
        let report = check(directory.path());
        assert!(!report.is_clean());
        assert_eq!((report.last_position, report.events_added()), (Position(100), 40));
        assert_eq!((report.settled.events, report.lost.len()), (60, 0));
    }

    #[test]
    fn a_damaged_settled_event_is_damage() {
        let directory = outbox(60, 100);
        check(directory.path());
        assert!(change(&database(directory.path()), 30, |frame| frame[7] ^= 0x10) > 0);
        let report = check(directory.path());
        assert!(!report.is_clean(), "{report:?}");
        let named = |lost: &Lost| lost.from <= Position(30) && Position(30) <= lost.upto;
        assert!(report.settled.unreadable.is_some() || report.lost.iter().any(named), "{report:?}");
    }

    #[test]
    fn a_flip_anywhere_in_the_database_is_told_or_costs_nothing() {
        let directory = outbox(60, 70);
        check(directory.path());
        let whole = fs::read(database(directory.path()).join("db")).unwrap();
        let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
        let mut damaged = 0;
        for at in (0..used).step_by(used / 24) {
            let copy = TempDir::new().unwrap();
            copy_all(directory.path(), copy.path());
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(database(copy.path()).join("db"), bytes).unwrap();
            let report = check(copy.path());
            assert_eq!((report.last_position, report.events_added()), (Position(70), 10), "byte {at}");
            match report.is_clean() {
                true => assert_eq!(report.settled.events, 60, "byte {at}"),
                false => damaged += 1,
            }
        }
        assert!(damaged > 10, "only {damaged} flips were noticed");
    }

    /// Copies a directory that holds no others but in itself.
    fn copy_all(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.path().is_dir() {
                copy_all(&entry.path(), &to);
            } else {
                fs::copy(entry.path(), &to).unwrap();
            }
        }
    }
}
