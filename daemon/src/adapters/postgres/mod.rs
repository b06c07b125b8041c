//! The directory in Postgres: for operators who have one, and keep their accounts where their backups are.
//!
//! Every command that writes is one transaction under `READ COMMITTED`. What it reads and relies on, it locks first: the row
//! of the account (`SELECT ... FOR UPDATE`), which stands for the account and the list of its devices, or the row of the
//! invite. A statement begins with what was committed before it, so behind that lock it sees everything the last holder did.
//! What cannot be locked, because it is not there yet, is guarded by a unique constraint. A transaction that fails because
//! another one came between (a deadlock, a handle that two ask for) is done again, a bounded number of times. Reads are single
//! statements, hence one snapshot each.
//!
//! Invariants: a command is answered after its commit is durable on the server (`synchronous_commit`), or not at all; no
//! statement is put together from text, values are always bound; every wait is bounded (`pool`); what the database holds is
//! checked as it is read, and whatever this daemon cannot have written is [`DirectoryError::Corrupt`].

mod accounts;
mod administration;
pub mod archive;
mod devices;
mod error;
mod flags;
mod invites;
mod open;
mod pool;

use std::sync::Arc;

use quail_core::ports::directory::{
    AccountFacts, ConversationFlags, Credentials, DeviceSummary, Directory, DirectoryError, FlagChange,
    FlagsByPeer, NewAccount, NewDevice, PortFuture, SecretHash, SessionFacts,
};
use quail_protocol::id::{AccountId, DeviceId, Origin};

pub use error::PostgresError;
pub use open::{PostgresOptions, PostgresPlace, Secret, TlsMode};
use pool::{Command, Fault, Kind, Pool};

use crate::adapters::sql::failure::Failure;

/// A directory in a Postgres database; clones share its connections.
#[derive(Clone)]
pub struct PostgresDirectory {
    pool: Arc<Pool>,
    identity: [u8; 16],
}

impl PostgresDirectory {
    /// Returns which directory this is: drawn once, when its schema was made.
    pub fn identity(&self) -> [u8; 16] {
        self.identity
    }

    /// Waits for the running commands, then closes all connections. Later commands fail as unavailable.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Runs a single statement that reads.
    fn read<'a, I, T>(
        &'a self,
        input: I,
        command: Command<I, T, Failure>,
    ) -> PortFuture<'a, Result<T, DirectoryError>>
    where
        I: Send + Sync + 'a,
        T: Send + 'a,
    {
        Box::pin(async move { Ok(self.pool.run(Kind::Read, &input, command).await?) })
    }

    /// Runs a transaction.
    fn write<'a, I, T>(
        &'a self,
        input: I,
        command: Command<I, T, Failure>,
    ) -> PortFuture<'a, Result<T, DirectoryError>>
    where
        I: Send + Sync + 'a,
        T: Send + 'a,
    {
        Box::pin(async move { Ok(self.pool.run(Kind::Write, &input, command).await?) })
    }
}

impl Directory for PostgresDirectory {
    fn register_origin(&self, now_ms: u64) -> PortFuture<'_, Result<Origin, DirectoryError>> {
        self.write(now_ms, |connection, now_ms| Box::pin(accounts::register_origin(connection, *now_ms)))
    }

    fn create_account(
        &self,
        new: NewAccount,
        now_ms: u64,
    ) -> PortFuture<'_, Result<AccountFacts, DirectoryError>> {
        self.write((new, now_ms), |connection, (new, now_ms)| {
            Box::pin(accounts::create(connection, new, *now_ms))
        })
    }

    fn credentials(&self, handle: String) -> PortFuture<'_, Result<Option<Credentials>, DirectoryError>> {
        self.read(handle, |connection, handle| Box::pin(accounts::credentials(connection, handle)))
    }

    fn credentials_of(
        &self,
        account: AccountId,
    ) -> PortFuture<'_, Result<Option<Credentials>, DirectoryError>> {
        self.read(account, |connection, account| Box::pin(accounts::credentials_of(connection, *account)))
    }

    fn add_device(
        &self,
        account: AccountId,
        device: NewDevice,
        expected_password_hash: String,
        now_ms: u64,
    ) -> PortFuture<'_, Result<AccountFacts, DirectoryError>> {
        let input = (account, device, expected_password_hash, now_ms);
        self.write(input, |connection, (account, device, expected, now_ms)| {
            Box::pin(devices::add(connection, *account, device, expected, *now_ms))
        })
    }

    fn session(
        &self,
        token_hash: SecretHash,
    ) -> PortFuture<'_, Result<Option<SessionFacts>, DirectoryError>> {
        self.read(token_hash, |connection, token| Box::pin(devices::session(connection, token)))
    }

    fn remove_device(
        &self,
        account: AccountId,
        device: DeviceId,
        _now_ms: u64,
    ) -> PortFuture<'_, Result<AccountFacts, DirectoryError>> {
        self.write((account, device), |connection, (account, device)| {
            Box::pin(devices::remove(connection, *account, *device))
        })
    }

    fn unlink_device(
        &self,
        account: AccountId,
        by: DeviceId,
        device: DeviceId,
    ) -> PortFuture<'_, Result<AccountFacts, DirectoryError>> {
        self.write((account, by, device), |connection, (account, by, device)| {
            Box::pin(devices::unlink(connection, *account, *by, *device))
        })
    }

    fn devices(&self, account: AccountId) -> PortFuture<'_, Result<Vec<DeviceSummary>, DirectoryError>> {
        self.read(account, |connection, account| Box::pin(devices::list(connection, *account)))
    }

    fn record_seen(&self, seen: Vec<(DeviceId, u64)>) -> PortFuture<'_, Result<(), DirectoryError>> {
        if seen.is_empty() {
            return Box::pin(async { Ok(()) });
        }
        self.write(seen, |connection, seen| Box::pin(devices::record_seen(connection, seen)))
    }

    fn change_password(
        &self,
        account: AccountId,
        keep: DeviceId,
        expected_password_hash: String,
        new_password_hash: String,
        _now_ms: u64,
    ) -> PortFuture<'_, Result<AccountFacts, DirectoryError>> {
        let input = (account, keep, expected_password_hash, new_password_hash);
        self.write(input, |connection, (account, keep, old, new)| {
            Box::pin(accounts::change_password(connection, *account, *keep, old, new))
        })
    }

    fn set_privacy(
        &self,
        account: AccountId,
        by: DeviceId,
        read_receipts: bool,
    ) -> PortFuture<'_, Result<AccountFacts, DirectoryError>> {
        self.write((account, by, read_receipts), |connection, (account, by, read_receipts)| {
            Box::pin(accounts::set_privacy(connection, *account, *by, *read_receipts))
        })
    }

    fn set_conversation(
        &self,
        account: AccountId,
        by: DeviceId,
        peer: AccountId,
        change: FlagChange,
    ) -> PortFuture<'_, Result<ConversationFlags, DirectoryError>> {
        self.write((account, by, peer, change), |connection, (account, by, peer, change)| {
            Box::pin(flags::set(connection, (*account, *by), *peer, *change))
        })
    }

    fn conversation_flags(
        &self,
        account: AccountId,
        peers: Vec<AccountId>,
    ) -> PortFuture<'_, Result<FlagsByPeer, DirectoryError>> {
        self.read((account, peers), |connection, (account, peers)| {
            Box::pin(flags::list(connection, *account, peers))
        })
    }

    fn facts(&self, account: AccountId) -> PortFuture<'_, Result<Option<AccountFacts>, DirectoryError>> {
        self.read(account, |connection, account| Box::pin(accounts::facts(connection, *account)))
    }

    fn look_up(&self, handle: String) -> PortFuture<'_, Result<Option<AccountFacts>, DirectoryError>> {
        self.read(handle, |connection, handle| Box::pin(accounts::look_up(connection, handle)))
    }

    fn create_invite(
        &self,
        invite_hash: SecretHash,
        now_ms: u64,
    ) -> PortFuture<'_, Result<(), DirectoryError>> {
        self.write((invite_hash, now_ms), |connection, (invite, now_ms)| {
            Box::pin(invites::create(connection, invite, *now_ms))
        })
    }
}

impl Fault for Failure {
    fn unavailable(reason: String) -> Self {
        DirectoryError::Unavailable { reason }.into()
    }

    fn is_conflict(&self) -> bool {
        Self::is_conflict(self)
    }

    fn is_lost_connection(&self) -> bool {
        Self::is_lost_connection(self)
    }

    fn is_found(&self) -> bool {
        matches!(self, Self::Directory(_))
    }
}
