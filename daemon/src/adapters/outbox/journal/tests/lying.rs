//! A disk in memory that lies as disks do: until a sync returns, what was written may be kept, dropped, torn or reordered.
//!
//! A file has two contents: what a read sees (the page cache) and what a power cut leaves, which is the content of the last
//! sync and some of the writes since, in any order. Names are the same with the sync of the directory. A sync can be told to
//! fail; then, as Linux does, the page cache keeps what the disk does not have, and the next sync says that all is well.
//!
//! Invariant: all chance comes from a seed.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::random::Random;
use crate::adapters::outbox::journal::disk::{BLOCK, Disk, File};

/// A disk writes these as a whole or not at all.
const SECTOR: usize = 512;

#[derive(Clone, Default)]
struct Content {
    /// What a read sees.
    seen: Vec<u8>,
    /// What is durable.
    durable: Vec<u8>,
    /// Written since the last sync.
    pending: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone)]
enum Change {
    Create(String, usize),
    Remove(String),
    Rename(String, String),
}

#[derive(Clone, Default)]
struct State {
    contents: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending: Vec<Change>,
    /// Calls that change something, so far.
    calls: u64,
    /// From this call on there is no power.
    cut_at: Option<u64>,
    /// This sync of a file, counted from now, fails.
    failing_sync: Option<u64>,
    syncs: u64,
    reads: u64,
}

/// The disk. Clones are the same disk.
#[derive(Clone, Default)]
pub(super) struct LyingDisk(Arc<Mutex<State>>);

struct LyingFile {
    disk: LyingDisk,
    index: usize,
}

/// How a power cut treats a write that was not synced.
#[derive(Clone, Copy)]
enum Fate {
    Kept,
    Dropped,
    Prefix,
    Sectors,
}

fn no_power() -> io::Error {
    io::Error::other("the power is gone")
}

fn apply(names: &mut BTreeMap<String, usize>, change: &Change) {
    match change {
        Change::Create(name, index) => {
            names.insert(name.clone(), *index);
        }
        Change::Remove(name) => {
            names.remove(name);
        }
        Change::Rename(from, to) => {
            if let Some(index) = names.remove(from) {
                names.insert(to.clone(), index);
            }
        }
    }
}

fn write(bytes: &mut Vec<u8>, offset: usize, piece: &[u8]) {
    if bytes.len() < offset + piece.len() {
        bytes.resize(offset + piece.len(), 0);
    }
    bytes[offset..offset + piece.len()].copy_from_slice(piece);
}

impl Content {
    /// Leaves what the power cut leaves.
    fn cut(&mut self, random: &mut Random) {
        let mut pending = std::mem::take(&mut self.pending);
        // Reordered: where writes overlap, any may be the last.
        for at in (1..pending.len()).rev() {
            pending.swap(at, random.below(at as u64 + 1) as usize);
        }
        for (offset, piece) in pending {
            let fate = [Fate::Kept, Fate::Dropped, Fate::Prefix, Fate::Sectors][random.below(4) as usize];
            match fate {
                Fate::Kept => write(&mut self.durable, offset, &piece),
                Fate::Dropped => {}
                Fate::Prefix => {
                    let kept = random.below(piece.len() as u64 + 1) as usize;
                    write(&mut self.durable, offset, &piece[..kept]);
                }
                Fate::Sectors => {
                    let mut at = 0;
                    while at < piece.len() {
                        let end = (at + SECTOR - (offset + at) % SECTOR).min(piece.len());
                        if random.percent(50) {
                            write(&mut self.durable, offset + at, &piece[at..end]);
                        }
                        at = end;
                    }
                }
            }
        }
        self.seen.clone_from(&self.durable);
    }
}

impl State {
    /// Counts a call that changes something.
    fn call(&mut self) -> io::Result<()> {
        if self.cut_at.is_some_and(|at| self.calls >= at) {
            return Err(no_power());
        }
        self.calls += 1;
        Ok(())
    }
}

impl LyingDisk {
    /// How often a file was read.
    pub(super) fn reads(&self) -> u64 {
        self.with(|state| state.reads)
    }

    fn with<T>(&self, then: impl FnOnce(&mut State) -> T) -> T {
        then(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn shared(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    /// Calls that changed something so far.
    pub(super) fn calls(&self) -> u64 {
        self.with(|state| state.calls)
    }

    /// Cuts the power before the call of this number; from then on every one fails.
    pub(super) fn cut_at(&self, call: u64) {
        self.with(|state| state.cut_at = Some(call));
    }

    /// Lets the sync of a file fail that comes after `passed` others.
    pub(super) fn fail_sync_after(&self, passed: u64) {
        self.with(|state| state.failing_sync = Some(state.syncs + passed));
    }

    /// Returns what is there when the power comes back.
    pub(super) fn after_power_cut(&self, random: &mut Random) -> Self {
        let mut state = self.with(|state| state.clone());
        let pending = std::mem::take(&mut state.pending);
        // A file system keeps the order of names; how far it got is chance.
        let kept = random.below(pending.len() as u64 + 1) as usize;
        for change in pending.iter().take(kept) {
            apply(&mut state.durable_names, change);
        }
        state.names.clone_from(&state.durable_names);
        for content in &mut state.contents {
            content.cut(random);
        }
        (state.cut_at, state.failing_sync) = (None, None);
        Self(Arc::new(Mutex::new(state)))
    }

    /// Returns what is there when the process was killed: all that was written.
    pub(super) fn after_kill(&self) -> Self {
        let mut state = self.with(|state| state.clone());
        (state.cut_at, state.failing_sync) = (None, None);
        Self(Arc::new(Mutex::new(state)))
    }

    /// Returns a copy that shares nothing with this one.
    pub(super) fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.with(|state| state.clone()))))
    }

    /// Returns the bytes of a file.
    pub(super) fn bytes(&self, name: &str) -> Vec<u8> {
        self.with(|state| state.contents[state.names[name]].seen.clone())
    }

    /// Replaces the bytes of a file, durably.
    pub(super) fn set_bytes(&self, name: &str, bytes: Vec<u8>) {
        self.with(|state| {
            let index = state.names[name];
            state.contents[index] = Content { seen: bytes.clone(), durable: bytes, pending: Vec::new() };
        });
    }

    /// Flips a bit of a file.
    pub(super) fn flip(&self, name: &str, at: usize, bit: u8) {
        self.with(|state| {
            let index = state.names[name];
            let content = &mut state.contents[index];
            content.seen[at] ^= 1 << bit;
            if let Some(byte) = content.durable.get_mut(at) {
                *byte ^= 1 << bit;
            }
        });
    }

    /// Takes a file away, durably.
    pub(super) fn lose(&self, name: &str) {
        self.with(|state| {
            state.names.remove(name);
            state.durable_names.remove(name);
        });
    }

    /// Returns the names of all segments, in order.
    pub(super) fn segments(&self) -> Vec<String> {
        self.with(|state| state.names.keys().filter(|name| name.ends_with(".segment")).cloned().collect())
    }
}

impl Disk for LyingDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.with(|state| {
            state.call()?;
            let index = state.contents.len();
            state.contents.push(Content::default());
            let change = Change::Create(name.to_owned(), index);
            apply(&mut state.names, &change);
            state.pending.push(change);
            Ok(Arc::new(LyingFile { disk: self.clone(), index }) as Arc<dyn File>)
        })
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let index = self.with(|state| state.names.get(name).copied());
        let index = index.ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(LyingFile { disk: self.clone(), index }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.with(|state| state.names.keys().cloned().collect()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.with(|state| {
            state.call()?;
            if !state.names.contains_key(name) {
                return Err(io::ErrorKind::NotFound.into());
            }
            let change = Change::Remove(name.to_owned());
            apply(&mut state.names, &change);
            state.pending.push(change);
            Ok(())
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.with(|state| {
            state.call()?;
            let change = Change::Rename(from.to_owned(), to.to_owned());
            apply(&mut state.names, &change);
            state.pending.push(change);
            Ok(())
        })
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.with(|state| {
            state.call()?;
            state.pending.clear();
            state.durable_names.clone_from(&state.names);
            Ok(())
        })
    }
}

impl File for LyingFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.with(|state| {
            // What was being written when the power went is among what may be torn.
            let is_last = state.cut_at == Some(state.calls + 1);
            let called = state.call();
            let content = &mut state.contents[self.index];
            if called.is_ok() {
                let end = offset as usize + bytes.len();
                // Whatever is behind them in their block goes, as it may.
                let padded = end.next_multiple_of(BLOCK).min(content.seen.len()).max(end);
                let mut piece = bytes.to_vec();
                piece.resize(padded - offset as usize, 0);
                write(&mut content.seen, offset as usize, &piece);
                content.pending.push((offset as usize, piece));
            }
            if is_last { Err(no_power()) } else { called }
        })
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.with(|state| {
            state.reads += 1;
            let seen = &state.contents[self.index].seen;
            let from = seen.get(offset as usize..offset as usize + bytes.len());
            bytes.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.with(|state| {
            state.call()?;
            state.syncs += 1;
            let is_failing = state.failing_sync.is_some_and(|at| state.syncs > at);
            let content = &mut state.contents[self.index];
            if is_failing {
                state.failing_sync = None;
                // The page cache calls them clean and keeps them; the disk never had them.
                content.pending.clear();
                return Err(io::Error::other("the disk failed"));
            }
            for (offset, piece) in std::mem::take(&mut content.pending) {
                write(&mut content.durable, offset, &piece);
            }
            // Zeros that a longer file was filled with are its length.
            if content.durable.len() < content.seen.len() {
                content.durable.resize(content.seen.len(), 0);
            }
            Ok(())
        })
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.with(|state| state.contents[self.index].seen.len() as u64))
    }
}
