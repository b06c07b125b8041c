//! What only the operator may do with accounts: lists, accounts for others, disabling, passwords reset, invites.
//!
//! A service of its own beside [`DirectoryService`], so that a connection from the network has no value to call it on. As
//! there, each command is one transaction, and whoever ends sessions tells the core of the facts that come back.
//!
//! Invariants: tokens and passwords that are drawn here go to the operator and are kept nowhere; an account without a
//! password is indistinguishable from one whose password is not known.

mod error;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use quail_core::ports::directory::{
    AccountFacts, AccountSummary, Administration, DeviceSummary, InviteSummary, ProvidedAccount, SecretHash,
};
use quail_protocol::id::{AccountId, DeviceId};
use quail_protocol::limits::NAME_BYTES_MAX;
use quail_protocol::text;

pub use error::AdminError;

use super::passwords::{NO_PASSWORD, PasswordPool};
use super::tokens::{self, Token};
use super::{DirectoryService, Granted, invites, new_device};

/// Most accounts created in one transaction: bounds how long sign-ups wait behind it.
pub const CREATE_ACCOUNTS_MAX: usize = 500;

/// Most rows of a list that are read at once.
pub const LIST_PAGE_MAX: u32 = 500;

/// The name of a device that the operator creates with an account.
const DEVICE_NAME: &str = "created by the operator";

/// Bytes of an invite's hash that name it in lists. They tell nothing of the code, and no two invites share them.
pub const INVITE_ID_BYTES: usize = 8;

/// The operator's commands. Cheap to clone.
#[derive(Clone)]
pub struct AdminService {
    port: Arc<dyn Administration>,
    passwords: PasswordPool,
}

/// An account that was just created for somebody.
#[derive(Debug, PartialEq, Eq)]
pub struct CreatedAccount {
    /// The account.
    pub facts: AccountFacts,
    /// Its first session, if one was asked for.
    pub session: Option<Granted>,
}

impl AdminService {
    /// Returns the commands on a directory; `service` is what strangers use, for the places where passwords are hashed.
    pub fn new(port: Arc<dyn Administration>, service: &DirectoryService) -> Self {
        Self { port, passwords: service.passwords.clone() }
    }

    /// Lists accounts behind a handle, at most [`LIST_PAGE_MAX`]; none means that the list is at its end.
    ///
    /// # Errors
    /// [`AdminError::Directory`].
    pub async fn accounts(&self, after: String, limit: u32) -> Result<Vec<AccountSummary>, AdminError> {
        Ok(self.port.accounts(after, limit.min(LIST_PAGE_MAX)).await?)
    }

    /// Creates accounts without passwords, each with a device and its session if `with_sessions`; all or none.
    ///
    /// # Errors
    /// `TooMany`, `HandleInvalid`, `HandleTwice`, `HandlesTaken`, `Directory`, `Refused`.
    pub async fn create_accounts(
        &self,
        handles: Vec<String>,
        with_sessions: bool,
        now_ms: u64,
    ) -> Result<Vec<CreatedAccount>, AdminError> {
        check_handles(&handles)?;
        let mut accounts = Vec::with_capacity(handles.len());
        let mut tokens = Vec::new();
        for handle in handles {
            let mut device = None;
            if with_sessions {
                let token = Token::draw()?;
                device = Some(new_device(DEVICE_NAME, String::new(), &token)?);
                tokens.push(token);
            }
            let (account, password_hash) = (AccountId(tokens::random_id()?), NO_PASSWORD.to_owned());
            accounts.push(ProvidedAccount { account, handle, password_hash, device });
        }
        let created = self.port.create_accounts(accounts, now_ms).await?;
        let mut tokens = tokens.into_iter();
        let mut session = |facts: &AccountFacts| {
            let (token, device) = (tokens.next()?, facts.devices.first()?);
            Some(Granted::new(&token, *device, facts.clone()))
        };
        Ok(created.into_iter().map(|facts| CreatedAccount { session: session(&facts), facts }).collect())
    }

    /// Disables an account and ends its sessions, or enables it again. The facts are to be told to the core.
    ///
    /// # Errors
    /// `UnknownHandle`, `Directory`.
    pub async fn set_disabled(
        &self,
        handle: String,
        is_disabled: bool,
        now_ms: u64,
    ) -> Result<AccountFacts, AdminError> {
        let account = self.find(handle).await?.account;
        Ok(self.port.set_disabled(account, is_disabled, now_ms).await?)
    }

    /// Gives an account another password: `password`, or one that is drawn and returned. Ends its sessions unless they
    /// are to be kept. The facts are to be told to the core.
    ///
    /// # Errors
    /// `PasswordInvalid`, `UnknownHandle`, `Directory`, `Refused` while too many passwords are hashed.
    pub async fn reset_password(
        &self,
        handle: String,
        password: Option<String>,
        keeps_sessions: bool,
    ) -> Result<(AccountFacts, Option<String>), AdminError> {
        if password.as_ref().is_some_and(|password| !text::is_password(password)) {
            return Err(AdminError::PasswordInvalid);
        }
        let account = self.find(handle).await?.account;
        let (password, drawn) = match password {
            Some(password) => (password, None),
            None => {
                let drawn = invites::draw()?.to_ascii_lowercase();
                (drawn.clone(), Some(drawn))
            }
        };
        let hash = self.passwords.hash(password).await?;
        Ok((self.port.reset_password(account, hash, keeps_sessions).await?, drawn))
    }

    /// Lists the devices of an account.
    ///
    /// # Errors
    /// `UnknownHandle`, `Directory`.
    pub async fn devices(&self, handle: String) -> Result<Vec<DeviceSummary>, AdminError> {
        let account = self.find(handle).await?.account;
        Ok(self.port.devices(account).await?)
    }

    /// Logs a device out. The facts are to be told to the core.
    ///
    /// # Errors
    /// `UnknownHandle`, `UnknownDevice`, `Directory`.
    pub async fn unlink_device(
        &self,
        handle: String,
        device: &str,
        now_ms: u64,
    ) -> Result<AccountFacts, AdminError> {
        let unknown = || AdminError::UnknownDevice { handle: handle.clone(), device: device.to_owned() };
        let facts = self.find(handle.clone()).await?;
        let id: DeviceId = device.parse().map_err(|_| unknown())?;
        if !facts.devices.contains(&id) {
            return Err(unknown());
        }
        Ok(self.port.remove_device(facts.account, id, now_ms).await?)
    }

    /// Issues an invite and returns its code, which is kept nowhere else.
    ///
    /// # Errors
    /// `Directory`, `Refused`.
    pub async fn create_invite(&self, now_ms: u64) -> Result<String, AdminError> {
        let invite = invites::draw()?;
        self.port.create_invite(tokens::invite_hash(&invite), now_ms).await?;
        Ok(invite)
    }

    /// Lists invites from a hash on, at most [`LIST_PAGE_MAX`]; none means that the list is at its end.
    ///
    /// # Errors
    /// `Directory`.
    pub async fn invites(&self, first: SecretHash) -> Result<Vec<InviteSummary>, AdminError> {
        Ok(self.port.invites(first, [u8::MAX; 32], LIST_PAGE_MAX).await?)
    }

    /// Takes back an invite, named by its code or by its id from the list.
    ///
    /// # Errors
    /// `UnknownInvite`, `Directory`.
    pub async fn revoke_invite(&self, invite: &str) -> Result<(), AdminError> {
        let hash = match invite_id(invite.trim()) {
            Some(id) => self.find_invite(id).await?,
            None if invite.len() > NAME_BYTES_MAX => return Err(AdminError::UnknownInvite),
            None => tokens::invite_hash(invite),
        };
        Ok(self.port.revoke_invite(hash).await?)
    }

    async fn find(&self, handle: String) -> Result<AccountFacts, AdminError> {
        let found = self.port.look_up(handle.clone()).await?;
        found.ok_or(AdminError::UnknownHandle { handle })
    }

    async fn find_invite(&self, id: [u8; INVITE_ID_BYTES]) -> Result<SecretHash, AdminError> {
        let bound = |rest: u8| {
            let mut bound = [rest; 32];
            bound[..INVITE_ID_BYTES].copy_from_slice(&id);
            bound
        };
        // Two would share 64 bits of SHA-256: then neither is meant for sure.
        match &self.port.invites(bound(0), bound(u8::MAX), 2).await?[..] {
            [one] => Ok(one.invite_hash),
            _ => Err(AdminError::UnknownInvite),
        }
    }
}

/// Reads the id of an invite: 16 hex digits, which no code is.
fn invite_id(text: &str) -> Option<[u8; INVITE_ID_BYTES]> {
    if text.len() != 2 * INVITE_ID_BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(text, 16).ok().map(u64::to_be_bytes)
}

fn check_handles(handles: &[String]) -> Result<(), AdminError> {
    if handles.len() > CREATE_ACCOUNTS_MAX {
        return Err(AdminError::TooMany);
    }
    let mut seen = HashSet::new();
    for handle in handles {
        if !text::is_handle(handle) {
            return Err(AdminError::HandleInvalid { handle: handle.clone() });
        }
        if !seen.insert(handle) {
            return Err(AdminError::HandleTwice { handle: handle.clone() });
        }
    }
    Ok(())
}

impl fmt::Debug for AdminService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminService").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
