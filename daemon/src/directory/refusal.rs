//! Why a directory command was refused, and what the peer is told.
//!
//! Peers are told the reason and a fixed text. What an operator needs beyond that is logged as the refusal becomes an
//! answer, and nowhere else.

use std::time::Duration;

use quail_core::ports::directory::DirectoryError;
use quail_protocol::v1::{self, Reason};

/// When to try again after `BUSY`: by then a full queue is drained.
const BUSY_RETRY_AFTER: Duration = Duration::from_secs(1);

/// When to try again while the directory is away.
const UNAVAILABLE_RETRY_AFTER: Duration = Duration::from_secs(2);

/// Why a directory command was refused.
///
/// Up to [`Unauthenticated`](Self::Unauthenticated) it is for the client to ask for something else; a retry helps with
/// [`Busy`](Self::Busy) and [`Unavailable`](Self::Unavailable); [`Internal`](Self::Internal) is for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Handle or password is wrong; which of them is nobody's business.
    #[error("wrong handle or password")]
    WrongCredentials,
    /// The handle belongs to another account.
    #[error("the handle is taken")]
    HandleTaken,
    /// The handle is not of the form of handles.
    #[error("the handle is not of the form of handles")]
    HandleInvalid,
    /// The password that was to be set is too short or too long.
    #[error("the password is too short or too long")]
    PasswordInvalid,
    /// What the device says it runs on is too long or has control characters.
    #[error("the platform is too long or has control characters")]
    PlatformInvalid,
    /// What should be on or off is neither.
    #[error("a setting is neither on nor off")]
    SwitchInvalid,
    /// What should be the id of a device is none.
    #[error("{0}")]
    IdInvalid(
        /// What is wrong with it.
        String,
    ),
    /// The server takes no new accounts.
    #[error("sign-up is closed")]
    SignUpClosed,
    /// The invite is missing, unknown or used.
    #[error("the invite is missing, unknown or used")]
    InviteInvalid,
    /// The account has as many devices as it may have.
    #[error("the account has too many devices")]
    DeviceLimit,
    /// There is no such session (any more).
    #[error("no such session")]
    Unauthenticated,
    /// Too many passwords wait to be hashed.
    #[error("too many password checks at once")]
    Busy,
    /// The directory cannot be reached or cannot write.
    #[error("the directory is unavailable: {reason}")]
    Unavailable {
        /// For the log, never for peers.
        reason: String,
    },
    /// The daemon or what it stored is at fault.
    #[error("directory command failed: {reason}")]
    Internal {
        /// For the log, never for peers.
        reason: String,
    },
}

impl Refusal {
    /// Returns the reason a peer sees.
    pub fn reason(&self) -> Reason {
        match self {
            Self::WrongCredentials => Reason::WrongCredentials,
            Self::HandleTaken => Reason::HandleTaken,
            Self::HandleInvalid => Reason::HandleInvalid,
            Self::PasswordInvalid => Reason::PasswordInvalid,
            Self::PlatformInvalid | Self::SwitchInvalid | Self::IdInvalid(_) => Reason::Malformed,
            Self::SignUpClosed => Reason::SignUpClosed,
            Self::InviteInvalid => Reason::InviteInvalid,
            Self::DeviceLimit => Reason::DeviceLimit,
            Self::Unauthenticated => Reason::Unauthenticated,
            Self::Busy => Reason::Busy,
            Self::Unavailable { .. } => Reason::DirectoryUnavailable,
            Self::Internal { .. } => Reason::Internal,
        }
    }

    /// Returns the answer to the peer. Call it once, when answering: it logs what the peer is not told.
    pub fn to_error(&self) -> v1::Error {
        let reason = self.reason();
        match self {
            Self::Busy => reason.retry_after(BUSY_RETRY_AFTER),
            Self::Unavailable { reason: why } => {
                tracing::warn!(reason = %why, "the directory is unavailable");
                reason.retry_after(UNAVAILABLE_RETRY_AFTER)
            }
            Self::Internal { reason: why } => {
                tracing::error!(reason = %why, "a directory command failed");
                reason.error()
            }
            Self::PlatformInvalid | Self::IdInvalid(_) => reason.with_text(self.to_string()),
            _ => reason.error(),
        }
    }
}

impl From<DirectoryError> for Refusal {
    fn from(error: DirectoryError) -> Self {
        match error {
            DirectoryError::HandleTaken | DirectoryError::HandlesTaken { .. } => Self::HandleTaken,
            DirectoryError::InviteInvalid => Self::InviteInvalid,
            DirectoryError::DeviceLimit => Self::DeviceLimit,
            // Whoever acts in the name of what is gone has no session any more.
            DirectoryError::UnknownAccount | DirectoryError::UnknownDevice => Self::Unauthenticated,
            // Strangers learn of a disabled account as little as of a wrong password.
            DirectoryError::PasswordChanged | DirectoryError::AccountDisabled => Self::WrongCredentials,
            DirectoryError::Unavailable { reason } => Self::Unavailable { reason },
            error @ (DirectoryError::Duplicate { .. } | DirectoryError::Corrupt { .. }) => {
                Self::Internal { reason: error.to_string() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_told_when_to_retry_and_nothing_of_the_inside() {
        let busy = Refusal::Busy.to_error();
        assert!(busy.temporary && busy.retry_after_ms > 0);

        let unavailable =
            Refusal::from(DirectoryError::Unavailable { reason: "canary".to_owned() }).to_error();
        assert_eq!(unavailable.reason(), Reason::DirectoryUnavailable);
        assert!(unavailable.temporary && unavailable.retry_after_ms > 0);

        let internal = Refusal::from(DirectoryError::Corrupt { reason: "canary".to_owned() }).to_error();
        assert_eq!(internal.reason(), Reason::Internal);
        for error in [unavailable, internal] {
            assert!(!error.text.contains("canary"), "{}", error.text);
        }

        let taken = Refusal::from(DirectoryError::HandleTaken).to_error();
        assert_eq!(taken, Reason::HandleTaken.error());
    }
}
