//! The directory in memory: what the port means, in the plainest code.
//!
//! It is the reference the adapters are compared with and stands in for them in tests and in the simulation. It keeps
//! nothing over a restart and grows with what its test puts in, so no running daemon uses it.
//!
//! Invariant: every method checks everything before it changes anything, under one lock, so its futures are ready at
//! once and a refused command leaves no trace.

mod administration;
mod devices;
mod flags;
mod privacy;

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::{Mutex, MutexGuard, PoisonError};

use quail_protocol::id::{AccountId, DeviceId, Origin};

use super::{
    AccountFacts, ConversationFlags, Credentials, DeviceSummary, Directory, DirectoryError, FlagChange,
    FlagsByPeer, NewAccount, NewDevice, PortFuture, SecretHash, SessionFacts,
};

/// A directory that lives as long as the value.
#[derive(Default)]
pub struct TwinDirectory {
    // A std mutex: no method waits for anything while it holds it.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    origin_last: u32,
    accounts: BTreeMap<AccountId, Account>,
    handles: BTreeMap<String, AccountId>,
    sessions: BTreeMap<SecretHash, (AccountId, DeviceId)>,
    invites: BTreeMap<SecretHash, Invite>,
    flags: BTreeMap<(AccountId, AccountId), ConversationFlags>,
}

struct Account {
    handle: String,
    password_hash: String,
    version: u64,
    created_ms: u64,
    is_disabled: bool,
    read_receipts: bool,
    devices: BTreeMap<DeviceId, Device>,
}

struct Device {
    name: String,
    platform: String,
    created_ms: u64,
    last_seen_ms: u64,
}

struct Invite {
    created_ms: u64,
    used_by: Option<AccountId>,
}

impl TwinDirectory {
    /// Returns an empty directory.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked under the lock has failed already; the others may go on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn register_origin(&mut self) -> Result<Origin, DirectoryError> {
        let used_up = || DirectoryError::Corrupt { reason: "origin numbers are used up".to_owned() };
        self.origin_last = self.origin_last.checked_add(1).ok_or_else(used_up)?;
        Ok(Origin(self.origin_last))
    }

    fn create_account(&mut self, new: NewAccount, now_ms: u64) -> Result<AccountFacts, DirectoryError> {
        let is_open = |invite| self.invites.get(invite).is_some_and(|invite| invite.used_by.is_none());
        if new.invite_hash.as_ref().is_some_and(|invite| !is_open(invite)) {
            return Err(DirectoryError::InviteInvalid);
        }
        if self.handles.contains_key(&new.handle) {
            return Err(DirectoryError::HandleTaken);
        }
        if self.accounts.contains_key(&new.account) {
            return Err(DirectoryError::Duplicate { what: "account id" });
        }
        self.check_fresh(&new.device)?;
        if let Some(invite) = new.invite_hash.and_then(|invite| self.invites.get_mut(&invite)) {
            invite.used_by = Some(new.account);
        }
        let NewAccount { account, handle, password_hash, device, .. } = new;
        Ok(self.insert_account(account, handle, password_hash, Some(device), now_ms))
    }

    fn insert_account(
        &mut self,
        id: AccountId,
        handle: String,
        password_hash: String,
        device: Option<NewDevice>,
        now_ms: u64,
    ) -> AccountFacts {
        self.handles.insert(handle.clone(), id);
        let devices = BTreeMap::new();
        let mut account = Account {
            handle,
            password_hash,
            version: 1,
            created_ms: now_ms,
            is_disabled: false,
            read_receipts: true,
            devices,
        };
        if let Some(device) = device {
            self.sessions.insert(device.token_hash, (id, device.device));
            account.devices.insert(device.device, Device::new(device.name, device.platform, now_ms));
        }
        let facts = account.facts(id);
        self.accounts.insert(id, account);
        facts
    }

    fn change_password(
        &mut self,
        id: AccountId,
        keep: DeviceId,
        expected_password_hash: &str,
        new_password_hash: String,
    ) -> Result<AccountFacts, DirectoryError> {
        let account = self.account(id)?;
        if !account.devices.contains_key(&keep) {
            return Err(DirectoryError::UnknownDevice);
        }
        if account.password_hash != expected_password_hash {
            return Err(DirectoryError::PasswordChanged);
        }
        account.password_hash = new_password_hash;
        if account.devices.len() > 1 {
            account.devices.retain(|device, _| *device == keep);
            account.version += 1;
        }
        let facts = account.facts(id);
        self.sessions.retain(|_, (account, device)| *account != id || *device == keep);
        Ok(facts)
    }

    fn account(&mut self, id: AccountId) -> Result<&mut Account, DirectoryError> {
        self.accounts.get_mut(&id).ok_or(DirectoryError::UnknownAccount)
    }

    fn check_fresh(&self, device: &NewDevice) -> Result<(), DirectoryError> {
        if self.accounts.values().any(|account| account.devices.contains_key(&device.device)) {
            return Err(DirectoryError::Duplicate { what: "device id" });
        }
        if self.sessions.contains_key(&device.token_hash) {
            return Err(DirectoryError::Duplicate { what: "session token" });
        }
        Ok(())
    }

    fn credentials_of(&self, id: AccountId) -> Option<Credentials> {
        let account = self.accounts.get(&id)?;
        Some(Credentials {
            account: id,
            handle: account.handle.clone(),
            password_hash: account.password_hash.clone(),
        })
    }

    fn session(&self, token_hash: &SecretHash) -> Option<SessionFacts> {
        let (id, device) = *self.sessions.get(token_hash)?;
        let account = self.accounts.get(&id)?;
        Some(SessionFacts { account: id, device, handle: account.handle.clone() })
    }

    fn devices(&self, id: AccountId) -> Vec<DeviceSummary> {
        let devices = self.accounts.get(&id).into_iter().flat_map(|account| &account.devices);
        let summary = |(device, stored): (&DeviceId, &Device)| DeviceSummary {
            device: *device,
            name: stored.name.clone(),
            platform: stored.platform.clone(),
            created_ms: stored.created_ms,
            last_seen_ms: stored.last_seen_ms,
        };
        let mut devices: Vec<_> = devices.map(summary).collect();
        devices.sort_by_key(|device| (device.created_ms, device.device));
        devices
    }

    fn record_seen(&mut self, seen: &[(DeviceId, u64)]) {
        for (device, seen_ms) in seen {
            let mut accounts = self.accounts.values_mut();
            if let Some(stored) = accounts.find_map(|account| account.devices.get_mut(device)) {
                stored.last_seen_ms = stored.last_seen_ms.max(*seen_ms);
            }
        }
    }

    fn facts(&self, id: AccountId) -> Option<AccountFacts> {
        self.accounts.get(&id).map(|account| account.facts(id))
    }

    fn create_invite(&mut self, invite_hash: SecretHash, created_ms: u64) -> Result<(), DirectoryError> {
        if self.invites.contains_key(&invite_hash) {
            return Err(DirectoryError::Duplicate { what: "invite" });
        }
        self.invites.insert(invite_hash, Invite { created_ms, used_by: None });
        Ok(())
    }
}

impl Account {
    fn facts(&self, account: AccountId) -> AccountFacts {
        AccountFacts {
            account,
            handle: self.handle.clone(),
            version: self.version,
            read_receipts: self.read_receipts,
            devices: self.devices.keys().copied().collect(),
        }
    }
}

impl Device {
    fn new(name: String, platform: String, now_ms: u64) -> Self {
        Self { name, platform, created_ms: now_ms, last_seen_ms: now_ms }
    }
}

impl Directory for TwinDirectory {
    fn register_origin(&self, _now_ms: u64) -> PortFuture<'_, Result<Origin, DirectoryError>> {
        Box::pin(ready(self.state().register_origin()))
    }

    fn create_account(
        &self,
        new: NewAccount,
        now_ms: u64,
    ) -> PortFuture<'_, Result<AccountFacts, DirectoryError>> {
        Box::pin(ready(self.state().create_account(new, now_ms)))
    }

    fn credentials(&self, handle: String) -> PortFuture<'_, Result<Option<Credentials>, DirectoryError>> {
        let state = self.state();
        let id = state.handles.get(&handle).copied();
        Box::pin(ready(Ok(id.and_then(|id| state.credentials_of(id)))))
    }

    fn credentials_of(
        &self,
        account: AccountId,
    ) -> PortFuture<'_, Result<Option<Credentials>, DirectoryError>> {
        Box::pin(ready(Ok(self.state().credentials_of(account))))
    }

    fn add_device(
        &self,
        account: AccountId,
        device: NewDevice,
        expected_password_hash: String,
        now_ms: u64,
    ) -> PortFuture<'_, Result<AccountFacts, DirectoryError>> {
        Box::pin(ready(self.state().add_device(account, device, &expected_password_hash, now_ms)))
    }

    fn session(
        &self,
        token_hash: SecretHash,
    ) -> PortFuture<'_, Result<Option<SessionFacts>, DirectoryError>> {
        Box::pin(ready(Ok(self.state().session(&token_hash))))
    }

    fn remove_device(
        &self,
        account: AccountId,
        device: DeviceId,
        _now_ms: u64,
    ) -> PortFuture<'_, Result<AccountFacts, DirectoryError>> {
        Box::pin(ready(self.state().remove_device(account, device)))
    }

    fn unlink_device(
        &self,
        account: AccountId,
        by: DeviceId,
        device: DeviceId,
    ) -> PortFuture<'_, Result<AccountFacts, DirectoryError>> {
        Box::pin(ready(self.state().unlink_device(account, by, device)))
    }

    fn devices(&self, account: AccountId) -> PortFuture<'_, Result<Vec<DeviceSummary>, DirectoryError>> {
        Box::pin(ready(Ok(self.state().devices(account))))
    }

    fn record_seen(&self, seen: Vec<(DeviceId, u64)>) -> PortFuture<'_, Result<(), DirectoryError>> {
        self.state().record_seen(&seen);
        Box::pin(ready(Ok(())))
    }

    fn change_password(
        &self,
        account: AccountId,
        keep: DeviceId,
        expected_password_hash: String,
        new_password_hash: String,
        _now_ms: u64,
    ) -> PortFuture<'_, Result<AccountFacts, DirectoryError>> {
        let mut state = self.state();
        Box::pin(ready(state.change_password(account, keep, &expected_password_hash, new_password_hash)))
    }

    fn set_privacy(
        &self,
        account: AccountId,
        by: DeviceId,
        read_receipts: bool,
    ) -> PortFuture<'_, Result<AccountFacts, DirectoryError>> {
        Box::pin(ready(self.state().set_privacy(account, by, read_receipts)))
    }

    fn set_conversation(
        &self,
        account: AccountId,
        by: DeviceId,
        peer: AccountId,
        change: FlagChange,
    ) -> PortFuture<'_, Result<ConversationFlags, DirectoryError>> {
        Box::pin(ready(self.state().set_conversation(account, by, peer, change)))
    }

    fn conversation_flags(
        &self,
        account: AccountId,
        peers: Vec<AccountId>,
    ) -> PortFuture<'_, Result<FlagsByPeer, DirectoryError>> {
        Box::pin(ready(Ok(self.state().conversation_flags(account, &peers))))
    }

    fn facts(&self, account: AccountId) -> PortFuture<'_, Result<Option<AccountFacts>, DirectoryError>> {
        Box::pin(ready(Ok(self.state().facts(account))))
    }

    fn look_up(&self, handle: String) -> PortFuture<'_, Result<Option<AccountFacts>, DirectoryError>> {
        let state = self.state();
        let id = state.handles.get(&handle).copied();
        Box::pin(ready(Ok(id.and_then(|id| state.facts(id)))))
    }

    fn create_invite(
        &self,
        invite_hash: SecretHash,
        now_ms: u64,
    ) -> PortFuture<'_, Result<(), DirectoryError>> {
        Box::pin(ready(self.state().create_invite(invite_hash, now_ms)))
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::super::Administration;
    use super::super::conformance::directory_conformance;
    use super::*;

    /// The twin's futures are ready at once, so polling is all the runtime it needs.
    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        let mut context = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
                return value;
            }
        }
    }

    #[test]
    fn the_twin_keeps_the_promises_of_the_port() {
        block_on(directory_conformance(async || Box::new(TwinDirectory::new()) as Box<dyn Administration>));
    }
}
