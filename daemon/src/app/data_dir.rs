//! The data directory: everything of one daemon that must survive, and the lock that keeps it to one daemon.
//!
//! ```text
//! format               what wrote it: "quail-data 2"
//! quail.lock           locked while a daemon runs
//! outbox/              events that wait for their devices
//! directory.sqlite     accounts, devices, invites, unless these are in Postgres
//! directory.id         which directory of accounts this data directory belongs to
//! tls/certificate.pem  the daemon's own certificate, if the operator brings none
//! tls/key.pem          its key
//! ```
//!
//! Invariants: nothing in the directory is touched before it is known to be a data directory or empty, and nothing but the
//! lock before the lock is held; users other than the owner and the group chosen by the operator cannot look inside.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::ops::files;

/// The version of the layout that this daemon writes and the newest it reads.
pub(super) const FORMAT_VERSION: u32 = 2;

/// The oldest layout that is migrated; see `migrate.rs` for what that does.
const FORMAT_OLDEST: u32 = 1;

/// What stands in the file `format` before the version.
const FORMAT_NAME: &str = "quail-data ";

/// Rights of a new data directory: its owner's.
const DIRECTORY_MODE: u32 = 0o700;

/// Rights of files: their owner reads and writes.
const FILE_MODE: u32 = 0o600;

/// The rights of everybody else.
const OTHERS: u32 = 0o007;

/// What may lie in a directory that becomes a data directory: what a first start may leave behind when it crashes, and
/// what a new file system has.
const MAY_PRECEDE: [&str; 3] = ["quail.lock", "format.new", "lost+found"];

/// Where everything lies in a data directory. Only names: nothing is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataPaths {
    root: PathBuf,
}

/// A data directory of which this process is the daemon, until this value is dropped.
#[derive(Debug)]
pub struct DataDir {
    paths: DataPaths,
    /// Unlocks as it closes, also when the process is killed.
    _lock: File,
}

/// Why a data directory cannot be used. The operator can mend all of it.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It is not there and cannot be created.
    #[error("create the data directory {}", path.display())]
    Create {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something else has its name.
    #[error("the data directory {} is not a directory", path.display())]
    NotADirectory {
        /// What has the name.
        path: PathBuf,
    },
    /// It, or a file in it, cannot be read.
    #[error("read {}", path.display())]
    Unreadable {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file in it cannot be written.
    #[error("write {}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It holds files of others.
    #[error("{} holds {found:?} and is no data directory of quaild", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// One of the files.
        found: String,
    },
    /// It is no data directory (yet), where one must exist already.
    #[error("there is no data directory of quaild at {}", path.display())]
    Absent {
        /// The directory.
        path: PathBuf,
    },
    /// Another daemon runs on it.
    #[error("another quaild is running on the data directory {}", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A newer daemon wrote it.
    #[error("the data directory {} has format {version}, this quaild knows up to {FORMAT_VERSION}", path.display())]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The file `format` is not what a daemon writes.
    #[error("{} does not say \"{FORMAT_NAME}{FORMAT_VERSION}\"", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
}

impl DataDir {
    /// Opens the data directory for the daemon; creates it if it is not there.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn open(root: &Path) -> Result<Self, DataDirError> {
        let paths = DataPaths::new(root);
        create_directory(&paths.root)?;
        let format = paths.check_format()?;
        if format.is_none() {
            check_empty(&paths.root)?;
        }
        let lock = lock(&paths)?;
        // An older layout is marked as this one before it is touched: an older daemon must not open what is half migrated.
        if format != Some(FORMAT_VERSION) {
            let content = format!("{FORMAT_NAME}{FORMAT_VERSION}\n");
            let path = paths.format();
            files::write_atomically(&path, content.as_bytes(), FILE_MODE)
                .map_err(|source| DataDirError::Unwritable { path, source })?;
        }
        close_to_others(&paths.root);
        Ok(Self { paths, _lock: lock })
    }

    /// Takes the lock of a data directory that a daemon has made, to look at it while none runs, and returns with it which
    /// format it has. Nothing is changed.
    ///
    /// # Errors
    /// `Absent`, `InUse`, `Newer`, `Format`, `Unreadable`, `Unwritable`, `NotADirectory`.
    pub(super) fn inspect(root: &Path) -> Result<(Self, u32), DataDirError> {
        let paths = DataPaths::existing(root)?;
        let lock = lock(&paths)?;
        // Read under the lock: a daemon that was just starting may have migrated it.
        let format =
            paths.check_format()?.ok_or_else(|| DataDirError::Absent { path: paths.root.clone() })?;
        Ok((Self { paths, _lock: lock }, format))
    }

    /// Returns where everything lies.
    pub fn paths(&self) -> &DataPaths {
        &self.paths
    }
}

impl DataPaths {
    /// Returns the paths below `root`, which is made absolute so that messages say which directory is meant.
    pub fn new(root: &Path) -> Self {
        Self { root: std::path::absolute(root).unwrap_or_else(|_| root.to_owned()) }
    }

    /// Returns the paths of a data directory that a daemon has made, while a daemon may be running on it.
    ///
    /// # Errors
    /// `Absent`, `Newer`, `Format`, `Unreadable`, `NotADirectory`.
    pub fn existing(root: &Path) -> Result<Self, DataDirError> {
        let paths = Self::new(root);
        match paths.check_format()? {
            Some(_) => Ok(paths),
            None => Err(DataDirError::Absent { path: paths.root }),
        }
    }

    /// Returns the data directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the file that says which origins this data directory has had.
    pub fn origins(&self) -> PathBuf {
        self.root.join("origins")
    }

    /// Returns the directory of the outbox.
    pub fn outbox(&self) -> PathBuf {
        self.root.join("outbox")
    }

    /// Returns the file of the directory of accounts.
    pub fn directory_file(&self) -> PathBuf {
        self.root.join("directory.sqlite")
    }

    /// Returns the file of the archive.
    pub fn archive_file(&self) -> PathBuf {
        self.root.join("archive.sqlite")
    }

    /// Returns the file that says which directory of accounts this data directory belongs to.
    pub fn directory_id(&self) -> PathBuf {
        self.root.join("directory.id")
    }

    /// Returns the file of the daemon's own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.root.join("tls/certificate.pem")
    }

    /// Returns the file of the key of that certificate.
    pub fn key(&self) -> PathBuf {
        self.root.join("tls/key.pem")
    }

    /// Returns the file that says which layout this is; the daemon made it.
    pub(super) fn format(&self) -> PathBuf {
        self.root.join("format")
    }

    fn lock(&self) -> PathBuf {
        self.root.join("quail.lock")
    }

    /// Returns which format there is, if any, of those that this daemon can read.
    fn check_format(&self) -> Result<Option<u32>, DataDirError> {
        let path = self.format();
        let text = match fs::read(&path) {
            Ok(bytes) => String::from_utf8(bytes).unwrap_or_default(),
            Err(error) => {
                return match error.kind() {
                    io::ErrorKind::NotFound => Ok(None),
                    io::ErrorKind::NotADirectory => {
                        Err(DataDirError::NotADirectory { path: self.root.clone() })
                    }
                    _ => Err(DataDirError::Unreadable { path, source: error }),
                };
            }
        };
        let version = text.strip_prefix(FORMAT_NAME).and_then(|rest| rest.lines().next()?.parse().ok());
        match version {
            Some(version @ FORMAT_OLDEST..=FORMAT_VERSION) => Ok(Some(version)),
            Some(version) if version > FORMAT_VERSION => {
                Err(DataDirError::Newer { path: self.root.clone(), version })
            }
            _ => Err(DataDirError::Format { path }),
        }
    }
}

impl DataDirError {
    /// Returns the operator's next step, where it is not for the system's error behind this one to say.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotADirectory { .. } => Some("name a directory with --data, or move the file away"),
            Self::Foreign { .. } => {
                Some("name an empty directory with --data, or one that does not exist yet")
            }
            Self::Absent { .. } => {
                Some("start quaild once, or name the directory that it uses, as in --data /var/lib/quail")
            }
            Self::InUse { .. } => {
                Some("stop the other one, or give this one a directory of its own with --data")
            }
            Self::Newer { .. } => {
                Some("run the newer quaild, or restore the backup that was made before it ran")
            }
            Self::Format { .. } => Some("restore the file from a backup; the rest may be damaged too"),
            Self::Create { .. } | Self::Unreadable { .. } | Self::Unwritable { .. } => None,
        }
    }
}

fn create_directory(path: &Path) -> Result<(), DataDirError> {
    let create_error = |source| DataDirError::Create { path: path.to_owned(), source };
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => return Ok(()),
        Ok(_) => return Err(DataDirError::NotADirectory { path: path.to_owned() }),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(create_error(error)),
        Err(_) => {}
    }
    // The directories above are no secret and get the usual rights.
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(create_error)?;
    }
    match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
        // Another daemon came first; the lock decides between the two.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(create_error(error)),
        Ok(()) => files::sync_directory(path).map_err(create_error),
    }
}

/// Filling a home directory by mistake is hard to undo.
fn check_empty(path: &Path) -> Result<(), DataDirError> {
    let unreadable = |source| DataDirError::Unreadable { path: path.to_owned(), source };
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        if !MAY_PRECEDE.iter().any(|allowed| name == *allowed) {
            let found = name.to_string_lossy().into_owned();
            return Err(DataDirError::Foreign { path: path.to_owned(), found });
        }
    }
    Ok(())
}

fn lock(paths: &DataPaths) -> Result<File, DataDirError> {
    let path = paths.lock();
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(FILE_MODE);
    let unwritable = |source| DataDirError::Unwritable { path: path.clone(), source };
    let file = options.open(&path).map_err(unwritable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DataDirError::InUse { path: paths.root.clone() }),
        Err(TryLockError::Error(error)) => Err(unwritable(error)),
    }
}

/// Takes the rights of others away; whether a group, such as one for backups, may look in is the operator's choice.
fn close_to_others(path: &Path) {
    let closed = fs::metadata(path).and_then(|metadata| {
        let mode = metadata.permissions().mode();
        if mode & OTHERS == 0 {
            Ok(())
        } else {
            fs::set_permissions(path, Permissions::from_mode(mode & !OTHERS))
        }
    });
    if let Err(error) = closed {
        // Somebody else owns the directory and lends it; that is for them to know.
        tracing::warn!(path = %path.display(), %error, "other users may look into the data directory");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn it_is_created_for_its_owner_only_and_opened_again() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("a/b/quail");
        for _ in 0..2 {
            let data = DataDir::open(&root).unwrap();
            assert_eq!(mode(&root), 0o700);
            assert_eq!(fs::read_to_string(root.join("format")).unwrap(), "quail-data 2\n");
            assert_eq!(data.paths(), &DataPaths::existing(&root).unwrap());
        }
        assert_eq!(mode(&root.join("quail.lock")), 0o600);
    }

    #[test]
    fn two_daemons_do_not_share_one() {
        let root = tempfile::tempdir().unwrap();
        let first = DataDir::open(root.path()).unwrap();
        let error = DataDir::open(root.path()).unwrap_err();
        assert!(matches!(error, DataDirError::InUse { .. }), "{error}");
        assert!(error.to_string().contains(&root.path().display().to_string()));
        assert!(error.hint().unwrap().contains("--data"));
        drop(first);
        DataDir::open(root.path()).unwrap();
    }

    #[test]
    fn others_lose_their_rights_and_the_group_keeps_its() {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
        DataDir::open(root.path()).unwrap();
        assert_eq!(mode(root.path()), 0o750);
    }

    #[test]
    fn a_file_is_no_directory() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(DataDir::open(&file).unwrap_err(), DataDirError::NotADirectory { .. }));
        assert!(matches!(DataPaths::existing(&file).unwrap_err(), DataDirError::NotADirectory { .. }));
        let below = DataDir::open(&file.join("quail")).unwrap_err();
        assert!(matches!(below, DataDirError::Create { .. }), "{below}");
    }

    #[test]
    fn a_directory_of_others_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("thesis.tex"), "").unwrap();
        let error = DataDir::open(root.path()).unwrap_err();
        assert!(matches!(&error, DataDirError::Foreign { found, .. } if found == "thesis.tex"), "{error}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_first_start_that_crashed_and_a_new_file_system_are_empty() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("quail.lock"), "").unwrap();
        fs::write(root.path().join("format.new"), "quail-da").unwrap();
        fs::create_dir(root.path().join("lost+found")).unwrap();
        DataDir::open(root.path()).unwrap();
        assert!(!root.path().join("format.new").exists());
    }

    #[test]
    fn what_a_newer_daemon_wrote_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let format = root.path().join("format");
        fs::write(&format, "quail-data 3\n").unwrap();
        for error in [DataDir::open(root.path()).unwrap_err(), DataPaths::existing(root.path()).unwrap_err()]
        {
            assert!(matches!(error, DataDirError::Newer { version: 3, .. }), "{error}");
            assert!(error.to_string().ends_with("has format 3, this quaild knows up to 2"), "{error}");
        }
        assert_eq!(fs::read_to_string(&format).unwrap(), "quail-data 3\n");
        for damaged in ["", "quail-data", "quail-data x", "quail-data 0\n", "other 1"] {
            fs::write(&format, damaged).unwrap();
            let error = DataDir::open(root.path()).unwrap_err();
            assert!(matches!(error, DataDirError::Format { .. }), "{error}");
            assert!(error.to_string().ends_with("format does not say \"quail-data 2\""), "{error}");
        }
    }

    #[test]
    fn what_does_not_exist_yet_is_told_from_what_cannot_be_had() {
        let parent = tempfile::tempdir().unwrap();
        for root in [parent.path().to_owned(), parent.path().join("no")] {
            let error = DataPaths::existing(&root).unwrap_err();
            assert!(matches!(error, DataDirError::Absent { .. }), "{error}");
        }
        // Even the owner of everything cannot create this one.
        let error = DataDir::open(Path::new("/proc/quail")).unwrap_err();
        assert!(matches!(error, DataDirError::Create { .. }), "{error}");
        // Nor read a directory as a file, or write where one is.
        let root = parent.path().join("format-is-a-directory");
        fs::create_dir_all(root.join("format")).unwrap();
        assert!(matches!(DataDir::open(&root).unwrap_err(), DataDirError::Unreadable { .. }));
        let root = parent.path().join("lock-is-a-directory");
        fs::create_dir_all(root.join("quail.lock")).unwrap();
        assert!(matches!(DataDir::open(&root).unwrap_err(), DataDirError::Unwritable { .. }));
    }
}
