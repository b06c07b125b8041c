//! Promise: nobody acts or reads for another account, and a session that ended is of no use on any connection.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use quail_protocol::v1::request::Command;
use quail_protocol::v1::response::Result as Answer;
use quail_protocol::v1::{self, Reason, feed_down, hello_reply, publish_down};
use quail_tests::raw::{RawClient, hello, send};
use quail_tests::{PASSWORD, World, next_message, text};

fn reason(answer: Answer) -> Reason {
    match answer {
        Answer::Error(error) => error.reason(),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[tokio::test]
async fn without_a_session_nothing_but_the_door_is_open() {
    let world = World::start().await;
    let bob = world.sign_up("bob").await;
    let client = RawClient::connect(&world.address()).await;
    assert!(matches!(client.hello(hello(b"")).await, hello_reply::Result::Welcome(_)));
    let by = Some(v1::look_up::By::Handle("bob".to_owned()));
    for command in [
        Command::LogOut(v1::LogOut {}),
        Command::ChangePassword(v1::ChangePassword::default()),
        Command::LookUp(v1::LookUp { by }),
        Command::Conversations(v1::ListConversations::default()),
        Command::History(v1::BrowseHistory { peer: bob.account().to_bytes(), ..Default::default() }),
        Command::Sync(v1::SyncHistory::default()),
        Command::Search(v1::SearchHistory { text: "hi".to_owned(), ..Default::default() }),
        Command::SetConversation(v1::SetConversation {
            peer: bob.account().to_bytes(),
            ..Default::default()
        }),
    ] {
        assert_eq!(reason(client.request(command).await), Reason::Unauthenticated);
    }
    let mut publish = client.publish().await;
    let publish_down::Frame::Refused(refused) = publish.say(send(1, bob.account(), "hi")).await else {
        panic!("a send without a session")
    };
    assert_eq!(refused.error.unwrap().reason(), Reason::Unauthenticated);
    let mut feed = client.attach(1, vec![]).await;
    let feed_down::Frame::Ended(error) = feed.feed().await else { panic!("a feed without a session") };
    assert_eq!(error.reason(), Reason::Unauthenticated);
}

#[tokio::test]
async fn a_token_that_was_never_given_is_refused_and_the_connection_closed() {
    let world = World::start().await;
    for token in [&[7; 32][..], &[7; 31], b"x"] {
        let client = RawClient::connect(&world.address()).await;
        let hello_reply::Result::Error(error) = client.hello(hello(token)).await else {
            panic!("a guessed token")
        };
        assert_eq!(error.reason(), Reason::Unauthenticated);
        assert_eq!(client.closed().await, Reason::Unauthenticated);
    }
}

#[tokio::test]
async fn another_account_cannot_read_or_acknowledge() {
    let world = World::start().await;
    let (ada, bob, eve) =
        (world.sign_up("ada").await, world.sign_up("bob").await, world.sign_up("eve").await);
    let sender = ada.open().await;
    let accepted = sender.send(bob.account(), "for bob").await.unwrap().accepted().await.unwrap();

    // Eve's feed is hers, whatever cursors she names, and what she acknowledges moves nobody else.
    let client = RawClient::resume(&world.address(), eve.credentials.token.as_bytes()).await;
    let mut feed = client.attach(1, vec![v1::Cursor { origin: 1, position: 0 }]).await;
    assert!(matches!(feed.feed().await, feed_down::Frame::CaughtUp(_)));
    feed.ack(1, accepted.position.0 + 1_000).await;
    let feed_down::Frame::Ended(error) = feed.feed().await else {
        panic!("acknowledged what was never sent")
    };
    assert_eq!(error.reason(), Reason::AckInvalid);

    let reader = bob.open().await;
    assert_eq!(text(&next_message(&mut reader.events().await.unwrap()).await), "for bob");
}

#[tokio::test]
async fn the_sender_is_whoever_has_the_session() {
    let world = World::start().await;
    let (bob, eve) = (world.sign_up("bob").await, world.sign_up("eve").await);
    let client = RawClient::resume(&world.address(), eve.credentials.token.as_bytes()).await;
    let mut publish = client.publish().await;
    assert!(matches!(
        publish.say(send(1, bob.account(), "I am ada")).await,
        publish_down::Frame::Accepted(_)
    ));
    let reader = bob.open().await;
    assert_eq!(next_message(&mut reader.events().await.unwrap()).await.sender, eve.account());
}

#[tokio::test]
async fn a_session_that_logged_out_is_of_no_use_anywhere() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let token = ada.credentials.token.as_bytes();
    let other = RawClient::resume(&world.address(), token).await;
    let mut publish = other.publish().await;
    assert!(matches!(publish.say(send(1, bob.account(), "before")).await, publish_down::Frame::Accepted(_)));

    let client = RawClient::resume(&world.address(), token).await;
    assert!(matches!(client.request(Command::LogOut(v1::LogOut {})).await, Answer::Done(_)));
    assert_eq!(other.closed().await, Reason::Unauthenticated);
    let late = RawClient::connect(&world.address()).await;
    let hello_reply::Result::Error(error) = late.hello(hello(token)).await else {
        panic!("a session that ended")
    };
    assert_eq!(error.reason(), Reason::Unauthenticated);
}

#[tokio::test]
async fn change_password_ends_every_other_session_and_the_old_password() {
    let world = World::start().await;
    let ada = world.sign_up("ada").await;
    let tablet = world.log_in("ada").await;
    let other = RawClient::resume(&world.address(), tablet.credentials.token.as_bytes()).await;
    let client = RawClient::resume(&world.address(), ada.credentials.token.as_bytes()).await;
    let change = |current: &str| {
        let (current_password, new_password) = (current.to_owned(), "another secret".to_owned());
        Command::ChangePassword(v1::ChangePassword { current_password, new_password })
    };
    assert_eq!(reason(client.request(change("not the password")).await), Reason::WrongCredentials);
    assert!(matches!(client.request(change(PASSWORD)).await, Answer::Done(_)));
    assert_eq!(other.closed().await, Reason::Unauthenticated);

    let guest = RawClient::connect(&world.address()).await;
    guest.hello(hello(b"")).await;
    let log_in = |password: &str| {
        let (handle, password) = ("ada".to_owned(), password.to_owned());
        Command::LogIn(v1::LogIn { handle, password, ..Default::default() })
    };
    assert_eq!(reason(guest.request(log_in(PASSWORD)).await), Reason::WrongCredentials);
    assert!(matches!(guest.request(log_in("another secret")).await, Answer::Session(_)));
    // The session that changed it goes on.
    let again = RawClient::resume(&world.address(), ada.credentials.token.as_bytes()).await;
    assert!(matches!(again.request(Command::Ping(v1::Ping {})).await, Answer::Pong(_)));
}
