//! The directory in a SQLite file: the default, for one node without any set-up.
//!
//! Every command is one transaction that begins as a writer (`BEGIN IMMEDIATE`), on the one connection that may write:
//! commands queue in the daemon, fairly, instead of colliding inside SQLite. Reads have connections of their own and, with
//! the write-ahead log, wait for nobody; each is a single statement, hence one snapshot, begun after whatever was committed
//! before.
//!
//! Invariants: a command is answered after its commit was synced to disk (`synchronous = FULL`), so an answer survives power
//! loss; no statement is put together from text, values are always bound; what the file holds is checked as it is read, and
//! whatever this daemon cannot have written is [`DirectoryError::Corrupt`].

mod accounts;
mod administration;
pub mod archive;
mod devices;
mod flags;
mod invites;
mod open;

use quail_core::ports::directory::{
    AccountFacts, ConversationFlags, Credentials, DeviceSummary, Directory, DirectoryError, FlagChange,
    FlagsByPeer, NewAccount, NewDevice, PortFuture, SecretHash, SessionFacts,
};
use quail_protocol::id::{AccountId, DeviceId, Origin};
use sqlx::{Sqlite, SqlitePool, Transaction};

use crate::adapters::sql::failure::Failure;
pub use open::OpenDirectoryError;

/// A directory in a SQLite file of this process; clones share its connections.
#[derive(Clone)]
pub struct SqliteDirectory {
    /// The one connection that writes.
    writer: SqlitePool,
    /// Connections that cannot write.
    readers: SqlitePool,
    identity: [u8; 16],
}

impl SqliteDirectory {
    /// Returns which directory this is: drawn once, when its file was made.
    pub fn identity(&self) -> [u8; 16] {
        self.identity
    }

    /// Waits for the running commands, then closes the file. Later ones fail as unavailable.
    pub async fn close(&self) {
        self.readers.close().await;
        // Last, because the connection that closes last moves the write-ahead log into the file.
        self.writer.close().await;
    }

    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, Failure> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }
}

impl Directory for SqliteDirectory {
    fn register_origin(&self, now_ms: u64) -> PortFuture<'_, Result<Origin, DirectoryError>> {
        answer(async move {
            let mut transaction = self.begin().await?;
            let origin = accounts::register_origin(&mut transaction, now_ms).await?;
            transaction.commit().await?;
            Ok(origin)
        })
    }

    fn create_account(
        &self,
        new: NewAccount,
        now_ms: u64,
    ) -> PortFuture<'_, Result<AccountFacts, DirectoryError>> {
        answer(async move {
            let mut transaction = self.begin().await?;
            let facts = accounts::create(&mut transaction, &new, now_ms).await?;
            transaction.commit().await?;
            Ok(facts)
        })
    }

    fn credentials(&self, handle: String) -> PortFuture<'_, Result<Option<Credentials>, DirectoryError>> {
        answer(async move { accounts::credentials(&mut *self.readers.acquire().await?, &handle).await })
    }

    fn credentials_of(
        &self,
        account: AccountId,
    ) -> PortFuture<'_, Result<Option<Credentials>, DirectoryError>> {
        answer(async move { accounts::credentials_of(&mut *self.readers.acquire().await?, account).await })
    }

    fn add_device(
        &self,
        account: AccountId,
        device: NewDevice,
        expected_password_hash: String,
        now_ms: u64,
    ) -> PortFuture<'_, Result<AccountFacts, DirectoryError>> {
        answer(async move {
            let mut transaction = self.begin().await?;
            let facts =
                devices::add(&mut transaction, account, &device, &expected_password_hash, now_ms).await?;
            transaction.commit().await?;
            Ok(facts)
        })
    }

    fn session(
        &self,
        token_hash: SecretHash,
    ) -> PortFuture<'_, Result<Option<SessionFacts>, DirectoryError>> {
        answer(async move { devices::session(&mut *self.readers.acquire().await?, &token_hash).await })
    }

    fn remove_device(
        &self,
        account: AccountId,
        device: DeviceId,
        _now_ms: u64,
    ) -> PortFuture<'_, Result<AccountFacts, DirectoryError>> {
        answer(async move {
            let mut transaction = self.begin().await?;
            let facts = devices::remove(&mut transaction, account, device).await?;
            transaction.commit().await?;
            Ok(facts)
        })
    }

    fn unlink_device(
        &self,
        account: AccountId,
        by: DeviceId,
        device: DeviceId,
    ) -> PortFuture<'_, Result<AccountFacts, DirectoryError>> {
        answer(async move {
            let mut transaction = self.begin().await?;
            let facts = devices::unlink(&mut transaction, account, by, device).await?;
            transaction.commit().await?;
            Ok(facts)
        })
    }

    fn devices(&self, account: AccountId) -> PortFuture<'_, Result<Vec<DeviceSummary>, DirectoryError>> {
        answer(async move { devices::list(&mut *self.readers.acquire().await?, account).await })
    }

    fn record_seen(&self, seen: Vec<(DeviceId, u64)>) -> PortFuture<'_, Result<(), DirectoryError>> {
        answer(async move {
            if seen.is_empty() {
                return Ok(());
            }
            let mut transaction = self.begin().await?;
            devices::record_seen(&mut transaction, &seen).await?;
            Ok(transaction.commit().await?)
        })
    }

    fn change_password(
        &self,
        account: AccountId,
        keep: DeviceId,
        expected_password_hash: String,
        new_password_hash: String,
        _now_ms: u64,
    ) -> PortFuture<'_, Result<AccountFacts, DirectoryError>> {
        answer(async move {
            let mut transaction = self.begin().await?;
            let (old, new) = (expected_password_hash, new_password_hash);
            let facts = accounts::change_password(&mut transaction, account, keep, &old, &new).await?;
            transaction.commit().await?;
            Ok(facts)
        })
    }

    fn set_privacy(
        &self,
        account: AccountId,
        by: DeviceId,
        read_receipts: bool,
    ) -> PortFuture<'_, Result<AccountFacts, DirectoryError>> {
        answer(async move {
            let mut transaction = self.begin().await?;
            let facts = accounts::set_privacy(&mut transaction, account, by, read_receipts).await?;
            transaction.commit().await?;
            Ok(facts)
        })
    }

    fn set_conversation(
        &self,
        account: AccountId,
        by: DeviceId,
        peer: AccountId,
        change: FlagChange,
    ) -> PortFuture<'_, Result<ConversationFlags, DirectoryError>> {
        answer(async move {
            let mut transaction = self.begin().await?;
            let flags = flags::set(&mut transaction, (account, by), peer, change).await?;
            transaction.commit().await?;
            Ok(flags)
        })
    }

    fn conversation_flags(
        &self,
        account: AccountId,
        peers: Vec<AccountId>,
    ) -> PortFuture<'_, Result<FlagsByPeer, DirectoryError>> {
        answer(async move { flags::list(&mut *self.readers.acquire().await?, account, &peers).await })
    }

    fn facts(&self, account: AccountId) -> PortFuture<'_, Result<Option<AccountFacts>, DirectoryError>> {
        answer(async move { accounts::facts(&mut *self.readers.acquire().await?, account).await })
    }

    fn look_up(&self, handle: String) -> PortFuture<'_, Result<Option<AccountFacts>, DirectoryError>> {
        answer(async move { accounts::look_up(&mut *self.readers.acquire().await?, &handle).await })
    }

    fn create_invite(
        &self,
        invite_hash: SecretHash,
        now_ms: u64,
    ) -> PortFuture<'_, Result<(), DirectoryError>> {
        answer(async move {
            let mut transaction = self.begin().await?;
            invites::create(&mut transaction, &invite_hash, now_ms).await?;
            Ok(transaction.commit().await?)
        })
    }
}

/// Turns the work of a command into the future of the port.
fn answer<'a, T: 'a>(
    work: impl Future<Output = Result<T, Failure>> + Send + 'a,
) -> PortFuture<'a, Result<T, DirectoryError>> {
    Box::pin(async move { work.await.map_err(DirectoryError::from) })
}

#[cfg(test)]
mod tests;
