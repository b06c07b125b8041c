//! Promise: `delivered` comes after a device of the recipient acknowledged, for exactly what it acknowledged, and always.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use quail_protocol::v1::event::Body;
use quail_protocol::v1::{self, feed_down::Frame};
use quail_tests::raw::RawClient;
use quail_tests::{World, expect, next_delivery, next_message};

#[tokio::test]
async fn delivered_follows_the_acknowledgement_and_nothing_else() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let sender = ada.open().await;
    sender.watch_receipts().await.unwrap();
    let reader = bob.open().await;
    let mut events = reader.events().await.unwrap();
    let mut sendings = Vec::new();
    for number in 0..10 {
        sendings.push(sender.send(bob.account(), format!("{number}")).await.unwrap());
    }
    let mut deliveries = Vec::new();
    for _ in 0..10 {
        deliveries.push(next_delivery(&mut events).await.0);
    }
    // All are written to the device, none is acknowledged. A round trip on both sides later there is still no receipt.
    reader.ping().await.unwrap();
    sender.ping().await.unwrap();
    for sending in &sendings {
        assert!(!is_ready(sending.delivered()).await, "delivered before anybody acknowledged");
    }
    for (number, delivery) in deliveries.into_iter().take(4).enumerate() {
        delivery.acknowledge();
        expect("a receipt", sendings[number].delivered()).await.unwrap();
    }
    for sending in &sendings[4..] {
        assert!(!is_ready(sending.delivered()).await, "delivered though not acknowledged");
    }
}

async fn is_ready(future: impl Future) -> bool {
    tokio::select! {
        biased;
        _ = future => true,
        () = std::future::ready(()) => false,
    }
}

#[tokio::test]
async fn a_receipt_waits_for_a_sender_who_is_away_and_for_a_daemon_that_was_killed() {
    let mut world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let sender = ada.open().await;
    for number in 0..50 {
        sender.send(bob.account(), format!("{number}")).await.unwrap();
    }
    sender.flush().await.unwrap();
    sender.close().await.unwrap();
    let reader = bob.open().await;
    let mut events = reader.events().await.unwrap();
    for _ in 0..50 {
        next_message(&mut events).await;
    }
    reader.close().await.unwrap();
    world.kill_and_restart().await;

    // A stretch covers every message once, and few events do: unseen receipts of one reader become one.
    let client = RawClient::resume(&world.address(), ada.credentials.token.as_bytes()).await;
    let mut feed = client.attach(100, vec![]).await;
    let (mut covered, mut receipts) = (0, 0);
    loop {
        match feed.feed().await {
            Frame::Event(v1::Event { body: Some(Body::Receipt(receipt)), .. }) => {
                assert_eq!(receipt.kind(), v1::ReceiptKind::Delivered);
                assert_eq!(receipt.account, bob.account().to_bytes());
                covered += receipt.upto - receipt.after;
                receipts += 1;
            }
            Frame::CaughtUp(_) => break,
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(receipts, 1);
    assert!(covered >= 50, "{covered} positions covered");
}

#[tokio::test]
async fn the_first_of_many_devices_makes_it_delivered_and_the_second_changes_nothing() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let tablet = world.log_in("bob").await;
    let sender = ada.open().await;
    sender.watch_receipts().await.unwrap();
    let sending = sender.send(bob.account(), "hello").await.unwrap();
    for device in [&tablet, &bob] {
        let client = device.open().await;
        next_message(&mut client.events().await.unwrap()).await;
        client.close().await.unwrap();
        expect("a receipt", sending.delivered()).await.unwrap();
    }
    sender.close().await.unwrap();
    let client = RawClient::resume(&world.address(), ada.credentials.token.as_bytes()).await;
    let mut feed = client.attach(100, vec![]).await;
    // What the SDK took and acknowledged is a gap for this client, which claims to know nothing.
    let (mut gaps, mut receipts) = (0, 0);
    loop {
        match feed.feed().await {
            Frame::Event(v1::Event { body: Some(Body::Receipt(_)), .. }) => receipts += 1,
            Frame::Gap(_) => gaps += 1,
            Frame::CaughtUp(_) => break,
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(gaps + receipts, 1, "one receipt for one message");
}

#[tokio::test]
async fn a_message_to_oneself_is_delivered_like_any_other() {
    let world = World::start().await;
    let ada = world.sign_up("ada").await;
    let client = ada.open().await;
    let mut events = client.events().await.unwrap();
    let sending = client.send(ada.account(), "buy milk").await.unwrap();
    next_message(&mut events).await;
    expect("a receipt", sending.delivered()).await.unwrap();
}
