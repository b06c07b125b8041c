//! Log in: one more device of an account that exists.

use quail_core::ports::directory::DirectoryError;
use quail_protocol::{text, v1};

use super::tokens::Token;
use super::{DirectoryService, Granted, Refusal, new_device};

impl DirectoryService {
    /// Logs a new device in.
    ///
    /// # Errors
    /// `MALFORMED`, `WRONG_CREDENTIALS`, `DEVICE_LIMIT`, `BUSY`, `DIRECTORY_UNAVAILABLE`, `INTERNAL`.
    pub async fn log_in(&self, request: v1::LogIn, now_ms: u64) -> Result<Granted, Refusal> {
        let token = Token::draw()?;
        let device = new_device(&request.device_name, request.platform, &token)?;
        let id = device.device;
        // Nobody has such a password, so this tells nothing of any handle.
        if !text::is_password(&request.password) {
            return Err(Refusal::WrongCredentials);
        }
        let credentials = self.port.credentials(request.handle).await?;
        let expected = credentials.as_ref().map(|credentials| credentials.password_hash.clone());
        // The password is hashed before the handle is known to be wrong, or the time taken would tell.
        let is_right = self.passwords.verify(request.password, expected).await?;
        let credentials = credentials.filter(|_| is_right).ok_or(Refusal::WrongCredentials)?;

        let added =
            self.port.add_device(credentials.account, device, credentials.password_hash, now_ms).await;
        let facts = added.map_err(|error| match error {
            DirectoryError::UnknownAccount => Refusal::WrongCredentials,
            other => other.into(),
        })?;
        Ok(Granted::new(&token, id, facts))
    }
}

#[cfg(test)]
mod tests {
    use quail_protocol::limits::{DEVICES_MAX, PLATFORM_BYTES_MAX};

    use super::super::passwords::PasswordPool;
    use super::super::testing::{NOW_MS, PASSWORD, log_in, open_service, sign_up};
    use super::*;

    #[tokio::test]
    async fn the_right_password_opens_a_session_of_its_own() {
        let service = open_service();
        let first = service.sign_up(sign_up("ada"), NOW_MS).await.unwrap();
        let second = service.log_in(log_in("ada", PASSWORD), NOW_MS).await.unwrap();
        assert_ne!(first.token, second.token);
        assert_ne!(first.session.device, second.session.device);
        assert_eq!(first.session.account, second.session.account);
        assert!(first.facts.version < second.facts.version);
        assert_eq!(second.facts.devices.len(), 2);
        for granted in [first, second] {
            assert_eq!(service.resume(&granted.token).await, Ok(granted.session));
        }
    }

    #[tokio::test]
    async fn a_wrong_password_and_an_unknown_handle_are_one_answer() {
        let service = open_service();
        service.sign_up(sign_up("ada"), NOW_MS).await.unwrap();
        let mut answers = Vec::new();
        for request in [
            log_in("ada", "not the password"),
            log_in("bob", PASSWORD),
            log_in("not a handle", PASSWORD),
            log_in("ada", ""),
            log_in("bob", ""),
        ] {
            answers.push(service.log_in(request, NOW_MS).await.unwrap_err().to_error());
        }
        assert_eq!(answers[0], Refusal::WrongCredentials.to_error());
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    }

    #[tokio::test]
    async fn a_full_pool_is_busy_whether_or_not_the_handle_exists() {
        let service = open_service();
        service.sign_up(sign_up("ada"), NOW_MS).await.unwrap();
        let full = DirectoryService { passwords: PasswordPool::new(0), ..service };
        for request in [log_in("ada", PASSWORD), log_in("ada", "not the password"), log_in("bob", PASSWORD)] {
            assert_eq!(full.log_in(request, NOW_MS).await, Err(Refusal::Busy));
        }
        assert_eq!(full.sign_up(sign_up("bob"), NOW_MS).await, Err(Refusal::Busy));
    }

    #[tokio::test]
    async fn a_platform_that_is_none_is_refused_before_the_password_is_looked_at() {
        let service = open_service();
        let granted = service.sign_up(sign_up("ada"), NOW_MS).await.unwrap();
        let full = DirectoryService { passwords: PasswordPool::new(0), ..service.clone() };
        for platform in ["x".repeat(PLATFORM_BYTES_MAX + 1), "\u{1b}[2J".to_owned(), "a\0".to_owned()] {
            let (wrong, right) = (log_in("ada", "not the password"), log_in("ada", PASSWORD));
            for request in [wrong, right] {
                let refused = full.log_in(v1::LogIn { platform: platform.clone(), ..request }, NOW_MS).await;
                assert_eq!(refused, Err(Refusal::PlatformInvalid));
            }
            let refused = full.sign_up(v1::SignUp { platform, ..sign_up("bob") }, NOW_MS).await.unwrap_err();
            assert_eq!(refused.reason(), v1::Reason::Malformed);
            assert!(refused.to_error().text.contains("platform"), "the programmer is told what is wrong");
        }
        let request = v1::LogIn { platform: "x".repeat(PLATFORM_BYTES_MAX), ..log_in("ada", PASSWORD) };
        service.log_in(request, NOW_MS).await.unwrap();
        let listed = service.port.devices(granted.session.account).await.unwrap();
        let mut platforms: Vec<_> = listed.iter().map(|device| device.platform.len()).collect();
        platforms.sort_unstable();
        assert_eq!(platforms, [0, PLATFORM_BYTES_MAX]);
    }

    #[tokio::test]
    async fn only_the_owner_learns_that_there_are_too_many_devices() {
        let service = open_service();
        service.sign_up(sign_up("ada"), NOW_MS).await.unwrap();
        for _ in 1..DEVICES_MAX {
            service.log_in(log_in("ada", PASSWORD), NOW_MS).await.unwrap();
        }
        let owner = service.log_in(log_in("ada", PASSWORD), NOW_MS).await;
        assert_eq!(owner, Err(Refusal::DeviceLimit));
        let stranger = service.log_in(log_in("ada", "not the password"), NOW_MS).await;
        assert_eq!(stranger, Err(Refusal::WrongCredentials));
    }
}
