//! Checks of devices: their number, their sessions, and the version that tells of their changes.

use quail_protocol::limits::DEVICES_MAX;

use super::{NOW_MS, account, device, log_in, new_device, sign_up, token};
use crate::ports::directory::{Directory, DirectoryError, LAST_USE_PRECISION, SessionFacts};

/// The last device that is allowed gets in, one more does not, and logging one out makes room.
pub async fn devices_are_limited(directory: &dyn Directory) {
    sign_up(directory, 1, "ada").await;
    for seed in 2..=DEVICES_MAX as u8 {
        log_in(directory, 1, "ada", seed).await;
    }
    let add = |seed| directory.add_device(account(1), new_device(seed), "first of ada".to_owned(), NOW_MS);
    assert_eq!(add(99).await, Err(DirectoryError::DeviceLimit));
    assert_eq!(directory.session(token(99), NOW_MS).await, Ok(None));
    directory.remove_device(account(1), device(1), NOW_MS).await.unwrap();
    let facts = add(99).await.unwrap();
    assert_eq!(facts.devices.len(), DEVICES_MAX);
    assert!(facts.devices.is_sorted(), "devices are sorted");
}

/// Log in, log out and a new password that ends sessions raise the version; nothing else does.
pub async fn every_change_of_the_devices_raises_the_version(directory: &dyn Directory) {
    let mut versions = vec![sign_up(directory, 1, "ada").await.version];
    versions.push(log_in(directory, 1, "ada", 2).await.version);
    versions.push(log_in(directory, 1, "ada", 3).await.version);
    versions.push(directory.remove_device(account(1), device(2), NOW_MS).await.unwrap().version);
    let change = |old: &str, new: &str| {
        directory.change_password(account(1), device(1), old.to_owned(), new.to_owned(), NOW_MS)
    };
    versions.push(change("first of ada", "second").await.unwrap().version);
    assert!(versions.windows(2).all(|pair| pair[0] < pair[1]), "versions rise: {versions:?}");

    // No other session is left to end, so the device list stays as it is.
    let last = change("second", "third").await.unwrap();
    assert_eq!(versions.last(), Some(&last.version));
    assert_eq!(directory.facts(account(1)).await, Ok(Some(last)));
}

/// Each token finds its own device, now and after the use has become old enough to be recorded again.
pub async fn a_token_opens_the_session_of_its_device(directory: &dyn Directory) {
    sign_up(directory, 1, "ada").await;
    log_in(directory, 1, "ada", 2).await;
    sign_up(directory, 3, "bob").await;
    let precision_ms = LAST_USE_PRECISION.as_millis() as u64;
    for now_ms in [NOW_MS, NOW_MS + precision_ms, NOW_MS + 3 * precision_ms, NOW_MS - 1] {
        for (seed, owner, handle) in [(1, 1, "ada"), (2, 1, "ada"), (3, 3, "bob")] {
            let expected =
                SessionFacts { account: account(owner), device: device(seed), handle: handle.to_owned() };
            assert_eq!(directory.session(token(seed), now_ms).await, Ok(Some(expected)));
        }
        assert_eq!(directory.session(token(9), now_ms).await, Ok(None));
    }
    assert_eq!(directory.facts(account(1)).await.unwrap().unwrap().version, 2, "a use changes no facts");
}

/// Logging a device out ends its session at once and no other.
pub async fn a_removed_device_has_no_session(directory: &dyn Directory) {
    sign_up(directory, 1, "ada").await;
    log_in(directory, 1, "ada", 2).await;
    let facts = directory.remove_device(account(1), device(1), NOW_MS).await.unwrap();
    assert_eq!(facts.devices, [device(2)]);
    assert_eq!(directory.session(token(1), NOW_MS).await, Ok(None));
    assert!(directory.session(token(2), NOW_MS).await.unwrap().is_some());

    // The last device may go as well; the account stays and can log in again.
    let facts = directory.remove_device(account(1), device(2), NOW_MS).await.unwrap();
    assert_eq!(facts.devices, []);
    assert_eq!(directory.facts(account(1)).await, Ok(Some(facts)));
    assert_eq!(log_in(directory, 1, "ada", 3).await.devices, [device(3)]);
}

/// A second removal of a device answers as the first did.
pub async fn removing_again_changes_nothing(directory: &dyn Directory) {
    sign_up(directory, 1, "ada").await;
    log_in(directory, 1, "ada", 2).await;
    let first = directory.remove_device(account(1), device(2), NOW_MS).await.unwrap();
    let second = directory.remove_device(account(1), device(2), NOW_MS).await.unwrap();
    assert_eq!(first, second);
}

/// A device is removed only in the name of its own account.
pub async fn nobody_removes_the_device_of_another(directory: &dyn Directory) {
    let ada = sign_up(directory, 1, "ada").await;
    let bob = sign_up(directory, 2, "bob").await;
    assert_eq!(directory.remove_device(account(2), device(1), NOW_MS).await, Ok(bob));
    assert_eq!(directory.facts(account(1)).await, Ok(Some(ada)));
    assert!(directory.session(token(1), NOW_MS).await.unwrap().is_some());
}
