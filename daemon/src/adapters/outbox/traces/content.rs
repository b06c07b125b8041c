//! Files and directories as they are seen, as they are durable, and the changes in between.

use std::collections::{BTreeMap, HashSet};

/// A change of a file that no sync covers yet.
#[derive(Clone)]
pub(super) struct Change {
    /// When it was begun, on the clock of the disk.
    pub(super) at: u64,
    pub(super) what: What,
    /// Whether its call has returned.
    pub(super) is_done: bool,
}

#[derive(Clone)]
pub(super) enum What {
    Write(u64, Vec<u8>),
    Length(u64),
}

/// A file.
#[derive(Clone, Default)]
pub(super) struct Content {
    /// The last name it got.
    pub(super) name: String,
    /// What a read sees.
    pub(super) seen: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) pending: Vec<Change>,
}

/// A change of a directory that no sync covers yet.
#[derive(Clone)]
pub(super) enum NameChange {
    Link(String, usize),
    Unlink(String),
    Rename(String, String),
}

#[derive(Clone, Default)]
pub(super) struct Directory {
    pub(super) seen: BTreeMap<String, usize>,
    pub(super) durable: BTreeMap<String, usize>,
    pub(super) pending: Vec<(u64, NameChange)>,
}

impl NameChange {
    pub(super) fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Link(name, node) => {
                names.insert(name.clone(), *node);
            }
            Self::Unlink(name) => {
                names.remove(name);
            }
            Self::Rename(from, to) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
        }
    }

    pub(super) fn names(&self) -> Vec<&String> {
        match self {
            Self::Link(name, _) | Self::Unlink(name) => vec![name],
            Self::Rename(from, to) => vec![from, to],
        }
    }
}

impl What {
    pub(super) fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(at, written) => {
                let (at, end) = (*at as usize, *at as usize + written.len());
                bytes.resize(bytes.len().max(end), 0);
                bytes[at..end].copy_from_slice(written);
            }
            Self::Length(length) => bytes.resize(*length as usize, 0),
        }
    }
}

impl Content {
    pub(super) fn sync(&mut self, covered: &HashSet<u64>) {
        let durable = &mut self.durable;
        self.pending.retain(|change| {
            let is_covered = covered.contains(&change.at);
            if is_covered {
                change.what.apply(durable);
            }
            !is_covered
        });
    }

    pub(super) fn done(&mut self, at: u64) {
        let change = self.pending.iter_mut().find(|change| change.at == at);
        let change = change.expect("nothing is covered before it is done");
        change.is_done = true;
        change.what.apply(&mut self.seen);
    }
}
