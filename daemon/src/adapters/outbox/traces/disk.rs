//! What a file system may hold after a power cut, by what was asked of it until then.
//!
//! The model:
//!
//! - An fsync or fdatasync of a file that has returned keeps all writes to that file that had returned before it began, and the
//!   length they made. It says nothing of the file's name.
//! - An fsync of a directory keeps the names that were made, taken away or changed in it before. It says nothing of what the
//!   named files hold, and nothing of the name of the directory itself.
//! - `sync_file_range` keeps nothing, nor does closing a file, nor time.
//! - Of everything else each part is there or is not: a write may be missing, torn at any border of 512 bytes, or there although
//!   one before it is missing, in the same file or another. A length may be there without the bytes, which are zeros then, and
//!   the bytes without the length, which are nothing then. A name may be missing while a later one in the same
//!   directory is there; only changes of one and the same name stay in their order. A rename is done or not.
//! - A sector never mixes: it holds what the page cache held of it at some moment between the last sync and the cut. A write
//!   that was under way may be in it in part, up to one of those borders.
//!
//! Invariants: everything is known by the trace alone; all chance comes from a seed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::content::{Change, Content, Directory, NameChange, What};
use super::strace::{Call, Step};

/// The file that is not followed: it holds zeros, and nobody reads them.
pub(super) const BALLAST: &str = "ballast";

/// What a recorded sync is taken for when the test itself is tried: a disk that does not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// All is done.
    Nothing,
    /// No sync of a segment of the journal.
    JournalSyncs,
    /// No sync of sled's database.
    SettledSyncs,
    /// No sync of a directory.
    NameSyncs,
}

#[derive(Clone)]
pub(super) enum Node {
    Directory(Directory),
    File(Content),
    Ballast,
}

/// A call between its beginning and its end.
pub(super) enum Begun {
    Change {
        node: usize,
        at: u64,
    },
    /// Covers the changes that were done when it began.
    Sync {
        node: usize,
        changes: HashSet<u64>,
    },
    SyncNames {
        node: usize,
        before: u64,
    },
    Other(Call),
}

/// What a run did of what there must be some in it, or the cuts are worth little.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Done {
    pub(super) spills: u64,
    pub(super) rotations: u64,
    pub(super) recycled: u64,
    /// Places of sled's database at which a segment begins that was written over while a sync had kept what was there.
    pub(super) reused: u64,
}

impl Done {
    pub(super) fn add(&mut self, other: Self) {
        self.spills += other.spills;
        self.rotations += other.rotations;
        self.recycled += other.recycled;
        self.reused += other.reused;
    }
}

/// The disk of a run.
pub(super) struct Disk {
    pub(super) run: Done,
    pub(super) root: PathBuf,
    pub(super) nodes: Vec<Node>,
    open: HashMap<i64, (usize, u64)>,
    pub(super) begun: HashMap<u64, Begun>,
    /// Calls in which the process died.
    pub(super) unknown: Vec<Call>,
    pub(super) clock: u64,
    missing: Missing,
}

/// Length of what a segment of the journal begins with.
const SEGMENT_HEADER: usize = 64;

/// Length of sled's segments, and of what they begin with.
const SLED_SEGMENT: u64 = 2 * 1024 * 1024;
const SLED_HEADER: usize = 20;

fn is_segment(bytes: &[u8]) -> bool {
    bytes.starts_with(b"QUAILSEG") && bytes.len() >= SEGMENT_HEADER
}

impl Disk {
    /// Begins with what is in the directory `base`, all of it durable, at the place `root`.
    pub(super) fn of(base: &Path, root: &Path, missing: Missing) -> Self {
        let mut disk = Self {
            root: root.to_owned(),
            nodes: Vec::new(),
            open: HashMap::new(),
            begun: HashMap::new(),
            run: Done::default(),
            unknown: Vec::new(),
            clock: 0,
            missing,
        };
        disk.load(base);
        disk
    }

    fn load(&mut self, path: &Path) -> usize {
        let index = self.nodes.len();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_file() {
            let seen = if name == BALLAST { Vec::new() } else { fs::read(path).unwrap() };
            let file = Content { durable: seen.clone(), seen, name: name.clone(), pending: Vec::new() };
            self.nodes.push(if name == BALLAST { Node::Ballast } else { Node::File(file) });
            return index;
        }
        self.nodes.push(Node::Directory(Directory::default()));
        let mut names = BTreeMap::new();
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            names.insert(entry.file_name().into_string().unwrap(), self.load(&entry.path()));
        }
        let durable = names.clone();
        self.nodes[index] = Node::Directory(Directory { seen: names, durable, pending: Vec::new() });
        index
    }

    /// Does what a trace says.
    pub(super) fn step(&mut self, step: &Step) {
        self.clock += 1;
        match step {
            Step::Begin { id, call } => self.begin(*id, call),
            Step::End { id, result } => {
                if let Some(begun) = self.begun.remove(id) {
                    self.end(begun, *result);
                }
            }
        }
    }

    fn begin(&mut self, id: u64, call: &Call) {
        let begun = match call {
            Call::Start => {
                self.open.clear();
                return;
            }
            // Its number may be given to another file before it is said that it returned.
            Call::Close { fd } => {
                self.open.remove(fd);
                return;
            }
            Call::Said(_) => return,
            Call::Write { fd, at, bytes } => {
                let (node, behind) = self.open.get_mut(fd).expect("an open file");
                let place = at.unwrap_or(*behind);
                if at.is_none() {
                    *behind += bytes.len() as u64;
                }
                let node = *node;
                self.change(node, What::Write(place, bytes.clone()))
            }
            Call::SetLength { fd, length } => self.change(self.open[fd].0, What::Length(*length)),
            Call::Sync { fd } => self.begin_sync(self.open[fd].0),
            other => Begun::Other(other.clone()),
        };
        self.begun.insert(id, begun);
    }

    fn change(&mut self, node: usize, what: What) -> Begun {
        let at = self.clock;
        if let Node::File(file) = &mut self.nodes[node] {
            if let What::Write(0, bytes) = &what
                && is_segment(&file.seen)
                && is_segment(bytes)
                && !file.seen.starts_with(&bytes[..SEGMENT_HEADER])
            {
                self.run.recycled += 1;
            }
            if let What::Write(place, bytes) = &what
                && file.name == "db"
                && place.is_multiple_of(SLED_SEGMENT)
                && let Some(kept) = file.durable.get(*place as usize..*place as usize + SLED_HEADER)
                && kept.iter().any(|byte| *byte != 0)
                && !bytes.starts_with(kept)
            {
                self.run.reused += 1;
            }
            file.pending.push(Change { at, what, is_done: false });
        }
        Begun::Change { node, at }
    }

    fn begin_sync(&self, node: usize) -> Begun {
        match &self.nodes[node] {
            Node::Directory(_) => {
                let before = if self.missing == Missing::NameSyncs { 0 } else { self.clock };
                Begun::SyncNames { node, before }
            }
            Node::File(file) => {
                let is_missing = match self.missing {
                    Missing::JournalSyncs => file.name.contains(".segment"),
                    Missing::SettledSyncs => file.name == "db",
                    Missing::Nothing | Missing::NameSyncs => false,
                };
                let done = file.pending.iter().filter(|change| change.is_done && !is_missing);
                Begun::Sync { node, changes: done.map(|change| change.at).collect() }
            }
            Node::Ballast => Begun::Sync { node, changes: HashSet::new() },
        }
    }

    fn end(&mut self, begun: Begun, result: Option<i64>) {
        match begun {
            Begun::Change { node, at } => {
                let Node::File(file) = &mut self.nodes[node] else { return };
                match result {
                    Some(0..) => file.done(at),
                    Some(_) => file.pending.retain(|change| change.at != at),
                    None => {}
                }
            }
            Begun::Sync { node, changes } => {
                if let Node::File(file) = &mut self.nodes[node]
                    && result == Some(0)
                {
                    self.run.spills += u64::from(file.name == "mark");
                    file.sync(&changes);
                }
            }
            Begun::SyncNames { node, before } => {
                if let Node::Directory(directory) = &mut self.nodes[node]
                    && result == Some(0)
                {
                    let covered = directory.pending.iter().take_while(|(at, _)| *at < before).count();
                    for (_, change) in directory.pending.drain(..covered) {
                        change.apply(&mut directory.durable);
                    }
                }
            }
            Begun::Other(call) => match result {
                Some(result @ 0..) => self.done(&call, Some(result)),
                Some(_) => {}
                None => self.unknown.push(call),
            },
        }
    }

    pub(super) fn done(&mut self, call: &Call, result: Option<i64>) {
        match call {
            Call::Open { path, creates, truncates } => {
                let (parent, name) = self.parent(path);
                let node = match self.directory(parent).seen.get(&name) {
                    _ if path == &self.root => 0,
                    Some(node) => *node,
                    None => {
                        assert!(creates, "{} was opened and is not there", path.display());
                        let file = Content { name: name.clone(), ..Content::default() };
                        self.nodes.push(if name == BALLAST { Node::Ballast } else { Node::File(file) });
                        self.name(parent, NameChange::Link(name, self.nodes.len() - 1));
                        self.nodes.len() - 1
                    }
                };
                if *truncates && matches!(&self.nodes[node], Node::File(file) if !file.seen.is_empty()) {
                    let begun = self.change(node, What::Length(0));
                    self.end(begun, Some(0));
                }
                if let Some(fd) = result {
                    self.open.insert(fd, (node, 0));
                }
            }
            Call::Duplicate { fd } => {
                let open = self.open[fd];
                self.open.extend(result.map(|fd| (fd, open)));
            }
            Call::MakeDirectory { path } => {
                let (parent, name) = self.parent(path);
                self.nodes.push(Node::Directory(Directory::default()));
                self.name(parent, NameChange::Link(name, self.nodes.len() - 1));
            }
            Call::Remove { path } => {
                let (parent, name) = self.parent(path);
                self.name(parent, NameChange::Unlink(name));
            }
            Call::Rename { from, to } => {
                let ((parent, from), (new_parent, to)) = (self.parent(from), self.parent(to));
                let is_there_before = self.directory(parent).seen.contains_key(&to);
                self.run.rotations += u64::from(is_there_before && to == "current");
                assert_eq!(parent, new_parent, "a rename from one directory to another");
                if let Some(node) = self.directory(parent).seen.get(&from).copied()
                    && let Node::File(file) = &mut self.nodes[node]
                {
                    file.name.clone_from(&to);
                }
                self.name(parent, NameChange::Rename(from, to));
            }
            other => unreachable!("{other:?} is no change of a name"),
        }
    }

    pub(super) fn directory(&self, node: usize) -> &Directory {
        match &self.nodes[node] {
            Node::Directory(directory) => directory,
            _ => panic!("not a directory"),
        }
    }

    fn name(&mut self, directory: usize, change: NameChange) {
        let Node::Directory(directory) = &mut self.nodes[directory] else { panic!("not a directory") };
        change.apply(&mut directory.seen);
        directory.pending.push((self.clock, change));
    }

    /// The directory that a path lies in, and its name there.
    pub(super) fn parent(&self, path: &Path) -> (usize, String) {
        let Ok(inner) = path.strip_prefix(&self.root) else { panic!("{} is elsewhere", path.display()) };
        let mut names: Vec<_> = inner.iter().map(|name| name.to_str().unwrap().to_owned()).collect();
        let last = names.pop().unwrap_or_default();
        let walk = |at: usize, name: &String| self.directory(at).seen[name];
        (names.iter().fold(0, walk), last)
    }
}
