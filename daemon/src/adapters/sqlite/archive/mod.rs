//! The archive in a SQLite file of its own.
//!
//! Of its own, because SQLite lets one connection of a file write at a time: in the directory's file a batch of a thousand messages
//! would keep a sign-up waiting. Batches are written with few statements of many rows; reads have connections of their own and,
//! with the write-ahead log, wait for nobody.
//!
//! Invariants: a batch is one transaction, synced when it is answered (`synchronous = FULL`): the journal gives up a segment for
//! what is said to be archived, so that must not be ahead of the disk. Statements are put together from constant text only,
//! values are always bound. What the file holds is checked as it is read.

mod changes;
mod fault;
mod merge;
mod open;
mod read;
mod rows;
mod search;
mod trail;
mod write;

use quail_core::ports::archive::{
    Applied, ArchiveBatch, ArchiveError, ArchivedMessage, Browse, ConversationKey, ConversationPage,
    DeadLetter, Found, Page, PageRoom, ReadArchive, Search, SyncPage, WriteArchive,
};
use quail_core::ports::directory::PortFuture;
use quail_protocol::id::{AccountId, ConversationId, Origin, Position};
use sqlx::{Sqlite, SqlitePool, Transaction};

use fault::Fault;
pub use open::OpenArchiveError;

/// An archive in a SQLite file of this process; clones share its connections.
#[derive(Clone)]
pub struct SqliteArchive {
    /// The one connection that writes.
    writer: SqlitePool,
    /// Connections that cannot write.
    readers: SqlitePool,
}

impl SqliteArchive {
    /// Waits for what is under way, then closes the file. Later calls fail as unavailable.
    pub async fn close(&self) {
        self.readers.close().await;
        // Last, because the connection that closes last moves the write-ahead log into the file.
        self.writer.close().await;
    }

    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, Fault> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// Begins to read: every statement of the transaction sees one state.
    async fn snapshot(&self) -> Result<Transaction<'static, Sqlite>, Fault> {
        Ok(self.readers.begin().await?)
    }
}

impl WriteArchive for SqliteArchive {
    fn apply<'a>(&'a self, batch: &'a ArchiveBatch) -> PortFuture<'a, Result<Applied, ArchiveError>> {
        answer(async move {
            let mut transaction = self.begin().await?;
            if let Some(origin) = batch.origin {
                if write::archived(&mut transaction, origin).await?.is_some_and(|upto| upto >= batch.upto) {
                    return Ok(Applied::default());
                }
                write::set_archived(&mut transaction, origin, batch.upto).await?;
            }
            let applied = write::apply(&mut transaction, batch).await?;
            transaction.commit().await?;
            Ok(applied)
        })
    }

    fn archived(&self, origin: Origin) -> PortFuture<'_, Result<Option<Position>, ArchiveError>> {
        answer(async move { write::archived(&mut *self.readers.acquire().await?, origin).await })
    }

    fn dead(&self, after: u64, limit: u32) -> PortFuture<'_, Result<Vec<DeadLetter>, ArchiveError>> {
        answer(async move { write::dead(&mut *self.readers.acquire().await?, after, limit).await })
    }

    fn revive<'a>(
        &'a self,
        number: u64,
        batch: &'a ArchiveBatch,
    ) -> PortFuture<'a, Result<Option<Applied>, ArchiveError>> {
        answer(async move {
            let mut transaction = self.begin().await?;
            if !write::drop_dead(&mut transaction, number).await? {
                return Ok(None);
            }
            let applied = write::apply(&mut transaction, batch).await?;
            transaction.commit().await?;
            Ok(Some(applied))
        })
    }

    fn drop_dead(&self, number: u64) -> PortFuture<'_, Result<bool, ArchiveError>> {
        answer(async move {
            let mut transaction = self.begin().await?;
            let dropped = write::drop_dead(&mut transaction, number).await?;
            transaction.commit().await?;
            Ok(dropped)
        })
    }
}

impl ReadArchive for SqliteArchive {
    fn conversations(
        &self,
        account: AccountId,
        after: Option<ConversationKey>,
    ) -> PortFuture<'_, Result<ConversationPage, ArchiveError>> {
        answer(async move { read::conversations(&mut *self.snapshot().await?, account, after).await })
    }

    fn unread(
        &self,
        account: AccountId,
        conversation: ConversationId,
    ) -> PortFuture<'_, Result<u32, ArchiveError>> {
        answer(async move { read::unread(&mut *self.readers.acquire().await?, account, conversation).await })
    }

    fn browse(
        &self,
        account: AccountId,
        conversation: ConversationId,
        which: Browse,
        limit: usize,
    ) -> PortFuture<'_, Result<Page<ArchivedMessage>, ArchiveError>> {
        answer(async move {
            let mut snapshot = self.snapshot().await?;
            read::check_own(&mut snapshot, account, conversation).await?;
            read::browse(&mut snapshot, account, conversation, which, limit).await
        })
    }

    fn sync(
        &self,
        account: AccountId,
        behind: Vec<(ConversationId, u64)>,
        limit: usize,
    ) -> PortFuture<'_, Result<Vec<SyncPage>, ArchiveError>> {
        answer(async move {
            let mut snapshot = self.snapshot().await?;
            let (mut room, mut pages) = (PageRoom::default(), Vec::with_capacity(behind.len()));
            for (conversation, seq) in behind {
                let asked = (conversation, seq, limit);
                let synced = read::sync(&mut snapshot, account, asked, &mut room).await?;
                if !pages.is_empty() && synced.is_cut_off() {
                    break;
                }
                pages.push(SyncPage { conversation, synced });
            }
            Ok(pages)
        })
    }

    fn search(
        &self,
        account: AccountId,
        search: Search,
    ) -> PortFuture<'_, Result<Page<Found>, ArchiveError>> {
        answer(async move {
            let mut snapshot = self.snapshot().await?;
            if let Some(conversation) = search.conversation {
                read::check_own(&mut snapshot, account, conversation).await?;
            }
            search::search(&mut snapshot, account, &search).await
        })
    }

    fn archived_of(&self, origin: Origin) -> PortFuture<'_, Result<Option<Position>, ArchiveError>> {
        self.archived(origin)
    }
}

/// Turns the work of a call into the future of the port.
fn answer<'a, T: 'a>(
    work: impl Future<Output = Result<T, Fault>> + Send + 'a,
) -> PortFuture<'a, Result<T, ArchiveError>> {
    Box::pin(async move { work.await.map_err(ArchiveError::from) })
}

#[cfg(test)]
mod tests;
