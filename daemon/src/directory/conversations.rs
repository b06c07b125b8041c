//! How an account wants to see its conversations.

use quail_core::ports::directory::{FlagChange, SessionFacts};
use quail_protocol::id::AccountId;
use quail_protocol::v1;

use super::{DirectoryService, Refusal};

impl DirectoryService {
    /// Changes how the account of a session wants to see a conversation. What is not said stays as it is. That the account has such
    /// a conversation the caller has to know.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` if the device that asks is not logged in any more; `MALFORMED` for a peer that is none and for whatever is
    /// neither on nor off; `DIRECTORY_UNAVAILABLE`, `INTERNAL`.
    pub async fn set_conversation(
        &self,
        session: &SessionFacts,
        asked: v1::SetConversation,
    ) -> Result<(), Refusal> {
        let (peer, change) = understood(&asked)?;
        self.port.set_conversation(session.account, session.device, peer, change).await?;
        Ok(())
    }

    /// Checks the form of such a change.
    ///
    /// # Errors
    /// `MALFORMED`.
    pub fn check_conversation(asked: &v1::SetConversation) -> Result<(), Refusal> {
        understood(asked).map(|_| ())
    }
}

fn understood(asked: &v1::SetConversation) -> Result<(AccountId, FlagChange), Refusal> {
    let peer = AccountId::try_from(&asked.peer[..]).map_err(|error| Refusal::IdInvalid(error.to_string()))?;
    let change = FlagChange {
        muted: switch(asked.muted)?,
        pinned: switch(asked.pinned)?,
        put_away: switch(asked.put_away)?,
    };
    Ok((peer, change))
}

fn switch(said: i32) -> Result<Option<bool>, Refusal> {
    match v1::Switch::try_from(said) {
        Ok(v1::Switch::On) => Ok(Some(true)),
        Ok(v1::Switch::Off) => Ok(Some(false)),
        Ok(v1::Switch::Unspecified) => Ok(None),
        Err(_) => Err(Refusal::SwitchInvalid),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NOW_MS, open_service, sign_up};
    use super::*;

    #[tokio::test]
    async fn what_is_said_is_kept_and_what_is_no_setting_is_refused() {
        let service = open_service();
        let ada = service.sign_up(sign_up("ada"), NOW_MS).await.unwrap().session;
        let asked = |muted: i32, peer: &[u8]| v1::SetConversation {
            peer: peer.to_vec().into(),
            muted,
            ..Default::default()
        };
        let peer = ada.account.as_bytes().as_slice();
        service.set_conversation(&ada, asked(v1::Switch::On as i32, peer)).await.unwrap();
        service.set_conversation(&ada, asked(0, peer)).await.unwrap();
        let flags = service.port.conversation_flags(ada.account, vec![ada.account]).await.unwrap();
        assert!(flags[&ada.account].muted);
        assert_eq!(service.set_conversation(&ada, asked(7, peer)).await, Err(Refusal::SwitchInvalid));
        for peer in [&[][..], &[1; 15], &[1; 17]] {
            let refused = service.set_conversation(&ada, asked(1, peer)).await.unwrap_err();
            assert_eq!(refused.reason(), v1::Reason::Malformed);
        }
        let gone = SessionFacts { device: quail_protocol::id::DeviceId([9; 16]), ..ada.clone() };
        let refused = service.set_conversation(&gone, asked(1, peer)).await;
        assert_eq!(refused, Err(Refusal::Unauthenticated));
    }
}
