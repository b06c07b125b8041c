//! Checks of what only an operator may do: lists, batches, disabled accounts, passwords and invites of others.

use super::{NOW_MS, account, device, log_in, new_account, new_device, sign_up, token};
use crate::ports::directory::{Administration, DirectoryError, NewAccount, NewDevice, ProvidedAccount};

fn provided(seed: u8, handle: &str) -> ProvidedAccount {
    let password_hash = format!("first of {handle}");
    let device = Some(new_device(seed));
    ProvidedAccount { account: account(seed), handle: handle.to_owned(), password_hash, device }
}

/// Pages of the list follow each other without a gap, in the order of the handles' bytes.
pub async fn accounts_are_listed_by_handle_in_pages(directory: &dyn Administration) {
    assert_eq!(directory.accounts(String::new(), 10).await, Ok(Vec::new()));
    for (seed, handle) in [(1, "cyd"), (2, "ada"), (3, "bob"), (4, "ada.b")] {
        directory.create_account(new_account(seed, handle), NOW_MS + u64::from(seed)).await.unwrap();
    }
    log_in(directory, 3, "bob", 9).await;
    directory.set_disabled(account(1), true, NOW_MS).await.unwrap();
    let mut after = String::new();
    let mut listed = Vec::new();
    loop {
        let page = directory.accounts(after.clone(), 3).await.unwrap();
        assert!(page.len() <= 3);
        let Some(last) = page.last() else { break };
        after.clone_from(&last.handle);
        listed.extend(page);
    }
    let shown: Vec<_> = listed
        .iter()
        .map(|one| (one.handle.as_str(), one.account, one.created_ms - NOW_MS, one.is_disabled, one.devices))
        .collect();
    let expected = [
        ("ada", account(2), 2, false, 1),
        ("ada.b", account(4), 4, false, 1),
        ("bob", account(3), 3, false, 2),
        ("cyd", account(1), 1, true, 0),
    ];
    assert_eq!(shown, expected);
}

/// One handle that is taken, or stands twice, keeps the whole batch out and is named.
pub async fn a_batch_is_created_whole_or_not_at_all(directory: &dyn Administration) {
    sign_up(directory, 1, "ada").await;
    let batch = vec![provided(2, "bob"), provided(3, "ada"), provided(4, "cyd"), provided(5, "cyd")];
    let refused = directory.create_accounts(batch, NOW_MS).await;
    let handles = vec!["ada".to_owned(), "cyd".to_owned()];
    assert_eq!(refused, Err(DirectoryError::HandlesTaken { handles }));
    let same_device = ProvidedAccount { device: Some(new_device(2)), ..provided(3, "cyd") };
    let same_account = ProvidedAccount { account: account(2), ..provided(3, "cyd") };
    let device_of_another = ProvidedAccount { device: Some(new_device(1)), ..provided(3, "cyd") };
    for twice in [same_device, same_account, device_of_another] {
        let refused = directory.create_accounts(vec![provided(2, "bob"), twice], NOW_MS).await;
        assert!(matches!(refused, Err(DirectoryError::Duplicate { .. })), "{refused:?}");
    }
    assert_eq!(directory.look_up("bob".to_owned()).await, Ok(None), "a refused batch changes nothing");

    let bare = ProvidedAccount { device: None, ..provided(3, "cyd") };
    let facts = directory.create_accounts(vec![provided(2, "bob"), bare], NOW_MS).await.unwrap();
    let devices: Vec<_> = facts.iter().map(|facts| (facts.version, facts.devices.clone())).collect();
    assert_eq!(devices, [(1, vec![device(2)]), (1, vec![])]);
    for facts in facts {
        assert_eq!(directory.facts(facts.account).await, Ok(Some(facts)));
    }
    assert_eq!(directory.session(token(2)).await.unwrap().unwrap().handle, "bob");
    assert_eq!(log_in(directory, 3, "cyd", 6).await.devices, [device(6)]);
    assert_eq!(directory.create_accounts(Vec::new(), NOW_MS).await, Ok(Vec::new()));
}

/// Disabling ends every session and lets none be opened, until the account is enabled; devices do not come back.
pub async fn a_disabled_account_has_no_session_and_gets_none(directory: &dyn Administration) {
    let before = sign_up(directory, 1, "ada").await;
    sign_up(directory, 2, "bob").await;
    let facts = directory.set_disabled(account(1), true, NOW_MS).await.unwrap();
    assert_eq!(facts.devices, []);
    assert!(facts.version > before.version, "the devices have changed");
    assert_eq!(directory.session(token(1)).await, Ok(None));
    assert!(directory.session(token(2)).await.unwrap().is_some(), "others are not touched");
    let add = |seed| directory.add_device(account(1), new_device(seed), "first of ada".to_owned(), NOW_MS);
    assert_eq!(add(3).await, Err(DirectoryError::AccountDisabled));
    assert_eq!(directory.set_disabled(account(1), true, NOW_MS).await, Ok(facts.clone()));

    assert_eq!(directory.set_disabled(account(1), false, NOW_MS).await, Ok(facts.clone()));
    assert_eq!(directory.set_disabled(account(1), false, NOW_MS).await, Ok(facts.clone()));
    assert_eq!(directory.session(token(1)).await, Ok(None));
    let facts_after = add(3).await.unwrap();
    assert_eq!(facts_after.devices, [device(3)]);
    assert!(facts_after.version > facts.version);
}

/// The new password counts at once, the old one no more; sessions end unless they are to be kept.
pub async fn a_reset_password_ends_sessions_unless_they_are_kept(directory: &dyn Administration) {
    let before = sign_up(directory, 1, "ada").await;
    let reset = |hash: &str, keeps| directory.reset_password(account(1), hash.to_owned(), keeps);
    assert_eq!(reset("second", true).await, Ok(before.clone()));
    assert!(directory.session(token(1)).await.unwrap().is_some());
    let facts = reset("third", false).await.unwrap();
    assert_eq!(facts.devices, []);
    assert!(facts.version > before.version);
    assert_eq!(directory.session(token(1)).await, Ok(None));
    assert_eq!(directory.credentials_of(account(1)).await.unwrap().unwrap().password_hash, "third");
    let stale = directory.add_device(account(1), new_device(2), "second".to_owned(), NOW_MS).await;
    assert_eq!(stale, Err(DirectoryError::PasswordChanged));
    assert_eq!(reset("fourth", false).await, Ok(facts), "there is no device left to remove");
}

/// Open invites can be taken back, used ones have done their work.
pub async fn invites_are_listed_by_hash_and_revoked_while_open(directory: &dyn Administration) {
    for seed in [3, 1, 2] {
        directory.create_invite([seed; 32], NOW_MS + u64::from(seed)).await.unwrap();
    }
    let invited = NewAccount { invite_hash: Some([2; 32]), ..new_account(1, "ada") };
    directory.create_account(invited, NOW_MS).await.unwrap();
    let list = async |first, last, limit| {
        let listed = directory.invites([first; 32], [last; 32], limit).await.unwrap();
        let shown =
            listed.iter().map(|one| (one.invite_hash[0], one.created_ms - NOW_MS, one.used_by.clone()));
        shown.collect::<Vec<_>>()
    };
    let used_by = Some("ada".to_owned());
    let all = [(1, 1, None), (2, 2, used_by.clone()), (3, 3, None)];
    assert_eq!(list(0, 0xff, 10).await, all);
    assert_eq!(list(0, 0xff, 2).await, all[..2]);
    assert_eq!(list(2, 3, 10).await, all[1..]);
    assert_eq!(list(4, 0xff, 10).await, []);

    directory.revoke_invite([1; 32]).await.unwrap();
    for gone in [1, 2, 9] {
        assert_eq!(directory.revoke_invite([gone; 32]).await, Err(DirectoryError::InviteInvalid), "{gone}");
    }
    let revoked = NewAccount { invite_hash: Some([1; 32]), ..new_account(2, "bob") };
    assert_eq!(directory.create_account(revoked, NOW_MS).await, Err(DirectoryError::InviteInvalid));
    assert_eq!(list(0, 0xff, 10).await, all[1..]);
}

/// Commands for accounts that do not exist are refused, lists of theirs are empty.
pub async fn nobody_has_nothing_to_administer(directory: &dyn Administration) {
    let unknown = Err(DirectoryError::UnknownAccount);
    assert_eq!(directory.set_disabled(account(9), true, NOW_MS).await, unknown);
    assert_eq!(directory.set_disabled(account(9), false, NOW_MS).await, unknown);
    assert_eq!(directory.reset_password(account(9), "second".to_owned(), false).await, unknown);
    assert_eq!(directory.devices(account(9)).await, Ok(Vec::new()));
    let nobodys = NewDevice { device: device(1), ..new_device(1) };
    assert_eq!(directory.add_device(account(9), nobodys, String::new(), NOW_MS).await, unknown);
}
