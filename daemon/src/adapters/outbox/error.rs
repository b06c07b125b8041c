//! Why an outbox could not be opened.

use std::path::{Path, PathBuf};

use super::journal::JournalError;
use super::settled::OpenSettledError;

/// Why an outbox could not be opened. None of them is mended by trying again.
#[derive(Debug, thiserror::Error)]
pub enum OpenOutboxError {
    /// The directory or its files cannot be used. The operator must mend permissions or space.
    #[error("cannot open the outbox in {path}: {reason}")]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// A newer quaild wrote it.
    #[error("the outbox in {path} was written by a newer quaild: {reason}")]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Which part of it.
        reason: String,
    },
}

impl OpenOutboxError {
    pub(super) fn journal(path: &Path, error: JournalError) -> Self {
        match error {
            JournalError::Newer { .. } => Self::Newer { path: path.to_owned(), reason: error.to_string() },
            other => Self::unusable(path, other),
        }
    }

    pub(super) fn settled(path: &Path, error: OpenSettledError) -> Self {
        match error {
            OpenSettledError::Newer { .. } => {
                Self::Newer { path: path.to_owned(), reason: error.to_string() }
            }
            other => Self::unusable(path, other),
        }
    }

    pub(super) fn unusable(path: &Path, reason: impl std::fmt::Display) -> Self {
        Self::Unusable { path: path.to_owned(), reason: reason.to_string() }
    }
}
