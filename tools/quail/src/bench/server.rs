//! The server that is measured: a private daemon, or one that runs already.
//!
//! Invariant: only a private daemon has figures; of another server nothing is known but its answers.

use std::path::Path;

use quail_client::{Address, Credentials};

use super::process::Usage;
use super::{BenchError, Storage, Target, Watch, provision};
use crate::launcher::{Daemon, DaemonOptions, LogTarget};

/// Settings that lift the limits of rates: what is measured is the server, not its patience with one machine.
const UNLIMITED: &[&str] = &[
    "QUAIL_RATES_HANDSHAKE",
    "QUAIL_RATES_SIGN_UP",
    "QUAIL_RATES_LOG_IN",
    "QUAIL_RATES_PASSWORD",
    "QUAIL_RATES_PASSWORD_ANYWHERE",
    "QUAIL_RATES_LOOK_UP",
    "QUAIL_RATES_UNKNOWN",
    "QUAIL_RATES_REQUEST",
    "QUAIL_RATES_SEND",
    "QUAIL_RATES_HISTORY",
];

/// The server that is measured. Dropping it ends a private daemon.
#[derive(Debug)]
pub(super) enum Server {
    Private(Box<Daemon>),
    Other(Address),
}

impl Server {
    pub(super) async fn start(target: &Target) -> Result<Self, BenchError> {
        let (quaild, directory, archive, storage) = match target {
            Target::Private { quaild, directory, archive, storage } => (quaild, directory, *archive, storage),
            Target::Server(address) => return Ok(Self::Other(address.clone())),
        };
        let mut options = DaemonOptions::new(quaild, directory.join("data"));
        options.log = LogTarget::File(directory.join("quaild.log"));
        options.env.push(("QUAIL_STORAGE_ARCHIVE".into(), if archive { "on" } else { "off" }.into()));
        if let Some(Storage { url, password_file }) = storage {
            options.env.push(("QUAIL_STORAGE_URL".into(), url.into()));
            let file = password_file.iter().map(|file| ("QUAIL_STORAGE_PASSWORD_FILE".into(), file.into()));
            options.env.extend(file);
        }
        options.env.extend(UNLIMITED.iter().map(|name| (name.into(), "off".into())));
        Ok(Self::Private(Box::new(Daemon::start(options).await?)))
    }

    pub(super) fn address(&self) -> &Address {
        match self {
            Self::Private(daemon) => daemon.address(),
            Self::Other(address) => address,
        }
    }

    /// Returns the directory of the daemon's data, if that is on this machine.
    pub(super) fn data(&self) -> Option<&Path> {
        match self {
            Self::Private(daemon) => Some(daemon.data()),
            Self::Other(_) => None,
        }
    }

    /// Makes accounts with a session each.
    pub(super) async fn provision(
        &mut self,
        count: usize,
        watch: &mut Watch<'_>,
    ) -> Result<Vec<Credentials>, BenchError> {
        match self {
            Self::Private(daemon) => provision::privately(daemon, count, watch).await,
            Self::Other(address) => provision::publicly(address, count, watch).await,
        }
    }

    /// Makes accounts that only are there, with a device each, at a private daemon. Returns the first `kept` of them.
    pub(super) async fn provision_others(
        &mut self,
        count: usize,
        kept: usize,
        watch: &mut Watch<'_>,
    ) -> Result<Vec<Credentials>, BenchError> {
        match self {
            Self::Private(daemon) => provision::others(daemon, count, kept, watch).await,
            Self::Other(_) => {
                Err(BenchError::TooMuch("a server that is somebody else's is not filled".to_owned()))
            }
        }
    }

    /// Returns how many events wait for a device, if the daemon is this program's own.
    pub(super) async fn unacknowledged(&self) -> Result<Option<u64>, BenchError> {
        match self {
            Self::Private(daemon) => Ok(Some(provision::unacknowledged(daemon).await?)),
            Self::Other(_) => Ok(None),
        }
    }

    /// Returns what the daemon's process has used so far.
    pub(super) fn usage(&self) -> Result<Option<Usage>, BenchError> {
        match self {
            Self::Private(daemon) => Ok(daemon.pid().map(Usage::of).transpose()?),
            Self::Other(_) => Ok(None),
        }
    }
}
