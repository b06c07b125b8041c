//! The operator's side of the directory port: lists, accounts made for others, and what ends sessions without their owner.
//!
//! A trait of its own, so that what strangers reach over the network cannot even name these commands.
//!
//! Invariants every implementation keeps, beyond those of [`Directory`]: a disabled account has no devices and gets none; a
//! batch of accounts is created whole or not at all.

use std::fmt;

use quail_protocol::id::AccountId;

use super::{AccountFacts, Directory, DirectoryError, NewDevice, PortFuture, SecretHash};

/// An account that the operator is about to create.
#[derive(Clone, PartialEq, Eq)]
pub struct ProvidedAccount {
    /// The account's id, freshly drawn.
    pub account: AccountId,
    /// Its public name; its form has been checked.
    pub handle: String,
    /// What its password is checked against, as a PHC string.
    pub password_hash: String,
    /// Its first device, if it gets one.
    pub device: Option<NewDevice>,
}

/// An account in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountSummary {
    /// Who.
    pub account: AccountId,
    /// The account's public name.
    pub handle: String,
    /// When it was created, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Whether the operator has disabled it.
    pub is_disabled: bool,
    /// How many devices are logged in.
    pub devices: u64,
}

/// An invite in a list.
#[derive(Clone, PartialEq, Eq)]
pub struct InviteSummary {
    /// The hash of its code; the code itself is kept nowhere.
    pub invite_hash: SecretHash,
    /// When it was issued, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// The handle of the account that used it up.
    pub used_by: Option<String>,
}

/// What an operator may do beyond what everybody may; see the module for what every implementation promises.
///
/// Errors and times are as in [`Directory`].
pub trait Administration: Directory {
    /// Lists accounts by handle, those behind `after` in the order of their bytes, at most `limit`.
    fn accounts(
        &self,
        after: String,
        limit: u32,
    ) -> PortFuture<'_, Result<Vec<AccountSummary>, DirectoryError>>;

    /// Creates all of these accounts or none, without invites. The facts come in the order of the accounts.
    ///
    /// # Errors
    /// `HandlesTaken` with every handle that exists or stands twice in the batch; `Duplicate`.
    fn create_accounts(
        &self,
        new: Vec<ProvidedAccount>,
        now_ms: u64,
    ) -> PortFuture<'_, Result<Vec<AccountFacts>, DirectoryError>>;

    /// Disables an account and removes all its devices, or enables it again; devices do not come back. Doing it twice
    /// changes nothing.
    ///
    /// # Errors
    /// `UnknownAccount`.
    fn set_disabled(
        &self,
        account: AccountId,
        is_disabled: bool,
        now_ms: u64,
    ) -> PortFuture<'_, Result<AccountFacts, DirectoryError>>;

    /// Replaces the password, whatever it was, and removes all devices unless they are to be kept.
    ///
    /// # Errors
    /// `UnknownAccount`.
    fn reset_password(
        &self,
        account: AccountId,
        new_password_hash: String,
        keeps_devices: bool,
    ) -> PortFuture<'_, Result<AccountFacts, DirectoryError>>;

    /// Lists invites in the order of their hashes, those from `first` to `last`, both included, at most `limit`.
    fn invites(
        &self,
        first: SecretHash,
        last: SecretHash,
        limit: u32,
    ) -> PortFuture<'_, Result<Vec<InviteSummary>, DirectoryError>>;

    /// Forgets an invite, so that it is good for nobody.
    ///
    /// # Errors
    /// `InviteInvalid` if it is unknown or used up.
    fn revoke_invite(&self, invite_hash: SecretHash) -> PortFuture<'_, Result<(), DirectoryError>>;
}

impl fmt::Debug for ProvidedAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProvidedAccount")
            .field("account", &self.account)
            .field("handle", &self.handle)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for InviteSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InviteSummary")
            .field("created_ms", &self.created_ms)
            .field("used_by", &self.used_by)
            .finish_non_exhaustive()
    }
}
