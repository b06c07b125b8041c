//! Promise: what an outbox does not hold any longer because it is too old is told to the device as a gap, never left out in
//! silence, and what is not too old still arrives.
//!
//! Thirty days are a few seconds here, and it is looked for every tenth of a second.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code outside of #[test] functions.

use quail_protocol::v1::{self, event::Body, feed_down::Frame};
use quail_tests::hostile::metric;
use quail_tests::raw::RawClient;
use quail_tests::{World, expect, quaild_with};

#[tokio::test]
async fn what_is_too_old_is_told_as_a_gap() {
    let Some(program) = quaild_with("failpoints") else { return };
    let world = World::start_with(|options| {
        options.quaild = program;
        for (name, value) in [
            ("QUAIL_SPILL_AFTER_MS", "100"),
            ("QUAIL_EXPIRE_EVERY_MS", "100"),
            ("QUAIL_OUTBOX_AGE_MS", "5000"),
        ] {
            options.env.push((name.into(), value.into()));
        }
    });
    let mut world = world.await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let sender = ada.open().await;
    let mut positions = Vec::new();
    for number in 0..10 {
        let sending = sender.send(bob.account(), format!("{number}")).await.unwrap();
        positions.push(expect("an answer", sending.accepted()).await.unwrap().position.0);
    }
    let (first, last) = (positions[0], positions[9]);
    let expired = async { while metric(&world, "quail_unacknowledged_events").await > 0.0 {} };
    expect("the events to become too old", expired).await;
    let late = sender.send(bob.account(), "late").await.unwrap();
    let late = expect("an answer", late.accepted()).await.unwrap().position.0;
    // It is remembered over a crash, and nothing that is here is as old as it may be now.
    world.daemon.options_mut().env.retain(|(name, _)| name != "QUAIL_OUTBOX_AGE_MS");
    world.kill_and_restart().await;

    let client = RawClient::resume(&world.address(), bob.credentials.token.as_bytes()).await;
    let mut feed = client.attach(1, vec![]).await;
    let Frame::Gap(gap) = feed.feed().await else { panic!("it is not told of the gap first") };
    assert!(gap.from <= first && gap.upto >= last && gap.upto < late, "{gap:?} for {first} to {last}");
    match feed.feed().await {
        Frame::Event(v1::Event { position, body: Some(Body::Message(message)), .. }) => {
            assert_eq!((position, &*message.body), (late, &b"late"[..]));
        }
        other => panic!("unexpected {other:?}"),
    }
    assert!(matches!(feed.feed().await, Frame::CaughtUp(_)));

    // What is in the gap nobody can have read, whatever he says.
    feed.ack(1, late).await;
    let stretches = vec![v1::ReadStretch { origin: 1, after: 0, upto: late }];
    let read = v1::Read { sender: ada.account().to_bytes(), stretches };
    feed.write(&v1::FeedUp { frame: Some(v1::feed_up::Frame::Read(read)) }).await;
    let Frame::Read(answer) = feed.feed().await else { panic!("no answer") };
    assert_eq!(answer.error, None);
    let told = RawClient::resume(&world.address(), ada.credentials.token.as_bytes()).await;
    let mut told = told.attach(100, vec![]).await;
    let receipts = async {
        loop {
            let Frame::Event(event) = told.feed().await else { continue };
            let Some(Body::Receipt(receipt)) = event.body else { continue };
            let covers = |position| receipt.after < position && position <= receipt.upto;
            assert!(!positions.iter().any(|position| covers(*position)), "{receipt:?} covers {positions:?}");
            if receipt.kind() == v1::ReceiptKind::Read && covers(late) {
                return;
            }
        }
    };
    expect("the receipt of what was read", receipts).await;
}
