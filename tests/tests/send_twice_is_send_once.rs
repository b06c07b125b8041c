//! Promise: sending the same thing again gives the same answer and nothing else, also after the daemon was killed.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use quail_protocol::v1::{self, Reason, publish_down::Frame};
use quail_tests::checker::Terms;
use quail_tests::raw::{RawClient, RawStream, send};
use quail_tests::witness::{Record, Witness};
use quail_tests::{Person, World};

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
    let (mut world, record) = (World::start().await, Record::new());
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    [&ada, &bob].into_iter().for_each(|device| record.joins(device));
    let first = send(1, bob.account(), "once");
    record.sends(&ada, &first);
    let (_client, mut publish) = lane(&world, &ada).await;
    let answer = accepted(publish.say(first.clone()).await);
    record.accepted(&ada, &first, &answer);
    assert_eq!(accepted(publish.say(first.clone()).await), answer);
    let (_client, mut other_lane) = lane(&world, &ada).await;
    assert_eq!(accepted(other_lane.say(first.clone()).await), answer);
    world.kill_and_restart().await;
    let (_client, mut publish) = lane(&world, &ada).await;
    assert_eq!(accepted(publish.say(first.clone()).await), answer);

    // Under a new number it is still the same message.
    let renumbered = accepted(publish.say(v1::Send { number: 9, ..first.clone() }).await);
    assert_eq!(renumbered, v1::Accepted { number: 9, ..answer });

    let last = send(10, bob.account(), "last");
    record.sends(&ada, &last);
    let answer_to_last = accepted(publish.say(last.clone()).await);
    record.accepted(&ada, &last, &answer_to_last);
    assert_eq!(answer_to_last.position, answer.position + 1, "repeating took no position");
    let reader = Witness::open(&bob, &record).await;
    reader.has_shown(2).await;
    // What the client drops as known nobody is shown, so the checker cannot see it.
    assert_eq!(reader.client.stats().duplicates_dropped, 0);
    record.assert_kept(Terms { gaps: false, receipts: false });
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
    let (world, record) = (World::start().await, Record::new());
    let (phone, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let tablet = world.log_in("ada").await;
    [&phone, &tablet, &bob].into_iter().for_each(|device| record.joins(device));
    for device in [&phone, &tablet] {
        let (_client, mut lane) = lane(&world, device).await;
        let said = send(1, bob.account(), "hello");
        record.sends(device, &said);
        let answer = accepted(lane.say(said.clone()).await);
        record.accepted(device, &said, &answer);
    }
    // Each of the two shows what the other one sent, and Bob shows both.
    for (device, count) in [(&phone, 1), (&tablet, 1), (&bob, 2)] {
        Witness::open(device, &record).await.has_shown(count).await;
    }
    record.assert_kept(Terms { gaps: false, receipts: false });
}
