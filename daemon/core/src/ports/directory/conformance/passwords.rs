//! Checks of passwords: what a new one ends, and what an old one no longer does.

use super::{NOW_MS, account, device, log_in, new_device, sign_up, token};
use crate::ports::directory::{Directory, DirectoryError};

/// A new password leaves only the device that set it, and only of that account.
pub async fn a_new_password_ends_every_other_session(directory: &dyn Directory) {
    sign_up(directory, 1, "ada").await;
    log_in(directory, 1, "ada", 2).await;
    log_in(directory, 1, "ada", 3).await;
    sign_up(directory, 4, "bob").await;
    let new = "second of ada".to_owned();
    let facts = directory
        .change_password(account(1), device(2), "first of ada".to_owned(), new.clone(), NOW_MS)
        .await
        .unwrap();
    assert_eq!(facts.devices, [device(2)]);
    for (seed, is_open) in [(1, false), (2, true), (3, false), (4, true)] {
        let session = directory.session(token(seed)).await.unwrap();
        assert_eq!(session.is_some(), is_open, "device {seed}");
    }
    assert_eq!(directory.credentials_of(account(1)).await.unwrap().unwrap().password_hash, new);
    directory.add_device(account(1), new_device(5), new, NOW_MS).await.unwrap();
}

/// A password that was checked before it was changed neither logs in nor changes the password once more.
pub async fn a_stale_password_opens_and_changes_nothing(directory: &dyn Directory) {
    let facts = sign_up(directory, 1, "ada").await;
    let stale = || "older than the first".to_owned();
    let log_in = directory.add_device(account(1), new_device(2), stale(), NOW_MS).await;
    assert_eq!(log_in, Err(DirectoryError::PasswordChanged));
    let change =
        directory.change_password(account(1), device(1), stale(), "second of ada".to_owned(), NOW_MS).await;
    assert_eq!(change, Err(DirectoryError::PasswordChanged));
    assert_eq!(directory.facts(account(1)).await, Ok(Some(facts)));
    let credentials = directory.credentials_of(account(1)).await.unwrap().unwrap();
    assert_eq!(credentials.password_hash, "first of ada");
}

/// What is asked in the name of a device that was logged out meanwhile is not done.
pub async fn a_removed_device_changes_no_password(directory: &dyn Directory) {
    sign_up(directory, 1, "ada").await;
    log_in(directory, 1, "ada", 2).await;
    let before = directory.remove_device(account(1), device(2), NOW_MS).await.unwrap();
    let change = directory
        .change_password(account(1), device(2), "first of ada".to_owned(), "second of ada".to_owned(), NOW_MS)
        .await;
    assert_eq!(change, Err(DirectoryError::UnknownDevice));
    assert_eq!(directory.facts(account(1)).await, Ok(Some(before)));
    let credentials = directory.credentials_of(account(1)).await.unwrap().unwrap();
    assert_eq!(credentials.password_hash, "first of ada");
}
