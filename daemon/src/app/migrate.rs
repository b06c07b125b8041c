//! Migration: a data directory of the release before, whose outbox was one sled database, becomes a journal with a settled
//! store.
//!
//! Everything is copied under its old positions into a new outbox beside the old one, which then takes the old one's place.
//!
//! Invariant: the old store is removed last. As long as it is there it alone counts, and a migration that was cut short is
//! begun again.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use quail_core::ports::outbox::{BacklogReader, Batch, Entry, Outbox, Recovered, Stretch};
use quail_protocol::id::{AccountId, Position};
use smallvec::smallvec;

use crate::adapters::outbox::{OutboxEngine, OutboxOptions};
use crate::adapters::sled::SledOutbox;
use crate::ops::files::sync_directory;

/// Most entries in one batch of the copy.
const BATCH_ENTRIES: usize = 256;

/// Most bytes of frames in one batch of the copy.
const BATCH_BYTES: usize = 1024 * 1024;

/// Parts of an outbox that move into the old one's place.
const PARTS: [&str; 3] = ["journal", "settled", "ballast"];

/// Migrates the outbox directory, if its store is of the release before. Blocks.
pub(super) fn migrate(outbox: &Path) -> anyhow::Result<()> {
    let (store, done) = (outbox.join("store"), outbox.join("store.migrated"));
    remove(&done)?;
    if !store.exists() {
        return Ok(());
    }
    tracing::info!(path = %outbox.display(), "migrating the outbox of an earlier release");
    let new = outbox.with_file_name("outbox.new");
    remove(&new)?;
    let events = copy(&store, &new).context("migrate the outbox of an earlier release")?;
    for part in PARTS {
        remove(&outbox.join(part))?;
        let moved = fs::rename(new.join(part), outbox.join(part));
        // Where the disk is nearly full there is no ballast.
        if !matches!(&moved, Err(error) if part == "ballast" && error.kind() == ErrorKind::NotFound) {
            moved.with_context(|| format!("move the new {part} into {}", outbox.display()))?;
        }
    }
    sync_directory(&store).context("sync the outbox directory")?;
    fs::rename(&store, &done).context("set the old store aside")?;
    sync_directory(&store).context("sync the outbox directory")?;
    remove(&new)?;
    remove(&done)?;
    tracing::info!(events, "migrated the outbox");
    Ok(())
}

/// Copies everything and returns how many events there were.
fn copy(old: &Path, new: &Path) -> anyhow::Result<usize> {
    let (old, recovered) = SledOutbox::open(old, Arc::default())?;
    let mut opened = OutboxEngine::open(new, &OutboxOptions::default(), Arc::default())?;
    let count = recovered.slots.len();
    let mut copy = Copy { engine: &mut opened.engine, recovered: &recovered, waiting: Vec::new(), bytes: 0 };
    copy.all(&*old.reader())?;
    opened.engine.settle()?;
    Ok(count)
}

struct Copy<'a> {
    engine: &'a mut OutboxEngine,
    recovered: &'a Recovered,
    waiting: Vec<Entry>,
    bytes: usize,
}

impl Copy<'_> {
    fn all(&mut self, reader: &dyn BacklogReader) -> anyhow::Result<()> {
        for (account, device, record) in &self.recovered.devices {
            self.put(Entry::Device { account: *account, device: *device, record: *record }, 0)?;
        }
        for (device, send) in &self.recovered.sends {
            self.put(Entry::Sent { device: *device, send: *send }, 0)?;
        }
        for (account, upto) in &self.recovered.collapsed {
            self.put(Entry::Collapsed { account: *account, upto: *upto }, 0)?;
        }
        let mut accounts: Vec<_> = self.recovered.slots.iter().map(|(account, _)| *account).collect();
        accounts.dedup();
        for account in accounts {
            self.events(account, reader)?;
        }
        self.flush()
    }

    fn events(&mut self, account: AccountId, reader: &dyn BacklogReader) -> anyhow::Result<()> {
        let mut after = Position::ZERO;
        loop {
            let upto = self.recovered.last_position;
            let stretch = Stretch { after, upto, events_max: BATCH_ENTRIES, bytes_max: BATCH_BYTES };
            let events = reader.read(account, stretch)?;
            let Some(last) = events.last() else { return Ok(()) };
            after = last.position;
            for event in events {
                let bytes = event.frame.len();
                self.put(Entry::Event { event, accounts: smallvec![account] }, bytes)?;
            }
        }
    }

    fn put(&mut self, entry: Entry, bytes: usize) -> anyhow::Result<()> {
        self.waiting.push(entry);
        self.bytes += bytes;
        if self.waiting.len() >= BATCH_ENTRIES || self.bytes >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let Recovered { last_position, last_stamp, .. } = *self.recovered;
        self.engine.commit(Batch { entries: &self.waiting, last_position, last_stamp })?;
        self.waiting.clear();
        self.bytes = 0;
        Ok(())
    }
}

fn remove(directory: &Path) -> anyhow::Result<()> {
    let removed = if directory.is_dir() { fs::remove_dir_all(directory) } else { fs::remove_file(directory) };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use quail_core::ports::outbox::conformance::{account, device, event};
    use quail_core::ports::outbox::{DeviceRecord, RecentSend};
    use quail_protocol::id::{MessageId, Stamp};
    use tempfile::TempDir;

    use super::*;

    fn fill(store: &Path) -> Recovered {
        let (mut old, _) = SledOutbox::open(store, Arc::default()).unwrap();
        for position in 1..=600_u64 {
            let id = MessageId(u128::from(position).to_be_bytes());
            let (position, stamp) = (Position(position), Stamp(position * 10));
            let send = RecentSend { number: position.0, id, digest: [1; 16], position, stamp };
            let accounts = vec![account((position.0 % 3) as u8)];
            let record = DeviceRecord { cursor: Position(position.0 / 2), ..DeviceRecord::default() };
            let entries = [
                Entry::Event { event: event(position.0, 300), accounts: accounts.into() },
                Entry::Sent { device: device(1), send },
                Entry::Device { account: account(1), device: device(1), record },
                Entry::Resolved { account: account(0), upto: Position(position.0 / 2) },
                Entry::Collapsed { account: account(0), upto: Position(7) },
            ];
            old.append(Batch { entries: &entries, last_position: position, last_stamp: stamp }).unwrap();
        }
        old.syncer().sync().unwrap();
        drop(old);
        sorted(reopen(store))
    }

    /// sled gives its lock back a moment after it was dropped.
    fn reopen(store: &Path) -> Recovered {
        loop {
            match SledOutbox::open(store, Arc::default()) {
                Err(error) if error.to_string().contains("lock") => std::thread::yield_now(),
                opened => return opened.unwrap().1,
            }
        }
    }

    fn sorted(mut recovered: Recovered) -> Recovered {
        recovered.slots.sort_by_key(|(account, slot)| (*account, slot.position));
        recovered.sends.sort_by_key(|(device, send)| (*device, send.number));
        recovered.devices.sort_by_key(|(_, device, _)| *device);
        recovered
    }

    fn migrated(outbox: &Path) -> (Recovered, usize) {
        loop {
            match migrate(outbox) {
                Err(error) if format!("{error:#}").contains("lock") => std::thread::yield_now(),
                done => break done.unwrap(),
            }
        }
        let opened = OutboxEngine::open(outbox, &OutboxOptions::default(), Arc::default()).unwrap();
        let stretch =
            Stretch { after: Position::ZERO, upto: Position(600), events_max: 10_000, bytes_max: usize::MAX };
        let events = opened.engine.reader().read(account(1), stretch).unwrap();
        assert!(events.iter().all(|read| **read == *event(read.position.0, 300)));
        (sorted(opened.recovered), events.len())
    }

    #[test]
    fn everything_is_there_afterwards_and_the_old_store_is_not() {
        let data = TempDir::new().unwrap();
        let outbox = data.path().join("outbox");
        let before = fill(&outbox.join("store"));
        assert_eq!(migrated(&outbox), (before, 200));
        assert!(!outbox.join("store").exists() && !data.path().join("outbox.new").exists());
    }

    #[test]
    fn one_that_was_cut_short_is_begun_again() {
        let data = TempDir::new().unwrap();
        let outbox = data.path().join("outbox");
        let before = fill(&outbox.join("store"));
        // What a crash leaves: half a copy, and parts that have moved already.
        for half in [data.path().join("outbox.new/settled"), outbox.join("journal"), outbox.join("settled")] {
            fs::create_dir_all(&half).unwrap();
            fs::write(half.join("half"), "half").unwrap();
        }
        assert_eq!(migrated(&outbox), (before, 200));
    }
}
