//! Measures a server: what it carries, what an idle connection costs, what a backlog costs.
//!
//! Six measurements, one file or directory each: [`chat`] (pairs of users under load), [`history`] (pages of a filled archive),
//! [`idle`] (connections that only stay), [`isolation`] (users beside one who disturbs), [`offline`] (a recipient who was away), [`roam`] (a conversation over
//! changing networks). They use the SDK, because that is what real clients use, and a private
//! daemon on a fresh data directory unless they are pointed at another server. What they share: provisioning accounts,
//! the figures of the daemon's process, the floors of the machine, messages that say who sent them and when.
//!
//! Invariants: a measurement checks what it measures, so figures of a server that loses or doubles messages come with
//! that fact; figures are taken where the work is (CPU, memory and disk of the daemon's process, never of this one); what
//! is not known is absent, never zero; nothing waits for ever; dropping a future ends the measurement and its daemon.

pub mod background;
pub mod chat;
mod check;
mod error;
mod files;
mod floors;
pub mod history;
pub mod idle;
pub mod isolation;
mod message;
pub mod offline;
mod plan;
mod process;
mod provision;
mod report;
pub mod roam;
mod server;
mod users;

use std::path::PathBuf;
use std::time::Duration;

use quail_client::Address;

pub use error::BenchError;
pub use message::SIZE_MIN;
pub use report::{Figures, Floors, Latency};

/// Most users or connections of one measurement.
pub const USERS_MAX: usize = 100_000;

/// Longest measured time.
pub const SECONDS_MAX: u64 = 3600;

/// How long what is on its way when the measured time ends may take to arrive. What has not arrived then is missing.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// How often those who watch are told how far the time has run.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// A database of the network for a private daemon.
#[derive(Clone, Debug)]
pub struct Storage {
    /// As in the daemon's `storage.url`.
    pub url: String,
    /// The file that holds the password for it, if one is needed.
    pub password_file: Option<PathBuf>,
}

/// What is measured.
#[derive(Clone, Debug)]
pub enum Target {
    /// A private daemon of this program, on an empty directory.
    Private {
        /// The daemon's program.
        quaild: PathBuf,
        /// An empty directory for its data and log.
        directory: PathBuf,
        /// Whether it keeps the history of conversations too.
        archive: bool,
        /// The database for accounts and history; none: files in the directory.
        storage: Option<Storage>,
    },
    /// A server that runs already. Accounts are signed up there and stay; its limits of rates hold.
    Server(Address),
}

impl Target {
    /// Returns what the server keeps of messages that were delivered, as far as is known.
    fn archive(&self) -> &'static str {
        match self {
            Self::Private { archive: true, storage: Some(_), .. } => "postgres",
            Self::Private { archive: true, .. } => "sqlite",
            Self::Private { .. } => "none",
            Self::Server(_) => "unknown",
        }
    }
}

/// How far a measurement has come, for those who watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is being done.
    pub phase: Phase,
    /// How much of it is done.
    pub done: u64,
    /// How much there is to do.
    pub of: u64,
}

/// What a measurement is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Making accounts; counts accounts.
    Provision,
    /// Connecting; counts connections.
    Connect,
    /// Storing a backlog; counts messages.
    Store,
    /// Measuring; counts milliseconds, or messages.
    Measure,
    /// Waiting for what is on its way; counts users.
    Drain,
}

/// Who is told of progress.
pub type Watch<'a> = dyn FnMut(Step) + Send + 'a;
