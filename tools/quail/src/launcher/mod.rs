//! Starts, stops, kills and restarts private daemons: child processes that belong to this program alone.
//!
//! The demo and the tests need a real `quaild`, with a real data directory, that can be killed at any moment and comes
//! back where it was. So a [`Daemon`] keeps its port: after [`Daemon::restart`] clients find it under the same address.
//!
//! ```no_run
//! use quail::launcher::{Daemon, DaemonOptions, find_quaild};
//!
//! # async fn example() -> Result<(), quail::launcher::LauncherError> {
//! let mut daemon = Daemon::start(DaemonOptions::new(find_quaild(None)?, "/tmp/quail-example")).await?;
//! println!("{}", daemon.address());
//! daemon.kill().await?; // As a power cut would.
//! daemon.restart().await?; // Same port, same data, same address.
//! let status = daemon.stop().await?; // SIGTERM, and it drains.
//! assert!(status.success());
//! # Ok(())
//! # }
//! ```
//!
//! Invariants: a daemon serves when `start` and `restart` return; no process outlives its [`Daemon`], unless this process
//! itself is killed by SIGKILL; every wait is bounded, except [`Daemon::wait`]; the child sees nothing of this process's
//! `QUAIL_*` and `RUST_LOG`.

mod child;
mod error;
mod find;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use quail_client::Address;
pub use rustix::process::Signal;
use tokio::process::Command;

use child::Running;
pub use error::LauncherError;
pub use find::find_quaild;

/// How long a daemon may take from its start until it serves. A start takes a tenth of a second; the rest is for
/// machines with something else to do.
pub const START_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a daemon may take to drain after SIGTERM before it is killed.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Where the daemon's log (its stderr) goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LogTarget {
    /// Appended to a file, over restarts too. Errors then quote its last lines.
    File(PathBuf),
    /// To this process's stderr.
    Inherit,
    /// Nowhere.
    #[default]
    Discard,
}

/// How to start a daemon.
#[derive(Clone, Debug)]
pub struct DaemonOptions {
    /// The program; see [`find_quaild`].
    pub quaild: PathBuf,
    /// The data directory, given as `--data`.
    pub data: PathBuf,
    /// Where to listen, given as `--listen`. With port 0 the system chooses one, and restarts keep it.
    pub listen: SocketAddr,
    /// Further arguments, behind `--listen` and `--data`.
    pub args: Vec<OsString>,
    /// Environment variables on top of the cleaned environment, in which only the port for operators is set: to a free
    /// one of 127.0.0.1.
    pub env: Vec<(OsString, OsString)>,
    /// Where the log goes.
    pub log: LogTarget,
}

impl DaemonOptions {
    /// Options for a daemon on a free port of 127.0.0.1, without further arguments and without log.
    pub fn new(quaild: impl Into<PathBuf>, data: impl Into<PathBuf>) -> Self {
        Self {
            quaild: quaild.into(),
            data: data.into(),
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            args: Vec::new(),
            env: Vec::new(),
            log: LogTarget::Discard,
        }
    }
}

/// A running, stopped or killed daemon with its own port and data directory.
///
/// Dropping it kills the daemon with its whole process group and waits until it is gone, so that the data directory may
/// be removed right after. Must be used inside a tokio runtime.
#[derive(Debug)]
pub struct Daemon {
    options: DaemonOptions,
    address: Address,
    running: Option<Running>,
}

impl Daemon {
    /// Starts a daemon and returns once it serves.
    ///
    /// Dropping the future kills what was started.
    ///
    /// # Errors
    /// [`LauncherError`]; when the daemon did not come up, with the end of its log.
    pub async fn start(mut options: DaemonOptions) -> Result<Self, LauncherError> {
        let (running, printed) = Running::start(&options).await?;
        let address = reachable(&printed, options.listen.ip());
        options.listen.set_port(address.port);
        Ok(Self { options, address, running: Some(running) })
    }

    /// Returns the address for clients. It stays the same over restarts.
    ///
    /// It names the IP address that the daemon listens on, where the daemon prints the name of its certificate:
    /// `localhost` may mean ::1 to a resolver, and a daemon on 127.0.0.1 does not hear that. The pin makes up for it.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Returns the data directory.
    pub fn data(&self) -> &Path {
        &self.options.data
    }

    /// Returns the daemon's program with its data directory and its environment, for what the running daemon is asked by
    /// another process: its administration.
    pub fn command(&self) -> Command {
        child::program(&self.options)
    }

    /// Returns the options; changes of `args`, `env` and `log` count from the next restart on.
    pub fn options_mut(&mut self) -> &mut DaemonOptions {
        &mut self.options
    }

    /// Returns the process id, or `None` if no process is running or it has been waited for.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(Running::pid)
    }

    /// Returns the last lines of the log, or nothing if it is not kept in a file.
    pub fn log_tail(&self) -> String {
        child::log_tail(&self.options.log)
    }

    /// Sends a signal to the process.
    ///
    /// # Errors
    /// [`LauncherError::NotRunning`], [`LauncherError::Signal`].
    pub fn signal(&self, signal: Signal) -> Result<(), LauncherError> {
        self.running.as_ref().ok_or(LauncherError::NotRunning)?.signal(signal)
    }

    /// Kills the process group with SIGKILL and waits until the process is gone. Does nothing if there is none.
    ///
    /// # Errors
    /// [`LauncherError::Wait`] if it cannot be waited for.
    pub async fn kill(&mut self) -> Result<(), LauncherError> {
        match self.running.take() {
            Some(mut running) => running.kill().await,
            None => Ok(()),
        }
    }

    /// Asks the process to stop with SIGTERM and waits until it has.
    ///
    /// # Errors
    /// [`LauncherError::NotRunning`]; [`LauncherError::NotStopped`] if it took longer than [`STOP_TIMEOUT`] and was
    /// killed.
    pub async fn stop(&mut self) -> Result<ExitStatus, LauncherError> {
        self.signal(Signal::TERM)?;
        match tokio::time::timeout(STOP_TIMEOUT, self.wait()).await {
            Ok(status) => status,
            Err(_) => {
                self.kill().await?;
                Err(LauncherError::NotStopped { waited: STOP_TIMEOUT, log: self.log_tail() })
            }
        }
    }

    /// Waits until the process ends by itself or by a signal that was sent. Has no limit; dropping the future changes
    /// nothing.
    ///
    /// # Errors
    /// [`LauncherError::NotRunning`], [`LauncherError::Wait`].
    pub async fn wait(&mut self) -> Result<ExitStatus, LauncherError> {
        let running = self.running.as_mut().ok_or(LauncherError::NotRunning)?;
        let status = running.wait().await?;
        self.running = None;
        Ok(status)
    }

    /// Starts the daemon again, on the same port and data directory; kills it first if it is running.
    ///
    /// # Errors
    /// As [`Daemon::start`]; [`LauncherError::OtherAddress`] if it came back under another address.
    pub async fn restart(&mut self) -> Result<(), LauncherError> {
        self.kill().await?;
        let (running, printed) = Running::start(&self.options).await?;
        let address = reachable(&printed, self.options.listen.ip());
        self.running = Some(running);
        if address == self.address {
            Ok(())
        } else {
            Err(LauncherError::OtherAddress { expected: self.address.to_string(), got: address.to_string() })
        }
    }
}

/// Puts an IP address on which the daemon listens in the place of the host. Without a pin the certificate has to fit the
/// host, so that stays.
fn reachable(printed: &Address, listen: IpAddr) -> Address {
    let mut address = printed.clone();
    if address.pin.is_some() {
        let ip = match listen {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        address.host = ip.to_string();
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_names_the_ip_that_is_listened_on() {
        let pin = format!("?pin=sha256:{}", "ab".repeat(32));
        let printed: Address = format!("quail://localhost:7000{pin}").parse().unwrap();
        let reached = |ip: &str| reachable(&printed, ip.parse().unwrap()).to_string();
        assert_eq!(reached("127.0.0.1"), format!("quail://127.0.0.1:7000{pin}"));
        assert_eq!(reached("0.0.0.0"), format!("quail://127.0.0.1:7000{pin}"));
        assert_eq!(reached("::"), format!("quail://[::1]:7000{pin}"));
        assert_eq!(reached("192.0.2.7"), format!("quail://192.0.2.7:7000{pin}"));
    }

    #[test]
    fn without_a_pin_the_host_stays() {
        let printed: Address = "quail://chat.example.org:7000".parse().unwrap();
        assert_eq!(reachable(&printed, Ipv4Addr::LOCALHOST.into()), printed);
    }
}
