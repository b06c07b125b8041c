//! Promise: an answer sorts behind what it answers, at every device, however slow that device is and however wrong clocks are;
//! and a clock that is too wrong is refused before it drags the others along.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code outside of #[test] functions.

use std::time::{Duration, SystemTime};

use quail_client::Stamp;
use quail_protocol::limits::SEEN_AHEAD_MAX;
use quail_protocol::v1::{self, Reason, publish_down};
use quail_tests::checker::Terms;
use quail_tests::hostile::refusals;
use quail_tests::proxy::{Faults, Proxy};
use quail_tests::raw::{RawClient, RawStream, send};
use quail_tests::witness::{Record, Witness};
use quail_tests::{Person, World, seed};

/// Questions, each with its answer.
const ROUNDS: usize = 20;

fn now_ms() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64
}

async fn lane(world: &World, person: &Person) -> (RawClient, RawStream) {
    let client = RawClient::resume(&world.address(), person.credentials.token.as_bytes()).await;
    let lane = client.publish().await;
    (client, lane)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_sorts_behind_what_it_answers_also_at_a_device_that_is_slow() {
    let (world, record) = (World::start().await, Record::new());
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    // One device of each side is behind a slow network, and one comes when all is over.
    let (slow, late) = (world.log_in("ada").await, world.log_in("bob").await);
    let proxy = Proxy::before(&world, seed());
    proxy.set_both(Faults::slow(Duration::from_millis(300)));
    let slow = slow.by_way_of(proxy.address(&world));
    record.joins(&late);
    let mut phone = Witness::join(&ada, &record).await;
    let mut other = Witness::join(&bob, &record).await;
    let mut slow = Witness::join(&slow, &record).await;
    for round in 1..=ROUNDS {
        phone.send(bob.account(), &format!("question {round}")).await;
        other.has_shown(round).await;
        other.send(ada.account(), &format!("answer {round}")).await;
        phone.has_shown(round).await;
        if round % 5 == 0 {
            // It answers to whatever it was shown by now, which the others have left behind.
            slow.send(bob.account(), &format!("late remark {round}")).await;
        }
    }
    let late = Witness::open(&late, &record).await;
    let remarks = ROUNDS / 5;
    for (device, count) in [
        (&phone, ROUNDS + remarks),
        (&other, ROUNDS + remarks),
        (&slow, 2 * ROUNDS),
        (&late, 2 * ROUNDS + remarks),
    ] {
        device.has_shown(count).await;
    }
    for device in [&phone, &other, &slow] {
        device.has_receipts().await;
    }
    record.assert_kept(Terms { gaps: false, receipts: true });
}

#[tokio::test]
async fn a_stamp_that_was_seen_is_merged_up_to_11_s_ahead_and_refused_beyond() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let (_ada, mut from_ada) = lane(&world, &ada).await;
    let (_bob, mut from_bob) = lane(&world, &bob).await;
    let ahead = SEEN_AHEAD_MAX.as_millis() as u64;

    // A minute is more than clocks may differ. Nothing of it is merged.
    let beyond = Stamp::from_ms(now_ms() + 60_000);
    let refused =
        from_ada.say(v1::Send { seen: beyond.0, ..send(1, bob.account(), "from the future") }).await;
    let publish_down::Frame::Refused(refused) = refused else { panic!("accepted") };
    let error = refused.error.unwrap();
    assert_eq!((error.reason(), error.temporary), (Reason::Clock, false));
    assert_eq!(refusals(&world, Reason::Clock).await, 1.0);

    // What another node's clock may well say is merged: the message sorts behind it, and so does everything after that, also
    // of somebody who has seen nothing.
    let seen = Stamp::from_ms(now_ms() + ahead - 1_000);
    let first =
        accepted(&mut from_ada, v1::Send { seen: seen.0, ..send(2, bob.account(), "a little ahead") }).await;
    assert!(seen < first && first < beyond);
    let second = accepted(&mut from_bob, send(1, ada.account(), "from now")).await;
    assert!(first < second);
}

async fn accepted(lane: &mut RawStream, send: v1::Send) -> Stamp {
    match lane.say(send).await {
        publish_down::Frame::Accepted(accepted) => Stamp(accepted.stamp),
        publish_down::Frame::Refused(refused) => panic!("{refused:?}"),
    }
}
