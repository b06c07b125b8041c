//! Sign up: a new account with its first device.

use std::fmt;
use std::str::FromStr;

use quail_core::ports::directory::{NewAccount, SecretHash};
use quail_protocol::id::AccountId;
use quail_protocol::limits::NAME_BYTES_MAX;
use quail_protocol::{text, v1};

use super::tokens::{self, Token};
use super::{DirectoryService, Granted, Refusal, new_device};

/// Who may create an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignUpPolicy {
    /// Everybody.
    Open,
    /// Whoever has an invite; each is good for one account.
    Invite,
    /// Nobody.
    Closed,
}

/// A text that names no policy. Whoever wrote the configuration is to blame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sign-up is open, invite or closed, not {0:?}")]
pub struct SignUpPolicyError(
    /// The text.
    pub String,
);

impl DirectoryService {
    /// Creates an account and logs its first device in.
    ///
    /// # Errors
    /// `SIGN_UP_CLOSED`, `HANDLE_INVALID`, `PASSWORD_INVALID`, `INVITE_INVALID`, `HANDLE_TAKEN`, `MALFORMED`, `BUSY`,
    /// `DIRECTORY_UNAVAILABLE`, `INTERNAL`.
    pub async fn sign_up(&self, request: v1::SignUp, now_ms: u64) -> Result<Granted, Refusal> {
        let invite_hash = self.invite_hash(&request.invite)?;
        if !text::is_handle(&request.handle) {
            return Err(Refusal::HandleInvalid);
        }
        if !text::is_password(&request.password) {
            return Err(Refusal::PasswordInvalid);
        }
        let token = Token::draw()?;
        let device = new_device(&request.device_name, request.platform, &token)?;
        let id = device.device;
        let new = NewAccount {
            account: AccountId(tokens::random_id()?),
            handle: request.handle,
            password_hash: self.passwords.hash(request.password).await?,
            invite_hash,
            device,
        };
        let facts = self.port.create_account(new, now_ms).await?;
        Ok(Granted::new(&token, id, facts))
    }

    /// Returns what the new account has to use up. Where everybody may sign up, an invite is kept for a day it is needed.
    fn invite_hash(&self, invite: &str) -> Result<Option<SecretHash>, Refusal> {
        match self.policy() {
            SignUpPolicy::Closed => Err(Refusal::SignUpClosed),
            SignUpPolicy::Open => Ok(None),
            SignUpPolicy::Invite if invite.trim().is_empty() || invite.len() > NAME_BYTES_MAX => {
                Err(Refusal::InviteInvalid)
            }
            SignUpPolicy::Invite => Ok(Some(tokens::invite_hash(invite))),
        }
    }
}

impl FromStr for SignUpPolicy {
    type Err = SignUpPolicyError;

    fn from_str(text: &str) -> Result<Self, SignUpPolicyError> {
        match text {
            "open" => Ok(Self::Open),
            "invite" => Ok(Self::Invite),
            "closed" => Ok(Self::Closed),
            _ => Err(SignUpPolicyError(text.to_owned())),
        }
    }
}

impl fmt::Display for SignUpPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Invite => "invite",
            Self::Closed => "closed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NOW_MS, invite, open_service, service, sign_up};
    use super::*;

    #[tokio::test]
    async fn where_sign_up_is_open_whoever_comes_gets_a_session() {
        let service = open_service();
        let granted = service.sign_up(sign_up("ada"), NOW_MS).await.unwrap();
        assert_eq!(granted.session.handle, "ada");
        assert_eq!(granted.facts.account, granted.session.account);
        assert_eq!(granted.facts.devices, [granted.session.device]);
        assert_eq!(service.resume(&granted.token).await, Ok(granted.session));
    }

    #[tokio::test]
    async fn where_invites_are_needed_one_opens_one_account() {
        let service = service(SignUpPolicy::Invite);
        let invite = invite(&service).await;
        for wrong in [String::new(), "made up".to_owned(), "x".repeat(NAME_BYTES_MAX + 1)] {
            let refused = service.sign_up(v1::SignUp { invite: wrong, ..sign_up("ada") }, NOW_MS).await;
            assert_eq!(refused, Err(Refusal::InviteInvalid));
        }
        let invited = |handle| v1::SignUp { invite: invite.clone(), ..sign_up(handle) };
        service.sign_up(invited("ada"), NOW_MS).await.unwrap();
        assert_eq!(service.sign_up(invited("bob"), NOW_MS).await, Err(Refusal::InviteInvalid));
    }

    #[tokio::test]
    async fn a_policy_that_changes_counts_for_every_clone() {
        let service = open_service();
        let clone = service.clone();
        service.set_policy(SignUpPolicy::Closed);
        assert_eq!(clone.sign_up(sign_up("ada"), NOW_MS).await, Err(Refusal::SignUpClosed));
        clone.set_policy(SignUpPolicy::Open);
        service.sign_up(sign_up("ada"), NOW_MS).await.unwrap();
    }

    #[tokio::test]
    async fn where_sign_up_is_closed_nobody_gets_in_and_learns_nothing_else() {
        let service = service(SignUpPolicy::Closed);
        let invite = invite(&service).await;
        for request in [v1::SignUp { invite, ..sign_up("ada") }, sign_up("not a handle")] {
            assert_eq!(service.sign_up(request, NOW_MS).await, Err(Refusal::SignUpClosed));
        }
    }

    #[tokio::test]
    async fn a_request_that_cannot_be_granted_says_why() {
        let service = open_service();
        service.sign_up(sign_up("ada"), NOW_MS).await.unwrap();
        assert_eq!(service.sign_up(sign_up("ada"), NOW_MS).await, Err(Refusal::HandleTaken));
        assert_eq!(service.sign_up(sign_up("Ada"), NOW_MS).await, Err(Refusal::HandleInvalid));
        for password in ["short".to_owned(), "x".repeat(1025)] {
            let request = v1::SignUp { password, ..sign_up("bob") };
            assert_eq!(service.sign_up(request, NOW_MS).await, Err(Refusal::PasswordInvalid));
        }
    }

    #[test]
    fn policies_come_back_as_they_were_written() {
        for policy in [SignUpPolicy::Open, SignUpPolicy::Invite, SignUpPolicy::Closed] {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        let error = "Open".parse::<SignUpPolicy>().unwrap_err();
        assert_eq!(error.to_string(), r#"sign-up is open, invite or closed, not "Open""#);
    }
}
