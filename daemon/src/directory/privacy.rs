//! Privacy: what an account lets others know.

use quail_core::ports::directory::{AccountFacts, SessionFacts};
use quail_protocol::v1;

use super::{DirectoryService, Refusal};

impl DirectoryService {
    /// Changes what the account of a session lets others know. What is not said stays as it is.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` if the device that asks is not logged in any more; `MALFORMED` for whatever is neither on nor off;
    /// `DIRECTORY_UNAVAILABLE`, `INTERNAL`.
    pub async fn set_privacy(
        &self,
        session: &SessionFacts,
        asked: v1::SetPrivacy,
    ) -> Result<AccountFacts, Refusal> {
        let read_receipts = match v1::Switch::try_from(asked.read_receipts) {
            Ok(v1::Switch::On) => true,
            Ok(v1::Switch::Off) => false,
            Ok(v1::Switch::Unspecified) => {
                let facts = self.port.facts(session.account).await?;
                return facts.ok_or(Refusal::Unauthenticated);
            }
            Err(_) => return Err(Refusal::SwitchInvalid),
        };
        Ok(self.port.set_privacy(session.account, session.device, read_receipts).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NOW_MS, open_service, sign_up};
    use super::*;

    #[tokio::test]
    async fn what_is_not_said_stays_and_what_is_no_setting_is_refused() {
        let service = open_service();
        let granted = service.sign_up(sign_up("ada"), NOW_MS).await.unwrap();
        let set = |read_receipts: i32| {
            let (service, session) = (service.clone(), granted.session.clone());
            async move { service.set_privacy(&session, v1::SetPrivacy { read_receipts }).await }
        };
        let off = set(v1::Switch::Off as i32).await.unwrap();
        assert!(!off.read_receipts);
        assert_eq!(set(v1::Switch::Unspecified as i32).await, Ok(off));
        let refused = set(9).await.unwrap_err();
        assert_eq!((refused.reason(), refused), (v1::Reason::Malformed, Refusal::SwitchInvalid));
        assert!(set(v1::Switch::On as i32).await.unwrap().read_receipts);
    }
}
