//! Look up: who is behind a handle or an account id.

use quail_core::ports::directory::Directory;
use quail_protocol::id::AccountId;
use quail_protocol::v1::{self, look_up::By};

use super::QueryError;

/// Finds an account and returns what everybody may know of it.
///
/// # Errors
/// `UNKNOWN_ACCOUNT`, also for what cannot be a handle; `MALFORMED` if the query asks for nothing or for an id that is
/// none; `DIRECTORY_UNAVAILABLE`, `INTERNAL`.
pub async fn look_up(directory: &dyn Directory, request: v1::LookUp) -> Result<v1::Profile, QueryError> {
    let facts = match request.by {
        Some(By::Handle(handle)) => directory.look_up(handle).await?,
        Some(By::Account(bytes)) => {
            let account = AccountId::try_from(&bytes[..]);
            directory.facts(account.map_err(|error| QueryError::Malformed(error.to_string()))?).await?
        }
        None => {
            return Err(QueryError::Malformed("look up needs a handle or an account".to_owned()));
        }
    };
    let facts = facts.ok_or(QueryError::UnknownAccount)?;
    Ok(v1::Profile { account: facts.account.to_bytes(), handle: facts.handle })
}

#[cfg(test)]
mod tests {
    use quail_core::ports::directory::{NewAccount, NewDevice, TwinDirectory};
    use quail_protocol::id::DeviceId;
    use quail_protocol::v1::Reason;

    use super::*;

    async fn with_ada() -> TwinDirectory {
        let directory = TwinDirectory::new();
        let ada = NewAccount {
            account: AccountId([1; 16]),
            handle: "ada".to_owned(),
            password_hash: "hash".to_owned(),
            invite_hash: None,
            device: NewDevice {
                device: DeviceId([1; 16]),
                name: String::new(),
                platform: String::new(),
                token_hash: [1; 32],
            },
        };
        directory.create_account(ada, 0).await.unwrap();
        directory
    }

    fn by_handle(handle: &str) -> v1::LookUp {
        v1::LookUp { by: Some(By::Handle(handle.to_owned())) }
    }

    fn by_account(account: &'static [u8]) -> v1::LookUp {
        v1::LookUp { by: Some(By::Account(account.into())) }
    }

    #[tokio::test]
    async fn an_account_is_found_by_handle_and_by_id() {
        let directory = with_ada().await;
        let profile = v1::Profile { account: vec![1; 16].into(), handle: "ada".to_owned() };
        assert_eq!(look_up(&directory, by_handle("ada")).await, Ok(profile.clone()));
        assert_eq!(look_up(&directory, by_account(&[1; 16])).await, Ok(profile));
    }

    #[tokio::test]
    async fn nobody_is_one_answer() {
        let directory = with_ada().await;
        for request in [by_handle("bob"), by_handle("not a handle"), by_handle(""), by_account(&[2; 16])] {
            assert_eq!(look_up(&directory, request).await, Err(QueryError::UnknownAccount));
        }
    }

    #[tokio::test]
    async fn a_question_without_sense_is_malformed() {
        let directory = with_ada().await;
        let short = look_up(&directory, by_account(&[1; 15])).await.unwrap_err().to_error();
        assert_eq!(short.reason(), Reason::Malformed);
        assert_eq!(short.text, "account id must be 16 bytes, not 15");
        let nothing = look_up(&directory, v1::LookUp { by: None }).await.unwrap_err().to_error();
        assert_eq!(nothing.reason(), Reason::Malformed);
    }
}
