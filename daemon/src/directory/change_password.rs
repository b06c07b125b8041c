//! Change password: the new one stands, and every other session has ended, in one transaction.

use quail_core::ports::directory::AccountFacts;
use quail_protocol::id::{AccountId, DeviceId};
use quail_protocol::{text, v1};

use super::{DirectoryService, Refusal};

impl DirectoryService {
    /// Replaces the password of an account and ends the sessions of all its devices but the one that asks.
    ///
    /// # Errors
    /// `PASSWORD_INVALID`, `WRONG_CREDENTIALS`, `UNAUTHENTICATED` if the device was logged out meanwhile, `BUSY`,
    /// `DIRECTORY_UNAVAILABLE`, `INTERNAL`.
    pub async fn change_password(
        &self,
        account: AccountId,
        device: DeviceId,
        request: v1::ChangePassword,
        now_ms: u64,
    ) -> Result<AccountFacts, Refusal> {
        if !text::is_password(&request.new_password) {
            return Err(Refusal::PasswordInvalid);
        }
        if !text::is_password(&request.current_password) {
            return Err(Refusal::WrongCredentials);
        }
        let credentials = self.port.credentials_of(account).await?.ok_or(Refusal::Unauthenticated)?;
        let expected = credentials.password_hash;
        if !self.passwords.verify(request.current_password, Some(expected.clone())).await? {
            return Err(Refusal::WrongCredentials);
        }
        let new = self.passwords.hash(request.new_password).await?;
        Ok(self.port.change_password(account, device, expected, new, now_ms).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NOW_MS, PASSWORD, log_in, open_service, sign_up};
    use super::*;

    const NEW_PASSWORD: &str = "a better one";

    fn change(current: &str, new: &str) -> v1::ChangePassword {
        v1::ChangePassword { current_password: current.to_owned(), new_password: new.to_owned() }
    }

    #[tokio::test]
    async fn a_new_password_ends_every_other_session() {
        let service = open_service();
        let other = service.sign_up(sign_up("ada"), NOW_MS).await.unwrap();
        let mine = service.log_in(log_in("ada", PASSWORD), NOW_MS).await.unwrap();
        let (account, device) = (mine.session.account, mine.session.device);
        let facts =
            service.change_password(account, device, change(PASSWORD, NEW_PASSWORD), NOW_MS).await.unwrap();
        assert_eq!(facts.devices, [device]);
        assert!(facts.version > mine.facts.version);
        assert_eq!(service.resume(&mine.token).await, Ok(mine.session));
        assert_eq!(service.resume(&other.token).await, Err(Refusal::Unauthenticated));

        let old = service.log_in(log_in("ada", PASSWORD), NOW_MS).await;
        assert_eq!(old, Err(Refusal::WrongCredentials));
        service.log_in(log_in("ada", NEW_PASSWORD), NOW_MS).await.unwrap();
    }

    #[tokio::test]
    async fn a_refused_change_leaves_the_password_as_it_was() {
        let service = open_service();
        let granted = service.sign_up(sign_up("ada"), NOW_MS).await.unwrap();
        let (account, device) = (granted.session.account, granted.session.device);
        for (request, refusal) in [
            (change("not the password", NEW_PASSWORD), Refusal::WrongCredentials),
            (change("", NEW_PASSWORD), Refusal::WrongCredentials),
            (change(PASSWORD, "short"), Refusal::PasswordInvalid),
        ] {
            assert_eq!(service.change_password(account, device, request, NOW_MS).await, Err(refusal));
        }
        let ended = DeviceId([9; 16]);
        let refused = service.change_password(account, ended, change(PASSWORD, NEW_PASSWORD), NOW_MS).await;
        assert_eq!(refused, Err(Refusal::Unauthenticated));
        service.log_in(log_in("ada", PASSWORD), NOW_MS).await.unwrap();
    }
}
