//! Checks of accounts: origins, handles, invites, and who is not there.

use super::{NOW_MS, account, device, new_account, new_device, sign_up, token};
use crate::ports::directory::{AccountFacts, Credentials, Directory, DirectoryError, NewAccount, NewDevice};

/// Two data directories never share a number, and zero is nobody's.
pub async fn origins_are_distinct(directory: &dyn Directory) {
    let mut origins = Vec::new();
    for _ in 0..3 {
        origins.push(directory.register_origin(NOW_MS).await.unwrap().0);
    }
    assert!(!origins.contains(&0), "zero is no origin");
    assert!(origins.windows(2).all(|pair| pair[0] < pair[1]), "origins rise: {origins:?}");
}

/// What was created is what is found.
pub async fn an_account_is_found_by_handle_and_by_id(directory: &dyn Directory) {
    let facts = sign_up(directory, 1, "ada").await;
    let expected = AccountFacts {
        account: account(1),
        handle: "ada".to_owned(),
        version: 1,
        read_receipts: true,
        devices: vec![device(1)],
    };
    assert_eq!(facts, expected);
    assert_eq!(directory.facts(account(1)).await, Ok(Some(expected.clone())));
    assert_eq!(directory.look_up("ada".to_owned()).await, Ok(Some(expected)));

    let expected = Credentials {
        account: account(1),
        handle: "ada".to_owned(),
        password_hash: "first of ada".to_owned(),
    };
    assert_eq!(directory.credentials("ada".to_owned()).await, Ok(Some(expected.clone())));
    assert_eq!(directory.credentials_of(account(1)).await, Ok(Some(expected)));
}

/// A handle that is taken is refused and stays with its account.
pub async fn a_handle_has_one_account(directory: &dyn Directory) {
    sign_up(directory, 1, "ada").await;
    let refused = directory.create_account(new_account(2, "ada"), NOW_MS).await;
    assert_eq!(refused, Err(DirectoryError::HandleTaken));
    assert_eq!(directory.facts(account(2)).await, Ok(None), "a refused command changes nothing");
    assert_eq!(directory.look_up("ada".to_owned()).await.unwrap().unwrap().account, account(1));
}

/// An invite that is given must be open, and is used up; without one no invite is asked for.
pub async fn an_invite_is_good_for_one_account(directory: &dyn Directory) {
    let invited = |seed, handle: &str| NewAccount { invite_hash: Some([7; 32]), ..new_account(seed, handle) };
    let unknown = directory.create_account(invited(1, "ada"), NOW_MS).await;
    assert_eq!(unknown, Err(DirectoryError::InviteInvalid));

    directory.create_invite([7; 32], NOW_MS).await.unwrap();
    directory.create_account(invited(1, "ada"), NOW_MS).await.unwrap();
    let used = directory.create_account(invited(2, "bob"), NOW_MS).await;
    assert_eq!(used, Err(DirectoryError::InviteInvalid));
    let issued_again = directory.create_invite([7; 32], NOW_MS).await;
    assert!(matches!(issued_again, Err(DirectoryError::Duplicate { .. })), "{issued_again:?}");

    directory.create_account(new_account(2, "bob"), NOW_MS).await.unwrap();
}

/// Whoever chose a taken handle may try another one with the same invite. Without a good invite nobody is told which
/// handles are taken.
pub async fn a_refused_sign_up_keeps_its_invite(directory: &dyn Directory) {
    sign_up(directory, 1, "ada").await;
    directory.create_invite([7; 32], NOW_MS).await.unwrap();
    let invited = |invite, handle: &str| NewAccount { invite_hash: Some(invite), ..new_account(2, handle) };
    let taken = directory.create_account(invited([7; 32], "ada"), NOW_MS).await;
    assert_eq!(taken, Err(DirectoryError::HandleTaken));
    let stranger = directory.create_account(invited([8; 32], "ada"), NOW_MS).await;
    assert_eq!(stranger, Err(DirectoryError::InviteInvalid));
    directory.create_account(invited([7; 32], "bob"), NOW_MS).await.unwrap();
}

/// Ids and token hashes that exist already are refused, whole.
pub async fn what_should_be_random_is_never_taken_twice(directory: &dyn Directory) {
    let is_duplicate = |result: &Result<AccountFacts, DirectoryError>| {
        matches!(result, Err(DirectoryError::Duplicate { .. }))
    };
    let ada = sign_up(directory, 1, "ada").await;
    let same_account = NewAccount { account: account(1), ..new_account(2, "bob") };
    let result = directory.create_account(same_account, NOW_MS).await;
    assert!(is_duplicate(&result), "{result:?}");
    let same_token = NewDevice { token_hash: token(1), ..new_device(2) };
    let same_device = NewDevice { device: device(1), ..new_device(2) };
    for twice in [same_token, same_device] {
        let result = directory.add_device(account(1), twice.clone(), "first of ada".to_owned(), NOW_MS).await;
        assert!(is_duplicate(&result), "{result:?}");
        let result =
            directory.create_account(NewAccount { device: twice, ..new_account(2, "bob") }, NOW_MS).await;
        assert!(is_duplicate(&result), "{result:?}");
    }
    assert_eq!(directory.facts(account(1)).await, Ok(Some(ada)), "a refused command changes nothing");
    assert_eq!(directory.look_up("bob".to_owned()).await, Ok(None));
}

/// Questions about nobody find nothing; commands for nobody are refused.
pub async fn an_unknown_account_is_unknown_everywhere(directory: &dyn Directory) {
    sign_up(directory, 1, "ada").await;
    let hash = || "first of ada".to_owned();
    assert_eq!(directory.facts(account(9)).await, Ok(None));
    assert_eq!(directory.look_up("bob".to_owned()).await, Ok(None));
    assert_eq!(directory.credentials("bob".to_owned()).await, Ok(None));
    assert_eq!(directory.credentials_of(account(9)).await, Ok(None));
    let unknown = Err(DirectoryError::UnknownAccount);
    assert_eq!(directory.add_device(account(9), new_device(2), hash(), NOW_MS).await, unknown);
    assert_eq!(directory.remove_device(account(9), device(1), NOW_MS).await, unknown);
    assert_eq!(directory.change_password(account(9), device(1), hash(), hash(), NOW_MS).await, unknown);
    assert_eq!(directory.session(token(2)).await, Ok(None));
}
