//! Why a command of the operator was not done. Unlike a peer, the operator is told everything.

use quail_core::ports::directory::DirectoryError;
use quail_protocol::limits::{HANDLE_CHARS, PASSWORD_BYTES};

use super::CREATE_ACCOUNTS_MAX;
use crate::directory::Refusal;

/// Why a command of the operator was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// No account has this handle.
    #[error("there is no account {handle:?}")]
    UnknownHandle {
        /// The handle.
        handle: String,
    },
    /// A handle is not of the form of handles.
    #[error(
        "{handle:?} is no handle: those have {} to {} characters of a-z, 0-9, _ and .",
        HANDLE_CHARS.start(), HANDLE_CHARS.end()
    )]
    HandleInvalid {
        /// The handle.
        handle: String,
    },
    /// A handle stands twice among those that were to be created.
    #[error("the handle {handle:?} is given twice")]
    HandleTwice {
        /// The handle.
        handle: String,
    },
    /// Handles belong to accounts already.
    #[error("taken already: {}", handles.join(", "))]
    HandlesTaken {
        /// The handles.
        handles: Vec<String>,
    },
    /// More accounts than one request may create.
    #[error("one request creates at most {CREATE_ACCOUNTS_MAX} accounts")]
    TooMany,
    /// The account has no such device.
    #[error("{handle} has no device {device:?}")]
    UnknownDevice {
        /// The account's handle.
        handle: String,
        /// What was given for a device.
        device: String,
    },
    /// The invite is unknown or used.
    #[error("there is no such invite, or it is used up")]
    UnknownInvite,
    /// The password that was to be set is too short or too long.
    #[error("a password has {} to {} bytes", PASSWORD_BYTES.start(), PASSWORD_BYTES.end())]
    PasswordInvalid,
    /// The directory could not do it.
    #[error(transparent)]
    Directory(DirectoryError),
    /// The daemon could not do it.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl AdminError {
    /// Returns the stable name of the error, for programs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownHandle { .. } => "unknown_handle",
            Self::HandleInvalid { .. } => "handle_invalid",
            Self::HandleTwice { .. } => "handle_twice",
            Self::HandlesTaken { .. } => "handles_taken",
            Self::TooMany => "too_many",
            Self::UnknownDevice { .. } => "unknown_device",
            Self::UnknownInvite => "unknown_invite",
            Self::PasswordInvalid => "password_invalid",
            Self::Directory(_) | Self::Refused(Refusal::Unavailable { .. }) => "directory",
            Self::Refused(Refusal::Busy) => "busy",
            Self::Refused(_) => "internal",
        }
    }

    /// Returns the operator's next step.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::UnknownHandle { .. } => Some("`quaild admin accounts list` shows the handles there are"),
            Self::UnknownDevice { .. } => {
                Some("`quaild admin devices list HANDLE` shows the devices there are")
            }
            Self::UnknownInvite => Some("`quaild admin invites list` shows the invites there are"),
            Self::HandlesTaken { .. } | Self::HandleTwice { .. } => {
                Some("leave them out and try again; no account of this batch was created")
            }
            Self::Refused(Refusal::Busy) => Some("try again in a second"),
            Self::Directory(error) if error.is_temporary() => {
                Some("see that the disk has space and works, then try again")
            }
            _ => None,
        }
    }
}

impl From<DirectoryError> for AdminError {
    fn from(error: DirectoryError) -> Self {
        match error {
            DirectoryError::HandlesTaken { handles } => Self::HandlesTaken { handles },
            DirectoryError::InviteInvalid => Self::UnknownInvite,
            other => Self::Directory(other),
        }
    }
}
