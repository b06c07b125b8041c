//! Promise: every device gets every event until it has acknowledged it, and not after that.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use quail_protocol::id::Position;
use quail_protocol::v1::event::Body;
use quail_protocol::v1::{self, feed_down::Frame};
use quail_tests::checker::Terms;
use quail_tests::raw::{RawClient, RawStream};
use quail_tests::witness::{Record, Witness};
use quail_tests::{Person, World, next_delivery, next_message, text};

/// No outbox overflows, and everybody waits for the receipts.
const STRICT: Terms = Terms { gaps: false, receipts: true };

async fn feed(world: &World, person: &Person, number: u64, cursor: u64) -> (RawClient, RawStream) {
    let client = RawClient::resume(&world.address(), person.credentials.token.as_bytes()).await;
    let cursors = vec![v1::Cursor { origin: 1, position: cursor }];
    let feed = client.attach(number, cursors).await;
    (client, feed)
}

/// Returns positions and bodies of the messages up to the frame that says there are no more.
async fn waiting(feed: &mut RawStream) -> Vec<(u64, String)> {
    let mut messages = Vec::new();
    loop {
        match feed.feed().await {
            Frame::Event(v1::Event { position, body: Some(Body::Message(message)), .. }) => {
                messages.push((position, String::from_utf8(message.body.to_vec()).unwrap()));
            }
            Frame::CaughtUp(_) => return messages,
            other => panic!("unexpected {other:?}"),
        }
    }
}

async fn send(from: &Person, to: &Person, bodies: &[&str]) -> Vec<Position> {
    let client = from.open().await;
    let mut positions = Vec::new();
    for body in bodies {
        let sending = client.send(to.account(), *body).await.unwrap();
        positions.push(sending.accepted().await.unwrap().position);
    }
    client.close().await.unwrap();
    positions
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_and_what_was_does_not() {
    let mut world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    send(&ada, &bob, &["one", "two", "three"]).await;

    let (_client, mut first) = feed(&world, &bob, 1, 0).await;
    let messages = waiting(&mut first).await;
    assert_eq!(messages.iter().map(|(_, body)| &**body).collect::<Vec<_>>(), ["one", "two", "three"]);
    first.ack(1, messages[0].0).await;

    // A newer attach ends the older feed for good; what came before it on the old connection still counts.
    let (_client, mut second) = feed(&world, &bob, 2, messages[0].0).await;
    let Frame::Ended(error) = first.feed().await else { panic!("the older feed must end") };
    assert_eq!(error.reason(), v1::Reason::Replaced);
    assert_eq!(waiting(&mut second).await, messages[1..]);

    // The device took both but the daemon dies before it hears of it: the cursor of the next attach says it.
    world.kill_and_restart().await;
    let (_client, mut third) = feed(&world, &bob, 3, messages[1].0).await;
    assert_eq!(waiting(&mut third).await, messages[2..]);
    third.ack(1, messages[2].0).await;
    drop(third);
    let (_client, mut fourth) = feed(&world, &bob, 4, messages[2].0).await;
    assert_eq!(waiting(&mut fourth).await, []);
}

#[tokio::test]
async fn an_attach_that_is_not_newer_is_replaced_at_once() {
    let world = World::start().await;
    let bob = world.sign_up("bob").await;
    let (_client, mut first) = feed(&world, &bob, 5, 0).await;
    assert_eq!(waiting(&mut first).await, []);
    for number in [5, 4] {
        let (_client, mut late) = feed(&world, &bob, number, 0).await;
        let Frame::Ended(error) = late.feed().await else { panic!("an old number must not attach") };
        assert_eq!(error.reason(), v1::Reason::Replaced);
    }
    send(&bob, &bob, &["still here"]).await;
    assert!(matches!(first.feed().await, Frame::Event(_)));
}

#[tokio::test]
async fn every_device_gets_every_message_and_the_senders_other_device_too() {
    let (world, record) = (World::start().await, Record::new());
    let ada = world.sign_up("ada").await;
    let (ada_tablet, bob) = (world.log_in("ada").await, world.sign_up("bob").await);
    let bob_tablet = world.log_in("bob").await;
    for device in [&ada_tablet, &bob, &bob_tablet] {
        record.joins(device);
    }
    let mut sender = Witness::join(&ada, &record).await;
    sender.send(bob.account(), "to all").await;
    sender.has_answers(1).await;
    for device in [&bob, &bob_tablet, &ada_tablet] {
        let reader = Witness::open(device, &record).await;
        reader.has_shown(1).await;
        reader.close().await;
    }
    sender.has_receipts().await;
    record.assert_kept(STRICT);
    sender.close().await;
    // The device that sent it has it already.
    let (_client, mut own) = feed(&world, &ada, 100, 0).await;
    loop {
        match own.feed().await {
            Frame::Event(v1::Event { body: Some(Body::Message(message)), .. }) => panic!("{message:?}"),
            Frame::CaughtUp(_) => break,
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_backlog_larger_than_the_window_comes_whole_and_in_order() {
    let (world, record) = (World::start().await, Record::new());
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    record.joins(&bob);
    let mut sender = Witness::join(&ada, &record).await;
    for number in 0..1500 {
        sender.send(bob.account(), &format!("{number} {}", "x".repeat(number % 700))).await;
    }
    sender.has_answers(1500).await;
    let reader = Witness::open(&bob, &record).await;
    reader.has_shown(1500).await;
    sender.has_receipts().await;
    record.assert_kept(STRICT);
}

#[tokio::test]
async fn a_client_that_stops_before_it_acknowledges_gets_it_next_time() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    send(&ada, &bob, &["keep me"]).await;
    for acknowledge in [false, true] {
        let client = bob.open().await;
        let mut events = client.events().await.unwrap();
        let (delivery, message) = next_delivery(&mut events).await;
        assert_eq!(text(&message), "keep me");
        if acknowledge {
            delivery.acknowledge();
        }
        drop(events);
        client.close().await.unwrap();
    }
    send(&ada, &bob, &["second"]).await;
    let client = bob.open().await;
    assert_eq!(text(&next_message(&mut client.events().await.unwrap()).await), "second");
}
