//! Promise: who looks at its conversations is told how much is unread as it is, and sees on every device how it wants to see them;
//! nobody else is told anything of either.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use std::time::Instant;

use quail_client::{
    AccountId, Client, Conversation, ConversationChange, ConversationFlags, Event, Events, Mark, Reason,
    Unread,
};
use quail_tests::{PATIENCE, World, expect};

async fn say(client: &Client, to: AccountId, text: &str) {
    let sending = client.send(to, text).await.unwrap();
    expect("the answer", sending.accepted()).await.unwrap();
}

/// Takes events until one says how much is unread; returns the marks of the messages before it.
async fn next_unread(events: &mut Events, marks: &mut Vec<Mark>) -> Unread {
    loop {
        match expect("what is unread", events.next()).await.unwrap().acknowledge() {
            Event::Unread(unread) => return unread,
            Event::Message(message) => marks.push(message.mark()),
            _ => {}
        }
    }
}

async fn list(client: &Client) -> Vec<Conversation> {
    expect("a page", client.conversations().next_page()).await.unwrap().unwrap().items
}

/// Lists until the archive has a conversation.
async fn listed(client: &Client) -> Conversation {
    let began = Instant::now();
    loop {
        if let Some(first) = list(client).await.into_iter().next() {
            return first;
        }
        assert!(began.elapsed() < PATIENCE, "the archive comes");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_is_pushed_as_it_is_to_who_looks_at_the_list_and_to_nobody_else() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let (looking, sender) = (ada.open().await, bob.open().await);
    let other = world.log_in("ada").await.open().await;
    let (mut events, mut others, mut bobs) =
        (looking.events().await.unwrap(), other.events().await.unwrap(), sender.events().await.unwrap());
    assert!(list(&looking).await.is_empty());
    for text in ["one", "two", "three"] {
        say(&sender, ada.account(), text).await;
    }
    let mut marks = Vec::new();
    let mut before = 0;
    loop {
        let unread = next_unread(&mut events, &mut marks).await;
        assert_eq!(unread.peer, bob.account());
        assert!((before..=3).contains(&unread.count), "it is the number itself: {unread:?}");
        before = unread.count;
        if before == 3 {
            break;
        }
    }
    assert_eq!(listed(&looking).await.unread, 3, "the same as in the list");
    // All three were taken before they were read.
    while marks.len() < 3 {
        if let Event::Message(message) = expect("a message", events.next()).await.unwrap().acknowledge() {
            marks.push(message.mark());
        }
    }
    looking.read(marks).await.unwrap();
    while next_unread(&mut events, &mut Vec::new()).await.count > 0 {}
    // Who has not asked for the list has been told nothing, nor has the peer.
    say(&sender, ada.account(), "the end").await;
    loop {
        match expect("an event", others.next()).await.unwrap().acknowledge() {
            Event::Message(message) if message.body.as_text() == Some("the end") => break,
            Event::Unread(unread) => panic!("{unread:?} was not asked for"),
            _ => {}
        }
    }
    say(&looking, bob.account(), "the end").await;
    loop {
        match expect("an event", bobs.next()).await.unwrap().acknowledge() {
            Event::Message(message) if message.recipient == bob.account() => break,
            Event::Unread(unread) => panic!("{unread:?} is nothing of bob's"),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flags_are_there_on_every_device_and_nobody_else_sees_or_sets_them() {
    let world = World::start().await;
    let (ada, bob, eve) =
        (world.sign_up("ada").await, world.sign_up("bob").await, world.sign_up("eve").await);
    let (one, sender, stranger) = (ada.open().await, bob.open().await, eve.open().await);
    say(&sender, ada.account(), "hello").await;
    assert_eq!(listed(&one).await.flags, ConversationFlags::default());
    let change = ConversationChange { muted: Some(true), put_away: Some(true), ..Default::default() };
    one.set_conversation(bob.account(), change).await.unwrap();
    let change = ConversationChange { pinned: Some(true), put_away: Some(false), ..Default::default() };
    let other = world.log_in("ada").await.open().await;
    other.set_conversation(bob.account(), change).await.unwrap();
    for client in [&one, &other] {
        let flags = listed(client).await.flags;
        assert_eq!((flags.muted, flags.pinned, flags.put_away), (true, true, false));
    }
    assert_eq!(listed(&sender).await.flags, ConversationFlags::default(), "the peer has its own");
    for peer in [ada.account(), bob.account(), eve.account(), AccountId([7; 16])] {
        let refused = stranger.set_conversation(peer, change).await.unwrap_err();
        assert_eq!(refused.reason(), Some(Reason::UnknownConversation));
    }
}
