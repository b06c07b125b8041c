//! Dead letters: events that could not be archived, for the operator to look at, to try again and to drop.

use std::sync::Arc;

use quail_core::ports::archive::{ArchiveBatch, ArchiveError, DeadLetter, WriteArchive};
use quail_protocol::id::Position;

use super::Lineage;
use super::item::{Item, batch, of_letter};

/// Dead letters in one page.
const PAGE: u32 = 100;

/// Why a dead letter was not dealt with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeadError {
    /// There is none of that number.
    #[error("there is no dead letter {number}")]
    Unknown {
        /// The number.
        number: u64,
    },
    /// It still cannot be archived; it is kept.
    #[error("dead letter {number} still cannot be archived: {reason}")]
    Refused {
        /// The number.
        number: u64,
        /// Why.
        reason: String,
    },
    /// The archive failed.
    #[error(transparent)]
    Archive(ArchiveError),
}

/// What the operator may do with dead letters.
#[derive(Clone)]
pub struct DeadLetters {
    archive: Arc<dyn WriteArchive>,
    lineage: Lineage,
}

impl DeadLetters {
    /// Returns those of an archive.
    pub fn new(archive: Arc<dyn WriteArchive>, lineage: Lineage) -> Self {
        Self { archive, lineage }
    }

    /// Lists those behind a number, at most a page.
    ///
    /// # Errors
    /// `Archive`.
    pub async fn list(&self, after: u64) -> Result<Vec<DeadLetter>, DeadError> {
        self.archive.dead(after, PAGE).await.map_err(DeadError::Archive)
    }

    /// Archives one, which is gone then.
    ///
    /// # Errors
    /// [`DeadError`]; the letter is kept.
    pub async fn retry(&self, number: u64) -> Result<(), DeadError> {
        let found = self.archive.dead(number.saturating_sub(1), 1).await.map_err(DeadError::Archive)?;
        let letter = found.into_iter().find(|letter| letter.number == number);
        let letter = letter.ok_or(DeadError::Unknown { number })?;
        let refused = |reason: &str| DeadError::Refused { number, reason: reason.to_owned() };
        let event = of_letter(&letter).ok_or_else(|| refused("another version of the daemon kept it"))?;
        let item = Item::of(event);
        if let Some(reason) = item.error() {
            return Err(refused(reason));
        }
        let batch = batch(&self.lineage, &[item], Position::ZERO);
        let batch = ArchiveBatch { origin: None, ..batch };
        match self.archive.revive(number, &batch).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(DeadError::Unknown { number }),
            Err(ArchiveError::Refused { reason }) => Err(refused(&reason)),
            Err(error) => Err(DeadError::Archive(error)),
        }
    }

    /// Drops one.
    ///
    /// # Errors
    /// `Unknown`, `Archive`.
    pub async fn drop(&self, number: u64) -> Result<(), DeadError> {
        let was_there = self.archive.drop_dead(number).await.map_err(DeadError::Archive)?;
        if was_there { Ok(()) } else { Err(DeadError::Unknown { number }) }
    }
}
