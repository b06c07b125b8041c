//! The directory port: accounts, their devices, and the secrets that open sessions.
//!
//! The directory is the one authority on who exists and which devices speak for whom. It stands behind a trait because
//! the daemon serves it from a file on its own disk or from a database of the network, and because tests want neither.
//!
//! Invariants every implementation keeps, proven by the conformance suite:
//! - a command is one transaction: it is done durably when its future is ready, and a refused one changes nothing;
//! - [`AccountFacts::version`] rises with every change of an account's device list or privacy and at no other time, so
//!   whoever holds two facts of one account knows the newer one, in whatever order they came;
//! - a session is found by the hash of its token; neither tokens nor passwords ever reach this port;
//! - once a device's removal is answered, no session of it is found any more;
//! - when a device was last seen is known at most as exactly as it was recorded, and changes nothing else.

mod administration;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod flags;
mod twin;

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use quail_protocol::id::{AccountId, DeviceId, Origin};

pub use administration::{AccountSummary, Administration, InviteSummary, ProvidedAccount};
pub use flags::{ConversationFlags, FlagChange, FlagsByPeer};
pub use twin::TwinDirectory;

/// What an object-safe port answers with.
pub type PortFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The SHA-256 of a secret that has 128 or more random bits; such secrets need no slower hash.
pub type SecretHash = [u8; 32];

/// What the rest of the daemon knows of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountFacts {
    /// Who.
    pub account: AccountId,
    /// The account's public name.
    pub handle: String,
    /// Raised by every change of what is told here; starts at 1. Greater is newer.
    pub version: u64,
    /// Whether those who wrote to the account are told that it has read their messages. At first they are.
    pub read_receipts: bool,
    /// The devices that are logged in, sorted; at most `DEVICES_MAX`, possibly none.
    pub devices: Vec<DeviceId>,
}

/// Whom a session token speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionFacts {
    /// Who.
    pub account: AccountId,
    /// With which device.
    pub device: DeviceId,
    /// The account's public name.
    pub handle: String,
}

/// A device that is about to be logged in.
#[derive(Clone, PartialEq, Eq)]
pub struct NewDevice {
    /// The device's id, freshly drawn.
    pub device: DeviceId,
    /// Its name, for the owner's eyes; at most `NAME_BYTES_MAX` bytes.
    pub name: String,
    /// What it runs on, for the owner's eyes; at most `PLATFORM_BYTES_MAX` bytes, possibly none.
    pub platform: String,
    /// The hash of the token that opens its sessions.
    pub token_hash: SecretHash,
}

/// A device in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSummary {
    /// Which.
    pub device: DeviceId,
    /// The name its client gave it; may be empty.
    pub name: String,
    /// What its client says it runs on; may be empty.
    pub platform: String,
    /// When it was logged in, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// When it was last connected, in milliseconds since the Unix epoch, as far as recorded; at first when it was logged in.
    pub last_seen_ms: u64,
}

/// An account that is about to be created, with its first device.
#[derive(Clone, PartialEq, Eq)]
pub struct NewAccount {
    /// The account's id, freshly drawn.
    pub account: AccountId,
    /// The public name it asks for; its form has been checked.
    pub handle: String,
    /// The password as a PHC string.
    pub password_hash: String,
    /// The invite that this account uses up; `None` where none is needed.
    pub invite_hash: Option<SecretHash>,
    /// The device that signs up.
    pub device: NewDevice,
}

/// What a password is checked against.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Whose password.
    pub account: AccountId,
    /// The account's public name.
    pub handle: String,
    /// The password as a PHC string.
    pub password_hash: String,
}

/// Why the directory did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// The handle belongs to another account. Whoever asks has to choose another one.
    #[error("the handle is taken")]
    HandleTaken,
    /// Of a batch of accounts, these handles exist already or stand in it twice. Whoever asks has to leave them out.
    #[error("handles are taken: {}", handles.join(", "))]
    HandlesTaken {
        /// Which, in the order of the batch.
        handles: Vec<String>,
    },
    /// The invite was never issued or is used up. Whoever asks needs another one.
    #[error("the invite is unknown or used")]
    InviteInvalid,
    /// The account has `DEVICES_MAX` devices. Its owner has to log one out first.
    #[error("the account has too many devices")]
    DeviceLimit,
    /// No account has this id.
    #[error("no such account")]
    UnknownAccount,
    /// The account has no such device (any more), so nothing may be done in its name.
    #[error("the account has no such device")]
    UnknownDevice,
    /// The operator has disabled the account, so no device may be logged in.
    #[error("the account is disabled")]
    AccountDisabled,
    /// The password was changed after it had been checked. Checking again tells whether it is still the right one.
    #[error("the password was changed meanwhile")]
    PasswordChanged,
    /// An id or a secret that the daemon has just drawn exists already: its random numbers are not random.
    #[error("a freshly drawn {what} exists already")]
    Duplicate {
        /// What was to be unique.
        what: &'static str,
    },
    /// The directory cannot be reached or cannot write. Nobody's fault in particular; a retry may help.
    #[error("the directory is unavailable: {reason}")]
    Unavailable {
        /// For the operator's log, never for peers.
        reason: String,
    },
    /// What is stored cannot be what this daemon wrote, or the daemon asked for what the storage does not know. Needs a
    /// person; a retry does not help.
    #[error("the directory is damaged: {reason}")]
    Corrupt {
        /// For the operator's log, never for peers.
        reason: String,
    },
}

impl DirectoryError {
    /// Returns whether the same command may succeed later, unchanged.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// Accounts, devices and sessions; see the module for what every implementation promises.
///
/// Times are milliseconds since the Unix epoch and only recorded, never decided upon. Every method may fail with
/// [`DirectoryError::Unavailable`] and [`DirectoryError::Corrupt`]; the others are named at each.
///
/// Dropping a future before it is ready leaves open whether its command was done. Whoever must know lets it finish.
pub trait Directory: Send + Sync {
    /// Gives a new data directory its number, from 1 upwards and never twice.
    fn register_origin(&self, now_ms: u64) -> PortFuture<'_, Result<Origin, DirectoryError>>;

    /// Creates an account with its first device and uses up its invite.
    ///
    /// # Errors
    /// `InviteInvalid`, looked at first so that strangers do not learn which handles exist; `HandleTaken`; `Duplicate`.
    fn create_account(
        &self,
        new: NewAccount,
        now_ms: u64,
    ) -> PortFuture<'_, Result<AccountFacts, DirectoryError>>;

    /// Finds what the password of a handle is checked against.
    fn credentials(&self, handle: String) -> PortFuture<'_, Result<Option<Credentials>, DirectoryError>>;

    /// Finds what the password of an account is checked against.
    fn credentials_of(
        &self,
        account: AccountId,
    ) -> PortFuture<'_, Result<Option<Credentials>, DirectoryError>>;

    /// Logs a device in.
    ///
    /// `expected_password_hash` is the one the password was checked against: a password that is changed between the
    /// check and this transaction ends all other sessions, and must not miss the one that is being opened.
    ///
    /// # Errors
    /// `UnknownAccount`, `AccountDisabled`, `PasswordChanged`, `DeviceLimit`, `Duplicate`.
    fn add_device(
        &self,
        account: AccountId,
        device: NewDevice,
        expected_password_hash: String,
        now_ms: u64,
    ) -> PortFuture<'_, Result<AccountFacts, DirectoryError>>;

    /// Finds whom a token speaks for. Reads only, so a session opens while the disk is full.
    fn session(&self, token_hash: SecretHash)
    -> PortFuture<'_, Result<Option<SessionFacts>, DirectoryError>>;

    /// Logs a device out and forgets it. A device that the account does not have is as good as removed: the facts are
    /// returned as they are.
    ///
    /// # Errors
    /// `UnknownAccount`.
    fn remove_device(
        &self,
        account: AccountId,
        device: DeviceId,
        now_ms: u64,
    ) -> PortFuture<'_, Result<AccountFacts, DirectoryError>>;

    /// Logs a device out in the name of `by`, another one of the same account or the same one. Otherwise as
    /// [`remove_device`](Self::remove_device); both are one transaction, so a device that is removed removes none after it.
    ///
    /// # Errors
    /// `UnknownAccount`; `UnknownDevice` if `by` was removed meanwhile.
    fn unlink_device(
        &self,
        account: AccountId,
        by: DeviceId,
        device: DeviceId,
    ) -> PortFuture<'_, Result<AccountFacts, DirectoryError>>;

    /// Lists the devices of an account in the order in which they were logged in, and by id where that is the same
    /// millisecond; none if there is no such account.
    fn devices(&self, account: AccountId) -> PortFuture<'_, Result<Vec<DeviceSummary>, DirectoryError>>;

    /// Records when devices were last seen, all in one transaction. An earlier time than the recorded one changes nothing,
    /// and neither does a device that is gone.
    fn record_seen(&self, seen: Vec<(DeviceId, u64)>) -> PortFuture<'_, Result<(), DirectoryError>>;

    /// Replaces the password and removes every device but `keep`, in the same transaction.
    ///
    /// # Errors
    /// `UnknownAccount`; `UnknownDevice` if `keep` was removed meanwhile; `PasswordChanged`.
    fn change_password(
        &self,
        account: AccountId,
        keep: DeviceId,
        expected_password_hash: String,
        new_password_hash: String,
        now_ms: u64,
    ) -> PortFuture<'_, Result<AccountFacts, DirectoryError>>;

    /// Changes whether those who wrote to an account are told that it has read their messages, in the name of its device `by`.
    ///
    /// # Errors
    /// `UnknownDevice` if `by` was removed meanwhile, or there is no such account.
    fn set_privacy(
        &self,
        account: AccountId,
        by: DeviceId,
        read_receipts: bool,
    ) -> PortFuture<'_, Result<AccountFacts, DirectoryError>>;

    /// Changes how an account wants to see its conversation with `peer`, in the name of its device `by`, and returns how it does then.
    /// Whether there is such a conversation the directory does not know.
    ///
    /// # Errors
    /// `UnknownDevice` if `by` was removed meanwhile, or there is no such account; `UnknownAccount` if there is no such peer.
    fn set_conversation(
        &self,
        account: AccountId,
        by: DeviceId,
        peer: AccountId,
        change: FlagChange,
    ) -> PortFuture<'_, Result<ConversationFlags, DirectoryError>>;

    /// Returns how an account wants to see its conversations with these peers.
    fn conversation_flags(
        &self,
        account: AccountId,
        peers: Vec<AccountId>,
    ) -> PortFuture<'_, Result<FlagsByPeer, DirectoryError>>;

    /// Returns what is known of an account.
    fn facts(&self, account: AccountId) -> PortFuture<'_, Result<Option<AccountFacts>, DirectoryError>>;

    /// Finds an account by its public name.
    fn look_up(&self, handle: String) -> PortFuture<'_, Result<Option<AccountFacts>, DirectoryError>>;

    /// Issues an invite, good for one account.
    ///
    /// # Errors
    /// `Duplicate`.
    fn create_invite(
        &self,
        invite_hash: SecretHash,
        now_ms: u64,
    ) -> PortFuture<'_, Result<(), DirectoryError>>;
}

// The hashes below are no secrets as passwords are, but whoever has them can guess at leisure: they stay out of logs.

impl fmt::Debug for NewDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewDevice")
            .field("device", &self.device)
            .field("name", &self.name)
            .field("platform", &self.platform)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for NewAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewAccount")
            .field("account", &self.account)
            .field("handle", &self.handle)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("account", &self.account)
            .field("handle", &self.handle)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_shows_no_hash() {
        let device = NewDevice {
            device: DeviceId([1; 16]),
            name: "phone".to_owned(),
            platform: String::new(),
            token_hash: [211; 32],
        };
        let credentials = Credentials {
            account: AccountId([2; 16]),
            handle: "ada".to_owned(),
            password_hash: "canary".to_owned(),
        };
        let account = NewAccount {
            account: AccountId([2; 16]),
            handle: "ada".to_owned(),
            password_hash: "canary".to_owned(),
            invite_hash: Some([211; 32]),
            device: device.clone(),
        };
        for text in [format!("{device:?}"), format!("{credentials:?}"), format!("{account:?}")] {
            assert!(!text.contains("canary") && !text.contains("211"), "{text}");
        }
    }

    #[test]
    fn only_an_unavailable_directory_is_worth_a_retry() {
        assert!(DirectoryError::Unavailable { reason: "disk full".to_owned() }.is_temporary());
        assert!(!DirectoryError::Corrupt { reason: "short id".to_owned() }.is_temporary());
        assert!(!DirectoryError::HandleTaken.is_temporary());
    }
}
