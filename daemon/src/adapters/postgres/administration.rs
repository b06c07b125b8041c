//! The operator's commands: lists, batches of accounts, disabled accounts, passwords reset.

use std::collections::HashSet;

use quail_core::ports::directory::{
    AccountFacts, AccountSummary, Administration, DirectoryError, InviteSummary, PortFuture, ProvidedAccount,
    SecretHash,
};
use quail_protocol::id::AccountId;
use sqlx::PgConnection;

use super::accounts::{self, known_facts};
use super::{PostgresDirectory, devices, invites};
use crate::adapters::sql::failure::Failure;
use crate::adapters::sql::rows;

impl Administration for PostgresDirectory {
    fn accounts(
        &self,
        after: String,
        limit: u32,
    ) -> PortFuture<'_, Result<Vec<AccountSummary>, DirectoryError>> {
        self.read((after, limit), |connection, (after, limit)| {
            Box::pin(list_accounts(connection, after, *limit))
        })
    }

    fn create_accounts(
        &self,
        new: Vec<ProvidedAccount>,
        now_ms: u64,
    ) -> PortFuture<'_, Result<Vec<AccountFacts>, DirectoryError>> {
        self.write((new, now_ms), |connection, (new, now_ms)| {
            Box::pin(create_accounts(connection, new, *now_ms))
        })
    }

    fn set_disabled(
        &self,
        account: AccountId,
        is_disabled: bool,
        now_ms: u64,
    ) -> PortFuture<'_, Result<AccountFacts, DirectoryError>> {
        let disabled_ms = is_disabled.then(|| rows::time(now_ms));
        self.write((account, disabled_ms), |connection, (account, disabled_ms)| {
            Box::pin(set_disabled(connection, *account, *disabled_ms))
        })
    }

    fn reset_password(
        &self,
        account: AccountId,
        new_password_hash: String,
        keeps_devices: bool,
    ) -> PortFuture<'_, Result<AccountFacts, DirectoryError>> {
        self.write((account, new_password_hash, keeps_devices), |connection, (account, new, keeps)| {
            Box::pin(reset_password(connection, *account, new, *keeps))
        })
    }

    fn invites(
        &self,
        first: SecretHash,
        last: SecretHash,
        limit: u32,
    ) -> PortFuture<'_, Result<Vec<InviteSummary>, DirectoryError>> {
        self.read((first, last, limit), |connection, (first, last, limit)| {
            Box::pin(invites::list(connection, first, last, *limit))
        })
    }

    fn revoke_invite(&self, invite_hash: SecretHash) -> PortFuture<'_, Result<(), DirectoryError>> {
        self.write(invite_hash, |connection, invite| Box::pin(invites::revoke(connection, invite)))
    }
}

async fn list_accounts(
    connection: &mut PgConnection,
    after: &str,
    limit: u32,
) -> Result<Vec<AccountSummary>, Failure> {
    let rows = sqlx::query(
        "SELECT account, handle, created_ms, disabled_ms IS NOT NULL AS is_disabled,
             (SELECT count(*) FROM devices WHERE devices.account = accounts.account) AS devices
         FROM accounts WHERE handle > $1 ORDER BY handle LIMIT $2",
    )
    .bind(after)
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    rows.iter().map(rows::account_summary).collect()
}

async fn create_accounts(
    connection: &mut PgConnection,
    new: &[ProvidedAccount],
    now_ms: u64,
) -> Result<Vec<AccountFacts>, Failure> {
    let handles: Vec<String> = new.iter().map(|new| new.handle.clone()).collect();
    let mut seen: HashSet<String> = accounts::taken(connection, &handles).await?.into_iter().collect();
    let taken: Vec<String> = handles.into_iter().filter(|handle| !seen.insert(handle.clone())).collect();
    if !taken.is_empty() {
        return Err(DirectoryError::HandlesTaken { handles: taken }.into());
    }
    let mut facts = Vec::with_capacity(new.len());
    for new in new {
        let ProvidedAccount { account, handle, password_hash, device } = new;
        accounts::insert(connection, *account, handle, password_hash, now_ms).await?;
        if let Some(device) = device {
            devices::insert(connection, *account, device, now_ms).await?;
        }
        let devices = device.iter().map(|device| device.device).collect();
        let handle = handle.clone();
        facts.push(AccountFacts { account: *account, handle, version: 1, read_receipts: true, devices });
    }
    Ok(facts)
}

async fn set_disabled(
    connection: &mut PgConnection,
    account: AccountId,
    disabled_ms: Option<i64>,
) -> Result<AccountFacts, Failure> {
    accounts::lock(connection, account).await?.ok_or(DirectoryError::UnknownAccount)?;
    // Disabled twice, an account stays disabled since the first time.
    sqlx::query(
        "UPDATE accounts
         SET disabled_ms = CASE WHEN $2::bigint IS NULL THEN NULL ELSE coalesce(disabled_ms, $2) END
         WHERE account = $1",
    )
    .bind(account.as_bytes().as_slice())
    .bind(disabled_ms)
    .execute(&mut *connection)
    .await?;
    if disabled_ms.is_some() {
        devices::remove_all(connection, account).await?;
    }
    known_facts(connection, account).await
}

async fn reset_password(
    connection: &mut PgConnection,
    account: AccountId,
    new_password_hash: &str,
    keeps_devices: bool,
) -> Result<AccountFacts, Failure> {
    accounts::lock(connection, account).await?.ok_or(DirectoryError::UnknownAccount)?;
    accounts::set_password(connection, account, new_password_hash).await?;
    if !keeps_devices {
        devices::remove_all(connection, account).await?;
    }
    known_facts(connection, account).await
}
