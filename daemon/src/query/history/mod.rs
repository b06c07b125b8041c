//! Reading history: the archive, as an account may see it.
//!
//! Every question is answered by one page that fits into a frame; nothing is held between two pages. The archive is written behind
//! delivery, so a question may name a position that the answer is to contain, and waits a moment for it.
//!
//! Invariants: every question reads as the account of its session and under a bound in time and bytes; a conversation of others and
//! one that does not exist are one answer; `Archived` is read before the rows, so they have at least what it says; a device that was
//! removed while it waited is told nothing.

mod browse;
mod conversations;
mod page;
mod search;
mod sync;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use quail_core::ports::archive::{ArchiveError, ReadArchive, direct};
use quail_core::ports::directory::{Directory, PortFuture, SessionFacts};
use quail_protocol::id::{AccountId, Origin, Position};
use quail_protocol::limits::{ARCHIVE_WAIT, HISTORY_PAGE, HISTORY_PAGE_MAX};
use quail_protocol::v1;
use tokio::sync::watch;

use super::QueryError;
use crate::ops::metrics::Metrics;

/// How long the archive may take for one question.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Answers questions of history.
pub struct History {
    /// Where it is read.
    pub archive: Arc<dyn ReadArchive>,
    /// Knows which devices there are, and whose handle is whose.
    pub directory: Arc<dyn Directory>,
    /// The origin of this data directory.
    pub origin: Origin,
    /// Up to where that is archived.
    pub archived: watch::Receiver<Position>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl History {
    /// Waits for what the device wants to be in the answer, checks that it is still there, and returns up to where the archive is.
    async fn begin(
        &self,
        session: &SessionFacts,
        accepted: Option<v1::Cursor>,
    ) -> Result<v1::Archived, QueryError> {
        let behind = match accepted {
            None => false,
            Some(wanted) if wanted.origin == self.origin.0 => !self.has(Position(wanted.position)).await,
            Some(wanted) => {
                let upto = in_time(self.archive.archived_of(Origin(wanted.origin))).await?;
                upto.is_none_or(|upto| upto < Position(wanted.position))
            }
        };
        if behind {
            self.metrics.archive.behind.inc();
        }
        // As late as can be: a device may be removed while it waits.
        let facts = self.directory.facts(session.account).await?;
        let is_there = facts.is_some_and(|facts| facts.devices.contains(&session.device));
        if !is_there {
            return Err(QueryError::Unauthenticated);
        }
        let position = *self.archived.borrow();
        Ok(v1::Archived { origin: self.origin.0, position: position.0, behind })
    }

    /// Checks that a conversation is one of the account of a session.
    ///
    /// # Errors
    /// `MALFORMED` for a peer that is none, `UNKNOWN_CONVERSATION`, `UNAUTHENTICATED`, `ARCHIVE_UNAVAILABLE` also where the archive is
    /// behind what it was to be asked after, `DIRECTORY_UNAVAILABLE`, `INTERNAL`.
    pub async fn check_own(
        &self,
        session: &SessionFacts,
        peer: &[u8],
        accepted: Option<v1::Cursor>,
    ) -> Result<(), QueryError> {
        let conversation = direct(session.account, self::peer(peer)?);
        let archived = self.begin(session, accepted).await?;
        match in_time(self.archive.unread(session.account, conversation)).await {
            Err(QueryError::UnknownConversation) if archived.behind => {
                Err(QueryError::ArchiveUnavailable { reason: "it is behind".to_owned() })
            }
            answer => answer.map(|_| ()),
        }
    }

    /// Waits until a position is archived; returns whether it is.
    async fn has(&self, position: Position) -> bool {
        let mut archived = self.archived.clone();
        let waiting = archived.wait_for(|upto| *upto >= position);
        tokio::time::timeout(ARCHIVE_WAIT, waiting).await.is_ok_and(|has| has.is_ok())
    }
}

/// Bounds a question to the archive in time.
async fn in_time<T>(asking: PortFuture<'_, Result<T, ArchiveError>>) -> Result<T, QueryError> {
    match tokio::time::timeout(READ_TIMEOUT, asking).await {
        Ok(answer) => Ok(answer?),
        Err(_) => {
            let reason = format!("no answer within {} s", READ_TIMEOUT.as_secs());
            Err(QueryError::ArchiveUnavailable { reason })
        }
    }
}

/// Turns a conversation that is not there into nothing, where it may only be that the archive is behind.
fn unless_behind<T: Default>(
    archived: &v1::Archived,
    answer: Result<T, QueryError>,
) -> Result<T, QueryError> {
    match answer {
        Err(QueryError::UnknownConversation) if archived.behind => Ok(T::default()),
        answer => answer,
    }
}

/// Reads the peer that names a conversation.
fn peer(bytes: &[u8]) -> Result<AccountId, QueryError> {
    AccountId::try_from(bytes).map_err(|error| QueryError::Malformed(error.to_string()))
}

/// Returns how many messages are meant by a limit.
fn page_limit(asked: u32) -> usize {
    match usize::try_from(asked) {
        Ok(0) => HISTORY_PAGE,
        Ok(asked) => asked.min(HISTORY_PAGE_MAX),
        Err(_) => HISTORY_PAGE_MAX,
    }
}
