//! The origin of a data directory: a number from the directory, and the origins it had before.
//!
//! Positions mean something only together with the data that counted them. So the data directory gets a new origin whenever
//! its outbox is not the one that the last start left: it is empty, it was copied from elsewhere or restored from an older
//! copy, or a part of it was damaged and set aside. What it still holds it carries on under the new number.
//!
//! ```text
//! outbox/origin   the number of the outbox; whoever removes the outbox removes it, too
//! origins         which outbox that was (birth and inode of its directory), and every origin before, with the last
//!                 position that was carried on
//! ```
//!
//! Invariant: the files are written before anything is accepted under a new number.

use std::fmt;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::Context;
use quail_core::ports::directory::Directory;
use quail_core::{ANCESTORS_MAX, Ancestor};
use quail_protocol::id::{Origin, Position};

use crate::ops::clock::unix_ms;
use crate::ops::files::write_atomically;

/// First line of the file `origins`.
const HEAD: &str = "quail-origins 1";

/// Where the numbers stand.
#[derive(Clone, Debug)]
pub(super) struct OriginFiles {
    /// The directory of the outbox.
    pub(super) outbox: PathBuf,
    /// The file `origins`.
    pub(super) history: PathBuf,
}

/// Which origin this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lineage {
    /// Its number.
    pub(super) origin: Origin,
    /// The origins it carries on, the latest first.
    pub(super) ancestors: Vec<Ancestor>,
}

/// What the last start left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct History {
    /// The origin, and the birth and inode of its outbox directory.
    current: Option<(Origin, u64, u64)>,
    ancestors: Vec<Ancestor>,
}

/// What was found in the outbox directory, before it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// What the last start left under this number.
    Same(Origin),
    /// Something else under this number: a copy.
    Copy(Origin),
}

/// What was found in the outbox directory, and what came before it. To be looked at before the outbox is opened.
#[derive(Debug)]
pub(super) struct Past {
    files: OriginFiles,
    found: Found,
    history: History,
}

impl Past {
    /// Looks at an outbox directory that has not been opened yet. An empty one gets its number here, so that it is never
    /// seen with a store and without a number.
    pub(super) async fn look(files: OriginFiles, directory: &dyn Directory) -> anyhow::Result<Self> {
        let mut history = History::read(&files.history)?;
        let found = match find(&files, &history)? {
            Some(found) => found,
            None => {
                let new = directory.register_origin(unix_ms()).await.context("register a new origin")?;
                tracing::info!(%new, "new origin");
                history.ended(None, Position::ZERO);
                history.write(&files, new)?;
                Found::Same(new)
            }
        };
        Ok(Self { files, found, history })
    }

    /// Returns the number that was found, or that was given to an empty one.
    pub(super) fn found(&self) -> Origin {
        match self.found {
            Found::Same(origin) | Found::Copy(origin) => origin,
        }
    }

    /// Decides which origin the outbox is, now that it is open and is known to hold events up to `last_position`, and
    /// whether a part of it was `set_aside`.
    pub(super) async fn decide(
        mut self,
        last_position: Position,
        set_aside: bool,
        directory: &dyn Directory,
    ) -> anyhow::Result<Lineage> {
        let origin = match self.found {
            Found::Same(origin) if !set_aside => origin,
            Found::Same(origin) | Found::Copy(origin) => {
                let new = directory.register_origin(unix_ms()).await.context("register a new origin")?;
                tracing::warn!(was = %origin, %new, %last_position, "the outbox is not the one that was left: new origin");
                self.history.ended(Some(origin), last_position);
                new
            }
        };
        self.history.write(&self.files, origin)?;
        Ok(Lineage { origin, ancestors: self.history.ancestors })
    }
}

/// What stands in both files, for an operator whose daemon is stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OriginReport {
    /// The number of the outbox; `None` if there is none yet.
    pub(super) origin: Option<Origin>,
    /// Whether the outbox is another one than the last start left: the next start makes it a new origin.
    pub(super) is_copy: bool,
    /// The origins before, the latest first.
    pub(super) ancestors: Vec<Ancestor>,
    /// What keeps a start from knowing which origin this is.
    pub(super) faults: Vec<String>,
}

impl OriginFiles {
    /// Looks at both files as a start would, and changes nothing.
    pub(super) fn check(&self) -> OriginReport {
        let mut report = OriginReport::default();
        let history = History::read(&self.history).unwrap_or_else(|error| {
            report.faults.push(format!("{error:#}"));
            History::default()
        });
        match find(self, &history) {
            Ok(Some(Found::Same(origin))) => report.origin = Some(origin),
            Ok(Some(Found::Copy(origin))) => (report.origin, report.is_copy) = (Some(origin), true),
            Ok(None) => {}
            Err(error) => report.faults.push(format!("{error:#}")),
        }
        report.ancestors = history.ancestors;
        report
    }
}

/// Returns what is in the outbox directory; `None` if it is empty.
fn find(files: &OriginFiles, history: &History) -> anyhow::Result<Option<Found>> {
    let file = files.outbox.join("origin");
    let Some(text) = read(&file)? else {
        let held = ["store", "journal", "settled"].into_iter().find(|part| files.outbox.join(part).exists());
        anyhow::ensure!(
            held.is_none(),
            "the outbox in {} has lost its origin file; restore it, or move the outbox away to begin a new one",
            files.outbox.display()
        );
        return Ok(None);
    };
    let origin = text.trim().parse().map(Origin);
    let origin = origin.with_context(|| format!("read a number from {}", file.display()))?;
    // Before there was a history nobody looked; that outbox counts as the one it was.
    let (born, inode) = identity(&files.outbox)?;
    let is_same = history.current.is_none_or(|current| current == (origin, born, inode));
    Ok(Some(if is_same { Found::Same(origin) } else { Found::Copy(origin) }))
}

impl History {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let Some(text) = read(path)? else { return Ok(Self::default()) };
        Self::parse(&text).with_context(|| {
            format!("{} is damaged; restore it, or remove it if the outbox was never copied", path.display())
        })
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut lines = text.lines();
        let head = lines.next();
        anyhow::ensure!(head == Some(HEAD), "the first line is not \"{HEAD}\"");
        let mut history = Self::default();
        for line in lines {
            let words: Vec<_> = line.split(' ').collect();
            match words[..] {
                ["is", origin, born, inode] => {
                    history.current = Some((Origin(origin.parse()?), born.parse()?, inode.parse()?));
                }
                ["was", origin, inherited] => {
                    let (origin, inherited) = (Origin(origin.parse()?), Position(inherited.parse()?));
                    history.ancestors.push(Ancestor { origin, inherited });
                }
                _ => anyhow::bail!("cannot read the line {line:?}"),
            }
        }
        Ok(history)
    }

    /// Takes note that what is left of `origin`, up to a position, goes on under another number. Of every other one no more
    /// can be left than that, and of the one that was here last nothing, unless it is that one.
    fn ended(&mut self, origin: Option<Origin>, inherited: Position) {
        for older in &mut self.ancestors {
            older.inherited = older.inherited.min(inherited);
        }
        let mut ancestors: Vec<_> = origin.map(|origin| Ancestor { origin, inherited }).into_iter().collect();
        let current = self.current.take();
        ancestors.extend(current.map(|(origin, ..)| Ancestor { origin, inherited: Position::ZERO }));
        ancestors.append(&mut self.ancestors);
        let mut seen = Vec::new();
        ancestors.retain(|ancestor| {
            let is_new = !seen.contains(&ancestor.origin);
            seen.push(ancestor.origin);
            is_new
        });
        ancestors.truncate(ANCESTORS_MAX);
        self.ancestors = ancestors;
    }
}

impl History {
    /// Writes down which outbox this is. The history first: after a crash in between it and the number disagree, which counts
    /// as a copy, and becomes one more origin of which nobody has heard.
    fn write(&mut self, files: &OriginFiles, origin: Origin) -> anyhow::Result<()> {
        let OriginFiles { outbox, history } = files;
        std::fs::create_dir_all(outbox).with_context(|| format!("make {}", outbox.display()))?;
        let (born, inode) = identity(outbox)?;
        if self.current.replace((origin, born, inode)) == Some((origin, born, inode)) {
            return Ok(());
        }
        write_atomically(history, self.to_string().as_bytes(), 0o600)
            .with_context(|| format!("write {}", history.display()))?;
        let file = outbox.join("origin");
        write_atomically(&file, format!("{origin}\n").as_bytes(), 0o600)
            .with_context(|| format!("write {}", file.display()))
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEAD}")?;
        if let Some((origin, born, inode)) = self.current {
            writeln!(f, "is {origin} {born} {inode}")?;
        }
        for Ancestor { origin, inherited } in &self.ancestors {
            writeln!(f, "was {origin} {inherited}")?;
        }
        Ok(())
    }
}

fn read(path: &Path) -> anyhow::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// Returns when a directory was made, in nanoseconds since the Unix epoch, and its inode. No copy has both, whatever made it:
/// an inode alone is given again as soon as its directory is gone. The number of the device tells nothing more, and it may
/// change with a restart of the machine; it stands in where the file system does not know the time.
fn identity(path: &Path) -> anyhow::Result<(u64, u64)> {
    let metadata = std::fs::metadata(path).with_context(|| format!("look at {}", path.display()))?;
    let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    let born = born.and_then(|since| u64::try_from(since.as_nanos()).ok());
    Ok((born.unwrap_or_else(|| metadata.dev()), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use quail_core::ports::directory::TwinDirectory;
    use tempfile::TempDir;

    use super::*;

    fn files(data: &TempDir) -> OriginFiles {
        OriginFiles { outbox: data.path().join("outbox"), history: data.path().join("origins") }
    }

    async fn open(data: &TempDir, directory: &TwinDirectory, last: u64, set_aside: bool) -> Lineage {
        let past = Past::look(files(data), directory).await.unwrap();
        let lineage = past.decide(Position(last), set_aside, directory).await.unwrap();
        std::fs::write(data.path().join("outbox/journal"), "").unwrap();
        lineage
    }

    /// Puts a copy in the place of the outbox, as a restore does.
    fn restore(data: &TempDir) {
        let (outbox, aside) = (data.path().join("outbox"), data.path().join("aside"));
        std::fs::create_dir(&aside).unwrap();
        for file in ["origin", "journal"] {
            std::fs::copy(outbox.join(file), aside.join(file)).unwrap();
        }
        // Removed before it is made again: then a file system may give the same inode once more.
        std::fs::remove_dir_all(&outbox).unwrap();
        std::fs::create_dir(&outbox).unwrap();
        for file in ["origin", "journal"] {
            std::fs::copy(aside.join(file), outbox.join(file)).unwrap();
        }
        std::fs::remove_dir_all(aside).unwrap();
    }

    #[tokio::test]
    async fn an_origin_stays_with_its_outbox() {
        let (data, directory) = (TempDir::new().unwrap(), TwinDirectory::default());
        let first = open(&data, &directory, 0, false).await;
        assert_eq!(first.ancestors, []);
        assert_eq!(open(&data, &directory, 10, false).await, first);
    }

    #[tokio::test]
    async fn an_empty_outbox_is_a_new_origin_with_nothing_of_the_old() {
        let (data, directory) = (TempDir::new().unwrap(), TwinDirectory::default());
        let first = open(&data, &directory, 0, false).await.origin;
        std::fs::remove_dir_all(data.path().join("outbox")).unwrap();
        let second = open(&data, &directory, 0, false).await;
        assert_ne!(second.origin, first);
        assert_eq!(second.ancestors, [Ancestor { origin: first, inherited: Position::ZERO }]);
        assert_eq!(open(&data, &directory, 10, false).await, second);
    }

    #[tokio::test]
    async fn a_copy_and_a_damaged_outbox_are_new_origins_that_carry_on() {
        let (data, directory) = (TempDir::new().unwrap(), TwinDirectory::default());
        let first = open(&data, &directory, 0, false).await.origin;
        restore(&data);
        let second = open(&data, &directory, 500, false).await;
        assert_ne!(second.origin, first);
        assert_eq!(second.ancestors, [Ancestor { origin: first, inherited: Position(500) }]);
        assert_eq!(open(&data, &directory, 600, false).await, second);
        let third = open(&data, &directory, 450, true).await;
        let inherited = Position(450);
        assert_eq!(
            third.ancestors,
            [Ancestor { origin: second.origin, inherited }, Ancestor { origin: first, inherited }]
        );
        assert_eq!(open(&data, &directory, 460, false).await, third);
    }

    #[tokio::test]
    async fn a_check_sees_what_a_start_would_and_changes_nothing() {
        let (data, directory) = (TempDir::new().unwrap(), TwinDirectory::default());
        assert_eq!(files(&data).check(), OriginReport::default());
        let first = open(&data, &directory, 0, false).await.origin;
        let same = OriginReport { origin: Some(first), ..OriginReport::default() };
        assert_eq!(files(&data).check(), same);
        restore(&data);
        for _ in 0..2 {
            assert_eq!(files(&data).check(), OriginReport { is_copy: true, ..same.clone() });
        }
        let second = open(&data, &directory, 500, false).await;
        let Lineage { origin, ancestors } = second;
        let after = OriginReport { origin: Some(origin), ancestors, ..OriginReport::default() };
        assert_eq!(files(&data).check(), after);
        std::fs::remove_file(data.path().join("outbox/origin")).unwrap();
        std::fs::write(data.path().join("origins"), "quail-origins 1\nis x\n").unwrap();
        assert_eq!(files(&data).check().faults.len(), 2);
    }

    #[tokio::test]
    async fn what_cannot_be_understood_is_not_guessed_at() {
        let (data, directory) = (TempDir::new().unwrap(), TwinDirectory::default());
        open(&data, &directory, 0, false).await;
        std::fs::remove_file(data.path().join("outbox/origin")).unwrap();
        let error = Past::look(files(&data), &directory).await.unwrap_err();
        assert!(error.to_string().contains("lost its origin file"), "{error}");
        std::fs::write(data.path().join("origins"), "quail-origins 1\nis x\n").unwrap();
        let error = Past::look(files(&data), &directory).await.unwrap_err();
        assert!(format!("{error:#}").contains("is damaged"), "{error:#}");
    }
}
