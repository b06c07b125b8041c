//! What people are told when something fails: a reason for programs, a text, and the next step.
//!
//! The errors of the SDK and of the library say what happened; what to do about it depends on this program's commands, so
//! that is said here, in one place.
//!
//! Invariants: a reason, once given, keeps its meaning, because scripts decide on it; the exit code of a failure is 1,
//! or 2 if the user has to ask otherwise.

use std::process::ExitCode;

use quail::bench::BenchError;
use quail::demo::DemoError;
use quail::launcher::LauncherError;
use quail::output::Output;
use quail::profile::ProfileError;
use quail::text::TextError;
use quail_client::{ChangeError, Error, Reason, StoreError};

/// It worked.
pub(super) const EXIT_OK: u8 = 0;
/// It failed, or a check found something wrong.
pub(super) const EXIT_FAILED: u8 = 1;
/// It was asked wrongly.
pub(super) const EXIT_USAGE: u8 = 2;

/// The next step where the device itself is of no use any more.
const AGAIN: &str = "log in as a new device: quail logout --force, then quail login ADDRESS";

/// How a command ended that has said all there is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// As asked.
    Good,
    /// It checked something and found it wrong, and said so.
    Bad,
}

impl Outcome {
    pub(super) fn exit_code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Good => EXIT_OK,
            Self::Bad => EXIT_FAILED,
        })
    }
}

/// A failure that this program itself finds.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct Failure {
    reason: &'static str,
    text: String,
    hint: Option<String>,
    exit: u8,
}

impl Failure {
    /// Something did not work.
    pub(super) fn failed(reason: &'static str, text: impl Into<String>) -> Self {
        Self { reason, text: text.into(), hint: None, exit: EXIT_FAILED }
    }

    /// The user has to ask otherwise.
    pub(super) fn usage(text: impl Into<String>) -> Self {
        Self { exit: EXIT_USAGE, ..Self::failed("USAGE", text) }
    }

    /// Adds the next step.
    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// Tells why the command failed and returns its exit code.
pub(super) fn report(output: Output, error: &anyhow::Error) -> ExitCode {
    let explained = explain(error);
    output.error(explained.reason, &explained.text, explained.hint.as_deref());
    ExitCode::from(explained.exit)
}

/// Finds the failure that an error is.
fn explain(error: &anyhow::Error) -> Failure {
    let (reason, hint) = error.chain().find_map(known).unwrap_or(("FAILED", None));
    let own = error.chain().find_map(|cause| cause.downcast_ref::<Failure>());
    let parts: Vec<_> = error.chain().map(ToString::to_string).collect();
    Failure { reason, text: join(&parts), hint, exit: own.map_or(EXIT_FAILED, |own| own.exit) }
}

/// Joins an error and its causes; one that only repeats the end of the one before is left out.
fn join(parts: &[String]) -> String {
    let mut text = String::new();
    for part in parts {
        if text.ends_with(part.as_str()) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(part);
    }
    text
}

/// Returns reason and hint of a cause that this program knows.
fn known(cause: &(dyn std::error::Error + 'static)) -> Option<(&'static str, Option<String>)> {
    let (reason, hint) = if let Some(failure) = cause.downcast_ref::<Failure>() {
        return Some((failure.reason, failure.hint.clone()));
    } else if let Some(error) = cause.downcast_ref::<Error>() {
        let (reason, hint) = of_client(error);
        return Some((reason, when(error).or_else(|| hint.map(str::to_owned))));
    } else if let Some(error) = cause.downcast_ref::<StoreError>() {
        of_store(error)
    } else if let Some(error) = cause.downcast_ref::<ChangeError>() {
        of_change(error)
    } else if let Some(error) = cause.downcast_ref::<ProfileError>() {
        of_profile(error)
    } else if let Some(error) = cause.downcast_ref::<LauncherError>() {
        of_launcher(error)
    } else if let Some(error) = cause.downcast_ref::<BenchError>() {
        of_bench(error)
    } else if cause.is::<TextError>() {
        ("INPUT", Some("nothing was sent; correct the input and send it again"))
    } else if let Some(error) = cause.downcast_ref::<DemoError>() {
        // What lies behind it explains more.
        match error {
            DemoError::Launcher(error) => of_launcher(error),
            DemoError::Client { source, .. } => of_client(source),
            _ => ("LIMIT", None),
        }
    } else {
        return None;
    };
    Some((reason, hint.map(str::to_owned)))
}

/// Says when a try passes that was one too many.
fn when(error: &Error) -> Option<String> {
    let is_limited = error.reason() == Some(Reason::RateLimited);
    let seconds = error.retry_after().filter(|_| is_limited)?.as_millis().div_ceil(1000);
    Some(match seconds {
        0..=90 => format!("try again in {seconds} s"),
        91..=5_400 => format!("try again in {} min", seconds.div_ceil(60)),
        _ => format!("try again in {} h", seconds.div_ceil(3_600)),
    })
}

fn of_client(error: &Error) -> (&'static str, Option<&'static str>) {
    match error {
        Error::UnknownHost { .. } => ("UNKNOWN_HOST", Some("check the host name in the address")),
        Error::Unreachable { .. } => (
            "UNREACHABLE",
            Some(
                "check that quaild runs there and that UDP reaches its port; quail ping ADDRESS tries again",
            ),
        ),
        Error::ConnectionRefused { .. } => ("CONNECTION_REFUSED", Some("try again in a moment")),
        Error::WrongPin { .. } => (
            "WRONG_PIN",
            Some("do not go on if you cannot explain it: ask the operator for the server's present address"),
        ),
        Error::Certificate { .. } => {
            ("CERTIFICATE", Some("use the whole address that quaild prints, with ?pin=sha256:..."))
        }
        Error::NotQuail => ("NOT_QUAIL", Some("check the port in the address")),
        Error::Version { .. } => ("VERSION", Some("update quail, or ask the operator to update quaild")),
        Error::Refused(refusal) => (refusal.reason.meta().name, of_reason(refusal.reason)),
        Error::ConnectionLost { .. } => {
            ("CONNECTION_LOST", Some("it may have taken effect; look before trying again"))
        }
        Error::TimedOut { .. } => ("TIMED_OUT", Some("it may have taken effect; look before trying again")),
        Error::Store(error) => of_store(error),
        Error::Replaced => (
            "REPLACED",
            Some("another program reads as this device; give each its own: quail --profile NAME login"),
        ),
        Error::OtherAccount { .. } => ("OTHER_ACCOUNT", Some(AGAIN)),
        Error::Protocol { .. } => ("PROTOCOL", Some("update quail and quaild to the same version")),
        _ => ("FAILED", None),
    }
}

fn of_reason(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::Unauthenticated => {
            "the session has ended; note the address (quail whoami), then quail logout and quail login ADDRESS"
        }
        Reason::WrongCredentials => "check handle and password",
        Reason::HandleTaken => "choose another with --handle, or log in: quail login",
        Reason::HandleInvalid => "choose another with --handle",
        Reason::SignUpClosed => "ask the operator for an account",
        Reason::InviteInvalid => "ask the operator for an invite and give it with --invite",
        Reason::DeviceLimit => {
            "unlink one that you no longer use, from a device that is logged in: quail devices"
        }
        Reason::UnknownAccount => "check how the handle is written",
        Reason::Busy | Reason::Overloaded | Reason::Draining => "try again in a moment",
        Reason::DirectoryUnavailable | Reason::Internal => {
            "try again later; the operator finds more in the log"
        }
        Reason::ArchiveUnavailable => "try again later; the operator finds more in the log",
        Reason::UnknownConversation => "nothing was said between you yet",
        Reason::NoHistory => "the operator has turned history off; quail tail prints what comes",
        Reason::RateLimited => "wait a little before the next try",
        Reason::Version => "update quail, or ask the operator to update quaild",
        _ => return None,
    })
}

fn of_store(error: &StoreError) -> (&'static str, Option<&'static str>) {
    match error {
        StoreError::InUse { .. } => (
            "IN_USE",
            Some("wait for the other quail process, or use a device of your own: quail --profile NAME login"),
        ),
        StoreError::OtherDevice { .. } => ("OTHER_DEVICE", Some(AGAIN)),
        StoreError::Newer { .. } => ("NEWER", Some("a later quail wrote it: update this one")),
        StoreError::Damaged { .. } => ("DAMAGED", Some(AGAIN)),
        StoreError::Full { .. } => ("DISK_FULL", Some("make some space; what is queued is still there")),
        StoreError::NotWritable { .. } => (
            "NOT_WRITABLE",
            Some("give yourself the right to write there, or set QUAIL_CONFIG_DIR to another place"),
        ),
        _ => ("STORE", Some("look after the disk; what is queued is still there")),
    }
}

fn of_change(error: &ChangeError) -> (&'static str, Option<&'static str>) {
    match error {
        ChangeError::OnItsWay(_) => {
            ("ON_ITS_WAY", Some("the server may have it, and nothing is taken back from there"))
        }
        ChangeError::NotQueued(_) => ("NOT_QUEUED", Some("quail queue lists what is queued")),
        ChangeError::Client(error) => of_client(error),
        _ => ("FAILED", None),
    }
}

fn of_profile(error: &ProfileError) -> (&'static str, Option<&'static str>) {
    match error {
        ProfileError::NoHome => ("NO_HOME", Some("set QUAIL_CONFIG_DIR")),
        ProfileError::Open { .. } => (
            "PROFILE_OPEN",
            Some("whoever read it can act as you: log out and in again, or close it with chmod 600"),
        ),
        ProfileError::Damaged { .. } => ("DAMAGED", Some(AGAIN)),
        _ => ("PROFILE", None),
    }
}

fn of_launcher(error: &LauncherError) -> (&'static str, Option<&'static str>) {
    match error {
        LauncherError::NotFound => ("NO_DAEMON", Some("or name it with --daemon PATH or QUAIL_DAEMON")),
        LauncherError::NotExecutable { .. } => ("NO_DAEMON", Some("build it with: cargo build --release")),
        _ => ("DAEMON", None),
    }
}

fn of_bench(error: &BenchError) -> (&'static str, Option<&'static str>) {
    match error {
        BenchError::Launcher(error) => of_launcher(error),
        BenchError::Client { source, .. } if source.reason() == Some(Reason::RateLimited) => (
            "RATE_LIMITED",
            Some(
                "take fewer users, ask the server's operator to lift its limits (section [rates]), or leave out --server",
            ),
        ),
        BenchError::Client { source, .. } => of_client(source),
        BenchError::OpenFiles { .. } => {
            ("OPEN_FILES", Some("raise the hard limit (ulimit -Hn), or take fewer"))
        }
        _ => ("BENCH", None),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use anyhow::Context;
    use quail_client::Refusal;

    use super::*;

    fn explained(error: impl Into<anyhow::Error>) -> (String, &'static str, u8, Option<String>) {
        let Failure { reason, text, hint, exit } = explain(&error.into());
        (text, reason, exit, hint)
    }

    #[test]
    fn causes_are_told_once_and_the_deepest_known_one_decides() {
        let error = Err::<(), _>(Error::NotQuail).context("connect").unwrap_err();
        let (text, reason, exit, hint) = explained(error);
        assert_eq!(text, "connect: the server does not speak quail/1");
        assert_eq!((reason, exit), ("NOT_QUAIL", EXIT_FAILED));
        assert_eq!(hint.unwrap(), "check the port in the address");
    }

    #[test]
    fn who_was_too_fast_is_told_when_to_try_again() {
        let hint = |wait: Option<u64>| {
            let error = Error::Refused(Refusal {
                reason: Reason::RateLimited,
                text: "too many tries".to_owned(),
                retry_after: wait.map(Duration::from_millis),
                temporary: true,
            });
            explained(error).3.unwrap()
        };
        assert_eq!(hint(Some(1)), "try again in 1 s");
        assert_eq!(hint(Some(120_001)), "try again in 3 min");
        assert_eq!(hint(Some(7_200_000)), "try again in 2 h");
        assert_eq!(hint(None), "wait a little before the next try");
    }

    #[test]
    fn usage_has_its_own_exit_code() {
        let error = Failure::usage("no handle").hint("give --handle");
        let (text, reason, exit, hint) = explained(error);
        assert_eq!((text.as_str(), reason, exit), ("no handle", "USAGE", EXIT_USAGE));
        assert_eq!(hint.unwrap(), "give --handle");
    }

    #[test]
    fn what_is_not_known_is_told_too() {
        let (text, reason, exit, hint) = explained(anyhow::anyhow!("x").context("y"));
        assert_eq!((text.as_str(), reason, exit, hint), ("y: x", "FAILED", EXIT_FAILED, None));
    }

    #[test]
    fn an_error_that_shows_its_cause_is_not_told_twice() {
        let error = DemoError::Launcher(LauncherError::NotFound);
        let (text, reason, _, hint) = explained(error);
        assert_eq!(text.matches("cargo build").count(), 1, "{text}");
        assert_eq!(reason, "NO_DAEMON");
        assert!(hint.unwrap().contains("QUAIL_DAEMON"));
    }
}
