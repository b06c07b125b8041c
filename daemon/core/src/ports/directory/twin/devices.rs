//! Devices in memory: logging in, out, and one by another.

use quail_protocol::id::{AccountId, DeviceId};
use quail_protocol::limits::DEVICES_MAX;

use super::super::{AccountFacts, DirectoryError, NewDevice};
use super::{Device, State};

impl State {
    pub(super) fn add_device(
        &mut self,
        id: AccountId,
        device: NewDevice,
        expected_password_hash: &str,
        now_ms: u64,
    ) -> Result<AccountFacts, DirectoryError> {
        let account = self.accounts.get(&id).ok_or(DirectoryError::UnknownAccount)?;
        if account.is_disabled {
            return Err(DirectoryError::AccountDisabled);
        }
        if account.password_hash != expected_password_hash {
            return Err(DirectoryError::PasswordChanged);
        }
        if account.devices.len() >= DEVICES_MAX {
            return Err(DirectoryError::DeviceLimit);
        }
        self.check_fresh(&device)?;
        self.sessions.insert(device.token_hash, (id, device.device));
        let account = self.account(id)?;
        account.devices.insert(device.device, Device::new(device.name, device.platform, now_ms));
        account.version += 1;
        Ok(account.facts(id))
    }

    pub(super) fn remove_device(
        &mut self,
        id: AccountId,
        device: DeviceId,
    ) -> Result<AccountFacts, DirectoryError> {
        let account = self.account(id)?;
        if account.devices.remove(&device).is_some() {
            account.version += 1;
        }
        let facts = account.facts(id);
        self.sessions.retain(|_, owner| *owner != (id, device));
        Ok(facts)
    }

    pub(super) fn unlink_device(
        &mut self,
        id: AccountId,
        by: DeviceId,
        device: DeviceId,
    ) -> Result<AccountFacts, DirectoryError> {
        if !self.account(id)?.devices.contains_key(&by) {
            return Err(DirectoryError::UnknownDevice);
        }
        self.remove_device(id, device)
    }
}
