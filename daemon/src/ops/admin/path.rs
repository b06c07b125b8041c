//! The file of the admin socket: making it, finding it, taking it away.
//!
//! The name of a socket may have 107 bytes (`sun_path`); data directories may be longer. Such a socket is reached through
//! `/proc/self/fd` of its directory.
//!
//! Invariants: the socket can be connected to only after its rights are set; nothing but a socket without a daemon is ever
//! removed.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// Longest name of a socket in bytes: `sun_path` without its final zero.
const SUN_PATH_BYTES_MAX: usize = 107;

/// Rights of the socket: its owner's.
const SOCKET_MODE: u32 = 0o600;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 16;

/// Why the admin socket cannot be had. The operator can mend all of it.
#[derive(Debug, thiserror::Error)]
pub enum AdminSocketError {
    /// The system refused one of the steps.
    #[error("{action} the admin socket {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Something else has its name.
    #[error("{} is to be the admin socket, but another file has that name", path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// A daemon answers there; its data directory is another one.
    #[error("another daemon answers on the admin socket {}", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// The file name itself is too long.
    #[error("the name of the admin socket {} is too long", path.display())]
    TooLong {
        /// The socket.
        path: PathBuf,
    },
}

impl AdminSocketError {
    /// Returns the operator's next step, where it is not for the system's error behind this one to say.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Io { .. } => None,
            Self::NotASocket { .. } => Some("move the file away, or name another path as admin.socket"),
            Self::InUse { .. } => Some("give each daemon an admin.socket of its own, or stop the other one"),
            Self::TooLong { .. } => Some("name a shorter path as admin.socket, as in /run/quail/admin.sock"),
        }
    }
}

/// A socket in the file system, removed when it is dropped. While somebody listens on it no other daemon takes its name;
/// whoever has both drops this first, so that it never removes another's.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
}

/// Makes the socket, in the place of one that a dead daemon left behind.
pub(super) fn bind(path: &Path) -> Result<(UnixListener, SocketFile), AdminSocketError> {
    let failed = |action| move |source| AdminSocketError::Io { action, path: path.to_owned(), source };
    let name = Name::of(path)?;
    clear(path, &name)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed("make"))?;
    let address = SockAddr::unix(&name.short).map_err(failed("make"))?;
    socket.bind(&address).map_err(failed("make"))?;
    let file = SocketFile { path: path.to_owned() };
    // Until it listens nobody can connect, so nobody does before these are its rights.
    fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE)).map_err(failed("set the rights of"))?;
    socket.listen(BACKLOG).map_err(failed("listen on"))?;
    socket.set_nonblocking(true).map_err(failed("listen on"))?;
    Ok((socket.into(), file))
}

/// Connects to the socket of a daemon.
///
/// # Errors
/// `Io` with the system's kind: `NotFound` and `ConnectionRefused` mean that no daemon is there. `TooLong`.
pub fn connect(path: &Path) -> Result<UnixStream, AdminSocketError> {
    let name = Name::of(path)?;
    UnixStream::connect(&name.short).map_err(|source| {
        let action = "connect to";
        AdminSocketError::Io { action, path: path.to_owned(), source }
    })
}

/// Removes what a dead daemon left behind.
fn clear(path: &Path, name: &Name) -> Result<(), AdminSocketError> {
    let failed = |action| move |source| AdminSocketError::Io { action, path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => return Err(AdminSocketError::NotASocket { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at")(error)),
    }
    // The lock of the data directory keeps other daemons of this data away, not one of other data with the same setting.
    if is_alive(name).map_err(failed("look at"))? {
        return Err(AdminSocketError::InUse { path: path.to_owned() });
    }
    fs::remove_file(path).map_err(failed("replace"))
}

/// Returns whether somebody listens. Does not wait for one who has no time.
fn is_alive(name: &Name) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(&name.short)?) {
        Err(error) => Ok(error.kind() == io::ErrorKind::WouldBlock),
        Ok(()) => Ok(true),
    }
}

/// A path in a form that fits the name of a socket, and what keeps that form valid.
struct Name {
    short: PathBuf,
    _directory: Option<File>,
}

impl Name {
    fn of(path: &Path) -> Result<Self, AdminSocketError> {
        if path.as_os_str().len() <= SUN_PATH_BYTES_MAX {
            return Ok(Self { short: path.to_owned(), _directory: None });
        }
        let too_long = || AdminSocketError::TooLong { path: path.to_owned() };
        let (parent, file) = path.parent().zip(path.file_name()).ok_or_else(too_long)?;
        let directory = File::open(parent).map_err(|source| AdminSocketError::Io {
            action: "open the directory of",
            path: path.to_owned(),
            source,
        })?;
        let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(file);
        if short.as_os_str().len() > SUN_PATH_BYTES_MAX {
            return Err(too_long());
        }
        Ok(Self { short, _directory: Some(directory) })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Whoever starts next replaces what could not be removed.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_the_owners_and_goes_with_its_daemon() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let (listener, file) = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        connect(&path).unwrap();
        assert!(matches!(bind(&path), Err(AdminSocketError::InUse { .. })));
        drop((listener, file));
        assert!(!path.exists());
    }

    #[test]
    fn what_a_dead_daemon_left_is_replaced_and_other_files_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let (listener, file) = bind(&path).unwrap();
        // As a kill would: the file stays.
        std::mem::forget(file);
        drop(listener);
        assert!(path.exists());
        let (_listener, file) = bind(&path).unwrap();
        connect(&path).unwrap();
        drop(file);
        fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path), Err(AdminSocketError::NotASocket { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_long_path_is_reached_and_a_long_name_refused() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("a".repeat(120));
        fs::create_dir(&deep).unwrap();
        let path = deep.join("admin.sock");
        let (_listener, file) = bind(&path).unwrap();
        connect(&path).unwrap();
        drop(file);
        assert!(!path.exists());
        let error = bind(&deep.join("b".repeat(100))).unwrap_err();
        assert!(matches!(error, AdminSocketError::TooLong { .. }) && error.hint().is_some(), "{error}");
    }
}
