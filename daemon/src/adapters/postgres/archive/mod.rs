//! The archive in Postgres: history where the accounts and the backups are.
//!
//! It lies in the directory's database, under the same migrations, and has connections of its own: some to read, which history may
//! use up, and two to write, so neither keeps a log-in waiting, and a storm of log-ins does not keep history.
//!
//! A batch is one transaction under `READ COMMITTED`. It locks the origin's row in `archived` and then the conversations it touches, in
//! the order of their ids; behind these locks it reads what is there, works out in memory what becomes of it (`merge`), and writes
//! that with few statements of many rows. Messages lie in a table per month (`months`). A batch whose answer was lost is simply given
//! again: what it did is there, or it waits for the first try to end.
//!
//! Invariants: a batch is durable on the server when it is answered (`synchronous_commit`): the journal gives up a segment for what is
//! said to be archived; no statement is put together from anything but constant text, values are always bound; every wait is
//! bounded (`pool`); what the database holds is checked as it is read.

mod dead;
mod fault;
mod merge;
mod months;
mod open;
mod read;
mod rows;
mod search;
mod trail;
mod write;

use std::sync::Arc;

use quail_core::ports::archive::{
    Applied, ArchiveBatch, ArchiveError, ArchivedMessage, Browse, ConversationKey, ConversationPage,
    DeadLetter, Found, Page, PageRoom, ReadArchive, Search, SyncPage, WriteArchive,
};
use quail_core::ports::directory::PortFuture;
use quail_protocol::id::{AccountId, ConversationId, Origin, Position};

use super::pool::{Command, Kind, Pool};
use fault::Fault;
use months::Months;

/// An archive in a Postgres database; clones share its connections.
#[derive(Clone)]
pub struct PostgresArchive {
    writers: Arc<Pool>,
    readers: Arc<Pool>,
    months: Arc<Months>,
}

impl PostgresArchive {
    /// Waits for what is under way, then closes all connections. Later calls fail as unavailable.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writers.close().await;
    }

    /// Runs a transaction that writes a batch, after making the tables that it needs.
    async fn write<I: Sync, T>(
        &self,
        batch: &ArchiveBatch,
        input: &I,
        command: Command<I, T, Fault>,
    ) -> Result<T, Fault> {
        let mut has_forgotten = false;
        loop {
            for span in self.months.missing(batch) {
                let widened = self
                    .writers
                    .run(Kind::Read, &span, |connection, span| Box::pin(months::widen(connection, *span)));
                widened.await?;
                self.months.learn(span);
            }
            match self.writers.run(Kind::Write, input, command).await {
                Err(fault) if fault.is_missing_month() && !has_forgotten => {
                    self.months.forget();
                    has_forgotten = true;
                }
                done => return done,
            }
        }
    }

    /// Runs statements that see one state.
    async fn snapshot<I: Sync, T>(&self, input: I, command: Command<I, T, Fault>) -> Result<T, Fault> {
        self.readers.run(Kind::Snapshot, &input, command).await
    }
}

impl WriteArchive for PostgresArchive {
    fn apply<'a>(&'a self, batch: &'a ArchiveBatch) -> PortFuture<'a, Result<Applied, ArchiveError>> {
        answer(self.write(batch, batch, |connection, batch| {
            Box::pin(async move {
                if let Some(origin) = batch.origin
                    && !write::set_archived(connection, origin, batch.upto).await?
                {
                    return Ok(Applied::default());
                }
                write::apply(connection, batch).await
            })
        }))
    }

    fn archived(&self, origin: Origin) -> PortFuture<'_, Result<Option<Position>, ArchiveError>> {
        answer(async move {
            let command: Command<_, _, Fault> =
                |connection, origin| Box::pin(write::archived(connection, *origin));
            self.writers.run(Kind::Read, &origin, command).await
        })
    }

    fn dead(&self, after: u64, limit: u32) -> PortFuture<'_, Result<Vec<DeadLetter>, ArchiveError>> {
        answer(async move {
            let command: Command<_, _, Fault> =
                |connection, (after, limit)| Box::pin(dead::list(connection, *after, *limit));
            self.writers.run(Kind::Read, &(after, limit), command).await
        })
    }

    fn revive<'a>(
        &'a self,
        number: u64,
        batch: &'a ArchiveBatch,
    ) -> PortFuture<'a, Result<Option<Applied>, ArchiveError>> {
        answer(async move {
            let input = (number, batch);
            let revived = self.write(batch, &input, |connection, (number, batch)| {
                Box::pin(async move {
                    if !dead::drop(connection, *number).await? {
                        return Ok(None);
                    }
                    Ok(Some(write::apply(connection, batch).await?))
                })
            });
            revived.await
        })
    }

    fn drop_dead(&self, number: u64) -> PortFuture<'_, Result<bool, ArchiveError>> {
        answer(async move {
            let command: Command<_, _, Fault> =
                |connection, number| Box::pin(dead::drop(connection, *number));
            self.writers.run(Kind::Write, &number, command).await
        })
    }
}

impl ReadArchive for PostgresArchive {
    fn conversations(
        &self,
        account: AccountId,
        after: Option<ConversationKey>,
    ) -> PortFuture<'_, Result<ConversationPage, ArchiveError>> {
        answer(self.snapshot((account, after), |connection, (account, after)| {
            Box::pin(read::conversations(connection, *account, *after))
        }))
    }

    fn unread(
        &self,
        account: AccountId,
        conversation: ConversationId,
    ) -> PortFuture<'_, Result<u32, ArchiveError>> {
        answer(async move {
            let command: Command<_, _, Fault> = |connection, (account, conversation)| {
                Box::pin(read::unread(connection, *account, *conversation))
            };
            self.readers.run(Kind::Read, &(account, conversation), command).await
        })
    }

    fn browse(
        &self,
        account: AccountId,
        conversation: ConversationId,
        which: Browse,
        limit: usize,
    ) -> PortFuture<'_, Result<Page<ArchivedMessage>, ArchiveError>> {
        let input = (account, conversation, which, limit);
        answer(self.snapshot(input, |connection, (account, conversation, which, limit)| {
            Box::pin(async move {
                read::check_own(connection, *account, *conversation).await?;
                read::browse(connection, *account, *conversation, *which, *limit).await
            })
        }))
    }

    fn sync(
        &self,
        account: AccountId,
        behind: Vec<(ConversationId, u64)>,
        limit: usize,
    ) -> PortFuture<'_, Result<Vec<SyncPage>, ArchiveError>> {
        answer(self.snapshot((account, behind, limit), |connection, (account, behind, limit)| {
            Box::pin(async move {
                let (mut room, mut pages) = (PageRoom::default(), Vec::with_capacity(behind.len()));
                for (conversation, seq) in behind {
                    let asked = (*conversation, *seq, *limit);
                    let synced = read::sync(connection, *account, asked, &mut room).await?;
                    if !pages.is_empty() && synced.is_cut_off() {
                        break;
                    }
                    pages.push(SyncPage { conversation: *conversation, synced });
                }
                Ok(pages)
            })
        }))
    }

    fn search(
        &self,
        account: AccountId,
        search: Search,
    ) -> PortFuture<'_, Result<Page<Found>, ArchiveError>> {
        answer(self.snapshot((account, search), |connection, (account, search)| {
            Box::pin(async move {
                if let Some(conversation) = search.conversation {
                    read::check_own(connection, *account, conversation).await?;
                }
                search::search(connection, *account, search).await
            })
        }))
    }

    fn archived_of(&self, origin: Origin) -> PortFuture<'_, Result<Option<Position>, ArchiveError>> {
        answer(self.snapshot(origin, |connection, origin| Box::pin(write::archived(connection, *origin))))
    }
}

/// Turns the work of a call into the future of the port.
fn answer<'a, T: 'a>(
    work: impl Future<Output = Result<T, Fault>> + Send + 'a,
) -> PortFuture<'a, Result<T, ArchiveError>> {
    Box::pin(async move { work.await.map_err(ArchiveError::from) })
}
