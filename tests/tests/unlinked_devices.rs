//! Promise: the owner of an account sees its devices and logs any of them out, at once and for good; nobody else does.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use std::time::{Duration, SystemTime};

use quail_client::{Error, Guest, Options};
use quail_protocol::v1::request::Command;
use quail_protocol::v1::response::Result as Answer;
use quail_protocol::v1::{self, Reason, feed_down, hello_reply, publish_down};
use quail_tests::checker::{Terms, What};
use quail_tests::hostile::metric;
use quail_tests::raw::{RawClient, RawStream, hello, send};
use quail_tests::witness::{Record, Witness};
use quail_tests::{PASSWORD, Person, World, expect, options};

fn reason(answer: Answer) -> Reason {
    match answer {
        Answer::Error(error) => error.reason(),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn unlink(device: impl Into<Vec<u8>>) -> Command {
    Command::UnlinkDevice(v1::UnlinkDevice { device: device.into().into() })
}

fn list() -> Command {
    Command::ListDevices(v1::ListDevices {})
}

async fn resume(world: &World, person: &Person) -> RawClient {
    RawClient::resume(&world.address(), person.credentials.token.as_bytes()).await
}

async fn listed(client: &RawClient) -> Vec<v1::Device> {
    match client.request(list()).await {
        Answer::Devices(devices) => devices.devices,
        other => panic!("expected devices, got {other:?}"),
    }
}

#[tokio::test]
async fn an_unlinked_device_is_refused_before_the_answer_and_its_connection_is_told_why() {
    let (world, record) = (World::start().await, Record::new());
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let tablet = world.log_in("ada").await;
    [&ada, &bob, &tablet].into_iter().for_each(|device| record.joins(device));
    let (owner, lost) = (resume(&world, &ada).await, resume(&world, &tablet).await);
    let mut publish = lost.publish().await;
    says(&record, &tablet, &mut publish, send(1, bob.account(), "before")).await;
    let mut feed = lost.attach(1, vec![]).await;
    assert!(matches!(feed.feed().await, feed_down::Frame::CaughtUp(_)));

    let device = tablet.credentials.device;
    assert!(matches!(owner.request(unlink(*device.as_bytes())).await, Answer::Done(_)));
    record.note(device, What::Left);
    // From here on nothing of it counts, on the connection it has or on another one.
    let late = send(2, bob.account(), "after");
    record.sends(&tablet, &late);
    let late = v1::PublishUp { frame: Some(v1::publish_up::Frame::Send(late)) };
    if publish.try_bytes(quail_protocol::frame::to_bytes(&late)).await.is_some()
        && let Some(answer) = publish.read::<v1::PublishDown>().await
    {
        let Some(publish_down::Frame::Refused(refused)) = answer.frame else { panic!("{answer:?}") };
        assert_eq!(refused.error.unwrap().reason(), Reason::Unauthenticated);
    }
    if let Some(frame) = feed.read::<v1::FeedDown>().await {
        let Some(feed_down::Frame::Ended(error)) = frame.frame else { panic!("{frame:?}") };
        assert_eq!(error.reason(), Reason::Unauthenticated);
    }
    assert_eq!(lost.closed().await, Reason::Unauthenticated);
    let again = RawClient::connect(&world.address()).await;
    let hello_reply::Result::Error(error) = again.hello(hello(tablet.credentials.token.as_bytes())).await
    else {
        panic!("a session that ended")
    };
    assert_eq!(error.reason(), Reason::Unauthenticated);
    assert_eq!(listed(&owner).await.len(), 1);

    // Bob has what was sent before, and the next message is the owner's, who has what the tablet sent.
    let mut publish = owner.publish().await;
    says(&record, &ada, &mut publish, send(1, bob.account(), "still here")).await;
    let reader = Witness::open(&bob, &record).await;
    reader.has_shown(2).await;
    let mut feed = owner.attach(1, vec![]).await;
    loop {
        match feed.feed().await {
            feed_down::Frame::Event(event) => record.event(&ada, &event),
            feed_down::Frame::CaughtUp(_) => break,
            other => panic!("unexpected {other:?}"),
        }
    }
    record.assert_kept(Terms { gaps: false, receipts: false });
    // If what came too late had been taken it would stand between the two.
    assert_eq!(reader.progress().shown, 2);
}

/// Sends by hand and writes it down.
async fn says(record: &Record, person: &Person, lane: &mut RawStream, send: v1::Send) {
    record.sends(person, &send);
    match lane.say(send.clone()).await {
        publish_down::Frame::Accepted(accepted) => record.accepted(person, &send, &accepted),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_waited_for_an_unlinked_device_waits_no_more() {
    let (world, record) = (World::start().await, Record::new());
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let away = world.log_in("ada").await;
    record.joins(&away);
    let reader = Witness::join(&ada, &record).await;
    let mut sender = Witness::join(&bob, &record).await;
    for number in 0..20 {
        sender.send(ada.account(), &format!("{number}")).await;
    }
    reader.has_shown(20).await;
    sender.has_receipts().await;
    let waiting = async |count: f64| {
        expect("events to wait or not", async {
            while metric(&world, "quail_unacknowledged_events").await != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    };
    waiting(20.0).await;
    reader.client.unlink(away.credentials.device).await.unwrap();
    record.note(away.credentials.device, What::Left);
    waiting(0.0).await;
    record.assert_kept(Terms { gaps: false, receipts: true });
}

#[tokio::test]
async fn the_client_of_an_unlinked_device_ends_for_good() {
    let world = World::start().await;
    let (laptop, tablet) = (world.sign_up("ada").await, world.log_in("ada").await);
    let (owner, lost) = (laptop.open().await, tablet.open().await);
    let mut events = lost.events().await.unwrap();
    owner.unlink(lost.device()).await.unwrap();
    let error = loop {
        match expect("the client to end", events.next()).await {
            Ok(delivery) => drop(delivery.acknowledge()),
            Err(error) => break error,
        }
    };
    assert_eq!(error.reason(), Some(Reason::Unauthenticated), "{error:?}");
    assert!(error.is_final() && error.needs_log_in(), "nothing to wait for");
    let refused = match expect("an answer", lost.send(laptop.account(), "hi")).await {
        Ok(sending) => expect("an answer", sending.accepted()).await.is_err(),
        Err(error) => error.is_final(),
    };
    assert!(refused);
    let address = world.address();
    let opened = quail_client::Client::open(
        &address,
        &tablet.credentials,
        tablet.store.clone(),
        Options { wait_for_server: true, ..options() },
    );
    let error = expect("the refusal", opened).await.err().unwrap();
    assert_eq!(error.reason(), Some(Reason::Unauthenticated), "also for one that waits for its server");
    // Unlinking again is no error, and unlinking oneself is logging out.
    owner.unlink(tablet.credentials.device).await.unwrap();
    owner.unlink(owner.device()).await.unwrap();
    assert_eq!(owner.devices().await.unwrap_err(), Error::LoggedOut);
}

#[tokio::test]
async fn a_list_says_what_each_device_is_and_when_it_was_seen() {
    let mut world = World::start().await;
    let address = world.address();
    let guest = Guest::connect(
        &address,
        Options { platform: Some("android 15".into()), device_name: Some("phone".into()), ..options() },
    );
    let phone = guest.await.unwrap().sign_up("ada", PASSWORD, None).await.unwrap();
    let laptop = world.log_in("ada").await;
    let away = world.log_in("ada").await;
    let client = laptop.open().await;
    let devices = client.devices().await.unwrap();
    let shown: Vec<_> = devices.iter().map(|one| (one.id, &*one.platform, one.is_current)).collect();
    let os = std::env::consts::OS;
    assert_eq!(
        shown,
        [
            (phone.device, "android 15", false),
            (laptop.credentials.device, os, true),
            (away.credentials.device, os, false)
        ]
    );
    assert_eq!(devices[0].name, "phone");
    let now = SystemTime::now();
    for device in &devices {
        assert!(device.created <= device.last_seen && device.last_seen <= now + Duration::from_secs(1));
    }
    // A daemon that stops in good order loses none of it: a device was seen when its last connection ended.
    let before = client.devices().await.unwrap()[1].last_seen;
    let (_away, seen_connected) = (away.open().await, SystemTime::now());
    drop(client);
    world.daemon.stop().await.unwrap();
    world.daemon.restart().await.unwrap();
    let again = laptop.open().await;
    let devices = again.devices().await.unwrap();
    let after = |device: usize| devices[device].last_seen;
    assert!(after(1) >= before && after(2) + Duration::from_millis(2) >= seen_connected, "{devices:?}");
    assert_eq!(devices[0].platform, "android 15");
}

#[tokio::test]
async fn devices_of_another_account_are_nobodys_business() {
    let world = World::start().await;
    let (ada, eve) = (world.sign_up("ada").await, world.sign_up("eve").await);
    let tablet = world.log_in("ada").await;
    let (owner, stranger) = (resume(&world, &ada).await, resume(&world, &eve).await);
    let seen = listed(&stranger).await;
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].id, eve.credentials.device.to_bytes());
    // Somebody else's device, none at all, and one that was unlinked before are one answer.
    let foreign = stranger.request(unlink(*tablet.credentials.device.as_bytes())).await;
    let unknown = stranger.request(unlink([7; 16])).await;
    assert_eq!(foreign, unknown);
    let kept = resume(&world, &tablet).await;
    assert!(matches!(kept.request(Command::Ping(v1::Ping {})).await, Answer::Pong(_)), "it is still there");
    for _ in 0..2 {
        let unlinked = owner.request(unlink(*tablet.credentials.device.as_bytes())).await;
        assert_eq!(unlinked, unknown);
    }
    assert_eq!(kept.closed().await, Reason::Unauthenticated);
    assert_eq!(listed(&owner).await.len(), 1);
}

#[tokio::test]
async fn bad_input_is_refused_and_changes_nothing() {
    let world = World::start().await;
    let ada = world.sign_up("ada").await;
    let owner = resume(&world, &ada).await;
    let device = ada.credentials.device;
    for wrong in [vec![], vec![1; 15], vec![1; 17], [&device.as_bytes()[..], &[0]].concat(), vec![0; 8_000]] {
        assert_eq!(reason(owner.request(unlink(wrong)).await), Reason::Malformed);
    }
    assert_eq!(listed(&owner).await.len(), 1);

    let guest = RawClient::connect(&world.address()).await;
    assert!(matches!(guest.hello(hello(b"")).await, hello_reply::Result::Welcome(_)));
    for command in [list(), unlink(*device.as_bytes()), unlink([1; 3])] {
        assert_eq!(reason(guest.request(command).await), Reason::Unauthenticated);
    }
    for platform in ["x".repeat(33), "a\u{1b}[2J".into(), "a\nb".into(), "\u{9b}".into(), "\0".into()] {
        let (handle, password) = ("bob".to_owned(), PASSWORD.to_owned());
        let sign_up = v1::SignUp { handle, password, platform: platform.clone(), ..Default::default() };
        assert_eq!(reason(guest.request(Command::SignUp(sign_up)).await), Reason::Malformed);
        let (handle, password) = ("ada".to_owned(), PASSWORD.to_owned());
        let log_in = v1::LogIn { handle, password, platform, ..Default::default() };
        assert_eq!(reason(guest.request(Command::LogIn(log_in)).await), Reason::Malformed);
    }
    assert_eq!(listed(&owner).await.len(), 1, "nobody was logged in");
    let (handle, password, platform) = ("bob".to_owned(), PASSWORD.to_owned(), "x".repeat(32));
    let sign_up = v1::SignUp { handle, password, platform, ..Default::default() };
    assert!(matches!(guest.request(Command::SignUp(sign_up)).await, Answer::Session(_)));
    assert_eq!(listed(&guest).await[0].platform, "x".repeat(32));
}

#[tokio::test]
async fn of_two_that_unlink_each_other_one_stays() {
    let world = World::start().await;
    let (one, other) = (world.sign_up("ada").await, world.log_in("ada").await);
    let (first, second) = (resume(&world, &one).await, resume(&world, &other).await);
    let _ = tokio::join!(
        first.try_request(unlink(*other.credentials.device.as_bytes())),
        second.try_request(unlink(*one.credentials.device.as_bytes())),
    );
    let mut alive = 0;
    for person in [&one, &other] {
        let client = RawClient::connect(&world.address()).await;
        let reply = client.hello(hello(person.credentials.token.as_bytes())).await;
        alive += usize::from(matches!(reply, hello_reply::Result::Welcome(_)));
    }
    assert_eq!(alive, 1, "who was unlinked first unlinked nobody");
}
