//! Why a measurement could not be made.

use std::path::PathBuf;
use std::process::ExitStatus;

use quail_client::Error;

use super::process::ProcessError;
use crate::launcher::LauncherError;

/// Why a measurement could not be made. What it found wrong is no error: the report says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The private daemon could not be started.
    #[error(transparent)]
    Launcher(#[from] LauncherError),
    /// The SDK failed.
    #[error("{action}")]
    Client {
        /// What was tried, as a verb.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: Error,
    },
    /// A message was refused for good.
    #[error("the server refused a message")]
    Refused(#[source] quail_client::SendError),
    /// The figures of the daemon's process cannot be read.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The daemon's program could not be run for its administration.
    #[error("run the administration of quaild")]
    Administration(#[source] std::io::Error),
    /// The daemon's program did not make the accounts.
    #[error("quaild made no accounts ({status}): {detail}")]
    Provision {
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        detail: String,
    },
    /// The daemon's program made other accounts than it was asked for.
    #[error("quaild answered with {got} accounts instead of {expected}, or in a form that is not known")]
    Accounts {
        /// How many were asked for.
        expected: usize,
        /// How many it made.
        got: usize,
    },
    /// A file of the measurement cannot be used.
    #[error("use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The system allows this process too few open files.
    #[error("{needed} open files are needed, the system allows {allowed}")]
    OpenFiles {
        /// How many.
        needed: u64,
        /// How many may be open at the most.
        allowed: u64,
    },
    /// A backlog that no outbox holds.
    #[error("{0}")]
    TooMuch(String),
    /// A part of the measurement panicked or was stopped.
    #[error("a part of the measurement ended: {0}")]
    Part(String),
    /// Something that must happen did not.
    #[error("waited in vain for {what}")]
    Stuck {
        /// What was waited for.
        what: &'static str,
    },
}

impl BenchError {
    /// Makes an error of the SDK one of the measurement; to be given to `map_err`.
    pub(super) fn client(action: &'static str) -> impl FnOnce(Error) -> Self {
        move |source| Self::Client { action, source }
    }
}
