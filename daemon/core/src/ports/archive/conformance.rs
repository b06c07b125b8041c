//! What every archive must do, as checks that run against any of them.
//!
//! Each check gets an archive of its own and names one promise. A broken promise panics with what was expected, as a test does.

#![expect(clippy::unwrap_used, reason = "checks are called by tests, which end by panicking")]

pub mod changes;
pub mod histories;
pub mod messages;
pub mod pages;
pub mod searching;
pub mod unread;

use bytes::Bytes;
use quail_protocol::id::{AccountId, DeviceId, MessageId, Origin, Position, Stamp};
use quail_protocol::v1::BodyKind;

use super::{
    Advance, Applied, ArchiveBatch, ArchivedMessage, Browse, Change, ChangeKind, Content,
    ConversationSummary, MessageRef, NewMessage, ReadArchive, WriteArchive, direct,
};

/// An archive with both sides.
pub trait Archive: WriteArchive + ReadArchive {}

impl<T: WriteArchive + ReadArchive> Archive for T {}

const HERE: Origin = Origin(1);
const THERE: Origin = Origin(2);

/// Runs every check, each against a fresh archive from `make`.
///
/// # Panics
/// If the archive breaks a promise of the port.
pub async fn archive_conformance<F: AsyncFn() -> Box<dyn Archive>>(make: F) {
    messages::what_was_applied_is_there_and_archived(&*make().await).await;
    messages::a_batch_that_comes_again_changes_nothing(&*make().await).await;
    messages::a_message_is_there_once_whatever_batch_it_comes_in(&*make().await).await;
    messages::a_refused_batch_leaves_nothing(&*make().await).await;
    messages::the_smaller_copy_stays_and_moving_is_a_change(&*make().await).await;
    messages::of_two_that_are_not_the_same_the_loser_is_told(&*make().await).await;
    messages::a_loser_in_another_conversation_makes_that_one_reload(&*make().await).await;
    messages::dead_letters_are_kept_until_they_are_revived_or_dropped(&*make().await).await;
    changes::the_latest_edit_wins_in_whatever_order(&*make().await).await;
    changes::a_change_may_come_before_its_message(&*make().await).await;
    changes::what_is_deleted_for_all_stays_so(&*make().await).await;
    changes::what_is_deleted_for_me_is_there_for_others(&*make().await).await;
    changes::what_is_said_in_another_conversation_counts_for_nothing(&*make().await).await;
    changes::each_account_has_one_reaction(&*make().await).await;
    pages::a_conversation_is_browsed_both_ways(&*make().await).await;
    pages::a_sync_has_every_change_once_in_pages(&*make().await).await;
    pages::a_sync_from_elsewhere_reloads(&*make().await).await;
    pages::a_page_ends_early_where_its_bytes_end(&*make().await).await;
    pages::conversations_come_newest_first_in_pages(&*make().await).await;
    pages::nobody_sees_conversations_of_others(&*make().await).await;
    unread::what_is_above_the_read_marker_of_its_origin_is_unread(&*make().await).await;
    unread::markers_only_rise_and_secrets_are_kept(&*make().await).await;
    unread::unread_is_counted_up_to_its_limit(&*make().await).await;
    searching::words_prefixes_and_phrases_are_found(&*make().await).await;
    searching::case_does_not_count_and_accents_do(&*make().await).await;
    searching::only_what_is_meant_is_found(&*make().await).await;
    searching::an_edit_is_found_and_what_was_before_is_not(&*make().await).await;
    searching::no_search_text_is_an_error(&*make().await).await;
}

fn account(seed: u8) -> AccountId {
    AccountId([seed; 16])
}

fn reference(sender: u8, id: u64) -> MessageRef {
    let mut bytes = [7; 16];
    bytes[8..].copy_from_slice(&id.to_be_bytes());
    MessageRef { sender: account(sender), id: MessageId(bytes) }
}

/// A message whose stamp and position are its number.
fn message(sender: u8, recipient: u8, number: u64, body: &str) -> NewMessage {
    NewMessage {
        message: reference(sender, number),
        device: DeviceId([sender; 16]),
        recipient: account(recipient),
        origin: HERE,
        position: Position(number),
        stamp: Stamp(number),
        kind: BodyKind::PlainText as i32,
        body: Bytes::copy_from_slice(body.as_bytes()),
        reply: None,
    }
}

fn change(sender: u8, recipient: u8, id: u64, stamp: u64, kind: ChangeKind) -> Change {
    let (message, recipient) = (reference(sender, id), account(recipient));
    Change { message, recipient, origin: HERE, stamp: Stamp(stamp), kind }
}

fn edit(text: &str) -> ChangeKind {
    let body = Bytes::copy_from_slice(text.as_bytes());
    ChangeKind::Edit { kind: BodyKind::PlainText as i32, body }
}

fn read(sender: u8, reader: u8, upto: u64) -> Advance {
    let (sender, account, upto) = (account(sender), account(reader), Position(upto));
    Advance { sender, account, origin: HERE, delivered: Some(upto), read: Some(upto), read_told: Some(upto) }
}

fn batch(upto: u64, messages: Vec<NewMessage>) -> ArchiveBatch {
    ArchiveBatch { origin: Some(HERE), upto: Position(upto), messages, ..ArchiveBatch::default() }
}

async fn apply(archive: &dyn Archive, batch: ArchiveBatch) -> Applied {
    archive.apply(&batch).await.unwrap()
}

async fn changed(archive: &dyn Archive, upto: u64, changes: Vec<Change>) {
    apply(archive, ArchiveBatch { changes, ..batch(upto, Vec::new()) }).await;
}

async fn shown(archive: &dyn Archive, asking: u8, peer: u8) -> Vec<ArchivedMessage> {
    let conversation = direct(account(asking), account(peer));
    archive.browse(account(asking), conversation, Browse::After(None), 100).await.unwrap().rows
}

fn text(message: &ArchivedMessage) -> &str {
    match &message.content {
        Content::There { body, .. } => std::str::from_utf8(body).unwrap(),
        Content::Deleted => "(deleted)",
        Content::DeletedForMe => "(hidden)",
    }
}

async fn texts(archive: &dyn Archive, asking: u8, peer: u8) -> Vec<String> {
    shown(archive, asking, peer).await.iter().map(|message| text(message).to_owned()).collect()
}

async fn summary(archive: &dyn Archive, asking: u8, peer: u8) -> ConversationSummary {
    let page = archive.conversations(account(asking), None).await.unwrap();
    let found = page.conversations.into_iter().find(|found| found.peer == account(peer)).unwrap();
    let unread = archive.unread(account(asking), found.conversation).await;
    assert_eq!(unread, Ok(found.unread), "alone it is what the list says");
    found
}
