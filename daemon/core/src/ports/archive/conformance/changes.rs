//! Checks of edits, deletions and reactions.

use quail_protocol::id::Stamp;

use super::{
    Archive, THERE, account, apply, batch, change, changed, edit, message, shown, summary, text, texts,
};
use crate::ports::archive::{Applied, ArchivedMessage, Change, ChangeKind, Synced};

/// Origins are archived in any order.
pub async fn the_latest_edit_wins_in_whatever_order(archive: &dyn Archive) {
    apply(archive, batch(1, vec![message(1, 2, 1, "first")])).await;
    changed(archive, 2, vec![change(1, 2, 1, 30, edit("third"))]).await;
    let rows = shown(archive, 2, 1).await;
    assert_eq!((text(&rows[0]), rows[0].edited, rows[0].seq), ("third", Some(Stamp(30)), 2));
    changed(archive, 3, vec![change(1, 2, 1, 20, edit("second"))]).await;
    assert_eq!(shown(archive, 2, 1).await, rows, "one that came late changes nothing");
    let tie = Change { origin: THERE, ..change(1, 2, 1, 30, edit("third of the greater origin")) };
    changed(archive, 4, vec![tie]).await;
    assert_eq!(texts(archive, 2, 1).await, ["third of the greater origin"]);
}

/// What is changed and not there is not shown, and takes what was said of it when it comes.
pub async fn a_change_may_come_before_its_message(archive: &dyn Archive) {
    let react = ChangeKind::React { account: account(2), reaction: Some("+".to_owned()) };
    let early = vec![
        change(1, 2, 1, 10, edit("edited")),
        change(1, 2, 1, 11, react),
        change(1, 2, 2, 12, ChangeKind::DeleteForAll),
        change(1, 2, 3, 13, ChangeKind::DeleteForMe { account: account(2) }),
    ];
    changed(archive, 1, early).await;
    assert!(archive.conversations(account(2), None).await.unwrap().conversations.is_empty());
    apply(archive, batch(2, vec![message(1, 2, 9, "other")])).await;
    assert_eq!(texts(archive, 2, 1).await, ["other"]);
    assert_eq!(texts(archive, 1, 2).await, ["other"]);
    let late = (1..=3).map(|number| message(1, 2, number, "original")).collect();
    let applied = apply(archive, batch(9, late)).await;
    assert_eq!(applied, Applied { inserted: 3, losers: Vec::new() });
    assert_eq!(texts(archive, 1, 2).await, ["edited", "(deleted)", "original", "other"]);
    assert_eq!(texts(archive, 2, 1).await, ["edited", "(deleted)", "other"]);
    let rows = shown(archive, 1, 2).await;
    assert_eq!(rows[0].reactions, [(account(2), "+".to_owned())]);
    assert_eq!(rows[0].edited, Some(Stamp(10)));
    assert!(rows.windows(2).take(2).all(|pair| pair[0].seq < pair[1].seq));
}

/// A tombstone stays, whatever comes after it.
pub async fn what_is_deleted_for_all_stays_so(archive: &dyn Archive) {
    apply(archive, batch(2, vec![message(1, 2, 1, "gone"), message(1, 2, 2, "stays")])).await;
    changed(archive, 3, vec![change(1, 2, 1, 10, ChangeKind::DeleteForAll)]).await;
    changed(archive, 4, vec![change(1, 2, 1, 20, edit("back?"))]).await;
    changed(archive, 5, vec![change(1, 2, 1, 30, ChangeKind::DeleteForAll)]).await;
    let rows = shown(archive, 2, 1).await;
    assert_eq!(rows.iter().map(text).collect::<Vec<_>>(), ["(deleted)", "stays"]);
    assert_eq!((rows[0].seq, rows[0].edited), (3, None));
    apply(archive, batch(6, vec![message(1, 2, 1, "gone")])).await;
    assert_eq!(shown(archive, 2, 1).await, rows, "its own copy does not bring it back");
    assert_eq!(summary(archive, 2, 1).await.unread, 1);
}

/// Hidden from lists, and told by a sync so that other devices of the account hide it too.
pub async fn what_is_deleted_for_me_is_there_for_others(archive: &dyn Archive) {
    apply(archive, batch(2, vec![message(1, 2, 1, "one"), message(1, 2, 2, "two")])).await;
    let before = summary(archive, 2, 1).await;
    let hide = ChangeKind::DeleteForMe { account: account(2) };
    changed(archive, 3, vec![change(1, 2, 2, 10, hide.clone()), change(1, 2, 2, 11, hide)]).await;
    assert_eq!(texts(archive, 2, 1).await, ["one"]);
    assert_eq!(texts(archive, 1, 2).await, ["one", "two"]);
    let after = summary(archive, 2, 1).await;
    assert_eq!((after.unread, after.seq), (1, before.seq + 1));
    assert_eq!(text(&after.last.unwrap()), "one");
    let synced = archive.sync(account(2), vec![(before.conversation, before.seq)], 10).await.unwrap();
    let Synced::Changed { rows, .. } = &synced[0].synced else { unreachable!("{synced:?}") };
    assert_eq!(rows.iter().map(text).collect::<Vec<_>>(), ["(hidden)"]);
}

/// Who has no part in a conversation says nothing of its messages, before they come or after.
pub async fn what_is_said_in_another_conversation_counts_for_nothing(archive: &dyn Archive) {
    let react = |by| ChangeKind::React { account: account(by), reaction: Some("?".to_owned()) };
    let stranger = |id, stamp, kind| change(1, 9, id, stamp, kind);
    let early = vec![
        stranger(1, 10, react(9)),
        stranger(1, 11, edit("to somebody else")),
        stranger(2, 12, ChangeKind::DeleteForAll),
    ];
    changed(archive, 1, early).await;
    apply(
        archive,
        batch(4, vec![message(1, 2, 1, "one"), message(1, 2, 2, "two"), message(1, 2, 3, "three")]),
    )
    .await;
    let before = shown(archive, 2, 1).await;
    let seq = summary(archive, 2, 1).await.seq;
    let late = vec![
        stranger(3, 20, react(9)),
        stranger(3, 21, edit("to somebody else")),
        stranger(3, 22, ChangeKind::DeleteForAll),
        stranger(3, 23, ChangeKind::DeleteForMe { account: account(1) }),
        change(1, 2, 3, 24, react(9)),
        change(1, 2, 3, 25, ChangeKind::DeleteForMe { account: account(9) }),
    ];
    changed(archive, 5, late).await;
    let rows = shown(archive, 1, 2).await;
    assert_eq!(rows, before, "nothing is said of them");
    assert_eq!(rows.iter().map(text).collect::<Vec<_>>(), ["one", "two", "three"]);
    assert!(rows.iter().all(|row| row.reactions.is_empty() && row.edited.is_none()));
    assert_eq!(summary(archive, 2, 1).await.seq, seq);
    changed(archive, 6, vec![change(1, 2, 1, 30, react(2)), change(1, 2, 1, 31, edit("edited"))]).await;
    let rows = shown(archive, 1, 2).await;
    assert_eq!((text(&rows[0]), rows[0].reactions.len()), ("edited", 1));
}

/// The latest reaction of each account; `None` takes it back.
pub async fn each_account_has_one_reaction(archive: &dyn Archive) {
    apply(archive, batch(1, vec![message(1, 2, 1, "hi")])).await;
    let react = |who, stamp, reaction: Option<&str>| {
        let kind = ChangeKind::React { account: account(who), reaction: reaction.map(str::to_owned) };
        change(1, 2, 1, stamp, kind)
    };
    changed(archive, 2, vec![react(1, 10, Some("a")), react(2, 11, Some("b")), react(2, 9, Some("c"))]).await;
    let reactions = |rows: Vec<ArchivedMessage>| rows[0].reactions.clone();
    let expected = [(account(1), "a".to_owned()), (account(2), "b".to_owned())];
    assert_eq!(reactions(shown(archive, 2, 1).await), expected);
    assert_eq!(summary(archive, 1, 2).await.seq, 3, "what came late is no change");
    changed(archive, 3, vec![react(1, 12, None), react(2, 13, Some("d"))]).await;
    assert_eq!(reactions(shown(archive, 1, 2).await), [(account(2), "d".to_owned())]);
}
