//! What the tests of the directory commands share: services on a directory in memory, and well-formed requests.

use std::sync::Arc;

use quail_core::ports::directory::TwinDirectory;
use quail_protocol::v1;

use super::{DirectoryService, SignUpPolicy, invites, tokens};

/// The time of every command; nothing here depends on it.
pub(super) const NOW_MS: u64 = 1_720_000_000_000;

/// The password of every account that [`sign_up`] asks for.
pub(super) const PASSWORD: &str = "correct horse battery staple";

pub(super) fn service(policy: SignUpPolicy) -> DirectoryService {
    DirectoryService::new(Arc::new(TwinDirectory::new()), policy)
}

pub(super) fn open_service() -> DirectoryService {
    service(SignUpPolicy::Open)
}

pub(super) fn sign_up(handle: &str) -> v1::SignUp {
    v1::SignUp {
        handle: handle.to_owned(),
        password: PASSWORD.to_owned(),
        device_name: "phone".to_owned(),
        ..Default::default()
    }
}

pub(super) fn log_in(handle: &str, password: &str) -> v1::LogIn {
    v1::LogIn {
        handle: handle.to_owned(),
        password: password.to_owned(),
        device_name: "laptop".to_owned(),
        ..Default::default()
    }
}

/// Issues an invite and returns its code.
pub(super) async fn invite(service: &DirectoryService) -> String {
    let code = invites::draw().unwrap();
    service.port.create_invite(tokens::invite_hash(&code), NOW_MS).await.unwrap();
    code
}
