//! Promise: what a device claims wrongly on its lanes is refused for its own reason or told as a gap, is counted, and has no
//! effect on anybody.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code outside of #[test] functions.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use quail_protocol::limits::{ID_AGE_MAX, ID_AHEAD_MAX};
use quail_protocol::v1::event::Body;
use quail_protocol::v1::{self, Reason, feed_down::Frame, publish_down};
use quail_tests::hostile::{metric, refusals};
use quail_tests::raw::{RawClient, RawStream, send};
use quail_tests::{Person, World};

async fn resume(world: &World, person: &Person) -> RawClient {
    RawClient::resume(&world.address(), person.credentials.token.as_bytes()).await
}

fn at(position: u64) -> Vec<v1::Cursor> {
    vec![v1::Cursor { origin: 1, position }]
}

/// Ada writes to Bob so many times. Returns the position of the last.
async fn write(world: &World, ada: &Person, bob: &Person, count: u64) -> u64 {
    let client = resume(world, ada).await;
    let mut lane = client.publish().await;
    let mut last = 0;
    for number in 1..=count {
        match lane.say(send(number, bob.account(), "hi")).await {
            publish_down::Frame::Accepted(accepted) => last = accepted.position,
            publish_down::Frame::Refused(refused) => panic!("{refused:?}"),
        }
    }
    last
}

/// Returns what comes until the feed has caught up.
async fn waiting(feed: &mut RawStream) -> Vec<Frame> {
    let mut frames = Vec::new();
    loop {
        match feed.feed().await {
            Frame::CaughtUp(_) => return frames,
            frame => frames.push(frame),
        }
    }
}

fn messages(frames: &[Frame]) -> Vec<u64> {
    let position = |frame: &Frame| match frame {
        Frame::Event(v1::Event { position, body: Some(Body::Message(_)), .. }) => Some(*position),
        _ => None,
    };
    frames.iter().filter_map(position).collect()
}

/// Returns what a device of an account is told when it attaches, as if it had never done so.
async fn told(world: &World, person: &Person, number: u64) -> Vec<Frame> {
    let client = resume(world, person).await;
    waiting(&mut client.attach(number, vec![]).await).await
}

fn refused(frame: publish_down::Frame) -> Reason {
    match frame {
        publish_down::Frame::Refused(refused) => refused.error.unwrap().reason(),
        publish_down::Frame::Accepted(accepted) => panic!("{accepted:?}"),
    }
}

#[tokio::test]
async fn acknowledging_what_was_never_sent_ends_the_feed_and_nothing_else() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let last = write(&world, &ada, &bob, 2).await;
    let client = resume(&world, &bob).await;
    let mut feed = client.attach(1, vec![]).await;
    assert_eq!(waiting(&mut feed).await.len(), 2);
    feed.ack(1, last + 1).await;
    let Frame::Ended(error) = feed.feed().await else { panic!("it must end") };
    assert_eq!(error.reason(), Reason::AckInvalid);
    assert_eq!(refusals(&world, Reason::AckInvalid).await, 1.0);
    // The connection goes on, nothing was acknowledged, and nobody was told that anything was.
    assert_eq!(messages(&waiting(&mut client.attach(2, vec![]).await).await).len(), 2);
    assert_eq!(told(&world, &ada, 1).await, []);
    assert_eq!(metric(&world, "quail_unacknowledged_events").await, 2.0);
}

#[tokio::test]
async fn an_acknowledgement_of_what_one_never_got_is_no_receipt() {
    let world = World::start().await;
    let (ada, bob, eve) =
        (world.sign_up("ada").await, world.sign_up("bob").await, world.sign_up("eve").await);
    let last = write(&world, &ada, &bob, 3).await;
    let client = resume(&world, &eve).await;
    let mut feed = client.attach(1, vec![]).await;
    assert_eq!(waiting(&mut feed).await, []);
    feed.ack(1, last).await;
    // A newer feed on the same connection is decided behind that. It names another device's cursor, to no end either.
    assert_eq!(waiting(&mut client.attach(2, at(last)).await).await, []);
    assert_eq!(told(&world, &ada, 1).await, [], "a receipt for what Eve never got");
    assert_eq!(metric(&world, "quail_unacknowledged_events").await, 3.0);
    assert_eq!(messages(&told(&world, &bob, 1).await).len(), 3, "and Bob still gets it");
}

#[tokio::test]
async fn a_cursor_of_another_device_moves_no_other_device() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let tablet = world.log_in("bob").await;
    let last = write(&world, &ada, &bob, 3).await;
    // The tablet names what is not its own. It gets nothing of that, as it said, and the phone gets all.
    let client = resume(&world, &tablet).await;
    assert_eq!(waiting(&mut client.attach(1, at(last)).await).await, []);
    assert_eq!(messages(&told(&world, &bob, 1).await).len(), 3);
    assert_eq!(metric(&world, "quail_unacknowledged_events").await, 3.0 + 1.0, "with one receipt");
}

#[tokio::test]
async fn a_cursor_from_the_future_is_told_as_a_gap() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let last = write(&world, &ada, &bob, 3).await;
    let client = resume(&world, &bob).await;
    let mut feed = client.attach(1, vec![]).await;
    assert_eq!(waiting(&mut feed).await.len(), 3);
    feed.ack(1, last - 1).await;
    for (number, future) in [(2, last + 1_000), (3, u64::MAX)] {
        let frames = waiting(&mut client.attach(number, at(future)).await).await;
        let Some(Frame::Gap(gap)) = frames.first() else { panic!("no gap: {frames:?}") };
        assert_eq!((gap.from, gap.upto), (1, last - 1));
        assert_eq!(messages(&frames), [last], "what waits is delivered");
        assert_eq!(metric(&world, "quail_outbox_gaps_total").await, (number - 1) as f64);
    }
}

#[tokio::test]
async fn ids_of_the_last_60_days_and_the_next_day_are_taken_and_others_not() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let client = resume(&world, &ada).await;
    let mut lane = client.publish().await;
    let (minute, now) = (Duration::from_secs(60), SystemTime::UNIX_EPOCH.elapsed().unwrap());
    let cases = [
        (now - ID_AGE_MAX - minute, false),
        (now - ID_AGE_MAX + minute, true),
        (now + ID_AHEAD_MAX - minute, true),
        (now + ID_AHEAD_MAX + minute, false),
    ];
    for (number, (minted, is_taken)) in (1..).zip(cases) {
        let mut message = send(number, bob.account(), "hi");
        let mut id = message.id.to_vec();
        id[..6].copy_from_slice(&(minted.as_millis() as u64).to_be_bytes()[2..]);
        message.id = Bytes::from(id);
        let answer = lane.say(message).await;
        if is_taken {
            assert!(matches!(answer, publish_down::Frame::Accepted(_)), "{answer:?}");
        } else {
            assert_eq!(refused(answer), Reason::IdTime);
        }
    }
    assert_eq!(refusals(&world, Reason::IdTime).await, 2.0);
    assert_eq!(messages(&told(&world, &bob, 1).await).len(), 2);
}

#[tokio::test]
async fn a_number_or_an_id_that_was_used_is_refused_with_its_reason_and_counted() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let client = resume(&world, &ada).await;
    let mut lane = client.publish().await;
    let first = send(5, bob.account(), "first");
    assert!(matches!(lane.say(first.clone()).await, publish_down::Frame::Accepted(_)));
    let cases = [
        (v1::Send { body: "another".into(), ..first.clone() }, Reason::IdReused),
        (v1::Send { recipient: ada.account().to_bytes(), number: 6, ..first }, Reason::IdReused),
        (send(5, bob.account(), "first"), Reason::NumberReused),
        (send(4, bob.account(), "skipped"), Reason::NumberPassed),
    ];
    for (bad, reason) in cases {
        assert_eq!(refused(lane.say(bad).await), reason);
    }
    for (reason, count) in [(Reason::IdReused, 2.0), (Reason::NumberReused, 1.0), (Reason::NumberPassed, 1.0)]
    {
        assert_eq!(refusals(&world, reason).await, count);
    }
    assert_eq!(messages(&told(&world, &bob, 1).await).len(), 1);
}
