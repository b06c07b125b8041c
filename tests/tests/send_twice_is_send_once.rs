//! Promise: sending the same thing again gives the same answer and nothing else, also after the daemon was killed.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use quail_protocol::v1::{self, Reason, publish_down::Frame};
use quail_tests::raw::{RawClient, RawStream, send};
use quail_tests::{Person, World, next_message, text};

async fn lane(world: &World, person: &Person) -> (RawClient, RawStream) {
    let client = RawClient::resume(&world.address(), person.credentials.token.as_bytes()).await;
    let lane = client.publish().await;
    (client, lane)
}

fn accepted(frame: Frame) -> v1::Accepted {
    match frame {
        Frame::Accepted(accepted) => accepted,
        Frame::Refused(refused) => panic!("{refused:?}"),
    }
}

fn refused(frame: Frame) -> Reason {
    match frame {
        Frame::Refused(refused) => refused.error.unwrap().reason(),
        Frame::Accepted(accepted) => panic!("{accepted:?}"),
    }
}

#[tokio::test]
async fn send_twice_is_send_once() {
    let mut world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let first = send(1, bob.account(), "once");
    let (_client, mut publish) = lane(&world, &ada).await;
    let answer = accepted(publish.say(first.clone()).await);
    assert_eq!(accepted(publish.say(first.clone()).await), answer);
    let (_client, mut other_lane) = lane(&world, &ada).await;
    assert_eq!(accepted(other_lane.say(first.clone()).await), answer);
    world.kill_and_restart().await;
    let (_client, mut publish) = lane(&world, &ada).await;
    assert_eq!(accepted(publish.say(first.clone()).await), answer);

    // Under a new number it is still the same message.
    let renumbered = accepted(publish.say(v1::Send { number: 9, ..first.clone() }).await);
    assert_eq!(renumbered, v1::Accepted { number: 9, ..answer });

    let last = accepted(publish.say(send(10, bob.account(), "last")).await);
    assert_eq!(last.position, answer.position + 1, "repeating took no position");
    let client = bob.open().await;
    let mut events = client.events().await.unwrap();
    assert_eq!(text(&next_message(&mut events).await), "once");
    assert_eq!(text(&next_message(&mut events).await), "last");
    assert_eq!(client.stats().duplicates_dropped, 0);
}

#[tokio::test]
async fn the_same_number_or_id_for_another_message_is_refused() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let (_client, mut publish) = lane(&world, &ada).await;
    let first = send(5, bob.account(), "first");
    accepted(publish.say(first.clone()).await);
    let mut other = first.clone();
    other.body = "another".into();
    assert_eq!(refused(publish.say(other.clone()).await), Reason::IdReused);
    other.number = 6;
    assert_eq!(refused(publish.say(other).await), Reason::IdReused);
    assert_eq!(refused(publish.say(send(5, bob.account(), "first")).await), Reason::NumberReused);
    assert_eq!(refused(publish.say(send(4, bob.account(), "skipped")).await), Reason::NumberPassed);
    // None of these refusals is temporary, so the lane goes on.
    accepted(publish.say(send(7, bob.account(), "second")).await);
}

#[tokio::test]
async fn two_devices_may_use_the_same_numbers() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let tablet = world.log_in("ada").await;
    let (_first, mut phone_lane) = lane(&world, &ada).await;
    let (_second, mut tablet_lane) = lane(&world, &tablet).await;
    let phone = accepted(phone_lane.say(send(1, bob.account(), "phone")).await);
    let tablet = accepted(tablet_lane.say(send(1, bob.account(), "tablet")).await);
    assert_ne!(phone.position, tablet.position);
}
