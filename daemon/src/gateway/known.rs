//! Which accounts the core has been told of, so that the directory is asked once per account and not once per message.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use quail_protocol::id::AccountId;

/// Accounts of which the core has facts. The core keeps facts for as long as the process lives, so this only grows: by 16
/// bytes for each account of the directory that sent or was sent something.
#[derive(Default)]
pub(super) struct KnownAccounts {
    accounts: Mutex<HashSet<AccountId>>,
}

impl KnownAccounts {
    pub(super) fn contains(&self, account: AccountId) -> bool {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner).contains(&account)
    }

    pub(super) fn insert(&self, account: AccountId) {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner).insert(account);
    }
}
