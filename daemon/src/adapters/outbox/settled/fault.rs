//! What can go wrong below the settled store, sorted by what helps.
//!
//! sled says of damage now an error, now an assertion: both become one fault here, so that nobody above has to know.

use std::any::Any;
use std::fmt::Display;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use quail_core::ports::outbox::StoreError;

/// Why sled or a file of ours could not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// The system refused: rights, space, a failing disk. Mending it and trying again helps.
    #[error("{0}")]
    Io(String),
    /// Another process has the store open, or this one a moment ago.
    #[error("another process has it open")]
    Locked,
    /// What was read is not what was written. Trying again does not help.
    #[error("{0}")]
    Damaged(String),
    /// A later quaild wrote it.
    #[error("{0}, which a newer quaild may know")]
    Newer(String),
}

impl Fault {
    pub(super) fn damaged(how: impl Display) -> Self {
        Self::Damaged(how.to_string())
    }

    pub(super) fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged(_))
    }

    pub(super) fn to_store_error(&self, action: &'static str) -> StoreError {
        match self {
            Self::Damaged(what) => StoreError::Damaged { what: what.clone() },
            other => StoreError::Io { action, reason: other.to_string() },
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // A file that ends too early was cut; the file system itself says nothing of the kind.
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => Self::Damaged(error.to_string()),
            // sled gives the text of a lock that is held, and no kind.
            io::ErrorKind::Other if error.to_string().contains("could not acquire lock") => Self::Locked,
            _ => Self::Io(error.to_string()),
        }
    }
}

impl From<sled::Error> for Fault {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Io(error) => error.into(),
            other => Self::Damaged(other.to_string()),
        }
    }
}

/// Calls into sled where its pages may be damaged: a panic there is a fault like any other.
pub(super) fn guarded<T, E: Into<Fault>>(call: impl FnOnce() -> Result<T, E>) -> Result<T, Fault> {
    // sled's trees hold no invariant of ours that an unwound read could have broken; a writer gives the store up.
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(returned) => returned.map_err(Into::into),
        Err(panic) => Err(Fault::Damaged(format!("sled gave up: {}", message(&*panic)))),
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
    // Some of its assertions print whole pages.
    text.chars().take(200).collect()
}
