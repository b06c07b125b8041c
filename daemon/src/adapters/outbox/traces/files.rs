//! Between the disk of a model and real files: what a run left is compared with it, and what a cut leaves is written down.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::Dice;
use super::content::{Content, What};
use super::cut::Cut;
use super::disk::{Disk, Node};
use super::strace::Call;

/// Length of the ballast, in bytes.
const BALLAST_BYTES: u64 = 32 * 1024 * 1024;

/// Makes a ballast that takes no room.
pub(super) fn make_ballast(path: &Path) {
    File::create(path).unwrap().set_len(BALLAST_BYTES).unwrap();
}

impl Disk {
    /// Takes what is really there, at the end of a process, for what the calls did in which it died, and fails if the rest is
    /// not as the trace says: then a call was missed or misread.
    pub(super) fn compare(&mut self, root: &Path) {
        self.begun.clear();
        for call in std::mem::take(&mut self.unknown) {
            let is_there = |path: &Path| root.join(path.strip_prefix(&self.root).unwrap()).exists();
            let was_done = match &call {
                Call::Open { path, .. } | Call::MakeDirectory { path } => is_there(path),
                Call::Remove { path } => !is_there(path),
                Call::Rename { from, to } => is_there(to) && !is_there(from),
                _ => false,
            };
            let is_new = match &call {
                Call::MakeDirectory { path } => {
                    let (parent, name) = self.parent(path);
                    !self.directory(parent).seen.contains_key(&name)
                }
                _ => true,
            };
            if was_done && is_new {
                self.done(&call, None);
            }
        }
        self.compare_node(0, root);
    }

    fn compare_node(&mut self, node: usize, path: &Path) {
        match &mut self.nodes[node] {
            Node::Ballast => {}
            Node::Directory(directory) => {
                let seen = directory.seen.clone();
                let mut names: Vec<_> =
                    fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
                names.sort();
                assert!(
                    seen.keys().eq(names.iter().map(|name| name.to_str().unwrap())),
                    "{seen:?} is {names:?}"
                );
                for (name, node) in seen {
                    self.compare_node(node, &path.join(name));
                }
            }
            Node::File(file) => {
                let found = fs::read(path).unwrap();
                let Content { seen, pending, .. } = file;
                for change in pending.iter_mut().filter(|change| !change.is_done) {
                    if let What::Write(at, bytes) = &mut change.what {
                        let (at, end) =
                            ((*at as usize).min(found.len()), (*at as usize + bytes.len()).min(found.len()));
                        *bytes = found[at..end].to_vec();
                    } else {
                        change.what = What::Length(found.len() as u64);
                    }
                    change.is_done = true;
                    change.what.apply(seen);
                }
                pending.retain(|change| !matches!(&change.what, What::Write(_, bytes) if bytes.is_empty()));
                let differs = seen.iter().zip(&found).position(|(one, other)| one != other);
                assert!(
                    differs.is_none() && seen.len() == found.len(),
                    "{} has {} bytes and should have {}; they differ at {differs:?}",
                    path.display(),
                    found.len(),
                    seen.len()
                );
            }
        }
    }

    /// Writes down what a cut now leaves.
    pub(super) fn leave(&self, cut: &mut Cut<'_>, to: &Path) {
        self.leave_node(0, cut, to);
    }

    fn leave_node(&self, node: usize, cut: &mut Cut<'_>, to: &Path) {
        match &self.nodes[node] {
            Node::Ballast => make_ballast(to),
            Node::File(file) => File::create(to).unwrap().write_all_at(&cut.content(file), 0).unwrap(),
            Node::Directory(directory) => {
                fs::create_dir(to).unwrap();
                for (name, node) in cut.names(directory) {
                    self.leave_node(node, cut, &to.join(name));
                }
            }
        }
    }

    /// Returns a moment at which something happened that no sync covers.
    pub(super) fn moment(&self, dice: &mut Dice) -> u64 {
        let moments = self.nodes.iter().flat_map(|node| match node {
            Node::Directory(directory) => directory.pending.iter().map(|(at, _)| *at).collect::<Vec<_>>(),
            Node::File(file) => file.pending.iter().map(|change| change.at).collect(),
            Node::Ballast => Vec::new(),
        });
        let moments: Vec<_> = moments.collect();
        moments.get(dice.below(moments.len().max(1) as u64) as usize).copied().unwrap_or_default()
    }
}
