//! Accounts: signing up, finding others, the password.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use quail_protocol::id::AccountId;
use quail_protocol::limits::NAME_BYTES_MAX;
use quail_protocol::text;
use quail_protocol::v1::{self, look_up, request, response};

use super::{Repeat, wrong_answer};
use crate::{Client, Credentials, Error, Guest};

/// Most profiles a client remembers.
pub const PROFILES_MAX: usize = 4096;

/// What everybody may know of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Profile {
    /// The account.
    pub account: AccountId,
    /// Its public name.
    pub handle: String,
}

impl Guest {
    /// Creates an account and its first device. `invite` is needed where the server takes new accounts by invitation.
    ///
    /// # Errors
    /// [`Error::Refused`] with `HANDLE_TAKEN`, `HANDLE_INVALID`, `PASSWORD_INVALID`, `SIGN_UP_CLOSED`, `INVITE_INVALID`,
    /// or temporarily with `BUSY`, `RATE_LIMITED`, `DIRECTORY_UNAVAILABLE`. After [`Error::ConnectionLost`] or
    /// [`Error::TimedOut`] the account may exist: log in to find out.
    pub async fn sign_up(
        &self,
        handle: &str,
        password: &str,
        invite: Option<&str>,
    ) -> Result<Credentials, Error> {
        let command = request::Command::SignUp(v1::SignUp {
            handle: handle.to_owned(),
            password: password.to_owned(),
            invite: invite.unwrap_or_default().to_owned(),
            device_name: self.device_name(),
            platform: self.platform(),
        });
        self.ask_for_session("sign up", command).await
    }

    pub(super) fn device_name(&self) -> String {
        let name = self.options().device_name.as_deref().unwrap_or_default();
        text::cut(name, NAME_BYTES_MAX).to_owned()
    }

    pub(super) fn platform(&self) -> String {
        self.options().platform.as_deref().unwrap_or(std::env::consts::OS).to_owned()
    }
}

impl Client {
    /// Finds an account by its public name. Answers are remembered, up to [`PROFILES_MAX`].
    ///
    /// # Errors
    /// [`Error::Refused`] with `UNKNOWN_ACCOUNT`, or temporarily with `RATE_LIMITED`, `DIRECTORY_UNAVAILABLE`;
    /// [`Error::TimedOut`] if the server cannot be reached.
    pub async fn look_up(&self, handle: &str) -> Result<Profile, Error> {
        if let Some(profile) = self.shared().profiles.by_handle(handle) {
            return Ok(profile);
        }
        self.find(look_up::By::Handle(handle.to_owned())).await
    }

    /// Finds an account by its id. Answers are remembered, up to [`PROFILES_MAX`].
    ///
    /// # Errors
    /// As [`Client::look_up`].
    pub async fn look_up_account(&self, account: AccountId) -> Result<Profile, Error> {
        if let Some(profile) = self.shared().profiles.by_account(account) {
            return Ok(profile);
        }
        self.find(look_up::By::Account(account.to_bytes())).await
    }

    /// Replaces the account's password and ends all its other sessions; this one goes on.
    ///
    /// # Errors
    /// [`Error::Refused`] with `WRONG_CREDENTIALS`, `PASSWORD_INVALID`, or temporarily with `BUSY`, `RATE_LIMITED`,
    /// `DIRECTORY_UNAVAILABLE`. After [`Error::ConnectionLost`] or [`Error::TimedOut`] it may have been replaced.
    pub async fn change_password(&self, current: &str, new: &str) -> Result<(), Error> {
        let command = request::Command::ChangePassword(v1::ChangePassword {
            current_password: current.to_owned(),
            new_password: new.to_owned(),
        });
        match self.shared().ask("change password", command, Repeat::No).await? {
            response::Result::Done(_) => Ok(()),
            _ => Err(wrong_answer("change password")),
        }
    }

    async fn find(&self, by: look_up::By) -> Result<Profile, Error> {
        let command = request::Command::LookUp(v1::LookUp { by: Some(by) });
        let response::Result::Profile(profile) = self.shared().ask("look up", command, Repeat::Yes).await?
        else {
            return Err(wrong_answer("look up"));
        };
        let account = profile.account.as_ref().try_into();
        let account = account.map_err(|error| Error::protocol(format!("profile: {error}")))?;
        let profile = Profile { account, handle: profile.handle };
        self.shared().profiles.insert(&profile);
        Ok(profile)
    }
}

/// The profiles found last.
#[derive(Debug)]
pub(crate) struct Profiles(Mutex<ProfileTable>);

#[derive(Debug, Default)]
struct ProfileTable {
    handles: HashMap<AccountId, String>,
    accounts: HashMap<String, AccountId>,
    /// Oldest first.
    order: VecDeque<AccountId>,
}

impl Profiles {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(ProfileTable::default()))
    }

    fn by_handle(&self, handle: &str) -> Option<Profile> {
        let account = *self.lock().accounts.get(handle)?;
        Some(Profile { account, handle: handle.to_owned() })
    }

    fn by_account(&self, account: AccountId) -> Option<Profile> {
        let handle = self.lock().handles.get(&account)?.clone();
        Some(Profile { account, handle })
    }

    fn insert(&self, profile: &Profile) {
        let mut table = self.lock();
        if table.handles.insert(profile.account, profile.handle.clone()).is_none() {
            table.order.push_back(profile.account);
        }
        table.accounts.insert(profile.handle.clone(), profile.account);
        if table.order.len() > PROFILES_MAX
            && let Some(oldest) = table.order.pop_front()
            && let Some(handle) = table.handles.remove(&oldest)
        {
            table.accounts.remove(&handle);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ProfileTable> {
        // A table that lost an entry to a panic only asks the server again.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_found_both_ways_until_the_oldest_makes_room() {
        let profiles = Profiles::new();
        let profile = |number: u128| Profile {
            account: AccountId(number.to_be_bytes()),
            handle: format!("user{number}"),
        };
        for number in 0..=PROFILES_MAX as u128 {
            profiles.insert(&profile(number));
        }
        assert_eq!(profiles.by_handle("user0"), None);
        assert_eq!(profiles.by_account(profile(0).account), None);
        assert_eq!(profiles.by_handle("user1"), Some(profile(1)));
        assert_eq!(profiles.by_account(profile(1).account), Some(profile(1)));
    }
}
