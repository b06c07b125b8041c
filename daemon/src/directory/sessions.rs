//! Sessions: opened again by their token, ended by logging out.

use quail_core::ports::directory::{AccountFacts, SessionFacts};
use quail_protocol::id::{AccountId, DeviceId};

use super::tokens::Token;
use super::{DirectoryService, Refusal};

impl DirectoryService {
    /// Finds whom a token speaks for.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` for whatever is no token of a session, `DIRECTORY_UNAVAILABLE`, `INTERNAL`.
    pub async fn resume(&self, token: &[u8]) -> Result<SessionFacts, Refusal> {
        let token = Token::from_client(token).ok_or(Refusal::Unauthenticated)?;
        let session = self.port.session(token.hash()).await?;
        session.ok_or(Refusal::Unauthenticated)
    }

    /// Ends the session of a device and forgets the device. Doing it again changes nothing.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` if there is no such account, `DIRECTORY_UNAVAILABLE`, `INTERNAL`.
    pub async fn log_out(
        &self,
        account: AccountId,
        device: DeviceId,
        now_ms: u64,
    ) -> Result<AccountFacts, Refusal> {
        Ok(self.port.remove_device(account, device, now_ms).await?)
    }

    /// Ends the session of a device in the name of another one, or of itself, and forgets it. What is no device of the
    /// account is as good as forgotten.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` if the device that asks is not logged in any more; `MALFORMED` for whatever is no id;
    /// `DIRECTORY_UNAVAILABLE`, `INTERNAL`.
    pub async fn unlink_device(&self, by: &SessionFacts, device: &[u8]) -> Result<AccountFacts, Refusal> {
        let device = DeviceId::try_from(device).map_err(|error| Refusal::IdInvalid(error.to_string()))?;
        Ok(self.port.unlink_device(by.account, by.device, device).await?)
    }
}

#[cfg(test)]
mod tests {
    use quail_protocol::limits::TOKEN_BYTES;

    use quail_protocol::v1;

    use super::super::Granted;
    use super::super::testing::{NOW_MS, PASSWORD, log_in, open_service, sign_up};
    use super::*;

    #[tokio::test]
    async fn what_is_no_token_opens_nothing() {
        let service = open_service();
        let granted = service.sign_up(sign_up("ada"), NOW_MS).await.unwrap();
        let mut longer = granted.token.to_vec();
        longer.push(0);
        for bytes in [&[][..], &granted.token[1..], &longer, &[7; TOKEN_BYTES]] {
            assert_eq!(service.resume(bytes).await, Err(Refusal::Unauthenticated));
        }
    }

    #[tokio::test]
    async fn a_session_ends_with_its_device() {
        let service = open_service();
        let granted = service.sign_up(sign_up("ada"), NOW_MS).await.unwrap();
        let (account, device) = (granted.session.account, granted.session.device);
        let facts = service.log_out(account, device, NOW_MS).await.unwrap();
        assert_eq!(facts.devices, []);
        assert!(facts.version > granted.facts.version);
        assert_eq!(service.resume(&granted.token).await, Err(Refusal::Unauthenticated));
        assert_eq!(service.log_out(account, device, NOW_MS).await, Ok(facts));
    }

    #[tokio::test]
    async fn a_device_unlinks_others_until_it_is_unlinked_itself() {
        let service = open_service();
        let phone = service.sign_up(sign_up("ada"), NOW_MS).await.unwrap();
        let thief = service.log_in(log_in("ada", PASSWORD), NOW_MS).await.unwrap();
        let unlink = |by: &Granted, device: &[u8]| {
            let (service, by, device) = (service.clone(), by.session.clone(), device.to_vec());
            async move { service.unlink_device(&by, &device).await }
        };
        let facts = unlink(&phone, thief.session.device.as_bytes()).await.unwrap();
        assert_eq!(facts.devices, [phone.session.device]);
        assert_eq!(service.resume(&thief.token).await, Err(Refusal::Unauthenticated));
        let late = unlink(&thief, phone.session.device.as_bytes()).await;
        assert_eq!(late, Err(Refusal::Unauthenticated), "what was on its way comes too late");
        assert_eq!(service.resume(&phone.token).await, Ok(phone.session.clone()));
        for wrong in [&[][..], &[1; 15], &[1; 17]] {
            let refused = unlink(&phone, wrong).await.unwrap_err();
            assert!(matches!(refused, Refusal::IdInvalid(_)), "{refused:?}");
            assert_eq!(refused.reason(), v1::Reason::Malformed);
        }
    }

    #[tokio::test]
    async fn nobody_logs_out_of_an_account_that_is_not() {
        let logged_out = open_service().log_out(AccountId([9; 16]), DeviceId([9; 16]), NOW_MS).await;
        assert_eq!(logged_out, Err(Refusal::Unauthenticated));
    }
}
