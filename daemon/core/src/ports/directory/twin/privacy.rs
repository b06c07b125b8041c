//! Privacy in memory.

use quail_protocol::id::{AccountId, DeviceId};

use super::super::{AccountFacts, DirectoryError};
use super::State;

impl State {
    pub(super) fn set_privacy(
        &mut self,
        id: AccountId,
        by: DeviceId,
        read_receipts: bool,
    ) -> Result<AccountFacts, DirectoryError> {
        let account = self.accounts.get_mut(&id).ok_or(DirectoryError::UnknownDevice)?;
        if !account.devices.contains_key(&by) {
            return Err(DirectoryError::UnknownDevice);
        }
        if std::mem::replace(&mut account.read_receipts, read_receipts) != read_receipts {
            account.version += 1;
        }
        Ok(account.facts(id))
    }
}
