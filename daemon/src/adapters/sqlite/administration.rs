//! The operator's commands: lists, batches of accounts, disabled accounts, passwords reset.

use std::collections::HashSet;

use quail_core::ports::directory::{
    AccountFacts, AccountSummary, Administration, DirectoryError, InviteSummary, PortFuture, ProvidedAccount,
    SecretHash,
};
use quail_protocol::id::AccountId;
use sqlx::SqliteConnection;

use super::accounts::{known_facts, raise_version};
use super::{SqliteDirectory, accounts, answer, devices, invites};
use crate::adapters::sql::failure::Failure;
use crate::adapters::sql::rows;

impl Administration for SqliteDirectory {
    fn accounts(
        &self,
        after: String,
        limit: u32,
    ) -> PortFuture<'_, Result<Vec<AccountSummary>, DirectoryError>> {
        answer(async move { list_accounts(&mut *self.readers.acquire().await?, &after, limit).await })
    }

    fn create_accounts(
        &self,
        new: Vec<ProvidedAccount>,
        now_ms: u64,
    ) -> PortFuture<'_, Result<Vec<AccountFacts>, DirectoryError>> {
        answer(async move {
            let mut transaction = self.begin().await?;
            let facts = create_accounts(&mut transaction, &new, now_ms).await?;
            transaction.commit().await?;
            Ok(facts)
        })
    }

    fn set_disabled(
        &self,
        account: AccountId,
        is_disabled: bool,
        now_ms: u64,
    ) -> PortFuture<'_, Result<AccountFacts, DirectoryError>> {
        answer(async move {
            let mut transaction = self.begin().await?;
            let disabled_ms = is_disabled.then(|| rows::time(now_ms));
            let facts = set_disabled(&mut transaction, account, disabled_ms).await?;
            transaction.commit().await?;
            Ok(facts)
        })
    }

    fn reset_password(
        &self,
        account: AccountId,
        new_password_hash: String,
        keeps_devices: bool,
    ) -> PortFuture<'_, Result<AccountFacts, DirectoryError>> {
        answer(async move {
            let mut transaction = self.begin().await?;
            accounts::set_password(&mut transaction, account, &new_password_hash).await?;
            if !keeps_devices {
                remove_devices(&mut transaction, account).await?;
            }
            let facts = known_facts(&mut transaction, account).await?;
            transaction.commit().await?;
            Ok(facts)
        })
    }

    fn invites(
        &self,
        first: SecretHash,
        last: SecretHash,
        limit: u32,
    ) -> PortFuture<'_, Result<Vec<InviteSummary>, DirectoryError>> {
        answer(async move { invites::list(&mut *self.readers.acquire().await?, &first, &last, limit).await })
    }

    fn revoke_invite(&self, invite_hash: SecretHash) -> PortFuture<'_, Result<(), DirectoryError>> {
        answer(async move {
            let mut transaction = self.begin().await?;
            invites::revoke(&mut transaction, &invite_hash).await?;
            Ok(transaction.commit().await?)
        })
    }
}

async fn list_accounts(
    connection: &mut SqliteConnection,
    after: &str,
    limit: u32,
) -> Result<Vec<AccountSummary>, Failure> {
    let rows = sqlx::query(
        "SELECT account, handle, created_ms, disabled_ms IS NOT NULL AS is_disabled,
             (SELECT count(*) FROM devices WHERE devices.account = accounts.account) AS devices
         FROM accounts WHERE handle > ?1 ORDER BY handle LIMIT ?2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(rows::account_summary).collect()
}

async fn create_accounts(
    connection: &mut SqliteConnection,
    new: &[ProvidedAccount],
    now_ms: u64,
) -> Result<Vec<AccountFacts>, Failure> {
    let mut seen = HashSet::new();
    let mut taken = Vec::new();
    for handle in new.iter().map(|new| &new.handle) {
        if !seen.insert(handle) || accounts::exists(connection, handle).await? {
            taken.push(handle.clone());
        }
    }
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
    connection: &mut SqliteConnection,
    account: AccountId,
    disabled_ms: Option<i64>,
) -> Result<AccountFacts, Failure> {
    // Disabled twice, an account stays disabled since the first time.
    sqlx::query(
        "UPDATE accounts SET disabled_ms = CASE WHEN ?2 IS NULL THEN NULL ELSE coalesce(disabled_ms, ?2) END
         WHERE account = ?1",
    )
    .bind(account.as_bytes().as_slice())
    .bind(disabled_ms)
    .execute(&mut *connection)
    .await?;
    if disabled_ms.is_some() {
        remove_devices(connection, account).await?;
    }
    known_facts(connection, account).await
}

async fn remove_devices(connection: &mut SqliteConnection, account: AccountId) -> Result<(), Failure> {
    let removed = sqlx::query("DELETE FROM devices WHERE account = ?1")
        .bind(account.as_bytes().as_slice())
        .execute(&mut *connection)
        .await?;
    if removed.rows_affected() > 0 {
        raise_version(connection, account).await?;
    }
    Ok(())
}
