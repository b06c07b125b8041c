//! What can go wrong with a private daemon, each with what to do next where that is known.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// Why a daemon was not found, did not start, or did not stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LauncherError {
    /// The program named by the user is no program that can be run.
    #[error("{} (from {origin}) is not an executable file", path.display())]
    NotExecutable {
        /// What was named.
        path: PathBuf,
        /// Who named it: an option or an environment variable.
        origin: &'static str,
    },
    /// The program is in none of the places it is looked for.
    #[error("quaild was not found beside this program nor in PATH; build it with: cargo build --release")]
    NotFound,
    /// The log file cannot be written.
    #[error("open the log file {}", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The system cannot start the program.
    #[error("start {}", path.display())]
    Spawn {
        /// The program.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The daemon ended before it served.
    #[error("quaild ended before it served: {status}{}", Log(log))]
    Exited {
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// The daemon did not say in time that it serves. It was killed.
    #[error("quaild did not serve within {waited:?}{}", Log(log))]
    NotReady {
        /// How long it was given.
        waited: Duration,
        /// The end of its log.
        log: String,
    },
    /// The first line that the daemon printed is not its address.
    #[error("quaild printed {line:?} where its address was expected")]
    NoAddress {
        /// The line.
        line: String,
    },
    /// The daemon came back under another address, so its clients cannot find it.
    #[error("quaild came back as {got} and not as {expected}")]
    OtherAddress {
        /// The address before.
        expected: String,
        /// The address now.
        got: String,
    },
    /// The daemon did not stop in time. It was killed.
    #[error("quaild did not stop within {waited:?}{}", Log(log))]
    NotStopped {
        /// How long it was given.
        waited: Duration,
        /// The end of its log.
        log: String,
    },
    /// There is no process now.
    #[error("quaild is not running")]
    NotRunning,
    /// A signal could not be sent.
    #[error("send {signal} to quaild")]
    Signal {
        /// The signal's name.
        signal: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The process could not be waited for.
    #[error("wait for quaild")]
    Wait(#[source] std::io::Error),
}

/// The end of a log as the end of an error's text.
struct Log<'a>(&'a str);

impl std::fmt::Display for Log<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.trim_end() {
            "" => Ok(()),
            log => write!(f, "; its log ends with:\n{log}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_quoted_if_there_is_one() {
        let error = |log: &str| {
            let (waited, log) = (Duration::from_secs(20), log.to_owned());
            LauncherError::NotReady { waited, log }.to_string()
        };
        assert_eq!(error(""), "quaild did not serve within 20s");
        assert_eq!(error("disk full\n"), "quaild did not serve within 20s; its log ends with:\ndisk full");
    }

    #[test]
    fn who_has_no_daemon_is_told_how_to_build_it() {
        assert!(LauncherError::NotFound.to_string().contains("cargo build --release"));
    }
}
