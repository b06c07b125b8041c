//! `quaild store check`: what a start would find in a data directory, told while no daemon runs on it.
//!
//! Why offline and by the same program: only the program knows what belongs there, and a store that is being written cannot
//! be told from a damaged one. The lock of the data directory keeps daemon and check apart.
//!
//! Invariants: nothing is looked at before the lock is held; no new origin is made, nothing is migrated and nothing set
//! aside here, that is for a start; whatever lies in the directory, the check ends with a report or an error.

mod print;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::data_dir::{DataDir, DataDirError, DataPaths, FORMAT_VERSION};
use super::origin::{OriginFiles, OriginReport};
use crate::adapters::outbox::{OutboxEngine, OutboxReport};

const EXAMPLES: &str = "\
Examples:
  quaild store check
  quaild --data /var/lib/quail store check
  sudo -u quail quaild --data /var/lib/quail store check --json | jq .outbox.lost

It works on the directory itself, while the daemon is stopped and as the daemon's user. The journal is only read, but the \
settled store is opened as a start opens it, which mends what an interrupted write left. Who wants to get more out of a \
damaged disk copies the directory first.

Exit code 0: all is as it was written. A write that was under way when the daemon stopped is no damage: nobody was \
answered on it. 1: something is damaged or cannot be opened; standard output has what is lost, standard error the next \
step. 2: wrong usage.

--json prints one object. Its outbox is null where an earlier release wrote the directory, which the next start migrates.";

/// Look after the store of a daemon that is stopped
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(super) struct Store {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
enum StoreCommand {
    /// Go through everything in the data directory's outbox and say what is there and what is lost. Exit with 1 on damage
    #[command(after_help = EXAMPLES)]
    Check {
        /// Print JSON: one object
        #[arg(long)]
        json: bool,
    },
}

/// Why a check did not end well. The operator has to act on each.
#[derive(Debug, thiserror::Error)]
pub(in crate::app) enum StoreCheckError {
    /// What is being written cannot be checked.
    #[error("a quaild is running on the data directory {}", path.display())]
    Running {
        /// The directory.
        path: PathBuf,
    },
    /// Files that are made here would be out of the daemon's reach.
    #[error("the data directory {} is that of the user with the id {owner}, and this is {user}", path.display())]
    OtherUser {
        /// The directory.
        path: PathBuf,
        /// Who made it.
        owner: u32,
        /// Who asks.
        user: u32,
    },
    /// Something in it is not what was written.
    #[error("the data directory {} is damaged", path.display())]
    Damaged {
        /// The directory.
        path: PathBuf,
    },
    /// A fault of this program.
    #[error("the check of {} panicked", path.display())]
    Panicked {
        /// The directory.
        path: PathBuf,
    },
}

impl StoreCheckError {
    /// Returns the operator's next step.
    pub(in crate::app) fn hint(&self) -> &'static str {
        match self {
            Self::Running { .. } => {
                "stop it first; `quaild admin status` and the metrics tell of one that runs"
            }
            Self::OtherUser { .. } => "run the check as that user, as in sudo -u quail quaild store check",
            Self::Damaged { .. } => {
                "see that disk and memory are sound; what is lost may be in a backup; a start goes on with what is whole and \
                 tells devices of gaps"
            }
            Self::Panicked { .. } => {
                "that is a fault of quaild: please report it; the next start may do better"
            }
        }
    }
}

/// What a check found in a data directory.
struct Report {
    data: PathBuf,
    format: u32,
    origin: OriginReport,
    /// `None`: an earlier release wrote it, and the next start migrates it.
    outbox: Option<OutboxReport>,
    /// What an interrupted migration left beside the outbox.
    leftovers: Vec<PathBuf>,
}

impl Report {
    fn is_clean(&self) -> bool {
        self.origin.faults.is_empty() && self.outbox.as_ref().is_none_or(OutboxReport::is_clean)
    }
}

/// Carries out a command on a data directory.
pub(super) fn run(root: &Path, store: &Store) -> anyhow::Result<()> {
    let StoreCommand::Check { json } = store.command;
    let report = quietly(|| look(root))?;
    super::print(&if json { print::json(&report) } else { print::human(&report) })?;
    if report.is_clean() { Ok(()) } else { Err(StoreCheckError::Damaged { path: report.data }.into()) }
}

fn look(root: &Path) -> anyhow::Result<Report> {
    let paths = DataPaths::existing(root)?;
    check_user(&paths)?;
    let (data, format) = DataDir::inspect(root).map_err(|error| match error {
        DataDirError::InUse { path } => anyhow::Error::new(StoreCheckError::Running { path }),
        error => error.into(),
    })?;
    let paths = data.paths();
    let origin = OriginFiles { outbox: paths.outbox(), history: paths.origins() }.check();
    // A migration marks the directory as new first and takes the old store away last.
    let is_old = format < FORMAT_VERSION || paths.outbox().join("store").exists();
    let outbox = if is_old { None } else { Some(outbox(paths)?) };
    let leftovers = Some(paths.outbox().with_file_name("outbox.new")).filter(|path| path.exists());
    let leftovers = leftovers.into_iter().collect();
    Ok(Report { data: paths.root().to_owned(), format, origin, outbox, leftovers })
}

/// Files that a check makes belong to who runs it.
fn check_user(paths: &DataPaths) -> anyhow::Result<()> {
    let (path, user) = (paths.root().to_owned(), rustix::process::geteuid().as_raw());
    let owner = fs::metadata(paths.format()).map(|format| format.uid());
    let owner = owner.map_err(|source| DataDirError::Unreadable { path: paths.format(), source })?;
    if owner == user { Ok(()) } else { Err(StoreCheckError::OtherUser { path, owner, user }.into()) }
}

/// Does something without anything being printed about panics: sled panics over some of what it may find, which is caught and
/// becomes part of the report. For a process that does nothing else meanwhile.
fn quietly<T>(look: impl FnOnce() -> T) -> T {
    let hook = take_hook();
    set_hook(Box::new(|_| {}));
    let looked = look();
    set_hook(hook);
    looked
}

fn outbox(paths: &DataPaths) -> anyhow::Result<OutboxReport> {
    let checked = catch_unwind(AssertUnwindSafe(|| OutboxEngine::check(&paths.outbox())));
    let panicked = |_| StoreCheckError::Panicked { path: paths.root().to_owned() };
    Ok(checked.map_err(panicked)??)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tempfile::TempDir;

    use super::*;
    use crate::adapters::outbox::OutboxOptions;

    fn data() -> TempDir {
        let root = TempDir::new().unwrap();
        drop(DataDir::open(root.path()).unwrap());
        root
    }

    /// sled gives its lock back a moment after it was dropped.
    fn looked(root: &Path) -> Report {
        loop {
            match look(root) {
                Err(error) if format!("{error:#}").contains("acquire lock") => std::thread::yield_now(),
                looked => return looked.unwrap(),
            }
        }
    }

    #[test]
    fn a_data_directory_without_an_outbox_is_clean_and_gets_none() {
        let root = data();
        let report = look(root.path()).unwrap();
        assert!(report.is_clean());
        assert!(!root.path().join("outbox").exists());
        assert!(print::human(&report).contains("no damage"));
    }

    #[test]
    fn no_data_directory_is_an_error_and_none_is_made() {
        let parent = TempDir::new().unwrap();
        let error = look(&parent.path().join("quail")).map(drop).unwrap_err();
        assert!(error.to_string().contains("no data directory"), "{error}");
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn one_of_an_earlier_release_is_left_to_the_next_start() {
        let root = data();
        let outbox = root.path().join("outbox");
        drop(OutboxEngine::open(&outbox, &OutboxOptions::default(), Arc::default()).unwrap());
        fs::write(outbox.join("origin"), "1\n").unwrap();
        assert!(looked(root.path()).outbox.is_some());
        fs::write(root.path().join("format"), "quail-data 1\n").unwrap();
        let report = look(root.path()).unwrap();
        assert!(report.outbox.is_none() && report.is_clean());
        assert!(print::human(&report).contains("the next start migrates it"));
        assert_eq!(fs::read_to_string(root.path().join("format")).unwrap(), "quail-data 1\n");
        fs::write(root.path().join("format"), "quail-data 2\n").unwrap();
        fs::create_dir(outbox.join("store")).unwrap();
        assert!(look(root.path()).unwrap().outbox.is_none());
        fs::write(root.path().join("format"), "quail-data 3\n").unwrap();
        let error = look(root.path()).map(drop).unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(DataDirError::Newer { version: 3, .. })), "{error}");
    }

    #[test]
    fn an_origin_that_is_missing_is_damage() {
        let root = data();
        let outbox = root.path().join("outbox");
        drop(OutboxEngine::open(&outbox, &OutboxOptions::default(), Arc::default()).unwrap());
        let report = looked(root.path());
        assert!(!report.is_clean());
        assert!(print::human(&report).contains("lost its origin file"), "{}", print::human(&report));
    }

    #[test]
    fn who_is_stopped_from_checking_is_told_what_to_do() {
        let root = data();
        let _running = DataDir::open(root.path()).unwrap();
        let error = look(root.path()).map(drop).unwrap_err();
        assert!(error.downcast_ref::<StoreCheckError>().unwrap().hint().contains("stop it first"), "{error}");
    }
}
