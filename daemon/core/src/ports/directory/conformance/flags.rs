//! Checks of how accounts want to see their conversations.

use super::{NOW_MS, account, device, sign_up};
use crate::ports::directory::{ConversationFlags, Directory, DirectoryError, FlagChange, FlagsByPeer};

const NOTHING: FlagChange = FlagChange { muted: None, pinned: None, put_away: None };

/// What is not said stays, each account has its own, and the facts of the account are not touched.
pub async fn flags_are_those_that_were_set_last(directory: &dyn Directory) {
    let ada = sign_up(directory, 1, "ada").await;
    sign_up(directory, 2, "bob").await;
    let set = |change| directory.set_conversation(account(1), device(1), account(2), change);
    let all =
        async || directory.conversation_flags(account(1), vec![account(1), account(2), account(9)]).await;
    assert_eq!(all().await, Ok(FlagsByPeer::new()));
    let muted = ConversationFlags { muted: true, ..ConversationFlags::default() };
    assert_eq!(set(FlagChange { muted: Some(true), ..NOTHING }).await, Ok(muted));
    let pinned = ConversationFlags { pinned: true, ..muted };
    assert_eq!(set(FlagChange { pinned: Some(true), ..NOTHING }).await, Ok(pinned));
    assert_eq!(set(NOTHING).await, Ok(pinned));
    assert_eq!(all().await, Ok(FlagsByPeer::from([(account(2), pinned)])));
    let away = ConversationFlags { put_away: true, ..ConversationFlags::default() };
    let change = FlagChange { muted: Some(false), pinned: Some(false), put_away: Some(true) };
    assert_eq!(set(change).await, Ok(away));
    assert_eq!(all().await, Ok(FlagsByPeer::from([(account(2), away)])));
    let others = directory.conversation_flags(account(2), vec![account(1)]).await;
    assert_eq!(others, Ok(FlagsByPeer::new()), "what ada set is not bob's");
    let own = directory.set_conversation(account(1), device(1), account(1), change).await;
    assert_eq!(own, Ok(away), "notes to oneself");
    assert_eq!(set(FlagChange { put_away: Some(false), ..NOTHING }).await, Ok(ConversationFlags::default()));
    assert_eq!(all().await, Ok(FlagsByPeer::from([(account(1), away)])), "what is not set is not there");
    assert_eq!(directory.conversation_flags(account(1), Vec::new()).await, Ok(FlagsByPeer::new()));
    assert_eq!(directory.facts(account(1)).await, Ok(Some(ada)));
}

/// Who is not logged in any more, or never was with this account, sets nothing; nor is anything kept of nobody.
pub async fn a_device_that_is_gone_sets_no_flags(directory: &dyn Directory) {
    sign_up(directory, 1, "ada").await;
    sign_up(directory, 2, "bob").await;
    directory.remove_device(account(1), device(1), NOW_MS).await.unwrap();
    let mute = FlagChange { muted: Some(true), ..NOTHING };
    for (who, by, expected) in [
        (1, 1, DirectoryError::UnknownDevice),
        (1, 2, DirectoryError::UnknownDevice),
        (9, 2, DirectoryError::UnknownDevice),
    ] {
        let refused = directory.set_conversation(account(who), device(by), account(2), mute).await;
        assert_eq!(refused, Err(expected));
    }
    let refused = directory.set_conversation(account(2), device(2), account(9), mute).await;
    assert_eq!(refused, Err(DirectoryError::UnknownAccount));
    assert_eq!(directory.conversation_flags(account(1), vec![account(2)]).await, Ok(FlagsByPeer::new()));
}
