//! How the process ends: what is told on standard error, and with which exit code.
//!
//! An error says what failed, then why, then the next step. The errors of this package know their next step; for what the
//! system says this is the one place that does.
//!
//! Invariant: exit code 0 is success, 1 failure, 2 wrong usage; the last is clap's.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::Write;
use std::io;

use crate::adapters::postgres::PostgresError;
use crate::adapters::sqlite::OpenDirectoryError;
use crate::app::admin::AdminClientError;
use crate::app::data_dir::DataDirError;
use crate::app::health_check::HealthCheckError;
use crate::app::storage::StorageError;
use crate::app::store_check::StoreCheckError;
use crate::config::ConfigErrors;
use crate::net::identity::IdentityError;
use crate::ops::admin::AdminSocketError;
use crate::ops::logging::LoggingError;

/// Returns what standard error is told about an error.
pub(super) fn report(error: &anyhow::Error) -> String {
    let mut report = String::new();
    for line in message(error).lines() {
        // Writing to a string cannot fail.
        let _ = writeln!(report, "quaild: error: {line}");
    }
    if let Some(hint) = error.chain().find_map(hint) {
        let _ = writeln!(report, "hint: {hint}");
    }
    report
}

/// Returns whether the reader of our output has gone, as with `quaild default-config | head`. That is no failure.
pub(super) fn is_reader_gone(error: &anyhow::Error) -> bool {
    let is_broken_pipe = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.downcast_ref::<io::Error>().is_some_and(is_broken_pipe)
}

/// Joins an error with its causes; some errors name their cause themselves.
fn message(error: &anyhow::Error) -> String {
    let mut message = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if message.is_empty() {
            message = cause;
        } else if !message.ends_with(&cause) {
            let _ = write!(message, ": {cause}");
        }
    }
    message
}

fn hint(error: &(dyn Error + 'static)) -> Option<Cow<'static, str>> {
    if let Some(error) = error.downcast_ref::<AdminClientError>() {
        return error.hint().map(Cow::Owned);
    }
    static_hint(error).map(Cow::Borrowed)
}

fn static_hint(error: &(dyn Error + 'static)) -> Option<&'static str> {
    if let Some(error) = error.downcast_ref::<ConfigErrors>() {
        return Some(error.hint());
    }
    if let Some(error) = error.downcast_ref::<LoggingError>() {
        return Some(error.hint());
    }
    if let Some(error) = error.downcast_ref::<HealthCheckError>() {
        return error.hint();
    }
    if let Some(error) = error.downcast_ref::<DataDirError>() {
        return error.hint();
    }
    if let Some(error) = error.downcast_ref::<StoreCheckError>() {
        return Some(error.hint());
    }
    if let Some(error) = error.downcast_ref::<AdminSocketError>() {
        return error.hint();
    }
    if let Some(error) = error.downcast_ref::<IdentityError>() {
        return error.hint();
    }
    if let Some(error) = error.downcast_ref::<PostgresError>() {
        return Some(error.hint());
    }
    if let Some(error) = error.downcast_ref::<StorageError>() {
        return Some(error.hint());
    }
    if let Some(OpenDirectoryError::Open { .. }) = error.downcast_ref() {
        return Some(
            "see that no other program holds the file, and that it is whole; a backup may be needed",
        );
    }
    error.downcast_ref::<io::Error>().and_then(|error| system_hint(error.kind()))
}

fn system_hint(kind: io::ErrorKind) -> Option<&'static str> {
    Some(match kind {
        io::ErrorKind::AddrInUse => {
            "another program, perhaps another quaild, listens there: stop it, or choose another port with --listen"
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine does not have that address: --listen [::]:7824 listens on all that it has"
        }
        io::ErrorKind::Unsupported => {
            "this system lacks what was asked for; without IPv6, use --listen 0.0.0.0:7824"
        }
        io::ErrorKind::PermissionDenied => {
            "run quaild as the user who owns the files; ports below 1024 need the right to bind them"
        }
        io::ErrorKind::NotFound => "see that the path is right and that the directories in it exist",
        io::ErrorKind::ReadOnlyFilesystem => "name a directory that can be written, with --data",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free space on the disk, then start again"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;
    use crate::config;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot listen on udp [::]:7824")]
    struct BindError {
        source: io::Error,
    }

    fn of(kind: io::ErrorKind) -> anyhow::Error {
        anyhow::Error::new(BindError { source: kind.into() }).context("start the daemon")
    }

    #[test]
    fn an_error_says_what_failed_why_and_what_to_do() {
        assert_eq!(
            report(&of(io::ErrorKind::AddrInUse)),
            "quaild: error: start the daemon: cannot listen on udp [::]:7824: address in use\n\
             hint: another program, perhaps another quaild, listens there: stop it, or choose another port with --listen\n"
        );
        assert!(report(&of(io::ErrorKind::PermissionDenied)).contains("\nhint: run quaild as the user"));
        assert!(!report(&of(io::ErrorKind::TimedOut)).contains("hint"));
    }

    #[test]
    fn a_cause_that_is_named_already_is_not_named_again() {
        let error = anyhow::anyhow!("disk full").context("write: disk full").context("save");
        assert_eq!(message(&error), "save: write: disk full");
    }

    #[test]
    fn every_line_of_many_mistakes_is_an_error() {
        let mut flags = config::Flags::default();
        (flags.listen, flags.log_level) = (Some("x".to_owned()), Some("x".to_owned()));
        let error = config::load(None, &config::SystemEnvironment, &flags).unwrap_err();
        let report = report(&error.into());
        assert_eq!(report.matches("quaild: error: ").count(), 2, "{report}");
        assert_eq!(report.matches("hint: `quaild default-config`").count(), 1, "{report}");
    }

    #[test]
    fn an_error_below_others_still_gives_its_hint() {
        let root = tempfile::tempdir().unwrap();
        let _first = crate::app::data_dir::DataDir::open(root.path()).unwrap();
        let second = crate::app::data_dir::DataDir::open(root.path()).context("open the data directory");
        assert!(report(&second.unwrap_err()).contains("hint: stop the other one"));
    }

    #[test]
    fn only_a_broken_pipe_is_a_reader_who_left() {
        assert!(is_reader_gone(&io::Error::from(io::ErrorKind::BrokenPipe).into()));
        assert!(!is_reader_gone(&of(io::ErrorKind::BrokenPipe)));
    }
}
