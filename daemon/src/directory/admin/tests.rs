//! The operator's commands on a directory in memory, seen from both doors.

use quail_core::ports::directory::{Administration, TwinDirectory};
use quail_protocol::v1;

use super::super::testing::{NOW_MS, PASSWORD, log_in, sign_up};
use super::super::{Refusal, SignUpPolicy};
use super::*;

fn services(policy: SignUpPolicy) -> (AdminService, DirectoryService) {
    let port: Arc<dyn Administration> = Arc::new(TwinDirectory::new());
    let service = DirectoryService::new(port.clone(), policy);
    (AdminService::new(port, &service), service)
}

fn handles(handles: &[&str]) -> Vec<String> {
    handles.iter().map(|handle| (*handle).to_owned()).collect()
}

#[tokio::test]
async fn a_created_account_has_its_session_and_no_password() {
    let (admin, service) = services(SignUpPolicy::Closed);
    let created = admin.create_accounts(handles(&["ada", "bob"]), true, NOW_MS).await.unwrap();
    for (created, handle) in created.iter().zip(["ada", "bob"]) {
        let session = created.session.as_ref().unwrap();
        assert_eq!(service.resume(&session.token).await, Ok(session.session.clone()));
        assert_eq!((created.facts.handle.as_str(), &created.facts), (handle, &session.facts));
        for password in [PASSWORD, NO_PASSWORD, "00000000"] {
            let refused = service.log_in(log_in(handle, password), NOW_MS).await;
            assert_eq!(refused, Err(Refusal::WrongCredentials));
        }
    }
    let bare = admin.create_accounts(handles(&["cyd"]), false, NOW_MS).await.unwrap();
    assert!(bare[0].session.is_none() && bare[0].facts.devices.is_empty());
    admin.reset_password("cyd".to_owned(), Some(PASSWORD.to_owned()), false).await.unwrap();
    service.log_in(log_in("cyd", PASSWORD), NOW_MS).await.unwrap();
}

#[tokio::test]
async fn a_bad_handle_is_named_and_nothing_is_created() {
    let (admin, service) = services(SignUpPolicy::Open);
    service.sign_up(sign_up("ada"), NOW_MS).await.unwrap();
    let create = |list: &[&str]| admin.create_accounts(handles(list), true, NOW_MS);
    let error = create(&["bob", "Bob"]).await.unwrap_err();
    assert_eq!(error, AdminError::HandleInvalid { handle: "Bob".to_owned() });
    assert!(error.to_string().contains("\"Bob\" is no handle"), "{error}");
    assert_eq!(create(&["bob", "bob"]).await, Err(AdminError::HandleTwice { handle: "bob".to_owned() }));
    assert_eq!(create(&["bob", "ada"]).await, Err(AdminError::HandlesTaken { handles: handles(&["ada"]) }));
    let many = (0..=CREATE_ACCOUNTS_MAX).map(|number| format!("a{number:03}")).collect();
    assert_eq!(admin.create_accounts(many, false, NOW_MS).await, Err(AdminError::TooMany));
    let listed = admin.accounts(String::new(), u32::MAX).await.unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
}

#[tokio::test]
async fn a_disabled_account_is_told_what_strangers_are_told() {
    let (admin, service) = services(SignUpPolicy::Open);
    let granted = service.sign_up(sign_up("ada"), NOW_MS).await.unwrap();
    let facts = admin.set_disabled("ada".to_owned(), true, NOW_MS).await.unwrap();
    assert!(facts.version > granted.facts.version && facts.devices.is_empty());
    assert_eq!(service.resume(&granted.token).await, Err(Refusal::Unauthenticated));
    let answers = [
        service.log_in(log_in("ada", PASSWORD), NOW_MS).await.unwrap_err().to_error(),
        service.log_in(log_in("bob", PASSWORD), NOW_MS).await.unwrap_err().to_error(),
    ];
    assert_eq!(answers[0], answers[1]);
    admin.set_disabled("ada".to_owned(), false, NOW_MS).await.unwrap();
    service.log_in(log_in("ada", PASSWORD), NOW_MS).await.unwrap();
}

#[tokio::test]
async fn a_reset_password_is_given_or_drawn() {
    let (admin, service) = services(SignUpPolicy::Open);
    let first = service.sign_up(sign_up("ada"), NOW_MS).await.unwrap();
    let reset = |password: Option<&str>, keeps| {
        admin.reset_password("ada".to_owned(), password.map(str::to_owned), keeps)
    };
    assert_eq!(reset(Some("short"), true).await, Err(AdminError::PasswordInvalid));
    let (facts, drawn) = reset(Some("another password"), true).await.unwrap();
    assert_eq!((facts, drawn), (first.facts, None));
    assert_eq!(service.resume(&first.token).await, Ok(first.session));
    let (facts, drawn) = reset(None, false).await.unwrap();
    assert_eq!(facts.devices, []);
    assert_eq!(service.resume(&first.token).await, Err(Refusal::Unauthenticated));
    let drawn = drawn.unwrap();
    assert_ne!(reset(None, false).await.unwrap().1, Some(drawn.clone()));
    let (_, drawn) = reset(None, false).await.unwrap();
    service.log_in(log_in("ada", &drawn.unwrap()), NOW_MS).await.unwrap();
}

#[tokio::test]
async fn only_a_device_of_the_account_is_unlinked() {
    let (admin, service) = services(SignUpPolicy::Open);
    let ada = service.sign_up(sign_up("ada"), NOW_MS).await.unwrap();
    let bob = service.sign_up(sign_up("bob"), NOW_MS).await.unwrap();
    let unlink = async |device: &str| admin.unlink_device("ada".to_owned(), device, NOW_MS).await;
    for device in ["", "phone", &bob.session.device.to_string()] {
        let error = unlink(device).await.unwrap_err();
        assert!(matches!(error, AdminError::UnknownDevice { .. }), "{error}");
    }
    let listed = admin.devices("ada".to_owned()).await.unwrap();
    assert_eq!((listed[0].device, listed[0].name.as_str()), (ada.session.device, "phone"));
    let facts = unlink(&ada.session.device.to_string()).await.unwrap();
    assert_eq!(facts.devices, []);
    assert_eq!(service.resume(&ada.token).await, Err(Refusal::Unauthenticated));
    assert_eq!(service.resume(&bob.token).await, Ok(bob.session));
    let unknown = AdminError::UnknownHandle { handle: "eve".to_owned() };
    assert_eq!(admin.devices("eve".to_owned()).await, Err(unknown.clone()));
    assert_eq!(admin.set_disabled("eve".to_owned(), true, NOW_MS).await, Err(unknown));
}

#[tokio::test]
async fn an_invite_is_revoked_by_its_code_or_its_id() {
    let (admin, service) = services(SignUpPolicy::Invite);
    let (by_code, by_id) =
        (admin.create_invite(NOW_MS).await.unwrap(), admin.create_invite(NOW_MS).await.unwrap());
    assert_eq!(admin.revoke_invite(&format!(" {} ", by_code.to_lowercase())).await, Ok(()));
    assert_eq!(admin.revoke_invite(&by_code).await, Err(AdminError::UnknownInvite));
    let listed = admin.invites([0; 32]).await.unwrap();
    let id: String =
        listed[0].invite_hash[..INVITE_ID_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(admin.revoke_invite(&id).await, Ok(()));
    for nothing in ["", "0123456789abcdef", &"x".repeat(1000), &id] {
        assert_eq!(admin.revoke_invite(nothing).await, Err(AdminError::UnknownInvite), "{nothing}");
    }
    for code in [by_code, by_id] {
        let request = v1::SignUp { invite: code, ..sign_up("ada") };
        assert_eq!(service.sign_up(request, NOW_MS).await, Err(Refusal::InviteInvalid));
    }
}

#[tokio::test]
async fn debug_output_shows_no_token() {
    let (admin, _) = services(SignUpPolicy::Open);
    let created = admin.create_accounts(handles(&["ada"]), true, NOW_MS).await.unwrap();
    let shown = format!("{created:?} {admin:?}");
    assert!(shown.contains("ada") && !shown.to_lowercase().contains("token"), "{shown}");
}
