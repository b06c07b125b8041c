//! Checks of markers and of what they leave unread.

use quail_protocol::id::Position;

use super::{Archive, HERE, THERE, account, apply, batch, change, changed, message, read, summary};
use crate::ports::archive::{Advance, ArchiveBatch, ChangeKind, Marker, NewMessage, Reached, UNREAD_MAX};

/// Of each origin by its own marker; never my own messages.
pub async fn what_is_above_the_read_marker_of_its_origin_is_unread(archive: &dyn Archive) {
    let mut messages: Vec<_> = (1..=6).map(|number| message(1, 2, number, "x")).collect();
    messages.push(message(2, 1, 7, "mine"));
    apply(archive, batch(7, messages)).await;
    let elsewhere = (10..=12).map(|number| NewMessage { origin: THERE, ..message(1, 2, number, "y") });
    apply(archive, ArchiveBatch { origin: Some(THERE), ..batch(12, elsewhere.collect()) }).await;
    assert_eq!(summary(archive, 2, 1).await.unread, 9);
    assert_eq!(summary(archive, 1, 2).await.unread, 1);
    apply(archive, ArchiveBatch { advances: vec![read(1, 2, 4)], ..batch(8, Vec::new()) }).await;
    assert_eq!(summary(archive, 2, 1).await.unread, 5);
    let there = Advance { origin: THERE, ..read(1, 2, 11) };
    apply(archive, ArchiveBatch { advances: vec![there], ..batch(9, Vec::new()) }).await;
    assert_eq!(summary(archive, 2, 1).await.unread, 3);
    changed(archive, 10, vec![change(1, 2, 5, 50, ChangeKind::DeleteForAll)]).await;
    assert_eq!(summary(archive, 2, 1).await.unread, 2);
    apply(archive, batch(20, vec![message(1, 1, 15, "note")])).await;
    assert_eq!(summary(archive, 1, 1).await.unread, 0);
}

/// What was read without telling is unread for nobody and told to nobody.
pub async fn markers_only_rise_and_secrets_are_kept(archive: &dyn Archive) {
    apply(archive, batch(5, (1..=5).map(|number| message(1, 2, number, "x")).collect())).await;
    let secret = Advance { read_told: None, ..read(1, 2, 4) };
    let told = Advance { delivered: None, ..read(1, 2, 2) };
    apply(archive, ArchiveBatch { advances: vec![secret, told], ..batch(7, Vec::new()) }).await;
    let bob = account(2);
    let marker =
        |reached, position| Marker { account: bob, reached, origin: HERE, position: Position(position) };
    let own = summary(archive, 2, 1).await;
    assert_eq!(own.markers, [marker(Reached::Delivered, 4), marker(Reached::Read, 4)]);
    assert_eq!(own.unread, 1);
    let peers = summary(archive, 1, 2).await.markers;
    assert_eq!(peers, [marker(Reached::Delivered, 4), marker(Reached::Read, 2)]);
    apply(archive, ArchiveBatch { advances: vec![read(1, 2, 1)], ..batch(8, Vec::new()) }).await;
    assert_eq!(summary(archive, 1, 2).await.markers, peers);
}

/// A list says "999 and more" and does not count on.
pub async fn unread_is_counted_up_to_its_limit(archive: &dyn Archive) {
    let count = u64::from(UNREAD_MAX) + 5;
    apply(archive, batch(count, (1..=count).map(|number| message(1, 2, number, "x")).collect())).await;
    assert_eq!(summary(archive, 2, 1).await.unread, UNREAD_MAX);
    apply(archive, ArchiveBatch { advances: vec![read(1, 2, 6)], ..batch(count + 1, Vec::new()) }).await;
    assert_eq!(summary(archive, 2, 1).await.unread, UNREAD_MAX - 1);
}
