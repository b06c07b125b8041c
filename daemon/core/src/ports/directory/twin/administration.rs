//! The operator's commands on the directory in memory.

use std::collections::BTreeSet;
use std::future::ready;
use std::ops::Bound;

use quail_protocol::id::AccountId;

use super::super::{
    AccountFacts, AccountSummary, Administration, DirectoryError, InviteSummary, PortFuture, ProvidedAccount,
    SecretHash,
};
use super::{State, TwinDirectory};

impl State {
    fn list_accounts(&self, after: String, limit: u32) -> Vec<AccountSummary> {
        let behind = self.handles.range((Bound::Excluded(after), Bound::Unbounded));
        let accounts = behind.filter_map(|(_, id)| Some((*id, self.accounts.get(id)?)));
        let summary = |(account, stored): (AccountId, &super::Account)| AccountSummary {
            account,
            handle: stored.handle.clone(),
            created_ms: stored.created_ms,
            is_disabled: stored.is_disabled,
            devices: stored.devices.len() as u64,
        };
        accounts.take(limit as usize).map(summary).collect()
    }

    fn create_accounts(
        &mut self,
        new: Vec<ProvidedAccount>,
        now_ms: u64,
    ) -> Result<Vec<AccountFacts>, DirectoryError> {
        let mut seen = BTreeSet::new();
        let mut handles = Vec::new();
        for handle in new.iter().map(|new| &new.handle) {
            if !seen.insert(handle) || self.handles.contains_key(handle) {
                handles.push(handle.clone());
            }
        }
        if !handles.is_empty() {
            return Err(DirectoryError::HandlesTaken { handles });
        }
        self.check_fresh_batch(&new)?;
        let insert = |new: ProvidedAccount| {
            self.insert_account(new.account, new.handle, new.password_hash, new.device, now_ms)
        };
        Ok(new.into_iter().map(insert).collect())
    }

    fn check_fresh_batch(&self, new: &[ProvidedAccount]) -> Result<(), DirectoryError> {
        let (mut accounts, mut devices, mut tokens) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for new in new {
            if self.accounts.contains_key(&new.account) || !accounts.insert(new.account) {
                return Err(DirectoryError::Duplicate { what: "account id" });
            }
            let Some(device) = &new.device else { continue };
            self.check_fresh(device)?;
            if !devices.insert(device.device) || !tokens.insert(device.token_hash) {
                return Err(DirectoryError::Duplicate { what: "device id or session token" });
            }
        }
        Ok(())
    }

    fn set_disabled(&mut self, id: AccountId, is_disabled: bool) -> Result<AccountFacts, DirectoryError> {
        self.account(id)?.is_disabled = is_disabled;
        if is_disabled { self.remove_devices(id) } else { Ok(self.account(id)?.facts(id)) }
    }

    fn reset_password(
        &mut self,
        id: AccountId,
        new_password_hash: String,
        keeps_devices: bool,
    ) -> Result<AccountFacts, DirectoryError> {
        self.account(id)?.password_hash = new_password_hash;
        if keeps_devices { Ok(self.account(id)?.facts(id)) } else { self.remove_devices(id) }
    }

    fn remove_devices(&mut self, id: AccountId) -> Result<AccountFacts, DirectoryError> {
        let account = self.account(id)?;
        if !account.devices.is_empty() {
            account.devices.clear();
            account.version += 1;
        }
        let facts = account.facts(id);
        self.sessions.retain(|_, (owner, _)| *owner != id);
        Ok(facts)
    }

    fn list_invites(&self, first: SecretHash, last: SecretHash, limit: u32) -> Vec<InviteSummary> {
        if first > last {
            return Vec::new();
        }
        let handle = |id: &AccountId| self.accounts.get(id).map(|account| account.handle.clone());
        let summary = |(hash, invite): (&SecretHash, &super::Invite)| InviteSummary {
            invite_hash: *hash,
            created_ms: invite.created_ms,
            used_by: invite.used_by.as_ref().and_then(handle),
        };
        self.invites.range(first..=last).take(limit as usize).map(summary).collect()
    }

    fn revoke_invite(&mut self, invite_hash: &SecretHash) -> Result<(), DirectoryError> {
        let is_open = self.invites.get(invite_hash).is_some_and(|invite| invite.used_by.is_none());
        if !is_open {
            return Err(DirectoryError::InviteInvalid);
        }
        self.invites.remove(invite_hash);
        Ok(())
    }
}

impl Administration for TwinDirectory {
    fn accounts(
        &self,
        after: String,
        limit: u32,
    ) -> PortFuture<'_, Result<Vec<AccountSummary>, DirectoryError>> {
        Box::pin(ready(Ok(self.state().list_accounts(after, limit))))
    }

    fn create_accounts(
        &self,
        new: Vec<ProvidedAccount>,
        now_ms: u64,
    ) -> PortFuture<'_, Result<Vec<AccountFacts>, DirectoryError>> {
        Box::pin(ready(self.state().create_accounts(new, now_ms)))
    }

    fn set_disabled(
        &self,
        account: AccountId,
        is_disabled: bool,
        _now_ms: u64,
    ) -> PortFuture<'_, Result<AccountFacts, DirectoryError>> {
        Box::pin(ready(self.state().set_disabled(account, is_disabled)))
    }

    fn reset_password(
        &self,
        account: AccountId,
        new_password_hash: String,
        keeps_devices: bool,
    ) -> PortFuture<'_, Result<AccountFacts, DirectoryError>> {
        Box::pin(ready(self.state().reset_password(account, new_password_hash, keeps_devices)))
    }

    fn invites(
        &self,
        first: SecretHash,
        last: SecretHash,
        limit: u32,
    ) -> PortFuture<'_, Result<Vec<InviteSummary>, DirectoryError>> {
        Box::pin(ready(Ok(self.state().list_invites(first, last, limit))))
    }

    fn revoke_invite(&self, invite_hash: SecretHash) -> PortFuture<'_, Result<(), DirectoryError>> {
        Box::pin(ready(self.state().revoke_invite(&invite_hash)))
    }
}
