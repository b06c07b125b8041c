//! Why a query has no answer, and what the peer is told.
//!
//! Peers are told the reason and a fixed text. What an operator needs beyond that is logged as the error becomes an
//! answer, and nowhere else.

use std::time::Duration;

use quail_core::ports::archive::ArchiveError;
use quail_core::ports::directory::DirectoryError;
use quail_protocol::v1::{self, Reason};

/// When to try again while the directory or the archive is away.
const UNAVAILABLE_RETRY_AFTER: Duration = Duration::from_secs(2);

/// Why a query has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The question makes no sense. The client's program is to blame.
    #[error("malformed query: {0}")]
    Malformed(String),
    /// Nobody is known by that name or id.
    #[error("no such account")]
    UnknownAccount,
    /// The device that asks was removed since its session was opened.
    #[error("no such session")]
    Unauthenticated,
    /// The directory cannot be reached; a retry may help.
    #[error("the directory is unavailable: {reason}")]
    Unavailable {
        /// For the log, never for peers.
        reason: String,
    },
    /// There is no such conversation of the account that asks.
    #[error("no such conversation")]
    UnknownConversation,
    /// The archive cannot be reached; a retry may help.
    #[error("the archive is unavailable: {reason}")]
    ArchiveUnavailable {
        /// For the log, never for peers.
        reason: String,
    },
    /// The daemon or what it stored is at fault.
    #[error("query failed: {reason}")]
    Internal {
        /// For the log, never for peers.
        reason: String,
    },
}

impl QueryError {
    /// Returns the answer to the peer. Call it once, when answering: it logs what the peer is not told.
    pub fn to_error(&self) -> v1::Error {
        match self {
            Self::Malformed(why) => Reason::Malformed.with_text(why),
            Self::UnknownAccount => Reason::UnknownAccount.error(),
            Self::UnknownConversation => Reason::UnknownConversation.error(),
            Self::Unauthenticated => Reason::Unauthenticated.error(),
            Self::Unavailable { reason } => {
                tracing::warn!(%reason, "the directory is unavailable");
                Reason::DirectoryUnavailable.retry_after(UNAVAILABLE_RETRY_AFTER)
            }
            Self::ArchiveUnavailable { reason } => {
                tracing::warn!(%reason, "the archive is unavailable");
                Reason::ArchiveUnavailable.retry_after(UNAVAILABLE_RETRY_AFTER)
            }
            Self::Internal { reason } => {
                tracing::error!(%reason, "a query failed");
                Reason::Internal.error()
            }
        }
    }
}

impl From<DirectoryError> for QueryError {
    fn from(error: DirectoryError) -> Self {
        match error {
            DirectoryError::UnknownAccount => Self::UnknownAccount,
            DirectoryError::Unavailable { reason } => Self::Unavailable { reason },
            // The others answer commands; a read that gets one has found a fault.
            other => Self::Internal { reason: other.to_string() },
        }
    }
}

impl From<ArchiveError> for QueryError {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::UnknownConversation => Self::UnknownConversation,
            ArchiveError::Unavailable { reason } => Self::ArchiveUnavailable { reason },
            // Nothing that is read can be refused; a read that is has found a fault.
            ArchiveError::Refused { .. } | ArchiveError::Damaged { .. } => {
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
        let reason = || "canary".to_owned();
        let unavailable = QueryError::from(DirectoryError::Unavailable { reason: reason() }).to_error();
        assert_eq!(unavailable.reason(), Reason::DirectoryUnavailable);
        assert!(unavailable.temporary && unavailable.retry_after_ms > 0);
        let internal = QueryError::from(DirectoryError::Corrupt { reason: reason() }).to_error();
        assert_eq!(internal.reason(), Reason::Internal);
        for error in [unavailable, internal] {
            assert!(!error.text.contains("canary"), "{}", error.text);
        }
    }
}
