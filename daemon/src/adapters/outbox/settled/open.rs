//! Opening a settled store: which of its directories counts, what is mended, what is refused.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use super::database::{Database, named};
use super::fault::Fault;
use super::load::{self, Basis, Loaded};
use super::marks::{self, MarkFile};
use super::{SettledOptions, SettledRecovered, SettledStore, rotate};
use crate::ops::files;

/// Name of the file that names the store that counts.
const POINTER: &str = "current";

/// The version of the whole layout.
const LAYOUT: u32 = 1;

/// What the names of stores begin with.
const STORE_PREFIX: &str = "store-";

/// Name of the file that says that a spill met damage: the store is copied before it is used again.
const DAMAGE_NOTE: &str = "damage-met";

/// Rights of the pointer file.
const POINTER_MODE: u32 = 0o600;

/// Why a store could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenSettledError {
    /// The directory or its files cannot be used. The operator must mend permissions or space.
    #[error("cannot open the settled store in {path}: {reason}")]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// Another process has it open.
    #[error("the settled store in {path} is in use by another process")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds something else. It is left alone.
    #[error("{path} is not a settled store: it holds {found} and no file named current")]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// A name that was found.
        found: String,
    },
    /// A later quaild wrote it. It is left alone.
    #[error("the settled store in {path} is of a newer quaild: {what}")]
    Newer {
        /// The directory.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// Nothing of it can be read. It must be set aside; positions it gave are in doubt.
    #[error("the settled store in {path} is damaged: {what}")]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What was found.
        what: String,
    },
}

impl OpenSettledError {
    fn new(path: &Path, fault: Fault) -> Self {
        let path = path.to_owned();
        match fault {
            Fault::Io(reason) => Self::Unusable { path, reason },
            Fault::Locked => Self::InUse { path },
            Fault::Damaged(what) => Self::Damaged { path, what },
            Fault::Newer(what) => Self::Newer { path, what },
        }
    }
}

pub(super) fn open(
    path: &Path,
    options: SettledOptions,
) -> Result<(SettledStore, SettledRecovered), OpenSettledError> {
    let failed = |fault: Fault| OpenSettledError::new(path, fault);
    fs::create_dir_all(path).map_err(|error| failed(Fault::Io(error.to_string())))?;
    if let Some(found) = foreign(path).map_err(|error| failed(error.into()))? {
        return Err(OpenSettledError::Foreign { path: path.to_owned(), found });
    }
    let mut repaired = Vec::new();
    let found = find(path, &mut repaired).map_err(failed)?;
    let is_new = found.is_none();
    let number = found.unwrap_or(1);
    let opened = open_number(path, number, &options, is_new, &mut repaired).map_err(failed)?;
    let Opened { number, database, file, loaded } = opened;
    remove_others(path, number);
    let Loaded { held, recovered, lost } = loaded;
    let mark = held.settled.mark;
    let database = Arc::new(database);
    let shared = Arc::new(RwLock::new(database.clone()));
    let store = SettledStore { path: path.to_owned(), options, number, database, shared, held, file };
    Ok((store, SettledRecovered { mark, recovered, lost, is_new, repaired }))
}

struct Opened {
    number: u64,
    database: Database,
    file: MarkFile,
    loaded: Loaded,
}

fn open_number(
    path: &Path,
    number: u64,
    options: &SettledOptions,
    is_new: bool,
    repaired: &mut Vec<String>,
) -> Result<Opened, Fault> {
    let directory = store_path(path, number);
    if is_new && directory.exists() {
        // A first opening was cut short; nothing was ever promised of what is in it.
        fs::remove_dir_all(&directory)?;
    }
    // Before sled looks at it: a bit of a newer layout must not be mended.
    marks::peek(&directory)?;
    let database = Database::open(&directory, options, repaired)?;
    let (file, in_file) = MarkFile::open(&directory)?;
    if is_new {
        point_to(path, number)?;
    }
    let basis = match load::basis(&database, in_file) {
        // The file says it all; what became of sled's own row the sums will tell.
        Err(Fault::Damaged(_)) if in_file.is_some() => {
            Basis { settled: in_file.unwrap_or_default(), is_between: false }
        }
        basis => basis?,
    };
    let note = fs::read_to_string(directory.join(DAMAGE_NOTE)).ok();
    let loaded = match note {
        Some(note) => Err(Fault::Damaged(note)),
        None => load::load(&database, &basis),
    };
    match loaded {
        Ok(loaded) => {
            if in_file != Some(basis.settled) {
                // Also what sled only flushed must be durable before the mark says so.
                database.sync()?;
                file.write(&basis.settled)?;
            }
            Ok(Opened { number, database, file, loaded })
        }
        Err(Fault::Damaged(what)) => {
            repaired.push(format!("copied {} into a fresh store: {what}", directory.display()));
            salvage(path, number, options, &database, &certain(basis, in_file), repaired)
        }
        Err(fault) => Err(fault),
    }
}

/// A store whose last spill lacks its last sync and does not add up either counts as it was before that spill.
fn certain(basis: Basis, in_file: Option<super::format::Settled>) -> Basis {
    match in_file {
        Some(settled) if settled.mark.generation < basis.settled.mark.generation => {
            Basis { settled, is_between: true }
        }
        _ => basis,
    }
}

fn salvage(
    path: &Path,
    number: u64,
    options: &SettledOptions,
    from: &Database,
    basis: &Basis,
    repaired: &mut Vec<String>,
) -> Result<Opened, Fault> {
    let number = number + 1;
    let fresh = rotate::fresh(path, number, options)?;
    let copied = rotate::copy(from, &fresh, &rotate::Order::salvage(basis))?;
    repaired.extend(copied.notes);
    let settled = copied.held.settled;
    let file = rotate::finish(&fresh, &copied.held)?;
    point_to(path, number)?;
    let loaded = load::load(&fresh, &Basis { settled, is_between: false })?;
    Ok(Opened { number, database: fresh, file, loaded })
}

/// Returns the directory of a store.
pub(super) fn store_path(path: &Path, number: u64) -> PathBuf {
    path.join(format!("{STORE_PREFIX}{number}"))
}

/// Makes a store the one that counts.
pub(super) fn point_to(path: &Path, number: u64) -> io::Result<()> {
    let line = pointer_line(LAYOUT, number);
    files::write_atomically(&path.join(POINTER), line.as_bytes(), POINTER_MODE)
}

fn pointer_line(layout: u32, number: u64) -> String {
    let line = format!("settled {layout} {STORE_PREFIX}{number}");
    let crc = crc32fast::hash(line.as_bytes());
    format!("{line} {crc:08x}\n")
}

/// Returns layout and store number of a pointer that is whole.
fn parse_pointer(text: &str) -> Option<(u32, u64)> {
    let mut words = text.split(' ').skip(1);
    let layout = words.next()?.parse().ok()?;
    let number = number_of(words.next()?)?;
    (text == pointer_line(layout, number)).then_some((layout, number))
}

/// Leaves word for the next opening that a page stands in the way of writing.
pub(super) fn leave_note(directory: &Path, fault: &Fault) {
    // The error that is being returned is the one to tell; without the note the next process meets the page again.
    let _ = files::write_atomically(&directory.join(DAMAGE_NOTE), fault.to_string().as_bytes(), POINTER_MODE);
}

/// Returns a name that tells that a directory is not a settled store.
fn foreign(path: &Path) -> io::Result<Option<String>> {
    let all = named(path, |_| true)?;
    let names = || all.iter().filter_map(|path| path.file_name()?.to_str());
    let is_ours = |name: &str| name.starts_with(POINTER) || number_of(name).is_some();
    if names().any(is_ours) {
        return Ok(None);
    }
    Ok(names().next().map(str::to_owned))
}

fn number_of(name: &str) -> Option<u64> {
    name.strip_prefix(STORE_PREFIX)?.parse().ok()
}

/// Returns the number of the store that counts; `None` if there is none yet.
fn find(path: &Path, repaired: &mut Vec<String>) -> Result<Option<u64>, Fault> {
    let pointer = match fs::read_to_string(path.join(POINTER)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        // Not text any more: damaged like any other.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => "?".to_owned(),
        Err(error) => return Err(error.into()),
    };
    let mut stores = Vec::new();
    for directory in named(path, |name| number_of(name).is_some())? {
        let number = directory.file_name().and_then(|name| number_of(name.to_str()?)).unwrap_or_default();
        stores.push((number, directory));
    }
    match parse_pointer(&pointer) {
        Some((layout, _)) if layout > LAYOUT => return Err(Fault::Newer(format!("layout {layout}"))),
        Some((_, number)) if stores.iter().any(|(found, _)| *found == number) => return Ok(Some(number)),
        _ => {}
    }
    // Without a pointer that helps, the store that came furthest counts, and of those the newest, which is the copy.
    let mut furthest = None;
    for (number, directory) in stores {
        if let Some(settled) = marks::peek(&directory)? {
            furthest = furthest.max(Some((settled.mark.generation, number)));
        }
    }
    match furthest {
        Some((_, number)) => {
            repaired.push(format!(
                "{} was missing or damaged; store-{number} counts",
                path.join(POINTER).display()
            ));
            point_to(path, number)?;
            Ok(Some(number))
        }
        None if pointer.is_empty() => Ok(None),
        None => Err(Fault::damaged(format_args!("{POINTER} says {pointer:?}, which is not there"))),
    }
}

/// Removes what rotations and repairs that were cut short left behind.
fn remove_others(path: &Path, number: u64) {
    let others = named(path, |name| number_of(name).is_some_and(|found| found != number));
    for other in others.unwrap_or_default() {
        // What cannot be removed only takes space; the next opening tries again.
        let _ = fs::remove_dir_all(other);
    }
}
