//! The registry: who may sign up, who is logged in, and with which devices.
//!
//! Each directory command checks what the client sent, has passwords hashed off the event loop, and hands the decision to
//! one transaction of the [`Directory`] port. What changed comes back as [`AccountFacts`], whose version lets the
//! sequencer take them in any order.
//!
//! Invariants:
//! - passwords and tokens live here as briefly as the command; the port gets only hashes, logs get neither;
//! - a wrong password and an unknown handle take the same work and give the same answer;
//! - a command whose future is dropped may or may not have happened: whoever must pass its facts on, because a session
//!   has ended, runs it to its end.

mod admin;
mod change_password;
mod conversations;
mod invites;
mod log_in;
mod passwords;
mod privacy;
mod refusal;
mod sessions;
mod sign_up;
mod tokens;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use quail_core::ports::directory::{AccountFacts, Directory, NewDevice, SessionFacts};
use quail_protocol::id::{AccountId, DeviceId};
use quail_protocol::limits::{NAME_BYTES_MAX, TOKEN_BYTES};
use quail_protocol::text;

use passwords::PasswordPool;
use tokens::Token;

pub use admin::{
    AdminError, AdminService, CREATE_ACCOUNTS_MAX, CreatedAccount, INVITE_ID_BYTES, LIST_PAGE_MAX,
};
pub use refusal::Refusal;
pub use sign_up::{SignUpPolicy, SignUpPolicyError};

/// The directory commands. Cheap to clone; clones share the port and the pool that hashes passwords.
#[derive(Clone)]
pub struct DirectoryService {
    port: Arc<dyn Directory>,
    /// Shared by the clones, so that a reload reaches all.
    policy: Arc<RwLock<SignUpPolicy>>,
    passwords: PasswordPool,
}

/// A session that was just opened. The token exists nowhere else: it goes to the client and is forgotten.
#[derive(Clone, PartialEq, Eq)]
pub struct Granted {
    /// The secret that opens later connections.
    pub token: [u8; TOKEN_BYTES],
    /// Whom it speaks for.
    pub session: SessionFacts,
    /// The account with its new device.
    pub facts: AccountFacts,
}

impl DirectoryService {
    /// Returns the commands on a directory. As many passwords are hashed at once as there are cores.
    pub fn new(port: Arc<dyn Directory>, policy: SignUpPolicy) -> Self {
        Self { port, policy: Arc::new(RwLock::new(policy)), passwords: PasswordPool::with_all_cores() }
    }

    /// Changes who may sign up, from the next request on.
    pub fn set_policy(&self, policy: SignUpPolicy) {
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = policy;
    }

    fn policy(&self) -> SignUpPolicy {
        *self.policy.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what is known of an account, or `None` if there is none.
    ///
    /// # Errors
    /// `DIRECTORY_UNAVAILABLE`, `INTERNAL`.
    pub async fn facts(&self, account: AccountId) -> Result<Option<AccountFacts>, Refusal> {
        Ok(self.port.facts(account).await?)
    }
}

impl Granted {
    fn new(token: &Token, device: DeviceId, facts: AccountFacts) -> Self {
        let session = SessionFacts { account: facts.account, device, handle: facts.handle.clone() };
        Self { token: token.secret(), session, facts }
    }
}

/// Returns a device with a name its owner can read in a list, whatever the client sent. A program says what it runs on, so
/// what is no such thing is refused: whoever writes the program finds out.
fn new_device(name: &str, platform: String, token: &Token) -> Result<NewDevice, Refusal> {
    if !text::is_platform(&platform) {
        return Err(Refusal::PlatformInvalid);
    }
    let plain: String = name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    Ok(NewDevice {
        device: DeviceId(tokens::random_id()?),
        name: text::cut(plain.trim(), NAME_BYTES_MAX).to_owned(),
        platform,
        token_hash: token.hash(),
    })
}

impl fmt::Debug for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Granted")
            .field("session", &self.session)
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for DirectoryService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectoryService").field("policy", &self.policy()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod testing;

#[cfg(test)]
mod tests {
    use super::testing::{NOW_MS, open_service, sign_up};
    use super::*;

    #[test]
    fn device_names_are_cut_and_plain() {
        let token = Token::draw().unwrap();
        let name = |name: &str| new_device(name, String::new(), &token).unwrap().name;
        assert_eq!(name(" my\u{1b}[2Jphone\r\n"), "my [2Jphone");
        assert_eq!(name(""), "");
        assert_eq!(name(&"ä".repeat(100)), "ä".repeat(NAME_BYTES_MAX / 2));
    }

    #[tokio::test]
    async fn debug_output_shows_no_secret() {
        let service = open_service();
        let mut granted = service.sign_up(sign_up("ada"), NOW_MS).await.unwrap();
        granted.token = [211; TOKEN_BYTES];
        for text in [format!("{granted:?}"), format!("{granted:#?}"), format!("{service:?}")] {
            assert!(!text.contains("211, 211") && !text.contains("211,\n"), "{text}");
            assert!(!text.to_lowercase().contains("token"), "{text}");
        }
        assert!(format!("{granted:?}").contains("ada"));
    }

    #[tokio::test]
    async fn facts_tell_of_those_who_exist() {
        let service = open_service();
        let granted = service.sign_up(sign_up("ada"), NOW_MS).await.unwrap();
        assert_eq!(service.facts(granted.facts.account).await, Ok(Some(granted.facts)));
        assert_eq!(service.facts(AccountId([9; 16])).await, Ok(None));
    }
}
