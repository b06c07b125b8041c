//! Checks of what an account lets others know.

use super::{NOW_MS, account, device, log_in, sign_up};
use crate::ports::directory::{AccountFacts, Directory, DirectoryError};

/// The setting is told with the facts, its changes raise their version, and saying the same again changes nothing.
pub async fn read_receipts_are_on_until_a_device_turns_them_off(directory: &dyn Directory) {
    let first = sign_up(directory, 1, "ada").await;
    assert!(first.read_receipts, "on at first");
    let set = |on| directory.set_privacy(account(1), device(1), on);
    assert_eq!(set(true).await, Ok(first.clone()), "on is on");
    let off = AccountFacts { version: first.version + 1, read_receipts: false, ..first };
    assert_eq!(set(false).await, Ok(off.clone()));
    assert_eq!(set(false).await, Ok(off.clone()), "off is off");
    assert_eq!(directory.facts(account(1)).await, Ok(Some(off.clone())));
    assert_eq!(directory.look_up("ada".to_owned()).await, Ok(Some(off.clone())));
    let logged_in = log_in(directory, 1, "ada", 2).await;
    assert_eq!((logged_in.read_receipts, logged_in.version), (false, off.version + 1));
    assert!(set(true).await.unwrap().version > logged_in.version);
}

/// Who is not logged in any more, or never was with this account, changes nothing.
pub async fn a_device_that_is_gone_changes_no_privacy(directory: &dyn Directory) {
    sign_up(directory, 1, "ada").await;
    log_in(directory, 1, "ada", 2).await;
    sign_up(directory, 3, "bob").await;
    let before = directory.remove_device(account(1), device(2), NOW_MS).await.unwrap();
    for by in [2, 3, 99] {
        let refused = directory.set_privacy(account(1), device(by), false).await;
        assert_eq!(refused, Err(DirectoryError::UnknownDevice));
    }
    assert_eq!(directory.facts(account(1)).await, Ok(Some(before)));
    let nobody = directory.set_privacy(account(9), device(1), false).await;
    assert_eq!(nobody, Err(DirectoryError::UnknownDevice));
}
