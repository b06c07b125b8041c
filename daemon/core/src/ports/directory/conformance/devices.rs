//! Checks of devices: their number, their sessions, and the version that tells of their changes.

use quail_protocol::limits::DEVICES_MAX;

use super::{NOW_MS, account, device, log_in, new_device, sign_up, token};
use crate::ports::directory::{AccountFacts, Directory, DirectoryError, SessionFacts};

/// The last device that is allowed gets in, one more does not, and logging one out makes room.
pub async fn devices_are_limited(directory: &dyn Directory) {
    sign_up(directory, 1, "ada").await;
    for seed in 2..=DEVICES_MAX as u8 {
        log_in(directory, 1, "ada", seed).await;
    }
    let add = |seed| directory.add_device(account(1), new_device(seed), "first of ada".to_owned(), NOW_MS);
    assert_eq!(add(99).await, Err(DirectoryError::DeviceLimit));
    assert_eq!(directory.session(token(99)).await, Ok(None));
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

/// Each token finds its own device, as often as it is asked.
pub async fn a_token_opens_the_session_of_its_device(directory: &dyn Directory) {
    sign_up(directory, 1, "ada").await;
    log_in(directory, 1, "ada", 2).await;
    sign_up(directory, 3, "bob").await;
    for _ in 0..2 {
        for (seed, owner, handle) in [(1, 1, "ada"), (2, 1, "ada"), (3, 3, "bob")] {
            let expected =
                SessionFacts { account: account(owner), device: device(seed), handle: handle.to_owned() };
            assert_eq!(directory.session(token(seed)).await, Ok(Some(expected)));
        }
        assert_eq!(directory.session(token(9)).await, Ok(None));
    }
    assert_eq!(directory.facts(account(1)).await.unwrap().unwrap().version, 2, "a use changes no facts");
}

/// Logging a device out ends its session at once and no other.
pub async fn a_removed_device_has_no_session(directory: &dyn Directory) {
    sign_up(directory, 1, "ada").await;
    log_in(directory, 1, "ada", 2).await;
    let facts = directory.remove_device(account(1), device(1), NOW_MS).await.unwrap();
    assert_eq!(facts.devices, [device(2)]);
    assert_eq!(directory.session(token(1)).await, Ok(None));
    assert!(directory.session(token(2)).await.unwrap().is_some());

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
    assert!(directory.session(token(1)).await.unwrap().is_some());
}

/// One device logs another out, or itself; what is no device of the account is as good as removed.
pub async fn a_device_unlinks_those_of_its_account(directory: &dyn Directory) {
    sign_up(directory, 1, "ada").await;
    log_in(directory, 1, "ada", 2).await;
    let before = log_in(directory, 1, "ada", 3).await;
    let bob = sign_up(directory, 4, "bob").await;
    let unlink = |by, seed| directory.unlink_device(account(1), device(by), device(seed));
    for nothing in [4, 99] {
        assert_eq!(unlink(1, nothing).await, Ok(before.clone()), "no device of ada's");
    }
    assert_eq!(directory.facts(account(4)).await, Ok(Some(bob)));

    let facts = unlink(1, 2).await.unwrap();
    assert_eq!(
        facts,
        AccountFacts { version: before.version + 1, devices: vec![device(3), device(1)], ..before }
    );
    assert_eq!(directory.session(token(2)).await, Ok(None));
    assert_eq!(unlink(1, 2).await, Ok(facts), "a second time changes nothing");
    assert_eq!(unlink(1, 1).await.unwrap().devices, [device(3)]);
    assert_eq!(directory.session(token(1)).await, Ok(None));
}

/// Who is not logged in any more, or never was with this account, logs nobody out.
pub async fn a_device_that_is_gone_unlinks_nobody(directory: &dyn Directory) {
    sign_up(directory, 1, "ada").await;
    log_in(directory, 1, "ada", 2).await;
    sign_up(directory, 3, "bob").await;
    let before = directory.remove_device(account(1), device(2), NOW_MS).await.unwrap();
    for by in [2, 3, 99] {
        let refused = directory.unlink_device(account(1), device(by), device(1)).await;
        assert_eq!(refused, Err(DirectoryError::UnknownDevice));
    }
    assert_eq!(directory.facts(account(1)).await, Ok(Some(before)));
    let nobody = directory.unlink_device(account(9), device(1), device(1)).await;
    assert!(
        matches!(nobody, Err(DirectoryError::UnknownAccount | DirectoryError::UnknownDevice)),
        "{nobody:?}"
    );
}

/// The list has each device's name, platform and times, the oldest first, and nobody else's.
pub async fn devices_are_listed_in_the_order_of_their_log_ins(directory: &dyn Directory) {
    sign_up(directory, 1, "ada").await;
    for (seed, created_ms) in [(2, NOW_MS + 5), (3, NOW_MS + 2), (4, NOW_MS + 5)] {
        let added =
            directory.add_device(account(1), new_device(seed), "first of ada".to_owned(), created_ms).await;
        added.unwrap();
    }
    sign_up(directory, 9, "bob").await;
    let listed = directory.devices(account(1)).await.unwrap();
    let shown: Vec<_> = listed
        .iter()
        .map(|one| {
            (one.device, &*one.name, &*one.platform, one.created_ms - NOW_MS, one.last_seen_ms - NOW_MS)
        })
        .collect();
    let expected = [
        (device(1), "device 1", "platform 1", 0, 0),
        (device(3), "device 3", "platform 3", 2, 2),
        // Logged in within one millisecond; the ids decide.
        (device(4), "device 4", "platform 4", 5, 5),
        (device(2), "device 2", "platform 2", 5, 5),
    ];
    assert_eq!(shown, expected);
    assert_eq!(directory.devices(account(99)).await, Ok(Vec::new()), "nobody has no devices");
}

/// The latest record counts, whatever the order; those who are gone are passed over; no facts change.
pub async fn a_device_was_seen_when_it_was_recorded_last(directory: &dyn Directory) {
    sign_up(directory, 1, "ada").await;
    let facts = log_in(directory, 1, "ada", 2).await;
    sign_up(directory, 3, "bob").await;
    directory.record_seen(Vec::new()).await.unwrap();
    let seen = [(1, 70), (99, 80), (3, 90), (2, 50), (2, 40)].map(|(seed, at)| (device(seed), NOW_MS + at));
    directory.record_seen(seen.to_vec()).await.unwrap();
    // A clock that was set back does not undo a record.
    directory.record_seen(vec![(device(1), NOW_MS + 60), (device(2), NOW_MS - 1)]).await.unwrap();
    let seen = async |owner| {
        let listed = directory.devices(account(owner)).await.unwrap();
        listed.iter().map(|one| (one.device, one.last_seen_ms - NOW_MS)).collect::<Vec<_>>()
    };
    assert_eq!(seen(1).await, [(device(2), 50), (device(1), 70)]);
    assert_eq!(seen(3).await, [(device(3), 90)]);
    assert_eq!(directory.facts(account(1)).await, Ok(Some(facts)), "being seen changes no facts");
}
