//! Flags of conversations in memory.

use quail_protocol::id::{AccountId, DeviceId};

use super::super::{ConversationFlags, DirectoryError, FlagChange, FlagsByPeer};
use super::State;

impl State {
    pub(super) fn set_conversation(
        &mut self,
        id: AccountId,
        by: DeviceId,
        peer: AccountId,
        change: FlagChange,
    ) -> Result<ConversationFlags, DirectoryError> {
        let account = self.accounts.get(&id).ok_or(DirectoryError::UnknownDevice)?;
        if !account.devices.contains_key(&by) {
            return Err(DirectoryError::UnknownDevice);
        }
        if !self.accounts.contains_key(&peer) {
            return Err(DirectoryError::UnknownAccount);
        }
        let flags = change.of(self.flags.get(&(id, peer)).copied().unwrap_or_default());
        self.flags.insert((id, peer), flags);
        Ok(flags)
    }

    pub(super) fn conversation_flags(&self, id: AccountId, peers: &[AccountId]) -> FlagsByPeer {
        let found = peers.iter().filter_map(|peer| Some((*peer, *self.flags.get(&(id, *peer))?)));
        found.filter(|(_, flags)| *flags != ConversationFlags::default()).collect()
    }
}
