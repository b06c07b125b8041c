//! Checks of what a batch comes to.

use bytes::Bytes;
use quail_protocol::id::{Position, Stamp};

use super::{
    Archive, HERE, THERE, account, apply, batch, change, edit, message, read, reference, shown, summary,
    text, texts,
};
use crate::ports::archive::{Applied, ArchiveBatch, ArchiveError, DeadLetter, Loser, NewMessage, Synced};

/// Rows keep what they were given; who wrote to whom is one conversation for both.
pub async fn what_was_applied_is_there_and_archived(archive: &dyn Archive) {
    assert_eq!(archive.archived(HERE).await, Ok(None));
    let reply = Some(reference(1, 1));
    let answer = NewMessage { reply, ..message(2, 1, 2, "hello") };
    let note = message(1, 1, 3, "to myself");
    let applied = apply(archive, batch(9, vec![message(1, 2, 1, "hi"), answer.clone(), note])).await;
    assert_eq!(applied, Applied { inserted: 3, losers: Vec::new() });
    assert_eq!(archive.archived(HERE).await, Ok(Some(Position(9))), "positions without rows count");
    assert_eq!(archive.archived_of(HERE).await, Ok(Some(Position(9))));
    assert_eq!(archive.archived(THERE).await, Ok(None));
    let both = [shown(archive, 1, 2).await, shown(archive, 2, 1).await];
    assert_eq!(both[0], both[1]);
    let last = both[0].last().unwrap();
    assert_eq!((last.message, last.device, last.recipient), (answer.message, answer.device, account(1)));
    assert_eq!((last.origin, last.position, last.stamp), (HERE, Position(2), Stamp(2)));
    assert_eq!((last.reply, last.seq, text(last)), (reply, 2, "hello"));
    assert_eq!(texts(archive, 1, 1).await, ["to myself"]);
}

/// A daemon that was killed before it knew that a batch was applied applies it again.
pub async fn a_batch_that_comes_again_changes_nothing(archive: &dyn Archive) {
    let first = ArchiveBatch {
        changes: vec![change(1, 2, 1, 5, edit("hi!"))],
        advances: vec![read(1, 2, 1)],
        ..batch(4, vec![message(1, 2, 1, "hi"), message(2, 1, 2, "ho")])
    };
    apply(archive, first.clone()).await;
    let before = (shown(archive, 1, 2).await, summary(archive, 1, 2).await);
    assert_eq!(apply(archive, first).await, Applied::default());
    assert_eq!((shown(archive, 1, 2).await, summary(archive, 1, 2).await), before);
}

/// The journal and a restart cut batches differently.
pub async fn a_message_is_there_once_whatever_batch_it_comes_in(archive: &dyn Archive) {
    apply(archive, batch(2, vec![message(1, 2, 1, "one"), message(1, 2, 2, "two")])).await;
    let before = summary(archive, 1, 2).await.seq;
    let again = vec![message(1, 2, 2, "two"), message(1, 2, 3, "three"), message(1, 2, 3, "three")];
    let applied = apply(archive, batch(3, again)).await;
    assert_eq!(applied, Applied { inserted: 1, losers: Vec::new() });
    assert_eq!(texts(archive, 2, 1).await, ["one", "two", "three"]);
    assert_eq!(summary(archive, 1, 2).await.seq, before + 1, "what was there is not changed");
}

/// One row that is refused takes its whole batch with it, `archived` included.
pub async fn a_refused_batch_leaves_nothing(archive: &dyn Archive) {
    let bad = NewMessage { position: Position(0), ..message(1, 2, 2, "bad") };
    let refused = archive.apply(&batch(2, vec![message(1, 2, 1, "good"), bad])).await;
    assert!(matches!(refused, Err(ArchiveError::Refused { .. })), "{refused:?}");
    assert_eq!(archive.archived(HERE).await, Ok(None));
    assert!(archive.conversations(account(1), None).await.unwrap().conversations.is_empty());
    apply(archive, batch(2, vec![message(1, 2, 1, "good")])).await;
    assert_eq!(texts(archive, 1, 2).await, ["good"]);
}

/// Two origins accepted the same message; both orders of arrival end the same.
pub async fn the_smaller_copy_stays_and_moving_is_a_change(archive: &dyn Archive) {
    let late = NewMessage { origin: THERE, position: Position(7), ..message(1, 2, 1, "hi") };
    let late = NewMessage { stamp: Stamp(20), ..late };
    apply(archive, ArchiveBatch { origin: Some(THERE), ..batch(7, vec![late.clone()]) }).await;
    apply(archive, ArchiveBatch { origin: Some(THERE), ..batch(8, vec![message(2, 1, 2, "between")]) }).await;
    let before = summary(archive, 1, 2).await.seq;
    let applied = apply(archive, batch(1, vec![message(1, 2, 1, "hi")])).await;
    assert_eq!(applied, Applied::default(), "neither new nor another");
    let rows = shown(archive, 1, 2).await;
    assert_eq!(rows.iter().map(text).collect::<Vec<_>>(), ["hi", "between"]);
    assert_eq!((rows[0].origin, rows[0].position, rows[0].stamp), (HERE, Position(1), Stamp(1)));
    assert_eq!(rows[0].seq, before + 1);
    assert_eq!(summary(archive, 1, 2).await.last.unwrap(), rows[1]);
    apply(archive, ArchiveBatch { origin: Some(THERE), ..batch(9, vec![late]) }).await;
    assert_eq!(shown(archive, 1, 2).await, rows, "the greater copy changes nothing");
}

/// A client that uses an id twice for different content has one of them archived.
pub async fn of_two_that_are_not_the_same_the_loser_is_told(archive: &dyn Archive) {
    apply(archive, batch(1, vec![message(1, 2, 1, "first")])).await;
    let other = NewMessage { position: Position(5), stamp: Stamp(5), ..message(1, 2, 1, "second") };
    let applied = apply(archive, batch(5, vec![other])).await;
    let message_ref = reference(1, 1);
    let loser = |origin, position| Loser { message: message_ref, origin, position: Position(position) };
    assert_eq!(applied.losers, [loser(HERE, 5)]);
    assert_eq!(texts(archive, 1, 2).await, ["first"]);
    let earlier = NewMessage { origin: THERE, position: Position(9), ..message(1, 2, 1, "zeroth") };
    let earlier =
        ArchiveBatch { origin: Some(THERE), ..batch(9, vec![NewMessage { stamp: Stamp(0), ..earlier }]) };
    assert_eq!(apply(archive, earlier).await.losers, [loser(HERE, 1)]);
    assert_eq!(texts(archive, 2, 1).await, ["zeroth"]);
}

/// What was seen in a conversation and belongs to another one now cannot be told by a row.
pub async fn a_loser_in_another_conversation_makes_that_one_reload(archive: &dyn Archive) {
    apply(archive, batch(5, vec![message(1, 2, 4, "stays"), message(1, 2, 5, "to bob")])).await;
    let before = summary(archive, 2, 1).await;
    let earlier = NewMessage { stamp: Stamp(1), position: Position(6), ..message(1, 3, 5, "to eve") };
    assert_eq!(apply(archive, batch(6, vec![earlier])).await.losers.len(), 1);
    assert_eq!(texts(archive, 2, 1).await, ["stays"]);
    assert_eq!(texts(archive, 3, 1).await, ["to eve"]);
    let synced = archive.sync(account(2), vec![(before.conversation, before.seq)], 10).await.unwrap();
    assert!(matches!(synced[0].synced, Synced::Reload { .. }), "{synced:?}");
}

/// Dead letters have numbers that rise; reviving one does not move `archived`.
pub async fn dead_letters_are_kept_until_they_are_revived_or_dropped(archive: &dyn Archive) {
    let letter = |position| DeadLetter {
        number: 0,
        origin: HERE,
        position: Position(position),
        error: "no".to_owned(),
        frame: Bytes::from_static(b"frame"),
        context: Bytes::from_static(b"context"),
    };
    apply(archive, ArchiveBatch { dead: vec![letter(1), letter(2)], ..batch(3, Vec::new()) }).await;
    let dead = archive.dead(0, 10).await.unwrap();
    assert_eq!(dead.len(), 2);
    assert!(dead[0].number < dead[1].number && dead[0].number > 0);
    assert_eq!(DeadLetter { number: 0, ..dead[0].clone() }, letter(1));
    assert_eq!(archive.dead(dead[0].number, 10).await.unwrap(), dead[1..]);
    assert_eq!(archive.dead(0, 1).await.unwrap(), dead[..1]);
    let revived = ArchiveBatch { messages: vec![message(1, 2, 1, "back")], ..ArchiveBatch::default() };
    let applied = archive.revive(dead[0].number, &revived).await.unwrap();
    assert_eq!(applied, Some(Applied { inserted: 1, losers: Vec::new() }));
    assert_eq!(archive.revive(dead[0].number, &revived).await, Ok(None), "it is gone");
    assert_eq!(texts(archive, 2, 1).await, ["back"]);
    assert_eq!(archive.archived(HERE).await, Ok(Some(Position(3))));
    assert_eq!(archive.drop_dead(dead[1].number).await, Ok(true));
    assert_eq!(archive.drop_dead(dead[1].number).await, Ok(false));
    assert_eq!(archive.dead(0, 10).await, Ok(Vec::new()));
}
